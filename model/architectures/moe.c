/* Mixtures of experts: Mixtral and Qwen3-MoE. Attention is Llama's (and Qwen3's). A checkpoint has
 * a tensor for each expert, GGUF one [experts, ..] for all of them. */
#include "model/architectures/blocks.h"

#include "model/architectures/packed.h"

#include <stdio.h>
#include <string.h>

static const char *const prefixes[] = {"model.", "", NULL};

#define ATTENTION                                                                                  \
    [TRMI_EMBED] = "embed_tokens", [TRMI_HEAD] = "/lm_head", [TRMI_FINAL_NORM] = "norm",           \
    [TRMI_ATTN_NORM] = "layers.*.input_layernorm", [TRMI_Q] = "layers.*.self_attn.q_proj",         \
    [TRMI_K] = "layers.*.self_attn.k_proj", [TRMI_V] = "layers.*.self_attn.v_proj",                \
    [TRMI_O] = "layers.*.self_attn.o_proj", [TRMI_FFN_NORM] = "layers.*.post_attention_layernorm"

static const trmi_names mixtral = {
    .prefixes = prefixes,
    .of = {ATTENTION, [TRMI_ROUTER] = "layers.*.block_sparse_moe.gate",
           [TRMI_EXPERT_GATE] = "layers.*.block_sparse_moe.experts.*.w1",
           [TRMI_EXPERT_UP] = "layers.*.block_sparse_moe.experts.*.w3",
           [TRMI_EXPERT_DOWN] = "layers.*.block_sparse_moe.experts.*.w2"},
};

static const trmi_names qwen3moe = {
    .prefixes = prefixes,
    .of = {ATTENTION, [TRMI_Q_NORM] = "layers.*.self_attn.q_norm",
           [TRMI_K_NORM] = "layers.*.self_attn.k_norm",
           [TRMI_GATE] = "layers.*.mlp.gate_proj", /* layers without experts */
           [TRMI_UP] = "layers.*.mlp.up_proj", [TRMI_DOWN] = "layers.*.mlp.down_proj",
           [TRMI_ROUTER] = "layers.*.mlp.gate",
           [TRMI_EXPERT_GATE] = "layers.*.mlp.experts.*.gate_proj",
           [TRMI_EXPERT_UP] = "layers.*.mlp.experts.*.up_proj",
           [TRMI_EXPERT_DOWN] = "layers.*.mlp.experts.*.down_proj"},
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

/* Groups of experts are the leaves of the sum's tree: as many as ranks may want to share them. */
#define GROUPS_MAX 24

static int64_t groups_of(int64_t experts)
{
    int64_t groups = experts < GROUPS_MAX ? experts : GROUPS_MAX;

    while (experts % groups != 0)
        groups--;
    return groups;
}

/* The experts' matrices [E, rows, columns] as one constant. */
static trm_status experts_weight(trm_lm_build *b, trmi_role role, int64_t rows, int64_t columns,
                                 int *value_out)
{
    int64_t dims[3] = {b->c->experts, rows, columns};
    const char *star = strchr(b->names->of[role], '*');
    const trm_weight *w;
    char name[96];
    int *values;
    trm_status st = TRM_OK;

    if (strchr(star + 1, '*') == NULL) {
        TRM_CHECK(trmi_arch_want(b, role, 0, ".weight", &w));
        TRM_CHECK(trmi_arch_shape(w, 3, dims));
        return trmi_arch_constant(b, w, 0, 0, value_out);
    }
    TRM_CHECK(trmi_arch_packed_experts(b, role, rows, columns, value_out));
    if (*value_out != TRM_NO_VALUE)
        return TRM_OK;
    values = (int *)trm_malloc((size_t)b->c->experts, sizeof(int));
    if (values == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%lld experts", (long long)b->c->experts);
    for (int64_t e = 0; e < b->c->experts; e++) {
        TRM_TRY(st, trmi_arch_want(b, role, e, ".weight", &w), done);
        TRM_TRY(st, trmi_arch_shape(w, 2, dims + 1), done);
        TRM_TRY(st, trmi_arch_constant(b, w, 0, 0, &values[e]), done);
    }
    snprintf(name, sizeof(name), "layers.%lld.experts.%s", (long long)b->layer,
             role == TRMI_EXPERT_GATE ? "gate"
             : role == TRMI_EXPERT_UP ? "up"
                                      : "down");
    st = trm_graph_add_stacked(b->g, name, values, (int)b->c->experts, value_out);
done:
    trm_free(values);
    return st;
}

trm_status trmi_arch_experts(trm_lm_build *b, int x, int *value_out)
{
    const trm_lm_config *c = b->c;
    trmi_linear router = {.role = TRMI_ROUTER, .outputs = c->experts, .inputs = c->hidden};
    int64_t f = c->expert_feed_forward;
    int inputs[5] = {x};
    trmi_attr attrs[] = {{.name = "top_k", .integer = c->experts_used},
                         {.name = "normalize", .integer = c->experts_normalize},
                         {.name = "act", .text = c->activation},
                         {.name = "groups", .integer = groups_of(c->experts)},
                         {.name = NULL},
                         {.name = NULL}};

    if (b->names->of[TRMI_ROUTER] == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s with experts", c->source_name);
    TRM_CHECK(trmi_arch_linear(b, x, &router, &inputs[1]));
    TRM_CHECK(experts_weight(b, TRMI_EXPERT_GATE, f, c->hidden, &inputs[2]));
    TRM_CHECK(experts_weight(b, TRMI_EXPERT_UP, f, c->hidden, &inputs[3]));
    TRM_CHECK(experts_weight(b, TRMI_EXPERT_DOWN, c->hidden, f, &inputs[4]));
    if (b->options->as_weights) {
        attrs[4].text = trmi_arch_rounds_to(b, b->g->values[inputs[2]].desc.dtype);
        attrs[4].name = attrs[4].text != NULL ? "act_dtype" : NULL;
    }
    return trmi_arch_node(b, TRM_OP_TrmExperts, "experts", inputs, 5, c->hidden, attrs, value_out);
}

trm_status trmi_mixtral_build(trm_lm_build *b)
{
    trmi_arch_names(b, &mixtral, &gguf);
    return trmi_arch_decoder(b);
}

trm_status trmi_qwen3moe_build(trm_lm_build *b)
{
    trmi_arch_names(b, &qwen3moe, &gguf);
    return trmi_arch_decoder(b);
}
