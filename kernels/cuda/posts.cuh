/* Post-ops on values in registers, for kernels of any family (posts.h). */
#ifndef TRM_KERNELS_CUDA_POSTS_CUH
#define TRM_KERNELS_CUDA_POSTS_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/posts.h"

/* What T is computed in. */
template <class T> struct trm_compute {
    using type = float;
};
template <> struct trm_compute<double> {
    using type = double;
};

__device__ __forceinline__ float trm_post_exp(float x)
{
    return expf(x);
}
__device__ __forceinline__ double trm_post_exp(double x)
{
    return exp(x);
}
__device__ __forceinline__ float trm_post_tanh(float x)
{
    return tanhf(x);
}
__device__ __forceinline__ double trm_post_tanh(double x)
{
    return tanh(x);
}
__device__ __forceinline__ float trm_post_erf(float x)
{
    return erff(x);
}
__device__ __forceinline__ double trm_post_erf(double x)
{
    return erf(x);
}
__device__ __forceinline__ float trm_post_expm1(float x)
{
    return expm1f(x);
}
__device__ __forceinline__ double trm_post_expm1(double x)
{
    return expm1(x);
}
template <class C> __device__ __forceinline__ C trm_post_clamp(C x, C lo, C hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

/* Posts of many instructions: one copy that is called, or kernels with many values a thread take
 * a minute to compile and spill. */
template <class C> __device__ __attribute__((noinline)) C trm_post_curve(int op, C x, C alpha)
{
    switch (op) {
    case TRM_OP_Sigmoid:
        return C(1) / (C(1) + trm_post_exp(-x));
    case TRM_OP_TrmSilu:
        return x / (C(1) + trm_post_exp(-x));
    case TRM_OP_Tanh:
        return trm_post_tanh(x);
    case TRM_OP_Gelu:
        if (alpha == C(0))
            return C(0.5) * x * (C(1) + trm_post_erf(x * C(0.70710678118654752)));
        return C(0.5) * x *
               (C(1) + trm_post_tanh(C(0.79788456080286536) * (x + C(0.044715) * x * x * x)));
    case TRM_OP_Elu:
        return x < C(0) ? alpha * trm_post_expm1(x) : x;
    default:
        return x;
    }
}

/* One unary post. `op` is the same for all threads. */
template <class C> __device__ __forceinline__ C trm_post_unary(int op, C x, C alpha, C beta)
{
    switch (op) {
    case TRM_OP_Relu:
        return x < C(0) ? C(0) : x;
    case TRM_OP_LeakyRelu:
        return x < C(0) ? alpha * x : x;
    case TRM_OP_Clip:
        return trm_post_clamp(x, alpha, beta);
    case TRM_OP_HardSigmoid:
        return trm_post_clamp(alpha * x + beta, C(0), C(1));
    case TRM_OP_HardSwish:
        return x * trm_post_clamp(x * C(1.0 / 6.0) + C(0.5), C(0), C(1));
    default:
        return trm_post_curve<C>(op, x, alpha);
    }
}

/* V elements that lie together, read at once: at most 16 bytes an instruction. */
template <class S, int V> struct alignas(sizeof(S) * V < 16 ? sizeof(S) * V : 16) trm_post_pack {
    S v[V];
};

template <class S, int V, class C>
__device__ __forceinline__ void trm_post_load(const void *from, size_t at, C (&out)[V])
{
    const auto p =
        *reinterpret_cast<const trm_post_pack<S, V> *>(static_cast<const S *>(from) + at);

#pragma unroll
    for (int i = 0; i < V; i++)
        out[i] = static_cast<C>(trm_up(p.v[i]));
}

/* The operand of a step for the V elements from `flat` on, which lie in the channels from `channel`
 * on (V > 1: so do CHANNEL operands, both aligned to V). T: the output's type. kStrided: there may
 * be STRIDED ones (much code for each element). */
template <class T, int V, class C, bool kStrided>
__device__ __forceinline__ void trm_post_operand(const trmi_posts &posts, const trmi_post_step &s,
                                                 size_t flat, size_t channel, C (&y)[V])
{
    if (s.mode == TRMI_POST_SAME || s.mode == TRMI_POST_CHANNEL) {
        const size_t at = s.mode == TRMI_POST_SAME ? flat : channel;

        if (s.wide)
            trm_post_load<float, V>(s.operand, at, y);
        else
            trm_post_load<T, V>(s.operand, at, y);
        return;
    }
#pragma unroll
    for (int i = 0; i < V; i++) {
        size_t rest = flat + i, at = 0;

        for (int d = posts.rank - 1; kStrided && s.mode == TRMI_POST_STRIDED && d >= 0; d--) {
            const size_t n = static_cast<size_t>(posts.dims[d]);

            at += rest % n * static_cast<size_t>(s.strides[d]);
            rest /= n;
        }
        y[i] = s.wide ? static_cast<C>(static_cast<const float *>(s.operand)[at])
                      : static_cast<C>(trm_up(static_cast<const T *>(s.operand)[at]));
    }
}

/* x[i] = posts(x[i]) for the V elements from `flat` on. */
template <class T, int V, class C, bool kStrided = true>
__device__ __forceinline__ void trm_posts_apply(const trmi_posts &posts, size_t flat,
                                                size_t channel, C (&x)[V])
{
    for (int p = 0; p < posts.count; p++) {
        const trmi_post_step &s = posts.steps[p];

        if (s.mode == TRMI_POST_UNARY) {
#pragma unroll
            for (int i = 0; i < V; i++)
                x[i] = trm_post_unary<C>(s.op, x[i], static_cast<C>(s.alpha),
                                         static_cast<C>(s.beta));
            continue;
        }
        C y[V];

        trm_post_operand<T, V, C, kStrided>(posts, s, flat, channel, y);
#pragma unroll
        for (int i = 0; i < V; i++)
            x[i] = s.op == TRM_OP_Add ? x[i] + static_cast<C>(s.alpha) * y[i] : x[i] * y[i];
    }
}

#endif
