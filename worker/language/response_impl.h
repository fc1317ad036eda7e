/* What whole answers (answer.c, response.c) and streamed ones (stream.c) share. */
#ifndef TRM_WORKER_LANGUAGE_RESPONSE_IMPL_H
#define TRM_WORKER_LANGUAGE_RESPONSE_IMPL_H

#include "worker/language/json_out.h"
#include "worker/language/request.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A token's object in the form of chats. NULL: no memory. */
json_t *trmi_lm_token_logprob(const trm_language *l, const trm_sampled *s);
/* The same, written straight. */
void trmi_lm_write_logprob(trmi_out *o, const trm_language *l, const trm_sampled *s);
/* The old completions' form, parallel lists, of a list of such objects. `echoed`: these stand
 * behind that prompt, whose objects are `prompt_list`; NULL: no prompt. *offset: characters that
 * came before, counted on. */
json_t *trmi_lm_old_logprobs(const trm_language *l, const trm_lm_prompt *echoed,
                             const json_t *prompt_list, const json_t *list, size_t *offset);
/* calls: that the choice made. */
const char *trmi_lm_finish(const trm_lm_request *r, trm_finish finish, int calls);
/* cached: -1: not said. */
json_t *trmi_lm_usage(const trm_lm_request *r, int64_t prompt, int64_t fresh, int64_t cached);

#ifdef __cplusplus
}
#endif
#endif
