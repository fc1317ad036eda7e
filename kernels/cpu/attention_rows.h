/* Body of the attention core, included once per instruction set (no include guard) with these
 * macros: ROWS_FN, VEC (a vector of LANES floats), V_SET1, V_LOAD, V_STORE, V_FMA(a, b, c) = a * b
 * + c, V_ADD, V_SUB, V_MUL, V_MAX, V_ROUND (to the nearest whole number), V_POW2(n) = 2^n for whole
 * n, V_SUM and V_TOP (over the lanes).
 *
 * Both products have one form: C[rows, n] = A[rows, k] B[k, n], B's rows contiguous along n, in
 * tiles of 6 rows and 4 vectors kept in registers. Columns are padded, so there are no tails. */
#include "kernels/cpu/attention.h"

#include <math.h>
#include <string.h>

#define TILE_ROWS 6

static inline __attribute__((always_inline)) void tile(const float *a, size_t a_row, const float *b,
                                                       size_t b_row, float *c, size_t c_row,
                                                       size_t ks, const int vectors)
{
    VEC acc[TILE_ROWS][4];

    for (int r = 0; r < TILE_ROWS; r++)
        for (int v = 0; v < vectors; v++)
            acc[r][v] = V_SET1(0.0f);
    for (size_t k = 0; k < ks; k++) {
        VEC right[4];

        for (int v = 0; v < vectors; v++)
            right[v] = V_LOAD(b + k * b_row + (size_t)v * LANES);
        for (int r = 0; r < TILE_ROWS; r++) {
            VEC left = V_SET1(a[(size_t)r * a_row + k]);

            for (int v = 0; v < vectors; v++)
                acc[r][v] = V_FMA(left, right[v], acc[r][v]);
        }
    }
    for (int r = 0; r < TILE_ROWS; r++)
        for (int v = 0; v < vectors; v++)
            V_STORE(c + (size_t)r * c_row + (size_t)v * LANES, acc[r][v]);
}

/* rows is rounded up to whole tiles: A and C have ROWS rows of memory. n is a multiple of LANES. */
static void product(const float *a, size_t a_row, const float *b, size_t b_row, float *c,
                    size_t c_row, size_t rows, size_t n, size_t ks)
{
    size_t j = 0;

    for (; j + TILE_COLUMNS * LANES <= n; j += TILE_COLUMNS * LANES)
        for (size_t i = 0; i < rows; i += TILE_ROWS)
            tile(a + i * a_row, a_row, b + j, b_row, c + i * c_row + j, c_row, ks, TILE_COLUMNS);
    for (; j < n; j += LANES)
        for (size_t i = 0; i < rows; i += TILE_ROWS)
            tile(a + i * a_row, a_row, b + j, b_row, c + i * c_row + j, c_row, ks, 1);
}

/* e^x for x <= 0: 2^n * e^r, |r| <= ln2 / 2, with a Taylor polynomial of degree 7 (relative error
 * below 2e-7); below -87 it is zero. */
static inline VEC exp_of(VEC x)
{
    VEC n, r, p;

    x = V_MAX(x, V_SET1(-87.3f));
    n = V_ROUND(V_MUL(x, V_SET1(1.44269504f)));
    r = V_FMA(n, V_SET1(-0.693359375f), x);
    r = V_FMA(n, V_SET1(2.12194440e-4f), r);
    p = V_SET1(1.0f / 5040.0f);
    p = V_FMA(p, r, V_SET1(1.0f / 720.0f));
    p = V_FMA(p, r, V_SET1(1.0f / 120.0f));
    p = V_FMA(p, r, V_SET1(1.0f / 24.0f));
    p = V_FMA(p, r, V_SET1(1.0f / 6.0f));
    p = V_FMA(p, r, V_SET1(0.5f));
    p = V_FMA(p, r, V_SET1(1.0f));
    p = V_FMA(p, r, V_SET1(1.0f));
    return V_MUL(p, V_POW2(n));
}

/* Adds what the mask says to a row of scores; unseen keys become -inf. */
static void mask_row(const trm_attention *a, size_t b, size_t h, size_t i, float *s, size_t first,
                     size_t last, size_t padded)
{
    const trm_attention_view *m = &a->mask;
    size_t at = b * m->batch + h * m->head + i * m->row;

    for (size_t j = 0; j < first; j++)
        s[j] = -INFINITY;
    for (size_t j = last; j < padded; j++)
        s[j] = -INFINITY;
    if (m->dtype == TRM_DTYPE_F32) {
        const float *add = (const float *)m->data + at;

        if (m->column == 1)
            for (size_t j = first; j < last; j++)
                s[j] += add[j];
        else
            for (size_t j = first; j < last; j++)
                s[j] += add[j * m->column];
    } else if (m->dtype == TRM_DTYPE_BOOL) {
        const unsigned char *seen = (const unsigned char *)m->data + at;

        for (size_t j = first; j < last; j++)
            if (seen[j * m->column] == 0)
                s[j] = -INFINITY;
    } else if (m->dtype != TRM_DTYPE_NONE) {
        for (size_t j = first; j < last; j++)
            s[j] += (float)trm_attention_get(m, b, h, i, j);
    }
}

/* Scores become e^(s - top); returns one over their sum (0: no key is seen). */
static float softmax_row(float *s, size_t padded)
{
    VEC most = V_SET1(-INFINITY), total = V_SET1(0.0f);
    float top, sum;

    for (size_t j = 0; j < padded; j += LANES)
        most = V_MAX(V_LOAD(s + j), most);
    top = V_TOP(most);
    if (!(top > -INFINITY)) {
        memset(s, 0, padded * sizeof(*s));
        return 0.0f;
    }
    for (size_t j = 0; j < padded; j += LANES) {
        VEC x = V_SUB(V_LOAD(s + j), V_SET1(top));
        VEC e = V_ZERO_BELOW(x, exp_of(x));

        total = V_ADD(total, e);
        V_STORE(s + j, e);
    }
    sum = V_SUM(total);
    return sum > 0.0f ? 1.0f / sum : 0.0f;
}

void ROWS_FN(const trm_attention *a, const trmi_attention_head *head, size_t b, size_t h,
             size_t first, size_t count)
{
    size_t rows = (count + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
    float inverse[TRMI_ATTENTION_ROWS], scale = (float)a->scale, cap = (float)a->softcap;

    for (size_t i = 0; i < count; i++) {
        float *q = head->q + i * a->dim;

        trmi_attention_load_row(&a->q, b, h, first + i, a->dim, q);
        for (size_t c = 0; c < a->dim; c++)
            q[c] *= scale;
    }
    memset(head->q + count * a->dim, 0, (rows - count) * a->dim * sizeof(float));
    product(head->q, a->dim, head->keys, head->keys_row, head->scores, head->kv_pad, rows,
            head->kv_pad, a->dim);
    for (size_t i = 0; i < count; i++) {
        float *s = head->scores + i * head->kv_pad;
        size_t from, to;

        if (cap > 0.0f)
            for (size_t j = 0; j < a->kv_len; j++)
                s[j] = cap * tanhf(s[j] / cap);
        trm_attention_range(a, b, first + i, &from, &to);
        mask_row(a, b, h, first + i, s, from, to, head->kv_pad);
        inverse[i] = softmax_row(s, head->kv_pad);
    }
    product(head->scores, head->kv_pad, head->values, head->values_row, head->out, head->v_pad,
            rows, head->v_pad, a->kv_len);
    for (size_t i = 0; i < count; i++) {
        const float *o = head->out + i * head->v_pad;
        trm_tensor y = {.dtype = a->y.dtype, .data = (void *)(uintptr_t)a->y.data};
        size_t at = b * a->y.batch + h * a->y.head + (first + i) * a->y.row;

        if (y.dtype == TRM_DTYPE_F32) {
            for (size_t c = 0; c < a->v_dim; c++)
                ((float *)y.data)[at + c * a->y.column] = o[c] * inverse[i];
        } else {
            for (size_t c = 0; c < a->v_dim; c++)
                trm_tensor_set_f64(&y, at + c * a->y.column, (double)(o[c] * inverse[i]));
        }
    }
}
