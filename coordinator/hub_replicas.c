/* What replicas say, and the end of those that are lost. */
#include "base/log.h"
#include "coordinator/hub_impl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

trm_status trmi_hub_send(trm_hub *h, const char *peer, const trm_wire_message *m)
{
    h->out.bytes = 0;
    TRM_CHECK(trm_wire_encode(m, &h->out));
    return trm_link_send(h->link, peer, h->out.data, h->out.bytes);
}

/* What a replica that was given up hears, in case it lives: one of a job stays in it until the
 * end; others go, so that whoever started them may start them anew. */
static void dismiss(trm_hub *h, const char *peer)
{
    trm_wire_message m = {.kind = h->options.in_job ? TRM_WIRE_DRAIN : TRM_WIRE_STOP, .lost = true};

    if (trmi_hub_send(h, peer, &m) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "hub", "%s was not told: %s", peer, trm_message());
}

void trmi_hub_give_up(trm_hub *h, trm_fleet_replica *r, const char *reason, bool lost)
{
    char who[320], why[TRMI_HUB_REASON_BYTES];
    int held = r->in_flight;

    if (r->state == TRM_FLEET_DEAD)
        return;
    /* one that said it wants to go has gone */
    lost = lost && !(r->state == TRM_FLEET_DRAINING && held == 0);
    snprintf(why, sizeof(why), "%s", reason); /* it may be this thread's message */
    trm_fleet_replica_text(r, who, sizeof(who));
    trmi_hub_take_back(h, r);
    trm_fleet_give_up(&h->fleet, r, why, lost, trm_now_us());
    trm_exchange_detach(r->view);
    r->view = NULL;
    snprintf(h->last_dead, sizeof(h->last_dead), "%.120s: %.255s", who, r->reason);
    TRM_LOG(lost ? TRM_LOG_WARN : TRM_LOG_INFO, "hub", "%s %s; it had %d requests",
            lost ? "lost" : "gone:", h->last_dead, held);
    dismiss(h, r->peer);
    if (trm_fleet_alive(&h->fleet) == 0)
        h->alone_us = trm_now_us();
    if (h->options.metrics != NULL)
        trm_metrics_replica_gone(h->options.metrics, r->peer, lost);
    h->changed = true;
}

/* ---- what comes in ---- */

/* Its shared memory, if it is on this host. */
static void attach(trm_fleet_replica *r, const trm_wire_message *m)
{
    trm_exchange_view *view = NULL;

    if (m->segment == NULL || m->segment[0] == '\0')
        return;
    if (trm_exchange_attach(m->segment, (size_t)m->segment_bytes, &view) == TRM_OK)
        r->view = view;
    else
        TRM_LOG(TRM_LOG_DEBUG, "hub", "%s: tensors travel in frames: %s", r->peer, trm_message());
}

/* What the hub says back: who it is, and where its tensors lie. */
static void say_hello(trm_hub *h, const char *peer)
{
    trm_wire_message m = {.kind = TRM_WIRE_HELLO, .host = h->host, .segment = ""};

    m.pid = (int32_t)getpid();
    if (h->exchange != NULL) {
        m.segment = trm_exchange_name(h->exchange); /* these two never change */
        m.segment_bytes = trm_exchange_bytes(h->exchange);
    }
    if (trmi_hub_send(h, peer, &m) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "hub", "%s: %s", peer, trm_message());
}

static void on_hello(trm_hub *h, const char *peer, const trm_wire_message *m, int64_t now)
{
    trm_fleet_replica *r, *old;
    char who[320];

    if (trm_fleet_join(&h->fleet, peer, m, now, &r, &old) != TRM_OK) {
        TRM_LOG(TRM_LOG_WARN, "hub", "refused: %s", trm_message());
        return;
    }
    if (old != NULL) {
        char reason[128];

        snprintf(reason, sizeof(reason), "replaced by %s", r->peer);
        trmi_hub_give_up(h, old, reason, true);
    }
    attach(r, m);
    say_hello(h, peer);
    h->alone_us = 0;
    h->changed = true;
    TRM_LOG(TRM_LOG_INFO, "hub", "%s joined", trm_fleet_replica_text(r, who, sizeof(who)));
}

/* A model that cannot be loaded ends a start. */
static void note_start_failure(trm_hub *h, const trm_wire_model *m)
{
    const trm_fleet_copy *c = trm_fleet_copy_of(&h->fleet, m->slot);

    if (m->state != TRM_MODEL_FAILED || c == NULL || c->role != TRM_FLEET_CURRENT)
        return;
    TRM_LOG(TRM_LOG_WARN, "hub", "model '%s' version %lld failed: %s", c->model->name,
            (long long)c->model->version, m->message);
    if (h->was_ready || !c->model->load || h->start_st != TRM_OK)
        return;
    h->start_st = TRM_ERR_BAD_FILE;
    snprintf(h->start_message, sizeof(h->start_message), "model '%s' version %lld: %.300s",
             c->model->name, (long long)c->model->version, m->message);
}

static void on_stats(trm_hub *h, const trm_fleet_replica *r, const trm_wire_stats *s,
                     trm_arena *arena)
{
    const char **names;
    int64_t *versions;

    if (h->options.metrics == NULL)
        return;
    names = trm_arena_alloc(arena, (size_t)s->model_count + 1, sizeof(*names));
    versions = trm_arena_alloc(arena, (size_t)s->model_count + 1, sizeof(*versions));
    if (names == NULL || versions == NULL)
        return; /* the next ones come in a second */
    for (int i = 0; i < s->model_count; i++) {
        const trm_fleet_copy *c = trm_fleet_copy_of(&h->fleet, s->models[i].slot);

        if (c == NULL || trm_fleet_place_of(r, c) == NULL)
            continue;
        names[i] = c->model->name;
        versions[i] = c->model->version;
    }
    trm_metrics_stats(h->options.metrics, r->peer, s, names, versions);
}

/* The hub does not read these any more. */
static void release_tensors(trm_hub *h, const char *peer, const trm_wire_message *m)
{
    int n = 0;
    const trm_wire_tensor *t = trm_wire_tensors(m, &n);

    for (int i = 0; i < n; i++) {
        trm_wire_message out = {.kind = TRM_WIRE_RELEASE};
        size_t bytes;

        if (!t[i].shared || trm_tensor_bytes(&t[i].tensor, &bytes) != TRM_OK)
            continue;
        out.u.release.offset = t[i].offset;
        out.u.release.bytes = bytes;
        if (trmi_hub_send(h, peer, &out) != TRM_OK)
            TRM_LOG(TRM_LOG_DEBUG, "hub", "RELEASE to %s: %s", peer, trm_message());
    }
}

/* Under mu: who it is and what it changes. Returns whether the message is to be gone on with. */
static bool hear(trm_hub *h, const char *peer, trm_wire_message *m, trm_arena *arena)
{
    int64_t now = trm_now_us();
    trm_fleet_replica *r;
    bool changed = false;

    if (m->kind == TRM_WIRE_HELLO) {
        on_hello(h, peer, m, now);
        return false;
    }
    r = trm_fleet_by_peer(&h->fleet, peer);
    if (r == NULL || r->state == TRM_FLEET_DEAD) {
        TRM_LOG(TRM_LOG_DEBUG, "hub", "%s from %s ignored", trm_wire_kind_name(m->kind), peer);
        return false; /* one that was given up and came back, or a stranger */
    }
    if (trm_fleet_hear(&h->fleet, r, m, now, (uint64_t)time(NULL), &changed) != TRM_OK ||
        (m->kind == TRM_WIRE_ANSWER && trm_wire_resolve(m, r->view) != TRM_OK)) {
        trmi_hub_give_up(h, r, trm_message(), true);
        return false;
    }
    h->changed |= changed;
    if (m->kind == TRM_WIRE_MODEL)
        note_start_failure(h, m->u.model);
    else if (m->kind == TRM_WIRE_STATS)
        on_stats(h, r, m->u.stats, arena);
    else if (m->kind == TRM_WIRE_ERROR)
        trmi_hub_give_up(h, r, m->message, false);
    return m->kind == TRM_WIRE_PART || m->kind == TRM_WIRE_ANSWER;
}

void trmi_hub_on_frame(trm_hub *h, const char *peer, const trm_link_frame *frame)
{
    trm_arena *arena = NULL;
    trm_wire_message m;
    bool go_on = false;
    trm_status st = trm_arena_create(frame->bytes < 4096 ? 1024 : 0, &arena);

    if (st == TRM_OK)
        st = trm_wire_decode(frame->data, frame->bytes, arena, &m);
    pthread_mutex_lock(&h->mu);
    if (st == TRM_OK) {
        go_on = hear(h, peer, &m, arena);
    } else {
        trm_fleet_replica *r = trm_fleet_by_peer(&h->fleet, peer);

        TRM_LOG(TRM_LOG_WARN, "hub", "from %s: %s", peer, trm_message());
        if (r != NULL)
            trmi_hub_give_up(h, r, trm_message(), true);
    }
    pthread_mutex_unlock(&h->mu);
    if (go_on && m.kind == TRM_WIRE_PART)
        trmi_hub_on_part(h, peer, m.u.part);
    if (go_on && m.kind == TRM_WIRE_ANSWER) {
        trmi_hub_on_answer(h, peer, m.u.answer);
        release_tensors(h, peer, &m);
    }
    trm_arena_destroy(arena);
}

/* ---- time ---- */

void trmi_hub_beat(trm_hub *h)
{
    const trm_wire_message m = {.kind = TRM_WIRE_HEARTBEAT};

    for (int i = 0; i < h->fleet.replica_count; i++) {
        trm_fleet_replica *r = h->fleet.replicas[i];
        bool dead = r->state == TRM_FLEET_DEAD;

        /* one that was given up and lives must not end before its job does: that would end it */
        if (dead && !h->options.in_job)
            continue;
        /* not only the replica's lease: a send to a closed connection fails at once */
        if (trmi_hub_send(h, r->peer, &m) == TRM_ERR_COMM && !dead)
            trmi_hub_give_up(h, r, "its connection was closed", true);
    }
}

void trmi_hub_judge(trm_hub *h, int64_t now_us)
{
    trm_fleet_replica *r;

    while ((r = trm_fleet_overdue(&h->fleet, &h->limits, now_us)) != NULL)
        trmi_hub_give_up(h, r, trm_message(), true);
    trm_fleet_forget(&h->fleet, now_us);
}
