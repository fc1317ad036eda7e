/* For tests of the gateway's OpenAI files without a server: an HTTP exchange that records. Included
 * once a test program. */
#ifndef TRM_TESTS_COORDINATOR_OPENAI_KIT_H
#define TRM_TESTS_COORDINATOR_OPENAI_KIT_H

#include "openai_hub.h"

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
    x->out = realloc(x->out, x->out_bytes + bytes + 1);
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
    case TRM_ERR_NO_MEMORY:
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
    free(x->out);
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
