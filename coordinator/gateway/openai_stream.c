/* A request under way: from the exchange to the hub and back. An answer is sent as it comes; a
 * stream becomes server-sent events, "data: LINE" for each line of a part, as soon as it is there.
 *
 * Two threads meet here: the server's (handler, gone) and the hub's (part, answer). The handler
 * learns the request's id only when trm_hub_submit returns, and by then it may have been answered;
 * so both hold a reference to the call. */
#include "coordinator/gateway/openai_impl.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct call {
    trm_hub *hub;
    trm_http_exchange *x; /* until it is answered: by the hub's thread, or where submit fails */
    bool stream;
    /* the hub's thread only */
    bool begun; /* the stream's 200 is out */
    char *events;
    size_t events_max;
    /* both */
    uint64_t id; /* atomic (relaxed: a number); 0: not known yet */
    bool cut;    /* atomic: a part could not be sent, or the client is gone */
    int refs;    /* atomic (release when given up, acquire by the last) */
};

static void call_unref(struct call *c)
{
    if (__atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    trm_free(c->events);
    trm_free(c);
}

/* Cancels once the id is known. Either this call or the handler sees both `cut` and the id. */
static void cancel(struct call *c)
{
    uint64_t id;

    __atomic_store_n(&c->cut, true, __ATOMIC_SEQ_CST);
    id = __atomic_load_n(&c->id, __ATOMIC_SEQ_CST);
    if (id != 0)
        trm_hub_cancel(c->hub, id);
}

static void gone(void *ctx)
{
    cancel(ctx);
}

static bool begin(struct call *c)
{
    if (!c->begun) {
        trm_http_set_header(c->x, "Cache-Control", "no-cache");
        trm_http_set_header(c->x, "X-Accel-Buffering", "no");
        trm_http_stream_begin(c->x, 200, "text/event-stream");
        c->begun = true;
    }
    return !__atomic_load_n(&c->cut, __ATOMIC_RELAXED);
}

/* Lines as events in c->events; their bytes. 0: no memory. */
static size_t format(struct call *c, const char *lines, size_t bytes)
{
    static const char head[] = "data: ";
    const char *end = lines + bytes;
    size_t want = 0, used = 0, count = 1;

    for (const char *p = lines; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++)
        count++;
    if (!trm_mul_ok(count, sizeof(head) + 2, &want) || !trm_add_ok(want, bytes, &want))
        return 0;
    if (want > c->events_max) {
        char *more = trm_realloc(c->events, want, 1);

        if (more == NULL)
            return 0;
        c->events = more;
        c->events_max = want;
    }
    while (lines < end) {
        const char *stop = memchr(lines, '\n', (size_t)(end - lines));
        size_t n = stop != NULL ? (size_t)(stop - lines) : (size_t)(end - lines);

        if (n > 0) {
            memcpy(c->events + used, head, sizeof(head) - 1);
            used += sizeof(head) - 1;
            memcpy(c->events + used, lines, n);
            used += n;
            memcpy(c->events + used, "\n\n", 2);
            used += 2;
        }
        lines += stop != NULL ? n + 1 : n;
    }
    return used;
}

static void part(void *ctx, const trm_wire_part *p)
{
    struct call *c = ctx;
    size_t n;

    if (p->body_bytes == 0 || !begin(c))
        return;
    n = format(c, p->body, p->body_bytes);
    if (n == 0 || !trm_http_stream_write(c->x, c->events, n))
        cancel(c);
}

static void end_stream(struct call *c, const trm_wire_answer *a)
{
    static const char done[] = "data: [DONE]\n\n";

    if (a->status == TRM_OK) {
        (void)begin(c); /* an answer without a part: an empty stream */
    } else {
        int http = trm_http_status_of(a->status);
        char *error =
            trmi_openai_error_of(http, trmi_openai_code(http, a->status), NULL, a->message);
        size_t n = error != NULL ? format(c, error, strlen(error)) : 0;

        if (n > 0)
            (void)trm_http_stream_write(c->x, c->events, n);
        trm_free(error);
    }
    (void)trm_http_stream_write(c->x, done, sizeof(done) - 1);
    trm_http_stream_end(c->x);
}

static void answer(void *ctx, const trm_wire_answer *a)
{
    struct call *c = ctx;

    if (c->begun || (c->stream && a->status == TRM_OK && a->body_bytes == 0)) {
        end_stream(c, a);
    } else if (a->status == TRM_OK) {
        trm_http_answer(c->x, 200, "application/json", a->body, a->body_bytes);
    } else {
        int http = trm_http_status_of(a->status);

        trmi_openai_fail(c->x, http, trmi_openai_code(http, a->status), NULL, a->message);
    }
    call_unref(c);
}

/* X-Request-Timeout: seconds, 0.001 .. 86,400. */
static trm_status read_deadline(const trm_http_exchange *x, uint32_t *ms_out)
{
    const char *text = trm_http_header(x, "X-Request-Timeout");
    char *end;
    double s;

    *ms_out = 0;
    if (text == NULL)
        return TRM_OK;
    errno = 0;
    s = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(s) || s < 0.001 || s > 86400)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "X-Request-Timeout is '%.40s', wanted seconds, 0.001 to 86400", text);
    *ms_out = (uint32_t)(s * 1000);
    return TRM_OK;
}

void trmi_openai_run(trm_gateway *g, trm_http_exchange *x, trm_request_kind kind,
                     const trmi_openai_head *head)
{
    bool stream = head->stream && (kind == TRM_REQUEST_COMPLETIONS || kind == TRM_REQUEST_CHAT);
    char name[TRMI_OPENAI_MODEL_BYTES];
    trm_wire_request wire = {.kind = kind,
                             .model = name,
                             .priority = head->priority,
                             .stream = stream,
                             .tag = trm_http_id(x)};
    trm_hub_request request = {.wire = &wire,
                               .owner = trm_http_key_name(x),
                               .part = stream ? part : NULL,
                               .answer = answer};
    struct call *c = NULL;
    uint64_t id = 0;
    int http;
    trm_status st;

    TRM_TRY(st, read_deadline(x, &wire.deadline_ms), fail);
    TRM_TRY(st, trmi_openai_resolve(g->hub, kind, head->model, name, &wire.version), fail);
    wire.body = trm_http_body(x, &wire.body_bytes);
    c = trm_calloc(1, sizeof(*c));
    if (c == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "a request");
        goto fail;
    }
    c->hub = g->hub;
    c->x = x;
    c->stream = stream;
    c->refs = 2;
    request.ctx = c;
    trm_http_on_gone(x, c, gone);
    TRM_TRY(st, trm_hub_submit(g->hub, &request, &id), fail);
    __atomic_store_n(&c->id, id, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&c->cut, __ATOMIC_SEQ_CST))
        trm_hub_cancel(g->hub, id);
    call_unref(c);
    return;

fail:
    http = trmi_openai_submit_status(st);
    trmi_openai_fail(x, http, trmi_openai_code(http, st), NULL, trm_message());
    trm_free(c); /* never shared: submit did not take it */
}
