/* The whole path with a fake model: source -> router -> leaders -> sink. Replicas are threads, and
 * where one has to die a forked process. */
#define _GNU_SOURCE
#include "base/wait.h"
#include "coordinator/score.h"
#include "worker/leader.h"

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Nobody is given up in these tests for being slow: the machine may be doing something else. */
#define PATIENCE_MS 60000

/* ---- a model that doubles a number; knobs make it slow, failing or deadly ---- */
struct fake {
    int delay_us;
    int die_at;  /* SIGKILL itself on that record; -1: never */
    int fail_at; /* the replica fails on that record */
    int bad_at;  /* that record has an error */
    int seen;
};

static trm_status fake_run(void *ctx, trm_leader *leader, const trm_wire_record *records, int n,
                           trm_arena *scratch, trm_wire_result *results_out)
{
    struct fake *f = ctx;

    for (int i = 0; i < n; i++) {
        trm_wire_tensor *out = trm_arena_alloc(scratch, 1, sizeof(*out));
        float *v = trm_arena_alloc(scratch, 1, sizeof(*v));

        if (records[i].kind != TRM_RECORD_TENSORS || records[i].tensor_count != 1)
            return trm_fail(TRM_ERR_INTERNAL, "unexpected record");
        memcpy(v, records[i].tensors[0].tensor.data, sizeof(*v));
        if ((int)*v == f->die_at)
            kill(getpid(), SIGKILL);
        if ((int)*v == f->fail_at)
            return trm_fail(TRM_ERR_NO_MEMORY, "the fake is full");
        *v *= 2;
        out->name = "y";
        out->tensor = (trm_tensor){.dtype = TRM_DTYPE_F32, .data = v};
        results_out[i] = (trm_wire_result){.message = "", .outputs = out, .output_count = 1};
        if ((int)*v == 2 * f->bad_at)
            results_out[i] = (trm_wire_result){.status = TRM_ERR_BAD_FILE, .message = "unreadable"};
        if (f->delay_us > 0)
            usleep((useconds_t)f->delay_us);
        f->seen++;
        trm_leader_progress(leader);
    }
    return TRM_OK;
}

struct replica {
    trm_link_context *context;
    const char *endpoint;
    char identity[16];
    int rank;
    int64_t lease_ms;
    struct fake fake;
    trm_status st;
    bool lost;
    pthread_t thread;
};

static void *replica_main(void *ctx)
{
    struct replica *r = ctx;
    trm_leader_options o = {.context = r->context,
                            .endpoint = r->endpoint,
                            .identity = r->identity,
                            .rank = r->rank,
                            .lease_ms = r->lease_ms};
    trm_leader_model m = {.ctx = &r->fake, .batch_max = 4, .run = fake_run};

    r->st = trm_leader_run(&o, &m, &r->lost);
    return NULL;
}

/* ---- a source of numbers, a sink that checks order ---- */
struct numbers {
    trm_source base;
    int64_t at;
    float value;
    trm_wire_tensor tensor;
    char name[24];
};

static trm_status numbers_next(trm_source *s, trm_wire_record *r, bool *end)
{
    struct numbers *n = (struct numbers *)s;

    if (n->at == s->count) {
        *end = true;
        return TRM_OK;
    }
    n->value = (float)n->at;
    n->tensor.name = "";
    n->tensor.tensor = (trm_tensor){.dtype = TRM_DTYPE_F32, .data = &n->value};
    snprintf(n->name, sizeof(n->name), "%lld", (long long)n->at++);
    r->kind = TRM_RECORD_TENSORS;
    r->name = n->name;
    r->tensors = &n->tensor;
    r->tensor_count = 1;
    return TRM_OK;
}

static void numbers_close(trm_source *s)
{
    (void)s;
}
static const trm_source_ops numbers_ops = {
    .name = "numbers", .next = numbers_next, .close = numbers_close};

struct checker {
    trm_sink base;
    int64_t errors, full_at;
};

static trm_status checker_write(trm_sink *s, const trm_taken *t)
{
    struct checker *c = (struct checker *)s;
    int64_t at = s->rows - 1;
    char name[24];
    float v;

    if (at == c->full_at)
        return trm_fail(TRM_ERR_IO, "disk full");
    snprintf(name, sizeof(name), "%lld", (long long)at);
    ck_assert_str_eq(t->name, name);
    ck_assert_int_eq((int64_t)t->result.id, at);
    if (t->result.status != TRM_OK) {
        c->errors++;
        return TRM_OK;
    }
    memcpy(&v, t->result.outputs[0].tensor.data, sizeof(v));
    ck_assert_int_eq((int64_t)v, 2 * at);
    return TRM_OK;
}

static trm_status checker_flush(trm_sink *s)
{
    (void)s;
    return TRM_OK;
}
static const trm_sink_ops checker_ops = {"checker", checker_write, checker_flush, checker_flush};

/* ---- the rig ---- */
struct rig {
    trm_link_context *context;
    trm_router *router;
    struct replica replicas[4];
    int count;
    struct numbers numbers;
    struct checker checker;
    int64_t silence_ms;
};

static void rig_start(struct rig *g, const char *endpoint, int replicas, int threads, int records)
{
    trm_router_options o = {
        .endpoint = endpoint, .replicas = replicas, .window = 24, .silence_ms = g->silence_ms};

    ck_assert_int_eq(trm_link_context_create(&g->context), TRM_OK);
    o.context = g->context;
    ck_assert_msg(trm_router_create(&o, &g->router) == TRM_OK, "%s", trm_message());
    g->count = threads;
    for (int i = 0; i < threads; i++) {
        struct replica *r = &g->replicas[i];

        r->context = g->context;
        r->endpoint = trm_router_endpoint(g->router);
        r->rank = i;
        r->lease_ms = PATIENCE_MS;
        snprintf(r->identity, sizeof(r->identity), "%d/1", i);
        ck_assert_int_eq(pthread_create(&r->thread, NULL, replica_main, r), 0);
    }
    g->numbers.base = (trm_source){.ops = &numbers_ops, .count = records};
    g->checker.base.ops = &checker_ops;
}

static void rig_init(struct rig *g)
{
    memset(g, 0, sizeof(*g));
    for (int i = 0; i < 4; i++)
        g->replicas[i].fake = (struct fake){.die_at = -1, .fail_at = -1, .bad_at = -1};
    g->checker.full_at = -1;
    g->silence_ms = PATIENCE_MS;
}

static void wait_for(struct rig *g, int joined)
{
    trm_router_stats stats;

    do {
        usleep(10000);
        trm_router_get_stats(g->router, &stats);
    } while (stats.joined < joined);
}

static trm_status rig_run(struct rig *g)
{
    trm_score_job job = {.router = g->router, .source = &g->numbers.base, .sink = &g->checker.base};

    return trm_score_run(&job);
}

static bool rig_stop(struct rig *g)
{
    bool lost = trm_router_stop(g->router);

    for (int i = 0; i < g->count; i++)
        pthread_join(g->replicas[i].thread, NULL);
    trm_router_destroy(g->router);
    trm_link_context_destroy(g->context);
    return lost;
}

START_TEST(all_in_order)
{
    static const struct {
        const char *endpoint;
        int replicas, records;
    } rows[] = {{"inproc://r", 1, 1}, {"inproc://r", 1, 100}, {"ipc", 3, 500}, {"ipc", 4, 2}};
    struct rig g;

    rig_init(&g);
    g.replicas[0].fake.delay_us = 200;
    rig_start(&g, rows[_i].endpoint, rows[_i].replicas, rows[_i].replicas, rows[_i].records);
    ck_assert_msg(rig_run(&g) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(g.checker.base.rows, rows[_i].records);
    rig_stop(&g);
    for (int i = 0; i < rows[_i].replicas; i++)
        ck_assert_msg(g.replicas[i].st == TRM_OK, "replica %d", i);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

START_TEST(a_slow_replica_takes_less)
{
    struct rig g;

    rig_init(&g);
    g.replicas[0].fake.delay_us = 20000;
    g.replicas[1].fake.delay_us = 200;
    rig_start(&g, "ipc", 2, 2, 300);
    wait_for(&g, 2);
    ck_assert_int_eq(rig_run(&g), TRM_OK);
    rig_stop(&g);
    ck_assert_int_eq(g.replicas[0].fake.seen + g.replicas[1].fake.seen, 300);
    ck_assert_int_lt(g.replicas[0].fake.seen * 2, g.replicas[1].fake.seen);
}
END_TEST

START_TEST(one_bad_record)
{
    struct rig g;

    rig_init(&g);
    g.replicas[0].fake.bad_at = 7;
    rig_start(&g, "inproc://r", 1, 1, 20);
    ck_assert_int_eq(rig_run(&g), TRM_OK);
    ck_assert_int_eq(g.checker.errors, 1);
    ck_assert(!rig_stop(&g));
}
END_TEST

/* a replica whose model fails says so, waits for STOP, and the others finish its records */
START_TEST(a_failing_replica)
{
    trm_router_stats stats;
    struct rig g;

    rig_init(&g);
    g.replicas[0].fake.fail_at = 0;
    g.replicas[1].fake.delay_us = 2000;
    rig_start(&g, "ipc", 2, 2, 60);
    ck_assert_msg(rig_run(&g) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(g.checker.base.rows, 60);
    ck_assert_int_eq(g.checker.errors, 0);
    trm_router_get_stats(g.router, &stats);
    /* record 0 goes to whichever is ready first: replica 1 has no trouble with it */
    ck_assert_int_le(stats.dead, 1);
    ck_assert_int_eq(stats.lost, 0);
    if (stats.dead == 1)
        ck_assert_ptr_nonnull(strstr(stats.last_dead, "the fake is full"));
    ck_assert(!rig_stop(&g));
}
END_TEST

START_TEST(the_last_replica_fails)
{
    struct rig g;

    rig_init(&g);
    g.replicas[0].fake.fail_at = 3;
    rig_start(&g, "inproc://r", 1, 1, 60);
    ck_assert_int_eq(rig_run(&g), TRM_ERR_COMM);
    ck_assert_msg(strstr(trm_message(), "no replica is left") != NULL &&
                      strstr(trm_message(), "the fake is full") != NULL,
                  "%s", trm_message());
    rig_stop(&g);
    ck_assert_int_eq(g.replicas[0].st, TRM_ERR_NO_MEMORY);
}
END_TEST

START_TEST(output_full)
{
    struct rig g;

    rig_init(&g);
    g.checker.full_at = 13;
    rig_start(&g, "ipc", 2, 2, 200);
    ck_assert_int_eq(rig_run(&g), TRM_ERR_IO);
    ck_assert_int_eq(g.checker.base.rows, 13);
    rig_stop(&g);
    ck_assert_int_eq(g.replicas[1].st, TRM_OK); /* all were told to stop */
}
END_TEST

/* a process is killed in the middle of a batch: named within two seconds, its records are run by
 * the other, nothing is missing or out of order */
START_TEST(a_killed_replica)
{
    char endpoint[TRM_LINK_ENDPOINT_BYTES];
    trm_router_stats stats;
    struct rig g;
    int go[2], status;
    pid_t pid, killer;

    ck_assert_int_eq(pipe(go), 0);
    pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct replica r = {
            .identity = "9/1", .rank = 9, .endpoint = endpoint, .lease_ms = PATIENCE_MS};

        r.fake = (struct fake){.die_at = -1, .fail_at = -1, .bad_at = -1, .delay_us = 1000};
        if (read(go[0], endpoint, sizeof(endpoint)) <= 0 ||
            trm_link_context_create(&r.context) != TRM_OK)
            _exit(1);
        replica_main(&r);
        _exit(0);
    }
    rig_init(&g);
    g.replicas[0].fake.delay_us = 3000;
    rig_start(&g, "ipc", 2, 1, 400);
    strcpy(endpoint, trm_router_endpoint(g.router));
    ck_assert_int_eq(write(go[1], endpoint, sizeof(endpoint)), (ssize_t)sizeof(endpoint));
    wait_for(&g, 2); /* then one is killed while it works */
    killer = fork();
    ck_assert_int_ge(killer, 0);
    if (killer == 0) {
        usleep(60000);
        kill(pid, SIGKILL);
        _exit(0);
    }
    ck_assert_msg(rig_run(&g) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(g.checker.base.rows, 400);
    ck_assert_int_eq(g.checker.errors, 0);
    waitpid(pid, &status, 0);
    trm_router_get_stats(g.router, &stats);
    ck_assert_int_eq(stats.joined, 2);
    if (stats.dead == 1) /* it was still at work when it died */
        ck_assert_ptr_nonnull(strstr(stats.last_dead, "replica 9/1 (rank 9"));
    rig_stop(&g);
}
END_TEST

/* A process that did not run for longer than its replicas may be silent (a laptop's lid, an
 * overloaded machine) does not take that for their silence. */
START_TEST(a_stall_of_all_is_no_silence)
{
    pid_t pid = fork();
    int status;

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        struct rig g;
        trm_status st;

        rig_init(&g);
        g.silence_ms = 600;
        g.replicas[0].fake.delay_us = g.replicas[1].fake.delay_us = 10000;
        rig_start(&g, "inproc://r", 2, 2, 300);
        st = rig_run(&g);
        _exit(st == TRM_OK && !rig_stop(&g) && g.checker.base.rows == 300 ? 0 : 1);
    }
    for (int i = 0; i < 3; i++) {
        usleep(300000);
        kill(pid, SIGSTOP);
        usleep(900000);
        kill(pid, SIGCONT);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
END_TEST

/* waiting costs no processor time, on either side */
START_TEST(idle_is_asleep)
{
    struct rusage before, after;
    trm_taken taken;
    struct rig g;
    int64_t cpu;

    rig_init(&g);
    rig_start(&g, "ipc", 2, 2, 0);
    usleep(200000);
    getrusage(RUSAGE_SELF, &before);
    ck_assert_int_eq(trm_router_take(g.router, trm_now_us() + 1000000, &taken), TRM_ERR_TIMEOUT);
    getrusage(RUSAGE_SELF, &after);
    cpu = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 + after.ru_utime.tv_usec -
          before.ru_utime.tv_usec;
    ck_assert_msg(cpu < 100000, "a second of waiting burnt %lld us", (long long)cpu);
    rig_stop(&g);
}
END_TEST

/* a replica that hears nothing ends by its lease */
START_TEST(lease)
{
    struct replica r = {
        .identity = "0/1", .endpoint = "ipc:///nonexistent/trireme/c", .lease_ms = 1000};

    r.fake = (struct fake){.die_at = -1, .fail_at = -1, .bad_at = -1};
    ck_assert_int_eq(trm_link_context_create(&r.context), TRM_OK);
    replica_main(&r);
    ck_assert_int_eq(r.st, TRM_ERR_COMM);
    ck_assert(r.lost);
    trm_link_context_destroy(r.context);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("router");
    TCase *tc = tcase_create("router and leader");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 110);
    tcase_add_loop_test(tc, all_in_order, 0, 4);
    tcase_add_test(tc, a_slow_replica_takes_less);
    tcase_add_test(tc, one_bad_record);
    tcase_add_test(tc, a_failing_replica);
    tcase_add_test(tc, the_last_replica_fails);
    tcase_add_test(tc, output_full);
    tcase_add_test(tc, a_killed_replica);
    tcase_add_test(tc, a_stall_of_all_is_no_silence);
    tcase_add_test(tc, idle_is_asleep);
    tcase_add_test(tc, lease);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
