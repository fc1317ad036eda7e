/* Classes, properties and escapes of a pattern. A class that PCRE2 cannot say becomes a group that
 * matches one character, with lookaheads.
 *
 * Oniguruma's Unicode is newer than that of the PCRE2 which is at hand today: properties are
 * PCRE2's and what is newer than Unicode 14, which does no harm where PCRE2 knows it too. */
#include "model/tokenizer/regex_impl.h"

#define TRMI_UNICODE_PATTERNS
#include "model/tokenizer/unicode_tables.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdio.h>
#include <string.h>

#define CLASSES_MAX 16

/* Insides of classes. White_Space: */
#define WHITE                                                                                      \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}"    \
    "\\x{205F}\\x{3000}"
#define NOT_WHITE                                                                                  \
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}\\x{1681}-"         \
    "\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}\\x{2060}-\\x{2FFF}"        \
    "\\x{3001}-\\x{10FFFF}"
/* Alphabetic, M, Nd, Pc, and Latin-1's superscripts and fractions */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}" NEWER_WORD
#define HEX "0-9A-Fa-f"

trm_status trmi_pattern_refuse(const trmi_pattern *r, const char *what)
{
    int bytes = r->end - r->all > 200 ? 200 : (int)(r->end - r->all);

    return trm_fail(TRM_ERR_UNSUPPORTED, "regular expression '%.*s': %s at byte %td", bytes, r->all,
                    what, r->at - r->all);
}

void trmi_pattern_put(trmi_buf *out, const char *text)
{
    trmi_buf_add(out, text, strlen(text));
}

bool trmi_pattern_starts(const trmi_pattern *r, const char *text)
{
    size_t n = strlen(text);

    return (size_t)(r->end - r->at) >= n && memcmp(r->at, text, n) == 0;
}

void trmi_pattern_put_char(trmi_buf *out, uint32_t c)
{
    char text[16];

    if (c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) {
        trmi_buf_char(out, c);
        return;
    }
    snprintf(text, sizeof(text), "\\x{%X}", (unsigned)c);
    trmi_pattern_put(out, text);
}

/* ---- properties ---- */

/* Names as they are compared: lower case, without blank, '_' and '-'. Negated sets are spelled out
 * where that is possible, NULL where it takes a class of its own. */
static const struct {
    const char *name, *inside, *negated;
} properties[] = {
    {"letter", "\\p{L}" NEWER_L, NULL},
    {"l", "\\p{L}" NEWER_L, NULL},
    {"uppercaseletter", "\\p{Lu}" NEWER_Lu, NULL},
    {"lu", "\\p{Lu}" NEWER_Lu, NULL},
    {"lowercaseletter", "\\p{Ll}" NEWER_Ll, NULL},
    {"ll", "\\p{Ll}" NEWER_Ll, NULL},
    {"titlecaseletter", "\\p{Lt}", "\\P{Lt}"},
    {"lt", "\\p{Lt}", "\\P{Lt}"},
    {"modifierletter", "\\p{Lm}" NEWER_Lm, NULL},
    {"lm", "\\p{Lm}" NEWER_Lm, NULL},
    {"otherletter", "\\p{Lo}" NEWER_Lo, NULL},
    {"lo", "\\p{Lo}" NEWER_Lo, NULL},
    {"mark", "\\p{M}" NEWER_M, NULL},
    {"m", "\\p{M}" NEWER_M, NULL},
    {"nonspacingmark", "\\p{Mn}" NEWER_Mn, NULL},
    {"mn", "\\p{Mn}" NEWER_Mn, NULL},
    {"spacingmark", "\\p{Mc}" NEWER_Mc, NULL},
    {"mc", "\\p{Mc}" NEWER_Mc, NULL},
    {"enclosingmark", "\\p{Me}", "\\P{Me}"},
    {"me", "\\p{Me}", "\\P{Me}"},
    {"number", "\\p{N}" NEWER_N, NULL},
    {"n", "\\p{N}" NEWER_N, NULL},
    {"decimalnumber", "\\p{Nd}" NEWER_Nd, NULL},
    {"nd", "\\p{Nd}" NEWER_Nd, NULL},
    {"letternumber", "\\p{Nl}", "\\P{Nl}"},
    {"nl", "\\p{Nl}", "\\P{Nl}"},
    {"othernumber", "\\p{No}" NEWER_No, NULL},
    {"no", "\\p{No}" NEWER_No, NULL},
    {"punctuation", "\\p{P}" NEWER_P, NULL},
    {"p", "\\p{P}" NEWER_P, NULL},
    {"connectorpunctuation", "\\p{Pc}", "\\P{Pc}"},
    {"pc", "\\p{Pc}", "\\P{Pc}"},
    {"dashpunctuation", "\\p{Pd}", "\\P{Pd}"},
    {"pd", "\\p{Pd}", "\\P{Pd}"},
    {"openpunctuation", "\\p{Ps}", "\\P{Ps}"},
    {"ps", "\\p{Ps}", "\\P{Ps}"},
    {"closepunctuation", "\\p{Pe}", "\\P{Pe}"},
    {"pe", "\\p{Pe}", "\\P{Pe}"},
    {"initialpunctuation", "\\p{Pi}", "\\P{Pi}"},
    {"pi", "\\p{Pi}", "\\P{Pi}"},
    {"finalpunctuation", "\\p{Pf}", "\\P{Pf}"},
    {"pf", "\\p{Pf}", "\\P{Pf}"},
    {"otherpunctuation", "\\p{Po}" NEWER_Po, NULL},
    {"po", "\\p{Po}" NEWER_Po, NULL},
    {"symbol", "\\p{S}" NEWER_S, NULL},
    {"s", "\\p{S}" NEWER_S, NULL},
    {"mathsymbol", "\\p{Sm}", "\\P{Sm}"},
    {"sm", "\\p{Sm}", "\\P{Sm}"},
    {"currencysymbol", "\\p{Sc}", "\\P{Sc}"},
    {"sc", "\\p{Sc}", "\\P{Sc}"},
    {"modifiersymbol", "\\p{Sk}", "\\P{Sk}"},
    {"sk", "\\p{Sk}", "\\P{Sk}"},
    {"othersymbol", "\\p{So}" NEWER_So, NULL},
    {"so", "\\p{So}" NEWER_So, NULL},
    {"separator", "\\p{Z}", "\\P{Z}"},
    {"z", "\\p{Z}", "\\P{Z}"},
    {"spaceseparator", "\\p{Zs}", "\\P{Zs}"},
    {"zs", "\\p{Zs}", "\\P{Zs}"},
    {"lineseparator", "\\p{Zl}", "\\P{Zl}"},
    {"zl", "\\p{Zl}", "\\P{Zl}"},
    {"paragraphseparator", "\\p{Zp}", "\\P{Zp}"},
    {"zp", "\\p{Zp}", "\\P{Zp}"},
    {"control", "\\p{Cc}", "\\P{Cc}"},
    {"cc", "\\p{Cc}", "\\P{Cc}"},
    {"format", "\\p{Cf}", "\\P{Cf}"},
    {"cf", "\\p{Cf}", "\\P{Cf}"},
    {"privateuse", "\\p{Co}", "\\P{Co}"},
    {"co", "\\p{Co}", "\\P{Co}"},
    {"other", "\\p{C}", "\\P{C}"},
    {"c", "\\p{C}", "\\P{C}"},
    {"unassigned", "\\p{Cn}", "\\P{Cn}"},
    {"cn", "\\p{Cn}", "\\P{Cn}"},
    {"alpha", "\\p{Alphabetic}" NEWER_ALPHABETIC, NULL},
    {"alphabetic", "\\p{Alphabetic}" NEWER_ALPHABETIC, NULL},
    {"upper", "\\p{Uppercase}" NEWER_Lu, NULL},
    {"uppercase", "\\p{Uppercase}" NEWER_Lu, NULL},
    {"lower", "\\p{Lowercase}", "\\P{Lowercase}"},
    {"lowercase", "\\p{Lowercase}", "\\P{Lowercase}"},
    {"digit", "\\p{Nd}" NEWER_Nd, NULL},
    {"space", WHITE, NOT_WHITE},
    {"whitespace", WHITE, NOT_WHITE},
    {"alnum", "\\p{Alphabetic}\\p{Nd}" NEWER_ALPHABETIC NEWER_Nd, NULL},
    {"word", WORD, NULL},
    {"han", "\\p{sc:Han}" NEWER_HAN, NULL},
    {"cntrl", "\\p{Cc}", "\\P{Cc}"},
    {"xdigit", HEX, NULL},
    {"ascii", "\\x{0}-\\x{7F}", "\\x{80}-\\x{10FFFF}"},
    {"any", "\\x{0}-\\x{10FFFF}", NULL},
};

static bool compiles(const char *pattern)
{
    int error;
    PCRE2_SIZE where;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, strlen(pattern), PCRE2_UTF, &error, &where, NULL);

    pcre2_code_free(code);
    return code != NULL;
}

/* A set as the inside of a class, or (complement) as a class that goes into `nested`. */
static void add_set(trmi_buf *inside, trmi_buf *nested, const char *set, const char *negated,
                    bool negate)
{
    if (!negate || negated != NULL) {
        trmi_pattern_put(inside, negate ? negated : set);
        return;
    }
    if (nested->count > 0)
        trmi_buf_byte(nested, '|');
    trmi_pattern_put(nested, "[^");
    trmi_pattern_put(nested, set);
    trmi_pattern_put(nested, "]");
}

/* The property called `name` (bytes of it). */
static trm_status add_property(trmi_pattern *r, const char *name, size_t bytes, bool negate,
                               trmi_buf *inside, trmi_buf *nested)
{
    char plain[48], text[80];
    size_t n = 0;

    for (size_t i = 0; i < bytes; i++) {
        char c = name[i];

        if (c == ' ' || c == '_' || c == '-')
            continue;
        if (c >= 'A' && c <= 'Z')
            c = (char)(c - 'A' + 'a');
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) || n == sizeof(plain) - 1)
            return trmi_pattern_refuse(r, "an unknown property");
        plain[n++] = c;
    }
    plain[n] = '\0';
    for (size_t i = 0; i < sizeof(properties) / sizeof(properties[0]); i++)
        if (strcmp(plain, properties[i].name) == 0) {
            add_set(inside, nested, properties[i].inside, properties[i].negated, negate);
            return TRM_OK;
        }
    snprintf(text, sizeof(text), "\\%c{sc:%s}", negate ? 'P' : 'p', plain);
    if (!compiles(text)) {
        snprintf(text, sizeof(text), "\\%c{%s}", negate ? 'P' : 'p', plain);
        if (!compiles(text))
            return trmi_pattern_refuse(r, "an unknown property");
    }
    trmi_pattern_put(inside, text);
    return TRM_OK;
}

/* "{Name}" or "{^Name}" behind \p or \P. */
static trm_status read_property(trmi_pattern *r, bool negate, trmi_buf *inside, trmi_buf *nested)
{
    const char *close;

    if (r->at == r->end || *r->at != '{')
        return trmi_pattern_refuse(r, "a property without braces");
    r->at++;
    if (r->at < r->end && *r->at == '^') {
        negate = !negate;
        r->at++;
    }
    close = memchr(r->at, '}', (size_t)(r->end - r->at));
    if (close == NULL || close == r->at)
        return trmi_pattern_refuse(r, "a property without a name");
    TRM_CHECK(add_property(r, r->at, (size_t)(close - r->at), negate, inside, nested));
    r->at = close + 1;
    return TRM_OK;
}

/* ---- escapes ---- */

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static trm_status read_hex(trmi_pattern *r, int most, int least, uint32_t *c_out)
{
    uint32_t c = 0;
    int n = 0;

    while (n < most && r->at < r->end && hex_digit(*r->at) >= 0) {
        c = c << 4 | (uint32_t)hex_digit(*r->at++);
        n++;
    }
    if (n < least || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
        return trmi_pattern_refuse(r, "not the number of a character");
    *c_out = c;
    return TRM_OK;
}

trm_status trmi_pattern_char(trmi_pattern *r, bool in_class, uint32_t *c_out, bool *is_char_out)
{
    static const char from[] = "nrtfvae", to[] = "\n\r\t\f\v\a\033";
    char e;
    const char *simple;
    size_t bytes;

    *is_char_out = true;
    if (r->at == r->end)
        return trmi_pattern_refuse(r, "a backslash at the end");
    e = *r->at;
    simple = e == '\0' ? NULL : strchr(from, e);
    if (simple != NULL) {
        *c_out = (unsigned char)to[simple - from];
        r->at++;
        return TRM_OK;
    }
    if (e == 'x' || e == 'u') {
        r->at++;
        if (e == 'u')
            return read_hex(r, 4, 4, c_out);
        if (r->at == r->end || *r->at != '{') {
            TRM_CHECK(read_hex(r, 2, 1, c_out));
            return *c_out < 0x80 ? TRM_OK : trmi_pattern_refuse(r, "\\x above 7F without braces");
        }
        r->at++;
        TRM_CHECK(read_hex(r, 8, 1, c_out));
        if (r->at == r->end || *r->at != '}')
            return trmi_pattern_refuse(r, "\\x{ without its end");
        r->at++;
        return TRM_OK;
    }
    if (e == 'b' && in_class) {
        *c_out = '\b';
        r->at++;
        return TRM_OK;
    }
    if (e == '0') {
        r->at++;
        *c_out = 0;
        return r->at < r->end && *r->at >= '0' && *r->at <= '7'
                   ? trmi_pattern_refuse(r, "an octal number")
                   : TRM_OK;
    }
    if ((e >= 'a' && e <= 'z') || (e >= 'A' && e <= 'Z') || (e >= '1' && e <= '9')) {
        *is_char_out = false;
        return TRM_OK;
    }
    *c_out = trmi_utf8_get(r->at, &bytes);
    r->at += bytes;
    return TRM_OK;
}

/* An escape that is a set of characters, behind its backslash. */
static trm_status read_escaped_set(trmi_pattern *r, trmi_buf *inside, trmi_buf *nested)
{
    char e = *r->at++;

    switch (e) {
    case 's':
    case 'S':
        add_set(inside, nested, WHITE, NOT_WHITE, e == 'S');
        return TRM_OK;
    case 'd':
    case 'D':
        add_set(inside, nested, "\\p{Nd}" NEWER_Nd, NULL, e == 'D');
        return TRM_OK;
    case 'w':
    case 'W':
        add_set(inside, nested, WORD, NULL, e == 'W');
        return TRM_OK;
    case 'h':
    case 'H':
        add_set(inside, nested, HEX, NULL, e == 'H');
        return TRM_OK;
    case 'p':
    case 'P':
        return read_property(r, e == 'P', inside, nested);
    default:
        r->at -= 2;
        return trmi_pattern_refuse(
            r, "an escape that is not supported (supported: \\s \\d \\w \\h \\p \\b \\B "
               "\\A \\z \\Z \\G \\R, characters, \\1 to \\9)");
    }
}

/* ---- classes ---- */

/* What has been read of one operand of &&. */
typedef struct operand {
    trmi_buf inside; /* what may stand between [ and ] */
    trmi_buf nested; /* alternatives, each one character, joined by | */
} operand;

/* The operand as an expression for one character. */
static void put_operand(trmi_buf *out, const operand *o)
{
    bool both = o->inside.count > 0 && o->nested.count > 0;

    if (o->nested.count > 0)
        trmi_pattern_put(out, "(?:");
    if (o->inside.count > 0) {
        trmi_pattern_put(out, "[");
        trmi_buf_add(out, o->inside.bytes, o->inside.count);
        trmi_pattern_put(out, "]");
    }
    if (both)
        trmi_pattern_put(out, "|");
    trmi_buf_add(out, o->nested.bytes, o->nested.count);
    if (o->nested.count > 0)
        trmi_pattern_put(out, ")");
    if (o->inside.count == 0 && o->nested.count == 0)
        trmi_pattern_put(out, "(?!)");
}

static trm_status read_class(trmi_pattern *r, trmi_buf *out, int depth);

static trm_status read_posix(trmi_pattern *r, operand *o)
{
    const char *close;
    bool negate = false;

    r->at += 2;
    if (r->at < r->end && *r->at == '^') {
        negate = true;
        r->at++;
    }
    close = r->at;
    while (close < r->end && *close >= 'a' && *close <= 'z')
        close++;
    if (r->end - close < 2 || memcmp(close, ":]", 2) != 0)
        return trmi_pattern_refuse(r, "[: without :]");
    TRM_CHECK(add_property(r, r->at, (size_t)(close - r->at), negate, &o->inside, &o->nested));
    r->at = close + 2;
    return TRM_OK;
}

/* One character, or a range of them that begins with it. */
static trm_status read_range(trmi_pattern *r, operand *o, uint32_t first)
{
    uint32_t last = 0;
    bool is_char = true;
    size_t bytes;

    trmi_pattern_put_char(&o->inside, first);
    if (r->end - r->at < 2 || r->at[0] != '-' || r->at[1] == ']' || r->at[1] == '[')
        return TRM_OK;
    if (trmi_pattern_starts(r, "-&&"))
        return TRM_OK;
    r->at++;
    if (*r->at == '\\') {
        r->at++;
        TRM_CHECK(trmi_pattern_char(r, true, &last, &is_char));
        if (!is_char)
            return trmi_pattern_refuse(r, "a range that ends in a set");
    } else {
        last = trmi_utf8_get(r->at, &bytes);
        r->at += bytes;
    }
    if (last < first)
        return trmi_pattern_refuse(r, "an empty range");
    trmi_pattern_put(&o->inside, "-");
    trmi_pattern_put_char(&o->inside, last);
    return TRM_OK;
}

static trm_status read_operand_item(trmi_pattern *r, operand *o, int depth)
{
    uint32_t c = 0;
    size_t bytes;
    bool is_char;

    if (*r->at == '[') {
        if (trmi_pattern_starts(r, "[:"))
            return read_posix(r, o);
        if (o->nested.count > 0)
            trmi_pattern_put(&o->nested, "|");
        return read_class(r, &o->nested, depth + 1);
    }
    if (*r->at == '\\') {
        r->at++;
        TRM_CHECK(trmi_pattern_char(r, true, &c, &is_char));
        if (!is_char)
            return read_escaped_set(r, &o->inside, &o->nested);
        return read_range(r, o, c);
    }
    c = trmi_utf8_get(r->at, &bytes);
    r->at += bytes;
    return read_range(r, o, c);
}

/* From '[' to behind its ']', as an expression for one character. */
static trm_status read_class(trmi_pattern *r, trmi_buf *out, int depth)
{
    operand o = {{0}, {0}};
    trmi_buf before = {0}; /* lookaheads for the operands before the last */
    bool negate = false, first = true;
    trm_status st = TRM_OK;

    if (depth > CLASSES_MAX)
        return trmi_pattern_refuse(r, "classes too deep in classes");
    r->at++;
    if (r->at < r->end && *r->at == '^') {
        negate = true;
        r->at++;
    }
    for (;; first = false) {
        if (r->at == r->end) {
            st = trmi_pattern_refuse(r, "a class without its end");
            goto end;
        }
        if (*r->at == ']' && !first)
            break;
        if (trmi_pattern_starts(r, "&&")) {
            r->at += 2;
            trmi_pattern_put(&before, "(?=");
            put_operand(&before, &o);
            trmi_pattern_put(&before, ")");
            trmi_buf_clear(&o.inside);
            trmi_buf_clear(&o.nested);
            continue;
        }
        TRM_TRY(st, read_operand_item(r, &o, depth), end);
    }
    r->at++;
    if (before.count == 0 && o.nested.count == 0 && o.inside.count > 0) {
        trmi_pattern_put(out, negate ? "[^" : "[");
        trmi_buf_add(out, o.inside.bytes, o.inside.count);
        trmi_pattern_put(out, "]");
        goto end;
    }
    trmi_pattern_put(out, negate ? "(?:(?!" : "(?:");
    trmi_buf_add(out, before.bytes, before.count);
    put_operand(out, &o);
    trmi_pattern_put(out, negate ? ")[\\x{0}-\\x{10FFFF}])" : ")");
end:
    if (st == TRM_OK && (o.inside.failed || o.nested.failed || before.failed))
        st = trm_fail(TRM_ERR_NO_MEMORY, "a regular expression");
    trmi_buf_fini(&o.inside);
    trmi_buf_fini(&o.nested);
    trmi_buf_fini(&before);
    return st;
}

trm_status trmi_pattern_class(trmi_pattern *r, trmi_buf *out)
{
    return read_class(r, out, 0);
}

trm_status trmi_pattern_set(trmi_pattern *r, trmi_buf *out)
{
    operand o = {{0}, {0}};
    trm_status st = read_escaped_set(r, &o.inside, &o.nested);

    if (st == TRM_OK)
        put_operand(out, &o);
    if (st == TRM_OK && (o.inside.failed || o.nested.failed))
        st = trm_fail(TRM_ERR_NO_MEMORY, "a regular expression");
    trmi_buf_fini(&o.inside);
    trmi_buf_fini(&o.nested);
    return st;
}

void trmi_pattern_put_edge(trmi_buf *out, bool is_edge)
{
    trmi_pattern_put(out, is_edge
                              ? "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))"
                              : "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))");
}
