/* What sentencepiece files and their GGUF forms share: tokens with scores and types. */
#include "model/tokenizer/tokenizer_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

static int32_t type_of(const trm_gguf_vocabulary *v, size_t id)
{
    return v->types == NULL ? NORMAL : v->types[id];
}

trm_status trmi_clean_token(const trm_gguf_vocabulary *v, size_t id, trmi_buf *spare)
{
    trmi_buf_clear(spare);
    trmi_utf8_add_lossy(spare, v->tokens[id].bytes, v->tokens[id].count);
    if (spare->count == 0) {
        char name[32];

        snprintf(name, sizeof(name), "[EMPTY_%zu]", id);
        trmi_buf_add(spare, name, strlen(name));
    }
    return trmi_buf_status(spare, "a token");
}

/* Greater scores first: a float's bits, made to sort as whole numbers do, turned round. */
static uint32_t rank_of(float score)
{
    uint32_t bits;

    memcpy(&bits, &score, sizeof(bits));
    bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return ~bits == UINT32_MAX ? UINT32_MAX - 1 : ~bits;
}

static trm_status add_tokens(trm_tokenizer *t, const trm_gguf_vocabulary *v)
{
    trmi_buf spare = {0};
    size_t all = 0;
    trm_status st;

    for (size_t i = 0; i < v->count; i++)
        if (!trm_add_ok(all, v->tokens[i].count, &all))
            return trm_fail(TRM_ERR_BAD_FILE, "a vocabulary without end");
    TRM_TRY(st, trmi_vocabulary_reserve(&t->model.vocabulary, v->count, all), end);
    for (size_t i = 0; i < v->count; i++) {
        TRM_TRY(st, trmi_clean_token(v, i, &spare), end);
        TRM_TRY(st, trmi_vocabulary_add(&t->model.vocabulary, spare.bytes, spare.count, i), end);
    }
end:
    trmi_buf_fini(&spare);
    return st;
}

/* Which tokens merging may make, and in which order. */
static trm_status set_ranks(trmi_model *m, const trm_gguf_vocabulary *v)
{
    m->ranks = trm_malloc(v->count + 1, sizeof(*m->ranks));
    if (m->ranks == NULL)
        return trmi_no_memory("scores of a vocabulary");
    for (size_t i = 0; i < v->count; i++) {
        int32_t type = type_of(v, i);
        bool merges = type == NORMAL || type == USER_DEFINED || type == UNUSED;
        float score = v->scores == NULL ? 0.0f : v->scores[i];

        m->ranks[i] = merges && !isnan(score) ? rank_of(score) : UINT32_MAX;
    }
    return TRM_OK;
}

static trm_status set_scores(trmi_model *m, const trm_gguf_vocabulary *v)
{
    double least = INFINITY;

    m->scores = trm_malloc(v->count + 1, sizeof(*m->scores));
    if (m->scores == NULL)
        return trmi_no_memory("scores of a vocabulary");
    for (size_t i = 0; i < v->count; i++) {
        int32_t type = type_of(v, i);
        float score = v->scores == NULL ? 0.0f : v->scores[i];

        m->scores[i] = type == NORMAL || type == USER_DEFINED ? (double)score : (double)NAN;
        if (type == NORMAL && (double)score < least)
            least = (double)score;
    }
    m->single = true;
    m->unknown_score = (isinf(least) ? 0.0 : least) - 10.0;
    return TRM_OK;
}

static trm_status add_added(trm_tokenizer *t, const trm_gguf_vocabulary *v, bool user_in_normalized)
{
    for (size_t i = 0; i < v->count; i++) {
        int32_t type = type_of(v, i);
        trmi_added_token how = {.id = (int32_t)i, .special = type != USER_DEFINED};
        size_t bytes;
        const char *token = trmi_vocabulary_token(&t->model.vocabulary, i, &bytes);

        if (type != CONTROL && type != UNKNOWN && type != USER_DEFINED)
            continue;
        how.normalized = type == USER_DEFINED && user_in_normalized;
        TRM_CHECK(trmi_added_add(&t->added, token, bytes, &how));
    }
    return TRM_OK;
}

/* User-defined tokens, which sentencepiece's normalizer leaves as they are. */
static trm_status make_whole(trm_tokenizer *t, const trm_gguf_vocabulary *v, trmi_normalizer *n)
{
    trmi_trie_key *keys = trm_malloc(v->count + 1, sizeof(*keys));
    size_t count = 0;
    trm_status st = TRM_OK;

    if (keys == NULL)
        return trmi_no_memory("user-defined tokens");
    for (size_t i = 0; i < v->count; i++) {
        if (type_of(v, i) != USER_DEFINED)
            continue;
        keys[count].bytes = trmi_vocabulary_token(&t->model.vocabulary, i, &keys[count].count);
        keys[count++].value = (int32_t)i;
    }
    if (count > 0)
        st = trmi_trie_create(keys, count, &n->whole);
    trm_free(keys);
    return st;
}

/* U+2581 to blanks, byte tokens to bytes, and without the blank that was put in front. */
static trm_status add_decoders(trm_tokenizer *t, bool dummy_prefix)
{
    trmi_decoder *d = trm_arena_alloc(t->arena, 4, sizeof(*d));

    if (d == NULL)
        return trmi_no_memory("decoders");
    d[0].kind = TRMI_DECODER_REPLACE;
    d[0].from.bytes = "\xE2\x96\x81";
    d[0].from.count = 3;
    d[0].to.bytes = " ";
    d[0].to.count = 1;
    d[1].kind = TRMI_DECODER_BYTE_FALLBACK;
    d[2].kind = TRMI_DECODER_FUSE;
    d[3].kind = TRMI_DECODER_STRIP;
    d[3].c = ' ';
    d[3].start = 1;
    t->decoders = d;
    t->decoder_count = dummy_prefix ? 4 : 3;
    return TRM_OK;
}

trm_status trmi_build_scored(trm_tokenizer *t, const trm_gguf_vocabulary *v, bool unigram,
                             const trmi_normalizer *n, bool user_in_normalized)
{
    trmi_model *m = &t->model;

    t->normalizers = trm_arena_alloc(t->arena, 1, sizeof(*t->normalizers));
    if (t->normalizers == NULL) {
        trmi_precompiled_destroy(n->map);
        return trmi_no_memory("a normalizer");
    }
    t->normalizers[0] = *n;
    t->normalizers[0].kind = TRMI_NORMALIZER_SENTENCEPIECE;
    t->normalizer_count = 1;
    m->kind = unigram ? TRMI_MODEL_UNIGRAM : TRMI_MODEL_BPE;
    TRM_CHECK(add_tokens(t, v));
    TRM_CHECK(unigram ? set_scores(m, v) : set_ranks(m, v));
    m->fuse_unknown = true;
    m->unknown = v->unknown >= 0 && (size_t)v->unknown < v->count ? v->unknown : -1;
    for (size_t i = 0; i < v->count; i++) {
        m->byte_fallback = m->byte_fallback || type_of(v, i) == BYTE;
        if (m->unknown < 0 && type_of(v, i) == UNKNOWN)
            m->unknown = (int32_t)i;
    }
    TRM_CHECK(add_added(t, v, user_in_normalized));
    if (user_in_normalized)
        TRM_CHECK(make_whole(t, v, &t->normalizers[0]));
    return add_decoders(t, n->dummy_prefix);
}

trm_status trmi_build_post(trm_tokenizer *t, int32_t first, int32_t last)
{
    trmi_post_item *items = trm_arena_alloc(t->arena, 9, sizeof(*items));
    int32_t *ids = trm_arena_alloc(t->arena, 2, sizeof(*ids));
    trmi_post_item a = {0, 0, NULL, 0}, b = {1, 1, NULL, 0}, before = {-1, 0, ids, 1},
                   behind = {-1, 0, ids + 1, 1};
    size_t n = 0;

    if (items == NULL || ids == NULL)
        return trmi_no_memory("a post-processor");
    ids[0] = first;
    ids[1] = last;
    if (first >= 0)
        items[n++] = before;
    items[n++] = a;
    if (last >= 0)
        items[n++] = behind;
    t->post.single = t->post.pair = items;
    t->post.single_count = n;
    /* [CLS] A [SEP] B [SEP]; a model that has only one of the two repeats it */
    before.type = behind.type = 1;
    if (first >= 0 && last < 0)
        items[n++] = before;
    items[n++] = b;
    if (last >= 0)
        items[n++] = behind;
    t->post.pair_count = n;
    return TRM_OK;
}
