/* Products of language models with block types (lm.h: trmi_lmc_quant). Activations become int8 with
 * a scale a group of 32, dots are exact integers, and what is scaled and added is what the CPU
 * scales and adds (kernels/cpu/lm_linear_quant.h), in its order: the same bits inside a leaf.
 *
 * A packed weight is panels of 16 features; K goes in *pairs* of groups (64 elements), padded with
 * zeros to whole *steps* of two pairs. Everything is stored in the order in which it is read, 16
 * bytes a lane where the type has so many. Of a panel's pair, in this order:
 *
 *   values   u of lane l = 4 * g + t, in fragments of mma's A: register r of group i holds row g +
 *            8 * (r % 2), elements 4 * t + 16 * (r / 2) on, one a byte:
 *     8 bits         [2 groups][32 lanes][4 registers], taken back to signed
 *     4, 5, 6 bits   [32 lanes][2 groups][2 words]: nibbles; word h: registers 2h (low), 2h + 1
 *     5 bits         then [32 lanes] words: bit r + 4 * i of a byte is the fifth bit
 *     2, 3, 6 bits   (6: then) [32 lanes][2 groups] words: bits 2r on, two bits
 *     3 bits         then [32 lanes] words as the fifth bits
 *   scales   [16 rows] of: d[2] fp16; d, m, d, m fp16 (Q4_1, Q5_1); or, a byte each: scale, min,
 *            scale, min (Q4_K, Q5_K); 4 scales of 16 (Q3_K, Q6_K; Q2_K: with mins as high nibbles)
 *
 * K-quants: between the second and the third pair of a superblock stand d of 16 rows, or d and
 * dmin, so that either step of a superblock is one contiguous piece with them. Bytes to the file's:
 * Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K equal, Q3_K 1.04, Q4_K 1.03, Q5_K 1.02, Q6_K 1.01.
 *
 * Quantised activations are tiles of the tokens that a block takes, a tile [pairs][columns of 8 (or
 * 4 or 2) tokens]; a pair of a column is [token][t][16 bytes]: B's registers of both groups, then
 * [tokens / 2][2 groups][2 tokens] of {scale, aux}.
 *
 * Rows that come quantised (trmi_lmc_product.rounded) lie so too, in tiles of trmi_lmq_tile(rows)
 * tokens whatever the product: those that its blocks take as a rule. */
#ifndef TRM_KERNELS_CUDA_LM_QUANT_H
#define TRM_KERNELS_CUDA_LM_QUANT_H

#include "kernels/cuda/lm.h"

#if defined(__CUDACC__)
#define TRMI_LMQ_CONSTANT __host__ __device__ constexpr
#elif defined(__cplusplus)
#define TRMI_LMQ_CONSTANT constexpr
#else
#define TRMI_LMQ_CONSTANT static inline
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, dtype) */
#define TRMI_LMQ_TYPES(X)                                                                          \
    X(q4_0, Q4_0)                                                                                  \
    X(q4_1, Q4_1)                                                                                  \
    X(q5_0, Q5_0)                                                                                  \
    X(q5_1, Q5_1)                                                                                  \
    X(q8_0, Q8_0) X(q2_k, Q2_K) X(q3_k, Q3_K) X(q4_k, Q4_K) X(q5_k, Q5_K) X(q6_k, Q6_K)

#define TRMI_LMQ_PANEL 16   /* features */
#define TRMI_LMQ_STEP 128   /* elements of K */
#define TRMI_LMQ_WARPS 8    /* most of a block */
#define TRMI_LMQ_X_TOKEN 80 /* bytes of a token's pair */
#define TRMI_LMQ_TILE_MAX 64
#define TRMI_LMQ_COLUMN 8 /* most tokens of a column */

/* Constants of a type. */
TRMI_LMQ_CONSTANT int trmi_lmq_bits(trm_dtype t)
{
    return t == TRM_DTYPE_Q2_K                                                 ? 2
           : t == TRM_DTYPE_Q3_K                                               ? 3
           : t == TRM_DTYPE_Q4_0 || t == TRM_DTYPE_Q4_1 || t == TRM_DTYPE_Q4_K ? 4
           : t == TRM_DTYPE_Q5_0 || t == TRM_DTYPE_Q5_1 || t == TRM_DTYPE_Q5_K ? 5
           : t == TRM_DTYPE_Q6_K                                               ? 6
                                                                               : 8;
}
TRMI_LMQ_CONSTANT bool trmi_lmq_super(trm_dtype t)
{
    return t >= TRM_DTYPE_Q2_K;
}
TRMI_LMQ_CONSTANT bool trmi_lmq_mins(trm_dtype t)
{
    return t == TRM_DTYPE_Q4_1 || t == TRM_DTYPE_Q5_1 || t == TRM_DTYPE_Q2_K ||
           t == TRM_DTYPE_Q4_K || t == TRM_DTYPE_Q5_K;
}
TRMI_LMQ_CONSTANT bool trmi_lmq_halves(trm_dtype t) /* scales are of 16 elements */
{
    return t == TRM_DTYPE_Q2_K || t == TRM_DTYPE_Q3_K || t == TRM_DTYPE_Q6_K;
}
TRMI_LMQ_CONSTANT int trmi_lmq_pair_bytes(trm_dtype t)
{
    return trmi_lmq_bits(t) * 128 + (!trmi_lmq_super(t) && trmi_lmq_mins(t) ? 128 : 64);
}
TRMI_LMQ_CONSTANT int trmi_lmq_top_bytes(trm_dtype t) /* d and dmin of a superblock */
{
    return !trmi_lmq_super(t) ? 0 : trmi_lmq_mins(t) ? 64 : 32;
}
TRMI_LMQ_CONSTANT int trmi_lmq_step_bytes(trm_dtype t) /* what is read for a step */
{
    return 2 * trmi_lmq_pair_bytes(t) + trmi_lmq_top_bytes(t);
}
TRMI_LMQ_CONSTANT size_t trmi_lmq_step_at(trm_dtype t, size_t step)
{
    return step / 2 * (size_t)(4 * trmi_lmq_pair_bytes(t) + trmi_lmq_top_bytes(t)) +
           step % 2 * (size_t)(2 * trmi_lmq_pair_bytes(t));
}
/* Steps in flight for each warp: what hides the memory's latency. `leaves`: of a warp at once. */
TRMI_LMQ_CONSTANT int trmi_lmq_stages(int leaves)
{
    return leaves == 1 ? 4 : leaves == 2 ? 3 : 2;
}

/* How `aux` of a group of activations is read. */
typedef enum trmi_lmq_aux {
    TRMI_LMQ_AUX_NONE,
    TRMI_LMQ_AUX_SEED,  /* int32: -offset * sum: where the dot starts */
    TRMI_LMQ_AUX_SUM,   /* float: scale * sum */
    TRMI_LMQ_AUX_HALVES /* int16 [2]: sums of 16 */
} trmi_lmq_aux;
TRMI_LMQ_CONSTANT trmi_lmq_aux trmi_lmq_aux_of(trm_dtype t)
{
    return t == TRM_DTYPE_Q4_0 || t == TRM_DTYPE_Q5_0 ? TRMI_LMQ_AUX_SEED
           : t == TRM_DTYPE_Q2_K                      ? TRMI_LMQ_AUX_HALVES
           : trmi_lmq_mins(t)                         ? TRMI_LMQ_AUX_SUM
                                                      : TRMI_LMQ_AUX_NONE;
}
TRMI_LMQ_CONSTANT int trmi_lmq_seed_offset(trm_dtype t)
{
    return t == TRM_DTYPE_Q4_0 ? 8 : t == TRM_DTYPE_Q5_0 ? 16 : 0;
}

/* What rows that come quantised for weights of type t have as `aux` (trm_rounding.sums): 0:
 * nothing, 1: scale * sum, 2: sums of 16, else where the dot starts, with this offset. */
TRMI_LMQ_CONSTANT int trmi_lmq_sums(trm_dtype t)
{
    return trmi_lmq_aux_of(t) == TRMI_LMQ_AUX_SEED     ? trmi_lmq_seed_offset(t)
           : trmi_lmq_aux_of(t) == TRMI_LMQ_AUX_SUM    ? 1
           : trmi_lmq_aux_of(t) == TRMI_LMQ_AUX_HALVES ? 2
                                                       : 0;
}
TRMI_LMQ_CONSTANT trmi_lmq_aux trmi_lmq_aux_from(int sums)
{
    return sums == 0   ? TRMI_LMQ_AUX_NONE
           : sums == 1 ? TRMI_LMQ_AUX_SUM
           : sums == 2 ? TRMI_LMQ_AUX_HALVES
                       : TRMI_LMQ_AUX_SEED;
}
/* Tokens of a tile of `rows` rows that come quantised: a power of two, 2 to 64. */
TRMI_LMQ_CONSTANT int trmi_lmq_tile(size_t rows)
{
    return rows <= 2 ? 2 : rows <= 4 ? 4 : rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : 64;
}
/* Bytes of a token, and of a row in a tensor of such rows: twice as many, since what rows there are
 * is padded to whole tiles, by less than as many again. */
TRMI_LMQ_CONSTANT size_t trmi_lmq_token_bytes(size_t k)
{
    return (k + TRMI_LMQ_STEP - 1) / TRMI_LMQ_STEP * 2 * TRMI_LMQ_X_TOKEN;
}
TRMI_LMQ_CONSTANT size_t trmi_lmq_row_bytes(size_t k)
{
    return 2 * trmi_lmq_token_bytes(k);
}

/* Kernels, by the tokens of a tile: 2 with 4 leaves a warp at once, 4 with 2, more with one. */
typedef enum trmi_lmq_variant {
    TRMI_LMQ_2,
    TRMI_LMQ_4,
    TRMI_LMQ_8,
    TRMI_LMQ_16,
    TRMI_LMQ_32,
    TRMI_LMQ_64
} trmi_lmq_variant;

typedef struct trmi_lmq_segment {
    const unsigned char *data;
    uint64_t stride; /* between experts */
    const float *bias;
    float *out;
    int32_t n;
    int32_t panel_first; /* plain: panels of the segments before */
} trmi_lmq_segment;

/* A launch. A block is `panels_block` panels times `splits` warps, each of which sums its share of
 * the leaves of its panel; values are kept in `slots` of shared memory, a leaf's or those of the
 * nodes that a warp's leaves make. Then `values` of them are folded in order: after value v, the
 * top two are added outer[v] times. */
typedef struct trmi_lmq_args {
    const float *x; /* NULL: xq came quantised */
    unsigned char *xq;
    bool own; /* blocks have x in shared memory, at most two rows, and quantise or copy it there */
    const int32_t *starts, *row_of;
    trmi_lmq_segment segment[TRMI_LMC_SEGMENTS];
    uint64_t panel_bytes;
    int32_t m, k, segments, gated, experts;
    int32_t x_tokens;             /* of a tile of xq */
    int32_t steps, panels, tiles; /* of panels; tiles: of panels_block */
    int32_t panels_block, splits, sets, per_set, leaves, parts, slots, values;
    int32_t even, apart;
    uint16_t begin[TRM_TREE_LEAVES_MAX + 1]; /* groups */
    uint8_t slot_first[TRMI_LMQ_WARPS];      /* of a split */
    uint8_t local[TRM_TREE_LEAVES_MAX];      /* merges behind a leaf by the warp that has it */
    uint8_t outer[TRM_TREE_LEAVES_MAX], slot_of[TRM_TREE_LEAVES_MAX];
} trmi_lmq_args;

/* `grid_x` blocks share the tiles of panels; `grid_y`: tiles of tokens. */
#define TRMI_LMQ_DECLARE(name, type)                                                               \
    trm_status trmi_lmq_run_##name(trmi_lmq_variant variant, const trmi_lmq_args *args,            \
                                   unsigned grid_x, unsigned grid_y, size_t shared_bytes,          \
                                   cudaStream_t stream);
TRMI_LMQ_TYPES(TRMI_LMQ_DECLARE)
#undef TRMI_LMQ_DECLARE

/* x to args->xq (lm_quant_x.cu). */
trm_status trmi_lmq_quantize(trm_dtype dtype, const trmi_lmq_args *args, cudaStream_t stream);
/* `panels` panels of `rows` rows, `row_bytes` apart, both in device memory (lm_quant_pack.cu). */
trm_status trmi_lmq_pack(trm_dtype dtype, const void *from, size_t row_bytes, size_t rows, size_t k,
                         void *to, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
