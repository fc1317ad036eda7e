/* One layout: whether it fits, and how long it takes.
 *
 * Latency is one step through one replica while nothing else runs: its nodes one after another,
 * the messages between stages, the results' way back. Throughput counts all replicas with their
 * pipelines full: a step leaves a replica every `period`, which is the slowest stage, or the whole
 * way divided by the steps in flight, or the work of all ranks of a host divided by its cores,
 * whichever is longest. */
#include "parallel/planner_impl.h"
#include "parallel/rates_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

int trmi_ranks_of_host(const trm_plan_options *options, int ranks, int *hosts_out)
{
    int hosts = 0, most = 0;

    for (int r = 0; r < ranks; r++) {
        int host = options->hosts == NULL ? 0 : options->hosts[r], here = 0, first = 1;

        for (int q = 0; q < ranks; q++) {
            bool same = (options->hosts == NULL ? 0 : options->hosts[q]) == host;

            here += same ? 1 : 0;
            first = same && q < r ? 0 : first;
        }
        hosts += first;
        most = here > most ? here : most;
    }
    if (hosts_out != NULL)
        *hosts_out = hosts;
    return most;
}

bool trmi_is_staged(const trm_plan_options *options)
{
    return options->staged || (options->devices > 0 && trmi_ranks_of_host(options, options->ranks,
                                                                          NULL) > options->devices);
}

double trmi_host_room(const trm_plan_options *o)
{
    if (trm_rates_is_gpu(o->rates))
        return o->devices > 0 ? o->devices : 1e9;
    return o->cores > 0 ? (double)o->cores / o->threads : 1e9;
}

trmi_holder trmi_holder_of(const trm_plan_options *options)
{
    return (trmi_holder){.gpu = trm_rates_is_gpu(options->rates), .dtype = options->dtype};
}

int trmi_busy_ranks(const trm_plan_options *options, int ranks)
{
    int here = trmi_ranks_of_host(options, ranks, NULL);
    int room = trmi_host_room(options) < here ? (int)trmi_host_room(options) : here;

    return here < room ? here : room > 1 ? room : 1;
}

/* Do ranks a and b of any replica of the layout sit on different hosts? */
static bool apart(const trmi_planner *p, const trm_parallel *l, int stages_apart)
{
    int ranks = l->data * l->tensor * l->pipeline;
    const int *hosts = p->options->hosts;

    for (int r = 0; hosts != NULL && r < ranks; r++) {
        int first = r / l->tensor * l->tensor; /* of the tensor group */
        int other = stages_apart == 0 ? first : r + l->tensor;

        if (stages_apart > 0 && trm_parallel_place(l, r).stage == l->pipeline - 1)
            continue;
        if (hosts[r] != hosts[other])
            return true;
    }
    return false;
}

struct messages {
    trm_cost_context c;
};

static double message_us(void *ctx, size_t bytes)
{
    const struct messages *m = ctx;

    return trm_cost_collective_us(&m->c, TRM_COLLECTIVE_MESSAGE, 2, bytes);
}

static struct messages messages_of(const trmi_planner *p, const trm_parallel *l, int busy)
{
    return (struct messages){.c = {.rates = p->options->rates,
                                   .threads = p->options->threads,
                                   .busy_ranks = busy,
                                   .link = apart(p, l, 1) ? TRM_LINK_NETWORK : TRM_LINK_HOST,
                                   .staged = trmi_is_staged(p->options),
                                   .dtype = p->options->dtype}};
}

/* To the device and back, and on the device of every rank that reads the inputs. */
static double copies_us(const trmi_planner *p, const trmi_division *d, const struct messages *m)
{
    return trm_cost_copies_us(&m->c, p->g->input_count, d->input_bytes) +
           trm_cost_copies_us(&m->c, p->g->output_count, d->output_bytes);
}

/* What goes to the shards of the first stage, and comes back from the last, beyond what stages hand
 * on; and what a step costs before anything is computed. */
static double around_us(const trmi_planner *p, const trmi_division *d, const trm_parallel *l,
                        struct messages *m)
{
    double us = trm_cost_step_us(&m->c, 0, l->tensor * l->pipeline);

    trm_cost_context host = m->c; /* inputs and results go over the hosts' memory alone */

    if (trm_rates_is_gpu(p->options->rates))
        host.rates = p->options->rates->gpu.host;
    us +=
        (l->tensor - 1) * trm_cost_collective_us(&host, TRM_COLLECTIVE_MESSAGE, 2, d->input_bytes);
    if (l->pipeline > 1)
        us += trm_cost_collective_us(&host, TRM_COLLECTIVE_MESSAGE, 2, d->output_bytes);
    return us + copies_us(p, d, m);
}

/* ---- memory ---- */

/* Places in the ring between two stages. A language model's stages on accelerators have the
 * decisions of steps there, too, which run ahead of what crosses (worker/language/replica_impl.h).
 */
static int ring_messages(const trmi_planner *p, const trmi_division *d, int micro)
{
    return d->language && trm_rates_is_gpu(p->options->rates) ? 2 * (micro + 1) + 2 : micro + 2;
}

/* Two slots for collectives; a ring of messages from the stage before (results, for the first). */
static size_t communicator_bytes(const trmi_planner *p, const trmi_division *d, const trm_stages *s,
                                 int micro, int stage)
{
    size_t bytes = d->tensor > 1 ? 2 * trm_align_up(d->slot_bytes, 4096) : 0;

    if (s->count > 1)
        bytes += (size_t)ring_messages(p, d, micro) *
                 (stage > 0 ? s->crossing_bytes[stage - 1] : d->output_bytes);
    return bytes;
}

/* On an accelerator: cuBLASLt's and cuDNN's largest workspace, the buffers of a device group.
 * Assumed (NCCL takes 150 to 250 MiB for eight ranks). */
#define WORKSPACE_BYTES ((size_t)32 << 20)
#define CAPTURES_BYTES                                                                             \
    ((size_t)256 << 20) /* a language model's steps of every size as captured graphs, about 2 MB   \
                           each: also assumed */
#define GROUP_BYTES ((size_t)200 << 20)
#define PINNED_BYTES ((size_t)32 << 20) /* buffers that weights go through */

/* Kernels do with less where there is less. */
static size_t workspace_bytes(const trmi_planner *p, const trmi_division *d)
{
    size_t kernels = p->limit / 16 < WORKSPACE_BYTES ? p->limit / 16 : WORKSPACE_BYTES;
    size_t captures = p->limit / 64 < CAPTURES_BYTES ? p->limit / 64 : CAPTURES_BYTES;

    return kernels + (d->language ? captures : 0);
}

static size_t group_bytes(const trmi_planner *p, const trmi_division *d)
{
    return d->tensor > 1 && !trmi_is_staged(p->options) ? GROUP_BYTES : 0;
}

/* What is on the host of a CPU's rank is beside an accelerator's; inputs and outputs of two steps
 * are on both. */
static void to_accelerator(const trmi_planner *p, const trmi_division *d, const trm_stages *s,
                           int stage, trm_ledger *l)
{
    size_t in = stage > 0 ? s->crossing_bytes[stage - 1] : d->input_bytes;
    size_t out = stage + 1 < s->count ? s->crossing_bytes[stage] : d->output_bytes;

    l->host = l->staging + l->communicators + PINNED_BYTES + 2 * (in + out);
    l->staging = 0;
    l->communicators = group_bytes(p, d);
    l->workspace = workspace_bytes(p, d) + 2 * (in + out);
}

/* On the device beside weights, activations and messages between stages. */
static size_t beside_bytes(const trmi_planner *p, const trmi_division *d, size_t staging)
{
    if (trm_rates_is_gpu(p->options->rates))
        return workspace_bytes(p, d) + group_bytes(p, d) + 2 * (d->input_bytes + d->output_bytes);
    return staging + (d->tensor > 1 ? 2 * trm_align_up(d->slot_bytes, 4096) : 0);
}

/* Of a stage: the constants that its nodes read in `g`, what they want of a KV cache, and its part
 * of the activations. */
static trm_status stage_ledger(const trmi_planner *p, const trmi_division *d, const trm_graph *g,
                               const size_t *kv, const trm_stages *s, int micro, int stage,
                               trm_ledger *ledger_out)
{
    trm_ledger l = {.communicators = communicator_bytes(p, d, s, micro, stage)};
    trmi_holder holder = trmi_holder_of(p->options);
    trmi_weights *weights = trm_calloc((size_t)g->value_count + 1, sizeof(*weights));
    trm_status st;

    if (weights == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "ledger of %d values", g->value_count);
    trmi_ledger_weights(g, &holder, s->cuts[stage], s->cuts[stage + 1], weights);
    for (int n = s->cuts[stage]; n < s->cuts[stage + 1]; n++)
        l.kv += kv[n];
    for (int v = 0; v < g->value_count; v++) {
        l.weights += weights[v].bytes;
        l.mapped += weights[v].mapped;
        l.staging = weights[v].staging > l.staging ? weights[v].staging : l.staging;
    }
    trm_free(weights);
    st = trmi_ledger_activations(d->finished, d->finished_descs, &holder, d->host_of,
                                 s->cuts[stage], s->cuts[stage + 1], &l.activations);
    if (holder.gpu)
        to_accelerator(p, d, s, stage, &l);
    *ledger_out = l;
    return st;
}

trm_status trmi_predict_shard(const trmi_planner *p, const trmi_division *d, const trm_stages *s,
                              int micro, int shard, trm_ledger *ledger)
{
    trm_graph *g = NULL;
    size_t *kv = NULL;
    trm_status st;

    TRM_CHECK(trmi_division_lower(p->g, d->sharding, d->strategy, shard, &g));
    kv = trm_calloc((size_t)g->node_count + 1, sizeof(*kv));
    if (kv == NULL || g->node_count != d->local->node_count) {
        st = kv == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "ledger of %d nodes", g->node_count)
                        : trm_fail(TRM_ERR_INTERNAL, "shard %d has %d nodes, shard %d has %d",
                                   shard, g->node_count, d->tensor - 1, d->local->node_count);
        goto done;
    }
    (void)trmi_ledger_kv(g, p->options, kv);
    st = TRM_OK;
    for (int i = 0; i < s->count && st == TRM_OK; i++)
        st = stage_ledger(p, d, g, kv, s, micro, i, &ledger[i * d->tensor + shard]);
done:
    trm_free(kv);
    trm_graph_destroy(g);
    return st;
}

trm_status trmi_fullest_ledger(const trmi_planner *p, const trmi_division *d, const trm_stages *s,
                               int micro, trm_ledger *ledger_out)
{
    memset(ledger_out, 0, sizeof(*ledger_out));
    for (int i = 0; i < s->count; i++) {
        trm_ledger l;

        TRM_CHECK(stage_ledger(p, d, d->local, d->kv_bytes, s, micro, i, &l));
        if (trm_ledger_total(&l) > trm_ledger_total(ledger_out))
            *ledger_out = l;
    }
    return TRM_OK;
}

static trm_status fullest_rank(const trmi_planner *p, const trmi_division *d, const trm_stages *s,
                               int micro, size_t *bytes_out)
{
    trm_ledger l;

    TRM_CHECK(trmi_fullest_ledger(p, d, s, micro, &l));
    *bytes_out = trm_ledger_total(&l);
    return TRM_OK;
}

/* ---- stages ---- */

static trm_status cut(const trmi_planner *p, trmi_division *d, const trm_parallel *l, int micro,
                      size_t memory, trm_stages *stages_out)
{
    int ranks = l->data * l->tensor * l->pipeline, busy = trmi_busy_ranks(p->options, ranks);
    struct messages m = messages_of(p, l, busy);
    size_t staging = 0, nodes = (size_t)d->local->node_count + 1;
    trm_stage_costs costs = {.weight_bytes = d->weight_bytes,
                             .value_bytes = d->value_bytes,
                             .node_bytes = d->kv_bytes,
                             .message_us = message_us,
                             .ctx = &m,
                             .messages = trm_rates_is_gpu(p->options->rates)
                                             ? 2 /* the others wait in the host's memory */
                                             : ring_messages(p, d, micro),
                             .memory_bytes = memory};
    double *us = trm_malloc(nodes, sizeof(double));
    trmi_costs *k;
    trm_status st;

    if (us == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "plan of %d nodes", d->local->node_count);
    TRM_TRY(st,
            trmi_division_costs(p, d, busy, apart(p, l, 0) ? TRM_LINK_NETWORK : TRM_LINK_HOST,
                                l->pipeline, &k),
            done);
    for (int n = 0; n < d->local->node_count; n++)
        us[n] = k->node_us[n] + k->dispatch_us[n];
    for (int v = 0; v < d->local->value_count; v++)
        staging = d->weights[v].staging > staging ? d->weights[v].staging : staging;
    costs.node_us = us;
    costs.activation_bytes = d->activation_bytes + beside_bytes(p, d, staging);
    st = trm_stages_cut(d->local, &costs, l->pipeline, stages_out);
done:
    trm_free(us);
    return st;
}

/* The allowance for activations in `cut` is that of the whole graph: where that refuses, stages
 * may still fit. The tightest limit that some cut meets, by halving, while that helps. */
static trm_status cut_tightly(const trmi_planner *p, trmi_division *d, const trm_parallel *l,
                              int micro, trm_stages *stages_inout, size_t *bytes_inout)
{
    size_t low = p->limit, high = *bytes_inout + d->activation_bytes;

    for (int i = 0; i < 12 && low + 4096 < high && *bytes_inout > p->limit; i++) {
        size_t middle = low + (high - low) / 2, bytes;
        trm_stages s;
        trm_status st = cut(p, d, l, micro, middle, &s);

        if (st == TRM_ERR_NO_MEMORY) {
            low = middle;
            continue;
        }
        TRM_CHECK(st);
        high = middle;
        TRM_CHECK(fullest_rank(p, d, &s, micro, &bytes));
        if (bytes < *bytes_inout) {
            *bytes_inout = bytes;
            *stages_inout = s;
        }
    }
    return TRM_OK;
}

/* Cuts, within the limit if that can be; *bytes_out: of the fullest rank. */
static trm_status cut_to_fit(const trmi_planner *p, trmi_division *d, const trm_parallel *l,
                             int micro, trm_stages *stages_out, size_t *bytes_out)
{
    size_t weights = 0;
    trm_status st;

    TRM_CHECK(cut(p, d, l, micro, 0, stages_out));
    TRM_CHECK(fullest_rank(p, d, stages_out, micro, bytes_out));
    for (int v = 0; v < d->local->value_count; v++)
        weights += d->weight_bytes[v];
    if (*bytes_out <= p->limit || l->pipeline == 1 ||
        weights / (size_t)l->pipeline > p->limit) /* no cut helps */
        return TRM_OK;
    st = cut(p, d, l, micro, p->limit, stages_out);
    if (st == TRM_ERR_NO_MEMORY)
        return cut_tightly(p, d, l, micro, stages_out, bytes_out);
    TRM_CHECK(st);
    return fullest_rank(p, d, stages_out, micro, bytes_out);
}

/* ---- time ---- */

static trm_status predict_time(const trmi_planner *p, trmi_division *d, trm_candidate *c,
                               const trm_stages *s)
{
    const trm_parallel *l = &c->parallel;
    int ranks = l->data * l->tensor * l->pipeline, hosts = 1;
    int on_host = trmi_ranks_of_host(p->options, ranks, &hosts);
    int group = l->tensor < on_host ? l->tensor : on_host; /* of one tensor group, on one host */
    int alone = trmi_busy_ranks(p->options, group);
    trm_link_kind link = apart(p, l, 0) ? TRM_LINK_NETWORK : TRM_LINK_HOST;
    struct messages m = messages_of(p, l, alone);
    double cores = trmi_host_room(p->options), messages = 0, around = around_us(p, d, l, &m),
           sum = around, slowest = 0, period, work;
    trmi_costs *k;

    for (int i = 0; i + 1 < s->count; i++)
        messages += message_us(&m, s->crossing_bytes[i]);
    TRM_CHECK(trmi_division_costs(p, d, alone, link, l->pipeline, &k));
    c->compute_us = k->compute_us + k->all_dispatch_us;
    c->collective_us = k->collective_us + messages + around;
    c->step_us = (c->compute_us + c->collective_us) * fmax(1, group / cores);
    /* all ranks at once */
    for (int i = 0; i < s->count; i++) {
        sum += s->stage_us[i];
        slowest = fmax(slowest, s->stage_us[i]);
    }
    if (s->count == 1)
        slowest = sum;
    if (s->count == 1 && l->tensor == 1) { /* an accelerator copies beside its computing */
        double copies = copies_us(p, d, &m);

        slowest = fmax(sum - copies, copies);
        sum = slowest;
    }
    work = sum * l->tensor * l->data / hosts / cores;
    period = fmax(fmax(slowest, sum / c->micro_batches), work);
    c->records_s = (double)p->batch * l->data * 1e6 / period;
    c->bubble = s->count == 1 ? 0 : fmax(0, 1 - (sum - around) / (s->count * period));
    return TRM_OK;
}

/* Stages, memory and micro-batches of c for division `d`, where they are better than c has. */
static trm_status try_division(const trmi_planner *p, trmi_division *d, trm_candidate *c,
                               trm_stages *stages_inout, trmi_division **division_inout)
{
    int stages = c->parallel.pipeline;

    /* twice as many as stages hide uneven times; where they do not fit, as many as stages */
    for (int round = 0; round < 2 && (*division_inout == NULL || c->memory > p->limit); round++) {
        int micro = stages == 1 ? 1 : p->free_batch && round == 0 ? 2 * stages : stages;
        trm_stages s;
        size_t memory;

        TRM_CHECK(cut_to_fit(p, d, &c->parallel, micro, &s, &memory));
        if (*division_inout != NULL && memory >= c->memory)
            continue;
        *stages_inout = s;
        *division_inout = d;
        c->memory = memory;
        c->micro_batches = micro;
    }
    return TRM_OK;
}

trm_status trmi_predict(trmi_planner *p, trm_candidate *c, trm_stages *stages_out,
                        trmi_division **division_out)
{
    const trm_parallel *l = &c->parallel;
    char bytes[TRMI_BYTES_TEXT], limit[TRMI_BYTES_TEXT];
    int ranks = l->data * l->tensor * l->pipeline;
    int busy = trmi_busy_ranks(p->options,
                               p->options->objective == TRM_OBJECTIVE_LATENCY ? l->tensor : ranks);
    trm_link_kind link = apart(p, l, 0) ? TRM_LINK_NETWORK : TRM_LINK_HOST;
    trmi_division *d;

    *division_out = NULL;
    TRM_CHECK(trmi_division_get(p, l->tensor, 0, busy, link, &d));
    if (l->pipeline > d->local->node_count) {
        (void)snprintf(c->reason, sizeof(c->reason),
                       "the model has only %d nodes, so pipeline=%d at most", d->local->node_count,
                       d->local->node_count);
        return TRM_OK;
    }
    TRM_CHECK(try_division(p, d, c, stages_out, division_out));
    if (c->memory > p->limit && l->tensor > 1) {
        bool gpu = trm_rates_is_gpu(p->options->rates);
        size_t other = d->activation_bytes + (gpu ? beside_bytes(p, d, 0) : 2 * d->slot_bytes) +
                       d->all_kv_bytes / (size_t)l->pipeline;
        size_t room = p->limit > other ? p->limit - other : 1;

        if (gpu && trm_dtype_bytes(p->options->dtype) == 2)
            room *= 2; /* the search counts weights as the file has them */

        TRM_CHECK(trmi_division_get(p, l->tensor, room * (size_t)l->pipeline, busy, link, &d));
        if (d->failed == TRM_OK)
            TRM_CHECK(try_division(p, d, c, stages_out, division_out));
    }
    TRM_CHECK(predict_time(p, *division_out, c, stages_out));
    TRM_CHECK(trmi_predict_phases(p, *division_out, stages_out, link, c));
    c->fits = c->memory <= p->limit;
    if (!c->fits)
        (void)snprintf(c->reason, sizeof(c->reason), "needs %s a rank, the limit is %s",
                       trmi_bytes_text(c->memory, bytes), trmi_bytes_text(p->limit, limit));
    return TRM_OK;
}
