/* Reading lists of numbers: see lists.h. One walker goes over brackets and elements and holds the
 * lists to a shape; what becomes of an element is the caller's. */
#include "coordinator/gateway/lists.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One element: `text` up to `end` */
struct token {
    const char *text, *end;
    enum { NUMBER, TRUE_OR_FALSE, NOT_FINITE } kind;
    bool negative;
    bool integer;    /* no fraction and no exponent */
    bool exact;      /* digits are all in `mantissa` */
    uint64_t digits; /* value: digits * 10^exponent */
    int64_t exponent;
};

struct walker {
    const char *what;
    const char *p, *end;
    int leaf;                     /* depth of the elements; 0: none seen */
    int64_t dims[TRM_RANK_MAX];   /* wanted at each depth; -1: of the first list that ends */
    int64_t counts[TRM_RANK_MAX]; /* seen of the open lists */
    int shape_rank;               /* lists this deep must be as `dims` say; -1: any depth */
    bool deep;                    /* lists are nested more than once */
    size_t elems;                 /* seen */
    trm_status (*element)(struct walker *w, const struct token *token);
    void *ctx;
};

static trm_status refuse(const struct walker *w, const char *text, const char *want)
{
    int n = 0;

    while (text + n < w->end && n < 24 && text[n] >= 0x20 && text[n] < 0x7f && text[n] != ',' &&
           text[n] != ']')
        n++;
    return trm_fail(TRM_ERR_INVALID_ARG, "%s: element %zu is '%.*s', want %s", w->what, w->elems, n,
                    text, want);
}

static bool digit(const char *p, const char *end)
{
    return p < end && *p >= '0' && *p <= '9';
}

static void take_digit(struct token *k, char c, bool fraction)
{
    uint64_t more;

    if (__builtin_mul_overflow(k->digits, 10u, &more) ||
        __builtin_add_overflow(more, (uint64_t)(c - '0'), &more)) {
        k->exact = k->exact && c == '0';
        k->exponent += fraction ? 0 : 1;
        return;
    }
    k->digits = more;
    k->exponent -= fraction ? 1 : 0;
}

/* JSON's number; false: it is none. */
static bool number(struct token *k, const char *end)
{
    const char *p = k->text;
    int64_t e = 0;
    bool minus = false;

    k->kind = NUMBER;
    k->integer = k->exact = true;
    if (p < end && *p == '-') {
        k->negative = true;
        p++;
    }
    if (!digit(p, end) || (*p == '0' && digit(p + 1, end)))
        return false;
    for (; digit(p, end); p++)
        take_digit(k, *p, false);
    if (p < end && *p == '.') {
        k->integer = false;
        if (!digit(++p, end))
            return false;
        for (; digit(p, end); p++)
            take_digit(k, *p, true);
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        k->integer = false;
        p++;
        if (p < end && (*p == '-' || *p == '+'))
            minus = *p++ == '-';
        if (!digit(p, end))
            return false;
        for (; digit(p, end); p++)
            e = e < 100000 ? e * 10 + (*p - '0') : e;
        k->exponent += minus ? -e : e;
    }
    k->end = p;
    return true;
}

static bool word(struct token *k, const char *end, const char *text)
{
    size_t n = strlen(text);

    if ((size_t)(end - k->text) < n || memcmp(k->text, text, n) != 0)
        return false;
    k->end = k->text + n;
    return true;
}

static bool read_token(struct token *k, const char *end)
{
    if (word(k, end, "true") || word(k, end, "false")) {
        k->kind = TRUE_OR_FALSE;
        return true;
    }
    /* as Python's json writes them */
    if (word(k, end, "NaN") || word(k, end, "Infinity") || word(k, end, "-Infinity")) {
        k->kind = NOT_FINITE;
        return true;
    }
    return number(k, end);
}

static trm_status close_list(struct walker *w, int depth)
{
    int64_t seen = w->counts[depth - 1], *want = &w->dims[depth - 1];
    bool flat = w->shape_rank >= 0 && w->leaf <= 1 && !w->deep;

    if (flat)
        return TRM_OK; /* the number of elements is all that counts */
    if (*want < 0)
        *want = seen;
    if (seen == *want)
        return TRM_OK;
    return trm_fail(TRM_ERR_INVALID_ARG,
                    "%s: a list at depth %d has %" PRId64 " entries, want %" PRId64, w->what, depth,
                    seen, *want);
}

static trm_status at_element(struct walker *w, int depth)
{
    struct token k = {.text = w->p};

    if (w->leaf == 0)
        w->leaf = depth;
    if (w->leaf != depth)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: numbers and lists beside each other", w->what);
    if (w->shape_rank > 1 && depth != 1 && depth != w->shape_rank)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s: lists are nested %d deep, want a flat one or %d (the shape)", w->what,
                        depth, w->shape_rank);
    if (!read_token(&k, w->end))
        return refuse(w, w->p, "a number");
    TRM_CHECK(w->element(w, &k));
    w->elems++;
    w->p = k.end;
    return TRM_OK;
}

static trm_status open_list(struct walker *w, int *depth)
{
    int most = w->shape_rank > 0 ? w->shape_rank : w->shape_rank == 0 ? 1 : TRM_RANK_MAX;

    if (*depth == most)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: lists are nested more than %d deep%s", w->what,
                        most, w->shape_rank >= 0 ? " (the shape)" : "");
    w->deep = w->deep || *depth == 1;
    w->counts[(*depth)++] = 0;
    w->p++;
    return TRM_OK;
}

static const char *skip(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

/* From '[' to its end, which trmi_lists_cut has found: w->end. */
static trm_status walk(struct walker *w)
{
    int depth = 0;
    bool value = true; /* wanted here; else a comma or an end */

    while (w->p < w->end) {
        w->p = skip(w->p, w->end);
        if (value && w->p < w->end && *w->p == '[') {
            TRM_CHECK(open_list(w, &depth));
            w->p = skip(w->p, w->end);
            value = w->p == w->end || *w->p != ']'; /* an empty list may end at once */
            continue;
        }
        if (value && depth > 0 && w->p < w->end) {
            TRM_CHECK(at_element(w, depth));
            w->counts[depth - 1]++;
            value = false;
            continue;
        }
        if (!value && w->p < w->end && *w->p == ',') {
            w->p++;
            value = true;
            continue;
        }
        if (value || w->p == w->end || *w->p != ']')
            return refuse(w, w->p, "a comma or the end of a list");
        w->p++;
        TRM_CHECK(close_list(w, depth));
        if (--depth == 0)
            return w->p == w->end ? TRM_OK : refuse(w, w->p, "nothing more");
        w->counts[depth - 1]++;
    }
    return trm_fail(TRM_ERR_INVALID_ARG, "%s: a list does not end", w->what);
}

/* ---- elements into a tensor ---- */

static const struct range {
    int64_t low;
    uint64_t high;
} ranges[TRM_DTYPE_COUNT] = {
    [TRM_DTYPE_I8] = {INT8_MIN, INT8_MAX},    [TRM_DTYPE_U8] = {0, UINT8_MAX},
    [TRM_DTYPE_I16] = {INT16_MIN, INT16_MAX}, [TRM_DTYPE_U16] = {0, UINT16_MAX},
    [TRM_DTYPE_I32] = {INT32_MIN, INT32_MAX}, [TRM_DTYPE_U32] = {0, UINT32_MAX},
    [TRM_DTYPE_I64] = {INT64_MIN, INT64_MAX}, [TRM_DTYPE_U64] = {0, UINT64_MAX},
};

static trm_status to_integer(struct walker *w, const struct token *k, trm_tensor *t)
{
    const struct range *r = &ranges[t->dtype];
    uint64_t low = (uint64_t) - (r->low + (r->low < 0)) + (r->low < 0), u = k->digits;
    unsigned char *at = (unsigned char *)t->data + w->elems * trm_dtype_bytes(t->dtype);

    if (k->kind != NUMBER || !k->integer)
        return refuse(w, k->text, "an integer");
    if (!k->exact || k->exponent != 0 || u > (k->negative ? low : r->high)) {
        char want[64];

        snprintf(want, sizeof(want), "%" PRId64 " to %" PRIu64, r->low, r->high);
        return refuse(w, k->text, want);
    }
    if (k->negative)
        u = 0 - u;
    memcpy(at, &u, trm_dtype_bytes(t->dtype)); /* little-endian: the low bytes come first */
    return TRM_OK;
}

static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* Rounded once. Short numbers by one exact multiplication or division (Clinger, "How to read
 * floating point numbers accurately", 1990); strtod stops at the delimiter that is behind every
 * element. */
static double to_double(const struct token *k)
{
    if (k->exact && k->digits <= (uint64_t)1 << 53 && k->exponent >= -22 && k->exponent <= 22) {
        double d = (double)k->digits;

        d = k->exponent < 0 ? d / powers[-k->exponent] : d * powers[k->exponent];
        return k->negative ? -d : d;
    }
    return strtod(k->text, NULL);
}

/* As well: rounding the double again is right unless it lies just between two floats. */
static float to_float(const struct token *k)
{
    double d = to_double(k);
    uint64_t bits;

    memcpy(&bits, &d, sizeof(bits));
    if ((bits & 0x1fffffffu) == 0x10000000u || fabs(d) < 0x1p-126)
        return strtof(k->text, NULL);
    return (float)d;
}

static trm_status to_real(struct walker *w, const struct token *k, trm_tensor *t)
{
    unsigned char *at = (unsigned char *)t->data + w->elems * trm_dtype_bytes(t->dtype);
    double d = 0;
    float f = 0;
    uint16_t h = 0;
    bool fits = true;

    if (k->kind == TRUE_OR_FALSE)
        return refuse(w, k->text, "a number");
    if (k->kind == NOT_FINITE) {
        d = *k->text == 'N' ? NAN : *k->text == '-' ? -INFINITY : INFINITY;
        f = (float)d;
    } else if (t->dtype == TRM_DTYPE_F32 || t->dtype == TRM_DTYPE_BF16) {
        f = to_float(k);
        fits = isfinite(f);
    } else {
        d = to_double(k);
        fits = isfinite(d);
    }
    switch (t->dtype) {
    case TRM_DTYPE_F32:
        memcpy(at, &f, sizeof(f));
        break;
    case TRM_DTYPE_F64:
        memcpy(at, &d, sizeof(d));
        break;
    case TRM_DTYPE_F16:
        h = trm_f64_to_f16(d);
        fits = fits && (k->kind == NOT_FINITE || isfinite(trm_f16_to_f32(h)));
        memcpy(at, &h, sizeof(h));
        break;
    default:
        h = trm_f32_to_bf16(f);
        fits = fits && (k->kind == NOT_FINITE || isfinite(trm_bf16_to_f32(h)));
        memcpy(at, &h, sizeof(h));
    }
    return fits ? TRM_OK : refuse(w, k->text, "a number that the datatype can hold");
}

static trm_status to_bool(struct walker *w, const struct token *k, trm_tensor *t)
{
    unsigned char *at = (unsigned char *)t->data + w->elems;

    if (k->kind == TRUE_OR_FALSE)
        *at = *k->text == 't';
    else if (k->kind == NUMBER && k->integer && k->exact && k->digits <= 1 && !k->negative)
        *at = (unsigned char)k->digits;
    else
        return refuse(w, k->text, "true or false");
    return TRM_OK;
}

struct filling {
    trm_tensor *t;
    size_t elems; /* of its shape */
};

static trm_status fill(struct walker *w, const struct token *k)
{
    struct filling *f = w->ctx;

    if (w->elems == f->elems)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: more than %zu elements, which its shape has",
                        w->what, f->elems);
    if (f->t->dtype == TRM_DTYPE_BOOL)
        return to_bool(w, k, f->t);
    return trm_dtype_is_float(f->t->dtype) ? to_real(w, k, f->t) : to_integer(w, k, f->t);
}

trm_status trmi_list_read(const char *what, const trmi_list *list, trm_tensor *t)
{
    struct filling f = {.t = t};
    struct walker w = {.what = what,
                       .p = list->begin,
                       .end = list->end,
                       .shape_rank = t->rank,
                       .element = fill,
                       .ctx = &f};

    TRM_CHECK(trm_tensor_elems(t, &f.elems));
    for (int i = 0; i < t->rank; i++)
        w.dims[i] = t->dims[i];
    TRM_CHECK(walk(&w));
    if (w.elems != f.elems)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: %zu elements, its shape has %zu", what, w.elems,
                        f.elems);
    return TRM_OK;
}

/* ---- measuring ---- */

struct kinds {
    bool fraction, integer, boolean;
};

static trm_status note(struct walker *w, const struct token *k)
{
    struct kinds *kinds = w->ctx;

    if (k->kind == TRUE_OR_FALSE)
        kinds->boolean = true;
    else if (k->kind == NUMBER && k->integer && k->exact && k->digits <= INT64_MAX)
        kinds->integer = true;
    else
        kinds->fraction = true;
    return TRM_OK;
}

trm_status trmi_list_measure(const char *what, const trmi_list *list, trm_tensor *t)
{
    struct kinds kinds = {0};
    struct walker w = {.what = what,
                       .p = list->begin,
                       .end = list->end,
                       .shape_rank = -1,
                       .element = note,
                       .ctx = &kinds};

    for (int i = 0; i < TRM_RANK_MAX; i++)
        w.dims[i] = -1;
    TRM_CHECK(walk(&w));
    if (w.elems == 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: no numbers in it", what);
    if (kinds.boolean && (kinds.fraction || kinds.integer))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: numbers and true or false beside each other",
                        what);
    memset(t, 0, sizeof(*t));
    t->dtype = kinds.boolean ? TRM_DTYPE_BOOL : kinds.fraction ? TRM_DTYPE_F32 : TRM_DTYPE_I64;
    t->rank = w.leaf;
    memcpy(t->dims, w.dims, sizeof(t->dims));
    return TRM_OK;
}
