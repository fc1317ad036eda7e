/* Softmax, LogSoftmax, Hardmax along one axis: input seen as [outer, axis, inner].
 *
 * Attribute flatten = 1 (the semantics before opset 13): all dims from the axis on are one. Along
 * the last axis rows go through the vector kernel; otherwise blocks of neighbouring columns share
 * three passes over the axis. 16-bit floats are computed in an fp32 copy, doubles in doubles. */
#include "kernels/cpu/math_util.h"

#include "kernels/reference/rows.h"

#include <math.h>
#include <string.h>

#define COLUMNS 64

typedef struct softmax_kernel {
    trm_kernel base;
    trm_op op;
    trm_dtype dtype;
    size_t outer, axis, inner;
} softmax_kernel;

typedef struct softmax_job {
    const softmax_kernel *k;
    const float *in;
    float *out;
} softmax_job;

static void softmax_columns(const softmax_job *job, size_t outer, size_t column, size_t n)
{
    const softmax_kernel *k = job->k;
    const trmi_vec *vec = trmi_vec_get();
    const float *x = job->in + outer * k->axis * k->inner + column;
    float *y = job->out + outer * k->axis * k->inner + column;
    float max[COLUMNS], sum[COLUMNS];
    const trmi_row_params none = {0};
    const size_t step[2] = {1, 1};

    for (size_t i = 0; i < n; i++) {
        max[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    for (size_t a = 0; a < k->axis; a++)
        vec->fold_columns(TRMI_FOLD_MAX, max, x + a * k->inner, n, NULL);
    for (size_t a = 0; a < k->axis; a++)
        vec->fold_columns(TRMI_FOLD_EXP, sum, x + a * k->inner, n, max);
    if (k->op == TRM_OP_LogSoftmax) {
        for (size_t i = 0; i < n; i++)
            max[i] += logf(sum[i]);
    } else {
        for (size_t i = 0; i < n; i++)
            sum[i] = 1.0f / sum[i];
    }
    for (size_t a = 0; a < k->axis; a++) {
        float *to = y + a * k->inner;
        const void *shift[2] = {x + a * k->inner, max}, *scale[2] = {to, sum};

        vec->binary[TRM_OP_Sub](&none, n, to, shift, step);
        if (k->op != TRM_OP_LogSoftmax) {
            vec->unary[TRM_OP_Exp](&none, n, to, scale, step);
            vec->binary[TRM_OP_Mul](&none, n, to, scale, step);
        }
    }
}

static void hardmax_one(const softmax_job *job, size_t outer, size_t column)
{
    const softmax_kernel *k = job->k;
    const float *x = job->in + outer * k->axis * k->inner + column;
    float *y = job->out + outer * k->axis * k->inner + column;
    size_t best = 0;

    for (size_t a = 1; a < k->axis; a++)
        if (x[a * k->inner] > x[best * k->inner])
            best = a;
    for (size_t a = 0; a < k->axis; a++)
        y[a * k->inner] = a == best ? 1.0f : 0.0f;
}

static void softmax_range(void *ctx, size_t begin, size_t end)
{
    const softmax_job *job = ctx;
    const softmax_kernel *k = job->k;
    size_t blocks = (k->inner + COLUMNS - 1) / COLUMNS;

    for (size_t i = begin; i < end; i++) {
        size_t outer = i / blocks, column = i % blocks * COLUMNS;
        size_t n = k->inner - column < COLUMNS ? k->inner - column : COLUMNS;

        if (k->op == TRM_OP_Hardmax) {
            for (size_t c = 0; c < n; c++)
                hardmax_one(job, outer, column + c);
        } else if (k->inner == 1) {
            trmi_vec_get()->softmax(job->out + outer * k->axis, job->in + outer * k->axis, k->axis,
                                    k->op == TRM_OP_LogSoftmax);
        } else {
            softmax_columns(job, outer, column, n);
        }
    }
}

static trm_status softmax_run(trm_kernel *base, trm_stream *s, const void *const *in,
                              void *const *out, void *workspace)
{
    softmax_kernel *k = (softmax_kernel *)base;
    size_t elems = k->outer * k->axis * k->inner, blocks = (k->inner + COLUMNS - 1) / COLUMNS;
    size_t work = k->axis * (k->inner < COLUMNS ? k->inner : COLUMNS);
    softmax_job job = {k, in[0], out[0]};

    (void)s;
    if (elems == 0)
        return TRM_OK;
    if (k->dtype == TRM_DTYPE_F64) {
        for (size_t o = 0; o < k->outer; o++)
            for (size_t i = 0; i < k->inner; i++)
                trm_reference_softmax((double *)out[0] + o * k->axis * k->inner + i,
                                      (const double *)in[0] + o * k->axis * k->inner + i, k->axis,
                                      k->inner, k->op);
        return TRM_OK;
    }
    if (k->dtype != TRM_DTYPE_F32) {
        trmi_convert(TRM_DTYPE_F32, workspace, k->dtype, in[0], elems);
        job.in = workspace;
        job.out = workspace;
    }
    trm_team_for(k->outer * blocks, 1 + TRMI_GRAIN / 4 / (work + 1), softmax_range, &job);
    if (k->dtype != TRM_DTYPE_F32)
        trmi_convert(k->dtype, out[0], TRM_DTYPE_F32, workspace, elems);
    return TRM_OK;
}

static const trm_kernel_ops softmax_ops = {
    .name = "softmax", .run = softmax_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_softmax(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in = &desc->inputs[0];
    bool flatten = trm_attr_int(desc->attrs, "flatten", 0) != 0;
    softmax_kernel *k;
    int axis = 0;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    if (!trm_dtype_is_float(in->dtype))
        return trmi_bad_dtype(desc, 0, "a float");
    if (in->rank > 0)
        TRM_CHECK(trmi_axis(desc, trm_attr_int(desc->attrs, "axis", flatten ? 1 : -1),
                            flatten ? in->rank + 1 : in->rank, &axis));
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &softmax_ops, &k));
    k->op = desc->op;
    k->dtype = in->dtype;
    k->outer = trm_tensor_count(in, 0, axis);
    k->axis = in->rank == 0 ? 1
              : flatten     ? trm_tensor_count(in, axis, in->rank)
                            : (size_t)in->dims[axis];
    k->inner = flatten || in->rank == 0 ? 1 : trm_tensor_count(in, axis + 1, in->rank);
    if (trmi_is_half(in->dtype))
        k->base.workspace_bytes = k->outer * k->axis * k->inner * sizeof(float);
    k->base.in_place = desc->op == TRM_OP_Softmax || desc->op == TRM_OP_LogSoftmax ? 1 : 0;
    *kernel_out = &k->base;
    return TRM_OK;
}
