/* Folders of sentence-transformers: modules.json lists what follows the network (pooling,
 * normalization), each with a folder of its own. Keys: sentence-transformers 6.2, and the older
 * spelling with one flag a mode. */
#include "model/language/language_impl.h"

#include <stdio.h>
#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Modes that are built, as files spell them. */
static const char *mode_of(const char *text)
{
    static const char *const names[][2] = {{"mean", "mean"}, {"cls", "cls"}, {"lasttoken", "last"}};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(text, names[i][0]) == 0)
            return names[i][1];
    return NULL;
}

static trm_status refuse_mode(const char *path, const char *mode)
{
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "'%s': pooling '%.60s'; supported is one of mean, cls, lasttoken", path, mode);
}

/* The old spelling: flags, of which just one may be set; none is mean. */
static trm_status read_flags(const char *path, json_t *root, const char **mode_out)
{
    static const char *const flags[][2] = {
        {"pooling_mode_cls_token", "cls"},
        {"pooling_mode_mean_tokens", "mean"},
        {"pooling_mode_lasttoken", "lasttoken"},
        {"pooling_mode_max_tokens", "max"},
        {"pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens"},
        {"pooling_mode_weightedmean_tokens", "weightedmean"},
    };
    const char *mode = NULL;

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        bool on = false;

        TRM_CHECK(trmi_lm_json_bool(path, root, flags[i][0], &on));
        if (on && mode != NULL)
            return refuse_mode(path, "of two modes");
        if (on)
            mode = flags[i][1];
    }
    *mode_out = mode == NULL ? "mean" : mode;
    return TRM_OK;
}

static trm_status read_pooling(const char *path, json_t *root, trm_lm_config *c)
{
    const char *mode = NULL;
    bool prompt = true;

    if (json_array_size(json_object_get(root, "pooling_mode")) > 0)
        return refuse_mode(path, "of a list");
    TRM_CHECK(trmi_lm_json_text(path, root, "pooling_mode", &mode));
    if (mode == NULL)
        TRM_CHECK(read_flags(path, root, &mode));
    TRM_CHECK(trmi_lm_json_bool(path, root, "include_prompt", &prompt));
    if (!prompt)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'%s': \"include_prompt\": false", path);
    if (mode_of(mode) == NULL)
        return refuse_mode(path, mode);
    snprintf(c->pooling, sizeof(c->pooling), "%s", mode_of(mode));
    return TRM_OK;
}

/* A module's folder is a plain name in the model's folder. */
static trm_status read_pooling_module(const char *folder, const char *path, const char *name,
                                      trm_lm_config *c)
{
    char file[TRMI_NAME_BYTES + 16];
    json_t *root = NULL;
    trm_status st;

    if (name[0] == '.' || name[0] == '/' || strstr(name, "..") != NULL || name[0] == '\0' ||
        !trmi_name_ok(name, strlen(name)))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': a module's path is '%.200s': want a folder's name",
                        path, name);
    snprintf(file, sizeof(file), "%s/config.json", name);
    TRM_CHECK(trmi_lm_json_read(folder, file, &root));
    if (root == NULL)
        return trm_fail(TRM_ERR_NOT_FOUND, "'%s' names '%s', which is missing", path, file);
    st = read_pooling(file, root, c);
    json_decref(root);
    return st;
}

static trm_status read_module(const char *folder, const char *path, json_t *module,
                              trm_lm_config *c)
{
    const char *type = json_string_value(json_object_get(module, "type"));
    const char *name = json_string_value(json_object_get(module, "path"));

    if (type == NULL || name == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': want a list of objects with \"type\" and \"path\"",
                        path);
    if (ends_with(type, ".Transformer")) {
        if (name[0] != '\0')
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "'%s': the network lies in the folder '%.200s': give that folder", path,
                            name);
        return TRM_OK;
    }
    if (ends_with(type, ".Pooling"))
        return read_pooling_module(folder, path, name, c);
    if (ends_with(type, ".Normalize")) {
        c->pooling_normalize = true;
        return TRM_OK;
    }
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "'%s': module '%.100s'; supported are Transformer, Pooling, Normalize", path,
                    type);
}

/* modules.json is a list, so that it is wrapped to be parsed as an object. */
static trm_status read_modules(const char *folder, const char *path, const trm_file *file,
                               trm_lm_config *c)
{
    json_error_t e;
    json_t *root = NULL, *module;
    trm_status st = TRM_OK;
    size_t i;

    if (trm_file_bytes(file) > 1 << 20)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' has %zu bytes: want at most a MiB", path,
                        trm_file_bytes(file));
    root = json_loadb((const char *)trm_file_data(file), trm_file_bytes(file),
                      JSON_REJECT_DUPLICATES, &e);
    if (root == NULL || !json_is_array(root)) {
        st = trm_fail(TRM_ERR_BAD_FILE, "'%s' line %d: %s", path, root == NULL ? e.line : 1,
                      root == NULL ? e.text : "want a list of modules");
        goto done;
    }
    json_array_foreach(root, i, module) TRM_TRY(st, read_module(folder, path, module, c), done);
done:
    json_decref(root);
    return st;
}

/* Where texts are cut: max_seq_length, else the tokenizer's limit; never past the positions. */
static trm_status read_limit(const char *folder, trm_lm_config *c)
{
    static const char *const files[] = {"sentence_bert_config.json", "sentence_roberta_config.json",
                                        "sentence_xlm-roberta_config.json"};
    int64_t most = 0;
    double limit = 0;
    json_t *root = NULL;
    trm_status st = TRM_OK;

    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]) && most == 0 && st == TRM_OK; i++) {
        st = trmi_lm_json_read(folder, files[i], &root);
        if (st == TRM_OK)
            st = trmi_lm_json_int(files[i], root, "max_seq_length", 1, INT64_MAX, &most);
        json_decref(root);
        root = NULL;
    }
    if (st == TRM_OK && most == 0) {
        st = trmi_lm_json_read(folder, "tokenizer_config.json", &root);
        if (st == TRM_OK) /* may be 1e30: none */
            st = trmi_lm_json_float("tokenizer_config.json", root, "model_max_length", 0, 1e300,
                                    &limit);
        if (limit >= 1 && limit < (double)c->context)
            most = (int64_t)limit;
        json_decref(root);
    }
    c->tokens_max = most < c->context ? most : 0;
    return st;
}

trm_status trmi_sentence_read(const char *folder, trm_lm_config *c)
{
    char *path = trm_path_join(folder, "modules.json");
    trm_file *file = NULL;
    trm_status st;

    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", folder);
    snprintf(c->pooling, sizeof(c->pooling), "mean");
    st = trm_file_open(path, &file);
    if (st == TRM_OK)
        st = read_modules(folder, path, file, c);
    else if (st == TRM_ERR_NOT_FOUND)
        st = TRM_OK;
    trm_file_unref(file);
    trm_free(path);
    return st == TRM_OK ? read_limit(folder, c) : st;
}
