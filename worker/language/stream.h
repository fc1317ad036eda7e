/* OpenAI's streams: chunk objects, one a line, made as tokens come. One object a request; its
 * choices are interleaved, in an order that does not depend on when their tokens came: a request
 * that is run again, elsewhere or beside others, gives the same lines. (But for cached_tokens in
 * the usage, which is the last line and says what happened to be in the cache.) */
#ifndef TRM_WORKER_LANGUAGE_STREAM_H
#define TRM_WORKER_LANGUAGE_STREAM_H

#include "worker/language/request.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_lm_stream trm_lm_stream;
/* `r` and `l` outlive it. id: without the prefix. UNSUPPORTED: what is not done in streams (log-
 * probabilities of prompts, unless echoed with a single choice). */
TRM_MUST_USE trm_status trm_lm_stream_create(const trm_lm_request *r, const trm_language *l,
                                             const char *id, int64_t created,
                                             trm_lm_stream **stream_out);
void trm_lm_stream_destroy(trm_lm_stream *s); /* takes NULL */
/* From the generator's callbacks; choice: prompt * choices + choice. The first of a choice also
 * says its role (chat). Tool calls become deltas of their own. */
void trm_lm_stream_token(trm_lm_stream *s, int choice, const trm_generated *t);
/* Its last chunk, with the finish reason; after the last choice, where asked for, usage. A choice
 * that failed has none: the request fails. */
void trm_lm_stream_end(trm_lm_stream *s, int choice, const trm_generation_end *e);
/* Lines that have not been taken, whole ones; valid until the next call on `s`. *tokens_out: that
 * are in them or lead up to them. NO_MEMORY: a line was lost, the request must fail. */
TRM_MUST_USE trm_status trm_lm_stream_take(trm_lm_stream *s, const char **lines_out,
                                           size_t *bytes_out, uint32_t *tokens_out);

#ifdef __cplusplus
}
#endif
#endif
