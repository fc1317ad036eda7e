/* How values are gathered by a pooling: what its window and its global kernels share. */
#ifndef TRM_KERNELS_CUDA_POOL_CUH
#define TRM_KERNELS_CUDA_POOL_CUH

#include "kernels/cuda/gpu.cuh"

#include "kernels/cuda/pool.h"

/* What T is computed in. */
template <class T> struct pool_compute {
    using type = float;
    static __device__ __forceinline__ float lowest()
    {
        return -INFINITY;
    }
};
template <> struct pool_compute<double> {
    using type = double;
    static __device__ __forceinline__ double lowest()
    {
        return -INFINITY;
    }
};
template <> struct pool_compute<int8_t> {
    using type = int;
    static __device__ __forceinline__ int lowest()
    {
        return -1000;
    }
};
template <> struct pool_compute<uint8_t> {
    using type = int;
    static __device__ __forceinline__ int lowest()
    {
        return -1000;
    }
};

__device__ __forceinline__ int pool_up(int8_t x)
{
    return x;
}
__device__ __forceinline__ int pool_up(uint8_t x)
{
    return x;
}
template <class T> __device__ __forceinline__ auto pool_up(T x) -> decltype(trm_up(x))
{
    return trm_up(x);
}
/* a maximum of nothing is 0 in integers */
template <class T> struct pool_down {
    template <class A> static __device__ __forceinline__ T from(A x)
    {
        return trm_down<T>(x);
    }
};
template <> struct pool_down<int8_t> {
    static __device__ __forceinline__ int8_t from(int x)
    {
        return static_cast<int8_t>(x == -1000 ? 0 : x);
    }
};
template <> struct pool_down<uint8_t> {
    static __device__ __forceinline__ uint8_t from(int x)
    {
        return static_cast<uint8_t>(x == -1000 ? 0 : x);
    }
};

__device__ __forceinline__ float pool_pow(float x, float p)
{
    return powf(x, p);
}
__device__ __forceinline__ double pool_pow(double x, double p)
{
    return pow(x, p);
}
__device__ __forceinline__ float pool_sqrt(float x)
{
    return sqrtf(x);
}
__device__ __forceinline__ double pool_sqrt(double x)
{
    return sqrt(x);
}

/* b is taken: it is larger, or the first NaN */
template <class A> __device__ __forceinline__ bool pool_above(A a, A b)
{
    return a == a && (b > a || b != b);
}

template <class A, int kMode> __device__ __forceinline__ A pool_term(A v, int power)
{
    if constexpr (kMode == TRMI_POOL_LP) {
        v = v < A(0) ? -v : v;
        return power == 1 ? v : power == 2 ? v * v : pool_pow(v, A(power));
    } else {
        return v;
    }
}

/* Joins two parts of a window. */
template <class A, int kMode> __device__ __forceinline__ A pool_join(A a, A b)
{
    if constexpr (kMode == TRMI_POOL_MAX)
        return pool_above(a, b) ? b : a;
    else
        return a + b;
}

template <class A, int kMode> __device__ __forceinline__ A pool_result(A v, int count, int power)
{
    if constexpr (kMode == TRMI_POOL_AVERAGE)
        return count == 0 ? A(0) : v / A(count);
    else if constexpr (kMode == TRMI_POOL_LP)
        return power == 1 ? v : power == 2 ? pool_sqrt(v) : pool_pow(v, A(1) / A(power));
    else
        return v;
}

template <class T, int kVec> struct __align__(sizeof(T) * kVec) pool_vec {
    T v[kVec];
};

#endif
