/* Writing the messages of serving. */
#include "base/wire_impl.h"

#include <string.h>

/* What the reader would refuse is refused here, where the message still has an author. */
static void want(struct trmi_writer *w, bool ok, const char *bad)
{
    if (!ok)
        w->bad = bad;
}

static void put_request(struct trmi_writer *w, const trm_wire_request *q)
{
    want(w, (unsigned)q->kind < TRM_REQUEST_KIND_COUNT, "unknown kind of request");
    want(w, q->version >= 0 && q->created >= 0, "a version or time is negative");
    trmi_wire_put_uint(w, q->id);
    trmi_wire_put_uint(w, (uint64_t)q->kind);
    trmi_wire_put_name(w, q->model);
    trmi_wire_put_int(w, q->version);
    trmi_wire_put_uint(w, q->slot);
    trmi_wire_put_int(w, q->priority);
    trmi_wire_put_uint(w, q->deadline_ms);
    trmi_wire_put_uint(w, q->stream ? 1 : 0);
    trmi_wire_put_uint(w, q->seed);
    trmi_wire_put_int(w, q->created);
    trmi_wire_put_name(w, q->tag);
    trmi_wire_put_bin(w, q->body, q->body_bytes);
    trmi_wire_put_tensors(w, q->tensors, q->tensor_count, true);
}

static void put_answer(struct trmi_writer *w, const trm_wire_answer *a)
{
    want(w, (unsigned)a->status < TRM_STATUS_COUNT, "unknown status");
    want(w, a->version >= 0, "a version is negative");
    want(w, a->label_rows >= 0 && a->label_rows <= TRM_WIRE_LABELS_MAX, "too many rows of labels");
    if (a->label_count != 0)
        want(w, a->label_rows > 0 && a->label_count % a->label_rows == 0,
             "labels do not fill their rows");
    trmi_wire_put_uint(w, a->id);
    trmi_wire_put_int(w, a->status);
    trmi_wire_put_text(w, a->message);
    trmi_wire_put_name(w, a->model);
    trmi_wire_put_int(w, a->version);
    trmi_wire_put_bin(w, a->body, a->body_bytes);
    trmi_wire_put_tensors(w, a->outputs, a->output_count, true);
    trmi_wire_put_labels(w, a->labels, a->label_count);
    trmi_wire_put_int(w, a->label_rows);
    trmi_wire_put_array(w, 7);
    trmi_wire_put_uint(w, a->prompt_tokens);
    trmi_wire_put_uint(w, a->cached_tokens);
    trmi_wire_put_uint(w, a->new_tokens);
    trmi_wire_put_uint(w, a->queue_us);
    trmi_wire_put_uint(w, a->first_us);
    trmi_wire_put_uint(w, a->run_us);
    trmi_wire_put_uint(w, a->batch);
}

static void put_load(struct trmi_writer *w, const trm_wire_load *l)
{
    want(w, l->version >= 0, "a version is negative");
    trmi_wire_put_uint(w, l->slot);
    trmi_wire_put_name(w, l->name);
    trmi_wire_put_int(w, l->version);
    trmi_wire_put_name(w, l->path);
    trmi_wire_put_json(w, l->settings);
}

static void put_model(struct trmi_writer *w, const trm_wire_model *m)
{
    want(w, (unsigned)m->state < TRM_MODEL_STATE_COUNT, "unknown state of a model");
    trmi_wire_put_uint(w, m->slot);
    trmi_wire_put_uint(w, (uint64_t)m->state);
    trmi_wire_put_text(w, m->message);
    trmi_wire_put_json(w, m->metadata);
    trmi_wire_put_uint(w, m->credits);
}

static void put_model_stats(struct trmi_writer *w, const trm_wire_model_stats *s)
{
    const uint64_t v[] = {s->slot,          s->running,        s->waiting,     s->kv_pages,
                          s->kv_pages_used, s->prefix_queries, s->prefix_hits, s->preemptions,
                          s->steps,         s->prompt_tokens,  s->new_tokens,  s->step_us,
                          s->batches,       s->batched};
    const size_t n = sizeof(v) / sizeof(v[0]);

    trmi_wire_put_array(w, n);
    for (size_t i = 0; i < n; i++)
        trmi_wire_put_uint(w, v[i]);
}

static void put_rank_stats(struct trmi_writer *w, const trm_wire_rank_stats *s)
{
    want(w, s->rank >= 0 && s->pid >= 0, "a rank or process id is negative");
    trmi_wire_put_array(w, 7);
    trmi_wire_put_int(w, s->rank);
    trmi_wire_put_int(w, s->pid);
    trmi_wire_put_text(w, s->host);
    trmi_wire_put_text(w, s->device);
    trmi_wire_put_uint(w, s->memory_bytes);
    trmi_wire_put_uint(w, s->busy_us);
    trmi_wire_put_uint(w, s->cpu_us);
}

static int count_of(struct trmi_writer *w, int count)
{
    bool ok = count >= 0 && count <= TRM_WIRE_STATS_MAX;

    want(w, ok, "too many models or ranks");
    return ok ? count : 0;
}

static void put_stats(struct trmi_writer *w, const trm_wire_stats *s)
{
    int models = count_of(w, s->model_count), ranks = count_of(w, s->rank_count);

    trmi_wire_put_uint(w, s->time_us);
    trmi_wire_put_array(w, (size_t)models);
    for (int i = 0; i < models; i++)
        put_model_stats(w, &s->models[i]);
    trmi_wire_put_array(w, (size_t)ranks);
    for (int i = 0; i < ranks; i++)
        put_rank_stats(w, &s->ranks[i]);
}

bool trmi_wire_put_serve(struct trmi_writer *w, const trm_wire_message *m)
{
    if (m->kind < TRM_WIRE_REQUEST || m->kind >= TRM_WIRE_KIND_COUNT)
        return false;
    trmi_wire_head(w, m->kind, (size_t)trmi_wire_serve_fields(m->kind));
    switch (m->kind) {
    case TRM_WIRE_REQUEST:
        put_request(w, m->u.request);
        break;
    case TRM_WIRE_CANCEL:
        trmi_wire_put_uint(w, m->u.id);
        break;
    case TRM_WIRE_PART:
        trmi_wire_put_uint(w, m->u.part->id);
        trmi_wire_put_uint(w, m->u.part->new_tokens);
        trmi_wire_put_bin(w, m->u.part->body, m->u.part->body_bytes);
        break;
    case TRM_WIRE_ANSWER:
        put_answer(w, m->u.answer);
        break;
    case TRM_WIRE_LOAD:
        put_load(w, m->u.load);
        break;
    case TRM_WIRE_UNLOAD:
        trmi_wire_put_uint(w, m->u.slot);
        break;
    case TRM_WIRE_MODEL:
        put_model(w, m->u.model);
        break;
    case TRM_WIRE_STATS:
        put_stats(w, m->u.stats);
        break;
    default: /* RELEASE: the range is checked above */
        trmi_wire_put_uint(w, m->u.release.offset);
        trmi_wire_put_uint(w, m->u.release.bytes);
        break;
    }
    return true;
}

void trm_wire_share(trm_wire_tensor *tensors, int count, trm_exchange *x)
{
    for (int i = 0; x != NULL && i < count; i++) {
        trm_wire_tensor *t = &tensors[i];
        size_t bytes = 0;
        void *piece;

        if (t->shared || t->tensor.data == NULL || t->tensor.layout != TRM_LAYOUT_PLAIN ||
            trm_tensor_bytes(&t->tensor, &bytes) != TRM_OK || bytes < TRM_EXCHANGE_LEAST)
            continue;
        piece = trm_exchange_take(x, bytes, &t->offset);
        if (piece == NULL)
            continue;
        memcpy(piece, t->tensor.data, bytes);
        t->tensor.data = piece;
        t->shared = true;
    }
}

void trm_wire_unshare(trm_wire_tensor *tensors, int count, trm_exchange *x)
{
    for (int i = 0; i < count; i++) {
        trm_wire_tensor *t = &tensors[i];
        size_t bytes = 0;

        if (!t->shared)
            continue;
        /* a piece that is not there any more is what is wanted */
        if (x != NULL && trm_tensor_bytes(&t->tensor, &bytes) == TRM_OK)
            (void)!trm_exchange_release(x, t->offset, bytes);
        t->shared = false;
        t->tensor.data = NULL;
    }
}
