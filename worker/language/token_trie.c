/* A vocabulary's tokens by their bytes: nodes lie in the order of a walk, so that what begins with
 * the same bytes is one piece of the table. */
#include "worker/language/grammar_impl.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Kinds of bytes that grammars seldom tell apart, for jumping over whole pieces of the trie. */
int trmi_byte_kind(unsigned byte)
{
    static const char alone[] = "\"\\/,:{}[]().-+_'eE0\n\t ";
    const char *at = byte > 0 && byte < 0x80 ? strchr(alone, (int)byte) : NULL;

    if (at != NULL)
        return (int)(at - alone);
    if (byte < 0x20)
        return 32;
    if (byte >= '1' && byte <= '9')
        return 33;
    if (byte >= 'a' && byte <= 'f')
        return 34;
    if (byte >= 'A' && byte <= 'F')
        return 35;
    if (byte >= 'a' && byte <= 'z')
        return 36;
    if (byte >= 'A' && byte <= 'Z')
        return 37;
    if (byte < 0x80)
        return 38;
    return byte < 0xc0 ? 39 : byte < 0xe0 ? 40 : byte < 0xf0 ? 41 : 42;
}

struct key {
    const char *bytes;
    uint32_t count;
    int32_t id;
};

static int by_bytes(const void *x, const void *y)
{
    const struct key *a = x, *b = y;
    size_t n = a->count < b->count ? a->count : b->count;
    int c = memcmp(a->bytes, b->bytes, n);

    if (c != 0)
        return c;
    if (a->count != b->count)
        return a->count < b->count ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static trm_status no_memory(int64_t count)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "a trie of %" PRId64 " tokens", count);
}

static uint32_t shared(const struct key *a, const struct key *b)
{
    uint32_t n = 0;

    while (n < a->count && n < b->count && a->bytes[n] == b->bytes[n])
        n++;
    return n;
}

/* Keys are sorted. */
static trm_status make_nodes(trm_token_trie *t, const struct key *keys, uint32_t count)
{
    uint32_t open[TRMI_TOKEN_BYTES_MAX + 1], depth = 0, at = 0;
    size_t nodes = 0;

    for (uint32_t i = 0; i < count; i++)
        nodes += keys[i].count - (i == 0 ? 0 : shared(&keys[i - 1], &keys[i]));
    if (nodes >= UINT32_MAX / 2)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a vocabulary of %zu bytes", nodes);
    t->nodes = trm_calloc(nodes + 1, sizeof(*t->nodes));
    t->ids = trm_malloc((size_t)count + 1, sizeof(*t->ids));
    if (t->nodes == NULL || t->ids == NULL)
        return no_memory(count);
    for (uint32_t i = 0; i <= count; i++) {
        uint32_t same = i == 0 || i == count ? 0 : shared(&keys[i - 1], &keys[i]);

        while (depth > same) { /* these have all their children */
            trmi_trie_at *n = &t->nodes[open[--depth]];

            n->end = at;
            if (depth > 0)
                t->nodes[open[depth - 1]].classes |= n->classes | 1ULL << trmi_byte_kind(n->byte);
        }
        if (i == count)
            break;
        for (; depth < keys[i].count; depth++) {
            t->nodes[at] = (trmi_trie_at){
                .byte = (uint8_t)keys[i].bytes[depth], .depth = (uint16_t)(depth + 1), .tokens = i};
            open[depth] = at++;
        }
        t->ids[i] = keys[i].id;
    }
    t->nodes[at].tokens = count;
    t->count = at;
    t->id_count = count;
    return TRM_OK;
}

static trm_status make_pool(trm_token_trie *t, const trm_text *tokens)
{
    size_t bytes = 0;

    for (int64_t i = 0; i < t->vocabulary; i++)
        bytes += tokens[i].count;
    if (bytes >= UINT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a vocabulary of %zu bytes", bytes);
    t->offsets = trm_malloc((size_t)t->vocabulary + 1, sizeof(*t->offsets));
    t->pool = trm_malloc(bytes + 1, 1);
    if (t->offsets == NULL || t->pool == NULL)
        return no_memory(t->vocabulary);
    bytes = 0;
    for (int64_t i = 0; i < t->vocabulary; i++) {
        t->offsets[i] = (uint32_t)bytes;
        if (tokens[i].count > 0)
            memcpy(t->pool + bytes, tokens[i].bytes, tokens[i].count);
        bytes += tokens[i].count;
    }
    t->offsets[t->vocabulary] = (uint32_t)bytes;
    return TRM_OK;
}

static trm_status build(trm_token_trie *t, const trm_text *tokens)
{
    struct key *keys;
    uint32_t count = 0;
    trm_status st;

    TRM_CHECK(make_pool(t, tokens));
    keys = trm_malloc((size_t)t->vocabulary + 1, sizeof(*keys));
    if (keys == NULL)
        return no_memory(t->vocabulary);
    for (int64_t i = 0; i < t->vocabulary; i++) {
        uint32_t bytes = t->offsets[i + 1] - t->offsets[i];

        if (bytes > 0 && bytes <= TRMI_TOKEN_BYTES_MAX)
            keys[count++] = (struct key){t->pool + t->offsets[i], bytes, (int32_t)i};
    }
    qsort(keys, count, sizeof(*keys), by_bytes);
    st = make_nodes(t, keys, count);
    trm_free(keys);
    return st;
}

trm_status trmi_token_trie_from(const trm_text *tokens, int64_t count, trm_token_trie **trie_out)
{
    trm_token_trie *t;
    trm_status st;

    if (count < 1 || count > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "a vocabulary of %" PRId64 " tokens", count);
    t = trm_calloc(1, sizeof(*t));
    if (t == NULL)
        return no_memory(count);
    t->vocabulary = count;
    TRM_TRY(st, build(t, tokens), fail);
    TRM_TRY(st, trmi_strings_init(t), fail);
    *trie_out = t;
    return TRM_OK;
fail:
    trm_token_trie_destroy(t);
    return st;
}

/* Text of all tokens that are text, one after another in `pool`. */
static trm_status read_texts(const trm_tokenizer *t, int64_t vocabulary, trm_text *texts,
                             trm_arena *arena)
{
    int64_t count = (int64_t)trm_tokenizer_count(t);
    char buf[TRMI_TOKEN_BYTES_MAX];

    for (int64_t i = 0; i < vocabulary && i < count; i++) {
        size_t bytes;
        char *copy;

        if (trm_tokenizer_token(t, (int32_t)i, &bytes) == NULL ||
            trm_tokenizer_is_special(t, (int32_t)i) || trm_tokenizer_unknown(t) == (int32_t)i)
            continue;
        bytes = trm_tokenizer_token_bytes(t, (int32_t)i, buf, sizeof(buf));
        if (bytes == 0 || bytes > sizeof(buf))
            continue;
        copy = trm_arena_strndup(arena, buf, bytes);
        if (copy == NULL)
            return no_memory(vocabulary);
        texts[i] = (trm_text){copy, bytes};
    }
    return TRM_OK;
}

trm_status trm_token_trie_create(const trm_tokenizer *t, int64_t vocabulary,
                                 trm_token_trie **trie_out)
{
    trm_arena *arena = NULL;
    trm_text *texts;
    trm_status st;

    if (vocabulary < 1 || vocabulary > INT32_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "a vocabulary of %" PRId64 " tokens", vocabulary);
    texts = trm_calloc((size_t)vocabulary + 1, sizeof(*texts));
    if (texts == NULL)
        return no_memory(vocabulary);
    TRM_TRY(st, trm_arena_create((size_t)1 << 20, &arena), end);
    TRM_TRY(st, read_texts(t, vocabulary, texts, arena), end);
    st = trmi_token_trie_from(texts, vocabulary, trie_out);
end:
    trm_arena_destroy(arena);
    trm_free(texts);
    return st;
}

void trm_token_trie_destroy(trm_token_trie *t)
{
    if (t == NULL)
        return;
    trm_free(t->nodes);
    trm_free(t->ids);
    trm_free(t->offsets);
    trm_free(t->pool);
    trmi_strings_fini(&t->strings);
    trm_free(t);
}
