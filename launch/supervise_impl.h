/* Shared by supervise.c (what happens when) and supervise_process.c (processes and their output).
 */
#ifndef TRM_LAUNCH_SUPERVISE_IMPL_H
#define TRM_LAUNCH_SUPERVISE_IMPL_H

#include "launch/supervise.h"

#include <sys/types.h>

enum { TRMI_JOB_LINE_MAX = 4096, TRMI_JOB_FAILURES_MAX = 16 };

typedef struct trmi_job {
    char label[32];
    int index;
    pid_t pid;     /* mpirun's, and its group's; 0: does not run */
    int out;       /* read end; -1 */
    int64_t epoch; /* of its life, or its last */
    int64_t started_us;
    int64_t restart_us; /* 0: not to be started */
    int64_t kill_us;    /* SIGKILL then; 0: not asked to end */
    int failures;       /* since a good life */
    int64_t failed_us[TRMI_JOB_FAILURES_MAX];
    int failed_count;
    char line[TRMI_JOB_LINE_MAX]; /* not yet whole */
    size_t line_bytes;
    char last_words[512];
} trmi_job;

/* Forks and executes. IO: it cannot be. */
trm_status trmi_job_start(trmi_job *j, const trm_supervise_options *o);
/* Hands what it has printed on, line by line. True: `text` (NULL: any) was in one of them. */
bool trmi_job_read(trmi_job *j, const trm_supervise_options *o, const char *text);
/* The rest of its output, and the end of it. */
void trmi_job_close(trmi_job *j, const trm_supervise_options *o);

#endif
