/* Operators of language models with local extents, and their sums over ranks: a rank's part of a
 * sum is the nodes of the summation tree that its leaves make (base/tree.h), one behind the other,
 * and TrmReduceTree makes the whole of them. A bias is added after that. */
#include "parallel/lower_impl.h"

#include "base/tree.h"
#include "parallel/comm.h"

static trm_status set(trmi_lower *lw, trm_node *n, const char *name, int64_t value)
{
    return trm_attr_set_int(&n->attrs, lw->local->arena, name, value);
}

/* Leaves of every rank, in rank order: devices that add among themselves ask nobody for them. */
static trm_status set_counts(trmi_lower *lw, int node, const trm_axis *axis, trm_node *n)
{
    int64_t counts[TRM_COMM_RANKS_MAX];

    if (lw->s->ranks > TRM_COMM_RANKS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "plan: '%s': a sum over %d ranks", n->name,
                        lw->s->ranks);
    for (int r = 0; r < lw->s->ranks; r++)
        counts[r] = trmi_axis_leaves(lw->s, node, axis, r).count;
    return trm_attr_set_ints(&n->attrs, lw->local->arena, "counts", counts, (size_t)lw->s->ranks);
}

trm_status trmi_lower_tree(trmi_lower *lw, int node, const trm_axis *axis, const int *in, int out)
{
    const trm_node *n = &lw->g->nodes[node];
    const char *base = lw->g->values[n->outputs[0]].name;
    trmi_leaves mine = trmi_axis_leaves(lw->s, node, axis, lw->rank);
    bool linear = n->op == TRM_OP_TrmLinear;
    bool biased = linear && n->input_count > 2 && in[2] != TRM_NO_VALUE;
    trm_tensor whole = lw->local->values[out].desc, parts = whole;
    trm_tree_part nodes[TRM_TREE_PARTS_MAX];
    int made, sum = out, at, operands[2];

    if (whole.rank < 0 || whole.rank >= TRM_RANK_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "plan: '%s': a sum of rank %d", n->name, whole.rank);
    parts.rank = whole.rank + 1;
    parts.dims[0] = trm_tree_parts(mine.first, mine.count, mine.all, nodes);
    for (int d = 0; d < whole.rank; d++)
        parts.dims[d + 1] = whole.dims[d];
    TRM_CHECK(trmi_lower_value(lw, base, "nodes", &parts, &made));
    TRM_CHECK(trmi_lower_add(lw, n->op, n->name, in, linear ? 2 : n->input_count, made, &at));
    TRM_CHECK(trmi_copy_attrs(lw->local, &lw->local->nodes[at], &n->attrs));
    TRM_CHECK(set(lw, &lw->local->nodes[at], "leaves", mine.all));
    TRM_CHECK(
        set(lw, &lw->local->nodes[at], "first", linear ? mine.first : mine.first * axis->unit));

    if (biased)
        TRM_CHECK(trmi_lower_value(lw, base, "sum", &whole, &sum));
    TRM_CHECK(trmi_lower_add(lw, TRM_OP_TrmReduceTree, n->name, &made, 1, sum, &at));
    TRM_CHECK(set(lw, &lw->local->nodes[at], "ranks", lw->s->ranks));
    TRM_CHECK(set(lw, &lw->local->nodes[at], "rank", lw->rank));
    TRM_CHECK(set(lw, &lw->local->nodes[at], "leaves", mine.all));
    TRM_CHECK(set(lw, &lw->local->nodes[at], "first", mine.first));
    TRM_CHECK(set(lw, &lw->local->nodes[at], "count", mine.count));
    TRM_CHECK(set(lw, &lw->local->nodes[at], "most", mine.most));
    TRM_CHECK(set_counts(lw, node, axis, &lw->local->nodes[at]));
    if (!biased)
        return TRM_OK;
    operands[0] = sum;
    operands[1] = in[2];
    return trmi_lower_add(lw, TRM_OP_Add, n->name, operands, 2, out, NULL);
}

/* ---- attention ---- */

static int64_t group_of(const trm_attrs *attrs)
{
    return trm_attr_int(attrs, "group",
                        trm_attr_int(attrs, "heads", 1) / trm_attr_int(attrs, "kv_heads", 1));
}

/* The key and value heads that the query heads of `rank` read: [*first, *first + count). */
static int64_t heads_read(const trmi_lower *lw, int node, const trm_axis *axis, int rank,
                          int64_t *first_out)
{
    int64_t group = group_of(&lw->g->nodes[node].attrs);
    int64_t begin = trmi_axis_begin(lw->s, node, axis, rank);
    int64_t end = begin + trmi_axis_part(lw->s, node, axis, rank);

    *first_out = begin / group;
    return (end - 1) / group - begin / group + 1;
}

trm_status trmi_lower_kv(trmi_lower *lw, int node, const trm_axis *axis, int *in)
{
    const trm_node *n = &lw->g->nodes[node];
    int64_t kv = trm_attr_int(&n->attrs, "kv_heads", 1), first, one = 1;
    int64_t head = trm_attr_int(&n->attrs, "head_dim", 1);
    bool all = true;

    for (int r = 0; r < lw->s->ranks; r++) /* the same nodes on every rank */
        all = all && heads_read(lw, node, axis, r, &first) == kv;
    for (int i = 1; i < 3 && !all; i++) {
        const char *base = lw->local->values[in[i]].name;
        trm_tensor part = lw->local->values[in[i]].desc;
        int64_t count = heads_read(lw, node, axis, lw->rank, &first);
        int64_t ends[2] = {first * head, (first + count) * head};
        int operands[4] = {in[i], TRM_NO_VALUE, TRM_NO_VALUE, TRM_NO_VALUE};

        TRM_CHECK(trmi_lower_ints(lw, base, "heads begin", &ends[0], 1, &operands[1]));
        TRM_CHECK(trmi_lower_ints(lw, base, "heads end", &ends[1], 1, &operands[2]));
        TRM_CHECK(trmi_lower_ints(lw, base, "columns", &one, 1, &operands[3]));
        part.dims[1] = count * head;
        TRM_CHECK(trmi_lower_value(lw, base, "heads", &part, &in[i]));
        TRM_CHECK(trmi_lower_add(lw, TRM_OP_Slice, n->name, operands, 4, in[i], NULL));
    }
    return TRM_OK;
}

trm_status trmi_lower_heads(trmi_lower *lw, int node, const trm_axis *axis, trm_node *n)
{
    int64_t part = trmi_axis_part(lw->s, node, axis, lw->rank), first;
    int64_t group = group_of(&lw->g->nodes[node].attrs);

    TRM_CHECK(set(lw, n, "group", group));
    if (axis->in[1].dim >= 0) {
        TRM_CHECK(set(lw, n, "heads", part * group));
        return set(lw, n, "kv_heads", part);
    }
    TRM_CHECK(set(lw, n, "heads", part));
    TRM_CHECK(set(lw, n, "kv_heads", heads_read(lw, node, axis, lw->rank, &first)));
    return set(lw, n, "first_head", trmi_axis_begin(lw->s, node, axis, lw->rank));
}
