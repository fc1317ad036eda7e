/* RotaryEmbedding: pairs of a head are turned by the angle of their position. x: [batch, heads,
 * seq, head] or [batch, seq, heads * head]; caches [positions, rotary/2] picked by position ids
 * [batch, seq], or [batch, seq, rotary/2]. And SwiGLU: a sigmoid(alpha a) b. */
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

typedef struct rotary_kernel {
    trm_kernel base;
    trm_dtype dtype, ids;
    bool heads_first, interleaved, has_ids;
    size_t batch, seq, heads, head, half, positions;
} rotary_kernel;

typedef struct rotary_job {
    const rotary_kernel *k;
    const float *x, *cos, *sin;
    const int64_t *ids;
    float *y;
} rotary_job;

static void rotary_range(void *ctx, size_t begin, size_t end)
{
    const rotary_job *job = ctx;
    const rotary_kernel *k = job->k;

    for (size_t r = begin; r < end; r++) { /* r counts rows of x as they lie */
        size_t s = k->heads_first ? r % k->seq : r / k->heads % k->seq;
        size_t b = r / k->heads / k->seq;
        size_t at = b * k->seq + s;
        const float *x = job->x + r * k->head, *c, *n;
        float *y = job->y + r * k->head;

        if (job->ids != NULL)
            at = (size_t)job->ids[at];
        c = job->cos + at * k->half;
        n = job->sin + at * k->half;
        for (size_t i = 0; i < k->half; i++) {
            size_t p = k->interleaved ? 2 * i : i, q = k->interleaved ? 2 * i + 1 : i + k->half;
            float u = x[p], v = x[q];

            y[p] = c[i] * u - n[i] * v;
            y[q] = n[i] * u + c[i] * v;
        }
        if (y != x)
            memcpy(y + 2 * k->half, x + 2 * k->half, (k->head - 2 * k->half) * sizeof(float));
    }
}

static trm_status rotary_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    rotary_kernel *k = (rotary_kernel *)base;
    size_t rows = k->batch * k->seq * k->heads, elems = rows * k->head;
    size_t cache = k->positions * k->half;
    rotary_job job = {k, in[0], in[1], in[2], k->has_ids ? in[3] : NULL, out[0]};
    float *w = workspace;

    (void)s;
    for (size_t i = 0; k->has_ids && i < k->batch * k->seq; i++)
        if (job.ids[i] < 0 || (size_t)job.ids[i] >= k->positions)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "RotaryEmbedding: position %lld at %zu: the caches have %zu",
                            (long long)job.ids[i], i, k->positions);
    if (k->dtype != TRM_DTYPE_F32) {
        trmi_convert(TRM_DTYPE_F32, w, k->dtype, in[0], elems);
        trmi_convert(TRM_DTYPE_F32, w + elems, k->dtype, in[1], cache);
        trmi_convert(TRM_DTYPE_F32, w + elems + cache, k->dtype, in[2], cache);
        job.x = job.y = w;
        job.cos = w + elems;
        job.sin = w + elems + cache;
    }
    trm_team_for(rows, 1 + TRMI_GRAIN / (k->head + 1), rotary_range, &job);
    if (k->dtype != TRM_DTYPE_F32)
        trmi_convert(k->dtype, out[0], TRM_DTYPE_F32, w, elems);
    return TRM_OK;
}

static const trm_kernel_ops rotary_ops = {
    .name = "rotary embedding", .run = rotary_run, .destroy = trmi_kernel_free};

static trm_status settle_rotary(rotary_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[0], *cache = &desc->inputs[1];
    int64_t heads = trm_attr_int(desc->attrs, "num_heads", 0);
    int64_t rotary = trm_attr_int(desc->attrs, "rotary_embedding_dim", 0);

    k->heads_first = x->rank == 4;
    if (x->rank == 3 && (heads < 1 || x->dims[2] % heads != 0))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "RotaryEmbedding '%s': num_heads %lld does not divide %lld", desc->name,
                        (long long)heads, (long long)x->dims[2]);
    if ((x->rank != 3 && x->rank != 4) || cache->rank < 2)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "RotaryEmbedding '%s': data of rank %d, caches of rank %d", desc->name,
                        x->rank, cache->rank);
    k->batch = (size_t)x->dims[0];
    k->heads = k->heads_first ? (size_t)x->dims[1] : (size_t)heads;
    k->seq = (size_t)x->dims[k->heads_first ? 2 : 1];
    k->head = k->heads_first ? (size_t)x->dims[3] : (size_t)(x->dims[2] / heads);
    k->half = (rotary > 0 ? (size_t)rotary : k->head) / 2;
    k->positions = trm_tensor_count(cache, 0, cache->rank - 1);
    if (2 * k->half > k->head || (size_t)cache->dims[cache->rank - 1] != k->half ||
        !trm_tensor_same_shape(cache, &desc->inputs[2]) ||
        (!k->has_ids && k->positions != k->batch * k->seq))
        return trm_fail(
            TRM_ERR_INVALID_ARG,
            "RotaryEmbedding '%s': caches do not fit %zu rotated pairs at %zu positions",
            desc->name, k->half, k->batch * k->seq);
    if (k->has_ids && (desc->inputs[3].dtype != TRM_DTYPE_I64 ||
                       trm_tensor_numel(&desc->inputs[3]) != k->batch * k->seq))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "RotaryEmbedding '%s': position ids: want i64 [%zu, %zu]", desc->name,
                        k->batch, k->seq);
    return TRM_OK;
}

trm_status trmi_prepare_rotary(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    rotary_kernel *k;
    trm_status st;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    for (int i = 0; i < 3; i++)
        if (desc->inputs[i].dtype != desc->inputs[0].dtype ||
            !trm_dtype_is_float(desc->inputs[i].dtype) || desc->inputs[i].dtype == TRM_DTYPE_F64)
            return trmi_bad_dtype(desc, i, "f32, f16 or bf16, the same for all");
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &rotary_ops, &k));
    k->dtype = desc->inputs[0].dtype;
    k->interleaved = trm_attr_int(desc->attrs, "interleaved", 0) != 0;
    k->has_ids = trmi_has_input(desc, 3);
    TRM_TRY(st, settle_rotary(k, desc), fail);
    if (k->dtype != TRM_DTYPE_F32)
        k->base.workspace_bytes =
            (k->batch * k->seq * k->heads * k->head + 2 * k->positions * k->half) * sizeof(float);
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    trmi_kernel_free(&k->base);
    return st;
}

/* ---- SwiGLU ---- */
typedef struct swiglu_kernel {
    trm_kernel base;
    trmi_map map;
} swiglu_kernel;

static void swiglu_f32(const trmi_row_params *p, size_t n, void *out, const void *const *in,
                       const size_t *step)
{
    const float *b = in[1];
    float gate[TRMI_CHUNK], *o = out;

    (void)step;
    for (size_t at = 0; at < n; at += TRMI_CHUNK) {
        size_t count = n - at < TRMI_CHUNK ? n - at : TRMI_CHUNK;
        const void *from[1] = {(const float *)in[0] + at};

        trmi_vec_get()->unary[TRM_OP_Swish](p, count, gate, from, (const size_t[]){1});
        for (size_t i = 0; i < count; i++)
            o[at + i] = gate[i] * b[at + i];
    }
}

static void swiglu_f64(const trmi_row_params *p, size_t n, void *out, const void *const *in,
                       const size_t *step)
{
    const double *a = in[0], *b = in[1];

    (void)step;
    for (size_t i = 0; i < n; i++)
        ((double *)out)[i] = a[i] / (1 + exp(-(double)p->alpha * a[i])) * b[i];
}

static trm_status swiglu_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    (void)s;
    (void)workspace;
    trmi_map_run(&((swiglu_kernel *)base)->map, out[0], in);
    return TRM_OK;
}

static const trm_kernel_ops swiglu_ops = {
    .name = "swiglu", .run = swiglu_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_swiglu(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_dtype dtype = desc->inputs[0].dtype;
    const trm_tensor *in[2] = {&desc->inputs[0], &desc->inputs[1]};
    swiglu_kernel *k;
    trm_status st;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    if (!trm_dtype_is_float(dtype))
        return trmi_bad_dtype(desc, 0, "a float");
    if (in[1]->dtype != dtype)
        return trmi_bad_dtype(desc, 1, trm_dtype_name(dtype));
    if (!trm_tensor_same_shape(in[0], in[1]))
        return trm_fail(TRM_ERR_INVALID_ARG, "SwiGLU '%s': inputs of different shapes", desc->name);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &swiglu_ops, &k));
    k->map.params.alpha = trm_attr_float(desc->attrs, "alpha", 1.0f);
    k->map.row = dtype == TRM_DTYPE_F64 ? swiglu_f64 : swiglu_f32;
    k->map.stage = trmi_is_half(dtype) ? TRM_DTYPE_F32 : TRM_DTYPE_NONE;
    k->map.in_dtype[0] = k->map.in_dtype[1] = k->map.out_dtype = dtype;
    TRM_TRY(st, trmi_broadcast_init(&k->map.shape, desc, &desc->outputs[0], in, 2), fail);
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    trmi_kernel_free(&k->base);
    return st;
}
