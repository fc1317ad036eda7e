/* Runs ONNX backend test cases: folders DIR/<case>/model.onnx with test_data_set_<n>/input_<m>.pb
 * and output_<m>.pb, as the packages libonnx-testdata and onnx hold them.
 *
 * Cases run in a child process, so that a crash or a hang costs one case: the child reports each
 * case over a pipe; when it dies, the parent blames the case it was at and starts another child
 * behind it. The device (and with it OpenMP and oneDNN) is made in the child only.
 *
 * Verdicts. passed: dtype and shape of every output are exact and every element is near (tolerances
 * below). unsupported: Trireme said so (TRM_ERR_UNSUPPORTED), and the file given with --expect
 * lists the operator or the message with a reason. failed: all else, a crash or an unsupported case
 * that is not expected included. Exit code 0: nothing failed and at least --min cases passed. */
#include "tests/conformance/conformance.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    REASON_BYTES = 600,
    CASES_MAX = 20000,
    EXPECTATIONS_MAX = 1000,
    DIRS_MAX = 64,
    JOBS_MAX = 64
};

typedef struct options {
    const char *dirs[DIRS_MAX];
    int dir_count;
    const char *filter;
    bool expects;
    int min, timeout_s, jobs;
    bool list, verbose;
    conf_options run;
} options;

typedef struct test_case {
    char *path; /* folder */
    conf_verdict verdict;
    char *operator_name, *reason, *host_operators;
    int kernels, host_kernels;
} test_case;

typedef struct expectation {
    char *kind, *what, *why; /* kind: "op", "message" or "case" */
} expectation;

static test_case *cases;
static int case_count;
static expectation *expectations;
static int expectation_count;

static const char *case_name(const test_case *c)
{
    const char *slash = strrchr(c->path, '/');

    return slash != NULL ? slash + 1 : c->path;
}

static void die(const char *what, const char *detail)
{
    fprintf(stderr, "conformance: %s %s\n", what, detail);
    exit(2);
}

static void *must(void *block)
{
    if (block == NULL)
        die("out of memory", "");
    return block;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const test_case *)a)->path, ((const test_case *)b)->path);
}

static void collect(const char *dir, const char *filter)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    if (d == NULL)
        die("cannot open folder", dir);
    while ((e = readdir(d)) != NULL) {
        char path[4096];

        if (e->d_name[0] == '.' || (filter != NULL && strstr(e->d_name, filter) == NULL))
            continue;
        if ((size_t)snprintf(path, sizeof(path), "%s/%s/model.onnx", dir, e->d_name) >=
                sizeof(path) ||
            access(path, R_OK) != 0)
            continue;
        if (case_count == CASES_MAX)
            die("too many cases in", dir);
        path[strlen(path) - strlen("/model.onnx")] = '\0';
        cases[case_count++].path = must(strdup(path));
    }
    closedir(d);
}

/* Lines "op NAME: reason" and "message TEXT: reason"; '#' begins a comment. */
static void read_expectations(const char *path)
{
    FILE *f = fopen(path, "r");
    char line[1024];

    if (f == NULL)
        die("cannot read", path);
    if (expectations == NULL)
        expectations = must(calloc(EXPECTATIONS_MAX, sizeof(*expectations)));
    while (fgets(line, sizeof(line), f) != NULL && expectation_count < EXPECTATIONS_MAX) {
        expectation *e = &expectations[expectation_count];
        char *space, *colon;

        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || line[0] == '\0')
            continue;
        space = strchr(line, ' ');
        colon = strstr(line, ": ");
        if (space == NULL || colon == NULL || colon < space)
            die("line without 'KIND WHAT: reason' in", path);
        *space = *colon = '\0';
        e->kind = must(strdup(line));
        e->what = must(strdup(space + 1));
        e->why = must(strdup(colon + 2));
        expectation_count++;
    }
    fclose(f);
}

static const char *expected_why(const test_case *c)
{
    for (int i = 0; i < expectation_count; i++) {
        const expectation *e = &expectations[i];

        bool hit = strcmp(e->kind, "op") == 0     ? strcmp(e->what, c->operator_name) == 0
                   : strcmp(e->kind, "case") == 0 ? strcmp(e->what, case_name(c)) == 0
                                                  : strstr(c->reason, e->what) != NULL;

        /* a case listed by name may also fail; all else must at least have been refused */
        if (hit && (c->verdict == CONF_UNSUPPORTED || strcmp(e->kind, "case") == 0))
            return e->why;
    }
    return NULL;
}

/* ---- children ---- */

typedef struct worker {
    pid_t pid;
    int fd;   /* reports of the child; -1: none */
    int next; /* the case it is at; cases next, next + jobs, ... are its own */
    int64_t since_ms;
    char line[REASON_BYTES + 200];
    size_t used;
} worker;

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The child: runs its cases, writes one line "verdict \t operator \t reason" for each. */
static void child_main(const options *o, int first, int fd)
{
    FILE *out = fdopen(fd, "w");

    if (out == NULL)
        _exit(3);
    for (int i = first; i < case_count; i += o->jobs) {
        conf_result r;

        conf_run_case(cases[i].path, &o->run, &r);
        for (char *p = r.reason; *p != '\0'; p++)
            if (*p == '\n' || *p == '\t')
                *p = ' ';
        fprintf(out, "%d\t%s\t%d\t%d\t%s\t%s\n", (int)r.verdict, r.operator_name, r.kernels,
                r.host_kernels, r.host_operators, r.reason);
        if (fflush(out) != 0)
            _exit(3);
    }
    _exit(0); /* no atexit handlers: they belong to the parent */
}

static void worker_start(const options *o, worker *w)
{
    int fds[2];

    w->fd = -1;
    w->pid = 0;
    w->used = 0;
    if (w->next >= case_count)
        return;
    fflush(NULL);
    if (pipe(fds) != 0)
        die("pipe:", strerror(errno));
    w->pid = fork();
    if (w->pid < 0)
        die("fork:", strerror(errno));
    if (w->pid == 0) {
        close(fds[0]);
        child_main(o, w->next, fds[1]);
    }
    close(fds[1]);
    w->fd = fds[0];
    w->since_ms = now_ms();
}

static void settle(const options *o, int i, conf_verdict verdict, const char *op,
                   const char *reason)
{
    static const char *const names[] = {"passed", "failed", "unsupported"};
    test_case *c = &cases[i];

    c->verdict = verdict;
    c->operator_name = must(strdup(op));
    c->reason = must(strdup(reason));
    if (verdict != CONF_PASSED && o->expects)
        c->verdict = expected_why(c) != NULL ? CONF_UNSUPPORTED : CONF_FAILED;
    if (o->verbose)
        printf("%-11s %s [%s] %s\n", names[c->verdict], case_name(c), op, reason);
}

/* Takes complete lines out of the worker's buffer. */
static void worker_lines(const options *o, worker *w)
{
    char *end;

    while ((end = memchr(w->line, '\n', w->used)) != NULL) {
        char *field[6];
        int fields = 1;
        size_t length = (size_t)(end - w->line) + 1;

        *end = '\0';
        field[0] = w->line;
        for (char *p = w->line; fields < 6 && (p = strchr(p, '\t')) != NULL; fields++) {
            *p++ = '\0';
            field[fields] = p;
        }
        if (fields == 6 && w->next < case_count) {
            cases[w->next].kernels = atoi(field[2]);
            cases[w->next].host_kernels = atoi(field[3]);
            cases[w->next].host_operators = must(strdup(field[4]));
            settle(o, w->next, (conf_verdict)(w->line[0] - '0'), field[1], field[5]);
            w->next += o->jobs;
        }
        memmove(w->line, w->line + length, w->used - length);
        w->used -= length;
        w->since_ms = now_ms();
    }
    if (w->used == sizeof(w->line))
        w->used = 0; /* cannot be: lines are shorter */
}

/* The child has gone, or is to go: blames the case it was at, if any is left, and starts another.
 */
static void worker_end(const options *o, worker *w, bool hung)
{
    char reason[REASON_BYTES];
    int status = 0;

    if (hung)
        kill(w->pid, SIGKILL);
    waitpid(w->pid, &status, 0);
    close(w->fd);
    w->fd = -1;
    if (w->next >= case_count)
        return;
    if (hung)
        snprintf(reason, sizeof(reason), "no answer within %d s", o->timeout_s);
    else if (WIFSIGNALED(status))
        snprintf(reason, sizeof(reason), "crashed: %s", strsignal(WTERMSIG(status)));
    else
        snprintf(reason, sizeof(reason), "the process ended with exit code %d",
                 WEXITSTATUS(status));
    settle(o, w->next, CONF_FAILED, conf_operators(cases[w->next].path), reason);
    w->next += o->jobs;
    worker_start(o, w);
}

static void run_all(const options *o)
{
    worker *workers = must(calloc((size_t)o->jobs, sizeof(*workers)));
    int left = o->jobs;

    for (int j = 0; j < o->jobs; j++) {
        workers[j].next = j;
        worker_start(o, &workers[j]);
    }
    while (left > 0) {
        struct pollfd fds[JOBS_MAX];

        left = 0;
        for (int j = 0; j < o->jobs; j++) {
            fds[j] = (struct pollfd){.fd = workers[j].fd, .events = POLLIN};
            left += workers[j].fd >= 0;
        }
        if (left == 0)
            break;
        if (poll(fds, (nfds_t)o->jobs, 200) < 0 && errno != EINTR)
            die("poll:", strerror(errno));
        for (int j = 0; j < o->jobs; j++) {
            worker *w = &workers[j];

            if (w->fd < 0)
                continue;
            if (fds[j].revents != 0) {
                ssize_t n = read(w->fd, w->line + w->used, sizeof(w->line) - w->used);

                if (n > 0) {
                    w->used += (size_t)n;
                    worker_lines(o, w);
                } else {
                    worker_end(o, w, false);
                }
            } else if (now_ms() - w->since_ms > (int64_t)o->timeout_s * 1000) {
                worker_end(o, w, true);
            }
        }
    }
    free(workers);
}

/* ---- report ---- */

static int by_operator(const void *a, const void *b)
{
    const test_case *x = *(test_case *const *)a, *y = *(test_case *const *)b;
    int order = strcmp(x->operator_name, y->operator_name);

    return order != 0 ? order : by_path(x, y);
}

static void print_unsupported(test_case **list, int count)
{
    qsort(list, (size_t)count, sizeof(*list), by_operator);
    printf("\nunsupported, by operator:\n");
    for (int i = 0; i < count;) {
        const char *why = expected_why(list[i]);
        int n = 1;

        while (i + n < count && strcmp(list[i]->operator_name, list[i + n]->operator_name) == 0)
            n++;
        printf("  %4d  %-28s %s\n", n, list[i]->operator_name, why != NULL ? why : list[i]->reason);
        i += n;
    }
}

/* Where a device has memory of its own: what ran on the host for want of a kernel. */
static void print_host_operators(void)
{
    int kernels = 0, host = 0;
    char seen[4000] = "";

    for (int i = 0; i < case_count; i++) {
        const char *p = cases[i].host_operators;

        kernels += cases[i].kernels;
        host += cases[i].host_kernels;
        while (p != NULL && *p != '\0') {
            size_t n = strcspn(p, ",");
            char word[64];

            snprintf(word, sizeof(word), " %.*s,", (int)n, p);
            if (strstr(seen, word) == NULL && strlen(seen) + strlen(word) < sizeof(seen))
                strcat(seen, word);
            p += n;
            p += strspn(p, ", ");
        }
    }
    if (kernels > 0)
        printf("\n%d kernels, %d of them on the host device:%s\n", kernels, host, seen);
}

static int report(const options *o)
{
    test_case **unsupported = must(calloc((size_t)case_count + 1, sizeof(test_case *)));
    int counts[3] = {0, 0, 0};

    for (int i = 0; i < case_count; i++) {
        test_case *c = &cases[i];

        if (c->verdict == CONF_UNSUPPORTED)
            unsupported[counts[CONF_UNSUPPORTED]] = c;
        counts[c->verdict]++;
    }
    if (counts[CONF_UNSUPPORTED] > 0)
        print_unsupported(unsupported, counts[CONF_UNSUPPORTED]);
    if (counts[CONF_FAILED] > 0) {
        printf("\nfailed:\n");
        for (int i = 0; i < case_count; i++)
            if (cases[i].verdict == CONF_FAILED)
                printf("  %s [%s] %s\n", case_name(&cases[i]), cases[i].operator_name,
                       cases[i].reason);
    }
    print_host_operators();
    printf("\n%d cases: %d passed, %d failed, %d unsupported", case_count, counts[CONF_PASSED],
           counts[CONF_FAILED], counts[CONF_UNSUPPORTED]);
    if (counts[CONF_PASSED] < o->min)
        printf(" (fewer than the %d that must pass)", o->min);
    printf("\n");
    free(unsupported);
    return counts[CONF_FAILED] > 0 || counts[CONF_PASSED] < o->min;
}

static void usage(FILE *to)
{
    fprintf(to,
            "usage: conformance --data DIR [--data DIR...] [--filter TEXT] [--expect FILE...] "
            "[--min N]\n"
            "                   [--jobs N] [--threads N] [--timeout SECONDS] [--no-fold] [--list] "
            "[--device D] [--rounds N] "
            "[--verbose]\n"
            "DIR holds cases: <case>/model.onnx, <case>/test_data_set_0/input_0.pb, output_0.pb, "
            "...\n");
}

static int number(const char *name, const char *text, int min, int max)
{
    char *end;
    long n = strtol(text, &end, 10);

    if (*text == '\0' || *end != '\0' || n < min || n > max)
        die(name, "wants a number in its range");
    return (int)n;
}

static void parse(int argc, char **argv, options *o)
{
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *v = i + 1 < argc ? argv[i + 1] : NULL;

        if (strcmp(a, "--help") == 0) {
            usage(stdout);
            exit(0);
        } else if (strcmp(a, "--list") == 0) {
            o->list = true;
        } else if (strcmp(a, "--verbose") == 0) {
            o->verbose = true;
        } else if (strcmp(a, "--no-fold") == 0) {
            o->run.no_fold = true;
        } else if (v == NULL) {
            usage(stderr);
            die(a, "is unknown or lacks its value");
        } else {
            i++;
            if (strcmp(a, "--data") == 0 && o->dir_count < DIRS_MAX)
                o->dirs[o->dir_count++] = v;
            else if (strcmp(a, "--filter") == 0)
                o->filter = v;
            else if (strcmp(a, "--expect") == 0) {
                read_expectations(v);
                o->expects = true;
            } else if (strcmp(a, "--min") == 0)
                o->min = number(a, v, 0, CASES_MAX);
            else if (strcmp(a, "--jobs") == 0)
                o->jobs = number(a, v, 1, JOBS_MAX);
            else if (strcmp(a, "--threads") == 0)
                o->run.threads = number(a, v, 1, 1024);
            else if (strcmp(a, "--device") == 0)
                o->run.device = v;
            else if (strcmp(a, "--rounds") == 0)
                o->run.rounds = number(a, v, 1, 100);
            else if (strcmp(a, "--timeout") == 0)
                o->timeout_s = number(a, v, 1, 100000);
            else
                die("unknown option", a);
        }
    }
    if (o->dir_count == 0) {
        usage(stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    options o = {.timeout_s = 60, .jobs = 1, .run = {.threads = 1, .device = "cpu", .rounds = 2}};

    parse(argc, argv, &o);
    setvbuf(stdout, NULL, _IOLBF, 0);
    cases = must(calloc(CASES_MAX, sizeof(*cases)));
    for (int i = 0; i < o.dir_count; i++)
        collect(o.dirs[i], o.filter);
    qsort(cases, (size_t)case_count, sizeof(*cases), by_path);
    if (case_count == 0)
        die("no case found in", o.dirs[0]);
    if (o.list) {
        for (int i = 0; i < case_count; i++)
            printf("%s [%s]\n", case_name(&cases[i]), conf_operators(cases[i].path));
        return 0;
    }
    run_all(&o);
    return report(&o);
}
