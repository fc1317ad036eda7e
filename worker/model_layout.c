/* A model over the ranks of a job: rank 0 plans, all take their places, groups are made. */
#include "worker/model_layout.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

/* Whether there is something to choose, or a limit to keep. */
static bool is_asked_for(const trm_tensor_model_options *o)
{
    const trm_parallel *p = &o->parallel;

    if (o->memory_bytes > 0)
        return true;
    if (o->job->size == 1) /* whatever is free can only be 1 */
        return p->data > 1 || p->tensor > 1 || p->pipeline > 1;
    return p->tensor != 1 || p->pipeline != 1;
}

/* On a device with memory of its own there is always a limit: what does not fit is told before
 * anything is loaded. Rank 0 decides for all: their devices may differ. */
static trm_status needs_plan(const trm_tensor_model *m, const trm_tensor_model_options *o,
                             bool *needs_out)
{
    unsigned char needs = is_asked_for(o) || (!m->device->host_memory && m->graph->node_count > 0);

    if (o->job->size > 1)
        TRM_CHECK(trm_job_bcast(o->job, &needs, 1, 0, TRMI_OPEN_TIMEOUT_MS));
    *needs_out = needs != 0;
    return TRM_OK;
}

/* Replicas of one rank each: nothing to plan. */
static trm_status without_plan(trm_tensor_model *m, const trm_tensor_model_options *o)
{
    m->parallel = (trm_parallel){
        .data = o->parallel.data > 0 ? o->parallel.data : o->job->size, .tensor = 1, .pipeline = 1};
    if (m->parallel.data > o->job->size)
        return trm_fail(TRM_ERR_INVALID_ARG, "--parallel data=%d wants %d ranks, there are %d",
                        m->parallel.data, m->parallel.data, o->job->size);
    return TRM_OK;
}

/* Devices that the ranks of rank 0's host have between them; 0: memory is the host's. */
static trm_status count_devices(const trm_tensor_model *m, const trm_tensor_model_options *o,
                                int *count_out)
{
    trm_device_info info;
    char(*seen)[sizeof(info.identity)] = trm_calloc((size_t)o->job->size, sizeof(info.identity));
    trm_status st = TRM_OK;
    int count = 0;

    if (seen == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "devices of %d ranks", o->job->size);
    for (int r = 0; r < o->job->size && st == TRM_OK; r++) {
        bool known = false;

        if (o->hosts != NULL && o->hosts[r] != o->hosts[0])
            continue;
        m->device->ops->info(m->device, &info);
        if (o->job->size > 1)
            st = trm_job_bcast(o->job, info.identity, sizeof(info.identity), r,
                               TRMI_OPEN_TIMEOUT_MS);
        for (int i = 0; i < count && info.identity[0] != '\0'; i++)
            known = known || strncmp(seen[i], info.identity, sizeof(info.identity)) == 0;
        if (!known)
            memcpy(seen[count++], info.identity, sizeof(info.identity));
    }
    trm_free(seen);
    *count_out = count;
    return st;
}

/* What every rank knows of it. */
static trm_plan_options plan_options(const trm_tensor_model *m, const trm_tensor_model_options *o,
                                     int devices)
{
    bool gpu = !m->device->host_memory;

    return (trm_plan_options){.parallel = o->parallel,
                              .ranks = o->job->size,
                              .objective = o->objective,
                              .batch = o->batch > 0 ? o->batch : 1,
                              .threads = o->threads,
                              .cores = o->cores,
                              .devices = gpu ? devices : 0,
                              .staged = gpu && m->device->ops->group == NULL,
                              .dtype = o->dtype == TRM_DTYPE_NONE ? TRM_DTYPE_F32 : o->dtype,
                              .memory_bytes = o->memory_bytes,
                              .kv_tokens = o->kv_tokens,
                              .kv_tokens_max = o->kv_tokens_max,
                              .kv_dtype = o->kv_dtype};
}

static trm_status make_plan(trm_tensor_model *m, const trm_tensor_model_options *o)
{
    bool gpu = !m->device->host_memory, asked = is_asked_for(o), too_big = false;
    trm_plan_options po = m->planned;
    trm_rates *rates = NULL;
    trm_status st;

    po.hosts = o->hosts;
    po.phases = o->phases;
    po.phase_count = o->phase_count;
    po.too_big_out = &too_big;
    if (!asked) { /* replicas of one rank: only whether they fit */
        TRM_CHECK(without_plan(m, o));
        po.parallel = m->parallel;
        po.ranks = m->parallel.data;
    }
    if (o->inputs != NULL)
        TRM_CHECK(o->inputs(o->ctx, m->graph, &po.inputs));
    /* measuring takes seconds: not to start one rank, whose layout no measurement changes, and not
     * beside models that are served, whose layout was settled before */
    if ((gpu && (!asked || o->job->size == 1)) || o->replica_comm != NULL)
        TRM_CHECK(trm_rates_known(m->device, &rates));
    else
        TRM_CHECK(trm_rates_of_device(m->device, false, &rates));
    po.rates = rates;
    st = trm_plan_make(m->graph, &po, &m->plan);
    trm_rates_destroy(rates);
    if (st != TRM_OK && !asked && !too_big && st != TRM_ERR_NO_MEMORY) {
        TRM_LOG(TRM_LOG_DEBUG, "plan", "not planned: %s", trm_message());
        return TRM_OK; /* it was not asked for */
    }
    return st;
}

void trmi_layout_explain(void *ctx)
{
    trm_tensor_model *m = ctx;
    trm_plan_options o = m->planned;
    char said[400], text[900];
    trm_rates *rates = NULL;
    size_t bytes = 0;

    if (m->device->host_memory || m->plan == NULL)
        return;
    snprintf(said, sizeof(said), "%s", trm_message());
    if (m->device->ops->memory_free != NULL &&
        m->device->ops->memory_free(m->device, &bytes) != TRM_OK)
        bytes = 0;
    bytes += bytes > 0 ? m->device->packed_bytes : 0; /* what this rank holds is its own */
    if (trm_rates_known(m->device, &rates) != TRM_OK)
        rates = NULL;
    o.rates = rates;
    trm_plan_explain_memory(m->plan, m->graph, &o,
                            m->place.stage * m->parallel.tensor + m->place.shard, bytes, text,
                            sizeof(text));
    trm_rates_destroy(rates);
    (void)trm_fail(TRM_ERR_NO_MEMORY, "%s; %s", said, text);
}

/* Rank 0's plan reaches all, who check that it is for the model that they have opened. */
static trm_status share_plan(trm_tensor_model *m, const trm_tensor_model_options *o)
{
    trm_job *job = o->job;
    uint64_t count = 0;
    size_t bytes = 0;
    void *p = NULL;
    trm_status st = TRM_OK;

    if (job->rank == 0 && m->plan != NULL)
        st = trm_plan_encode(m->plan, &p, &bytes);
    count = st == TRM_OK ? bytes : 0;
    if (job->size > 1) {
        trm_status sent = trm_job_bcast(job, &count, sizeof(count), 0, TRMI_OPEN_TIMEOUT_MS);

        if (sent == TRM_OK && job->rank != 0 && count > 0 && (p = trm_malloc(count, 1)) == NULL)
            sent = trm_fail(TRM_ERR_NO_MEMORY, "a plan of %llu bytes", (unsigned long long)count);
        if (sent == TRM_OK && count > 0)
            sent = trm_job_bcast(job, p, count, 0, TRMI_OPEN_TIMEOUT_MS);
        if (sent == TRM_OK && job->rank != 0 && count > 0)
            st = trm_plan_decode(p, count, &m->plan);
        st = sent != TRM_OK ? sent : st;
    }
    trm_free(p);
    if (st == TRM_OK && count > 0 && m->plan != NULL &&
        m->plan->graph_hash != trm_plan_graph_hash(m->graph))
        st = trm_fail(TRM_ERR_CONFIG, "opened another model than rank 0: '%s' differs", m->path);
    return st;
}

static void log_ledger(const trm_tensor_model *m)
{
    int at = m->place.stage * m->parallel.tensor + m->place.shard;
    const trm_ledger *l;

    if (m->plan == NULL || at >= m->plan->ledger_count)
        return;
    l = &m->plan->ledger[at];
    TRM_LOG(TRM_LOG_INFO, "plan",
            "replica %d, stage %d, shard %d: weights %.1f MB (%.1f mapped), activations %.1f, "
            "staging %.1f, communicators %.1f, workspace %.1f, KV cache %.1f, in all %.1f",
            m->place.replica, m->place.stage, m->place.shard, (double)l->weights / 1e6,
            (double)l->mapped / 1e6, (double)l->activations / 1e6, (double)l->staging / 1e6,
            (double)l->communicators / 1e6, (double)l->workspace / 1e6, (double)l->kv / 1e6,
            (double)trm_ledger_total(l) / 1e6);
}

/* All have opened what rank 0 has: a plan's graph hash knows neither weights nor YAML, and without
 * a plan nothing else would see it. */
static trm_status same_model(const trm_tensor_model *m, trm_job *job)
{
    uint64_t mine = 0, first;
    trm_status st = m->language != NULL ? trm_language_identity(m->language, &mine)
                                        : trm_package_identity(m->package, &mine);

    TRM_CHECK(trm_job_agree(job, st, TRMI_OPEN_TIMEOUT_MS));
    first = mine;
    TRM_CHECK(trm_job_bcast(job, &first, sizeof(first), 0, TRMI_OPEN_TIMEOUT_MS));
    if (mine != first)
        st =
            trm_fail(TRM_ERR_CONFIG,
                     "opened another model than rank 0: '%s', weights beside it or its YAML differ",
                     m->path);
    return trm_job_agree(job, st, TRMI_OPEN_TIMEOUT_MS);
}

/* All compute on the same kind of device: plans, and what records are made into, depend on it. */
static trm_status same_kind(const trm_tensor_model *m, trm_job *job)
{
    char first[16];
    const char *mine = m->device->ops->name;
    trm_status st = TRM_OK;

    snprintf(first, sizeof(first), "%s", mine);
    TRM_CHECK(trm_job_bcast(job, first, sizeof(first), 0, TRMI_OPEN_TIMEOUT_MS));
    if (strcmp(first, mine) != 0)
        st = trm_fail(TRM_ERR_CONFIG,
                      "computes on device '%s', rank 0 on '%s': all ranks want the same; choose "
                      "with --device",
                      mine, first);
    return trm_job_agree(job, st, TRMI_OPEN_TIMEOUT_MS);
}

trm_status trmi_layout_plan(trm_tensor_model *m, const trm_tensor_model_options *o,
                            trm_status prepared)
{
    bool needs = false;
    int devices = 0;
    trm_status st;

    m->parallel = (trm_parallel){1, 1, 1};
    if (o == NULL || o->job == NULL)
        return prepared;
    TRM_CHECK(trm_job_agree(o->job, prepared, TRMI_OPEN_TIMEOUT_MS));
    if (o->job->size > 1) {
        TRM_CHECK(same_kind(m, o->job));
        TRM_CHECK(same_model(m, o->job));
    }
    TRM_CHECK(needs_plan(m, o, &needs));
    if (needs) {
        TRM_CHECK(count_devices(m, o, &devices));
        m->planned = plan_options(m, o, devices);
        st = o->job->rank == 0 ? make_plan(m, o) : TRM_OK;
        TRM_CHECK(trm_job_agree(o->job, st, TRMI_OPEN_TIMEOUT_MS));
        TRM_CHECK(trm_job_agree(o->job, share_plan(m, o), TRMI_OPEN_TIMEOUT_MS));
    }
    if (m->plan == NULL)
        TRM_CHECK(without_plan(m, o));
    else
        m->parallel = m->plan->parallel;
    m->place = trm_parallel_place(&m->parallel, o->job->rank);
    log_ledger(m);
    return TRM_OK;
}

/* ---- groups ---- */

static int host_of(const trm_tensor_model_options *o, int rank)
{
    return o->hosts == NULL ? 0 : o->hosts[rank];
}

static trm_status make_group(const trm_tensor_model_options *o, int first, int count,
                             const char *label, int *hosts, trm_comm **mine)
{
    int members[TRM_COMM_RANKS_MAX];
    trm_comm *c = NULL;

    if (count > TRM_COMM_RANKS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s of %d ranks: at most %d", label, count,
                        TRM_COMM_RANKS_MAX);
    for (int i = 0; i < count; i++)
        members[i] = first + i;
    TRM_CHECK(trm_comm_group_create(o->job, hosts, members, count, label, &c));
    if (c != NULL)
        *mine = c;
    return TRM_OK;
}

static trm_status make_groups(trm_tensor_model *m, const trm_tensor_model_options *o, int *hosts)
{
    const trm_parallel *p = &m->parallel;
    int size = p->tensor * p->pipeline;
    char label[64];

    for (int r = 0; r < p->data && size > 1; r++) {
        snprintf(label, sizeof(label), "replica %d", r);
        TRM_CHECK(make_group(o, r * size, size, label, hosts, &m->replica_comm));
        for (int s = 0; s < p->pipeline && p->tensor > 1; s++) {
            snprintf(label, sizeof(label), "replica %d, stage %d", r, s);
            TRM_CHECK(
                make_group(o, r * size + s * p->tensor, p->tensor, label, hosts, &m->stage_comm));
        }
    }
    return TRM_OK;
}

/* ---- weights that replicas of one host have in common ---- */

static size_t weight_bytes(const trm_graph *g)
{
    size_t bytes = 0;

    for (int v = 0; v < g->value_count; v++)
        if (trm_graph_is_constant(g, v))
            bytes += g->values[v].bytes;
    return bytes;
}

/* The ranks of one place (stage, shard) on one host. Collective over the job. */
static trm_status share_place(trm_tensor_model *m, const trm_tensor_model_options *o, int *hosts,
                              int place, int host)
{
    int size = m->parallel.tensor * m->parallel.pipeline, count = 0;
    int members[TRM_COMM_RANKS_MAX];
    trm_comm *equals = NULL;
    char label[64];
    trm_status st;

    for (int r = 0; r < m->parallel.data && count < TRM_COMM_RANKS_MAX; r++)
        if (hosts[r * size + place] == host)
            members[count++] = r * size + place;
    if (count < 2)
        return TRM_OK;
    snprintf(label, sizeof(label), "equals of place %d", place);
    TRM_CHECK(trm_comm_group_create(o->job, hosts, members, count, label, &equals));
    if (equals == NULL)
        return TRM_OK;
    /* packed forms pad their blocks: twice the plain bytes is address space, not memory */
    st = trm_weight_share_open(equals, 2 * weight_bytes(m->graph) + (16u << 20), &m->share);
    trm_comm_destroy(equals);
    if (st == TRM_OK && m->share != NULL)
        m->device->weights = trm_weight_share_store(m->share);
    return st;
}

static trm_status share_weights(trm_tensor_model *m, const trm_tensor_model_options *o, int *hosts)
{
    int places = m->parallel.tensor * m->parallel.pipeline, most = 0;
    trm_status mine = TRM_OK;
    char text[512] = "";

    if (!m->device->host_memory) /* each has its weights in its own device's memory */
        return TRM_OK;
    for (int r = 0; r < o->job->size; r++)
        most = hosts[r] > most ? hosts[r] : most;
    for (int i = 0; m->parallel.data > 1 && i < places * (most + 1); i++) {
        /* all of them, whatever becomes of ours */
        trm_status st = share_place(m, o, hosts, i / (most + 1), i % (most + 1));

        if (o->job->lost)
            return st;
        if (st != TRM_OK && mine == TRM_OK) {
            mine = st;
            snprintf(text, sizeof(text), "%s", trm_message());
        }
    }
    return mine == TRM_OK ? TRM_OK : trm_fail(mine, "%s", text);
}

trm_status trmi_layout_groups(trm_tensor_model *m, const trm_tensor_model_options *o)
{
    int *hosts;
    trm_status st;

    if (o == NULL || o->job == NULL || o->job->size == 1)
        return TRM_OK;
    if (o->replica_comm != NULL) {
        m->replica_comm = o->replica_comm;
        m->stage_comm = o->stage_comm;
        m->borrowed_comms = true;
        return TRM_OK;
    }
    hosts = trm_calloc((size_t)o->job->size, sizeof(*hosts));
    if (hosts == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "hosts of %d ranks", o->job->size);
    for (int r = 0; r < o->job->size; r++)
        hosts[r] = host_of(o, r);
    st = trm_job_agree(o->job, make_groups(m, o, hosts), TRMI_OPEN_TIMEOUT_MS);
    if (st == TRM_OK)
        st = trm_job_agree(o->job, share_weights(m, o, hosts), TRMI_OPEN_TIMEOUT_MS);
    trm_free(hosts);
    return st;
}

uint64_t trmi_layout_weight_space(const trm_tensor_model *m)
{
    uint64_t place = (uint64_t)(m->place.stage * m->parallel.tensor + m->place.shard);

    /* ranks that share have the same program and the same model; only their place could differ, and
     * each place has a segment of its own */
    return m->share == NULL ? 0 : (place + 1) * 0x9e3779b97f4a7c15u;
}

void trmi_layout_close(trm_tensor_model *m)
{
    if (!m->borrowed_comms) {
        trm_comm_destroy(m->stage_comm);
        trm_comm_destroy(m->replica_comm);
    }
    if (m->share != NULL)
        m->device->weights = NULL;
    trm_weight_share_destroy(m->share);
    trm_plan_destroy(m->plan);
    m->stage_comm = m->replica_comm = NULL;
    m->share = NULL;
    m->plan = NULL;
}
