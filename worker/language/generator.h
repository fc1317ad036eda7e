/* Requests of a language model on the leader: prompts in, text out. Ties the scheduler to the
 * replica, turns tokens into text, watches for stop strings. Nothing here waits but for a step of
 * the replica; whoever drives it calls trm_generator_step while there is work. One owner: the
 * executor thread. */
#ifndef TRM_WORKER_LANGUAGE_GENERATOR_H
#define TRM_WORKER_LANGUAGE_GENERATOR_H

#include "model/language/language.h"
#include "worker/language/replica.h"
#include "worker/language/scheduler.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_generator trm_generator;
typedef struct trm_generation trm_generation; /* a request under way */

typedef struct trm_generator_options {
    const trm_language *language;
    trm_lm_replica *replica;
    /* flights, lookahead, vocabulary and encoder are set by the generator */
    trm_scheduler_limits limits;
} trm_generator_options;

TRM_MUST_USE trm_status trm_generator_create(const trm_generator_options *options,
                                             trm_generator **generator_out);
void trm_generator_destroy(trm_generator *g); /* takes NULL; ends all requests silently */

/* A token of an answer, or a scored one of the prompt. */
typedef struct trm_generated {
    int choice;
    bool prompt;
    int position;
    const trm_sampled *token;
    const char *text; /* new text, whole characters, borrowed; may be empty */
    size_t bytes;
} trm_generated;

typedef struct trm_generation_end {
    int choice;
    trm_finish finish;
    trm_status status; /* FAILED: why; else OK */
    const char *message;
    int prompt_tokens, new_tokens;
    int cached_tokens;   /* of the prompt, that were found in the cache */
    int64_t begun_us;    /* trm_now_us of the first step it was in; 0: none */
    const int32_t *ids;  /* the new tokens */
    const char *stopped; /* the stop string that was met, or NULL */
    /* encoders */
    const float *row;
    int64_t width;
} trm_generation_end;

typedef struct trm_generation_options {
    const int32_t *prompt;
    size_t prompt_count;
    const int32_t *types; /* encoders: [prompt_count] or NULL */
    const trm_sampling *
        sampling; /* copied; seed and end tokens as they are to be; stream is the choice's number */
    /* What the texts must be, as JSON (constraint.h; compiled before by whoever asks); NULL:
     * anything. Copied. Wants an end token in `sampling`. Stop strings end such texts as others. */
    const char *constraint;
    int choices; /* n */
    int32_t priority;
    bool prompt_logprobs;
    bool keep_special; /* special tokens are text, too */
    bool include_stop; /* the stop string stays in the text */
    const char *const *stops;
    size_t stop_count;
    void *ctx;
    void (*token)(void *ctx, const trm_generated *t); /* NULL: not wanted */
    /* once a choice; the last one frees the request: it must not be used afterwards */
    void (*end)(void *ctx, const trm_generation_end *e);
} trm_generation_options;

/* INVALID_ARG: the prompt or the sampling (says what). */
TRM_MUST_USE trm_status trm_generator_add(trm_generator *g, const trm_generation_options *options,
                                          trm_generation **generation_out);
/* Its choices end as CANCELLED, now. */
void trm_generator_cancel(trm_generator *g, trm_generation *r);
/* Requests under way. */
int trm_generator_count(const trm_generator *g);
/* Whether trm_generator_step has anything to do: there are requests, or a step of cancelled ones
 * has not ended. */
bool trm_generator_is_busy(const trm_generator *g);
/* Starts what can start and takes the results of the oldest step; callbacks are called from here.
 * When the last request has ended no step is left under way. Does nothing where there is nothing to
 * do. A failure of the replica comes back; requests have then been ended as FAILED. */
TRM_MUST_USE trm_status trm_generator_step(trm_generator *g);
/* Takes the results of all steps under way and starts none: nothing of it is on its way between the
 * ranks afterwards. Failures as step. */
TRM_MUST_USE trm_status trm_generator_settle(trm_generator *g);
/* Whether a number of sequences has steps that a device would launch as a captured graph and has
 * not run yet: then trm_generator_warm runs them, of padding only, for the next such number, when
 * no step is under way. A step's own failure ends the warming; COMM as step. */
bool trm_generator_warms(const trm_generator *g);
TRM_MUST_USE trm_status trm_generator_warm(trm_generator *g);
/* Until no request is left. */
TRM_MUST_USE trm_status trm_generator_run(trm_generator *g);

/* The model's defaults (temperature and the like, end tokens): for requests that say nothing else.
 */
void trm_generator_defaults(const trm_language *l, trm_sampling *sampling_out);
/* A seed that nobody has asked for. */
uint64_t trm_random_seed(void);
const char *trm_finish_name(trm_finish finish); /* OpenAI's: "stop", "length", ... */

typedef struct trm_generator_stats {
    trm_scheduler_stats scheduler;
    double step_us;             /* time inside steps, all together */
    double rows_used, rows_run; /* rows with a token, and with padding */
} trm_generator_stats;
void trm_generator_get_stats(const trm_generator *g, trm_generator_stats *stats_out);

#ifdef __cplusplus
}
#endif
#endif
