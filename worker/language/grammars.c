/* See grammars.h. Grammars that nobody uses any more stay, the latest of them, as the next request
 * often has the same. */
#include "worker/language/grammars.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/wait.h"
#include "worker/language/grammar_impl.h"

#include <inttypes.h>
#include <string.h>

#define KEPT_MAX 16 /* grammars that nobody uses */

struct kept {
    trm_grammar *grammar;
    char *json;
    size_t bytes;
    uint64_t hash, used; /* when it was last asked for */
};

struct trm_grammars {
    trm_token_trie *trie;
    struct kept *items;
    size_t count, room;
    uint64_t clock;
};

trm_status trm_grammars_create(trm_language *language, int64_t vocabulary,
                               trm_grammars **grammars_out)
{
    trm_grammars *g;
    int64_t start = trm_now_us();
    trm_status st;

    if (language == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "constraints want a model with a tokenizer");
    if (language->tokenizer == NULL)
        TRM_CHECK(trm_language_read_text(language, NULL));
    if (language->tokenizer == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s: no tokenizer: constraints want one",
                        language->path);
    g = trm_calloc(1, sizeof(*g));
    if (g == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "grammars");
    st = trm_token_trie_create(language->tokenizer, vocabulary, &g->trie);
    if (st != TRM_OK) {
        trm_grammars_destroy(g);
        return st;
    }
    TRM_LOG(TRM_LOG_INFO, "language",
            "constraints: a trie of %u nodes for %u tokens in %" PRId64 " ms", g->trie->count,
            g->trie->id_count, (trm_now_us() - start) / 1000);
    *grammars_out = g;
    return TRM_OK;
}

static void fini(struct kept *k)
{
    trm_grammar_destroy(k->grammar);
    trm_free(k->json);
}

void trm_grammars_destroy(trm_grammars *g)
{
    if (g == NULL)
        return;
    for (size_t i = 0; i < g->count; i++)
        fini(&g->items[i]);
    trm_free(g->items);
    trm_token_trie_destroy(g->trie);
    trm_free(g);
}

static bool in_use(const struct kept *k)
{
    return k->grammar->automaton != NULL && k->grammar->automaton->constraints != NULL;
}

/* Forgets the longest unused ones. */
static void tidy(trm_grammars *g)
{
    for (;;) {
        size_t idle = 0, oldest = SIZE_MAX;

        for (size_t i = 0; i < g->count; i++) {
            if (in_use(&g->items[i]))
                continue;
            idle++;
            if (oldest == SIZE_MAX || g->items[i].used < g->items[oldest].used)
                oldest = i;
        }
        if (idle < KEPT_MAX)
            return;
        fini(&g->items[oldest]);
        g->items[oldest] = g->items[--g->count];
    }
}

/* FNV-1a. */
static uint64_t hash_of(const char *bytes, size_t count)
{
    uint64_t h = 14695981039346656037u;

    for (size_t i = 0; i < count; i++)
        h = (h ^ (unsigned char)bytes[i]) * 1099511628211u;
    return h;
}

static trm_status compile(const char *json, size_t bytes, struct kept *out)
{
    json_error_t e;
    json_t *what = json_loadb(json, bytes, 0, &e);
    trm_status st;

    if (what == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "a constraint is no JSON: %s", e.text);
    st = trm_grammar_compile(what, &out->grammar);
    json_decref(what);
    if (st != TRM_OK)
        return st;
    out->json = trm_malloc(bytes + 1, 1);
    if (out->json == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a grammar");
    memcpy(out->json, json, bytes);
    out->bytes = bytes;
    return TRM_OK;
}

static trm_status find(trm_grammars *g, const char *json, size_t bytes, struct kept **kept_out)
{
    struct kept made = {.hash = hash_of(json, bytes)};
    trm_status st;

    for (size_t i = 0; i < g->count; i++)
        if (g->items[i].hash == made.hash && g->items[i].bytes == bytes &&
            memcmp(g->items[i].json, json, bytes) == 0) {
            *kept_out = &g->items[i];
            return TRM_OK;
        }
    tidy(g);
    if (g->count == g->room) {
        size_t room = g->room == 0 ? KEPT_MAX : g->room * 2;
        struct kept *grown = trm_realloc(g->items, room, sizeof(*grown));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "grammars");
        g->items = grown;
        g->room = room;
    }
    st = compile(json, bytes, &made);
    if (st != TRM_OK) {
        fini(&made);
        return st;
    }
    g->items[g->count] = made;
    *kept_out = &g->items[g->count++];
    return TRM_OK;
}

trm_status trm_grammars_start(trm_grammars *g, const char *json, size_t bytes, const int32_t *ends,
                              int end_count, trm_constraint **constraint_out)
{
    struct kept *k = NULL;

    TRM_CHECK(find(g, json, bytes, &k));
    k->used = ++g->clock;
    return trm_constraint_create(k->grammar, g->trie, ends, end_count, constraint_out);
}
