/* A tokenizer's life, and what it says of itself and of its tokens. */
#include "model/tokenizer/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

trm_status trmi_tokenizer_create(trm_tokenizer **tokenizer_out)
{
    trm_tokenizer *t = trm_calloc(1, sizeof(*t));
    trm_status st;

    if (t == NULL)
        return trmi_no_memory("a tokenizer");
    t->model.unknown = -1;
    st = trm_arena_create(4096, &t->arena);
    if (st != TRM_OK) {
        trm_free(t);
        return st;
    }
    *tokenizer_out = t;
    return TRM_OK;
}

void trm_tokenizer_destroy(trm_tokenizer *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->normalizer_count; i++)
        trmi_normalizer_fini(&t->normalizers[i]);
    for (size_t i = 0; i < t->pretokenizer_count; i++)
        trmi_pretokenizer_fini(&t->pretokenizers[i]);
    for (size_t i = 0; i < t->decoder_count; i++)
        trmi_decoder_fini(&t->decoders[i]);
    trmi_added_fini(&t->added);
    trmi_model_fini(&t->model);
    trm_arena_destroy(t->arena);
    trm_free(t);
}

trm_status trmi_keep(trm_tokenizer *t, const char *bytes, size_t count, trm_text *text_out)
{
    char *copy = trm_arena_strndup(t->arena, count == 0 ? "" : bytes, count);

    if (copy == NULL)
        return trmi_no_memory("a tokenizer's text");
    /* strndup stops at a NUL, which a pattern may hold */
    if (count > 0 && memchr(bytes, '\0', count) != NULL) {
        copy = trm_arena_alloc(t->arena, count + 1, 1);
        if (copy == NULL)
            return trmi_no_memory("a tokenizer's text");
        memcpy(copy, bytes, count);
    }
    text_out->bytes = copy;
    text_out->count = count;
    return TRM_OK;
}

static const char *kind_name(const trmi_model *m)
{
    switch (m->kind) {
    case TRMI_MODEL_BPE:
        return m->ranks != NULL ? "bpe by scores" : "bpe";
    case TRMI_MODEL_WORDPIECE:
        return "wordpiece";
    case TRMI_MODEL_WORDLEVEL:
        return "wordlevel";
    case TRMI_MODEL_UNIGRAM:
        return "unigram";
    }
    return "?";
}

static void describe(trm_tokenizer *t, const char *origin)
{
    size_t special = 0, added = 0;
    const char *shape = "";

    for (size_t i = 0; i < t->added.token_room; i++) {
        added += t->added.tokens[i].id >= 0;
        special += t->added.tokens[i].id >= 0 && t->added.tokens[i].special;
    }
    for (size_t i = 0; i < t->pretokenizer_count; i++)
        if (t->pretokenizers[i].kind == TRMI_PRETOKENIZER_BYTE_LEVEL)
            shape = ", on bytes";
    if (t->model.byte_fallback)
        shape = ", with byte fallback";
    snprintf(t->description, sizeof(t->description), "%s%s, %zu ids, %zu added (%zu special), %s",
             kind_name(&t->model), shape, trm_tokenizer_count(t), added, special, origin);
}

trm_status trmi_tokenizer_finish(trm_tokenizer *t, const char *origin)
{
    bool fused = false;

    if (t->decoder_count == 0) {
        t->decoders = trm_arena_alloc(t->arena, 1, sizeof(*t->decoders));
        if (t->decoders == NULL)
            return trmi_no_memory("decoders");
        t->decoders[0].kind = TRMI_DECODER_JOIN;
        t->decoder_count = 1;
    }
    for (size_t i = 0; i < t->decoder_count; i++) {
        trmi_decoder *d = &t->decoders[i];

        d->fused = fused;
        fused = fused || d->kind == TRMI_DECODER_BYTE_LEVEL || d->kind == TRMI_DECODER_FUSE;
    }
    TRM_CHECK(trmi_model_finish(&t->model));
    TRM_CHECK(trmi_added_finish(&t->added, t->normalizers, t->normalizer_count));
    describe(t, origin);
    return TRM_OK;
}

size_t trm_tokenizer_count(const trm_tokenizer *t)
{
    size_t model = t->model.vocabulary.ids, added = t->added.vocabulary.ids;

    return model > added ? model : added;
}

const char *trm_tokenizer_description(const trm_tokenizer *t)
{
    return t->description;
}

const char *trm_tokenizer_token(const trm_tokenizer *t, int32_t id, size_t *bytes_out)
{
    const char *token;

    *bytes_out = 0;
    if (id < 0)
        return NULL;
    token = trmi_vocabulary_token(&t->added.vocabulary, (size_t)id, bytes_out);
    return token != NULL ? token
                         : trmi_vocabulary_token(&t->model.vocabulary, (size_t)id, bytes_out);
}

int32_t trm_tokenizer_find(const trm_tokenizer *t, const char *token, size_t bytes)
{
    int32_t id = trmi_vocabulary_find(&t->added.vocabulary, token, bytes);

    return id >= 0 ? id : trmi_vocabulary_find(&t->model.vocabulary, token, bytes);
}

bool trm_tokenizer_is_special(const trm_tokenizer *t, int32_t id)
{
    size_t bytes;
    const char *token = trm_tokenizer_token(t, id, &bytes);
    const trmi_added_token *added;

    if (token == NULL)
        return false;
    /* by spelling, as decode has it: another id may spell the same */
    added = trmi_added_get(&t->added, trmi_vocabulary_find(&t->added.vocabulary, token, bytes));
    return added != NULL && added->special;
}

int32_t trm_tokenizer_unknown(const trm_tokenizer *t)
{
    return t->model.unknown;
}

size_t trm_tokenizer_token_bytes(const trm_tokenizer *t, int32_t id, char *buf, size_t buf_bytes)
{
    size_t bytes;
    const char *token = trm_tokenizer_token(t, id, &bytes);
    trmi_buf out = {0};

    if (token == NULL)
        return 0;
    if (!trm_tokenizer_is_special(t, id) &&
        trmi_decode_token(t->decoders, t->decoder_count, token, bytes, &out) == TRM_OK) {
        token = out.count == 0 ? "" : out.bytes;
        bytes = out.count;
    }
    if (buf_bytes > 0)
        memcpy(buf, token, bytes < buf_bytes ? bytes : buf_bytes);
    trmi_buf_fini(&out);
    return bytes;
}
