/* Samplers of slots as a device is told of them (worker/language/sampler_step.h): without a device,
 * whose results are made up here. What it draws from them: tests/cuda/test_lm_sample.c. */
#include "worker/language/sampler_step.h"

#include "base/file.h"
#include "base/memory.h"
#include "worker/language/grammars.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 4
#define PICKS 6
#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())

static trm_language language; /* of which only the tokenizer is looked at */
static int64_t vocabulary;
static trm_sampler_steps *steps;
static trm_lm_step step;
static trm_step to;
static trm_sampling sampling;
static trm_sampled results[PICKS];

static void setup(void)
{
    trm_file *f = NULL;

    OK(trm_file_open(TRM_SOURCE_DIR "/tests/data/tokenizers/gpt2.json", &f));
    OK(trm_tokenizer_from_json("gpt2.json", trm_file_data(f), trm_file_bytes(f),
                               &language.tokenizer));
    trm_file_unref(f);
    vocabulary = (int64_t)trm_tokenizer_count(language.tokenizer) + 2;
    OK(trm_sampler_steps_create(SLOTS, PICKS, vocabulary, &language, &steps));
    OK(trm_lm_step_init(&step, 1, 1, PICKS, 1, SLOTS + 1, false));
    trm_sampling_init(&sampling);
    memset(&to, 0, sizeof(to));
}

static void teardown(void)
{
    trm_sampler_steps_destroy(steps);
    trm_lm_step_fini(&step);
    trm_tokenizer_destroy(language.tokenizer);
    language.tokenizer = NULL;
}

static void begin(int slot, const char *constraint)
{
    static const int32_t prompt[] = {5, 6, 5};

    step.begins[step.begin_count++] =
        (trm_lm_begin){.slot = slot,
                       .bias_count = sampling.bias_count,
                       .prompt_count = 3,
                       .sampling = &sampling,
                       .prompt = prompt,
                       .constraint = constraint,
                       .constraint_bytes = constraint != NULL ? strlen(constraint) : 0};
}

static void pick(int slot, trm_lm_pick_kind kind)
{
    step.picks[step.pick_count++] =
        (trm_lm_pick){.slot = slot, .kind = kind, .target = 9, .position = 100};
}

static void fill(void)
{
    trm_sampler_steps_begin(steps, &step);
    OK(trm_sampler_steps_fill(steps, &step, &to));
    ck_assert_int_eq(to.sample_count, step.pick_count);
}

/* The step's results are these tokens. */
static void took(const int32_t *ids, int count)
{
    ck_assert_int_eq(count, step.pick_count);
    memset(results, 0, sizeof(results));
    for (int i = 0; i < count; i++)
        results[i].id = ids[i];
    OK(trm_sampler_steps_took(steps, results, count));
    trm_lm_step_clear(&step);
}

#define TOOK(...)                                                                                  \
    took((const int32_t[]){__VA_ARGS__},                                                           \
         (int)(sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t)))

#define DIGITS "{\"type\": \"regex\", \"regex\": \"[0-9]{4}\"}"

/* ---- what is told ---- */

START_TEST(tells_parameters)
{
    static const trm_logit_bias bias[] = {{9, 1}, {3, 2}, {9, 3}, {1, 4}, {3, 5}};
    static const trm_step_bias sorted[] = {{1, 4}, {3, 2}, {3, 5}, {9, 1}, {9, 3}};

    sampling.temperature = 0.5f;
    sampling.top_k = 7;
    sampling.seed = 1234567890123u;
    sampling.logprobs = 3;
    sampling.bias_count = 5;
    memcpy(sampling.bias, bias, sizeof(bias));
    begin(2, NULL);
    pick(2, TRM_LM_PICK_NEXT);
    pick(2, TRM_LM_PICK_SCORE);
    fill();
    ck_assert(!trm_sampler_steps_penalises(steps, &step));
    ck_assert_int_eq(to.begin_count, 0);
    ck_assert_int_eq(to.samples[0].row_kind, 0);
    ck_assert_int_eq(to.samples[0].slot, 2);
    ck_assert_int_eq(to.samples[0].position, 100);
    ck_assert(to.samples[0].temperature == 0.5f && to.samples[0].top_k == 7);
    ck_assert(to.samples[0].seed == sampling.seed && to.samples[0].logprobs == 3);
    ck_assert_ptr_null(to.samples[0].allowed);
    ck_assert_int_eq(to.samples[0].bias_count, 5);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(to.samples[0].bias[i].id, sorted[i].id);
        ck_assert(to.samples[0].bias[i].bias == sorted[i].bias);
    }
    ck_assert_int_eq(to.samples[1].row_kind, 1);
    ck_assert_int_eq(to.samples[1].target, 9);
    ck_assert_int_eq(to.samples[1].bias_count, 0);
}
END_TEST

START_TEST(forbids_ends_until_there_are_enough)
{
    sampling.min_tokens = 2;
    sampling.end_count = 2;
    sampling.end[0] = 4;
    sampling.end[1] = 8;
    begin(0, NULL);
    for (int i = 0; i < 4; i++) {
        pick(0, TRM_LM_PICK_SCORE); /* is no output */
        pick(0, TRM_LM_PICK_NEXT);
        fill();
        ck_assert_int_eq(to.samples[0].end_count, 0);
        ck_assert_int_eq(to.samples[1].end_count, i < 2 ? 2 : 0);
        ck_assert(i >= 2 || (to.samples[1].ends[0] == 4 && to.samples[1].ends[1] == 8));
        if (i != 1) /* whether its results are there or not */
            TOOK(9, 50);
        trm_lm_step_clear(&step);
    }
}
END_TEST

START_TEST(counts_where_it_must)
{
    begin(0, NULL);
    sampling.presence_penalty = 1; /* the same object: all begins of the step have it */
    begin(1, NULL);
    begin(1, NULL);
    fill();
    ck_assert(trm_sampler_steps_penalises(steps, &step));
    ck_assert_int_eq(to.begin_count, 2); /* the second of the slot that begins twice */
    ck_assert_int_eq(to.begins[1].slot, 1);
    ck_assert_int_eq(to.begins[1].prompt_count, 0);
    took(NULL, 0);
    sampling.repetition_penalty = 1.5f;
    begin(3, NULL);
    fill();
    ck_assert_int_eq(to.begin_count, 1);
    ck_assert_int_eq(to.begins[0].prompt_count, 3);
    ck_assert_int_eq(to.begins[0].prompt[1], 6);
    took(NULL, 0);
    trm_sampling_init(&sampling);
    begin(2, NULL);
    pick(2, TRM_LM_PICK_NEXT);
    fill();
    ck_assert(!trm_sampler_steps_penalises(steps, &step));
    pick(1, TRM_LM_PICK_SCORE);
    ck_assert(!trm_sampler_steps_penalises(steps, &step));
    pick(1, TRM_LM_PICK_NEXT);
    ck_assert(trm_sampler_steps_penalises(steps, &step));
}
END_TEST

/* ---- what fails ---- */

static const struct {
    const char *name;
    float top_p, repetition;
    int32_t prompt;
    const char *constraint;
    bool no_language;
    int32_t want;
} failures[] = {
    {"parameters", 7, 1, 0, NULL, false, TRM_SAMPLED_NOTHING},
    {"the prompt", 1, 2, -5, NULL, false, TRM_SAMPLED_NOTHING},
    {"no tokenizer", 1, 1, 0, DIGITS, true, TRM_SAMPLED_CONSTRAINED},
    {"no constraint", 1, 1, 0, "{\"type\": 3}", false, TRM_SAMPLED_NOTHING},
};

START_TEST(fails_one_sequence)
{
    const int32_t prompt[] = {failures[_i].prompt};
    trm_sampling other = sampling;

    if (failures[_i].no_language) {
        trm_sampler_steps_destroy(steps);
        OK(trm_sampler_steps_create(SLOTS, PICKS, vocabulary, NULL, &steps));
    }
    other.top_p = failures[_i].top_p;
    other.repetition_penalty = failures[_i].repetition;
    begin(0, NULL);
    begin(1, failures[_i].constraint);
    step.begins[1].sampling = &other;
    step.begins[1].prompt = prompt;
    step.begins[1].prompt_count = 1;
    pick(0, TRM_LM_PICK_NEXT);
    pick(1, TRM_LM_PICK_NEXT);
    pick(2, TRM_LM_PICK_NEXT);         /* never began */
    pick(SLOTS + 1, TRM_LM_PICK_NEXT); /* is none */
    fill();
    ck_assert(!trm_sampler_steps_penalises(steps, &step));
    ck_assert_int_eq(to.begin_count, 0);
    for (int i = 1; i < 4; i++) { /* nothing is drawn, nothing is written to the slot */
        ck_assert_int_eq(to.samples[i].row_kind, 1);
        ck_assert_int_eq(to.samples[i].slot, -1);
        ck_assert_int_eq(to.samples[i].target, 0);
    }
    TOOK(17, 0, 0, 0);
    ck_assert_int_eq(results[0].id, 17);
    ck_assert_int_eq(results[1].id, failures[_i].want);
    ck_assert_int_eq(results[2].id, TRM_SAMPLED_NOTHING);
    ck_assert_int_eq(results[3].id, TRM_SAMPLED_NOTHING);
    begin(1, NULL);
    pick(1, TRM_LM_PICK_NEXT);
    fill();
    TOOK(TRM_SAMPLED_CONSTRAINED); /* the device's word is kept */
    ck_assert_int_eq(results[0].id, TRM_SAMPLED_CONSTRAINED);
}
END_TEST

/* ---- constraints ---- */

static int32_t token_of(char c)
{
    for (int32_t i = 0; i < (int32_t)vocabulary - 2; i++) {
        size_t bytes = 0;
        const char *text = trm_tokenizer_token(language.tokenizer, i, &bytes);

        if (text != NULL && bytes == 1 && text[0] == c)
            return i;
    }
    ck_abort_msg("no token '%c'", c);
    return -1;
}

static bool may(const trm_step_sample *s, int32_t id)
{
    return (s->allowed[id / 32] >> (id % 32) & 1) != 0;
}

START_TEST(leads_constraints_on)
{
    int32_t digit = token_of('7'), letter = token_of('x'), end = (int32_t)vocabulary - 3;

    sampling.end_count = 1;
    sampling.end[0] = end;
    sampling.min_tokens = 100; /* a complete text ends all the same */
    begin(0, DIGITS);
    for (int i = 0; i < 4; i++) {
        pick(0, TRM_LM_PICK_NEXT);
        fill();
        ck_assert(may(&to.samples[0], digit) && !may(&to.samples[0], letter));
        ck_assert(!may(&to.samples[0], end) && !may(&to.samples[0], (int32_t)vocabulary - 1));
        ck_assert_int_eq(to.samples[0].end_count, 1);
        ck_assert(trm_sampler_steps_waits(steps, &step));
        ck_assert_int_eq(trm_sampler_steps_fill(steps, &step, &to), TRM_ERR_INTERNAL);
        TOOK(digit);
        ck_assert_int_eq(results[0].id, digit);
    }
    pick(0, TRM_LM_PICK_NEXT);
    fill();
    ck_assert(may(&to.samples[0], end) && !may(&to.samples[0], digit));
    ck_assert_int_eq(to.samples[0].end_count, 0);
    TOOK(end);
    pick(0, TRM_LM_PICK_NEXT); /* after the end all may come */
    fill();
    ck_assert_ptr_null(to.samples[0].allowed);
    ck_assert(!trm_sampler_steps_waits(steps, &step));
    TOOK(letter);
    ck_assert_int_eq(results[0].id, letter);
}
END_TEST

START_TEST(results_are_their_sequences)
{
    int32_t digit = token_of('7'), letter = token_of('x');

    begin(0, DIGITS);
    pick(0, TRM_LM_PICK_NEXT);
    fill();
    trm_lm_step_clear(&step); /* its sequence is given up, the slot is another's */
    begin(0, "{\"type\": \"choice\", \"choice\": [\"xxx\"]}");
    pick(0, TRM_LM_PICK_NEXT);
    trm_sampler_steps_begin(steps, &step);
    ck_assert(!trm_sampler_steps_waits(steps, &step));
    fill();
    ck_assert(may(&to.samples[0], letter) && !may(&to.samples[0], digit));
    results[0].id = digit;
    OK(trm_sampler_steps_took(steps, results, 1));
    ck_assert_int_eq(results[0].id, digit);
    ck_assert(trm_sampler_steps_waits(steps, &step));
    TOOK(digit); /* a device that does not obey */
    ck_assert_int_eq(results[0].id, TRM_SAMPLED_NOTHING);
    ck_assert_int_eq(trm_sampler_steps_took(steps, results, 1), TRM_ERR_INTERNAL);
}
END_TEST

/* The bits are the mask's, along random texts. */
/* Of two steps on their way the second does not come to run: as if it had not been filled. */
START_TEST(takes_back_what_does_not_run)
{
    int32_t digit = token_of('7'), end = (int32_t)vocabulary - 3;

    sampling.end_count = 1;
    sampling.end[0] = end;
    sampling.min_tokens = 2;
    begin(0, DIGITS);
    begin(1, NULL);
    pick(1, TRM_LM_PICK_NEXT);
    fill();
    trm_lm_step_clear(&step);
    for (int i = 0; i < 2 * TRM_SAMPLER_STEPS_AHEAD; i++) {
        pick(0, TRM_LM_PICK_NEXT);
        pick(1, TRM_LM_PICK_NEXT);
        fill();
        ck_assert_int_eq(to.samples[1].end_count, 1); /* the first has one, this makes two */
        trm_sampler_steps_undo(steps);
        ck_assert(!trm_sampler_steps_waits(steps, &step));
        trm_lm_step_clear(&step);
    }
    pick(1, TRM_LM_PICK_NEXT);
    TOOK(9);
    ck_assert_int_eq(results[0].id, 9);
    pick(0, TRM_LM_PICK_NEXT);
    fill();
    ck_assert(may(&to.samples[0], digit));
    TOOK(digit);
    ck_assert_int_eq(results[0].id, digit);
    ck_assert_int_eq(trm_sampler_steps_took(steps, results, 1), TRM_ERR_INTERNAL);
}
END_TEST

START_TEST(bits_are_the_mask)
{
    static const char *const what[] = {DIGITS, "{\"type\": \"json_object\"}",
                                       "{\"type\": \"choice\", \"choice\": [\"a\", \"\"]}"};
    const size_t words = ((size_t)vocabulary + 31) / 32;
    const int32_t end = 70;
    uint32_t *bits = calloc(words + 1, sizeof(*bits)), seed = 7;
    float *row = calloc((size_t)vocabulary, sizeof(*row));
    trm_grammars *g = NULL;

    ck_assert(bits != NULL && row != NULL);
    OK(trm_grammars_create(&language, vocabulary, &g));
    for (int k = 0; k < 3; k++) {
        trm_constraint *c = NULL;

        OK(trm_grammars_start(g, what[k], strlen(what[k]), &end, 1, &c));
        for (int i = 0; i < 40; i++) {
            int32_t next = -1, seen = 0;
            trm_status st;

            memset(row, 0, (size_t)vocabulary * sizeof(*row));
            bits[words] = 0xabcdef01u;
            st = trm_constraint_mask(c, row, vocabulary);
            ck_assert_int_eq(trm_constraint_allowed(c, bits, vocabulary), st);
            ck_assert_uint_eq(bits[words], 0xabcdef01u);
            for (int32_t v = 0; v < (int32_t)vocabulary; v++) {
                bool allowed = (bits[v / 32] >> (v % 32) & 1) != 0;

                ck_assert(allowed == (row[v] == 0));
                seed = seed * 1664525u + 1013904223u;
                if (allowed && v != end && (seed >> 8) % (uint32_t)++seen == 0)
                    next = v;
            }
            if (st != TRM_OK || next < 0)
                break;
            OK(trm_constraint_accept(c, next));
        }
        trm_constraint_destroy(c);
    }
    trm_grammars_destroy(g);
    free(bits);
    free(row);
}
END_TEST

/* ---- memory ---- */

START_TEST(memory_runs_out)
{
    bool made = false;

    begin(0, DIGITS);
    pick(0, TRM_LM_PICK_NEXT);
    for (int n = 0; !made && n < 4000; n++) {
        trm_sampler_steps *s = NULL;

        trm_alloc_fail_after(n);
        if (trm_sampler_steps_create(SLOTS, PICKS, vocabulary, &language, &s) == TRM_OK) {
            trm_sampler_steps_begin(s, &step);
            OK(trm_sampler_steps_fill(s, &step, &to));
            results[0].id = token_of('7');
            OK(trm_sampler_steps_took(s, results, 1));
            made = results[0].id >= 0;
            ck_assert(made || results[0].id == TRM_SAMPLED_NOTHING);
        }
        trm_alloc_fail_after(-1);
        trm_sampler_steps_destroy(s);
    }
    ck_assert(made);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("sampler_step");
    TCase *t = tcase_create("sampler_step");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, tells_parameters);
    tcase_add_test(t, forbids_ends_until_there_are_enough);
    tcase_add_test(t, counts_where_it_must);
    tcase_add_loop_test(t, fails_one_sequence, 0, (int)(sizeof(failures) / sizeof(failures[0])));
    tcase_add_test(t, leads_constraints_on);
    tcase_add_test(t, results_are_their_sequences);
    tcase_add_test(t, takes_back_what_does_not_run);
    tcase_add_test(t, bits_are_the_mask);
    tcase_add_test(t, memory_runs_out);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
