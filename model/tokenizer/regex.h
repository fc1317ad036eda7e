/* Regular expressions of tokenizer files: Oniguruma's Ruby dialect, which the `tokenizers` library
 * uses, run by PCRE2. Patterns and texts may be hostile: what takes too long is an error. */
#ifndef TRM_MODEL_TOKENIZER_REGEX_H
#define TRM_MODEL_TOKENIZER_REGEX_H

#include "model/tokenizer/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_regex trmi_regex; /* read-only once made, shared */
/* UNSUPPORTED: what the translation does not know, or PCRE2 does not compile. */
TRM_MUST_USE trm_status trmi_regex_create(const char *pattern, size_t bytes,
                                          trmi_regex **regex_out);
void trmi_regex_destroy(trmi_regex *r);

/* What one search needs beside the pattern; one owner, for any number of patterns. */
typedef struct trmi_matcher trmi_matcher;
TRM_MUST_USE trm_status trmi_matcher_create(trmi_matcher **matcher_out);
void trmi_matcher_destroy(trmi_matcher *m);
/* The first match at or after `from` in UTF-8 text. INVALID_ARG: it took too long. */
TRM_MUST_USE trm_status trmi_regex_find(const trmi_regex *r, trmi_matcher *m, const char *text,
                                        size_t count, size_t from, bool *found_out,
                                        size_t *start_out, size_t *end_out);

/* The pattern in PCRE2's syntax; for regex.c and its test. */
TRM_MUST_USE trm_status trmi_regex_translate(const char *pattern, size_t bytes, trmi_buf *out);

#ifdef __cplusplus
}
#endif
#endif
