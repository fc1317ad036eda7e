/* Resize: parameters and tables, on the host. Interpolation is separable: every mode is, for each
 * resized axis, a table of source indices and weights, so the modes differ only here. The tables
 * are the CPU kernel's (kernels/cpu/resize.c), number for number. */
#include "kernels/cuda/image.h"

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

/* Whether parameter input i is given; it then has `want` known elements. */
static trm_status parameter(const trm_op_desc *desc, int input, size_t want, bool *given_out)
{
    size_t n;

    *given_out = false;
    if (!trmi_cuda_has_input(desc, input))
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

/* Axes that have a scale, and the scales. */
static trm_status read_scales(const trm_op_desc *desc, resize_spec *s)
{
    const trm_tensor *x = &desc->inputs[0];
    size_t axis_count;
    const int64_t *axes = trm_attr_ints(desc->attrs, "axes", &axis_count);
    const char *policy = trm_attr_string(desc->attrs, "keep_aspect_ratio_policy", "stretch");
    bool has_roi = false, has_scales, has_sizes;
    double common = 0;

    if (axes == NULL)
        axis_count = (size_t)x->rank;
    TRM_CHECK(parameter(desc, 2, axis_count, &has_scales));
    TRM_CHECK(parameter(desc, 3, axis_count, &has_sizes));
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
            TRM_CHECK(trmi_cuda_axis(desc, axes[i], x->rank, &axis));
        a = &s->axis[axis];
        if (has_scales)
            a->scale = trm_tensor_get_f64(&desc->inputs[2], i);
        else if (x->dims[axis] > 0)
            a->scale = trm_tensor_get_f64(&desc->inputs[3], i) / (double)x->dims[axis];
        if (has_roi) {
            a->start = trm_tensor_get_f64(&desc->inputs[1], i);
            a->end = trm_tensor_get_f64(&desc->inputs[1], axis_count + i);
        }
        if (!(a->scale > 0) && desc->outputs[0].dims[axis] > 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "Resize '%s': scale %g of axis %d", desc->name,
                            a->scale, axis);
        a->resized = true;
        if (i == 0 || (strcmp(policy, "not_larger") == 0 && a->scale < common) ||
            (strcmp(policy, "not_smaller") == 0 && a->scale > common))
            common = a->scale;
    }
    for (int i = 0; i < x->rank; i++)
        if (has_sizes && s->axis[i].resized && strcmp(policy, "stretch") != 0)
            s->axis[i].scale = common;
    return TRM_OK;
}

static trm_status read_spec(const trm_op_desc *desc, resize_spec *s)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];

    if (y->dtype != x->dtype || y->rank != x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "Resize '%s': output is no tensor of the input's kind",
                        desc->name);
    TRM_CHECK(read_attrs(desc, s));
    TRM_CHECK(read_scales(desc, s));
    for (int i = 0; i < x->rank; i++) {
        axis_spec *a = &s->axis[i];

        if (a->resized && x->dims[i] == y->dims[i] && fabs(a->scale - 1) < 1e-9 && a->start == 0 &&
            a->end == 1)
            a->resized = false;
        if (!a->resized && x->dims[i] != y->dims[i])
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "Resize '%s': axis %d goes from %lld to %lld without a scale",
                            desc->name, i, (long long)x->dims[i], (long long)y->dims[i]);
        if (a->resized && x->dims[i] == 0 && y->dims[i] > 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "Resize '%s': axis %d is empty", desc->name, i);
        if (x->dims[i] > INT32_MAX || y->dims[i] > INT32_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "Resize '%s': axis %d from %lld to %lld",
                            desc->name, i, (long long)x->dims[i], (long long)y->dims[i]);
    }
    return TRM_OK;
}

trm_status trmi_resize_moves_channels(const trm_op_desc *desc, bool *moves_out)
{
    resize_spec s = {.mode = RESIZE_NEAREST};

    TRM_CHECK(read_spec(desc, &s));
    *moves_out = s.axis[0].resized || s.axis[1].resized;
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

/* The host's view of an axis's tables. */
typedef struct axis_tables {
    int64_t in, out;
    size_t taps;
    int32_t *index;
    float *weight; /* nearest: not used */
    unsigned char *outside;
} axis_tables;

static void fill_axis(const resize_spec *s, const axis_spec *a, const axis_tables *t)
{
    int64_t first;
    double scale = s->antialias && a->scale < 1 ? a->scale : 1;

    (void)tap_count(s, a, &first);
    for (int64_t j = 0; j < t->out; j++) {
        double x = source(s, a, t->in, t->out, j), low = floor(x), total = 0;
        float *w = t->weight + (size_t)j * t->taps;
        int32_t *index = t->index + (size_t)j * t->taps;

        t->outside[j] = s->coords == COORD_TF_CROP_AND_RESIZE && (x < 0 || x > (double)(t->in - 1));
        for (size_t k = 0; k < t->taps; k++) {
            int64_t from = s->mode == RESIZE_NEAREST ? nearest_index(s->nearest, x)
                                                     : (int64_t)low + first + (int64_t)k;
            int64_t clamped = from < 0 ? 0 : from >= t->in ? t->in - 1 : from;
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

/* Largest intermediate of the separable way: axes are applied from the last to the first. */
static void plan_scratch(trmi_resize_plan *p)
{
    size_t elems = p->in_elems;

    for (int i = p->rank - 1; i >= 0; i--) {
        if (!p->axis[i].resized || p->axis[i].in == 0)
            continue;
        elems = elems / (size_t)p->axis[i].in * (size_t)p->axis[i].out;
        if (elems > p->scratch_elems)
            p->scratch_elems = elems;
    }
}

/* Logical axes in the order of the storage. */
static void storage_order(const trm_tensor *x, int *order)
{
    int n = 0;

    for (int i = 0; i < x->rank; i++)
        if (i != 1 || x->layout != TRM_LAYOUT_CHANNELS_LAST)
            order[n++] = i;
    if (n < x->rank)
        order[n] = 1;
}

trm_status trmi_resize_tables_make(const trm_op_desc *desc, trmi_resize_tables *tables_out)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    trmi_resize_tables t = {.bytes = NULL};
    trmi_resize_plan *p = &t.plan;
    trm_tensor elem = {.dtype = x->dtype, .rank = 0, .data = &p->extrapolation_bits};
    resize_spec s = {.mode = RESIZE_NEAREST};
    int order[TRM_RANK_MAX], axis_of[TRM_RANK_MAX];
    int64_t first;

    TRM_CHECK(read_spec(desc, &s));
    TRM_CHECK(trm_tensor_elems(x, &p->in_elems));
    TRM_CHECK(trm_tensor_elems(y, &p->out_elems));
    storage_order(x, order);
    p->dtype = x->dtype;
    p->extrapolation = trm_attr_float(desc->attrs, "extrapolation_value", 0);
    trm_tensor_set_f64(&elem, 0, (double)p->extrapolation);
    t.nearest = s.mode == RESIZE_NEAREST;
    t.has_outside = s.coords == COORD_TF_CROP_AND_RESIZE;
    for (int i = 0; i < x->rank; i++) {
        int at = order[i];
        trmi_resize_axis *a = &p->axis[p->rank];
        int64_t merged = p->rank > 0 ? x->dims[at] * p->axis[p->rank - 1].in : 0;
        size_t entry, bytes;

        if (!s.axis[at].resized && p->rank > 0 && !p->axis[p->rank - 1].resized &&
            merged <= INT32_MAX) {
            p->axis[p->rank - 1].in = p->axis[p->rank - 1].out = (int32_t)merged;
            continue;
        }
        a->resized = s.axis[at].resized;
        a->in = (int32_t)x->dims[at];
        a->out = (int32_t)y->dims[at];
        a->taps = 1;
        axis_of[p->rank++] = at;
        if (!a->resized)
            continue;
        entry = tap_count(&s, &s.axis[at], &first);
        a->taps = (int32_t)entry;
        if (entry > (size_t)1 << 24 || !trm_mul_ok(entry * 8 + 1, (size_t)a->out, &bytes) ||
            !trm_add_ok(trm_align_up(t.size, 16), bytes, &bytes))
            return trm_fail(TRM_ERR_UNSUPPORTED, "Resize '%s': axis %d to %lld", desc->name, at,
                            (long long)y->dims[at]);
        t.at[p->rank - 1] = trm_align_up(t.size, 16);
        t.size = bytes;
    }
    plan_scratch(p);
    if (t.size > 0) {
        t.bytes = trm_calloc(1, t.size);
        if (t.bytes == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "Resize '%s': tables", desc->name);
    }
    for (int i = 0; i < p->rank; i++) {
        const trmi_resize_axis *a = &p->axis[i];
        size_t entries = (size_t)a->taps * (size_t)a->out;
        axis_tables host = {.in = a->in, .out = a->out, .taps = (size_t)a->taps};

        if (!a->resized)
            continue;
        host.index = (int32_t *)(void *)(t.bytes + t.at[i]);
        host.weight = (float *)(void *)(host.index + entries);
        host.outside = (unsigned char *)(host.weight + entries);
        fill_axis(&s, &s.axis[axis_of[i]], &host);
    }
    *tables_out = t;
    return TRM_OK;
}

void trmi_resize_tables_place(trmi_resize_tables *t, const void *base)
{
    for (int i = 0; i < t->plan.rank; i++) {
        trmi_resize_axis *a = &t->plan.axis[i];
        size_t entries = (size_t)a->taps * (size_t)a->out;

        if (!a->resized)
            continue;
        a->index = (const int32_t *)(const void *)((const unsigned char *)base + t->at[i]);
        if (!t->nearest)
            a->weight = (const float *)(const void *)(a->index + entries);
        if (t->has_outside)
            a->outside = (const unsigned char *)(a->index + 2 * entries);
    }
}
