/* Launchers of convolutions' own kernels. All activations are channels-last, [batch, in..., C]. */
#ifndef TRM_KERNELS_CUDA_CONV_H
#define TRM_KERNELS_CUDA_CONV_H

#include "kernels/cuda/posts.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Always 3 spatial dims; the missing ones come first, as 1. Offsets may exceed 32 bits, dims do
 * not. */
typedef struct trmi_conv_shape {
    int batch, channels, filters, group;
    int in[3], out[3], kernel[3], stride[3], dilation[3], pad[3]; /* pad: at the begin */
    bool transposed;
} trmi_conv_shape;

/* ---- weights and padding ---- */

/* to[a][b][c][d] = from[a s0 + b s1 + c s2 + d s3]; 0 for d >= valid (split: for b * dims[3] + d >=
 * valid). Floats of any kind to any kind (F64 to F64), or bytes to bytes, which are xored with
 * `flip` (0x80: unsigned to signed). */
typedef struct trmi_conv_arrange {
    size_t dims[4], strides[4];
    size_t valid;
    bool split;
    trm_dtype from, to;
    unsigned flip;
} trmi_conv_arrange;
TRM_MUST_USE trm_status trmi_cuda_conv_arrange(cudaStream_t stream, const trmi_conv_arrange *a,
                                               const void *from, void *to);

/* to [batch, out..., to_channels]: element (o, c) is from [batch, in..., from_channels] at o - pad,
 * or the fill where that is outside. fill: device memory of one element, NULL: 0. flip: for bytes,
 * xored into all of them. to 16-byte aligned. */
typedef struct trmi_conv_padding {
    int batch, from_channels, to_channels;
    int in[3], out[3], pad[3];
    size_t element_bytes; /* 1, 2, 4 or 8 */
    unsigned flip;
} trmi_conv_padding;
TRM_MUST_USE trm_status trmi_cuda_conv_pad(cudaStream_t stream, const trmi_conv_padding *p,
                                           const void *from, const void *fill, void *to);

/* ---- convolutions ---- */

/* y[n, o, m] = posts(sum over taps t and channels c of the group of x[n, at(o, t), c] w[t, c, m]),
 * w: [taps, channels / group, filters], in x's dtype. Any shape; F32, F16, BF16 (sums in fp32),
 * F64. For what cuDNN has no engine for. */
TRM_MUST_USE trm_status trmi_cuda_conv_direct(cudaStream_t stream, const trmi_conv_shape *s,
                                              trm_dtype dtype, const void *x, const void *w,
                                              void *y, const trmi_posts *posts);
/* The same for group = channels = filters, not transposed; F32, F16, BF16; w: [taps, channels]. */
TRM_MUST_USE trm_status trmi_cuda_conv_depthwise(cudaStream_t stream, const trmi_conv_shape *s,
                                                 trm_dtype dtype, const void *x, const void *w,
                                                 void *y, const trmi_posts *posts);

#ifdef __cplusplus
}
#endif
#endif
