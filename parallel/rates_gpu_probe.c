/* Measures an accelerator through its device operations: large products and convolutions in fp32
 * and bf16, a sum of tensors, copies, a chain of tiny kernels. What comes out replaces the shares
 * and bandwidths of the data sheet's row.
 *
 * Sizes grow until one run is long enough to be told from the fixed costs around it, so that a slow
 * device is not held up by the sizes of a fast one; TRM_PROBE=quick stays with the smallest. */
#define _GNU_SOURCE
#include "parallel/rates_impl.h"

#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LONG_US 1500  /* of one run: no larger size is tried */
#define BATCH_US 4000 /* of runs between two waits */
#define BATCHES 3     /* of which the best counts */
#define RUNS_MAX 200
#define CHAIN 40 /* tiny kernels one after another */
#define DATA_BYTES ((size_t)64 << 20)

typedef struct bench {
    trm_device *d;
    trm_stream *stream;
    const trm_rates *rates;
    trm_arena *arena;
    double begun, budget_us;
    bool quick;
    void *host; /* pinned, host_bytes: weights, and what copies move */
    size_t host_bytes;
} bench;

/* A prepared operator with its memory. */
typedef struct subject {
    trm_node node;
    trm_tensor in[3], out[1];
    trm_kernel *kernel;
    void *memory[5]; /* inputs, output, workspace */
    const void *ins[3];
    void *outs[1];
} subject;

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static bool over(const bench *b)
{
    return now_us() - b->begun > b->budget_us;
}

static trm_status wait_for(const bench *b)
{
    return b->d->ops->stream_wait == NULL ? TRM_OK : b->d->ops->stream_wait(b->d, b->stream);
}

static void close_subject(const bench *b, subject *s)
{
    trm_kernel_destroy(s->kernel);
    for (int i = 0; i < 5; i++)
        if (s->memory[i] != NULL)
            b->d->ops->free(b->d, TRM_MEMORY_DEVICE, s->memory[i]);
    s->kernel = NULL;
}

static trm_status device_memory(const bench *b, size_t bytes, void **out)
{
    TRM_CHECK(b->d->ops->alloc(b->d, TRM_MEMORY_DEVICE, bytes + TRM_ALIGN, out));
    return b->d->ops->fill_zero(b->d, b->stream, *out, bytes);
}

static trm_status open_subject(const bench *b, subject *s)
{
    uint64_t keys[3] = {0};
    trm_op_desc desc = {.op = s->node.op,
                        .attrs = &s->node.attrs,
                        .name = "rates",
                        .input_count = s->node.input_count,
                        .output_count = 1,
                        .inputs = s->in,
                        .outputs = s->out,
                        .weight_keys = keys};
    size_t bytes;

    TRM_CHECK(b->d->ops->prepare(b->d, &desc, &s->kernel));
    for (int i = 0; i < s->node.input_count; i++) {
        if ((s->kernel->packed_inputs >> i & 1u) != 0)
            continue;
        TRM_CHECK(trm_tensor_bytes(&s->in[i], &bytes));
        TRM_CHECK(device_memory(b, bytes, &s->memory[i]));
        s->ins[i] = s->memory[i];
    }
    TRM_CHECK(trm_tensor_bytes(&s->out[0], &bytes));
    TRM_CHECK(device_memory(b, bytes, &s->memory[3]));
    s->outs[0] = s->memory[3];
    return device_memory(b, s->kernel->workspace_bytes, &s->memory[4]);
}

static trm_status run(const bench *b, const subject *s)
{
    return s->kernel->ops->run(s->kernel, b->stream, s->ins, s->outs, s->memory[4]);
}

/* Of one run, in batches between waits. */
static trm_status time_subject(const bench *b, const subject *s, double *us_out)
{
    double best = HUGE_VAL, from;
    int runs = 1;

    TRM_CHECK(run(b, s));
    TRM_CHECK(wait_for(b));
    from = now_us();
    TRM_CHECK(run(b, s));
    TRM_CHECK(wait_for(b));
    best = now_us() - from;
    while (runs < RUNS_MAX && runs * best < BATCH_US && !b->quick)
        runs++;
    for (int i = 0; i < BATCHES && (i == 0 || !over(b)); i++) {
        from = now_us();
        for (int k = 0; k < runs; k++)
            TRM_CHECK(run(b, s));
        TRM_CHECK(wait_for(b));
        best = fmin(best, (now_us() - from) / runs);
    }
    *us_out = fmax(best, 1e-3);
    return TRM_OK;
}

/* ---- dense work ---- */

static trm_status set_square(subject *s, trm_dtype dtype, int64_t n)
{
    s->node = (trm_node){.op = TRM_OP_MatMul, .name = "rates", .input_count = 2, .output_count = 1};
    s->in[0] = (trm_tensor){.dtype = dtype, .rank = 2, .dims = {n, n}};
    s->in[1] = s->out[0] = s->in[0];
    return TRM_OK;
}

static trm_status set_conv(const bench *b, subject *s, trm_dtype dtype, int64_t n)
{
    int64_t pads[4] = {1, 1, 1, 1}, channels = n < 256 ? n : 256, images = n <= 256 ? 1 : n / 64;

    s->node = (trm_node){.op = TRM_OP_Conv, .name = "rates", .input_count = 2, .output_count = 1};
    s->in[0] = (trm_tensor){.dtype = dtype, .rank = 4, .dims = {images, channels, 14, 14}};
    s->out[0] = s->in[0];
    s->in[1] = (trm_tensor){
        .dtype = TRM_DTYPE_F32, .rank = 4, .dims = {channels, channels, 3, 3}, .data = b->host};
    return trm_attr_set_ints(&s->node.attrs, b->arena, "pads", pads, 4);
}

/* What the model says over what was measured, for the largest size that was tried; 0: none. */
static trm_status dense_ratio(const bench *b, bool conv, trm_dtype dtype, double *ratio_out)
{
    *ratio_out = 0;
    for (int64_t n = b->quick ? 32 : 256; n <= 4096 && !over(b); n *= 2) {
        subject s = {.kernel = NULL};
        double us = 0, model;
        trmi_work w;
        trm_status st = conv ? set_conv(b, &s, dtype, n) : set_square(&s, dtype, n);

        if (st == TRM_OK)
            st = open_subject(b, &s);
        if (st == TRM_OK)
            st = time_subject(b, &s, &us);
        (void)trmi_work_of(&s.node, s.in, s.out, &w);
        close_subject(b, &s);
        if (st == TRM_ERR_UNSUPPORTED || st == TRM_ERR_NO_MEMORY) {
            TRM_LOG(TRM_LOG_DEBUG, "rates", "not measured: %s", trm_message());
            return TRM_OK;
        }
        TRM_CHECK(st);
        model = trmi_gpu_us(b->rates, &w, dtype, 1) - b->rates->gpu.gap_us;
        *ratio_out = model / us;
        if (us > LONG_US || b->quick)
            break;
    }
    return TRM_OK;
}

static double share(double assumed, double ratio)
{
    return ratio > 0 ? fmin(1.2, fmax(1e-9, assumed * ratio)) : assumed;
}

static trm_status measure_dense(const bench *b, trmi_gpu *g)
{
    static const trm_dtype dtypes[2] = {TRM_DTYPE_F32, TRM_DTYPE_BF16};

    for (int i = 0; i < 2; i++) {
        double ratio;

        TRM_CHECK(dense_ratio(b, false, dtypes[i], &ratio));
        g->dense[i] = share(g->dense[i], ratio);
        TRM_CHECK(dense_ratio(b, true, dtypes[i], &ratio));
        g->conv[i] = share(g->conv[i], ratio);
    }
    return TRM_OK;
}

/* ---- memory, gaps, copies ---- */

static trm_status set_sum(subject *s, int64_t n)
{
    s->node = (trm_node){.op = TRM_OP_Add, .name = "rates", .input_count = 2, .output_count = 1};
    s->in[0] = (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {n}};
    s->in[1] = s->out[0] = s->in[0];
    return TRM_OK;
}

static trm_status measure_memory(const bench *b, trmi_gpu *g)
{
    subject s = {.kernel = NULL};
    double us = 0;
    trm_status st;

    for (int64_t n = b->quick ? 4096 : 1 << 20; n <= 32 << 20 && !over(b); n *= 4) {
        TRM_CHECK(set_sum(&s, n));
        st = open_subject(b, &s);
        if (st == TRM_OK)
            st = time_subject(b, &s, &us);
        close_subject(b, &s);
        s = (subject){.kernel = NULL};
        if (st == TRM_ERR_UNSUPPORTED || st == TRM_ERR_NO_MEMORY)
            return TRM_OK;
        TRM_CHECK(st);
        g->gb_s = fmax(1e-3, 12 * (double)n / us / 1e3);
        if (us > LONG_US || b->quick)
            break;
    }
    return TRM_OK;
}

static trm_status enqueue_chain(const bench *b, const subject *s)
{
    for (int i = 0; i < CHAIN; i++)
        TRM_CHECK(run(b, s));
    return TRM_OK;
}

/* Tiny kernels one after another, as a captured graph where the device captures. */
static trm_status time_chain(const bench *b, const subject *s, double *us_out)
{
    const trm_device_ops *ops = b->d->ops;
    trm_capture *capture = NULL;
    trm_status st = TRM_OK;

    if (ops->capture_begin != NULL && b->stream != NULL && !s->kernel->uncapturable) {
        TRM_CHECK(ops->capture_begin(b->d, b->stream));
        st = enqueue_chain(b, s);
        if (ops->capture_end(b->d, b->stream, &capture) != TRM_OK || st != TRM_OK)
            capture = NULL;
    }
    for (int i = 0; i <= BATCHES; i++) {
        double from = now_us();

        st = capture != NULL ? ops->capture_launch(b->d, capture, b->stream) : enqueue_chain(b, s);
        if (st == TRM_OK)
            st = wait_for(b);
        if (st != TRM_OK)
            break;
        if (i > 0) /* the first brings it up */
            *us_out = fmin(*us_out, (now_us() - from) / CHAIN);
    }
    if (capture != NULL)
        ops->capture_destroy(b->d, capture);
    return st;
}

static trm_status measure_gap(const bench *b, trmi_gpu *g)
{
    subject s = {.kernel = NULL};
    double us = HUGE_VAL;
    trm_status st;

    TRM_CHECK(set_sum(&s, 256));
    st = open_subject(b, &s);
    if (st == TRM_OK)
        st = time_chain(b, &s, &us);
    close_subject(b, &s);
    if (st == TRM_ERR_UNSUPPORTED)
        return TRM_OK;
    TRM_CHECK(st);
    g->gap_us = fmax(1e-2, us);
    return TRM_OK;
}

static trm_status time_copies(const bench *b, void *memory, size_t bytes, double *us_out)
{
    *us_out = HUGE_VAL;
    for (int i = 0; i <= BATCHES && (i < 2 || !over(b)); i++) {
        double from = now_us();

        TRM_CHECK(b->d->ops->copy_in(b->d, b->stream, memory, b->host, bytes));
        TRM_CHECK(wait_for(b));
        TRM_CHECK(b->d->ops->copy_out(b->d, b->stream, b->host, memory, bytes));
        TRM_CHECK(wait_for(b));
        if (i > 0)
            *us_out = fmin(*us_out, (now_us() - from) / 2);
    }
    return TRM_OK;
}

static trm_status measure_copies(const bench *b, trmi_gpu *g)
{
    double small = 0, large = 0;
    void *memory = NULL;
    trm_status st;

    TRM_CHECK(b->d->ops->alloc(b->d, TRM_MEMORY_DEVICE, b->host_bytes, &memory));
    st = time_copies(b, memory, 256, &small);
    if (st == TRM_OK)
        st = time_copies(b, memory, b->host_bytes, &large);
    b->d->ops->free(b->d, TRM_MEMORY_DEVICE, memory);
    TRM_CHECK(st);
    g->copy_us = fmax(1e-2, small);
    g->copy_gb_s = fmax(1e-3, (double)b->host_bytes / fmax(large - small, large / 10) / 1e3);
    return TRM_OK;
}

/* ---- all of it ---- */

static trm_status measure_all(const bench *b, trmi_gpu *g)
{
    TRM_CHECK(measure_gap(b, g));
    TRM_CHECK(measure_copies(b, g));
    TRM_CHECK(measure_memory(b, g));
    return measure_dense(b, g);
}

trm_status trmi_gpu_probe(trm_device *device, int budget_ms, trm_rates *r)
{
    const trm_device_ops *ops = device->ops;
    const char *how = getenv("TRM_PROBE");
    bench b = {.d = device,
               .rates = r,
               .begun = now_us(),
               .budget_us = budget_ms * 1e3,
               .quick = how != NULL && strcmp(how, "quick") == 0};
    trm_status st;

    /* weights of the largest convolution are 2.4 MB */
    b.host_bytes = b.quick ? 65536 : DATA_BYTES;
    TRM_CHECK(trm_arena_create(0, &b.arena));
    TRM_TRY(st, ops->alloc(device, TRM_MEMORY_PINNED, b.host_bytes, &b.host), done);
    memset(b.host, 0, b.host_bytes);
    if (ops->stream_create != NULL)
        TRM_TRY(st, ops->stream_create(device, &b.stream), done);
    st = measure_all(&b, &r->gpu);
    if (b.stream != NULL)
        ops->stream_destroy(device, b.stream);
done:
    if (b.host != NULL)
        ops->free(device, TRM_MEMORY_PINNED, b.host);
    trm_arena_destroy(b.arena);
    return st;
}
