/* Architectures: functions that build a language model's graph from its configuration and weights.
 * To add one: docs/adding-an-architecture.md. */
#ifndef TRM_MODEL_ARCHITECTURES_ARCHITECTURE_H
#define TRM_MODEL_ARCHITECTURES_ARCHITECTURE_H

#include "model/language/language.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_lm_build trm_lm_build; /* blocks.h: what the functions build with */

typedef struct trm_architecture {
    const char *name; /* "llama" */
    const char *const
        *huggingface;        /* config.json's "architectures" that it serves, NULL-terminated */
    const char *const *gguf; /* general.architecture, likewise; NULL: none */
    bool encoder;
    trm_status (*build)(trm_lm_build *b);
} trm_architecture;

const trm_architecture *trm_architecture_find(const char *source_name, bool gguf); /* NULL: none */
const trm_architecture *trm_architecture_named(const char *name);
/* "LlamaForCausalLM, Qwen2ForCausalLM, ..." for messages; static. */
const char *trm_architecture_list(bool gguf);

/* The graph of `c` over `weights`, whose files it references; inputs and outputs as
 * trm_language_open has them. options NULL: none; of them context (for scalings of rotary positions
 * that depend on it) and dtype. BAD_FILE: tensors that do not fit; UNSUPPORTED: the architecture.
 */
TRM_MUST_USE trm_status trm_architecture_build(const trm_lm_config *c, const trm_weights *weights,
                                               const trm_language_options *options,
                                               trm_graph **graph_out);

#ifdef __cplusplus
}
#endif
#endif
