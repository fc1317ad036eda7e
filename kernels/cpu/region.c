/* DeformConv, MaxRoiPool, MaxUnpool, CausalConvWithState: checks, then the reference. */
#include "kernels/cpu/scalar.h"
#include "kernels/reference/region.h"

#include <string.h>

static trm_status misfit(const trm_op_desc *desc, const char *what)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %s", trm_op_get(desc->op)->name,
                    desc->name == NULL ? "" : desc->name, what);
}

static bool absent(const trm_op_desc *desc, int i)
{
    return i >= desc->input_count || desc->inputs[i].dtype == TRM_DTYPE_NONE;
}

trm_status trmi_cpu_deform_conv(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[1], *offset = &desc->inputs[2];
    const trm_tensor *y = &desc->outputs[0];
    int64_t group = trm_attr_int(desc->attrs, "group", 1), taps;
    int64_t offsets = trm_attr_int(desc->attrs, "offset_group", 1);
    trmi_scalar_kernel *k = NULL;
    trm_window window;

    (void)cpu;
    for (int i = 0; i < 5; i++)
        TRM_CHECK(trmi_want_dtype(desc, i, trmi_floats));
    if (x->rank != 4 || w->rank != 4 || offset->rank != 4 || y->rank != 4)
        return trm_fail(TRM_ERR_UNSUPPORTED, "DeformConv of rank %d: supported is 4", x->rank);
    taps = w->dims[2] * w->dims[3];
    if (group < 1 || offsets < 1 || x->dims[1] % group != 0 || w->dims[0] % group != 0 ||
        w->dims[1] * group != x->dims[1] || x->dims[1] % offsets != 0)
        return misfit(desc, "groups do not divide the channels");
    if (offset->dims[0] != x->dims[0] || offset->dims[1] != offsets * taps * 2 ||
        offset->dims[2] != y->dims[2] || offset->dims[3] != y->dims[3])
        return misfit(desc, "offset must be [N, offset_group * kH * kW * 2, outH, outW]");
    if (!absent(desc, 4) && trm_tensor_numel(&desc->inputs[4]) * 2 != trm_tensor_numel(offset))
        return misfit(desc, "mask must be [N, offset_group * kH * kW, outH, outW]");
    if (!absent(desc, 3) && (int64_t)trm_tensor_numel(&desc->inputs[3]) != w->dims[0])
        return misfit(desc, "bias must have one element a filter");
    TRM_CHECK(trm_window_parse(desc->attrs, w->dims + 2, x, y, false, &window));
    TRM_CHECK(trmi_scalar_new(desc, trm_deform_conv_reference, trm_tensor_numel(y),
                              5 * trm_tensor_count(w, 1, 4), &k));
    k->ref.window = window;
    k->ref.group = group;
    k->ref.i[0] = offsets;
    *kernel_out = &k->base;
    return TRM_OK;
}

trm_status trmi_cpu_max_roi_pool(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *rois = &desc->inputs[1], *y = &desc->outputs[0];
    trmi_scalar_kernel *k = NULL;

    (void)cpu;
    TRM_CHECK(trmi_want_dtype(desc, 0, trmi_floats));
    TRM_CHECK(trmi_want_dtype(desc, 1, trmi_floats));
    if (x->rank != 4 || rois->rank != 2 || rois->dims[1] != 5 || y->rank != 4 ||
        y->dims[0] != rois->dims[0] || y->dims[1] != x->dims[1])
        return misfit(desc, "want x [N, C, H, W] and rois [R, 5]");
    TRM_CHECK(trmi_scalar_new(desc, trm_max_roi_pool_reference, trm_tensor_numel(y), 100, &k));
    k->ref.f[0] = (double)trm_attr_float(desc->attrs, "spatial_scale", 1.0f);
    *kernel_out = &k->base;
    return TRM_OK;
}

trm_status trmi_cpu_max_unpool(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *indices = &desc->inputs[1], *y = &desc->outputs[0];
    trmi_scalar_kernel *k = NULL;
    trm_window w;

    (void)cpu;
    TRM_CHECK(trmi_want_dtype(desc, 0, trmi_floats));
    if (indices->dtype != TRM_DTYPE_I64 || !trm_tensor_same_shape(x, indices))
        return misfit(desc, "indices must be i64 of the input's shape");
    TRM_CHECK(trm_window_parse(desc->attrs, NULL, x, y, false, &w));
    for (int i = 0; i < w.spatial; i++) {
        w.out[i] = (w.in[i] - 1) * w.stride[i] + w.kernel[i] - w.pad_begin[i] - w.pad_end[i];
        if (w.out[i] < 1)
            return misfit(desc, "pads leave nothing of the unpooled tensor");
    }
    TRM_CHECK(trmi_scalar_new(desc, trm_max_unpool_reference, 1, 1, &k));
    k->ref.window = w;
    *kernel_out = &k->base;
    return TRM_OK;
}

trm_status trmi_cpu_causal_conv(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *w = &desc->inputs[1];
    const char *activation = trm_attr_string(desc->attrs, "activation", "none");
    bool silu = strcmp(activation, "silu") == 0 || strcmp(activation, "swish") == 0;
    trmi_scalar_kernel *k = NULL;

    (void)cpu;
    for (int i = 0; i < 4; i++)
        TRM_CHECK(trmi_want_dtype(desc, i, trmi_floats));
    if (x->rank != 3 || w->rank != 3 || w->dims[0] != x->dims[1] || w->dims[1] != 1 ||
        w->dims[2] < 1)
        return misfit(desc, "want x [N, C, L] and weights [C, 1, K]");
    if (!absent(desc, 3) &&
        (desc->inputs[3].rank != 3 || desc->inputs[3].dims[0] != x->dims[0] ||
         desc->inputs[3].dims[1] != x->dims[1] || desc->inputs[3].dims[2] != w->dims[2] - 1))
        return misfit(desc, "past_state must be [N, C, K - 1]");
    if (!silu && strcmp(activation, "none") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "CausalConvWithState: activation '%s': supported are "
                        "none, silu, swish",
                        activation);
    TRM_CHECK(trmi_scalar_new(desc, trm_causal_conv_reference, (size_t)(x->dims[0] * x->dims[1]),
                              (size_t)(x->dims[2] * w->dims[2]), &k));
    k->ref.b[0] = silu;
    *kernel_out = &k->base;
    return TRM_OK;
}
