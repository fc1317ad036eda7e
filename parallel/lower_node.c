/* One node of a rank's graph: attributes and shape inputs that name extents become local ones, and
 * what reports extents reports the whole. Most operators need nothing of this. */
#include "parallel/lower_impl.h"

#include <string.h>

typedef struct lowering {
    trmi_lower *lw;
    const trm_node *n;
    int node; /* of the whole graph */
    const trm_axis *axis;
    trm_op op;
    int *in; /* local values; room for three more than the node has */
    int in_count;
    int *out;
} lowering;

typedef trm_status (*adjust)(lowering *l);

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "lowering");
}

static const trm_tensor *desc(const lowering *l, int value)
{
    return &l->lw->g->values[value].desc;
}

static const char *name(const lowering *l)
{
    return l->lw->g->values[l->n->outputs[0]].name;
}

static bool has(const lowering *l, int i)
{
    return i < l->n->input_count && l->n->inputs[i] != TRM_NO_VALUE;
}

static void set_input(lowering *l, int i, int value)
{
    while (l->in_count <= i)
        l->in[l->in_count++] = TRM_NO_VALUE;
    l->in[i] = value;
}

static int64_t element(const trm_tensor *t, int i)
{
    int64_t wide = 0;
    int32_t narrow = 0;

    if (t->dtype == TRM_DTYPE_I64) {
        memcpy(&wide, (const unsigned char *)t->data + 8 * i, 8);
        return wide;
    }
    memcpy(&narrow, (const unsigned char *)t->data + 4 * i, 4);
    return narrow;
}

static int64_t part_of(const lowering *l, int value, int dim)
{
    return trm_split_part(&l->lw->s->splits[value][dim], l->lw->s->ranks, l->lw->rank);
}

static int64_t axis_part(const lowering *l)
{
    return trmi_axis_part(l->lw->s, l->node, l->axis, l->lw->rank);
}

/* ---- shape inputs ---- */

/* x[i] becomes becomes[i] where that is not -1: by a mask, since x is known only when it runs. */
static trm_status mask(lowering *l, int x, const int64_t *becomes, int count, int out)
{
    int64_t keep[TRM_RANK_MAX], add[TRM_RANK_MAX];
    int in[2] = {x, 0}, kept;
    trm_tensor t = l->lw->local->values[x].desc;

    for (int i = 0; i < count; i++) {
        keep[i] = becomes[i] < 0;
        add[i] = becomes[i] < 0 ? 0 : becomes[i];
    }
    t.data = NULL;
    TRM_CHECK(trmi_lower_ints(l->lw, name(l), "mask", keep, count, &in[1]));
    TRM_CHECK(trmi_lower_value(l->lw, name(l), "kept", &t, &kept));
    TRM_CHECK(trmi_lower_add(l->lw, TRM_OP_Mul, name(l), in, 2, kept, NULL));
    in[0] = kept;
    TRM_CHECK(trmi_lower_ints(l->lw, name(l), "extents", add, count, &in[1]));
    return trmi_lower_add(l->lw, TRM_OP_Add, name(l), in, 2, out, NULL);
}

/* Shape input i, whose last entries stand for the dims of output 0, with local extents where they
 * are constants: entries of 0 and -1 among them then mean what they say, and a split dim has its
 * part. The rest stays as it is. */
static trm_status local_shape(lowering *l, int i)
{
    int y = l->n->outputs[0], value = l->n->inputs[i], made;
    trm_tensor local = trmi_lower_desc(l->lw, y, (trm_form)(TRM_FORM_SPLIT + l->axis->out[0].dim));
    const trm_tensor *shape = desc(l, value);
    int count = shape->rank == 1 && shape->dims[0] >= 0 ? (int)shape->dims[0] : local.rank;
    int64_t entries[TRM_RANK_MAX];
    bool all = true;

    if (count > local.rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "plan: '%s': a shape of %d entries for %d dims",
                        l->n->name, count, local.rank);
    for (int k = 0; k < count; k++) {
        int64_t dim = local.dims[local.rank - count + k];

        entries[k] = dim >= 0 ? dim : -1;
        all = all && dim >= 0;
        if (dim < 0 && shape->data != NULL)
            entries[k] = element(shape, k);
    }
    if (all || shape->data != NULL) {
        TRM_CHECK(trmi_lower_ints(l->lw, name(l), "shape", entries, count, &made));
    } else {
        trm_tensor t = {.dtype = TRM_DTYPE_I64, .rank = 1, .dims = {count}};

        TRM_CHECK(trmi_lower_value(l->lw, name(l), "shape", &t, &made));
        TRM_CHECK(mask(l, l->in[i], entries, count, made));
    }
    set_input(l, i, made);
    return TRM_OK;
}

static trm_status adjust_shape1(lowering *l)
{
    return l->axis->out[0].dim < 0 ? TRM_OK : local_shape(l, 1);
}

/* sizes: of all dims; of named ones, which are not split, they stay */
static trm_status adjust_resize(lowering *l)
{
    bool named = trm_attr_find(&l->n->attrs, "axes") != NULL;

    return named || !has(l, 3) || l->axis->out[0].dim < 0 ? TRM_OK : local_shape(l, 3);
}

/* Without axes, a part of one element would go too. */
static trm_status adjust_squeeze(lowering *l)
{
    const trm_tensor *x = desc(l, l->n->inputs[0]);
    int64_t axes[TRM_RANK_MAX];
    int count = 0, made;

    if (has(l, 1))
        return TRM_OK;
    for (int d = 0; d < x->rank; d++)
        if (x->dims[d] == 1)
            axes[count++] = d;
    TRM_CHECK(trmi_lower_ints(l->lw, name(l), "axes", axes, count, &made));
    set_input(l, 1, made);
    return TRM_OK;
}

static trm_status adjust_split(lowering *l)
{
    int d = l->axis->in[0].dim, rank = desc(l, l->n->inputs[0])->rank, made;
    int64_t axis = trm_attr_int(&l->n->attrs, "axis", 0), *sizes;

    if (d != (axis < 0 ? axis + rank : axis))
        return TRM_OK;
    sizes = (int64_t *)trm_arena_alloc(l->lw->local->arena, (size_t)l->n->output_count,
                                       sizeof(int64_t));
    if (sizes == NULL)
        return no_memory();
    for (int k = 0; k < l->n->output_count; k++) /* absent ones have an extent too: see the rule */
        sizes[k] = part_of(l, l->n->outputs[k], d);
    TRM_CHECK(trmi_lower_ints(l->lw, name(l), "sizes", sizes, l->n->output_count, &made));
    set_input(l, 1, made);
    return TRM_OK;
}

static trm_status adjust_slice(lowering *l)
{
    const trm_axis_dim *cut = &l->axis->out[0];
    const trm_split *split;
    int64_t entries[2][TRM_RANK_MAX];
    int x = l->n->inputs[0], count, made;

    if (cut->length == l->axis->extent && cut->offset == 0) {
        bool named_end = false; /* a full range by clamping stays full */
        const trm_tensor *starts = desc(l, l->n->inputs[1]), *ends = desc(l, l->n->inputs[2]);
        bool both = starts->data != NULL && ends->data != NULL;

        for (int i = 0; both && i < (int)trm_tensor_numel(ends); i++)
            named_end |= element(ends, i) < 0 || element(starts, i) != 0;
        if (!named_end)
            return TRM_OK;
    }
    split = &l->lw->s->splits[x][cut->dim];
    if (desc(l, l->n->inputs[1])->data == NULL || desc(l, l->n->inputs[2])->data == NULL)
        return TRM_OK; /* the rule offered a dim that is not touched */
    count = (int)trm_tensor_numel(desc(l, l->n->inputs[1]));
    for (int i = 0; i < count; i++) {
        int64_t axis = has(l, 3) ? element(desc(l, l->n->inputs[3]), i) : i;

        axis = axis < 0 ? axis + desc(l, x)->rank : axis;
        for (int side = 0; side < 2; side++)
            entries[side][i] = axis == cut->dim
                                   ? trmi_split_before(split, l->lw->s->ranks, l->lw->rank,
                                                       cut->offset + (side ? cut->length : 0))
                                   : element(desc(l, l->n->inputs[1 + side]), i);
    }
    TRM_CHECK(trmi_lower_ints(l->lw, name(l), "starts", entries[0], count, &made));
    set_input(l, 1, made);
    TRM_CHECK(trmi_lower_ints(l->lw, name(l), "ends", entries[1], count, &made));
    set_input(l, 2, made);
    if (has(l, 3)) { /* may have been 32 bits wide, as the others are not any more */
        for (int i = 0; i < count; i++)
            entries[0][i] = element(desc(l, l->n->inputs[3]), i);
        TRM_CHECK(trmi_lower_ints(l->lw, name(l), "axes", entries[0], count, &made));
        set_input(l, 3, made);
    }
    if (has(l, 4)) {
        for (int i = 0; i < count; i++)
            entries[0][i] = element(desc(l, l->n->inputs[4]), i);
        TRM_CHECK(trmi_lower_ints(l->lw, name(l), "steps", entries[0], count, &made));
        set_input(l, 4, made);
    }
    return TRM_OK;
}

/* Only the rows this rank has; the rest is zero, and other ranks add it. */
static trm_status adjust_gather(lowering *l)
{
    if (l->axis->sum)
        l->op = TRM_OP_TrmGatherPart;
    return TRM_OK;
}

static trm_status adjust_paged_attention(lowering *l)
{
    return l->axis->in[1].dim >= 0 ? TRM_OK : trmi_lower_kv(l->lw, l->node, l->axis, l->in);
}

/* ---- attributes, set after the node exists ---- */

static trm_status set_int(lowering *l, trm_node *n, const char *attr, int64_t v)
{
    return trm_attr_find(&n->attrs, attr) == NULL
               ? TRM_OK
               : trm_attr_set_int(&n->attrs, l->lw->local->arena, attr, v);
}

static trm_status set_attrs(lowering *l, trm_node *n)
{
    const trm_axis *a = l->axis;
    const trm_split *split;
    int64_t ranges[TRM_SPLIT_STRETCHES_MAX][2], kv;
    int x;

    switch (l->op) {
    case TRM_OP_Conv:
    case TRM_OP_ConvTranspose:
    case TRM_OP_QLinearConv:
    case TRM_OP_ConvInteger:
        if (a->in[0].dim == 1 && !a->sum)
            return set_int(l, n, "group", axis_part(l));
        return TRM_OK;
    case TRM_OP_GroupNormalization:
        return a->in[0].dim == 1 ? set_int(l, n, "num_groups", axis_part(l)) : TRM_OK;
    case TRM_OP_RotaryEmbedding:
        return set_int(l, n, "num_heads", axis_part(l));
    case TRM_OP_Attention:
        if (a->in[0].dim == 0)
            return TRM_OK;
        kv = trm_attr_int(&n->attrs, "kv_num_heads", 1);
        if (a->in[1].dim < 0) /* keys and values are whole */
            return set_int(l, n, "q_num_heads", axis_part(l) * kv);
        TRM_CHECK(set_int(l, n, "q_num_heads",
                          axis_part(l) * (trm_attr_int(&n->attrs, "q_num_heads", 1) / kv)));
        return set_int(l, n, "kv_num_heads", axis_part(l));
    case TRM_OP_TrmPagedAttention:
        return trmi_lower_heads(l->lw, l->node, a, n);
    case TRM_OP_Split:
        if (l->in_count > 1 && l->in[1] != TRM_NO_VALUE)
            trm_attr_remove(&n->attrs, "num_outputs");
        return TRM_OK;
    case TRM_OP_TrmGatherPart:
        x = l->n->inputs[0];
        split = &l->lw->s->splits[x][a->in[0].dim];
        trm_split_ranges(split, l->lw->s->ranks, l->lw->rank, ranges);
        TRM_CHECK(trm_attr_set_int(&n->attrs, l->lw->local->arena, "axis", a->in[0].dim));
        TRM_CHECK(trm_attr_set_int(&n->attrs, l->lw->local->arena, "extent", a->extent));
        return trm_attr_set_ints(&n->attrs, l->lw->local->arena, "ranges", &ranges[0][0],
                                 2 * (size_t)split->count);
    default:
        return TRM_OK;
    }
}

static const adjust adjusts[TRM_OP_COUNT] = {
    [TRM_OP_Reshape] = adjust_shape1, [TRM_OP_Expand] = adjust_shape1,
    [TRM_OP_Resize] = adjust_resize,  [TRM_OP_Squeeze] = adjust_squeeze,
    [TRM_OP_Split] = adjust_split,    [TRM_OP_Slice] = adjust_slice,
    [TRM_OP_Gather] = adjust_gather,  [TRM_OP_TrmPagedAttention] = adjust_paged_attention,
};

/* ---- results that are corrected after the node ---- */

/* The node writes to a value of its own, *made_out; what reads `out` comes after it. */
static trm_status before_correction(lowering *l, int *out, int *made_out)
{
    trm_tensor t = l->lw->local->values[*out].desc;

    TRM_CHECK(trmi_lower_value(l->lw, name(l), "local", &t, made_out));
    return TRM_OK;
}

/* ReduceMean over a part is the mean of the part: its share of the whole mean is part / extent. */
static trm_status correct_mean(lowering *l, int from, int to)
{
    trm_dtype dtype = desc(l, l->n->outputs[0])->dtype;
    int64_t room[1] = {0};
    trm_tensor share = {.dtype = dtype, .rank = 0, .data = room};
    int in[2] = {from, 0};

    trm_tensor_set_f64(&share, 0, (double)axis_part(l) / (double)l->axis->extent);
    TRM_CHECK(trmi_lower_constant(l->lw, name(l), "share", &share, &in[1]));
    return trmi_lower_add(l->lw, TRM_OP_Mul, name(l), in, 2, to, NULL);
}

static trm_status correct_shape(lowering *l, int from, int to)
{
    int rank = desc(l, l->n->inputs[0])->rank, d = l->axis->in[0].dim;
    int64_t start = trm_attr_int(&l->n->attrs, "start", 0);
    int64_t stop = trm_attr_int(&l->n->attrs, "end", rank), becomes[TRM_RANK_MAX];

    start = start < 0 ? start + rank : start;
    stop = stop < 0 ? stop + rank : stop;
    start = start < 0 ? 0 : start > rank ? rank : start;
    stop = stop < start ? start : stop > rank ? rank : stop;
    for (int64_t i = start; i < stop; i++)
        becomes[i - start] = i == d ? l->axis->extent : -1;
    return mask(l, from, becomes, (int)(stop - start), to);
}

static trm_status correct_size(lowering *l, int from, int to)
{
    int64_t part = axis_part(l), whole = l->axis->extent;
    trm_tensor t = {.dtype = TRM_DTYPE_I64, .rank = 0, .data = &part};
    int in[2] = {from, 0}, rest;

    TRM_CHECK(trmi_lower_constant(l->lw, name(l), "part", &t, &in[1]));
    t.data = NULL;
    TRM_CHECK(trmi_lower_value(l->lw, name(l), "rest", &t, &rest));
    TRM_CHECK(trmi_lower_add(l->lw, TRM_OP_Div, name(l), in, 2, rest, NULL));
    t.data = &whole;
    in[0] = rest;
    TRM_CHECK(trmi_lower_constant(l->lw, name(l), "extent", &t, &in[1]));
    return trmi_lower_add(l->lw, TRM_OP_Mul, name(l), in, 2, to, NULL);
}

typedef trm_status (*correct)(lowering *l, int from, int to);

static correct correction(const lowering *l)
{
    if (l->axis == NULL)
        return NULL;
    if (l->op == TRM_OP_ReduceMean && l->axis->sum)
        return correct_mean;
    if (l->op == TRM_OP_Shape)
        return correct_shape;
    return l->op == TRM_OP_Size ? correct_size : NULL;
}

/* ---- the node ---- */

static trm_status add_node(lowering *l)
{
    correct fix = correction(l);
    int first = l->n->output_count > 0 ? l->out[0] : TRM_NO_VALUE, node;
    trm_node *n;

    if (fix != NULL)
        TRM_CHECK(before_correction(l, &first, &l->out[0]));
    TRM_CHECK(trm_graph_add_node(l->lw->local, l->op, l->n->name, l->in, l->in_count, l->out,
                                 l->n->output_count, &node));
    n = &l->lw->local->nodes[node];
    TRM_CHECK(trmi_copy_attrs(l->lw->local, n, &l->n->attrs));
    memcpy(n->posts, l->n->posts, sizeof(n->posts));
    n->post_count = l->n->post_count;
    if (l->axis != NULL)
        TRM_CHECK(set_attrs(l, n));
    return fix == NULL ? TRM_OK : fix(l, l->out[0], first);
}

trm_status trmi_lower_node(trmi_lower *lw, int node, int strategy)
{
    const trm_node *n = &lw->g->nodes[node];
    lowering l = {.lw = lw,
                  .n = n,
                  .node = node,
                  .axis = trmi_axis_of(&lw->s->axes[node], strategy),
                  .op = n->op,
                  .in_count = n->input_count};

    l.in = (int *)trm_arena_alloc(lw->local->arena, (size_t)n->input_count + 4, sizeof(int));
    l.out = (int *)trm_arena_alloc(lw->local->arena, (size_t)n->output_count + 1, sizeof(int));
    if (l.in == NULL || l.out == NULL)
        return no_memory();
    for (int i = 0; i < n->input_count; i++) {
        l.in[i] = TRM_NO_VALUE;
        if (n->inputs[i] != TRM_NO_VALUE)
            TRM_CHECK(trmi_lower_form(lw, n->inputs[i],
                                      trm_sharding_wants(lw->s, node, strategy, i), &l.in[i]));
    }
    for (int k = 0; k < n->output_count; k++) {
        l.out[k] = TRM_NO_VALUE;
        if (n->outputs[k] != TRM_NO_VALUE)
            TRM_CHECK(trmi_lower_result(lw, n->outputs[k],
                                        trm_sharding_yields(lw->s, node, strategy, k), &l.out[k]));
    }
    if (l.axis != NULL && adjusts[n->op] != NULL)
        TRM_CHECK(adjusts[n->op](&l));
    if (l.axis != NULL && l.axis->tree)
        return trmi_lower_tree(lw, node, l.axis, l.in, l.out[0]);
    if (l.axis != NULL && l.axis->reductions > 0)
        return trmi_lower_norm(lw, node, l.axis, l.in, l.out[0]);
    return add_node(&l);
}
