/* Shared by the files of the HTTP server.
 *
 * Threads: libmicrohttpd's one (it calls on_request, on_completed, on_connection of http.c and the
 * stream's reader of http_answer.c), the watcher (http_watch.c), and any thread that answers.
 *
 * An exchange has two holders: the connection (from its first byte until libmicrohttpd says that
 * the request is completed) and the handler (from `handle` until it has answered). It is freed when
 * neither holds it any more, so a handler may go on after its client has left.
 *
 * Locks: h->mu before x->mu; none is held across a callback, nor in a call that may block. */
#ifndef TRM_COORDINATOR_GATEWAY_HTTP_IMPL_H
#define TRM_COORDINATOR_GATEWAY_HTTP_IMPL_H

#include "base/wait.h"
#include "coordinator/gateway/http.h"

#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TRMI_HTTP_SEGMENTS_MAX = 16,   /* of a pattern */
    TRMI_HTTP_NAMES_MAX = 8,       /* of a pattern */
    TRMI_HTTP_KEY_NAME_MAX = 64,   /* bytes */
    TRMI_HTTP_DISCARD_MAX = 65536, /* a refused request's body is read to its end up to this, so
                                      that its connection can go on */
    TRMI_HTTP_PEER_MAX = 48
};

/* ---- http_routes.c ---- */
typedef struct trmi_http_pattern {
    struct {
        const char *text; /* into the pattern, not terminated */
        size_t bytes;
        enum { TRMI_HTTP_LITERAL, TRMI_HTTP_NAME, TRMI_HTTP_REST } kind; /* also their rank */
    } segments[TRMI_HTTP_SEGMENTS_MAX];
    int count;
    int route; /* index of its row */
} trmi_http_pattern;

typedef struct trmi_http_table {
    const trm_http_route *routes; /* borrowed */
    trmi_http_pattern *patterns;  /* the more particular first */
    int count;
} trmi_http_table;

typedef struct trmi_http_match {
    int route; /* -1: none */
    int name_count;
    struct {
        const char *name; /* of the pattern, name_bytes long */
        size_t name_bytes;
        const char *raw; /* of the path, still encoded */
        size_t raw_bytes;
    } names[TRMI_HTTP_NAMES_MAX];
    char allow[96]; /* methods that the path has; "": no such path */
} trmi_http_match;

trm_status trmi_http_table_init(trmi_http_table *t, const trm_http_route *routes, int count);
void trmi_http_table_fini(trmi_http_table *t);
void trmi_http_table_match(const trmi_http_table *t, const char *method, const char *raw_path,
                           trmi_http_match *match);
/* %XX to bytes, into out[bytes + 1]; -1: a broken %XX or a NUL. May work in place. */
ssize_t trmi_http_decode(const char *raw, size_t bytes, char *out);

/* ---- http_keys.c ---- */
typedef struct trmi_http_keys trmi_http_keys; /* immutable */
typedef struct trmi_http_key {
    char name[TRMI_HTTP_KEY_NAME_MAX + 1];
    bool admin;
} trmi_http_key;
trm_status trmi_http_keys_load(const char *path, trmi_http_keys **keys_out);
trm_status trmi_http_keys_parse(const char *text, size_t bytes, const char *where,
                                trmi_http_keys **keys_out);
void trmi_http_keys_free(trmi_http_keys *k);
/* False: no such key. Its time does not depend on how much of a key was right. */
bool trmi_http_keys_find(const trmi_http_keys *k, const char *key, trmi_http_key *key_out);
int trmi_http_keys_count(const trmi_http_keys *k);

/* Exchanges under way of each holder (a key's name, an address). Shared. */
typedef struct trmi_http_limits trmi_http_limits;
trm_status trmi_http_limits_create(int most, trmi_http_limits **limits_out);
void trmi_http_limits_destroy(trmi_http_limits *l);
bool trmi_http_limits_enter(trmi_http_limits *l, const char *holder); /* false: too many */
void trmi_http_limits_leave(trmi_http_limits *l, const char *holder);

/* ---- http_log.c ---- */
typedef struct trmi_http_log {
    char *path; /* NULL: none */
    pthread_mutex_t mu;
    int fd; /* guarded by mu */
} trmi_http_log;
trm_status trmi_http_log_open(trmi_http_log *log, const char *path);
trm_status trmi_http_log_reopen(trmi_http_log *log); /* after a rotation */
void trmi_http_log_close(trmi_http_log *log);
void trmi_http_log_write(trmi_http_log *log, const trm_http_exchange *x, int status,
                         uint64_t bytes_out, int64_t us);

/* ---- http.c and the others ---- */
typedef struct trmi_http_connection {
    int fd;      /* libmicrohttpd's */
    bool linger; /* bytes of a refused request may still come: see http_watch.c */
    char peer[TRMI_HTTP_PEER_MAX];
    bool hung;                   /* the watcher's: its client had left when it looked last */
    trm_http_exchange *exchange; /* guarded by h->mu, as the others; NULL: between requests */
    struct trmi_http_connection *prev, *next;
} trmi_http_connection;

typedef struct trmi_http_linger {
    int fd; /* ours; -1: free */
    int64_t until_us;
    size_t bytes;
} trmi_http_linger;
enum { TRMI_HTTP_LINGERING_MAX = 64 };

struct trm_http {
    trm_http_options o; /* strings are our own copies */
    trmi_http_table table;
    struct MHD_Daemon *daemon;
    int listen_fd; /* -1: quiesced */
    int port;
    char url[96];
    uint64_t id_seed, id_next; /* id_next: libmicrohttpd's thread */
    char *cert, *key;          /* TLS, PEM; NULL */
    trmi_http_limits *limits;
    trmi_http_log log;
    pthread_mutex_t keys_mu;
    trmi_http_keys *keys; /* guarded by keys_mu; NULL: none asked for */
    int draining;         /* atomic, relaxed: answers say "Connection: close" */

    pthread_mutex_t mu;
    pthread_cond_t changed;            /* pending is 0; there is something to watch; stopping */
    bool stopping;                     /* guarded by mu */
    int pending;                       /* guarded by mu: exchanges that handlers hold */
    int connection_count;              /* guarded by mu */
    trmi_http_connection *connections; /* guarded by mu */
    trmi_http_linger lingering[TRMI_HTTP_LINGERING_MAX]; /* guarded by mu */
    int lingering_count;                                 /* guarded by mu */
    bool watcher_sleeps;                                 /* guarded by mu: nothing to watch */
    pthread_t watcher;
    bool watcher_started;   /* by the starting thread only */
    bool watcher_ends;      /* guarded by mu */
    struct pollfd *watched; /* the watcher's, as the next three */
    trmi_http_connection **watched_connections;
    trm_http_exchange **left, **late;
    char mhd_text[160]; /* what libmicrohttpd said last; while it starts */
};

typedef struct trmi_http_pair {
    const char *name, *value;
} trmi_http_pair;

typedef struct trmi_http_header {
    struct trmi_http_header *next;
    const char *name, *value; /* behind this struct */
} trmi_http_header;

typedef enum trmi_http_phase {
    TRMI_HTTP_READING, /* its body comes */
    TRMI_HTTP_HANDED,  /* the handler has had it */
} trmi_http_phase;

struct trm_http_exchange {
    trm_http *h;
    /* set at the head of the request, constant afterwards; in `block` or static */
    char *block;
    const trm_http_route *route; /* NULL: no such path or method */
    const char *method, *path;
    bool head; /* HEAD */
    trmi_http_pair names[TRMI_HTTP_NAMES_MAX];
    int name_count;
    trmi_http_pair *headers, *queries;
    int header_count, query_count;
    trmi_http_key key;
    char peer[TRMI_HTTP_PEER_MAX];
    char id[20];
    int64_t start_us;
    /* the body: libmicrohttpd's thread until it is handed over, constant afterwards */
    size_t body_max, declared; /* declared: SIZE_MAX where it is not */
    char *body;
    size_t body_bytes, body_capacity;
    int body_fd; /* -1: in memory */
    char *body_path;
    void *body_map; /* of body_fd, when asked for; the handler's */
    /* an error that is answered at the body's end; libmicrohttpd's thread */
    int early_status;
    char early_text[160];
    char allow[96];

    pthread_mutex_t mu;
    int refs;                   /* guarded by mu, as all that follows */
    struct MHD_Connection *mhd; /* NULL: the connection has let go */
    trmi_http_connection *connection;
    trmi_http_phase phase;
    int64_t moved_us; /* bytes of the body came; it was suspended */
    bool suspended;   /* whoever sets it to false resumes the connection */
    bool limited;     /* counts in h->limits */
    bool answered;    /* the handler has let go */
    bool gone;        /* nobody will read the rest */
    bool gone_told, gone_running;
    pthread_t gone_thread;
    void (*gone_call)(void *ctx);
    void *gone_ctx;
    trm_wait gone_wait; /* posted when gone_call has returned */
    int status;
    struct MHD_Response *response; /* made, not yet queued */
    trmi_http_header *extra;       /* of trm_http_set_header */
    bool streaming, ended;
    char *out; /* of a stream: [out_from, out_to) waits */
    size_t out_from, out_to, out_capacity;
    uint64_t bytes_out;
};

/* http_request.c: from a request's head. NULL: no memory. Sets early_status where it is refused. */
trm_http_exchange *trmi_http_exchange_create(trm_http *h, struct MHD_Connection *mhd,
                                             trmi_http_connection *c, const char *url,
                                             const char *method);
void trmi_http_exchange_unref(trm_http_exchange *x);
/* More of the body. False: it cannot be taken; early_status says why. */
bool trmi_http_body_add(trm_http_exchange *x, const char *data, size_t bytes);
void trmi_http_refuse(trm_http_exchange *x, int status, const char *fmt, ...) TRM_PRINTF(3, 4);
void trmi_http_leave_limits(trm_http_exchange *x);

/* http_answer.c */
void trmi_http_put(struct MHD_Response *r, const char *name, const char *value);
/* Headers that every answer has; r may be NULL. */
struct MHD_Response *trmi_http_dress(trm_http_exchange *x, struct MHD_Response *r,
                                     const char *content_type);
/* Tells the handler that its client is gone, if it wants to know and was not told. No lock held. */
void trmi_http_tell_gone(trm_http_exchange *x);
/* The handler lets go: limits, pending. */
void trmi_http_handler_done(trm_http_exchange *x);

/* http_error.c */
/* Queues x->response (or what early_status says) on the connection; its thread. */
enum MHD_Result trmi_http_queue(trm_http_exchange *x);
/* An error written to the socket at once, while the body still comes: libmicrohttpd takes no answer
 * then. Its thread must cut the connection afterwards (own_thread); another's call shuts the socket
 * down itself. Nothing happens where the body has ended meanwhile. */
void trmi_http_write_raw(trm_http_exchange *x, int status, const char *message, bool own_thread);

/* http_watch.c */
trm_status trmi_http_watch_start(trm_http *h);
void trmi_http_watch_stop(trm_http *h);
/* There is something to watch; h->mu is held. */
void trmi_http_watch_wake(trm_http *h);
/* Takes a copy of the socket of a connection that libmicrohttpd is about to close. h->mu held. */
void trmi_http_linger_add(trm_http *h, int fd);

/* http_listen.c */
trm_status trmi_http_options_copy(trm_http *h, const trm_http_options *o);
void trmi_http_options_free(trm_http *h);
trm_status trmi_http_listen(trm_http *h);
trm_status trmi_http_tls_load(trm_http *h);
void trmi_http_peer_text(const struct sockaddr *address, char *out, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
