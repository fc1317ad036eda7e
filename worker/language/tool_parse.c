/* Tool calls in a model's text, a byte at a time. What may be a call is kept until its name is
 * known and its arguments begin; from there on they are given out as they come. Where it turns out
 * to be none, all that was kept is text. White space around calls is nobody's: it is held back
 * until other text follows.
 *
 * A call's JSON is not checked further than its brackets go: what a model writes as arguments is
 * passed on as it is, as OpenAI does. */
#include "worker/language/tools_impl.h"

#include "worker/language/json_out.h"

#include "base/memory.h"

#include <string.h>

#define DEPTH_MAX 256 /* brackets inside a value */
#define BIT(format) (1u << (format))

const struct trmi_tool_mark trmi_tool_marks[TRMI_TOOL_MARKS] = {
    {"<tool_call>", "</tool_call>", BIT(TRM_TOOLS_HERMES) | BIT(TRM_TOOLS_JSON)},
    {"<|python_tag|>", NULL, BIT(TRM_TOOLS_LLAMA) | BIT(TRM_TOOLS_JSON)},
    {"[TOOL_CALLS]", NULL, BIT(TRM_TOOLS_MISTRAL) | BIT(TRM_TOOLS_JSON)},
    {"<|tool_call|>", NULL, BIT(TRM_TOOLS_JSON)},
};

enum state {
    START, /* nothing but white space so far */
    TEXT,
    CLOSED,   /* behind a call */
    END_MARK, /* inside the mark that stands behind calls */
    /* from here on bytes are kept, as long as the call is not known */
    MARK,   /* inside a mark */
    OPEN,   /* before a call's first bracket */
    NAMED,  /* [TOOL_CALLS]name */
    KEY,    /* inside an object: before a key, or its end */
    IN_KEY, /* inside the key's string */
    COLON,
    VALUE, /* before a value */
    NAME,  /* inside the string that is the name */
    SKIP,  /* inside a value that nobody wants */
    ARGS,  /* inside the arguments */
    AFTER, /* behind a value */
    STATES
};

/* What became of a byte: it was used; it is to be looked at in the new state; no call. */
enum took { USED, AGAIN, NO };

struct trm_tool_parser {
    const trm_tools *tools;
    trm_tool_sink sink;
    void *ctx;
    enum state state;
    const struct trmi_tool_mark *mark; /* that the calls stand behind; NULL: none */
    trmi_out kept, white, out;         /* what may be a call; white space; what is given out */
    trm_tool_event giving;             /* what `out` is */
    int calls;                         /* that were given out */
    bool texts, list;                  /* text was given out; inside [ ] */
    size_t end_at;                     /* bytes of the end mark that were seen */
    /* the object */
    trmi_out key, name, args;    /* args: before the name is known */
    bool named, known, has_args; /* known: it was given out */
    bool mute;                   /* a second call that nobody wants */
    int nested;                  /* inside {"function": { } }; -1: no object around the arguments */
    /* a value */
    unsigned char brackets[DEPTH_MAX / 8];
    int depth;
    bool string, escape, started, quoted; /* quoted: arguments that are a string */
};

/* ---- giving out ---- */

static void flush(trm_tool_parser *p)
{
    if (p->out.bytes > 0)
        p->sink(p->ctx, p->giving, p->calls - 1, p->out.data, p->out.bytes);
    p->out.bytes = 0;
}

static void give(trm_tool_parser *p, trm_tool_event event, const char *text, size_t bytes)
{
    if (p->giving != event)
        flush(p);
    p->giving = event;
    trmi_out_add(&p->out, text, bytes);
}

static bool is_white(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static void give_text(trm_tool_parser *p, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (is_white(text[i])) {
            trmi_out_add(&p->white, text + i, 1);
            continue;
        }
        if (p->calls == 0 || p->texts) /* line breaks between calls are not the answer's */
            give(p, TRM_TOOL_TEXT, p->white.data, p->white.bytes);
        p->white.bytes = 0;
        p->texts = true;
        give(p, TRM_TOOL_TEXT, text + i, 1);
    }
}

/* The call is one. */
static void begin_call(trm_tool_parser *p)
{
    p->known = true;
    p->kept.bytes = p->white.bytes = 0;
    p->mute = p->calls > 0 && !p->tools->parallel;
    if (p->mute)
        return;
    flush(p);
    p->calls++;
    p->sink(p->ctx, TRM_TOOL_CALL, p->calls - 1, p->name.data, p->name.bytes);
    give(p, TRM_TOOL_ARGUMENTS, p->args.data, p->args.bytes);
}

/* Arguments of a call that is one, or may become one. */
static void give_args(trm_tool_parser *p, const char *text, size_t bytes)
{
    if (!p->known)
        trmi_out_add(&p->args, text, bytes);
    else if (!p->mute)
        give(p, TRM_TOOL_ARGUMENTS, text, bytes);
}

/* ---- parts of a call ---- */

static void begin_object(trm_tool_parser *p)
{
    p->key.bytes = p->name.bytes = p->args.bytes = 0;
    p->named = p->known = p->has_args = false;
    p->nested = 0;
}

/* Without a mark an object is a call only where its name is a function's. */
static bool name_fits(const trm_tool_parser *p)
{
    if (p->name.bytes == 0 || p->name.bytes > TRMI_TOOL_NAME_MAX)
        return false;
    for (size_t i = 0; i < p->tools->count; i++)
        if (strlen(p->tools->names[i]) == p->name.bytes &&
            memcmp(p->tools->names[i], p->name.data, p->name.bytes) == 0)
            return true;
    return p->mark != NULL;
}

static bool key_is(const trm_tool_parser *p, const char *a, const char *b)
{
    return (p->key.bytes == strlen(a) && memcmp(p->key.data, a, p->key.bytes) == 0) ||
           (p->key.bytes == strlen(b) && memcmp(p->key.data, b, p->key.bytes) == 0);
}

/* The text of a JSON string whose inside is in `o`. false: it is none. */
static bool unescape(trmi_out *o)
{
    trmi_out quoted = {0};
    json_t *text;
    bool good;

    if (o->bytes == 0 || memchr(o->data, '\\', o->bytes) == NULL)
        return true;
    trmi_out_add(&quoted, "\"", 1);
    trmi_out_add(&quoted, o->data, o->bytes);
    trmi_out_add(&quoted, "\"", 1);
    text = quoted.failed ? NULL : json_loadb(quoted.data, quoted.bytes, JSON_DECODE_ANY, NULL);
    good = json_is_string(text) && json_string_length(text) <= o->bytes;
    if (good) {
        o->bytes = json_string_length(text);
        memcpy(o->data, json_string_value(text), o->bytes);
    }
    json_decref(text);
    trmi_out_fini(&quoted);
    return good;
}

static void begin_value(trm_tool_parser *p)
{
    p->depth = 0;
    p->string = p->escape = p->started = p->quoted = false;
}

/* What a byte is to a value. */
enum piece { INSIDE, OVER_WITH /* the byte is its last */, OVER_BEFORE, BROKEN };

static enum piece string_byte(trm_tool_parser *p, char c)
{
    bool ends = c == '"' && !p->escape;

    p->escape = c == '\\' && !p->escape;
    p->string = !ends;
    return ends && p->depth == 0 ? OVER_WITH : INSIDE;
}

static enum piece bracket_byte(trm_tool_parser *p, char c)
{
    bool curly = c == '{' || c == '}';
    unsigned char *at, bit;

    if (c == '{' || c == '[') {
        if (p->depth == DEPTH_MAX || (p->depth == 0 && p->started))
            return BROKEN;
        at = &p->brackets[p->depth / 8];
        bit = (unsigned char)(1u << (p->depth % 8));
        *at = (unsigned char)(curly ? *at | bit : *at & ~bit);
        p->depth++;
        p->started = true;
        return INSIDE;
    }
    if (p->depth == 0)
        return p->started ? OVER_BEFORE : BROKEN;
    p->depth--;
    if ((p->brackets[p->depth / 8] >> (p->depth % 8) & 1) != curly)
        return BROKEN;
    return p->depth == 0 ? OVER_WITH : INSIDE;
}

static enum piece value_byte(trm_tool_parser *p, char c)
{
    bool first = p->depth == 0 && !p->started;

    if (p->string)
        return string_byte(p, c);
    if (c == '{' || c == '[' || c == '}' || c == ']')
        return bracket_byte(p, c);
    if (p->depth == 0 && (c == ',' || is_white(c)))
        return first ? BROKEN : OVER_BEFORE;
    if (c == '"') {
        if (p->depth == 0 && !first)
            return BROKEN;
        p->string = true;
    }
    p->started = true;
    return INSIDE;
}

/* Arguments begin: if the name is there, the call is known. */
static void begin_args(trm_tool_parser *p)
{
    p->has_args = true;
    begin_value(p);
    p->state = ARGS;
    if (p->named)
        begin_call(p);
}

/* ---- states: outside of calls ---- */

/* Calls without a mark. */
static bool bare(const trm_tool_parser *p)
{
    return p->tools->format == TRM_TOOLS_LLAMA || p->tools->format == TRM_TOOLS_JSON ||
           p->tools->bare;
}

static bool is_of_format(const trm_tool_parser *p, int mark)
{
    return (trmi_tool_marks[mark].formats & BIT(p->tools->format)) != 0;
}

static bool begins_mark(const trm_tool_parser *p, char c)
{
    for (int i = 0; i < TRMI_TOOL_MARKS; i++)
        if (is_of_format(p, i) && trmi_tool_marks[i].begin[0] == c)
            return true;
    return false;
}

static void open_calls(trm_tool_parser *p, const struct trmi_tool_mark *mark)
{
    p->mark = mark;
    p->list = false;
    p->state = OPEN;
    begin_object(p);
}

static enum took on_text(trm_tool_parser *p, char c)
{
    bool start = p->state == START;

    if (start && is_white(c)) {
        trmi_out_add(&p->white, &c, 1);
        return USED;
    }
    if (begins_mark(p, c)) {
        begin_object(p);
        p->state = MARK;
        return AGAIN;
    }
    if (start && bare(p) && (c == '{' || c == '[')) {
        open_calls(p, NULL);
        return AGAIN;
    }
    p->state = TEXT;
    give_text(p, &c, 1);
    return USED;
}

/* kept: the beginning of a mark, or nothing. No mark has its first byte twice, so that one cannot
 * begin inside of what was none. */
static enum took on_mark(trm_tool_parser *p, char c)
{
    size_t at = p->kept.bytes;

    for (int i = 0; i < TRMI_TOOL_MARKS; i++) {
        const char *begin = trmi_tool_marks[i].begin;

        if (!is_of_format(p, i) || at >= strlen(begin) || begin[at] != c ||
            (at > 0 && memcmp(begin, p->kept.data, at) != 0))
            continue;
        if (begin[at + 1] == '\0')
            open_calls(p, &trmi_tool_marks[i]);
        return USED;
    }
    if (at == 1 && p->kept.data[0] == '[' && bare(p) && p->calls == 0 && !p->texts) {
        open_calls(p, NULL);
        p->list = true; /* the bracket was a list's */
        return AGAIN;
    }
    return NO;
}

static enum took on_closed(trm_tool_parser *p, char c)
{
    if (is_white(c))
        return USED;
    if (p->list && (c == ',' || c == ']')) {
        p->list = c == ',';
        p->state = p->list ? OPEN : CLOSED;
        return USED;
    }
    if (!p->list && p->mark == NULL && (c == ';' || c == ',')) {
        p->state = OPEN;
        return USED;
    }
    if (!p->list && p->mark == NULL && c == '{') {
        p->state = OPEN;
        return AGAIN;
    }
    p->list = false;
    p->end_at = 0;
    p->state = p->mark != NULL && p->mark->end != NULL && c == p->mark->end[0] ? END_MARK : TEXT;
    return AGAIN;
}

static enum took on_end_mark(trm_tool_parser *p, char c)
{
    const char *end = p->mark->end;

    if (end[p->end_at] == c) {
        if (end[++p->end_at] == '\0')
            p->state = TEXT;
        return USED;
    }
    begin_object(p);
    if (p->end_at == 1) { /* the next call's mark begins alike */
        trmi_out_add(&p->kept, end, 1);
        p->state = MARK;
    } else {
        give_text(p, end, p->end_at);
        p->state = TEXT;
    }
    return AGAIN;
}

/* ---- states: a call ---- */

static enum took on_open(trm_tool_parser *p, char c)
{
    if (is_white(c))
        return USED;
    if (c == '{') {
        begin_object(p);
        p->state = KEY;
        return USED;
    }
    if (c == '[' && !p->list && (p->mark != NULL || p->tools->format != TRM_TOOLS_LLAMA)) {
        p->list = true;
        return USED;
    }
    if (p->mark != NULL && p->mark->begin[0] == '[' && !p->list) {
        begin_object(p);
        p->state = NAMED;
        return AGAIN;
    }
    return NO;
}

/* name{..}, name[ARGS]{..}, name[CALL_ID]id[ARGS]{..} */
static enum took on_named(trm_tool_parser *p, char c)
{
    const char *square;

    if (c != '{') {
        trmi_out_add(&p->name, &c, 1);
        return p->name.bytes < 2 * TRMI_TOOL_NAME_MAX && c != '\n' && c != '"' ? USED : NO;
    }
    square = p->name.bytes > 0 ? memchr(p->name.data, '[', p->name.bytes) : NULL;
    if (square != NULL)
        p->name.bytes = (size_t)(square - p->name.data);
    while (p->name.bytes > 0 && is_white(p->name.data[p->name.bytes - 1]))
        p->name.bytes--;
    if (!name_fits(p))
        return NO;
    p->named = true;
    p->nested = -1;
    begin_args(p);
    return AGAIN;
}

static enum took on_key(trm_tool_parser *p, char c)
{
    if (is_white(c))
        return USED;
    if (c == '"') {
        p->key.bytes = 0;
        p->escape = false;
        p->state = IN_KEY;
        return USED;
    }
    if (c != '}')
        return NO;
    if (p->nested > 0) {
        p->nested--;
        p->state = AFTER;
        return USED;
    }
    if (!p->known) {
        if (!p->named)
            return NO;
        if (!p->has_args)
            trmi_out_add(&p->args, "{}", 2);
        begin_call(p);
    }
    p->state = CLOSED;
    return USED;
}

static enum took on_in_key(trm_tool_parser *p, char c)
{
    if (c == '"' && !p->escape) {
        p->state = COLON;
        return USED;
    }
    p->escape = c == '\\' && !p->escape;
    trmi_out_add(&p->key, &c, 1);
    return USED;
}

static enum took on_colon(trm_tool_parser *p, char c)
{
    if (is_white(c))
        return USED;
    p->state = VALUE;
    return c == ':' ? USED : NO;
}

static enum took on_value(trm_tool_parser *p, char c)
{
    if (is_white(c))
        return USED;
    begin_value(p);
    if (key_is(p, "function", "function") && c == '{' && p->nested == 0) {
        p->nested = 1;
        p->state = KEY;
        return USED;
    }
    if (key_is(p, "name", "function") && !p->named) {
        p->name.bytes = 0;
        p->state = NAME;
        return c == '"' ? USED : NO;
    }
    p->state = SKIP;
    if (key_is(p, "arguments", "parameters") && !p->has_args && (c == '{' || c == '"')) {
        begin_args(p);
        p->quoted = c == '"';
        p->key.bytes = 0; /* it gathers them */
    }
    return AGAIN;
}

static enum took on_name(trm_tool_parser *p, char c)
{
    if (c != '"' || p->escape) {
        p->escape = c == '\\' && !p->escape;
        trmi_out_add(&p->name, &c, 1);
        return USED;
    }
    p->named = unescape(&p->name) && name_fits(p);
    if (!p->named)
        return NO;
    if (p->has_args)
        begin_call(p);
    p->state = AFTER;
    return USED;
}

static enum took on_skip(trm_tool_parser *p, char c)
{
    enum piece piece = value_byte(p, c);

    if (piece == BROKEN)
        return NO;
    if (piece != INSIDE)
        p->state = AFTER;
    return piece == OVER_BEFORE ? AGAIN : USED;
}

static enum took on_args(trm_tool_parser *p, char c)
{
    bool first = !p->started;
    enum piece piece = value_byte(p, c);

    if (piece == BROKEN)
        return NO;
    if (!p->quoted)
        give_args(p, &c, 1);
    else if (!first && piece == INSIDE)
        trmi_out_add(&p->key, &c, 1);
    if (piece == INSIDE)
        return USED;
    if (p->quoted) { /* the string's text is the JSON; as it is where it is no string */
        (void)unescape(&p->key);
        give_args(p, p->key.data, p->key.bytes);
    }
    p->state = p->nested < 0 ? CLOSED : AFTER;
    return USED;
}

static enum took on_after(trm_tool_parser *p, char c)
{
    if (is_white(c))
        return USED;
    p->state = KEY;
    return c == ',' ? USED : c == '}' ? AGAIN : NO;
}

/* ---- the machine ---- */

static void take(trm_tool_parser *p, char c)
{
    static enum took (*const rows[STATES])(trm_tool_parser *, char) = {
        [START] = on_text,    [TEXT] = on_text,   [CLOSED] = on_closed, [END_MARK] = on_end_mark,
        [MARK] = on_mark,     [OPEN] = on_open,   [NAMED] = on_named,   [KEY] = on_key,
        [IN_KEY] = on_in_key, [COLON] = on_colon, [VALUE] = on_value,   [NAME] = on_name,
        [SKIP] = on_skip,     [ARGS] = on_args,   [AFTER] = on_after};

    for (;;) {
        bool keeps = p->state >= MARK;
        enum took took = rows[p->state](p, c);

        if (took == USED) {
            if (keeps && !p->known)
                trmi_out_add(&p->kept, &c, 1);
            return;
        }
        if (took == NO) { /* the byte is looked at as text */
            p->state = TEXT;
            give_text(p, p->kept.data, p->kept.bytes);
            p->kept.bytes = 0;
        }
    }
}

trm_status trm_tool_parser_create(const trm_tools *tools, trm_tool_sink sink, void *ctx,
                                  trm_tool_parser **parser_out)
{
    trm_tool_parser *p = trm_calloc(1, sizeof(*p));

    if (p == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "tool calls");
    p->tools = tools;
    p->sink = sink;
    p->ctx = ctx;
    *parser_out = p;
    return TRM_OK;
}

void trm_tool_parser_destroy(trm_tool_parser *p)
{
    if (p == NULL)
        return;
    trmi_out_fini(&p->kept);
    trmi_out_fini(&p->white);
    trmi_out_fini(&p->out);
    trmi_out_fini(&p->key);
    trmi_out_fini(&p->name);
    trmi_out_fini(&p->args);
    trm_free(p);
}

static trm_status status_of(const trm_tool_parser *p)
{
    return p->kept.failed || p->white.failed || p->out.failed || p->key.failed || p->name.failed ||
                   p->args.failed
               ? trm_fail(TRM_ERR_NO_MEMORY, "tool calls")
               : TRM_OK;
}

trm_status trm_tool_parser_push(trm_tool_parser *p, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        take(p, text[i]);
    flush(p);
    return status_of(p);
}

trm_status trm_tool_parser_finish(trm_tool_parser *p)
{
    if (p->state >= MARK && !p->known)
        give_text(p, p->kept.data, p->kept.bytes);
    if (p->calls == 0)
        give(p, TRM_TOOL_TEXT, p->white.data, p->white.bytes);
    p->kept.bytes = p->white.bytes = 0;
    p->state = TEXT;
    flush(p);
    return status_of(p);
}

int trm_tool_parser_calls(const trm_tool_parser *p)
{
    return p->calls;
}
