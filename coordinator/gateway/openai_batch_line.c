/* Lines of batches on their way: to the hub, from it, into the outputs. */
#define _GNU_SOURCE
#include "coordinator/gateway/openai_batch_impl.h"

#include "base/log.h"
#include "base/wait.h"

#include <stdlib.h>
#include <string.h>

#define RELEASE_BYTES ((size_t)8 << 20)
#define GIVE_UP_MS ((int64_t)10 * 60 * 1000) /* refused as long: lines fail */
#define TIMEOUTS_MAX 8                       /* of a line, before it fails */
#define BATCH_PRIORITY (-1)                  /* below requests that say nothing */

/* From now on it only waits for what is under way. */
void trmi_batch_end_as(trmi_batch_run *r, trmi_batch_status end)
{
    if (r->phase == TRMI_BATCH_ENDING)
        return;
    r->phase = TRMI_BATCH_ENDING;
    r->end = end;
}

void trmi_batch_fail_run(trmi_batch_run *r, const char *code)
{
    trmi_batch_add_error(r, code, NULL, 0, trm_message());
    trmi_batch_end_as(r, TRMI_BATCH_FAILED);
    r->end = TRMI_BATCH_FAILED; /* whatever it was ending as */
}

/* ---- the hub's side ---- */
static void answered(void *ctx, const trm_wire_answer *a)
{
    trmi_batch_item *item = ctx;
    struct trmi_openai_files *f = item->f;

    item->status = a->status;
    if (a->status == TRM_OK) {
        item->body = trm_malloc(a->body_bytes, 1);
        if (item->body != NULL) {
            memcpy(item->body, a->body, a->body_bytes);
            item->body_bytes = a->body_bytes;
        }
    } else {
        item->message = trm_strdup(a->message != NULL ? a->message : "");
    }
    pthread_mutex_lock(&f->mu);
    item->next = f->done;
    f->done = item;
    pthread_cond_signal(&f->batch_more);
    pthread_mutex_unlock(&f->mu);
}

static void item_free(trmi_batch_item *item)
{
    if (item == NULL)
        return;
    trm_free(item->body);
    trm_free(item->message);
    trm_free(item);
}

/* ---- lines ---- */
/* A line is done: `status` 200, or a failure with `body` (code NULL) or an error's code. */
void trmi_batch_line_done(trmi_batch_run *r, int line, int status, const char *request_id,
                          const void *body, size_t bytes, const char *code, const char *message)
{
    if (trmi_batch_write_line(r, line, status, request_id, body, bytes, code, message) != TRM_OK) {
        TRM_LOG(TRM_LOG_WARN, "gateway", "batch %s: %s", r->batch->id, trm_message());
        r->lines[line].state = TRMI_LINE_WAITING;
        trmi_batch_fail_run(r, "server_error");
        return;
    }
    r->lines[line].state = TRMI_LINE_DONE;
    pthread_mutex_lock(&r->f->mu);
    if (status == 200)
        r->batch->completed++;
    else
        r->batch->failed++;
    pthread_mutex_unlock(&r->f->mu);
}

static void line_failed(trmi_batch_run *r, int line, int http, const char *request_id,
                        trm_status st, const char *message)
{
    char *body = trmi_openai_error_of(http, trmi_openai_code(http, st), NULL, message);

    if (body != NULL)
        trmi_batch_line_done(r, line, http, request_id, body, strlen(body), NULL, NULL);
    else
        trmi_batch_line_done(r, line, http, request_id, "null", 4, NULL, NULL);
    trm_free(body);
}

static bool draining(const trmi_batches *t)
{
    return __atomic_load_n(&t->f->g->draining, __ATOMIC_RELAXED) != 0;
}

void trmi_batch_take_answer(trmi_batches *t, trmi_batch_item *item, bool stopping)
{
    trmi_batch_run *r = item->run;
    bool again = (item->status == TRM_ERR_CANCELLED && (r->cancelled || stopping)) ||
                 (item->status == TRM_ERR_COMM && (stopping || draining(t)));

    /* the server's deadline counts while a line waits behind everybody else's requests, and a batch
     * has a day */
    if (item->status == TRM_ERR_TIMEOUT && r->lines[item->line].timeouts < TIMEOUTS_MAX) {
        r->lines[item->line].timeouts++;
        again = true;
    }
    for (int i = 0; i < t->item_count; i++)
        if (t->items[i] == item)
            t->items[i] = t->items[--t->item_count];
    r->under_way--;
    if (again)
        r->lines[item->line].state = TRMI_LINE_WAITING;
    else if (item->status != TRM_OK)
        line_failed(r, item->line, trm_http_status_of(item->status), item->tag, item->status,
                    item->message != NULL ? item->message : "");
    else if (item->body != NULL)
        trmi_batch_line_done(r, item->line, 200, item->tag, item->body, item->body_bytes, NULL,
                             NULL);
    else
        line_failed(r, item->line, 500, item->tag, TRM_ERR_NO_MEMORY, "no memory for the answer");
    item_free(item);
}

static trm_request_kind kind_of(const trmi_openai_batch *b)
{
    if (strcmp(b->endpoint, "/v1/chat/completions") == 0)
        return TRM_REQUEST_CHAT;
    return strcmp(b->endpoint, "/v1/completions") == 0 ? TRM_REQUEST_COMPLETIONS
                                                       : TRM_REQUEST_EMBEDDINGS;
}

/* Hands a line to the hub. */
static trm_status hand_over(trmi_batches *t, trmi_batch_run *r, trmi_batch_item *item)
{
    const trmi_batch_line *l = &r->lines[item->line];
    const char *code, *param;
    char name[TRMI_OPENAI_MODEL_BYTES];
    trmi_openai_head head;
    trmi_batch_request q = {.id = NULL};
    trm_wire_request wire = {.kind = kind_of(r->batch), .model = name, .tag = item->tag};
    trm_hub_request request = {
        .wire = &wire, .owner = r->batch->owner, .ctx = item, .answer = answered};

    TRM_CHECK(trmi_openai_new_id("", item->tag));
    TRM_CHECK(trmi_batch_request_read(r->text + l->at, l->bytes, r->batch->endpoint, r->body_max,
                                      &q, &code, &param));
    trm_free(q.id);
    TRM_CHECK(trmi_openai_head_read(q.body, q.body_bytes, &head));
    if (head.stream)
        return trm_fail(TRM_ERR_INVALID_ARG, "stream is true: a batch does not stream");
    TRM_CHECK(trmi_openai_resolve(t->f->g->hub, wire.kind, head.model, name, &wire.version));
    wire.priority = head.priority_given ? head.priority : BATCH_PRIORITY;
    wire.body = q.body;
    wire.body_bytes = q.body_bytes;
    TRM_CHECK(trm_hub_submit(t->f->g->hub, &request, &item->id));
    if (l->at - r->released >= RELEASE_BYTES) {
        size_t offset = (size_t)(r->text - (const char *)trm_file_data(r->file));

        trm_file_release(r->file, offset + r->released, l->at - r->released);
        r->released = l->at;
    }
    return TRM_OK;
}

/* Submits the next line that waits; false: none now. */
bool trmi_batch_submit_next(trmi_batches *t, trmi_batch_run *r, int64_t now)
{
    trmi_batch_item *item;
    trm_status st;

    while (r->next < r->count && r->lines[r->next].state != TRMI_LINE_WAITING)
        r->next++;
    if (r->phase != TRMI_BATCH_RUNNING || r->next == r->count || now < r->retry_at)
        return false;
    item = trm_calloc(1, sizeof(*item));
    if (item == NULL) {
        r->retry_at = now + TRMI_BATCH_RETRY_US;
        return false;
    }
    item->f = t->f;
    item->run = r;
    item->line = r->next;
    r->lines[r->next].state = TRMI_LINE_UNDER_WAY; /* it may be answered at once */
    r->under_way++;
    t->items[t->item_count++] = item;
    st = hand_over(t, r, item);
    if (st == TRM_OK) {
        r->refused_since = 0;
        r->next++;
        return true;
    }
    t->item_count--;
    r->under_way--;
    r->lines[r->next].state = TRMI_LINE_WAITING;
    if (st == TRM_ERR_COMM || st == TRM_ERR_TIMEOUT || st == TRM_ERR_NO_MEMORY) {
        if (r->refused_since == 0)
            r->refused_since = now;
        if (draining(t) || now - r->refused_since < trm_scaled_ms(GIVE_UP_MS) * 1000) {
            r->retry_at = now + TRMI_BATCH_RETRY_US;
            item_free(item);
            return false;
        }
    }
    line_failed(r, r->next, trmi_openai_submit_status(st), item->tag, st, trm_message());
    item_free(item);
    return true;
}
