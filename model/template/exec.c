/* Statements. A scope is made by loops (one an iteration), macros, with and captured blocks; `if`
 * has none, so that what it sets stays. */
#include "model/template/template_impl.h"

trm_status trmi_write(trmi_run *r, const char *data, size_t bytes)
{
    return trmi_append(r, r->output, data, bytes);
}

trm_status trmi_capture(trmi_run *r, const trmi_body *body, trmi_value *out)
{
    trmi_output text = {NULL, 0, 0}, *before = r->output;
    trm_status st;

    r->output = &text;
    st = trmi_exec(r, body);
    r->output = before;
    return trmi_take(r, st, &text, out);
}

static trm_status assign_tuple(trmi_run *r, const trmi_node *target, trmi_value value)
{
    trmi_value list;

    if (value.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, value);
    if (trmi_to_list(r, value, TRMI_V_LIST, &list) != TRM_OK)
        return trm_fail(TRM_ERR_INVALID_ARG, "cannot unpack non-iterable %s object",
                        trmi_type_name(value));
    if (list.as.list->count != target->count)
        return trm_fail(TRM_ERR_INVALID_ARG, "%zu values to unpack, expected %zu",
                        list.as.list->count, target->count);
    for (size_t i = 0; i < target->count; i++)
        TRM_CHECK(trmi_assign(r, target->items[i], list.as.list->items[i]));
    return TRM_OK;
}

static trm_status assign_attribute(trmi_run *r, const trmi_node *target, trmi_value value)
{
    trmi_value space, key;
    trmi_node name = {.kind = TRMI_N_NAME, .line = target->line, .text = target->text};

    TRM_CHECK(trmi_eval(r, &name, &space));
    if (space.kind != TRMI_V_NAMESPACE)
        return trm_fail(TRM_ERR_INVALID_ARG, "cannot assign attribute on non-namespace object '%s'",
                        target->text->data);
    if (target->attribute->bytes > 0 && target->attribute->data[0] == '_')
        return trm_fail(TRM_ERR_INVALID_ARG, "attribute '%s' of a namespace begins with '_'",
                        target->attribute->data);
    key.kind = TRMI_V_STRING;
    key.as.string = target->attribute;
    return trmi_dict_put(r, space.as.dict, key, value);
}

trm_status trmi_assign(trmi_run *r, const trmi_node *target, trmi_value value)
{
    switch (target->kind) {
    case TRMI_N_NAME:
        return trmi_scope_set(r, target->text, value);
    case TRMI_N_TUPLE:
        return assign_tuple(r, target, value);
    default:
        return assign_attribute(r, target, value);
    }
}

static trm_status exec_print(trmi_run *r, const trmi_node *n)
{
    for (size_t i = 0; i < n->count; i++) {
        trmi_string *text;
        trmi_value v;

        TRM_CHECK(trmi_eval(r, n->items[i], &v));
        TRM_CHECK(trmi_to_string(r, v, &text));
        TRM_CHECK(trmi_write(r, text->data, text->bytes));
    }
    return TRM_OK;
}

static trm_status exec_if(trmi_run *r, const trmi_node *n)
{
    for (size_t i = 0; i < n->count; i++) {
        trmi_value cond;
        bool yes = false;

        TRM_CHECK(trmi_eval(r, n->items[i], &cond));
        TRM_CHECK(trmi_truth(r, cond, &yes));
        if (yes)
            return trmi_exec(r, &n->bodies[i]);
    }
    return trmi_exec(r, &n->bodies[n->count]); /* else, or nothing */
}

static trm_status exec_set(trmi_run *r, const trmi_node *n)
{
    trmi_value v;

    TRM_CHECK(trmi_eval(r, n->b, &v));
    return trmi_assign(r, n->a, v);
}

/* The text of body 0 in a scope of its own, through the filters of `b`. */
static trm_status block_text(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_scope *outer = r->scope;

    TRM_CHECK(trmi_scope_push(r, outer));
    TRM_CHECK(trmi_capture(r, &n->bodies[0], out));
    r->scope = outer;
    return n->b == NULL ? TRM_OK : trmi_eval_chain(r, n->b, *out, out);
}

static trm_status exec_filter_block(trmi_run *r, const trmi_node *n)
{
    trmi_string *text;
    trmi_value v;

    TRM_CHECK(block_text(r, n, &v));
    TRM_CHECK(trmi_to_string(r, v, &text));
    return trmi_write(r, text->data, text->bytes);
}

static trm_status exec_with(trmi_run *r, const trmi_node *n)
{
    trmi_scope *outer = r->scope, *inner;
    trmi_value v;

    TRM_CHECK(trmi_scope_push(r, outer));
    inner = r->scope;
    for (size_t i = 0; i + 1 < n->count; i += 2) { /* values see the scope outside */
        r->scope = outer;
        TRM_CHECK(trmi_eval(r, n->items[i + 1], &v));
        r->scope = inner;
        TRM_CHECK(trmi_assign(r, n->items[i], v));
    }
    TRM_CHECK(trmi_exec(r, &n->bodies[0]));
    r->scope = outer;
    return TRM_OK;
}

static trm_status make_macro(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_macro *m;
    void *block;

    TRM_CHECK(trmi_alloc(r, 1, sizeof(*m), &block));
    m = block;
    m->node = n;
    m->scope = r->scope;
    out->kind = TRMI_V_MACRO;
    out->as.macro = m;
    return TRM_OK;
}

static trm_status exec_call_block(trmi_run *r, const trmi_node *n)
{
    static trmi_string caller_name = {"caller", 6, 6, NULL, false};
    trmi_value callee, result, caller;
    trmi_string *text;
    trmi_call call;
    trmi_pair *keywords;
    void *block;

    TRM_CHECK(trmi_eval(r, n->a->a, &callee));
    TRM_CHECK(trmi_eval_arguments(r, n->a->arguments, "call", &call));
    TRM_CHECK(make_macro(r, n, &caller));
    TRM_CHECK(trmi_alloc(r, call.keyword_count + 1, sizeof(*keywords), &block));
    keywords = block;
    for (size_t i = 0; i < call.keyword_count; i++)
        keywords[i] = call.keywords[i];
    keywords[call.keyword_count].key.kind = TRMI_V_STRING;
    keywords[call.keyword_count].key.as.string = &caller_name;
    keywords[call.keyword_count].value = caller;
    call.keywords = keywords;
    call.keyword_count++;
    TRM_CHECK(trmi_call_value(r, callee, &call, &result));
    TRM_CHECK(trmi_to_string(r, result, &text));
    return trmi_write(r, text->data, text->bytes);
}

static trm_status exec_node(trmi_run *r, const trmi_node *n)
{
    trmi_scope *outer = r->scope;
    trmi_value v;

    switch (n->kind) {
    case TRMI_N_DATA:
        return trmi_write(r, n->text->data, n->text->bytes);
    case TRMI_N_PRINT:
        return exec_print(r, n);
    case TRMI_N_IF:
        return exec_if(r, n);
    case TRMI_N_FOR:
        return trmi_exec_for(r, n);
    case TRMI_N_SET:
        return exec_set(r, n);
    case TRMI_N_SET_BLOCK:
        TRM_CHECK(block_text(r, n, &v));
        return trmi_assign(r, n->a, v);
    case TRMI_N_MACRO:
        TRM_CHECK(make_macro(r, n, &v));
        return trmi_scope_set(r, n->text, v);
    case TRMI_N_CALL_BLOCK:
        return exec_call_block(r, n);
    case TRMI_N_FILTER_BLOCK:
        return exec_filter_block(r, n);
    case TRMI_N_WITH:
        return exec_with(r, n);
    case TRMI_N_GENERATION:
        TRM_CHECK(trmi_scope_push(r, outer));
        TRM_CHECK(trmi_exec(r, &n->bodies[0]));
        r->scope = outer;
        return TRM_OK;
    case TRMI_N_BREAK:
    case TRMI_N_CONTINUE:
        r->flow = n->kind == TRMI_N_BREAK ? TRMI_FLOW_BREAK : TRMI_FLOW_CONTINUE;
        return TRM_OK;
    default:
        return trm_fail(TRM_ERR_INTERNAL, "an expression where a statement belongs");
    }
}

trm_status trmi_exec(trmi_run *r, const trmi_body *body)
{
    TRM_CHECK(trmi_enter(r));
    for (size_t i = 0; i < body->count && r->flow == TRMI_FLOW_ON; i++) {
        trm_status st = trmi_charge(r, 1);

        if (st == TRM_OK)
            st = exec_node(r, body->nodes[i]);
        if (st != TRM_OK) {
            if (r->fail_line == 0)
                r->fail_line = body->nodes[i]->line;
            return st;
        }
    }
    trmi_leave(r);
    return TRM_OK;
}
