/* Offsets in one arena: larger stretches first, each at the lowest gap between those already placed
 * whose lifetimes overlap (the greedy-by-size strategy of Pisarchyk & Lee, "Efficient Memory
 * Management for Deep Neural Net Inference", 2020). */
#include "base/arena_plan.h"
#include "base/memory.h"

#include <stdlib.h>

/* qsort has no context argument; a thread plans one arena at a time */
static _Thread_local const trm_lifetime *sort_base;

static int larger_first(const void *a, const void *b)
{
    const trm_lifetime *x = &sort_base[*(const int *)a], *y = &sort_base[*(const int *)b];

    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return *(const int *)a - *(const int *)b;
}

/* `placed` holds indices in ascending offset. */
static size_t lowest_gap(const trm_lifetime *all, const int *placed, int count,
                         const trm_lifetime *s)
{
    size_t at = 0;

    for (int i = 0; i < count; i++) {
        const trm_lifetime *p = &all[placed[i]];

        if (p->birth > s->death || s->birth > p->death)
            continue;
        if (p->offset >= at + s->bytes)
            break;
        if (p->offset + p->bytes > at)
            at = p->offset + p->bytes;
    }
    return at;
}

size_t trm_arena_plan(trm_lifetime *stretches, int count)
{
    int *order = trm_malloc((size_t)count + 1, 2 * sizeof(int));
    int *placed = order == NULL ? NULL : order + count;
    size_t total = 0;

    if (order == NULL) { /* no room to think: side by side is correct */
        for (int i = 0; i < count; i++) {
            stretches[i].offset = total;
            total += stretches[i].bytes;
        }
        return total;
    }
    for (int i = 0; i < count; i++)
        order[i] = i;
    sort_base = stretches;
    qsort(order, (size_t)count, sizeof(int), larger_first);
    for (int i = 0; i < count; i++) {
        trm_lifetime *s = &stretches[order[i]];
        int at = i;

        s->offset = lowest_gap(stretches, placed, i, s);
        while (at > 0 && stretches[placed[at - 1]].offset > s->offset) {
            placed[at] = placed[at - 1];
            at--;
        }
        placed[at] = order[i];
        if (s->offset + s->bytes > total)
            total = s->offset + s->bytes;
    }
    trm_free(order);
    return total;
}
