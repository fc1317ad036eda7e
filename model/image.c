/* Images: which decoder, and the storage of pixels. */
#include "model/image_impl.h"

#include <stdio.h>
#include <string.h>

trm_status trmi_image_alloc(size_t width, size_t height, int channels, const char *name,
                            trm_image *image_out)
{
    unsigned char *pixels;

    if (width == 0 || height == 0 || width > TRMI_IMAGE_SIDE_MAX || height > TRMI_IMAGE_SIDE_MAX ||
        width * height > TRMI_IMAGE_PIXELS_MAX)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': an image of %zu x %zu pixels; at most %d a side and %zu in all",
                        name, width, height, TRMI_IMAGE_SIDE_MAX, TRMI_IMAGE_PIXELS_MAX);
    pixels = (unsigned char *)trm_malloc(width * height, (size_t)channels);
    if (pixels == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': %zu x %zu pixels", name, width, height);
    image_out->width = (int)width;
    image_out->height = (int)height;
    image_out->channels = channels;
    image_out->pixels = pixels;
    return TRM_OK;
}

void trm_image_fini(trm_image *image)
{
    trm_free(image->pixels);
    memset(image, 0, sizeof(*image));
}

/* Formats that a user may well have handed over; named in the message. */
static const struct {
    const char *magic;
    size_t bytes;
    const char *name;
} foreign[] = {
    {"GIF8", 4, "a GIF"},
    {"BM", 2, "a BMP"},
    {"II*\0", 4, "a TIFF"},
    {"MM\0*", 4, "a TIFF"},
    {"RIFF", 4, "a WebP (or another RIFF file)"},
    {"\0\0\0\x0cjP  ", 8, "a JPEG 2000"},
    {"\xff\x0a", 2, "a JPEG XL"},
    {"P5\n", 3, "a PGM"},
    {"P6\n", 3, "a PPM"},
};

trm_status trm_image_decode(const void *data, size_t bytes, const char *name, trm_image *image_out)
{
    const unsigned char *p = (const unsigned char *)data;

    if (bytes == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' is empty; a JPEG or PNG image is wanted", name);
    if (bytes >= 3 && memcmp(p, "\xff\xd8\xff", 3) == 0)
        return trmi_image_decode_jpeg(p, bytes, name, image_out);
    if (bytes >= 8 && memcmp(p, "\x89PNG\r\n\x1a\n", 8) == 0)
        return trmi_image_decode_png(p, bytes, name, image_out);
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
        if (bytes >= foreign[i].bytes && memcmp(p, foreign[i].magic, foreign[i].bytes) == 0)
            return trm_fail(TRM_ERR_UNSUPPORTED, "'%s' is %s; images are read as JPEG or PNG", name,
                            foreign[i].name);
    return trm_fail(TRM_ERR_BAD_FILE,
                    "'%s' is neither a JPEG nor a PNG image (it starts with %02x %02x %02x %02x)",
                    name, p[0], bytes > 1 ? p[1] : 0, bytes > 2 ? p[2] : 0, bytes > 3 ? p[3] : 0);
}
