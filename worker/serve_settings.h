/* The settings of a model that is served: the entry of a serving configuration (docs/serving.md),
 * and what travels to replicas as the JSON object of LOAD: one table for both. */
#ifndef TRM_WORKER_SERVE_SETTINGS_H
#define TRM_WORKER_SERVE_SETTINGS_H

#include "base/config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_serve_settings {
    /* where it is and what it is called: of the configuration's entry, not of LOAD */
    const char *name, *path, *group;
    int64_t version;
    bool load;
    /* all models */
    int dtype;         /* auto|fp32|bf16|fp16 */
    int64_t max_batch; /* records, or sequences at once; 0: the kind's default */
    int64_t queue;     /* requests that a replica takes at once; 0: by max_batch */
    int warmup;        /* auto|none: whether a model is run once before it is ready */
    /* tensor models */
    bool batching;
    int64_t max_delay_us;
    int64_t max_delay_ms;      /* the same as a plain number; -1: not given */
    trm_config_list preferred; /* int64_t */
    const trm_config_node *preprocess, *labels, *output, *activation, *top_k;
    /* language models */
    int64_t context, kv_cache, step_tokens, decode_budget_us;
    int kv_dtype; /* auto|fp32|fp16|bf16|i8 */
    bool prefix_cache;
    const char *chat_template;
    int tool_format;                                      /* auto|hermes|llama|mistral|json|none */
    double temperature, top_p, min_p, repetition_penalty; /* negative: the model's */
    int64_t top_k_sampling, max_tokens;                   /* -1: not given */
} trm_serve_settings;

extern const trm_config_section trm_serve_settings_section;

/* The word of that choice. */
const char *trm_serve_tool_format(const trm_serve_settings *s);

/* Of LOAD's JSON; `name` is for messages. The config owns what *settings_out points to. CONFIG. */
TRM_MUST_USE trm_status trm_serve_settings_parse(const char *json, const char *name,
                                                 trm_config **config_out,
                                                 const trm_serve_settings **settings_out);

/* A node of a configuration as compact JSON text, from trm_malloc: plain scalars that are JSON
 * numbers or words stay bare. `only`: NULL, or the keys of a map to keep. NULL: no memory. */
char *trm_config_node_json(const trm_config_node *n, bool (*only)(const char *key));

#ifdef __cplusplus
}
#endif
#endif
