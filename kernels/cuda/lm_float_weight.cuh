/* Kinds of weights that kernels of lm_float.h take: what a lane reads of a chunk of a panel, how it
 * becomes operands of mma, and what sums are multiplied by.
 *
 * e4m3 to bf16 is moving bits: sign to bit 15, exponent and mantissa to bits 10..4. bf16's bias is
 * 120 more, so the number is then 2^-120 of the element, and one bf16 multiplication by 2^120 makes
 * it right, exactly, subnormals included (mul and fma of bf16 keep them). That is 9 instructions
 * for 4 elements on any chip; the conversion instruction of sm_89 makes fp16, whose range is too
 * small for activations. The one element that comes out wrong, NaN, has made its scale NaN when the
 * weight was laid out. */
#ifndef TRM_KERNELS_CUDA_LM_FLOAT_WEIGHT_CUH
#define TRM_KERNELS_CUDA_LM_FLOAT_WEIGHT_CUH

#include "kernels/cuda/gpu.cuh"
#include "kernels/cuda/lm_float.h"

#include <string.h>

namespace trmi_lmf
{

/* 16 bytes, of any type. */
struct alignas(16) quad {
    uint32_t x[4];
};

__device__ __forceinline__ quad load_stream(const unsigned char *from)
{
    const uint4 v = __ldcs(reinterpret_cast<const uint4 *>(from));

    return quad{{v.x, v.y, v.z, v.w}};
}

/* What a sum is multiplied by: nothing, a scale of the row when a leaf ends, or a scale of the row
 * and TRMI_LMF_F8_BLOCK elements when those (or the leaf) end. */
enum scaling { UNSCALED, OF_ROW, OF_BLOCK };
constexpr int kBlockChunks = TRMI_LMF_F8_BLOCK / TRMI_LMF_CHUNK;

/* Weights of T as they are. */
template <class T> struct dense {
    using element = T;
    using type = T; /* of operands */
    static constexpr int kBytes = sizeof(T);
    static constexpr scaling kScaling = UNSCALED;

    __device__ static __forceinline__ float up(T x)
    {
        return trm_up(x);
    }

    /* A lane's elements of a chunk: 8 of row g, 8 of row g + 8. */
    struct fragment {
        quad low, high;

        /* at: the panel's chunk, by lane_at further */
        __device__ __forceinline__ void load(const unsigned char *at, const trmi_lmf_form &form)
        {
            low = load_stream(at);
            high = load_stream(at + form.half);
        }
        /* stage: the panel's chunk in shared memory */
        __device__ __forceinline__ void fetch(const unsigned char *stage, int lane, bool)
        {
            const quad *const w = reinterpret_cast<const quad *>(stage);

            low = w[lane];
            high = w[32 + lane];
        }
        __device__ __forceinline__ void operands(quad &l, quad &h) const
        {
            l = low;
            h = high;
        }
    };
    __device__ static __forceinline__ size_t lane_at(const trmi_lmf_form &form, int g, int t)
    {
        return g * form.row + t * 16;
    }
    /* Copies of 16 bytes that bring a panel's chunk to shared memory, one after another there;
     * where copy i comes from: */
    static constexpr int kCopies = 32 * sizeof(T);
    __device__ static __forceinline__ size_t copy_from(const trmi_lmf_form &form, int i)
    {
        return i / 32 * form.half + i % 32 / 4 * form.row + i % 4 * 16;
    }
};

struct e4m3 {
    unsigned char bits;
};

__device__ __forceinline__ uint32_t times_2_120(uint32_t pair)
{
    const __nv_bfloat16 up = __ushort_as_bfloat16(0x7b80);
    const __nv_bfloat162 y =
        __hmul2(__nv_bfloat162(__ushort_as_bfloat16(static_cast<unsigned short>(pair & 0xffffu)),
                               __ushort_as_bfloat16(static_cast<unsigned short>(pair >> 16))),
                __nv_bfloat162(up, up));

    return static_cast<uint32_t>(__bfloat16_as_ushort(y.x)) |
           static_cast<uint32_t>(__bfloat16_as_ushort(y.y)) << 16;
}
/* Bytes 0 and 2 as a pair, bytes 1 and 3 as another. */
__device__ __forceinline__ void even_odd(uint32_t w, uint32_t &even, uint32_t &odd)
{
    even = times_2_120((w << 4 & 0x07f007f0u) | (w << 8 & 0x80008000u));
    odd = times_2_120((w >> 4 & 0x07f007f0u) | (w & 0x80008000u));
}

/* A chunk of a panel: [32 lanes][row g, row g + 8][8 bytes], the second and third of four bytes
 * swapped, so that pairs come out as neighbours; plain: rows as they are. */
template <scaling kHow> struct f8 {
    using element = e4m3;
    using type = __nv_bfloat16;
    static constexpr int kBytes = 1;
    static constexpr scaling kScaling = kHow;

    __device__ static __forceinline__ float up(e4m3 x)
    {
        const uint32_t bits = x.bits;

        return __fmul_rn(__uint_as_float((bits & 0x80u) << 24 | (bits & 0x7fu) << 20),
                         __uint_as_float((127 + 120) << 23));
    }

    struct fragment {
        uint32_t x[4]; /* two of row g, two of row g + 8 */

        __device__ __forceinline__ void two_rows(uint2 low, uint2 high)
        {
            x[0] = __byte_perm(low.x, 0, 0x3120);
            x[1] = __byte_perm(low.y, 0, 0x3120);
            x[2] = __byte_perm(high.x, 0, 0x3120);
            x[3] = __byte_perm(high.y, 0, 0x3120);
        }
        __device__ __forceinline__ void load(const unsigned char *at, const trmi_lmf_form &form)
        {
            if (form.plain) {
                two_rows(__ldcs(reinterpret_cast<const uint2 *>(at)),
                         __ldcs(reinterpret_cast<const uint2 *>(at + form.half)));
            } else {
                const uint4 v = __ldcs(reinterpret_cast<const uint4 *>(at));

                x[0] = v.x;
                x[1] = v.y;
                x[2] = v.z;
                x[3] = v.w;
            }
        }
        __device__ __forceinline__ void fetch(const unsigned char *stage, int lane, bool plain)
        {
            if (plain) { /* [16 rows][32 bytes] */
                const uint2 *const w = reinterpret_cast<const uint2 *>(stage);

                two_rows(w[lane], w[32 + lane]);
            } else {
                const uint4 v = reinterpret_cast<const uint4 *>(stage)[lane];

                x[0] = v.x;
                x[1] = v.y;
                x[2] = v.z;
                x[3] = v.w;
            }
        }
        __device__ __forceinline__ void operands(quad &low, quad &high) const
        {
            even_odd(x[0], low.x[0], low.x[1]);
            even_odd(x[1], low.x[2], low.x[3]);
            even_odd(x[2], high.x[0], high.x[1]);
            even_odd(x[3], high.x[2], high.x[3]);
        }
    };
    __device__ static __forceinline__ size_t lane_at(const trmi_lmf_form &form, int g, int t)
    {
        return form.plain ? g * form.row + t * 8 : static_cast<size_t>(g * 64 + t * 16);
    }
    static constexpr int kCopies = 32;
    __device__ static __forceinline__ size_t copy_from(const trmi_lmf_form &form, int i)
    {
        return i / 2 * form.row + i % 2 * 16;
    }
};
using f8_row = f8<OF_ROW>;
using f8_128 = f8<OF_BLOCK>;

/* Scales of a panel's features g and g + 8, those of the next block on their way. Blocks are those
 * of K; OF_ROW there is one. */
template <int kPanels> struct scales {
    const float *from[kPanels]; /* feature g of the first block */
    float now[kPanels][2], next[kPanels][2];
    int block, last;

    __device__ __forceinline__ void read(float (&to)[kPanels][2], int which) const
    {
        const int at = (which < last ? which : last) * TRMI_LMF_PANEL;

#pragma unroll
        for (int p = 0; p < kPanels; p++) {
            to[p][0] = from[p][at];
            to[p][1] = from[p][at + 8];
        }
    }
    template <scaling kHow> __device__ __forceinline__ void begin(const trmi_lmf_form &form, int c)
    {
        last = form.blocks - 1;
        block = kHow == OF_BLOCK ? c / kBlockChunks : 0;
        read(now, block);
        if (kHow == OF_BLOCK)
            read(next, block + 1);
    }
    __device__ __forceinline__ void advance()
    {
        block++;
#pragma unroll
        for (int p = 0; p < kPanels; p++) {
            now[p][0] = next[p][0];
            now[p][1] = next[p][1];
        }
        read(next, block + 1);
    }
    /* After chunk c, numbers of `part` (features by e % 4 / 2) belong to `sum`: once a block, and
     * when the leaf ends. */
    template <int kEach>
    __device__ __forceinline__ void add(float (&part)[kPanels][kEach], float (&sum)[kPanels][kEach],
                                        int c, bool leaf_ends)
    {
        const bool block_ends = (c + 1) % kBlockChunks == 0;

        if (!block_ends && !leaf_ends)
            return;
#pragma unroll
        for (int p = 0; p < kPanels; p++)
#pragma unroll
            for (int e = 0; e < kEach; e++) {
                sum[p][e] = __fmaf_rn(now[p][e % 4 / 2], part[p][e], sum[p][e]);
                part[p][e] = 0.0f;
            }
        if (block_ends)
            advance();
    }
    template <int kEach>
    __device__ __forceinline__ void multiply(float (&sum)[kPanels][kEach]) const
    {
#pragma unroll
        for (int p = 0; p < kPanels; p++)
#pragma unroll
            for (int e = 0; e < kEach; e++)
                sum[p][e] = __fmul_rn(now[p][e % 4 / 2], sum[p][e]);
    }
};

} // namespace trmi_lmf

#endif
