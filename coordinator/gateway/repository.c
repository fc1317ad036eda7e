/* Control of models, as Triton's model repository extension: what there is, load, unload. */
#include "coordinator/gateway/v2_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const states[TRM_MODEL_STATE_COUNT] = {
    [TRM_MODEL_LOADING] = "LOADING",    [TRM_MODEL_READY] = "READY",
    [TRM_MODEL_DRAINING] = "UNLOADING", [TRM_MODEL_UNLOADED] = "UNAVAILABLE",
    [TRM_MODEL_FAILED] = "UNAVAILABLE",
};

/* The body's object; empty where there is none. *root_out is a new reference. */
static trm_status read_body(trm_http_exchange *x, json_t **root_out)
{
    size_t bytes = 0;
    const char *body = trm_http_body(x, &bytes);
    json_error_t error;

    *root_out =
        bytes == 0 ? json_object() : json_loadb(body, bytes, JSON_REJECT_DUPLICATES, &error);
    if (*root_out == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "the body is not JSON: %.200s",
                        bytes == 0 ? "no memory" : error.text);
    if (!json_is_object(*root_out))
        return trm_fail(TRM_ERR_INVALID_ARG, "the body is no JSON object");
    return TRM_OK;
}

static void list_index(void *ctx, trm_http_exchange *x)
{
    trm_gateway *g = ctx;
    trm_hub_model_info *infos = NULL;
    json_t *root = NULL, *list = NULL;
    const json_t *only;
    int n = 0;
    trm_status st;

    TRM_TRY(st, read_body(x, &root), done);
    only = json_object_get(root, "ready");
    if (only != NULL && !json_is_boolean(only)) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "\"ready\" wants true or false");
        goto done;
    }
    TRM_TRY(st, trm_hub_models(g->hub, &infos, &n), done);
    list = json_array();
    for (int i = 0; i < n; i++) {
        char version[24];

        if (json_is_true(only) && infos[i].state != TRM_MODEL_READY)
            continue;
        snprintf(version, sizeof(version), "%" PRId64, infos[i].version);
        json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s}", "name", infos[i].name, "version",
                                              version, "state", states[infos[i].state], "reason",
                                              infos[i].reason));
    }
    trm_http_answer_json(x, 200, list);
done:
    trm_hub_models_free(infos, n);
    json_decref(root);
    if (st != TRM_OK)
        trmi_gateway_fail(x, st, trm_message());
}

/* ---- load: a configuration's settings ---- */

struct loading {
    int64_t version;
    json_t *settings; /* NULL: as known */
};

static trm_status set_integer(json_t *settings, const char *name, const char *from, const json_t *v)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "config: '%s' wants an integer from 0 up", from);
    return json_object_set_new(settings, name, json_integer(json_integer_value(v))) == 0
               ? TRM_OK
               : trm_fail(TRM_ERR_NO_MEMORY, "settings of a model");
}

/* Triton's form of the dynamic batcher's. */
static trm_status read_batching(json_t *settings, const json_t *o)
{
    const json_t *delay = json_object_get(o, "max_queue_delay_microseconds");
    const json_t *sizes = json_object_get(o, "preferred_batch_size");
    char text[40];

    if (!json_is_object(o))
        return trm_fail(TRM_ERR_INVALID_ARG, "config: 'dynamic_batching' wants an object");
    if (delay != NULL) {
        if (!json_is_integer(delay) || json_integer_value(delay) < 0)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "config: 'max_queue_delay_microseconds' wants an integer from 0 up");
        snprintf(text, sizeof(text), "%lldus", (long long)json_integer_value(delay));
        json_object_set_new(settings, "max_delay", json_string(text));
        json_object_set_new(settings, "max_delay_ms", json_integer(-1)); /* the configuration's */
    }
    if (sizes != NULL)
        json_object_set_new(settings, "preferred_batches", json_deep_copy(sizes));
    return TRM_OK;
}

/* {"specific": {"versions": [v]}} */
static trm_status read_policy(struct loading *l, const json_t *o)
{
    const json_t *list = json_object_get(json_object_get(o, "specific"), "versions");
    const json_t *v = json_array_get(list, 0);

    if (json_array_size(list) != 1 || !json_is_integer(v) || json_integer_value(v) < 1)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "config: 'version_policy' wants {\"specific\": {\"versions\": [v]}}");
    l->version = json_integer_value(v);
    return TRM_OK;
}

static bool is_one_of(const char *key, const char *const *list)
{
    for (; *list != NULL; list++)
        if (strcmp(key, *list) == 0)
            return true;
    return false;
}

/* One key: settings of ours go on to the replica, which checks them; Triton's become ours; what
 * says what the model is must not change and is passed over. Settings that name a file or a place
 * are the configuration's alone: who may load a model need not be who may read the disk. */
static trm_status read_key(struct loading *l, const char *key, json_t *v, const char *name)
{
    static const char *const passed_over[] = {"platform",     "backend",        "input",
                                              "output",       "instance_group", "model_warmup",
                                              "optimization", "parameters",     NULL};
    static const char *const settings[] = {
        "dtype",       "max_batch",          "queue",         "warmup",
        "batching",    "max_delay",          "max_delay_ms",  "preferred_batches",
        "activation",  "top_labels",         "context",       "kv_cache",
        "kv_dtype",    "step_tokens",        "decode_budget", "prefix_cache",
        "tool_format", "temperature",        "top_p",         "min_p",
        "top_k",       "repetition_penalty", "max_tokens",    NULL};

    if (strcmp(key, "name") == 0)
        return json_is_string(v) &&
                       (json_string_length(v) == 0 || strcmp(json_string_value(v), name) == 0)
                   ? TRM_OK
                   : trm_fail(TRM_ERR_INVALID_ARG, "config: 'name' wants '%.100s'", name);
    if (strcmp(key, "max_batch_size") == 0)
        return set_integer(l->settings, "max_batch", key, v);
    if (strcmp(key, "dynamic_batching") == 0)
        return read_batching(l->settings, v);
    if (strcmp(key, "version_policy") == 0)
        return read_policy(l, v);
    if (strcmp(key, "version") == 0) {
        if (!json_is_integer(v) || json_integer_value(v) < 1)
            return trm_fail(TRM_ERR_INVALID_ARG, "config: 'version' wants an integer from 1 up");
        l->version = json_integer_value(v);
        return TRM_OK;
    }
    if (is_one_of(key, passed_over))
        return TRM_OK;
    if (!is_one_of(key, settings))
        return trm_fail(TRM_ERR_UNSUPPORTED, "config: '%.60s' cannot be set from here", key);
    return json_object_set(l->settings, key, v) == 0
               ? TRM_OK
               : trm_fail(TRM_ERR_NO_MEMORY, "settings of a model");
}

static trm_status read_config(struct loading *l, const json_t *text, const char *name)
{
    json_error_t error;
    json_t *o = NULL, *v;
    const char *key;
    trm_status st = TRM_OK;

    if (!json_is_string(text))
        return trm_fail(TRM_ERR_INVALID_ARG, "\"config\" wants a string that holds JSON");
    o = json_loads(json_string_value(text), JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(o)) {
        json_decref(o);
        return trm_fail(TRM_ERR_INVALID_ARG, "\"config\" holds no JSON object%s%.200s",
                        o == NULL ? ": " : "", o == NULL ? error.text : "");
    }
    l->settings = json_object();
    json_object_foreach(o, key, v)
    {
        if (st == TRM_OK)
            st = read_key(l, key, v, name);
    }
    json_decref(o);
    if (json_object_size(l->settings) == 0) { /* a version alone: as known */
        json_decref(l->settings);
        l->settings = NULL;
    }
    return st;
}

static trm_status read_load(struct loading *l, const json_t *root, const char *name)
{
    const json_t *parameters = json_object_get(root, "parameters"), *v;
    const char *key;

    if (parameters != NULL && !json_is_object(parameters))
        return trm_fail(TRM_ERR_INVALID_ARG, "\"parameters\" wants an object");
    json_object_foreach((json_t *)(uintptr_t)parameters, key, v)
    {
        if (strcmp(key, "config") == 0)
            TRM_CHECK(read_config(l, v, name));
        else if (strncmp(key, "file:", 5) == 0)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "'%.60s': files of a model cannot be sent: put them where the server's "
                            "configuration says",
                            key);
        else
            return trm_fail(TRM_ERR_INVALID_ARG, "'%.60s' is no parameter of load, want \"config\"",
                            key);
    }
    return TRM_OK;
}

/* ---- handlers ---- */

static bool allowed(const trm_gateway *g, trm_http_exchange *x)
{
    if (g->options.admin)
        return true;
    trmi_gateway_fail_http(x, 403, "load and unload are switched off (gateway: admin)");
    return false;
}

/* Of load and unload; on the hub's thread. A replica's trouble with what it was told to load is
 * the request's: 400, as Triton answers. */
static void done(void *ctx, trm_status st, const char *message)
{
    trm_http_exchange *x = ctx;

    if (st == TRM_OK)
        trm_http_answer(x, 200, "application/json", "", 0);
    else if (st == TRM_ERR_IO || st == TRM_ERR_CONFIG)
        trmi_gateway_fail_http(x, 400, message);
    else
        trmi_gateway_fail(x, st, message);
}

static void load(void *ctx, trm_http_exchange *x)
{
    trm_gateway *g = ctx;
    trm_hub_model model = {.name = trm_http_name(x, "model"), .load = true};
    struct loading l = {0};
    json_t *root = NULL;
    char *settings = NULL;
    trm_status st;

    if (!allowed(g, x))
        return;
    TRM_TRY(st, read_body(x, &root), fail);
    TRM_TRY(st, read_load(&l, root, model.name), fail);
    if (l.settings != NULL) {
        settings = json_dumps(l.settings, JSON_COMPACT);
        if (settings == NULL) {
            st = trm_fail(TRM_ERR_NO_MEMORY, "settings of a model");
            goto fail;
        }
    }
    model.version = l.version;
    model.settings = settings;
    st = trm_hub_load(g->hub, &model, x, done);
fail:
    free(settings);
    json_decref(l.settings);
    json_decref(root);
    if (st != TRM_OK)
        trmi_gateway_fail(x, st, trm_message());
}

static void unload(void *ctx, trm_http_exchange *x)
{
    trm_gateway *g = ctx;
    json_t *root = NULL;
    const json_t *version;
    trm_status st;

    if (!allowed(g, x))
        return;
    TRM_TRY(st, read_body(x, &root), fail);
    /* unload_dependents: there are none. "version" is ours */
    version = json_object_get(json_object_get(root, "parameters"), "version");
    if (version != NULL && (!json_is_integer(version) || json_integer_value(version) < 1)) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "\"version\" wants an integer from 1 up");
        goto fail;
    }
    st = trm_hub_unload(g->hub, trm_http_name(x, "model"), json_integer_value(version), x, done);
fail:
    json_decref(root);
    if (st != TRM_OK)
        trmi_gateway_fail(x, st, trm_message());
}

static const trm_http_route routes[] = {
    {"POST", "/v2/repository/index", list_index, 0},
    {"POST", "/v2/repository/models/{model}/load", load, TRM_HTTP_ADMIN},
    {"POST", "/v2/repository/models/{model}/unload", unload, TRM_HTTP_ADMIN},
};

trmi_routes trmi_repository_routes(void)
{
    return (trmi_routes){routes, (int)(sizeof(routes) / sizeof(*routes))};
}
