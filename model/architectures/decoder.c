/* Blocks of decoders: attention, feed-forward, head, and the pre-norm decoder made of them. */
#include "model/architectures/blocks.h"

#include <math.h>
#include <string.h>

trm_status trmi_arch_rope_table(trm_lm_build *b, bool local, int *value_out, float *scale_out)
{
    int64_t rotary = trmi_arch_rotary(b->c);
    trm_tensor desc = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {rotary / 2}};
    trm_status st = TRM_OK;

    if (b->rope[local] == TRM_NO_VALUE) {
        if (rotary < 2 || rotary % 2 != 0 || rotary > b->c->head_dim)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "rope: %lld of a head's %lld elements turn, want an even part",
                            (long long)rotary, (long long)b->c->head_dim);
        desc.data = trm_malloc((size_t)rotary / 2, sizeof(float));
        if (desc.data == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "frequencies of rope");
        TRM_TRY(st,
                trmi_rope_frequencies(b->c,
                                      b->options->context > 0 ? b->options->context : b->c->context,
                                      local, (float *)desc.data, &b->rope_scale[local]),
                done);
        st = trm_graph_add_constant(b->g, local ? "rope.local_frequencies" : "rope.frequencies",
                                    &desc, &b->rope[local]);
    }
    *value_out = b->rope[local];
    *scale_out = b->rope_scale[local];
done:
    trm_free(desc.data);
    return st;
}

static trm_status rope(trm_lm_build *b, int x, int64_t width, const char *what, int *value_out)
{
    bool local = b->c->rope_local_theta > 0.0 && trm_lm_layer_windowed(b->c, b->layer);
    trmi_attr attrs[4];
    int inputs[3] = {x, b->positions}, n = 0;
    float scale;

    memset(attrs, 0, sizeof(attrs));
    TRM_CHECK(trmi_arch_rope_table(b, local, &inputs[2], &scale));
    attrs[n++] = (trmi_attr){.name = "head_dim", .integer = b->c->head_dim};
    if (b->c->rope_interleaved)
        attrs[n++] = (trmi_attr){.name = "interleaved", .integer = 1};
    if (scale != 1.0f)
        attrs[n++] = (trmi_attr){.name = "scale", .real = scale, .is_real = true};
    return trmi_arch_node(b, TRM_OP_TrmRope, what, inputs, 3, width, attrs, value_out);
}

/* TrmPagedAttention */
static trm_status attend(trm_lm_build *b, int q, int k, int v, int *value_out)
{
    const trm_lm_config *c = b->c;
    const trm_architecture *a = trm_architecture_named(c->architecture);
    const int inputs[4] = {q, k, v, b->step};
    trmi_attr attrs[10];
    int n = 0;

    memset(attrs, 0, sizeof(attrs));
    attrs[n++] = (trmi_attr){.name = "heads", .integer = c->heads};
    attrs[n++] = (trmi_attr){.name = "kv_heads", .integer = c->kv_heads};
    attrs[n++] = (trmi_attr){.name = "head_dim", .integer = c->head_dim};
    attrs[n++] =
        (trmi_attr){.name = "scale",
                    .real = c->attention_scale > 0.0f ? c->attention_scale
                                                      : (float)(1.0 / sqrt((double)c->head_dim)),
                    .is_real = true};
    attrs[n++] = (trmi_attr){.name = "layer", .integer = b->layer};
    attrs[n++] = (trmi_attr){.name = "group", .integer = c->heads / c->kv_heads};
    if (c->attention_softcap > 0.0f)
        attrs[n++] = (trmi_attr){.name = "softcap", .real = c->attention_softcap, .is_real = true};
    if (trm_lm_layer_windowed(c, b->layer))
        attrs[n++] = (trmi_attr){.name = "window", .integer = c->window};
    if (a != NULL && a->encoder)
        attrs[n++] = (trmi_attr){.name = "encoder", .integer = 1};
    return trmi_arch_node(b, TRM_OP_TrmPagedAttention, "attention", inputs, 4,
                          c->heads * c->head_dim, attrs, value_out);
}

trm_status trmi_arch_attention(trm_lm_build *b, int x, int *value_out)
{
    const trm_lm_config *c = b->c;
    int64_t q_width = c->heads * c->head_dim, kv_width = c->kv_heads * c->head_dim;
    trmi_bias bias = c->attention_bias ? TRMI_BIAS_WANTED : TRMI_BIAS_NONE;
    trmi_role fused = TRMI_QKV;
    trmi_linear parts[3] = {
        {.role = TRMI_Q, .outputs = q_width, .inputs = c->hidden, .bias = bias},
        {.role = TRMI_K, .outputs = kv_width, .inputs = c->hidden, .bias = bias},
        {.role = TRMI_V, .outputs = kv_width, .inputs = c->hidden, .bias = bias},
    };
    trmi_linear o = {.role = TRMI_O,
                     .outputs = c->hidden,
                     .inputs = q_width,
                     .bias = c->output_bias ? TRMI_BIAS_WANTED : TRMI_BIAS_NONE,
                     .grain = c->head_dim};
    int qkv[3], y;

    if (b->names->of[fused] != NULL) {
        int64_t at = 0;

        for (int i = 0; i < 3; i++) {
            parts[i].role = fused;
            parts[i].first = at;
            parts[i].count = parts[i].outputs;
            at += parts[i].outputs;
        }
        for (int i = 0; i < 3; i++)
            parts[i].outputs = at;
    }
    for (int i = 0; i < 3; i++)
        TRM_CHECK(trmi_arch_linear(b, x, &parts[i], &qkv[i]));
    if (c->qk_norm) {
        TRM_CHECK(trmi_arch_norm(b, qkv[0], TRMI_Q_NORM, q_width, c->head_dim, "q_norm", &qkv[0]));
        TRM_CHECK(trmi_arch_norm(b, qkv[1], TRMI_K_NORM, kv_width, c->head_dim, "k_norm", &qkv[1]));
    }
    if (c->rope_theta > 0.0) {
        TRM_CHECK(rope(b, qkv[0], q_width, "q_rope", &qkv[0]));
        TRM_CHECK(rope(b, qkv[1], kv_width, "k_rope", &qkv[1]));
    }
    TRM_CHECK(attend(b, qkv[0], qkv[1], qkv[2], &y));
    return trmi_arch_linear(b, y, &o, value_out);
}

trm_status trmi_arch_feed_forward(trm_lm_build *b, int x, int *value_out)
{
    const trm_lm_config *c = b->c;
    int64_t f = c->feed_forward;
    trmi_bias bias = c->mlp_bias ? TRMI_BIAS_WANTED : TRMI_BIAS_NONE;
    trmi_linear gate = {.role = TRMI_GATE, .outputs = f, .inputs = c->hidden, .bias = bias};
    trmi_linear up = {.role = TRMI_UP, .outputs = f, .inputs = c->hidden, .bias = bias};
    trmi_linear down = {
        .role = TRMI_DOWN, .outputs = c->hidden, .inputs = f, .bias = bias, .grain = 1};
    int g = TRM_NO_VALUE, u, y;

    if (b->names->of[TRMI_GATE_UP] != NULL) {
        gate.role = up.role = TRMI_GATE_UP;
        gate.outputs = up.outputs = 2 * f;
        gate.count = up.count = up.first = f;
    }
    if (b->names->of[gate.role] != NULL)
        TRM_CHECK(trmi_arch_linear(b, x, &gate, &g));
    TRM_CHECK(trmi_arch_linear(b, x, &up, &u));
    if (g != TRM_NO_VALUE)
        TRM_CHECK(trmi_arch_act(b, g, u, c->activation, f, "gated", &y));
    else
        TRM_CHECK(trmi_arch_act(b, u, TRM_NO_VALUE, c->activation, f, "activation", &y));
    return trmi_arch_linear(b, y, &down, value_out);
}

/* The row of the output's features by the embedding table where the file has no head of its own. */
static bool tied(trm_lm_build *b)
{
    if (b->c->gguf)
        return trmi_arch_find(b, TRMI_HEAD, 0, ".weight") == NULL;
    return b->c->tied_embeddings;
}

trm_status trmi_arch_head(trm_lm_build *b, int x)
{
    const trm_lm_config *c = b->c;
    trmi_linear head = {.role = TRMI_HEAD, .outputs = c->vocabulary, .inputs = c->hidden};
    const int rows[2] = {x, b->rows};
    trmi_attr attrs[3];
    trm_tensor *desc;

    b->layer = -1;
    b->transposed = false;
    TRM_CHECK(trmi_arch_node(b, TRM_OP_TrmRows, "rows_of_states", rows, 2, c->hidden, NULL, &x));
    desc = &b->g->values[x].desc;
    desc->dims[0] = b->g->values[b->rows].desc.dims[0];
    TRM_CHECK(trmi_arch_norm(b, x, TRMI_FINAL_NORM, c->hidden, c->hidden, "final_norm", &x));
    if (tied(b)) {
        const int inputs[2] = {x, b->embedding};
        const char *act = trmi_arch_rounds_to(b, b->g->values[b->embedding].desc.dtype);

        memset(attrs, 0, sizeof(attrs));
        if (act != NULL)
            attrs[0] = (trmi_attr){.name = "act", .text = act};
        TRM_CHECK(
            trmi_arch_node(b, TRM_OP_TrmLinear, "logits", inputs, 2, c->vocabulary, attrs, &x));
    } else {
        TRM_CHECK(trmi_arch_linear(b, x, &head, &x));
    }
    if (c->logit_softcap > 0.0f) {
        const int inputs[1] = {x};

        memset(attrs, 0, sizeof(attrs));
        attrs[0] = (trmi_attr){.name = "act", .text = "softcap"};
        attrs[1] = (trmi_attr){.name = "cap", .real = c->logit_softcap, .is_real = true};
        TRM_CHECK(trmi_arch_node(b, TRM_OP_TrmGated, "capped_logits", inputs, 1, c->vocabulary,
                                 attrs, &x));
    }
    b->output = x;
    return TRM_OK;
}

static trm_status layer(trm_lm_build *b, int x, int *value_out)
{
    const trm_lm_config *c = b->c;
    bool experts = trm_lm_layer_has_experts(c, b->layer);
    int y;

    TRM_CHECK(trmi_arch_norm(b, x, TRMI_ATTN_NORM, c->hidden, c->hidden, "attention_norm", &y));
    TRM_CHECK(trmi_arch_attention(b, y, &y));
    if (b->names->of[TRMI_ATTN_POST_NORM] != NULL)
        TRM_CHECK(trmi_arch_norm(b, y, TRMI_ATTN_POST_NORM, c->hidden, c->hidden,
                                 "attention_post_norm", &y));
    TRM_CHECK(trmi_arch_add(b, x, y, "attention_add", &x));
    TRM_CHECK(trmi_arch_norm(b, x, TRMI_FFN_NORM, c->hidden, c->hidden, "feed_forward_norm", &y));
    TRM_CHECK(experts ? trmi_arch_experts(b, y, &y) : trmi_arch_feed_forward(b, y, &y));
    if (b->names->of[TRMI_FFN_POST_NORM] != NULL)
        TRM_CHECK(trmi_arch_norm(b, y, TRMI_FFN_POST_NORM, c->hidden, c->hidden,
                                 "feed_forward_post_norm", &y));
    return trmi_arch_add(b, x, y, "feed_forward_add", value_out);
}

trm_status trmi_arch_decoder(trm_lm_build *b)
{
    const trm_lm_config *c = b->c;
    int x, p;

    b->layer = -1;
    TRM_CHECK(trmi_arch_embed(b, b->tokens, TRMI_EMBED, c->vocabulary, 0, c->embedding_scale,
                              "embedding", &x));
    if (b->names->of[TRMI_EMBED_POSITION] != NULL) {
        TRM_CHECK(trmi_arch_embed(b, b->positions, TRMI_EMBED_POSITION, c->context, 0, 1.0f,
                                  "position_embedding", &p));
        TRM_CHECK(trmi_arch_add(b, x, p, "embedding_add", &x));
    }
    for (b->layer = 0; b->layer < c->layers; b->layer++)
        TRM_CHECK(layer(b, x, &x));
    return trmi_arch_head(b, x);
}
