/* The router's thread. `mu` guards the window and what the job's thread looks at; the registry and
 * the link are the thread's own. */
#include "coordinator/router.h"
#include "base/log.h"
#include "base/wait.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define BEAT_MS 250
#define JOIN_MS 30000
#define SILENCE_MS 2000
#define STUCK_MS 120000

struct trm_router {
    trm_router_options options;
    pthread_t thread;
    bool started, joined_thread;
    trm_wait news; /* posted by the thread: results, failure, start, end */
    char endpoint[TRM_LINK_ENDPOINT_BYTES];

    /* the thread's own */
    trm_link *link;
    trm_registry registry;
    trm_registry_limits limits;
    trm_wire_buffer out;
    int64_t join_deadline_us;
    bool hidden;

    pthread_mutex_t mu;
    trm_window *window;     /* guarded by mu */
    bool bound, ended;      /* guarded by mu: the thread's life */
    bool input_ended, stop; /* guarded by mu: asked by the job */
    trm_status st;          /* guarded by mu: why nothing more will come */
    char message[512];      /* guarded by mu */
    trm_router_stats stats; /* guarded by mu */
    trm_link *wake;         /* guarded by mu: the link while it is alive, for trm_link_wake */
};

static void fail_job(trm_router *r, trm_status st, const char *message)
{
    pthread_mutex_lock(&r->mu);
    if (r->st == TRM_OK) {
        r->st = st;
        snprintf(r->message, sizeof(r->message), "%s", message);
    }
    pthread_mutex_unlock(&r->mu);
    trm_wait_post(&r->news);
}

static trm_status send_to(trm_router *r, const char *peer, const trm_wire_message *m)
{
    r->out.bytes = 0;
    TRM_CHECK(trm_wire_encode(m, &r->out));
    return trm_link_send(r->link, peer, r->out.data, r->out.bytes);
}

/* Names the replica and queues its records for the others. `lost`: its process may be gone. */
static void give_up(trm_router *r, int replica, const char *reason, bool lost)
{
    trm_replica *p = &r->registry.replicas[replica];
    char who[256], text[640];
    int held;

    if (p->state == TRM_REPLICA_DEAD)
        return;
    trm_registry_give_up(&r->registry, replica, reason);
    trm_replica_text(p, who, sizeof(who));
    snprintf(text, sizeof(text), "%s: %s", who, p->reason);
    pthread_mutex_lock(&r->mu);
    held = trm_window_take_back(r->window, replica);
    r->stats.dead++;
    r->stats.lost += lost;
    snprintf(r->stats.last_dead, sizeof(r->stats.last_dead), "%.383s", text);
    pthread_mutex_unlock(&r->mu);
    trm_wait_post(&r->news);
    /* the last one's end is the job's, whose verdict says the same */
    TRM_LOG(trm_registry_alive(&r->registry) > 0 ? TRM_LOG_WARN : TRM_LOG_INFO, "router",
            "lost %s; its %d records go to the others", text, held);
    /* in case it lives: nothing more will come, but it stays in its MPI job until STOP */
    if (send_to(r, p->peer, &(trm_wire_message){.kind = TRM_WIRE_DRAIN}) != TRM_OK)
        TRM_LOG(TRM_LOG_DEBUG, "router", "%s was not told: %s", who, trm_message());
}

/* ---- what comes in ---- */

static void on_results(trm_router *r, int replica, const trm_wire_message *m, trm_parcel *parcel)
{
    int taken = 0;

    pthread_mutex_lock(&r->mu);
    for (int i = 0; i < m->count; i++)
        taken += trm_window_answer(r->window, replica, &m->results[i], parcel);
    pthread_mutex_unlock(&r->mu);
    trm_registry_answered(&r->registry, replica, taken);
    if (taken > 0)
        trm_wait_post(&r->news);
}

static void on_hello(trm_router *r, const char *peer, const trm_wire_message *m, int64_t now)
{
    char who[256];
    int replica;

    if (trm_registry_join(&r->registry, peer, m, now, &replica) != TRM_OK) {
        TRM_LOG(TRM_LOG_WARN, "router", "refused: %s", trm_message());
        return;
    }
    TRM_LOG(TRM_LOG_INFO, "router", "%s joined",
            trm_replica_text(&r->registry.replicas[replica], who, sizeof(who)));
    pthread_mutex_lock(&r->mu);
    r->stats.joined = r->registry.count;
    pthread_mutex_unlock(&r->mu);
}

static void on_message(trm_router *r, const char *peer, const trm_wire_message *m,
                       trm_parcel *parcel)
{
    int replica = trm_registry_find(&r->registry, peer);
    int64_t now = trm_now_us();

    if (m->kind == TRM_WIRE_HELLO) {
        on_hello(r, peer, m, now);
        return;
    }
    if (replica < 0 || r->registry.replicas[replica].state == TRM_REPLICA_DEAD) {
        TRM_LOG(TRM_LOG_DEBUG, "router", "%s from %s ignored", trm_wire_kind_name(m->kind), peer);
        return; /* one that was given up and came back, or a stranger */
    }
    if (trm_registry_hear(&r->registry, replica, m, now) != TRM_OK)
        give_up(r, replica, trm_message(), true);
    else if (m->kind == TRM_WIRE_RESULT)
        on_results(r, replica, m, parcel);
    else if (m->kind == TRM_WIRE_ERROR)
        give_up(r, replica, m->message, false);
}

static void on_frame(trm_router *r, const char *peer, trm_link_frame *frame)
{
    trm_parcel *parcel = trm_calloc(1, sizeof(*parcel));
    trm_wire_message m;

    if (parcel == NULL) {
        trm_link_frame_destroy(frame);
        fail_job(r, TRM_ERR_NO_MEMORY, "router: no memory for a message");
        return;
    }
    parcel->references = 1;
    parcel->frame = frame;
    if (trm_arena_create(frame->bytes < 4096 ? 1024 : 0, &parcel->arena) != TRM_OK) {
        fail_job(r, TRM_ERR_NO_MEMORY, trm_message());
    } else if (trm_wire_decode(frame->data, frame->bytes, parcel->arena, &m) == TRM_OK) {
        on_message(r, peer, &m, parcel);
    } else {
        int replica = trm_registry_find(&r->registry, peer);

        TRM_LOG(TRM_LOG_WARN, "router", "from %s: %s", peer, trm_message());
        if (replica >= 0)
            give_up(r, replica, trm_message(), true);
    }
    trm_parcel_release(parcel);
}

/* ---- what goes out ---- */

/* How many records to give `replica` now. Full batches while there are enough; a part only to an
 * idle replica, or at the end of the input, where what is left is shared by all. */
static int batch_size(trm_router *r, const trm_replica *p, int queued, bool input_ended)
{
    int ready = trm_registry_ready(&r->registry), most = p->batch_max;

    if ((uint32_t)most > p->credits)
        most = (int)p->credits;
    if (most > TRM_WIRE_RECORDS_MAX)
        most = TRM_WIRE_RECORDS_MAX;
    if (input_ended) {
        int share = (queued + ready - 1) / ready;

        return share < most ? share : most;
    }
    if (queued < p->batch_max && p->in_flight > 0)
        return 0;
    return queued < most ? queued : most;
}

static void hand_out(trm_router *r)
{
    const trm_wire_buffer *records[TRM_WIRE_RECORDS_MAX];

    for (;;) {
        int replica = trm_registry_pick(&r->registry), n = 0;
        trm_replica *p;
        trm_status st = TRM_OK;

        if (replica < 0)
            return;
        p = &r->registry.replicas[replica];
        pthread_mutex_lock(&r->mu);
        n = batch_size(r, p, trm_window_queued(r->window), r->input_ended);
        n = n > 0 ? trm_window_hand_out(r->window, replica, n, records) : 0;
        if (n > 0) {
            r->out.bytes = 0;
            st = trm_wire_encode_batch(records, n, &r->out);
        }
        pthread_mutex_unlock(&r->mu);
        if (n == 0)
            return;
        if (st == TRM_OK)
            st = trm_link_send(r->link, p->peer, r->out.data, r->out.bytes);
        if (st == TRM_OK)
            trm_registry_sent(&r->registry, replica, n, trm_now_us());
        else if (st == TRM_ERR_COMM)
            give_up(r, replica, "its connection was closed", true);
        else
            give_up(r, replica, trm_message(), true);
    }
}

static void beat(trm_router *r)
{
    for (int i = 0; i < r->registry.count; i++) {
        trm_replica *p = &r->registry.replicas[i];
        trm_status st = send_to(r, p->peer, &(trm_wire_message){.kind = TRM_WIRE_HEARTBEAT});

        /* not only the replica's lease: a send to a closed connection fails at once */
        if (st == TRM_ERR_COMM && p->state != TRM_REPLICA_DEAD)
            give_up(r, i, "its connection was closed", true);
    }
}

static void check_replicas(trm_router *r)
{
    int64_t now = trm_now_us();
    bool all = r->registry.count >= r->options.replicas;
    char text[512];
    int i;

    while ((i = trm_registry_overdue(&r->registry, &r->limits, now)) >= 0)
        give_up(r, i, trm_message(), true);
    if (!all && now > r->join_deadline_us) {
        if (!r->hidden)
            TRM_LOG(TRM_LOG_WARN, "router", "%d of %d replicas have joined: going on with those",
                    r->registry.count, r->options.replicas);
        all = true;
    }
    if (all && !r->hidden) {
        trm_link_hide(r->link);
        r->hidden = true;
    }
    if (!all || trm_registry_alive(&r->registry) > 0)
        return;
    if (r->registry.count == 0)
        snprintf(text, sizeof(text), "no replica has joined");
    else
        snprintf(text, sizeof(text), "no replica is left; the last was %.400s", r->stats.last_dead);
    fail_job(r, TRM_ERR_COMM, text);
}

static void serve(trm_router *r)
{
    int64_t next_beat_us = 0;

    for (;;) {
        char peer[TRM_LINK_PEER_BYTES];
        trm_link_frame *frame = NULL;
        int64_t now;
        bool stop;

        /* everything that has come, before anyone is judged by what he has not said */
        while (trm_link_recv(r->link, peer, &frame) == TRM_OK)
            on_frame(r, peer, frame);
        now = trm_now_us();
        if (now >= next_beat_us) {
            /* late by more than a beat: this process has not run (an overloaded machine, SIGSTOP),
             * nor, perhaps, have the others; what they did not say meanwhile is not silence */
            if (next_beat_us > 0 && now - next_beat_us > BEAT_MS * 1000)
                trm_registry_forgive(&r->registry, now - next_beat_us);
            beat(r);
            check_replicas(r);
            next_beat_us = trm_now_us() + BEAT_MS * 1000;
        }
        hand_out(r);
        pthread_mutex_lock(&r->mu);
        stop = r->stop;
        pthread_mutex_unlock(&r->mu);
        /* a short job can be over before all have joined: they must hear STOP too */
        if (stop &&
            (r->registry.count >= r->options.replicas || trm_now_us() > r->join_deadline_us))
            return;
        trm_link_wait(r->link, (next_beat_us - trm_now_us()) / 1000 + 1);
    }
}

static bool is_lost(const trm_router *r)
{
    return r->stats.lost > 0 || r->registry.count < r->options.replicas;
}

static void say_stop(trm_router *r)
{
    trm_wire_message m = {.kind = TRM_WIRE_STOP};

    m.lost = is_lost(r);
    for (int i = 0; i < r->registry.count; i++) /* those given up as well: they may live */
        if (send_to(r, r->registry.replicas[i].peer, &m) != TRM_OK)
            TRM_LOG(TRM_LOG_DEBUG, "router", "STOP: %s", trm_message());
}

static void *thread_main(void *ctx)
{
    trm_router *r = ctx;
    trm_status st = trm_link_bind(r->options.context, r->options.endpoint, &r->link);

    if (st != TRM_OK) {
        fail_job(r, st, trm_message());
    } else {
        pthread_mutex_lock(&r->mu);
        snprintf(r->endpoint, sizeof(r->endpoint), "%s", trm_link_endpoint(r->link));
        r->wake = r->link;
        r->bound = true;
        pthread_mutex_unlock(&r->mu);
        trm_wait_post(&r->news);
        serve(r);
        say_stop(r);
    }
    pthread_mutex_lock(&r->mu);
    r->wake = NULL;
    r->ended = true;
    pthread_mutex_unlock(&r->mu);
    trm_wait_post(&r->news);
    trm_link_close(r->link);
    r->link = NULL;
    return NULL;
}

/* ---- the job's side ---- */

static int64_t or_default(int64_t ms, int64_t def)
{
    return trm_scaled_ms(ms > 0 ? ms : def) * 1000;
}

trm_status trm_router_create(const trm_router_options *options, trm_router **router_out)
{
    trm_router *r = trm_calloc(1, sizeof(*r));
    bool settled = false;
    trm_status st;
    int rc;

    if (r == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "router");
    pthread_mutex_init(&r->mu, NULL);
    r->options = *options;
    r->limits.silence_us = or_default(options->silence_ms, SILENCE_MS);
    r->limits.stuck_us = or_default(options->stuck_ms, STUCK_MS);
    r->join_deadline_us = trm_now_us() + or_default(options->join_ms, JOIN_MS);
    TRM_TRY(st, trm_window_create(options->window, options->first_id, &r->window), fail);
    rc = pthread_create(&r->thread, NULL, thread_main, r);
    if (rc != 0) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "router: cannot start a thread: %s", strerror(rc));
        goto fail;
    }
    r->started = true;
    while (!settled) {
        uint32_t seen = trm_wait_count(&r->news);

        pthread_mutex_lock(&r->mu);
        settled = r->bound || r->ended;
        st = r->st;
        pthread_mutex_unlock(&r->mu);
        if (!settled && trm_wait_change(&r->news, seen, 0, trm_deadline_us(10000)) != TRM_OK)
            continue;
    }
    if (st != TRM_OK) {
        st = trm_fail(st, "%s", r->message);
        goto fail;
    }
    *router_out = r;
    return TRM_OK;

fail:
    trm_router_destroy(r);
    return st;
}

const char *trm_router_endpoint(const trm_router *router)
{
    return router->endpoint;
}

static void wake(trm_router *r)
{
    if (r->wake != NULL)
        trm_link_wake(r->wake);
}

bool trm_router_is_full(trm_router *router)
{
    bool full;

    pthread_mutex_lock(&router->mu);
    full = trm_window_is_full(router->window);
    pthread_mutex_unlock(&router->mu);
    return full;
}

int trm_router_held(trm_router *router)
{
    int held;

    pthread_mutex_lock(&router->mu);
    held = trm_window_held(router->window);
    pthread_mutex_unlock(&router->mu);
    return held;
}

trm_status trm_router_submit(trm_router *router, const trm_wire_record *record)
{
    trm_status st;

    pthread_mutex_lock(&router->mu);
    st = trm_window_submit(router->window, record);
    pthread_mutex_unlock(&router->mu);
    return st;
}

void trm_router_end_input(trm_router *router)
{
    pthread_mutex_lock(&router->mu);
    router->input_ended = true;
    wake(router);
    pthread_mutex_unlock(&router->mu);
}

trm_status trm_router_take(trm_router *router, int64_t deadline_us, trm_taken *taken_out)
{
    bool woken = false;

    for (;;) {
        uint32_t seen = trm_wait_count(&router->news);
        trm_status st = TRM_OK;
        bool got;

        pthread_mutex_lock(&router->mu);
        got = trm_window_take(router->window, taken_out);
        if (!got) {
            st = router->st;
            /* about to sleep: the router must have seen what was submitted */
            if (!woken && trm_window_queued(router->window) > 0)
                wake(router);
            woken = true;
        }
        pthread_mutex_unlock(&router->mu);
        if (got)
            return TRM_OK;
        if (st != TRM_OK)
            return trm_fail(st, "%s", router->message); /* written once, before st */
        TRM_CHECK(trm_wait_change(&router->news, seen, 0, deadline_us));
    }
}

void trm_router_get_stats(trm_router *router, trm_router_stats *stats_out)
{
    pthread_mutex_lock(&router->mu);
    *stats_out = router->stats;
    pthread_mutex_unlock(&router->mu);
}

bool trm_router_stop(trm_router *router)
{
    if (router->started && !router->joined_thread) {
        pthread_mutex_lock(&router->mu);
        router->stop = true;
        wake(router);
        pthread_mutex_unlock(&router->mu);
        pthread_join(router->thread, NULL);
        router->joined_thread = true;
    }
    return is_lost(router);
}

void trm_router_destroy(trm_router *router)
{
    if (router == NULL)
        return;
    (void)trm_router_stop(router);
    trm_window_destroy(router->window);
    trm_registry_fini(&router->registry);
    trm_wire_buffer_fini(&router->out);
    pthread_mutex_destroy(&router->mu);
    trm_free(router);
}
