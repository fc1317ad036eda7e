/* For people writing a row of the communicator table: what a call is, what a row provides, and the
 * arithmetic rows share. comm.c checks arguments once, counts, and remembers that a communicator is
 * broken; a row trusts what it is given. */
#ifndef TRM_PARALLEL_COMM_IMPL_H
#define TRM_PARALLEL_COMM_IMPL_H

#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_call_kind {
    TRMI_CALL_BARRIER = 1,
    TRMI_CALL_AGREE,
    TRMI_CALL_ALLREDUCE,
    TRMI_CALL_REDUCE_TREE,
    TRMI_CALL_REDUCE_NODES,
    TRMI_CALL_ALLGATHER,
    TRMI_CALL_REDUCE_SCATTER,
    TRMI_CALL_ALLTOALL,
    TRMI_CALL_EXCHANGE,
    TRMI_CALL_BROADCAST,
    TRMI_CALL_RESERVE,
    TRMI_CALL_COUNT
} trmi_call_kind;

/* One collective call; a wrapper forwards it without knowing which. Fields as the public function's
 * parameters of the same meaning; what a kind does not use is zero. */
typedef struct trmi_call {
    trmi_call_kind kind;
    trm_dtype dtype;
    trm_reduction reduction;
    const void *in;
    void *out;
    size_t elems;         /* allreduce, reduce_* (a vector), broadcast (bytes) */
    const size_t *counts; /* allgather, exchange: bytes; reduce_scatter: elems; alltoall: sent */
    const size_t *recv_counts; /* alltoall */
    const void **peers_out;    /* exchange */
    int first, count, leaves;  /* reduce_tree, reduce_nodes */
    int most;                  /* reduce_nodes */
    int root;                  /* broadcast */
    trm_status mine;           /* agree; trm_message() is its text */
    const trm_comm_needs *needs;
} trmi_call;

typedef struct trm_comm_ops {
    const char *name;
    /* required: all collectives. COMM: the group cannot go on. */
    trm_status (*collective)(trm_comm *c, const trmi_call *call);
    /* optional: NULL: no slots, the caller brings memory */
    trm_status (*slot_get)(trm_comm *c, size_t bytes, void **slot_out);
    size_t (*slot_bytes)(const trm_comm *c); /* required */
    /* the next four: optional where the size is always 1 */
    trm_status (*send)(trm_comm *c, int to, const trm_piece *pieces, int count);
    trm_status (*receive)(trm_comm *c, int from, bool idle, const void **data_out,
                          size_t *bytes_out);
    bool (*pending)(trm_comm *c, int from);
    /* optional: NULL: nobody can be lost. Called in loops while nothing from `from` is there: now
     * and then looks whether somebody is lost; never waits. */
    trm_status (*look)(trm_comm *c, int from);
    void (*set_timeout)(trm_comm *c, int64_t timeout_ms); /* optional: NULL: it never waits */
    /* optional. The rank's own failure in the group's name: tells the others. */
    void (*give_up)(trm_comm *c, const char *why);
    void (*destroy)(trm_comm *c); /* required: frees what it allocated, c included */
} trm_comm_ops;

#define TRMI_COMM_WHY_BYTES 512
#define TRMI_COMM_TIMEOUT_MS 120000

struct trm_comm {
    const trm_comm_ops *ops;
    int rank, size;
    bool broken;
    char name[32];                 /* "shm", "trace(mpi)" */
    char label[48];                /* "replica 1"; "group" until told */
    char why[TRMI_COMM_WHY_BYTES]; /* what broke it */
    trm_comm_stats stats;
};

void trmi_comm_base(trm_comm *c, const trm_comm_ops *ops, int rank, int size);
void trmi_comm_label(trm_comm *c, const char *label);
const char *trmi_call_name(trmi_call_kind kind);
/* Bytes that this rank contributes. */
size_t trmi_call_bytes(const trm_comm *c, const trmi_call *call);

/* ---- agreement of arguments (comm_sign.c) ---- */
/* What must be equal on all ranks of a call. */
typedef struct trmi_sign {
    uint8_t kind, dtype, reduction, root;
    uint32_t check; /* of the counts of each rank, where a call has them */
    uint64_t bytes;
} trmi_sign;

trmi_sign trmi_call_sign(const trm_comm *c, const trmi_call *call);
/* OK, or COMM which names the first rank that differs from rank 0 and what each of them does. Every
 * rank finds the same. signs: one a rank, `stride` bytes apart. */
TRM_MUST_USE trm_status trmi_signs_agree(const trm_comm *c, const void *signs, size_t stride);

/* ---- sums (comm_sum.c) ---- */
bool trmi_sum_supports(trm_dtype dtype);
/* out[i] = reduction over s < count of srcs[s][at + i], in that order, i < elems. `out` may be a
 * source's own [at, at + elems). */
void trmi_sum(const void *const *srcs, int count, size_t at, size_t elems, trm_dtype dtype,
              trm_reduction reduction, void *out);

/* ---- the layout-invariant tree (comm_tree.c) ---- */
typedef struct trmi_tree_part {
    int lo, hi;        /* a node of the tree: leaves [lo, hi) */
    const float *data; /* its sum */
} trmi_tree_part;
/* More parts than this no contiguous range of leaves falls into. */
int trmi_tree_parts_max(int leaves);
/* As trm_tree_parts; parts: [TRM_TREE_PARTS_MAX], data NULL. */
int trmi_tree_parts(int first, int count, int leaves, trmi_tree_part *parts);
/* The whole tree over `leaves`: elements [at, at + elems) of the parts, which cover it exactly,
 * ascending, to `out` (which may be a part's own elements). */
void trmi_tree_sum(const trmi_tree_part *parts, int leaves, size_t at, size_t elems, float *out);
/* Node [lo, hi) from single leaves: leaf i is at data + (i - first) * stride. */
void trmi_tree_sum_leaves(const float *data, size_t stride, int first, int lo, int hi, size_t at,
                          size_t elems, float *out);
/* OK where rank after rank the ranges cover [0, leaves); firsts and counts [size]. */
TRM_MUST_USE trm_status trmi_tree_covers(const trm_comm *c, const int *firsts, const int *counts,
                                         int leaves);

/* ---- rows' own ways in ---- */
/* As trm_comm_shm_create, with the group's label and this rank's number in the job (-1: none). */
TRM_MUST_USE trm_status trmi_comm_shm_create(trm_segment *segment, int rank, int size, int spin_us,
                                             const char *label, int world_rank,
                                             trm_comm **comm_out);
/* The communicator owns the segment from now on. */
void trmi_comm_shm_own(trm_comm *c, trm_segment *segment);
/* Collective over the job; members as in trm_comm_group_create, rank -1: no member, gets NULL. */
TRM_MUST_USE trm_status trmi_comm_mpi_create(trm_job *job, const int *members, int count, int rank,
                                             int spin_us, const char *label, trm_comm **comm_out);

#ifdef __cplusplus
}
#endif
#endif
