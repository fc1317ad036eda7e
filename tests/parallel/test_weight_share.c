/* Several processes over one table of shared weights. */
#include "parallel/weight_share.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROCESSES = 4, WEIGHTS = 200 };

struct tally {
    int filled[WEIGHTS], read[WEIGHTS], wrong;
};

static struct tally *tally_new(void)
{
    struct tally *t =
        mmap(NULL, sizeof(*t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(t, MAP_FAILED);
    return t;
}

static size_t bytes_of(int weight)
{
    return (size_t)(weight * 977 % 50000 + (weight % 7 == 0 ? 0 : 1));
}

static void one_process(trm_segment *segment, int process, struct tally *t)
{
    trm_weight_share *w = NULL;
    trm_weight_store *store;

    if (trm_weight_share_create(segment, &w) != TRM_OK)
        _exit(1);
    store = trm_weight_share_store(w);
    for (int k = 0; k < WEIGHTS; k++) {
        int weight = (k * 37 + process * 50) % WEIGHTS; /* each in an order of its own */
        size_t bytes = bytes_of(weight);
        bool ready;
        unsigned char *p =
            store->get(store, (uint64_t)weight + 1, weight % 2 ? "odd" : "even", bytes, &ready);

        if (p == NULL)
            _exit(2);
        if (!ready) {
            memset(p, weight, bytes);
            __atomic_fetch_add(&t->filled[weight], 1, __ATOMIC_RELAXED);
            store->settle(store, p, true);
        }
        for (size_t i = 0; i < bytes; i++)
            if (p[i] != (unsigned char)weight)
                __atomic_fetch_add(&t->wrong, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&t->read[weight], 1, __ATOMIC_RELAXED);
    }
    _exit(0);
}

START_TEST(each_is_packed_once)
{
    struct tally *t = tally_new();
    trm_segment *segment = NULL;

    ck_assert_msg(trm_weight_share_segment(WEIGHTS * 50100, &segment) == TRM_OK, "%s",
                  trm_message());
    for (int i = 0; i < PROCESSES; i++)
        if (fork() == 0)
            one_process(segment, i, t);
    for (int i = 0; i < PROCESSES; i++) {
        int status;

        ck_assert_int_gt(wait(&status), 0);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    ck_assert_int_eq(t->wrong, 0);
    for (int i = 0; i < WEIGHTS; i++) {
        ck_assert_int_eq(t->filled[i], 1);
        ck_assert_int_eq(t->read[i], PROCESSES);
    }
    trm_segment_close(segment);
}
END_TEST

START_TEST(a_dead_filler_does_not_stop_others)
{
    trm_segment *segment = NULL;
    trm_weight_share *w = NULL;
    trm_weight_store *store;
    pid_t child;
    bool ready;

    ck_assert_int_eq(trm_weight_share_segment(100000, &segment), TRM_OK);
    child = fork();
    if (child == 0) {
        if (trm_weight_share_create(segment, &w) != TRM_OK)
            _exit(1);
        store = trm_weight_share_store(w);
        _exit(store->get(store, 5, "f", 1000, &ready) != NULL && !ready ? 7 : 2);
    }
    /* dead, and nobody has asked for it yet: a zombie fills nothing either */
    ck_assert_int_eq(waitid(P_PID, (id_t)child, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
    ck_assert_int_eq(trm_weight_share_create(segment, &w), TRM_OK);
    store = trm_weight_share_store(w);
    ck_assert_ptr_null(store->get(store, 5, "f", 1000, &ready)); /* never settled */
    ck_assert_int_eq(waitpid(child, &(int){0}, 0), child);
    ck_assert_ptr_nonnull(store->get(store, 6, "f", 1000, &ready));
    ck_assert(!ready);
    trm_weight_share_destroy(w);
}
END_TEST

START_TEST(no_room_and_failures_are_answers)
{
    trm_segment *segment = NULL;
    trm_weight_share *w = NULL;
    trm_weight_store *store;
    size_t used, packed;
    void *p;
    bool ready;

    ck_assert_int_eq(trm_weight_share_segment(8192, &segment), TRM_OK);
    ck_assert_int_eq(trm_weight_share_create(segment, &w), TRM_OK);
    store = trm_weight_share_store(w);
    ck_assert_ptr_null(store->get(store, 1, "f", 8193, &ready));
    p = store->get(store, 2, "f", 8000, &ready);
    ck_assert_ptr_nonnull(p);
    store->settle(store, p, false); /* could not be packed: the next does it for itself */
    ck_assert_ptr_null(store->get(store, 2, "f", 8000, &ready));
    ck_assert_ptr_null(store->get(store, 3, "f", 200, &ready)); /* full */
    p = store->get(store, 4, "f", 100, &ready);
    ck_assert_ptr_nonnull(p);
    store->settle(store, p, true);
    ck_assert_ptr_eq(store->get(store, 4, "f", 100, &ready), p);
    ck_assert(ready);
    trm_weight_share_bytes(w, &used, &packed);
    ck_assert_uint_eq(used, 8000 + 100 + 100);
    ck_assert_uint_eq(packed, 8000 + 100);
    trm_weight_share_destroy(w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("weight_share");
    TCase *t = tcase_create("share");
    SRunner *r;
    int failed;

    tcase_add_test(t, each_is_packed_once);
    tcase_add_test(t, a_dead_filler_does_not_stop_others);
    tcase_add_test(t, no_room_and_failures_are_answers);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
