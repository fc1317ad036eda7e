/* NFC, NFD, NFKC, NFKD (UAX #15). Characters are decomposed by utf8proc one at a time; marks are
 * put in order here, because utf8proc's own way is quadratic in a long run of marks. Text is
 * handled in chunks that end before an ASCII character: nothing composes with one from the left. */
#include "model/tokenizer/tokenizer_impl.h"

#include <utf8proc.h>

#include <string.h>

#define DECOMPOSED_MAX 32 /* of one character: 18 in Unicode 15 */
#define SHORT_RUN 32

typedef struct chunk {
    int32_t *chars, *spare;
    size_t count, room, spare_room;
} chunk;

static unsigned combining_class(int32_t c)
{
    return trmi_is_mark((uint32_t)c) ? utf8proc_get_property(c)->combining_class & 0xFFu : 0;
}

static void sort_short(int32_t *run, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        int32_t c = run[i];
        unsigned k = combining_class(c);
        size_t at = i;

        for (; at > 0 && combining_class(run[at - 1]) > k; at--)
            run[at] = run[at - 1];
        run[at] = c;
    }
}

/* Stable, by counting: classes are bytes. */
static bool sort_long(chunk *k, int32_t *run, size_t count)
{
    size_t starts[257] = {0};

    if (!trmi_grow((void **)&k->spare, &k->spare_room, count, sizeof(*k->spare)))
        return false;
    for (size_t i = 0; i < count; i++)
        starts[combining_class(run[i]) + 1]++;
    for (size_t i = 0; i < 256; i++)
        starts[i + 1] += starts[i];
    for (size_t i = 0; i < count; i++)
        k->spare[starts[combining_class(run[i])]++] = run[i];
    memcpy(run, k->spare, count * sizeof(*run));
    return true;
}

static bool order_marks(chunk *k)
{
    for (size_t i = 0; i < k->count;) {
        size_t end = i;

        while (end < k->count && combining_class(k->chars[end]) != 0)
            end++;
        if (end - i > SHORT_RUN) {
            if (!sort_long(k, k->chars + i, end - i))
                return false;
        } else if (end - i > 1) {
            sort_short(k->chars + i, end - i);
        }
        i = end + 1;
    }
    return true;
}

static bool flush(chunk *k, bool compose, trmi_buf *out)
{
    utf8proc_ssize_t n = (utf8proc_ssize_t)k->count;

    if (!order_marks(k))
        return false;
    if (compose && n > 1)
        n = utf8proc_normalize_utf32(k->chars, n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < n; i++)
        trmi_buf_char(out, (uint32_t)k->chars[i]);
    k->count = 0;
    return true;
}

trm_status trmi_normalize_unicode(trmi_normalizer_kind kind, trmi_line *line)
{
    bool compose = kind == TRMI_NORMALIZER_NFC || kind == TRMI_NORMALIZER_NFKC;
    utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    const char *p = line->now.bytes;
    size_t count = line->now.count;
    chunk k = {0};
    bool ok = true;

    if (kind == TRMI_NORMALIZER_NFKC || kind == TRMI_NORMALIZER_NFKD)
        options |= UTF8PROC_COMPAT;
    for (size_t i = 0; i < count && ok;) {
        size_t bytes;
        uint32_t c = trmi_utf8_get(p + i, &bytes);
        int bound = 0;
        utf8proc_ssize_t n;

        i += bytes;
        if (c < 0x80 && k.count > 0)
            ok = flush(&k, compose, &line->next);
        if (c < 0x80 && (i == count || (unsigned char)p[i] < 0x80)) {
            trmi_buf_byte(&line->next, (char)c);
            continue;
        }
        if (!trmi_grow((void **)&k.chars, &k.room, k.count + DECOMPOSED_MAX, sizeof(*k.chars))) {
            ok = false;
            break;
        }
        n = utf8proc_decompose_char((utf8proc_int32_t)c, k.chars + k.count, DECOMPOSED_MAX, options,
                                    &bound);
        if (n < 0 || n > DECOMPOSED_MAX || trmi_is_whole(c)) {
            k.chars[k.count] = (int32_t)c;
            n = 1;
        }
        k.count += (size_t)n;
    }
    ok = ok && flush(&k, compose, &line->next);
    trm_free(k.chars);
    trm_free(k.spare);
    return ok ? TRM_OK : trmi_no_memory("text in a Unicode normal form");
}
