/* References of matrix products. Item: one element of out[0]. */
#ifndef TRM_KERNELS_REFERENCE_MATMUL_H
#define TRM_KERNELS_REFERENCE_MATMUL_H

#include "kernels/reference/reference.h"

/* ONNX MatMul: in[0] [..., M, K] and in[1] [..., K, N] with broadcast batch dims; 1-D operands as a
 * row and a column. Integers modulo 2^64. */
void trm_matmul_reference(const trm_ref *r, size_t begin, size_t end);
/* f[0] * op(in[0]) op(in[1]) + f[1] * in[2]; b[0], b[1]: transpose in[0], in[1]; in[2] optional,
 * broadcasts to the output. */
void trm_gemm_reference(const trm_ref *r, size_t begin, size_t end);

#endif
