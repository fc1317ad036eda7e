/* Rules of operators that cut, join, pad and resize. */
#include "model/shape/rule.h"

#include <math.h>
#include <string.h>

trm_status trmi_rule_concat(trmi_io io)
{
    trm_tensor out = {.rank = -1};
    trmi_elems e, all = {0};
    bool values = io->out_values != NULL;
    int axis = 0;

    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    for (int i = 0; i < io->node->input_count; i++) {
        const trm_tensor *in = &io->in[i];

        if (!trmi_shape_has(io, i))
            return trmi_shape_bad(io, "input %d is missing", i);
        if (trmi_shape_dtype(io, 0) != TRM_DTYPE_NONE && in->dtype != TRM_DTYPE_NONE &&
            in->dtype != trmi_shape_dtype(io, 0))
            return trmi_shape_bad(io, "inputs of dtype %s and %s; want the same",
                                  trm_dtype_name(trmi_shape_dtype(io, 0)),
                                  trm_dtype_name(in->dtype));
        if (in->rank < 0)
            return TRM_OK;
        if (i == 0) {
            TRM_CHECK(
                trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", 0), in->rank, &axis));
            out = *in;
        } else {
            TRM_CHECK(trmi_shape_want_rank(io, i, out.rank));
            for (int d = 0; d < out.rank; d++) {
                if (d == axis)
                    out.dims[d] = trmi_shape_op(io, '+', out.dims[d], in->dims[d]);
                else
                    TRM_CHECK(trmi_shape_same(io, "dims off the axis", out.dims[d], in->dims[d],
                                              &out.dims[d]));
            }
        }
        values = values && in->rank == 1 && in->dims[0] >= 0 &&
                 in->dims[0] <= TRM_SHAPE_VALUES_MAX - all.count;
        if (!values)
            continue;
        if (!trmi_shape_elems(io, i, &e)) {
            memset(&e, 0, sizeof(e));
            e.count = (int)in->dims[0];
        }
        memcpy(&all.v[all.count], e.v, (size_t)e.count * sizeof(e.v[0]));
        memcpy(&all.kind[all.count], e.kind, (size_t)e.count);
        all.count += e.count;
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    if (values)
        trmi_shape_out_elems(io, 0, &all);
    return TRM_OK;
}

static void split_values(trmi_io io, int k, int64_t from, int64_t size)
{
    trmi_elems e, part;

    if (io->in[0].rank != 1 || size < 0 || size > TRM_SHAPE_VALUES_MAX ||
        !trmi_shape_elems(io, 0, &e) || from < 0 || from + size > e.count)
        return;
    part.count = (int)size;
    memcpy(part.v, &e.v[from], (size_t)size * sizeof(e.v[0]));
    memcpy(part.kind, &e.kind[from], (size_t)size);
    trmi_shape_out_elems(io, k, &part);
}

trm_status trmi_rule_split(trmi_io io)
{
    const trm_tensor *in = &io->in[0], *sizes = trmi_shape_data(io, 1);
    trm_tensor out = *in;
    int count = io->node->output_count, axis = 0;
    int64_t parts = trm_attr_int(&io->node->attrs, "num_outputs", count), total, from = 0;

    if (in->rank >= 0)
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", 0), in->rank, &axis));
    total = in->rank < 0 ? TRM_DIM_UNKNOWN : in->dims[axis];
    if (sizes != NULL && (sizes->rank != 1 || sizes->dims[0] != count))
        return trmi_shape_bad(io, "the sizes must be a vector of %d entries, one an output", count);
    if (parts < count || parts < 1)
        return trmi_shape_bad(io, "num_outputs is %lld, the node has %d outputs", (long long)parts,
                              count);
    for (int k = 0; k < count; k++) {
        int64_t size = TRM_DIM_UNKNOWN;

        if (sizes != NULL) {
            size = trm_tensor_get_i64(sizes, (size_t)k);
            if (size < 0 || size > TRM_DIM_MAX)
                return trmi_shape_bad(io, "size %lld of output %d", (long long)size, k);
        } else if (!trmi_shape_has(io, 1) && total >= 0) {
            int64_t chunk = (total + parts - 1) / parts;

            size = total - from < chunk ? total - from : chunk;
        } else if (!trmi_shape_has(io, 1)) {
            size = parts == 1 ? total : trmi_shape_op(io, '/', total, parts);
        }
        if (in->rank >= 0)
            out.dims[axis] = size;
        trmi_shape_out(io, k, trmi_shape_dtype(io, 0), &out);
        if (size >= 0 && from >= 0) {
            split_values(io, k, from, size);
            from += size;
        } else {
            from = TRM_DIM_UNKNOWN;
        }
    }
    if (sizes != NULL && total >= 0 && from != total)
        return trmi_shape_bad(io, "the sizes add up to %lld, axis %d has %lld", (long long)from,
                              axis, (long long)total);
    return TRM_OK;
}

/* ---- Slice ---- */

static int64_t clamp(int64_t v, int64_t low, int64_t high)
{
    return v < low ? low : v > high ? high : v;
}

/* Elements [start, end) by step of d; first_out: the first one. */
static int64_t slice_count(int64_t d, int64_t start, int64_t end, int64_t step, int64_t *first_out)
{
    uint64_t span, by;

    start = start < 0 ? start + d : start;
    end = end < 0 ? end + d : end;
    if (step > 0) {
        start = clamp(start, 0, d);
        end = clamp(end, 0, d);
    } else {
        start = clamp(start, 0, d - 1);
        end = clamp(end, -1, d - 1);
    }
    *first_out = start;
    if (d == 0 || (step > 0 ? end <= start : end >= start))
        return 0;
    span = (uint64_t)(step > 0 ? end - start : start - end);
    by = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    return (int64_t)((span - 1) / by + 1);
}

/* As far as it can be said where the dim or a bound is symbolic. A symbolic end is taken to lie
 * inside the dim: models slice tables of positions by the length. */
static int64_t slice_symbolic(trmi_io io, int64_t d, const trmi_elems *starts,
                              const trmi_elems *ends, int i, int64_t step)
{
    int64_t start = starts->v[i], end = ends->v[i];
    bool to_end = ends->kind[i] == TRMI_ELEM_EXACT && end >= INT32_MAX;

    if (starts->kind[i] == TRMI_ELEM_EXACT && start == 0 && to_end && step > 0)
        return step == 1 ? d : trmi_shape_op(io, '/', trmi_shape_op(io, '+', d, step - 1), step);
    if (step != 1 || starts->kind[i] == TRMI_ELEM_UNKNOWN || ends->kind[i] == TRMI_ELEM_UNKNOWN)
        return TRM_DIM_UNKNOWN;
    if (starts->kind[i] == TRMI_ELEM_EXACT && start == -1 && to_end)
        return 1;
    if (starts->kind[i] == TRMI_ELEM_EXACT && start < 0)
        return TRM_DIM_UNKNOWN;
    if (to_end)
        return trmi_shape_op(io, '-', d, start);
    if (ends->kind[i] == TRMI_ELEM_DIM) {
        if (d == 1)
            return TRM_DIM_UNKNOWN;
        return starts->kind[i] == TRMI_ELEM_EXACT && start == 0
                   ? end
                   : trmi_shape_op(io, '-', end, start);
    }
    if (end < 0 && end > -TRM_DIM_MAX)
        return trmi_shape_op(io, '-', trmi_shape_op(io, '-', d, -end), start);
    return end == start && starts->kind[i] == TRMI_ELEM_EXACT ? 0 : TRM_DIM_UNKNOWN;
}

trm_status trmi_rule_slice(trmi_io io)
{
    const trm_tensor *in = &io->in[0];
    trm_tensor out = *in;
    trmi_elems starts, ends, axes = {0}, steps = {0}, data;
    bool known = trmi_shape_elems(io, 1, &starts) && trmi_shape_elems(io, 2, &ends);
    int64_t first = 0, step = 1;

    if (trmi_shape_has(io, 3))
        known = trmi_shape_exact(io, 3, &axes) && known;
    if (trmi_shape_has(io, 4))
        known = trmi_shape_exact(io, 4, &steps) && known;
    for (int i = 0; i < in->rank; i++)
        out.dims[i] = known ? in->dims[i] : TRM_DIM_UNKNOWN;
    if (!known || in->rank < 0) {
        trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
        return TRM_OK;
    }
    if (starts.count != ends.count || starts.count > TRM_RANK_MAX ||
        (trmi_shape_has(io, 3) && axes.count != starts.count) ||
        (trmi_shape_has(io, 4) && steps.count != starts.count))
        return trmi_shape_bad(io, "starts, ends, axes and steps must have the same length");
    for (int i = 0; i < starts.count; i++) {
        int axis;

        TRM_CHECK(trmi_shape_axis(io, trmi_shape_has(io, 3) ? axes.v[i] : i, in->rank, &axis));
        step = trmi_shape_has(io, 4) ? steps.v[i] : 1;
        if (step == 0)
            return trmi_shape_bad(io, "the step of axis %d is 0", axis);
        if (in->dims[axis] >= 0 && in->dims[axis] <= TRM_DIM_MAX &&
            starts.kind[i] == TRMI_ELEM_EXACT && ends.kind[i] == TRMI_ELEM_EXACT)
            out.dims[axis] = slice_count(in->dims[axis], starts.v[i], ends.v[i], step, &first);
        else
            out.dims[axis] = slice_symbolic(io, in->dims[axis], &starts, &ends, i, step);
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    if (in->rank == 1 && starts.count == 1 && in->dims[0] >= 0 && out.dims[0] >= 0 &&
        starts.kind[0] == TRMI_ELEM_EXACT && trmi_shape_elems(io, 0, &data)) {
        trmi_elems e = {.count = (int)out.dims[0]};

        for (int i = 0; i < e.count; i++) {
            int64_t from = i == 0 ? first : first + i * step;

            if (from < 0 || from >= data.count)
                return TRM_OK;
            e.v[i] = data.v[from];
            e.kind[i] = data.kind[from];
        }
        trmi_shape_out_elems(io, 0, &e);
    }
    return TRM_OK;
}

/* data, pads [begin ..., end ...], value, axes */
trm_status trmi_rule_pad(trmi_io io)
{
    trm_tensor out = io->in[0];
    trmi_elems pads, axes = {0};
    bool has_axes = trmi_shape_has(io, 3), known = trmi_shape_exact(io, 1, &pads);
    int n = out.rank;

    if (has_axes && !trmi_shape_exact(io, 3, &axes))
        known = false;
    if (out.rank < 0 || !known) {
        for (int i = 0; i < out.rank; i++)
            out.dims[i] = TRM_DIM_UNKNOWN;
        trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
        return TRM_OK;
    }
    if (has_axes)
        n = axes.count;
    if (n > TRM_RANK_MAX || pads.count != 2 * n)
        return trmi_shape_bad(io, "pads has %d entries, want %d", pads.count, 2 * n);
    for (int i = 0; i < n; i++) {
        int64_t sum;
        int axis;

        TRM_CHECK(trmi_shape_axis(io, has_axes ? axes.v[i] : i, out.rank, &axis));
        if (pads.v[i] < -TRM_DIM_MAX || pads.v[i] > TRM_DIM_MAX || pads.v[n + i] < -TRM_DIM_MAX ||
            pads.v[n + i] > TRM_DIM_MAX)
            return trmi_shape_bad(io, "pads of axis %d are out of range", axis);
        sum = pads.v[i] + pads.v[n + i];
        if (out.dims[axis] >= 0 && out.dims[axis] + sum < 0)
            return trmi_shape_bad(io, "axis %d has %lld elements, %lld are cut off", axis,
                                  (long long)out.dims[axis], (long long)-sum);
        out.dims[axis] = sum >= 0 ? trmi_shape_op(io, '+', out.dims[axis], sum)
                                  : trmi_shape_op(io, '-', out.dims[axis], -sum);
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

/* Axes from attribute `axes`, or 0, 1, ...; count_out: how many. */
static trm_status attr_axes(trmi_io io, int rank, int *axes, int *count_out, bool *given_out)
{
    size_t n;
    const int64_t *v = trm_attr_ints(&io->node->attrs, "axes", &n);

    *given_out = v != NULL;
    *count_out = v != NULL ? (int)(n > TRM_RANK_MAX ? TRM_RANK_MAX + 1 : n) : rank;
    if (*count_out > rank)
        return trmi_shape_bad(io, "attribute 'axes' has %zu entries for %d dims", n, rank);
    for (int i = 0; i < *count_out; i++) {
        axes[i] = i;
        if (v != NULL)
            TRM_CHECK(trmi_shape_axis(io, v[i], rank, &axes[i]));
    }
    return TRM_OK;
}

trm_status trmi_rule_center_crop_pad(trmi_io io)
{
    trm_tensor out = io->in[0];
    int axes[TRM_RANK_MAX], count;
    trmi_elems e;
    bool given;

    if (out.rank >= 0) {
        bool known = trmi_shape_elems(io, 1, &e);

        TRM_CHECK(attr_axes(io, out.rank, axes, &count, &given));
        if (known && e.count != count)
            return trmi_shape_bad(io, "the target has %d sizes, want %d", e.count, count);
        for (int i = 0; i < count; i++) {
            if (known && e.kind[i] == TRMI_ELEM_EXACT && e.v[i] < 0)
                return trmi_shape_bad(io, "the target has a negative size");
            out.dims[axes[i]] = known ? trmi_elem_dim(&e, i) : TRM_DIM_UNKNOWN;
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

trm_status trmi_rule_depth_to_space(trmi_io io)
{
    int64_t b = trm_attr_int(&io->node->attrs, "blocksize", 0);
    trm_tensor out = io->in[0];

    TRM_CHECK(trmi_shape_want_rank(io, 0, 4));
    if (b < 1 || b > INT32_MAX)
        return trmi_shape_bad(io, "blocksize is %lld, want at least 1", (long long)b);
    if (out.rank == 4) {
        if (out.dims[1] >= 0 && out.dims[1] % (b * b) != 0)
            return trmi_shape_bad(io, "blocks of %lld x %lld do not divide the channels",
                                  (long long)b, (long long)b);
        out.dims[1] = trmi_shape_op(io, '/', out.dims[1], b * b);
        out.dims[2] = trmi_shape_op(io, '*', out.dims[2], b);
        out.dims[3] = trmi_shape_op(io, '*', out.dims[3], b);
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

trm_status trmi_rule_space_to_depth(trmi_io io)
{
    int64_t b = trm_attr_int(&io->node->attrs, "blocksize", 0);
    trm_tensor out = io->in[0];

    TRM_CHECK(trmi_shape_want_rank(io, 0, 4));
    if (b < 1 || b > INT32_MAX)
        return trmi_shape_bad(io, "blocksize is %lld, want at least 1", (long long)b);
    if (out.rank == 4) {
        for (int i = 2; i < 4; i++) {
            if (out.dims[i] >= 0 && out.dims[i] % b != 0)
                return trmi_shape_bad(io, "blocks of %lld do not divide %lld", (long long)b,
                                      (long long)out.dims[i]);
            out.dims[i] = trmi_shape_op(io, '/', out.dims[i], b);
        }
        out.dims[1] = trmi_shape_op(io, '*', out.dims[1], b * b);
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

trm_status trmi_rule_reverse_sequence(trmi_io io)
{
    int64_t batch = trm_attr_int(&io->node->attrs, "batch_axis", 1);
    int64_t time = trm_attr_int(&io->node->attrs, "time_axis", 0), same;
    int rank = trmi_shape_rank(io, 0);

    TRM_CHECK(trmi_shape_want_rank(io, 1, 1));
    if (rank >= 0) {
        if (rank < 2 || !((batch == 0 && time == 1) || (batch == 1 && time == 0)))
            return trmi_shape_bad(io, "batch_axis and time_axis must be 0 and 1");
        if (trmi_shape_rank(io, 1) == 1)
            TRM_CHECK(trmi_shape_same(io, "lengths and batch", io->in[0].dims[batch],
                                      io->in[1].dims[0], &same));
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    return TRM_OK;
}

/* ---- Resize: x, roi, scales, sizes ---- */

static bool given(trmi_io io, int i)
{
    return trmi_shape_has(io, i) && trmi_shape_length(io, i) != 0;
}

static trm_status resize_by_scales(trmi_io io, trm_tensor *out, const int *axes, int count)
{
    const trm_tensor *scales = trmi_shape_data(io, 2);

    for (int i = 0; i < count; i++) {
        int64_t *d = &out->dims[axes[i]];
        float scale;

        if (scales == NULL) {
            *d = TRM_DIM_UNKNOWN;
            continue;
        }
        scale = (float)trm_tensor_get_f64(scales, (size_t)i);
        if (!(scale > 0) || !(scale < 1e9f))
            return trmi_shape_bad(io, "scale %g of axis %d: want more than 0", (double)scale,
                                  axes[i]);
        /* in fp32, as the usual runtimes do: 10 * 0.7f is 7 */
        if (*d >= 0 && (double)*d * (double)scale > (double)TRM_DIM_MAX)
            return trmi_shape_bad(io, "axis %d would be too large", axes[i]);
        if (*d >= 0)
            *d = (int64_t)floorf((float)*d * scale);
        else if (scale == floorf(scale))
            *d = trmi_shape_op(io, '*', *d, (int64_t)scale);
        else if (1 / scale == floorf(1 / scale))
            *d = trmi_shape_op(io, '/', *d, (int64_t)(1 / scale));
        else
            *d = TRM_DIM_UNKNOWN;
    }
    return TRM_OK;
}

static trm_status resize_to_sizes(trmi_io io, trm_tensor *out, const int *axes, int count)
{
    const char *policy = trm_attr_string(&io->node->attrs, "keep_aspect_ratio_policy", "stretch");
    bool larger = strcmp(policy, "not_smaller") == 0;
    trm_tensor in = *out;
    double scale = 0;
    trmi_elems e;
    bool known = trmi_shape_elems(io, 3, &e), exact = known;

    if (known && e.count != count)
        return trmi_shape_bad(io, "%d sizes, want %d", e.count, count);
    for (int i = 0; i < count; i++) {
        int64_t d = in.dims[axes[i]];

        if (known && e.kind[i] == TRMI_ELEM_EXACT && e.v[i] < 0)
            return trmi_shape_bad(io, "size %lld of axis %d", (long long)e.v[i], axes[i]);
        out->dims[axes[i]] = known ? trmi_elem_dim(&e, i) : TRM_DIM_UNKNOWN;
        exact = exact && e.kind[i] == TRMI_ELEM_EXACT && d > 0;
        if (exact) {
            double s = (double)e.v[i] / (double)d;

            scale = i == 0 || (larger ? s > scale : s < scale) ? s : scale;
        }
    }
    if (strcmp(policy, "stretch") == 0)
        return TRM_OK;
    for (int i = 0; i < count; i++)
        out->dims[axes[i]] = exact && scale < 1e9
                                 ? (int64_t)floor(scale * (double)in.dims[axes[i]] + 0.5)
                                 : TRM_DIM_UNKNOWN;
    return TRM_OK;
}

trm_status trmi_rule_resize(trmi_io io)
{
    trm_tensor out = io->in[0];
    int axes[TRM_RANK_MAX], count;
    bool by_sizes = given(io, 3), some;

    if (given(io, 2) == by_sizes)
        return trmi_shape_bad(io, "give either scales or sizes");
    if (out.rank >= 0) {
        TRM_CHECK(attr_axes(io, out.rank, axes, &count, &some));
        if (trmi_shape_length(io, by_sizes ? 3 : 2) >= 0 &&
            trmi_shape_length(io, by_sizes ? 3 : 2) != count)
            return trmi_shape_bad(io, "%lld %s, want %d",
                                  (long long)trmi_shape_length(io, by_sizes ? 3 : 2),
                                  by_sizes ? "sizes" : "scales", count);
        TRM_CHECK(by_sizes ? resize_to_sizes(io, &out, axes, count)
                           : resize_by_scales(io, &out, axes, count));
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}
