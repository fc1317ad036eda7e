/* usage: constraint_walk COUNT SEED < constraints, one JSON object a line
 * Draws COUNT texts of each constraint over a small vocabulary, tokens at random among those that
 * may come, and writes them as one JSON list a line; or {"error": .., "status": ..}. */
#include "tests/worker/vocabulary_kit.h"

#include <stdio.h>
#include <stdlib.h>

#define TEXT_MAX 200000

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "constraint_walk: %s: %s\n", what, trm_message());
    exit(1);
}

static json_t *draw(trm_grammar *g, const trm_token_trie *t, uint64_t *seed)
{
    static char text[TEXT_MAX];
    static float logits[KIT_VOCABULARY];
    const int32_t end = KIT_EOS;
    size_t bytes = 0;
    trm_constraint *c;
    json_t *out;

    must(trm_constraint_create(g, t, &end, 1, &c) == TRM_OK, "create");
    for (int n = 0;; n++) {
        int32_t token;
        size_t length;

        memset(logits, 0, sizeof(logits));
        must(trm_constraint_mask(c, logits, KIT_VOCABULARY) == TRM_OK, "mask");
        token = kit_draw(t, logits, seed, n > 30);
        must(token >= 0, "no token");
        must(trm_constraint_accept(c, token) == TRM_OK, "accept");
        if (token == KIT_EOS)
            break;
        length = t->offsets[token + 1] - t->offsets[token];
        must(bytes + length < TEXT_MAX, "the text does not end");
        memcpy(text + bytes, t->pool + t->offsets[token], length);
        bytes += length;
    }
    trm_constraint_destroy(c);
    out = json_stringn(text, bytes);
    must(out != NULL, "the text is not UTF-8");
    return out;
}

int main(int argc, char **argv)
{
    static char line[1 << 20];
    long count = argc == 3 ? strtol(argv[1], NULL, 10) : 0;
    uint64_t seed = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
    trm_token_trie *t;

    must(count > 0, "usage: constraint_walk COUNT SEED");
    t = kit_trie();
    while (fgets(line, sizeof(line), stdin) != NULL) {
        json_t *what = json_loads(line, JSON_DECODE_ANY, NULL), *out;
        trm_grammar *g = NULL;
        trm_status st = trm_grammar_compile(what, &g);

        if (st != TRM_OK) {
            out = json_pack("{s:s, s:s}", "error", trm_message(), "status", trm_status_name(st));
        } else {
            out = json_array();
            for (long i = 0; i < count; i++)
                json_array_append_new(out, draw(g, t, &seed));
        }
        json_dumpf(out, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(out);
        json_decref(what);
        trm_grammar_destroy(g);
    }
    trm_token_trie_destroy(t);
    return 0;
}
