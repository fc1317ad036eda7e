/* MaxRoiPool, MaxUnpool and CausalConvWithState; DeformConv is region_deform.c. */
#include "kernels/cuda/region.h"

#include <inttypes.h>
#include <string.h>

static trm_status misfit(const trm_op_desc *desc, const char *what)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %s", trm_op_get(desc->op)->name, desc->name,
                    what);
}

/* ---- MaxRoiPool ---- */

struct roi_pool {
    trmi_cuda_kernel base;
    trmi_roi_pool p;
};

static trm_status roi_pool_run(trm_kernel *k, trm_stream *s, const void *const *in,
                               void *const *out, void *workspace)
{
    (void)workspace;
    return trmi_cuda_roi_pool_launch(&((const struct roi_pool *)k)->p, in[0], in[1], out[0],
                                     trmi_cuda_stream(k, s));
}

static const trm_kernel_ops roi_pool_ops = {
    .name = "cuda roi pool", .run = roi_pool_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_max_roi_pool(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *rois = &desc->inputs[1], *y = &desc->outputs[0];
    struct roi_pool *k;

    TRM_CHECK(trmi_cuda_begin(desc));
    for (int i = 0; i < 2; i++)
        if (!trm_dtype_is_float(desc->inputs[i].dtype))
            return trmi_cuda_bad_dtype(desc, i, "a float");
    if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != 5 || y->rank != 4 ||
        y->dims[0] != rois->dims[0] || y->dims[1] != x->dims[1])
        return misfit(desc, "want x [N, C, H, W] and rois [R, 5]");
    for (int i = 2; i < 4; i++)
        if (x->dims[i] > INT32_MAX || y->dims[i] > INT32_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "MaxRoiPool '%s': dim %d", desc->name, i);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &roi_pool_ops, &k));
    k->p.dtype = x->dtype;
    k->p.roi_dtype = rois->dtype;
    k->p.images = (size_t)x->dims[0];
    k->p.channels = (size_t)x->dims[1];
    k->p.regions = (size_t)rois->dims[0];
    k->p.height = (int32_t)x->dims[2];
    k->p.width = (int32_t)x->dims[3];
    k->p.out_h = (int32_t)y->dims[2];
    k->p.out_w = (int32_t)y->dims[3];
    k->p.scale = (double)trm_attr_float(desc->attrs, "spatial_scale", 1.0f);
    *kernel_out = &k->base.base;
    return TRM_OK;
}

/* ---- MaxUnpool ---- */

struct unpool {
    trmi_cuda_kernel base;
    trmi_unpool p;
};

static trm_status unpool_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    return trmi_cuda_unpool_launch(&((const struct unpool *)k)->p, in[0], in[1], out[0], workspace,
                                   trmi_cuda_stream(k, s));
}

static const trm_kernel_ops unpool_ops = {
    .name = "cuda max unpool", .run = unpool_run, .destroy = trmi_cuda_kernel_free};

/* `want` values of a list attribute, or the default; `least` is the smallest one allowed. */
static trm_status list(const trm_op_desc *desc, const char *name, size_t want, int64_t otherwise,
                       int64_t least, int64_t *out)
{
    size_t n;
    const int64_t *v = trm_attr_ints(desc->attrs, name, &n);

    if (v != NULL && n != want)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %s has %zu values: want %zu",
                        trm_op_get(desc->op)->name, desc->name, name, n, want);
    for (size_t i = 0; i < want; i++) {
        out[i] = v == NULL ? otherwise : v[i];
        if (out[i] < least || out[i] > TRM_DIM_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': %s[%zu] is %" PRId64 ": want %" PRId64 " or more",
                            trm_op_get(desc->op)->name, desc->name, name, i, out[i], least);
    }
    return TRM_OK;
}

/* Dims of the tensor that indices count in. */
static trm_status unpool_dims(const trm_op_desc *desc, trmi_unpool *p)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t kernel[TRM_RANK_MAX], stride[TRM_RANK_MAX], pads[2 * TRM_RANK_MAX];
    size_t n = (size_t)x->rank - 2;

    TRM_CHECK(list(desc, "kernel_shape", n, 1, 1, kernel));
    TRM_CHECK(list(desc, "strides", n, 1, 1, stride));
    TRM_CHECK(list(desc, "pads", 2 * n, 0, -TRM_DIM_MAX, pads));
    for (int i = 0; i < 2; i++)
        p->unpooled[i] = x->dims[i];
    for (size_t i = 0; i < n; i++) {
        p->unpooled[2 + i] = (x->dims[2 + i] - 1) * stride[i] + kernel[i] - pads[i] - pads[n + i];
        if (p->unpooled[2 + i] < 1)
            return misfit(desc, "pads leave nothing of the unpooled tensor");
    }
    return TRM_OK;
}

trm_status trmi_cuda_max_unpool(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *indices = &desc->inputs[1], *y = &desc->outputs[0];
    trmi_unpool p = {.dtype = x->dtype, .rank = x->rank};
    struct unpool *k;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(x->dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    if (indices->dtype != TRM_DTYPE_I64 || !trm_tensor_same_shape(x, indices))
        return misfit(desc, "indices must be i64 of the input's shape");
    if (x->rank < 3 || y->rank != x->rank)
        return misfit(desc, "want an input and an output of one rank, 3 or more");
    TRM_CHECK(unpool_dims(desc, &p));
    p.count = trm_tensor_numel(x);
    p.out_count = trm_tensor_numel(y);
    memcpy(p.dims, y->dims, sizeof(p.dims));
    if (p.count >= INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "MaxUnpool '%s': %zu elements", desc->name, p.count);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &unpool_ops, &k));
    k->p = p;
    k->base.base.workspace_bytes = p.out_count * sizeof(uint32_t);
    *kernel_out = &k->base.base;
    return TRM_OK;
}

/* ---- CausalConvWithState ---- */

struct causal_conv {
    trmi_cuda_kernel base;
    trmi_causal_conv p;
    bool has_bias, has_past;
};

static trm_status causal_conv_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                  void *const *out, void *workspace)
{
    const struct causal_conv *c = (const struct causal_conv *)k;

    (void)workspace;
    return trmi_cuda_causal_conv_launch(&c->p, in[0], in[1], c->has_bias ? in[2] : NULL,
                                        c->has_past ? in[3] : NULL, out[0], out[1],
                                        trmi_cuda_stream(k, s));
}

static const trm_kernel_ops causal_conv_ops = {
    .name = "cuda causal conv", .run = causal_conv_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_causal_conv(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[1], *past = &desc->inputs[3];
    const char *activation = trm_attr_string(desc->attrs, "activation", "none");
    bool silu = strcmp(activation, "silu") == 0 || strcmp(activation, "swish") == 0;
    struct causal_conv *k;

    TRM_CHECK(trmi_cuda_begin(desc));
    for (int i = 0; i < 4; i++)
        if (trmi_cuda_has_input(desc, i) &&
            (!trm_dtype_is_float(x->dtype) || desc->inputs[i].dtype != x->dtype))
            return trmi_cuda_bad_dtype(desc, i, "a float, the same for all inputs");
    if (x->rank != 3 || w->rank != 3 || w->dims[0] != x->dims[1] || w->dims[1] != 1 ||
        w->dims[2] < 1)
        return misfit(desc, "want x [N, C, L] and weights [C, 1, K]");
    if (trmi_cuda_has_input(desc, 2) && (int64_t)trm_tensor_numel(&desc->inputs[2]) != x->dims[1])
        return misfit(desc, "bias must have one element a channel");
    if (trmi_cuda_has_input(desc, 3) &&
        (past->rank != 3 || past->dims[0] != x->dims[0] || past->dims[1] != x->dims[1] ||
         past->dims[2] != w->dims[2] - 1))
        return misfit(desc, "past_state must be [N, C, K - 1]");
    if (!silu && strcmp(activation, "none") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "CausalConvWithState '%s': activation '%s': supported are none, silu, "
                        "swish",
                        desc->name, activation);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &causal_conv_ops, &k));
    k->p.dtype = x->dtype;
    k->p.rows = (size_t)(x->dims[0] * x->dims[1]);
    k->p.channels = (size_t)x->dims[1];
    k->p.length = (size_t)x->dims[2];
    k->p.taps = (size_t)w->dims[2];
    k->p.silu = silu;
    k->has_bias = trmi_cuda_has_input(desc, 2);
    k->has_past = trmi_cuda_has_input(desc, 3);
    *kernel_out = &k->base.base;
    return TRM_OK;
}
