/* This process's place in its MPI job, and the few things ranks do together at set-up.
 *
 * Without a launcher's environment (OMPI_COMM_WORLD_SIZE, PMIX_RANK) MPI is not initialised: one
 * rank, every call succeeds at once. With it: MPI_THREAD_FUNNELED, errors returned, yielding while
 * it waits. One owner: the main thread. Every wait has a deadline; after one has expired, or a rank
 * was lost, MPI is not used again and the job ends without MPI_Finalize, which could hang. Waits
 * name who is missing, with its host. */
#ifndef TRM_PARALLEL_JOB_H
#define TRM_PARALLEL_JOB_H

#include "parallel/topology.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_job {
    int rank, size;
    int first;                  /* a part of a job: world rank of its rank 0; else 0 */
    int local_rank, local_size; /* among the ranks of this host */
    bool mpi;                   /* initialised */
    bool lost;                  /* a rank did not answer: MPI is not to be used again */
    bool told;                  /* ... and rank 0 speaks of it: this rank need not */
    trm_topology *topology;
    struct trmi_launcher *launcher; /* while the job comes up */
} trm_job;

/* Collective. Brings MPI up where there is a launcher, calls the roll, and gives the log its rank
 * prefix. All ranks must come within TRM_ROLL_CALL_S seconds (environment, 30; scaled). COMM: names
 * the missing and their hosts. CONFIG: a rank runs another build; names it, its host and both. One
 * rank speaks for all: the others return with an empty message, a little later. Where MPI itself
 * does not come up because of a missing rank, the process says so and ends here, with exit code 1:
 * MPI_Init has no deadline. */
TRM_MUST_USE trm_status trm_job_init(trm_job *job_out);

/* Who is there; valid until trm_job_end. */
const trm_topology *trm_job_topology(const trm_job *job);

/* The ranks [first, first + count) of `whole` as a job of their own, of which this rank is one: for
 * what they do together without the others (trm_job_bcast, trm_job_agree). Not collective; `whole`
 * outlives it. trm_job_part_end frees it and tells `whole` of a loss. */
TRM_MUST_USE trm_status trm_job_part(const trm_job *whole, int first, int count, trm_job *part_out);
void trm_job_part_end(trm_job *part, trm_job *whole);

/* Collective: `bytes` at `data` of `root` reach every rank; small things only. COMM: names who did
 * not take part in time (timeout_ms is scaled). */
TRM_MUST_USE trm_status trm_job_bcast(trm_job *job, void *data, size_t bytes, int root,
                                      int64_t timeout_ms);
/* Collective: a rank must not fail alone. Every rank gives the status of its own set-up; all get
 * the failure of the lowest failing rank with its message ("rank 2: ..."), or OK. COMM and
 * job->lost: names who did not take part in time, or is seen to have ended. */
TRM_MUST_USE trm_status trm_job_agree(trm_job *job, trm_status mine, int64_t timeout_ms);

/* Not collective. `share`: under a launcher, widens this process's CPU mask to all that its cgroup
 * allows and keeps this rank's share of them, whole cores first; all of them where there are fewer
 * CPUs than ranks. Without a launcher, or with `share` false, the mask stays. Sets *threads_out to
 * how many threads the rank should use: max(1, CPUs / ranks of the host that share them). Call it
 * before any thread is made. */
void trm_job_take_cores(const trm_job *job, bool share, int *threads_out);

/* Meets the other ranks and finalises MPI. After a loss, also one that shows only now (a rank that
 * does not come within 20 s), it does not return: the process ends by _exit(exit_code), with
 * standard streams flushed; where rank 0 speaks of the loss, the others let it end first. */
void trm_job_end(trm_job *job, int exit_code);

#ifdef __cplusplus
}
#endif
#endif
