/* Language models: Triton's generate and generate_stream, and infer with a text. All become a
 * request of OpenAI's completions, whose answers are told in v2's words. */
#include "coordinator/gateway/v2_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct generation {
    bool stream;
    bool begun;         /* the stream's head is out */
    int64_t version;    /* that a stream tells */
    trmi_v2_form *form; /* infer; NULL: generate */
    int rank;           /* infer: of the text's shape */
};

/* Names of other servers' parameters. `to` NULL: without meaning here. */
static const struct renamed {
    const char *from, *to;
} renamed[] = {
    {"stream", NULL},
    {"random_seed", "seed"},
    {"stop_words", "stop"},
    {"output_len", "max_tokens"},
    {"request_output_len", "max_tokens"},
    {"runtime_top_k", "top_k"},
    {"runtime_top_p", "top_p"},
    {"end_id", NULL},
    {"pad_id", NULL},
    {"priority", NULL},
    {"timeout", NULL},
    {"binary_data_output", NULL},
    {"sequence_id", NULL},
    {"sequence_start", NULL},
    {"sequence_end", NULL},
    {"model", NULL},
    {"text_input", NULL},
    {"parameters", NULL},
    {"id", NULL},
};

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "no memory for a request");
}

/* What the replica does not know it refuses by name. */
static trm_status set_parameter(json_t *body, const char *name, json_t *value)
{
    if (strcmp(name, "exclude_input_in_output") == 0)
        return json_object_set_new(body, "echo", json_boolean(json_is_false(value))) == 0
                   ? TRM_OK
                   : no_memory();
    if (strcmp(name, "beam_width") == 0) {
        if (json_is_integer(value) && json_integer_value(value) == 1)
            return TRM_OK;
        return trm_fail(TRM_ERR_UNSUPPORTED, "'beam_width': beam search is not supported");
    }
    if (strcmp(name, "prompt") == 0 || strcmp(name, "stream_options") == 0 ||
        strcmp(name, "n") == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s' is no parameter of generate", name);
    for (size_t i = 0; i < sizeof(renamed) / sizeof(*renamed); i++) {
        if (strcmp(name, renamed[i].from) != 0)
            continue;
        if (renamed[i].to == NULL)
            return TRM_OK;
        name = renamed[i].to;
        break;
    }
    return json_object_set(body, name, value) == 0 ? TRM_OK : no_memory();
}

static trm_status set_parameters(json_t *body, const json_t *from)
{
    const char *name;
    json_t *value;

    if (from != NULL && !json_is_object(from))
        return trm_fail(TRM_ERR_INVALID_ARG, "\"parameters\" wants an object");
    json_object_foreach((json_t *)(uintptr_t)from, name, value)
    {
        TRM_CHECK(set_parameter(body, name, value));
    }
    return TRM_OK;
}

/* {"model", "prompt", "stream"}; a new reference, NULL: no memory. */
static json_t *new_body(trm_http_exchange *x, const char *text, bool stream)
{
    return json_pack("{s:s,s:s,s:b}", "model", trm_http_name(x, "model"), "prompt", text, "stream",
                     stream);
}

/* ---- answers ---- */

/* The text of the first choice of a completion or of a chunk; NULL: it has none. */
static const char *text_of(const json_t *o, size_t *bytes_out)
{
    const json_t *text = json_object_get(json_array_get(json_object_get(o, "choices"), 0), "text");

    *bytes_out = json_string_length(text);
    return json_string_value(text);
}

static void put_generated(trmi_text *t, const char *model, int64_t version, const char *text,
                          size_t bytes)
{
    trmi_text_put(t, "{\"model_name\":");
    trmi_text_string(t, model, strlen(model));
    trmi_text_print(t, ",\"model_version\":\"%" PRId64 "\",\"text_output\":", version);
    trmi_text_string(t, text, bytes);
    trmi_text_put(t, "}");
}

static void take(trm_http_exchange *x, trmi_text *t)
{
    if (t->failed) {
        trmi_text_fini(t);
        trmi_gateway_fail(x, TRM_ERR_NO_MEMORY, "no memory for a response");
    } else {
        trm_http_answer_take(x, 200, "application/json", t->data, t->bytes);
    }
}

/* infer: the text as an output tensor. */
static void answer_infer(trmi_call *c, const struct generation *g, const trm_wire_answer *answer,
                         const char *text, size_t bytes)
{
    const trmi_v2_form *form = g->form;
    bool binary = form->outputs != NULL ? form->outputs[0].binary : form->binary;
    char number[32];
    trmi_text t = {0};
    size_t header;

    trmi_text_put(&t, "{");
    if (form->id != NULL) {
        trmi_text_put(&t, "\"id\":");
        trmi_text_string(&t, form->id, strlen(form->id));
        trmi_text_put(&t, ",");
    }
    trmi_text_put(&t, "\"model_name\":");
    trmi_text_string(&t, answer->model, strlen(answer->model));
    trmi_text_print(&t,
                    ",\"model_version\":\"%" PRId64
                    "\",\"outputs\":[{\"name\":\"text_output\",\"datatype\":\"BYTES\",\"shape\":[",
                    answer->version);
    for (int i = 0; i < g->rank; i++)
        trmi_text_put(&t, i > 0 ? ",1" : "1");
    if (!binary) {
        trmi_text_put(&t, "],\"data\":[");
        trmi_text_string(&t, text, bytes);
        trmi_text_put(&t, "]}]}");
        take(c->x, &t);
        return;
    }
    trmi_text_print(&t, "],\"parameters\":{\"binary_data_size\":%zu}}]}", bytes + 4);
    header = t.bytes;
    for (int i = 0; i < 4; i++) {
        unsigned char byte = (unsigned char)(bytes >> 8 * i);

        trmi_text_add(&t, &byte, 1);
    }
    trmi_text_add(&t, text, bytes);
    if (!t.failed) {
        snprintf(number, sizeof(number), "%zu", header);
        trm_http_set_header(c->x, "Inference-Header-Content-Length", number);
        trm_http_answer_take(c->x, 200, "application/octet-stream", t.data, t.bytes);
        return;
    }
    take(c->x, &t);
}

static void answered(trmi_call *c, const trm_wire_answer *answer)
{
    const struct generation *g = c->user;
    const char *text = NULL;
    size_t bytes = 0;
    trmi_text t = {0};
    json_t *o = NULL;

    if (answer->status != TRM_OK) {
        trmi_gateway_fail(c->x, answer->status, answer->message);
        return;
    }
    if (answer->body_bytes > 0)
        o = json_loadb(answer->body, answer->body_bytes, JSON_ALLOW_NUL, NULL);
    text = text_of(o, &bytes);
    if (text == NULL) {
        trmi_gateway_fail(c->x, TRM_ERR_INTERNAL, "the answer has no text");
    } else if (g->form != NULL) {
        answer_infer(c, g, answer, text, bytes);
    } else {
        put_generated(&t, answer->model, answer->version, text, bytes);
        take(c->x, &t);
    }
    json_decref(o);
}

/* ---- streams ---- */

static void send_event(trmi_call *c, trmi_text *t)
{
    struct generation *g = c->user;

    if (!g->begun)
        trm_http_stream_begin(c->x, 200, "text/event-stream; charset=utf-8");
    g->begun = true;
    trmi_text_put(t, "\n\n");
    if (t->failed || !trm_http_stream_write(c->x, t->data, t->bytes))
        trmi_call_cancel(c); /* the client is gone, or nothing more can be told */
}

/* Every line that has text becomes an event. */
static void streamed(trmi_call *c, const trm_wire_part *part)
{
    const char *p = part->body, *end = p + part->body_bytes;
    const char *model = trm_http_name(c->x, "model");

    while (p != NULL && p < end) {
        const char *line_end = memchr(p, '\n', (size_t)(end - p)), *text;
        size_t n = (size_t)((line_end == NULL ? end : line_end) - p), bytes = 0;
        json_t *o = n > 0 ? json_loadb(p, n, JSON_ALLOW_NUL, NULL) : NULL;
        trmi_text t = {0};

        text = text_of(o, &bytes);
        if (text != NULL && bytes > 0) {
            trmi_text_put(&t, "data: ");
            put_generated(&t, model, ((struct generation *)c->user)->version, text, bytes);
            send_event(c, &t);
            trmi_text_fini(&t);
        }
        json_decref(o);
        p = line_end == NULL ? NULL : line_end + 1;
    }
}

static void stream_ended(trmi_call *c, const trm_wire_answer *answer)
{
    struct generation *g = c->user;
    trmi_text t = {0};

    if (answer->status != TRM_OK && !g->begun) {
        trmi_gateway_fail(c->x, answer->status, answer->message);
        return;
    }
    if (answer->status != TRM_OK) {
        char *error = trmi_v2_error(0, answer->message);

        trmi_text_put(&t, "data: ");
        trmi_text_put(&t, error == NULL ? "{}" : error);
        send_event(c, &t);
        trm_free(error);
    } else if (!g->begun) { /* no text at all */
        trmi_text_put(&t, "data: ");
        put_generated(&t, answer->model, answer->version, "", 0);
        send_event(c, &t);
    }
    trmi_text_fini(&t);
    trm_http_stream_end(c->x);
}

/* ---- requests ---- */

/* Takes `body` over. */
static void run(trmi_call *c, json_t *body, const trmi_v2_request *r, int64_t version)
{
    struct generation *g = c->user;
    trm_wire_request wire = {.kind = TRM_REQUEST_COMPLETIONS,
                             .model = trm_http_name(c->x, "model"),
                             .version = version,
                             .stream = g->stream,
                             .tag = ""};
    char *text = json_dumps(body, JSON_COMPACT);

    json_decref(body);
    if (r != NULL) {
        wire.priority = r->priority;
        wire.deadline_ms = r->deadline_ms;
    }
    if (text == NULL) {
        trmi_call_fail(c, no_memory());
        return;
    }
    wire.body = text;
    wire.body_bytes = strlen(text);
    c->answer = g->stream ? stream_ended : answered;
    c->part = g->stream ? streamed : NULL;
    trmi_call_submit(c, &wire);
    free(text); /* jansson's */
}

/* Parts do not say which version they are of. */
static int64_t newest(trm_http_exchange *x)
{
    trm_gateway *g = trm_http_ctx(x);
    trm_hub_model_info info = {0};

    if (trm_hub_find_model(g->hub, trm_http_name(x, "model"), 0, &info) == TRM_OK)
        trm_free(info.metadata);
    return info.version;
}

static void generate_any(trm_http_exchange *x, bool stream)
{
    size_t bytes = 0;
    const char *data = trm_http_body(x, &bytes);
    json_error_t error;
    json_t *o = NULL, *text, *body = NULL;
    struct generation *g;
    int64_t version;
    trmi_call *c;
    trm_status st = TRM_OK;

    if (!trmi_v2_version(x, &version))
        return;
    c = trmi_call_create(x);
    if (c == NULL)
        return;
    c->user = g = trm_arena_alloc(c->arena, 1, sizeof(*g));
    if (g == NULL) {
        trmi_call_fail(c, no_memory());
        return;
    }
    g->stream = stream;
    if (stream)
        g->version = version > 0 ? version : newest(x);
    o = bytes > 0 ? json_loadb(data, bytes, JSON_REJECT_DUPLICATES, &error) : NULL;
    text = json_object_get(o, "text_input");
    if (o == NULL)
        st = trm_fail(TRM_ERR_INVALID_ARG, "the body is not JSON%s%.200s", bytes > 0 ? ": " : "",
                      bytes > 0 ? error.text : "");
    else if (!json_is_string(text))
        st = trm_fail(TRM_ERR_INVALID_ARG, "no \"text_input\": want a string");
    else if ((body = new_body(x, json_string_value(text), stream)) == NULL)
        st = no_memory();
    if (st == TRM_OK)
        st = set_parameters(body, o);
    if (st == TRM_OK)
        st = set_parameters(body, json_object_get(o, "parameters"));
    json_decref(o);
    if (st == TRM_OK) {
        run(c, body, NULL, version);
    } else {
        json_decref(body);
        trmi_call_fail(c, st);
    }
}

static void generate(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    generate_any(x, false);
}

static void generate_stream(void *ctx, trm_http_exchange *x)
{
    (void)ctx;
    generate_any(x, true);
}

/* ---- infer ---- */

/* Only a language model takes texts, and one of them. */
static trm_status wants_text(trm_http_exchange *x, const trmi_v2_request *r, int64_t version)
{
    trm_gateway *g = trm_http_ctx(x);
    trm_hub_model_info info = {0};
    json_t *o = NULL;
    const char *kind;
    trm_status st;

    st = trm_hub_find_model(g->hub, trm_http_name(x, "model"), version, &info);
    if (st != TRM_OK)
        return st;
    o = info.metadata == NULL ? NULL : json_loads(info.metadata, 0, NULL);
    kind = json_string_value(json_object_get(o, "kind"));
    if (kind == NULL)
        st =
            trm_fail(TRM_ERR_COMM, "model '%s' is %s", info.name, trm_model_state_name(info.state));
    else if (strcmp(kind, "generate") != 0)
        st = trm_fail(TRM_ERR_INVALID_ARG,
                      "input '%.100s' is BYTES: model '%s' takes tensors of numbers",
                      r->texts[0].name, info.name);
    else if (r->text_count != 1 || r->texts[0].count != 1)
        st = trm_fail(TRM_ERR_INVALID_ARG,
                      "input '%.100s': %d texts, want one: a request is one prompt",
                      r->texts[0].name, r->text_count != 1 ? r->text_count : r->texts[0].count);
    else if (strcmp(r->texts[0].name, "text_input") != 0)
        st = trm_fail(TRM_ERR_INVALID_ARG, "input '%.100s', want 'text_input'", r->texts[0].name);
    else if (r->output_count > 1 ||
             (r->output_count == 1 && strcmp(r->outputs[0].name, "text_output") != 0))
        st = trm_fail(TRM_ERR_INVALID_ARG, "output '%.100s': the only one is 'text_output'",
                      r->outputs[r->output_count - 1].name);
    json_decref(o);
    trm_free(info.metadata);
    return st;
}

static trm_status infer_body(trm_http_exchange *x, const trmi_v2_request *r, json_t **body_out)
{
    json_t *body = new_body(x, r->texts[0].texts[0], false);
    trm_status st;

    if (body == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "input 'text_input' is not UTF-8");
    st = set_parameters(body, r->parameters);
    for (int i = 0; i < r->tensor_count && st == TRM_OK; i++) {
        json_t *value = trmi_v2_scalar(&r->tensors[i]);

        st = value != NULL ? set_parameter(body, r->tensors[i].name, value)
                           : trm_fail(TRM_ERR_INVALID_ARG, "input '%.100s': want one number",
                                      r->tensors[i].name);
        json_decref(value);
    }
    if (st == TRM_OK)
        *body_out = body;
    else
        json_decref(body);
    return st;
}

static trm_status keep(trmi_call *c, const trmi_v2_request *r)
{
    struct generation *g = trm_arena_alloc(c->arena, 1, sizeof(*g));
    trmi_v2_form *form = trm_arena_alloc(c->arena, 1, sizeof(*form));

    if (g == NULL || form == NULL)
        return no_memory();
    form->binary = r->output_count > 0 ? r->outputs[0].binary : r->binary;
    if (r->id != NULL && (form->id = trm_arena_strdup(c->arena, r->id)) == NULL)
        return no_memory();
    g->form = form;
    g->rank = r->texts[0].rank;
    c->user = g;
    return TRM_OK;
}

void trmi_v2_generate(trm_http_exchange *x, const trmi_v2_request *r)
{
    json_t *body = NULL;
    int64_t version;
    trmi_call *c;
    trm_status st;

    if (!trmi_v2_version(x, &version))
        return;
    c = trmi_call_create(x);
    if (c == NULL)
        return;
    TRM_TRY(st, wants_text(x, r, version), fail);
    TRM_TRY(st, infer_body(x, r, &body), fail);
    TRM_TRY(st, keep(c, r), fail);
    run(c, body, r, version);
    return;

fail:
    json_decref(body);
    trmi_call_fail(c, st);
}

const trm_http_route trmi_v2_generate_routes[] = {
    {"POST", "/v2/models/{model}/generate", generate, 0},
    {"POST", "/v2/models/{model}/versions/{version}/generate", generate, 0},
    {"POST", "/v2/models/{model}/generate_stream", generate_stream, 0},
    {"POST", "/v2/models/{model}/versions/{version}/generate_stream", generate_stream, 0},
};
const int trmi_v2_generate_route_count =
    (int)(sizeof(trmi_v2_generate_routes) / sizeof(*trmi_v2_generate_routes));
