/* What the tests of constrained decoding share: texts fed to a grammar byte by byte. */
#ifndef TRM_TESTS_WORKER_GRAMMAR_KIT_H
#define TRM_TESTS_WORKER_GRAMMAR_KIT_H

#include "base/memory.h"
#include "worker/language/grammar_impl.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIT_END 256

/* All single bytes, and an end token. */
static inline trm_token_trie *kit_bytes_trie(void)
{
    static char bytes[256];
    trm_text tokens[257];
    trm_token_trie *t = NULL;

    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = (trm_text){&bytes[i], 1};
    }
    tokens[KIT_END] = (trm_text){"", 0};
    ck_assert_int_eq(trmi_token_trie_from(tokens, 257, &t), TRM_OK);
    return t;
}

static inline trm_status kit_compile(const char *what, trm_grammar **g)
{
    json_error_t e;
    json_t *j = json_loads(what, JSON_DECODE_ANY, &e);
    trm_status st;

    if (j == NULL)
        ck_abort_msg("%s: %s", what, e.text);
    st = trm_grammar_compile(j, g);
    json_decref(j);
    return st;
}

/* Whether the grammar takes the whole text and may end then. */
static inline bool kit_takes(trm_grammar *g, const trm_token_trie *t, const char *text,
                             size_t bytes)
{
    const int32_t end = KIT_END;
    trm_constraint *c;
    bool takes = true;

    ck_assert_int_eq(trm_constraint_create(g, t, &end, 1, &c), TRM_OK);
    for (size_t i = 0; i < bytes && takes; i++)
        takes = trm_constraint_accept(c, (unsigned char)text[i]) == TRM_OK;
    takes = takes && trm_constraint_may_end(c);
    trm_constraint_destroy(c);
    return takes;
}

#endif
