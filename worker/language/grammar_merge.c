/* Two schemas as one that allows what both allow: allOf, and keywords beside anyOf or $ref. */
#include "worker/language/grammar_impl.h"

#include <string.h>

#define PAIRS_MAX 256
#define COMPARED_MAX 1000000 /* values of two lists, each with each */

enum how { FIRST, LARGER, SMALLER, SAME, BOTH, PAIRS, TYPES, UNION, COMMON, NAMES, OTHERS };
/* Keywords that both have. BOTH: allOf of the two; PAIRS: alternatives of both. */
static const struct {
    const char *name;
    enum how how;
} rows[] = {
    {"minimum", LARGER},
    {"exclusiveMinimum", LARGER},
    {"minLength", LARGER},
    {"minItems", LARGER},
    {"minProperties", LARGER},
    {"maximum", SMALLER},
    {"exclusiveMaximum", SMALLER},
    {"maxLength", SMALLER},
    {"maxItems", SMALLER},
    {"maxProperties", SMALLER},
    {"pattern", SAME},
    {"format", SAME},
    {"multipleOf", SAME},
    {"const", SAME},
    {"prefixItems", SAME},
    {"additionalItems", SAME},
    {"patternProperties", SAME},
    {"not", SAME},
    {"if", SAME},
    {"contains", SAME},
    {"propertyNames", SAME},
    {"items", BOTH},
    {"anyOf", PAIRS},
    {"oneOf", PAIRS},
    {"type", TYPES},
    {"required", UNION},
    {"enum", COMMON},
    {"properties", NAMES},
    {"additionalProperties", OTHERS},
};

static json_t *keep(trmi_builder *b, json_t *made)
{
    if (made == NULL || json_array_append_new(b->kept, made) != 0) {
        (void)trmi_build_fail(b, TRM_ERR_NO_MEMORY, "a grammar");
        return NULL;
    }
    return made;
}

static json_t *both(const json_t *x, const json_t *y)
{
    if (x == y || json_is_true(y))
        return json_incref((json_t *)(uintptr_t)x);
    if (json_is_true(x))
        return json_incref((json_t *)(uintptr_t)y);
    if (json_is_false(x) || json_is_false(y))
        return json_false();
    return json_pack("{s:[O,O]}", "allOf", x, y);
}

static bool has(const json_t *list, const json_t *v)
{
    const json_t *w;
    size_t i;

    json_array_foreach(list, i, w)
    {
        if (json_equal(v, w))
            return true;
    }
    return false;
}

/* Type x as y allows it: an integer is a number. NULL: not at all. */
static const char *common_type(const json_t *x, const json_t *types)
{
    const char *name = json_string_value(x);
    const json_t *v;
    size_t i;

    if (json_is_string(types) ? json_equal(x, types) : has(types, x))
        return name;
    for (i = 0; name != NULL && i < (json_is_array(types) ? json_array_size(types) : 1); i++) {
        v = json_is_array(types) ? json_array_get(types, i) : types;
        if (json_is_string(v) &&
            ((strcmp(name, "integer") == 0 && strcmp(json_string_value(v), "number") == 0) ||
             (strcmp(name, "number") == 0 && strcmp(json_string_value(v), "integer") == 0)))
            return "integer";
    }
    return NULL;
}

static json_t *common_types(const json_t *x, const json_t *y)
{
    json_t *out = json_array();
    const char *name;

    for (size_t i = 0; out != NULL && i < (json_is_array(x) ? json_array_size(x) : 1); i++) {
        name = common_type(json_is_array(x) ? json_array_get(x, i) : x, y);
        if (name != NULL)
            (void)json_array_append_new(out, json_string(name));
    }
    return out;
}

static json_t *joined(trmi_builder *b, const char *name, const json_t *x, const json_t *y,
                      bool common)
{
    json_t *out = json_array();
    json_t *v;
    size_t i;

    if (json_array_size(x) * json_array_size(y) > COMPARED_MAX) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "two '%s' that must both hold are too long together", name);
        return out;
    }

    json_array_foreach(x, i, v)
    {
        if (!common || has(y, v))
            (void)json_array_append(out, v);
    }
    json_array_foreach(y, i, v)
    {
        if (!common && !has(x, v))
            (void)json_array_append(out, v);
    }
    return out;
}

static json_t *pairs(trmi_builder *b, const char *name, const json_t *x, const json_t *y)
{
    json_t *out = json_array();
    json_t *v, *w;
    size_t i, k;

    if (json_array_size(x) * json_array_size(y) > PAIRS_MAX) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "two '%s' that must both hold have more than %d combinations", name,
                               PAIRS_MAX);
        return out;
    }
    json_array_foreach(x, i, v)
    {
        json_array_foreach(y, k, w)(void) json_array_append_new(out, both(v, w));
    }
    return out;
}

/* Properties of both; one that only x describes is for y one of the others. */
static json_t *joined_properties(const json_t *x, const json_t *y)
{
    const json_t *xp = json_object_get(x, "properties"), *yp = json_object_get(y, "properties");
    const json_t *x_others = json_object_get(x, "additionalProperties"),
                 *y_others = json_object_get(y, "additionalProperties");
    json_t *out = json_object();
    const char *key;
    json_t *v, *w;

    json_object_foreach((json_t *)(uintptr_t)xp, key, v)
    {
        w = json_object_get(yp, key);
        if (w != NULL)
            (void)json_object_set_new(out, key, both(v, w));
        else if (y_others != NULL)
            (void)json_object_set_new(out, key, both(v, y_others));
        else
            (void)json_object_set(out, key, v);
    }
    json_object_foreach((json_t *)(uintptr_t)yp, key, v)
    {
        if (json_object_get(out, key) != NULL)
            continue;
        if (x_others != NULL)
            (void)json_object_set_new(out, key, both(v, x_others));
        else
            (void)json_object_set(out, key, v);
    }
    return out;
}

static enum how how_of(const char *name)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(rows[i].name, name) == 0)
            return rows[i].how;
    return FIRST;
}

/* Both schemas have `key`. NULL: the first one's stays. */
static json_t *combined(trmi_builder *b, const char *key, const json_t *x, const json_t *y)
{
    bool larger = json_number_value(x) < json_number_value(y);

    switch (how_of(key)) {
    case LARGER:
    case SMALLER:
        if (json_is_boolean(x) || json_is_boolean(y))
            break; /* draft 4: must be the same */
        return larger == (how_of(key) == LARGER) ? json_incref((json_t *)(uintptr_t)y) : NULL;
    case SAME:
        break;
    case BOTH:
    case OTHERS:
        return both(x, y);
    case PAIRS:
        return pairs(b, key, x, y);
    case TYPES:
        return common_types(x, y);
    case UNION:
        return joined(b, key, x, y, false);
    case COMMON:
        return joined(b, key, x, y, true);
    case FIRST:
    case NAMES:
        return NULL;
    }
    if (!json_equal(x, y))
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "two different '%s' that must both hold are not done", key);
    return NULL;
}

/* Without $ref and allOf of its own. */
static const json_t *flat(trmi_builder *b, const json_t *s, int depth)
{
    const char *ref = json_string_value(json_object_get(s, "$ref"));
    const json_t *all = json_object_get(s, "allOf"), *v, *result;
    json_t *rest;
    size_t i;

    b->work += 1 + json_object_size(json_object_get(s, "properties")) / 16;
    if (depth > TRMI_GRAMMAR_NEST_MAX / 2 || b->work > TRMI_GRAMMAR_WORK_MAX) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "allOf or $ref nests too deep, or refers to itself");
        return NULL;
    }
    if (!json_is_object(s) || (ref == NULL && !json_is_array(all)))
        return s;
    rest = keep(b, json_copy((json_t *)(uintptr_t)s));
    if (rest == NULL)
        return NULL;
    (void)json_object_del(rest, "$ref");
    (void)json_object_del(rest, "allOf");
    result = rest;
    if (ref != NULL) {
        v = trmi_schema_resolve(b, ref);
        result = v == NULL ? NULL : trmi_schema_merge(b, v, result, depth + 1);
    }
    json_array_foreach(all, i, v)
    {
        if (result != NULL)
            result = trmi_schema_merge(b, result, v, depth + 1);
    }
    return result;
}

/* Whether the two share no type. */
static bool excludes(const json_t *s)
{
    const json_t *types = json_object_get(s, "type"), *values = json_object_get(s, "enum");

    return (json_is_array(types) && json_array_size(types) == 0) ||
           (json_is_array(values) && json_array_size(values) == 0);
}

const json_t *trmi_schema_merge(trmi_builder *b, const json_t *x, const json_t *y, int depth)
{
    const char *key;
    json_t *out, *v;

    x = b->st != TRM_OK ? NULL : flat(b, x, depth);
    y = x == NULL ? NULL : flat(b, y, depth);
    if (y == NULL)
        return NULL;
    if (json_is_true(x) || json_is_false(y))
        return y;
    if (json_is_true(y) || json_is_false(x))
        return x;
    if (!json_is_object(x) || !json_is_object(y)) {
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "want a schema: an object, true or false");
        return NULL;
    }
    out = keep(b, json_copy((json_t *)(uintptr_t)x));
    if (out == NULL)
        return NULL;
    json_object_foreach((json_t *)(uintptr_t)y, key, v)
    {
        const json_t *old = json_object_get(x, key);
        json_t *made = old == NULL ? json_incref(v) : combined(b, key, old, v);

        if (made != NULL)
            (void)json_object_set_new(out, key, made);
        if (b->st != TRM_OK)
            return NULL;
    }
    if (json_object_get(x, "properties") != NULL || json_object_get(y, "properties") != NULL)
        (void)json_object_set_new(out, "properties", joined_properties(x, y));
    if (json_is_true(json_object_get(out, "nullable")) &&
        ((json_object_get(x, "type") != NULL && !json_is_true(json_object_get(x, "nullable"))) ||
         (json_object_get(y, "type") != NULL && !json_is_true(json_object_get(y, "nullable")))))
        (void)json_object_del(out, "nullable"); /* null must be allowed by both */
    return excludes(out) ? keep(b, json_false()) : out;
}
