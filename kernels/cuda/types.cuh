/* dtypes inside kernels: conversions, and switches from a trm_dtype to a C++ type. Included by
 * gpu.cuh. bool is uint8_t, 0 or 1. */
#ifndef TRM_KERNELS_CUDA_TYPES_CUH
#define TRM_KERNELS_CUDA_TYPES_CUH

#include "kernels/cuda/cuda.h"

/* Floats of any width to the type they are computed in, and back (round to nearest even). */
__device__ __forceinline__ float trm_up(float x)
{
    return x;
}
__device__ __forceinline__ double trm_up(double x)
{
    return x;
}
__device__ __forceinline__ float trm_up(__half x)
{
    return __half2float(x);
}
__device__ __forceinline__ float trm_up(__nv_bfloat16 x)
{
    return __bfloat162float(x);
}
template <class T> struct trm_down_to;
template <> struct trm_down_to<float> {
    __device__ static float from(float x)
    {
        return x;
    }
};
template <> struct trm_down_to<double> {
    __device__ static double from(double x)
    {
        return x;
    }
};
template <> struct trm_down_to<__half> {
    __device__ static __half from(float x)
    {
        return __float2half_rn(x);
    }
};
template <> struct trm_down_to<__nv_bfloat16> {
    __device__ static __nv_bfloat16 from(float x)
    {
        return __float2bfloat16_rn(x);
    }
};
/* trm_down<__half>(x) */
template <class T, class F> __device__ __forceinline__ T trm_down(F x)
{
    return trm_down_to<T>::from(x);
}

/* TRM_FLOATS(dtype, T, { ... return launch<T>(...); }): runs the block with T the C++ type of a
 * float dtype, else falls through to what follows. TRM_HALVES: F32, F16 and BF16 only.
 * TRM_INTS: integers and bool (as uint8_t). TRM_WIDTHS: T an unsigned type of the dtype's width,
 * for kernels that only move elements. */
#define TRM_TYPE_CASE(dtype_value, type, T, ...)                                                   \
    case dtype_value: {                                                                            \
        using T = type;                                                                            \
        __VA_ARGS__                                                                                \
    } break;
#define TRM_HALVES(dtype, T, ...)                                                                  \
    switch (dtype) {                                                                               \
        TRM_TYPE_CASE(TRM_DTYPE_F32, float, T, __VA_ARGS__)                                        \
        TRM_TYPE_CASE(TRM_DTYPE_F16, __half, T, __VA_ARGS__)                                       \
        TRM_TYPE_CASE(TRM_DTYPE_BF16, __nv_bfloat16, T, __VA_ARGS__)                               \
    default:                                                                                       \
        break;                                                                                     \
    }
#define TRM_FLOATS(dtype, T, ...)                                                                  \
    switch (dtype) {                                                                               \
        TRM_TYPE_CASE(TRM_DTYPE_F32, float, T, __VA_ARGS__)                                        \
        TRM_TYPE_CASE(TRM_DTYPE_F16, __half, T, __VA_ARGS__)                                       \
        TRM_TYPE_CASE(TRM_DTYPE_BF16, __nv_bfloat16, T, __VA_ARGS__)                               \
        TRM_TYPE_CASE(TRM_DTYPE_F64, double, T, __VA_ARGS__)                                       \
    default:                                                                                       \
        break;                                                                                     \
    }
#define TRM_INTS(dtype, T, ...)                                                                    \
    switch (dtype) {                                                                               \
        TRM_TYPE_CASE(TRM_DTYPE_I8, int8_t, T, __VA_ARGS__)                                        \
        TRM_TYPE_CASE(TRM_DTYPE_U8, uint8_t, T, __VA_ARGS__)                                       \
        TRM_TYPE_CASE(TRM_DTYPE_BOOL, uint8_t, T, __VA_ARGS__)                                     \
        TRM_TYPE_CASE(TRM_DTYPE_I16, int16_t, T, __VA_ARGS__)                                      \
        TRM_TYPE_CASE(TRM_DTYPE_U16, uint16_t, T, __VA_ARGS__)                                     \
        TRM_TYPE_CASE(TRM_DTYPE_I32, int32_t, T, __VA_ARGS__)                                      \
        TRM_TYPE_CASE(TRM_DTYPE_U32, uint32_t, T, __VA_ARGS__)                                     \
        TRM_TYPE_CASE(TRM_DTYPE_I64, int64_t, T, __VA_ARGS__)                                      \
        TRM_TYPE_CASE(TRM_DTYPE_U64, uint64_t, T, __VA_ARGS__)                                     \
    default:                                                                                       \
        break;                                                                                     \
    }
#define TRM_WIDTHS(dtype, T, ...)                                                                  \
    switch (trm_dtype_bytes(dtype)) {                                                              \
        TRM_TYPE_CASE(1, uint8_t, T, __VA_ARGS__)                                                  \
        TRM_TYPE_CASE(2, uint16_t, T, __VA_ARGS__)                                                 \
        TRM_TYPE_CASE(4, uint32_t, T, __VA_ARGS__)                                                 \
        TRM_TYPE_CASE(8, uint64_t, T, __VA_ARGS__)                                                 \
    default:                                                                                       \
        break;                                                                                     \
    }

#endif
