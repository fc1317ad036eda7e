/* What the models share: their tables, the scratch memory of a call, the choice between them. */
#include "model/tokenizer/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

trm_status trmi_no_memory(const char *what)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "tokenizer: %s", what);
}

bool trmi_grow(void **block, size_t *room, size_t count, size_t size)
{
    size_t want = *room < 32 ? 32 : *room;
    void *grown;

    if (count <= *room)
        return true;
    while (want < count)
        want += want / 2;
    grown = trm_realloc(*block, want, size);
    if (grown == NULL)
        return false;
    *block = grown;
    *room = want;
    return true;
}

void trmi_scratch_fini(trmi_scratch *s)
{
    trmi_matcher_destroy(s->matcher);
    trmi_buf_fini(&s->line.now);
    trmi_buf_fini(&s->line.next);
    trmi_words_fini(&s->words);
    trmi_buf_fini(&s->clean);
    trmi_buf_fini(&s->spelled);
    trm_free(s->symbols);
    trm_free(s->heap);
    trm_free(s->best);
    trm_free(s->ids.ids);
    memset(s, 0, sizeof(*s));
}

void trmi_model_fini(trmi_model *m)
{
    trmi_vocabulary_fini(&m->vocabulary);
    trm_free(m->merges);
    trm_free(m->ranks);
    trmi_trie_destroy(m->start);
    trmi_trie_destroy(m->inside);
    trm_free(m->scores);
    trmi_trie_destroy(m->trie);
    memset(m, 0, sizeof(*m));
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

int trmi_byte_token(const char *token, size_t bytes)
{
    if (bytes != 6 || memcmp(token, "<0x", 3) != 0 || token[5] != '>' || hex(token[3]) < 0 ||
        hex(token[4]) < 0)
        return -1;
    return hex(token[3]) * 16 + hex(token[4]);
}

trm_status trmi_model_finish(trmi_model *m)
{
    for (unsigned b = 0; b < 256; b++) {
        char text[8];

        snprintf(text, sizeof(text), "<0x%02X>", b);
        m->bytes[b] = m->byte_fallback ? trmi_vocabulary_find(&m->vocabulary, text, 6) : -1;
    }
    switch (m->kind) {
    case TRMI_MODEL_BPE:
        trmi_bpe_finish(m);
        return TRM_OK;
    case TRMI_MODEL_WORDPIECE:
        return trmi_wordpiece_finish(m);
    case TRMI_MODEL_UNIGRAM:
        return trmi_unigram_finish(m);
    case TRMI_MODEL_WORDLEVEL:
        break;
    }
    return TRM_OK;
}

trm_status trmi_model_encode(const trmi_model *m, trmi_scratch *s, const char *word, size_t bytes)
{
    int32_t id;

    switch (m->kind) {
    case TRMI_MODEL_BPE:
        return trmi_bpe_encode(m, s, word, bytes);
    case TRMI_MODEL_WORDPIECE:
        return trmi_wordpiece_encode(m, s, word, bytes);
    case TRMI_MODEL_UNIGRAM:
        return trmi_unigram_encode(m, s, word, bytes);
    case TRMI_MODEL_WORDLEVEL:
        break;
    }
    id = trmi_vocabulary_find(&m->vocabulary, word, bytes);
    if (id < 0)
        id = m->unknown;
    if (id < 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "the tokenizer has no token for '%.*s' and no unknown token",
                        bytes > 40 ? 40 : (int)bytes, word);
    trmi_ids_add(&s->ids, id);
    return TRM_OK;
}
