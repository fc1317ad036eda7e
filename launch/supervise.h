/* The supervisor of `trireme launch`: one coordinator job and one job a replica, each a process
 * (mpirun) of ours in a process group of its own.
 *
 * A job that ends is started again: at once the first time, then after 1, 2, 4 .. 30 s (a life of a
 * minute makes it a first time again). A replica gets a new epoch each time. When the coordinator
 * is lost its replicas are ended, too, and all start anew: nothing of the old cluster is left to
 * meet the new one. A coordinator that ends with 0 was told to: the supervisor ends.
 *
 * Before the cluster was ready for the first time a job that keeps failing is a mistake in the
 * configuration: after 5 failures within 60 s, or an exit code that says so (2: bad input, 127: no
 * such program), the supervisor ends with that job's last words. Afterwards it never gives up: the
 * replicas that are left serve on.
 *
 * No orphan: every job gets SIGTERM from the kernel when the supervisor dies, however that happens
 * (PR_SET_PDEATHSIG); mpirun then ends its ranks. Should mpirun itself be killed, its ranks notice
 * within a second; and a replica that hears nothing of a coordinator ends by its lease (10 s,
 * worker/serve.h).
 *
 * One owner, and the process's only thread: it forks. */
#ifndef TRM_LAUNCH_SUPERVISE_H
#define TRM_LAUNCH_SUPERVISE_H

#include "base/memory.h"

#include <sched.h>

enum { TRM_SUPERVISE_COORDINATOR = 0 }; /* job 0; job 1 + i is replica i */

typedef struct trm_supervise_options {
    int replicas;
    /* argv of a job, NULL-terminated; the array and its strings from trm_malloc
     * (trm_supervise_free_argv). `epoch` counts the job's lives, from 1. */
    trm_status (*command)(void *ctx, int job, int64_t epoch, char ***argv_out);
    /* The CPUs of a job; NULL, or false: all that we have. */
    bool (*cpus)(void *ctx, int job, cpu_set_t *set);
    void *ctx;
    const char *rendezvous; /* a file that the coordinator makes when it can be found; removed here
                               when it is lost, so that nobody meets a dead one */
    const char *ready_text; /* in a line that the coordinator prints once the cluster serves */
    int out;                /* descriptor for the jobs' lines, "replica 1| ..." */
    /* 0: 60,000, 1,000, 30,000, 60,000, 3,000, 10,000; scaled. Drain: what the coordinator may take
     * from the signal to its end. Back-off: first and longest; window: of
     * failures, and a life that counts as good; kill: from SIGTERM to SIGKILL; leave: what replicas
     * may take to end after their coordinator. */
    int64_t drain_ms, backoff_ms, backoff_max_ms, window_ms, kill_ms, leave_ms;
    int failures_max; /* 0: 5 */
} trm_supervise_options;

/* Blocks until all is over. SIGTERM or SIGINT: the coordinator is told to drain (SIGUSR1, which
 * mpirun hands on, where it can be found already, else SIGTERM), it stops the replicas: OK. A
 * second one: everything is ended at once. SIGHUP is handed on to the coordinator's process (keys
 * are read anew). COMM, CONFIG or INVALID_ARG: given up, with the last words of the job; TIMEOUT:
 * the drain took too long, and was cut. */
TRM_MUST_USE trm_status trm_supervise_run(const trm_supervise_options *options);
void trm_supervise_free_argv(char **argv); /* takes NULL */

#endif
