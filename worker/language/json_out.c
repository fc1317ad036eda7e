/* See json_out.h. */
#include "worker/language/json_out.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

#define LEAST 512

void trmi_out_fini(trmi_out *o)
{
    trm_free(o->data);
    memset(o, 0, sizeof(*o));
}

bool trmi_out_reserve(trmi_out *o, size_t more)
{
    size_t want, room;
    char *grown;

    if (o->failed)
        return false;
    if (more <= o->room - o->bytes)
        return true;
    if (!trm_add_ok(o->bytes, more, &want) || !trm_mul_ok(want, (size_t)2, &room)) {
        o->failed = true;
        return false;
    }
    room = room < LEAST ? LEAST : room;
    grown = trm_realloc(o->data, room, 1);
    if (grown == NULL) {
        o->failed = true;
        return false;
    }
    o->data = grown;
    o->room = room;
    return true;
}

void trmi_out_add(trmi_out *o, const char *data, size_t bytes)
{
    if (bytes == 0 || !trmi_out_reserve(o, bytes))
        return;
    memcpy(o->data + o->bytes, data, bytes);
    o->bytes += bytes;
}

void trmi_out_text(trmi_out *o, const char *text)
{
    trmi_out_add(o, text, strlen(text));
}

void trmi_out_int(trmi_out *o, int64_t value)
{
    char digits[24];
    size_t at = sizeof(digits);
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

    do {
        digits[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    if (value < 0)
        digits[--at] = '-';
    trmi_out_add(o, digits + at, sizeof(digits) - at);
}

void trmi_out_real(trmi_out *o, double value)
{
    char digits[40];
    int n = snprintf(digits, sizeof(digits), "%.9g", value);

    trmi_out_add(o, digits, (size_t)n);
    if (strpbrk(digits, ".e") == NULL) /* it stays a real */
        trmi_out_add(o, ".0", 2);
}

/* Bytes of the character at p, 0 where none is: the well-formed sequences of Unicode's table 3-7.
 */
static size_t character(const unsigned char *p, size_t left)
{
    unsigned char c = p[0], low = 0x80, high = 0xbf;
    size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

    if (n < 2 || n > left)
        return n <= left ? n : 0;
    low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : low;
    high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : high;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

static void escape_one(trmi_out *o, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    char text[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    const char *brief = c == '"'    ? "\\\""
                        : c == '\\' ? "\\\\"
                        : c == '\n' ? "\\n"
                        : c == '\r' ? "\\r"
                        : c == '\t' ? "\\t"
                                    : NULL;

    if (brief != NULL)
        trmi_out_add(o, brief, 2);
    else
        trmi_out_add(o, text, sizeof(text));
}

void trmi_out_escaped(trmi_out *o, const char *text, size_t bytes)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t from = 0, i = 0;

    while (i < bytes) {
        size_t n = p[i] >= 0x20 && p[i] < 0x80 ? 1 : character(p + i, bytes - i);

        if (n > 0 && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\') {
            i += n;
            continue;
        }
        trmi_out_add(o, text + from, i - from);
        if (n == 0)
            trmi_out_add(o, "\xef\xbf\xbd", 3);
        else
            escape_one(o, p[i]);
        from = ++i;
    }
    trmi_out_add(o, text + from, bytes - from);
}

bool trmi_out_is_utf8(const char *text, size_t bytes)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t n = 1;

    for (size_t i = 0; i < bytes && n > 0; i += n)
        n = character(p + i, bytes - i);
    return n > 0;
}

void trmi_out_quoted(trmi_out *o, const char *text)
{
    trmi_out_add(o, "\"", 1);
    trmi_out_escaped(o, text, strlen(text));
    trmi_out_add(o, "\"", 1);
}

static int dump(const char *data, size_t bytes, void *ctx)
{
    trmi_out *o = ctx;

    trmi_out_add(o, data, bytes);
    return o->failed ? -1 : 0;
}

void trmi_out_json(trmi_out *o, const json_t *value)
{
    if (value == NULL)
        trmi_out_add(o, "null", 4);
    else if (json_dump_callback(value, dump, o,
                                JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) != 0)
        o->failed = true;
}

void trmi_out_ids(trmi_out *o, const int32_t *ids, size_t count)
{
    trmi_out_add(o, "[", 1);
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            trmi_out_add(o, ",", 1);
        trmi_out_int(o, ids[i]);
    }
    trmi_out_add(o, "]", 1);
}
