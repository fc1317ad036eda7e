/* Branch-free single-precision functions, written so that the compiler turns a loop over them into
 * vector code for whatever instruction set the including file is compiled for.
 *
 * Method: argument reduction plus polynomials fitted by us (reweighted Chebyshev least squares in
 * double precision); errors against libm in double, over the whole range: exp 1.5 ulp, log 1.5 ulp,
 * erf and tanh 1.5e-7 absolute. NaN comes out as NaN: clamps are written `x > limit ? limit : x`.
 */
#ifndef TRM_KERNELS_CPU_VECTOR_MATH_H
#define TRM_KERNELS_CPU_VECTOR_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __FMA__
#define TRMI_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define TRMI_FMA(a, b, c) ((a) * (b) + (c))
#endif

static inline float trmi_float_of(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline uint32_t trmi_bits_of(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof(u));
    return u;
}

/* Splits x into n*ln2 + r; returns r, and n as float bits in the low mantissa of *shifted. */
static inline float trmi_exp_reduce(float x, uint32_t *n)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float t = TRMI_FMA(x, 1.44269504f, magic);
    float k = t - magic;
    float r = TRMI_FMA(k, -0.693359375f, x); /* ln2 in two parts, the first exact in 10 bits */

    *n = trmi_bits_of(t) - 0x4b400000u;
    return TRMI_FMA(k, 2.12194440e-4f, r);
}

/* (e^r - 1 - r) / r^2 for |r| <= ln2/2 */
static inline float trmi_exp_poly(float r)
{
    float p = 1.991462349e-04f;

    p = TRMI_FMA(p, r, 1.393633162e-03f);
    p = TRMI_FMA(p, r, 8.333272897e-03f);
    p = TRMI_FMA(p, r, 4.166645114e-02f);
    p = TRMI_FMA(p, r, 1.666666681e-01f);
    return TRMI_FMA(p, r, 0.5f);
}

static inline float trmi_exp(float x)
{
    uint32_t n, half;
    float r, p;

    x = x > 89.0f ? 89.0f : x; /* e^89 overflows to infinity below */
    x = x < -104.0f ? -104.0f : x;
    r = trmi_exp_reduce(x, &n);
    p = TRMI_FMA(trmi_exp_poly(r) * r, r, r) + 1.0f;
    /* 2^n in two factors, so that results may be subnormal or infinite */
    half = (uint32_t)((int32_t)n >> 1);
    return p * trmi_float_of((half + 127u) << 23) * trmi_float_of((n - half + 127u) << 23);
}

/* e^x - 1, accurate near 0 */
static inline float trmi_expm1(float x)
{
    float small = TRMI_FMA(trmi_exp_poly(x) * x, x, x);
    float large = trmi_exp(x) - 1.0f;

    return fabsf(x) < 0.34f ? small : large;
}

static inline float trmi_log(float x)
{
    const float tiny = 1.17549435e-38f;
    float y = x < tiny ? x * 8388608.0f : x;    /* subnormals */
    uint32_t u = trmi_bits_of(y) - 0x3f3504f3u; /* sqrt(1/2) */
    float e = (float)((int32_t)u >> 23) - (x < tiny ? 23.0f : 0.0f);
    float f = trmi_float_of((u & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    float z = f * f, p = 6.925721443e-02f, r;

    p = TRMI_FMA(p, f, -1.180773605e-01f);
    p = TRMI_FMA(p, f, 1.187791224e-01f);
    p = TRMI_FMA(p, f, -1.238182806e-01f);
    p = TRMI_FMA(p, f, 1.421771938e-01f);
    p = TRMI_FMA(p, f, -1.666935547e-01f);
    p = TRMI_FMA(p, f, 2.000227282e-01f);
    p = TRMI_FMA(p, f, -2.499998536e-01f);
    p = TRMI_FMA(p, f, 3.333330982e-01f);
    r = TRMI_FMA(p * z, f, e * -2.12194440e-4f);
    r = TRMI_FMA(z, -0.5f, r) + f;
    r = TRMI_FMA(e, 0.693359375f, r);
    r = x > 3.40282347e38f ? x : r; /* infinity */
    r = x == 0.0f ? -INFINITY : r;
    return x < 0.0f || x != x ? NAN : r;
}

/* log(1 + u) for u >= 0 */
static inline float trmi_log1p(float u)
{
    float w = 1.0f + u;
    float d = w - 1.0f;
    float r = trmi_log(w) * (u / (d == 0.0f ? 1.0f : d)); /* corrects the rounding of 1 + u */

    return d == 0.0f || u > 3.0e38f ? u : r;
}

static inline float trmi_tanh(float x)
{
    float a = fabsf(x), s = x * x, p = 2.147528958e-03f, large;

    p = TRMI_FMA(p, s, -8.182664534e-03f);
    p = TRMI_FMA(p, s, 2.170296298e-02f);
    p = TRMI_FMA(p, s, -5.394720343e-02f);
    p = TRMI_FMA(p, s, 1.333320976e-01f);
    p = TRMI_FMA(p, s, -3.333333091e-01f);
    large = 1.0f - 2.0f / (trmi_exp(2.0f * a) + 1.0f);
    large = x < 0.0f ? -large : large;
    return a < 0.625f ? TRMI_FMA(p * s, x, x) : large;
}

static inline float trmi_erf(float x)
{
    float a = fabsf(x), s = x * x, p = -9.680128017e-06f, t, q = 9.382265981e-07f, large;

    p = TRMI_FMA(p, s, 1.127054157e-04f);
    p = TRMI_FMA(p, s, -8.484711049e-04f);
    p = TRMI_FMA(p, s, 5.221074851e-03f);
    p = TRMI_FMA(p, s, -2.686544581e-02f);
    p = TRMI_FMA(p, s, 1.128378275e-01f);
    p = TRMI_FMA(p, s, -3.761263848e-01f);
    p = TRMI_FMA(p, s, 1.283791671e-01f);
    t = a > 4.0f ? 4.0f : a; /* erf(4) rounds to 1; log(1 - erf(t)) as a polynomial below that */
    q = TRMI_FMA(q, t, -1.503003086e-05f);
    q = TRMI_FMA(q, t, 8.317239836e-05f);
    q = TRMI_FMA(q, t, 2.305371292e-05f);
    q = TRMI_FMA(q, t, -3.152840272e-03f);
    q = TRMI_FMA(q, t, 2.347892600e-02f);
    q = TRMI_FMA(q, t, -1.065581443e-01f);
    q = TRMI_FMA(q, t, -6.344833248e-01f);
    q = TRMI_FMA(q, t, -1.129086666e+00f);
    q = TRMI_FMA(q, t, 1.044049570e-04f);
    large = 1.0f - trmi_exp(q);
    large = x < 0.0f ? -large : large;
    return a < 0.97f ? TRMI_FMA(p, x, x) : large;
}

static inline float trmi_sigmoid(float x)
{
    return 1.0f / (1.0f + trmi_exp(-x));
}

static inline float trmi_softplus(float x)
{
    return (x < 0.0f ? 0.0f : x) + trmi_log1p(trmi_exp(-fabsf(x)));
}

static inline float trmi_gelu_erf(float x)
{
    return 0.5f * x * (1.0f + trmi_erf(x * 0.70710678f));
}

static inline float trmi_gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + trmi_tanh(0.797884561f * (x + 0.044715f * x * x * x)));
}

/* x * tanh(softplus(x)): with e = exp(x), tanh(log(1 + e)) = e(e + 2) / (e(e + 2) + 2) */
static inline float trmi_mish(float x)
{
    float e = trmi_exp(x > 20.0f ? 20.0f : x);
    float n = e * (e + 2.0f);

    return x > 20.0f ? x : x * (n / (n + 2.0f));
}

#endif
