/* Rules of convolutions. x [N, C, spatial ...], w [M, C/group, kernel ...]. */
#include "model/shape/rule.h"

/* Bias of `channels` entries, where input i is there. */
static trm_status check_bias(trmi_io io, int i, int64_t channels)
{
    int64_t same;

    if (i >= trmi_shape_operands(io) || !trmi_shape_has(io, i))
        return TRM_OK;
    TRM_CHECK(trmi_shape_want_rank(io, i, 1));
    if (trmi_shape_rank(io, i) == 1)
        TRM_CHECK(
            trmi_shape_same(io, "bias and output channels", channels, io->in[i].dims[0], &same));
    return TRM_OK;
}

/* Ranks of data and weight; the spatial kernel from the weight, checked against kernel_shape. */
static trm_status read_kernel(trmi_io io, int x, int w, int *spatial_out, int64_t *kernel)
{
    int rank = trmi_shape_rank(io, x) >= 0 ? trmi_shape_rank(io, x) : trmi_shape_rank(io, w);
    int64_t named[TRM_RANK_MAX];
    bool found;

    *spatial_out = -1;
    if (rank < 0)
        return TRM_OK;
    if (rank < 3 || rank > TRM_RANK_MAX)
        return trmi_shape_bad(io, "the data has rank %d, want [batch, channels, spatial ...]",
                              rank);
    TRM_CHECK(trmi_shape_want_rank(io, w, rank));
    *spatial_out = rank - 2;
    TRM_CHECK(trmi_window_kernel(io, rank - 2, named, &found));
    for (int i = 0; i < rank - 2; i++) {
        kernel[i] = trmi_shape_rank(io, w) >= 0 ? io->in[w].dims[2 + i] : TRM_DIM_UNKNOWN;
        if (found)
            TRM_CHECK(trmi_shape_same(io, "kernel_shape and the weight", named[i], kernel[i],
                                      &kernel[i]));
        if (kernel[i] == 0)
            return trmi_shape_bad(io, "the kernel has an empty dim");
        if (kernel[i] < 0)
            kernel[i] = TRM_DIM_UNKNOWN;
    }
    return TRM_OK;
}

/* The shape rule of every convolution; x, w: input numbers. */
static trm_status conv_shape(trmi_io io, int x, int w, int bias, trm_dtype dtype)
{
    int64_t group = trm_attr_int(&io->node->attrs, "group", 1), c, m;
    trm_tensor out = {.rank = -1};
    trmi_window win = {0};
    int spatial;

    trmi_shape_out(io, 0, dtype, &out);
    TRM_CHECK(read_kernel(io, x, w, &spatial, win.kernel));
    if (spatial < 0)
        return TRM_OK;
    TRM_CHECK(trmi_window_read(io, spatial, &win));
    out.rank = spatial + 2;
    out.dims[0] = trmi_shape_rank(io, x) >= 0 ? io->in[x].dims[0] : TRM_DIM_UNKNOWN;
    m = trmi_shape_rank(io, w) >= 0 ? io->in[w].dims[0] : TRM_DIM_UNKNOWN;
    if (group < 1 || (m >= 0 && m % group != 0))
        return trmi_shape_bad(io, "group %lld must divide the %lld output channels",
                              (long long)group, (long long)m);
    if (trmi_shape_rank(io, x) >= 0 && trmi_shape_rank(io, w) >= 0) {
        c = trmi_shape_op(io, '*', io->in[w].dims[1], group);
        if (trmi_shape_differ(io->in[x].dims[1], c))
            return trmi_shape_bad(io,
                                  "the data has %lld channels, the weight is for %lld (%lld per "
                                  "group, %lld groups)",
                                  (long long)io->in[x].dims[1], (long long)c,
                                  (long long)io->in[w].dims[1], (long long)group);
    }
    out.dims[1] = m;
    TRM_CHECK(check_bias(io, bias, m));
    for (int i = 0; i < spatial; i++)
        TRM_CHECK(trmi_window_out(
            io, &win, i, trmi_shape_rank(io, x) >= 0 ? io->in[x].dims[2 + i] : TRM_DIM_UNKNOWN,
            &out.dims[2 + i]));
    trmi_shape_out(io, 0, dtype, &out);
    return TRM_OK;
}

trm_status trmi_rule_conv(trmi_io io)
{
    return conv_shape(io, 0, 1, 2, trmi_shape_dtype(io, 0));
}

trm_status trmi_rule_conv_integer(trmi_io io)
{
    return conv_shape(io, 0, 1, TRM_ARGS_ANY, TRM_DTYPE_I32);
}

/* x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias */
trm_status trmi_rule_qlinear_conv(trmi_io io)
{
    return conv_shape(io, 0, 3, 8, trmi_shape_dtype(io, 7));
}

static trm_status transposed_dim(trmi_io io, const trmi_window *w, int i, int64_t in,
                                 int64_t output_padding, int64_t *out)
{
    int64_t extent, grown, less = w->pad_begin[i] + w->pad_end[i];

    *out = TRM_DIM_UNKNOWN;
    if (w->pad == TRMI_PAD_SAME) {
        *out = trmi_shape_op(io, '*', in, w->stride[i]);
        return TRM_OK;
    }
    if (w->kernel[i] < 0 || in == TRM_DIM_UNKNOWN)
        return TRM_OK;
    if (w->pad == TRMI_PAD_VALID)
        less = 0;
    if (w->kernel[i] > TRM_DIM_MAX ||
        __builtin_mul_overflow(w->kernel[i] - 1, w->dilation[i], &extent) || extent > TRM_DIM_MAX)
        return trmi_shape_bad(io, "the kernel is too large");
    /* stride * (in - 1) + output_padding + extent + 1 - less, kept as in * stride +- constant */
    less += w->stride[i] - output_padding - extent - 1;
    grown = trmi_shape_op(io, '*', in, w->stride[i]);
    if (grown == TRM_DIM_UNKNOWN)
        return TRM_OK;
    *out = less >= 0 ? trmi_shape_op(io, '-', grown, less) : trmi_shape_op(io, '+', grown, -less);
    if (in >= 0 && *out < 0)
        return trmi_shape_bad(io, "spatial axis %d: the padding leaves nothing of %lld", i,
                              (long long)in);
    return TRM_OK;
}

/* w [C, M/group, kernel ...] */
trm_status trmi_rule_conv_transpose(trmi_io io)
{
    int64_t group = trm_attr_int(&io->node->attrs, "group", 1), same;
    size_t padding_n, shape_n;
    const int64_t *padding = trm_attr_ints(&io->node->attrs, "output_padding", &padding_n);
    const int64_t *shape = trm_attr_ints(&io->node->attrs, "output_shape", &shape_n);
    trm_tensor out = {.rank = -1};
    trmi_window win = {0};
    bool x_known = trmi_shape_rank(io, 0) >= 0;
    int spatial;

    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    TRM_CHECK(read_kernel(io, 0, 1, &spatial, win.kernel));
    if (spatial < 0)
        return TRM_OK;
    TRM_CHECK(trmi_window_read(io, spatial, &win));
    if (group < 1)
        return trmi_shape_bad(io, "group is %lld, want at least 1", (long long)group);
    if ((padding != NULL && padding_n != (size_t)spatial) ||
        (shape != NULL && shape_n != (size_t)spatial && shape_n != (size_t)spatial + 2))
        return trmi_shape_bad(io, "output_padding and output_shape must have %d entries", spatial);
    out.rank = spatial + 2;
    out.dims[0] = x_known ? io->in[0].dims[0] : TRM_DIM_UNKNOWN;
    out.dims[1] = TRM_DIM_UNKNOWN;
    if (trmi_shape_rank(io, 1) >= 0) {
        if (x_known)
            TRM_CHECK(trmi_shape_same(io, "channels of data and weight", io->in[0].dims[1],
                                      io->in[1].dims[0], &same));
        if (io->in[1].dims[0] >= 0 && io->in[1].dims[0] % group != 0)
            return trmi_shape_bad(io, "group %lld must divide the input channels",
                                  (long long)group);
        out.dims[1] = trmi_shape_op(io, '*', io->in[1].dims[1], group);
    }
    TRM_CHECK(check_bias(io, 2, out.dims[1]));
    for (int i = 0; i < spatial; i++) {
        int64_t in = x_known ? io->in[0].dims[2 + i] : TRM_DIM_UNKNOWN;
        int64_t pad = padding == NULL ? 0 : padding[i];

        if (pad < 0 || pad > TRM_DIM_MAX)
            return trmi_shape_bad(io, "output_padding %lld is out of range", (long long)pad);
        if (shape != NULL) {
            out.dims[2 + i] = shape[shape_n - (size_t)spatial + (size_t)i];
            if (out.dims[2 + i] < 0)
                return trmi_shape_bad(io, "output_shape %lld is negative",
                                      (long long)out.dims[2 + i]);
        } else {
            TRM_CHECK(transposed_dim(io, &win, i, in, pad, &out.dims[2 + i]));
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

/* x, w, offset [N, groups * kernel * spatial, out ...], bias, mask */
trm_status trmi_rule_deform_conv(trmi_io io)
{
    TRM_CHECK(conv_shape(io, 0, 1, 3, trmi_shape_dtype(io, 0)));
    for (int i = 2; i < 5; i += 2) {
        if (!trmi_shape_has(io, i) || io->out[0].rank < 0)
            continue;
        TRM_CHECK(trmi_shape_want_rank(io, i, io->out[0].rank));
        for (int d = 2; d < io->in[i].rank; d++)
            TRM_CHECK(trmi_shape_same(io, i == 2 ? "offset and output" : "mask and output",
                                      io->in[i].dims[d], io->out[0].dims[d], &io->out[0].dims[d]));
    }
    return TRM_OK;
}

/* x [B, C, L], w [C, 1, k], bias [C], past [B, C, k-1] */
trm_status trmi_rule_causal_conv(trmi_io io)
{
    trm_tensor y = io->in[0], state = {.rank = 3};
    int64_t channels = TRM_DIM_UNKNOWN;

    TRM_CHECK(trmi_shape_want_rank(io, 0, 3));
    TRM_CHECK(trmi_shape_want_rank(io, 1, 3));
    if (y.rank == 3)
        channels = y.dims[1];
    for (int i = 0; i < 3; i++)
        state.dims[i] = TRM_DIM_UNKNOWN;
    if (trmi_shape_rank(io, 1) == 3) {
        TRM_CHECK(trmi_shape_same(io, "channels of data and weight", channels, io->in[1].dims[0],
                                  &channels));
        if (trmi_shape_differ(io->in[1].dims[1], 1) || io->in[1].dims[2] == 0)
            return trmi_shape_bad(io, "the weight must be [channels, 1, k] with k at least 1");
        state.dims[2] = trmi_shape_op(io, '-', io->in[1].dims[2], 1);
    }
    TRM_CHECK(check_bias(io, 2, channels));
    state.dims[0] = y.rank == 3 ? y.dims[0] : TRM_DIM_UNKNOWN;
    state.dims[1] = channels;
    if (trmi_shape_has(io, 3)) {
        TRM_CHECK(trmi_shape_want_rank(io, 3, 3));
        for (int i = 0; i < 3 && io->in[3].rank == 3; i++)
            TRM_CHECK(trmi_shape_same(io, "dims of past_state", state.dims[i], io->in[3].dims[i],
                                      &state.dims[i]));
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &y);
    trmi_shape_out(io, 1, trmi_shape_dtype(io, 0), &state);
    return TRM_OK;
}
