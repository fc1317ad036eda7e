/* Activations to int8, the CPU's bits (trmi_lm_quant_convert): eight threads a group of 32. */
#ifndef TRM_KERNELS_CUDA_LM_QUANT_X_CUH
#define TRM_KERNELS_CUDA_LM_QUANT_X_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/lm_quant.h"

/* Elements 4 * word on of group x. */
__device__ __forceinline__ float4 lmq_load_group(const float *x, bool aligned, int word)
{
    x += 4 * word;
    return aligned ? *reinterpret_cast<const float4 *>(x) : make_float4(x[0], x[1], x[2], x[3]);
}

/* The same elements, loaded, to their group's pair of a column of `tokens`; i: group in the pair.
 * All threads of the warp come here. */
__device__ __forceinline__ void lmq_quantize_group(float4 x, int word, trmi_lmq_aux aux, int offset,
                                                   int tokens, int token, int i, bool keep,
                                                   unsigned char *pair)
{
    const float v[4] = {x.x, x.y, x.z, x.w};

    /* |x| as bits: infinite and NaN are above all others */
    uint32_t most = 0;
#pragma unroll
    for (int e = 0; e < 4; e++) {
        const uint32_t bits = __float_as_uint(v[e]) & 0x7fffffffu;

        most = bits > most ? bits : most;
    }
#pragma unroll
    for (int far = 1; far < 8; far *= 2) {
        const uint32_t other = __shfl_xor_sync(~0u, most, far);

        most = other > most ? other : most;
    }
    const float amax = __uint_as_float(most);
    const bool wild = most >= 0x7f800000u, none = wild || amax < 0x1p-120f;
    const float inverse = none ? 0.0f : __fdiv_rn(127.0f, amax);
    uint32_t q = 0;

#pragma unroll
    for (int e = 0; e < 4; e++) {
        /* rounds to nearest even: integers are the steps of fp32 here */
        const float r = __fadd_rn(__fmul_rn(v[e], inverse), 0x1.8p23f);

        q |= (__float_as_uint(r) & 255u) << (8 * e);
    }
    q = none ? 0 : q;
    int sum = __dp4a(static_cast<int>(q), 0x01010101, 0);
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    const int other = __shfl_xor_sync(~0u, sum, 4); /* of the other 16 */
    const float scale = wild ? __uint_as_float(0x7fc00000u) : none ? 0.0f : __fdiv_rn(amax, 127.0f);

    if (!keep)
        return;
    *reinterpret_cast<uint32_t *>(pair + (token * 4 + word % 4) * 16 + i * 8 + word / 4 * 4) = q;
    if (word == 0) {
        uint2 meta;

        meta.x = __float_as_uint(scale);
        meta.y = 0;
        if (aux == TRMI_LMQ_AUX_SEED)
            meta.y = static_cast<uint32_t>(-offset * (sum + other));
        else if (aux == TRMI_LMQ_AUX_SUM)
            meta.y = __float_as_uint(__fmul_rn(scale, static_cast<float>(sum + other)));
        else if (aux == TRMI_LMQ_AUX_HALVES)
            meta.y = (static_cast<uint32_t>(sum) & 0xffffu) | static_cast<uint32_t>(other) << 16;
        *reinterpret_cast<uint2 *>(pair + tokens * 64 + token / 2 * 32 + i * 16 + token % 2 * 8) =
            meta;
    }
}

/* Groups [0, items) on the block's threads. at(item): where its elements are, its token, its group
 * and its pair. Four loads of a thread are on their way at once: a block does little else. */
struct lmq_group {
    const float *x;
    int token, group;
    unsigned char *pair;
};
template <int kTokens, class At>
__device__ __forceinline__ void lmq_quantize(int items, bool aligned, trmi_lmq_aux aux, int offset,
                                             At at)
{
    constexpr int kAtOnce = 4;
    const int each = blockDim.x / 8, word = threadIdx.x % 8;

    for (int base = threadIdx.x / 8; base - static_cast<int>(threadIdx.x / 8) < items;
         base += kAtOnce * each) {
        float4 x[kAtOnce];

#pragma unroll
        for (int n = 0; n < kAtOnce; n++)
            x[n] = base + n * each < items ? lmq_load_group(at(base + n * each).x, aligned, word)
                                           : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
        for (int n = 0; n < kAtOnce; n++) {
            const lmq_group to = at(base + n * each);

            lmq_quantize_group(x[n], word, aux, offset, kTokens, to.token, to.group % 2,
                               base + n * each < items, to.pair);
        }
    }
}

#endif
