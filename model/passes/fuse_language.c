/* Operators of language models that read or make the same rows become one (kernels/language.h):
 * fewer kernels in a step, and rows that pass memory once.
 *
 *   TrmRope(q), TrmRope(k) -> TrmPagedAttention      TrmPagedAttention with rope
 *   x -> TrmLinear, TrmLinear -> TrmGated            TrmLinears, gated
 *   x -> TrmLinear, 2 to 4 times                     TrmLinears
 *   Add(x, y) -> TrmNorm of whole rows               TrmAddNorm, the sum being its output 0
 *   TrmReduceTree -> TrmAddNorm(x, that)             TrmReduceTree with residual and norm
 *
 * Each computes, element by element, what its parts do: a graph gives the same bits fused and
 * unfused. Products of a rank's leaves (attribute `unit`) stay as they are. */
#include "model/passes/rewrite.h"

#include <string.h>

#define LINEARS_MAX 4

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "fusing operators of language models");
}

/* Node `node` makes these values, whose makers so far have been removed. */
static trm_status set_outputs(trmi_rw *rw, int node, const int *outputs, int count)
{
    trm_node *n = &rw->g->nodes[node];
    int *copy = (int *)trm_arena_alloc(rw->g->arena, (size_t)count, sizeof(int));

    if (copy == NULL)
        return no_memory();
    for (int i = 0; i < count; i++) {
        copy[i] = outputs[i];
        rw->g->values[outputs[i]].producer = node;
    }
    n->outputs = copy;
    n->output_count = count;
    return TRM_OK;
}

/* ---- rope ---- */

static bool same_text(const trm_attrs *a, const trm_attrs *b, const char *name)
{
    return strcmp(trm_attr_string(a, name, ""), trm_attr_string(b, name, "")) == 0;
}

/* The TrmRope that makes input i of attention `node`, for it alone; NULL: none. */
static const trm_node *rope_of(const trmi_rw *rw, int node, int i)
{
    const trm_node *n = &rw->g->nodes[node];
    const trm_node *rope = trmi_rw_made_by(rw, n->inputs[i], TRM_OP_TrmRope);

    if (rope == NULL || trmi_rw_reader(rw, n->inputs[i]) != node || rope->input_count != 3 ||
        trm_attr_int(&rope->attrs, "head_dim", 0) != trm_attr_int(&n->attrs, "head_dim", 0))
        return NULL;
    return rope;
}

static trm_status fuse_rope(trmi_rw *rw, int node)
{
    trm_graph *g = rw->g;
    const trm_node *q = rope_of(rw, node, 0), *k = rope_of(rw, node, 1);
    int64_t interleaved;
    int makers[2];
    float scale;

    if (q == NULL || k == NULL || g->nodes[node].input_count > 5 || q->inputs[1] != k->inputs[1] ||
        q->inputs[2] != k->inputs[2])
        return TRM_OK;
    interleaved = trm_attr_int(&q->attrs, "interleaved", 0);
    scale = trm_attr_float(&q->attrs, "scale", 1.0F);
    if ((interleaved != 0) != (trm_attr_int(&k->attrs, "interleaved", 0) != 0) ||
        scale != trm_attr_float(&k->attrs, "scale", 1.0F))
        return TRM_OK;
    TRM_CHECK(trmi_rw_pad_inputs(rw, node, 5));
    TRM_CHECK(trmi_rw_append_input(rw, node, q->inputs[1]));
    TRM_CHECK(trmi_rw_append_input(rw, node, q->inputs[2]));
    if (interleaved != 0)
        TRM_CHECK(trm_attr_set_int(&g->nodes[node].attrs, g->arena, "rope_interleaved", 1));
    if (scale != 1.0F)
        TRM_CHECK(trm_attr_set_float(&g->nodes[node].attrs, g->arena, "rope_scale", scale));
    for (int i = 0; i < 2; i++)
        makers[i] = g->values[g->nodes[node].inputs[i]].producer;
    for (int i = 0; i < 2; i++) {
        trmi_rw_set_input(rw, node, i, g->nodes[makers[i]].inputs[0]);
        trmi_rw_remove(rw, makers[i]);
    }
    return TRM_OK;
}

/* ---- products of one input ---- */

static bool is_biased(const trm_node *n)
{
    return n->input_count > 2 && n->inputs[2] != TRM_NO_VALUE;
}

static bool is_plain_linear(const trm_graph *g, const trm_node *n)
{
    return n->op == TRM_OP_TrmLinear && n->post_count == 0 && n->input_count >= 2 &&
           trm_attr_int(&n->attrs, "unit", 0) == 0 && trm_attr_find(&n->attrs, "leaves") == NULL &&
           trm_graph_is_constant(g, n->inputs[1]);
}

static bool are_alike(const trm_graph *g, const trm_node *a, const trm_node *b)
{
    return a->inputs[0] == b->inputs[0] && is_biased(a) == is_biased(b) &&
           g->values[a->inputs[1]].desc.dtype == g->values[b->inputs[1]].desc.dtype &&
           (trm_attr_int(&a->attrs, "transposed", 0) != 0) ==
               (trm_attr_int(&b->attrs, "transposed", 0) != 0) &&
           same_text(&a->attrs, &b->attrs, "act");
}

/* The products become node `into`, one of them or the TrmGated that reads them, and are removed.
 * Its outputs are the caller's to set. */
static trm_status join(trmi_rw *rw, const int *linears, int count, int into)
{
    trm_graph *g = rw->g;
    const trm_node *first = &g->nodes[linears[0]];
    bool biased = is_biased(first), transposed = trm_attr_int(&first->attrs, "transposed", 0) != 0;
    const char *act = trm_attr_string(&first->attrs, "act", NULL);
    int inputs[1 + 2 * LINEARS_MAX] = {first->inputs[0]};
    trm_attrs *attrs = &g->nodes[into].attrs;

    for (int i = 0; i < count; i++) {
        inputs[1 + i] = g->nodes[linears[i]].inputs[1];
        if (biased)
            inputs[1 + count + i] = g->nodes[linears[i]].inputs[2];
    }
    for (int i = 0; i < count; i++)
        if (linears[i] != into)
            trmi_rw_remove(rw, linears[i]);
    TRM_CHECK(
        trmi_rw_become(rw, into, TRM_OP_TrmLinears, inputs, biased ? 1 + 2 * count : 1 + count));
    TRM_CHECK(trm_attr_set_int(attrs, g->arena, "n", count));
    if (transposed)
        TRM_CHECK(trm_attr_set_int(attrs, g->arena, "transposed", 1));
    if (act != NULL)
        TRM_CHECK(trm_attr_set_string(attrs, g->arena, "act", act));
    return TRM_OK;
}

/* The product that makes input i of `node` for it alone; -1: none. */
static int linear_of(const trmi_rw *rw, int node, int i)
{
    int v = rw->g->nodes[node].inputs[i];
    int made = v == TRM_NO_VALUE ? -1 : rw->g->values[v].producer;

    return made >= 0 && trmi_rw_reader(rw, v) == node && is_plain_linear(rw->g, &rw->g->nodes[made])
               ? made
               : -1;
}

static trm_status fuse_gated(trmi_rw *rw, int node)
{
    trm_graph *g = rw->g;
    const char *act = trm_attr_string(&g->nodes[node].attrs, "act", "none");
    int pair[2];

    if (g->nodes[node].post_count > 0 || g->nodes[node].input_count != 2 ||
        strcmp(act, "softcap") == 0) /* its cap has no attribute here */
        return TRM_OK;
    for (int i = 0; i < 2; i++)
        pair[i] = linear_of(rw, node, i);
    if (pair[0] < 0 || pair[1] < 0 || !are_alike(g, &g->nodes[pair[0]], &g->nodes[pair[1]]))
        return TRM_OK;
    TRM_CHECK(join(rw, pair, 2, node));
    return trm_attr_set_string(&g->nodes[node].attrs, g->arena, "gated", act);
}

static trm_status fuse_linears(trmi_rw *rw, int node, int node_count)
{
    trm_graph *g = rw->g;
    int linears[LINEARS_MAX] = {node}, outputs[LINEARS_MAX], count = 1;

    for (int n = node + 1; n < node_count && count < LINEARS_MAX; n++)
        if (is_plain_linear(g, &g->nodes[n]) && are_alike(g, &g->nodes[node], &g->nodes[n]))
            linears[count++] = n;
    if (count < 2)
        return TRM_OK;
    for (int i = 0; i < count; i++)
        outputs[i] = g->nodes[linears[i]].outputs[0];
    TRM_CHECK(join(rw, linears, count, node));
    return set_outputs(rw, node, outputs, count);
}

/* ---- a sum and its norm ---- */

static trm_status fuse_add_norm(trmi_rw *rw, int node)
{
    trm_graph *g = rw->g;
    trm_node *n = &g->nodes[node];
    const trm_node *add = trmi_rw_made_by(rw, n->inputs[0], TRM_OP_Add);
    const trm_tensor *sum = trmi_desc(g, n->inputs[0]), *gain = trmi_desc(g, n->inputs[1]);
    trm_attrs attrs = n->attrs;
    int inputs[4], outputs[2], count = 3;

    if (add == NULL || n->post_count > 0 || add->input_count != 2 || sum->rank != 2 ||
        sum->dtype != TRM_DTYPE_F32 || gain->rank != 1 || gain->dims[0] != sum->dims[1] ||
        !trmi_same_shape(trmi_desc(g, add->inputs[0]), sum) ||
        !trmi_same_shape(trmi_desc(g, add->inputs[1]), sum))
        return TRM_OK;
    inputs[0] = add->inputs[0];
    inputs[1] = add->inputs[1];
    inputs[2] = n->inputs[1];
    if (n->input_count > 2 && n->inputs[2] != TRM_NO_VALUE)
        inputs[count++] = n->inputs[2];
    outputs[0] = n->inputs[0];
    outputs[1] = n->outputs[0];
    trmi_rw_remove(rw, g->values[outputs[0]].producer);
    TRM_CHECK(trmi_rw_become(rw, node, TRM_OP_TrmAddNorm, inputs, count));
    n->attrs = attrs;
    return set_outputs(rw, node, outputs, 2);
}

/* The sum over ranks that input i of `node` is, for it alone; NULL: it is none. */
static const trm_node *tree_of(const trmi_rw *rw, int node, int i)
{
    const trm_graph *g = rw->g;
    int v = g->nodes[node].inputs[i];
    const trm_node *tree = trmi_rw_made_by(rw, v, TRM_OP_TrmReduceTree);

    return tree != NULL && trmi_rw_reader(rw, v) == node && tree->input_count == 1 &&
                   tree->post_count == 0 && g->values[v].desc.rank == 2
               ? tree
               : NULL;
}

/* Either operand of the addition may be the sum: it commutes. */
static trm_status fuse_tree_norm(trmi_rw *rw, int node)
{
    trm_graph *g = rw->g;
    trm_node *n = &g->nodes[node];
    int at = tree_of(rw, node, 1) != NULL ? 1 : 0, made, inputs[4], count = 3, outputs[2];
    const trm_node *tree = tree_of(rw, node, at);
    const char *kind = trm_attr_string(&n->attrs, "kind", "rms");
    float epsilon = trm_attr_float(&n->attrs, "epsilon", 1e-5F);
    float offset = trm_attr_float(&n->attrs, "offset", 0.0F);
    trm_attrs attrs;

    if (tree == NULL || n->post_count > 0)
        return TRM_OK;
    attrs = tree->attrs;
    made = g->values[n->inputs[at]].producer;
    inputs[0] = tree->inputs[0];
    inputs[1] = n->inputs[1 - at];
    inputs[2] = n->inputs[2];
    if (n->input_count > 3 && n->inputs[3] != TRM_NO_VALUE)
        inputs[count++] = n->inputs[3];
    outputs[0] = n->outputs[0];
    outputs[1] = n->outputs[1];
    trmi_rw_remove(rw, made);
    TRM_CHECK(trmi_rw_become(rw, node, TRM_OP_TrmReduceTree, inputs, count));
    n->attrs = attrs;
    TRM_CHECK(trm_attr_set_string(&n->attrs, g->arena, "kind", kind));
    TRM_CHECK(trm_attr_set_float(&n->attrs, g->arena, "epsilon", epsilon));
    TRM_CHECK(trm_attr_set_float(&n->attrs, g->arena, "offset", offset));
    return set_outputs(rw, node, outputs, 2);
}

trm_status trmi_fuse_language(trmi_rw *rw)
{
    trm_graph *g = rw->g;
    int count = g->node_count; /* nothing is appended: nodes become others */

    /* a pair with its activation first: it is worth more than a place among three others */
    for (int n = 0; n < count; n++)
        if (g->nodes[n].op == TRM_OP_TrmGated)
            TRM_CHECK(fuse_gated(rw, n));
    for (int n = 0; n < count; n++) {
        if (is_plain_linear(g, &g->nodes[n]))
            TRM_CHECK(fuse_linears(rw, n, count));
        else if (g->nodes[n].op == TRM_OP_TrmPagedAttention)
            TRM_CHECK(fuse_rope(rw, n));
        else if (g->nodes[n].op == TRM_OP_TrmNorm)
            TRM_CHECK(fuse_add_norm(rw, n));
        if (g->nodes[n].op == TRM_OP_TrmAddNorm)
            TRM_CHECK(fuse_tree_norm(rw, n));
    }
    return TRM_OK;
}
