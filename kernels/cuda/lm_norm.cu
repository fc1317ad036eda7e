/* TrmNorm, TrmAddNorm: sum = x + y, out = norm(sum) * (gain + offset) + bias; out as floats,
 * or as products round it.
 *
 * Up to 1024 elements a warp has a group, up to 16384 a block has one, 16 elements a thread; a
 * thread keeps its elements in registers, so that memory is read once. All loads, of the gain too,
 * are on their way before the first sum: with few rows the wait for memory is what a norm costs.
 * Longer groups are read again for every pass. Which thread has which elements, and the order of
 * their sums: lm_norm.cuh. */
#include "kernels/cuda/lm_norm.cuh"

using namespace trmi_lm_norm;

namespace
{

constexpr int kWarps = 4; /* groups of a block, a warp each */

template <int kKind, int N, bool kBlock, bool kVector, bool kI8>
__global__ void __launch_bounds__(kBlock ? 1024 : kWarps * 32) lm_norm(NormParams p)
{
    TRM_KERNEL_BEGIN();
    __shared__ float scratch[32];
    const uint32_t group = kBlock ? blockIdx.x : blockIdx.x * kWarps + threadIdx.x / 32;
    const uint32_t lane = kBlock ? threadIdx.x : threadIdx.x % 32, step = kBlock ? blockDim.x : 32;
    const size_t at = static_cast<size_t>(group) * p.n;
    Four f[N / 4], gain[N / 4];

    if (group >= p.groups) /* whole warps */
        return;
#pragma unroll
    for (int c = 0; c < N / 4; c++)
        f[c] = load_sum<kVector>(p, at, (c * step + lane) * 4);
#pragma unroll
    for (int c = 0; c < N / 4; c++)
        if (kKind != TRMI_LMC_UNIT)
            gain[c] = load_four<kVector>(p.gain, (c * step + lane) * 4, p.n);
    norm_held<kKind, N, kVector, kI8>(p, at, lane, step, f, gain, GroupFold<kBlock>{scratch});
}

/* A block a group, which is read once a pass. Where x + y goes it is read again from there, by the
 * thread that wrote it. */
template <int kKind, bool kVector, bool kI8>
__global__ void __launch_bounds__(1024) lm_norm_long(NormParams p)
{
    TRM_KERNEL_BEGIN();
    __shared__ float scratch[32];
    const GroupFold<true> fold = {scratch};
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
        mean = __fdiv_rn(fold_four(all, fold), static_cast<float>(p.n));
        for (uint32_t e = begin; e < p.n; e += step)
            add_squares(acc, load_sum<kVector>(p, at, e), mean, e, p.n);
    }
    const float inverse = inverse_of<kKind>(fold_four(acc, fold), p);

    for (uint32_t e = begin; e / 128 * 128 < p.n; e += step) { /* whole warps: 128 elements */
        Four gain = acc;

        if (kKind != TRMI_LMC_UNIT)
            gain = load_four<kVector>(p.gain, e, p.n);
        finish<kKind, kVector, kI8>(p, at, e, load_sum<kVector>(p, at, e), gain, mean, inverse);
    }
}

template <int kKind, int N, bool kVector, bool kI8>
trm_status warps(cudaStream_t stream, const NormParams &p)
{
    return trmi_launched(TRM_LAUNCH((lm_norm<kKind, N, false, kVector, kI8>),
                                    (p.groups + kWarps - 1) / kWarps, kWarps * 32, 0, stream, p),
                         "lm norm");
}

template <int kKind, bool kVector, bool kI8>
trm_status run(cudaStream_t stream, const NormParams &p)
{
    if (p.n <= 128)
        return warps<kKind, 4, kVector, kI8>(stream, p);
    if (p.n <= 256)
        return warps<kKind, 8, kVector, kI8>(stream, p);
    if (p.n <= kWarpMost)
        return warps<kKind, 32, kVector, kI8>(stream, p);
    if (p.n <= kBlockMost)
        return trmi_launched(TRM_LAUNCH((lm_norm<kKind, kThreadElems, true, kVector, kI8>),
                                        p.groups, threads_of(p.n), 0, stream, p),
                             "lm norm");
    return trmi_launched(
        TRM_LAUNCH((lm_norm_long<kKind, kVector, kI8>), p.groups, 1024, 0, stream, p),
        "lm norm long");
}

template <int kKind> trm_status dispatch(cudaStream_t stream, const NormParams &p)
{
    const bool wide = p.n % 4 == 0 && aligned16(p.x) && aligned16(p.y) && aligned16(p.gain) &&
                      aligned16(p.bias) && aligned16(p.sum) && aligned16(p.out);

    if constexpr (kKind != TRMI_LMC_UNIT)
        if (p.rounds == TRM_DTYPE_I8)
            return wide ? run<kKind, true, true>(stream, p)
                        : trm_fail(TRM_ERR_INVALID_ARG,
                                   "a norm to int8: pointers must be of 16 bytes");
    return wide ? run<kKind, true, false>(stream, p) : run<kKind, false, false>(stream, p);
}

} // namespace

extern "C" trm_status trmi_cuda_lm_norm(cudaStream_t stream, const trmi_lmc_norm *norm,
                                        const trmi_lmc_norm_args *a)
{
    NormParams p = {};

    if (norm->groups > INT32_MAX || norm->n > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "norm of %zu groups of %zu", norm->groups, norm->n);
    if (norm->groups == 0 || norm->n == 0)
        return TRM_OK;
    if (norm->rounds == TRM_DTYPE_I8 && (norm->n % 32 != 0 || norm->kind == TRMI_LMC_UNIT))
        return trm_fail(TRM_ERR_INVALID_ARG, "a norm to int8 of %zu elements", norm->n);
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
    p.rounds = norm->rounds;
    p.sums = norm->sums;
    p.tile = trmi_lmq_tile(norm->groups);
    p.steps = static_cast<int32_t>((norm->n + TRMI_LMQ_STEP - 1) / TRMI_LMQ_STEP);
    switch (norm->kind) {
    case TRMI_LMC_RMS:
        return dispatch<TRMI_LMC_RMS>(stream, p);
    case TRMI_LMC_LAYER:
        return dispatch<TRMI_LMC_LAYER>(stream, p);
    default:
        return dispatch<TRMI_LMC_UNIT>(stream, p);
    }
}
