/* A language model that serves (worker/serve_model.h): requests of OpenAI's endpoints, their
 * streams, tokenize and detokenize. Requests go into the generator as they come; step runs one of
 * its steps. A request's answer depends on nothing but the request, its seed, tag and time. */
#ifndef TRM_WORKER_LANGUAGE_SERVE_LANGUAGE_H
#define TRM_WORKER_LANGUAGE_SERVE_LANGUAGE_H

#include "worker/language/lm_model.h"
#include "worker/language/request.h"
#include "worker/serve_model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_serve_language_options {
    trm_lm_model *model; /* leads a replica; borrowed */
    const char *name;    /* what answers call it */
    int64_t version;
    trm_lm_request_defaults
        defaults; /* the model's and the configuration's; seed is the request's */
    int queue;    /* requests that may be here at once; 0: 2 * batch + 64 */
    /* how models write tool calls: "auto" (by the chat template), "hermes", "llama", "mistral",
     * "json", "none" */
    const char *tool_format;
    trm_serve_out out;
} trm_serve_language_options;

TRM_MUST_USE trm_status trm_serve_language_create(const trm_serve_language_options *options,
                                                  trm_serve_model **model_out);

#ifdef __cplusplus
}
#endif
#endif
