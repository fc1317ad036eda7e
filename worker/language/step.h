/* A step of a language model as the leader decides it, and as it travels to the other ranks: one
 * compact message. Ranks of a replica run one program on one kind of machine: numbers are as in
 * memory.
 *
 * Rows of a step: the tokens of its parts one after another, then padding up to a size of the grid
 * of programs. Picked rows are those whose logits are wanted, in the order of their results. */
#ifndef TRM_WORKER_LANGUAGE_STEP_H
#define TRM_WORKER_LANGUAGE_STEP_H

#include "worker/language/sampler.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One sequence's part. Encoders have no pages and no slot. */
typedef struct trm_lm_part {
    int32_t row, tokens, position, slot;
    int32_t page_first, page_count; /* in the step's list of pages */
} trm_lm_part;

typedef enum trm_lm_pick_kind {
    TRM_LM_PICK_NEXT, /* draw the next token with the slot's sampler */
    TRM_LM_PICK_SCORE /* what the row says of `target` */
} trm_lm_pick_kind;
typedef struct trm_lm_pick {
    int32_t row, slot, kind, target;
    int64_t position; /* of the token that is drawn or scored */
} trm_lm_pick;

/* A slot's sampler begins anew. */
typedef struct trm_lm_begin {
    int32_t slot, bias_count; /* sampling.bias holds that many; the rest does not travel */
    int64_t prompt_count;     /* 0 where no penalty counts the prompt */
    const trm_sampling *sampling;
    const int32_t *prompt;
    const char *constraint; /* JSON (constraint.h), not terminated; NULL: none */
    size_t constraint_bytes;
} trm_lm_begin;

typedef struct trm_lm_step {
    int32_t token_count, token_rows; /* rows: of the grid, >= count */
    int32_t part_count, part_rows;   /* encoders: rows of the output; else 0 */
    int32_t pick_count, pick_rows;
    int32_t page_count, begin_count;
    int32_t *tokens, *types; /* [token_count]; types NULL: none */
    trm_lm_part *parts;
    int32_t *pages;
    trm_lm_pick *picks;
    trm_lm_begin *begins;
    int token_max, part_max, pick_max, page_max, begin_max; /* room */
    bool has_types;
} trm_lm_step;

/* Room for steps of that size; with_types: token types travel. */
TRM_MUST_USE trm_status trm_lm_step_init(trm_lm_step *s, int tokens, int parts, int picks,
                                         int pages, int begins, bool with_types);
void trm_lm_step_fini(trm_lm_step *s);
void trm_lm_step_clear(trm_lm_step *s);

/* As bytes in `buffer`, which grows (trm_malloc'ed, *max bytes). */
TRM_MUST_USE trm_status trm_lm_step_encode(const trm_lm_step *s, void **buffer, size_t *max,
                                           size_t *bytes_out);
/* Into a step with room; begins point into `bytes`, whose alignment is at least 8. INVALID_ARG: not
 * such bytes, or more than there is room for. */
TRM_MUST_USE trm_status trm_lm_step_decode(trm_lm_step *s, const void *bytes, size_t count);

/* The next size of the grid of programs: dense where steps are small. */
int trm_lm_grid(int count);

#ifdef __cplusplus
}
#endif
#endif
