/* Between the files that read config.json. */
#ifndef TRM_MODEL_LANGUAGE_CONFIG_IMPL_H
#define TRM_MODEL_LANGUAGE_CONFIG_IMPL_H

#include "model/language/language_impl.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_HF_SIZE_MAX ((int64_t)1 << 40) /* exact limits: trmi_lm_config_finish */

/* Which products have a bias. */
typedef enum trmi_hf_bias {
    TRMI_BIAS_BY_NONE,
    TRMI_BIAS_BY_KEY, /* "attention_bias": all four of attention */
    TRMI_BIAS_BY_QKV, /* Qwen 2 */
    TRMI_BIAS_BY_ALL  /* the feed-forward's too */
} trmi_hf_bias;

typedef struct trmi_hf_keys {
    const char *layers, *hidden, *feed_forward, *heads, *context, *epsilon, *activation;
} trmi_hf_keys;

typedef struct trmi_hf_source {
    const char *name;
    json_t *root;  /* the text model's settings */
    json_t *outer; /* the file; another object where root is its "text_config" */
} trmi_hf_source;

typedef struct trmi_hf_family {
    const char *prefix;     /* class: prefix + "ForCausalLM", "Model", ... */
    const char *model_type; /* of a file without "architectures", whose class is then ... */
    const char *class_name;
    const trmi_hf_keys *keys;
    int64_t layers, hidden, feed_forward, heads, kv_heads; /* feed_forward 0: 4 * hidden; kv_heads
                                                               0: heads */
    int64_t head_dim;                                      /* 0: hidden / heads */
    int64_t vocabulary, context;
    double epsilon;
    const char *activation;
    bool tied;
    trmi_hf_bias bias;
    int64_t window; /* 0: none */
    double theta;   /* 0: no rotary embeddings */
    trmi_rope_family rope;
    int bos, eos, pad;
    trm_status (*more)(const trmi_hf_source *s, trm_lm_config *c); /* NULL: nothing */
} trmi_hf_family;

/* By class name, or by "model_type"; NULL: none. */
const trmi_hf_family *trmi_hf_family_of(const char *class_name);
const trmi_hf_family *trmi_hf_family_typed(const char *model_type);

bool trmi_hf_null(const trmi_hf_source *s, const char *key); /* there, and null */
TRM_MUST_USE trm_status trmi_hf_int(const trmi_hf_source *s, const char *key, int64_t low,
                                    int64_t *out);

/* ---- config_packing.c ---- */
/* How the checkpoint packs quantised weights; UNSUPPORTED names method and setting. */
TRM_MUST_USE trm_status trmi_hf_packing(const trmi_hf_source *s, trm_lm_config *c);

/* ---- config_more.c: `more` of the families ---- */
TRM_MUST_USE trm_status trmi_hf_more_llama(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_mixtral(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_qwen2(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_qwen3(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_qwen3_moe(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_gemma1(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_gemma2(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_gemma3(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_phi3(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_gpt2(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_starcoder2(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_bert(const trmi_hf_source *s, trm_lm_config *c);
TRM_MUST_USE trm_status trmi_hf_more_roberta(const trmi_hf_source *s, trm_lm_config *c);

/* ---- config_generation.c ---- */
/* Ids of an object: bos, pad, eos. Call again for one that comes before it. */
TRM_MUST_USE trm_status trmi_lm_read_ids(const char *name, json_t *root, trm_lm_config *c);
/* generation_config.json beside the config.json at `name`. */
TRM_MUST_USE trm_status trmi_lm_read_generation(const char *name, const char *text, size_t bytes,
                                                trm_lm_config *c);

#ifdef __cplusplus
}
#endif
#endif
