/* MaxPool, AveragePool, LpPool and their Global forms, in the layout that the input arrives in. */
#include "kernels/cuda/pool.h"

#include "kernels/reference/window.h"

#include <limits.h>
#include <string.h>

typedef struct pool_kernel {
    trmi_cuda_kernel base;
    trmi_pool pool;
    trm_dtype dtype;
    bool global, indices;
} pool_kernel;

static trm_status pool_run(trm_kernel *kernel, trm_stream *s, const void *const *in,
                           void *const *out, void *workspace)
{
    const pool_kernel *k = (const pool_kernel *)kernel;
    cudaStream_t stream = trmi_cuda_stream(kernel, s);

    (void)workspace;
    if (k->global)
        return trmi_cuda_pool_global(stream, &k->pool, k->dtype, in[0], out[0]);
    return trmi_cuda_pool(stream, &k->pool, k->dtype, in[0], out[0], k->indices ? out[1] : NULL);
}

static const trm_kernel_ops pool_ops = {
    .name = "pool", .run = pool_run, .destroy = trmi_cuda_kernel_free};
static const trm_kernel_ops global_ops = {
    .name = "global pool", .run = pool_run, .destroy = trmi_cuda_kernel_free};

static bool is_global(trm_op op)
{
    return op == TRM_OP_GlobalAveragePool || op == TRM_OP_GlobalMaxPool ||
           op == TRM_OP_GlobalLpPool;
}

static trm_status check_dtype(const trm_op_desc *desc, bool is_max)
{
    trm_dtype t = desc->inputs[0].dtype;

    if (trm_dtype_is_float(t) || (is_max && (t == TRM_DTYPE_I8 || t == TRM_DTYPE_U8)))
        return TRM_OK;
    return trmi_cuda_bad_dtype(desc, 0, is_max ? "a float, i8 or u8" : "a float");
}

/* A window as 3 dims. */
static trm_status pool_of(const trm_op_desc *desc, const trm_window *w, trmi_pool *p)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    const int lead = 3 - w->spatial;

    if (lead < 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': %d spatial dims: want at most 3",
                        trm_op_get(desc->op)->name, desc->name, w->spatial);
    for (int i = 0; i < x->rank; i++)
        if (x->dims[i] > INT_MAX / 4 || y->dims[i] > INT_MAX / 4)
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': a dim of more than 29 bits",
                            trm_op_get(desc->op)->name, desc->name);
    p->batch = (int)x->dims[0];
    p->channels = (int)x->dims[1];
    for (int i = 0; i < 3; i++) {
        int d = i - lead;

        p->in[i] = p->out[i] = p->kernel[i] = p->stride[i] = p->dilation[i] = 1;
        if (d < 0)
            continue;
        if (w->kernel[d] * w->dilation[d] > INT_MAX / 4 || w->out[d] * w->stride[d] > INT_MAX / 4 ||
            w->pad_begin[d] > INT_MAX / 4 || w->pad_begin[d] < -INT_MAX / 4 ||
            w->pad_end[d] > INT_MAX / 4 || w->pad_end[d] < -INT_MAX / 4)
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': a window of more than 29 bits",
                            trm_op_get(desc->op)->name, desc->name);
        p->in[i] = (int)w->in[d];
        p->out[i] = (int)w->out[d];
        p->kernel[i] = (int)w->kernel[d];
        p->stride[i] = (int)w->stride[d];
        p->dilation[i] = (int)w->dilation[d];
        p->pad[i] = (int)w->pad_begin[d];
        p->pad_end[i] = (int)w->pad_end[d];
    }
    return TRM_OK;
}

/* The window is the whole input. */
static bool covers(const trmi_pool *p)
{
    for (int i = 0; i < 3; i++)
        if (p->kernel[i] != p->in[i] || p->out[i] != 1 || p->pad[i] != 0 || p->pad_end[i] != 0 ||
            (p->dilation[i] != 1 && p->kernel[i] != 1))
            return false;
    return true;
}

trm_status trmi_cuda_prepare_pool(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    const bool is_max = desc->op == TRM_OP_MaxPool || desc->op == TRM_OP_GlobalMaxPool;
    const bool is_lp = desc->op == TRM_OP_LpPool || desc->op == TRM_OP_GlobalLpPool;
    const bool last = x->layout == TRM_LAYOUT_CHANNELS_LAST;
    const int64_t power = trm_attr_int(desc->attrs, "p", 2);
    trm_window window;
    trmi_pool p = {.mode = is_max ? TRMI_POOL_MAX : is_lp ? TRMI_POOL_LP : TRMI_POOL_AVERAGE};
    pool_kernel *k;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(check_dtype(desc, is_max));
    if (is_global(desc->op))
        TRM_CHECK(trm_window_parse(NULL, x->dims + 2, x, y, false, &window));
    else
        TRM_CHECK(trm_window_parse(desc->attrs, NULL, x, y, false, &window));
    if (is_lp && (power < 1 || power > INT_MAX))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': p is not positive",
                        trm_op_get(desc->op)->name, desc->name);
    TRM_CHECK(pool_of(desc, &window, &p));
    p.channels_last = last;
    p.include_pad = !is_global(desc->op) && trm_attr_int(desc->attrs, "count_include_pad", 0) != 0;
    p.column_major = trm_attr_int(desc->attrs, "storage_order", 0) != 0;
    p.power = (int)power;
    x->layout = last ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
    y->layout = x->layout;
    if (y->dims[1] == 1 || trm_tensor_count(y, 2, y->rank) == 1)
        y->layout = TRM_LAYOUT_PLAIN; /* the same bytes */
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), &pool_ops, &k));
    k->pool = p;
    k->dtype = x->dtype;
    k->indices = trmi_cuda_has_output(desc, 1);
    k->global = covers(&p) && !k->indices;
    if (k->global)
        k->base.base.ops = &global_ops;
    *kernel_out = &k->base.base;
    return TRM_OK;
}
