/* Launchers of integer convolutions (ConvInteger, QLinearConv): exact sums in int32. Activations
 * are channels-last. Bytes are signed inside: unsigned ones are xored with 0x80, and so are their
 * zero points, which changes no difference. */
#ifndef TRM_KERNELS_CUDA_CONV_INTEGER_H
#define TRM_KERNELS_CUDA_CONV_INTEGER_H

#include "kernels/cuda/conv.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What becomes of a sum: int32, or a byte of the output's scale. Device pointers; NULL: absent. */
typedef struct trmi_conv_finish {
    bool linear; /* QLinearConv: y = round(sum * (x_scale * w_scale[m] / y_scale)) + y_zero */
    bool x_unsigned, y_unsigned;
    int w_scales; /* 1 or filters */
    const float *x_scale, *w_scale, *y_scale;
    const uint8_t *x_zero, *y_zero;
    const int32_t *bias; /* [filters], added to the sum */
} trmi_conv_finish;

typedef struct trmi_conv_integer {
    trmi_conv_shape shape;
    int words;       /* of 4 channels of a group, the last one filled up */
    bool w_unsigned; /* as the zero points are; the packed weights are signed */
    int w_zeros;     /* 1 or filters */
    const uint8_t *w_zero;
    bool symmetric; /* all zero points are 0 and nothing is unsigned */
    trmi_conv_finish finish;
} trmi_conv_integer;

/* w: [taps, words, filters, 4] bytes, signed, 0 where there is no channel. y: i32 or bytes. */
TRM_MUST_USE trm_status trmi_cuda_conv_integer(cudaStream_t stream, const trmi_conv_integer *c,
                                               const void *x, const void *w, void *y);
/* sums [rows, filters] of a convolution of x without its zero point, to y: takes x_zero times
 * w_sums[filters] away (NULL: nothing), then finishes. y may be sums where it is int32. */
TRM_MUST_USE trm_status trmi_cuda_conv_finish(cudaStream_t stream, const trmi_conv_finish *f,
                                              const int32_t *sums, const int32_t *w_sums,
                                              size_t rows, int filters, void *y);

#ifdef __cplusplus
}
#endif
#endif
