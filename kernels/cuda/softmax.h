/* Softmax, LogSoftmax and Hardmax along one axis of [outer, axis, inner] in memory.
 *
 * inner 1, rows of up to 8192: kept in registers between one read and one write, a warp a row up to
 * 1024, a block beyond; longer rows: a block reads them twice (maximum and sum in one pass, Milakov
 * and Gimelshein, arXiv:1805.02867). inner over 1: x threads side by side on neighbouring columns,
 * y threads share an axis. f32, f16, bf16 in fp32, f64 in f64. out may be in: what
 * is written was read by the same threads, the sums before a barrier. */
#ifndef TRM_KERNELS_CUDA_SOFTMAX_H
#define TRM_KERNELS_CUDA_SOFTMAX_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_softmax_kind { TRMI_SOFTMAX, TRMI_LOG_SOFTMAX, TRMI_HARDMAX } trmi_softmax_kind;

/* outer * inner below 2^31 and axis below 2^31, else UNSUPPORTED. */
TRM_MUST_USE trm_status trmi_cuda_softmax_run(trmi_softmax_kind kind, trm_dtype dtype, size_t outer,
                                              size_t axis, size_t inner, const void *in, void *out,
                                              int multiprocessors, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
