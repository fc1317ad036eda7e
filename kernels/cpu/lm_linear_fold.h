/* left += right, `count` a multiple of 16, 64-byte aligned. */
#ifndef TRM_KERNELS_CPU_LM_LINEAR_FOLD_H
#define TRM_KERNELS_CPU_LM_LINEAR_FOLD_H

#include <stddef.h>

void trmi_lm_fold_avx2(float *left, const float *right, size_t count);

#endif
