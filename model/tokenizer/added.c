/* Added tokens: spellings that are cut out of the text before anything else reads it. The leftmost
 * match counts, the longest of those, as in the `tokenizers` library, which searches with
 * Aho-Corasick; here a trie is walked from each place, which the bound on a key's length allows. */
#include "model/tokenizer/tokenizer_impl.h"

#include <string.h>

void trmi_added_fini(trmi_added *a)
{
    trmi_vocabulary_fini(&a->vocabulary);
    trm_free(a->tokens);
    trmi_trie_destroy(a->plain);
    trmi_trie_destroy(a->normalized);
    memset(a, 0, sizeof(*a));
}

const trmi_added_token *trmi_added_get(const trmi_added *a, int32_t id)
{
    return id >= 0 && (size_t)id < a->token_room && a->tokens[id].id >= 0 ? &a->tokens[id] : NULL;
}

trm_status trmi_added_add(trmi_added *a, const char *token, size_t bytes,
                          const trmi_added_token *how)
{
    size_t before = a->token_room;

    TRM_CHECK(trmi_vocabulary_add(&a->vocabulary, token, bytes, (size_t)how->id));
    if (!trmi_grow((void **)&a->tokens, &a->token_room, (size_t)how->id + 1, sizeof(*a->tokens)))
        return trmi_no_memory("added tokens");
    for (size_t i = before; i < a->token_room; i++)
        a->tokens[i].id = -1;
    a->tokens[how->id] = *how;
    return TRM_OK;
}

static trm_status make_trie(trmi_trie_key *keys, size_t count, trmi_trie **trie)
{
    return count == 0 ? TRM_OK : trmi_trie_create(keys, count, trie);
}

/* The spelling of a token in normalized text, kept in *all (whose bytes may move). */
static trm_status normalized_form(const trmi_normalizer *steps, size_t count, trmi_matcher *m,
                                  trmi_line *line, const char *token, size_t bytes, trmi_buf *all)
{
    trmi_buf_clear(&line->now);
    trmi_buf_add(&line->now, token, bytes);
    line->head = true;
    TRM_CHECK(trmi_buf_status(&line->now, "added tokens"));
    /* sentencepiece looks for user-defined tokens as they are written */
    if (count == 0 || steps[0].kind != TRMI_NORMALIZER_SENTENCEPIECE)
        TRM_CHECK(trmi_normalize(steps, count, m, line));
    trmi_buf_add(all, line->now.bytes, line->now.count);
    return trmi_buf_status(all, "added tokens");
}

trm_status trmi_added_finish(trmi_added *a, const trmi_normalizer *steps, size_t count)
{
    size_t room = a->vocabulary.used + 1, plain = 0, normalized = 0, at = 0;
    trmi_trie_key *keys = trm_calloc(room * 2, sizeof(*keys)), *others;
    trmi_matcher *m = NULL;
    trmi_line line = {{0}, {0}, true};
    trmi_buf all = {0};
    trm_status st;

    if (keys == NULL)
        return trmi_no_memory("added tokens");
    others = keys + room;
    TRM_TRY(st, trmi_matcher_create(&m), end);
    for (size_t i = 0; i < a->token_room && i < a->vocabulary.ids; i++) {
        size_t bytes, before = all.count;
        const char *token = trmi_vocabulary_token(&a->vocabulary, i, &bytes);

        /* a token that has got another id since is looked for under that */
        if (token == NULL || a->tokens[i].id < 0 || bytes == 0 ||
            trmi_vocabulary_find(&a->vocabulary, token, bytes) != (int32_t)i)
            continue;
        if (a->tokens[i].normalized) {
            TRM_TRY(st, normalized_form(steps, count, m, &line, token, bytes, &all), end);
            others[normalized].count = all.count - before;
            others[normalized++].value = (int32_t)i;
        } else {
            keys[plain].bytes = token;
            keys[plain].count = bytes;
            keys[plain++].value = (int32_t)i;
        }
    }
    for (size_t i = 0; i < normalized; i++) {
        others[i].bytes = all.bytes + at;
        at += others[i].count;
    }
    TRM_TRY(st, make_trie(keys, plain, &a->plain), end);
    TRM_TRY(st, make_trie(others, normalized, &a->normalized), end);
end:
    trm_free(keys);
    trmi_matcher_destroy(m);
    trmi_buf_fini(&line.now);
    trmi_buf_fini(&line.next);
    trmi_buf_fini(&all);
    return st;
}

/* ---- scanning ---- */

void trmi_scan_begin(trmi_scan *s, const trmi_added *a, bool normalized, bool plain,
                     const char *text, size_t bytes)
{
    memset(s, 0, sizeof(*s));
    s->added = a;
    s->trie = normalized ? a->normalized : a->plain;
    s->text = text;
    s->bytes = bytes;
    s->plain = plain;
}

static uint32_t char_before(const char *p, size_t at)
{
    size_t bytes;

    do
        at--;
    while (at > 0 && ((unsigned char)p[at] & 0xC0) == 0x80);
    return trmi_utf8_get(p + at, &bytes);
}

static size_t blanks_before(const char *p, size_t low, size_t at)
{
    while (at > low && trmi_is_white(char_before(p, at))) {
        do
            at--;
        while (at > low && ((unsigned char)p[at] & 0xC0) == 0x80);
    }
    return at;
}

static size_t blanks_after(const char *p, size_t at, size_t count)
{
    size_t bytes;

    while (at < count && trmi_is_white(trmi_utf8_get(p + at, &bytes)))
        at += bytes;
    return at;
}

/* The next occurrence at or after s->at; the search goes on behind it. */
static bool next_match(trmi_scan *s, size_t *start_out, size_t *end_out, int32_t *id_out)
{
    for (size_t i = s->at; i < s->bytes; i++) {
        size_t bytes;

        if (s->trie->root[(unsigned char)s->text[i]] == 0)
            continue;
        *id_out = trmi_trie_longest(s->trie, s->text + i, s->bytes - i, &bytes);
        if (*id_out < 0)
            continue;
        *start_out = i;
        *end_out = s->at = i + bytes;
        return true;
    }
    s->at = s->bytes;
    return false;
}

static void give(trmi_found *found, size_t start, size_t end, int32_t id)
{
    found->at = start;
    found->bytes = end - start;
    found->id = id;
}

bool trmi_scan_next(trmi_scan *s, trmi_found *found_out)
{
    size_t start, end, bytes;
    int32_t id;

    if (s->is_waiting) {
        *found_out = s->waiting;
        s->is_waiting = false;
        return true;
    }
    while (s->trie != NULL && next_match(s, &start, &end, &id)) {
        const trmi_added_token *t = &s->added->tokens[id];

        if (s->plain && t->special)
            continue;
        if (t->single_word &&
            ((start > 0 && trmi_is_word(char_before(s->text, start))) ||
             (end < s->bytes && trmi_is_word(trmi_utf8_get(s->text + end, &bytes)))))
            continue;
        if (t->lstrip && start > s->done)
            start = blanks_before(s->text, s->done, start);
        if (t->rstrip)
            end = blanks_after(s->text, end, s->bytes);
        if (s->done < start) {
            give(found_out, s->done, start, -1);
            give(&s->waiting, start, end, id);
            s->is_waiting = true;
        } else {
            give(found_out, start, end, id);
        }
        s->done = end;
        return true;
    }
    if (s->done == s->bytes)
        return false;
    give(found_out, s->done, s->bytes, -1);
    s->done = s->bytes;
    return true;
}
