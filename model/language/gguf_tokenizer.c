/* The tokenizer inside a GGUF file. */
#include "model/language/language_impl.h"

#include "base/log.h"

#include <inttypes.h>
#include <string.h>

/* An id under either key; -1: absent, or no token (files have such numbers for "none"). */
static int32_t read_id(const trm_gguf *g, const char *key, size_t count)
{
    int64_t id = -1;

    if (!trm_gguf_int(g, key, &id))
        return -1;
    if (id >= 0 && (uint64_t)id < count)
        return (int32_t)id;
    TRM_LOG(TRM_LOG_WARN, "model", "'%s': '%s' is %" PRId64 " of %zu tokens: left out",
            trm_file_path(g->file), key, id, count);
    return -1;
}

static int read_flag(const trm_gguf *g, const char *key)
{
    bool on = false;

    return trm_gguf_bool(g, key, &on) ? (int)on : -1;
}

static trm_status check_count(const trm_gguf *g, const char *key, size_t count, size_t tokens)
{
    if (count == tokens)
        return TRM_OK;
    return trm_fail(TRM_ERR_BAD_FILE,
                    "'%s': '%s' has %zu elements: want one for each of %zu tokens",
                    trm_file_path(g->file), key, count, tokens);
}

/* What an array may be missing. */
static trm_status optional(trm_status st)
{
    return st == TRM_ERR_NOT_FOUND ? TRM_OK : st;
}

trm_status trm_gguf_tokenizer(const trm_gguf *g, trm_tokenizer **tokenizer_out)
{
    trm_gguf_vocabulary v = {.model = trmi_gguf_string(g, "tokenizer.ggml.model"),
                             .pre = trmi_gguf_string(g, "tokenizer.ggml.pre")};
    trm_text *tokens = NULL, *merges = NULL;
    float *scores = NULL;
    int32_t *types = NULL;
    size_t count = 0;
    trm_status st;

    if (v.model == NULL)
        return trm_fail(TRM_ERR_NOT_FOUND, "'%s' has no tokenizer (tokenizer.ggml.model)",
                        trm_file_path(g->file));
    TRM_TRY(st, trm_gguf_texts(g, "tokenizer.ggml.tokens", &tokens, &v.count), done);
    if (v.count == 0 || v.count > INT32_MAX) {
        st = trm_fail(TRM_ERR_BAD_FILE, "'%s': a vocabulary of %zu tokens", trm_file_path(g->file),
                      v.count);
        goto done;
    }
    TRM_TRY(st, optional(trm_gguf_floats(g, "tokenizer.ggml.scores", &scores, &count)), done);
    if (scores != NULL)
        TRM_TRY(st, check_count(g, "tokenizer.ggml.scores", count, v.count), done);
    TRM_TRY(st, optional(trm_gguf_ints(g, "tokenizer.ggml.token_type", &types, &count)), done);
    if (types != NULL)
        TRM_TRY(st, check_count(g, "tokenizer.ggml.token_type", count, v.count), done);
    TRM_TRY(st, optional(trm_gguf_texts(g, "tokenizer.ggml.merges", &merges, &v.merge_count)),
            done);
    v.tokens = tokens;
    v.scores = scores;
    v.types = types;
    v.merges = merges;
    v.bos = read_id(g, "tokenizer.ggml.bos_token_id", v.count);
    v.eos = read_id(g, "tokenizer.ggml.eos_token_id", v.count);
    v.unknown = read_id(g, "tokenizer.ggml.unknown_token_id", v.count);
    v.separator = read_id(g, "tokenizer.ggml.seperator_token_id", v.count); /* as files spell it */
    if (v.separator < 0)
        v.separator = read_id(g, "tokenizer.ggml.separator_token_id", v.count);
    v.padding = read_id(g, "tokenizer.ggml.padding_token_id", v.count);
    v.cls = read_id(g, "tokenizer.ggml.cls_token_id", v.count);
    v.mask = read_id(g, "tokenizer.ggml.mask_token_id", v.count);
    v.add_bos = read_flag(g, "tokenizer.ggml.add_bos_token");
    v.add_eos = read_flag(g, "tokenizer.ggml.add_eos_token");
    v.add_space_prefix = read_flag(g, "tokenizer.ggml.add_space_prefix");
    st = trm_tokenizer_from_gguf(trm_file_path(g->file), &v, tokenizer_out);
done:
    trm_free(tokens);
    trm_free(merges);
    trm_free(scores);
    trm_free(types);
    return st;
}
