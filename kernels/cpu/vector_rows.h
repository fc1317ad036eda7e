/* fp32 row functions, compiled once for each instruction set: the including file defines
 * TRMI_VEC_TABLE (the name of the table to fill) and gets everything else as static functions. No
 * include guard. Loops are plain C over branch-free functions; `ivdep` says that an output row is
 * either an input row or apart from it. */
#include "kernels/cpu/math_util.h"
#include "kernels/cpu/vector_math.h"

#include <math.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#define UNARY(name, expr)                                                                          \
    static void name(const trmi_row_params *p, size_t n, void *out, const void *const *in,         \
                     const size_t *step)                                                           \
    {                                                                                              \
        const float a = p->alpha, b = p->beta, c = p->gamma;                                       \
        const float *v = in[0];                                                                    \
        float *o = out;                                                                            \
        (void)a, (void)b, (void)c, (void)step;                                                     \
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                        \
        {                                                                                          \
            float x = v[i];                                                                        \
            o[i] = (expr);                                                                         \
        }                                                                                          \
    }

UNARY(row_abs, fabsf(x))
UNARY(row_neg, -x)
UNARY(row_relu, x < 0.0f ? 0.0f : x)
UNARY(row_leaky_relu, x < 0.0f ? a * x : x)
UNARY(row_thresholded_relu, x > a ? x : 0.0f)
UNARY(row_sqrt, __builtin_sqrtf(x))
UNARY(row_reciprocal, 1.0f / x)
UNARY(row_exp, trmi_exp(x))
UNARY(row_log, trmi_log(x))
UNARY(row_erf, trmi_erf(x))
UNARY(row_tanh, trmi_tanh(x))
UNARY(row_sigmoid, trmi_sigmoid(x))
UNARY(row_hard_sigmoid, (a * x + b < 0.0f ? 0.0f : (a * x + b > 1.0f ? 1.0f : a * x + b)))
UNARY(row_hard_swish, x *(a *x + b < 0.0f ? 0.0f : (a * x + b > 1.0f ? 1.0f : a * x + b)))
UNARY(row_silu, x / (1.0f + trmi_exp(-x)))
UNARY(row_swish, x / (1.0f + trmi_exp(-a * x)))
UNARY(row_softplus, trmi_softplus(x))
UNARY(row_softsign, x / (1.0f + fabsf(x)))
UNARY(row_elu, x < 0.0f ? a * trmi_expm1(x) : x)
UNARY(row_celu, x < 0.0f ? a * trmi_expm1(x / a) : x)
UNARY(row_selu, x <= 0.0f ? b * (a * trmi_expm1(x)) : b * x)
UNARY(row_gelu_erf, trmi_gelu_erf(x))
UNARY(row_gelu_tanh, trmi_gelu_tanh(x))
UNARY(row_mish, trmi_mish(x))
UNARY(row_shrink, x < -a ? x + b : (x > a ? x - b : 0.0f))
UNARY(row_sign, x > 0.0f ? 1.0f : (x < 0.0f ? -1.0f : x))
/* Clip: first the lower, then the upper limit, as ONNX says for min > max */
UNARY(row_clip, (x < a ? a : x) > b ? b : (x < a ? a : x))
UNARY(row_floor, __builtin_floorf(x))
UNARY(row_ceil, __builtin_ceilf(x))
UNARY(row_round, __builtin_rintf(x)) /* half to even: the default rounding mode */

#define BINARY_LOOP(type, xs, ys, expr)                                                            \
    _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                            \
    {                                                                                              \
        float x = (xs), y = (ys);                                                                  \
        o[i] = (type)(expr);                                                                       \
    }
#define BINARY(name, type, expr)                                                                   \
    static void name(const trmi_row_params *p, size_t n, void *out, const void *const *in,         \
                     const size_t *step)                                                           \
    {                                                                                              \
        const float *l = in[0], *r = in[1], l0 = l[0], r0 = r[0];                                  \
        type *o = out;                                                                             \
        (void)p;                                                                                   \
        if (step[0] != 0 && step[1] != 0)                                                          \
            BINARY_LOOP(type, l[i], r[i], expr)                                                    \
        else if (step[0] != 0)                                                                     \
            BINARY_LOOP(type, l[i], r0, expr)                                                      \
        else if (step[1] != 0)                                                                     \
            BINARY_LOOP(type, l0, r[i], expr)                                                      \
        else                                                                                       \
            BINARY_LOOP(type, l0, r0, expr)                                                        \
    }

BINARY(row_add, float, x + y)
BINARY(row_sub, float, x - y)
BINARY(row_mul, float, x *y)
BINARY(row_div, float, x / y)
BINARY(row_max, float, x > y || x != x ? x : y)
BINARY(row_min, float, x < y || x != x ? x : y)
BINARY(row_prelu, float, x < 0.0f ? x * y : x)
BINARY(row_equal, uint8_t, x == y)
BINARY(row_greater, uint8_t, x > y)
BINARY(row_greater_equal, uint8_t, x >= y)
BINARY(row_less, uint8_t, x < y)
BINARY(row_less_equal, uint8_t, x <= y)

/* ---- conversions ---- */
static void f16_to_f32(float *out, const uint16_t *in, size_t n)
{
    size_t i = 0;

#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(in + i))));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(in + i))));
#endif
    for (; i < n; i++)
        out[i] = trm_f16_to_f32(in[i]);
}

static void f32_to_f16(uint16_t *out, const float *in, size_t n)
{
    size_t i = 0;

#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((void *)(out + i),
                            _mm512_cvtps_ph(_mm512_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((void *)(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; i++)
        out[i] = trm_f32_to_f16(in[i]);
}

static void bf16_to_f32(float *out, const uint16_t *in, size_t n)
{
    _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) out[i] =
        trmi_float_of((uint32_t)in[i] << 16);
}

static void f32_to_bf16(uint16_t *out, const float *in, size_t n)
{
    _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)
    {
        uint32_t u = trmi_bits_of(in[i]);
        uint32_t even = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
        uint32_t quiet = (u >> 16) | 0x40u;

        out[i] = (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? quiet : even);
    }
}

/* ---- folds ---- */
#define LANES 16
#define ACCS 4 /* independent accumulators hide the latency of additions */
typedef float lanes __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t lanes_mask __attribute__((vector_size(LANES * 4)));

/* element-wise a <- step(a, x) over whole blocks, then lanes, then the tail one by one */
#define FOLD(name, start, vector_step, scalar_step)                                                \
    static float name(const float *v, size_t n, float shift)                                       \
    {                                                                                              \
        lanes acc[ACCS];                                                                           \
        float result = (start);                                                                    \
        size_t i = 0;                                                                              \
        (void)shift;                                                                               \
        for (int k = 0; k < ACCS; k++)                                                             \
            for (int j = 0; j < LANES; j++)                                                        \
                acc[k][j] = (start);                                                               \
        for (; i + ACCS * LANES <= n; i += ACCS * LANES)                                           \
            for (int k = 0; k < ACCS; k++) {                                                       \
                lanes x = *(const lanes *)(v + i + (size_t)k * LANES), a = acc[k];                 \
                vector_step;                                                                       \
                acc[k] = a;                                                                        \
            }                                                                                      \
        if (i > 0)                                                                                 \
            for (int k = 0; k < ACCS; k++)                                                         \
                for (int j = 0; j < LANES; j++) {                                                  \
                    float x = acc[k][j], a = result;                                               \
                    result = FOLD_MERGE(a, x);                                                     \
                }                                                                                  \
        for (; i < n; i++) {                                                                       \
            float x = v[i], a = result;                                                            \
            scalar_step;                                                                           \
            result = a;                                                                            \
        }                                                                                          \
        return result;                                                                             \
    }
#define SELECT(cond)                                                                               \
    lanes_mask m = (lanes_mask)(cond) | (lanes_mask)(x != x);                                      \
    a = (lanes)((m & (lanes_mask)x) | (~m & (lanes_mask)a))

#define FOLD_MERGE(a, x) ((a) + (x))
FOLD(fold_sum, 0.0f, a += x, a += x)
FOLD(fold_abs, 0.0f, a += (lanes)((lanes_mask)x & 0x7fffffff), a += fabsf(x))
FOLD(fold_square, 0.0f, a += x * x, a += x * x)
FOLD(fold_deviation, 0.0f, a += (x - shift) * (x - shift), a += (x - shift) * (x - shift))
#undef FOLD_MERGE
#define FOLD_MERGE(a, x) ((a) * (x))
FOLD(fold_prod, 1.0f, a *= x, a *= x)
#undef FOLD_MERGE
#define FOLD_MERGE(a, x) ((x) > (a) || (x) != (x) ? (x) : (a))
FOLD(fold_max, -INFINITY, SELECT(x > a), a = FOLD_MERGE(a, x))
#undef FOLD_MERGE
#define FOLD_MERGE(a, x) ((x) < (a) || (x) != (x) ? (x) : (a))
FOLD(fold_min, INFINITY, SELECT(x < a), a = FOLD_MERGE(a, x))

/* out[i] = exp(x[i] - shift) (out NULL: nowhere), returns the sum in the order of fold_sum */
static float exp_sum(float *out, const float *x, size_t n, float shift)
{
    float chunk[TRMI_CHUNK], sum = 0.0f;

    for (size_t at = 0; at < n; at += TRMI_CHUNK) {
        size_t count = n - at < TRMI_CHUNK ? n - at : TRMI_CHUNK;
        float *to = out != NULL ? out + at : chunk;
        const float *from = x + at;

        _Pragma("GCC ivdep") for (size_t i = 0; i < count; i++) to[i] = trmi_exp(from[i] - shift);
        sum += fold_sum(to, count, 0.0f);
    }
    return sum;
}

static float fold(trmi_fold kind, const float *x, size_t n, float shift)
{
    switch (kind) {
    case TRMI_FOLD_SUM:
        return fold_sum(x, n, 0.0f);
    case TRMI_FOLD_ABS:
        return fold_abs(x, n, 0.0f);
    case TRMI_FOLD_SQUARE:
        return fold_square(x, n, 0.0f);
    case TRMI_FOLD_MAX:
        return fold_max(x, n, 0.0f);
    case TRMI_FOLD_MIN:
        return fold_min(x, n, 0.0f);
    case TRMI_FOLD_PROD:
        return fold_prod(x, n, 0.0f);
    case TRMI_FOLD_EXP:
        return exp_sum(NULL, x, n, shift);
    default:
        return 0.0f;
    }
}

#define COLUMNS(expr)                                                                              \
    {                                                                                              \
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                        \
        {                                                                                          \
            float x = v[i], a = acc[i];                                                            \
            acc[i] = (expr);                                                                       \
        }                                                                                          \
    }                                                                                              \
    break

static void fold_columns(trmi_fold kind, float *acc, const float *v, size_t n, const float *shift)
{
    switch (kind) {
    case TRMI_FOLD_SUM:
        COLUMNS(a + x);
    case TRMI_FOLD_ABS:
        COLUMNS(a + fabsf(x));
    case TRMI_FOLD_SQUARE:
        COLUMNS(a + x * x);
    case TRMI_FOLD_MAX:
        COLUMNS(x > a || x != x ? x : a);
    case TRMI_FOLD_MIN:
        COLUMNS(x < a || x != x ? x : a);
    case TRMI_FOLD_PROD:
        COLUMNS(a * x);
    case TRMI_FOLD_EXP:
        COLUMNS(a + trmi_exp(x - shift[i]));
    default:
        break;
    }
}

/* ---- softmax, normalisation ---- */
static void softmax(float *out, const float *x, size_t n, bool log)
{
    float max = fold_max(x, n, 0.0f), sum;

    if (log) {
        float shift;

        sum = exp_sum(NULL, x, n, max);
        shift = max + logf(sum);
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) out[i] = x[i] - shift;
        return;
    }
    sum = 1.0f / exp_sum(out, x, n, max);
    _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) out[i] *= sum;
}

static void normalise(float *out, const float *x, size_t n, float mean, float scale,
                      const float *gain, const float *bias)
{
    if (gain != NULL && bias != NULL) {
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) out[i] =
            (x[i] - mean) * scale * gain[i] + bias[i];
    } else if (gain != NULL) {
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) out[i] =
            (x[i] - mean) * scale * gain[i];
    } else {
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) out[i] = (x[i] - mean) * scale;
    }
}

static float square_deviation(const float *x, size_t n, float mean)
{
    return fold_deviation(x, n, mean);
}

const trmi_vec TRMI_VEC_TABLE = {
    .unary =
        {
            [TRM_OP_Abs] = row_abs,
            [TRM_OP_Neg] = row_neg,
            [TRM_OP_Relu] = row_relu,
            [TRM_OP_LeakyRelu] = row_leaky_relu,
            [TRM_OP_ThresholdedRelu] = row_thresholded_relu,
            [TRM_OP_Sqrt] = row_sqrt,
            [TRM_OP_Reciprocal] = row_reciprocal,
            [TRM_OP_Exp] = row_exp,
            [TRM_OP_Log] = row_log,
            [TRM_OP_Erf] = row_erf,
            [TRM_OP_Tanh] = row_tanh,
            [TRM_OP_Sigmoid] = row_sigmoid,
            [TRM_OP_HardSigmoid] = row_hard_sigmoid,
            [TRM_OP_HardSwish] = row_hard_swish,
            [TRM_OP_TrmSilu] = row_silu,
            [TRM_OP_Swish] = row_swish,
            [TRM_OP_Softplus] = row_softplus,
            [TRM_OP_Softsign] = row_softsign,
            [TRM_OP_Elu] = row_elu,
            [TRM_OP_Celu] = row_celu,
            [TRM_OP_Selu] = row_selu,
            [TRM_OP_Gelu] = row_gelu_erf,
            [TRM_OP_Mish] = row_mish,
            [TRM_OP_Shrink] = row_shrink,
            [TRM_OP_Sign] = row_sign,
            [TRM_OP_Clip] = row_clip,
            [TRM_OP_Floor] = row_floor,
            [TRM_OP_Ceil] = row_ceil,
            [TRM_OP_Round] = row_round,
        },
    .binary =
        {
            [TRM_OP_Add] = row_add,
            [TRM_OP_Sum] = row_add,
            [TRM_OP_Mean] = row_add,
            [TRM_OP_Sub] = row_sub,
            [TRM_OP_Mul] = row_mul,
            [TRM_OP_Div] = row_div,
            [TRM_OP_Max] = row_max,
            [TRM_OP_Min] = row_min,
            [TRM_OP_PRelu] = row_prelu,
            [TRM_OP_Equal] = row_equal,
            [TRM_OP_Greater] = row_greater,
            [TRM_OP_GreaterOrEqual] = row_greater_equal,
            [TRM_OP_Less] = row_less,
            [TRM_OP_LessOrEqual] = row_less_equal,
        },
    .gelu_tanh = row_gelu_tanh,
    .f16_to_f32 = f16_to_f32,
    .f32_to_f16 = f32_to_f16,
    .bf16_to_f32 = bf16_to_f32,
    .f32_to_bf16 = f32_to_bf16,
    .fold = fold,
    .fold_columns = fold_columns,
    .softmax = softmax,
    .normalise = normalise,
    .square_deviation = square_deviation,
};
