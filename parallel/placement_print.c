/* A placement for people: one line a node, the changes of form it pays for before it. */
#include "parallel/placement_impl.h"

#include <string.h>

static const char *form_text(trm_form form, char buf[24])
{
    if (form >= TRM_FORM_SPLIT)
        snprintf(buf, 24, "split%d", (int)form - TRM_FORM_SPLIT);
    else
        snprintf(buf, 24, "%s", form == TRM_FORM_WHOLE ? "whole" : "partial");
    return buf;
}

const char *trm_strategy_name(const trm_sharding *s, int node, int strategy)
{
    if (strategy <= 0)
        return "whole";
    if (strategy <= s->axes[node].axis_count)
        return s->axes[node].axes[strategy - 1].name;
    return "linear";
}

/* The change that gives `want`; what exists is kept in `have`. */
static void print_change(const trm_sharding *s, const trm_placement_costs *costs, int value,
                         trm_form want, uint16_t *have, FILE *out)
{
    char from[24], to[24];
    size_t bytes = 0;
    trm_change c;

    if ((have[value] >> want & 1) != 0 || trm_graph_is_constant(s->graph, value))
        return;
    c = trm_form_change(have[value], want);
    have[value] = (uint16_t)trmi_form_after(have[value], c.op, want);
    if (trm_tensor_bytes(&s->descs[value], &bytes) != TRM_OK)
        bytes = 0;
    fprintf(out, "        %s '%s' %s -> %s, %.4g KiB", trm_op_get(c.op)->name,
            s->graph->values[value].name, form_text(c.from, from), form_text(want, to),
            (double)bytes / 1024);
    if (costs != NULL)
        fprintf(out, ", %.4g us", costs->change_us(costs->ctx, s, value, c, want));
    fputc('\n', out);
}

trm_status trm_placement_print(const trm_sharding *s, const trm_placement_costs *costs,
                               const trm_placement *p, FILE *out)
{
    const trm_graph *g = s->graph;
    uint16_t *have = trm_calloc((size_t)g->value_count + 1, sizeof(*have));

    if (have == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "placement: %d values", g->value_count);
    fprintf(out, "%d ranks: compute %.4g us, %d collectives %.4g us, weights %.4g MiB a rank\n",
            s->ranks, p->compute_us, p->collectives, p->collective_us,
            (double)p->weight_bytes / (1 << 20));
    for (int i = 0; i < g->input_count; i++)
        have[g->inputs[i]] = 1U << TRM_FORM_WHOLE;
    for (int n = 0; n < g->node_count; n++) {
        const trm_node *node = &g->nodes[n];
        char buf[24];

        for (int i = 0; i < node->input_count; i++)
            if (node->inputs[i] != TRM_NO_VALUE)
                print_change(s, costs, node->inputs[i], trm_sharding_wants(s, n, p->strategy[n], i),
                             have, out);
        fprintf(out, "%6d  %s '%s': %s", n, trm_op_get(node->op)->name, node->name,
                trm_strategy_name(s, n, p->strategy[n]));
        for (int i = 0; i < node->output_count; i++) {
            trm_form form;

            if (node->outputs[i] == TRM_NO_VALUE)
                continue;
            form = trm_sharding_yields(s, n, p->strategy[n], i);
            have[node->outputs[i]] = (uint16_t)(1U << form);
            fprintf(out, "%s %s", i ? "," : " ->", form_text(form, buf));
        }
        if (p->strategy[n] >= 1 && p->strategy[n] <= s->axes[n].axis_count &&
            s->axes[n].axes[p->strategy[n] - 1].reductions > 0)
            fprintf(out, ", %d small all-reduces", s->axes[n].axes[p->strategy[n] - 1].reductions);
        if (p->strategy[n] >= 1 && p->strategy[n] <= s->axes[n].axis_count &&
            s->axes[n].axes[p->strategy[n] - 1].tree)
            fprintf(out, ", summed by the tree");
        if (costs != NULL)
            fprintf(out, ", %.4g us", costs->node_us(costs->ctx, s, n, p->strategy[n]));
        fputc('\n', out);
    }
    for (int i = 0; i < g->output_count; i++)
        print_change(s, costs, g->outputs[i], TRM_FORM_WHOLE, have, out);
    trm_free(have);
    return TRM_OK;
}
