/* Phi-3 and Phi-4-mini: q, k and v are one tensor, gate and up another; LongRoPE; a window; the
 * later ones turn only a part of each head. */
#include "model/architectures/blocks.h"

static const char *const prefixes[] = {"model.", "", NULL};

static const trmi_names huggingface = {
    .prefixes = prefixes,
    .of = {[TRMI_EMBED] = "embed_tokens",
           [TRMI_HEAD] = "/lm_head",
           [TRMI_FINAL_NORM] = "norm",
           [TRMI_ATTN_NORM] = "layers.*.input_layernorm",
           [TRMI_QKV] = "layers.*.self_attn.qkv_proj",
           [TRMI_O] = "layers.*.self_attn.o_proj",
           [TRMI_FFN_NORM] = "layers.*.post_attention_layernorm",
           [TRMI_GATE_UP] = "layers.*.mlp.gate_up_proj",
           [TRMI_DOWN] = "layers.*.mlp.down_proj"},
};

static const trmi_names gguf = {
    .prefixes = NULL,
    .of = {[TRMI_EMBED] = "token_embd",
           [TRMI_HEAD] = "output",
           [TRMI_FINAL_NORM] = "output_norm",
           [TRMI_ATTN_NORM] = "blk.*.attn_norm",
           [TRMI_QKV] = "blk.*.attn_qkv",
           [TRMI_O] = "blk.*.attn_output",
           [TRMI_FFN_NORM] = "blk.*.ffn_norm",
           [TRMI_GATE_UP] = "blk.*.ffn_up",
           [TRMI_DOWN] = "blk.*.ffn_down"},
};

trm_status trmi_phi3_build(trm_lm_build *b)
{
    trmi_arch_names(b, &huggingface, &gguf);
    return trmi_arch_decoder(b);
}
