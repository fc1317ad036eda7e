/* Sampling against distributions of numpy (tests/oracles/sampling.py) and known answers. */
#include "base/memory.h"
#include "worker/language/sampler.h"

#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VOCABULARY 96
#define DRAWS 3000
#define CASES 128

static json_t *root;

static double number(const json_t *c, const char *name, double fallback)
{
    const json_t *v = json_object_get(c, name);

    return v == NULL ? fallback : json_number_value(v);
}

static void read_row(const char *name, float row[VOCABULARY])
{
    const json_t *r = json_object_get(json_object_get(root, "rows"), name);

    ck_assert_uint_eq(json_array_size(r), VOCABULARY);
    for (size_t i = 0; i < VOCABULARY; i++)
        row[i] = (float)json_number_value(json_array_get(r, i));
}

static void read_case(const json_t *c, trm_sampling *s)
{
    const json_t *list = json_object_get(c, "bias");

    trm_sampling_init(s);
    s->temperature = (float)number(c, "temperature", 0);
    s->top_k = (int32_t)number(c, "top_k", 0);
    s->top_p = (float)number(c, "top_p", 1);
    s->min_p = (float)number(c, "min_p", 0);
    s->typical_p = (float)number(c, "typical_p", 1);
    s->repetition_penalty = (float)number(c, "repetition_penalty", 1);
    s->presence_penalty = (float)number(c, "presence_penalty", 0);
    s->frequency_penalty = (float)number(c, "frequency_penalty", 0);
    s->min_tokens = (int32_t)number(c, "min_tokens", 0);
    s->seed = 42;
    for (size_t i = 0; i < json_array_size(list); i++) {
        s->bias[i].id = (int32_t)json_integer_value(json_array_get(json_array_get(list, i), 0));
        s->bias[i].bias = (float)json_number_value(json_array_get(json_array_get(list, i), 1));
        s->bias_count++;
    }
    list = json_object_get(c, "end");
    for (size_t i = 0; i < json_array_size(list); i++)
        s->end[s->end_count++] = (int32_t)json_integer_value(json_array_get(list, i));
}

/* A sampler that has drawn the case's output: rows that leave no choice. */
static trm_sampler *make(const json_t *c, const trm_sampling *s)
{
    const json_t *prompt = json_object_get(c, "prompt"), *output = json_object_get(c, "output");
    int32_t ids[16];
    float row[VOCABULARY];
    trm_sampled out;
    trm_sampler *q;

    for (size_t i = 0; i < json_array_size(prompt); i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(prompt, i));
    ck_assert_msg(trm_sampler_create(s, VOCABULARY, ids, json_array_size(prompt), &q) == TRM_OK,
                  "%s", trm_message());
    for (size_t i = 0; i < json_array_size(output); i++) {
        int32_t wanted = (int32_t)json_integer_value(json_array_get(output, i));

        for (int k = 0; k < VOCABULARY; k++)
            row[k] = k == wanted ? 1e6f : -1e6f;
        ck_assert(trm_sampler_next(q, row, 0, &out) == TRM_OK);
        ck_assert_int_eq(out.id, wanted);
    }
    return q;
}

/* Draws DRAWS tokens at as many positions; what is drawn changes what is penalised, so that such
 * cases take a new sampler each time. */
static void draw(const json_t *c, const trm_sampling *s, const float *row, int counts[VOCABULARY])
{
    bool fresh = json_object_get(c, "output") != NULL || s->repetition_penalty != 1;
    trm_sampler *q = make(c, s);
    float copy[VOCABULARY];
    trm_sampled out;

    memset(counts, 0, VOCABULARY * sizeof(*counts));
    memcpy(copy, row, sizeof(copy));
    for (int i = 0; i < DRAWS; i++) {
        if (fresh && i > 0) {
            trm_sampler_destroy(q);
            q = make(c, s);
        }
        ck_assert_msg(trm_sampler_next(q, copy, i, &out) == TRM_OK, "%s", trm_message());
        if (i % 100 == 0)
            for (int k = 0; k < VOCABULARY; k++)
                ck_assert(copy[k] == row[k]); /* as it was */
        ck_assert(out.id >= 0 && out.id < VOCABULARY);
        counts[out.id]++;
    }
    trm_sampler_destroy(q);
}

/* Chi-square of the tokens expected five times or more, the others together; as a normal deviate
 * (Wilson and Hilferty 1931). */
static double deviate(const double probs[VOCABULARY], const int counts[VOCABULARY])
{
    double sum = 0, rest = 0, rest_seen = 0, k, x;
    int cells = 0;

    for (int i = 0; i < VOCABULARY; i++) {
        double expected = probs[i] * DRAWS;

        if (expected < 5) {
            rest += expected;
            rest_seen += counts[i];
            continue;
        }
        sum += (counts[i] - expected) * (counts[i] - expected) / expected;
        cells++;
    }
    if (rest > 5) {
        sum += (rest_seen - rest) * (rest_seen - rest) / rest;
        cells++;
    }
    k = cells - 1;
    if (k < 1)
        return 0;
    x = 2 / (9 * k);
    return (cbrt(sum / k) - (1 - x)) / sqrt(x);
}

static void draws_as(const json_t *c)
{
    const char *name = json_string_value(json_object_get(c, "name"));
    const json_t *ids = json_object_get(c, "ids"), *given = json_object_get(c, "probs");
    trm_sampling *s = calloc(1, sizeof(*s));
    double probs[VOCABULARY] = {0};
    float row[VOCABULARY];
    int counts[VOCABULARY];

    ck_assert(c != NULL && s != NULL);
    for (size_t i = 0; i < json_array_size(ids); i++)
        probs[json_integer_value(json_array_get(ids, i))] =
            json_number_value(json_array_get(given, i));
    read_row(json_string_value(json_object_get(c, "row")), row);
    read_case(c, s);
    draw(c, s, row, counts);
    for (int i = 0; i < VOCABULARY; i++)
        ck_assert_msg(counts[i] == 0 || probs[i] > 0, "%s: token %d was drawn %d times", name, i,
                      counts[i]);
    /* fixed seeds: not a matter of luck; one of 128 is beyond 3 where all is well */
    ck_assert_msg(fabs(deviate(probs, counts)) < 4, "%s: deviates by %.2f", name,
                  deviate(probs, counts));
    free(s);
}

#define GROUPS 16 /* a process each */

START_TEST(draws_as_numpy_says)
{
    for (size_t i = (size_t)_i; i < CASES; i += GROUPS)
        draws_as(json_array_get(json_object_get(root, "cases"), i));
}
END_TEST

START_TEST(reports_raw_logprobs)
{
    static const char *const names[] = {"normal", "ties", "flat", "peaked"};
    trm_sampling *s = calloc(1, sizeof(*s));
    const json_t *logs = json_object_get(json_object_get(root, "logprobs"), names[_i]);
    float row[VOCABULARY], low = 0;
    trm_sampled out, scored;
    trm_sampler *q;

    ck_assert(s != NULL);
    trm_sampling_init(s);
    s->logprobs = 20;
    s->temperature = 0.3f; /* changes nothing in what is reported, and neither does the bias */
    s->bias_count = 1;
    s->bias[0].id = 40;
    s->bias[0].bias = 60;
    read_row(names[_i], row);
    ck_assert(trm_sampler_create(s, VOCABULARY, NULL, 0, &q) == TRM_OK);
    ck_assert(trm_sampler_next(q, row, 5, &out) == TRM_OK);
    ck_assert_int_eq(out.id, 40);
    ck_assert_float_eq_tol(out.logprob, (float)json_number_value(json_array_get(logs, 40)), 2e-5f);
    ck_assert_int_eq(out.top_count, 20);
    for (int i = 0; i < 20; i++) {
        float want = (float)json_number_value(json_array_get(logs, (size_t)out.top_ids[i]));

        ck_assert_float_eq_tol(out.top_logprobs[i], want, 2e-5f);
        ck_assert(i == 0 || out.top_logprobs[i] < low ||
                  (out.top_logprobs[i] == low && out.top_ids[i] > out.top_ids[i - 1]));
        low = out.top_logprobs[i];
        ck_assert(trm_sampler_score(q, row, out.top_ids[i], &scored) == TRM_OK);
        ck_assert_int_eq(scored.rank, i + 1);
        ck_assert_int_eq(scored.id, out.top_ids[i]);
        ck_assert(scored.logprob == out.top_logprobs[i]);
    }
    trm_sampler_destroy(q);
    free(s);
}
END_TEST

/* Random123's known answers (kat_vectors, philox4x32 10) */
static const struct {
    const char *name;
    uint32_t counter[4], key[2], want[4];
} philox[] = {
    {"zeros", {0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {"ones",
     {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {"pi",
     {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

START_TEST(philox_known_answers)
{
    uint32_t out[4];

    trm_philox4x32(philox[_i].counter, philox[_i].key, out);
    for (int i = 0; i < 4; i++)
        ck_assert_msg(out[i] == philox[_i].want[i], "%s: word %d is %08x", philox[_i].name, i,
                      out[i]);
}
END_TEST

/* The seed, the stream and the position decide, nothing else that happened. */
START_TEST(same_seed_same_tokens)
{
    trm_sampling *s = calloc(1, sizeof(*s));
    int32_t first[64], differ[3] = {0, 0, 0};
    float row[VOCABULARY];
    trm_sampled out;
    trm_sampler *q;

    ck_assert(s != NULL);
    read_row("flat", row);
    for (int run = 0; run < 4; run++) {
        trm_sampling_init(s);
        s->temperature = 1;
        s->seed = run == 2 ? 8 : 7;
        s->stream = run == 3 ? 1 : 0;
        ck_assert(trm_sampler_create(s, VOCABULARY, NULL, 0, &q) == TRM_OK);
        for (int i = 63; i >= 0; i--) { /* positions in any order */
            int at = run == 1 ? 63 - i : i;

            ck_assert(trm_sampler_next(q, row, at, &out) == TRM_OK);
            if (run == 0)
                first[at] = out.id;
            else
                differ[run - 1] += first[at] != out.id;
        }
        trm_sampler_destroy(q);
    }
    ck_assert_int_eq(differ[0], 0);
    ck_assert_int_gt(differ[1], 50);
    ck_assert_int_gt(differ[2], 50);
    free(s);
}
END_TEST

/* A row longer than a chunk of sums, with an end that fills none; draws and top_k beyond the list.
 */
START_TEST(long_rows)
{
    static const int64_t sizes[] = {1, 2, 15, 1023, 1024, 1025, 5000, 32000};
    int64_t n = sizes[_i];
    trm_sampling *s = calloc(1, sizeof(*s));
    float *row = malloc((size_t)n * sizeof(*row));
    double sum = 0;
    int32_t best = 0;
    trm_sampled out;
    trm_sampler *q;

    ck_assert(s != NULL && row != NULL);
    for (int64_t i = 0; i < n; i++) {
        row[i] = (float)((i * 7919 + 13) % 4001) / 400.0f - 5;
        best = row[i] > row[best] ? (int32_t)i : best;
    }
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)row[i] - (double)row[best]);
    trm_sampling_init(s);
    s->logprobs = 3;
    ck_assert(trm_sampler_create(s, n, NULL, 0, &q) == TRM_OK);
    ck_assert(trm_sampler_next(q, row, 0, &out) == TRM_OK);
    ck_assert_int_eq(out.id, best);
    ck_assert_int_eq(out.rank, 1);
    ck_assert_float_eq_tol(out.logprob, (float)-log(sum), 1e-5f);
    ck_assert_int_eq(out.top_count, n < 3 ? (int)n : 3);
    ck_assert_int_eq(out.top_ids[0], best);
    trm_sampler_destroy(q);
    for (int k = 0; k < 4; k++) { /* all ways to draw stay among the first by rank */
        s->temperature = 1;
        s->top_k = k == 0 ? 0 : k == 1 ? 5 : k == 2 ? 200 : 0;
        s->top_p = k == 3 ? 0.5f : 1;
        ck_assert(trm_sampler_create(s, n, NULL, 0, &q) == TRM_OK);
        for (int i = 0; i < 50; i++) {
            ck_assert(trm_sampler_next(q, row, i, &out) == TRM_OK);
            ck_assert(out.id >= 0 && out.id < n);
            ck_assert(s->top_k == 0 || out.rank <= s->top_k);
        }
        trm_sampler_destroy(q);
    }
    free(row);
    free(s);
}
END_TEST

START_TEST(refuses_what_is_not_finite)
{
    static const float values[] = {NAN, INFINITY, -INFINITY};
    trm_sampling *s = calloc(1, sizeof(*s));
    float row[VOCABULARY];
    trm_sampled out;
    trm_sampler *q;

    ck_assert(s != NULL);
    trm_sampling_init(s);
    read_row("normal", row);
    row[17] = values[_i];
    row[95] = values[_i];
    ck_assert(trm_sampler_create(s, VOCABULARY, NULL, 0, &q) == TRM_OK);
    ck_assert(trm_sampler_next(q, row, 0, &out) == TRM_ERR_INTERNAL);
    ck_assert_str_eq(trm_message(), "logits are not finite: 2 of 96");
    ck_assert(trm_sampler_score(q, row, 3, &out) == TRM_ERR_INTERNAL);
    trm_sampler_destroy(q);
    free(s);
}
END_TEST

static const struct {
    const char *name;
    size_t offset;
    bool real;
    double value;
    const char *message;
} wrong[] = {
    {"cold", offsetof(trm_sampling, temperature), true, -1, "temperature is -1, wanted 0 to 100"},
    {"no number", offsetof(trm_sampling, temperature), true, NAN, "temperature is "},
    {"top_p", offsetof(trm_sampling, top_p), true, 0, "top_p is 0, wanted above 0 to 1"},
    {"top_p large", offsetof(trm_sampling, top_p), true, 1.5, "top_p is 1.5"},
    {"min_p", offsetof(trm_sampling, min_p), true, 2, "min_p is 2"},
    {"typical_p", offsetof(trm_sampling, typical_p), true, 0, "typical_p is 0"},
    {"repetition", offsetof(trm_sampling, repetition_penalty), true, 0, "repetition_penalty is 0"},
    {"presence", offsetof(trm_sampling, presence_penalty), true, 3, "presence_penalty is 3"},
    {"frequency", offsetof(trm_sampling, frequency_penalty), true, -3, "frequency_penalty is -3"},
    {"top_k", offsetof(trm_sampling, top_k), false, -2, "top_k is -2"},
    {"logprobs", offsetof(trm_sampling, logprobs), false, 21, "logprobs is 21, wanted -1 to 20"},
    {"min_tokens", offsetof(trm_sampling, min_tokens), false, -1, "min_tokens is -1"},
    {"ends", offsetof(trm_sampling, end_count), false, 33, "the number of end tokens is 33"},
    {"end", offsetof(trm_sampling, end), false, 96, "end token 96 is not in the vocabulary of 96"},
    {"bias id", offsetof(trm_sampling, bias), false, -1, "logit_bias names token -1"},
};
#define WRONG (sizeof(wrong) / sizeof(wrong[0]))

START_TEST(checks_parameters)
{
    trm_sampling *s = calloc(1, sizeof(*s));
    float real = (float)wrong[_i].value;
    int32_t integer = wrong[_i].real ? 0 : (int32_t)wrong[_i].value;

    ck_assert(s != NULL);
    trm_sampling_init(s);
    s->end_count = 1;
    s->bias_count = 1;
    ck_assert_msg(trm_sampling_check(s, VOCABULARY) == TRM_OK, "%s", trm_message());
    memcpy((char *)s + wrong[_i].offset, wrong[_i].real ? (void *)&real : (void *)&integer, 4);
    ck_assert(trm_sampling_check(s, VOCABULARY) == TRM_ERR_INVALID_ARG);
    ck_assert_msg(strstr(trm_message(), wrong[_i].message) != NULL, "%s: %s", wrong[_i].name,
                  trm_message());
    free(s);
}
END_TEST

START_TEST(forbids_everything)
{
    trm_sampling *s = calloc(1, sizeof(*s));
    float row[2] = {1, 2};
    trm_sampled out;
    trm_sampler *q;

    ck_assert(s != NULL);
    trm_sampling_init(s);
    s->min_tokens = 1;
    s->end_count = 2;
    s->end[1] = 1;
    ck_assert(trm_sampler_create(s, 2, NULL, 0, &q) == TRM_OK);
    ck_assert(trm_sampler_next(q, row, 0, &out) == TRM_ERR_INVALID_ARG);
    ck_assert(row[0] == 1 && row[1] == 2);
    trm_sampler_destroy(q);
    free(s);
}
END_TEST

START_TEST(memory_may_run_out)
{
    trm_sampling *s = calloc(1, sizeof(*s));
    int32_t prompt[300];
    int64_t live = trm_alloc_live();
    trm_status st = TRM_ERR_NO_MEMORY;
    trm_sampled out;
    trm_sampler *q;
    float row[512] = {0};

    ck_assert(s != NULL);
    trm_sampling_init(s);
    s->temperature = 1;
    s->repetition_penalty = 1.1f;
    s->top_p = 0.99f;
    for (int i = 0; i < 300; i++)
        prompt[i] = i;
    for (int calls = 0; st == TRM_ERR_NO_MEMORY && calls < 100; calls++) {
        q = NULL;
        trm_alloc_fail_after(calls);
        st = trm_sampler_create(s, 512, prompt, 300, &q);
        if (st == TRM_OK)
            st = trm_sampler_next(q, row, 0, &out);
        trm_alloc_fail_after(-1);
        trm_sampler_destroy(q);
        ck_assert(st == TRM_OK || st == TRM_ERR_NO_MEMORY);
        ck_assert_int_eq(trm_alloc_live(), live);
    }
    ck_assert(st == TRM_OK);
    free(s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("worker/sampler");
    TCase *c = tcase_create("sampling");
    SRunner *r;
    json_error_t e;
    int failed;

    root = json_load_file(TRM_SOURCE_DIR "/tests/data/sampling.json", 0, &e);
    if (root == NULL || json_array_size(json_object_get(root, "cases")) != CASES) {
        fprintf(stderr, "sampling.json: %s\n", e.text);
        return 1;
    }
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, draws_as_numpy_says, 0, GROUPS);
    tcase_add_loop_test(c, reports_raw_logprobs, 0, 4);
    tcase_add_loop_test(c, philox_known_answers, 0, 3);
    tcase_add_test(c, same_seed_same_tokens);
    tcase_add_loop_test(c, long_rows, 0, 8);
    tcase_add_loop_test(c, refuses_what_is_not_finite, 0, 3);
    tcase_add_loop_test(c, checks_parameters, 0, (int)WRONG);
    tcase_add_test(c, forbids_everything);
    tcase_add_test(c, memory_may_run_out);
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    json_decref(root);
    return failed > 0;
}
