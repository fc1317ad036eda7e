/* JSON written straight into a growing buffer: for lines that are made a token at a time, where a
 * tree of values would cost more than the token. One owner. */
#ifndef TRM_WORKER_LANGUAGE_JSON_OUT_H
#define TRM_WORKER_LANGUAGE_JSON_OUT_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Zeroed: empty. An addition that finds no memory sets `failed`; later ones do nothing. */
typedef struct trmi_out {
    char *data;
    size_t bytes, room;
    bool failed;
} trmi_out;
void trmi_out_fini(trmi_out *o);
bool trmi_out_reserve(trmi_out *o, size_t more); /* room for `more` bytes behind the rest */
void trmi_out_add(trmi_out *o, const char *data, size_t bytes);
void trmi_out_text(trmi_out *o, const char *text);
void trmi_out_int(trmi_out *o, int64_t value);
void trmi_out_real(trmi_out *o, double value); /* as JSON_REAL_PRECISION(9); finite */
/* What stands between the quotes of a JSON string; bytes that are not UTF-8 come out as U+FFFD. */
void trmi_out_escaped(trmi_out *o, const char *text, size_t bytes);
bool trmi_out_is_utf8(const char *text, size_t bytes);
void trmi_out_quoted(trmi_out *o, const char *text);
/* A value as compact JSON; NULL: "null". */
void trmi_out_json(trmi_out *o, const json_t *value);
void trmi_out_ids(trmi_out *o, const int32_t *ids, size_t count);

#ifdef __cplusplus
}
#endif
#endif
