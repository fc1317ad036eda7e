/* OpenAI's API over the hub: models, completions, chat, embeddings, tokenize and detokenize. A body
 * is read only for what decides where it goes; the replica reads the rest and writes the answer.
 * Files and batches: openai_files.c, openai_batches.c. */
#include "coordinator/gateway/openai_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- which model ---- */
/* "name:3": the length of "name", and 3; 0: no version at the end. */
static size_t split_version(const char *model, int64_t *version_out)
{
    const char *colon = strrchr(model, ':');
    int64_t v = 0;

    if (colon == NULL || colon == model || colon[1] == '\0' || strlen(colon + 1) > 18)
        return 0;
    for (const char *p = colon + 1; *p != '\0'; p++) {
        if (*p < '0' || *p > '9')
            return 0;
        v = v * 10 + (*p - '0');
    }
    *version_out = v;
    return v == 0 ? 0 : (size_t)(colon - model);
}

/* A name may itself end in a colon and digits ("llama3:8"); such a one goes first. */
static void address(trm_hub *hub, const char *model, char *name_out, int64_t *version_out)
{
    trm_hub_model_info info = {.metadata = NULL};
    int64_t version = 0;
    size_t n = split_version(model, &version);

    snprintf(name_out, TRMI_OPENAI_MODEL_BYTES, "%s", model);
    *version_out = 0;
    if (n == 0)
        return;
    if (trm_hub_find_model(hub, model, 0, &info) == TRM_OK) {
        trm_free(info.metadata);
        return;
    }
    name_out[n] = '\0';
    *version_out = version;
}

/* "generate", "embed", "tensor"; "" while unknown. */
static void kind_of(const trm_hub_model_info *info, char kind_out[16])
{
    json_t *o = info->metadata != NULL ? json_loads(info->metadata, 0, NULL) : NULL;
    const char *kind = json_string_value(json_object_get(o, "kind"));

    snprintf(kind_out, 16, "%s", kind != NULL ? kind : "");
    json_decref(o);
}

static bool kind_fits(const char *model_kind, trm_request_kind kind, bool second)
{
    bool generate = strcmp(model_kind, "generate") == 0, embed = strcmp(model_kind, "embed") == 0;

    if (kind == TRM_REQUEST_EMBEDDINGS) /* a generating model can embed, but is seldom meant */
        return second ? generate : embed;
    if (kind == TRM_REQUEST_TOKENIZE || kind == TRM_REQUEST_DETOKENIZE)
        return generate || embed;
    return generate;
}

/* The only model that fits, where a request names none. */
static trm_status only_model(trm_hub *hub, trm_request_kind kind, char *name_out)
{
    trm_hub_model_info *infos = NULL;
    int count = 0, found = 0;
    bool loading = false;

    TRM_CHECK(trm_hub_models(hub, &infos, &count));
    for (int second = 0; second < 2 && found == 0; second++)
        for (int i = 0; i < count; i++) {
            char model_kind[16];

            loading = loading || infos[i].state == TRM_MODEL_LOADING;
            if (infos[i].state != TRM_MODEL_READY)
                continue;
            kind_of(&infos[i], model_kind);
            if (!kind_fits(model_kind, kind, second == 1) ||
                (found > 0 && strcmp(infos[i].name, name_out) == 0))
                continue;
            found++;
            snprintf(name_out, TRMI_OPENAI_MODEL_BYTES, "%s", infos[i].name);
        }
    trm_hub_models_free(infos, count);
    if (found == 1)
        return TRM_OK;
    if (found == 0 && loading)
        return trm_fail(TRM_ERR_COMM,
                        "model is missing, and none that is ready does %s; one is "
                        "still loading",
                        trm_request_kind_name(kind));
    if (found == 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "model is missing, and no loaded model does %s; GET /v1/models lists them",
                        trm_request_kind_name(kind));
    return trm_fail(TRM_ERR_INVALID_ARG,
                    "model is missing, and %d loaded models do %s; GET /v1/models lists them",
                    found, trm_request_kind_name(kind));
}

trm_status trmi_openai_resolve(trm_hub *hub, trm_request_kind kind, const char *model,
                               char name_out[TRMI_OPENAI_MODEL_BYTES], int64_t *version_out)
{
    if (model[0] == '\0') {
        *version_out = 0;
        return only_model(hub, kind, name_out);
    }
    address(hub, model, name_out, version_out);
    return TRM_OK;
}

/* ---- requests ---- */
static void submit(trm_gateway *g, trm_http_exchange *x, trm_request_kind kind)
{
    trmi_openai_head head;
    size_t bytes;
    const void *body = trm_http_body(x, &bytes);
    trm_status st = trmi_openai_head_read(body, bytes, &head);

    if (st != TRM_OK) {
        trmi_openai_fail_status(x, st);
        return;
    }
    trmi_openai_run(g, x, kind, &head);
}

static void completions(void *ctx, trm_http_exchange *x)
{
    submit(ctx, x, TRM_REQUEST_COMPLETIONS);
}
static void chat(void *ctx, trm_http_exchange *x)
{
    submit(ctx, x, TRM_REQUEST_CHAT);
}
static void embeddings(void *ctx, trm_http_exchange *x)
{
    submit(ctx, x, TRM_REQUEST_EMBEDDINGS);
}
static void tokenize(void *ctx, trm_http_exchange *x)
{
    submit(ctx, x, TRM_REQUEST_TOKENIZE);
}
static void detokenize(void *ctx, trm_http_exchange *x)
{
    submit(ctx, x, TRM_REQUEST_DETOKENIZE);
}

/* ---- models ---- */
static json_t *model_json(const trm_hub_model_info *info, const char *id)
{
    json_t *metadata = info->metadata != NULL ? json_loads(info->metadata, 0, NULL) : NULL;
    json_t *context = json_object_get(metadata, "context");
    json_t *kind = json_object_get(metadata, "kind");
    json_t *o = json_pack("{s:o,s:s,s:I,s:s,s:O?,s:b,s:O?}", "id", trmi_openai_string(id), "object",
                          "model", "created", (json_int_t)info->loaded_at, "owned_by", "trireme",
                          "max_model_len", json_integer_value(context) > 0 ? context : NULL,
                          "ready", info->state == TRM_MODEL_READY, "kind", kind);

    json_decref(metadata);
    return o;
}

static bool listed(const trm_hub_model_info *infos, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (infos[i].state == TRM_MODEL_READY && strcmp(infos[i].name, name) == 0)
            return true;
    return false;
}

/* Each ready model by its name (its newest ready version), and where several versions are ready,
 * each as NAME:VERSION, too. */
static void models(void *ctx, trm_http_exchange *x)
{
    trm_gateway *g = ctx;
    trm_hub_model_info *infos = NULL;
    int count = 0;
    json_t *data = json_array();
    trm_status st = trm_hub_models(g->hub, &infos, &count);

    if (st != TRM_OK) {
        json_decref(data);
        trmi_openai_fail_status(x, st);
        return;
    }
    for (int i = 0; i < count; i++) {
        bool last = !listed(infos + i + 1, count - i - 1, infos[i].name);
        char id[TRMI_OPENAI_MODEL_BYTES];

        if (infos[i].state != TRM_MODEL_READY)
            continue;
        if (last)
            json_array_append_new(data, model_json(&infos[i], infos[i].name));
        if (!last || listed(infos, i, infos[i].name)) {
            snprintf(id, sizeof(id), "%s:%" PRId64, infos[i].name, infos[i].version);
            json_array_append_new(data, model_json(&infos[i], id));
        }
    }
    trm_hub_models_free(infos, count);
    trm_http_answer_json(x, 200, json_pack("{s:s,s:o}", "object", "list", "data", data));
}

static void model(void *ctx, trm_http_exchange *x)
{
    trm_gateway *g = ctx;
    trm_hub_model_info info = {.metadata = NULL};
    const char *id = trm_http_name(x, "model");
    char name[TRMI_OPENAI_MODEL_BYTES], message[2 * TRMI_OPENAI_MODEL_BYTES];
    int64_t version = 0;
    trm_status st = TRM_ERR_NOT_FOUND;

    if (id != NULL && strlen(id) < sizeof(name)) {
        address(g->hub, id, name, &version);
        st = trm_hub_find_model(g->hub, name, version, &info);
    }
    if (st == TRM_OK && info.state != TRM_MODEL_UNLOADED) {
        json_t *o = model_json(&info, id);

        trm_free(info.metadata);
        trm_http_answer_json(x, 200, o);
        return;
    }
    if (st == TRM_OK)
        trm_free(info.metadata);
    snprintf(message, sizeof(message), "no model '%.*s' is loaded", TRMI_OPENAI_MODEL_BYTES,
             id != NULL ? id : "");
    trmi_openai_fail(x, 404, "model_not_found", "model", message);
}

trmi_routes trmi_openai_routes(void)
{
    static const trm_http_route routes[] = {
        {"GET", "/v1/models", models, 0},
        {"GET", "/v1/models/{model...}", model, 0},
        {"POST", "/v1/completions", completions, 0},
        {"POST", "/v1/chat/completions", chat, 0},
        {"POST", "/v1/embeddings", embeddings, 0},
        {"POST", "/tokenize", tokenize, 0},
        {"POST", "/detokenize", detokenize, 0},
        {"POST", "/v1/tokenize", tokenize, 0},
        {"POST", "/v1/detokenize", detokenize, 0},
    };

    return (trmi_routes){routes, (int)(sizeof(routes) / sizeof(routes[0]))};
}
