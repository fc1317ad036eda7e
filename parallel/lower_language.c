/* Operators of language models with local extents, and their sums over ranks: a rank's part of a
 * sum is the nodes of the summation tree that its leaves make (base/tree.h), one behind the other,
 * and TrmReduceTree makes the whole of them. A bias is added after that. */
#include "parallel/lower_impl.h"

#include "base/tree.h"

static trm_status set(trmi_lower *lw, trm_node *n, const char *name, int64_t value)
{
    return trm_attr_set_int(&n->attrs, lw->local->arena, name, value);
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
    if (!biased)
        return TRM_OK;
    operands[0] = sum;
    operands[1] = in[2];
    return trmi_lower_add(lw, TRM_OP_Add, n->name, operands, 2, out, NULL);
}

trm_status trmi_lower_heads(trmi_lower *lw, int node, const trm_axis *axis, trm_node *n)
{
    int64_t part = trmi_axis_part(lw->s, node, axis, lw->rank);
    int64_t heads = trm_attr_int(&n->attrs, "heads", 1),
            kv = trm_attr_int(&n->attrs, "kv_heads", 1);

    TRM_CHECK(set(lw, n, "group", trm_attr_int(&n->attrs, "group", heads / kv)));
    if (axis->in[1].dim < 0) { /* keys and values are whole */
        TRM_CHECK(set(lw, n, "heads", part));
        return set(lw, n, "first_head", trmi_axis_begin(lw->s, node, axis, lw->rank));
    }
    TRM_CHECK(set(lw, n, "heads", part * (heads / kv)));
    return set(lw, n, "kv_heads", part);
}
