/* From one row of logits to one token, for one sequence. Pure: the same row, parameters, history
 * and position give the same token in any batch and layout.
 *
 * Order: logit bias; repetition, presence and frequency penalties; until min_tokens are there, end
 * tokens are forbidden; temperature; top_k; top_p; min_p; typical_p; draw. Greedy (temperature 0)
 * takes the largest after the penalties; ties: the lowest id. Log-probabilities that are reported
 * are of the row as it came (before bias and penalties; of the tokens that a constraint allows, as
 * vLLM has it), by a log-sum-exp in a fixed order. Random
 * numbers are Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3")
 * with key = seed and counter = (stream, position): one draw a position.
 *
 * One owner each. */
#ifndef TRM_WORKER_LANGUAGE_SAMPLER_H
#define TRM_WORKER_LANGUAGE_SAMPLER_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_SAMPLING_END_MAX 32
#define TRM_SAMPLING_BIAS_MAX 1024
#define TRM_SAMPLING_TOP_MAX 20 /* alternatives that can be reported */

typedef struct trm_logit_bias {
    int32_t id;
    float bias;
} trm_logit_bias;

/* Fixed-size and without pointers: it travels between ranks as it is. */
typedef struct trm_sampling {
    float temperature;                         /* 0: greedy */
    float top_p;                               /* 1: off */
    float min_p;                               /* 0: off */
    float typical_p;                           /* 1: off */
    int32_t top_k;                             /* 0: off */
    float repetition_penalty;                  /* 1: off; counts prompt and output */
    float presence_penalty, frequency_penalty; /* 0: off; count output only */
    uint64_t seed;
    uint32_t stream;  /* which of a request's n choices */
    int32_t logprobs; /* alternatives to report a token, -1: not even the token's own */
    int32_t max_tokens, min_tokens;
    bool ignore_end; /* the model's end tokens end nothing; `end` from the request still does */
    int32_t end_count;
    int32_t end[TRM_SAMPLING_END_MAX]; /* the model's and the request's end tokens */
    int32_t bias_count;
    trm_logit_bias bias[TRM_SAMPLING_BIAS_MAX];
} trm_sampling;

/* Off everywhere, greedy, no logprobs. */
void trm_sampling_init(trm_sampling *s);
/* INVALID_ARG names the field, its value and its range. `vocabulary`: ids of bias and end are below
 * it. */
TRM_MUST_USE trm_status trm_sampling_check(const trm_sampling *s, int64_t vocabulary);

typedef struct trm_sampled {
    int32_t id;
    float logprob; /* 0 where logprobs is -1 */
    int32_t rank;  /* of id among all, 1: the likeliest; 0 where logprobs is -1 */
    int32_t top_count;
    int32_t top_ids[TRM_SAMPLING_TOP_MAX]; /* likeliest first; ties: lower id first */
    float top_logprobs[TRM_SAMPLING_TOP_MAX];
} trm_sampled;

/* Instead of an id, where nothing could be drawn: its sequence fails. */
#define TRM_SAMPLED_NOTHING (-1)     /* logits were not finite, or memory was out */
#define TRM_SAMPLED_CONSTRAINED (-2) /* the constraint leaves no token, or cannot go on */

typedef struct trm_sampler trm_sampler;
typedef struct trm_constraint trm_constraint; /* worker/language/constraint.h */
/* prompt: what the repetition penalty counts; may be long, only its distinct ids are kept. */
TRM_MUST_USE trm_status trm_sampler_create(const trm_sampling *sampling, int64_t vocabulary,
                                           const int32_t *prompt, size_t prompt_count,
                                           trm_sampler **sampler_out);
void trm_sampler_destroy(trm_sampler *s);
/* Before the first token; takes the constraint. Its mask comes before all else, so that
 * probabilities and what is reported are of the tokens that may come; bias and penalties order
 * these. Where the text is complete end tokens come whatever min_tokens says. */
void trm_sampler_constrain(trm_sampler *s, trm_constraint *constraint);
/* logits: [vocabulary], may be changed. `position`: of the token that is drawn, counted from the
 * beginning of the prompt. The token is then counted as output. INTERNAL: logits are not finite
 * (says how many). UNSUPPORTED: by the constraint. */
TRM_MUST_USE trm_status trm_sampler_next(trm_sampler *s, float *logits, int64_t position,
                                         trm_sampled *out);
/* For prompt log-probabilities: what the row says of token `target`; counts nothing. */
TRM_MUST_USE trm_status trm_sampler_score(const trm_sampler *s, const float *logits, int32_t target,
                                          trm_sampled *out);

/* Counter-based random bits, for tests. */
void trm_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* ---- stop strings ---- */
/* Watches text as it comes. Text that may be the beginning of a stop string is held back. */
typedef struct trm_stopper trm_stopper;
TRM_MUST_USE trm_status trm_stopper_create(const char *const *stops, size_t count,
                                           trm_stopper **stopper_out);
void trm_stopper_destroy(trm_stopper *s);
/* *text_out, *bytes_out: what may be given out now (borrowed until the next call). *stopped_out: a
 * stop string was met (which: *which_out): nothing behind its beginning is ever given out, and the
 * earliest match wins; `include`: the stop string itself is given out too. */
TRM_MUST_USE trm_status trm_stopper_push(trm_stopper *s, const char *text, size_t bytes,
                                         bool include, const char **text_out, size_t *bytes_out,
                                         bool *stopped_out, int *which_out);
/* At the end without a stop: what was held back. */
void trm_stopper_finish(trm_stopper *s, const char **text_out, size_t *bytes_out);

#ifdef __cplusplus
}
#endif
#endif
