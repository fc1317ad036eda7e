/* The filter tojson as transformers has it (json.dumps without HTML escapes), and variables from
 * JSON. */
#include "model/template/template_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct writer {
    trmi_run *r;
    trmi_output to;
    bool ascii, sort;
    const trmi_string *indent; /* NULL: one line */
    const char *between, *colon;
    size_t between_bytes, colon_bytes;
} writer;

static trm_status write_value(writer *w, trmi_value v, size_t level);

static trm_status put(writer *w, const char *text)
{
    return trmi_append_text(w->r, &w->to, text);
}

static trm_status write_string(writer *w, const trmi_string *s)
{
    static const char plain[] = "\"\\\n\r\t\f\b", means[] = "\"\\nrtfb";
    size_t from = 0;
    char text[16];

    TRM_CHECK(put(w, "\""));
    for (size_t i = 0; i < s->bytes;) {
        size_t n;
        int32_t c = trmi_decode(s->data + i, s->bytes - i, &n);
        const char *known = c > 0 && c < 0x80 ? strchr(plain, (char)c) : NULL;

        if (known == NULL && c >= 0x20 && (c < 0x7f || !w->ascii || c == 0x7f)) {
            i += n;
            continue;
        }
        TRM_CHECK(trmi_append(w->r, &w->to, s->data + from, i - from));
        if (known != NULL)
            snprintf(text, sizeof(text), "\\%c", means[known - plain]);
        else if (c < 0x10000)
            snprintf(text, sizeof(text), "\\u%04x", (unsigned)c);
        else
            snprintf(text, sizeof(text), "\\u%04x\\u%04x",
                     0xd800u + ((unsigned)(c - 0x10000) >> 10),
                     0xdc00u + ((unsigned)(c - 0x10000) & 0x3ff));
        TRM_CHECK(put(w, text));
        i += n;
        from = i;
    }
    TRM_CHECK(trmi_append(w->r, &w->to, s->data + from, s->bytes - from));
    return put(w, "\"");
}

static trm_status write_scalar(writer *w, trmi_value v)
{
    char text[40];

    if (v.kind == TRMI_V_NONE)
        return put(w, "null");
    if (v.kind == TRMI_V_BOOL)
        return put(w, v.as.truth ? "true" : "false");
    if (v.kind == TRMI_V_INT) {
        snprintf(text, sizeof(text), "%" PRId64, v.as.integer);
        return put(w, text);
    }
    if (isnan(v.as.real))
        return put(w, "NaN");
    if (isinf(v.as.real))
        return put(w, v.as.real < 0 ? "-Infinity" : "Infinity");
    trmi_real_text(v.as.real, text);
    return put(w, text);
}

static trm_status write_newline(writer *w, size_t level)
{
    if (w->indent == NULL)
        return TRM_OK;
    TRM_CHECK(put(w, "\n"));
    for (size_t i = 0; i < level; i++)
        TRM_CHECK(trmi_append(w->r, &w->to, w->indent->data, w->indent->bytes));
    return TRM_OK;
}

static trm_status write_between(writer *w, size_t i, size_t level)
{
    if (i > 0)
        TRM_CHECK(trmi_append(w->r, &w->to, w->between, w->between_bytes));
    return write_newline(w, level);
}

static trm_status write_list(writer *w, const trmi_list *list, size_t level)
{
    if (list->count == 0)
        return put(w, "[]");
    TRM_CHECK(put(w, "["));
    for (size_t i = 0; i < list->count; i++) {
        TRM_CHECK(write_between(w, i, level + 1));
        TRM_CHECK(write_value(w, list->items[i], level + 1));
    }
    TRM_CHECK(write_newline(w, level));
    return put(w, "]");
}

static trm_status write_key(writer *w, trmi_value key)
{
    if (key.kind == TRMI_V_STRING)
        return write_string(w, key.as.string);
    if (key.kind != TRMI_V_NONE && !trmi_is_number(key))
        return trm_fail(TRM_ERR_INVALID_ARG, "keys must be str, int, float, bool or None, not %s",
                        trmi_type_name(key));
    TRM_CHECK(put(w, "\""));
    TRM_CHECK(write_scalar(w, key));
    return put(w, "\"");
}

static trm_status write_dict(writer *w, const trmi_dict *d, size_t level)
{
    trmi_value *keys, *values;
    void *block;

    if (d->count == 0)
        return put(w, "{}");
    TRM_CHECK(trmi_alloc(w->r, d->count * 2, sizeof(*keys), &block));
    keys = block;
    values = keys + d->count;
    for (size_t i = 0; i < d->count; i++) {
        keys[i] = d->pairs[i].key;
        values[i] = d->pairs[i].value;
    }
    if (w->sort)
        TRM_CHECK(trmi_sort(w->r, keys, values, d->count, false));
    TRM_CHECK(put(w, "{"));
    for (size_t i = 0; i < d->count; i++) {
        TRM_CHECK(write_between(w, i, level + 1));
        TRM_CHECK(write_key(w, keys[i]));
        TRM_CHECK(trmi_append(w->r, &w->to, w->colon, w->colon_bytes));
        TRM_CHECK(write_value(w, values[i], level + 1));
    }
    TRM_CHECK(write_newline(w, level));
    return put(w, "}");
}

static trm_status write_value(writer *w, trmi_value v, size_t level)
{
    switch (v.kind) {
    case TRMI_V_STRING:
        return write_string(w, v.as.string);
    case TRMI_V_NONE:
    case TRMI_V_BOOL:
    case TRMI_V_INT:
    case TRMI_V_FLOAT:
        return write_scalar(w, v);
    case TRMI_V_LIST:
    case TRMI_V_TUPLE:
        TRM_CHECK(trmi_enter(w->r));
        TRM_CHECK(write_list(w, v.as.list, level));
        break;
    case TRMI_V_DICT:
        TRM_CHECK(trmi_enter(w->r));
        TRM_CHECK(write_dict(w, v.as.dict, level));
        break;
    default:
        return trm_fail(TRM_ERR_INVALID_ARG, "object of type %s is not JSON serializable",
                        trmi_type_name(v));
    }
    trmi_leave(w->r);
    return TRM_OK;
}

static trm_status set_separators(writer *w, trmi_value v)
{
    trmi_value list;

    w->between = w->indent == NULL ? ", " : ",";
    w->colon = ": ";
    if (v.kind != TRMI_V_ABSENT && v.kind != TRMI_V_NONE) {
        TRM_CHECK(trmi_to_list(w->r, v, TRMI_V_LIST, &list));
        if (list.as.list->count != 2 || list.as.list->items[0].kind != TRMI_V_STRING ||
            list.as.list->items[1].kind != TRMI_V_STRING)
            return trm_fail(TRM_ERR_INVALID_ARG, "tojson: separators are two strings");
        w->between = list.as.list->items[0].as.string->data;
        w->between_bytes = list.as.list->items[0].as.string->bytes;
        w->colon = list.as.list->items[1].as.string->data;
        w->colon_bytes = list.as.list->items[1].as.string->bytes;
        return TRM_OK;
    }
    w->between_bytes = strlen(w->between);
    w->colon_bytes = strlen(w->colon);
    return TRM_OK;
}

trm_status trmi_filter_tojson(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    writer w = {.r = r};
    trmi_value args[4], indent;

    TRM_CHECK(trmi_template_bind(r, call, "ensure_ascii indent separators sort_keys", 0, args));
    TRM_CHECK(trmi_truth(r, args[0], &w.ascii));
    TRM_CHECK(trmi_truth(r, args[3], &w.sort));
    if (trmi_is_int(args[1])) {
        TRM_CHECK(trmi_make_string(r, " ", 1, &indent));
        TRM_CHECK(trmi_operate(r, TRMI_TOK_MUL, indent, args[1], &indent));
        w.indent = indent.as.string;
    } else if (args[1].kind == TRMI_V_STRING) {
        w.indent = args[1].as.string;
    } else if (args[1].kind != TRMI_V_ABSENT && args[1].kind != TRMI_V_NONE) {
        return trm_fail(TRM_ERR_INVALID_ARG, "tojson: indent is a number or a string, not %s",
                        trmi_type_name(args[1]));
    }
    TRM_CHECK(set_separators(&w, args[2]));
    return trmi_take(r, write_value(&w, value, 0), &w.to, out);
}

trm_status trmi_from_json(trmi_run *r, const json_t *json, trmi_value *out)
{
    trmi_value item;

    switch (json_typeof(json)) {
    case JSON_NULL:
        *out = trmi_none();
        return TRM_OK;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = trmi_bool(json_typeof(json) == JSON_TRUE);
        return TRM_OK;
    case JSON_INTEGER:
        *out = trmi_int(json_integer_value(json));
        return TRM_OK;
    case JSON_REAL:
        *out = trmi_float(json_real_value(json));
        return TRM_OK;
    case JSON_STRING:
        return trmi_borrow_string(r, json_string_value(json), json_string_length(json), out);
    default:
        break;
    }
    TRM_CHECK(trmi_enter(r));
    if (json_is_array(json)) {
        TRM_CHECK(trmi_make_list(r, TRMI_V_LIST, out));
        for (size_t i = 0; i < json_array_size(json); i++) {
            TRM_CHECK(trmi_from_json(r, json_array_get(json, i), &item));
            TRM_CHECK(trmi_list_push(r, out->as.list, item));
        }
    } else {
        const char *key;
        json_t *value;
        trmi_value name;

        TRM_CHECK(trmi_make_dict(r, TRMI_V_DICT, out));
        json_object_foreach((json_t *)(uintptr_t)json, key, value)
        {
            TRM_CHECK(trmi_borrow_string(r, key, strlen(key), &name));
            TRM_CHECK(trmi_from_json(r, value, &item));
            TRM_CHECK(trmi_dict_put(r, out->as.dict, name, item));
        }
    }
    trmi_leave(r);
    return TRM_OK;
}
