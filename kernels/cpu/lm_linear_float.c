/* Float weights of language models: packing, and plain C tiles. See lm_linear_float.h. */
#include "kernels/cpu/lm_linear_float.h"

#include <string.h>

#define P TRMI_LM_PANEL

size_t trmi_lm_float_panel_f32(size_t k)
{
    return k * P * sizeof(float);
}

size_t trmi_lm_float_panel_f16(size_t k)
{
    return trm_align_up(k * P * sizeof(uint16_t), 64);
}

size_t trmi_lm_float_panel_bf16(size_t k)
{
    return (k + 1) / 2 * 2 * P * sizeof(uint16_t);
}

size_t trmi_lm_float_row_f32(size_t k)
{
    return k * sizeof(float);
}

/* element i of a row that may be absent */
static inline uint32_t element32(const void *row, size_t i)
{
    uint32_t v = 0;

    if (row != NULL)
        memcpy(&v, (const unsigned char *)row + i * sizeof(v), sizeof(v));
    return v;
}

static inline uint16_t element16(const void *row, size_t i)
{
    uint16_t v = 0;

    if (row != NULL)
        memcpy(&v, (const unsigned char *)row + i * sizeof(v), sizeof(v));
    return v;
}

/* K of a piece: what is written of it stays in the first-level cache while rows pass */
#define PIECE ((size_t)128)

void trmi_lm_float_pack_f32(const void *const *rows, size_t k, size_t k_offset, void *panel)
{
    uint32_t *to = panel;

    (void)k_offset;
    for (size_t from = 0; from < k; from += PIECE)
        for (size_t j = 0; j < P; j++)
            for (size_t i = from; i < k && i < from + PIECE; i++)
                to[i * P + j] = element32(rows[j], i);
}

void trmi_lm_float_pack_f16(const void *const *rows, size_t k, size_t k_offset, void *panel)
{
    uint16_t *to = panel;

    (void)k_offset;
    memset(to + k * P, 0, trmi_lm_float_panel_f16(k) - k * P * sizeof(*to));
    for (size_t from = 0; from < k; from += PIECE)
        for (size_t j = 0; j < P; j++)
            for (size_t i = from; i < k && i < from + PIECE; i++)
                to[i * P + j] = element16(rows[j], i);
}

void trmi_lm_float_pack_bf16(const void *const *rows, size_t k, size_t k_offset, void *panel)
{
    uint16_t *to = panel;

    (void)k_offset;
    for (size_t from = 0; from < k; from += PIECE)
        for (size_t j = 0; j < P; j++)
            for (size_t i = from; i < k && i < from + PIECE; i += 2) {
                to[i * P + 2 * j] = element16(rows[j], i);
                to[i * P + 2 * j + 1] = i + 1 < k ? element16(rows[j], i + 1) : 0;
            }
}

void trmi_lm_float_convert_rounded(const float *x, size_t k, void *row)
{
    float *to = row;

    for (size_t i = 0; i < k; i++)
        to[i] = trm_bf16_to_f32(trm_f32_to_bf16(x[i]));
}

void trmi_lm_float_convert_halves(const float *x, size_t k, void *row)
{
    float *to = row;

    for (size_t i = 0; i < k; i++)
        to[i] = trm_f16_to_f32(trm_f32_to_f16(x[i]));
}

/* --- plain C ------------------------------------------------------------------------------- */

static void load_f32(const void *panel, size_t k, float *w)
{
    memcpy(w, (const float *)panel + k * P, P * sizeof(float));
}

static void load_f16(const void *panel, size_t k, float *w)
{
    const uint16_t *from = (const uint16_t *)panel + k * P;

    for (size_t j = 0; j < P; j++)
        w[j] = trm_f16_to_f32(from[j]);
}

static void load_bf16(const void *panel, size_t k, float *w)
{
    const uint16_t *from = (const uint16_t *)panel + k / 2 * 2 * P + k % 2;

    for (size_t j = 0; j < P; j++)
        w[j] = trm_bf16_to_f32(from[2 * j]);
}

#define TILE(name, load)                                                                           \
    static void name(const void *panel, size_t panel_stride, int panels, const void *const *rows,  \
                     int m, size_t k, size_t k_begin, size_t k_end, float *acc)                    \
    {                                                                                              \
        (void)k;                                                                                   \
        memset(acc, 0, (size_t)(m * panels) * P * sizeof(float));                                  \
        for (int p = 0; p < panels; p++) {                                                         \
            const unsigned char *from = (const unsigned char *)panel + (size_t)p * panel_stride;   \
            float *to = acc + (size_t)(p * m) * P;                                                 \
                                                                                                   \
            for (size_t i = k_begin; i < k_end; i++) {                                             \
                float w[P];                                                                        \
                                                                                                   \
                load(from, i, w);                                                                  \
                for (int r = 0; r < m; r++) {                                                      \
                    float x = ((const float *)rows[r])[i];                                         \
                                                                                                   \
                    for (size_t j = 0; j < P; j++)                                                 \
                        to[(size_t)r * P + j] += x * w[j];                                         \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }

TILE(tile_f32, load_f32)
TILE(tile_f16, load_f16)
TILE(tile_bf16, load_bf16)

const trmi_lm_type trmi_lm_type_f32 = {.name = "f32 scalar",
                                       .form = "f32",
                                       .dtype = TRM_DTYPE_F32,
                                       .act = TRM_DTYPE_F32,
                                       .rows_max = 8,
                                       .panels_one = 2,
                                       .panels_many = 1,
                                       .k_multiple = 1,
                                       .panel_bytes = trmi_lm_float_panel_f32,
                                       .pack = trmi_lm_float_pack_f32,
                                       .row_bytes = trmi_lm_float_row_f32,
                                       .tile = tile_f32};

const trmi_lm_type trmi_lm_type_f16 = {.name = "f16 scalar",
                                       .form = "f16",
                                       .dtype = TRM_DTYPE_F16,
                                       .act = TRM_DTYPE_F32,
                                       .rows_max = 8,
                                       .panels_one = 2,
                                       .panels_many = 1,
                                       .k_multiple = 1,
                                       .panel_bytes = trmi_lm_float_panel_f16,
                                       .pack = trmi_lm_float_pack_f16,
                                       .row_bytes = trmi_lm_float_row_f32,
                                       .tile = tile_f16};

const trmi_lm_type trmi_lm_type_f16_rounded = {.name = "f16 x f16 scalar",
                                               .form = "f16",
                                               .dtype = TRM_DTYPE_F16,
                                               .act = TRM_DTYPE_F16,
                                               .rows_max = 8,
                                               .panels_one = 2,
                                               .panels_many = 1,
                                               .k_multiple = 1,
                                               .panel_bytes = trmi_lm_float_panel_f16,
                                               .pack = trmi_lm_float_pack_f16,
                                               .row_bytes = trmi_lm_float_row_f32,
                                               .convert = trmi_lm_float_convert_halves,
                                               .tile = tile_f16};

const trmi_lm_type trmi_lm_type_bf16 = {.name = "bf16 scalar",
                                        .form = "bf16",
                                        .dtype = TRM_DTYPE_BF16,
                                        .act = TRM_DTYPE_F32,
                                        .rows_max = 8,
                                        .panels_one = 2,
                                        .panels_many = 1,
                                        .k_multiple = 2,
                                        .panel_bytes = trmi_lm_float_panel_bf16,
                                        .pack = trmi_lm_float_pack_bf16,
                                        .row_bytes = trmi_lm_float_row_f32,
                                        .tile = tile_bf16};

const trmi_lm_type trmi_lm_type_bf16_rounded = {.name = "bf16 x bf16 scalar",
                                                .form = "bf16",
                                                .dtype = TRM_DTYPE_BF16,
                                                .act = TRM_DTYPE_BF16,
                                                .rows_max = 8,
                                                .panels_one = 2,
                                                .panels_many = 1,
                                                .k_multiple = 2,
                                                .panel_bytes = trmi_lm_float_panel_bf16,
                                                .pack = trmi_lm_float_pack_bf16,
                                                .row_bytes = trmi_lm_float_row_f32,
                                                .convert = trmi_lm_float_convert_rounded,
                                                .tile = tile_bf16};
