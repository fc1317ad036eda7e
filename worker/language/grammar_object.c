/* Objects and arrays of a schema.
 *
 * Members come in the order of "properties", then others; a member that is not required may be left
 * out. Without "additionalProperties" there are no others, unless there are no "properties" at all:
 * fewer texts than the schema allows, and what such schemas mean. */
#include "worker/language/grammar_impl.h"

#include <stdio.h>
#include <string.h>

/* One member behind `from`, whose name is `name`. */
static int put_member(trmi_builder *b, int from, const char *name, int rule)
{
    int to = trmi_build_state(b);

    from = trmi_put_string_literal(b, from, name, strlen(name));
    from = trmi_put_space(b, trmi_put_text(b, from, ":", 1));
    trmi_build_call(b, from, to, rule);
    return to;
}

/* The names in "required", as an object. */
static const json_t *required_names(trmi_builder *b, const json_t *required)
{
    json_t *names = json_object();
    const json_t *v;
    size_t i;

    if (names == NULL || json_array_append_new(b->kept, names) != 0) {
        (void)trmi_build_fail(b, TRM_ERR_NO_MEMORY, "a grammar");
        return NULL;
    }
    json_array_foreach(required, i, v)
    {
        if (!json_is_string(v)) {
            (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'required': want a list of strings");
            return NULL;
        }
        (void)json_object_set_new(names, json_string_value(v), json_true());
    }
    return names;
}

/* Two rows of states: before any member, and behind one (or -1: none can be there). */
struct members {
    trmi_builder *b;
    int none, some;
};

/* The place from which a member is written: behind the bracket, or behind a comma. */
static int before_member(struct members *m)
{
    int at = trmi_build_state(m->b);

    if (m->none >= 0)
        trmi_build_jump(m->b, m->none, at);
    if (m->some >= 0)
        trmi_build_jump(m->b, trmi_put_space(m->b, trmi_put_text(m->b, m->some, ",", 1)), at);
    return at;
}

static void add_member(struct members *m, const char *name, int rule, bool required)
{
    trmi_builder *b = m->b;
    int after = put_member(b, before_member(m), name, rule);

    if (required) {
        m->none = -1;
        m->some = after;
        return;
    }
    if (m->some >= 0)
        trmi_build_jump(b, m->some, after);
    m->some = after;
}

/* Any number of members with other names. */
static void add_others(struct members *m, const json_t *names, const char *pattern, int rule)
{
    trmi_builder *b = m->b;
    int at = before_member(m), after = trmi_build_state(b), more;

    if (pattern != NULL) {
        at = trmi_put_text(b, at, "\"", 1);
        at = trmi_put_text(b, trmi_put_regex(b, at, pattern, false, true, 0, -1), "\"", 1);
    } else {
        int name = trmi_build_state(b), start = at;

        trmi_build_jump(b, start, name);
        at = trmi_put_other_name(b, name, names);
        /* further ones come through the same states */
        more = trmi_put_space(b, trmi_put_text(b, after, ",", 1));
        trmi_build_jump(b, more, name);
    }
    at = trmi_put_space(b, trmi_put_text(b, at, ":", 1));
    trmi_build_call(b, at, after, rule);
    if (pattern != NULL) {
        more = trmi_put_space(b, trmi_put_text(b, after, ",", 1));
        more = trmi_put_text(b, more, "\"", 1);
        more = trmi_put_text(b, trmi_put_regex(b, more, pattern, false, true, 0, -1), "\"", 1);
        more = trmi_put_space(b, trmi_put_text(b, more, ":", 1));
        trmi_build_call(b, more, after, rule);
    }
    if (m->some >= 0)
        trmi_build_jump(b, m->some, after);
    m->some = after;
}

static void close_object(struct members *m, int to)
{
    trmi_builder *b = m->b;

    if (m->none >= 0)
        trmi_build_bytes(b, m->none, to, '}', '}');
    if (m->some >= 0)
        trmi_build_bytes(b, trmi_put_space(b, m->some), to, '}', '}');
}

static const json_t *get_typed(trmi_builder *b, const json_t *s, const char *key, json_type type)
{
    const json_t *v = json_object_get(s, key);

    if (v != NULL && json_typeof(v) != type) {
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'%s': want %s", key,
                               type == JSON_OBJECT ? "an object" : "a list");
        return NULL;
    }
    return v;
}

/* Names that are required and described nowhere are as other ones. */
static void add_described_nowhere(struct members *m, const json_t *required,
                                  const json_t *properties, const json_t *others)
{
    const char *name;
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)required, name, v)
    {
        if (json_object_get(properties, name) != NULL)
            continue;
        if (json_is_false(others)) {
            (void)trmi_schema_fail(m->b, TRM_ERR_INVALID_ARG,
                                   "'%s' is required, but there can be no such property", name);
            return;
        }
        add_member(m, name,
                   json_is_object(others) ? trmi_schema_rule(m->b, others, "additionalProperties")
                                          : trmi_rule_any(m->b),
                   true);
    }
}

static void check_counts(trmi_builder *b, const json_t *s, const json_t *required)
{
    int64_t least = trmi_schema_count(b, s, "minProperties", 0);

    if (least > 0 && (size_t)least > json_object_size(required))
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "'minProperties' above the number of required ones is not done");
    if (json_object_get(s, "maxProperties") != NULL)
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "'maxProperties' is not done");
}

/* "patternProperties": one pattern, and then no other names. */
static void add_pattern(struct members *m, const json_t *patterns, const json_t *properties,
                        const json_t *required)
{
    trmi_builder *b = m->b;
    const char *key;
    json_t *v;

    if (json_object_size(patterns) > 1 || json_object_size(properties) > 0 ||
        json_object_size(required) > 0) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "'patternProperties' is done with one pattern and without "
                               "'properties' or 'required' beside it");
        return;
    }
    json_object_foreach((json_t *)(uintptr_t)patterns, key, v)
        add_others(m, NULL, key, trmi_schema_rule(b, v, "patternProperties"));
}

/* Names that others must not have: those described, and those required. */
static const json_t *all_names(trmi_builder *b, const json_t *properties, const json_t *required)
{
    json_t *names = json_copy((json_t *)(uintptr_t)required);
    const char *key;
    json_t *v;

    if (names == NULL || json_array_append_new(b->kept, names) != 0) {
        (void)trmi_build_fail(b, TRM_ERR_NO_MEMORY, "a grammar");
        return NULL;
    }
    json_object_foreach((json_t *)(uintptr_t)properties, key, v)(void)
        json_object_set_new(names, key, json_true());
    return names;
}

int trmi_put_object(trmi_builder *b, int from, const json_t *s)
{
    const json_t *properties = get_typed(b, s, "properties", JSON_OBJECT);
    const json_t *patterns = get_typed(b, s, "patternProperties", JSON_OBJECT);
    const json_t *required = required_names(b, get_typed(b, s, "required", JSON_ARRAY));
    const json_t *others = json_object_get(s, "additionalProperties");
    struct members m = {.b = b, .some = -1};
    int to = trmi_build_state(b);
    const char *key;
    json_t *v;

    check_counts(b, s, required);
    if (json_object_size(properties) > TRMI_GRAMMAR_AT_ONCE_MAX)
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "more than %d properties of an object",
                               TRMI_GRAMMAR_AT_ONCE_MAX);
    if (others != NULL && !json_is_boolean(others) && !json_is_object(others))
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG,
                               "'additionalProperties': want true, false or a schema");
    if (b->st != TRM_OK)
        return 0;
    if (json_object_size(properties) == 0 && json_object_size(patterns) == 0 &&
        json_object_size(required) == 0 && (others == NULL || json_is_true(others)))
        return trmi_put_any_object(b, from);
    m.none = trmi_put_space(b, trmi_put_text(b, from, "{", 1));
    json_object_foreach((json_t *)(uintptr_t)properties, key, v)
    {
        char name[160];

        if (b->st != TRM_OK)
            return 0;
        snprintf(name, sizeof(name), "properties/%s", key);
        add_member(&m, key, trmi_schema_rule(b, v, name), json_object_get(required, key) != NULL);
    }
    add_described_nowhere(&m, required, properties, others);
    if (json_object_size(patterns) > 0)
        add_pattern(&m, patterns, properties, required);
    else if (b->st == TRM_OK && (json_is_object(others) || json_is_true(others) ||
                                 (others == NULL && json_object_size(properties) == 0)))
        add_others(&m, all_names(b, properties, required), NULL,
                   json_is_object(others) ? trmi_schema_rule(b, others, "additionalProperties")
                                          : trmi_rule_any(b));
    close_object(&m, to);
    return to;
}

/* ---- arrays ---- */

/* The rule of item `i`, or -1: there can be none. */
static int item_rule(trmi_builder *b, const json_t *prefix, const json_t *items, size_t i)
{
    char name[64];

    if (i < json_array_size(prefix)) {
        snprintf(name, sizeof(name), "prefixItems/%zu", i);
        return trmi_schema_rule(b, json_array_get(prefix, i), name);
    }
    if (json_is_false(items))
        return -1;
    return items == NULL || json_is_true(items) ? trmi_rule_any(b)
                                                : trmi_schema_rule(b, items, "items");
}

static void put_items(trmi_builder *b, int from, int to, const json_t *prefix, const json_t *items,
                      int64_t least, int64_t most)
{
    int64_t written =
        (int64_t)json_array_size(prefix) > least ? (int64_t)json_array_size(prefix) : least;
    int at = trmi_put_space(b, trmi_put_text(b, from, "[", 1)), after = at;

    if (most >= 0 && (items == NULL || !json_is_false(items)))
        written = most;
    else if (most >= 0 && most < written)
        written = most;
    if (least == 0)
        trmi_build_bytes(b, at, to, ']', ']');
    for (int64_t i = 0; i < written && b->st == TRM_OK; i++) {
        int rule = item_rule(b, prefix, items, (size_t)i), next = trmi_build_state(b);

        if (rule < 0) /* more are wanted than there can be: nothing is valid */
            return;
        if (i > 0)
            at = trmi_put_space(b, trmi_put_text(b, after, ",", 1));
        trmi_build_call(b, at, next, rule);
        after = next;
        if (i + 1 >= least)
            trmi_build_bytes(b, trmi_put_space(b, after), to, ']', ']');
    }
    if (most < 0 && b->st == TRM_OK && !json_is_false(items)) { /* any number of further ones */
        int rule = item_rule(b, prefix, items, (size_t)written), inside = trmi_build_state(b),
            next = trmi_build_state(b);

        if (written > 0)
            at = trmi_put_space(b, trmi_put_text(b, after, ",", 1));
        trmi_build_jump(b, at, inside);
        trmi_build_call(b, inside, next, rule);
        trmi_build_jump(b, trmi_put_space(b, trmi_put_text(b, next, ",", 1)), inside);
        trmi_build_bytes(b, trmi_put_space(b, next), to, ']', ']');
    }
}

int trmi_put_array(trmi_builder *b, int from, const json_t *s)
{
    const json_t *items = json_object_get(s, "items"), *prefix;
    int64_t least = trmi_schema_count(b, s, "minItems", 0);
    int64_t most = trmi_schema_count(b, s, "maxItems", -1);
    int to;

    prefix = get_typed(b, s, "prefixItems", JSON_ARRAY);
    if (json_is_array(items)) { /* before 2020-12 */
        prefix = items;
        items = json_object_get(s, "additionalItems");
    }
    if (items != NULL && !json_is_object(items) && !json_is_boolean(items))
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'items': want a schema");
    if (most >= 0 && least > most)
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'minItems' is above 'maxItems'");
    if (json_is_true(json_object_get(s, "uniqueItems")) && most != 1)
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "'uniqueItems' is not done");
    if (b->st != TRM_OK)
        return 0;
    if (prefix == NULL && (items == NULL || json_is_true(items)) && least == 0 && most < 0)
        return trmi_put_any_array(b, from);
    to = trmi_build_state(b);
    put_items(b, from, to, prefix, items, least, most);
    return to;
}
