/* Calls: macros, methods, globals; how arguments are bound. */
#include "model/template/template_impl.h"

#include <string.h>

trm_status trmi_template_bind(trmi_run *r, const trmi_call *call, const char *names,
                              size_t required, trmi_value *out)
{
    size_t used = 0, n = 0;

    TRM_CHECK(trmi_charge(r, 1 + call->count + call->keyword_count));
    for (const char *at = names; *at != '\0'; n++) {
        size_t bytes = strcspn(at, " ");

        out[n] = n < call->count ? call->items[n] : trmi_absent();
        for (size_t k = 0; k < call->keyword_count; k++) {
            const trmi_string *key = call->keywords[k].key.as.string;

            if (key->bytes != bytes || memcmp(key->data, at, bytes) != 0)
                continue;
            if (out[n].kind != TRMI_V_ABSENT)
                return trm_fail(TRM_ERR_INVALID_ARG, "%s: two values for argument '%.*s'",
                                call->what, (int)bytes, at);
            out[n] = call->keywords[k].value;
            used++;
        }
        if (out[n].kind == TRMI_V_ABSENT && n < required)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s: argument '%.*s' is missing", call->what,
                            (int)bytes, at);
        at += bytes + (at[bytes] == ' ');
    }
    if (call->count > n)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: %zu arguments, at most %zu are taken", call->what,
                        call->count, n);
    if (used < call->keyword_count)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: a keyword argument that is none of: %s",
                        call->what, names);
    return TRM_OK;
}

static trmi_value keyword(const trmi_call *call, const trmi_string *name, bool *used)
{
    for (size_t k = 0; k < call->keyword_count; k++)
        if (!used[k] && trmi_string_same(call->keywords[k].key.as.string, name)) {
            used[k] = true;
            return call->keywords[k].value;
        }
    return trmi_absent();
}

static trm_status bind_parameters(trmi_run *r, const trmi_node *n, const trmi_call *call,
                                  bool *used)
{
    for (size_t i = 0; i < n->count; i += 2) {
        const trmi_string *name = n->items[i]->text;
        trmi_value v = i / 2 < call->count ? call->items[i / 2] : keyword(call, name, used);

        if (v.kind == TRMI_V_ABSENT && n->items[i + 1] != NULL)
            TRM_CHECK(trmi_eval(r, n->items[i + 1], &v));
        if (v.kind == TRMI_V_ABSENT)
            TRM_CHECK(trmi_make_undefined(r, name, trmi_absent(), NULL, &v));
        TRM_CHECK(trmi_scope_set(r, name, v));
    }
    return TRM_OK;
}

/* caller, kwargs and varargs, for macros that speak of them */
static trm_status bind_special(trmi_run *r, const trmi_node *n, const trmi_call *call, bool *used)
{
    static const trmi_string caller = {"caller", 6, 6, NULL, false},
                             kwargs = {"kwargs", 6, 6, NULL, false},
                             varargs = {"varargs", 7, 7, NULL, false};
    const char *name = n->text != NULL ? n->text->data : "caller";
    trmi_value v;

    if (n->takes_caller) {
        v = keyword(call, &caller, used);
        if (v.kind == TRMI_V_ABSENT)
            TRM_CHECK(trmi_make_undefined(r, &caller, trmi_absent(), "no caller defined", &v));
        TRM_CHECK(trmi_scope_set(r, &caller, v));
    }
    if (n->takes_kwargs)
        TRM_CHECK(trmi_make_dict(r, TRMI_V_DICT, &v));
    for (size_t k = 0; k < call->keyword_count; k++) {
        if (used[k])
            continue;
        if (!n->takes_kwargs)
            return trm_fail(TRM_ERR_INVALID_ARG, "macro '%s' takes no keyword argument '%.100s'",
                            name, call->keywords[k].key.as.string->data);
        TRM_CHECK(trmi_dict_put(r, v.as.dict, call->keywords[k].key, call->keywords[k].value));
    }
    if (n->takes_kwargs)
        TRM_CHECK(trmi_scope_set(r, &kwargs, v));
    if (!n->takes_varargs) {
        if (call->count > n->count / 2)
            return trm_fail(TRM_ERR_INVALID_ARG, "macro '%s' takes not more than %zu arguments",
                            name, n->count / 2);
        return TRM_OK;
    }
    TRM_CHECK(trmi_make_list(r, TRMI_V_TUPLE, &v));
    for (size_t i = n->count / 2; i < call->count; i++)
        TRM_CHECK(trmi_list_push(r, v.as.list, call->items[i]));
    return trmi_scope_set(r, &varargs, v);
}

trm_status trmi_call_macro(trmi_run *r, const trmi_macro *macro, const trmi_call *call,
                           trmi_value *out)
{
    const trmi_node *n = macro->node;
    trmi_scope *outer = r->scope;
    void *block;

    TRM_CHECK(trmi_enter(r));
    TRM_CHECK(trmi_alloc(r, call->keyword_count, sizeof(bool), &block));
    TRM_CHECK(trmi_scope_push(r, macro->scope));
    TRM_CHECK(bind_parameters(r, n, call, block));
    TRM_CHECK(bind_special(r, n, call, block));
    TRM_CHECK(trmi_capture(r, &n->bodies[0], out));
    r->scope = outer;
    trmi_leave(r);
    return TRM_OK;
}

trm_status trmi_method_call(trmi_run *r, const trmi_method *m, const trmi_call *call,
                            trmi_value *out)
{
    trmi_call named = *call;

    named.what = m->function->name;
    if (m->function->apply == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "method '%s' of %s (Python has it, Trireme does not)",
                        m->function->name, trmi_type_name(m->self));
    if (m->self.kind != TRMI_V_STRING || !m->self.as.string->markup)
        return m->function->apply(r, m->self, &named, out);
    if (strcmp(named.what, "join") == 0 || strcmp(named.what, "replace") == 0 ||
        strcmp(named.what, "format") == 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s of text that is escaped or safe", named.what);
    TRM_CHECK(m->function->apply(r, m->self, &named, out));
    return trmi_mark(r, *out, out);
}

static trm_status call_joiner(trmi_run *r, trmi_cycler *j, const trmi_call *call, trmi_value *out)
{
    if (call->count > 0 || call->keyword_count > 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "a joiner takes no arguments");
    if (!j->used) {
        j->used = true;
        return trmi_make_string(r, "", 0, out);
    }
    out->kind = TRMI_V_STRING;
    out->as.string = j->separator;
    return TRM_OK;
}

trm_status trmi_call_value(trmi_run *r, trmi_value callee, trmi_call *call, trmi_value *out)
{
    switch (callee.kind) {
    case TRMI_V_UNDEFINED:
        return trmi_fail_undefined(r, callee);
    case TRMI_V_METHOD:
        return trmi_method_call(r, callee.as.method, call, out);
    case TRMI_V_FUNCTION:
        call->what = callee.as.function->name;
        return callee.as.function->apply(r, trmi_absent(), call, out);
    case TRMI_V_MACRO:
        return trmi_call_macro(r, callee.as.macro, call, out);
    case TRMI_V_LOOP:
        return trmi_loop_call(r, callee.as.loop, call, out);
    case TRMI_V_JOINER:
        return call_joiner(r, callee.as.cycler, call, out);
    default:
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s' object is not callable", trmi_type_name(callee));
    }
}
