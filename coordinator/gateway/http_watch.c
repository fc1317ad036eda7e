/* The watcher: what libmicrohttpd does not see.
 *
 * libmicrohttpd takes the socket of a suspended connection out of its epoll set, so it does not
 * notice that a client has left while its answer is computed. Chosen: one thread that asks poll()
 * for all that have waited a while, four times a second. An epoll set of our own would notice at
 * once, but costs two system calls on every request and a thread that wakes for each; this costs
 * nothing on a request that is answered soon, and a generation is cancelled within half a second.
 * A client that has closed only its sending side counts as gone, as with other servers.
 *
 * It also answers 408 where a body does not come, and reads to the end what a client still sends
 * after it was refused: closing a socket with unread bytes resets the connection, and the client
 * would lose the answer that says why.
 *
 * A socket is looked at only under h->mu while its exchange holds its connection: it cannot be
 * closed meanwhile. */
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

/* Exchanges whose clients have left into h->watched_exchanges, those whose body does not come into
 * h->late, with a reference each; h->mu held. Returns how many of the first, *late_out of the
 * second. */
static int find_gone(trm_http *h, int *late_out)
{
    int64_t now = trm_now_us();
    int n = 0, gone = 0, late = 0;

    for (trm_http_exchange *x = h->exchanges; x != NULL && n + late < h->o.connections;
         x = x->next) {
        pthread_mutex_lock(&x->mu);
        if (x->suspended && !x->gone && !x->answered && now - x->moved_us > WAITED_US) {
            h->watched[n] = (struct pollfd){.fd = x->connection->fd, .events = POLLRDHUP};
            h->watched_exchanges[n++] = x;
        } else if (x->phase == TRMI_HTTP_READING && !x->gone &&
                   now - x->moved_us > h->o.idle_ms * 1000) {
            x->refs++;
            h->late[late++] = x;
        }
        pthread_mutex_unlock(&x->mu);
    }
    *late_out = late;
    if (n == 0 || poll(h->watched, (nfds_t)n, 0) <= 0)
        return 0;
    for (int i = 0; i < n; i++) {
        trm_http_exchange *x = h->watched_exchanges[i];

        if ((h->watched[i].revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0)
            continue;
        pthread_mutex_lock(&x->mu);
        x->gone = true;
        x->refs++;
        pthread_mutex_unlock(&x->mu);
        h->watched_exchanges[gone++] = x;
    }
    return gone;
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
        int gone, late = 0;

        if (h->connection_count == 0 && h->lingering_count == 0) {
            h->watcher_sleeps = true; /* an idle server does not wake at all but twice a minute */
            sleep_ms(h, 30000);
            h->watcher_sleeps = false;
            continue;
        }
        sleep_ms(h, h->lingering_count > 0 ? 10 : TICK_MS);
        linger_read(h, trm_now_us());
        gone = find_gone(h, &late);
        pthread_mutex_unlock(&h->mu);
        for (int i = 0; i < gone; i++) {
            trmi_http_tell_gone(h->watched_exchanges[i]);
            trmi_http_exchange_unref(h->watched_exchanges[i]);
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
    sigset_t all, before;
    int rc;

    h->watched = trm_calloc((size_t)h->o.connections, sizeof(*h->watched));
    h->watched_exchanges = trm_calloc((size_t)h->o.connections, sizeof(*h->watched_exchanges));
    h->late = trm_calloc((size_t)h->o.connections, sizeof(*h->late));
    if (h->watched == NULL || h->watched_exchanges == NULL || h->late == NULL)
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
    trm_free(h->watched_exchanges);
    h->watched = NULL;
    h->watched_exchanges = NULL;
    trm_free(h->late);
    h->late = NULL;
}
