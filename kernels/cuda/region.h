/* Launchers of DeformConv, MaxRoiPool, MaxUnpool and CausalConvWithState. Floats only; fp32
 * arithmetic, fp64 for F64. All tensors are plain. */
#ifndef TRM_KERNELS_CUDA_REGION_H
#define TRM_KERNELS_CUDA_REGION_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Columns of a deformable convolution (Zhu et al. 2019): columns[n, c, tap, position] is the
 * bilinear sample of x[n, c] at the tap's place plus its offset, times its mask; zero outside.
 * x: [n, channels, in...], offset: [n, offset_groups * taps * 2, out...], mask: [n, offset_groups *
 * taps, out...] or NULL, columns: [n, channels, taps, out...]. */
typedef struct trmi_deform {
    trm_dtype dtype;
    size_t images, channels, offset_groups;
    int32_t in[2], out[2], kernel[2], stride[2], dilation[2], pad[2];
} trmi_deform;
trm_status trmi_cuda_deform_columns_launch(const trmi_deform *d, const void *x, const void *offset,
                                           const void *mask, void *columns, cudaStream_t stream);
/* y[i] = sum[i] + bias[i / space % channels]: sum is F32, or F64 where dtype is; it may be y. */
trm_status trmi_cuda_deform_bias_launch(trm_dtype dtype, const void *sum, const void *bias, void *y,
                                        size_t elems, size_t channels, size_t space,
                                        cudaStream_t stream);

/* x: [images, channels, height, width]; rois: [regions, 5]: image, x1, y1, x2, y2; y: [regions,
 * channels, out_h, out_w]. A bin without samples, or of an image that does not exist, is zero. */
typedef struct trmi_roi_pool {
    trm_dtype dtype, roi_dtype;
    size_t images, channels, regions;
    int32_t height, width, out_h, out_w;
    double scale;
} trmi_roi_pool;
trm_status trmi_cuda_roi_pool_launch(const trmi_roi_pool *p, const void *x, const void *rois,
                                     void *y, cudaStream_t stream);

/* y = 0, y[place of indices[i]] = x[i]; of several the last, as in a loop. Indices count in a
 * tensor of dims unpooled[rank]; what lies beyond y's dims, or outside, is dropped. count < 2^31.
 * winners: u32 [y's elements]. */
typedef struct trmi_unpool {
    trm_dtype dtype;
    int rank;
    int64_t unpooled[TRM_RANK_MAX], dims[TRM_RANK_MAX];
    size_t count, out_count;
} trmi_unpool;
trm_status trmi_cuda_unpool_launch(const trmi_unpool *p, const void *x, const int64_t *indices,
                                   void *y, uint32_t *winners, cudaStream_t stream);

/* y[r, t] = act(bias[r % channels] + sum over k of w[r % channels, k] * padded[r, t + k]), padded =
 * past (taps - 1 long, zeros where NULL), then x; state = the last taps - 1 of padded. x, y: [rows,
 * length]. bias, past, state: may be NULL. */
typedef struct trmi_causal_conv {
    trm_dtype dtype;
    size_t rows, channels, length, taps;
    bool silu;
} trmi_causal_conv;
trm_status trmi_cuda_causal_conv_launch(const trmi_causal_conv *p, const void *x, const void *w,
                                        const void *bias, const void *past, void *y, void *state,
                                        cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
