/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear and RotaryEmbedding on the CUDA device.
 * Quantisation is equal to the CPU's to the bit. */
#include "tests/cuda/cuda_kit.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CL TRM_LAYOUT_CHANNELS_LAST
#define E -1 /* end of dims */

static const struct shape_row {
    const char *name;
    int64_t x[6], scale[6];
    int64_t axis, block; /* axis 9: not given */
    bool zero;
    trm_layout arrives, gives;
} shape_rows[] = {
    {"one", {3, 700, E}, {E}, 9, 0, true, 0, 0},
    {"one, without zero point", {1031, E}, {1, E}, 9, 0, false, 0, 0},
    {"no elements", {0, 4, E}, {E}, 9, 0, true, 0, 0},
    {"channels", {2, 5, 3, 7, E}, {5, E}, 9, 0, true, 0, 0},
    {"last axis", {6, 24, E}, {24, E}, -1, 0, true, 0, 0},
    {"first axis", {6, 4, 4, E}, {6, E}, 0, 0, false, 0, 0},
    {"axis of one", {4, 1, 9, E}, {1, E}, 1, 0, true, 0, 0},
    {"blocks of rows", {3, 8, 5, E}, {3, 2, 5, E}, 1, 4, true, 0, 0},
    {"blocks of the last axis", {4, 32, E}, {4, 2, E}, 1, 16, true, 0, 0},
    {"blocks that do not divide", {4, 10, 3, E}, {4, 3, 3, E}, -2, 4, true, 0, 0},
    {"one, last", {2, 5, 3, 7, E}, {E}, 9, 0, true, CL, CL},
    {"channels, last", {2, 8, 3, 5, E}, {8, E}, 1, 0, true, CL, CL},
    {"first axis, last", {3, 4, 3, 5, E}, {3, E}, 0, 0, true, CL, CL},
    {"a spatial axis, last", {2, 4, 3, 5, E}, {3, E}, 2, 0, true, CL, CL},
    {"the last axis, last", {2, 4, 3, 5, E}, {5, E}, 3, 0, true, CL, CL},
    {"blocks, last", {2, 4, 3, 5, E}, {2, 2, 3, 5, E}, 1, 2, true, CL, 0},
};

static const trm_dtype quantised[] = {TRM_DTYPE_U8, TRM_DTYPE_I8, TRM_DTYPE_U16, TRM_DTYPE_I16,
                                      TRM_DTYPE_I32};
static const trm_dtype reals[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64,
                                  TRM_DTYPE_I32};

static cuda_case quant_case(const struct shape_row *r, trm_op op, trm_tensor x, trm_dtype to,
                            trm_dtype scale)
{
    cuda_case c = {.name = r->name, .op = op, .attrs = kit_attrs(), .in_count = 2, .out_count = 1};
    trm_dtype q = op == TRM_OP_QuantizeLinear ? to : x.dtype;

    c.in[0] = x;
    c.in[1] = kit_random(kit_tensor(scale, r->scale), 0.02, 0.2);
    if (r->zero) {
        c.in[c.in_count++] =
            kit_random(kit_tensor(q, r->scale), trm_dtype_is_unsigned_int(q) ? 0 : -20, 40);
    }
    c.out[0] = kit_tensor(to, r->x);
    c.arrives[0] = r->arrives;
    if (r->axis != 9)
        kit_int(c.attrs, "axis", r->axis);
    if (r->block != 0)
        kit_int(c.attrs, "block_size", r->block);
    return c;
}

START_TEST(quantize)
{
    const struct shape_row *r = &shape_rows[_i];

    for (size_t i = 0; i < COUNT(reals); i++) {
        for (size_t o = 0; o < 4; o++) {
            trm_tensor x = kit_random(kit_tensor(reals[i], r->x), -30, 30);
            cuda_case c;

            for (size_t e = 0; trm_dtype_is_float(reals[i]) && e < trm_tensor_numel(&x); e += 19)
                trm_tensor_set_f64(&x, e, e % 3 == 0 ? NAN : e % 3 == 1 ? 1e30 : -INFINITY);
            c = quant_case(r, TRM_OP_QuantizeLinear, x, quantised[o],
                           trm_dtype_is_float(reals[i]) ? reals[i] : TRM_DTYPE_F32);
            cuda_check(&c);
            ck_assert_int_eq(c.gave[0], r->gives);
        }
    }
}
END_TEST

START_TEST(dequantize)
{
    const struct shape_row *r = &shape_rows[_i];

    for (size_t i = 0; i < COUNT(quantised); i++) {
        for (size_t o = 0; o < 4; o++) {
            bool sign = trm_dtype_is_signed_int(quantised[i]);
            trm_tensor x = kit_random(kit_tensor(quantised[i], r->x), sign ? -128 : 0, 128);
            cuda_case c = quant_case(r, TRM_OP_DequantizeLinear, x, reals[o],
                                     o % 2 == 0 ? TRM_DTYPE_F32 : reals[o]);

            cuda_check(&c);
            ck_assert_int_eq(c.gave[0], r->gives);
        }
    }
}
END_TEST

START_TEST(ties)
{
    /* halves go to the even side, and the zero point does not move them */
    trm_tensor x =
        KIT_V(KIT_T(TRM_DTYPE_F32, 10), 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 254.5, 255.5, -127.5, 300);
    static const struct shape_row row = {"ties", {10, E}, {E}, 9, 0, true, 0, 0};
    cuda_case c = quant_case(&row, TRM_OP_QuantizeLinear, x, quantised[_i], TRM_DTYPE_F32);

    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_F32), 1);
    c.in[2] = KIT_V(KIT_T(quantised[_i]), 3);
    cuda_check(&c);
}
END_TEST

static const struct {
    const char *name;
    int64_t n;
    double lo, hi;
    int spoil; /* 1: NaN, 2: infinity */
} dynamic_rows[] = {
    {"both signs", 1030, -3, 5, 0}, {"positive", 77, 2, 5, 0},   {"negative", 77, -5, -2, 0},
    {"zeros", 12, 0, 0, 0},         {"nothing", 0, 0, 1, 0},     {"one", 1, -1, 0, 0},
    {"NaN", 300, -1, 1, 1},         {"infinity", 300, -1, 1, 2}, {"many blocks", 20011, -1, 1, 0}};

START_TEST(dynamic)
{
    cuda_case c = {.name = dynamic_rows[_i].name,
                   .op = TRM_OP_DynamicQuantizeLinear,
                   .in_count = 1,
                   .out_count = 3};

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, dynamic_rows[_i].n), dynamic_rows[_i].lo,
                         dynamic_rows[_i].hi);
    if (dynamic_rows[_i].spoil != 0)
        trm_tensor_set_f64(&c.in[0], 290, dynamic_rows[_i].spoil == 1 ? NAN : INFINITY);
    c.out[0] = KIT_T(TRM_DTYPE_U8, dynamic_rows[_i].n);
    c.out[1] = KIT_T(TRM_DTYPE_F32);
    c.out[2] = KIT_T(TRM_DTYPE_U8);
    cuda_check(&c);
}
END_TEST

static const struct {
    const char *name;
    trm_op op;
    trm_dtype in, scale, zero, out;
    int64_t scales, block;
    trm_status want;
} refused_rows[] = {
    {"to i32", TRM_OP_QuantizeLinear, TRM_DTYPE_F32, TRM_DTYPE_F32, TRM_DTYPE_I32, TRM_DTYPE_I32, 1,
     0, TRM_ERR_UNSUPPORTED},
    {"zero point of another dtype", TRM_OP_QuantizeLinear, TRM_DTYPE_F32, TRM_DTYPE_F32,
     TRM_DTYPE_I8, TRM_DTYPE_U8, 1, 0, TRM_ERR_UNSUPPORTED},
    {"scale of i32", TRM_OP_QuantizeLinear, TRM_DTYPE_F32, TRM_DTYPE_I32, TRM_DTYPE_U8,
     TRM_DTYPE_U8, 1, 0, TRM_ERR_UNSUPPORTED},
    {"of i64", TRM_OP_DequantizeLinear, TRM_DTYPE_I64, TRM_DTYPE_F32, TRM_DTYPE_I64, TRM_DTYPE_F32,
     1, 0, TRM_ERR_UNSUPPORTED},
    {"number of scales", TRM_OP_DequantizeLinear, TRM_DTYPE_I8, TRM_DTYPE_F32, TRM_DTYPE_I8,
     TRM_DTYPE_F32, 3, 0, TRM_ERR_INVALID_ARG},
    {"negative block", TRM_OP_DequantizeLinear, TRM_DTYPE_I8, TRM_DTYPE_F32, TRM_DTYPE_I8,
     TRM_DTYPE_F32, 4, -2, TRM_ERR_INVALID_ARG},
};

START_TEST(refused)
{
    cuda_case c = {.name = refused_rows[_i].name,
                   .op = refused_rows[_i].op,
                   .attrs = kit_attrs(),
                   .in_count = 3,
                   .out_count = 1,
                   .want_prepare = refused_rows[_i].want};

    c.in[0] = kit_random(KIT_T(refused_rows[_i].in, 2, 4), 0, 4);
    c.in[1] = kit_random(KIT_T(refused_rows[_i].scale, refused_rows[_i].scales), 1, 2);
    c.in[2] = kit_random(KIT_T(refused_rows[_i].zero, refused_rows[_i].scales), 0, 4);
    c.out[0] = KIT_T(refused_rows[_i].out, 2, 4);
    kit_int(c.attrs, "block_size", refused_rows[_i].block);
    cuda_check(&c);
}
END_TEST

/* ---- RotaryEmbedding ---- */
static const struct {
    const char *name;
    int64_t x[5], cache[4];
    int64_t heads, rotary;
    bool ids, interleaved;
} rotary_rows[] = {
    {"heads first", {2, 3, 5, 16, E}, {2, 5, 8, E}, 0, 0, false, false},
    {"heads first, ids", {2, 3, 5, 16, E}, {9, 8, E}, 0, 0, true, false},
    {"heads first, interleaved", {2, 3, 5, 16, E}, {2, 5, 8, E}, 0, 0, false, true},
    {"heads last", {2, 5, 48, E}, {9, 8, E}, 3, 0, true, false},
    {"heads last, interleaved", {2, 5, 48, E}, {2, 5, 8, E}, 3, 0, false, true},
    {"a part", {2, 3, 5, 32, E}, {9, 8, E}, 0, 16, true, false},
    {"a part, interleaved", {2, 5, 96, E}, {9, 8, E}, 3, 16, true, true},
    {"odd", {1, 2, 7, 10, E}, {1, 7, 5, E}, 0, 0, false, false},
    {"odd part", {1, 2, 7, 11, E}, {9, 3, E}, 0, 6, true, true},
    {"one", {1, 1, 1, 2, E}, {1, 1, 1, E}, 0, 0, false, false},
    {"nothing", {0, 2, 3, 8, E}, {0, 3, 4, E}, 0, 0, false, false},
    {"many", {1, 8, 33, 64, E}, {40, 32, E}, 0, 0, true, false},
};

START_TEST(rotary)
{
    static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16};
    int r = _i;

    for (size_t d = 0; d < COUNT(dtypes); d++) {
        cuda_case c = {.name = rotary_rows[r].name,
                       .op = TRM_OP_RotaryEmbedding,
                       .attrs = kit_attrs(),
                       .in_count = 3,
                       .out_count = 1,
                       .as_f32 = true};
        trm_tensor x = kit_tensor(dtypes[d], rotary_rows[r].x);

        c.in[0] = kit_random(x, -2, 2);
        c.in[1] = kit_random(kit_tensor(dtypes[d], rotary_rows[r].cache), -1, 1);
        c.in[2] = kit_random(kit_tensor(dtypes[d], rotary_rows[r].cache), -1, 1);
        if (rotary_rows[r].ids)
            c.in[c.in_count++] =
                kit_random(KIT_T(TRM_DTYPE_I64, x.dims[0], x.dims[x.rank == 4 ? 2 : 1]), 0,
                           (double)rotary_rows[r].cache[0]);
        c.out[0] = kit_tensor(dtypes[d], rotary_rows[r].x);
        if (rotary_rows[r].heads > 0)
            kit_int(c.attrs, "num_heads", rotary_rows[r].heads);
        kit_int(c.attrs, "rotary_embedding_dim", rotary_rows[r].rotary);
        kit_int(c.attrs, "interleaved", rotary_rows[r].interleaved);
        /* two products of at most 2: one may be fused into the sum */
        c.atol = 3e-7;
        c.rtol = dtypes[d] == TRM_DTYPE_F16 ? 0x1p-11 : dtypes[d] == TRM_DTYPE_BF16 ? 0x1p-8 : 0;
        cuda_check(&c);
    }
}
END_TEST

START_TEST(rotary_refused)
{
    cuda_case c = {.name = "rank 2",
                   .op = TRM_OP_RotaryEmbedding,
                   .attrs = kit_attrs(),
                   .in_count = 3,
                   .out_count = 1,
                   .want_prepare = TRM_ERR_INVALID_ARG};

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 4, 8), 0, 1);
    c.in[1] = c.in[2] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 4, 4), 0, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 4, 8);
    cuda_check(&c);
    c.name = "caches of other widths";
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 1, 4, 6), 0, 1);
    cuda_check(&c);
    c.name = "a position beyond the caches";
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 1, 2, 8), 0, 1);
    c.in[1] = c.in[2] = kit_random(KIT_T(TRM_DTYPE_F32, 3, 4), 0, 1);
    c.in[3] = KIT_V(KIT_T(TRM_DTYPE_I64, 1, 2), 2, 3);
    c.in_count = 4;
    c.known[3] = true;
    cuda_check(&c);
    c.name = "f64";
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F64, 1, 1, 2, 8), 0, 1);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("quantize");

    tcase_add_loop_test(t, quantize, 0, (int)COUNT(shape_rows));
    tcase_add_loop_test(t, dequantize, 0, (int)COUNT(shape_rows));
    tcase_add_loop_test(t, ties, 0, 4);
    tcase_add_loop_test(t, dynamic, 0, (int)COUNT(dynamic_rows));
    tcase_add_loop_test(t, refused, 0, (int)COUNT(refused_rows));
    tcase_add_loop_test(t, rotary, 0, (int)COUNT(rotary_rows));
    tcase_add_test(t, rotary_refused);
    return kit_main("quantize", t);
}
