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
template <class T> __host__ __device__ constexpr int vector_of()
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

/* What a thread holds of one row: element (c * step + lane) * V + j is x[c * V + j]. What is
 * beyond the row is `pad`. */
template <class T, int V, int N, class W>
__device__ __forceinline__ void load_row(const T *row, uint32_t n, uint32_t lane,
                                         uint32_t step, W pad, W (&x)[N])
{
#pragma unroll
    for (int c = 0; c < N / V; c++) {
        const uint32_t e = (static_cast<uint32_t>(c) * step + lane) * V;

        if (e < n) {
            const Pack<T, V> p = *reinterpret_cast<const Pack<T, V> *>(row + e);

#pragma unroll
            for (int j = 0; j < V; j++)
                x[c * V + j] = trm_up(p.v[j]);
        } else {
#pragma unroll
            for (int j = 0; j < V; j++)
                x[c * V + j] = pad;
        }
    }
}
template <class T, int V, int N, class W>
__device__ __forceinline__ void store_row(T *row, uint32_t n, uint32_t lane,
                                          uint32_t step, const W (&x)[N])
{
#pragma unroll
    for (int c = 0; c < N / V; c++) {
        const uint32_t e = (static_cast<uint32_t>(c) * step + lane) * V;

        if (e < n) {
            Pack<T, V> p;

#pragma unroll
            for (int j = 0; j < V; j++)
                p.v[j] = trm_down<T>(x[c * V + j]);
            *reinterpret_cast<Pack<T, V> *>(row + e) = p;
        }
    }
}

/* V values of G in loads of 16 bytes at most (p aligned to them). */
template <int V, class G, class W>
__device__ __forceinline__ void load_values(const G *__restrict__ p, W (&x)[V])
{
    constexpr int kStep = V < vector_of<G>() ? V : vector_of<G>();

#pragma unroll
    for (int i = 0; i < V; i += kStep) {
        const Pack<G, kStep> from = *reinterpret_cast<const Pack<G, kStep> *>(p + i);

#pragma unroll
        for (int j = 0; j < kStep; j++)
            x[i + j] = static_cast<W>(trm_up(from.v[j]));
    }
}

/* out[i] = x in a float dtype */
template <class W> __device__ __forceinline__ void put_float(void *out, int dtype, size_t i, W x)
{
    switch (dtype) {
    case TRM_DTYPE_F32:
        static_cast<float *>(out)[i] = static_cast<float>(x);
        break;
    case TRM_DTYPE_F16:
        static_cast<__half *>(out)[i] = trm_down<__half>(static_cast<float>(x));
        break;
    case TRM_DTYPE_BF16:
        static_cast<__nv_bfloat16 *>(out)[i] = trm_down<__nv_bfloat16>(static_cast<float>(x));
        break;
    default:
        static_cast<double *>(out)[i] = static_cast<double>(x);
        break;
    }
}
/* in[i] of a float dtype */
__device__ __forceinline__ double get_float(const void *in, int dtype, size_t i)
{
    switch (dtype) {
    case TRM_DTYPE_F32:
        return static_cast<double>(static_cast<const float *>(in)[i]);
    case TRM_DTYPE_F16:
        return static_cast<double>(trm_up(static_cast<const __half *>(in)[i]));
    case TRM_DTYPE_BF16:
        return static_cast<double>(trm_up(static_cast<const __nv_bfloat16 *>(in)[i]));
    default:
        return static_cast<const double *>(in)[i];
    }
}

} // namespace trmi_rows

#endif
