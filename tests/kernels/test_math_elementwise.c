/* Elementwise kernels against the scalar reference, known values, broadcasts, edges. */
#include "tests/kernels/math_harness.h"

#include "kernels/reference/elementwise.h"

static const struct {
    trm_op op;
    double lo, hi, tol;
    const char *attr; /* a float attribute, or NULL */
    float value;
    double a, b; /* the reference's numbers */
} unaries[] = {
    {TRM_OP_Abs, -5, 5, 0, NULL, 0, 0, 0},
    {TRM_OP_Acos, -1, 1, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Acosh, 1, 50, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Asin, -1, 1, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Asinh, -50, 50, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Atan, -50, 50, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Atanh, -0.99, 0.99, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Ceil, -50, 50, 0, NULL, 0, 0, 0},
    {TRM_OP_Celu, -10, 10, 3e-7, "alpha", 2.0f, 2.0, 0},
    {TRM_OP_Cos, -50, 50, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Cosh, -10, 10, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Elu, -10, 10, 3e-7, "alpha", 0.5f, 0.5, 0},
    {TRM_OP_Erf, -6, 6, 3e-7, NULL, 0, 0, 0},
    {TRM_OP_Exp, -110, 88, 3e-7, NULL, 0, 0, 0},
    {TRM_OP_Floor, -50, 50, 0, NULL, 0, 0, 0},
    {TRM_OP_Gelu, -8, 8, 5e-7, NULL, 0, 0, 0},
    {TRM_OP_HardSigmoid, -8, 8, 3e-7, "alpha", 0.25f, 0.25, 0.5},
    {TRM_OP_HardSwish, -8, 8, 5e-7, NULL, 0, 1.0 / 6.0, 0.5},
    {TRM_OP_LeakyRelu, -8, 8, 1e-7, "alpha", 0.25f, 0.25, 0},
    {TRM_OP_Log, 1e-30, 1e3, 3e-7, NULL, 0, 0, 0},
    {TRM_OP_Mish, -30, 30, 5e-7, NULL, 0, 0, 0},
    {TRM_OP_Neg, -30, 30, 0, NULL, 0, 0, 0},
    {TRM_OP_Reciprocal, 0.1, 30, 1e-7, NULL, 0, 0, 0},
    {TRM_OP_Relu, -30, 30, 0, NULL, 0, 0, 0},
    {TRM_OP_Round, -30, 30, 0, NULL, 0, 0, 0},
    {TRM_OP_Selu, -10, 10, 5e-7, NULL, 0, 1.67326319217681884765625, 1.05070102214813232421875},
    {TRM_OP_Shrink, -2, 2, 1e-7, "bias", 0.25f, 0.5, 0.25},
    {TRM_OP_Sigmoid, -100, 100, 3e-7, NULL, 0, 0, 0},
    {TRM_OP_Sign, -2, 2, 0, NULL, 0, 0, 0},
    {TRM_OP_Sin, -50, 50, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Sinh, -10, 10, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Softplus, -100, 100, 3e-7, NULL, 0, 0, 0},
    {TRM_OP_Softsign, -100, 100, 2e-7, NULL, 0, 0, 0},
    {TRM_OP_Sqrt, 0, 100, 1e-7, NULL, 0, 0, 0},
    {TRM_OP_Swish, -100, 100, 5e-7, "alpha", 0.5f, 0.5, 0},
    {TRM_OP_Tan, -1.5, 1.5, 1e-6, NULL, 0, 0, 0},
    {TRM_OP_Tanh, -12, 12, 3e-7, NULL, 0, 0, 0},
    {TRM_OP_ThresholdedRelu, -2, 2, 0, "alpha", 0.5f, 0.5, 0},
    {TRM_OP_TrmSilu, -100, 100, 5e-7, NULL, 0, 0, 0},
};

START_TEST(unary_against_reference)
{
    static const int64_t sizes[] = {0, 1, 15, 17, 1000, 40000};
    static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F64, TRM_DTYPE_F16, TRM_DTYPE_BF16};
    const char *name = trm_op_get(unaries[_i].op)->name;
    trm_reference_unary f = trm_reference_unary_get(unaries[_i].op, false);
    trm_attrs *attrs = h_attrs();

    if (unaries[_i].attr != NULL)
        h_float(attrs, unaries[_i].attr, unaries[_i].value);
    for (size_t d = 0; d < 4; d++)
        for (size_t s = 0; s < 6; s++) {
            trm_dtype t = dtypes[d];
            trm_tensor x = H_TENSOR(t, sizes[s]);
            trm_tensor y = x;
            double tol = t == TRM_DTYPE_F16 ? 1e-3 : t == TRM_DTYPE_BF16 ? 8e-3 : unaries[_i].tol;
            double lo = unaries[_i].lo, hi = unaries[_i].hi;

            if (t == TRM_DTYPE_F16 && unaries[_i].op == TRM_OP_Exp)
                hi = 10;
            h_random(x, lo, hi);
            if (t == TRM_DTYPE_F64)
                tol = fmax(tol, 1e-6) * 0.1; /* attributes are floats */
            y.data = NULL;
            h_ok(unaries[_i].op, attrs, &x, 1, &y, 1);
            for (size_t i = 0; i < trm_tensor_numel(&x); i++)
                h_near(&y, i, f(trm_tensor_get_f64(&x, i), unaries[_i].a, unaries[_i].b, 0),
                       tol == 0 ? 0 : tol, tol, name);
        }
}
END_TEST

START_TEST(special_values)
{
    trm_tensor x =
        H_FILL(H_TENSOR(TRM_DTYPE_F32, 8), NAN, INFINITY, -INFINITY, 0, 1e-40, 100, -100, -0.0);
    trm_tensor y = x;

#define SPECIAL(op, ...)                                                                           \
    y.data = NULL;                                                                                 \
    h_ok(op, NULL, &x, 1, &y, 1);                                                                  \
    H_WANT(y, 3e-7, __VA_ARGS__)
    SPECIAL(TRM_OP_Exp, NAN, INFINITY, 0, 1, 1, INFINITY, 3.7835e-44, 1);
    SPECIAL(TRM_OP_Log, NAN, INFINITY, NAN, -INFINITY, log((double)1e-40f), log(100), NAN,
            -INFINITY);
    SPECIAL(TRM_OP_Tanh, NAN, 1, -1, 0, 1e-40, 1, -1, 0);
    SPECIAL(TRM_OP_Erf, NAN, 1, -1, 0, 1.128e-40, 1, -1, 0);
    SPECIAL(TRM_OP_Sigmoid, NAN, 1, 0, 0.5, 0.5, 1, 3.7835e-44, 0.5);
    SPECIAL(TRM_OP_Softplus, NAN, INFINITY, 0, log(2), log(2), 100, 3.7835e-44, log(2));
    SPECIAL(TRM_OP_Relu, NAN, INFINITY, 0, 0, 1e-40, 100, 0, 0);
    y.dtype = TRM_DTYPE_BOOL;
    SPECIAL(TRM_OP_IsNaN, 1, 0, 0, 0, 0, 0, 0, 0);
    SPECIAL(TRM_OP_IsInf, 0, 1, 1, 0, 0, 0, 0, 0);
    y.data = NULL;
    h_ok(TRM_OP_IsInf, h_int(h_attrs(), "detect_negative", 0), &x, 1, &y, 1);
    H_WANT(y, 0, 0, 1, 0, 0, 0, 0, 0, 0);
    x = H_FILL(H_TENSOR(TRM_DTYPE_F32, 6), 0.5, 1.5, 2.5, -0.5, -1.5, -2.5);
    y = x;
    SPECIAL(TRM_OP_Round, 0, 2, 2, 0, -2, -2);
}
END_TEST

static const trm_op binaries[] = {TRM_OP_Add,   TRM_OP_Sub,        TRM_OP_Mul,
                                  TRM_OP_Div,   TRM_OP_Max,        TRM_OP_Min,
                                  TRM_OP_PRelu, TRM_OP_Pow,        TRM_OP_Mod,
                                  TRM_OP_Equal, TRM_OP_Greater,    TRM_OP_GreaterOrEqual,
                                  TRM_OP_Less,  TRM_OP_LessOrEqual};

/* index into an operand of the element that output element `i` reads */
static size_t source(const trm_tensor *out, const trm_tensor *t, size_t i)
{
    size_t at = 0, step = 1;

    for (int d = out->rank - 1; d >= 0; d--) {
        int own = d - (out->rank - t->rank);
        size_t c = i % (size_t)out->dims[d];

        i /= (size_t)out->dims[d];
        if (own >= 0 && t->dims[own] != 1)
            at += c * step;
        if (own >= 0)
            step *= (size_t)t->dims[own];
    }
    return at;
}

START_TEST(binary_broadcasts)
{
    static const int64_t shapes[][3][6] = {
        {{7, -1}, {7, -1}, {7, -1}},
        {{2, 3, 4, 5, -1}, {2, 3, 4, 5, -1}, {2, 3, 4, 5, -1}},
        {{2, 3, 4, 5, -1}, {1, -1}, {2, 3, 4, 5, -1}},
        {{-1}, {2, 3, -1}, {2, 3, -1}},
        {{2, 3, 4, 17, -1}, {17, -1}, {2, 3, 4, 17, -1}},
        {{2, 3, 4, 5, -1}, {3, 1, 1, -1}, {2, 3, 4, 5, -1}},
        {{2, 1, 4, 1, -1}, {1, 3, 1, 5, -1}, {2, 3, 4, 5, -1}},
        {{3, 1, -1}, {1, 4, -1}, {3, 4, -1}},
        {{2, 0, 3, -1}, {1, 1, 3, -1}, {2, 0, 3, -1}},
        {{64, 700, -1}, {64, 1, -1}, {64, 700, -1}},
        {{-1}, {-1}, {-1}},
    };
    static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F64, TRM_DTYPE_F16, TRM_DTYPE_BF16,
                                       TRM_DTYPE_I32, TRM_DTYPE_I64, TRM_DTYPE_U8,  TRM_DTYPE_I8};
    trm_op op = binaries[_i];
    trm_reference_binary f = trm_reference_binary_get(op, op == TRM_OP_Mod);
    bool compare = _i >= 9;

    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++)
        for (size_t d = 0; d < 8; d++) {
            trm_dtype t = dtypes[d];
            bool is_float = trm_dtype_is_float(t);
            trm_tensor in[2] = {h_tensor(t, shapes[s][0]), h_tensor(t, shapes[s][1])};
            trm_tensor out = h_tensor(compare ? TRM_DTYPE_BOOL : t, shapes[s][2]);
            bool positive = op == TRM_OP_Pow || t == TRM_DTYPE_U8;
            double tol = t == TRM_DTYPE_F16    ? 2e-3
                         : t == TRM_DTYPE_BF16 ? 1e-2
                         : t == TRM_DTYPE_F32  ? 1e-6
                                               : 1e-12;

            h_random(in[0], positive ? 6 : -6, 11);
            h_random(in[1], 1, is_float ? 3 : 2.99);
            if (op == TRM_OP_Sub && t == TRM_DTYPE_U8)
                h_random(in[0], 4, 9);
            if (op == TRM_OP_Mul && positive)
                h_random(in[0], 1, 9);
            out.data = NULL;
            h_ok(op, h_int(h_attrs(), "fmod", 1), in, 2, &out, 1);
            for (size_t i = 0; i < trm_tensor_numel(&out); i++) {
                double x = trm_tensor_get_f64(&in[0], source(&out, &in[0], i));
                double y = trm_tensor_get_f64(&in[1], source(&out, &in[1], i));
                double want = f(x, y);

                h_near(&out, i, is_float || compare ? want : trunc(want), is_float ? tol : 0,
                       is_float ? tol : 0, trm_op_get(op)->name);
            }
        }
}
END_TEST

START_TEST(integers_never_trap)
{
    trm_tensor in[2] = {H_FILL(H_TENSOR(TRM_DTYPE_I32, 6), INT32_MIN, 7, -7, -7, 7, INT32_MAX),
                        H_FILL(H_TENSOR(TRM_DTYPE_I32, 6), -1, 0, 3, -3, -3, INT32_MAX)};
    trm_tensor out = {.dtype = TRM_DTYPE_I32, .rank = 1, .dims = {6}};
    trm_tensor shift[2] = {H_FILL(H_TENSOR(TRM_DTYPE_U32, 3), 1, 16, 4294967295.0),
                           H_FILL(H_TENSOR(TRM_DTYPE_U32, 3), 32, 2, 4)};

    h_ok(TRM_OP_Div, NULL, in, 2, &out, 1);
    H_WANT(out, 0, INT32_MIN, 0, -2, 2, -2, 1);
    h_ok(TRM_OP_Mod, NULL, in, 2, &out, 1);
    H_WANT(out, 0, 0, 0, 2, -1, -2, 0);
    h_ok(TRM_OP_Mod, h_int(h_attrs(), "fmod", 1), in, 2, &out, 1);
    H_WANT(out, 0, 0, 0, -1, -1, 1, 0);
    h_ok(TRM_OP_Add, NULL, in, 2, &out, 1);
    H_WANT(out, 0, INT32_MAX, 7, -4, -10, 4, -2);
    h_ok(TRM_OP_Abs, NULL, in, 1, &out, 1);
    H_WANT(out, 0, INT32_MIN, 7, 7, 7, 7, INT32_MAX);
    out = (trm_tensor){.dtype = TRM_DTYPE_U32, .rank = 1, .dims = {3}};
    h_ok(TRM_OP_BitShift, h_string(h_attrs(), "direction", "LEFT"), shift, 2, &out, 1);
    H_WANT(out, 0, 0, 64, 4294967280.0);
    h_ok(TRM_OP_BitShift, h_string(h_attrs(), "direction", "RIGHT"), shift, 2, &out, 1);
    H_WANT(out, 0, 0, 4, 268435455);
    in[1] = H_FILL(H_TENSOR(TRM_DTYPE_I32, 6), 31, -1, 1, 32, 3, 30);
    out = (trm_tensor){.dtype = TRM_DTYPE_I32, .rank = 1, .dims = {6}};
    h_ok(TRM_OP_BitShift, h_string(h_attrs(), "direction", "RIGHT"), in, 2, &out, 1);
    H_WANT(out, 0, -1, 0, -4, -1, 0, 1);
    h_ok(TRM_OP_BitShift, h_string(h_attrs(), "direction", "LEFT"), in, 2, &out, 1);
    H_WANT(out, 0, 0, 0, -14, 0, 56, -1073741824);
}
END_TEST

START_TEST(mod_signs)
{
    static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F64, TRM_DTYPE_F16};

    for (size_t d = 0; d < 3; d++) {
        trm_dtype t = dtypes[d];
        trm_tensor in[2] = {H_FILL(H_TENSOR(t, 8), 0.0, -0.0, 0.0, -0.0, 5, -5, -4, 4),
                            H_FILL(H_TENSOR(t, 8), -2, 2, 2, -2, -3, 3, 2, -2)};
        trm_tensor out = {.dtype = t, .rank = 1, .dims = {8}};

        h_ok(TRM_OP_Mod, NULL, in, 2, &out, 1);
        H_WANT(out, 0, 0, 0, 0, 0, -1, 1, 0, 0);
        for (size_t i = 0; i < 8; i++) /* the divisor's sign, on a zero too */
            ck_assert_int_eq(!signbit(trm_tensor_get_f64(&out, i)),
                             trm_tensor_get_f64(&in[1], i) > 0);
        h_ok(TRM_OP_Mod, h_int(h_attrs(), "fmod", 1), in, 2, &out, 1);
        H_WANT(out, 0, 0, 0, 0, 0, 2, -2, 0, 0);
        for (size_t i = 0; i < 8; i++) /* the dividend's */
            ck_assert_int_eq(!signbit(trm_tensor_get_f64(&out, i)),
                             !signbit(trm_tensor_get_f64(&in[0], i)));
    }
}
END_TEST

START_TEST(logic_and_selection)
{
    trm_tensor b[2] = {H_FILL(H_TENSOR(TRM_DTYPE_BOOL, 4), 0, 0, 1, 1),
                       H_FILL(H_TENSOR(TRM_DTYPE_BOOL, 4), 0, 1, 0, 1)};
    trm_tensor out = {.dtype = TRM_DTYPE_BOOL, .rank = 1, .dims = {4}};
    trm_tensor w[3] = {H_FILL(H_TENSOR(TRM_DTYPE_BOOL, 2, 1), 1, 0),
                       H_FILL(H_TENSOR(TRM_DTYPE_I64, 2, 3), 1, 2, 3, 4, 5, 6),
                       H_FILL(H_SCALAR(TRM_DTYPE_I64), 9)};
    trm_tensor o = {.dtype = TRM_DTYPE_I64, .rank = 2, .dims = {2, 3}};

    h_ok(TRM_OP_And, NULL, b, 2, &out, 1);
    H_WANT(out, 0, 0, 0, 0, 1);
    h_ok(TRM_OP_Or, NULL, b, 2, &out, 1);
    H_WANT(out, 0, 0, 1, 1, 1);
    h_ok(TRM_OP_Xor, NULL, b, 2, &out, 1);
    H_WANT(out, 0, 0, 1, 1, 0);
    h_ok(TRM_OP_Not, NULL, b, 1, &out, 1);
    H_WANT(out, 0, 1, 1, 0, 0);
    h_ok(TRM_OP_Where, NULL, w, 3, &o, 1);
    H_WANT(o, 0, 1, 2, 3, 9, 9, 9);
}
END_TEST

START_TEST(clip_pow_variadic)
{
    trm_tensor c[3] = {H_FILL(H_TENSOR(TRM_DTYPE_F32, 4), -3, 0.5, 7, NAN),
                       H_FILL(H_SCALAR(TRM_DTYPE_F32), -1), H_FILL(H_SCALAR(TRM_DTYPE_F32), 2)};
    trm_tensor u[3] = {
        H_FILL(H_TENSOR(TRM_DTYPE_U8, 3), 1, 100, 255), {0}, H_FILL(H_SCALAR(TRM_DTYPE_U8), 200)};
    trm_tensor p[2] = {H_FILL(H_TENSOR(TRM_DTYPE_F32, 3), 1, 2, 3),
                       H_FILL(H_TENSOR(TRM_DTYPE_I64, 3), 4, -1, 3)};
    trm_tensor q[2] = {H_FILL(H_TENSOR(TRM_DTYPE_I32, 3), 1, 2, 3),
                       H_FILL(H_TENSOR(TRM_DTYPE_F32, 3), 4, 0.5, 3)};
    trm_tensor v[3] = {H_FILL(H_TENSOR(TRM_DTYPE_F16, 3), 1, 5, 3),
                       H_FILL(H_TENSOR(TRM_DTYPE_F16, 1), 2),
                       H_FILL(H_TENSOR(TRM_DTYPE_F16, 3), 6, 2, 4)};
    trm_tensor out = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {4}};

    h_ok(TRM_OP_Clip, NULL, c, 3, &out, 1);
    H_WANT(out, 0, -1, 0.5, 2, NAN);
    h_ok(TRM_OP_Clip, NULL, c, 1, &out, 1);
    H_WANT(out, 0, -3, 0.5, 7, NAN);
    out = (trm_tensor){.dtype = TRM_DTYPE_U8, .rank = 1, .dims = {3}};
    h_ok(TRM_OP_Clip, NULL, u, 3, &out, 1);
    H_WANT(out, 0, 1, 100, 200);
    out = (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {3}};
    h_ok(TRM_OP_Pow, NULL, p, 2, &out, 1);
    H_WANT(out, 1e-7, 1, 0.5, 27);
    out = (trm_tensor){.dtype = TRM_DTYPE_I32, .rank = 1, .dims = {3}};
    h_ok(TRM_OP_Pow, NULL, q, 2, &out, 1);
    H_WANT(out, 0, 1, 1, 27);
    out = (trm_tensor){.dtype = TRM_DTYPE_F16, .rank = 1, .dims = {3}};
    h_ok(TRM_OP_Max, NULL, v, 3, &out, 1);
    H_WANT(out, 0, 6, 5, 4);
    h_ok(TRM_OP_Sum, NULL, v, 3, &out, 1);
    H_WANT(out, 0, 9, 9, 9);
    h_ok(TRM_OP_Mean, NULL, v, 3, &out, 1);
    H_WANT(out, 0, 3, 3, 3);
    h_ok(TRM_OP_Min, NULL, v, 1, &out, 1);
    H_WANT(out, 0, 1, 5, 3);
}
END_TEST

START_TEST(blocked_layouts)
{
    trm_tensor in[2] = {H_TENSOR(TRM_DTYPE_F32, 1, 16, 3, 3), H_TENSOR(TRM_DTYPE_F32, 1, 16, 3, 3)};
    trm_tensor out = in[0];
    trm_op_desc desc = {.op = TRM_OP_Exp,
                        .name = "t",
                        .input_count = 1,
                        .output_count = 1,
                        .inputs = in,
                        .outputs = &out};
    trm_kernel *k;

    h_random(in[0], -1, 1);
    h_random(in[1], -1, 1);
    in[0].layout = in[1].layout = TRM_LAYOUT_BLOCK8;
    out.data = NULL;
    h_ok(TRM_OP_Add, NULL, in, 2, &out, 1);
    ck_assert_int_eq(out.layout, TRM_LAYOUT_BLOCK8);
    for (size_t i = 0; i < 144; i++)
        h_near(&out, i, trm_tensor_get_f64(&in[0], i) + trm_tensor_get_f64(&in[1], i), 1e-6, 0,
               "add");
    /* padding channels: asks for plain */
    in[0].dims[1] = out.dims[1] = 12;
    out.layout = TRM_LAYOUT_PLAIN;
    ck_assert_int_eq(h_device->ops->prepare(h_device, &desc, &k), TRM_OK);
    ck_assert_int_eq(in[0].layout, TRM_LAYOUT_PLAIN);
    ck_assert_int_eq(out.layout, TRM_LAYOUT_PLAIN);
    trm_kernel_destroy(k);
}
END_TEST

START_TEST(casts)
{
    trm_tensor f = H_FILL(H_TENSOR(TRM_DTYPE_F32, 6), -1.9, 2.9, 300, -300, NAN, 1e30);
    trm_tensor d =
        H_FILL(H_TENSOR(TRM_DTYPE_F64, 2), 1.0 + 0x1p-11 + 0x1p-40, 1.0 + 0x1p-8 + 0x1p-30);
    trm_tensor out = {.dtype = TRM_DTYPE_I32, .rank = 1, .dims = {6}};

    h_ok(TRM_OP_Cast, NULL, &f, 1, &out, 1);
    H_WANT(out, 0, -1, 2, 300, -300, 0, INT32_MAX);
    out = (trm_tensor){.dtype = TRM_DTYPE_U8, .rank = 1, .dims = {6}};
    h_ok(TRM_OP_Cast, NULL, &f, 1, &out, 1);
    H_WANT(out, 0, 0, 2, 255, 0, 0, 255);
    out = (trm_tensor){.dtype = TRM_DTYPE_BOOL, .rank = 1, .dims = {6}};
    h_ok(TRM_OP_Cast, NULL, &f, 1, &out, 1);
    H_WANT(out, 0, 1, 1, 1, 1, 1, 1);
    out = (trm_tensor){.dtype = TRM_DTYPE_F16, .rank = 1, .dims = {2}};
    h_ok(TRM_OP_Cast, NULL, &d, 1, &out, 1); /* one rounding, not two */
    H_WANT(out, 0, 1.0 + 0x1p-10, 1.0 + 0x1p-8);
    out = (trm_tensor){.dtype = TRM_DTYPE_BF16, .rank = 1, .dims = {2}};
    h_ok(TRM_OP_Cast, NULL, &d, 1, &out, 1);
    H_WANT(out, 0, 1.0, 1.0 + 0x1p-7);
}
END_TEST

/* every pair of dtypes, on values all of them hold */
START_TEST(cast_pairs)
{
    for (int a = 1; a < TRM_DTYPE_PLAIN_COUNT; a++)
        for (int b = 1; b < TRM_DTYPE_PLAIN_COUNT; b++) {
            trm_tensor x = H_TENSOR((trm_dtype)a, 700),
                       y = {.dtype = (trm_dtype)b, .rank = 1, .dims = {700}};

            for (size_t i = 0; i < 700; i++)
                trm_tensor_set_i64(&x, i, (int64_t)(i % 120));
            h_ok(TRM_OP_Cast, NULL, &x, 1, &y, 1);
            for (size_t i = 0; i < 700; i++) {
                int64_t want = (int64_t)(i % 120);

                if (a == TRM_DTYPE_BOOL || b == TRM_DTYPE_BOOL)
                    want = want != 0;
                ck_assert_int_eq(trm_tensor_get_i64(&y, i), want);
            }
        }
}
END_TEST

START_TEST(refusals)
{
    trm_tensor in[2] = {H_TENSOR(TRM_DTYPE_F32, 3), H_TENSOR(TRM_DTYPE_I32, 3)};
    trm_tensor out = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {3}};
    trm_tensor b = H_TENSOR(TRM_DTYPE_BOOL, 3);

    ck_assert_int_eq(h_run(TRM_OP_Add, NULL, in, 2, &out, 1), TRM_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(trm_message(), "input 1 is i32: want f32"));
    ck_assert_int_eq(h_run(TRM_OP_Exp, NULL, &b, 1, &out, 1), TRM_ERR_UNSUPPORTED);
    in[1] = H_TENSOR(TRM_DTYPE_F32, 2);
    ck_assert_int_eq(h_run(TRM_OP_Add, NULL, in, 2, &out, 1), TRM_ERR_INVALID_ARG);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("elementwise");

    tcase_add_loop_test(t, unary_against_reference, 0, (int)(sizeof(unaries) / sizeof(unaries[0])));
    tcase_add_test(t, special_values);
    tcase_add_loop_test(t, binary_broadcasts, 0, (int)(sizeof(binaries) / sizeof(binaries[0])));
    tcase_add_test(t, integers_never_trap);
    tcase_add_test(t, mod_signs);
    tcase_add_test(t, logic_and_selection);
    tcase_add_test(t, clip_pow_variadic);
    tcase_add_test(t, blocked_layouts);
    tcase_add_test(t, casts);
    tcase_add_test(t, cast_pairs);
    tcase_add_test(t, refusals);
    return h_main("math elementwise", t);
}
