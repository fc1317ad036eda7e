/* What a plan says about memory after the fact: what runs beside the accelerator, and why a rank
 * ran out of memory that the plan counted with. */
#include "parallel/planner_impl.h"

#include "model/passes/passes.h"
#include "parallel/lower.h"
#include "parallel/shapes.h"

#include <stdio.h>
#include <string.h>

bool trmi_is_language(const trm_graph *g)
{
    for (int n = 0; n < g->node_count; n++)
        if (g->nodes[n].op == TRM_OP_TrmEmbed)
            return true;
    return false;
}

/* ---- beside the accelerator ---- */

trm_status trmi_plan_host_part(const trm_plan *plan, trm_graph *g, const trm_plan_options *options,
                               trm_arena *arena, trm_host_part *part_out)
{
    trm_graph *local = NULL, *finished = NULL;
    trm_tensor *descs;
    trm_status st;

    memset(part_out, 0, sizeof(*part_out));
    if (!trm_rates_is_gpu(options->rates) || trmi_is_language(g))
        return TRM_OK;
    TRM_CHECK(trmi_plan_lower(plan, g, 0, &local));
    TRM_TRY(st, trm_lower_cut(local, 0, local->node_count, &finished), done);
    TRM_TRY(st, trm_pass_finish(finished), done);
    descs = trm_arena_alloc(arena, (size_t)finished->value_count + 1, sizeof(trm_tensor));
    if (descs == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "plan of %d nodes", finished->node_count);
        goto done;
    }
    TRM_TRY(st, trm_shapes_bind(finished, plan->inputs, arena, descs), done);
    st = trm_host_part_find(finished, descs, arena, part_out);
done:
    trm_graph_destroy(finished);
    trm_graph_destroy(local);
    return st;
}

/* ---- less memory than planned ---- */

#define ITEMS 6

void trmi_biggest_items(const trm_ledger *l, char *text, size_t room)
{
    const struct {
        const char *name;
        size_t bytes;
    } all[ITEMS] = {{"weights", l->weights},
                    {"activations", l->activations},
                    {"workspace, inputs and outputs", l->workspace},
                    {"communicators", l->communicators},
                    {"staging", l->staging},
                    {"the KV cache", l->kv}};
    bool told[ITEMS] = {false};
    size_t used = 0;

    text[0] = '\0';
    for (int k = 0; k < 3 && used < room; k++) {
        char bytes[TRMI_BYTES_TEXT];
        int best = -1;

        for (int i = 0; i < ITEMS; i++)
            if (!told[i] && all[i].bytes > 0 && (best < 0 || all[i].bytes > all[best].bytes))
                best = i;
        if (best < 0)
            return;
        told[best] = true;
        used += (size_t)snprintf(text + used, room - used, "%s%s %s", k > 0 ? ", " : "",
                                 all[best].name, trmi_bytes_text(all[best].bytes, bytes));
    }
}

static size_t constant_bytes(const trm_graph *g, int v)
{
    return trm_graph_is_constant(g, v) ? g->values[v].bytes : 0;
}

static void biggest_weights(const trm_graph *g, char *text, size_t room)
{
    size_t *bytes = trm_calloc((size_t)g->value_count + 1, sizeof(size_t));

    text[0] = '\0';
    if (bytes == NULL)
        return;
    for (int v = 0; v < g->value_count; v++)
        bytes[v] = constant_bytes(g, v);
    trmi_biggest_weights(g, bytes, text, room);
    trm_free(bytes);
}

/* "; would fit: tensor=2,pipeline=1 with 3.1 GB a rank", or nothing. */
static void what_fits(trm_graph *g, const trm_plan *plan, const trm_plan_options *options,
                      size_t free_bytes, char *text, size_t room)
{
    trm_plan_options o = *options;
    trm_candidate fit = {0};
    trmi_planner p = {0};
    bool found = false;

    text[0] = '\0';
    if (o.rates == NULL || free_bytes == 0)
        return;
    o.parallel = (trm_parallel){0, 0, 0};
    o.ranks = 1;
    o.hosts = NULL;
    o.inputs = plan->inputs;
    o.memory_bytes = free_bytes;
    if (trmi_planner_open(&p, g, &o) == TRM_OK && trmi_smallest_fit(&p, &fit, &found) == TRM_OK &&
        found) {
        char bytes[TRMI_BYTES_TEXT];

        (void)snprintf(text, room, "; would fit: tensor=%d,pipeline=%d with %s a rank",
                       fit.parallel.tensor, fit.parallel.pipeline,
                       trmi_bytes_text(fit.memory, bytes));
    }
    trmi_planner_close(&p);
}

char *trm_plan_explain_memory(const trm_plan *plan, trm_graph *g, const trm_plan_options *options,
                              int ledger, size_t free_bytes, char *text, size_t bytes)
{
    char items[200] = "", weights[320], fits[120], needs[TRMI_BYTES_TEXT], had[TRMI_BYTES_TEXT];
    const trm_ledger none = {0};
    const trm_ledger *l =
        ledger >= 0 && ledger < plan->ledger_count ? &plan->ledger[ledger] : &none;

    trmi_biggest_items(l, items, sizeof(items));
    biggest_weights(g, weights, sizeof(weights));
    what_fits(g, plan, options, free_bytes, fits, sizeof(fits));
    if (free_bytes > 0 &&
        free_bytes >= trm_ledger_total(l)) /* it was the plan that counted too little */
        (void)snprintf(
            text, bytes,
            "the plan has %s (%s) of %s, and steps need more: a smaller --step-tokens or "
            "--kv-cache needs less, a greater --memory has more; the biggest weights "
            "are %s",
            trmi_bytes_text(trm_ledger_total(l), needs), items, trmi_bytes_text(free_bytes, had),
            weights);
    else if (free_bytes > 0)
        (void)snprintf(text, bytes,
                       "the plan needs %s (%s), there were %s for it: does something else use the "
                       "device? the biggest weights are %s%s",
                       trmi_bytes_text(trm_ledger_total(l), needs), items,
                       trmi_bytes_text(free_bytes, had), weights, fits);
    else
        (void)snprintf(
            text, bytes,
            "the plan needs %s (%s), there was less: does something else use the device? "
            "the biggest weights are %s",
            trmi_bytes_text(trm_ledger_total(l), needs), items, weights);
    return text;
}
