/* One pair of groups of a panel: values from the packed form to mma's registers, scales, and what
 * is added for a group. See lm_quant.h for the form and lm_quant.cuh for how it is used. */
#ifndef TRM_KERNELS_CUDA_LM_QUANT_DOT_CUH
#define TRM_KERNELS_CUDA_LM_QUANT_DOT_CUH

#include "kernels/cuda/lm_quant_x.cuh"

namespace
{

/* Bits `kFrom` on of every byte that `kMask` keeps at bit `kTo`. */
template <int kFrom, int kTo, uint32_t kMask>
__device__ __forceinline__ uint32_t bits_at(uint32_t w)
{
    constexpr int kLeft = kTo > kFrom ? kTo - kFrom : 0, kRight = kFrom > kTo ? kFrom - kTo : 0;

    return (kLeft > 0 ? w << kLeft : w >> kRight) & (kMask << kTo);
}

/* u - offset of every byte, u below 64 */
template <uint32_t kOffset> __device__ __forceinline__ uint32_t less(uint32_t u)
{
    return ((u | 0x80808080u) - kOffset * 0x01010101u) ^ 0x80808080u;
}

/* Fragments of both groups. Values come as u where the seed or the mins see to the offset, else as
 * u - offset. */
template <trm_dtype T>
__device__ __forceinline__ void load_values(const unsigned char *pair, int lane,
                                            uint32_t (&a)[2][4])
{
    constexpr int kBits = trmi_lmq_bits(T);

    if constexpr (kBits == 8) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint4 w = *reinterpret_cast<const uint4 *>(pair + i * 512 + lane * 16);

            a[i][0] = w.x, a[i][1] = w.y, a[i][2] = w.z, a[i][3] = w.w;
        }
        return;
    }
    if constexpr (kBits >= 4) {
        const uint4 w = *reinterpret_cast<const uint4 *>(pair + lane * 16);
        const uint32_t words[4] = {w.x, w.y, w.z, w.w};

#pragma unroll
        for (int h = 0; h < 4; h++) {
            a[h / 2][h % 2 * 2] = words[h] & 0x0f0f0f0fu;
            a[h / 2][h % 2 * 2 + 1] = words[h] >> 4 & 0x0f0f0f0fu;
        }
    }
    if constexpr (kBits == 6 || kBits <= 3) {
        constexpr int kTo = kBits == 6 ? 4 : 0;
        const uint2 w = *reinterpret_cast<const uint2 *>(pair + (kBits == 6 ? 512 : 0) + lane * 8);
        const uint32_t words[2] = {w.x, w.y};

#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint32_t two[4] = {
                bits_at<0, kTo, 0x03030303u>(words[i]), bits_at<2, kTo, 0x03030303u>(words[i]),
                bits_at<4, kTo, 0x03030303u>(words[i]), bits_at<6, kTo, 0x03030303u>(words[i])};

#pragma unroll
            for (int r = 0; r < 4; r++)
                a[i][r] = kBits == 6 ? a[i][r] | two[r] : two[r];
        }
    }
    if constexpr (kBits == 5 || kBits == 3) {
        constexpr int kTo = kBits == 5 ? 4 : 2;
        const uint32_t w =
            *reinterpret_cast<const uint32_t *>(pair + (kBits == 5 ? 512 : 256) + lane * 4);
        const uint32_t one[2][4] = {
            {bits_at<0, kTo, 0x01010101u>(w), bits_at<1, kTo, 0x01010101u>(w),
             bits_at<2, kTo, 0x01010101u>(w), bits_at<3, kTo, 0x01010101u>(w)},
            {bits_at<4, kTo, 0x01010101u>(w), bits_at<5, kTo, 0x01010101u>(w),
             bits_at<6, kTo, 0x01010101u>(w), bits_at<7, kTo, 0x01010101u>(w)}};

#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int r = 0; r < 4; r++)
                a[i][r] |= one[i][r];
    }
    if constexpr (T == TRM_DTYPE_Q6_K || T == TRM_DTYPE_Q3_K) {
        constexpr uint32_t kOffset = T == TRM_DTYPE_Q6_K ? 32 : 4;

#pragma unroll
        for (int i = 0; i < 2; i++)
#pragma unroll
            for (int r = 0; r < 4; r++)
                a[i][r] = less<kOffset>(a[i][r]);
    }
}

/* What multiplies a group's dots of a row. d, m: times the 8-bit scale and min, without halves. */
struct row_scale {
    float d, m;
    int s[2], n[2]; /* with halves */
};

__device__ __forceinline__ float half_at(const unsigned char *p)
{
    return trm_up(*reinterpret_cast<const __half *>(p));
}

/* Of both groups of row `row` of the panel; top: d and dmin of the superblock. */
template <trm_dtype T>
__device__ __forceinline__ void load_scales(const unsigned char *pair, const unsigned char *top,
                                            int row, row_scale (&o)[2])
{
    const unsigned char *at = pair + trmi_lmq_bits(T) * 128;

    if constexpr (!trmi_lmq_super(T)) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            o[i].d = half_at(at + (trmi_lmq_mins(T) ? row * 8 + i * 4 : row * 4 + i * 2));
            o[i].m = trmi_lmq_mins(T) ? half_at(at + row * 8 + i * 4 + 2) : 0.0f;
        }
    } else {
        const uint32_t w = *reinterpret_cast<const uint32_t *>(at + row * 4);
        const float d = half_at(top + (trmi_lmq_mins(T) ? row * 4 : row * 2));
        const float m = trmi_lmq_mins(T) ? half_at(top + row * 4 + 2) : 0.0f;

#pragma unroll
        for (int i = 0; i < 2; i++) {
            o[i].d = d;
            o[i].m = m;
            if constexpr (!trmi_lmq_halves(T)) {
                o[i].d = __fmul_rn(d, static_cast<float>(w >> (16 * i) & 255u));
                o[i].m = __fmul_rn(m, static_cast<float>(w >> (16 * i + 8) & 255u));
            } else {
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const uint32_t b = w >> (16 * i + 8 * h) & 255u;

                    o[i].s[h] = trmi_lmq_mins(T) ? static_cast<int>(b & 15u)
                                                 : static_cast<int>(static_cast<int8_t>(b));
                    o[i].n[h] = static_cast<int>(b >> 4);
                }
            }
        }
    }
}

/* A group's dots. */
template <trm_dtype T> struct dots {
    int32_t v[trmi_lmq_halves(T) ? 2 : 1][4];

    /* aux: of the lane's two columns */
    __device__ __forceinline__ void begin(const uint32_t (&aux)[2])
    {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            if constexpr (trmi_lmq_halves(T))
                v[0][e] = v[1][e] = 0;
            else if constexpr (trmi_lmq_aux_of(T) == TRMI_LMQ_AUX_SEED)
                v[0][e] = static_cast<int32_t>(aux[e & 1]);
            else
                v[0][e] = 0;
        }
    }
    __device__ __forceinline__ void add(const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
    {
        if constexpr (trmi_lmq_halves(T)) {
            const uint32_t low[2] = {a[0], a[1]}, high[2] = {a[2], a[3]};

            trm_mma_m16n8k16_s8(v[0], low, b0, v[0]);
            trm_mma_m16n8k16_s8(v[1], high, b1, v[1]);
        } else {
            const uint32_t b[2] = {b0, b1};

            trm_mma_m16n8k32_s8(v[0], a, b, v[0]);
        }
    }
};

/* acc of row r (of 2) and column c (of 2), by the CPU's operations in its order. */
template <trm_dtype T>
__device__ __forceinline__ float add_group(float acc, const dots<T> &dot, int r, int c,
                                           const row_scale &w, float scale, uint32_t aux)
{
    if constexpr (trmi_lmq_halves(T)) {
        const int d = w.s[0] * dot.v[0][2 * r + c] + w.s[1] * dot.v[1][2 * r + c];

        acc = __fadd_rn(acc, __fmul_rn(__fmul_rn(w.d, scale), static_cast<float>(d)));
        if constexpr (trmi_lmq_mins(T)) {
            const int n = w.n[0] * static_cast<int16_t>(aux & 0xffffu) +
                          w.n[1] * static_cast<int16_t>(aux >> 16);

            acc = __fsub_rn(acc, __fmul_rn(__fmul_rn(w.m, scale), static_cast<float>(n)));
        }
        return acc;
    } else {
        const float f = static_cast<float>(dot.v[0][2 * r + c]);

        acc = __fadd_rn(acc, __fmul_rn(__fmul_rn(w.d, scale), f));
        if constexpr (trmi_lmq_mins(T)) {
            const float min = __fmul_rn(w.m, __uint_as_float(aux));

            acc = trmi_lmq_super(T) ? __fsub_rn(acc, min) : __fadd_rn(acc, min);
        }
        return acc;
    }
}

} // namespace

#endif
