/* States and edges while a grammar is made, and code points as bytes. */
#include "worker/language/grammar_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

trm_status trmi_build_fail(trmi_builder *b, trm_status st, const char *fmt, ...)
{
    char text[512];
    va_list args;

    if (b->st != TRM_OK)
        return b->st;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    b->st = trm_fail(st, "%s", text);
    return st;
}

trm_status trmi_schema_fail(trmi_builder *b, trm_status st, const char *fmt, ...)
{
    char text[512];
    va_list args;

    if (b->st != TRM_OK)
        return b->st;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    b->st = trm_fail(st, "schema '%s': %s", b->path != NULL ? b->path : "#", text);
    return st;
}

static void no_memory(trmi_builder *b)
{
    (void)trmi_build_fail(b, TRM_ERR_NO_MEMORY, "a grammar");
}

int trmi_build_state(trmi_builder *b)
{
    if (b->st != TRM_OK)
        return 0;
    if (b->state_count >= TRMI_GRAMMAR_STATES_MAX) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "the grammar becomes too large: more than %d states",
                               TRMI_GRAMMAR_STATES_MAX);
        return 0;
    }
    return b->state_count++;
}

static void add_edge(trmi_builder *b, trmi_build_edge e)
{
    if (b->st != TRM_OK)
        return;
    if (b->edge_count >= TRMI_GRAMMAR_EDGES_MAX) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "the grammar becomes too large: more than %d edges",
                               TRMI_GRAMMAR_EDGES_MAX);
        return;
    }
    if (b->edge_count == b->edge_room) {
        size_t room = b->edge_room == 0 ? 1024 : b->edge_room * 2;
        trmi_build_edge *grown = trm_realloc(b->edges, room, sizeof(*grown));

        if (grown == NULL) {
            no_memory(b);
            return;
        }
        b->edges = grown;
        b->edge_room = room;
    }
    b->edges[b->edge_count++] = e;
}

void trmi_build_bytes(trmi_builder *b, int from, int to, unsigned lo, unsigned hi)
{
    add_edge(b, (trmi_build_edge){from, to, TRMI_BYTES, (uint8_t)lo, (uint8_t)hi});
}

void trmi_build_jump(trmi_builder *b, int from, int to)
{
    add_edge(b, (trmi_build_edge){from, to, TRMI_JUMP, 0, 0});
}

void trmi_build_call(trmi_builder *b, int from, int to, int rule)
{
    add_edge(b, (trmi_build_edge){from, to, rule, 0, 0});
}

void trmi_build_chain_add(trmi_builder *b, int state, int after, int64_t least, int64_t most)
{
    if (b->st != TRM_OK)
        return;
    if (b->chain_count == b->chain_room) {
        size_t room = b->chain_room == 0 ? 64 : b->chain_room * 2;
        trmi_build_chain *grown = trm_realloc(b->chains, room, sizeof(*grown));

        if (grown == NULL) {
            no_memory(b);
            return;
        }
        b->chains = grown;
        b->chain_room = room;
    }
    b->chains[b->chain_count++] = (trmi_build_chain){state, after, (int)least, (int)most};
}

int trmi_build_rule_new(trmi_builder *b, const json_t *schema, const char *path)
{
    if (b->st != TRM_OK)
        return 0;
    if (b->rule_count >= TRMI_GRAMMAR_RULES_MAX) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "the grammar becomes too large: more than %d rules",
                               TRMI_GRAMMAR_RULES_MAX);
        return 0;
    }
    if (b->rule_count == b->rule_room) {
        size_t room = b->rule_room == 0 ? 64 : b->rule_room * 2;
        trmi_build_rule *grown = trm_realloc(b->rules, room, sizeof(*grown));

        if (grown == NULL) {
            no_memory(b);
            return 0;
        }
        b->rules = grown;
        b->rule_room = room;
    }
    b->rules[b->rule_count] = (trmi_build_rule){
        .start = trmi_build_state(b), .end = trmi_build_state(b), .schema = schema, .path = path};
    return (int)b->rule_count++;
}

int trmi_memo_get(const trmi_builder *b, const char *key)
{
    const json_t *v = json_object_get(b->memo, key);

    return v == NULL ? -1 : (int)json_integer_value(v);
}

void trmi_memo_put(trmi_builder *b, const char *key, int rule)
{
    if (b->st == TRM_OK && json_object_set_new_nocheck(b->memo, key, json_integer(rule)) != 0)
        no_memory(b);
}

int trmi_put_text(trmi_builder *b, int from, const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes && b->st == TRM_OK; i++) {
        int to = trmi_build_state(b);

        trmi_build_bytes(b, from, to, (unsigned char)text[i], (unsigned char)text[i]);
        from = to;
    }
    return from;
}

int trmi_put_space(trmi_builder *b, int from)
{
    int rule = trmi_memo_get(b, "space"), to = trmi_build_state(b);

    if (rule < 0) {
        int at, end;

        rule = trmi_build_rule_new(b, NULL, NULL);
        trmi_memo_put(b, "space", rule);
        if (b->st != TRM_OK)
            return 0;
        end = b->rules[rule].end;
        at = trmi_build_state(b);
        trmi_build_bytes(b, b->rules[rule].start, end, ' ', ' ');
        trmi_build_bytes(b, b->rules[rule].start, at, '\n', '\n');
        for (int i = 0; i < TRMI_GRAMMAR_NEWLINE_MAX; i++) {
            int next = trmi_build_state(b);

            trmi_build_jump(b, at, end);
            trmi_build_bytes(b, at, next, ' ', ' ');
            trmi_build_bytes(b, at, next, '\t', '\t');
            at = next;
        }
        trmi_build_jump(b, at, end);
    }
    trmi_build_jump(b, from, to);
    trmi_build_call(b, from, to, rule);
    return to;
}

/* ---- sets of code points ---- */

void trmi_ranges_add(trmi_builder *b, trmi_ranges *r, uint32_t lo, uint32_t hi)
{
    if (b->st != TRM_OK || lo > hi)
        return;
    if (r->count == r->room) {
        size_t room = r->room == 0 ? 8 : r->room * 2;
        trmi_range *grown = trm_arena_alloc(b->arena, room, sizeof(*grown));

        if (grown == NULL) {
            no_memory(b);
            return;
        }
        if (r->count > 0)
            memcpy(grown, r->items, r->count * sizeof(*grown));
        r->items = grown;
        r->room = room;
    }
    r->items[r->count++] = (trmi_range){lo, hi};
}

static int by_lo(const void *x, const void *y)
{
    const trmi_range *a = x, *b = y;

    return a->lo != b->lo ? (a->lo < b->lo ? -1 : 1) : 0;
}

void trmi_ranges_settle(trmi_ranges *r)
{
    size_t kept = 0;

    if (r->count < 2)
        return;
    qsort(r->items, r->count, sizeof(*r->items), by_lo);
    for (size_t i = 1; i < r->count; i++) {
        if (r->items[i].lo <= r->items[kept].hi || r->items[i].lo == r->items[kept].hi + 1)
            r->items[kept].hi =
                r->items[i].hi > r->items[kept].hi ? r->items[i].hi : r->items[kept].hi;
        else
            r->items[++kept] = r->items[i];
    }
    r->count = kept + 1;
}

void trmi_ranges_invert(trmi_builder *b, trmi_ranges *r)
{
    trmi_ranges out = {0};
    uint32_t from = 0;

    for (size_t i = 0; i <= r->count; i++) {
        uint32_t lo = i < r->count ? r->items[i].lo : 0x110000, hi = lo - 1;

        if (lo > from && from < 0xd800)
            trmi_ranges_add(b, &out, from, hi < 0xd800 ? hi : 0xd7ff);
        if (lo > from && hi > 0xdfff)
            trmi_ranges_add(b, &out, from > 0xdfff ? from : 0xe000, hi);
        if (i < r->count)
            from = r->items[i].hi + 1;
    }
    *r = out;
}

/* ---- as bytes ---- */

static int encode(uint32_t c, uint8_t out[4])
{
    if (c < 0x80) {
        out[0] = (uint8_t)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (uint8_t)(0xc0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        out[2] = (uint8_t)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (uint8_t)(0xf0 | c >> 18);
    out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    out[3] = (uint8_t)(0x80 | (c & 0x3f));
    return 4;
}

uint32_t trmi_next_code_point(const char *text, size_t bytes, size_t *at)
{
    unsigned char c = (unsigned char)text[*at];
    int more = c < 0x80 ? 0 : c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    uint32_t v = c < 0x80 ? c : c & (0x3fu >> more);
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};

    (*at)++;
    if ((c >= 0x80 && c < 0xc2) || c > 0xf4)
        return UINT32_MAX;
    for (int i = 0; i < more; i++, (*at)++) {
        if (*at >= bytes || ((unsigned char)text[*at] & 0xc0) != 0x80)
            return UINT32_MAX;
        v = v << 6 | ((unsigned char)text[*at] & 0x3f);
    }
    return v < least[more] || v > 0x10ffff || (v >= 0xd800 && v <= 0xdfff) ? UINT32_MAX : v;
}

/* lo and hi have `n` bytes each, and all between are sequences of byte ranges lo[i]..hi[i]: the
 * usual cut of a range into such (as RE2 does it). */
static void put_sequences(trmi_builder *b, int from, int to, uint32_t lo, uint32_t hi)
{
    static const uint32_t last[] = {0x7f, 0x7ff, 0xffff};
    uint8_t x[4] = {0}, y[4] = {0};
    int n;

    if (lo > hi || b->st != TRM_OK)
        return;
    for (int i = 0; i < 3; i++)
        if (lo <= last[i] && hi > last[i]) {
            put_sequences(b, from, to, lo, last[i]);
            put_sequences(b, from, to, last[i] + 1, hi);
            return;
        }
    for (int i = 1; i < 4 && hi > 0x7f; i++) {
        uint32_t m = (1u << (6 * i)) - 1;

        if ((lo & ~m) == (hi & ~m))
            continue;
        if ((lo & m) != 0) {
            put_sequences(b, from, to, lo, lo | m);
            put_sequences(b, from, to, (lo | m) + 1, hi);
            return;
        }
        if ((hi & m) != m) {
            put_sequences(b, from, to, lo, (hi & ~m) - 1);
            put_sequences(b, from, to, hi & ~m, hi);
            return;
        }
    }
    n = encode(lo, x);
    (void)encode(hi, y);
    for (int i = 0; i < n; i++) {
        int next = i + 1 == n ? to : trmi_build_state(b);

        trmi_build_bytes(b, from, next, x[i], y[i]);
        from = next;
    }
}

/* A character that JSON writes with an escape. */
static void put_escaped(trmi_builder *b, int from, int to, uint32_t c)
{
    static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    char text[8];
    int at;

    for (size_t i = 0; i < sizeof(shorts) - 1; i += 2)
        if ((uint32_t)shorts[i] == c) {
            at = trmi_put_text(b, from, "\\", 1);
            trmi_build_bytes(b, at, to, (unsigned char)shorts[i + 1], (unsigned char)shorts[i + 1]);
            return;
        }
    snprintf(text, sizeof(text), "\\u%04x", (unsigned)c);
    at = trmi_put_text(b, from, text, 6);
    trmi_build_jump(b, at, to);
}

static bool is_escaped(uint32_t c)
{
    return c < 0x20 || c == '"' || c == '\\';
}

static void put_part(trmi_builder *b, int from, int to, const trmi_ranges *r, bool json,
                     uint32_t least, uint32_t most, bool escapes)
{
    for (size_t i = 0; i < r->count && b->st == TRM_OK; i++) {
        uint32_t lo = r->items[i].lo, hi = r->items[i].hi, at;

        lo = lo < least ? least : lo;
        hi = hi > most ? most : hi;
        for (at = lo; json && at <= hi && at < 0x80; at++) {
            if (escapes && is_escaped(at) && at > 0)
                put_escaped(b, from, to, at);
            if (!is_escaped(at))
                continue;
            if (at > lo)
                put_sequences(b, from, to, lo, at - 1);
            lo = at + 1;
        }
        put_sequences(b, from, to, lo, hi);
    }
}

void trmi_put_ranges(trmi_builder *b, int from, int to, const trmi_ranges *r, bool json)
{
    put_part(b, from, to, r, json, 0, 0x10ffff, true);
}

void trmi_put_set(trmi_builder *b, int from, int to, const trmi_ranges *r, bool json)
{
    size_t room = r->count * 16 + 16, at = 0;
    char *key;
    int rule;

    if (b->st != TRM_OK)
        return;
    if (r->count == 0 || r->items[r->count - 1].hi < 0x80) {
        trmi_put_ranges(b, from, to, r, json);
        return;
    }
    key = trm_arena_alloc(b->arena, room, 1);
    if (key == NULL) {
        no_memory(b);
        return;
    }
    at += (size_t)snprintf(key, room, "set%d", json);
    for (size_t i = 0; i < r->count; i++)
        at += (size_t)snprintf(key + at, room - at, " %x-%x", (unsigned)r->items[i].lo,
                               (unsigned)r->items[i].hi);
    rule = trmi_memo_get(b, key);
    if (rule < 0) {
        rule = trmi_build_rule_new(b, NULL, NULL);
        trmi_memo_put(b, key, rule);
        if (b->st != TRM_OK)
            return;
        put_part(b, b->rules[rule].start, b->rules[rule].end, r, json, 0x80, 0x10ffff, false);
        if (json) {
            for (uint32_t c = 1; c < 0x80; c++)
                for (size_t i = 0; is_escaped(c) && i < r->count; i++)
                    if (c >= r->items[i].lo && c <= r->items[i].hi)
                        put_escaped(b, b->rules[rule].start, b->rules[rule].end, c);
        }
    }
    put_part(b, from, to, r, json, 0, 0x7f, false);
    trmi_build_call(b, from, to, rule);
}

/* ---- characters of JSON strings ---- */

static int put_hex(trmi_builder *b, int from, unsigned lo, unsigned hi, int to)
{
    if (to < 0)
        to = trmi_build_state(b);
    if (lo <= 9)
        trmi_build_bytes(b, from, to, '0' + lo, '0' + (hi < 9 ? hi : 9));
    if (hi >= 10) {
        unsigned first = lo > 10 ? lo - 10 : 0;

        trmi_build_bytes(b, from, to, 'a' + first, 'a' + hi - 10);
        trmi_build_bytes(b, from, to, 'A' + first, 'A' + hi - 10);
    }
    return to;
}

/* \u and what follows it; surrogates come in pairs, and \u0000 is left out. */
static void put_unicode_escape(trmi_builder *b, int from, int to)
{
    int two = trmi_build_state(b), one = trmi_build_state(b), at, zero;

    put_hex(b, two, 0, 15, one); /* two digits, one digit left */
    put_hex(b, one, 0, 15, to);
    at = put_hex(b, from, 1, 12, -1); /* 1xxx to Cxxx, Exxx, Fxxx */
    put_hex(b, from, 14, 15, at);
    put_hex(b, at, 0, 15, two);
    at = put_hex(b, from, 13, 13, -1); /* D000 to D7FF */
    put_hex(b, at, 0, 7, two);
    at = put_hex(b, at, 8, 11, -1); /* D800 to DBFF, then DC00 to DFFF */
    at = put_hex(b, at, 0, 15, -1);
    at = put_hex(b, at, 0, 15, -1);
    at = trmi_put_text(b, at, "\\u", 2);
    at = put_hex(b, at, 13, 13, -1);
    at = put_hex(b, at, 12, 15, -1);
    trmi_build_jump(b, at, two);
    zero = put_hex(b, from, 0, 0, -1); /* 0xxx but 0000 */
    put_hex(b, zero, 1, 15, two);
    zero = put_hex(b, zero, 0, 0, -1);
    put_hex(b, zero, 1, 15, one);
    zero = put_hex(b, zero, 0, 0, -1);
    put_hex(b, zero, 1, 15, to);
}

static void put_long_char(trmi_builder *b, int from, int to)
{
    int slash = trmi_put_text(b, from, "\\", 1), u;

    for (const char *c = "\"\\/bfnrt"; *c != '\0'; c++)
        trmi_build_bytes(b, slash, to, (unsigned char)*c, (unsigned char)*c);
    u = trmi_put_text(b, slash, "u", 1);
    put_unicode_escape(b, u, to);
    put_sequences(b, from, to, 0x80, 0xd7ff);
    put_sequences(b, from, to, 0xe000, 0x10ffff);
}

static void put_short_char(trmi_builder *b, int from, int to)
{
    trmi_build_bytes(b, from, to, 0x20, 0x21);
    trmi_build_bytes(b, from, to, 0x23, 0x5b);
    trmi_build_bytes(b, from, to, 0x5d, 0x7f);
}

void trmi_put_char(trmi_builder *b, int from, int to)
{
    int rule = trmi_memo_get(b, "char");

    put_short_char(b, from, to);
    if (from == to) { /* a loop stays within its rule: its mask does not depend on the stack */
        put_long_char(b, from, to);
        return;
    }
    if (rule < 0) {
        rule = trmi_build_rule_new(b, NULL, NULL);
        trmi_memo_put(b, "char", rule);
        if (b->st != TRM_OK)
            return;
        put_long_char(b, b->rules[rule].start, b->rules[rule].end);
    }
    trmi_build_call(b, from, to, rule);
}
