/* JPEG by libjpeg-turbo with the settings PIL uses (accurate integer DCT, fancy upsampling), so
 * that pixels are the same. As in PIL, CMYK is taken as Adobe's inverted CMYK, EXIF orientation is
 * ignored, damage inside a scan is a warning and a file that ends early is an error.
 *
 * libjpeg reports errors by a call that must not return: it jumps back to the decoding function,
 * whose state lies in a struct, not in locals that the jump could clobber. */
#include "base/log.h"
#include "model/image_impl.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

/* A progressive file may repeat scans without end, each costing a pass over the image. */
#define SCANS_MAX 500

typedef struct decoder {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    struct jpeg_progress_mgr progress;
    jmp_buf back;
    const char *name;
    bool cut_short, scans, no_memory;
    char text[JMSG_LENGTH_MAX];
    trm_image image;
    unsigned char *row; /* CMYK: one row as decoded */
} decoder;

static void on_error(j_common_ptr c)
{
    decoder *d = (decoder *)c->client_data;

    d->no_memory = c->err->msg_code == JERR_OUT_OF_MEMORY;
    c->err->format_message(c, d->text);
    longjmp(d->back, 1);
}

static void on_message(j_common_ptr c, int level)
{
    decoder *d = (decoder *)c->client_data;

    if (level < 0 && c->err->num_warnings++ == 0) {
        c->err->format_message(c, d->text);
        TRM_LOG(TRM_LOG_WARN, "image", "'%s': %s", d->name, d->text);
    }
}

static void source_init(j_decompress_ptr c)
{
    (void)c;
}

static boolean source_fill(j_decompress_ptr c)
{
    ((decoder *)c->client_data)->cut_short = true;
    ERREXIT(c, JERR_INPUT_EOF);
    return FALSE;
}

static void source_skip(j_decompress_ptr c, long bytes)
{
    if (bytes <= 0)
        return;
    if ((size_t)bytes > c->src->bytes_in_buffer)
        source_fill(c);
    c->src->next_input_byte += bytes;
    c->src->bytes_in_buffer -= (size_t)bytes;
}

static void on_progress(j_common_ptr c)
{
    decoder *d = (decoder *)c->client_data;

    if (d->jpeg.input_scan_number > SCANS_MAX) {
        d->scans = true;
        ERREXIT(c, JERR_INPUT_EOF);
    }
}

/* One row of inverted CMYK to RGB, as PIL's Convert.c rounds it. */
static void cmyk_to_rgb(const unsigned char *in, unsigned char *out, size_t width)
{
    for (size_t x = 0; x < width; x++, in += 4, out += 3) {
        int black = in[3]; /* 255 - K, the file holding 255 - K */

        for (int i = 0; i < 3; i++) {
            int t = (255 - in[i]) * black + 128;
            int v = black - (((t >> 8) + t) >> 8);

            out[i] = (unsigned char)(v < 0 ? 0 : v);
        }
    }
}

/* Everything that may jump. */
static trm_status decode(decoder *d, const unsigned char *data, size_t bytes)
{
    struct jpeg_decompress_struct *j = &d->jpeg;
    int channels;

    if (setjmp(d->back) != 0) {
        if (d->no_memory)
            return trm_fail(TRM_ERR_NO_MEMORY, "'%s': %s", d->name, d->text);
        if (d->cut_short)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': the JPEG file is cut short (%zu bytes)",
                            d->name, bytes);
        if (d->scans)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': over %d scans in one JPEG file", d->name,
                            SCANS_MAX);
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': %s", d->name, d->text);
    }
    jpeg_create_decompress(j);
    j->client_data = d;
    d->source.next_input_byte = data;
    d->source.bytes_in_buffer = bytes;
    d->source.init_source = source_init;
    d->source.fill_input_buffer = source_fill;
    d->source.skip_input_data = source_skip;
    d->source.resync_to_restart = jpeg_resync_to_restart;
    d->source.term_source = source_init;
    j->src = &d->source;
    d->progress.progress_monitor = on_progress;
    j->progress = &d->progress;
    (void)jpeg_read_header(j, TRUE);
    if (j->num_components != 1 && j->num_components != 3 && j->num_components != 4)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': a JPEG of %d components; 1 (grey), 3 (colour) and 4 (CMYK) are "
                        "supported",
                        d->name, j->num_components);
    channels = j->num_components == 1 ? 1 : 3;
    j->out_color_space = j->num_components == 1   ? JCS_GRAYSCALE
                         : j->num_components == 3 ? JCS_RGB
                                                  : JCS_CMYK;
    TRM_CHECK(trmi_image_alloc(j->image_width, j->image_height, channels, d->name, &d->image));
    if (j->num_components == 4) {
        d->row = (unsigned char *)trm_malloc(j->image_width, 4);
        if (d->row == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "'%s': one row", d->name);
    }
    (void)jpeg_start_decompress(j);
    while (j->output_scanline < j->output_height) {
        unsigned char *line = d->image.pixels + (size_t)j->output_scanline *
                                                    (size_t)d->image.width * (size_t)channels;
        JSAMPROW row = d->row != NULL ? d->row : line;

        (void)jpeg_read_scanlines(j, &row, 1);
        if (d->row != NULL)
            cmyk_to_rgb(d->row, line, (size_t)d->image.width);
    }
    return TRM_OK; /* not jpeg_finish_decompress: what follows the last row is not wanted */
}

trm_status trmi_image_decode_jpeg(const unsigned char *data, size_t bytes, const char *name,
                                  trm_image *image_out)
{
    decoder *d = (decoder *)trm_calloc(1, sizeof(*d));
    trm_status st;

    if (d == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': decoder", name);
    d->name = name;
    d->jpeg.err = jpeg_std_error(&d->errors);
    d->jpeg.client_data = d; /* errors may come before jpeg_create has set it */
    d->errors.error_exit = on_error;
    d->errors.emit_message = on_message;
    st = decode(d, data, bytes);
    jpeg_destroy_decompress(&d->jpeg);
    trm_free(d->row);
    if (st == TRM_OK)
        *image_out = d->image;
    else
        trm_image_fini(&d->image);
    trm_free(d);
    return st;
}
