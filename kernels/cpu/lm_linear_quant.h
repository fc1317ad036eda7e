/* Block types of language models' weights: how a file stores them and how panels do.
 *
 * Everything works on *groups*: 32 elements along K of one output. A value of the file is
 * w = scale * (u - offset) or w = scale * u - min, with u unsigned: u is what panels hold, since
 * the instruction that multiplies (vpdpbusd, vpmaddubsw) takes one unsigned and one signed operand.
 *
 * A panel is 16 outputs (lanes). Its data of a group is `bits` vectors of 64 bytes; byte 4 * lane +
 * i of a vector belongs to that lane, and to element 4 * q + i of the group where q, one of 8, is a
 * *quad*. Values of 8 bits: vector q is quad q. Otherwise:
 *   nibbles (4, 5, 6 bits): vectors 0 to 3; vector v holds quad v (low) and quad v + 4 (high);
 *   pairs (2, 3 bits: all of the value but its third bit; 6 bits: its upper two): two vectors;
 *          vector v holds quads 4 * v + s at bits 2 * s;
 *   single bits (3, 5 bits: the uppermost): one vector; quad q at bit q.
 * Types with scales of their own a group (Q4_0 to Q8_0) come in chunks of 2 groups: fp16 scales
 * [2][16], then mins [2][16] if the type has them, then the data of the groups. K-quants come in
 * chunks of a superblock, 8 groups: fp16 d[16] and dmin[16], 8-bit scales (and mins) of all groups,
 * data. A chunk at either end holds the data of the groups that are there only. Before the first
 * chunk of a K-quant stand 64 bytes whose first says how many groups of the superblock come before
 * the panel's first. */
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
    return t >= TRM_DTYPE_Q2_K;
}

static inline bool trmi_lm_halves(trm_dtype t) /* scales are of 16 elements */
{
    return t == TRM_DTYPE_Q2_K || t == TRM_DTYPE_Q3_K || t == TRM_DTYPE_Q6_K;
}

#ifdef __cplusplus
}
#endif
#endif
