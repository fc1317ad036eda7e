/* Einsum where it is no matrix product: every result is a sum over the letters that it lacks.
 *
 *   out[r] = sum over s of the product over o of operand o at [letters of r and s]
 *
 * Letters [0, kept) are the result's, outermost first, and lie densely; the others are summed. An
 * operand has a stride for each letter: 0 where it lacks it or has a dim of 1 there, the sum of its
 * strides where it has the letter twice (a diagonal). Floats are summed in fp32 (f64 in f64),
 * integers modulo their width. */
#ifndef TRM_KERNELS_CUDA_DENSE_EINSUM_H
#define TRM_KERNELS_CUDA_DENSE_EINSUM_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_EINSUM_OPERANDS 8
#define TRMI_EINSUM_LETTERS 24

typedef struct trmi_einsum {
    int operands, letters, kept;
    int64_t dims[TRMI_EINSUM_LETTERS];
    int64_t strides[TRMI_EINSUM_OPERANDS][TRMI_EINSUM_LETTERS];
    const void *data[TRMI_EINSUM_OPERANDS];
} trmi_einsum;

TRM_MUST_USE trm_status trmi_cuda_einsum_run(const trm_cuda *cuda, cudaStream_t stream,
                                             trm_dtype dtype, const trmi_einsum *einsum, void *out);

#ifdef __cplusplus
}
#endif
#endif
