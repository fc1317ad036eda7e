/* Requests as clients write them: OpenAI's completions, chat completions and embeddings as JSON,
 * with the extensions that vLLM's clients know (top_k, min_p, repetition_penalty, stop_token_ids,
 * ignore_eos, min_tokens, prompt_logprobs, return_token_ids, guided_json, structured_outputs, ...).
 * Read into what the generator takes; and answers written as those APIs do. One owner. */
#ifndef TRM_WORKER_LANGUAGE_REQUEST_H
#define TRM_WORKER_LANGUAGE_REQUEST_H

#include "worker/language/generator.h"
#include "worker/language/tools.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trm_lm_endpoint {
    TRM_LM_COMPLETIONS,
    TRM_LM_CHAT,
    TRM_LM_EMBEDDINGS,
    TRM_LM_ENDPOINT_COUNT
} trm_lm_endpoint;
/* "/v1/completions" and the like; COUNT: none of them. */
trm_lm_endpoint trm_lm_endpoint_of(const char *url);

/* What a request says nothing about. */
typedef struct trm_lm_request_defaults {
    trm_sampling sampling;    /* of the model and the command line: trm_generator_defaults */
    uint64_t seed;            /* where a request gives none */
    bool seed_given;          /* by the command line: not made up */
    bool max_tokens_given;    /* sampling.max_tokens holds for requests that say nothing; else:
                                 completions 16, chat the context */
    bool add_special;         /* BOS and such around prompts (true) */
    const char *name;         /* what messages call the model; NULL: its path */
    const char *tool_format;  /* trm_tools_read; NULL: tool calls are not looked for */
    int64_t now;              /* what chat templates take for the time (Unix, s); 0: the clock */
    const char *const *stops; /* borrowed; for requests that name none */
    size_t stop_count;
} trm_lm_request_defaults;

typedef struct trm_lm_prompt {
    int32_t *ids, *types;
    size_t count;
    char *text; /* NULL where it came as ids */
} trm_lm_prompt;

/* A request read. Everything in it is its own. */
typedef struct trm_lm_request {
    trm_lm_endpoint endpoint;
    char *model;               /* as the client calls it; "" */
    int prompt_count, choices; /* answers: prompt_count * choices */
    trm_lm_prompt *prompts;
    trm_sampling sampling;
    char **stops;
    size_t stop_count;
    char *constraint; /* JSON (constraint.h): what the answer must be; NULL: anything */
    int32_t priority; /* of its sequences; not read from the body */
    trm_tools *tools; /* functions that it may call; NULL: calls are not looked for */
    bool only_prompt; /* max_tokens was 0: the one token that is drawn is thrown away */
    bool echo, prompt_logprobs, token_ids, include_stop, keep_special, base64, stream, stream_usage;
} trm_lm_request;

/* INVALID_ARG: says which field, what it is and what it should be; UNSUPPORTED: a field that would
 * change the answer and is not done. Fields that change nothing (user, metadata, store ...) are
 * passed over; unknown ones are INVALID_ARG. */
TRM_MUST_USE trm_status trm_lm_request_read(const trm_language *l, trm_lm_endpoint endpoint,
                                            const json_t *body,
                                            const trm_lm_request_defaults *defaults,
                                            trm_lm_request **request_out);
void trm_lm_request_destroy(trm_lm_request *r); /* takes NULL */
/* Starts prompt `i` of it; the request must outlive the generation. */
TRM_MUST_USE trm_status trm_lm_request_start(const trm_lm_request *r, int i, trm_generator *g,
                                             void *ctx,
                                             void (*token)(void *ctx, const trm_generated *t),
                                             void (*end)(void *ctx, const trm_generation_end *e),
                                             trm_generation **generation_out);

/* ---- answers ---- */
/* One choice as it grows. Zeroed: empty. */
typedef struct trm_lm_answer {
    char *text;
    size_t bytes, bytes_max;
    json_t *logprobs;        /* list of tokens' objects, chat form; NULL: none wanted */
    json_t *prompt_logprobs; /* likewise */
    trm_finish finish;
    trm_status status;
    char *message; /* of a failure */
    int prompt_tokens, new_tokens, cached_tokens;
    int64_t begun_us;
    int32_t *ids;
    char *stopped;
    float *row; /* encoders */
    int64_t width;
    bool over, no_memory;
} trm_lm_answer;
void trm_lm_answer_fini(trm_lm_answer *a);
/* From the generator's callbacks. */
void trm_lm_answer_token(trm_lm_answer *a, const trm_lm_request *r, const trm_language *l,
                         const trm_generated *t);
void trm_lm_answer_end(trm_lm_answer *a, const trm_generation_end *e);
/* The response body, as the endpoint gives it; answers: [prompt_count * choices]. `id`: without the
 * prefix. `cached`: usage says how much of the prompts was found in the cache, which depends on
 * what ran before. NULL: no memory. */
json_t *trm_lm_response(const trm_lm_request *r, const trm_language *l,
                        const trm_lm_answer *answers, const char *id, int64_t created, bool cached);
/* OpenAI's error object for a status: {"error": {"message", "type", "code"}}. */
json_t *trm_lm_error(trm_status st, const char *message);

#ifdef __cplusplus
}
#endif
#endif
