/* Who is there: ranks, hosts, cores, memory, and whether all run the same program. */
#ifndef TRM_PARALLEL_TOPOLOGY_H
#define TRM_PARALLEL_TOPOLOGY_H

#include "parallel/job.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_rank_info {
    char host[64];
    int pid;
    int host_index;        /* 0.. in order of the lowest rank on the host */
    int cores;             /* CPUs this rank may use (its share) */
    int isa;               /* instruction-set level of our kernels (kernels/device.h) */
    uint64_t memory_bytes; /* of the host */
    uint64_t build;        /* hash of the program: ranks of another build are refused */
} trm_rank_info;

typedef struct trm_topology {
    int ranks, hosts;
    trm_rank_info *rank; /* [ranks] */
    int *host_of;        /* [ranks]: rank[i].host_index, as trm_comm_group_create takes it */
} trm_topology;

/* Roll call. Collective: every rank tells its own; all get the list. COMM: a rank is missing after
 * timeout_ms (scaled): names each missing rank and its host as far as the launcher tells it.
 * CONFIG: a rank runs another build: names it, its host and both builds. */
TRM_MUST_USE trm_status trm_topology_gather(trm_job *job, int cores, int64_t timeout_ms,
                                            trm_topology **topology_out);
/* One rank, no MPI. */
TRM_MUST_USE trm_status trm_topology_single(int cores, trm_topology **topology_out);
void trm_topology_destroy(trm_topology *t);
/* "rank 3 (node7, pid 4121)" into buf; returns buf. */
char *trm_topology_rank_text(const trm_topology *t, int rank, char *buf, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
