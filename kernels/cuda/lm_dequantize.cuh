/* Block types of GGUF files inside kernels, as they lie in a file: four neighbours at a time, by
 * the operations of kernels/cpu/lm_dequantize.c, to the bit. A block begins at an even address, so
 * words are read as two halves. */
#ifndef TRM_KERNELS_CUDA_LM_DEQUANTIZE_CUH
#define TRM_KERNELS_CUDA_LM_DEQUANTIZE_CUH

#include "kernels/cuda/gpu.cuh"

namespace trmi_blocks
{

__device__ __forceinline__ uint32_t word(const unsigned char *p)
{
    const uint16_t *h = reinterpret_cast<const uint16_t *>(p);

    return static_cast<uint32_t>(h[0]) | static_cast<uint32_t>(h[1]) << 16;
}

__device__ __forceinline__ float half_of(const unsigned char *p)
{
    return trm_up(*reinterpret_cast<const __half *>(p));
}

/* four bits to the lowest bit of four bytes */
__device__ __forceinline__ uint32_t spread(uint32_t bits)
{
    return ((bits & 15u) * 0x00204081u) & 0x01010101u;
}

__host__ __device__ constexpr bool is_super(int type)
{
    return type >= TRM_DTYPE_Q2_K;
}

__host__ __device__ constexpr int offset_of(int type)
{
    return type == TRM_DTYPE_Q3_K   ? 4
           : type == TRM_DTYPE_Q4_0 ? 8
           : type == TRM_DTYPE_Q5_0 ? 16
           : type == TRM_DTYPE_Q6_K ? 32
           : type == TRM_DTYPE_Q8_0 ? 128
                                    : 0;
}

__host__ __device__ constexpr uint32_t bytes_of(int type)
{
    return type == TRM_DTYPE_Q4_0   ? 18
           : type == TRM_DTYPE_Q4_1 ? 20
           : type == TRM_DTYPE_Q5_0 ? 22
           : type == TRM_DTYPE_Q5_1 ? 24
           : type == TRM_DTYPE_Q8_0 ? 34
           : type == TRM_DTYPE_Q2_K ? 84
           : type == TRM_DTYPE_Q3_K ? 110
           : type == TRM_DTYPE_Q4_K ? 144
           : type == TRM_DTYPE_Q5_K ? 176
                                    : 210;
}

/* Four values u, with what scales them: w = d * scale * (u - offset) or d * scale * u -+ m * min.
 */
struct Quad {
    uint32_t u;
    float d, m;
    int scale, min;
};

/* quad q of 8 of group i of a plain block (i = 0) or of a superblock (i < 8) */
template <int kType>
__device__ __forceinline__ Quad read_quad(const unsigned char *b, uint32_t i, uint32_t q)
{
    Quad o = {0, 0.0f, 0.0f, 1, 1};
    const uint32_t half = q / 4; /* which 16 elements of the group */

    if constexpr (kType == TRM_DTYPE_Q8_0) {
        o.d = half_of(b);
        o.u = word(b + 2 + 4 * q) ^ 0x80808080u;
    } else if constexpr (!is_super(kType)) {
        constexpr bool kMins = offset_of(kType) == 0;
        constexpr bool kFive = kType == TRM_DTYPE_Q5_0 || kType == TRM_DTYPE_Q5_1;
        const unsigned char *p = b + (kMins ? 4 : 2);

        o.d = half_of(b);
        if (kMins)
            o.m = half_of(b + 2);
        o.u = word(p + (kFive ? 4 : 0) + 4 * (q % 4)) >> (half * 4) & 0x0f0f0f0fu;
        if (kFive)
            o.u |= spread(word(p) >> (4 * q)) << 4;
    } else if constexpr (kType == TRM_DTYPE_Q2_K) {
        o.u = word(b + 16 + i / 4 * 32 + 4 * q) >> (i % 4 * 2) & 0x03030303u;
        o.d = half_of(b + 80);
        o.m = half_of(b + 82);
        o.scale = b[2 * i + half] & 15;
        o.min = b[2 * i + half] >> 4;
    } else if constexpr (kType == TRM_DTYPE_Q3_K) {
        const unsigned char *s = b + 96;
        const uint32_t j = 2 * i + half;
        const int low = j < 8 ? s[j] & 15 : s[j - 8] >> 4;
        const int high = s[8 + j % 4] >> (2 * (j / 4)) & 3;

        o.u = word(b + 32 + i / 4 * 32 + 4 * q) >> (i % 4 * 2) & 0x03030303u;
        o.u |= (word(b + 4 * q) >> i & 0x01010101u) << 2;
        o.d = half_of(b + 108);
        o.scale = (low | high << 4) - 32;
    } else if constexpr (kType == TRM_DTYPE_Q6_K) {
        const uint32_t part = i % 4;

        o.u = word(b + i / 4 * 64 + part % 2 * 32 + 4 * q) >> (part / 2 * 4) & 0x0f0f0f0fu;
        o.u |= (word(b + 128 + i / 4 * 32 + 4 * q) >> (part * 2) & 0x03030303u) << 4;
        o.d = half_of(b + 208);
        o.scale = static_cast<int8_t>(b[192 + 2 * i + half]);
    } else { /* Q4_K, Q5_K */
        constexpr bool kFive = kType == TRM_DTYPE_Q5_K;
        const unsigned char *s = b + 4;

        o.u = word(b + (kFive ? 48 : 16) + i / 2 * 32 + 4 * q) >> (i % 2 * 4) & 0x0f0f0f0fu;
        if (kFive)
            o.u |= (word(b + 16 + 4 * q) >> i & 0x01010101u) << 4;
        o.d = half_of(b);
        o.m = half_of(b + 2);
        o.scale = i < 4 ? s[i] & 63 : (s[i + 4] & 15) | (s[i - 4] >> 6) << 4;
        o.min = i < 4 ? s[i + 4] & 63 : s[i + 4] >> 4 | (s[i] >> 6) << 4;
    }
    return o;
}

/* elements [4 * quad, 4 * quad + 4) of a row */
template <int kType>
__device__ __forceinline__ void load_quad(const unsigned char *row, uint32_t quad, float (&w)[4])
{
    constexpr int kOffset = offset_of(kType);
    constexpr uint32_t kGroups = is_super(kType) ? 8 : 1;
    const uint32_t group = quad / 8;
    const Quad o = read_quad<kType>(row + static_cast<size_t>(group / kGroups) * bytes_of(kType),
                                    group % kGroups, quad % 8);
    const float scale = __fmul_rn(o.d, static_cast<float>(o.scale));
    /* the min of Q4_1 and Q5_1 is added, that of K-quants subtracted */
    const float min = __fmul_rn(is_super(kType) ? -o.m : o.m, static_cast<float>(o.min));

#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int u = static_cast<int>(o.u >> (8 * j) & 255u);

        w[j] = __fmul_rn(scale, static_cast<float>(u - kOffset));
        if (kOffset == 0)
            w[j] = __fadd_rn(w[j], min);
    }
}

} // namespace trmi_blocks

#endif
