/* Pipeline stages: a stretch of nodes as a graph of its own. */
#include "parallel/lower_impl.h"

#include "model/shape/shape.h"

typedef struct cutting {
    const trm_graph *g;
    trm_graph *cut;
    int begin, end;
    int *local;                  /* [value of g], or TRM_NO_VALUE */
    unsigned char *here, *later; /* read by nodes of the stretch; by what comes after it */
} cutting;

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "cutting a stage");
}

static void find_readers(cutting *c)
{
    for (int n = c->begin; n < c->g->node_count; n++)
        for (int i = 0; i < c->g->nodes[n].input_count; i++)
            if (c->g->nodes[n].inputs[i] != TRM_NO_VALUE)
                (n < c->end ? c->here : c->later)[c->g->nodes[n].inputs[i]] = 1;
    for (int i = 0; i < c->g->output_count; i++)
        c->later[c->g->outputs[i]] = 1;
}

static bool made_before(const cutting *c, int v)
{
    return !trm_graph_is_constant(c->g, v) && c->g->values[v].producer < c->begin;
}

static trm_status value_of(cutting *c, int v, int *out)
{
    const trm_value *from;

    *out = TRM_NO_VALUE;
    if (v == TRM_NO_VALUE)
        return TRM_OK;
    from = &c->g->values[v];
    if (c->local[v] == TRM_NO_VALUE) {
        if (trm_graph_is_constant(c->g, v))
            TRM_CHECK(trm_graph_add_part(c->cut, from->name, c->g, v, -1, NULL, 0, &c->local[v]));
        else
            TRM_CHECK(trm_graph_add_value(c->cut, from->name, &from->desc, &c->local[v]));
    }
    *out = c->local[v];
    return TRM_OK;
}

static trm_status add_nodes(cutting *c)
{
    for (int n = c->begin; n < c->end; n++) {
        const trm_node *from = &c->g->nodes[n];
        int *ids = (int *)trm_arena_alloc(
            c->cut->arena, (size_t)from->input_count + (size_t)from->output_count + 1, sizeof(int));
        int at;

        if (ids == NULL)
            return no_memory();
        if (from->op == TRM_OP_NONE)
            continue;
        for (int i = 0; i < from->input_count; i++)
            TRM_CHECK(value_of(c, from->inputs[i], &ids[i]));
        for (int i = 0; i < from->output_count; i++)
            TRM_CHECK(value_of(c, from->outputs[i], &ids[from->input_count + i]));
        TRM_CHECK(trm_graph_add_node(c->cut, from->op, from->name, ids, from->input_count,
                                     ids + from->input_count, from->output_count, &at));
        TRM_CHECK(trmi_copy_attrs(c->cut, &c->cut->nodes[at], &from->attrs));
        for (int i = 0; i < from->post_count; i++)
            c->cut->nodes[at].posts[i] = from->posts[i];
        c->cut->nodes[at].post_count = from->post_count;
    }
    return TRM_OK;
}

/* The first stage has all inputs of the graph, the last all its outputs, in the graph's order. */
static trm_status add_ends(cutting *c)
{
    const trm_graph *g = c->g;
    bool first = c->begin == 0, last = c->end == g->node_count;
    int *in = (int *)trm_arena_alloc(c->cut->arena, (size_t)g->value_count + 1, sizeof(int));
    int *out = (int *)trm_arena_alloc(
        c->cut->arena, (size_t)g->value_count + (size_t)g->output_count + 1, sizeof(int));
    int in_count = 0, out_count = 0;

    if (in == NULL || out == NULL)
        return no_memory();
    for (int i = 0; first && i < g->input_count; i++)
        TRM_CHECK(value_of(c, g->inputs[i], &in[in_count++]));
    for (int v = 0; v < g->value_count; v++) {
        bool before = made_before(c, v);
        bool result = g->values[v].producer >= c->begin && g->values[v].producer < c->end;

        if (!first && before && (c->here[v] || c->later[v]))
            TRM_CHECK(value_of(c, v, &in[in_count++]));
        if (!last && (before || result) && c->later[v])
            TRM_CHECK(value_of(c, v, &out[out_count++]));
    }
    for (int i = 0; last && i < g->output_count; i++)
        TRM_CHECK(value_of(c, g->outputs[i], &out[out_count++]));
    TRM_CHECK(trm_graph_set_inputs(c->cut, in, in_count));
    return trm_graph_set_outputs(c->cut, out, out_count);
}

trm_status trm_lower_cut(const trm_graph *g, int begin, int end, trm_graph **cut_out)
{
    cutting c = {.g = g, .begin = begin, .end = end};
    trm_status st;

    if (begin < 0 || end < begin || end > g->node_count)
        return trm_fail(TRM_ERR_INVALID_ARG, "a stage of nodes [%d, %d) of %d", begin, end,
                        g->node_count);
    TRM_CHECK(trmi_graph_like(g, &c.cut));
    c.local = (int *)trm_arena_alloc(c.cut->arena, (size_t)g->value_count + 1, sizeof(int));
    c.here = (unsigned char *)trm_arena_alloc(c.cut->arena, (size_t)g->value_count + 1, 1);
    c.later = (unsigned char *)trm_arena_alloc(c.cut->arena, (size_t)g->value_count + 1, 1);
    if (c.local == NULL || c.here == NULL || c.later == NULL) {
        st = no_memory();
        goto fail;
    }
    for (int v = 0; v < g->value_count; v++)
        c.local[v] = TRM_NO_VALUE;
    find_readers(&c);
    TRM_TRY(st, add_ends(&c), fail);
    TRM_TRY(st, add_nodes(&c), fail);
    TRM_TRY(st, trm_graph_sort(c.cut), fail);
    TRM_TRY(st, trm_graph_infer(c.cut), fail);
    *cut_out = c.cut;
    return TRM_OK;
fail:
    trm_graph_destroy(c.cut);
    return st;
}
