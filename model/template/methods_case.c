/* Methods of str: case, padding, classes of characters, format. */
#include "model/template/template_impl.h"

static trm_status no_arguments(trmi_run *r, const trmi_call *call)
{
    return trmi_template_bind(r, call, "", 0, NULL);
}

static trm_status cased(trmi_run *r, trmi_value self, const trmi_call *call, trmi_case to_case,
                        trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    const trmi_string *s = self.as.string;

    TRM_CHECK(no_arguments(r, call));
    return trmi_take(r, trmi_append_cased(r, &to, s->data, s->bytes, to_case), &to, out);
}

static trm_status upper(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return cased(r, self, call, TRMI_UPPER, out);
}

static trm_status lower(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return cased(r, self, call, TRMI_LOWER, out);
}

/* `words`: each letter after a character that is none begins a word; else only the first. */
static trm_status titled(trmi_run *r, trmi_value self, const trmi_call *call, bool words,
                         trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    const trmi_string *s = self.as.string;
    bool inside = false;
    trm_status st;

    st = no_arguments(r, call);
    for (size_t i = 0; i < s->bytes && st == TRM_OK;) {
        size_t n;
        int32_t c = trmi_decode(s->data + i, s->bytes - i, &n);

        st = trmi_append_cased(r, &to, s->data + i, n, inside ? TRMI_LOWER : TRMI_TITLE);
        inside = words ? trmi_is_upper(c) || trmi_is_lower(c) || trmi_is_title(c) : true;
        i += n;
    }
    return trmi_take(r, st, &to, out);
}

static trm_status title(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return titled(r, self, call, true, out);
}

static trm_status capitalize(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return titled(r, self, call, false, out);
}

static trm_status swapcase(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    trmi_output to = {NULL, 0, 0};
    const trmi_string *s = self.as.string;
    trm_status st = no_arguments(r, call);

    for (size_t i = 0; i < s->bytes && st == TRM_OK;) {
        size_t n;
        int32_t c = trmi_decode(s->data + i, s->bytes - i, &n);

        st = trmi_append_cased(r, &to, s->data + i, n, trmi_is_upper(c) ? TRMI_LOWER : TRMI_UPPER);
        i += n;
    }
    return trmi_take(r, st, &to, out);
}

static trm_status pad(trmi_run *r, trmi_output *to, const trmi_string *fill, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        TRM_CHECK(trmi_append(r, to, fill->data, fill->bytes));
    return TRM_OK;
}

static trm_status justify(trmi_run *r, trmi_value self, const trmi_call *call, char side,
                          trmi_value *out)
{
    static const trmi_string space = {" ", 1, 1, NULL, false};
    trmi_output to = {NULL, 0, 0};
    trmi_string *s = self.as.string;
    const trmi_string *fill = &space;
    trmi_value args[2];
    int64_t width, missing, left;
    trm_status st;

    TRM_CHECK(trmi_template_bind(r, call, "width fillchar", 1, args));
    if (!trmi_is_int(args[0]))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: a width is an integer, not %s", call->what,
                        trmi_type_name(args[0]));
    if (args[1].kind == TRMI_V_STRING && trmi_chars(args[1].as.string) == 1)
        fill = args[1].as.string;
    else if (args[1].kind != TRMI_V_ABSENT)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: a fill is one character", call->what);
    width = trmi_as_int(args[0]);
    missing = width > (int64_t)trmi_chars(s) ? width - (int64_t)trmi_chars(s) : 0;
    /* str.center gives the odd one to the left where the width is odd */
    left = side == 'r' ? missing : side == 'l' ? 0 : missing / 2 + (missing & width & 1);
    st = pad(r, &to, fill, left);
    if (st == TRM_OK)
        st = trmi_append(r, &to, s->data, s->bytes);
    if (st == TRM_OK)
        st = pad(r, &to, fill, missing - left);
    return trmi_take(r, st, &to, out);
}

static trm_status ljust(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return justify(r, self, call, 'l', out);
}

static trm_status rjust(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return justify(r, self, call, 'r', out);
}

static trm_status center(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return justify(r, self, call, 'c', out);
}

static trm_status zfill(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    static const trmi_string zero = {"0", 1, 1, NULL, false};
    trmi_output to = {NULL, 0, 0};
    trmi_string *s = self.as.string;
    trmi_value width;
    size_t sign = s->bytes > 0 && (s->data[0] == '-' || s->data[0] == '+');
    trm_status st;

    TRM_CHECK(trmi_template_bind(r, call, "width", 1, &width));
    if (!trmi_is_int(width))
        return trm_fail(TRM_ERR_INVALID_ARG, "zfill: a width is an integer");
    st = trmi_append(r, &to, s->data, sign);
    if (st == TRM_OK)
        st = pad(r, &to, &zero, trmi_as_int(width) - (int64_t)trmi_chars(s));
    if (st == TRM_OK)
        st = trmi_append(r, &to, s->data + sign, s->bytes - sign);
    return trmi_take(r, st, &to, out);
}

/* All characters are of a class, and there is one. */
static trm_status all(trmi_run *r, trmi_value self, const trmi_call *call, bool (*is)(int32_t c),
                      bool empty, trmi_value *out)
{
    const trmi_string *s = self.as.string;
    bool yes = s->bytes > 0 || empty;

    TRM_CHECK(no_arguments(r, call));
    TRM_CHECK(trmi_charge(r, s->bytes / 8));
    for (size_t i = 0; i < s->bytes && yes;) {
        size_t n;

        yes = is(trmi_decode(s->data + i, s->bytes - i, &n));
        i += n;
    }
    *out = trmi_bool(yes);
    return TRM_OK;
}

static bool alnum(int32_t c)
{
    return trmi_is_alpha(c) || trmi_is_decimal(c) || trmi_is_digit(c) || trmi_is_numeric(c);
}

static bool ascii(int32_t c)
{
    return c < 0x80;
}

static bool name_character(int32_t c)
{
    return c == '_' || trmi_is_alpha(c) || trmi_is_decimal(c);
}

#define CLASS(function, is, empty)                                                                 \
    static trm_status function(trmi_run *r, trmi_value self, const trmi_call *call,                \
                               trmi_value *out)                                                    \
    {                                                                                              \
        return all(r, self, call, is, empty, out);                                                 \
    }
CLASS(isdigit_all, trmi_is_digit, false)
CLASS(isdecimal_all, trmi_is_decimal, false)
CLASS(isnumeric_all, trmi_is_numeric, false)
CLASS(isalpha_all, trmi_is_alpha, false)
CLASS(isalnum_all, alnum, false)
CLASS(isspace_all, trmi_is_space, false)
CLASS(isascii_all, ascii, true)
CLASS(isprintable_all, trmi_is_printable, true)

static trm_status isidentifier(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    TRM_CHECK(all(r, self, call, name_character, false, out));
    if (out->as.truth) {
        size_t n;

        *out = trmi_bool(
            !trmi_is_decimal(trmi_decode(self.as.string->data, self.as.string->bytes, &n)));
    }
    return TRM_OK;
}

static trm_status one_case(trmi_run *r, trmi_value self, const trmi_call *call,
                           bool (*is)(int32_t c), bool (*other)(int32_t c), trmi_value *out)
{
    const trmi_string *s = self.as.string;
    bool some = false, none = false;

    TRM_CHECK(no_arguments(r, call));
    TRM_CHECK(trmi_charge(r, s->bytes / 8));
    for (size_t i = 0; i < s->bytes && !none;) {
        size_t n;
        int32_t c = trmi_decode(s->data + i, s->bytes - i, &n);

        some = some || is(c);
        none = other(c) || trmi_is_title(c);
        i += n;
    }
    *out = trmi_bool(some && !none);
    return TRM_OK;
}

static trm_status isupper_all(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return one_case(r, self, call, trmi_is_upper, trmi_is_lower, out);
}

static trm_status islower_all(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return one_case(r, self, call, trmi_is_lower, trmi_is_upper, out);
}

static trm_status istitle(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    const trmi_string *s = self.as.string;
    bool some = false, inside = false, yes = true;

    TRM_CHECK(no_arguments(r, call));
    TRM_CHECK(trmi_charge(r, s->bytes / 8));
    for (size_t i = 0; i < s->bytes && yes;) {
        size_t n;
        int32_t c = trmi_decode(s->data + i, s->bytes - i, &n);
        bool capital = trmi_is_upper(c) || trmi_is_title(c);

        yes = capital ? !inside : !trmi_is_lower(c) || inside;
        inside = capital || trmi_is_lower(c);
        some = some || inside;
        i += n;
    }
    *out = trmi_bool(some && yes);
    return TRM_OK;
}

static trm_status format(trmi_run *r, trmi_value self, const trmi_call *call, trmi_value *out)
{
    return trmi_format_braces(r, self.as.string, call, out);
}

const trmi_function trmi_methods_string_is[] = {
    {"upper", upper},
    {"lower", lower},
    {"title", title},
    {"capitalize", capitalize},
    {"swapcase", swapcase},
    {"ljust", ljust},
    {"rjust", rjust},
    {"center", center},
    {"zfill", zfill},
    {"isdigit", isdigit_all},
    {"isdecimal", isdecimal_all},
    {"isnumeric", isnumeric_all},
    {"isalpha", isalpha_all},
    {"isalnum", isalnum_all},
    {"isspace", isspace_all},
    {"isascii", isascii_all},
    {"isprintable", isprintable_all},
    {"isidentifier", isidentifier},
    {"isupper", isupper_all},
    {"islower", islower_all},
    {"istitle", istitle},
    {"format", format},
    {"casefold", NULL}, /* NULL: Python has them, templates were not seen to use them */
    {"encode", NULL},
    {"expandtabs", NULL},
    {"format_map", NULL},
    {"maketrans", NULL},
    {"translate", NULL},
    {NULL, NULL},
};
