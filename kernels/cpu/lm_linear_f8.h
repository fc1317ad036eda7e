/* fp8 weights (base/tensor.h: F8_ROW, F8_128), packed the same for every instruction set. Products
 * compute with fp32 activations, or fp32 rounded to bf16; weights stay a byte in memory.
 *
 * A panel: fp32 scales [16] before the elements of each block, [k][16] bytes. F8_ROW has one block,
 * the row: its scales stand once. A sum of x * element over a block, or over the part of it that a
 * call asks for, is multiplied by the scale, and such products are added up in order.
 *
 * Tiles make fp16 of an element by moving its bits: sign to 15, exponent and mantissa to 13..7. The
 * exponent's bias is 8 more in fp16, so the number is 2^-8 of the element, subnormals included;
 * scales in the panel are 2^8 times those of the weight. Conversion of fp16 to fp32 is exact and
 * does not stall at subnormals, as arithmetic with fp32 subnormals does. The one element that does
 * not survive, NaN, makes its block's scale NaN.
 * One row runs at 17 GB/s on a core alone that reads BF16 at 30: a few more weights a second than
 * with BF16, bound by widening them. In the first-level cache 16 weights take 0.9 ns, and as long
 * with fp32 bits times 2^112 instead (2.6 GHz, AVX-512, 2026-11). */
#ifndef TRM_KERNELS_CPU_LM_LINEAR_F8_H
#define TRM_KERNELS_CPU_LM_LINEAR_F8_H

#include "kernels/cpu/lm_linear_float.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_LM_F8_BLOCK 128 /* of F8_128 */
#define TRMI_LM_F8_SCALES (TRMI_LM_PANEL * sizeof(float))
#define TRMI_LM_F8_UP 0x1p8f /* on scales */

/* Where element k of a panel is, in bytes from its start; `block` 0: one block. */
static inline size_t trmi_lm_f8_at(size_t block, size_t k)
{
    return ((block == 0 ? 0 : k / block) + 1) * TRMI_LM_F8_SCALES + k * TRMI_LM_PANEL;
}

/* The end of the sum that starts at k: its block's, or k_end. */
static inline size_t trmi_lm_f8_end(size_t block, size_t k, size_t k_end)
{
    size_t end = block == 0 ? k_end : (k / block + 1) * block;

    return end < k_end ? end : k_end;
}

size_t trmi_lm_f8_panel_row(size_t k);
size_t trmi_lm_f8_panel_128(size_t k);
void trmi_lm_f8_pack_row(const void *const *rows, size_t k, size_t k_offset, void *panel);
void trmi_lm_f8_pack_128(const void *const *rows, size_t k, size_t k_offset, void *panel);

/* The rows of an instruction set's file, which has tile_row and tile_128. */
#define TRMI_LM_F8_TYPE(type_name, text, panel, weight, x, converted, level, rows_at_once, one,    \
                        many)                                                                      \
    const trmi_lm_type trmi_lm_type_##type_name = {                                                \
        .name = text,                                                                              \
        .form = "f8_" #panel,                                                                      \
        .dtype = weight,                                                                           \
        .act = x,                                                                                  \
        .isa = level,                                                                              \
        .rows_max = rows_at_once,                                                                  \
        .panels_one = one,                                                                         \
        .panels_many = many,                                                                       \
        .k_multiple = weight == TRM_DTYPE_F8_128 ? TRMI_LM_F8_BLOCK : 32,                          \
        .panel_bytes = trmi_lm_f8_panel_##panel,                                                   \
        .pack = trmi_lm_f8_pack_##panel,                                                           \
        .row_bytes = trmi_lm_float_row_f32,                                                        \
        .convert = converted,                                                                      \
        .tile = tile_##panel};
#define TRMI_LM_F8_TYPES(suffix, text, level, rows, one, many)                                     \
    TRMI_LM_F8_TYPE(f8_row##suffix, "f8_row" text, row, TRM_DTYPE_F8_ROW, TRM_DTYPE_F32, NULL,     \
                    level, rows, one, many)                                                        \
    TRMI_LM_F8_TYPE(f8_row_rounded##suffix, "f8_row x bf16" text, row, TRM_DTYPE_F8_ROW,           \
                    TRM_DTYPE_BF16, trmi_lm_float_convert_rounded, level, rows, one, many)         \
    TRMI_LM_F8_TYPE(f8_128##suffix, "f8_128" text, 128, TRM_DTYPE_F8_128, TRM_DTYPE_F32, NULL,     \
                    level, rows, one, many)                                                        \
    TRMI_LM_F8_TYPE(f8_128_rounded##suffix, "f8_128 x bf16" text, 128, TRM_DTYPE_F8_128,           \
                    TRM_DTYPE_BF16, trmi_lm_float_convert_rounded, level, rows, one, many)

#ifdef __cplusplus
}
#endif
#endif
