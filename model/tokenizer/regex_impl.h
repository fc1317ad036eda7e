/* Reading a pattern in Oniguruma's dialect: what regex_translate.c and regex_class.c share. */
#ifndef TRM_MODEL_TOKENIZER_REGEX_IMPL_H
#define TRM_MODEL_TOKENIZER_REGEX_IMPL_H

#include "model/tokenizer/regex.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_pattern {
    const char *all, *at, *end; /* UTF-8 */
} trmi_pattern;
/* UNSUPPORTED, with the pattern, what is wrong and where. */
TRM_MUST_USE trm_status trmi_pattern_refuse(const trmi_pattern *r, const char *what);
bool trmi_pattern_starts(const trmi_pattern *r, const char *text);
void trmi_pattern_put(trmi_buf *out, const char *text);
/* A character that stands for itself, in or out of a class. */
void trmi_pattern_put_char(trmi_buf *out, uint32_t c);
/* An escape that is one character, behind its backslash; *is_char_out false: it is something else,
 * and nothing was read. */
TRM_MUST_USE trm_status trmi_pattern_char(trmi_pattern *r, bool in_class, uint32_t *c_out,
                                          bool *is_char_out);
/* From '[' to behind its ']', as an expression for one character. */
TRM_MUST_USE trm_status trmi_pattern_class(trmi_pattern *r, trmi_buf *out);
/* An escape that is a set of characters, behind its backslash, in the same way. */
TRM_MUST_USE trm_status trmi_pattern_set(trmi_pattern *r, trmi_buf *out);
/* \b, or \B. */
void trmi_pattern_put_edge(trmi_buf *out, bool is_edge);

#ifdef __cplusplus
}
#endif
#endif
