/* Transposes and reshapes in a row become one, or none. */
#include "model/passes/rewrite.h"

static bool read_perm(const trm_graph *g, const trm_node *n, int64_t *perm, int *rank_out)
{
    size_t count;
    const int64_t *p = trm_attr_ints(&n->attrs, "perm", &count);
    int rank = trmi_desc(g, n->inputs[0])->rank;

    if (p != NULL)
        rank = count > TRM_RANK_MAX ? -1 : (int)count;
    if (rank < 0)
        return false;
    for (int i = 0; i < rank; i++) {
        perm[i] = p == NULL ? rank - 1 - i : p[i] < 0 ? p[i] + rank : p[i];
        if (perm[i] < 0 || perm[i] >= rank)
            return false;
    }
    *rank_out = rank;
    return true;
}

/* Readers of `from` read `to`; an output of the graph keeps its name through an Identity. */
static trm_status forward(trmi_rw *rw, int node, int from, int to)
{
    if (rw->output[from])
        return trmi_rw_become(rw, node, TRM_OP_Identity, &to, 1);
    trmi_rw_remove(rw, node);
    trm_graph_replace_uses(rw->g, from, to);
    return trmi_rw_recount(rw);
}

static trm_status merge_transpose(trmi_rw *rw, int node)
{
    trm_graph *g = rw->g;
    trm_node *n = &g->nodes[node], *before = trmi_rw_made_by(rw, n->inputs[0], TRM_OP_Transpose);
    int64_t second[TRM_RANK_MAX], first[TRM_RANK_MAX], both[TRM_RANK_MAX];
    int rank, rank_before;
    bool identity = true;

    if (before == NULL || !read_perm(g, n, second, &rank) ||
        !read_perm(g, before, first, &rank_before) || rank != rank_before)
        return TRM_OK;
    for (int i = 0; i < rank; i++) {
        both[i] = first[second[i]];
        identity = identity && both[i] == i;
    }
    if (identity)
        return forward(rw, node, n->outputs[0], before->inputs[0]);
    TRM_CHECK(trm_attr_set_ints(&n->attrs, g->arena, "perm", both, (size_t)rank));
    trmi_rw_set_input(rw, node, 0, before->inputs[0]);
    return TRM_OK;
}

static bool is_view(trm_op op)
{
    return op == TRM_OP_Reshape || op == TRM_OP_Flatten || op == TRM_OP_Squeeze ||
           op == TRM_OP_Unsqueeze;
}

/* A target without zeros does not look at its input's dims, so views before it do not matter. */
static bool plain_target(trmi_rw *rw, const trm_node *n)
{
    trm_tensor t;
    int64_t length;

    if (!trm_graph_is_constant(rw->g, n->inputs[1]) ||
        trm_graph_constant(rw->g, n->inputs[1], &t) != TRM_OK || t.rank != 1)
        return false;
    length = t.dims[0];
    for (int64_t i = 0; i < length; i++)
        if (trm_tensor_get_i64(&t, (size_t)i) == 0)
            return false;
    return true;
}

static trm_status merge_reshape(trmi_rw *rw, int node)
{
    trm_node *n = &rw->g->nodes[node];
    int p = rw->g->values[n->inputs[0]].producer;

    if (p >= 0 && is_view(rw->g->nodes[p].op) && trmi_rw_reader(rw, n->inputs[0]) == node &&
        plain_target(rw, n))
        trmi_rw_set_input(rw, node, 0, rw->g->nodes[p].inputs[0]);
    /* the same shape as where the chain began: nothing is left of it */
    if (trmi_same_shape(trmi_desc(rw->g, n->inputs[0]), trmi_desc(rw->g, n->outputs[0])))
        return forward(rw, node, n->outputs[0], n->inputs[0]);
    return TRM_OK;
}

trm_status trmi_fuse_views(trmi_rw *rw)
{
    for (int n = 0; n < rw->g->node_count; n++) {
        if (rw->g->nodes[n].op == TRM_OP_Transpose)
            TRM_CHECK(merge_transpose(rw, n));
        else if (rw->g->nodes[n].op == TRM_OP_Reshape)
            TRM_CHECK(merge_reshape(rw, n));
    }
    return TRM_OK;
}
