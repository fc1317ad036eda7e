/* Text to tokens and back for clients: see base/wire_serve.h. */
#include "worker/language/serve_impl.h"

#include "worker/language/request_impl.h"

#include "base/memory.h"

#include <string.h>

static trm_status need_tokenizer(const trm_language *l)
{
    return l->tokenizer != NULL
               ? TRM_OK
               : trm_fail(TRM_ERR_UNSUPPORTED, "the model has no tokenizer that is understood");
}

static trm_status check_fields(const json_t *body, const char *const *known)
{
    const char *key;
    json_t *v;

    if (!json_is_object(body))
        return trm_fail(TRM_ERR_INVALID_ARG, "the request is no JSON object");
    json_object_foreach((json_t *)(uintptr_t)body, key, v)
    {
        size_t i = 0;

        while (known[i] != NULL && strcmp(known[i], key) != 0)
            i++;
        if (known[i] == NULL)
            return trm_fail(TRM_ERR_INVALID_ARG, "'%s' is no field of this request", key);
    }
    return TRM_OK;
}

static trm_status get_bool(const json_t *body, const char *name, bool *value)
{
    const json_t *v = json_object_get(body, name);

    if (v == NULL || json_is_null(v))
        return TRM_OK;
    if (!json_is_boolean(v))
        return trmi_lm_wrong(name, "true or false");
    *value = json_is_true(v);
    return TRM_OK;
}

/* The conversation as the template writes it. */
static trm_status render(const trm_language *l, const json_t *body,
                         const trm_lm_request_defaults *defaults, trm_lm_request **request_out)
{
    static const char *const fields[] = {"messages", "tools", "documents", "add_generation_prompt",
                                         "chat_template_kwargs"};
    json_t *chat = json_object();
    trm_status st;

    if (chat == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "a request");
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (json_object_get(body, fields[i]) != NULL)
            json_object_set(chat, fields[i], json_object_get(body, fields[i]));
    st = trm_lm_request_read(l, TRM_LM_CHAT, chat, defaults, request_out);
    json_decref(chat);
    return st;
}

/* Ids of the body's prompt, from trm_malloc. */
static trm_status ids_of(const trm_language *l, const json_t *body,
                         const trm_lm_request_defaults *defaults, int32_t **ids_out,
                         size_t *count_out)
{
    const json_t *prompt = json_object_get(body, "prompt");
    bool messages = json_object_get(body, "messages") != NULL,
         special = !messages && defaults->add_special;
    trm_lm_request *r = NULL;
    trm_status st;

    if ((prompt != NULL) == messages)
        return trm_fail(TRM_ERR_INVALID_ARG, "want either 'prompt' or 'messages'");
    if (prompt != NULL && !json_is_string(prompt))
        return trmi_lm_wrong("prompt", "text");
    TRM_CHECK(get_bool(body, "add_special_tokens", &special));
    if (messages)
        TRM_CHECK(render(l, body, defaults, &r));
    st = trm_tokenizer_encode(l->tokenizer,
                              messages ? r->prompts[0].text : json_string_value(prompt),
                              messages ? strlen(r->prompts[0].text) : json_string_length(prompt),
                              special ? TRM_ENCODE_SPECIAL : 0, ids_out, count_out);
    trm_lm_request_destroy(r);
    return st;
}

static json_t *piece(const trm_language *l, int32_t id)
{
    size_t bytes = 0;
    const char *text = trm_tokenizer_token(l->tokenizer, id, &bytes);
    json_t *o = text != NULL ? json_stringn(text, bytes) : NULL;

    return o != NULL ? o : json_null(); /* not UTF-8 */
}

trm_status trmi_serve_tokenize(const trm_language *l, int context, const json_t *body,
                               const trm_lm_request_defaults *defaults, json_t **answer_out)
{
    static const char *const known[] = {"model",
                                        "prompt",
                                        "messages",
                                        "tools",
                                        "documents",
                                        "add_generation_prompt",
                                        "add_special_tokens",
                                        "return_token_strs",
                                        "chat_template_kwargs",
                                        "user",
                                        "metadata",
                                        NULL};
    json_t *o, *tokens, *strings;
    bool with_strings = false;
    int32_t *ids = NULL;
    size_t count = 0;

    TRM_CHECK(need_tokenizer(l));
    TRM_CHECK(check_fields(body, known));
    TRM_CHECK(get_bool(body, "return_token_strs", &with_strings));
    TRM_CHECK(ids_of(l, body, defaults, &ids, &count));
    o = json_object();
    tokens = json_array();
    strings = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(tokens, json_integer(ids[i]));
        if (with_strings)
            json_array_append_new(strings, piece(l, ids[i]));
    }
    trm_free(ids);
    json_object_set_new(o, "count", json_integer((json_int_t)count));
    json_object_set_new(o, "max_model_len", json_integer(context));
    json_object_set_new(o, "tokens", tokens);
    json_object_set_new(o, "token_strs", with_strings ? strings : json_null());
    if (!with_strings)
        json_decref(strings);
    *answer_out = o;
    return o != NULL ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "an answer");
}

trm_status trmi_serve_detokenize(const trm_language *l, const json_t *body, json_t **answer_out)
{
    static const char *const known[] = {"model", "tokens", "user", "metadata", NULL};
    const json_t *list = json_object_get(body, "tokens");
    size_t count = json_array_size(list), bytes = 0;
    char *text = NULL;
    int32_t *ids;
    trm_status st = TRM_OK;

    TRM_CHECK(need_tokenizer(l));
    TRM_CHECK(check_fields(body, known));
    if (!json_is_array(list))
        return trmi_lm_wrong("tokens", "a list of token ids");
    ids = trm_malloc(count + 1, sizeof(*ids));
    if (ids == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu tokens", count);
    for (size_t i = 0; i < count && st == TRM_OK; i++) {
        int64_t id = 0;

        st = trmi_lm_get_int("tokens", json_array_get(list, i), 0,
                             (int64_t)trm_tokenizer_count(l->tokenizer) - 1, &id);
        ids[i] = (int32_t)id;
    }
    if (st == TRM_OK)
        st = trm_tokenizer_decode(l->tokenizer, ids, count, false, &text, &bytes);
    trm_free(ids);
    TRM_CHECK(st);
    *answer_out = json_pack("{s:s%}", "prompt", text, bytes);
    trm_free(text);
    return *answer_out != NULL ? TRM_OK : trm_fail(TRM_ERR_NO_MEMORY, "an answer");
}
