/* Conversions between all dtypes: chunks for other kernels, and Cast, CastLike, BitCast, Identity,
 * Dropout. */
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

/* Float to integer without undefined behaviour: NaN is 0, values out of range saturate. The limits
 * are exact doubles; (double)INT64_MAX rounds up to 2^63, hence >=. */
static inline int64_t to_signed(double x, double lo, double hi, int64_t min, int64_t max)
{
    return x >= hi ? max : x <= lo ? min : x != x ? 0 : (int64_t)x;
}

static inline uint64_t to_unsigned(double x, double hi, uint64_t max)
{
    return x >= hi ? max : x > 0 ? (uint64_t)x : 0; /* NaN compares false */
}

#define AS_f32(x) (float)(x)
#define AS_f64(x) (double)(x)
#define AS_b8(x) (uint8_t)((x) != 0)
#define AS_i8(x) (int8_t)(x)
#define AS_u8(x) (uint8_t)(x)
#define AS_i16(x) (int16_t)(x)
#define AS_u16(x) (uint16_t)(x)
#define AS_i32(x) (int32_t)(x)
#define AS_u32(x) (uint32_t)(x)
#define AS_i64(x) (int64_t)(x)
#define AS_u64(x) (uint64_t)(x)
#define SAT_f32(x) (float)(x)
#define SAT_f64(x) (double)(x)
#define SAT_b8(x) (uint8_t)((x) != 0)
#define SAT_i8(x) (int8_t) to_signed((double)(x), -128.0, 127.0, -128, 127)
#define SAT_u8(x) (uint8_t) to_unsigned((double)(x), 255.0, 255)
#define SAT_i16(x) (int16_t) to_signed((double)(x), -32768.0, 32767.0, -32768, 32767)
#define SAT_u16(x) (uint16_t) to_unsigned((double)(x), 65535.0, 65535)
#define SAT_i32(x)                                                                                 \
    (int32_t) to_signed((double)(x), -2147483648.0, 2147483647.0, INT32_MIN, INT32_MAX)
#define SAT_u32(x) (uint32_t) to_unsigned((double)(x), 4294967295.0, UINT32_MAX)
#define SAT_i64(x) to_signed((double)(x), -0x1p63, 0x1p63, INT64_MIN, INT64_MAX)
#define SAT_u64(x) to_unsigned((double)(x), 0x1p64, UINT64_MAX)

typedef float c_f32;
typedef double c_f64;
typedef uint8_t c_b8, c_u8;
typedef int8_t c_i8;
typedef int16_t c_i16;
typedef uint16_t c_u16;
typedef int32_t c_i32;
typedef uint32_t c_u32;
typedef int64_t c_i64;
typedef uint64_t c_u64;

typedef void (*convert_fn)(void *to, const void *from, size_t n);

#define CONVERT(to, from, how)                                                                     \
    static void to##_from_##from(void *out, const void *in, size_t n)                              \
    {                                                                                              \
        c_##to *o = out;                                                                           \
        const c_##from *v = in;                                                                    \
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) o[i] = how##_##to(v[i]);               \
    }
#define CONVERT_ALL(to)                                                                            \
    CONVERT(to, f32, SAT)                                                                          \
    CONVERT(to, f64, SAT)                                                                          \
    CONVERT(to, b8, AS)                                                                            \
    CONVERT(to, i8, AS)                                                                            \
    CONVERT(to, u8, AS)                                                                            \
    CONVERT(to, i16, AS)                                                                           \
    CONVERT(to, u16, AS)                                                                           \
    CONVERT(to, i32, AS)                                                                           \
    CONVERT(to, u32, AS)                                                                           \
    CONVERT(to, i64, AS)                                                                           \
    CONVERT(to, u64, AS)

CONVERT_ALL(f32)
CONVERT_ALL(f64)
CONVERT_ALL(b8)
CONVERT_ALL(i8)
CONVERT_ALL(u8)
CONVERT_ALL(i16)
CONVERT_ALL(u16)
CONVERT_ALL(i32)
CONVERT_ALL(u32)
CONVERT_ALL(i64)
CONVERT_ALL(u64)

#define ROW(to, name)                                                                              \
    [TRM_DTYPE_##name] = {[TRM_DTYPE_F32] = to##_from_f32, [TRM_DTYPE_F64] = to##_from_f64,        \
                          [TRM_DTYPE_BOOL] = to##_from_b8, [TRM_DTYPE_I8] = to##_from_i8,          \
                          [TRM_DTYPE_U8] = to##_from_u8,   [TRM_DTYPE_I16] = to##_from_i16,        \
                          [TRM_DTYPE_U16] = to##_from_u16, [TRM_DTYPE_I32] = to##_from_i32,        \
                          [TRM_DTYPE_U32] = to##_from_u32, [TRM_DTYPE_I64] = to##_from_i64,        \
                          [TRM_DTYPE_U64] = to##_from_u64}

/* NULL where a side is 16-bit float: those go through fp32 (from) or double (to). */
static const convert_fn table[TRM_DTYPE_PLAIN_COUNT][TRM_DTYPE_PLAIN_COUNT] = {
    ROW(f32, F32), ROW(f64, F64), ROW(b8, BOOL), ROW(i8, I8),   ROW(u8, U8),   ROW(i16, I16),
    ROW(u16, U16), ROW(i32, I32), ROW(u32, U32), ROW(i64, I64), ROW(u64, U64),
};

static void half_to_f32(trm_dtype from_dtype, float *to, const uint16_t *from, size_t n)
{
    const trmi_vec *vec = trmi_vec_get();

    if (from_dtype == TRM_DTYPE_F16)
        vec->f16_to_f32(to, from, n);
    else
        vec->bf16_to_f32(to, from, n);
}

/* doubles to bf16 with one rounding: round to odd first keeps what the second rounding needs */
static uint16_t bf16_of_double(double x)
{
    float f = (float)x;

    if ((double)f != x && !isnan(x) && !isinf(f)) {
        uint32_t u;
        float toward = fabs((double)f) > fabs(x) ? nextafterf(f, 0.0f) : f;

        memcpy(&u, &toward, sizeof(u));
        u |= 1u;
        memcpy(&f, &u, sizeof(f));
    }
    return trm_f32_to_bf16(f);
}

void trmi_convert(trm_dtype to_dtype, void *to, trm_dtype from_dtype, const void *from, size_t n)
{
    if (to_dtype == from_dtype) {
        memmove(to, from, n * trm_dtype_bytes(to_dtype));
        return;
    }
    if (table[to_dtype][from_dtype] != NULL) {
        table[to_dtype][from_dtype](to, from, n);
        return;
    }
    if (to_dtype == TRM_DTYPE_F32) {
        half_to_f32(from_dtype, to, from, n);
        return;
    }
    for (size_t at = 0; at < n; at += TRMI_CHUNK) {
        size_t count = n - at < TRMI_CHUNK ? n - at : TRMI_CHUNK;
        const char *src = (const char *)from + at * trm_dtype_bytes(from_dtype);
        char *dst = (char *)to + at * trm_dtype_bytes(to_dtype);
        float f32[TRMI_CHUNK];
        double f64[TRMI_CHUNK];
        const float *wide = f32;

        if (trmi_is_half(from_dtype))
            half_to_f32(from_dtype, f32, (const uint16_t *)src, count);
        else if (from_dtype == TRM_DTYPE_F32)
            wide = (const float *)src;
        else {
            table[TRM_DTYPE_F64][from_dtype](f64, src, count);
            wide = NULL;
        }
        if (!trmi_is_half(to_dtype)) {
            table[to_dtype][TRM_DTYPE_F32](dst, wide, count);
        } else if (wide != NULL) {
            if (to_dtype == TRM_DTYPE_F16)
                trmi_vec_get()->f32_to_f16((uint16_t *)dst, wide, count);
            else
                trmi_vec_get()->f32_to_bf16((uint16_t *)dst, wide, count);
        } else {
            for (size_t i = 0; i < count; i++)
                ((uint16_t *)dst)[i] =
                    to_dtype == TRM_DTYPE_F16 ? trm_f64_to_f16(f64[i]) : bf16_of_double(f64[i]);
        }
    }
}

/* ---- kernels ---- */
typedef struct cast_kernel {
    trm_kernel base;
    trm_dtype from, to;
    size_t elems;      /* of storage, padding included */
    size_t mask_elems; /* Dropout's second output */
} cast_kernel;

typedef struct cast_job {
    const cast_kernel *k;
    const char *in;
    char *out;
} cast_job;

static void cast_range(void *ctx, size_t begin, size_t end)
{
    const cast_job *job = ctx;

    trmi_convert(job->k->to, job->out + begin * trm_dtype_bytes(job->k->to), job->k->from,
                 job->in + begin * trm_dtype_bytes(job->k->from), end - begin);
}

static trm_status cast_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                           void *workspace)
{
    cast_kernel *k = (cast_kernel *)base;
    cast_job job = {k, in[0], out[0]};

    (void)s;
    (void)workspace;
    if (out[0] != NULL && !(k->from == k->to && in[0] == out[0]))
        trm_team_for(k->elems, TRMI_GRAIN, cast_range, &job);
    if (k->mask_elems > 0 && out[1] != NULL)
        memset(out[1], 1, k->mask_elems);
    return TRM_OK;
}

static const trm_kernel_ops cast_ops = {
    .name = "cast", .run = cast_run, .destroy = trmi_kernel_free};
static const trm_kernel_ops copy_ops = {
    .name = "copy", .run = cast_run, .destroy = trmi_kernel_free};

/* Cast and CastLike: a conversion keeps any layout, for padding stays zero. */
trm_status trmi_prepare_cast(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_layout layout = desc->inputs[0].layout;
    cast_kernel *k;
    size_t bytes;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    desc->inputs[0].layout = layout;
    desc->outputs[0].layout = layout;
    if (desc->op == TRM_OP_Cast || desc->op == TRM_OP_CastLike) {
        TRM_CHECK(trm_tensor_bytes(&desc->inputs[0], &bytes));
        TRM_CHECK(trmi_kernel_new(sizeof(*k), &cast_ops, &k));
        k->from = desc->inputs[0].dtype;
        k->to = desc->outputs[0].dtype;
    } else { /* Identity, Dropout at inference, BitCast: the same bytes */
        trm_tensor as_bytes = desc->inputs[0];

        if (desc->op == TRM_OP_Dropout && trmi_has_input(desc, 2)) {
            const trm_tensor *training = &desc->inputs[2], *ratio = &desc->inputs[1];
            bool off = training->data != NULL && trm_tensor_get_i64(training, 0) == 0;

            if (!off && !(trmi_has_input(desc, 1) && ratio->data != NULL &&
                          trm_tensor_get_f64(ratio, 0) == 0))
                return trm_fail(TRM_ERR_UNSUPPORTED,
                                "Dropout '%s': training_mode is set or not constant: only "
                                "inference is supported",
                                desc->name);
        }
        TRM_CHECK(trm_tensor_bytes(&as_bytes, &bytes));
        TRM_CHECK(trmi_kernel_new(sizeof(*k), &copy_ops, &k));
        k->from = k->to = desc->inputs[0].dtype;
        k->base.in_place = desc->op == TRM_OP_BitCast ? 0 : 1;
        if (trmi_has_output(desc, 1))
            k->mask_elems = trm_tensor_numel(&desc->outputs[1]);
    }
    k->elems = bytes / trm_dtype_bytes(k->from);
    *kernel_out = &k->base;
    return TRM_OK;
}
