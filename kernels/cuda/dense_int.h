/* Products of 8-bit integers with zero points, exact in 32 bits:
 *
 *   sum over l of (a[i, l] - a_zero[i]) (b[l, j] - b_zero[j])
 *
 * as it is (MatMulInteger), or times a_scale[i] b_scale[j] / y_scale[i], rounded half to even, plus
 * y_zero[i], saturated (QLinearMatMul).
 *
 * Unsigned numbers are shifted by -128, zero points with them, so that all arithmetic is signed:
 * with a', b' the shifted numbers and z, w the shifted zero points the sum is
 *   sum a' b' - z sum b' - w sum a' + k z w. */
#ifndef TRM_KERNELS_CUDA_DENSE_INT_H
#define TRM_KERNELS_CUDA_DENSE_INT_H

#include "kernels/cuda/dense_gemm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A parameter in device memory: one number, or one a row or column. */
typedef struct trmi_int_param {
    const void *data; /* NULL: 0 */
    int each;         /* 1: indexed */
} trmi_int_param;

typedef struct trmi_int_finish {
    trmi_int_param a_zero, b_zero, y_zero;    /* of A's, B's and the output's dtype */
    trmi_int_param a_scale, b_scale, y_scale; /* fp32; a_scale NULL: the sum is the result */
    int a_all, b_all; /* 1: the index counts the rows (columns) of all matrices of A (B) */
    int a_signed, b_signed;
    trm_dtype y; /* I32; I8 or U8 */
} trmi_int_finish;

/* The whole product, for any strides of p that matmul has (A's and B's matrices dense). */
TRM_MUST_USE trm_status trmi_cuda_int_product_run(cudaStream_t stream, const trmi_product *p,
                                                  const trmi_int_finish *finish, const void *a,
                                                  const void *b, void *y);
/* For the product on cuBLASLt: a' (signed bytes; NULL: not wanted) and sums of its rows (NULL: not
 * wanted) of A [rows, k]. */
TRM_MUST_USE trm_status trmi_cuda_int_rows_run(cudaStream_t stream, const void *a, bool a_signed,
                                               int64_t rows, int64_t k, int8_t *shifted,
                                               int32_t *sums);
/* y from sums of a' b' [rows, n] (may be y where that is I32); row_sums NULL: w is 0 everywhere.
 */
TRM_MUST_USE trm_status trmi_cuda_int_finish_run(const trm_cuda *cuda, cudaStream_t stream,
                                                 const trmi_int_finish *finish, int64_t rows,
                                                 int64_t n, int64_t k, const int32_t *sums,
                                                 const int32_t *row_sums,
                                                 const int32_t *column_sums, void *y);

#ifdef __cplusplus
}
#endif
#endif
