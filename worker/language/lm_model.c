/* See lm_model.h. */
#include "worker/language/lm_model.h"

#include "base/f8.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernels/language.h"
#include "worker/model_layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BATCH 64
#define STEP_TOKENS 512
/* On a device with memory of its own: products of so many rows fill a card with tiles of 128 x 256
 * (4096 features: 128 of them on 132 multiprocessors), as twice as many rows would, and a step
 * takes half as long: what those wait for that decode beside a prompt. 256 streams of 512 tokens in
 * and 256 out bring 512 prompt tokens a step, so that most steps are alike. */
#define STEP_TOKENS_DEVICE 1024
#define KV_BYTES ((int64_t)1 << 30)
#define CONTEXT_LEAST 8192 /* positions that must fit where no context is asked for */
#define PAGES_MAX (INT32_MAX / TRM_KV_PAGE)

/* In integers: fp8 is of the floats, whose products keep activations as bf16 ones do. */
static bool is_quantised(const trm_graph *g)
{
    for (int v = 0; v < g->value_count; v++) {
        trm_dtype dtype = g->values[v].desc.dtype;

        if (trm_graph_is_constant(g, v) && trm_dtype_is_block(dtype) && !trm_dtype_is_f8(dtype))
            return true;
    }
    return false;
}

trm_language_options trm_lm_language_options(const trm_lm_options *o)
{
    bool device = o->device_memory;

    return (trm_language_options){
        .no_tokenizer = true,
        .context = o->context,
        .dtype = !device && o->layout.dtype == TRM_DTYPE_BF16 ? TRM_DTYPE_BF16 : TRM_DTYPE_NONE,
        .as_weights = device && o->layout.dtype != TRM_DTYPE_F32};
}

/* What products round activations to: the first one that does; F32: none. */
static trm_dtype act_dtype(const trm_graph *g)
{
    for (int n = 0; n < g->node_count; n++)
        if (g->nodes[n].op == TRM_OP_TrmLinear) {
            const char *act = trm_attr_string(&g->nodes[n].attrs, "act", NULL);

            if (act != NULL)
                return strcmp(act, "f16") == 0 ? TRM_DTYPE_F16 : TRM_DTYPE_BF16;
        }
    return TRM_DTYPE_F32;
}

static trm_dtype settle_kv_dtype(const trm_language *l, const trm_lm_options *o)
{
    trm_dtype dtype = o->kv_dtype;

    if (dtype == TRM_DTYPE_NONE)
        dtype = is_quantised(l->graph) ? TRM_DTYPE_F16
                : o->device_memory     ? act_dtype(l->graph)
                                       : TRM_DTYPE_F32;
    return dtype;
}

int64_t trm_lm_pages_max(const trm_lm_options *o, const trm_scheduler_limits *limits)
{
    int64_t one = (limits->context + TRM_KV_PAGE - 1) / TRM_KV_PAGE, most = one * limits->batch;

    if (!o->device_memory || o->kv_bytes > 0 || limits->encoder)
        return 0;
    return most < PAGES_MAX ? most : PAGES_MAX;
}

void trm_lm_fill(const trm_lm_options *o, int64_t pages, trm_scheduler_limits *limits)
{
    int64_t most = trm_lm_pages_max(o, limits);

    if (most == 0)
        return;
    limits->pages = (int)(pages < most ? pages : most);
    if (o->context == 0 && (int64_t)limits->pages * TRM_KV_PAGE < limits->context)
        limits->context = limits->pages * TRM_KV_PAGE;
}

static trm_status settle_pages(const trm_language *l, const trm_lm_options *o,
                               trm_scheduler_limits *limits, trm_dtype kv_dtype)
{
    size_t page = trm_lm_page_bytes(l->graph, kv_dtype);
    int64_t least = (limits->context + TRM_KV_PAGE - 1) / TRM_KV_PAGE, most, pages;

    if (page == 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s: the model has no attention with a cache",
                        l->path);
    if (o->kv_bytes > 0) {
        pages = o->kv_bytes / (int64_t)page;
        if (pages < least)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "a KV cache of %" PRId64 " bytes holds %" PRId64
                            " tokens, the context is %d: want at least %" PRId64
                            " bytes (kv_cache, --kv-cache), or a smaller context",
                            o->kv_bytes, pages * TRM_KV_PAGE, limits->context,
                            least * (int64_t)page);
    } else if (o->device_memory) {
        pages = o->context == 0 && least > CONTEXT_LEAST / TRM_KV_PAGE ? CONTEXT_LEAST / TRM_KV_PAGE
                                                                       : least;
    } else {
        most = least * limits->batch;
        pages = KV_BYTES / (int64_t)page;
        pages = pages > most ? most : pages;
        pages = pages < least ? least : pages;
    }
    if (pages > PAGES_MAX)
        pages = PAGES_MAX;
    limits->pages = (int)pages;
    return TRM_OK;
}

trm_status trm_lm_settle(const trm_language *l, const trm_lm_options *o,
                         trm_scheduler_limits *limits_out, trm_dtype *kv_dtype_out)
{
    trm_scheduler_limits limits = {.batch = o->batch > 0 ? o->batch : BATCH,
                                   .step_tokens = o->step_tokens > 0 ? o->step_tokens
                                                  : o->device_memory ? STEP_TOKENS_DEVICE
                                                                     : STEP_TOKENS,
                                   .vocabulary = l->config.vocabulary,
                                   .flights = 1,
                                   .prefix = !o->no_prefix,
                                   .encoder = l->encoder,
                                   .decode_budget_us = o->decode_budget_us};
    int64_t context = o->context > 0 ? o->context : l->config.context;
    trm_dtype kv_dtype;

    kv_dtype = settle_kv_dtype(l, o);
    if (context < 1 || context > INT32_MAX / 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: a context of %" PRId64, l->path, context);
    limits.context = (int)context;
    if (l->encoder) { /* a sequence is one piece */
        if (limits.step_tokens < limits.context)
            limits.step_tokens = limits.context;
    } else {
        TRM_CHECK(settle_pages(l, o, &limits, kv_dtype));
    }
    if (limits.step_tokens < limits.batch)
        limits.step_tokens = limits.batch;
    *limits_out = limits;
    *kv_dtype_out = kv_dtype;
    return TRM_OK;
}

static trm_phase phase(const char *name, const trm_scheduler_limits *l, int64_t sequences,
                       int64_t tokens, int64_t context)
{
    context = context < l->context ? context : l->context;
    return (trm_phase){.name = name,
                       .sequences = sequences < l->batch ? sequences : l->batch,
                       .tokens = tokens < context ? tokens : context,
                       .context = context};
}

void trm_lm_phases(const trm_scheduler_limits *l, trm_phase phases_out[TRM_LM_PHASES])
{
    phases_out[0] = phase("decode", l, 1, 1, 1024);
    phases_out[1] = phase("decode", l, 64, 1, 1024);
    phases_out[2] = phase("prefill", l, 8, 2048, 2048);
}

/* ---- opening ---- */

struct opening {
    trm_lm_model *m;
    trm_tensor *inputs;
};

/* Layouts are chosen by what decodes: the planner sees one token of each sequence of a middling
 * batch. */
static trm_status plan_inputs(void *ctx, const trm_graph *g, const trm_tensor **inputs_out)
{
    struct opening *o = ctx;
    TRM_CHECK(trm_lm_plan_inputs(g, o->m->limits.step_tokens, o->m->limits.batch, &o->inputs));
    *inputs_out = o->inputs;
    return TRM_OK;
}

/* Kernels are chosen before there is a step that says it. */
static trm_status tell_kv_dtype(trm_graph *g, trm_dtype kv_dtype)
{
    for (int n = 0; n < g->node_count; n++)
        if (g->nodes[n].op == TRM_OP_TrmPagedAttention)
            TRM_CHECK(trm_attr_set_string(&g->nodes[n].attrs, g->arena, "kv_dtype",
                                          trm_dtype_name(kv_dtype)));
    return TRM_OK;
}

/* Weights stay as the file has them, and activations are rounded to no other type than theirs. */
static void warn_of_dtype(const trm_graph *g, const trm_lm_options *o)
{
    trm_dtype asked = o->layout.dtype, done = act_dtype(g);
    bool blocks = is_quantised(g);

    if (asked == TRM_DTYPE_NONE || asked == TRM_DTYPE_F32 || (!blocks && done == asked) ||
        (o->layout.job != NULL && o->layout.job->rank != 0))
        return;
    if (blocks)
        TRM_LOG(TRM_LOG_WARN, "language", "dtype %s changes nothing: weights are quantised",
                trm_dtype_name(asked));
    else if (done == TRM_DTYPE_F32)
        TRM_LOG(TRM_LOG_WARN, "language",
                "dtype %s changes nothing: weights have another type, activations stay f32",
                trm_dtype_name(asked));
    else
        TRM_LOG(TRM_LOG_WARN, "language",
                "dtype %s: activations are rounded to %s in products, as the weights are",
                trm_dtype_name(asked), trm_dtype_name(done));
}

static trm_status prepare(trm_lm_model *m, const char *path, const trm_lm_options *o)
{
    const trm_language_options lo = trm_lm_language_options(o);

    if (!o->device_memory && o->layout.dtype == TRM_DTYPE_F16)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "dtype fp16: on the CPU language models compute with fp32 or bf16 "
                        "activations");
    TRM_CHECK(trm_language_open(path, &lo, &m->language));
    m->layout.graph = m->language->graph;
    m->layout.language = m->language;
    m->layout.path = m->language->path;
    warn_of_dtype(m->language->graph, o);
    TRM_CHECK(trm_lm_settle(m->language, o, &m->limits, &m->kv_dtype));
    TRM_CHECK(tell_kv_dtype(m->layout.graph, m->kv_dtype));
    TRM_CHECK(trm_pass_prepare(m->layout.graph, NULL));
    return trmi_check_operators(path, m->layout.graph, m->layout.device);
}

/* Ranks of this host for each of its devices. */
static int sharers(const trm_lm_model *m, const trm_lm_options *o)
{
    const trm_tensor_model_options *l = &o->layout;
    int here = 0, devices = m->layout.planned.devices;

    for (int r = 0; l->job != NULL && r < l->job->size; r++)
        here += l->hosts == NULL || l->hosts[r] == l->hosts[l->job->rank] ? 1 : 0;
    return devices > 0 && here > devices ? (here + devices - 1) / devices : 1;
}

/* What this rank may fill of the device's memory in all, and what of it nobody has taken; 0: not
 * known. */
static void memory_here(const trm_lm_model *m, const trm_lm_options *o, size_t *limit_out,
                        size_t *free_out)
{
    trm_device *d = m->layout.device;
    size_t share = (size_t)sharers(m, o), bytes = 0;
    trm_rates *rates = NULL;
    trm_device_info info;

    *limit_out = o->layout.memory_bytes;
    *free_out = 0;
    if (trm_rates_known(d, &rates) != TRM_OK)
        return;
    d->ops->info(d, &info);
    if (*limit_out == 0)
        *limit_out = trm_rates_usable_bytes(rates, info.memory_bytes / share);
    /* others that share the device may have begun to fill it: then its division holds */
    if (d->ops->memory_free != NULL && share == 1 && d->ops->memory_free(d, &bytes) == TRM_OK)
        *free_out = trm_rates_usable_bytes(rates, bytes);
    trm_rates_destroy(rates);
}

/* The pages that this rank has room for, now that weights and the largest step's buffers are there
 * and need not be guessed as in the plan. */
static int64_t pages_here(const trm_lm_model *m, const trm_lm_options *o)
{
    const trm_tensor_model *t = &m->layout;
    int at = t->place.stage * t->parallel.tensor + t->place.shard;
    size_t limit, unused, page, weights, rest;
    trm_engine_stats stats;
    trm_ledger l;
    int64_t pages;

    if (t->plan == NULL || at >= t->plan->ledger_count || t->plan->kv_tokens < TRM_KV_PAGE)
        return m->limits.pages;
    l = t->plan->ledger[at];
    pages = t->plan->kv_tokens / TRM_KV_PAGE;
    page = l.kv / (size_t)pages;
    if (page == 0)
        return pages;
    memory_here(m, o, &limit, &unused);
    trm_engine_get_stats(trm_lm_replica_engine(m->replica), &stats);
    weights = t->device->packed_bytes + stats.constant_bytes;
    TRM_LOG(TRM_LOG_INFO, "language",
            "weights %.1f MB, activations %.1f, workspace %.1f; %.1f MB of %.1f are left",
            (double)weights / 1e6, (double)stats.arena_bytes / 1e6,
            (double)stats.workspace_bytes / 1e6, (double)unused / 1e6, (double)limit / 1e6);
    if (limit > 0) {
        l.kv = 0;
        l.weights = weights;
        l.activations = stats.arena_bytes;
        l.workspace = stats.workspace_bytes > l.workspace ? stats.workspace_bytes : l.workspace;
        rest = trm_ledger_total(&l);
        pages = limit > rest ? (int64_t)((limit - rest) / page) : 0;
    }
    if (unused > 0 && pages > (int64_t)(unused / page))
        pages = (int64_t)(unused / page);
    return pages;
}

/* All ranks of a replica have the same pages: as many as the fullest has room for. Collective over
 * the replica. */
static trm_status fill_cache(trm_lm_model *m, const trm_lm_options *o)
{
    int64_t pages, most = trm_lm_pages_max(o, &m->limits), least = m->limits.pages;

    if (most == 0)
        return TRM_OK;
    pages = -pages_here(m, o);
    if (m->layout.replica_comm != NULL)
        TRM_CHECK(trm_comm_allreduce(m->layout.replica_comm, &pages, &pages, 1, TRM_DTYPE_I64,
                                     TRM_REDUCE_MAX));
    if (-pages < least)
        return trm_fail(TRM_ERR_NO_MEMORY,
                        "the KV cache of %" PRId64 " tokens does not fit beside the weights: there "
                        "is room for %" PRId64 "; want a smaller context, or a smaller KV cache "
                        "(kv_cache, --kv-cache)",
                        least * TRM_KV_PAGE, -pages > 0 ? -pages * TRM_KV_PAGE : 0);
    trm_lm_fill(o, -pages, &m->limits);
    TRM_LOG(TRM_LOG_INFO, "language", "KV cache: %d pages, %" PRId64 " tokens, context %d",
            m->limits.pages, (int64_t)m->limits.pages * TRM_KV_PAGE, m->limits.context);
    return TRM_OK;
}

static trm_status load(trm_lm_model *m, const trm_lm_options *o)
{
    trm_lm_replica_options ro;
    trm_generator_options go;
    trm_status st;

    if (m->layout.place.replica >= m->layout.parallel.data)
        return TRM_OK;
    ro = (trm_lm_replica_options){.model = &m->layout,
                                  .encoder = m->limits.encoder,
                                  .kv_dtype = m->kv_dtype,
                                  .batch = m->limits.batch,
                                  .step_tokens = m->limits.step_tokens,
                                  .picks = m->limits.batch + TRM_SCHEDULER_SCORES_MAX,
                                  .profile = o->layout.profile};
    st = trm_lm_replica_create(&ro, &m->replica);
    if (st == TRM_OK)
        st = fill_cache(m, o);
    if (st == TRM_OK)
        st = trm_lm_replica_begin(m->replica, m->limits.encoder ? 0 : m->limits.pages,
                                  m->limits.context);
    if (st == TRM_ERR_NO_MEMORY)
        trmi_layout_explain(&m->layout);
    TRM_CHECK(st);
    if (!trm_lm_replica_leads(m->replica))
        return TRM_OK;
    if (o->tokenizer && !o->text_early)
        TRM_CHECK(trm_language_read_text(m->language, o->chat_template));
    go = (trm_generator_options){
        .language = m->language, .limits = m->limits, .replica = m->replica};
    return trm_generator_create(&go, &m->generator);
}

trm_status trm_lm_model_begin(const char *path, trm_device *device, const trm_lm_options *options,
                              trm_lm_model **model_out)
{
    trm_lm_model *m = trm_calloc(1, sizeof(*m));
    trm_lm_options o = *options;
    bool may_lead = options->layout.job == NULL || options->layout.replica_comm == NULL ||
                    trm_comm_rank(options->layout.replica_comm) == 0;

    if (m == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "model '%s'", path);
    m->layout.device = device;
    o.device_memory = !device->host_memory;
    m->layout.begun = prepare(m, path, &o);
    if (m->layout.begun == TRM_OK && options->text_early && may_lead)
        m->layout.begun = trm_language_read_text(m->language, options->chat_template);
    if (m->layout.begun != TRM_OK)
        snprintf(m->layout.begun_text, sizeof(m->layout.begun_text), "%s", trm_message());
    *model_out = m;
    return TRM_OK;
}

trm_status trm_lm_model_finish(trm_lm_model *m, const trm_lm_options *options)
{
    struct opening opening = {.m = m};
    trm_lm_options o = *options;
    trm_phase phases[TRM_LM_PHASES];
    trm_status st =
        m->layout.begun == TRM_OK ? TRM_OK : trm_fail(m->layout.begun, "%s", m->layout.begun_text);

    o.device_memory = !m->layout.device->host_memory;
    o.layout.inputs = plan_inputs;
    o.layout.ctx = &opening;
    o.layout.batch = m->limits.batch;
    o.layout.kv_tokens = m->limits.encoder ? 0 : (int64_t)m->limits.pages * TRM_KV_PAGE;
    o.layout.kv_tokens_max = trm_lm_pages_max(&o, &m->limits) * TRM_KV_PAGE;
    o.layout.kv_dtype = m->kv_dtype;
    if (o.device_memory && !m->limits.encoder) {
        trm_lm_phases(&m->limits, phases);
        o.layout.phases = phases;
        o.layout.phase_count = TRM_LM_PHASES;
    }
    o.layout.dtype = TRM_DTYPE_NONE; /* it is in the graph */
    TRM_TRY(st, trmi_layout_plan(&m->layout, &o.layout, st), fail);
    TRM_TRY(st, trmi_layout_groups(&m->layout, &o.layout), fail);
    st = load(m, &o);
    if (o.layout.job != NULL)
        st = trm_job_agree(o.layout.job, st, TRMI_OPEN_TIMEOUT_MS);
    if (st != TRM_OK)
        goto fail;
    trm_free(opening.inputs);
    return TRM_OK;
fail:
    trm_free(opening.inputs);
    trm_lm_model_close(m);
    return st;
}

trm_status trm_lm_model_open(const char *path, trm_device *device, const trm_lm_options *options,
                             trm_lm_model **model_out)
{
    trm_lm_model *m = NULL;

    TRM_CHECK(trm_lm_model_begin(path, device, options, &m));
    TRM_CHECK(trm_lm_model_finish(m, options));
    *model_out = m;
    return TRM_OK;
}

void trm_lm_model_close(trm_lm_model *m)
{
    if (m == NULL)
        return;
    trm_generator_destroy(m->generator);
    trm_lm_replica_destroy(m->replica);
    trmi_layout_close(&m->layout);
    trm_language_close(m->language);
    trm_free(m);
}

bool trm_lm_model_leads(const trm_lm_model *m)
{
    return m->generator != NULL;
}
