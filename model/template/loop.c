/* For loops and their `loop`. Items are drawn one by one, as Jinja does it, so that a condition of
 * the loop sees what its body has set. */
#include "model/template/template_impl.h"

/* The next item that the loop's condition lets through. */
static trm_status draw(trmi_run *r, trmi_loop *loop, bool *done, trmi_value *out)
{
    trmi_scope *inner = r->scope;

    for (;;) {
        trmi_value cond;
        bool yes = false;

        TRM_CHECK(trmi_next(r, &loop->iterator, done, out));
        if (*done || loop->node->c == NULL || loop->filtered)
            return TRM_OK;
        TRM_CHECK(trmi_scope_push(r, loop->scope));
        TRM_CHECK(trmi_assign(r, loop->node->a, *out));
        TRM_CHECK(trmi_eval(r, loop->node->c, &cond));
        TRM_CHECK(trmi_truth(r, cond, &yes));
        r->scope = inner;
        if (yes)
            return TRM_OK;
    }
}

static trm_status peek(trmi_run *r, trmi_loop *loop)
{
    bool done = false;

    if (loop->peeked)
        return TRM_OK;
    TRM_CHECK(draw(r, loop, &done, &loop->after));
    if (done)
        loop->after = trmi_absent();
    loop->peeked = true;
    return TRM_OK;
}

static trm_status advance(trmi_run *r, trmi_loop *loop, bool *done)
{
    trmi_value item;

    if (loop->peeked) {
        *done = loop->after.kind == TRMI_V_ABSENT;
        item = loop->after;
        loop->peeked = *done;
    } else {
        TRM_CHECK(draw(r, loop, done, &item));
    }
    if (*done)
        return TRM_OK;
    loop->index0++;
    loop->before = loop->current;
    loop->current = item;
    return TRM_OK;
}

static trm_status measure(trmi_run *r, trmi_loop *loop)
{
    trmi_value rest, item;
    bool done = false;
    int64_t n;

    if (loop->length >= 0)
        return TRM_OK;
    if (loop->node->c == NULL && trmi_length(loop->iterator.of, &loop->length))
        return TRM_OK;
    TRM_CHECK(trmi_make_list(r, TRMI_V_LIST, &rest));
    for (;;) { /* what is left is drawn at once */
        TRM_CHECK(draw(r, loop, &done, &item));
        if (done)
            break;
        TRM_CHECK(trmi_list_push(r, rest.as.list, item));
    }
    n = (int64_t)rest.as.list->count + loop->index0 + 1;
    loop->length = n + (loop->peeked && loop->after.kind != TRMI_V_ABSENT);
    loop->filtered = true;
    loop->iterator.of = rest;
    loop->iterator.at = 0;
    return TRM_OK;
}

static trm_status run(trmi_run *r, const trmi_node *n, trmi_scope *scope, trmi_value over,
                      int64_t depth0)
{
    static const trmi_string loop_name = {"loop", 4, 4, NULL, false};
    trmi_scope *outer = r->scope;
    bool done = false, none = true;
    trmi_value self;
    trmi_loop *loop;
    void *block;

    TRM_CHECK(trmi_alloc(r, 1, sizeof(*loop), &block));
    loop = block;
    loop->node = n;
    loop->scope = scope;
    loop->length = -1;
    loop->index0 = -1;
    loop->depth0 = depth0;
    TRM_CHECK(trmi_iterate(r, over, &loop->iterator));
    self.kind = TRMI_V_LOOP;
    self.as.loop = loop;
    for (;;) {
        r->scope = outer;
        TRM_CHECK(advance(r, loop, &done));
        if (done)
            break;
        TRM_CHECK(trmi_scope_push(r, scope));
        TRM_CHECK(trmi_assign(r, n->a, loop->current));
        if (n->uses_loop)
            TRM_CHECK(trmi_scope_set(r, &loop_name, self));
        TRM_CHECK(trmi_exec(r, &n->bodies[0]));
        if (r->flow == TRMI_FLOW_ON)
            none = false; /* as Jinja: not after break or continue */
        done = r->flow == TRMI_FLOW_BREAK;
        r->flow = TRMI_FLOW_ON;
        if (done)
            break;
    }
    if (none && n->bodies[1].count > 0) {
        TRM_CHECK(trmi_scope_push(r, scope));
        TRM_CHECK(trmi_exec(r, &n->bodies[1]));
    }
    r->scope = outer;
    return TRM_OK;
}

trm_status trmi_exec_for(trmi_run *r, const trmi_node *n)
{
    trmi_value over;

    TRM_CHECK(trmi_eval(r, n->b, &over));
    return run(r, n, r->scope, over, 0);
}

trm_status trmi_loop_call(trmi_run *r, trmi_loop *loop, const trmi_call *call, trmi_value *out)
{
    trmi_output text = {NULL, 0, 0}, *before = r->output;
    trmi_value over;
    trm_status st;

    if (!loop->node->flag)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "the loop must have the 'recursive' marker to be called recursively");
    TRM_CHECK(trmi_template_bind(r, call, "iterable", 1, &over));
    TRM_CHECK(trmi_enter(r));
    r->output = &text;
    st = run(r, loop->node, loop->scope, over, loop->depth0 + 1);
    r->output = before;
    TRM_CHECK(trmi_take(r, st, &text, out));
    trmi_leave(r);
    return TRM_OK;
}

static trm_status cycle(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    (void)r;
    if (call->count == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "no items for cycling given");
    *out = call->items[(size_t)self.as.loop->index0 % call->count];
    return TRM_OK;
}

static trm_status changed(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_value now;
    bool same = false;

    TRM_CHECK(trmi_make_list(r, TRMI_V_TUPLE, &now));
    now.as.list->items = call->items;
    now.as.list->count = call->count;
    TRM_CHECK(trmi_equal(r, self.as.loop->changed, now, &same));
    self.as.loop->changed = now;
    *out = trmi_bool(!same);
    return TRM_OK;
}

static trm_status method(trmi_run *r, trmi_loop *loop, const trmi_function *f, trmi_value *out)
{
    trmi_method *m;
    void *block;

    TRM_CHECK(trmi_alloc(r, 1, sizeof(*m), &block));
    m = block;
    m->function = f;
    m->self.kind = TRMI_V_LOOP;
    m->self.as.loop = loop;
    out->kind = TRMI_V_METHOD;
    out->as.method = m;
    return TRM_OK;
}

static trm_status neighbour(trmi_run *r, trmi_loop *loop, bool next, trmi_value *out)
{
    if (next)
        TRM_CHECK(peek(r, loop));
    *out = next ? loop->after : loop->before;
    if (next ? out->kind != TRMI_V_ABSENT : loop->index0 > 0)
        return TRM_OK;
    return trmi_make_undefined(r, NULL, trmi_absent(),
                               next ? "there is no next item" : "there is no previous item", out);
}

trm_status trmi_loop_attribute(trmi_run *r, trmi_loop *loop, const trmi_string *name, bool *found,
                               trmi_value *out)
{
    static const trmi_function cycle_function = {"cycle", cycle},
                               changed_function = {"changed", changed};

    *found = true;
    if (trmi_string_is(name, "index"))
        *out = trmi_int(loop->index0 + 1);
    else if (trmi_string_is(name, "index0"))
        *out = trmi_int(loop->index0);
    else if (trmi_string_is(name, "first"))
        *out = trmi_bool(loop->index0 == 0);
    else if (trmi_string_is(name, "depth"))
        *out = trmi_int(loop->depth0 + 1);
    else if (trmi_string_is(name, "depth0"))
        *out = trmi_int(loop->depth0);
    else if (trmi_string_is(name, "previtem"))
        return neighbour(r, loop, false, out);
    else if (trmi_string_is(name, "nextitem"))
        return neighbour(r, loop, true, out);
    else if (trmi_string_is(name, "cycle"))
        return method(r, loop, &cycle_function, out);
    else if (trmi_string_is(name, "changed"))
        return method(r, loop, &changed_function, out);
    else if (trmi_string_is(name, "last")) {
        TRM_CHECK(peek(r, loop));
        *out = trmi_bool(loop->after.kind == TRMI_V_ABSENT);
    } else if (trmi_string_is(name, "length") || trmi_string_is(name, "revindex") ||
               trmi_string_is(name, "revindex0")) {
        TRM_CHECK(measure(r, loop));
        *out = trmi_int(name->data[0] == 'l' ? loop->length
                                             : loop->length - loop->index0 - (name->bytes == 9));
    } else {
        *found = false;
    }
    return TRM_OK;
}
