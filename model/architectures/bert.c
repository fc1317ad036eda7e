/* BERT and its kin (RoBERTa, XLM-R, MiniLM's checkpoints): sums of three embeddings, norms after
 * the sums, attention to all tokens of the sequence. What comes out is the pooled states, or, of
 * checkpoints for sequence classification, a small head on the first token's. */
#include "model/architectures/blocks.h"

#include <string.h>

static const char *const bert_prefixes[] = {"bert.", "", "model.", NULL};
static const char *const roberta_prefixes[] = {"roberta.", "", NULL};

#define LAYERS                                                                                     \
    [TRMI_EMBED] = "embeddings.word_embeddings",                                                   \
    [TRMI_EMBED_POSITION] = "embeddings.position_embeddings",                                      \
    [TRMI_EMBED_TYPE] = "embeddings.token_type_embeddings",                                        \
    [TRMI_EMBED_NORM] = "embeddings.LayerNorm", [TRMI_Q] = "encoder.layer.*.attention.self.query", \
    [TRMI_K] = "encoder.layer.*.attention.self.key",                                               \
    [TRMI_V] = "encoder.layer.*.attention.self.value",                                             \
    [TRMI_O] = "encoder.layer.*.attention.output.dense",                                           \
    [TRMI_ATTN_NORM] = "encoder.layer.*.attention.output.LayerNorm",                               \
    [TRMI_UP] = "encoder.layer.*.intermediate.dense",                                              \
    [TRMI_DOWN] = "encoder.layer.*.output.dense",                                                  \
    [TRMI_FFN_NORM] = "encoder.layer.*.output.LayerNorm"

static const trmi_names bert = {
    .prefixes = bert_prefixes,
    .of = {LAYERS, [TRMI_POOLER] = "pooler.dense", [TRMI_CLASSIFIER] = "/classifier"},
};

static const trmi_names roberta = {
    .prefixes = roberta_prefixes,
    .of = {LAYERS, [TRMI_POOLER] = "/classifier.dense", [TRMI_CLASSIFIER] = "/classifier.out_proj"},
};

static const trmi_names gguf = {
    .prefixes = NULL,
    .of = {[TRMI_EMBED] = "token_embd",
           [TRMI_EMBED_POSITION] = "position_embd",
           [TRMI_EMBED_TYPE] = "token_types",
           [TRMI_EMBED_NORM] = "token_embd_norm",
           [TRMI_Q] = "blk.*.attn_q",
           [TRMI_K] = "blk.*.attn_k",
           [TRMI_V] = "blk.*.attn_v",
           [TRMI_O] = "blk.*.attn_output",
           [TRMI_ATTN_NORM] = "blk.*.attn_output_norm",
           [TRMI_UP] = "blk.*.ffn_up",
           [TRMI_DOWN] = "blk.*.ffn_down",
           [TRMI_FFN_NORM] = "blk.*.layer_output_norm",
           [TRMI_POOLER] = "cls",
           [TRMI_CLASSIFIER] = "cls.output"},
};

/* Words, types and positions; RoBERTa's table of positions begins with rows that no token has. */
static trm_status embeddings(trm_lm_build *b, int *value_out)
{
    const trm_lm_config *c = b->c;
    const trm_weight *w;
    int x, y;

    TRM_CHECK(trmi_arch_embed(b, b->tokens, TRMI_EMBED, c->vocabulary, 0, 1.0f, "embedding", &x));
    if (b->token_types != TRM_NO_VALUE) {
        TRM_CHECK(trmi_arch_embed(b, b->token_types, TRMI_EMBED_TYPE, c->token_types, 0, 1.0f,
                                  "type_embedding", &y));
        TRM_CHECK(trmi_arch_add(b, x, y, "type_add", &x));
    }
    TRM_CHECK(trmi_arch_want(b, TRMI_EMBED_POSITION, 0, ".weight", &w));
    if (w->desc.rank != 2 || c->position_offset < 0 ||
        w->desc.dims[0] < c->context + c->position_offset)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "tensor '%s' has %lld rows, a context of %lld and the first %lld that "
                        "nothing uses want more",
                        w->name, (long long)(w->desc.rank > 0 ? w->desc.dims[0] : 0),
                        (long long)c->context, (long long)c->position_offset);
    TRM_CHECK(trmi_arch_embed(b, b->positions, TRMI_EMBED_POSITION, w->desc.dims[0],
                              c->position_offset, 1.0f, "position_embedding", &y));
    TRM_CHECK(trmi_arch_add(b, x, y, "position_add", &x));
    return trmi_arch_norm(b, x, TRMI_EMBED_NORM, c->hidden, c->hidden, "embedding_norm", value_out);
}

static trm_status layer(trm_lm_build *b, int x, int *value_out)
{
    int64_t d = b->c->hidden;
    int y;

    TRM_CHECK(trmi_arch_attention(b, x, &y));
    TRM_CHECK(trmi_arch_add(b, y, x, "attention_add", &y));
    TRM_CHECK(trmi_arch_norm(b, y, TRMI_ATTN_NORM, d, d, "attention_norm", &x));
    TRM_CHECK(trmi_arch_feed_forward(b, x, &y));
    TRM_CHECK(trmi_arch_add(b, y, x, "feed_forward_add", &y));
    return trmi_arch_norm(b, y, TRMI_FFN_NORM, d, d, "feed_forward_norm", value_out);
}

/* One row a sequence. */
static trm_status pool(trm_lm_build *b, int x, const char *kind, bool normalize, int *value_out)
{
    const int inputs[2] = {x, b->step};
    const trmi_attr attrs[3] = {{.name = "kind", .text = kind},
                                {.name = normalize ? "normalize" : NULL, .integer = 1},
                                {.name = NULL}};

    TRM_CHECK(
        trmi_arch_node(b, TRM_OP_TrmPool, "pooled", inputs, 2, b->c->hidden, attrs, value_out));
    b->g->values[*value_out].desc.dims[0] = b->g->values[b->step].desc.dims[0];
    return TRM_OK;
}

static trm_status head(trm_lm_build *b, int x)
{
    const trm_lm_config *c = b->c;
    trmi_linear dense = {
        .role = TRMI_POOLER, .outputs = c->hidden, .inputs = c->hidden, .bias = TRMI_BIAS_WANTED};
    trmi_linear classifier = {.role = TRMI_CLASSIFIER,
                              .outputs = c->labels,
                              .inputs = c->hidden,
                              .bias = TRMI_BIAS_WANTED};

    if (c->labels == 0)
        return pool(b, x, c->pooling[0] == '\0' ? "mean" : c->pooling, c->pooling_normalize,
                    &b->output);
    TRM_CHECK(pool(b, x, "cls", false, &x));
    TRM_CHECK(trmi_arch_linear(b, x, &dense, &x));
    TRM_CHECK(trmi_arch_act(b, x, TRM_NO_VALUE, "tanh", c->hidden, "pooler_tanh", &x));
    return trmi_arch_linear(b, x, &classifier, &b->output);
}

static trm_status build(trm_lm_build *b)
{
    int x;

    b->layer_norm = true;
    TRM_CHECK(embeddings(b, &x));
    for (b->layer = 0; b->layer < b->c->layers; b->layer++)
        TRM_CHECK(layer(b, x, &x));
    b->layer = -1;
    return head(b, x);
}

trm_status trmi_bert_build(trm_lm_build *b)
{
    trmi_arch_names(b, &bert, &gguf);
    return build(b);
}

trm_status trmi_roberta_build(trm_lm_build *b)
{
    trmi_arch_names(b, &roberta, &gguf);
    return build(b);
}
