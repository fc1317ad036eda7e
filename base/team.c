/* OpenMP behind one function. */
#define _GNU_SOURCE
#include "base/team.h"

#include <omp.h>
#include <sched.h>

static int team_threads = 1; /* written by trm_team_init before regions exist */

static _Thread_local bool alone;

/* CPUs in this process's affinity mask. */
static int allowed_cpus(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
}

void trm_team_init(int threads)
{
    int size = threads > 0 ? threads : allowed_cpus();

    if (size != team_threads) /* other threads may set what it is: OpenMP's setting is a thread's */
        team_threads = size;
    omp_set_dynamic(0);
    omp_set_num_threads(size);
}

void trm_team_alone(void)
{
    alone = true;
    omp_set_num_threads(1);
}

int trm_team_size(void)
{
    return team_threads;
}

void trm_team_for(size_t n, size_t grain, trm_team_fn fn, void *ctx)
{
    size_t parts = grain == 0 ? n : n / grain;

    if (parts > (size_t)team_threads)
        parts = (size_t)team_threads;
    if (parts <= 1 || alone || omp_in_parallel()) {
        if (n > 0)
            fn(ctx, 0, n);
        return;
    }
#pragma omp parallel num_threads((int)parts)
    {
        size_t t = (size_t)omp_get_thread_num(), count = (size_t)omp_get_num_threads();
        size_t begin = n / count * t + (t < n % count ? t : n % count);
        size_t end = begin + n / count + (t < n % count ? 1 : 0);

        if (begin < end)
            fn(ctx, begin, end);
    }
}
