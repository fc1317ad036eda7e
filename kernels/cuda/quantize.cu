/* Quantisation, back, and the range of dynamic quantisation.
 *
 * A thread converts a vector of 16 bytes on the wider side, then what is left goes one by one. One
 * scale is read once a thread; others element by element (they lie in a cache). The range is found
 * in two steps: a block reduces a part, then one block the parts: maxima and minima do not depend
 * on the order. */
#include "kernels/cuda/cast.cuh"
#include "kernels/cuda/elementwise_map.cuh"
#include "kernels/cuda/quantize.h"

struct quant_args {
    uint32_t total, vectors, block, blocks, inner;
    trm_dtype scale_dtype;
    bool one;
    trm_divider by_inner, by_axis, by_block;
    const void *scale, *zero;
};

struct quant_numbers {
    float scale, zero;
};

template <class Q>
__device__ __forceinline__ quant_numbers numbers_at(const quant_args &q, uint32_t i)
{
    quant_numbers n;

    switch (q.scale_dtype) {
    case TRM_DTYPE_F32:
        n.scale = static_cast<const float *>(q.scale)[i];
        break;
    case TRM_DTYPE_F16:
        n.scale = trm_up(static_cast<const __half *>(q.scale)[i]);
        break;
    case TRM_DTYPE_BF16:
        n.scale = trm_up(static_cast<const __nv_bfloat16 *>(q.scale)[i]);
        break;
    default:
        n.scale = static_cast<float>(static_cast<const double *>(q.scale)[i]);
        break;
    }
    n.zero = q.zero != nullptr ? static_cast<float>(static_cast<const Q *>(q.zero)[i]) : 0.0f;
    return n;
}

/* the parameter of element e */
__device__ __forceinline__ uint32_t parameter_of(const quant_args &q, uint32_t e)
{
    const uint32_t line = q.by_inner.div(e), outer = q.by_axis.div(line);
    const uint32_t a = line - outer * q.by_axis.d;

    if (q.block == 0)
        return a;
    return (outer * q.blocks + q.by_block.div(a)) * q.inner + (e - line * q.inner);
}

template <class Q> struct quantize_f {
    using numbers = Q;
    template <class In> __device__ __forceinline__ static Q apply(In in, const quant_numbers &n)
    {
        constexpr bool kSigned = std::is_signed<Q>::value;
        constexpr float kHi = sizeof(Q) == 1 ? (kSigned ? 127 : 255) : (kSigned ? 32767 : 65535);
        constexpr float kLo = kSigned ? -kHi - 1 : 0;
        const float first = kLo - n.zero - 1, last = kHi - n.zero + 1;
        float x = trm_convert<float, In>(in) / n.scale;

        x = x > first ? x : first; /* NaN becomes the lowest value */
        x = x < last ? x : last;
        x = rintf(x) + n.zero;
        x = x > kLo ? x : kLo;
        x = x < kHi ? x : kHi;
        return static_cast<Q>(static_cast<int32_t>(x));
    }
};

template <class Q, class F> struct dequantize_f {
    using numbers = Q;
    __device__ __forceinline__ static F apply(Q in, const quant_numbers &n)
    {
        return trm_convert<F, float>((static_cast<float>(in) - n.zero) * n.scale);
    }
};

template <class F, class In, class Out, int N>
__global__ void __launch_bounds__(TRM_MAP_BLOCK) quant_kernel(quant_args q, const In *x, Out *y)
{
    using Q = typename F::numbers;
    TRM_KERNEL_BEGIN();
    const uint32_t first = blockIdx.x * blockDim.x + threadIdx.x, stride = gridDim.x * blockDim.x;
    quant_numbers n = {};

    if (q.one)
        n = numbers_at<Q>(q, 0);
    for (uint32_t v = first; v < q.vectors; v += stride) {
        const trm_vector<In, N> in = reinterpret_cast<const trm_vector<In, N> *>(x)[v];
        trm_vector<Out, N> r;

#pragma unroll
        for (int j = 0; j < N; j++) {
            if (!q.one)
                n = numbers_at<Q>(q, parameter_of(q, v * N + j));
            r.v[j] = F::apply(in.v[j], n);
        }
        reinterpret_cast<trm_vector<Out, N> *>(y)[v] = r;
    }
    for (uint32_t e = q.vectors * N + first; e < q.total; e += stride) {
        if (!q.one)
            n = numbers_at<Q>(q, parameter_of(q, e));
        y[e] = F::apply(x[e], n);
    }
}

template <class F, class In, class Out>
static trm_status run(const trm_cuda *cuda, cudaStream_t stream, const trmi_quantize *q,
                      const void *x, const void *scale, const void *zero, void *y)
{
    constexpr int kLanes = sizeof(In) > sizeof(Out) ? trm_lanes<In>() : trm_lanes<Out>();
    const bool vectors =
        trm_aligned<trm_vector<In, kLanes>>(x) && trm_aligned<trm_vector<Out, kLanes>>(y);
    const int64_t total = q->outer * q->axis * q->inner;
    quant_args a = {};

    if (total > TRMI_QUANTIZE_LIMIT)
        return trm_fail(TRM_ERR_INVALID_ARG, "quantisation of %lld elements",
                        static_cast<long long>(total));
    if (total == 0)
        return TRM_OK;
    a.total = static_cast<uint32_t>(total);
    a.vectors = vectors ? a.total / kLanes : 0;
    a.block = static_cast<uint32_t>(q->block);
    a.blocks = static_cast<uint32_t>(q->blocks);
    a.inner = static_cast<uint32_t>(q->inner);
    a.scale_dtype = q->scale;
    a.one = q->one;
    a.by_inner.set(a.inner);
    a.by_axis.set(static_cast<uint32_t>(q->axis));
    a.by_block.set(a.block);
    a.scale = scale;
    a.zero = zero;
    return trmi_launched(
        TRM_LAUNCH((quant_kernel<F, In, Out, kLanes>),
                   trm_map_grid(cuda, a.vectors > 0 ? a.vectors : a.total), TRM_MAP_BLOCK, 0,
                   stream, a, static_cast<const In *>(x), static_cast<Out *>(y)),
        "quantize");
}

template <class In>
static trm_status quantize_from(const trm_cuda *cuda, cudaStream_t stream, const trmi_quantize *q,
                                const void *x, const void *scale, const void *zero, void *y)
{
    switch (q->out) {
    case TRM_DTYPE_U8:
        return run<quantize_f<uint8_t>, In, uint8_t>(cuda, stream, q, x, scale, zero, y);
    case TRM_DTYPE_I8:
        return run<quantize_f<int8_t>, In, int8_t>(cuda, stream, q, x, scale, zero, y);
    case TRM_DTYPE_U16:
        return run<quantize_f<uint16_t>, In, uint16_t>(cuda, stream, q, x, scale, zero, y);
    case TRM_DTYPE_I16:
        return run<quantize_f<int16_t>, In, int16_t>(cuda, stream, q, x, scale, zero, y);
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "quantisation to %s", trm_dtype_name(q->out));
    }
}

extern "C" trm_status trmi_cuda_quantize(const trm_cuda *cuda, cudaStream_t stream,
                                         const trmi_quantize *q, const void *x, const void *scale,
                                         const void *zero, void *y)
{
    TRM_FLOATS(q->in, T, { return quantize_from<T>(cuda, stream, q, x, scale, zero, y); });
    if (q->in == TRM_DTYPE_I32)
        return quantize_from<int32_t>(cuda, stream, q, x, scale, zero, y);
    return trm_fail(TRM_ERR_UNSUPPORTED, "quantisation of %s", trm_dtype_name(q->in));
}

template <class F>
static trm_status dequantize_to(const trm_cuda *cuda, cudaStream_t stream, const trmi_quantize *q,
                                const void *x, const void *scale, const void *zero, void *y)
{
    switch (q->in) {
    case TRM_DTYPE_U8:
        return run<dequantize_f<uint8_t, F>, uint8_t, F>(cuda, stream, q, x, scale, zero, y);
    case TRM_DTYPE_I8:
        return run<dequantize_f<int8_t, F>, int8_t, F>(cuda, stream, q, x, scale, zero, y);
    case TRM_DTYPE_U16:
        return run<dequantize_f<uint16_t, F>, uint16_t, F>(cuda, stream, q, x, scale, zero, y);
    case TRM_DTYPE_I16:
        return run<dequantize_f<int16_t, F>, int16_t, F>(cuda, stream, q, x, scale, zero, y);
    case TRM_DTYPE_I32:
        return run<dequantize_f<int32_t, F>, int32_t, F>(cuda, stream, q, x, scale, zero, y);
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "dequantisation of %s", trm_dtype_name(q->in));
    }
}

extern "C" trm_status trmi_cuda_dequantize(const trm_cuda *cuda, cudaStream_t stream,
                                           const trmi_quantize *q, const void *x,
                                           const void *scale, const void *zero, void *y)
{
    TRM_FLOATS(q->out, T, { return dequantize_to<T>(cuda, stream, q, x, scale, zero, y); });
    return trm_fail(TRM_ERR_UNSUPPORTED, "dequantisation to %s", trm_dtype_name(q->out));
}

/* ---- range ---- */
struct range {
    float max, min, nan; /* nan > 0: there was one */
};

__device__ __forceinline__ range merge(const range &a, const range &b)
{
    return {fmaxf(a.max, b.max), fminf(a.min, b.min), fmaxf(a.nan, b.nan)};
}

/* Of a block of TRM_MAP_BLOCK threads; thread 0 has the result. */
__device__ __forceinline__ range block_range(range r)
{
    __shared__ range parts[TRM_MAP_BLOCK / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        range other;

        other.max = __shfl_xor_sync(0xffffffffu, r.max, step);
        other.min = __shfl_xor_sync(0xffffffffu, r.min, step);
        other.nan = __shfl_xor_sync(0xffffffffu, r.nan, step);
        r = merge(r, other);
    }
    if (lane == 0)
        parts[warp] = r;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int i = 1; i < TRM_MAP_BLOCK / 32; i++)
            r = merge(r, parts[i]);
    return r;
}

__global__ void __launch_bounds__(TRM_MAP_BLOCK)
    range_kernel(const float *x, size_t n, size_t vectors, range *parts)
{
    TRM_KERNEL_BEGIN();
    const size_t first = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
    const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
    range r = {0, 0, 0}; /* 0 is in the range */

    for (size_t v = first; v < vectors; v += stride) {
        const trm_vector<float, 4> in = reinterpret_cast<const trm_vector<float, 4> *>(x)[v];

#pragma unroll
        for (int j = 0; j < 4; j++) /* fmaxf and fminf pass NaN by */
            r = merge(r, {in.v[j], in.v[j], in.v[j] != in.v[j] ? 1.0f : 0.0f});
    }
    for (size_t i = vectors * 4 + first; i < n; i += stride)
        r = merge(r, {x[i], x[i], x[i] != x[i] ? 1.0f : 0.0f});
    r = block_range(r);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = r;
}

__global__ void __launch_bounds__(TRM_MAP_BLOCK)
    range_end_kernel(const range *parts, int count, float *scale_out, uint8_t *zero_out)
{
    TRM_KERNEL_BEGIN();
    range r = {0, 0, 0};

    for (int i = threadIdx.x; i < count; i += TRM_MAP_BLOCK)
        r = merge(r, parts[i]);
    r = block_range(r);
    if (threadIdx.x == 0) {
        /* data with NaN counts as all zero */
        const float max = r.nan > 0 ? 0.0f : r.max, min = r.nan > 0 ? 0.0f : r.min;
        const float scale = (max == min ? 1.0f : max - min) / 255.0f;
        const float zero = rintf(fmaxf(0.0f, fminf(255.0f, 0.0f - min / scale)));

        *scale_out = scale;
        *zero_out = zero >= 0.0f ? static_cast<uint8_t>(zero) : 0;
    }
}

extern "C" trm_status trmi_cuda_dynamic_range(const trm_cuda *cuda, cudaStream_t stream,
                                              const float *x, size_t n, float *scale,
                                              uint8_t *zero, void *workspace)
{
    range *parts = static_cast<range *>(workspace);
    const size_t vectors = trm_aligned<trm_vector<float, 4>>(x) ? n / 4 : 0;
    unsigned blocks = trm_map_grid(cuda, vectors > 0 ? vectors : n);

    static_assert(sizeof(range) * TRMI_DYNAMIC_BLOCKS <= TRMI_DYNAMIC_WORKSPACE, "workspace");
    if (blocks > TRMI_DYNAMIC_BLOCKS)
        blocks = TRMI_DYNAMIC_BLOCKS;
    if (n > 0)
        TRM_CHECK(trmi_launched(
            TRM_LAUNCH(range_kernel, blocks, TRM_MAP_BLOCK, 0, stream, x, n, vectors, parts),
            "dynamic range"));
    return trmi_launched(TRM_LAUNCH(range_end_kernel, 1, TRM_MAP_BLOCK, 0, stream, parts,
                                    n > 0 ? static_cast<int>(blocks) : 0, scale, zero),
                         "dynamic range, its end");
}
