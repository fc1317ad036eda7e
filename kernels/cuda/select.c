/* TopK. */
#include "kernels/cuda/select.h"

#include <inttypes.h>

struct topk {
    trmi_cuda_kernel base;
    trmi_topk t;
};

static trm_status topk_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const struct topk *t = (const struct topk *)k;

    return trmi_cuda_topk_launch(t->base.cuda, &t->t, in[0], out[0], out[1], workspace,
                                 trmi_cuda_stream(k, s));
}

static const trm_kernel_ops topk_ops = {
    .name = "cuda topk", .run = topk_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_topk(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t k = 0;
    struct topk *t;
    int count, axis;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_ints(desc, 1, &k, 1, &count));
    TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", -1), x->rank, &axis));
    if (count != 1 || k < 0 || k > x->dims[axis])
        return trm_fail(TRM_ERR_INVALID_ARG, "TopK '%s': k is %" PRId64 ", want 0 to %" PRId64,
                        desc->name, k, x->dims[axis]);
    if (x->dims[axis] > INT32_MAX || trm_dtype_bytes(x->dtype) == 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TopK '%s': %" PRId64 " of %s", desc->name,
                        x->dims[axis], trm_dtype_name(x->dtype));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*t), &topk_ops, &t));
    t->t.dtype = x->dtype;
    t->t.outer = trm_tensor_count(x, 0, axis);
    t->t.n = (uint32_t)x->dims[axis];
    t->t.inner = trm_tensor_count(x, axis + 1, x->rank);
    t->t.k = (uint32_t)k;
    t->t.smallest = trm_attr_int(desc->attrs, "largest", 1) == 0;
    t->base.base.workspace_bytes = k == 0 ? 0 : trmi_topk_workspace(&t->t);
    *kernel_out = &t->base.base;
    return TRM_OK;
}
