/* tokenizer.json: the whole, and helpers for its parts. Truncation and padding are no business of
 * ours. */
#include "model/tokenizer/json_impl.h"

#include <string.h>

const json_t *trmi_json_get(const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);

    return json_is_null(v) ? NULL : v;
}

bool trmi_json_bool(const json_t *object, const char *name, bool otherwise)
{
    const json_t *v = json_object_get(object, name);

    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

trm_status trmi_json_text(trm_tokenizer *t, const json_t *object, const char *name,
                          const char *otherwise, trm_text *text_out)
{
    const json_t *v = trmi_json_get(object, name);

    if (v == NULL && otherwise != NULL)
        return trmi_keep(t, otherwise, strlen(otherwise), text_out);
    if (!json_is_string(v))
        return trm_fail(TRM_ERR_BAD_FILE, "\"%s\" is no string", name);
    return trmi_keep(t, json_string_value(v), json_string_length(v), text_out);
}

trm_status trmi_json_count(const json_t *object, const char *name, int64_t otherwise, int64_t most,
                           int64_t *count_out)
{
    const json_t *v = trmi_json_get(object, name);

    *count_out = otherwise;
    if (v == NULL)
        return TRM_OK;
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return trm_fail(TRM_ERR_BAD_FILE, "\"%s\" is no count", name);
    *count_out = json_integer_value(v) > most ? most : json_integer_value(v);
    return TRM_OK;
}

trm_status trmi_json_char(const json_t *object, const char *name, const char *otherwise,
                          uint32_t *char_out)
{
    const json_t *v = trmi_json_get(object, name);
    const char *text = json_is_string(v) ? json_string_value(v) : v == NULL ? otherwise : NULL;
    size_t count = json_is_string(v) ? json_string_length(v) : text == NULL ? 0 : strlen(text);
    size_t bytes = 0;

    if (text != NULL && count > 0)
        *char_out = trmi_utf8_get(text, &bytes);
    if (bytes == 0 || bytes != count)
        return trm_fail(TRM_ERR_BAD_FILE, "\"%s\" is not one character", name);
    return TRM_OK;
}

const char *trmi_json_type(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));

    return type == NULL ? "" : type;
}

trm_status trmi_json_pattern(trm_tokenizer *t, const json_t *object, trmi_regex **regex_out,
                             trm_text *text_out)
{
    const json_t *pattern = trmi_json_get(object, "pattern");
    const json_t *regex = trmi_json_get(pattern, "Regex");

    *regex_out = NULL;
    if (json_is_string(regex))
        return trmi_regex_create(json_string_value(regex), json_string_length(regex), regex_out);
    if (trmi_json_get(pattern, "String") == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "\"pattern\" is neither String nor Regex");
    TRM_CHECK(trmi_json_text(t, pattern, "String", NULL, text_out));
    /* nothing is found everywhere, as a regular expression has it */
    return text_out->count == 0 ? trmi_regex_create("", 0, regex_out) : TRM_OK;
}

static trm_status read_parts(trm_tokenizer *t, const json_t *root)
{
    const json_t *v;

    if (!json_is_object(root))
        return trm_fail(TRM_ERR_BAD_FILE, "the file is no JSON object");
    v = trmi_json_get(root, "model");
    if (!json_is_object(v))
        return trm_fail(TRM_ERR_BAD_FILE, "\"model\" is missing");
    TRM_CHECK(trmi_json_model(t, v));
    v = trmi_json_get(root, "normalizer");
    if (v != NULL)
        TRM_CHECK(trmi_json_normalizer(t, v));
    v = trmi_json_get(root, "added_tokens");
    if (v != NULL)
        TRM_CHECK(trmi_json_added(t, v));
    v = trmi_json_get(root, "pre_tokenizer");
    if (v != NULL)
        TRM_CHECK(trmi_json_pretokenizer(t, v));
    v = trmi_json_get(root, "post_processor");
    if (v != NULL)
        TRM_CHECK(trmi_json_post(t, v));
    v = trmi_json_get(root, "decoder");
    return v == NULL ? TRM_OK : trmi_json_decoder(t, v);
}

trm_status trm_tokenizer_from_json(const char *name, const void *bytes, size_t count,
                                   trm_tokenizer **tokenizer_out)
{
    trm_tokenizer *t = NULL;
    json_error_t error;
    json_t *root;
    trm_status st;

    root = json_loadb(count == 0 ? "" : bytes, count, JSON_ALLOW_NUL, &error);
    if (root == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "%s:%d: %s", name, error.line, error.text);
    TRM_TRY(st, trmi_tokenizer_create(&t), fail);
    TRM_TRY(st, read_parts(t, root), fail);
    TRM_TRY(st, trmi_tokenizer_finish(t, "from tokenizer.json"), fail);
    json_decref(root);
    *tokenizer_out = t;
    return TRM_OK;
fail:
    json_decref(root);
    trm_tokenizer_destroy(t);
    return trm_fail_context(st, "%s", name);
}
