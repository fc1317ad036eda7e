/* Writing answers: see request.h. */
#include "worker/language/request.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

/* ---- collecting ---- */

void trm_lm_answer_fini(trm_lm_answer *a)
{
    trm_free(a->text);
    trm_free(a->message);
    trm_free(a->ids);
    trm_free(a->stopped);
    trm_free(a->row);
    json_decref(a->logprobs);
    json_decref(a->prompt_logprobs);
    memset(a, 0, sizeof(*a));
}

static void add_text(trm_lm_answer *a, const char *text, size_t bytes)
{
    if (a->bytes + bytes + 1 > a->bytes_max) {
        size_t max = 2 * (a->bytes + bytes) + 64;
        char *grown = trm_realloc(a->text, max, 1);

        if (grown == NULL) {
            a->no_memory = true;
            return;
        }
        a->text = grown;
        a->bytes_max = max;
    }
    if (bytes > 0)
        memcpy(a->text + a->bytes, text, bytes);
    a->bytes += bytes;
    a->text[a->bytes] = '\0';
}

/* All of them: in the old form tokens are keys, which must differ. */
static json_t *escaped_bytes(const char *bytes, size_t n)
{
    char *text = trm_malloc(4 * n + 8, 1);
    json_t *o;

    if (text == NULL)
        return NULL;
    memcpy(text, "bytes:", 7);
    for (size_t i = 0; i < n; i++)
        snprintf(text + 6 + 4 * i, 5, "\\x%02x", (unsigned char)bytes[i]);
    o = json_string(text);
    trm_free(text);
    return o;
}

/* A token's own text, whatever bytes it stands for: as text where it is UTF-8, and as bytes. */
static void set_token(json_t *o, const trm_language *l, int32_t id)
{
    char buf[512];
    size_t n =
        l->tokenizer == NULL ? 0 : trm_tokenizer_token_bytes(l->tokenizer, id, buf, sizeof(buf));
    json_t *bytes = json_array(), *text;

    if (n > sizeof(buf))
        n = sizeof(buf);
    text = json_stringn(buf, n); /* NULL: not UTF-8 */
    if (text == NULL)
        text = escaped_bytes(buf, n);
    json_object_set_new(o, "token", text);
    json_object_set_new(o, "id", json_integer(id));
    for (size_t i = 0; i < n; i++)
        json_array_append_new(bytes, json_integer((unsigned char)buf[i]));
    json_object_set_new(o, "bytes", bytes);
}

static json_t *logprob_object(const trm_language *l, const trm_sampled *s)
{
    json_t *o = json_object(), *top = json_array();

    set_token(o, l, s->id);
    json_object_set_new(o, "logprob", json_real((double)s->logprob));
    for (int i = 0; i < s->top_count; i++) {
        json_t *t = json_object();

        set_token(t, l, s->top_ids[i]);
        json_object_set_new(t, "logprob", json_real((double)s->top_logprobs[i]));
        json_array_append_new(top, t);
    }
    json_object_set_new(o, "top_logprobs", top);
    return o;
}

void trm_lm_answer_token(trm_lm_answer *a, const trm_lm_request *r, const trm_language *l,
                         const trm_generated *t)
{
    json_t **list = t->prompt ? &a->prompt_logprobs : &a->logprobs;

    if (!t->prompt && r->only_prompt)
        return;
    add_text(a, t->text, t->bytes);
    if (t->token == NULL || r->sampling.logprobs < 0)
        return;
    if (*list == NULL)
        *list = json_array();
    if (json_array_append_new(*list, logprob_object(l, t->token)) != 0)
        a->no_memory = true;
}

static char *copy_text(trm_lm_answer *a, const char *text)
{
    char *copy = text == NULL ? NULL : trm_strdup(text);

    a->no_memory = a->no_memory || (text != NULL && copy == NULL);
    return copy;
}

void trm_lm_answer_end(trm_lm_answer *a, const trm_generation_end *e)
{
    size_t ids = (size_t)e->new_tokens, width = (size_t)e->width;

    a->over = true;
    a->finish = e->finish;
    a->status = e->status;
    a->message = copy_text(a, e->message);
    a->stopped = copy_text(a, e->stopped);
    a->prompt_tokens = e->prompt_tokens;
    a->new_tokens = e->new_tokens;
    if (ids > 0 && (a->ids = trm_malloc(ids, sizeof(*a->ids))) != NULL)
        memcpy(a->ids, e->ids, ids * sizeof(*a->ids));
    if (e->row != NULL && (a->row = trm_malloc(width + 1, sizeof(*a->row))) != NULL) {
        memcpy(a->row, e->row, width * sizeof(*a->row));
        a->width = e->width;
    }
    a->no_memory =
        a->no_memory || (ids > 0 && a->ids == NULL) || (e->row != NULL && a->row == NULL);
}

/* ---- bodies ---- */

static json_t *ids_list(const int32_t *ids, size_t count)
{
    json_t *list = json_array();

    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_integer(ids[i]));
    return list;
}

/* Characters that begin in a token: offsets count them, and a character may lie in two tokens. */
static size_t characters_of(const json_t *token)
{
    const json_t *byte;
    size_t i, n = 0;

    json_array_foreach(json_object_get(token, "bytes"), i, byte) n +=
        (json_integer_value(byte) & 0xc0) != 0x80;
    return n;
}

/* The old completions' form: parallel lists. */
static void add_old_logprobs(json_t *tokens, json_t *values, json_t *tops, json_t *offsets,
                             const json_t *list, size_t *offset)
{
    const json_t *o;
    size_t i;

    json_array_foreach(list, i, o)
    {
        json_t *t = json_object(), *text = json_object_get(o, "token");
        const json_t *top;
        size_t k;

        json_array_append(tokens, text);
        json_array_append(values, json_object_get(o, "logprob"));
        json_array_foreach(json_object_get(o, "top_logprobs"), k, top) json_object_set(
            t, json_string_value(json_object_get(top, "token")), json_object_get(top, "logprob"));
        json_array_append_new(tops, t);
        json_array_append_new(offsets, json_integer((json_int_t)*offset));
        *offset += characters_of(o);
    }
}

static json_t *old_logprobs(const trm_lm_request *r, const trm_language *l,
                            const trm_lm_prompt *prompt, const trm_lm_answer *a,
                            const trm_lm_answer *first)
{
    json_t *o = json_object(), *tokens = json_array(), *values = json_array(), *tops = json_array(),
           *offsets = json_array();
    size_t offset = 0;

    if (r->echo && prompt->count > 0) { /* nothing stands before the first token */
        json_t *token = json_object();

        set_token(token, l, prompt->ids[0]);
        json_array_append(tokens, json_object_get(token, "token"));
        json_array_append_new(values, json_null());
        json_array_append_new(tops, json_null());
        json_array_append_new(offsets, json_integer(0));
        /* a BOS that was put in front is not in the text */
        if (l->tokenizer == NULL || !trm_tokenizer_is_special(l->tokenizer, prompt->ids[0]))
            offset = characters_of(token);
        json_decref(token);
        add_old_logprobs(tokens, values, tops, offsets, first->prompt_logprobs, &offset);
    }
    add_old_logprobs(tokens, values, tops, offsets, a->logprobs, &offset);
    json_object_set_new(o, "tokens", tokens);
    json_object_set_new(o, "token_logprobs", values);
    json_object_set_new(o, "top_logprobs", tops);
    json_object_set_new(o, "text_offset", offsets);
    return o;
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

static json_t *choice(const trm_lm_request *r, const trm_language *l, int index,
                      const trm_lm_prompt *p, const trm_lm_answer *a)
{
    const trm_lm_answer *first = a - index % r->choices; /* a prompt is scored once */
    json_t *c = json_object(), *m, *lp = json_null();

    json_object_set_new(c, "index", json_integer(index));
    if (r->endpoint == TRM_LM_CHAT) {
        m = json_object();
        json_object_set_new(m, "role", json_string("assistant"));
        json_object_set_new(m, "content", json_stringn(a->text != NULL ? a->text : "", a->bytes));
        json_object_set_new(m, "refusal", json_null());
        json_object_set_new(c, "message", m);
        if (r->sampling.logprobs >= 0) {
            lp = json_object();
            json_object_set_new(lp, "content",
                                a->logprobs != NULL ? json_incref(a->logprobs) : json_array());
            json_object_set_new(lp, "refusal", json_null());
        }
    } else {
        json_object_set_new(c, "text", choice_text(r, p, a));
        if (r->sampling.logprobs >= 0)
            lp = old_logprobs(r, l, p, a, first);
    }
    json_object_set_new(c, "logprobs", lp);
    json_object_set_new(c, "finish_reason",
                        json_string(r->only_prompt ? "length" : trm_finish_name(a->finish)));
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

json_t *trm_lm_response(const trm_lm_request *r, const trm_language *l,
                        const trm_lm_answer *answers, const char *id, int64_t created)
{
    static const char *const prefixes[] = {"cmpl-", "chatcmpl-", NULL};
    static const char *const objects[] = {"text_completion", "chat.completion", "list"};
    bool embeds = r->endpoint == TRM_LM_EMBEDDINGS;
    json_t *o = json_object(), *list = json_array(), *usage = json_object();
    int64_t prompt = 0, fresh = 0;
    char full[160];

    for (int i = 0; i < r->prompt_count * r->choices; i++) {
        const trm_lm_answer *a = &answers[i];

        json_array_append_new(list, embeds ? embedding(r, i, a)
                                           : choice(r, l, i, &r->prompts[i / r->choices], a));
        prompt += i % r->choices == 0 ? a->prompt_tokens : 0;
        fresh += r->only_prompt ? 0 : a->new_tokens;
    }
    if (!embeds) {
        snprintf(full, sizeof(full), "%s%s", prefixes[r->endpoint], id);
        json_object_set_new(o, "id", json_string(full));
    }
    json_object_set_new(o, "object", json_string(objects[r->endpoint]));
    if (!embeds)
        json_object_set_new(o, "created", json_integer(created));
    json_object_set_new(o, "model", json_string(r->model != NULL ? r->model : ""));
    json_object_set_new(o, embeds ? "data" : "choices", list);
    json_object_set_new(usage, "prompt_tokens", json_integer(prompt));
    if (!embeds)
        json_object_set_new(usage, "completion_tokens", json_integer(fresh));
    json_object_set_new(usage, "total_tokens", json_integer(prompt + fresh));
    json_object_set_new(o, "usage", usage);
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
