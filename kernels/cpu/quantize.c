/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.
 *
 * x is seen as [outer, axis, inner]. Scale and zero point are one number, one an index of the axis,
 * or one a block of the axis ([outer, blocks, inner]). Work goes through chunks of fp32: x / scale
 * is rounded half to even (by adding 1.5 * 2^23, after clamping), the zero point added, the sum
 * clamped. */
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

typedef struct quant_kernel {
    trm_kernel base;
    trm_dtype in, out, scale_dtype, zero_dtype;
    bool quantize, one, has_zero;
    size_t elems, axis, inner, block, blocks;
    float lo, hi; /* of the output's dtype */
} quant_kernel;

typedef struct quant_job {
    const quant_kernel *k;
    const char *x;
    char *y;
    const void *scale, *zero;
} quant_job;

static float number(trm_dtype dtype, const void *data, size_t i)
{
    float f;

    if (dtype == TRM_DTYPE_F32)
        return ((const float *)data)[i];
    trmi_convert(TRM_DTYPE_F32, &f, dtype, (const char *)data + i * trm_dtype_bytes(dtype), 1);
    return f;
}

/* scale and zero point of element e */
static size_t parameter_of(const quant_kernel *k, size_t e)
{
    size_t inner = e % k->inner, a = e / k->inner % k->axis, outer = e / k->inner / k->axis;

    return k->block == 0 ? a : (outer * k->blocks + a / k->block) * k->inner + inner;
}

/* How many elements from e on share the parameter of e. */
static size_t run_of(const quant_kernel *k, size_t e, size_t end)
{
    size_t n = end - e;

    if (!k->one) {
        size_t a = e / k->inner % k->axis, same = 1;

        if (k->block == 0)
            same = k->inner - e % k->inner;
        else if (k->inner == 1)
            same = (a / k->block + 1) * k->block < k->axis ? k->block - a % k->block : k->axis - a;
        if (n > same)
            n = same;
    }
    return n < TRMI_CHUNK ? n : TRMI_CHUNK;
}

static void store(const quant_kernel *k, char *to, const float *v, size_t n)
{
    if (k->out == TRM_DTYPE_U8) {
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)((uint8_t *)to)[i] =
            (uint8_t)(int32_t)v[i];
    } else if (k->out == TRM_DTYPE_I8) {
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)((int8_t *)to)[i] =
            (int8_t)(int32_t)v[i];
    } else {
        trmi_convert(k->out, to, TRM_DTYPE_F32, v, n);
    }
}

static void quantize_row(const quant_kernel *k, float *v, size_t n, float scale, float zero)
{
    const float magic = 12582912.0f, lo = k->lo, hi = k->hi;
    const float first = lo - zero - 1.0f, last = hi - zero + 1.0f;

    _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)
    {
        float x = v[i] / scale;

        x = x > first ? x : first; /* NaN becomes the lowest value */
        x = x < last ? x : last;
        x = (x + magic) - magic + zero;
        x = x > lo ? x : lo;
        v[i] = x < hi ? x : hi;
    }
}

static void quant_range(void *ctx, size_t begin, size_t end)
{
    const quant_job *job = ctx;
    const quant_kernel *k = job->k;
    size_t in_size = trm_dtype_bytes(k->in), out_size = trm_dtype_bytes(k->out);
    float v[TRMI_CHUNK];

    while (begin < end) {
        size_t n = run_of(k, begin, end), at = k->one ? 0 : parameter_of(k, begin);
        float scale = number(k->scale_dtype, job->scale, at);
        float zero = k->has_zero ? number(k->zero_dtype, job->zero, at) : 0.0f;

        trmi_convert(TRM_DTYPE_F32, v, k->in, job->x + begin * in_size, n);
        if (k->quantize) {
            quantize_row(k, v, n, scale, zero);
            store(k, job->y + begin * out_size, v, n);
        } else {
            _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) v[i] = (v[i] - zero) * scale;
            trmi_convert(k->out, job->y + begin * out_size, TRM_DTYPE_F32, v, n);
        }
        begin += n;
    }
}

static trm_status quant_run(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    quant_kernel *k = (quant_kernel *)base;
    quant_job job = {k, in[0], out[0], in[1], k->has_zero ? in[2] : NULL};

    (void)s;
    (void)workspace;
    trm_team_for(k->elems, TRMI_GRAIN, quant_range, &job);
    return TRM_OK;
}

/* One scale for the whole tensor, from the range of its values with 0 included. */
static trm_status dynamic_run(trm_kernel *base, trm_stream *s, const void *const *in,
                              void *const *out, void *workspace)
{
    quant_kernel *k = (quant_kernel *)base;
    const trmi_vec *vec = trmi_vec_get();
    float max = fmaxf(0.0f, vec->fold(TRMI_FOLD_MAX, in[0], k->elems, 0.0f));
    float min = fminf(0.0f, vec->fold(TRMI_FOLD_MIN, in[0], k->elems, 0.0f));
    float scale = (max == min ? 1.0f : max - min) / 255.0f;
    float zero = rintf(fmaxf(0.0f, fminf(255.0f, 0.0f - min / scale)));
    uint8_t z = zero >= 0.0f ? (uint8_t)zero : 0; /* NaN in the data: 0 */
    quant_job job = {k, in[0], out[0], &scale, &z};

    (void)s;
    (void)workspace;
    *(float *)out[1] = scale;
    *(uint8_t *)out[2] = z;
    trm_team_for(k->elems, TRMI_GRAIN, quant_range, &job);
    return TRM_OK;
}

static const trm_kernel_ops quant_ops = {
    .name = "quantize", .run = quant_run, .destroy = trmi_kernel_free};
static const trm_kernel_ops dynamic_ops = {
    .name = "dynamic quantize", .run = dynamic_run, .destroy = trmi_kernel_free};

static trm_status settle_range(quant_kernel *k, const trm_op_desc *desc)
{
    switch (k->out) {
    case TRM_DTYPE_U8:
        k->lo = 0.0f, k->hi = 255.0f;
        return TRM_OK;
    case TRM_DTYPE_I8:
        k->lo = -128.0f, k->hi = 127.0f;
        return TRM_OK;
    case TRM_DTYPE_U16:
        k->lo = 0.0f, k->hi = 65535.0f;
        return TRM_OK;
    case TRM_DTYPE_I16:
        k->lo = -32768.0f, k->hi = 32767.0f;
        return TRM_OK;
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': output %s: supported are u8, i8, u16, i16",
                        trm_op_get(desc->op)->name, desc->name, trm_dtype_name(k->out));
    }
}

/* Which parameter belongs to which element. */
static trm_status settle_parameters(quant_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[0], *scale = &desc->inputs[1];
    int64_t block = trm_attr_int(desc->attrs, "block_size", 0);
    size_t want, count = trm_tensor_numel(scale);
    int axis = 0;

    k->one = count == 1 && scale->rank <= 1 && block == 0;
    k->axis = k->inner = 1;
    if (!k->one) {
        TRM_CHECK(trmi_axis(desc, trm_attr_int(desc->attrs, "axis", 1), x->rank, &axis));
        k->axis = (size_t)x->dims[axis];
        k->inner = trm_tensor_count(x, axis + 1, x->rank);
        want = k->axis;
        if (block < 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': block_size is negative",
                            trm_op_get(desc->op)->name, desc->name);
        if (block > 0) {
            k->block = (size_t)block;
            k->blocks = (k->axis + k->block - 1) / k->block;
            want = trm_tensor_count(x, 0, axis) * k->blocks * k->inner;
        }
        if (count != want)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu scales: want %zu",
                            trm_op_get(desc->op)->name, desc->name, count, want);
    }
    k->has_zero = trmi_has_input(desc, 2);
    if (k->has_zero && trm_tensor_numel(&desc->inputs[2]) != count)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu zero points for %zu scales",
                        trm_op_get(desc->op)->name, desc->name, trm_tensor_numel(&desc->inputs[2]),
                        count);
    k->scale_dtype = scale->dtype;
    k->zero_dtype = k->has_zero ? desc->inputs[2].dtype : TRM_DTYPE_NONE;
    return TRM_OK;
}

trm_status trmi_prepare_quantize(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    quant_kernel *k;
    trm_status st;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &quant_ops, &k));
    k->in = desc->inputs[0].dtype;
    k->out = desc->outputs[0].dtype;
    k->quantize = desc->op != TRM_OP_DequantizeLinear;
    k->elems = trm_tensor_numel(&desc->inputs[0]);
    if (k->quantize)
        TRM_TRY(st, settle_range(k, desc), fail);
    if (desc->op == TRM_OP_DynamicQuantizeLinear) {
        k->base.ops = &dynamic_ops;
        k->one = k->has_zero = true;
        k->axis = k->inner = 1;
        k->scale_dtype = TRM_DTYPE_F32;
        k->zero_dtype = TRM_DTYPE_U8;
        if (k->in != TRM_DTYPE_F32) {
            st = trmi_bad_dtype(desc, 0, "f32");
            goto fail;
        }
    } else {
        TRM_TRY(st, settle_parameters(k, desc), fail);
    }
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    trmi_kernel_free(&k->base);
    return st;
}
