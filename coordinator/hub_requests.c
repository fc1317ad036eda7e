/* The life of a request once it is in: hand-out to a replica, parts, answer, and the other ends. */
#include "base/log.h"
#include "coordinator/hub_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static trmi_hub_request *request_of(trm_backlog_item *item)
{
    return (trmi_hub_request *)(void *)item;
}

/* ---- cancel ---- */

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
                trmi_hub_free_request(h, q);
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
            trmi_hub_free_request(h, q);
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
    trmi_hub_free_request(h, q);
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
