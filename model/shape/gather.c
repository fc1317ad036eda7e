/* Rules of gathering, scattering and sampling. */
#include "model/shape/rule.h"

#include <string.h>

static void gather_values(trmi_io io)
{
    trmi_elems data, at, out;

    if (io->in[0].rank != 1 || io->in[1].rank > 1 || !trmi_shape_elems(io, 0, &data) ||
        !trmi_shape_exact(io, 1, &at))
        return;
    out.count = at.count;
    for (int i = 0; i < at.count; i++) {
        int64_t k = at.v[i] < 0 ? at.v[i] + data.count : at.v[i];

        if (k < 0 || k >= data.count)
            return; /* the kernel will say so */
        out.v[i] = data.v[k];
        out.kind[i] = data.kind[k];
    }
    trmi_shape_out_elems(io, 0, &out);
}

static trm_status gather_shape(trmi_io io)
{
    const trm_tensor *in = &io->in[0], *at = &io->in[1];
    trm_tensor out = {.rank = -1};
    int axis;

    if (in->rank == 0)
        return trmi_shape_bad(io, "the data is a scalar, want at least one dim");
    if (in->rank > 0)
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", 0), in->rank, &axis));
    if (in->rank > 0 && at->rank >= 0) {
        if (in->rank - 1 + at->rank > TRM_RANK_MAX)
            return trmi_shape_bad(io, "the result would have %d dims, at most %d are supported",
                                  in->rank - 1 + at->rank, TRM_RANK_MAX);
        out.rank = 0;
        for (int i = 0; i < axis; i++)
            out.dims[out.rank++] = in->dims[i];
        for (int i = 0; i < at->rank; i++)
            out.dims[out.rank++] = at->dims[i];
        for (int i = axis + 1; i < in->rank; i++)
            out.dims[out.rank++] = in->dims[i];
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

trm_status trmi_rule_gather(trmi_io io)
{
    TRM_CHECK(gather_shape(io));
    gather_values(io);
    return TRM_OK;
}

/* The data is a part: indices do not name its rows, so nothing is known of values. */
trm_status trmi_rule_gather_part(trmi_io io)
{
    return gather_shape(io);
}

trm_status trmi_rule_image_table(trmi_io io)
{
    bool last = trm_attr_int(&io->node->attrs, "channels_last", 0) != 0;
    const int64_t *d = io->in[0].dims;
    int64_t dims[4], channels;

    TRM_CHECK(trmi_shape_want_rank(io, 0, 4));
    TRM_CHECK(trmi_shape_want_rank(io, 1, 2));
    if (trmi_shape_rank(io, 0) < 0 || trmi_shape_rank(io, 1) < 0)
        return TRM_OK;
    TRM_CHECK(trmi_shape_same(io, "channels", d[3], io->in[1].dims[0], &channels));
    if (trmi_shape_differ(io->in[1].dims[1], 256))
        return trmi_shape_bad(io, "a table has 256 values a channel");
    dims[0] = d[0];
    dims[last ? 3 : 1] = channels;
    dims[last ? 1 : 2] = d[1];
    dims[last ? 2 : 3] = d[2];
    trmi_shape_out_dims(io, 0, trmi_shape_dtype(io, 1), 4, dims);
    return TRM_OK;
}

trm_status trmi_rule_gather_elements(trmi_io io)
{
    int rank = trmi_shape_rank(io, 0), axis;

    if (rank >= 0) {
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", 0), rank, &axis));
        TRM_CHECK(trmi_shape_want_rank(io, 1, rank));
        for (int i = 0; i < rank && io->in[1].rank == rank; i++)
            if (i != axis && io->in[0].dims[i] >= 0 && io->in[1].dims[i] > io->in[0].dims[i])
                return trmi_shape_bad(io, "dim %d of the indices is larger than the data's", i);
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[1]);
    return TRM_OK;
}

trm_status trmi_rule_gather_nd(trmi_io io)
{
    const trm_tensor *in = &io->in[0], *at = &io->in[1];
    int64_t batch = trm_attr_int(&io->node->attrs, "batch_dims", 0), depth;
    trm_tensor out = {.rank = -1};

    if (in->rank >= 0 && at->rank >= 0) {
        if (in->rank < 1 || at->rank < 1 || batch < 0 || batch >= at->rank || batch >= in->rank)
            return trmi_shape_bad(io,
                                  "batch_dims is %lld, want less than both ranks, which are "
                                  "at least 1",
                                  (long long)batch);
        depth = at->dims[at->rank - 1];
        if (depth > in->rank - batch)
            return trmi_shape_bad(io, "index tuples of %lld for %lld dims", (long long)depth,
                                  (long long)(in->rank - batch));
        for (int i = 0; i < batch; i++) {
            int64_t same;

            TRM_CHECK(trmi_shape_same(io, "batch dims", in->dims[i], at->dims[i], &same));
        }
        if (depth >= 0) {
            int rest = in->rank - (int)batch - (int)depth;

            if (at->rank - 1 + rest > TRM_RANK_MAX)
                return trmi_shape_bad(io, "the result would have %d dims, at most %d are supported",
                                      at->rank - 1 + rest, TRM_RANK_MAX);
            out.rank = 0;
            for (int i = 0; i < at->rank - 1; i++)
                out.dims[out.rank++] = at->dims[i];
            for (int i = in->rank - rest; i < in->rank; i++)
                out.dims[out.rank++] = in->dims[i];
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

trm_status trmi_rule_scatter_elements(trmi_io io)
{
    int rank = trmi_shape_rank(io, 0), axis;

    if (rank >= 0) {
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", 0), rank, &axis));
        TRM_CHECK(trmi_shape_want_rank(io, 1, rank));
    }
    if (trmi_shape_rank(io, 1) >= 0)
        TRM_CHECK(trmi_shape_want_rank(io, 2, io->in[1].rank));
    for (int i = 0; i < trmi_shape_rank(io, 1) && i < trmi_shape_rank(io, 2); i++) {
        int64_t same;

        TRM_CHECK(trmi_shape_same(io, "dims of indices and updates", io->in[1].dims[i],
                                  io->in[2].dims[i], &same));
        if (rank >= 0 && i != axis && io->in[0].dims[i] >= 0 &&
            io->in[1].dims[i] > io->in[0].dims[i])
            return trmi_shape_bad(io, "dim %d of the indices is larger than the data's", i);
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    return TRM_OK;
}

trm_status trmi_rule_scatter_nd(trmi_io io)
{
    const trm_tensor *in = &io->in[0], *at = &io->in[1], *updates = &io->in[2];

    if (in->rank >= 0 && at->rank >= 0) {
        int64_t depth, same;

        if (in->rank < 1 || at->rank < 1)
            return trmi_shape_bad(io, "data and indices must have at least one dim");
        depth = at->dims[at->rank - 1];
        if (depth > in->rank)
            return trmi_shape_bad(io, "index tuples of %lld for %d dims", (long long)depth,
                                  in->rank);
        if (depth >= 0) {
            int want = at->rank - 1 + in->rank - (int)depth;

            TRM_CHECK(trmi_shape_want_rank(io, 2, want));
            for (int i = 0; i < want && updates->rank == want; i++)
                TRM_CHECK(trmi_shape_same(
                    io, "dims of updates", updates->dims[i],
                    i < at->rank - 1 ? at->dims[i] : in->dims[i - (at->rank - 1) + (int)depth],
                    &same));
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), in);
    return TRM_OK;
}

/* cache [B, ..., max, ...], update [B, ..., n, ...], write_indices [B] */
trm_status trmi_rule_tensor_scatter(trmi_io io)
{
    int rank = trmi_shape_rank(io, 0), axis;
    int64_t same;

    if (rank >= 0) {
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", -2), rank, &axis));
        if (axis == 0)
            return trmi_shape_bad(io, "axis 0 is the batch; want another");
        TRM_CHECK(trmi_shape_want_rank(io, 1, rank));
        for (int i = 0; i < rank && trmi_shape_rank(io, 1) == rank; i++)
            if (i != axis)
                TRM_CHECK(trmi_shape_same(io, "dims of cache and update", io->in[0].dims[i],
                                          io->in[1].dims[i], &same));
            else if (io->in[0].dims[i] >= 0 && io->in[1].dims[i] > io->in[0].dims[i])
                return trmi_shape_bad(io, "the update is longer than the cache");
        TRM_CHECK(trmi_shape_want_rank(io, 2, 1));
        if (trmi_shape_rank(io, 2) == 1)
            TRM_CHECK(trmi_shape_same(io, "batch", io->in[0].dims[0], io->in[2].dims[0], &same));
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    return TRM_OK;
}

/* x [N, C, spatial ...], grid [N, out spatial ..., spatial count] */
trm_status trmi_rule_grid_sample(trmi_io io)
{
    const trm_tensor *x = &io->in[0], *grid = &io->in[1];
    trm_tensor out = {.rank = x->rank >= 0 ? x->rank : grid->rank};

    if (out.rank >= 0 && out.rank < 3)
        return trmi_shape_bad(io, "want [batch, channels, spatial ...] and a grid of that rank");
    if (x->rank >= 0)
        TRM_CHECK(trmi_shape_want_rank(io, 1, x->rank));
    for (int i = 0; i < out.rank; i++) {
        out.dims[i] = TRM_DIM_UNKNOWN;
        if (i < 2 && x->rank >= 0)
            out.dims[i] = x->dims[i];
        if (i >= 2 && grid->rank >= 0)
            out.dims[i] = grid->dims[i - 1];
    }
    if (grid->rank >= 3) {
        if (trmi_shape_differ(grid->dims[grid->rank - 1], grid->rank - 2))
            return trmi_shape_bad(io, "the last dim of the grid must be %d", grid->rank - 2);
        TRM_CHECK(trmi_shape_same(io, "batch", out.dims[0], grid->dims[0], &out.dims[0]));
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}

/* theta [N, 2, 3] or [N, 3, 4], size (N, C, H, W) or (N, C, D, H, W) */
trm_status trmi_rule_affine_grid(trmi_io io)
{
    int64_t n = trmi_shape_length(io, 1);
    trm_tensor out = {.rank = -1};
    trmi_elems e;

    TRM_CHECK(trmi_shape_want_rank(io, 0, 3));
    if (n >= 0) {
        bool known = trmi_shape_elems(io, 1, &e);

        if (n != 4 && n != 5)
            return trmi_shape_bad(io, "size has %lld entries, want 4 or 5", (long long)n);
        out.rank = (int)n;
        out.dims[0] = known ? trmi_elem_dim(&e, 0) : TRM_DIM_UNKNOWN;
        for (int i = 2; i < n; i++) {
            if (known && e.kind[i] == TRMI_ELEM_EXACT && e.v[i] < 0)
                return trmi_shape_bad(io, "size has a negative entry");
            out.dims[i - 1] = known ? trmi_elem_dim(&e, i) : TRM_DIM_UNKNOWN;
        }
        out.dims[n - 1] = n - 2;
        if (trmi_shape_rank(io, 0) == 3) {
            TRM_CHECK(trmi_shape_same(io, "batch of theta and size", out.dims[0], io->in[0].dims[0],
                                      &out.dims[0]));
            if (trmi_shape_differ(io->in[0].dims[1], n - 2) ||
                trmi_shape_differ(io->in[0].dims[2], n - 1))
                return trmi_shape_bad(io, "theta must be [N, %lld, %lld]", (long long)(n - 2),
                                      (long long)(n - 1));
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    return TRM_OK;
}
