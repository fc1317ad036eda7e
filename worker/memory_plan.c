/* Offsets in one arena: larger storages first, each at the lowest gap between those already placed
 * whose lifetimes overlap (the greedy-by-size strategy of Pisarchyk & Lee, "Efficient Memory
 * Management for Deep Neural Net Inference", 2020). */
#include "worker/engine_impl.h"

#include <stdlib.h>

/* qsort has no context argument; a thread plans one arena at a time */
static _Thread_local const trmi_storage *sort_base;

static int larger_first(const void *a, const void *b)
{
    const trmi_storage *x = &sort_base[*(const int *)a], *y = &sort_base[*(const int *)b];

    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return *(const int *)a - *(const int *)b;
}

/* `placed` holds indices in ascending offset. */
static size_t lowest_gap(const trmi_storage *all, const int *placed, int count,
                         const trmi_storage *s)
{
    size_t at = 0;

    for (int i = 0; i < count; i++) {
        const trmi_storage *p = &all[placed[i]];

        if (p->birth > s->death || s->birth > p->death)
            continue;
        if (p->offset >= at + s->bytes)
            break;
        if (p->offset + p->bytes > at)
            at = p->offset + p->bytes;
    }
    return at;
}

size_t trmi_plan_offsets(trmi_storage *storages, int count)
{
    int *order = trm_malloc((size_t)count + 1, 2 * sizeof(int));
    int *placed = order == NULL ? NULL : order + count;
    size_t total = 0;

    if (order == NULL) { /* no room to think: side by side is correct */
        for (int i = 0; i < count; i++) {
            storages[i].offset = total;
            total += storages[i].bytes;
        }
        return total;
    }
    for (int i = 0; i < count; i++)
        order[i] = i;
    sort_base = storages;
    qsort(order, (size_t)count, sizeof(int), larger_first);
    for (int i = 0; i < count; i++) {
        trmi_storage *s = &storages[order[i]];
        int at = i;

        s->offset = lowest_gap(storages, placed, i, s);
        while (at > 0 && storages[placed[at - 1]].offset > s->offset) {
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
