/* The layout-invariant sum over ranks: nodes of the tree of base/tree.h, held by one rank each, are
 * added up to the whole wherever all of them are seen. The order of additions is the tree's whoever
 * does them, so the bits do not depend on how leaves are dealt. */
#include "parallel/comm_impl.h"

#include <string.h>

#define BLOCK 512

int trmi_tree_parts_max(int leaves)
{
    int n = 0;

    for (int span = leaves; span > 1; span -= span / 2)
        n += 2;
    return n < 1 ? 1 : n < leaves ? n : leaves;
}

int trmi_tree_parts(int first, int count, int leaves, trmi_tree_part *parts)
{
    trm_tree_part nodes[TRM_TREE_PARTS_MAX];
    int n = trm_tree_parts(first, count, leaves, nodes);

    for (int i = 0; i < n; i++)
        parts[i] = (trmi_tree_part){.lo = nodes[i].lo, .hi = nodes[i].hi};
    return n;
}

static void add(const float *left, const float *right, size_t n, float *out)
{
    if (n == BLOCK)
        for (size_t i = 0; i < BLOCK; i++)
            out[i] = left[i] + right[i];
    else
        for (size_t i = 0; i < n; i++)
            out[i] = left[i] + right[i];
}

/* Elements [at, at + n), at most BLOCK of them: parts go onto a stack in order; after each the top
 * two become one as often as merges say. */
static void sum_block(const trmi_tree_part *parts, const unsigned char *merges, int count,
                      size_t at, size_t n, float *out)
{
    float room[TRM_TREE_DEPTH_MAX][BLOCK];
    const float *stack[TRM_TREE_DEPTH_MAX];
    int top = 0;

    for (int i = 0; i < count; i++) {
        stack[top++] = parts[i].data + at;
        for (int m = merges[i]; m > 0; m--) {
            top--;
            add(stack[top - 1], stack[top], n, room[top - 1]);
            stack[top - 1] = room[top - 1];
        }
    }
    memmove(out, stack[0], n * sizeof(float));
}

void trmi_tree_sum(const trmi_tree_part *parts, int leaves, size_t at, size_t elems, float *out)
{
    unsigned char all[TRM_TREE_LEAVES_MAX], inside[TRM_TREE_LEAVES_MAX];
    unsigned char merges[TRM_TREE_LEAVES_MAX];
    int count = 0;

    trm_tree_merges(0, leaves, leaves, all);
    for (int end = 0; end < leaves; end = parts[count++].hi) {
        const trmi_tree_part *p = &parts[count];
        int last = p->hi - p->lo - 1;

        /* nodes that end where the part does, but for those inside it */
        trm_tree_merges(p->lo, last + 1, leaves, inside);
        merges[count] = (unsigned char)(all[p->hi - 1] - inside[last]);
    }
    for (size_t i = 0; i < elems; i += BLOCK)
        sum_block(parts, merges, count, at + i, elems - i < BLOCK ? elems - i : BLOCK, out + i);
}

void trmi_tree_sum_leaves(const float *data, size_t stride, int first, int lo, int hi, size_t at,
                          size_t elems, float *out)
{
    trmi_tree_part leaves[TRM_TREE_LEAVES_MAX];

    /* a node is the whole tree of its own leaves */
    for (int i = lo; i < hi; i++)
        leaves[i - lo] = (trmi_tree_part){
            .lo = i - lo, .hi = i - lo + 1, .data = data + (size_t)(i - first) * stride};
    trmi_tree_sum(leaves, hi - lo, at, elems, out);
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
