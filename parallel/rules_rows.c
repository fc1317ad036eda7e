/* Operators that work on windows or rows: the dims beside those can be shared. */
#include "parallel/rules_impl.h"

/* The same dim of x and of output 0. */
static trm_axis *same_dim(trmi_rules *r, const char *name, int d, int weight)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    trm_axis *a = x == NULL || d >= x->rank ? NULL : trmi_rules_axis(r, name, x->dims[d], weight);

    trmi_carry_in(r, a, 0, d);
    trmi_carry_out(r, a, 0, d);
    return a;
}

void trmi_rules_pool(trmi_rules *r)
{
    if (r->n->output_count > 1 && r->n->outputs[1] != TRM_NO_VALUE)
        return; /* indices count over all channels */
    same_dim(r, "channels", 1, TRMI_WEIGHT_NONE);
    same_dim(r, "batch", 0, TRMI_WEIGHT_NONE);
}

void trmi_rules_average_pool(trmi_rules *r)
{
    trmi_rules_pool(r);
    trmi_linear(r, 1);
}

void trmi_rules_batch_norm(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);

    if (x == NULL || r->n->output_count > 1 || trm_attr_int(&r->n->attrs, "training_mode", 0) != 0)
        return;
    for (int d = 0; d < x->rank; d++) {
        trm_axis *a = same_dim(r, d == 1 ? "channels" : "elements", d,
                               d == 1 ? TRMI_WEIGHT_CHANNELS : TRMI_WEIGHT_NONE);

        for (int i = 1; i < 5 && d == 1; i++)
            trmi_carry_in(r, a, i, 0);
    }
}

void trmi_rules_instance_norm(trmi_rules *r)
{
    trm_axis *a = same_dim(r, "channels", 1, TRMI_WEIGHT_CHANNELS);

    trmi_carry_in(r, a, 1, 0);
    trmi_carry_in(r, a, 2, 0);
    same_dim(r, "batch", 0, TRMI_WEIGHT_BATCH);
}

void trmi_rules_group_norm(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    int64_t groups = trm_attr_int(&r->n->attrs, "num_groups", 1), channels, params;
    trm_axis *a;

    if (x == NULL || x->rank < 2 || groups < 1 || x->dims[1] < 1)
        return;
    channels = x->dims[1] / groups;
    params = trm_attr_int(&r->n->attrs, "per_group", 0) != 0 ? 1 : channels;
    a = trmi_rules_axis(r, "groups", groups, TRMI_WEIGHT_CHANNELS);
    trmi_scale_in(r, a, 0, 1, channels, 1);
    trmi_scale_in(r, a, 1, 0, params, 1);
    trmi_scale_in(r, a, 2, 0, params, 1);
    trmi_scale_out(r, a, 0, 1, channels, 1);
    same_dim(r, "batch", 0, TRMI_WEIGHT_BATCH);
}

/* LayerNormalization, RMSNormalization: dims before `axis`; mean and deviation have ones after.
 * Dims of a row too, at the price of all-reduces (lower_norm.c). */
void trmi_rules_layer_norm(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    int axis = x == NULL ? -1 : trmi_rules_at(trm_attr_int(&r->n->attrs, "axis", -1), x->rank);

    for (int d = 0; d < axis; d++) {
        trm_axis *a = same_dim(r, "rows", d, TRMI_WEIGHT_NONE);

        for (int i = 1; i < r->n->input_count; i++)
            trmi_broadcast_in(r, a, i, x->rank, d, 1);
        for (int k = 1; k < r->n->output_count; k++)
            trmi_carry_out(r, a, k, d);
    }
    for (int k = 1; k < r->n->output_count; k++)
        if (r->n->outputs[k] != TRM_NO_VALUE)
            return;
    if (axis < 0 || (x->dtype != TRM_DTYPE_F32 && x->dtype != TRM_DTYPE_F64))
        return;
    for (int d = axis; d < x->rank; d++) {
        trm_axis *a = same_dim(r, "features", d, TRMI_WEIGHT_NONE);

        for (int i = 1; i < r->n->input_count; i++)
            trmi_broadcast_in(r, a, i, x->rank, d, 1);
        if (a != NULL)
            a->reductions = r->n->op == TRM_OP_LayerNormalization ? 2 : 1;
    }
}

/* Rows run along `axis`; of older opsets' Softmax along all dims from it on ("flatten"). */
static void dims_but(trmi_rules *r, int axis)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    bool flatten = trm_attr_int(&r->n->attrs, "flatten", 0) != 0;

    for (int d = 0; x != NULL && axis >= 0 && d < x->rank; d++)
        if (flatten ? d < axis : d != axis)
            same_dim(r, "rows", d, TRMI_WEIGHT_NONE);
}

void trmi_rules_rows(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);

    if (x != NULL)
        dims_but(r, trmi_rules_at(trm_attr_int(&r->n->attrs, "axis", -1), x->rank));
}

void trmi_rules_lrn(trmi_rules *r)
{
    dims_but(r, 1);
}

void trmi_rules_mvn(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    size_t count;
    const int64_t *axes = trm_attr_ints(&r->n->attrs, "axes", &count);
    static const int64_t usual[3] = {0, 2, 3};
    uint32_t reduced = 0;

    if (axes == NULL) {
        axes = usual;
        count = 3;
    }
    for (size_t i = 0; x != NULL && i < count; i++) {
        int d = trmi_rules_at(axes[i], x->rank);

        if (d < 0)
            return;
        reduced |= 1u << d;
    }
    for (int d = 0; x != NULL && d < x->rank; d++)
        if (!(reduced >> d & 1u))
            same_dim(r, "rows", d, TRMI_WEIGHT_NONE);
}

/* Axes of a reduction as a mask; false where they are not known. */
static bool reduced_dims(const trmi_rules *r, int rank, uint32_t *mask_out)
{
    int64_t axes[TRM_RANK_MAX];
    int count = trmi_rules_has(r, 1) ? trmi_rules_ints(r, 1, axes, TRM_RANK_MAX) : 0;
    uint32_t mask = 0;

    if (count < 0)
        return false;
    for (int i = 0; i < count; i++) {
        int d = trmi_rules_at(axes[i], rank);

        if (d < 0)
            return false;
        mask |= 1u << d;
    }
    if (count == 0 && trm_attr_int(&r->n->attrs, "noop_with_empty_axes", 0) == 0)
        mask = (1u << rank) - 1;
    *mask_out = mask;
    return true;
}

static void reduce(trmi_rules *r, bool sum)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    bool keep = trm_attr_int(&r->n->attrs, "keepdims", 1) != 0;
    uint32_t reduced;
    int out = 0;

    if (x == NULL || !reduced_dims(r, x->rank, &reduced))
        return;
    for (int d = 0; d < x->rank; d++) {
        bool gone = reduced >> d & 1u;
        trm_axis *a = NULL;

        if (!gone || sum)
            a = trmi_rules_axis(r, gone ? "sum" : "rows", x->dims[d], TRMI_WEIGHT_NONE);
        trmi_carry_in(r, a, 0, d);
        if (!gone)
            trmi_carry_out(r, a, 0, out);
        else if (a != NULL)
            a->sum = true;
        out += !gone || keep;
    }
}

void trmi_rules_reduce(trmi_rules *r)
{
    reduce(r, false);
}

/* Sums over parts add up: ReduceSum, ReduceMean (lowered with a factor), L1, SumSquare. */
void trmi_rules_reduce_sum(trmi_rules *r)
{
    uint32_t reduced;

    reduce(r, true);
    if ((r->n->op == TRM_OP_ReduceSum || r->n->op == TRM_OP_ReduceMean) &&
        trmi_rules_in(r, 0) != NULL && reduced_dims(r, trmi_rules_in(r, 0)->rank, &reduced))
        trmi_linear(r, 1);
}

void trmi_rules_cumsum(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    int64_t axis;

    if (x != NULL && trmi_rules_ints(r, 1, &axis, 1) == 1)
        dims_but(r, trmi_rules_at(axis, x->rank));
}

void trmi_rules_arg(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    bool keep = trm_attr_int(&r->n->attrs, "keepdims", 1) != 0;
    int axis = x == NULL ? -1 : trmi_rules_at(trm_attr_int(&r->n->attrs, "axis", 0), x->rank);

    for (int d = 0; axis >= 0 && d < x->rank; d++) {
        trm_axis *a = d == axis ? NULL : trmi_rules_axis(r, "rows", x->dims[d], TRMI_WEIGHT_NONE);

        trmi_carry_in(r, a, 0, d);
        trmi_carry_out(r, a, 0, d > axis && !keep ? d - 1 : d);
    }
}

/* Batch: x [seq, batch, in], lengths [batch], states [dirs, batch, hidden], y [seq, dirs, batch,
 * hidden]; with layout 1 the batch comes first. */
void trmi_rules_recurrent(trmi_rules *r)
{
    const trm_tensor *x = trmi_rules_in(r, 0);
    bool first = trm_attr_int(&r->n->attrs, "layout", 0) != 0;
    trm_axis *a;

    if (x == NULL || x->rank != 3)
        return;
    a = trmi_rules_axis(r, "batch", x->dims[first ? 0 : 1], TRMI_WEIGHT_BATCH);
    trmi_carry_in(r, a, 0, first ? 0 : 1);
    if (trmi_rules_has(r, 4))
        trmi_carry_in(r, a, 4, 0);
    for (int i = 5; i < 7; i++)
        if (trmi_rules_has(r, i))
            trmi_carry_in(r, a, i, first ? 0 : 1);
    trmi_carry_out(r, a, 0, first ? 0 : 2);
    trmi_carry_out(r, a, 1, first ? 0 : 1);
    trmi_carry_out(r, a, 2, first ? 0 : 1);
}
