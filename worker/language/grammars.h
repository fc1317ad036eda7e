/* Compiled grammars of a rank that samples, by their text: requests with the same schema share one,
 * with all its masks. And the trie of the model's vocabulary, made when the first constraint comes.
 * One owner. */
#ifndef TRM_WORKER_LANGUAGE_GRAMMARS_H
#define TRM_WORKER_LANGUAGE_GRAMMARS_H

#include "model/language/language.h"
#include "worker/language/constraint.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_grammars trm_grammars;
/* language: borrowed; its tokenizer is read where it is not there yet. */
TRM_MUST_USE trm_status trm_grammars_create(trm_language *language, int64_t vocabulary,
                                            trm_grammars **grammars_out);
void trm_grammars_destroy(trm_grammars *g); /* takes NULL; after all constraints */
/* `json`: as trm_grammar_compile wants it. The constraint ends before `g`. */
TRM_MUST_USE trm_status trm_grammars_start(trm_grammars *g, const char *json, size_t bytes,
                                           const int32_t *ends, int end_count,
                                           trm_constraint **constraint_out);

#ifdef __cplusplus
}
#endif
#endif
