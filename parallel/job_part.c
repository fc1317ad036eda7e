/* A part of a job: neighbouring ranks, numbered from 0. Messages go over MPI_COMM_WORLD as those of
 * the whole (star.c), so no communicator is made. */
#include "parallel/job.h"

#include <string.h>

static trm_status part_topology(const trm_topology *t, int first, int count, trm_topology **out)
{
    trm_rank_info *infos = trm_calloc((size_t)count, sizeof(*infos));
    trm_status st;

    if (infos == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "topology of %d ranks", count);
    for (int i = 0; i < count; i++)
        infos[i] = t->rank[first + i];
    st = trm_topology_create(infos, count, out);
    /* a rank has the cores that it has in the whole job: others compute on the rest */
    for (int i = 0; st == TRM_OK && i < count; i++)
        (*out)->rank[i].cores = infos[i].cores;
    trm_free(infos);
    return st;
}

trm_status trm_job_part(const trm_job *whole, int first, int count, trm_job *part_out)
{
    trm_job part = *whole;

    if (first < 0 || count < 1 || first + count > whole->size || whole->rank < first ||
        whole->rank >= first + count)
        return trm_fail(TRM_ERR_INVALID_ARG, "rank %d of %d in a part of ranks %d to %d",
                        whole->rank, whole->size, first, first + count - 1);
    part.first = whole->first + first;
    part.rank = whole->rank - first;
    part.size = count;
    part.launcher = NULL;
    part.topology = NULL;
    TRM_CHECK(part_topology(whole->topology, first, count, &part.topology));
    part.local_rank = part.topology->rank[part.rank].local_rank;
    part.local_size = trm_topology_local_size(part.topology, part.rank);
    *part_out = part;
    return TRM_OK;
}

void trm_job_part_end(trm_job *part, trm_job *whole)
{
    whole->lost = whole->lost || part->lost;
    whole->told = whole->told || part->told;
    trm_topology_destroy(part->topology);
    memset(part, 0, sizeof(*part));
}
