/* Operators that move, cut, join or look up. */
#include "parallel/rules_impl.h"

#include <string.h>

/* Dim d of x and of every output. */
static void through(trmi_rules *r, int d)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    trm_axis *a = trmi_rules_axis(r, "elements", x->dims[d], TRMI_WEIGHT_NONE);

    trmi_carry_in(r, a, 0, d);
    for (int k = 0; k < r->n->output_count; k++)
        trmi_carry_out(r, a, k, d);
}

/* ---- joining and cutting: one side has the axis, the other its pieces ---- */

static void cut_axis(trmi_rules *r, int d, bool join)
{
    const trm_tensor *whole = join ? trmi_rules_out(r, 0) : trmi_rules_in(r, 0);
    int count = join ? r->n->input_count : r->n->output_count;
    trm_axis *a = trmi_rules_axis(r, join ? "pieces" : "cuts", whole->dims[d], TRMI_WEIGHT_NONE);
    int64_t at = 0;

    if (a == NULL)
        return;
    for (int i = 0; i < count; i++) {
        const trm_tensor *t = join ? trmi_rules_in(r, i) : trmi_rules_out(r, i);
        trm_axis_dim *dim = join ? &a->in[i] : &a->out[i];

        if (t == NULL || t->rank <= d || t->dims[d] < 1) {
            a->extent = 0; /* a piece of unknown extent: rules.c drops it, nothing fits */
            dim->dim = d;
            return;
        }
        *dim = (trm_axis_dim){d, at, t->dims[d], 1, 1};
        at += t->dims[d];
    }
    if (join)
        trmi_carry_out(r, a, 0, d);
    else
        trmi_carry_in(r, a, 0, d);
}

void trmi_rules_concat(trmi_rules *r)
{
    const trm_tensor *y = trmi_rules_out(r, 0);
    int axis = y == NULL ? -1 : trmi_rules_at(trm_attr_int(&r->n->attrs, "axis", 0), y->rank);

    for (int d = 0; axis >= 0 && d < y->rank; d++) {
        trm_axis *a;

        if (d == axis) {
            cut_axis(r, d, true);
            continue;
        }
        a = trmi_rules_axis(r, "elements", y->dims[d], TRMI_WEIGHT_NONE);
        for (int i = 0; i < r->n->input_count; i++)
            trmi_carry_in(r, a, i, d);
        trmi_carry_out(r, a, 0, d);
    }
    if (r->n->input_count < 32)
        trmi_linear(r, (1u << r->n->input_count) - 1);
}

void trmi_rules_split(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    int axis = x == NULL ? -1 : trmi_rules_at(trm_attr_int(&r->n->attrs, "axis", 0), x->rank);

    for (int d = 0; axis >= 0 && d < x->rank; d++)
        if (d != axis)
            through(r, d);
        else
            cut_axis(r, d, false);
    trmi_linear(r, 1);
}

/* What a Slice does to each dim, where that is known: `touched` 0 nothing, 1 a range of steps of
 * one from start[d], 2 something else. */
typedef struct slicing {
    int touched[TRM_RANK_MAX];
    int64_t start[TRM_RANK_MAX];
} slicing;

static bool read_slicing(const trmi_rules *r, const trm_tensor *x, slicing *out)
{
    int64_t starts[TRM_RANK_MAX], ends[TRM_RANK_MAX], axes[TRM_RANK_MAX], steps[TRM_RANK_MAX];
    int count = trmi_rules_ints(r, 1, starts, TRM_RANK_MAX);
    int end_count = trmi_rules_ints(r, 2, ends, TRM_RANK_MAX), step_count = 0;
    const trm_tensor *shape = trmi_rules_in(r, 1);

    memset(out, 0, sizeof(*out));
    if (shape == NULL || shape->rank != 1 || shape->dims[0] < 0 || shape->dims[0] > TRM_RANK_MAX)
        return false;
    for (int i = 0; i < TRM_RANK_MAX; i++)
        axes[i] = i;
    if (trmi_rules_has(r, 3) && trmi_rules_ints(r, 3, axes, TRM_RANK_MAX) != (int)shape->dims[0])
        return false;
    if (trmi_rules_has(r, 4))
        step_count = trmi_rules_ints(r, 4, steps, TRM_RANK_MAX);
    for (int i = 0; i < (int)shape->dims[0]; i++) {
        int d = trmi_rules_at(axes[i], x->rank);
        int64_t extent, start, end;

        if (d < 0)
            return false;
        extent = x->dims[d];
        if (count <= i || end_count <= i || step_count < 0 || extent < 0 ||
            (step_count > 0 && steps[i] != 1)) {
            out->touched[d] = 2;
            continue;
        }
        start = starts[i] < 0 ? starts[i] + extent : starts[i];
        start = start < 0 ? 0 : start > extent ? extent : start;
        end = ends[i] < 0 ? ends[i] + extent : ends[i] > extent ? extent : ends[i];
        out->touched[d] = start == 0 && end == extent ? 0 : 1;
        /* a full range given by a negative end is not full for a part */
        if (out->touched[d] == 0 && (starts[i] != 0 || ends[i] < 0))
            out->touched[d] = 1;
        out->start[d] = start;
    }
    return true;
}

void trmi_rules_slice(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *y = trmi_rules_out(r, 0);
    slicing s;

    if (x == NULL || y == NULL || x->rank != y->rank || !read_slicing(r, x, &s))
        return;
    for (int d = 0; d < x->rank; d++) {
        trm_axis *a;

        if (s.touched[d] == 0)
            through(r, d);
        if (s.touched[d] != 1 || y->dims[d] < 1)
            continue;
        a = trmi_rules_axis(r, "cuts", x->dims[d], TRMI_WEIGHT_NONE);
        trmi_carry_in(r, a, 0, d);
        if (a != NULL)
            a->out[0] = (trm_axis_dim){d, s.start[d], y->dims[d], 1, 1};
    }
    trmi_linear(r, 1);
}

/* ---- the same elements elsewhere ---- */

void trmi_rules_pad(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *value = trmi_rules_in(r, 2);
    int64_t pads[2 * TRM_RANK_MAX], axes[TRM_RANK_MAX];
    int count = trmi_rules_ints(r, 1, pads, 2 * TRM_RANK_MAX), half = count / 2;
    bool untouched[TRM_RANK_MAX];
    const char *mode = trm_attr_string(&r->n->attrs, "mode", "constant");

    if (x == NULL || count < 0 || count % 2 != 0)
        return;
    for (int i = 0; i < TRM_RANK_MAX; i++) {
        axes[i] = i;
        untouched[i] = true;
    }
    if (trmi_rules_has(r, 3) && trmi_rules_ints(r, 3, axes, TRM_RANK_MAX) != half)
        return;
    for (int i = 0; i < half; i++) {
        int d = trmi_rules_at(axes[i], x->rank);

        if (d < 0)
            return;
        untouched[d] = pads[i] == 0 && pads[half + i] == 0;
    }
    for (int d = 0; d < x->rank; d++)
        if (untouched[d])
            through(r, d);
    if (strcmp(mode, "constant") != 0 || !trmi_rules_has(r, 2) ||
        (value != NULL && value->data != NULL && value->dtype == TRM_DTYPE_F32 &&
         trm_tensor_numel(value) == 1 && memcmp(value->data, "\0\0\0\0", 4) == 0))
        trmi_linear(r, 1);
}

void trmi_rules_transpose(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    size_t count;
    const int64_t *perm = trm_attr_ints(&r->n->attrs, "perm", &count);

    if (x == NULL || (perm != NULL && count != (size_t)x->rank))
        return;
    for (int d = 0; d < x->rank; d++) {
        int from = perm == NULL ? x->rank - 1 - d : trmi_rules_at(perm[d], x->rank);
        trm_axis *a =
            from < 0 ? NULL : trmi_rules_axis(r, "elements", x->dims[from], TRMI_WEIGHT_NONE);

        trmi_carry_in(r, a, 0, from);
        trmi_carry_out(r, a, 0, d);
    }
    trmi_linear(r, 1);
}

/* The shape input says the local extent where the output is split. */
void trmi_rules_expand(trmi_rules *r)
{
    const trm_tensor *y = trmi_rules_out(r, 0);

    for (int d = 0; y != NULL && d < y->rank; d++) {
        trm_axis *a = trmi_rules_axis(r, "elements", y->dims[d], TRMI_WEIGHT_NONE);

        trmi_broadcast_in(r, a, 0, y->rank, d, 1);
        trmi_carry_out(r, a, 0, d);
    }
    trmi_linear(r, 1);
}

void trmi_rules_tile(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    int64_t repeats[TRM_RANK_MAX];

    if (x == NULL || trmi_rules_ints(r, 1, repeats, TRM_RANK_MAX) != x->rank)
        return;
    for (int d = 0; d < x->rank; d++)
        if (repeats[d] == 1)
            through(r, d);
    trmi_linear(r, 1);
}

/* Channels where they are not scaled; spatial dims are left whole. */
void trmi_rules_resize(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *y = trmi_rules_out(r, 0),
                     *scales = trmi_rules_in(r, 2);
    const char *mode = trm_attr_string(&r->n->attrs, "coordinate_transformation_mode", "");

    size_t named;
    const int64_t *axes = trm_attr_ints(&r->n->attrs, "axes", &named);

    if (x == NULL || y == NULL || x->rank != y->rank || strcmp(mode, "tf_crop_and_resize") == 0 ||
        trm_attr_string(&r->n->attrs, "keep_aspect_ratio_policy", "stretch")[0] != 's')
        return;
    for (size_t i = 0; i < named; i++)
        if (trmi_rules_at(axes[i], x->rank) < 2)
            return;
    for (int d = 0; d < 2 && d < x->rank; d++) {
        float scale = 1;

        if (x->dims[d] < 0 || x->dims[d] != y->dims[d])
            continue;
        if (axes == NULL && trmi_rules_has(r, 2)) { /* a factor near one could keep the extent */
            if (scales == NULL)
                continue;
            if (scales->data != NULL && scales->dtype == TRM_DTYPE_F32 && scales->rank == 1 &&
                scales->dims[0] == x->rank)
                memcpy(&scale, (const unsigned char *)scales->data + 4 * d, 4);
            else if (scales->data == NULL && scales->dims[0] != 0)
                continue;
        }
        if (scale == 1)
            through(r, d);
    }
}

/* ---- looking up ---- */

void trmi_rules_gather(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *at = trmi_rules_in(r, 1);
    int axis = x == NULL ? -1 : trmi_rules_at(trm_attr_int(&r->n->attrs, "axis", 0), x->rank);
    trm_axis *a;

    if (axis < 0 || at == NULL)
        return;
    for (int d = 0; d < x->rank; d++) {
        if (d == axis)
            continue;
        a = trmi_rules_axis(r, "elements", x->dims[d], TRMI_WEIGHT_NONE);
        trmi_carry_in(r, a, 0, d);
        trmi_carry_out(r, a, 0, d < axis ? d : d - 1 + at->rank);
    }
    for (int d = 0; d < at->rank; d++) {
        a = trmi_rules_axis(r, "indices", at->dims[d], TRMI_WEIGHT_NONE);
        trmi_carry_in(r, a, 1, d);
        trmi_carry_out(r, a, 0, axis + d);
    }
    /* lowered to TrmGatherPart: what other ranks hold is zero here */
    a = trmi_rules_axis(r, "vocabulary", x->dims[axis], TRMI_WEIGHT_NONE);
    trmi_carry_in(r, a, 0, axis);
    if (a != NULL)
        a->sum = true;
    trmi_linear(r, 1);
}

void trmi_rules_gather_elements(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0), *at = trmi_rules_in(r, 1);
    int axis = x == NULL ? -1 : trmi_rules_at(trm_attr_int(&r->n->attrs, "axis", 0), x->rank);

    for (int d = 0; axis >= 0 && at != NULL && d < x->rank && d < at->rank; d++) {
        trm_axis *a;

        if (d != axis && x->dims[d] != at->dims[d])
            continue;
        a = trmi_rules_axis(r, "elements", at->dims[d], TRMI_WEIGHT_NONE);
        if (d != axis)
            trmi_carry_in(r, a, 0, d);
        trmi_carry_in(r, a, 1, d);
        trmi_carry_out(r, a, 0, d);
    }
}

/* The result is whole on every rank whatever x is split along: lowered with the whole extent. */
void trmi_rules_shape(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);

    for (int d = 0; x != NULL && d < x->rank; d++)
        trmi_carry_in(r, trmi_rules_axis(r, "reported", x->dims[d], TRMI_WEIGHT_NONE), 0, d);
}

/* GridSample, RoiAlign, MaxRoiPool: each channel alike. */
void trmi_rules_sample(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);

    if (x != NULL && x->rank > 1)
        through(r, 1);
}
