/* The watcher: what libmicrohttpd does not see.
 *
 * libmicrohttpd takes the socket of a suspended connection out of its epoll set, so it does not
 * notice that a client has left while its answer is computed. Chosen: one thread that asks poll()
 * for all that have waited a while, four times a second. An epoll set of our own would notice at
 * once, but costs two system calls on every request and a thread that wakes for each; this costs
 * nothing on a request that is answered soon, and a generation is cancelled within half a second.
 * A client that has closed only its sending side counts as gone, as with other servers.
 *
 * Between requests and inside a body libmicrohttpd looks itself, but edge-triggered: where the last
 * bytes and the end come together it takes the bytes, waits for another edge, and keeps the
 * connection until it has been idle too long. Such a socket is shut down here.
 *
 * It also answers 408 where a body does not come, and reads to the end what a client still sends
 * after it was refused: closing a socket with unread bytes resets the connection, and the client
 * would lose the answer that says why.
 *
 * A socket is looked at only under h->mu while its connection is in the list: it cannot be closed
 * meanwhile. */
#define _GNU_SOURCE
#include "coordinator/gateway/http_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_MS = 250,
    WAITED_US = 100000, /* an exchange that waits as long is watched */
    LINGER_US = 2000000,
    LINGER_BYTES = 64 << 20
};

/* How a connection is to be watched now. */
typedef enum watching {
    NOT_AT_ALL, /* libmicrohttpd is busy with it */
    FOR_CLIENT, /* an answer is awaited: its client may leave */
    FOR_END,    /* nothing, or a body, is awaited */
    IS_LATE     /* a body does not come; a reference was taken */
} watching;

static watching how_to_watch(const trm_http *h, trm_http_exchange *x, int64_t now)
{
    watching w = NOT_AT_ALL;

    if (x == NULL)
        return FOR_END;
    pthread_mutex_lock(&x->mu);
    if (x->suspended && !x->gone && !x->answered && now - x->moved_us > WAITED_US) {
        w = FOR_CLIENT;
    } else if (x->phase == TRMI_HTTP_READING && !x->gone) {
        w = now - x->moved_us > h->o.idle_ms * 1000 ? IS_LATE : FOR_END;
        x->refs += w == IS_LATE;
    }
    pthread_mutex_unlock(&x->mu);
    return w;
}

static void mark_gone(trm_http_exchange *x)
{
    pthread_mutex_lock(&x->mu);
    x->gone = true;
    x->refs++;
    pthread_mutex_unlock(&x->mu);
}

/* Exchanges whose clients have left into h->left, those whose body does not come into h->late, with
 * a reference each; h->mu held. Returns how many of the first, *late_out of the second. */
static int look(trm_http *h, int *late_out)
{
    int64_t now = trm_now_us();
    int n = 0, left = 0, late = 0;

    for (trmi_http_connection *c = h->connections; c != NULL && n < h->o.connections; c = c->next) {
        watching w = how_to_watch(h, c->exchange, now);

        if (w == IS_LATE)
            h->late[late++] = c->exchange;
        if (w == FOR_CLIENT || w == FOR_END) {
            h->watched[n] = (struct pollfd){.fd = c->fd, .events = POLLRDHUP};
            h->watched_connections[n++] = c;
        } else {
            c->hung = false;
        }
    }
    *late_out = late;
    if (n == 0 || poll(h->watched, (nfds_t)n, 0) < 0)
        return 0;
    for (int i = 0; i < n; i++) {
        trmi_http_connection *c = h->watched_connections[i];
        bool hung = (h->watched[i].revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;

        if (hung && how_to_watch(h, c->exchange, now) == FOR_CLIENT) {
            mark_gone(c->exchange);
            h->left[left++] = c->exchange;
        } else if (hung && c->hung) { /* for a whole tick, and libmicrohttpd has not noticed */
            (void)shutdown(c->fd, SHUT_RDWR);
        }
        c->hung = hung;
    }
    return left;
}

/* ---- connections that were refused while more was to come ---- */
void trmi_http_linger_add(trm_http *h, int fd)
{
    for (int i = 0; i < TRMI_HTTP_LINGERING_MAX; i++)
        if (h->lingering[i].fd < 0) {
            int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

            if (own < 0)
                return;
            (void)shutdown(own, SHUT_WR);
            h->lingering[i] = (trmi_http_linger){own, trm_now_us() + LINGER_US, 0};
            h->lingering_count++;
            trmi_http_watch_wake(h);
            return;
        }
}

static void linger_read(trm_http *h, int64_t now)
{
    char scrap[16384];

    for (int i = 0; i < TRMI_HTTP_LINGERING_MAX; i++) {
        trmi_http_linger *l = &h->lingering[i];
        ssize_t n = 0;

        if (l->fd < 0)
            continue;
        for (int turn = 0; turn < 256; turn++) {
            n = recv(l->fd, scrap, sizeof(scrap), MSG_DONTWAIT);
            if (n <= 0)
                break;
            l->bytes += (size_t)n;
        }
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || now > l->until_us ||
            l->bytes > LINGER_BYTES) {
            (void)close(l->fd);
            l->fd = -1;
            h->lingering_count--;
        }
    }
}

/* ---- the thread ---- */
void trmi_http_watch_wake(trm_http *h)
{
    if (h->watcher_sleeps)
        pthread_cond_broadcast(&h->changed);
}

static void sleep_ms(trm_http *h, int ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)ms * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)pthread_cond_timedwait(&h->changed, &h->mu, &until);
}

static void *watch(void *ctx)
{
    trm_http *h = ctx;

    pthread_setname_np(pthread_self(), "trm-http-watch");
    pthread_mutex_lock(&h->mu);
    while (!h->watcher_ends) {
        int left, late = 0;

        if (h->connection_count == 0 && h->lingering_count == 0) {
            h->watcher_sleeps = true; /* an idle server does not wake at all but twice a minute */
            sleep_ms(h, 30000);
            h->watcher_sleeps = false;
            continue;
        }
        sleep_ms(h, h->lingering_count > 0 ? 10 : TICK_MS);
        linger_read(h, trm_now_us());
        left = look(h, &late);
        pthread_mutex_unlock(&h->mu);
        for (int i = 0; i < left; i++) {
            trmi_http_tell_gone(h->left[i]);
            trmi_http_exchange_unref(h->left[i]);
        }
        for (int i = 0; i < late; i++) {
            trmi_http_write_raw(h->late[i], 408, "the body did not come in time", false);
            trmi_http_exchange_unref(h->late[i]);
        }
        pthread_mutex_lock(&h->mu);
    }
    pthread_mutex_unlock(&h->mu);
    return NULL;
}

trm_status trmi_http_watch_start(trm_http *h)
{
    size_t most = (size_t)h->o.connections;
    sigset_t all, before;
    int rc;

    h->watched = trm_calloc(most, sizeof(*h->watched));
    h->watched_connections = trm_calloc(most, sizeof(trmi_http_connection *));
    h->left = trm_calloc(most, sizeof(trm_http_exchange *));
    h->late = trm_calloc(most, sizeof(trm_http_exchange *));
    if (h->watched == NULL || h->watched_connections == NULL || h->left == NULL || h->late == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "http: %d connections", h->o.connections);
    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&h->watcher, NULL, watch, h);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    h->watcher_started = rc == 0;
    if (rc != 0)
        return trm_fail(TRM_ERR_IO, "http: no thread: %s", strerror(rc));
    return TRM_OK;
}

void trmi_http_watch_stop(trm_http *h)
{
    pthread_mutex_lock(&h->mu);
    h->watcher_ends = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mu);
    if (h->watcher_started)
        (void)pthread_join(h->watcher, NULL);
    h->watcher_started = false;
    for (int i = 0; i < TRMI_HTTP_LINGERING_MAX; i++)
        if (h->lingering[i].fd >= 0) {
            (void)close(h->lingering[i].fd);
            h->lingering[i].fd = -1;
        }
    h->lingering_count = 0;
    trm_free(h->watched);
    trm_free(h->watched_connections);
    trm_free(h->left);
    trm_free(h->late);
    h->watched = NULL;
    h->watched_connections = NULL;
    h->left = h->late = NULL;
}
