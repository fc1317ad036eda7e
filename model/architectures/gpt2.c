/* GPT-2: learned positions, norms with mean and bias, biases everywhere, no gate. Its checkpoints
 * store linear layers as [inputs, outputs] (they were 1 x 1 convolutions), with q, k and v in one;
 * GGUF's converter turns them round. */
#include "model/architectures/blocks.h"

static const char *const prefixes[] = {"transformer.", "", NULL};

static const trmi_names huggingface = {
    .prefixes = prefixes,
    .of = {[TRMI_EMBED] = "wte",
           [TRMI_EMBED_POSITION] = "wpe",
           [TRMI_HEAD] = "/lm_head",
           [TRMI_FINAL_NORM] = "ln_f",
           [TRMI_ATTN_NORM] = "h.*.ln_1",
           [TRMI_QKV] = "h.*.attn.c_attn",
           [TRMI_O] = "h.*.attn.c_proj",
           [TRMI_FFN_NORM] = "h.*.ln_2",
           [TRMI_UP] = "h.*.mlp.c_fc",
           [TRMI_DOWN] = "h.*.mlp.c_proj"},
};

static const trmi_names gguf = {
    .prefixes = NULL,
    .of = {[TRMI_EMBED] = "token_embd",
           [TRMI_EMBED_POSITION] = "position_embd",
           [TRMI_HEAD] = "output",
           [TRMI_FINAL_NORM] = "output_norm",
           [TRMI_ATTN_NORM] = "blk.*.attn_norm",
           [TRMI_QKV] = "blk.*.attn_qkv",
           [TRMI_O] = "blk.*.attn_output",
           [TRMI_FFN_NORM] = "blk.*.ffn_norm",
           [TRMI_UP] = "blk.*.ffn_up",
           [TRMI_DOWN] = "blk.*.ffn_down"},
};

trm_status trmi_gpt2_build(trm_lm_build *b)
{
    b->layer_norm = true;
    b->transposed = !b->c->gguf;
    trmi_arch_names(b, &huggingface, &gguf);
    return trmi_arch_decoder(b);
}
