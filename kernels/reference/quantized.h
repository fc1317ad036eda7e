/* References of the integer operators. Item: one element of out[0]. */
#ifndef TRM_KERNELS_REFERENCE_QUANTIZED_H
#define TRM_KERNELS_REFERENCE_QUANTIZED_H

#include "kernels/reference/reference.h"

/* ConvInteger and QLinearConv; r->window, r->group */
void trm_conv_integer_reference(const trm_ref *r, size_t begin, size_t end);
void trm_qlinear_conv_reference(const trm_ref *r, size_t begin, size_t end);
/* MatMulInteger and QLinearMatMul: shapes as MatMul; scales and zero points: one, one per row
 * (left) or column (right), or broadcasting with the operand's last two dims reduced */
void trm_matmul_integer_reference(const trm_ref *r, size_t begin, size_t end);
void trm_qlinear_matmul_reference(const trm_ref *r, size_t begin, size_t end);

#endif
