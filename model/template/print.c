/* str() and repr() of values, and the buffers they are written to. */
#include "model/template/template_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

trm_status trmi_append(trmi_run *r, trmi_output *to, const char *data, size_t bytes)
{
    if (bytes > TRMI_TEMPLATE_BYTES_MAX - r->bytes)
        return trm_fail(TRM_ERR_UNSUPPORTED, "more than %zu bytes of values and text",
                        TRMI_TEMPLATE_BYTES_MAX);
    TRM_CHECK(trmi_charge(r, 1 + bytes / 64));
    r->bytes += bytes;
    if (bytes > to->room - to->bytes) {
        size_t room = to->room * 2 > to->bytes + bytes ? to->room * 2 : to->bytes + bytes + 64;
        char *grown = trm_realloc(to->data, room, 1);

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes of text", room);
        to->data = grown;
        to->room = room;
    }
    if (bytes > 0)
        memcpy(to->data + to->bytes, data, bytes);
    to->bytes += bytes;
    return TRM_OK;
}

trm_status trmi_append_text(trmi_run *r, trmi_output *to, const char *text)
{
    return trmi_append(r, to, text, strlen(text));
}

trm_status trmi_take(trmi_run *r, trm_status st, trmi_output *from, trmi_value *out)
{
    if (st == TRM_OK)
        st = trmi_make_string(r, from->data, from->bytes, out);
    trm_free(from->data);
    memset(from, 0, sizeof(*from));
    return st;
}

void trmi_real_text(double d, char text[40])
{
    char digits[40];
    char *e;
    int precision = 0, exponent, n;

    if (isnan(d) || isinf(d)) {
        snprintf(text, 40, "%s", isnan(d) ? "nan" : d < 0 ? "-inf" : "inf");
        return;
    }
    do { /* the fewest digits that read back as d */
        snprintf(digits, sizeof(digits), "%.*e", precision, d);
    } while (strtod(digits, NULL) != d && ++precision < 17);
    e = strchr(digits, 'e');
    exponent = e != NULL ? (int)strtol(e + 1, NULL, 10) : 0;
    if (exponent < -4 || exponent >= 16) {
        if (e != NULL)
            *e = '\0';
        snprintf(text, 40, "%.30se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent) % 1000);
        return;
    }
    n = precision - exponent; /* digits after the point */
    snprintf(text, 40, "%.*f", n > 1 ? n : 1, d);
}

static trm_status repr_string(trmi_run *r, const trmi_string *s, trmi_output *to)
{
    bool single = s->bytes > 0 && memchr(s->data, '\'', s->bytes) != NULL;
    bool twice = s->bytes > 0 && memchr(s->data, '"', s->bytes) != NULL;
    char quote = single && !twice ? '"' : '\'', text[16];

    TRM_CHECK(trmi_append(r, to, &quote, 1));
    for (size_t i = 0; i < s->bytes;) {
        size_t n;
        int32_t c = trmi_decode(s->data + i, s->bytes - i, &n);

        if (c == quote || c == '\\')
            snprintf(text, sizeof(text), "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            snprintf(text, sizeof(text), "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else if (trmi_is_printable(c))
            text[0] = '\0';
        else
            snprintf(text, sizeof(text),
                     c < 0x100     ? "\\x%02x"
                     : c < 0x10000 ? "\\u%04x"
                                   : "\\U%08x",
                     (unsigned)c);
        if (text[0] != '\0')
            TRM_CHECK(trmi_append_text(r, to, text));
        else
            TRM_CHECK(trmi_append(r, to, s->data + i, n));
        i += n;
    }
    return trmi_append(r, to, &quote, 1);
}

static trm_status repr_list(trmi_run *r, const trmi_list *list, const char *open, const char *close,
                            trmi_output *to)
{
    TRM_CHECK(trmi_append_text(r, to, open));
    for (size_t i = 0; i < list->count; i++) {
        if (i > 0)
            TRM_CHECK(trmi_append_text(r, to, ", "));
        TRM_CHECK(trmi_repr(r, list->items[i], to));
    }
    if (list->count == 1 && *close == ')')
        TRM_CHECK(trmi_append_text(r, to, ","));
    return trmi_append_text(r, to, close);
}

static trm_status repr_dict(trmi_run *r, const trmi_dict *d, trmi_output *to)
{
    TRM_CHECK(trmi_append_text(r, to, "{"));
    for (size_t i = 0; i < d->count; i++) {
        if (i > 0)
            TRM_CHECK(trmi_append_text(r, to, ", "));
        TRM_CHECK(trmi_repr(r, d->pairs[i].key, to));
        TRM_CHECK(trmi_append_text(r, to, ": "));
        TRM_CHECK(trmi_repr(r, d->pairs[i].value, to));
    }
    return trmi_append_text(r, to, "}");
}

static trm_status repr_view(trmi_run *r, trmi_value v, trmi_output *to)
{
    int what = v.as.view->what;
    trmi_value list;

    TRM_CHECK(trmi_append_text(r, to,
                               what == 'k'   ? "dict_keys("
                               : what == 'v' ? "dict_values("
                                             : "dict_items("));
    TRM_CHECK(trmi_to_list(r, v, TRMI_V_LIST, &list));
    TRM_CHECK(repr_list(r, list.as.list, "[", "]", to));
    return trmi_append_text(r, to, ")");
}

static trm_status repr_range(trmi_run *r, const trmi_range *range, trmi_output *to)
{
    char text[96];

    if (range->step == 1)
        snprintf(text, sizeof(text), "range(%" PRId64 ", %" PRId64 ")", range->start, range->stop);
    else
        snprintf(text, sizeof(text), "range(%" PRId64 ", %" PRId64 ", %" PRId64 ")", range->start,
                 range->stop, range->step);
    return trmi_append_text(r, to, text);
}

static trm_status repr_loop(trmi_run *r, trmi_loop *loop, trmi_output *to)
{
    static const trmi_string name = {"length", 6, 6, NULL, false};
    bool found = false;
    trmi_value length;
    char text[80];

    TRM_CHECK(trmi_loop_attribute(r, loop, &name, &found, &length));
    snprintf(text, sizeof(text), "<LoopContext %" PRId64 "/%" PRId64 ">", loop->index0 + 1,
             length.as.integer);
    return trmi_append_text(r, to, text);
}

static trm_status repr_compound(trmi_run *r, trmi_value v, trmi_output *to)
{
    switch (v.kind) {
    case TRMI_V_LIST:
        return repr_list(r, v.as.list, "[", "]", to);
    case TRMI_V_TUPLE:
        return repr_list(r, v.as.list, "(", ")", to);
    case TRMI_V_DICT:
        return repr_dict(r, v.as.dict, to);
    case TRMI_V_NAMESPACE:
        TRM_CHECK(trmi_append_text(r, to, "<Namespace "));
        TRM_CHECK(repr_dict(r, v.as.dict, to));
        return trmi_append_text(r, to, ">");
    case TRMI_V_VIEW:
        return repr_view(r, v, to);
    case TRMI_V_RANGE:
        return repr_range(r, v.as.range, to);
    case TRMI_V_LOOP:
        return repr_loop(r, v.as.loop, to);
    default: /* Python prints an address, which no template can want */
        TRM_CHECK(trmi_append_text(r, to, "<"));
        TRM_CHECK(trmi_append_text(r, to, trmi_type_name(v)));
        return trmi_append_text(r, to, ">");
    }
}

trm_status trmi_repr(trmi_run *r, trmi_value v, trmi_output *to)
{
    char text[40];

    switch (v.kind) {
    case TRMI_V_STRING:
        if (!v.as.string->markup)
            return repr_string(r, v.as.string, to);
        TRM_CHECK(trmi_append_text(r, to, "Markup("));
        TRM_CHECK(repr_string(r, v.as.string, to));
        return trmi_append_text(r, to, ")");
    case TRMI_V_NONE:
        return trmi_append_text(r, to, "None");
    case TRMI_V_BOOL:
        return trmi_append_text(r, to, v.as.truth ? "True" : "False");
    case TRMI_V_INT:
        snprintf(text, sizeof(text), "%" PRId64, v.as.integer);
        return trmi_append_text(r, to, text);
    case TRMI_V_FLOAT:
        trmi_real_text(v.as.real, text);
        return trmi_append_text(r, to, text);
    case TRMI_V_UNDEFINED:
        return trmi_append_text(r, to, "Undefined");
    default:
        break;
    }
    TRM_CHECK(trmi_enter(r));
    TRM_CHECK(repr_compound(r, v, to));
    trmi_leave(r);
    return TRM_OK;
}

trm_status trmi_to_string(trmi_run *r, trmi_value v, trmi_string **out)
{
    trmi_output o = {NULL, 0, 0};
    trmi_value text;
    trm_status st = TRM_OK;

    if (v.kind == TRMI_V_STRING) {
        *out = v.as.string;
        return TRM_OK;
    }
    if (v.kind != TRMI_V_UNDEFINED)
        st = trmi_repr(r, v, &o);
    TRM_CHECK(trmi_take(r, st, &o, &text));
    *out = text.as.string;
    return TRM_OK;
}
