/* TrmSample on the CUDA device against the sampler of the host (worker/language/sampler.h): steps
 * of many sequences with random parameters and rows, through sampler_step. The same tokens, all of
 * them. */
#include "tests/cuda/lm_sample_kit.h"

#include "base/file.h"
#include "worker/language/grammars.h"
#include "worker/language/sampler_step.h"

#define PROMPT_MAX 40

/* ---- steps ---- */

typedef struct bench {
    sampling_device device;
    trm_sampler_steps *steps;
    trm_lm_step step;
    trm_sampling samplings[SLOTS];
    trm_sampler *samplers[SLOTS]; /* of the host: what is wanted */
    trm_grammars *grammars;       /* of their constraints */
    int32_t prompts[SLOTS][PROMPT_MAX];
    int64_t positions[SLOTS];
    float *logits;
    int tokens, others; /* compared; not the same */
} bench;

static trm_language language; /* of which only the tokenizer is looked at */

static bench *bench_create(int64_t vocabulary)
{
    bench *b = calloc(1, sizeof(*b));

    ck_assert_ptr_nonnull(b);
    device_init(&b->device, vocabulary, SLOTS + 4);
    KIT_OK(trm_sampler_steps_create(SLOTS, SLOTS + 3, vocabulary, &language, &b->steps));
    KIT_OK(trm_lm_step_init(&b->step, 1, 1, SLOTS + 3, 1, SLOTS + 2, false));
    b->logits = calloc((size_t)(SLOTS + 4) * (size_t)vocabulary, sizeof(float));
    ck_assert_ptr_nonnull(b->logits);
    return b;
}

static void bench_destroy(bench *b)
{
    for (int i = 0; i < SLOTS; i++)
        trm_sampler_destroy(b->samplers[i]);
    trm_grammars_destroy(b->grammars);
    trm_sampler_steps_destroy(b->steps);
    trm_lm_step_fini(&b->step);
    device_fini(&b->device);
    free(b->logits);
    free(b);
}

/* constraint: NULL: none. */
static void begin(bench *b, int slot, const char *constraint)
{
    trm_sampling *s = &b->samplings[slot];
    int count = (int)below(PROMPT_MAX);

    for (int i = 0; i < count; i++)
        b->prompts[slot][i] = (int32_t)below((uint32_t)b->device.vocabulary);
    b->positions[slot] = count;
    trm_sampler_destroy(b->samplers[slot]);
    KIT_OK(trm_sampler_create(s, b->device.vocabulary, b->prompts[slot], (size_t)count,
                              &b->samplers[slot]));
    if (constraint != NULL) {
        trm_constraint *c = NULL;

        KIT_OK(trm_grammars_start(b->grammars, constraint, strlen(constraint), s->end, s->end_count,
                                  &c));
        trm_sampler_constrain(b->samplers[slot], c);
    }
    b->step.begins[b->step.begin_count++] =
        (trm_lm_begin){.slot = slot,
                       .bias_count = s->bias_count,
                       .prompt_count = s->repetition_penalty != 1 ? count : 0,
                       .sampling = s,
                       .prompt = b->prompts[slot],
                       .constraint = constraint,
                       .constraint_bytes = constraint != NULL ? strlen(constraint) : 0};
}

static void pick(bench *b, int slot, trm_lm_pick_kind kind)
{
    b->step.picks[b->step.pick_count++] =
        (trm_lm_pick){.slot = slot,
                      .kind = kind,
                      .target = (int32_t)below((uint32_t)b->device.vocabulary),
                      .position = b->positions[slot]++};
}

static void compare(bench *b, const trm_sampled *got, const trm_sampled *want)
{
    float tolerance = 1e-5f + fabsf(want->logprob) * 2e-7f;

    b->tokens++;
    if (got->id != want->id) {
        b->others++;
        return;
    }
    ck_assert_int_eq(got->rank, want->rank);
    ck_assert_int_eq(got->top_count, want->top_count);
    ck_assert_float_eq_tol(got->logprob, want->logprob, tolerance);
    for (int i = 0; i < want->top_count; i++) {
        ck_assert_int_eq(got->top_ids[i], want->top_ids[i]);
        ck_assert_float_eq_tol(got->top_logprobs[i], want->top_logprobs[i],
                               1e-5f + fabsf(want->top_logprobs[i]) * 2e-7f);
    }
}

/* What the host says of the step's pick i. */
static void expect(bench *b, int i, trm_sampled *want)
{
    const trm_lm_pick *p = &b->step.picks[i];
    size_t width = (size_t)b->device.vocabulary;
    float *row = malloc(width * sizeof(*row));
    trm_status st;

    ck_assert_ptr_nonnull(row);
    memcpy(row, b->logits + (size_t)i * width, width * sizeof(*row));
    memset(want, 0, sizeof(*want));
    st = p->kind == TRM_LM_PICK_NEXT
             ? trm_sampler_next(b->samplers[p->slot], row, p->position, want)
             : trm_sampler_score(b->samplers[p->slot], row, p->target, want);
    if (st != TRM_OK) {
        memset(want, 0, sizeof(*want));
        want->id = st == TRM_ERR_UNSUPPORTED ? TRM_SAMPLED_CONSTRAINED : TRM_SAMPLED_NOTHING;
    }
    free(row);
}

/* The step that has been made goes to the device; its results are not taken yet. */
static void launch(bench *b, trm_sampled *got)
{
    trm_step to = {0};
    bool counts;

    trm_sampler_steps_begin(b->steps, &b->step);
    counts = trm_sampler_steps_penalises(b->steps, &b->step);
    ck_assert(!trm_sampler_steps_waits(b->steps, &b->step));
    KIT_OK(trm_sampler_steps_fill(b->steps, &b->step, &to));
    device_run(&b->device, &to, counts, b->logits, (trm_step_sampled *)got);
}

static void check_step(bench *b, const trm_sampled *got)
{
    for (int i = 0; i < b->step.pick_count; i++) {
        trm_sampled want;

        expect(b, i, &want);
        compare(b, &got[i], &want);
    }
}

/* On both. */
static void run(bench *b, trm_sampled *got)
{
    int32_t kept[SLOTS];

    launch(b, got);
    KIT_OK(trm_sampler_steps_took(b->steps, got, b->step.pick_count));
    check_step(b, got);
    get(kept, b->device.slot_tokens, sizeof(kept));
    for (int i = 0; i < b->step.pick_count; i++)
        if (b->step.picks[i].kind == TRM_LM_PICK_NEXT && got[i].id >= 0)
            ck_assert_int_eq(kept[b->step.picks[i].slot], got[i].id);
    trm_lm_step_clear(&b->step);
}

static void make_rows(bench *b)
{
    for (int i = 0; i < b->step.pick_count; i++)
        make_row(b->logits + (size_t)i * (size_t)b->device.vocabulary, b->device.vocabulary,
                 (enum row_kind)below(ROW_KINDS));
}

static const struct {
    const char *name;
    int64_t vocabulary;
    int rounds, steps;
} mixes[] = {
    {"one token", 1, 2, 2},          {"50 tokens", 50, 16, 4},
    {"257 tokens", 257, 16, 4},      {"1000 tokens", 1000, 12, 4},
    {"1024 tokens", 1024, 8, 3},     {"3000 tokens", 3000, 8, 4},
    {"6001 tokens", 6001, 2, 2},     {"9001 tokens, two parts", 9001, 1, 2},
    {"151936 tokens", 151936, 1, 1},
};

START_TEST(draws_what_the_host_draws)
{
    bench *b = bench_create(mixes[_i].vocabulary);
    trm_sampled got[SLOTS + 3];

    kit_name = mixes[_i].name;
    kit_seed = 77 + (uint32_t)_i;
    for (int round = 0; round < mixes[_i].rounds; round++)
        for (int step = 0; step < mixes[_i].steps; step++) {
            for (int slot = 0; slot < SLOTS; slot++) {
                if (step == 0 || below(8) == 0) {
                    make_sampling(&b->samplings[slot], mixes[_i].vocabulary);
                    begin(b, slot, NULL);
                }
                pick(b, slot, TRM_LM_PICK_NEXT);
            }
            for (int i = 0; i < 3; i++)
                pick(b, (int)below(SLOTS), TRM_LM_PICK_SCORE);
            make_rows(b);
            run(b, got);
        }
    printf("%s: %d tokens, %d not the host's\n", mixes[_i].name, b->tokens, b->others);
    ck_assert_int_eq(b->others, 0);
    bench_destroy(b);
}
END_TEST

/* ---- constraints ---- */

static const char *const constraints[] = {
    "{\"type\": \"json_object\"}",
    "{\"type\": \"choice\", \"choice\": [\"red\", \"green\", \"a longer text\"]}",
    "{\"type\": \"regex\", \"regex\": \"[0-9]{2,5}(\\\\.[0-9]+)?\"}",
    "{\"type\": \"json_schema\", \"schema\": {\"type\": \"object\", \"properties\": {\"a\": "
    "{\"type\": \"integer\"}}, \"required\": [\"a\"], \"additionalProperties\": false}}",
};

static void read_tokenizer(void)
{
    trm_file *f = NULL;

    KIT_OK(trm_file_open(TRM_SOURCE_DIR "/tests/data/tokenizers/gpt2.json", &f));
    KIT_OK(trm_tokenizer_from_json("gpt2.json", trm_file_data(f), trm_file_bytes(f),
                                   &language.tokenizer));
    trm_file_unref(f);
}

START_TEST(follows_constraints)
{
    int64_t vocabulary = 0;
    trm_sampled got[SLOTS + 3];
    bench *b;

    kit_name = "constraints";
    read_tokenizer();
    vocabulary = (int64_t)trm_tokenizer_count(language.tokenizer) + 3; /* as padded models have */
    b = bench_create(vocabulary);
    KIT_OK(trm_grammars_create(&language, vocabulary, &b->grammars));
    for (int step = 0; step < 20; step++) {
        for (int slot = 0; slot < SLOTS; slot++) {
            if (step % 10 == 0) {
                trm_sampling *s = &b->samplings[slot];

                make_sampling(s, vocabulary);
                s->end_count = 1;
                s->end[0] = (int32_t)vocabulary - 4; /* the tokenizer's last */
                begin(b, slot, slot % 5 == 4 ? NULL : constraints[slot % 5]);
            }
            pick(b, slot, TRM_LM_PICK_NEXT);
        }
        make_rows(b);
        run(b, got);
    }
    ck_assert_int_eq(b->others, 0);
    bench_destroy(b);
    trm_tokenizer_destroy(language.tokenizer);
    language.tokenizer = NULL;
}
END_TEST

/* ---- a step before the results of the one before ---- */

START_TEST(runs_ahead)
{
    bench *b = bench_create(300);
    trm_lm_step spare, first;
    trm_sampled got[2][SLOTS + 3];
    float *logits = calloc((SLOTS + 4) * (size_t)300, sizeof(float)), *swap;
    trm_step to = {0};

    kit_name = "ahead";
    ck_assert_ptr_nonnull(logits);
    KIT_OK(trm_lm_step_init(&spare, 1, 1, SLOTS + 3, 1, SLOTS + 2, false));
    for (int slot = 0; slot < SLOTS; slot++) {
        make_sampling(&b->samplings[slot], 300);
        b->samplings[slot].presence_penalty = 2; /* by the token of the step before */
        begin(b, slot, NULL);
        pick(b, slot, TRM_LM_PICK_NEXT);
    }
    make_rows(b);
    launch(b, got[0]);
    first = b->step;
    b->step = spare;
    swap = b->logits;
    b->logits = logits;
    for (int slot = 0; slot < SLOTS; slot++)
        pick(b, slot, TRM_LM_PICK_NEXT);
    make_rows(b);
    launch(b, got[1]);
    /* taken in their order */
    KIT_OK(trm_sampler_steps_took(b->steps, got[0], SLOTS));
    KIT_OK(trm_sampler_steps_took(b->steps, got[1], SLOTS));
    ck_assert_int_eq(trm_sampler_steps_took(b->steps, got[1], SLOTS), TRM_ERR_INTERNAL);
    spare = b->step;
    b->step = first;
    b->logits = swap;
    check_step(b, got[0]);
    b->step = spare;
    b->logits = logits;
    check_step(b, got[1]);
    ck_assert_int_eq(b->others, 0);
    for (int i = 0; i < TRM_SAMPLER_STEPS_AHEAD; i++)
        KIT_OK(trm_sampler_steps_fill(b->steps, &b->step, &to));
    ck_assert_int_eq(trm_sampler_steps_fill(b->steps, &b->step, &to), TRM_ERR_INTERNAL);
    trm_lm_step_fini(&first);
    free(swap);
    bench_destroy(b);
}
END_TEST

/* ---- single rows ---- */

#define SMALL 300

static trm_step_sample plain(void)
{
    return (trm_step_sample){
        .slot = 0, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .logprobs = -1};
}

enum { FINE, WITH_NAN, WITH_INFINITY, WITH_MINUS_INFINITY };
enum { ALL, NONE, SEVEN, SEVEN_AND_NINE }; /* tokens that are allowed */

static const struct {
    const char *name;
    int row, allowed;
    int ends; /* 1: token 7; 2: all */
    int kind;
    int32_t target;
    float temperature;
    int32_t logprobs, want; /* -3: 7 or 9 */
    int want_top;
} singles[] = {
    {"greedy", FINE, ALL, 0, 0, 0, 0, -1, 40, 0},
    {"nan", WITH_NAN, ALL, 0, 0, 0, 1, 5, -1, 0},
    {"nan, greedy", WITH_NAN, ALL, 0, 0, 0, 0, -1, -1, 0},
    {"infinity", WITH_INFINITY, ALL, 0, 0, 0, 1, 5, -1, 0},
    {"-infinity is not finite", WITH_MINUS_INFINITY, ALL, 0, 0, 0, 1, 5, -1, 0},
    {"nan, scored", WITH_NAN, ALL, 0, 1, 3, 0, 5, -1, 0},
    {"nan before the constraint", WITH_NAN, NONE, 0, 0, 0, 0, 5, -1, 0},
    {"nothing allowed", FINE, NONE, 0, 0, 0, 1, 5, -2, 0},
    {"nothing allowed, greedy", FINE, NONE, 0, 0, 0, 0, -1, -2, 0},
    {"only an end allowed, too early", FINE, SEVEN, 1, 0, 0, 1, 5, -2, 0},
    {"all are ends", FINE, ALL, 2, 0, 0, 1, 5, -1, 0},
    {"one allowed", FINE, SEVEN, 0, 0, 0, 1, 20, 7, 1},
    {"two allowed", FINE, SEVEN_AND_NINE, 0, 0, 0, 5, 20, -3, 2},
    {"one of two is an end", FINE, SEVEN_AND_NINE, 1, 0, 0, 5, 20, 9, 2},
    {"a constraint does not score", FINE, NONE, 0, 1, 12, 1, 3, 12, 3},
    {"target below", FINE, ALL, 0, 1, -1, 0, 3, -1, 0},
    {"target beyond", FINE, ALL, 0, 1, SMALL, 0, 3, -1, 0},
};
#define SINGLES (int)(sizeof(singles) / sizeof(singles[0]))

START_TEST(single_rows)
{
    const int rows = SINGLES + 2; /* two more than the step has */
    static uint32_t allowed[4][SMALL / 32 + 1];
    static trm_step_sample samples[SINGLES];
    static trm_step_sampled got[SINGLES + 2], untouched[2];
    static float logits[(SINGLES + 2) * SMALL], after[(SINGLES + 2) * SMALL];
    static int32_t ends[SMALL];
    int32_t slots[SLOTS];
    trm_step to = {.samples = samples, .sample_count = SINGLES};
    sampling_device d;

    kit_name = "single rows";
    device_init(&d, SMALL, rows);
    allowed[SEVEN][0] = 1u << 7;
    allowed[SEVEN_AND_NINE][0] = 1u << 7 | 1u << 9;
    for (int i = 0; i < SMALL; i++)
        ends[i] = (i + 7) % SMALL;
    for (int i = 0; i < SLOTS; i++)
        slots[i] = 1234;
    put(d.slot_tokens, slots, sizeof(slots));
    memset(untouched, 0x5a, sizeof(untouched));
    put(d.out + SINGLES, untouched, sizeof(untouched));
    for (int i = 0; i < SINGLES; i++) {
        float *row = logits + i * SMALL;

        make_row(row, SMALL, NORMAL);
        row[40] = row[77] = 100;
        row[11] = singles[i].row == WITH_NAN              ? NAN
                  : singles[i].row == WITH_INFINITY       ? INFINITY
                  : singles[i].row == WITH_MINUS_INFINITY ? -INFINITY
                                                          : row[11];
        samples[i] = plain();
        samples[i].slot = singles[i].want == -1 || singles[i].want == -2 ? 1 : -1;
        samples[i].row_kind = singles[i].kind;
        samples[i].target = singles[i].target;
        samples[i].temperature = singles[i].temperature;
        samples[i].logprobs = singles[i].logprobs;
        samples[i].allowed = singles[i].allowed == ALL ? NULL : allowed[singles[i].allowed];
        samples[i].ends = ends;
        samples[i].end_count = singles[i].ends == 2 ? SMALL : singles[i].ends;
    }
    device_run(&d, &to, true, logits, got);
    for (int i = 0; i < SINGLES; i++) {
        static const trm_step_sampled none;
        trm_step_sampled rest = got[i];

        ck_assert_msg(singles[i].want == -3 ? got[i].id == 7 || got[i].id == 9
                                            : got[i].id == singles[i].want,
                      "%s: token %d", singles[i].name, got[i].id);
        ck_assert_msg(got[i].top_count == singles[i].want_top, "%s: %d alternatives",
                      singles[i].name, got[i].top_count);
        rest.id = 0;
        if (got[i].id < 0)
            ck_assert_msg(same(&rest, &none, sizeof(none)), "%s", singles[i].name);
    }
    get(slots, d.slot_tokens, sizeof(slots));
    for (int i = 0; i < SLOTS; i++)
        ck_assert_int_eq(slots[i], 1234); /* failures draw nothing, scores neither */
    get(got + SINGLES, d.out + SINGLES, sizeof(untouched));
    ck_assert(same(got + SINGLES, untouched, sizeof(untouched)));
    get(after, d.logits, sizeof(after));
    ck_assert(same(after, logits, sizeof(after)));
    device_fini(&d);
}
END_TEST

/* Outputs are counted where they are penalised, up to a most; a slot that begins is cleared. */
START_TEST(counts)
{
    const size_t width = 9001, all = SLOTS * width;
    uint16_t *got = malloc(all * sizeof(*got)), *want = malloc(all * sizeof(*want));
    float *logits = calloc(4 * width, sizeof(*logits));
    const int32_t prompt[] = {0, 8191, 8192, 9000, 8192, -1, 9001};
    const trm_step_begin begins[] = {{.slot = 3, .prompt_count = 7, .prompt = prompt}, {.slot = 5}};
    trm_step_sample samples[4];
    trm_step to = {.samples = samples, .sample_count = 4, .begins = begins, .begin_count = 2};
    trm_step_sampled out[4];
    sampling_device d;

    kit_name = "counts";
    ck_assert(got != NULL && want != NULL && logits != NULL);
    device_init(&d, (int64_t)width, 4);
    memset(want, 0x11, all * sizeof(*want));
    want[2 * width + 70] = TRM_STEP_COUNT_MAX | TRM_STEP_IN_PROMPT;
    put(d.slot_counts, want, all * sizeof(*want));
    for (int i = 0; i < 4; i++) {
        samples[i] = plain();
        samples[i].slot = i;
        samples[i].presence_penalty = i == 1 ? 0 : 0.5f;
        logits[(size_t)i * width + 70] = 1e9f;
    }
    device_run(&d, &to, true, logits, out);
    for (size_t slot = 3; slot <= 5; slot += 2)
        memset(want + slot * width, 0, width * sizeof(*want));
    for (int i = 0; i < 4; i++)
        want[3 * width + (size_t)prompt[i]] = TRM_STEP_IN_PROMPT;
    want[3 * width + 70] = 1;
    want[70]++;
    get(got, d.slot_counts, all * sizeof(*got));
    for (size_t i = 0; i < all; i++)
        ck_assert_msg(got[i] == want[i], "slot %zu, token %zu: %#x, want %#x", i / width, i % width,
                      got[i], want[i]);
    device_fini(&d);
    free(got);
    free(want);
    free(logits);
}
END_TEST

/* To the bit, wherever a row is, whatever else is in the step, in how many parts it is read. */
START_TEST(rows_are_alone)
{
    enum { WIDTH = 9001, MANY = 280, KINDS = 7 };
    static trm_step_sample samples[MANY];
    static trm_step_sampled got[MANY], one;
    float *logits = malloc(sizeof(float) * WIDTH * MANY);
    trm_step to = {.samples = samples, .sample_count = KINDS + 1};
    sampling_device d, alone;

    kit_name = "rows are alone";
    ck_assert_ptr_nonnull(logits);
    device_init(&d, WIDTH, MANY);
    device_init(&alone, WIDTH, 1);
    ck_assert(alone.kernel->workspace_bytes * MANY == d.kernel->workspace_bytes);
    for (int i = 0; i <= KINDS; i++) {
        samples[i] = plain();
        samples[i].slot = -1;
        samples[i].temperature = 0.9f;
        samples[i].seed = 5 + (uint64_t)i;
        samples[i].logprobs = i % 2 * 20;
        samples[i].top_k = i == 1 ? 40 : i == 2 ? 3000 : 0;
        samples[i].top_p = i == 3 || i == 1 ? 0.97f : 1;
        samples[i].min_p = i == 4 ? 0.02f : 0;
        samples[i].typical_p = i == 5 ? 0.9f : 1;
        samples[i].bias_count = i == 6;
        samples[i].bias = &(const trm_step_bias){.id = 8888, .bias = 3};
        make_row(logits + (size_t)i * WIDTH, WIDTH, i == 3 ? FLAT : NORMAL);
    }
    device_run(&d, &to, false, logits, got);
    for (int i = 0; i <= KINDS; i++) {
        to.samples = &samples[i];
        to.sample_count = 1;
        device_run(&alone, &to, false, logits + (size_t)i * WIDTH, &one);
        ck_assert_msg(same(&one, &got[i], sizeof(one)), "row %d: %d alone, %d among others", i,
                      one.id, got[i].id);
    }
    device_fini(&d);
    device_fini(&alone);
    free(logits);
}
END_TEST

START_TEST(refuses)
{
    static const struct {
        trm_dtype logits, step;
        int64_t vocabulary, bytes;
        trm_status want;
    } rows[] = {
        {TRM_DTYPE_F16, TRM_DTYPE_I64, 50, sizeof(trm_step_sampled), TRM_ERR_UNSUPPORTED},
        {TRM_DTYPE_F32, TRM_DTYPE_I32, 50, sizeof(trm_step_sampled), TRM_ERR_UNSUPPORTED},
        {TRM_DTYPE_F32, TRM_DTYPE_I64, 5000000, sizeof(trm_step_sampled), TRM_ERR_UNSUPPORTED},
        {TRM_DTYPE_F32, TRM_DTYPE_I64, 50, 8, TRM_ERR_INVALID_ARG},
    };
    trm_tensor in[2] = {KIT_T(rows[_i].logits, 2, rows[_i].vocabulary), KIT_T(rows[_i].step, 1)},
               out = KIT_T(TRM_DTYPE_U8, 2, rows[_i].bytes);
    trm_op_desc desc = {.op = TRM_OP_TrmSample,
                        .name = "refused",
                        .input_count = 2,
                        .output_count = 1,
                        .inputs = in,
                        .outputs = &out};
    trm_kernel *k = NULL;

    ck_assert_int_eq(kit_gpu->ops->prepare(kit_gpu, &desc, &k), rows[_i].want);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("sample");

    tcase_add_loop_test(t, draws_what_the_host_draws, 0, (int)(sizeof(mixes) / sizeof(mixes[0])));
    tcase_add_test(t, follows_constraints);
    tcase_add_test(t, runs_ahead);
    tcase_add_test(t, single_rows);
    tcase_add_test(t, counts);
    tcase_add_test(t, rows_are_alone);
    tcase_add_loop_test(t, refuses, 0, 4);
    return kit_main("sample", t);
}
