/* See lm_kv.h. Keys are transposed on the way: whole pages in squares of 4 by 4, so that a prefill
 * writes runs; else element by element. */
#include "kernels/cpu/lm_kv.h"
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

#define DIMS 64 /* handled together, on the stack; a multiple of 16: conversions have no tail */

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

static void narrow(trm_dtype dtype, void *to, const float *from, size_t n)
{
    if (dtype == TRM_DTYPE_F32)
        memcpy(to, from, n * sizeof(float));
    else if (dtype == TRM_DTYPE_F16)
        trmi_vec_get()->f32_to_f16(to, from, n);
    else
        trmi_vec_get()->f32_to_bf16(to, from, n);
}

/* to[d][t] = from[t][d], 4 by 4 */
static void square(float *to, size_t to_row, const float *from, size_t from_row)
{
    four a = *(const four *)from, b = *(const four *)(from + from_row);
    four c = *(const four *)(from + 2 * from_row), d = *(const four *)(from + 3 * from_row);
    four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5),
         cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    four ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    four cd2 = __builtin_shufflevector(c, d, 2, 6, 3, 7);

    *(four *)to = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(four *)(to + to_row) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    *(four *)(to + 2 * to_row) = __builtin_shufflevector(ab2, cd2, 0, 1, 4, 5);
    *(four *)(to + 3 * to_row) = __builtin_shufflevector(ab2, cd2, 2, 3, 6, 7);
}

/* A whole page's keys. */
static void write_keys(trm_dtype dtype, size_t head_dim, unsigned char *keys, const float *key,
                       size_t row)
{
    size_t step = TRM_KV_PAGE * trm_dtype_bytes(dtype);

    for (size_t from = 0; from < head_dim; from += DIMS) {
        size_t dims = head_dim - from < DIMS ? head_dim - from : DIMS, d = 0;
        float turned[DIMS * TRM_KV_PAGE];

        for (; d + 4 <= dims; d += 4)
            for (size_t t = 0; t < TRM_KV_PAGE; t += 4)
                square(turned + d * TRM_KV_PAGE + t, TRM_KV_PAGE, key + t * row + from + d, row);
        for (; d < dims; d++)
            for (size_t t = 0; t < TRM_KV_PAGE; t++)
                turned[d * TRM_KV_PAGE + t] = key[t * row + from + d];
        narrow(dtype, keys + from * step, turned, dims * TRM_KV_PAGE);
    }
}

/* One token's keys into column `at`. */
static void write_key(trm_dtype dtype, size_t head_dim, unsigned char *keys, size_t at,
                      const float *key)
{
    for (size_t from = 0; from < head_dim; from += DIMS) {
        size_t dims = head_dim - from < DIMS ? head_dim - from : DIMS;
        float wide[DIMS] = {0};

        memcpy(wide, key + from, dims * sizeof(float));
        if (dtype == TRM_DTYPE_F32) {
            float *to = (float *)(void *)keys + from * TRM_KV_PAGE + at;

            for (size_t d = 0; d < dims; d++)
                to[d * TRM_KV_PAGE] = wide[d];
        } else {
            uint16_t half[DIMS], *to = (uint16_t *)(void *)keys + from * TRM_KV_PAGE + at;

            narrow(dtype, half, wide, DIMS);
            for (size_t d = 0; d < dims; d++)
                to[d * TRM_KV_PAGE] = half[d];
        }
    }
}

/* One token as bytes, `step` elements apart. A token with NaN or infinity gets that as its scale,
 * so that it does not become a number. */
static void write_bytes(size_t head_dim, int8_t *to, size_t step, float *scale, const float *from)
{
    float most = 0.0f, inverse;

    for (size_t d = 0; d < head_dim; d++) {
        float m = fabsf(from[d]);

        most = m > most || isnan(m) ? m : most;
    }
    *scale = most / 127.0f;
    inverse = *scale > 0.0f ? 1.0f / *scale : 0.0f;
    for (size_t d = 0; d < head_dim; d++) {
        float q = rintf(from[d] * inverse);

        to[d * step] = q >= -127.0f && q <= 127.0f ? (int8_t)q : 0;
    }
}

void trmi_lm_kv_write(trm_dtype dtype, size_t head_dim, void *keys, void *values, size_t at,
                      size_t n, const float *key, const float *value, size_t row)
{
    size_t bytes = head_dim * trm_dtype_bytes(dtype);

    if (dtype == TRM_DTYPE_I8) {
        size_t scales = TRM_KV_PAGE * head_dim;

        for (size_t t = 0; t < n; t++) {
            int8_t *k = keys, *v = values;

            write_bytes(head_dim, k + at + t, TRM_KV_PAGE, (float *)(void *)(k + scales) + at + t,
                        key + t * row);
            write_bytes(head_dim, v + (at + t) * head_dim, 1,
                        (float *)(void *)(v + scales) + at + t, value + t * row);
        }
        return;
    }
    if (n == TRM_KV_PAGE) {
        write_keys(dtype, head_dim, keys, key, row);
    } else {
        for (size_t t = 0; t < n; t++)
            write_key(dtype, head_dim, keys, at + t, key + t * row);
    }
    for (size_t t = 0; t < n; t++)
        narrow(dtype, (unsigned char *)values + (at + t) * bytes, value + t * row, head_dim);
}
