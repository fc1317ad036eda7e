/* What CUDA's headers give for half and bfloat16 on the device only; computed in float. */
#ifndef TRM_TESTS_CUDA_EMULATION_EMU_HALF_HPP
#define TRM_TESTS_CUDA_EMULATION_EMU_HALF_HPP

namespace trm_emu {

inline float up(__half x)
{
    return __half2float(x);
}
inline float up(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
template <class T> T down(float x);
template <> inline __half down<__half>(float x)
{
    return __float2half_rn(x);
}
template <> inline __nv_bfloat16 down<__nv_bfloat16>(float x)
{
    return __float2bfloat16_rn(x);
}

} // namespace trm_emu

#define TRM_EMU_HALF_OF(name, T, T2, expr)                                                         \
    inline T h##name(T v)                                                                          \
    {                                                                                              \
        const float x = ::trm_emu::up(v);                                                          \
                                                                                                   \
        return ::trm_emu::down<T>(expr);                                                           \
    }                                                                                              \
    inline T2 h2##name(T2 v)                                                                       \
    {                                                                                              \
        T2 r;                                                                                      \
                                                                                                   \
        r.x = h##name(v.x);                                                                        \
        r.y = h##name(v.y);                                                                        \
        return r;                                                                                  \
    }
#define TRM_EMU_HALF(name, expr)                                                                   \
    TRM_EMU_HALF_OF(name, __half, __half2, expr)                                                   \
    TRM_EMU_HALF_OF(name, __nv_bfloat16, __nv_bfloat162, expr)
TRM_EMU_HALF(exp, expf(x))
TRM_EMU_HALF(exp2, exp2f(x))
TRM_EMU_HALF(exp10, exp10f(x))
TRM_EMU_HALF(log, logf(x))
TRM_EMU_HALF(log2, log2f(x))
TRM_EMU_HALF(log10, log10f(x))
TRM_EMU_HALF(sin, sinf(x))
TRM_EMU_HALF(cos, cosf(x))
TRM_EMU_HALF(tanh, tanhf(x))
TRM_EMU_HALF(sqrt, sqrtf(x))
TRM_EMU_HALF(rsqrt, 1.0f / sqrtf(x))
TRM_EMU_HALF(rcp, 1.0f / x)
TRM_EMU_HALF(trunc, truncf(x))
TRM_EMU_HALF(ceil, ceilf(x))
TRM_EMU_HALF(floor, floorf(x))
TRM_EMU_HALF(rint, rintf(x))
#undef TRM_EMU_HALF
#undef TRM_EMU_HALF_OF

/* Rounded to float first: in rare cases the last bit differs from a GPU's. */
#define TRM_EMU_HFMA(T, T2)                                                                        \
    inline T __hfma(T a, T b, T c)                                                                 \
    {                                                                                              \
        using ::trm_emu::up;                                                                       \
                                                                                                   \
        return ::trm_emu::down<T>(fmaf(up(a), up(b), up(c)));                                      \
    }                                                                                              \
    inline T2 __hfma2(T2 a, T2 b, T2 c)                                                            \
    {                                                                                              \
        T2 r;                                                                                      \
                                                                                                   \
        r.x = __hfma(a.x, b.x, c.x);                                                               \
        r.y = __hfma(a.y, b.y, c.y);                                                               \
        return r;                                                                                  \
    }
TRM_EMU_HFMA(__half, __half2)
TRM_EMU_HFMA(__nv_bfloat16, __nv_bfloat162)
#undef TRM_EMU_HFMA

#endif
