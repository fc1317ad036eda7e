/* Models of a serving replica: opened and closed by all its ranks together. */
#define _GNU_SOURCE
#include "worker/serve_impl.h"

#include "base/file.h"
#include "base/log.h"
#include "base/team.h"
#include "base/wait.h"
#include "worker/language/serve_language.h"
#include "worker/serve_tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WARM_US 100000 /* of steps that nobody has asked for, while a model is loaded */

trmi_slot *trmi_slot_find(const trmi_serve *s, uint32_t id)
{
    for (trmi_slot *slot = s->slots; slot != NULL; slot = slot->next)
        if (slot->id == id)
            return slot;
    return NULL;
}

static trm_dtype dtype_of(const trm_serve_settings *c)
{
    static const trm_dtype dtypes[] = {TRM_DTYPE_NONE, TRM_DTYPE_F32, TRM_DTYPE_BF16,
                                       TRM_DTYPE_F16};

    return dtypes[c->dtype];
}

static trm_tensor_model_options layout_of(const trmi_serve *s, const trm_serve_settings *c)
{
    const trm_serve_options *o = s->o;

    return (trm_tensor_model_options){.dtype = dtype_of(c),
                                      .job = o->job,
                                      .hosts = trm_job_topology(o->job)->host_of,
                                      .parallel = {1, o->tensor, o->pipeline},
                                      .objective = o->objective,
                                      .memory_bytes = o->memory_bytes,
                                      .threads = o->threads,
                                      .cores = o->cores,
                                      .replica_comm = o->replica_comm,
                                      .stage_comm = o->stage_comm};
}

static trm_lm_options language_options(const trmi_serve *s, const trmi_slot *slot)
{
    static const trm_dtype kv_dtypes[] = {TRM_DTYPE_NONE, TRM_DTYPE_F32, TRM_DTYPE_F16,
                                          TRM_DTYPE_BF16, TRM_DTYPE_I8};
    const trm_serve_settings *c = slot->settings;

    return (trm_lm_options){.layout = layout_of(s, c),
                            .context = c->context,
                            .kv_bytes = c->kv_cache,
                            .kv_dtype = kv_dtypes[c->kv_dtype],
                            .batch = (int)c->max_batch,
                            .step_tokens = (int)c->step_tokens,
                            .decode_budget_us = (double)c->decode_budget_us,
                            .no_prefix = !c->prefix_cache,
                            .tokenizer = true,
                            .text_early = true,
                            .chat_template = c->chat_template};
}

static trm_tensor_model_options tensor_options(const trmi_serve *s, const trmi_slot *slot)
{
    trm_tensor_model_options o = layout_of(s, slot->settings);

    o.batch = slot->settings->max_batch > 0 ? slot->settings->max_batch : 32;
    o.programs = (int)o.batch + 16; /* every size of a batch, and some other shapes */
    if (o.parallel.pipeline > 1)
        o.batch = (o.batch + o.parallel.pipeline - 1) / o.parallel.pipeline;
    return o;
}

/* What the configuration says in place of the YAML beside a model. */
static trm_status configure_package(trmi_slot *slot)
{
    const trm_serve_settings *c = slot->settings;
    const struct {
        const char *key;
        const trm_config_node *node;
    } given[] = {{"preprocess", c->preprocess},
                 {"labels", c->labels},
                 {"output", c->output},
                 {"activation", c->activation},
                 {"top_k", c->top_k}};
    json_t *o = json_object();
    char *text = NULL;
    trm_status st = TRM_OK;

    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
        char *one = given[i].node != NULL ? trm_config_node_json(given[i].node, NULL) : NULL;

        if (one != NULL)
            (void)json_object_set_new(o, given[i].key, json_loads(one, JSON_DECODE_ANY, NULL));
        trm_free(one);
    }
    if (json_object_size(o) > 0) {
        text = json_dumps(o, JSON_COMPACT);
        st = text == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "settings of a model")
                          : trm_package_configure(slot->tensor->package, text, slot->name);
    }
    free(text);
    json_decref(o);
    return st;
}

/* ---- opening ---- */

trmi_loading *trmi_loading_find(const trmi_serve *s, uint32_t id)
{
    trmi_loading *l = s->loading;

    while (l != NULL && l->id != id)
        l = l->next;
    return l;
}

/* What needs no other rank. */
static trm_status begin_model(trmi_loading *l)
{
    trmi_slot *slot = l->slot;
    trm_tensor_model_options to;
    trm_lm_options lo;

    if (trm_language_is(l->path)) {
        lo = language_options(l->s, slot);
        return trm_lm_model_begin(l->path, l->s->o->device, &lo, &slot->lm);
    }
    to = tensor_options(l->s, slot);
    return trm_tensor_model_begin(l->path, l->s->o->device, l->folding, &to, &slot->tensor);
}

static void *loading_main(void *ctx)
{
    trmi_loading *l = ctx;

    trm_team_alone();
    l->st = begin_model(l);
    if (l->st != TRM_OK)
        snprintf(l->message, sizeof(l->message), "%s", trm_message());
    __atomic_store_n(&l->done, 1, __ATOMIC_RELEASE);
    if (l->s->link != NULL)
        trmi_serve_link_nudge(l->s->link);
    return NULL;
}

static void free_loading(trmi_serve *s, trmi_loading *l)
{
    for (trmi_loading **at = &s->loading; *at != NULL; at = &(*at)->next)
        if (*at == l) {
            *at = l->next;
            break;
        }
    trm_device_destroy(l->folding);
    trm_free(l->path);
    trm_free(l);
}

trm_status trmi_slot_begin_load(trmi_serve *s, const trm_wire_load *load)
{
    trmi_loading *l = trm_calloc(1, sizeof(*l));
    trmi_slot *slot = trm_calloc(1, sizeof(*slot));
    int rc;

    if (l == NULL || slot == NULL || (slot->name = trm_strdup(load->name)) == NULL ||
        (l->path = trm_strdup(load->path)) == NULL) {
        if (slot != NULL)
            trm_free(slot->name);
        trm_free(slot);
        trm_free(l);
        return trm_fail(TRM_ERR_COMM, "no memory for a model");
    }
    slot->id = l->id = load->slot;
    slot->version = load->version;
    slot->load_us = -trm_now_us();
    l->slot = slot;
    l->s = s;
    l->next = s->loading;
    s->loading = l;
    /* the same text on every rank, so the same verdict; it comes out of finish */
    l->st = trm_serve_settings_parse(load->settings, load->name, &slot->config, &slot->settings);
    /* constants are folded on a device of the thread's own: devices have one owner */
    if (l->st == TRM_OK)
        l->st = trm_device_cpu_create(trm_team_size(), &l->folding);
    if (l->st != TRM_OK) {
        snprintf(l->message, sizeof(l->message), "%s", trm_message());
        l->done = 1;
        return TRM_OK;
    }
    rc = pthread_create(&l->thread, NULL, loading_main, l);
    if (rc != 0)
        return trm_fail(TRM_ERR_COMM, "no thread to load a model: %s", strerror(rc));
    l->threaded = true;
    return TRM_OK;
}

static void join(trmi_loading *l)
{
    if (l->threaded)
        pthread_join(l->thread, NULL);
    l->threaded = false;
}

void trmi_slot_drop_load(trmi_serve *s, trmi_loading *l)
{
    join(l);
    trmi_slot_close(s, l->slot);
    free_loading(s, l);
}

static trm_status finish_model(trmi_serve *s, trmi_slot *slot)
{
    trm_tensor_model_options to;
    trm_lm_options lo;
    trm_status st;

    if (slot->lm != NULL) {
        lo = language_options(s, slot);
        st = trm_lm_model_finish(slot->lm, &lo);
        slot->lm = st == TRM_OK ? slot->lm : NULL;
        return st;
    }
    to = tensor_options(s, slot);
    st = trm_tensor_model_finish(slot->tensor, &to);
    slot->tensor = st == TRM_OK ? slot->tensor : NULL;
    TRM_CHECK(st);
    return trm_job_agree(s->o->job, configure_package(slot), 60000);
}

trm_status trmi_slot_finish_load(trmi_serve *s, trmi_loading *l, trmi_slot **slot_out)
{
    trmi_slot *slot = l->slot;
    trm_status st;

    join(l);
    /* a rank that has nothing to finish must say so before the others begin */
    st = l->st == TRM_OK ? TRM_OK : trm_fail(l->st, "%s", l->message);
    st = trm_job_agree(s->o->job, st, 600000);
    if (st == TRM_OK)
        st = finish_model(s, slot);
    free_loading(s, l);
    if (st != TRM_OK) {
        trmi_slot_close(s, slot);
        return st;
    }
    slot->load_us += trm_now_us();
    slot->next = s->slots;
    s->slots = slot;
    *slot_out = slot;
    return TRM_OK;
}

void trmi_slot_close(trmi_serve *s, trmi_slot *slot)
{
    char text[512];

    snprintf(text, sizeof(text), "%s", trm_message());
    for (trmi_slot **at = &s->slots; *at != NULL; at = &(*at)->next)
        if (*at == slot) {
            *at = slot->next;
            break;
        }
    if (s->turn == slot)
        s->turn = NULL;
    if (slot->served != NULL)
        slot->served->ops->destroy(slot->served);
    trm_lm_model_close(slot->lm);
    trm_tensor_model_close(slot->tensor);
    trm_config_destroy(slot->config);
    trm_free(slot->name);
    trm_free(slot);
    trm_alloc_release();
    (void)trm_fail(TRM_ERR_INTERNAL, "%s", text); /* closing may follow a failure: keep its words */
}

/* ---- the leader's side of a model ---- */

static trm_status begin_language(trmi_slot *slot, const trm_serve_out *out)
{
    const trm_serve_settings *c = slot->settings;
    trm_serve_language_options o = {.model = slot->lm,
                                    .name = slot->name,
                                    .version = slot->version,
                                    .queue = (int)c->queue,
                                    .tool_format = trm_serve_tool_format(c),
                                    .out = *out};
    trm_sampling *s = &o.defaults.sampling;

    trm_generator_defaults(slot->lm->language, s);
    o.defaults.add_special = true;
    if (c->temperature >= 0)
        s->temperature = (float)c->temperature;
    else if (slot->lm->language->config.default_temperature < 0)
        s->temperature = 1;
    if (c->top_p >= 0)
        s->top_p = (float)c->top_p;
    if (c->min_p >= 0)
        s->min_p = (float)c->min_p;
    if (c->top_k_sampling >= 0)
        s->top_k = (int32_t)c->top_k_sampling;
    if (c->repetition_penalty >= 0)
        s->repetition_penalty = (float)c->repetition_penalty;
    if (c->max_tokens > 0) {
        s->max_tokens = (int32_t)c->max_tokens;
        o.defaults.max_tokens_given = true;
    }
    s->logprobs = -1;
    TRM_CHECK(trm_sampling_check(s, slot->lm->language->config.vocabulary));
    return trm_serve_language_create(&o, &slot->served);
}

static void warm_end(void *ctx, const trm_generation_end *e)
{
    if (e->status != TRM_OK)
        snprintf(ctx, 256, "%s", e->message);
}

/* One token, and steps of the smallest batches, so that they need not be bound when requests wait;
 * larger ones follow when nothing else is to be done (language/serve_language.c). */
static trm_status warm_language(trmi_serve *s, trmi_slot *slot)
{
    trm_lm_model *m = slot->lm;
    int32_t prompt = m->language->config.bos >= 0 ? m->language->config.bos : 0;
    char failure[256] = "";
    trm_sampling sampling;
    trm_generation_options o = {.prompt = &prompt,
                                .prompt_count = 1,
                                .sampling = &sampling,
                                .choices = 1,
                                .ctx = failure,
                                .end = warm_end};
    int64_t until = trm_now_us() + WARM_US;
    trm_generation *r;

    trm_sampling_init(&sampling);
    sampling.max_tokens = 1;
    if (!m->limits.encoder && m->limits.context < 2)
        return TRM_OK;
    TRM_CHECK(trmi_lane_turn(s, slot));
    TRM_CHECK(trm_generator_add(m->generator, &o, &r));
    TRM_CHECK(trm_generator_run(m->generator));
    while (trm_generator_warms(m->generator) && trm_now_us() < until)
        TRM_CHECK(trm_generator_warm(m->generator));
    return failure[0] == '\0' ? TRM_OK : trm_fail(TRM_ERR_INTERNAL, "a first step: %s", failure);
}

/* Zeros, where the shapes of the inputs are known but for the batch. */
static trm_status warm_tensor(trmi_serve *s, trmi_slot *slot)
{
    const trm_graph *g = slot->tensor->graph;
    trm_tensor *in = trm_calloc((size_t)g->input_count + 1, sizeof(*in)),
               *out = trm_calloc((size_t)g->output_count + 1, sizeof(*out));
    trm_status st = TRM_OK;
    bool known = true;

    if (in == NULL || out == NULL)
        st = trm_fail(TRM_ERR_NO_MEMORY, "a first step");
    for (int i = 0; i < g->input_count && st == TRM_OK && known; i++) {
        size_t bytes = 0;

        in[i] = g->values[g->inputs[i]].desc;
        in[i].data = NULL;
        known = in[i].rank >= 0;
        for (int d = 0; d < in[i].rank; d++) {
            known = known && (d == 0 || in[i].dims[d] >= 0);
            if (d == 0 && in[i].dims[0] < 0)
                in[i].dims[0] = 1;
        }
        if (!known)
            break;
        st = trm_tensor_bytes(&in[i], &bytes);
        if (st == TRM_OK && (in[i].data = trm_aligned_malloc(bytes + 1)) == NULL)
            st = trm_fail(TRM_ERR_NO_MEMORY, "a first step");
        if (st == TRM_OK)
            memset(in[i].data, 0, bytes);
    }
    if (st == TRM_OK && known)
        st = trmi_lane_turn(s, slot);
    if (st == TRM_OK && known) {
        st = trm_replica_run(slot->tensor->replica, in, out);
        if (st != TRM_OK && st != TRM_ERR_COMM) { /* zeros may be nothing it can take */
            TRM_LOG(TRM_LOG_INFO, "serve", "%s: a first step of zeros: %s", slot->name,
                    trm_message());
            st = TRM_OK;
        }
    }
    for (int i = 0; in != NULL && i < g->input_count; i++)
        trm_aligned_free(in[i].data);
    trm_free(in);
    trm_free(out);
    return st;
}

static trm_status begin_tensor(trmi_slot *slot, const trm_serve_out *out)
{
    const trm_serve_settings *c = slot->settings;
    trm_serve_tensor_options o = {.model = slot->tensor,
                                  .name = slot->name,
                                  .version = slot->version,
                                  .max_batch = (int)c->max_batch,
                                  .batching = c->batching,
                                  .max_delay_us = c->max_delay_ms >= 0 ? c->max_delay_ms * 1000
                                                                       : c->max_delay_us,
                                  .preferred = c->preferred.items,
                                  .preferred_count = c->preferred.count,
                                  .queue = (int)c->queue,
                                  .out = *out};

    return trm_serve_tensor_create(&o, &slot->served);
}

trm_status trmi_slot_begin(trmi_serve *s, trmi_slot *slot, const trm_serve_out *out)
{
    bool warm = slot->settings->warmup == 0;
    int64_t begun = trm_now_us();

    if (slot->lm != NULL) {
        TRM_CHECK(begin_language(slot, out));
        if (warm)
            TRM_CHECK(warm_language(s, slot));
    } else {
        TRM_CHECK(begin_tensor(slot, out));
        if (warm)
            TRM_CHECK(warm_tensor(s, slot));
    }
    slot->load_us += trm_now_us() - begun;
    return TRM_OK;
}
