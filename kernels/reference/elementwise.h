/* Scalar elementwise functions in double precision, written to be read: what tests compare with,
 * the f64 kernels, and the fp32 kernels of functions that have no vector form. */
#ifndef TRM_KERNELS_REFERENCE_ELEMENTWISE_H
#define TRM_KERNELS_REFERENCE_ELEMENTWISE_H

#include "base/op.h"

/* a, b, c: the operator's numbers (alpha, beta, gamma; Shrink: lambd, bias; Clip: min, max). */
typedef double (*trm_reference_unary)(double x, double a, double b, double c);
typedef double (*trm_reference_binary)(double x, double y);

trm_reference_unary trm_reference_unary_get(trm_op op, bool gelu_tanh); /* NULL: not a unary */
/* Comparisons give 0 or 1. Mod: the sign of the divisor if !c_mod, else C's fmod. NULL: not a
 * binary */
trm_reference_binary trm_reference_binary_get(trm_op op, bool c_mod);

#endif
