/* Launchers of the image operators: Resize, GridSample, AffineGrid, RoiAlign, Col2Im, and the
 * normalisation of 8-bit pictures. Arithmetic is fp32 whatever the float dtype (as on the CPU),
 * rounded product by product where a comparison or a truncation depends on it. */
#ifndef TRM_KERNELS_CUDA_IMAGE_H
#define TRM_KERNELS_CUDA_IMAGE_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Resize (image_resize.cu) ---- */

/* One resized axis: out[j] = sum over t of weight[j * taps + t] * in[index[j * taps + t]]. Nearest
 * has one tap and no weights. outside[j]: the extrapolation value instead. */
typedef struct trmi_resize_axis {
    int32_t in, out, taps;
    bool resized;                 /* else the pointers are NULL */
    const int32_t *index;         /* device, [out * taps] */
    const float *weight;          /* device, [out * taps]; NULL: nearest */
    const unsigned char *outside; /* device, [out]; NULL: nowhere */
} trmi_resize_axis;

/* Dims of the storage from the outside in, neighbours that are not resized merged. */
typedef struct trmi_resize_plan {
    int rank;
    trmi_resize_axis axis[TRM_RANK_MAX];
    trm_dtype dtype;
    float extrapolation;
    uint64_t extrapolation_bits; /* as an element of dtype */
    size_t in_elems, out_elems;
    size_t scratch_elems; /* largest intermediate of the separable way */
} trmi_resize_plan;

/* x and out: 16-byte aligned. */
trm_status trmi_cuda_resize_nearest_launch(const trmi_resize_plan *p, const void *x, void *out,
                                           cudaStream_t stream);
/* Whether one kernel does it: F32, F16, BF16, one or two neighbouring axes, 16 taps at most. */
bool trmi_cuda_resize_is_fused(const trmi_resize_plan *p);
trm_status trmi_cuda_resize_fused_launch(const trmi_resize_plan *p, const void *x, void *out,
                                         cudaStream_t stream);
/* Any dtype but bool, any axes: one pass an axis in fp32, from the last to the first. workspace:
 * floats, 2 * scratch_elems, and in_elems more where dtype is not F32. */
trm_status trmi_cuda_resize_passes_launch(const trmi_resize_plan *p, const void *x, void *out,
                                          float *workspace, cudaStream_t stream);

/* ---- sampling (image_sample.cu) ---- */

/* x: [images, channels, dims...] -> y: [images, channels, points]; grid: [images, points, spatial],
 * coordinates x, y(, z) in [-1, 1]; dims are given for three, the missing ones in front are 1. */
typedef struct trmi_grid_sample {
    trm_dtype dtype, grid_dtype; /* floats */
    int spatial, taps;           /* taps a dim: 1 nearest, 2 linear, 4 cubic */
    int padding;                 /* 0 zeros, 1 border, 2 reflection */
    bool align_corners;
    int32_t dims[3];
    size_t images, channels, points;
} trmi_grid_sample;
trm_status trmi_cuda_grid_sample_launch(const trmi_grid_sample *g, const void *x, const void *grid,
                                        void *y, cudaStream_t stream);

/* theta: [images, d, d + 1] -> y: [images, dims..., d]; computed in fp64, d <= 3. */
typedef struct trmi_affine_grid {
    trm_dtype dtype, out_dtype;
    int spatial;
    bool align_corners;
    int64_t dims[3]; /* as in the size: (depth,) height, width */
    size_t images, points;
} trmi_affine_grid;
trm_status trmi_cuda_affine_grid_launch(const trmi_affine_grid *a, const void *theta, void *y,
                                        cudaStream_t stream);

/* x: [images, channels, height, width]; rois: [regions, 4] as x1, y1, x2, y2; batch: [regions].
 * y: [regions, channels, out_h, out_w]. A region of an image that does not exist, or with a
 * coordinate that no picture has, gives NaN (the CPU, which can stop, reports it). */
typedef struct trmi_roi_align {
    trm_dtype dtype, roi_dtype, batch_dtype; /* float, float, i32 or i64 */
    size_t images, channels, regions;
    int32_t height, width, out_h, out_w, ratio;
    float scale;
    bool half_pixel, average;
} trmi_roi_align;
trm_status trmi_cuda_roi_align_launch(const trmi_roi_align *a, const void *x, const void *rois,
                                      const void *batch, void *y, cudaStream_t stream);

/* columns x: [planes, block, positions] -> y: [planes, image...]: each pixel sums what falls on it,
 * block elements in order. block, positions and pixels < 2^31. */
typedef struct trmi_col2im {
    trm_dtype dtype; /* float */
    int spatial;
    size_t planes, block, positions, pixels;
    int32_t image[TRM_RANK_MAX], kernel[TRM_RANK_MAX], steps[TRM_RANK_MAX];
    int32_t dilation[TRM_RANK_MAX], pad[TRM_RANK_MAX], stride[TRM_RANK_MAX];
} trmi_col2im;
trm_status trmi_cuda_col2im_launch(const trmi_col2im *c, const void *x, void *y,
                                   cudaStream_t stream);

/* ---- for prepare functions ---- */

/* A Resize node's plan and its tables, on the host, as one block. */
typedef struct trmi_resize_tables {
    trmi_resize_plan plan; /* its pointers are set by _place */
    unsigned char *bytes;  /* the caller's to free; NULL: nothing is resized */
    size_t size;
    size_t at[TRM_RANK_MAX]; /* where each axis's tables begin */
    bool nearest, has_outside;
} trmi_resize_tables;
/* Whether batch or channels are resized: then only PLAIN will do. */
TRM_MUST_USE trm_status trmi_resize_moves_channels(const trm_op_desc *desc, bool *moves_out);
/* Of a node whose layouts are settled. */
TRM_MUST_USE trm_status trmi_resize_tables_make(const trm_op_desc *desc,
                                                trmi_resize_tables *tables_out);
/* The block lies at `base` on the device. */
void trmi_resize_tables_place(trmi_resize_tables *t, const void *base);

#ifdef __cplusplus
}
#endif
#endif
