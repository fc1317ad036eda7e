/* StarCoder2: rotary positions and a window as Mistral has them, norms with mean and bias, biases
 * everywhere, no gate. */
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
           [TRMI_O] = "layers.*.self_attn.o_proj",
           [TRMI_FFN_NORM] = "layers.*.post_attention_layernorm",
           [TRMI_UP] = "layers.*.mlp.c_fc",
           [TRMI_DOWN] = "layers.*.mlp.c_proj"},
};

static const trmi_names gguf = {
    .prefixes = NULL,
    .of = {[TRMI_EMBED] = "token_embd",
           [TRMI_HEAD] = "output",
           [TRMI_FINAL_NORM] = "output_norm",
           [TRMI_ATTN_NORM] = "blk.*.attn_norm",
           [TRMI_Q] = "blk.*.attn_q",
           [TRMI_K] = "blk.*.attn_k",
           [TRMI_V] = "blk.*.attn_v",
           [TRMI_O] = "blk.*.attn_output",
           [TRMI_FFN_NORM] = "blk.*.ffn_norm",
           [TRMI_UP] = "blk.*.ffn_up",
           [TRMI_DOWN] = "blk.*.ffn_down"},
};

trm_status trmi_starcoder2_build(trm_lm_build *b)
{
    b->layer_norm = true;
    trmi_arch_names(b, &huggingface, &gguf);
    return trmi_arch_decoder(b);
}
