/* What the kernels of paged attention share: tiles and what their rows see, where keys lie, how
 * splits are merged. Arithmetic is written with its roundings, so that a compiler cannot contract
 * it in one kernel and not in another. */
#ifndef TRM_KERNELS_CUDA_LM_ATTENTION_CUH
#define TRM_KERNELS_CUDA_LM_ATTENTION_CUH

#include "kernels/cuda/gpu.cuh" /* first: it may emulate CUDA's headers */

#include "kernels/cuda/lm_attention.h"

#include <math.h>

#define LM_LOG2E 1.4426950408889634f

struct lm_range {
    int first, last; /* positions [first, last) */
};

/* Local kv head c and the query heads that read it, in the pages of one sequence. */
struct lm_keys {
    const unsigned char *base; /* page 0, keys of the head; of an encoder: position 0 */
    const int32_t *pages;      /* NULL: an encoder's, whose rows lie one behind the other */
    size_t page_bytes, values; /* a page; from a head's keys to its values */
    size_t row_bytes;
};

/* A unit of work: up to so many of an item's queries, heads of one kv head. Query i is token
 * i / heads, head head_first + i % heads. */
struct lm_unit {
    lm_keys keys;
    int sequence_tokens, position; /* of the item's first row */
    int row;                       /* of the step, the item's first */
    int head_first, heads;
    int first, count; /* queries [first, count) of the item are left */
    int split_begin, split_end, slot, slot_step;
};

__device__ __forceinline__ size_t lm_element_bytes(trm_dtype dtype)
{
    return dtype == TRM_DTYPE_F32 ? 4 : dtype == TRM_DTYPE_I8 ? 1 : 2;
}

/* From a page's keys of one head to the next head's. */
__device__ __forceinline__ size_t lm_head_bytes(const trmi_lmc_attention &a)
{
    return TRM_KV_PAGE * (static_cast<size_t>(a.head_dim) * lm_element_bytes(a.cache) +
                          (a.cache == TRM_DTYPE_I8 ? sizeof(float) : 0));
}

__device__ __forceinline__ lm_keys lm_keys_of(const trmi_lmc_attention &a,
                                              const trmi_lm_sequence &q, int c)
{
    lm_keys k;

    if (a.encoder != 0) {
        const size_t bytes = lm_element_bytes(a.compute);
        const size_t at = (static_cast<size_t>(q.row) * a.kv_heads + c) * a.head_dim * bytes;

        k.base = static_cast<const unsigned char *>(a.k_rows) + at;
        k.pages = nullptr;
        k.page_bytes = 0;
        k.values = static_cast<size_t>(static_cast<const unsigned char *>(a.v_rows) -
                                       static_cast<const unsigned char *>(a.k_rows));
        k.row_bytes = static_cast<size_t>(a.kv_heads) * a.head_dim * bytes;
    } else {
        const trmi_lm_layer *layer =
            TRMI_LM_AT(trmi_lm_layer, a.block, a.block->layers_at) + a.layer;
        const size_t head = lm_head_bytes(a);

        k.base = layer->pages + c * head;
        k.pages = TRMI_LM_AT(int32_t, a.block, a.block->pages_at) + q.page_first;
        k.page_bytes = layer->page_bytes;
        k.values = a.kv_heads * head;
        k.row_bytes = a.head_dim * lm_element_bytes(a.cache);
    }
    return k;
}

/* The key at a position; its value lies k.values behind it. */
__device__ __forceinline__ const unsigned char *lm_key_at(const lm_keys &k, int position)
{
    if (k.pages == nullptr)
        return k.base + position * k.row_bytes;
    return k.base + k.pages[position / TRM_KV_PAGE] * k.page_bytes +
           position % TRM_KV_PAGE * k.row_bytes;
}

/* Query heads [*first, *first + *count) of this rank that read local kv head c. */
__device__ __forceinline__ void lm_heads_of(const trmi_lmc_attention &a, int c, int *first,
                                            int *count)
{
    const int begin = (a.first_head / a.group + c) * a.group - a.first_head;
    const int end = begin + a.group < a.heads ? begin + a.group : a.heads;

    *first = begin > 0 ? begin : 0;
    *count = end > *first ? end - *first : 0;
}

/* Parts of `rows` queries that an item of `tokens` rows may have. */
inline __host__ __device__ int lm_parts(const trmi_lmc_attention &a, int tokens, int rows)
{
    const int heads = a.group < a.heads ? a.group : a.heads;

    return (tokens * heads + rows - 1) / rows;
}

/* Unit u of the step's narrow or wide ones; false: there is no such part of its item. */
__device__ __forceinline__ bool lm_unit_of(const trmi_lmc_attention &a, int wide, int parts,
                                           int rows, int64_t u, lm_unit *unit_out)
{
    const int item_index = static_cast<int>(u / (static_cast<int64_t>(a.kv_heads) * parts));
    const int c = static_cast<int>(u / parts % a.kv_heads), part = static_cast<int>(u % parts);
    const trmi_lm_item item =
        TRMI_LM_AT(trmi_lm_item, a.block,
                   a.block->items_at)[item_index + (wide != 0 ? a.block->item_count : 0)];
    const trmi_lm_sequence q =
        TRMI_LM_AT(trmi_lm_sequence, a.block, a.block->sequences_at)[item.sequence];

    lm_heads_of(a, c, &unit_out->head_first, &unit_out->heads);
    unit_out->first = part * rows;
    unit_out->count = item.rows * unit_out->heads;
    if (unit_out->first >= unit_out->count)
        return false;
    unit_out->keys = lm_keys_of(a, q, c);
    unit_out->sequence_tokens = q.tokens;
    unit_out->position = q.position + item.row - q.row;
    unit_out->row = item.row;
    unit_out->split_begin = item.split_begin;
    unit_out->split_end = item.split_end;
    unit_out->slot = item.slot;
    unit_out->slot_step = item.slot_step;
    if (a.encoder != 0) { /* items are made for causal attention */
        unit_out->split_begin = 0;
        unit_out->split_end = (q.tokens + TRMI_LM_SPLIT - 1) / TRMI_LM_SPLIT;
    }
    return true;
}

/* What the token at `position` sees. */
__device__ __forceinline__ lm_range lm_sees(const trmi_lmc_attention &a, int tokens, int position)
{
    if (a.encoder != 0)
        return lm_range{0, tokens};
    return lm_range{a.window > 0 && position >= a.window ? position + 1 - a.window : 0,
                    position + 1};
}

/* What query i of a unit's item sees; nothing where there is no such query. Both ends rise with i.
 */
__device__ __forceinline__ lm_range lm_query_sees(const trmi_lmc_attention &a, const lm_unit &u,
                                                  int i)
{
    if (i >= u.count)
        return lm_range{0, 0};
    return lm_sees(a, u.sequence_tokens, u.position + i / u.heads);
}

__device__ __forceinline__ bool lm_split_seen(const lm_range &seen, int split)
{
    return seen.first < (split + 1) * TRMI_LM_SPLIT && seen.last > split * TRMI_LM_SPLIT;
}

/* The softmax of what has been merged: the largest score (times log2 e) and the sum of 2^(score -
 * largest). A sink is a score without a value. */
struct lm_total {
    float top, sum;
};

__device__ __forceinline__ lm_total lm_total_begin(const float *sinks, int head)
{
    if (sinks == nullptr)
        return lm_total{-INFINITY, 0.0f};
    return lm_total{__fmul_rn(sinks[head], LM_LOG2E), 1.0f};
}

/* A split's result joins: output = part * weight + output so far * keep. */
struct lm_join {
    float keep, weight;
};
__device__ __forceinline__ lm_join lm_merge(lm_total &t, float top, float sum)
{
    const float most = fmaxf(t.top, top), shift = most == -INFINITY ? 0.0f : most;
    const lm_join j = {trm_exp2(__fadd_rn(t.top, -shift)), trm_exp2(__fadd_rn(top, -shift))};

    t.sum = __fmaf_rn(sum, j.weight, __fmul_rn(t.sum, j.keep));
    t.top = most;
    return j;
}
__device__ __forceinline__ float lm_joined(const lm_join &j, float part, float so_far)
{
    return __fmaf_rn(part, j.weight, __fmul_rn(so_far, j.keep));
}
__device__ __forceinline__ float lm_inverse(const lm_total &t)
{
    return t.sum == 0.0f ? 0.0f : __fdiv_rn(1.0f, t.sum);
}

/* A score times log2 e: scale is `scale` times that, or with a cap `scale` over the cap. */
__device__ __forceinline__ float lm_score(float product, float scale, float cap)
{
    const float x = __fmul_rn(product, scale);

    return cap > 0.0f ? __fmul_rn(tanhf(x), __fmul_rn(cap, LM_LOG2E)) : x;
}
__device__ __forceinline__ float lm_scale(const trmi_lmc_attention &a)
{
    return a.cap > 0.0f ? __fdiv_rn(a.scale, a.cap) : __fmul_rn(a.scale, LM_LOG2E);
}

/* Blocks of threads of `shared` bytes that fit a multiprocessor with 227 KB. */
inline int lm_resident(size_t shared, int most)
{
    const int fit = static_cast<int>(227 * 1024 / (shared + 1024));

    return fit < 1 ? 1 : fit < most ? fit : most;
}

/* A grid for at most `items` items: what the device runs at once, no more than there can be. */
inline unsigned lm_grid(const trmi_lmc_attention &a, int wide, int parts, int resident)
{
    const int64_t items =
        wide != 0 ? a.rows / TRMI_LM_NARROW_TOKENS : a.rows + trmi_lm_partials_max(a.rows);
    const int64_t units = items * a.kv_heads * parts;
    const int64_t most = static_cast<int64_t>(a.multiprocessors) * resident;

    return static_cast<unsigned>(units < most ? units : most);
}

#endif
