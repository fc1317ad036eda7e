/* The layout-invariant sum. The tree over [0, leaves) halves ranges, the left half gets the smaller
 * part; a node's value is left + right, element by element. A rank holds a contiguous range of
 * leaves, which is the union of at most two nodes a level ("parts"): it sums inside those, and the
 * rest of the tree above them is summed wherever all parts are seen. The order of additions is the
 * tree's whoever does them, so the bits do not depend on how leaves are dealt. */
#include "parallel/comm_impl.h"

#include <string.h>

#define BLOCK 512

static int levels(int leaves)
{
    int n = 0;

    for (int span = leaves; span > 1; span -= span / 2)
        n++;
    return n;
}

int trmi_tree_parts_max(int leaves)
{
    int n = 2 * levels(leaves);

    return n < 1 ? 1 : n < leaves ? n : leaves;
}

/* adds what of node [lo, hi) lies in [from, to) */
static int split(int lo, int hi, int from, int to, trmi_tree_part *parts)
{
    int mid = lo + (hi - lo) / 2, n;

    if (to <= lo || hi <= from)
        return 0;
    if (from <= lo && hi <= to) {
        *parts = (trmi_tree_part){.lo = lo, .hi = hi};
        return 1;
    }
    n = split(lo, mid, from, to, parts);
    return n + split(mid, hi, from, to, parts + n);
}

int trmi_tree_parts(int first, int count, int leaves, trmi_tree_part *parts)
{
    return count > 0 ? split(0, leaves, first, first + count, parts) : 0;
}

struct walk {
    const trmi_tree_part *next; /* the first part not yet used: the walk meets them in order */
    const float *leaves;        /* not NULL: single leaves, `stride` floats apart, from `first` */
    size_t stride;
    int first;
};

/* Returns where the node's elements are: in a part or a leaf, or in dst. */
static const float *node(struct walk *w, int lo, int hi, size_t at, size_t n, float *dst)
{
    const float *left, *right;
    float own[BLOCK];
    int mid = lo + (hi - lo) / 2;

    if (w->leaves != NULL) {
        if (hi - lo == 1)
            return w->leaves + (size_t)(lo - w->first) * w->stride + at;
    } else if (w->next->lo == lo && w->next->hi == hi) {
        return (w->next++)->data + at;
    }
    left = node(w, lo, mid, at, n, dst);
    right = node(w, mid, hi, at, n, own);
    if (n == BLOCK)
        for (size_t i = 0; i < BLOCK; i++)
            dst[i] = left[i] + right[i];
    else
        for (size_t i = 0; i < n; i++)
            dst[i] = left[i] + right[i];
    return dst;
}

static void whole(struct walk start, int lo, int hi, size_t at, size_t elems, float *out)
{
    float block[BLOCK];

    for (size_t i = 0; i < elems; i += BLOCK) {
        struct walk w = start;
        size_t n = elems - i < BLOCK ? elems - i : BLOCK;
        const float *sum = node(&w, lo, hi, at + i, n, block);

        memmove(out + i, sum, n * sizeof(float));
    }
}

void trmi_tree_sum(const trmi_tree_part *parts, int leaves, size_t at, size_t elems, float *out)
{
    whole((struct walk){.next = parts}, 0, leaves, at, elems, out);
}

void trmi_tree_sum_leaves(const float *data, size_t stride, int first, int lo, int hi, size_t at,
                          size_t elems, float *out)
{
    whole((struct walk){.leaves = data, .stride = stride, .first = first}, lo, hi, at, elems, out);
}

trm_status trmi_tree_covers(const trm_comm *c, const int *firsts, const int *counts, int leaves)
{
    int next = 0;

    for (int r = 0; r < c->size; r++) {
        if (counts[r] > 0 && firsts[r] != next)
            return trm_fail(TRM_ERR_COMM,
                            "%s: reduce_tree: rank %d holds leaves [%d, %d), want them from %d on",
                            c->label, r, firsts[r], firsts[r] + counts[r], next);
        next += counts[r];
    }
    if (next != leaves)
        return trm_fail(TRM_ERR_COMM, "%s: reduce_tree: the ranks hold %d of %d leaves", c->label,
                        next, leaves);
    return TRM_OK;
}
