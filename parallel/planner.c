/* Enumerates data x tensor x pipeline, predicts each, chooses. */
#include "parallel/planner_impl.h"
#include "kernels/language.h"
#include "parallel/shapes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define CANDIDATES_MAX 512
#define TIE 1.02 /* what is as good as the best: predictions are no better than that */

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "plan");
}

/* ---- candidates ---- */

static bool matches(const trm_parallel *forced, int data, int tensor, int pipeline)
{
    return (forced->data == 0 || forced->data == data) &&
           (forced->tensor == 0 || forced->tensor == tensor) &&
           (forced->pipeline == 0 || forced->pipeline == pipeline);
}

/* Every layout of exactly `ranks` ranks that the user's wish allows. */
static int enumerate(const trm_parallel *forced, int ranks, trm_candidate *candidates, int max)
{
    int count = 0;

    for (int tensor = 1; tensor <= ranks && tensor <= TRMI_REPLICA_MAX; tensor++)
        for (int pipeline = 1; ranks % tensor == 0 && pipeline <= ranks / tensor &&
                               tensor * pipeline <= TRMI_REPLICA_MAX;
             pipeline++) {
            int data = ranks / tensor / pipeline;

            if (ranks % (tensor * pipeline) != 0 || !matches(forced, data, tensor, pipeline) ||
                pipeline > TRM_STAGES_MAX || count == max)
                continue;
            memset(&candidates[count], 0, sizeof(candidates[count]));
            candidates[count++].parallel =
                (trm_parallel){.data = data, .tensor = tensor, .pipeline = pipeline};
        }
    return count;
}

static bool is_free(const trm_parallel *p)
{
    return p->data == 0 || p->tensor == 0 || p->pipeline == 0;
}

static trm_status check_forced(const trm_plan_options *o)
{
    const trm_parallel *p = &o->parallel;
    char text[64];
    int fixed = (p->data > 0 ? p->data : 1) * (p->tensor > 0 ? p->tensor : 1) *
                (p->pipeline > 0 ? p->pipeline : 1);

    trm_parallel_text(p, text, sizeof(text));
    if (o->ranks < 1 || o->threads < 1 || o->rates == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "a plan for %d ranks of %d threads", o->ranks,
                        o->threads);
    if (!is_free(p) && fixed != o->ranks)
        return trm_fail(TRM_ERR_INVALID_ARG, "parallel %s takes %d ranks, there are %d", text,
                        fixed, o->ranks);
    if (fixed > o->ranks)
        return trm_fail(TRM_ERR_INVALID_ARG, "parallel %s takes at least %d ranks, there are %d",
                        text, fixed, o->ranks);
    if (o->ranks % fixed != 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "parallel %s: %d ranks cannot be divided into groups of %d", text, o->ranks,
                        fixed);
    return TRM_OK;
}

/* ---- choosing ---- */

/* The larger the better. */
static double score(const trm_plan_options *o, const trm_candidate *c)
{
    if (o->phase_count > 0 && c->phases[0].step_us > 0)
        return o->objective == TRM_OBJECTIVE_LATENCY
                   ? 1 / c->phases[0].step_us
                   : c->phases[o->phase_count > 1 ? 1 : 0].tokens_s;
    return o->objective == TRM_OBJECTIVE_LATENCY ? 1 / c->step_us : c->records_s;
}

/* Simpler: fewer tensor ranks (collectives), then fewer stages. */
static bool simpler(const trm_parallel *a, const trm_parallel *b)
{
    if (a->tensor != b->tensor)
        return a->tensor < b->tensor;
    return a->pipeline < b->pipeline;
}

/* -1: none fits. */
static int choose(const trm_plan_options *o, const trm_candidate *c, int count, int *fastest_out)
{
    int fastest = -1, chosen;

    for (int i = 0; i < count; i++)
        if (c[i].fits && (fastest < 0 || score(o, &c[i]) > score(o, &c[fastest])))
            fastest = i;
    chosen = fastest;
    for (int i = 0; i < count; i++)
        if (c[i].fits && score(o, &c[i]) * TIE >= score(o, &c[fastest]) &&
            simpler(&c[i].parallel, &c[chosen].parallel))
            chosen = i;
    *fastest_out = fastest;
    return chosen;
}

static void say_why(trm_plan *plan, const trm_plan_options *o, int fastest, int ranks)
{
    const trm_candidate *c = plan->candidates;
    const trm_candidate *best = &c[plan->chosen], *fast = &c[fastest];
    char text[64], fewer[80] = "";
    int fit = 0;
    const char *goal = o->objective == TRM_OBJECTIVE_LATENCY ? "latency" : "throughput";

    for (int i = 0; i < plan->candidate_count; i++)
        fit += c[i].fits ? 1 : 0;
    if (ranks < o->ranks)
        (void)snprintf(fewer, sizeof(fewer), "; nothing fits on all %d ranks, so %d stay idle",
                       o->ranks, o->ranks - ranks);
    if (!is_free(&o->parallel))
        (void)snprintf(plan->reason, sizeof(plan->reason), "as asked for");
    else if (fit == 1)
        (void)snprintf(plan->reason, sizeof(plan->reason), "the only one of %d that fits%s",
                       plan->candidate_count, fewer);
    else if (plan->chosen == fastest)
        (void)snprintf(plan->reason, sizeof(plan->reason), "the best %s of the %d that fit%s", goal,
                       fit, fewer);
    else
        (void)snprintf(
            plan->reason, sizeof(plan->reason), "%s within %.1f %% of %s, and simpler: %s%s", goal,
            100 * (score(o, fast) / score(o, best) - 1),
            trm_parallel_text(&fast->parallel, text, sizeof(text)),
            best->parallel.tensor < fast->parallel.tensor ? "fewer tensor ranks" : "fewer stages",
            fewer);
}

/* ---- nothing fits ---- */

/* The smallest replica that would fit; false: none up to the largest. */
trm_status trmi_smallest_fit(trmi_planner *p, trm_candidate *found_out, bool *found)
{
    size_t weights = 0;

    *found = false;
    for (int v = 0; v < p->g->value_count; v++)
        if (trm_graph_is_constant(p->g, v))
            weights += p->g->values[v].bytes;
    if (trm_dtype_bytes(p->options->dtype) == 2) /* they may be kept in half */
        weights /= 2;
    for (int ranks = 2; ranks <= TRMI_REPLICA_MAX && !*found; ranks *= 2) {
        for (int tensor = 1; tensor <= ranks && weights / (size_t)ranks <= p->limit; tensor *= 2) {
            trm_candidate c = {
                .parallel = {.data = 1, .tensor = tensor, .pipeline = ranks / tensor}};
            trm_plan_options one_host = *p->options;
            const trm_plan_options *asked = p->options;
            trmi_division *d;
            trm_stages s;
            trm_status st;

            one_host.hosts = NULL;
            p->options = &one_host;
            st = trmi_predict(p, &c, &s, &d);
            p->options = asked;
            TRM_CHECK(st);
            if (c.fits && (!*found || c.memory < found_out->memory)) {
                *found_out = c;
                *found = true;
            }
        }
    }
    return TRM_OK;
}

static trm_status nothing_fits(trmi_planner *p, const trm_candidate *c, int count)
{
    trmi_division *d;
    char limit[TRMI_BYTES_TEXT], needs[TRMI_BYTES_TEXT], biggest[320], text[64] = "";
    char items[200];
    trm_candidate again;
    trm_stages stages;
    trm_ledger ledger;
    char would[160] = "no layout of up to 64 ranks would fit";
    trm_candidate fit = {0};
    bool found = false;
    int least = 0;

    for (int i = 1; i < count; i++)
        if (c[i].memory > 0 && (c[least].memory == 0 || c[i].memory < c[least].memory))
            least = i;
    trm_parallel_text(&c[least].parallel, text, sizeof(text));
    if (c[least].memory == 0) /* it is not memory */
        return trm_fail(TRM_ERR_INVALID_ARG, "parallel %s: %s", text, c[least].reason);
    TRM_CHECK(trmi_smallest_fit(p, &fit, &found));
    again = (trm_candidate){.parallel = c[least].parallel};
    TRM_CHECK(trmi_predict(p, &again, &stages, &d));
    TRM_CHECK(trmi_fullest_ledger(p, d, &stages, again.micro_batches, &ledger));
    trmi_biggest_items(&ledger, items, sizeof(items));
    TRM_CHECK(trmi_division_get(p, 1, 0, 1, TRM_LINK_HOST, &d));
    trmi_biggest_weights(d->local, d->weight_bytes, biggest, sizeof(biggest));
    if (found) {
        char bytes[TRMI_BYTES_TEXT];

        (void)snprintf(would, sizeof(would), "would fit: tensor=%d,pipeline=%d with %s a rank",
                       fit.parallel.tensor, fit.parallel.pipeline,
                       trmi_bytes_text(fit.memory, bytes));
    }
    if (p->options->too_big_out != NULL)
        *p->options->too_big_out = true;
    return trm_fail(TRM_ERR_INVALID_ARG, /* what was asked for, not what ran out */
                    "the model does not fit: %s needs %s a rank (%s), the limit is %s; the biggest "
                    "weights are %s; %s%s",
                    text, trmi_bytes_text(c[least].memory, needs), items,
                    trmi_bytes_text(p->limit, limit), biggest, would,
                    p->options->kv_tokens > 0
                        ? "; a smaller --kv-cache, --context or --step-tokens needs less"
                        : "");
}

/* ---- the plan ---- */

static bool batch_is_free(const trm_graph *g)
{
    if (g->input_count == 0)
        return false;
    for (int i = 0; i < g->input_count; i++)
        if (g->values[g->inputs[i]].desc.rank < 1 || g->values[g->inputs[i]].desc.dims[0] >= 0)
            return false;
    return true;
}

/* What a rank may fill: of a host's memory, where ranks share it; of an accelerator's. */
static size_t memory_of_rank(const trm_plan_options *o)
{
    int on_host = trmi_ranks_of_host(o, o->ranks, NULL), sharers = 1;
    size_t bytes = trm_rates_memory_bytes(o->rates);

    if (o->memory_bytes > 0)
        return o->memory_bytes;
    if (trm_rates_is_gpu(o->rates))
        sharers = o->devices > 0 ? (on_host + o->devices - 1) / o->devices : 1;
    else if (o->cores > 0) /* cores are counted: it is one host */
        sharers = on_host;
    return trm_rates_usable_bytes(o->rates, bytes / (size_t)sharers);
}

trm_status trmi_planner_open(trmi_planner *p, trm_graph *g, const trm_plan_options *o)
{
    *p = (trmi_planner){.g = g, .options = o, .free_batch = batch_is_free(g)};
    TRM_CHECK(trm_arena_create(0, &p->arena));
    p->inputs = trm_arena_alloc(p->arena, (size_t)g->input_count + 1, sizeof(trm_tensor));
    p->descs = trm_arena_alloc(p->arena, (size_t)g->value_count + 1, sizeof(trm_tensor));
    if (p->inputs == NULL || p->descs == NULL)
        return no_memory();
    if (o->inputs != NULL) {
        memcpy(p->inputs, o->inputs, (size_t)g->input_count * sizeof(trm_tensor));
        for (int i = 0; i < g->input_count; i++)
            p->inputs[i].data = NULL;
    } else {
        trm_shapes_inputs(g, o->batch > 0 ? o->batch : 1, o->other_dims > 0 ? o->other_dims : 128,
                          p->inputs);
    }
    p->batch = g->input_count > 0 && p->inputs[0].rank > 0 ? p->inputs[0].dims[0] : 1;
    p->batch = p->batch > 0 ? p->batch : 1;
    p->limit = memory_of_rank(o);
    return trm_shapes_bind(g, p->inputs, p->arena, p->descs);
}

void trmi_planner_close(trmi_planner *p)
{
    trmi_divisions_destroy(p->divisions);
    trm_arena_destroy(p->arena);
}

/* What the limit leaves goes to the cache: as many pages on every rank as the fullest has room for.
 */
static void fill_cache(const trmi_planner *p, trm_plan *plan)
{
    const trm_plan_options *o = p->options;
    int64_t pages = (o->kv_tokens + TRM_KV_PAGE - 1) / TRM_KV_PAGE,
            most = o->kv_tokens_max / TRM_KV_PAGE, more;

    plan->kv_tokens = o->kv_tokens;
    more = most - pages;
    for (int i = 0; i < plan->ledger_count && pages > 0; i++) {
        const trm_ledger *l = &plan->ledger[i];
        size_t page = l->kv / (size_t)pages, total = trm_ledger_total(l);
        size_t room = page == 0 ? SIZE_MAX : p->limit > total ? (p->limit - total) / page : 0;

        if (more > 0 && room < (size_t)more)
            more = (int64_t)room;
    }
    if (pages < 1 || more < 1)
        return;
    for (int i = 0; i < plan->ledger_count; i++)
        plan->ledger[i].kv += plan->ledger[i].kv / (size_t)pages * (size_t)more;
    plan->kv_tokens = (pages + more) * TRM_KV_PAGE;
}

static trm_status fill_plan(trmi_planner *p, trm_plan *plan)
{
    const trm_candidate *c = &plan->candidates[plan->chosen];
    trm_candidate again = {.parallel = c->parallel};
    trmi_division *d;

    TRM_CHECK(trmi_predict(p, &again, &plan->stages, &d));
    plan->parallel = c->parallel;
    plan->step_us = c->step_us;
    plan->micro_batches = c->micro_batches;
    plan->graph_hash = trm_plan_graph_hash(p->g);
    plan->node_count = p->g->node_count;
    plan->input_count = p->g->input_count;
    plan->ledger_count = c->parallel.tensor * c->parallel.pipeline;
    plan->strategy = trm_calloc((size_t)plan->node_count + 1, sizeof(int));
    plan->inputs = trm_calloc((size_t)plan->input_count + 1, sizeof(trm_tensor));
    plan->ledger = trm_calloc((size_t)plan->ledger_count, sizeof(trm_ledger));
    if (plan->strategy == NULL || plan->inputs == NULL || plan->ledger == NULL)
        return no_memory();
    memcpy(plan->strategy, d->strategy, (size_t)plan->node_count * sizeof(int));
    memcpy(plan->inputs, p->inputs, (size_t)plan->input_count * sizeof(trm_tensor));
    plan->exact = d->exact;
    plan->slot_bytes = d->slot_bytes;
    plan->message_bytes = d->input_bytes > d->output_bytes ? d->input_bytes : d->output_bytes;
    for (int s = 0; s < plan->stages.count; s++)
        if (plan->stages.crossing_bytes[s] > plan->message_bytes)
            plan->message_bytes = plan->stages.crossing_bytes[s];
    for (int shard = 0; shard < c->parallel.tensor; shard++)
        TRM_CHECK(
            trmi_predict_shard(p, d, &plan->stages, plan->micro_batches, shard, plan->ledger));
    fill_cache(p, plan);
    return TRM_OK;
}

/* Predicts every candidate of `ranks` ranks; plan->chosen is -1 where none fits. */
static trm_status try_ranks(trmi_planner *p, trm_plan *plan, int ranks, int *fastest_out)
{
    trm_stages stages;
    trmi_division *d;

    plan->candidate_count =
        enumerate(&p->options->parallel, ranks, plan->candidates, CANDIDATES_MAX);
    for (int i = 0; i < plan->candidate_count; i++)
        TRM_CHECK(trmi_predict(p, &plan->candidates[i], &stages, &d));
    plan->chosen = choose(p->options, plan->candidates, plan->candidate_count, fastest_out);
    return TRM_OK;
}

/* What does not fit on all ranks may fit on fewer: 64 and less, so that every replica size has its
 * turn. plan->chosen stays -1 where it does not. */
static trm_status try_fewer(trmi_planner *p, trm_plan *plan, int *ranks_inout, int *fastest_out)
{
    int all = *ranks_inout;

    for (int n = all - 1; n > 0 && n > all - TRMI_REPLICA_MAX && plan->chosen < 0; n--) {
        TRM_CHECK(try_ranks(p, plan, n, fastest_out));
        *ranks_inout = n;
    }
    return plan->chosen < 0 ? try_ranks(p, plan, all, fastest_out) : TRM_OK;
}

trm_status trm_plan_make(trm_graph *g, const trm_plan_options *options, trm_plan **plan_out)
{
    trmi_planner p = {0};
    trm_plan *plan = NULL;
    int fastest = -1, ranks = options->ranks;
    trm_status st;

    TRM_CHECK(check_forced(options));
    if (g->node_count == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "the model has no nodes: there is nothing to plan");
    plan = trm_calloc(1, sizeof(*plan));
    if (plan != NULL)
        plan->candidates = trm_calloc(CANDIDATES_MAX, sizeof(trm_candidate));
    if (plan == NULL || plan->candidates == NULL) {
        st = no_memory();
        goto done;
    }
    TRM_TRY(st, trmi_planner_open(&p, g, options), done);
    TRM_TRY(st, try_ranks(&p, plan, ranks, &fastest), done);
    if (plan->chosen < 0 && is_free(&options->parallel))
        TRM_TRY(st, try_fewer(&p, plan, &ranks, &fastest), done);
    if (plan->chosen < 0) {
        st = nothing_fits(&p, plan->candidates, plan->candidate_count);
        goto done;
    }
    say_why(plan, options, fastest, ranks);
    TRM_TRY(st, fill_plan(&p, plan), done);
    *plan_out = plan;
    plan = NULL;
done:
    trmi_planner_close(&p);
    trm_plan_destroy(plan);
    return st;
}
