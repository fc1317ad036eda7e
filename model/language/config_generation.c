/* How a model wants to be sampled: generation_config.json, and the ids that config.json has. */
#include "model/language/config_impl.h"

#include <string.h>

/* An id outside of the vocabulary can never come up and is left out: files have them. */
static trm_status read_id(const char *name, json_t *root, const char *key, int64_t vocabulary,
                          int32_t *id)
{
    int64_t n = INT64_MIN;

    TRM_CHECK(trmi_lm_json_int(name, root, key, INT64_MIN, INT64_MAX, &n));
    if (n != INT64_MIN)
        *id = n >= 0 && n < vocabulary ? (int32_t)n : -1;
    return TRM_OK;
}

/* A number or a list of them, instead of those known before. */
static trm_status read_eos(const char *name, json_t *root, trm_lm_config *c)
{
    json_t *v = json_object_get(root, "eos_token_id");
    size_t most = sizeof(c->eos) / sizeof(c->eos[0]);

    if (v == NULL || json_is_null(v))
        return TRM_OK;
    c->eos_count = 0;
    if (json_is_integer(v)) {
        trmi_lm_add_eos(c, json_integer_value(v));
        return TRM_OK;
    }
    if (!json_is_array(v) || json_array_size(v) > most)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': \"eos_token_id\": want a number or a list of at most %zu", name,
                        most);
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (!json_is_integer(json_array_get(v, i)))
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': \"eos_token_id\"[%zu] is no number", name, i);
        trmi_lm_add_eos(c, json_integer_value(json_array_get(v, i)));
    }
    return TRM_OK;
}

trm_status trmi_lm_read_ids(const char *name, json_t *root, trm_lm_config *c)
{
    TRM_CHECK(read_id(name, root, "bos_token_id", c->vocabulary, &c->bos));
    TRM_CHECK(read_id(name, root, "pad_token_id", c->vocabulary, &c->pad));
    return read_eos(name, root, c);
}

static trm_status read_generation(const char *name, json_t *root, trm_lm_config *c)
{
    double temperature = -1, top_p = -1, penalty = -1;
    int64_t top_k = -1;
    bool sample = true;

    TRM_CHECK(trmi_lm_read_ids(name, root, c));
    TRM_CHECK(trmi_lm_json_float(name, root, "temperature", 0, 1e6, &temperature));
    TRM_CHECK(trmi_lm_json_float(name, root, "top_p", 0, 1, &top_p));
    TRM_CHECK(trmi_lm_json_float(name, root, "repetition_penalty", 0, 1e6, &penalty));
    TRM_CHECK(trmi_lm_json_int(name, root, "top_k", -1, INT32_MAX, &top_k));
    TRM_CHECK(trmi_lm_json_bool(name, root, "do_sample", &sample));
    c->default_temperature = sample ? (float)temperature : 0;
    c->default_top_p = (float)top_p;
    c->default_repetition_penalty = (float)penalty;
    c->default_top_k = (int)top_k;
    return TRM_OK;
}

/* "config.json" -> "generation_config.json", in the same folder. */
trm_status trmi_lm_read_generation(const char *name, const char *text, size_t bytes,
                                   trm_lm_config *c)
{
    char *folder = trm_path_dir(name), *path = NULL;
    json_t *root = NULL;
    trm_status st;

    if (folder != NULL)
        path = trm_path_join(folder, "generation_config.json");
    if (path == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "'%s'", name);
        goto done;
    }
    TRM_TRY(st, trmi_lm_json_parse(path, text, bytes, &root), done);
    st = read_generation(path, root, c);
done:
    json_decref(root);
    trm_free(path);
    trm_free(folder);
    return st;
}
