/* How a request comes in: checked, stamped, encoded once on the thread that submits it, with its
 * large tensors in shared memory. */
#define _GNU_SOURCE
#include "base/log.h"
#include "coordinator/hub_impl.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define HELD_MAX ((size_t)4 << 30) /* bytes of requests outside of shared memory */
#define TAG_BYTES 12               /* twice as many hexadecimal digits */

/* ---- memory ---- */

static void give_pieces_back(trm_hub *h, trmi_hub_request *q)
{
    if (q->piece_count == 0)
        return;
    pthread_mutex_lock(&h->exchange_mu);
    for (int i = 0; i < q->piece_count; i++)
        if (trm_exchange_release(h->exchange, q->pieces[i].offset, q->pieces[i].bytes) != TRM_OK)
            TRM_LOG(TRM_LOG_ERROR, "hub", "%s", trm_message());
    pthread_mutex_unlock(&h->exchange_mu);
    q->piece_count = 0;
}

/* It is in no list any more. */
void trmi_hub_free_request(trm_hub *h, trmi_hub_request *q)
{
    if (q == NULL)
        return;
    give_pieces_back(h, q);
    __atomic_sub_fetch(&h->held, q->held, __ATOMIC_RELAXED);
    trm_free(q->pieces);
    trm_wire_buffer_fini(&q->frame);
    trm_free(q);
}

/* Puts the large tensors of `w` into shared memory; `tensors` is the caller's copy of its table. */
static trm_status take_pieces(trm_hub *h, trmi_hub_request *q, trm_wire_tensor *tensors, int count)
{
    for (int i = 0; i < count; i++) {
        trm_wire_tensor *t = &tensors[i];
        trmi_hub_piece *p;
        size_t bytes;

        t->shared = false;
        if (h->exchange == NULL || t->tensor.data == NULL || t->tensor.layout != TRM_LAYOUT_PLAIN ||
            trm_tensor_bytes(&t->tensor, &bytes) != TRM_OK || bytes < TRM_EXCHANGE_LEAST)
            continue; /* what is wrong with it the encoder says */
        if (q->pieces == NULL) {
            q->pieces = trm_calloc((size_t)count, sizeof(*q->pieces));
            if (q->pieces == NULL)
                return trm_fail(TRM_ERR_NO_MEMORY, "hub: %d tensors", count);
        }
        p = &q->pieces[q->piece_count];
        pthread_mutex_lock(&h->exchange_mu);
        p->data = trm_exchange_take(h->exchange, bytes, &p->offset);
        pthread_mutex_unlock(&h->exchange_mu);
        if (p->data == NULL)
            continue; /* no room: it travels in the frame */
        p->bytes = bytes;
        q->piece_count++;
        memcpy(p->data, t->tensor.data, bytes);
        t->tensor.data = p->data;
        t->shared = true;
        t->offset = p->offset;
    }
    return TRM_OK;
}

/* ---- submit ---- */

static trm_status check_request(const trm_wire_request *w)
{
    if ((unsigned)w->kind >= TRM_REQUEST_KIND_COUNT)
        return trm_fail(TRM_ERR_INVALID_ARG, "request: unknown kind %d", (int)w->kind);
    if (w->model == NULL || w->model[0] == '\0' || strlen(w->model) >= TRM_FLEET_NAME_BYTES)
        return trm_fail(TRM_ERR_INVALID_ARG, "request: a model's name has 1 to %d bytes",
                        TRM_FLEET_NAME_BYTES - 1);
    if (w->version < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "request: version %" PRId64, w->version);
    if (w->tensor_count < 0 || w->tensor_count > TRM_WIRE_TENSORS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "request: %d tensors, at most %d are taken",
                        w->tensor_count, TRM_WIRE_TENSORS_MAX);
    return TRM_OK;
}

/* The model that takes it now. mu held. */
static trm_status route(trm_hub *h, const trm_wire_request *w, trm_fleet_model **model_out)
{
    trm_fleet_model *m;

    if (h->draining || h->stop || h->over)
        return trm_fail(TRM_ERR_COMM, "the server is shutting down");
    m = trm_fleet_route(&h->fleet, w->model, w->version);
    if (m == NULL && w->version != 0)
        return trm_fail(TRM_ERR_NOT_FOUND, "no model '%s' version %" PRId64, w->model, w->version);
    if (m == NULL)
        return trm_fail(TRM_ERR_NOT_FOUND, "no model '%s'", w->model);
    *model_out = m;
    if (m->current != NULL && m->current->ready > 0)
        return TRM_OK;
    switch (trm_fleet_model_state(m)) {
    case TRM_MODEL_LOADING:
        return trm_fail(TRM_ERR_COMM, "model '%s' is not ready: %s", m->name,
                        trm_fleet_alive(&h->fleet) > 0 ? "loading" : "no replica is there");
    case TRM_MODEL_FAILED:
        return trm_fail(TRM_ERR_COMM, "model '%s' is not ready: it failed to load: %s", m->name,
                        m->reason);
    default:
        return trm_fail(TRM_ERR_COMM, "model '%s' is not ready: it is not loaded", m->name);
    }
}

/* Seed, time and tag, where the request has none. `tag` has 2 * TAG_BYTES + 1 bytes. */
static trm_status stamp(trm_wire_request *w, char *tag)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char random[8 + TAG_BYTES];

    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return trm_fail(TRM_ERR_IO, "hub: no random numbers");
    if (w->seed == 0)
        memcpy(&w->seed, random, sizeof(w->seed));
    if (w->seed == 0)
        w->seed = 1;
    if (w->created == 0)
        w->created = (int64_t)time(NULL);
    if (w->tag == NULL || w->tag[0] == '\0') {
        for (int i = 0; i < TAG_BYTES; i++) {
            tag[2 * i] = digits[random[8 + i] >> 4];
            tag[2 * i + 1] = digits[random[8 + i] & 15];
        }
        tag[2 * TAG_BYTES] = '\0';
        w->tag = tag;
    }
    return TRM_OK;
}

static bool has_prefix(trm_request_kind kind)
{
    return kind == TRM_REQUEST_COMPLETIONS || kind == TRM_REQUEST_CHAT;
}

/* The REQUEST, encoded once on the thread that submits. */
static trm_status encode(trm_hub *h, trmi_hub_request *q, const trm_wire_request *wire)
{
    trm_wire_request w = *wire;
    trm_wire_message m = {.kind = TRM_WIRE_REQUEST, .u.request = &w};
    trm_wire_tensor *tensors = NULL;
    char tag[2 * TAG_BYTES + 1];
    trm_status st = TRM_OK;

    w.id = q->item.id;
    w.slot = q->frame_slot;
    TRM_CHECK(stamp(&w, tag));
    if (w.tensor_count > 0) {
        tensors = trm_malloc((size_t)w.tensor_count, sizeof(*tensors));
        if (tensors == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "hub: %d tensors", w.tensor_count);
        memcpy(tensors, wire->tensors, (size_t)w.tensor_count * sizeof(*tensors));
        w.tensors = tensors;
        st = take_pieces(h, q, tensors, w.tensor_count);
    }
    if (st == TRM_OK)
        st = trm_wire_encode(&m, &q->frame);
    trm_free(tensors);
    return st;
}

/* Requests are bounded by their number, and large ones by their bytes. */
static trm_status hold(trm_hub *h, trmi_hub_request *q)
{
    q->held = q->frame.bytes;
    if (__atomic_add_fetch(&h->held, q->held, __ATOMIC_RELAXED) > HELD_MAX)
        return trm_fail(TRM_ERR_TIMEOUT,
                        "the queue is full: the requests that are under way have "
                        "over %zu bytes; come again later",
                        HELD_MAX);
    return TRM_OK;
}

/* mu held. */
static trm_status enqueue(trm_hub *h, trmi_hub_request *q, const trm_wire_request *w)
{
    uint32_t spare;

    TRM_CHECK(route(h, w, &q->model)); /* again: things may have changed */
    q->item.queue = q->model->index;
    spare = trm_fleet_free_credit(&h->fleet, q->model->current);
    TRM_CHECK(trm_backlog_add(h->backlog, &q->item, spare < INT32_MAX ? (int)spare : INT32_MAX));
    q->model->waiting++;
    if (q->client != NULL)
        trmi_hub_client_add(q->client, q);
    trmi_hub_wake(h);
    return TRM_OK;
}

trm_status trmi_hub_submit(trm_hub *h, const trm_hub_request *request,
                           struct trmi_hub_client *client, uint64_t *id_out)
{
    const trm_wire_request *w = request->wire;
    trmi_hub_request *q;
    int64_t limit_us;
    trm_status st;

    TRM_CHECK(check_request(w));
    q = trm_calloc(1, sizeof(*q));
    if (q == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "hub: a request");
    q->submitted_us = trm_now_us();
    limit_us = (int64_t)w->deadline_ms * 1000;
    q->item.deadline_us =
        q->submitted_us + (limit_us > 0 && limit_us < h->deadline_us ? limit_us : h->deadline_us);
    q->item.priority = w->priority;
    q->any_version = w->version == 0;
    q->kind = w->kind;
    q->stream = w->stream;
    q->ctx = request->ctx;
    q->part = request->part;
    q->answer = request->answer;
    q->client = client;
    q->client_id = client != NULL ? w->id : 0;

    pthread_mutex_lock(&h->mu);
    st = route(h, w, &q->model);
    if (st == TRM_OK) {
        q->item.id = ++h->last_id;
        q->frame_slot = q->model->current->slot;
    }
    pthread_mutex_unlock(&h->mu);
    if (st != TRM_OK)
        goto fail;
    if (has_prefix(w->kind))
        q->prefix = trm_fleet_prefix(q->model, w->body, w->body_bytes);
    TRM_TRY(st, encode(h, q, w), fail);
    TRM_TRY(st, hold(h, q), fail);
    *id_out = q->item.id; /* before it can be answered */
    pthread_mutex_lock(&h->mu);
    st = enqueue(h, q, w);
    pthread_mutex_unlock(&h->mu);
    if (st != TRM_OK)
        goto fail;
    return TRM_OK;

fail:
    trmi_hub_free_request(h, q);
    return st;
}

trm_status trm_hub_submit(trm_hub *hub, const trm_hub_request *request, uint64_t *id_out)
{
    return trmi_hub_submit(hub, request, NULL, id_out);
}
