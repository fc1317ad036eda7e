/* What the architectures' functions build with: weights by role, and the blocks that models share.
 *
 * A family of models has one table of names for its Hugging Face checkpoints and one for GGUF; the
 * blocks ask for a role ("the query projection of this layer") and check its shape against the
 * configuration. Every function adds nodes to the graph and returns the value they make. */
#ifndef TRM_MODEL_ARCHITECTURES_BLOCKS_H
#define TRM_MODEL_ARCHITECTURES_BLOCKS_H

#include "model/architectures/architecture.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_role {
    TRMI_EMBED,
    TRMI_EMBED_POSITION,
    TRMI_EMBED_TYPE,
    TRMI_EMBED_NORM,
    TRMI_HEAD,
    TRMI_FINAL_NORM,
    TRMI_ATTN_NORM, /* before attention; of post-norm models: after it */
    TRMI_Q,
    TRMI_K,
    TRMI_V,
    TRMI_QKV, /* the three in one, rows of q first */
    TRMI_Q_NORM,
    TRMI_K_NORM,
    TRMI_O,
    TRMI_ATTN_POST_NORM, /* on what attention adds (Gemma) */
    TRMI_FFN_NORM,
    TRMI_GATE,
    TRMI_UP,
    TRMI_GATE_UP, /* both in one, rows of gate first */
    TRMI_DOWN,
    TRMI_FFN_POST_NORM,
    TRMI_ROUTER,
    TRMI_EXPERT_GATE, /* with a second star: a tensor an expert; else [E, ..] */
    TRMI_EXPERT_UP,
    TRMI_EXPERT_DOWN,
    TRMI_POOLER, /* classification: a dense layer with tanh, then the classifier */
    TRMI_CLASSIFIER,
    TRMI_ROLE_COUNT
} trmi_role;

/* Names without ".weight" and ".bias". The first '*' is the layer's number, the second the
 * expert's. A name that begins with '/' stands at the top; others come after the prefix. NULL: the
 * family has no such tensor. */
typedef struct trmi_names {
    const char *const *prefixes; /* NULL-terminated: the first under which EMBED is found */
    const char *of[TRMI_ROLE_COUNT];
} trmi_names;

typedef enum trmi_bias {
    TRMI_BIAS_NONE, /* GGUF: as MAYBE, since its configuration does not say */
    TRMI_BIAS_MAYBE,
    TRMI_BIAS_WANTED
} trmi_bias;

/* One owner: the thread that builds. */
struct trm_lm_build {
    const trm_lm_config *c;
    const trm_weights *weights;
    const trm_language_options *options;
    trm_graph *g;
    const trmi_names *names; /* set by the family's function */
    const char *prefix;
    int64_t layer;               /* the layer that is being built; -1: none */
    bool layer_norm, transposed; /* norms have a mean and a bias; weights are [inputs, outputs] */
    int tokens, positions, step, rows, token_types; /* inputs; TRM_NO_VALUE: not an input */
    int embedding;                                  /* the table, for tied heads */
    int rope[2];                                    /* frequencies: [local] */
    float rope_scale[2];
    const trm_weight **sorted; /* all weights, by address */
    bool *used;                /* of sorted[i] */
    int output;                /* set by the family's function */
};

/* Settles names and prefix: HF or GGUF by the configuration. */
void trmi_arch_names(trm_lm_build *b, const trmi_names *huggingface, const trmi_names *gguf);
/* NULL: the family has no such name, or the file no such tensor. suffix: ".weight", ".bias" */
const trm_weight *trmi_arch_find(trm_lm_build *b, trmi_role role, int64_t expert,
                                 const char *suffix);
void trmi_arch_use(trm_lm_build *b, const trm_weight *w); /* it is not reported as unused */
/* The same; BAD_FILE where it is missing. */
TRM_MUST_USE trm_status trmi_arch_want(trm_lm_build *b, trmi_role role, int64_t expert,
                                       const char *suffix, const trm_weight **weight_out);
/* BAD_FILE unless the tensor has these dims. */
TRM_MUST_USE trm_status trmi_arch_shape(const trm_weight *w, int rank, const int64_t *dims);
/* The tensor as a constant of the graph, only rows [first, first + count) of its dim 0 (count 0:
 * all). */
TRM_MUST_USE trm_status trmi_arch_constant(trm_lm_build *b, const trm_weight *w, int64_t first,
                                           int64_t count, int *value_out);
/* What a product with weights of this type rounds its activations to, by the options ("bf16",
 * "f16"); NULL: nothing. */
const char *trmi_arch_rounds_to(const trm_lm_build *b, trm_dtype weight);
/* A vector [n] of it as F32, elements [first, first + count). */
TRM_MUST_USE trm_status trmi_arch_vector(trm_lm_build *b, const trm_weight *w, int64_t n,
                                         int64_t first, int64_t count, int *value_out);

/* Attributes of a new node, for trmi_arch_node. */
typedef struct trmi_attr {
    const char *name; /* NULL: the end */
    const char *text; /* NULL: a number */
    int64_t integer;
    float real;
    bool is_real;
} trmi_attr;
/* A node "layers.<layer>.<what>" (the layer's part only inside one) with one F32 output of `width`
 * columns and as many rows as its first input; attrs NULL: none. */
TRM_MUST_USE trm_status trmi_arch_node(trm_lm_build *b, trm_op op, const char *what,
                                       const int *inputs, int input_count, int64_t width,
                                       const trmi_attr *attrs, int *value_out);

typedef struct trmi_linear {
    trmi_role role;
    int64_t outputs, inputs; /* of the tensor */
    int64_t first, count;    /* only these outputs of it; count 0: all */
    trmi_bias bias;
    int64_t grain;  /* > 0: ranks may share the inputs, cut at multiples of it: the sum is a tree */
    int64_t expert; /* of roles that have a tensor for each */
} trmi_linear;
TRM_MUST_USE trm_status trmi_arch_linear(trm_lm_build *b, int x, const trmi_linear *l,
                                         int *value_out);
/* The `unit` of a sum over `inputs`, 0: none. */
int64_t trmi_arch_unit(int64_t inputs, trm_dtype dtype, int64_t grain);

/* Norm of groups of `group` columns of [T, width]. */
TRM_MUST_USE trm_status trmi_arch_norm(trm_lm_build *b, int x, trmi_role role, int64_t width,
                                       int64_t group, const char *what, int *value_out);
TRM_MUST_USE trm_status trmi_arch_add(trm_lm_build *b, int x, int y, const char *what,
                                      int *value_out);
TRM_MUST_USE trm_status trmi_arch_act(trm_lm_build *b, int x, int up, const char *act,
                                      int64_t width, const char *what, int *value_out);
/* Rows of a table [rows, hidden] by `ids`: all of it from row `first` on. */
TRM_MUST_USE trm_status trmi_arch_embed(trm_lm_build *b, int ids, trmi_role role, int64_t rows,
                                        int64_t first, float scale, const char *what,
                                        int *value_out);
/* Projections, norms of heads, rotary positions, attention and the output projection. */
TRM_MUST_USE trm_status trmi_arch_attention(trm_lm_build *b, int x, int *value_out);
/* Down(act(gate) * up), or down(act(up)) where the family has no gate. */
TRM_MUST_USE trm_status trmi_arch_feed_forward(trm_lm_build *b, int x, int *value_out);
TRM_MUST_USE trm_status trmi_arch_experts(trm_lm_build *b, int x, int *value_out); /* moe.c */
/* The wanted rows, final norm, head and soft cap: b->output. */
TRM_MUST_USE trm_status trmi_arch_head(trm_lm_build *b, int x);
/* A whole pre-norm decoder: embedding, layers, head. */
TRM_MUST_USE trm_status trmi_arch_decoder(trm_lm_build *b);

static inline int64_t trmi_arch_rotary(const trm_lm_config *c)
{
    return c->rotary_dim > 0 ? c->rotary_dim : c->head_dim;
}

/* Frequencies [rotary / 2] as transformers' modeling_rope_utils computes them, for a context of
 * `context` positions; and what cos and sin are multiplied by. local: of windowed layers with a
 * base of their own, which are not scaled. BAD_FILE: parameters that make no sense. */
TRM_MUST_USE trm_status trmi_rope_frequencies(const trm_lm_config *c, int64_t context, bool local,
                                              float *frequencies, float *scale_out);
/* The same as a constant of the graph, made once. */
TRM_MUST_USE trm_status trmi_arch_rope_table(trm_lm_build *b, bool local, int *value_out,
                                             float *scale_out);

/* Rows of the table (table.c). */
trm_status trmi_llama_build(trm_lm_build *b);
trm_status trmi_mixtral_build(trm_lm_build *b);
trm_status trmi_qwen3moe_build(trm_lm_build *b);
trm_status trmi_gemma_build(trm_lm_build *b);
trm_status trmi_gemma2_build(trm_lm_build *b);
trm_status trmi_gemma3_build(trm_lm_build *b);
trm_status trmi_phi3_build(trm_lm_build *b);
trm_status trmi_gpt2_build(trm_lm_build *b);
trm_status trmi_starcoder2_build(trm_lm_build *b);
trm_status trmi_bert_build(trm_lm_build *b);
trm_status trmi_roberta_build(trm_lm_build *b);

#ifdef __cplusplus
}
#endif
#endif
