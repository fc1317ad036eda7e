/* The fast attention core: one (batch, head) and a run of its query rows, in f32 arithmetic. */
#ifndef TRM_KERNELS_CPU_ATTENTION_H
#define TRM_KERNELS_CPU_ATTENTION_H

#include "kernels/reference/attention.h"

/* Query rows handled together: their scores stay in cache between the two products. A multiple of
 * the row tile of every instruction set (6). */
#define TRMI_ATTENTION_ROWS 48
#define TRMI_ATTENTION_LANES 64 /* columns are padded to this: 4 vectors of 16 */

/* One head, packed: keys transposed [dim, kv_pad], values [kv_len, v_pad]. */
typedef struct trmi_attention_head {
    const float *keys, *values; /* where the products read */
    size_t keys_row, values_row;
    float *q, *scores, *out; /* [ROWS, dim], [ROWS, kv_pad], [ROWS, v_pad] */
    size_t kv_pad, v_pad;
} trmi_attention_head;

/* Rows [first, first + count), count <= ROWS, of head h of batch b. */
typedef void (*trmi_attention_rows_fn)(const trm_attention *a, const trmi_attention_head *head,
                                       size_t b, size_t h, size_t first, size_t count);
void trmi_attention_rows_scalar(const trm_attention *a, const trmi_attention_head *head, size_t b,
                                size_t h, size_t first, size_t count);
void trmi_attention_rows_avx2(const trm_attention *a, const trmi_attention_head *head, size_t b,
                              size_t h, size_t first, size_t count);
void trmi_attention_rows_avx512(const trm_attention *a, const trmi_attention_head *head, size_t b,
                                size_t h, size_t first, size_t count);

/* Copies `n` elements of a view's row from `column` on to f32. */
void trmi_attention_load_row(const trm_attention_view *v, size_t b, size_t h, size_t row, size_t n,
                             float *to);

#endif
