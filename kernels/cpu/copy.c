/* Operators whose output is input 0's elements in the same order: Reshape, Flatten, Squeeze,
 * Unsqueeze, BitCast. The executor usually aliases them; this kernel serves constant folding and
 * outputs that may not alias. */
#include "kernels/cpu/data.h"

struct flat_copy {
    trm_kernel base;
    size_t bytes;
};

static trm_status flat_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    (void)s;
    (void)workspace;
    trmi_copy_flat(in[0], out[0], ((struct flat_copy *)k)->bytes);
    return TRM_OK;
}

static const trm_kernel_ops flat_ops = {
    .name = "copy", .run = flat_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_flat_copy(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    struct flat_copy *k;
    size_t in_bytes, out_bytes;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trm_tensor_bytes(&desc->inputs[0], &in_bytes));
    TRM_CHECK(trm_tensor_bytes(&desc->outputs[0], &out_bytes));
    if (in_bytes != out_bytes)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu bytes in, %zu bytes out",
                        trm_op_get(desc->op)->name, desc->name, in_bytes, out_bytes);
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &flat_ops, &k));
    k->bytes = in_bytes;
    k->base.in_place = desc->inputs[0].dtype == desc->outputs[0].dtype &&
                       trm_tensor_same_shape(&desc->inputs[0], &desc->outputs[0]);
    *kernel_out = &k->base;
    return TRM_OK;
}
