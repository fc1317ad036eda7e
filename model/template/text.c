/* Code points as Python's str sees them, by utf8proc's tables. */
#include "model/template/template_impl.h"

#include <utf8proc.h>

int32_t trmi_decode(const char *data, size_t bytes, size_t *length)
{
    utf8proc_int32_t c;
    utf8proc_ssize_t n;

    if ((unsigned char)*data < 0x80) {
        *length = 1;
        return (unsigned char)*data;
    }
    n = utf8proc_iterate((const utf8proc_uint8_t *)data, (utf8proc_ssize_t)bytes, &c);
    if (n <= 0) { /* cannot be: strings are checked where they come in */
        *length = 1;
        return 0xfffd;
    }
    *length = (size_t)n;
    return c;
}

static utf8proc_category_t category(int32_t c)
{
    return utf8proc_category(c);
}

bool trmi_is_space(int32_t c)
{
    if (c < 0x80)
        return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20);
    return c == 0x85 || category(c) == UTF8PROC_CATEGORY_ZS || c == 0x2028 || c == 0x2029;
}

bool trmi_is_alpha(int32_t c)
{
    utf8proc_category_t k;

    if (c < 0x80)
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    k = category(c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_LO;
}

bool trmi_is_decimal(int32_t c)
{
    return c < 0x80 ? c >= '0' && c <= '9' : category(c) == UTF8PROC_CATEGORY_ND;
}

bool trmi_is_digit(int32_t c)
{
    /* decimal digits, superscripts, subscripts and circled digits (Numeric_Type=Digit) */
    return trmi_is_decimal(c) || c == 0xb2 || c == 0xb3 || c == 0xb9 || c == 0x2070 ||
           (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089) ||
           (c >= 0x2460 && c <= 0x2468) || (c >= 0x2474 && c <= 0x247c) ||
           (c >= 0x2488 && c <= 0x2490);
}

bool trmi_is_numeric(int32_t c)
{
    utf8proc_category_t k;

    if (c < 0x80)
        return c >= '0' && c <= '9';
    k = category(c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool trmi_is_upper(int32_t c)
{
    return c < 0x80 ? c >= 'A' && c <= 'Z' : category(c) == UTF8PROC_CATEGORY_LU;
}

bool trmi_is_lower(int32_t c)
{
    return c < 0x80 ? c >= 'a' && c <= 'z'
                    : category(c) == UTF8PROC_CATEGORY_LL || c == 0xaa || c == 0xba;
}

bool trmi_is_title(int32_t c)
{
    return c >= 0x80 && category(c) == UTF8PROC_CATEGORY_LT;
}

bool trmi_is_printable(int32_t c)
{
    if (c < 0x80)
        return c >= 0x20 && c < 0x7f;
    switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
        return false;
    default:
        return true;
    }
}

trm_status trmi_append_cased(trmi_run *r, trmi_output *to, const char *data, size_t bytes,
                             trmi_case to_case)
{
    TRM_CHECK(trmi_charge(r, bytes / 8));
    for (size_t i = 0; i < bytes;) {
        utf8proc_uint8_t text[4];
        size_t n;
        int32_t c = trmi_decode(data + i, bytes - i, &n);

        i += n;
        if (c == 0xdf && to_case != TRMI_LOWER) { /* the one common letter that becomes two */
            TRM_CHECK(trmi_append_text(r, to, to_case == TRMI_UPPER ? "SS" : "Ss"));
            continue;
        }
        if (c == 0x130 && to_case == TRMI_LOWER) { /* dotted I keeps its dot */
            TRM_CHECK(trmi_append_text(r, to, "i\xcc\x87"));
            continue;
        }
        c = to_case == TRMI_UPPER   ? utf8proc_toupper(c)
            : to_case == TRMI_LOWER ? utf8proc_tolower(c)
                                    : utf8proc_totitle(c);
        TRM_CHECK(trmi_append(r, to, (const char *)text, (size_t)utf8proc_encode_char(c, text)));
    }
    return TRM_OK;
}
