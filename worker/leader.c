/* Two threads: the helper owns the link, the executor runs the model; two short queues between
 * them. Both queues are bounded by the credits the replica has given. */
#define _GNU_SOURCE
#include "worker/leader.h"
#include "base/log.h"
#include "base/wait.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BEAT_MS 250
#define LEASE_MS 10000
#define BATCHES_AHEAD 2 /* one running, one waiting: the executor never starves on the link */

struct inbound {
    trm_link_frame *frame;
    struct inbound *next;
};
struct outbound {
    trm_wire_buffer buffer;
    struct outbound *next;
};

struct trm_leader {
    const trm_leader_options *options;
    pthread_t helper;
    trm_wait news; /* posted by the helper: the executor has something to look at */
    pthread_mutex_t mu;
    struct inbound *in_first, *in_last;    /* guarded by mu: batches */
    struct outbound *out_first, *out_last; /* guarded by mu: encoded messages */
    trm_link *link;                        /* guarded by mu; NULL before it is made and after */
    bool finished;                         /* guarded by mu: the executor has left */
    trm_status st;                         /* guarded by mu: why the helper ended */
    char message[512];                     /* guarded by mu */
    bool stop, lost, ended;                /* guarded by mu */
    /* written by the executor, read by the helper; relaxed: nothing else hangs on them */
    _Atomic uint64_t progress;
    _Atomic int phase;
};

void trm_leader_progress(trm_leader *leader)
{
    atomic_fetch_add_explicit(&leader->progress, 1, memory_order_relaxed);
}

static trm_status send_message(trm_link *link, const trm_wire_message *m)
{
    trm_wire_buffer b = {0};
    trm_status st = trm_wire_encode(m, &b);

    if (st == TRM_OK)
        st = trm_link_send(link, NULL, b.data, b.bytes);
    trm_wire_buffer_fini(&b);
    return st;
}

/* ---- the helper's side ---- */

static trm_status say_hello(trm_leader *l, trm_link *link)
{
    char host[128] = "";

    if (gethostname(host, sizeof(host) - 1) != 0)
        snprintf(host, sizeof(host), "?");
    return send_message(link, &(trm_wire_message){.kind = TRM_WIRE_HELLO,
                                                  .host = host,
                                                  .rank = l->options->rank,
                                                  .pid = (int32_t)getpid()});
}

static trm_status beat(trm_leader *l, trm_link *link)
{
    trm_wire_message m = {.kind = TRM_WIRE_HEARTBEAT};

    m.phase = (trm_wire_phase)atomic_load_explicit(&l->phase, memory_order_relaxed);
    m.progress = atomic_load_explicit(&l->progress, memory_order_relaxed);
    return send_message(link, &m);
}

static trm_status take_batch(trm_leader *l, trm_link_frame *frame)
{
    struct inbound *in = trm_calloc(1, sizeof(*in));

    if (in == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "leader: inbound batch");
    in->frame = frame;
    pthread_mutex_lock(&l->mu);
    if (l->in_last != NULL)
        l->in_last->next = in;
    else
        l->in_first = in;
    l->in_last = in;
    pthread_mutex_unlock(&l->mu);
    trm_wait_post(&l->news);
    return TRM_OK;
}

/* Everything that has come; `heard_out` is set if anything has. */
static trm_status receive(trm_leader *l, trm_link *link, bool *heard_out)
{
    trm_link_frame *f = NULL;
    trm_status st = TRM_OK;

    while (st == TRM_OK && trm_link_recv(link, NULL, &f) == TRM_OK) {
        trm_wire_kind kind = trm_wire_peek(f->data, f->bytes);
        trm_arena *arena = NULL;
        trm_wire_message m;

        *heard_out = true;
        if (kind == TRM_WIRE_BATCH) {
            st = take_batch(l, f);
            if (st == TRM_OK)
                continue; /* the queue has the frame now */
        } else if ((st = trm_arena_create(1024, &arena)) == TRM_OK &&
                   (st = trm_wire_decode(f->data, f->bytes, arena, &m)) == TRM_OK &&
                   kind == TRM_WIRE_STOP) {
            pthread_mutex_lock(&l->mu);
            l->stop = true;
            l->lost = m.lost;
            pthread_mutex_unlock(&l->mu);
            trm_wait_post(&l->news);
        }
        trm_arena_destroy(arena);
        trm_link_frame_destroy(f);
    }
    return st;
}

static trm_status send_queued(trm_leader *l, trm_link *link)
{
    trm_status st = TRM_OK;

    for (;;) {
        struct outbound *out;

        pthread_mutex_lock(&l->mu);
        out = l->out_first;
        if (out != NULL) {
            l->out_first = out->next;
            if (out->next == NULL)
                l->out_last = NULL;
        }
        pthread_mutex_unlock(&l->mu);
        if (out == NULL)
            return TRM_OK;
        st = trm_link_send(link, NULL, out->buffer.data, out->buffer.bytes);
        if (st == TRM_ERR_TIMEOUT) { /* the link is full: keep it for later, in order */
            pthread_mutex_lock(&l->mu);
            out->next = l->out_first;
            l->out_first = out;
            if (l->out_last == NULL)
                l->out_last = out;
            pthread_mutex_unlock(&l->mu);
            return TRM_OK;
        }
        trm_wire_buffer_fini(&out->buffer);
        trm_free(out);
        if (st != TRM_OK)
            return st;
    }
}

static trm_status helper_loop(trm_leader *l, trm_link *link)
{
    int64_t lease_us =
        trm_scaled_ms(l->options->lease_ms > 0 ? l->options->lease_ms : LEASE_MS) * 1000;
    int64_t heard_us = trm_now_us(), next_beat_us = 0;
    bool stop = false, finished = false;

    TRM_CHECK(say_hello(l, link));
    while (!stop && !finished) {
        int64_t now = trm_now_us();
        bool heard = false;

        if (now >= next_beat_us) {
            trm_status st = beat(l, link);

            if (st != TRM_OK && st != TRM_ERR_TIMEOUT) /* a full link beats by its traffic */
                return st;
            if (next_beat_us > 0 && now - next_beat_us > BEAT_MS * 1000)
                heard_us += now - next_beat_us; /* it was we who did not run */
            next_beat_us = now + BEAT_MS * 1000;
        }
        pthread_mutex_lock(&l->mu);
        finished = l->finished; /* read before sending: what it queued last goes out */
        pthread_mutex_unlock(&l->mu);
        TRM_CHECK(send_queued(l, link));
        TRM_CHECK(receive(l, link, &heard));
        pthread_mutex_lock(&l->mu);
        stop = l->stop;
        pthread_mutex_unlock(&l->mu);
        if (heard)
            heard_us = trm_now_us();
        else if (trm_now_us() - heard_us > lease_us)
            return trm_fail(TRM_ERR_COMM, "the coordinator has not been heard for %lld s",
                            (long long)(lease_us / 1000000));
        if (!stop && !finished)
            trm_link_wait(link, (next_beat_us - trm_now_us()) / 1000 + 1);
    }
    return TRM_OK;
}

static void *helper_main(void *ctx)
{
    trm_leader *l = ctx;
    trm_link *link = NULL;
    trm_status st;

    st = trm_link_connect(l->options->context, l->options->endpoint, l->options->identity, &link);
    pthread_mutex_lock(&l->mu);
    l->link = link;
    pthread_mutex_unlock(&l->mu);
    if (st == TRM_OK)
        st = helper_loop(l, link);
    pthread_mutex_lock(&l->mu);
    l->link = NULL;
    l->st = st;
    l->ended = true;
    snprintf(l->message, sizeof(l->message), "%s", st == TRM_OK ? "" : trm_message());
    pthread_mutex_unlock(&l->mu);
    trm_link_close(link);
    trm_wait_post(&l->news);
    return NULL;
}

/* ---- the executor's side ---- */

/* Queues a message for the helper (NULL: none); `finished`: the executor has left. */
static trm_status post(trm_leader *l, const trm_wire_message *m, bool finished)
{
    struct outbound *out = m != NULL ? trm_calloc(1, sizeof(*out)) : NULL;
    trm_status st = TRM_OK;

    if (m != NULL && out == NULL)
        st = trm_fail(TRM_ERR_NO_MEMORY, "leader: outbound message");
    if (out != NULL && (st = trm_wire_encode(m, &out->buffer)) != TRM_OK) {
        trm_wire_buffer_fini(&out->buffer);
        trm_free(out);
        out = NULL;
    }
    pthread_mutex_lock(&l->mu);
    if (out != NULL) {
        if (l->out_last != NULL)
            l->out_last->next = out;
        else
            l->out_first = out;
        l->out_last = out;
    }
    l->finished = l->finished || finished;
    if (l->link != NULL)
        trm_link_wake(l->link);
    pthread_mutex_unlock(&l->mu);
    return st;
}

static trm_status run_batch(trm_leader *l, const trm_leader_model *model, trm_link_frame *frame)
{
    trm_wire_message batch = {0}, reply = {.kind = TRM_WIRE_RESULT};
    trm_wire_result *results;
    trm_arena *arena = NULL;
    trm_status st = TRM_OK;

    TRM_TRY(st, trm_arena_create(0, &arena), done);
    TRM_TRY(st, trm_wire_decode(frame->data, frame->bytes, arena, &batch), done);
    results = trm_arena_alloc(arena, (size_t)batch.count + 1, sizeof(*results));
    if (results == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "leader: %d results", batch.count);
        goto done;
    }
    /* batch_max is what we asked for; a batch beyond it is run in pieces */
    for (int at = 0, n; at < batch.count; at += n) {
        n = batch.count - at < model->batch_max ? batch.count - at : model->batch_max;
        TRM_TRY(st, model->run(model->ctx, l, batch.records + at, n, arena, results + at), done);
        for (int i = at; i < at + n; i++)
            results[i].id = batch.records[i].id;
        trm_leader_progress(l);
        reply.results = results + at;
        reply.count = n;
        TRM_TRY(st, post(l, &reply, false), done);
    }
    st = post(l, &(trm_wire_message){.kind = TRM_WIRE_CREDIT, .credits = (uint32_t)batch.count},
              false);
done:
    trm_arena_destroy(arena);
    return st;
}

/* Sleeps until there is a batch; NULL: it is over. */
static struct inbound *next_batch(trm_leader *l)
{
    for (;;) {
        uint32_t seen = trm_wait_count(&l->news);
        struct inbound *in = NULL;
        bool over;

        pthread_mutex_lock(&l->mu);
        over = l->stop || l->ended;
        in = over ? NULL : l->in_first;
        if (in != NULL) {
            l->in_first = in->next;
            if (in->next == NULL)
                l->in_last = NULL;
        }
        pthread_mutex_unlock(&l->mu);
        if (over || in != NULL)
            return in;
        /* an idle wait: the helper's lease bounds it */
        (void)!trm_wait_change(&l->news, seen, 0, trm_now_us() + 60000000);
    }
}

/* After a failure: stays until STOP, because a rank that leaves its MPI job early ends it for all.
 */
static void wait_for_stop(trm_leader *l)
{
    for (;;) {
        struct inbound *in = next_batch(l);

        if (in == NULL)
            return;
        trm_link_frame_destroy(in->frame);
        trm_free(in);
    }
}

static trm_status executor_loop(trm_leader *l, const trm_leader_model *model)
{
    TRM_CHECK(post(l,
                   &(trm_wire_message){.kind = TRM_WIRE_READY,
                                       .credits = (uint32_t)(BATCHES_AHEAD * model->batch_max),
                                       .batch_max = (uint32_t)model->batch_max},
                   false));
    atomic_store_explicit(&l->phase, TRM_PHASE_IDLE, memory_order_relaxed);
    for (bool first = true;; first = false) {
        struct inbound *in = next_batch(l);
        trm_status st;

        if (in == NULL)
            return TRM_OK;
        atomic_store_explicit(&l->phase, first ? TRM_PHASE_FIRST_STEP : TRM_PHASE_STEADY,
                              memory_order_relaxed);
        st = run_batch(l, model, in->frame);
        trm_link_frame_destroy(in->frame);
        trm_free(in);
        atomic_store_explicit(&l->phase, TRM_PHASE_IDLE, memory_order_relaxed);
        if (st != TRM_OK)
            return st;
    }
}

static void free_queues(trm_leader *l)
{
    while (l->in_first != NULL) {
        struct inbound *in = l->in_first;

        l->in_first = in->next;
        trm_link_frame_destroy(in->frame);
        trm_free(in);
    }
    while (l->out_first != NULL) {
        struct outbound *out = l->out_first;

        l->out_first = out->next;
        trm_wire_buffer_fini(&out->buffer);
        trm_free(out);
    }
}

trm_status trm_leader_run(const trm_leader_options *options, const trm_leader_model *model,
                          bool *lost_out)
{
    trm_leader *l = trm_calloc(1, sizeof(*l));
    trm_status st;
    int rc;

    *lost_out = false;
    if (l == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "leader");
    l->options = options;
    pthread_mutex_init(&l->mu, NULL);
    rc = pthread_create(&l->helper, NULL, helper_main, l);
    if (rc != 0) {
        pthread_mutex_destroy(&l->mu);
        trm_free(l);
        return trm_fail(TRM_ERR_NO_MEMORY, "leader: cannot start a thread: %s", strerror(rc));
    }
    st = executor_loop(l, model);
    if (st != TRM_OK) {
        char text[512];

        snprintf(text, sizeof(text), "%s", trm_message());
        /* the message is the thread's, and posting may fail with one of its own */
        if (post(l, &(trm_wire_message){.kind = TRM_WIRE_ERROR, .status = st, .message = text},
                 false) != TRM_OK)
            TRM_LOG(TRM_LOG_WARN, "leader", "the coordinator could not be told: %s", trm_message());
        wait_for_stop(l);
        st = trm_fail(st, "%s", text);
    }
    (void)!post(l, NULL, true); /* nothing to encode: cannot fail */
    pthread_join(l->helper, NULL);
    if (st == TRM_OK && l->st != TRM_OK)
        st = trm_fail(l->st, "%s", l->message);
    *lost_out = l->lost || l->st != TRM_OK;
    free_queues(l);
    pthread_mutex_destroy(&l->mu);
    trm_free(l);
    return st;
}
