/* Launchers of conversions between layouts and float dtypes. */
#ifndef TRM_KERNELS_CUDA_REORDER_H
#define TRM_KERNELS_CUDA_REORDER_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out[b, c, r] = in[b, r, c]: NCHW to NHWC with rows = channels, columns = positions, and back with
 * them swapped. Dtypes: equal (any), or two floats, rounded to nearest even. UNSUPPORTED: other
 * pairs. */
TRM_MUST_USE trm_status trmi_cuda_reorder_transpose(const trm_cuda *cuda, cudaStream_t stream,
                                                    void *out, trm_dtype out_dtype, const void *in,
                                                    trm_dtype in_dtype, size_t batch, size_t rows,
                                                    size_t columns);
/* out[i] = in[i], two float dtypes, or equal ones. */
TRM_MUST_USE trm_status trmi_cuda_reorder_flat(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                               trm_dtype out_dtype, const void *in,
                                               trm_dtype in_dtype, size_t count);

#ifdef __cplusplus
}
#endif
#endif
