/* For tests of the gateway's OpenAI files: a hub that answers by a model's name, on a thread of its
 * own like the real one, and an HTTP exchange that records. Included once a test program. */
#ifndef TRM_TESTS_COORDINATOR_OPENAI_KIT_H
#define TRM_TESTS_COORDINATOR_OPENAI_KIT_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "coordinator/gateway/openai_impl.h"

#include "base/wait.h"

#include <check.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KIT_PATIENCE_MS 60000

/* ---- the hub ---- */
typedef struct kit_request {
    struct kit_request *next;
    uint64_t id;
    trm_request_kind kind;
    char model[128], owner[64], tag[64];
    int64_t version;
    int32_t priority;
    uint32_t deadline_ms;
    bool stream, cancelled, started;
    char *body;
    size_t body_bytes;
    void *ctx;
    void (*part)(void *ctx, const trm_wire_part *part);
    void (*answer)(void *ctx, const trm_wire_answer *answer);
} kit_request;

struct trm_hub {
    pthread_mutex_t mu;
    pthread_cond_t more;
    pthread_t thread;
    bool stop;
    bool hold;     /* requests whose body has "hold" wait until this is false, or are cancelled */
    int refuse;    /* so many submits find the queue full */
    bool draining; /* submits fail with COMM, and what is cancelled is answered with COMM */
    uint64_t last_id;
    kit_request *waiting, *last; /* the last one submitted, kept for looking at */
    int submitted, cancels, under_way, under_way_most;
    const trm_hub_model_info *models;
    int model_count;
    int *seen; /* [seen_max] submits of lines by their "n" */
    int seen_max;
};

static inline void kit_answer(kit_request *q, trm_status st, const char *message, const char *body,
                              size_t bytes)
{
    trm_wire_answer a = {
        .id = q->id, .status = st, .message = message, .model = q->model, .version = 1};

    a.body = body;
    a.body_bytes = bytes;
    q->answer(q->ctx, &a);
}

static inline void kit_part(kit_request *q, const char *lines)
{
    trm_wire_part p = {.id = q->id, .new_tokens = 1, .body = lines, .body_bytes = strlen(lines)};

    if (q->part != NULL)
        q->part(q->ctx, &p);
}

/* What becomes of a request, by the name of its model. */
static inline void kit_run(kit_request *q)
{
    if (q->cancelled) {
        kit_answer(q, TRM_ERR_CANCELLED, "cancelled", "", 0);
    } else if (strcmp(q->model, "bad") == 0) {
        kit_answer(q, TRM_ERR_INVALID_ARG, "max_tokens is -1, wanted at least 0", "", 0);
    } else if (strcmp(q->model, "lost") == 0) {
        kit_answer(q, TRM_ERR_COMM, "the replica was lost", "", 0);
    } else if (strcmp(q->model, "late") == 0 && q->stream) {
        kit_part(q, "{\"n\":1}\n");
        kit_part(q, "{\"n\":2}\n");
        kit_answer(q, TRM_ERR_COMM, "the replica was lost", "", 0);
    } else if (q->stream) {
        kit_part(q, "{\"n\":1}\n{\"n\":2}\n");
        kit_part(q, "{\"n\":3}\n");
        kit_answer(q, TRM_OK, "", "", 0);
    } else {
        char *body = trm_malloc(q->body_bytes + 32, 1);
        int n = snprintf(body, q->body_bytes + 32, "{\"ok\":%.*s}", (int)q->body_bytes, q->body);

        kit_answer(q, TRM_OK, "", body, (size_t)n);
        trm_free(body);
    }
}

static inline void kit_request_free(kit_request *q)
{
    if (q == NULL)
        return;
    trm_free(q->body);
    trm_free(q);
}

static inline void *kit_hub_main(void *ctx)
{
    trm_hub *hub = ctx;

    pthread_mutex_lock(&hub->mu);
    while (!hub->stop) {
        kit_request *q = NULL;

        for (kit_request **at = &hub->waiting; *at != NULL && q == NULL; at = &(*at)->next) {
            bool held = hub->hold && !(*at)->cancelled && strstr((*at)->body, "hold") != NULL;

            if (held)
                continue;
            q = *at;
            *at = q->next;
            break;
        }
        if (q == NULL) {
            pthread_cond_wait(&hub->more, &hub->mu);
            continue;
        }
        pthread_mutex_unlock(&hub->mu);
        if (q->cancelled && hub->draining)
            kit_answer(q, TRM_ERR_COMM, "the hub is ending", "", 0);
        else
            kit_run(q);
        pthread_mutex_lock(&hub->mu);
        hub->under_way--;
        kit_request_free(hub->last);
        hub->last = q;
        pthread_cond_broadcast(&hub->more);
    }
    pthread_mutex_unlock(&hub->mu);
    return NULL;
}

trm_status trm_hub_submit(trm_hub *hub, const trm_hub_request *request, uint64_t *id_out)
{
    const trm_wire_request *w = request->wire;
    kit_request *q, **at;
    const char *n;

    if (hub->draining)
        return trm_fail(TRM_ERR_COMM, "the hub is draining");
    if (strcmp(w->model, "loading") == 0)
        return trm_fail(TRM_ERR_COMM, "model 'loading' is not ready: loading");
    if (strcmp(w->model, "full") == 0 ||
        (hub->refuse > 0 && __atomic_sub_fetch(&hub->refuse, 1, __ATOMIC_RELAXED) >= 0))
        return trm_fail(TRM_ERR_TIMEOUT, "4096 requests wait");
    if (strcmp(w->model, "unknown") == 0)
        return trm_fail(TRM_ERR_NOT_FOUND, "no model 'unknown'");
    q = trm_calloc(1, sizeof(*q));
    snprintf(q->model, sizeof(q->model), "%s", w->model);
    snprintf(q->owner, sizeof(q->owner), "%s", request->owner);
    snprintf(q->tag, sizeof(q->tag), "%s", w->tag != NULL ? w->tag : "");
    q->kind = w->kind;
    q->version = w->version;
    q->priority = w->priority;
    q->deadline_ms = w->deadline_ms;
    q->stream = w->stream;
    q->body = trm_calloc(w->body_bytes + 1, 1);
    memcpy(q->body, w->body, w->body_bytes);
    q->body_bytes = w->body_bytes;
    q->ctx = request->ctx;
    q->part = request->part;
    q->answer = request->answer;
    pthread_mutex_lock(&hub->mu);
    *id_out = q->id = ++hub->last_id;
    for (at = &hub->waiting; *at != NULL; at = &(*at)->next)
        ;
    *at = q;
    hub->submitted++;
    hub->under_way++;
    if (hub->under_way > hub->under_way_most)
        hub->under_way_most = hub->under_way;
    n = strstr(q->body, "\"n\":");
    if (n != NULL && hub->seen != NULL) {
        long i = strtol(n + 4, NULL, 10);

        if (i >= 0 && i < hub->seen_max)
            hub->seen[i]++;
    }
    pthread_cond_broadcast(&hub->more);
    pthread_mutex_unlock(&hub->mu);
    return TRM_OK;
}

void trm_hub_cancel(trm_hub *hub, uint64_t id)
{
    pthread_mutex_lock(&hub->mu);
    hub->cancels++;
    for (kit_request *q = hub->waiting; q != NULL; q = q->next)
        if (q->id == id)
            q->cancelled = true;
    pthread_cond_broadcast(&hub->more);
    pthread_mutex_unlock(&hub->mu);
}

trm_status trm_hub_models(trm_hub *hub, trm_hub_model_info **infos_out, int *count_out)
{
    trm_hub_model_info *infos = trm_calloc((size_t)hub->model_count, sizeof(*infos));

    for (int i = 0; i < hub->model_count; i++) {
        infos[i] = hub->models[i];
        infos[i].metadata = trm_strdup(hub->models[i].metadata);
    }
    *infos_out = infos;
    *count_out = hub->model_count;
    return TRM_OK;
}

void trm_hub_models_free(trm_hub_model_info *infos, int count)
{
    for (int i = 0; i < count; i++)
        trm_free(infos[i].metadata);
    trm_free(infos);
}

trm_status trm_hub_find_model(trm_hub *hub, const char *name, int64_t version,
                              trm_hub_model_info *info_out)
{
    for (int i = hub->model_count - 1; i >= 0; i--)
        if (strcmp(hub->models[i].name, name) == 0 &&
            (version == 0 || hub->models[i].version == version)) {
            *info_out = hub->models[i];
            info_out->metadata = trm_strdup(hub->models[i].metadata);
            return TRM_OK;
        }
    return trm_fail(TRM_ERR_NOT_FOUND, "no model '%s'", name);
}

static inline void kit_hub_start(trm_hub *hub)
{
    memset(hub, 0, sizeof(*hub));
    pthread_mutex_init(&hub->mu, NULL);
    pthread_cond_init(&hub->more, NULL);
    ck_assert_int_eq(pthread_create(&hub->thread, NULL, kit_hub_main, hub), 0);
}

static inline void kit_hub_stop(trm_hub *hub)
{
    pthread_mutex_lock(&hub->mu);
    hub->stop = true;
    pthread_cond_broadcast(&hub->more);
    pthread_mutex_unlock(&hub->mu);
    pthread_join(hub->thread, NULL);
    kit_request_free(hub->last);
    ck_assert_ptr_null(hub->waiting);
    pthread_mutex_destroy(&hub->mu);
    pthread_cond_destroy(&hub->more);
}

static inline void kit_hub_set_hold(trm_hub *hub, bool hold)
{
    pthread_mutex_lock(&hub->mu);
    hub->hold = hold;
    pthread_cond_broadcast(&hub->more);
    pthread_mutex_unlock(&hub->mu);
}

#ifndef KIT_REAL_HTTP
/* ---- an exchange ---- */
struct trm_http_exchange {
    trm_gateway *g;
    const char *body, *key, *names[4], *queries[8], *headers[8]; /* name, value, ..., NULL */
    size_t body_bytes;
    const char *body_path;
    /* what came of it; guarded by mu */
    pthread_mutex_t mu;
    pthread_cond_t more;
    bool done, streaming, deaf; /* deaf: writes fail, as to a client that is gone */
    int status, writes;
    char type[64], out_headers[512];
    char *out;
    size_t out_bytes;
    void *gone_ctx;
    void (*gone)(void *ctx);
};

static inline const char *kit_pair(const char *const *pairs, const char *name)
{
    for (int i = 0; pairs[i] != NULL; i += 2)
        if (strcasecmp(pairs[i], name) == 0)
            return pairs[i + 1];
    return NULL;
}

const char *trm_http_name(const trm_http_exchange *x, const char *name)
{
    return kit_pair(x->names, name);
}
const char *trm_http_query(const trm_http_exchange *x, const char *name)
{
    return kit_pair(x->queries, name);
}
const char *trm_http_header(const trm_http_exchange *x, const char *name)
{
    return kit_pair(x->headers, name);
}
const void *trm_http_body(const trm_http_exchange *x, size_t *bytes_out)
{
    *bytes_out = x->body_bytes;
    return x->body;
}
const char *trm_http_body_path(const trm_http_exchange *x)
{
    return x->body_path;
}
const char *trm_http_key_name(const trm_http_exchange *x)
{
    return x->key != NULL ? x->key : "";
}
const char *trm_http_id(const trm_http_exchange *x)
{
    (void)x;
    return "00c0ffee";
}
void *trm_http_ctx(const trm_http_exchange *x)
{
    return x->g;
}
void trm_http_on_gone(trm_http_exchange *x, void *ctx, void (*gone)(void *ctx))
{
    x->gone_ctx = ctx;
    x->gone = gone;
}
void trm_http_set_header(trm_http_exchange *x, const char *name, const char *value)
{
    size_t n = strlen(x->out_headers);

    snprintf(x->out_headers + n, sizeof(x->out_headers) - n, "%s: %s\n", name, value);
}
static inline void kit_put(trm_http_exchange *x, const void *data, size_t bytes)
{
    x->out = trm_realloc(x->out, x->out_bytes + bytes + 1, 1);
    if (bytes > 0)
        memcpy(x->out + x->out_bytes, data, bytes);
    x->out_bytes += bytes;
    x->out[x->out_bytes] = '\0';
}
static inline void kit_done(trm_http_exchange *x)
{
    ck_assert(!x->done);
    x->done = true;
    pthread_cond_broadcast(&x->more);
}
void trm_http_answer(trm_http_exchange *x, int status, const char *content_type, const void *data,
                     size_t bytes)
{
    pthread_mutex_lock(&x->mu);
    ck_assert(!x->streaming);
    x->status = status;
    snprintf(x->type, sizeof(x->type), "%s", content_type);
    kit_put(x, data, bytes);
    kit_done(x);
    pthread_mutex_unlock(&x->mu);
}
void trm_http_answer_take(trm_http_exchange *x, int status, const char *content_type, void *data,
                          size_t bytes)
{
    trm_http_answer(x, status, content_type, data, bytes);
    trm_free(data);
}
void trm_http_answer_file(trm_http_exchange *x, int status, const char *content_type, int fd,
                          size_t offset, size_t bytes)
{
    char *data = trm_malloc(bytes, 1);

    ck_assert_int_eq(pread(fd, data, bytes, (off_t)offset), (ssize_t)bytes);
    close(fd);
    trm_http_answer_take(x, status, content_type, data, bytes);
}
void trm_http_answer_json(trm_http_exchange *x, int status, json_t *o)
{
    char *text = json_dumps(o, JSON_COMPACT);

    ck_assert_ptr_nonnull(text);
    trm_http_answer(x, status, "application/json", text, strlen(text));
    free(text);
    json_decref(o);
}
void trm_http_stream_begin(trm_http_exchange *x, int status, const char *content_type)
{
    pthread_mutex_lock(&x->mu);
    x->streaming = true;
    x->status = status;
    snprintf(x->type, sizeof(x->type), "%s", content_type);
    pthread_mutex_unlock(&x->mu);
}
bool trm_http_stream_write(trm_http_exchange *x, const void *data, size_t bytes)
{
    bool ok;

    pthread_mutex_lock(&x->mu);
    ck_assert(x->streaming && !x->done);
    ok = !x->deaf;
    if (ok) {
        kit_put(x, data, bytes);
        x->writes++;
    }
    pthread_mutex_unlock(&x->mu);
    return ok;
}
void trm_http_stream_end(trm_http_exchange *x)
{
    pthread_mutex_lock(&x->mu);
    ck_assert(x->streaming);
    kit_done(x);
    pthread_mutex_unlock(&x->mu);
}
int trm_http_status_of(trm_status st)
{
    switch (st) {
    case TRM_OK:
        return 200;
    case TRM_ERR_INVALID_ARG:
    case TRM_ERR_BAD_FILE:
    case TRM_ERR_UNSUPPORTED:
        return 400;
    case TRM_ERR_NOT_FOUND:
        return 404;
    case TRM_ERR_COMM:
        return 503;
    case TRM_ERR_TIMEOUT:
        return 504;
    case TRM_ERR_CANCELLED:
        return 499;
    default:
        return 500;
    }
}
/* Not the real form: "PURPOSE\nFILENAME\nCONTENT". */
trm_status trm_http_multipart(const char *content_type, const void *body, size_t bytes,
                              trm_arena *arena, const trm_http_part **parts_out, int *count_out)
{
    trm_http_part *parts = trm_arena_alloc(arena, 2, sizeof(*parts));
    const char *text = body, *one, *two;

    if (strcmp(content_type, "multipart/form-data") != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "Content-Type is not multipart/form-data");
    one = bytes > 0 ? memchr(text, '\n', bytes) : NULL;
    two = one != NULL ? memchr(one + 1, '\n', bytes - (size_t)(one + 1 - text)) : NULL;
    *parts_out = parts;
    *count_out = one != NULL ? (two != NULL ? 2 : 1) : 0;
    if (one != NULL)
        parts[0] = (trm_http_part){.name = "purpose", .data = text, .bytes = (size_t)(one - text)};
    if (two != NULL)
        parts[1] =
            (trm_http_part){.name = "file",
                            .filename = trm_arena_strndup(arena, one + 1, (size_t)(two - one - 1)),
                            .data = two + 1,
                            .bytes = bytes - (size_t)(two + 1 - text)};
    return TRM_OK;
}

static inline void kit_exchange_init(trm_http_exchange *x, trm_gateway *g, const char *body)
{
    memset(x, 0, sizeof(*x));
    x->g = g;
    x->body = body;
    x->body_bytes = body != NULL ? strlen(body) : 0;
    pthread_mutex_init(&x->mu, NULL);
    pthread_cond_init(&x->more, NULL);
}
static inline void kit_exchange_wait(trm_http_exchange *x)
{
    int64_t deadline = trm_deadline_us(KIT_PATIENCE_MS);

    pthread_mutex_lock(&x->mu);
    while (!x->done) {
        struct timespec until;

        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&x->more, &x->mu, &until);
        ck_assert_msg(trm_now_us() < deadline, "no answer");
    }
    pthread_mutex_unlock(&x->mu);
}
static inline void kit_exchange_fini(trm_http_exchange *x)
{
    trm_free(x->out);
    pthread_mutex_destroy(&x->mu);
    pthread_cond_destroy(&x->more);
}
/* Calls the handler of a route and waits for the answer. */
static inline void kit_call(trm_http_exchange *x, trmi_routes routes, const char *method,
                            const char *pattern)
{
    for (int i = 0; i < routes.count; i++)
        if (strcmp(routes.routes[i].method, method) == 0 &&
            strcmp(routes.routes[i].pattern, pattern) == 0) {
            routes.routes[i].handle(x->g, x);
            kit_exchange_wait(x);
            return;
        }
    ck_abort_msg("no route %s %s", method, pattern);
}
static inline json_t *kit_json(const trm_http_exchange *x)
{
    json_error_t error;
    json_t *o = json_loads(x->out, 0, &error);

    ck_assert_msg(o != NULL, "%s in: %s", error.text, x->out);
    return o;
}
#endif
#endif
