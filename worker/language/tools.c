/* What a chat offers to call: see tools.h. */
#include "worker/language/tools_impl.h"

#include "base/hash.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TOOLS_MAX 128

/* ---- formats ---- */

static const char *const formats[TRM_TOOLS_FORMAT_COUNT] = {"none", "hermes", "llama", "mistral",
                                                            "json"};

/* What a template writes shows what the model was trained to write. */
static trm_tool_format format_of_template(const char *text)
{
    static const struct {
        const char *mark;
        trm_tool_format format;
    } rows[] = {
        {"[TOOL_CALLS]", TRM_TOOLS_MISTRAL},
        {"<tool_call>", TRM_TOOLS_HERMES},
        {"<|python_tag|>", TRM_TOOLS_LLAMA},
        /* Llama 3.2's small models */
        {"\"parameters\": dictionary of argument", TRM_TOOLS_LLAMA},
    };

    for (size_t i = 0; text != NULL && i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strstr(text, rows[i].mark) != NULL)
            return rows[i].format;
    return TRM_TOOLS_JSON;
}

trm_status trm_tool_format_of(const char *name, const trm_language *l, trm_tool_format *format_out)
{
    if (name == NULL || strcmp(name, "auto") == 0) {
        *format_out =
            format_of_template(l->chat_tools_text != NULL ? l->chat_tools_text : l->chat_text);
        return TRM_OK;
    }
    for (int i = 0; i < TRM_TOOLS_FORMAT_COUNT; i++)
        if (strcmp(formats[i], name) == 0) {
            *format_out = (trm_tool_format)i;
            return TRM_OK;
        }
    return trm_fail(TRM_ERR_INVALID_ARG,
                    "tool format '%s': want auto, hermes, llama, mistral, json or none", name);
}

/* Marks that the model has as special tokens are no text unless it is asked for. */
static bool has_special_marks(const trm_language *l, trm_tool_format format)
{
    for (int i = 0; i < TRMI_TOOL_MARKS && l->tokenizer != NULL; i++) {
        const struct trmi_tool_mark *m = &trmi_tool_marks[i];
        int32_t id = trm_tokenizer_find(l->tokenizer, m->begin, strlen(m->begin));

        if ((m->formats & 1u << format) != 0 && id >= 0 &&
            trm_tokenizer_is_special(l->tokenizer, id))
            return true;
    }
    return false;
}

/* ---- what a request says ---- */

static trm_status wrong(size_t tool, const char *want)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "'tools': tool %zu: want %s", tool, want);
}

static bool is_name(const json_t *v)
{
    const char *s = json_string_value(v);

    if (s == NULL || *s == '\0' || json_string_length(v) > TRMI_TOOL_NAME_MAX)
        return false;
    for (; *s != '\0'; s++)
        if ((*s < 'a' || *s > 'z') && (*s < 'A' || *s > 'Z') && (*s < '0' || *s > '9') &&
            strchr("_-.:/", *s) == NULL)
            return false;
    return true;
}

static const json_t *function_of(const json_t *tools, size_t i)
{
    return json_object_get(json_array_get(tools, i), "function");
}

static trm_status read_tools(trm_tools *t, const json_t *tools)
{
    size_t n = json_array_size(tools);

    if (!json_is_array(tools) || n > TOOLS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "'tools': want a list of at most %d tools", TOOLS_MAX);
    t->names = trm_calloc(n + 1, sizeof(*t->names));
    if (t->names == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "tools");
    for (size_t i = 0; i < n; i++) {
        const json_t *type = json_object_get(json_array_get(tools, i), "type"),
                     *f = function_of(tools, i), *name = json_object_get(f, "name"),
                     *parameters = json_object_get(f, "parameters");

        if (type != NULL &&
            (!json_is_string(type) || strcmp(json_string_value(type), "function") != 0))
            return trm_fail(TRM_ERR_UNSUPPORTED,
                            "'tools': tool %zu: only type \"function\" is done", i);
        if (!is_name(name))
            return wrong(i,
                         "{\"type\": \"function\", \"function\": {\"name\": ..}}, the name of at "
                         "most 64 letters, digits and \"_-.:/\"");
        if (parameters != NULL && !json_is_null(parameters) && !json_is_object(parameters))
            return wrong(i, "\"parameters\" that are a JSON schema");
        for (size_t k = 0; k < t->count; k++)
            if (strcmp(t->names[k], json_string_value(name)) == 0)
                return wrong(i, "a name that no other tool has");
        t->names[i] = trm_strdup(json_string_value(name));
        if (t->names[i] == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "tools");
        t->count = i + 1;
    }
    return TRM_OK;
}

enum choice { AUTO, NONE, REQUIRED, NAMED };

/* *which_out: NAMED: the tool. */
static trm_status read_choice(const trm_tools *t, const json_t *v, enum choice *choice_out,
                              size_t *which_out)
{
    static const char *const words[] = {"auto", "none", "required"};
    const json_t *type = json_object_get(v, "type"),
                 *name = json_object_get(json_object_get(v, "function"), "name");

    *choice_out = AUTO;
    if (v == NULL || json_is_null(v))
        return TRM_OK;
    for (int i = 0; json_is_string(v) && i < 3; i++)
        if (strcmp(json_string_value(v), words[i]) == 0) {
            *choice_out = (enum choice)i;
            return TRM_OK;
        }
    if (!json_is_object(v) || !json_is_string(type) ||
        strcmp(json_string_value(type), "function") != 0 || !json_is_string(name))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "'tool_choice': want \"none\", \"auto\", \"required\" or {\"type\": "
                        "\"function\", \"function\": {\"name\": ..}}");
    *choice_out = NAMED;
    for (*which_out = 0; *which_out < t->count; ++*which_out)
        if (strcmp(t->names[*which_out], json_string_value(name)) == 0)
            return TRM_OK;
    return trm_fail(TRM_ERR_INVALID_ARG, "'tool_choice': no tool has that name");
}

/* ---- forcing a call ---- */

/* References inside a schema that has moved from the root to `at`. */
static void move_refs(json_t *v, const char *at)
{
    const char *key;
    json_t *one;
    size_t i;

    json_array_foreach(v, i, one) move_refs(one, at);
    json_object_foreach(v, key, one)
    {
        const char *ref = json_string_value(one);

        if (ref != NULL && strcmp(key, "$ref") == 0 && ref[0] == '#') {
            json_t *moved = json_sprintf("%s%s", at, ref + 1);

            if (moved != NULL)
                json_object_set_new(v, key, moved); /* an existing key: iteration goes on */
        } else {
            move_refs(one, at);
        }
    }
}

/* {"name": this one, "arguments": its parameters}; *defs gets the parameters. */
static json_t *call_schema(const json_t *function, size_t i, const char *arguments, json_t *defs)
{
    const json_t *given = json_object_get(function, "parameters");
    json_t *parameters = json_is_object(given) ? json_deep_copy(given) : json_object();
    char key[32], at[48];

    if (json_object_get(parameters, "type") == NULL) /* whatever else they say */
        json_object_set_new(parameters, "type", json_string("object"));
    snprintf(key, sizeof(key), "f%zu", i);
    snprintf(at, sizeof(at), "#/$defs/%s", key);
    move_refs(parameters, at);
    json_object_set_new(defs, key, parameters);
    return json_pack("{s:s, s:{s:{s:O}, s:{s:s}}, s:[s,s], s:b}", "type", "object", "properties",
                     "name", "const", json_object_get(function, "name"), arguments, "$ref", at,
                     "required", "name", arguments, "additionalProperties", 0);
}

/* A call of one of the tools [first, first + count). */
static trm_status make_constraint(trm_tools *t, const json_t *tools, size_t first, size_t count)
{
    const char *arguments = t->format == TRM_TOOLS_LLAMA ? "parameters" : "arguments";
    json_t *defs = json_object(), *any = json_array(), *schema;

    for (size_t i = first; i < first + count; i++)
        json_array_append_new(any, call_schema(function_of(tools, i), i, arguments, defs));
    if (json_array_size(any) != count) {
        json_decref(any);
        json_decref(defs);
        return trm_fail(TRM_ERR_NO_MEMORY, "tools");
    }
    schema = count == 1 ? json_incref(json_array_get(any, 0)) : json_pack("{s:O}", "anyOf", any);
    json_object_set_new(schema, "$defs", defs);
    json_decref(any);
    if (t->format == TRM_TOOLS_HERMES)
        t->constraint = json_pack("{s:s, s:s, s:o, s:s}", "type", "tagged", "begin",
                                  "<tool_call>\n", "schema", schema, "end", "\n</tool_call>");
    else
        t->constraint = json_pack("{s:s, s:o}", "type", "json_schema", "schema", schema);
    t->bare = t->format != TRM_TOOLS_HERMES;
    return t->constraint != NULL ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "tools");
}

trm_status trm_tools_read(const trm_language *l, const char *format, const json_t *body,
                          bool constrain, trm_tools **tools_out)
{
    const json_t *tools = json_object_get(body, "tools"),
                 *parallel = json_object_get(body, "parallel_tool_calls"),
                 *v = json_object_get(body, "tool_choice");
    bool some = tools != NULL && !json_is_null(tools) &&
                !(json_is_array(tools) && json_array_size(tools) == 0);
    trm_tools *t = trm_calloc(1, sizeof(*t));
    enum choice choice = AUTO;
    size_t which = 0;
    trm_status st;

    if (t == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "tools");
    TRM_TRY(st, trm_tool_format_of(format, l, &t->format), done);
    if (some)
        TRM_TRY(st, read_tools(t, tools), done);
    TRM_TRY(st, read_choice(t, v, &choice, &which), done);
    if (parallel != NULL && !json_is_null(parallel) && !json_is_boolean(parallel)) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "'parallel_tool_calls': want true or false");
        goto done;
    }
    t->parallel = !json_is_false(parallel);
    if (choice == REQUIRED && !some) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "'tool_choice' is \"required\": want 'tools'");
        goto done;
    }
    if (choice >= REQUIRED && t->format == TRM_TOOLS_NONE)
        t->format = TRM_TOOLS_JSON;
    t->forced = choice >= REQUIRED;
    if (choice == NAMED)
        TRM_TRY(st, make_constraint(t, tools, which, 1), done);
    else if (some && (choice == REQUIRED || (choice == AUTO && constrain)))
        TRM_TRY(st, make_constraint(t, tools, 0, t->count), done);
    t->special = t->constraint == NULL && has_special_marks(l, t->format);
    *tools_out = NULL;
    if (some && choice != NONE && t->format != TRM_TOOLS_NONE) {
        *tools_out = t;
        t = NULL;
    }
done:
    trm_tools_destroy(t);
    return st;
}

void trm_tools_destroy(trm_tools *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->count; i++)
        trm_free(t->names[i]);
    trm_free(t->names);
    json_decref(t->constraint);
    trm_free(t);
}

void trm_tool_id(const char *tag, int choice, int call, char id_out[TRM_TOOL_ID_BYTES])
{
    uint64_t words[2];

    for (uint64_t i = 0; i < 2; i++) {
        trm_hash h;

        trm_hash_init(&h, i);
        trm_hash_text(&h, tag);
        trm_hash_u64(&h, (uint64_t)choice);
        trm_hash_u64(&h, (uint64_t)call);
        words[i] = trm_hash_value(&h);
    }
    snprintf(id_out, TRM_TOOL_ID_BYTES, "call_%016" PRIx64 "%08" PRIx32, words[0],
             (uint32_t)words[1]);
}
