/* Cast, CastLike, BitCast, Identity, Dropout on the CUDA device: equal to the CPU's to the bit. */
#include "tests/cuda/cuda_kit.h"

#define DTYPES (TRM_DTYPE_PLAIN_COUNT - 1) /* without NONE */
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* What sits on edges of some dtype: limits and their neighbours, halves, ties of 16-bit floats,
 * doubles that two roundings would get wrong, what overflows, NaN. */
static const double edges[] = {0,
                               -0.0,
                               0.5,
                               -0.5,
                               0.999999,
                               -0.999999,
                               1,
                               -1,
                               1.5,
                               -1.5,
                               126.9,
                               127,
                               127.5,
                               128,
                               128.5,
                               129,
                               -127.5,
                               -128,
                               -128.9,
                               -129,
                               -130,
                               254.9,
                               255,
                               255.5,
                               256,
                               257,
                               32766.5,
                               32767,
                               32767.9,
                               32768,
                               -32768,
                               -32768.9,
                               -32769,
                               65535,
                               65535.9,
                               65536,
                               65504,
                               65519,
                               65520,
                               2147483647.0,
                               2147483648.0,
                               2147483904.0,
                               -2147483648.0,
                               -2147483649.0,
                               -2147483904.0,
                               4294967295.0,
                               4294967296.0,
                               9.2e18,
                               9223372036854775807.0,
                               1.8e19,
                               18446744073709551615.0,
                               1e20,
                               -1e20,
                               1e38,
                               3.4e38,
                               3.4028236e38,
                               1e300,
                               -1e300,
                               1e-300,
                               -1e-300,
                               6e-8,
                               3e-8,
                               2.9e-8,
                               1e-40,
                               1e-45,
                               0x1.004p0,
                               0x1.00401p0,
                               0x1.0040000001p0,
                               0x1.003fffffffp0,
                               0x1.01p0,
                               0x1.0100000001p0,
                               0x1.00ffffffffp0,
                               0x1.03p0,
                               -0x1.0100000001p0,
                               INFINITY,
                               -INFINITY,
                               NAN};

static trm_tensor source(trm_dtype dtype, int64_t n)
{
    trm_tensor t = kit_random(KIT_T(dtype, n), dtype == TRM_DTYPE_BOOL ? 0 : -300,
                              dtype == TRM_DTYPE_BOOL ? 2 : 300);
    unsigned char *bytes = t.data;
    size_t size = trm_dtype_bytes(dtype), count = trm_tensor_numel(&t);

    if (dtype == TRM_DTYPE_BOOL)
        return t;
    for (size_t i = 0; i < count; i++) {
        if (trm_dtype_is_float(dtype) && i < COUNT(edges))
            trm_tensor_set_f64(&t, i, edges[i]);
        else if (i % 3 == 0) /* any bits at all */
            for (size_t b = 0; b < size; b++)
                bytes[i * size + b] = (unsigned char)kit_uniform(0, 256);
    }
    return t;
}

static cuda_case cast_case(const char *name, trm_op op, trm_tensor x, trm_dtype to)
{
    cuda_case c = {.name = name, .op = op, .attrs = kit_attrs(), .in_count = 1, .out_count = 1};

    c.in[0] = x;
    c.out[0] = x;
    c.out[0].dtype = to;
    c.out[0].data = NULL;
    return c;
}

/* From each dtype to each; sizes with and without a tail, and more than a block. */
START_TEST(cast)
{
    static const int64_t sizes[] = {0, 1, 17, 1537};
    trm_dtype from = (trm_dtype)(_i + 1);

    for (int to = 1; to <= DTYPES; to++) {
        for (size_t n = 0; n < COUNT(sizes); n++) {
            char name[32];
            cuda_case c;

            snprintf(name, sizeof(name), "%s to %s", trm_dtype_name(from),
                     trm_dtype_name((trm_dtype)to));
            c = cast_case(name, n % 2 == 0 ? TRM_OP_Cast : TRM_OP_CastLike, source(from, sizes[n]),
                          (trm_dtype)to);
            if (c.op == TRM_OP_CastLike)
                c.in[c.in_count++] = kit_random(KIT_T((trm_dtype)to, 2), 0, 2);
            cuda_check(&c);
        }
    }
}
END_TEST

static const struct copy_row {
    const char *name;
    trm_op op;
    trm_dtype from, to;
} copy_rows[] = {
    {"Identity f32", TRM_OP_Identity, TRM_DTYPE_F32, TRM_DTYPE_F32},
    {"Identity bool", TRM_OP_Identity, TRM_DTYPE_BOOL, TRM_DTYPE_BOOL},
    {"BitCast f32 to u32", TRM_OP_BitCast, TRM_DTYPE_F32, TRM_DTYPE_U32},
    {"BitCast i16 to bf16", TRM_OP_BitCast, TRM_DTYPE_I16, TRM_DTYPE_BF16},
    {"Dropout f16", TRM_OP_Dropout, TRM_DTYPE_F16, TRM_DTYPE_F16},
};

START_TEST(copies)
{
    static const int64_t sizes[] = {0, 1, 731};

    for (size_t n = 0; n < COUNT(sizes); n++) {
        cuda_case c = cast_case(copy_rows[_i].name, copy_rows[_i].op,
                                source(copy_rows[_i].from, sizes[n]), copy_rows[_i].to);

        cuda_check(&c);
    }
}
END_TEST

START_TEST(dropout)
{
    trm_tensor x = kit_random(KIT_T(TRM_DTYPE_F32, 3, 201), -1, 1);
    cuda_case c = cast_case("mask", TRM_OP_Dropout, x, TRM_DTYPE_F32);

    c.in_count = 3;
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_F32), 0.5);
    c.in[2] = KIT_V(KIT_T(TRM_DTYPE_BOOL), 0);
    c.known[2] = true;
    c.out_count = 2;
    c.out[1] = KIT_T(TRM_DTYPE_BOOL, 3, 201);
    cuda_check(&c);
    c.name = "ratio 0";
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_F32), 0);
    c.in[2] = KIT_V(KIT_T(TRM_DTYPE_BOOL), 1);
    c.known[1] = true;
    cuda_check(&c);
    c.name = "training";
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_F32), 0.5);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c.name = "perhaps training";
    c.known[2] = false;
    cuda_check(&c);
}
END_TEST

START_TEST(layouts)
{
    static const trm_op ops[] = {TRM_OP_Cast, TRM_OP_Identity};
    trm_tensor x = kit_random(KIT_T(TRM_DTYPE_F32, 2, 5, 3, 7), -40, 40);
    cuda_case c = cast_case("channels last", ops[_i], x, _i == 0 ? TRM_DTYPE_BF16 : TRM_DTYPE_F32);

    c.arrives[0] = TRM_LAYOUT_CHANNELS_LAST;
    cuda_check(&c);
    ck_assert_int_eq(c.wanted[0], TRM_LAYOUT_CHANNELS_LAST);
    ck_assert_int_eq(c.gave[0], TRM_LAYOUT_CHANNELS_LAST);
}
END_TEST

START_TEST(refused)
{
    cuda_case c =
        cast_case("post-op", TRM_OP_Cast, kit_random(KIT_T(TRM_DTYPE_F32, 4), 0, 1), TRM_DTYPE_F16);

    c.posts[0] = (trm_post){.op = TRM_OP_Relu, .input = -1};
    c.post_count = 1;
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("cast");

    tcase_add_loop_test(t, cast, 0, DTYPES);
    tcase_add_loop_test(t, copies, 0, (int)COUNT(copy_rows));
    tcase_add_test(t, dropout);
    tcase_add_loop_test(t, layouts, 0, 2);
    tcase_add_test(t, refused);
    return kit_main("cast", t);
}
