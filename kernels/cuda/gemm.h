/* Matrix products on the device: the only place that the rest of the backend meets cuBLASLt
 * through (gemm_cublaslt.c).
 *
 *   D[b] = epilogue(alpha * op(A[b]) op(B[b]) + beta * C[b])      all row-major
 *
 * op(A): [m, k], op(B): [k, n], C, D: [m, n]. Algorithms are chosen per shape (heuristics, then
 * measured where a GPU can be timed), kept for the process, and passed explicitly with the
 * workspace, so that running allocates nothing and can be captured. TF32 is off. */
#ifndef TRM_KERNELS_CUDA_GEMM_H
#define TRM_KERNELS_CUDA_GEMM_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_gemm_activation {
    TRMI_GEMM_NONE,
    TRMI_GEMM_RELU,
    TRMI_GEMM_GELU_TANH, /* cuBLASLt's GELU: the tanh form */
} trmi_gemm_activation;

typedef struct trmi_gemm_desc {
    int64_t m, n, k;
    int64_t batch;              /* 1: none */
    bool a_transposed;          /* A is stored [k, m] */
    bool b_transposed;          /* B is stored [n, k] */
    int64_t lda, ldb, ldc, ldd; /* row strides in elements; 0: dense */
    int64_t a_step, b_step;     /* between matrices of a batch, in elements; 0: the same one */
    int64_t c_step, d_step;
    trm_dtype ab, c, d; /* ab: F32, F16, BF16, F64 (d alike), I8 (d: I32), F8_ROW: e4m3 elements
                           alone (d: F32) */
    bool scaled;       /* e4m3: rows of A and columns of op(B) have fp32 scales: trmi_gemm_scales */
    float alpha, beta; /* beta 0: C is not read and may be NULL */
    trm_dtype bias;    /* [n], added to each row before the activation; NONE: none */
    trmi_gemm_activation activation;
    int align; /* bytes that a, b, c and d are aligned to, at least; 0: TRM_ALIGN. bias: TRM_ALIGN
                  always */
} trmi_gemm_desc;

typedef struct trmi_gemm trmi_gemm;

/* UNSUPPORTED: dtypes or alignments that cuBLASLt has no algorithm for. A bias has the dtype of d
 * and no bias goes with F64, I8 or e4m3. I8: A as it is, B transposed, n and k multiples of 4,
 * alpha
 * 1. e4m3: A as it is, B transposed, n, k and strides multiples of 16, all aligned to 16, beta 0;
 * the library has it from sm_89 on, scales on sm_90 alone. C has the dtype of d. May measure on
 * cuda->stream, and waits for it then. */
TRM_MUST_USE trm_status trmi_gemm_create(trm_cuda *cuda, const trmi_gemm_desc *desc,
                                         trmi_gemm **gemm_out);
size_t trmi_gemm_workspace_bytes(const trmi_gemm *gemm);
/* Scales of the runs that follow, on the device: a: [m], b: [n]. */
TRM_MUST_USE trm_status trmi_gemm_scales(const trmi_gemm *gemm, const float *a, const float *b);
/* Enqueues. c may be d (in place); c, bias NULL where the desc has none. workspace: at least
 * workspace_bytes, 256-byte aligned. m, n or k of 0: D is beta * C, or zeros (k 0), without a
 * launch where there is nothing to write. */
TRM_MUST_USE trm_status trmi_gemm_run(const trmi_gemm *gemm, cudaStream_t stream, const void *a,
                                      const void *b, const void *c, void *d, const void *bias,
                                      void *workspace);
void trmi_gemm_destroy(trmi_gemm *gemm); /* takes NULL */

#ifdef __cplusplus
}
#endif
#endif
