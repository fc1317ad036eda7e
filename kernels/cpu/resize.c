/* Resize: parameters and tables. Interpolation is separable: every mode is, for each resized axis,
 * a table of source indices and weights, so the modes differ only here. Any layout is kept as long
 * as batch and channels are not resized. */
#include "kernels/cpu/resize.h"

#include <math.h>
#include <string.h>

typedef struct axis_spec {
    bool resized;
    double scale;      /* output length / input length, as asked for */
    double start, end; /* region of interest, 0..1 */
} axis_spec;

typedef enum coordinates {
    COORD_HALF_PIXEL,
    COORD_HALF_PIXEL_SYMMETRIC,
    COORD_PYTORCH_HALF_PIXEL,
    COORD_ALIGN_CORNERS,
    COORD_ASYMMETRIC,
    COORD_TF_CROP_AND_RESIZE,
    COORD_TF_HALF_PIXEL_FOR_NN /* opset 11 only; later ones have no other name for it */
} coordinates;

typedef enum resize_mode { RESIZE_NEAREST, RESIZE_LINEAR, RESIZE_CUBIC } resize_mode;
typedef enum nearest_mode { ROUND_FLOOR, ROUND_CEIL, NEAREST_FLOOR, NEAREST_CEIL } nearest_mode;

typedef struct resize_spec {
    resize_mode mode;
    nearest_mode nearest;
    coordinates coords;
    bool antialias, exclude_outside;
    double cubic_a;
    axis_spec axis[TRM_RANK_MAX];
} resize_spec;

static const char *const mode_names[] = {"nearest", "linear", "cubic", NULL};
static const char *const nearest_names[] = {"round_prefer_floor", "round_prefer_ceil", "floor",
                                            "ceil", NULL};
static const char *const coord_names[] = {
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",   "align_corners",
    "asymmetric", "tf_crop_and_resize",   "tf_half_pixel_for_nn", NULL};

static trm_status choice(const trm_op_desc *desc, const char *attr, const char *otherwise,
                         const char *const *names, int *choice_out)
{
    const char *value = trm_attr_string(desc->attrs, attr, otherwise);

    for (int i = 0; names[i] != NULL; i++) {
        if (strcmp(names[i], value) == 0) {
            *choice_out = i;
            return TRM_OK;
        }
    }
    return trm_fail(TRM_ERR_UNSUPPORTED, "Resize '%s': %s '%s'", desc->name, attr, value);
}

static trm_status read_attrs(const trm_op_desc *desc, resize_spec *s)
{
    int mode = 0, nearest = 0, coords = 0;

    TRM_CHECK(choice(desc, "mode", "nearest", mode_names, &mode));
    TRM_CHECK(choice(desc, "nearest_mode", "round_prefer_floor", nearest_names, &nearest));
    TRM_CHECK(choice(desc, "coordinate_transformation_mode", "half_pixel", coord_names, &coords));
    s->mode = (resize_mode)mode;
    s->nearest = (nearest_mode)nearest;
    s->coords = (coordinates)coords;
    s->antialias = trm_attr_int(desc->attrs, "antialias", 0) != 0 && mode != RESIZE_NEAREST;
    s->exclude_outside = trm_attr_int(desc->attrs, "exclude_outside", 0) != 0;
    s->cubic_a = (double)trm_attr_float(desc->attrs, "cubic_coeff_a", -0.75f);
    return TRM_OK;
}

/* Number of elements of parameter input i that is given and known; 0 where it is absent or empty.
 */
static trm_status parameter(const trm_op_desc *desc, int input, size_t want, bool *given_out)
{
    size_t n;

    *given_out = false;
    if (!trmi_has_input(desc, input))
        return TRM_OK;
    TRM_CHECK(trm_tensor_elems(&desc->inputs[input], &n));
    if (n == 0)
        return TRM_OK;
    if (n != want || desc->inputs[input].data == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "Resize '%s': input %d has %zu elements, want %zu",
                        desc->name, input, n, want);
    *given_out = true;
    return TRM_OK;
}

static trm_status read_axes(const trm_op_desc *desc, resize_spec *s)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    size_t axis_count;
    const int64_t *axes = trm_attr_ints(desc->attrs, "axes", &axis_count);
    const char *policy = trm_attr_string(desc->attrs, "keep_aspect_ratio_policy", "stretch");
    bool has_roi, has_scales, has_sizes;
    double common = 0;

    if (axes == NULL)
        axis_count = (size_t)x->rank;
    TRM_CHECK(parameter(desc, 2, axis_count, &has_scales));
    TRM_CHECK(parameter(desc, 3, axis_count, &has_sizes));
    has_roi = false;
    if (s->coords == COORD_TF_CROP_AND_RESIZE)
        TRM_CHECK(parameter(desc, 1, 2 * axis_count, &has_roi));
    if (has_scales == has_sizes || axis_count > (size_t)x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Resize '%s': want either scales or sizes",
                        desc->name);
    for (int i = 0; i < x->rank; i++)
        s->axis[i] = (axis_spec){.resized = false, .scale = 1, .start = 0, .end = 1};
    for (size_t i = 0; i < axis_count; i++) {
        int axis = (int)i;
        axis_spec *a;

        if (axes != NULL)
            TRM_CHECK(trmi_data_axis(desc, axes[i], x->rank, &axis));
        a = &s->axis[axis];
        if (has_scales)
            a->scale = trm_tensor_get_f64(&desc->inputs[2], i);
        else if (x->dims[axis] > 0)
            a->scale = trm_tensor_get_f64(&desc->inputs[3], i) / (double)x->dims[axis];
        if (has_roi) {
            a->start = trm_tensor_get_f64(&desc->inputs[1], i);
            a->end = trm_tensor_get_f64(&desc->inputs[1], axis_count + i);
        }
        if (!(a->scale > 0) && y->dims[axis] > 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "Resize '%s': scale %g of axis %d", desc->name,
                            a->scale, axis);
        a->resized = true;
        if (i == 0 ||
            (policy[0] == 'n' && strcmp(policy, "not_larger") == 0 && a->scale < common) ||
            (strcmp(policy, "not_smaller") == 0 && a->scale > common))
            common = a->scale;
    }
    for (int i = 0; i < x->rank; i++) {
        axis_spec *a = &s->axis[i];

        if (has_sizes && a->resized && strcmp(policy, "stretch") != 0)
            a->scale = common;
        if (a->resized && x->dims[i] == y->dims[i] && fabs(a->scale - 1) < 1e-9 && a->start == 0 &&
            a->end == 1)
            a->resized = false;
        if (!a->resized && x->dims[i] != y->dims[i])
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "Resize '%s': axis %d goes from %lld to %lld without a scale",
                            desc->name, i, (long long)x->dims[i], (long long)y->dims[i]);
        if (a->resized && x->dims[i] == 0 && y->dims[i] > 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "Resize '%s': axis %d is empty", desc->name, i);
    }
    return TRM_OK;
}

/* Source coordinate of output position j. */
static double source(const resize_spec *s, const axis_spec *a, int64_t in, int64_t out, int64_t j)
{
    double n = (double)in, x = (double)j, length = a->scale * n; /* may be fractional */

    switch (s->coords) {
    case COORD_ALIGN_CORNERS:
        return length == 1 ? 0 : x * (n - 1) / (length - 1);
    case COORD_ASYMMETRIC:
        return x / a->scale;
    case COORD_TF_CROP_AND_RESIZE:
        if (length == 1)
            return (a->start + a->end) * (n - 1) / 2;
        return a->start * (n - 1) + x * (a->end - a->start) * (n - 1) / (length - 1);
    case COORD_PYTORCH_HALF_PIXEL:
        return out == 1 ? 0 : (x + 0.5) / a->scale - 0.5;
    case COORD_HALF_PIXEL_SYMMETRIC:
        return n / 2 * (1 - (double)out / length) + (x + 0.5) / a->scale - 0.5;
    case COORD_TF_HALF_PIXEL_FOR_NN:
        return (x + 0.5) / a->scale;
    case COORD_HALF_PIXEL:
        break;
    }
    return (x + 0.5) / a->scale - 0.5;
}

static int64_t nearest_index(nearest_mode mode, double coordinate)
{
    /* Coordinates are rounded to float first: scales are floats, and a true tie such as 3 / 0.6
     * would otherwise fall on either side of its integer. */
    float x = (float)coordinate, low = floorf(x);

    switch (mode) {
    case ROUND_FLOOR:
        return (int64_t)(x - low <= 0.5f ? low : low + 1);
    case ROUND_CEIL:
        return (int64_t)(x - low < 0.5f ? low : low + 1);
    case NEAREST_FLOOR:
        return (int64_t)low;
    case NEAREST_CEIL:
        break;
    }
    return (int64_t)ceilf(x);
}

static double cubic(double a, double x)
{
    x = fabs(x);
    if (x <= 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
    return 0;
}

/* Taps lie at floor(x) + first .. floor(x) + first + taps - 1. Antialiasing stretches the filter
 * by 1 / scale where that shrinks. */
static size_t tap_count(const resize_spec *s, const axis_spec *a, int64_t *first_out)
{
    double reach = s->mode == RESIZE_LINEAR ? 1 : 2;
    double scale = s->antialias && a->scale < 1 ? a->scale : 1;

    if (s->mode == RESIZE_NEAREST) {
        *first_out = 0;
        return 1;
    }
    *first_out = (int64_t)floor(-reach / scale) + 1;
    return (size_t)(2 - 2 * *first_out);
}

static void fill_axis(const resize_spec *s, const axis_spec *a, trmi_resize_axis *t)
{
    int64_t first, n = (int64_t)t->in;
    double scale = s->antialias && a->scale < 1 ? a->scale : 1;

    (void)tap_count(s, a, &first);
    for (size_t j = 0; j < t->out; j++) {
        double x = source(s, a, n, (int64_t)t->out, (int64_t)j), low = floor(x), total = 0;
        float *w = t->weight + j * t->taps;
        int32_t *index = t->index + j * t->taps;

        t->outside[j] = s->coords == COORD_TF_CROP_AND_RESIZE && (x < 0 || x > (double)(n - 1));
        for (size_t k = 0; k < t->taps; k++) {
            int64_t from = s->mode == RESIZE_NEAREST ? nearest_index(s->nearest, x)
                                                     : (int64_t)low + first + (int64_t)k;
            int64_t clamped = from < 0 ? 0 : from >= n ? n - 1 : from;
            double arg = ((double)first + (double)k - (x - low)) * scale, weight = 1;

            if (s->mode == RESIZE_LINEAR)
                weight = fabs(arg) < 1 ? 1 - fabs(arg) : 0;
            else if (s->mode == RESIZE_CUBIC)
                weight = cubic(s->cubic_a, arg);
            if (s->exclude_outside && from != clamped)
                weight = 0;
            index[k] = (int32_t)clamped;
            if (s->mode != RESIZE_NEAREST)
                w[k] = (float)weight;
            total += weight;
        }
        if (s->mode != RESIZE_NEAREST && (s->antialias || s->exclude_outside) && total != 0)
            for (size_t k = 0; k < t->taps; k++)
                w[k] = (float)((double)w[k] / total);
    }
}

static trm_status resize_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    trmi_resize *r = (trmi_resize *)k;

    (void)s;
    if (r->out_elems == 0)
        return TRM_OK;
    if (r->nearest)
        trmi_resize_nearest(r, in[0], out[0]);
    else
        trmi_resize_weighted(r, in[0], out[0], workspace);
    return TRM_OK;
}

static const trm_kernel_ops resize_ops = {
    .name = "resize", .run = resize_run, .destroy = trmi_kernel_free};

/* Largest intermediate: axes are applied from the last to the first. */
static void plan_scratch(trmi_resize *r)
{
    size_t elems = r->in_elems;

    for (int i = r->rank - 1; i >= 0; i--) {
        if (!r->resized[i] || r->in_dims[i] == 0)
            continue;
        elems = elems / r->in_dims[i] * r->out_dims[i];
        if (elems > r->scratch_elems)
            r->scratch_elems = elems;
    }
    r->base.workspace_bytes = 2 * r->scratch_elems * sizeof(float);
    if (r->dtype != TRM_DTYPE_F32)
        r->base.workspace_bytes += r->in_elems * sizeof(float);
}

static trm_status resize_new(const trm_op_desc *desc, const resize_spec *s, trmi_resize **r_out)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    int64_t in_dims[TRM_RANK_MAX + 1], out_dims[TRM_RANK_MAX + 1], first;
    int rank = trmi_storage_dims(x, in_dims), last = -1;
    size_t taps[TRM_RANK_MAX] = {0}, bytes = sizeof(trmi_resize), used = sizeof(trmi_resize);
    trm_tensor elem = {.dtype = x->dtype, .rank = 0};
    trmi_resize *r = NULL;

    (void)trmi_storage_dims(y, out_dims);
    for (int i = 0; i < x->rank; i++) {
        size_t entry;

        if (!s->axis[i].resized)
            continue;
        taps[i] = tap_count(s, &s->axis[i], &first);
        if (taps[i] > (size_t)1 << 24 || x->dims[i] > INT32_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "Resize '%s': scale %g of axis %d", desc->name,
                            s->axis[i].scale, i);
        entry = taps[i] * (sizeof(int32_t) + sizeof(float)) + 1;
        if (!trm_mul_ok(entry, (size_t)y->dims[i], &entry) || !trm_add_ok(bytes, entry + 8, &bytes))
            return trm_fail(TRM_ERR_UNSUPPORTED, "Resize '%s': axis %d to %lld", desc->name, i,
                            (long long)y->dims[i]);
    }
    TRM_CHECK(trmi_kernel_new(bytes, &resize_ops, &r));
    r->dtype = x->dtype;
    r->nearest = s->mode == RESIZE_NEAREST;
    r->extrapolation = trm_attr_float(desc->attrs, "extrapolation_value", 0);
    elem.data = &r->extrapolation_elem;
    trm_tensor_set_f64(&elem, 0, (double)r->extrapolation);
    r->in_elems = r->out_elems = r->unit_bytes = 1;
    for (int i = 0; i < rank; i++) {
        r->in_dims[i] = (size_t)in_dims[i];
        r->out_dims[i] = (size_t)out_dims[i];
        r->in_elems *= r->in_dims[i];
        r->out_elems *= r->out_dims[i];
    }
    for (int i = 0; i < x->rank; i++) {
        int at = trmi_storage_axis(x, i);
        trmi_resize_axis *t = &r->axis[at];
        size_t entries = taps[i] * (size_t)y->dims[i];

        if (taps[i] == 0)
            continue;
        r->resized[at] = true;
        last = at > last ? at : last;
        t->in = (size_t)x->dims[i];
        t->out = (size_t)y->dims[i];
        t->taps = taps[i];
        used = (used + 3) / 4 * 4;
        t->index = (int32_t *)(void *)((unsigned char *)r + used);
        t->weight = (float *)(void *)(t->index + entries);
        t->outside = (unsigned char *)(t->weight + entries);
        used += entries * (sizeof(int32_t) + sizeof(float)) + t->out;
        fill_axis(s, &s->axis[i], t);
    }
    for (int i = last + 1; i < rank; i++)
        r->unit_bytes *= r->in_dims[i];
    r->unit_bytes *= trm_dtype_bytes(x->dtype);
    r->rank = last + 1;
    if (!r->nearest)
        plan_scratch(r);
    *r_out = r;
    return TRM_OK;
}

trm_status trmi_cpu_resize(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    resize_spec spec = {.mode = RESIZE_NEAREST};
    trmi_resize *r = NULL;

    (void)cpu;
    TRM_CHECK(trmi_data_no_posts(desc));
    if (y->dtype != x->dtype || y->rank != x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Resize '%s': output is no tensor of the input's kind",
                        desc->name);
    TRM_CHECK(read_attrs(desc, &spec));
    TRM_CHECK(read_axes(desc, &spec));
    for (int i = 0; i < x->rank && i < 2; i++)
        if (spec.axis[i].resized)
            x->layout = TRM_LAYOUT_PLAIN;
    for (int i = 1; i < desc->input_count; i++)
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
    if (x->rank < 3)
        x->layout = TRM_LAYOUT_PLAIN;
    y->layout = x->layout;
    TRM_CHECK(resize_new(desc, &spec, &r));
    *kernel_out = &r->base;
    return TRM_OK;
}
