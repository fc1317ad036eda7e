/* What tests of the gateway's endpoints share: an HTTP server that only records, and a hub that
 * answers when it is told to. Both define the functions of http.h and hub.h, so that the linker
 * takes these. One file of a test includes it. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#ifndef TRM_TESTS_COORDINATOR_GATEWAY_KIT_H
#define TRM_TESTS_COORDINATOR_GATEWAY_KIT_H

#include "coordinator/gateway/v2_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define KIT_UNUSED __attribute__((unused)) /* not every test needs all */
#define KIT_PAIRS 8

typedef struct kit_pair {
    char name[64], value[4096];
} kit_pair;

struct trm_http_exchange {
    const char *method, *path, *pattern;
    kit_pair names[KIT_PAIRS], headers[KIT_PAIRS], query[KIT_PAIRS], out[KIT_PAIRS];
    int name_count, header_count, query_count, out_count;
    const void *body;
    size_t bytes;
    trm_gateway *g;
    void *gone_ctx;
    void (*gone)(void *ctx);
    int answers; /* exactly one is right */
    int status;
    char type[64];
    char *data; /* ended by a NUL */
    size_t data_bytes;
    bool streaming, deaf; /* deaf: the client takes nothing more */
};

/* ---- what the hub has been asked, and what it knows ---- */
static struct kit_hub {
    trm_hub_request request; /* .wire is not kept */
    bool pending;
    uint64_t id, cancelled;
    trm_request_kind kind;
    char model[64], body[1 << 16];
    size_t body_bytes;
    int64_t version;
    int32_t priority;
    uint32_t deadline_ms;
    bool stream;
    int tensor_count;
    char names[8][64];
    trm_tensor tensors[8];
    unsigned char data[8][4096];
    const trm_wire_answer *at_once; /* given before submit returns */
    bool echo;                      /* the tensors are the answer, before submit returns */
    trm_status submit;              /* what submit returns */
    trm_hub_model_info models[4];
    int model_count;
    bool ready, draining;
    /* load and unload */
    char load_name[64], load_settings[512];
    int64_t load_version;
    bool load_has_settings, load_pending;
    void *load_ctx;
    void (*load_done)(void *ctx, trm_status st, const char *message);
    trm_status load;
    json_t *statistics; /* NULL */
} kit_hub;

static struct trm_gateway kit_gateway = {.options = {.version = "1.2.3", .admin = true}};

KIT_UNUSED static void kit_reset(void)
{
    memset(&kit_hub, 0, sizeof(kit_hub));
    kit_hub.ready = true;
    kit_gateway.options.admin = true;
    kit_gateway.draining = 0;
}

KIT_UNUSED static trm_hub_model_info *kit_model(const char *name, int64_t version,
                                                trm_model_state state, const char *metadata)
{
    trm_hub_model_info *m = &kit_hub.models[kit_hub.model_count++];

    memset(m, 0, sizeof(*m));
    snprintf(m->name, sizeof(m->name), "%s", name);
    m->version = version;
    m->state = state;
    m->replicas = state == TRM_MODEL_READY;
    m->metadata = (char *)(uintptr_t)metadata;
    return m;
}

/* ---- http.h ---- */
static const char *kit_find(const kit_pair *pairs, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcasecmp(pairs[i].name, name) == 0)
            return pairs[i].value;
    return NULL;
}

const char *trm_http_method(const trm_http_exchange *x)
{
    return x->method;
}

const char *trm_http_path(const trm_http_exchange *x)
{
    return x->path;
}

const char *trm_http_route_pattern(const trm_http_exchange *x)
{
    return x->pattern;
}

const char *trm_http_name(const trm_http_exchange *x, const char *name)
{
    return kit_find(x->names, x->name_count, name);
}

const char *trm_http_query(const trm_http_exchange *x, const char *name)
{
    return kit_find(x->query, x->query_count, name);
}

const char *trm_http_header(const trm_http_exchange *x, const char *name)
{
    return kit_find(x->headers, x->header_count, name);
}

const void *trm_http_body(const trm_http_exchange *x, size_t *bytes_out)
{
    *bytes_out = x->bytes;
    return x->body;
}

const char *trm_http_key_name(const trm_http_exchange *x)
{
    (void)x;
    return "";
}

const char *trm_http_id(const trm_http_exchange *x)
{
    (void)x;
    return "0123";
}

void *trm_http_ctx(const trm_http_exchange *x)
{
    return x->g;
}

void trm_http_on_gone(trm_http_exchange *x, void *ctx, void (*gone)(void *ctx))
{
    x->gone = gone;
    x->gone_ctx = ctx;
}

void trm_http_set_header(trm_http_exchange *x, const char *name, const char *value)
{
    snprintf(x->out[x->out_count].name, sizeof(x->out[0].name), "%s", name);
    snprintf(x->out[x->out_count++].value, sizeof(x->out[0].value), "%s", value);
}

static void kit_append(trm_http_exchange *x, const void *data, size_t bytes)
{
    x->data = realloc(x->data, x->data_bytes + bytes + 1);
    if (bytes > 0)
        memcpy(x->data + x->data_bytes, data, bytes);
    x->data_bytes += bytes;
    x->data[x->data_bytes] = '\0';
}

void trm_http_answer(trm_http_exchange *x, int status, const char *content_type, const void *data,
                     size_t bytes)
{
    x->answers++;
    x->status = status;
    snprintf(x->type, sizeof(x->type), "%s", content_type);
    kit_append(x, data, bytes);
}

void trm_http_answer_take(trm_http_exchange *x, int status, const char *content_type, void *data,
                          size_t bytes)
{
    trm_http_answer(x, status, content_type, data, bytes);
    trm_free(data);
}

void trm_http_stream_begin(trm_http_exchange *x, int status, const char *content_type)
{
    x->status = status;
    x->streaming = true;
    snprintf(x->type, sizeof(x->type), "%s", content_type);
}

bool trm_http_stream_write(trm_http_exchange *x, const void *data, size_t bytes)
{
    if (!x->streaming || x->deaf)
        return false;
    kit_append(x, data, bytes);
    return true;
}

void trm_http_stream_end(trm_http_exchange *x)
{
    x->answers++;
}

int trm_http_status_of(trm_status st)
{
    switch (st) {
    case TRM_OK:
        return 200;
    case TRM_ERR_NOT_FOUND:
        return 404;
    case TRM_ERR_INVALID_ARG:
    case TRM_ERR_BAD_FILE:
    case TRM_ERR_UNSUPPORTED:
        return 400;
    case TRM_ERR_CANCELLED:
        return 499;
    case TRM_ERR_TIMEOUT:
        return 504;
    case TRM_ERR_COMM:
    case TRM_ERR_NO_MEMORY:
        return 503;
    default:
        return 500;
    }
}

void trm_http_answer_json(trm_http_exchange *x, int status, json_t *o)
{
    char *text = o == NULL ? NULL : json_dumps(o, JSON_COMPACT);

    trm_http_answer(x, text == NULL ? 500 : status, "application/json", text,
                    text == NULL ? 0 : strlen(text));
    free(text);
    json_decref(o);
}

/* One part is enough for the tests: "name=" and the bytes behind the first empty line. */
trm_status trm_http_multipart(const char *content_type, const void *body, size_t bytes,
                              trm_arena *arena, const trm_http_part **parts_out, int *count_out)
{
    trm_http_part *part = trm_arena_alloc(arena, 1, sizeof(*part));
    const char *text = body, *at = memmem(text, bytes, "\r\n\r\n", 4);

    (void)content_type;
    if (at == NULL || part == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "malformed form");
    part->name = memmem(text, bytes, "name=\"data\"", 11) != NULL ? "data" : "other";
    part->data = at + 4;
    part->bytes = bytes - (size_t)(at + 4 - text);
    *parts_out = part;
    *count_out = 1;
    return TRM_OK;
}

/* Another API's errors are not looked at here. */
char *trmi_openai_error(int status, const char *message)
{
    (void)status;
    return trm_strdup(message);
}

/* ---- hub.h ---- */
static void kit_keep(const trm_wire_request *w)
{
    kit_hub.kind = w->kind;
    kit_hub.version = w->version;
    kit_hub.priority = w->priority;
    kit_hub.deadline_ms = w->deadline_ms;
    kit_hub.stream = w->stream;
    snprintf(kit_hub.model, sizeof(kit_hub.model), "%s", w->model);
    kit_hub.body_bytes = w->body_bytes < sizeof(kit_hub.body) ? w->body_bytes : 0;
    memcpy(kit_hub.body, w->body, kit_hub.body_bytes);
    kit_hub.body[kit_hub.body_bytes] = '\0';
    kit_hub.tensor_count = w->tensor_count;
    for (int i = 0; i < w->tensor_count && i < 8; i++) {
        size_t bytes = 0;

        snprintf(kit_hub.names[i], sizeof(kit_hub.names[i]), "%s", w->tensors[i].name);
        kit_hub.tensors[i] = w->tensors[i].tensor;
        if (trm_tensor_bytes(&w->tensors[i].tensor, &bytes) != TRM_OK)
            abort();
        if (bytes <= sizeof(kit_hub.data[i]) && bytes > 0)
            memcpy(kit_hub.data[i], w->tensors[i].tensor.data, bytes);
        kit_hub.tensors[i].data = kit_hub.data[i];
    }
}

trm_status trm_hub_submit(trm_hub *hub, const trm_hub_request *request, uint64_t *id_out)
{
    (void)hub;
    kit_keep(request->wire);
    if (kit_hub.submit != TRM_OK)
        return trm_fail(kit_hub.submit, "said by the hub");
    *id_out = ++kit_hub.id;
    if (kit_hub.echo) {
        trm_wire_answer answer = {.message = "",
                                  .model = request->wire->model,
                                  .outputs = request->wire->tensors,
                                  .output_count = request->wire->tensor_count};

        request->answer(request->ctx, &answer);
        return TRM_OK;
    }
    if (kit_hub.at_once != NULL) {
        request->answer(request->ctx, kit_hub.at_once);
        return TRM_OK;
    }
    kit_hub.request = *request;
    kit_hub.pending = true;
    return TRM_OK;
}

KIT_UNUSED static void kit_answer(const trm_wire_answer *answer)
{
    if (!kit_hub.pending)
        return;
    kit_hub.pending = false;
    kit_hub.request.answer(kit_hub.request.ctx, answer);
}

void trm_hub_cancel(trm_hub *hub, uint64_t id)
{
    (void)hub;
    kit_hub.cancelled = id;
}

trm_status trm_hub_models(trm_hub *hub, trm_hub_model_info **infos_out, int *count_out)
{
    (void)hub;
    *infos_out = kit_hub.models;
    *count_out = kit_hub.model_count;
    return TRM_OK;
}

void trm_hub_models_free(trm_hub_model_info *infos, int count)
{
    (void)infos;
    (void)count;
}

trm_status trm_hub_find_model(trm_hub *hub, const char *name, int64_t version,
                              trm_hub_model_info *info_out)
{
    (void)hub;
    for (int i = kit_hub.model_count - 1; i >= 0; i--) {
        const trm_hub_model_info *m = &kit_hub.models[i];

        if (strcmp(m->name, name) != 0 || (version != 0 && m->version != version))
            continue;
        *info_out = *m;
        info_out->metadata = trm_strdup(m->metadata);
        return TRM_OK;
    }
    return trm_fail(TRM_ERR_NOT_FOUND, "no model '%s'", name);
}

trm_status trm_hub_load(trm_hub *hub, const trm_hub_model *model, void *ctx,
                        void (*done)(void *ctx, trm_status st, const char *message))
{
    (void)hub;
    snprintf(kit_hub.load_name, sizeof(kit_hub.load_name), "%s", model->name);
    kit_hub.load_has_settings = model->settings != NULL;
    snprintf(kit_hub.load_settings, sizeof(kit_hub.load_settings), "%s",
             model->settings == NULL ? "" : model->settings);
    kit_hub.load_version = model->version;
    if (kit_hub.load != TRM_OK)
        return trm_fail(kit_hub.load, "said by the hub");
    kit_hub.load_pending = true;
    kit_hub.load_ctx = ctx;
    kit_hub.load_done = done;
    return TRM_OK;
}

trm_status trm_hub_unload(trm_hub *hub, const char *name, int64_t version, void *ctx,
                          void (*done)(void *ctx, trm_status st, const char *message))
{
    trm_hub_model model = {.name = name, .version = version};

    return trm_hub_load(hub, &model, ctx, done);
}

trm_status trm_hub_get_info(trm_hub *hub, trm_hub_info *info_out)
{
    (void)hub;
    memset(info_out, 0, sizeof(*info_out));
    info_out->ready = kit_hub.ready;
    info_out->draining = kit_hub.draining;
    return TRM_OK;
}

void trm_hub_info_fini(trm_hub_info *info)
{
    (void)info;
}

json_t *trm_metrics_model_statistics(trm_metrics *m, const char *model, int64_t version)
{
    (void)m;
    (void)model;
    (void)version;
    return json_incref(kit_hub.statistics);
}

/* ---- requests ---- */
static void kit_copy(kit_pair *pair, const char *name, size_t name_bytes, const char *value,
                     size_t value_bytes)
{
    snprintf(pair->name, sizeof(pair->name), "%.*s", (int)name_bytes, name);
    snprintf(pair->value, sizeof(pair->value), "%.*s", (int)value_bytes, value);
}

/* Whether the pattern fits, with its names into x. */
static bool kit_match(trm_http_exchange *x, const char *pattern, const char *path)
{
    x->name_count = 0;
    while (*pattern != '\0' && *path != '\0') {
        size_t p = strcspn(pattern + 1, "/") + 1, q = strcspn(path + 1, "/") + 1;

        if (pattern[1] == '{')
            kit_copy(&x->names[x->name_count++], pattern + 2, p - 3, path + 1, q - 1);
        else if (p != q || memcmp(pattern, path, p) != 0)
            return false;
        pattern += p;
        path += q;
    }
    return *pattern == *path;
}

/* Runs the handler of the route. `headers`: "Name: value" pairs, ended by NULL; NULL: none. A query
 * may follow the path. */
KIT_UNUSED static trm_http_exchange *kit_call(trmi_routes routes, const char *method,
                                              const char *target, const char *const *headers,
                                              const void *body, size_t bytes)
{
    trm_http_exchange *x = calloc(1, sizeof(*x));
    static char path[512];
    char *query;

    snprintf(path, sizeof(path), "%s", target);
    query = strchr(path, '?');
    if (query != NULL) {
        *query++ = '\0';
        kit_copy(&x->query[x->query_count++], query, strcspn(query, "="), strchr(query, '=') + 1,
                 strlen(strchr(query, '=') + 1));
    }
    for (int i = 0; headers != NULL && headers[i] != NULL; i++) {
        size_t n = strcspn(headers[i], ":");

        kit_copy(&x->headers[x->header_count++], headers[i], n, headers[i] + n + 2,
                 strlen(headers[i] + n + 2));
    }
    x->method = method;
    x->path = path;
    x->body = body == NULL ? "" : body;
    x->bytes = bytes;
    x->g = &kit_gateway;
    for (int i = 0; i < routes.count; i++) {
        if (strcmp(routes.routes[i].method, method) != 0 ||
            !kit_match(x, routes.routes[i].pattern, path))
            continue;
        x->pattern = routes.routes[i].pattern;
        routes.routes[i].handle(x->g, x);
        return x;
    }
    trm_http_answer(x, 404, "", "no route", 8);
    return x;
}

KIT_UNUSED static void kit_free(trm_http_exchange *x)
{
    free(x->data);
    free(x);
}

#endif
