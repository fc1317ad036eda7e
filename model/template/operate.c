/* + - * / // % ** with Python's rules; integers have 64 bits, beyond them is UNSUPPORTED. */
#include "model/template/template_impl.h"

#include <math.h>
#include <string.h>

static trm_status too_large(void)
{
    return trm_fail(TRM_ERR_UNSUPPORTED, "an integer is beyond 64 bits");
}

static trm_status by_zero(void)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "division by zero");
}

static trm_status int_power(int64_t a, int64_t b, trmi_value *out)
{
    int64_t result = 1;

    if (b < 0) {
        if (a == 0)
            return by_zero();
        *out = trmi_float(pow((double)a, (double)b));
        return TRM_OK;
    }
    if (a == 0 || a == 1 || a == -1) {
        *out = trmi_int(b == 0 ? 1 : a == -1 && b % 2 == 0 ? 1 : a);
        return TRM_OK;
    }
    for (; b > 0; b--) /* at most 64 times: |a| is 2 or more */
        if (__builtin_mul_overflow(result, a, &result))
            return too_large();
    *out = trmi_int(result);
    return TRM_OK;
}

static trm_status int_divide(int op, int64_t a, int64_t b, trmi_value *out)
{
    int64_t quotient, rest;

    if (b == 0)
        return by_zero();
    if (op == TRMI_TOK_DIV) {
        *out = trmi_float((double)((long double)a / (long double)b));
        return TRM_OK;
    }
    if (b == -1) { /* INT64_MIN / -1 */
        if (op == TRMI_TOK_FLOORDIV && a == INT64_MIN)
            return too_large();
        *out = trmi_int(op == TRMI_TOK_FLOORDIV ? -a : 0);
        return TRM_OK;
    }
    quotient = a / b;
    rest = a % b;
    if (rest != 0 && (rest < 0) != (b < 0)) {
        quotient--;
        rest += b;
    }
    *out = trmi_int(op == TRMI_TOK_FLOORDIV ? quotient : rest);
    return TRM_OK;
}

static trm_status operate_ints(int op, int64_t a, int64_t b, trmi_value *out)
{
    int64_t result = 0;
    bool over;

    switch (op) {
    case TRMI_TOK_ADD:
        over = __builtin_add_overflow(a, b, &result);
        break;
    case TRMI_TOK_SUB:
        over = __builtin_sub_overflow(a, b, &result);
        break;
    case TRMI_TOK_MUL:
        over = __builtin_mul_overflow(a, b, &result);
        break;
    case TRMI_TOK_POW:
        return int_power(a, b, out);
    default:
        return int_divide(op, a, b, out);
    }
    *out = trmi_int(result);
    return over ? too_large() : TRM_OK;
}

/* CPython's float_divmod */
static double floor_divide(double a, double b, double *rest)
{
    double mod = fmod(a, b), div = (a - mod) / b, whole;

    if (mod != 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            div -= 1;
        }
    } else {
        mod = copysign(0, b);
    }
    *rest = mod;
    if (div == 0)
        return copysign(0, a / b);
    whole = floor(div);
    return div - whole > 0.5 ? whole + 1 : whole;
}

static trm_status operate_reals(int op, double a, double b, trmi_value *out)
{
    double rest = 0;

    switch (op) {
    case TRMI_TOK_ADD:
        *out = trmi_float(a + b);
        return TRM_OK;
    case TRMI_TOK_SUB:
        *out = trmi_float(a - b);
        return TRM_OK;
    case TRMI_TOK_MUL:
        *out = trmi_float(a * b);
        return TRM_OK;
    case TRMI_TOK_POW:
        if (a == 0 && b < 0)
            return by_zero();
        if (a < 0 && isfinite(b) && b != floor(b))
            return trm_fail(TRM_ERR_UNSUPPORTED, "a root of a negative number is complex");
        if (isfinite(a) && isfinite(b) && isinf(pow(a, b)))
            return trm_fail(TRM_ERR_INVALID_ARG, "numerical result out of range");
        *out = trmi_float(pow(a, b));
        return TRM_OK;
    default:
        break;
    }
    if (b == 0)
        return by_zero();
    if (op == TRMI_TOK_DIV) {
        *out = trmi_float(a / b);
        return TRM_OK;
    }
    b = floor_divide(a, b, &rest);
    *out = trmi_float(op == TRMI_TOK_FLOORDIV ? b : rest);
    return TRM_OK;
}

static trm_status join_lists(trmi_run *r, trmi_value a, trmi_value b, trmi_value *out)
{
    const trmi_list *parts[2] = {a.as.list, b.as.list};
    trmi_list *list;
    void *block;
    size_t n = parts[0]->count + parts[1]->count;

    TRM_CHECK(trmi_make_list(r, a.kind, out));
    list = out->as.list;
    TRM_CHECK(trmi_alloc(r, n, sizeof(*list->items), &block));
    list->items = block;
    list->count = list->room = n;
    for (int i = 0; i < 2; i++)
        if (parts[i]->count > 0)
            memcpy(list->items + (i == 0 ? 0 : parts[0]->count), parts[i]->items,
                   parts[i]->count * sizeof(*list->items));
    return TRM_OK;
}

static trm_status join_text(trmi_run *r, trmi_value a, trmi_value b, trmi_value *out)
{
    if (!a.as.string->markup && !b.as.string->markup)
        return trmi_join_strings(r, a.as.string, b.as.string, out);
    TRM_CHECK(trmi_escape(r, a, &a));
    TRM_CHECK(trmi_escape(r, b, &b));
    TRM_CHECK(trmi_join_strings(r, a.as.string, b.as.string, out));
    out->as.string->markup = true;
    return TRM_OK;
}

static trm_status repeat(trmi_run *r, trmi_value of, int64_t times, trmi_value *out)
{
    bool text = of.kind == TRMI_V_STRING;
    size_t unit = text ? of.as.string->bytes : of.as.list->count * sizeof(trmi_value);
    size_t n = times > 0 ? (size_t)times : 0, bytes = 0;
    const void *from = text ? (const void *)of.as.string->data : of.as.list->items;
    void *block;

    if (unit == 0)
        n = 0;
    if (!trm_mul_ok(n, unit, &bytes) || bytes > TRMI_TEMPLATE_BYTES_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a repetition is over %zu bytes",
                        TRMI_TEMPLATE_BYTES_MAX);
    TRM_CHECK(trmi_alloc(r, bytes + 1, 1, &block));
    for (size_t i = 0; i < n; i++)
        memcpy((char *)block + i * unit, from, unit);
    if (text) {
        TRM_CHECK(trmi_borrow_string(r, block, bytes, out));
        out->as.string->markup = of.as.string->markup;
        return TRM_OK;
    }
    TRM_CHECK(trmi_make_list(r, of.kind, out));
    out->as.list->items = block;
    out->as.list->count = out->as.list->room = bytes / sizeof(trmi_value);
    return TRM_OK;
}

static bool is_sequence(trmi_value v)
{
    return v.kind == TRMI_V_STRING || v.kind == TRMI_V_LIST || v.kind == TRMI_V_TUPLE;
}

static const char *op_text(int op)
{
    switch (op) {
    case TRMI_TOK_ADD:
        return "+";
    case TRMI_TOK_SUB:
        return "-";
    case TRMI_TOK_MUL:
        return "*";
    case TRMI_TOK_DIV:
        return "/";
    case TRMI_TOK_FLOORDIV:
        return "//";
    case TRMI_TOK_MOD:
        return "%";
    default:
        return "**";
    }
}

trm_status trmi_operate(trmi_run *r, int op, trmi_value a, trmi_value b, trmi_value *out)
{
    if (op == TRMI_TOK_ADD && a.kind == TRMI_V_STRING && b.kind == TRMI_V_STRING)
        return join_text(r, a, b, out);
    if (trmi_is_number(a) && trmi_is_number(b)) {
        if (trmi_is_int(a) && trmi_is_int(b))
            return operate_ints(op, trmi_as_int(a), trmi_as_int(b), out);
        return operate_reals(op, trmi_as_real(a), trmi_as_real(b), out);
    }
    if (op == TRMI_TOK_MOD && a.kind == TRMI_V_STRING && a.as.string->markup)
        return trm_fail(TRM_ERR_UNSUPPORTED, "formatting of text that is escaped or safe");
    if (op == TRMI_TOK_MOD && a.kind == TRMI_V_STRING)
        return trmi_format_percent(r, a.as.string, b, out);
    if (a.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, a);
    if (b.kind == TRMI_V_UNDEFINED)
        return trmi_fail_undefined(r, b);
    if (op == TRMI_TOK_ADD && (a.kind == TRMI_V_LIST || a.kind == TRMI_V_TUPLE) && a.kind == b.kind)
        return join_lists(r, a, b, out);
    if (op == TRMI_TOK_MUL && is_sequence(a) && trmi_is_int(b))
        return repeat(r, a, trmi_as_int(b), out);
    if (op == TRMI_TOK_MUL && trmi_is_int(a) && is_sequence(b))
        return repeat(r, b, trmi_as_int(a), out);
    if (op == TRMI_TOK_ADD && is_sequence(a))
        return trm_fail(TRM_ERR_INVALID_ARG, "can only concatenate %s (not \"%s\") to %s",
                        trmi_type_name(a), trmi_type_name(b), trmi_type_name(a));
    return trm_fail(TRM_ERR_INVALID_ARG, "unsupported operand type(s) for %s: '%s' and '%s'",
                    op_text(op), trmi_type_name(a), trmi_type_name(b));
}
