/* Filters over sequences. What Jinja gives as a generator is one here, walked over once. */
#include "model/template/template_impl.h"

#include <string.h>

static trm_status empty(trmi_run *r, const char *hint, trmi_value *out)
{
    return trmi_make_undefined(r, NULL, trmi_absent(), hint, out);
}

/* str values in lower case, others as they are */
static trm_status ignore_case(trmi_run *r, bool sensitive, trmi_value *v)
{
    trmi_output to = {NULL, 0, 0};

    if (sensitive || v->kind != TRMI_V_STRING)
        return TRM_OK;
    return trmi_take(
        r, trmi_append_cased(r, &to, v->as.string->data, v->as.string->bytes, TRMI_LOWER), &to, v);
}

static trm_status length(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value n;
    bool found = false;
    trmi_string name = {"length", 6, 6, NULL, false};
    int64_t count = 0;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    if (value.kind == TRMI_V_LOOP) {
        TRM_CHECK(trmi_loop_attribute(r, value.as.loop, &name, &found, &n));
        *out = n;
        return TRM_OK;
    }
    if (!trmi_length(value, &count))
        return trm_fail(TRM_ERR_INVALID_ARG, "object of type '%s' has no len()",
                        trmi_type_name(value));
    *out = trmi_int(count);
    return TRM_OK;
}

static trm_status join_list(trmi_run *r, const trmi_list *list, const trmi_string *between,
                            trmi_value path, trmi_output *to)
{
    for (size_t i = 0; i < list->count; i++) {
        trmi_value item;
        trmi_string *s;

        TRM_CHECK(trmi_get_path(r, list->items[i], path, &item));
        TRM_CHECK(trmi_to_string(r, item, &s));
        if (i > 0)
            TRM_CHECK(trmi_append(r, to, between->data, between->bytes));
        TRM_CHECK(trmi_append(r, to, s->data, s->bytes));
    }
    return TRM_OK;
}

static trm_status join(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    trmi_value args[2], list;
    trmi_string *between;

    TRM_CHECK(trmi_template_bind(r, call, "d attribute", 0, args));
    if (args[0].kind == TRMI_V_ABSENT)
        TRM_CHECK(trmi_make_string(r, "", 0, &args[0]));
    TRM_CHECK(trmi_to_string(r, args[0], &between));
    TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, &list));
    return trmi_take(r, join_list(r, list.as.list, between, args[1], &to), &to, out);
}

static trm_status use_default(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[2];
    bool boolean = false, yes = true;

    TRM_CHECK(trmi_template_bind(r, call, "default_value boolean", 0, args));
    TRM_CHECK(trmi_truth(r, args[1], &boolean));
    if (boolean && value.kind != TRMI_V_UNDEFINED)
        TRM_CHECK(trmi_truth(r, value, &yes));
    *out = value;
    if (value.kind != TRMI_V_UNDEFINED && yes)
        return TRM_OK;
    if (args[0].kind == TRMI_V_ABSENT)
        return trmi_make_string(r, "", 0, out);
    *out = args[0];
    return TRM_OK;
}

static trm_status first(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_iterator it;
    bool done = false;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    TRM_CHECK(trmi_iterate(r, value, &it));
    TRM_CHECK(trmi_next(r, &it, &done, out));
    return done ? empty(r, "no first item, sequence was empty", out) : TRM_OK;
}

static trm_status last(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value list;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    if (value.kind == TRMI_V_GENERATOR)
        return trm_fail(TRM_ERR_INVALID_ARG, "'generator' object is not reversible");
    if (value.kind == TRMI_V_LIST || value.kind == TRMI_V_TUPLE || value.kind == TRMI_V_STRING)
        TRM_CHECK(trmi_get_item(r, value, trmi_int(-1), out));
    else {
        TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, &list));
        TRM_CHECK(trmi_get_item(r, list, trmi_int(-1), out));
    }
    return out->kind == TRMI_V_UNDEFINED ? empty(r, "no last item, sequence was empty", out)
                                         : TRM_OK;
}

static trm_status list_of(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    return trmi_to_list(r, value, TRMI_V_LIST, out);
}

static trm_status reverse_string(trmi_run *r, const trmi_string *s, trmi_output *to)
{
    for (size_t end = s->bytes; end > 0;) {
        size_t at = end - 1;

        while (((unsigned char)s->data[at] & 0xc0) == 0x80)
            at--;
        TRM_CHECK(trmi_append(r, to, s->data + at, end - at));
        end = at;
    }
    return TRM_OK;
}

static trm_status reverse(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    trmi_list *list;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    if (value.kind == TRMI_V_STRING)
        return trmi_take(r, reverse_string(r, value.as.string, &to), &to, out);
    TRM_CHECK(trmi_to_list(r, value,
                           value.kind == TRMI_V_GENERATOR ? TRMI_V_LIST : TRMI_V_GENERATOR, out));
    list = out->as.list;
    for (size_t i = 0; i < list->count / 2; i++) {
        trmi_value v = list->items[i];

        list->items[i] = list->items[list->count - 1 - i];
        list->items[list->count - 1 - i] = v;
    }
    return trmi_charge(r, list->count);
}

static trm_status items(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_view view = {NULL, 'i'};

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    if (value.kind == TRMI_V_UNDEFINED)
        return trmi_make_list(r, TRMI_V_GENERATOR, out);
    if (value.kind != TRMI_V_DICT)
        return trm_fail(TRM_ERR_INVALID_ARG, "can only get item pairs from a mapping, not %s",
                        trmi_type_name(value));
    view.dict = value.as.dict;
    value.kind = TRMI_V_VIEW;
    value.as.view = &view;
    return trmi_to_list(r, value, TRMI_V_GENERATOR, out);
}

/* Sort keys "a.b,c" of an item: one value, or a list of them. */
static trm_status sort_key(trmi_run *r, trmi_value item, trmi_value attribute, bool sensitive,
                           trmi_value *out)
{
    const trmi_string *s = attribute.kind == TRMI_V_STRING ? attribute.as.string : NULL;
    trmi_value path, part;

    if (s == NULL || s->bytes == 0 || memchr(s->data, ',', s->bytes) == NULL) {
        TRM_CHECK(trmi_get_path(r, item, attribute, out));
        return ignore_case(r, sensitive, out);
    }
    TRM_CHECK(trmi_make_list(r, TRMI_V_LIST, out));
    for (size_t from = 0; from <= s->bytes;) {
        const char *comma = memchr(s->data + from, ',', s->bytes - from);
        size_t end = comma != NULL ? (size_t)(comma - s->data) : s->bytes;

        TRM_CHECK(trmi_borrow_string(r, s->data + from, end - from, &path));
        TRM_CHECK(trmi_get_path(r, item, path, &part));
        TRM_CHECK(ignore_case(r, sensitive, &part));
        TRM_CHECK(trmi_list_push(r, out->as.list, part));
        from = end + 1;
    }
    return TRM_OK;
}

static trm_status sorted(trmi_run *r, trmi_value list, trmi_value attribute, bool sensitive,
                         bool backwards)
{
    trmi_value *keys;
    void *block;

    TRM_CHECK(trmi_alloc(r, list.as.list->count, sizeof(*keys), &block));
    keys = block;
    for (size_t i = 0; i < list.as.list->count; i++)
        TRM_CHECK(sort_key(r, list.as.list->items[i], attribute, sensitive, &keys[i]));
    return trmi_sort(r, keys, list.as.list->items, list.as.list->count, backwards);
}

static trm_status sort(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[3];
    bool backwards = false, sensitive = false;

    TRM_CHECK(trmi_template_bind(r, call, "reverse case_sensitive attribute", 0, args));
    if (args[0].kind != TRMI_V_ABSENT && !trmi_is_int(args[0]))
        return trm_fail(TRM_ERR_INVALID_ARG, "sort: reverse is true or false, not %s",
                        trmi_type_name(args[0]));
    TRM_CHECK(trmi_truth(r, args[0], &backwards));
    TRM_CHECK(trmi_truth(r, args[1], &sensitive));
    TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, out));
    return sorted(r, *out, args[2], sensitive, backwards);
}

static trm_status dictsort(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[3];
    bool backwards = false, sensitive = false, by_value = false;
    trmi_view view = {NULL, 'i'};

    TRM_CHECK(trmi_template_bind(r, call, "case_sensitive by reverse", 0, args));
    TRM_CHECK(trmi_truth(r, args[0], &sensitive));
    TRM_CHECK(trmi_truth(r, args[2], &backwards));
    if (args[1].kind != TRMI_V_ABSENT) {
        by_value = args[1].kind == TRMI_V_STRING && trmi_string_is(args[1].as.string, "value");
        if (!by_value &&
            !(args[1].kind == TRMI_V_STRING && trmi_string_is(args[1].as.string, "key")))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "dictsort: you can only sort by either \"key\" or \"value\"");
    }
    if (value.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, value);
    if (value.kind != TRMI_V_DICT)
        return trm_fail(TRM_ERR_INVALID_ARG, "dictsort: '%s' is no mapping", trmi_type_name(value));
    view.dict = value.as.dict;
    value.kind = TRMI_V_VIEW;
    value.as.view = &view;
    TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, out));
    return sorted(r, *out, trmi_int(by_value), sensitive, backwards);
}

static trm_status unique(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[2], seen, list, key, *found;
    bool sensitive = false;

    TRM_CHECK(trmi_template_bind(r, call, "case_sensitive attribute", 0, args));
    TRM_CHECK(trmi_truth(r, args[0], &sensitive));
    TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, &list));
    TRM_CHECK(trmi_make_dict(r, TRMI_V_DICT, &seen));
    TRM_CHECK(trmi_make_list(r, TRMI_V_GENERATOR, out));
    for (size_t i = 0; i < list.as.list->count; i++) {
        TRM_CHECK(trmi_get_path(r, list.as.list->items[i], args[1], &key));
        TRM_CHECK(ignore_case(r, sensitive, &key));
        TRM_CHECK(trmi_dict_find(r, seen.as.dict, key, &found));
        if (found != NULL)
            continue;
        TRM_CHECK(trmi_dict_put(r, seen.as.dict, key, trmi_none()));
        TRM_CHECK(trmi_list_push(r, out->as.list, list.as.list->items[i]));
    }
    return TRM_OK;
}

static trm_status extreme(trmi_run *r, trmi_value value, const trmi_call *call, int wanted,
                          trmi_value *out)
{
    trmi_value args[2], list, key, best = trmi_none();
    bool sensitive = false;

    TRM_CHECK(trmi_template_bind(r, call, "case_sensitive attribute", 0, args));
    TRM_CHECK(trmi_truth(r, args[0], &sensitive));
    TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, &list));
    if (list.as.list->count == 0)
        return empty(r, "no aggregated item, sequence was empty", out);
    for (size_t i = 0; i < list.as.list->count; i++) {
        int order = wanted;

        TRM_CHECK(trmi_get_path(r, list.as.list->items[i], args[1], &key));
        TRM_CHECK(ignore_case(r, sensitive, &key));
        if (i > 0)
            TRM_CHECK(trmi_order(r, key, best, wanted < 0 ? "<" : ">", &order));
        if (order != wanted)
            continue;
        best = key;
        *out = list.as.list->items[i];
    }
    return TRM_OK;
}

static trm_status min(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    return extreme(r, value, call, -1, out);
}

static trm_status max(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    return extreme(r, value, call, 1, out);
}

static trm_status sum(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[2], item, total;
    trmi_iterator it;
    bool done = false;

    TRM_CHECK(trmi_template_bind(r, call, "attribute start", 0, args));
    total = args[1].kind == TRMI_V_ABSENT ? trmi_int(0) : args[1];
    if (total.kind == TRMI_V_STRING)
        return trm_fail(TRM_ERR_INVALID_ARG, "sum() can't sum strings");
    TRM_CHECK(trmi_iterate(r, value, &it));
    for (;;) {
        TRM_CHECK(trmi_next(r, &it, &done, &item));
        if (done)
            break;
        TRM_CHECK(trmi_get_path(r, item, args[0], &item));
        TRM_CHECK(trmi_operate(r, TRMI_TOK_ADD, total, item, &total));
    }
    *out = total;
    return TRM_OK;
}

static trm_status want_count(const trmi_call *call, trmi_value v, int64_t *out)
{
    if (!trmi_is_int(v) || trmi_as_int(v) < 1 || trmi_as_int(v) > TRMI_TEMPLATE_RANGE_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: a count is 1 to %d", call->what,
                        TRMI_TEMPLATE_RANGE_MAX);
    *out = trmi_as_int(v);
    return TRM_OK;
}

static trm_status batch(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[2], list, row = {.kind = TRMI_V_ABSENT};
    int64_t n;

    TRM_CHECK(trmi_template_bind(r, call, "linecount fill_with", 1, args));
    TRM_CHECK(want_count(call, args[0], &n));
    TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, &list));
    TRM_CHECK(trmi_make_list(r, TRMI_V_GENERATOR, out));
    for (size_t i = 0; i < list.as.list->count; i++) {
        if (i % (size_t)n == 0) {
            TRM_CHECK(trmi_make_list(r, TRMI_V_LIST, &row));
            TRM_CHECK(trmi_list_push(r, out->as.list, row));
        }
        TRM_CHECK(trmi_list_push(r, row.as.list, list.as.list->items[i]));
    }
    if (args[1].kind != TRMI_V_ABSENT && args[1].kind != TRMI_V_NONE && row.kind == TRMI_V_LIST)
        while (row.as.list->count < (size_t)n)
            TRM_CHECK(trmi_list_push(r, row.as.list, args[1]));
    return TRM_OK;
}

static trm_status slice(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[2], list, part;
    size_t n, each, extra, at = 0;
    int64_t slices;

    TRM_CHECK(trmi_template_bind(r, call, "slices fill_with", 1, args));
    TRM_CHECK(want_count(call, args[0], &slices));
    TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, &list));
    TRM_CHECK(trmi_make_list(r, TRMI_V_GENERATOR, out));
    n = (size_t)slices;
    each = list.as.list->count / n;
    extra = list.as.list->count % n;
    for (size_t i = 0; i < n; i++) {
        TRM_CHECK(trmi_make_list(r, TRMI_V_LIST, &part));
        for (size_t k = 0; k < each + (i < extra); k++)
            TRM_CHECK(trmi_list_push(r, part.as.list, list.as.list->items[at++]));
        if (args[1].kind != TRMI_V_ABSENT && args[1].kind != TRMI_V_NONE && i >= extra)
            TRM_CHECK(trmi_list_push(r, part.as.list, args[1]));
        TRM_CHECK(trmi_list_push(r, out->as.list, part));
    }
    return TRM_OK;
}

static trm_status attr(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value name;

    TRM_CHECK(trmi_template_bind(r, call, "name", 1, &name));
    if (name.kind != TRMI_V_STRING)
        return trm_fail(TRM_ERR_INVALID_ARG, "attr: a name is a string");
    if (value.kind == TRMI_V_DICT && trmi_find_method(value, name.as.string) == NULL)
        return trmi_make_undefined(r, name.as.string, value, NULL, out); /* no items by attr() */
    return trmi_get_attribute(r, value, name.as.string, out);
}

const trmi_filter trmi_filters_sequence[] = {
    {"length", length},   {"count", length}, {"join", join}, {"default", use_default},
    {"d", use_default},   {"first", first},  {"last", last}, {"list", list_of},
    {"reverse", reverse}, {"items", items},  {"sort", sort}, {"dictsort", dictsort},
    {"unique", unique},   {"min", min},      {"max", max},   {"sum", sum},
    {"batch", batch},     {"slice", slice},  {"attr", attr}, {"groupby", NULL},
    {NULL, NULL},
};
