/* Constrained decoding: which tokens may come next so that the whole text is valid JSON, or JSON of
 * a schema, or one of given texts. A constraint is compiled once a request on the leader (errors
 * are the client's), travels with the new sequence to the rank that samples, and there forbids
 * tokens by setting their logits to -infinity before anything else of sampling is done.
 *
 * A grammar is a pushdown automaton over bytes; a vocabulary's tokens are a trie over bytes, walked
 * with the automaton's states (Willard and Louf 2023; Dong et al. 2024, "XGrammar"). Masks of
 * states that do not depend on the stack are kept. One owner an object; a vocabulary is shared. */
#ifndef TRM_WORKER_LANGUAGE_CONSTRAINT_H
#define TRM_WORKER_LANGUAGE_CONSTRAINT_H

#include "model/tokenizer/tokenizer.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The bytes of every token that is text (special tokens are none), as a trie. Read only once made.
 */
typedef struct trm_token_trie trm_token_trie;
TRM_MUST_USE trm_status trm_token_trie_create(const trm_tokenizer *t, int64_t vocabulary,
                                              trm_token_trie **trie_out);
void trm_token_trie_destroy(trm_token_trie *t); /* takes NULL */

/* A compiled grammar, and what its constraints have found out about it: masks are made once. One
 * owner thread, its constraints' too; they end before it. */
typedef struct trm_grammar trm_grammar;
/* What a request may say, as one JSON object (also what travels):
 *   {"type": "json_object"}
 *   {"type": "json_schema", "schema": {..}}
 *   {"type": "choice", "choice": [texts]}
 *   {"type": "regex", "regex": ".."}          the whole text matches
 *   {"type": "tagged", "begin": text, "schema": {..}, "end": text}   tool calls; `schema` absent:
 *                                             any JSON object; begin, end absent: ""
 *   {"type": "any_of", "any_of": [such objects], "most": 1, "separator": text}   one of them; with
 *                                             most: up to so many, with the text between them
 * docs/language-models.md lists the keywords of schemas. INVALID_ARG: malformed, says where;
 * UNSUPPORTED: a keyword that would change what is valid and is not done, or a grammar over the
 * limits (says which). */
TRM_MUST_USE trm_status trm_grammar_compile(const json_t *what, trm_grammar **grammar_out);
void trm_grammar_destroy(trm_grammar *g); /* takes NULL */

/* Where one sequence is in its grammar. */
typedef struct trm_constraint trm_constraint; /* also in sampler.h */
/* ends [end_count]: tokens that may come where the text is complete, and only there. One grammar
 * goes with one trie. */
TRM_MUST_USE trm_status trm_constraint_create(trm_grammar *grammar, const trm_token_trie *trie,
                                              const int32_t *ends, int end_count,
                                              trm_constraint **constraint_out);
void trm_constraint_destroy(trm_constraint *c); /* takes NULL */
/* -infinity for every token that may not come. logits: [vocabulary]. UNSUPPORTED: none may, by this
 * vocabulary; or the grammar is too complex to go on. */
TRM_MUST_USE trm_status trm_constraint_mask(trm_constraint *c, float *logits, int64_t vocabulary);
/* The same as bits: bit v % 32 of word v / 32: token v may come. allowed: [ceil(vocabulary / 32)].
 */
TRM_MUST_USE trm_status trm_constraint_allowed(trm_constraint *c, uint32_t *allowed,
                                               int64_t vocabulary);
/* The token has been drawn. INVALID_ARG: it might not have been (nothing changes). */
TRM_MUST_USE trm_status trm_constraint_accept(trm_constraint *c, int32_t token);
/* The text is complete: only an end token may come. */
bool trm_constraint_complete(const trm_constraint *c);
/* The text may end here: it is complete, or an end token has come. */
bool trm_constraint_may_end(const trm_constraint *c);

#ifdef __cplusplus
}
#endif
#endif
