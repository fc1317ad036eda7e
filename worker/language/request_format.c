/* What a request says its answers must be: OpenAI's response_format, vLLM's structured_outputs and
 * the guided_... fields before it. Whatever they say becomes one object (constraint.h). */
#include "worker/language/constraint.h"
#include "worker/language/request_impl.h"

#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

static trm_status constrain(struct trmi_lm_reading *g, const json_t *what)
{
    trm_grammar *grammar;
    char *text;

    TRM_CHECK(trm_grammar_compile(what, &grammar));
    trm_grammar_destroy(grammar);
    text = json_dumps(what, JSON_COMPACT);
    g->r->constraint = text == NULL ? NULL : trm_strdup(text);
    free(text);
    return g->r->constraint == NULL ? trm_fail(TRM_ERR_NO_MEMORY, "a request") : TRM_OK;
}

trm_status trmi_lm_constrain(struct trmi_lm_reading *g, const char *name, json_t *what)
{
    trm_status st;

    if (what == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a request");
    st = g->r->constraint != NULL
             ? trm_fail(TRM_ERR_INVALID_ARG, "what the answer must be is said twice")
             : constrain(g, what);
    json_decref(what);
    return st == TRM_OK ? TRM_OK : trm_fail_context(st, "'%s'", name);
}

trm_status trmi_lm_read_format(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    const json_t *body = json_object_get(v, "json_schema"), *schema = NULL;

    if (type != NULL && strcmp(type, "text") == 0)
        return TRM_OK;
    if (type != NULL && strcmp(type, "json_schema") == 0) {
        if (!json_is_object(body))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "'%s': want {\"type\": \"json_schema\", \"json_schema\": {\"name\": "
                            "..., \"schema\": {...}}}",
                            name);
        schema = json_object_get(body, "schema");
    } else if (type != NULL && strcmp(type, "json_object") == 0) {
        schema = json_object_get(v, "schema"); /* as some servers have it */
    } else {
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "'%s' of type '%.40s': want text, json_object or json_schema", name,
                        type != NULL ? type : "");
    }
    if (schema == NULL || json_is_null(schema))
        return trmi_lm_constrain(g, name, json_pack("{s:s}", "type", "json_object"));
    return trmi_lm_constrain(g, name,
                             json_pack("{s:s, s:O}", "type", "json_schema", "schema", schema));
}

/* A schema, or one as text. */
static trm_status read_schema(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    json_error_t e;
    json_t *schema = json_is_string(v) ? json_loadb(json_string_value(v), json_string_length(v),
                                                    JSON_DECODE_ANY, &e)
                                       : json_incref((json_t *)(uintptr_t)v);

    if (schema == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s' is no JSON: %s", name, e.text);
    return trmi_lm_constrain(g, name,
                             json_pack("{s:s, s:o}", "type", "json_schema", "schema", schema));
}

static trm_status read_one(struct trmi_lm_reading *g, const char *name, const char *kind,
                           const json_t *v)
{
    if (json_is_null(v))
        return TRM_OK;
    if (strcmp(kind, "json") == 0)
        return read_schema(g, name, v);
    if (strcmp(kind, "choice") == 0)
        return trmi_lm_constrain(g, name, json_pack("{s:s, s:O}", "type", "choice", "choice", v));
    if (strcmp(kind, "regex") == 0)
        return trmi_lm_constrain(g, name, json_pack("{s:s, s:O}", "type", "regex", "regex", v));
    if (strcmp(kind, "json_object") == 0)
        return json_is_true(v)
                   ? trmi_lm_constrain(g, name, json_pack("{s:s}", "type", "json_object"))
                   : TRM_OK;
    return trm_fail(TRM_ERR_UNSUPPORTED,
                    "'%s': '%.40s' is not done: only json, json_object, choice and regex", name,
                    kind);
}

trm_status trmi_lm_read_guided(struct trmi_lm_reading *g, const char *name, const json_t *v)
{
    const char *key;
    json_t *one;

    if (strncmp(name, "guided_", 7) == 0)
        return read_one(g, name, name + 7, v);
    if (!json_is_object(v))
        return trmi_lm_wrong(name, "an object");
    json_object_foreach((json_t *)(uintptr_t)v, key, one) TRM_CHECK(read_one(g, name, key, one));
    return TRM_OK;
}

/* A forced call leaves no content for a format to hold for; where a call may be made, the answer is
 * either. */
trm_status trmi_lm_read_tools(struct trmi_lm_reading *g)
{
    trm_lm_request *r = g->r;
    char *format = r->constraint;
    json_t *what;
    trm_status st;

    TRM_CHECK(trm_tools_read(g->l, g->defaults->tool_format, g->body, format != NULL, &r->tools));
    if (r->tools == NULL)
        return TRM_OK;
    r->keep_special = r->keep_special || r->tools->special;
    if (r->tools->constraint == NULL)
        return TRM_OK;
    if (r->tools->forced)
        what = json_incref(r->tools->constraint);
    else
        what = json_pack("{s:s, s:[o, O]}", "type", "any_of", "any_of",
                         json_loads(format, JSON_DECODE_ANY, NULL), r->tools->constraint);
    r->constraint = NULL;
    st = trmi_lm_constrain(g, "tools", what);
    trm_free(format);
    return st;
}
