/* Log-probabilities of tokens as OpenAI's two forms have them. */
#include "worker/language/response_impl.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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

/* JSON has no infinity, which a forbidden token's is: what OpenAI gives for one far out of reach.
 */
static double logprob(float value)
{
    return isfinite(value) ? (double)value : -9999.0;
}

json_t *trmi_lm_token_logprob(const trm_language *l, const trm_sampled *s)
{
    json_t *o = json_object(), *top = json_array();

    set_token(o, l, s->id);
    json_object_set_new(o, "logprob", json_real(logprob(s->logprob)));
    for (int i = 0; i < s->top_count; i++) {
        json_t *t = json_object();

        set_token(t, l, s->top_ids[i]);
        json_object_set_new(t, "logprob", json_real(logprob(s->top_logprobs[i])));
        json_array_append_new(top, t);
    }
    json_object_set_new(o, "top_logprobs", top);
    return o;
}

static void write_token(trmi_out *o, const trm_language *l, int32_t id, float value)
{
    char buf[512];
    size_t n =
        l->tokenizer == NULL ? 0 : trm_tokenizer_token_bytes(l->tokenizer, id, buf, sizeof(buf));
    json_t *odd = NULL;

    if (n > sizeof(buf))
        n = sizeof(buf);
    trmi_out_text(o, "{\"token\":");
    if (trmi_out_is_utf8(buf, n)) {
        trmi_out_text(o, "\"");
        trmi_out_escaped(o, buf, n);
        trmi_out_text(o, "\"");
    } else {
        odd = escaped_bytes(buf, n);
        trmi_out_json(o, odd);
        json_decref(odd);
    }
    trmi_out_text(o, ",\"id\":");
    trmi_out_int(o, id);
    trmi_out_text(o, ",\"bytes\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            trmi_out_add(o, ",", 1);
        trmi_out_int(o, (unsigned char)buf[i]);
    }
    trmi_out_text(o, "],\"logprob\":");
    trmi_out_real(o, logprob(value));
}

void trmi_lm_write_logprob(trmi_out *o, const trm_language *l, const trm_sampled *s)
{
    write_token(o, l, s->id, s->logprob);
    trmi_out_text(o, ",\"top_logprobs\":[");
    for (int i = 0; i < s->top_count; i++) {
        if (i > 0)
            trmi_out_add(o, ",", 1);
        write_token(o, l, s->top_ids[i], s->top_logprobs[i]);
        trmi_out_add(o, "}", 1);
    }
    trmi_out_text(o, "]}");
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

json_t *trmi_lm_old_logprobs(const trm_language *l, const trm_lm_prompt *echoed,
                             const json_t *prompt_list, const json_t *list, size_t *offset)
{
    json_t *o = json_object(), *tokens = json_array(), *values = json_array(), *tops = json_array(),
           *offsets = json_array();

    if (echoed != NULL && echoed->count > 0) { /* nothing stands before the first token */
        json_t *token = json_object();

        set_token(token, l, echoed->ids[0]);
        json_array_append(tokens, json_object_get(token, "token"));
        json_array_append_new(values, json_null());
        json_array_append_new(tops, json_null());
        json_array_append_new(offsets, json_integer(0));
        /* a BOS that was put in front is not in the text */
        if (l->tokenizer == NULL || !trm_tokenizer_is_special(l->tokenizer, echoed->ids[0]))
            *offset = characters_of(token);
        json_decref(token);
        add_old_logprobs(tokens, values, tops, offsets, prompt_list, offset);
    }
    add_old_logprobs(tokens, values, tops, offsets, list, offset);
    json_object_set_new(o, "tokens", tokens);
    json_object_set_new(o, "token_logprobs", values);
    json_object_set_new(o, "top_logprobs", tops);
    json_object_set_new(o, "text_offset", offsets);
    return o;
}
