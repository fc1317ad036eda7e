/* For tests: rows as kernels/cuda/lm_quant.h has them when they come quantised, made element by
 * element on the host. */
#ifndef TRM_TESTS_CUDA_LM_ROUNDED_KIT_H
#define TRM_TESTS_CUDA_LM_ROUNDED_KIT_H

#include "kernels/cuda/lm_quant.h"
#include "tests/cuda/cuda_kit.h"

#include <math.h>

typedef struct rounded_rows {
    size_t bytes;
    unsigned char *data, *made; /* made: not 0 where a byte has a meaning */
} rounded_rows;

static inline void rounded_put(rounded_rows *r, size_t at, const void *from, size_t bytes)
{
    ck_assert_uint_le(at + bytes, r->bytes);
    memcpy(r->data + at, from, bytes);
    for (size_t i = 0; i < bytes; i++) {
        ck_assert_msg(r->made[at + i] == 0, "byte %zu is two rows'", at + i);
        r->made[at + i] = 1;
    }
}

/* [rows, k] floats; sums: trm_rounding.sums */
static inline rounded_rows rounded_of(const float *x, size_t rows, size_t k, int sums)
{
    size_t tile = (size_t)trmi_lmq_tile(rows), column = tile < 8 ? tile : 8;
    size_t pairs = (k + 127) / 128 * 2;
    rounded_rows r = {.bytes = rows * trmi_lmq_row_bytes(k)};

    r.data = trm_arena_alloc(kit_arena, r.bytes + 1, 1);
    r.made = trm_arena_alloc(kit_arena, r.bytes + 1, 1);
    ck_assert(r.data != NULL && r.made != NULL);
    memset(r.data, 0x7f, r.bytes); /* what nobody may read is NaN as a number */
    memset(r.made, 0, r.bytes);
    for (size_t row = 0; row < rows; row++) {
        for (size_t group = 0; group < k / 32; group++) {
            const float *g = x + row * k + group * 32;
            size_t token = row % column, i = group % 2;
            size_t pair = ((row / tile * pairs + group / 2) * tile + row % tile - token) * 80;
            float amax = 0.0f, scale = 0.0f, inverse = 0.0f;
            int32_t sum[2] = {0, 0}, seed;
            bool wild = false;
            uint32_t aux = 0;

            for (int e = 0; e < 32; e++) {
                wild |= !isfinite(g[e]);
                amax = fabsf(g[e]) > amax ? fabsf(g[e]) : amax;
            }
            if (!wild && amax >= 0x1p-120f) {
                scale = amax / 127.0f;
                inverse = 127.0f / amax;
            }
            for (size_t e = 0; e < 32; e++) {
                int8_t q = inverse > 0.0f ? (int8_t)nearbyintf(g[e] * inverse) : 0;

                sum[e / 16] += q;
                rounded_put(&r, pair + (token * 4 + e / 4 % 4) * 16 + i * 8 + e / 16 * 4 + e % 4,
                            &q, 1);
            }
            if (wild)
                scale = NAN;
            if (sums == 1) {
                float scaled = scale * (float)(sum[0] + sum[1]);

                memcpy(&aux, &scaled, 4);
            } else if (sums == 2) {
                aux = ((uint32_t)sum[0] & 0xffffu) | (uint32_t)sum[1] << 16;
            } else {
                seed = -sums * (sum[0] + sum[1]);
                memcpy(&aux, &seed, 4);
            }
            pair += column * 64 + token / 2 * 32 + i * 16 + token % 2 * 8;
            rounded_put(&r, pair, &scale, 4);
            rounded_put(&r, pair + 4, &aux, 4);
        }
    }
    return r;
}

#endif
