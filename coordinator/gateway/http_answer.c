/* Answers of handlers: whole ones, files, streams.
 *
 * A handler's thread makes the response and resumes the connection; libmicrohttpd's thread then
 * queues it. A stream's bytes wait in x->out until libmicrohttpd's reader takes them; when there
 * are none the reader suspends the connection, and the next write resumes it. x->suspended decides
 * who resumes: whoever sets it to false under x->mu, so it happens once a suspension. */
#include "coordinator/gateway/http_impl.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STREAM_BLOCK = 16384, OUT_FIRST = 4096 };

/* ---- the client's leaving ---- */
void trmi_http_tell_gone(trm_http_exchange *x)
{
    void (*call)(void *) = NULL;
    void *ctx = NULL;

    pthread_mutex_lock(&x->mu);
    if (x->gone && !x->answered && !x->gone_told && x->gone_call != NULL) {
        x->gone_told = x->gone_running = true;
        x->gone_thread = pthread_self();
        call = x->gone_call;
        ctx = x->gone_ctx;
        x->refs++;
    }
    pthread_mutex_unlock(&x->mu);
    if (call == NULL)
        return;
    call(ctx);
    pthread_mutex_lock(&x->mu);
    x->gone_running = false;
    pthread_mutex_unlock(&x->mu);
    trm_wait_post(&x->gone_wait);
    trmi_http_exchange_unref(x);
}

void trm_http_on_gone(trm_http_exchange *x, void *ctx, void (*gone)(void *ctx))
{
    pthread_mutex_lock(&x->mu);
    x->gone_call = gone;
    x->gone_ctx = ctx;
    pthread_mutex_unlock(&x->mu);
    trmi_http_tell_gone(x); /* has left already */
}

/* Sets `answered` and waits until a gone_call that another thread is in has returned: it is not
 * called, nor running, when the answer returns. x->mu is held, and let go meanwhile. */
static void mark_answered(trm_http_exchange *x)
{
    x->answered = true;
    while (x->gone_running && !pthread_equal(x->gone_thread, pthread_self())) {
        uint32_t seen = trm_wait_count(&x->gone_wait);

        pthread_mutex_unlock(&x->mu);
        (void)!trm_wait_change(&x->gone_wait, seen, 0, trm_deadline_us(1000));
        pthread_mutex_lock(&x->mu);
    }
}

void trmi_http_handler_done(trm_http_exchange *x)
{
    trm_http *h = x->h;

    trmi_http_exchange_unref(x);
    pthread_mutex_lock(&h->mu);
    if (--h->pending == 0 && h->stopping)
        pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mu);
}

/* ---- making responses ---- */
void trmi_http_put(struct MHD_Response *r, const char *name, const char *value)
{
    if (r != NULL && MHD_add_response_header(r, name, value) != MHD_YES)
        TRM_LOG(TRM_LOG_DEBUG, "http", "header %s is left out: it has a bad value", name);
}

/* Headers that every answer has. */
struct MHD_Response *trmi_http_dress(trm_http_exchange *x, struct MHD_Response *r,
                                     const char *content_type)
{
    const char *origin = x->h->o.cors_origin;

    if (r == NULL)
        return NULL;
    if (content_type != NULL)
        trmi_http_put(r, "Content-Type", content_type);
    trmi_http_put(r, "X-Request-Id", x->id);
    if (origin != NULL) {
        trmi_http_put(r, "Access-Control-Allow-Origin", origin);
        trmi_http_put(r, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
        if (strcmp(origin, "*") != 0)
            trmi_http_put(r, "Vary", "Origin");
    }
    for (const trmi_http_header *e = x->extra; e != NULL; e = e->next)
        trmi_http_put(r, e->name, e->value);
    if (__atomic_load_n(&x->h->draining, __ATOMIC_RELAXED))
        trmi_http_put(r, "Connection", "close");
    return r;
}

void trm_http_set_header(trm_http_exchange *x, const char *name, const char *value)
{
    size_t name_bytes = strlen(name) + 1, value_bytes = strlen(value) + 1;
    trmi_http_header *e = trm_malloc(1, sizeof(*e) + name_bytes + value_bytes), **at;
    char *text;

    if (e == NULL)
        return;
    text = (char *)(e + 1);
    memcpy(text, name, name_bytes);
    memcpy(text + name_bytes, value, value_bytes);
    for (char *c = text; c < text + name_bytes + value_bytes - 1; c++)
        if ((*c == '\r' || *c == '\n') && *c != '\0')
            *c = ' '; /* no header or body of its own can be put in */
    e->next = NULL;
    e->name = text;
    e->value = text + name_bytes;
    for (at = &x->extra; *at != NULL; at = &(*at)->next) {
    }
    *at = e;
}

/* The handler lets go; the connection, if it is still there, takes the response. */
static void finish(trm_http_exchange *x, int status, struct MHD_Response *r)
{
    struct MHD_Connection *resume = NULL;

    trmi_http_leave_limits(x); /* before the client can know that it has its answer */
    pthread_mutex_lock(&x->mu);
    mark_answered(x);
    x->status = status;
    x->response = r;
    if (x->suspended) {
        x->suspended = false;
        resume = x->mhd; /* a suspended connection stays until it is resumed */
    }
    pthread_mutex_unlock(&x->mu);
    if (resume != NULL)
        MHD_resume_connection(resume);
    trmi_http_handler_done(x);
}

void trm_http_answer(trm_http_exchange *x, int status, const char *content_type, const void *data,
                     size_t bytes)
{
    char *copy = trm_malloc(bytes, 1);

    if (copy == NULL) {
        TRM_LOG(TRM_LOG_ERROR, "http", "no memory for an answer of %zu bytes", bytes);
        finish(x, 503, NULL);
        return;
    }
    if (bytes > 0)
        memcpy(copy, data, bytes);
    trm_http_answer_take(x, status, content_type, copy, bytes);
}

void trm_http_answer_take(trm_http_exchange *x, int status, const char *content_type, void *data,
                          size_t bytes)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer_with_free_callback(bytes, data, trm_free);

    x->bytes_out = x->head ? 0 : bytes;
    if (r == NULL)
        trm_free(data);
    finish(x, status, trmi_http_dress(x, r, content_type));
}

void trm_http_answer_file(trm_http_exchange *x, int status, const char *content_type, int fd,
                          size_t offset, size_t bytes)
{
    struct MHD_Response *r = MHD_create_response_from_fd_at_offset64(bytes, fd, offset);

    x->bytes_out = x->head ? 0 : bytes;
    if (r == NULL)
        (void)close(fd);
    finish(x, status, trmi_http_dress(x, r, content_type));
}

typedef struct growing {
    char *data;
    size_t bytes, capacity;
} growing;

static int grow_by(const char *text, size_t bytes, void *ctx)
{
    growing *g = ctx;

    if (g->bytes + bytes > g->capacity) {
        size_t wanted = g->capacity == 0 ? 1024 : 2 * g->capacity;
        char *larger;

        if (wanted < g->bytes + bytes)
            wanted = g->bytes + bytes;
        larger = trm_realloc(g->data, wanted, 1);
        if (larger == NULL)
            return -1;
        g->data = larger;
        g->capacity = wanted;
    }
    memcpy(g->data + g->bytes, text, bytes);
    g->bytes += bytes;
    return 0;
}

void trm_http_answer_json(trm_http_exchange *x, int status, json_t *o)
{
    growing g = {0};
    int rc = o == NULL ? -1 : json_dump_callback(o, grow_by, &g, JSON_COMPACT | JSON_ENCODE_ANY);

    json_decref(o);
    if (rc != 0 || g.data == NULL) {
        trm_free(g.data);
        trm_http_answer(x, 500, "application/json", "{\"error\":\"the answer has no JSON\"}", 34);
        return;
    }
    trm_http_answer_take(x, status, "application/json", g.data, g.bytes);
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
    case TRM_ERR_CANCELLED:
        return 499;
    case TRM_ERR_TIMEOUT:
        return 504;
    case TRM_ERR_NO_MEMORY:
    case TRM_ERR_COMM:
    case TRM_ERR_DEVICE:
        return 503;
    case TRM_ERR_CONFIG:
    case TRM_ERR_IO:
    case TRM_ERR_INTERNAL:
    case TRM_STATUS_COUNT:
        break;
    }
    return 500;
}

/* ---- streams ---- */
static ssize_t read_stream(void *ctx, uint64_t position, char *to, size_t most)
{
    trm_http_exchange *x = ctx;
    ssize_t n = 0;

    (void)position;
    pthread_mutex_lock(&x->mu);
    if (x->gone) {
        n = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (x->out_to > x->out_from) {
        size_t waiting = x->out_to - x->out_from, taken = waiting < most ? waiting : most;

        memcpy(to, x->out + x->out_from, taken);
        x->out_from += taken;
        if (x->out_from == x->out_to)
            x->out_from = x->out_to = 0;
        x->bytes_out += taken;
        n = (ssize_t)taken;
    } else if (x->ended) {
        n = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        MHD_suspend_connection(x->mhd); /* takes libmicrohttpd's own lock only, for a moment */
        x->suspended = true;
        x->moved_us = trm_now_us();
    }
    pthread_mutex_unlock(&x->mu);
    return n;
}

void trm_http_stream_begin(trm_http_exchange *x, int status, const char *content_type)
{
    /* to HEAD libmicrohttpd would send a chunked body's end */
    struct MHD_Response *r =
        x->head ? MHD_create_response_from_buffer(0, x->block, MHD_RESPMEM_PERSISTENT)
                : MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, x,
                                                    NULL);
    struct MHD_Connection *resume = NULL;

    r = trmi_http_dress(x, r, content_type);
    pthread_mutex_lock(&x->mu);
    x->streaming = true;
    x->status = status;
    x->response = r;
    if (r == NULL)
        x->gone = true;
    if (x->suspended) {
        x->suspended = false;
        resume = x->mhd;
    }
    pthread_mutex_unlock(&x->mu);
    if (resume != NULL)
        MHD_resume_connection(resume);
}

/* Room for `bytes` more at x->out_to; x->mu is held. */
static bool out_room(trm_http_exchange *x, size_t bytes)
{
    size_t waiting = x->out_to - x->out_from, wanted;
    char *larger;

    if (x->out_capacity - x->out_to >= bytes)
        return true;
    if (x->out_capacity >= waiting + bytes && x->out_from >= x->out_capacity / 2) {
        memmove(x->out, x->out + x->out_from, waiting);
        x->out_from = 0;
        x->out_to = waiting;
        return true;
    }
    wanted = x->out_capacity == 0 ? OUT_FIRST : 2 * x->out_capacity;
    if (wanted < x->out_to + bytes)
        wanted = x->out_to + bytes;
    larger = trm_realloc(x->out, wanted, 1);
    if (larger == NULL)
        return false;
    x->out = larger;
    x->out_capacity = wanted;
    return true;
}

bool trm_http_stream_write(trm_http_exchange *x, const void *data, size_t bytes)
{
    struct MHD_Connection *resume = NULL;
    bool ok, lost = false;

    pthread_mutex_lock(&x->mu);
    ok = x->streaming && !x->gone && !x->head && x->mhd != NULL;
    if (ok && bytes > 0) {
        size_t waiting = x->out_to - x->out_from;

        if ((uint64_t)waiting + bytes > (uint64_t)x->h->o.write_buffer || !out_room(x, bytes)) {
            /* libmicrohttpd waits for the socket to take more; it notices this at once */
            (void)shutdown(x->connection->fd, SHUT_RDWR);
            x->gone = lost = true;
            ok = false;
        } else {
            memcpy(x->out + x->out_to, data, bytes);
            x->out_to += bytes;
        }
        if (x->suspended && !lost) {
            x->suspended = false;
            resume = x->mhd;
        }
    }
    pthread_mutex_unlock(&x->mu);
    if (resume != NULL)
        MHD_resume_connection(resume);
    if (lost) {
        TRM_LOG(TRM_LOG_INFO, "http",
                "exchange %s: its client reads too slowly, over %" PRId64 " bytes wait: cut", x->id,
                x->h->o.write_buffer);
        trmi_http_tell_gone(x);
    }
    return ok;
}

void trm_http_stream_end(trm_http_exchange *x)
{
    struct MHD_Connection *resume = NULL;

    trmi_http_leave_limits(x);
    pthread_mutex_lock(&x->mu);
    mark_answered(x);
    x->ended = true;
    if (x->suspended) {
        x->suspended = false;
        resume = x->mhd;
    }
    pthread_mutex_unlock(&x->mu);
    if (resume != NULL)
        MHD_resume_connection(resume);
    trmi_http_handler_done(x);
}
