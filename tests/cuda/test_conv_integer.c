/* ConvInteger and QLinearConv on the CUDA device: exact. */
#include "tests/cuda/conv_kit.h"

typedef struct integer_row {
    const char *name;
    int64_t n, c, m, group, in[2], kernel[2], stride, pads[4];
} integer_row;

static const integer_row rows[] = {
    {"3x3", 2, 8, 16, 1, {6, 7}, {3, 3}, 1, {1, 1, 1, 1}},
    {"1x1", 1, 16, 5, 1, {5, 5}, {1, 1}, 1, {0}},
    {"3 channels", 1, 3, 8, 1, {9, 8}, {3, 3}, 2, {1, 0, 0, 1}},
    {"6 channels", 1, 6, 7, 1, {5, 5}, {3, 3}, 1, {0}},
    {"groups", 1, 12, 6, 3, {5, 6}, {3, 3}, 1, {1, 1, 1, 1}},
    {"wide groups", 1, 32, 8, 2, {4, 5}, {3, 3}, 1, {1, 1, 1, 1}},
    {"depthwise", 1, 8, 8, 8, {5, 6}, {3, 3}, 1, {1, 1, 1, 1}},
    {"crop", 1, 8, 8, 1, {7, 8}, {3, 3}, 1, {-1, 0, 1, -1}},
    {"no batch", 0, 8, 8, 1, {7, 8}, {3, 3}, 1, {0}},
};

/* zero points: none; of x; of w; of both, w's one a filter */
enum { NO_ZERO, X_ZERO, W_ZERO, BOTH, ZEROS };
/* dtypes of x and w */
static const trm_dtype pairs[][2] = {{TRM_DTYPE_I8, TRM_DTYPE_I8},
                                     {TRM_DTYPE_U8, TRM_DTYPE_I8},
                                     {TRM_DTYPE_U8, TRM_DTYPE_U8},
                                     {TRM_DTYPE_I8, TRM_DTYPE_U8}};
#define PAIRS 4

static trm_tensor bytes(trm_tensor t)
{
    return kit_random(t, t.dtype == TRM_DTYPE_I8 ? -128 : 0, t.dtype == TRM_DTYPE_I8 ? 128 : 256);
}

static cuda_case base_case(const integer_row *r, trm_op op)
{
    cuda_case c = {.name = r->name, .op = op, .out_count = 1, .attrs = kit_attrs()};

    kit_ints(c.attrs, "pads", r->pads, 4);
    kit_ints(c.attrs, "strides", (const int64_t[]){r->stride, r->stride}, 2);
    if (r->group > 1)
        kit_int(c.attrs, "group", r->group);
    return c;
}

static trm_tensor out_tensor(const integer_row *r, trm_dtype t)
{
    return KIT_T(t, r->n, r->m, (r->in[0] + r->pads[0] + r->pads[2] - r->kernel[0]) / r->stride + 1,
                 (r->in[1] + r->pads[1] + r->pads[3] - r->kernel[1]) / r->stride + 1);
}

START_TEST(test_conv_integer)
{
    const integer_row *r = &rows[_i / (PAIRS * ZEROS)];
    const trm_dtype *t = pairs[_i / ZEROS % PAIRS];
    int zeros = _i % ZEROS;
    cuda_case c = base_case(r, TRM_OP_ConvInteger);

    c.in[0] = bytes(KIT_T(t[0], r->n, r->c, r->in[0], r->in[1]));
    c.in[1] = bytes(KIT_T(t[1], r->m, r->c / r->group, r->kernel[0], r->kernel[1]));
    c.in_count = 2;
    if (zeros == X_ZERO || zeros == BOTH) {
        c.in[2] = bytes(KIT_T(t[0], 1));
        c.in_count = 3;
    }
    if (zeros == W_ZERO || zeros == BOTH) {
        c.in[3] = zeros == BOTH ? bytes(KIT_T(t[1], r->m)) : bytes(KIT_T(t[1], 1));
        c.in_count = 4;
    }
    c.out[0] = out_tensor(r, TRM_DTYPE_I32);
    for (int known = 0; known < 2; known++) {
        c.known[1] = c.known[3] = known != 0;
        c.arrives[0] = known != 0 ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
        cuda_check(&c);
    }
}
END_TEST

/* The scales are not known to prepare: the CPU then computes by the definition. */
START_TEST(test_qlinear)
{
    const integer_row *r = &rows[_i / (PAIRS * ZEROS)];
    const trm_dtype *t = pairs[_i / ZEROS % PAIRS];
    int zeros = _i % ZEROS;
    bool w_zero = zeros == W_ZERO || zeros == BOTH, x_zero = zeros == X_ZERO || zeros == BOTH;
    trm_dtype y = _i % 2 == 0 ? TRM_DTYPE_I8 : TRM_DTYPE_U8;
    int64_t terms = r->c / r->group * r->kernel[0] * r->kernel[1];
    cuda_case c = base_case(r, TRM_OP_QLinearConv);

    c.in[0] = bytes(KIT_T(t[0], r->n, r->c, r->in[0], r->in[1]));
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_F32), 0.0371);
    c.in[2] = x_zero ? bytes(KIT_T(t[0])) : KIT_V(KIT_T(t[0]), 0);
    c.in[3] = bytes(KIT_T(t[1], r->m, r->c / r->group, r->kernel[0], r->kernel[1]));
    c.in[4] = zeros == NO_ZERO ? KIT_V(KIT_T(TRM_DTYPE_F32), 0.019)
                               : kit_random(KIT_T(TRM_DTYPE_F32, r->m), 0.01, 0.03);
    c.in[5] = zeros == BOTH ? bytes(KIT_T(t[1], r->m))
              : w_zero      ? bytes(KIT_T(t[1]))
                            : KIT_V(KIT_T(t[1]), 0);
    /* sums spread over the bytes, and past both ends */
    c.in[6] = KIT_V(KIT_T(TRM_DTYPE_F32), 0.0371 * 0.02 * 60 * sqrt((double)terms));
    c.in[7] = bytes(KIT_T(y));
    c.in[8] = kit_random(KIT_T(TRM_DTYPE_I32, r->m), -5000, 5000);
    c.in_count = _i % 3 == 0 ? 8 : 9;
    c.out[0] = out_tensor(r, y);
    for (int known = 0; known < 2; known++) {
        c.known[3] = known != 0;
        c.known[2] = c.known[5] = known != 0;
        cuda_check(&c);
        if (known != 0 && r->n > 0 && r->group < 3)
            ck_assert_str_eq(c.kernel, t[1] == TRM_DTYPE_I8 && !w_zero ? "cudnn integer conv"
                                                                       : "integer conv");
    }
}
END_TEST

/* 1-D and 3-D */
START_TEST(test_dims)
{
    for (int known = 0; known < 2; known++) {
        cuda_case c = {.name = "1-D", .op = TRM_OP_ConvInteger, .in_count = 3, .out_count = 1};

        c.attrs = kit_attrs();
        kit_ints(c.attrs, "pads", (const int64_t[]){1, 2}, 2);
        c.in[0] = bytes(KIT_T(TRM_DTYPE_U8, 2, 5, 9));
        c.in[1] = bytes(KIT_T(TRM_DTYPE_I8, 4, 5, 3));
        c.in[2] = bytes(KIT_T(TRM_DTYPE_U8));
        c.out[0] = KIT_T(TRM_DTYPE_I32, 2, 4, 10);
        c.known[1] = known != 0;
        cuda_check(&c);
        c.name = "3-D";
        c.attrs = kit_attrs();
        kit_ints(c.attrs, "dilations", (const int64_t[]){1, 2, 1}, 3);
        c.in[0] = bytes(KIT_T(TRM_DTYPE_U8, 1, 4, 3, 5, 4));
        c.in[1] = bytes(KIT_T(TRM_DTYPE_I8, 4, 4, 2, 2, 2));
        c.out[0] = KIT_T(TRM_DTYPE_I32, 1, 4, 2, 3, 3);
        cuda_check(&c);
    }
}
END_TEST

START_TEST(test_refused)
{
    cuda_case c = base_case(&rows[0], TRM_OP_ConvInteger);

    c.name = "dtype";
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_I32, 2, 8, 6, 7), 0, 9);
    c.in[1] = bytes(KIT_T(TRM_DTYPE_I8, 16, 8, 3, 3));
    c.in_count = 2;
    c.out[0] = out_tensor(&rows[0], TRM_DTYPE_I32);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c.name = "zero points";
    c.in[0] = bytes(KIT_T(TRM_DTYPE_I8, 2, 8, 6, 7));
    c.in[3] = bytes(KIT_T(TRM_DTYPE_I8, 3));
    c.in_count = 4;
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c.name = "group";
    c.in_count = 2;
    kit_int(c.attrs, "group", 2);
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("conv_integer");
    const int count = (int)(sizeof(rows) / sizeof(rows[0])) * PAIRS * ZEROS;

    kit_cache_folder();
    tcase_add_loop_test(t, test_conv_integer, 0, count);
    tcase_add_loop_test(t, test_qlinear, 0, count);
    tcase_add_test(t, test_dims);
    tcase_add_test(t, test_refused);
    return kit_main("cuda/conv_integer", t);
}
