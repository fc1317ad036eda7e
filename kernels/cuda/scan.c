/* CumSum, CumProd: in the layout in which the input arrives, whose dims before and after the axis
 * are counted as they lie in memory. */
#include "kernels/cuda/scan.h"

typedef struct scan_kernel {
    trmi_cuda_kernel base;
    trmi_scan scan;
} scan_kernel;

static trm_status scan_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const scan_kernel *k = (const scan_kernel *)base;

    (void)workspace;
    return trmi_cuda_scan_run(&k->scan, trmi_cuda_stream(base, s), in[0], out[0]);
}

static const trm_kernel_ops scan_ops = {
    .name = "cuda scan", .run = scan_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_scan(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *in = &desc->inputs[0];
    trm_layout arrives = in->layout;
    size_t outer = 1, length = 1, inner = 1;
    int64_t strides[TRM_RANK_MAX], wanted = 0;
    int axis = 0, count = 0;
    scan_kernel *k = NULL;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (in->dtype == TRM_DTYPE_BOOL)
        return trmi_cuda_bad_dtype(desc, 0, "a number");
    TRM_CHECK(trmi_cuda_ints(desc, 1, &wanted, 1, &count));
    if (count != 1)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': axis is not one number",
                        trm_op_get(desc->op)->name, desc->name);
    if (in->rank > 0)
        TRM_CHECK(trmi_cuda_axis(desc, wanted, in->rank, &axis));
    if (arrives == TRM_LAYOUT_CHANNELS_LAST && in->rank > 2)
        in->layout = desc->outputs[0].layout = arrives;
    trmi_cuda_strides(in, strides);
    if (in->rank > 0)
        length = (size_t)in->dims[axis];
    for (int d = 0; d < in->rank; d++) {
        if (d == axis || in->dims[d] == 1)
            continue;
        if (strides[d] < strides[axis])
            inner *= (size_t)in->dims[d];
        else
            outer *= (size_t)in->dims[d];
    }
    if (length > INT32_MAX || outer > INT32_MAX || inner > INT32_MAX || outer * inner > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': %zu rows of %zu", trm_op_get(desc->op)->name,
                        desc->name, outer * inner, length);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &scan_ops, &k));
    k->scan.dtype = in->dtype;
    k->scan.product = desc->op == TRM_OP_CumProd;
    k->scan.exclusive = trm_attr_int(desc->attrs, "exclusive", 0) != 0;
    k->scan.reverse = trm_attr_int(desc->attrs, "reverse", 0) != 0;
    k->scan.outer = outer;
    k->scan.axis = length;
    k->scan.inner = inner;
    k->base.base.in_place = 1;
    *kernel_out = &k->base.base;
    return TRM_OK;
}
