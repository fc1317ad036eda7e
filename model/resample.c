/* Resizing 8-bit images, sample for sample as the libraries that models were trained with.
 *
 * With antialias: Pillow's algorithm. For each output position a window of input samples, as wide
 * as the filter scaled by the reduction, with weights in fixed point (22 bits); first along rows,
 * then along columns, each pass rounding to 8 bits. Exact integer arithmetic: any order of the sums
 * gives the same result.
 * Without: what torch.nn.functional.interpolate(align_corners=False) does to the samples as floats,
 * rounded to nearest even.
 * Nearest: Pillow's, the sample under the centre, positions by repeated addition in double. */
#include "model/image_impl.h"

#include <math.h>
#include <string.h>

#define PRECISION_BITS 22 /* 32 less 8 of the sample, less 2 for overshoot of the sum */

typedef struct window {
    int first, count;
} window;

/* One axis: a window for each output position and its weights, `taps` apart. */
typedef struct axis {
    window *windows;
    int32_t *weights;
    int taps;
} axis;

static double filter_bilinear(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double filter_bicubic(double x) /* Keys, a = -0.5 */
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static void axis_fini(axis *a)
{
    trm_free(a->windows);
    trm_free(a->weights);
    memset(a, 0, sizeof(*a));
}

static trm_status axis_init(axis *a, int in, int out, trm_interpolation interpolation)
{
    double (*filter)(double) =
        interpolation == TRM_INTERPOLATION_BICUBIC ? filter_bicubic : filter_bilinear;
    double scale = (double)in / out;
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = (interpolation == TRM_INTERPOLATION_BICUBIC ? 2.0 : 1.0) * filter_scale;
    double inverse = 1.0 / filter_scale;
    double *w;

    a->taps = (int)ceil(support) * 2 + 1;
    a->windows = (window *)trm_malloc((size_t)out, sizeof(window));
    a->weights = (int32_t *)trm_calloc((size_t)out * (size_t)a->taps, sizeof(int32_t));
    w = (double *)trm_malloc((size_t)a->taps, sizeof(double));
    if (a->windows == NULL || a->weights == NULL || w == NULL) {
        trm_free(w);
        axis_fini(a);
        return trm_fail(TRM_ERR_NO_MEMORY, "resize of %d to %d", in, out);
    }
    for (int i = 0; i < out; i++) {
        double center = (i + 0.5) * scale, sum = 0.0;
        int first = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        int32_t *k = a->weights + (size_t)i * (size_t)a->taps;
        int count;

        first = first < 0 ? 0 : first;
        end = end > in ? in : end;
        count = end - first;
        for (int t = 0; t < count; t++) {
            w[t] = filter((t + first - center + 0.5) * inverse);
            sum += w[t];
        }
        for (int t = 0; t < count; t++) {
            double v = (sum != 0.0 ? w[t] / sum : w[t]) * (1 << PRECISION_BITS);

            k[t] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        }
        a->windows[i].first = first;
        a->windows[i].count = count;
    }
    trm_free(w);
    return TRM_OK;
}

static inline unsigned char clip8(int32_t sum)
{
    int32_t v = sum >> PRECISION_BITS;

    return (unsigned char)(v < 0 ? 0 : v > 255 ? 255 : v);
}

#define HALF (1 << (PRECISION_BITS - 1))

static void pass_rows(const axis *a, const trm_image *in, trm_image *out)
{
    size_t channels = (size_t)in->channels;

    for (int y = 0; y < in->height; y++) {
        const unsigned char *line = in->pixels + (size_t)y * (size_t)in->width * channels;
        unsigned char *o = out->pixels + (size_t)y * (size_t)out->width * channels;

        for (int x = 0; x < out->width; x++) {
            const window w = a->windows[x];
            const int32_t *k = a->weights + (size_t)x * (size_t)a->taps;
            const unsigned char *p = line + (size_t)w.first * channels;

            if (channels == 3) {
                int32_t r = HALF, g = HALF, b = HALF;

                for (int t = 0; t < w.count; t++, p += 3) {
                    r += p[0] * k[t];
                    g += p[1] * k[t];
                    b += p[2] * k[t];
                }
                *o++ = clip8(r);
                *o++ = clip8(g);
                *o++ = clip8(b);
            } else {
                int32_t s = HALF;

                for (int t = 0; t < w.count; t++)
                    s += p[t] * k[t];
                *o++ = clip8(s);
            }
        }
    }
}

static void add_row(int32_t *restrict sums, const unsigned char *restrict row, int32_t k, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sums[i] += row[i] * k;
}

static void store_row(const int32_t *restrict sums, unsigned char *restrict row, size_t n)
{
    for (size_t i = 0; i < n; i++)
        row[i] = clip8(sums[i]);
}

/* Columns are summed a piece of a row at a time, so that the sums stay in the nearest cache and the
 * loops have no stride. */
#define PIECE 512

static void pass_columns(const axis *a, const trm_image *in, trm_image *out)
{
    size_t row_bytes = (size_t)in->width * (size_t)in->channels;
    int32_t sums[PIECE];

    for (int y = 0; y < out->height; y++) {
        const window w = a->windows[y];
        const int32_t *k = a->weights + (size_t)y * (size_t)a->taps;

        for (size_t x = 0; x < row_bytes; x += PIECE) {
            size_t n = row_bytes - x < PIECE ? row_bytes - x : PIECE;
            const unsigned char *p = in->pixels + (size_t)w.first * row_bytes + x;

            for (size_t i = 0; i < n; i++)
                sums[i] = HALF;
            for (int t = 0; t < w.count; t++, p += row_bytes)
                add_row(sums, p, k[t], n);
            store_row(sums, out->pixels + (size_t)y * row_bytes + x, n);
        }
    }
}

static trm_status antialiased(const trm_image *in, trm_image *out, trm_interpolation interpolation)
{
    axis rows = {NULL, NULL, 0}, columns = {NULL, NULL, 0};
    trm_image middle = {0, 0, 0, NULL};
    const trm_image *from = in;
    trm_status st = TRM_OK;

    if (out->width != in->width) {
        trm_image *to = out->height == in->height ? out : &middle;

        TRM_TRY(st, axis_init(&rows, in->width, out->width, interpolation), done);
        if (to == &middle)
            TRM_TRY(st,
                    trmi_image_alloc((size_t)out->width, (size_t)in->height, in->channels, "resize",
                                     &middle),
                    done);
        pass_rows(&rows, in, to);
        from = to;
    }
    if (out->height != in->height) {
        TRM_TRY(st, axis_init(&columns, in->height, out->height, interpolation), done);
        pass_columns(&columns, from, out);
    } else if (from == in) {
        memcpy(out->pixels, in->pixels,
               (size_t)in->width * (size_t)in->height * (size_t)in->channels);
    }
done:
    axis_fini(&rows);
    axis_fini(&columns);
    trm_image_fini(&middle);
    return st;
}

static void nearest(const trm_image *in, trm_image *out)
{
    double step_x = (double)in->width / out->width, step_y = (double)in->height / out->height;
    double at_y = step_y * 0.5;
    size_t channels = (size_t)in->channels;
    unsigned char *o = out->pixels;

    for (int y = 0; y < out->height; y++, at_y += step_y) {
        int in_y = (int)at_y < in->height ? (int)at_y : in->height - 1;
        const unsigned char *line = in->pixels + (size_t)in_y * (size_t)in->width * channels;
        double at_x = step_x * 0.5;

        for (int x = 0; x < out->width; x++, at_x += step_x, o += channels) {
            int in_x = (int)at_x < in->width ? (int)at_x : in->width - 1;

            memcpy(o, line + (size_t)in_x * channels, channels);
        }
    }
}

/* Up to 4 samples and float weights under one output position. */
typedef struct point {
    int at[4];
    float weight[4];
} point;

static void point_make(point *p, int i, int in, float scale, bool cubic)
{
    const float a = -0.75f; /* torch's */
    float x = scale * ((float)i + 0.5f) - 0.5f, f;
    int first;

    if (!cubic && x < 0)
        x = 0;
    first = (int)floorf(x);
    f = x - (float)first;
    if (cubic) {
        float g = 1.0f - f;

        p->weight[0] = ((a * (f + 1) - 5 * a) * (f + 1) + 8 * a) * (f + 1) - 4 * a;
        p->weight[1] = ((a + 2) * f - (a + 3)) * f * f + 1;
        p->weight[2] = ((a + 2) * g - (a + 3)) * g * g + 1;
        p->weight[3] = ((a * (g + 1) - 5 * a) * (g + 1) + 8 * a) * (g + 1) - 4 * a;
        first--;
    } else {
        p->weight[0] = 1.0f - f;
        p->weight[1] = f;
    }
    for (int t = 0; t < 4; t++) {
        int at = first + t;

        p->at[t] = at < 0 ? 0 : at >= in ? in - 1 : at;
    }
}

static trm_status plain(const trm_image *in, trm_image *out, bool cubic)
{
    size_t channels = (size_t)in->channels;
    int taps = cubic ? 4 : 2;
    float scale_y = (float)in->height / (float)out->height;
    unsigned char *o = out->pixels;
    point *columns = (point *)trm_malloc((size_t)out->width, sizeof(point));

    if (columns == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "resize to a width of %d", out->width);
    for (int x = 0; x < out->width; x++)
        point_make(&columns[x], x, in->width, (float)in->width / (float)out->width, cubic);
    for (int y = 0; y < out->height; y++) {
        point row;

        point_make(&row, y, in->height, scale_y, cubic);
        for (int x = 0; x < out->width; x++)
            for (size_t c = 0; c < channels; c++) {
                float sum = 0;

                for (int v = 0; v < taps; v++) {
                    const unsigned char *line =
                        in->pixels + (size_t)row.at[v] * (size_t)in->width * channels + c;
                    float s = 0;

                    for (int h = 0; h < taps; h++)
                        s +=
                            columns[x].weight[h] * (float)line[(size_t)columns[x].at[h] * channels];
                    sum += row.weight[v] * s;
                }
                sum = sum < 0 ? 0 : sum > 255 ? 255 : sum;
                *o++ = (unsigned char)lrintf(sum);
            }
    }
    trm_free(columns);
    return TRM_OK;
}

trm_status trmi_resample(const trm_image *in, int width, int height,
                         trm_interpolation interpolation, bool antialias, trm_image *out)
{
    trm_status st = TRM_OK;

    TRM_CHECK(trmi_image_alloc((size_t)width, (size_t)height, in->channels, "resize", out));
    if (interpolation == TRM_INTERPOLATION_NEAREST)
        nearest(in, out);
    else if (antialias)
        st = antialiased(in, out, interpolation);
    else
        st = plain(in, out, interpolation == TRM_INTERPOLATION_BICUBIC);
    if (st != TRM_OK)
        trm_image_fini(out);
    return st;
}
