/* Rules of operators that make tensors from parameters, and of Fourier transforms. */
#include "model/shape/rule.h"

#include <math.h>

trm_status trmi_rule_constant_of_shape(trmi_io io)
{
    const trm_attr *value = trm_attr_find(&io->node->attrs, "value");
    const trm_tensor *fill =
        value != NULL && value->kind == TRM_ATTR_TENSOR ? value->v.tensor : NULL;
    int64_t n = trmi_shape_length(io, 0);
    trm_tensor out = {.rank = -1};
    trmi_elems e = {0};

    if (n > TRM_RANK_MAX)
        return trmi_shape_bad(io, "the shape has %lld dims, at most %d are supported", (long long)n,
                              TRM_RANK_MAX);
    if (n >= 0) {
        bool known = trmi_shape_elems(io, 0, &e);

        out.rank = (int)n;
        for (int i = 0; i < out.rank; i++) {
            out.dims[i] = known ? trmi_elem_dim(&e, i) : TRM_DIM_UNKNOWN;
            if (known && e.kind[i] == TRMI_ELEM_EXACT && e.v[i] < 0)
                return trmi_shape_bad(io, "size %lld at %d", (long long)e.v[i], i);
        }
    }
    trmi_shape_out(io, 0, fill == NULL ? TRM_DTYPE_F32 : fill->dtype, &out);
    if (fill != NULL && fill->data != NULL && !trm_dtype_is_float(fill->dtype) && out.rank >= 0 &&
        out.rank <= 1 &&
        (out.rank == 0 || (out.dims[0] >= 0 && out.dims[0] <= TRM_SHAPE_VALUES_MAX))) {
        e.count = out.rank == 0 ? 1 : (int)out.dims[0];
        for (int i = 0; i < e.count; i++) {
            e.v[i] = trm_tensor_get_i64(fill, 0);
            e.kind[i] = TRMI_ELEM_EXACT;
        }
        trmi_shape_out_elems(io, 0, &e);
    }
    return TRM_OK;
}

static trm_status range_count(trmi_io io, int64_t *count_out)
{
    const trm_tensor *start = trmi_shape_data(io, 0), *limit = trmi_shape_data(io, 1),
                     *delta = trmi_shape_data(io, 2);
    int64_t a, b, d, span;

    *count_out = TRM_DIM_UNKNOWN;
    if (trm_dtype_is_float(trmi_shape_dtype(io, 0))) {
        double n;

        if (start == NULL || limit == NULL || delta == NULL)
            return TRM_OK;
        n = ceil((trm_tensor_get_f64(limit, 0) - trm_tensor_get_f64(start, 0)) /
                 trm_tensor_get_f64(delta, 0));
        if (trm_tensor_get_f64(delta, 0) == 0 || !(n < (double)TRM_DIM_MAX))
            return trmi_shape_bad(io, "delta %g from %g does not reach %g",
                                  trm_tensor_get_f64(delta, 0), trm_tensor_get_f64(start, 0),
                                  trm_tensor_get_f64(limit, 0));
        *count_out = n > 0 ? (int64_t)n : 0;
        return TRM_OK;
    }
    if (!trmi_shape_scalar(io, 0, &a) || !trmi_shape_scalar(io, 2, &d))
        return TRM_OK;
    if (d == 0)
        return trmi_shape_bad(io, "delta is 0");
    if (!trmi_shape_scalar(io, 1, &b)) {
        trmi_elems e;

        if (trmi_shape_elems(io, 1, &e) && e.count == 1 && d == 1 && a >= 0)
            *count_out = trmi_shape_op(io, '-', trmi_elem_dim(&e, 0), a);
        return TRM_OK;
    }
    if (__builtin_sub_overflow(b, a, &span) || d == INT64_MIN)
        return trmi_shape_bad(io, "the range is too long");
    if (d < 0) {
        if (span == INT64_MIN)
            return trmi_shape_bad(io, "the range is too long");
        span = -span;
        d = -d;
    }
    *count_out = span <= 0 ? 0 : (span - 1) / d + 1;
    return TRM_OK;
}

trm_status trmi_rule_range(trmi_io io)
{
    int64_t count, a, d;
    trmi_elems e = {0};

    for (int i = 0; i < 3; i++)
        if (trmi_shape_rank(io, i) > 1 || trmi_shape_length(io, i) > 1 ||
            (trmi_shape_data(io, i) != NULL && trmi_shape_length(io, i) != 1))
            return trmi_shape_bad(io, "start, limit and delta must be scalars");
    TRM_CHECK(range_count(io, &count));
    trmi_shape_out_dims(io, 0, trmi_shape_dtype(io, 0), 1, &count);
    if (count >= 0 && count <= TRM_SHAPE_VALUES_MAX &&
        !trm_dtype_is_float(trmi_shape_dtype(io, 0)) && trmi_shape_scalar(io, 0, &a) &&
        trmi_shape_scalar(io, 2, &d)) {
        e.count = (int)count;
        for (int i = 0; i < e.count; i++, a = i < e.count ? a + d : a) {
            e.v[i] = a;
            e.kind[i] = TRMI_ELEM_EXACT;
        }
        trmi_shape_out_elems(io, 0, &e);
    }
    return TRM_OK;
}

/* Attribute `name` as a dtype, or `otherwise` where it is absent. */
static trm_status dtype_attr(trmi_io io, const char *name, trm_dtype otherwise,
                             trm_dtype *dtype_out)
{
    int64_t number = trm_attr_int(&io->node->attrs, name, 0);

    *dtype_out = number == 0 ? otherwise : trm_dtype_from_onnx(number);
    if (number != 0 && *dtype_out == TRM_DTYPE_NONE)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': attribute '%s' asks for ONNX dtype %lld",
                        trm_op_get(io->node->op)->name, io->node->name, name, (long long)number);
    return TRM_OK;
}

trm_status trmi_rule_eye_like(trmi_io io)
{
    trm_dtype dtype;

    TRM_CHECK(dtype_attr(io, "dtype", trmi_shape_dtype(io, 0), &dtype));
    TRM_CHECK(trmi_shape_want_rank(io, 0, 2));
    trmi_shape_out(io, 0, dtype, &io->in[0]);
    return TRM_OK;
}

/* indices, depth, values [off, on] */
trm_status trmi_rule_one_hot(trmi_io io)
{
    const trm_tensor *in = &io->in[0];
    trm_tensor out = {.rank = -1};
    trmi_elems depth;
    int axis, from = 0;

    if (in->rank >= 0) {
        if (in->rank + 1 > TRM_RANK_MAX)
            return trmi_shape_bad(io, "the result would have more than %d dims", TRM_RANK_MAX);
        out.rank = in->rank + 1;
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", -1), out.rank, &axis));
        for (int i = 0; i < out.rank; i++)
            out.dims[i] = i == axis ? TRM_DIM_UNKNOWN : in->dims[from++];
        if (trmi_shape_elems(io, 1, &depth) && depth.count == 1) {
            if (depth.kind[0] == TRMI_ELEM_EXACT && depth.v[0] < 0)
                return trmi_shape_bad(io, "depth is %lld", (long long)depth.v[0]);
            out.dims[axis] = trmi_elem_dim(&depth, 0);
        } else if (trmi_shape_data(io, 1) != NULL) {
            return trmi_shape_bad(io, "depth must be a scalar");
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 2), &out);
    return TRM_OK;
}

trm_status trmi_rule_window(trmi_io io)
{
    int64_t n = TRM_DIM_UNKNOWN;
    trmi_elems e;
    trm_dtype dtype;

    TRM_CHECK(dtype_attr(io, "output_datatype", TRM_DTYPE_F32, &dtype));
    if (trmi_shape_elems(io, 0, &e)) {
        if (e.count != 1 || (e.kind[0] == TRMI_ELEM_EXACT && e.v[0] < 0))
            return trmi_shape_bad(io, "the size must be one number, at least 0");
        n = trmi_elem_dim(&e, 0);
    }
    trmi_shape_out_dims(io, 0, dtype, 1, &n);
    return TRM_OK;
}

/* num_mel_bins, dft_length, sample_rate, lower_edge, upper_edge */
trm_status trmi_rule_mel(trmi_io io)
{
    int64_t dims[2] = {TRM_DIM_UNKNOWN, TRM_DIM_UNKNOWN}, v;
    trm_dtype dtype;

    TRM_CHECK(dtype_attr(io, "output_datatype", TRM_DTYPE_F32, &dtype));
    for (int i = 0; i < 2; i++) {
        if (!trmi_shape_scalar(io, i, &v))
            continue;
        if (v < 0 || v > TRM_DIM_MAX)
            return trmi_shape_bad(io, "%s is %lld", i == 0 ? "num_mel_bins" : "dft_length",
                                  (long long)v);
        dims[1 - i] = i == 0 ? v : v / 2 + 1;
    }
    trmi_shape_out_dims(io, 0, dtype, 2, dims);
    return TRM_OK;
}

/* input [..., 1 or 2], dft_length, axis */
trm_status trmi_rule_dft(trmi_io io)
{
    bool onesided = trm_attr_int(&io->node->attrs, "onesided", 0) != 0;
    bool inverse = trm_attr_int(&io->node->attrs, "inverse", 0) != 0;
    trm_tensor out = io->in[0];
    int64_t value = -2, n;
    int axis;

    if (out.rank < 0) {
        trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
        return TRM_OK;
    }
    if (out.rank < 2 ||
        (out.dims[out.rank - 1] >= 0 && out.dims[out.rank - 1] != 1 && out.dims[out.rank - 1] != 2))
        return trmi_shape_bad(io, "want [..., signal, 1] (real) or [..., signal, 2] (complex)");
    out.dims[out.rank - 1] = onesided && inverse ? 1 : 2;
    if (trmi_shape_has(io, 2) && !trmi_shape_scalar(io, 2, &value)) {
        for (int i = 0; i < out.rank - 1; i++)
            out.dims[i] = TRM_DIM_UNKNOWN;
        trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
        return TRM_OK;
    }
    TRM_CHECK(trmi_shape_axis(io, value, out.rank, &axis));
    if (axis == out.rank - 1)
        return trmi_shape_bad(io, "the last axis holds real and imaginary part, want another");
    n = out.dims[axis];
    if (trmi_shape_has(io, 1)) {
        if (!trmi_shape_scalar(io, 1, &n))
            n = TRM_DIM_UNKNOWN;
        else if (n < 1)
            return trmi_shape_bad(io, "dft_length is %lld, want at least 1", (long long)n);
    } else if (onesided && inverse) { /* n/2 + 1 values stand for n */
        n = n == 0 ? 0 : trmi_shape_op(io, '*', trmi_shape_op(io, '-', n, 1), 2);
    }
    out.dims[axis] =
        onesided && !inverse ? trmi_shape_op(io, '+', trmi_shape_op(io, '/', n, 2), 1) : n;
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

/* signal [batch, length] or [batch, length, 1 or 2], frame_step, window, frame_length */
trm_status trmi_rule_stft(trmi_io io)
{
    bool onesided = trm_attr_int(&io->node->attrs, "onesided", 1) != 0;
    const trm_tensor *in = &io->in[0];
    int64_t dims[4] = {TRM_DIM_UNKNOWN, TRM_DIM_UNKNOWN, TRM_DIM_UNKNOWN, 2};
    int64_t step = TRM_DIM_UNKNOWN, length = TRM_DIM_UNKNOWN, window;

    if (in->rank >= 0 && in->rank != 2 && in->rank != 3)
        return trmi_shape_bad(io, "the signal must be [batch, length, 1 or 2]");
    if (trmi_shape_scalar(io, 1, &step) && step < 1)
        return trmi_shape_bad(io, "frame_step is %lld, want at least 1", (long long)step);
    if (trmi_shape_scalar(io, 3, &length) && length < 1)
        return trmi_shape_bad(io, "frame_length is %lld, want at least 1", (long long)length);
    if (trmi_shape_has(io, 2)) {
        TRM_CHECK(trmi_shape_want_rank(io, 2, 1));
        window = trmi_shape_length(io, 2);
        if (!trmi_shape_has(io, 3))
            length = window;
        else if (trmi_shape_differ(length, window))
            return trmi_shape_bad(io, "frame_length is %lld, the window has %lld",
                                  (long long)length, (long long)window);
    }
    if (in->rank >= 0) {
        dims[0] = in->dims[0];
        if (in->dims[1] >= 0 && length >= 0 && in->dims[1] < length)
            return trmi_shape_bad(io, "the signal is shorter than one frame of %lld",
                                  (long long)length);
        dims[1] = trmi_shape_op(
            io, '+', trmi_shape_op(io, '/', trmi_shape_op(io, '-', in->dims[1], length), step), 1);
    }
    dims[2] = onesided ? trmi_shape_op(io, '+', trmi_shape_op(io, '/', length, 2), 1) : length;
    trmi_shape_out_dims(io, 0, trmi_shape_dtype(io, 0), 4, dims);
    return TRM_OK;
}
