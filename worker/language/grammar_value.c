/* JSON without a schema: literals, and any value. */
#include "worker/language/grammar_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int trmi_put_string_literal(trmi_builder *b, int from, const char *text, size_t bytes)
{
    from = trmi_put_text(b, from, "\"", 1);
    for (size_t at = 0; at < bytes && b->st == TRM_OK;) {
        uint32_t c = trmi_next_code_point(text, bytes, &at);
        trmi_range range = {c, c};
        trmi_ranges one = {&range, 1, 1};
        int to = trmi_build_state(b);

        if (c == 0 || c == UINT32_MAX) {
            (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "a string with a NUL character");
            return 0;
        }
        trmi_put_ranges(b, from, to, &one, true);
        from = to;
    }
    return trmi_put_text(b, from, "\"", 1);
}

static int put_scalar(trmi_builder *b, int from, const json_t *value)
{
    char text[64];

    switch (json_typeof(value)) {
    case JSON_NULL:
        return trmi_put_text(b, from, "null", 4);
    case JSON_TRUE:
        return trmi_put_text(b, from, "true", 4);
    case JSON_FALSE:
        return trmi_put_text(b, from, "false", 5);
    case JSON_INTEGER:
        snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
        return trmi_put_text(b, from, text, strlen(text));
    case JSON_REAL:
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(text, sizeof(text), "%.*g", digits, json_real_value(value));
            if (strtod(text, NULL) == json_real_value(value))
                break;
        }
        return trmi_put_text(b, from, text, strlen(text));
    case JSON_STRING:
        return trmi_put_string_literal(b, from, json_string_value(value),
                                       json_string_length(value));
    default:
        return from;
    }
}

int trmi_put_literal(trmi_builder *b, int from, const json_t *value, int depth)
{
    const char *key;
    json_t *v;
    size_t i;

    if (depth > TRMI_GRAMMAR_NEST_MAX)
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "a value of 'enum' or 'const' nests deeper "
                               "than %d",
                               TRMI_GRAMMAR_NEST_MAX);
    if (b->st != TRM_OK)
        return 0;
    if (json_is_object(value)) {
        bool first = true;

        from = trmi_put_text(b, from, "{", 1);
        json_object_foreach((json_t *)(uintptr_t)value, key, v)
        {
            if (!first)
                from = trmi_put_space(b, trmi_put_text(b, from, ",", 1));
            first = false;
            from = trmi_put_string_literal(b, from, key, strlen(key));
            from = trmi_put_space(b, trmi_put_text(b, from, ":", 1));
            from = trmi_put_literal(b, from, v, depth + 1);
        }
        return trmi_put_text(b, from, "}", 1);
    }
    if (json_is_array(value)) {
        from = trmi_put_text(b, from, "[", 1);
        json_array_foreach(value, i, v)
        {
            if (i > 0)
                from = trmi_put_space(b, trmi_put_text(b, from, ",", 1));
            from = trmi_put_literal(b, from, v, depth + 1);
        }
        return trmi_put_text(b, from, "]", 1);
    }
    return put_scalar(b, from, value);
}

/* ---- any ---- */

int trmi_put_boolean(trmi_builder *b, int from)
{
    int to = trmi_build_state(b);

    trmi_build_jump(b, trmi_put_text(b, from, "true", 4), to);
    trmi_build_jump(b, trmi_put_text(b, from, "false", 5), to);
    return to;
}

/* One rule for all free strings of a grammar: its masks are made once. */
int trmi_put_any_string(trmi_builder *b, int from)
{
    int rule = trmi_memo_get(b, "string"), to = trmi_build_state(b), at;

    if (rule < 0) {
        rule = trmi_build_rule_new(b, NULL, NULL);
        trmi_memo_put(b, "string", rule);
        if (b->st != TRM_OK)
            return 0;
        at = trmi_put_text(b, b->rules[rule].start, "\"", 1);
        trmi_put_char(b, at, at);
        trmi_build_bytes(b, at, b->rules[rule].end, '"', '"');
        trmi_build_chain_add(b, at, b->rules[rule].end, 0, -1);
    }
    trmi_build_call(b, from, to, rule);
    return to;
}

/* What stands between two brackets, members separated by commas: `member` rules are called. */
static int any_object_rule(trmi_builder *b)
{
    int rule = trmi_memo_get(b, "object"), value, at, inside, after, more;

    if (rule >= 0)
        return rule;
    rule = trmi_build_rule_new(b, NULL, NULL);
    trmi_memo_put(b, "object", rule);
    value = trmi_rule_any(b);
    if (b->st != TRM_OK)
        return 0;
    at = trmi_put_space(b, trmi_put_text(b, b->rules[rule].start, "{", 1));
    inside = trmi_build_state(b);
    trmi_build_jump(b, at, inside);
    more = trmi_put_any_string(b, inside);
    more = trmi_put_space(b, trmi_put_text(b, more, ":", 1));
    after = trmi_build_state(b);
    trmi_build_call(b, more, after, value);
    more = trmi_put_space(b, trmi_put_text(b, after, ",", 1));
    trmi_build_jump(b, more, inside);
    trmi_build_bytes(b, at, b->rules[rule].end, '}', '}');
    trmi_build_bytes(b, trmi_put_space(b, after), b->rules[rule].end, '}', '}');
    return rule;
}

static int any_array_rule(trmi_builder *b)
{
    int rule = trmi_memo_get(b, "array"), value, at, inside, after, more;

    if (rule >= 0)
        return rule;
    rule = trmi_build_rule_new(b, NULL, NULL);
    trmi_memo_put(b, "array", rule);
    value = trmi_rule_any(b);
    if (b->st != TRM_OK)
        return 0;
    at = trmi_put_space(b, trmi_put_text(b, b->rules[rule].start, "[", 1));
    inside = trmi_build_state(b);
    after = trmi_build_state(b);
    trmi_build_jump(b, at, inside);
    trmi_build_call(b, inside, after, value);
    more = trmi_put_space(b, trmi_put_text(b, after, ",", 1));
    trmi_build_jump(b, more, inside);
    trmi_build_bytes(b, at, b->rules[rule].end, ']', ']');
    trmi_build_bytes(b, trmi_put_space(b, after), b->rules[rule].end, ']', ']');
    return rule;
}

static int put_call(trmi_builder *b, int from, int rule)
{
    int to = trmi_build_state(b);

    trmi_build_call(b, from, to, rule);
    return to;
}

int trmi_put_any_object(trmi_builder *b, int from)
{
    return put_call(b, from, any_object_rule(b));
}

int trmi_put_any_array(trmi_builder *b, int from)
{
    return put_call(b, from, any_array_rule(b));
}

int trmi_rule_any(trmi_builder *b)
{
    int rule = trmi_memo_get(b, "any"), start, end;

    if (rule >= 0)
        return rule;
    rule = trmi_build_rule_new(b, NULL, NULL);
    trmi_memo_put(b, "any", rule);
    if (b->st != TRM_OK)
        return 0;
    start = b->rules[rule].start;
    end = b->rules[rule].end;
    trmi_build_jump(b, trmi_put_any_object(b, start), end);
    trmi_build_jump(b, trmi_put_any_array(b, start), end);
    trmi_build_jump(b, trmi_put_any_string(b, start), end);
    trmi_build_jump(b, trmi_put_number(b, start, false), end);
    trmi_build_jump(b, trmi_put_boolean(b, start), end);
    trmi_build_jump(b, trmi_put_text(b, start, "null", 4), end);
    return rule;
}
