/* A device that samples, and rows and parameters to sample from: for test_lm_sample.c. */
#ifndef TRM_TESTS_CUDA_LM_SAMPLE_KIT_H
#define TRM_TESTS_CUDA_LM_SAMPLE_KIT_H

#include "tests/cuda/cuda_kit.h"

#include "kernels/language.h"
#include "worker/language/sampler.h"

#define SLOTS 12

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

static inline void put(void *to, const void *from, size_t bytes)
{
    KIT_OK(kit_gpu->ops->copy_in(kit_gpu, NULL, to, from, bytes));
    kit_wait(kit_gpu);
}

static inline void get(void *to, const void *from, size_t bytes)
{
    KIT_OK(kit_gpu->ops->copy_out(kit_gpu, NULL, to, from, bytes));
    kit_wait(kit_gpu);
}

static inline void device_init(sampling_device *d, int64_t vocabulary, int rows)
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

static inline void device_fini(sampling_device *d)
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

/* To the bit. */
static inline bool same(const void *a, const void *b, size_t bytes)
{
    return memcmp(a, b, bytes) == 0;
}

/* `to`: samples and begins are there. */
static inline void device_run(sampling_device *d, trm_step *to, bool counts, const float *logits,
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

static inline double normal(void)
{
    double sum = 0;

    for (int i = 0; i < 12; i++)
        sum += kit_uniform(0, 1);
    return sum - 6;
}

enum row_kind { NORMAL, WIDE, TIES, FLAT, PEAKED, HUGE_VALUES, FEW, NEAR, ROW_KINDS };

static inline void make_row(float *row, int64_t count, enum row_kind kind)
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
        case NEAR: /* more values than differences from the largest */
            v = i == count / 2 ? 16 : 1e-7 * normal();
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

static inline void make_sampling(trm_sampling *s, int64_t vocabulary)
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

#endif
