/* Truth, equality, order and membership with Python's rules. */
#define _GNU_SOURCE /* memmem */
#include "model/template/template_impl.h"

#include <string.h>

#define UNORDERED 2 /* NaN: every comparison is false */

bool trmi_string_same(const trmi_string *a, const trmi_string *b)
{
    return a == b ||
           (a->bytes == b->bytes && (a->bytes == 0 || memcmp(a->data, b->data, a->bytes) == 0));
}

bool trmi_string_is(const trmi_string *a, const char *text)
{
    return strlen(text) == a->bytes && memcmp(a->data, text, a->bytes) == 0;
}

int trmi_string_order(const trmi_string *a, const trmi_string *b)
{
    size_t n = a->bytes < b->bytes ? a->bytes : b->bytes;
    int order = n == 0 ? 0 : memcmp(a->data, b->data, n); /* UTF-8 orders as code points do */

    if (order == 0 && a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    return order < 0 ? -1 : order > 0;
}

trm_status trmi_truth(trmi_run *r, trmi_value v, bool *out)
{
    int64_t n = 0;

    (void)r;
    switch (v.kind) {
    case TRMI_V_UNDEFINED:
    case TRMI_V_ABSENT:
    case TRMI_V_NONE:
        *out = false;
        return TRM_OK;
    case TRMI_V_BOOL:
        *out = v.as.truth;
        return TRM_OK;
    case TRMI_V_INT:
        *out = v.as.integer != 0;
        return TRM_OK;
    case TRMI_V_FLOAT:
        *out = v.as.real != 0;
        return TRM_OK;
    case TRMI_V_STRING:
        *out = v.as.string->bytes > 0;
        return TRM_OK;
    default:
        *out = !trmi_length(v, &n) || n > 0;
        return TRM_OK;
    }
}

static trm_status lists_equal(trmi_run *r, const trmi_list *a, const trmi_list *b, bool *out)
{
    *out = a->count == b->count;
    for (size_t i = 0; i < a->count && *out; i++)
        TRM_CHECK(trmi_equal(r, a->items[i], b->items[i], out));
    return TRM_OK;
}

static trm_status dicts_equal(trmi_run *r, const trmi_dict *a, const trmi_dict *b, bool *out)
{
    *out = a->count == b->count;
    for (size_t i = 0; i < a->count && *out; i++) {
        trmi_value *other;

        TRM_CHECK(trmi_dict_find(r, b, a->pairs[i].key, &other));
        *out = other != NULL;
        if (*out)
            TRM_CHECK(trmi_equal(r, a->pairs[i].value, *other, out));
    }
    return TRM_OK;
}

trm_status trmi_equal(trmi_run *r, trmi_value a, trmi_value b, bool *out)
{
    if (a.kind == TRMI_V_STRING || b.kind == TRMI_V_STRING) {
        *out = a.kind == b.kind && trmi_string_same(a.as.string, b.as.string);
        return *out ? trmi_charge(r, 1 + a.as.string->bytes / 64) : TRM_OK;
    }
    if (trmi_is_number(a) && trmi_is_number(b)) {
        *out = trmi_is_int(a) && trmi_is_int(b) ? trmi_as_int(a) == trmi_as_int(b)
                                                : trmi_as_real(a) == trmi_as_real(b);
        return TRM_OK;
    }
    *out = false;
    if (a.kind != b.kind)
        return TRM_OK;
    TRM_CHECK(trmi_charge(r, 1));
    switch (a.kind) {
    case TRMI_V_UNDEFINED:
    case TRMI_V_NONE:
    case TRMI_V_ABSENT:
        *out = true;
        return TRM_OK;
    case TRMI_V_LIST:
    case TRMI_V_TUPLE:
        TRM_CHECK(trmi_enter(r));
        TRM_CHECK(lists_equal(r, a.as.list, b.as.list, out));
        trmi_leave(r);
        return TRM_OK;
    case TRMI_V_DICT:
        TRM_CHECK(trmi_enter(r));
        TRM_CHECK(dicts_equal(r, a.as.dict, b.as.dict, out));
        trmi_leave(r);
        return TRM_OK;
    case TRMI_V_RANGE:
        *out = a.as.range->count == b.as.range->count &&
               (a.as.range->count == 0 || a.as.range->start == b.as.range->start) &&
               (a.as.range->count < 2 || a.as.range->step == b.as.range->step);
        return TRM_OK;
    case TRMI_V_METHOD:
        *out = a.as.method->function == b.as.method->function &&
               a.as.method->self.as.string == b.as.method->self.as.string;
        return TRM_OK;
    default:
        *out = a.as.list == b.as.list; /* the same object */
        return TRM_OK;
    }
}

static trm_status lists_order(trmi_run *r, const trmi_list *a, const trmi_list *b, const char *op,
                              int *out)
{
    for (size_t i = 0; i < a->count && i < b->count; i++) {
        bool same;

        TRM_CHECK(trmi_equal(r, a->items[i], b->items[i], &same));
        if (!same)
            return trmi_order(r, a->items[i], b->items[i], op, out);
    }
    *out = a->count < b->count ? -1 : a->count > b->count;
    return TRM_OK;
}

trm_status trmi_order(trmi_run *r, trmi_value a, trmi_value b, const char *op, int *out)
{
    TRM_CHECK(trmi_charge(r, 1));
    if (a.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, a);
    if (b.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, b);
    if (trmi_is_number(a) && trmi_is_number(b)) {
        if (trmi_is_int(a) && trmi_is_int(b)) {
            *out = trmi_as_int(a) < trmi_as_int(b) ? -1 : trmi_as_int(a) > trmi_as_int(b);
        } else {
            double x = trmi_as_real(a), y = trmi_as_real(b);

            *out = x < y ? -1 : x > y ? 1 : x == y ? 0 : UNORDERED;
        }
        return TRM_OK;
    }
    if (a.kind == TRMI_V_STRING && b.kind == TRMI_V_STRING) {
        *out = trmi_string_order(a.as.string, b.as.string);
        return trmi_charge(r, a.as.string->bytes / 64);
    }
    if ((a.kind == TRMI_V_LIST || a.kind == TRMI_V_TUPLE) && a.kind == b.kind) {
        TRM_CHECK(trmi_enter(r));
        TRM_CHECK(lists_order(r, a.as.list, b.as.list, op, out));
        trmi_leave(r);
        return TRM_OK;
    }
    return trm_fail(TRM_ERR_INVALID_ARG, "'%s' not supported between instances of '%s' and '%s'",
                    op, trmi_type_name(a), trmi_type_name(b));
}

trm_status trmi_contains(trmi_run *r, trmi_value in, trmi_value item, bool *out)
{
    trmi_iterator it;
    trmi_value *found, v;
    bool done = false;

    *out = false;
    if (in.kind == TRMI_V_STRING) {
        if (item.kind != TRMI_V_STRING)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "'in <string>' requires string as left operand, not %s",
                            trmi_type_name(item));
        *out = item.as.string->bytes == 0 ||
               memmem(in.as.string->data, in.as.string->bytes, item.as.string->data,
                      item.as.string->bytes) != NULL;
        return trmi_charge(r, 1 + in.as.string->bytes / 16);
    }
    if (in.kind == TRMI_V_DICT || (in.kind == TRMI_V_VIEW && in.as.view->what == 'k')) {
        TRM_CHECK(trmi_dict_find(r, in.kind == TRMI_V_DICT ? in.as.dict : in.as.view->dict, item,
                                 &found));
        *out = found != NULL;
        return TRM_OK;
    }
    if (trmi_iterate(r, in, &it) != TRM_OK)
        return trm_fail(TRM_ERR_INVALID_ARG, "argument of type '%s' is not iterable",
                        trmi_type_name(in));
    while (!*out) {
        TRM_CHECK(trmi_next(r, &it, &done, &v));
        if (done)
            break;
        TRM_CHECK(trmi_equal(r, v, item, out));
    }
    return TRM_OK;
}

trm_status trmi_compare(trmi_run *r, int op, trmi_value a, trmi_value b, bool *out)
{
    int order = 0;

    switch (op) {
    case TRMI_TOK_EQ:
        return trmi_equal(r, a, b, out);
    case TRMI_TOK_NE:
        TRM_CHECK(trmi_equal(r, a, b, out));
        *out = !*out;
        return TRM_OK;
    case TRMI_TOK_LT:
        TRM_CHECK(trmi_order(r, a, b, "<", &order));
        *out = order == -1;
        return TRM_OK;
    case TRMI_TOK_LE:
        TRM_CHECK(trmi_order(r, a, b, "<=", &order));
        *out = order == -1 || order == 0;
        return TRM_OK;
    case TRMI_TOK_GT:
        TRM_CHECK(trmi_order(r, a, b, ">", &order));
        *out = order == 1;
        return TRM_OK;
    case TRMI_TOK_GE:
        TRM_CHECK(trmi_order(r, a, b, ">=", &order));
        *out = order == 1 || order == 0;
        return TRM_OK;
    case TRMI_TOK_IN:
        return trmi_contains(r, b, a, out);
    default:
        TRM_CHECK(trmi_contains(r, b, a, out));
        *out = !*out;
        return TRM_OK;
    }
}
