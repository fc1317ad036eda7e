/* Unary operators: which function for which dtype. They are flat, so any layout passes through. */
#include "kernels/cuda/elementwise.h"

#include <string.h>

typedef struct unary_kernel {
    trmi_cuda_kernel base;
    int fn, mode;
    trm_dtype dtype;
    size_t n;
    float a, b;
    int inputs;
    trmi_clip_limit lo, hi; /* Clip */
} unary_kernel;

static trm_status unary_run(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    const unary_kernel *k = (const unary_kernel *)base;

    (void)workspace;
    return trmi_cuda_unary(k->base.cuda, trmi_cuda_stream(base, s), k->fn, k->dtype, in[0], out[0],
                           k->n, k->a, k->b);
}

static trm_status unary_int_run(trm_kernel *base, trm_stream *s, const void *const *in,
                                void *const *out, void *workspace)
{
    const unary_kernel *k = (const unary_kernel *)base;

    (void)workspace;
    return trmi_cuda_unary_int(k->base.cuda, trmi_cuda_stream(base, s), k->fn, k->dtype, in[0],
                               out[0], k->n);
}

static trm_status classify_run(trm_kernel *base, trm_stream *s, const void *const *in,
                               void *const *out, void *workspace)
{
    const unary_kernel *k = (const unary_kernel *)base;

    (void)workspace;
    return trmi_cuda_classify(k->base.cuda, trmi_cuda_stream(base, s), k->dtype, k->mode, in[0],
                              out[0], k->n);
}

static trm_status clip_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const unary_kernel *k = (const unary_kernel *)base;
    trmi_clip_limit lo = k->lo, hi = k->hi;

    (void)workspace;
    if (k->inputs > 1)
        lo.at = in[1];
    if (k->inputs > 2)
        hi.at = in[2];
    return trmi_cuda_clip(k->base.cuda, trmi_cuda_stream(base, s), k->dtype, in[0], out[0], k->n,
                          lo, hi);
}

static const trm_kernel_ops unary_ops = {
    .name = "elementwise unary", .run = unary_run, .destroy = trmi_cuda_kernel_free};
static const trm_kernel_ops unary_int_ops = {
    .name = "elementwise unary int", .run = unary_int_run, .destroy = trmi_cuda_kernel_free};
static const trm_kernel_ops classify_ops = {
    .name = "elementwise classify", .run = classify_run, .destroy = trmi_cuda_kernel_free};
static const trm_kernel_ops clip_ops = {
    .name = "elementwise clip", .run = clip_run, .destroy = trmi_cuda_kernel_free};

static void settle_numbers(unary_kernel *k, const trm_op_desc *desc)
{
    const trm_attrs *a = desc->attrs;

    switch (desc->op) {
    case TRM_OP_LeakyRelu:
        k->a = trm_attr_float(a, "alpha", 0.01f);
        break;
    case TRM_OP_Elu:
    case TRM_OP_Celu:
    case TRM_OP_Swish:
    case TRM_OP_ThresholdedRelu:
        k->a = trm_attr_float(a, "alpha", 1.0f);
        break;
    case TRM_OP_Selu:
        k->a = trm_attr_float(a, "alpha", 1.67326319217681884765625f);
        k->b = trm_attr_float(a, "gamma", 1.05070102214813232421875f);
        break;
    case TRM_OP_HardSigmoid:
        k->a = trm_attr_float(a, "alpha", 0.2f);
        k->b = trm_attr_float(a, "beta", 0.5f);
        break;
    case TRM_OP_HardSwish:
        k->a = 1.0f / 6.0f;
        k->b = 0.5f;
        break;
    case TRM_OP_Shrink:
        k->a = trm_attr_float(a, "lambd", 0.5f);
        k->b = trm_attr_float(a, "bias", 0.0f);
        break;
    case TRM_OP_Gelu:
        if (strcmp(trm_attr_string(a, "approximate", "none"), "tanh") == 0)
            k->fn = TRMI_FN_GELU_TANH;
        break;
    case TRM_OP_IsInf:
        k->mode = 1 | (trm_attr_int(a, "detect_negative", 1) != 0 ? 2 : 0) |
                  (trm_attr_int(a, "detect_positive", 1) != 0 ? 4 : 0);
        break;
    default:
        break;
    }
}

/* NULL: the operator is not defined for the dtype. */
static const trm_kernel_ops *ops_for(trm_op op, trm_dtype dtype)
{
    switch (op) {
    case TRM_OP_Clip:
        return dtype == TRM_DTYPE_BOOL ? NULL : &clip_ops;
    case TRM_OP_IsNaN:
    case TRM_OP_IsInf:
        return trm_dtype_is_float(dtype) ? &classify_ops : NULL;
    case TRM_OP_Not:
        return dtype == TRM_DTYPE_BOOL ? &unary_int_ops : NULL;
    case TRM_OP_BitwiseNot:
        return trm_dtype_is_float(dtype) || dtype == TRM_DTYPE_BOOL ? NULL : &unary_int_ops;
    case TRM_OP_Abs:
    case TRM_OP_Neg:
    case TRM_OP_Relu:
    case TRM_OP_Sign:
        return trm_dtype_is_float(dtype) ? &unary_ops
               : dtype != TRM_DTYPE_BOOL ? &unary_int_ops
                                         : NULL;
    default:
        return trm_dtype_is_float(dtype) ? &unary_ops : NULL;
    }
}

/* Limit `input` of Clip: constants are taken by value, others are read when it runs. */
static trm_status settle_limit(unary_kernel *k, const trm_op_desc *desc, int input,
                               trmi_clip_limit *limit)
{
    const trm_tensor *t = &desc->inputs[input];

    if (!trmi_cuda_has_input(desc, input))
        return TRM_OK;
    if (t->dtype != k->dtype)
        return trmi_cuda_bad_dtype(desc, input, trm_dtype_name(k->dtype));
    if (trm_tensor_numel(t) != 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': input %d has %zu elements: want 1",
                        trm_op_get(desc->op)->name, desc->name, input, trm_tensor_numel(t));
    limit->set = true;
    if (t->data != NULL) {
        memcpy(&limit->bits, t->data, trm_dtype_bytes(t->dtype));
        k->base.base.packed_inputs |= 1u << input;
        k->base.base.copied_inputs |= 1u << input;
    }
    return TRM_OK;
}

trm_status trmi_cuda_prepare_unary(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_layout layout = desc->inputs[0].layout; /* any */
    trm_dtype dtype = desc->inputs[0].dtype;
    const trm_kernel_ops *ops = ops_for(desc->op, dtype);
    unary_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (ops == NULL)
        return trmi_cuda_bad_dtype(desc, 0, "another type: the operator is not defined for it");
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), ops, &k));
    k->fn = (int)desc->op;
    k->dtype = dtype;
    k->n = trm_tensor_numel(&desc->inputs[0]);
    k->inputs = desc->input_count;
    settle_numbers(k, desc);
    if (desc->op == TRM_OP_Clip) {
        if (k->inputs > 1)
            TRM_TRY(st, settle_limit(k, desc, 1, &k->lo), fail);
        if (k->inputs > 2)
            TRM_TRY(st, settle_limit(k, desc, 2, &k->hi), fail);
    }
    desc->inputs[0].layout = layout;
    desc->outputs[0].layout = layout;
    k->base.base.in_place = trmi_cuda_may_lie_in(desc, 0);
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    trmi_cuda_kernel_free(&k->base.base);
    return st;
}
