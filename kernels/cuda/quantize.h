/* Quantisation on the device:
 *
 *   y = clamp(round(x / scale) + zero)      half to even; NaN becomes the lowest value
 *   y = (x - zero) * scale                  back
 *
 * x is seen as [outer, axis, inner] as it lies. Scale and zero point are one number, one an index
 * of the axis, or one a block of the axis ([outer, blocks, inner]). Everything is computed in fp32.
 * The scale is a float, the zero point has the quantised side's dtype. Pointers need the alignment
 * of their elements; 16-byte aligned x and y are read in vectors. At most 2^30 elements a launch.
 * Errors: UNSUPPORTED (dtypes), INVALID_ARG (sizes), or what the launch says. */
#ifndef TRM_KERNELS_CUDA_QUANTIZE_H
#define TRM_KERNELS_CUDA_QUANTIZE_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_QUANTIZE_LIMIT ((int64_t)1 << 30)

typedef struct trmi_quantize {
    trm_dtype in, out, scale;
    bool one; /* one scale for all */
    int64_t outer, axis, inner;
    int64_t block, blocks; /* block 0: a scale an index of the axis */
} trmi_quantize;

/* in: F32, F16, BF16, F64, I32; out: U8, I8, U16, I16. zero: NULL for none. */
trm_status trmi_cuda_quantize(const trm_cuda *cuda, cudaStream_t stream, const trmi_quantize *q,
                              const void *x, const void *scale, const void *zero, void *y);
/* in: U8, I8, U16, I16, I32; out: a float. */
trm_status trmi_cuda_dequantize(const trm_cuda *cuda, cudaStream_t stream, const trmi_quantize *q,
                                const void *x, const void *scale, const void *zero, void *y);

/* scale and zero point (u8) from the range of n floats with 0 included. workspace:
 * TRMI_DYNAMIC_WORKSPACE bytes. */
#define TRMI_DYNAMIC_BLOCKS 256
#define TRMI_DYNAMIC_WORKSPACE (TRMI_DYNAMIC_BLOCKS * 3 * sizeof(float))
trm_status trmi_cuda_dynamic_range(const trm_cuda *cuda, cudaStream_t stream, const float *x,
                                   size_t n, float *scale, uint8_t *zero, void *workspace);

#ifdef __cplusplus
}
#endif
#endif
