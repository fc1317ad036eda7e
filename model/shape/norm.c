/* Rules of normalisations, softmax, cumulative sums and losses: the data's shape, with checks. */
#include "model/shape/rule.h"

/* Operators with attribute `axis` that keep the shape. */
trm_status trmi_rule_axis_like(trmi_io io)
{
    int rank = trmi_shape_rank(io, 0), axis;

    /* a scalar has one axis of one element here, as in NumPy's atleast_1d; axis is its only element
     */
    if (rank > 0)
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", -1), rank, &axis));
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    return TRM_OK;
}

trm_status trmi_rule_cumulative(trmi_io io)
{
    int rank = trmi_shape_rank(io, 0), axis;
    int64_t value;

    if (rank >= 0 && trmi_shape_scalar(io, 1, &value))
        TRM_CHECK(trmi_shape_axis(io, value, rank, &axis));
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    return TRM_OK;
}

/* Inputs [first, last] are vectors over the channels, dim 1 of the data. */
static trm_status check_channels(trmi_io io, int first, int last, int64_t *channels_out)
{
    int64_t channels = TRM_DIM_UNKNOWN;
    int rank = trmi_shape_rank(io, 0);

    if (rank >= 2)
        channels = io->in[0].dims[1];
    else if (rank >= 0 && rank < 2 && io->node->op != TRM_OP_BatchNormalization)
        return trmi_shape_bad(io, "the data has rank %d, want at least 2", rank);
    else if (rank >= 0)
        channels = 1; /* the channel dim of a vector is taken as 1 */
    for (int i = first; i <= last; i++) {
        TRM_CHECK(trmi_shape_want_rank(io, i, 1));
        if (trmi_shape_rank(io, i) == 1)
            TRM_CHECK(trmi_shape_same(io, "channels", channels, io->in[i].dims[0], &channels));
    }
    *channels_out = channels;
    return TRM_OK;
}

trm_status trmi_rule_batch_norm(trmi_io io)
{
    int64_t channels;

    TRM_CHECK(check_channels(io, 1, 4, &channels));
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    for (int k = 1; k < 3; k++)
        trmi_shape_out_dims(io, k, trmi_shape_dtype(io, k + 2), 1, &channels);
    return TRM_OK;
}

/* InstanceNormalization, GroupNormalization. */
trm_status trmi_rule_channel_norm(trmi_io io)
{
    int64_t channels, groups = trm_attr_int(&io->node->attrs, "num_groups", 1), same;
    bool per_group = trm_attr_int(&io->node->attrs, "per_group", 0) != 0; /* opset 18 */

    TRM_CHECK(check_channels(io, 1, per_group ? 0 : 2, &channels));
    for (int i = 1; i <= 2 && per_group; i++)
        if (trmi_shape_rank(io, i) == 1)
            TRM_CHECK(trmi_shape_same(io, "groups", groups, io->in[i].dims[0], &same));
    if (io->node->op == TRM_OP_GroupNormalization &&
        (groups < 1 || (channels >= 0 && channels % groups != 0)))
        return trmi_shape_bad(io, "num_groups %lld must divide the channels", (long long)groups);
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    return TRM_OK;
}

/* Scale and bias broadcast to the data; mean and inverse deviation keep the dims before `axis`. */
static trm_status normalize_last(trmi_io io, int vectors)
{
    int rank = trmi_shape_rank(io, 0), axis = 0;
    int64_t stash = trm_attr_int(&io->node->attrs, "stash_type", 1);
    trm_tensor kept = io->in[0];

    if (rank >= 0) {
        TRM_CHECK(trmi_shape_axis(io, trm_attr_int(&io->node->attrs, "axis", -1), rank, &axis));
        for (int i = 1; i <= vectors; i++) {
            trm_tensor shape = io->in[0];

            if (!trmi_shape_has(io, i))
                continue;
            TRM_CHECK(trmi_shape_broadcast(io, &shape, &io->in[i]));
            if (shape.rank > rank)
                return trmi_shape_bad(io, "input %d has more dims than the data", i);
            for (int d = 0; d < shape.rank; d++)
                if (trmi_shape_differ(shape.dims[d], io->in[0].dims[d]))
                    return trmi_shape_bad(io, "input %d does not broadcast to the data", i);
        }
        for (int d = axis; d < rank; d++)
            kept.dims[d] = 1;
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    for (int k = 1; k < 3; k++)
        trmi_shape_out(io, k, trm_dtype_from_onnx(stash), &kept);
    return TRM_OK;
}

trm_status trmi_rule_layer_norm(trmi_io io)
{
    return normalize_last(io, 2);
}

trm_status trmi_rule_rms_norm(trmi_io io)
{
    return normalize_last(io, 1);
}

/* scores [N, C, d1 ...], target [N, d1 ...], weight [C]. */
static trm_status check_loss(trmi_io io, trm_tensor *per_item)
{
    int rank = trmi_shape_rank(io, 0);

    *per_item = (trm_tensor){.rank = -1};
    if (rank < 0) {
        *per_item = io->in[1];
        return TRM_OK;
    }
    if (rank < 2)
        return trmi_shape_bad(io, "scores have rank %d, want at least 2", rank);
    TRM_CHECK(trmi_shape_want_rank(io, 1, rank - 1));
    per_item->rank = rank - 1;
    for (int i = 0; i < rank - 1; i++) {
        per_item->dims[i] = io->in[0].dims[i == 0 ? 0 : i + 1];
        if (trmi_shape_rank(io, 1) >= 0)
            TRM_CHECK(trmi_shape_same(io, "dims of scores and target", per_item->dims[i],
                                      io->in[1].dims[i], &per_item->dims[i]));
    }
    if (trmi_shape_has(io, 2)) {
        int64_t classes;

        TRM_CHECK(trmi_shape_want_rank(io, 2, 1));
        if (trmi_shape_rank(io, 2) == 1)
            TRM_CHECK(
                trmi_shape_same(io, "classes", io->in[0].dims[1], io->in[2].dims[0], &classes));
    }
    return TRM_OK;
}

static bool is_none(const char *s)
{
    return s[0] == 'n' && s[1] == 'o' && s[2] == 'n';
}

trm_status trmi_rule_nll_loss(trmi_io io)
{
    trm_tensor shape;

    TRM_CHECK(check_loss(io, &shape));
    if (!is_none(trm_attr_string(&io->node->attrs, "reduction", "mean")))
        shape.rank = 0;
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &shape);
    return TRM_OK;
}

trm_status trmi_rule_softmax_loss(trmi_io io)
{
    TRM_CHECK(trmi_rule_nll_loss(io));
    trmi_shape_out(io, 1, trmi_shape_dtype(io, 0), &io->in[0]);
    return TRM_OK;
}
