/* Settings of config.json that only some families have, and what else follows from the class. */
#include "model/language/config_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

bool trmi_hf_null(const trmi_hf_source *s, const char *key)
{
    return json_is_null(json_object_get(s->root, key));
}

trm_status trmi_hf_int(const trmi_hf_source *s, const char *key, int64_t low, int64_t *out)
{
    return trmi_lm_json_int(s->name, s->root, key, low, TRMI_HF_SIZE_MAX, out);
}

/* A setting that only false is built for. */
static trm_status refuse_true(const trmi_hf_source *s, const char *key)
{
    bool on = false;

    TRM_CHECK(trmi_lm_json_bool(s->name, s->root, key, &on));
    return on ? trm_fail(TRM_ERR_UNSUPPORTED, "'%s': \"%s\": true is not supported", s->name, key)
              : TRM_OK;
}

/* ---- windows ---- */

/* "layer_types", else layer l is windowed where `windowed(l, number)`. */
static trm_status read_layer_types(const trmi_hf_source *s, trm_lm_config *c,
                                   bool (*windowed)(int64_t layer, int64_t number), int64_t number)
{
    json_t *list = json_object_get(s->root, "layer_types");
    bool given = list != NULL && !json_is_null(list);

    TRM_CHECK(trmi_lm_check(s->name, "the number of layers", c->layers, 1, TRM_LM_LAYERS_MAX));
    if (given && (!json_is_array(list) || (int64_t)json_array_size(list) != c->layers))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': \"layer_types\": want a list of %" PRId64, s->name,
                        c->layers);
    c->layer_windowed = (unsigned char *)trm_calloc((size_t)c->layers, 1);
    if (c->layer_windowed == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", s->name);
    for (int64_t l = 0; l < c->layers; l++) {
        const char *kind = given ? json_string_value(json_array_get(list, (size_t)l)) : NULL;

        if (!given)
            c->layer_windowed[l] = windowed(l, number);
        else if (kind != NULL && strcmp(kind, "sliding_attention") == 0)
            c->layer_windowed[l] = 1;
        else if (kind == NULL || strcmp(kind, "full_attention") != 0)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "'%s': \"layer_types\" has '%.60s'; supported are full_attention and "
                            "sliding_attention",
                            s->name, kind == NULL ? "(no string)" : kind);
    }
    return TRM_OK;
}

static bool from_layer(int64_t layer, int64_t first)
{
    return layer >= first;
}

static bool not_every(int64_t layer, int64_t step)
{
    return (layer + 1) % step != 0;
}

/* Qwen's switch; what is off is no window. */
static trm_status read_switch(const trmi_hf_source *s, trm_lm_config *c)
{
    bool on = false;

    TRM_CHECK(trmi_lm_json_bool(s->name, s->root, "use_sliding_window", &on));
    if (!on)
        c->window = 0;
    return TRM_OK;
}

/* ---- families ---- */

trm_status trmi_hf_more_llama(const trmi_hf_source *s, trm_lm_config *c)
{
    return trmi_lm_json_bool(s->name, s->root, "mlp_bias", &c->mlp_bias);
}

trm_status trmi_hf_more_mixtral(const trmi_hf_source *s, trm_lm_config *c)
{
    c->experts = 8;
    c->experts_used = 2;
    c->experts_normalize = true;
    c->expert_feed_forward = c->feed_forward;
    TRM_CHECK(trmi_hf_int(s, "num_local_experts", 1, &c->experts));
    return trmi_hf_int(s, "num_experts_per_tok", 1, &c->experts_used);
}

trm_status trmi_hf_more_qwen2(const trmi_hf_source *s, trm_lm_config *c)
{
    int64_t first = 28;

    TRM_CHECK(read_switch(s, c));
    TRM_CHECK(trmi_hf_int(s, "max_window_layers", 0, &first));
    if (c->window == 0)
        return TRM_OK;
    return read_layer_types(s, c, from_layer, first);
}

trm_status trmi_hf_more_qwen3(const trmi_hf_source *s, trm_lm_config *c)
{
    c->qk_norm = true;
    return trmi_hf_more_qwen2(s, c);
}

trm_status trmi_hf_more_qwen3_moe(const trmi_hf_source *s, trm_lm_config *c)
{
    c->qk_norm = true;
    TRM_CHECK(read_switch(s, c));
    c->experts = 128;
    c->experts_used = 8;
    c->expert_feed_forward = 768;
    TRM_CHECK(trmi_hf_int(s, "num_local_experts", 1, &c->experts)); /* the newer spelling */
    TRM_CHECK(trmi_hf_int(s, "num_experts", 1, &c->experts));
    TRM_CHECK(trmi_hf_int(s, "num_experts_per_tok", 1, &c->experts_used));
    TRM_CHECK(trmi_hf_int(s, "moe_intermediate_size", 1, &c->expert_feed_forward));
    TRM_CHECK(trmi_hf_int(s, "decoder_sparse_step", 1, &c->experts_every));
    TRM_CHECK(trmi_lm_json_bool(s->name, s->root, "norm_topk_prob", &c->experts_normalize));
    if (json_array_size(json_object_get(s->root, "mlp_only_layers")) > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': \"mlp_only_layers\" is not empty: single layers without experts are "
                        "not supported",
                        s->name);
    return TRM_OK;
}

static trm_status read_softcap(const trmi_hf_source *s, const char *key, double otherwise,
                               float *out)
{
    double cap = trmi_hf_null(s, key) ? 0 : otherwise;

    TRM_CHECK(trmi_lm_json_float(s->name, s->root, key, 0, 1e9, &cap));
    *out = (float)cap;
    return TRM_OK;
}

static trm_status more_gemma(const trmi_hf_source *s, trm_lm_config *c, double attention_cap,
                             double logit_cap, int64_t every)
{
    double scalar = 256;

    TRM_CHECK(refuse_true(s, "use_bidirectional_attention"));
    TRM_CHECK(trmi_lm_json_float(s->name, s->root, "query_pre_attn_scalar", 1e-6, 1e9, &scalar));
    c->attention_scale = (float)(1 / sqrt(scalar));
    TRM_CHECK(read_softcap(s, "attn_logit_softcapping", attention_cap, &c->attention_softcap));
    TRM_CHECK(read_softcap(s, "final_logit_softcapping", logit_cap, &c->logit_softcap));
    c->embedding_scale = (float)sqrt((double)c->hidden);
    c->norm_offset = 1;
    if (c->window == 0)
        return TRM_OK;
    c->global_every = every;
    return read_layer_types(s, c, not_every, every);
}

trm_status trmi_hf_more_gemma1(const trmi_hf_source *s, trm_lm_config *c)
{
    c->embedding_scale = (float)sqrt((double)c->hidden);
    c->norm_offset = 1;
    /* the first files say "gelu", which was never meant */
    snprintf(c->activation, sizeof(c->activation), "gelu_tanh");
    return refuse_true(s, "use_bidirectional_attention");
}

trm_status trmi_hf_more_gemma2(const trmi_hf_source *s, trm_lm_config *c)
{
    return more_gemma(s, c, 50, 30, 2);
}

trm_status trmi_hf_more_gemma3(const trmi_hf_source *s, trm_lm_config *c)
{
    int64_t every = 6;

    c->qk_norm = true;
    TRM_CHECK(trmi_hf_int(s, "sliding_window_pattern", 1, &every));
    return more_gemma(s, c, 0, 0, every);
}

/* The class has its own default where positions were trained. */
trm_status trmi_hf_more_phi3(const trmi_hf_source *s, trm_lm_config *c)
{
    if (c->rope_scaling != TRM_ROPE_NONE && c->rope_scaling != TRM_ROPE_LONGROPE)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': RoPE scaling of a Phi3: supported is longrope",
                        s->name);
    return TRM_OK;
}

trm_status trmi_hf_more_gpt2(const trmi_hf_source *s, trm_lm_config *c)
{
    bool scaled = true;

    TRM_CHECK(refuse_true(s, "scale_attn_by_inverse_layer_idx"));
    TRM_CHECK(refuse_true(s, "add_cross_attention"));
    TRM_CHECK(trmi_lm_json_bool(s->name, s->root, "scale_attn_weights", &scaled));
    if (!scaled)
        c->attention_scale = 1;
    return TRM_OK;
}

trm_status trmi_hf_more_starcoder2(const trmi_hf_source *s, trm_lm_config *c)
{
    bool biased = true;

    TRM_CHECK(trmi_lm_json_bool(s->name, s->root, "use_bias", &biased));
    c->attention_bias = c->output_bias = c->mlp_bias = biased;
    return TRM_OK;
}

static trm_status read_labels(const trmi_hf_source *s, trm_lm_config *c)
{
    json_t *map = json_object_get(s->root, "id2label");
    char key[24];

    c->labels = 2;
    if (!json_is_object(map))
        return trmi_hf_int(s, "num_labels", 1, &c->labels);
    TRM_CHECK(
        trmi_lm_check(s->name, "the number of labels", (int64_t)json_object_size(map), 1, 1 << 24));
    c->label_names = (char **)trm_calloc(json_object_size(map), sizeof(char *));
    c->labels = c->label_names == NULL ? 0 : (int64_t)json_object_size(map);
    if (c->label_names == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': \"id2label\"", s->name);
    for (int64_t i = 0; i < c->labels; i++) {
        const char *text;

        snprintf(key, sizeof(key), "%" PRId64, i);
        text = json_string_value(json_object_get(map, key));
        if (text == NULL)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': \"id2label\" has no name for \"%s\": want \"0\" to \"%" PRId64
                            "\"",
                            s->name, key, c->labels - 1);
        c->label_names[i] = trm_strdup(text);
        if (c->label_names[i] == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "'%s': \"id2label\"", s->name);
    }
    return TRM_OK;
}

trm_status trmi_hf_more_bert(const trmi_hf_source *s, trm_lm_config *c)
{
    const char *positions = "absolute", *at = strstr(c->source_name, "ForSequenceClassification");

    TRM_CHECK(trmi_lm_json_text(s->name, s->root, "position_embedding_type", &positions));
    if (strcmp(positions, "absolute") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': \"position_embedding_type\": '%.60s'; supported is absolute",
                        s->name, positions);
    TRM_CHECK(refuse_true(s, "is_decoder"));
    c->token_types = 2;
    TRM_CHECK(trmi_hf_int(s, "type_vocab_size", 0, &c->token_types));
    return at == NULL ? TRM_OK : read_labels(s, c);
}

/* The first positions of the table belong to the padding token. */
trm_status trmi_hf_more_roberta(const trmi_hf_source *s, trm_lm_config *c)
{
    int64_t pad = 1;

    TRM_CHECK(trmi_hf_more_bert(s, c));
    TRM_CHECK(trmi_hf_int(s, "pad_token_id", 0, &pad));
    c->position_offset = pad + 1;
    c->context -= c->position_offset;
    return TRM_OK;
}
