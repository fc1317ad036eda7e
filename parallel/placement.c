/* The placement search's entry points, and the cost of given strategies by walking the graph once:
 * the accounting that everything else (search, lowering, tests) is held to. */
#include "parallel/placement_impl.h"

#include <math.h>
#include <string.h>

#define BEAM 4096

/* Bytes of constants inside bodies of control flow: every rank holds them whole. */
static size_t body_bytes(const trm_graph *g)
{
    size_t sum = 0;

    for (int n = 0; n < g->node_count; n++)
        for (int i = 0; i < g->nodes[n].attrs.count; i++) {
            const trm_attr *a = &g->nodes[n].attrs.items[i];

            if (a->kind != TRM_ATTR_GRAPH)
                continue;
            for (int v = 0; v < a->v.graph->value_count; v++)
                sum += trm_graph_is_constant(a->v.graph, v) ? a->v.graph->values[v].bytes : 0;
            sum += body_bytes(a->v.graph);
        }
    return sum;
}

static size_t fullest_rank(const trm_sharding *s, const uint16_t *have)
{
    size_t most = 0;

    for (int rank = 0; rank < s->ranks; rank++) {
        size_t sum = 0;

        for (int v = 0; v < s->graph->value_count; v++) {
            if (have[v] == 0 || !trm_graph_is_constant(s->graph, v))
                continue;
            for (int f = 0; f < TRM_FORM_COUNT; f++)
                if ((have[v] >> f & 1) != 0)
                    sum += trmi_constant_bytes(s, v, (trm_form)f, rank);
        }
        most = sum > most ? sum : most;
    }
    return most + body_bytes(s->graph);
}

static trm_status make_form(const trm_sharding *s, const trm_placement_costs *costs, int value,
                            trm_form want, uint16_t *have, trm_placement *p)
{
    trm_change c;

    if ((have[value] >> want & 1) != 0)
        return TRM_OK;
    if (!trm_graph_is_constant(s->graph, value)) {
        if (have[value] == 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "placement: value '%s' is read before it is made",
                            s->graph->values[value].name);
        c = trm_form_change(have[value], want);
        if ((have[value] >> c.from & 1) == 0 || (c.op == TRM_OP_NONE && c.from != want))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "placement: value '%s' cannot be brought into form %d from forms 0x%x",
                            s->graph->values[value].name, (int)want, have[value]);
        p->collective_us += costs->change_us(costs->ctx, s, value, c, want);
        p->collectives += trmi_change_talks(c.op);
        have[value] = (uint16_t)trmi_form_after(have[value], c.op, want);
    }
    have[value] |= (uint16_t)(1U << want);
    return TRM_OK;
}

static trm_status walk(const trm_sharding *s, const trm_placement_costs *costs, uint16_t *have,
                       trm_placement *p)
{
    const trm_graph *g = s->graph;

    for (int i = 0; i < g->input_count; i++)
        have[g->inputs[i]] = 1U << TRM_FORM_WHOLE;
    for (int n = 0; n < g->node_count; n++) {
        const trm_node *node = &g->nodes[n];
        int st = p->strategy[n];

        if (st < 0 || st >= trm_sharding_strategy_count(s, n) || !trm_sharding_possible(s, n, st))
            return trm_fail(TRM_ERR_INVALID_ARG, "placement: node '%s' has no strategy %d",
                            node->name, st);
        for (int i = 0; i < node->input_count; i++)
            if (node->inputs[i] != TRM_NO_VALUE)
                TRM_CHECK(
                    make_form(s, costs, node->inputs[i], trm_sharding_wants(s, n, st, i), have, p));
        p->compute_us += costs->node_us(costs->ctx, s, n, st);
        if (st >= 1 && st <= s->axes[n].axis_count) /* their time is the node's */
            p->collectives += s->axes[n].axes[st - 1].reductions + s->axes[n].axes[st - 1].tree;
        for (int i = 0; i < node->output_count; i++)
            if (node->outputs[i] != TRM_NO_VALUE)
                have[node->outputs[i]] = (uint16_t)(1U << trm_sharding_yields(s, n, st, i));
    }
    for (int i = 0; i < g->output_count; i++)
        TRM_CHECK(make_form(s, costs, g->outputs[i], TRM_FORM_WHOLE, have, p));
    return TRM_OK;
}

trm_status trm_placement_cost(const trm_sharding *s, const trm_placement_costs *costs,
                              trm_placement *placement_inout)
{
    uint16_t *have = trm_calloc((size_t)s->graph->value_count + 1, sizeof(*have));
    trm_placement p = {.strategy = placement_inout->strategy, .exact = placement_inout->exact};
    trm_status st;

    if (have == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: %d values", s->graph->value_count);
    TRM_TRY(st, walk(s, costs, have, &p), done);
    p.weight_bytes = fullest_rank(s, have);
    *placement_inout = p;

done:
    trm_free(have);
    return st;
}

trm_status trm_placement_search(const trm_sharding *s, const trm_placement_costs *costs,
                                const trm_placement_options *options, trm_placement *placement_out)
{
    int beam = options->beam > 0 ? options->beam : BEAM;
    trm_placement p = {0};
    trmi_problem *problem = NULL;
    double sum;
    trm_status st;

    p.strategy = trm_calloc((size_t)s->graph->node_count + 1, sizeof(*p.strategy));
    if (p.strategy == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: %d nodes", s->graph->node_count);
    if (s->ranks == 1) { /* nobody to share with, whatever the costs say */
        p.exact = true;
        TRM_TRY(st, trm_placement_cost(s, costs, &p), fail);
        *placement_out = p;
        return TRM_OK;
    }
    TRM_TRY(st, trmi_problem_create(s, costs, &problem), fail);
    TRM_TRY(st, trmi_problem_run(problem, &(trmi_price){.us = 1}, beam, p.strategy, &sum, &p.exact),
            fail);
    TRM_TRY(st, trm_placement_cost(s, costs, &p), fail);
    TRM_ASSERT(fabs(p.compute_us + p.collective_us - sum) <= 1e-6 * (1 + fabs(sum)));
    if (options->weight_bytes_max > 0 && p.weight_bytes > options->weight_bytes_max)
        TRM_TRY(st, trmi_placement_meet(problem, options->weight_bytes_max, beam, &p), fail);
    trmi_problem_destroy(problem);
    *placement_out = p;
    return TRM_OK;

fail:
    trmi_problem_destroy(problem);
    trm_placement_fini(&p);
    return st;
}

void trm_placement_fini(trm_placement *p)
{
    if (p == NULL)
        return;
    trm_free(p->strategy);
    *p = (trm_placement){0};
}
