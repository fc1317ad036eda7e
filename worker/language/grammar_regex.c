/* Regular expressions: a subset of ECMA 262's, as JSON Schema wants it, into an automaton over sets
 * of code points (McNaughton, Yamada 1960; Thompson 1968), then into bytes.
 *
 * Done: literals, escapes of characters, \d \w \s and their opposites, dot, [...], groups, |, * + ?
 * {m,n} (lazy ones, too: the language is the same), ^ and $ at the ends of the whole or of its
 * alternatives. Not done, and refused by name: look-around, references back, \b, \p, ^ and $
 * elsewhere. */
#include "worker/language/grammar_impl.h"

#include <string.h>

#define REPEAT_MAX 10000
#define CHARS_MAX 100000 /* edges of the automaton over code points */

struct char_edge {
    int from, to;
    int set; /* -1: none, a jump */
};

struct regex {
    trmi_builder *b;
    const char *text;
    size_t bytes, at;
    struct char_edge *edges;
    size_t edge_count, edge_room;
    trmi_ranges *sets;
    int set_count, set_room;
    int state_count;
};

static void fail(struct regex *r, trm_status st, const char *what)
{
    (void)trmi_schema_fail(r->b, st, "the regular expression's %s at byte %zu%s", what, r->at,
                           st == TRM_ERR_UNSUPPORTED ? " is not done" : "");
}

static bool ok(const struct regex *r)
{
    return r->b->st == TRM_OK;
}

static int new_state(struct regex *r)
{
    return r->state_count++;
}

static void add(struct regex *r, int from, int to, int set)
{
    if (!ok(r))
        return;
    if (r->edge_count == CHARS_MAX) {
        fail(r, TRM_ERR_UNSUPPORTED, "size, with repetitions written out,");
        return;
    }
    if (r->edge_count == r->edge_room) {
        size_t room = r->edge_room == 0 ? 64 : r->edge_room * 2;
        struct char_edge *grown = trm_realloc(r->edges, room, sizeof(*grown));

        if (grown == NULL) {
            (void)trmi_build_fail(r->b, TRM_ERR_NO_MEMORY, "a regular expression");
            return;
        }
        r->edges = grown;
        r->edge_room = room;
    }
    r->edges[r->edge_count++] = (struct char_edge){from, to, set};
}

/* ---- sets ---- */

static int add_set(struct regex *r, const trmi_ranges *set)
{
    if (!ok(r))
        return 0;
    for (int i = 0; i < r->set_count; i++)
        if (r->sets[i].count == set->count &&
            (set->count == 0 ||
             memcmp(r->sets[i].items, set->items, set->count * sizeof(*set->items)) == 0))
            return i;
    if (r->set_count == r->set_room) {
        int room = r->set_room == 0 ? 16 : r->set_room * 2;
        trmi_ranges *grown = trm_realloc(r->sets, (size_t)room, sizeof(*grown));

        if (grown == NULL) {
            (void)trmi_build_fail(r->b, TRM_ERR_NO_MEMORY, "a regular expression");
            return 0;
        }
        r->sets = grown;
        r->set_room = room;
    }
    r->sets[r->set_count] = *set;
    return r->set_count++;
}

static void add_named(trmi_builder *b, trmi_ranges *out, char name)
{
    static const trmi_range digits[] = {{'0', '9'}};
    static const trmi_range words[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    static const trmi_range spaces[] = {
        {9, 13},          {32, 32},         {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
        {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    const trmi_range *from = name == 'd' || name == 'D'   ? digits
                             : name == 'w' || name == 'W' ? words
                                                          : spaces;
    size_t n = from == digits ? 1 : from == words ? 4 : 10;
    trmi_ranges set = {0};

    for (size_t i = 0; i < n; i++)
        trmi_ranges_add(b, &set, from[i].lo, from[i].hi);
    if (name < 'a')
        trmi_ranges_invert(b, &set);
    for (size_t i = 0; i < set.count; i++)
        trmi_ranges_add(b, out, set.items[i].lo, set.items[i].hi);
}

static uint32_t read_hex(struct regex *r, int least, int most)
{
    uint32_t v = 0;
    int n = 0;

    for (; n < most && r->at < r->bytes; n++, r->at++) {
        char c = r->text[r->at];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            break;
        v = v * 16 + (uint32_t)d;
    }
    if (n < least)
        fail(r, TRM_ERR_INVALID_ARG, "escape: too few hexadecimal digits");
    return v;
}

static uint32_t read_unicode(struct regex *r)
{
    uint32_t c, low;

    if (r->at < r->bytes && r->text[r->at] == '{') {
        r->at++;
        c = read_hex(r, 1, 6);
        if (r->at >= r->bytes || r->text[r->at] != '}')
            fail(r, TRM_ERR_INVALID_ARG, "escape is not closed");
        r->at++;
        return c;
    }
    c = read_hex(r, 4, 4);
    if (c >= 0xd800 && c < 0xdc00 && r->bytes - r->at >= 6 &&
        memcmp(r->text + r->at, "\\u", 2) == 0) {
        r->at += 2;
        low = read_hex(r, 4, 4);
        c = 0x10000 + ((c - 0xd800) << 10) + ((low - 0xdc00) & 0x3ff);
    }
    return c;
}

/* Behind a backslash: one code point, or UINT32_MAX where *named_out is a class's letter. */
static uint32_t read_escape(struct regex *r, bool in_class, char *named_out)
{
    static const char controls[] = "n\nr\rt\tf\fv\v";
    uint32_t c;

    *named_out = '\0';
    if (r->at >= r->bytes) {
        fail(r, TRM_ERR_INVALID_ARG, "end is a backslash");
        return 0;
    }
    c = trmi_next_code_point(r->text, r->bytes, &r->at);
    if (c >= 0x80)
        return c;
    if (strchr("dDwWsS", (int)c) != NULL && c != 0) {
        *named_out = (char)c;
        return UINT32_MAX;
    }
    for (size_t i = 0; i < sizeof(controls) - 1; i += 2)
        if ((uint32_t)controls[i] == c)
            return (uint32_t)controls[i + 1];
    if (c == 'x')
        return read_hex(r, 2, 2);
    if (c == 'u')
        return read_unicode(r);
    if (c == 'b' && in_class)
        return '\b';
    if (c == '0')
        return 0;
    if (c == 'c' && r->at < r->bytes)
        return (uint32_t)r->text[r->at++] & 31;
    if (c >= '1' && c <= '9')
        fail(r, TRM_ERR_UNSUPPORTED, "reference back");
    else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
        fail(r, TRM_ERR_UNSUPPORTED, "escape");
    return c;
}

static uint32_t class_item(struct regex *r, trmi_ranges *set, bool *single)
{
    char named = '\0';
    uint32_t c = trmi_next_code_point(r->text, r->bytes, &r->at);

    *single = true;
    if (c != '\\')
        return c;
    c = read_escape(r, true, &named);
    if (named != '\0') {
        add_named(r->b, set, named);
        *single = false;
    }
    return c;
}

/* Behind "[". */
static int read_class(struct regex *r)
{
    trmi_ranges set = {0};
    bool negative = r->at < r->bytes && r->text[r->at] == '^', single, single_hi;

    r->at += negative;
    while (ok(r)) {
        uint32_t lo, hi;

        if (r->at >= r->bytes) {
            fail(r, TRM_ERR_INVALID_ARG, "class is not closed");
            return 0;
        }
        if (r->text[r->at] == ']')
            break;
        lo = hi = class_item(r, &set, &single);
        if (single && r->bytes - r->at >= 2 && r->text[r->at] == '-' && r->text[r->at + 1] != ']') {
            r->at++;
            hi = class_item(r, &set, &single_hi);
            if (!single_hi) {
                fail(r, TRM_ERR_UNSUPPORTED, "range with a class at its end");
                return 0;
            }
            if (hi < lo)
                fail(r, TRM_ERR_INVALID_ARG, "range runs backwards");
        }
        if (single)
            trmi_ranges_add(r->b, &set, lo, hi);
    }
    r->at++;
    trmi_ranges_settle(&set);
    if (negative)
        trmi_ranges_invert(r->b, &set);
    return add_set(r, &set);
}

static int dot_set(struct regex *r)
{
    trmi_ranges set = {0};

    trmi_ranges_add(r->b, &set, '\n', '\n');
    trmi_ranges_add(r->b, &set, '\r', '\r');
    trmi_ranges_add(r->b, &set, 0x2028, 0x2029);
    trmi_ranges_settle(&set);
    trmi_ranges_invert(r->b, &set);
    return add_set(r, &set);
}

static int any_set(struct regex *r)
{
    trmi_ranges set = {0};

    trmi_ranges_invert(r->b, &set);
    return add_set(r, &set);
}

/* ---- parsing makes the automaton at once: each piece is edges between two states ---- */

static void read_alternatives(struct regex *r, int from, int to, int depth);

static void open_group(struct regex *r)
{
    const char *t = r->text + r->at;
    size_t left = r->bytes - r->at;

    if (left == 0 || *t != '?')
        return;
    if (left >= 2 && t[1] == ':') {
        r->at += 2;
        return;
    }
    if ((left >= 3 && t[1] == '<' && t[2] != '=' && t[2] != '!') ||
        (left >= 4 && t[1] == 'P' && t[2] == '<')) {
        const char *end = memchr(t, '>', left);

        if (end != NULL) {
            r->at += (size_t)(end - t) + 1;
            return;
        }
    }
    fail(r, TRM_ERR_UNSUPPORTED, "group of kind (? (look-around and the like)");
}

/* One atom, from -> to. false: there is none here. */
static bool read_atom(struct regex *r, int from, int to, int depth)
{
    char named = '\0';
    trmi_ranges set = {0};
    uint32_t c;

    if (r->at >= r->bytes || strchr("|)", r->text[r->at]) != NULL)
        return false;
    c = trmi_next_code_point(r->text, r->bytes, &r->at);
    switch (c) {
    case '(':
        open_group(r);
        read_alternatives(r, from, to, depth + 1);
        if (ok(r) && (r->at >= r->bytes || r->text[r->at] != ')'))
            fail(r, TRM_ERR_INVALID_ARG, "group is not closed");
        r->at++;
        return true;
    case '[':
        add(r, from, to, read_class(r));
        return true;
    case '.':
        add(r, from, to, dot_set(r));
        return true;
    case '*':
    case '+':
    case '?':
        fail(r, TRM_ERR_INVALID_ARG, "repetition has nothing to repeat");
        return true;
    case '^':
    case '$':
        fail(r, TRM_ERR_UNSUPPORTED, "^ or $ that is not at an end");
        return true;
    case '\\':
        c = read_escape(r, false, &named);
        break;
    case UINT32_MAX:
        fail(r, TRM_ERR_INVALID_ARG, "text is not UTF-8");
        return true;
    default:
        break;
    }
    if (named != '\0')
        add_named(r->b, &set, named);
    else
        trmi_ranges_add(r->b, &set, c, c);
    trmi_ranges_settle(&set);
    add(r, from, to, add_set(r, &set));
    return true;
}

static int read_number(struct regex *r)
{
    int v = 0;
    size_t start = r->at;

    while (r->at < r->bytes && r->text[r->at] >= '0' && r->text[r->at] <= '9' && v <= REPEAT_MAX)
        v = v * 10 + r->text[r->at++] - '0';
    if (v > REPEAT_MAX)
        fail(r, TRM_ERR_UNSUPPORTED, "repetition above 10000");
    return r->at == start ? -1 : v;
}

/* {m}, {m,}, {m,n}; anything else is text. */
static bool read_braces(struct regex *r, int *least, int *most)
{
    size_t start = r->at++;

    *least = read_number(r);
    *most = *least;
    if (*least >= 0 && r->at < r->bytes && r->text[r->at] == ',') {
        r->at++;
        *most = read_number(r);
    }
    if (*least < 0 || r->at >= r->bytes || r->text[r->at] != '}') {
        r->at = start;
        return false;
    }
    r->at++;
    if (*most >= 0 && *most < *least)
        fail(r, TRM_ERR_INVALID_ARG, "repetition runs backwards");
    return ok(r);
}

static bool read_repeat(struct regex *r, int *least, int *most)
{
    char c = r->at < r->bytes ? r->text[r->at] : '\0';
    bool any = true;

    *least = *most = 1;
    if (c == '{') {
        any = read_braces(r, least, most);
    } else if (c == '*' || c == '+' || c == '?') {
        r->at++;
        *least = c == '+';
        *most = c == '?' ? 1 : -1;
    } else {
        return false;
    }
    if (any && r->at < r->bytes && r->text[r->at] == '?')
        r->at++; /* lazy: the same texts */
    else if (any && r->at < r->bytes && r->text[r->at] == '+')
        fail(r, TRM_ERR_UNSUPPORTED, "possessive repetition");
    return any;
}

/* Edges [first, last) between states that were made since `from` and `to`, its ends. */
struct piece {
    size_t first, last;
    int from, to;
};

/* The same edges between new states; from and to stand for the piece's ends. */
static void copy_piece(struct regex *r, const struct piece *p, int from, int to)
{
    int shift = r->state_count - p->from;

    for (size_t i = p->first; i < p->last && ok(r); i++) {
        struct char_edge e = r->edges[i];

        e.from = e.from == p->from ? from : e.from == p->to ? to : e.from + shift;
        e.to = e.to == p->from ? from : e.to == p->to ? to : e.to + shift;
        r->state_count = e.from >= r->state_count ? e.from + 1 : r->state_count;
        r->state_count = e.to >= r->state_count ? e.to + 1 : r->state_count;
        add(r, e.from, e.to, e.set);
    }
}

static void link(struct regex *r, int from, int to)
{
    add(r, from, to, -1);
}

/* An atom with what repeats it, from -> to. */
static bool read_repeated(struct regex *r, int from, int to, int depth)
{
    struct piece p = {.first = r->edge_count};
    int least, most, at, next, begin;

    p.from = begin = new_state(r);
    p.to = new_state(r);
    if (!read_atom(r, p.from, p.to, depth))
        return false;
    p.last = r->edge_count;
    if (!read_repeat(r, &least, &most)) {
        link(r, from, p.from);
        link(r, p.to, to);
        return true;
    }
    if (most == 0) {
        /* the piece stays, but nothing leads there */
        link(r, from, to);
        return true;
    }
    link(r, from, p.from); /* the first copy is the piece itself */
    if (least == 0)
        link(r, from, to);
    at = p.to;
    for (int i = 1; i < (most < 0 ? least : most) && ok(r); i++) {
        begin = new_state(r);
        next = new_state(r);
        link(r, at, begin);
        if (i >= least)
            link(r, at, to);
        copy_piece(r, &p, begin, next);
        at = next;
    }
    if (most < 0)
        link(r, at, begin); /* the last one, again and again */
    link(r, at, to);
    return true;
}

static void read_sequence(struct regex *r, int from, int to, int depth)
{
    int at = from;

    while (ok(r)) {
        int next;

        if (r->at >= r->bytes || strchr("|)", r->text[r->at]) != NULL)
            break;
        if (r->text[r->at] == '$' && depth == 0)
            break;
        next = new_state(r);
        if (!read_repeated(r, at, next, depth))
            break;
        at = next;
    }
    link(r, at, to);
}

static void read_alternatives(struct regex *r, int from, int to, int depth)
{
    if (depth > TRMI_GRAMMAR_NEST_MAX)
        fail(r, TRM_ERR_UNSUPPORTED, "nesting of groups above 64");
    while (ok(r)) {
        read_sequence(r, from, to, depth);
        if (r->at >= r->bytes || r->text[r->at] != '|')
            break;
        r->at++;
    }
}

/* The outermost alternatives, which may be anchored each. */
static void read_whole(struct regex *r, int from, int to, bool whole)
{
    while (ok(r)) {
        int begin = new_state(r), end = new_state(r);
        bool anchored = r->at < r->bytes && r->text[r->at] == '^';

        r->at += anchored;
        link(r, from, begin);
        if (!anchored && !whole)
            add(r, begin, begin, any_set(r));
        read_sequence(r, begin, end, 0);
        anchored = r->at < r->bytes && r->text[r->at] == '$';
        r->at += anchored;
        if (!anchored && !whole)
            add(r, end, end, any_set(r));
        link(r, end, to);
        if (r->at >= r->bytes)
            return;
        if (r->text[r->at] != '|') {
            fail(r, r->text[r->at] == ')' ? TRM_ERR_INVALID_ARG : TRM_ERR_UNSUPPORTED,
                 r->text[r->at] == ')' ? "group is closed that was not opened"
                                       : "$ that is not at an end");
            return;
        }
        r->at++;
    }
}

/* ---- into bytes ---- */

/* Layers: one a number of characters read so far where lengths count, else one. */
static int lower(struct regex *r, int start, int end, int from, bool json, int64_t least,
                 int64_t most)
{
    trmi_builder *b = r->b;
    int64_t layers = most >= 0 ? most + 1 : least + 1, states = r->state_count;
    int base = b->state_count, to;

    if (layers * states > TRMI_GRAMMAR_STATES_MAX ||
        layers * (int64_t)r->edge_count > TRMI_GRAMMAR_EDGES_MAX) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "'pattern' with 'minLength' or 'maxLength' is too large together");
        return 0;
    }
    for (int64_t i = 0; i < layers * states; i++)
        (void)trmi_build_state(b);
    to = trmi_build_state(b);
    for (int64_t n = 0; n < layers; n++) {
        bool last = n + 1 == layers;
        int64_t then = last ? n : n + 1; /* without maxLength the last layer counts no more */

        for (size_t i = 0; i < r->edge_count && b->st == TRM_OK; i++) {
            const struct char_edge *e = &r->edges[i];
            int x = base + (int)(n * states) + e->from;

            if (e->set < 0)
                trmi_build_jump(b, x, base + (int)(n * states) + e->to);
            else if (!last || most < 0)
                trmi_put_set(b, x, base + (int)(then * states) + e->to, &r->sets[e->set], json);
        }
        if (n >= least)
            trmi_build_jump(b, base + (int)(n * states) + end, to);
    }
    trmi_build_jump(b, from, base + start);
    return to;
}

int trmi_put_regex(trmi_builder *b, int from, const char *pattern, bool whole, bool json,
                   int64_t least, int64_t most)
{
    struct regex r = {.b = b, .text = pattern, .bytes = strlen(pattern)};
    int start, end, to = 0;

    if (b->st != TRM_OK)
        return 0;
    start = new_state(&r);
    end = new_state(&r);
    read_whole(&r, start, end, whole);
    if (ok(&r))
        to = lower(&r, start, end, from, json, least, most);
    trm_free(r.edges);
    trm_free(r.sets);
    return to;
}
