/* str.format: fields {}, {0}, {name} with .attribute and [item], !r and !s, and format
 * specifications of strings, integers and floats. Fields within specifications are refused. */
#include "model/template/template_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define WIDTH_MAX 1000

typedef struct spec {
    const char *fill;
    size_t fill_bytes;
    char align, sign, group, type; /* 0: not given */
    bool zero, alternate;
    int width, precision; /* -1: not given */
} spec;

typedef struct fields {
    const trmi_call *call;
    size_t next; /* of {} */
} fields;

static trm_status parse_number(const char **at, const char *end, int *out)
{
    int n = 0;

    *out = -1;
    for (; *at < end && **at >= '0' && **at <= '9'; ++*at) {
        n = n * 10 + (**at - '0');
        if (n > WIDTH_MAX)
            return trm_fail(TRM_ERR_UNSUPPORTED, "a width or precision is 0 to %d", WIDTH_MAX);
        *out = n;
    }
    return TRM_OK;
}

static bool is_one_of(const char *at, const char *end, const char *set)
{
    return at < end && *at != '\0' && strchr(set, *at) != NULL;
}

static trm_status parse_spec(const char *at, const char *end, spec *s)
{
    size_t n = 0;

    *s = (spec){.fill = " ", .fill_bytes = 1, .width = -1, .precision = -1};
    if (at < end)
        (void)trmi_decode(at, (size_t)(end - at), &n);
    if (n > 0 && is_one_of(at + n, end, "<>=^")) {
        s->fill = at;
        s->fill_bytes = n;
        s->align = at[n];
        at += n + 1;
    } else if (is_one_of(at, end, "<>=^")) {
        s->align = *at++;
    }
    if (is_one_of(at, end, "+- "))
        s->sign = *at++;
    if (is_one_of(at, end, "#")) {
        s->alternate = true;
        at++;
    }
    if (is_one_of(at, end, "0")) {
        s->zero = true;
        at++;
    }
    TRM_CHECK(parse_number(&at, end, &s->width));
    if (is_one_of(at, end, ",_"))
        s->group = *at++;
    if (is_one_of(at, end, ".")) {
        at++;
        TRM_CHECK(parse_number(&at, end, &s->precision));
        if (s->precision < 0)
            return trm_fail(TRM_ERR_INVALID_ARG, "format specifier missing precision");
    }
    if (at < end)
        s->type = *at++;
    return at == end ? TRM_OK : trm_fail(TRM_ERR_INVALID_ARG, "invalid format specifier");
}

/* sign, padding and digits in the order that the alignment wants; `align`: where none is given */
static trm_status put(trmi_run *r, const spec *s, const char *sign, const char *text, size_t bytes,
                      char align, trmi_output *to)
{
    trmi_string counted = {text, bytes, SIZE_MAX, NULL, false};
    int64_t missing = s->width - (int64_t)trmi_chars(&counted) - (int64_t)strlen(sign);
    bool zero = s->zero && s->align == 0 && align == '>';
    int64_t before;

    if (s->align != 0)
        align = s->align;
    if (zero)
        align = '=';
    if (missing < 0)
        missing = 0;
    before = align == '>' || align == '=' ? missing : align == '^' ? missing / 2 : 0;
    if (align == '=')
        TRM_CHECK(trmi_append_text(r, to, sign));
    for (int64_t i = 0; i < before; i++)
        TRM_CHECK(trmi_append(r, to, s->zero && s->align == 0 ? "0" : s->fill,
                              s->zero && s->align == 0 ? 1 : s->fill_bytes));
    if (align != '=')
        TRM_CHECK(trmi_append_text(r, to, sign));
    TRM_CHECK(trmi_append(r, to, text, bytes));
    for (int64_t i = before; i < missing; i++)
        TRM_CHECK(trmi_append(r, to, s->fill, s->fill_bytes));
    return TRM_OK;
}

/* Marks thousands in the integer digits at the beginning of `text`. */
static void group_digits(char *text, size_t room, char mark)
{
    size_t digits = strspn(text, "0123456789"), total = strlen(text), marks;

    if (digits == 0)
        return;
    marks = (digits - 1) / 3;
    if (total + marks + 1 > room)
        return;
    memmove(text + digits + marks, text + digits, total - digits + 1);
    for (size_t i = 0, from = digits, at = digits + marks; at > 0 && from > 0; i++) {
        if (i > 0 && i % 3 == 0)
            text[--at] = mark;
        text[--at] = text[--from];
    }
}

static trm_status put_int(trmi_run *r, const spec *s, int64_t i, trmi_output *to)
{
    uint64_t m = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    char text[160], sign[8];
    size_t n = sizeof(text) - 1;
    const char *prefix = "";

    if (s->precision >= 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "precision not allowed in integer format specifier");
    if (s->type == 'b') {
        text[n] = '\0';
        do
            text[--n] = (char)('0' + (m & 1));
        while ((m >>= 1) != 0);
        memmove(text, text + n, sizeof(text) - n);
        prefix = "0b";
    } else if (s->type == 'x' || s->type == 'X' || s->type == 'o') {
        snprintf(text, sizeof(text),
                 s->type == 'x'   ? "%" PRIx64
                 : s->type == 'X' ? "%" PRIX64
                                  : "%" PRIo64,
                 m);
        prefix = s->type == 'x' ? "0x" : s->type == 'X' ? "0X" : "0o";
    } else {
        snprintf(text, sizeof(text), "%" PRIu64, m);
        if (s->group != 0)
            group_digits(text, sizeof(text), s->group);
    }
    snprintf(sign, sizeof(sign), "%s%s",
             i < 0            ? "-"
             : s->sign == '+' ? "+"
             : s->sign == ' ' ? " "
                              : "",
             s->alternate ? prefix : "");
    return put(r, s, sign, text, strlen(text), '>', to);
}

static trm_status put_real(trmi_run *r, const spec *s, double d, trmi_output *to)
{
    char text[WIDTH_MAX + 500];
    int precision = s->precision < 0 ? 6 : s->precision;
    double m = fabs(d);

    switch (s->type) {
    case 'e':
        snprintf(text, sizeof(text), "%.*e", precision, m);
        break;
    case 'E':
        snprintf(text, sizeof(text), "%.*E", precision, m);
        break;
    case 'f':
    case 'F':
        snprintf(text, sizeof(text), "%.*f", precision, m);
        break;
    case '%':
        snprintf(text, sizeof(text), "%.*f%%", precision, m * 100);
        break;
    case 'g':
    case 'G':
    case 'n':
        snprintf(text, sizeof(text), s->type == 'G' ? "%.*G" : "%.*g", precision, m);
        break;
    case 0:
        if (s->precision < 0) {
            trmi_real_text(m, text);
            break;
        }
        snprintf(text, sizeof(text), "%.*g", precision == 0 ? 1 : precision, m);
        if (strpbrk(text, ".en") == NULL)
            snprintf(text + strlen(text), sizeof(text) - strlen(text), ".0");
        break;
    default:
        return trm_fail(TRM_ERR_INVALID_ARG, "unknown format code '%c' for object of type 'float'",
                        s->type);
    }
    if (s->group != 0)
        group_digits(text, sizeof(text), s->group);
    return put(r, s,
               signbit(d) && !isnan(d) ? "-"
               : s->sign == '+'        ? "+"
               : s->sign == ' '        ? " "
                                       : "",
               text, strlen(text), '>', to);
}

static trm_status put_value(trmi_run *r, trmi_value v, const char *at, const char *end,
                            trmi_output *to)
{
    trmi_string *text;
    spec s;

    if (at == end) {
        TRM_CHECK(trmi_to_string(r, v, &text));
        return trmi_append(r, to, text->data, text->bytes);
    }
    TRM_CHECK(parse_spec(at, end, &s));
    if (v.kind == TRMI_V_FLOAT || (trmi_is_int(v) && is_one_of(&s.type, &s.type + 1, "eEfFgG%")))
        return put_real(r, &s, trmi_as_real(v), to);
    if (trmi_is_int(v) && (s.type == 0 || strchr("bdoxXn", s.type) != NULL))
        return put_int(r, &s, trmi_as_int(v), to);
    if (v.kind != TRMI_V_STRING)
        return trm_fail(TRM_ERR_INVALID_ARG, "unsupported format string passed to %s.__format__",
                        trmi_type_name(v));
    if ((s.type != 0 && s.type != 's') || s.sign != 0 || s.align == '=' || s.group != 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "invalid format specifier for object of type 'str'");
    text = v.as.string;
    return put(r, &s, "", text->data,
               s.precision >= 0 ? trmi_offset(text, (size_t)s.precision) : text->bytes, '<', to);
}

static trm_status first_value(trmi_run *r, fields *f, const char *name, size_t bytes,
                              trmi_value *out)
{
    size_t index = 0;

    (void)r;
    if (bytes == 0) {
        index = f->next++;
    } else {
        for (size_t i = 0; i < bytes; i++) {
            if (name[i] < '0' || name[i] > '9' || bytes > 6) {
                for (size_t k = 0; k < f->call->keyword_count; k++) {
                    const trmi_string *key = f->call->keywords[k].key.as.string;

                    if (key->bytes == bytes && memcmp(key->data, name, bytes) == 0) {
                        *out = f->call->keywords[k].value;
                        return TRM_OK;
                    }
                }
                return trm_fail(TRM_ERR_INVALID_ARG, "format: no argument '%.*s'",
                                (int)(bytes < 100 ? bytes : 100), name);
            }
            index = index * 10 + (size_t)(name[i] - '0');
        }
    }
    if (index >= f->call->count)
        return trm_fail(TRM_ERR_INVALID_ARG, "format: argument %zu of %zu", index, f->call->count);
    *out = f->call->items[index];
    return TRM_OK;
}

static trm_status follow(trmi_run *r, const char *at, const char *end, trmi_value *v)
{
    while (at < end) {
        bool item = *at == '[';
        const char *stop = ++at;
        trmi_value name;

        while (stop < end && (item ? *stop != ']' : *stop != '.' && *stop != '['))
            stop++;
        if (stop == at || (item && stop == end))
            return trm_fail(TRM_ERR_INVALID_ARG, "empty attribute in format string");
        TRM_CHECK(trmi_borrow_string(r, at, (size_t)(stop - at), &name));
        if (item) {
            TRM_CHECK(trmi_get_path(r, *v, name, v));
            stop++;
        } else {
            TRM_CHECK(trmi_get_attribute(r, *v, name.as.string, v));
        }
        at = stop;
    }
    return TRM_OK;
}

/* One field, between its braces. */
static trm_status put_field(trmi_run *r, fields *f, const char *at, const char *end,
                            trmi_output *to)
{
    const char *colon = at, *name_end;
    trmi_output repr = {NULL, 0, 0};
    char conversion = 0;
    size_t first;
    trmi_value v;

    while (colon < end && *colon != ':' && *colon != '!')
        colon++;
    name_end = colon;
    if (colon < end && *colon == '!') {
        if (end - colon < 2 || (end - colon > 2 && colon[2] != ':'))
            return trm_fail(TRM_ERR_INVALID_ARG, "a conversion in a format string is !r or !s");
        conversion = colon[1];
        colon += 2;
    }
    first = 0;
    while (at + first < name_end && at[first] != '.' && at[first] != '[')
        first++;
    TRM_CHECK(first_value(r, f, at, first, &v));
    TRM_CHECK(follow(r, at + first, name_end, &v));
    if (conversion == 'r') {
        TRM_CHECK(trmi_take(r, trmi_repr(r, v, &repr), &repr, &v));
    } else if (conversion == 's') {
        trmi_string *text;

        TRM_CHECK(trmi_to_string(r, v, &text));
        v.kind = TRMI_V_STRING;
        v.as.string = text;
    } else if (conversion != 0) {
        return trm_fail(TRM_ERR_UNSUPPORTED, "conversion '!%c' in a format string", conversion);
    }
    return put_value(r, v, colon < end ? colon + 1 : end, end, to);
}

static trm_status format_all(trmi_run *r, fields *f, const trmi_string *s, trmi_output *to)
{
    const char *at = s->data, *end = s->data + s->bytes;

    while (at < end) {
        const char *from = at, *stop;

        if (*at != '{' && *at != '}') {
            while (at < end && *at != '{' && *at != '}')
                at++;
            TRM_CHECK(trmi_append(r, to, from, (size_t)(at - from)));
            continue;
        }
        if (at + 1 < end && at[1] == *at) {
            TRM_CHECK(trmi_append(r, to, at, 1));
            at += 2;
            continue;
        }
        stop = at + 1;
        while (stop < end && *stop != '}' && *stop != '{')
            stop++;
        if (*at == '}' || stop == end)
            return trm_fail(TRM_ERR_INVALID_ARG, "single '%c' encountered in format string", *at);
        if (*stop == '{')
            return trm_fail(TRM_ERR_UNSUPPORTED, "fields within fields of a format string");
        TRM_CHECK(put_field(r, f, at + 1, stop, to));
        at = stop + 1;
    }
    return TRM_OK;
}

trm_status trmi_format_braces(trmi_run *r, const trmi_string *format, const trmi_call *call,
                              trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    fields f = {call, 0};

    return trmi_take(r, format_all(r, &f, format, &to), &to, out);
}
