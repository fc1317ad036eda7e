/* ROUTER with ROUTER_MANDATORY, so that a frame for a vanished peer is an error and not silence;
 * ZeroMQ's own heartbeats, so that a cut link closes both sides; they wait longer than
 * HEARTBEAT messages do, because a link that is cut on a machine that stalls loses what is under
 * way. They are answered by the library's thread, so they say nothing about the process's own
 * threads: that is what HEARTBEAT messages are for. */
#define _GNU_SOURCE
#include "base/link_zmq.h"
#include "base/link_address.h"
#include "base/wait.h"
#include "base/wire.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#define HEARTBEAT_INTERVAL_MS 250
#define HEARTBEAT_TIMEOUT_MS 5000
#define LINGER_MS 1000 /* scaled */

static_assert(sizeof(zmq_msg_t) <= sizeof(((trm_link_frame *)0)->opaque), "a message fits a frame");

struct trm_link_context {
    void *zmq;
    bool encrypted;
    trm_link_keys keys;
};

struct trm_link {
    void *socket;
    int wake_fd;
    bool bound, anonymous;
    char endpoint[TRM_LINK_ENDPOINT_BYTES];
    char folder[TRM_LINK_ENDPOINT_BYTES]; /* of an ipc socket we made; "": none */
};

static trm_status failed(trm_status st, const char *what, const char *endpoint)
{
    return trm_fail(st, "zeromq: cannot %s %s: %s", what, endpoint, zmq_strerror(zmq_errno()));
}

trm_status trm_link_context_create(trm_link_context **context_out)
{
    trm_link_context *c = trm_calloc(1, sizeof(*c));

    if (c == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "zeromq: context");
    c->zmq = zmq_ctx_new();
    if (c->zmq == NULL) {
        trm_free(c);
        return failed(TRM_ERR_COMM, "make", "a context");
    }
    *context_out = c;
    return TRM_OK;
}

void trm_link_context_destroy(trm_link_context *context)
{
    if (context == NULL)
        return;
    while (zmq_ctx_term(context->zmq) != 0 && zmq_errno() == EINTR)
        ; /* a signal: the library asks to be called again */
    trm_free(context);
}

trm_status trm_link_keys_create(trm_link_keys *keys_out)
{
    trm_link_keys k;

    if (zmq_has("curve") == 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "zeromq: this libzmq cannot encrypt (no CURVE), which links between hosts "
                        "want");
    if (zmq_curve_keypair(k.public_key, k.secret_key) != 0 ||
        zmq_curve_keypair(k.peer_public_key, k.peer_secret_key) != 0)
        return failed(TRM_ERR_COMM, "make", "keys");
    *keys_out = k;
    return TRM_OK;
}

void trm_link_context_encrypt(trm_link_context *context, const trm_link_keys *keys)
{
    context->keys = *keys;
    context->encrypted = true;
}

/* Before bind or connect. */
static trm_status encrypt(const trm_link_context *context, trm_link *l)
{
    const trm_link_keys *k = &context->keys;
    int one = 1;
    bool ok;

    if (!context->encrypted)
        return TRM_OK;
    if (l->bound)
        ok = zmq_setsockopt(l->socket, ZMQ_CURVE_SERVER, &one, sizeof(one)) == 0 &&
             zmq_setsockopt(l->socket, ZMQ_CURVE_SECRETKEY, k->secret_key, TRM_LINK_KEY_BYTES) == 0;
    else
        ok = zmq_setsockopt(l->socket, ZMQ_CURVE_SERVERKEY, k->public_key, TRM_LINK_KEY_BYTES) ==
                 0 &&
             zmq_setsockopt(l->socket, ZMQ_CURVE_PUBLICKEY, k->peer_public_key,
                            TRM_LINK_KEY_BYTES) == 0 &&
             zmq_setsockopt(l->socket, ZMQ_CURVE_SECRETKEY, k->peer_secret_key,
                            TRM_LINK_KEY_BYTES) == 0;
    return ok ? TRM_OK : failed(TRM_ERR_COMM, "encrypt", l->endpoint);
}

static bool is_tcp(const char *endpoint)
{
    return strcmp(endpoint, "tcp") == 0 || strncmp(endpoint, "tcp://", strlen("tcp://")) == 0;
}

static trm_status open_socket(trm_link_context *context, int type, const char *identity,
                              trm_link **link_out)
{
    int linger = (int)trm_scaled_ms(LINGER_MS), one = 1;
    int interval = HEARTBEAT_INTERVAL_MS, timeout = (int)trm_scaled_ms(HEARTBEAT_TIMEOUT_MS);
    int64_t bytes_max = (int64_t)TRM_WIRE_FRAME_MAX;
    trm_link *l = trm_calloc(1, sizeof(*l));
    bool ok = true;

    if (l == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "zeromq: link");
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    l->socket = l->wake_fd >= 0 ? zmq_socket(context->zmq, type) : NULL;
    if (l->socket == NULL) {
        trm_link_close(l);
        return failed(TRM_ERR_COMM, "make", "a socket");
    }
    ok = ok && zmq_setsockopt(l->socket, ZMQ_LINGER, &linger, sizeof(linger)) == 0;
    ok = ok && zmq_setsockopt(l->socket, ZMQ_HEARTBEAT_IVL, &interval, sizeof(interval)) == 0;
    ok = ok && zmq_setsockopt(l->socket, ZMQ_HEARTBEAT_TIMEOUT, &timeout, sizeof(timeout)) == 0;
    ok = ok && zmq_setsockopt(l->socket, ZMQ_MAXMSGSIZE, &bytes_max, sizeof(bytes_max)) == 0;
    if (type == ZMQ_ROUTER)
        ok = ok && zmq_setsockopt(l->socket, ZMQ_ROUTER_MANDATORY, &one, sizeof(one)) == 0;
    if (identity != NULL)
        ok = ok && zmq_setsockopt(l->socket, ZMQ_ROUTING_ID, identity, strlen(identity)) == 0;
    if (!ok) {
        trm_status st = failed(TRM_ERR_COMM, "set up", "a socket");

        trm_link_close(l);
        return st;
    }
    l->bound = type == ZMQ_ROUTER;
    *link_out = l;
    return TRM_OK;
}

/* "ipc://<fresh folder>/c" into l->endpoint. A socket's path has at most 107 bytes. */
static trm_status make_folder(trm_link *l)
{
    const char *tmp = getenv("TMPDIR");

    if (tmp == NULL || tmp[0] != '/' || strlen(tmp) > 80)
        tmp = "/tmp";
    snprintf(l->folder, sizeof(l->folder), "%s/trireme-XXXXXX", tmp);
    if (mkdtemp(l->folder) == NULL) {
        trm_status st = trm_fail(TRM_ERR_IO, "cannot make a folder under %s (TMPDIR): %s", tmp,
                                 strerror(errno));

        l->folder[0] = '\0';
        return st;
    }
    snprintf(l->endpoint, sizeof(l->endpoint), "ipc://%.120s/c", l->folder);
    return TRM_OK;
}

trm_status trm_link_bind(trm_link_context *context, const char *endpoint, trm_link **link_out)
{
    trm_link *l = NULL;
    trm_status st;
    size_t n;

    TRM_CHECK(open_socket(context, ZMQ_ROUTER, NULL, &l));
    snprintf(l->endpoint, sizeof(l->endpoint), "%s", endpoint);
    if (strcmp(endpoint, "ipc") == 0)
        TRM_TRY(st, make_folder(l), fail);
    if (is_tcp(endpoint))
        TRM_TRY(st, encrypt(context, l), fail);
    if (strcmp(endpoint, "tcp") == 0)
        snprintf(l->endpoint, sizeof(l->endpoint), "tcp://0.0.0.0:*");
    if (zmq_bind(l->socket, l->endpoint) != 0) {
        st = failed(TRM_ERR_COMM, "listen at", l->endpoint);
        goto fail;
    }
    n = sizeof(l->endpoint);
    if (zmq_getsockopt(l->socket, ZMQ_LAST_ENDPOINT, l->endpoint, &n) != 0) {
        st = failed(TRM_ERR_COMM, "find the address of", endpoint);
        goto fail;
    }
    if (strcmp(endpoint, "tcp") == 0) {
        char port[8];

        snprintf(port, sizeof(port), "%.7s", strrchr(l->endpoint, ':') + 1);
        trmi_link_addresses(port, l->endpoint, sizeof(l->endpoint));
    }
    *link_out = l;
    return TRM_OK;

fail:
    trm_link_close(l);
    return st;
}

trm_status trm_link_connect(trm_link_context *context, const char *endpoint, const char *identity,
                            trm_link **link_out)
{
    trm_link *l = NULL;
    trm_status st;

    if (identity[0] == '\0' || strlen(identity) >= TRM_LINK_PEER_BYTES)
        return trm_fail(TRM_ERR_INVALID_ARG, "zeromq: identity '%s': want 1 to %d bytes", identity,
                        TRM_LINK_PEER_BYTES - 1);
    TRM_CHECK(open_socket(context, ZMQ_DEALER, identity, &l));
    snprintf(l->endpoint, sizeof(l->endpoint), "%s", endpoint);
    if (strchr(endpoint, ' ') != NULL || (is_tcp(endpoint) && context->encrypted))
        TRM_TRY(st, trmi_link_reach(endpoint, l->endpoint, sizeof(l->endpoint)), fail);
    if (is_tcp(endpoint))
        TRM_TRY(st, encrypt(context, l), fail);
    if (zmq_connect(l->socket, l->endpoint) != 0) {
        st = failed(TRM_ERR_COMM, "connect to", l->endpoint);
        goto fail;
    }
    *link_out = l;
    return TRM_OK;

fail:
    trm_link_close(l);
    return st;
}

const char *trm_link_endpoint(const trm_link *link)
{
    return link->endpoint;
}

void trm_link_hide(trm_link *link)
{
    char path[TRM_LINK_ENDPOINT_BYTES + 4];

    if (link->folder[0] == '\0')
        return;
    snprintf(path, sizeof(path), "%s/c", link->folder);
    unlink(path);
    rmdir(link->folder);
    link->folder[0] = '\0';
}

void trm_link_close(trm_link *link)
{
    if (link == NULL)
        return;
    if (link->socket != NULL)
        zmq_close(link->socket);
    trm_link_hide(link);
    if (link->wake_fd >= 0)
        close(link->wake_fd);
    trm_free(link);
}

void trm_link_take_anonymous(trm_link *link)
{
    link->anonymous = true;
}

/* "#0a1b.." for an identity that is no text, or begins like such a name. False: too long. */
static bool anonymous_name(const unsigned char *id, size_t bytes, char *peer_out)
{
    static const char digits[] = "0123456789abcdef";

    if (2 * bytes + 2 > TRM_LINK_PEER_BYTES)
        return false;
    *peer_out++ = '#';
    for (size_t i = 0; i < bytes; i++) {
        *peer_out++ = digits[id[i] >> 4];
        *peer_out++ = digits[id[i] & 15];
    }
    *peer_out = '\0';
    return true;
}

static unsigned digit_value(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'a') + 10;
}

/* The identity that `peer` stands for, into `id`; returns its bytes. */
static size_t identity_of(const trm_link *link, const char *peer, unsigned char *id)
{
    size_t n = strlen(peer);

    if (!link->anonymous || peer[0] != '#') {
        memcpy(id, peer, n);
        return n;
    }
    for (size_t i = 0; i < n / 2; i++)
        id[i] = (unsigned char)(digit_value(peer[1 + 2 * i]) << 4 | digit_value(peer[2 + 2 * i]));
    return n / 2;
}

trm_status trm_link_send(trm_link *link, const char *peer, const void *data, size_t bytes)
{
    unsigned char id[TRM_LINK_PEER_BYTES];

    if (link->bound &&
        zmq_send(link->socket, id, identity_of(link, peer, id), ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) {
        if (zmq_errno() == EAGAIN)
            return trm_fail(TRM_ERR_TIMEOUT, "zeromq: the queue of peer %s is full", peer);
        return trm_fail(TRM_ERR_COMM, "zeromq: peer %s: %s", peer, zmq_strerror(zmq_errno()));
    }
    /* after its first part a frame for a ROUTER's peer is taken whole */
    if (zmq_send(link->socket, data, bytes, ZMQ_DONTWAIT) < 0) {
        if (zmq_errno() == EAGAIN)
            return trm_fail(TRM_ERR_TIMEOUT, "zeromq: the queue to %s is full", link->endpoint);
        return failed(TRM_ERR_COMM, "send to", link->endpoint);
    }
    return TRM_OK;
}

static bool has_more(zmq_msg_t *m)
{
    return zmq_msg_more(m) != 0;
}

/* Reads on to the end of a message whose shape is not ours. */
static void skip_rest(trm_link *link)
{
    zmq_msg_t part;
    bool more = true;

    while (more) {
        zmq_msg_init(&part);
        more = zmq_msg_recv(&part, link->socket, ZMQ_DONTWAIT) >= 0 && has_more(&part);
        zmq_msg_close(&part);
    }
}

/* The sender's identity, the first part on a ROUTER. False: not one of our kind of peers. */
static trm_status recv_peer(trm_link *link, char *peer_out, bool *ours_out)
{
    trm_status st = TRM_OK;
    zmq_msg_t id;
    size_t n;

    *ours_out = false;
    zmq_msg_init(&id);
    if (zmq_msg_recv(&id, link->socket, ZMQ_DONTWAIT) < 0) {
        st = TRM_ERR_TIMEOUT;
    } else {
        const unsigned char *name = zmq_msg_data(&id);
        bool text;

        n = zmq_msg_size(&id);
        text = n > 0 && n < TRM_LINK_PEER_BYTES && memchr(name, 0, n) == NULL;
        if (link->anonymous && has_more(&id) && n > 0 && (!text || name[0] == '#')) {
            *ours_out = anonymous_name(name, n, peer_out);
            if (!*ours_out)
                skip_rest(link);
        } else if (text && has_more(&id)) {
            memcpy(peer_out, zmq_msg_data(&id), n);
            peer_out[n] = '\0';
            *ours_out = true;
        } else if (has_more(&id)) {
            skip_rest(link);
        }
    }
    zmq_msg_close(&id);
    return st;
}

trm_status trm_link_recv(trm_link *link, char *peer_out, trm_link_frame **frame_out)
{
    trm_link_frame *f = trm_calloc(1, sizeof(*f));
    zmq_msg_t *m;

    if (f == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "zeromq: frame");
    m = (zmq_msg_t *)(void *)f->opaque;
    for (;;) {
        if (link->bound) {
            bool ours;
            trm_status st = recv_peer(link, peer_out, &ours);

            if (st != TRM_OK) {
                trm_free(f);
                return st;
            }
            if (!ours)
                continue;
        }
        zmq_msg_init(m);
        if (zmq_msg_recv(m, link->socket, ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(m);
            trm_free(f);
            return TRM_ERR_TIMEOUT;
        }
        if (!has_more(m))
            break;
        skip_rest(link);
        zmq_msg_close(m);
    }
    f->data = zmq_msg_data(m);
    f->bytes = zmq_msg_size(m);
    *frame_out = f;
    return TRM_OK;
}

void trm_link_frame_destroy(trm_link_frame *frame)
{
    if (frame == NULL)
        return;
    zmq_msg_close((zmq_msg_t *)(void *)frame->opaque);
    trm_free(frame);
}

void trm_link_wait_any(trm_link *const *links, int count, int64_t timeout_ms)
{
    zmq_pollitem_t items[2 * TRM_LINK_WAIT_MAX];
    uint64_t wakes;

    TRM_ASSERT(count <= TRM_LINK_WAIT_MAX);
    memset(items, 0, sizeof(items));
    for (int i = 0; i < count; i++) {
        items[2 * i].socket = links[i]->socket;
        items[2 * i + 1].fd = links[i]->wake_fd;
        items[2 * i].events = items[2 * i + 1].events = ZMQ_POLLIN;
    }
    if (zmq_poll(items, 2 * count, timeout_ms < 0 ? 0 : (long)timeout_ms) < 0)
        return; /* interrupted: the caller looks again anyway */
    for (int i = 0; i < count; i++)
        if ((items[2 * i + 1].revents & ZMQ_POLLIN) != 0 &&
            read(links[i]->wake_fd, &wakes, sizeof(wakes)) < 0)
            continue; /* another wait took it */
}

void trm_link_wait(trm_link *link, int64_t timeout_ms)
{
    trm_link_wait_any(&link, 1, timeout_ms);
}

void trm_link_wake(trm_link *link)
{
    uint64_t one = 1;

    if (write(link->wake_fd, &one, sizeof(one)) < 0)
        return; /* full: it is awake anyway */
}
