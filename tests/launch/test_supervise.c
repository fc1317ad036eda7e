/* The supervisor with jobs that are shell scripts. Each life of a job adds a line "job J epoch
 * E pid P;" to a file, so that a test sees what was started, and does what the test's script says.
 */
#define _GNU_SOURCE
#include "launch/supervise.h"

#include "base/wait.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char dir[64];
static const char *script; /* of all jobs: $JOB, $EPOCH, $DIR */
static int replicas = 2;

static const char *in_dir(const char *name)
{
    static char path[4][160];
    static int turn;
    char *p = path[turn++ % 4];

    snprintf(p, sizeof(path[0]), "%s/%s", dir, name);
    return p;
}

static void nap(void)
{
    const struct timespec t = {0, 5000000};

    nanosleep(&t, NULL);
}

/* The content of a file of the folder, in a static buffer; "": it is not there. */
static const char *content(const char *name)
{
    static char text[65536];
    int fd = open(in_dir(name), O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static int occurrences(const char *text, const char *what)
{
    int n = 0;

    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

static void wait_for(const char *name, const char *what, int times)
{
    int64_t until = trm_deadline_us(20000);

    while (occurrences(content(name), what) < times) {
        ck_assert_msg(trm_now_us() < until, "no %d x '%s' in %s: '%s'; out: %s", times, what, name,
                      content(name), content("out"));
        nap();
    }
}

/* ---- the supervisor, in a process of its own ---- */

static trm_status command(void *ctx, int job, int64_t epoch, char ***argv_out)
{
    char **argv = trm_calloc(4, sizeof(char *)), text[4096];

    (void)ctx;
    snprintf(text, sizeof(text),
             "JOB=%d; EPOCH=%lld; DIR=%s; echo \"job $JOB epoch $EPOCH pid $$;\" >>$DIR/lives; "
             "%s",
             job, (long long)epoch, dir, script);
    argv[0] = trm_strdup("/bin/sh");
    argv[1] = trm_strdup("-c");
    argv[2] = trm_strdup(text);
    *argv_out = argv;
    return TRM_OK;
}

static trm_status no_command(void *ctx, int job, int64_t epoch, char ***argv_out)
{
    char **argv = trm_calloc(2, sizeof(char *));

    (void)ctx;
    (void)job;
    (void)epoch;
    argv[0] = trm_strdup("/nonexistent/mpirun");
    *argv_out = argv;
    return TRM_OK;
}

static trm_supervise_options options(void)
{
    static char met[160];

    snprintf(met, sizeof(met), "%s", in_dir("met"));
    return (trm_supervise_options){.replicas = replicas,
                                   .command = command,
                                   .ready_text = "now ready",
                                   .rendezvous = met,
                                   .drain_ms = 20000,
                                   .backoff_ms = 20,
                                   .backoff_max_ms = 100,
                                   .window_ms = 60000,
                                   .kill_ms = 1000,
                                   .leave_ms = 3000};
}

/* Exit code: the status; its message goes to the file "message". */
static pid_t begin(const trm_supervise_options *given)
{
    pid_t pid = fork();

    if (pid == 0) {
        trm_supervise_options o = *given;
        trm_status st;
        FILE *f;

        o.out = open(in_dir("out"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        st = trm_supervise_run(&o);
        f = fopen(in_dir("message"), "w");
        if (f != NULL) {
            fprintf(f, "%s", st == TRM_OK ? "" : trm_message());
            fclose(f);
        }
        _exit((int)st);
    }
    ck_assert_int_gt(pid, 0);
    return pid;
}

/* Its status; fails if it does not end. */
static trm_status end_of(pid_t pid)
{
    int64_t until = trm_deadline_us(20000);
    int status = 0;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        ck_assert_msg(trm_now_us() < until, "the supervisor does not end; out: %s", content("out"));
        nap();
    }
    ck_assert_msg(WIFEXITED(status), "status %x", (unsigned)status);
    return (trm_status)WEXITSTATUS(status);
}

/* No process of any life is left. */
static void no_orphan(void)
{
    char *lives = strdup(content("lives"));

    for (const char *at = lives; (at = strstr(at, " pid ")) != NULL; at++) {
        int64_t until = trm_deadline_us(10000);
        pid_t pid = (pid_t)strtol(at + 5, NULL, 10);

        while (kill(pid, 0) == 0) {
            ck_assert_msg(trm_now_us() < until, "process %d is left", (int)pid);
            nap();
        }
    }
    free(lives);
}

static pid_t pid_of(int job, int epoch)
{
    const char *at;
    char want[48];

    snprintf(want, sizeof(want), "job %d epoch %d pid ", job, epoch);
    wait_for("lives", want, 1);
    at = strstr(content("lives"), want);
    return (pid_t)strtol(at + strlen(want), NULL, 10);
}

static void setup(void)
{
    snprintf(dir, sizeof(dir), "/tmp/trm-supervise-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    replicas = 2;
}

static void teardown(void)
{
    static const char *const names[] = {"lives", "out", "message", "met", "told", "go"};

    no_orphan();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        (void)unlink(in_dir(names[i]));
    ck_assert_int_eq(rmdir(dir), 0);
}

/* ---- scripts ---- */

/* A coordinator that is found, serves, and drains when told; replicas end when it does. Jobs sleep
 * in short naps so that they see signals. */
#define WAIT "while :; do sleep 0.02; done"
#define GOOD                                                                                       \
    "if [ $JOB = 0 ]; then "                                                                       \
    "trap 'echo USR1 >>$DIR/told; echo draining; rm -f $DIR/go; exit 0' USR1; "                    \
    "trap 'echo TERM >>$DIR/told; exit 9' TERM; "                                                  \
    "trap 'echo HUP >>$DIR/told' HUP; "                                                            \
    "touch $DIR/go; echo \"{\\\"pid\\\": $$}\" >$DIR/met; echo now ready; " WAIT                   \
    "; fi; while [ ! -e $DIR/go ]; do sleep 0.02; done; echo serving; "                            \
    "while [ -e $DIR/go ]; do sleep 0.02; done; exit 0"

static pid_t begin_good(void)
{
    trm_supervise_options o = options();
    pid_t pid;

    script = GOOD;
    pid = begin(&o);
    wait_for("out", "coordinator| now ready\n", 1);
    wait_for("out", "replica 0| serving\n", 1);
    wait_for("out", "replica 1| serving\n", 1);
    return pid;
}

START_TEST(drains)
{
    pid_t pid = begin_good();

    kill(pid, _i == 0 ? SIGTERM : SIGINT);
    ck_assert_int_eq(end_of(pid), TRM_OK);
    ck_assert_str_eq(content("told"), "USR1\n");
    ck_assert_int_eq(occurrences(content("lives"), "\n"), 3);
    ck_assert_ptr_nonnull(strstr(content("out"), "coordinator| draining\n"));
}
END_TEST

START_TEST(coordinator_ends_well)
{
    pid_t pid = begin_good();

    kill(pid_of(0, 1), SIGUSR1); /* told by somebody else */
    ck_assert_int_eq(end_of(pid), TRM_OK);
    ck_assert_int_eq(occurrences(content("lives"), "\n"), 3);
}
END_TEST

START_TEST(replica_restarts)
{
    pid_t pid = begin_good();

    for (int epoch = 1; epoch <= 8; epoch++) { /* more than would end it before it was ready */
        wait_for("out", "replica 1| serving\n", epoch);
        kill(pid_of(2, epoch), SIGKILL);
    }
    wait_for("out", "replica 1| serving\n", 9);
    ck_assert_int_eq(occurrences(content("lives"), "job 1 "), 1); /* the other one lives on */
    ck_assert_int_eq(occurrences(content("out"), "at once"), 1);
    ck_assert_int_eq(occurrences(content("out"), "after a pause"), 7);
    kill(pid, SIGTERM);
    ck_assert_int_eq(end_of(pid), TRM_OK);
}
END_TEST

START_TEST(coordinator_restarts)
{
    pid_t pid = begin_good();

    kill(pid_of(0, 1), SIGKILL);
    wait_for("lives", "job 0 epoch 2 ", 1);
    wait_for("lives", "job 1 epoch 2 ", 1);
    wait_for("lives", "job 2 epoch 2 ", 1);
    wait_for("out", "coordinator| now ready\n", 2);
    wait_for("out", "replica 1| serving\n", 2);
    kill(pid, SIGTERM);
    ck_assert_int_eq(end_of(pid), TRM_OK);
    ck_assert_int_eq(occurrences(content("lives"), "\n"), 6);
}
END_TEST

START_TEST(hang_up)
{
    pid_t pid = begin_good();

    kill(pid, SIGHUP);
    wait_for("told", "HUP\n", 1);
    kill(pid, SIGTERM);
    ck_assert_int_eq(end_of(pid), TRM_OK);
}
END_TEST

/* It does not drain: a second signal ends it. */
START_TEST(second_signal)
{
    trm_supervise_options o = options();
    pid_t pid;

    script = "if [ $JOB = 0 ]; then trap 'echo USR1 >>$DIR/told' USR1; touch $DIR/met; fi; " WAIT;
    pid = begin(&o);
    wait_for("lives", "\n", 3);
    while (access(in_dir("met"), F_OK) != 0)
        nap();
    kill(pid, SIGTERM);
    wait_for("told", "USR1\n", 1);
    kill(pid, SIGTERM);
    ck_assert_int_eq(end_of(pid), TRM_OK);
}
END_TEST

START_TEST(drain_takes_too_long)
{
    trm_supervise_options o = options();
    pid_t pid;

    script = "if [ $JOB = 0 ]; then trap 'echo USR1 >>$DIR/told' USR1; touch $DIR/met; fi; " WAIT;
    o.drain_ms = 100;
    pid = begin(&o);
    wait_for("lives", "\n", 3);
    while (access(in_dir("met"), F_OK) != 0)
        nap();
    kill(pid, SIGTERM);
    ck_assert_int_eq(end_of(pid), TRM_ERR_TIMEOUT);
}
END_TEST

/* Before there is a coordinator to be found. */
START_TEST(stop_while_it_starts)
{
    trm_supervise_options o = options();
    pid_t pid;

    script = WAIT;
    pid = begin(&o);
    wait_for("lives", "\n", 3);
    kill(pid, SIGTERM);
    ck_assert_int_eq(end_of(pid), TRM_OK);
}
END_TEST

/* Jobs that do not take SIGTERM are killed. */
START_TEST(stubborn)
{
    trm_supervise_options o = options();
    pid_t pid;

    script = "trap '' TERM; " WAIT;
    pid = begin(&o);
    wait_for("lives", "\n", 3);
    kill(pid, SIGTERM);
    ck_assert_int_eq(end_of(pid), TRM_OK);
}
END_TEST

static const struct fail_row {
    const char *name, *script;
    trm_status status;
    const char *says;
    int lives; /* of replica 1 */
} fail_rows[] = {
    {"five failures",
     "if [ $JOB = 2 ]; then echo trireme serve: no such GPU; echo banner; exit 1; fi; " WAIT,
     TRM_ERR_COMM,
     "replica 1 ended 5 times within 60 s before the cluster was ready; its last words: "
     "trireme serve: no such GPU",
     5},
    {"bad input", "if [ $JOB = 2 ]; then echo trireme serve: bad; exit 2; fi; " WAIT,
     TRM_ERR_INVALID_ARG,
     "replica 1 ended with exit code 2 before the cluster was ready; its last words: "
     "trireme serve: bad",
     1},
    {"silent", "if [ $JOB = 2 ]; then kill -9 $$; fi; " WAIT, TRM_ERR_COMM,
     "replica 1 ended 5 times", 5},
    {"an exit code 0, too", "if [ $JOB = 2 ]; then exit 0; fi; " WAIT, TRM_ERR_COMM,
     "replica 1 ended 5 times", 5},
};

START_TEST(fails_before_ready)
{
    const struct fail_row *row = &fail_rows[_i];
    trm_supervise_options o = options();

    script = row->script;
    ck_assert_msg(end_of(begin(&o)) == row->status, "%s: %s", row->name, content("message"));
    ck_assert_msg(strstr(content("message"), row->says) != NULL, "%s: %s", row->name,
                  content("message"));
    ck_assert_int_eq(occurrences(content("lives"), "job 2 "), row->lives);
}
END_TEST

/* A coordinator that fails takes its replicas along, which end first: it is the one to blame. */
START_TEST(victims)
{
    trm_supervise_options o = options();

    script = "if [ $JOB = 0 ]; then touch $DIR/go; sleep 0.05; rm -f $DIR/go; sleep 0.3; "
             "echo trireme serve: port taken; exit 1; fi; "
             "while [ ! -e $DIR/go ]; do sleep 0.01; done; "
             "while [ -e $DIR/go ]; do sleep 0.01; done; exit 1";
    o.backoff_ms = 1;
    o.failures_max = 3;
    ck_assert_int_eq(end_of(begin(&o)), TRM_ERR_COMM);
    ck_assert_msg(strstr(content("message"), "coordinator ended 3 times within 60 s before the "
                                             "cluster was ready; its last words: trireme serve: "
                                             "port taken") != NULL,
                  "%s", content("message"));
}
END_TEST

START_TEST(no_program)
{
    trm_supervise_options o = options();

    o.command = no_command;
    ck_assert_int_eq(end_of(begin(&o)), TRM_ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(content("message"), "'/nonexistent/mpirun'"));
}
END_TEST

/* The supervisor is killed: the kernel tells its jobs. */
START_TEST(killed)
{
    pid_t pid = begin_good();
    int status;

    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    wait_for("told", "TERM\n", 1);
    unlink(in_dir("go"));
    no_orphan();
}
END_TEST

START_TEST(output)
{
    trm_supervise_options o = options();

    replicas = 0;
    o = options();
    script = "head -c 10000 /dev/zero | tr '\\0' x; echo; printf 'a\\n\\nb'; exit 2";
    ck_assert_int_eq(end_of(begin(&o)), TRM_ERR_INVALID_ARG);
    /* a long line is broken, an empty one stays, the last needs no end */
    ck_assert_int_eq(occurrences(content("out"), "coordinator| xxx"), 3);
    ck_assert_int_eq(occurrences(content("out"), "x"), 10000);
    ck_assert_ptr_nonnull(
        strstr(content("out"), "coordinator| a\ncoordinator| \ncoordinator| b\n"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("supervise");
    TCase *t = tcase_create("supervise");
    SRunner *r = srunner_create(s);
    int failed;

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, drains, 0, 2);
    tcase_add_test(t, coordinator_ends_well);
    tcase_add_test(t, replica_restarts);
    tcase_add_test(t, coordinator_restarts);
    tcase_add_test(t, hang_up);
    tcase_add_test(t, second_signal);
    tcase_add_test(t, drain_takes_too_long);
    tcase_add_test(t, stop_while_it_starts);
    tcase_add_test(t, stubborn);
    tcase_add_loop_test(t, fails_before_ready, 0, 4);
    tcase_add_test(t, victims);
    tcase_add_test(t, no_program);
    tcase_add_test(t, killed);
    tcase_add_test(t, output);
    suite_add_tcase(s, t);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
