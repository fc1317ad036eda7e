/* Between gemm_cublaslt.c and gemm_choose.c. */
#ifndef TRM_KERNELS_CUDA_GEMM_IMPL_H
#define TRM_KERNELS_CUDA_GEMM_IMPL_H

#include "kernels/cuda/gemm.h"
#include "kernels/cuda/plan_cache.h"

#include <cublasLt.h>

typedef struct trmi_lt_choice trmi_lt_choice; /* an algorithm, by what it was chosen for */

typedef struct trmi_lt {
    cublasLtHandle_t handle;
    trmi_plan_cache *plans;  /* on disk */
    trmi_lt_choice *choices; /* of this process */
} trmi_lt;

typedef union trmi_lt_scale {
    float f;
    double d;
    int32_t i;
} trmi_lt_scale;

/* The descriptors of a gemm; of these only op's pointers (bias, scales) change after create. */
typedef struct trmi_lt_shapes {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c, d; /* a: ours; it is the library's second operand */
} trmi_lt_shapes;

struct trmi_gemm {
    trm_cuda *cuda;
    trmi_gemm_desc desc; /* strides filled in */
    trmi_lt_shapes *shapes;
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
    trmi_lt_scale alpha, beta;
    bool empty; /* m, n or k is 0 */
};

/* OK, or the library's status as ours, with its name. */
trm_status trmi_lt_check(cublasStatus_t status, const char *what);
#define TRMI_LT(call) trmi_lt_check((call), #call)
TRM_MUST_USE trm_status trmi_lt_bias(cublasLtMatmulDesc_t op, const void *bias);
static inline size_t trmi_lt_bytes(trm_dtype dtype)
{
    return dtype == TRM_DTYPE_F8_ROW ? 1 : trm_dtype_bytes(dtype);
}
/* workspace: as many bytes as the algorithm asks for, or more. */
TRM_MUST_USE trm_status trmi_lt_enqueue(const trmi_lt *lt, const trmi_gemm *gemm,
                                        const cublasLtMatmulAlgo_t *algo, cudaStream_t stream,
                                        const void *a, const void *b, const void *c, void *d,
                                        void *workspace, size_t workspace_bytes);
/* gemm_choose.c: sets gemm's algo and workspace. UNSUPPORTED: there is none. */
TRM_MUST_USE trm_status trmi_lt_choose(trmi_lt *lt, trmi_gemm *gemm);
void trmi_lt_choices_free(trmi_lt *lt);

#endif
