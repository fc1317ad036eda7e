/* Determinants of count matrices [n, n], by LU with partial pivoting in f64: a block a matrix, in
 * shared memory up to 64 x 64, else in the workspace. */
#ifndef TRM_KERNELS_CUDA_REDUCE_DET_H
#define TRM_KERNELS_CUDA_REDUCE_DET_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

size_t trmi_cuda_det_workspace_bytes(size_t count, size_t n);
/* n up to 46340 */
TRM_MUST_USE trm_status trmi_cuda_det_run(trm_dtype dtype, size_t count, size_t n, const void *in,
                                          void *out, void *workspace, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
