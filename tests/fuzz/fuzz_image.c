/* libFuzzer: any bytes as an image; what decodes goes through resize and crop too. */
#include "base/log.h"
#include "model/image.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return trm_log_set_level("error") == TRM_OK ? 0 : -1; /* damaged JPEGs are warnings */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static float out[3 * 24 * 24];
    trm_image image;
    trm_preprocess p;

    if (trm_image_decode(data, bytes, "fuzz", &image) != TRM_OK)
        return 0;
    if ((size_t)image.width * (size_t)image.height > (size_t)1 << 20) {
        trm_image_fini(&image); /* correct, but too slow to fuzz */
        return 0;
    }
    trm_preprocess_defaults(&p);
    p.crop_height = p.crop_width = 24;
    p.resize_height = 28;
    p.interpolation = (trm_interpolation)(bytes % 3);
    p.antialias = (bytes & 4) == 0;
    p.color = bytes % 5 == 0 ? TRM_COLOR_GREY : TRM_COLOR_RGB;
    p.channels_last = (bytes & 8) == 0;
    if (trm_preprocess_run(&p, &image, out) != TRM_OK)
        p.crop_height = 0; /* a strip of pixels: refused by size */
    trm_image_fini(&image);
    return 0;
}
