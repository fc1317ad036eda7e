/* The gateway's look at a JSON body: is it an object, and what are a few of its members? The
 * replica reads the whole of it. A body may have 32 MiB (arrays of token ids), so no tree is built
 * and nothing is copied: one pass, a stack of TRMI_JSON_DEPTH_MAX bytes. UTF-8 and surrogates are
 * left to the replica. */
#include "coordinator/gateway/openai_impl.h"

#include <inttypes.h>
#include <string.h>

struct skim {
    const char *start, *at, *end;
    const char *wanted; /* set where it stops */
};

static bool stop(struct skim *s, const char *wanted)
{
    s->wanted = wanted;
    return false;
}

static int peek(const struct skim *s)
{
    return s->at < s->end ? (unsigned char)*s->at : -1;
}

static void blank(struct skim *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

static bool hex_digit(int c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* After a backslash. */
static bool skip_escape(struct skim *s)
{
    int c = peek(s);

    if (c == 'u') {
        s->at++;
        for (int i = 0; i < 4; i++, s->at++)
            if (!hex_digit(peek(s)))
                return stop(s, "four hexadecimal digits");
        return true;
    }
    if (c <= 0 || strchr("\"\\/bfnrt", c) == NULL)
        return stop(s, "an escape that JSON knows");
    s->at++;
    return true;
}

static bool skip_string(struct skim *s)
{
    if (peek(s) != '"')
        return stop(s, "a string");
    s->at++;
    for (;;) {
        while (s->at < s->end && (unsigned char)*s->at >= 0x20 && *s->at != '"' && *s->at != '\\')
            s->at++;
        if (s->at == s->end)
            return stop(s, "the end of a string");
        if (*s->at == '"') {
            s->at++;
            return true;
        }
        if (*s->at != '\\')
            return stop(s, "control characters escaped");
        s->at++;
        if (!skip_escape(s))
            return false;
    }
}

static bool skip_digits(struct skim *s)
{
    if (peek(s) < '0' || peek(s) > '9')
        return stop(s, "a digit");
    while (peek(s) >= '0' && peek(s) <= '9')
        s->at++;
    return true;
}

static bool skip_number(struct skim *s)
{
    if (peek(s) == '-')
        s->at++;
    if (peek(s) == '0')
        s->at++;
    else if (!skip_digits(s))
        return false;
    if (peek(s) == '.') {
        s->at++;
        if (!skip_digits(s))
            return false;
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-')
            s->at++;
        return skip_digits(s);
    }
    return true;
}

static bool skip_scalar(struct skim *s)
{
    static const char *const words[] = {"true", "false", "null"};
    int c = peek(s);

    if (c == '"')
        return skip_string(s);
    if (c == '-' || (c >= '0' && c <= '9'))
        return skip_number(s);
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        size_t n = strlen(words[i]);

        if ((size_t)(s->end - s->at) >= n && memcmp(s->at, words[i], n) == 0) {
            s->at += n;
            return true;
        }
    }
    return stop(s, "a value");
}

/* A name and its colon, up to the value. */
static bool skip_name(struct skim *s)
{
    blank(s);
    if (!skip_string(s))
        return false;
    blank(s);
    if (peek(s) != ':')
        return stop(s, "':'");
    s->at++;
    return true;
}

/* One value, whatever it is; an object's names and values are met in the same loop. */
static bool skip_value(struct skim *s)
{
    char close[TRMI_JSON_DEPTH_MAX]; /* of what is open */
    int depth = 0;

    for (;;) {
        int c;

        blank(s);
        c = peek(s);
        if (c == '{' || c == '[') {
            if (depth == TRMI_JSON_DEPTH_MAX)
                return stop(s, "less nesting");
            close[depth++] = c == '{' ? '}' : ']';
            s->at++;
            blank(s);
            if (peek(s) != close[depth - 1]) {
                if (c == '{' && !skip_name(s))
                    return false;
                continue;
            }
            s->at++;
            depth--;
        } else if (!skip_scalar(s)) {
            return false;
        }
        for (;;) { /* a value has ended here */
            if (depth == 0)
                return true;
            blank(s);
            if (peek(s) == ',')
                break;
            if (peek(s) != close[depth - 1])
                return stop(s, close[depth - 1] == '}' ? "',' or '}'" : "',' or ']'");
            s->at++;
            depth--;
        }
        s->at++; /* the comma */
        if (close[depth - 1] == '}' && !skip_name(s))
            return false;
    }
}

/* Is the name [from, to), with its quotes, `want`? It may be written with escapes. */
static bool name_is(const char *from, const char *to, const char *want)
{
    size_t bytes = (size_t)(to - from), n = strlen(want);
    json_t *text;
    bool same;

    if (memchr(from, '\\', bytes) == NULL)
        return bytes == n + 2 && memcmp(from + 1, want, n) == 0;
    if (bytes > 6 * n + 2)
        return false;
    text = json_loadb(from, bytes, JSON_DECODE_ANY, NULL);
    same = json_is_string(text) && strcmp(json_string_value(text), want) == 0;
    json_decref(text);
    return same;
}

static char type_of(char c)
{
    return c == '-' || (c >= '0' && c <= '9') ? '0' : c;
}

static bool skip_object(struct skim *s, trmi_json_field *fields, int count)
{
    s->at++; /* '{' */
    blank(s);
    if (peek(s) == '}') {
        s->at++;
        return true;
    }
    for (;;) {
        trmi_json_field *field = NULL;
        const char *from, *to;

        blank(s);
        from = s->at;
        if (!skip_string(s))
            return false;
        to = s->at;
        blank(s);
        if (peek(s) != ':')
            return stop(s, "':'");
        s->at++;
        blank(s);
        for (int i = 0; i < count && field == NULL; i++)
            if (name_is(from, to, fields[i].name))
                field = &fields[i];
        from = s->at;
        if (!skip_value(s))
            return false;
        if (field != NULL) {
            field->value = from;
            field->bytes = (size_t)(s->at - from);
            field->type = type_of(*from);
        }
        blank(s);
        if (peek(s) == '}')
            break;
        if (peek(s) != ',')
            return stop(s, "',' or '}'");
        s->at++;
    }
    s->at++;
    return true;
}

trm_status trmi_json_fields(const char *text, size_t bytes, trmi_json_field *fields, int count)
{
    struct skim s = {.start = text, .at = text, .end = text + bytes};
    size_t line = 1, column = 1;

    for (int i = 0; i < count; i++)
        fields[i] = (trmi_json_field){.name = fields[i].name};
    blank(&s);
    if (s.at == s.end)
        return trm_fail(TRM_ERR_INVALID_ARG, "empty, wanted a JSON object");
    if (*s.at == '{') {
        if (skip_object(&s, fields, count)) {
            blank(&s);
            if (s.at == s.end)
                return TRM_OK;
            s.wanted = "the end";
        }
    } else if (skip_value(&s)) {
        return trm_fail(TRM_ERR_INVALID_ARG, "JSON, but not an object");
    }
    for (const char *p = text; p < s.at; p++) {
        column = *p == '\n' ? 1 : column + 1;
        line += *p == '\n';
    }
    return trm_fail(TRM_ERR_INVALID_ARG, "not JSON: line %zu column %zu (byte %zu): wanted %s",
                    line, column, (size_t)(s.at - s.start), s.wanted);
}

const char *trmi_openai_json_type(const trmi_json_field *field)
{
    switch (field->type) {
    case '{':
        return "an object";
    case '[':
        return "a list";
    case '"':
        return "a string";
    case '0':
        return "a number";
    case 't':
    case 'f':
        return "a boolean";
    case 'n':
        return "null";
    default:
        return "missing";
    }
}

trm_status trmi_openai_json_text(const trmi_json_field *field, size_t bytes_max, char **text_out)
{
    json_error_t error;
    json_t *text;
    char *copy;

    if (field->type != '"')
        return trm_fail(TRM_ERR_INVALID_ARG, "%s is %s, wanted a string", field->name,
                        trmi_openai_json_type(field));
    /* an escape has up to six bytes a byte of text */
    if (field->bytes > 6 * bytes_max + 2)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s is longer than %zu bytes", field->name, bytes_max);
    text = json_loadb(field->value, field->bytes, JSON_DECODE_ANY, &error);
    if (text == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: %s", field->name,
                        json_error_code(&error) == json_error_null_character
                            ? "a zero character (\\u0000) is not taken"
                            : error.text);
    if (json_string_length(text) > bytes_max) {
        json_decref(text);
        return trm_fail(TRM_ERR_INVALID_ARG, "%s is longer than %zu bytes", field->name, bytes_max);
    }
    copy = trm_strdup(json_string_value(text));
    json_decref(text);
    if (copy == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "no memory for %s", field->name);
    *text_out = copy;
    return TRM_OK;
}

trm_status trmi_openai_head_read(const void *body, size_t bytes, trmi_openai_head *head_out)
{
    enum { MODEL, STREAM, PRIORITY, FIELDS };
    trmi_json_field fields[FIELDS] = {
        [MODEL] = {.name = "model"},
        [STREAM] = {.name = "stream"},
        [PRIORITY] = {.name = "priority"},
    };
    const trmi_json_field *f;
    trmi_openai_head head = {.stream = false};
    trm_status st = trmi_json_fields(body, bytes, fields, FIELDS);

    if (st != TRM_OK)
        return trm_fail_context(st, "the body");
    f = &fields[MODEL];
    if (f->type != 0 && f->type != 'n') {
        char *text;

        TRM_CHECK(trmi_openai_json_text(f, sizeof(head.model) - 1, &text));
        memcpy(head.model, text, strlen(text) + 1);
        trm_free(text);
    }
    f = &fields[STREAM];
    if (f->type != 0 && f->type != 'n' && f->type != 't' && f->type != 'f')
        return trm_fail(TRM_ERR_INVALID_ARG, "stream is %s, wanted true or false",
                        trmi_openai_json_type(f));
    head.stream = f->type == 't';
    f = &fields[PRIORITY];
    if (f->type != 0 && f->type != 'n') {
        json_t *v = f->type == '0' && f->bytes < 32
                        ? json_loadb(f->value, f->bytes, JSON_DECODE_ANY, NULL)
                        : NULL;
        json_int_t n = json_integer_value(v);
        bool ok = json_is_integer(v) && n >= INT32_MIN && n <= INT32_MAX;

        json_decref(v);
        if (!ok)
            return trm_fail(TRM_ERR_INVALID_ARG, "priority is %.20s, wanted an integer of 32 bits",
                            trmi_openai_json_type(f));
        head.priority = (int32_t)n;
        head.priority_given = true;
    }
    *head_out = head;
    return TRM_OK;
}

trm_status trmi_batch_request_read(const char *line, size_t bytes, const char *endpoint,
                                   size_t body_max, trmi_batch_request *request_out,
                                   const char **code_out, const char **param_out)
{
    enum { ID, METHOD, URL, BODY, FIELDS };
    trmi_json_field fields[FIELDS] = {
        [ID] = {.name = "custom_id"},
        [METHOD] = {.name = "method"},
        [URL] = {.name = "url"},
        [BODY] = {.name = "body"},
    };
    char *method = NULL, *url = NULL, *id = NULL;
    trm_status st;

    *code_out = "invalid_json_line";
    *param_out = "";
    TRM_TRY(st, trmi_json_fields(line, bytes, fields, FIELDS), out);
    for (int i = 0; i < FIELDS; i++) {
        *param_out = fields[i].name;
        *code_out = "missing_required_parameter";
        if (fields[i].type == 0 || fields[i].type == 'n') {
            st = trm_fail(TRM_ERR_INVALID_ARG, "%s is missing", fields[i].name);
            goto out;
        }
    }
    *code_out = "invalid_custom_id";
    *param_out = "custom_id";
    TRM_TRY(st, trmi_openai_json_text(&fields[ID], 512, &id), out);
    *code_out = "invalid_method";
    *param_out = "method";
    TRM_TRY(st, trmi_openai_json_text(&fields[METHOD], 512, &method), out);
    if (strcmp(method, "POST") != 0) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "method is \"%.40s\", wanted POST", method);
        goto out;
    }
    *code_out = "url_mismatch";
    *param_out = "url";
    TRM_TRY(st, trmi_openai_json_text(&fields[URL], 512, &url), out);
    if (strcmp(url, endpoint) != 0) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "url is \"%.80s\", wanted the batch's endpoint %s", url,
                      endpoint);
        goto out;
    }
    *code_out = "invalid_body";
    *param_out = "body";
    if (fields[BODY].type != '{') {
        st = trm_fail(TRM_ERR_INVALID_ARG, "body is %s, wanted an object",
                      trmi_openai_json_type(&fields[BODY]));
        goto out;
    }
    if (fields[BODY].bytes > body_max) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "body has %zu bytes, wanted at most %zu",
                      fields[BODY].bytes, body_max);
        goto out;
    }
    *request_out = (trmi_batch_request){.custom_id = fields[ID].value,
                                        .custom_id_bytes = fields[ID].bytes,
                                        .id = id,
                                        .body = fields[BODY].value,
                                        .body_bytes = fields[BODY].bytes};
    id = NULL;

out:
    trm_free(method);
    trm_free(url);
    trm_free(id);
    return st;
}

trm_status trmi_batch_line_id(const char *line, size_t bytes, char **id_out)
{
    trmi_json_field field = {.name = "custom_id"};

    TRM_CHECK(trmi_json_fields(line, bytes, &field, 1));
    return trmi_openai_json_text(&field, 512, id_out);
}
