/* The globals of a chat template: range, dict, namespace, cycler, joiner, raise_exception,
 * strftime_now. */
#include "model/template/template_impl.h"

static trm_status range(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_value args[3];
    int64_t bounds[3] = {0, 0, 1};
    trmi_range *range;
    void *block;
    __int128 count;

    (void)self;
    TRM_CHECK(trmi_template_bind(r, call, "start stop step", 1, args));
    for (int i = 0; i < 3; i++) {
        if (args[i].kind == TRMI_V_ABSENT)
            continue;
        if (args[i].kind == TRMI_V_UNDEFINED)
            return trmi_fail_undefined(r, args[i]);
        if (!trmi_is_int(args[i]))
            return trm_fail(TRM_ERR_INVALID_ARG, "'%s' object cannot be interpreted as an integer",
                            trmi_type_name(args[i]));
        bounds[i] = trmi_as_int(args[i]);
    }
    if (args[1].kind == TRMI_V_ABSENT) {
        bounds[1] = bounds[0];
        bounds[0] = 0;
    }
    if (bounds[2] == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "range() arg 3 must not be zero");
    if (bounds[2] > 0)
        count = ((__int128)bounds[1] - bounds[0] + bounds[2] - 1) / bounds[2];
    else
        count = ((__int128)bounds[0] - bounds[1] - bounds[2] - 1) / -(__int128)bounds[2];
    if (count < 0)
        count = 0;
    if (count > TRMI_TEMPLATE_RANGE_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "range too big: the sandbox blocks ranges over %d",
                        TRMI_TEMPLATE_RANGE_MAX);
    TRM_CHECK(trmi_alloc(r, 1, sizeof(*range), &block));
    range = block;
    range->start = bounds[0];
    range->stop = bounds[1];
    range->step = bounds[2];
    range->count = (size_t)count;
    out->kind = TRMI_V_RANGE;
    out->as.range = range;
    return TRM_OK;
}

static trm_status put_pairs(trmi_run *r, trmi_dict *d, trmi_value from)
{
    trmi_value item, pair;
    trmi_iterator it;
    bool done = false;

    if (from.kind == TRMI_V_DICT || from.kind == TRMI_V_NAMESPACE) {
        for (size_t i = 0; i < from.as.dict->count; i++)
            TRM_CHECK(
                trmi_dict_put(r, d, from.as.dict->pairs[i].key, from.as.dict->pairs[i].value));
        return TRM_OK;
    }
    TRM_CHECK(trmi_iterate(r, from, &it));
    for (;;) {
        TRM_CHECK(trmi_next(r, &it, &done, &item));
        if (done)
            return TRM_OK;
        TRM_CHECK(trmi_to_list(r, item, TRMI_V_LIST, &pair));
        if (pair.as.list->count != 2)
            return trm_fail(TRM_ERR_INVALID_ARG, "dict(): an element has %zu items, wanted 2",
                            pair.as.list->count);
        TRM_CHECK(trmi_dict_put(r, d, pair.as.list->items[0], pair.as.list->items[1]));
    }
}

static trm_status make_mapping(trmi_run *r, trmi_kind kind, const trmi_call *call, trmi_value *out)
{
    trmi_value made;

    TRM_CHECK(trmi_make_dict(r, kind, &made));
    if (call->count > 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s() takes at most one positional argument",
                        call->what);
    if (call->count == 1)
        TRM_CHECK(put_pairs(r, made.as.dict, call->items[0]));
    for (size_t i = 0; i < call->keyword_count; i++)
        TRM_CHECK(trmi_dict_put(r, made.as.dict, call->keywords[i].key, call->keywords[i].value));
    *out = made;
    return TRM_OK;
}

static trm_status dict(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    (void)self;
    return make_mapping(r, TRMI_V_DICT, call, out);
}

static trm_status namespace_of(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    (void)self;
    TRM_CHECK(make_mapping(r, TRMI_V_NAMESPACE, call, out));
    for (size_t i = 0; i < out->as.dict->count; i++) {
        trmi_value key = out->as.dict->pairs[i].key;

        if (key.kind == TRMI_V_STRING && key.as.string->bytes > 0 && key.as.string->data[0] == '_')
            return trm_fail(TRM_ERR_INVALID_ARG, "an attribute of a namespace begins with '_'");
    }
    return TRM_OK;
}

static trm_status cycler(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_cycler *c;
    trmi_value list;
    void *block;

    (void)self;
    if (call->count == 0 || call->keyword_count > 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "cycler: at least one item has to be provided");
    TRM_CHECK(trmi_alloc(r, 1, sizeof(*c), &block));
    c = block;
    TRM_CHECK(trmi_make_list(r, TRMI_V_TUPLE, &list));
    list.as.list->items = call->items;
    list.as.list->count = call->count;
    c->items = list.as.list;
    out->kind = TRMI_V_CYCLER;
    out->as.cycler = c;
    return TRM_OK;
}

static trm_status joiner(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_cycler *c;
    trmi_value separator;
    void *block;

    (void)self;
    TRM_CHECK(trmi_template_bind(r, call, "sep", 0, &separator));
    if (separator.kind == TRMI_V_ABSENT)
        TRM_CHECK(trmi_make_string(r, ", ", 2, &separator));
    TRM_CHECK(trmi_alloc(r, 1, sizeof(*c), &block));
    c = block;
    TRM_CHECK(trmi_to_string(r, separator, &c->separator));
    out->kind = TRMI_V_JOINER;
    out->as.cycler = c;
    return TRM_OK;
}

static trm_status raise_exception(trmi_run *r, trmi_value self, const trmi_call *call,
                                  trmi_value *out)
{
    trmi_value message;
    trmi_string *text;

    (void)self;
    (void)out;
    TRM_CHECK(trmi_template_bind(r, call, "message", 1, &message));
    TRM_CHECK(trmi_to_string(r, message, &text));
    return trm_fail(TRM_ERR_INVALID_ARG, "%.*s", (int)(text->bytes < 900 ? text->bytes : 900),
                    text->data);
}

static trm_status strftime_now(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_value format;

    (void)self;
    TRM_CHECK(trmi_template_bind(r, call, "format", 1, &format));
    if (format.kind != TRMI_V_STRING)
        return trm_fail(TRM_ERR_INVALID_ARG, "strftime_now: a format is a string, not %s",
                        trmi_type_name(format));
    return trmi_strftime(r, format.as.string, out);
}

static trm_status lipsum(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    (void)r;
    (void)self;
    (void)call;
    (void)out;
    return trm_fail(TRM_ERR_UNSUPPORTED, "lipsum (Jinja has it, Trireme does not)");
}

const trmi_function *trmi_find_global(const trmi_string *name)
{
    static const trmi_function globals[] = {
        {"range", range},
        {"dict", dict},
        {"namespace", namespace_of},
        {"cycler", cycler},
        {"joiner", joiner},
        {"raise_exception", raise_exception},
        {"strftime_now", strftime_now},
        {"lipsum", lipsum},
    };

    for (size_t i = 0; i < sizeof(globals) / sizeof(globals[0]); i++)
        if (trmi_string_is(name, globals[i].name))
            return &globals[i];
    return NULL;
}
