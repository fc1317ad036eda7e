/* Reading the messages of serving. */
#include "base/wire_impl.h"

#include <string.h>

static const char *const request_names[TRM_REQUEST_KIND_COUNT] = {
    "completions", "chat", "embeddings", "tokenize", "detokenize", "infer", "predict"};
static const char *const state_names[TRM_MODEL_STATE_COUNT] = {"loading", "ready", "draining",
                                                               "unloaded", "failed"};

const char *trm_request_kind_name(trm_request_kind kind)
{
    return (unsigned)kind < TRM_REQUEST_KIND_COUNT ? request_names[kind] : "unknown";
}

const char *trm_model_state_name(trm_model_state state)
{
    return (unsigned)state < TRM_MODEL_STATE_COUNT ? state_names[state] : "unknown";
}

int trmi_wire_serve_fields(trm_wire_kind kind)
{
    static const unsigned char fields[TRM_WIRE_KIND_COUNT] = {
        [TRM_WIRE_REQUEST] = 13, [TRM_WIRE_CANCEL] = 1, [TRM_WIRE_PART] = 3,
        [TRM_WIRE_ANSWER] = 10,  [TRM_WIRE_LOAD] = 5,   [TRM_WIRE_UNLOAD] = 1,
        [TRM_WIRE_MODEL] = 5,    [TRM_WIRE_STATS] = 3,  [TRM_WIRE_RELEASE] = 2,
    };

    return fields[kind];
}

static uint32_t get_u32(struct trmi_reader *r, const char *what)
{
    return (uint32_t)trmi_wire_get_uint(r, UINT32_MAX, what);
}

static uint64_t get_u64(struct trmi_reader *r, const char *what)
{
    return trmi_wire_get_uint(r, UINT64_MAX, what);
}

static const char *get_name(struct trmi_reader *r, const char *what)
{
    return trmi_wire_get_text(r, TRM_WIRE_TEXT_MAX, what);
}

/* Each leaves at once where there is no memory for its struct: the reader has failed then. */
static void get_request(struct trmi_reader *r, trm_wire_message *m)
{
    trm_wire_request *q = trmi_wire_get_room(r, 1, sizeof(*q));

    if (q == NULL)
        return;
    q->id = get_u64(r, "request id");
    q->kind = (trm_request_kind)trmi_wire_get_uint(r, TRM_REQUEST_KIND_COUNT - 1, "request kind");
    q->model = get_name(r, "model");
    q->version = trmi_wire_get_int(r, 0, INT64_MAX, "model version");
    q->slot = get_u32(r, "slot");
    q->priority = (int32_t)trmi_wire_get_int(r, INT32_MIN, INT32_MAX, "priority");
    q->deadline_ms = get_u32(r, "deadline");
    q->stream = trmi_wire_get_bool(r, "stream");
    q->seed = get_u64(r, "seed");
    q->created = trmi_wire_get_int(r, 0, INT64_MAX, "created");
    q->tag = get_name(r, "tag");
    q->body = trmi_wire_get_bin(r, &q->body_bytes, "request body");
    q->tensors = trmi_wire_get_tensors(r, &q->tensor_count, true);
    m->u.request = q;
}

static void get_part(struct trmi_reader *r, trm_wire_message *m)
{
    trm_wire_part *p = trmi_wire_get_room(r, 1, sizeof(*p));

    if (p == NULL)
        return;
    p->id = get_u64(r, "part id");
    p->new_tokens = get_u32(r, "new tokens");
    p->body = trmi_wire_get_bin(r, &p->body_bytes, "part body");
    m->u.part = p;
}

static void get_answer(struct trmi_reader *r, trm_wire_message *m)
{
    trm_wire_answer *a = trmi_wire_get_room(r, 1, sizeof(*a));

    if (a == NULL)
        return;
    a->id = get_u64(r, "answer id");
    a->status = (trm_status)trmi_wire_get_int(r, TRM_OK, TRM_STATUS_COUNT - 1, "answer status");
    a->message = get_name(r, "answer message");
    a->model = get_name(r, "model");
    a->version = trmi_wire_get_int(r, 0, INT64_MAX, "model version");
    a->body = trmi_wire_get_bin(r, &a->body_bytes, "answer body");
    a->outputs = trmi_wire_get_tensors(r, &a->output_count, true);
    a->labels = trmi_wire_get_labels(r, &a->label_count);
    a->label_rows = (int)trmi_wire_get_int(r, 0, TRM_WIRE_LABELS_MAX, "label rows");
    if (a->label_count > 0 && (a->label_rows == 0 || a->label_count % a->label_rows != 0))
        trmi_wire_bad(r, "labels do not fill their rows");
    trmi_wire_expect_array(r, 7, "an answer's statistics want seven fields");
    a->prompt_tokens = get_u32(r, "prompt tokens");
    a->cached_tokens = get_u32(r, "cached tokens");
    a->new_tokens = get_u32(r, "new tokens");
    a->queue_us = get_u64(r, "queue time");
    a->first_us = get_u64(r, "time to first token");
    a->run_us = get_u64(r, "run time");
    a->batch = get_u32(r, "batch");
    m->u.answer = a;
}

static void get_load(struct trmi_reader *r, trm_wire_message *m)
{
    trm_wire_load *l = trmi_wire_get_room(r, 1, sizeof(*l));

    if (l == NULL)
        return;
    l->slot = get_u32(r, "slot");
    l->name = get_name(r, "model");
    l->version = trmi_wire_get_int(r, 0, INT64_MAX, "model version");
    l->path = get_name(r, "model path");
    l->settings = trmi_wire_get_text(r, TRM_WIRE_JSON_MAX, "model settings");
    m->u.load = l;
}

static void get_model(struct trmi_reader *r, trm_wire_message *m)
{
    trm_wire_model *model = trmi_wire_get_room(r, 1, sizeof(*model));

    if (model == NULL)
        return;
    model->slot = get_u32(r, "slot");
    model->state = (trm_model_state)trmi_wire_get_uint(r, TRM_MODEL_STATE_COUNT - 1, "model state");
    model->message = get_name(r, "model message");
    model->metadata = trmi_wire_get_text(r, TRM_WIRE_JSON_MAX, "model metadata");
    model->credits = get_u32(r, "credits");
    m->u.model = model;
}

static void get_model_stats(struct trmi_reader *r, trm_wire_model_stats *s)
{
    trmi_wire_expect_array(r, 14, "statistics of a model want fourteen fields");
    s->slot = get_u32(r, "slot");
    s->running = get_u32(r, "running");
    s->waiting = get_u32(r, "waiting");
    s->kv_pages = get_u64(r, "kv pages");
    s->kv_pages_used = get_u64(r, "kv pages used");
    s->prefix_queries = get_u64(r, "prefix queries");
    s->prefix_hits = get_u64(r, "prefix hits");
    s->preemptions = get_u64(r, "preemptions");
    s->steps = get_u64(r, "steps");
    s->prompt_tokens = get_u64(r, "prompt tokens");
    s->new_tokens = get_u64(r, "new tokens");
    s->step_us = get_u64(r, "step time");
    s->batches = get_u64(r, "batches");
    s->batched = get_u64(r, "batched");
}

static void get_rank_stats(struct trmi_reader *r, trm_wire_rank_stats *s)
{
    trmi_wire_expect_array(r, 7, "statistics of a rank want seven fields");
    s->rank = (int32_t)trmi_wire_get_int(r, 0, INT32_MAX, "rank");
    s->pid = (int32_t)trmi_wire_get_int(r, 0, INT32_MAX, "pid");
    s->host = get_name(r, "host");
    s->device = get_name(r, "device");
    s->memory_bytes = get_u64(r, "memory");
    s->busy_us = get_u64(r, "busy time");
    s->cpu_us = get_u64(r, "processor time");
}

static void get_stats(struct trmi_reader *r, trm_wire_message *m)
{
    trm_wire_stats *s = trmi_wire_get_room(r, 1, sizeof(*s));
    trm_wire_model_stats *models;
    trm_wire_rank_stats *ranks;
    int n;

    if (s == NULL)
        return;
    s->time_us = get_u64(r, "time");
    n = trmi_wire_get_array(r, TRM_WIRE_STATS_MAX, "models");
    models = trmi_wire_get_room(r, n, sizeof(*models));
    for (int i = 0; i < n && r->st == TRM_OK; i++)
        get_model_stats(r, &models[i]);
    s->models = models;
    s->model_count = n;
    n = trmi_wire_get_array(r, TRM_WIRE_STATS_MAX, "ranks");
    ranks = trmi_wire_get_room(r, n, sizeof(*ranks));
    for (int i = 0; i < n && r->st == TRM_OK; i++)
        get_rank_stats(r, &ranks[i]);
    s->ranks = ranks;
    s->rank_count = n;
    m->u.stats = s;
}

void trmi_wire_get_serve(struct trmi_reader *r, trm_wire_message *m)
{
    switch (m->kind) {
    case TRM_WIRE_REQUEST:
        get_request(r, m);
        break;
    case TRM_WIRE_CANCEL:
        m->u.id = get_u64(r, "request id");
        break;
    case TRM_WIRE_PART:
        get_part(r, m);
        break;
    case TRM_WIRE_ANSWER:
        get_answer(r, m);
        break;
    case TRM_WIRE_LOAD:
        get_load(r, m);
        break;
    case TRM_WIRE_UNLOAD:
        m->u.slot = get_u32(r, "slot");
        break;
    case TRM_WIRE_MODEL:
        get_model(r, m);
        break;
    case TRM_WIRE_STATS:
        get_stats(r, m);
        break;
    default: /* RELEASE: the caller has looked at the kind */
        m->u.release.offset = get_u64(r, "offset");
        m->u.release.bytes = get_u64(r, "bytes");
        break;
    }
}

const trm_wire_tensor *trm_wire_tensors(const trm_wire_message *message, int *count_out)
{
    *count_out = 0;
    if (message->kind == TRM_WIRE_REQUEST) {
        *count_out = message->u.request->tensor_count;
        return message->u.request->tensors;
    }
    if (message->kind == TRM_WIRE_ANSWER) {
        *count_out = message->u.answer->output_count;
        return message->u.answer->outputs;
    }
    return NULL;
}

trm_status trm_wire_resolve(trm_wire_message *message, const trm_exchange_view *view)
{
    int count;
    /* the casts drop const: the array is the decoder's own, and the data is read only, as the
     * header says */
    trm_wire_tensor *tensors = (trm_wire_tensor *)(uintptr_t)trm_wire_tensors(message, &count);

    for (int i = 0; i < count; i++) {
        trm_wire_tensor *t = &tensors[i];
        const void *data = NULL;
        size_t bytes = 0;

        if (!t->shared)
            continue;
        if (view != NULL && t->offset % TRM_ALIGN == 0 &&
            trm_tensor_bytes(&t->tensor, &bytes) == TRM_OK)
            data = trm_exchange_at(view, t->offset, bytes);
        if (data == NULL)
            return trm_fail(TRM_ERR_COMM,
                            "wire: tensor '%.64s' is at %llu of a shared memory that %s", t->name,
                            (unsigned long long)t->offset,
                            view == NULL ? "is not attached" : "does not hold it");
        t->tensor.data = (void *)(uintptr_t)data;
    }
    return TRM_OK;
}
