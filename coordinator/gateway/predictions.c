/* TorchServe's way: an image, or one record of numbers, for which labels with probabilities are
 * answered. */
#include "coordinator/gateway/v2_impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define TOP_USUAL 5

struct prediction {
    int top; /* or fewer, where the model gives fewer: a replica sends 20 and over */
};

static void ping(void *ctx, trm_http_exchange *x)
{
    trm_gateway *g = ctx;
    trm_hub_info info = {0};
    bool well = false;

    if (trm_hub_get_info(g->hub, &info) == TRM_OK) {
        well = info.ready;
        trm_hub_info_fini(&info);
    }
    trm_http_answer_json(x, well ? 200 : 503,
                         json_pack("{s:s}", "status", well ? "Healthy" : "Unhealthy"));
}

/* ---- the answer ---- */

static bool same_text(const trm_wire_label *a, const trm_wire_label *b)
{
    return strcmp(a->text == NULL ? "" : a->text, b->text == NULL ? "" : b->text) == 0;
}

/* A class without a label is its index; two classes of one name keep apart by it. */
static void put_name(trmi_text *t, const trm_wire_label *labels, int i)
{
    const trm_wire_label *l = &labels[i];
    bool named = l->text != NULL && l->text[0] != '\0', again = false;
    char index[32], *name;

    for (int k = 0; k < i && named; k++)
        again = again || same_text(&labels[k], l);
    snprintf(index, sizeof(index), "%" PRId32, l->index);
    if (!named) {
        trmi_text_string(t, index, strlen(index));
    } else if (!again) {
        trmi_text_string(t, l->text, strlen(l->text));
    } else {
        size_t bytes = strlen(l->text) + sizeof(index) + 4;

        name = trm_malloc(bytes, 1);
        if (name == NULL) {
            t->failed = true;
            return;
        }
        snprintf(name, bytes, "%s (%s)", l->text, index);
        trmi_text_string(t, name, strlen(name));
        trm_free(name);
    }
}

static void answered(trmi_call *c, const trm_wire_answer *answer)
{
    const struct prediction *p = c->user;
    int n = answer->label_count;
    trmi_text t = {0};

    if (answer->status != TRM_OK) {
        trmi_gateway_fail(c->x, answer->status, answer->message);
        return;
    }
    if (p->top < n)
        n = p->top;
    trmi_text_put(&t, "{");
    for (int i = 0; i < n; i++) {
        trmi_text_put(&t, i > 0 ? "," : "");
        put_name(&t, answer->labels, i);
        trmi_text_put(&t, ":");
        trmi_text_f32(&t, answer->labels[i].score);
    }
    trmi_text_put(&t, "}");
    if (t.failed) {
        trmi_text_fini(&t);
        trmi_gateway_fail(c->x, TRM_ERR_NO_MEMORY, "no memory for a response");
        return;
    }
    trm_http_answer_take(c->x, 200, "application/json", t.data, t.bytes);
}

/* ---- the request ---- */

static bool is_type(const char *type, const char *want)
{
    size_t n = strlen(want);

    return type != NULL && strncasecmp(type, want, n) == 0 &&
           (type[n] == '\0' || type[n] == ';' || type[n] == ' ' || want[n - 1] == '/');
}

static trm_status from_multipart(trm_http_exchange *x, const char *type, trm_arena *arena,
                                 const void **image, size_t *bytes)
{
    const trm_http_part *parts = NULL;
    int n = 0;

    TRM_CHECK(trm_http_multipart(type, *image, *bytes, arena, &parts, &n));
    for (int i = 0; i < n; i++) {
        if (strcmp(parts[i].name, "data") != 0 && strcmp(parts[i].name, "body") != 0)
            continue;
        *image = parts[i].data;
        *bytes = parts[i].bytes;
        return TRM_OK;
    }
    (void)x;
    return trm_fail(TRM_ERR_INVALID_ARG, "no part \"data\" in the form");
}

/* {"data": record} or {"instances": [record]}: the one tensor of a model with one input. */
static trm_status from_json(const char *body, size_t bytes, trm_arena *arena, trm_wire_tensor *t)
{
    trmi_lists lists = {0};
    const json_t *data, *instances;
    const trmi_list *list;
    size_t size = 0;
    trm_status st;

    TRM_CHECK(trmi_lists_cut(body, bytes, TRMI_LISTS_RECORD, arena, &lists));
    data = json_object_get(lists.root, "data");
    instances = json_object_get(lists.root, "instances");
    list = trmi_lists_of(&lists, data != NULL ? data : instances);
    t->name = "";
    if (list == NULL || (data != NULL && instances != NULL)) {
        st = trm_fail(
            TRM_ERR_INVALID_ARG,
            "want {\"data\": nested lists of numbers} or {\"instances\": [of one record]}");
        goto done;
    }
    TRM_TRY(st, trmi_list_measure(data != NULL ? "\"data\"" : "\"instances\"", list, &t->tensor),
            done);
    TRM_TRY(st, trm_tensor_bytes(&t->tensor, &size), done);
    t->tensor.data = trm_arena_alloc_aligned(arena, size + 1);
    if (t->tensor.data == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes for a record", size);
        goto done;
    }
    TRM_TRY(st, trmi_list_read(data != NULL ? "\"data\"" : "\"instances\"", list, &t->tensor),
            done);
    if (data == NULL) {
        if (t->tensor.dims[0] != 1) {
            st = trm_fail(TRM_ERR_INVALID_ARG,
                          "\"instances\" holds %" PRId64 " records, want one: use infer for more",
                          t->tensor.dims[0]);
            goto done;
        }
        memmove(t->tensor.dims, t->tensor.dims + 1,
                (size_t)--t->tensor.rank * sizeof(*t->tensor.dims));
    }
done:
    json_decref(lists.root);
    return st;
}

static trm_status read_top(trm_http_exchange *x, int *top_out)
{
    const char *text = trm_http_query(x, "top");
    char *end = NULL;
    long n;

    *top_out = TOP_USUAL;
    if (text == NULL)
        return TRM_OK;
    errno = 0;
    n = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || n < 1 || n > TRM_WIRE_LABELS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "top is '%.20s', want 1 to %d", text,
                        TRM_WIRE_LABELS_MAX);
    *top_out = (int)n;
    return TRM_OK;
}

/* curl -d says another type unless it is told; no picture begins so. */
static bool begins_object(const trm_wire_request *wire)
{
    return wire->body_bytes > 0 && *(const char *)wire->body == '{';
}

static trm_status read_record(trm_http_exchange *x, trm_arena *arena, trm_wire_request *wire,
                              trm_wire_tensor *tensor)
{
    const char *type = trm_http_header(x, "Content-Type");

    wire->body = trm_http_body(x, &wire->body_bytes);
    if (is_type(type, "application/json") || (!is_type(type, "image/") && begins_object(wire))) {
        TRM_CHECK(from_json(wire->body, wire->body_bytes, arena, tensor));
        wire->tensors = tensor;
        wire->tensor_count = 1;
        wire->body = "";
        wire->body_bytes = 0;
        return TRM_OK;
    }
    if (is_type(type, "multipart/form-data"))
        TRM_CHECK(from_multipart(x, type, arena, &wire->body, &wire->body_bytes));
    else if (type != NULL && !is_type(type, "image/") &&
             !is_type(type, "application/octet-stream") &&
             !is_type(type, "application/x-www-form-urlencoded")) /* what curl -d and -T say */
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Content-Type '%.60s', want an image, multipart/form-data or "
                        "application/json",
                        type);
    if (wire->body_bytes == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "no image in the body");
    return TRM_OK;
}

/* Submits; the record lies in the body and in `scratch` until then. */
static void predict_with(trmi_call *c, trm_arena *scratch, int64_t version)
{
    trm_wire_tensor tensor = {0};
    trm_wire_request wire = {.kind = TRM_REQUEST_PREDICT,
                             .model = trm_http_name(c->x, "model"),
                             .version = version,
                             .tag = ""};
    struct prediction *p = trm_arena_alloc(c->arena, 1, sizeof(*p));
    trm_status st;

    if (p == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "no memory for a request");
        goto fail;
    }
    c->user = p;
    c->answer = answered;
    TRM_TRY(st, read_top(c->x, &p->top), fail);
    TRM_TRY(st, read_record(c->x, scratch, &wire, &tensor), fail);
    trmi_call_submit(c, &wire);
    return;

fail:
    trmi_call_fail(c, st);
}

static void predict(void *ctx, trm_http_exchange *x)
{
    trm_arena *scratch = NULL;
    int64_t version;
    trmi_call *c;

    (void)ctx;
    if (!trmi_v2_version(x, &version))
        return;
    c = trmi_call_create(x);
    if (c == NULL)
        return;
    if (trm_arena_create((size_t)8 << 10, &scratch) != TRM_OK)
        trmi_call_fail(c, TRM_ERR_NO_MEMORY);
    else
        predict_with(c, scratch, version);
    trm_arena_destroy(scratch);
}

static const trm_http_route routes[] = {
    {"GET", "/ping", ping, TRM_HTTP_OPEN | TRM_HTTP_LIGHT},
    {"POST", "/predictions/{model}", predict, 0},
    {"POST", "/predictions/{model}/{version}", predict, 0},
    {"PUT", "/predictions/{model}", predict, 0}, /* curl -T, as TorchServe's pages show it */
    {"PUT", "/predictions/{model}/{version}", predict, 0},
};

trmi_routes trmi_predictions_routes(void)
{
    return (trmi_routes){routes, (int)(sizeof(routes) / sizeof(*routes))};
}
