/* See lm_model.h. */
#include "worker/language/lm_model.h"

#include "base/memory.h"
#include "kernels/language.h"
#include "worker/model_layout.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BATCH 64
#define STEP_TOKENS 512
#define KV_BYTES ((int64_t)1 << 30)

static bool is_quantised(const trm_graph *g)
{
    for (int v = 0; v < g->value_count; v++)
        if (trm_graph_is_constant(g, v) && trm_dtype_is_block(g->values[v].desc.dtype))
            return true;
    return false;
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
    } else {
        most = least * limits->batch;
        pages = KV_BYTES / (int64_t)page;
        pages = pages > most ? most : pages;
        pages = pages < least ? least : pages;
    }
    if (pages > INT32_MAX / TRM_KV_PAGE)
        pages = INT32_MAX / TRM_KV_PAGE;
    limits->pages = (int)pages;
    return TRM_OK;
}

trm_status trm_lm_settle(const trm_language *l, const trm_lm_options *o,
                         trm_scheduler_limits *limits_out, trm_dtype *kv_dtype_out)
{
    trm_scheduler_limits limits = {.batch = o->batch > 0 ? o->batch : BATCH,
                                   .step_tokens = o->step_tokens > 0 ? o->step_tokens : STEP_TOKENS,
                                   .vocabulary = l->config.vocabulary,
                                   .flights = 1,
                                   .prefix = !o->no_prefix,
                                   .encoder = l->encoder,
                                   .decode_budget_us = o->decode_budget_us};
    int64_t context = o->context > 0 ? o->context : l->config.context;
    trm_dtype kv_dtype = o->kv_dtype;

    if (context < 1 || context > INT32_MAX / 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: a context of %" PRId64, l->path, context);
    limits.context = (int)context;
    if (kv_dtype == TRM_DTYPE_NONE)
        kv_dtype = is_quantised(l->graph) ? TRM_DTYPE_F16 : TRM_DTYPE_F32;
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

trm_status trm_lm_plan_inputs(const trm_graph *g, int64_t tokens, int64_t picks,
                              trm_tensor **inputs_out)
{
    trm_tensor *in = trm_calloc((size_t)g->input_count + 1, sizeof(*in));

    if (in == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "shapes of a step");
    for (int i = 0; i < g->input_count; i++) {
        const trm_value *v = &g->values[g->inputs[i]];

        in[i] = v->desc;
        in[i].data = NULL;
        for (int d = 0; d < in[i].rank; d++)
            if (in[i].dims[d] < 0)
                in[i].dims[d] =
                    strcmp(v->name, "rows") == 0 || strcmp(v->name, "step") == 0 ? picks : tokens;
    }
    *inputs_out = in;
    return TRM_OK;
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

static trm_status prepare(trm_lm_model *m, const char *path, const trm_lm_options *o)
{
    const trm_language_options lo = {
        .no_tokenizer = true, .context = o->context, .dtype = o->layout.dtype};

    TRM_CHECK(trm_language_open(path, &lo, &m->language));
    m->layout.graph = m->language->graph;
    m->layout.language = m->language;
    m->layout.path = m->language->path;
    TRM_CHECK(trm_lm_settle(m->language, o, &m->limits, &m->kv_dtype));
    TRM_CHECK(trm_pass_prepare(m->layout.graph, NULL));
    return trmi_check_operators(path, m->layout.graph, m->layout.device);
}

static trm_status load(trm_lm_model *m, const trm_lm_options *o)
{
    trm_lm_replica_options ro = {.model = &m->layout,
                                 .pages = m->limits.encoder ? 0 : m->limits.pages,
                                 .kv_dtype = m->kv_dtype,
                                 .batch = m->limits.batch,
                                 .step_tokens = m->limits.step_tokens,
                                 .picks = m->limits.batch + TRM_SCHEDULER_SCORES_MAX,
                                 .context = m->limits.context,
                                 .profile = o->layout.profile};
    trm_generator_options go = {.language = m->language, .limits = m->limits};

    if (m->layout.place.replica >= m->layout.parallel.data)
        return TRM_OK;
    TRM_CHECK(trm_lm_replica_create(&ro, &m->replica));
    if (!trm_lm_replica_leads(m->replica))
        return TRM_OK;
    if (o->tokenizer && !o->text_early)
        TRM_CHECK(trm_language_read_text(m->language, o->chat_template));
    go.replica = m->replica;
    return trm_generator_create(&go, &m->generator);
}

trm_status trm_lm_model_begin(const char *path, trm_device *device, const trm_lm_options *options,
                              trm_lm_model **model_out)
{
    trm_lm_model *m = trm_calloc(1, sizeof(*m));
    bool may_lead = options->layout.job == NULL || options->layout.replica_comm == NULL ||
                    trm_comm_rank(options->layout.replica_comm) == 0;

    if (m == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "model '%s'", path);
    m->layout.device = device;
    m->layout.begun = prepare(m, path, options);
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
    trm_status st =
        m->layout.begun == TRM_OK ? TRM_OK : trm_fail(m->layout.begun, "%s", m->layout.begun_text);

    o.layout.inputs = plan_inputs;
    o.layout.ctx = &opening;
    o.layout.batch = m->limits.batch;
    o.layout.kv_tokens = m->limits.encoder ? 0 : (int64_t)m->limits.pages * TRM_KV_PAGE;
    o.layout.kv_dtype = m->kv_dtype;
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
