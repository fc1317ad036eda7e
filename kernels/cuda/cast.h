/* Conversions between dtypes: Cast, CastLike; and copies: BitCast, Identity, Dropout at inference.
 * out[i] = (to) x[i] over n elements as they lie, by the rules of cast.cuh. Pointers need the
 * alignment of their elements; 16-byte aligned ones are read in vectors. Errors: UNSUPPORTED
 * (dtypes), or what the launch says. */
#ifndef TRM_KERNELS_CUDA_CAST_H
#define TRM_KERNELS_CUDA_CAST_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

trm_status trmi_cuda_cast(const trm_cuda *cuda, cudaStream_t stream, trm_dtype to, void *out,
                          trm_dtype from, const void *x, size_t n);
/* The part of it whose result is a float; `to` is one. */
trm_status trmi_cuda_cast_float(const trm_cuda *cuda, cudaStream_t stream, trm_dtype to, void *out,
                                trm_dtype from, const void *x, size_t n);
/* out[i] = true */
trm_status trmi_cuda_fill_true(const trm_cuda *cuda, cudaStream_t stream, void *out, size_t n);

#ifdef __cplusplus
}
#endif
#endif
