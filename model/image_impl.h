/* Shared by the files of model/image and model/preprocess. */
#ifndef TRM_MODEL_IMAGE_IMPL_H
#define TRM_MODEL_IMAGE_IMPL_H

#include "model/image.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_IMAGE_SIDE_MAX 65535
#define TRMI_IMAGE_PIXELS_MAX ((size_t)96 << 20) /* a few KB of PNG can claim them all */

TRM_MUST_USE trm_status trmi_image_decode_jpeg(const unsigned char *data, size_t bytes,
                                               const char *name, trm_image *image_out);
TRM_MUST_USE trm_status trmi_image_decode_png(const unsigned char *data, size_t bytes,
                                              const char *name, trm_image *image_out);
/* Checks the size against the limits and allocates the pixels. */
TRM_MUST_USE trm_status trmi_image_alloc(size_t width, size_t height, int channels,
                                         const char *name, trm_image *image_out);

/* PIL's convert('L') of one RGB pixel. */
static inline unsigned char trmi_grey(unsigned r, unsigned g, unsigned b)
{
    return (unsigned char)((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16);
}

/* `in` at another size, into a fresh image. */
TRM_MUST_USE trm_status trmi_resample(const trm_image *in, int width, int height,
                                      trm_interpolation interpolation, bool antialias,
                                      trm_image *out);

#ifdef __cplusplus
}
#endif
#endif
