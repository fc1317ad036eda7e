/* Byte pair encoding: symbols, at first characters, merge in the order of their merges' ranks, the
 * leftmost first among equals. Short words look for the least rank each time; long ones keep a heap
 * of candidates, checked when they are taken out, so that a word of a million characters takes
 * n log n. By scores (sentencepiece) any two neighbours merge whose text together is a token. */
#include "model/tokenizer/tokenizer_impl.h"

#include <string.h>

#define SHORT_WORD 40
#define FREE_PAIR UINT64_MAX
#define PROBES_MAX 2048
#define LOWER_BLOCK 0x2581u

/* ---- merges ---- */

static size_t pair_slot(const trmi_model *m, uint64_t pair)
{
    uint64_t h = pair * UINT64_C(0x9E3779B97F4A7C15);

    return (size_t)(h ^ h >> 29) & m->merge_mask;
}

static const trmi_merge *find_pair(const trmi_model *m, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t at = pair_slot(m, pair);

    if (m->merges == NULL)
        return NULL;
    while (m->merges[at].pair != pair) {
        if (m->merges[at].pair == FREE_PAIR)
            return NULL;
        at = (at + 1) & m->merge_mask;
    }
    return &m->merges[at];
}

trm_status trmi_bpe_merges_reserve(trmi_model *m, size_t count)
{
    size_t room = 64;

    if (count > TRMI_IDS_MAX * 2)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%zu merges; at most %zu", count, TRMI_IDS_MAX * 2);
    while (room < count * 2)
        room *= 2;
    m->merges = trm_malloc(room, sizeof(*m->merges));
    if (m->merges == NULL)
        return trmi_no_memory("merges");
    memset(m->merges, 0xFF, room * sizeof(*m->merges));
    m->merge_mask = room - 1;
    return TRM_OK;
}

static trm_status no_token(uint32_t rank, const char *bytes, size_t count)
{
    return trm_fail(TRM_ERR_BAD_FILE, "merge %u needs '%.*s', which is not in the vocabulary",
                    (unsigned)rank, count > 60 ? 60 : (int)count, bytes);
}

trm_status trmi_bpe_merges_add(trmi_model *m, const char *left, size_t left_bytes,
                               const char *right, size_t right_bytes, uint32_t rank,
                               trmi_buf *spare)
{
    int32_t a = trmi_vocabulary_find(&m->vocabulary, left, left_bytes);
    int32_t b = trmi_vocabulary_find(&m->vocabulary, right, right_bytes);
    size_t cut = m->prefix.count < right_bytes ? m->prefix.count : right_bytes, at;
    uint64_t pair;
    int32_t id;

    if (a < 0)
        return no_token(rank, left, left_bytes);
    if (b < 0)
        return no_token(rank, right, right_bytes);
    trmi_buf_clear(spare);
    trmi_buf_add(spare, left, left_bytes);
    trmi_buf_add(spare, right + cut, right_bytes - cut);
    TRM_CHECK(trmi_buf_status(spare, "a merge"));
    id = trmi_vocabulary_find(&m->vocabulary, spare->count == 0 ? "" : spare->bytes, spare->count);
    if (id < 0)
        return no_token(rank, spare->bytes, spare->count);
    pair = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    at = pair_slot(m, pair);
    for (size_t probes = 0; m->merges[at].pair != FREE_PAIR && m->merges[at].pair != pair;
         probes++) {
        if (probes == PROBES_MAX)
            return trm_fail(TRM_ERR_BAD_FILE, "the merges are made to collide");
        at = (at + 1) & m->merge_mask;
    }
    if (m->merges[at].pair == FREE_PAIR)
        m->merge_count++;
    m->merges[at].pair = pair;
    m->merges[at].rank = rank;
    m->merges[at].id = id;
    return TRM_OK;
}

/* Whether a token holds U+2581 behind something else. */
static bool spans_words(const char *token, size_t bytes)
{
    uint32_t before = LOWER_BLOCK;

    for (size_t i = 0; i < bytes;) {
        size_t n;
        uint32_t c = trmi_utf8_get(token + i, &n);

        if (c == LOWER_BLOCK && before != LOWER_BLOCK)
            return true;
        before = c;
        i += n;
    }
    return false;
}

/* Words may be cut before U+2581 where no merge ever reaches over it; "▁" itself must be a token,
 * so that a run of unknown characters ends there too. */
static bool can_cut(const trmi_model *m)
{
    if (m->prefix.count > 0 || m->suffix.count > 0 ||
        trmi_vocabulary_find(&m->vocabulary, "\xE2\x96\x81", 3) < 0)
        return false;
    if (m->ranks != NULL) {
        for (size_t i = 0; i < m->vocabulary.ids; i++)
            if (m->ranks[i] != UINT32_MAX &&
                spans_words(m->vocabulary.pool + m->vocabulary.tokens[i].at,
                            m->vocabulary.tokens[i].bytes))
                return false;
        return true;
    }
    for (size_t i = 0; m->merges != NULL && i <= m->merge_mask; i++) {
        const trmi_token *t;

        if (m->merges[i].pair == FREE_PAIR)
            continue;
        t = &m->vocabulary.tokens[m->merges[i].id];
        if (spans_words(m->vocabulary.pool + t->at, t->bytes))
            return false;
    }
    return true;
}

void trmi_bpe_finish(trmi_model *m)
{
    for (uint32_t c = 0; c < sizeof(m->low_chars) / sizeof(m->low_chars[0]); c++) {
        char text[4];
        size_t bytes = trmi_utf8_put(c, text);

        m->low_chars[c] = trmi_vocabulary_find(&m->vocabulary, text, bytes);
    }
    m->cuts_at_space = can_cut(m);
}

/* ---- symbols ---- */

static bool merge_of(const trmi_model *m, const char *word, const trmi_symbol *left,
                     const trmi_symbol *right, uint32_t *rank_out, int32_t *id_out)
{
    if (m->ranks == NULL) {
        const trmi_merge *merge = find_pair(m, left->id, right->id);

        if (merge == NULL)
            return false;
        *rank_out = merge->rank;
        *id_out = merge->id;
        return true;
    }
    *id_out = trmi_vocabulary_find(&m->vocabulary, word + left->at, left->bytes + right->bytes);
    if (*id_out < 0 || m->ranks[*id_out] == UINT32_MAX)
        return false;
    *rank_out = m->ranks[*id_out];
    return true;
}

static bool add_symbol(trmi_scratch *s, size_t *count, int32_t id, size_t at, size_t bytes)
{
    trmi_symbol *y;

    if (!trmi_grow((void **)&s->symbols, &s->symbol_room, *count + 1, sizeof(*s->symbols)))
        return false;
    y = &s->symbols[*count];
    y->id = id;
    y->at = (uint32_t)at;
    y->bytes = (uint32_t)bytes;
    (*count)++;
    return true;
}

/* The id of the character at `at`, spelled with prefix or suffix where it takes one; s->spelled
 * holds that spelling, unless neither applies. */
static int32_t char_id(const trmi_model *m, trmi_scratch *s, const char *p, uint32_t c,
                       size_t bytes, bool first, bool last)
{
    trmi_buf *b = &s->spelled;

    trmi_buf_clear(b);
    if ((first || m->prefix.count == 0) && (!last || m->suffix.count == 0)) {
        if (c < sizeof(m->low_chars) / sizeof(m->low_chars[0]))
            return m->low_chars[c];
        return trmi_vocabulary_find(&m->vocabulary, p, bytes);
    }
    if (!first)
        trmi_buf_add(b, m->prefix.bytes, m->prefix.count);
    trmi_buf_add(b, p, bytes);
    if (last)
        trmi_buf_add(b, m->suffix.bytes, m->suffix.count);
    return b->failed ? -1 : trmi_vocabulary_find(&m->vocabulary, b->bytes, b->count);
}

/* Byte tokens for [p, p + bytes); false: one is missing (and none was added), or no memory. */
static bool add_bytes(const trmi_model *m, trmi_scratch *s, size_t *count, const char *p,
                      size_t bytes, size_t at)
{
    for (size_t i = 0; i < bytes; i++)
        if (m->bytes[(unsigned char)p[i]] < 0)
            return false;
    for (size_t i = 0; i < bytes; i++)
        if (!add_symbol(s, count, m->bytes[(unsigned char)p[i]], at, 1))
            return false;
    return true;
}

/* Characters to symbols, as merges want them: unknown ones are settled here. */
static trm_status make_symbols(const trmi_model *m, trmi_scratch *s, const char *word, size_t count,
                               size_t *n_out)
{
    size_t n = 0, unknown_at = 0, unknown_bytes = 0, bytes;

    for (size_t i = 0; i < count; i += bytes) {
        uint32_t c = trmi_utf8_get(word + i, &bytes);
        int32_t id = char_id(m, s, word + i, c, bytes, i == 0, i + bytes == count);

        if (id >= 0) {
            if (unknown_bytes > 0 && !add_symbol(s, &n, m->unknown, unknown_at, unknown_bytes))
                return trmi_no_memory("a word");
            unknown_bytes = 0;
            if (!add_symbol(s, &n, id, i, bytes))
                return trmi_no_memory("a word");
            continue;
        }
        if (m->byte_fallback) {
            bool plain = s->spelled.count == 0;

            if (add_bytes(m, s, &n, plain ? word + i : s->spelled.bytes,
                          plain ? bytes : s->spelled.count, i))
                continue;
        }
        if (m->unknown_missing)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "the tokenizer has no token for '%.*s', and its "
                            "unknown token is not in the vocabulary",
                            (int)bytes, word + i);
        if (m->unknown < 0)
            continue;
        if (unknown_bytes > 0 && !m->fuse_unknown) {
            if (!add_symbol(s, &n, m->unknown, unknown_at, unknown_bytes))
                return trmi_no_memory("a word");
            unknown_bytes = 0;
        }
        if (unknown_bytes == 0)
            unknown_at = i;
        unknown_bytes += bytes;
    }
    if (unknown_bytes > 0 && !add_symbol(s, &n, m->unknown, unknown_at, unknown_bytes))
        return trmi_no_memory("a word");
    *n_out = n;
    return s->spelled.failed ? trmi_no_memory("a word") : TRM_OK;
}

/* By scores: unknown characters stay symbols without an id, since their text may merge. */
static trm_status make_plain_symbols(const trmi_model *m, trmi_scratch *s, const char *word,
                                     size_t count, size_t *n_out)
{
    size_t n = 0, bytes;

    for (size_t i = 0; i < count; i += bytes) {
        uint32_t c = trmi_utf8_get(word + i, &bytes);

        if (!add_symbol(s, &n, char_id(m, s, word + i, c, bytes, true, false), i, bytes))
            return trmi_no_memory("a word");
    }
    *n_out = n;
    return TRM_OK;
}

/* ---- merging ---- */

static size_t merge_short(const trmi_model *m, const char *word, trmi_symbol *y, size_t n)
{
    uint32_t ranks[SHORT_WORD];
    int32_t ids[SHORT_WORD];

    for (size_t i = 0; i < n; i++) {
        ids[i] = -1;
        if (i + 1 == n || !merge_of(m, word, &y[i], &y[i + 1], &ranks[i], &ids[i]))
            ranks[i] = UINT32_MAX;
    }
    while (n > 1) {
        size_t best = 0;

        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == UINT32_MAX)
            break;
        y[best].id = ids[best];
        y[best].bytes += y[best + 1].bytes;
        n--;
        for (size_t i = best + 1; i < n; i++) {
            y[i] = y[i + 1];
            ranks[i] = ranks[i + 1];
            ids[i] = ids[i + 1];
        }
        if (best > 0 &&
            !merge_of(m, word, &y[best - 1], &y[best], &ranks[best - 1], &ids[best - 1]))
            ranks[best - 1] = UINT32_MAX;
        if (best + 1 < n && !merge_of(m, word, &y[best], &y[best + 1], &ranks[best], &ids[best]))
            ranks[best] = UINT32_MAX;
    }
    return n;
}

static bool before(const trmi_candidate *a, const trmi_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static bool heap_push(trmi_scratch *s, uint32_t rank, size_t at, int32_t id)
{
    trmi_candidate c = {rank, (uint32_t)at, id};
    size_t i = s->heap_count;

    if (!trmi_grow((void **)&s->heap, &s->heap_room, i + 1, sizeof(*s->heap)))
        return false;
    s->heap_count++;
    for (; i > 0 && before(&c, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = c;
    return true;
}

static trmi_candidate heap_pop(trmi_scratch *s)
{
    trmi_candidate top = s->heap[0], last = s->heap[--s->heap_count];
    size_t i = 0, n = s->heap_count;

    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= n)
            break;
        if (child + 1 < n && before(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!before(&s->heap[child], &last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    if (n > 0)
        s->heap[i] = last;
    return top;
}

/* The pair of symbols `at` and the one after it becomes a candidate, if it merges. */
static bool consider(const trmi_model *m, trmi_scratch *s, const char *word, int32_t at)
{
    const trmi_symbol *y = s->symbols;
    uint32_t rank;
    int32_t id;

    if (at < 0 || y[at].after < 0 || !merge_of(m, word, &y[at], &y[y[at].after], &rank, &id))
        return true;
    return heap_push(s, rank, (size_t)at, id);
}

static trm_status merge_long(const trmi_model *m, trmi_scratch *s, const char *word, size_t *n)
{
    trmi_symbol *y = s->symbols;
    size_t kept = 0;

    s->heap_count = 0;
    for (size_t i = 0; i < *n; i++) {
        y[i].before = (int32_t)i - 1;
        y[i].after = i + 1 < *n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i + 1 < *n; i++)
        if (!consider(m, s, word, (int32_t)i))
            return trmi_no_memory("merges of a word");
    while (s->heap_count > 0) {
        trmi_candidate c = heap_pop(s);
        trmi_symbol *left = &y[c.at], *right;
        uint32_t rank;
        int32_t id;

        if (left->bytes == 0 || left->after < 0)
            continue;
        right = &y[left->after];
        if (!merge_of(m, word, left, right, &rank, &id) || id != c.id)
            continue; /* one of the two has merged otherwise meanwhile */
        left->id = id;
        left->bytes += right->bytes;
        right->bytes = 0;
        left->after = right->after;
        if (right->after >= 0)
            y[right->after].before = (int32_t)c.at;
        if (!consider(m, s, word, left->before) || !consider(m, s, word, (int32_t)c.at))
            return trmi_no_memory("merges of a word");
    }
    for (size_t i = 0; i < *n; i++)
        if (y[i].bytes > 0)
            y[kept++] = y[i];
    *n = kept;
    return TRM_OK;
}

/* By scores: symbols that are no token become bytes or the unknown token. */
static void add_plain_ids(const trmi_model *m, trmi_scratch *s, const char *word, size_t n)
{
    bool after_unknown = false;

    for (size_t i = 0; i < n; i++) {
        const trmi_symbol *y = &s->symbols[i];
        bool bytes = y->id < 0 && m->byte_fallback;

        for (size_t k = 0; bytes && k < y->bytes; k++)
            bytes = m->bytes[(unsigned char)word[y->at + k]] >= 0;
        if (y->id >= 0)
            trmi_ids_add(&s->ids, y->id);
        else if (!bytes && m->unknown >= 0 && !after_unknown)
            trmi_ids_add(&s->ids, m->unknown);
        for (size_t k = 0; bytes && k < y->bytes; k++)
            trmi_ids_add(&s->ids, m->bytes[(unsigned char)word[y->at + k]]);
        after_unknown = y->id < 0 && !bytes;
    }
}

static trm_status encode_part(const trmi_model *m, trmi_scratch *s, const char *word, size_t count)
{
    size_t n = 0;

    if (m->ranks != NULL)
        TRM_CHECK(make_plain_symbols(m, s, word, count, &n));
    else
        TRM_CHECK(make_symbols(m, s, word, count, &n));
    if (n > SHORT_WORD)
        TRM_CHECK(merge_long(m, s, word, &n));
    else
        n = merge_short(m, word, s->symbols, n);
    if (m->ranks != NULL)
        add_plain_ids(m, s, word, n);
    else
        for (size_t i = 0; i < n; i++)
            trmi_ids_add(&s->ids, s->symbols[i].id);
    return TRM_OK;
}

trm_status trmi_bpe_encode(const trmi_model *m, trmi_scratch *s, const char *word, size_t bytes)
{
    size_t start = 0, at = 0;
    bool after_block = true;

    if (m->ignore_merges) {
        int32_t id = trmi_vocabulary_find(&m->vocabulary, word, bytes);

        if (id >= 0) {
            trmi_ids_add(&s->ids, id);
            return TRM_OK;
        }
    }
    if (!m->cuts_at_space)
        return encode_part(m, s, word, bytes);
    while (at < bytes) {
        size_t n;
        bool block = trmi_utf8_get(word + at, &n) == LOWER_BLOCK;

        if (block && !after_block) {
            TRM_CHECK(encode_part(m, s, word + start, at - start));
            start = at;
        }
        after_block = block;
        at += n;
    }
    return encode_part(m, s, word + start, bytes - start);
}
