/* See text.h. */
#include "coordinator/gateway/text.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_BYTES 32 /* the longest number that is written, and a comma */

void trmi_text_fini(trmi_text *t)
{
    trm_free(t->data);
    memset(t, 0, sizeof(*t));
}

bool trmi_text_reserve(trmi_text *t, size_t bytes)
{
    size_t need, room;
    char *grown;

    if (t->failed)
        return false;
    if (!trm_add_ok(t->bytes, bytes, &need) || need > SIZE_MAX / 2) {
        t->failed = true;
        return false;
    }
    if (need <= t->room)
        return true;
    room = t->room * 2 > need ? t->room * 2 : need + 256;
    grown = trm_realloc(t->data, room, 1);
    if (grown == NULL) {
        t->failed = true;
        return false;
    }
    t->data = grown;
    t->room = room;
    return true;
}

void trmi_text_add(trmi_text *t, const void *data, size_t bytes)
{
    if (bytes == 0 || !trmi_text_reserve(t, bytes))
        return;
    memcpy(t->data + t->bytes, data, bytes);
    t->bytes += bytes;
}

void trmi_text_put(trmi_text *t, const char *text)
{
    trmi_text_add(t, text, strlen(text));
}

void trmi_text_print(trmi_text *t, const char *fmt, ...)
{
    char text[256];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (n > 0)
        trmi_text_add(t, text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

/* Bytes of the UTF-8 character at p (Unicode 15, table 3-7), 0: none. */
static size_t utf8(const unsigned char *p, size_t left)
{
    size_t n;
    unsigned char low = 0x80, high = 0xbf;

    if (p[0] < 0x80)
        return 1;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    n = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (left < n)
        return 0;
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if (p[i] < 0x80 || p[i] > 0xbf)
            return 0;
    return n;
}

void trmi_text_string(trmi_text *t, const char *text, size_t bytes)
{
    const unsigned char *p = (const unsigned char *)text;

    trmi_text_add(t, "\"", 1);
    for (size_t i = 0; i < bytes;) {
        size_t run = i, n = 1;

        while (run < bytes && p[run] >= 0x20 && p[run] < 0x7f && p[run] != '"' && p[run] != '\\')
            run++;
        trmi_text_add(t, text + i, run - i);
        i = run;
        if (i == bytes)
            break;
        if (p[i] == '"' || p[i] == '\\')
            trmi_text_print(t, "\\%c", p[i]);
        else if (p[i] < 0x80)
            trmi_text_print(t, "\\u%04x", p[i]);
        else if ((n = utf8(p + i, bytes - i)) > 0)
            trmi_text_add(t, text + i, n);
        else {
            n = 1;
            trmi_text_put(t, "\\ufffd");
        }
        i += n;
    }
    trmi_text_add(t, "\"", 1);
}

/* ---- numbers ---- */

static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10,
                                1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21};

static bool not_finite(trmi_text *t, double d)
{
    if (isfinite(d))
        return false;
    trmi_text_put(t, isnan(d) ? "NaN" : d > 0 ? "Infinity" : "-Infinity");
    return true;
}

/* Whether `digits` / 10^scale reads as `f`. The quotient is rounded once to double; rounding that
 * to float gives what a reader of the decimal gets unless it lies just between two floats, which is
 * taken as a no. */
static bool reads_as(uint64_t digits, int scale, float f)
{
    double d = scale >= 0 ? (double)digits / powers[scale] : (double)digits * powers[-scale];
    uint64_t bits;

    memcpy(&bits, &d, sizeof(bits));
    return (float)d == f && (bits & 0x1fffffffu) != 0x10000000u;
}

/* digits / 10^scale in plain notation, scale <= 21. */
static void put_decimal(trmi_text *t, bool negative, uint64_t digits, int scale)
{
    char text[64], number[24];
    size_t at = 0;
    int n;

    while (scale > 0 && digits % 10 == 0) {
        digits /= 10;
        scale--;
    }
    n = snprintf(number, sizeof(number), "%" PRIu64, digits);
    if (negative)
        text[at++] = '-';
    if (scale <= 0) {
        memcpy(text + at, number, (size_t)n);
        at += (size_t)n;
        for (; scale < 0; scale++)
            text[at++] = '0';
        text[at++] = '.';
        text[at++] = '0';
    } else if (n > scale) {
        memcpy(text + at, number, (size_t)(n - scale));
        at += (size_t)(n - scale);
        text[at++] = '.';
        memcpy(text + at, number + n - scale, (size_t)scale);
        at += (size_t)scale;
    } else {
        text[at++] = '0';
        text[at++] = '.';
        for (int i = n; i < scale; i++)
            text[at++] = '0';
        memcpy(text + at, number, (size_t)n);
        at += (size_t)n;
    }
    trmi_text_add(t, text, at);
}

/* digits / 10^scale as 1.25e-07. */
static void put_scientific(trmi_text *t, bool negative, uint64_t digits, int scale)
{
    char number[24];
    int n;

    while (digits % 10 == 0) {
        digits /= 10;
        scale--;
    }
    n = snprintf(number, sizeof(number), "%" PRIu64, digits);
    trmi_text_print(t, "%s%c%s%se-%02d", negative ? "-" : "", number[0], n > 1 ? "." : "",
                    number + 1, scale - n + 1);
}

/* Most values of networks lie between 1e-13 and 1e9: nine digits by one multiplication, which is
 * far more exact than the ninth digit needs, then as few of them as read back. */
void trmi_text_f32(trmi_text *t, float f)
{
    double a = fabs((double)f);

    if (not_finite(t, (double)f))
        return;
    if (a == 0) {
        trmi_text_put(t, signbit(f) ? "-0.0" : "0.0");
        return;
    }
    if (a >= 1e-13 && a < 1e9) {
        int scale = 0;
        uint64_t nine;

        while (a * powers[scale] < 1e8) /* 21 at most */
            scale++;
        nine = (uint64_t)(a * powers[scale] + 0.5);
        for (int less = 3; less >= 0; less--) {
            uint64_t unit = (uint64_t)powers[less], digits = (nine + unit / 2) / unit;

            if (reads_as(digits, scale - less, (float)a)) {
                if (a >= 1e-4)
                    put_decimal(t, f < 0, digits, scale - less);
                else
                    put_scientific(t, f < 0, digits, scale - less);
                return;
            }
        }
    }
    trmi_text_print(t, "%.9g", (double)f);
}

void trmi_text_f64(trmi_text *t, double d)
{
    char text[NUMBER_BYTES];

    if (not_finite(t, d))
        return;
    if (fabs(d) < 1e15 && d == trunc(d)) {
        trmi_text_print(t, "%.1f", d);
        return;
    }
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    trmi_text_put(t, text);
}

static void put_integer(trmi_text *t, bool negative, uint64_t u)
{
    char text[24];
    size_t at = sizeof(text);

    do {
        text[--at] = (char)('0' + u % 10);
        u /= 10;
    } while (u > 0);
    if (negative)
        text[--at] = '-';
    trmi_text_add(t, text + at, sizeof(text) - at);
}

#define READ(type) ((void)memcpy(&v.type, p, sizeof(v.type)), v.type)
static void put_element(trmi_text *t, trm_dtype dtype, const unsigned char *p)
{
    union {
        float f;
        double d;
        int16_t i16;
        int32_t i32;
        int64_t i64;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
    } v;
    int64_t i;

    switch (dtype) {
    case TRM_DTYPE_F32:
        trmi_text_f32(t, READ(f));
        return;
    case TRM_DTYPE_F16:
        trmi_text_f32(t, trm_f16_to_f32(READ(u16)));
        return;
    case TRM_DTYPE_BF16:
        trmi_text_f32(t, trm_bf16_to_f32(READ(u16)));
        return;
    case TRM_DTYPE_F64:
        trmi_text_f64(t, READ(d));
        return;
    case TRM_DTYPE_BOOL:
        trmi_text_put(t, *p ? "true" : "false");
        return;
    case TRM_DTYPE_U8:
        put_integer(t, false, *p);
        return;
    case TRM_DTYPE_U16:
        put_integer(t, false, READ(u16));
        return;
    case TRM_DTYPE_U32:
        put_integer(t, false, READ(u32));
        return;
    case TRM_DTYPE_U64:
        put_integer(t, false, READ(u64));
        return;
    case TRM_DTYPE_I8:
        i = *p < 128 ? *p : *p - 256;
        break;
    case TRM_DTYPE_I16:
        i = READ(i16);
        break;
    case TRM_DTYPE_I32:
        i = READ(i32);
        break;
    case TRM_DTYPE_I64:
        i = READ(i64);
        break;
    default: /* block types never leave a replica */
        trmi_text_put(t, "null");
        return;
    }
    put_integer(t, i < 0, i < 0 ? -(uint64_t)i : (uint64_t)i);
}
#undef READ

void trmi_text_elements(trmi_text *t, const trm_tensor *tensor)
{
    size_t count = trm_tensor_numel(tensor), step = trm_dtype_bytes(tensor->dtype);
    const unsigned char *p = tensor->data;

    (void)trmi_text_reserve(t, count < SIZE_MAX / 16 ? count * 4 + 2 : 2);
    trmi_text_add(t, "[", 1);
    for (size_t i = 0; i < count && !t->failed; i++) {
        if (i > 0)
            trmi_text_add(t, ",", 1);
        put_element(t, tensor->dtype, p + i * step);
    }
    trmi_text_add(t, "]", 1);
}
