/* See serve_tensor.h. Requests wait in order of priority and arrival; a batch is a step of the
 * replica, as many under way as it takes; a batch that fails is run again request by request, so
 * that a failure is each one's own. serve_tensor_io.c makes inputs of requests and answers of
 * outputs. */
#include "worker/serve_tensor_impl.h"

#include "base/log.h"
#include "base/wait.h"

#include <stdio.h>
#include <string.h>

#define MAX_BATCH 32

static struct trmi_serve_tensor *self(trm_serve_model *m)
{
    return (struct trmi_serve_tensor *)m;
}

/* ---- answers ---- */

static void free_item(struct trmi_serve_tensor *s, struct trmi_serve_item *it)
{
    s->count--;
    trm_arena_destroy(it->scratch);
    trm_free(it);
}

void trmi_serve_tensor_answer(struct trmi_serve_tensor *s, struct trmi_serve_item *it,
                              trm_wire_answer *a)
{
    int64_t now = trm_now_us();

    a->id = it->request->id;
    a->model = s->name;
    a->version = s->options.version;
    if (a->message == NULL)
        a->message = "";
    if (it->began_us > 0) {
        a->queue_us = (uint64_t)(it->began_us - it->arrived_us);
        a->run_us = (uint64_t)(now - it->began_us);
    } else {
        a->queue_us = (uint64_t)(now - it->arrived_us);
    }
    s->base.out.answer(s->base.out.ctx, a);
    free_item(s, it);
}

static void fail_item(struct trmi_serve_tensor *s, struct trmi_serve_item *it, trm_status st,
                      const char *message)
{
    trm_wire_answer a = {.status = st, .message = message};

    trmi_serve_tensor_answer(s, it, &a);
}

/* ---- the queue ---- */

static void enqueue(struct trmi_serve_tensor *s, struct trmi_serve_item *it)
{
    struct trmi_serve_item **at = &s->first;

    /* nearly always at the end: requests come in order and few have a priority */
    if (s->last != NULL && s->last->request->priority >= it->request->priority)
        at = &s->last->next;
    while (*at != NULL && (*at)->request->priority >= it->request->priority)
        at = &(*at)->next;
    it->next = *at;
    *at = it;
    if (it->next == NULL)
        s->last = it;
    s->waiting++;
}

static void submit(trm_serve_model *m, const trm_wire_request *request, int64_t arrived_us)
{
    struct trmi_serve_tensor *s = self(m);
    struct trmi_serve_item *it = trm_calloc(1, sizeof(*it));
    trm_status st = TRM_OK;
    char text[512];

    s->count++;
    if (it == NULL) {
        trm_wire_answer a = {
            .id = request->id, .status = TRM_ERR_NO_MEMORY, .message = "no memory for a request"};

        s->count--;
        m->out.answer(m->out.ctx, &a);
        return;
    }
    it->request = request;
    it->arrived_us = arrived_us;
    st = trm_arena_create(0, &it->scratch);
    if (st == TRM_OK)
        st = trmi_serve_tensor_read(s, it);
    if (st != TRM_OK) {
        snprintf(text, sizeof(text), "%s", trm_message());
        fail_item(s, it, st, text);
        return;
    }
    enqueue(s, it);
}

/* Rows of requests that could share a step with the first one that waits. */
static int shared_rows(const struct trmi_serve_tensor *s)
{
    int rows = 0;

    for (const struct trmi_serve_item *it = s->first; it != NULL && rows < s->batcher.max_batch;
         it = it->next)
        if (trmi_serve_tensor_alike(s, s->first, it))
            rows += (int)it->rows;
    return rows;
}

static int64_t oldest_us(const struct trmi_serve_tensor *s)
{
    int64_t oldest = INT64_MAX;

    for (const struct trmi_serve_item *it = s->first; it != NULL; it = it->next)
        oldest = it->arrived_us < oldest ? it->arrived_us : oldest;
    return oldest;
}

static int64_t batch_due_us(const struct trmi_serve_tensor *s)
{
    if (s->first == NULL)
        return INT64_MAX;
    if (s->first->rows == 0 || s->first->alone)
        return 0;
    return trm_batcher_due_us(&s->batcher, shared_rows(s), oldest_us(s));
}

static int64_t due_us(const trm_serve_model *m)
{
    const struct trmi_serve_tensor *s = (const struct trmi_serve_tensor *)m;

    return s->ring_count > 0 ? 0 : batch_due_us(s);
}

/* ---- batches ---- */

/* Takes requests like the first one out of the queue, up to the size that is wanted. */
static struct trmi_serve_batch *gather(struct trmi_serve_tensor *s)
{
    struct trmi_serve_batch *b = &s->ring[(s->ring_first + s->ring_count) % s->ring_max];
    struct trmi_serve_item *leader = s->first, *kept = NULL, **end = &b->items, **at = &s->first;
    int want = 1, waiting = shared_rows(s);

    b->items = NULL;
    b->rows = b->count = 0;
    want = trm_batcher_size(&s->batcher, waiting);
    s->batcher.last_rows = leader->rows == 0 || leader->alone ? s->batcher.last_rows : waiting;
    for (struct trmi_serve_item *it = *at; it != NULL; it = *at) {
        bool fits = it == leader || (trmi_serve_tensor_alike(s, leader, it) &&
                                     b->rows + it->rows <= want && !leader->alone);

        if (!fits) {
            kept = it;
            at = &it->next;
            continue;
        }
        *at = it->next;
        if (it == s->last)
            s->last = kept;
        it->next = NULL;
        *end = it;
        end = &it->next;
        b->rows += it->rows;
        b->count++;
        s->waiting--;
        it->began_us = trm_now_us();
    }
    return b;
}

/* Its requests are tried again one by one, or answered. */
static void batch_failed(struct trmi_serve_tensor *s, struct trmi_serve_batch *b, trm_status st)
{
    struct trmi_serve_item *it = b->items;
    char text[512];

    snprintf(text, sizeof(text), "%s", trm_message());
    /* where the replica is lost others can answer: the loop says so, then fail gets these */
    if (b->count == 1 && st != TRM_ERR_COMM) {
        fail_item(s, it, st, text);
        return;
    }
    TRM_LOG(TRM_LOG_DEBUG, "serve", "%s: a batch of %d failed, one by one: %s", s->name, b->count,
            text);
    while (it != NULL) { /* to the front of the queue, the last one first in */
        struct trmi_serve_item *next = it->next;

        it->alone = true;
        it->next = s->first;
        s->first = it;
        if (s->last == NULL)
            s->last = it;
        s->waiting++;
        it = next;
    }
}

static void take_outputs(struct trmi_serve_tensor *s, struct trmi_serve_batch *b)
{
    struct trmi_serve_item *it = b->items;
    int64_t row = 0;

    if (b->count > 1 && !trmi_serve_tensor_splits(s, b->ran_rows)) {
        TRM_LOG(TRM_LOG_INFO, "serve", "%s: outputs are not one row a record: no more batches",
                s->name);
        s->stacks = false;
        (void)trm_fail(TRM_ERR_UNSUPPORTED, "outputs are not one row a record");
        batch_failed(s, b, TRM_ERR_UNSUPPORTED);
        return;
    }
    s->batches++;
    s->batched += (uint64_t)b->rows;
    while (it != NULL) {
        struct trmi_serve_item *next = it->next;
        int64_t rows = it->rows;

        if (it->cancelled)
            fail_item(s, it, TRM_ERR_CANCELLED, "cancelled");
        else
            trmi_serve_tensor_reply(s, it, b, row);
        row += rows;
        it = next;
    }
}

/* The oldest batch under way. COMM: the replica is lost. */
static trm_status collect(struct trmi_serve_tensor *s)
{
    struct trmi_serve_batch *b = &s->ring[s->ring_first];
    trm_status st = trm_replica_collect(s->model->replica, s->out);

    s->ring_first = (s->ring_first + 1) % s->ring_max;
    s->ring_count--;
    s->step_us += (uint64_t)(trm_now_us() - b->began_us);
    if (st == TRM_OK)
        take_outputs(s, b);
    else
        batch_failed(s, b, st);
    return st == TRM_ERR_COMM ? st : TRM_OK;
}

static trm_status begin(struct trmi_serve_tensor *s)
{
    struct trmi_serve_batch *b = gather(s);
    trm_status st = trmi_serve_tensor_stack(s, b);

    b->began_us = trm_now_us();
    if (st == TRM_OK)
        st = trm_replica_submit(s->model->replica, s->in);
    if (st != TRM_OK) {
        batch_failed(s, b, st);
        return st == TRM_ERR_COMM ? st : TRM_OK;
    }
    s->ring_count++;
    return TRM_OK;
}

static trm_status step(trm_serve_model *m)
{
    struct trmi_serve_tensor *s = self(m);
    int64_t due = batch_due_us(s);

    if (s->ring_count < s->ring_max && due <= trm_now_us()) {
        TRM_CHECK(begin(s));
        /* one at a time is complete at once; with stages there is room for the next */
        if (s->ring_count < s->ring_max)
            return TRM_OK;
    }
    return s->ring_count > 0 ? collect(s) : TRM_OK;
}

static trm_status settle(trm_serve_model *m)
{
    struct trmi_serve_tensor *s = self(m);

    while (s->ring_count > 0)
        TRM_CHECK(collect(s));
    return TRM_OK;
}

/* ---- the rest of the table ---- */

static void cancel(trm_serve_model *m, uint64_t id)
{
    struct trmi_serve_tensor *s = self(m);
    struct trmi_serve_item **at = &s->first, *before = NULL;

    for (int i = 0; i < s->ring_count; i++)
        for (struct trmi_serve_item *it = s->ring[(s->ring_first + i) % s->ring_max].items;
             it != NULL; it = it->next)
            if (it->request->id == id)
                it->cancelled = true;
    for (; *at != NULL; before = *at, at = &(*at)->next) {
        struct trmi_serve_item *it = *at;

        if (it->request->id != id)
            continue;
        *at = it->next;
        if (s->last == it)
            s->last = before;
        s->waiting--;
        fail_item(s, it, TRM_ERR_CANCELLED, "cancelled");
        return;
    }
}

static int count(const trm_serve_model *m)
{
    return ((const struct trmi_serve_tensor *)m)->count;
}

static void fail(trm_serve_model *m, trm_status st)
{
    struct trmi_serve_tensor *s = self(m);
    char text[512];

    snprintf(text, sizeof(text), "%s", trm_message());
    for (; s->ring_count > 0; s->ring_count--, s->ring_first = (s->ring_first + 1) % s->ring_max)
        for (struct trmi_serve_item *it = s->ring[s->ring_first].items, *next; it != NULL;
             it = next) {
            next = it->next;
            fail_item(s, it, st, text);
        }
    while (s->first != NULL) {
        struct trmi_serve_item *it = s->first;

        s->first = it->next;
        s->waiting--;
        fail_item(s, it, st, text);
    }
    s->last = NULL;
}

static void stats(const trm_serve_model *m, trm_wire_model_stats *out)
{
    const struct trmi_serve_tensor *s = (const struct trmi_serve_tensor *)m;

    *out = (trm_wire_model_stats){.running = (uint32_t)(s->count - s->waiting),
                                  .waiting = (uint32_t)s->waiting,
                                  .steps = s->batches,
                                  .step_us = s->step_us,
                                  .batches = s->batches,
                                  .batched = s->batched};
}

static uint32_t credits(const trm_serve_model *m)
{
    return (uint32_t)((const struct trmi_serve_tensor *)m)->options.queue;
}

static void destroy(trm_serve_model *m)
{
    struct trmi_serve_tensor *s = self(m);

    if (s == NULL)
        return;
    for (int i = 0; s->stacked != NULL && i < s->model->graph->input_count; i++)
        trm_aligned_free(s->stacked[i]);
    trm_free(s->stacked);
    trm_free(s->stacked_bytes);
    trm_free(s->ring);
    trm_free(s->in);
    trm_free(s->out);
    trm_free(s->name);
    trm_free(s->preferred);
    trm_free(s);
}

static const trm_serve_model_ops ops = {.name = "tensor",
                                        .submit = submit,
                                        .cancel = cancel,
                                        .count = count,
                                        .due_us = due_us,
                                        .step = step,
                                        .settle = settle,
                                        .fail = fail,
                                        .stats = stats,
                                        .metadata = trmi_serve_tensor_metadata,
                                        .credits = credits,
                                        .destroy = destroy};

static trm_status make(struct trmi_serve_tensor *s, const trm_serve_tensor_options *o)
{
    size_t inputs = (size_t)o->model->graph->input_count,
           outputs = (size_t)o->model->graph->output_count;

    s->name = trm_strdup(o->name);
    s->in = trm_calloc(inputs + 1, sizeof(*s->in));
    s->out = trm_calloc(outputs + 1, sizeof(*s->out));
    s->stacked = trm_calloc(inputs + 1, sizeof(*s->stacked));
    s->stacked_bytes = trm_calloc(inputs + 1, sizeof(*s->stacked_bytes));
    s->ring_max = trm_replica_depth(o->model->replica);
    s->ring = trm_calloc((size_t)s->ring_max, sizeof(*s->ring));
    s->preferred = trm_calloc((size_t)o->preferred_count + 1, sizeof(*s->preferred));
    if (s->name == NULL || s->in == NULL || s->out == NULL || s->stacked == NULL ||
        s->stacked_bytes == NULL || s->ring == NULL || s->preferred == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a served model");
    if (o->preferred_count > 0)
        memcpy(s->preferred, o->preferred, (size_t)o->preferred_count * sizeof(*o->preferred));
    return trmi_serve_tensor_inspect(s);
}

trm_status trm_serve_tensor_create(const trm_serve_tensor_options *options,
                                   trm_serve_model **model_out)
{
    struct trmi_serve_tensor *s = trm_calloc(1, sizeof(*s));
    trm_status st;

    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a served model");
    s->base.ops = &ops;
    s->base.out = options->out;
    s->options = *options;
    s->model = options->model;
    if (s->options.max_batch <= 0)
        s->options.max_batch = MAX_BATCH;
    if (s->options.queue <= 0)
        s->options.queue = 4 * s->options.max_batch + 64;
    st = make(s, options);
    if (st != TRM_OK) {
        destroy(&s->base);
        return st;
    }
    s->batcher =
        (trm_batcher){.max_batch = s->fixed_batch > 0 ? (int)s->fixed_batch : s->options.max_batch,
                      .max_delay_us = options->max_delay_us,
                      .preferred = s->preferred,
                      .preferred_count = options->preferred_count};
    *model_out = &s->base;
    return TRM_OK;
}
