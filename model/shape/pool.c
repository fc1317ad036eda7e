/* Rules of pooling, unpooling and regions of interest. x [N, C, spatial ...]. */
#include "model/shape/rule.h"

static trm_status want_image(trmi_io io, int i, int spatial_min)
{
    int rank = trmi_shape_rank(io, i);

    if (rank >= 0 && rank < 2 + spatial_min)
        return trmi_shape_bad(io, "input %d has rank %d, want [batch, channels, spatial ...]", i,
                              rank);
    return TRM_OK;
}

trm_status trmi_rule_pool(trmi_io io)
{
    trm_tensor out = io->in[0];
    trmi_window win = {0};
    bool found;

    TRM_CHECK(want_image(io, 0, 1));
    if (out.rank >= 0) {
        TRM_CHECK(trmi_window_kernel(io, out.rank - 2, win.kernel, &found));
        if (!found)
            return trmi_shape_bad(io, "attribute 'kernel_shape' is missing");
        TRM_CHECK(trmi_window_read(io, out.rank - 2, &win));
        for (int i = 0; i < win.rank; i++)
            TRM_CHECK(trmi_window_out(io, &win, i, io->in[0].dims[2 + i], &out.dims[2 + i]));
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    trmi_shape_out(io, 1, TRM_DTYPE_I64, &out); /* MaxPool's indices */
    return TRM_OK;
}

trm_status trmi_rule_global_pool(trmi_io io)
{
    trm_tensor out = io->in[0];

    TRM_CHECK(want_image(io, 0, 0));
    for (int i = 2; i < out.rank; i++)
        out.dims[i] = 1;
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

/* x [N, C, H, W], rois [R, 5] -> [R, C, pooled_h, pooled_w] */
trm_status trmi_rule_max_roi_pool(trmi_io io)
{
    size_t n;
    const int64_t *pooled = trm_attr_ints(&io->node->attrs, "pooled_shape", &n);
    int64_t dims[4] = {TRM_DIM_UNKNOWN, TRM_DIM_UNKNOWN, 1, 1};

    TRM_CHECK(trmi_shape_want_rank(io, 0, 4));
    TRM_CHECK(trmi_shape_want_rank(io, 1, 2));
    if (pooled == NULL || n != 2 || pooled[0] < 1 || pooled[1] < 1)
        return trmi_shape_bad(io, "attribute 'pooled_shape' must hold two sizes");
    if (trmi_shape_rank(io, 1) == 2) {
        if (trmi_shape_differ(io->in[1].dims[1], 5))
            return trmi_shape_bad(io, "regions must be [count, 5]");
        dims[0] = io->in[1].dims[0];
    }
    if (trmi_shape_rank(io, 0) == 4)
        dims[1] = io->in[0].dims[1];
    dims[2] = pooled[0];
    dims[3] = pooled[1];
    trmi_shape_out_dims(io, 0, trmi_shape_dtype(io, 0), 4, dims);
    return TRM_OK;
}

/* x [N, C, H, W], rois [R, 4], batch_indices [R] */
trm_status trmi_rule_roi_align(trmi_io io)
{
    int64_t dims[4] = {TRM_DIM_UNKNOWN, TRM_DIM_UNKNOWN,
                       trm_attr_int(&io->node->attrs, "output_height", 1),
                       trm_attr_int(&io->node->attrs, "output_width", 1)};

    TRM_CHECK(trmi_shape_want_rank(io, 0, 4));
    TRM_CHECK(trmi_shape_want_rank(io, 1, 2));
    TRM_CHECK(trmi_shape_want_rank(io, 2, 1));
    if (dims[2] < 1 || dims[3] < 1)
        return trmi_shape_bad(io, "output_height and output_width must be at least 1");
    if (trmi_shape_rank(io, 1) == 2) {
        if (trmi_shape_differ(io->in[1].dims[1], 4))
            return trmi_shape_bad(io, "regions must be [count, 4]");
        dims[0] = io->in[1].dims[0];
    }
    if (trmi_shape_rank(io, 2) == 1)
        TRM_CHECK(
            trmi_shape_same(io, "regions and batch_indices", dims[0], io->in[2].dims[0], &dims[0]));
    if (trmi_shape_rank(io, 0) == 4)
        dims[1] = io->in[0].dims[1];
    trmi_shape_out_dims(io, 0, trmi_shape_dtype(io, 0), 4, dims);
    return TRM_OK;
}

trm_status trmi_rule_max_unpool(trmi_io io)
{
    trm_tensor out = io->in[0];
    trmi_window win = {0};
    trmi_elems e;
    bool found;

    TRM_CHECK(want_image(io, 0, 1));
    if (out.rank >= 0)
        TRM_CHECK(trmi_shape_want_rank(io, 1, out.rank));
    if (out.rank >= 0 && trmi_shape_has(io, 2)) {
        bool known = trmi_shape_elems(io, 2, &e);

        if (known && e.count != out.rank)
            return trmi_shape_bad(io, "output_shape has %d entries, want %d", e.count, out.rank);
        for (int i = 0; i < out.rank; i++)
            out.dims[i] = known ? trmi_elem_dim(&e, i) : TRM_DIM_UNKNOWN;
    } else if (out.rank >= 0) {
        TRM_CHECK(trmi_window_kernel(io, out.rank - 2, win.kernel, &found));
        if (!found)
            return trmi_shape_bad(io, "attribute 'kernel_shape' is missing");
        TRM_CHECK(trmi_window_read(io, out.rank - 2, &win));
        for (int i = 0; i < win.rank; i++) { /* (in - 1) * stride + kernel - pads */
            int64_t in = io->in[0].dims[2 + i];
            int64_t more = win.kernel[i] - win.stride[i] - win.pad_begin[i] - win.pad_end[i];
            int64_t grown = trmi_shape_op(io, '*', in, win.stride[i]);

            out.dims[2 + i] = more >= 0 ? trmi_shape_op(io, '+', grown, more)
                                        : trmi_shape_op(io, '-', grown, -more);
            if (in >= 0 && out.dims[2 + i] < 0)
                return trmi_shape_bad(io, "spatial axis %d: the padding leaves nothing", i);
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

/* x [N, C * prod(block), L], image_shape, block_shape -> [N, C, image ...] */
trm_status trmi_rule_col2im(trmi_io io)
{
    trmi_elems image, block;
    trm_tensor out = {.rank = -1};
    int64_t area = 1;

    TRM_CHECK(trmi_shape_want_rank(io, 0, 3));
    if (trmi_shape_elems(io, 1, &image)) {
        if (image.count < 1 || image.count > TRM_RANK_MAX - 2)
            return trmi_shape_bad(io, "image_shape has %d entries, want 1 to %d", image.count,
                                  TRM_RANK_MAX - 2);
        out.rank = 2 + image.count;
        out.dims[0] = trmi_shape_rank(io, 0) == 3 ? io->in[0].dims[0] : TRM_DIM_UNKNOWN;
        out.dims[1] = TRM_DIM_UNKNOWN;
        for (int i = 0; i < image.count; i++) {
            if (image.kind[i] == TRMI_ELEM_EXACT && image.v[i] < 0)
                return trmi_shape_bad(io, "image_shape has a negative entry");
            out.dims[2 + i] = trmi_elem_dim(&image, i);
        }
        if (trmi_shape_elems(io, 2, &block)) {
            if (block.count != image.count)
                return trmi_shape_bad(io, "block_shape has %d entries, image_shape %d", block.count,
                                      image.count);
            for (int i = 0; i < block.count; i++)
                area = trmi_shape_op(io, '*', area, trmi_elem_dim(&block, i));
            if (trmi_shape_rank(io, 0) == 3 && area != TRM_DIM_UNKNOWN) {
                int64_t c = io->in[0].dims[1];

                if (area == 0 || (area > 0 && c >= 0 && c % area != 0))
                    return trmi_shape_bad(io, "blocks of %lld do not divide %lld rows",
                                          (long long)area, (long long)c);
                out.dims[1] = trmi_shape_op(io, '/', c, area);
            }
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}
