/* Llama and what is built like it: Mistral (sliding window), Qwen2 (biases of q, k and v), Qwen3
 * (norms of each head's query and key); Mixtral and Qwen3-MoE are in moe.c.
 *
 * GGUF's converter reorders the rows of q and k of "llama" files so that the rotary pairs are
 * neighbours; those of Qwen's are as in the checkpoint. */
#include "model/architectures/blocks.h"

static const char *const prefixes[] = {"model.", "", NULL};

static const trmi_names huggingface = {
    .prefixes = prefixes,
    .of = {[TRMI_EMBED] = "embed_tokens",
           [TRMI_HEAD] = "/lm_head",
           [TRMI_FINAL_NORM] = "norm",
           [TRMI_ATTN_NORM] = "layers.*.input_layernorm",
           [TRMI_Q] = "layers.*.self_attn.q_proj",
           [TRMI_K] = "layers.*.self_attn.k_proj",
           [TRMI_V] = "layers.*.self_attn.v_proj",
           [TRMI_Q_NORM] = "layers.*.self_attn.q_norm",
           [TRMI_K_NORM] = "layers.*.self_attn.k_norm",
           [TRMI_O] = "layers.*.self_attn.o_proj",
           [TRMI_FFN_NORM] = "layers.*.post_attention_layernorm",
           [TRMI_GATE] = "layers.*.mlp.gate_proj",
           [TRMI_UP] = "layers.*.mlp.up_proj",
           [TRMI_DOWN] = "layers.*.mlp.down_proj"},
};

/* The experts' names are there for "llama" files that are Mixtrals. */
static const trmi_names gguf = {
    .prefixes = NULL,
    .of = {[TRMI_EMBED] = "token_embd",
           [TRMI_HEAD] = "output",
           [TRMI_FINAL_NORM] = "output_norm",
           [TRMI_ATTN_NORM] = "blk.*.attn_norm",
           [TRMI_Q] = "blk.*.attn_q",
           [TRMI_K] = "blk.*.attn_k",
           [TRMI_V] = "blk.*.attn_v",
           [TRMI_Q_NORM] = "blk.*.attn_q_norm",
           [TRMI_K_NORM] = "blk.*.attn_k_norm",
           [TRMI_O] = "blk.*.attn_output",
           [TRMI_FFN_NORM] = "blk.*.ffn_norm",
           [TRMI_GATE] = "blk.*.ffn_gate",
           [TRMI_UP] = "blk.*.ffn_up",
           [TRMI_DOWN] = "blk.*.ffn_down",
           [TRMI_ROUTER] = "blk.*.ffn_gate_inp",
           [TRMI_EXPERT_GATE] = "blk.*.ffn_gate_exps",
           [TRMI_EXPERT_UP] = "blk.*.ffn_up_exps",
           [TRMI_EXPERT_DOWN] = "blk.*.ffn_down_exps"},
};

trm_status trmi_llama_build(trm_lm_build *b)
{
    trmi_arch_names(b, &huggingface, &gguf);
    return trmi_arch_decoder(b);
}
