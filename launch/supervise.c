/* See supervise.h. One loop sleeps in poll() for signals, output and the next deadline. */
#define _GNU_SOURCE
#include "launch/supervise_impl.h"

#include "base/log.h"
#include "base/wait.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

typedef enum phase {
    SERVING,
    DRAINING, /* the coordinator was told; or it has ended, and the replicas are to */
    ENDING,   /* everything is being ended */
} phase;

typedef struct supervisor {
    trm_supervise_options o; /* with defaults, in scaled ms */
    trmi_job *jobs;          /* [1 + replicas] */
    int job_count;
    int signals;
    struct pollfd *polled; /* [1 + job_count] */
    phase phase;
    bool ready;          /* it has served once */
    int64_t deadline_us; /* DRAINING: for what is awaited now */
    trm_status result;
    char message[1024]; /* of result */
} supervisor;

/* ---- telling processes ---- */

static void tell(const trmi_job *j, int signal)
{
    if (j->pid > 0 && kill(j->pid, signal) != 0 && errno != ESRCH)
        TRM_LOG(TRM_LOG_WARN, "launch", "%s: signal %d: %s", j->label, signal, strerror(errno));
}

/* Ends a job: mpirun hands SIGTERM on as SIGKILL to ranks and cleans up. */
static void end_job(const supervisor *s, trmi_job *j)
{
    j->restart_us = 0;
    if (j->pid == 0 || j->kill_us != 0)
        return;
    tell(j, SIGTERM);
    j->kill_us = trm_now_us() + s->o.kill_ms * 1000;
}

static void end_replicas(supervisor *s)
{
    for (int i = 1; i < s->job_count; i++)
        end_job(s, &s->jobs[i]);
}

static void end_all(supervisor *s)
{
    s->phase = ENDING;
    for (int i = 0; i < s->job_count; i++)
        end_job(s, &s->jobs[i]);
}

/* The outcome: `st` with this thread's message. The first one is the cause, and stays. */
static void conclude(supervisor *s, trm_status st)
{
    if (s->result != TRM_OK)
        return;
    s->result = st;
    snprintf(s->message, sizeof(s->message), "%s", trm_message());
}

static void say(const supervisor *s, const char *fmt, ...) TRM_PRINTF(2, 3);
static void say(const supervisor *s, const char *fmt, ...)
{
    va_list args;

    dprintf(s->o.out, "trireme launch: ");
    va_start(args, fmt);
    vdprintf(s->o.out, fmt, args);
    va_end(args);
    dprintf(s->o.out, "\n");
}

/* ---- the lives of jobs ---- */

static void start(supervisor *s, trmi_job *j)
{
    trm_status st = trmi_job_start(j, &s->o);

    if (st == TRM_OK)
        return;
    conclude(s, st);
    end_all(s);
}

static const char *how(int status, char *buf, size_t bytes)
{
    if (WIFSIGNALED(status))
        snprintf(buf, bytes, "was killed by signal %d", WTERMSIG(status));
    else
        snprintf(buf, bytes, "ended with exit code %d", WEXITSTATUS(status));
    return buf;
}

static void give_up(supervisor *s, const trmi_job *j, int status, int times)
{
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    char text[64];

    how(status, text, sizeof(text));
    if (times > 1)
        snprintf(text, sizeof(text), "ended %d times within %" PRId64 " s", times,
                 s->o.window_ms / 1000);
    conclude(s, trm_fail(code == 2     ? TRM_ERR_INVALID_ARG
                         : code == 127 ? TRM_ERR_NOT_FOUND
                                       : TRM_ERR_COMM,
                         "%s %s before the cluster was ready%s%s", j->label, text,
                         j->last_words[0] != '\0' ? "; its last words: " : "", j->last_words));
    end_all(s);
}

/* Failures of this job within the window, this one among them. */
static int count_failure(const supervisor *s, trmi_job *j, int64_t now)
{
    int n = 0;

    if (now - j->started_us >= s->o.window_ms * 1000)
        j->failures = 0;
    j->failures++;
    memmove(j->failed_us + 1, j->failed_us, sizeof(j->failed_us) - sizeof(j->failed_us[0]));
    j->failed_us[0] = now;
    if (j->failed_count < TRMI_JOB_FAILURES_MAX)
        j->failed_count++;
    while (n < j->failed_count && now - j->failed_us[n] < s->o.window_ms * 1000)
        n++;
    return n;
}

static void failed(supervisor *s, trmi_job *j, int status)
{
    int64_t now = trm_now_us(), wait_ms = 0;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    int times = count_failure(s, j, now);
    char text[64];

    if (!s->ready && (code == 2 || code == 127)) {
        give_up(s, j, status, 1);
        return;
    }
    if (!s->ready && times >= s->o.failures_max) {
        give_up(s, j, status, times);
        return;
    }
    if (j->failures > 1)
        wait_ms = s->o.backoff_ms << (j->failures < 18 ? j->failures - 2 : 16);
    if (wait_ms > s->o.backoff_max_ms)
        wait_ms = s->o.backoff_max_ms;
    j->restart_us = now + wait_ms * 1000;
    say(s, "%s (epoch %" PRId64 ") %s: it is started again %s", j->label, j->epoch,
        how(status, text, sizeof(text)), wait_ms == 0 ? "at once" : "after a pause");
}

/* Replicas that ended just before the coordinator did were its victims: its launcher only took
 * longer to end. Their failures are not their own. */
static void forgive_victims(supervisor *s)
{
    int64_t since = trm_now_us() - s->o.kill_ms * 1000;

    for (int i = 1; i < s->job_count; i++) {
        trmi_job *j = &s->jobs[i];

        if (j->failed_count == 0 || j->failed_us[0] < since)
            continue;
        memmove(j->failed_us, j->failed_us + 1, sizeof(j->failed_us) - sizeof(j->failed_us[0]));
        j->failed_count--;
        j->failures -= j->failures > 0;
    }
}

static void coordinator_ended(supervisor *s, trmi_job *j, int status, bool asked)
{
    char text[64];

    if (s->o.rendezvous != NULL)
        (void)unlink(s->o.rendezvous);
    if (s->phase == SERVING && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        s->phase = DRAINING; /* somebody else told it to */
    } else if (s->phase == SERVING) {
        forgive_victims(s);
        failed(s, j, status);
        if (s->phase != SERVING)
            return;
        end_replicas(s);
        for (int i = 1; i < s->job_count; i++) { /* those that run wait for their end */
            if (s->jobs[i].pid == 0)
                s->jobs[i].restart_us = j->restart_us;
        }
        return;
    } else if (s->phase == DRAINING && !asked && status != 0) {
        conclude(s, trm_fail(TRM_ERR_COMM, "the coordinator %s while it drained%s%s",
                             how(status, text, sizeof(text)),
                             j->last_words[0] != '\0' ? "; its last words: " : "", j->last_words));
    }
    for (int i = 1; i < s->job_count; i++)
        s->jobs[i].restart_us = 0;
    s->deadline_us = trm_now_us() + s->o.leave_ms * 1000; /* it has told them to stop */
}

static void ended(supervisor *s, trmi_job *j, int status)
{
    bool asked = j->kill_us != 0;

    trmi_job_close(j, &s->o);
    (void)kill(-j->pid, SIGKILL); /* what its launcher may have left in its group */
    j->pid = 0;
    j->kill_us = 0;
    if (j->index == TRM_SUPERVISE_COORDINATOR) {
        coordinator_ended(s, j, status, asked);
    } else if (s->phase == SERVING && asked) {
        j->restart_us = s->jobs[0].pid != 0 ? trm_now_us() : s->jobs[0].restart_us;
    } else if (s->phase == SERVING) {
        failed(s, j, status);
    }
}

static void reap(supervisor *s)
{
    for (int i = 0; i < s->job_count; i++) {
        int status = 0;

        if (s->jobs[i].pid > 0 && waitpid(s->jobs[i].pid, &status, WNOHANG) == s->jobs[i].pid)
            ended(s, &s->jobs[i], status);
    }
}

/* ---- signals to us ---- */

static void stop(supervisor *s)
{
    trmi_job *coordinator = &s->jobs[TRM_SUPERVISE_COORDINATOR];

    if (s->phase != SERVING) {
        say(s, "a second signal: ending at once");
        end_all(s);
        return;
    }
    s->phase = DRAINING;
    for (int i = 0; i < s->job_count; i++)
        s->jobs[i].restart_us = 0;
    s->deadline_us = trm_now_us() + s->o.drain_ms * 1000;
    if (coordinator->pid == 0 || (s->o.rendezvous != NULL && access(s->o.rendezvous, F_OK) != 0)) {
        end_all(s); /* nothing to drain yet */
        return;
    }
    tell(coordinator, SIGUSR1);
}

/* mpirun does not hand SIGHUP on: the coordinator's own process is asked. */
static void hang_up(const supervisor *s)
{
    json_t *o = s->o.rendezvous == NULL ? NULL : json_load_file(s->o.rendezvous, 0, NULL);
    json_int_t pid = json_integer_value(json_object_get(o, "pid"));

    if (s->jobs[0].pid > 0 && pid > 1 && pid <= INT32_MAX)
        (void)kill((pid_t)pid, SIGHUP);
    json_decref(o);
}

static void take_signals(supervisor *s)
{
    struct signalfd_siginfo info;

    while (read(s->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGHUP)
            hang_up(s);
        else if (info.ssi_signo != SIGCHLD)
            stop(s);
    }
}

/* ---- time ---- */

static void look_at_clock(supervisor *s)
{
    int64_t now = trm_now_us();

    for (int i = 0; i < s->job_count; i++) {
        trmi_job *j = &s->jobs[i];

        if (j->pid > 0 && j->kill_us != 0 && now >= j->kill_us) {
            (void)kill(-j->pid, SIGKILL);
            j->kill_us = now + s->o.kill_ms * 1000;
        }
        if (s->phase == SERVING && j->pid == 0 && j->restart_us != 0 && now >= j->restart_us)
            start(s, j);
    }
    if (s->phase == DRAINING && now >= s->deadline_us) {
        if (s->jobs[0].pid != 0)
            conclude(s,
                     trm_fail(TRM_ERR_TIMEOUT, "the coordinator did not drain within %" PRId64 " s",
                              s->o.drain_ms / 1000));
        end_all(s);
    }
}

static void earlier(int64_t *until, int64_t us)
{
    if (us != 0 && us < *until)
        *until = us;
}

static int sleep_ms(const supervisor *s)
{
    int64_t now = trm_now_us(), until = now + 3600 * INT64_C(1000000);

    for (int i = 0; i < s->job_count; i++) {
        earlier(&until, s->jobs[i].pid > 0 ? s->jobs[i].kill_us : 0);
        earlier(&until, s->phase == SERVING && s->jobs[i].pid == 0 ? s->jobs[i].restart_us : 0);
    }
    earlier(&until, s->phase == DRAINING ? s->deadline_us : 0);
    return until <= now ? 0 : (int)((until - now + 999) / 1000);
}

/* ---- all of it ---- */

static bool over(const supervisor *s)
{
    for (int i = 0; i < s->job_count; i++)
        if (s->jobs[i].pid != 0)
            return false;
    return s->phase != SERVING;
}

static void loop(supervisor *s)
{
    while (!over(s)) {
        s->polled[0] = (struct pollfd){.fd = s->signals, .events = POLLIN};
        for (int i = 0; i < s->job_count; i++)
            s->polled[1 + i] = (struct pollfd){.fd = s->jobs[i].out, .events = POLLIN};
        if (poll(s->polled, (nfds_t)s->job_count + 1, sleep_ms(s)) < 0 && errno != EINTR) {
            conclude(s, trm_fail(TRM_ERR_IO, "poll: %s", strerror(errno)));
            end_all(s);
        }
        for (int i = 0; i < s->job_count; i++) {
            const char *text = i == TRM_SUPERVISE_COORDINATOR ? s->o.ready_text : NULL;

            if (trmi_job_read(&s->jobs[i], &s->o, text))
                s->ready = true;
        }
        take_signals(s);
        reap(s); /* behind the signal that says so: none is missed */
        look_at_clock(s);
    }
}

static void set_default(int64_t *ms, int64_t value)
{
    *ms = trm_scaled_ms(*ms > 0 ? *ms : value);
}

static trm_status set_up(supervisor *s, const trm_supervise_options *options)
{
    s->o = *options;
    set_default(&s->o.backoff_ms, 1000);
    set_default(&s->o.backoff_max_ms, 30000);
    set_default(&s->o.window_ms, 60000);
    set_default(&s->o.kill_ms, 3000);
    set_default(&s->o.leave_ms, 10000);
    set_default(&s->o.drain_ms, 60000);
    if (s->o.failures_max <= 0 || s->o.failures_max > TRMI_JOB_FAILURES_MAX)
        s->o.failures_max = 5;
    s->job_count = 1 + options->replicas;
    s->jobs = trm_calloc((size_t)s->job_count, sizeof(*s->jobs));
    s->polled = trm_calloc((size_t)s->job_count + 1, sizeof(*s->polled));
    if (s->jobs == NULL || s->polled == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%d jobs", s->job_count);
    for (int i = 0; i < s->job_count; i++) {
        s->jobs[i].index = i;
        s->jobs[i].out = -1;
        s->jobs[i].restart_us = 1; /* now */
        if (i == TRM_SUPERVISE_COORDINATOR)
            snprintf(s->jobs[i].label, sizeof(s->jobs[i].label), "coordinator");
        else
            snprintf(s->jobs[i].label, sizeof(s->jobs[i].label), "replica %d", i - 1);
    }
    return TRM_OK;
}

trm_status trm_supervise_run(const trm_supervise_options *options)
{
    supervisor s = {.signals = -1};
    sigset_t wanted, before;
    trm_status st = set_up(&s, options);

    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    sigaddset(&wanted, SIGTERM);
    sigaddset(&wanted, SIGINT);
    sigaddset(&wanted, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &wanted, &before);
    if (st == TRM_OK) {
        s.signals = signalfd(-1, &wanted, SFD_NONBLOCK | SFD_CLOEXEC);
        if (s.signals < 0)
            st = trm_fail(TRM_ERR_IO, "signalfd: %s", strerror(errno));
    }
    if (st == TRM_OK) {
        look_at_clock(&s);
        loop(&s);
        st = s.result == TRM_OK ? TRM_OK : trm_fail(s.result, "%s", s.message);
    }
    if (s.signals >= 0) { /* what has come meanwhile must not kill us behind the mask */
        struct signalfd_siginfo info;

        while (read(s.signals, &info, sizeof(info)) > 0) {
        }
        (void)close(s.signals);
    }
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    trm_free(s.jobs);
    trm_free(s.polled);
    return st;
}
