/* What configurations of both sources share: the row of the table of architectures, fields that
 * follow from others, and the checks. */
#include "model/architectures/architecture.h"
#include "model/language/language_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void trmi_lm_config_init(trm_lm_config *c)
{
    memset(c, 0, sizeof(*c));
    c->bos = c->pad = -1;
    c->embedding_scale = 1;
    c->experts_every = 1;
    c->default_temperature = c->default_top_p = c->default_repetition_penalty = -1;
    c->default_top_k = -1;
}

void trm_lm_config_fini(trm_lm_config *c)
{
    if (c->label_names != NULL)
        for (int64_t i = 0; i < c->labels; i++)
            trm_free(c->label_names[i]);
    trm_free((void *)c->label_names);
    trm_free(c->layer_windowed);
    trm_free(c->rope_short);
    trm_free(c->rope_long);
    memset(c, 0, sizeof(*c));
}

bool trm_lm_layer_windowed(const trm_lm_config *c, int64_t layer)
{
    if (c->window == 0)
        return false;
    if (c->layer_windowed != NULL)
        return c->layer_windowed[layer] != 0;
    return c->global_every <= 0 || (layer + 1) % c->global_every != 0;
}

bool trm_lm_layer_has_experts(const trm_lm_config *c, int64_t layer)
{
    return c->experts > 0 && (layer + 1) % c->experts_every == 0;
}

int64_t trm_lm_context_max(const trm_lm_config *c)
{
    double most = (double)c->context;

    switch (c->rope_scaling) {
    case TRM_ROPE_LINEAR: /* Gemma 3's context and GGUF's are what they were stretched to */
        if (!c->gguf && !(c->rope_local_theta > 0))
            most *= c->rope_factor;
        break;
    case TRM_ROPE_DYNAMIC:
        most *= c->rope_factor;
        break;
    case TRM_ROPE_YARN:
        most = fmax(most, (double)c->rope_original_context * c->rope_factor);
        break;
    default: /* likewise */
        break;
    }
    return most > INT32_MAX ? INT32_MAX : (int64_t)most;
}

trm_status trmi_lm_architecture(const char *name, const char *source_name, bool gguf,
                                trm_lm_config *c)
{
    const trm_architecture *a = trm_architecture_find(source_name, gguf);

    if (a == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'%s' is a %.60s; supported are %s", name, source_name,
                        trm_architecture_list(gguf));
    snprintf(c->architecture, sizeof(c->architecture), "%s", a->name);
    snprintf(c->source_name, sizeof(c->source_name), "%s", source_name);
    c->gguf = gguf;
    return TRM_OK;
}

void trmi_lm_add_eos(trm_lm_config *c, int64_t id)
{
    if (id < 0 || id >= c->vocabulary || c->eos_count >= (int)(sizeof(c->eos) / sizeof(c->eos[0])))
        return;
    for (int i = 0; i < c->eos_count; i++)
        if (c->eos[i] == id)
            return;
    c->eos[c->eos_count++] = (int32_t)id;
}

trm_status trmi_lm_check(const char *name, const char *key, int64_t value, int64_t low,
                         int64_t high)
{
    if (value < low || value > high)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': %s is %" PRId64 ": want %" PRId64 " to %" PRId64,
                        name, key, value, low, high);
    return TRM_OK;
}

/* ---- the end ---- */

static trm_status check_sizes(const char *name, const trm_lm_config *c)
{
    const struct {
        const char *what;
        int64_t value, low, high;
    } rows[] = {
        {"the number of layers", c->layers, 1, TRM_LM_LAYERS_MAX},
        {"the hidden size", c->hidden, 1, 1 << 24},
        {"the feed-forward size", c->feed_forward, c->experts > 0 ? 0 : 1, 1 << 26},
        {"the number of heads", c->heads, 1, 1 << 16},
        {"the number of key/value heads", c->kv_heads, 1, 1 << 16},
        {"the head size", c->head_dim, 1, 1 << 16},
        {"the vocabulary", c->vocabulary, 1, INT32_MAX},
        {"the context", c->context, 1, INT32_MAX},
        {"the window", c->window, 0, INT32_MAX},
        {"the rotary size", c->rotary_dim, 0, c->head_dim},
        {"the number of experts", c->experts, 0, 1 << 16},
        {"the number of experts used", c->experts_used, c->experts > 0, c->experts},
        {"the experts' feed-forward size", c->expert_feed_forward, c->experts > 0, 1 << 26},
        {"the step between layers with experts", c->experts_every, 1, TRM_LM_LAYERS_MAX},
        {"the number of token types", c->token_types, 0, 1 << 16},
        {"the first position", c->position_offset, 0, INT32_MAX},
        {"the number of labels", c->labels, 0, 1 << 24},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        TRM_CHECK(trmi_lm_check(name, rows[i].what, rows[i].value, rows[i].low, rows[i].high));
    return TRM_OK;
}

static trm_status check_numbers(const char *name, const trm_lm_config *c)
{
    const struct {
        const char *what;
        double value, low, high;
    } rows[] = {
        {"the norms' epsilon", (double)c->norm_epsilon, 1e-30, 1},
        {"the attention scale", (double)c->attention_scale, 0, 1e6},
        {"the attention softcap", (double)c->attention_softcap, 0, 1e9},
        {"the logits' softcap", (double)c->logit_softcap, 0, 1e9},
        {"the embeddings' scale", (double)c->embedding_scale, 1e-9, 1e9},
        {"the RoPE base", c->rope_theta, 0, 1e18},
        {"the local RoPE base", c->rope_local_theta, 0, 1e18},
        {"the RoPE scaling factor", c->rope_factor, 0, 1e6},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (!(rows[i].value >= rows[i].low && rows[i].value <= rows[i].high))
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': %s is %g: want %g to %g", name, rows[i].what,
                            rows[i].value, rows[i].low, rows[i].high);
    return TRM_OK;
}

static trm_status check_rope(const char *name, const trm_lm_config *c)
{
    int64_t rotary = c->rotary_dim > 0 ? c->rotary_dim : c->head_dim;

    if (!(c->rope_theta > 0))
        return TRM_OK;
    if (rotary % 2 != 0)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': %" PRId64 " dims of a head are rotated: want an even number", name,
                        rotary);
    if (c->rope_scaling != TRM_ROPE_NONE && c->rope_scaling != TRM_ROPE_LONGROPE &&
        !(c->rope_factor > 0))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': RoPE scaling has no factor", name);
    if (c->rope_factor_count > 0 && c->rope_factor_count != rotary / 2)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': %" PRId64 " RoPE factors for %" PRId64 " dims: want %" PRId64, name,
                        c->rope_factor_count, rotary, rotary / 2);
    for (int64_t i = 0; i < c->rope_factor_count; i++)
        if (!(c->rope_short[i] > 0 && c->rope_short[i] < 1e9 && c->rope_long[i] > 0 &&
              c->rope_long[i] < 1e9))
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': RoPE factor %" PRId64 " is not positive", name,
                            i);
    return TRM_OK;
}

trm_status trmi_lm_config_finish(const char *name, trm_lm_config *c)
{
    TRM_CHECK(check_sizes(name, c));
    if (c->heads % c->kv_heads != 0)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': %" PRId64 " heads and %" PRId64
                        " key/value heads: want a multiple of these",
                        name, c->heads, c->kv_heads);
    TRM_CHECK(check_numbers(name, c));
    TRM_CHECK(check_rope(name, c));
    return TRM_OK;
}
