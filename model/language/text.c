/* What turns text into tokens and back: the tokenizer, the texts of special tokens, the chat
 * template. */
#include "model/language/language_impl.h"

#include "base/log.h"

#include <inttypes.h>
#include <string.h>

#define TEMPLATE_BYTES_MAX ((size_t)4 << 20)

static trm_status no_memory(const trm_language *l)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", l->path);
}

static trm_status keep_text(const trm_language *l, const char *text, size_t bytes, char **out)
{
    char *copy = (char *)trm_malloc(bytes + 1, 1);

    if (copy == NULL)
        return no_memory(l);
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    trm_free(*out);
    *out = copy;
    return TRM_OK;
}

/* ---- tokenizer ---- */

/* `make` of the folder's file; *tokenizer_out stays NULL where it does not exist. */
static trm_status try_file(const trm_language *l, const char *folder, const char *name,
                           trm_status (*make)(const char *, const void *, size_t, trm_tokenizer **),
                           trm_tokenizer **tokenizer_out)
{
    char *path = trm_path_join(folder, name);
    trm_file *file = NULL;
    trm_status st;

    if (path == NULL)
        return no_memory(l);
    st = trm_file_open(path, &file);
    if (st == TRM_OK)
        st = make(path, trm_file_data(file), trm_file_bytes(file), tokenizer_out);
    else if (st == TRM_ERR_NOT_FOUND)
        st = TRM_OK;
    trm_file_unref(file);
    trm_free(path);
    return st;
}

static trm_status folder_tokenizer(trm_language *l, const char *folder)
{
    TRM_CHECK(try_file(l, folder, "tokenizer.json", trm_tokenizer_from_json, &l->tokenizer));
    if (l->tokenizer == NULL)
        TRM_CHECK(try_file(l, folder, "tokenizer.model", trm_tokenizer_from_sentencepiece,
                           &l->tokenizer));
    if (l->tokenizer == NULL)
        TRM_LOG(TRM_LOG_WARN, "model",
                "folder '%s' holds neither tokenizer.json nor tokenizer.model: texts cannot be "
                "read; in Python, AutoTokenizer.from_pretrained(folder).save_pretrained(folder) "
                "makes a tokenizer.json of other files",
                folder);
    return TRM_OK;
}

/* Some files have special tokens for which no row was trained (of images, say): those are refused
 * when they are used. Anything else belongs to another model. */
static trm_status check_vocabulary(const trm_language *l)
{
    size_t count = trm_tokenizer_count(l->tokenizer), bytes;
    int64_t rows = l->config.vocabulary;

    for (size_t id = (size_t)rows; id < count; id++)
        if (trm_tokenizer_token(l->tokenizer, (int32_t)id, &bytes) != NULL &&
            !trm_tokenizer_is_special(l->tokenizer, (int32_t)id))
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': the tokenizer has %zu tokens, the table of embeddings %" PRId64
                            " rows: they belong to different models",
                            l->path, count, rows);
    return TRM_OK;
}

/* ---- chat templates ---- */

static trm_status read_template_file(trm_language *l, const char *path)
{
    trm_file *file = NULL;
    trm_status st;

    TRM_CHECK(trm_file_open(path, &file));
    if (trm_file_bytes(file) > TEMPLATE_BYTES_MAX)
        st = trm_fail(TRM_ERR_BAD_FILE, "'%s' has %zu bytes: want a chat template of at most %zu",
                      path, trm_file_bytes(file), TEMPLATE_BYTES_MAX);
    else
        st = keep_text(l, (const char *)trm_file_data(file), trm_file_bytes(file), &l->chat_text);
    trm_file_unref(file);
    return st;
}

/* One of a list [{"name": .., "template": ..}]. */
static trm_status take_named(trm_language *l, const char *name, const char *text)
{
    if (strcmp(name, "default") == 0)
        return keep_text(l, text, strlen(text), &l->chat_text);
    if (strcmp(name, "tool_use") == 0)
        return keep_text(l, text, strlen(text), &l->chat_tools_text);
    return TRM_OK;
}

/* "chat_template": a string, or a list of named ones. */
static trm_status json_template(trm_language *l, const char *name, json_t *root)
{
    json_t *v = json_object_get(root, "chat_template"), *item;
    size_t i;

    if (v == NULL || json_is_null(v))
        return TRM_OK;
    if (json_is_string(v))
        return keep_text(l, json_string_value(v), json_string_length(v), &l->chat_text);
    if (!json_is_array(v))
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': \"chat_template\": want a string or a list of named templates",
                        name);
    json_array_foreach(v, i, item)
    {
        const char *key = json_string_value(json_object_get(item, "name"));
        const char *text = json_string_value(json_object_get(item, "template"));

        if (key == NULL || text == NULL)
            return trm_fail(TRM_ERR_BAD_FILE,
                            "'%s': \"chat_template\"[%zu]: want \"name\" and \"template\"", name,
                            i);
        TRM_CHECK(take_named(l, key, text));
        if (json_array_size(v) == 1 && l->chat_text == NULL)
            TRM_CHECK(keep_text(l, text, strlen(text), &l->chat_text));
    }
    return TRM_OK;
}

/* The file of its own wins over tokenizer_config.json, as in transformers. */
static trm_status folder_template(trm_language *l, const char *folder, json_t *tokenizer_config)
{
    char *path = trm_path_join(folder, "chat_template.jinja");
    json_t *root = NULL;
    trm_status st = TRM_OK;

    if (path == NULL)
        return no_memory(l);
    TRM_TRY(st, json_template(l, "tokenizer_config.json", tokenizer_config), done);
    if (trm_path_exists(path)) {
        TRM_TRY(st, read_template_file(l, path), done);
    } else if (l->chat_text == NULL) {
        TRM_TRY(st, trmi_lm_json_read(folder, "chat_template.json", &root), done);
        TRM_TRY(st, json_template(l, "chat_template.json", root), done);
    }
done:
    json_decref(root);
    trm_free(path);
    return st;
}

static trm_status gguf_template(trm_language *l)
{
    trm_text t;

    if (trm_gguf_text(l->gguf, "tokenizer.chat_template", &t))
        TRM_CHECK(keep_text(l, t.bytes, t.count, &l->chat_text));
    if (trm_gguf_text(l->gguf, "tokenizer.chat_template.tool_use", &t))
        TRM_CHECK(keep_text(l, t.bytes, t.count, &l->chat_tools_text));
    return TRM_OK;
}

/* A template of the model that is not understood makes no text unreadable: it is logged, and who
 * wants to chat is told. One that the user gave must be right. */
static trm_status compile(const trm_language *l, const char *text, const char *given,
                          trm_template **out)
{
    trm_status st;

    if (text == NULL)
        return TRM_OK;
    st = trm_template_compile(given != NULL ? given : l->path, text, strlen(text), out);
    if (st == TRM_OK || given != NULL || st == TRM_ERR_NO_MEMORY)
        return st;
    TRM_LOG(TRM_LOG_WARN, "model", "the chat template is not used: %s", trm_message());
    return TRM_OK;
}

/* ---- special tokens ---- */

/* A text from the files, else what the vocabulary calls the id. */
static trm_status special_text(const trm_language *l, const char *text, int64_t id, char **out)
{
    size_t bytes = 0;

    if (text != NULL)
        return keep_text(l, text, strlen(text), out);
    if (id < 0 || l->tokenizer == NULL)
        return TRM_OK;
    text = trm_tokenizer_token(l->tokenizer, (int32_t)id, &bytes);
    return text == NULL ? TRM_OK : keep_text(l, text, bytes, out);
}

static trm_status special_texts(trm_language *l, json_t *first, json_t *second)
{
    const trm_lm_config *c = &l->config;
    const char *bos = trmi_lm_json_token(first, "bos_token");
    const char *eos = trmi_lm_json_token(first, "eos_token");

    bos = bos == NULL ? trmi_lm_json_token(second, "bos_token") : bos;
    eos = eos == NULL ? trmi_lm_json_token(second, "eos_token") : eos;
    TRM_CHECK(special_text(l, bos, c->bos, &l->bos_text));
    return special_text(l, eos, c->eos_count > 0 ? c->eos[0] : -1, &l->eos_text);
}

/* ---- all of it ---- */

static trm_status read_folder(trm_language *l, const char *folder)
{
    json_t *config = NULL, *specials = NULL;
    trm_status st;

    TRM_TRY(st, folder_tokenizer(l, folder), done);
    TRM_TRY(st, trmi_lm_json_read(folder, "tokenizer_config.json", &config), done);
    TRM_TRY(st, trmi_lm_json_read(folder, "special_tokens_map.json", &specials), done);
    TRM_TRY(st, special_texts(l, config, specials), done);
    st = folder_template(l, folder, config);
done:
    json_decref(config);
    json_decref(specials);
    return st;
}

static trm_status read_gguf(trm_language *l)
{
    trm_status st = trm_gguf_tokenizer(l->gguf, &l->tokenizer);

    if (st == TRM_ERR_NOT_FOUND)
        TRM_LOG(TRM_LOG_WARN, "model", "%s: texts cannot be read", trm_message());
    else if (st != TRM_OK)
        return st;
    TRM_CHECK(special_texts(l, NULL, NULL));
    return gguf_template(l);
}

trm_status trmi_language_read_text(trm_language *l, const char *folder, const char *file)
{
    TRM_CHECK(l->gguf != NULL ? read_gguf(l) : read_folder(l, folder));
    if (l->tokenizer != NULL)
        TRM_CHECK(check_vocabulary(l));
    if (file != NULL) { /* instead of all that the model has */
        trm_free(l->chat_tools_text);
        l->chat_tools_text = NULL;
        TRM_CHECK(read_template_file(l, file));
    }
    TRM_CHECK(compile(l, l->chat_text, file, &l->chat));
    return compile(l, l->chat_tools_text, NULL, &l->chat_tools);
}
