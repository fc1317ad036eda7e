/* What serve_language.c, serve_text.c and serve_describe.c share. */
#ifndef TRM_WORKER_LANGUAGE_SERVE_IMPL_H
#define TRM_WORKER_LANGUAGE_SERVE_IMPL_H

#include "worker/language/serve_language.h"

/* Answers of the two endpoints that run nothing. */
TRM_MUST_USE trm_status trmi_serve_tokenize(const trm_language *l, int context, const json_t *body,
                                            const trm_lm_request_defaults *defaults,
                                            json_t **answer_out);
TRM_MUST_USE trm_status trmi_serve_detokenize(const trm_language *l, const json_t *body,
                                              json_t **answer_out);

void trmi_serve_stats(const trm_lm_model *model, trm_wire_model_stats *out);
json_t *trmi_serve_metadata(const trm_lm_model *model);

#endif
