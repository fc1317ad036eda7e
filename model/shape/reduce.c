/* Rules of reductions and of operators that select: TopK, NonZero, Unique, Compress,
 * NonMaxSuppression. */
#include "model/shape/rule.h"

/* Reduced axes of an input of known rank. known_out false: the axes' values are not known. */
static trm_status reduced_axes(trmi_io io, int rank, bool *reduced, bool *known_out)
{
    const trm_tensor *axes = trmi_shape_data(io, 1);
    trmi_elems e = {0};
    int axis;

    *known_out = true;
    if (axes != NULL && (trmi_shape_length(io, 1) < 0 || trmi_shape_length(io, 1) > TRM_RANK_MAX))
        return trmi_shape_bad(io, "axes must be a vector of at most %d entries", TRM_RANK_MAX);
    if (trmi_shape_has(io, 1) && !trmi_shape_exact(io, 1, &e)) {
        *known_out = trmi_shape_length(io, 1) == 0;
        e.count = 0;
        if (!*known_out)
            return TRM_OK;
    }
    for (int i = 0; i < rank; i++)
        reduced[i] = e.count == 0 && trm_attr_int(&io->node->attrs, "noop_with_empty_axes", 0) == 0;
    for (int i = 0; i < e.count; i++) {
        TRM_CHECK(trmi_shape_axis(io, e.v[i], rank, &axis));
        reduced[axis] = true;
    }
    return TRM_OK;
}

static void put_reduced(trmi_io io, int k, trm_dtype dtype, const bool *reduced, bool keep)
{
    const trm_tensor *in = &io->in[0];
    trm_tensor out = {.rank = 0};

    for (int i = 0; i < in->rank; i++) {
        if (reduced[i] && !keep)
            continue;
        out.dims[out.rank++] = reduced[i] ? 1 : in->dims[i];
    }
    trmi_shape_out(io, k, dtype, &out);
}

trm_status trmi_rule_reduce(trmi_io io)
{
    bool keep = trm_attr_int(&io->node->attrs, "keepdims", 1) != 0, known;
    bool reduced[TRM_RANK_MAX] = {false};
    trm_tensor out = io->in[0];

    trmi_shape_out_dims(io, 0, trmi_shape_dtype(io, 0), -1, NULL);
    if (out.rank < 0) {
        if (!keep && !trmi_shape_has(io, 1))
            trmi_shape_out_dims(io, 0, trmi_shape_dtype(io, 0), 0, NULL);
        return TRM_OK;
    }
    TRM_CHECK(reduced_axes(io, out.rank, reduced, &known));
    if (known) {
        put_reduced(io, 0, trmi_shape_dtype(io, 0), reduced, keep);
    } else if (keep) { /* the rank stays, which dims become 1 is open */
        for (int i = 0; i < out.rank; i++)
            out.dims[i] = out.dims[i] == 1 ? 1 : TRM_DIM_UNKNOWN;
        trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    } else if (trmi_shape_length(io, 1) >= 0 && trmi_shape_length(io, 1) <= out.rank) {
        out.rank -= (int)trmi_shape_length(io, 1);
        for (int i = 0; i < out.rank; i++)
            out.dims[i] = TRM_DIM_UNKNOWN;
        trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    }
    /* ReduceProd of a shape: the element count */
    if (io->node->op == TRM_OP_ReduceProd && out.rank == 1 && known && reduced[0]) {
        trmi_elems e, r = {.count = 1};
        int64_t p = 1;

        if (trmi_shape_elems(io, 0, &e)) {
            for (int i = 0; i < e.count; i++)
                p = trmi_shape_op(io, '*', p, trmi_elem_dim(&e, i));
            trmi_elem_set(&r, 0, p);
            trmi_shape_out_elems(io, 0, &r);
        }
    }
    return TRM_OK;
}

trm_status trmi_rule_arg_reduce(trmi_io io)
{
    bool reduced[TRM_RANK_MAX] = {false};
    int rank = trmi_shape_rank(io, 0), axis;

    trmi_shape_out_dims(io, 0, TRM_DTYPE_I64, -1, NULL);
    if (rank < 0)
        return TRM_OK;
    TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", 0), rank, &axis));
    reduced[axis] = true;
    put_reduced(io, 0, TRM_DTYPE_I64, reduced, trm_attr_int(&io->node->attrs, "keepdims", 1) != 0);
    return TRM_OK;
}

trm_status trmi_rule_top_k(trmi_io io)
{
    trm_tensor out = io->in[0];
    trmi_elems e;
    int axis;

    if (out.rank >= 0) {
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", -1), out.rank, &axis));
        if (trmi_shape_elems(io, 1, &e) && e.count == 1) {
            if (e.kind[0] == TRMI_ELEM_EXACT &&
                (e.v[0] < 0 || (out.dims[axis] >= 0 && e.v[0] > out.dims[axis])))
                return trmi_shape_bad(io, "k is %lld, want 0 to the %lld elements of axis %d",
                                      (long long)e.v[0], (long long)out.dims[axis], axis);
            out.dims[axis] = trmi_elem_dim(&e, 0);
        } else {
            out.dims[axis] = TRM_DIM_UNKNOWN;
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &out);
    trmi_shape_out(io, 1, TRM_DTYPE_I64, &out);
    return TRM_OK;
}

trm_status trmi_rule_non_zero(trmi_io io)
{
    int rank = trmi_shape_rank(io, 0);
    int64_t dims[2] = {rank < 0 ? TRM_DIM_UNKNOWN : rank, TRM_DIM_UNKNOWN};

    trmi_shape_out_dims(io, 0, TRM_DTYPE_I64, 2, dims);
    return TRM_OK;
}

trm_status trmi_rule_unique(trmi_io io)
{
    const trm_attr *attr = trm_attr_find(&io->node->attrs, "axis");
    trm_tensor y = io->in[0];
    int64_t unknown = TRM_DIM_UNKNOWN, inverse = TRM_DIM_UNKNOWN;
    int axis;

    if (attr == NULL) {
        if (y.rank >= 0)
            inverse = trmi_shape_product(io, &y, 0, y.rank);
        y.rank = 1;
        y.dims[0] = TRM_DIM_UNKNOWN;
    } else if (y.rank >= 0) {
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", 0), y.rank, &axis));
        inverse = y.dims[axis];
        y.dims[axis] = TRM_DIM_UNKNOWN;
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &y);
    trmi_shape_out_dims(io, 1, TRM_DTYPE_I64, 1, &unknown);
    trmi_shape_out_dims(io, 2, TRM_DTYPE_I64, 1, &inverse);
    trmi_shape_out_dims(io, 3, TRM_DTYPE_I64, 1, &unknown);
    return TRM_OK;
}

trm_status trmi_rule_compress(trmi_io io)
{
    const trm_attr *attr = trm_attr_find(&io->node->attrs, "axis");
    trm_tensor y = io->in[0];
    int axis;

    TRM_CHECK(trmi_shape_want_rank(io, 1, 1));
    if (attr == NULL) {
        y.rank = 1;
        y.dims[0] = TRM_DIM_UNKNOWN;
    } else if (y.rank >= 0) {
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", 0), y.rank, &axis));
        y.dims[axis] = TRM_DIM_UNKNOWN;
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &y);
    return TRM_OK;
}

/* boxes [batch, boxes, 4], scores [batch, classes, boxes]. */
trm_status trmi_rule_nms(trmi_io io)
{
    const trm_tensor *boxes = &io->in[0], *scores = &io->in[1];
    int64_t dims[2] = {TRM_DIM_UNKNOWN, 3}, same;

    TRM_CHECK(trmi_shape_want_rank(io, 0, 3));
    TRM_CHECK(trmi_shape_want_rank(io, 1, 3));
    if (boxes->rank == 3 && trmi_shape_differ(boxes->dims[2], 4))
        return trmi_shape_bad(io, "the last dim of the boxes must be 4");
    if (boxes->rank == 3 && scores->rank == 3) {
        TRM_CHECK(trmi_shape_same(io, "batch", boxes->dims[0], scores->dims[0], &same));
        TRM_CHECK(trmi_shape_same(io, "boxes", boxes->dims[1], scores->dims[2], &same));
    }
    trmi_shape_out_dims(io, 0, TRM_DTYPE_I64, 2, dims);
    return TRM_OK;
}
