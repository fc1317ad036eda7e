/* See tree.h. */
#include "base/tree.h"

int trm_tree_leaves(int64_t units)
{
    int64_t enough = units < 16 ? units : 16;
    int best = 1;

    for (int n = 2; n <= TRM_TREE_LEAVES_MAX && n <= units; n++)
        if (units % n == 0 && (n <= 32 || best < enough))
            best = n;
    return best;
}

/* adds what of node [lo, hi) lies in [from, to) */
static int split(int lo, int hi, int from, int to, trm_tree_part *parts)
{
    int mid = lo + (hi - lo) / 2, n;

    if (to <= lo || hi <= from)
        return 0;
    if (from <= lo && hi <= to) {
        *parts = (trm_tree_part){lo, hi};
        return 1;
    }
    n = split(lo, mid, from, to, parts);
    return n + split(mid, hi, from, to, parts + n);
}

int trm_tree_parts(int first, int count, int leaves, trm_tree_part *parts)
{
    return count > 0 ? split(0, leaves, first, first + count, parts) : 0;
}

/* counts, at the last leaf of every node inside [from, to), one merge */
static void mark(int lo, int hi, int from, int to, unsigned char *merges)
{
    int mid = lo + (hi - lo) / 2;

    if (to <= lo || hi <= from || hi - lo == 1)
        return;
    if (from <= lo && hi <= to)
        merges[hi - 1 - from]++;
    mark(lo, mid, from, to, merges);
    mark(mid, hi, from, to, merges);
}

void trm_tree_merges(int first, int count, int leaves, unsigned char *merges)
{
    for (int i = 0; i < count; i++)
        merges[i] = 0;
    if (count > 0)
        mark(0, leaves, first, first + count, merges);
}
