/* Scaled dot-product attention: what is asked, and its scalar reference.
 *
 * y[b, h, i, :] = sum over j of softmax_j(softcap(scale * q[b, h, i, :] . k[b, g, j, :]) +
 * mask[b, h, i, j]) v[b, g, j, :], g = h / (heads / kv_heads), over the keys j that row i may see:
 * causal, window and padding limits are all ranges of j. A row that sees no key is zero. */
#ifndef TRM_KERNELS_REFERENCE_ATTENTION_H
#define TRM_KERNELS_REFERENCE_ATTENTION_H

#include "base/tensor.h"

/* Element strides of a [batch, heads, rows, columns] view. */
typedef struct trm_attention_view {
    trm_dtype dtype; /* NONE: absent */
    const void *data;
    size_t batch, head, row, column;
} trm_attention_view;

typedef struct trm_attention {
    size_t batch, heads, kv_heads, q_len, kv_len, dim, v_dim;
    trm_attention_view q, k, v, mask,
        y;           /* mask: broadcast dims have stride 0; BOOL: true is seen */
    size_t mask_len; /* keys the mask covers; those beyond are unseen */
    bool causal;
    int64_t offset;            /* keys before row 0 */
    int64_t left, right;       /* window, -1: unbounded */
    trm_attention_view nonpad; /* [batch] valid keys (I64); then offset is nonpad - q_len */
    double scale, softcap;     /* softcap 0: none */
} trm_attention;

/* Keys [*first, *last) that row i of batch b may see. */
void trm_attention_range(const trm_attention *a, size_t b, size_t i, size_t *first, size_t *last);
/* One element of a view as double. */
double trm_attention_get(const trm_attention_view *v, size_t b, size_t h, size_t row,
                         size_t column);
/* stage 0: scale * q.k; 1: after softcap; 2: with mask and ranges (-inf: unseen) */
double trm_attention_score(const trm_attention *a, size_t b, size_t h, size_t i, size_t j,
                           int stage);
/* Item: one row (b, h, i). */
void trm_attention_reference(const trm_attention *a, size_t begin, size_t end);

#endif
