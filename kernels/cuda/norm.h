/* Normalisations of rows: LayerNormalization, RMSNormalization, InstanceNormalization,
 * GroupNormalization.
 *
 *   v = x + residual                                                   (residual: optional)
 *   y = (v - mean(v)) / sqrt(mean((v - mean(v))^2) + epsilon) * gain + bias      per row of v
 *
 * RMSNormalization takes 0 for the mean. Mean first, then deviations from it, both over registers.
 * A row lies in one piece, or, channels last, is a group of channels at every position of an image.
 * Rows of up to 8192 in one piece: one kernel, x read once. Others: moments of pieces of a row
 * (merged as Chan, Golub and LeVeque, 1983), their merge, and a pass that applies them. f32, f16,
 * bf16 in fp32, f64 in f64. */
#ifndef TRM_KERNELS_CUDA_NORM_H
#define TRM_KERNELS_CUDA_NORM_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_NORM_ROW_MAX 8192 /* elements of a row that one kernel keeps in registers */

typedef struct trmi_norm {
    /* set by the caller */
    trm_dtype dtype;     /* of x, residual, sum, y */
    trm_dtype gain_type; /* of gain and bias: `dtype`, or F32 for 16-bit floats */
    bool centre;
    bool channels_last; /* x is [images, spatial, channels]; else a row is in one piece */
    size_t rows, n;     /* rows and their length */
    /* 0 channels: element i of a row takes gain[i]. Else row r is group r % groups of image
     * r / groups, has channels / groups channels of `spatial` elements, and takes the gain of the
     * channel, or, per_group, of the group. */
    size_t channels, spatial, groups;
    bool per_group;
    double epsilon;
    trm_dtype mean_type, inverse_type; /* of the outputs mean and inverse */
    /* set by plan */
    bool fused; /* the one kernel */
    int multiprocessors, splits;
    size_t workspace_bytes;
} trmi_norm;

/* Device memory; `bias`, `residual`, `sum`, `mean`, `inverse` may be NULL, `gain` too (1). */
typedef struct trmi_norm_args {
    const void *x, *residual, *gain, *bias;
    void *y;              /* may be x */
    void *sum;            /* x + residual as rounded to its dtype, which is what is normalised */
    void *mean, *inverse; /* [rows] mean and 1 / sqrt(variance + epsilon) */
} trmi_norm_args;

/* UNSUPPORTED: dtypes, 2^31 rows or elements of a row (channels last: of an image). */
TRM_MUST_USE trm_status trmi_cuda_norm_plan(const trm_cuda *cuda, trmi_norm *norm);
/* residual and sum want rows of one piece, of up to TRMI_NORM_ROW_MAX: INVALID_ARG. */
TRM_MUST_USE trm_status trmi_cuda_norm_run(const trmi_norm *norm, cudaStream_t stream,
                                           const trmi_norm_args *args, void *workspace);

/* the two ways behind it */
trm_status trmi_cuda_norm_rows(const trmi_norm *norm, cudaStream_t stream,
                               const trmi_norm_args *args);
trm_status trmi_cuda_norm_pieces(const trmi_norm *norm, cudaStream_t stream,
                                 const trmi_norm_args *args, void *workspace);

/* to[i] = from broadcast, as F32 or F64 (`type`): to is dense over dims[0..rank), strides are those
 * of `from` in elements (0: broadcast). 2^31 elements at most. */
TRM_MUST_USE trm_status trmi_cuda_norm_expand(trm_dtype type, void *to, trm_dtype from_type,
                                              const void *from, int rank, const int64_t *dims,
                                              const int64_t *strides, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
