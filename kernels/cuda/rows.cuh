/* Device helpers of the row kernels (reductions, softmax, normalisations, scans): 16-byte packs,
 * division by a constant, sums over a warp and a block. Included by .cu files after gpu.cuh. */
#ifndef TRM_KERNELS_CUDA_ROWS_CUH
#define TRM_KERNELS_CUDA_ROWS_CUH

#include "kernels/cuda/gpu.cuh"

namespace trmi_rows
{

constexpr unsigned kAll = 0xffffffffu;

/* V neighbours, loaded and stored at once. */
template <class T, int V> struct alignas(sizeof(T) * V) Pack {
    T v[V];
};
template <class T> constexpr int vector_of()
{
    return 16 / static_cast<int>(sizeof(T));
}
inline bool aligned16(const void *p)
{
    return (reinterpret_cast<uintptr_t>(p) & 15u) == 0;
}

/* The type that a float dtype is computed in. */
template <class T> struct Work {
    using type = float;
};
template <> struct Work<double> {
    using type = double;
};

/* n / d for n < 2^31 by one multiplication (Granlund and Montgomery, PLDI 1994, round-up form). */
struct Div {
    uint32_t d, mul, shift;
};
inline Div div_of(size_t divisor)
{
    Div v = {divisor == 0 ? 1u : static_cast<uint32_t>(divisor), 0, 0};

    while ((1ull << v.shift) < v.d)
        v.shift++;
    v.mul = static_cast<uint32_t>((((1ull << v.shift) - v.d) << 32) / v.d + 1);
    return v;
}
__device__ __forceinline__ uint32_t quotient(const Div &v, uint32_t n)
{
    return (static_cast<uint32_t>((static_cast<uint64_t>(n) * v.mul) >> 32) + n) >> v.shift;
}

/* exp and its like by type */
__device__ __forceinline__ float exp_of(float x)
{
    return expf(x);
}
__device__ __forceinline__ double exp_of(double x)
{
    return exp(x);
}
__device__ __forceinline__ float log_of(float x)
{
    return logf(x);
}
__device__ __forceinline__ double log_of(double x)
{
    return log(x);
}
__device__ __forceinline__ float sqrt_of(float x)
{
    return sqrtf(x);
}
__device__ __forceinline__ double sqrt_of(double x)
{
    return sqrt(x);
}
__device__ __forceinline__ float abs_of(float x)
{
    return fabsf(x);
}
__device__ __forceinline__ double abs_of(double x)
{
    return fabs(x);
}
__device__ __forceinline__ float max_of(float a, float b)
{
    return fmaxf(a, b);
}
__device__ __forceinline__ double max_of(double a, double b)
{
    return fmax(a, b);
}

template <class W> __device__ __forceinline__ W minus_infinity()
{
    return -static_cast<W>(INFINITY);
}

struct Sum {
    template <class W> __device__ __forceinline__ W operator()(W a, W b) const
    {
        return a + b;
    }
};
struct Max {
    template <class W> __device__ __forceinline__ W operator()(W a, W b) const
    {
        return max_of(a, b);
    }
};

template <class F, class W> __device__ __forceinline__ W warp_fold(F f, W x)
{
#pragma unroll
    for (int d = 16; d > 0; d /= 2)
        x = f(x, __shfl_xor_sync(kAll, x, d));
    return x;
}

/* All threads of the block (whole warps, 1024 at most) get the fold; scratch: 32 W of shared memory
 * that this call may use from here to its end, and again at the next call. */
template <class F, class W> __device__ __forceinline__ W block_fold(F f, W x, W *scratch)
{
    const unsigned warps = blockDim.x / 32, lane = threadIdx.x % 32;

    x = warp_fold(f, x);
    if (warps == 1)
        return x;
    __syncthreads();
    if (lane == 0)
        scratch[threadIdx.x / 32] = x;
    __syncthreads();
    x = scratch[0];
    for (unsigned i = 1; i < warps; i++)
        x = f(x, scratch[i]);
    return x;
}

} // namespace trmi_rows

#endif
