/* fp8 weights of language models: packing, and plain C tiles. See lm_linear_f8.h. */
#include "kernels/cpu/lm_linear_f8.h"

#include "base/f8.h"
#include "kernels/cpu/lm_linear_float.h"

#include <math.h>
#include <string.h>

#define P TRMI_LM_PANEL
#define ROWS 8

size_t trmi_lm_f8_panel_row(size_t k)
{
    return trmi_lm_f8_at(0, k); /* K is a multiple of 32 */
}

size_t trmi_lm_f8_panel_128(size_t k)
{
    return k / TRMI_LM_F8_BLOCK * (TRMI_LM_F8_SCALES + TRMI_LM_F8_BLOCK * P);
}

/* --- packing ------------------------------------------------------------------------------- */

/* `count` elements of a row, NULL: zeros, to a column of the panel; whether one is NaN. */
static bool spread(const unsigned char *from, size_t count, unsigned char *to)
{
    bool nan = false;

    for (size_t i = 0; i < count; i++) {
        unsigned char b = from != NULL ? from[i] : 0;

        nan |= trm_e4m3_is_nan(b);
        to[i * P] = b;
    }
    return nan;
}

static void put_scale(const unsigned char *from, bool nan, unsigned char *to)
{
    float scale = 0;

    if (from != NULL)
        memcpy(&scale, from, sizeof(scale));
    scale = nan ? NAN : scale * TRMI_LM_F8_UP;
    memcpy(to, &scale, sizeof(scale));
}

/* `block` 0: one scale a row. */
static void pack(trm_dtype dtype, size_t block, const void *const *rows, size_t k, void *panel)
{
    const size_t elems = trm_dtype_block_elems(dtype), bytes = trm_dtype_block_bytes(dtype);
    unsigned char *to = panel;
    bool nan[P] = {false};

    for (size_t at = 0; at < k; at += elems) {
        unsigned char *first = to + trmi_lm_f8_at(block, at);

        for (size_t j = 0; j < P; j++) {
            const unsigned char *from = rows[j];

            if (from != NULL)
                from += at / elems * bytes;
            nan[j] |= spread(from != NULL ? from + sizeof(float) : NULL, elems, first + j);
            if (block == 0)
                continue;
            put_scale(from, nan[j], first - TRMI_LM_F8_SCALES + j * sizeof(float));
            nan[j] = false;
        }
    }
    for (size_t j = 0; block == 0 && j < P; j++)
        put_scale(k > 0 ? rows[j] : NULL, nan[j], to + j * sizeof(float));
}

void trmi_lm_f8_pack_row(const void *const *rows, size_t k, size_t k_offset, void *panel)
{
    (void)k_offset;
    pack(TRM_DTYPE_F8_ROW, 0, rows, k, panel);
}

void trmi_lm_f8_pack_128(const void *const *rows, size_t k, size_t k_offset, void *panel)
{
    (void)k_offset;
    pack(TRM_DTYPE_F8_128, TRMI_LM_F8_BLOCK, rows, k, panel);
}

/* --- plain C ------------------------------------------------------------------------------- */

/* 2^-8 of an element. */
static inline float element(unsigned char b)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)(b & 0x80) << 24 | (uint32_t)(b & 0x7f) << 20};

    return v.f * 0x1p112f; /* from a bias of 127 to one of 7 + 8 */
}

/* acc (+)= scale * sum over [k, end), for m rows of a panel: [m][P] */
static void add_block(const unsigned char *panel, size_t block, const void *const *rows, int m,
                      size_t k, size_t end, bool first, float *acc)
{
    const unsigned char *w = panel + trmi_lm_f8_at(block, k);
    const unsigned char *scales =
        panel + trmi_lm_f8_at(block, block == 0 ? 0 : k / block * block) - TRMI_LM_F8_SCALES;
    float sum[ROWS * P] = {0}, scale[P];

    memcpy(scale, scales, sizeof(scale));
    for (size_t i = k; i < end; i++, w += P) {
        float e[P];

        for (size_t j = 0; j < P; j++)
            e[j] = element(w[j]);
        for (int r = 0; r < m; r++) {
            float x = ((const float *)rows[r])[i];

            for (size_t j = 0; j < P; j++)
                sum[(size_t)r * P + j] += x * e[j];
        }
    }
    for (size_t i = 0; i < (size_t)m * P; i++)
        acc[i] = first ? scale[i % P] * sum[i] : acc[i] + scale[i % P] * sum[i];
}

static void tile(size_t block, const void *panel, size_t stride, int panels,
                 const void *const *rows, int m, size_t k_begin, size_t k_end, float *acc)
{
    memset(acc, 0, (size_t)(m * panels) * P * sizeof(float));
    for (int p = 0; p < panels; p++)
        for (size_t k = k_begin, end; k < k_end; k = end) {
            end = trmi_lm_f8_end(block, k, k_end);
            add_block((const unsigned char *)panel + (size_t)p * stride, block, rows, m, k, end,
                      k == k_begin, acc + (size_t)(p * m) * P);
        }
}

static void tile_row(const void *panel, size_t panel_stride, int panels, const void *const *rows,
                     int m, size_t k, size_t k_begin, size_t k_end, float *acc)
{
    (void)k;
    tile(0, panel, panel_stride, panels, rows, m, k_begin, k_end, acc);
}

static void tile_128(const void *panel, size_t panel_stride, int panels, const void *const *rows,
                     int m, size_t k, size_t k_begin, size_t k_end, float *acc)
{
    (void)k;
    tile(TRMI_LM_F8_BLOCK, panel, panel_stride, panels, rows, m, k_begin, k_end, acc);
}

TRMI_LM_F8_TYPES(, " scalar", TRM_ISA_SCALAR, ROWS, 2, 1)
