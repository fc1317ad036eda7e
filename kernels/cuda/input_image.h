/* Images as they are uploaded, bytes, to floats. */
#ifndef TRM_KERNELS_CUDA_INPUT_IMAGE_H
#define TRM_KERNELS_CUDA_INPUT_IMAGE_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_INPUT_CHANNELS_MAX 4

/* image: u8 [images, pixels, channels]; table: f32 [channels, 256]; out: f32, [images, channels,
 * pixels] or (last) [images, pixels, channels]; out = table[channel][sample]. channels at most
 * TRMI_INPUT_CHANNELS_MAX. Errors: launch. */
TRM_MUST_USE trm_status trmi_cuda_image_table_run(const unsigned char *image, const float *table,
                                                  float *out, size_t images, size_t pixels,
                                                  int channels, bool last, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
