/* Two threads: the helper owns the link, the executor runs the model; two short queues between
 * them. Both queues are bounded by the credits the replica has given. */
#define _GNU_SOURCE
#include "base/log.h"
#include "worker/leader_impl.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BEAT_MS 250
#define LEASE_MS 10000

void trm_leader_progress(trm_leader *leader)
{
    (void)__atomic_fetch_add(&leader->progress, 1, __ATOMIC_RELAXED);
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

    m.phase = (trm_wire_phase)__atomic_load_n(&l->phase, __ATOMIC_RELAXED);
    m.progress = __atomic_load_n(&l->progress, __ATOMIC_RELAXED);
    return send_message(link, &m);
}

static trm_status take_batch(trm_leader *l, trm_link_frame *frame)
{
    struct trmi_inbound *in = trm_calloc(1, sizeof(*in));

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
        struct trmi_outbound *out;

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

trm_status trmi_leader_post(trm_leader *l, const trm_wire_message *m, bool finished)
{
    struct trmi_outbound *out = m != NULL ? trm_calloc(1, sizeof(*out)) : NULL;
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

static void free_queues(trm_leader *l)
{
    while (l->in_first != NULL) {
        struct trmi_inbound *in = l->in_first;

        l->in_first = in->next;
        trm_link_frame_destroy(in->frame);
        trm_free(in);
    }
    while (l->out_first != NULL) {
        struct trmi_outbound *out = l->out_first;

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
    st = trmi_leader_work(l, model);
    if (st != TRM_OK) {
        char text[512];

        snprintf(text, sizeof(text), "%s", trm_message());
        /* the message is the thread's, and posting may fail with one of its own */
        if (trmi_leader_post(
                l, &(trm_wire_message){.kind = TRM_WIRE_ERROR, .status = st, .message = text},
                false) != TRM_OK)
            TRM_LOG(TRM_LOG_WARN, "leader", "the coordinator could not be told: %s", trm_message());
        trmi_leader_wait_for_stop(l);
        st = trm_fail(st, "%s", text);
    }
    (void)!trmi_leader_post(l, NULL, true); /* nothing to encode: cannot fail */
    pthread_join(l->helper, NULL);
    if (st == TRM_OK && l->st != TRM_OK)
        st = trm_fail(l->st, "%s", l->message);
    *lost_out = l->lost || l->st != TRM_OK;
    free_queues(l);
    pthread_mutex_destroy(&l->mu);
    trm_free(l);
    return st;
}
