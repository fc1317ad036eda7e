/* Text of a template to tokens, as jinja2's lexer does it with trim_blocks and lstrip_blocks: a
 * newline after a block or comment goes, and so do blanks before one at the start of a line; "-"
 * takes all white space, "+" leaves it. A newline at the end of the text goes. */
#include "model/template/template_impl.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef struct lexer {
    trm_template *t;
    char *text; /* newlines are \n */
    size_t bytes, at;
    int line;
    bool line_starting;
    char braces[256]; /* what must close */
    size_t open;
} lexer;

static trm_status fail(lexer *l, const char *what)
{
    l->t->fail_line = l->line;
    return trm_fail(TRM_ERR_BAD_FILE, "%s", what);
}

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "chat template");
}

static trm_status emit(lexer *l, trmi_token_kind kind, trmi_token **out)
{
    trm_template *t = l->t;

    if (t->token_count == t->token_room) {
        size_t room = t->token_room == 0 ? 256 : t->token_room * 2;
        trmi_token *grown = trm_realloc(t->tokens, room, sizeof(*grown));

        if (grown == NULL)
            return no_memory();
        t->tokens = grown;
        t->token_room = room;
    }
    *out = &t->tokens[t->token_count++];
    memset(*out, 0, sizeof(**out));
    (*out)->kind = kind;
    (*out)->line = l->line;
    return TRM_OK;
}

static trm_status emit_text(lexer *l, trmi_token_kind kind, const char *data, size_t bytes)
{
    trmi_token *token;
    trmi_string *s;
    size_t chars = 0;

    TRM_CHECK(emit(l, kind, &token));
    s = trm_arena_alloc(l->t->arena, 1, sizeof(*s));
    if (s == NULL)
        return no_memory();
    s->data = trm_arena_strndup(l->t->arena, data, bytes);
    if (s->data == NULL)
        return no_memory();
    for (size_t i = 0; i < bytes; i++)
        chars += ((unsigned char)data[i] & 0xc0) != 0x80;
    s->bytes = bytes;
    s->chars = chars;
    token->text = s;
    return TRM_OK;
}

static void skip_to(lexer *l, size_t end)
{
    for (; l->at < end; l->at++)
        l->line += l->text[l->at] == '\n';
}

static bool looking_at(const lexer *l, size_t at, const char *what)
{
    size_t n = strlen(what);

    return l->bytes - at >= n && memcmp(l->text + at, what, n) == 0;
}

static size_t skip_space(const lexer *l, size_t at)
{
    while (at < l->bytes) {
        size_t n;

        if (!trmi_is_space(trmi_decode(l->text + at, l->bytes - at, &n)))
            break;
        at += n;
    }
    return at;
}

/* Ends of tags: [+]%}, -%} with white space, %} with a newline. False: none here. */
static bool block_end(const lexer *l, size_t at, const char *close, bool plus, size_t *end)
{
    if (looking_at(l, at, "-") && looking_at(l, at + 1, close)) {
        *end = skip_space(l, at + 1 + strlen(close));
        return true;
    }
    if (plus && looking_at(l, at, "+") && looking_at(l, at + 1, close)) {
        *end = at + 1 + strlen(close);
        return true;
    }
    if (!looking_at(l, at, close))
        return false;
    *end = at + strlen(close);
    if (plus && *end < l->bytes && l->text[*end] == '\n')
        (*end)++;
    return true;
}

static size_t strip_right(const char *data, size_t bytes)
{
    while (bytes > 0) {
        size_t at = bytes - 1, n;

        while (at > 0 && ((unsigned char)data[at] & 0xc0) == 0x80)
            at--;
        if (!trmi_is_space(trmi_decode(data + at, bytes - at, &n)))
            break;
        bytes = at;
    }
    return bytes;
}

/* Emits the text from l->at to `end`, where a tag with `sign` begins. */
static trm_status emit_data(lexer *l, size_t end, char sign, bool variable)
{
    const char *data = l->text + l->at;
    size_t bytes = end - l->at, keep = bytes;

    if (sign == '-') {
        keep = strip_right(data, bytes);
    } else if (sign != '+' && !variable) {
        size_t start = bytes;

        while (start > 0 && data[start - 1] != '\n')
            start--;
        if ((start > 0 || l->line_starting) && strip_right(data + start, bytes - start) == 0)
            keep = start;
    }
    if (keep > 0)
        TRM_CHECK(emit_text(l, TRMI_TOK_DATA, data, keep));
    skip_to(l, end);
    return TRM_OK;
}

static bool find_endraw(const lexer *l, size_t from, size_t *begin, char *sign, size_t *end)
{
    for (size_t i = from; i + 1 < l->bytes; i++) {
        size_t at = i + 2;

        if (!looking_at(l, i, "{%"))
            continue;
        *sign = 0;
        if (at < l->bytes && (l->text[at] == '-' || l->text[at] == '+'))
            *sign = l->text[at++];
        at = skip_space(l, at);
        if (!looking_at(l, at, "endraw"))
            continue;
        at = skip_space(l, at + strlen("endraw"));
        if (block_end(l, at, "%}", true, end)) {
            *begin = i;
            return true;
        }
    }
    return false;
}

/* `end`: after the raw tag, when one begins at `at` (after "{%" and sign). */
static bool raw_begin(const lexer *l, size_t at, size_t *end)
{
    at = skip_space(l, at);
    if (!looking_at(l, at, "raw"))
        return false;
    return block_end(l, skip_space(l, at + 3), "%}", false, end);
}

static trm_status lex_name(lexer *l)
{
    size_t end = l->at;

    while (end < l->bytes) {
        size_t n;
        int32_t c = trmi_decode(l->text + end, l->bytes - end, &n);

        if (c != '_' && !trmi_is_alpha(c) && !trmi_is_numeric(c))
            break;
        end += n;
    }
    TRM_CHECK(emit_text(l, TRMI_TOK_NAME, l->text + l->at, end - l->at));
    l->at = end;
    return TRM_OK;
}

/* Digits with single underscores between; the end, or `at` if there are none. */
static size_t digits(const lexer *l, size_t at, const char *set)
{
    size_t end = at;

    for (;;) {
        size_t next = end;

        if (end > at && next < l->bytes && l->text[next] == '_')
            next++;
        if (next >= l->bytes || l->text[next] == '\0' || strchr(set, l->text[next]) == NULL)
            return end;
        end = next + 1;
    }
}

static trm_status lex_number(lexer *l)
{
    static const char dec[] = "0123456789";
    char text[128];
    size_t end = digits(l, l->at, dec), n = 0;
    bool real = false;
    int base = 10;
    trmi_token *token;
    char *stop;

    if (l->at == 0 || l->text[l->at - 1] != '.') {
        if (end + 1 < l->bytes && l->text[end] == '.' && isdigit((unsigned char)l->text[end + 1])) {
            end = digits(l, end + 1, dec);
            real = true;
        }
        if (end < l->bytes && (l->text[end] == 'e' || l->text[end] == 'E')) {
            size_t e = end + 1;

            if (e < l->bytes && (l->text[e] == '+' || l->text[e] == '-'))
                e++;
            if (digits(l, e, dec) > e) {
                end = digits(l, e, dec);
                real = true;
            }
        }
    }
    if (!real && l->text[l->at] == '0' && l->at + 1 < l->bytes) {
        char c = (char)(l->text[l->at + 1] | 0x20);
        size_t from = l->at + 2;
        size_t to = from;

        if (from < l->bytes && l->text[from] == '_')
            from++;
        if (c == 'x')
            to = digits(l, from, "0123456789abcdefABCDEF");
        else if (c == 'o')
            to = digits(l, from, "01234567");
        else if (c == 'b')
            to = digits(l, from, "01");
        if ((c == 'x' || c == 'o' || c == 'b') && to > from) {
            base = c == 'x' ? 16 : c == 'o' ? 8 : 2;
            l->at = from;
            end = to;
        } else {
            end = digits(l, l->at, "0"); /* 012 is two numbers, which the parser refuses */
        }
    }
    for (size_t i = l->at; i < end; i++) {
        if (l->text[i] == '_')
            continue;
        if (n + 1 >= sizeof(text))
            return fail(l, "a number is too long");
        text[n++] = l->text[i];
    }
    text[n] = '\0';
    l->at = end;
    TRM_CHECK(emit(l, real ? TRMI_TOK_FLOAT : TRMI_TOK_INT, &token));
    errno = 0;
    if (real) {
        token->real = strtod(text, &stop);
        return TRM_OK; /* beyond the range: inf or 0, as Python */
    }
    token->integer = strtoll(text, &stop, base);
    return errno == 0 ? TRM_OK : fail(l, "an integer is beyond 64 bits");
}

static bool put_code_point(char *out, size_t *n, uint32_t c)
{
    utf8proc_ssize_t bytes;

    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return false;
    bytes = utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out + *n);
    *n += (size_t)bytes;
    return bytes > 0;
}

/* Python's unicode-escape codec: what it does not know it leaves. */
static bool unescape(const char *in, size_t bytes, char *out, size_t *count)
{
    static const char plain[] = "\\'\"abfnrtv", means[] = "\\'\"\a\b\f\n\r\t\v";
    size_t n = 0;

    for (size_t i = 0; i < bytes; i++) {
        const char *known;
        size_t wanted = 0, got = 0;
        uint32_t c = 0;

        if (in[i] != '\\' || i + 1 >= bytes) {
            out[n++] = in[i];
            continue;
        }
        i++;
        known = in[i] == '\0' ? NULL : strchr(plain, in[i]);
        if (in[i] == '\n')
            continue;
        if (known != NULL) {
            out[n++] = means[known - plain];
            continue;
        }
        if (in[i] >= '0' && in[i] <= '7') {
            for (; got < 3 && i + got < bytes && in[i + got] >= '0' && in[i + got] <= '7'; got++)
                c = c * 8 + (uint32_t)(in[i + got] - '0');
            i += got - 1;
            if (!put_code_point(out, &n, c))
                return false;
            continue;
        }
        wanted = in[i] == 'x' ? 2 : in[i] == 'u' ? 4 : in[i] == 'U' ? 8 : 0;
        if (in[i] == 'N')
            return false; /* names of characters */
        if (wanted == 0) {
            out[n++] = '\\';
            out[n++] = in[i];
            continue;
        }
        for (; got < wanted; got++) {
            char digit[2] = {i + 1 + got < bytes ? in[i + 1 + got] : 'z', '\0'};
            char *stop;
            unsigned long v = strtoul(digit, &stop, 16);

            if (stop == digit)
                return false;
            c = c * 16 + (uint32_t)v;
        }
        i += wanted;
        if (!put_code_point(out, &n, c))
            return false;
    }
    *count = n;
    return true;
}

static trm_status lex_string(lexer *l)
{
    char quote = l->text[l->at];
    size_t end = l->at + 1, n = 0;
    char *text;
    trm_status st;

    while (end < l->bytes && l->text[end] != quote)
        end += l->text[end] == '\\' ? 2 : 1;
    if (end >= l->bytes)
        return fail(l, "a string does not end");
    text = trm_malloc(end - l->at, 1); /* escapes only shrink */
    if (text == NULL)
        return no_memory();
    if (!unescape(l->text + l->at + 1, end - l->at - 1, text, &n))
        st = fail(l,
                  "a string has an escape that is none: \\xNN, \\uNNNN, \\UNNNNNNNN of a character "
                  "are known, names of characters are not");
    else
        st = emit_text(l, TRMI_TOK_STRING, text, n);
    trm_free(text);
    skip_to(l, end + 1);
    return st;
}

static trm_status lex_operator(lexer *l)
{
    static const struct {
        const char *text;
        trmi_token_kind kind;
    } operators[] = {
        {"//", TRMI_TOK_FLOORDIV}, {"**", TRMI_TOK_POW},      {"==", TRMI_TOK_EQ},
        {"!=", TRMI_TOK_NE},       {">=", TRMI_TOK_GE},       {"<=", TRMI_TOK_LE},
        {"+", TRMI_TOK_ADD},       {"-", TRMI_TOK_SUB},       {"/", TRMI_TOK_DIV},
        {"*", TRMI_TOK_MUL},       {"%", TRMI_TOK_MOD},       {"~", TRMI_TOK_TILDE},
        {"[", TRMI_TOK_LBRACKET},  {"]", TRMI_TOK_RBRACKET},  {"(", TRMI_TOK_LPAREN},
        {")", TRMI_TOK_RPAREN},    {"{", TRMI_TOK_LBRACE},    {"}", TRMI_TOK_RBRACE},
        {">", TRMI_TOK_GT},        {"<", TRMI_TOK_LT},        {"=", TRMI_TOK_ASSIGN},
        {".", TRMI_TOK_DOT},       {":", TRMI_TOK_COLON},     {"|", TRMI_TOK_PIPE},
        {",", TRMI_TOK_COMMA},     {";", TRMI_TOK_SEMICOLON},
    };
    static const char opening[] = "[({", closing[] = "])}";
    trmi_token *token;
    const char *which;

    for (size_t i = 0; i < sizeof(operators) / sizeof(operators[0]); i++) {
        if (!looking_at(l, l->at, operators[i].text))
            continue;
        which = strchr(opening, l->text[l->at]);
        if (which != NULL) {
            if (l->open == sizeof(l->braces))
                return fail(l, "brackets nest too deeply");
            l->braces[l->open++] = closing[which - opening];
        }
        which = strchr(closing, l->text[l->at]);
        if (which != NULL && (l->open == 0 || l->braces[--l->open] != *which))
            return fail(l, "a bracket closes that was not opened");
        TRM_CHECK(emit(l, operators[i].kind, &token));
        l->at += strlen(operators[i].text);
        return TRM_OK;
    }
    return fail(l, "a character that belongs to no expression");
}

/* From after "{{" or "{%" to after its end. */
static trm_status lex_tag(lexer *l, bool variable)
{
    const char *close = variable ? "}}" : "%}";
    trmi_token *token;

    l->open = 0;
    while (l->at < l->bytes) {
        size_t end, n;
        int32_t c = trmi_decode(l->text + l->at, l->bytes - l->at, &n);

        if (l->open == 0 && block_end(l, l->at, close, !variable, &end)) {
            TRM_CHECK(emit(l, variable ? TRMI_TOK_VARIABLE_END : TRMI_TOK_BLOCK_END, &token));
            skip_to(l, end);
            l->line_starting = l->text[end - 1] == '\n';
            return TRM_OK;
        }
        if (trmi_is_space(c))
            skip_to(l, l->at + n);
        else if (c >= '0' && c <= '9')
            TRM_CHECK(lex_number(l));
        else if (c == '_' || trmi_is_alpha(c))
            TRM_CHECK(lex_name(l));
        else if (c == '\'' || c == '"')
            TRM_CHECK(lex_string(l));
        else
            TRM_CHECK(lex_operator(l));
    }
    return fail(l, variable ? "{{ without }}" : "{% without %}");
}

static trm_status lex_comment(lexer *l)
{
    for (size_t i = l->at; i < l->bytes; i++) {
        size_t end;

        if (!block_end(l, i, "#}", true, &end))
            continue;
        skip_to(l, end);
        l->line_starting = l->text[end - 1] == '\n';
        return TRM_OK;
    }
    return fail(l, "{# without #}");
}

static trm_status lex_raw(lexer *l)
{
    size_t begin, end;
    char sign;

    l->line_starting = l->text[l->at - 1] == '\n';
    if (!find_endraw(l, l->at, &begin, &sign, &end))
        return fail(l, "{% raw %} without {% endraw %}");
    TRM_CHECK(emit_data(l, begin, sign, false));
    skip_to(l, end);
    l->line_starting = l->text[end - 1] == '\n';
    return TRM_OK;
}

static trm_status lex_all(lexer *l)
{
    trmi_token *token;

    while (l->at < l->bytes) {
        size_t tag = l->at, end;
        char sign = 0, what;

        while (tag + 1 < l->bytes && !(l->text[tag] == '{' && strchr("{%#", l->text[tag + 1]) &&
                                       l->text[tag + 1] != '\0'))
            tag++;
        if (tag + 1 >= l->bytes) {
            TRM_CHECK(emit_text(l, TRMI_TOK_DATA, l->text + l->at, l->bytes - l->at));
            skip_to(l, l->bytes);
            break;
        }
        what = l->text[tag + 1];
        end = tag + 2;
        if (end < l->bytes && (l->text[end] == '-' || l->text[end] == '+'))
            sign = l->text[end++];
        TRM_CHECK(emit_data(l, tag, sign, what == '{'));
        if (what == '%' && raw_begin(l, end, &end)) {
            skip_to(l, end);
            TRM_CHECK(lex_raw(l));
        } else if (what == '#') {
            skip_to(l, end);
            TRM_CHECK(lex_comment(l));
        } else {
            TRM_CHECK(
                emit(l, what == '{' ? TRMI_TOK_VARIABLE_BEGIN : TRMI_TOK_BLOCK_BEGIN, &token));
            skip_to(l, end);
            TRM_CHECK(lex_tag(l, what == '{'));
        }
    }
    return emit(l, TRMI_TOK_END, &token);
}

trm_status trmi_template_lex(trm_template *t, const char *text, size_t bytes)
{
    lexer l = {.t = t, .line = 1, .line_starting = true};
    trm_status st;

    l.text = trm_malloc(bytes + 1, 1);
    if (l.text == NULL)
        return no_memory();
    for (size_t i = 0; i < bytes; i++) { /* \r\n and \r are \n */
        if (text[i] == '\r') {
            l.text[l.bytes++] = '\n';
            if (i + 1 < bytes && text[i + 1] == '\n')
                i++;
        } else {
            l.text[l.bytes++] = text[i];
        }
    }
    if (l.bytes > 0 && l.text[l.bytes - 1] == '\n')
        l.bytes--;
    st = lex_all(&l);
    trm_free(l.text);
    return st;
}
