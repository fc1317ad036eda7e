/* Block types of language models' weights: how a file stores them and how panels do.
 *
 * Everything works on *groups*: 32 elements along K of one output. A value of the file is
 * w = scale * (u - offset) or w = scale * u - min, with u unsigned: u is what panels hold, since
 * the instruction that multiplies (vpdpbusd, vpmaddubsw) takes one unsigned and one signed operand.
 *
 * A panel is 16 outputs (lanes). Its data of a group is `bits` vectors of 64 bytes; byte 4 * lane +
 * i of a vector belongs to that lane, and to element 4 * q + i of the group where q, one of 8, is a
 * *quad*. Values of 8 bits: vector q is quad q. Otherwise:
 *   single bits (3, 5 bits: the uppermost): one vector; quad q at bit q;
 *   nibbles (4, 5, 6 bits): four vectors; vector v holds quad v (low) and quad v + 4 (high);
 *   pairs of bits (2, 3 bits: but the third; 6 bits: the upper two): two vectors; vector h holds
 *          quads 4 * h + s at bits 2 * s.
 * Groups come in pairs: first their scales, then the data of the groups. Types with scales of their
 * own a group (Q4_0 to Q8_0) have fp16 scales [2][16], then mins [2][16] if the type has them.
 * K-quants have 8-bit scales and mins, 32 bytes a group, and before the first pair of a superblock
 * fp16 d[16] and dmin[16]. A pair or superblock at either end of the panel holds only the groups
 * that are there. Before all of a K-quant stand 64 bytes whose first says how many groups of the
 * superblock come before the panel's first.
 * So memory is touched in the order of addresses, which prefetchers reward: with all scales of a
 * superblock before its data, and single bits after nibbles, one row of Q6_K ran at 23 GB/s, now at
 * 34 of the 34 that a plain read gets (Q4_K 27, Q5_1 24; Zen 4, one core, 2026-11). */
#ifndef TRM_KERNELS_CPU_LM_LINEAR_QUANT_H
#define TRM_KERNELS_CPU_LM_LINEAR_QUANT_H

#include "kernels/cpu/lm_linear.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_LM_GROUP 32
#define TRMI_LM_QUADS 8

/* A group as read from a file's row. */
typedef struct trmi_lm_group {
    uint32_t quads[TRMI_LM_QUADS]; /* 32 values u, four to a word, the first lowest */
    uint16_t d, m;                 /* fp16: scale and min (0: none) of the block or superblock */
    int16_t scale[2], min[2];      /* what multiplies d and m, for each 16 elements */
} trmi_lm_group;

/* Group `group` of a row of a block type. */
void trmi_lm_group_read(trm_dtype dtype, const void *row, size_t group, trmi_lm_group *out);

/* Constants of a type; with a constant argument they fold. */
static inline int trmi_lm_bits(trm_dtype t)
{
    return t == TRM_DTYPE_Q2_K                                                 ? 2
           : t == TRM_DTYPE_Q3_K                                               ? 3
           : t == TRM_DTYPE_Q4_0 || t == TRM_DTYPE_Q4_1 || t == TRM_DTYPE_Q4_K ? 4
           : t == TRM_DTYPE_Q5_0 || t == TRM_DTYPE_Q5_1 || t == TRM_DTYPE_Q5_K ? 5
           : t == TRM_DTYPE_Q6_K                                               ? 6
                                                                               : 8;
}

static inline int trmi_lm_offset(trm_dtype t) /* 0 with mins */
{
    return t == TRM_DTYPE_Q3_K   ? 4
           : t == TRM_DTYPE_Q4_0 ? 8
           : t == TRM_DTYPE_Q5_0 ? 16
           : t == TRM_DTYPE_Q6_K ? 32
           : t == TRM_DTYPE_Q8_0 ? 128
                                 : 0;
}

static inline bool trmi_lm_mins(trm_dtype t)
{
    return trmi_lm_offset(t) == 0;
}

static inline bool trmi_lm_super(trm_dtype t) /* a K-quant */
{
    return t >= TRM_DTYPE_Q2_K && t <= TRM_DTYPE_Q6_K;
}

static inline bool trmi_lm_halves(trm_dtype t) /* scales are of 16 elements */
{
    return t == TRM_DTYPE_Q2_K || t == TRM_DTYPE_Q3_K || t == TRM_DTYPE_Q6_K;
}

static inline size_t trmi_lm_data_bytes(trm_dtype t) /* of a group of a panel */
{
    return (size_t)trmi_lm_bits(t) * 64;
}

/* Where vectors are in a group's data: the four of nibbles, the two of pairs; single bits: 0. */
static inline size_t trmi_lm_nibbles_at(int bits)
{
    return bits == 4 ? 0 : 64;
}

static inline size_t trmi_lm_pairs_at(int bits, int half)
{
    return bits == 6 ? (half == 0 ? 0 : 320) : (size_t)((bits == 3) + half) * 64;
}

/* Scales before the data of a pair of groups. Of group i of the pair:
 *   plain:   d at 32 * i, mins at 64 + 32 * i, fp16 [16];
 *   K-quant: at 32 * i: scales [16], mins [16]; or, with halves, [16][2] int8 scales; or (Q2_K)
 *            [16][2] scales in the low nibble, mins in the high one. */
static inline size_t trmi_lm_head_bytes(trm_dtype t)
{
    return !trmi_lm_super(t) && trmi_lm_mins(t) ? 128 : 64;
}

/* Where group g of a panel is, in bytes from the panel's start: d and dmin of its superblock,
 * scales of its pair, its data; i: its place in the pair. */
typedef struct trmi_lm_place {
    size_t top, head, data, i;
} trmi_lm_place;

static inline __attribute__((always_inline)) trmi_lm_place trmi_lm_place_of(trm_dtype t,
                                                                            size_t before, size_t g)
{
    const size_t head = trmi_lm_head_bytes(t), data = trmi_lm_data_bytes(t);
    size_t at = g + before, pair = at / 2 - before / 2, super = at / 8;
    size_t first = at / 2 * 2 < before ? 0 : at / 2 * 2 - before; /* groups before the pair */
    trmi_lm_place o;

    if (trmi_lm_super(t)) {
        size_t start = super == 0 ? 0 : super * 8 - before; /* groups before the superblock */

        o.top = 64 + super * 64 + (super == 0 ? 0 : super * 4 - before / 2) * head + start * data;
        o.head = 64 + (super + 1) * 64 + pair * head + first * data;
        o.data = 64 + (super + 1) * 64 + (pair + 1) * head + g * data;
    } else {
        o.top = 0;
        o.head = pair * head + first * data;
        o.data = (pair + 1) * head + g * data;
    }
    o.i = at % 2;
    return o;
}

/* Groups of the first superblock that come before the panel's first. */
static inline size_t trmi_lm_before(trm_dtype t, const void *panel)
{
    return trmi_lm_super(t) ? *(const unsigned char *)panel : 0;
}

/* Asks for the group that is 2 KiB or a little more ahead. One row does without: the hardware keeps
 * up with a plain read of memory, and this would cost a fifth. With more rows it does not: Q4_0, 8
 * rows, 198 -> 325 Gop/s; 4 rows 175 -> 265 (1 to 12 KiB, into the first or second level, are no
 * better; Zen 4 at 33 GB/s, 2026-11). */
static inline __attribute__((always_inline)) void trmi_lm_ahead(trm_dtype t, const void *panel,
                                                                trmi_lm_place at)
{
    const size_t data = trmi_lm_data_bytes(t), head = trmi_lm_head_bytes(t);
    const size_t unit = trmi_lm_super(t) ? 64 + 4 * head + 8 * data : head + 2 * data;
    const size_t far = (2048 + unit - 1) / unit * unit;
    size_t line = at.i == 0 ? at.head : trmi_lm_super(t) ? at.top : at.head + head - 64;
    /* as a number: it may lie behind the weight, where a pointer may not be made */
    uintptr_t from = (uintptr_t)panel + far;

    __builtin_prefetch((const void *)(from + line));
#pragma GCC unroll 8
    for (size_t v = 0; v < data; v += 64)
        __builtin_prefetch((const void *)(from + at.data + v));
}

/* A group of a converted row: x = scale * q. scale is amax / 127, NaN if any element is infinite or
 * NaN, 0 if all are below 2^-120. Sums are what offsets and mins need. */
typedef struct trmi_lm_x {
    int8_t q[TRMI_LM_GROUP];
    int16_t sum[2];          /* of q, of each 16 */
    float scale, scaled_sum; /* scale * (sum[0] + sum[1]) */
} trmi_lm_x;

/* What every instruction set computes, in this order, without contraction, so that all give the
 * same bits (s, n: 8-bit scales and mins; dot: over u - offset, exact):
 *   d * s is exact in fp32;
 *   plain:          acc += (d * x.scale) * dot;       with mins: acc += m * x.scaled_sum
 *   Q4_K, Q5_K:     acc += ((d * s) * x.scale) * dot; acc -= (m * n) * x.scaled_sum
 *   halves:         acc += (d * x.scale) * (s0 * dot0 + s1 * dot1);
 *   Q2_K, moreover: acc -= (m * x.scale) * (n0 * sum0 + n1 * sum1) */

/* Of every type, the same for every instruction set: lm_linear_quant_pack.c. */
#define TRMI_LM_QUANT_TYPES(X)                                                                     \
    X(q4_0, Q4_0)                                                                                  \
    X(q4_1, Q4_1)                                                                                  \
    X(q5_0, Q5_0)                                                                                  \
    X(q5_1, Q5_1)                                                                                  \
    X(q8_0, Q8_0) X(q2_k, Q2_K) X(q3_k, Q3_K) X(q4_k, Q4_K) X(q5_k, Q5_K) X(q6_k, Q6_K)
#define TRMI_LM_QUANT_DECLARE(name, type)                                                          \
    size_t trmi_lm_quant_panel_##name(size_t k);                                                   \
    void trmi_lm_quant_pack_##name(const void *const *rows, size_t k, size_t k_offset, void *panel);
TRMI_LM_QUANT_TYPES(TRMI_LM_QUANT_DECLARE)
#undef TRMI_LM_QUANT_DECLARE

size_t trmi_lm_quant_row_bytes(size_t k);
/* One for each instruction set; all give the same bytes. */
void trmi_lm_quant_convert(const float *x, size_t k, void *row);
void trmi_lm_quant_convert_avx2(const float *x, size_t k, void *row);
void trmi_lm_quant_convert_avx512vnni(const float *x, size_t k, void *row);

#ifdef __cplusplus
}
#endif
#endif
