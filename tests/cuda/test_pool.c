/* Poolings on the CUDA device, in both layouts. */
#include "tests/cuda/conv_kit.h"

typedef struct pool_row {
    const char *name;
    int spatial;
    int64_t n, c, in[3], kernel[3];
    int64_t stride, dilation; /* of all dims; 0: absent, 1 */
    int64_t pads[6];          /* begins, ends */
    const char *auto_pad;
    bool ceil;
} pool_row;

static const pool_row pool_rows[] = {
    {"3x3 stride 2", 2, 2, 16, {7, 8}, {3, 3}, 2, 0, {1, 1, 1, 1}, NULL, false},
    {"2x2 stride 2", 2, 1, 8, {6, 6}, {2, 2}, 2, 0, {0}, NULL, false},
    {"odd channels", 2, 2, 5, {5, 7}, {3, 2}, 0, 0, {1, 0, 1, 1}, NULL, false},
    {"one channel", 2, 2, 1, {5, 7}, {3, 3}, 0, 0, {1, 1, 1, 1}, NULL, false},
    {"ceil", 2, 1, 8, {7, 6}, {3, 3}, 2, 0, {0}, NULL, true},
    {"ceil with pads", 2, 1, 8, {8, 7}, {3, 3}, 3, 0, {1, 1, 1, 1}, NULL, true},
    {"dilated", 2, 1, 8, {9, 8}, {2, 3}, 0, 2, {1, 1, 1, 1}, NULL, false},
    {"same upper", 2, 1, 8, {7, 8}, {3, 3}, 2, 0, {0}, "SAME_UPPER", false},
    {"same lower", 2, 1, 8, {7, 8}, {3, 2}, 2, 0, {0}, "SAME_LOWER", false},
    {"valid", 2, 1, 8, {7, 8}, {3, 3}, 2, 0, {0}, "VALID", false},
    {"whole", 2, 2, 24, {5, 5}, {5, 5}, 0, 0, {0}, NULL, false},
    {"1-D", 1, 2, 16, {33}, {3}, 2, 0, {1, 1}, NULL, false},
    {"3-D", 3, 1, 8, {4, 5, 3}, {2, 2, 3}, 2, 0, {0, 1, 1, 1, 1, 1}, NULL, false},
    {"many", 2, 1, 40, {13, 11}, {2, 2}, 0, 0, {0}, NULL, false},
    {"no batch", 2, 0, 8, {4, 4}, {2, 2}, 0, 0, {0}, NULL, false},
};

static int64_t out_of(const pool_row *r, int d)
{
    int64_t stride = r->stride == 0 ? 1 : r->stride, dilation = r->dilation == 0 ? 1 : r->dilation;
    int64_t rest =
        r->in[d] + r->pads[d] + r->pads[d + r->spatial] - ((r->kernel[d] - 1) * dilation + 1);
    int64_t out = (rest + (r->ceil ? stride - 1 : 0)) / stride + 1;

    if (r->auto_pad != NULL && strncmp(r->auto_pad, "SAME", 4) == 0)
        return (r->in[d] + stride - 1) / stride;
    /* no window starts in the pads at the end */
    return r->ceil && (out - 1) * stride >= r->in[d] + r->pads[d] ? out - 1 : out;
}

static cuda_case pool_case(const pool_row *r, trm_op op, trm_dtype t, size_t type)
{
    int64_t x[6] = {r->n, r->c}, y[6] = {r->n, r->c}, list[3], terms = 1;
    size_t n = (size_t)r->spatial;
    cuda_case c;

    for (int d = 0; d < r->spatial; d++) {
        x[d + 2] = r->in[d];
        y[d + 2] = out_of(r, d);
        terms *= r->kernel[d];
    }
    x[n + 2] = y[n + 2] = -1;
    c = float_case(r->name, op, type, terms);
    c.attrs = kit_attrs();
    kit_ints(c.attrs, "kernel_shape", r->kernel, n);
    if (r->auto_pad != NULL)
        kit_string(c.attrs, "auto_pad", r->auto_pad);
    else
        kit_ints(c.attrs, "pads", r->pads, 2 * n);
    for (size_t d = 0; d < n; d++)
        list[d] = r->stride;
    if (r->stride > 0)
        kit_ints(c.attrs, "strides", list, n);
    for (size_t d = 0; d < n; d++)
        list[d] = r->dilation;
    if (r->dilation > 0)
        kit_ints(c.attrs, "dilations", list, n);
    if (r->ceil)
        kit_int(c.attrs, "ceil_mode", 1);
    if (trm_dtype_is_float(t))
        c.in[0] = kit_random(kit_tensor(t, x), -1, 1);
    else
        c.in[0] = kit_random(kit_tensor(t, x), t == TRM_DTYPE_I8 ? -128 : 0,
                             t == TRM_DTYPE_I8 ? 128 : 256);
    c.in_count = 1;
    c.out[0] = kit_tensor(t, y);
    return c;
}

static void check_both(cuda_case *c)
{
    for (int last = 0; last < 2; last++) {
        c->arrives[0] = last ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
        cuda_check(c);
        ck_assert_int_eq(c->wanted[0], c->arrives[0]);
    }
}

#define ROWS(rows) (sizeof(rows) / sizeof((rows)[0]))

static const trm_dtype max_dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16,
                                       TRM_DTYPE_F64, TRM_DTYPE_I8,  TRM_DTYPE_U8};

START_TEST(test_max)
{
    size_t row = (size_t)_i / ROWS(max_dtypes), type = (size_t)_i % ROWS(max_dtypes);
    cuda_case c = pool_case(&pool_rows[row], TRM_OP_MaxPool, max_dtypes[type], 0);

    c.as_f32 = false;
    c.atol = c.rtol = 0;
    check_both(&c);
    c.out[1] = c.out[0]; /* and where */
    c.out[1].dtype = TRM_DTYPE_I64;
    c.out_count = 2;
    check_both(&c);
    kit_int(c.attrs, "storage_order", 1);
    check_both(&c);
}
END_TEST

START_TEST(test_average)
{
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    cuda_case c = pool_case(&pool_rows[row], TRM_OP_AveragePool, float_rows[type].dtype, type);

    check_both(&c);
    kit_int(c.attrs, "count_include_pad", 1);
    check_both(&c);
}
END_TEST

START_TEST(test_lp)
{
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    cuda_case c = pool_case(&pool_rows[row], TRM_OP_LpPool, float_rows[type].dtype, type);

    for (int64_t p = 1; p <= 3; p++) {
        kit_int(c.attrs, "p", p);
        c.rtol += 1e-6; /* pow of fp32 */
        check_both(&c);
    }
}
END_TEST

/* channels and positions around the widths of vectors, warps and blocks */
static const struct {
    const char *name;
    int64_t dims[6];
} global_rows[] = {
    {"7x7", {2, 32, 7, 7, -1}},
    {"1x1", {2, 8, 1, 1, -1}},
    {"odd", {1, 37, 5, 3, -1}},
    {"wide", {1, 300, 3, 3, -1}},
    {"few channels", {1, 3, 19, 17, -1}},
    {"one channel", {3, 1, 6, 6, -1}},
    {"1-D", {2, 16, 70, -1}},
    {"3-D", {1, 24, 3, 4, 5, -1}},
    {"no batch", {0, 8, 4, 4, -1}},
};

START_TEST(test_global)
{
    static const trm_op ops[] = {TRM_OP_GlobalMaxPool, TRM_OP_GlobalAveragePool,
                                 TRM_OP_GlobalLpPool};
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    trm_dtype t = float_rows[type].dtype;
    const int64_t *dims = global_rows[row].dims;
    int64_t y[6] = {dims[0], dims[1]}, terms = 1;

    for (int d = 2; dims[d - 1] >= 0; d++) {
        y[d] = dims[d] < 0 ? -1 : 1;
        terms *= dims[d] < 0 ? 1 : dims[d];
    }
    for (size_t i = 0; i < ROWS(ops); i++) {
        cuda_case c = float_case(global_rows[row].name, ops[i], type, terms);

        c.rtol += 1e-6;
        c.attrs = kit_attrs();
        c.in[0] = kit_random(kit_tensor(t, dims), -1, 1);
        c.out[0] = kit_tensor(t, y);
        c.in_count = 1;
        check_both(&c);
        ck_assert_str_eq(c.kernel, "global pool");
        if (i != 2)
            continue;
        kit_int(c.attrs, "p", 3);
        check_both(&c);
    }
}
END_TEST

START_TEST(test_global_bytes)
{
    trm_dtype t = _i % 2 == 0 ? TRM_DTYPE_I8 : TRM_DTYPE_U8;
    int64_t channels = _i / 2 == 0 ? 16 : 5;
    cuda_case c = {.name = trm_dtype_name(t),
                   .op = TRM_OP_GlobalMaxPool,
                   .attrs = kit_attrs(),
                   .in_count = 1,
                   .out_count = 1};

    c.in[0] = kit_random(KIT_T(t, 2, channels, 5, 7), t == TRM_DTYPE_I8 ? -128 : 0,
                         t == TRM_DTYPE_I8 ? -3 : 200);
    c.out[0] = KIT_T(t, 2, channels, 1, 1);
    check_both(&c);
}
END_TEST

/* NaN wins (as the reference says; the CPU's library passes over it), -inf is a value, windows of
 * padding alone. */
START_TEST(test_special)
{
    cuda_case c = {.name = "special",
                   .op = TRM_OP_MaxPool,
                   .attrs = kit_attrs(),
                   .in_count = 1,
                   .out_count = 2};

    kit_ints(c.attrs, "kernel_shape", (const int64_t[]){3}, 1);
    c.in[0] = KIT_V(KIT_T(TRM_DTYPE_F32, 1, 1, 9), 1, NAN, 2, -INFINITY, -INFINITY, -INFINITY, 3,
                    NAN, NAN);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 1, 1, 7);
    c.out[1] = KIT_T(TRM_DTYPE_I64, 1, 1, 7);
    cuda_check(&c);
    c.out_count = 1;
    c.in[0] = KIT_V(KIT_T(TRM_DTYPE_F32, 1, 1, 9), 1, -INFINITY, 2, -INFINITY, -5, -INFINITY, 3,
                    INFINITY, 4);
    cuda_check(&c);
    c.op = TRM_OP_AveragePool;
    kit_ints(c.attrs, "pads", (const int64_t[]){3, 0}, 2);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 1, 1, 10);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 1, 9), -1, 1);
    c.atol = c.rtol = 1e-6;
    cuda_check(&c);
    kit_int(c.attrs, "count_include_pad", 1);
    cuda_check(&c);
}
END_TEST

START_TEST(test_refused)
{
    cuda_case c = {.name = "integers",
                   .op = TRM_OP_AveragePool,
                   .attrs = kit_attrs(),
                   .in_count = 1,
                   .out_count = 1,
                   .want_prepare = TRM_ERR_UNSUPPORTED};

    kit_ints(c.attrs, "kernel_shape", (const int64_t[]){2, 2}, 2);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_I8, 1, 2, 4, 4), 0, 9);
    c.out[0] = KIT_T(TRM_DTYPE_I8, 1, 2, 3, 3);
    cuda_check(&c);
    c.name = "p";
    c.op = TRM_OP_LpPool;
    c.want_prepare = TRM_ERR_INVALID_ARG;
    kit_int(c.attrs, "p", 0);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 2, 4, 4), 0, 9);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 1, 2, 3, 3);
    cuda_check(&c);
    c.name = "rank";
    c.op = TRM_OP_MaxPool;
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 4, 4), 0, 9);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 4, 4);
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("pool");
    const int rows = (int)ROWS(pool_rows);

    kit_cache_folder();
    tcase_add_loop_test(t, test_max, 0, rows * (int)ROWS(max_dtypes));
    tcase_add_loop_test(t, test_average, 0, rows * KIT_FLOATS);
    tcase_add_loop_test(t, test_lp, 0, rows * KIT_FLOATS);
    tcase_add_loop_test(t, test_global, 0, (int)ROWS(global_rows) * KIT_FLOATS);
    tcase_add_loop_test(t, test_global_bytes, 0, 4);
    tcase_add_test(t, test_special);
    tcase_add_test(t, test_refused);
    return kit_main("cuda/pool", t);
}
