/* The HTTP server: the adapter over libmicrohttpd (the only place that knows it), and what every
 * endpoint needs: routes, keys, limits, bodies, answers now or later, streams, the access log.
 *
 * One thread (epoll) serves all connections. A handler is called on it when the whole body is
 * there; it must return at once and answer now or later, from any thread. A connection that waits
 * for its answer is suspended and costs nothing. */
#ifndef TRM_COORDINATOR_GATEWAY_HTTP_H
#define TRM_COORDINATOR_GATEWAY_HTTP_H

#include "base/memory.h"
#include "coordinator/metrics.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_http trm_http;
typedef struct trm_http_exchange trm_http_exchange; /* one request and its response */

enum {
    TRM_HTTP_OPEN = 1 << 0, /* route: no key is asked for (health) */
    TRM_HTTP_LARGE =
        1 << 1, /* route: upload limit instead of body limit; the body goes to a file */
    TRM_HTTP_ADMIN = 1 << 2, /* route: wants a key that may administer, where there are keys */
    TRM_HTTP_LIGHT = 1 << 3, /* route: does not count against requests_per_key (health, metrics) */
};

/* One row an endpoint. `pattern`: "/v2/models/{model}/infer"; a {name} matches one segment
 * (decoded, not empty). A pattern that ends in "/{name...}" matches the rest. */
typedef struct trm_http_route {
    const char *method; /* "GET" answers HEAD, too */
    const char *pattern;
    void (*handle)(void *ctx, trm_http_exchange *x);
    unsigned flags;
} trm_http_route;

typedef struct trm_http_options {
    const char *listen;    /* "127.0.0.1:8080", "[::1]:8080", ":0"; port 0: any free one */
    const char *keys_path; /* NULL: none asked for. Lines "NAME KEY [admin]", '#' comments; mode
                              0600 or stricter else CONFIG; read anew on trm_http_reload */
    const char *cert_path, *key_path; /* NULL: no TLS */
    size_t body_max;                  /* 0: 32 MiB; larger: 413 */
    size_t upload_max;                /* of TRM_HTTP_LARGE; 0: 1 GiB */
    int requests_per_key;             /* at once, of a key (of an address where there are no keys);
                                         0: 64; more: 429 with Retry-After */
    int connections;                  /* 0: 1,024 */
    int64_t idle_ms;                  /* a connection that sends or takes nothing; 0: 60,000 */
    int64_t write_buffer;   /* bytes a slow reader may have waiting in a stream; 0: 8 MiB; more: the
                               connection is cut and `gone` called */
    const char *access_log; /* a file, "-" standard error, NULL none: one line an exchange: time,
                               key name, peer, method, route with its names filled in but no query,
                               status, bytes in and out, ms. Never a body */
    const char *cors_origin; /* NULL: no CORS headers */
    bool metrics_open;       /* /metrics needs no key */
    const trm_http_route *routes;
    int route_count;
    void *ctx; /* handlers get it */
    trm_metrics *metrics;
    /* Body of an error that the server itself answers (404, 405, 413, 429, 401 ...), from
     * trm_malloc; NULL: {"error": message}. `path` says which API's form is wanted. */
    char *(*error_body)(void *ctx, const char *path, int status, const char *message);
} trm_http_options;

/* Starts. CONFIG or INVALID_ARG: listen, keys or TLS files; IO: the port is taken (says so). */
TRM_MUST_USE trm_status trm_http_start(const trm_http_options *options, trm_http **http_out);
int trm_http_port(const trm_http *h);
const char *trm_http_url(const trm_http *h); /* "http://127.0.0.1:8080" */
/* Reads the keys anew; on failure the old ones stay. */
TRM_MUST_USE trm_status trm_http_reload(trm_http *h);
/* No new connections, and every answer closes its connection (draining). */
void trm_http_quiesce(trm_http *h);
/* Ends: answers that were given may leave for 5 s (scaled), then connections that are still open
 * are cut, `gone` is called for exchanges under way. Waits
 * until every exchange has been answered by its handler; the others' threads must still run. Takes
 * NULL. */
void trm_http_stop(trm_http *h);

/* ---- a request; valid until the handler answers or ends the exchange ---- */
const char *trm_http_method(const trm_http_exchange *x);
const char *trm_http_path(const trm_http_exchange *x); /* decoded, no query */
const char *trm_http_route_pattern(const trm_http_exchange *x);
const char *trm_http_name(const trm_http_exchange *x, const char *name);  /* of the pattern; NULL */
const char *trm_http_query(const trm_http_exchange *x, const char *name); /* decoded; NULL */
const char *trm_http_header(const trm_http_exchange *x, const char *name); /* any case; NULL */
/* Never NULL but for TRM_HTTP_LARGE where the file cannot be mapped: it is mapped when asked for.
 */
const void *trm_http_body(const trm_http_exchange *x, size_t *bytes_out);
/* TRM_HTTP_LARGE: the file with the body (unlinked when the exchange ends unless taken by
 * renaming); NULL else. */
const char *trm_http_body_path(const trm_http_exchange *x);
const char *trm_http_key_name(const trm_http_exchange *x); /* "" where no keys are used */
const char *trm_http_id(const trm_http_exchange *x); /* fresh, hexadecimal; also the response's
                                                        header X-Request-Id */
void *trm_http_ctx(const trm_http_exchange *x);      /* options.ctx */
/* Called once, on a thread of the server, if the client goes away before the answer is complete
 * (within half a second while it waits; a client that has closed its sending side counts as gone);
 * at once, on this thread, if it has left already; in trm_http_stream_write, if that finds the
 * client too slow. Never after trm_http_answer or trm_http_stream_end has returned: they wait for a
 * call that is running. It may itself answer. The handler still has to answer or end. */
void trm_http_on_gone(trm_http_exchange *x, void *ctx, void (*gone)(void *ctx));

/* ---- the answer, from any thread: one of these two ways, exactly once ---- */
/* More headers of the answer, before it. */
void trm_http_set_header(trm_http_exchange *x, const char *name, const char *value);
/* Copies `bytes`. After it `x` is gone for the handler. */
void trm_http_answer(trm_http_exchange *x, int status, const char *content_type, const void *data,
                     size_t bytes);
/* As answer, but takes `data` over (freed by trm_free). */
void trm_http_answer_take(trm_http_exchange *x, int status, const char *content_type, void *data,
                          size_t bytes);
/* A file's bytes [offset, offset + bytes), sent without reading it into memory; takes `fd` over. */
void trm_http_answer_file(trm_http_exchange *x, int status, const char *content_type, int fd,
                          size_t offset, size_t bytes);
void trm_http_stream_begin(trm_http_exchange *x, int status, const char *content_type);
/* False: the client is gone, or too slow (write_buffer): nothing more will be sent. */
bool trm_http_stream_write(trm_http_exchange *x, const void *data, size_t bytes);
void trm_http_stream_end(trm_http_exchange *x); /* `x` is gone for the handler */

/* ---- helpers for handlers ---- */
/* 200, 400, 404, 499, 500, 503, 504 for a status of ours. A full queue (trm_hub_submit's TIMEOUT)
 * is the caller's to answer with 429. */
int trm_http_status_of(trm_status st);
/* application/json of `o` (a reference is taken over), compact. */
void trm_http_answer_json(trm_http_exchange *x, int status, json_t *o);
/* The parts of a multipart/form-data body (content_type is the request's header). INVALID_ARG:
 * malformed. Pointers go into `body` and `arena`. */
typedef struct trm_http_part {
    const char *name, *filename; /* filename: NULL */
    const void *data;
    size_t bytes;
} trm_http_part;
TRM_MUST_USE trm_status trm_http_multipart(const char *content_type, const void *body, size_t bytes,
                                           trm_arena *arena, const trm_http_part **parts_out,
                                           int *count_out);

#ifdef __cplusplus
}
#endif
#endif
