/* LpNormalization, MeanVarianceNormalization: a reduction into the workspace, then a pass over the
 * elements. Both keep the layout in which the input arrives. Workspace: entries, then the
 * reduction's. */
#include "kernels/cuda/norm_axes.h"
#include "kernels/cuda/reduce.h"

typedef struct axes_kernel {
    trmi_cuda_kernel base;
    trmi_reduce reduce;
    trmi_norm_axes apply;
    size_t entry_bytes;
} axes_kernel;

static trm_status axes_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const axes_kernel *k = (const axes_kernel *)base;
    cudaStream_t stream = trmi_cuda_stream(base, s);

    if (k->apply.count == 0)
        return TRM_OK;
    TRM_CHECK(trmi_cuda_reduce_run(&k->reduce, stream, in[0], workspace,
                                   (char *)workspace + k->entry_bytes));
    return trmi_cuda_norm_axes_run(&k->apply, stream, in[0], workspace, out[0]);
}

static const trm_kernel_ops axes_ops = {
    .name = "cuda norm of axes", .run = axes_run, .destroy = trmi_cuda_kernel_free};

/* Dims of `t` as they lie in memory, merged, with the steps of the entry that they share. */
static void make_groups(trmi_norm_axes *a, const trm_tensor *t, uint32_t mask)
{
    bool last = t->layout == TRM_LAYOUT_CHANNELS_LAST, kept[TRM_RANK_MAX];
    size_t step = 1, dims[TRM_RANK_MAX], steps[TRM_RANK_MAX];
    int n = 0;

    for (int i = t->rank - 1; i >= 0; i--) { /* innermost first */
        int d = !last || i == 0 ? i : i == t->rank - 1 ? 1 : i + 1;
        bool keep = (mask >> d & 1) == 0;
        size_t dim = (size_t)t->dims[d];

        if (dim == 1)
            continue;
        if (n > 0 && kept[n - 1] == keep) {
            dims[n - 1] *= dim;
        } else {
            kept[n] = keep;
            dims[n] = dim;
            steps[n++] = keep ? step : 0;
        }
        if (keep)
            step *= dim;
    }
    a->groups = n;
    for (int g = 0; g < n; g++) {
        a->dims[g] = (uint32_t)dims[n - 1 - g];
        a->steps[g] = steps[n - 1 - g];
    }
}

static trm_status axes_prepare(trm_cuda *cuda, trm_op_desc *desc, uint32_t mask, bool moments,
                               bool absolute, trm_layout arrives, trm_kernel **kernel_out)
{
    trm_tensor *in = &desc->inputs[0];
    trm_dtype work = moments || in->dtype == TRM_DTYPE_F64 ? TRM_DTYPE_F64 : TRM_DTYPE_F32;
    axes_kernel *k = NULL;
    trm_status st;

    if (trm_tensor_numel(in) > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': %zu elements", trm_op_get(desc->op)->name,
                        desc->name, trm_tensor_numel(in));
    if (arrives == TRM_LAYOUT_CHANNELS_LAST && in->rank > 2)
        in->layout = desc->outputs[0].layout = arrives;
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &axes_ops, &k));
    k->reduce.kind = moments    ? TRMI_REDUCE_MOMENTS
                     : absolute ? TRMI_REDUCE_ABS
                                : TRMI_REDUCE_SQUARE;
    k->reduce.finish = moments || absolute ? TRMI_REDUCE_AS_IS : TRMI_REDUCE_SQRT;
    k->reduce.out = work;
    st = trmi_cuda_reduce_plan(cuda, &k->reduce, in, mask);
    if (st != TRM_OK) {
        trmi_cuda_kernel_free(&k->base.base);
        return st;
    }
    k->apply.dtype = in->dtype;
    k->apply.moments = moments;
    k->apply.count = trm_tensor_numel(in);
    make_groups(&k->apply, in, mask);
    k->entry_bytes =
        trm_align_up(k->reduce.outputs * trm_dtype_bytes(work) * (moments ? 2 : 1), TRM_ALIGN);
    k->base.base.workspace_bytes = k->entry_bytes + k->reduce.workspace_bytes;
    k->base.base.in_place = 1;
    *kernel_out = &k->base.base;
    return TRM_OK;
}

trm_status trmi_cuda_lp_norm(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_layout arrives = desc->inputs[0].layout;
    int axis = 0;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(desc->inputs[0].dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    TRM_CHECK(
        trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", -1), desc->inputs[0].rank, &axis));
    return axes_prepare(cuda, desc, 1u << axis, false, trm_attr_int(desc->attrs, "p", 2) == 1,
                        arrives, kernel_out);
}

trm_status trmi_cuda_mvn(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    static const int64_t usual[] = {0, 2, 3};
    trm_layout arrives = desc->inputs[0].layout;
    uint32_t mask = 0;
    size_t count;
    const int64_t *axes = trm_attr_ints(desc->attrs, "axes", &count);

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(desc->inputs[0].dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    if (axes == NULL) {
        axes = usual;
        count = 3;
    }
    for (size_t i = 0; i < count; i++) {
        int axis = 0;

        TRM_CHECK(trmi_cuda_axis(desc, axes[i], desc->inputs[0].rank, &axis));
        mask |= 1u << axis;
    }
    return axes_prepare(cuda, desc, mask, true, false, arrives, kernel_out);
}
