/* Activations of language models for kernels (kernels/language.h: TrmGated), also for the epilogues
 * of products: the same function of the same number gives the same bits wherever it is called.
 *
 * So nothing is left to the compiler: products and sums are spelled with their rounding, which
 * forbids contraction, and e^x is a polynomial, not a special instruction. They are the functions
 * of kernels/cpu/vector_math.h and lm_rows_body.h, operation by operation as those are with FMA: a
 * card, the emulation and a CPU with AVX2 agree to the bit. An activation takes 20 to 40
 * instructions, which the loads and stores around it hide. */
#ifndef TRM_KERNELS_CUDA_LM_ACT_CUH
#define TRM_KERNELS_CUDA_LM_ACT_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/lm.h"

namespace trmi_act
{

__device__ __forceinline__ float mul(float a, float b)
{
    return __fmul_rn(a, b);
}
__device__ __forceinline__ float add(float a, float b)
{
    return __fadd_rn(a, b);
}
__device__ __forceinline__ float fma(float a, float b, float c)
{
    return __fmaf_rn(a, b, c);
}

/* e^x within 1.5 ulp, subnormal and infinite results too. x = k ln2 + r with ln2 in two parts, then
 * (e^r - 1 - r) / r^2 as a polynomial, then 2^k in two factors. */
__device__ __forceinline__ float exp(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float p = 1.991462349e-04f;

    x = x > 89.0f ? 89.0f : x; /* comparisons let NaN through */
    x = x < -104.0f ? -104.0f : x;
    const float t = fma(x, 1.44269504f, magic), k = add(t, -magic);
    const float r = fma(k, 2.12194440e-4f, fma(k, -0.693359375f, x));
    const uint32_t n = __float_as_uint(t) - 0x4b400000u;
    const uint32_t half = static_cast<uint32_t>(static_cast<int32_t>(n) >> 1);

    p = fma(p, r, 1.393633162e-03f);
    p = fma(p, r, 8.333272897e-03f);
    p = fma(p, r, 4.166645114e-02f);
    p = fma(p, r, 1.666666681e-01f);
    p = fma(p, r, 0.5f);
    p = add(fma(mul(p, r), r, r), 1.0f);
    return mul(mul(p, __uint_as_float((half + 127u) << 23)),
               __uint_as_float((n - half + 127u) << 23));
}

__device__ __forceinline__ float tanh(float x)
{
    const float a = fabsf(x), s = mul(x, x);
    float p = 2.147528958e-03f;

    p = fma(p, s, -8.182664534e-03f);
    p = fma(p, s, 2.170296298e-02f);
    p = fma(p, s, -5.394720343e-02f);
    p = fma(p, s, 1.333320976e-01f);
    p = fma(p, s, -3.333333091e-01f);
    float large = add(1.0f, -__fdiv_rn(2.0f, add(exp(mul(2.0f, a)), 1.0f)));
    large = x < 0.0f ? -large : large;
    return a < 0.625f ? fma(mul(p, s), x, x) : large;
}

__device__ __forceinline__ float silu(float x)
{
    return __fdiv_rn(x, add(1.0f, exp(-x)));
}

/* x (1 + tanh(y)) / 2 = x / (1 + e^(-2y)), which does not cancel for negative x */
__device__ __forceinline__ float gelu_tanh(float x)
{
    const float y = add(x, mul(mul(mul(0.044715f, x), x), x));

    return __fdiv_rn(x, add(1.0f, exp(mul(-1.5957691216057308f, y))));
}

/* x times the normal distribution function, whose tail is e^(-x^2/2) times a polynomial in
 * (|x| - 3) / (|x| + 3). What x^2 loses in rounding is put back, or the exponential would magnify
 * it. */
__device__ __forceinline__ float gelu(float x)
{
    float a = fabsf(x), p = 5.445484931e-05f;

    a = a > 14.5f ? 14.5f : a;
    const float t = __fdiv_rn(1.0f, add(a, 3.0f)), u = mul(add(a, -3.0f), t);
    p = fma(p, u, 1.312532549e-04f);
    p = fma(p, u, -2.447550360e-04f);
    p = fma(p, u, -1.032523811e-03f);
    p = fma(p, u, 1.024784404e-03f);
    p = fma(p, u, 6.969302427e-03f);
    p = fma(p, u, -1.046252064e-02f);
    p = fma(p, u, -4.726268724e-02f);
    p = fma(p, u, 2.300177068e-01f);
    p = fma(p, u, -5.093320012e-01f);
    p = fma(p, u, 7.290837169e-01f);
    const float high = __uint_as_float(__float_as_uint(a) & 0xfffff000u), low = add(a, -high);
    const float square = mul(a, a);
    const float lost =
        add(add(add(mul(high, high), -square), mul(mul(2.0f, high), low)), mul(low, low));
    float tail = mul(exp(mul(-0.5f, square)), mul(p, t));
    tail = add(tail, -mul(mul(0.5f, lost), tail));
    return mul(x, x < 0.0f ? tail : add(1.0f, -tail));
}

} // namespace trmi_act

/* act(x); `cap` is SOFTCAP's, with inverse 1 / cap. act is a constant where a kernel is
 * instantiated for one activation: the switch then disappears. */
__device__ __forceinline__ float trm_lm_act(int act, float x, float cap, float inverse)
{
    switch (act) {
    case TRMI_LMC_SILU:
        return trmi_act::silu(x);
    case TRMI_LMC_GELU:
        return trmi_act::gelu(x);
    case TRMI_LMC_GELU_TANH:
        return trmi_act::gelu_tanh(x);
    case TRMI_LMC_RELU:
        return x < 0.0f ? 0.0f : x;
    case TRMI_LMC_TANH:
        return trmi_act::tanh(x);
    case TRMI_LMC_SOFTCAP:
        return trmi_act::mul(cap, trmi_act::tanh(trmi_act::mul(x, inverse)));
    default:
        return x;
    }
}

/* act(x) * up: what a product with `gated` gives (SOFTCAP is not among its activations). */
__device__ __forceinline__ float trm_lm_gated(int act, float x, float up)
{
    return trmi_act::mul(trm_lm_act(act, x, 1.0f, 1.0f), up);
}

#endif
