/* GridSample (two or three spatial dims) and AffineGrid. A grid point becomes, once for all
 * channels, a list of offsets and weights: one, two or four taps a dim, their products over the
 * dims. Coordinates in the grid are x, y(, z), in [-1, 1]; dims are (z,) y, x. */
#include "kernels/cpu/data.h"

#include <math.h>
#include <string.h>

#define SPATIAL_MAX 3
#define TAPS_MAX 64 /* 4^3 */

typedef enum sample_mode { SAMPLE_LINEAR, SAMPLE_NEAREST, SAMPLE_CUBIC } sample_mode;
typedef enum padding_mode { PADDING_ZEROS, PADDING_BORDER, PADDING_REFLECTION } padding_mode;

struct grid_sample {
    trm_kernel base;
    trmi_float_io io;
    sample_mode mode;
    padding_mode padding;
    bool align_corners;
    int spatial;
    int64_t dims[SPATIAL_MAX];
    size_t images, channels, in_plane, points;
};

struct grid_job {
    const struct grid_sample *g;
    const float *x, *grid;
    float *y;
};

static float reflect(float x, float low, float high)
{
    float range = high - low, distance, rest;
    bool even;

    if (x >= low && x <= high)
        return x;
    if (range <= 0)
        return low;
    distance = x < low ? low - x : x - high;
    even = fmodf(floorf(distance / range), 2) == 0;
    rest = distance - floorf(distance / range) * range;
    return (x < low) == even ? low + rest : high - rest;
}

/* Index of a tap inside the dim; -1: a zero. */
static int64_t tap_index(const struct grid_sample *g, int64_t i, int64_t n)
{
    float low = g->align_corners ? 0.0f : -0.5f;
    int64_t r;

    if (i >= 0 && i < n)
        return i;
    if (g->padding == PADDING_ZEROS)
        return -1;
    if (g->padding == PADDING_BORDER)
        return i < 0 ? 0 : n - 1;
    r = (int64_t)reflect((float)i, low, (float)(n - 1) - low);
    return r < 0 ? 0 : r >= n ? n - 1 : r;
}

static void cubic_weights(float t, float *w)
{
    const float a = -0.75f;

    w[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a;
    w[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    w[2] = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1;
    w[3] = ((a * (2 - t) - 5 * a) * (2 - t) + 8 * a) * (2 - t) - 4 * a;
}

/* Taps of one dim for normalised coordinate `c`; returns how many. */
static int dim_taps(const struct grid_sample *g, float c, int64_t n, int64_t *index, float *w)
{
    float low = g->align_corners ? 0.0f : -0.5f, high = (float)(n - 1) - low, floor_x;
    float x = g->align_corners ? (c + 1) / 2 * (float)(n - 1) : ((c + 1) * (float)n - 1) / 2;
    int taps = g->mode == SAMPLE_CUBIC ? 4 : g->mode == SAMPLE_LINEAR ? 2 : 1;
    int64_t first;

    if (!(x > -1e9f && x < 1e9f)) /* NaN and infinities: far outside */
        x = x > 0 ? 1e9f : -1e9f;
    if (g->mode == SAMPLE_NEAREST)
        x = nearbyintf(x);
    if (x < low || x > high) {
        if (g->padding == PADDING_BORDER)
            x = x < 0 ? 0 : (float)(n - 1);
        else if (g->padding == PADDING_REFLECTION)
            x = reflect(x, low, high);
    }
    floor_x = floorf(x);
    first = (int64_t)floor_x - (taps == 4 ? 1 : 0);
    w[0] = 1;
    if (taps == 2) {
        w[0] = 1 - (x - floor_x);
        w[1] = x - floor_x;
    } else if (taps == 4) {
        cubic_weights(x - floor_x, w);
    }
    for (int i = 0; i < taps; i++)
        index[i] = tap_index(g, first + i, n);
    return taps;
}

static void sample_points(void *ctx, size_t begin, size_t end)
{
    const struct grid_job *job = (const struct grid_job *)ctx;
    const struct grid_sample *g = job->g;

    for (size_t p = begin; p < end; p++) {
        size_t image = p / g->points, point = p % g->points;
        const float *at = job->grid + p * (size_t)g->spatial;
        const float *x = job->x + image * g->channels * g->in_plane;
        float *y = job->y + image * g->channels * g->points + point;
        int64_t offset[TAPS_MAX] = {0};
        float weight[TAPS_MAX] = {1};
        int count = 1;

        for (int d = 0; d < g->spatial; d++) { /* dim d takes the grid's coordinate from the end */
            int64_t index[4], next_offset[TAPS_MAX];
            float w[4], next_weight[TAPS_MAX];
            int taps = dim_taps(g, at[g->spatial - 1 - d], g->dims[d], index, w), n = 0;

            for (int i = 0; i < count; i++) {
                for (int t = 0; t < taps; t++) {
                    if (index[t] < 0)
                        continue;
                    next_offset[n] = offset[i] * g->dims[d] + index[t];
                    next_weight[n++] = weight[i] * w[t];
                }
            }
            count = n;
            memcpy(offset, next_offset, (size_t)n * sizeof(*offset));
            memcpy(weight, next_weight, (size_t)n * sizeof(*weight));
        }
        for (size_t c = 0; c < g->channels; c++, x += g->in_plane, y += g->points) {
            float sum = 0;

            for (int i = 0; i < count; i++)
                sum += x[offset[i]] * weight[i];
            *y = sum;
        }
    }
}

static trm_status grid_sample_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                  void *const *out, void *workspace)
{
    struct grid_sample *g = (struct grid_sample *)k;
    const float *in32[TRMI_FLOAT_INPUTS];
    struct grid_job job = {.g = g};

    (void)s;
    job.y = trmi_float_begin(&g->io, in, out[0], workspace, in32);
    job.x = in32[0];
    job.grid = in32[1];
    trm_team_for(g->images * g->points, 4096 / (g->channels + 8) + 1, sample_points, &job);
    trmi_float_end(&g->io, job.y, out[0]);
    return TRM_OK;
}

static const trm_kernel_ops grid_sample_ops = {
    .name = "grid sample", .run = grid_sample_run, .destroy = trmi_kernel_free};

static int name_index(const char *name, const char *const *names)
{
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

trm_status trmi_cpu_grid_sample(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    static const char *const modes[] = {"linear", "nearest", "cubic", "bilinear",
                                        "",       "bicubic", NULL};
    static const char *const paddings[] = {"zeros", "border", "reflection", NULL};
    const trm_tensor *x = &desc->inputs[0], *grid = &desc->inputs[1];
    int mode = name_index(trm_attr_string(desc->attrs, "mode", "linear"), modes);
    int padding = name_index(trm_attr_string(desc->attrs, "padding_mode", "zeros"), paddings);
    int spatial = x->rank - 2;
    int64_t want[TRM_RANK_MAX];
    trmi_float_io io;
    size_t bytes;
    struct grid_sample *g;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_float_io_init(&io, desc, 2, &bytes));
    if (mode < 0 || padding < 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "GridSample '%s': mode '%s', padding_mode '%s'",
                        desc->name, trm_attr_string(desc->attrs, "mode", "linear"),
                        trm_attr_string(desc->attrs, "padding_mode", "zeros"));
    if (spatial < 1 || spatial > SPATIAL_MAX || grid->rank != x->rank ||
        grid->dims[0] != x->dims[0] || grid->dims[spatial + 1] != spatial)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "GridSample '%s': want x [n, c, spatial...] with 1 to 3 spatial dims and a "
                        "grid [n, spatial..., dims]",
                        desc->name);
    want[0] = x->dims[0];
    want[1] = x->dims[1];
    for (int i = 0; i < spatial; i++) {
        want[2 + i] = grid->dims[1 + i];
        if (x->dims[2 + i] == 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "GridSample '%s': input dim %d is 0", desc->name,
                            2 + i);
    }
    TRM_CHECK(trmi_data_expect(desc, 0, x->rank, want));
    TRM_CHECK(trmi_kernel_new(sizeof(*g), &grid_sample_ops, &g));
    g->io = io;
    g->mode = (sample_mode)(mode % 3);
    g->padding = (padding_mode)padding;
    g->align_corners = trm_attr_int(desc->attrs, "align_corners", 0) != 0;
    g->spatial = spatial;
    memcpy(g->dims, x->dims + 2, (size_t)spatial * sizeof(int64_t));
    g->images = (size_t)x->dims[0];
    g->channels = (size_t)x->dims[1];
    g->in_plane = trm_tensor_count(x, 2, x->rank);
    g->points = trm_tensor_count(grid, 1, grid->rank - 1);
    g->base.workspace_bytes = bytes;
    *kernel_out = &g->base;
    return TRM_OK;
}

/* ---- AffineGrid: out[n, point] = theta[n] * (x, y(, z), 1) ---- */
struct affine_grid {
    trm_kernel base;
    trmi_float_io io;
    bool align_corners;
    int spatial;
    size_t images, points;
    int64_t dims[SPATIAL_MAX];
};

static double base_coordinate(const struct affine_grid *a, int64_t i, int64_t n)
{
    if (a->align_corners)
        return n > 1 ? -1 + 2 * (double)i / (double)(n - 1) : 0;
    return -1 + (2 * (double)i + 1) / (double)n;
}

static trm_status affine_grid_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                  void *const *out, void *workspace)
{
    struct affine_grid *a = (struct affine_grid *)k;
    const float *in32[TRMI_FLOAT_INPUTS];
    float *y = trmi_float_begin(&a->io, in, out[0], workspace, in32), *first = y;
    size_t d = (size_t)a->spatial;

    (void)s;
    for (size_t n = 0; n < a->images; n++) {
        const float *theta = in32[0] + n * d * (d + 1);

        for (size_t p = 0; p < a->points; p++) {
            double base[SPATIAL_MAX + 1];
            size_t rest = p;

            for (size_t i = 0; i < d; i++) { /* x first: the last dim */
                size_t dim = (size_t)a->dims[d - 1 - i];

                base[i] = base_coordinate(a, (int64_t)(rest % dim), (int64_t)dim);
                rest /= dim;
            }
            base[d] = 1;
            for (size_t r = 0; r < d; r++) {
                double sum = 0;

                for (size_t c = 0; c <= d; c++)
                    sum += (double)theta[r * (d + 1) + c] * base[c];
                *y++ = (float)sum;
            }
        }
    }
    trmi_float_end(&a->io, first, out[0]);
    return TRM_OK;
}

static const trm_kernel_ops affine_grid_ops = {
    .name = "affine grid", .run = affine_grid_run, .destroy = trmi_kernel_free};

trm_status trmi_cpu_affine_grid(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *theta = &desc->inputs[0];
    int64_t shape[5], want[5];
    trmi_float_io io;
    size_t bytes;
    struct affine_grid *a;
    int count, spatial;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_float_io_init(&io, desc, 1, &bytes));
    TRM_CHECK(trmi_data_ints(desc, 1, shape, 5, &count));
    spatial = count - 2;
    if (spatial < 2 || theta->rank != 3 || theta->dims[0] != shape[0] ||
        theta->dims[1] != spatial || theta->dims[2] != spatial + 1)
        return trm_fail(
            TRM_ERR_INVALID_ARG,
            "AffineGrid '%s': want theta [n, d, d + 1] and a size of d + 2 numbers, d 2 "
            "or 3",
            desc->name);
    want[0] = shape[0];
    for (int i = 0; i < spatial; i++)
        want[1 + i] = shape[2 + i];
    want[spatial + 1] = spatial;
    TRM_CHECK(trmi_data_expect(desc, 0, spatial + 2, want));
    TRM_CHECK(trmi_kernel_new(sizeof(*a), &affine_grid_ops, &a));
    a->io = io;
    a->align_corners = trm_attr_int(desc->attrs, "align_corners", 0) != 0;
    a->spatial = spatial;
    a->images = (size_t)shape[0];
    a->points = trm_tensor_count(&desc->outputs[0], 1, spatial + 1);
    memcpy(a->dims, shape + 2, (size_t)spatial * sizeof(int64_t));
    a->base.workspace_bytes = bytes;
    *kernel_out = &a->base;
    return TRM_OK;
}
