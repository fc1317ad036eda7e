/* Rotary positions inside kernels: TrmRope's own, and those that turn q and k on their way
 * (kernels/language.h). The operations of kernels/cpu/lm_rows_body.h, one by one, each with its
 * rounding, so that all of them give the same bits.
 *
 * The angle is position * frequency in fp32. It is reduced by multiples of pi/2 in double (pi/2 in
 * two parts, the first of 33 bits, so that its product with up to 2^20 is exact); then Taylor's
 * polynomials on [-pi/4, pi/4], whose truncation is below 1e-13. About 60 instructions in double:
 * of a row's heads only one computes them, the others read what it found. */
#ifndef TRM_KERNELS_CUDA_LM_ROPE_CUH
#define TRM_KERNELS_CUDA_LM_ROPE_CUH

#include "kernels/cuda/gpu.cuh"

struct trm_lm_angle {
    float cosine, sine;
};

namespace trmi_rope
{

/* p * z + c in two roundings */
__device__ __forceinline__ double step(double p, double z, double c)
{
    return __dadd_rn(__dmul_rn(p, z), c);
}

} // namespace trmi_rope

/* cos and sin of position * frequency, each times scale */
__device__ __forceinline__ trm_lm_angle trm_lm_angle_of(int32_t position, float frequency,
                                                        float scale)
{
    using trmi_rope::step;
    const double magic = 6755399441055744.0; /* 1.5 * 2^52: adding it rounds to an integer */
    const double x = static_cast<double>(__fmul_rn(static_cast<float>(position), frequency));
    const double t = step(x, 0.63661977236758134308, magic), k = __dadd_rn(t, -magic);
    const unsigned quarter = static_cast<unsigned>(__double_as_longlong(t));
    const double r = __dadd_rn(__dadd_rn(x, -__dmul_rn(k, 1.57079632673412561417e+00)),
                               -__dmul_rn(k, 6.07710050650619224932e-11));
    const double z = __dmul_rn(r, r);
    double s = 1.0 / 6227020800.0, c = 1.0 / 479001600.0;

    s = step(s, z, -1.0 / 39916800.0);
    s = step(s, z, 1.0 / 362880.0);
    s = step(s, z, -1.0 / 5040.0);
    s = step(s, z, 1.0 / 120.0);
    s = step(s, z, -1.0 / 6.0);
    s = step(__dmul_rn(s, z), r, r);
    c = step(c, z, -1.0 / 3628800.0);
    c = step(c, z, 1.0 / 40320.0);
    c = step(c, z, -1.0 / 720.0);
    c = step(c, z, 1.0 / 24.0);
    c = step(c, z, -0.5);
    c = step(c, z, 1.0);
    /* quarter 1: sin = c, cos = -s; 2: -s, -c; 3: -c, s */
    const double sine = (quarter & 1u) != 0 ? c : s, cosine = (quarter & 1u) != 0 ? s : c;

    return {__fmul_rn(__double2float_rn(((quarter + 1) & 2u) != 0 ? -cosine : cosine), scale),
            __fmul_rn(__double2float_rn((quarter & 2u) != 0 ? -sine : sine), scale)};
}

/* The pair (u, v) turned. */
__device__ __forceinline__ void trm_lm_turn(const trm_lm_angle &a, float &u, float &v)
{
    const float first = __fadd_rn(__fmul_rn(u, a.cosine), -__fmul_rn(v, a.sine));

    v = __fadd_rn(__fmul_rn(v, a.cosine), __fmul_rn(u, a.sine));
    u = first;
}

#endif
