/* Oniguruma's Ruby dialect in PCRE2's words.
 *
 * What differs and is rewritten: \s \w \d \b \h are Unicode classes of its own definition (spelled
 * out), scripts mean Script rather than Script_Extensions, (?m) is PCRE2's (?s), an option in the
 * middle of a group closes over the alternatives that follow, {n,m}+ repeats instead of being
 * possessive, {,n} is an interval, and classes nest and intersect: [a[bc]], [\p{L}&&[^\p{Han}]]
 * (regex_class.c). */
#include "model/tokenizer/regex_impl.h"

#include <stdio.h>
#include <string.h>

#define GROUPS_MAX 200

typedef struct reader {
    trmi_pattern in;
    trmi_buf *out;
    size_t group_start[GROUPS_MAX]; /* where in out each open group began */
    int group_extra[GROUPS_MAX];    /* groups opened by options in its middle */
    int depth;
    size_t atom;       /* where in out the last atom began */
    bool has_atom;     /* something to repeat */
    bool has_quantity; /* it is repeated already */
} reader;

static void insert(trmi_buf *b, size_t at, const char *text)
{
    size_t n = strlen(text);

    if (!trmi_buf_reserve(b, n))
        return;
    memmove(b->bytes + at + n, b->bytes + at, b->count - at);
    memcpy(b->bytes + at, text, n);
    b->count += n;
}

/* ---- groups and quantities ---- */

static void begin_atom(reader *r)
{
    r->atom = r->out->count;
    r->has_atom = true;
    r->has_quantity = false;
}

/* (?i), (?m-i:...): behind "(?". */
static trm_status read_options(reader *r)
{
    bool off = false;
    char text[16] = "(?";
    size_t n = 2;

    while (r->in.at < r->in.end && *r->in.at != ':' && *r->in.at != ')') {
        char c = *r->in.at++;

        if (c == '-' && !off)
            off = true;
        else if (c == 'm')
            c = 's';
        else if (c != 'i')
            return trmi_pattern_refuse(&r->in, "a group or option that is not supported");
        if (n == sizeof(text) - 2)
            return trmi_pattern_refuse(&r->in, "too many options");
        text[n++] = c;
    }
    if (r->in.at == r->in.end)
        return trmi_pattern_refuse(&r->in, "a group without its end");
    text[n++] = ':';
    text[n] = '\0';
    trmi_pattern_put(r->out, text);
    if (*r->in.at++ == ')') { /* it holds for the rest of the group, alternatives included */
        r->group_extra[r->depth]++;
        r->has_atom = false;
        return r->group_extra[r->depth] > 32 ? trmi_pattern_refuse(&r->in, "too many options")
                                             : TRM_OK;
    }
    r->depth++;
    r->group_extra[r->depth] = 0;
    return TRM_OK;
}

static trm_status read_group(reader *r)
{
    static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};

    if (r->depth + 1 >= GROUPS_MAX)
        return trmi_pattern_refuse(&r->in, "groups too deep in groups");
    r->group_start[r->depth + 1] = r->out->count;
    r->has_atom = false;
    if (trmi_pattern_starts(&r->in, "(?#")) {
        const char *close = memchr(r->in.at, ')', (size_t)(r->in.end - r->in.at));

        if (close == NULL)
            return trmi_pattern_refuse(&r->in, "a comment without its end");
        r->in.at = close + 1;
        return TRM_OK;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (trmi_pattern_starts(&r->in, kinds[i])) {
            trmi_pattern_put(r->out, kinds[i]);
            r->in.at += strlen(kinds[i]);
            r->group_extra[++r->depth] = 0;
            return TRM_OK;
        }
    if (trmi_pattern_starts(&r->in, "(?")) {
        r->in.at += 2;
        return read_options(r);
    }
    trmi_pattern_put(r->out, "(");
    r->in.at++;
    r->group_extra[++r->depth] = 0;
    return TRM_OK;
}

static trm_status close_group(reader *r)
{
    if (r->depth == 0)
        return trmi_pattern_refuse(&r->in, "an end without its group");
    for (int i = 0; i <= r->group_extra[r->depth]; i++)
        trmi_pattern_put(r->out, ")");
    r->in.at++;
    r->atom = r->group_start[r->depth--];
    r->has_atom = true;
    r->has_quantity = false;
    return TRM_OK;
}

/* {n}, {n,}, {,m}, {n,m} at r->in.at; false: it is none, and '{' stands for itself. */
static bool read_interval(reader *r, char text[64], bool *exact_out)
{
    const char *p = r->in.at + 1;
    long bounds[2] = {-1, -1};
    int n = 0;

    for (; n < 2; n++) {
        while (p < r->in.end && *p >= '0' && *p <= '9') {
            if (bounds[n] > 100000)
                return false;
            bounds[n] = (bounds[n] < 0 ? 0 : bounds[n]) * 10 + (*p++ - '0');
        }
        if (p == r->in.end || *p != ',')
            break;
        p++;
    }
    if (p == r->in.end || *p != '}' || n > 1 || (bounds[0] < 0 && bounds[1] < 0))
        return false;
    *exact_out = n == 0;
    if (n == 0)
        snprintf(text, 64, "{%ld}", bounds[0]);
    else if (bounds[1] < 0)
        snprintf(text, 64, "{%ld,}", bounds[0]);
    else
        snprintf(text, 64, "{%ld,%ld}", bounds[0] < 0 ? 0 : bounds[0], bounds[1]);
    r->in.at = p + 1;
    return true;
}

static trm_status read_quantity(reader *r)
{
    char text[64] = {*r->in.at, '\0'};
    bool interval = *r->in.at == '{', exact = false;

    if (interval && !read_interval(r, text, &exact)) {
        begin_atom(r);
        trmi_pattern_put_char(r->out, '{');
        r->in.at++;
        return TRM_OK;
    }
    if (!interval)
        r->in.at++;
    if (!r->has_atom)
        return trmi_pattern_refuse(&r->in, "a quantity of nothing");
    if (r->has_quantity) {
        insert(r->out, r->atom, "(?:");
        trmi_pattern_put(r->out, ")");
    }
    trmi_pattern_put(r->out, text);
    r->has_quantity = true;
    if (r->in.at < r->in.end && (*r->in.at == '?' ? !exact : *r->in.at == '+' && !interval))
        trmi_buf_byte(r->out, *r->in.at++);
    return TRM_OK;
}

/* ---- the whole ---- */

static trm_status read_escape(reader *r)
{
    static const char *const edges[] = {"\\A", "\\z", "\\Z", "\\G"};
    uint32_t c = 0;
    bool is_char;

    if (trmi_pattern_starts(&r->in, "\\b") || trmi_pattern_starts(&r->in, "\\B")) {
        trmi_pattern_put_edge(r->out, r->in.at[1] == 'b');
        r->in.at += 2;
        return TRM_OK;
    }
    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
        if (trmi_pattern_starts(&r->in, edges[i])) {
            trmi_pattern_put(r->out, edges[i]);
            r->in.at += 2;
            return TRM_OK;
        }
    if (r->in.end - r->in.at >= 2 &&
        (r->in.at[1] == 'R' || (r->in.at[1] >= '1' && r->in.at[1] <= '9'))) {
        if (r->in.end - r->in.at >= 3 && r->in.at[1] != 'R' && r->in.at[2] >= '0' &&
            r->in.at[2] <= '9')
            return trmi_pattern_refuse(&r->in, "a reference above \\9");
        trmi_buf_add(r->out, r->in.at, 2);
        r->in.at += 2;
        return TRM_OK;
    }
    r->in.at++;
    TRM_CHECK(trmi_pattern_char(&r->in, false, &c, &is_char));
    if (!is_char)
        return trmi_pattern_set(&r->in, r->out);
    trmi_pattern_put_char(r->out, c);
    return TRM_OK;
}

static trm_status read_one(reader *r)
{
    uint32_t c = 0;
    size_t bytes;

    switch (*r->in.at) {
    case '(':
        return read_group(r);
    case ')':
        return close_group(r);
    case '|':
        trmi_buf_byte(r->out, *r->in.at++);
        r->has_atom = false;
        return TRM_OK;
    case '*':
    case '+':
    case '?':
    case '{':
        return read_quantity(r);
    case '[':
        begin_atom(r);
        return trmi_pattern_class(&r->in, r->out);
    case '\\':
        begin_atom(r);
        return read_escape(r);
    case '.':
    case '^':
    case '$':
        begin_atom(r);
        trmi_buf_byte(r->out, *r->in.at++);
        return TRM_OK;
    default:
        begin_atom(r);
        c = trmi_utf8_get(r->in.at, &bytes);
        r->in.at += bytes;
        trmi_pattern_put_char(r->out, c);
        return TRM_OK;
    }
}

trm_status trmi_regex_translate(const char *pattern, size_t bytes, trmi_buf *out)
{
    reader r = {.in = {pattern, pattern, pattern + bytes}, .out = out};

    if (trmi_utf8_good(pattern, bytes) != bytes)
        return trm_fail(TRM_ERR_BAD_FILE, "a regular expression is not UTF-8");
    while (r.in.at < r.in.end)
        TRM_CHECK(read_one(&r));
    if (r.depth != 0)
        return trmi_pattern_refuse(&r.in, "a group without its end");
    for (int i = 0; i < r.group_extra[0]; i++)
        trmi_pattern_put(out, ")");
    return trmi_buf_status(out, "a regular expression");
}
