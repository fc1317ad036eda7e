/* The server: libmicrohttpd's daemon, its connections, and handing requests over. */
#define _GNU_SOURCE
#include "coordinator/gateway/http_impl.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FLUSH_MS 5000 /* at the end, for answers that are on their way */

enum {
    /* Of each connection: the head of a request must fit, and larger pieces of a body come at once;
     * but libmicrohttpd clears all of it after each request. */
    CONNECTION_BYTES = 65536,
    CONNECTION_STEP = 16384
};

/* ---- connections ---- */
static void on_connection(void *ctx, struct MHD_Connection *mhd, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    trm_http *h = ctx;
    trmi_http_connection *c = *socket_context;
    const union MHD_ConnectionInfo *info;
    int open;

    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        c = trm_calloc(1, sizeof(*c));
        *socket_context = c;
        if (c == NULL)
            return; /* its requests are refused */
        info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
        c->fd = info == NULL ? -1 : info->connect_fd;
        info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        trmi_http_peer_text(info == NULL ? NULL : info->client_addr, c->peer, sizeof(c->peer));
    }
    if (c == NULL)
        return;
    pthread_mutex_lock(&h->mu);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        c->next = h->connections;
        if (c->next != NULL)
            c->next->prev = c;
        h->connections = c;
        open = ++h->connection_count;
        trmi_http_watch_wake(h);
    } else {
        if (c->prev != NULL)
            c->prev->next = c->next;
        else
            h->connections = c->next;
        if (c->next != NULL)
            c->next->prev = c->prev;
        open = --h->connection_count;
        if (c->linger && !h->stopping)
            trmi_http_linger_add(h, c->fd);
    }
    pthread_mutex_unlock(&h->mu);
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        trm_free(c);
        *socket_context = NULL;
    }
    trm_metrics_connections(h->o.metrics, open);
}

/* ---- requests ---- */
static bool link_exchange(trm_http *h, trmi_http_connection *c, trm_http_exchange *x)
{
    bool ok;

    pthread_mutex_lock(&h->mu);
    ok = !h->stopping;
    if (ok)
        c->exchange = x;
    pthread_mutex_unlock(&h->mu);
    return ok;
}

static enum MHD_Result first_call(trm_http *h, struct MHD_Connection *mhd, const char *url,
                                  const char *method, void **request_context)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    trmi_http_connection *c = info == NULL ? NULL : info->socket_context;
    trm_http_exchange *x;

    if (c == NULL)
        return MHD_NO;
    x = trmi_http_exchange_create(h, mhd, c, url, method);
    if (x == NULL)
        return MHD_NO;
    if (!link_exchange(h, c, x)) {
        trmi_http_leave_limits(x);
        trmi_http_exchange_unref(x);
        return MHD_NO;
    }
    *request_context = x;
    if (x->early_status != 0 && x->declared > 0 &&
        (x->declared > TRMI_HTTP_DISCARD_MAX || trm_http_header(x, "Expect") != NULL)) {
        c->linger = true;
        return trmi_http_queue(x);
    }
    return MHD_YES;
}

static enum MHD_Result take_body(trm_http_exchange *x, const char *data, size_t bytes)
{
    pthread_mutex_lock(&x->mu);
    x->moved_us = trm_now_us();
    pthread_mutex_unlock(&x->mu);
    if (x->early_status != 0) { /* refused: read to its end, within the bound */
        x->body_bytes += bytes;
        if (x->body_bytes <= TRMI_HTTP_DISCARD_MAX)
            return MHD_YES;
    } else if (trmi_http_body_add(x, data, bytes)) {
        return MHD_YES;
    }
    trmi_http_write_raw(x, x->early_status, x->early_text, true);
    return MHD_NO;
}

static enum MHD_Result hand_over(trm_http *h, trm_http_exchange *x)
{
    bool stopping;

    if (x->early_status == 0 && (x->route->flags & TRM_HTTP_LARGE) != 0 && x->body_fd < 0)
        (void)trmi_http_body_add(x, "", 0); /* an empty file; or early_status */
    if (x->early_status != 0)
        return trmi_http_queue(x);
    pthread_mutex_lock(&h->mu);
    stopping = h->stopping;
    h->pending += !stopping;
    pthread_mutex_unlock(&h->mu);
    if (stopping)
        return MHD_NO;
    pthread_mutex_lock(&x->mu);
    x->phase = TRMI_HTTP_HANDED;
    x->refs++;
    pthread_mutex_unlock(&x->mu);
    x->route->handle(h->o.ctx, x);
    pthread_mutex_lock(&x->mu);
    if (x->response == NULL && !x->answered) {
        MHD_suspend_connection(x->mhd); /* takes libmicrohttpd's own lock only, for a moment */
        x->suspended = true;
        x->moved_us = trm_now_us();
        pthread_mutex_unlock(&x->mu);
        return MHD_YES;
    }
    pthread_mutex_unlock(&x->mu);
    return trmi_http_queue(x);
}

/* libmicrohttpd calls this at the end of a head, for each piece of a body, at the end of the body,
 * and again after a suspension. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *mhd, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *bytes, void **request_context)
{
    trm_http *h = ctx;
    trm_http_exchange *x = *request_context;

    (void)version;
    if (x == NULL)
        return first_call(h, mhd, url, method, request_context);
    if (*bytes > 0) {
        enum MHD_Result ok = take_body(x, data, *bytes);

        *bytes = 0;
        return ok;
    }
    return x->phase == TRMI_HTTP_READING ? hand_over(h, x) : trmi_http_queue(x);
}

static void on_completed(void *ctx, struct MHD_Connection *mhd, void **request_context,
                         enum MHD_RequestTerminationCode why)
{
    trm_http *h = ctx;
    trm_http_exchange *x = *request_context;
    uint64_t bytes_out;
    int64_t us;
    bool held;
    int status;

    (void)mhd;
    if (x == NULL)
        return;
    *request_context = NULL;
    pthread_mutex_lock(&h->mu);
    pthread_mutex_lock(&x->mu);
    x->connection->exchange = NULL;
    x->mhd = NULL;
    x->connection = NULL;
    held = x->phase == TRMI_HTTP_HANDED && !x->answered;
    if (held || (x->streaming && why != MHD_REQUEST_TERMINATED_COMPLETED_OK))
        x->gone = true;
    status = x->status != 0 ? x->status : 499;
    bytes_out = x->bytes_out;
    pthread_mutex_unlock(&x->mu);
    pthread_mutex_unlock(&h->mu);
    if (held)
        trmi_http_tell_gone(x);
    else
        trmi_http_leave_limits(x);
    us = trm_now_us() - x->start_us;
    trm_metrics_http(h->o.metrics, trm_http_route_pattern(x), status, (uint64_t)us, x->body_bytes,
                     bytes_out);
    trmi_http_log_write(&h->log, x, status, bytes_out, us);
    trmi_http_exchange_unref(x);
}

/* ---- the daemon ---- */
static size_t leave_encoded(void *ctx, struct MHD_Connection *mhd, char *text)
{
    (void)ctx;
    (void)mhd;
    return strlen(text); /* we decode, behind the matching of segments */
}

__attribute__((format(printf, 2, 0))) static void on_log(void *ctx, const char *fmt, va_list args)
{
    trm_http *h = ctx;
    char text[160];

    vsnprintf(text, sizeof(text), fmt, args);
    text[strcspn(text, "\n")] = '\0';
    if (h->daemon == NULL)
        memcpy(h->mhd_text, text, sizeof(text));
    TRM_LOG(TRM_LOG_DEBUG, "http", "libmicrohttpd: %s", text);
}

static trm_status daemon_start(trm_http *h)
{
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem tls[4] = {{MHD_OPTION_END, 0, NULL}};
    sigset_t all, before;
    struct MHD_Daemon *d;

    if (h->cert != NULL) {
        /* libmicrohttpd takes these as void *, but only reads them */
        static char priorities[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2";

        flags |= MHD_USE_TLS;
        tls[0] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_CERT, 0, h->cert};
        tls[1] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_MEM_KEY, 0, h->key};
        tls[2] = (struct MHD_OptionItem){MHD_OPTION_HTTPS_PRIORITIES, 0, priorities};
        tls[3] = (struct MHD_OptionItem){MHD_OPTION_END, 0, NULL};
    }
    sigfillset(&all); /* signals are for the program's own threads; SIGPIPE for nobody */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    d = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, h,
        MHD_OPTION_LISTEN_SOCKET, h->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)h->o.connections, MHD_OPTION_CONNECTION_TIMEOUT,
        /* later than the watcher, which can say why */
        (unsigned)((h->o.idle_ms + 999) / 1000 + 1), MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_MEMORY_INCREMENT, (size_t)CONNECTION_STEP,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_UNESCAPE_CALLBACK, leave_encoded, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_NOTIFY_COMPLETED, on_completed,
        h, MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (d == NULL)
        return trm_fail(TRM_ERR_IO, "libmicrohttpd does not start: %s", h->mhd_text);
    h->daemon = d;
    return TRM_OK;
}

static void destroy(trm_http *h)
{
    trmi_http_watch_stop(h);
    if (h->daemon != NULL)
        MHD_stop_daemon(h->daemon);
    if (h->listen_fd >= 0)
        (void)close(h->listen_fd);
    trmi_http_log_close(&h->log);
    trmi_http_limits_destroy(h->limits);
    trmi_http_keys_free(h->keys);
    trmi_http_table_fini(&h->table);
    trm_free(h->cert);
    trm_free(h->key);
    trmi_http_options_free(h);
    pthread_mutex_destroy(&h->keys_mu);
    pthread_cond_destroy(&h->changed);
    pthread_mutex_destroy(&h->mu);
    trm_free(h);
}

trm_status trm_http_start(const trm_http_options *options, trm_http **http_out)
{
    trm_http *h = trm_calloc(1, sizeof(*h));
    pthread_condattr_t attr;
    trm_status st;

    if (h == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "http: server");
    h->listen_fd = h->log.fd = -1;
    for (int i = 0; i < TRMI_HTTP_LINGERING_MAX; i++)
        h->lingering[i].fd = -1;
    pthread_mutex_init(&h->mu, NULL);
    pthread_mutex_init(&h->keys_mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (getrandom(&h->id_seed, sizeof(h->id_seed), 0) != (ssize_t)sizeof(h->id_seed))
        h->id_seed = (uint64_t)trm_now_us();
    TRM_TRY(st, trmi_http_options_copy(h, options), fail);
    TRM_TRY(st, trmi_http_log_open(&h->log, h->o.access_log), fail);
    TRM_TRY(st, trmi_http_table_init(&h->table, options->routes, options->route_count), fail);
    TRM_TRY(st, trmi_http_limits_create(h->o.requests_per_key, &h->limits), fail);
    if (h->o.keys_path != NULL)
        TRM_TRY(st, trmi_http_keys_load(h->o.keys_path, &h->keys), fail);
    TRM_TRY(st, trmi_http_tls_load(h), fail);
    TRM_TRY(st, trmi_http_listen(h), fail);
    TRM_TRY(st, trmi_http_watch_start(h), fail);
    TRM_TRY(st, daemon_start(h), fail);
    *http_out = h;
    return TRM_OK;

fail:
    destroy(h);
    return st;
}

int trm_http_port(const trm_http *h)
{
    return h->port;
}

const char *trm_http_url(const trm_http *h)
{
    return h->url;
}

trm_status trm_http_reload(trm_http *h)
{
    trmi_http_keys *fresh = NULL, *old;

    if (h->o.keys_path != NULL) {
        TRM_CHECK(trmi_http_keys_load(h->o.keys_path, &fresh));
        pthread_mutex_lock(&h->keys_mu);
        old = h->keys;
        h->keys = fresh;
        pthread_mutex_unlock(&h->keys_mu);
        trmi_http_keys_free(old);
    }
    return trmi_http_log_reopen(&h->log);
}

void trm_http_quiesce(trm_http *h)
{
    int fd;

    if (__atomic_exchange_n(&h->draining, 1, __ATOMIC_RELAXED) != 0)
        return;
    fd = MHD_quiesce_daemon(h->daemon);
    if (fd >= 0) {
        (void)close(fd);
        h->listen_fd = -1;
    }
}

/* Answers that were given leave before their connections are cut, if their readers take them. */
static void wait_for_answers(trm_http *h)
{
    int64_t deadline_us = trm_deadline_us(FLUSH_MS);
    bool some = true;

    while (some && trm_now_us() < deadline_us) {
        some = false;
        pthread_mutex_lock(&h->mu);
        for (trmi_http_connection *c = h->connections; c != NULL && !some; c = c->next) {
            trm_http_exchange *x = c->exchange;

            if (x == NULL)
                continue;
            pthread_mutex_lock(&x->mu);
            some = x->phase == TRMI_HTTP_HANDED && x->answered;
            pthread_mutex_unlock(&x->mu);
        }
        pthread_mutex_unlock(&h->mu);
        if (some)
            (void)usleep(2000);
    }
}

/* Cuts every connection; returns exchanges whose handlers must be told, with a reference each. */
static int cut_all(trm_http *h, trm_http_exchange **held, int most)
{
    int n = 0;

    pthread_mutex_lock(&h->mu);
    h->stopping = true;
    for (trmi_http_connection *c = h->connections; c != NULL; c = c->next) {
        trm_http_exchange *x = c->exchange;

        (void)shutdown(c->fd, SHUT_RDWR);
        if (x == NULL || n == most)
            continue;
        pthread_mutex_lock(&x->mu);
        if (x->phase == TRMI_HTTP_HANDED && !x->answered) {
            x->gone = true;
            x->refs++;
            held[n++] = x;
        }
        pthread_mutex_unlock(&x->mu);
    }
    pthread_mutex_unlock(&h->mu);
    return n;
}

/* Nothing can be freed before the last handler has let go. Says every 5 s what it waits for. */
static void wait_for_handlers(trm_http *h)
{
    struct timespec until;

    pthread_mutex_lock(&h->mu);
    clock_gettime(CLOCK_MONOTONIC, &until);
    while (h->pending > 0) {
        until.tv_sec += 5;
        while (h->pending > 0 && pthread_cond_timedwait(&h->changed, &h->mu, &until) != ETIMEDOUT) {
        }
        if (h->pending > 0)
            TRM_LOG(TRM_LOG_WARN, "http", "%d requests are still not answered by their handlers",
                    h->pending);
    }
    pthread_mutex_unlock(&h->mu);
}

void trm_http_stop(trm_http *h)
{
    trm_http_exchange **held;
    int n;

    if (h == NULL)
        return;
    trm_http_quiesce(h);
    wait_for_answers(h);
    held = trm_calloc((size_t)h->o.connections, sizeof(*held));
    n = cut_all(h, held, held == NULL ? 0 : h->o.connections);
    for (int i = 0; held != NULL && i < n; i++) {
        trmi_http_tell_gone(held[i]);
        trmi_http_exchange_unref(held[i]);
    }
    trm_free(held);
    wait_for_handlers(h);
    destroy(h);
}
