/* Replicas that are threads, for tests of the hub. A request's body is "N text": a streamed one
 * gives N parts, one in a step, and every answer is made of the request's tag and seed, so that two
 * replicas say the same. */
#ifndef TRM_TESTS_HUB_FAKE_H
#define TRM_TESTS_HUB_FAKE_H

#include "base/exchange.h"
#include "base/link_zmq.h"
#include "base/wait.h"
#include "base/wire_serve.h"

#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAKE_JOBS 512
#define FAKE_SLOTS 16

struct fake_job {
    bool used;
    uint64_t id, seed;
    uint32_t slot;
    char tag[32], text[64];
    bool stream;
    int parts, at;
    trm_wire_tensor tensor; /* its only one; data is a copy */
    int tensors;
    bool was_shared;
};

struct fake_replica {
    /* set before the start */
    trm_link_context *context;
    char endpoint[TRM_LINK_ENDPOINT_BYTES];
    char identity[16];
    int credits;
    bool shares;         /* has a segment, and reads the hub's */
    bool says_otherwise; /* its answers differ from others' */
    /* knobs, any time */
    atomic_bool hold;        /* steps do nothing */
    atomic_bool mute;        /* no beats, nothing read */
    atomic_bool die;         /* closes its link and ends */
    atomic_int die_at_parts; /* after so many parts in all; 0: never */
    atomic_bool garbage;     /* sends a frame that is none */
    atomic_bool hold_loads;  /* a LOAD is answered by LOADING only */
    /* seen */
    atomic_int parts, answers, cancels, loads, unloads, releases, requests, shared_seen;
    atomic_int beats, drains;
    atomic_bool stopped, stop_lost;
    uint32_t slots[FAKE_SLOTS]; /* loaded */
    bool failing[FAKE_SLOTS], leaving[FAKE_SLOTS], loading[FAKE_SLOTS];
    char order[256]; /* texts' first letters in order of answers */
    struct fake_job jobs[FAKE_JOBS];
    trm_link *link;
    trm_exchange *exchange;
    trm_exchange_view *view;
    trm_wire_buffer out;
    uint64_t progress;
    pthread_t thread;
    bool started;
};

static void fake_send(struct fake_replica *r, const trm_wire_message *m)
{
    r->out.bytes = 0;
    ck_assert_msg(trm_wire_encode(m, &r->out) == TRM_OK, "%s", trm_message());
    (void)!trm_link_send(r->link, NULL, r->out.data, r->out.bytes);
}

static void fake_model(struct fake_replica *r, uint32_t slot, trm_model_state state)
{
    trm_wire_model model = {.slot = slot, .state = state, .message = "", .metadata = ""};
    trm_wire_message m = {.kind = TRM_WIRE_MODEL, .u.model = &model};

    if (state == TRM_MODEL_FAILED)
        model.message = "the fake will not";
    if (state == TRM_MODEL_READY) {
        model.metadata = "{\"kind\": \"generate\"}";
        model.credits = (uint32_t)r->credits;
    }
    fake_send(r, &m);
}

static void fake_load(struct fake_replica *r, const trm_wire_load *l)
{
    for (int i = 0; i < FAKE_SLOTS; i++) {
        if (r->slots[i] != 0)
            continue;
        r->slots[i] = l->slot;
        r->failing[i] = strstr(l->settings, "fail") != NULL;
        r->loading[i] = true;
        r->leaving[i] = false;
        break;
    }
    atomic_fetch_add(&r->loads, 1);
    fake_model(r, l->slot, TRM_MODEL_LOADING);
}

static void fake_request(struct fake_replica *r, trm_wire_message *m)
{
    const trm_wire_request *q = m->u.request;
    struct fake_job *j = r->jobs;

    atomic_fetch_add(&r->requests, 1);
    while (j->used)
        j++;
    ck_assert(j < r->jobs + FAKE_JOBS);
    memset(j, 0, sizeof(*j));
    j->used = true;
    j->id = q->id;
    j->seed = q->seed;
    j->slot = q->slot;
    j->stream = q->stream;
    ck_assert_uint_eq(strlen(q->tag), 24);
    ck_assert_uint_ne(q->seed, 0);
    ck_assert_int_ne(q->created, 0);
    snprintf(j->tag, sizeof(j->tag), "%s", q->tag);
    snprintf(j->text, sizeof(j->text), "%.*s", (int)q->body_bytes, (const char *)q->body);
    j->parts = (int)strtol(j->text, NULL, 10);
    j->tensors = q->tensor_count;
    if (q->tensor_count > 0) {
        size_t bytes;

        ck_assert_msg(trm_wire_resolve(m, r->view) == TRM_OK, "%s", trm_message());
        j->tensor = q->tensors[0];
        j->was_shared = q->tensors[0].shared;
        ck_assert_int_eq(trm_tensor_bytes(&j->tensor.tensor, &bytes), TRM_OK);
        j->tensor.name = "y";
        j->tensor.shared = false;
        j->tensor.tensor.data = trm_malloc(bytes, 1);
        memcpy(j->tensor.tensor.data, q->tensors[0].tensor.data, bytes);
        if (j->was_shared)
            atomic_fetch_add(&r->shared_seen, 1);
    }
}

static void fake_answer(struct fake_replica *r, struct fake_job *j, trm_status st)
{
    char body[160] = "";
    trm_wire_tensor y = j->tensor;
    trm_wire_answer a = {.id = j->id,
                         .status = st,
                         .message = st == TRM_OK ? "" : "cancelled",
                         .model = "m",
                         .version = (int64_t)j->slot,
                         .body = body,
                         .new_tokens = (uint32_t)j->at};
    trm_wire_message m = {.kind = TRM_WIRE_ANSWER, .u.answer = &a};
    size_t n = strlen(r->order);

    if (!j->stream)
        snprintf(body, sizeof(body), "%s:%llu:%s", j->tag, (unsigned long long)j->seed, j->text);
    a.body_bytes = strlen(body);
    if (j->tensors > 0 && st == TRM_OK) {
        trm_wire_share(&y, 1, r->exchange);
        a.outputs = &y;
        a.output_count = 1;
    }
    fake_send(r, &m);
    if (n + 1 < sizeof(r->order))
        r->order[n] = strchr(j->text, ' ') != NULL ? strchr(j->text, ' ')[1] : '?';
    trm_free(j->tensor.tensor.data);
    j->used = false;
    atomic_fetch_add(&r->answers, 1);
}

static void fake_line(const struct fake_replica *r, const struct fake_job *j, int i, char *line,
                      size_t bytes)
{
    snprintf(line, bytes, "%s:%llu:%d:%s%s\n", j->tag, (unsigned long long)j->seed, i, j->text,
             r->says_otherwise ? "?" : "");
}

/* False: it dies. */
static bool fake_step(struct fake_replica *r)
{
    for (int i = 0; i < FAKE_SLOTS; i++) {
        bool busy = false;

        if (r->slots[i] == 0)
            continue;
        if (r->loading[i] && !atomic_load(&r->hold_loads)) {
            r->loading[i] = false;
            fake_model(r, r->slots[i], r->failing[i] ? TRM_MODEL_FAILED : TRM_MODEL_READY);
            if (r->failing[i])
                r->slots[i] = 0;
        }
        for (int k = 0; k < FAKE_JOBS; k++)
            busy |= r->jobs[k].used && r->jobs[k].slot == r->slots[i];
        if (r->slots[i] != 0 && r->leaving[i] && !busy) {
            fake_model(r, r->slots[i], TRM_MODEL_UNLOADED);
            r->slots[i] = 0;
        }
    }
    if (atomic_load(&r->hold))
        return true;
    for (int k = 0; k < FAKE_JOBS; k++) {
        struct fake_job *j = &r->jobs[k];
        char line[200];
        trm_wire_part part = {.id = j->id, .new_tokens = 1, .body = line};
        trm_wire_message m = {.kind = TRM_WIRE_PART, .u.part = &part};
        int die_at = atomic_load(&r->die_at_parts);

        if (!j->used)
            continue;
        r->progress++;
        if (!j->stream || j->at == j->parts) {
            fake_answer(r, j, TRM_OK);
            continue;
        }
        fake_line(r, j, j->at++, line, sizeof(line));
        part.body_bytes = strlen(line);
        fake_send(r, &m);
        if (atomic_fetch_add(&r->parts, 1) + 1 == die_at)
            return false;
    }
    return true;
}

static void fake_unload(struct fake_replica *r, uint32_t slot)
{
    bool here = false;

    atomic_fetch_add(&r->unloads, 1);
    for (int i = 0; i < FAKE_SLOTS; i++) {
        here |= r->slots[i] == slot;
        r->leaving[i] |= r->slots[i] == slot;
    }
    if (!here) /* as replicas do: it has failed meanwhile */
        fake_model(r, slot, TRM_MODEL_UNLOADED);
}

/* False: it has to end. */
static bool fake_hear(struct fake_replica *r, trm_wire_message *m)
{
    switch (m->kind) {
    case TRM_WIRE_HELLO:
        if (r->shares && m->segment[0] != '\0')
            ck_assert_msg(trm_exchange_attach(m->segment, (size_t)m->segment_bytes, &r->view) ==
                              TRM_OK,
                          "%s", trm_message());
        break;
    case TRM_WIRE_LOAD:
        fake_load(r, m->u.load);
        break;
    case TRM_WIRE_UNLOAD:
        fake_unload(r, m->u.slot);
        break;
    case TRM_WIRE_HEARTBEAT:
        atomic_fetch_add(&r->beats, 1);
        break;
    case TRM_WIRE_DRAIN:
        atomic_fetch_add(&r->drains, 1);
        break;
    case TRM_WIRE_REQUEST:
        fake_request(r, m);
        break;
    case TRM_WIRE_CANCEL:
        atomic_fetch_add(&r->cancels, 1);
        for (int k = 0; k < FAKE_JOBS; k++)
            if (r->jobs[k].used && r->jobs[k].id == m->u.id)
                fake_answer(r, &r->jobs[k], TRM_ERR_CANCELLED);
        break;
    case TRM_WIRE_RELEASE:
        ck_assert_int_eq(trm_exchange_release(r->exchange, m->u.release.offset, m->u.release.bytes),
                         TRM_OK);
        atomic_fetch_add(&r->releases, 1);
        break;
    case TRM_WIRE_STOP:
        atomic_store(&r->stop_lost, m->lost);
        atomic_store(&r->stopped, true);
        return false;
    default:
        break;
    }
    return true;
}

static bool fake_receive(struct fake_replica *r)
{
    trm_link_frame *f = NULL;
    bool go_on = true;

    while (go_on && trm_link_recv(r->link, NULL, &f) == TRM_OK) {
        trm_arena *arena;
        trm_wire_message m;

        ck_assert_int_eq(trm_arena_create(1024, &arena), TRM_OK);
        ck_assert_msg(trm_wire_decode(f->data, f->bytes, arena, &m) == TRM_OK, "%s", trm_message());
        go_on = fake_hear(r, &m);
        trm_arena_destroy(arena);
        trm_link_frame_destroy(f);
    }
    return go_on;
}

static void fake_hello(struct fake_replica *r)
{
    trm_wire_message m = {.kind = TRM_WIRE_HELLO, .host = "here", .segment = "", .pid = 7};

    if (r->shares) {
        ck_assert_int_eq(trm_exchange_create((size_t)16 << 20, &r->exchange), TRM_OK);
        m.segment = trm_exchange_name(r->exchange);
        m.segment_bytes = trm_exchange_bytes(r->exchange);
    }
    fake_send(r, &m);
}

static void fake_stats(struct fake_replica *r)
{
    trm_wire_model_stats models[2] = {{.slot = r->slots[0]}, {.slot = 999}};
    trm_wire_stats stats = {.models = models, .model_count = 2};
    trm_wire_message m = {.kind = TRM_WIRE_STATS, .u.stats = &stats};

    fake_send(r, &m);
}

static void *fake_main(void *ctx)
{
    struct fake_replica *r = ctx;
    int64_t next_beat = 0;

    ck_assert_msg(trm_link_connect(r->context, r->endpoint, r->identity, &r->link) == TRM_OK, "%s",
                  trm_message());
    fake_hello(r);
    while (!atomic_load(&r->die)) {
        if (atomic_load(&r->mute)) {
            usleep(1000);
            continue;
        }
        if (!fake_receive(r) || !fake_step(r))
            break;
        if (atomic_exchange(&r->garbage, false))
            (void)!trm_link_send(r->link, NULL, "\xff\xfe\xfd", 3);
        if (trm_now_us() >= next_beat) {
            trm_wire_message m = {.kind = TRM_WIRE_HEARTBEAT, .phase = TRM_PHASE_STEADY};

            m.progress = r->progress;
            fake_send(r, &m);
            fake_stats(r);
            next_beat = trm_now_us() + 100000;
        }
        trm_link_wait(r->link, 1);
    }
    trm_link_close(r->link);
    r->link = NULL;
    for (int k = 0; k < FAKE_JOBS; k++)
        if (r->jobs[k].used)
            trm_free(r->jobs[k].tensor.tensor.data);
    trm_wire_buffer_fini(&r->out);
    trm_exchange_detach(r->view);
    trm_exchange_destroy(r->exchange);
    return NULL;
}

static void fake_start(struct fake_replica *r, trm_link_context *context, const char *endpoint,
                       const char *identity)
{
    r->context = context;
    snprintf(r->endpoint, sizeof(r->endpoint), "%s", endpoint);
    snprintf(r->identity, sizeof(r->identity), "%s", identity);
    if (r->credits == 0)
        r->credits = 4;
    r->started = true;
    ck_assert_int_eq(pthread_create(&r->thread, NULL, fake_main, r), 0);
}

static void fake_join(struct fake_replica *r)
{
    if (r->started)
        pthread_join(r->thread, NULL);
    r->started = false;
}

#endif
