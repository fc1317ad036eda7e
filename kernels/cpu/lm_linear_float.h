/* Packed float weights, the same for every instruction set. Panels: f32 and f16 [k][16] elements;
 * bf16 [ceil(k / 2)][16][2], K in pairs as bf16 dot instructions read them (odd K: a zero). */
#ifndef TRM_KERNELS_CPU_LM_LINEAR_FLOAT_H
#define TRM_KERNELS_CPU_LM_LINEAR_FLOAT_H

#include "kernels/cpu/lm_linear.h"

size_t trmi_lm_float_panel_f32(size_t k);
size_t trmi_lm_float_panel_f16(size_t k);
size_t trmi_lm_float_panel_bf16(size_t k);
void trmi_lm_float_pack_f32(const void *const *rows, size_t k, size_t k_offset, void *panel);
void trmi_lm_float_pack_f16(const void *const *rows, size_t k, size_t k_offset, void *panel);
void trmi_lm_float_pack_bf16(const void *const *rows, size_t k, size_t k_offset, void *panel);
size_t trmi_lm_float_row_f32(size_t k);
/* fp32 -> fp32, rounded to bf16; to f16 */
void trmi_lm_float_convert_rounded(const float *x, size_t k, void *row);
void trmi_lm_float_convert_halves(const float *x, size_t k, void *row);

#endif
