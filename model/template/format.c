/* "..." % values: Python's printf-style formatting. */
#include "model/template/template_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH_MAX 1000

typedef struct spec {
    bool minus, plus, space, hash, zero;
    int width, precision; /* -1: none */
    char type;
} spec;

typedef struct arguments {
    trmi_value values;
    size_t used;
} arguments;

static trm_status next_argument(trmi_run *r, arguments *a, trmi_value *out)
{
    (void)r;
    if (a->values.kind == TRMI_V_TUPLE && a->used < a->values.as.list->count) {
        *out = a->values.as.list->items[a->used++];
        return TRM_OK;
    }
    if (a->values.kind == TRMI_V_TUPLE || a->used > 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "not enough arguments for format string");
    a->used++;
    *out = a->values;
    return TRM_OK;
}

/* Pads the text of an item to its width, in code points. */
static trm_status put(trmi_run *r, const spec *s, const char *text, size_t bytes, trmi_output *to)
{
    trmi_string counted = {text, bytes, SIZE_MAX, NULL, false};
    int64_t missing = s->width - (int64_t)trmi_chars(&counted);

    for (int64_t i = 0; !s->minus && i < missing; i++)
        TRM_CHECK(trmi_append(r, to, " ", 1));
    TRM_CHECK(trmi_append(r, to, text, bytes));
    for (int64_t i = 0; s->minus && i < missing; i++)
        TRM_CHECK(trmi_append(r, to, " ", 1));
    return TRM_OK;
}

static trm_status put_text(trmi_run *r, const spec *s, trmi_value v, trmi_output *to)
{
    trmi_output repr = {NULL, 0, 0};
    trmi_string *text;
    trmi_value taken;
    size_t bytes;

    if (s->type == 's') {
        TRM_CHECK(trmi_to_string(r, v, &text));
    } else {
        TRM_CHECK(trmi_take(r, trmi_repr(r, v, &repr), &repr, &taken));
        text = taken.as.string;
    }
    bytes = text->bytes;
    if (s->precision >= 0)
        bytes = trmi_offset(text, (size_t)s->precision);
    return put(r, s, text->data, bytes, to);
}

static trm_status put_character(trmi_run *r, const spec *s, trmi_value v, trmi_output *to)
{
    char text[8];
    int64_t c;

    if (v.kind == TRMI_V_STRING && trmi_chars(v.as.string) == 1)
        return put(r, s, v.as.string->data, v.as.string->bytes, to);
    c = trmi_is_int(v) ? trmi_as_int(v) : -1;
    if (c < 1 || c > 0x7e)
        return trm_fail(TRM_ERR_INVALID_ARG, "%%c requires a character");
    snprintf(text, sizeof(text), "%c", (char)c);
    return put(r, s, text, 1, to);
}

/* Digits of a number without its sign. */
static int magnitude_text(const spec *s, trmi_value v, char *text, size_t room)
{
    int precision = s->precision < 0 ? 6 : s->precision;
    int64_t i = trmi_as_int(v);
    uint64_t m = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    double d = fabs(trmi_as_real(v));

    switch (s->type) {
    case 'e':
        return snprintf(text, room, s->hash ? "%#.*e" : "%.*e", precision, d);
    case 'E':
        return snprintf(text, room, s->hash ? "%#.*E" : "%.*E", precision, d);
    case 'f':
        return snprintf(text, room, s->hash ? "%#.*f" : "%.*f", precision, d);
    case 'F':
        return snprintf(text, room, s->hash ? "%#.*F" : "%.*F", precision, d);
    case 'g':
        return snprintf(text, room, s->hash ? "%#.*g" : "%.*g", precision, d);
    case 'G':
        return snprintf(text, room, s->hash ? "%#.*G" : "%.*G", precision, d);
    case 'x':
        return snprintf(text, room, "%.*" PRIx64, s->precision < 0 ? 1 : s->precision, m);
    case 'X':
        return snprintf(text, room, "%.*" PRIX64, s->precision < 0 ? 1 : s->precision, m);
    case 'o':
        return snprintf(text, room, "%.*" PRIo64, s->precision < 0 ? 1 : s->precision, m);
    default:
        return snprintf(text, room, "%.*" PRIu64, s->precision < 0 ? 1 : s->precision, m);
    }
}

static trm_status put_number(trmi_run *r, const spec *s, trmi_value v, trmi_output *to)
{
    char digits[WIDTH_MAX + 400], sign[8] = "";
    bool real = strchr("eEfFgG", s->type) != NULL, negative;
    trmi_output text = {NULL, 0, 0};
    trmi_value joined;
    trm_status st;
    int n;

    if (!trmi_is_number(v) || (v.kind == TRMI_V_FLOAT && strchr("xXo", s->type) != NULL))
        return v.kind == TRMI_V_UNDEFINED
                   ? trmi_fail_undefined(r, v)
                   : trm_fail(TRM_ERR_INVALID_ARG, "%%%c format: a number is required, not %s",
                              s->type, trmi_type_name(v));
    if (!real && v.kind == TRMI_V_FLOAT) {
        if (!(fabs(v.as.real) < 9.2e18))
            return trm_fail(TRM_ERR_UNSUPPORTED, "an integer is beyond 64 bits");
        v = trmi_int((int64_t)v.as.real);
    }
    n = magnitude_text(s, v, digits, sizeof(digits));
    if (n < 0 || (size_t)n >= sizeof(digits))
        return trm_fail(TRM_ERR_UNSUPPORTED, "a number of %d characters", n);
    negative =
        v.kind == TRMI_V_FLOAT ? signbit(v.as.real) && !isnan(v.as.real) : trmi_as_int(v) < 0;
    snprintf(sign, sizeof(sign), "%s%s",
             negative   ? "-"
             : s->plus  ? "+"
             : s->space ? " "
                        : "",
             !s->hash || strchr("xXo", s->type) == NULL ? ""
             : s->type == 'o'                           ? "0o"
             : s->type == 'x'                           ? "0x"
                                                        : "0X");
    st = trmi_append_text(r, &text, sign);
    for (int i = n + (int)strlen(sign); s->zero && !s->minus && i < s->width && st == TRM_OK; i++)
        st = trmi_append(r, &text, "0", 1);
    if (st == TRM_OK)
        st = trmi_append(r, &text, digits, (size_t)n);
    TRM_CHECK(trmi_take(r, st, &text, &joined));
    return put(r, s, joined.as.string->data, joined.as.string->bytes, to);
}

static trm_status star_or_number(trmi_run *r, const trmi_string *f, size_t *at, arguments *a,
                                 int *out)
{
    trmi_value v;
    int64_t n = 0;

    if (*at < f->bytes && f->data[*at] == '*') {
        ++*at;
        TRM_CHECK(next_argument(r, a, &v));
        if (!trmi_is_int(v))
            return trm_fail(TRM_ERR_INVALID_ARG, "* wants int");
        n = trmi_as_int(v);
    }
    for (; *at < f->bytes && f->data[*at] >= '0' && f->data[*at] <= '9' && n <= WIDTH_MAX; ++*at)
        n = n * 10 + (f->data[*at] - '0');
    if (n < 0 || n > WIDTH_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a width or precision is 0 to %d", WIDTH_MAX);
    *out = (int)n;
    return TRM_OK;
}

static trm_status parse_spec(trmi_run *r, const trmi_string *f, size_t *at, arguments *a, spec *s)
{
    for (; *at < f->bytes; ++*at) {
        bool *const flags[] = {&s->minus, &s->plus, &s->space, &s->hash, &s->zero};
        static const char known[] = "-+ #0";
        const char *flag = f->data[*at] == '\0' ? NULL : strchr(known, f->data[*at]);

        if (flag == NULL)
            break;
        *flags[flag - known] = true;
    }
    TRM_CHECK(star_or_number(r, f, at, a, &s->width));
    if (*at < f->bytes && f->data[*at] == '.') {
        ++*at;
        TRM_CHECK(star_or_number(r, f, at, a, &s->precision));
    }
    while (*at < f->bytes && (f->data[*at] == 'l' || f->data[*at] == 'h' || f->data[*at] == 'L'))
        ++*at;
    if (*at >= f->bytes)
        return trm_fail(TRM_ERR_INVALID_ARG, "incomplete format");
    s->type = f->data[(*at)++];
    if (s->type == 'i' || s->type == 'u')
        s->type = 'd';
    return TRM_OK;
}

/* %(name)s; *at stands after the "(" */
static trm_status named_argument(trmi_run *r, const trmi_string *f, size_t *at, arguments *a,
                                 trmi_value *out)
{
    size_t from = *at, depth = 1;
    trmi_value name, *found;

    for (; *at < f->bytes && depth > 0; ++*at)
        depth += f->data[*at] == '(' ? 1 : f->data[*at] == ')' ? (size_t)-1 : 0;
    if (depth > 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "incomplete format key");
    if (a->values.kind != TRMI_V_DICT)
        return trm_fail(TRM_ERR_INVALID_ARG, "format requires a mapping");
    TRM_CHECK(trmi_borrow_string(r, f->data + from, *at - 1 - from, &name));
    TRM_CHECK(trmi_dict_find(r, a->values.as.dict, name, &found));
    if (found == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "format: no key '%.*s'",
                        (int)(name.as.string->bytes < 100 ? name.as.string->bytes : 100),
                        name.as.string->data);
    *out = *found;
    return TRM_OK;
}

static trm_status format_all(trmi_run *r, const trmi_string *f, arguments *a, trmi_output *to)
{
    for (size_t at = 0; at < f->bytes;) {
        spec s = {.precision = -1};
        trmi_value v = trmi_absent();
        const char *hit = memchr(f->data + at, '%', f->bytes - at);
        size_t end = hit != NULL ? (size_t)(hit - f->data) : f->bytes;

        TRM_CHECK(trmi_append(r, to, f->data + at, end - at));
        at = end + 1;
        if (hit == NULL)
            break;
        if (at < f->bytes && f->data[at] == '(') {
            at++;
            TRM_CHECK(named_argument(r, f, &at, a, &v));
        }
        TRM_CHECK(parse_spec(r, f, &at, a, &s));
        if (s.type == '%') {
            TRM_CHECK(trmi_append(r, to, "%", 1));
            continue;
        }
        if (v.kind == TRMI_V_ABSENT)
            TRM_CHECK(next_argument(r, a, &v));
        if (s.type == 's' || s.type == 'r')
            TRM_CHECK(put_text(r, &s, v, to));
        else if (s.type == 'c')
            TRM_CHECK(put_character(r, &s, v, to));
        else if (strchr("dxXoeEfFgG", s.type) != NULL && s.type != '\0')
            TRM_CHECK(put_number(r, &s, v, to));
        else
            return trm_fail(TRM_ERR_INVALID_ARG, "unsupported format character '%c'", s.type);
    }
    if (a->values.kind == TRMI_V_TUPLE
            ? a->used < a->values.as.list->count
            : a->used == 0 && a->values.kind != TRMI_V_DICT && a->values.kind != TRMI_V_LIST)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "not all arguments converted during string formatting");
    return TRM_OK;
}

trm_status trmi_format_percent(trmi_run *r, const trmi_string *format, trmi_value args,
                               trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    arguments a = {args, 0};

    return trmi_take(r, format_all(r, format, &a, &to), &to, out);
}
