/* See supervise_impl.h. */
#define _GNU_SOURCE
#include "launch/supervise_impl.h"

#include "base/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

void trm_supervise_free_argv(char **argv)
{
    for (int i = 0; argv != NULL && argv[i] != NULL; i++)
        trm_free(argv[i]);
    trm_free(argv);
}

/* In the child: only what is safe after fork. */
static void become(char **argv, int out, pid_t parent, const cpu_set_t *cpus)
{
    static const int ours[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGPIPE};
    sigset_t none;
    int null;

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) /* it died before the line above */
        _exit(1);
    sigemptyset(&none);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
        (void)signal(ours[i], SIG_DFL); /* no handler of our program runs before the exec */
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    null = open("/dev/null", O_RDONLY);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
        dup2(out, STDERR_FILENO) < 0)
        _exit(1);
    if (cpus != NULL)
        (void)sched_setaffinity(0, sizeof(*cpus), cpus);
    (void)execvp(argv[0], argv);
    dprintf(STDERR_FILENO, "trireme launch: '%s': %s\n", argv[0], strerror(errno));
    _exit(127);
}

trm_status trmi_job_start(trmi_job *j, const trm_supervise_options *o)
{
    pid_t parent = getpid(), pid;
    char **argv = NULL;
    cpu_set_t set;
    bool bound = o->cpus != NULL && o->cpus(o->ctx, j->index, &set);
    int ends[2];

    TRM_CHECK(o->command(o->ctx, j->index, j->epoch + 1, &argv));
    if (pipe2(ends, O_CLOEXEC) != 0) {
        trm_supervise_free_argv(argv);
        return trm_fail(TRM_ERR_IO, "%s: no pipe: %s", j->label, strerror(errno));
    }
    (void)fcntl(ends[0], F_SETFL, O_NONBLOCK);
    pid = fork();
    if (pid == 0)
        become(argv, ends[1], parent, bound ? &set : NULL);
    trm_supervise_free_argv(argv);
    (void)close(ends[1]);
    if (pid < 0) {
        (void)close(ends[0]);
        return trm_fail(TRM_ERR_IO, "%s: no process: %s", j->label, strerror(errno));
    }
    (void)setpgid(pid, pid); /* both sides: whoever comes first */
    j->pid = pid;
    j->out = ends[0];
    j->epoch++;
    j->started_us = trm_now_us();
    j->restart_us = j->kill_us = 0;
    j->line_bytes = 0;
    j->last_words[0] = '\0';
    return TRM_OK;
}

static void put(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);

        if (n < 0 && errno != EINTR)
            return; /* nobody to tell */
        data += n > 0 ? n : 0;
        bytes -= n > 0 ? (size_t)n : 0;
    }
}

/* What a failure is told with: the program's own last line rather than what mpirun says after it.
 */
static void remember(trmi_job *j, const char *line, size_t bytes)
{
    bool ours = bytes > 8 && memcmp(line, "trireme ", 8) == 0;
    size_t most = bytes < sizeof(j->last_words) - 1 ? bytes : sizeof(j->last_words) - 1;

    if (bytes == 0 || line[0] == '-' || (!ours && memcmp(j->last_words, "trireme ", 8) == 0))
        return;
    memcpy(j->last_words, line, most);
    j->last_words[most] = '\0';
}

static bool hand_on(trmi_job *j, const trm_supervise_options *o, const char *text)
{
    char whole[sizeof(j->label) + 2 + TRMI_JOB_LINE_MAX + 1];
    size_t n = (size_t)snprintf(whole, sizeof(whole), "%s| ", j->label);
    bool found = text != NULL && memmem(j->line, j->line_bytes, text, strlen(text)) != NULL;

    remember(j, j->line, j->line_bytes);
    memcpy(whole + n, j->line, j->line_bytes);
    n += j->line_bytes;
    whole[n++] = '\n';
    put(o->out, whole, n);
    j->line_bytes = 0;
    return found;
}

bool trmi_job_read(trmi_job *j, const trm_supervise_options *o, const char *text)
{
    char data[4096];
    bool found = false;
    ssize_t n;

    while (j->out >= 0 && (n = read(j->out, data, sizeof(data))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return found; /* nothing more now */
        for (ssize_t i = 0; i < n; i++) {
            if (data[i] == '\n' || j->line_bytes == sizeof(j->line))
                found = hand_on(j, o, text) || found;
            if (data[i] != '\n')
                j->line[j->line_bytes++] = data[i];
        }
    }
    if (j->out >= 0) { /* all its writers have ended */
        (void)close(j->out);
        j->out = -1;
    }
    return found;
}

void trmi_job_close(trmi_job *j, const trm_supervise_options *o)
{
    (void)trmi_job_read(j, o, NULL);
    if (j->line_bytes > 0)
        (void)hand_on(j, o, NULL);
    if (j->out >= 0)
        (void)close(j->out);
    j->out = -1;
}
