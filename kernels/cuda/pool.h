/* Launchers of poolings. x: [batch, channels, in...] or, channels_last, [batch, in..., channels]; y
 * alike. Always 3 spatial dims; the missing ones come first, as 1. */
#ifndef TRM_KERNELS_CUDA_POOL_H
#define TRM_KERNELS_CUDA_POOL_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_pool_mode { TRMI_POOL_MAX, TRMI_POOL_AVERAGE, TRMI_POOL_LP } trmi_pool_mode;

typedef struct trmi_pool {
    trmi_pool_mode mode;
    bool channels_last;
    bool include_pad;  /* AVERAGE: what lies in the given pads counts */
    bool column_major; /* indices count the first spatial dim fastest */
    int power;         /* LP */
    int batch, channels;
    int in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], pad_end[3];
} trmi_pool;

/* y = max, mean or (sum |x|^p)^(1/p) over each window's elements inside x (NaN is the maximum where
 * there is one; an empty window gives 0, its maximum -inf, of integers 0). F32, F16, BF16 computed
 * in fp32, F64; MAX also of I8, U8. indices: NULL, or where each maximum lies, in x as one plain
 * array: plain i64 [batch, channels, out...]. UNSUPPORTED: other dtypes, more than 2^31 outputs. */
TRM_MUST_USE trm_status trmi_cuda_pool(cudaStream_t stream, const trmi_pool *p, trm_dtype dtype,
                                       const void *x, void *y, int64_t *indices);
/* The same over all of in (kernel = in, out 1, no pads), without indices: whole planes at once. */
TRM_MUST_USE trm_status trmi_cuda_pool_global(cudaStream_t stream, const trmi_pool *p,
                                              trm_dtype dtype, const void *x, void *y);

#ifdef __cplusplus
}
#endif
#endif
