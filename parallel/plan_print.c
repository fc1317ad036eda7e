/* A plan for people: the candidates, the choice and why, the stages, the ledger of every rank. */
#include "parallel/planner_impl.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static const char *time_text(double us, char *buf, size_t room)
{
    if (us >= 1e6)
        (void)snprintf(buf, room, "%.2f s", us / 1e6);
    else
        (void)snprintf(buf, room,
                       us >= 1e5   ? "%.1f ms"
                       : us >= 1e3 ? "%.2f ms"
                                   : "%.3f ms",
                       us / 1e3);
    return buf;
}

static int percent(double part, double all)
{
    return all > 0 ? (int)lround(100 * part / all) : 0;
}

static void print_candidates(const trm_plan *plan, FILE *f)
{
    fprintf(f, "  %-30s %10s %10s %8s %11s %7s %12s\n", "layout", "latency", "records/s", "compute",
            "collectives", "bubble", "memory/rank");
    for (int i = 0; i < plan->candidate_count; i++) {
        const trm_candidate *c = &plan->candidates[i];
        double all = c->compute_us + c->collective_us;
        char text[64], latency[32], bytes[TRMI_BYTES_TEXT];

        fprintf(f, "%c %-30s ", i == plan->chosen ? '*' : ' ',
                trm_parallel_text(&c->parallel, text, sizeof(text)));
        if (c->step_us > 0)
            fprintf(f, "%10s %10.2f %6d %% %9d %% %5d %% %12s", time_text(c->step_us, latency, 32),
                    c->records_s, percent(c->compute_us, all), percent(c->collective_us, all),
                    percent(c->bubble, 1), trmi_bytes_text(c->memory, bytes));
        if (!c->fits)
            fprintf(f, "%sout: %s", c->step_us > 0 ? "  " : "", c->reason);
        fputc('\n', f);
    }
}

/* Nodes without a name are told by what they make. */
static const char *node_name(const trm_graph *g, int n)
{
    const trm_node *node = &g->nodes[n];

    if (node->name[0] != '\0')
        return node->name;
    for (int i = 0; i < node->output_count; i++)
        if (node->outputs[i] != TRM_NO_VALUE)
            return g->values[node->outputs[i]].name;
    return trm_op_get(node->op)->name;
}

static void print_stages(const trm_plan *plan, const trm_graph *local, FILE *f)
{
    const trm_stages *s = &plan->stages;

    if (s->count == 1)
        return;
    fprintf(f, "\n  %-6s %11s %10s %12s %12s  %s\n", "stage", "nodes", "time", "weights", "sends",
            "from .. to");
    for (int i = 0; i < s->count; i++) {
        char nodes[32], us[32], weights[TRMI_BYTES_TEXT], sends[TRMI_BYTES_TEXT];

        (void)snprintf(nodes, sizeof(nodes), "%d..%d", s->cuts[i], s->cuts[i + 1] - 1);
        fprintf(f, "  %-6d %11s %10s %12s %12s  %s .. %s\n", i, nodes,
                time_text(s->stage_us[i], us, 32), trmi_bytes_text(s->stage_bytes[i], weights),
                trmi_bytes_text(s->crossing_bytes[i], sends), node_name(local, s->cuts[i]),
                node_name(local, s->cuts[i + 1] - 1));
    }
}

static bool any_cache(const trm_plan *plan)
{
    for (int i = 0; i < plan->ledger_count; i++)
        if (plan->ledger[i].kv > 0)
            return true;
    return false;
}

/* The column of the KV cache, where a rank has one. */
static char *cache_text(bool any, size_t bytes, char text[TRMI_BYTES_TEXT + 16])
{
    char amount[TRMI_BYTES_TEXT];

    text[0] = '\0';
    if (any)
        (void)snprintf(text, TRMI_BYTES_TEXT + 16, " %12s", trmi_bytes_text(bytes, amount));
    return text;
}

static void print_gpu_ledger(const trm_plan *plan, FILE *f)
{
    bool cache = any_cache(plan);

    fprintf(f, "\n  %-12s %12s%s %12s %12s %14s %12s %12s\n", "stage, shard", "weights",
            cache ? "     KV cache" : "", "activations", "workspace", "communicators", "total",
            "(on host)");
    for (int i = 0; i < plan->ledger_count; i++) {
        const trm_ledger *l = &plan->ledger[i];
        char place[32], b[6][TRMI_BYTES_TEXT], kv[TRMI_BYTES_TEXT + 16];

        (void)snprintf(place, sizeof(place), "%d, %d", i / plan->parallel.tensor,
                       i % plan->parallel.tensor);
        fprintf(f, "  %-12s %12s%s %12s %12s %14s %12s %12s\n", place,
                trmi_bytes_text(l->weights, b[0]), cache_text(cache, l->kv, kv),
                trmi_bytes_text(l->activations, b[1]), trmi_bytes_text(l->workspace, b[2]),
                trmi_bytes_text(l->communicators, b[3]), trmi_bytes_text(trm_ledger_total(l), b[4]),
                trmi_bytes_text(l->host, b[5]));
    }
}

static void print_host_part(const trm_host_part *part, FILE *f)
{
    char text[200], bytes[TRMI_BYTES_TEXT];

    if (part->nodes > 0)
        fprintf(f, "on the CPU: %d nodes (%s), copies %s a step\n", part->nodes,
                trm_host_part_text(part, text, sizeof(text)),
                trmi_bytes_text(part->copied_bytes, bytes));
}

static void print_ledger(const trm_plan *plan, FILE *f)
{
    bool cache = any_cache(plan);

    fprintf(f, "\n  %-12s %12s %12s%s %12s %12s %14s %12s\n", "stage, shard", "weights", "(mapped)",
            cache ? "     KV cache" : "", "activations", "staging", "communicators", "total");
    for (int i = 0; i < plan->ledger_count; i++) {
        const trm_ledger *l = &plan->ledger[i];
        char place[32], b[6][TRMI_BYTES_TEXT], kv[TRMI_BYTES_TEXT + 16];

        (void)snprintf(place, sizeof(place), "%d, %d", i / plan->parallel.tensor,
                       i % plan->parallel.tensor);
        fprintf(f, "  %-12s %12s %12s%s %12s %12s %14s %12s\n", place,
                trmi_bytes_text(l->weights, b[0]), trmi_bytes_text(l->mapped, b[1]),
                cache_text(cache, l->kv, kv), trmi_bytes_text(l->activations, b[2]),
                trmi_bytes_text(l->staging, b[3]), trmi_bytes_text(l->communicators, b[4]),
                trmi_bytes_text(trm_ledger_total(l), b[5]));
    }
}

/* What is split how, as the placement search saw it. */
static trm_status print_placement(const trm_plan *plan, trm_graph *g,
                                  const trm_plan_options *options, FILE *f)
{
    trm_cost_context c = {.rates = options->rates,
                          .threads = options->threads,
                          .busy_ranks = plan->parallel.tensor,
                          .staged = trmi_is_staged(options),
                          .dtype = options->dtype};
    trm_placement placement = {.strategy = plan->strategy, .exact = plan->exact};
    trm_placement_costs costs = {0};
    trm_sharding *s = NULL;
    trm_arena *arena = NULL;
    trm_status st;

    TRM_CHECK(trm_arena_create(0, &arena));
    TRM_TRY(st, trmi_plan_sharding(plan, g, arena, &s), done);
    if (s == NULL)
        goto done;
    TRM_TRY(st, trm_placement_costs_create(s, &c, &costs), done);
    TRM_TRY(st, trm_placement_cost(s, &costs, &placement), done);
    fputc('\n', f);
    st = trm_placement_print(s, &costs, &placement, f);
done:
    trm_placement_costs_destroy(&costs);
    trm_sharding_destroy(s);
    trm_arena_destroy(arena);
    return st;
}

trm_status trm_plan_print(const trm_plan *plan, trm_graph *g, const trm_plan_options *options,
                          bool verbose, FILE *f)
{
    char text[64];
    trm_graph *local = NULL;
    trm_arena *arena = NULL;
    trm_host_part part;
    trm_status st;

    TRM_CHECK(trm_arena_create(0, &arena));
    TRM_TRY(st, trmi_plan_host_part(plan, g, options, arena, &part), done);
    TRM_TRY(st, trmi_plan_lower(plan, g, 0, &local), done);
    if (trmi_has_phases(plan, options))
        trmi_print_phase_candidates(plan, options, f);
    else
        print_candidates(plan, f);
    fprintf(f, "\nchosen   %s: %s\n", trm_parallel_text(&plan->parallel, text, sizeof(text)),
            plan->reason);
    if (plan->parallel.pipeline > 1)
        fprintf(f, "         %d micro-batches in flight\n", plan->micro_batches);
    fprintf(f, "rates    %s\n", trm_rates_source(options->rates));
    print_host_part(&part, f);
    if (trmi_has_phases(plan, options))
        trmi_print_phases(plan, options, f);
    print_stages(plan, local, f);
    if (trm_rates_is_gpu(options->rates))
        print_gpu_ledger(plan, f);
    else
        print_ledger(plan, f);
    if (verbose)
        st = print_placement(plan, g, options, f);
done:
    trm_graph_destroy(local);
    trm_arena_destroy(arena);
    return st;
}

/* ---- JSON ---- */

static void quoted(FILE *f, const char *text)
{
    fputc('"', f);
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20)
            fprintf(f, "\\u%04x", (unsigned char)*text);
        else
            fprintf(f, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    }
    fputc('"', f);
}

static void layout_json(const trm_parallel *p, FILE *f)
{
    fprintf(f, "{\"data\": %d, \"tensor\": %d, \"pipeline\": %d}", p->data, p->tensor, p->pipeline);
}

/* What has no kernel on the accelerator: nodes by operator, copies. */
static void host_part_json(const trm_plan *plan, trm_graph *g, const trm_plan_options *options,
                           FILE *f)
{
    trm_host_part part = {0};
    trm_arena *arena = NULL;
    bool first = true;

    if (trm_arena_create(0, &arena) != TRM_OK ||
        trmi_plan_host_part(plan, g, options, arena, &part) != TRM_OK)
        memset(&part, 0, sizeof(part));
    fprintf(f, ", \"on_cpu\": {\"nodes\": %d, \"operators\": {", part.nodes);
    for (int i = 0; i < TRM_OP_COUNT; i++) {
        if (part.counts[i] > 0) {
            fprintf(f, "%s\"%s\": %d", first ? "" : ", ", trm_op_get((trm_op)i)->name,
                    part.counts[i]);
            first = false;
        }
    }
    fprintf(f, "}, \"copies\": %d, \"copied_bytes\": %zu}", part.copies, part.copied_bytes);
    trm_arena_destroy(arena);
}

void trm_plan_print_json(const trm_plan *plan, trm_graph *g, const trm_plan_options *options,
                         FILE *f)
{
    fprintf(f, "{\"model\": ");
    quoted(f, g->name);
    fprintf(f, ", \"objective\": \"%s\", \"rates\": ",
            options->objective == TRM_OBJECTIVE_LATENCY ? "latency" : "throughput");
    quoted(f, trm_rates_source(options->rates));
    fprintf(f, ", \"parallel\": ");
    layout_json(&plan->parallel, f);
    fprintf(f, ", \"reason\": ");
    quoted(f, plan->reason);
    if (trm_rates_is_gpu(options->rates))
        host_part_json(plan, g, options, f);
    if (trmi_has_phases(plan, options)) {
        trmi_phases_json(options, &plan->candidates[plan->chosen], f);
        fprintf(f, ", \"kv_tokens\": %lld, \"kv_dtype\": \"%s\"", (long long)plan->kv_tokens,
                trm_dtype_name(options->kv_dtype));
    }
    fprintf(f, ", \"step_us\": %.3f, \"micro_batches\": %d, \"candidates\": [", plan->step_us,
            plan->micro_batches);
    for (int i = 0; i < plan->candidate_count; i++) {
        const trm_candidate *c = &plan->candidates[i];

        fprintf(f, "%s{\"parallel\": ", i > 0 ? ", " : "");
        layout_json(&c->parallel, f);
        fprintf(f,
                ", \"fits\": %s, \"step_us\": %.3f, \"records_s\": %.4f, \"compute_us\": %.3f, "
                "\"collective_us\": %.3f, \"bubble\": %.4f, \"memory\": %zu, \"reason\": ",
                c->fits ? "true" : "false", c->step_us, c->records_s, c->compute_us,
                c->collective_us, c->bubble, c->memory);
        quoted(f, c->reason);
        if (trmi_has_phases(plan, options))
            trmi_phases_json(options, c, f);
        fputc('}', f);
    }
    fprintf(f, "], \"stages\": [");
    for (int i = 0; i < plan->stages.count; i++)
        fprintf(f, "%s{\"begin\": %d, \"end\": %d, \"us\": %.3f, \"weights\": %zu, \"sends\": %zu}",
                i > 0 ? ", " : "", plan->stages.cuts[i], plan->stages.cuts[i + 1],
                plan->stages.stage_us[i], plan->stages.stage_bytes[i],
                plan->stages.crossing_bytes[i]);
    fprintf(f, "], \"ledger\": [");
    for (int i = 0; i < plan->ledger_count; i++) {
        const trm_ledger *l = &plan->ledger[i];

        fprintf(f,
                "%s{\"stage\": %d, \"shard\": %d, \"weights\": %zu, \"mapped\": %zu, "
                "\"activations\": %zu, \"staging\": %zu, \"communicators\": %zu, "
                "\"workspace\": %zu, \"host\": %zu, \"kv\": %zu}",
                i > 0 ? ", " : "", i / plan->parallel.tensor, i % plan->parallel.tensor, l->weights,
                l->mapped, l->activations, l->staging, l->communicators, l->workspace, l->host,
                l->kv);
    }
    fprintf(f, "]}\n");
}
