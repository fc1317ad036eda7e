/* The helper thread of a serving leader: it owns the DEALER. Frames that are the executor's go into
 * a queue in the order in which they came; what the executor answers goes out in the order in which
 * it was posted. Both are bounded by the credits that the replica has given. */
#define _GNU_SOURCE
#include "base/log.h"
#include "worker/serve_impl.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BEAT_MS 250
#define LEASE_MS 10000
#define SEGMENT_BYTES ((size_t)512 << 20) /* address space: memory is taken as it is used */

struct outbound {
    trm_wire_buffer buffer;
    struct outbound *next;
};

struct trmi_serve_link {
    const trm_serve_options *o;
    pthread_t thread;
    trm_wait news; /* posted by the helper: the executor has something to look at */
    pthread_mutex_t mu;
    trmi_serve_inbound *in_first, **in_end; /* guarded by mu */
    struct outbound *out_first, **out_end;  /* guarded by mu */
    trm_link *link;                         /* guarded by mu; NULL before it is made and after */
    bool finished;                          /* guarded by mu: the executor has left */
    bool nudged;                            /* guarded by mu */
    bool stop, lost, ended;                 /* guarded by mu */
    trm_status st;                          /* guarded by mu: why the helper ended */
    char message[512];                      /* guarded by mu */
    trm_exchange *exchange;                 /* guarded by mu; NULL: none could be made */
    trm_exchange_view *view;                /* the executor's once set; guarded by mu */
    /* written by the executor, read by the helper; atomic, relaxed */
    uint64_t progress;
    int phase;
};

void trmi_serve_link_progress(trmi_serve_link *l)
{
    (void)__atomic_fetch_add(&l->progress, 1, __ATOMIC_RELAXED);
}

void trmi_serve_link_phase(trmi_serve_link *l, trm_wire_phase phase)
{
    __atomic_store_n(&l->phase, (int)phase, __ATOMIC_RELAXED);
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

static trm_status say_hello(trmi_serve_link *l, trm_link *link)
{
    char host[128] = "";
    trm_wire_message m = {.kind = TRM_WIRE_HELLO, .host = host, .segment = ""};

    if (gethostname(host, sizeof(host) - 1) != 0)
        snprintf(host, sizeof(host), "?");
    m.rank = l->o->rank;
    m.pid = (int32_t)getpid();
    if (l->exchange != NULL) {
        m.segment = trm_exchange_name(l->exchange);
        m.segment_bytes = trm_exchange_bytes(l->exchange);
    }
    return send_message(link, &m);
}

static trm_status beat(trmi_serve_link *l, trm_link *link)
{
    trm_wire_message m = {.kind = TRM_WIRE_HEARTBEAT};

    m.phase = (trm_wire_phase)__atomic_load_n(&l->phase, __ATOMIC_RELAXED);
    m.progress = __atomic_load_n(&l->progress, __ATOMIC_RELAXED);
    return send_message(link, &m);
}

/* The coordinator's segment; on another host there is none to be had. */
static void attach(trmi_serve_link *l, const trm_wire_message *m)
{
    trm_exchange_view *view = NULL;

    if (m->segment == NULL || m->segment[0] == '\0' || m->segment_bytes == 0)
        return;
    if (trm_exchange_attach(m->segment, (size_t)m->segment_bytes, &view) != TRM_OK) {
        TRM_LOG(TRM_LOG_DEBUG, "serve", "no shared memory with the coordinator: %s", trm_message());
        return;
    }
    pthread_mutex_lock(&l->mu);
    if (l->view == NULL) {
        l->view = view;
        view = NULL;
    }
    pthread_mutex_unlock(&l->mu);
    trm_exchange_detach(view);
}

/* What is the helper's own; other frames are the executor's. */
static trm_status take_own(trmi_serve_link *l, trm_link_frame *f)
{
    trm_arena *arena = NULL;
    trm_wire_message m;
    trm_status st;

    TRM_TRY(st, trm_arena_create(1024, &arena), done);
    TRM_TRY(st, trm_wire_decode(f->data, f->bytes, arena, &m), done);
    if (m.kind == TRM_WIRE_HELLO)
        attach(l, &m);
    pthread_mutex_lock(&l->mu);
    if (m.kind == TRM_WIRE_STOP) {
        l->stop = true;
        l->lost = m.lost;
    }
    if (m.kind == TRM_WIRE_RELEASE && l->exchange != NULL &&
        trm_exchange_release(l->exchange, m.u.release.offset, m.u.release.bytes) != TRM_OK)
        TRM_LOG(TRM_LOG_WARN, "serve", "RELEASE: %s", trm_message());
    pthread_mutex_unlock(&l->mu);
    trm_wait_post(&l->news);
done:
    trm_arena_destroy(arena);
    return st;
}

static trm_status receive(trmi_serve_link *l, trm_link *link, bool *heard_out)
{
    trm_link_frame *f = NULL;
    bool any = false;

    while (trm_link_recv(link, NULL, &f) == TRM_OK) {
        trm_wire_kind kind = trm_wire_peek(f->data, f->bytes);
        trmi_serve_inbound *in;

        *heard_out = true;
        if (kind != TRM_WIRE_REQUEST && kind != TRM_WIRE_CANCEL && kind != TRM_WIRE_LOAD &&
            kind != TRM_WIRE_UNLOAD) {
            trm_status st = kind == TRM_WIRE_HEARTBEAT ? TRM_OK : take_own(l, f);

            trm_link_frame_destroy(f);
            TRM_CHECK(st);
            continue;
        }
        in = trm_calloc(1, sizeof(*in));
        if (in == NULL) {
            trm_link_frame_destroy(f);
            return trm_fail(TRM_ERR_NO_MEMORY, "a request");
        }
        in->frame = f;
        in->arrived_us = trm_now_us();
        pthread_mutex_lock(&l->mu);
        *l->in_end = in;
        l->in_end = &in->next;
        pthread_mutex_unlock(&l->mu);
        any = true;
    }
    if (any)
        trm_wait_post(&l->news);
    return TRM_OK;
}

static trm_status send_queued(trmi_serve_link *l, trm_link *link)
{
    for (;;) {
        struct outbound *out;
        trm_status st;

        pthread_mutex_lock(&l->mu);
        out = l->out_first;
        if (out != NULL && (l->out_first = out->next) == NULL)
            l->out_end = &l->out_first;
        pthread_mutex_unlock(&l->mu);
        if (out == NULL)
            return TRM_OK;
        st = trm_link_send(link, NULL, out->buffer.data, out->buffer.bytes);
        if (st == TRM_ERR_TIMEOUT) { /* the link is full: keep it for later, in order */
            pthread_mutex_lock(&l->mu);
            out->next = l->out_first;
            if (l->out_first == NULL)
                l->out_end = &out->next;
            l->out_first = out;
            pthread_mutex_unlock(&l->mu);
            return TRM_OK;
        }
        trm_wire_buffer_fini(&out->buffer);
        trm_free(out);
        if (st != TRM_OK)
            return st;
    }
}

static trm_status helper_loop(trmi_serve_link *l, trm_link *link)
{
    int64_t lease_us = trm_scaled_ms(l->o->lease_ms > 0 ? l->o->lease_ms : LEASE_MS) * 1000;
    int64_t heard_us = trm_now_us(), next_beat_us = 0;
    bool over = false;

    TRM_CHECK(say_hello(l, link));
    while (!over) {
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
        over = l->finished; /* read before sending: what it queued last goes out */
        pthread_mutex_unlock(&l->mu);
        TRM_CHECK(send_queued(l, link));
        TRM_CHECK(receive(l, link, &heard));
        if (heard)
            heard_us = trm_now_us();
        else if (trm_now_us() - heard_us > lease_us)
            return trm_fail(TRM_ERR_COMM, "the coordinator has not been heard for %lld s",
                            (long long)(lease_us / 1000000));
        if (!over)
            trm_link_wait(link, (next_beat_us - trm_now_us()) / 1000 + 1);
    }
    return TRM_OK;
}

static void *helper_main(void *ctx)
{
    trmi_serve_link *l = ctx;
    trm_link *link = NULL;
    trm_status st = trm_link_connect(l->o->context, l->o->endpoint, l->o->identity, &link);

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

trm_status trmi_serve_link_start(const trm_serve_options *o, trmi_serve_link **link_out)
{
    trmi_serve_link *l = trm_calloc(1, sizeof(*l));
    int rc;

    if (l == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "serve: the link");
    l->o = o;
    l->in_end = &l->in_first;
    l->out_end = &l->out_first;
    if (trm_exchange_create(SEGMENT_BYTES, &l->exchange) != TRM_OK)
        TRM_LOG(TRM_LOG_INFO, "serve", "large outputs travel in frames: %s", trm_message());
    pthread_mutex_init(&l->mu, NULL);
    rc = pthread_create(&l->thread, NULL, helper_main, l);
    if (rc != 0) {
        pthread_mutex_destroy(&l->mu);
        trm_exchange_destroy(l->exchange);
        trm_free(l);
        return trm_fail(TRM_ERR_NO_MEMORY, "serve: cannot start a thread: %s", strerror(rc));
    }
    *link_out = l;
    return TRM_OK;
}

trmi_serve_inbound *trmi_serve_link_take(trmi_serve_link *l)
{
    trmi_serve_inbound *in;

    pthread_mutex_lock(&l->mu);
    in = l->in_first;
    l->in_first = NULL;
    l->in_end = &l->in_first;
    pthread_mutex_unlock(&l->mu);
    return in;
}

void trmi_serve_link_nudge(trmi_serve_link *l)
{
    pthread_mutex_lock(&l->mu);
    l->nudged = true;
    pthread_mutex_unlock(&l->mu);
    trm_wait_post(&l->news);
}

void trmi_serve_link_wait(trmi_serve_link *l, int64_t deadline_us)
{
    uint32_t seen = trm_wait_count(&l->news);
    bool some;

    pthread_mutex_lock(&l->mu);
    some = l->in_first != NULL || l->stop || l->ended || l->nudged;
    l->nudged = false;
    pthread_mutex_unlock(&l->mu);
    if (!some)
        (void)!trm_wait_change(&l->news, seen, 0, deadline_us);
}

bool trmi_serve_link_over(trmi_serve_link *l, bool *lost_out, trm_status *st_out)
{
    bool over;

    pthread_mutex_lock(&l->mu);
    over = l->stop || l->ended;
    *lost_out = l->lost || (l->ended && l->st != TRM_OK);
    *st_out = l->ended && !l->stop ? l->st : TRM_OK;
    if (*st_out != TRM_OK)
        (void)trm_fail(*st_out, "%s", l->message);
    pthread_mutex_unlock(&l->mu);
    return over;
}

/* The answer with its large outputs in shared memory; called with mu held. */
static trm_status encode_shared(trmi_serve_link *l, const trm_wire_message *m, trm_wire_buffer *out)
{
    trm_wire_answer answer = *m->u.answer;
    trm_wire_message copy = *m;
    trm_wire_tensor *tensors = trm_calloc((size_t)answer.output_count + 1, sizeof(*tensors));
    trm_status st;

    if (tensors == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "an answer");
    memcpy(tensors, answer.outputs, (size_t)answer.output_count * sizeof(*tensors));
    trm_wire_share(tensors, answer.output_count, l->exchange);
    answer.outputs = tensors;
    copy.u.answer = &answer;
    st = trm_wire_encode(&copy, out);
    if (st != TRM_OK)
        trm_wire_unshare(tensors, answer.output_count, l->exchange);
    trm_free(tensors);
    return st;
}

trm_status trmi_serve_link_post(trmi_serve_link *l, const trm_wire_message *m)
{
    struct outbound *out = trm_calloc(1, sizeof(*out));
    bool shares = m->kind == TRM_WIRE_ANSWER && m->u.answer->output_count > 0;
    trm_status st = TRM_OK;

    if (out == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "an answer");
    if (shares) { /* who sees the coordinator's segment is on its host: it sees ours, too */
        pthread_mutex_lock(&l->mu);
        shares = l->exchange != NULL && l->view != NULL;
        pthread_mutex_unlock(&l->mu);
    }
    if (!shares)
        st = trm_wire_encode(m, &out->buffer);
    pthread_mutex_lock(&l->mu);
    if (shares)
        st = encode_shared(l, m, &out->buffer);
    if (st == TRM_OK) {
        *l->out_end = out;
        l->out_end = &out->next;
        if (l->link != NULL)
            trm_link_wake(l->link);
    }
    pthread_mutex_unlock(&l->mu);
    if (st != TRM_OK) {
        trm_wire_buffer_fini(&out->buffer);
        trm_free(out);
    }
    return st;
}

trm_status trmi_serve_link_resolve(trmi_serve_link *l, trm_wire_message *m)
{
    const trm_exchange_view *view;

    pthread_mutex_lock(&l->mu);
    view = l->view;
    pthread_mutex_unlock(&l->mu);
    return trm_wire_resolve(m, view);
}

void trmi_serve_link_release(trmi_serve_link *l, const trm_wire_tensor *tensors, int count)
{
    for (int i = 0; i < count; i++) {
        trm_wire_message m = {.kind = TRM_WIRE_RELEASE};
        size_t bytes = 0;

        if (!tensors[i].shared || trm_tensor_bytes(&tensors[i].tensor, &bytes) != TRM_OK)
            continue;
        m.u.release.offset = tensors[i].offset;
        m.u.release.bytes = bytes;
        if (trmi_serve_link_post(l, &m) != TRM_OK)
            TRM_LOG(TRM_LOG_WARN, "serve", "RELEASE: %s", trm_message());
    }
}

void trmi_serve_link_end(trmi_serve_link *l)
{
    if (l == NULL)
        return;
    pthread_mutex_lock(&l->mu);
    l->finished = true;
    if (l->link != NULL)
        trm_link_wake(l->link);
    pthread_mutex_unlock(&l->mu);
    pthread_join(l->thread, NULL);
    while (l->in_first != NULL) {
        trmi_serve_inbound *in = l->in_first;

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
    trm_exchange_detach(l->view);
    trm_exchange_destroy(l->exchange);
    pthread_mutex_destroy(&l->mu);
    trm_free(l);
}
