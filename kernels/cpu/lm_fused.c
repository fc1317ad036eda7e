/* Fused operators of language models, made of the row functions of their parts: TrmAddNorm, and
 * TrmPagedAttention that turns q and k itself. A row passes the cache once instead of twice; its
 * bits are those of the parts, one after the other. */
#include "kernels/cpu/lm_rows.h"
#include "kernels/cpu/math_util.h"

#include <string.h>

/* ---- TrmAddNorm ---- */

enum { ADD_X, ADD_Y, ADD_GAIN, ADD_BIAS };
enum { OUT_SUM, OUT_NORMED };

typedef struct add_norm_kernel {
    trm_kernel base;
    trmi_lm_norm norm; /* gain and bias: set by run */
    size_t rows;
} add_norm_kernel;

typedef struct add_norm_job {
    trmi_lm_norm norm;
    const float *x, *y;
    float *sum, *normed; /* sum NULL: nobody reads it */
} add_norm_job;

static void add_norm_range(void *ctx, size_t begin, size_t end)
{
    const add_norm_job *job = ctx;
    const trmi_lm_rows *rows = trmi_lm_rows_get();
    size_t n = job->norm.n;

    for (size_t at = begin * n; at < end * n; at += n) {
        float *sum = job->sum != NULL ? job->sum + at : job->normed + at;

        rows->add(n, sum, job->x + at, job->y + at);
        rows->norm(&job->norm, job->normed + at, sum);
    }
}

static trm_status add_norm_run(trm_kernel *base, trm_stream *s, const void *const *in,
                               void *const *out, void *workspace)
{
    const add_norm_kernel *k = (const add_norm_kernel *)base;
    add_norm_job job = {.norm = k->norm,
                        .x = in[ADD_X],
                        .y = in[ADD_Y],
                        .sum = out[OUT_SUM],
                        .normed = out[OUT_NORMED]};

    (void)s;
    (void)workspace;
    job.norm.gain = in[ADD_GAIN];
    job.norm.bias = k->norm.bias != NULL ? in[ADD_BIAS] : NULL;
    trm_team_for(k->rows, 1 + TRMI_GRAIN / (k->norm.n + 1), add_norm_range, &job);
    return TRM_OK;
}

static const trm_kernel_ops add_norm_ops = {
    .name = "lm add norm", .run = add_norm_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_lm_add_norm(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[ADD_X];
    add_norm_kernel *k;
    trmi_lm_norm norm;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    TRM_CHECK(trmi_lm_not_rounded(desc));
    for (int i = ADD_X; i <= ADD_Y; i++)
        TRM_CHECK(trmi_lm_want(desc, i, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lm_norm_settle(desc, ADD_GAIN, &norm));
    if (desc->output_count != 2 || desc->outputs[OUT_NORMED].dtype != TRM_DTYPE_F32)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmAddNorm '%s': want a sum and what is normalised",
                        desc->name);
    if (x->dims[1] != (int64_t)norm.n || !trm_tensor_same_shape(x, &desc->inputs[ADD_Y]) ||
        !trm_tensor_same_shape(x, &desc->outputs[OUT_NORMED]) ||
        (desc->outputs[OUT_SUM].dtype != TRM_DTYPE_NONE &&
         !trm_tensor_same_shape(x, &desc->outputs[OUT_SUM])))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmAddNorm '%s': a weight of %zu for rows of %lld; x, y and outputs must "
                        "have one shape",
                        desc->name, norm.n, (long long)x->dims[1]);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &add_norm_ops, &k));
    k->norm = norm;
    k->rows = (size_t)x->dims[0];
    k->base.in_place = 1u << ADD_X | 1u << ADD_Y;
    *kernel_out = &k->base;
    return TRM_OK;
}

/* ---- TrmPagedAttention with rope ---- */

enum { AT_Q, AT_K, AT_V, AT_STEP, AT_SINKS, AT_POSITIONS, AT_FREQUENCIES, AT_INPUTS };

typedef struct turned_kernel {
    trm_kernel base;
    trm_kernel *inner; /* attends */
    trmi_lm_rope q, k; /* frequencies: set by run */
    size_t rows;
    size_t q_at, k_at; /* turned rows, in the workspace behind the inner kernel's */
} turned_kernel;

typedef struct turn_job {
    trmi_lm_rope q, k;
    const float *q_from, *k_from;
    float *q_to, *k_to;
    const int32_t *positions;
} turn_job;

static void turn_range(void *ctx, size_t begin, size_t end)
{
    const turn_job *job = ctx;
    const trmi_lm_rows *rows = trmi_lm_rows_get();
    size_t q = job->q.heads * job->q.head_dim, k = job->k.heads * job->k.head_dim;

    for (size_t r = begin; r < end; r++) {
        rows->rope(&job->q, job->q_to + r * q, job->q_from + r * q, job->positions[r]);
        rows->rope(&job->k, job->k_to + r * k, job->k_from + r * k, job->positions[r]);
    }
}

static trm_status turned_run(trm_kernel *base, trm_stream *s, const void *const *in,
                             void *const *out, void *workspace)
{
    const turned_kernel *k = (const turned_kernel *)base;
    unsigned char *w = workspace;
    turn_job job = {.q = k->q,
                    .k = k->k,
                    .q_from = in[AT_Q],
                    .k_from = in[AT_K],
                    .q_to = (float *)(void *)(w + k->q_at),
                    .k_to = (float *)(void *)(w + k->k_at),
                    .positions = in[AT_POSITIONS]};
    const void *turned[AT_POSITIONS] = {job.q_to, job.k_to, in[AT_V], in[AT_STEP], in[AT_SINKS]};
    size_t cost = (k->q.heads + k->k.heads) * k->q.head_dim + 32 * k->q.half; /* as lm_rope.c */

    job.q.frequencies = job.k.frequencies = in[AT_FREQUENCIES];
    trm_team_for(k->rows, 1 + TRMI_GRAIN / (cost + 1), turn_range, &job);
    return k->inner->ops->run(k->inner, s, turned, out, workspace);
}

static void turned_destroy(trm_kernel *base)
{
    turned_kernel *k = (turned_kernel *)base;

    trm_kernel_destroy(k->inner);
    trm_free(k);
}

static const trm_kernel_ops turned_ops = {
    .name = "lm rope attention", .run = turned_run, .destroy = turned_destroy};

static trm_status turned_settle(turned_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *q = &desc->inputs[AT_Q], *key = &desc->inputs[AT_K];
    int64_t head_dim = trm_attr_int(desc->attrs, "head_dim", 1);
    int64_t half = desc->inputs[AT_FREQUENCIES].dims[0];
    size_t bytes = 0;

    if (half > head_dim / 2 || desc->inputs[AT_POSITIONS].dims[0] != q->dims[0])
        return trm_fail(
            TRM_ERR_INVALID_ARG,
            "TrmPagedAttention '%s': %lld frequencies for heads of %lld; %lld positions "
            "for %lld rows",
            desc->name, (long long)half, (long long)head_dim,
            (long long)desc->inputs[AT_POSITIONS].dims[0], (long long)q->dims[0]);
    if (half > TRMI_LM_ROTARY_MAX / 2)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmPagedAttention '%s': %lld frequencies: at most %d",
                        desc->name, (long long)half, TRMI_LM_ROTARY_MAX / 2);
    k->q = (trmi_lm_rope){.heads = (size_t)(q->dims[1] / head_dim),
                          .head_dim = (size_t)head_dim,
                          .half = (size_t)half,
                          .interleaved = trm_attr_int(desc->attrs, "rope_interleaved", 0) != 0,
                          .scale = trm_attr_float(desc->attrs, "rope_scale", 1.0f)};
    k->k = k->q;
    k->k.heads = (size_t)(key->dims[1] / head_dim);
    k->rows = (size_t)q->dims[0];
    k->q_at = trm_align_up(k->inner->workspace_bytes, TRM_ALIGN);
    k->k_at = trm_align_up(k->q_at + trm_tensor_numel(q) * sizeof(float), TRM_ALIGN);
    if (!trm_mul_ok(trm_tensor_numel(key), sizeof(float), &bytes) ||
        !trm_add_ok(bytes, k->k_at, &k->base.workspace_bytes))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmPagedAttention '%s': too large", desc->name);
    return TRM_OK;
}

trm_status trmi_prepare_lm_attention(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    bool positions = trmi_has_input(desc, AT_POSITIONS);
    trm_op_desc plain = *desc;
    turned_kernel *k;
    trm_status st;

    if (!positions && !trmi_has_input(desc, AT_FREQUENCIES))
        return trmi_prepare_lm_attention_plain(cpu, desc, kernel_out);
    TRM_CHECK(trmi_math_begin(desc));
    TRM_CHECK(trmi_lm_want(desc, AT_POSITIONS, TRM_DTYPE_I32, 1));
    TRM_CHECK(trmi_lm_want(desc, AT_FREQUENCIES, TRM_DTYPE_F32, 1));
    plain.input_count = AT_POSITIONS;
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &turned_ops, &k));
    TRM_TRY(st, trmi_prepare_lm_attention_plain(cpu, &plain, &k->inner), fail);
    TRM_TRY(st, turned_settle(k, desc), fail);
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    turned_destroy(&k->base);
    return st;
}
