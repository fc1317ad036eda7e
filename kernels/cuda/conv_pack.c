/* Constants of convolutions on the device: weights in another order (which a kernel does, from a
 * plain copy that is freed again), and numbers a channel. */
#include "kernels/cuda/conv_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void trmi_cuda_conv_direct_order(trmi_conv_kernel *k, const trm_op_desc *desc)
{
    const trmi_conv_shape *s = &k->shape;
    const size_t taps = (size_t)s->kernel[0] * (size_t)s->kernel[1] * (size_t)s->kernel[2];
    const size_t cg = (size_t)(s->channels / s->group), mg = (size_t)(s->filters / s->group);
    trmi_conv_arrange *a = &k->arrange;

    *a = (trmi_conv_arrange){.dims = {taps, cg, 1, (size_t)s->filters},
                             .strides = {1, taps, 0, cg * taps},
                             .valid = (size_t)s->filters,
                             .from = desc->inputs[1].dtype,
                             .to = k->dtype};
    if (s->transposed) /* from [channels, filters / group, taps] */
        *a = (trmi_conv_arrange){.dims = {taps, cg, (size_t)s->group, mg},
                                 .strides = {1, mg * taps, cg * mg * taps, taps},
                                 .valid = mg,
                                 .from = desc->inputs[1].dtype,
                                 .to = k->dtype};
}

static trm_status arrange(trm_cuda *cuda, const trm_tensor *t, const trmi_conv_arrange *a, void *to)
{
    trm_device *d = &cuda->base;
    void *plain = NULL;
    size_t bytes;
    trm_status st;

    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    TRM_CHECK(d->ops->alloc(d, TRM_MEMORY_DEVICE, bytes, &plain));
    TRM_TRY(st, trmi_cuda_upload(cuda, plain, t->data, bytes), done);
    TRM_TRY(st, trmi_cuda_conv_arrange(cuda->stream, a, plain, to), done);
    st = TRMI_CUDA(cudaStreamSynchronize(cuda->stream));
done:
    d->ops->free(d, TRM_MEMORY_DEVICE, plain);
    return st;
}

static uint64_t key_of(const trm_op_desc *desc, int input)
{
    return desc->weight_keys == NULL ? 0 : desc->weight_keys[input];
}

trm_status trmi_cuda_conv_pack(trm_cuda *cuda, const trm_op_desc *desc, int input,
                               const trmi_conv_arrange *a, trmi_pack **pack_out)
{
    size_t bytes = trm_dtype_bytes(a->to), n = 0;
    trmi_pack *p = NULL;
    char form[256];
    bool found;
    trm_status st;

    n = (size_t)snprintf(form, sizeof(form), "order %s %u %d", trm_dtype_name(a->to), a->flip,
                         a->split);
    for (int i = 0; i < 4; i++) {
        bytes *= a->dims[i];
        n += (size_t)snprintf(form + n, sizeof(form) - n, " %zu*%zu", a->dims[i], a->strides[i]);
    }
    snprintf(form + n, sizeof(form) - n, " of %zu", a->valid);
    TRM_CHECK(trmi_cuda_pack(cuda, key_of(desc, input), form, bytes, &p, &found));
    if (!found) {
        st = arrange(cuda, &desc->inputs[input], a, p->memory);
        if (st != TRM_OK) {
            trmi_cuda_pack_release(cuda, p);
            return st;
        }
    }
    *pack_out = p;
    return TRM_OK;
}

trm_status trmi_cuda_conv_pack_channels(trm_cuda *cuda, const trm_op_desc *desc, int input,
                                        int filters, trm_dtype dtype, trmi_pack **pack_out)
{
    const trm_tensor *t = &desc->inputs[input];
    const size_t bytes = (size_t)filters * trm_dtype_bytes(dtype);
    const bool one = trm_tensor_numel(t) == 1;
    trm_tensor wide = {.dtype = dtype, .rank = 1, .dims = {filters}};
    trmi_pack *p = NULL;
    char form[64];
    bool found;
    trm_status st = TRM_OK;

    snprintf(form, sizeof(form), "channels %s %d", trm_dtype_name(dtype), filters);
    TRM_CHECK(trmi_cuda_pack(cuda, key_of(desc, input), form, bytes, &p, &found));
    if (!found) {
        wide.data = trm_malloc((size_t)filters, trm_dtype_bytes(dtype));
        if (wide.data == NULL && filters > 0) {
            trmi_cuda_pack_release(cuda, p);
            return trm_fail(TRM_ERR_NO_MEMORY, "packed constants");
        }
        for (size_t i = 0; i < (size_t)filters; i++)
            trm_tensor_set_f64(&wide, i, trm_tensor_get_f64(t, one ? 0 : i));
        st = trmi_cuda_upload(cuda, p->memory, wide.data, bytes);
        trm_free(wide.data);
    }
    if (st != TRM_OK) {
        trmi_cuda_pack_release(cuda, p);
        return st;
    }
    *pack_out = p;
    return TRM_OK;
}
