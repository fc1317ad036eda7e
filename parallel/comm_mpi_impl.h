/* Files of the `mpi` row share this. Include it only from .c files: it brings mpi.h. */
#ifndef TRM_PARALLEL_COMM_MPI_IMPL_H
#define TRM_PARALLEL_COMM_MPI_IMPL_H

#include "parallel/comm_impl.h"

#include <mpi.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TRMI_TAG_DATA = 1, TRMI_TAG_MESSAGE, TRMI_TAG_BROKEN };

typedef struct trmi_mpi_buffer {
    char *data; /* aligned */
    size_t bytes;
} trmi_mpi_buffer;

typedef struct trmi_mpi_out { /* a message on its way */
    trmi_mpi_buffer buffer;
    MPI_Request request; /* MPI_REQUEST_NULL: free */
} trmi_mpi_out;

typedef struct trmi_mpi_peer {
    int world; /* rank in the job, and in `comm` */
    int pid;
    char host[64];
} trmi_mpi_peer;

typedef struct trmi_mpi {
    struct trm_comm base;
    trm_job *job;
    MPI_Comm comm; /* the job's ranks */
    trmi_mpi_peer *peers;
    int spin_us, messages;
    int64_t timeout_ms, next_look; /* next_look: of loops that try */
    size_t slot_bytes;
    trmi_mpi_buffer window, work;              /* what others sent; sums */
    trmi_mpi_buffer *received;                 /* [size]: the last message of each */
    trmi_mpi_out *out;                         /* [size * messages] */
    MPI_Request *requests;                     /* [2 * size]: receives, then sends */
    const void **srcs;                         /* [size] */
    size_t *sizes;                             /* [4 * size] */
    trmi_tree_part parts[TRM_TREE_LEAVES_MAX]; /* scratch */
    const char *doing;
} trmi_mpi;

/* ---- comm_mpi_wait.c ---- */
typedef struct trmi_mpi_pause {
    int64_t start, deadline, look;
    unsigned nap_us, nap_most_us;
} trmi_mpi_pause;

void trmi_mpi_pause_start(const trmi_mpi *m, bool idle, trmi_mpi_pause *p);
/* One turn of a wait loop: nothing at first, then naps. COMM: somebody has broken the group;
 * TIMEOUT: the deadline has passed. */
TRM_MUST_USE trm_status trmi_mpi_pause_turn(trmi_mpi *m, trmi_mpi_pause *p);
trm_status trmi_mpi_look(trm_comm *c, int from); /* the row's look */
TRM_MUST_USE trm_status trmi_mpi_failed(trmi_mpi *m, const char *what, int rc);
/* `rank` is late (or has sent something wrong, as `did` says); MPI is not used again after that. */
TRM_MUST_USE trm_status trmi_mpi_lose(trmi_mpi *m, int rank, const char *did);
/* Waits for n requests. [0, receives) are receives from the ranks of that number, then sends. */
TRM_MUST_USE trm_status trmi_mpi_wait(trmi_mpi *m, MPI_Request *requests, int n);
void trmi_mpi_tell_broken(trmi_mpi *m, const char *why);
TRM_MUST_USE trm_status trmi_mpi_grow(const trmi_mpi *m, trmi_mpi_buffer *b, size_t bytes);

/* ---- comm_mpi_window.c ---- */
/* Sends to_bytes[r] at to[r] and receives from_bytes[r] to from[r], for each other rank r. Sizes of
 * 0 make no message. */
TRM_MUST_USE trm_status trmi_mpi_swap(trmi_mpi *m, const void *const *to, const size_t *to_bytes,
                                      void *const *from, const size_t *from_bytes);
/* Every rank's `bytes` bytes at mine to all[rank * bytes]. */
TRM_MUST_USE trm_status trmi_mpi_tell(trmi_mpi *m, const void *mine, size_t bytes, void *all);
trm_status trmi_mpi_collective(trm_comm *c, const trmi_call *call);

/* ---- comm_mpi_message.c ---- */
/* At least `messages` may be on their way to each rank from now on. */
TRM_MUST_USE trm_status trmi_mpi_more_messages(trmi_mpi *m, int messages);
trm_status trmi_mpi_send(trm_comm *c, int to, const trm_piece *pieces, int count);
trm_status trmi_mpi_receive(trm_comm *c, int from, bool idle, const void **data_out,
                            size_t *bytes_out);
bool trmi_mpi_pending(trm_comm *c, int from);

#ifdef __cplusplus
}
#endif
#endif
