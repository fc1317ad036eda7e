/* Attention row by row; scores are computed again for each pass instead of being kept. */
#include "kernels/reference/attention.h"

#include <math.h>

#define CHUNK 32

double trm_attention_get(const trm_attention_view *v, size_t b, size_t h, size_t row, size_t column)
{
    trm_tensor t = {.dtype = v->dtype, .data = (void *)(uintptr_t)v->data}; /* only read */

    return trm_tensor_get_f64(&t, b * v->batch + h * v->head + row * v->row + column * v->column);
}

void trm_attention_range(const trm_attention *a, size_t b, size_t i, size_t *first, size_t *last)
{
    int64_t lo = 0, hi = (int64_t)a->kv_len, at = (int64_t)i + a->offset;

    if (a->nonpad.dtype != TRM_DTYPE_NONE) {
        int64_t valid = ((const int64_t *)a->nonpad.data)[b];

        hi = valid < hi ? valid : hi;
        at = (int64_t)i + valid - (int64_t)a->q_len;
    }
    if (a->causal && at + 1 < hi)
        hi = at + 1;
    if (a->right >= 0 && at + a->right + 1 < hi)
        hi = at + a->right + 1;
    if (a->left >= 0 && at - a->left > lo)
        lo = at - a->left;
    if (a->mask.dtype != TRM_DTYPE_NONE && (int64_t)a->mask_len < hi)
        hi = (int64_t)a->mask_len;
    *last = hi > 0 ? (size_t)hi : 0;
    *first = lo < hi ? (size_t)lo : *last;
}

double trm_attention_score(const trm_attention *a, size_t b, size_t h, size_t i, size_t j,
                           int stage)
{
    size_t g = h / (a->heads / a->kv_heads), first, last;
    double sum = 0.0;

    for (size_t c = 0; c < a->dim; c++)
        sum += trm_attention_get(&a->q, b, h, i, c) * trm_attention_get(&a->k, b, g, j, c);
    sum *= a->scale;
    if (stage >= 1 && a->softcap > 0.0)
        sum = a->softcap * tanh(sum / a->softcap);
    if (stage < 2)
        return sum;
    trm_attention_range(a, b, i, &first, &last);
    if (j < first || j >= last)
        return -INFINITY;
    if (a->mask.dtype == TRM_DTYPE_BOOL)
        return trm_attention_get(&a->mask, b, h, i, j) != 0.0 ? sum : -INFINITY;
    if (a->mask.dtype != TRM_DTYPE_NONE)
        sum += trm_attention_get(&a->mask, b, h, i, j);
    return sum;
}

void trm_attention_reference(const trm_attention *a, size_t begin, size_t end)
{
    for (size_t row = begin; row < end; row++) {
        size_t i = row % a->q_len, h = row / a->q_len % a->heads, b = row / a->q_len / a->heads;
        size_t g = h / (a->heads / a->kv_heads);
        trm_tensor y = {.dtype = a->y.dtype, .data = (void *)(uintptr_t)a->y.data};
        double top = -INFINITY;

        for (size_t j = 0; j < a->kv_len; j++)
            top = fmax(top, trm_attention_score(a, b, h, i, j, 2));
        for (size_t c0 = 0; c0 < a->v_dim; c0 += CHUNK) {
            double acc[CHUNK] = {0}, sum = 0.0;
            size_t n = a->v_dim - c0 < CHUNK ? a->v_dim - c0 : CHUNK;

            for (size_t j = 0; j < a->kv_len && top > -INFINITY; j++) {
                double e = exp(trm_attention_score(a, b, h, i, j, 2) - top);

                sum += e;
                for (size_t c = 0; c < n && e > 0.0; c++)
                    acc[c] += e * trm_attention_get(&a->v, b, g, j, c0 + c);
            }
            for (size_t c = 0; c < n; c++)
                trm_tensor_set_f64(
                    &y, b * a->y.batch + h * a->y.head + i * a->y.row + (c0 + c) * a->y.column,
                    sum > 0.0 ? acc[c] / sum : 0.0);
        }
    }
}
