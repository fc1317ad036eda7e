/* PNG by libpng, with samples converted as PIL's convert('RGB') and convert('L') do: alpha and tRNS
 * are dropped, 16-bit colour keeps its high byte, 16-bit grey is clipped to 255 (PIL reads it as
 * whole numbers), gamma and colour profiles are ignored.
 *
 * libpng jumps back on errors: state lies in a struct, as in image_jpeg.c. */
#include "model/image_impl.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <png.h>

typedef struct decoder {
    png_structp png;
    png_infop info;
    const char *name;
    const unsigned char *at;
    size_t left, budget; /* bytes to read: there are, are allowed */
    bool cut_short;
    char text[160];
    trm_image image;
    unsigned char *raw; /* all rows as libpng gives them, where they need work afterwards */
    png_bytep *rows;
} decoder;

static void on_error(png_structp png, png_const_charp text)
{
    decoder *d = (decoder *)png_get_error_ptr(png);

    snprintf(d->text, sizeof(d->text), "%s", text);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp text)
{
    (void)png; /* about ancillary chunks, which PIL does not look at either */
    (void)text;
}

static void on_read(png_structp png, png_bytep out, size_t bytes)
{
    decoder *d = (decoder *)png_get_io_ptr(png);

    if (bytes > d->left) {
        d->cut_short = true;
        png_error(png, "cut short");
    }
    if (bytes > d->budget)
        png_error(png, "more data than pixels");
    d->budget -= bytes;
    memcpy(out, d->at, bytes);
    d->at += bytes;
    d->left -= bytes;
}

/* 16-bit grey to 8 bits: values over 255 are white. */
static void clip_grey16(const unsigned char *raw, size_t raw_step, unsigned char *out, size_t count)
{
    for (size_t i = 0; i < count; i++, raw += raw_step)
        out[i] = raw[0] != 0 ? 255 : raw[1];
}

static void apply_palette(const decoder *d, unsigned char *out, size_t count)
{
    unsigned char table[256][3];
    png_colorp palette = NULL;
    int colors = 0;

    memset(table, 0, sizeof(table)); /* an index past the palette is black */
    if (png_get_PLTE(d->png, d->info, &palette, &colors) != 0)
        for (int i = 0; i < colors && i < 256; i++) {
            table[i][0] = palette[i].red;
            table[i][1] = palette[i].green;
            table[i][2] = palette[i].blue;
        }
    for (size_t i = 0; i < count; i++)
        memcpy(out + 3 * i, table[d->raw[i]], 3);
}

/* Everything that may jump. */
static trm_status decode(decoder *d)
{
    png_uint_32 width, height;
    int depth, type, channels;
    size_t raw_step, count;
    bool work;

    d->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, d, on_error, on_warning);
    if (d->png == NULL || (d->info = png_create_info_struct(d->png)) == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': decoder", d->name);
    if (setjmp(png_jmpbuf(d->png)) != 0) {
        if (d->cut_short)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': the PNG file is cut short", d->name);
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': PNG: %s", d->name, d->text);
    }
    png_set_user_limits(d->png, TRMI_IMAGE_SIDE_MAX, TRMI_IMAGE_SIDE_MAX);
    png_set_chunk_malloc_max(d->png, (png_alloc_size_t)8 << 20);
    png_set_read_fn(d->png, d, on_read);
    png_read_info(d->png, d->info);
    if (png_get_IHDR(d->png, d->info, &width, &height, &depth, &type, NULL, NULL, NULL) == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': PNG without IHDR", d->name);
    channels = type == PNG_COLOR_TYPE_GRAY || type == PNG_COLOR_TYPE_GRAY_ALPHA ? 1 : 3;
    raw_step = (size_t)channels;
    work = false;
    if (type == PNG_COLOR_TYPE_PALETTE) {
        png_set_packing(d->png);
        raw_step = 1;
        work = true;
    } else if (type == PNG_COLOR_TYPE_GRAY && depth == 16) {
        raw_step = 2; /* big-endian samples */
        work = true;
    } else if (type == PNG_COLOR_TYPE_GRAY) {
        png_set_expand_gray_1_2_4_to_8(d->png);
    } else if (depth == 16) {
        png_set_strip_16(d->png);
    }
    if ((type & PNG_COLOR_MASK_ALPHA) != 0)
        png_set_strip_alpha(d->png);
    (void)png_set_interlace_handling(d->png);
    png_read_update_info(d->png, d->info);
    if (png_get_rowbytes(d->png, d->info) != width * raw_step)
        return trm_fail(TRM_ERR_INTERNAL, "'%s': a row of %zu bytes", d->name,
                        png_get_rowbytes(d->png, d->info));
    TRM_CHECK(trmi_image_alloc(width, height, channels, d->name, &d->image));
    count = (size_t)width * height;
    if (work)
        d->raw = (unsigned char *)trm_malloc(count, raw_step);
    d->rows = (png_bytep *)trm_malloc(height, sizeof(*d->rows));
    if (d->rows == NULL || (work && d->raw == NULL))
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': %u rows", d->name, height);
    for (png_uint_32 y = 0; y < height; y++)
        d->rows[y] = (work ? d->raw : d->image.pixels) + (size_t)y * width * raw_step;
    /* libpng inflates what follows the last pixel, too, to its end: that must not be a bomb */
    d->budget = 16 * count + 65536;
    png_read_image(d->png, d->rows); /* not png_read_end: what follows the pixels is not wanted */
    if (type == PNG_COLOR_TYPE_PALETTE)
        apply_palette(d, d->image.pixels, count);
    else if (work)
        clip_grey16(d->raw, raw_step, d->image.pixels, count);
    return TRM_OK;
}

trm_status trmi_image_decode_png(const unsigned char *data, size_t bytes, const char *name,
                                 trm_image *image_out)
{
    decoder *d = (decoder *)trm_calloc(1, sizeof(*d));
    trm_status st;

    if (d == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': decoder", name);
    d->name = name;
    d->at = data;
    d->left = bytes;
    d->budget = bytes;
    st = decode(d);
    if (d->png != NULL)
        png_destroy_read_struct(&d->png, d->info != NULL ? &d->info : NULL, NULL);
    trm_free(d->raw);
    trm_free(d->rows);
    if (st == TRM_OK)
        *image_out = d->image;
    else
        trm_image_fini(&d->image);
    trm_free(d);
    return st;
}
