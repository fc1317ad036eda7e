/* A language model behind a leader: records are requests, one JSON object each; results are the
 * lines of the output, ready to be written (output "line", U8), and of encoders also the row
 * (output "embedding", F32).
 *
 * A record's bytes (TRM_RECORD_REQUEST) are one of
 *   {"custom_id": .., "method": "POST", "url": "/v1/chat/completions", "body": {..}}   OpenAI's
 * batch line
 *   {"prompt": ..} {"messages": ..} {"input": ..} with any field of that endpoint, and an optional
 * "id"
 *   {"text": ..}   a line of a text file
 * and the line that comes back is OpenAI's batch output line for the first, else {"index", "id",
 * "text" (or "texts", "embedding"), "finish_reason", "usage", ..}. Requests that say no seed get
 * one from their own content: the same line gives the same answer. One owner: the executor thread.
 */
#ifndef TRM_WORKER_LANGUAGE_SCORE_LANGUAGE_H
#define TRM_WORKER_LANGUAGE_SCORE_LANGUAGE_H

#include "worker/language/lm_model.h"
#include "worker/language/request.h"
#include "worker/leader.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_lm_score trm_lm_score;

/* `model` leads a replica; borrowed. `name`: what answers call the model. `rows`: the row of each
 * record is wanted, so that one with several inputs fails. */
TRM_MUST_USE trm_status trm_lm_score_create(trm_lm_model *model, const char *name,
                                            const trm_lm_request_defaults *defaults, bool rows,
                                            trm_lm_score **score_out);
void trm_lm_score_destroy(trm_lm_score *s); /* takes NULL */
/* For trm_leader_run; valid while `s` lives. */
trm_leader_model trm_lm_score_callback(trm_lm_score *s);

#ifdef __cplusplus
}
#endif
#endif
