/* RoiAlign: each region is cut into bins, each bin sampled bilinearly at a grid of points, and the
 * samples averaged or their largest taken. x: [n, c, h, w]; rois: [r, 4] as x1, y1, x2, y2; batch
 * index of each: [r]; out: [r, c, out_h, out_w]. */
#include "kernels/cpu/data.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define GRID_MAX 65536 /* samples a side of a bin: more is a broken region, not a picture */

struct roi_align {
    trm_kernel base;
    trmi_where where;
    trmi_float_io io;
    trm_dtype index_dtype;
    size_t images, channels, regions, out_h, out_w;
    int64_t height, width, ratio;
    float scale;
    bool half_pixel, average;
    size_t float_bytes; /* of the workspace: conversions; region batches lie behind */
};

typedef struct region {
    float y, x, bin_h, bin_w;
    int64_t grid_h, grid_w;
} region;

struct roi_job {
    const struct roi_align *a;
    const float *x, *rois;
    float *y;
    const int64_t *batch;
};

static region region_of(const struct roi_align *a, const float *roi)
{
    float offset = a->half_pixel ? 0.5f : 0.0f;
    float x0 = roi[0] * a->scale - offset, y0 = roi[1] * a->scale - offset;
    float w = roi[2] * a->scale - offset - x0, h = roi[3] * a->scale - offset - y0;
    region r = {.y = y0, .x = x0};

    if (!a->half_pixel) { /* the older rule: at least one pixel */
        w = w > 1 ? w : 1;
        h = h > 1 ? h : 1;
    }
    r.bin_h = h / (float)a->out_h;
    r.bin_w = w / (float)a->out_w;
    r.grid_h = a->ratio > 0 ? a->ratio : (int64_t)ceilf(r.bin_h);
    r.grid_w = a->ratio > 0 ? a->ratio : (int64_t)ceilf(r.bin_w);
    return r;
}

/* One axis of a bilinear sample: false outside the picture. */
static bool axis_sample(float at, int64_t n, int64_t *low, int64_t *high, float *fraction)
{
    if (!(at >= -1.0f && at <= (float)n))
        return false;
    at = at > 0 ? at : 0;
    *low = (int64_t)at;
    if (*low >= n - 1) {
        *low = *high = n - 1;
        *fraction = 0;
    } else {
        *high = *low + 1;
        *fraction = at - (float)*low;
    }
    return true;
}

static float bin_value(const struct roi_align *a, const region *r, const float *x, size_t ph,
                       size_t pw)
{
    float sum = 0, best = 0;
    bool first = true;
    int64_t count = r->grid_h > 0 && r->grid_w > 0 ? r->grid_h * r->grid_w : 1;

    for (int64_t iy = 0; iy < r->grid_h; iy++) {
        float yy = r->y + (float)ph * r->bin_h + ((float)iy + 0.5f) * r->bin_h / (float)r->grid_h;
        int64_t y0 = 0, y1 = 0;
        float fy = 0;
        bool y_in = axis_sample(yy, a->height, &y0, &y1, &fy);

        for (int64_t ix = 0; ix < r->grid_w; ix++) {
            float xx =
                r->x + (float)pw * r->bin_w + ((float)ix + 0.5f) * r->bin_w / (float)r->grid_w;
            int64_t x0 = 0, x1 = 0;
            float fx = 0, v[4] = {0, 0, 0, 0};

            if (axis_sample(xx, a->width, &x0, &x1, &fx) && y_in) {
                v[0] = (1 - fy) * (1 - fx) * x[y0 * a->width + x0];
                v[1] = (1 - fy) * fx * x[y0 * a->width + x1];
                v[2] = fy * (1 - fx) * x[y1 * a->width + x0];
                v[3] = fy * fx * x[y1 * a->width + x1];
            }
            sum += v[0] + v[1] + v[2] + v[3];
            /* "max" is of the weighted corners, as ONNX defines it */
            for (int i = 0; i < 4; i++) {
                best = first || v[i] > best ? v[i] : best;
                first = false;
            }
        }
    }
    return a->average ? sum / (float)count : best;
}

static void roi_planes(void *ctx, size_t begin, size_t end)
{
    const struct roi_job *job = (const struct roi_job *)ctx;
    const struct roi_align *a = job->a;
    size_t plane = (size_t)(a->height * a->width);

    for (size_t i = begin; i < end; i++) {
        size_t n = i / a->channels, c = i % a->channels;
        region r = region_of(a, job->rois + n * 4);
        const float *x = job->x + ((size_t)job->batch[n] * a->channels + c) * plane;
        float *y = job->y + i * a->out_h * a->out_w;

        for (size_t ph = 0; ph < a->out_h; ph++)
            for (size_t pw = 0; pw < a->out_w; pw++)
                y[ph * a->out_w + pw] = bin_value(a, &r, x, ph, pw);
    }
}

static trm_status roi_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    struct roi_align *a = (struct roi_align *)k;
    int64_t *batch = (int64_t *)(void *)((unsigned char *)workspace + a->float_bytes);
    const float *in32[TRMI_FLOAT_INPUTS];
    struct roi_job job = {.a = a, .batch = batch};

    (void)s;
    for (size_t i = 0; i < a->regions; i++) {
        int64_t b = trmi_index_at(in[2], a->index_dtype, i);

        if (b < 0 || b >= (int64_t)a->images)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "RoiAlign '%s': batch index %" PRId64 " (element %zu) is out of range, "
                            "want 0 to %" PRId64,
                            a->where.name, b, i, (int64_t)a->images - 1);
        batch[i] = b;
    }
    job.y = trmi_float_begin(&a->io, in, out[0], workspace, in32);
    job.x = in32[0];
    job.rois = in32[1];
    for (size_t i = 0; i < a->regions; i++) {
        const float *roi = job.rois + i * 4;

        for (int j = 0; j < 4; j++)
            if (!isfinite(roi[j]) || fabsf(roi[j] * a->scale) > (float)GRID_MAX)
                return trm_fail(TRM_ERR_INVALID_ARG,
                                "RoiAlign '%s': region %zu has coordinate %g, want a picture's",
                                a->where.name, i, (double)roi[j]);
    }
    if (a->height > 0 && a->width > 0)
        trm_team_for(a->regions * a->channels, 1 + 2048 / (a->out_h * a->out_w + 1), roi_planes,
                     &job);
    trmi_float_end(&a->io, job.y, out[0]);
    return TRM_OK;
}

static const trm_kernel_ops roi_ops = {
    .name = "roi align", .run = roi_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_roi_align(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *r = &desc->inputs[1], *y = &desc->outputs[0];
    const char *mode = trm_attr_string(desc->attrs, "mode", "avg");
    const char *coords =
        trm_attr_string(desc->attrs, "coordinate_transformation_mode", "half_pixel");
    int64_t ratio = trm_attr_int(desc->attrs, "sampling_ratio", 0);
    trmi_float_io io;
    size_t float_bytes;
    struct roi_align *a;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_index_dtype(desc, 2));
    TRM_CHECK(trmi_float_io_init(&io, desc, 2, &float_bytes));
    if (x->rank != 4 || r->rank != 2 || r->dims[1] != 4 || desc->inputs[2].rank != 1 ||
        desc->inputs[2].dims[0] != r->dims[0] || y->rank != 4 || y->dims[0] != r->dims[0] ||
        y->dims[1] != x->dims[1] || (trm_tensor_numel(y) > 0 && trm_tensor_numel(x) == 0))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "RoiAlign '%s': want x [n, c, h, w], rois [r, 4], batch indices [r]",
                        desc->name);
    if ((strcmp(mode, "avg") != 0 && strcmp(mode, "max") != 0) || ratio < 0 || ratio > GRID_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "RoiAlign '%s': mode '%s', sampling_ratio %" PRId64,
                        desc->name, mode, ratio);
    if (strcmp(coords, "half_pixel") != 0 && strcmp(coords, "output_half_pixel") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "RoiAlign '%s': coordinate_transformation_mode '%s', want half_pixel or "
                        "output_half_pixel",
                        desc->name, coords);
    TRM_CHECK(trmi_kernel_new(sizeof(*a), &roi_ops, &a));
    trmi_where_set(&a->where, desc);
    a->io = io;
    a->float_bytes = float_bytes;
    a->index_dtype = desc->inputs[2].dtype;
    a->images = (size_t)x->dims[0];
    a->channels = (size_t)x->dims[1];
    a->regions = (size_t)r->dims[0];
    a->out_h = (size_t)y->dims[2];
    a->out_w = (size_t)y->dims[3];
    a->height = x->dims[2];
    a->width = x->dims[3];
    a->ratio = ratio;
    a->scale = trm_attr_float(desc->attrs, "spatial_scale", 1);
    a->half_pixel = coords[0] == 'h';
    a->average = mode[0] == 'a';
    a->base.workspace_bytes = float_bytes + a->regions * sizeof(int64_t);
    *kernel_out = &a->base;
    return TRM_OK;
}
