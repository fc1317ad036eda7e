/* Conversion between any two dtypes inside kernels: trm_convert<To>(x). Floats to integers
 * truncate, saturate, and take NaN as 0; integers to integers keep the low bits; to 16-bit floats
 * there is one rounding (64-bit integers become doubles first). bool is trm_bool here, for uint8_t
 * is a number. */
#ifndef TRM_KERNELS_CUDA_CAST_CUH
#define TRM_KERNELS_CUDA_CAST_CUH

#include "kernels/cuda/gpu.cuh"

#include <type_traits>

struct trm_bool {
    uint8_t v; /* 0 or 1 */
};

/* Double to float, rounded to odd where it is inexact: a second rounding to 16 bits then gives what
 * one rounding of the double would (Boldo and Melquiond 2008). */
__device__ __forceinline__ float trm_round_odd(double x)
{
    union {
        float f;
        uint32_t u;
    } r;
    const double size = x < 0 ? -x : x;

    r.f = static_cast<float>(x);
    if (static_cast<double>(r.f) == x || x != x)
        return r.f;
    if ((r.f < 0 ? -static_cast<double>(r.f) : static_cast<double>(r.f)) > size)
        r.u--; /* toward zero */
    r.u |= 1;
    return r.f;
}

/* 2^n, exact */
template <class F> __device__ constexpr F trm_two_to(int n)
{
    F x = 1;

    for (; n > 0; n--)
        x *= 2;
    return x;
}

template <class I, class F> __device__ __forceinline__ I trm_saturate(F x)
{
    constexpr bool kSigned = std::is_signed<I>::value;
    constexpr int kBits = 8 * static_cast<int>(sizeof(I)) - (kSigned ? 1 : 0);
    constexpr F kEnd = trm_two_to<F>(kBits); /* the first number that does not fit */
    constexpr I kMax = static_cast<I>(~uint64_t{0} >> (64 - kBits));

    if (x >= kEnd)
        return kMax;
    if (kSigned && x <= -kEnd)
        return static_cast<I>(-kMax - 1);
    if (!kSigned && !(x > F(0)))
        return 0;
    return x != x ? I(0) : static_cast<I>(x);
}

template <class T> struct trm_is_half {
    static constexpr bool value =
        std::is_same<T, __half>::value || std::is_same<T, __nv_bfloat16>::value;
};

template <class To, class From> __device__ __forceinline__ To trm_convert(From x)
{
    if constexpr (std::is_same<To, From>::value) {
        return x;
    } else if constexpr (std::is_same<From, trm_bool>::value) {
        return trm_convert<To, uint8_t>(x.v);
    } else if constexpr (trm_is_half<From>::value) {
        return trm_convert<To, float>(trm_up(x));
    } else if constexpr (std::is_same<To, trm_bool>::value) {
        return trm_bool{static_cast<uint8_t>(x != From(0))};
    } else if constexpr (trm_is_half<To>::value) {
        if constexpr (std::is_same<From, float>::value || sizeof(From) <= 2)
            return trm_down<To>(static_cast<float>(x)); /* exact in fp32 */
        else
            return trm_down<To>(trm_round_odd(static_cast<double>(x)));
    } else if constexpr (std::is_floating_point<From>::value && std::is_integral<To>::value) {
        return trm_saturate<To, From>(x);
    } else {
        return static_cast<To>(x);
    }
}

/* The block runs with T the C++ type of a dtype, else falls through. */
#define TRM_ANY(dtype, T, ...)                                                                     \
    switch (dtype) {                                                                               \
        TRM_TYPE_CASE(TRM_DTYPE_F32, float, T, __VA_ARGS__)                                        \
        TRM_TYPE_CASE(TRM_DTYPE_F16, __half, T, __VA_ARGS__)                                       \
        TRM_TYPE_CASE(TRM_DTYPE_BF16, __nv_bfloat16, T, __VA_ARGS__)                               \
        TRM_TYPE_CASE(TRM_DTYPE_F64, double, T, __VA_ARGS__)                                       \
        TRM_TYPE_CASE(TRM_DTYPE_I8, int8_t, T, __VA_ARGS__)                                        \
        TRM_TYPE_CASE(TRM_DTYPE_U8, uint8_t, T, __VA_ARGS__)                                       \
        TRM_TYPE_CASE(TRM_DTYPE_I16, int16_t, T, __VA_ARGS__)                                      \
        TRM_TYPE_CASE(TRM_DTYPE_U16, uint16_t, T, __VA_ARGS__)                                     \
        TRM_TYPE_CASE(TRM_DTYPE_I32, int32_t, T, __VA_ARGS__)                                      \
        TRM_TYPE_CASE(TRM_DTYPE_U32, uint32_t, T, __VA_ARGS__)                                     \
        TRM_TYPE_CASE(TRM_DTYPE_I64, int64_t, T, __VA_ARGS__)                                      \
        TRM_TYPE_CASE(TRM_DTYPE_U64, uint64_t, T, __VA_ARGS__)                                     \
        TRM_TYPE_CASE(TRM_DTYPE_BOOL, trm_bool, T, __VA_ARGS__)                                    \
    default:                                                                                       \
        break;                                                                                     \
    }

/* Element i of data whose dtype is known at run time only, and back: for kernels where that is not
 * what takes the time. */
template <class To> __device__ __forceinline__ To trm_load_as(trm_dtype dtype, const void *p,
                                                              size_t i)
{
    TRM_ANY(dtype, T, { return trm_convert<To, T>(static_cast<const T *>(p)[i]); });
    return To();
}
template <class From> __device__ __forceinline__ void trm_store_as(trm_dtype dtype, void *p,
                                                                   size_t i, From x)
{
    TRM_ANY(dtype, T, { static_cast<T *>(p)[i] = trm_convert<T, From>(x); });
}

#endif
