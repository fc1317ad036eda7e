/* The rewriter. */
#include "model/passes/rewrite.h"

#include <math.h>
#include <string.h>

#define DEPTH_MAX 32 /* of bodies in bodies */

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "graph pass");
}

static trm_status grow(trmi_rw *rw)
{
    int max = rw->g->value_count + rw->g->value_count / 2 + 64;
    int *uses;
    int64_t *readers;
    bool *output;

    if (rw->g->value_count <= rw->value_max)
        return TRM_OK;
    uses = (int *)trm_realloc(rw->uses, (size_t)max, sizeof(int));
    if (uses != NULL)
        rw->uses = uses;
    readers = (int64_t *)trm_realloc(rw->readers, (size_t)max, sizeof(int64_t));
    if (readers != NULL)
        rw->readers = readers;
    output = (bool *)trm_realloc(rw->output, (size_t)max, sizeof(bool));
    if (output != NULL)
        rw->output = output;
    if (uses == NULL || readers == NULL || output == NULL)
        return no_memory();
    for (int v = rw->value_max; v < max; v++) {
        rw->uses[v] = 0;
        rw->readers[v] = 0;
        rw->output[v] = false;
    }
    rw->value_max = max;
    return TRM_OK;
}

static void read_by(trmi_rw *rw, int node, int value, int sign)
{
    if (value == TRM_NO_VALUE)
        return;
    rw->uses[value] += sign;
    rw->readers[value] += (int64_t)sign * node;
}

trm_status trmi_rw_recount(trmi_rw *rw)
{
    trm_graph *g = rw->g;

    TRM_CHECK(grow(rw));
    for (int v = 0; v < rw->value_max; v++) {
        rw->uses[v] = 0;
        rw->readers[v] = 0;
        rw->output[v] = false;
    }
    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; g->nodes[n].op != TRM_OP_NONE && i < g->nodes[n].input_count; i++)
            read_by(rw, n, g->nodes[n].inputs[i], 1);
    for (int i = 0; i < g->output_count; i++)
        rw->output[g->outputs[i]] = true;
    return TRM_OK;
}

trm_status trmi_rw_init(trmi_rw *rw, trm_graph *g)
{
    memset(rw, 0, sizeof(*rw));
    rw->g = g;
    return trmi_rw_recount(rw);
}

void trmi_rw_fini(trmi_rw *rw)
{
    trm_free(rw->uses);
    trm_free(rw->readers);
    trm_free(rw->output);
    memset(rw, 0, sizeof(*rw));
}

int trmi_rw_reader(const trmi_rw *rw, int value)
{
    if (value == TRM_NO_VALUE || rw->output[value] || rw->uses[value] != 1)
        return -1;
    return (int)rw->readers[value];
}

trm_node *trmi_rw_made_by(const trmi_rw *rw, int value, trm_op op)
{
    int p = value == TRM_NO_VALUE ? -1 : rw->g->values[value].producer;

    return p >= 0 && rw->g->nodes[p].op == op && rw->g->nodes[p].post_count == 0 ? &rw->g->nodes[p]
                                                                                 : NULL;
}

void trmi_rw_set_input(trmi_rw *rw, int node, int i, int value)
{
    trm_node *n = &rw->g->nodes[node];

    read_by(rw, node, n->inputs[i], -1);
    n->inputs[i] = value;
    read_by(rw, node, value, 1);
}

trm_status trmi_rw_append_input(trmi_rw *rw, int node, int value)
{
    TRM_CHECK(trm_node_add_input(rw->g, &rw->g->nodes[node], value));
    read_by(rw, node, value, 1);
    return TRM_OK;
}

trm_status trmi_rw_pad_inputs(trmi_rw *rw, int node, int count)
{
    while (rw->g->nodes[node].input_count < count)
        TRM_CHECK(trmi_rw_append_input(rw, node, TRM_NO_VALUE));
    return TRM_OK;
}

void trmi_rw_remove(trmi_rw *rw, int node)
{
    trm_node *n = &rw->g->nodes[node];

    if (n->op == TRM_OP_NONE)
        return;
    for (int i = 0; i < n->input_count; i++)
        read_by(rw, node, n->inputs[i], -1);
    for (int k = 0; k < n->output_count; k++)
        if (n->outputs[k] != TRM_NO_VALUE && rw->g->values[n->outputs[k]].producer == node)
            rw->g->values[n->outputs[k]].producer = -1;
    n->op = TRM_OP_NONE;
}

void trmi_rw_take_output(trmi_rw *rw, int node, int value)
{
    trm_node *n = &rw->g->nodes[node];

    if (n->outputs[0] != TRM_NO_VALUE)
        rw->g->values[n->outputs[0]].producer = -1;
    n->outputs[0] = value;
    rw->g->values[value].producer = node;
}

trm_status trmi_rw_become(trmi_rw *rw, int node, trm_op op, const int *inputs, int count)
{
    int *copy = (int *)trm_arena_alloc(rw->g->arena, (size_t)count, sizeof(int));
    trm_node *n = &rw->g->nodes[node];

    if (copy == NULL)
        return no_memory();
    for (int i = 0; i < n->input_count; i++)
        read_by(rw, node, n->inputs[i], -1);
    for (int i = 0; i < count; i++) {
        copy[i] = inputs[i];
        read_by(rw, node, inputs[i], 1);
    }
    n->op = op;
    n->inputs = copy;
    n->input_count = count;
    n->output_count = 1;
    n->post_count = 0;
    memset(&n->attrs, 0, sizeof(n->attrs));
    return TRM_OK;
}

trm_status trmi_rw_constant(trmi_rw *rw, const char *base, const trm_tensor *t, int *value_out)
{
    char *name = trm_graph_fresh_name(rw->g, base);

    if (name == NULL)
        return no_memory();
    TRM_CHECK(trm_graph_add_constant(rw->g, name, t, value_out));
    return grow(rw);
}

trm_status trmi_rw_scaled(trmi_rw *rw, int value, const double *scale, int *value_out)
{
    char *name = trm_graph_fresh_name(rw->g, rw->g->values[value].name);

    if (name == NULL)
        return no_memory();
    TRM_CHECK(trm_graph_add_scaled(rw->g, name, value, scale, value_out));
    return grow(rw);
}

trm_status trmi_rw_value(trmi_rw *rw, const char *base, const trm_tensor *desc, int *value_out)
{
    char *name = trm_graph_fresh_name(rw->g, base);

    if (name == NULL)
        return no_memory();
    TRM_CHECK(trm_graph_add_value(rw->g, name, desc, value_out));
    return grow(rw);
}

trm_status trmi_rw_node(trmi_rw *rw, trm_op op, const char *name, const int *inputs,
                        int input_count, int output, int *node_out)
{
    TRM_CHECK(trm_graph_add_node(rw->g, op, name, inputs, input_count, &output, 1, node_out));
    for (int i = 0; i < input_count; i++)
        read_by(rw, *node_out, inputs[i], 1);
    return TRM_OK;
}

bool trmi_scalar(const trm_graph *g, int value, double *out)
{
    const trm_tensor *t;
    trm_tensor copy;
    uint64_t word = 0;
    size_t n;

    if (!trm_graph_is_constant(g, value))
        return false;
    t = &g->values[value].desc;
    if (trm_tensor_elems(t, &n) != TRM_OK || n != 1 || trm_dtype_bytes(t->dtype) > sizeof(word))
        return false;
    memcpy(&word, t->data, trm_dtype_bytes(t->dtype)); /* mapped bytes may be misaligned */
    copy = *t;
    copy.data = &word;
    *out = trm_tensor_get_f64(&copy, 0);
    return true;
}

bool trmi_scalar_is(const trm_graph *g, int value, double want)
{
    double v;

    return trmi_scalar(g, value, &v) && fabs(v - want) <= 1e-3 * fabs(want);
}

bool trmi_with_scalar(const trm_graph *g, const trm_node *n, int *other, double *scalar)
{
    if (n == NULL || n->input_count < 2)
        return false;
    if (trmi_scalar(g, n->inputs[1], scalar)) {
        *other = n->inputs[0];
        return true;
    }
    if ((n->op == TRM_OP_Add || n->op == TRM_OP_Mul) && trmi_scalar(g, n->inputs[0], scalar)) {
        *other = n->inputs[1];
        return true;
    }
    return false;
}

bool trmi_same_shape(const trm_tensor *a, const trm_tensor *b)
{
    if (a->rank < 0 || a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i] || a->dims[i] == TRM_DIM_UNKNOWN)
            return false;
    return true;
}

const trm_tensor *trmi_desc(const trm_graph *g, int value)
{
    static const trm_tensor none = {.rank = -1};

    return value == TRM_NO_VALUE ? &none : &g->values[value].desc;
}

trm_status trmi_each_graph(trm_graph *g, trmi_graph_pass pass, const void *ctx, int depth)
{
    if (depth > DEPTH_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "graph '%s': bodies nested more than %d deep", g->name,
                        DEPTH_MAX);
    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; g->nodes[n].op != TRM_OP_NONE && i < g->nodes[n].attrs.count; i++)
            if (g->nodes[n].attrs.items[i].kind == TRM_ATTR_GRAPH)
                TRM_CHECK(
                    trmi_each_graph(g->nodes[n].attrs.items[i].v.graph, pass, ctx, depth + 1));
    return pass(g, ctx);
}
