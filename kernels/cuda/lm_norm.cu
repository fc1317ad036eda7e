/* TrmNorm, TrmAddNorm: sum = x + y, out = norm(sum) * (gain + offset) + bias.
 *
 * Up to 1024 elements a warp has a group, up to 16384 a block has one, 16 elements a thread; a
 * thread keeps its elements in registers, so that memory is read once. All loads, of the gain too,
 * are on their way before the first sum: with few rows the wait for memory is what a norm costs.
 * Longer groups are read again for every pass.
 *
 * Thread `lane` of `step` has elements (c * step + lane) * 4 + j, for c = 0, 1, ...; it sums those
 * of each j in order, then the four, then lanes by a butterfly, then warps in order. `step` follows
 * from the length, so the order of a group's sum does not depend on how many there are, and the
 * scalar form (odd lengths) adds in the order of the vector form. */
#include "kernels/cuda/lm_rows.h"
#include "kernels/cuda/rows.cuh"

using namespace trmi_rows;

namespace
{

constexpr int kWarps = 4; /* groups of a block, a warp each */
constexpr int kThreadElems = 16;
constexpr uint32_t kWarpMost = 1024, kBlockMost = 1024 * kThreadElems;

struct Params {
    uint32_t groups, n;
    float epsilon, offset;
    const float *x, *y, *gain, *bias;
    float *sum, *out;
};

struct Four {
    float v[4];
};

/* elements [e, e + 4) of a row of n, zeros beyond */
template <bool kVector>
__device__ __forceinline__ Four load_four(const float *row, uint32_t e, uint32_t n)
{
    Four f = {{0.0f, 0.0f, 0.0f, 0.0f}};

    if (kVector) {
        if (e < n) {
            const Pack<float, 4> p = *reinterpret_cast<const Pack<float, 4> *>(row + e);

#pragma unroll
            for (int j = 0; j < 4; j++)
                f.v[j] = p.v[j];
        }
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (e + j < n)
                f.v[j] = row[e + j];
    }
    return f;
}

template <bool kVector>
__device__ __forceinline__ void store_four(float *row, uint32_t e, uint32_t n, const Four &f)
{
    if (kVector) {
        if (e < n)
            *reinterpret_cast<Pack<float, 4> *>(row + e) = {{f.v[0], f.v[1], f.v[2], f.v[3]}};
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (e + j < n)
                row[e + j] = f.v[j];
    }
}

/* of x + y, which is stored where it is wanted */
template <bool kVector>
__device__ __forceinline__ Four load_sum(const Params &p, size_t at, uint32_t e)
{
    Four f = load_four<kVector>(p.x + at, e, p.n);

    if (p.y != nullptr) {
        const Four g = load_four<kVector>(p.y + at, e, p.n);

#pragma unroll
        for (int j = 0; j < 4; j++)
            f.v[j] = __fadd_rn(f.v[j], g.v[j]);
    }
    return f;
}

__device__ __forceinline__ void add_four(Four &acc, const Four &f)
{
#pragma unroll
    for (int j = 0; j < 4; j++)
        acc.v[j] = __fadd_rn(acc.v[j], f.v[j]);
}

/* of the squares of f - mean, as far as the row goes */
__device__ __forceinline__ void add_squares(Four &acc, const Four &f, float mean, uint32_t e,
                                            uint32_t n)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const float d = e + j < n ? __fadd_rn(f.v[j], -mean) : 0.0f;

        acc.v[j] = __fmaf_rn(d, d, acc.v[j]);
    }
}

template <bool kBlock> __device__ __forceinline__ float fold(const Four &acc, float *scratch)
{
    const float x = __fadd_rn(__fadd_rn(acc.v[0], acc.v[1]), __fadd_rn(acc.v[2], acc.v[3]));

    return kBlock ? block_fold(Sum(), x, scratch) : warp_fold(Sum(), x);
}

template <int kKind> __device__ __forceinline__ float inverse_of(float squares, const Params &p)
{
    if (kKind == TRMI_LMC_UNIT)
        return squares == 0.0f ? 0.0f : __fdiv_rn(1.0f, __fsqrt_rn(squares));
    const float mean = __fdiv_rn(squares, static_cast<float>(p.n));

    return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, p.epsilon)));
}

template <int kKind, bool kVector>
__device__ __forceinline__ void finish(const Params &p, size_t at, uint32_t e, Four f,
                                       const Four &gain, float mean, float inverse)
{
#pragma unroll
    for (int j = 0; j < 4; j++) {
        if (kKind == TRMI_LMC_LAYER)
            f.v[j] = __fadd_rn(f.v[j], -mean);
        f.v[j] = __fmul_rn(f.v[j], inverse);
        if (kKind != TRMI_LMC_UNIT)
            f.v[j] = __fmul_rn(f.v[j], __fadd_rn(gain.v[j], p.offset));
    }
    if (p.bias != nullptr) {
        const Four b = load_four<kVector>(p.bias, e, p.n);

        add_four(f, b);
    }
    store_four<kVector>(p.out + at, e, p.n, f);
}

template <int kKind, int N, bool kBlock, bool kVector>
__global__ void __launch_bounds__(kBlock ? 1024 : kWarps * 32) lm_norm(Params p)
{
    TRM_KERNEL_BEGIN();
    __shared__ float scratch[32];
    const uint32_t group = kBlock ? blockIdx.x : blockIdx.x * kWarps + threadIdx.x / 32;
    const uint32_t lane = kBlock ? threadIdx.x : threadIdx.x % 32, step = kBlock ? blockDim.x : 32;
    const size_t at = static_cast<size_t>(group) * p.n;
    Four f[N / 4], gain[N / 4], acc = {{0.0f, 0.0f, 0.0f, 0.0f}};
    float mean = 0.0f;

    if (group >= p.groups) /* whole warps */
        return;
#pragma unroll
    for (int c = 0; c < N / 4; c++)
        f[c] = load_sum<kVector>(p, at, (c * step + lane) * 4);
#pragma unroll
    for (int c = 0; c < N / 4; c++)
        if (kKind != TRMI_LMC_UNIT)
            gain[c] = load_four<kVector>(p.gain, (c * step + lane) * 4, p.n);
    if (p.sum != nullptr) {
#pragma unroll
        for (int c = 0; c < N / 4; c++)
            store_four<kVector>(p.sum + at, (c * step + lane) * 4, p.n, f[c]);
    }
    if (kKind == TRMI_LMC_LAYER) {
        Four all = acc;

#pragma unroll
        for (int c = 0; c < N / 4; c++)
            add_four(all, f[c]);
        mean = __fdiv_rn(fold<kBlock>(all, scratch), static_cast<float>(p.n));
    }
#pragma unroll
    for (int c = 0; c < N / 4; c++)
        add_squares(acc, f[c], mean, (c * step + lane) * 4, p.n);
    const float inverse = inverse_of<kKind>(fold<kBlock>(acc, scratch), p);

#pragma unroll
    for (int c = 0; c < N / 4; c++)
        finish<kKind, kVector>(p, at, (c * step + lane) * 4, f[c], gain[c], mean, inverse);
}

/* A block a group, which is read once a pass. Where x + y goes it is read again from there, by the
 * thread that wrote it. */
template <int kKind, bool kVector> __global__ void __launch_bounds__(1024) lm_norm_long(Params p)
{
    TRM_KERNEL_BEGIN();
    __shared__ float scratch[32];
    const size_t at = static_cast<size_t>(blockIdx.x) * p.n;
    const uint32_t begin = threadIdx.x * 4, step = blockDim.x * 4;
    Four acc = {{0.0f, 0.0f, 0.0f, 0.0f}}, all = acc;
    float mean = 0.0f;

    for (uint32_t e = begin; e < p.n; e += step) {
        const Four f = load_sum<kVector>(p, at, e);

        if (p.sum != nullptr)
            store_four<kVector>(p.sum + at, e, p.n, f);
        if (kKind == TRMI_LMC_LAYER)
            add_four(all, f);
        else
            add_squares(acc, f, 0.0f, e, p.n);
    }
    if (p.sum != nullptr) {
        p.x = p.sum;
        p.y = nullptr;
    }
    if (kKind == TRMI_LMC_LAYER) {
        mean = __fdiv_rn(fold<true>(all, scratch), static_cast<float>(p.n));
        for (uint32_t e = begin; e < p.n; e += step)
            add_squares(acc, load_sum<kVector>(p, at, e), mean, e, p.n);
    }
    const float inverse = inverse_of<kKind>(fold<true>(acc, scratch), p);

    for (uint32_t e = begin; e < p.n; e += step) {
        Four gain = acc;

        if (kKind != TRMI_LMC_UNIT)
            gain = load_four<kVector>(p.gain, e, p.n);
        finish<kKind, kVector>(p, at, e, load_sum<kVector>(p, at, e), gain, mean, inverse);
    }
}

template <int kKind, int N, bool kVector> trm_status warps(cudaStream_t stream, const Params &p)
{
    return trmi_launched(TRM_LAUNCH((lm_norm<kKind, N, false, kVector>),
                                    (p.groups + kWarps - 1) / kWarps, kWarps * 32, 0, stream, p),
                         "lm norm");
}

template <int kKind, bool kVector> trm_status run(cudaStream_t stream, const Params &p)
{
    const unsigned threads = (p.n + 32 * kThreadElems - 1) / (32 * kThreadElems) * 32;

    if (p.n <= 128)
        return warps<kKind, 4, kVector>(stream, p);
    if (p.n <= 256)
        return warps<kKind, 8, kVector>(stream, p);
    if (p.n <= kWarpMost)
        return warps<kKind, 32, kVector>(stream, p);
    if (p.n <= kBlockMost)
        return trmi_launched(TRM_LAUNCH((lm_norm<kKind, kThreadElems, true, kVector>), p.groups,
                                        threads, 0, stream, p),
                             "lm norm");
    return trmi_launched(TRM_LAUNCH((lm_norm_long<kKind, kVector>), p.groups, 1024, 0, stream, p),
                         "lm norm long");
}

template <int kKind> trm_status dispatch(cudaStream_t stream, const Params &p)
{
    const bool wide = p.n % 4 == 0 && aligned16(p.x) && aligned16(p.y) && aligned16(p.gain) &&
                      aligned16(p.bias) && aligned16(p.sum) && aligned16(p.out);

    return wide ? run<kKind, true>(stream, p) : run<kKind, false>(stream, p);
}

} // namespace

extern "C" trm_status trmi_cuda_lm_norm(cudaStream_t stream, const trmi_lmc_norm *norm,
                                        const trmi_lmc_norm_args *a)
{
    Params p = {};

    if (norm->groups > INT32_MAX || norm->n > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "norm of %zu groups of %zu", norm->groups, norm->n);
    if (norm->groups == 0 || norm->n == 0)
        return TRM_OK;
    p.groups = static_cast<uint32_t>(norm->groups);
    p.n = static_cast<uint32_t>(norm->n);
    p.epsilon = norm->epsilon;
    p.offset = norm->offset;
    p.x = a->x;
    p.y = a->y;
    p.gain = a->gain;
    p.bias = a->bias;
    p.sum = a->sum;
    p.out = a->out;
    switch (norm->kind) {
    case TRMI_LMC_RMS:
        return dispatch<TRMI_LMC_RMS>(stream, p);
    case TRMI_LMC_LAYER:
        return dispatch<TRMI_LMC_LAYER>(stream, p);
    default:
        return dispatch<TRMI_LMC_UNIT>(stream, p);
    }
}
