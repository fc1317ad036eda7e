/* Thousands of rounds of lookahead_kit.h: whatever is mixed, cancelled, preempted or fails, and
 * however late the device runs its steps, every sequence becomes what it becomes alone, and nothing
 * is left behind. */
#include "lookahead_kit.h"

#include <stdio.h>

#define ROUNDS 4000

static const struct row rows[] = {
    {"plain", 16, 64, 400, 0, false, true, 300, 0, 0, 300, 0, 0, 0},
    {"plain, one step at a time", 16, 64, 400, 0, false, false, 300, 0, 0, 300, 0, 0, 0},
    {"prefix", 16, 64, 400, 0, true, true, 300, 0, 0, 300, 0, 0, 0},
    {"few pages", 16, 64, 30, 0, false, true, 300, 0, 0, 300, 0, 0, 0},
    {"few pages, one step at a time", 16, 64, 30, 0, false, false, 300, 0, 0, 300, 0, 0, 0},
    {"few pages, prefix", 12, 48, 24, 0, true, true, 300, 0, 0, 300, 0, 0, 0},
    {"hardly any pages", 8, 32, 15, 0, true, true, 400, 20, 0, 300, 0, 0, 0},
    {"forced preemption", 16, 64, 400, 3, true, true, 300, 0, 0, 300, 0, 0, 0},
    {"cancelled", 16, 64, 60, 0, true, true, 400, 150, 0, 500, 0, 0, 0},
    {"steps fail", 16, 64, 60, 0, true, true, 400, 50, 30, 300, 0, 0, 0},
    {"some are constrained", 16, 64, 60, 7, true, true, 400, 50, 10, 300, 200, 0, 0},
    {"all are constrained", 16, 64, 60, 0, true, true, 400, 50, 0, 300, 1000, 0, 0},
    {"one slot", 1, 16, 20, 0, true, true, 100, 50, 10, 300, 0, 0, 0},
    {"small pieces, a budget", 16, 17, 60, 0, true, true, 300, 20, 0, 300, 100, 300, 0},
    {"three steps", 16, 64, 60, 0, true, true, 400, 20, 10, 300, 100, 0, 3},
    {"three steps, hardly any pages", 8, 32, 15, 5, true, true, 400, 20, 0, 300, 0, 0, 3},
    {"dealt out", 16, 64, 60, 0, true, false, 400, 50, 10, 300, 100, 0, 3},
};

START_TEST(every_sequence_is_as_if_alone)
{
    const struct row *row = &rows[_i];
    static struct run r;
    trm_scheduler_stats stats;
    int idle = 0;

    open_run(&r, row, 12345 + (uint64_t)_i);
    trm_scheduler_force_preemption(r.s, row->force);
    for (int i = 0; i < ROUNDS; i++)
        play(&r, true);
    trm_scheduler_force_preemption(r.s, 0);
    for (; !is_empty(&r); idle++) {
        ck_assert_msg(idle < 20000, "%s: it does not end", row->name);
        play(&r, false);
    }
    trm_scheduler_get_stats(r.s, &stats);
    printf("%-30s %5d over (", row->name, r.over);
    for (int i = 1; i <= TRM_FINISH_FAILED; i++)
        printf("%s%s %d", i > 1 ? ", " : "",
               (const char *[]){"", "end", "stop", "length", "cancelled", "failed"}[i],
               r.by_finish[i]);
    printf("), %d steps, %ld ahead, %ld tokens unknown of %d, %d preempted, %d found\n",
           (int)stats.steps, r.f.ahead, r.f.unknown, (int)stats.new_tokens, (int)stats.preemptions,
           (int)stats.kv.found_tokens);
    ck_assert_int_gt(r.over, 100);
    ck_assert_int_eq(stats.kv.used, 0);
    ck_assert_int_eq(stats.running + stats.waiting + stats.under_way, 0);
    ck_assert_uint_eq(stats.new_tokens, r.tokens);
    ck_assert_uint_ge(stats.prompt_tokens + stats.kv.found_tokens, r.prompt_tokens);
    if (row->cancel == 0 && row->fail == 0 && stats.preemptions == 0 && !row->prefix)
        ck_assert_uint_eq(stats.prompt_tokens, r.prompt_tokens);
    ck_assert(row->lookahead || row->flights > 0 || r.f.ahead == 0);
    ck_assert((row->lookahead && row->constrained < 1000) == (r.f.unknown > 0));
    if ((row->pages <= 30 && row->batch > 1) || row->force > 0)
        ck_assert_uint_gt(stats.preemptions, 0);
    close_run(&r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lookahead of language models");
    TCase *t = tcase_create("lookahead");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, every_sequence_is_as_if_alone, 0, sizeof(rows) / sizeof(rows[0]));
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
