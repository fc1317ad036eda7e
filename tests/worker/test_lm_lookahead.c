/* The scheduler with two steps under way on one device, against what every sequence comes to alone:
 * requests come, end, are cancelled and fail at random, pages are few, and the device runs its
 * steps late. */
#include "lm_fake_kit.h"
#include "worker/language/scheduler_impl.h"

#include <stdio.h>

#define VOCABULARY 97
#define LIVE 24
#define CONTEXT 240
#define ROUNDS 4000

/* Chances are of 1000, a round or a sequence. */
struct row {
    const char *name;
    int batch, step_tokens, pages, force;
    bool prefix, lookahead;
    int arrive, cancel, fail, ends, constrained;
    double decode_budget_us;
};

static const struct row rows[] = {
    {"plain", 16, 64, 400, 0, false, true, 300, 0, 0, 300, 0, 0},
    {"plain, one step at a time", 16, 64, 400, 0, false, false, 300, 0, 0, 300, 0, 0},
    {"prefix", 16, 64, 400, 0, true, true, 300, 0, 0, 300, 0, 0},
    {"few pages", 16, 64, 30, 0, false, true, 300, 0, 0, 300, 0, 0},
    {"few pages, one step at a time", 16, 64, 30, 0, false, false, 300, 0, 0, 300, 0, 0},
    {"few pages, prefix", 12, 48, 24, 0, true, true, 300, 0, 0, 300, 0, 0},
    {"hardly any pages", 8, 32, 15, 0, true, true, 400, 20, 0, 300, 0, 0},
    {"forced preemption", 16, 64, 400, 3, true, true, 300, 0, 0, 300, 0, 0},
    {"cancelled", 16, 64, 60, 0, true, true, 400, 150, 0, 500, 0, 0},
    {"steps fail", 16, 64, 60, 0, true, true, 400, 50, 30, 300, 0, 0},
    {"some are constrained", 16, 64, 60, 7, true, true, 400, 50, 10, 300, 200, 0},
    {"all are constrained", 16, 64, 60, 0, true, true, 400, 50, 0, 300, 1000, 0},
    {"one slot", 1, 16, 20, 0, true, true, 100, 50, 10, 300, 0, 0},
    {"small pieces, a budget", 16, 17, 60, 0, true, true, 300, 20, 0, 300, 100, 300},
};

struct one {
    trm_sequence *q; /* NULL: free */
    trm_sampling sampling;
    int32_t want[FAKE_SEEN_MAX];
    int prompt, want_count, taken, scores;
    trm_finish want_finish;
    bool stops, lingers; /* is stopped by tokens 3 and 4; is removed a while after its end */
};

struct run {
    const struct row *row;
    trm_scheduler *s;
    fake f;
    trm_lm_step step;
    int flights[FAKE_STEPS];
    struct one all[LIVE];
    uint64_t random, tokens, prompt_tokens;
    int over, by_finish[TRM_FINISH_FAILED + 1];
};

static int below(struct run *r, int n)
{
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return (int)((r->random >> 33) % (uint64_t)n);
}

static bool chance(struct run *r, int of_1000)
{
    return below(r, 1000) < of_1000;
}

/* ---- sequences ---- */

static bool stops(const struct one *o, int32_t id)
{
    return o->stops && (id == 3 || id == 4);
}

static void foresee(const struct run *r, struct one *o)
{
    const trm_sampling *p = &o->sampling;
    int max = CONTEXT, all = r->row->pages * TRM_KV_PAGE, count;

    max = o->prompt + p->max_tokens < max ? o->prompt + p->max_tokens : max;
    max = max < all ? max : all;
    count = fake_alone(p, o->want, o->prompt, max, VOCABULARY);
    o->want_finish = count == max ? TRM_FINISH_LENGTH : TRM_FINISH_FAILED;
    for (int i = 0; i < p->end_count && count > o->prompt; i++)
        if (o->want[count - 1] == p->end[i])
            o->want_finish = TRM_FINISH_END;
    for (int i = o->prompt; i < count; i++)
        if (stops(o, o->want[i])) {
            o->want_finish = TRM_FINISH_STOP;
            count = i + 1;
        }
    o->want_count = count;
}

static void make_prompt(struct run *r, struct one *o)
{
    int family = below(r, 3), most = r->row->pages * TRM_KV_PAGE - 2;

    most = most < 200 ? most : 200;
    o->prompt = 1 + below(r, below(r, 3) > 0 ? 40 : most);
    o->prompt = o->prompt < most ? o->prompt : most;
    for (int i = 0; i < o->prompt; i++)
        o->want[i] = i < 64 ? (family * 31 + i) % VOCABULARY : below(r, VOCABULARY);
}

static void make_sampling(struct run *r, struct one *o)
{
    trm_sampling *p = &o->sampling;

    trm_sampling_init(p);
    p->max_tokens = 1 + below(r, 80);
    p->seed = (uint64_t)below(r, 1000);
    p->repetition_penalty = below(r, 2) > 0 ? 1.5f : 1.0f;
    p->top_k = below(r, 12) == 0 ? o->prompt + below(r, 30) : 0;
    for (int i = 0; i < 3 && chance(r, r->row->ends); i++)
        p->end[p->end_count++] = i;
    o->stops = below(r, 4) == 0;
    o->lingers = below(r, 8) == 0;
}

static struct one *room(struct run *r)
{
    for (int i = 0; i < LIVE; i++)
        if (r->all[i].q == NULL)
            return &r->all[i];
    return NULL;
}

/* A request of one to three choices. */
static void arrive(struct run *r)
{
    int choices = below(r, 4) == 0 ? 3 : 1, priority = below(r, 6) == 0 ? below(r, 3) - 1 : 0;
    bool constrained = chance(r, r->row->constrained), scored = below(r, 10) == 0;
    struct one *first = NULL;

    for (int n = 0; n < choices; n++) {
        struct one *o = room(r);

        if (o == NULL)
            return;
        memset(o, 0, sizeof(*o));
        if (first == NULL) {
            make_prompt(r, o);
            make_sampling(r, o);
            first = o;
        } else {
            *o = *first;
            memset(&o->q, 0, sizeof(o->q));
            o->sampling.stream = (uint32_t)n;
            o->taken = o->scores = 0;
        }
        foresee(r, o);
        FAKE_CHECK(trm_sequence_create(r->s, o->want, o->prompt, NULL, &o->sampling, &o->q) ==
                       TRM_OK,
                   "%s", trm_message());
        o->q->owner = o;
        o->q->priority = priority;
        o->q->constraint = constrained ? "{}" : NULL;
        o->q->prompt_logprobs = scored && n == 0;
        o->q->sibling = n > 0 ? first->q : NULL;
        trm_scheduler_add(r->s, o->q);
    }
}

/* early: not by what it has come to itself. */
static void end(struct run *r, struct one *o, trm_finish finish, bool early)
{
    trm_sequence *q = o->q;

    FAKE_CHECK(q->count <= o->want_count, "%d of %d tokens", q->count, o->want_count);
    if (!early) {
        FAKE_SAME(finish, o->want_finish);
        FAKE_SAME(q->count, o->want_count);
        r->prompt_tokens += (uint64_t)o->prompt;
    }
    FAKE_SAME(q->count, o->prompt + o->taken);
    FAKE_CHECK(memcmp(q->tokens, o->want, (size_t)q->count * sizeof(int32_t)) == 0, "other tokens");
    if (q->prompt_logprobs && !early)
        FAKE_SAME(o->scores, o->prompt - 1);
    trm_scheduler_remove(r->s, q);
    trm_sequence_destroy(q);
    o->q = NULL;
    r->over++;
    r->by_finish[finish]++;
}

static void took(void *ctx, trm_sequence *q, const trm_sampled *result, bool prompt, int position)
{
    struct run *r = ctx;
    struct one *o = q->owner;

    if (prompt) {
        o->scores++;
        FAKE_SAME(position, o->scores); /* each position once, in order */
        FAKE_SAME((int)result->logprob, (int)(fake_row(o->want, position) % 1000));
        return;
    }
    if (result->id >= 0) {
        o->taken++;
        r->tokens++;
        FAKE_SAME(result->id, o->want[position]);
        FAKE_SAME(position + 1, q->count);
        if (stops(o, result->id))
            q->finish = TRM_FINISH_STOP;
    }
    if (q->finish != TRM_FINISH_NONE && !o->lingers)
        end(r, o, q->finish, false);
}

static void lost(void *ctx, trm_sequence *q)
{
    struct run *r = ctx;

    end(r, q->owner, TRM_FINISH_FAILED, true);
}

/* ---- rounds ---- */

/* A page that is still written has one holder. */
static void check_pages(const struct run *r)
{
    static int holders[1024], writers[1024];

    memset(holders, 0, sizeof(holders));
    memset(writers, 0, sizeof(writers));
    for (int i = 0; i < LIVE; i++) {
        const trm_sequence *q = r->all[i].q;

        for (int k = 0; q != NULL && k < q->table.count; k++) {
            holders[q->table.pages[k]]++;
            writers[q->table.pages[k]] += k >= q->computed / TRM_KV_PAGE;
        }
    }
    for (int i = 0; i < r->s->limits.flights * r->s->limits.batch; i++)
        for (int k = 0; r->s->ghosts[i].steps > 0 && k < r->s->ghosts[i].table.count; k++) {
            const trm_kv_table *t = &r->s->ghosts[i].table;

            holders[t->pages[k]]++;
            writers[t->pages[k]] += k >= t->known;
        }
    for (int p = 0; p < r->row->pages; p++)
        FAKE_CHECK(writers[p] == 0 || holders[p] == 1, "page %d: %d hold it, %d write it", p,
                   holders[p], writers[p]);
}

/* No step beyond what is known to be the end. */
static void check_ends(const struct run *r, int flight)
{
    for (int i = 0; i < r->step.part_count; i++) {
        const trm_sequence *q = trm_scheduler_part(r->s, flight, i);

        FAKE_CHECK(r->step.parts[i].position + r->step.parts[i].tokens < q->max,
                   "position %d of %d", r->step.parts[i].position, q->max);
    }
}

static void submit(struct run *r)
{
    int flight;

    while (r->f.under_way < r->s->limits.flights && trm_scheduler_next(r->s, &r->step, &flight)) {
        check_ends(r, flight);
        if (chance(r, r->row->fail)) { /* it never gets to the device */
            trm_scheduler_failed(r->s, flight, lost, r);
            continue;
        }
        r->flights[(r->f.first + r->f.under_way) % FAKE_STEPS] = flight;
        fake_submit(&r->f, &r->step);
        check_pages(r);
        if (below(r, 8) == 0)
            return;
    }
}

static void collect(struct run *r)
{
    int flight = r->flights[r->f.first];

    if (chance(r, r->row->fail)) {
        fake_drop(&r->f);
        trm_scheduler_failed(r->s, flight, lost, r);
    } else {
        const trm_sampled *results = fake_collect(&r->f);

        trm_scheduler_done(r->s, flight, results, 100 + below(r, 50), took, r);
    }
    check_pages(r);
}

static void end_some(struct run *r)
{
    for (int i = 0; i < LIVE; i++) {
        struct one *o = &r->all[i];

        if (o->q != NULL && o->q->finish != TRM_FINISH_NONE && below(r, 3) == 0)
            end(r, o, o->q->finish, false);
    }
    if (chance(r, r->row->cancel)) {
        struct one *o = &r->all[below(r, LIVE)];

        if (o->q != NULL && o->q->finish == TRM_FINISH_NONE)
            end(r, o, TRM_FINISH_CANCELLED, true);
    }
}

static void play(struct run *r, bool more)
{
    end_some(r);
    if (more && chance(r, r->row->arrive))
        arrive(r);
    submit(r);
    if (below(r, 2) == 0)
        (void)fake_run_one(&r->f);
    if (more)
        end_some(r); /* while steps are under way */
    if (r->f.under_way > 0)
        collect(r);
}

static bool is_empty(const struct run *r)
{
    for (int i = 0; i < LIVE; i++)
        if (r->all[i].q != NULL)
            return false;
    return r->f.under_way == 0;
}

static void open_run(struct run *r, const struct row *row, uint64_t seed)
{
    const trm_scheduler_limits limits = {.batch = row->batch,
                                         .step_tokens = row->step_tokens,
                                         .context = CONTEXT,
                                         .pages = row->pages,
                                         .flights = row->lookahead ? 2 : 1,
                                         .vocabulary = VOCABULARY,
                                         .prefix = row->prefix,
                                         .lookahead = row->lookahead,
                                         .decode_budget_us = row->decode_budget_us};

    memset(r, 0, sizeof(*r));
    r->row = row;
    r->random = seed;
    fake_init(&r->f, row->pages, VOCABULARY);
    ck_assert_int_eq(trm_scheduler_create(&limits, &r->s), TRM_OK);
    ck_assert_int_eq(trm_lm_step_init(&r->step, row->step_tokens, row->batch, row->batch + 64,
                                      row->batch * (CONTEXT / TRM_KV_PAGE + 1), row->batch, false),
                     TRM_OK);
}

static void close_run(struct run *r)
{
    ck_assert_int_eq(r->s->ghost_count, 0);
    ck_assert_int_eq(r->s->slot_count, r->row->batch);
    trm_lm_step_fini(&r->step);
    trm_scheduler_destroy(r->s);
    fake_fini(&r->f);
}

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
    ck_assert(row->lookahead || r.f.ahead == 0);
    ck_assert((row->lookahead && row->constrained < 1000) == (r.f.unknown > 0));
    if ((row->pages <= 30 && row->batch > 1) || row->force > 0)
        ck_assert_uint_gt(stats.preemptions, 0);
    close_run(&r);
}
END_TEST

/* ---- one thing at a time ---- */

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
    int slots;

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

int main(void)
{
    Suite *s = suite_create("lookahead of language models");
    TCase *t = tcase_create("lookahead");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, every_sequence_is_as_if_alone, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_test(t, a_sequence_is_in_every_step_and_in_none_too_many);
    tcase_add_test(t, pages_are_kept_until_no_step_writes_them);
    tcase_add_test(t, the_least_gives_way);
    tcase_add_test(t, pages_of_a_cancelled_one_are_waited_for);
    tcase_add_test(t, constrained_ones_do_not_fall_behind);
    tcase_add_test(t, two_steps_fail);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
