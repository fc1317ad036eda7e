/* A JSON schema's keywords. Each schema becomes a rule, made once however often it is referred to;
 * rules are compiled from a queue, so that recursion costs no stack. */
#include "worker/language/grammar_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { SAYS, SILENT, REFUSED };
static const struct {
    const char *name;
    enum kind kind;
} keywords[] = {
    {"type", SAYS},
    {"properties", SAYS},
    {"required", SAYS},
    {"items", SAYS},
    {"additionalItems", SAYS},
    {"additionalProperties", SAYS},
    {"prefixItems", SAYS},
    {"patternProperties", SAYS},
    {"minItems", SAYS},
    {"maxItems", SAYS},
    {"uniqueItems", SAYS},
    {"minLength", SAYS},
    {"maxLength", SAYS},
    {"pattern", SAYS},
    {"format", SAYS},
    {"minimum", SAYS},
    {"maximum", SAYS},
    {"exclusiveMinimum", SAYS},
    {"exclusiveMaximum", SAYS},
    {"multipleOf", SAYS},
    {"enum", SAYS},
    {"const", SAYS},
    {"anyOf", SAYS},
    {"oneOf", SAYS},
    {"allOf", SAYS},
    {"$ref", SAYS},
    {"nullable", SAYS},
    {"minProperties", SAYS},
    {"maxProperties", SAYS},
    {"not", REFUSED},
    {"if", REFUSED},
    {"then", SILENT},
    {"else", SILENT},
    {"contains", REFUSED},
    {"propertyNames", REFUSED},
    {"dependencies", REFUSED},
    {"dependentRequired", REFUSED},
    {"dependentSchemas", REFUSED},
    {"unevaluatedItems", REFUSED},
    {"unevaluatedProperties", REFUSED},
    {"$dynamicRef", REFUSED},
    {"$recursiveRef", REFUSED},
    {"disallow", REFUSED},
    {"extends", REFUSED},
};

static enum kind kind_of(const char *name)
{
    for (size_t i = 0; i < sizeof(keywords) / sizeof(keywords[0]); i++)
        if (strcmp(keywords[i].name, name) == 0)
            return keywords[i].kind;
    return SILENT; /* annotations, and what nobody knows */
}

bool trmi_schema_says(const json_t *schema, const char *but)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)schema, key, v)
    {
        if (kind_of(key) != SILENT && (but == NULL || strcmp(key, but) != 0))
            return true;
    }
    return false;
}

int64_t trmi_schema_count(trmi_builder *b, const json_t *schema, const char *key, int64_t none)
{
    const json_t *v = json_object_get(schema, key);
    json_int_t n = json_is_real(v) && json_real_value(v) >= 0 && json_real_value(v) < 1e15 &&
                           json_real_value(v) == (double)(json_int_t)json_real_value(v)
                       ? (json_int_t)json_real_value(v)
                   : json_is_integer(v) ? json_integer_value(v)
                                        : -1;

    if (v == NULL)
        return none;
    if (n < 0)
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'%s': want an integer of at least 0", key);
    return n < 0 ? 0 : n > INT32_MAX ? INT32_MAX : n;
}

/* ---- rules ---- */

static const char *path_below(trmi_builder *b, const char *name)
{
    char path[256];
    int n = name[0] == '#' || name[0] == '\0'
                ? snprintf(path, sizeof(path), "%s", name[0] == '\0' ? "#" : name)
                : snprintf(path, sizeof(path), "%s/%s", b->path != NULL ? b->path : "#", name);
    char *copy;

    if (n >= (int)sizeof(path)) /* what matters is the end of it */
        snprintf(path, sizeof(path), "#/../%.200s", name);
    copy = trm_arena_strdup(b->arena, path);
    return copy != NULL ? copy : "#";
}

/* A schema that was put together: the same text is the same rule, or recursion would never end. */
static int rule_by_text(trmi_builder *b, const json_t *schema, const char *name)
{
    char *text = json_dumps(schema, JSON_COMPACT | JSON_ENCODE_ANY), *key;
    size_t bytes = text == NULL ? 0 : strlen(text);
    int rule = 0;

    b->work += bytes / 64 + 1;
    if (b->work > TRMI_GRAMMAR_WORK_MAX)
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "allOf and anyOf make too many schemas");
    key = text == NULL ? NULL : trm_arena_alloc(b->arena, bytes + 40, 1);
    if (key == NULL) {
        (void)trmi_build_fail(b, TRM_ERR_NO_MEMORY, "a grammar");
    } else {
        snprintf(key, bytes + 40, "in %p %s", (const void *)b->root, text);
        rule = trmi_memo_get(b, key);
        if (rule < 0) {
            rule = trmi_build_rule_new(b, schema, path_below(b, name));
            trmi_memo_put(b, key, rule);
        }
    }
    free(text);
    return rule;
}

int trmi_schema_rule(trmi_builder *b, const json_t *schema, const char *name)
{
    char key[40];
    int rule;

    if (b->st != TRM_OK)
        return 0;
    snprintf(key, sizeof(key), "at %p", (const void *)schema);
    rule = trmi_memo_get(b, key);
    if (rule >= 0)
        return rule;
    rule = json_object_size(schema) == 1 && json_object_get(schema, "allOf") != NULL
               ? rule_by_text(b, schema, name)
               : trmi_build_rule_new(b, schema, path_below(b, name));
    trmi_memo_put(b, key, rule);
    return rule;
}

static int made_rule(trmi_builder *b, json_t *schema, const char *name)
{
    if (b->st != TRM_OK || schema == NULL || json_array_append_new(b->kept, schema) != 0) {
        (void)trmi_build_fail(b, TRM_ERR_NO_MEMORY, "a grammar");
        return 0;
    }
    return rule_by_text(b, schema, name);
}

/* ---- references ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* One step of a JSON pointer (RFC 6901) within a URI: %XX, ~0 and ~1. Returns what follows it. */
static const char *pointer_step(const char *at, char *out, size_t room)
{
    size_t n = 0;

    for (; *at != '\0' && *at != '/'; at++) {
        char c = *at;

        if (c == '%' && hex_digit(at[1]) >= 0 && hex_digit(at[2]) >= 0) {
            c = (char)(hex_digit(at[1]) * 16 + hex_digit(at[2]));
            at += 2;
        }
        if (n + 1 < room)
            out[n++] = c;
    }
    out[n] = '\0';
    for (char *from = out, *to = out;; from++, to++) {
        *to = *from;
        if (*from == '~' && (from[1] == '0' || from[1] == '1'))
            *to = *++from == '0' ? '~' : '/';
        if (*from == '\0')
            return at;
    }
}

const json_t *trmi_schema_resolve(trmi_builder *b, const char *ref)
{
    const json_t *at = b->root;
    const char *from = ref + 1;
    char step[256] = "";

    if (ref[0] != '#' || (ref[1] != '\0' && ref[1] != '/')) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "'$ref' to '%.100s' is not done: only to places of the same schema "
                               "('#/...')",
                               ref);
        return NULL;
    }
    while (*from == '/' && at != NULL) {
        from = pointer_step(from + 1, step, sizeof(step));
        if (json_is_array(at)) {
            size_t i = 0, n = strlen(step);

            for (size_t k = 0; k < n && k < 9; k++)
                i = i * 10 + (size_t)(step[k] - '0');
            at = n > 0 && n < 9 && strspn(step, "0123456789") == n ? json_array_get(at, i) : NULL;
        } else {
            at = json_object_get(at, step);
        }
    }
    if (at == NULL)
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'$ref' to '%.100s': there is nothing", ref);
    return at;
}

/* ---- types ---- */

static const struct {
    const char *name;
    int bits;
} types[] = {{"null", TRMI_NULL},     {"boolean", TRMI_BOOLEAN}, {"integer", TRMI_INTEGER},
             {"number", TRMI_NUMBER}, {"string", TRMI_STRING},   {"array", TRMI_ARRAY},
             {"object", TRMI_OBJECT}};

static int type_bits(trmi_builder *b, const json_t *type)
{
    const char *name = json_string_value(type);

    for (size_t i = 0; name != NULL && i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(types[i].name, name) == 0)
            return types[i].bits;
    (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG,
                           "'type': want null, boolean, integer, number, string, array, object, or "
                           "a list of them");
    return 0;
}

/* Keywords of one type alone mean that type, where none is given. */
static int implied_type(const json_t *s)
{
    static const struct {
        const char *name;
        int bits;
    } of[] = {{"properties", TRMI_OBJECT},
              {"required", TRMI_OBJECT},
              {"additionalProperties", TRMI_OBJECT},
              {"patternProperties", TRMI_OBJECT},
              {"minProperties", TRMI_OBJECT},
              {"maxProperties", TRMI_OBJECT},
              {"items", TRMI_ARRAY},
              {"prefixItems", TRMI_ARRAY},
              {"minItems", TRMI_ARRAY},
              {"maxItems", TRMI_ARRAY},
              {"uniqueItems", TRMI_ARRAY},
              {"pattern", TRMI_STRING},
              {"minLength", TRMI_STRING},
              {"maxLength", TRMI_STRING},
              {"format", TRMI_STRING},
              {"minimum", TRMI_NUMBER},
              {"maximum", TRMI_NUMBER},
              {"exclusiveMinimum", TRMI_NUMBER},
              {"exclusiveMaximum", TRMI_NUMBER},
              {"multipleOf", TRMI_NUMBER}};
    int bits = 0;

    for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++)
        if (json_object_get(s, of[i].name) != NULL)
            bits |= of[i].bits;
    return bits == 0 ? TRMI_ALL : bits;
}

static int schema_types(trmi_builder *b, const json_t *s)
{
    const json_t *type = json_object_get(s, "type"), *v;
    int bits = 0;
    size_t i;

    if (type == NULL)
        bits = implied_type(s);
    else if (json_is_array(type))
        json_array_foreach(type, i, v) bits |= type_bits(b, v);
    else
        bits = type_bits(b, type);
    if (json_is_true(json_object_get(s, "nullable")))
        bits |= TRMI_NULL;
    return bits;
}

static int value_type(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL:
        return TRMI_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return TRMI_BOOLEAN;
    case JSON_INTEGER:
        return TRMI_INTEGER | TRMI_NUMBER;
    case JSON_REAL:
        return TRMI_NUMBER;
    case JSON_STRING:
        return TRMI_STRING;
    case JSON_ARRAY:
        return TRMI_ARRAY;
    case JSON_OBJECT:
        return TRMI_OBJECT;
    }
    return 0;
}

static void put_types(trmi_builder *b, int start, int end, const json_t *s, int bits)
{
    if (bits == TRMI_ALL && !trmi_schema_says(s, NULL)) {
        trmi_build_call(b, start, end, trmi_rule_any(b));
        return;
    }
    if (bits & TRMI_NULL)
        trmi_build_jump(b, trmi_put_text(b, start, "null", 4), end);
    if (bits & TRMI_BOOLEAN)
        trmi_build_jump(b, trmi_put_boolean(b, start), end);
    if (bits & (TRMI_INTEGER | TRMI_NUMBER))
        trmi_build_jump(b, trmi_put_number_schema(b, start, s, (bits & TRMI_NUMBER) == 0), end);
    if (bits & TRMI_STRING)
        trmi_build_jump(b, trmi_put_string(b, start, s), end);
    if (bits & TRMI_ARRAY)
        trmi_build_jump(b, trmi_put_array(b, start, s), end);
    if (bits & TRMI_OBJECT)
        trmi_build_jump(b, trmi_put_object(b, start, s), end);
}

/* ---- enum and const ---- */

static void put_values(trmi_builder *b, int start, int end, const json_t *s)
{
    const json_t *values = json_object_get(s, "enum"), *one = json_object_get(s, "const"), *v;
    int bits = json_object_get(s, "type") == NULL ? TRMI_ALL : schema_types(b, s), put = 0;
    static const char *const besides[] = {
        "pattern",          "minLength",  "maxLength",  "minimum",  "maximum", "exclusiveMinimum",
        "exclusiveMaximum", "multipleOf", "properties", "required", "items",   "prefixItems",
        "minItems",         "maxItems"};
    size_t i;

    if (values != NULL && !json_is_array(values))
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'enum': want a list of values");
    if (json_array_size(values) > TRMI_GRAMMAR_AT_ONCE_MAX)
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "'enum' of more than %d values",
                               TRMI_GRAMMAR_AT_ONCE_MAX);
    for (i = 0; i < sizeof(besides) / sizeof(besides[0]); i++)
        if (json_object_get(s, besides[i]) != NULL)
            (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "'%s' together with '%s'", besides[i],
                                   values != NULL ? "enum" : "const");
    for (i = 0; b->st == TRM_OK && i < (values == NULL ? 1 : json_array_size(values)); i++) {
        v = values == NULL ? one : json_array_get(values, i);
        if ((value_type(v) & bits) == 0 || (one != NULL && !json_equal(one, v)))
            continue;
        trmi_build_jump(b, trmi_put_literal(b, start, v, 0), end);
        put++;
    }
    if (put == 0)
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "no value of 'enum' or 'const' is allowed");
}

/* ---- alternatives ---- */

static void put_alternatives(trmi_builder *b, int start, int end, const json_t *s, const char *key)
{
    const json_t *list = json_object_get(s, key), *v;
    bool alone = !trmi_schema_says(s, key);
    size_t i;

    if (!json_is_array(list) || json_array_size(list) == 0 ||
        json_array_size(list) > TRMI_GRAMMAR_AT_ONCE_MAX) {
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'%s': want a list of 1 to %d schemas", key,
                               TRMI_GRAMMAR_AT_ONCE_MAX);
        return;
    }
    json_array_foreach(list, i, v)
    {
        char name[32];
        json_t *rest;

        if (b->st != TRM_OK)
            return;
        snprintf(name, sizeof(name), "%s/%zu", key, i);
        if (alone) {
            trmi_build_call(b, start, end, trmi_schema_rule(b, v, name));
            continue;
        }
        rest = json_copy((json_t *)(uintptr_t)s); /* what stands beside holds for each */
        if (rest == NULL || json_object_del(rest, key) != 0) {
            json_decref(rest);
            (void)trmi_build_fail(b, TRM_ERR_NO_MEMORY, "a grammar");
            return;
        }
        trmi_build_call(b, start, end,
                        made_rule(b, json_pack("{s:[o,O]}", "allOf", rest, v), name));
    }
}

/* allOf and $ref with others beside them: one schema of all. */
static const json_t *merged(trmi_builder *b, const json_t *s)
{
    const json_t *all = json_object_get(s, "allOf"), *v, *result;
    json_t *rest = json_copy((json_t *)(uintptr_t)s);
    const char *ref = json_string_value(json_object_get(s, "$ref"));
    size_t i;

    if (rest == NULL || json_array_append_new(b->kept, rest) != 0) {
        (void)trmi_build_fail(b, TRM_ERR_NO_MEMORY, "a grammar");
        return NULL;
    }
    (void)json_object_del(rest, "allOf");
    (void)json_object_del(rest, "$ref");
    result = rest;
    if (json_object_get(s, "$ref") != NULL) {
        if (ref == NULL) {
            (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'$ref': want a string");
            return NULL;
        }
        v = trmi_schema_resolve(b, ref);
        result = v == NULL ? NULL : trmi_schema_merge(b, v, result, 0);
    }
    if (all != NULL && !json_is_array(all)) {
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'allOf': want a list of schemas");
        return NULL;
    }
    json_array_foreach(all, i, v)
    {
        if (result != NULL)
            result = trmi_schema_merge(b, result, v, 0);
    }
    return result;
}

/* ---- one schema ---- */

static void check_keywords(trmi_builder *b, const json_t *s)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)s, key, v)
    {
        bool harmless = strncmp(key, "unevaluated", 11) == 0 && json_is_boolean(v);

        /* nothing is made that no keyword describes: false is kept, and true */
        if (kind_of(key) == REFUSED && !harmless)
            (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "'%s' is not done", key);
    }
}

/* Whether $ref alone says all. */
static bool is_reference(const json_t *s)
{
    return json_is_string(json_object_get(s, "$ref")) && !trmi_schema_says(s, "$ref");
}

void trmi_schema_compile(trmi_builder *b, int rule)
{
    const json_t *s = b->rules[rule].schema, *to;
    int start = b->rules[rule].start, end = b->rules[rule].end;

    b->path = b->rules[rule].path;
    if (json_is_true(s)) {
        trmi_build_call(b, start, end, trmi_rule_any(b));
        return;
    }
    if (json_is_false(s))
        return; /* no way through */
    if (!json_is_object(s)) {
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "want a schema: an object, true or false");
        return;
    }
    if (is_reference(s)) {
        to = trmi_schema_resolve(b, json_string_value(json_object_get(s, "$ref")));
        if (to != NULL)
            trmi_build_call(b, start, end,
                            trmi_schema_rule(b, to, json_string_value(json_object_get(s, "$ref"))));
        return;
    }
    if (json_object_get(s, "$ref") != NULL || json_object_get(s, "allOf") != NULL)
        s = merged(b, s);
    if (s == NULL || json_is_false(s))
        return;
    if (json_is_true(s)) {
        trmi_build_call(b, start, end, trmi_rule_any(b));
        return;
    }
    check_keywords(b, s);
    if (b->st != TRM_OK)
        return;
    if (json_object_get(s, "anyOf") != NULL)
        put_alternatives(b, start, end, s, "anyOf");
    else if (json_object_get(s, "oneOf") != NULL)
        put_alternatives(b, start, end, s, "oneOf");
    else if (json_object_get(s, "enum") != NULL || json_object_get(s, "const") != NULL)
        put_values(b, start, end, s);
    else
        put_types(b, start, end, s, schema_types(b, s));
}
