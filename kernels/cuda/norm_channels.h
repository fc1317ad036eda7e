/* BatchNormalization and LRN: maths along the channels of [images, channels, spatial], or, channels
 * last, [images, spatial, channels]. */
#ifndef TRM_KERNELS_CUDA_NORM_CHANNELS_H
#define TRM_KERNELS_CUDA_NORM_CHANNELS_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_channels {
    trm_dtype dtype; /* a float */
    bool channels_last, relu;
    size_t images, channels, spatial; /* an image below 2^31 elements; LRN: all */
} trmi_channels;

/* Scale and shift of each channel, in fp32 (f64 where `wide`), coefficients: [scale | shift]:
 *   scale = gain / sqrt(variance + epsilon)    shift = bias - mean * scale
 * moments not NULL (training): mean and variance from there (f64 pairs), and running = old *
 * momentum + new * (1 - momentum) into running_mean, running_variance (may be NULL). */
typedef struct trmi_batch_norm {
    size_t channels;
    const void *gain, *bias, *mean, *variance;
    trm_dtype gain_type, bias_type, mean_type, variance_type;
    const double *moments;
    void *running_mean, *running_variance;
    trm_dtype running_mean_type, running_variance_type;
    double epsilon, momentum;
    bool wide;
    void *coefficients;
} trmi_batch_norm;
TRM_MUST_USE trm_status trmi_cuda_batch_norm_coefficients(const trmi_batch_norm *b,
                                                          cudaStream_t stream);
/* y = x * scale + shift (relu: not below 0). y may be x. */
TRM_MUST_USE trm_status trmi_cuda_batch_norm_apply(const trmi_channels *c, cudaStream_t stream,
                                                   const void *x, const void *coefficients,
                                                   void *y);

/* y = x / (bias + alpha / size * sum of squares of `size` channels around)^beta. y is apart from x.
 */
TRM_MUST_USE trm_status trmi_cuda_lrn_run(const trmi_channels *c, cudaStream_t stream, size_t size,
                                          double alpha, double beta, double bias, const void *x,
                                          void *y);

#ifdef __cplusplus
}
#endif
#endif
