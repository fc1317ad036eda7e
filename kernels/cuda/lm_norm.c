/* TrmNorm and TrmAddNorm: shapes. */
#include "kernels/cuda/lm_linear.h"
#include "kernels/cuda/lm_rows.h"

#include <string.h>

typedef struct norm_kernel {
    trmi_cuda_kernel base;
    trmi_lmc_norm norm;
    bool biased;
} norm_kernel;

static trm_status norm_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const norm_kernel *k = (const norm_kernel *)base;
    const trmi_lmc_norm_args args = {
        .x = in[0], .gain = in[1], .bias = k->biased ? in[2] : NULL, .out = out[0]};

    (void)workspace;
    return trmi_cuda_lm_norm(trmi_cuda_stream(base, s), &k->norm, &args);
}

static const trm_kernel_ops norm_ops = {
    .name = "cuda lm norm", .run = norm_run, .destroy = trmi_cuda_kernel_free};

static trm_status add_norm_run(trm_kernel *base, trm_stream *s, const void *const *in,
                               void *const *out, void *workspace)
{
    const norm_kernel *k = (const norm_kernel *)base;
    const trmi_lmc_norm_args args = {.x = in[0],
                                     .y = in[1],
                                     .gain = in[2],
                                     .bias = k->biased ? in[3] : NULL,
                                     .sum = out[0],
                                     .out = out[1]};

    (void)workspace;
    return trmi_cuda_lm_norm(trmi_cuda_stream(base, s), &k->norm, &args);
}

static const trm_kernel_ops add_norm_ops = {
    .name = "cuda lm add norm", .run = add_norm_run, .destroy = trmi_cuda_kernel_free};

/* The weight is input `at`, the bias the one behind it. */
static trm_status settle(norm_kernel *k, const trm_op_desc *desc, int at)
{
    const char *kind = trm_attr_string(desc->attrs, "kind", "rms");
    const trm_tensor *x = &desc->inputs[0], *gain = &desc->inputs[at];

    for (int i = 0; i < at; i++)
        TRM_CHECK(trmi_lmc_want(desc, i, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lmc_want(desc, at, TRM_DTYPE_F32, 1));
    k->biased = trmi_cuda_has_input(desc, at + 1);
    if (k->biased)
        TRM_CHECK(trmi_lmc_want(desc, at + 1, TRM_DTYPE_F32, 1));
    if (strcmp(kind, "rms") != 0 && strcmp(kind, "layer") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': kind '%.40s': want rms or layer",
                        trm_op_get(desc->op)->name, desc->name, kind);
    if (gain->dims[0] < 1 || x->dims[1] % gain->dims[0] != 0 ||
        (k->biased && desc->inputs[at + 1].dims[0] != gain->dims[0]))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s '%s': a weight of %lld (and a bias of as many) for rows of %lld",
                        trm_op_get(desc->op)->name, desc->name, (long long)gain->dims[0],
                        (long long)x->dims[1]);
    for (int i = 0; i < at + desc->output_count - 1; i++) /* the last output has been looked at */
        if (!trm_tensor_same_shape(x, i < at ? &desc->inputs[i] : &desc->outputs[i - at]))
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': rows and outputs must have one shape",
                            trm_op_get(desc->op)->name, desc->name);
    TRM_CHECK(trmi_lmc_rounds(desc, at - 1, x, &k->norm.rounds, &k->norm.sums));
    if (k->norm.rounds == TRM_DTYPE_I8 && gain->dims[0] != x->dims[1])
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': parts of rows to int8",
                        trm_op_get(desc->op)->name, desc->name);
    k->norm.kind = strcmp(kind, "layer") == 0 ? TRMI_LMC_LAYER : TRMI_LMC_RMS;
    k->norm.n = (size_t)gain->dims[0];
    k->norm.groups = trm_tensor_numel(x) / k->norm.n;
    k->norm.epsilon = trm_attr_float(desc->attrs, "epsilon", 1e-5f);
    k->norm.offset = trm_attr_float(desc->attrs, "offset", 0.0f);
    return TRM_OK;
}

static trm_status prepare(trm_cuda *cuda, trm_op_desc *desc, int at, const trm_kernel_ops *ops,
                          trm_kernel **kernel_out)
{
    norm_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (desc->output_count != at ||
        (at == 2 && trmi_cuda_has_output(desc, 0) && desc->outputs[0].dtype != TRM_DTYPE_F32))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': want %d outputs, a sum in f32",
                        trm_op_get(desc->op)->name, desc->name, at);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), ops, &k));
    st = settle(k, desc, at);
    if (st != TRM_OK) {
        trmi_cuda_kernel_free(&k->base.base);
        return st;
    }
    if (at == 2)
        k->base.base.in_place = 3; /* the sum, in x or y */
    else if (k->norm.rounds == TRM_DTYPE_F32)
        k->base.base.in_place = 1;
    *kernel_out = &k->base.base;
    return TRM_OK;
}

trm_status trmi_cuda_prepare_lm_norm(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    return prepare(cuda, desc, 1, &norm_ops, kernel_out);
}

trm_status trmi_cuda_prepare_lm_add_norm(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    return prepare(cuda, desc, 2, &add_norm_ops, kernel_out);
}
