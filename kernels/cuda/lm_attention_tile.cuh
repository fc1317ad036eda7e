/* What is done to 16 queries and a block of keys on tensor cores: by a warp, the same in every
 * kernel, for the sake of bits. Of a 16 x 8 accumulator a thread has rows lane / 4 and lane / 4 + 8
 * (halves 0 and 1), columns lane % 4 * 2 and the next. */
#ifndef TRM_KERNELS_CUDA_LM_ATTENTION_TILE_CUH
#define TRM_KERNELS_CUDA_LM_ATTENTION_TILE_CUH

#include "kernels/cuda/lm_attention.cuh"

#include <string.h>

namespace
{

constexpr int kPad = 8; /* elements */

/* What is stored at once: elements of T, so that it may alias them. */
template <class T> struct alignas(16) chunk {
    T x[16 / sizeof(T)];
};
template <class T> struct alignas(4) couple {
    T x[2];
};
struct alignas(8) couple_f32 {
    float x[2];
};

__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    __half)
{
    trm_mma_m16n8k16_f16(d, a, b, d);
}
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    __nv_bfloat16)
{
    trm_mma_m16n8k16_bf16(d, a, b, d);
}

/* Two values rounded, as one register: lo in the low half. */
template <class T> __device__ __forceinline__ uint32_t pair(float lo, float hi)
{
    const couple<T> p = {{trm_down<T>(lo), trm_down<T>(hi)}};
    uint32_t bits;

    memcpy(&bits, &p, sizeof(bits));
    return bits;
}

/* What queries [query, query + 16) of a unit's item see: any of them, and all. */
struct lm_tile_sees {
    lm_range any, all;
};
__device__ __forceinline__ lm_tile_sees lm_tile_of(const trmi_lmc_attention &a, const lm_unit &u,
                                                   int query)
{
    const bool full = query + 15 < u.count;
    const lm_range first = lm_query_sees(a, u, query);
    const lm_range last = lm_query_sees(a, u, full ? query + 15 : u.count - 1);

    return lm_tile_sees{{first.first, last.last}, {last.first, full ? first.last : 0}};
}

/* s = q k, of kKeys keys. q: fragments (kHeld), or rows in shared memory at this lane's place. */
template <class T, int kDim, int kKeys, bool kHeld>
__device__ __forceinline__ void lm_scores(float (&s)[kKeys / 8][4],
                                          uint32_t (&qa)[kHeld ? kDim / 16 : 1][4], const T *k_tile,
                                          const T *q_rows, int head_dim)
{
    constexpr int kPitch = kDim + kPad;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const T *const keys = k_tile + (lane % 8 + lane / 16 * 8) * kPitch + lane / 8 % 2 * 8;

#pragma unroll
    for (int n = 0; n < kKeys / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            s[n][e] = 0.0f;
#pragma unroll(kHeld ? kDim / 16 : 2)
    for (int c = 0; c < kDim / 16; c++) {
        if (c * 16 >= head_dim)
            break;
        if constexpr (!kHeld)
            trm_ldmatrix_x4(qa[0], q_rows + c * 16);
#pragma unroll
        for (int n = 0; n < kKeys / 8; n += 2) {
            uint32_t kb[4];

            trm_ldmatrix_x4(kb, keys + n * 8 * kPitch + c * 16);
            const uint32_t b0[2] = {kb[0], kb[1]}, b1[2] = {kb[2], kb[3]};

            mma(s[n], qa[kHeld ? c : 0], b0, T());
            mma(s[n + 1], qa[kHeld ? c : 0], b1, T());
        }
    }
}

/* Products become scores times log2 e, -inf where the row does not see; the row's largest. scales:
 * of the keys, or NULL. */
template <int kKeys>
__device__ __forceinline__ float lm_mask(float (&s)[kKeys / 8][4], int half, int key, lm_range seen,
                                         bool all, float scale, float cap, const float *scales)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float most = -INFINITY;

#pragma unroll
    for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const int column = n * 8 + lane % 4 * 2 + e, j = key + column;
            float x = s[n][half * 2 + e];

            if (scales != nullptr)
                x = __fmul_rn(x, scales[column]);
            x = lm_score(x, scale, cap);
            if (!all && (j < seen.first || j >= seen.last))
                x = -INFINITY;
            s[n][half * 2 + e] = x;
            most = fmaxf(most, x);
        }
    }
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    return fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
}

/* Scores become weights 2^(score - shift); the sum of this thread's. scales: of the values, or
 * NULL: the weights, not their sum, are times them. */
template <int kKeys>
__device__ __forceinline__ float lm_weigh(float (&s)[kKeys / 8][4], int half, float shift,
                                          const float *scales)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float added = 0.0f;

#pragma unroll
    for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float w = trm_exp2(__fadd_rn(s[n][half * 2 + e], -shift));

            added = __fadd_rn(added, w);
            s[n][half * 2 + e] =
                scales != nullptr ? __fmul_rn(w, scales[n * 8 + lane % 4 * 2 + e]) : w;
        }
    }
    return added;
}

/* out += w v, of 16 keys and the first `columns` of kTiles * 8 columns. */
template <class T, int kTiles>
__device__ __forceinline__ void lm_add_values(float (&out)[kTiles][4], const uint32_t (&w)[4],
                                              const T *values, int pitch, int columns)
{
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const T *const at = values + (lane % 8 + lane / 8 % 2 * 8) * pitch + lane / 16 * 8;

#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
        uint32_t vb[4];

        if (n * 8 >= columns)
            break;
        trm_ldmatrix_x4_trans(vb, at + n * 8);
        const uint32_t b0[2] = {vb[0], vb[1]}, b1[2] = {vb[2], vb[3]};

        mma(out[n], w, b0, T());
        mma(out[n + 1], w, b1, T());
    }
}

} // namespace

#endif
