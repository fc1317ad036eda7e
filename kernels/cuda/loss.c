/* NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss. */
#include "kernels/cuda/loss.h"

typedef struct loss_kernel {
    trmi_cuda_kernel base;
    trmi_loss loss;
    bool want_logs;
} loss_kernel;

static trm_status loss_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const loss_kernel *k = (const loss_kernel *)base;

    return trmi_cuda_loss_run(&k->loss, trmi_cuda_stream(base, s), in[0], in[1],
                              k->loss.weight != TRM_DTYPE_NONE ? in[2] : NULL, out[0],
                              k->want_logs ? out[1] : NULL, workspace);
}

static const trm_kernel_ops loss_ops = {
    .name = "cuda loss", .run = loss_run, .destroy = trmi_cuda_kernel_free};

static trm_status check(const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[0], *target = &desc->inputs[1];

    if (!trm_dtype_is_float(x->dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    if (target->dtype != TRM_DTYPE_I32 && target->dtype != TRM_DTYPE_I64)
        return trmi_cuda_bad_dtype(desc, 1, "i32 or i64");
    if (trmi_cuda_has_input(desc, 2) && !trm_dtype_is_float(desc->inputs[2].dtype))
        return trmi_cuda_bad_dtype(desc, 2, "a float");
    if (!trm_dtype_is_float(desc->outputs[0].dtype))
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': output 0 is no float",
                        trm_op_get(desc->op)->name, desc->name);
    if (x->rank < 2 || trm_tensor_numel(target) * (size_t)x->dims[1] != trm_tensor_numel(x))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': targets do not fit scores [N, C, ...]",
                        trm_op_get(desc->op)->name, desc->name);
    if (trmi_cuda_has_input(desc, 2) && trm_tensor_numel(&desc->inputs[2]) != (size_t)x->dims[1])
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu class weights: want %lld",
                        trm_op_get(desc->op)->name, desc->name, trm_tensor_numel(&desc->inputs[2]),
                        (long long)x->dims[1]);
    if (trm_tensor_numel(target) > INT32_MAX || x->dims[1] > INT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': %zu positions", trm_op_get(desc->op)->name,
                        desc->name, trm_tensor_numel(target));
    return TRM_OK;
}

trm_status trmi_cuda_loss(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    const char *how = trm_attr_string(desc->attrs, "reduction", "mean");
    loss_kernel *k = NULL;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(check(desc));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &loss_ops, &k));
    k->loss.x = x->dtype;
    k->loss.target = desc->inputs[1].dtype;
    k->loss.out = desc->outputs[0].dtype;
    k->loss.weight = trmi_cuda_has_input(desc, 2) ? desc->inputs[2].dtype : TRM_DTYPE_NONE;
    k->loss.reduction = how[0] == 'n'   ? TRMI_LOSS_NONE
                        : how[0] == 's' ? TRMI_LOSS_SUM
                                        : TRMI_LOSS_MEAN;
    k->loss.softmax = desc->op == TRM_OP_SoftmaxCrossEntropyLoss;
    k->loss.has_ignore = trm_attr_find(desc->attrs, "ignore_index") != NULL;
    k->loss.ignore = trm_attr_int(desc->attrs, "ignore_index", 0);
    k->want_logs = k->loss.softmax && trmi_cuda_has_output(desc, 1);
    k->loss.n = (size_t)x->dims[0];
    k->loss.classes = (size_t)x->dims[1];
    k->loss.d = trm_tensor_count(x, 2, x->rank);
    k->base.base.workspace_bytes = trmi_cuda_loss_workspace_bytes(&k->loss);
    *kernel_out = &k->base.base;
    return TRM_OK;
}
