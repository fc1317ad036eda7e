/* Paged attention of language models on the device (kernels/language.h: TrmPagedAttention).
 *
 * A run is three or four launches: rows (q and k are turned, q is rounded to what is computed with,
 * k and v go to their pages, rows of padding become zeros), narrow tiles, wide tiles (programs with
 * many rows), and the merge of partial results.
 *
 * What makes a query's bits depend on the query and its keys alone: keys are cut in splits at
 * absolute multiples of TRMI_LM_SPLIT. A split is summed by itself, in blocks of keys at absolute
 * multiples of their size, with a running maximum (the online softmax of FlashAttention-2, Dao,
 * arXiv:2307.08691); keys that the query does not see weigh exactly zero and leave the maximum, the
 * sum and the output as they were. Splits are merged in ascending order by lm_attention.cuh's
 * formula, in a tile's own kernel or in the merge's. Tiles only decide who does it.
 *
 * One exception: values of NaN or infinity (of a sequence that is lost anyway) may reach tokens
 * before theirs in the same tile. */
#ifndef TRM_KERNELS_CUDA_LM_ATTENTION_H
#define TRM_KERNELS_CUDA_LM_ATTENTION_H

#include "kernels/cuda/lm.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_LMC_HEAD_MAX 512
#define TRMI_LMC_MMA_HEAD_MAX 256

typedef struct trmi_lmc_attention {
    const float *q, *k, *v; /* [rows, heads * head_dim], [rows, kv_heads * head_dim] */
    const float *sinks;     /* [heads] or NULL */
    const int32_t *positions;
    const float *frequencies; /* [half]; half 0: q and k come turned */
    const trmi_lm_block *block;
    float *out;
    /* workspace */
    void *q_rounded;       /* as q, of `compute` */
    void *k_rows, *v_rows; /* encoder: as k and v, of `compute` */
    float *partials;       /* [partials_max][heads][head_dim] */
    float *tops;           /* [partials_max][heads][2]: maximum and sum */
    int32_t rows, heads, kv_heads, head_dim, group, first_head, window, layer, half;
    trm_dtype cache;   /* F32, F16, BF16, I8 */
    trm_dtype compute; /* F32: plain arithmetic; F16, BF16: tensor cores */
    int encoder, interleaved;
    float scale, cap, rope_scale;
    int multiprocessors;
} trmi_lmc_attention;

TRM_MUST_USE trm_status trmi_lmc_attention_rows(const trmi_lmc_attention *a, cudaStream_t stream);
TRM_MUST_USE trm_status trmi_lmc_attention_merge(const trmi_lmc_attention *a, cudaStream_t stream);
/* wide 0: the step's narrow tiles, 1: its wide ones. */
TRM_MUST_USE trm_status trmi_lmc_attention_simt(const trmi_lmc_attention *a, int wide,
                                                cudaStream_t stream);
/* head_dim a multiple of 16 up to TRMI_LMC_MMA_HEAD_MAX, compute F16 or BF16; by what the cache
 * holds. */
TRM_MUST_USE trm_status trmi_lmc_attention_f16(const trmi_lmc_attention *a, int wide,
                                               cudaStream_t stream);
TRM_MUST_USE trm_status trmi_lmc_attention_bf16(const trmi_lmc_attention *a, int wide,
                                                cudaStream_t stream);
TRM_MUST_USE trm_status trmi_lmc_attention_i8(const trmi_lmc_attention *a, int wide,
                                              cudaStream_t stream);
/* Shared memory that a block takes at most, bytes. */
size_t trmi_lmc_attention_simt_shared(int32_t head_dim);
size_t trmi_lmc_attention_mma_shared(int32_t head_dim);

#ifdef __cplusplus
}
#endif
#endif
