/* From a plan to the graph of one place, the same on every rank; and what tells that two ranks mean
 * the same model. */
#include "model/passes/passes.h"
#include "parallel/lower.h"
#include "parallel/planner_impl.h"
#include "parallel/shapes.h"

#include <string.h>

/* ---- the hash ---- */

static uint64_t mix(uint64_t h, const void *data, size_t bytes)
{
    const unsigned char *b = data;

    for (size_t i = 0; i < bytes; i++)
        h = (h ^ b[i]) * 0x100000001b3u; /* FNV-1a */
    return h;
}

static uint64_t mix_int(uint64_t h, int64_t value)
{
    unsigned char b[8];

    for (int i = 0; i < 8; i++)
        b[i] = (unsigned char)((uint64_t)value >> (8 * i));
    return mix(h, b, 8);
}

static uint64_t mix_text(uint64_t h, const char *text)
{
    return mix(h, text, strlen(text) + 1);
}

static uint64_t mix_desc(uint64_t h, const trm_tensor *t)
{
    h = mix_int(mix_int(h, (int64_t)t->dtype), t->rank);
    for (int i = 0; i < t->rank; i++)
        h = mix_int(h, t->dims[i]);
    return h;
}

static uint64_t mix_graph(uint64_t h, const trm_graph *g);

static uint64_t mix_attr(uint64_t h, const trm_attr *a)
{
    h = mix_int(mix_text(h, a->name), (int64_t)a->kind);
    switch (a->kind) {
    case TRM_ATTR_INT:
        return mix_int(h, a->v.i);
    case TRM_ATTR_FLOAT:
        return mix(h, &a->v.f, sizeof(float));
    case TRM_ATTR_STRING:
        return mix_text(h, a->v.s);
    case TRM_ATTR_INTS:
        h = mix_int(h, (int64_t)a->count);
        for (size_t i = 0; i < a->count; i++)
            h = mix_int(h, a->v.ints[i]);
        return h;
    case TRM_ATTR_FLOATS:
        return mix(h, a->v.floats, a->count * sizeof(float));
    case TRM_ATTR_STRINGS:
        for (size_t i = 0; i < a->count; i++)
            h = mix_text(h, a->v.strings[i]);
        return h;
    case TRM_ATTR_TENSOR:
        return mix_desc(h, a->v.tensor);
    case TRM_ATTR_GRAPH:
        return mix_graph(h, a->v.graph);
    }
    return h;
}

/* Where a weight lies says which it is without reading it. Folded floats may differ in their last
 * bits between processors, so only folded integers (shapes, indices) count by content. */
static uint64_t mix_value(uint64_t h, const trm_graph *g, int v)
{
    const trm_value *value = &g->values[v];
    bool exact = value->desc.dtype == TRM_DTYPE_I64 || value->desc.dtype == TRM_DTYPE_I32;

    h = mix_desc(mix_text(h, value->name), &value->desc);
    if (value->desc.data == NULL)
        return h;
    h = mix_int(mix_int(h, (int64_t)value->bytes), value->lazy != NULL);
    if (value->file != NULL)
        return mix_int(h, (int64_t)value->file_offset);
    return exact && value->lazy == NULL && value->bytes <= 4096
               ? mix(h, value->desc.data, value->bytes)
               : h;
}

static uint64_t mix_ints(uint64_t h, const int *values, int count)
{
    h = mix_int(h, count);
    for (int i = 0; i < count; i++)
        h = mix_int(h, values[i]);
    return h;
}

static uint64_t mix_graph(uint64_t h, const trm_graph *g)
{
    for (int v = 0; v < g->value_count; v++)
        h = mix_value(h, g, v);
    for (int n = 0; n < g->node_count; n++) {
        const trm_node *node = &g->nodes[n];

        h = mix_text(h, trm_op_get(node->op)->name);
        h = mix_ints(h, node->inputs, node->input_count);
        h = mix_ints(h, node->outputs, node->output_count);
        for (int i = 0; i < node->attrs.count; i++)
            h = mix_attr(h, &node->attrs.items[i]);
    }
    return mix_ints(mix_ints(h, g->inputs, g->input_count), g->outputs, g->output_count);
}

uint64_t trm_plan_graph_hash(const trm_graph *g)
{
    return mix_graph(0xcbf29ce484222325u, g);
}

/* ---- the graph of a place ---- */

static trm_status check_plan(const trm_plan *plan, const trm_graph *g)
{
    if (plan->node_count != g->node_count || plan->input_count != g->input_count ||
        plan->graph_hash != trm_plan_graph_hash(g))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "the plan is for another model than '%s' (%d nodes, this has %d): do all "
                        "ranks read the same file?",
                        g->name, plan->node_count, g->node_count);
    return TRM_OK;
}

trm_status trmi_plan_sharding(const trm_plan *plan, trm_graph *g, trm_arena *arena,
                              trm_sharding **sharding_out)
{
    trm_tensor *descs = trm_arena_alloc(arena, (size_t)g->value_count + 1, sizeof(trm_tensor));
    trm_sharding *s = NULL;

    *sharding_out = NULL;
    TRM_CHECK(check_plan(plan, g));
    if (plan->parallel.tensor == 1)
        return TRM_OK;
    if (descs == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "plan of %d nodes", g->node_count);
    TRM_CHECK(trm_shapes_bind(g, plan->inputs, arena, descs));
    TRM_CHECK(trm_sharding_create(g, descs, plan->parallel.tensor, &s));
    for (int n = 0; n < g->node_count; n++) {
        if (!trm_sharding_possible(s, n, plan->strategy[n])) {
            trm_sharding_destroy(s);
            return trm_fail(TRM_ERR_INVALID_ARG, "the plan asks for strategy %d of node '%s'",
                            plan->strategy[n], g->nodes[n].name);
        }
    }
    *sharding_out = s;
    return TRM_OK;
}

trm_status trmi_plan_lower(const trm_plan *plan, trm_graph *g, int shard, trm_graph **local_out)
{
    trm_arena *arena = NULL;
    trm_sharding *s = NULL;
    trm_graph *local = NULL;
    trm_status st;

    TRM_CHECK(trm_arena_create(0, &arena));
    TRM_TRY(st, trmi_plan_sharding(plan, g, arena, &s), done);
    TRM_TRY(st, trmi_division_lower(g, s, plan->strategy, shard, &local), done);
    if (plan->stages.cuts[plan->stages.count] != local->node_count) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "the plan ends at node %d of %d",
                      plan->stages.cuts[plan->stages.count], local->node_count);
        goto done;
    }
    *local_out = local;
    local = NULL;
done:
    trm_graph_destroy(local);
    trm_sharding_destroy(s);
    trm_arena_destroy(arena);
    return st;
}

trm_status trm_plan_graph(const trm_plan *plan, trm_graph *g, int stage, int shard,
                          trm_graph **local_out)
{
    trm_graph *whole = NULL, *local = NULL;
    trm_status st;

    if (stage < 0 || stage >= plan->parallel.pipeline || shard < 0 ||
        shard >= plan->parallel.tensor)
        return trm_fail(TRM_ERR_INVALID_ARG, "stage %d, shard %d of a plan of %d x %d", stage,
                        shard, plan->parallel.pipeline, plan->parallel.tensor);
    TRM_TRY(st, trmi_plan_lower(plan, g, shard, &whole), done);
    if (plan->parallel.pipeline == 1) {
        local = whole;
        whole = NULL;
    } else {
        TRM_TRY(
            st,
            trm_lower_cut(whole, plan->stages.cuts[stage], plan->stages.cuts[stage + 1], &local),
            done);
        trm_graph_keep(local, whole); /* small parts of weights lie in its arena */
        whole = NULL;
    }
    TRM_TRY(st, trm_pass_finish(local), done);
    *local_out = local;
    local = NULL;
done:
    trm_graph_destroy(local);
    trm_graph_destroy(whole);
    return st;
}
