/* The summation tree of layout-invariant sums: the tree over [0, leaves) that halves ranges (the
 * left half gets the smaller part); a node's value is left + right, element by element, in fp32. A
 * rank holds a contiguous range of leaves, which is the union of at most two nodes a level: it sums
 * inside those ("parts"), and what is above them is summed where all parts are seen. The order of
 * additions is the tree's whoever does them, so the bits do not depend on how leaves are dealt out.
 * Arithmetic. */
#ifndef TRM_BASE_TREE_H
#define TRM_BASE_TREE_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_TREE_LEAVES_MAX 128
#define TRM_TREE_PARTS_MAX 16 /* most parts of a range of at most TRM_TREE_LEAVES_MAX leaves */
#define TRM_TREE_DEPTH_MAX 9  /* values held at once while leaves are summed in order */

typedef struct trm_tree_part {
    int lo, hi;
} trm_tree_part;

/* Leaves for a sum over `units` equal units that must not be cut: the largest divisor of `units`
 * that is at most 32; where that is less than min(16, units) the next one, up to
 * TRM_TREE_LEAVES_MAX; at least 1. */
int trm_tree_leaves(int64_t units);
/* The maximal nodes inside [first, first + count), in order; parts: [TRM_TREE_PARTS_MAX]. Returns
 * how many. */
int trm_tree_parts(int first, int count, int leaves, trm_tree_part *parts);
/* For summing leaves [first, first + count) in order with a stack: after pushing leaf first + i,
 * the top two are added (second + top) merges[i] times; what is on the stack at the end are the
 * parts. merges: [count]. */
void trm_tree_merges(int first, int count, int leaves, unsigned char *merges);

#ifdef __cplusplus
}
#endif
#endif
