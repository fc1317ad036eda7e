/* tokenizer.json: the model and the added tokens. */
#include "model/tokenizer/json_impl.h"

#include <math.h>
#include <string.h>

/* {"token": id, ...} */
static trm_status read_vocabulary(trmi_model *m, const json_t *vocabulary)
{
    const char *token;
    size_t token_bytes, all = 0;
    json_t *id, *object = (json_t *)vocabulary; /* jansson iterates over what is not const */

    if (!json_is_object(vocabulary))
        return trm_fail(TRM_ERR_BAD_FILE, "\"vocab\" of the model is no object");
    json_object_keylen_foreach(object, token, token_bytes, id)
    {
        all += token_bytes;
    }
    TRM_CHECK(trmi_vocabulary_reserve(&m->vocabulary, json_object_size(vocabulary), all));
    json_object_keylen_foreach(object, token, token_bytes, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0)
            return trm_fail(TRM_ERR_BAD_FILE, "token '%s' of the vocabulary has no id", token);
        TRM_CHECK(trmi_vocabulary_add(&m->vocabulary, token, token_bytes,
                                      (size_t)json_integer_value(id)));
    }
    return TRM_OK;
}

/* [["token", score], ...] */
static trm_status read_scored(trmi_model *m, const json_t *vocabulary)
{
    size_t count = json_array_size(vocabulary);
    double least = INFINITY;

    if (!json_is_array(vocabulary))
        return trm_fail(TRM_ERR_BAD_FILE, "\"vocab\" of the Unigram model is no array");
    TRM_CHECK(trmi_vocabulary_reserve(&m->vocabulary, count, count * 8));
    m->scores = trm_malloc(count + 1, sizeof(*m->scores));
    if (m->scores == NULL)
        return trmi_no_memory("scores of a vocabulary");
    for (size_t i = 0; i < count; i++) {
        const json_t *pair = json_array_get(vocabulary, i);
        const json_t *token = json_array_get(pair, 0), *score = json_array_get(pair, 1);

        if (!json_is_string(token) || !json_is_number(score))
            return trm_fail(TRM_ERR_BAD_FILE, "entry %zu of the vocabulary is no [token, score]",
                            i);
        TRM_CHECK(trmi_vocabulary_add(&m->vocabulary, json_string_value(token),
                                      json_string_length(token), i));
        m->scores[i] = json_number_value(score);
        if (m->scores[i] < least)
            least = m->scores[i];
    }
    m->unknown_score = least - 10.0;
    return TRM_OK;
}

/* The token that "unk_token" names. */
static trm_status read_unknown(trm_tokenizer *t, const json_t *model, const char *otherwise)
{
    const json_t *v = trmi_json_get(model, "unk_token");
    trm_text text;

    t->model.unknown = -1;
    if (v == NULL && otherwise == NULL)
        return TRM_OK;
    TRM_CHECK(trmi_json_text(t, model, "unk_token", otherwise, &text));
    t->model.unknown = trmi_vocabulary_find(&t->model.vocabulary, text.bytes, text.count);
    t->model.unknown_missing = t->model.unknown < 0;
    return TRM_OK;
}

/* "a b" or ["a", "b"] */
static trm_status read_merge(trmi_model *m, const json_t *merge, uint32_t rank, trmi_buf *spare)
{
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge);
        size_t count = json_string_length(merge);
        const char *blank = memchr(text, ' ', count);
        size_t left = blank == NULL ? count : (size_t)(blank - text);

        if (blank == NULL || memchr(blank + 1, ' ', count - left - 1) != NULL)
            return trm_fail(TRM_ERR_BAD_FILE, "merge %u is '%s', not two tokens with a blank",
                            (unsigned)rank, text);
        return trmi_bpe_merges_add(m, text, left, blank + 1, count - left - 1, rank, spare);
    }
    if (json_array_size(merge) != 2 || !json_is_string(json_array_get(merge, 0)) ||
        !json_is_string(json_array_get(merge, 1)))
        return trm_fail(TRM_ERR_BAD_FILE, "merge %u is no pair of tokens", (unsigned)rank);
    return trmi_bpe_merges_add(m, json_string_value(json_array_get(merge, 0)),
                               json_string_length(json_array_get(merge, 0)),
                               json_string_value(json_array_get(merge, 1)),
                               json_string_length(json_array_get(merge, 1)), rank, spare);
}

static trm_status read_merges(trmi_model *m, const json_t *merges)
{
    trmi_buf spare = {0};
    uint32_t rank = 0;
    trm_status st = TRM_OK;

    if (!json_is_array(merges))
        return trm_fail(TRM_ERR_BAD_FILE, "\"merges\" of the BPE model is no array");
    TRM_CHECK(trmi_bpe_merges_reserve(m, json_array_size(merges)));
    for (size_t i = 0; i < json_array_size(merges) && st == TRM_OK; i++) {
        const json_t *merge = json_array_get(merges, i);

        if (json_is_string(merge) && strncmp(json_string_value(merge), "#version", 8) == 0)
            continue;
        st = read_merge(m, merge, rank++, &spare);
    }
    trmi_buf_fini(&spare);
    return st;
}

static trm_status read_bpe(trm_tokenizer *t, const json_t *model)
{
    trmi_model *m = &t->model;
    const json_t *dropout = trmi_json_get(model, "dropout");

    m->kind = TRMI_MODEL_BPE;
    if (dropout != NULL && json_number_value(dropout) != 0.0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "\"dropout\" of the BPE model makes ids random; only null is supported");
    TRM_CHECK(trmi_json_text(t, model, "continuing_subword_prefix", "", &m->prefix));
    TRM_CHECK(trmi_json_text(t, model, "end_of_word_suffix", "", &m->suffix));
    m->fuse_unknown = trmi_json_bool(model, "fuse_unk", false);
    m->byte_fallback = trmi_json_bool(model, "byte_fallback", false);
    m->ignore_merges = trmi_json_bool(model, "ignore_merges", false);
    TRM_CHECK(read_vocabulary(m, json_object_get(model, "vocab")));
    TRM_CHECK(read_merges(m, json_object_get(model, "merges")));
    return read_unknown(t, model, NULL);
}

static trm_status read_wordpiece(trm_tokenizer *t, const json_t *model)
{
    int64_t most;

    t->model.kind = TRMI_MODEL_WORDPIECE;
    TRM_CHECK(trmi_json_text(t, model, "continuing_subword_prefix", "##", &t->model.prefix));
    TRM_CHECK(trmi_json_count(model, "max_input_chars_per_word", 100, INT32_MAX, &most));
    t->model.word_chars_max = (size_t)most;
    TRM_CHECK(read_vocabulary(&t->model, json_object_get(model, "vocab")));
    return read_unknown(t, model, "[UNK]");
}

static trm_status read_wordlevel(trm_tokenizer *t, const json_t *model)
{
    t->model.kind = TRMI_MODEL_WORDLEVEL;
    TRM_CHECK(read_vocabulary(&t->model, json_object_get(model, "vocab")));
    return read_unknown(t, model, "<unk>");
}

static trm_status read_unigram(trm_tokenizer *t, const json_t *model)
{
    const json_t *unknown = trmi_json_get(model, "unk_id");

    t->model.kind = TRMI_MODEL_UNIGRAM;
    t->model.byte_fallback = trmi_json_bool(model, "byte_fallback", false);
    TRM_CHECK(read_scored(&t->model, json_object_get(model, "vocab")));
    t->model.unknown = -1;
    if (unknown == NULL)
        return TRM_OK;
    if (!json_is_integer(unknown) || json_integer_value(unknown) < 0 ||
        (size_t)json_integer_value(unknown) >= t->model.vocabulary.ids)
        return trm_fail(TRM_ERR_BAD_FILE, "\"unk_id\" is no id of the vocabulary");
    t->model.unknown = (int32_t)json_integer_value(unknown);
    return TRM_OK;
}

trm_status trmi_json_model(trm_tokenizer *t, const json_t *model)
{
    static const struct {
        const char *type;
        trm_status (*read)(trm_tokenizer *t, const json_t *model);
    } kinds[] = {
        {"BPE", read_bpe},
        {"WordPiece", read_wordpiece},
        {"WordLevel", read_wordlevel},
        {"Unigram", read_unigram},
    };
    const char *type = trmi_json_type(model);

    if (*type == '\0') /* files of old versions */
        type = trmi_json_get(model, "merges") != NULL                     ? "BPE"
               : json_is_array(json_object_get(model, "vocab"))           ? "Unigram"
               : trmi_json_get(model, "max_input_chars_per_word") != NULL ? "WordPiece"
                                                                          : "WordLevel";
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(type, kinds[i].type) == 0)
            return kinds[i].read(t, model);
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "model type '%s' (supported: BPE, WordPiece, WordLevel, Unigram)", type);
}

/* ---- added tokens ---- */

/* The id that the library gives: the token's own, or the next free one. */
static size_t next_id(const trm_tokenizer *t, const char *token, size_t bytes)
{
    int32_t id = trm_tokenizer_find(t, token, bytes);
    size_t model = t->model.vocabulary.used, most = 0;
    bool any = false;

    if (id >= 0)
        return (size_t)id;
    for (size_t i = 0; i < t->added.token_room; i++)
        if (t->added.tokens[i].id >= 0) {
            most = i;
            any = true;
        }
    return any && (most >= model || model == 0) ? most + 1 : model;
}

trm_status trmi_json_added(trm_tokenizer *t, const json_t *added)
{
    if (!json_is_array(added))
        return trm_fail(TRM_ERR_BAD_FILE, "\"added_tokens\" is no array");
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *v = json_array_get(added, i), *content = json_object_get(v, "content");
        trmi_added_token how = {0};
        size_t bytes = json_string_length(content);

        if (!json_is_string(content))
            return trm_fail(TRM_ERR_BAD_FILE, "entry %zu of \"added_tokens\" has no \"content\"",
                            i);
        if (bytes == 0)
            continue;
        how.special = trmi_json_bool(v, "special", false);
        how.normalized = trmi_json_bool(v, "normalized", !how.special);
        how.lstrip = trmi_json_bool(v, "lstrip", false);
        how.rstrip = trmi_json_bool(v, "rstrip", false);
        how.single_word = trmi_json_bool(v, "single_word", false);
        how.id = (int32_t)next_id(t, json_string_value(content), bytes);
        TRM_CHECK(trmi_added_add(&t->added, json_string_value(content), bytes, &how));
    }
    return TRM_OK;
}
