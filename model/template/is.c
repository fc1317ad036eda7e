/* Tests: what stands after `is`, and in select and its kin. */
#include "model/template/template_impl.h"

#include <string.h>

static trm_status none_taken(trmi_run *r, const trmi_call *call)
{
    return trmi_template_bind(r, call, "", 0, NULL);
}

/* Tests of the kind alone. */
#define KIND_TEST(function, condition)                                                             \
    static trm_status function(trmi_run *r, trmi_value v, const trmi_call *call, bool *out)        \
    {                                                                                              \
        *out = (condition);                                                                        \
        return none_taken(r, call);                                                                \
    }
KIND_TEST(is_defined, v.kind != TRMI_V_UNDEFINED)
KIND_TEST(is_undefined, v.kind == TRMI_V_UNDEFINED)
KIND_TEST(is_none, v.kind == TRMI_V_NONE)
KIND_TEST(is_boolean, v.kind == TRMI_V_BOOL)
KIND_TEST(is_true, v.kind == TRMI_V_BOOL && v.as.truth)
KIND_TEST(is_false, v.kind == TRMI_V_BOOL && !v.as.truth)
KIND_TEST(is_integer, v.kind == TRMI_V_INT)
KIND_TEST(is_float, v.kind == TRMI_V_FLOAT)
KIND_TEST(is_number, trmi_is_number(v))
KIND_TEST(is_string, v.kind == TRMI_V_STRING)
KIND_TEST(is_mapping, v.kind == TRMI_V_DICT)
KIND_TEST(is_sequence, v.kind == TRMI_V_STRING || v.kind == TRMI_V_LIST || v.kind == TRMI_V_TUPLE ||
                           v.kind == TRMI_V_DICT || v.kind == TRMI_V_RANGE ||
                           v.kind == TRMI_V_UNDEFINED)
KIND_TEST(is_iterable, v.kind == TRMI_V_STRING || v.kind == TRMI_V_LIST || v.kind == TRMI_V_TUPLE ||
                           v.kind == TRMI_V_DICT || v.kind == TRMI_V_RANGE ||
                           v.kind == TRMI_V_VIEW || v.kind == TRMI_V_GENERATOR ||
                           v.kind == TRMI_V_LOOP || v.kind == TRMI_V_UNDEFINED)
KIND_TEST(is_callable, v.kind == TRMI_V_METHOD || v.kind == TRMI_V_FUNCTION ||
                           v.kind == TRMI_V_MACRO || v.kind == TRMI_V_LOOP ||
                           v.kind == TRMI_V_JOINER || v.kind == TRMI_V_UNDEFINED)
KIND_TEST(is_escaped, v.kind == TRMI_V_STRING && v.as.string->markup)

static trm_status remainder_is(trmi_run *r, trmi_value v, trmi_value by, int64_t wanted, bool *out)
{
    trmi_value rest;

    TRM_CHECK(trmi_operate(r, TRMI_TOK_MOD, v, by, &rest));
    return trmi_equal(r, rest, trmi_int(wanted), out);
}

static trm_status is_odd(trmi_run *r, trmi_value v, const trmi_call *call, bool *out)
{
    TRM_CHECK(none_taken(r, call));
    return remainder_is(r, v, trmi_int(2), 1, out);
}

static trm_status is_even(trmi_run *r, trmi_value v, const trmi_call *call, bool *out)
{
    TRM_CHECK(none_taken(r, call));
    return remainder_is(r, v, trmi_int(2), 0, out);
}

static trm_status is_divisible(trmi_run *r, trmi_value v, const trmi_call *call, bool *out)
{
    trmi_value by;

    TRM_CHECK(trmi_template_bind(r, call, "num", 1, &by));
    return remainder_is(r, v, by, 0, out);
}

static trm_status by_method(trmi_run *r, trmi_value v, const char *name, const trmi_call *call,
                            bool *out)
{
    trmi_string named = {name, strlen(name), SIZE_MAX, NULL, false};
    trmi_value s, yes;

    s.kind = TRMI_V_STRING;
    TRM_CHECK(trmi_to_string(r, v, &s.as.string));
    TRM_CHECK(trmi_find_method(s, &named)->apply(r, s, call, &yes));
    *out = yes.as.truth;
    return TRM_OK;
}

static trm_status is_lower(trmi_run *r, trmi_value v, const trmi_call *call, bool *out)
{
    return by_method(r, v, "islower", call, out);
}

static trm_status is_upper(trmi_run *r, trmi_value v, const trmi_call *call, bool *out)
{
    return by_method(r, v, "isupper", call, out);
}

static trm_status is_filter(trmi_run *r, trmi_value v, const trmi_call *call, bool *out)
{
    TRM_CHECK(none_taken(r, call));
    *out =
        v.kind == TRMI_V_STRING && trmi_find_filter(v.as.string->data, v.as.string->bytes) != NULL;
    return TRM_OK;
}

static trm_status is_test(trmi_run *r, trmi_value v, const trmi_call *call, bool *out)
{
    TRM_CHECK(none_taken(r, call));
    *out = v.kind == TRMI_V_STRING && trmi_find_test(v.as.string->data, v.as.string->bytes) != NULL;
    return TRM_OK;
}

static trm_status is_same(trmi_run *r, trmi_value v, const trmi_call *call, bool *out)
{
    trmi_value other;

    TRM_CHECK(trmi_template_bind(r, call, "other", 1, &other));
    *out = false;
    if (v.kind != other.kind)
        return TRM_OK;
    switch (v.kind) {
    case TRMI_V_NONE:
        *out = true;
        return TRM_OK;
    case TRMI_V_BOOL:
    case TRMI_V_INT: /* small ones are one object in Python */
        return trmi_equal(r, v, other, out);
    case TRMI_V_FLOAT:
        return TRM_OK;
    default:
        *out = v.as.list == other.as.list;
        return TRM_OK;
    }
}

#define COMPARE_TEST(function, op)                                                                 \
    static trm_status function(trmi_run *r, trmi_value v, const trmi_call *call, bool *out)        \
    {                                                                                              \
        trmi_value other;                                                                          \
                                                                                                   \
        TRM_CHECK(trmi_template_bind(r, call, "other", 1, &other));                                \
        return trmi_compare(r, (op), v, other, out);                                               \
    }
COMPARE_TEST(is_eq, TRMI_TOK_EQ)
COMPARE_TEST(is_ne, TRMI_TOK_NE)
COMPARE_TEST(is_gt, TRMI_TOK_GT)
COMPARE_TEST(is_ge, TRMI_TOK_GE)
COMPARE_TEST(is_lt, TRMI_TOK_LT)
COMPARE_TEST(is_le, TRMI_TOK_LE)
COMPARE_TEST(is_in, TRMI_TOK_IN)

const trmi_test *trmi_find_test(const char *name, size_t bytes)
{
    static const trmi_test tests[] = {
        {"defined", is_defined},
        {"undefined", is_undefined},
        {"none", is_none},
        {"string", is_string},
        {"mapping", is_mapping},
        {"iterable", is_iterable},
        {"sequence", is_sequence},
        {"boolean", is_boolean},
        {"true", is_true},
        {"false", is_false},
        {"integer", is_integer},
        {"float", is_float},
        {"number", is_number},
        {"callable", is_callable},
        {"escaped", is_escaped},
        {"odd", is_odd},
        {"even", is_even},
        {"divisibleby", is_divisible},
        {"lower", is_lower},
        {"upper", is_upper},
        {"filter", is_filter},
        {"test", is_test},
        {"sameas", is_same},
        {"in", is_in},
        {"eq", is_eq},
        {"equalto", is_eq},
        {"==", is_eq},
        {"ne", is_ne},
        {"!=", is_ne},
        {"gt", is_gt},
        {"greaterthan", is_gt},
        {">", is_gt},
        {"ge", is_ge},
        {">=", is_ge},
        {"lt", is_lt},
        {"lessthan", is_lt},
        {"<", is_lt},
        {"le", is_le},
        {"<=", is_le},
    };

    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        if (strlen(tests[i].name) == bytes && memcmp(tests[i].name, name, bytes) == 0)
            return &tests[i];
    return NULL;
}
