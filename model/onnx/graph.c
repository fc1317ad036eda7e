/* GraphProto: values, initializers, inputs and outputs; the bodies of control nodes. */
#include "model/onnx/onnx_impl.h"

#include <inttypes.h>
#include <string.h>

enum { G_NODE = 1, G_NAME = 2, G_INITIALIZER = 5, G_INPUT = 11, G_OUTPUT = 12 };
enum { G_VALUE_INFO = 13, G_SPARSE = 15 };

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "onnx graph");
}

typedef trm_status (*field_fn)(trmi_scope *s, const trmi_pb *r, void *ctx);

/* Calls fn on each field of one number: the parts of a graph come in any order in the file, and we
 * want them in ours. */
static trm_status each(trmi_scope *s, trmi_bytes message, uint32_t field, field_fn fn, void *ctx)
{
    trmi_pb r = trmi_pb_make(message, s->im->base, "GraphProto");
    bool more;

    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            return TRM_OK;
        if (r.field != field)
            continue;
        TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
        TRM_CHECK(fn(s, &r, ctx));
    }
}

static trm_status set_name(trmi_scope *s, const trmi_pb *r, void *ctx)
{
    (void)ctx;
    return trmi_pb_string(r, s->body->g->arena, &s->body->g->name);
}

static trm_status add_initializer(trmi_scope *s, const trmi_pb *r, void *ctx)
{
    (void)ctx;
    return trmi_scope_add_tensor(s, NULL, r->bytes);
}

static trm_status add_sparse(trmi_scope *s, const trmi_pb *r, void *ctx)
{
    (void)ctx;
    return trmi_scope_add_sparse(s, NULL, r->bytes);
}

static trm_status count_field(trmi_scope *s, const trmi_pb *r, void *ctx)
{
    (void)s;
    (void)r;
    (*(size_t *)ctx)++;
    return TRM_OK;
}

typedef struct id_list {
    int *ids;
    int count;
} id_list;

static trm_status add_input(trmi_scope *s, const trmi_pb *r, void *ctx)
{
    id_list *list = (id_list *)ctx;
    const char *name;
    trm_tensor desc;
    bool typed;
    int value;

    TRM_CHECK(trmi_value_info_parse(s->im, r->bytes, &name, &desc, &typed));
    value = trm_names_find(&s->visible, name);
    if (value >= 0 && s->body->g->values[value].desc.data != NULL)
        return TRM_OK; /* an initializer, listed as an input too as IR version 3 had it */
    if (!typed && s->outer == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "input '%s' has no type", name);
    TRM_CHECK(trmi_scope_declare(s, name, &desc, &value));
    list->ids[list->count++] = value;
    return TRM_OK;
}

/* A declared type: of a node's output, which is there by now. */
static trm_status add_info(trmi_scope *s, const trmi_pb *r, void *ctx)
{
    const char *name;
    trm_tensor desc;
    bool typed;
    int value;

    (void)ctx;
    TRM_CHECK(trmi_value_info_parse(s->im, r->bytes, &name, &desc, &typed));
    value = trm_names_find(&s->visible, name);
    if (value < 0 || s->body->g->values[value].desc.data != NULL || !typed)
        return TRM_OK;
    if (desc.rank >= 0 || s->body->g->values[value].desc.rank < 0)
        s->body->g->values[value].desc = desc;
    return TRM_OK;
}

static trm_status add_output(trmi_scope *s, const trmi_pb *r, void *ctx)
{
    id_list *list = (id_list *)ctx;
    const char *name;
    trm_tensor desc;
    bool typed;
    int value;

    TRM_CHECK(trmi_value_info_parse(s->im, r->bytes, &name, &desc, &typed));
    if (name[0] == '\0')
        return trm_fail(TRM_ERR_BAD_FILE, "graph '%s': an output has no name", s->body->g->name);
    TRM_CHECK(trmi_scope_find(s, name, "the list of graph outputs", &value));
    if (value == TRM_NO_VALUE)
        return trm_fail(TRM_ERR_BAD_FILE, "graph '%s': output '%s' is an absent function input",
                        s->body->g->name, name);
    list->ids[list->count++] = value;
    return TRM_OK;
}

static trm_status new_list(trmi_scope *s, trmi_bytes message, uint32_t field, id_list *list)
{
    size_t count = 0;

    TRM_CHECK(each(s, message, field, count_field, &count));
    list->count = 0;
    list->ids = (int *)trm_arena_alloc(s->im->scratch, count + 1, sizeof(int));
    return list->ids == NULL ? no_memory() : TRM_OK;
}

trm_status trmi_graph_fill(trmi_scope *s, trmi_bytes message)
{
    id_list inputs, outputs;

    TRM_CHECK(each(s, message, G_NAME, set_name, NULL));
    TRM_CHECK(trmi_nodes_declare(s, message, G_NODE));
    TRM_CHECK(each(s, message, G_INITIALIZER, add_initializer, NULL));
    TRM_CHECK(each(s, message, G_SPARSE, add_sparse, NULL));
    TRM_CHECK(new_list(s, message, G_INPUT, &inputs));
    TRM_CHECK(each(s, message, G_INPUT, add_input, &inputs));
    TRM_CHECK(each(s, message, G_VALUE_INFO, add_info, NULL));
    TRM_CHECK(each(s, message, G_OUTPUT, add_info, NULL));
    TRM_CHECK(trmi_nodes_add(s, message, G_NODE));
    TRM_CHECK(new_list(s, message, G_OUTPUT, &outputs));
    TRM_CHECK(each(s, message, G_OUTPUT, add_output, &outputs));
    TRM_CHECK(trm_graph_set_inputs(s->body->g, inputs.ids, inputs.count));
    return trm_graph_set_outputs(s->body->g, outputs.ids, outputs.count);
}

/* A scope and what it builds; lives while its node is imported. */
typedef struct body_import {
    trmi_scope scope;
    trmi_body body;
} body_import;

static trm_status import_body(trmi_scope *outer, trmi_bytes message, const char *name,
                              body_import *to)
{
    trmi_scope *s = &to->scope;

    memset(to, 0, sizeof(*to));
    if (outer->depth >= TRMI_DEPTH_MAX)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "graph at byte %zu: bodies and functions nest deeper than %d",
                        (size_t)(message.data - outer->im->base), TRMI_DEPTH_MAX);
    s->body = &to->body;
    s->im = outer->im;
    s->outer = outer;
    s->opsets = outer->opsets;
    s->call = outer->call;
    s->function = outer->function;
    s->prefix = "";
    s->depth = outer->depth + 1;
    TRM_CHECK(trm_graph_create(outer->body->g, name, &s->body->g));
    return trmi_graph_fill(s, message);
}

/* The operator's rules on how many inputs and outputs a body has. */
static trm_status check_body(const trmi_build *b, const char *attr, const trm_graph *body)
{
    int want_in = b->op == TRM_OP_If ? 0 : b->input_count;
    int gives = b->op == TRM_OP_Loop ? body->output_count - 1 : body->output_count;
    int states = b->op == TRM_OP_Loop ? b->input_count - 2 : 0;

    if (b->op == TRM_OP_Scan) {
        int64_t scans = trm_attr_int(&b->attrs, "num_scan_inputs", 0);

        if (scans < 1 || scans > b->input_count)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "%s: num_scan_inputs is %" PRId64 ", want 1 to the %d inputs", b->text,
                            scans, b->input_count);
        states = b->input_count - (int)scans;
    }
    if (body->input_count != want_in)
        return trm_fail(TRM_ERR_BAD_FILE, "%s: graph '%s' has %d inputs, want %d", b->text, attr,
                        body->input_count, want_in);
    if (gives < b->output_count || gives < states)
        return trm_fail(TRM_ERR_BAD_FILE, "%s: graph '%s' has %d outputs, want at least %d",
                        b->text, attr, body->output_count,
                        (b->output_count > states ? b->output_count : states) +
                            (b->op == TRM_OP_Loop ? 1 : 0));
    return TRM_OK;
}

/* Gives the body one input for each capture of the node, in the node's order. */
static trm_status add_capture_inputs(trmi_build *b, trmi_scope *s, const int *captures, int count)
{
    trm_graph *g = s->body->g;
    const trm_graph *outer = b->scope->body->g;
    size_t total = (size_t)g->input_count + (size_t)count;
    int *ids = (int *)trm_arena_alloc(s->im->scratch, total + 1, sizeof(int));
    trm_names mine = {NULL, 0, 0};

    if (ids == NULL)
        return no_memory();
    for (int i = 0; i < s->capture_count; i++)
        TRM_CHECK(trm_names_put(&mine, s->im->scratch, outer->values[s->captures[2 * i]].name,
                                s->captures[2 * i + 1]));
    if (g->input_count > 0)
        memcpy(ids, g->inputs, (size_t)g->input_count * sizeof(int));
    for (int i = 0; i < count; i++) {
        const trm_value *v = &outer->values[captures[i]];
        int *id = &ids[g->input_count + i];

        *id = trm_names_find(&mine, v->name);
        if (*id < 0) /* only the other branch reads it */
            TRM_CHECK(trmi_scope_temp(s, v->name, &v->desc, id));
    }
    return trm_graph_set_inputs(g, ids, (int)total);
}

static trm_status collect_captures(trmi_build *b, const body_import *bodies, int body_count,
                                   int **captures_out, int *count_out)
{
    const trm_graph *g = b->scope->body->g;
    trm_names seen = {NULL, 0, 0};
    int count = 0, max = 0;
    int *captures;

    for (int i = 0; i < body_count; i++)
        max += bodies[i].scope.capture_count;
    captures = (int *)trm_arena_alloc(b->scope->im->scratch, (size_t)max + 1, sizeof(int));
    if (captures == NULL)
        return no_memory();
    for (int i = 0; i < body_count; i++) {
        for (int c = 0; c < bodies[i].scope.capture_count; c++) {
            int value = bodies[i].scope.captures[2 * c];
            const char *name = g->values[value].name;

            if (trm_names_find(&seen, name) >= 0)
                continue;
            TRM_CHECK(trm_names_put(&seen, b->scope->im->scratch, name, value));
            captures[count++] = value;
        }
    }
    *captures_out = captures;
    *count_out = count;
    return TRM_OK;
}

trm_status trmi_bodies_import(trmi_build *b)
{
    static const char *const names[] = {"then_branch", "else_branch", "body"};
    int first = b->op == TRM_OP_If ? 0 : 2, end = b->op == TRM_OP_If ? 2 : 3;
    body_import bodies[2];
    int *captures = NULL;
    int count = 0;

    for (int i = first; i < end; i++) {
        const trmi_attribute *a =
            trmi_attribute_find(b->node->attrs, b->node->attr_count, names[i]);

        if (a == NULL || a->type != TRMI_ATTR_GRAPH || a->ref != NULL)
            return trm_fail(TRM_ERR_BAD_FILE, "%s: wants a graph attribute '%s'", b->text,
                            names[i]);
        TRM_CHECK(import_body(b->scope, a->message, names[i], &bodies[i - first]));
        TRM_CHECK(check_body(b, names[i], bodies[i - first].body.g));
    }
    TRM_CHECK(collect_captures(b, bodies, end - first, &captures, &count));
    for (int i = first; i < end; i++) {
        trm_attr attr = {.name = names[i], .kind = TRM_ATTR_GRAPH, .count = 1};

        TRM_CHECK(add_capture_inputs(b, &bodies[i - first].scope, captures, count));
        TRM_CHECK(trm_graph_sort(bodies[i - first].body.g));
        attr.v.graph = bodies[i - first].body.g;
        TRM_CHECK(trm_attr_set(&b->attrs, b->scope->body->g->arena, &attr));
    }
    for (int i = 0; i < count; i++)
        TRM_CHECK(trmi_build_set_input(b, b->input_count, captures[i]));
    return trm_attr_set_int(&b->attrs, b->scope->body->g->arena, "captures", count);
}
