/* Row functions of lm_rows.h for one instruction set: the including file defines TRMI_LM_ROWS_TABLE
 * (the name of the table to fill). No include guard. Loops are plain C over branch-free functions,
 * so that a loop's vector part and its tail do the same operations on an element. */
#include "kernels/cpu/lm_rows.h"
#include "kernels/cpu/vector_math.h"

#include <math.h>
#include <string.h>

/* ---- sums in 64 lanes: element i belongs to lane i % 64 ---- */
#define LANES 16
#define VECTORS 4
typedef float lanes __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

static float merge(const lanes *acc)
{
    lanes all = (acc[0] + acc[1]) + (acc[2] + acc[3]);
    float v[LANES];

    memcpy(v, &all, sizeof(v));
    for (int w = LANES / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++)
            v[i] += v[i + w];
    return v[0];
}

/* The last, incomplete block is filled up with `neutral`, whose term is zero. */
#define FOLD(name, term)                                                                           \
    static float name(const float *v, size_t n, float mean, float neutral)                         \
    {                                                                                              \
        lanes acc[VECTORS] = {{0}, {0}, {0}, {0}};                                                 \
        size_t i = 0;                                                                              \
        (void)mean;                                                                                \
        for (; i + VECTORS * LANES <= n; i += VECTORS * LANES)                                     \
            for (int k = 0; k < VECTORS; k++) {                                                    \
                lanes x = *(const lanes *)(v + i + (size_t)k * LANES);                             \
                acc[k] += (term);                                                                  \
            }                                                                                      \
        if (i < n) {                                                                               \
            float rest[VECTORS * LANES];                                                           \
                                                                                                   \
            for (size_t k = 0; k < VECTORS * LANES; k++)                                           \
                rest[k] = neutral;                                                                 \
            memcpy(rest, v + i, (n - i) * sizeof(float));                                          \
            for (int k = 0; k < VECTORS; k++) {                                                    \
                lanes x = *(const lanes *)(rest + (size_t)k * LANES);                              \
                acc[k] += (term);                                                                  \
            }                                                                                      \
        }                                                                                          \
        return merge(acc);                                                                         \
    }
FOLD(fold_sum, x)
FOLD(fold_square, x *x)
FOLD(fold_deviation, (x - mean) * (x - mean))

static void norm(const trmi_lm_norm *p, float *out, const float *x)
{
    const float *gain = p->gain, *bias = p->bias;
    const float offset = p->offset;
    float mean = 0.0f, squares, inverse;

    if (p->layer) {
        mean = (float)((double)fold_sum(x, p->n, 0.0f, 0.0f) / (double)p->n);
        squares = fold_deviation(x, p->n, mean, mean);
    } else {
        squares = fold_square(x, p->n, 0.0f, 0.0f);
    }
    inverse = (float)(1.0 / sqrt((double)squares / (double)p->n + p->epsilon));
    if (p->layer) {
        _Pragma("GCC ivdep") for (size_t i = 0; i < p->n; i++) out[i] =
            (x[i] - mean) * inverse * (gain[i] + offset);
    } else {
        _Pragma("GCC ivdep") for (size_t i = 0; i < p->n; i++) out[i] =
            x[i] * inverse * (gain[i] + offset);
    }
    if (bias != NULL)
        _Pragma("GCC ivdep") for (size_t i = 0; i < p->n; i++) out[i] += bias[i];
}

static void unit(float *x, size_t n)
{
    float squares = fold_square(x, n, 0.0f, 0.0f);
    float inverse = squares == 0.0f ? 0.0f : (float)(1.0 / sqrt((double)squares));

    for (size_t i = 0; i < n; i++)
        x[i] *= inverse;
}

/* ---- rotary positions ---- */
static inline double double_of(uint64_t u)
{
    double d;

    memcpy(&d, &u, sizeof(d));
    return d;
}

static inline uint64_t bits_of(double d)
{
    uint64_t u;

    memcpy(&u, &d, sizeof(u));
    return u;
}

/* cos and sin of position * frequency, the angle rounded to fp32: reduced by multiples of pi/2 in
 * double (pi/2 in two parts, the first of 33 bits, so that the product with up to 2^20 is exact),
 * then Taylor's polynomials on [-pi/4, pi/4], whose truncation is below 1e-13. */
static void angles(const trmi_lm_rope *p, int32_t position, float *cosine, float *sine)
{
    const double magic = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer */
    const float at = (float)position, scale = p->scale;
    const float *frequencies = p->frequencies;

    _Pragma("GCC ivdep") for (size_t i = 0; i < p->half; i++)
    {
        double x = (double)(at * frequencies[i]);
        double t = x * 0.63661977236758134308 + magic;
        double k = t - magic;
        uint64_t quarter = bits_of(t);
        double r = (x - k * 1.57079632673412561417e+00) - k * 6.07710050650619224932e-11;
        double z = r * r;
        double s = 1.0 / 6227020800.0, c = 1.0 / 479001600.0;
        uint64_t swap, us, uc, ws, wc;

        s = s * z - 1.0 / 39916800.0;
        s = s * z + 1.0 / 362880.0;
        s = s * z - 1.0 / 5040.0;
        s = s * z + 1.0 / 120.0;
        s = s * z - 1.0 / 6.0;
        s = s * z * r + r;
        c = c * z - 1.0 / 3628800.0;
        c = c * z + 1.0 / 40320.0;
        c = c * z - 1.0 / 720.0;
        c = c * z + 1.0 / 24.0;
        c = c * z - 0.5;
        c = c * z + 1.0;
        /* quarter 1: sin = c, cos = -s; 2: -s, -c; 3: -c, s */
        swap = 0 - (quarter & 1);
        us = bits_of(s);
        uc = bits_of(c);
        ws = (us & ~swap) | (uc & swap);
        wc = (uc & ~swap) | (us & swap);
        ws ^= (quarter & 2) << 62;
        wc ^= ((quarter + 1) & 2) << 62;
        sine[i] = (float)double_of(ws) * scale;
        cosine[i] = (float)double_of(wc) * scale;
    }
}

static void rope(const trmi_lm_rope *p, float *out, const float *x, int32_t position)
{
    float c[TRMI_LM_ROTARY_MAX / 2], s[TRMI_LM_ROTARY_MAX / 2];
    size_t half = p->half, rest = p->head_dim - 2 * half;

    angles(p, position, c, s);
    for (size_t h = 0; h < p->heads; h++) {
        const float *from = x + h * p->head_dim;
        float *to = out + h * p->head_dim;

        if (p->interleaved) {
            _Pragma("GCC ivdep") for (size_t i = 0; i < half; i++)
            {
                float u = from[2 * i], v = from[2 * i + 1];

                to[2 * i] = u * c[i] - v * s[i];
                to[2 * i + 1] = v * c[i] + u * s[i];
            }
        } else {
            _Pragma("GCC ivdep") for (size_t i = 0; i < half; i++)
            {
                float u = from[i], v = from[i + half];

                to[i] = u * c[i] - v * s[i];
                to[i + half] = v * c[i] + u * s[i];
            }
        }
        if (to != from && rest > 0)
            memcpy(to + 2 * half, from + 2 * half, rest * sizeof(float));
    }
}

/* ---- activations ---- */

/* x times the normal distribution function. The tail beyond |x| is e^(-x^2/2) times a smooth
 * function, here a polynomial in (|x| - 3) / (|x| + 3), fitted by us (reweighted Chebyshev least
 * squares, relative error 1e-9 up to 14.5). What x^2 loses in rounding is put back, or the
 * exponential would magnify it. */
static inline float gelu(float x)
{
    float a = fabsf(x), t, u, high, low, square, lost, p = 5.445484931e-05f, tail;

    a = a > 14.5f ? 14.5f : a;
    t = 1.0f / (a + 3.0f);
    u = (a - 3.0f) * t;
    p = TRMI_FMA(p, u, 1.312532549e-04f);
    p = TRMI_FMA(p, u, -2.447550360e-04f);
    p = TRMI_FMA(p, u, -1.032523811e-03f);
    p = TRMI_FMA(p, u, 1.024784404e-03f);
    p = TRMI_FMA(p, u, 6.969302427e-03f);
    p = TRMI_FMA(p, u, -1.046252064e-02f);
    p = TRMI_FMA(p, u, -4.726268724e-02f);
    p = TRMI_FMA(p, u, 2.300177068e-01f);
    p = TRMI_FMA(p, u, -5.093320012e-01f);
    p = TRMI_FMA(p, u, 7.290837169e-01f);
    high = trmi_float_of(trmi_bits_of(a) & 0xfffff000u);
    low = a - high;
    square = a * a;
    lost = ((high * high - square) + 2.0f * high * low) + low * low;
    tail = trmi_exp(-0.5f * square) * (p * t);
    tail -= 0.5f * lost * tail;
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

static inline float silu(float x)
{
    return x / (1.0f + trmi_exp(-x));
}

/* x (1 + tanh(y)) / 2 = x / (1 + e^(-2y)), which does not cancel for negative x */
static inline float gelu_tanh(float x)
{
    return x / (1.0f + trmi_exp(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
}

#define ACT(name, expr)                                                                            \
    static void name(float cap, size_t n, float *out, const float *in, const float *up)            \
    {                                                                                              \
        const float inverse = 1.0f / cap;                                                          \
                                                                                                   \
        (void)inverse;                                                                             \
        if (up == NULL) {                                                                          \
            _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                    \
            {                                                                                      \
                float x = in[i];                                                                   \
                out[i] = (expr);                                                                   \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++)                                        \
        {                                                                                          \
            float x = in[i];                                                                       \
            out[i] = (expr)*up[i];                                                                 \
        }                                                                                          \
    }
ACT(act_none, x)
ACT(act_silu, silu(x))
ACT(act_gelu, gelu(x))
ACT(act_gelu_tanh, gelu_tanh(x))
ACT(act_relu, x < 0.0f ? 0.0f : x)
ACT(act_tanh, trmi_tanh(x))
ACT(act_softcap, cap *trmi_tanh(x *inverse))

static void add(size_t n, float *out, const float *x, const float *y)
{
    _Pragma("GCC ivdep") for (size_t i = 0; i < n; i++) out[i] = x[i] + y[i];
}

const trmi_lm_rows TRMI_LM_ROWS_TABLE = {
    .add = add,
    .norm = norm,
    .rope = rope,
    .act = {[TRMI_LM_NONE] = act_none,
            [TRMI_LM_SILU] = act_silu,
            [TRMI_LM_GELU] = act_gelu,
            [TRMI_LM_GELU_TANH] = act_gelu_tanh,
            [TRMI_LM_RELU] = act_relu,
            [TRMI_LM_TANH] = act_tanh,
            [TRMI_LM_SOFTCAP] = act_softcap},
    .unit = unit,
};
