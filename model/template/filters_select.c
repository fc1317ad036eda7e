/* map, select, reject, selectattr, rejectattr; where filters are looked up. */
#include "model/template/template_impl.h"

#include <string.h>

/* The call less its first `skip` positional arguments. */
static trmi_call rest_of(const trmi_call *call, size_t skip, const char *what)
{
    trmi_call rest = *call;

    rest.what = what;
    if (skip > 0)
        rest.items += skip;
    rest.count -= skip;
    return rest;
}

static trm_status map_attribute(trmi_run *r, const trmi_list *list, const trmi_call *call,
                                trmi_list *to)
{
    trmi_value args[2];

    TRM_CHECK(trmi_template_bind(r, call, "attribute default", 1, args));
    for (size_t i = 0; i < list->count; i++) {
        trmi_value v;

        TRM_CHECK(trmi_get_path(r, list->items[i], args[0], &v));
        if (v.kind == TRMI_V_UNDEFINED && args[1].kind != TRMI_V_ABSENT &&
            args[1].kind != TRMI_V_NONE)
            v = args[1];
        TRM_CHECK(trmi_list_push(r, to, v));
    }
    return TRM_OK;
}

static trm_status map(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    const trmi_filter *filter;
    trmi_value list, v;
    trmi_call rest;
    bool some = false;

    TRM_CHECK(trmi_make_list(r, TRMI_V_GENERATOR, out));
    TRM_CHECK(trmi_truth(r, value, &some));
    if (!some) /* none, 0, undefined: nothing to map */
        return TRM_OK;
    TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, &list));
    if (call->count == 0)
        return map_attribute(r, list.as.list, call, out->as.list);
    if (call->items[0].kind != TRMI_V_STRING)
        return trm_fail(TRM_ERR_INVALID_ARG, "map: the name of a filter is a string");
    filter = trmi_find_filter(call->items[0].as.string->data, call->items[0].as.string->bytes);
    if (filter == NULL || filter->apply == NULL)
        return trm_fail(
            TRM_ERR_UNSUPPORTED, "map: no filter '%.*s'",
            (int)(call->items[0].as.string->bytes < 100 ? call->items[0].as.string->bytes : 100),
            call->items[0].as.string->data);
    rest = rest_of(call, 1, filter->name);
    TRM_CHECK(trmi_enter(r)); /* map('map', 'map', ...) */
    for (size_t i = 0; i < list.as.list->count; i++) {
        TRM_CHECK(filter->apply(r, list.as.list->items[i], &rest, &v));
        TRM_CHECK(trmi_list_push(r, out->as.list, v));
    }
    trmi_leave(r);
    return TRM_OK;
}

static trm_status choose(trmi_run *r, trmi_value value, const trmi_call *call, bool attribute,
                         bool keep, trmi_value *out)
{
    size_t skip = attribute ? 1 : 0;
    const trmi_test *test = NULL;
    trmi_value list, item, name;
    trmi_call rest;

    if (attribute && call->count == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: the name of an attribute is missing", call->what);
    if (call->count > skip) {
        name = call->items[skip];
        if (name.kind == TRMI_V_STRING)
            test = trmi_find_test(name.as.string->data, name.as.string->bytes);
        if (test == NULL)
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s: no such test", call->what);
        skip++;
    }
    rest = rest_of(call, skip, test != NULL ? test->name : call->what);
    TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, &list));
    TRM_CHECK(trmi_make_list(r, TRMI_V_GENERATOR, out));
    for (size_t i = 0; i < list.as.list->count; i++) {
        bool yes = false;

        item = list.as.list->items[i];
        if (attribute)
            TRM_CHECK(trmi_get_path(r, item, call->items[0], &item));
        if (test != NULL)
            TRM_CHECK(test->apply(r, item, &rest, &yes));
        else
            TRM_CHECK(trmi_truth(r, item, &yes));
        if (yes == keep)
            TRM_CHECK(trmi_list_push(r, out->as.list, list.as.list->items[i]));
    }
    return TRM_OK;
}

static trm_status choose_of(trmi_run *r, trmi_value value, const trmi_call *call, bool attribute,
                            bool keep, trmi_value *out)
{
    bool some = false;

    TRM_CHECK(trmi_truth(r, value, &some));
    if (!some) /* none, 0, undefined: nothing to choose from */
        return trmi_make_list(r, TRMI_V_GENERATOR, out);
    return choose(r, value, call, attribute, keep, out);
}

static trm_status select_items(trmi_run *r, trmi_value value, const trmi_call *call,
                               trmi_value *out)
{
    return choose_of(r, value, call, false, true, out);
}

static trm_status reject_items(trmi_run *r, trmi_value value, const trmi_call *call,
                               trmi_value *out)
{
    return choose_of(r, value, call, false, false, out);
}

static trm_status selectattr(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    return choose_of(r, value, call, true, true, out);
}

static trm_status rejectattr(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    return choose_of(r, value, call, true, false, out);
}

const trmi_filter trmi_filters_select[] = {
    {"map", map},
    {"select", select_items},
    {"reject", reject_items},
    {"selectattr", selectattr},
    {"rejectattr", rejectattr},
    {NULL, NULL},
};

const trmi_filter *trmi_find_filter(const char *name, size_t bytes)
{
    const trmi_filter *const tables[] = {trmi_filters_text, trmi_filters_sequence,
                                         trmi_filters_select};

    for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
        for (const trmi_filter *f = tables[t]; f->name != NULL; f++)
            if (strlen(f->name) == bytes && memcmp(f->name, name, bytes) == 0)
                return f;
    return NULL;
}
