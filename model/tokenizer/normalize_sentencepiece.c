/* Sentencepiece's own normalizer (src/normalizer.cc): rules by the longest match, user-defined
 * tokens untouched, blanks gathered, written as U+2581, one put in front. */
#include "model/tokenizer/tokenizer_impl.h"

#include <string.h>

#define LOWER_BLOCK "\xE2\x96\x81"

/* What the text begins with, normalized: its source's bytes are the result. */
static size_t next_part(const trmi_normalizer *n, const char *p, size_t count, trm_text *to_out)
{
    size_t bytes;

    if (n->whole != NULL && trmi_trie_longest(n->whole, p, count, &bytes) >= 0) {
        to_out->bytes = p;
        to_out->count = bytes;
        return bytes;
    }
    if (n->map != NULL && trmi_precompiled_longest(n->map, p, count, &bytes, to_out))
        return bytes;
    (void)trmi_utf8_get(p, &bytes);
    to_out->bytes = p;
    to_out->count = bytes;
    return bytes;
}

static void add_blank(const trmi_normalizer *n, trmi_buf *out)
{
    if (n->escape)
        trmi_buf_add(out, LOWER_BLOCK, 3);
    else
        trmi_buf_byte(out, ' ');
}

trm_status trmi_normalize_sentencepiece(const trmi_normalizer *n, trmi_line *line)
{
    const char *p = line->now.bytes;
    size_t count = line->now.count, at = 0, blank_bytes = n->escape ? 3 : 1;
    bool after_blank = n->remove_extra;
    trmi_buf *out = &line->next;
    trm_text part;

    while (n->remove_extra && at < count) {
        size_t bytes = next_part(n, p + at, count - at, &part);

        if (part.count != 1 || part.bytes[0] != ' ')
            break;
        at += bytes;
    }
    if (at == count)
        return TRM_OK;
    if (n->dummy_prefix && !n->suffix)
        add_blank(n, out);
    while (at < count) {
        size_t bytes = next_part(n, p + at, count - at, &part), i = 0;

        while (after_blank && i < part.count && part.bytes[i] == ' ')
            i++;
        for (size_t k = i; k < part.count; k++) {
            if (part.bytes[k] == ' ')
                add_blank(n, out);
            else
                trmi_buf_byte(out, part.bytes[k]);
        }
        if (i < part.count)
            after_blank = part.bytes[part.count - 1] == ' ';
        if (!n->remove_extra)
            after_blank = false;
        at += bytes;
    }
    while (n->remove_extra && out->count >= blank_bytes &&
           memcmp(out->bytes + out->count - blank_bytes, n->escape ? LOWER_BLOCK : " ",
                  blank_bytes) == 0)
        out->count -= blank_bytes;
    if (n->dummy_prefix && n->suffix)
        add_blank(n, out);
    return TRM_OK;
}
