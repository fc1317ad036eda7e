/* Who is there: ranks, hosts, cores, memory, and whether all run the same program. The roll call
 * that finds it out is part of trm_job_init; trm_job_topology gives the list. */
#ifndef TRM_PARALLEL_TOPOLOGY_H
#define TRM_PARALLEL_TOPOLOGY_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_HOST_BYTES 64

typedef struct trm_rank_info {
    char host[TRM_HOST_BYTES];
    int pid;
    int host_index;        /* 0.. in order of the lowest rank on the host */
    int local_rank;        /* among the ranks of its host, in order of rank */
    int cores;             /* CPUs of its host divided by the host's ranks, at least 1: what
                            * trm_job_take_cores gives within one */
    int isa;               /* instruction-set level of our kernels (trm_device_isa) */
    uint64_t memory_bytes; /* of the host, or what its cgroup allows */
    uint64_t build;        /* hash of the program: ranks of another build are refused */
    uint64_t machine;      /* of this boot of the host: hosts of equal names are told apart */
    uint64_t pid_space;    /* where pids mean the same process */
} trm_rank_info;

typedef struct trm_topology {
    int ranks, hosts;
    trm_rank_info *rank; /* [ranks] */
    int *host_of;        /* [ranks]: rank[i].host_index, as trm_comm_group_create takes it */
} trm_topology;

/* Takes over infos[ranks] (all but host_index, local_rank; `cores` is the host's CPUs) and works
 * out the rest. */
TRM_MUST_USE trm_status trm_topology_create(const trm_rank_info *infos, int ranks,
                                            trm_topology **topology_out);
/* One rank, no MPI. */
TRM_MUST_USE trm_status trm_topology_single(trm_topology **topology_out);
void trm_topology_destroy(trm_topology *t); /* takes NULL */

/* What this process says of itself at the roll call; `cores`: all CPUs it may have. */
void trm_topology_self(trm_rank_info *info_out);
/* Ranks on the host of `rank`. */
int trm_topology_local_size(const trm_topology *t, int rank);
/* "rank 3 (node7, pid 4121)" into buf; returns buf. */
char *trm_topology_rank_text(const trm_topology *t, int rank, char *buf, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
