/* Scaled dot-product attention on the device.
 *
 *   y[b, h, i, :] = sum over j of softmax_j(softcap(scale * q[b, h, i, :] . k[b, g, j, :]) +
 *                   mask[b, h, i, j]) v[b, g, j, :],   g = h / (heads / kv_heads),
 *
 * over the keys j that row i may see (causal, window and padding limits are a range of j for each
 * row). A row that sees no key is zero. A mask of -FLT_MAX is a number: a row that has it
 * everywhere weighs its keys by their scores as far as fp32 can tell. Scores of NaN or +inf give
 * NaN.
 *
 * The online softmax of FlashAttention-2 (Dao, arXiv:2307.08691): scores are never stored. Blocks
 * of keys are taken in order by one thread block for each block of query rows: the same inputs give
 * the same bits. Operands are views with strides, so that [b, h, s, d] and [b, s, h, d] are the
 * same to the kernels; one of k's row and column strides must be 1 (row 1: k is stored transposed).
 */
#ifndef TRM_KERNELS_CUDA_ATTENTION_H
#define TRM_KERNELS_CUDA_ATTENTION_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* [batch, heads, rows, columns] somewhere in device memory: strides in elements. */
typedef struct trmi_attention_view {
    const void *data;
    int64_t batch, head, row, column;
    trm_dtype dtype; /* NONE: absent */
} trmi_attention_view;

typedef struct trmi_attention {
    trmi_attention_view q, k, v; /* floats; columns of v contiguous */
    trmi_attention_view mask;    /* broadcast dims have stride 0. Floats are added; BOOL: true is
                                    seen */
    trmi_attention_view y;       /* data: see out; columns contiguous */
    void *out;
    const int64_t *nonpad; /* [batch] valid keys, and then offset is nonpad - q_len; NULL: all */
    int batch, heads, kv_heads, q_len, kv_len, dim, v_dim;
    int mask_len;    /* keys that the mask covers; those beyond are unseen */
    int offset;      /* keys before row 0 */
    int left, right; /* window, -1: unbounded */
    int causal;      /* row i sees keys up to offset + i */
    int multiprocessors;
    float softcap; /* 0: none */
    double scale;
} trmi_attention;

/* Tensor cores: q, k, v, y all F16 (BF16), dim and v_dim at most 128. 16-byte loads where bases and
 * strides allow them, else element by element. UNSUPPORTED: other dims. */
#define TRMI_ATTENTION_MMA_DIM 128
TRM_MUST_USE trm_status trmi_cuda_attention_f16(const trmi_attention *a, cudaStream_t stream);
TRM_MUST_USE trm_status trmi_cuda_attention_bf16(const trmi_attention *a, cudaStream_t stream);
/* Plain arithmetic in fp32 (fp64 where q is F64): any mix of float dtypes and any dims. */
TRM_MUST_USE trm_status trmi_cuda_attention_simt(const trmi_attention *a, cudaStream_t stream);

/* qk[b, h, i, j], dense, dtype of q: mode 0 scaled products, 1 after softcap, 2 with mask and
 * limits, 3 probabilities. */
TRM_MUST_USE trm_status trmi_cuda_attention_scores(const trmi_attention *a, int mode,
                                                   trm_dtype dtype, void *qk, cudaStream_t stream);

/* present[b, h, :, :] = past[b, h, :, :] then the rows of [b, h, rows, columns] or, flat,
 * [b, rows, h, columns]. */
typedef struct trmi_attention_cache {
    size_t batch, heads, past_rows, rows, columns;
    bool flat;
    trm_dtype dtype;
} trmi_attention_cache;
TRM_MUST_USE trm_status trmi_cuda_attention_concat(const trmi_attention_cache *c, const void *past,
                                                   const void *added, void *present,
                                                   cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
