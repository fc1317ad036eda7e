/* Walking a map inside kernels: vectors, fast division, offsets of operands. */
#ifndef TRM_KERNELS_CUDA_ELEMENTWISE_MAP_CUH
#define TRM_KERNELS_CUDA_ELEMENTWISE_MAP_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/elementwise.h"

#define TRM_MAP_BLOCK 256

/* N elements that are loaded and stored as one */
template <class T, int N> struct alignas(sizeof(T) * N) trm_vector {
    T v[N];
};

template <class T> constexpr int trm_lanes()
{
    return 16 / static_cast<int>(sizeof(T));
}

template <class V> static inline bool trm_aligned(const void *p)
{
    return reinterpret_cast<uintptr_t>(p) % alignof(V) == 0;
}

/* Blocks for `items` work items of a thread each, that loop where the grid is full. */
static inline unsigned trm_map_grid(const trm_cuda *cuda, size_t items)
{
    const size_t most = static_cast<size_t>(cuda->multiprocessors) * 8;
    const size_t blocks = (items + TRM_MAP_BLOCK - 1) / TRM_MAP_BLOCK;

    return static_cast<unsigned>(blocks > most ? most : blocks < 1 ? 1 : blocks);
}

/* n / d for n < 2^31 by a multiplication (Granlund and Montgomery 1994, figure 4.1, with the sum
 * in 32 bits, which n < 2^31 allows). */
struct trm_divider {
    uint32_t d, mul, shift;

    void set(uint32_t divisor)
    {
        d = divisor < 1 ? 1 : divisor;
        for (shift = 0; (uint64_t{1} << shift) < d;)
            shift++;
        mul = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift) - d)) / d + 1);
    }
    __device__ __forceinline__ uint32_t div(uint32_t n) const
    {
        return (static_cast<uint32_t>((static_cast<uint64_t>(n) * mul) >> 32) + n) >> shift;
    }
};

/* A map as a kernel takes it. vectors: of N elements; elements beyond them go one by one. */
template <int kIn> struct trm_map {
    uint32_t total, vectors;
    int rank;
    trm_divider dim[TRM_RANK_MAX];
    uint32_t stride[kIn][TRM_RANK_MAX];

    __device__ __forceinline__ void locate(uint32_t e, uint32_t (&at)[kIn]) const
    {
#pragma unroll
        for (int i = 0; i < kIn; i++)
            at[i] = 0;
        for (int d = rank - 1; d > 0; d--) {
            const uint32_t q = dim[d].div(e), r = e - q * dim[d].d;

#pragma unroll
            for (int i = 0; i < kIn; i++)
                at[i] += r * stride[i][d];
            e = q;
        }
#pragma unroll
        for (int i = 0; i < kIn; i++)
            at[i] += e * stride[i][0];
    }
    /* the operand's innermost step: 0 or 1 where there are vectors */
    __device__ __forceinline__ uint32_t step(int i) const
    {
        return stride[i][rank - 1];
    }
};

/* Vectors of n elements: rows are whole vectors (one row may have a tail), and every operand steps
 * by 1 or 0 along them and begins them aligned. bytes[i]: of an element of operand i. */
template <int kIn>
static inline trm_map<kIn> trm_map_make(const trmi_cuda_map *m, int n, const void *const *in,
                                        const size_t *bytes, const void *out, size_t out_bytes)
{
    const int last = m->rank - 1;
    const size_t lanes = static_cast<size_t>(n);
    bool fits = (m->rank == 1 || m->dims[last] % n == 0) &&
                reinterpret_cast<uintptr_t>(out) % (out_bytes * lanes) == 0;
    trm_map<kIn> k;

    k.total = static_cast<uint32_t>(m->total);
    k.rank = m->rank;
    for (int d = 0; d < TRM_RANK_MAX; d++)
        k.dim[d].set(d < m->rank ? static_cast<uint32_t>(m->dims[d]) : 1);
    for (int i = 0; i < kIn; i++) {
        const bool used = i < m->inputs;

        for (int d = 0; d < TRM_RANK_MAX; d++)
            k.stride[i][d] = used && d < m->rank ? static_cast<uint32_t>(m->strides[i][d]) : 0;
        if (!used || m->strides[i][last] == 0)
            continue;
        fits = fits && m->strides[i][last] == 1 &&
               reinterpret_cast<uintptr_t>(in[i]) % (bytes[i] * lanes) == 0;
        for (int d = 0; d < last; d++)
            fits = fits && m->strides[i][d] % n == 0;
    }
    k.vectors = fits ? k.total / static_cast<uint32_t>(n) : 0;
    return k;
}

/* Work items of a map: a thread does one vector, or one element where there are none. */
template <int kIn> static inline size_t trm_map_items(const trm_map<kIn> &m)
{
    return m.vectors > 0 ? m.vectors : m.total;
}

/* N elements from `at` on, or one of them N times. */
template <class T, int N>
__device__ __forceinline__ trm_vector<T, N> trm_load(const T *p, uint32_t at, uint32_t step)
{
    trm_vector<T, N> v;

    if (step != 0) {
        v = *reinterpret_cast<const trm_vector<T, N> *>(p + at);
    } else {
        const T x = p[at];

#pragma unroll
        for (int j = 0; j < N; j++)
            v.v[j] = x;
    }
    return v;
}

/* Binary kernels: thread mapping for any function object f(T, T) -> O. One thread a vector, then
 * one an element for what is left; grid-stride. out may be a or b: an element is read before it is
 * written, by the thread that writes it. */
template <class F, class T, class O, int N>
__global__ void __launch_bounds__(TRM_MAP_BLOCK)
    trm_binary_kernel(trm_map<2> m, F f, const T *a, const T *b, O *out)
{
    TRM_KERNEL_BEGIN();
    const uint32_t first = blockIdx.x * blockDim.x + threadIdx.x, stride = gridDim.x * blockDim.x;
    uint32_t at[2];

    for (uint32_t v = first; v < m.vectors; v += stride) {
        trm_vector<O, N> r;

        m.locate(v * N, at);
        const trm_vector<T, N> x = trm_load<T, N>(a, at[0], m.step(0));
        const trm_vector<T, N> y = trm_load<T, N>(b, at[1], m.step(1));
#pragma unroll
        for (int j = 0; j < N; j++)
            r.v[j] = f(x.v[j], y.v[j]);
        *reinterpret_cast<trm_vector<O, N> *>(out + v * N) = r;
    }
    for (uint32_t e = m.vectors * N + first; e < m.total; e += stride) {
        m.locate(e, at);
        out[e] = f(a[at[0]], b[at[1]]);
    }
}

template <class F, class T, class O, int N>
static trm_status trm_binary_launch(const trm_cuda *cuda, cudaStream_t stream, F f,
                                    const trmi_cuda_map *m, const void *a, const void *b, void *out)
{
    const void *in[2] = {a, b};
    const size_t bytes[2] = {sizeof(T), sizeof(T)};

    if (m->total > TRMI_MAP_LIMIT)
        return trm_fail(TRM_ERR_INTERNAL, "a map of more than 2^30 elements");
    if (m->total == 0)
        return TRM_OK;
    const trm_map<2> k = trm_map_make<2>(m, N, in, bytes, out, sizeof(O));
    return trmi_launched(TRM_LAUNCH((trm_binary_kernel<F, T, O, N>),
                                    trm_map_grid(cuda, trm_map_items(k)), TRM_MAP_BLOCK, 0, stream,
                                    k, f, static_cast<const T *>(a), static_cast<const T *>(b),
                                    static_cast<O *>(out)),
                         "elementwise binary");
}

/* Unary kernels: out[i] = f(x[i]), the same way. `whole`: whole vectors, 0 where unaligned. */
template <class F, class T, class O, int N>
__global__ void __launch_bounds__(TRM_MAP_BLOCK)
    trm_unary_kernel(F f, const T *x, O *out, size_t n, size_t whole)
{
    TRM_KERNEL_BEGIN();
    const size_t first = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;

    f.begin();
    for (size_t v = first; v < whole; v += stride) {
        const trm_vector<T, N> in = reinterpret_cast<const trm_vector<T, N> *>(x)[v];
        trm_vector<O, N> r;

#pragma unroll
        for (int j = 0; j < N; j++)
            r.v[j] = f(in.v[j]);
        reinterpret_cast<trm_vector<O, N> *>(out)[v] = r;
    }
    for (size_t e = whole * N + first; e < n; e += stride)
        out[e] = f(x[e]);
}

template <class F, class T, class O, int N>
static trm_status trm_unary_launch(const trm_cuda *cuda, cudaStream_t stream, F f, const void *x,
                                   void *out, size_t n)
{
    const bool vectors = trm_aligned<trm_vector<T, N>>(x) && trm_aligned<trm_vector<O, N>>(out);
    const size_t whole = vectors ? n / N : 0;

    if (n == 0)
        return TRM_OK;
    return trmi_launched(TRM_LAUNCH((trm_unary_kernel<F, T, O, N>),
                                    trm_map_grid(cuda, whole > 0 ? whole : n), TRM_MAP_BLOCK, 0,
                                    stream, f, static_cast<const T *>(x), static_cast<O *>(out), n,
                                    whole),
                         "elementwise unary");
}

#endif
