/* What ranks of a job do together at set-up, over rank 0: every rank sends to it or hears from it
 * alone, so that at the deadline it is known who is missing (an MPI collective only says that it is
 * not done). Set-up messages are small and few. */
#ifndef TRM_PARALLEL_STAR_H
#define TRM_PARALLEL_STAR_H

#include "parallel/job.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { /* MPI tags of ours on MPI_COMM_WORLD */
       TRMI_TAG_HELLO = 30001,
       TRMI_TAG_LIST,
       TRMI_TAG_AGREE,
       TRMI_TAG_VERDICT,
       TRMI_TAG_BROADCAST
};

/* Rank 0: all[rank * bytes ...] gets what each rank gave as `mine`. COMM, and job->lost: names who
 * did not come (`what`: "the roll call") before deadline_us, or has ended. */
TRM_MUST_USE trm_status trmi_star_collect(trm_job *job, int tag, const char *what, const void *mine,
                                          size_t bytes, void *all, int64_t deadline_us);
/* Root's `data` reaches all. COMM, and job->lost: as above. */
TRM_MUST_USE trm_status trmi_star_spread(trm_job *job, int tag, const char *what, void *data,
                                         size_t bytes, int root, int64_t deadline_us);

/* Rank 0 has come to `st` (and trm_message); all return it with its message. When rank 0 has lost a
 * rank, the others hear it here (job->lost, job->told): they need not speak of it themselves. */
TRM_MUST_USE trm_status trmi_star_verdict(trm_job *job, const char *what, trm_status st,
                                          int64_t deadline_us);

/* "rank 3 (node7, pid 4121)", as far as it is known. */
char *trmi_job_who(const trm_job *job, int rank, char *buf, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
