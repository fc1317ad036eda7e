/* Language models as a user hands them over: a Hugging Face folder (config.json, safetensors) or a
 * GGUF file (or the first of a split one). Both become one configuration, one set of named weights
 * that stay in their mapped files, and one graph built by the architecture's function. */
#ifndef TRM_MODEL_LANGUAGE_LANGUAGE_H
#define TRM_MODEL_LANGUAGE_LANGUAGE_H

#include "model/graph.h"
#include "model/template/template.h"
#include "model/tokenizer/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- weights by name ---- */
/* Tensors of one or several mapped files. Names are the file's own
 * ("model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"); dims outermost first (GGUF's are
 * turned round). Read-only once opened. */
typedef struct trm_weights trm_weights;
typedef struct trm_weight {
    const char *name;
    trm_tensor desc; /* data: the mapped bytes, maybe misaligned */
    bool fp8;        /* desc is U8, and its bytes are e4m3 numbers */
    trm_file *file;
    uint64_t offset; /* in the file */
} trm_weight;
/* A .safetensors file, or a folder: model.safetensors, or model.safetensors.index.json with its
 * shards. Every tensor's dtype, shape, and byte range are checked: in the file, gapless order not
 * needed, no overlap, no duplicate names. */
TRM_MUST_USE trm_status trm_weights_open_safetensors(const char *path, trm_weights **weights_out);
void trm_weights_close(trm_weights *w); /* takes NULL */
size_t trm_weights_count(const trm_weights *w);
const trm_weight *trm_weights_at(const trm_weights *w, size_t i);
const trm_weight *trm_weights_find(const trm_weights *w, const char *name); /* NULL: none */

/* ---- GGUF ---- */
typedef struct trm_gguf trm_gguf;
typedef enum trm_gguf_kind {
    TRM_GGUF_U8,
    TRM_GGUF_I8,
    TRM_GGUF_U16,
    TRM_GGUF_I16,
    TRM_GGUF_U32,
    TRM_GGUF_I32,
    TRM_GGUF_F32,
    TRM_GGUF_BOOL,
    TRM_GGUF_STRING,
    TRM_GGUF_ARRAY,
    TRM_GGUF_U64,
    TRM_GGUF_I64,
    TRM_GGUF_F64
} trm_gguf_kind;
/* Version 2 and 3, little endian; a split model ("-00001-of-00003.gguf") opens all its files. */
TRM_MUST_USE trm_status trm_gguf_open(const char *path, trm_gguf **gguf_out);
void trm_gguf_close(trm_gguf *g);
const trm_weights *trm_gguf_weights(const trm_gguf *g);
/* Metadata. false: absent or of another kind. Numbers of any integer kind convert where they fit.
 */
bool trm_gguf_int(const trm_gguf *g, const char *key, int64_t *value_out);
bool trm_gguf_float(const trm_gguf *g, const char *key, double *value_out);
bool trm_gguf_bool(const trm_gguf *g, const char *key, bool *value_out);
bool trm_gguf_text(const trm_gguf *g, const char *key, trm_text *text_out); /* borrowed */
/* Arrays: count and kind of elements; and element i as a number. */
bool trm_gguf_array(const trm_gguf *g, const char *key, trm_gguf_kind *kind_out, size_t *count_out);
bool trm_gguf_array_int(const trm_gguf *g, const char *key, size_t i, int64_t *value_out);
/* Whole arrays, from trm_malloc. */
TRM_MUST_USE trm_status trm_gguf_texts(const trm_gguf *g, const char *key, trm_text **texts_out,
                                       size_t *count_out);
TRM_MUST_USE trm_status trm_gguf_floats(const trm_gguf *g, const char *key, float **values_out,
                                        size_t *count_out);
TRM_MUST_USE trm_status trm_gguf_ints(const trm_gguf *g, const char *key, int32_t **values_out,
                                      size_t *count_out);
/* Key i, for `inspect` (NULL: past the end). */
const char *trm_gguf_key(const trm_gguf *g, size_t i);
/* The vocabulary and the tokenizer made of it. */
TRM_MUST_USE trm_status trm_gguf_tokenizer(const trm_gguf *g, trm_tokenizer **tokenizer_out);

/* ---- configuration ---- */
#define TRM_LM_LAYERS_MAX 1024
typedef enum trm_rope_scaling {
    TRM_ROPE_NONE,
    TRM_ROPE_LINEAR,
    TRM_ROPE_DYNAMIC,
    TRM_ROPE_YARN,
    TRM_ROPE_LONGROPE,
    TRM_ROPE_LLAMA3
} trm_rope_scaling;

/* How another library has stored quantised weights in safetensors (architectures/packed.h). */
typedef enum trm_lm_packing {
    TRM_LM_PACKING_NONE,
    TRM_LM_PACKING_GPTQ, /* qweight, qzeros, scales, g_idx */
    TRM_LM_PACKING_AWQ,  /* qweight, qzeros, scales */
    TRM_LM_PACKING_INTS, /* compressed-tensors: weight_packed, weight_scale */
    TRM_LM_PACKING_FP8   /* weight in e4m3, weight_scale or weight_scale_inv */
} trm_lm_packing;

/* What the architectures' functions build from. Fields that an architecture does not use are 0. */
typedef struct trm_lm_config {
    char architecture[64]; /* row of the table: "llama", "qwen3", "gemma3", "bert", ... */
    char source_name[64];  /* as the file calls it: "LlamaForCausalLM", "llama" */
    bool gguf; /* weights are named, and for some architectures ordered and scaled, as GGUF does it
                */
    /* context: tokens of a sequence; a table of positions has position_offset rows more */
    int64_t layers, hidden, feed_forward, heads, kv_heads, head_dim, vocabulary, context;
    float norm_epsilon;
    char activation[24]; /* "silu", "gelu", "gelu_tanh", "relu" */
    bool tied_embeddings;
    bool attention_bias, output_bias /* of o_proj */, mlp_bias;
    bool qk_norm;
    float attention_scale; /* 0: 1 / sqrt(head_dim) */
    float attention_softcap, logit_softcap;
    int64_t window; /* 0: none */
    /* Ask trm_lm_layer_windowed. Where layer_windowed is NULL, layer l is global (no window) where
     * global_every > 0 and (l + 1) % global_every == 0. */
    int64_t global_every;
    unsigned char *layer_windowed;       /* [layers] 1: windowed, or NULL; from trm_malloc */
    double rope_theta, rope_local_theta; /* local: of windowed layers (Gemma 3); 0: the same */
    int64_t rotary_dim;                  /* 0: head_dim */
    bool rope_interleaved;
    trm_rope_scaling rope_scaling;
    double rope_factor, rope_low_freq_factor, rope_high_freq_factor, rope_beta_fast, rope_beta_slow,
        rope_attention_factor /* 0: by the formula */, rope_mscale, rope_mscale_all_dim;
    int64_t rope_original_context;
    /* [rotary / 2] LongRoPE's factors, which divide the frequencies; from trm_malloc. A GGUF file's
     * rope_freqs.weight (Llama 3.1) is both of them, with rope_attention_factor 1. */
    double *rope_short, *rope_long;
    int64_t rope_factor_count;
    float embedding_scale;          /* 1; Gemma: sqrt(hidden) */
    float norm_offset;              /* Gemma from safetensors: 1 */
    trm_lm_packing packing;         /* of linear weights that have no plain ".weight" */
    int packing_bits, packing_zero; /* packing_zero: what is added to a stored zero point */
    int64_t packing_group;          /* features along K of a scale; 0: all of them */
    int64_t experts, experts_used, expert_feed_forward;
    bool experts_normalize;
    int64_t experts_every; /* a layer has experts where (l + 1) % experts_every == 0 (1) ... */
    /* encoders */
    int64_t token_types, position_offset /* RoBERTa: padding_idx + 1 */, labels;
    char pooling[8]; /* "mean", "cls", "last"; "": no embedding model */
    bool pooling_normalize;
    int64_t tokens_max; /* longer texts are cut to it (sentence-transformers' max_seq_length); 0:
                           the context */
    char **label_names; /* [labels] or NULL */
    /* generation: from generation_config.json, config.json, GGUF's metadata */
    int32_t bos, eos[16], pad; /* -1: none */
    int eos_count;
    /* negative: not given; temperature 0 where the file says do_sample: false */
    float default_temperature, default_top_p, default_repetition_penalty;
    int default_top_k;
} trm_lm_config;
/* config.json's text (and generation_config.json's, may be NULL). UNSUPPORTED: the architecture or
 * a setting (names it, lists what is supported); BAD_FILE: a value that makes no sense (zero heads,
 * head_dim * heads overflow ...): names the key. */
TRM_MUST_USE trm_status trm_lm_config_huggingface(const char *name, const char *config,
                                                  size_t config_bytes, const char *generation,
                                                  size_t generation_bytes,
                                                  trm_lm_config *config_out);
TRM_MUST_USE trm_status trm_lm_config_gguf(const trm_gguf *g, trm_lm_config *config_out);
void trm_lm_config_fini(trm_lm_config *c);
bool trm_lm_layer_windowed(const trm_lm_config *c, int64_t layer);
bool trm_lm_layer_has_experts(const trm_lm_config *c, int64_t layer);
/* The longest context that the settings allow: more than c->context where RoPE scaling stretches
 * it. */
int64_t trm_lm_context_max(const trm_lm_config *c);

/* ---- the package ---- */
typedef struct trm_language {
    char *path;
    bool gguf_file;
    trm_lm_config config;
    trm_gguf *gguf;           /* NULL: a folder */
    trm_weights *weights;     /* borrowed from gguf, or owned */
    trm_tokenizer *tokenizer; /* NULL: none was found, or not asked for */
    trm_template *chat;       /* NULL: the model has none, or one that is not understood, which was
                                 logged (compile chat_text for the reason) */
    char *chat_text;          /* its source; NULL: none */
    trm_template *chat_tools; /* for requests with tools ("tool_use"); NULL: chat is for them too */
    char *chat_tools_text;
    char *bos_text, *eos_text; /* what the template sees; may be NULL */
    bool encoder;              /* embeddings or classification instead of generation */
    int64_t context;           /* tokens of a sequence, by the options */
    trm_dtype dtype;           /* of the options */
    bool as_weights;           /* likewise */
    trm_graph *graph;          /* built; constants stay in the files */
} trm_language;

typedef struct trm_language_options {
    bool no_tokenizer; /* ranks that only compute */
    int64_t context; /* 0: the model's; more than the model's is INVALID_ARG unless its RoPE scaling
                        allows it */
    trm_dtype dtype; /* BF16: activations of products with bf16 and fp8 weights are rounded to bf16
                        (TrmLinear's act); NONE: fp32 activations */
    bool as_weights; /* instead: rounded to the weight's own type where that has 16 bits, to bf16
                        with fp8 (devices whose fast products want that) */
    const char *chat_template; /* a file's path instead of the model's own; NULL */
} trm_language_options;
/* Whether MODEL looks like a language model: a folder with config.json (unless all it holds is an
 * ONNX network), a .gguf or .safetensors file. Never fails. */
bool trm_language_is(const char *path);
/* Opens MODEL and builds the graph: inputs "tokens" [T] I32, "positions" [T] I32, "step" [1] I64,
 * "rows" [R] I32 (encoders: "step" [S], "token_types" [T] I32 where there are any, no rows);
 * output "logits" [R, V] F32 (encoders: "embeddings" [S, D] or "logits" [S, labels]). Missing and
 * misshapen tensors: BAD_FILE, says which tensor, what it has and what the config wants; tensors
 * that nothing uses are a warning. */
TRM_MUST_USE trm_status trm_language_open(const char *path, const trm_language_options *options,
                                          trm_language **language_out);
/* For a model opened without tokenizer: reads it, and the chat template, now. As trm_language_open.
 */
TRM_MUST_USE trm_status trm_language_read_text(trm_language *l, const char *chat_template);
void trm_language_close(trm_language *l); /* takes NULL */
/* A hash of what decides its numbers, as trm_package_identity: the weights' files, the
 * configuration and the options. The tokenizer and the chat template do not count. */
TRM_MUST_USE trm_status trm_language_identity(const trm_language *l, uint64_t *hash_out);

#ifdef __cplusplus
}
#endif
#endif
