/* The Open Inference Protocol v2, as KServe and Triton document it: health, the server, infer.
 *   v2_tensors.c   a body to tensors, over lists.c       v2_answer.c    outputs to a body
 *   v2_models.c    metadata, configuration, statistics   v2_generate.c  language models
 *   repository.c   load and unload
 * Extensions: binary tensors, classification, priority and timeout, statistics, generate. */
#include "coordinator/gateway/v2_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LONG_JSON_BYTES ((size_t)64 << 10) /* some 30 ns a number: well under a millisecond */

static void server(void *ctx, trm_http_exchange *x)
{
    static const char *const extensions[] = {
        "binary_tensor_data",  "classification",   "generate",
        "model_configuration", "model_repository", "model_repository(unload_dependents)",
        "parameters",          "schedule_policy",  "statistics"};
    const trm_gateway *g = ctx;
    json_t *list = json_array();

    for (size_t i = 0; i < sizeof(extensions) / sizeof(*extensions); i++)
        json_array_append_new(list, json_string(extensions[i]));
    trm_http_answer_json(x, 200,
                         json_pack("{s:s,s:s,s:o}", "name", "trireme", "version",
                                   g->options.version == NULL ? "" : g->options.version,
                                   "extensions", list));
}

static void live(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    trm_http_answer_json(x, 200, json_pack("{s:b}", "live", 1));
}

static void ready(void *ctx, trm_http_exchange *x)
{
    trm_gateway *g = ctx;
    trm_hub_info info = {0};
    bool is = false;

    if (trm_hub_get_info(g->hub, &info) == TRM_OK) {
        /* relaxed: the flag carries nothing else */
        is = info.ready && !info.draining && !__atomic_load_n(&g->draining, __ATOMIC_RELAXED);
        trm_hub_info_fini(&info);
    }
    trm_http_answer_json(x, is ? 200 : 503, json_pack("{s:b}", "ready", is));
}

/* ---- infer ---- */

/* Bytes of JSON at the body's head. */
static trm_status header_bytes(trm_http_exchange *x, size_t bytes, size_t *header_out)
{
    const char *text = trm_http_header(x, "Inference-Header-Content-Length");
    char *end = NULL;
    long long n;

    *header_out = bytes;
    if (text == NULL)
        return TRM_OK;
    errno = 0;
    n = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || n < 1 || (unsigned long long)n > bytes)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Inference-Header-Content-Length is '%.20s', want 1 to %zu, the body's "
                        "bytes",
                        text, bytes);
    *header_out = (size_t)n;
    return TRM_OK;
}

/* An answer that is printed later, by the gateway's worker. */
struct printing {
    trmi_work_item item; /* first */
    trmi_call *c;
    trm_wire_answer *answer;
};

static void print(trmi_work_item *item)
{
    struct printing *p = (struct printing *)item;
    trmi_call *c = p->c;

    trmi_v2_answer(c->x, c->user, p->answer);
    trmi_call_unref(c); /* with p */
}

static void answered(trmi_call *c, const trm_wire_answer *answer)
{
    struct printing *p = NULL;

    if (trmi_v2_answer_is_long(c->user, answer))
        p = trm_arena_alloc(c->arena, 1, sizeof(*p));
    if (p != NULL)
        p->answer = trmi_v2_answer_copy(c->arena, answer);
    if (p == NULL || p->answer == NULL) {
        trmi_v2_answer(c->x, c->user, answer);
        return;
    }
    p->item.run = print;
    p->c = c;
    trmi_call_ref(c);
    trmi_work_add(c->g->work, &p->item);
}

/* What the answer needs of the request, which goes before. */
static trm_status keep_form(trmi_call *c, const trmi_v2_request *r)
{
    trmi_v2_form *form = trm_arena_alloc(c->arena, 1, sizeof(*form));
    trmi_v2_output *outputs = NULL;

    if (form == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "no memory for a request");
    form->binary = r->binary;
    form->output_count = r->output_count;
    if (r->id != NULL)
        form->id = trm_arena_strdup(c->arena, r->id);
    if (r->outputs != NULL)
        outputs = trm_arena_alloc(c->arena, (size_t)r->output_count, sizeof(*outputs));
    if ((r->id != NULL && form->id == NULL) || (r->outputs != NULL && outputs == NULL))
        return trm_fail(TRM_ERR_NO_MEMORY, "no memory for a request");
    for (int i = 0; outputs != NULL && i < r->output_count; i++) {
        outputs[i] = r->outputs[i];
        outputs[i].name = trm_arena_strdup(c->arena, r->outputs[i].name);
        if (outputs[i].name == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "no memory for a request");
    }
    form->outputs = outputs;
    c->user = form;
    c->answer = answered;
    return TRM_OK;
}

/* "" or {"outputs": [names], "classification": {name: count}} into `t` (base/wire_serve.h). */
static void put_outputs(trmi_text *t, const trmi_v2_request *r)
{
    if (r->outputs == NULL)
        return;
    trmi_text_put(t, "{\"outputs\":[");
    for (int i = 0; i < r->output_count; i++) {
        trmi_text_put(t, i > 0 ? "," : "");
        trmi_text_string(t, r->outputs[i].name, strlen(r->outputs[i].name));
    }
    trmi_text_put(t, "]");
    for (int i = 0; i < r->output_count; i++) {
        if (r->outputs[i].classes == 0)
            continue;
        trmi_text_put(t, ",\"classification\":{");
        trmi_text_string(t, r->outputs[i].name, strlen(r->outputs[i].name));
        trmi_text_print(t, ":%d}", r->outputs[i].classes);
    }
    trmi_text_put(t, "}");
}

static void submit(trm_http_exchange *x, const trmi_v2_request *r, int64_t version)
{
    trm_wire_request wire = {.kind = TRM_REQUEST_INFER,
                             .model = trm_http_name(x, "model"),
                             .version = version,
                             .priority = r->priority,
                             .deadline_ms = r->deadline_ms,
                             .tag = "",
                             .tensors = r->tensors,
                             .tensor_count = r->tensor_count};
    trmi_call *c = trmi_call_create(x);
    trmi_text body = {0};
    trm_status st;

    if (c == NULL)
        return;
    put_outputs(&body, r);
    st = body.failed ? trm_fail(TRM_ERR_NO_MEMORY, "no memory for a request") : keep_form(c, r);
    wire.body = body.data == NULL ? "" : body.data;
    wire.body_bytes = body.bytes;
    if (st == TRM_OK)
        trmi_call_submit(c, &wire);
    else
        trmi_call_fail(c, st);
    trmi_text_fini(&body);
}

static void infer_now(trm_http_exchange *x)
{
    trmi_v2_request r = {0};
    trm_arena *arena = NULL;
    size_t bytes = 0, header = 0;
    const char *body = NULL;
    void *owned = NULL;
    int64_t version;
    trm_status st;

    if (!trmi_v2_version(x, &version))
        return;
    TRM_TRY(st, trmi_body_unpack(x, &body, &bytes, &owned), done);
    TRM_TRY(st, header_bytes(x, bytes, &header), done);
    TRM_TRY(st, trm_arena_create((size_t)16 << 10, &arena), done);
    TRM_TRY(st, trmi_v2_read(body, header, bytes, arena, &r), done);
    if (r.text_count > 0)
        trmi_v2_generate(x, &r);
    else
        submit(x, &r, version);
done:
    if (st != TRM_OK)
        trmi_gateway_fail(x, st, trm_message());
    trmi_v2_request_fini(&r);
    trm_arena_destroy(arena);
    trm_free(owned);
}

/* A request that is read later, by the gateway's worker. */
struct reading {
    trmi_work_item item; /* first */
    trm_http_exchange *x;
};

static void read_later(trmi_work_item *item)
{
    struct reading *r = (struct reading *)item;

    infer_now(r->x);
    trm_free(r);
}

/* Much JSON, or a packed body, would keep the server's thread from its other connections. */
static bool reads_long(trm_http_exchange *x)
{
    const char *text = trm_http_header(x, "Inference-Header-Content-Length");
    size_t bytes = 0;

    (void)trm_http_body(x, &bytes);
    if (text != NULL && strtoull(text, NULL, 10) < bytes)
        bytes = (size_t)strtoull(text, NULL, 10);
    return bytes > LONG_JSON_BYTES || trm_http_header(x, "Content-Encoding") != NULL;
}

static void infer(void *ctx, trm_http_exchange *x)
{
    trm_gateway *g = ctx;
    struct reading *r = reads_long(x) ? trm_calloc(1, sizeof(*r)) : NULL;

    if (r == NULL) {
        infer_now(x);
        return;
    }
    r->item.run = read_later;
    r->x = x;
    trmi_work_add(g->work, &r->item);
}

static const trm_http_route server_routes[] = {
    {"GET", "/v2", server, 0},
    {"GET", "/v2/health/live", live, TRM_HTTP_OPEN | TRM_HTTP_LIGHT},
    {"GET", "/v2/health/ready", ready, TRM_HTTP_OPEN | TRM_HTTP_LIGHT},
    {"POST", "/v2/models/{model}/infer", infer, 0},
    {"POST", "/v2/models/{model}/versions/{version}/infer", infer, 0},
};

#define SERVER_ROUTES ((int)(sizeof(server_routes) / sizeof(*server_routes)))
#define ROUTES_MAX 32

trmi_routes trmi_inference_v2_routes(void)
{
    /* written once, before any thread of the gateway: the same rows each time */
    static trm_http_route all[ROUTES_MAX];
    int n = 0;

    for (int i = 0; i < SERVER_ROUTES; i++)
        all[n++] = server_routes[i];
    for (int i = 0; i < trmi_v2_model_route_count && n < ROUTES_MAX; i++)
        all[n++] = trmi_v2_model_routes[i];
    for (int i = 0; i < trmi_v2_generate_route_count && n < ROUTES_MAX; i++)
        all[n++] = trmi_v2_generate_routes[i];
    return (trmi_routes){all, n};
}
