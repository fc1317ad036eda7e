/* Looking ahead, one thing at a time. */
#include "lookahead_kit.h"

/* A sequence of `new_tokens` behind `prompt` tokens that nothing else ends. */
static struct one *add(struct run *r, int prompt, int new_tokens, int32_t priority)
{
    struct one *o = room(r);

    ck_assert_ptr_nonnull(o);
    memset(o, 0, sizeof(*o));
    for (int i = 0; i < prompt; i++)
        o->want[i] = (i * 7 + prompt) % VOCABULARY;
    o->prompt = prompt;
    trm_sampling_init(&o->sampling);
    o->sampling.max_tokens = new_tokens;
    foresee(r, o);
    ck_assert_int_eq(trm_sequence_create(r->s, o->want, prompt, NULL, &o->sampling, &o->q), TRM_OK);
    o->q->owner = o;
    o->q->priority = priority;
    trm_scheduler_add(r->s, o->q);
    return o;
}

static const struct row quiet = {
    .name = "quiet", .batch = 4, .step_tokens = 64, .pages = 40, .lookahead = true};

static bool fill_one(struct run *r)
{
    int flight;

    if (r->f.under_way == r->s->limits.flights || !trm_scheduler_next(r->s, &r->step, &flight))
        return false;
    check_ends(r, flight);
    r->flights[(r->f.first + r->f.under_way) % FAKE_STEPS] = flight;
    fake_submit(&r->f, &r->step);
    check_pages(r);
    return true;
}

static void run_out(struct run *r)
{
    while (!is_empty(r)) {
        while (fill_one(r))
            ;
        ck_assert_int_gt(r->f.under_way, 0);
        collect(r);
    }
}

static int steps_of(const struct run *r)
{
    trm_scheduler_stats stats;

    trm_scheduler_get_stats(r->s, &stats);
    return (int)stats.steps;
}

static int pages_used(const struct run *r)
{
    trm_scheduler_stats stats;

    trm_scheduler_get_stats(r->s, &stats);
    return stats.kv.used;
}

START_TEST(a_sequence_is_in_every_step_and_in_none_too_many)
{
    static struct run r;

    open_run(&r, &quiet, 1);
    (void)add(&r, 100, 20, 0); /* its prompt is two pieces */
    run_out(&r);
    ck_assert_int_eq(steps_of(&r), 21);
    ck_assert_int_eq((int)r.f.ahead, 20);
    ck_assert_int_eq((int)r.f.unknown, 19);
    close_run(&r);
}
END_TEST

/* An end token comes with a step, while the next one still writes. */
START_TEST(pages_are_kept_until_no_step_writes_them)
{
    static struct run r;
    struct one *o;
    int slots = 0;

    open_run(&r, &quiet, 1);
    o = add(&r, 20, 60, 0);
    o->sampling.end[o->sampling.end_count++] = o->want[22];
    foresee(&r, o);
    ck_assert_int_eq(o->want_finish, TRM_FINISH_END);
    while (o->q != NULL) {
        while (fill_one(&r))
            ;
        ck_assert_int_eq(r.f.under_way, 2);
        slots = r.s->slot_count;
        collect(&r);
    }
    ck_assert_int_eq(r.f.under_way, 1);
    ck_assert_int_eq(r.s->ghost_count, 1);
    ck_assert_int_eq(r.s->slot_count, slots);
    ck_assert_int_gt(pages_used(&r), 0);
    collect(&r);
    ck_assert_int_eq(r.s->ghost_count, 0);
    ck_assert_int_eq(pages_used(&r), 0);
    close_run(&r);
}
END_TEST

/* Pages for two of three: the least gives way although it came first, and no other one, although
 * most are under way whenever pages run out. */
START_TEST(the_least_gives_way)
{
    static const struct row row = {
        .name = "", .batch = 3, .step_tokens = 64, .pages = 6, .lookahead = true};
    static const int32_t priorities[] = {0, 1, 1};
    static struct run r;
    struct one *all[3];
    int preempted = 0;

    open_run(&r, &row, 1);
    for (int i = 0; i < 3; i++)
        all[i] = add(&r, 3 + 5 * i, 30, priorities[i]);
    while (!is_empty(&r)) {
        while (fill_one(&r))
            ;
        for (int i = 1; i < 3; i++)
            ck_assert(all[i]->q == NULL || all[i]->q->preemptions == 0);
        preempted = all[0]->q != NULL ? all[0]->q->preemptions : preempted;
        collect(&r);
    }
    ck_assert_int_gt(preempted, 0);
    close_run(&r);
}
END_TEST

/* Pages that a cancelled sequence leaves when its steps have ended are waited for: nobody gives way
 * for want of them. */
START_TEST(pages_of_a_cancelled_one_are_waited_for)
{
    static const struct row row = {
        .name = "", .batch = 3, .step_tokens = 64, .pages = 3, .lookahead = true};
    static struct run r;
    struct one *stays, *goes;

    open_run(&r, &row, 1);
    stays = add(&r, 12, 20, 0);
    goes = add(&r, 20, 20, 1);
    while (stays->q->computed < TRM_KV_PAGE) { /* then it wants a second page */
        while (fill_one(&r))
            ;
        collect(&r);
    }
    ck_assert_int_eq(stays->q->under_way, 0);
    ck_assert_int_eq(goes->q->under_way, 1);
    end(&r, goes, TRM_FINISH_CANCELLED, true);
    ck_assert_int_gt(r.s->ghost_count, 0);
    while (stays->q != NULL) {
        while (fill_one(&r))
            ;
        ck_assert_int_eq(stays->q->preemptions, 0);
        collect(&r);
    }
    run_out(&r);
    close_run(&r);
}
END_TEST

/* One that must know its token is in every step all the same. */
START_TEST(constrained_ones_do_not_fall_behind)
{
    static struct run r;

    open_run(&r, &quiet, 1);
    for (int i = 0; i < 4; i++)
        add(&r, 10, 30, 0)->q->constraint = i == 2 ? "{}" : NULL;
    run_out(&r);
    ck_assert_int_eq(steps_of(&r), 30);
    ck_assert_int_eq((int)r.f.unknown, 0);
    close_run(&r);
}
END_TEST

/* Both steps that it is in fail: it is lost once. */
START_TEST(two_steps_fail)
{
    static struct run r;

    open_run(&r, &quiet, 1);
    (void)add(&r, 10, 30, 0);
    (void)add(&r, 10, 30, 0);
    while (fill_one(&r))
        ;
    ck_assert_int_eq(r.f.under_way, 2);
    for (int i = 0; i < 2; i++) {
        int flight = r.flights[r.f.first];

        fake_drop(&r.f);
        trm_scheduler_failed(r.s, flight, lost, &r);
        ck_assert_int_eq(r.over, 2);
    }
    ck_assert(!fill_one(&r));
    close_run(&r);
}
END_TEST

/* An encoder's sequences are whole: each is in one step, and steps are as full as they can be. */
START_TEST(encoders_fill_their_steps)
{
    static const int32_t prompt[] = {1, 2, 3};
    static const int want[] = {2, 2, 1};
    const trm_scheduler_limits limits = {.batch = 2,
                                         .step_tokens = 16,
                                         .context = 16,
                                         .flights = 2,
                                         .vocabulary = VOCABULARY,
                                         .encoder = true,
                                         .lookahead = true};
    trm_sampling sampling;
    trm_sequence *all[5];
    trm_scheduler *s;
    trm_lm_step step;
    int flights[2], under_way = 0, count = 0;

    trm_sampling_init(&sampling);
    ck_assert_int_eq(trm_scheduler_create(&limits, &s), TRM_OK);
    ck_assert_int_eq(trm_lm_step_init(&step, 16, 2, 2, 1, 1, false), TRM_OK);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(trm_sequence_create(s, prompt, 3, NULL, &sampling, &all[i]), TRM_OK);
        trm_scheduler_add(s, all[i]);
    }
    for (;;) {
        while (under_way < 2 && trm_scheduler_next(s, &step, &flights[(count + under_way) % 2])) {
            ck_assert_int_eq(step.part_count, want[count + under_way]);
            under_way++;
        }
        if (under_way == 0)
            break;
        for (int i = 0; i < want[count]; i++) { /* as the generator does, before the step ends */
            trm_sequence *q = trm_scheduler_part(s, flights[count % 2], i);

            ck_assert_ptr_eq(q, all[2 * count + i]);
            trm_scheduler_remove(s, q);
            trm_sequence_destroy(q);
        }
        trm_scheduler_done(s, flights[count % 2], NULL, 100, took, NULL);
        count++;
        under_way--;
    }
    ck_assert_int_eq(count, 3);
    trm_lm_step_fini(&step);
    trm_scheduler_destroy(s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("lookahead, one thing at a time");
    TCase *t = tcase_create("lookahead");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_sequence_is_in_every_step_and_in_none_too_many);
    tcase_add_test(t, pages_are_kept_until_no_step_writes_them);
    tcase_add_test(t, the_least_gives_way);
    tcase_add_test(t, pages_of_a_cancelled_one_are_waited_for);
    tcase_add_test(t, constrained_ones_do_not_fall_behind);
    tcase_add_test(t, two_steps_fail);
    tcase_add_test(t, encoders_fill_their_steps);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
