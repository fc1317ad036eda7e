/* TrmNorm: rows, or groups of a row's elements, normalised by root mean square or by mean and
 * deviation. */
#include "kernels/cpu/lm_rows.h"
#include "kernels/cpu/math_util.h"

#include <string.h>

typedef struct norm_kernel {
    trm_kernel base;
    trmi_lm_norm norm; /* gain and bias: set by run */
    size_t groups;     /* of all rows */
} norm_kernel;

typedef struct norm_job {
    trmi_lm_norm norm;
    const float *x;
    float *out;
} norm_job;

static void norm_range(void *ctx, size_t begin, size_t end)
{
    const norm_job *job = ctx;
    const trmi_lm_rows *rows = trmi_lm_rows_get();
    size_t n = job->norm.n;

    for (size_t g = begin; g < end; g++)
        rows->norm(&job->norm, job->out + g * n, job->x + g * n);
}

static trm_status norm_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const norm_kernel *k = (const norm_kernel *)base;
    norm_job job = {.norm = k->norm, .x = in[0], .out = out[0]};

    (void)s;
    (void)workspace;
    job.norm.gain = in[1];
    job.norm.bias = k->norm.bias != NULL ? in[2] : NULL;
    trm_team_for(k->groups, 1 + TRMI_GRAIN / (k->norm.n + 1), norm_range, &job);
    return TRM_OK;
}

static const trm_kernel_ops norm_ops = {
    .name = "lm norm", .run = norm_run, .destroy = trmi_kernel_free};

trm_status trmi_lm_norm_settle(const trm_op_desc *desc, int gain, trmi_lm_norm *norm_out)
{
    static const float some_bias = 0.0f; /* stands for the bias that run gets */
    const char *kind = trm_attr_string(desc->attrs, "kind", "rms");
    const char *op = trm_op_get(desc->op)->name;
    bool biased = trmi_has_input(desc, gain + 1);
    int64_t n;

    TRM_CHECK(trmi_lm_want(desc, gain, TRM_DTYPE_F32, 1));
    if (biased)
        TRM_CHECK(trmi_lm_want(desc, gain + 1, TRM_DTYPE_F32, 1));
    if (strcmp(kind, "rms") != 0 && strcmp(kind, "layer") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': kind '%.40s': want rms or layer", op,
                        desc->name, kind);
    n = desc->inputs[gain].dims[0];
    if (n < 1 || (biased && desc->inputs[gain + 1].dims[0] != n))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': a weight of %lld, and a bias of as many", op,
                        desc->name, (long long)n);
    *norm_out = (trmi_lm_norm){.n = (size_t)n,
                               .layer = strcmp(kind, "layer") == 0,
                               .epsilon = (double)trm_attr_float(desc->attrs, "epsilon", 1e-5f),
                               .offset = trm_attr_float(desc->attrs, "offset", 0.0f),
                               .bias = biased ? &some_bias : NULL};
    return TRM_OK;
}

trm_status trmi_prepare_lm_norm(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    trmi_lm_norm norm;
    norm_kernel *k;

    (void)cpu;
    TRM_CHECK(trmi_lm_begin(desc, 2));
    TRM_CHECK(trmi_lm_want(desc, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lm_norm_settle(desc, 1, &norm));
    if (x->dims[1] % (int64_t)norm.n != 0 || !trm_tensor_same_shape(x, &desc->outputs[0]))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmNorm '%s': a weight of %zu for rows of %lld",
                        desc->name, norm.n, (long long)x->dims[1]);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &norm_ops, &k));
    k->norm = norm;
    k->groups = trm_tensor_numel(x) / k->norm.n;
    k->base.in_place = 1;
    *kernel_out = &k->base;
    return TRM_OK;
}
