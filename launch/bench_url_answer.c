/* Answers: server-sent events line by line as they come, whole ones at their end. What a server
 * sends is not believed: lengths are bounded, and what is no answer is counted as a failure. */
#include "launch/bench_url_impl.h"

#include <stdio.h>
#include <string.h>

#define TEXT_MAX ((size_t)4 << 20)

void trmi_url_answer_begin(trmi_url_answer *a, const trmi_url_target *t, trmi_url_samples *gaps)
{
    char *text = a->text;
    size_t room = a->room;

    memset(a, 0, sizeof(*a));
    a->text = text;
    a->room = room;
    a->target = t;
    a->gaps = gaps;
}

void trmi_url_answer_fini(trmi_url_answer *a)
{
    trm_free(a->text);
    memset(a, 0, sizeof(*a));
}

static void append(trmi_url_answer *a, const char *data, size_t bytes)
{
    if (a->cut || bytes > TEXT_MAX - a->bytes) {
        a->cut = true;
        return;
    }
    if (a->bytes + bytes > a->room) {
        size_t room = 2 * (a->bytes + bytes) + 512;
        char *grown = trm_realloc(a->text, room, 1);

        if (grown == NULL) {
            a->cut = true;
            return;
        }
        a->text = grown;
        a->room = room;
    }
    memcpy(a->text + a->bytes, data, bytes);
    a->bytes += bytes;
}

void trmi_url_one_line(const char *text, char *out, size_t bytes)
{
    snprintf(out, bytes, "%s", text);
    for (char *c = out; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

static void set_message(trmi_url_answer *a, const json_t *o)
{
    const json_t *error = json_object_get(o, "error");
    const char *text =
        json_string_value(json_is_object(error) ? json_object_get(error, "message") : error);

    trmi_url_one_line(text != NULL ? text : "", a->message, sizeof(a->message));
}

static void read_usage(trmi_url_answer *a, const json_t *o)
{
    const json_t *usage = json_object_get(o, "usage");

    if (!json_is_object(usage))
        return;
    a->usage = true;
    a->tokens_in = json_integer_value(json_object_get(usage, "prompt_tokens"));
    a->tokens_out = json_integer_value(json_object_get(usage, "completion_tokens"));
}

static bool says_something(const json_t *text)
{
    return json_string_length(text) > 0 || json_array_size(text) > 0;
}

/* Whether a chunk carries tokens: the first one of a chat only names the role. */
static bool has_text(const json_t *o)
{
    const json_t *choices = json_object_get(o, "choices"), *c;
    size_t i;

    json_array_foreach(choices, i, c)
    {
        const json_t *delta = json_object_get(c, "delta");

        if (says_something(json_object_get(c, "text")) ||
            says_something(json_object_get(delta, "content")) ||
            says_something(json_object_get(delta, "reasoning_content")) ||
            says_something(json_object_get(delta, "tool_calls")))
            return true;
    }
    return false;
}

/* One line of a stream; all but "data:" is of no use here. */
static void take_line(trmi_url_answer *a, const char *line, size_t n, int64_t now_us)
{
    json_t *o;

    if (n > 0 && line[n - 1] == '\r')
        n--;
    if (n < 5 || memcmp(line, "data:", 5) != 0 || a->done)
        return;
    line += 5;
    n -= 5;
    while (n > 0 && *line == ' ') {
        line++;
        n--;
    }
    if (n == 6 && memcmp(line, "[DONE]", 6) == 0) {
        a->done = true;
        return;
    }
    o = json_loadb(line, n, 0, NULL);
    if (!json_is_object(o) || json_object_get(o, "error") != NULL) {
        a->bad = true;
        set_message(a, o);
    }
    read_usage(a, o);
    if (has_text(o)) {
        if (a->first_us == 0)
            a->first_us = now_us;
        else if (a->gaps != NULL)
            trmi_url_samples_add(a->gaps, (double)(now_us - a->last_us) / 1e3);
        a->last_us = now_us;
        a->chunks++;
    }
    json_decref(o);
}

void trmi_url_answer_take(trmi_url_answer *a, const char *data, size_t bytes, int64_t now_us,
                          long http)
{
    a->end_us = now_us;
    if (http == 200 && a->target->kind >= TRMI_URL_INFER)
        return; /* tensors: that they came is enough */
    if (http != 200 || !a->target->stream) {
        append(a, data, bytes);
        return;
    }
    while (bytes > 0) {
        const char *end = memchr(data, '\n', bytes);
        size_t n = end != NULL ? (size_t)(end - data) : bytes;

        if (a->bytes == 0 && end != NULL) {
            take_line(a, data, n, now_us);
        } else {
            append(a, data, n);
            if (end != NULL && !a->cut)
                take_line(a, a->text, a->bytes, now_us);
            if (end != NULL)
                a->bytes = 0;
        }
        n += end != NULL;
        data += n;
        bytes -= n;
    }
}

const char *trmi_url_answer_end(trmi_url_answer *a, long http)
{
    json_t *o;
    const char *bad = NULL;

    if (http == 200 && a->target->kind >= TRMI_URL_INFER)
        return NULL;
    if (http == 200 && a->target->stream) {
        if (!a->usage)
            a->tokens_out = a->chunks;
        return a->cut     ? "overlong line"
               : a->bad   ? "error in a stream"
               : !a->done ? "cut stream"
                          : NULL;
    }
    o = a->bytes > 0 && !a->cut ? json_loadb(a->text, a->bytes, 0, NULL) : NULL;
    if (http != 200) {
        set_message(a, o);
        bad = "status";
    } else if (!json_is_object(o)) {
        bad = a->cut ? "overlong answer" : "no JSON";
    } else {
        read_usage(a, o);
    }
    json_decref(o);
    return bad;
}
