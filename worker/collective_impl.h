/* Inside the collectives: collective.c prepares them, collective_run.c runs them. */
#ifndef TRM_WORKER_COLLECTIVE_IMPL_H
#define TRM_WORKER_COLLECTIVE_IMPL_H

#include "base/team.h"
#include "parallel/comm.h"
#include "worker/engine_impl.h"

/* A dim dealt out to ranks, in units of the storage. [stretch * ranks + rank] */
struct trmi_split {
    int stretches;
    size_t whole;
    size_t *size;     /* of a piece */
    size_t *whole_at; /* where it begins in the whole dim */
    size_t *part_at;  /* and in its rank's part */
    size_t *part;     /* [ranks] size of each rank's part */
};

struct collective {
    trm_kernel base;
    trm_arena *arena; /* holds the kernel */
    trm_comm *comm;
    int ranks, rank;
    trm_dtype dtype;
    trm_layout layout;                /* of input and output */
    size_t elems;                     /* of the input's storage */
    size_t outer, inner;              /* storage as [outer, dim, inner bytes] */
    struct trmi_split split;          /* along axis */
    struct trmi_split split_to;       /* all-to-all: along axis_to */
    size_t middle;                    /* all-to-all: between the two axes */
    bool axis_first;                  /* all-to-all: axis < axis_to */
    bool contiguous;                  /* parts one after another are the whole */
    size_t largest;                   /* bytes of the largest contribution */
    size_t bytes[TRM_COMM_RANKS_MAX]; /* of each rank's part (all-to-all: contribution) */
    size_t part_elems[TRM_COMM_RANKS_MAX];
    int leaves, first, count, most; /* a sum by the tree: trm_comm_reduce_nodes */
    int counts[TRM_COMM_RANKS_MAX]; /* and leaves of each rank; -1 in front: not known */
};

/* collective_run.c */
extern const trm_kernel_ops trmi_all_reduce_ops, trmi_all_gather_ops, trmi_reduce_scatter_ops,
    trmi_shard_ops, trmi_all_to_all_ops, trmi_reduce_tree_ops;

#endif
