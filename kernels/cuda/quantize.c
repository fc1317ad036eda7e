/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: which parameter belongs to which
 * element. CHANNELS_LAST passes through, but where scales come a block. */
#include "kernels/cuda/quantize.h"

typedef struct quant_kernel {
    trmi_cuda_kernel base;
    trmi_quantize q;
    int64_t elems;
    bool back, has_zero;
} quant_kernel;

/* With one scale the tensor is flat and may be done in parts. */
static trm_status flat_run(const quant_kernel *k, cudaStream_t stream, const void *x,
                           const void *scale, const void *zero, void *y)
{
    trmi_quantize q = k->q;

    for (int64_t at = 0; at < k->elems; at += q.inner) {
        const char *from = (const char *)x + (size_t)at * trm_dtype_bytes(q.in);
        char *to = (char *)y + (size_t)at * trm_dtype_bytes(q.out);

        q.inner = k->elems - at < TRMI_QUANTIZE_LIMIT ? k->elems - at : TRMI_QUANTIZE_LIMIT;
        if (k->back)
            TRM_CHECK(trmi_cuda_dequantize(k->base.cuda, stream, &q, from, scale, zero, to));
        else
            TRM_CHECK(trmi_cuda_quantize(k->base.cuda, stream, &q, from, scale, zero, to));
    }
    return TRM_OK;
}

static trm_status quant_run(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    const quant_kernel *k = (const quant_kernel *)base;
    cudaStream_t stream = trmi_cuda_stream(base, s);
    const void *zero = k->has_zero ? in[2] : NULL;

    (void)workspace;
    if (k->q.one)
        return flat_run(k, stream, in[0], in[1], zero, out[0]);
    if (k->back)
        return trmi_cuda_dequantize(k->base.cuda, stream, &k->q, in[0], in[1], zero, out[0]);
    return trmi_cuda_quantize(k->base.cuda, stream, &k->q, in[0], in[1], zero, out[0]);
}

static trm_status dynamic_run(trm_kernel *base, trm_stream *s, const void *const *in,
                              void *const *out, void *workspace)
{
    const quant_kernel *k = (const quant_kernel *)base;
    cudaStream_t stream = trmi_cuda_stream(base, s);

    TRM_CHECK(trmi_cuda_dynamic_range(k->base.cuda, stream, in[0], (size_t)k->elems, out[1], out[2],
                                      workspace));
    return flat_run(k, stream, in[0], out[1], out[2], out[0]);
}

static const trm_kernel_ops quant_ops = {
    .name = "quantize", .run = quant_run, .destroy = trmi_cuda_kernel_free};
static const trm_kernel_ops dynamic_ops = {
    .name = "dynamic quantize", .run = dynamic_run, .destroy = trmi_cuda_kernel_free};

static bool is_quantised(trm_dtype dtype, bool back)
{
    return dtype == TRM_DTYPE_U8 || dtype == TRM_DTYPE_I8 || dtype == TRM_DTYPE_U16 ||
           dtype == TRM_DTYPE_I16 || (back && dtype == TRM_DTYPE_I32);
}

static trm_status check_dtypes(const quant_kernel *k, const trm_op_desc *desc)
{
    trm_dtype quantised = k->back ? k->q.in : k->q.out;
    trm_dtype real = k->back ? k->q.out : k->q.in;

    if (!is_quantised(quantised, k->back) ||
        !(trm_dtype_is_float(real) || (!k->back && real == TRM_DTYPE_I32)))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s '%s': %s to %s: supported are floats and u8, i8, u16, i16",
                        trm_op_get(desc->op)->name, desc->name, trm_dtype_name(k->q.in),
                        trm_dtype_name(k->q.out));
    if (desc->op == TRM_OP_DynamicQuantizeLinear)
        return k->q.in == TRM_DTYPE_F32 && k->q.out == TRM_DTYPE_U8
                   ? TRM_OK
                   : trmi_cuda_bad_dtype(desc, 0, "f32");
    if (!trm_dtype_is_float(k->q.scale))
        return trmi_cuda_bad_dtype(desc, 1, "a float");
    if (k->has_zero && desc->inputs[2].dtype != quantised)
        return trmi_cuda_bad_dtype(desc, 2, trm_dtype_name(quantised));
    return TRM_OK;
}

/* [outer, axis, inner] as x lies: in CHANNELS_LAST dim 1 comes last. */
static void settle_dims(trmi_quantize *q, const trm_tensor *x, int axis)
{
    bool last = x->layout == TRM_LAYOUT_CHANNELS_LAST && x->rank >= 3;
    int64_t before = (int64_t)trm_tensor_count(x, 0, axis);
    int64_t behind = (int64_t)trm_tensor_count(x, axis + 1, x->rank);

    q->axis = x->dims[axis];
    q->outer = before;
    q->inner = behind;
    if (last && axis == 1) {
        q->outer = before * behind;
        q->inner = 1;
    } else if (last && axis > 1) {
        q->outer = x->dims[0] * (int64_t)trm_tensor_count(x, 2, axis);
        q->inner = behind * x->dims[1];
    }
}

static trm_status settle_parameters(quant_kernel *k, trm_op_desc *desc, trm_layout layout)
{
    trm_tensor *x = &desc->inputs[0];
    int64_t block = trm_attr_int(desc->attrs, "block_size", 0);
    int64_t count = (int64_t)trm_tensor_numel(&desc->inputs[1]), want;
    int axis = 0;

    if (block < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': block_size is negative",
                        trm_op_get(desc->op)->name, desc->name);
    k->q.one = count == 1 && desc->inputs[1].rank <= 1 && block == 0;
    if (block == 0)
        x->layout = layout; /* as it comes */
    if (!k->q.one) {
        TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", 1), x->rank, &axis));
        settle_dims(&k->q, x, axis);
        want = k->q.axis;
        if (block > 0) {
            k->q.block = block;
            k->q.blocks = k->q.axis / block + (k->q.axis % block != 0 ? 1 : 0);
            want = k->q.outer * k->q.blocks * k->q.inner;
        }
        if (count != want)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %lld scales: want %lld",
                            trm_op_get(desc->op)->name, desc->name, (long long)count,
                            (long long)want);
        if (k->elems > TRMI_QUANTIZE_LIMIT)
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': more than 2^30 elements",
                            trm_op_get(desc->op)->name, desc->name);
    }
    if (k->has_zero && (int64_t)trm_tensor_numel(&desc->inputs[2]) != count)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu zero points for %lld scales",
                        trm_op_get(desc->op)->name, desc->name, trm_tensor_numel(&desc->inputs[2]),
                        (long long)count);
    return TRM_OK;
}

trm_status trmi_cuda_prepare_quantize(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    bool dynamic = desc->op == TRM_OP_DynamicQuantizeLinear;
    trm_layout layout = desc->inputs[0].layout;
    quant_kernel *k = NULL;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*k), dynamic ? &dynamic_ops : &quant_ops, &k));
    k->back = desc->op == TRM_OP_DequantizeLinear;
    k->elems = (int64_t)trm_tensor_numel(&desc->inputs[0]);
    k->has_zero = !dynamic && trmi_cuda_has_input(desc, 2);
    k->q = (trmi_quantize){.in = desc->inputs[0].dtype,
                           .out = desc->outputs[0].dtype,
                           .scale = dynamic ? TRM_DTYPE_F32 : desc->inputs[1].dtype,
                           .one = true,
                           .outer = 1,
                           .axis = 1,
                           .inner = 1};
    TRM_TRY(st, check_dtypes(k, desc), fail);
    if (dynamic) {
        desc->inputs[0].layout = layout;
        k->base.base.workspace_bytes = TRMI_DYNAMIC_WORKSPACE;
    } else {
        TRM_TRY(st, settle_parameters(k, desc, layout), fail);
    }
    desc->outputs[0].layout = desc->inputs[0].layout;
    *kernel_out = &k->base.base;
    return TRM_OK;
fail:
    trmi_cuda_kernel_free(&k->base.base);
    return st;
}
