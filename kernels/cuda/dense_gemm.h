/* A matrix product of our own, for what cuBLASLt does not take: any strides, any batch dims,
 * integers; and the shape of a product that the prepare functions work on.
 *
 *   D[b][i, j] = posts(alpha * sum over l of A[b][i, l] B[b][l, j])
 *
 * with strides in elements for each of i, l, j and each batch dim. Floats are summed in fp32 (f64
 * in f64), integers modulo 2^32 or, of 64 bits, 2^64. */
#ifndef TRM_KERNELS_CUDA_DENSE_GEMM_H
#define TRM_KERNELS_CUDA_DENSE_GEMM_H

#include "kernels/cuda/posts.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_PRODUCT_BATCH 12 /* dims; Einsum may have more than a tensor has */

typedef struct trmi_product {
    int64_t m, n, k;
    int64_t a_row, a_col, b_row, b_col, d_row, d_col;
    int batches; /* dims, outermost first; 0: one product */
    int64_t dims[TRMI_PRODUCT_BATCH];
    int64_t a_step[TRMI_PRODUCT_BATCH], b_step[TRMI_PRODUCT_BATCH], d_step[TRMI_PRODUCT_BATCH];
    trm_dtype ab, d; /* d: ab's, or F32 for 16-bit floats; integers: the same */
    float alpha;     /* floats only */
} trmi_product;

/* posts: with the pointers of the run; their `flat` is the offset in d and `channel` is flat %
 * channels; NULL: none (integers: always). 16-bit A and B need no alignment but their own. */
TRM_MUST_USE trm_status trmi_cuda_product_run(const trm_cuda *cuda, cudaStream_t stream,
                                              const trmi_product *p, const void *a, const void *b,
                                              void *d, size_t channels, const trmi_posts *posts);

#ifdef __cplusplus
}
#endif
#endif
