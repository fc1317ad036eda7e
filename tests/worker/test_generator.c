/* The generator with a replica that is none: its steps run on the device of lm_fake_kit.h. With two
 * steps under way every request must come to the same text as with one. */
#include "lm_fake_kit.h"
#include "worker/language/generator.h"

#include "base/memory.h"
#include "base/wait.h"

#include <stdio.h>
#include <time.h>

#undef fail /* Check's old name of a failure */
#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())
#define DEMO TRM_SOURCE_DIR "/configs/demo/tiny-sotu"
#define REQUESTS 30
#define CHOICES 3
#define TEXT 2048
#define BATCH 8
#define STEP_TOKENS 48
#define CONTEXT 160

/* ---- the replica ---- */

static bool captures;

struct trm_lm_replica {
    fake f;
    int depth;
    bool looks_ahead;
    int step_us;                   /* a step takes that long; 0: none */
    int64_t free_us;               /* when the device is */
    int64_t submitted[FAKE_STEPS]; /* in the order of the fake's ring */
    int64_t ends[FAKE_STEPS];
    int count, fails_at; /* the step of that number fails; 0: none */
    int collected;
    trm_status fails_with;
};

int trm_lm_replica_depth(const trm_lm_replica *r)
{
    return r->depth;
}

bool trm_lm_replica_looks_ahead(const trm_lm_replica *r)
{
    return r->looks_ahead;
}

bool trm_lm_replica_captures(const trm_lm_replica *r)
{
    (void)r;
    return captures;
}

trm_status trm_lm_replica_step(const trm_lm_replica *r, trm_lm_step *step_out)
{
    (void)r;
    return trm_lm_step_init(step_out, STEP_TOKENS, BATCH, BATCH + 64,
                            BATCH * (CONTEXT / TRM_KV_PAGE + 1), BATCH, false);
}

trm_status trm_lm_replica_submit(trm_lm_replica *r, const trm_lm_step *step)
{
    int at = (r->f.first + r->f.under_way) % FAKE_STEPS;
    int64_t now = trm_now_us();

    ck_assert_int_lt(r->f.under_way, r->depth);
    r->submitted[at] = now;
    r->free_us = (r->free_us > now ? r->free_us : now) + r->step_us;
    r->ends[at] = r->free_us;
    r->count++;
    fake_submit(&r->f, step);
    return TRM_OK;
}

static void sleep_until(int64_t us)
{
    for (int64_t now = trm_now_us(); now < us; now = trm_now_us()) {
        const struct timespec nap = {.tv_nsec = (long)(us - now) * 1000};

        nanosleep(&nap, NULL);
    }
}

trm_status trm_lm_replica_collect(trm_lm_replica *r, trm_lm_results *out)
{
    int at = r->f.first;

    sleep_until(r->ends[at]);
    if (++r->collected == r->fails_at) {
        fake_drop(&r->f);
        return trm_fail(r->fails_with, "step %d fails", r->collected);
    }
    *out = (trm_lm_results){.picks = fake_collect(&r->f),
                            .us = (double)(trm_now_us() - r->submitted[at])};
    return TRM_OK;
}

/* ---- requests ---- */

struct text {
    char text[TEXT];
    size_t bytes;
    int32_t ids[CONTEXT];
    int tokens, ids_count, ends;
    trm_finish finish;
    trm_status status;
    char stopped[16], message[128];
};

struct asked {
    trm_generation *g; /* NULL: over */
    struct text texts[CHOICES];
    int choices, left;
};

struct bench {
    trm_language *language;
    trm_lm_replica replica;
    trm_generator *g;
    struct asked asked[REQUESTS];
};

static void on_token(void *ctx, const trm_generated *t)
{
    struct text *x = &((struct asked *)ctx)->texts[t->choice];

    ck_assert_uint_lt(x->bytes + t->bytes, TEXT);
    if (t->bytes > 0)
        memcpy(x->text + x->bytes, t->text, t->bytes);
    x->bytes += t->bytes;
    x->tokens += t->token != NULL;
}

static void on_end(void *ctx, const trm_generation_end *e)
{
    struct asked *a = ctx;
    struct text *x = &a->texts[e->choice];

    ck_assert_int_eq(x->ends++, 0);
    x->finish = e->finish;
    x->status = e->status;
    x->ids_count = e->new_tokens;
    ck_assert_int_le(e->new_tokens, CONTEXT);
    memcpy(x->ids, e->ids, (size_t)e->new_tokens * sizeof(*x->ids));
    snprintf(x->stopped, sizeof(x->stopped), "%s", e->stopped != NULL ? e->stopped : "");
    snprintf(x->message, sizeof(x->message), "%s", e->message != NULL ? e->message : "");
    if (--a->left == 0)
        a->g = NULL;
}

static void ask(struct bench *b, int i)
{
    static const char *const stops[] = {"on", "th"};
    struct asked *a = &b->asked[i];
    trm_sampling sampling;
    int32_t prompt[100];
    trm_generation_options o = {.prompt = prompt,
                                .prompt_count = (size_t)(1 + i * 29 % 90),
                                .sampling = &sampling,
                                .priority = i % 7 == 0,
                                .prompt_logprobs = i % 9 == 0,
                                .stops = stops,
                                .stop_count = i % 3 == 0 ? 2 : 0,
                                .ctx = a,
                                .token = on_token,
                                .end = on_end};

    for (size_t k = 0; k < o.prompt_count; k++)
        prompt[k] = (int32_t)((size_t)(i % 3) * 50 + k * 3);
    trm_sampling_init(&sampling);
    sampling.seed = (uint64_t)i;
    sampling.max_tokens = 1 + i * 17 % 60;
    sampling.repetition_penalty = i % 2 == 0 ? 1.3f : 1.0f;
    for (int e = 0; e < 8 * (i % 4); e++)
        sampling.end[sampling.end_count++] = 100 + e;
    o.choices = a->choices = a->left = i % 5 == 0 ? CHOICES : 1;
    OK(trm_generator_add(b->g, &o, &a->g));
}

static void open_bench(struct bench *b, int depth, bool looks_ahead, int pages)
{
    trm_language_options lo = {.no_tokenizer = false};
    trm_generator_options o = {.replica = &b->replica,
                               .limits = {.batch = BATCH,
                                          .step_tokens = STEP_TOKENS,
                                          .context = CONTEXT,
                                          .pages = pages,
                                          .prefix = true}};

    memset(b, 0, sizeof(*b));
    OK(trm_language_open(DEMO, &lo, &b->language));
    fake_init(&b->replica.f, pages, (int)b->language->config.vocabulary);
    b->replica.depth = depth;
    b->replica.looks_ahead = looks_ahead;
    o.language = b->language;
    OK(trm_generator_create(&o, &b->g));
}

static void close_bench(struct bench *b)
{
    trm_generator_destroy(b->g);
    fake_fini(&b->replica.f);
    trm_language_close(b->language);
}

static int pages_used(const struct bench *b)
{
    trm_generator_stats stats;

    trm_generator_get_stats(b->g, &stats);
    return stats.scheduler.kv.used;
}

static void check_idle(const struct bench *b)
{
    ck_assert_int_eq(trm_generator_count(b->g), 0);
    ck_assert(!trm_generator_is_busy(b->g));
    ck_assert_int_eq(b->replica.f.under_way, 0);
    ck_assert_int_eq(pages_used(b), 0);
}

/* ---- the same texts ---- */

static const struct row {
    const char *name;
    int depth, pages;
    bool looks_ahead;
} rows[] = {
    {"two steps", 2, 100, true},
    {"two steps, few pages", 2, 14, true},
    {"two steps, dealt out", 2, 100, false},
    {"three steps, dealt out, few pages", 3, 14, false},
};

/* They come one after another, while others run. */
static void run_all(struct bench *b)
{
    for (int i = 0; i < REQUESTS; i++) {
        ask(b, i);
        for (int k = 0; k < i % 4; k++)
            OK(trm_generator_step(b->g));
    }
    OK(trm_generator_run(b->g));
    check_idle(b);
}

START_TEST(texts_are_as_with_one_step)
{
    static struct bench one, many;
    int finishes[TRM_FINISH_FAILED + 1] = {0};
    trm_generator_stats stats;

    open_bench(&one, 1, false, 100);
    run_all(&one);
    open_bench(&many, rows[_i].depth, rows[_i].looks_ahead, rows[_i].pages);
    run_all(&many);
    for (int i = 0; i < REQUESTS; i++)
        for (int k = 0; k < one.asked[i].choices; k++) {
            struct text *want = &one.asked[i].texts[k], *got = &many.asked[i].texts[k];

            ck_assert_int_eq(got->ends, 1);
            ck_assert_int_eq(got->finish, want->finish);
            ck_assert_str_eq(got->text, want->text);
            ck_assert_str_eq(got->stopped, want->stopped);
            ck_assert_int_eq(got->tokens, want->tokens);
            ck_assert_int_eq(got->ids_count, want->ids_count);
            ck_assert_mem_eq(got->ids, want->ids, (size_t)want->ids_count * sizeof(int32_t));
            finishes[got->finish]++;
        }
    for (trm_finish f = TRM_FINISH_END; f <= TRM_FINISH_LENGTH; f++)
        ck_assert_msg(finishes[f] > 1, "%d end with '%s'", finishes[f], trm_finish_name(f));
    ck_assert((many.replica.f.unknown > 100) == rows[_i].looks_ahead);
    trm_generator_get_stats(many.g, &stats);
    ck_assert((stats.scheduler.preemptions > 0) == (rows[_i].pages < 100));
    close_bench(&one);
    close_bench(&many);
}
END_TEST

/* ---- ends before their time ---- */

START_TEST(cancelled_ones_leave_nothing)
{
    static struct bench b;

    open_bench(&b, 2, true, 100);
    for (int i = 1; i < 4; i++)
        ask(&b, i);
    for (int k = 0; k < 3; k++)
        OK(trm_generator_step(b.g));
    trm_generator_cancel(b.g, b.asked[1].g);
    ck_assert_int_eq(b.asked[1].texts[0].finish, TRM_FINISH_CANCELLED);
    OK(trm_generator_step(b.g));
    for (int i = 2; i < 4; i++)
        if (b.asked[i].g != NULL)
            trm_generator_cancel(b.g, b.asked[i].g);
    ck_assert_int_eq(trm_generator_count(b.g), 0);
    ck_assert(trm_generator_is_busy(b.g)); /* a step still writes */
    ck_assert_int_gt(pages_used(&b), 0);
    OK(trm_generator_step(b.g));
    check_idle(&b);
    ask(&b, 4); /* and goes on */
    OK(trm_generator_step(b.g));
    trm_generator_cancel(b.g, b.asked[4].g);
    OK(trm_generator_settle(b.g));
    check_idle(&b);
    close_bench(&b);
}
END_TEST

/* An end token, with the next step under way: nobody waits for that one, and it is not left. */
START_TEST(the_last_end_leaves_nothing)
{
    static const int32_t prompt[] = {1, 2, 3};
    static struct bench b;
    struct asked *a = &b.asked[0];
    trm_sampling sampling;
    trm_generation_options o = {.prompt = prompt,
                                .prompt_count = 3,
                                .sampling = &sampling,
                                .choices = 1,
                                .ctx = a,
                                .end = on_end};

    open_bench(&b, 2, true, 100);
    trm_sampling_init(&sampling);
    sampling.max_tokens = 20;
    for (int k = 0; k < 2; k++) { /* once to know the tokens */
        a->left = 1;
        a->texts[0].ends = 0;
        OK(trm_generator_add(b.g, &o, &a->g));
        OK(trm_generator_run(b.g));
        check_idle(&b);
        sampling.end[sampling.end_count++] = a->texts[0].ids[7];
    }
    ck_assert_int_eq(a->texts[0].finish, TRM_FINISH_END);
    ck_assert_int_eq(a->texts[0].ids_count, 8);
    ck_assert_int_eq(b.replica.count, 20 + 9);
    close_bench(&b);
}
END_TEST

/* A step's own failure ends those in it, once, though they are in the next one, too; who comes
 * later is served. */
START_TEST(a_failed_step_ends_its_requests)
{
    static struct bench b;

    open_bench(&b, 2, true, 100);
    b.replica.fails_at = 3;
    b.replica.fails_with = TRM_ERR_INTERNAL;
    ask(&b, 1);
    ask(&b, 2);
    OK(trm_generator_step(b.g));
    OK(trm_generator_step(b.g));
    ask(&b, 4); /* is in the step behind the one that fails */
    OK(trm_generator_run(b.g));
    for (int i = 1; i < 3; i++) {
        ck_assert_int_eq(b.asked[i].texts[0].ends, 1);
        ck_assert_int_eq(b.asked[i].texts[0].status, TRM_ERR_INTERNAL);
        ck_assert_str_eq(b.asked[i].texts[0].message, "step 3 fails");
    }
    ck_assert_int_eq(b.asked[4].texts[0].status, TRM_OK);
    check_idle(&b);
    close_bench(&b);
}
END_TEST

START_TEST(a_lost_replica_ends_all)
{
    static struct bench b;

    open_bench(&b, 2, true, 100);
    b.replica.fails_at = 3;
    b.replica.fails_with = TRM_ERR_COMM;
    for (int i = 1; i < 12; i++)
        ask(&b, i);
    ck_assert_int_eq(trm_generator_run(b.g), TRM_ERR_COMM);
    for (int i = 1; i < 12; i++)
        for (int k = 0; k < b.asked[i].choices; k++) {
            ck_assert_int_eq(b.asked[i].texts[k].ends, 1);
            ck_assert_int_eq(b.asked[i].texts[k].finish, TRM_FINISH_FAILED);
        }
    ck_assert_int_eq(trm_generator_count(b.g), 0);
    close_bench(&b); /* with a step whose end nobody will see */
}
END_TEST

/* Steps of padding, twice for each size up to the batch; what is generated is as without them. */
START_TEST(it_is_warmed_with_nothing)
{
    static struct bench b, cold;
    int rounds = 0;

    open_bench(&cold, 2, true, 100);
    ck_assert(!trm_generator_warms(cold.g));
    OK(trm_generator_warm(cold.g));
    ck_assert_int_eq(cold.replica.count, 0);
    ask(&cold, 1);
    OK(trm_generator_run(cold.g));
    captures = true;
    open_bench(&b, 2, true, 100);
    captures = false;
    OK(trm_generator_warm(b.g));
    ask(&b, 1);
    OK(trm_generator_step(b.g));
    if (trm_generator_is_busy(b.g)) {
        int count = b.replica.count;

        OK(trm_generator_warm(b.g)); /* one is under way */
        ck_assert_int_eq(b.replica.count, count);
    }
    OK(trm_generator_run(b.g));
    for (int k = 0; k < b.asked[1].choices; k++)
        ck_assert_str_eq(b.asked[1].texts[k].text, cold.asked[1].texts[k].text);
    for (; trm_generator_warms(b.g); rounds++)
        OK(trm_generator_warm(b.g));
    ck_assert_int_eq(rounds, BATCH - 1);
    ck_assert_int_eq(b.replica.count, cold.replica.count + 2 * BATCH);
    check_idle(&b);
    close_bench(&b);
    close_bench(&cold);
}
END_TEST

START_TEST(warming_may_fail)
{
    static struct bench b;

    for (int lost = 0; lost < 2; lost++) {
        captures = true;
        open_bench(&b, 2, true, 100);
        captures = false;
        b.replica.fails_at = 4;
        b.replica.fails_with = lost ? TRM_ERR_COMM : TRM_ERR_NO_MEMORY;
        OK(trm_generator_warm(b.g));
        ck_assert_int_eq(trm_generator_warm(b.g), lost ? TRM_ERR_COMM : TRM_OK);
        ck_assert(!trm_generator_warms(b.g));
        close_bench(&b);
    }
}
END_TEST

/* ---- time ---- */

/* Of steps one behind another each has its own time, not that of the one before, too. */
START_TEST(times_of_steps_do_not_overlap)
{
    static struct bench b;
    trm_generator_stats stats;
    int64_t begun;

    open_bench(&b, 2, true, 100);
    b.replica.step_us = 2000;
    begun = trm_now_us();
    for (int i = 1; i < 4; i++)
        ask(&b, i);
    OK(trm_generator_run(b.g));
    trm_generator_get_stats(b.g, &stats);
    ck_assert(stats.step_us <= (double)(trm_now_us() - begun));
    ck_assert(stats.step_us >= 0.9 * b.replica.step_us * (double)stats.scheduler.steps);
    close_bench(&b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("generator");
    TCase *t = tcase_create("generator");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, texts_are_as_with_one_step, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_test(t, cancelled_ones_leave_nothing);
    tcase_add_test(t, the_last_end_leaves_nothing);
    tcase_add_test(t, a_failed_step_ends_its_requests);
    tcase_add_test(t, a_lost_replica_ends_all);
    tcase_add_test(t, it_is_warmed_with_nothing);
    tcase_add_test(t, warming_may_fail);
    tcase_add_test(t, times_of_steps_do_not_overlap);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
