/* Bring-up of a job: MPI, and the roll call. */
#ifndef TRM_PARALLEL_ROLLCALL_H
#define TRM_PARALLEL_ROLLCALL_H

#include "parallel/job.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fills all of `job`. See trm_job_init for failures; job->told: another rank speaks of it. */
TRM_MUST_USE trm_status trmi_job_bring_up(trm_job *job);

/* For tests: the environment's TRM_JOB_FAULT is `PLACE:KIND:RANK[:MS]`, done by that rank at that
 * place. PLACE: "init" (before MPI_Init), "roll" (after it), "agree". KIND: "late" (sleeps MS),
 * "die" (SIGKILL); and "roll:build:RANK" gives that rank another build id. */
void trmi_job_fault(const trm_job *job, const char *place);

#ifdef __cplusplus
}
#endif
#endif
