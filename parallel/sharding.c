/* The object that says what may be split, and the arithmetic of parts. */
#include "parallel/sharding_impl.h"

#include "parallel/comm.h"

trm_status trm_sharding_create(trm_graph *g, const trm_tensor *descs, int ranks,
                               trm_sharding **sharding_out)
{
    trm_arena *arena = NULL;
    trm_sharding *s;
    trm_status st;

    if (ranks < 1 || ranks > TRM_COMM_RANKS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "a tensor group of %d ranks, want 1 to %d", ranks,
                        TRM_COMM_RANKS_MAX);
    TRM_CHECK(trm_arena_create((size_t)256 << 10, &arena));
    s = (trm_sharding *)trm_arena_alloc(arena, 1, sizeof(*s));
    if (s == NULL)
        goto no_memory;
    s->graph = g;
    s->ranks = ranks;
    s->descs = descs;
    s->arena = arena;
    s->axes = (trm_axes *)trm_arena_alloc(arena, (size_t)g->node_count + 1, sizeof(trm_axes));
    s->splits = (trm_split(*)[TRM_RANK_MAX])trm_arena_alloc(arena, (size_t)g->value_count + 1,
                                                            sizeof(*s->splits));
    if (s->axes == NULL || s->splits == NULL)
        goto no_memory;
    for (int n = 0; n < g->node_count; n++)
        TRM_TRY(st, trm_rules_axes(g, n, descs, arena, &s->axes[n]), fail);
    TRM_TRY(st, trmi_split_analysis(s), fail);
    *sharding_out = s;
    return TRM_OK;

no_memory:
    st = trm_fail(TRM_ERR_NO_MEMORY, "sharding of '%s'", g->name);
fail:
    trm_arena_destroy(arena);
    return st;
}

void trm_sharding_destroy(trm_sharding *s)
{
    if (s != NULL)
        trm_arena_destroy(s->arena); /* which holds s */
}

/* ---- strategies ---- */

int trm_sharding_strategy_count(const trm_sharding *s, int node)
{
    return 1 + s->axes[node].axis_count + s->axes[node].linear_count;
}

bool trm_sharding_can_split(const trm_sharding *s, int value, int dim)
{
    return value != TRM_NO_VALUE && dim >= 0 && dim < TRM_RANK_MAX &&
           s->splits[value][dim].count > 0;
}

static bool carried_possible(const trm_sharding *s, const int *values, const trm_axis_dim *dims,
                             int count)
{
    for (int i = 0; i < count; i++)
        if (values[i] != TRM_NO_VALUE && dims[i].dim >= 0 &&
            !trm_sharding_can_split(s, values[i], dims[i].dim))
            return false;
    return true;
}

bool trm_sharding_possible(const trm_sharding *s, int node, int strategy)
{
    const trm_node *n = &s->graph->nodes[node];
    const trm_axis *axis;

    if (strategy < 0 || strategy >= trm_sharding_strategy_count(s, node))
        return false;
    axis = trmi_axis_of(&s->axes[node], strategy);
    return axis == NULL || (carried_possible(s, n->inputs, axis->in, n->input_count) &&
                            carried_possible(s, n->outputs, axis->out, n->output_count));
}

static trm_form form_of(const trm_axis_dim *d)
{
    if (d->dim >= 0)
        return (trm_form)((int)TRM_FORM_SPLIT + d->dim);
    return d->dim == TRM_AXIS_ADDED ? TRM_FORM_PARTIAL : TRM_FORM_WHOLE;
}

trm_form trm_sharding_wants(const trm_sharding *s, int node, int strategy, int input)
{
    const trm_axes *a = &s->axes[node];
    const trm_axis *axis = trmi_axis_of(a, strategy);

    if (axis != NULL)
        return form_of(&axis->in[input]);
    if (!trmi_is_linear(a, strategy))
        return TRM_FORM_WHOLE;
    return input < 32 && (a->linear_inputs[strategy - 1 - a->axis_count] >> input & 1)
               ? TRM_FORM_PARTIAL
               : TRM_FORM_WHOLE;
}

trm_form trm_sharding_yields(const trm_sharding *s, int node, int strategy, int output)
{
    const trm_axes *a = &s->axes[node];
    const trm_axis *axis = trmi_axis_of(a, strategy);

    if (axis != NULL)
        return axis->sum ? TRM_FORM_PARTIAL : form_of(&axis->out[output]);
    return trmi_is_linear(a, strategy) ? TRM_FORM_PARTIAL : TRM_FORM_WHOLE;
}

/* A dim that carries all of the axis: (value, dim), or none. */
static const trm_split *full_carrier(const trm_sharding *s, const int *values,
                                     const trm_axis_dim *dims, int count, int64_t extent,
                                     int64_t *per_out)
{
    for (int i = 0; i < count; i++)
        if (values[i] != TRM_NO_VALUE && dims[i].dim >= 0 && dims[i].length == extent) {
            *per_out = dims[i].scale * dims[i].repeat;
            return &s->splits[values[i]][dims[i].dim];
        }
    return NULL;
}

/* The split of an axis, and how many elements of the dim one of its own is. */
static const trm_split *split_of(const trm_sharding *s, int node, const trm_axis *axis,
                                 int64_t *per_out)
{
    const trm_node *n = &s->graph->nodes[node];
    const trm_split *split =
        full_carrier(s, n->inputs, axis->in, n->input_count, axis->extent, per_out);

    return split != NULL
               ? split
               : full_carrier(s, n->outputs, axis->out, n->output_count, axis->extent, per_out);
}

int64_t trmi_axis_part(const trm_sharding *s, int node, const trm_axis *axis, int rank)
{
    int64_t per = 1;
    const trm_split *split = split_of(s, node, axis, &per);

    return split == NULL ? axis->extent : trm_split_part(split, s->ranks, rank) / per;
}

int64_t trmi_axis_begin(const trm_sharding *s, int node, const trm_axis *axis, int rank)
{
    int64_t per = 1, ranges[TRM_SPLIT_STRETCHES_MAX][2];
    const trm_split *split = split_of(s, node, axis, &per);

    if (split == NULL || split->count == 0)
        return 0;
    TRM_ASSERT(split->count == 1);
    trm_split_ranges(split, s->ranks, rank, ranges);
    return ranges[0][0] / per;
}

trmi_leaves trmi_axis_leaves(const trm_sharding *s, int node, const trm_axis *axis, int rank)
{
    trmi_leaves mine = {.all = (int)(axis->extent / axis->unit)};

    for (int r = 0; r < s->ranks; r++) {
        trm_tree_part parts[TRM_TREE_PARTS_MAX];
        int first = (int)(trmi_axis_begin(s, node, axis, r) / axis->unit);
        int count = (int)(trmi_axis_part(s, node, axis, r) / axis->unit);
        int nodes = trm_tree_parts(first, count, mine.all, parts);

        mine.most = nodes > mine.most ? nodes : mine.most;
        if (r == rank) {
            mine.first = first;
            mine.count = count;
        }
    }
    return mine;
}

double trm_sharding_largest(const trm_sharding *s, int node, int strategy)
{
    const trm_axis *axis = trmi_axis_of(&s->axes[node], strategy);
    int64_t most = 0;

    if (axis == NULL)
        return 1;
    for (int r = 0; r < s->ranks; r++) {
        int64_t part = trmi_axis_part(s, node, axis, r);

        most = part > most ? part : most;
    }
    return (double)most / (double)axis->extent;
}

/* ---- parts ---- */

int64_t trm_split_part(const trm_split *split, int ranks, int rank)
{
    int64_t part = 0;

    for (int i = 0; i < split->count; i++)
        part += trmi_stretch_part(&split->stretches[i], ranks, rank);
    return part;
}

int64_t trmi_split_before(const trm_split *split, int ranks, int rank, int64_t border)
{
    int64_t at = 0, part = 0;

    for (int i = 0; i < split->count && at < border; i++) {
        at += split->stretches[i].units * split->stretches[i].unit;
        part += trmi_stretch_part(&split->stretches[i], ranks, rank);
    }
    return part;
}

void trm_split_sizes(const trm_split *split, int ranks, int64_t *sizes_out)
{
    for (int i = 0; i < split->count; i++)
        for (int r = 0; r < ranks; r++)
            sizes_out[i * ranks + r] = trmi_stretch_part(&split->stretches[i], ranks, r);
}

void trm_split_ranges(const trm_split *split, int ranks, int rank, int64_t (*ranges_out)[2])
{
    int64_t at = 0;

    for (int i = 0; i < split->count; i++) {
        const trm_stretch *t = &split->stretches[i];

        ranges_out[i][0] = at + t->units * rank / ranks * t->unit;
        ranges_out[i][1] = at + t->units * (rank + 1) / ranks * t->unit;
        at += t->units * t->unit;
    }
}

trm_tensor trm_sharding_local(const trm_sharding *s, int value, trm_form form, int rank)
{
    trm_tensor t = s->descs[value];

    if (form >= TRM_FORM_SPLIT) {
        int d = (int)form - (int)TRM_FORM_SPLIT;

        t.dims[d] = trm_split_part(&s->splits[value][d], s->ranks, rank);
        t.data = NULL;
    }
    return t;
}

/* ---- changing forms ---- */

trm_change trm_form_change(uint32_t have, trm_form want)
{
    trm_form split = TRM_FORM_WHOLE; /* the first split form that exists */
    bool whole = have & 1u;

    if (have >> want & 1u)
        return (trm_change){want, TRM_OP_NONE};
    for (int f = TRM_FORM_COUNT - 1; f >= (int)TRM_FORM_SPLIT; f--)
        if (have >> f & 1u)
            split = (trm_form)f;
    if (want == TRM_FORM_WHOLE)
        return split != TRM_FORM_WHOLE ? (trm_change){split, TRM_OP_TrmAllGather}
                                       : (trm_change){TRM_FORM_PARTIAL, TRM_OP_TrmAllReduce};
    if (whole)
        return (trm_change){TRM_FORM_WHOLE,
                            want == TRM_FORM_PARTIAL ? TRM_OP_Where : TRM_OP_TrmShard};
    if (want == TRM_FORM_PARTIAL)
        return (trm_change){split, TRM_OP_TrmAllGather};
    if (split != TRM_FORM_WHOLE)
        return (trm_change){split, TRM_OP_TrmAllToAll};
    return (trm_change){TRM_FORM_PARTIAL, TRM_OP_TrmReduceScatter}; /* the only form there is */
}
