/* Activations to int8, the CPU's bits (trmi_lm_quant_convert): eight threads a group of 32. */
#ifndef TRM_KERNELS_CUDA_LM_QUANT_X_CUH
#define TRM_KERNELS_CUDA_LM_QUANT_X_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/lm_quant.h"

/* Elements 4 * word on of group x, to its pair of a tile of kTokens; i: group in the pair. All
 * threads of the warp come here. */
template <int kTokens>
__device__ __forceinline__ void lmq_quantize_group(const float *x, bool aligned, int word,
                                                   trmi_lmq_aux aux, int offset, int token, int i,
                                                   bool keep, unsigned char *pair)
{
    float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};

    if (keep && aligned) {
        const float4 f = *reinterpret_cast<const float4 *>(x + 4 * word);

        v[0] = f.x, v[1] = f.y, v[2] = f.z, v[3] = f.w;
    } else if (keep) {
        for (int e = 0; e < 4; e++)
            v[e] = x[4 * word + e];
    }
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
        *reinterpret_cast<uint2 *>(pair + kTokens * 64 + token / 2 * 32 + i * 16 + token % 2 * 8) =
            meta;
    }
}

#endif
