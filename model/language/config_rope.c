/* Rotary embeddings in config.json. Old files have rope_theta and rope_scaling {type, factor, ...},
 * new ones rope_parameters {rope_type, rope_theta, factor, ...}, for Gemma 3 one such object a kind
 * of layer. Keys and defaults: transformers 5.24, modeling_rope_utils.py. */
#include "model/language/language_impl.h"

#include <stdio.h>
#include <string.h>

#define FACTOR_MAX 1e6
#define THETA_MAX 1e18
#define PHI3_ORIGINAL 4096

static trm_status read_list(const char *name, json_t *object, const char *key, int64_t want,
                            double **values_out)
{
    json_t *list = json_object_get(object, key);
    double *values;

    if (!json_is_array(list) || (int64_t)json_array_size(list) != want)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': \"%s\" of longrope: want a list of %lld numbers, half the rotated "
                        "dims",
                        name, key, (long long)want);
    values = (double *)trm_calloc((size_t)want, sizeof(*values));
    if (values == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s': \"%s\"", name, key);
    *values_out = values;
    for (int64_t i = 0; i < want; i++) {
        const json_t *v = json_array_get(list, (size_t)i);

        if (!json_is_number(v))
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': \"%s\"[%lld] is no number", name, key,
                            (long long)i);
        values[i] = json_number_value(v);
    }
    return TRM_OK;
}

/* Where positions were trained: a member of the whole file before the one of the settings. */
static trm_status read_original(const char *name, json_t *root, json_t *d, trmi_rope_family family,
                                trm_lm_config *c)
{
    static const char key[] = "original_max_position_embeddings";

    c->rope_original_context = c->context;
    TRM_CHECK(trmi_lm_json_int(name, d, key, 1, INT32_MAX, &c->rope_original_context));
    if (family == TRMI_ROPE_PHI3) /* its class always has the member of the whole file */
        c->rope_original_context = PHI3_ORIGINAL;
    return trmi_lm_json_int(name, root, key, 1, INT32_MAX, &c->rope_original_context);
}

static trm_status read_yarn(const char *name, json_t *d, trm_lm_config *c)
{
    bool truncate = true;

    c->rope_beta_fast = c->rope_beta_slow = 0;
    TRM_CHECK(trmi_lm_json_float(name, d, "beta_fast", 0, FACTOR_MAX, &c->rope_beta_fast));
    TRM_CHECK(trmi_lm_json_float(name, d, "beta_slow", 0, FACTOR_MAX, &c->rope_beta_slow));
    if (!(c->rope_beta_fast > 0))
        c->rope_beta_fast = 32;
    if (!(c->rope_beta_slow > 0))
        c->rope_beta_slow = 1;
    TRM_CHECK(trmi_lm_json_float(name, d, "mscale", 0, FACTOR_MAX, &c->rope_mscale));
    TRM_CHECK(
        trmi_lm_json_float(name, d, "mscale_all_dim", 0, FACTOR_MAX, &c->rope_mscale_all_dim));
    TRM_CHECK(trmi_lm_json_bool(name, d, "truncate", &truncate));
    if (!truncate)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': yarn with \"truncate\": false", name);
    return TRM_OK;
}

static trm_status read_longrope(const char *name, json_t *d, trm_lm_config *c)
{
    c->rope_factor_count = (c->rotary_dim > 0 ? c->rotary_dim : c->head_dim) / 2;
    TRM_CHECK(read_list(name, d, "short_factor", c->rope_factor_count, &c->rope_short));
    TRM_CHECK(read_list(name, d, "long_factor", c->rope_factor_count, &c->rope_long));
    if (!(c->rope_factor > 0))
        c->rope_factor = (double)c->context / (double)c->rope_original_context;
    return TRM_OK;
}

static const struct {
    const char *name;
    trm_rope_scaling scaling;
} kinds[] = {
    {"default", TRM_ROPE_NONE},  {"linear", TRM_ROPE_LINEAR},     {"dynamic", TRM_ROPE_DYNAMIC},
    {"yarn", TRM_ROPE_YARN},     {"longrope", TRM_ROPE_LONGROPE}, {"su", TRM_ROPE_LONGROPE},
    {"llama3", TRM_ROPE_LLAMA3},
};

static trm_status read_kind(const char *name, json_t *d, trm_rope_scaling *scaling_out)
{
    const char *kind = "default";

    TRM_CHECK(trmi_lm_json_text(name, d, "type", &kind));
    TRM_CHECK(trmi_lm_json_text(name, d, "rope_type", &kind));
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kind, kinds[i].name) == 0) {
            *scaling_out = kinds[i].scaling;
            return TRM_OK;
        }
    }
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "'%s': RoPE scaling of type '%.60s'; supported are default, linear, dynamic, "
                    "yarn, longrope, llama3",
                    name, kind);
}

/* The settings of one object. */
static trm_status read_settings(const char *name, json_t *root, json_t *d, trmi_rope_family family,
                                trm_lm_config *c)
{
    double partial = 1;

    TRM_CHECK(read_kind(name, d, &c->rope_scaling));
    if (family == TRMI_ROPE_PHI3 && c->rope_scaling == TRM_ROPE_YARN)
        c->rope_scaling = TRM_ROPE_LONGROPE;
    TRM_CHECK(trmi_lm_json_float(name, d, "rope_theta", 1e-6, THETA_MAX, &c->rope_theta));
    TRM_CHECK(trmi_lm_json_float(name, root, "partial_rotary_factor", 0, 1, &partial));
    TRM_CHECK(trmi_lm_json_float(name, d, "partial_rotary_factor", 0, 1, &partial));
    if (partial < 1) {
        c->rotary_dim = (int64_t)((double)c->head_dim * partial);
        if (c->rotary_dim < 2)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': \"partial_rotary_factor\" %g leaves no dims to rotate", name,
                            partial);
    }
    if (c->rope_scaling == TRM_ROPE_NONE)
        return TRM_OK;
    TRM_CHECK(trmi_lm_json_float(name, d, "factor", 1e-6, FACTOR_MAX, &c->rope_factor));
    TRM_CHECK(
        trmi_lm_json_float(name, d, "attention_factor", 0, FACTOR_MAX, &c->rope_attention_factor));
    TRM_CHECK(read_original(name, root, d, family, c));
    switch (c->rope_scaling) {
    case TRM_ROPE_LONGROPE:
        return read_longrope(name, d, c);
    case TRM_ROPE_YARN:
        TRM_CHECK(read_yarn(name, d, c));
        break;
    case TRM_ROPE_LLAMA3:
        TRM_CHECK(trmi_lm_json_float(name, d, "low_freq_factor", 1e-6, FACTOR_MAX,
                                     &c->rope_low_freq_factor));
        TRM_CHECK(trmi_lm_json_float(name, d, "high_freq_factor", 1e-6, FACTOR_MAX,
                                     &c->rope_high_freq_factor));
        if (!(c->rope_low_freq_factor > 0 && c->rope_high_freq_factor > c->rope_low_freq_factor))
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': llama3's low_freq_factor %g and high_freq_factor %g: want two "
                            "numbers, the second larger",
                            name, c->rope_low_freq_factor, c->rope_high_freq_factor);
        break;
    default:
        c->rope_original_context = c->context;
        break;
    }
    if (!(c->rope_factor > 0))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': RoPE scaling without \"factor\"", name);
    return TRM_OK;
}

/* The object under `key`; NULL where it is absent, null or empty. */
static trm_status get_object(const char *name, json_t *root, const char *key, json_t **object_out)
{
    json_t *v = json_object_get(root, key);

    *object_out = NULL;
    if (v == NULL || json_is_null(v))
        return TRM_OK;
    if (!json_is_object(v))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': \"%s\": want an object or null", name, key);
    if (json_object_size(v) > 0)
        *object_out = v;
    return TRM_OK;
}

/* rope_scaling of old files belongs to the global layers. */
static trm_status read_gemma3(const char *name, json_t *root, json_t *old, json_t *settings,
                              trm_lm_config *c)
{
    json_t *global = NULL, *local = NULL;
    trm_rope_scaling local_scaling = TRM_ROPE_NONE;

    TRM_CHECK(trmi_lm_json_float(name, root, "rope_local_base_freq", 1e-6, THETA_MAX,
                                 &c->rope_local_theta));
    if (settings != NULL) {
        TRM_CHECK(get_object(name, settings, "full_attention", &global));
        TRM_CHECK(get_object(name, settings, "sliding_attention", &local));
    }
    if (local != NULL) {
        TRM_CHECK(read_kind(name, local, &local_scaling));
        TRM_CHECK(
            trmi_lm_json_float(name, local, "rope_theta", 1e-6, THETA_MAX, &c->rope_local_theta));
        if (local_scaling != TRM_ROPE_NONE)
            return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': RoPE scaling of sliding_attention", name);
    }
    TRM_CHECK(trmi_lm_json_float(name, global, "rope_theta", 1e-6, THETA_MAX, &c->rope_theta));
    return read_settings(name, root, old != NULL ? old : global, TRMI_ROPE_GEMMA3, c);
}

trm_status trmi_lm_rope(const char *name, json_t *root, trmi_rope_family family, double theta,
                        trm_lm_config *c)
{
    json_t *old = NULL, *settings = NULL;

    c->rope_theta = theta;
    TRM_CHECK(trmi_lm_json_float(name, root, "rope_theta", 1e-6, THETA_MAX, &c->rope_theta));
    TRM_CHECK(get_object(name, root, "rope_scaling", &old));
    TRM_CHECK(get_object(name, root, "rope_parameters", &settings));
    if (family == TRMI_ROPE_GEMMA3)
        return read_gemma3(name, root, old, settings, c);
    if (old == NULL)
        old = settings;
    if (old != NULL && json_object_get(old, "full_attention") != NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': RoPE settings by kind of layer", name);
    return read_settings(name, root, old, family, c);
}
