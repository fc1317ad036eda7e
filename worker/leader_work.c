/* The executor's side of the leader: batches go into the model and come out as results. A model may
 * have several calls under way (a pipeline must not drain between batches), so batches wait in a
 * queue until their results are complete. */
#define _GNU_SOURCE
#include "worker/leader_impl.h"

#include <string.h>

#define BATCHES_AHEAD 2 /* one running, one waiting: the executor never starves on the link */

/* A batch in the model; its calls are pieces of at most batch_max records. */
struct work {
    trm_link_frame *frame;
    trm_arena *arena;
    trm_wire_message batch;
    trm_wire_result *results;
    int replied; /* records */
    struct work *next;
};

struct executor {
    trm_leader *l;
    const trm_leader_model *model;
    struct work *first, *last;
    int64_t begun, replied; /* calls */
};

static void work_free(struct work *w)
{
    trm_arena_destroy(w->arena);
    trm_link_frame_destroy(w->frame);
    trm_free(w);
}

/* Sends the results of complete calls, and credit for complete batches. */
static trm_status reply(struct executor *x)
{
    int64_t done = x->model->done != NULL ? x->model->done(x->model->ctx) : x->begun;

    while (x->replied < done && x->first != NULL) {
        struct work *w = x->first;
        int n = w->batch.count - w->replied;
        trm_wire_message m = {.kind = TRM_WIRE_RESULT, .results = w->results + w->replied};

        m.count = n < x->model->batch_max ? n : x->model->batch_max;
        for (int i = w->replied; i < w->replied + m.count; i++)
            w->results[i].id = w->batch.records[i].id;
        trm_leader_progress(x->l);
        TRM_CHECK(trmi_leader_post(x->l, &m, false));
        x->replied++;
        w->replied += m.count;
        if (w->replied < w->batch.count)
            continue;
        m = (trm_wire_message){.kind = TRM_WIRE_CREDIT, .credits = (uint32_t)w->batch.count};
        TRM_CHECK(trmi_leader_post(x->l, &m, false));
        x->first = w->next;
        if (x->first == NULL)
            x->last = NULL;
        work_free(w);
    }
    return TRM_OK;
}

static trm_status begin_batch(struct executor *x, trm_link_frame *frame)
{
    struct work *w = trm_calloc(1, sizeof(*w));
    trm_status st = TRM_OK;

    if (w == NULL) {
        trm_link_frame_destroy(frame);
        return trm_fail(TRM_ERR_NO_MEMORY, "leader: a batch");
    }
    w->frame = frame;
    TRM_TRY(st, trm_arena_create(0, &w->arena), fail);
    TRM_TRY(st, trm_wire_decode(frame->data, frame->bytes, w->arena, &w->batch), fail);
    w->results = trm_arena_alloc(w->arena, (size_t)w->batch.count + 1, sizeof(*w->results));
    if (w->results == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "leader: %d results", w->batch.count);
        goto fail;
    }
    if (w->batch.count == 0) {
        work_free(w);
        return TRM_OK;
    }
    if (x->last != NULL)
        x->last->next = w;
    else
        x->first = w;
    x->last = w;
    /* batch_max is what we asked for; a batch beyond it is run in pieces */
    for (int at = 0, n, count = w->batch.count; at < count; at += n) {
        n = count - at < x->model->batch_max ? count - at : x->model->batch_max;
        TRM_CHECK(x->model->run(x->model->ctx, x->l, w->batch.records + at, n, w->arena,
                                w->results + at));
        x->begun++;
        TRM_CHECK(reply(x)); /* may be the end of w, after its last piece */
    }
    return TRM_OK;
fail:
    work_free(w);
    return st;
}

/* The next batch; `wait`: sleeps until there is one. *over_out: it is over. */
static trm_link_frame *next_batch(trm_leader *l, bool wait, bool *over_out)
{
    for (;;) {
        uint32_t seen = trm_wait_count(&l->news);
        struct trmi_inbound *in = NULL;
        trm_link_frame *frame = NULL;

        pthread_mutex_lock(&l->mu);
        *over_out = l->stop || l->ended;
        in = *over_out ? NULL : l->in_first;
        if (in != NULL) {
            l->in_first = in->next;
            if (in->next == NULL)
                l->in_last = NULL;
            frame = in->frame;
        }
        pthread_mutex_unlock(&l->mu);
        trm_free(in);
        if (*over_out || frame != NULL || !wait)
            return frame;
        /* an idle wait: the helper's lease bounds it */
        (void)!trm_wait_change(&l->news, seen, 0, trm_now_us() + 60000000);
    }
}

void trmi_leader_wait_for_stop(trm_leader *l)
{
    for (bool over = false; !over;)
        trm_link_frame_destroy(next_batch(l, true, &over));
}

static trm_status executor_loop(struct executor *x)
{
    trm_leader *l = x->l;

    for (bool first = true;; first = false) {
        bool over;
        trm_link_frame *frame = next_batch(l, x->first == NULL, &over);
        trm_status st;

        if (over) /* what is under way is nobody's any more */
            return TRM_OK;
        __atomic_store_n(&l->phase, first ? TRM_PHASE_FIRST_STEP : TRM_PHASE_STEADY,
                         __ATOMIC_RELAXED);
        if (frame != NULL) {
            st = begin_batch(x, frame);
        } else {
            st = x->model->wait(x->model->ctx, l);
            if (st == TRM_OK)
                st = reply(x);
        }
        if (x->first == NULL)
            __atomic_store_n(&l->phase, TRM_PHASE_IDLE, __ATOMIC_RELAXED);
        if (st != TRM_OK)
            return st;
    }
}

trm_status trmi_leader_work(trm_leader *l, const trm_leader_model *model)
{
    struct executor x = {.l = l, .model = model};
    trm_wire_message ready = {
        .kind = TRM_WIRE_READY,
        .credits =
            (uint32_t)(model->credits > 0 ? model->credits : BATCHES_AHEAD * model->batch_max),
        .batch_max = (uint32_t)model->batch_max};
    trm_status st;

    TRM_CHECK(trmi_leader_post(l, &ready, false));
    __atomic_store_n(&l->phase, TRM_PHASE_IDLE, __ATOMIC_RELAXED);
    st = executor_loop(&x);
    __atomic_store_n(&l->phase, TRM_PHASE_IDLE, __ATOMIC_RELAXED);
    if (model->drop != NULL)
        model->drop(model->ctx);
    while (x.first != NULL) {
        struct work *w = x.first;

        x.first = w->next;
        work_free(w);
    }
    return st;
}
