/* A group's norm: what each thread holds of it and in which order that is added, for the kernels
 * that make one. Included by .cu files after gpu.cuh.
 *
 * Thread `lane` of `step` has elements (c * step + lane) * 4 + j, for c = 0, 1, ...; it sums those
 * of each j in order, then the four, then lanes by a butterfly, then warps in order. `step` follows
 * from the length, so the order of a group's sum does not depend on how many there are, and the
 * scalar form (odd lengths) adds in the order of the vector form. */
#ifndef TRM_KERNELS_CUDA_LM_NORM_CUH
#define TRM_KERNELS_CUDA_LM_NORM_CUH

#include "kernels/cuda/lm_quant_x.cuh"
#include "kernels/cuda/lm_rows.h"
#include "kernels/cuda/rows.cuh"

namespace trmi_lm_norm
{

using namespace trmi_rows;

constexpr int kThreadElems = 16; /* of a group that a block has */
constexpr uint32_t kWarpMost = 1024, kBlockMost = 1024 * kThreadElems;

/* Threads of a group that a block has. */
inline unsigned threads_of(uint32_t n)
{
    return (n + 32 * kThreadElems - 1) / (32 * kThreadElems) * 32;
}

struct NormParams {
    uint32_t groups, n;
    float epsilon, offset;
    const float *x, *y, *gain, *bias;
    float *sum;
    void *out;
    int32_t rounds;            /* trm_dtype of out: BF16, F16, I8; else F32 */
    int32_t sums, tile, steps; /* I8: lm_quant.h */
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

/* The same in T, rounded to nearest even as products round. */
template <bool kVector, class T>
__device__ __forceinline__ void store_halves(T *row, uint32_t e, uint32_t n, const Four &f)
{
    if (kVector) {
        if (e < n)
            *reinterpret_cast<Pack<T, 4> *>(row + e) = {{trm_down<T>(f.v[0]), trm_down<T>(f.v[1]),
                                                         trm_down<T>(f.v[2]), trm_down<T>(f.v[3])}};
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (e + j < n)
                row[e + j] = trm_down<T>(f.v[j]);
    }
}

/* of x + y, which is stored where it is wanted */
template <bool kVector>
__device__ __forceinline__ Four load_sum(const NormParams &p, size_t at, uint32_t e)
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

/* Of the threads of a group: a warp, or a block (scratch: 32 floats of shared memory). */
template <bool kBlock> struct GroupFold {
    float *scratch;
    __device__ __forceinline__ float operator()(float x) const
    {
        return kBlock ? block_fold(Sum(), x, scratch) : warp_fold(Sum(), x);
    }
};

template <class Fold> __device__ __forceinline__ float fold_four(const Four &acc, Fold fold)
{
    return fold(__fadd_rn(__fadd_rn(acc.v[0], acc.v[1]), __fadd_rn(acc.v[2], acc.v[3])));
}

template <int kKind> __device__ __forceinline__ float inverse_of(float squares, const NormParams &p)
{
    if (kKind == TRMI_LMC_UNIT)
        return squares == 0.0f ? 0.0f : __fdiv_rn(1.0f, __fsqrt_rn(squares));
    const float mean = __fdiv_rn(squares, static_cast<float>(p.n));

    return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, p.epsilon)));
}

/* Stores elements [e, e + 4) of the group that begins at `at` as the products that read them would
 * round them. kI8: whole warps come here, eight lanes to 32 elements; what is beyond the row is not
 * stored. */
template <bool kVector, bool kI8>
__device__ __forceinline__ void store_normed(const NormParams &p, size_t at, uint32_t e,
                                             const Four &f)
{
    if (kI8) {
        const uint32_t row = static_cast<uint32_t>(at / p.n),
                       tokens = static_cast<uint32_t>(p.tile);
        const uint32_t column = tokens < TRMI_LMQ_COLUMN ? tokens : TRMI_LMQ_COLUMN;
        const size_t pair = static_cast<size_t>(row / tokens) * p.steps * 2 + e / 64;

        lmq_quantize_group(make_float4(f.v[0], f.v[1], f.v[2], f.v[3]), static_cast<int>(e / 4 % 8),
                           trmi_lmq_aux_from(p.sums), p.sums, static_cast<int>(column),
                           static_cast<int>(row % column), static_cast<int>(e / 32 % 2), e < p.n,
                           static_cast<unsigned char *>(p.out) +
                               (pair * tokens + row % tokens / column * column) * TRMI_LMQ_X_TOKEN);
    } else if (p.rounds == TRM_DTYPE_BF16) {
        store_halves<kVector>(static_cast<__nv_bfloat16 *>(p.out) + at, e, p.n, f);
    } else if (p.rounds == TRM_DTYPE_F16) {
        store_halves<kVector>(static_cast<__half *>(p.out) + at, e, p.n, f);
    } else {
        store_four<kVector>(static_cast<float *>(p.out) + at, e, p.n, f);
    }
}

template <int kKind, bool kVector, bool kI8 = false>
__device__ __forceinline__ void finish(const NormParams &p, size_t at, uint32_t e, Four f,
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
    store_normed<kVector, kI8>(p, at, e, f);
}

/* A group whose elements the threads hold: f, and gain but for the kind without. The sum is
 * stored where it is wanted, then the norm. fold(x): of x of all threads of the group, lanes by a
 * butterfly, then warps in order. */
template <int kKind, int N, bool kVector, bool kI8 = false, class Fold>
__device__ __forceinline__ void norm_held(const NormParams &p, size_t at, uint32_t lane,
                                          uint32_t step, const Four (&f)[N / 4],
                                          const Four (&gain)[N / 4], Fold fold)
{
    Four acc = {{0.0f, 0.0f, 0.0f, 0.0f}};
    float mean = 0.0f;

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
        mean = __fdiv_rn(fold_four(all, fold), static_cast<float>(p.n));
    }
#pragma unroll
    for (int c = 0; c < N / 4; c++)
        add_squares(acc, f[c], mean, (c * step + lane) * 4, p.n);
    const float inverse = inverse_of<kKind>(fold_four(acc, fold), p);

#pragma unroll
    for (int c = 0; c < N / 4; c++)
        finish<kKind, kVector, kI8>(p, at, (c * step + lane) * 4, f[c], gain[c], mean, inverse);
}

} // namespace trmi_lm_norm

#endif
