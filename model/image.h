/* Images: decoding JPEG and PNG, and the resize/crop/normalise chain as torchvision's transforms on
 * PIL images do it (antialiased bilinear or bicubic on 8-bit samples with Pillow's fixed-point
 * rounding). */
#ifndef TRM_MODEL_IMAGE_H
#define TRM_MODEL_IMAGE_H

#include "base/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_image {
    int width, height, channels; /* channels: 1 grey or 3 RGB; alpha is dropped, palettes and 16
                                    bits converted as PIL does */
    unsigned char *pixels;       /* [height, width, channels], owned: trm_image_fini */
} trm_image;

/* `name` is for messages. Errors: BAD_FILE (not an image, truncated, over 64k pixels a side or 256
 * M pixels), UNSUPPORTED. */
TRM_MUST_USE trm_status trm_image_decode(const void *data, size_t bytes, const char *name,
                                         trm_image *image_out);
void trm_image_fini(trm_image *image);

typedef enum trm_interpolation {
    TRM_INTERPOLATION_NEAREST,
    TRM_INTERPOLATION_BILINEAR,
    TRM_INTERPOLATION_BICUBIC
} trm_interpolation;
typedef enum trm_color { TRM_COLOR_RGB, TRM_COLOR_BGR, TRM_COLOR_GREY } trm_color;

typedef struct trm_preprocess {
    int resize_height, resize_width; /* 0, 0: none; height > 0 and width 0: the shorter side becomes
                                        height (torchvision) */
    int crop_height, crop_width; /* centre crop; 0: none. Pads with zero where the image is smaller
                                    (torchvision) */
    trm_interpolation interpolation;
    bool antialias;
    trm_color color;
    float scale;    /* multiplies the 0..255 sample, usually 1/255 */
    int mean_count; /* 0: none; 1: for all channels; else one per channel */
    float mean[4], std[4];
    bool channels_last; /* output [H, W, C] instead of [C, H, W] */
    trm_dtype dtype;    /* F32, or U8 (no scale, mean, std) */
} trm_preprocess;
void trm_preprocess_defaults(
    trm_preprocess *p); /* no resize, bilinear, antialias, rgb, 1/255, F32 */

/* Shape of the result for an image of this size; dims are [C, H, W] or [H, W, C]. */
void trm_preprocess_shape(const trm_preprocess *p, int width, int height, int64_t dims_out[3]);
/* Writes the tensor of one image to `out` (as many elements as trm_preprocess_shape says). */
TRM_MUST_USE trm_status trm_preprocess_run(const trm_preprocess *p, const trm_image *image,
                                           void *out);

/* What the result holds for each of the 256 values of a sample of `channel` (F32 results). */
void trm_preprocess_table(const trm_preprocess *p, int channel, float table_out[256]);

#ifdef __cplusplus
}
#endif
#endif
