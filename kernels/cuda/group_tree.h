/* Sums by the summation tree (base/tree.h) between the devices of ranks: every rank has the maximal
 * nodes inside its leaves ("parts", fp32), and all get the root. Additions are the tree's, left +
 * right, whichever way the parts come together: the bits are those of one rank and of
 * parallel/comm_tree.c.
 *
 * Small sums are made in one step in peers' memory, as group_sum.h has it: every rank reads all
 * parts and adds them up itself. Without peers' memory small parts come by an all-gather. Large
 * sums are made in two steps: each rank gets the parts of its slice of the elements, adds them, and
 * the slices are gathered, which sends each element twice, however many ranks there are. */
#ifndef TRM_KERNELS_CUDA_GROUP_TREE_H
#define TRM_KERNELS_CUDA_GROUP_TREE_H

#include "base/tree.h"
#include "kernels/cuda/group_sum.h"
#include "kernels/device_group.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The parts of all ranks in the order of their leaves: part i is number part[i] of rank rank[i],
 * and goes on a stack, whose top two become one merges[i] times. */
typedef struct trmi_group_tree {
    int count; /* of parts */
    int depth; /* the most that lie on the stack */
    int most;  /* parts of the rank that has most */
    unsigned char rank[TRM_TREE_LEAVES_MAX], part[TRM_TREE_LEAVES_MAX], merges[TRM_TREE_LEAVES_MAX];
} trmi_group_tree;

/* Where each part begins, in the order of `tree`. */
typedef struct trmi_group_tree_parts {
    const float *at[TRM_TREE_LEAVES_MAX];
} trmi_group_tree_parts;

/* counts [size]: leaves of each rank, which follow one another. parts_out [size]: parts of each.
 * INVALID_ARG unless they are all the leaves. */
TRM_MUST_USE trm_status trmi_cuda_group_tree_plan(int leaves, const int *counts, int size,
                                                  trmi_group_tree *tree_out, int *parts_out);

/* Elements that one step in peers' memory can add. */
size_t trmi_cuda_group_tree_max(const trmi_group_tree *tree);
/* In one step: in: this rank's parts, `stride` elements apart; out [elems], at most
 * trmi_cuda_group_tree_max. All ranks: the same tree and elems. Where a peer does not come, out is
 * not written and words->late is set. */
TRM_MUST_USE trm_status trmi_cuda_group_tree_sum(const trm_cuda *cuda, cudaStream_t stream,
                                                 float *out, const float *in, size_t stride,
                                                 size_t elems, const trmi_group_tree *tree,
                                                 const trmi_group_sum *sum);
/* Of parts that are all in this device's memory. out may be one of them. */
TRM_MUST_USE trm_status trmi_cuda_group_tree_local(const trm_cuda *cuda, cudaStream_t stream,
                                                   float *out, const trmi_group_tree_parts *parts,
                                                   size_t elems, const trmi_group_tree *tree);

/* In one step, then the residual and the norm: in: this rank's parts of `rows` rows, `stride`
 * elements apart; at most trmi_cuda_group_tree_norm_rows, which is 0 for rows that are too long.
 * The bits of trmi_cuda_group_tree_sum and then of trmi_cuda_lm_norm (lm_rows.h). All ranks: the
 * same tree and sizes. Where a peer does not come, nothing is written and words->late is set. */
size_t trmi_cuda_group_tree_norm_rows(size_t width, const trmi_group_tree *tree);
TRM_MUST_USE trm_status trmi_cuda_group_tree_norm(cudaStream_t stream, const float *in,
                                                  size_t stride, size_t rows,
                                                  const trm_group_norm *norm,
                                                  const trmi_group_tree *tree,
                                                  const trmi_group_sum *sum);

#ifdef __cplusplus
}
#endif
#endif
