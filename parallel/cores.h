/* Which CPUs a rank takes: arithmetic on lists of CPUs, apart from asking the system. */
#ifndef TRM_PARALLEL_CORES_H
#define TRM_PARALLEL_CORES_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_CPUS_MAX 4096

typedef struct trm_cpu {
    int id;   /* as the kernel numbers them */
    int core; /* CPUs of one core have the same value; -1: not known */
} trm_cpu;

/* Sorts by core, then picks the share of `rank` of `ranks`: contiguous, sizes differing by one at
 * most, and no core divided where there are at least as many cores as ranks. Moves the share to the
 * front of `cpus` and returns its size; 0: fewer CPUs than ranks, nothing moved. */
int trm_cores_share(trm_cpu *cpus, int count, int rank, int ranks);

#ifdef __cplusplus
}
#endif
#endif
