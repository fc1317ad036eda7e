/* The window's order and retries; the registry's arithmetic. */
#include "coordinator/registry.h"
#include "coordinator/window.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static trm_window *window_of(int capacity, int records)
{
    trm_window *w = NULL;

    ck_assert_int_eq(trm_window_create(capacity, 100, &w), TRM_OK);
    for (int i = 0; i < records; i++) {
        char name[16];
        trm_wire_record r = {.kind = TRM_RECORD_IMAGE_PATH, .name = name};

        snprintf(name, sizeof(name), "n%d", i);
        ck_assert_int_eq(trm_window_submit(w, &r), TRM_OK);
    }
    return w;
}

static bool answer(trm_window *w, int replica, uint64_t id)
{
    trm_wire_result r = {.id = id, .message = ""};

    return trm_window_answer(w, replica, &r, NULL);
}

START_TEST(input_order)
{
    trm_window *w = window_of(4, 4);
    const trm_wire_buffer *out[8];
    trm_wire_record r = {.kind = TRM_RECORD_IMAGE_PATH, .name = "more"};
    trm_taken t;

    ck_assert(trm_window_is_full(w));
    ck_assert_int_eq(trm_window_submit(w, &r), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_window_hand_out(w, 0, 3, out), 3);
    ck_assert_int_eq(trm_window_hand_out(w, 1, 3, out), 1);
    ck_assert_int_eq(trm_window_hand_out(w, 1, 3, out), 0);
    ck_assert(answer(w, 1, 103));
    ck_assert(answer(w, 0, 101));
    ck_assert(!trm_window_take(w, &t));
    ck_assert(answer(w, 0, 100));
    ck_assert(trm_window_take(w, &t));
    ck_assert_uint_eq(t.result.id, 100);
    ck_assert_str_eq(t.name, "n0");
    trm_taken_fini(&t);
    ck_assert(trm_window_take(w, &t));
    ck_assert_uint_eq(t.result.id, 101);
    trm_taken_fini(&t);
    ck_assert(!trm_window_take(w, &t)); /* 102 is out */
    ck_assert_int_eq(trm_window_submit(w, &r), TRM_OK);
    ck_assert_int_eq(trm_window_held(w), 3);
    ck_assert(answer(w, 0, 102));
    for (uint64_t id = 102; id < 104; id++) {
        ck_assert(trm_window_take(w, &t));
        ck_assert_uint_eq(t.result.id, id);
        trm_taken_fini(&t);
    }
    trm_window_destroy(w);
    ck_assert_int_eq(trm_alloc_live(), 0);
}
END_TEST

START_TEST(refuses_what_was_not_asked)
{
    trm_window *w = window_of(4, 2);
    const trm_wire_buffer *out[4];

    ck_assert(!answer(w, 0, 100)); /* not handed out */
    ck_assert_int_eq(trm_window_hand_out(w, 0, 1, out), 1);
    ck_assert(!answer(w, 1, 100)); /* another's */
    ck_assert(!answer(w, 0, 99));
    ck_assert(!answer(w, 0, 102));
    ck_assert(answer(w, 0, 100));
    ck_assert(!answer(w, 0, 100)); /* twice */
    trm_window_destroy(w);
}
END_TEST

START_TEST(retries_alone_and_gives_up)
{
    trm_window *w = window_of(4, 3);
    const trm_wire_buffer *out[4];
    trm_taken t;

    ck_assert_int_eq(trm_window_hand_out(w, 0, 4, out), 3);
    ck_assert_int_eq(trm_window_take_back(w, 0), 3);
    ck_assert(!answer(w, 0, 100)); /* a late answer of the dead */
    for (int attempt = 2; attempt <= TRM_WINDOW_ATTEMPTS; attempt++) {
        ck_assert_int_eq(trm_window_hand_out(w, attempt, 4, out), 1);
        ck_assert_int_eq(trm_window_take_back(w, attempt), 1);
    }
    ck_assert(trm_window_take(w, &t));
    ck_assert_uint_eq(t.result.id, 100);
    ck_assert_int_eq(t.result.status, TRM_ERR_COMM);
    ck_assert_ptr_nonnull(strstr(t.result.message, "3 replicas"));
    trm_taken_fini(&t);
    /* the others are still there */
    ck_assert_int_eq(trm_window_queued(w), 2);
    ck_assert_int_eq(trm_window_hand_out(w, 7, 4, out), 1);
    ck_assert(answer(w, 7, 101));
    trm_window_destroy(w);
}
END_TEST

START_TEST(an_unreadable_record_is_answered_at_once)
{
    trm_window *w = window_of(2, 0);
    trm_wire_record r = {.kind = TRM_RECORD_ERROR, .name = "x", .message = "line 3: no"};
    const trm_wire_buffer *out[2];
    trm_taken t;

    ck_assert_int_eq(trm_window_submit(w, &r), TRM_OK);
    ck_assert_int_eq(trm_window_hand_out(w, 0, 2, out), 0);
    ck_assert(trm_window_take(w, &t));
    ck_assert_str_eq(t.result.message, "line 3: no");
    ck_assert_int_eq(t.result.status, TRM_ERR_BAD_FILE);
    trm_taken_fini(&t);
    trm_window_destroy(w);
}
END_TEST

/* ---- registry ---- */

static int join(trm_registry *r, const char *peer, int64_t now)
{
    trm_wire_message hello = {.kind = TRM_WIRE_HELLO, .host = "h", .rank = r->count, .pid = 9};
    trm_wire_message ready = {.kind = TRM_WIRE_READY, .credits = 8, .batch_max = 4};
    int replica = -1;

    ck_assert_int_eq(trm_registry_join(r, peer, &hello, now, &replica), TRM_OK);
    ck_assert_int_eq(trm_registry_hear(r, replica, &ready, now), TRM_OK);
    return replica;
}

START_TEST(registry_credit_and_choice)
{
    trm_wire_message credit = {.kind = TRM_WIRE_CREDIT, .credits = 4};
    trm_wire_message hello = {.kind = TRM_WIRE_HELLO, .host = "h"};
    trm_wire_message stop = {.kind = TRM_WIRE_STOP};
    trm_registry r = {0};
    int again;

    ck_assert_int_eq(trm_registry_pick(&r), -1);
    ck_assert_int_eq(join(&r, "0/1", 0), 0);
    ck_assert_int_eq(join(&r, "1/1", 0), 1);
    ck_assert_int_eq(trm_registry_join(&r, "1/1", &hello, 0, &again), TRM_ERR_INVALID_ARG);
    trm_registry_sent(&r, 0, 4, 0);
    ck_assert_int_eq(trm_registry_pick(&r), 1);
    trm_registry_sent(&r, 1, 8, 0);
    ck_assert_int_eq(trm_registry_pick(&r), 0);
    trm_registry_sent(&r, 0, 4, 0);
    ck_assert_int_eq(trm_registry_pick(&r), -1); /* no credit left */
    trm_registry_answered(&r, 1, 4);
    ck_assert_int_eq(trm_registry_hear(&r, 1, &credit, 0), TRM_OK);
    ck_assert_int_eq(trm_registry_pick(&r), 1);
    credit.credits = UINT32_MAX;
    ck_assert_int_eq(trm_registry_hear(&r, 1, &credit, 0), TRM_ERR_COMM);
    ck_assert_int_eq(trm_registry_hear(&r, 1, &stop, 0), TRM_ERR_COMM);
    trm_registry_fini(&r);
}
END_TEST

START_TEST(registry_silence_and_stuck)
{
    trm_registry_limits limits = {.silence_us = 2000, .stuck_us = 10000};
    trm_wire_message beat = {.kind = TRM_WIRE_HEARTBEAT, .phase = TRM_PHASE_STEADY, .progress = 1};
    trm_registry r = {0};

    join(&r, "0/1", 0);
    join(&r, "1/1", 0);
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 2000), -1);
    ck_assert_int_eq(trm_registry_hear(&r, 0, &beat, 1500), TRM_OK);
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 2500), 1);
    ck_assert_ptr_nonnull(strstr(trm_message(), "nothing heard"));
    trm_registry_give_up(&r, 1, "gone");
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 2500), -1);
    ck_assert_int_eq(trm_registry_alive(&r), 1);
    /* beats without progress: fine while idle, stuck with work */
    for (int64_t t = 2000; t <= 30000; t += 1000)
        ck_assert_int_eq(trm_registry_hear(&r, 0, &beat, t), TRM_OK);
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 30000), -1);
    trm_registry_sent(&r, 0, 1, 30000);
    for (int64_t t = 31000; t <= 41000; t += 1000)
        ck_assert_int_eq(trm_registry_hear(&r, 0, &beat, t), TRM_OK);
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 41000), 0);
    ck_assert_ptr_nonnull(strstr(trm_message(), "stuck"));
    beat.progress = 2;
    ck_assert_int_eq(trm_registry_hear(&r, 0, &beat, 41000), TRM_OK);
    ck_assert_int_eq(trm_registry_overdue(&r, &limits, 41000), -1);
    trm_registry_fini(&r);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("window");
    TCase *tc = tcase_create("window and registry");
    SRunner *runner;
    int failed;

    tcase_add_test(tc, input_order);
    tcase_add_test(tc, refuses_what_was_not_asked);
    tcase_add_test(tc, retries_alone_and_gives_up);
    tcase_add_test(tc, an_unreadable_record_is_answered_at_once);
    tcase_add_test(tc, registry_credit_and_choice);
    tcase_add_test(tc, registry_silence_and_stuck);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
