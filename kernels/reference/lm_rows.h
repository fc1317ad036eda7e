/* References of the row operators of language models (kernels/language.h), in double. */
#ifndef TRM_KERNELS_REFERENCE_LM_ROWS_H
#define TRM_KERNELS_REFERENCE_LM_ROWS_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* TrmNorm: one group of n elements; `layer`: mean and deviation, else root mean square. bias may be
 * NULL. */
void trm_lm_norm_reference(bool layer, double epsilon, double offset, size_t n, const float *x,
                           const float *gain, const float *bias, double *out);
/* TrmRope: one head of n elements, `half` frequencies; the angle is rounded to fp32. */
void trm_lm_rope_reference(bool interleaved, double scale, size_t n, size_t half,
                           const float *frequencies, int32_t position, const float *x, double *out);
/* TrmGated's activation by name. */
double trm_lm_act_reference(const char *act, double cap, double x);

#ifdef __cplusplus
}
#endif
#endif
