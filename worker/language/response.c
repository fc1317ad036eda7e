/* Writing answers: see request.h. */
#include "worker/language/response_impl.h"

#include "base/memory.h"

#include <string.h>

static json_t *ids_list(const int32_t *ids, size_t count)
{
    json_t *list = json_array();

    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_integer(ids[i]));
    return list;
}

static json_t *choice_text(const trm_lm_request *r, const trm_lm_prompt *prompt,
                           const trm_lm_answer *a)
{
    size_t before = r->echo && prompt->text != NULL ? strlen(prompt->text) : 0;
    char *whole = trm_malloc(before + a->bytes + 1, 1);
    json_t *text;

    if (whole == NULL)
        return NULL;
    if (before > 0)
        memcpy(whole, prompt->text, before);
    if (a->bytes > 0)
        memcpy(whole + before, a->text, a->bytes);
    text = json_stringn(whole, before + a->bytes);
    trm_free(whole);
    return text;
}

static void add_choice_extras(json_t *c, const trm_lm_request *r, const trm_lm_prompt *p,
                              const trm_lm_answer *a, const trm_lm_answer *first)
{
    if (a->stopped != NULL)
        json_object_set_new(c, "stop_reason", json_string(a->stopped));
    if (r->prompt_logprobs && !r->echo)
        json_object_set_new(c, "prompt_logprobs",
                            first->prompt_logprobs != NULL ? json_incref(first->prompt_logprobs)
                                                           : json_array());
    if (r->token_ids) {
        json_object_set_new(c, "prompt_token_ids", ids_list(p->ids, p->count));
        json_object_set_new(c, "token_ids", ids_list(a->ids, (size_t)a->new_tokens));
    }
}

const char *trmi_lm_finish(const trm_lm_request *r, trm_finish finish, int calls)
{
    if (calls > 0 && (finish == TRM_FINISH_END || finish == TRM_FINISH_STOP))
        return "tool_calls";
    return r->only_prompt ? "length" : trm_finish_name(finish);
}

/* A chat's message while its text is looked through for calls. */
struct message {
    const char *id; /* of the answer */
    int choice;
    trmi_out content, arguments; /* arguments: of the last call */
    json_t *calls;
};

static void set_arguments(struct message *m)
{
    json_t *last = json_array_get(m->calls, json_array_size(m->calls) - 1);

    if (last != NULL)
        json_object_set_new(
            json_object_get(last, "function"), "arguments",
            json_stringn(m->arguments.data != NULL ? m->arguments.data : "", m->arguments.bytes));
    m->arguments.bytes = 0;
}

static void on_event(void *ctx, trm_tool_event event, int call, const char *text, size_t bytes)
{
    struct message *m = ctx;
    char id[TRM_TOOL_ID_BYTES];

    switch (event) {
    case TRM_TOOL_TEXT:
        trmi_out_add(&m->content, text, bytes);
        break;
    case TRM_TOOL_ARGUMENTS:
        trmi_out_add(&m->arguments, text, bytes);
        break;
    case TRM_TOOL_CALL:
        set_arguments(m);
        trm_tool_id(m->id, m->choice, call, id);
        json_array_append_new(m->calls,
                              json_pack("{s:s, s:s, s:{s:s%, s:s}}", "id", id, "type", "function",
                                        "function", "name", text, bytes, "arguments", ""));
        break;
    }
}

/* false: no memory. */
static bool find_calls(const trm_lm_request *r, const trm_lm_answer *a, struct message *m)
{
    trm_tool_parser *p = NULL;
    bool good;

    m->calls = json_array();
    good = trm_tool_parser_create(r->tools, on_event, m, &p) == TRM_OK &&
           trm_tool_parser_push(p, a->text, a->bytes) == TRM_OK &&
           trm_tool_parser_finish(p) == TRM_OK;
    set_arguments(m);
    trm_tool_parser_destroy(p);
    return good && !m->content.failed && !m->arguments.failed;
}

/* *calls_out: how many. NULL: no memory. */
static json_t *chat_message(const trm_lm_request *r, const trm_lm_answer *a, const char *id,
                            int index, int *calls_out)
{
    struct message found = {.id = id, .choice = index};
    json_t *m = json_object(), *content = NULL;

    *calls_out = 0;
    if (r->tools == NULL) {
        content = json_stringn(a->text != NULL ? a->text : "", a->bytes);
    } else if (find_calls(r, a, &found)) {
        *calls_out = (int)json_array_size(found.calls);
        content = *calls_out > 0 && found.content.bytes == 0
                      ? json_null()
                      : json_stringn(found.content.data != NULL ? found.content.data : "",
                                     found.content.bytes);
    }
    json_object_set_new(m, "role", json_string("assistant"));
    json_object_set_new(m, "content", content);
    json_object_set_new(m, "refusal", json_null());
    if (*calls_out > 0)
        json_object_set(m, "tool_calls", found.calls);
    json_decref(found.calls);
    trmi_out_fini(&found.content);
    trmi_out_fini(&found.arguments);
    if (content == NULL) {
        json_decref(m);
        return NULL;
    }
    return m;
}

static json_t *choice(const trm_lm_request *r, const trm_language *l, int index,
                      const trm_lm_prompt *p, const trm_lm_answer *a, const char *id)
{
    const trm_lm_answer *first = a - index % r->choices; /* a prompt is scored once */
    json_t *c = json_object(), *lp = json_null();
    size_t offset = 0;
    int calls = 0;

    json_object_set_new(c, "index", json_integer(index));
    if (r->endpoint == TRM_LM_CHAT) {
        json_object_set_new(c, "message", chat_message(r, a, id, index, &calls));
        if (r->sampling.logprobs >= 0) {
            lp = json_object();
            json_object_set_new(lp, "content",
                                a->logprobs != NULL ? json_incref(a->logprobs) : json_array());
            json_object_set_new(lp, "refusal", json_null());
        }
    } else {
        json_object_set_new(c, "text", choice_text(r, p, a));
        if (r->sampling.logprobs >= 0)
            lp = trmi_lm_old_logprobs(l, r->echo ? p : NULL, first->prompt_logprobs, a->logprobs,
                                      &offset);
    }
    json_object_set_new(c, "logprobs", lp);
    json_object_set_new(c, "finish_reason", json_string(trmi_lm_finish(r, a->finish, calls)));
    add_choice_extras(c, r, p, a, first);
    return c;
}

static char *base64(const void *data, size_t bytes)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;
    char *out = trm_malloc(bytes / 3 * 4 + 8, 1), *q = out;

    for (size_t i = 0; out != NULL && i < bytes; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < bytes ? (unsigned)p[i + 1] << 8 : 0) |
                     (i + 2 < bytes ? p[i + 2] : 0);

        *q++ = digits[v >> 18];
        *q++ = digits[v >> 12 & 63];
        *q++ = i + 1 < bytes ? digits[v >> 6 & 63] : '=';
        *q++ = i + 2 < bytes ? digits[v & 63] : '=';
    }
    if (out != NULL)
        *q = '\0';
    return out;
}

static json_t *embedding(const trm_lm_request *r, int index, const trm_lm_answer *a)
{
    json_t *o = json_object(), *list;

    json_object_set_new(o, "object", json_string("embedding"));
    json_object_set_new(o, "index", json_integer(index));
    if (r->base64) {
        char *text = base64(a->row, (size_t)a->width * sizeof(*a->row));

        json_object_set_new(o, "embedding", text != NULL ? json_string(text) : NULL);
        trm_free(text);
        return o;
    }
    list = json_array();
    for (int64_t i = 0; i < a->width; i++)
        json_array_append_new(list, json_real((double)a->row[i]));
    json_object_set_new(o, "embedding", list);
    return o;
}

json_t *trmi_lm_usage(const trm_lm_request *r, int64_t prompt, int64_t fresh, int64_t cached)
{
    json_t *usage = json_object(), *details;

    json_object_set_new(usage, "prompt_tokens", json_integer(prompt));
    if (r->endpoint != TRM_LM_EMBEDDINGS)
        json_object_set_new(usage, "completion_tokens", json_integer(fresh));
    json_object_set_new(usage, "total_tokens", json_integer(prompt + fresh));
    if (cached >= 0 && r->endpoint != TRM_LM_EMBEDDINGS) {
        details = json_object();
        json_object_set_new(details, "cached_tokens", json_integer(cached));
        json_object_set_new(usage, "prompt_tokens_details", details);
    }
    return usage;
}

json_t *trm_lm_response(const trm_lm_request *r, const trm_language *l,
                        const trm_lm_answer *answers, const char *id, int64_t created, bool cached)
{
    static const char *const prefixes[] = {"cmpl-", "chatcmpl-", NULL};
    static const char *const objects[] = {"text_completion", "chat.completion", "list"};
    bool embeds = r->endpoint == TRM_LM_EMBEDDINGS;
    json_t *o = json_object(), *list = json_array();
    int64_t prompt = 0, fresh = 0, found = 0;

    for (int i = 0; i < r->prompt_count * r->choices; i++) {
        const trm_lm_answer *a = &answers[i];
        bool first = i % r->choices == 0;

        json_array_append_new(list, embeds ? embedding(r, i, a)
                                           : choice(r, l, i, &r->prompts[i / r->choices], a, id));
        prompt += first ? a->prompt_tokens : 0;
        found += first ? a->cached_tokens : 0;
        fresh += r->only_prompt ? 0 : a->new_tokens;
    }
    if (!embeds) {
        json_object_set_new(o, "id", json_sprintf("%s%s", prefixes[r->endpoint], id));
    }
    json_object_set_new(o, "object", json_string(objects[r->endpoint]));
    if (!embeds)
        json_object_set_new(o, "created", json_integer(created));
    json_object_set_new(o, "model", json_string(r->model != NULL ? r->model : ""));
    json_object_set_new(o, embeds ? "data" : "choices", list);
    json_object_set_new(o, "usage", trmi_lm_usage(r, prompt, fresh, cached ? found : -1));
    return o;
}

json_t *trm_lm_error(trm_status st, const char *message)
{
    bool theirs = st == TRM_ERR_INVALID_ARG || st == TRM_ERR_UNSUPPORTED ||
                  st == TRM_ERR_BAD_FILE || st == TRM_ERR_NOT_FOUND;
    json_t *o = json_object(), *e = json_object();

    json_object_set_new(e, "message", json_string(message));
    json_object_set_new(e, "type", json_string(theirs ? "invalid_request_error" : "server_error"));
    json_object_set_new(e, "param", json_null());
    json_object_set_new(e, "code", json_string(trm_status_name(st)));
    json_object_set_new(o, "error", e);
    return o;
}
