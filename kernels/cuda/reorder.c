/* Conversions between layouts (PLAIN, CHANNELS_LAST) and float dtypes of one logical tensor. */
#include "kernels/cuda/reorder.h"

struct reorder {
    trmi_cuda_kernel base;
    trm_dtype from, to;
    bool flat;
    size_t batch, rows, columns; /* flat: columns elements */
};

static trm_status reorder_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                              void *workspace)
{
    const struct reorder *r = (const struct reorder *)k;
    cudaStream_t stream = trmi_cuda_stream(k, s);

    (void)workspace;
    if (r->flat)
        return trmi_cuda_reorder_flat(r->base.cuda, stream, out[0], r->to, in[0], r->from,
                                      r->columns);
    return trmi_cuda_reorder_transpose(r->base.cuda, stream, out[0], r->to, in[0], r->from,
                                       r->batch, r->rows, r->columns);
}

static const trm_kernel_ops reorder_ops = {
    .name = "reorder", .run = reorder_run, .destroy = trmi_cuda_kernel_free};

trm_status trmi_cuda_prepare_reorder(trm_device *d, const trm_tensor *from, const trm_tensor *to,
                                     trm_kernel **kernel_out)
{
    struct reorder *r;
    size_t n;

    if (!trm_tensor_same_shape(from, to))
        return trm_fail(TRM_ERR_INVALID_ARG, "reorder: the shapes differ");
    TRM_CHECK(trm_tensor_elems(from, &n));
    if (from->layout > TRM_LAYOUT_CHANNELS_LAST || to->layout > TRM_LAYOUT_CHANNELS_LAST)
        return trm_fail(TRM_ERR_UNSUPPORTED, "reorder: blocked layouts are the CPU's");
    if (from->rank < 3 && (from->layout != TRM_LAYOUT_PLAIN || to->layout != TRM_LAYOUT_PLAIN))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "reorder: layouts other than plain need rank 3, not %d", from->rank);
    if (from->dtype != to->dtype &&
        !(trm_dtype_is_float(from->dtype) && trm_dtype_is_float(to->dtype)))
        return trm_fail(TRM_ERR_UNSUPPORTED, "reorder: %s to %s: want floats, or one dtype",
                        trm_dtype_name(from->dtype), trm_dtype_name(to->dtype));
    TRM_CHECK(trmi_cuda_kernel_new((trm_cuda *)d, sizeof(*r), &reorder_ops, &r));
    r->from = from->dtype;
    r->to = to->dtype;
    r->columns = n;
    r->flat = true;
    if (from->layout != to->layout && n > 0) {
        size_t channels = (size_t)from->dims[1], space = trm_tensor_count(from, 2, from->rank);

        r->flat = channels == 1 || space == 1;
        r->batch = (size_t)from->dims[0];
        if (!r->flat) {
            bool last = from->layout == TRM_LAYOUT_CHANNELS_LAST;

            r->rows = last ? space : channels;
            r->columns = last ? channels : space;
        }
    }
    *kernel_out = &r->base.base;
    return TRM_OK;
}
