/* Communicators: how the ranks of a group exchange data. One ops table (comm_impl.h), a row each:
 * `self` (one rank), `shm` (ranks of one host: a shared window into which producers write in
 * place), `mpi` (ranks of several hosts); `trace` and `fault` wrap any. Data is host memory; a CUDA
 * row (nccl) comes later.
 *
 * One owner: the executor thread of each rank (the main thread: MPI is FUNNELED). Every wait has a
 * deadline and notices a dead rank of the same host within 2 s; the error names rank, host and what
 * was waited for. After TRM_ERR_COMM the communicator is broken: every further call fails at once.
 * Waiting spins briefly and then sleeps (base/wait; over MPI: naps), so waiting ranks take no core
 * from computing ones.
 *
 * Collectives: all ranks, same order, same arguments; shm, and mpi in checked builds, verify kind,
 * bytes, dtype: COMM on all ranks, which names the rank that differs and both calls.
 * Sums are taken in rank order, in fp32 for F16 and BF16: the same bits on every rank. */
#ifndef TRM_PARALLEL_COMM_H
#define TRM_PARALLEL_COMM_H

#include "base/segment.h"
#include "base/tensor.h"
#include "base/tree.h"
#include "parallel/job.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_comm trm_comm;

#define TRM_COMM_RANKS_MAX 64

typedef enum trm_reduction { TRM_REDUCE_SUM, TRM_REDUCE_MAX } trm_reduction;

/* What a group will need; a window that is too small makes large collectives go in pieces, never
 * fail. */
typedef struct trm_comm_needs {
    size_t slot_bytes;    /* largest contribution of a rank to a collective; 0: 1 MiB */
    size_t message_bytes; /* largest point-to-point message; 0: 1 MiB */
    int messages;         /* of one pair of ranks that may be on their way at once; 0: 4 */
} trm_comm_needs;

int trm_comm_rank(const trm_comm *c);
int trm_comm_size(const trm_comm *c);
const char *trm_comm_name(const trm_comm *c); /* "shm", "trace(mpi)" */

/* ---- making them ---- */
/* One rank. */
TRM_MUST_USE trm_status trm_comm_self_create(trm_comm **comm_out);
/* Collective over the job (every rank of the job calls it, also those outside): the group of world
 * ranks members[0..count), numbered in that order. Picks self, shm (all on one host) or mpi;
 * `hosts` [job->size] numbers each rank's host. Ranks that are no member get NULL. All groups are
 * made at bring-up, none later; destroyed before trm_job_end. `label` is for messages ("replica 1",
 * "stage 0"). Where ranks of a host cannot share memory it warns and takes mpi. TRM_COMM=mpi in
 * the environment takes mpi where shm could serve (tests); TRM_COMM_TRACE=1 wraps in trace;
 * TRM_COMM_FAULT=... in fault (comm_fault.h). */
TRM_MUST_USE trm_status trm_comm_group_create(trm_job *job, const int *hosts, const int *members,
                                              int count, const char *label, trm_comm **comm_out);
/* Without MPI (tests, forks): a segment made before the fork and one communicator a process over
 * it. The segment outlives them; spin_us as trm_wait_change's. */
TRM_MUST_USE trm_status trm_comm_shm_segment(int size, const trm_comm_needs *needs,
                                             trm_segment **segment_out);
TRM_MUST_USE trm_status trm_comm_shm_create(trm_segment *segment, int rank, int size, int spin_us,
                                            trm_comm **comm_out);
/* Wrappers own what they wrap. trace logs each call with bytes and time at DEBUG and keeps counts.
 */
TRM_MUST_USE trm_status trm_comm_trace_create(trm_comm *inner, trm_comm **comm_out);
void trm_comm_destroy(trm_comm *c); /* takes NULL; not collective */

/* Collective. Grows the window for a model that is about to be loaded; never shrinks it. Slots,
 * peers' pointers and received messages from before are invalid after it. INVALID_ARG on all ranks
 * where a message has not been received yet. */
TRM_MUST_USE trm_status trm_comm_reserve(trm_comm *c, const trm_comm_needs *needs);
/* Deadline of each following wait inside a step, ms, scaled by TRM_DEADLINE_SCALE (default 120 s).
 */
void trm_comm_set_timeout(trm_comm *c, int64_t timeout_ms);

/* ---- collectives ---- */
/* Where this rank may write its contribution to the next collective (allreduce, reduce_nodes,
 * reduce_scatter, allgather, exchange) to spare a copy: at least `bytes`, TRM_ALIGN aligned, until
 * that collective returns. NULL in *slot_out: no such place (too large, or the row has none): pass
 * memory of your own. Not collective. */
TRM_MUST_USE trm_status trm_comm_slot_get(trm_comm *c, size_t bytes, void **slot_out);

/* out[i] = reduction over ranks of in[i]; `in` may be the slot or any memory, `out` may equal in
 * unless in is the slot. Collective. dtypes: F32, F64, F16, BF16, I32, I64. */
TRM_MUST_USE trm_status trm_comm_allreduce(trm_comm *c, const void *in, void *out, size_t elems,
                                           trm_dtype dtype, trm_reduction reduction);
/* The layout-invariant sum: a full vector is the sum of `leaves` leaf vectors combined by the tree
 * that halves [0, leaves) recursively (left half gets the smaller part). This rank holds leaves
 * [first, first + count): `parts` are count vectors of `elems` F32. out: the whole sum on every
 * rank, the same bits however leaves are dealt out. Ranks hold ascending, gapless leaf ranges;
 * a rank may hold none. At most TRM_TREE_LEAVES_MAX leaves. Goes in one piece where a slot holds
 * 2 * ceil(log2(leaves)) vectors, or as many as there are leaves. Collective. */
TRM_MUST_USE trm_status trm_comm_reduce_tree(trm_comm *c, const float *parts, int first, int count,
                                             int leaves, size_t elems, float *out);
/* The same of leaves that are summed already as far as they can be: `nodes` are the vectors of
 * trm_tree_parts(first, count, leaves), one after another. `most`: no rank has more of them; the
 * same number on every rank. Goes in one piece where a slot holds `most` vectors; then, and only
 * then, `nodes` may be the slot. Collective. */
TRM_MUST_USE trm_status trm_comm_reduce_nodes(trm_comm *c, const float *nodes, int most, int first,
                                              int count, int leaves, size_t elems, float *out);
/* bytes[size]: each rank's contribution, which arrive in rank order, gapless. Collective. */
TRM_MUST_USE trm_status trm_comm_allgather(trm_comm *c, const void *in, void *out,
                                           const size_t *bytes);
/* Sum, then rank r gets elems[r] elements, in order. `in`: all elements. Collective. */
TRM_MUST_USE trm_status trm_comm_reduce_scatter(trm_comm *c, const void *in, void *out,
                                                const size_t *elems, trm_dtype dtype);
/* in: send_bytes[r] for rank r, one after another; out: recv_bytes[r] from rank r. Collective. */
TRM_MUST_USE trm_status trm_comm_alltoall(trm_comm *c, const void *in, const size_t *send_bytes,
                                          void *out, const size_t *recv_bytes);
/* The general form behind the above, for strided readers: publishes `bytes[rank]` at `in` (slot or
 * any memory) and gives pointers to every rank's contribution, valid until this rank's next
 * collective on c. peers_out: [size]. INVALID_ARG where a contribution exceeds the window
 * (trm_comm_slot_bytes): use the others then. `in` stays as it is until then too: peers_out[rank]
 * may be it. Collective. */
TRM_MUST_USE trm_status trm_comm_exchange(trm_comm *c, const void *in, const size_t *bytes,
                                          const void **peers_out);
size_t trm_comm_slot_bytes(const trm_comm *c);
/* root's bytes reach all. Collective. */
TRM_MUST_USE trm_status trm_comm_broadcast(trm_comm *c, void *data, size_t bytes, int root);
TRM_MUST_USE trm_status trm_comm_barrier(trm_comm *c);
/* A rank must not fail alone: as trm_job_agree, for the group. Collective. */
TRM_MUST_USE trm_status trm_comm_agree(trm_comm *c, trm_status mine);

/* ---- point to point ---- */
/* Buffered: returns when `data` may be reused, which needs no receiver while no more than
 * needs.messages are on their way; then it waits. Messages of a pair arrive in order. `pieces`
 * lets a header and several tensors be one message. */
typedef struct trm_piece {
    const void *data;
    size_t bytes;
} trm_piece;
TRM_MUST_USE trm_status trm_comm_send(trm_comm *c, int to, const trm_piece *pieces, int count);
/* The next message from `from`: *data_out is TRM_ALIGN aligned and valid until the next receive
 * from the same rank. `idle`: a wait without a deadline, broken only by loss (followers waiting for
 * work). */
TRM_MUST_USE trm_status trm_comm_receive(trm_comm *c, int from, bool idle, const void **data_out,
                                         size_t *bytes_out);
/* For loops that wait for something else, too: as receive where a message from `from` has come, or
 * begun to come (its rest has a deadline); else *came_out is false, at once, and what was received
 * from it before stays valid. Tries notice a lost rank as a wait does: COMM. */
TRM_MUST_USE trm_status trm_comm_try_receive(trm_comm *c, int from, bool *came_out,
                                             const void **data_out, size_t *bytes_out);
/* Whether a message from `from` is there. */
bool trm_comm_pending(trm_comm *c, int from);

/* Counters since creation. */
typedef struct trm_comm_stats {
    uint64_t collectives, messages;
    uint64_t collective_bytes, message_bytes; /* this rank's contributions */
    uint64_t wait_us;                         /* time inside calls */
} trm_comm_stats;
void trm_comm_get_stats(const trm_comm *c, trm_comm_stats *stats_out);

#ifdef __cplusplus
}
#endif
#endif
