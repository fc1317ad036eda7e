/* Numbers: any, and those of a range by their digits. */
#include "worker/language/grammar_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Up to `most` digits, at least `least`; from -> to. */
static void put_digits(trmi_builder *b, int from, int to, int least, int most)
{
    for (int i = 0; i < most; i++) {
        int next = i + 1 == most ? to : trmi_build_state(b);

        if (i >= least)
            trmi_build_jump(b, from, to);
        trmi_build_bytes(b, from, next, '0', '9');
        from = next;
    }
}

int trmi_put_number(trmi_builder *b, int from, bool integer)
{
    int sign = trmi_build_state(b), whole = trmi_build_state(b), to = trmi_build_state(b), at, exp;

    trmi_build_jump(b, from, sign);
    trmi_build_bytes(b, from, sign, '-', '-');
    trmi_build_bytes(b, sign, whole, '0', '0');
    at = trmi_build_state(b);
    trmi_build_bytes(b, sign, at, '1', '9');
    put_digits(b, at, whole, 0, TRMI_GRAMMAR_DIGITS - 1);
    trmi_build_jump(b, whole, to);
    if (integer)
        return to;
    exp = trmi_build_state(b);
    at = trmi_put_text(b, whole, ".", 1);
    put_digits(b, at, exp, 1, TRMI_GRAMMAR_DIGITS);
    trmi_build_jump(b, whole, exp);
    trmi_build_jump(b, exp, to);
    at = trmi_build_state(b);
    trmi_build_bytes(b, exp, at, 'e', 'e');
    trmi_build_bytes(b, exp, at, 'E', 'E');
    exp = trmi_build_state(b);
    trmi_build_jump(b, at, exp);
    trmi_build_bytes(b, at, exp, '+', '+');
    trmi_build_bytes(b, at, exp, '-', '-');
    put_digits(b, exp, to, 1, 2); /* within a double, whatever the digits before it */
    return to;
}

/* ---- ranges ---- */

/* A bound that is not negative, as digits: `whole` without leading zeros, fraction without zeros at
 * its end. */
struct bound {
    char whole[24], fraction[24];
    int whole_count, fraction_count;
    bool exclusive;
};

struct range {
    trmi_builder *b;
    const struct bound *lo, *hi; /* hi NULL: none */
    bool integer;
    int to;
    int memo[TRMI_GRAMMAR_DIGITS + 1][4]; /* states of the fraction by place and what is tight */
};

static int digit(const char *digits, int count, int at)
{
    return at < count ? digits[at] - '0' : 0;
}

static bool zeros_from(const struct bound *x, int at)
{
    return at >= x->fraction_count;
}

/* Whether the number may end after `at` digits behind the point (all others are zeros). */
static bool may_end(const struct range *r, int at, bool low, bool high)
{
    if (low && (!zeros_from(r->lo, at) || r->lo->exclusive))
        return false;
    return !high || !zeros_from(r->hi, at) || !r->hi->exclusive;
}

/* State before digit `at` behind the point. low, high: all digits so far are those of the bound. */
static int fraction_state(struct range *r, int at, bool low, bool high)
{
    int *known = &r->memo[at][low * 2 + high], state;

    if (*known != 0)
        return *known;
    *known = state = trmi_build_state(r->b);
    if (at > 0 && may_end(r, at, low, high))
        trmi_build_jump(r->b, state, r->to);
    if (at == TRMI_GRAMMAR_DIGITS)
        return state;
    for (int d = 0; d <= 9; d++) {
        int lo = low ? digit(r->lo->fraction, r->lo->fraction_count, at) : 0;
        int hi = high ? digit(r->hi->fraction, r->hi->fraction_count, at) : 9;

        if (d < lo || d > hi)
            continue;
        trmi_build_bytes(r->b, state, fraction_state(r, at + 1, low && d == lo, high && d == hi),
                         (unsigned)('0' + d), (unsigned)('0' + d));
    }
    return state;
}

static void end_whole(struct range *r, int from, bool low, bool high)
{
    if (may_end(r, 0, low, high))
        trmi_build_jump(r->b, from, r->to);
    if (!r->integer)
        trmi_build_bytes(r->b, from, fraction_state(r, 0, low, high), '.', '.');
}

/* Whole parts of `count` digits; four rows of states by what is tight. */
static void put_wholes(struct range *r, int from, int count)
{
    const struct bound *lo = r->lo, *hi = r->hi;
    bool tight_low = count == lo->whole_count, tight_high = hi != NULL && count == hi->whole_count;
    int row[4] = {-1, -1, -1, -1};

    row[tight_low * 2 + tight_high] = from;
    for (int i = 0; i < count; i++) {
        int next[4] = {-1, -1, -1, -1};

        for (int t = 0; t < 4; t++) {
            if (row[t] < 0)
                continue;
            int first = t & 2 ? digit(lo->whole, lo->whole_count, i) : i == 0 && count > 1 ? 1 : 0;
            int last = t & 1 ? digit(hi->whole, hi->whole_count, i) : 9;

            for (int d = first; d <= last; d++) {
                int to = (t & 2 && d == first ? 2 : 0) | (t & 1 && d == last ? 1 : 0);

                if (next[to] < 0)
                    next[to] = trmi_build_state(r->b);
                trmi_build_bytes(r->b, row[t], next[to], (unsigned)('0' + d), (unsigned)('0' + d));
            }
        }
        memcpy(row, next, sizeof(row));
    }
    for (int t = 0; t < 4; t++)
        if (row[t] >= 0)
            end_whole(r, row[t], (t & 2) != 0, (t & 1) != 0);
}

static void put_positive(trmi_builder *b, int from, int to, const struct bound *lo,
                         const struct bound *hi, bool integer)
{
    struct range r = {.b = b, .lo = lo, .hi = hi, .integer = integer, .to = to};
    int most = hi != NULL ? hi->whole_count : TRMI_GRAMMAR_DIGITS;

    for (int n = lo->whole_count; n <= most && n <= TRMI_GRAMMAR_DIGITS; n++)
        put_wholes(&r, from, n);
}

/* |value| as digits; the shortest that reads back as the same double. */
static bool make_bound(const json_t *value, bool exclusive, struct bound *out)
{
    char text[400], *point;
    size_t n;

    memset(out, 0, sizeof(*out));
    out->exclusive = exclusive;
    if (json_is_integer(value)) {
        snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else {
        double v = json_real_value(value);

        for (int digits = 0; digits <= 20; digits++) {
            snprintf(text, sizeof(text), "%.*f", digits, v);
            if (strtod(text, NULL) == v)
                break;
        }
        if (strtod(text, NULL) != v)
            return false;
    }
    point = strchr(text, '.');
    n = strlen(text);
    if (point != NULL) {
        while (text[n - 1] == '0')
            n--;
        out->fraction_count = (int)(text + n - point - 1);
        if (out->fraction_count > TRMI_GRAMMAR_DIGITS)
            return false;
        memcpy(out->fraction, point + 1, (size_t)out->fraction_count);
        n = (size_t)(point - text);
    }
    if (text[0] == '-') {
        memmove(text, text + 1, n);
        n--;
    }
    if (n > TRMI_GRAMMAR_DIGITS + 1)
        return false;
    memcpy(out->whole, text, n);
    out->whole_count = (int)n;
    return true;
}

static bool is_zero(const struct bound *x)
{
    return x->whole_count == 1 && x->whole[0] == '0' && x->fraction_count == 0;
}

/* The tighter of an inclusive and an exclusive bound, and whether it is exclusive. Draft 4 has
 * exclusiveMinimum: true beside minimum. */
static const json_t *get_bound(trmi_builder *b, const json_t *s, const char *plain,
                               const char *exclusive, bool lower, bool *exclusive_out)
{
    const json_t *p = json_object_get(s, plain), *e = json_object_get(s, exclusive);

    *exclusive_out = false;
    if (p != NULL && !json_is_number(p))
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'%s': want a number", plain);
    if (json_is_boolean(e)) {
        *exclusive_out = json_is_true(e);
        return p;
    }
    if (e != NULL && !json_is_number(e))
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "'%s': want a number", exclusive);
    if (e == NULL)
        return p;
    if (p != NULL && (lower ? json_number_value(p) > json_number_value(e)
                            : json_number_value(p) < json_number_value(e)))
        return p;
    *exclusive_out = true;
    return e;
}

static void check_multiple(trmi_builder *b, const json_t *s, bool integer)
{
    const json_t *m = json_object_get(s, "multipleOf");

    if (m != NULL && !(integer && json_number_value(m) == 1))
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "'multipleOf' is not done (but 1 for integers)");
}

int trmi_put_number_schema(trmi_builder *b, int from, const json_t *s, bool integer)
{
    struct bound lo, hi, zero = {.whole = "0", .whole_count = 1}, above = zero;
    bool lo_exclusive, hi_exclusive, negative_lo, negative_hi;
    const json_t *l = get_bound(b, s, "minimum", "exclusiveMinimum", true, &lo_exclusive);
    const json_t *h = get_bound(b, s, "maximum", "exclusiveMaximum", false, &hi_exclusive);
    int to, minus;

    check_multiple(b, s, integer);
    if (b->st != TRM_OK)
        return 0;
    if (l == NULL && h == NULL)
        return trmi_put_number(b, from, integer);
    if ((l != NULL && !make_bound(l, lo_exclusive, &lo)) ||
        (h != NULL && !make_bound(h, hi_exclusive, &hi))) {
        (void)trmi_schema_fail(b, TRM_ERR_UNSUPPORTED,
                               "a bound of a number has more than %d digits before or behind the "
                               "point",
                               TRMI_GRAMMAR_DIGITS);
        return 0;
    }
    if (l != NULL && h != NULL && json_number_value(l) > json_number_value(h)) {
        (void)trmi_schema_fail(b, TRM_ERR_INVALID_ARG, "the minimum is above the maximum");
        return 0;
    }
    above.exclusive = true; /* no -0 */
    to = trmi_build_state(b);
    minus = trmi_put_text(b, from, "-", 1);
    negative_lo = l == NULL || (json_number_value(l) < 0 && !is_zero(&lo));
    negative_hi = h != NULL && json_number_value(h) < 0;
    if (!negative_hi)
        put_positive(b, from, to, l == NULL || negative_lo ? &zero : &lo, h == NULL ? NULL : &hi,
                     integer);
    if (negative_lo)
        put_positive(b, minus, to, negative_hi ? &hi : &above, l == NULL ? NULL : &lo, integer);
    return to;
}
