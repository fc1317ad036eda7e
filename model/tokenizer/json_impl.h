/* Reading tokenizer.json: what its files share. */
#ifndef TRM_MODEL_TOKENIZER_JSON_IMPL_H
#define TRM_MODEL_TOKENIZER_JSON_IMPL_H

#include "model/tokenizer/tokenizer_impl.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The member of that name, NULL if there is none or it is null. */
const json_t *trmi_json_get(const json_t *object, const char *name);
/* `otherwise` where it is missing or no boolean. */
bool trmi_json_bool(const json_t *object, const char *name, bool otherwise);
/* Kept in t's arena. BAD_FILE: not a string; `otherwise` (NULL: BAD_FILE) where it is missing. */
TRM_MUST_USE trm_status trmi_json_text(trm_tokenizer *t, const json_t *object, const char *name,
                                       const char *otherwise, trm_text *text_out);
/* A whole number from 0 to `most`; `otherwise` where it is missing. */
TRM_MUST_USE trm_status trmi_json_count(const json_t *object, const char *name, int64_t otherwise,
                                        int64_t most, int64_t *count_out);
/* One character: BAD_FILE if it is not one. */
TRM_MUST_USE trm_status trmi_json_char(const json_t *object, const char *name,
                                       const char *otherwise, uint32_t *char_out);
/* "type" of a component, "" if it has none. */
const char *trmi_json_type(const json_t *object);
/* {"String": s} or {"Regex": s}: one of *regex_out and *text_out is set. */
TRM_MUST_USE trm_status trmi_json_pattern(trm_tokenizer *t, const json_t *object,
                                          trmi_regex **regex_out, trm_text *text_out);

TRM_MUST_USE trm_status trmi_json_model(trm_tokenizer *t, const json_t *model);
TRM_MUST_USE trm_status trmi_json_added(trm_tokenizer *t, const json_t *added);
TRM_MUST_USE trm_status trmi_json_normalizer(trm_tokenizer *t, const json_t *normalizer);
TRM_MUST_USE trm_status trmi_json_pretokenizer(trm_tokenizer *t, const json_t *pretokenizer);
TRM_MUST_USE trm_status trmi_json_post(trm_tokenizer *t, const json_t *post);
TRM_MUST_USE trm_status trmi_json_decoder(trm_tokenizer *t, const json_t *decoder);

#ifdef __cplusplus
}
#endif
#endif
