/* Unigram: the cut of a word with the greatest sum of scores, by Viterbi over its bytes (Kudo 2018,
 * arXiv:1804.10959). A character that is no token may be unknown, at the least score less 10; runs
 * of unknown characters are one token, or bytes where the model has them. */
#include "model/tokenizer/tokenizer_impl.h"

#include <math.h>
#include <string.h>

#define UNKNOWN_PENALTY 10.0

trm_status trmi_unigram_finish(trmi_model *m)
{
    const trmi_vocabulary *v = &m->vocabulary;
    trmi_trie_key *keys = trm_malloc(v->ids + 1, sizeof(*keys));
    size_t n = 0;
    trm_status st;

    if (keys == NULL)
        return trmi_no_memory("a vocabulary's trie");
    for (size_t i = 0; i < v->ids; i++) {
        size_t bytes;
        const char *token = trmi_vocabulary_token(v, i, &bytes);

        if (token == NULL || isnan(m->scores[i]) || trmi_utf8_good(token, bytes) != bytes)
            continue;
        keys[n].bytes = token;
        keys[n].count = bytes;
        keys[n++].value = trmi_vocabulary_find(v, token, bytes);
    }
    st = trmi_trie_create(keys, n, &m->trie);
    trm_free(keys);
    return st;
}

static bool is_better(const trmi_best *b, double score)
{
    return b->from == UINT32_MAX || score > b->score;
}

static void better(trmi_best *b, double score, size_t from, int32_t id)
{
    if (!is_better(b, score))
        return;
    b->score = score;
    b->from = (uint32_t)from;
    b->id = id;
}

static double sum(const trmi_model *m, double a, double b)
{
    return m->single ? (double)((float)a + (float)b) : a + b;
}

static trm_status missing(const char *p, size_t bytes)
{
    return trm_fail(TRM_ERR_INVALID_ARG,
                    "the tokenizer has no token for '%.*s' and no unknown token", (int)bytes, p);
}

/* Fills s->best: for each end, the best token that ends there. */
static trm_status forward(const trmi_model *m, trmi_scratch *s, const char *word, size_t count)
{
    size_t bytes;

    s->best[0].score = 0;
    for (size_t i = 0; i <= count; i++)
        s->best[i].from = UINT32_MAX;
    for (size_t i = 0; i < count; i += bytes) {
        double here = s->best[i].score;
        uint32_t node = 0;
        bool single = false;

        (void)trmi_utf8_get(word + i, &bytes);
        for (size_t k = i; k < count; k++) {
            int32_t id;

            node = trmi_trie_step(m->trie, node, (unsigned char)word[k]);
            if (node == 0)
                break;
            id = m->trie->nodes[node].value;
            if (id < 0)
                continue;
            better(&s->best[k + 1], sum(m, m->scores[id], here), i, id);
            single = single || k + 1 - i == bytes;
        }
        if (single)
            continue;
        if (m->unknown < 0 && is_better(&s->best[i + bytes], sum(m, m->unknown_score, here)))
            return missing(word + i, bytes);
        better(&s->best[i + bytes], sum(m, m->unknown_score, here), i, m->unknown);
    }
    return TRM_OK;
}

/* One stretch of unknown characters. */
static void add_unknown(const trmi_model *m, trmi_scratch *s, const char *p, size_t bytes)
{
    int32_t id = trmi_vocabulary_find(&m->vocabulary, p, bytes);
    bool all = m->byte_fallback && id < 0;

    for (size_t i = 0; all && i < bytes; i++)
        all = m->bytes[(unsigned char)p[i]] >= 0;
    if (!all)
        trmi_ids_add(&s->ids, id < 0 ? m->unknown : id);
    for (size_t i = 0; all && i < bytes; i++)
        trmi_ids_add(&s->ids, m->bytes[(unsigned char)p[i]]);
}

trm_status trmi_unigram_encode(const trmi_model *m, trmi_scratch *s, const char *word, size_t bytes)
{
    size_t end = bytes, unknown_at = SIZE_MAX;
    uint32_t next = UINT32_MAX;

    if (!trmi_grow((void **)&s->best, &s->best_room, bytes + 1, sizeof(*s->best)))
        return trmi_no_memory("a word's cuts");
    TRM_CHECK(forward(m, s, word, bytes));
    /* back along the best path, turning the links round */
    while (end > 0) {
        uint32_t from = s->best[end].from;

        s->best[end].from = next;
        next = (uint32_t)end;
        end = from;
    }
    for (size_t at = 0; next != UINT32_MAX; at = next, next = s->best[at].from) {
        int32_t id = s->best[next].id;

        if (id == m->unknown) {
            if (unknown_at == SIZE_MAX)
                unknown_at = at;
            continue;
        }
        if (unknown_at != SIZE_MAX)
            add_unknown(m, s, word + unknown_at, at - unknown_at);
        unknown_at = SIZE_MAX;
        trmi_ids_add(&s->ids, id);
    }
    if (unknown_at != SIZE_MAX)
        add_unknown(m, s, word + unknown_at, bytes - unknown_at);
    return TRM_OK;
}
