/* Cast, CastLike: a conversion. BitCast, Identity, Dropout at inference: the same bytes. Any layout
 * passes through. */
#include "kernels/cuda/cast.h"

typedef struct cast_kernel {
    trmi_cuda_kernel base;
    trm_dtype from, to;
    size_t elems, bytes;
    size_t mask_elems; /* Dropout's second output */
} cast_kernel;

static trm_status cast_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const cast_kernel *k = (const cast_kernel *)base;

    (void)workspace;
    return trmi_cuda_cast(k->base.cuda, trmi_cuda_stream(base, s), k->to, out[0], k->from, in[0],
                          k->elems);
}

static trm_status copy_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    const cast_kernel *k = (const cast_kernel *)base;
    trm_cuda *cuda = k->base.cuda;

    (void)workspace;
    if (out[0] != NULL && out[0] != in[0] && k->bytes > 0)
        TRM_CHECK(cuda->base.ops->copy_within(&cuda->base, s, out[0], in[0], k->bytes));
    if (k->mask_elems > 0 && out[1] != NULL)
        TRM_CHECK(trmi_cuda_fill_true(cuda, trmi_cuda_stream(base, s), out[1], k->mask_elems));
    return TRM_OK;
}

static const trm_kernel_ops cast_ops = {
    .name = "cast", .run = cast_run, .destroy = trmi_cuda_kernel_free};
static const trm_kernel_ops copy_ops = {
    .name = "copy", .run = copy_run, .destroy = trmi_cuda_kernel_free};

/* Training needs random numbers: training_mode must be known to be off, or the ratio to be 0. */
static trm_status check_inference(const trm_op_desc *desc)
{
    const trm_tensor *ratio = &desc->inputs[1], *training = &desc->inputs[2];

    if (!trmi_cuda_has_input(desc, 2))
        return TRM_OK;
    if (training->data != NULL && trm_tensor_get_i64(training, 0) == 0)
        return TRM_OK;
    if (trmi_cuda_has_input(desc, 1) && ratio->data != NULL && trm_tensor_get_f64(ratio, 0) == 0)
        return TRM_OK;
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "Dropout '%s': training_mode is set or not constant: only inference is "
                    "supported",
                    desc->name);
}

trm_status trmi_cuda_prepare_cast(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_layout layout = desc->inputs[0].layout;
    bool convert = desc->op == TRM_OP_Cast || desc->op == TRM_OP_CastLike;
    trm_dtype from = desc->inputs[0].dtype, to = desc->outputs[0].dtype;
    cast_kernel *k = NULL;
    size_t bytes;

    TRM_CHECK(trmi_cuda_begin(desc));
    desc->inputs[0].layout = layout;
    desc->outputs[0].layout = layout;
    if (desc->op == TRM_OP_Dropout)
        TRM_CHECK(check_inference(desc));
    TRM_CHECK(trm_tensor_bytes(&desc->inputs[0], &bytes));
    convert = convert && from != to;
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), convert ? &cast_ops : &copy_ops, &k));
    k->from = from;
    k->to = to;
    k->bytes = bytes;
    k->elems = bytes / trm_dtype_bytes(from);
    if (!convert && from == to)
        k->base.base.in_place = 1;
    if (desc->op == TRM_OP_Dropout && trmi_cuda_has_output(desc, 1))
        k->mask_elems = trm_tensor_numel(&desc->outputs[1]);
    *kernel_out = &k->base.base;
    return TRM_OK;
}
