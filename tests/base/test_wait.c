/* The wait primitive between threads and between processes, and shared segments. */
#define _GNU_SOURCE
#include "base/segment.h"
#include "base/wait.h"

#include <check.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

START_TEST(times_out_asleep)
{
    trm_wait w = {0};
    struct rusage before, after;
    int64_t start = trm_now_us(), cpu;

    getrusage(RUSAGE_SELF, &before);
    ck_assert_int_eq(trm_wait_change(&w, 0, TRM_WAIT_SPIN_US, start + 50000), TRM_ERR_TIMEOUT);
    getrusage(RUSAGE_SELF, &after);
    ck_assert(trm_now_us() - start >= 50000);
    cpu = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 + after.ru_utime.tv_usec -
          before.ru_utime.tv_usec;
    ck_assert_msg(cpu < 25000, "waiting 50 ms burnt %lld us", (long long)cpu);
    /* a deadline in the past, and one before the clock's zero */
    ck_assert_int_eq(trm_wait_change(&w, 0, 0, start), TRM_ERR_TIMEOUT);
    ck_assert_int_eq(trm_wait_change(&w, 0, 0, -5), TRM_ERR_TIMEOUT);
    ck_assert_uint_eq(w.sleepers, 0);
}
END_TEST

START_TEST(sees_an_earlier_post)
{
    trm_wait w = {0};

    trm_wait_post(&w);
    ck_assert_int_eq(trm_wait_change(&w, 0, 0, 0), TRM_OK);
    ck_assert_uint_eq(trm_wait_count(&w), 1);
}
END_TEST

struct pingpong {
    trm_wait a, b;
    int rounds, spin;
};

static void *pong(void *ctx)
{
    struct pingpong *p = ctx;

    for (int i = 0; i < p->rounds; i++) {
        if (trm_wait_change(&p->a, (uint32_t)i, p->spin, trm_deadline_us(20000)) != TRM_OK)
            return p;
        trm_wait_post(&p->b);
    }
    return NULL;
}

START_TEST(ping_pong_loses_no_post)
{
    struct pingpong p = {.rounds = 5000, .spin = _i == 0 ? 0 : TRM_WAIT_SPIN_US};
    pthread_t t;
    void *failed = NULL;

    ck_assert_int_eq(pthread_create(&t, NULL, pong, &p), 0);
    for (int i = 0; i < p.rounds; i++) {
        trm_wait_post(&p.a);
        ck_assert_int_eq(trm_wait_change(&p.b, (uint32_t)i, p.spin, trm_deadline_us(20000)),
                         TRM_OK);
    }
    pthread_join(t, &failed);
    ck_assert_ptr_null(failed);
}
END_TEST

/* N forked processes attach, each adds its number to a shared sum under the creator's eyes */
START_TEST(segment_across_forks)
{
    enum { OTHERS = 3 };
    trm_segment *s = NULL, *late = NULL;
    char name[TRM_SEGMENT_NAME_BYTES];
    pid_t pids[OTHERS];
    struct shared {
        trm_wait done;
        uint32_t sum;
    } * shared;
    int64_t deadline = trm_deadline_us(20000);

    ck_assert_int_eq(trm_segment_create(10000, &s), TRM_OK);
    ck_assert_uint_eq(trm_segment_bytes(s), 10000);
    strcpy(name, trm_segment_name(s));
    for (int i = 0; i < OTHERS; i++) {
        pids[i] = fork();
        ck_assert_int_ge(pids[i], 0);
        if (pids[i] == 0) {
            trm_segment *mine = NULL;
            struct shared *sh;

            if (trm_segment_attach(name, 10000, &mine) != TRM_OK)
                _exit(1);
            sh = trm_segment_data(mine);
            __atomic_fetch_add(&sh->sum, (uint32_t)(i + 1), __ATOMIC_SEQ_CST);
            trm_wait_post(&sh->done);
            trm_segment_close(mine);
            _exit(0);
        }
    }
    ck_assert_int_eq(trm_segment_seal(s, OTHERS, 20000), TRM_OK);
    ck_assert_int_eq(open(name, O_RDONLY), -1); /* the name is gone */
    ck_assert_int_eq(trm_segment_attach(name, 10000, &late), TRM_ERR_NOT_FOUND);
    shared = trm_segment_data(s);
    for (uint32_t seen; (seen = trm_wait_count(&shared->done)) < OTHERS;)
        ck_assert_int_eq(trm_wait_change(&shared->done, seen, 0, deadline), TRM_OK);
    ck_assert_uint_eq(shared->sum, 6);
    for (int i = 0; i < OTHERS; i++) {
        int status = -1;

        ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
        ck_assert_int_eq(status, 0);
    }
    trm_segment_close(s);
}
END_TEST

START_TEST(segment_refuses)
{
    trm_segment *s = NULL, *t = NULL;
    char name[TRM_SEGMENT_NAME_BYTES];

    ck_assert_int_eq(trm_segment_create(0, &s), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_segment_attach("/proc/self/fd/987654", 16, &t), TRM_ERR_NOT_FOUND);
    ck_assert_int_eq(trm_segment_create(64, &s), TRM_OK);
    ck_assert_int_eq(trm_segment_attach(trm_segment_name(s), 128, &t), TRM_ERR_COMM);
    ck_assert_int_eq(trm_segment_seal(s, 1, 30), TRM_ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(trm_message(), "0 of 1"));
    strcpy(name, trm_segment_name(s));
    trm_segment_close(s);
    ck_assert_int_eq(open(name, O_RDONLY), -1);
    trm_segment_close(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wait");
    TCase *tc = tcase_create("wait and segment");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, times_out_asleep);
    tcase_add_test(tc, sees_an_earlier_post);
    tcase_add_loop_test(tc, ping_pong_loses_no_post, 0, 2);
    tcase_add_test(tc, segment_across_forks);
    tcase_add_test(tc, segment_refuses);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
