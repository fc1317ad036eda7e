/* Unary operators on the CUDA device against the CPU's: every function in every dtype, special
 * values, layouts, Clip's limits, and what is refused. Functions of several operands:
 * test_elementwise_many.c. */
#include "tests/cuda/cuda_kit.h"

static const trm_dtype floats[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64};
static const trm_dtype ints[] = {TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16, TRM_DTYPE_U16,
                                 TRM_DTYPE_I32, TRM_DTYPE_U32, TRM_DTYPE_I64, TRM_DTYPE_U64};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* exact: nothing is rounded but by the dtype. Others: the CPU's vector functions and CUDA's are
 * both within 2 ulp, and what they feed may cancel against 1 (atol). 16-bit floats: one rounding.
 */
static void tolerate(cuda_case *c, trm_dtype dtype, bool exact)
{
    c->as_f32 = true;
    c->rtol = dtype == TRM_DTYPE_F32 ? 2e-6 : dtype == TRM_DTYPE_F64 ? 1e-13 : 0;
    c->atol = dtype == TRM_DTYPE_F32 ? 3e-7 : dtype == TRM_DTYPE_F64 ? 1e-15 : 0;
    if (exact)
        c->rtol = c->atol = 0;
    if (dtype == TRM_DTYPE_F16) {
        c->rtol = 0x1p-11 + 2e-6;
        c->atol = 3.5e-7; /* subnormals are 6e-8 apart */
    } else if (dtype == TRM_DTYPE_BF16) {
        c->rtol = 0x1p-8 + 2e-6;
        c->atol = 3e-7;
    }
}

static const struct unary_row {
    const char *name;
    trm_op op;
    double lo, hi;
    bool exact;
    const char *attr[2];
    float value[2];
} unary_rows[] = {
    {"Abs", TRM_OP_Abs, -6, 6, true, {0}, {0}},
    {"Acos", TRM_OP_Acos, -1, 1, false, {0}, {0}},
    {"Acosh", TRM_OP_Acosh, 1, 50, false, {0}, {0}},
    {"Asin", TRM_OP_Asin, -1, 1, false, {0}, {0}},
    {"Asinh", TRM_OP_Asinh, -6, 6, false, {0}, {0}},
    {"Atan", TRM_OP_Atan, -6, 6, false, {0}, {0}},
    {"Atanh", TRM_OP_Atanh, -0.98, 0.98, false, {0}, {0}},
    {"Ceil", TRM_OP_Ceil, -6, 6, true, {0}, {0}},
    {"Celu", TRM_OP_Celu, -6, 6, false, {0}, {0}},
    {"Celu alpha", TRM_OP_Celu, -6, 6, false, {"alpha"}, {2.5f}},
    {"Cos", TRM_OP_Cos, -20, 20, false, {0}, {0}},
    {"Cosh", TRM_OP_Cosh, -6, 6, false, {0}, {0}},
    {"Elu", TRM_OP_Elu, -6, 6, false, {0}, {0}},
    {"Elu alpha", TRM_OP_Elu, -6, 6, false, {"alpha"}, {0.3f}},
    {"Erf", TRM_OP_Erf, -5, 5, false, {0}, {0}},
    {"Exp", TRM_OP_Exp, -6, 6, false, {0}, {0}},
    {"Floor", TRM_OP_Floor, -6, 6, true, {0}, {0}},
    {"Gelu", TRM_OP_Gelu, -6, 6, false, {0}, {0}},
    {"HardSigmoid", TRM_OP_HardSigmoid, -6, 6, false, {0}, {0}},
    {"HardSigmoid numbers", TRM_OP_HardSigmoid, -6, 6, false, {"alpha", "beta"}, {0.3f, 0.1f}},
    {"HardSwish", TRM_OP_HardSwish, -6, 6, false, {0}, {0}},
    {"LeakyRelu", TRM_OP_LeakyRelu, -6, 6, true, {0}, {0}},
    {"LeakyRelu alpha", TRM_OP_LeakyRelu, -6, 6, true, {"alpha"}, {-0.5f}},
    {"Log", TRM_OP_Log, 0.01, 60, false, {0}, {0}},
    {"Mish", TRM_OP_Mish, -6, 30, false, {0}, {0}},
    {"Neg", TRM_OP_Neg, -6, 6, true, {0}, {0}},
    {"Reciprocal", TRM_OP_Reciprocal, 0.1, 6, true, {0}, {0}},
    {"Relu", TRM_OP_Relu, -6, 6, true, {0}, {0}},
    {"Round", TRM_OP_Round, -6, 6, true, {0}, {0}},
    {"Selu", TRM_OP_Selu, -6, 6, false, {0}, {0}},
    {"Selu numbers", TRM_OP_Selu, -6, 6, false, {"alpha", "gamma"}, {1.5f, 0.7f}},
    {"Shrink", TRM_OP_Shrink, -2, 2, true, {0}, {0}},
    {"Shrink numbers", TRM_OP_Shrink, -2, 2, true, {"lambd", "bias"}, {1.0f, 0.25f}},
    {"Sigmoid", TRM_OP_Sigmoid, -10, 10, false, {0}, {0}},
    {"Sign", TRM_OP_Sign, -1, 1, true, {0}, {0}},
    {"Sin", TRM_OP_Sin, -20, 20, false, {0}, {0}},
    {"Sinh", TRM_OP_Sinh, -6, 6, false, {0}, {0}},
    {"Softplus", TRM_OP_Softplus, -30, 30, false, {0}, {0}},
    {"Softsign", TRM_OP_Softsign, -6, 6, false, {0}, {0}},
    {"Sqrt", TRM_OP_Sqrt, 0, 60, true, {0}, {0}},
    {"Swish", TRM_OP_Swish, -6, 6, false, {0}, {0}},
    {"Swish alpha", TRM_OP_Swish, -6, 6, false, {"alpha"}, {1.702f}},
    {"Tan", TRM_OP_Tan, -1.4, 1.4, false, {0}, {0}},
    {"Tanh", TRM_OP_Tanh, -6, 6, false, {0}, {0}},
    {"ThresholdedRelu", TRM_OP_ThresholdedRelu, -3, 3, true, {0}, {0}},
    {"TrmSilu", TRM_OP_TrmSilu, -10, 10, false, {0}, {0}},
};

static cuda_case unary_case(const char *name, trm_op op, trm_tensor in, trm_dtype out_dtype)
{
    cuda_case c = {.name = name, .op = op, .attrs = kit_attrs(), .in_count = 1, .out_count = 1};

    c.in[0] = in;
    c.out[0] = in;
    c.out[0].dtype = out_dtype;
    c.out[0].data = NULL;
    return c;
}

/* 2063: more than a block of threads in vectors of 4 and 8, with a tail */
START_TEST(unary)
{
    static const int64_t sizes[] = {0, 1, 7, 2063};
    const struct unary_row *r = &unary_rows[_i];

    for (size_t d = 0; d < COUNT(floats); d++) {
        for (size_t n = 0; n < COUNT(sizes); n++) {
            trm_tensor x = kit_random(KIT_T(floats[d], sizes[n]), r->lo, r->hi);
            cuda_case c = unary_case(r->name, r->op, x, floats[d]);

            for (int i = 0; i < 2; i++)
                if (r->attr[i] != NULL)
                    kit_float(c.attrs, r->attr[i], r->value[i]);
            tolerate(&c, floats[d], r->exact);
            cuda_check(&c);
        }
    }
}
END_TEST

START_TEST(gelu_tanh)
{
    trm_tensor x = kit_random(KIT_T(floats[_i], 3, 101), -6, 6);
    cuda_case c = unary_case("Gelu tanh", TRM_OP_Gelu, x, floats[_i]);

    kit_string(c.attrs, "approximate", "tanh");
    tolerate(&c, floats[_i], false);
    cuda_check(&c);
}
END_TEST

/* Zeros, halves (ties of Round), infinities, NaN, subnormals, what overflows. */
START_TEST(special_values)
{
    const struct unary_row *r = &unary_rows[_i];

    for (size_t d = 0; d < COUNT(floats); d++) {
        trm_tensor x = KIT_V(KIT_T(floats[d], 19), 0.0, -0.0, 0.5, -0.5, 1.5, -2.5, INFINITY,
                             -INFINITY, NAN, 1e-7, -1e-7, 60000, -60000, 100, -100, 20, -20, 1, -1);
        cuda_case c = unary_case(r->name, r->op, x, floats[d]);

        for (int i = 0; i < 2; i++)
            if (r->attr[i] != NULL)
                kit_float(c.attrs, r->attr[i], r->value[i]);
        tolerate(&c, floats[d], r->exact);
        c.as_f32 = false; /* overflow to infinity is the dtype's */
        cuda_check(&c);
    }
}
END_TEST

static const struct int_row {
    trm_op op;
    bool in_bool;
} int_rows[] = {{TRM_OP_Abs, false},  {TRM_OP_Neg, false},        {TRM_OP_Sign, false},
                {TRM_OP_Relu, false}, {TRM_OP_BitwiseNot, false}, {TRM_OP_Not, true}};

START_TEST(integers)
{
    const struct int_row *r = &int_rows[_i];

    for (size_t d = 0; d < (r->in_bool ? 1 : COUNT(ints)); d++) {
        trm_dtype dtype = r->in_bool ? TRM_DTYPE_BOOL : ints[d];
        trm_tensor x =
            kit_random(KIT_T(dtype, 3, 111), r->in_bool ? 0 : -128, r->in_bool ? 2 : 128);
        cuda_case c;

        if (trm_dtype_is_signed_int(dtype))
            trm_tensor_set_i64(&x, 5, (int64_t)(UINT64_MAX << (8 * trm_dtype_bytes(dtype) - 1)));
        c = unary_case(NULL, r->op, x, dtype);
        cuda_check(&c);
    }
}
END_TEST

START_TEST(classify)
{
    static const struct {
        const char *name;
        trm_op op;
        int negative, positive;
    } rows[] = {{"IsNaN", TRM_OP_IsNaN, 1, 1},
                {"IsInf", TRM_OP_IsInf, 1, 1},
                {"IsInf negative", TRM_OP_IsInf, 1, 0},
                {"IsInf positive", TRM_OP_IsInf, 0, 1},
                {"IsInf neither", TRM_OP_IsInf, 0, 0}};

    for (size_t d = 0; d < COUNT(floats); d++) {
        trm_tensor x = kit_random(KIT_T(floats[d], 531), -1, 1);
        cuda_case c;

        for (size_t i = 0; i < 531; i += 5)
            trm_tensor_set_f64(&x, i, i % 3 == 0 ? NAN : i % 3 == 1 ? INFINITY : -INFINITY);
        c = unary_case(rows[_i].name, rows[_i].op, x, TRM_DTYPE_BOOL);
        kit_int(c.attrs, "detect_negative", rows[_i].negative);
        kit_int(c.attrs, "detect_positive", rows[_i].positive);
        cuda_check(&c);
    }
}
END_TEST

/* Clip: limits that are there, known or computed, and the lower above the upper. */
START_TEST(clip)
{
    static const struct {
        const char *name;
        bool lo, hi, known;
        double low, high;
    } rows[] = {{"no limits", false, false, true, 0, 0},
                {"both, known", true, true, true, 2, 5},
                {"both, at run time", true, true, false, 2, 5},
                {"lower", true, false, true, 3, 0},
                {"upper", false, true, false, 0, 3},
                {"crossed", true, true, true, 5, 2}};

    for (size_t d = 0; d < COUNT(floats) + COUNT(ints); d++) {
        trm_dtype dtype = d < COUNT(floats) ? floats[d] : ints[d - COUNT(floats)];
        trm_tensor x =
            kit_random(KIT_T(dtype, 9, 57), trm_dtype_is_unsigned_int(dtype) ? 0 : -8, 8);
        cuda_case c;

        if (trm_dtype_is_float(dtype))
            trm_tensor_set_f64(&x, 3, NAN);
        c = unary_case(rows[_i].name, TRM_OP_Clip, x, dtype);
        c.in_count = 3;
        if (rows[_i].lo)
            c.in[1] = KIT_V(KIT_T(dtype), rows[_i].low);
        if (rows[_i].hi)
            c.in[2] = KIT_V(KIT_T(dtype, 1), rows[_i].high);
        c.known[1] = c.known[2] = rows[_i].known;
        cuda_check(&c);
    }
}
END_TEST

START_TEST(clip_short_list)
{
    cuda_case c = unary_case("one input", TRM_OP_Clip, kit_random(KIT_T(TRM_DTYPE_F32, 10), -1, 1),
                             TRM_DTYPE_F32);

    cuda_check(&c);
    c.name = "two inputs";
    c.in[c.in_count++] = KIT_V(KIT_T(TRM_DTYPE_F32), 0.25);
    cuda_check(&c);
}
END_TEST

START_TEST(channels_last)
{
    static const trm_op ops[] = {TRM_OP_Relu, TRM_OP_HardSwish, TRM_OP_Floor, TRM_OP_Clip,
                                 TRM_OP_IsNaN};
    trm_tensor x = kit_random(KIT_T(TRM_DTYPE_F32, 2, 5, 3, 7), -4, 4);
    cuda_case c = unary_case("channels last", ops[_i], x,
                             ops[_i] == TRM_OP_IsNaN ? TRM_DTYPE_BOOL : TRM_DTYPE_F32);

    c.arrives[0] = TRM_LAYOUT_CHANNELS_LAST;
    c.rtol = 2e-6;
    cuda_check(&c);
    ck_assert_int_eq(c.wanted[0], TRM_LAYOUT_CHANNELS_LAST);
    ck_assert_int_eq(c.gave[0], TRM_LAYOUT_CHANNELS_LAST);
}
END_TEST

START_TEST(refused)
{
    static const struct {
        const char *name;
        trm_op op;
        trm_dtype in, out;
        trm_status want;
    } rows[] = {
        {"Not of f32", TRM_OP_Not, TRM_DTYPE_F32, TRM_DTYPE_F32, TRM_ERR_UNSUPPORTED},
        {"BitwiseNot of f16", TRM_OP_BitwiseNot, TRM_DTYPE_F16, TRM_DTYPE_F16, TRM_ERR_UNSUPPORTED},
        {"BitwiseNot of bool", TRM_OP_BitwiseNot, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL,
         TRM_ERR_UNSUPPORTED},
        {"Exp of i32", TRM_OP_Exp, TRM_DTYPE_I32, TRM_DTYPE_I32, TRM_ERR_UNSUPPORTED},
        {"Abs of bool", TRM_OP_Abs, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL, TRM_ERR_UNSUPPORTED},
        {"Clip of bool", TRM_OP_Clip, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL, TRM_ERR_UNSUPPORTED},
        {"IsNaN of i8", TRM_OP_IsNaN, TRM_DTYPE_I8, TRM_DTYPE_BOOL, TRM_ERR_UNSUPPORTED},
    };
    cuda_case c = unary_case(rows[_i].name, rows[_i].op, kit_random(KIT_T(rows[_i].in, 4), 0, 1),
                             rows[_i].out);

    c.want_prepare = rows[_i].want;
    cuda_check(&c);
}
END_TEST

START_TEST(refused_more)
{
    trm_tensor x = kit_random(KIT_T(TRM_DTYPE_F32, 4), 0, 1);
    cuda_case c = unary_case("post-op", TRM_OP_Relu, x, TRM_DTYPE_F32);

    c.want_prepare = TRM_ERR_UNSUPPORTED;
    c.posts[0] = (trm_post){.op = TRM_OP_Tanh, .input = -1};
    c.post_count = 1;
    cuda_check(&c);
    c = unary_case("limit of another dtype", TRM_OP_Clip, x, TRM_DTYPE_F32);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    c.in[c.in_count++] = KIT_V(KIT_T(TRM_DTYPE_F64), 0.25);
    cuda_check(&c);
    c = unary_case("two limits in one", TRM_OP_Clip, x, TRM_DTYPE_F32);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    c.in[c.in_count++] = KIT_V(KIT_T(TRM_DTYPE_F32, 2), 0.25, 0.5);
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("elementwise");

    tcase_add_loop_test(t, unary, 0, (int)COUNT(unary_rows));
    tcase_add_loop_test(t, gelu_tanh, 0, (int)COUNT(floats));
    tcase_add_loop_test(t, special_values, 0, (int)COUNT(unary_rows));
    tcase_add_loop_test(t, integers, 0, (int)COUNT(int_rows));
    tcase_add_loop_test(t, classify, 0, 5);
    tcase_add_loop_test(t, clip, 0, 6);
    tcase_add_test(t, clip_short_list);
    tcase_add_loop_test(t, channels_last, 0, 5);
    tcase_add_loop_test(t, refused, 0, 7);
    tcase_add_test(t, refused_more);
    return kit_main("elementwise", t);
}
