/* Conversions between layouts and dtypes of one logical tensor: oneDNN where it knows both dtypes,
 * else a walk over the elements. */
#include "kernels/cpu/dnnl_util.h"

#include <string.h>

typedef struct walk_kernel {
    trm_kernel base;
    trm_tensor from, to; /* data: set by run */
} walk_kernel;

/* Element offset of (n, c, s) in a layout; s counts the spatial positions. */
static size_t offset_of(trm_layout layout, size_t n, size_t c, size_t s, size_t channels,
                        size_t space)
{
    size_t block = layout == TRM_LAYOUT_BLOCK8 ? 8 : 16;

    switch (layout) {
    case TRM_LAYOUT_PLAIN:
        return (n * channels + c) * space + s;
    case TRM_LAYOUT_CHANNELS_LAST:
        return (n * space + s) * channels + c;
    default:
        return ((n * ((channels + block - 1) / block) + c / block) * space + s) * block + c % block;
    }
}

static void walk_range(void *ctx, size_t begin, size_t end)
{
    walk_kernel *k = ctx;
    const trm_tensor *from = &k->from;
    trm_tensor *to = &k->to;
    size_t size = trm_dtype_bytes(from->dtype);
    bool same = from->dtype == to->dtype;
    size_t channels = from->rank > 1 ? (size_t)from->dims[1] : 1;
    size_t space = from->rank > 2 ? trm_tensor_count(from, 2, from->rank) : 1;

    for (size_t i = begin; i < end; i++) {
        size_t n = i / channels, c = i % channels;

        for (size_t s = 0; s < space; s++) {
            size_t a = offset_of(from->layout, n, c, s, channels, space);
            size_t b = offset_of(to->layout, n, c, s, channels, space);

            if (same)
                memcpy((char *)to->data + b * size, (const char *)from->data + a * size, size);
            else if (trm_dtype_is_float(from->dtype) || trm_dtype_is_float(to->dtype))
                trm_tensor_set_f64(to, b, trm_tensor_get_f64(from, a));
            else
                trm_tensor_set_i64(to, b, trm_tensor_get_i64(from, a));
        }
    }
}

static trm_status walk_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    walk_kernel *k = (walk_kernel *)base;
    size_t bytes;

    (void)s;
    (void)workspace;
    k->from.data = (void *)(uintptr_t)in[0]; /* only read */
    k->to.data = out[0];
    if (k->to.layout >= TRM_LAYOUT_BLOCK8) { /* padding is zero */
        TRM_CHECK(trm_tensor_bytes(&k->to, &bytes));
        memset(out[0], 0, bytes);
    }
    if (k->from.rank < 2)
        trm_team_for(trm_tensor_numel(&k->from), 4096, walk_range, k);
    else
        trm_team_for(trm_tensor_count(&k->from, 0, 2),
                     1 + 4096 / (1 + trm_tensor_count(&k->from, 2, k->from.rank)), walk_range, k);
    return TRM_OK;
}

static const trm_kernel_ops walk_ops = {
    .name = "reorder walk", .run = walk_run, .destroy = trmi_kernel_free};

static trm_status walk_prepare(const trm_tensor *from, const trm_tensor *to,
                               trm_kernel **kernel_out)
{
    walk_kernel *k = NULL;

    TRM_CHECK(trmi_kernel_new(sizeof(*k), &walk_ops, &k));
    k->from = *from;
    k->to = *to;
    if (from->layout == TRM_LAYOUT_PLAIN &&
        to->layout == TRM_LAYOUT_PLAIN) { /* one long row: any rank, splits well */
        k->from.rank = k->to.rank = 1;
        k->from.dims[0] = k->to.dims[0] = (int64_t)trm_tensor_numel(from);
    }
    *kernel_out = &k->base;
    return TRM_OK;
}

trm_status trmi_cpu_prepare_reorder(trm_device *d, const trm_tensor *from, const trm_tensor *to,
                                    trm_kernel **kernel_out)
{
    trm_cpu *cpu = (trm_cpu *)d;
    trmi_dnnl_kernel *k = NULL;
    dnnl_memory_desc_t a, b;
    trm_tensor flat_from = *from, flat_to = *to;
    trm_status st;

    if (!trm_tensor_same_shape(from, to))
        return trm_fail(TRM_ERR_INTERNAL, "reorder between different shapes");
    if (from->rank < 3 && (from->layout != TRM_LAYOUT_PLAIN || to->layout != TRM_LAYOUT_PLAIN))
        return trm_fail(TRM_ERR_INTERNAL, "layouts other than plain need rank 3, not %d",
                        from->rank);
    if (trmi_dnnl_dtype(from->dtype) == dnnl_data_type_undef ||
        trmi_dnnl_dtype(to->dtype) == dnnl_data_type_undef || trm_tensor_numel(from) == 0)
        return walk_prepare(from, to, kernel_out);
    if (from->layout == TRM_LAYOUT_PLAIN && to->layout == TRM_LAYOUT_PLAIN) {
        flat_from.rank = flat_to.rank = 1;
        flat_from.dims[0] = flat_to.dims[0] = (int64_t)trm_tensor_numel(from);
    }
    if (trmi_dnnl_md(&flat_from, from->layout, &a) != TRM_OK ||
        trmi_dnnl_md(&flat_to, to->layout, &b) != TRM_OK)
        return walk_prepare(from, to, kernel_out);
    TRM_CHECK(trmi_dnnl_kernel_new(cpu, &k));
    st = trmi_dnnl_step_reorder(k, &a, trmi_bind_input(0), &b, trmi_bind_output(0));
    if (st != TRM_OK) {
        trmi_dnnl_kernel_destroy(&k->base);
        return st == TRM_ERR_UNSUPPORTED ? walk_prepare(from, to, kernel_out) : st;
    }
    *kernel_out = &k->base;
    return TRM_OK;
}
