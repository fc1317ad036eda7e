/* Model-local functions. A call is replaced by the function's nodes: inputs and outputs stand for
 * the call's, inner names get a prefix. Calls nest to TRMI_DEPTH_MAX (so recursion ends there), and
 * all calls together make at most TRMI_INLINED_MAX nodes. */
#include "model/onnx/onnx_impl.h"

#include <stdio.h>
#include <string.h>

enum { F_NAME = 1, F_INPUT = 4, F_OUTPUT = 5, F_NODE = 7, F_OPSET = 9, F_DOMAIN = 10 };
enum { F_DEFAULT = 11, F_OVERLOAD = 13, M_FUNCTIONS = 25 };

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "onnx function");
}

static trm_status count_parts(const trmi_import *im, trmi_bytes message, uint32_t field,
                              size_t *count_out)
{
    trmi_pb r = trmi_pb_make(message, im->base, "FunctionProto");
    bool more;

    *count_out = 0;
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            return TRM_OK;
        *count_out += r.field == field;
    }
}

static trm_status alloc_parts(trmi_import *im, trmi_bytes message, trmi_function *f)
{
    size_t inputs, outputs, defaults;

    TRM_CHECK(count_parts(im, message, F_INPUT, &inputs));
    TRM_CHECK(count_parts(im, message, F_OUTPUT, &outputs));
    TRM_CHECK(count_parts(im, message, F_DEFAULT, &defaults));
    f->inputs = (const char **)trm_arena_alloc(im->scratch, inputs + 1, sizeof(char *));
    f->outputs = (const char **)trm_arena_alloc(im->scratch, outputs + 1, sizeof(char *));
    f->defaults =
        (trmi_attribute *)trm_arena_alloc(im->scratch, defaults + 1, sizeof(trmi_attribute));
    return f->inputs == NULL || f->outputs == NULL || f->defaults == NULL ? no_memory() : TRM_OK;
}

static trm_status parse_function(trmi_import *im, trmi_bytes message, trmi_function *f)
{
    trmi_pb r = trmi_pb_make(message, im->base, "FunctionProto");
    bool more;

    f->domain = f->name = f->overload = "";
    f->message = message;
    TRM_CHECK(alloc_parts(im, message, f));
    for (;;) {
        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            break;
        switch (r.field) {
        case F_NAME:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &f->name));
            break;
        case F_DOMAIN:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &f->domain));
            break;
        case F_OVERLOAD:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &f->overload));
            break;
        case F_INPUT:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &f->inputs[f->input_count++]));
            break;
        case F_OUTPUT:
            TRM_CHECK(trmi_pb_string(&r, im->scratch, &f->outputs[f->output_count++]));
            break;
        case F_DEFAULT:
            TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
            TRM_CHECK(trmi_attribute_parse(im, r.bytes, &f->defaults[f->default_count++]));
            break;
        default:
            break;
        }
    }
    if (strcmp(f->domain, "ai.onnx") == 0)
        f->domain = "";
    return trmi_opsets_parse(im, message, F_OPSET, &f->opsets);
}

static char *function_key(trm_arena *arena, const char *domain, const char *name,
                          const char *overload)
{
    size_t bytes = strlen(domain) + strlen(name) + strlen(overload) + 3;
    char *key = (char *)trm_arena_alloc(arena, bytes, 1);

    if (key != NULL)
        snprintf(key, bytes, "%s:%s:%s", domain, name, overload);
    return key;
}

trm_status trmi_functions_parse(trmi_import *im, trmi_bytes model)
{
    trmi_pb r = trmi_pb_make(model, im->base, "ModelProto");
    size_t count;
    bool more;

    TRM_CHECK(count_parts(im, model, M_FUNCTIONS, &count));
    im->functions = (trmi_function *)trm_arena_alloc(im->scratch, count + 1, sizeof(trmi_function));
    if (im->functions == NULL)
        return no_memory();
    for (;;) {
        trmi_function *f = &im->functions[im->function_count];
        const char *key;

        TRM_CHECK(trmi_pb_next(&r, &more));
        if (!more)
            return TRM_OK;
        if (r.field != M_FUNCTIONS)
            continue;
        TRM_CHECK(trmi_pb_want(&r, TRMI_PB_BYTES));
        TRM_CHECK(parse_function(im, r.bytes, f));
        key = function_key(im->scratch, f->domain, f->name, f->overload);
        if (key == NULL)
            return no_memory();
        if (trm_names_find(&im->function_names, key) >= 0)
            return trm_fail(TRM_ERR_BAD_FILE, "function '%s' of domain '%s' is defined twice",
                            f->name, f->domain);
        TRM_CHECK(trm_names_put(&im->function_names, im->scratch, key, im->function_count++));
    }
}

const trmi_function *trmi_function_find(const trmi_import *im, const trmi_node *node)
{
    const char *key;
    int i;

    if (im->function_count == 0)
        return NULL;
    key = function_key(im->scratch, node->domain, node->op, node->overload);
    i = key == NULL ? -1 : trm_names_find(&im->function_names, key);
    return i < 0 ? NULL : &im->functions[i];
}

static trm_status bind(trmi_scope *caller, trmi_scope *s, const char *text)
{
    const trmi_node *call = s->call;
    const trmi_function *f = s->function;
    int value;

    for (int i = 0; i < f->input_count; i++) {
        value = TRM_NO_VALUE;
        if (i < call->input_count)
            TRM_CHECK(trmi_scope_find(caller, call->inputs[i], text, &value));
        if (trm_names_find(&s->visible, f->inputs[i]) != -1)
            return trm_fail(TRM_ERR_BAD_FILE, "function '%s' names two inputs '%s'", f->name,
                            f->inputs[i]);
        TRM_CHECK(trm_names_put(&s->visible, s->im->scratch, f->inputs[i],
                                value == TRM_NO_VALUE ? TRMI_ABSENT : value));
    }
    for (int i = 0; i < f->output_count && i < call->output_count; i++) {
        if (call->outputs[i][0] == '\0')
            continue;
        TRM_CHECK(trmi_scope_find(caller, call->outputs[i], text, &value));
        if (trm_names_find(&s->bound, f->outputs[i]) != -1)
            return trm_fail(TRM_ERR_BAD_FILE, "function '%s' names two outputs '%s'", f->name,
                            f->outputs[i]);
        TRM_CHECK(trm_names_put(&s->bound, s->im->scratch, f->outputs[i], value));
    }
    return TRM_OK;
}

/* An output that is an input or a constant of the function: no inner node makes the call's value.
 */
static trm_status pass_through(trmi_scope *s, const char *text)
{
    const trmi_function *f = s->function;
    int value;

    for (int i = 0; i < f->output_count && i < s->call->output_count; i++) {
        int want = trm_names_find(&s->bound, f->outputs[i]);

        if (s->call->outputs[i][0] == '\0' || want < 0)
            continue;
        TRM_CHECK(trmi_scope_find(s, f->outputs[i], text, &value));
        if (value == TRM_NO_VALUE)
            return trm_fail(TRM_ERR_BAD_FILE, "%s: output '%s' is an input that the call lacks",
                            text, f->outputs[i]);
        if (value != want)
            TRM_CHECK(trm_graph_add_node(s->body->g, TRM_OP_Identity, s->call->name, &value, 1,
                                         &want, 1, NULL));
    }
    return TRM_OK;
}

trm_status trmi_function_inline(trmi_scope *caller, const trmi_node *call, const trmi_function *f)
{
    trmi_import *im = caller->im;
    char text[TRMI_NODE_TEXT_BYTES];
    trmi_scope s;
    char *prefix;
    size_t nodes, bytes;

    trmi_node_text(call, trmi_opset_of(caller, call->domain), text, sizeof(text));
    if (caller->depth >= TRMI_DEPTH_MAX)
        return trm_fail(TRM_ERR_BAD_FILE, "%s: bodies and functions nest deeper than %d", text,
                        TRMI_DEPTH_MAX);
    if (call->input_count > f->input_count || call->output_count > f->output_count)
        return trm_fail(TRM_ERR_BAD_FILE, "%s has %d inputs and %d outputs, its function %d and %d",
                        text, call->input_count, call->output_count, f->input_count,
                        f->output_count);
    TRM_CHECK(count_parts(im, f->message, F_NODE, &nodes));
    if (nodes > (size_t)(TRMI_INLINED_MAX - im->inlined))
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s: functions expand to more than %d nodes", text,
                        TRMI_INLINED_MAX);
    im->inlined += (int)nodes;
    memset(&s, 0, sizeof(s));
    s.im = im;
    s.body = caller->body;
    s.opsets = &f->opsets;
    s.call = call;
    s.function = f;
    s.depth = caller->depth + 1;
    bytes = strlen(caller->prefix) + strlen(call->op) + 32;
    prefix = (char *)trm_arena_alloc(im->scratch, bytes, 1);
    if (prefix == NULL)
        return no_memory();
    snprintf(prefix, bytes, "%s%s_%d/", caller->prefix, call->op, im->calls++);
    s.prefix = prefix;
    TRM_CHECK(bind(caller, &s, text));
    TRM_CHECK(trmi_nodes_declare(&s, f->message, F_NODE));
    TRM_CHECK(trmi_nodes_add(&s, f->message, F_NODE));
    return pass_through(&s, text);
}
