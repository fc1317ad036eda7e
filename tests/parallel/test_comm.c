/* Communicators of forked ranks over one segment, without MPI: every call against scalar loops, and
 * what happens when a rank dies, stops, leaves or calls something else. */
#define _GNU_SOURCE
#include "base/wait.h"
#include "tests/parallel/comm_checks.h"
#include "parallel/comm.h"
#include "parallel/comm_fault.h"

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

typedef const char *(*rank_main)(trm_comm *c);

/* Who is lost on purpose, and whether its parent notices before the other ranks end (else they see
 * a zombie). */
struct loss {
    int rank; /* -1: nobody */
    bool reaped;
};
static const struct loss nobody = {.rank = -1};

/* Forks `size` ranks that run `body`; returns how many, but for the lost one, did not end with NULL
 * and exit code 0. */
static int run_ranks(int size, const trm_comm_needs *needs, int spin_us, struct loss lost,
                     rank_main body)
{
    trm_segment *segment = NULL;
    pid_t pids[8] = {0};
    int failed = 0, status = 0;

    ck_assert_int_eq(trm_comm_shm_segment(size, needs, &segment), TRM_OK);
    for (int r = 0; r < size; r++) {
        pids[r] = fork();
        ck_assert_int_ge(pids[r], 0);
        if (pids[r] == 0) {
            const char *wrong;
            trm_comm *c = NULL;

            (void)alarm((unsigned)(trm_scaled_ms(50000) / 1000));
            if (trm_comm_shm_create(segment, r, size, spin_us, &c) != TRM_OK) {
                fprintf(stderr, "rank %d: %s\n", r, trm_message());
                _exit(1);
            }
            wrong = body(c);
            if (wrong != NULL)
                fprintf(stderr, "rank %d of %d: %s\n", r, size, wrong);
            trm_comm_destroy(c);
            _exit(wrong != NULL);
        }
    }
    if (lost.rank >= 0 && lost.reaped)
        ck_assert_int_eq(waitpid(pids[lost.rank], &status, 0), pids[lost.rank]);
    for (int r = 0; r < size; r++)
        if (r != lost.rank) {
            ck_assert_int_eq(waitpid(pids[r], &status, 0), pids[r]);
            failed += status != 0;
        }
    if (lost.rank >= 0 && !lost.reaped) { /* dead already, or stopped */
        kill(pids[lost.rank], SIGKILL);
        ck_assert_int_eq(waitpid(pids[lost.rank], &status, 0), pids[lost.rank]);
    }
    trm_segment_close(segment);
    return failed;
}

/* rows: each check on 1 to 4 ranks, small slots (so that vectors go in pieces) and default ones */
static const trm_comm_needs small = {.slot_bytes = 65536, .message_bytes = 65536, .messages = 4};

START_TEST(does_its_calls)
{
    size_t k = (size_t)_i / 4;
    int size = _i % 4 + 1;

    ck_assert_msg(run_ranks(size, &small, TRM_WAIT_SPIN_US, nobody, comm_checks[k].check) == 0,
                  "%s on %d ranks", comm_checks[k].name, size);
    if (size == 3)
        ck_assert_msg(run_ranks(size, NULL, 0, nobody, comm_checks[k].check) == 0,
                      "%s on %d ranks, default window, no spin", comm_checks[k].name, size);
}
END_TEST

/* Ranks as threads of one process: the race detector sees the accesses of all of them. */
struct thread_rank {
    trm_segment *segment;
    int rank, size;
    const char *wrong;
    char text[2048];
};

static void *thread_main(void *ctx)
{
    struct thread_rank *t = ctx;
    trm_comm *c = NULL;

    t->wrong = "create";
    if (trm_comm_shm_create(t->segment, t->rank, t->size, TRM_WAIT_SPIN_US, &c) != TRM_OK)
        return NULL;
    t->wrong = NULL;
    for (size_t k = 0; k < COUNT_OF(comm_checks) && t->wrong == NULL; k++) {
        const char *wrong = comm_checks[k].check(c);

        if (wrong != NULL) {
            snprintf(t->text, sizeof(t->text), "%s: %.1900s", comm_checks[k].name, wrong);
            t->wrong = t->text;
        }
    }
    trm_comm_destroy(c);
    return NULL;
}

START_TEST(threads_do_them_too)
{
    enum { SIZE = 3 };
    struct thread_rank ranks[SIZE];
    trm_segment *segment = NULL;
    pthread_t threads[SIZE];

    ck_assert_int_eq(trm_comm_shm_segment(SIZE, &small, &segment), TRM_OK);
    for (int r = 0; r < SIZE; r++) {
        ranks[r] = (struct thread_rank){.segment = segment, .rank = r, .size = SIZE};
        ck_assert_int_eq(pthread_create(&threads[r], NULL, thread_main, &ranks[r]), 0);
    }
    for (int r = 0; r < SIZE; r++)
        pthread_join(threads[r], NULL);
    for (int r = 0; r < SIZE; r++)
        ck_assert_msg(ranks[r].wrong == NULL, "rank %d: %s", r, ranks[r].wrong);
    trm_segment_close(segment);
}
END_TEST

START_TEST(self_does_them_too)
{
    trm_comm *c = NULL, *trace = NULL;

    ck_assert_int_eq(trm_comm_self_create(&c), TRM_OK);
    ck_assert_int_eq(trm_comm_trace_create(c, &trace), TRM_OK);
    ck_assert_str_eq(trm_comm_name(trace), "trace(self)");
    for (size_t k = 0; k < COUNT_OF(comm_checks); k++) {
        const char *wrong = comm_checks[k].check(trace);

        ck_assert_msg(wrong == NULL, "%s: %s", comm_checks[k].name, wrong);
    }
    trm_comm_destroy(trace);
    trm_comm_destroy(NULL);
}
END_TEST

/* ---- what goes wrong ---- */

/* COMM, named; and broken from then on */
static const char *lost_and_named(trm_comm *c, trm_status st, const char *who, const char *what)
{
    float x = 0;
    int64_t again;
    char first[1024];

    WANT(st == TRM_ERR_COMM);
    snprintf(first, sizeof(first), "%s", trm_message());
    if (strstr(first, who) == NULL || strstr(first, what) == NULL)
        return comm_say("not named:", __LINE__, first);
    again = trm_now_us();
    WANT(trm_comm_allreduce(c, &x, &x, 1, TRM_DTYPE_F32, TRM_REDUCE_SUM) == TRM_ERR_COMM);
    WANT(strstr(trm_message(), "broken") != NULL && strstr(trm_message(), who) != NULL);
    WANT(trm_comm_barrier(c) == TRM_ERR_COMM);
    WANT(!trm_comm_pending(c, (trm_comm_rank(c) + 1) % trm_comm_size(c)));
    WANT(trm_now_us() - again < 60000000); /* at once, and not after a deadline of 120 s */
    return NULL;
}

static const char *one_dies(trm_comm *c)
{
    float x[8] = {0};

    WANT_OK(trm_comm_barrier(c));
    if (trm_comm_rank(c) == 1)
        (void)raise(SIGKILL);
    /* the deadline is far away: only death can end this */
    return lost_and_named(c, trm_comm_allreduce(c, x, x, 8, TRM_DTYPE_F32, TRM_REDUCE_SUM),
                          "rank 1 (host", "died");
}

static const char *one_dies_others_idle(trm_comm *c)
{
    const void *data = NULL;
    size_t bytes = 0;

    WANT_OK(trm_comm_barrier(c));
    if (trm_comm_rank(c) == 1) {
        usleep(150000);
        (void)raise(SIGKILL);
    }
    /* rank 0 waits for rank 2, which lives, and rank 2 for rank 0 */
    return lost_and_named(c, trm_comm_receive(c, 2 - trm_comm_rank(c), true, &data, &bytes),
                          "rank 1 (host", "died");
}

/* a loop of tries ends as a wait does */
static const char *one_dies_others_try(trm_comm *c)
{
    const void *data = NULL;
    size_t bytes = 0;
    trm_status st = TRM_OK;
    bool came = false;

    WANT_OK(trm_comm_barrier(c));
    if (trm_comm_rank(c) == 1) {
        usleep(150000);
        (void)raise(SIGKILL);
    }
    for (int i = 0; i < 30000 && st == TRM_OK && !came; i++) {
        st = trm_comm_try_receive(c, 2 - trm_comm_rank(c), &came, &data, &bytes);
        usleep(1000);
    }
    WANT(!came);
    WANT(trm_comm_try_receive(c, 1, &came, &data, &bytes) == TRM_ERR_COMM);
    return lost_and_named(c, st, "rank 1 (host", "died");
}

static const char *one_leaves_while_tried(trm_comm *c)
{
    const void *data = NULL;
    size_t bytes = 0;
    trm_piece piece = {.data = "bye", .bytes = 3};
    trm_status st = TRM_OK;
    bool came = false;

    if (trm_comm_rank(c) == 1) {
        WANT_OK(trm_comm_send(c, 0, &piece, 1));
        WANT_OK(trm_comm_send(c, 2, &piece, 1));
        return NULL;
    }
    usleep(300000); /* what it sent before counts */
    WANT_OK(trm_comm_try_receive(c, 1, &came, &data, &bytes));
    WANT(came && bytes == 3);
    for (int i = 0; i < 30000 && st == TRM_OK; i++) {
        st = trm_comm_try_receive(c, 1, &came, &data, &bytes);
        usleep(1000);
    }
    return lost_and_named(c, st, "rank 1 (host", "left the group");
}

static const char *one_stops(trm_comm *c)
{
    float x[8] = {0};

    WANT_OK(trm_comm_barrier(c));
    if (trm_comm_rank(c) == 1)
        (void)raise(SIGSTOP);
    trm_comm_set_timeout(c, 300);
    return lost_and_named(c, trm_comm_allreduce(c, x, x, 8, TRM_DTYPE_F32, TRM_REDUCE_SUM),
                          "rank 1 (host", "in time");
}

static const char *one_leaves(trm_comm *c)
{
    const void *data = NULL;
    size_t bytes = 0;
    trm_piece piece = {.data = "bye", .bytes = 3};

    if (trm_comm_rank(c) == 1) {
        WANT_OK(trm_comm_send(c, 0, &piece, 1));
        WANT_OK(trm_comm_send(c, 2, &piece, 1));
        return NULL;
    }
    /* what it sent before counts; that it has gone does not disturb the others */
    WANT_OK(trm_comm_receive(c, 1, true, &data, &bytes));
    WANT(bytes == 3 && memcmp(data, "bye", 3) == 0);
    usleep(300000);
    if (trm_comm_rank(c) == 2) {
        usleep(300000);
        WANT_OK(trm_comm_send(c, 0, &piece, 1));
        WANT_OK(trm_comm_receive(c, 0, true, &data, &bytes));
        return NULL;
    }
    WANT_OK(trm_comm_receive(c, 2, true, &data, &bytes));
    WANT_OK(trm_comm_send(c, 2, &piece, 1));
    return lost_and_named(c, trm_comm_receive(c, 1, true, &data, &bytes), "rank 1 (host",
                          "left the group");
}

static const char *one_calls_other(trm_comm *c)
{
    float x[8] = {0};
    int rank = trm_comm_rank(c);
    trm_status st = trm_comm_allreduce(c, x, x, rank == 1 ? 7 : 8, TRM_DTYPE_F32, TRM_REDUCE_SUM);
    const char *wrong = lost_and_named(c, st, "rank 1 calls allreduce with 28 bytes of f32",
                                       "rank 0 calls allreduce with 32 bytes");

    return wrong;
}

static const char *one_calls_other_kind(trm_comm *c)
{
    int rank = trm_comm_rank(c);
    char data[4] = {0};
    trm_status st = rank == 2 ? trm_comm_broadcast(c, data, 4, 0) : trm_comm_barrier(c);

    return lost_and_named(c, st, "rank 2 calls broadcast with 4 bytes", "rank 0 calls barrier");
}

static const char *one_has_other_leaves(trm_comm *c)
{
    float x[8] = {0};
    int rank = trm_comm_rank(c); /* leaves 0, 1 and 1 of 3 */

    return lost_and_named(c, trm_comm_reduce_tree(c, x, rank == 2 ? 1 : rank, 1, 3, 8, x),
                          "rank 2 holds leaves [1, 2)", "from 2 on");
}

static const char *wrapped(trm_comm *c, const char *spec)
{
    trm_comm *fault = NULL;
    float x[8] = {0};
    trm_status st = TRM_OK;

    WANT_OK(trm_comm_fault_create(c, spec, trm_comm_rank(c), &fault));
    for (int i = 0; i < 10 && st == TRM_OK; i++)
        st = trm_comm_allreduce(fault, x, x, 8, TRM_DTYPE_F32, TRM_REDUCE_SUM);
    /* the wrapper is left to the process's end: c is the caller's here */
    return lost_and_named(fault, st, "rank 1",
                          strstr(spec, "fail") != NULL  ? "made to fail"
                          : strstr(spec, "die") != NULL ? "died"
                                                        : "disagree");
}

static const char *fault_fails(trm_comm *c)
{
    return wrapped(c, "fail:1:4");
}

static const char *fault_dies(trm_comm *c)
{
    return wrapped(c, "die:1:4:group");
}

static const char *fault_corrupts(trm_comm *c)
{
    return wrapped(c, "corrupt-args:1:4");
}

static const char *fault_elsewhere(trm_comm *c)
{
    trm_comm *fault = NULL;
    float x[8] = {0};

    WANT_OK(trm_comm_fault_create(c, "die:1:2:replica 7", trm_comm_rank(c), &fault));
    for (int i = 0; i < 10; i++)
        WANT_OK(trm_comm_allreduce(fault, x, x, 8, TRM_DTYPE_F32, TRM_REDUCE_SUM));
    return NULL;
}

static const struct {
    const char *name;
    struct loss lost;
    rank_main body;
} troubles[] = {
    {"dies", {1, true}, one_dies},
    {"dies, a zombie", {1, false}, one_dies},
    {"dies while idle", {1, true}, one_dies_others_idle},
    {"dies while idle, a zombie", {1, false}, one_dies_others_idle},
    {"dies while tried", {1, true}, one_dies_others_try},
    {"dies while tried, a zombie", {1, false}, one_dies_others_try},
    {"leaves while tried", {-1, false}, one_leaves_while_tried},
    {"stops", {1, false}, one_stops},
    {"leaves", {-1, false}, one_leaves},
    {"other size", {-1, false}, one_calls_other},
    {"other kind", {-1, false}, one_calls_other_kind},
    {"other leaves", {-1, false}, one_has_other_leaves},
    {"fault fail", {-1, false}, fault_fails},
    {"fault die", {1, true}, fault_dies},
    {"fault corrupt-args", {-1, false}, fault_corrupts},
    {"fault of another group", {-1, false}, fault_elsewhere},
};

START_TEST(names_what_went_wrong)
{
    ck_assert_msg(run_ranks(3, &small, TRM_WAIT_SPIN_US, troubles[_i].lost, troubles[_i].body) == 0,
                  "%s", troubles[_i].name);
}
END_TEST

START_TEST(idle_ranks_sleep)
{
    ck_assert_int_eq(run_ranks(2, &small, TRM_WAIT_SPIN_US, nobody, check_idle), 0);
}
END_TEST

static const char *step_without_allocation(trm_comm *c)
{
    float x[100] = {0}, parts[300] = {0};
    uint64_t calls = 0;
    int rank = trm_comm_rank(c);
    trm_piece piece = {.data = x, .bytes = sizeof(x)};
    const void *data = NULL;
    size_t bytes = 0;

    for (int i = 0; i < 5; i++) {
        if (i == 1)
            calls = trm_alloc_calls();
        WANT_OK(trm_comm_allreduce(c, x, x, 100, TRM_DTYPE_F32, TRM_REDUCE_SUM));
        WANT_OK(trm_comm_reduce_tree(c, parts, rank * 3, 3, 6, 100, x));
        WANT_OK(trm_comm_send(c, 1 - rank, &piece, 1));
        WANT_OK(trm_comm_receive(c, 1 - rank, false, &data, &bytes));
    }
    WANT(trm_alloc_calls() == calls);
    return NULL;
}

START_TEST(steps_allocate_nothing)
{
    ck_assert_int_eq(run_ranks(2, &small, TRM_WAIT_SPIN_US, nobody, step_without_allocation), 0);
}
END_TEST

static const char *reserve_while_on_its_way(trm_comm *c)
{
    trm_comm_needs more = {.slot_bytes = 1 << 20};
    trm_piece piece = {.data = "x", .bytes = 1};
    const void *data = NULL;
    size_t bytes = 0;

    if (trm_comm_rank(c) == 0)
        WANT_OK(trm_comm_send(c, 1, &piece, 1));
    WANT(trm_comm_reserve(c, &more) == TRM_ERR_INVALID_ARG);
    WANT(strstr(trm_message(), "messages from rank 0") != NULL);
    if (trm_comm_rank(c) == 1)
        WANT_OK(trm_comm_receive(c, 0, false, &data, &bytes));
    WANT_OK(trm_comm_reserve(c, &more));
    WANT(trm_comm_slot_bytes(c) == 1 << 20);
    return NULL;
}

START_TEST(reserve_loses_no_message)
{
    ck_assert_int_eq(run_ranks(2, &small, TRM_WAIT_SPIN_US, nobody, reserve_while_on_its_way), 0);
}
END_TEST

START_TEST(refuses)
{
    trm_comm_needs many = {.messages = 100000};
    trm_segment *s = NULL;
    trm_comm *c = NULL, *fault = NULL;
    static const char *const bad[] = {"",        "die",      "die:1",      "die:x:1",
                                      "die:1:0", "sing:0:1", "delay=:0:1", "delay=5x:0:1"};

    ck_assert_int_eq(trm_comm_shm_segment(0, NULL, &s), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_comm_shm_segment(65, NULL, &s), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_comm_shm_segment(2, &many, &s), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_segment_create(4096, &s), TRM_OK);
    ck_assert_int_eq(trm_comm_shm_create(s, 0, 2, 0, &c), TRM_ERR_INVALID_ARG);
    trm_segment_close(s);
    ck_assert_int_eq(trm_comm_self_create(&c), TRM_OK);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        ck_assert_msg(trm_comm_fault_create(c, bad[i], 0, &fault) == TRM_ERR_INVALID_ARG, "%s",
                      bad[i]);
    trm_comm_destroy(c);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("comm");
    TCase *tc = tcase_create("shm and self");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, does_its_calls, 0, 4 * (int)COUNT_OF(comm_checks));
    tcase_add_test(tc, threads_do_them_too);
    tcase_add_test(tc, self_does_them_too);
    tcase_add_loop_test(tc, names_what_went_wrong, 0, (int)COUNT_OF(troubles));
    tcase_add_test(tc, idle_ranks_sleep);
    tcase_add_test(tc, steps_allocate_nothing);
    tcase_add_test(tc, reserve_loses_no_message);
    tcase_add_test(tc, refuses);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
