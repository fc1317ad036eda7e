/* TrmSample on the CUDA device against the sampler of the host (worker/language/sampler.h): steps
 * of many sequences with random parameters and rows, through sampler_step. The same tokens, all of
 * them. */
#include "tests/cuda/cuda_kit.h"

#include "base/file.h"
#include "kernels/cuda/lm_sample.h"
#include "worker/language/grammars.h"
#include "worker/language/sampler_step.h"

#define SLOTS 12
#define PROMPT_MAX 40

/* ---- a device that samples ---- */

typedef struct sampling_device {
    int64_t vocabulary;
    int rows; /* of the program */
    trm_kernel *kernel;
    float *logits;
    trm_step_sampled *out;
    unsigned char *block, *workspace;
    int32_t *slot_tokens;
    uint16_t *slot_counts;
    void *host;
    size_t block_max;
} sampling_device;

static void put(void *to, const void *from, size_t bytes)
{
    KIT_OK(kit_gpu->ops->copy_in(kit_gpu, NULL, to, from, bytes));
    kit_wait(kit_gpu);
}

static void get(void *to, const void *from, size_t bytes)
{
    KIT_OK(kit_gpu->ops->copy_out(kit_gpu, NULL, to, from, bytes));
    kit_wait(kit_gpu);
}

static void device_init(sampling_device *d, int64_t vocabulary, int rows)
{
    trm_tensor in[2] = {KIT_T(TRM_DTYPE_F32, rows, vocabulary), KIT_T(TRM_DTYPE_I64, 1)},
               out = KIT_T(TRM_DTYPE_U8, rows, (int64_t)sizeof(trm_step_sampled));
    trm_op_desc desc = {.op = TRM_OP_TrmSample,
                        .name = "sample",
                        .input_count = 2,
                        .output_count = 1,
                        .inputs = in,
                        .outputs = &out};
    size_t elems = (size_t)rows * (size_t)vocabulary;

    memset(d, 0, sizeof(*d));
    d->vocabulary = vocabulary;
    d->rows = rows;
    KIT_OK(kit_gpu->ops->prepare(kit_gpu, &desc, &d->kernel));
    d->block_max = 1 << 20;
    d->logits = kit_device_memory(kit_gpu, elems * sizeof(float));
    d->out = kit_device_memory(kit_gpu, (size_t)rows * sizeof(*d->out));
    d->block = kit_device_memory(kit_gpu, d->block_max);
    d->workspace = kit_device_memory(kit_gpu, d->kernel->workspace_bytes);
    d->slot_tokens = kit_device_memory(kit_gpu, SLOTS * sizeof(int32_t));
    d->slot_counts =
        kit_device_memory(kit_gpu, SLOTS * (size_t)vocabulary * sizeof(*d->slot_counts));
    d->host = malloc(d->block_max);
    ck_assert_ptr_nonnull(d->host);
}

static void device_fini(sampling_device *d)
{
    trm_kernel_destroy(d->kernel);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, d->logits);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, d->out);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, d->block);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, d->workspace);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, d->slot_tokens);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, d->slot_counts);
    free(d->host);
}

/* `to`: samples and begins are there. */
static void device_run(sampling_device *d, trm_step *to, bool counts, const float *logits,
                       trm_step_sampled *results)
{
    const void *in[2] = {d->logits, d->block};
    void *out[1] = {d->out};
    size_t bytes = 0;

    to->pick_rows = to->pick_max = d->rows;
    to->vocabulary = d->vocabulary;
    to->slots = SLOTS;
    to->slot_tokens = d->slot_tokens;
    to->slot_counts = counts ? d->slot_counts : NULL;
    KIT_OK(kit_gpu->ops->step_encode(kit_gpu, to, d->host, d->block_max, &bytes));
    KIT_OK(kit_gpu->ops->step_send(kit_gpu, NULL, to, d->block, d->host, bytes));
    put(d->logits, logits, (size_t)d->rows * (size_t)d->vocabulary * sizeof(float));
    KIT_OK(d->kernel->ops->run(d->kernel, NULL, in, out, d->workspace));
    get(results, d->out, (size_t)to->sample_count * sizeof(*results));
}

/* ---- rows and parameters ---- */

static uint32_t below(uint32_t n)
{
    return (uint32_t)kit_uniform(0, n);
}

static double normal(void)
{
    double sum = 0;

    for (int i = 0; i < 12; i++)
        sum += kit_uniform(0, 1);
    return sum - 6;
}

enum row_kind { NORMAL, WIDE, TIES, FLAT, PEAKED, HUGE_VALUES, FEW, ROW_KINDS };

static void make_row(float *row, int64_t count, enum row_kind kind)
{
    double spread = kit_uniform(0.5, 6), first = kit_uniform(-30, 30);

    for (int64_t i = 0; i < count; i++) {
        double v = first + spread * normal();

        switch (kind) {
        case TIES:
            v = floor(v * 4) / 4;
            break;
        case FLAT:
            v = first;
            break;
        case WIDE:
            v = v * 20;
            break;
        case HUGE_VALUES:
            v = v * 1e36;
            break;
        case FEW:
            v = i % 37 == 5 ? v + 40 : v;
            break;
        default:
            break;
        }
        row[i] = (float)v;
    }
    if (kind == PEAKED)
        row[below((uint32_t)count)] = (float)(first + 100);
}

#define ONE_OF(...)                                                                                \
    ((const double[]){__VA_ARGS__})[below(sizeof((double[]){__VA_ARGS__}) / sizeof(double))]

static void make_sampling(trm_sampling *s, int64_t vocabulary)
{
    trm_sampling_init(s);
    s->temperature = (float)ONE_OF(0, 0.01, 0.3, 0.7, 0.7, 1, 1, 1.5, 5);
    s->top_k = (int32_t)ONE_OF(0, 0, 0, 1, 5, 50, 64, 65, 200, (double)vocabulary, 1e9);
    s->top_p = (float)ONE_OF(1, 1, 1, 0.9, 0.95, 0.5, 0.01, 0.999, 1e-12);
    s->min_p = (float)ONE_OF(0, 0, 0, 0.05, 0.01, 1);
    s->typical_p = (float)ONE_OF(1, 1, 1, 0.95, 0.5, 0.1);
    s->repetition_penalty = (float)ONE_OF(1, 1, 1.1, 0.8, 2);
    s->presence_penalty = (float)ONE_OF(0, 0, 0.7, -1);
    s->frequency_penalty = (float)ONE_OF(0, 0, 0.3, -0.5);
    s->seed = (uint64_t)below(1u << 30) << 34 | below(1u << 30);
    s->stream = below(5);
    s->logprobs = (int32_t)ONE_OF(-1, -1, 0, 1, 5, 20);
    s->min_tokens = (int32_t)ONE_OF(0, 0, 2, 100);
    s->end_count = (int32_t)ONE_OF(0, 1, 4);
    for (int i = 0; i < s->end_count; i++)
        s->end[i] = (int32_t)below((uint32_t)vocabulary);
    s->bias_count = (int32_t)ONE_OF(0, 0, 0, 3, 40);
    for (int i = 0; i < s->bias_count; i++) {
        s->bias[i].id = (int32_t)below((uint32_t)vocabulary);
        if (i > 0 && below(4) == 0)
            s->bias[i].id = s->bias[below((uint32_t)i)].id; /* twice */
        s->bias[i].bias = (float)kit_uniform(-100, 100) * (below(2) == 0 ? 0.02f : 1);
    }
}

/* ---- steps ---- */

typedef struct bench {
    sampling_device device;
    trm_sampler_steps *steps;
    trm_lm_step step;
    trm_sampling samplings[SLOTS];
    trm_sampler *samplers[SLOTS]; /* of the host: what is wanted */
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
    trm_sampler_steps_destroy(b->steps);
    trm_lm_step_fini(&b->step);
    device_fini(&b->device);
    free(b->logits);
    free(b);
}

static void begin(bench *b, int slot)
{
    trm_sampling *s = &b->samplings[slot];
    int count = (int)below(PROMPT_MAX);

    for (int i = 0; i < count; i++)
        b->prompts[slot][i] = (int32_t)below((uint32_t)b->device.vocabulary);
    b->positions[slot] = count;
    trm_sampler_destroy(b->samplers[slot]);
    KIT_OK(trm_sampler_create(s, b->device.vocabulary, b->prompts[slot], (size_t)count,
                              &b->samplers[slot]));
    b->step.begins[b->step.begin_count++] =
        (trm_lm_begin){.slot = slot,
                       .bias_count = s->bias_count,
                       .prompt_count = s->repetition_penalty != 1 ? count : 0,
                       .sampling = s,
                       .prompt = b->prompts[slot]};
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

/* The step that has been made, on both. */
static void run(bench *b, trm_sampled *got)
{
    trm_step to = {0};
    int count = b->step.pick_count;
    bool counts;

    trm_sampler_steps_begin(b->steps, &b->step);
    counts = trm_sampler_steps_penalises(b->steps, &b->step);
    ck_assert(!trm_sampler_steps_waits(b->steps, &b->step));
    KIT_OK(trm_sampler_steps_fill(b->steps, &b->step, &to));
    device_run(&b->device, &to, counts, b->logits, (trm_step_sampled *)got);
    KIT_OK(trm_sampler_steps_took(b->steps, got, count));
    for (int i = 0; i < count; i++) {
        trm_sampled want;
        int32_t kept;

        expect(b, i, &want);
        compare(b, &got[i], &want);
        if (b->step.picks[i].kind != TRM_LM_PICK_NEXT || want.id < 0 || got[i].id != want.id)
            continue;
        get(&kept, &b->device.slot_tokens[b->step.picks[i].slot], sizeof(kept));
        ck_assert_int_eq(kept, want.id);
    }
    trm_lm_step_clear(&b->step);
}

static const struct {
    const char *name;
    int64_t vocabulary;
    int rounds, steps;
} mixes[] = {
    {"one token", 1, 2, 2},      {"50 tokens", 50, 12, 4},      {"257 tokens", 257, 12, 4},
    {"1000", 1000, 10, 4},       {"1024, a chunk", 1024, 6, 3}, {"3000", 3000, 8, 4},
    {"9001, parts", 9001, 1, 2},
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
                    begin(b, slot);
                }
                pick(b, slot, TRM_LM_PICK_NEXT);
            }
            for (int i = 0; i < 3; i++)
                pick(b, (int)below(SLOTS), TRM_LM_PICK_SCORE);
            for (int i = 0; i < b->step.pick_count; i++)
                make_row(b->logits + (size_t)i * (size_t)mixes[_i].vocabulary, mixes[_i].vocabulary,
                         (enum row_kind)below(ROW_KINDS));
            run(b, got);
        }
    printf("%s: %d tokens, %d not the host's\n", mixes[_i].name, b->tokens, b->others);
    ck_assert_int_eq(b->others, 0);
    bench_destroy(b);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("sample");

    tcase_add_loop_test(t, draws_what_the_host_draws, 0, (int)(sizeof(mixes) / sizeof(mixes[0])));
    return kit_main("sample", t);
}
