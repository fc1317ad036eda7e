/* The life of a request: submit, hand-out to a replica, parts, answer. */
#define _GNU_SOURCE
#include "base/log.h"
#include "coordinator/hub_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define TAG_BYTES 12 /* twice as many hexadecimal digits */

static trmi_hub_request *request_of(trm_backlog_item *item)
{
    return (trmi_hub_request *)(void *)item;
}

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
static void free_request(trm_hub *h, trmi_hub_request *q)
{
    if (q == NULL)
        return;
    give_pieces_back(h, q);
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
    *id_out = q->item.id; /* before it can be answered */
    pthread_mutex_lock(&h->mu);
    st = enqueue(h, q, w);
    pthread_mutex_unlock(&h->mu);
    if (st != TRM_OK)
        goto fail;
    return TRM_OK;

fail:
    free_request(h, q);
    return st;
}

trm_status trm_hub_submit(trm_hub *hub, const trm_hub_request *request, uint64_t *id_out)
{
    return trmi_hub_submit(hub, request, NULL, id_out);
}

void trmi_hub_cancel_request(trm_hub *h, trmi_hub_request *q)
{
    if (q->cancelled || q->ended)
        return;
    q->cancelled = true;
    q->cancelled_next = h->cancelled;
    h->cancelled = q;
    trmi_hub_wake(h);
}

void trm_hub_cancel(trm_hub *hub, uint64_t id)
{
    trm_backlog_item *item;

    pthread_mutex_lock(&hub->mu);
    item = trm_backlog_find(hub->backlog, id);
    if (item != NULL)
        trmi_hub_cancel_request(hub, request_of(item));
    pthread_mutex_unlock(&hub->mu);
}

/* ---- ends; mu held ---- */

static void unbind(trm_hub *h, trmi_hub_request *q)
{
    trm_fleet_copy *c = q->slot != 0 ? trm_fleet_copy_of(&h->fleet, q->slot) : NULL;

    if (c != NULL)
        c->requests--;
    q->slot = 0;
}

/* Out of all lists but that of the ended. */
static void leave(trm_hub *h, trmi_hub_request *q)
{
    if (q->cancelled) {
        trmi_hub_request **at = &h->cancelled;

        while (*at != NULL && *at != q)
            at = &(*at)->cancelled_next;
        if (*at == q)
            *at = q->cancelled_next;
    }
    q->model->waiting -= q->item.state == TRM_BACKLOG_WAITS;
    q->model->running -= q->item.state == TRM_BACKLOG_RUNS;
    unbind(h, q);
    trm_backlog_remove(h->backlog, &q->item);
}

void trmi_hub_end(trm_hub *h, trmi_hub_request *q, trm_status st, const char *message)
{
    if (q->ended)
        return;
    if (q->item.state == TRM_BACKLOG_RUNS && q->replica != NULL) {
        trm_wire_message m = {.kind = TRM_WIRE_CANCEL, .u.id = q->item.id};

        if (trmi_hub_send(h, q->replica->peer, &m) !=
            TRM_OK) /* the next beat sees that it is gone */
            TRM_LOG(TRM_LOG_DEBUG, "hub", "CANCEL: %s", trm_message());
        q->model->running--;
        trm_backlog_abandon(h->backlog, &q->item);
    } else {
        leave(h, q);
    }
    h->answering++;
    q->ended = true;
    q->end_status = st;
    snprintf(q->end_message, sizeof(q->end_message), "%s", message);
    q->ended_next = NULL;
    *h->ended_at = q;
    h->ended_at = &q->ended_next;
}

void trmi_hub_end_all(trm_hub *h, const trm_fleet_model *m, trm_status st, const char *message)
{
    trm_backlog_item *next;

    for (trm_backlog_item *i = trm_backlog_next(h->backlog, NULL); i != NULL; i = next) {
        trmi_hub_request *q = request_of(i);

        next = trm_backlog_next(h->backlog, i);
        if (m == NULL ? !q->ended : q->model == m && i->state == TRM_BACKLOG_WAITS)
            trmi_hub_end(h, q, st, message);
    }
}

void trmi_hub_reroute(trm_hub *h, trm_fleet_model *m)
{
    trm_fleet_model *to = trm_fleet_route(&h->fleet, m->name, 0);
    trm_backlog_item *next;

    if (to == m || to->current == NULL || to->current->ready == 0)
        return;
    for (trm_backlog_item *i = trm_backlog_next(h->backlog, NULL); i != NULL; i = next) {
        trmi_hub_request *q = request_of(i);

        next = trm_backlog_next(h->backlog, i);
        if (q->model != m || i->state != TRM_BACKLOG_WAITS || !q->any_version || q->slot != 0 ||
            trm_backlog_move(h->backlog, i, to->index) != TRM_OK)
            continue;
        m->waiting--;
        to->waiting++;
        q->model = to;
    }
}

void trmi_hub_take_back(trm_hub *h, trm_fleet_replica *r)
{
    trm_backlog_item *next;

    for (trm_backlog_item *i = trm_backlog_next(h->backlog, NULL); i != NULL; i = next) {
        trmi_hub_request *q = request_of(i);

        next = trm_backlog_next(h->backlog, i);
        if (q->replica != r)
            continue;
        q->replica = NULL;
        if (i->state == TRM_BACKLOG_ABANDONED) {
            leave(h, q);
            if (q->delivered) /* else its answer is on the way, which frees it */
                free_request(h, q);
        } else if (i->attempts >= TRM_HUB_ATTEMPTS) {
            char text[96];

            snprintf(text, sizeof(text), "%d replicas were lost while they ran this request",
                     i->attempts);
            trmi_hub_end(h, q, TRM_ERR_COMM, text);
        } else {
            trm_backlog_requeue(h->backlog, i);
            q->model->running--;
            q->model->waiting++;
            if (i->given_bytes == 0)
                unbind(h, q); /* else it goes on where it was: another copy may say other things */
        }
    }
}

/* ---- answers; on the thread, mu not held ---- */

static void tell_metrics(const trm_hub *h, const trmi_hub_request *q, const trm_wire_answer *a,
                         int64_t now)
{
    trm_metrics_request r = {.model = q->model->name,
                             .version = q->model->version,
                             .kind = q->kind,
                             .stream = q->stream,
                             .answer = a,
                             .attempts = q->item.attempts};

    if (h->options.metrics == NULL)
        return;
    r.wait_us = (uint64_t)((q->handed_us > 0 ? q->handed_us : now) - q->submitted_us);
    r.first_us = q->first_us > 0 ? (uint64_t)(q->first_us - q->submitted_us) : 0;
    r.total_us = (uint64_t)(now - q->submitted_us);
    trm_metrics_ended(h->options.metrics, &r);
}

static void give_answer(trm_hub *h, trmi_hub_request *q, const trm_wire_answer *answer)
{
    trm_wire_answer a = *answer;

    a.id = q->item.id;
    tell_metrics(h, q, &a, trm_now_us());
    if (q->client != NULL) {
        trmi_hub_client_answer(h, q, &a);
        trmi_hub_client_remove(h, q);
    } else {
        q->answer(q->ctx, &a);
    }
    pthread_mutex_lock(&h->mu);
    h->answering--;
    pthread_mutex_unlock(&h->mu);
}

void trmi_hub_deliver(trm_hub *h)
{
    for (;;) {
        trm_wire_answer a = {.message = "", .model = "", .body = ""};
        trmi_hub_request *q;
        bool gone = false;

        pthread_mutex_lock(&h->mu);
        q = h->ended;
        if (q != NULL) {
            h->ended = q->ended_next;
            if (h->ended == NULL)
                h->ended_at = &h->ended;
            q->delivered = true;
            gone = q->item.state == TRM_BACKLOG_OUT;
        }
        pthread_mutex_unlock(&h->mu);
        if (q == NULL)
            return;
        a.status = q->end_status;
        a.message = q->end_message;
        a.model = q->model->name;
        a.version = q->model->version;
        give_answer(h, q, &a);
        if (gone)
            free_request(h, q);
    }
}

/* What `peer` has of `id`. mu held. */
static trmi_hub_request *find_at(trm_hub *h, const char *peer, uint64_t id)
{
    trm_backlog_item *i = trm_backlog_find(h->backlog, id);
    trmi_hub_request *q = i != NULL ? request_of(i) : NULL;

    return q != NULL && q->replica != NULL && strcmp(q->replica->peer, peer) == 0 ? q : NULL;
}

void trmi_hub_on_part(trm_hub *h, const char *peer, const trm_wire_part *part)
{
    trm_wire_part p = *part;
    int64_t now = trm_now_us();
    trmi_hub_request *q;
    size_t skip = 0;

    pthread_mutex_lock(&h->mu);
    q = find_at(h, peer, part->id);
    if (q != NULL && (q->ended || !q->stream))
        q = NULL;
    if (q != NULL && trm_backlog_part(&q->item, part->body, part->body_bytes, part->new_tokens,
                                      &skip, &p.new_tokens) != TRM_OK) {
        trmi_hub_end(h, q, TRM_ERR_COMM, trm_message());
        q = NULL;
    }
    pthread_mutex_unlock(&h->mu);
    if (q == NULL || skip == p.body_bytes) {
        trmi_hub_deliver(h);
        return;
    }
    p.body = (const char *)part->body + skip;
    p.body_bytes -= skip;
    if (h->options.metrics != NULL && q->part_us > 0)
        trm_metrics_tokens(h->options.metrics, q->model->name, q->model->version, p.new_tokens,
                           (uint64_t)(now - q->part_us));
    q->part_us = now;
    if (q->first_us == 0)
        q->first_us = now;
    if (q->client != NULL)
        trmi_hub_client_part(h, q, &p);
    else if (q->part != NULL)
        q->part(q->ctx, &p);
}

void trmi_hub_on_answer(trm_hub *h, const char *peer, const trm_wire_answer *answer)
{
    trm_fleet_copy *c;
    trmi_hub_request *q;

    pthread_mutex_lock(&h->mu);
    q = find_at(h, peer, answer->id);
    if (q != NULL) {
        c = trm_fleet_copy_of(&h->fleet, q->slot);
        trm_fleet_answered(q->replica, c);
        q->replica = NULL;
        leave(h, q);
        h->answering += !q->ended;
        if (c->role == TRM_FLEET_RETIRED)
            h->changed = true; /* it may be unloaded now */
    }
    pthread_mutex_unlock(&h->mu);
    if (q == NULL) {
        TRM_LOG(TRM_LOG_DEBUG, "hub", "%s answers request %" PRIu64 ", which it does not have",
                peer, answer->id);
        return;
    }
    if (!q->ended) {
        if (q->first_us == 0)
            q->first_us = trm_now_us();
        give_answer(h, q, answer);
    }
    free_request(h, q);
}

/* ---- hand-out; mu held ---- */

/* Where a request may run: where it has begun, else the copy that is used, else, of a model that is
 * being unloaded, the last. */
static trm_fleet_copy *copy_for(trm_hub *h, const trmi_hub_request *q)
{
    trm_fleet_copy *last = NULL;

    if (q->slot != 0)
        return trm_fleet_copy_of(&h->fleet, q->slot);
    if (q->model->current != NULL)
        return q->model->current;
    for (int i = 0; i < h->fleet.copy_count; i++) {
        trm_fleet_copy *c = h->fleet.copies[i];

        if (c->model == q->model && c->role == TRM_FLEET_RETIRED && c->ready > 0 &&
            (last == NULL || c->slot > last->slot))
            last = c;
    }
    return last;
}

/* Encodes the request anew: for another copy than was thought, or with its tensors inside. */
static trm_status encode_again(trm_hub *h, trmi_hub_request *q, uint32_t slot, bool inside,
                               trm_wire_buffer *out)
{
    trm_arena *arena = NULL;
    trm_wire_message m;
    trm_wire_request w;
    trm_wire_tensor *tensors;
    trm_status st;

    (void)h;
    TRM_CHECK(trm_arena_create(0, &arena));
    TRM_TRY(st, trm_wire_decode(q->frame.data, q->frame.bytes, arena, &m), end);
    w = *m.u.request;
    w.slot = slot;
    tensors = trm_arena_alloc(arena, (size_t)w.tensor_count + 1, sizeof(*tensors));
    if (tensors == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "hub: %d tensors", w.tensor_count);
        goto end;
    }
    for (int i = 0, piece = 0; i < w.tensor_count; i++) {
        tensors[i] = w.tensors[i];
        if (!tensors[i].shared)
            continue;
        tensors[i].shared = !inside;
        tensors[i].tensor.data = q->pieces[piece++].data; /* in the same order */
    }
    w.tensors = tensors;
    m.u.request = &w;
    out->bytes = 0;
    st = trm_wire_encode(&m, out);

end:
    trm_arena_destroy(arena);
    return st;
}

static trm_status send_request(trm_hub *h, trmi_hub_request *q, const trm_fleet_replica *r,
                               uint32_t slot)
{
    bool inside = q->piece_count > 0 && r->view == NULL;

    if (slot == q->frame_slot && !inside)
        return trm_link_send(h->link, r->peer, q->frame.data, q->frame.bytes);
    TRM_CHECK(encode_again(h, q, slot, inside, &h->out));
    return trm_link_send(h->link, r->peer, h->out.data, h->out.bytes);
}

static void started(trm_hub *h, trmi_hub_request *q, trm_fleet_replica *r, trm_fleet_copy *c,
                    int64_t now)
{
    trm_fleet_sent(&h->fleet, r, c, q->prefix, now);
    trm_backlog_start(h->backlog, &q->item);
    q->model->waiting--;
    q->model->running++;
    q->replica = r;
    if (q->slot == 0) {
        q->slot = c->slot;
        c->requests++;
    }
    if (q->handed_us == 0)
        q->handed_us = now;
}

/* The first that waits for `m`. False: it cannot go now. */
static bool hand_out_one(trm_hub *h, trm_fleet_model *m, int64_t now)
{
    trm_backlog_item *item = trm_backlog_head(h->backlog, m->index);
    trmi_hub_request *q;
    trm_fleet_replica *r;
    trm_fleet_copy *c;
    trm_status st;

    if (item == NULL)
        return false;
    q = request_of(item);
    c = copy_for(h, q);
    if (q->slot != 0 && (c == NULL || (c->role == TRM_FLEET_RETIRED && c->ready == 0))) {
        trmi_hub_end(h, q, TRM_ERR_COMM,
                     "the replica was lost, and the model was replaced: the answer cannot go on");
        return true;
    }
    r = c != NULL ? trm_fleet_pick(&h->fleet, c, q->prefix) : NULL;
    if (r == NULL)
        return false;
    st = send_request(h, q, r, c->slot);
    if (st == TRM_OK) {
        started(h, q, r, c, now);
    } else if (st == TRM_ERR_COMM) {
        trmi_hub_give_up(h, r, "its connection was closed", true);
    } else if (st == TRM_ERR_TIMEOUT) {
        return false; /* the link's queue is full: at the latest the next beat tries again */
    } else {
        trmi_hub_end(h, q, st, trm_message());
    }
    return true;
}

void trmi_hub_hand_out(trm_hub *h, int64_t now_us)
{
    trm_backlog_item *late;

    while (h->cancelled != NULL) {
        trmi_hub_request *q = h->cancelled;

        h->cancelled = q->cancelled_next;
        q->cancelled_next = NULL;
        trmi_hub_end(h, q, TRM_ERR_CANCELLED, "the request was cancelled");
    }
    while ((late = trm_backlog_overdue(h->backlog, now_us)) != NULL)
        trmi_hub_end(h, request_of(late), TRM_ERR_TIMEOUT,
                     late->state == TRM_BACKLOG_WAITS ? "no replica had room before the deadline"
                                                      : "the deadline has passed");
    for (int i = 0; i < h->fleet.model_count; i++)
        while (h->fleet.models[i]->waiting > 0 && hand_out_one(h, h->fleet.models[i], now_us))
            ;
}
