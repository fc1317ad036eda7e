/* Det: determinants of the matrices in the last two dims. */
#include "kernels/cuda/reduce_det.h"

typedef struct det_kernel {
    trmi_cuda_kernel base;
    trm_dtype dtype;
    size_t count, n;
} det_kernel;

static trm_status det_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    const det_kernel *k = (const det_kernel *)base;

    return trmi_cuda_det_run(k->dtype, k->count, k->n, in[0], out[0], workspace,
                             trmi_cuda_stream(base, s));
}

static const trm_kernel_ops det_ops = {
    .name = "cuda det", .run = det_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_det(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *in = &desc->inputs[0];
    det_kernel *k = NULL;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(in->dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    if (in->rank < 2 || in->dims[in->rank - 1] != in->dims[in->rank - 2])
        return trm_fail(TRM_ERR_INVALID_ARG, "Det '%s': the last two dims are not a square matrix",
                        desc->name);
    if (in->dims[in->rank - 1] > 46340)
        return trm_fail(TRM_ERR_UNSUPPORTED, "Det '%s': matrices of %lld rows: want 46340 at most",
                        desc->name, (long long)in->dims[in->rank - 1]);
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &det_ops, &k));
    k->dtype = in->dtype;
    k->n = (size_t)in->dims[in->rank - 1];
    k->count = trm_tensor_count(in, 0, in->rank - 2);
    k->base.base.workspace_bytes = trmi_cuda_det_workspace_bytes(k->count, k->n);
    *kernel_out = &k->base.base;
    return TRM_OK;
}
