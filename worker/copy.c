/* Copies between a device's memory and pinned host memory, as kernels: steps like others. */
#include "worker/engine_impl.h"

struct copy {
    trm_kernel base;
    trm_device *device;
    size_t bytes;
};

static trm_status run_in(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                         void *workspace)
{
    const struct copy *k = (const struct copy *)base;

    (void)workspace;
    return k->device->ops->copy_in(k->device, s, out[0], in[0], k->bytes);
}

static trm_status run_out(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    const struct copy *k = (const struct copy *)base;

    (void)workspace;
    return k->device->ops->copy_out(k->device, s, out[0], in[0], k->bytes);
}

static void destroy(trm_kernel *base)
{
    trm_free(base);
}

static const trm_kernel_ops ops[TRMI_PLACES] = {
    [TRMI_DEVICE] = {.name = "copy to the device", .run = run_in, .destroy = destroy},
    [TRMI_HOST] = {.name = "copy to the host", .run = run_out, .destroy = destroy},
};

trm_status trmi_copy_prepare(trm_device *device, trmi_place to, size_t bytes,
                             trm_kernel **kernel_out)
{
    struct copy *k = trm_calloc(1, sizeof(*k));

    if (k == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "copy");
    k->base.ops = &ops[to];
    k->device = device;
    k->bytes = bytes;
    *kernel_out = &k->base;
    return TRM_OK;
}
