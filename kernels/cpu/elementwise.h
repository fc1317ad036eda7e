/* Rows that are not fp32 vector code: integers, booleans, doubles, selection. */
#ifndef TRM_KERNELS_CPU_ELEMENTWISE_H
#define TRM_KERNELS_CPU_ELEMENTWISE_H

#include "kernels/cpu/math_util.h"

/* NULL: the operator is not defined for the dtype. mode of Mod: 1 = C's sign rule; of BitShift: 1 =
 * right. Integers wrap around; division by zero gives 0; shifts by the width or more give 0. */
trmi_row trmi_row_int_binary(trm_op op, trm_dtype dtype, int mode);
trmi_row trmi_row_int_unary(trm_op op, trm_dtype dtype);
/* Rows over the scalar reference: f32 and f64. */
trmi_row trmi_row_reference_unary(trm_op op, trm_dtype dtype, bool gelu_tanh);
trmi_row trmi_row_reference_binary(trm_op op, trm_dtype dtype, int mode);
/* IsNaN (mode 0) and IsInf (mode bit 1: negative, bit 2: positive) of f32 and f64 */
trmi_row trmi_row_classify(trm_dtype dtype);
/* Clip between the parameters' limits: integers and f64 (fp32: the vector rows) */
trmi_row trmi_row_clip(trm_dtype dtype);
/* Where: (bool, x, y) of `bytes` each element: 1, 2, 4 or 8 */
trmi_row trmi_row_where(size_t bytes);

#endif
