/* Gemma 1, 2 and 3: embeddings scaled by sqrt(hidden), norms that multiply by 1 + weight (GGUF's
 * weights have the 1 already); 2 has norms on what attention and feed-forward add, soft caps, and a
 * window in every other layer; 3 has norms of each head's query and key, and five layers with a
 * window and frequencies of their own to one without. */
#include "model/architectures/blocks.h"

static const char *const prefixes[] = {"model.", "",
                                       "language_model.model.", /* with a vision tower */
                                       "model.language_model.", NULL};

#define COMMON                                                                                     \
    [TRMI_EMBED] = "embed_tokens", [TRMI_HEAD] = "/lm_head", [TRMI_FINAL_NORM] = "norm",           \
    [TRMI_ATTN_NORM] = "layers.*.input_layernorm", [TRMI_Q] = "layers.*.self_attn.q_proj",         \
    [TRMI_K] = "layers.*.self_attn.k_proj", [TRMI_V] = "layers.*.self_attn.v_proj",                \
    [TRMI_O] = "layers.*.self_attn.o_proj", [TRMI_GATE] = "layers.*.mlp.gate_proj",                \
    [TRMI_UP] = "layers.*.mlp.up_proj", [TRMI_DOWN] = "layers.*.mlp.down_proj"

#define COMMON_GGUF                                                                                \
    [TRMI_EMBED] = "token_embd", [TRMI_HEAD] = "output", [TRMI_FINAL_NORM] = "output_norm",        \
    [TRMI_ATTN_NORM] = "blk.*.attn_norm", [TRMI_Q] = "blk.*.attn_q", [TRMI_K] = "blk.*.attn_k",    \
    [TRMI_V] = "blk.*.attn_v", [TRMI_O] = "blk.*.attn_output", [TRMI_FFN_NORM] = "blk.*.ffn_norm", \
    [TRMI_GATE] = "blk.*.ffn_gate", [TRMI_UP] = "blk.*.ffn_up", [TRMI_DOWN] = "blk.*.ffn_down"

static const trmi_names gemma = {
    .prefixes = prefixes,
    .of = {COMMON, [TRMI_FFN_NORM] = "layers.*.post_attention_layernorm"},
};

static const trmi_names gemma_gguf = {.prefixes = NULL, .of = {COMMON_GGUF}};

static const trmi_names gemma2 = {
    .prefixes = prefixes,
    .of = {COMMON, [TRMI_Q_NORM] = "layers.*.self_attn.q_norm",
           [TRMI_K_NORM] = "layers.*.self_attn.k_norm",
           [TRMI_ATTN_POST_NORM] = "layers.*.post_attention_layernorm",
           [TRMI_FFN_NORM] = "layers.*.pre_feedforward_layernorm",
           [TRMI_FFN_POST_NORM] = "layers.*.post_feedforward_layernorm"},
};

static const trmi_names gemma2_gguf = {
    .prefixes = NULL,
    .of = {COMMON_GGUF, [TRMI_Q_NORM] = "blk.*.attn_q_norm", [TRMI_K_NORM] = "blk.*.attn_k_norm",
           [TRMI_ATTN_POST_NORM] = "blk.*.post_attention_norm",
           [TRMI_FFN_POST_NORM] = "blk.*.post_ffw_norm"},
};

trm_status trmi_gemma_build(trm_lm_build *b)
{
    trmi_arch_names(b, &gemma, &gemma_gguf);
    return trmi_arch_decoder(b);
}

trm_status trmi_gemma2_build(trm_lm_build *b)
{
    trmi_arch_names(b, &gemma2, &gemma2_gguf);
    return trmi_arch_decoder(b);
}

trm_status trmi_gemma3_build(trm_lm_build *b)
{
    return trmi_gemma2_build(b);
}
