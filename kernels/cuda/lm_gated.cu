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

/* Vector `at` of out, rounded as the products that read it would round it. */
template <class T, int V>
__device__ __forceinline__ void put_as(void *out, size_t at, const Pack<float, V> &a)
{
    Pack<T, V> to;

#pragma unroll
    for (int j = 0; j < V; j++)
        to.v[j] = trm_down<T>(a.v[j]);
    static_cast<Pack<T, V> *>(out)[at] = to;
}
template <int V>
__device__ __forceinline__ void put(void *out, int rounds, size_t at, const Pack<float, V> &a)
{
    if (rounds == TRM_DTYPE_BF16)
        put_as<__nv_bfloat16, V>(out, at, a);
    else if (rounds == TRM_DTYPE_F16)
        put_as<__half, V>(out, at, a);
    else
        static_cast<Pack<float, V> *>(out)[at] = a;
}

template <int kAct, bool kUp, int V>
__global__ void __launch_bounds__(kThreads)
    lm_gated(float cap, float inverse, size_t elems, const float *x, const float *up, void *out,
             int rounds)
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
            put<V>(out, rounds, at, a[i]);
        }
    }
    if (V > 1 && blockIdx.x == gridDim.x - 1 && threadIdx.x < elems - vectors * V) {
        const size_t at = vectors * V + threadIdx.x;
        const float y = trm_lm_act(kAct, x[at], cap, inverse);

        put<1>(out, rounds, at, {{kUp ? __fmul_rn(y, up[at]) : y}});
    }
}

template <int kAct, bool kUp, int V>
trm_status launch(cudaStream_t stream, float cap, size_t elems, const float *x, const float *up,
                  void *out, int rounds)
{
    const size_t each = static_cast<size_t>(kThreads) * kVectors * V;
    const size_t blocks = (elems + each - 1) / each;

    if (blocks > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "activations of %zu elements", elems);
    return trmi_launched(TRM_LAUNCH((lm_gated<kAct, kUp, V>), static_cast<unsigned>(blocks),
                                    kThreads, 0, stream, cap, 1.0f / cap, elems, x, up, out,
                                    rounds),
                         "lm gated");
}

template <int kAct>
trm_status run(cudaStream_t stream, float cap, size_t elems, const float *x, const float *up,
               void *out, int rounds)
{
    const bool wide = aligned16(x) && aligned16(out) && aligned16(up);

    if (up != nullptr)
        return wide ? launch<kAct, true, 4>(stream, cap, elems, x, up, out, rounds)
                    : launch<kAct, true, 1>(stream, cap, elems, x, up, out, rounds);
    return wide ? launch<kAct, false, 4>(stream, cap, elems, x, up, out, rounds)
                : launch<kAct, false, 1>(stream, cap, elems, x, up, out, rounds);
}

} // namespace

extern "C" trm_status trmi_cuda_lm_gated(cudaStream_t stream, trmi_lmc_act act, float cap,
                                         size_t elems, const float *x, const float *up, void *out,
                                         trm_dtype rounds)
{
    if (elems == 0)
        return TRM_OK;
    switch (act) {
    case TRMI_LMC_NONE:
        return run<TRMI_LMC_NONE>(stream, cap, elems, x, up, out, rounds);
    case TRMI_LMC_SILU:
        return run<TRMI_LMC_SILU>(stream, cap, elems, x, up, out, rounds);
    case TRMI_LMC_GELU:
        return run<TRMI_LMC_GELU>(stream, cap, elems, x, up, out, rounds);
    case TRMI_LMC_GELU_TANH:
        return run<TRMI_LMC_GELU_TANH>(stream, cap, elems, x, up, out, rounds);
    case TRMI_LMC_RELU:
        return run<TRMI_LMC_RELU>(stream, cap, elems, x, up, out, rounds);
    case TRMI_LMC_TANH:
        return run<TRMI_LMC_TANH>(stream, cap, elems, x, up, out, rounds);
    case TRMI_LMC_SOFTCAP:
        return run<TRMI_LMC_SOFTCAP>(stream, cap, elems, x, up, out, rounds);
    default:
        return trm_fail(TRM_ERR_UNSUPPORTED, "activation %d", static_cast<int>(act));
    }
}
