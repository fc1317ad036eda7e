/* JSON files that strangers wrote. */
#include "model/language/language_impl.h"

#include <inttypes.h>

#define JSON_BYTES_MAX ((size_t)64 << 20) /* the largest known, a shard index, has a few MB */

trm_status trmi_lm_json_parse(const char *name, const char *text, size_t bytes, json_t **root_out)
{
    json_error_t e;
    json_t *root;

    if (bytes > JSON_BYTES_MAX)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' has %zu bytes: want at most %zu", name, bytes,
                        JSON_BYTES_MAX);
    root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &e);
    if (root == NULL)
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' line %d column %d: %s", name, e.line, e.column,
                        e.text);
    if (!json_is_object(root)) {
        json_decref(root);
        return trm_fail(TRM_ERR_BAD_FILE, "'%s' is no JSON object {...}", name);
    }
    *root_out = root;
    return TRM_OK;
}

trm_status trmi_lm_json_read(const char *folder, const char *file, json_t **root_out)
{
    char *path = trm_path_join(folder, file);
    trm_file *f = NULL;
    trm_status st;

    *root_out = NULL;
    if (path == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "'%s'", folder);
    st = trm_file_open(path, &f);
    if (st == TRM_OK)
        st = trmi_lm_json_parse(path, (const char *)trm_file_data(f), trm_file_bytes(f), root_out);
    else if (st == TRM_ERR_NOT_FOUND)
        st = TRM_OK;
    trm_file_unref(f);
    trm_free(path);
    return st;
}

static trm_status wrong(const char *name, const char *key, const char *wanted)
{
    return trm_fail(TRM_ERR_BAD_FILE, "'%s': \"%s\": want %s", name, key, wanted);
}

trm_status trmi_lm_json_int(const char *name, json_t *object, const char *key, int64_t low,
                            int64_t high, int64_t *out)
{
    json_t *v = json_object_get(object, key);
    int64_t n;

    if (v == NULL || json_is_null(v))
        return TRM_OK;
    if (!json_is_integer(v))
        return wrong(name, key, "a whole number");
    n = json_integer_value(v);
    if (n < low || n > high)
        return trm_fail(TRM_ERR_BAD_FILE,
                        "'%s': \"%s\" is %" PRId64 ": want %" PRId64 " to %" PRId64, name, key, n,
                        low, high);
    *out = n;
    return TRM_OK;
}

trm_status trmi_lm_json_float(const char *name, json_t *object, const char *key, double low,
                              double high, double *out)
{
    json_t *v = json_object_get(object, key);
    double x;

    if (v == NULL || json_is_null(v))
        return TRM_OK;
    if (!json_is_number(v))
        return wrong(name, key, "a number");
    x = json_number_value(v);
    if (!(x >= low && x <= high))
        return trm_fail(TRM_ERR_BAD_FILE, "'%s': \"%s\" is %g: want %g to %g", name, key, x, low,
                        high);
    *out = x;
    return TRM_OK;
}

trm_status trmi_lm_json_bool(const char *name, json_t *object, const char *key, bool *out)
{
    json_t *v = json_object_get(object, key);

    if (v == NULL || json_is_null(v))
        return TRM_OK;
    if (!json_is_boolean(v))
        return wrong(name, key, "true or false");
    *out = json_is_true(v);
    return TRM_OK;
}

trm_status trmi_lm_json_text(const char *name, json_t *object, const char *key, const char **out)
{
    json_t *v = json_object_get(object, key);

    if (v == NULL || json_is_null(v))
        return TRM_OK;
    if (!json_is_string(v))
        return wrong(name, key, "a string");
    *out = json_string_value(v);
    return TRM_OK;
}

const char *trmi_lm_json_token(json_t *object, const char *key)
{
    json_t *v = json_object_get(object, key);

    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}
