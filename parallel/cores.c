/* Dealing CPUs to the ranks of a host. */
#include "parallel/cores.h"

#include <stdlib.h>
#include <string.h>

static int by_core(const void *a, const void *b)
{
    const trm_cpu *x = a, *y = b;
    int cx = x->core >= 0 ? x->core : x->id, cy = y->core >= 0 ? y->core : y->id;

    if (cx != cy)
        return cx < cy ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static bool same_core(const trm_cpu *a, const trm_cpu *b)
{
    return a->core >= 0 && a->core == b->core;
}

int trm_cores_share(trm_cpu *cpus, int count, int rank, int ranks)
{
    int cores = 0, first = 0, last = 0, from, to;

    if (count < ranks || ranks < 1 || rank < 0 || rank >= ranks)
        return 0;
    qsort(cpus, (size_t)count, sizeof(*cpus), by_core);
    for (int i = 0; i < count; i++)
        cores += i == 0 || !same_core(&cpus[i - 1], &cpus[i]);
    if (cores < ranks) { /* hyperthreads of one core go to different ranks */
        from = (int)((int64_t)count * rank / ranks);
        to = (int)((int64_t)count * (rank + 1) / ranks);
        memmove(cpus, cpus + from, (size_t)(to - from) * sizeof(*cpus));
        return to - from;
    }
    from = (int)((int64_t)cores * rank / ranks);
    to = (int)((int64_t)cores * (rank + 1) / ranks);
    for (int i = 0, core = -1; i < count; i++) {
        core += i == 0 || !same_core(&cpus[i - 1], &cpus[i]);
        if (core < from)
            first = i + 1;
        if (core < to)
            last = i + 1;
    }
    memmove(cpus, cpus + first, (size_t)(last - first) * sizeof(*cpus));
    return last - first;
}
