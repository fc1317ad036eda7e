/* WordPiece: the longest token that a word begins with, then the longest that goes on, with the
 * prefix of those inside words; a word that cannot be cut so is unknown as a whole. */
#include "model/tokenizer/tokenizer_impl.h"

#include <string.h>

trm_status trmi_wordpiece_finish(trmi_model *m)
{
    const trmi_vocabulary *v = &m->vocabulary;
    trmi_trie_key *keys = trm_malloc(v->ids + 1, sizeof(*keys));
    size_t n = 0, kept = 0;
    trm_status st;

    if (keys == NULL)
        return trmi_no_memory("a vocabulary's tries");
    for (size_t i = 0; i < v->ids; i++) {
        size_t bytes;
        const char *token = trmi_vocabulary_token(v, i, &bytes);

        if (token == NULL || trmi_utf8_good(token, bytes) != bytes ||
            trmi_vocabulary_find(v, token, bytes) != (int32_t)i)
            continue;
        keys[n].bytes = token;
        keys[n].count = bytes;
        keys[n++].value = (int32_t)i;
    }
    TRM_TRY(st, trmi_trie_create(keys, n, &m->start), end);
    for (size_t i = 0; i < n; i++) {
        trmi_trie_key key = keys[i];

        if (key.count <= m->prefix.count ||
            memcmp(key.bytes, m->prefix.bytes, m->prefix.count) != 0)
            continue;
        key.bytes += m->prefix.count;
        key.count -= m->prefix.count;
        keys[kept++] = key;
    }
    st = trmi_trie_create(keys, kept, &m->inside);
end:
    trm_free(keys);
    return st;
}

static bool too_long(const trmi_model *m, const char *word, size_t bytes)
{
    size_t chars = 0;

    for (size_t i = 0; i < bytes; i++)
        chars += ((unsigned char)word[i] & 0xC0) != 0x80;
    return chars > m->word_chars_max;
}

trm_status trmi_wordpiece_encode(const trmi_model *m, trmi_scratch *s, const char *word,
                                 size_t bytes)
{
    size_t before = s->ids.count, at = 0, used;

    if (!too_long(m, word, bytes))
        while (at < bytes) {
            int32_t id =
                trmi_trie_longest(at == 0 ? m->start : m->inside, word + at, bytes - at, &used);

            if (id < 0)
                break;
            trmi_ids_add(&s->ids, id);
            at += used;
        }
    if (at == bytes || s->ids.failed)
        return TRM_OK;
    if (m->unknown < 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "the tokenizer has no tokens for '%.*s' and no unknown token",
                        bytes > 40 ? 40 : (int)bytes, word);
    s->ids.count = before;
    trmi_ids_add(&s->ids, m->unknown);
    return TRM_OK;
}
