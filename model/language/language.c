/* A language model as a user hands it over, opened: configuration, weights, text, graph. */
#include "base/hash.h"
#include "model/architectures/architecture.h"
#include "model/language/language_impl.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

static trm_status no_memory(const char *path)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", path);
}

static bool has_extension(const char *path, const char *extension)
{
    return strcmp(trm_path_extension(path), extension) == 0;
}

static bool holds(const char *folder, const char *name)
{
    char *path = trm_path_join(folder, name);
    bool there = path != NULL && trm_path_exists(path);

    trm_free(path);
    return there;
}

static bool has_weights(const char *folder)
{
    return holds(folder, "model.safetensors") || holds(folder, "model.safetensors.index.json");
}

bool trm_language_is(const char *path)
{
    if (trm_path_is_dir(path)) /* with both it stays the ONNX network that it always was */
        return holds(path, "config.json") && !holds(path, "model.onnx");
    return trm_path_is_file(path) &&
           (has_extension(path, "gguf") || has_extension(path, "safetensors"));
}

/* ---- what is no language model ---- */

static trm_status wrong_file(const char *path)
{
    static const char *const pickles[] = {"bin", "pt", "pth", "ckpt"};

    for (size_t i = 0; i < sizeof(pickles) / sizeof(pickles[0]); i++)
        if (has_extension(path, pickles[i]))
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "'%s' is a PyTorch checkpoint, a program that only PyTorch may run; "
                            "convert to safetensors, in Python: from transformers import "
                            "AutoModelForCausalLM; AutoModelForCausalLM.from_pretrained(FOLDER)"
                            ".save_pretrained(NEW_FOLDER), and give NEW_FOLDER here",
                            path);
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "'%s' is no language model: supported are folders with config.json and "
                    "safetensors, .safetensors files beside their config.json, and .gguf files",
                    path);
}

static trm_status check_folder(const char *folder)
{
    if (!holds(folder, "config.json") && holds(folder, "adapter_config.json"))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "folder '%s' holds an adapter (LoRA), not a model; merge it into its model "
                        "first, in Python: PeftModel.merge_and_unload()",
                        folder);
    if (!has_weights(folder) && holds(folder, "model.onnx"))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "folder '%s' holds an ONNX network and no weights in safetensors: it runs "
                        "as a network of tensors (trireme run), not as a language model",
                        folder);
    if (!holds(folder, "config.json"))
        return trm_fail(TRM_ERR_NOT_FOUND,
                        "folder '%s' has no config.json: it is no language model", folder);
    return TRM_OK;
}

/* ---- folders ---- */

/* "model-00002-of-00003.safetensors": its index, and so its folder, is meant. */
static bool is_shard(const char *path)
{
    static const char form[] = "-00000-of-00000.safetensors";
    size_t n = strlen(path), m = sizeof(form) - 1;

    if (n < m)
        return false;
    for (size_t i = 0; i < m; i++) {
        unsigned char c = (unsigned char)path[n - m + i];

        if (form[i] == '0' ? !isdigit(c) : c != (unsigned char)form[i])
            return false;
    }
    return true;
}

/* The file of a folder; *file_out NULL where it does not exist. */
static trm_status open_in(const char *folder, const char *name, char **path_out,
                          trm_file **file_out)
{
    trm_status st;

    *path_out = trm_path_join(folder, name);
    if (*path_out == NULL)
        return no_memory(folder);
    st = trm_file_open(*path_out, file_out);
    return st == TRM_ERR_NOT_FOUND ? TRM_OK : st;
}

static trm_status read_config(trm_language *l, const char *folder)
{
    trm_file *config = NULL, *generation = NULL;
    char *config_path = NULL, *generation_path = NULL;
    trm_status st;

    TRM_TRY(st, open_in(folder, "config.json", &config_path, &config), done);
    TRM_TRY(st, open_in(folder, "generation_config.json", &generation_path, &generation), done);
    if (config == NULL) {
        st = trm_fail(TRM_ERR_NOT_FOUND, "'%s' is missing: it says what model the weights are of",
                      config_path);
        goto done;
    }
    st = trm_lm_config_huggingface(
        config_path, (const char *)trm_file_data(config), trm_file_bytes(config),
        generation == NULL ? NULL : (const char *)trm_file_data(generation),
        generation == NULL ? 0 : trm_file_bytes(generation), &l->config);
done:
    trm_file_unref(config);
    trm_file_unref(generation);
    trm_free(config_path);
    trm_free(generation_path);
    return st;
}

static trm_status open_folder(trm_language *l, const char *folder)
{
    bool whole = trm_path_is_dir(l->path) || is_shard(l->path);
    const trm_architecture *a;

    if (trm_path_is_dir(l->path))
        TRM_CHECK(check_folder(folder));
    TRM_CHECK(read_config(l, folder));
    a = trm_architecture_named(l->config.architecture);
    if (a != NULL && a->encoder && l->config.labels == 0)
        TRM_CHECK(trmi_sentence_read(folder, &l->config));
    else if (holds(folder, "modules.json"))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "folder '%s' is an embedding model (modules.json) on top of a %s; "
                        "supported are those on BERT, RoBERTa and XLM-RoBERTa",
                        folder, l->config.source_name);
    return trm_weights_open_safetensors(whole ? folder : l->path, &l->weights);
}

static trm_status open_gguf(trm_language *l)
{
    TRM_CHECK(trm_gguf_open(l->path, &l->gguf));
    /* not to be changed, and closed with the file */
    l->weights = l->gguf->weights;
    l->gguf_file = true;
    return trm_lm_config_gguf(l->gguf, &l->config);
}

/* ---- opening ---- */

static trm_status set_context(trm_language *l, int64_t wanted)
{
    int64_t most = trm_lm_context_max(&l->config);

    if (wanted < 0 || wanted > most)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "a context of %" PRId64 " tokens: '%s' takes 1 to %" PRId64, wanted,
                        l->path, most);
    l->context = wanted > 0 ? wanted : l->config.context;
    return TRM_OK;
}

static trm_status open_model(trm_language *l, const char *folder,
                             const trm_language_options *options)
{
    const trm_architecture *a;
    trm_status st;

    TRM_CHECK(has_extension(l->path, "gguf") && !trm_path_is_dir(l->path) ? open_gguf(l)
                                                                          : open_folder(l, folder));
    TRM_CHECK(set_context(l, options->context));
    if (options->dtype != TRM_DTYPE_NONE && options->dtype != TRM_DTYPE_BF16)
        return trm_fail(TRM_ERR_INVALID_ARG, "activations in %s: supported are none and bf16",
                        trm_dtype_name(options->dtype));
    l->dtype = options->dtype;
    l->as_weights = options->as_weights;
    a = trm_architecture_named(l->config.architecture);
    l->encoder = a != NULL && a->encoder;
    if (!options->no_tokenizer)
        TRM_CHECK(trmi_language_read_text(l, folder, options->chat_template));
    st = trm_architecture_build(&l->config, l->weights, options, &l->graph);
    return st == TRM_OK ? st : trm_fail_context(st, "'%s'", l->path);
}

trm_status trm_language_open(const char *path, const trm_language_options *options,
                             trm_language **language_out)
{
    const trm_language_options none = {.context = 0};
    trm_language *l = NULL;
    char *folder = NULL;
    trm_status st = TRM_OK;

    if (!trm_path_exists(path))
        return trm_fail(TRM_ERR_NOT_FOUND, "'%s' does not exist", path);
    if (!trm_path_is_dir(path) && !has_extension(path, "gguf") &&
        !has_extension(path, "safetensors"))
        return wrong_file(path);
    l = (trm_language *)trm_calloc(1, sizeof(*l));
    if (l == NULL)
        return no_memory(path);
    l->path = trm_strdup(path);
    folder = trm_path_is_dir(path) ? trm_strdup(path) : trm_path_dir(path);
    if (l->path == NULL || folder == NULL) {
        st = no_memory(path);
        goto done;
    }
    TRM_TRY(st, open_model(l, folder, options == NULL ? &none : options), done);
    *language_out = l;
    l = NULL;
done:
    trm_free(folder);
    trm_language_close(l);
    return st;
}

trm_status trm_language_read_text(trm_language *l, const char *chat_template)
{
    char *folder = trm_path_is_dir(l->path) ? trm_strdup(l->path) : trm_path_dir(l->path);
    trm_status st;

    if (folder == NULL)
        return no_memory(l->path);
    st = trmi_language_read_text(l, folder, chat_template);
    trm_free(folder);
    return st;
}

void trm_language_close(trm_language *l)
{
    if (l == NULL)
        return;
    trm_graph_destroy(l->graph);
    trm_template_destroy(l->chat);
    trm_template_destroy(l->chat_tools);
    trm_tokenizer_destroy(l->tokenizer);
    if (l->gguf == NULL)
        trm_weights_close(l->weights);
    trm_gguf_close(l->gguf);
    trm_lm_config_fini(&l->config);
    trm_free(l->chat_text);
    trm_free(l->chat_tools_text);
    trm_free(l->bos_text);
    trm_free(l->eos_text);
    trm_free(l->path);
    trm_free(l);
}

/* ---- identity ---- */

static void hash_double(trm_hash *h, double v)
{
    uint64_t bits;

    memcpy(&bits, &v, sizeof(bits));
    trm_hash_u64(h, bits);
}

static void hash_config(trm_hash *h, const trm_lm_config *c)
{
    const int64_t numbers[] = {c->gguf,
                               c->layers,
                               c->hidden,
                               c->feed_forward,
                               c->heads,
                               c->kv_heads,
                               c->head_dim,
                               c->vocabulary,
                               c->context,
                               c->tied_embeddings,
                               c->attention_bias,
                               c->output_bias,
                               c->mlp_bias,
                               c->qk_norm,
                               c->window,
                               c->rotary_dim,
                               c->rope_interleaved,
                               (int64_t)c->rope_scaling,
                               c->rope_original_context,
                               c->experts,
                               c->experts_used,
                               c->expert_feed_forward,
                               c->experts_normalize,
                               c->experts_every,
                               c->token_types,
                               c->position_offset,
                               c->labels,
                               c->pooling_normalize,
                               c->tokens_max};
    const double reals[] = {(double)c->norm_epsilon,
                            (double)c->attention_scale,
                            (double)c->attention_softcap,
                            (double)c->logit_softcap,
                            c->rope_theta,
                            c->rope_local_theta,
                            c->rope_factor,
                            c->rope_low_freq_factor,
                            c->rope_high_freq_factor,
                            c->rope_beta_fast,
                            c->rope_beta_slow,
                            c->rope_attention_factor,
                            c->rope_mscale,
                            c->rope_mscale_all_dim,
                            (double)c->embedding_scale,
                            (double)c->norm_offset};

    trm_hash_text(h, c->architecture);
    trm_hash_text(h, c->source_name);
    trm_hash_text(h, c->activation);
    trm_hash_text(h, c->pooling);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        trm_hash_u64(h, (uint64_t)numbers[i]);
    for (size_t i = 0; i < sizeof(reals) / sizeof(reals[0]); i++)
        hash_double(h, reals[i]);
    for (int64_t i = 0; i < c->layers; i++)
        trm_hash_u64(h, trm_lm_layer_windowed(c, i));
    for (int64_t i = 0; i < c->rope_factor_count; i++) {
        hash_double(h, c->rope_short[i]);
        hash_double(h, c->rope_long[i]);
    }
}

trm_status trm_language_identity(const trm_language *l, uint64_t *hash_out)
{
    trm_hash h;

    trm_hash_init(&h, 0);
    for (size_t i = 0; i < l->weights->file_count; i++)
        TRM_CHECK(trm_hash_file(&h, trm_file_path(l->weights->files[i])));
    hash_config(&h, &l->config);
    trm_hash_u64(&h, (uint64_t)l->context);
    trm_hash_u64(&h, (uint64_t)l->dtype + (l->as_weights ? 256 : 0));
    *hash_out = trm_hash_value(&h);
    return TRM_OK;
}
