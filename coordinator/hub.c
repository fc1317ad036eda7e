/* The hub's thread, its start and end, and what is told of the whole. */
#define _GNU_SOURCE
#include "base/log.h"
#include "coordinator/hub_impl.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BEAT_MS 250
#define QUEUE_MAX 4096
#define DEADLINE_MS 600000
#define JOIN_MS 30000
#define SILENCE_MS 1500
#define STUCK_MS 120000
#define GAUGES_US 1000000
#define FRAMES_PER_ROUND 64              /* then others get their turn */
#define EXCHANGE_BYTES ((size_t)4 << 30) /* of addresses: memory is taken as it is used */

void trmi_hub_wake(trm_hub *h)
{
    if (h->woken || h->over || h->link == NULL)
        return; /* it will look before it sleeps */
    h->woken = true;
    trm_link_wake(h->link);
}

bool trmi_hub_ready(const trm_hub *h)
{
    if (trm_fleet_alive(&h->fleet) == 0)
        return false;
    for (int i = 0; i < h->fleet.model_count; i++) {
        const trm_fleet_model *m = h->fleet.models[i];

        if (m->load && (m->current == NULL || m->current->ready == 0))
            return false;
    }
    return true;
}

/* ---- the thread ---- */

/* Once all that are expected are here nothing needs the endpoint's name any more, unless lost ones
 * are started anew. */
static void hide(trm_hub *h)
{
    if (h->hidden || !h->options.in_job || h->fleet.joined < h->options.replicas)
        return;
    trm_link_hide(h->link);
    h->hidden = true;
}

/* mu held. `drained`: every frame that has come was read. Returns whether a beat was due. */
static bool keep_time(trm_hub *h, int64_t now, bool drained)
{
    if (now < h->next_beat_us)
        return false;
    /* late by more than a beat: this process has not run (an overloaded machine, SIGSTOP), nor,
     * perhaps, have the others; what they did not say meanwhile is not silence */
    if (h->next_beat_us > 0 && now - h->next_beat_us > BEAT_MS * 1000)
        trm_fleet_forgive(&h->fleet, now - h->next_beat_us);
    trmi_hub_beat(h);
    if (drained)
        trmi_hub_judge(h, now);
    hide(h);
    h->next_beat_us = now + BEAT_MS * 1000;
    if (now >= h->gauges_us) {
        h->gauges_us = now + GAUGES_US;
        trmi_hub_tell_gauges(h);
    }
    return true;
}

/* mu held. Compares what is with what is to be, where something has changed or time has passed, and
 * gives out requests; whom that finds lost is a change. Returns whether anything has changed. */
static bool settle(trm_hub *h, int64_t now, bool due)
{
    bool changed = false;

    do {
        if (h->changed || due) {
            changed |= h->changed;
            h->changed = due = false;
            trmi_hub_reconcile(h, now);
            trmi_hub_check_hope(h, now);
        }
        trmi_hub_hand_out(h, now);
    } while (h->changed);
    return changed;
}

/* All that does not come from a frame. Returns when it is to be done again at the latest;
 * *stop_out: never. */
static int64_t work(trm_hub *h, bool drained, bool *stop_out)
{
    bool changed, all;
    int64_t now, next;

    pthread_mutex_lock(&h->mu);
    h->woken = false;
    now = trm_now_us();
    changed = settle(h, now, keep_time(h, now, drained));
    if (h->stop)
        trmi_hub_end_all(h, NULL, TRM_ERR_COMM, "the server is shutting down");
    h->was_ready |= trmi_hub_ready(h);
    if (changed)
        trmi_hub_tell_gauges(h);
    next = trm_backlog_next_deadline_us(h->backlog);
    if (next > h->next_beat_us)
        next = h->next_beat_us;
    /* ranks of a job that come late must hear STOP too */
    all = !h->options.in_job || h->fleet.joined >= h->options.replicas ||
          now > h->join_us + h->started_us;
    *stop_out = h->stop && all;
    pthread_mutex_unlock(&h->mu);

    trmi_hub_deliver(h);
    trmi_hub_finish_operations(h);
    if (changed && h->options.changed != NULL)
        h->options.changed(h->options.ctx);
    trm_wait_post(&h->news); /* without sleepers this is one addition */
    return next;
}

/* Some frames; returns whether that were all. */
static bool receive(trm_hub *h, trm_link *link, bool public)
{
    for (int i = 0; i < FRAMES_PER_ROUND; i++) {
        char peer[TRM_LINK_PEER_BYTES];
        trm_link_frame *frame = NULL;

        if (trm_link_recv(link, peer, &frame) != TRM_OK)
            return true;
        if (public)
            trmi_hub_on_public(h, peer, frame);
        else
            trmi_hub_on_frame(h, peer, frame);
        trmi_hub_deliver(h);
        trm_link_frame_destroy(frame);
    }
    return false;
}

static void serve(trm_hub *h)
{
    trm_link *links[2] = {h->link, h->public_link};
    int count = h->public_link != NULL ? 2 : 1;

    for (;;) {
        bool drained = receive(h, h->link, false), stop, again;
        bool idle = h->public_link == NULL || receive(h, h->public_link, true);
        int64_t next = work(h, drained, &stop);

        if (stop)
            return;
        pthread_mutex_lock(&h->mu);
        again = h->changed || h->cancelled != NULL; /* callbacks may cancel */
        pthread_mutex_unlock(&h->mu);
        if (drained && idle && !again)
            trm_link_wait_any(links, count, (next - trm_now_us()) / 1000 + 1);
    }
}

static bool is_lost(const trm_hub *h)
{
    return h->fleet.lost > 0 || h->fleet.joined < h->options.replicas;
}

/* Whatever still waits gets its answer; the replicas are told. */
static void wind_up(trm_hub *h)
{
    trm_wire_message m = {.kind = TRM_WIRE_STOP};

    pthread_mutex_lock(&h->mu);
    h->over = true;
    trmi_hub_end_all(h, NULL, TRM_ERR_COMM, "the server is shutting down");
    trmi_hub_fail_operations(h, TRM_ERR_COMM, "the server is shutting down");
    m.lost = is_lost(h);
    for (int i = 0; i < h->fleet.replica_count; i++) { /* those given up as well: they may live */
        trm_fleet_replica *r = h->fleet.replicas[i];

        if (trmi_hub_send(h, r->peer, &m) != TRM_OK)
            TRM_LOG(TRM_LOG_DEBUG, "hub", "STOP: %s", trm_message());
        trmi_hub_take_back(h, r); /* what was abandoned is freed */
        trm_exchange_detach(r->view);
        r->view = NULL;
    }
    pthread_mutex_unlock(&h->mu);
    trmi_hub_deliver(h);
    trmi_hub_finish_operations(h);
}

static trm_status bind_links(trm_hub *h)
{
    TRM_CHECK(trm_link_bind(h->options.context, h->options.endpoint, &h->link));
    snprintf(h->endpoint, sizeof(h->endpoint), "%s", trm_link_endpoint(h->link));
    if (h->options.public_endpoint == NULL)
        return TRM_OK;
    TRM_CHECK(trm_link_bind(h->options.public_context != NULL ? h->options.public_context
                                                              : h->options.context,
                            h->options.public_endpoint, &h->public_link));
    trm_link_take_anonymous(h->public_link);
    snprintf(h->public_endpoint, sizeof(h->public_endpoint), "%s",
             trm_link_endpoint(h->public_link));
    return TRM_OK;
}

static void *thread_main(void *ctx)
{
    trm_hub *h = ctx;
    trm_status st;

    pthread_mutex_lock(&h->mu);
    st = bind_links(h);
    h->bound = st == TRM_OK;
    if (st != TRM_OK) {
        h->start_st = st;
        snprintf(h->start_message, sizeof(h->start_message), "%s", trm_message());
        h->over = true;
    }
    pthread_mutex_unlock(&h->mu);
    trm_wait_post(&h->news);
    if (st == TRM_OK) {
        serve(h);
        wind_up(h);
    }
    pthread_mutex_lock(&h->mu);
    trm_link_close(h->link);
    trm_link_close(h->public_link);
    h->link = h->public_link = NULL;
    pthread_mutex_unlock(&h->mu);
    trm_wait_post(&h->news);
    return NULL;
}

/* ---- start ---- */

static int64_t or_default_us(int64_t ms, int64_t def)
{
    return trm_scaled_ms(ms > 0 ? ms : def) * 1000;
}

static trm_status take_models(trm_hub *h, const trm_hub_options *options)
{
    for (int i = 0; i < options->model_count; i++) {
        const trm_hub_model *o = &options->models[i];
        trm_fleet_model *m;
        trm_fleet_copy *c;

        TRM_CHECK(trm_fleet_know(&h->fleet, o->name, o->version, o->path, o->settings, &m));
        m->load |= o->load;
        m->first_replica = o->first_replica;
        m->replicas = o->replicas;
        if (o->load && m->current == NULL)
            TRM_CHECK(trm_fleet_add_copy(&h->fleet, m, TRM_FLEET_CURRENT, &c));
    }
    return TRM_OK;
}

static trm_status start(trm_hub *h)
{
    bool settled = false;
    trm_status st = TRM_OK;
    int rc = pthread_create(&h->thread, NULL, thread_main, h);

    if (rc != 0)
        return trm_fail(TRM_ERR_NO_MEMORY, "hub: cannot start a thread: %s", strerror(rc));
    h->started = true;
    while (!settled) {
        uint32_t seen = trm_wait_count(&h->news);

        pthread_mutex_lock(&h->mu);
        settled = h->bound || h->over;
        if (h->over)
            st = trm_fail(h->start_st, "%s", h->start_message);
        pthread_mutex_unlock(&h->mu);
        if (!settled && trm_wait_change(&h->news, seen, 0, trm_deadline_us(10000)) != TRM_OK)
            continue;
    }
    return st;
}

trm_status trm_hub_create(const trm_hub_options *options, trm_hub **hub_out)
{
    trm_hub *h = trm_calloc(1, sizeof(*h));
    trm_status st;

    if (h == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "hub");
    pthread_mutex_init(&h->mu, NULL);
    pthread_mutex_init(&h->exchange_mu, NULL);
    h->ended_at = &h->ended;
    h->options = *options;
    h->options.models = NULL;
    h->deadline_us = (options->deadline_ms > 0 ? options->deadline_ms : DEADLINE_MS) * 1000;
    h->join_us = or_default_us(options->join_ms, JOIN_MS);
    h->limits.silence_us = or_default_us(options->silence_ms, SILENCE_MS);
    h->limits.stuck_us = or_default_us(options->stuck_ms, STUCK_MS);
    h->started_us = h->alone_us = trm_now_us();
    if (gethostname(h->host, sizeof(h->host) - 1) != 0)
        h->host[0] = '\0';
    TRM_TRY(st, take_models(h, options), fail);
    TRM_TRY(
        st,
        trm_backlog_create(options->queue_max > 0 ? options->queue_max : QUEUE_MAX, &h->backlog),
        fail);
    TRM_TRY(st, trmi_hub_clients_create(&h->clients), fail);
    if (trm_exchange_create(EXCHANGE_BYTES, &h->exchange) != TRM_OK)
        TRM_LOG(TRM_LOG_WARN, "hub", "large tensors travel in frames: %s", trm_message());
    TRM_TRY(st, start(h), fail);
    *hub_out = h;
    return TRM_OK;

fail:
    trm_hub_destroy(h);
    return st;
}

const char *trm_hub_endpoint(const trm_hub *hub)
{
    return hub->endpoint;
}

const char *trm_hub_public_endpoint(const trm_hub *hub)
{
    return hub->public_endpoint;
}

/* ---- end ---- */

bool trm_hub_stop(trm_hub *hub)
{
    if (hub->started && !hub->joined_thread) {
        pthread_mutex_lock(&hub->mu);
        hub->stop = true;
        trmi_hub_wake(hub);
        pthread_mutex_unlock(&hub->mu);
        pthread_join(hub->thread, NULL);
        hub->joined_thread = true;
    }
    return is_lost(hub);
}

void trm_hub_destroy(trm_hub *hub)
{
    if (hub == NULL)
        return;
    (void)trm_hub_stop(hub);
    trm_backlog_destroy(hub->backlog);
    trm_fleet_fini(&hub->fleet);
    trmi_hub_clients_destroy(hub->clients);
    trm_exchange_destroy(hub->exchange);
    trm_wire_buffer_fini(&hub->out);
    pthread_mutex_destroy(&hub->exchange_mu);
    pthread_mutex_destroy(&hub->mu);
    trm_free(hub);
}

trm_status trm_hub_drain(trm_hub *hub, int64_t deadline_us)
{
    pthread_mutex_lock(&hub->mu);
    hub->draining = true;
    hub->changed = true;
    trmi_hub_wake(hub);
    pthread_mutex_unlock(&hub->mu);
    for (;;) {
        uint32_t seen = trm_wait_count(&hub->news);
        int left;

        pthread_mutex_lock(&hub->mu);
        left =
            trm_backlog_waiting(hub->backlog) + trm_backlog_running(hub->backlog) + hub->answering;
        pthread_mutex_unlock(&hub->mu);
        if (left == 0)
            return TRM_OK;
        if (trm_wait_change(&hub->news, seen, 0, deadline_us) != TRM_OK)
            return trm_fail(TRM_ERR_TIMEOUT, "%d requests are not answered yet", left);
    }
}

/* ---- what is told ---- */

/* Whether a start is decided; mu held. *until_us: when it is to be looked at again, whatever
 * happens. */
static bool start_decided(trm_hub *h, trm_status *st_out, int64_t *until_us)
{
    int64_t now = trm_now_us();

    *until_us = INT64_MAX;
    *st_out = TRM_OK;
    if (trmi_hub_ready(h))
        return true;
    if (h->start_st != TRM_OK) {
        *st_out = trm_fail(h->start_st, "%s", h->start_message);
        return true;
    }
    if (h->stop || h->over) {
        *st_out = trm_fail(TRM_ERR_COMM, "the server is shutting down");
        return true;
    }
    if (h->alone_us == 0)
        return false;
    if (h->fleet.joined > 0 && (h->options.in_job || now > h->alone_us + h->join_us)) {
        *st_out = trm_fail(TRM_ERR_COMM, "no replica is left; the last was %s", h->last_dead);
        return true;
    }
    if (h->fleet.joined == 0 && now > h->alone_us + h->join_us) {
        *st_out = trm_fail(TRM_ERR_COMM, "no replica has joined");
        return true;
    }
    *until_us = h->alone_us + h->join_us + 1;
    return false;
}

trm_status trm_hub_wait_ready(trm_hub *hub, int64_t deadline_us)
{
    for (;;) {
        uint32_t seen = trm_wait_count(&hub->news);
        int64_t until_us;
        trm_status st;
        bool decided;

        pthread_mutex_lock(&hub->mu);
        decided = start_decided(hub, &st, &until_us);
        pthread_mutex_unlock(&hub->mu);
        if (decided)
            return st;
        if (trm_now_us() >= deadline_us)
            return trm_fail(TRM_ERR_TIMEOUT, "the models are not ready yet");
        if (trm_wait_change(&hub->news, seen, 0, until_us < deadline_us ? until_us : deadline_us) !=
            TRM_OK)
            continue; /* the next look says what that means */
    }
}

static void describe(const trm_hub *h, const trm_fleet_replica *r, trm_hub_replica_info *out)
{
    snprintf(out->identity, sizeof(out->identity), "%s", r->peer);
    snprintf(out->host, sizeof(out->host), "%s", r->host);
    out->rank = r->rank;
    out->pid = r->pid;
    out->state = trm_fleet_replica_state_name(&h->fleet, r);
    out->phase = trm_wire_phase_name(r->phase);
    out->in_flight = r->in_flight;
    out->done = r->done;
    snprintf(out->reason, sizeof(out->reason), "%s", r->reason);
}

/* mu held. */
static void fill_info(const trm_hub *h, trm_hub_info *info)
{
    int64_t now = trm_now_us();

    info->ready = trmi_hub_ready(h);
    info->draining = h->draining || h->stop;
    info->expected_replicas = h->options.replicas;
    info->waiting = trm_backlog_waiting(h->backlog);
    info->running = trm_backlog_running(h->backlog);
    for (int i = 0; i < h->fleet.replica_count; i++) {
        const trm_fleet_replica *r = h->fleet.replicas[i];
        bool dead = r->state == TRM_FLEET_DEAD;

        if (dead && now - r->dead_us > TRM_FLEET_REMEMBER_US)
            continue;
        info->dead_replicas += dead;
        info->ready_replicas += strcmp(trm_fleet_replica_state_name(&h->fleet, r), "ready") == 0;
        describe(h, r, &info->replica[info->replicas++]);
    }
}

trm_status trm_hub_get_info(trm_hub *hub, trm_hub_info *info_out)
{
    trm_hub_info info = {0};

    pthread_mutex_lock(&hub->mu);
    info.replica = trm_calloc((size_t)hub->fleet.replica_count + 1, sizeof(*info.replica));
    if (info.replica != NULL)
        fill_info(hub, &info);
    snprintf(info.last_dead, sizeof(info.last_dead), "%s", hub->last_dead);
    pthread_mutex_unlock(&hub->mu);
    if (info.replica == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "hub: a list of replicas");
    *info_out = info;
    return TRM_OK;
}

void trm_hub_info_fini(trm_hub_info *info)
{
    trm_free(info->replica);
    memset(info, 0, sizeof(*info));
}
