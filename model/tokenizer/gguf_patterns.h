/* The pre-tokenizers that GGUF files name. */
#ifndef TRM_MODEL_TOKENIZER_GGUF_PATTERNS_H
#define TRM_MODEL_TOKENIZER_GGUF_PATTERNS_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_GGUF_PATTERNS_MAX 6
typedef struct trmi_gguf_pre {
    const char *names; /* blanks around each */
    const char
        *patterns[TRMI_GGUF_PATTERNS_MAX]; /* one after the other, each isolates its matches */
    bool ignore_merges, add_bos, add_sep;
} trmi_gguf_pre;
/* NULL: not a name we know. */
const trmi_gguf_pre *trmi_gguf_pre_find(const char *name);
/* All names, for messages. */
const char *trmi_gguf_pre_names(char *text, int bytes);

#ifdef __cplusplus
}
#endif
#endif
