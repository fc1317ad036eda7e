/* Compiling and rendering: limits, the rendering's memory, the line of an error. */
#include "model/template/template_impl.h"

#include <string.h>
#include <utf8proc.h>

static trm_status check_text(const char *text, size_t bytes)
{
    if (bytes > TRMI_TEMPLATE_TEXT_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a template of %zu bytes, at most %zu are taken",
                        bytes, TRMI_TEMPLATE_TEXT_MAX);
    for (size_t i = 0; i < bytes;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t n =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(bytes - i), &c);

        if (n <= 0)
            return trm_fail(TRM_ERR_BAD_FILE, "byte %zu is not UTF-8", i);
        i += (size_t)n;
    }
    return TRM_OK;
}

trm_status trm_template_compile(const char *name, const char *text, size_t bytes,
                                trm_template **template_out)
{
    trm_template *t = trm_calloc(1, sizeof(*t));
    trm_status st;

    if (t == NULL || (t->name = trm_strdup(name)) == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "chat template");
        goto fail;
    }
    TRM_TRY(st, trm_arena_create(0, &t->arena), fail);
    TRM_TRY(st, check_text(text, bytes), fail);
    TRM_TRY(st, trmi_template_lex(t, text, bytes), fail);
    TRM_TRY(st, trmi_template_parse(t), fail);
    trm_free(t->tokens);
    t->tokens = NULL;
    *template_out = t;
    return TRM_OK;

fail:
    if (t != NULL && t->fail_line > 0)
        trm_fail_context(st, "%s: line %d", name, t->fail_line);
    else
        trm_fail_context(st, "%s", name);
    trm_template_destroy(t);
    return st;
}

void trm_template_destroy(trm_template *t)
{
    if (t == NULL)
        return;
    trm_free(t->tokens);
    trm_arena_destroy(t->arena);
    trm_free(t->name);
    trm_free(t);
}

trm_status trm_template_render(const trm_template *t, const json_t *variables, int64_t now,
                               char **text_out, size_t *bytes_out)
{
    trmi_output output = {NULL, 0, 0};
    trmi_run r = {.t = t, .steps = TRMI_TEMPLATE_STEPS_MAX, .now = now, .output = &output};
    trmi_value context;
    trm_status st;

    if (!json_is_object(variables))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: variables are not a JSON object", t->name);
    TRM_TRY(st, trm_arena_create(0, &r.arena), fail);
    TRM_TRY(st, trmi_from_json(&r, variables, &context), fail);
    r.context = context.as.dict;
    TRM_TRY(st, trmi_scope_push(&r, NULL), fail);
    TRM_TRY(st, trmi_exec(&r, &t->body), fail);
    TRM_TRY(st, trmi_append(&r, &output, "", 1), fail); /* the NUL */
    trm_arena_destroy(r.arena);
    *text_out = output.data;
    *bytes_out = output.bytes - 1;
    return TRM_OK;

fail:
    if (r.fail_line > 0)
        trm_fail_context(st, "%s: line %d", t->name, r.fail_line);
    else
        trm_fail_context(st, "%s", t->name);
    trm_arena_destroy(r.arena);
    trm_free(output.data);
    return st;
}
