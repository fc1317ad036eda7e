/* config.json: which class it is, its sizes and flags. */
#include "model/architectures/architecture.h"
#include "model/language/config_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static trm_status read_class(const trmi_hf_source *s, const char **class_out)
{
    json_t *list = json_object_get(s->outer, "architectures");
    const char *type = NULL;

    TRM_CHECK(trmi_lm_json_text(s->name, s->outer, "model_type", &type));
    if (json_array_size(list) > 0) {
        *class_out = json_string_value(json_array_get(list, 0));
        if (*class_out == NULL)
            return trm_fail(TRM_ERR_BAD_FILE, "'%s': \"architectures\": want names of classes",
                            s->name);
        return TRM_OK;
    }
    if (type != NULL && trmi_hf_family_typed(type) != NULL) {
        *class_out = trmi_hf_family_typed(type)->class_name;
        return TRM_OK;
    }
    if (type != NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': model_type '%.60s'; supported are %s", s->name,
                        type, trm_architecture_list(false));
    return trm_fail(TRM_ERR_BAD_FILE,
                    "'%s' names neither \"architectures\" nor \"model_type\": it is no language "
                    "model's",
                    s->name);
}

static trm_status read_activation(const trmi_hf_source *s, const char *key, const char *otherwise,
                                  trm_lm_config *c)
{
    static const char *const names[][2] = {
        {"silu", "silu"},           {"swish", "silu"},         {"gelu", "gelu"},
        {"gelu_python", "gelu"},    {"gelu_new", "gelu_tanh"}, {"gelu_pytorch_tanh", "gelu_tanh"},
        {"gelu_fast", "gelu_tanh"}, {"relu", "relu"},
    };
    const char *text = otherwise;

    TRM_CHECK(trmi_lm_json_text(s->name, s->root, key, &text));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i][0]) == 0) {
            snprintf(c->activation, sizeof(c->activation), "%s", names[i][1]);
            return TRM_OK;
        }
    }
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "'%s': \"%s\" is '%.60s'; supported are silu, gelu, gelu_new, "
                    "gelu_pytorch_tanh, gelu_fast, relu",
                    s->name, key, text);
}

static trm_status read_sizes(const trmi_hf_source *s, const trmi_hf_family *f, trm_lm_config *c)
{
    const trmi_hf_keys *k = f->keys;
    double epsilon = f->epsilon;

    c->layers = f->layers;
    c->hidden = f->hidden;
    c->heads = f->heads;
    c->vocabulary = f->vocabulary;
    c->context = f->context;
    TRM_CHECK(trmi_hf_int(s, k->layers, 1, &c->layers));
    TRM_CHECK(trmi_hf_int(s, k->hidden, 1, &c->hidden));
    TRM_CHECK(trmi_hf_int(s, k->heads, 1, &c->heads));
    TRM_CHECK(trmi_hf_int(s, "vocab_size", 1, &c->vocabulary));
    TRM_CHECK(trmi_hf_int(s, k->context, 1, &c->context));
    c->feed_forward = f->feed_forward > 0 ? f->feed_forward : 4 * c->hidden;
    TRM_CHECK(trmi_hf_int(s, k->feed_forward, 1, &c->feed_forward));
    c->kv_heads =
        f->kv_heads > 0 && !trmi_hf_null(s, "num_key_value_heads") ? f->kv_heads : c->heads;
    TRM_CHECK(trmi_hf_int(s, "num_key_value_heads", 1, &c->kv_heads));
    c->head_dim = f->head_dim;
    TRM_CHECK(trmi_hf_int(s, "head_dim", 1, &c->head_dim));
    if (c->head_dim == 0 && c->hidden % c->heads != 0)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': \"%s\" %" PRId64 " is no multiple of \"%s\" %" PRId64, s->name,
                        k->hidden, c->hidden, k->heads, c->heads);
    if (c->head_dim == 0)
        c->head_dim = c->hidden / c->heads;
    TRM_CHECK(trmi_lm_json_float(s->name, s->root, k->epsilon, 1e-30, 1, &epsilon));
    c->norm_epsilon = (float)epsilon;
    return read_activation(s, k->activation, f->activation, c);
}

static trm_status read_flags(const trmi_hf_source *s, const trmi_hf_family *f, trm_lm_config *c)
{
    c->tied_embeddings = f->tied;
    TRM_CHECK(trmi_lm_json_bool(s->name, s->root, "tie_word_embeddings", &c->tied_embeddings));
    if (s->outer != s->root)
        TRM_CHECK(trmi_lm_json_bool(s->name, s->outer, "tie_word_embeddings", &c->tied_embeddings));
    c->attention_bias = f->bias == TRMI_BIAS_BY_QKV || f->bias == TRMI_BIAS_BY_ALL;
    c->output_bias = c->mlp_bias = f->bias == TRMI_BIAS_BY_ALL;
    if (f->bias == TRMI_BIAS_BY_KEY) {
        TRM_CHECK(trmi_lm_json_bool(s->name, s->root, "attention_bias", &c->attention_bias));
        c->output_bias = c->attention_bias;
    }
    c->window = trmi_hf_null(s, "sliding_window") ? 0 : f->window;
    return trmi_hf_int(s, "sliding_window", 0, &c->window);
}

static trm_status read_model(trmi_hf_source *s, trm_lm_config *c)
{
    const char *class_name = NULL;
    const trmi_hf_family *f;

    TRM_CHECK(read_class(s, &class_name));
    TRM_CHECK(trmi_lm_architecture(s->name, class_name, false, c));
    f = trmi_hf_family_of(class_name);
    if (f == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "'%s': the defaults of class '%.60s' are not known; supported are %s",
                        s->name, class_name, trm_architecture_list(false));
    if (json_is_object(json_object_get(s->outer, "text_config")))
        s->root = json_object_get(s->outer, "text_config");
    TRM_CHECK(trmi_hf_packing(s, c));
    TRM_CHECK(read_sizes(s, f, c));
    TRM_CHECK(read_flags(s, f, c));
    if (f->theta > 0) {
        c->rope_local_theta = f->rope == TRMI_ROPE_GEMMA3 ? 1e4 : 0;
        TRM_CHECK(trmi_lm_rope(s->name, s->root, f->rope, f->theta, c));
    }
    if (f->more != NULL)
        TRM_CHECK(f->more(s, c));
    c->bos = f->bos < c->vocabulary ? f->bos : -1;
    c->pad = f->pad < c->vocabulary ? f->pad : -1;
    trmi_lm_add_eos(c, f->eos);
    return TRM_OK;
}

trm_status trm_lm_config_huggingface(const char *name, const char *config, size_t config_bytes,
                                     const char *generation, size_t generation_bytes,
                                     trm_lm_config *config_out)
{
    trmi_hf_source s = {.name = name};
    trm_lm_config c;
    trm_status st;

    trmi_lm_config_init(&c);
    TRM_TRY(st, trmi_lm_json_parse(name, config, config_bytes, &s.outer), done);
    s.root = s.outer;
    TRM_TRY(st, read_model(&s, &c), done);
    TRM_TRY(st, trmi_lm_read_ids(name, s.root, &c), done);
    if (s.outer != s.root)
        TRM_TRY(st, trmi_lm_read_ids(name, s.outer, &c), done);
    if (generation != NULL)
        TRM_TRY(st, trmi_lm_read_generation(name, generation, generation_bytes, &c), done);
    TRM_TRY(st, trmi_lm_config_finish(name, &c), done);
    *config_out = c;
    memset(&c, 0, sizeof(c));
done:
    json_decref(s.outer);
    trm_lm_config_fini(&c);
    return st;
}
