/* What runs next: continuous batching for language models. The leader's decision alone; knows
 * neither ranks nor kernels, only tokens, pages and budgets.
 *
 * Every step takes one token of each sequence that decodes, and with what is left of the budget
 * pieces of prompts (chunked prefill; Sarathi, Agrawal et al. 2023). Sequences start in the order
 * of their priority, those of one priority in the order in which they came. Where pages run out the
 * least and latest of those that run gives up its own and is computed anew later (preemption by
 * recompute; vLLM, Kwon et al. 2023): its tokens stay, so its text goes on where it was. Where
 * several steps may be under way (pipeline stages) sequences are dealt out among them; where these
 * follow each other on one device a sequence may be in the next step before its token of the last
 * one is known (lookahead).
 *
 * What a sequence's tokens are does not depend on any of this: kernels are layout-invariant and
 * random numbers are keyed by position. One owner. */
#ifndef TRM_WORKER_LANGUAGE_SCHEDULER_H
#define TRM_WORKER_LANGUAGE_SCHEDULER_H

#include "worker/language/kv_cache.h"
#include "worker/language/step.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Prompt log-probabilities of a step: each is a row of logits. */
#define TRM_SCHEDULER_SCORES_MAX 64

typedef struct trm_scheduler trm_scheduler;

typedef struct trm_scheduler_limits {
    int batch;       /* sequences that run at once */
    int step_tokens; /* rows of a step at most */
    int context;     /* positions of a sequence at most */
    int pages;
    int flights; /* steps that may be under way at once */
    int64_t vocabulary;
    bool prefix;  /* reuse of prefixes */
    bool encoder; /* whole sequences, no cache */
    /* Steps under way run one after another on one device, which keeps the last token that it drew
     * for each slot: a sequence may be in two of them. In the second, TRM_STEP_TOKEN_OF_SLOT
     * (kernels/language.h) stands where its token is not known here yet. Those under a constraint
     * are waited for: what they may draw depends on their token. Wants flights >= 2. */
    bool lookahead;
    /* A step in which sequences decode takes only so many prompt tokens that it lasts no longer
     * than this, by the times of the steps before; 0: no such limit. Microseconds. */
    double decode_budget_us;
} trm_scheduler_limits;

typedef enum trm_finish {
    TRM_FINISH_NONE,
    TRM_FINISH_END,    /* an end token */
    TRM_FINISH_STOP,   /* by the owner: a stop string */
    TRM_FINISH_LENGTH, /* max_tokens or the context is full */
    TRM_FINISH_CANCELLED,
    TRM_FINISH_FAILED /* its logits were not finite */
} trm_finish;

typedef struct trm_sequence trm_sequence;
struct trm_sequence {
    /* given by the owner, before trm_scheduler_add */
    const trm_sampling *sampling; /* stays until the sequence is removed */
    void *owner;
    const char *constraint; /* JSON (constraint.h), stays as sampling does; NULL: none */
    bool prompt_logprobs;
    int32_t priority;      /* greater: sooner */
    trm_sequence *sibling; /* the same prompt: waits until this one's is computed; NULL */
    /* the scheduler's; to be read */
    int32_t *tokens; /* prompt, then output */
    int32_t *types;  /* encoders with token types; else NULL */
    int prompt_count, count, max;
    int cached; /* tokens of the prompt that were found when it first ran */
    trm_finish finish;
    /* the scheduler's */
    trm_kv_table table;
    int computed, slot, scored, preemptions;
    /* Steps under way that it is in, the positions that these compute and the tokens that they
     * draw. */
    int under_way, ahead, awaited;
    uint64_t newest; /* step that it was put in last */
    int followers;   /* that name this one as their sibling */
    bool running, begun;
    trm_sequence *prev, *next;
};

TRM_MUST_USE trm_status trm_scheduler_create(const trm_scheduler_limits *limits,
                                             trm_scheduler **scheduler_out);
void trm_scheduler_destroy(trm_scheduler *s); /* sequences must have been removed */

/* Makes a sequence of a copy of prompt[0, count). INVALID_ARG: no tokens, an id that the model has
 * not, no room for one new token in the context, or more pages than there are. `types`: NULL or
 * [count]. */
TRM_MUST_USE trm_status trm_sequence_create(const trm_scheduler *s, const int32_t *prompt,
                                            int count, const int32_t *types,
                                            const trm_sampling *sampling,
                                            trm_sequence **sequence_out);
void trm_sequence_destroy(trm_sequence *q); /* not while a scheduler has it */
void trm_scheduler_add(trm_scheduler *s, trm_sequence *q);
/* Ends it wherever it is: a step under way is no longer waited for. What such steps write to (its
 * pages, its slot) is given to others only when the last of them has ended. */
void trm_scheduler_remove(trm_scheduler *s, trm_sequence *q);

/* Fills the next step; false: nothing can run now (all are under way, or there is nothing).
 * *flight_out names the step for trm_scheduler_done. */
bool trm_scheduler_next(trm_scheduler *s, trm_lm_step *step, int *flight_out);
/* A step has ended; steps end in the order in which they were filled. results: one a pick, in order
 * (encoders: NULL). `us`: how long it took, from the end of the step before it where that was later
 * than its own beginning; 0: not to be learnt from. For each pick `took` is called: token results
 * are appended to the sequence first (finish says whether that was the last), scores are of prompt
 * token `position`. Not for a sequence that was over (`finish`) or removed before: what a step has
 * drawn for it beyond its end is dropped. took may add and remove sequences. */
typedef void (*trm_scheduler_took)(void *ctx, trm_sequence *q, const trm_sampled *result,
                                   bool prompt, int position);
void trm_scheduler_done(trm_scheduler *s, int flight, const trm_sampled *results, double us,
                        trm_scheduler_took took, void *ctx);
/* Encoders: sequence i of the step in flight (NULL where it was removed), in the order of its
 * parts. */
trm_sequence *trm_scheduler_part(const trm_scheduler *s, int flight, int i);
/* A step failed: `lost` is called for each of its sequences, which should be removed. It may be one
 * that never began while others are under way; else in its turn, as above. */
void trm_scheduler_failed(trm_scheduler *s, int flight, void (*lost)(void *ctx, trm_sequence *q),
                          void *ctx);

typedef struct trm_scheduler_stats {
    int waiting, running, under_way;
    uint64_t steps, prompt_tokens, new_tokens, preemptions;
    trm_kv_stats kv;
} trm_scheduler_stats;
void trm_scheduler_get_stats(const trm_scheduler *s, trm_scheduler_stats *stats_out);
/* For tests: from now on every n-th step preempts the last sequence, as if pages had run out; 0:
 * none. */
void trm_scheduler_force_preemption(trm_scheduler *s, int every);

#ifdef __cplusplus
}
#endif
#endif
