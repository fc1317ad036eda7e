/* Walking over values, as iter() does: strings by code point, dicts by key; generators once. */
#include "model/template/template_impl.h"

trm_status trmi_iterate(trmi_run *r, trmi_value of, trmi_iterator *it)
{
    (void)r;
    it->of = of;
    it->at = 0;
    switch (of.kind) {
    case TRMI_V_UNDEFINED:
    case TRMI_V_STRING:
    case TRMI_V_LIST:
    case TRMI_V_TUPLE:
    case TRMI_V_DICT:
    case TRMI_V_RANGE:
    case TRMI_V_VIEW:
    case TRMI_V_GENERATOR:
        return TRM_OK;
    default:
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s' object is not iterable", trmi_type_name(of));
    }
}

static trm_status next_of_view(trmi_run *r, const trmi_view *view, size_t at, trmi_value *out)
{
    const trmi_pair *pair = &view->dict->pairs[at];

    if (view->what != 'i') {
        *out = view->what == 'k' ? pair->key : pair->value;
        return TRM_OK;
    }
    TRM_CHECK(trmi_make_list(r, TRMI_V_TUPLE, out));
    TRM_CHECK(trmi_list_push(r, out->as.list, pair->key));
    return trmi_list_push(r, out->as.list, pair->value);
}

trm_status trmi_next(trmi_run *r, trmi_iterator *it, bool *done, trmi_value *out)
{
    const trmi_value of = it->of;
    size_t n;

    TRM_CHECK(trmi_charge(r, 1));
    *done = true;
    switch (of.kind) {
    case TRMI_V_STRING:
        if (it->at >= of.as.string->bytes)
            return TRM_OK;
        (void)trmi_decode(of.as.string->data + it->at, of.as.string->bytes - it->at, &n);
        TRM_CHECK(trmi_make_string(r, of.as.string->data + it->at, n, out));
        it->at += n;
        break;
    case TRMI_V_LIST:
    case TRMI_V_TUPLE:
        if (it->at >= of.as.list->count)
            return TRM_OK;
        *out = of.as.list->items[it->at++];
        break;
    case TRMI_V_GENERATOR:
        if (of.as.list->walked >= of.as.list->count)
            return TRM_OK;
        *out = of.as.list->items[of.as.list->walked++];
        break;
    case TRMI_V_DICT:
        if (it->at >= of.as.dict->count)
            return TRM_OK;
        *out = of.as.dict->pairs[it->at++].key;
        break;
    case TRMI_V_VIEW:
        if (it->at >= of.as.view->dict->count)
            return TRM_OK;
        TRM_CHECK(next_of_view(r, of.as.view, it->at++, out));
        break;
    case TRMI_V_RANGE:
        if (it->at >= of.as.range->count)
            return TRM_OK;
        *out = trmi_int(of.as.range->start + (int64_t)it->at++ * of.as.range->step);
        break;
    default:
        return TRM_OK; /* UNDEFINED: nothing */
    }
    *done = false;
    return TRM_OK;
}

trm_status trmi_to_list(trmi_run *r, trmi_value of, trmi_kind kind, trmi_value *out)
{
    trmi_value list, item;
    trmi_iterator it;
    bool done = false;

    TRM_CHECK(trmi_iterate(r, of, &it));
    TRM_CHECK(trmi_make_list(r, kind, &list));
    for (;;) {
        TRM_CHECK(trmi_next(r, &it, &done, &item));
        if (done)
            break;
        TRM_CHECK(trmi_list_push(r, list.as.list, item));
    }
    *out = list;
    return TRM_OK;
}

bool trmi_length(trmi_value v, int64_t *out)
{
    switch (v.kind) {
    case TRMI_V_UNDEFINED:
        *out = 0;
        return true;
    case TRMI_V_STRING:
        *out = (int64_t)trmi_chars(v.as.string);
        return true;
    case TRMI_V_LIST:
    case TRMI_V_TUPLE:
        *out = (int64_t)v.as.list->count;
        return true;
    case TRMI_V_DICT:
        *out = (int64_t)v.as.dict->count;
        return true;
    case TRMI_V_VIEW:
        *out = (int64_t)v.as.view->dict->count;
        return true;
    case TRMI_V_RANGE:
        *out = (int64_t)v.as.range->count;
        return true;
    default:
        return false;
    }
}
