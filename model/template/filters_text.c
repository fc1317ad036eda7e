/* Filters that give text or numbers. Where Jinja says soft_str() any value is taken as its str().
 */
#include "model/template/template_impl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The method of that name on str(value). */
static trm_status as_method(trmi_run *r, trmi_value value, const char *name, const trmi_call *call,
                            trmi_value *out)
{
    trmi_string named = {name, strlen(name), SIZE_MAX, NULL, false};
    trmi_value s;

    s.kind = TRMI_V_STRING;
    TRM_CHECK(trmi_to_string(r, value, &s.as.string));
    TRM_CHECK(trmi_find_method(s, &named)->apply(r, s, call, out));
    return s.as.string->markup ? trmi_mark(r, *out, out) : TRM_OK;
}

static trm_status trim(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    return as_method(r, value, "strip", call, out);
}

static trm_status upper(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    return as_method(r, value, "upper", call, out);
}

static trm_status lower(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    return as_method(r, value, "lower", call, out);
}

static trm_status capitalize(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    return as_method(r, value, "capitalize", call, out);
}

static trm_status center(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value width;
    trmi_call one = {.what = call->what, .items = &width, .count = 1};

    TRM_CHECK(trmi_template_bind(r, call, "width", 0, &width));
    if (width.kind == TRMI_V_ABSENT)
        width = trmi_int(80);
    return as_method(r, value, "center", &one, out);
}

static trm_status replace(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[3];
    trmi_call bound = {.what = call->what, .items = args, .count = 3};

    TRM_CHECK(trmi_template_bind(r, call, "old new count", 2, args));
    for (int i = 0; i < 2; i++) {
        trmi_string *s;

        TRM_CHECK(trmi_to_string(r, args[i], &s));
        args[i].kind = TRMI_V_STRING;
        args[i].as.string = s;
    }
    if (args[2].kind == TRMI_V_ABSENT || args[2].kind == TRMI_V_NONE)
        bound.count = 2;
    TRM_CHECK(as_method(r, value, "replace", &bound, out));
    out->as.string->markup = false; /* a string of its own: str() of the value */
    return TRM_OK;
}

static trm_status title(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    trmi_string *s;
    bool inside = false;
    trm_status st = TRM_OK;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    TRM_CHECK(trmi_to_string(r, value, &s));
    for (size_t i = 0; i < s->bytes && st == TRM_OK;) {
        size_t n;
        int32_t c = trmi_decode(s->data + i, s->bytes - i, &n);
        bool between = trmi_is_space(c) || (c < 0x80 && c > 0 && strchr("-({[<", c) != NULL);

        st = trmi_append_cased(r, &to, s->data + i, n, inside ? TRMI_LOWER : TRMI_UPPER);
        inside = !between;
        i += n;
    }
    return trmi_take(r, st, &to, out);
}

static trm_status escape_text(trmi_run *r, const trmi_string *s, trmi_output *to)
{
    static const char special[] = "&<>'\"";
    static const char *const becomes[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};

    for (size_t i = 0; i < s->bytes; i++) {
        const char *hit = s->data[i] == '\0' ? NULL : strchr(special, s->data[i]);

        TRM_CHECK(hit != NULL ? trmi_append_text(r, to, becomes[hit - special])
                              : trmi_append(r, to, s->data + i, 1));
    }
    return TRM_OK;
}

static trm_status force_escape(trmi_run *r, trmi_value value, const trmi_call *call,
                               trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    trmi_string *s;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    TRM_CHECK(trmi_to_string(r, value, &s));
    TRM_CHECK(trmi_take(r, escape_text(r, s, &to), &to, out));
    out->as.string->markup = true;
    return TRM_OK;
}

trm_status trmi_escape(trmi_run *r, trmi_value v, trmi_value *out)
{
    trmi_call none = {.what = "escape"};

    *out = v;
    if (v.kind == TRMI_V_STRING && v.as.string->markup)
        return TRM_OK;
    return force_escape(r, v, &none, out);
}

static trm_status escape(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    return trmi_escape(r, value, out);
}

static trm_status safe(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value v;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    v.kind = TRMI_V_STRING;
    TRM_CHECK(trmi_to_string(r, value, &v.as.string));
    return trmi_mark(r, v, out);
}

static trm_status string(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_string *s;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    TRM_CHECK(trmi_to_string(r, value, &s));
    out->kind = TRMI_V_STRING;
    out->as.string = s;
    return TRM_OK;
}

static trm_status indent(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    static const trmi_string newline = {"\n", 1, 1, NULL, false};
    trmi_value args[3], width, lines, none[1];
    trmi_call nothing = {.what = call->what, .items = none};
    trmi_output to = {NULL, 0, 0};
    bool first = false, blank = false;
    trm_status st = TRM_OK;

    TRM_CHECK(trmi_template_bind(r, call, "width first blank", 0, args));
    TRM_CHECK(trmi_truth(r, args[1], &first));
    TRM_CHECK(trmi_truth(r, args[2], &blank));
    if (value.kind != TRMI_V_STRING)
        return value.kind == TRMI_V_UNDEFINED
                   ? trmi_fail_undefined(r, value)
                   : trm_fail(TRM_ERR_INVALID_ARG, "indent: '%s' is no text",
                              trmi_type_name(value));
    if (args[0].kind == TRMI_V_STRING) {
        width = args[0];
    } else {
        TRM_CHECK(trmi_make_string(r, " ", 1, &width));
        TRM_CHECK(trmi_operate(r, TRMI_TOK_MUL, width,
                               args[0].kind == TRMI_V_ABSENT ? trmi_int(4) : args[0], &width));
    }
    TRM_CHECK(trmi_join_strings(r, value.as.string, &newline, &value));
    TRM_CHECK(as_method(r, value, "splitlines", &nothing, &lines));
    for (size_t i = 0; i < lines.as.list->count && st == TRM_OK; i++) {
        const trmi_string *line = lines.as.list->items[i].as.string;

        if (i > 0)
            st = trmi_append_text(r, &to, "\n");
        if (st == TRM_OK && (i == 0 ? first : blank || line->bytes > 0))
            st = trmi_append(r, &to, width.as.string->data, width.as.string->bytes);
        if (st == TRM_OK)
            st = trmi_append(r, &to, line->data, line->bytes);
    }
    return trmi_take(r, st, &to, out);
}

static trm_status truncate(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[4], end;
    trmi_string *s, cut;
    int64_t length = 255, leeway = 5, n;
    bool killwords = false;

    TRM_CHECK(trmi_template_bind(r, call, "length killwords end leeway", 0, args));
    TRM_CHECK(trmi_truth(r, args[1], &killwords));
    if (value.kind != TRMI_V_STRING)
        return trm_fail(TRM_ERR_INVALID_ARG, "truncate: '%s' is no text", trmi_type_name(value));
    if (args[0].kind != TRMI_V_ABSENT && !trmi_is_int(args[0]))
        return trm_fail(TRM_ERR_INVALID_ARG, "truncate: a length is an integer, not %s",
                        trmi_type_name(args[0]));
    if (trmi_is_int(args[0]))
        length = trmi_as_int(args[0]);
    if (trmi_is_int(args[3]))
        leeway = trmi_as_int(args[3]);
    end = args[2];
    if (end.kind != TRMI_V_STRING)
        TRM_CHECK(trmi_make_string(r, "...", 3, &end));
    s = value.as.string;
    n = (int64_t)trmi_chars(end.as.string);
    if (length < n || leeway < 0 || leeway > INT64_MAX - length)
        return trm_fail(TRM_ERR_INVALID_ARG, "truncate: expected length >= %lld", (long long)n);
    if ((int64_t)trmi_chars(s) <= length + leeway) {
        *out = value;
        return TRM_OK;
    }
    cut = *s;
    cut.chars = SIZE_MAX;
    cut.room = NULL;
    cut.bytes = trmi_offset(s, (size_t)(length - n));
    if (!killwords)
        for (size_t i = cut.bytes; i-- > 0;)
            if (cut.data[i] == ' ') {
                cut.bytes = i;
                break;
            }
    return trmi_join_strings(r, &cut, end.as.string, out);
}

static trm_status wordcount(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_string *s;
    int64_t words = 0;
    bool inside = false;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    TRM_CHECK(trmi_to_string(r, value, &s));
    for (size_t i = 0; i < s->bytes;) {
        size_t n;
        int32_t c = trmi_decode(s->data + i, s->bytes - i, &n);
        bool word = c == '_' || trmi_is_alpha(c) || trmi_is_numeric(c);

        words += word && !inside;
        inside = word;
        i += n;
    }
    *out = trmi_int(words);
    return trmi_charge(r, s->bytes / 8);
}

static trm_status quote(trmi_run *r, trmi_value value, bool query, trmi_output *to)
{
    trmi_string *s;
    char text[4];

    TRM_CHECK(trmi_to_string(r, value, &s));
    for (size_t i = 0; i < s->bytes; i++) {
        unsigned char c = (unsigned char)s->data[i];

        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
            (c > 0 && strchr("_.-~", c) != NULL) || (c == '/' && !query))
            snprintf(text, sizeof(text), "%c", c);
        else if (c == ' ' && query)
            snprintf(text, sizeof(text), "+");
        else
            snprintf(text, sizeof(text), "%%%02X", c);
        TRM_CHECK(trmi_append_text(r, to, text));
    }
    return TRM_OK;
}

static trm_status quote_pairs(trmi_run *r, const trmi_list *pairs, trmi_output *to)
{
    for (size_t i = 0; i < pairs->count; i++) {
        trmi_value pair;

        TRM_CHECK(trmi_to_list(r, pairs->items[i], TRMI_V_LIST, &pair));
        if (pair.as.list->count != 2)
            return trm_fail(TRM_ERR_INVALID_ARG, "urlencode: an item is no pair");
        if (i > 0)
            TRM_CHECK(trmi_append_text(r, to, "&"));
        TRM_CHECK(quote(r, pair.as.list->items[0], true, to));
        TRM_CHECK(trmi_append_text(r, to, "="));
        TRM_CHECK(quote(r, pair.as.list->items[1], true, to));
    }
    return TRM_OK;
}

static trm_status urlencode(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    trmi_value list;
    trmi_view view;
    trmi_iterator it;

    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    if (value.kind == TRMI_V_DICT) {
        view.dict = value.as.dict;
        view.what = 'i';
        value.kind = TRMI_V_VIEW;
        value.as.view = &view;
    }
    if (value.kind == TRMI_V_STRING || trmi_iterate(r, value, &it) != TRM_OK)
        return trmi_take(r, quote(r, value, false, &to), &to, out);
    TRM_CHECK(trmi_to_list(r, value, TRMI_V_LIST, &list));
    return trmi_take(r, quote_pairs(r, list.as.list, &to), &to, out);
}

static trm_status format(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_string *s;
    trmi_value args;

    TRM_CHECK(trmi_to_string(r, value, &s));
    if (call->count > 0 && call->keyword_count > 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "format: positional and keyword arguments at the same time");
    if (call->keyword_count > 0) {
        TRM_CHECK(trmi_make_dict(r, TRMI_V_DICT, &args));
        for (size_t i = 0; i < call->keyword_count; i++)
            TRM_CHECK(
                trmi_dict_put(r, args.as.dict, call->keywords[i].key, call->keywords[i].value));
    } else {
        TRM_CHECK(trmi_make_list(r, TRMI_V_TUPLE, &args));
        args.as.list->items = call->items;
        args.as.list->count = call->count;
    }
    return trmi_format_percent(r, s, args, out);
}

/* float(value) of text; false where Python raises ValueError */
static bool parse_real(const trmi_string *s, double *out)
{
    char text[128], *end;
    size_t n = 0;

    for (size_t i = 0; i < s->bytes; i++) {
        char c = s->data[i];

        if (c == '_' && i > 0 && i + 1 < s->bytes && s->data[i - 1] >= '0' &&
            s->data[i - 1] <= '9' && s->data[i + 1] >= '0' && s->data[i + 1] <= '9')
            continue;
        if (n + 1 >= sizeof(text) || c == '\0' || c == '_' || c == 'x' || c == 'X' || c == 'p' ||
            c == '(')
            return false; /* strtod takes more than Python does */
        text[n++] = c;
    }
    while (n > 0 && trmi_is_space((unsigned char)text[n - 1] < 0x80 ? text[n - 1] : 'x'))
        n--;
    text[n] = '\0';
    *out = strtod(text, &end);
    return n > 0 && *end == '\0' && end != text;
}

static bool parse_int(const trmi_string *s, int base, int64_t *out)
{
    char text[80], *end;
    size_t n = 0, from = 0;

    while (from < s->bytes && (unsigned char)s->data[from] < 0x80 && trmi_is_space(s->data[from]))
        from++;
    for (size_t i = from; i < s->bytes; i++) {
        if (s->data[i] == '_' && i > from && i + 1 < s->bytes)
            continue;
        if (n + 1 >= sizeof(text) || s->data[i] == '\0')
            return false;
        text[n++] = s->data[i];
    }
    while (n > 0 && (unsigned char)text[n - 1] < 0x80 && trmi_is_space(text[n - 1]))
        n--;
    text[n] = '\0';
    if (n == 0 || (base == 10 && strpbrk(text, "xX") != NULL))
        return false;
    if ((base == 2 || base == 8) && n > 2 && text[0] == '0' &&
        (text[1] | 0x20) == (base == 2 ? 'b' : 'o')) {
        text[1] = '0';
    }
    errno = 0;
    *out = strtoll(text, &end, base);
    return errno == 0 && *end == '\0';
}

static trm_status to_int(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[2];
    int64_t base = 10, i = 0;
    double d = 0;
    bool ok = false;

    TRM_CHECK(trmi_template_bind(r, call, "default base", 0, args));
    if (trmi_is_int(args[1]))
        base = trmi_as_int(args[1]);
    if (base < 0 || base == 1 || base > 36)
        return trm_fail(TRM_ERR_INVALID_ARG, "int() base must be >= 2 and <= 36, or 0");
    *out = args[0].kind == TRMI_V_ABSENT ? trmi_int(0) : args[0];
    if (value.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, value);
    if (trmi_is_int(value)) {
        *out = trmi_int(trmi_as_int(value));
        return TRM_OK;
    }
    if (value.kind == TRMI_V_STRING && parse_int(value.as.string, (int)base, &i)) {
        *out = trmi_int(i);
        return TRM_OK;
    }
    if (value.kind == TRMI_V_FLOAT) {
        d = value.as.real;
        ok = true;
        if (isinf(d))
            return trm_fail(TRM_ERR_INVALID_ARG, "cannot convert float infinity to integer");
    } else if (value.kind == TRMI_V_STRING) {
        ok = parse_real(value.as.string, &d) && isfinite(d);
    }
    if (!ok || isnan(d))
        return TRM_OK;
    if (d >= 9.2e18 || d <= -9.2e18)
        return trm_fail(TRM_ERR_UNSUPPORTED, "an integer is beyond 64 bits");
    *out = trmi_int((int64_t)d);
    return TRM_OK;
}

static trm_status to_float(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value fallback;
    double d;

    TRM_CHECK(trmi_template_bind(r, call, "default", 0, &fallback));
    *out = fallback.kind == TRMI_V_ABSENT ? trmi_float(0) : fallback;
    if (value.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, value);
    if (trmi_is_number(value))
        *out = trmi_float(trmi_as_real(value));
    else if (value.kind == TRMI_V_STRING && parse_real(value.as.string, &d))
        *out = trmi_float(d);
    return TRM_OK;
}

static trm_status want_number(trmi_run *r, const trmi_call *call, trmi_value v)
{
    if (trmi_is_number(v))
        return TRM_OK;
    if (v.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, v);
    return trm_fail(TRM_ERR_INVALID_ARG, "%s: '%s' is no number", call->what, trmi_type_name(v));
}

static trm_status absolute(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    TRM_CHECK(trmi_template_bind(r, call, "", 0, NULL));
    TRM_CHECK(want_number(r, call, value));
    if (value.kind == TRMI_V_FLOAT)
        *out = trmi_float(fabs(value.as.real));
    else if (trmi_as_int(value) < 0)
        return trmi_operate(r, TRMI_TOK_SUB, trmi_int(0), value, out);
    else
        *out = trmi_int(trmi_as_int(value));
    return TRM_OK;
}

/* round() to the nearest as Python does: the decimal text of the double decides, ties to even. */
static double round_common(double d, int64_t precision)
{
    char text[400];

    if (!isfinite(d) || precision > 22)
        return d;
    if (precision < 0) {
        double scale = pow(10, (double)-precision), scaled = d / scale;

        return precision < -308 ? 0.0 * d : nearbyint(scaled) * scale;
    }
    snprintf(text, sizeof(text), "%.*f", (int)precision, d);
    return strtod(text, NULL);
}

static trm_status round_to(trmi_run *r, trmi_value value, const trmi_call *call, trmi_value *out)
{
    trmi_value args[2];
    int64_t precision = 0;
    double d, scale;

    TRM_CHECK(trmi_template_bind(r, call, "precision method", 0, args));
    TRM_CHECK(want_number(r, call, value));
    if (args[0].kind != TRMI_V_ABSENT) {
        if (!trmi_is_int(args[0]))
            return trm_fail(TRM_ERR_INVALID_ARG, "round: a precision is an integer");
        precision = trmi_as_int(args[0]);
    }
    d = trmi_as_real(value);
    if (args[1].kind == TRMI_V_ABSENT ||
        (args[1].kind == TRMI_V_STRING && trmi_string_is(args[1].as.string, "common"))) {
        if (trmi_is_int(value) && precision >= 0)
            *out = trmi_int(trmi_as_int(value));
        else if (trmi_is_int(value))
            *out = trmi_int((int64_t)round_common(d, precision));
        else
            *out = trmi_float(round_common(d, precision));
        return TRM_OK;
    }
    if (args[1].kind != TRMI_V_STRING ||
        (!trmi_string_is(args[1].as.string, "ceil") && !trmi_string_is(args[1].as.string, "floor")))
        return trm_fail(TRM_ERR_INVALID_ARG, "round: method must be common, ceil or floor");
    scale = pow(10, (double)precision);
    d = trmi_string_is(args[1].as.string, "ceil") ? ceil(d * scale) : floor(d * scale);
    *out = trmi_float(d / scale);
    return TRM_OK;
}

const trmi_filter trmi_filters_text[] = {
    {"trim", trim},
    {"upper", upper},
    {"lower", lower},
    {"capitalize", capitalize},
    {"title", title},
    {"center", center},
    {"replace", replace},
    {"escape", escape},
    {"e", escape},
    {"forceescape", force_escape},
    {"safe", safe},
    {"string", string},
    {"indent", indent},
    {"truncate", truncate},
    {"wordcount", wordcount},
    {"urlencode", urlencode},
    {"format", format},
    {"int", to_int},
    {"float", to_float},
    {"abs", absolute},
    {"round", round_to},
    {"tojson", trmi_filter_tojson},
    {"filesizeformat", NULL}, /* NULL: Jinja has them, chat templates were not seen to use them */
    {"pprint", NULL},
    {"random", NULL},
    {"striptags", NULL},
    {"urlize", NULL},
    {"wordwrap", NULL},
    {"xmlattr", NULL},
    {NULL, NULL},
};
