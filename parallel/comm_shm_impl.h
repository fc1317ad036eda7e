/* Files of the `shm` row share this: what lies in the segment, and the one wait.
 *
 *     head | a line a rank | a peer record a rank | ring controls | slots: 2 a rank | ring entries
 *
 * A line carries what a rank publishes: a round number, and what it is about. Every collective is
 * one or more rounds; a rank publishes round n and waits until all have. Because nobody publishes
 * n + 1 before it has seen all of n, and so has read all of n - 1, two copies of everything that is
 * read after a round (signs, texts, slots) are enough, used in turn. */
#ifndef TRM_PARALLEL_COMM_SHM_IMPL_H
#define TRM_PARALLEL_COMM_SHM_IMPL_H

#include "base/wait.h"
#include "parallel/comm_impl.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_SHM_TEXT_BYTES 1024
#define TRMI_SHM_LINE 128 /* two cache lines: the prefetcher fetches pairs */

/* A counter that one rank advances and others wait for. `seq` is the truth (stored with release,
 * after what it announces); `bell` is only for sleeping, so that whoever breaks the communicator
 * can wake everybody without touching the truth. */
typedef struct trmi_shm_flag {
    uint32_t seq;
    trm_wait bell;
} trmi_shm_flag;

typedef struct trmi_shm_word { /* what a rank says in a round */
    trmi_sign sign;
    uint64_t arg; /* of the kind: a status, leaves, pieces */
} trmi_shm_word;

typedef struct trmi_shm_line {
    trmi_shm_flag flag;
    trmi_shm_word word[2]; /* by the round's parity */
} trmi_shm_line;

typedef struct trmi_shm_peer { /* written by its rank before it sets `here` */
    uint32_t here;             /* 0 not yet, 1 joined, 2 has left in order */
    int32_t pid;
    int32_t world;  /* rank in the job; -1: none */
    uint64_t start; /* of the process, clock ticks after boot: a reused pid differs */
    char host[64];
    char text[2][TRMI_SHM_TEXT_BYTES]; /* agree's messages, by the round's parity */
} trmi_shm_peer;

typedef struct trmi_shm_ring { /* of one ordered pair; entries sent and entries given back */
    trmi_shm_flag sent;
    char pad[TRMI_SHM_LINE - sizeof(trmi_shm_flag)];
    trmi_shm_flag freed;
    char pad2[TRMI_SHM_LINE - sizeof(trmi_shm_flag)];
} trmi_shm_ring;

typedef struct trmi_shm_head {
    uint64_t magic;
    int32_t size;
    int32_t entries; /* of a ring: messages on their way + the one the receiver holds */
    uint64_t slot_bytes, message_bytes;
    uint32_t broken; /* 0, 1 while the text is written, 2 */
    char why[TRMI_COMM_WHY_BYTES];
} trmi_shm_head;

typedef struct trmi_shm_entry { /* before each entry's data */
    uint64_t total, bytes;      /* of the message, of this entry's part */
    char pad[TRM_ALIGN - 16];
} trmi_shm_entry;

typedef struct trmi_shm_window { /* where things are in a segment */
    trm_segment *segment;
    bool own;
    trmi_shm_head *head;
    char *lines, *slots, *entries;
    trmi_shm_peer *peers;
    trmi_shm_ring *rings;
    uint32_t round; /* this rank's, in this window */
    uint32_t turn;  /* uses of a slot */
} trmi_shm_window;

typedef struct trmi_shm_from { /* this rank's side of messages from a peer */
    uint64_t taken;            /* entries given back */
    bool lent;                 /* the caller holds the next entry */
    void *buffer;              /* for messages of several entries */
    size_t buffer_bytes;
} trmi_shm_from;

typedef struct trmi_shm {
    struct trm_comm base;
    trmi_shm_window w;
    int spin_us, world;
    int64_t timeout_ms, next_look;             /* next_look: of loops that try */
    uint64_t *sent;                            /* [size]: entries sent to each */
    trmi_shm_from *from;                       /* [size] */
    const void **srcs;                         /* [size]: scratch */
    trmi_tree_part parts[TRM_TREE_LEAVES_MAX]; /* scratch */
    const char *doing;                         /* for messages: the call */
} trmi_shm;

static inline trmi_shm_line *trmi_shm_line_of(const trmi_shm_window *w, int rank)
{
    return (trmi_shm_line *)(void *)(w->lines + (size_t)rank * TRMI_SHM_LINE);
}
/* The slot that rank's next contribution goes to. */
static inline char *trmi_shm_slot(const trmi_shm_window *w, int rank)
{
    return w->slots + ((size_t)rank * 2 + (w->turn & 1)) * w->head->slot_bytes;
}
static inline trmi_shm_ring *trmi_shm_ring_of(const trmi_shm_window *w, int from, int to)
{
    return &w->rings[from * w->head->size + to];
}
trmi_shm_entry *trmi_shm_entry_of(const trmi_shm_window *w, int from, int to, uint64_t index);

/* ---- comm_shm_wait.c ---- */
void trmi_shm_post(trmi_shm_flag *flag, uint32_t seq);
/* Waits until `flag`, which rank `from` advances, has reached `want`. COMM: `from` or another rank
 * has died, `from` has left or is late, or somebody has broken the communicator; the text says
 * which and that `doing` was waited for. `idle`: no deadline. */
TRM_MUST_USE trm_status trmi_shm_await(trmi_shm *s, trmi_shm_flag *flag, uint32_t want, int from,
                                       bool idle);
/* The row's look, for messages of `from`. */
trm_status trmi_shm_look(trm_comm *c, int from);
bool trmi_shm_reached(const trmi_shm_flag *flag, uint32_t want);
/* Marks the window as broken, for everybody; wakes all. The first text stays. */
void trmi_shm_break(trmi_shm_window *w, const char *why);
void trmi_shm_join(const trmi_shm *s, trmi_shm_window *w); /* this process's peer record */
void trmi_shm_leave(trmi_shm *s);

/* ---- comm_shm.c ---- */
trm_status trmi_shm_reserve(trmi_shm *s, const trm_comm_needs *needs);

/* ---- comm_shm_window.c ---- */
/* Publishes `word` and waits for all; then their words of this round are readable. The signs agree
 * on OK. */
TRM_MUST_USE trm_status trmi_shm_round(trmi_shm *s, trmi_shm_word word);
const trmi_shm_word *trmi_shm_word_of(const trmi_shm *s, int rank); /* of the last round */
trm_status trmi_shm_collective(trm_comm *c, const trmi_call *call);
/* As collective agree, inside another call. */
TRM_MUST_USE trm_status trmi_shm_agree(trmi_shm *s, trmi_sign sign, trm_status mine);

/* ---- comm_shm_ring.c ---- */
trm_status trmi_shm_send(trm_comm *c, int to, const trm_piece *pieces, int count);
trm_status trmi_shm_receive(trm_comm *c, int from, bool idle, const void **data_out,
                            size_t *bytes_out);
bool trmi_shm_pending(trm_comm *c, int from);

#ifdef __cplusplus
}
#endif
#endif
