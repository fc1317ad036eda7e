/* Prompts of a request: text, token ids, or a conversation through the chat template. */
#include "worker/language/request_impl.h"

#include "base/memory.h"

#include <string.h>
#include <time.h>

#define PROMPTS_MAX 2048

static trm_status add_text(struct trmi_lm_reading *g, trm_lm_prompt *p, const char *text,
                           size_t bytes, int flags)
{
    if (g->l->tokenizer == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s has no tokenizer: prompts are token ids",
                        trmi_lm_model_name(g));
    p->text = trm_malloc(bytes + 1, 1);
    if (p->text == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a prompt of %zu bytes", bytes);
    memcpy(p->text, text, bytes);
    p->text[bytes] = '\0';
    return trm_tokenizer_encode(g->l->tokenizer, text, bytes, flags, &p->ids, &p->count);
}

static trm_status add_ids(struct trmi_lm_reading *g, trm_lm_prompt *p, const char *name,
                          const json_t *list)
{
    size_t n = json_array_size(list);

    p->ids = trm_malloc(n + 1, sizeof(*p->ids));
    if (p->ids == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a prompt of %zu tokens", n);
    for (size_t i = 0; i < n; i++) {
        int64_t id = 0;

        TRM_CHECK(
            trmi_lm_get_int(name, json_array_get(list, i), 0, g->l->config.vocabulary - 1, &id));
        p->ids[i] = (int32_t)id;
    }
    p->count = n;
    return TRM_OK;
}

static trm_status make_prompts(trm_lm_request *r, size_t n)
{
    if (n < 1 || n > PROMPTS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%zu prompts: want 1 to %d", n, PROMPTS_MAX);
    r->prompts = trm_calloc(n, sizeof(*r->prompts));
    if (r->prompts == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu prompts", n);
    r->prompt_count = (int)n;
    return TRM_OK;
}

/* A string, token ids, or a list of either. */
trm_status trmi_lm_read_prompts(struct trmi_lm_reading *g, const char *name)
{
    const json_t *v = json_object_get(g->body, name);
    int flags = g->defaults->add_special ? TRM_ENCODE_SPECIAL : 0;
    bool many =
        json_is_array(v) && json_array_size(v) > 0 && !json_is_integer(json_array_get(v, 0));

    if (!json_is_string(v) && !(json_is_array(v) && json_array_size(v) > 0))
        return trmi_lm_wrong(name, "text, token ids, or a list of either");
    TRM_CHECK(make_prompts(g->r, many ? json_array_size(v) : 1));
    for (int i = 0; i < g->r->prompt_count; i++) {
        const json_t *one = many ? json_array_get(v, (size_t)i) : v;

        if (json_is_string(one))
            TRM_CHECK(add_text(g, &g->r->prompts[i], json_string_value(one),
                               json_string_length(one), flags));
        else if (json_is_array(one))
            TRM_CHECK(add_ids(g, &g->r->prompts[i], name, one));
        else
            return trmi_lm_wrong(name, "text, token ids, or a list of either");
    }
    return TRM_OK;
}

static trm_status check_messages(const json_t *messages)
{
    if (!json_is_array(messages) || json_array_size(messages) == 0)
        return trmi_lm_wrong("messages", "a list of at least one message");
    for (size_t i = 0; i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i);

        if (!json_is_object(m) || !json_is_string(json_object_get(m, "role")))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "'messages': message %zu: want an object with a \"role\"", i);
    }
    return TRM_OK;
}

/* Content given as parts becomes text, and so does that of a message of calls alone, which is null:
 * templates of text models want it so. NULL: there is content of another kind. */
static json_t *flat_messages(const json_t *messages)
{
    json_t *copy = json_deep_copy(messages), *m;
    size_t i;

    json_array_foreach(copy, i, m)
    {
        const json_t *parts = json_object_get(m, "content"), *part;
        char *text;
        size_t k, bytes = 0;

        if (json_is_array(json_object_get(m, "tool_calls")) &&
            (parts == NULL || json_is_null(parts)))
            json_object_set_new(m, "content", json_string(""));
        if (!json_is_array(parts))
            continue;
        json_array_foreach(parts, k, part)
        {
            const json_t *t = json_object_get(part, "text");

            if (!json_is_string(t)) {
                json_decref(copy);
                return NULL; /* an image, say */
            }
            bytes += json_string_length(t);
        }
        text = trm_malloc(bytes + 1, 1);
        if (text == NULL)
            break;
        bytes = 0;
        json_array_foreach(parts, k, part)
        {
            const json_t *t = json_object_get(part, "text");

            memcpy(text + bytes, json_string_value(t), json_string_length(t));
            bytes += json_string_length(t);
        }
        json_object_set_new(m, "content", json_stringn(text, bytes));
        trm_free(text);
    }
    return copy;
}

/* Arguments of earlier calls that came as text, as OpenAI's clients send them, become objects:
 * templates write them as JSON themselves. True where there were any. */
static bool open_arguments(json_t *messages)
{
    bool any = false;
    json_t *m, *call;
    size_t i, k;

    json_array_foreach(messages, i, m)
    {
        json_array_foreach(json_object_get(m, "tool_calls"), k, call)
        {
            json_t *f = json_object_get(call, "function"), *a = json_object_get(f, "arguments"),
                   *o = json_is_string(a) ? json_loadb(json_string_value(a), json_string_length(a),
                                                       JSON_REJECT_DUPLICATES, NULL)
                                          : NULL;

            if (json_is_object(o)) {
                json_object_set(f, "arguments", o);
                any = true;
            }
            json_decref(o);
        }
    }
    return any;
}

static json_t *text_or_empty(const char *text)
{
    return json_string(text != NULL ? text : "");
}

/* Tools that the template is told of; NULL: none. */
static json_t *tools_of(const struct trmi_lm_reading *g)
{
    json_t *tools = json_object_get(g->body, "tools");
    const char *choice = json_string_value(json_object_get(g->body, "tool_choice"));

    if (!json_is_array(tools) || json_array_size(tools) == 0 ||
        (g->defaults->tool_format != NULL && choice != NULL && strcmp(choice, "none") == 0))
        return NULL;
    return tools;
}

static json_t *variables_of(const struct trmi_lm_reading *g, json_t *messages)
{
    json_t *variables = json_object(), *v = json_object_get(g->body, "documents"),
           *kwargs = json_object_get(g->body, "chat_template_kwargs");

    json_object_set(variables, "messages", messages);
    json_object_set_new(
        variables, "add_generation_prompt",
        json_boolean(!json_is_false(json_object_get(g->body, "add_generation_prompt"))));
    json_object_set_new(variables, "bos_token", text_or_empty(g->l->bos_text));
    json_object_set_new(variables, "eos_token", text_or_empty(g->l->eos_text));
    if (tools_of(g) != NULL)
        json_object_set(variables, "tools", tools_of(g));
    if (json_is_array(v))
        json_object_set(variables, "documents", v);
    if (json_is_object(kwargs))
        json_object_update(variables, kwargs);
    return variables;
}

static trm_status render(const struct trmi_lm_reading *g, json_t *messages, char **text_out,
                         size_t *bytes_out)
{
    const trm_template *chat =
        tools_of(g) != NULL && g->l->chat_tools != NULL ? g->l->chat_tools : g->l->chat;
    json_t *variables = variables_of(g, messages);
    int64_t now = g->defaults->now != 0 ? g->defaults->now : (int64_t)time(NULL);
    trm_status st = trm_template_render(chat, variables, now, text_out, bytes_out);

    json_decref(variables);
    return st;
}

static trm_status add_chat(struct trmi_lm_reading *g)
{
    json_t *messages = flat_messages(json_object_get(g->body, "messages"));
    char *text = NULL;
    size_t bytes = 0;
    trm_status st;

    if (messages == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED, "'messages': content that is not text is not done");
    if (open_arguments(messages)) {
        st = render(g, messages, &text, &bytes);
        if (st == TRM_ERR_INVALID_ARG) { /* a template that wants text */
            json_decref(messages);
            messages = flat_messages(json_object_get(g->body, "messages"));
            st = render(g, messages, &text, &bytes);
        }
    } else {
        st = render(g, messages, &text, &bytes);
    }
    json_decref(messages);
    /* the template has put the special tokens in */
    if (st == TRM_OK)
        st = add_text(g, &g->r->prompts[0], text, bytes, 0);
    trm_free(text);
    return st;
}

trm_status trmi_lm_read_chat(struct trmi_lm_reading *g)
{
    TRM_CHECK(check_messages(json_object_get(g->body, "messages")));
    if (g->l->chat == NULL)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s has no chat template: give one (chat_template of the "
                        "configuration, --chat-template), or use "
                        "/v1/completions",
                        trmi_lm_model_name(g));
    TRM_CHECK(make_prompts(g->r, 1));
    return add_chat(g);
}
