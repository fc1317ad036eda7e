/* The scheduler against a model of arithmetic: its cache holds the tokens themselves, and the next
 * token is a hash of all that the pages say. Whatever is batched, cut, preempted, shared or in
 * flight, every sequence must become what it becomes alone. */
#include "kernels/language.h"
#include "worker/language/scheduler.h"

#include "base/memory.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define VOCABULARY 1000
#define SEQUENCES 40
#define NEW_MAX 50

struct model {
    int32_t (*pages)[TRM_KV_PAGE];
    int page_count, flights;
    uint64_t steps;
};

static int32_t next_of(const int32_t *tokens, int count)
{
    uint64_t h = 1469598103934665603u;

    for (int i = 0; i < count; i++)
        h = (h ^ (uint64_t)(uint32_t)tokens[i]) * 1099511628211u;
    return (int32_t)((h >> 20) % VOCABULARY);
}

/* Runs a step: writes its tokens to the pages, reads whole sequences from them. */
static void run_step(struct model *m, const trm_lm_step *step, trm_sampled *results)
{
    m->steps++;
    ck_assert_int_le(step->token_count, step->token_rows);
    for (int i = 0; i < step->part_count; i++) {
        const trm_lm_part *p = &step->parts[i];
        const int32_t *pages = step->pages + p->page_first;

        ck_assert_int_ge(p->page_count * TRM_KV_PAGE, p->position + p->tokens);
        for (int k = 0; k < p->tokens; k++) {
            int at = p->position + k;

            ck_assert(pages[at / TRM_KV_PAGE] >= 0 && pages[at / TRM_KV_PAGE] < m->page_count);
            m->pages[pages[at / TRM_KV_PAGE]][at % TRM_KV_PAGE] = step->tokens[p->row + k];
        }
    }
    for (int i = 0; i < step->pick_count; i++) {
        const trm_lm_pick *pick = &step->picks[i];
        const trm_lm_part *p = step->parts;
        int32_t seen[4096];
        int count;

        while (pick->row < p->row || pick->row >= p->row + p->tokens)
            p++;
        count = p->position + pick->row - p->row + 1;
        ck_assert_int_eq(count, (int)pick->position);
        for (int k = 0; k < count; k++)
            seen[k] = m->pages[step->pages[p->page_first + k / TRM_KV_PAGE]][k % TRM_KV_PAGE];
        memset(&results[i], 0, sizeof(results[i]));
        results[i].id = pick->kind == TRM_LM_PICK_NEXT ? next_of(seen, count) : pick->target;
        results[i].logprob = (float)next_of(seen, count);
    }
}

struct run {
    trm_scheduler *s;
    trm_sequence *all[SEQUENCES];
    int32_t tokens[SEQUENCES][512]; /* of those that are over */
    int counts[SEQUENCES], scores[SEQUENCES], over;
};

static void took(void *ctx, trm_sequence *q, const trm_sampled *result, bool prompt, int position)
{
    struct run *r = ctx;
    int i = (int)(intptr_t)q->owner;

    if (prompt) {
        r->scores[i]++;
        ck_assert_int_eq(position, r->scores[i]); /* each position once, in order */
        ck_assert_int_eq((int)result->logprob, next_of(q->tokens, position));
        return;
    }
    if (q->finish == TRM_FINISH_NONE)
        return;
    memcpy(r->tokens[i], q->tokens, (size_t)q->count * sizeof(int32_t));
    r->counts[i] = q->count;
    r->over++;
    trm_scheduler_remove(r->s, q);
    trm_sequence_destroy(q);
    r->all[i] = NULL;
}

static const struct {
    const char *name;
    trm_scheduler_limits limits;
    int force;
} rows[] = {
    {"plain", {.batch = 64, .step_tokens = 512, .context = 300, .pages = 2000, .flights = 1}, 0},
    {"one at a time",
     {.batch = 1, .step_tokens = 512, .context = 300, .pages = 2000, .flights = 1},
     0},
    {"small pieces",
     {.batch = 16, .step_tokens = 17, .context = 300, .pages = 2000, .flights = 1},
     0},
    {"prefix",
     {.batch = 8, .step_tokens = 64, .context = 300, .pages = 400, .flights = 1, .prefix = true},
     0},
    {"few pages", {.batch = 16, .step_tokens = 64, .context = 300, .pages = 30, .flights = 1}, 0},
    {"few pages, prefix",
     {.batch = 16, .step_tokens = 64, .context = 300, .pages = 30, .flights = 1, .prefix = true},
     0},
    {"three flights",
     {.batch = 12, .step_tokens = 64, .context = 300, .pages = 400, .flights = 3, .prefix = true},
     0},
    {"three flights, few pages",
     {.batch = 12, .step_tokens = 64, .context = 300, .pages = 30, .flights = 3, .prefix = true},
     0},
    {"forced preemption",
     {.batch = 16, .step_tokens = 64, .context = 300, .pages = 400, .flights = 1, .prefix = true},
     3},
    {"budget",
     {.batch = 16,
      .step_tokens = 64,
      .context = 300,
      .pages = 400,
      .flights = 2,
      .decode_budget_us = 500},
     0},
};

static void make_prompt(int i, int32_t *prompt, int *count)
{
    *count = 1 + i * 37 % 230;
    for (int k = 0; k < *count; k++) /* families share beginnings */
        prompt[k] = k < 100 ? (i % 3) * 100 + k : (i * 7919 + k * 31) % VOCABULARY;
}

static void add_all(struct run *r, const trm_sampling *sampling)
{
    for (int i = 0; i < SEQUENCES; i++) {
        int32_t prompt[300];
        int count;

        make_prompt(i, prompt, &count);
        ck_assert_int_eq(trm_sequence_create(r->s, prompt, count, NULL, &sampling[i], &r->all[i]),
                         TRM_OK);
        r->all[i]->owner = (void *)(intptr_t)i;
        r->all[i]->prompt_logprobs = i % 5 == 0;
        trm_scheduler_add(r->s, r->all[i]);
    }
}

/* Steps end in the order in which they began, as a replica's do. */
static void run_all(struct run *r, struct model *m, trm_lm_step *step)
{
    static trm_sampled results[8][256];
    int flights[8], under_way = 0, first = 0, idle = 0;

    while (r->over < SEQUENCES) {
        int flight;

        while (under_way < m->flights && trm_scheduler_next(r->s, step, &flight)) {
            int at = (first + under_way++) % m->flights;

            flights[at] = flight;
            run_step(m, step, results[at]);
        }
        ck_assert_msg(under_way > 0 || idle++ < 3, "nothing can run, %d are over", r->over);
        if (under_way == 0)
            continue;
        trm_scheduler_done(r->s, flights[first], results[first], 100, took, r);
        first = (first + 1) % m->flights;
        under_way--;
    }
    while (under_way-- > 0) {
        trm_scheduler_done(r->s, flights[first], results[first], 100, took, r);
        first = (first + 1) % m->flights;
    }
}

START_TEST(same_tokens_however_scheduled)
{
    trm_scheduler_limits limits = rows[_i].limits;
    static struct run r;
    struct model m = {.page_count = limits.pages, .flights = limits.flights};
    trm_sampling *sampling = calloc(SEQUENCES, sizeof(*sampling));
    trm_scheduler_stats stats;
    trm_lm_step step;

    memset(&r, 0, sizeof(r));
    limits.vocabulary = VOCABULARY;
    m.pages = calloc((size_t)limits.pages, sizeof(*m.pages));
    ck_assert_ptr_nonnull(sampling);
    ck_assert_int_eq(trm_scheduler_create(&limits, &r.s), TRM_OK);
    trm_scheduler_force_preemption(r.s, rows[_i].force);
    ck_assert_int_eq(trm_lm_step_init(&step, limits.step_tokens, limits.batch, limits.batch + 64,
                                      limits.batch * 30, limits.batch, false),
                     TRM_OK);
    for (int i = 0; i < SEQUENCES; i++) {
        trm_sampling_init(&sampling[i]);
        sampling[i].max_tokens = 1 + i * 13 % NEW_MAX;
    }
    add_all(&r, sampling);
    run_all(&r, &m, &step);
    for (int i = 0; i < SEQUENCES; i++) {
        int32_t want[512];
        int count, prompt;

        make_prompt(i, want, &prompt);
        for (count = prompt; count < prompt + sampling[i].max_tokens && count < limits.context;
             count++)
            want[count] = next_of(want, count);
        ck_assert_int_eq(r.counts[i], count);
        ck_assert_mem_eq(r.tokens[i], want, (size_t)count * sizeof(int32_t));
        if (i % 5 == 0)
            ck_assert_int_eq(r.scores[i], prompt - 1);
    }
    trm_scheduler_get_stats(r.s, &stats);
    ck_assert_int_eq(stats.kv.used, 0);
    ck_assert_int_eq(stats.running + stats.waiting + stats.under_way, 0);
    if (limits.pages == 30 || rows[_i].force > 0)
        ck_assert_msg(stats.preemptions > 0, "%s: nothing was preempted", rows[_i].name);
    if (limits.prefix && limits.pages > 30)
        ck_assert_msg(stats.kv.found_tokens > 0, "%s: no prefix was found", rows[_i].name);
    trm_lm_step_fini(&step);
    trm_scheduler_destroy(r.s);
    free(m.pages);
    free(sampling);
}
END_TEST

/* The sibling ends while the other runs; preempted after that, the other must not look at it. */
START_TEST(siblings_go_before_those_that_run)
{
    const trm_scheduler_limits limits = {.batch = 2,
                                         .step_tokens = 64,
                                         .context = 100,
                                         .pages = 50,
                                         .flights = 1,
                                         .vocabulary = VOCABULARY,
                                         .prefix = true};
    int32_t prompt[40];
    static struct run r;
    struct model m = {.page_count = limits.pages, .flights = 1};
    static trm_sampled results[128];
    trm_sampling sampling[2];
    trm_lm_step step;
    int flight;

    memset(&r, 0, sizeof(r));
    m.pages = calloc((size_t)limits.pages, sizeof(*m.pages));
    for (int i = 0; i < 40; i++)
        prompt[i] = i;
    ck_assert_int_eq(trm_scheduler_create(&limits, &r.s), TRM_OK);
    ck_assert_int_eq(trm_lm_step_init(&step, 64, 2, 66, 60, 2, false), TRM_OK);
    for (int i = 0; i < 2; i++) {
        trm_sampling_init(&sampling[i]);
        sampling[i].max_tokens = i == 0 ? 4 : 30;
        ck_assert_int_eq(trm_sequence_create(r.s, prompt, 40, NULL, &sampling[i], &r.all[i]),
                         TRM_OK);
        r.all[i]->owner = (void *)(intptr_t)i;
        r.all[i]->sibling = i > 0 ? r.all[0] : NULL;
        trm_scheduler_add(r.s, r.all[i]);
    }
    while (r.over < 2) {
        ck_assert(trm_scheduler_next(r.s, &step, &flight));
        run_step(&m, &step, results);
        trm_scheduler_done(r.s, flight, results, 100, took, &r);
        if (r.all[0] == NULL && r.all[1] != NULL)
            ck_assert_ptr_null(r.all[1]->sibling);
    }
    ck_assert_int_eq(r.counts[1], 70);
    trm_lm_step_fini(&step);
    trm_scheduler_destroy(r.s);
    free(m.pages);
}
END_TEST

/* One runs at a time: in the order of their priorities, and of their coming where these are equal.
 */
START_TEST(greater_priorities_start_first)
{
    static const int32_t priorities[] = {0, 0, 5, -3, 5, 1}, want[] = {2, 4, 5, 0, 1, 3};
    const trm_scheduler_limits limits = {.batch = 1,
                                         .step_tokens = 64,
                                         .context = 100,
                                         .pages = 50,
                                         .flights = 1,
                                         .vocabulary = VOCABULARY};
    static const int32_t prompt[] = {1, 2, 3};
    static struct run r;
    struct model m = {.page_count = limits.pages, .flights = 1};
    static trm_sampled results[128];
    trm_sampling sampling;
    trm_lm_step step;
    int flight, order[6];

    memset(&r, 0, sizeof(r));
    m.pages = calloc((size_t)limits.pages, sizeof(*m.pages));
    trm_sampling_init(&sampling);
    sampling.max_tokens = 2;
    ck_assert_int_eq(trm_scheduler_create(&limits, &r.s), TRM_OK);
    ck_assert_int_eq(trm_lm_step_init(&step, 64, 1, 66, 60, 2, false), TRM_OK);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(trm_sequence_create(r.s, prompt, 3, NULL, &sampling, &r.all[i]), TRM_OK);
        r.all[i]->owner = (void *)(intptr_t)i;
        r.all[i]->priority = priorities[i];
        trm_scheduler_add(r.s, r.all[i]);
    }
    while (r.over < 6) {
        int before = r.over;
        trm_sequence *all[6];

        memcpy(all, r.all, sizeof(all));
        ck_assert(trm_scheduler_next(r.s, &step, &flight));
        run_step(&m, &step, results);
        trm_scheduler_done(r.s, flight, results, 100, took, &r);
        for (int i = 0; r.over > before && i < 6; i++)
            if (all[i] != NULL && r.all[i] == NULL)
                order[before] = i;
    }
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(order[i], want[i]);
    trm_lm_step_fini(&step);
    trm_scheduler_destroy(r.s);
    free(m.pages);
}
END_TEST

/* Pages for two of three: the least gives way, although it came first. */
START_TEST(the_least_gives_way)
{
    static const int32_t priorities[] = {0, 1, 1};
    const trm_scheduler_limits limits = {.batch = 3,
                                         .step_tokens = 64,
                                         .context = 48,
                                         .pages = 6,
                                         .flights = 1,
                                         .vocabulary = VOCABULARY};
    static const int32_t prompt[] = {1, 2, 3};
    static struct run r;
    struct model m = {.page_count = limits.pages, .flights = 1};
    static trm_sampled results[128];
    trm_sampling sampling;
    trm_lm_step step;
    int flight, preempted = 0;

    memset(&r, 0, sizeof(r));
    m.pages = calloc((size_t)limits.pages, sizeof(*m.pages));
    trm_sampling_init(&sampling);
    sampling.max_tokens = 40;
    ck_assert_int_eq(trm_scheduler_create(&limits, &r.s), TRM_OK);
    ck_assert_int_eq(trm_lm_step_init(&step, 64, 3, 67, 60, 3, false), TRM_OK);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(trm_sequence_create(r.s, prompt, 3, NULL, &sampling, &r.all[i]), TRM_OK);
        r.all[i]->owner = (void *)(intptr_t)i;
        r.all[i]->priority = priorities[i];
        trm_scheduler_add(r.s, r.all[i]);
    }
    while (r.over < 3) {
        ck_assert(trm_scheduler_next(r.s, &step, &flight));
        for (int i = 1; i < 3; i++)
            ck_assert(r.all[i] == NULL || r.all[i]->preemptions == 0);
        preempted = r.all[0] != NULL ? r.all[0]->preemptions : preempted;
        run_step(&m, &step, results);
        trm_scheduler_done(r.s, flight, results, 100, took, &r);
    }
    ck_assert_int_gt(preempted, 0);
    ck_assert_int_eq(r.counts[0], 43);
    trm_lm_step_fini(&step);
    trm_scheduler_destroy(r.s);
    free(m.pages);
}
END_TEST

START_TEST(bad_prompts_are_refused)
{
    static const int32_t good[4] = {1, 2, 3, 4}, high[2] = {1, VOCABULARY}, low[1] = {-1};
    const trm_scheduler_limits limits = {.batch = 2,
                                         .step_tokens = 16,
                                         .context = 4,
                                         .pages = 8,
                                         .flights = 1,
                                         .vocabulary = VOCABULARY};
    trm_sampling sampling;
    trm_scheduler *s;
    trm_sequence *q;

    trm_sampling_init(&sampling);
    ck_assert_int_eq(trm_scheduler_create(&limits, &s), TRM_OK);
    ck_assert_int_eq(trm_sequence_create(s, good, 0, NULL, &sampling, &q), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_sequence_create(s, good, 4, NULL, &sampling, &q), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "context is 4"));
    ck_assert_int_eq(trm_sequence_create(s, high, 2, NULL, &sampling, &q), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_sequence_create(s, low, 1, NULL, &sampling, &q), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_sequence_create(s, good, 3, NULL, &sampling, &q), TRM_OK);
    trm_sequence_destroy(q);
    trm_scheduler_destroy(s);
}
END_TEST

/* ---- pages ---- */

START_TEST(prefixes_are_found_and_forgotten)
{
    trm_kv_cache *c;
    trm_kv_table a, b;
    int32_t tokens[64];

    for (int i = 0; i < 64; i++)
        tokens[i] = i;
    ck_assert_int_eq(trm_kv_cache_create(6, true, &c), TRM_OK);
    ck_assert_int_eq(trm_kv_table_init(&a, 96), TRM_OK);
    ck_assert_int_eq(trm_kv_table_init(&b, 96), TRM_OK);
    ck_assert_int_eq(trm_kv_match(c, tokens, 64, &a), 0);
    ck_assert(trm_kv_grow(c, 64, &a));
    ck_assert_int_eq(a.count, 4);
    ck_assert(!trm_kv_grow(c, 48, &b)); /* three more are not there */
    ck_assert_int_eq(b.count, 0);
    trm_kv_commit(c, tokens, 40, &a); /* two whole pages of them */
    ck_assert_int_eq(trm_kv_match(c, tokens, 64, &b), 32);
    ck_assert_int_eq(b.pages[0], a.pages[0]);
    trm_kv_commit(c, tokens, 64, &a);
    trm_kv_release(c, &b);
    ck_assert_int_eq(trm_kv_match(c, tokens, 64, &b), 48); /* the last token is left to compute */
    trm_kv_release(c, &b);
    trm_kv_release(c, &a);
    ck_assert_int_eq(trm_kv_cache_available(c), 6);
    tokens[3] = 99; /* another beginning: nothing of it is known */
    ck_assert_int_eq(trm_kv_match(c, tokens, 64, &b), 0);
    ck_assert(trm_kv_grow(c, 48, &b)); /* takes the two free ones and one that was known */
    tokens[3] = 3;
    ck_assert_int_eq(trm_kv_match(c, tokens, 64, &a), 48);
    trm_kv_release(c, &a);
    ck_assert(trm_kv_grow(c, 96, &b)); /* all */
    trm_kv_release(c, &b);
    ck_assert_int_eq(trm_kv_match(c, tokens, 64, &a), 0);
    trm_kv_table_fini(&a);
    trm_kv_table_fini(&b);
    trm_kv_cache_destroy(c);
}
END_TEST

/* ---- steps on the wire ---- */

START_TEST(steps_travel)
{
    trm_lm_step a, b;
    trm_sampling sampling, plain;
    static const int32_t prompt[3] = {5, 6, 7};
    void *bytes = NULL;
    size_t max = 0, count = 0;

    trm_sampling_init(&sampling);
    trm_sampling_init(&plain);
    sampling.bias_count = 2;
    sampling.bias[1].id = 77;
    ck_assert_int_eq(trm_lm_step_init(&a, 32, 4, 8, 16, 2, true), TRM_OK);
    ck_assert_int_eq(trm_lm_step_init(&b, 32, 4, 8, 16, 2, true), TRM_OK);
    a.token_count = 5;
    a.token_rows = 6;
    for (int i = 0; i < 5; i++) {
        a.tokens[i] = 100 + i;
        a.types[i] = i & 1;
    }
    a.parts[a.part_count++] = (trm_lm_part){0, 5, 11, 1, 0, 1};
    a.pages[a.page_count++] = 3;
    a.picks[a.pick_count++] = (trm_lm_pick){4, 1, TRM_LM_PICK_NEXT, -1, 16};
    a.pick_rows = 1;
    a.begins[a.begin_count++] = (trm_lm_begin){1, 2, 3, &sampling, prompt, NULL, 0};
    a.begins[a.begin_count++] = (trm_lm_begin){0, 0, 0, &plain, NULL, "{\"type\":\"x\"}", 12};
    ck_assert_int_eq(trm_lm_step_encode(&a, &bytes, &max, &count), TRM_OK);
    ck_assert_int_eq(trm_lm_step_decode(&b, bytes, count), TRM_OK);
    ck_assert_int_eq(b.token_count, 5);
    ck_assert_mem_eq(b.tokens, a.tokens, 5 * sizeof(int32_t));
    ck_assert_mem_eq(b.types, a.types, 5 * sizeof(int32_t));
    ck_assert_mem_eq(b.parts, a.parts, sizeof(a.parts[0]));
    ck_assert_mem_eq(b.picks, a.picks, sizeof(a.picks[0]));
    ck_assert_int_eq(b.begins[0].sampling->bias[1].id, 77);
    ck_assert_mem_eq(b.begins[0].prompt, prompt, sizeof(prompt));
    ck_assert_ptr_null(b.begins[0].constraint);
    ck_assert_uint_eq(b.begins[1].constraint_bytes, 12);
    ck_assert_mem_eq(b.begins[1].constraint, "{\"type\":\"x\"}", 12);
    for (size_t cut = 0; cut < count; cut += 4) /* whatever is missing is noticed */
        ck_assert_int_ne(trm_lm_step_decode(&b, bytes, cut), TRM_OK);
    for (size_t i = 0; i < count * 8; i += 5) { /* and what is changed does no harm */
        ((unsigned char *)bytes)[i / 8] ^= (unsigned char)(1 << i % 8);
        if (trm_lm_step_decode(&b, bytes, count) != TRM_OK)
            ck_assert(trm_message()[0] != '\0');
        ((unsigned char *)bytes)[i / 8] ^= (unsigned char)(1 << i % 8);
    }
    trm_free(bytes);
    trm_lm_step_fini(&a);
    trm_lm_step_fini(&b);
}
END_TEST

START_TEST(the_grid_is_dense_where_steps_are_small)
{
    ck_assert_int_eq(trm_lm_grid(0), 0);
    for (int i = 1; i <= 4096; i++) {
        int g = trm_lm_grid(i);

        ck_assert_int_ge(g, i);
        ck_assert_int_le(g - i, i / 8 + 1);
        ck_assert_int_eq(trm_lm_grid(g), g);
    }
    ck_assert_int_eq(trm_lm_grid(512), 512);
    ck_assert_int_eq(trm_lm_grid(17), 18);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("scheduler of language models");
    TCase *t = tcase_create("scheduler");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, same_tokens_however_scheduled, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_test(t, siblings_go_before_those_that_run);
    tcase_add_test(t, greater_priorities_start_first);
    tcase_add_test(t, the_least_gives_way);
    tcase_add_test(t, bad_prompts_are_refused);
    tcase_add_test(t, prefixes_are_found_and_forgotten);
    tcase_add_test(t, steps_travel);
    tcase_add_test(t, the_grid_is_dense_where_steps_are_small);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
