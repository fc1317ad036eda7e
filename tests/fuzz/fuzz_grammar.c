/* libFuzzer: any JSON as a constraint, or as a schema, or any text as a regular expression; then
 * some tokens of a text. */
#include "base/memory.h"
#include "worker/language/grammar_impl.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define VOCABULARY 258

static const trm_token_trie *the_trie(void)
{
    static trm_token_trie *t; /* kept */
    static char byte[256];
    trm_text tokens[VOCABULARY];

    for (int i = 0; i < 256; i++) {
        byte[i] = (char)i;
        tokens[i] = (trm_text){&byte[i], 1};
    }
    tokens[256] = (trm_text){"\"},{\"", 5};
    tokens[257] = (trm_text){"", 0};
    if (t == NULL && trmi_token_trie_from(tokens, VOCABULARY, &t) != TRM_OK)
        abort();
    return t;
}

/* Tokens as the input's bytes choose them among those that may come. */
static void write_text(trm_grammar *g, const uint8_t *data, size_t bytes)
{
    const int32_t end = VOCABULARY - 1;
    trm_constraint *c;

    if (trm_constraint_create(g, the_trie(), &end, 1, &c) != TRM_OK)
        return;
    for (size_t i = 0; i < bytes && i < 48; i++) {
        float logits[VOCABULARY] = {0};
        int32_t token = data[i];

        if (trm_constraint_mask(c, logits, VOCABULARY) != TRM_OK)
            break;
        for (int k = 0; k < VOCABULARY && logits[token] != 0; k++)
            token = (token + 1) % VOCABULARY;
        if (trm_constraint_accept(c, token) != TRM_OK) {
            if (logits[token] == 0)
                abort(); /* the mask allowed it */
            break;
        }
        if (token == end)
            break;
    }
    trm_constraint_destroy(c);
}

static void try_one(const json_t *what, const uint8_t *data, size_t bytes)
{
    trm_grammar *g;

    if (trm_grammar_compile(what, &g) != TRM_OK)
        return;
    write_text(g, data, bytes);
    trm_grammar_destroy(g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    json_t *j = json_loadb((const char *)data, bytes, JSON_DECODE_ANY, NULL), *what;

    if (j != NULL) {
        try_one(j, data, bytes);
        what = json_pack("{s:s, s:o}", "type", "json_schema", "schema", j);
    } else {
        what = json_pack("{s:s, s:s%}", "type", "regex", "regex", (const char *)data, bytes);
    }
    if (what != NULL)
        try_one(what, data, bytes);
    json_decref(what);
    return 0;
}
