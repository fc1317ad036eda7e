/* Softmax, LogSoftmax, Hardmax: any axis, in any layout: the dims before and after the axis are
 * counted as they lie in memory. Attribute flatten = 1 (the semantics before opset 13): all dims
 * from the axis on are one, which wants PLAIN. */
#include "kernels/cuda/softmax.h"

typedef struct softmax_kernel {
    trmi_cuda_kernel base;
    trmi_softmax_kind kind;
    trm_dtype dtype;
    size_t outer, axis, inner;
} softmax_kernel;

static trm_status softmax_run(trm_kernel *base, trm_stream *s, const void *const *in,
                              void *const *out, void *workspace)
{
    const softmax_kernel *k = (const softmax_kernel *)base;

    (void)workspace;
    return trmi_cuda_softmax_run(k->kind, k->dtype, k->outer, k->axis, k->inner, in[0], out[0],
                                 k->base.cuda->multiprocessors, trmi_cuda_stream(base, s));
}

static const trm_kernel_ops softmax_ops = {
    .name = "cuda softmax", .run = softmax_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_softmax(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *in = &desc->inputs[0];
    bool flatten = trm_attr_int(desc->attrs, "flatten", 0) != 0;
    trm_layout arrives = in->layout;
    softmax_kernel *k = NULL;
    int64_t strides[TRM_RANK_MAX];
    size_t outer = 1, length = 1, inner = 1;
    int axis = 0;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(in->dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    if (in->rank > 0)
        TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", flatten ? 1 : -1),
                                 flatten ? in->rank + 1 : in->rank, &axis));
    if (arrives == TRM_LAYOUT_CHANNELS_LAST && in->rank > 2 && !flatten)
        in->layout = desc->outputs[0].layout = arrives;
    if (flatten) {
        outer = trm_tensor_count(in, 0, axis);
        length = trm_tensor_count(in, axis, in->rank);
    } else if (in->rank > 0) {
        trmi_cuda_strides(in, strides);
        length = (size_t)in->dims[axis];
        for (int d = 0; d < in->rank; d++) {
            if (d == axis || in->dims[d] == 1)
                continue;
            if (strides[d] < strides[axis])
                inner *= (size_t)in->dims[d];
            else
                outer *= (size_t)in->dims[d];
        }
    }
    if (outer > INT32_MAX || inner > INT32_MAX || length > INT32_MAX || outer * inner > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': %zu rows of %zu", trm_op_get(desc->op)->name,
                        desc->name, outer * inner, length);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &softmax_ops, &k));
    k->kind = desc->op == TRM_OP_Softmax      ? TRMI_SOFTMAX
              : desc->op == TRM_OP_LogSoftmax ? TRMI_LOG_SOFTMAX
                                              : TRMI_HARDMAX;
    k->dtype = in->dtype;
    k->outer = outer;
    k->axis = length;
    k->inner = inner;
    k->base.base.in_place = 1;
    *kernel_out = &k->base.base;
    return TRM_OK;
}
