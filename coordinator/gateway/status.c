/* How the cluster is: the page, the same as JSON, health, the version, and Prometheus' metrics. */
#include "coordinator/gateway/gateway_impl.h"
#include "coordinator/gateway/status_page.h"
#include "coordinator/metrics_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sets a member and takes `value` over, NULL (no memory) included; false then. */
static bool set(json_t *o, const char *name, json_t *value)
{
    return json_object_set_new(o, name, value) == 0;
}

/* Text of other hosts and of configurations. */
static json_t *clean(const char *text)
{
    char out[1024];

    trmi_metrics_name(out, sizeof(out), text);
    return json_string(out);
}

static void answer_or_fail(trm_http_exchange *x, int status, json_t *o)
{
    if (o == NULL)
        trmi_gateway_fail(x, TRM_ERR_NO_MEMORY, "no memory for the answer");
    else
        trm_http_answer_json(x, status, o);
}

/* ---- health ---- */
static bool is_draining(trm_gateway *g, const trm_hub_info *info)
{
    return info->draining || __atomic_load_n(&g->draining, __ATOMIC_ACQUIRE) != 0;
}

/* Why requests cannot be answered now: a model that has failed, or is not there yet; else what
 * there is of replicas. Anybody may ask for health: no paths and no messages of failures. */
static void why_not(trm_gateway *g, const trm_hub_info *info, char *out, size_t out_bytes)
{
    static const struct {
        trm_model_state state;
        const char *text;
    } passes[] = {{TRM_MODEL_FAILED, "failed"}, {TRM_MODEL_LOADING, "is loading"}};
    trm_hub_model_info *models = NULL;
    int count = 0;

    snprintf(out, out_bytes, "%d of %d replicas are ready", info->ready_replicas,
             info->expected_replicas);
    if (info->ready_replicas == 0 || trm_hub_models(g->hub, &models, &count) != TRM_OK)
        return;
    for (int pass = 1; pass >= 0; pass--) /* a failure is told last: waiting does not help there */
        for (int i = count - 1; i >= 0; i--)
            if (models[i].state == passes[pass].state)
                snprintf(out, out_bytes, "model %s version %" PRId64 " %s", models[i].name,
                         models[i].version, passes[pass].text);
    trm_hub_models_free(models, count);
}

/* {"ready", "reason"}, and with `live` {"live"}. */
static void answer_health(trm_http_exchange *x, bool live)
{
    trm_gateway *g = trm_http_ctx(x);
    trm_hub_info info;
    char reason[512] = "";
    json_t *o;
    bool ready;
    trm_status st = trm_hub_get_info(g->hub, &info);

    if (st != TRM_OK) {
        trmi_gateway_fail(x, st, trm_message());
        return;
    }
    ready = info.ready && !is_draining(g, &info);
    if (is_draining(g, &info))
        snprintf(reason, sizeof(reason),
                 "draining: requests under way are finished, new ones are "
                 "not wanted");
    else if (!ready)
        why_not(g, &info, reason, sizeof(reason));
    trm_hub_info_fini(&info);
    o = json_object();
    if ((live && !set(o, "live", json_true())) || !set(o, "ready", json_boolean(ready)) ||
        (!ready && !set(o, "reason", clean(reason)))) {
        json_decref(o);
        o = NULL;
    }
    trm_http_set_header(x, "Cache-Control", "no-store");
    answer_or_fail(x, ready ? 200 : 503, o);
}

static void get_health(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    answer_health(x, true);
}

static void get_ready(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    answer_health(x, false);
}

/* An answer at all is the answer. */
static void get_live(void *ctx, trm_http_exchange *x)
{
    static const char body[] = "{\"live\":true}";

    (void)ctx;
    trm_http_set_header(x, "Cache-Control", "no-store");
    trm_http_answer(x, 200, "application/json", body, sizeof(body) - 1);
}

/* ---- version ---- */
static json_t *configuration(const trm_gateway *g)
{
    const char *text = g->options.configuration;

    return text == NULL || text[0] == '\0' ? NULL : json_loads(text, 0, NULL);
}

static void get_version(void *ctx, trm_http_exchange *x)
{
    const trm_gateway *g = trm_http_ctx(x);
    json_t *o = json_object(), *told = configuration(g);

    (void)ctx;
    if (!set(o, "version", json_string(g->options.version == NULL ? "" : g->options.version)) ||
        (told != NULL && json_object_set(o, "configuration", told) != 0)) {
        json_decref(o);
        o = NULL;
    }
    json_decref(told);
    answer_or_fail(x, 200, o);
}

/* ---- metrics ---- */
static void get_metrics(void *ctx, trm_http_exchange *x)
{
    const trm_gateway *g = trm_http_ctx(x);
    char *text;

    (void)ctx;
    if (g->metrics == NULL) {
        trmi_gateway_fail(x, TRM_ERR_NOT_FOUND, "no metrics are kept");
        return;
    }
    text = trm_metrics_prometheus(g->metrics);
    if (text == NULL)
        trmi_gateway_fail(x, TRM_ERR_NO_MEMORY, "no memory for the answer");
    else
        trm_http_answer_take(x, 200, "text/plain; version=0.0.4; charset=utf-8", text,
                             strlen(text));
}

/* ---- the whole as JSON ---- */
static void key_of(char *out, size_t out_bytes, const char *name, json_int_t version)
{
    snprintf(out, out_bytes, "%s/%" JSON_INTEGER_FORMAT, name, version);
}

/* An object of the array's members by name and version (`version_name` NULL: by name alone). */
static json_t *index_of(json_t *array, const char *name, const char *version_name)
{
    json_t *index = json_object(), *o;
    char key[256];
    size_t i;

    json_array_foreach(array, i, o)
    {
        const char *text = json_string_value(json_object_get(o, name));

        if (text == NULL)
            continue;
        key_of(key, sizeof(key), text,
               version_name == NULL ? 0 : json_integer_value(json_object_get(o, version_name)));
        if (json_object_set(index, key, o) != 0) {
            json_decref(index);
            return NULL;
        }
    }
    return index;
}

/* What is known of one thing: the member of `index`, or a fresh object; a new reference. */
static json_t *known(const json_t *index, const char *name, json_int_t version)
{
    char text[TRMI_METRICS_NAME_BYTES], key[256];
    json_t *o;

    trmi_metrics_name(text, sizeof(text), name);
    key_of(key, sizeof(key), text, version);
    o = json_object_get(index, key);
    return o == NULL ? json_object() : json_incref(o);
}

/* The hub's list, each with what the metrics have of it. NULL: no memory. */
static json_t *merge_models(trm_gateway *g, json_t *counted)
{
    json_t *merged = json_array(), *index = index_of(counted, "name", "version");
    trm_hub_model_info *models = NULL;
    int count = 0;
    bool ok = merged != NULL && index != NULL && trm_hub_models(g->hub, &models, &count) == TRM_OK;

    for (int i = 0; i < count && ok; i++) {
        const trm_hub_model_info *m = &models[i];
        json_t *o = known(index, m->name, m->version), *metadata = NULL;
        char name[TRMI_METRICS_NAME_BYTES];

        trmi_metrics_name(name, sizeof(name), m->name);
        if (m->metadata != NULL && m->metadata[0] != '\0')
            metadata = json_loads(m->metadata, 0, NULL);
        ok = set(o, "name", json_string(name)) && set(o, "version", json_integer(m->version)) &&
             set(o, "state", json_string(trm_model_state_name(m->state))) &&
             set(o, "replicas", json_integer(m->replicas)) &&
             set(o, "loading", json_integer(m->loading)) &&
             set(o, "running", json_integer(m->running)) &&
             set(o, "waiting", json_integer(m->waiting)) && set(o, "reason", clean(m->reason)) &&
             set(o, "loaded_at", json_integer((json_int_t)m->loaded_at)) &&
             json_object_set(o, "metadata", metadata == NULL ? json_null() : metadata) == 0;
        json_decref(metadata);
        ok = json_array_append_new(merged, o) == 0 && ok;
    }
    trm_hub_models_free(models, count);
    json_decref(index);
    if (!ok) {
        json_decref(merged);
        return NULL;
    }
    return merged;
}

/* By number, the latest life first: "0/1", "2/2", "2/1", "10/1". */
static int compare_replicas(const void *a, const void *b)
{
    const trm_hub_replica_info *x = a, *y = b;
    char *x_end, *y_end;
    long x_number = strtol(x->identity, &x_end, 10), y_number = strtol(y->identity, &y_end, 10);

    if (x_number != y_number)
        return x_number < y_number ? -1 : 1;
    x_number = *x_end == '/' ? strtol(x_end + 1, NULL, 10) : 0;
    y_number = *y_end == '/' ? strtol(y_end + 1, NULL, 10) : 0;
    if (x_number != y_number)
        return x_number > y_number ? -1 : 1;
    return strcmp(x->identity, y->identity);
}

static json_t *merge_replicas(const trm_hub_info *info, json_t *counted)
{
    json_t *merged = json_array(), *index = index_of(counted, "identity", NULL);
    bool ok = merged != NULL && index != NULL;

    if (info->replicas > 1)
        qsort(info->replica, (size_t)info->replicas, sizeof(*info->replica), compare_replicas);
    for (int i = 0; i < info->replicas && ok; i++) {
        const trm_hub_replica_info *r = &info->replica[i];
        json_t *o = known(index, r->identity, 0);

        ok = set(o, "identity", clean(r->identity)) && set(o, "host", clean(r->host)) &&
             set(o, "rank", json_integer(r->rank)) && set(o, "pid", json_integer(r->pid)) &&
             set(o, "state", clean(r->state)) && set(o, "phase", clean(r->phase)) &&
             set(o, "in_flight", json_integer(r->in_flight)) &&
             set(o, "done", json_integer((json_int_t)r->done)) &&
             set(o, "reason", clean(r->reason)) &&
             (json_object_get(o, "ranks") != NULL || set(o, "ranks", json_array()));
        ok = json_array_append_new(merged, o) == 0 && ok;
    }
    json_decref(index);
    if (!ok) {
        json_decref(merged);
        return NULL;
    }
    return merged;
}

static json_t *cluster_json(trm_gateway *g, const trm_hub_info *info)
{
    json_t *o = json_object();
    char reason[512] = "";
    bool ready = info->ready && !is_draining(g, info);

    if (!ready && !is_draining(g, info))
        why_not(g, info, reason, sizeof(reason));
    if (!set(o, "ready", json_boolean(ready)) ||
        !set(o, "draining", json_boolean(is_draining(g, info))) ||
        !set(o, "reason", clean(reason)) || !set(o, "replicas", json_integer(info->replicas)) ||
        !set(o, "ready_replicas", json_integer(info->ready_replicas)) ||
        !set(o, "dead_replicas", json_integer(info->dead_replicas)) ||
        !set(o, "expected_replicas", json_integer(info->expected_replicas)) ||
        !set(o, "running", json_integer(info->running)) ||
        !set(o, "waiting", json_integer(info->waiting))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* What trm_metrics_status gives; "models" and "replicas" are the hub's lists with it, and
 * "cluster", "version" and "configuration" are added. NULL: no memory. */
static json_t *status_json(trm_gateway *g, const trm_hub_info *info)
{
    json_t *o = g->metrics == NULL ? json_object() : trm_metrics_status(g->metrics);
    json_t *told = configuration(g);
    json_t *models = merge_models(g, json_object_get(o, "models"));
    json_t *replicas = merge_replicas(info, json_object_get(o, "replicas"));
    /* each value is taken over, whatever happens */
    bool ok = set(o, "models", models);

    ok = set(o, "replicas", replicas) && ok;
    ok = set(o, "cluster", cluster_json(g, info)) && ok;
    ok = ok &&
         set(o, "version", json_string(g->options.version == NULL ? "" : g->options.version)) &&
         json_object_set(o, "configuration", told == NULL ? json_null() : told) == 0;
    json_decref(told);
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static void get_status(void *ctx, trm_http_exchange *x)
{
    trm_gateway *g = trm_http_ctx(x);
    trm_hub_info info;
    trm_status st = trm_hub_get_info(g->hub, &info);
    json_t *o;

    (void)ctx;
    if (st != TRM_OK) {
        trmi_gateway_fail(x, st, trm_message());
        return;
    }
    o = status_json(g, &info);
    trm_hub_info_fini(&info);
    trm_http_set_header(x, "Cache-Control", "no-store");
    answer_or_fail(x, 200, o);
}

/* ---- the page ---- */
/* It has no data in it and asks for a key itself, so none is needed to get it. It may talk to this
 * server only, and nobody may frame it. */
static void get_page(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    trm_http_set_header(x, "Content-Security-Policy",
                        "default-src 'none'; style-src 'unsafe-inline'; script-src "
                        "'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
                        "form-action 'none'; frame-ancestors 'none'");
    trm_http_set_header(x, "X-Content-Type-Options", "nosniff");
    trm_http_set_header(x, "Referrer-Policy", "no-referrer");
    trm_http_set_header(x, "Cache-Control", "no-cache");
    trm_http_answer(x, 200, "text/html; charset=utf-8", trmi_status_page, trmi_status_page_bytes);
}

trmi_routes trmi_status_routes(void)
{
    static const trm_http_route routes[] = {
        {"GET", "/", get_page, TRM_HTTP_OPEN | TRM_HTTP_LIGHT},
        {"GET", "/health", get_health, TRM_HTTP_OPEN | TRM_HTTP_LIGHT},
        {"GET", "/health/live", get_live, TRM_HTTP_OPEN | TRM_HTTP_LIGHT},
        {"GET", "/health/ready", get_ready, TRM_HTTP_OPEN | TRM_HTTP_LIGHT},
        {"GET", "/status", get_status, TRM_HTTP_LIGHT},
        {"GET", "/version", get_version, TRM_HTTP_LIGHT},
        {"GET", "/metrics", get_metrics, TRM_HTTP_LIGHT},
    };

    return (trmi_routes){routes, sizeof(routes) / sizeof(routes[0])};
}
