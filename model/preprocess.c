/* From an image to a model's input: colour, resize, centre crop, scale and normalise, as
 * torchvision's transforms do on PIL images. */
#include "model/image_impl.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void trm_preprocess_defaults(trm_preprocess *p)
{
    memset(p, 0, sizeof(*p));
    p->interpolation = TRM_INTERPOLATION_BILINEAR;
    p->antialias = true;
    p->color = TRM_COLOR_RGB;
    p->scale = 1.0f / 255.0f;
    p->dtype = TRM_DTYPE_F32;
}

/* torchvision: the shorter side becomes resize_height, the longer int(size * long / short). */
static void resized(const trm_preprocess *p, int width, int height, int64_t *width_out,
                    int64_t *height_out)
{
    int64_t size = p->resize_height;

    *width_out = width;
    *height_out = height;
    if (size == 0)
        return;
    if (p->resize_width != 0) {
        *width_out = p->resize_width;
        *height_out = size;
    } else if (width <= height) {
        *width_out = size;
        *height_out = (int64_t)((double)(size * height) / width);
    } else {
        *height_out = size;
        *width_out = (int64_t)((double)(size * width) / height);
    }
}

void trm_preprocess_shape(const trm_preprocess *p, int width, int height, int64_t dims_out[3])
{
    int64_t w, h, channels = p->color == TRM_COLOR_GREY ? 1 : 3;

    resized(p, width, height, &w, &h);
    if (p->crop_height > 0) {
        h = p->crop_height;
        w = p->crop_width > 0 ? p->crop_width : p->crop_height;
    }
    dims_out[0] = p->channels_last ? h : channels;
    dims_out[1] = p->channels_last ? w : h;
    dims_out[2] = p->channels_last ? channels : w;
}

/* Where the output's first row or column lies in the resized image; negative: padding before it. */
static int64_t crop_offset(int64_t image, int64_t crop)
{
    if (crop > image)
        return -((crop - image) / 2);
    return (int64_t)nearbyint((double)(image - crop) / 2.0); /* Python's round: half to even */
}

static trm_status to_grey(const trm_image *in, trm_image *out)
{
    size_t n = (size_t)in->width * (size_t)in->height;
    const unsigned char *p = in->pixels;

    TRM_CHECK(trmi_image_alloc((size_t)in->width, (size_t)in->height, 1, "grey", out));
    for (size_t i = 0; i < n; i++, p += 3)
        out->pixels[i] = trmi_grey(p[0], p[1], p[2]);
    return TRM_OK;
}

/* The output value of each of the 256 sample values. Scaling is division where torchvision
 * divides. */
void trm_preprocess_table(const trm_preprocess *p, int channel, float table[256])
{
    bool by_255 = p->scale == 1.0f / 255.0f;
    int m = p->mean_count == 1 ? 0 : channel;

    for (int i = 0; i < 256; i++) {
        float v = by_255 ? (float)i / 255.0f : (float)i * p->scale;

        table[i] = p->mean_count > 0 ? (v - p->mean[m]) / p->std[m] : v;
    }
}

typedef struct plane { /* one output channel: where its samples come from and go to */
    const unsigned char *in;
    size_t in_step, in_row;
    size_t out_at, out_step, out_row;
    int64_t top, left; /* of the output in the image */
} plane;

static void plane_run(const plane *l, const trm_image *image, int64_t height, int64_t width,
                      const float *table, void *out)
{
    float *f = (float *)out + l->out_at;
    unsigned char *u = (unsigned char *)out + l->out_at;

    for (int64_t y = 0; y < height; y++) {
        int64_t in_y = l->top + y;
        bool inside = in_y >= 0 && in_y < image->height;
        const unsigned char *line = l->in + (inside ? (size_t)in_y * l->in_row : 0);
        size_t at = (size_t)y * l->out_row;

        for (int64_t x = 0; x < width; x++, at += l->out_step) {
            int64_t in_x = l->left + x;
            unsigned char v =
                inside && in_x >= 0 && in_x < image->width ? line[(size_t)in_x * l->in_step] : 0;

            if (table != NULL)
                f[at] = table[v];
            else
                u[at] = v;
        }
    }
}

static trm_status check(const trm_preprocess *p, const trm_image *image, const int64_t dims[3])
{
    int channels = p->color == TRM_COLOR_GREY ? 1 : 3;

    if (image->channels != 1 && image->channels != 3)
        return trm_fail(TRM_ERR_INVALID_ARG, "an image of %d channels; 1 or 3 are wanted",
                        image->channels);
    if (p->mean_count != 0 && p->mean_count != 1 && p->mean_count != channels)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "preprocess has %d means for %d channels; 1 or %d are wanted",
                        p->mean_count, channels, channels);
    if (p->dtype != TRM_DTYPE_F32 && p->dtype != TRM_DTYPE_U8)
        return trm_fail(TRM_ERR_UNSUPPORTED, "preprocess to %s; f32 and u8 are supported",
                        trm_dtype_name(p->dtype));
    for (int i = 0; i < 3; i++)
        if (dims[i] < 1 || dims[i] > TRMI_IMAGE_SIDE_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "preprocess of an image of %d x %d would give %" PRId64 " x %" PRId64
                            " x %" PRId64 "; sides are 1 to %d",
                            image->width, image->height, dims[0], dims[1], dims[2],
                            TRMI_IMAGE_SIDE_MAX);
    return TRM_OK;
}

trm_status trm_preprocess_run(const trm_preprocess *p, const trm_image *image, void *out)
{
    trm_image grey = {0, 0, 0, NULL}, sized = {0, 0, 0, NULL};
    const trm_image *from = image;
    int channels = p->color == TRM_COLOR_GREY ? 1 : 3;
    int64_t dims[3], width, height, out_width, out_height;
    float table[256];
    trm_status st;

    resized(p, image->width, image->height, &width, &height);
    trm_preprocess_shape(p, image->width, image->height, dims);
    TRM_CHECK(check(p, image, dims));
    if (width < 1 || height < 1 || width > TRMI_IMAGE_SIDE_MAX || height > TRMI_IMAGE_SIDE_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "resize of an image of %d x %d to %" PRId64 " x %" PRId64
                        "; sides are 1 to %d",
                        image->width, image->height, width, height, TRMI_IMAGE_SIDE_MAX);
    out_height = dims[p->channels_last ? 0 : 1];
    out_width = dims[p->channels_last ? 1 : 2];
    if (channels == 1 && image->channels == 3) {
        TRM_TRY(st, to_grey(image, &grey), done);
        from = &grey;
    }
    if (width != from->width || height != from->height) {
        TRM_TRY(
            st,
            trmi_resample(from, (int)width, (int)height, p->interpolation, p->antialias, &sized),
            done);
        from = &sized;
    }
    for (int c = 0; c < channels; c++) {
        int source = p->color == TRM_COLOR_BGR ? 2 - c : c;
        plane l;

        l.in = from->pixels + (from->channels == 1 ? 0 : source);
        l.in_step = (size_t)from->channels;
        l.in_row = (size_t)from->width * (size_t)from->channels;
        l.out_at = p->channels_last ? (size_t)c : (size_t)c * (size_t)(out_height * out_width);
        l.out_step = p->channels_last ? (size_t)channels : 1;
        l.out_row = (size_t)out_width * l.out_step;
        l.top = crop_offset(from->height, out_height);
        l.left = crop_offset(from->width, out_width);
        if (p->dtype == TRM_DTYPE_F32)
            trm_preprocess_table(p, c, table);
        plane_run(&l, from, out_height, out_width, p->dtype == TRM_DTYPE_F32 ? table : NULL, out);
    }
    st = TRM_OK;
done:
    trm_image_fini(&grey);
    trm_image_fini(&sized);
    return st;
}
