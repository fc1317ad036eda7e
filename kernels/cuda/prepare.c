/* What prepare functions share. */
#include "kernels/cuda/cuda.h"

#include <inttypes.h>

trm_status trmi_cuda_kernel_new(trm_cuda *cuda, size_t bytes, const trm_kernel_ops *ops,
                                void *kernel_out)
{
    trmi_cuda_kernel *k = trm_calloc(1, bytes);

    if (k == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "kernel object");
    k->base.ops = ops;
    k->cuda = cuda;
    *(trmi_cuda_kernel **)kernel_out = k;
    return TRM_OK;
}

void trmi_cuda_kernel_free(trm_kernel *k)
{
    trm_free(k);
}

trm_status trmi_cuda_begin(trm_op_desc *desc)
{
    if (desc->post_count > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': post-ops on this operator",
                        trm_op_get(desc->op)->name, desc->name);
    for (int i = 0; i < desc->input_count; i++)
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
    return TRM_OK;
}

trm_status trmi_cuda_axis(const trm_op_desc *desc, int64_t axis, int rank, int *axis_out)
{
    if (axis < -rank || axis >= rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': axis %" PRId64 ": want %d to %d",
                        trm_op_get(desc->op)->name, desc->name, axis, -rank, rank - 1);
    *axis_out = (int)(axis < 0 ? axis + rank : axis);
    return TRM_OK;
}

trm_status trmi_cuda_ints(const trm_op_desc *desc, int input, int64_t *values_out, int max,
                          int *count_out)
{
    const trm_tensor *t = &desc->inputs[input];
    size_t count;

    *count_out = 0;
    if (!trmi_cuda_has_input(desc, input))
        return TRM_OK;
    count = trm_tensor_numel(t);
    if (trm_dtype_is_float(t->dtype) || count > (size_t)max)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s '%s': input %d has %zu elements of %s: want at most %d integers",
                        trm_op_get(desc->op)->name, desc->name, input, count,
                        trm_dtype_name(t->dtype), max);
    if (t->data == NULL && count > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': input %d is not known on the host",
                        trm_op_get(desc->op)->name, desc->name, input);
    for (size_t i = 0; i < count; i++)
        values_out[i] = trm_tensor_get_i64(t, i);
    *count_out = (int)count;
    return TRM_OK;
}

void trmi_cuda_strides(const trm_tensor *t, int64_t strides_out[TRM_RANK_MAX])
{
    bool last = t->layout == TRM_LAYOUT_CHANNELS_LAST && t->rank >= 2;
    int64_t step = 1;

    if (last) {
        strides_out[1] = 1;
        step = t->dims[1];
    }
    for (int d = t->rank - 1; d >= 0; d--) {
        if (last && d == 1)
            continue;
        strides_out[d] = step;
        step *= t->dims[d];
    }
}
