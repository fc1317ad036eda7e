/* Expressions. */
#include "model/template/template_impl.h"

static trm_status lookup(trmi_run *r, const trmi_string *name, trmi_value *out)
{
    const trmi_function *f;
    trmi_value *v;

    for (const trmi_scope *s = r->scope; s != NULL; s = s->parent)
        for (size_t i = s->count; i-- > 0;)
            if (s->variables[i].name == name || trmi_string_same(s->variables[i].name, name)) {
                *out = s->variables[i].value;
                return TRM_OK;
            }
    v = trmi_dict_find_name(r->context, name);
    if (v != NULL) {
        *out = *v;
        return TRM_OK;
    }
    f = trmi_find_global(name);
    if (f == NULL)
        return trmi_make_undefined(r, name, trmi_absent(), NULL, out);
    out->kind = TRMI_V_FUNCTION;
    out->as.function = f;
    return TRM_OK;
}

trm_status trmi_scope_push(trmi_run *r, trmi_scope *parent)
{
    void *block;

    TRM_CHECK(trmi_alloc(r, 1, sizeof(trmi_scope), &block));
    r->scope = block;
    r->scope->parent = parent;
    return TRM_OK;
}

trm_status trmi_scope_set(trmi_run *r, const trmi_string *name, trmi_value value)
{
    trmi_scope *s = r->scope;

    for (size_t i = 0; i < s->count; i++)
        if (trmi_string_same(s->variables[i].name, name)) {
            s->variables[i].value = value;
            return TRM_OK;
        }
    if (s->count == s->room) {
        trmi_variable *grown;
        size_t room = s->room == 0 ? 4 : s->room * 2;
        void *block;

        TRM_CHECK(trmi_alloc(r, room, sizeof(*grown), &block));
        grown = block;
        for (size_t i = 0; i < s->count; i++)
            grown[i] = s->variables[i];
        s->variables = grown;
        s->room = room;
    }
    s->variables[s->count].name = name;
    s->variables[s->count++].value = value;
    return TRM_OK;
}

static trm_status push_keyword(trmi_run *r, trmi_call *call, trmi_value name, trmi_value value)
{
    for (size_t i = 0; i < call->keyword_count; i++)
        if (trmi_string_same(call->keywords[i].key.as.string, name.as.string))
            return trm_fail(TRM_ERR_INVALID_ARG, "%s got multiple values for keyword argument",
                            call->what);
    call->keywords[call->keyword_count].key = name;
    call->keywords[call->keyword_count++].value = value;
    return trmi_charge(r, call->keyword_count);
}

static trm_status eval_keywords(trmi_run *r, const trmi_arguments *a, trmi_call *call)
{
    trmi_value extra = trmi_absent(), name, value;
    size_t room = a->keyword_count;
    void *block;

    if (a->star_star != NULL) {
        TRM_CHECK(trmi_eval(r, a->star_star, &extra));
        if (extra.kind != TRMI_V_DICT)
            return trm_fail(TRM_ERR_INVALID_ARG, "argument after ** must be a mapping, not %s",
                            trmi_type_name(extra));
        room += extra.as.dict->count;
    }
    if (room == 0)
        return TRM_OK;
    TRM_CHECK(trmi_alloc(r, room, sizeof(*call->keywords), &block));
    call->keywords = block;
    for (size_t i = 0; i < a->keyword_count; i++) {
        name.kind = TRMI_V_STRING;
        name.as.string = a->keywords[i].name;
        TRM_CHECK(trmi_eval(r, a->keywords[i].value, &value));
        TRM_CHECK(push_keyword(r, call, name, value));
    }
    for (size_t i = 0; extra.kind == TRMI_V_DICT && i < extra.as.dict->count; i++) {
        const trmi_pair *pair = &extra.as.dict->pairs[i];

        if (pair->key.kind != TRMI_V_STRING)
            return trm_fail(TRM_ERR_INVALID_ARG, "keywords must be strings");
        TRM_CHECK(push_keyword(r, call, pair->key, pair->value));
    }
    return TRM_OK;
}

trm_status trmi_eval_arguments(trmi_run *r, const trmi_arguments *a, const char *what,
                               trmi_call *out)
{
    trmi_call call = {.what = what};
    trmi_value list = {.kind = TRMI_V_ABSENT}, item, more;
    bool done = false;
    trmi_iterator it;

    if (a != NULL && (a->count > 0 || a->star != NULL)) {
        TRM_CHECK(trmi_make_list(r, TRMI_V_LIST, &list));
        for (size_t i = 0; i < a->count; i++) {
            TRM_CHECK(trmi_eval(r, a->items[i], &item));
            TRM_CHECK(trmi_list_push(r, list.as.list, item));
        }
        if (a->star != NULL) {
            TRM_CHECK(trmi_eval(r, a->star, &more));
            TRM_CHECK(trmi_iterate(r, more, &it));
            for (;;) {
                TRM_CHECK(trmi_next(r, &it, &done, &item));
                if (done)
                    break;
                TRM_CHECK(trmi_list_push(r, list.as.list, item));
            }
        }
        call.items = list.as.list->items;
        call.count = list.as.list->count;
    }
    if (a != NULL)
        TRM_CHECK(eval_keywords(r, a, &call));
    *out = call;
    return TRM_OK;
}

static trm_status eval_sequence(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_value list, item;

    TRM_CHECK(trmi_make_list(r, n->kind == TRMI_N_LIST ? TRMI_V_LIST : TRMI_V_TUPLE, &list));
    for (size_t i = 0; i < n->count; i++) {
        TRM_CHECK(trmi_eval(r, n->items[i], &item));
        TRM_CHECK(trmi_list_push(r, list.as.list, item));
    }
    *out = list;
    return TRM_OK;
}

static trm_status eval_dict(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_value dict, key, value;

    TRM_CHECK(trmi_make_dict(r, TRMI_V_DICT, &dict));
    for (size_t i = 0; i + 1 < n->count; i += 2) {
        TRM_CHECK(trmi_eval(r, n->items[i], &key));
        TRM_CHECK(trmi_eval(r, n->items[i + 1], &value));
        TRM_CHECK(trmi_dict_put(r, dict.as.dict, key, value));
    }
    *out = dict;
    return TRM_OK;
}

static trm_status eval_slice(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    const trmi_node *parts[3] = {n->a, n->b, n->c};
    void *block;

    TRM_CHECK(trmi_alloc(r, 3, sizeof(trmi_value), &block));
    out->kind = TRMI_V_SLICE;
    out->as.slice = block;
    for (int i = 0; i < 3; i++) {
        trmi_value v = trmi_none();

        if (parts[i] != NULL)
            TRM_CHECK(trmi_eval(r, parts[i], &v));
        ((trmi_value *)block)[i] = v;
    }
    out->kind = TRMI_V_SLICE;
    out->as.slice = block;
    return TRM_OK;
}

static trm_status eval_call(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_value callee;
    trmi_call call;

    TRM_CHECK(trmi_eval(r, n->a, &callee));
    TRM_CHECK(trmi_eval_arguments(r, n->arguments, "call", &call));
    return trmi_call_value(r, callee, &call, out);
}

static trm_status apply_filter(trmi_run *r, const trmi_node *n, trmi_value value, trmi_value *out)
{
    trmi_call call;

    if (n->filter == NULL || n->filter->apply == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "no filter '%s'", n->text->data);
    TRM_CHECK(trmi_eval_arguments(r, n->arguments, n->filter->name, &call));
    return n->filter->apply(r, value, &call, out);
}

static trm_status eval_filter(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_value value;

    TRM_CHECK(trmi_eval(r, n->a, &value));
    return apply_filter(r, n, value, out);
}

trm_status trmi_eval_chain(trmi_run *r, const trmi_node *n, trmi_value value, trmi_value *out)
{
    if (n->a != NULL)
        TRM_CHECK(trmi_eval_chain(r, n->a, value, &value));
    return apply_filter(r, n, value, out);
}

static trm_status eval_test(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_value value;
    trmi_call call;
    bool yes = false;

    if (n->test == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "no test '%s'", n->text->data);
    TRM_CHECK(trmi_eval(r, n->a, &value));
    TRM_CHECK(trmi_eval_arguments(r, n->arguments, n->test->name, &call));
    TRM_CHECK(n->test->apply(r, value, &call, &yes));
    *out = trmi_bool(yes);
    return TRM_OK;
}

static trm_status eval_logic(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    bool yes = false;

    TRM_CHECK(trmi_eval(r, n->a, out));
    TRM_CHECK(trmi_truth(r, *out, &yes));
    if (n->kind == TRMI_N_NOT)
        *out = trmi_bool(!yes);
    else if (yes == (n->kind == TRMI_N_AND))
        TRM_CHECK(trmi_eval(r, n->b, out));
    return TRM_OK;
}

static trm_status eval_ternary(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_value cond;
    bool yes = false;

    TRM_CHECK(trmi_eval(r, n->b, &cond));
    TRM_CHECK(trmi_truth(r, cond, &yes));
    if (yes)
        return trmi_eval(r, n->a, out);
    if (n->c != NULL)
        return trmi_eval(r, n->c, out);
    return trmi_make_undefined(r, NULL, trmi_absent(),
                               "an inline if without else evaluated to false", out);
}

static trm_status eval_sign(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_value v;

    TRM_CHECK(trmi_eval(r, n->a, &v));
    if (v.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, v);
    if (!trmi_is_number(v))
        return trm_fail(TRM_ERR_INVALID_ARG, "bad operand type for unary %c: '%s'",
                        n->kind == TRMI_N_NEGATIVE ? '-' : '+', trmi_type_name(v));
    if (n->kind == TRMI_N_POSITIVE)
        *out = trmi_is_int(v) ? trmi_int(trmi_as_int(v)) : v;
    else if (v.kind == TRMI_V_FLOAT)
        *out = trmi_float(-v.as.real);
    else
        return trmi_operate(r, TRMI_TOK_SUB, trmi_int(0), v, out);
    return TRM_OK;
}

static trm_status eval_concat(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_value joined, v;
    trmi_string *s;

    joined.kind = TRMI_V_STRING;
    TRM_CHECK(trmi_eval(r, n->items[0], &v));
    TRM_CHECK(trmi_to_string(r, v, &joined.as.string));
    for (size_t i = 1; i < n->count; i++) {
        TRM_CHECK(trmi_eval(r, n->items[i], &v));
        TRM_CHECK(trmi_to_string(r, v, &s));
        TRM_CHECK(trmi_join_strings(r, joined.as.string, s, &joined));
    }
    *out = joined;
    return TRM_OK;
}

static trm_status eval_compare(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_value left, right;
    bool yes = true;

    TRM_CHECK(trmi_eval(r, n->a, &left));
    for (size_t i = 0; i < n->count && yes; i++) {
        TRM_CHECK(trmi_eval(r, n->items[i], &right));
        TRM_CHECK(trmi_compare(r, n->ops[i], left, right, &yes));
        left = right;
    }
    *out = trmi_bool(yes);
    return TRM_OK;
}

static trm_status eval_two(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trmi_value a, b;

    TRM_CHECK(trmi_eval(r, n->a, &a));
    if (n->kind == TRMI_N_ATTRIBUTE)
        return trmi_get_attribute(r, a, n->text, out);
    TRM_CHECK(trmi_eval(r, n->b, &b));
    return n->kind == TRMI_N_SUBSCRIPT ? trmi_get_item(r, a, b, out)
                                       : trmi_operate(r, n->op, a, b, out);
}

static trm_status eval(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    switch (n->kind) {
    case TRMI_N_CONST:
        *out = n->value;
        return TRM_OK;
    case TRMI_N_NAME:
        return lookup(r, n->text, out);
    case TRMI_N_LIST:
    case TRMI_N_TUPLE:
        return eval_sequence(r, n, out);
    case TRMI_N_DICT:
        return eval_dict(r, n, out);
    case TRMI_N_ATTRIBUTE:
    case TRMI_N_SUBSCRIPT:
    case TRMI_N_BINARY:
        return eval_two(r, n, out);
    case TRMI_N_SLICE:
        return eval_slice(r, n, out);
    case TRMI_N_CALL:
        return eval_call(r, n, out);
    case TRMI_N_FILTER:
        return eval_filter(r, n, out);
    case TRMI_N_TEST:
        return eval_test(r, n, out);
    case TRMI_N_NOT:
    case TRMI_N_AND:
    case TRMI_N_OR:
        return eval_logic(r, n, out);
    case TRMI_N_TERNARY:
        return eval_ternary(r, n, out);
    case TRMI_N_NEGATIVE:
    case TRMI_N_POSITIVE:
        return eval_sign(r, n, out);
    case TRMI_N_CONCAT:
        return eval_concat(r, n, out);
    case TRMI_N_COMPARE:
        return eval_compare(r, n, out);
    default:
        return trm_fail(TRM_ERR_INTERNAL, "a statement where an expression belongs");
    }
}

trm_status trmi_eval(trmi_run *r, const trmi_node *n, trmi_value *out)
{
    trm_status st = trmi_enter(r);

    if (st == TRM_OK)
        st = trmi_charge(r, 1);
    if (st == TRM_OK)
        st = eval(r, n, out);
    if (st != TRM_OK) {
        if (r->fail_line == 0) /* the innermost says where */
            r->fail_line = n->line;
        return st;
    }
    trmi_leave(r);
    return TRM_OK;
}
