/* Strings: free ones, of so many characters, of formats; names that are none of some. */
#include "worker/language/grammar_impl.h"

#include <string.h>

/* Formats as regular expressions. Dates exist in the calendar, years are 1000 to 9999. */
#define LEAP "(?:(?:[2468][048]|[13579][26])00|[1-9]\\d(?:0[48]|[2468][048]|[13579][26]))"
#define DATE                                                                                       \
    "(?:[1-9]\\d{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]"   \
    "\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))|" LEAP "-02-29)"
#define TIME                                                                                       \
    "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,6})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"
#define BYTE "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
#define ATOM "[A-Za-z0-9_+-]{1,32}"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
    {"ipv4", BYTE "(?:\\." BYTE "){3}"},
    {"email", ATOM "(?:\\." ATOM "){0,3}@" LABEL "(?:\\." LABEL "){1,4}"},
};

static int put_lengths(trmi_builder *b, int from, int64_t least, int64_t most)
{
    int at = trmi_put_text(b, from, "\"", 1), to = trmi_build_state(b);

    if (most > TRMI_GRAMMAR_STATES_MAX || least > TRMI_GRAMMAR_STATES_MAX) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "a length of a string above %d",
                               TRMI_GRAMMAR_STATES_MAX);
        return 0;
    }
    for (int64_t i = 0; i < (most >= 0 ? most : least) && b->st == TRM_OK; i++) {
        int next = trmi_build_state(b);

        if (i >= least)
            trmi_build_bytes(b, at, to, '"', '"');
        trmi_put_char(b, at, next);
        trmi_build_chain_add(b, at, to, i < least ? least - i : 0, most < 0 ? -1 : most - i);
        at = next;
    }
    if (most < 0) { /* the rest is as in any string */
        int rule = trmi_memo_get(b, "rest"), start;

        if (rule < 0) {
            rule = trmi_build_rule_new(b, NULL, NULL);
            trmi_memo_put(b, "rest", rule);
            if (b->st != TRM_OK)
                return 0;
            start = b->rules[rule].start;
            trmi_put_char(b, start, start);
            trmi_build_bytes(b, start, b->rules[rule].end, '"', '"');
            trmi_build_chain_add(b, start, b->rules[rule].end, 0, -1);
        }
        trmi_build_call(b, at, to, rule);
    } else {
        trmi_build_bytes(b, at, to, '"', '"');
    }
    return to;
}

static const char *format_pattern(const json_t *s)
{
    const char *name = json_string_value(json_object_get(s, "format"));

    for (size_t i = 0; name != NULL && i < sizeof(formats) / sizeof(formats[0]); i++)
        if (strcmp(formats[i].name, name) == 0)
            return formats[i].pattern;
    return NULL; /* an annotation */
}

int trmi_put_string(trmi_builder *b, int from, const json_t *s)
{
    int64_t least = trmi_schema_count(b, s, "minLength", 0);
    int64_t most = trmi_schema_count(b, s, "maxLength", -1);
    const json_t *pattern = json_object_get(s, "pattern");
    const char *format = format_pattern(s);

    if (most >= 0 && least > most)
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'minLength' is above 'maxLength'");
    if (pattern != NULL && !json_is_string(pattern))
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'pattern': want a string");
    if (pattern != NULL && format != NULL)
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "'pattern' together with 'format'");
    if (b->st != TRM_OK)
        return 0;
    if (pattern == NULL && format == NULL)
        return least == 0 && most < 0 ? trmi_put_any_string(b, from)
                                      : put_lengths(b, from, least, most);
    from = trmi_put_text(b, from, "\"", 1);
    from = trmi_put_regex(b, from, format != NULL ? format : json_string_value(pattern),
                          format != NULL, true, least, most);
    return trmi_put_text(b, from, "\"", 1);
}

/* ---- other names ---- */

/* All names but these: a trie over their code points. Escapes are written only where they must be,
 * or a name could be spelt in another way. */
struct naming {
    trmi_builder *b;
    const char **names;
    size_t *bytes;
    int rest, end; /* any characters more; behind the quotes */
};

/* names[lo, hi) share what comes before byte `at`, where the state is `from`. */
static void put_names(struct naming *n, int from, size_t lo, size_t hi, size_t at, int depth)
{
    trmi_builder *b = n->b;
    trmi_ranges taken = {0};
    bool whole = false;

    if (depth > 256)
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED, "the name of a property is longer than 256");
    while (lo < hi && b->st == TRM_OK) {
        size_t next = at, end = lo + 1;
        uint32_t c;
        trmi_range range;
        trmi_ranges one = {&range, 1, 1};
        int to;

        if (n->bytes[lo] == at) {
            whole = true;
            lo++;
            continue;
        }
        c = trmi_next_code_point(n->names[lo], n->bytes[lo], &next);
        range = (trmi_range){c, c};
        while (end < hi && n->bytes[end] >= next &&
               memcmp(n->names[end] + at, n->names[lo] + at, next - at) == 0)
            end++;
        to = trmi_build_state(b);
        trmi_ranges_add(b, &taken, c, c);
        trmi_put_ranges(b, from, to, &one, true);
        put_names(n, to, lo, end, next, depth + 1);
        lo = end;
    }
    if (!whole)
        trmi_build_bytes(b, from, n->end, '"', '"');
    trmi_ranges_settle(&taken);
    trmi_ranges_invert(b, &taken);
    trmi_put_set(b, from, n->rest, &taken, true);
}

static void sort_names(const char **names, size_t *bytes, size_t count)
{
    for (size_t i = 1; i < count; i++) /* few, and often sorted enough */
        for (size_t k = i; k > 0 && strcmp(names[k], names[k - 1]) < 0; k--) {
            const char *name = names[k];
            size_t n = bytes[k];

            names[k] = names[k - 1];
            bytes[k] = bytes[k - 1];
            names[k - 1] = name;
            bytes[k - 1] = n;
        }
}

int trmi_put_other_name(trmi_builder *b, int from, const json_t *names)
{
    size_t count = json_object_size(names), i = 0;
    struct naming n = {.b = b};
    trmi_ranges all = {0};
    const char *key;
    json_t *v;

    if (count == 0)
        return trmi_put_any_string(b, from);
    n.names = trm_arena_alloc(b->arena, count, sizeof(*n.names));
    n.bytes = trm_arena_alloc(b->arena, count, sizeof(*n.bytes));
    if (n.names == NULL || n.bytes == NULL) {
        (void)trmi_build_fail(b, TRM_ERR_NO_MEMORY, "a grammar");
        return 0;
    }
    if (count > 4096) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "'additionalProperties' beside more than 4096 properties");
        return 0;
    }
    json_object_foreach((json_t *)(uintptr_t)names, key, v)
    {
        n.names[i] = key;
        n.bytes[i++] = strlen(key);
    }
    sort_names(n.names, n.bytes, count);
    n.rest = trmi_build_state(b);
    n.end = trmi_build_state(b);
    from = trmi_put_text(b, from, "\"", 1);
    trmi_ranges_invert(b, &all);
    trmi_put_ranges(b, n.rest, n.rest, &all, true);
    trmi_build_bytes(b, n.rest, n.end, '"', '"');
    put_names(&n, from, 0, count, 0, 0);
    return n.end;
}
