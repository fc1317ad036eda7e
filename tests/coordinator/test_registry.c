/* The table of replicas: who is served next, who is overdue. */
#include "coordinator/registry.h"

#include <check.h>
#include <stdlib.h>

static const trm_registry_limits limits = {.silence_us = 2000000, .stuck_us = 10000000};

static int join(trm_registry *r, const char *peer, int64_t now)
{
    trm_wire_message hello = {.kind = TRM_WIRE_HELLO, .host = "node"};
    trm_wire_message ready = {.kind = TRM_WIRE_READY, .credits = 8, .batch_max = 4};
    int replica;

    ck_assert_int_eq(trm_registry_join(r, peer, &hello, now, &replica), TRM_OK);
    ck_assert_int_eq(trm_registry_hear(r, replica, &ready, now), TRM_OK);
    return replica;
}

START_TEST(silence_and_stalls)
{
    trm_wire_message beat = {.kind = TRM_WIRE_HEARTBEAT, .progress = 1};
    trm_registry r = {0};
    int a = join(&r, "0/1", 0), b = join(&r, "1/1", 0);

    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 2000000), -1);
    ck_assert_int_eq(trm_registry_hear(&r, a, &beat, 1000000), TRM_OK);
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 2500000), b);
    /* the coordinator itself did not run for a second: as if that second had not been */
    trm_registry_forgive(&r, 1000000);
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 2500000), -1);
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 3100000), b);
    trm_registry_give_up(&r, b, "gone");
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 3100000), -1);
    ck_assert_int_eq(trm_registry_alive(&r), 1);
    trm_registry_fini(&r);
}
END_TEST

/* it beats, has work, and its counter stands still */
START_TEST(stuck)
{
    trm_wire_message beat = {.kind = TRM_WIRE_HEARTBEAT, .progress = 7};
    trm_registry r = {0};
    int a = join(&r, "0/1", 0);

    trm_registry_sent(&r, a, 4, 0);
    for (int64_t t = 0; t <= 11000000; t += 500000)
        ck_assert_int_eq(trm_registry_hear(&r, a, &beat, t), TRM_OK);
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 11000000), a);
    trm_registry_forgive(&r, 1500000);
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 11000000), -1);
    trm_registry_fini(&r);
}
END_TEST

START_TEST(picks_the_least_loaded)
{
    trm_wire_message hello = {.kind = TRM_WIRE_HELLO, .host = "node"};
    trm_registry r = {0};
    int a = join(&r, "0/1", 0), b = join(&r, "1/1", 0), again;

    trm_registry_sent(&r, a, 4, 0);
    ck_assert_int_eq(trm_registry_pick(&r), b);
    trm_registry_sent(&r, b, 8, 0);
    ck_assert_int_eq(trm_registry_pick(&r), a); /* b has no credit left */
    ck_assert_int_eq(trm_registry_join(&r, "1/1", &hello, 0, &again), TRM_ERR_INVALID_ARG);
    trm_registry_fini(&r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("registry");
    TCase *tc = tcase_create("registry");
    SRunner *runner;
    int failed;

    tcase_add_test(tc, silence_and_stalls);
    tcase_add_test(tc, stuck);
    tcase_add_test(tc, picks_the_least_loaded);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
