/* tokenizer.json: normalizers and pre-tokenizers. A Sequence is its parts, one after the other. */
#include "model/tokenizer/json_impl.h"

#include <string.h>

#define NESTING_MAX 16

/* How many components a value is, Sequences opened. */
static trm_status count_steps(const json_t *v, const char *list, int depth, size_t *count)
{
    const json_t *parts = json_object_get(v, list);

    if (depth > NESTING_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "Sequences nested more than %d deep", NESTING_MAX);
    if (strcmp(trmi_json_type(v), "Sequence") != 0) {
        *count += 4; /* BertNormalizer is up to four */
        return *count > TRMI_STEPS_MAX * 4
                   ? trm_fail(TRM_ERR_UNSUPPORTED, "more than %d components", TRMI_STEPS_MAX)
                   : TRM_OK;
    }
    if (!json_is_array(parts))
        return trm_fail(TRM_ERR_BAD_FILE, "a Sequence without \"%s\"", list);
    for (size_t i = 0; i < json_array_size(parts); i++)
        TRM_CHECK(count_steps(json_array_get(parts, i), list, depth + 1, count));
    return TRM_OK;
}

/* ---- normalizers ---- */

static const struct {
    const char *type;
    trmi_normalizer_kind kind;
} plain_normalizers[] = {
    {"NFC", TRMI_NORMALIZER_NFC},
    {"NFD", TRMI_NORMALIZER_NFD},
    {"NFKC", TRMI_NORMALIZER_NFKC},
    {"NFKD", TRMI_NORMALIZER_NFKD},
    {"Lowercase", TRMI_NORMALIZER_LOWERCASE},
    {"StripAccents", TRMI_NORMALIZER_STRIP_ACCENTS},
    {"Nmt", TRMI_NORMALIZER_NMT},
    {"ByteLevel", TRMI_NORMALIZER_BYTE_LEVEL},
};

static trmi_normalizer *add_normalizer(trm_tokenizer *t, trmi_normalizer_kind kind)
{
    trmi_normalizer *n = &t->normalizers[t->normalizer_count++];

    n->kind = kind;
    return n;
}

static void add_bert(trm_tokenizer *t, const json_t *v)
{
    bool lower = trmi_json_bool(v, "lowercase", true);

    if (trmi_json_bool(v, "clean_text", true))
        add_normalizer(t, TRMI_NORMALIZER_BERT_CLEAN);
    if (trmi_json_bool(v, "handle_chinese_chars", true))
        add_normalizer(t, TRMI_NORMALIZER_BERT_CHINESE);
    if (trmi_json_bool(v, "strip_accents", lower))
        add_normalizer(t, TRMI_NORMALIZER_BERT_ACCENTS);
    if (lower)
        add_normalizer(t, TRMI_NORMALIZER_LOWERCASE);
}

static int base64_digit(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

static trm_status add_precompiled(trm_tokenizer *t, const json_t *v)
{
    const json_t *text = trmi_json_get(v, "precompiled_charsmap");
    const char *p = json_string_value(text);
    size_t count = json_string_length(text);
    trmi_buf b = {0};
    uint32_t bits = 0;
    int have = 0;
    trm_status st;

    if (p == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "Precompiled without \"precompiled_charsmap\"");
    while (count > 0 && p[count - 1] == '=')
        count--;
    for (size_t i = 0; i < count; i++) {
        int digit = base64_digit(p[i]);

        if (digit < 0) {
            trmi_buf_fini(&b);
            return trm_fail(TRM_ERR_BAD_FILE, "\"precompiled_charsmap\" is no base64 at %zu", i);
        }
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            trmi_buf_byte(&b, (char)(unsigned char)(bits >> have));
        }
    }
    st = trmi_buf_status(&b, "a character map");
    if (st == TRM_OK)
        st = trmi_precompiled_create(b.count == 0 ? "" : b.bytes, b.count,
                                     &add_normalizer(t, TRMI_NORMALIZER_PRECOMPILED)->map);
    trmi_buf_fini(&b);
    return st;
}

static trm_status add_normalizers(trm_tokenizer *t, const json_t *v)
{
    const char *type = trmi_json_type(v);
    trmi_normalizer *n;

    for (size_t i = 0; i < sizeof(plain_normalizers) / sizeof(plain_normalizers[0]); i++)
        if (strcmp(type, plain_normalizers[i].type) == 0) {
            add_normalizer(t, plain_normalizers[i].kind);
            return TRM_OK;
        }
    if (strcmp(type, "Sequence") == 0) {
        const json_t *parts = json_object_get(v, "normalizers");

        for (size_t i = 0; i < json_array_size(parts); i++)
            TRM_CHECK(add_normalizers(t, json_array_get(parts, i)));
        return TRM_OK;
    }
    if (strcmp(type, "BertNormalizer") == 0) {
        add_bert(t, v);
        return TRM_OK;
    }
    if (strcmp(type, "Strip") == 0) {
        n = add_normalizer(t, TRMI_NORMALIZER_STRIP);
        n->left = trmi_json_bool(v, "strip_left", true);
        n->right = trmi_json_bool(v, "strip_right", true);
        return TRM_OK;
    }
    if (strcmp(type, "Prepend") == 0)
        return trmi_json_text(t, v, "prepend", NULL,
                              &add_normalizer(t, TRMI_NORMALIZER_PREPEND)->to);
    if (strcmp(type, "Replace") == 0) {
        n = add_normalizer(t, TRMI_NORMALIZER_REPLACE);
        TRM_CHECK(trmi_json_pattern(t, v, &n->regex, &n->from));
        return trmi_json_text(t, v, "content", NULL, &n->to);
    }
    if (strcmp(type, "Precompiled") == 0)
        return add_precompiled(t, v);
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "normalizer '%s' (supported: Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, "
                    "StripAccents, Replace, Prepend, Precompiled, BertNormalizer, Nmt, ByteLevel)",
                    type);
}

trm_status trmi_json_normalizer(trm_tokenizer *t, const json_t *normalizer)
{
    size_t count = 0;

    TRM_CHECK(count_steps(normalizer, "normalizers", 0, &count));
    t->normalizers = trm_arena_alloc(t->arena, count + 1, sizeof(*t->normalizers));
    if (t->normalizers == NULL)
        return trmi_no_memory("normalizers");
    return add_normalizers(t, normalizer);
}

/* ---- pre-tokenizers ---- */

static trm_status read_behavior(const json_t *v, const char *otherwise, trmi_behavior *behavior)
{
    static const struct {
        const char *name;
        trmi_behavior behavior;
    } names[] = {
        {"Removed", TRMI_REMOVED},
        {"Isolated", TRMI_ISOLATED},
        {"MergedWithPrevious", TRMI_MERGED_WITH_PREVIOUS},
        {"MergedWithNext", TRMI_MERGED_WITH_NEXT},
        {"Contiguous", TRMI_CONTIGUOUS},
    };
    const char *name = json_string_value(json_object_get(v, "behavior"));

    if (name == NULL)
        name = otherwise;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i].name) == 0) {
            *behavior = names[i].behavior;
            return TRM_OK;
        }
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "behavior '%s' (supported: Removed, Isolated, MergedWithPrevious, "
                    "MergedWithNext, Contiguous)",
                    name);
}

static trm_status read_prepend(const json_t *v, trmi_prepend *prepend)
{
    const char *name = json_string_value(json_object_get(v, "prepend_scheme"));

    if (name == NULL)
        name = trmi_json_bool(v, "add_prefix_space", true) ? "always" : "never";
    if (strcmp(name, "always") == 0)
        *prepend = TRMI_PREPEND_ALWAYS;
    else if (strcmp(name, "first") == 0)
        *prepend = TRMI_PREPEND_FIRST;
    else if (strcmp(name, "never") == 0)
        *prepend = TRMI_PREPEND_NEVER;
    else
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "prepend_scheme '%s' (supported: always, first, never)", name);
    return TRM_OK;
}

static trmi_pretokenizer *add_pretokenizer(trm_tokenizer *t, trmi_pretokenizer_kind kind)
{
    trmi_pretokenizer *p = &t->pretokenizers[t->pretokenizer_count++];

    p->kind = kind;
    return p;
}

static void add_class(trm_tokenizer *t, bool (*is)(uint32_t c), trmi_behavior behavior)
{
    trmi_pretokenizer *p = add_pretokenizer(t, TRMI_PRETOKENIZER_CHARACTERS);

    p->is = is;
    p->behavior = behavior;
}

static trm_status add_split(trm_tokenizer *t, const json_t *v)
{
    trmi_pretokenizer *p = add_pretokenizer(t, TRMI_PRETOKENIZER_SPLIT);

    TRM_CHECK(trmi_json_pattern(t, v, &p->regex, &p->pattern));
    p->invert = trmi_json_bool(v, "invert", false);
    return read_behavior(v, "", &p->behavior);
}

static trm_status add_byte_level(trm_tokenizer *t, const json_t *v)
{
    trmi_pretokenizer *p = add_pretokenizer(t, TRMI_PRETOKENIZER_BYTE_LEVEL);

    p->add_prefix_space = trmi_json_bool(v, "add_prefix_space", true);
    p->behavior = TRMI_ISOLATED;
    return trmi_json_bool(v, "use_regex", true)
               ? trmi_regex_create(trmi_gpt2_pattern, strlen(trmi_gpt2_pattern), &p->regex)
               : TRM_OK;
}

static trm_status add_metaspace(trm_tokenizer *t, const json_t *v)
{
    trmi_pretokenizer *p = add_pretokenizer(t, TRMI_PRETOKENIZER_METASPACE);

    TRM_CHECK(trmi_json_char(v, "replacement", NULL, &p->delimiter));
    TRM_CHECK(read_prepend(v, &p->prepend));
    p->split = trmi_json_bool(v, "split", true);
    return TRM_OK;
}

static trm_status add_pretokenizers(trm_tokenizer *t, const json_t *v)
{
    const char *type = trmi_json_type(v);

    if (strcmp(type, "Sequence") == 0) {
        const json_t *parts = json_object_get(v, "pretokenizers");

        for (size_t i = 0; i < json_array_size(parts); i++)
            TRM_CHECK(add_pretokenizers(t, json_array_get(parts, i)));
        return TRM_OK;
    }
    if (strcmp(type, "ByteLevel") == 0)
        return add_byte_level(t, v);
    if (strcmp(type, "Metaspace") == 0)
        return add_metaspace(t, v);
    if (strcmp(type, "Split") == 0)
        return add_split(t, v);
    if (strcmp(type, "Whitespace") == 0) {
        add_pretokenizer(t, TRMI_PRETOKENIZER_WHITESPACE);
        return TRM_OK;
    }
    if (strcmp(type, "WhitespaceSplit") == 0) {
        add_class(t, trmi_is_white, TRMI_REMOVED);
        return TRM_OK;
    }
    if (strcmp(type, "BertPreTokenizer") == 0) {
        add_class(t, trmi_is_white, TRMI_REMOVED);
        add_class(t, trmi_is_punctuation, TRMI_ISOLATED);
        return TRM_OK;
    }
    if (strcmp(type, "Punctuation") == 0) {
        add_class(t, trmi_is_punctuation, TRMI_ISOLATED);
        return read_behavior(v, "Isolated", &t->pretokenizers[t->pretokenizer_count - 1].behavior);
    }
    if (strcmp(type, "Digits") == 0) {
        add_class(t, trmi_is_number,
                  trmi_json_bool(v, "individual_digits", false) ? TRMI_ISOLATED : TRMI_CONTIGUOUS);
        return TRM_OK;
    }
    if (strcmp(type, "CharDelimiterSplit") == 0) {
        add_class(t, NULL, TRMI_REMOVED);
        return trmi_json_char(v, "delimiter", NULL,
                              &t->pretokenizers[t->pretokenizer_count - 1].delimiter);
    }
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "pre_tokenizer '%s' (supported: Sequence, ByteLevel, Metaspace, Split, "
                    "Whitespace, WhitespaceSplit, BertPreTokenizer, Punctuation, Digits, "
                    "CharDelimiterSplit)",
                    type);
}

trm_status trmi_json_pretokenizer(trm_tokenizer *t, const json_t *pretokenizer)
{
    size_t count = 0;

    TRM_CHECK(count_steps(pretokenizer, "pretokenizers", 0, &count));
    t->pretokenizers = trm_arena_alloc(t->arena, count + 1, sizeof(*t->pretokenizers));
    if (t->pretokenizers == NULL)
        return trmi_no_memory("pre-tokenizers");
    return add_pretokenizers(t, pretokenizer);
}
