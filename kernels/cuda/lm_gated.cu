/* TrmGated. A thread does two vectors of four elements a block's width apart, loads first: with
 * eight blocks on a multiprocessor that is 128 KB on the way, and a layer of 14,336 elements still
 * makes 7 blocks. Elements behind the last whole vector are the last thread's. */
#include "kernels/cuda/lm_act.cuh"
#include "kernels/cuda/lm_rows.h"
#include "kernels/cuda/rows.cuh"

using namespace trmi_rows;

namespace
{

constexpr int kThreads = 256, kVectors = 2;

template <int kAct, bool kUp, int V>
__global__ void __launch_bounds__(kThreads)
    lm_gated(float cap, float inverse, size_t elems, const float *x, const float *up, float *out)
{
    TRM_KERNEL_BEGIN();
    using Vector = Pack<float, V>;
    const size_t vectors = elems / V;
    const size_t first = static_cast<size_t>(blockIdx.x) * kThreads * kVectors + threadIdx.x;
    Vector a[kVectors], b[kVectors];

#pragma unroll
    for (int i = 0; i < kVectors; i++) {
        const size_t at = first + static_cast<size_t>(i) * kThreads;

        if (at < vectors) {
            a[i] = reinterpret_cast<const Vector *>(x)[at];
            if (kUp)
                b[i] = reinterpret_cast<const Vector *>(up)[at];
        }
    }
#pragma unroll
    for (int i = 0; i < kVectors; i++) {
        const size_t at = first + static_cast<size_t>(i) * kThreads;

        if (at < vectors) {
#pragma unroll
            for (int j = 0; j < V; j++) {
                const float y = trm_lm_act(kAct, a[i].v[j], cap, inverse);

                a[i].v[j] = kUp ? __fmul_rn(y, b[i].v[j]) : y;
            }
            reinterpret_cast<Vector *>(out)[at] = a[i];
        }
    }
    if (V > 1 && blockIdx.x == gridDim.x - 1 && threadIdx.x < elems - vectors * V) {
        const size_t at = vectors * V + threadIdx.x;
        const float y = trm_lm_act(kAct, x[at], cap, inverse);

        out[at] = kUp ? __fmul_rn(y, up[at]) : y;
    }
}

template <int kAct, bool kUp, int V>
trm_status launch(cudaStream_t stream, float cap, size_t elems, const float *x, const float *up,
                  float *out)
{
    const size_t each = static_cast<size_t>(kThreads) * kVectors * V;
    const size_t blocks = (elems + each - 1) / each;

    if (blocks > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "activations of %zu elements", elems);
    return trmi_launched(TRM_LAUNCH((lm_gated<kAct, kUp, V>), static_cast<unsigned>(blocks),
                                    kThreads, 0, stream, cap, 1.0f / cap, elems, x, up, out),
                         "lm gated");
}

template <int kAct>
trm_status run(cudaStream_t stream, float cap, size_t elems, const float *x, const float *up,
               float *out)
{
    const bool wide = aligned16(x) && aligned16(out) && aligned16(up);

    if (up != nullptr)
        return wide ? launch<kAct, true, 4>(stream, cap, elems, x, up, out)
                    : launch<kAct, true, 1>(stream, cap, elems, x, up, out);
    return wide ? launch<kAct, false, 4>(stream, cap, elems, x, up, out)
                : launch<kAct, false, 1>(stream, cap, elems, x, up, out);
}

} // namespace

extern "C" trm_status trmi_cuda_lm_gated(cudaStream_t stream, trmi_lmc_act act, float cap,
                                         size_t elems, const float *x, const float *up, float *out)
{
    if (elems == 0)
        return TRM_OK;
    switch (act) {
    case TRMI_LMC_NONE:
        return run<TRMI_LMC_NONE>(stream, cap, elems, x, up, out);
    case TRMI_LMC_SILU:
        return run<TRMI_LMC_SILU>(stream, cap, elems, x, up, out);
    case TRMI_LMC_GELU:
        return run<TRMI_LMC_GELU>(stream, cap, elems, x, up, out);
    case TRMI_LMC_GELU_TANH:
        return run<TRMI_LMC_GELU_TANH>(stream, cap, elems, x, up, out);
    case TRMI_LMC_RELU:
        return run<TRMI_LMC_RELU>(stream, cap, elems, x, up, out);
    case TRMI_LMC_TANH:
        return run<TRMI_LMC_TANH>(stream, cap, elems, x, up, out);
    case TRMI_LMC_SOFTCAP:
        return run<TRMI_LMC_SOFTCAP>(stream, cap, elems, x, up, out);
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "activation %d", static_cast<int>(act));
    }
}
