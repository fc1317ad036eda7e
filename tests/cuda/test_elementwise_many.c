/* Operators of several operands on the CUDA device against the CPU's: binary ones, Sum, Max, Min,
 * Mean, Where, SwiGLU: dtypes, broadcasts, layouts, and what is refused. */
#include "tests/cuda/cuda_kit.h"

static const trm_dtype floats[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64};
static const trm_dtype ints[] = {TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16, TRM_DTYPE_U16,
                                 TRM_DTYPE_I32, TRM_DTYPE_U32, TRM_DTYPE_I64, TRM_DTYPE_U64};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* As in test_elementwise.c: powers and exponentials within 2 ulp on both sides; one rounding of
 * 16-bit results. */
static void tolerate(cuda_case *c, trm_dtype dtype, bool exact)
{
    c->as_f32 = true;
    c->rtol = dtype == TRM_DTYPE_F32 ? 2e-6 : dtype == TRM_DTYPE_F64 ? 1e-13 : 0;
    if (exact)
        c->rtol = 0;
    if (dtype == TRM_DTYPE_F16) {
        c->rtol = 0x1p-11 + 2e-6;
        c->atol = 1e-7; /* subnormals */
    } else if (dtype == TRM_DTYPE_BF16) {
        c->rtol = 0x1p-8 + 2e-6;
    }
}

static cuda_case binary_case(const char *name, trm_op op, trm_tensor a, trm_tensor b,
                             trm_tensor out)
{
    cuda_case c = {.name = name, .op = op, .attrs = kit_attrs(), .in_count = 2, .out_count = 1};

    c.in[0] = a;
    c.in[1] = b;
    c.out[0] = out;
    return c;
}

/* ---- functions ---- */
static const struct binary_row {
    const char *name;
    trm_op op;
    double lo, hi, lo2, hi2;
    bool exact, compare;
    int fmod;
} binary_rows[] = {
    {"Add", TRM_OP_Add, -6, 6, -6, 6, true, false, 0},
    {"Sub", TRM_OP_Sub, -6, 6, -6, 6, true, false, 0},
    {"Mul", TRM_OP_Mul, -6, 6, -6, 6, true, false, 0},
    {"Div", TRM_OP_Div, -6, 6, 0.5, 6, true, false, 0},
    {"PRelu", TRM_OP_PRelu, -6, 6, -1, 1, true, false, 0},
    {"Pow", TRM_OP_Pow, 0, 4, -2, 3, false, false, 0},
    {"Mod", TRM_OP_Mod, -9, 9, 1, 4, true, false, 0},
    {"Mod, negative divisors", TRM_OP_Mod, -9, 9, -4, -1, true, false, 0},
    {"Mod, fmod", TRM_OP_Mod, -9, 9, -4, -1, true, false, 1},
    {"Max", TRM_OP_Max, -6, 6, -6, 6, true, false, 0},
    {"Min", TRM_OP_Min, -6, 6, -6, 6, true, false, 0},
    {"Sum", TRM_OP_Sum, -6, 6, -6, 6, true, false, 0},
    {"Mean", TRM_OP_Mean, -6, 6, -6, 6, true, false, 0},
    {"SwiGLU", TRM_OP_SwiGLU, -6, 6, -6, 6, false, false, 0},
    {"Equal", TRM_OP_Equal, 0, 3, 0, 3, true, true, 0},
    {"Greater", TRM_OP_Greater, 0, 3, 0, 3, true, true, 0},
    {"GreaterOrEqual", TRM_OP_GreaterOrEqual, 0, 3, 0, 3, true, true, 0},
    {"Less", TRM_OP_Less, 0, 3, 0, 3, true, true, 0},
    {"LessOrEqual", TRM_OP_LessOrEqual, 0, 3, 0, 3, true, true, 0},
};

/* Mod makes small differences large near a whole number of divisors: eighths are exact. */
static trm_tensor eighths(trm_tensor t)
{
    for (size_t i = 0; i < trm_tensor_numel(&t); i++)
        trm_tensor_set_f64(&t, i, floor(trm_tensor_get_f64(&t, i) * 8) / 8);
    return t;
}

/* NaN, infinities and zeros in both operands. */
static void spoil(trm_tensor *t)
{
    static const double values[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, 1.0};

    for (size_t i = 0; i < 36 && i < trm_tensor_numel(t); i++)
        trm_tensor_set_f64(t, i, values[t->data == NULL ? 0 : i % 6]);
}

START_TEST(binary)
{
    static const int64_t sizes[] = {0, 1, 9, 2063};
    const struct binary_row *r = &binary_rows[_i];

    for (size_t d = 0; d < COUNT(floats); d++) {
        for (size_t n = 0; n < COUNT(sizes); n++) {
            trm_tensor a = eighths(kit_random(KIT_T(floats[d], sizes[n]), r->lo, r->hi));
            trm_tensor b = eighths(kit_random(KIT_T(floats[d], sizes[n]), r->lo2, r->hi2));
            trm_dtype to = r->compare ? TRM_DTYPE_BOOL : floats[d];
            cuda_case c = binary_case(r->name, r->op, a, b, KIT_T(to, sizes[n]));

            kit_int(c.attrs, "fmod", r->fmod);
            tolerate(&c, floats[d], r->exact);
            cuda_check(&c);
        }
    }
}
END_TEST

START_TEST(special_values)
{
    const struct binary_row *r = &binary_rows[_i];

    for (size_t d = 0; d < COUNT(floats); d++) {
        trm_tensor a = kit_random(KIT_T(floats[d], 36), 0, 1);
        trm_tensor b = kit_random(KIT_T(floats[d], 36), 0, 1);
        trm_dtype to = r->compare ? TRM_DTYPE_BOOL : floats[d];
        cuda_case c;

        spoil(&a);
        for (size_t i = 0; i < 36; i++) /* each value with each */
            trm_tensor_set_f64(&b, i, trm_tensor_get_f64(&a, i / 6));
        c = binary_case(r->name, r->op, a, b, KIT_T(to, 36));
        kit_int(c.attrs, "fmod", r->fmod);
        tolerate(&c, floats[d], r->exact);
        c.as_f32 = false;
        cuda_check(&c);
    }
}
END_TEST

START_TEST(swiglu_alpha)
{
    trm_tensor a = kit_random(KIT_T(floats[_i], 5, 33), -5, 5);
    trm_tensor b = kit_random(KIT_T(floats[_i], 5, 33), -5, 5);
    cuda_case c = binary_case("SwiGLU alpha", TRM_OP_SwiGLU, a, b, KIT_T(floats[_i], 5, 33));

    kit_float(c.attrs, "alpha", 1.702f);
    tolerate(&c, floats[_i], false);
    cuda_check(&c);
}
END_TEST

static const struct int_row {
    const char *name;
    trm_op op;
    bool compare;
    int fmod;
    const char *direction;
} int_rows[] = {
    {"Add", TRM_OP_Add, false, 0, NULL},
    {"Sub", TRM_OP_Sub, false, 0, NULL},
    {"Mul", TRM_OP_Mul, false, 0, NULL},
    {"Div", TRM_OP_Div, false, 0, NULL},
    {"Mod", TRM_OP_Mod, false, 0, NULL},
    {"Mod, fmod", TRM_OP_Mod, false, 1, NULL},
    {"Max", TRM_OP_Max, false, 0, NULL},
    {"Min", TRM_OP_Min, false, 0, NULL},
    {"Sum", TRM_OP_Sum, false, 0, NULL},
    {"Pow", TRM_OP_Pow, false, 0, NULL},
    {"PRelu", TRM_OP_PRelu, false, 0, NULL},
    {"BitwiseAnd", TRM_OP_BitwiseAnd, false, 0, NULL},
    {"BitwiseOr", TRM_OP_BitwiseOr, false, 0, NULL},
    {"BitwiseXor", TRM_OP_BitwiseXor, false, 0, NULL},
    {"BitShift left", TRM_OP_BitShift, false, 0, "LEFT"},
    {"BitShift right", TRM_OP_BitShift, false, 0, "RIGHT"},
    {"Equal", TRM_OP_Equal, true, 0, NULL},
    {"Greater", TRM_OP_Greater, true, 0, NULL},
    {"GreaterOrEqual", TRM_OP_GreaterOrEqual, true, 0, NULL},
    {"Less", TRM_OP_Less, true, 0, NULL},
    {"LessOrEqual", TRM_OP_LessOrEqual, true, 0, NULL},
};

/* Small numbers (zero divisors, shifts beyond the width, negative exponents), the smallest and the
 * largest of the dtype with 0, -1 and each other. */
START_TEST(integers)
{
    const struct int_row *r = &int_rows[_i];

    for (size_t d = 0; d < COUNT(ints); d++) {
        bool sign = trm_dtype_is_signed_int(ints[d]);
        uint64_t top = UINT64_C(1) << (8 * trm_dtype_bytes(ints[d]) - 1);
        const int64_t ends[] = {
            sign ? (int64_t)(0 - top) : 0, (int64_t)(sign ? top - 1 : 2 * top - 1), 0, -1, 1, 70};
        trm_tensor a = kit_random(KIT_T(ints[d], 361), sign ? -9 : 0, 10);
        trm_tensor b = kit_random(KIT_T(ints[d], 361), sign ? -9 : 0, 10);
        trm_dtype to = r->compare ? TRM_DTYPE_BOOL : ints[d];
        cuda_case c;

        for (size_t i = 0; i < 36; i++) {
            trm_tensor_set_i64(&a, i, ends[i % 6]);
            trm_tensor_set_i64(&b, i, ends[i / 6]);
        }
        c = binary_case(r->name, r->op, a, b, KIT_T(to, 361));
        kit_int(c.attrs, "fmod", r->fmod);
        if (r->direction != NULL)
            kit_string(c.attrs, "direction", r->direction);
        cuda_check(&c);
    }
}
END_TEST

START_TEST(logic)
{
    static const trm_op ops[] = {TRM_OP_And, TRM_OP_Or, TRM_OP_Xor, TRM_OP_Equal};
    trm_tensor a = kit_random(KIT_T(TRM_DTYPE_BOOL, 3, 50), 0, 2);
    trm_tensor b = kit_random(KIT_T(TRM_DTYPE_BOOL, 50), 0, 2);
    cuda_case c = binary_case("logic", ops[_i], a, b, KIT_T(TRM_DTYPE_BOOL, 3, 50));

    cuda_check(&c);
}
END_TEST

/* Pow of every dtype to every other one. */
START_TEST(pow_mixed)
{
    trm_dtype l = _i < 4 ? floats[_i] : ints[_i - 4];

    for (size_t d = 0; d < COUNT(floats) + COUNT(ints); d++) {
        trm_dtype r = d < 4 ? floats[d] : ints[d - 4];
        trm_tensor a = kit_random(KIT_T(l, 3, 41), trm_dtype_is_unsigned_int(l) ? 0 : -3, 4);
        trm_tensor b = kit_random(KIT_T(r, 41), trm_dtype_is_unsigned_int(r) ? 0 : -2, 4);
        cuda_case c;

        if (trm_dtype_is_float(r)) /* powers of negative numbers */
            for (size_t i = 0; i < 41; i++)
                trm_tensor_set_f64(&b, i, rint(trm_tensor_get_f64(&b, i)));
        c = binary_case("Pow", TRM_OP_Pow, a, b, KIT_T(l, 3, 41));
        if (trm_dtype_is_float(l))
            tolerate(&c, l, false);
        c.as_f32 = false; /* the CPU rounds once, too */
        c.rtol *= 2;
        cuda_check(&c);
    }
}
END_TEST

/* ---- broadcasts and layouts ---- */
#define CL TRM_LAYOUT_CHANNELS_LAST
#define E -1 /* end of dims */
static const struct shape_row {
    const char *name;
    int64_t a[9], b[9], out[9];
    trm_layout a_arrives, b_arrives, a_wanted, b_wanted, gives;
} shape_rows[] = {
    {"same", {3, 5, 8, E}, {3, 5, 8, E}, {3, 5, 8, E}, 0, 0, 0, 0, 0},
    {"two scalars", {E}, {E}, {E}, 0, 0, 0, 0, 0},
    {"right scalar", {3, 5, 7, E}, {E}, {3, 5, 7, E}, 0, 0, 0, 0, 0},
    {"left scalar", {1, E}, {3, 5, 8, E}, {3, 5, 8, E}, 0, 0, 0, 0, 0},
    {"bias", {6, 5, 16, E}, {16, E}, {6, 5, 16, E}, 0, 0, 0, 0, 0},
    {"odd bias", {6, 5, 7, E}, {7, E}, {6, 5, 7, E}, 0, 0, 0, 0, 0},
    {"bias on the left", {16, E}, {6, 16, E}, {6, 16, E}, 0, 0, 0, 0, 0},
    {"channels", {2, 3, 7, 7, E}, {3, 1, 1, E}, {2, 3, 7, 7, E}, 0, 0, 0, 0, 0},
    {"channels, even", {2, 3, 4, 8, E}, {1, 3, 1, 1, E}, {2, 3, 4, 8, E}, 0, 0, 0, 0, 0},
    {"last dim kept", {4, 6, 16, E}, {4, 6, 1, E}, {4, 6, 16, E}, 0, 0, 0, 0, 0},
    {"mask", {2, 3, 4, 8, E}, {2, 1, 1, 8, E}, {2, 3, 4, 8, E}, 0, 0, 0, 0, 0},
    {"both", {3, 1, 8, E}, {4, 1, E}, {3, 4, 8, E}, 0, 0, 0, 0, 0},
    {"outer", {16, 1, E}, {1, 24, E}, {16, 24, E}, 0, 0, 0, 0, 0},
    {"eight dims",
     {2, 1, 2, 1, 3, 1, 2, 5, E},
     {1, 2, 1, 3, 1, 2, 1, 5, E},
     {2, 2, 2, 3, 3, 2, 2, 5, E},
     0,
     0,
     0,
     0,
     0},
    {"no elements", {3, 0, E}, {1, E}, {3, 0, E}, 0, 0, 0, 0, 0},
    {"many blocks", {5, 2048, E}, {2048, E}, {5, 2048, E}, 0, 0, 0, 0, 0},
    {"many blocks, odd", {33, 211, E}, {33, 1, E}, {33, 211, E}, 0, 0, 0, 0, 0},
    {"last, last", {2, 8, 3, 5, E}, {2, 8, 3, 5, E}, {2, 8, 3, 5, E}, CL, CL, CL, CL, CL},
    {"last, plain", {2, 8, 3, 5, E}, {2, 8, 3, 5, E}, {2, 8, 3, 5, E}, CL, 0, CL, CL, CL},
    {"plain, last", {2, 8, 3, 5, E}, {2, 8, 3, 5, E}, {2, 8, 3, 5, E}, 0, CL, CL, CL, CL},
    {"last, channels", {2, 8, 3, 5, E}, {8, 1, 1, E}, {2, 8, 3, 5, E}, CL, 0, CL, 0, CL},
    {"last, gates", {2, 8, 3, 5, E}, {2, 8, 1, 1, E}, {2, 8, 3, 5, E}, CL, CL, CL, CL, CL},
    {"gates, plain", {2, 8, 1, 1, E}, {2, 8, 3, 5, E}, {2, 8, 3, 5, E}, CL, 0, CL, 0, 0},
    {"last, one map", {2, 8, 3, 5, E}, {2, 1, 3, 5, E}, {2, 8, 3, 5, E}, CL, 0, CL, 0, CL},
    {"last, row", {2, 5, 3, 6, E}, {6, E}, {2, 5, 3, 6, E}, CL, 0, CL, 0, CL},
    {"last, scalar", {2, 5, 3, 7, E}, {E}, {2, 5, 3, 7, E}, CL, 0, CL, 0, CL},
    {"last, odd channels", {2, 5, 3, 7, E}, {1, 5, 1, 1, E}, {2, 5, 3, 7, E}, CL, 0, CL, 0, CL},
    {"last 3d", {2, 4, 6, E}, {4, 1, E}, {2, 4, 6, E}, CL, 0, CL, 0, CL},
    {"last 5d", {2, 4, 3, 2, 5, E}, {4, 1, 1, 1, E}, {2, 4, 3, 2, 5, E}, CL, 0, CL, 0, CL},
    {"last, both broadcast", {2, 8, 3, 1, E}, {1, 8, 1, 5, E}, {2, 8, 3, 5, E}, CL, 0, CL, 0, CL},
    {"one pixel", {2, 8, 1, 1, E}, {2, 8, 1, 1, E}, {2, 8, 1, 1, E}, CL, 0, CL, 0, CL},
};

static const struct {
    trm_op op;
    trm_dtype in, out;
} shape_ops[] = {
    {TRM_OP_Sub, TRM_DTYPE_F32, TRM_DTYPE_F32},   {TRM_OP_Mul, TRM_DTYPE_BF16, TRM_DTYPE_BF16},
    {TRM_OP_Less, TRM_DTYPE_F16, TRM_DTYPE_BOOL}, {TRM_OP_Sub, TRM_DTYPE_I32, TRM_DTYPE_I32},
    {TRM_OP_Max, TRM_DTYPE_F64, TRM_DTYPE_F64},   {TRM_OP_Mean, TRM_DTYPE_F32, TRM_DTYPE_F32}};

START_TEST(shapes)
{
    const struct shape_row *r = &shape_rows[_i];

    for (size_t o = 0; o < COUNT(shape_ops); o++) {
        trm_dtype in = shape_ops[o].in;
        trm_tensor a = kit_random(kit_tensor(in, r->a), -8, 8);
        trm_tensor b = kit_random(kit_tensor(in, r->b), -8, 8);
        cuda_case c =
            binary_case(r->name, shape_ops[o].op, a, b, kit_tensor(shape_ops[o].out, r->out));

        c.arrives[0] = r->a_arrives;
        c.arrives[1] = r->b_arrives;
        tolerate(&c, in, true);
        cuda_check(&c);
        ck_assert_msg(c.wanted[0] == r->a_wanted && c.wanted[1] == r->b_wanted &&
                          c.gave[0] == r->gives,
                      "%s: wants layouts %d, %d and gives %d", r->name, (int)c.wanted[0],
                      (int)c.wanted[1], (int)c.gave[0]);
    }
}
END_TEST

START_TEST(where)
{
    static const trm_dtype dtypes[] = {TRM_DTYPE_U8, TRM_DTYPE_BF16, TRM_DTYPE_F32, TRM_DTYPE_I64,
                                       TRM_DTYPE_BOOL};
    static const struct {
        const char *name;
        int64_t c[5], x[5], y[5], out[5];
        trm_layout arrives[3], gives;
    } rows[] = {
        {"same", {700, E}, {700, E}, {700, E}, {700, E}, {0}, 0},
        {"scalars", {3, 77, E}, {E}, {1, E}, {3, 77, E}, {0}, 0},
        {"condition", {1, 1, 8, 8, E}, {2, 3, 8, 8, E}, {E}, {2, 3, 8, 8, E}, {0}, 0},
        {"one condition", {E}, {40, E}, {1, E}, {40, E}, {0}, 0},
        {"all broadcast", {3, 1, 1, E}, {5, 1, E}, {6, E}, {3, 5, 6, E}, {0}, 0},
        {"last", {2, 1, 3, 4, E}, {2, 6, 3, 4, E}, {6, 1, 1, E}, {2, 6, 3, 4, E}, {0, CL, 0}, CL},
        {"nothing", {0, E}, {0, E}, {E}, {0, E}, {0}, 0},
    };

    for (size_t d = 0; d < COUNT(dtypes); d++) {
        cuda_case c = {.name = rows[_i].name, .op = TRM_OP_Where, .in_count = 3, .out_count = 1};

        c.in[0] = kit_random(kit_tensor(TRM_DTYPE_BOOL, rows[_i].c), 0, 2);
        c.in[1] = kit_random(kit_tensor(dtypes[d], rows[_i].x), 0, 2);
        c.in[2] = kit_random(kit_tensor(dtypes[d], rows[_i].y), 0, 2);
        c.out[0] = kit_tensor(dtypes[d], rows[_i].out);
        memcpy(c.arrives, rows[_i].arrives, sizeof(rows[_i].arrives));
        cuda_check(&c);
        ck_assert_int_eq(c.gave[0], rows[_i].gives);
    }
}
END_TEST

/* 1 to 16 operands: one pass, several, full and broadcast ones, and the layout of some. */
START_TEST(variadic)
{
    static const trm_op ops[] = {TRM_OP_Sum, TRM_OP_Max, TRM_OP_Min, TRM_OP_Mean};
    static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64,
                                       TRM_DTYPE_I8,  TRM_DTYPE_U16, TRM_DTYPE_I64};
    static const int counts[] = {1, 2, 3, 8, 9, 16};

    for (size_t d = 0; d < COUNT(dtypes); d++) {
        for (size_t n = 0; n < COUNT(counts); n++) {
            trm_dtype dtype = dtypes[d];
            cuda_case c = {
                .name = "variadic", .op = ops[_i], .in_count = counts[n], .out_count = 1};

            if (ops[_i] == TRM_OP_Mean && !trm_dtype_is_float(dtype))
                continue;
            for (int i = 0; i < c.in_count; i++) {
                trm_tensor t = i % 3 == 2   ? KIT_T(dtype, 8, 1, 1)
                               : i % 5 == 4 ? KIT_T(dtype, 1)
                                            : KIT_T(dtype, 2, 8, 3, 5);

                c.in[i] = kit_random(t, trm_dtype_is_unsigned_int(dtype) ? 0 : -9, 9);
                c.arrives[i] = n % 2 == 1 && i == 1 ? CL : TRM_LAYOUT_PLAIN;
            }
            c.out[0] = KIT_T(dtype, 2, 8, 3, 5);
            tolerate(&c, dtype, true);
            if (c.in_count > TRM_RANK_MAX) { /* 16-bit sums are rounded between passes */
                c.rtol *= 3;
                c.atol = dtype == TRM_DTYPE_F16 ? 0x1p-11 * 60 : 0x1p-8 * 60;
                if (dtype != TRM_DTYPE_F16 && dtype != TRM_DTYPE_BF16)
                    c.atol = 0;
            }
            if (trm_dtype_is_float(dtype) && c.atol == 0)
                c.atol = 1e-7; /* sums near 0 of 16-bit terms: nothing to be relative to */
            cuda_check(&c);
            ck_assert_int_eq(c.gave[0], n % 2 == 1 ? CL : TRM_LAYOUT_PLAIN);
        }
    }
}
END_TEST

START_TEST(variadic_small)
{
    trm_tensor x = kit_random(KIT_T(TRM_DTYPE_BOOL, 5, 5), 0, 2);
    cuda_case c = {.name = "one bool", .op = TRM_OP_Max, .in_count = 1, .out_count = 1};

    c.in[0] = x;
    c.out[0] = KIT_T(TRM_DTYPE_BOOL, 5, 5);
    cuda_check(&c);
    c = (cuda_case){.name = "nothing", .op = TRM_OP_Sum, .in_count = 3, .out_count = 1};
    for (int i = 0; i < 3; i++)
        c.in[i] = kit_random(KIT_T(TRM_DTYPE_F32, 0, 4), 0, 2);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 0, 4);
    cuda_check(&c);
}
END_TEST

static const struct {
    const char *name;
    trm_op op;
    trm_dtype a, b, out;
} refused_rows[] = {
    {"And of f32", TRM_OP_And, TRM_DTYPE_F32, TRM_DTYPE_F32, TRM_DTYPE_BOOL},
    {"Or of i32", TRM_OP_Or, TRM_DTYPE_I32, TRM_DTYPE_I32, TRM_DTYPE_BOOL},
    {"Add of two dtypes", TRM_OP_Add, TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_F32},
    {"Add of bool", TRM_OP_Add, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL},
    {"BitShift of f32", TRM_OP_BitShift, TRM_DTYPE_F32, TRM_DTYPE_F32, TRM_DTYPE_F32},
    {"BitwiseAnd of bool", TRM_OP_BitwiseAnd, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL},
    {"Less of bool", TRM_OP_Less, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL},
    {"Max of bool", TRM_OP_Max, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL},
    {"Max of two dtypes", TRM_OP_Max, TRM_DTYPE_F32, TRM_DTYPE_F64, TRM_DTYPE_F32},
    {"Mean of i32", TRM_OP_Mean, TRM_DTYPE_I32, TRM_DTYPE_I32, TRM_DTYPE_I32},
    {"SwiGLU of i32", TRM_OP_SwiGLU, TRM_DTYPE_I32, TRM_DTYPE_I32, TRM_DTYPE_I32},
    {"SwiGLU of two dtypes", TRM_OP_SwiGLU, TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_F32},
};

START_TEST(refused)
{
    trm_tensor a = kit_random(KIT_T(refused_rows[_i].a, 4), 0, 2);
    trm_tensor b = kit_random(KIT_T(refused_rows[_i].b, 4), 0, 2);
    cuda_case c = binary_case(refused_rows[_i].name, refused_rows[_i].op, a, b,
                              KIT_T(refused_rows[_i].out, 4));

    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
}
END_TEST

START_TEST(refused_more)
{
    trm_tensor x = kit_random(KIT_T(TRM_DTYPE_F32, 4), 0, 2), out = KIT_T(TRM_DTYPE_F32, 4);
    cuda_case c = binary_case("does not broadcast", TRM_OP_Add, x,
                              kit_random(KIT_T(TRM_DTYPE_F32, 3), 0, 2), out);

    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c = binary_case("post-op", TRM_OP_Add, x, x, out);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    c.posts[0] = (trm_post){.op = TRM_OP_Relu, .input = -1};
    c.post_count = 1;
    cuda_check(&c);
    c = binary_case("SwiGLU of two shapes", TRM_OP_SwiGLU, x,
                    kit_random(KIT_T(TRM_DTYPE_F32, 1), 0, 2), out);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c = binary_case("Where by numbers", TRM_OP_Where, x, x, out);
    c.in[c.in_count++] = x;
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("elementwise_many");

    tcase_add_loop_test(t, binary, 0, (int)COUNT(binary_rows));
    tcase_add_loop_test(t, special_values, 0, (int)COUNT(binary_rows));
    tcase_add_loop_test(t, swiglu_alpha, 0, (int)COUNT(floats));
    tcase_add_loop_test(t, integers, 0, (int)COUNT(int_rows));
    tcase_add_loop_test(t, logic, 0, 4);
    tcase_add_loop_test(t, pow_mixed, 0, (int)(COUNT(floats) + COUNT(ints)));
    tcase_add_loop_test(t, shapes, 0, (int)COUNT(shape_rows));
    tcase_add_loop_test(t, where, 0, 7);
    tcase_add_loop_test(t, variadic, 0, 4);
    tcase_add_test(t, variadic_small);
    tcase_add_loop_test(t, refused, 0, (int)COUNT(refused_rows));
    tcase_add_test(t, refused_more);
    return kit_main("elementwise_many", t);
}
