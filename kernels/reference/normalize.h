/* References of normalisations over channels. */
#ifndef TRM_KERNELS_REFERENCE_NORMALIZE_H
#define TRM_KERNELS_REFERENCE_NORMALIZE_H

#include "kernels/reference/reference.h"

/* in: x [N, C, ...], scale, bias, mean, variance [C]; f[0] epsilon, f[1] momentum, b[0] training
 * mode (out[1], out[2]: running mean and variance). Item: one channel. */
void trm_batch_norm_reference(const trm_ref *r, size_t begin, size_t end);
/* Across channels: y = x / (f[2] + f[0] / size * sum of squares)^f[1], i[0] size. Item: one
 * element.
 */
void trm_lrn_reference(const trm_ref *r, size_t begin, size_t end);

#endif
