/* Scalar row operations in double precision: what tests compare with, and the f64 kernels. */
#ifndef TRM_KERNELS_REFERENCE_ROWS_H
#define TRM_KERNELS_REFERENCE_ROWS_H

#include "base/op.h"

/* Softmax, LogSoftmax or Hardmax of n elements `step` apart; y may be x. */
void trm_reference_softmax(double *y, const double *x, size_t n, size_t step, trm_op op);
/* y = (x - mean) / sqrt(variance + epsilon); centre false: mean taken as 0 (RMS). Returns the mean
 * and the inverse deviation. y may be x. */
void trm_reference_normalise(double *y, const double *x, size_t n, bool centre, double epsilon,
                             double *mean_out, double *inverse_out);

#endif
