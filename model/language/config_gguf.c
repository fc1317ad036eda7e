/* Configuration from GGUF's metadata. Keys: github.com/ggml-org/ggml, docs/gguf.md, and the `gguf`
 * package 0.19, constants.py; what a file leaves out is as llama.cpp has it. */
#include "model/architectures/architecture.h"
#include "model/language/language_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct source {
    const trm_gguf *g;
    const char *path, *arch;
} source;

static void key_of(const source *s, const char *suffix, char *buf, size_t bytes)
{
    snprintf(buf, bytes, "%s.%s", s->arch, suffix);
}

#define KEY_BYTES 160

static trm_status wrong(const source *s, const char *key, const char *wanted)
{
    const trmi_gguf_entry *e = trmi_gguf_find(s->g, key);

    if (e == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' has no '%s': want %s", s->path, key, wanted);
    return trm_fail(TRM_ERR_BAD_FILE, "'%s': '%s' is a %s: want %s", s->path, key,
                    trmi_gguf_kind_name(e->kind), wanted);
}

/* "<arch>.<suffix>", a number or a list with one for each layer, which must all be the same.
 * Absent: *out stays. */
static trm_status get_int(const source *s, const char *suffix, int64_t *out)
{
    char key[KEY_BYTES];
    trm_gguf_kind kind;
    size_t count;
    int64_t v = 0;

    key_of(s, suffix, key, sizeof(key));
    if (trmi_gguf_find(s->g, key) == NULL || trm_gguf_int(s->g, key, out))
        return TRM_OK;
    if (!trm_gguf_array(s->g, key, &kind, &count) || count == 0 ||
        !trm_gguf_array_int(s->g, key, 0, out))
        return wrong(s, key, "a whole number");
    for (size_t i = 1; i < count; i++) {
        if (!trm_gguf_array_int(s->g, key, i, &v))
            return wrong(s, key, "whole numbers");
        if (v != *out)
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "'%s': '%s' is %" PRId64 " for layer 0 and %" PRId64
                            " for layer %zu: supported is one number for all",
                            s->path, key, *out, v, i);
    }
    return TRM_OK;
}

static trm_status need_int(const source *s, const char *suffix, int64_t *out)
{
    char key[KEY_BYTES];

    key_of(s, suffix, key, sizeof(key));
    if (trmi_gguf_find(s->g, key) == NULL)
        return wrong(s, key, "a whole number");
    return get_int(s, suffix, out);
}

static trm_status get_float(const source *s, const char *suffix, double *out)
{
    char key[KEY_BYTES];

    key_of(s, suffix, key, sizeof(key));
    if (trmi_gguf_find(s->g, key) == NULL || trm_gguf_float(s->g, key, out))
        return TRM_OK;
    return wrong(s, key, "a number");
}

static bool has_tensor(const source *s, const char *name)
{
    return trm_weights_find(s->g->weights, name) != NULL;
}

/* ---- rotary embeddings ---- */

/* The factors of a tensor as doubles, from trm_malloc; OK and nothing changes where it is absent.
 */
static trm_status read_factors(const source *s, const char *name, double **values_out,
                               int64_t *count_out)
{
    const trm_weight *w = trm_weights_find(s->g->weights, name);
    size_t n;

    if (w == NULL)
        return TRM_OK;
    if (w->desc.dtype != TRM_DTYPE_F32 || w->desc.rank != 1 || w->desc.dims[0] > 1 << 16 ||
        w->desc.dims[0] < 1)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': tensor '%s': want a list of f32", s->path, name);
    n = (size_t)w->desc.dims[0];
    *values_out = (double *)trm_calloc(n, sizeof(double));
    if (*values_out == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': tensor '%s'", s->path, name);
    for (size_t i = 0; i < n; i++) {
        float f;

        memcpy(&f, (const char *)w->desc.data + i * sizeof(f), sizeof(f)); /* may be misaligned */
        (*values_out)[i] = (double)f;
    }
    *count_out = (int64_t)n;
    return TRM_OK;
}

/* Llama 3.1's scaling comes as the factors themselves: LongRoPE's with one list for both. */
static trm_status read_rope_freqs(const source *s, trm_lm_config *c)
{
    int64_t n = 0;

    if (!has_tensor(s, "rope_freqs.weight"))
        return TRM_OK; /* what LongRoPE has set stays */
    if (c->rope_scaling != TRM_ROPE_NONE)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': tensor 'rope_freqs.weight' and rope.scaling.type at once", s->path);
    TRM_CHECK(read_factors(s, "rope_freqs.weight", &c->rope_short, &n));
    TRM_CHECK(read_factors(s, "rope_freqs.weight", &c->rope_long, &n));
    c->rope_factor_count = n;
    c->rope_scaling = TRM_ROPE_LONGROPE;
    c->rope_factor = c->rope_attention_factor = 1;
    c->rope_original_context = c->context;
    return TRM_OK;
}

static trm_status read_longrope(const source *s, trm_lm_config *c)
{
    int64_t shorts = 0, longs = 0;
    double attention = 1;

    TRM_CHECK(read_factors(s, "rope_factors_short.weight", &c->rope_short, &shorts));
    TRM_CHECK(read_factors(s, "rope_factors_long.weight", &c->rope_long, &longs));
    if (c->rope_short == NULL && c->rope_long == NULL) {
        c->rope_scaling = TRM_ROPE_NONE;
        return TRM_OK;
    }
    if (shorts != longs) /* also: only one of them */
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': rope_factors_short.weight has %" PRId64
                        " factors, rope_factors_long.weight %" PRId64 ": want the same",
                        s->path, shorts, longs);
    TRM_CHECK(get_float(s, "rope.scaling.attn_factor", &attention));
    c->rope_scaling = TRM_ROPE_LONGROPE;
    c->rope_factor_count = shorts;
    c->rope_attention_factor = attention;
    c->rope_factor = (double)c->context / (double)c->rope_original_context;
    return TRM_OK;
}

static trm_status read_scaling(const source *s, trm_lm_config *c)
{
    char key[KEY_BYTES];
    const char *type;
    double attention = 1;

    key_of(s, "rope.scaling.type", key, sizeof(key));
    type = trmi_gguf_string(s->g, key);
    c->rope_original_context = c->context;
    TRM_CHECK(get_int(s, "rope.scaling.original_context_length", &c->rope_original_context));
    TRM_CHECK(trmi_lm_check(s->path, "rope.scaling.original_context_length",
                            c->rope_original_context, 1, INT32_MAX));
    TRM_CHECK(get_float(s, "rope.scale_linear", &c->rope_factor)); /* of old files */
    if (type == NULL && c->rope_factor > 0 && c->rope_factor != 1)
        type = "linear";
    if (type == NULL || strcmp(type, "none") == 0 || strcmp(type, "longrope") == 0)
        return read_longrope(s, c);
    TRM_CHECK(get_float(s, "rope.scaling.factor", &c->rope_factor));
    if (!(c->rope_factor > 0)) /* absent or 0: as 1 */
        c->rope_factor = 1;
    if (strcmp(type, "linear") == 0) {
        c->rope_scaling = TRM_ROPE_LINEAR;
        /* files give the context that they are stretched to */
        c->rope_original_context = c->context;
        return TRM_OK;
    }
    if (strcmp(type, "yarn") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': '%s' is '%.60s'; supported are none, linear, yarn, longrope",
                        s->path, key, type);
    c->rope_scaling = TRM_ROPE_YARN;
    c->rope_beta_fast = 32;
    c->rope_beta_slow = 1;
    TRM_CHECK(get_float(s, "rope.scaling.yarn_beta_fast", &c->rope_beta_fast));
    TRM_CHECK(get_float(s, "rope.scaling.yarn_beta_slow", &c->rope_beta_slow));
    TRM_CHECK(get_float(s, "rope.scaling.attn_factor", &attention));
    if (attention != 1)
        c->rope_attention_factor = attention * (1 + 0.1 * log(c->rope_factor));
    return TRM_OK;
}

/* `interleaved`: pairs (0, 1), (2, 3) are rotated, as the converter orders a llama's rows. */
static trm_status read_rope(const source *s, bool interleaved, trm_lm_config *c)
{
    c->rope_theta = 10000;
    c->rope_interleaved = interleaved;
    TRM_CHECK(get_float(s, "rope.freq_base", &c->rope_theta));
    TRM_CHECK(get_int(s, "rope.dimension_count", &c->rotary_dim));
    if (c->rotary_dim == c->head_dim)
        c->rotary_dim = 0;
    TRM_CHECK(read_scaling(s, c));
    return read_rope_freqs(s, c);
}

/* ---- families ---- */

static trm_status read_window(const source *s, int64_t otherwise, int64_t every, trm_lm_config *c)
{
    c->window = otherwise;
    TRM_CHECK(get_int(s, "attention.sliding_window", &c->window));
    if (c->window > 0)
        c->global_every = every;
    return TRM_OK;
}

static trm_status more_llama(const source *s, trm_lm_config *c)
{
    TRM_CHECK(read_rope(s, true, c));
    TRM_CHECK(read_window(s, 0, 0, c));
    c->attention_bias = has_tensor(s, "blk.0.attn_q.bias");
    c->output_bias = has_tensor(s, "blk.0.attn_output.bias");
    c->mlp_bias = has_tensor(s, "blk.0.ffn_up.bias");
    c->expert_feed_forward = c->experts > 0 ? c->feed_forward : 0;
    c->experts_normalize = true;
    return TRM_OK;
}

static trm_status more_qwen2(const source *s, trm_lm_config *c)
{
    c->attention_bias = true;
    return read_rope(s, false, c);
}

static trm_status more_qwen3(const source *s, trm_lm_config *c)
{
    c->qk_norm = true;
    c->experts_normalize = true;
    c->attention_bias = has_tensor(s, "blk.0.attn_q.bias");
    c->output_bias = has_tensor(s, "blk.0.attn_output.bias");
    TRM_CHECK(get_int(s, "expert_feed_forward_length", &c->expert_feed_forward));
    return read_rope(s, false, c);
}

/* Gemma's largest model divides by sqrt(hidden / heads), the others by sqrt(head_dim): the file
 * does not say it, the number of layers does. */
static void gemma_scales(trm_lm_config *c, int64_t largest_layers)
{
    double d =
        c->layers == largest_layers ? (double)c->hidden / (double)c->heads : (double)c->head_dim;

    c->attention_scale = (float)(1 / sqrt(d));
    c->embedding_scale = (float)sqrt((double)c->hidden);
    snprintf(c->activation, sizeof(c->activation), "gelu_tanh");
}

static trm_status more_gemma1(const source *s, trm_lm_config *c)
{
    gemma_scales(c, 0);
    return read_rope(s, false, c);
}

static trm_status more_gemma2(const source *s, trm_lm_config *c)
{
    double attention = 50, logits = 30;

    TRM_CHECK(get_float(s, "attn_logit_softcapping", &attention));
    TRM_CHECK(get_float(s, "final_logit_softcapping", &logits));
    c->attention_softcap = (float)attention;
    c->logit_softcap = (float)logits;
    gemma_scales(c, 46);
    TRM_CHECK(read_window(s, 4096, 2, c));
    return read_rope(s, false, c);
}

static trm_status more_gemma3(const source *s, trm_lm_config *c)
{
    double logits = 0;
    int64_t every = 6;

    TRM_CHECK(get_float(s, "final_logit_softcapping", &logits));
    c->logit_softcap = (float)logits;
    c->qk_norm = true;
    gemma_scales(c, 62);
    TRM_CHECK(get_int(s, "attention.sliding_window_pattern", &every));
    TRM_CHECK(
        trmi_lm_check(s->path, "attention.sliding_window_pattern", every, 1, TRM_LM_LAYERS_MAX));
    TRM_CHECK(read_window(s, 0, every, c));
    TRM_CHECK(read_rope(s, false, c));
    c->rope_local_theta = c->window > 0 ? 10000 : 0;
    return get_float(s, "rope.freq_base_swa", &c->rope_local_theta);
}

static trm_status more_phi3(const source *s, trm_lm_config *c)
{
    TRM_CHECK(read_window(s, 0, 0, c));
    return read_rope(s, false, c);
}

static trm_status more_gpt2(const source *s, trm_lm_config *c)
{
    (void)s;
    c->attention_bias = c->output_bias = c->mlp_bias = true;
    snprintf(c->activation, sizeof(c->activation), "gelu_tanh");
    return TRM_OK;
}

static trm_status more_starcoder2(const source *s, trm_lm_config *c)
{
    c->attention_bias = c->output_bias = c->mlp_bias = true;
    snprintf(c->activation, sizeof(c->activation), "gelu_tanh");
    TRM_CHECK(read_window(s, 0, 0, c));
    return read_rope(s, false, c);
}

static trm_status more_bert(const source *s, trm_lm_config *c)
{
    static const char *const names[] = {"", "mean", "cls", "last"};
    int64_t pooling = 0, types = 2;

    c->attention_bias = c->output_bias = c->mlp_bias = true;
    snprintf(c->activation, sizeof(c->activation), "gelu");
    if (!trm_gguf_int(s->g, "tokenizer.ggml.token_type_count", &types) &&
        trmi_gguf_find(s->g, "tokenizer.ggml.token_type_count") != NULL)
        return wrong(s, "tokenizer.ggml.token_type_count", "a whole number");
    c->token_types = has_tensor(s, "token_types.weight") ? types : 0;
    TRM_CHECK(get_int(s, "pooling_type", &pooling));
    if (pooling < 0 || pooling > 3)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': bert.pooling_type %" PRId64 "; supported are 0 (none), 1 (mean), 2 "
                        "(cls), 3 (last)",
                        s->path, pooling);
    snprintf(c->pooling, sizeof(c->pooling), "%s", names[pooling]);
    c->pooling_normalize = pooling > 0;
    return TRM_OK;
}

static const struct family {
    const char *arch;
    bool layer_norm; /* else RMS */
    trm_status (*more)(const source *s, trm_lm_config *c);
} families[] = {
    {"llama", false, more_llama},   {"qwen2", false, more_qwen2},
    {"qwen3", false, more_qwen3},   {"qwen3moe", false, more_qwen3},
    {"gemma", false, more_gemma1},  {"gemma2", false, more_gemma2},
    {"gemma3", false, more_gemma3}, {"phi3", false, more_phi3},
    {"gpt2", true, more_gpt2},      {"starcoder2", true, more_starcoder2},
    {"bert", true, more_bert},
};

/* ---- what all have ---- */

/* Rows of the table of embeddings; a vocabulary may be smaller than it. */
static trm_status read_vocabulary(const source *s, trm_lm_config *c)
{
    const trm_weight *w = trm_weights_find(s->g->weights, "token_embd.weight");
    trm_gguf_kind kind;
    size_t count;

    if (w != NULL && w->desc.rank == 2) {
        c->vocabulary = w->desc.dims[0];
        return TRM_OK;
    }
    if (trm_gguf_array(s->g, "tokenizer.ggml.tokens", &kind, &count))
        c->vocabulary = (int64_t)count;
    return get_int(s, "vocab_size", &c->vocabulary);
}

static trm_status read_sizes(const source *s, trm_lm_config *c)
{
    int64_t value_dim;

    TRM_CHECK(need_int(s, "block_count", &c->layers));
    TRM_CHECK(need_int(s, "embedding_length", &c->hidden));
    TRM_CHECK(need_int(s, "context_length", &c->context));
    TRM_CHECK(need_int(s, "attention.head_count", &c->heads));
    TRM_CHECK(get_int(s, "feed_forward_length", &c->feed_forward));
    TRM_CHECK(trmi_lm_check(s->path, "attention.head_count", c->heads, 1, 1 << 16));
    TRM_CHECK(trmi_lm_check(s->path, "embedding_length", c->hidden, 1, 1 << 24));
    TRM_CHECK(trmi_lm_check(s->path, "context_length", c->context, 1, INT32_MAX));
    c->kv_heads = c->heads;
    TRM_CHECK(get_int(s, "attention.head_count_kv", &c->kv_heads));
    c->head_dim = c->hidden / c->heads;
    TRM_CHECK(get_int(s, "attention.key_length", &c->head_dim));
    value_dim = c->head_dim;
    TRM_CHECK(get_int(s, "attention.value_length", &value_dim));
    if (value_dim != c->head_dim)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': keys of %" PRId64 " and values of %" PRId64
                        ": supported is one size for both",
                        s->path, c->head_dim, value_dim);
    TRM_CHECK(get_int(s, "expert_count", &c->experts));
    TRM_CHECK(get_int(s, "expert_used_count", &c->experts_used));
    return read_vocabulary(s, c);
}

/* ---- generation ---- */

static int64_t token_id(const source *s, const char *key)
{
    int64_t id = -1;

    (void)trm_gguf_int(s->g, key, &id);
    return id;
}

/* Names of tokens that end a turn. Files often name one end token and leave out the others that
 * their chat template writes, so that, as in llama.cpp, control tokens of these names count too. */
static bool ends_turn(const trm_text *t)
{
    static const char *const names[] = {
        "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>",   "<|endoftext|>",
        "<|eom_id|>", "<EOT>",      "_<EOT>",  "<|end_of_text|>",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (t->count == strlen(names[i]) && memcmp(t->bytes, names[i], t->count) == 0)
            return true;
    return false;
}

static trm_status find_ends(const source *s, trm_lm_config *c)
{
    static const char types[] = "tokenizer.ggml.token_type";
    trm_text *texts = NULL;
    size_t count = 0;
    int64_t type;
    trm_status st = trm_gguf_texts(s->g, "tokenizer.ggml.tokens", &texts, &count);

    if (st == TRM_ERR_NOT_FOUND)
        return TRM_OK;
    for (size_t i = 0; st == TRM_OK && i < count; i++)
        if (texts[i].count <= 16 && ends_turn(&texts[i]) &&
            trm_gguf_array_int(s->g, types, i, &type) && type == 3)
            trmi_lm_add_eos(c, (int64_t)i);
    trm_free(texts);
    return st;
}

static trm_status read_generation(const source *s, trm_lm_config *c)
{
    double v;
    int64_t id = token_id(s, "tokenizer.ggml.bos_token_id");

    c->bos = id >= 0 && id < c->vocabulary ? (int32_t)id : -1;
    id = token_id(s, "tokenizer.ggml.padding_token_id");
    c->pad = id >= 0 && id < c->vocabulary ? (int32_t)id : -1;
    trmi_lm_add_eos(c, token_id(s, "tokenizer.ggml.eos_token_id"));
    trmi_lm_add_eos(c, token_id(s, "tokenizer.ggml.eot_token_id"));
    trmi_lm_add_eos(c, token_id(s, "tokenizer.ggml.eom_token_id"));
    if (trm_gguf_float(s->g, "general.sampling.temp", &v) && v >= 0)
        c->default_temperature = (float)v;
    if (trm_gguf_float(s->g, "general.sampling.top_p", &v) && v >= 0 && v <= 1)
        c->default_top_p = (float)v;
    if (trm_gguf_float(s->g, "general.sampling.penalty_repeat", &v) && v > 0)
        c->default_repetition_penalty = (float)v;
    if (trm_gguf_int(s->g, "general.sampling.top_k", &id) && id >= 0 && id <= INT32_MAX)
        c->default_top_k = (int)id;
    return find_ends(s, c);
}

static trm_status read_model(const source *s, trm_lm_config *c)
{
    const struct family *f = NULL;
    double epsilon = 0;

    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        if (strcmp(s->arch, families[i].arch) == 0)
            f = &families[i];
    if (f == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': the defaults of architecture '%.60s' are not known; supported are "
                        "%s",
                        s->path, s->arch, trm_architecture_list(true));
    TRM_CHECK(read_sizes(s, c));
    TRM_CHECK(get_float(
        s, f->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
        &epsilon));
    c->norm_epsilon = (float)epsilon;
    snprintf(c->activation, sizeof(c->activation), "silu");
    c->tied_embeddings = !has_tensor(s, "output.weight");
    return f->more(s, c);
}

trm_status trm_lm_config_gguf(const trm_gguf *g, trm_lm_config *config_out)
{
    source s = {g, trm_file_path(g->file), trmi_gguf_string(g, "general.architecture")};
    trm_lm_config c;
    trm_status st;

    trmi_lm_config_init(&c);
    if (s.arch == NULL || strlen(s.arch) > 63) {
        st = trm_fail(TRM_ERR_BAD_FILE, "'%s' has no general.architecture: want a short string",
                      s.path);
        goto done;
    }
    TRM_TRY(st, trmi_lm_architecture(s.path, s.arch, true, &c), done);
    TRM_TRY(st, read_model(&s, &c), done);
    TRM_TRY(st, read_generation(&s, &c), done);
    TRM_TRY(st, trmi_lm_config_finish(s.path, &c), done);
    *config_out = c;
    memset(&c, 0, sizeof(c));
done:
    trm_lm_config_fini(&c);
    return st;
}
