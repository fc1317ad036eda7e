/* Between request.c (fields) and request_prompt.c (prompts): a request while it is read. */
#ifndef TRM_WORKER_LANGUAGE_REQUEST_IMPL_H
#define TRM_WORKER_LANGUAGE_REQUEST_IMPL_H

#include "worker/language/request.h"

struct trmi_lm_reading {
    const trm_language *l;
    const trm_lm_request_defaults *defaults;
    trm_lm_request *r;
    const json_t *body;
    bool max_tokens, chat_logprobs;
};

/* What messages call the model. */
const char *trmi_lm_model_name(const struct trmi_lm_reading *g);
/* INVALID_ARG: "'name': want ..." */
trm_status trmi_lm_wrong(const char *name, const char *want);
trm_status trmi_lm_get_int(const char *name, const json_t *v, int64_t lo, int64_t hi, int64_t *out);
/* Field `name`: a string, token ids, or a list of either. */
trm_status trmi_lm_read_prompts(struct trmi_lm_reading *g, const char *name);
/* What the answer must be (constraint.h), which field `name` says; takes `what` (NULL: no memory).
 * Compiled, to know that it can be done. INVALID_ARG: something else said so before. */
trm_status trmi_lm_constrain(struct trmi_lm_reading *g, const char *name, json_t *what);
/* Fields "response_format", "structured_outputs" and vLLM's older guided_... */
trm_status trmi_lm_read_format(struct trmi_lm_reading *g, const char *name, const json_t *v);
trm_status trmi_lm_read_guided(struct trmi_lm_reading *g, const char *name, const json_t *v);
/* Field "messages" and what belongs to it. */
trm_status trmi_lm_read_chat(struct trmi_lm_reading *g);

/* Fields of tools, behind what the answer must be. */
trm_status trmi_lm_read_tools(struct trmi_lm_reading *g);

#endif
