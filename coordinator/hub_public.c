/* The public endpoint: programs that speak the protocol without HTTP. They are strangers: what they
 * send is believed only after it was checked, and one that does not read its answers, or is gone,
 * loses them and holds up nobody. Clients are kept only while they have requests under way. */
#include "base/log.h"
#include "coordinator/hub_impl.h"

#include <stdio.h>
#include <string.h>

#define UNDER_WAY_MAX 256 /* requests of one client */
#define BUCKETS 256

struct trmi_hub_client {
    char peer[TRM_LINK_PEER_BYTES];
    int count;
    trmi_hub_request *requests; /* by client_next */
    struct trmi_hub_client *next;
};

struct trmi_hub_clients {
    struct trmi_hub_client *buckets[BUCKETS];
};

trm_status trmi_hub_clients_create(trmi_hub_clients **clients_out)
{
    *clients_out = trm_calloc(1, sizeof(**clients_out));
    return *clients_out != NULL ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "hub: clients");
}

void trmi_hub_clients_destroy(trmi_hub_clients *clients)
{
    for (int i = 0; clients != NULL && i < BUCKETS; i++) {
        struct trmi_hub_client *next;

        for (struct trmi_hub_client *c = clients->buckets[i]; c != NULL; c = next) {
            next = c->next;
            trm_free(c);
        }
    }
    trm_free(clients);
}

/* Where the client called `peer` is, or would be. */
static struct trmi_hub_client **place_of(trmi_hub_clients *clients, const char *peer)
{
    struct trmi_hub_client **at;
    uint32_t h = 2166136261u; /* FNV-1a, 32 bits */

    for (const char *p = peer; *p != '\0'; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    at = &clients->buckets[h % BUCKETS];
    while (*at != NULL && strcmp((*at)->peer, peer) != 0)
        at = &(*at)->next;
    return at;
}

static void forget_idle(trm_hub *h, const char *peer)
{
    struct trmi_hub_client **at = place_of(h->clients, peer), *c = *at;

    if (c == NULL || c->count > 0)
        return;
    *at = c->next;
    trm_free(c);
}

void trmi_hub_client_add(struct trmi_hub_client *client, trmi_hub_request *q)
{
    q->client_next = client->requests;
    client->requests = q;
    client->count++;
}

void trmi_hub_client_remove(trm_hub *h, trmi_hub_request *q)
{
    struct trmi_hub_client *c = q->client;
    trmi_hub_request **at = &c->requests;

    while (*at != q)
        at = &(*at)->client_next;
    *at = q->client_next;
    c->count--;
    q->client = NULL;
    forget_idle(h, c->peer);
}

/* ---- what goes out ---- */

static trm_status send_public(trm_hub *h, const char *peer, const trm_wire_message *m)
{
    h->out.bytes = 0;
    TRM_CHECK(trm_wire_encode(m, &h->out));
    return trm_link_send(h->public_link, peer, h->out.data, h->out.bytes);
}

static void refuse(trm_hub *h, const char *peer, uint64_t id, trm_status st, const char *message)
{
    trm_wire_answer a = {.id = id, .status = st, .message = message, .model = "", .body = ""};
    trm_wire_message m = {.kind = TRM_WIRE_ANSWER, .u.answer = &a};

    if (send_public(h, peer, &m) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "hub", "client %s: %s", peer, trm_message());
}

void trmi_hub_client_part(trm_hub *h, trmi_hub_request *q, const trm_wire_part *part)
{
    trm_wire_part p = *part;
    trm_wire_message m = {.kind = TRM_WIRE_PART, .u.part = &p};

    p.id = q->client_id;
    if (send_public(h, q->client->peer, &m) == TRM_OK)
        return;
    /* gone, or a thousand parts behind: an answer with a hole in it is of no use */
    TRM_LOG(TRM_LOG_DEBUG, "hub", "client %s: %s", q->client->peer, trm_message());
    pthread_mutex_lock(&h->mu);
    trmi_hub_cancel_request(h, q);
    pthread_mutex_unlock(&h->mu);
}

void trmi_hub_client_answer(trm_hub *h, trmi_hub_request *q, const trm_wire_answer *answer)
{
    trm_wire_answer a = *answer;
    trm_wire_message m = {.kind = TRM_WIRE_ANSWER, .u.answer = &a};
    trm_wire_tensor *outputs = NULL;
    trm_status st;

    a.id = q->client_id;
    if (a.output_count > 0) { /* inside the frame: the replica's memory is none of its business */
        outputs = trm_malloc((size_t)a.output_count, sizeof(*outputs));
        if (outputs == NULL) {
            refuse(h, q->client->peer, a.id, TRM_ERR_NO_MEMORY, "no memory for the outputs");
            return;
        }
        memcpy(outputs, answer->outputs, (size_t)a.output_count * sizeof(*outputs));
        for (int i = 0; i < a.output_count; i++)
            outputs[i].shared = false;
        a.outputs = outputs;
    }
    st = send_public(h, q->client->peer, &m);
    if (st == TRM_ERR_INVALID_ARG || st == TRM_ERR_NO_MEMORY)
        refuse(h, q->client->peer, a.id, st, trm_message());
    else if (st != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "hub", "client %s: %s", q->client->peer, trm_message());
    trm_free(outputs);
}

/* ---- what comes in ---- */

/* The id of a REQUEST that cannot be read otherwise: [version, REQUEST, id, ...]. */
static bool read_id(const unsigned char *p, size_t bytes, uint64_t *id_out)
{
    size_t at = bytes > 0 && p[0] >= 0x90 && p[0] <= 0x9f ? 1 : 3, n;

    if (bytes < at + 3 || (at == 3 && p[0] != 0xdc) || p[at] != TRM_WIRE_VERSION ||
        p[at + 1] != TRM_WIRE_REQUEST)
        return false;
    at += 2;
    if (p[at] < 0x80) {
        *id_out = p[at];
        return true;
    }
    if (p[at] < 0xcc || p[at] > 0xcf)
        return false;
    n = (size_t)1 << (p[at] - 0xcc);
    if (bytes - at - 1 < n)
        return false;
    *id_out = 0;
    for (size_t i = 0; i < n; i++)
        *id_out = *id_out << 8 | p[at + 1 + i];
    return true;
}

static trmi_hub_request *find(const struct trmi_hub_client *c, uint64_t id)
{
    for (trmi_hub_request *q = c != NULL ? c->requests : NULL; q != NULL; q = q->client_next)
        if (q->client_id == id)
            return q;
    return NULL;
}

static trm_status take_request(trm_hub *h, const char *peer, const trm_wire_request *wire)
{
    struct trmi_hub_client **at = place_of(h->clients, peer);
    trm_wire_request w = *wire;
    trm_hub_request request = {.wire = &w, .owner = ""};
    uint64_t id;

    if (find(*at, w.id) != NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "a request with this id is under way");
    if (*at != NULL && (*at)->count >= UNDER_WAY_MAX)
        return trm_fail(TRM_ERR_TIMEOUT, "%d requests are under way; come again later",
                        UNDER_WAY_MAX);
    if (*at == NULL) {
        *at = trm_calloc(1, sizeof(**at));
        if (*at == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "hub: a client");
        snprintf((*at)->peer, sizeof((*at)->peer), "%s", peer);
    }
    w.seed = 0;
    w.created = 0;
    w.tag = "";
    return trmi_hub_submit(h, &request, *at, &id);
}

static void on_request(trm_hub *h, const char *peer, trm_wire_message *m)
{
    uint64_t id = m->u.request->id;
    trm_status st = trm_wire_resolve(m, NULL) == TRM_OK
                        ? take_request(h, peer, m->u.request)
                        : trm_fail(TRM_ERR_INVALID_ARG, "a client's tensors travel in its frame");

    if (st == TRM_OK)
        return;
    refuse(h, peer, id, st, trm_message());
    forget_idle(h, peer);
}

void trmi_hub_on_public(trm_hub *h, const char *peer, const trm_link_frame *frame)
{
    trm_arena *arena = NULL;
    trm_wire_message m;
    uint64_t id;

    if (trm_arena_create(frame->bytes < 4096 ? 1024 : 0, &arena) != TRM_OK)
        return;
    if (trm_wire_decode(frame->data, frame->bytes, arena, &m) != TRM_OK) {
        TRM_LOG(TRM_LOG_DEBUG, "hub", "client %s: %s", peer, trm_message());
        if (read_id(frame->data, frame->bytes, &id))
            refuse(h, peer, id, TRM_ERR_INVALID_ARG, trm_message());
    } else if (m.kind == TRM_WIRE_REQUEST) {
        on_request(h, peer, &m);
    } else if (m.kind == TRM_WIRE_CANCEL) {
        trmi_hub_request *q = find(*place_of(h->clients, peer), m.u.id);

        pthread_mutex_lock(&h->mu);
        if (q != NULL)
            trmi_hub_cancel_request(h, q);
        pthread_mutex_unlock(&h->mu);
    } else {
        TRM_LOG(TRM_LOG_DEBUG, "hub", "client %s: %s ignored", peer, trm_wire_kind_name(m.kind));
    }
    trm_arena_destroy(arena);
}
