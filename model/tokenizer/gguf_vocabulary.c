/* Tokenizers from the vocabulary in a GGUF file's metadata. */
#include "model/tokenizer/gguf_patterns.h"
#include "model/tokenizer/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

#define LOWER_BLOCK "\xE2\x96\x81"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4 };

static int32_t type_of(const trm_gguf_vocabulary *v, size_t id)
{
    return v->types == NULL ? NORMAL : v->types[id];
}

/* The id if it is one of the vocabulary's; -1 otherwise. */
static int32_t valid(const trm_gguf_vocabulary *v, int32_t id)
{
    return id >= 0 && (size_t)id < v->count ? id : -1;
}

static bool flag(int value, bool otherwise)
{
    return value < 0 ? otherwise : value != 0;
}

static trm_status add_added(trm_tokenizer *t, const trm_gguf_vocabulary *v)
{
    for (size_t i = 0; i < v->count; i++) {
        int32_t type = type_of(v, i);
        trmi_added_token how = {.id = (int32_t)i, .special = type != USER_DEFINED};
        size_t bytes;
        const char *token = trmi_vocabulary_token(&t->model.vocabulary, i, &bytes);

        if (type != CONTROL && type != UNKNOWN && type != USER_DEFINED)
            continue;
        TRM_CHECK(trmi_added_add(&t->added, token, bytes, &how));
    }
    return TRM_OK;
}

/* ---- "llama", "t5" ---- */

static trm_status build_llama(trm_tokenizer *t, const trm_gguf_vocabulary *v)
{
    trmi_normalizer n = {.dummy_prefix = flag(v->add_space_prefix, true),
                         .remove_extra = v->remove_extra_whitespaces > 0,
                         .escape = true};

    TRM_CHECK(trmi_build_scored(t, v, false, &n, false));
    return trmi_build_post(t, flag(v->add_bos, true) ? valid(v, v->bos) : -1,
                           flag(v->add_eos, false) ? valid(v, v->eos) : -1);
}

static trm_status build_t5(trm_tokenizer *t, const trm_gguf_vocabulary *v)
{
    trmi_normalizer n = {.dummy_prefix = flag(v->add_space_prefix, true),
                         .remove_extra = v->remove_extra_whitespaces > 0,
                         .escape = true};

    if (v->charsmap.bytes != NULL && v->charsmap.count > 0)
        TRM_CHECK(trmi_precompiled_create(v->charsmap.bytes, v->charsmap.count, &n.map));
    TRM_CHECK(trmi_build_scored(t, v, true, &n, true));
    return trmi_build_post(t, flag(v->add_bos, false) ? valid(v, v->bos) : -1,
                           flag(v->add_eos, true) ? valid(v, v->eos) : -1);
}

/* ---- "gpt2" ---- */

static trm_status add_merges(trmi_model *m, const trm_gguf_vocabulary *v)
{
    trmi_buf spare = {0}, clean = {0};
    trm_status st = TRM_OK;

    TRM_CHECK(trmi_bpe_merges_reserve(m, v->merge_count));
    for (size_t i = 0; i < v->merge_count && st == TRM_OK; i++) {
        const char *blank, *text;
        size_t left;

        trmi_buf_clear(&clean);
        trmi_utf8_add_lossy(&clean, v->merges[i].bytes, v->merges[i].count);
        st = trmi_buf_status(&clean, "a merge");
        if (st != TRM_OK)
            break;
        text = clean.count == 0 ? "" : clean.bytes;
        blank = clean.count < 2 ? NULL : memchr(text + 1, ' ', clean.count - 1);
        if (blank == NULL) {
            st = trm_fail(TRM_ERR_BAD_FILE, "merge %zu is '%.*s', not two tokens with a blank", i,
                          clean.count > 60 ? 60 : (int)clean.count, text);
            break;
        }
        left = (size_t)(blank - text);
        st = trmi_bpe_merges_add(m, text, left, blank + 1, clean.count - left - 1, (uint32_t)i,
                                 &spare);
    }
    trmi_buf_fini(&spare);
    trmi_buf_fini(&clean);
    return st;
}

static trm_status add_patterns(trm_tokenizer *t, const trmi_gguf_pre *pre)
{
    trmi_pretokenizer *p;

    t->pretokenizers =
        trm_arena_alloc(t->arena, TRMI_GGUF_PATTERNS_MAX + 1, sizeof(*t->pretokenizers));
    if (t->pretokenizers == NULL)
        return trmi_no_memory("pre-tokenizers");
    for (size_t i = 0; i < TRMI_GGUF_PATTERNS_MAX && pre->patterns[i] != NULL; i++) {
        p = &t->pretokenizers[t->pretokenizer_count++];
        p->kind = TRMI_PRETOKENIZER_SPLIT;
        p->behavior = TRMI_ISOLATED;
        TRM_CHECK(trmi_regex_create(pre->patterns[i], strlen(pre->patterns[i]), &p->regex));
    }
    t->pretokenizers[t->pretokenizer_count++].kind = TRMI_PRETOKENIZER_BYTE_LEVEL;
    return TRM_OK;
}

static trm_status add_prefix(trm_tokenizer *t)
{
    t->normalizers = trm_arena_alloc(t->arena, 1, sizeof(*t->normalizers));
    if (t->normalizers == NULL)
        return trmi_no_memory("a normalizer");
    t->normalizers[0].kind = TRMI_NORMALIZER_PREPEND;
    t->normalizers[0].to.bytes = " ";
    t->normalizers[0].to.count = 1;
    t->normalizer_count = 1;
    return TRM_OK;
}

static trm_status add_tokens(trm_tokenizer *t, const trm_gguf_vocabulary *v)
{
    trmi_buf spare = {0};
    trm_status st = TRM_OK;

    TRM_CHECK(trmi_vocabulary_reserve(&t->model.vocabulary, v->count, v->count * 8));
    for (size_t i = 0; i < v->count && st == TRM_OK; i++) {
        st = trmi_clean_token(v, i, &spare);
        if (st == TRM_OK)
            st = trmi_vocabulary_add(&t->model.vocabulary, spare.bytes, spare.count, i);
    }
    trmi_buf_fini(&spare);
    return st;
}

static trm_status build_gpt2(trm_tokenizer *t, const trm_gguf_vocabulary *v)
{
    const trmi_gguf_pre *pre = trmi_gguf_pre_find(v->pre == NULL ? "default" : v->pre);
    int32_t last = flag(v->add_eos, false) ? valid(v, v->eos) : -1;
    char names[900];

    if (pre == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "pre-tokenizer '%.60s' (supported: %s)", v->pre,
                        trmi_gguf_pre_names(names, sizeof(names)));
    t->model.kind = TRMI_MODEL_BPE;
    t->model.ignore_merges = pre->ignore_merges;
    t->model.unknown = valid(v, v->unknown);
    TRM_CHECK(add_tokens(t, v));
    TRM_CHECK(add_merges(&t->model, v));
    TRM_CHECK(add_added(t, v));
    if (flag(v->add_space_prefix, false))
        TRM_CHECK(add_prefix(t));
    TRM_CHECK(add_patterns(t, pre));
    t->decoders = trm_arena_alloc(t->arena, 1, sizeof(*t->decoders));
    if (t->decoders == NULL)
        return trmi_no_memory("decoders");
    t->decoders[0].kind = TRMI_DECODER_BYTE_LEVEL;
    t->decoder_count = 1;
    if (last < 0 && pre->add_sep)
        last = valid(v, v->separator);
    return trmi_build_post(t, flag(v->add_bos, pre->add_bos) ? valid(v, v->bos) : -1, last);
}

/* ---- "bert" ---- */

/* GGUF has U+2581 before tokens that begin a word, and nothing before those inside; here they are
 * as BERT's own files have them: nothing, and "##". */
static trm_status add_wordpieces(trm_tokenizer *t, const trm_gguf_vocabulary *v)
{
    trmi_buf spare = {0}, token = {0};
    trm_status st = TRM_OK;

    TRM_CHECK(trmi_vocabulary_reserve(&t->model.vocabulary, v->count, v->count * 8));
    for (size_t i = 0; i < v->count && st == TRM_OK; i++) {
        bool begins, special = type_of(v, i) == CONTROL || type_of(v, i) == UNKNOWN;

        st = trmi_clean_token(v, i, &spare);
        if (st != TRM_OK)
            break;
        begins = spare.count > 3 && memcmp(spare.bytes, LOWER_BLOCK, 3) == 0;
        /* names in brackets, where the file has no types */
        special = special || (v->types == NULL && !begins && spare.bytes[0] == '[' &&
                              spare.bytes[spare.count - 1] == ']');
        trmi_buf_clear(&token);
        if (!begins && !special)
            trmi_buf_add(&token, "##", 2);
        trmi_buf_add(&token, spare.bytes + (begins ? 3 : 0), spare.count - (begins ? 3 : 0));
        st = trmi_buf_status(&token, "a token");
        if (st == TRM_OK)
            st = trmi_vocabulary_add(&t->model.vocabulary, token.bytes, token.count, i);
    }
    trmi_buf_fini(&spare);
    trmi_buf_fini(&token);
    return st;
}

static trm_status add_bert_steps(trm_tokenizer *t, bool lower)
{
    static const trmi_normalizer_kind kinds[] = {
        TRMI_NORMALIZER_BERT_CLEAN, TRMI_NORMALIZER_BERT_CHINESE, TRMI_NORMALIZER_BERT_ACCENTS,
        TRMI_NORMALIZER_LOWERCASE};

    t->normalizers = trm_arena_alloc(t->arena, 4, sizeof(*t->normalizers));
    t->pretokenizers = trm_arena_alloc(t->arena, 2, sizeof(*t->pretokenizers));
    t->decoders = trm_arena_alloc(t->arena, 1, sizeof(*t->decoders));
    if (t->normalizers == NULL || t->pretokenizers == NULL || t->decoders == NULL)
        return trmi_no_memory("stages of a tokenizer");
    for (size_t i = 0; i < (lower ? 4 : 2); i++)
        t->normalizers[t->normalizer_count++].kind = kinds[i];
    t->pretokenizers[0].kind = t->pretokenizers[1].kind = TRMI_PRETOKENIZER_CHARACTERS;
    t->pretokenizers[0].is = trmi_is_white;
    t->pretokenizers[0].behavior = TRMI_REMOVED;
    t->pretokenizers[1].is = trmi_is_punctuation;
    t->pretokenizers[1].behavior = TRMI_ISOLATED;
    t->pretokenizer_count = 2;
    t->decoders[0].kind = TRMI_DECODER_WORDPIECE;
    t->decoders[0].from = t->model.prefix;
    t->decoders[0].cleanup = true;
    t->decoder_count = 1;
    return TRM_OK;
}

static trm_status build_bert(trm_tokenizer *t, const trm_gguf_vocabulary *v)
{
    int32_t cls = valid(v, v->cls), sep = valid(v, v->separator);

    t->model.kind = TRMI_MODEL_WORDPIECE;
    t->model.word_chars_max = 100;
    t->model.prefix.bytes = "##";
    t->model.prefix.count = 2;
    TRM_CHECK(add_wordpieces(t, v));
    t->model.unknown = valid(v, v->unknown);
    if (t->model.unknown < 0)
        t->model.unknown = trmi_vocabulary_find(&t->model.vocabulary, "[UNK]", 5);
    if (cls < 0)
        cls = valid(v, v->bos);
    if (cls < 0)
        cls = trmi_vocabulary_find(&t->model.vocabulary, "[CLS]", 5);
    if (sep < 0)
        sep = valid(v, v->eos);
    if (sep < 0)
        sep = trmi_vocabulary_find(&t->model.vocabulary, "[SEP]", 5);
    TRM_CHECK(add_added(t, v));
    TRM_CHECK(add_bert_steps(t, v->keep_case <= 0));
    return trmi_build_post(t, flag(v->add_bos, true) ? cls : -1, sep);
}

trm_status trm_tokenizer_from_gguf(const char *name, const trm_gguf_vocabulary *vocabulary,
                                   trm_tokenizer **tokenizer_out)
{
    static const struct {
        const char *model;
        trm_status (*build)(trm_tokenizer *t, const trm_gguf_vocabulary *v);
    } models[] = {
        {"llama", build_llama},
        {"gpt2", build_gpt2},
        {"bert", build_bert},
        {"t5", build_t5},
    };
    const char *model = vocabulary->model == NULL ? "" : vocabulary->model;
    trm_tokenizer *t = NULL;
    char origin[80];
    trm_status st;

    TRM_TRY(st, trmi_tokenizer_create(&t), fail);
    st = trm_fail(TRM_ERR_UNSUPPORTED, "tokenizer model '%.60s' (supported: llama, gpt2, bert, t5)",
                  model);
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++)
        if (strcmp(model, models[i].model) == 0)
            st = models[i].build(t, vocabulary);
    if (st != TRM_OK)
        goto fail;
    snprintf(origin, sizeof(origin), "from GGUF (%s%s%.40s)", model,
             vocabulary->pre == NULL ? "" : ", ", vocabulary->pre == NULL ? "" : vocabulary->pre);
    TRM_TRY(st, trmi_tokenizer_finish(t, origin), fail);
    *tokenizer_out = t;
    return TRM_OK;
fail:
    trm_tokenizer_destroy(t);
    return trm_fail_context(st, "%s", name);
}
