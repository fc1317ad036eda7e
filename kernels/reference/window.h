/* Sliding windows: the attributes that convolutions and poolings share, checked and completed. */
#ifndef TRM_KERNELS_REFERENCE_WINDOW_H
#define TRM_KERNELS_REFERENCE_WINDOW_H

#include "base/op.h"

#define TRM_SPATIAL_MAX (TRM_RANK_MAX - 2)

typedef struct trm_window {
    int spatial; /* number of spatial dims */
    int64_t in[TRM_SPATIAL_MAX], out[TRM_SPATIAL_MAX];
    int64_t kernel[TRM_SPATIAL_MAX], stride[TRM_SPATIAL_MAX], dilation[TRM_SPATIAL_MAX];
    int64_t pad_begin[TRM_SPATIAL_MAX];
    int64_t pad_end[TRM_SPATIAL_MAX]; /* as given: the padded extent that counts in an average */
} trm_window;

/* Of a node with input x and output y (both [N, C, spatial...], shapes already inferred). `kernel`:
 * spatial dims of the weights, NULL: attribute kernel_shape. transposed: ConvTranspose, where pads
 * cut the output. INVALID_ARG: lists of a wrong length, values below 1, rank below 3. */
TRM_MUST_USE trm_status trm_window_parse(const trm_attrs *attrs, const int64_t *kernel,
                                         const trm_tensor *x, const trm_tensor *y, bool transposed,
                                         trm_window *window_out);
/* The pad at the end with which (in + pads - extent) / stride + 1 is exactly `out`: ceil_mode makes
 * windows start inside the given pads and end beyond them. */
int64_t trm_window_pad_needed(const trm_window *w, int i);

#endif
