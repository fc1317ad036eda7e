/* A tokenizer for tests of packages: says which file it was made of. */
#ifndef TRM_TESTS_MODEL_TOKENIZER_STUB_H
#define TRM_TESTS_MODEL_TOKENIZER_STUB_H

#include "model/tokenizer/tokenizer.h"

#include <stdio.h>
#include <string.h>

static struct {
    size_t count, special_from;   /* special_from: ids from it on are special */
    char made_of[300], text[300]; /* text: what some of a vocabulary holds, which is borrowed */
    trm_gguf_vocabulary vocabulary;
} stub = {.count = 1};

static trm_status stub_make(const char *kind, const char *name, trm_tokenizer **out)
{
    const char *slash = strrchr(name, '/');

    snprintf(stub.made_of, sizeof(stub.made_of), "%s %s", kind, slash == NULL ? name : slash + 1);
    *out = (trm_tokenizer *)(void *)&stub;
    return TRM_OK;
}

trm_status trm_tokenizer_from_json(const char *name, const void *data, size_t count,
                                   trm_tokenizer **tokenizer_out)
{
    (void)data;
    if (count == 0)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' is empty", name);
    return stub_make("json", name, tokenizer_out);
}

trm_status trm_tokenizer_from_sentencepiece(const char *name, const void *data, size_t count,
                                            trm_tokenizer **tokenizer_out)
{
    (void)data;
    (void)count;
    return stub_make("sentencepiece", name, tokenizer_out);
}

trm_status trm_tokenizer_from_gguf(const char *name, const trm_gguf_vocabulary *vocabulary,
                                   trm_tokenizer **tokenizer_out)
{
    const trm_gguf_vocabulary *v = vocabulary;

    stub.vocabulary = *v;
    if (v->merge_count > 0 && v->scores != NULL && v->types != NULL && v->pre != NULL)
        snprintf(stub.text, sizeof(stub.text), "%s %s %.*s %g %d %.*s", v->model, v->pre,
                 (int)v->tokens[2].count, v->tokens[2].bytes, (double)v->scores[3], v->types[0],
                 (int)v->merges[1].count, v->merges[1].bytes);
    return stub_make("gguf", name, tokenizer_out);
}

void trm_tokenizer_destroy(trm_tokenizer *t)
{
    (void)t;
}

size_t trm_tokenizer_count(const trm_tokenizer *t)
{
    (void)t;
    return stub.count;
}

const char *trm_tokenizer_token(const trm_tokenizer *t, int32_t id, size_t *bytes_out)
{
    static char text[32];

    (void)t;
    if (id < 0 || (size_t)id >= stub.count)
        return NULL;
    *bytes_out = (size_t)snprintf(text, sizeof(text), "<%d>", id);
    return text;
}

bool trm_tokenizer_is_special(const trm_tokenizer *t, int32_t id)
{
    (void)t;
    return stub.special_from > 0 && (size_t)id >= stub.special_from;
}

#endif
