/* What the prepare functions of matrix products share: a product (dense_gemm.h) on cuBLASLt where
 * it can be, else on the kernel of our own; constants packed in another dtype. */
#ifndef TRM_KERNELS_CUDA_DENSE_H
#define TRM_KERNELS_CUDA_DENSE_H

#include "kernels/cuda/dense_gemm.h"
#include "kernels/cuda/gemm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the library is to do beyond the product. */
typedef struct trmi_epilogue {
    trm_dtype bias; /* [n]; NONE: none */
    float beta;     /* of a C that lies as D does, in D's dtype; 0: none */
    trmi_gemm_activation activation;
} trmi_epilogue;

typedef struct trmi_dense {
    trmi_product product; /* with as few batch dims as its strides allow */
    trmi_gemm *gemm;      /* NULL: our own kernel */
    bool swapped;         /* the product is B^T A^T */
    int strided; /* batch dim that the library runs; -1: none. The others are looped over */
    trmi_epilogue epilogue;
    int64_t loops;
} trmi_dense;

/* NULL epilogue: none, and then it never fails for lack of an algorithm. UNSUPPORTED: with this
 * epilogue only. */
TRM_MUST_USE trm_status trmi_dense_create(trm_cuda *cuda, const trmi_product *product,
                                          const trmi_epilogue *epilogue, trmi_dense *dense_out);
/* To be aligned by trmi_dense_run: any TRM_ALIGN aligned memory will do. */
size_t trmi_dense_workspace_bytes(const trmi_dense *dense);
/* c, bias: as the epilogue says. posts: of a D that lies densely, `elems` of them; as in
 * trmi_cuda_product_run; NULL: none. */
TRM_MUST_USE trm_status trmi_dense_run(const trm_cuda *cuda, const trmi_dense *dense,
                                       cudaStream_t stream, const void *a, const void *b,
                                       const void *c, void *d, const void *bias, void *workspace,
                                       size_t elems, size_t channels, const trmi_posts *posts);
void trmi_dense_fini(trmi_dense *dense);

/* The sizes and strides of MatMul: [..., m, k] x [..., k, n] with broadcast batch dims, dense;
 * one-dimensional operands are a row and a column. dtypes and alpha stay as they are. */
void trmi_cuda_matmul_product(const trm_tensor *a, const trm_tensor *b, trmi_product *product);

/* Constant input i in device memory, as `dtype`, times `scale`. Floats only. */
TRM_MUST_USE trm_status trmi_cuda_pack_as(trm_cuda *cuda, const trm_op_desc *desc, int input,
                                          trm_dtype dtype, float scale, trmi_pack **pack_out);

#ifdef __cplusplus
}
#endif
#endif
