/* The core of paged attention: a tile of queries and one block of the cache.
 *
 * A query is one head of one row. Its softmax runs over blocks of TRMI_LM_BLOCK positions that lie
 * at absolute positions, in ascending order, with a running maximum. All that is done to a query
 * depends on the query and on the positions it sees: not on which queries share its tile, not on
 * which blocks or pages are looked at in vain (those add exact zeros, or are skipped). */
#ifndef TRM_KERNELS_CPU_LM_ATTENTION_H
#define TRM_KERNELS_CPU_LM_ATTENTION_H

#include "kernels/cpu/cpu.h"
#include "kernels/language.h"

#define TRMI_LM_BLOCK_PAGES 4
#define TRMI_LM_BLOCK (TRMI_LM_BLOCK_PAGES * TRM_KV_PAGE)
#define TRMI_LM_TILE 6 /* queries whose sums are in registers */
#define TRMI_LM_HEAD_MAX 512

typedef struct trmi_lm_tile {
    int count; /* queries, 1 to TRMI_LM_TILE */
    size_t head_dim;
    const float *q;   /* [count][head_dim], rows `stride` apart */
    float *out;       /* likewise: not yet divided by `sum` */
    size_t stride;    /* a multiple of 16: rows of `out` may be read and written up to it */
    float *top, *sum; /* [count]: the running maximum, and the sum of e^(score - top) */
    float scale, cap; /* cap 0: none */
    /* positions in the block that query i sees: [first[i], last[i]); none: first >= last */
    int first[TRMI_LM_TILE], last[TRMI_LM_TILE];
    /* The block's pages of this kv head. Pages that no query sees may be any that can be read. */
    const void *keys[TRMI_LM_BLOCK_PAGES], *values[TRMI_LM_BLOCK_PAGES];
    /* Fetch this block's values while keys are read, and the keys that come next, if any: for the
     * first tile on a block. Pages lie anywhere, so the hardware does not foresee them. */
    bool ahead;
    const void *next[TRMI_LM_BLOCK_PAGES]; /* or NULL */
} trmi_lm_tile;

/* Adds the block to its queries; by dtype of the cache. */
typedef void (*trmi_lm_attend_fn)(const trmi_lm_tile *tile);
typedef struct trmi_lm_attention {
    trmi_lm_attend_fn f32, f16, bf16;
    /* A page of bytes of one kv head (its scales behind it) as fp32; keys and values. */
    void (*widen_keys)(size_t head_dim, const int8_t *page, float *to);
    void (*widen_values)(size_t head_dim, const int8_t *page, float *to);
} trmi_lm_attention;
extern const trmi_lm_attention trmi_lm_attention_base, trmi_lm_attention_avx2,
    trmi_lm_attention_avx512;

#endif
