#include "model/tokenizer/text.h"

#include "base/memory.h"
#define TRMI_UNICODE_CLASSES
#include "model/tokenizer/unicode_tables.h"

#include <utf8proc.h>

#include <string.h>

/* ---- buffers ---- */

/* Twice what trmi_normalize and the others let pass: a hostile file's rules stop here. */
#define BUF_BYTES_MAX ((size_t)1 << 30)

void trmi_buf_fini(trmi_buf *b)
{
    trm_free(b->bytes);
    memset(b, 0, sizeof(*b));
}

bool trmi_buf_reserve(trmi_buf *b, size_t more)
{
    size_t want, room = b->room < 64 ? 64 : b->room;
    char *grown;

    if (b->failed)
        return false;
    if (b->count + more <= b->room && b->bytes != NULL)
        return true;
    if (!trm_add_ok(b->count, more, &want) || want > BUF_BYTES_MAX) {
        b->failed = true;
        return false;
    }
    while (room < want)
        room += room / 2;
    grown = trm_realloc(b->bytes, room, 1);
    if (grown == NULL) {
        b->failed = true;
        return false;
    }
    b->bytes = grown;
    b->room = room;
    return true;
}

void trmi_buf_add(trmi_buf *b, const char *bytes, size_t count)
{
    if (count == 0 || !trmi_buf_reserve(b, count))
        return;
    memcpy(b->bytes + b->count, bytes, count);
    b->count += count;
}

void trmi_buf_byte(trmi_buf *b, char byte)
{
    if (trmi_buf_reserve(b, 1))
        b->bytes[b->count++] = byte;
}

void trmi_buf_char(trmi_buf *b, uint32_t c)
{
    if (trmi_buf_reserve(b, 4))
        b->count += trmi_utf8_put(c, b->bytes + b->count);
}

trm_status trmi_buf_status(const trmi_buf *b, const char *what)
{
    return b->failed ? trm_fail(TRM_ERR_NO_MEMORY, "tokenizer: %s", what) : TRM_OK;
}

void trmi_ids_add(trmi_ids *v, int32_t id)
{
    if (v->failed)
        return;
    if (v->count == v->room) {
        size_t room = v->room == 0 ? 64 : v->room + v->room / 2;
        int32_t *grown = trm_realloc(v->ids, room, sizeof(*grown));

        if (grown == NULL) {
            v->failed = true;
            return;
        }
        v->ids = grown;
        v->room = room;
    }
    v->ids[v->count++] = id;
}

/* ---- UTF-8 ---- */

trmi_utf8 trmi_utf8_look(const char *p, size_t count, uint32_t *c_out, size_t *bytes_out)
{
    const unsigned char *u = (const unsigned char *)p;
    uint32_t c = u[0];
    unsigned char low = 0x80, high = 0xBF; /* bounds of the second byte (Unicode, table 3-7) */
    size_t want;

    *bytes_out = 1;
    *c_out = c;
    if (c < 0x80)
        return TRMI_UTF8_CHAR;
    if (c < 0xC2 || c > 0xF4)
        return TRMI_UTF8_BAD;
    want = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    if (c == 0xE0)
        low = 0xA0;
    else if (c == 0xED)
        high = 0x9F;
    else if (c == 0xF0)
        low = 0x90;
    else if (c == 0xF4)
        high = 0x8F;
    c &= want == 2 ? 0x1Fu : want == 3 ? 0x0Fu : 0x07u;
    for (size_t i = 1; i < want; i++) {
        if (i == count)
            return TRMI_UTF8_CUT;
        if (u[i] < low || u[i] > high)
            return TRMI_UTF8_BAD;
        c = c << 6 | (u[i] & 0x3Fu);
        low = 0x80;
        high = 0xBF;
        *bytes_out = i + 1;
    }
    *c_out = c;
    return TRMI_UTF8_CHAR;
}

uint32_t trmi_utf8_get(const char *p, size_t *bytes_out)
{
    const unsigned char *u = (const unsigned char *)p;

    if (u[0] < 0x80) {
        *bytes_out = 1;
        return u[0];
    }
    if (u[0] < 0xE0) {
        *bytes_out = 2;
        return (u[0] & 0x1Fu) << 6 | (u[1] & 0x3Fu);
    }
    if (u[0] < 0xF0) {
        *bytes_out = 3;
        return (u[0] & 0x0Fu) << 12 | (u[1] & 0x3Fu) << 6 | (u[2] & 0x3Fu);
    }
    *bytes_out = 4;
    return (u[0] & 0x07u) << 18 | (u[1] & 0x3Fu) << 12 | (u[2] & 0x3Fu) << 6 | (u[3] & 0x3Fu);
}

size_t trmi_utf8_put(uint32_t c, char out[4])
{
    unsigned char *u = (unsigned char *)out;

    if (c < 0x80) {
        u[0] = (unsigned char)c;
        return 1;
    }
    if (c < 0x800) {
        u[0] = (unsigned char)(0xC0 | c >> 6);
        u[1] = (unsigned char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        u[0] = (unsigned char)(0xE0 | c >> 12);
        u[1] = (unsigned char)(0x80 | (c >> 6 & 0x3F));
        u[2] = (unsigned char)(0x80 | (c & 0x3F));
        return 3;
    }
    u[0] = (unsigned char)(0xF0 | c >> 18);
    u[1] = (unsigned char)(0x80 | (c >> 12 & 0x3F));
    u[2] = (unsigned char)(0x80 | (c >> 6 & 0x3F));
    u[3] = (unsigned char)(0x80 | (c & 0x3F));
    return 4;
}

/* Length of the run of ASCII at the start. */
static size_t ascii_run(const char *p, size_t count)
{
    size_t i = 0;

    while (i + 8 <= count) {
        uint64_t word;

        memcpy(&word, p + i, 8);
        if ((word & UINT64_C(0x8080808080808080)) != 0)
            break;
        i += 8;
    }
    while (i < count && (unsigned char)p[i] < 0x80)
        i++;
    return i;
}

bool trmi_is_ascii(const char *p, size_t count)
{
    return ascii_run(p, count) == count;
}

size_t trmi_utf8_good(const char *p, size_t count)
{
    size_t i = 0;

    for (;;) {
        uint32_t c;
        size_t bytes;

        i += ascii_run(p + i, count - i);
        if (i == count || trmi_utf8_look(p + i, count - i, &c, &bytes) != TRMI_UTF8_CHAR)
            return i;
        i += bytes;
    }
}

void trmi_utf8_add_lossy(trmi_buf *b, const char *p, size_t count)
{
    size_t i = 0;

    while (i < count) {
        size_t good = trmi_utf8_good(p + i, count - i), bytes;
        uint32_t c;

        trmi_buf_add(b, p + i, good);
        i += good;
        if (i == count)
            return;
        trmi_utf8_look(p + i, count - i, &c, &bytes);
        trmi_buf_char(b, TRMI_REPLACEMENT);
        i += bytes;
    }
}

/* ---- classes ----
 * The library's parts carry Unicode tables of different ages; ours are read out of it, so that they
 * do not move with the Unicode library that happens to be installed. */

bool trmi_is_white(uint32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= 0x09 && c <= 0x0D);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static bool within(const trmi_range *ranges, size_t count, uint32_t c)
{
    size_t low = 0, high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (c > ranges[middle].last)
            low = middle + 1;
        else if (c < ranges[middle].first)
            high = middle;
        else
            return true;
    }
    return false;
}

#define WITHIN(ranges, c) within(ranges, sizeof(ranges) / sizeof((ranges)[0]), c)

bool trmi_is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
               (c >= 0x7B && c <= 0x7E);
    return WITHIN(punctuation_ranges, c);
}

bool trmi_is_number(uint32_t c)
{
    return c < 0x80 ? c >= '0' && c <= '9' : WITHIN(number_ranges, c);
}

bool trmi_is_mark(uint32_t c)
{
    return c >= 0x300 && WITHIN(mark_ranges, c);
}

bool trmi_is_nonspacing(uint32_t c)
{
    return c >= 0x300 && WITHIN(nonspacing_ranges, c);
}

bool trmi_is_other(uint32_t c)
{
    return c < 0x80 ? c < 0x20 || c == 0x7F : WITHIN(other_ranges, c);
}

bool trmi_is_whole(uint32_t c)
{
    return c >= 0x80 && WITHIN(whole_ranges, c);
}

bool trmi_is_word(uint32_t c)
{
    if (c < 0x80)
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_';
    return WITHIN(word_ranges, c);
}

size_t trmi_lower(uint32_t c, uint32_t out[3])
{
    if (c == 0x130) { /* the one character whose full lower case is longer than the simple one */
        out[0] = 'i';
        out[1] = 0x307;
        return 2;
    }
    out[0] = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    if (out[0] != c || c < 0x80)
        return 1;
    for (size_t i = 0; i < sizeof(lower_ranges) / sizeof(lower_ranges[0]); i++)
        if (c >= lower_ranges[i].first && c <= lower_ranges[i].last)
            out[0] = (uint32_t)((int32_t)c + lower_ranges[i].add);
    return 1;
}
