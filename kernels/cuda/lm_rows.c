/* TrmGated and TrmRope: shapes; and what prepare functions of language models share. */
#include "kernels/cuda/lm_linear.h"
#include "kernels/cuda/lm_rows.h"

#include <string.h>

trmi_lmc_act trmi_lmc_act_from_name(const char *name)
{
    static const char *const names[TRMI_LMC_ACT_COUNT] = {
        [TRMI_LMC_NONE] = "none",           [TRMI_LMC_SILU] = "silu", [TRMI_LMC_GELU] = "gelu",
        [TRMI_LMC_GELU_TANH] = "gelu_tanh", [TRMI_LMC_RELU] = "relu", [TRMI_LMC_TANH] = "tanh",
        [TRMI_LMC_SOFTCAP] = "softcap"};
    int i = 0;

    while (i < TRMI_LMC_ACT_COUNT && strcmp(name, names[i]) != 0)
        i++;
    return (trmi_lmc_act)i;
}

trm_status trmi_lmc_want(const trm_op_desc *desc, int i, trm_dtype dtype, int rank)
{
    char text[TRM_SHAPE_TEXT_BYTES];

    if (!trmi_cuda_has_input(desc, i))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d is missing",
                        trm_op_get(desc->op)->name, desc->name, i);
    if (dtype != TRM_DTYPE_NONE && desc->inputs[i].dtype != dtype)
        return trmi_cuda_bad_dtype(desc, i, trm_dtype_name(dtype));
    if (desc->inputs[i].rank != rank || !trm_tensor_is_concrete(&desc->inputs[i]))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d is %s, want %d dims",
                        trm_op_get(desc->op)->name, desc->name, i,
                        trm_tensor_shape_text(&desc->inputs[i], text, sizeof(text)), rank);
    return TRM_OK;
}

trm_status trmi_lmc_begin(trm_op_desc *desc, int outputs, int rank)
{
    char text[TRM_SHAPE_TEXT_BYTES];

    TRM_CHECK(trmi_cuda_begin(desc));
    if (desc->output_count != outputs)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %d outputs, want %d",
                        trm_op_get(desc->op)->name, desc->name, desc->output_count, outputs);
    for (int i = 0; i < outputs; i++) /* of several, one may not be wanted */
        if ((outputs == 1 || trmi_cuda_has_output(desc, i)) &&
            (desc->outputs[i].dtype != TRM_DTYPE_F32 || desc->outputs[i].rank != rank ||
             !trm_tensor_is_concrete(&desc->outputs[i])))
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': output %d is %s %s, want f32 of %d dims",
                            trm_op_get(desc->op)->name, desc->name, i,
                            trm_dtype_name(desc->outputs[i].dtype),
                            trm_tensor_shape_text(&desc->outputs[i], text, sizeof(text)), rank);
    return TRM_OK;
}

/* ---- TrmGated ---- */

typedef struct gated_kernel {
    trmi_cuda_kernel base;
    trmi_lmc_act act;
    float cap;
    bool gated;
    trm_dtype rounds;
    size_t elems;
} gated_kernel;

static trm_status gated_run(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    const gated_kernel *k = (const gated_kernel *)base;

    (void)workspace;
    return trmi_cuda_lm_gated(trmi_cuda_stream(base, s), k->act, k->cap, k->elems, in[0],
                              k->gated ? in[1] : NULL, out[0], k->rounds);
}

static const trm_kernel_ops gated_ops = {
    .name = "cuda lm gated", .run = gated_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_prepare_lm_gated(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const char *act = trm_attr_string(desc->attrs, "act", "none");
    trmi_lmc_act kind = trmi_lmc_act_from_name(act);
    float cap = trm_attr_float(desc->attrs, "cap", 0.0f);
    bool gated = trmi_cuda_has_input(desc, 1);
    gated_kernel *k = NULL;
    trm_dtype rounds;
    int sums;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_lmc_want(desc, 0, TRM_DTYPE_F32, 2));
    if (gated)
        TRM_CHECK(trmi_lmc_want(desc, 1, TRM_DTYPE_F32, 2));
    if (kind == TRMI_LMC_ACT_COUNT)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "TrmGated '%s': act '%.40s': want silu, gelu, gelu_tanh, relu, tanh, "
                        "softcap or none",
                        desc->name, act);
    if (kind == TRMI_LMC_SOFTCAP && !(cap > 0.0f))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmGated '%s': cap %g: want more than 0", desc->name,
                        (double)cap);
    TRM_CHECK(trmi_lmc_rounds(desc, 0, &desc->inputs[0], &rounds, &sums));
    if (rounds == TRM_DTYPE_I8)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmGated '%s': to int8", desc->name);
    if (desc->output_count != 1 ||
        (gated && !trm_tensor_same_shape(&desc->inputs[0], &desc->inputs[1])))
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmGated '%s': x, up and output must have one shape",
                        desc->name);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &gated_ops, &k));
    k->act = kind;
    k->cap = kind == TRMI_LMC_SOFTCAP ? cap : 1.0f;
    k->gated = gated;
    k->elems = trm_tensor_numel(&desc->inputs[0]);
    k->rounds = rounds;
    k->base.base.in_place = rounds != TRM_DTYPE_F32 ? 0 : gated ? 3 : 1;
    *kernel_out = &k->base.base;
    return TRM_OK;
}

/* ---- TrmRope ---- */

typedef struct rope_kernel {
    trmi_cuda_kernel base;
    trmi_lmc_rope rope;
} rope_kernel;

static trm_status rope_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const rope_kernel *k = (const rope_kernel *)base;

    (void)workspace;
    return trmi_cuda_lm_rope(trmi_cuda_stream(base, s), &k->rope, in[0], in[1], in[2], out[0]);
}

static const trm_kernel_ops rope_ops = {
    .name = "cuda lm rope", .run = rope_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_prepare_lm_rope(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t head_dim = trm_attr_int(desc->attrs, "head_dim", 0), half;
    rope_kernel *k = NULL;

    TRM_CHECK(trmi_lmc_begin(desc, 1, 2));
    TRM_CHECK(trmi_lmc_want(desc, 0, TRM_DTYPE_F32, 2));
    TRM_CHECK(trmi_lmc_want(desc, 1, TRM_DTYPE_I32, 1));
    TRM_CHECK(trmi_lmc_want(desc, 2, TRM_DTYPE_F32, 1));
    half = desc->inputs[2].dims[0];
    if (head_dim < 1 || x->dims[1] % head_dim != 0 || half > head_dim / 2 ||
        desc->inputs[1].dims[0] != x->dims[0] || !trm_tensor_same_shape(x, &desc->outputs[0]))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TrmRope '%s': heads of %lld and %lld frequencies for rows of %lld; %lld "
                        "positions for %lld rows",
                        desc->name, (long long)head_dim, (long long)half, (long long)x->dims[1],
                        (long long)desc->inputs[1].dims[0], (long long)x->dims[0]);
    if (half > TRMI_LMC_PAIRS_MAX || x->dims[1] > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TrmRope '%s': %lld frequencies: at most %d",
                        desc->name, (long long)half, TRMI_LMC_PAIRS_MAX);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &rope_ops, &k));
    k->rope = (trmi_lmc_rope){.rows = (size_t)x->dims[0],
                              .heads = (size_t)(x->dims[1] / head_dim),
                              .head_dim = (size_t)head_dim,
                              .half = (size_t)half,
                              .interleaved = trm_attr_int(desc->attrs, "interleaved", 0) != 0,
                              .scale = trm_attr_float(desc->attrs, "scale", 1.0f),
                              .multiprocessors = cuda->multiprocessors};
    k->base.base.in_place = 1;
    *kernel_out = &k->base.base;
    return TRM_OK;
}
