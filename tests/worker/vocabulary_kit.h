/* A vocabulary for tests of constraints: all bytes, pieces of JSON that cross the borders of
 * grammars' rules, parts of characters, and pairs of such. */
#ifndef TRM_TESTS_WORKER_VOCABULARY_KIT_H
#define TRM_TESTS_WORKER_VOCABULARY_KIT_H

#include "worker/language/grammar_impl.h"

#include <string.h>

static const char *const kit_pieces[] = {
    "{\"",
    "\":",
    "\": ",
    "\": \"",
    "\",\"",
    "\", \"",
    "\"}",
    "}}",
    "}]",
    "]}",
    "],",
    "[[",
    "[[[[",
    "]]",
    "  ",
    "    ",
    "\n",
    "\n  ",
    "\n    ",
    ",\n",
    "true",
    "false",
    "null",
    "tr",
    "ue",
    "nu",
    "ll",
    " 1",
    "10",
    "12",
    "123",
    "000",
    "999",
    "-1",
    "-",
    "0.",
    ".5",
    ".25",
    "e5",
    "E-",
    "e+1",
    "\\u",
    "\\u00",
    "\\u0041",
    "\\n",
    "\\\"",
    "\\\\",
    "\\ud83d",
    "\\ude00",
    "abc",
    "the",
    " the",
    "name",
    "\"name\"",
    "age",
    "age\":",
    "value",
    "next",
    "a\":",
    "{\"a\":{\"a\":",
    "\"},{\"",
    "\xc3\xa9",
    "\xe4\xb8\x96\xe7\x95\x8c",
    "\xe4\xb8",
    "\x96",
    "\xf0\x9f",
    "\x98\x80",
    "\xf0\x9f\x98\x80",
    "red",
    "green",
    "re",
    "d\"",
    "AB",
    "A",
    "2024",
    "-02-",
    "29",
    "T12",
    ":00",
    "Z\"",
    "ab",
    "bc",
    "@",
    ".org",
    "x_",
    "foo",
    "bar",
    "{}",
    "[]",
    "[1,2",
    "\"\"",
    "\"a",
    "b\"",
    ", ",
    ": ",
    "\"x\":",
    "type",
    "kind",
};
#define KIT_PIECES (sizeof(kit_pieces) / sizeof(kit_pieces[0]))
#define KIT_PAIRS 400
#define KIT_VOCABULARY                                                                             \
    (256 + (int)KIT_PIECES + KIT_PAIRS + 2) /* the last two: an end token, and none at all */
#define KIT_EOS (KIT_VOCABULARY - 2)

static inline uint32_t kit_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static inline trm_token_trie *kit_trie(void)
{
    static char bytes[256], pairs[KIT_PAIRS][40];
    static trm_text tokens[KIT_VOCABULARY];
    trm_token_trie *t = NULL;
    uint64_t seed = 5;
    int n = 0;

    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[n++] = (trm_text){&bytes[i], 1};
    }
    for (size_t i = 0; i < KIT_PIECES; i++)
        tokens[n++] = (trm_text){kit_pieces[i], strlen(kit_pieces[i])};
    for (int i = 0; i < KIT_PAIRS; i++) {
        const char *a = kit_pieces[kit_random(&seed) % KIT_PIECES],
                   *b = kit_pieces[kit_random(&seed) % KIT_PIECES];

        strcpy(pairs[i], a);
        strcat(pairs[i], b);
        tokens[n++] = (trm_text){pairs[i], strlen(pairs[i])};
    }
    tokens[n++] = (trm_text){"", 0};
    tokens[n++] = (trm_text){"", 0};
    return trmi_token_trie_from(tokens, n, &t) == TRM_OK ? t : NULL;
}

/* A token that may come, mostly one that brings the text to its end once it is long. -1: none. */
static inline int32_t kit_draw(const trm_token_trie *t, const float *logits, uint64_t *seed,
                               bool hurry)
{
    static int32_t allowed[KIT_VOCABULARY];
    int n = 0, closing = 0;

    for (int32_t i = 0; i < KIT_VOCABULARY; i++) {
        const char *text = t->pool + t->offsets[i];
        bool closes = i == KIT_EOS || (t->offsets[i + 1] == t->offsets[i] + 1 &&
                                       strchr("\"}]", *text) != NULL && *text);

        if (logits[i] != 0)
            continue;
        if (closes) { /* these first */
            allowed[n] = allowed[closing];
            allowed[closing++] = i;
            n++;
        } else {
            allowed[n++] = i;
        }
    }
    if (n == 0)
        return -1;
    if (closing > 0 && kit_random(seed) % (hurry ? 2 : 8) == 0)
        return allowed[kit_random(seed) % (uint32_t)closing];
    return allowed[kit_random(seed) % (uint32_t)n];
}

#endif
