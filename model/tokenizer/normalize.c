/* Normalizers other than Unicode's forms: each reads line->now and writes line->next. */
#define _GNU_SOURCE /* memmem */
#include "model/tokenizer/tokenizer_impl.h"

#include <string.h>

void trmi_normalizer_fini(trmi_normalizer *n)
{
    trmi_regex_destroy(n->regex);
    trmi_precompiled_destroy(n->map);
    trmi_trie_destroy(n->whole);
    n->regex = NULL;
    n->map = NULL;
    n->whole = NULL;
}

void trmi_line_swap(trmi_line *line)
{
    trmi_buf b = line->now;

    line->now = line->next;
    line->next = b;
}

/* ---- bytes as characters ---- */

/* Bytes that are printable in Latin-1 stand for themselves, the others for U+0100 and on. */
static bool byte_is_plain(unsigned b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

/* The n-th of the others: 0x00-0x20, 0x7F-0xA0, 0xAD. */
static uint32_t byte_char(unsigned b)
{
    if (byte_is_plain(b))
        return b;
    return 0x100 + (b <= 0x20 ? b : b == 0xAD ? 67 : b - 0x7F + 33);
}

void trmi_byte_level_add(trmi_buf *out, const char *text, size_t bytes)
{
    size_t at;

    if (!trmi_buf_reserve(out, bytes * 2))
        return;
    at = out->count;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char b = (unsigned char)text[i];

        if (b >= 0x21 && b <= 0x7E)
            out->bytes[at++] = (char)b;
        else
            at += trmi_utf8_put(byte_char(b), out->bytes + at);
    }
    out->count = at;
}

int trmi_byte_level_byte(uint32_t c)
{
    if (c < 0x100)
        return byte_is_plain(c) ? (int)c : -1;
    c -= 0x100;
    return c <= 0x20 ? (int)c : c < 67 ? (int)(c - 33 + 0x7F) : c == 67 ? 0xAD : -1;
}

/* ---- steps ---- */

static void strip(const trmi_normalizer *n, trmi_line *line)
{
    const char *p = line->now.bytes;
    size_t low = 0, high = line->now.count, bytes;

    while (n->left && low < high && trmi_is_white(trmi_utf8_get(p + low, &bytes)))
        low += bytes;
    while (n->right && high > low) {
        size_t last = high - 1;

        while (last > low && ((unsigned char)p[last] & 0xC0) == 0x80)
            last--;
        if (!trmi_is_white(trmi_utf8_get(p + last, &bytes)))
            break;
        high = last;
    }
    if (low > 0)
        line->head = false;
    trmi_buf_add(&line->next, p + low, high - low);
}

/* What one character becomes: out[n], n may be 0 */
typedef size_t map_char(uint32_t c, uint32_t out[3]);

static size_t map_lower(uint32_t c, uint32_t out[3])
{
    return trmi_lower(c, out);
}

static size_t map_without_marks(uint32_t c, uint32_t out[3])
{
    out[0] = c;
    return trmi_is_mark(c) ? 0 : 1;
}

static size_t map_without_nonspacing(uint32_t c, uint32_t out[3])
{
    out[0] = c;
    return trmi_is_nonspacing(c) ? 0 : 1;
}

static size_t map_clean(uint32_t c, uint32_t out[3])
{
    bool blank = c == '\t' || c == '\n' || c == '\r';

    if (c == 0 || c == TRMI_REPLACEMENT || (!blank && trmi_is_other(c)))
        return 0;
    out[0] = blank || trmi_is_white(c) ? ' ' : c;
    return 1;
}

/* CJK Unified Ideographs and their extensions as BERT lists them. */
static bool is_ideograph(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static size_t map_ideograph(uint32_t c, uint32_t out[3])
{
    if (!is_ideograph(c)) {
        out[0] = c;
        return 1;
    }
    out[0] = out[2] = ' ';
    out[1] = c;
    return 3;
}

static size_t map_nmt(uint32_t c, uint32_t out[3])
{
    if ((c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F ||
        c == 0x8F || c == 0x9F)
        return 0;
    out[0] = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD
                 ? ' '
                 : c;
    return 1;
}

static void each_char(map_char *map, trmi_line *line)
{
    const char *p = line->now.bytes;

    for (size_t i = 0; i < line->now.count;) {
        uint32_t out[3];
        size_t bytes, n = map(trmi_utf8_get(p + i, &bytes), out);

        for (size_t k = 0; k < n; k++)
            trmi_buf_char(&line->next, out[k]);
        if (i == 0 && n == 0)
            line->head = false;
        i += bytes;
    }
}

static void replace_text(const trmi_normalizer *n, trmi_line *line)
{
    const char *p = line->now.bytes;
    size_t i = 0;

    while (i < line->now.count) {
        const char *hit = memmem(p + i, line->now.count - i, n->from.bytes, n->from.count);
        size_t before = hit == NULL ? line->now.count - i : (size_t)(hit - p) - i;

        trmi_buf_add(&line->next, p + i, before);
        i += before;
        if (hit == NULL)
            break;
        if (i == 0 && n->to.count == 0)
            line->head = false;
        trmi_buf_add(&line->next, n->to.bytes, n->to.count);
        i += n->from.count;
    }
}

static trm_status replace_regex(const trmi_normalizer *n, trmi_matcher *m, trmi_line *line)
{
    const char *p = line->now.bytes;
    size_t from = 0, done = 0, start, end, last_end = SIZE_MAX;
    bool found = true;

    while (from <= line->now.count) {
        TRM_CHECK(trmi_regex_find(n->regex, m, p, line->now.count, from, &found, &start, &end));
        if (!found)
            break;
        if (start == end && end == last_end) { /* an empty match right behind the last one */
            size_t bytes = 1;

            if (from < line->now.count)
                (void)trmi_utf8_get(p + from, &bytes);
            from += bytes;
            continue;
        }
        trmi_buf_add(&line->next, p + done, start - done);
        if (start == 0 && end > 0 && n->to.count == 0)
            line->head = false;
        trmi_buf_add(&line->next, n->to.bytes, n->to.count);
        from = done = last_end = end;
    }
    trmi_buf_add(&line->next, p + done, line->now.count - done);
    return TRM_OK;
}

static trm_status run(const trmi_normalizer *n, trmi_matcher *m, trmi_line *line)
{
    static map_char *const maps[] = {
        [TRMI_NORMALIZER_LOWERCASE] = map_lower,
        [TRMI_NORMALIZER_STRIP_ACCENTS] = map_without_marks,
        [TRMI_NORMALIZER_BERT_CLEAN] = map_clean,
        [TRMI_NORMALIZER_BERT_CHINESE] = map_ideograph,
        [TRMI_NORMALIZER_BERT_ACCENTS] = map_without_nonspacing,
        [TRMI_NORMALIZER_NMT] = map_nmt,
    };

    switch (n->kind) {
    case TRMI_NORMALIZER_NFC:
    case TRMI_NORMALIZER_NFD:
    case TRMI_NORMALIZER_NFKC:
    case TRMI_NORMALIZER_NFKD:
        return trmi_normalize_unicode(n->kind, line);
    case TRMI_NORMALIZER_STRIP:
        strip(n, line);
        break;
    case TRMI_NORMALIZER_REPLACE:
        if (n->regex != NULL)
            TRM_CHECK(replace_regex(n, m, line));
        else
            replace_text(n, line);
        break;
    case TRMI_NORMALIZER_PREPEND:
        trmi_buf_add(&line->next, n->to.bytes, n->to.count);
        trmi_buf_add(&line->next, line->now.bytes, line->now.count);
        break;
    case TRMI_NORMALIZER_PRECOMPILED:
        return trmi_precompiled_apply(n->map, line);
    case TRMI_NORMALIZER_SENTENCEPIECE:
        return trmi_normalize_sentencepiece(n, line);
    case TRMI_NORMALIZER_BYTE_LEVEL:
        trmi_byte_level_add(&line->next, line->now.bytes, line->now.count);
        break;
    case TRMI_NORMALIZER_BERT_ACCENTS:
        TRM_CHECK(trmi_normalize_unicode(TRMI_NORMALIZER_NFD, line));
        trmi_line_swap(line);
        trmi_buf_clear(&line->next);
        each_char(maps[n->kind], line);
        break;
    default:
        each_char(maps[n->kind], line);
    }
    return TRM_OK;
}

trm_status trmi_normalize(const trmi_normalizer *steps, size_t count, trmi_matcher *m,
                          trmi_line *line)
{
    for (size_t i = 0; i < count; i++) {
        if (line->now.count == 0)
            break;
        trmi_buf_clear(&line->next);
        TRM_CHECK(run(&steps[i], m, line));
        TRM_CHECK(trmi_buf_status(&line->next, "text on its way through a normalizer"));
        if (line->next.count > TRMI_TEXT_BYTES_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "the text grows beyond %zu bytes",
                            TRMI_TEXT_BYTES_MAX);
        trmi_line_swap(line);
    }
    return TRM_OK;
}
