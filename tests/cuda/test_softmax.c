/* Softmax, LogSoftmax, Hardmax on the CUDA device against the CPU device. */
#include "tests/cuda/cuda_kit.h"

typedef struct softmax_row {
    const char *name;
    int64_t dims[TRM_RANK_MAX + 1];
    int64_t axis;
    bool flatten, last;
} softmax_row;

static const softmax_row rows[] = {
    {"scalar", {-1}, -1, .flatten = false},
    {"one", {1, 1, -1}, -1, .flatten = false},
    {"short", {9, 7, -1}, -1, .flatten = false},
    {"a warp, packs", {5, 128, -1}, -1, .flatten = false},
    {"a warp, straddles", {5, 129, -1}, 1, .flatten = false},
    {"few rows, a block each", {2, 3, 200, -1}, -1, .flatten = false},
    {"many rows of 24", {1061, 24, -1}, -1, .flatten = false},
    {"many rows of 132, packs", {1060, 132, -1}, -1, .flatten = false},
    {"many rows of 133", {1059, 133, -1}, -1, .flatten = false},
    {"many rows of 264", {1057, 264, -1}, -1, .flatten = false},
    {"many rows of 1031", {1056, 1031, -1}, -1, .flatten = false},
    {"1000 classes", {1, 1000, -1}, 1, .flatten = false},
    {"8192", {2, 8192, -1}, 1, .flatten = false},
    {"long, packs", {2, 9000, -1}, 1, .flatten = false},
    {"long, odd", {1, 8201, -1}, 1, .flatten = false},
    {"columns", {13, 50, -1}, 0, .flatten = false},
    {"columns, few", {70, 3, -1}, 0, .flatten = false},
    {"the middle", {2, 21, 5, 7, -1}, 1, .flatten = false},
    {"the middle of one", {2, 1, 5, 7, -1}, 1, .flatten = false},
    {"many columns", {2, 3, 70000, -1}, 1, .flatten = false},
    {"channels last, its row", {2, 21, 5, 7, -1}, 1, .last = true},
    {"channels last, packs", {2, 16, 5, 7, -1}, 1, .last = true},
    {"channels last, lines", {2, 6, 5, 7, -1}, 2, .last = true},
    {"channels last, columns", {2, 6, 5, 7, -1}, -1, .last = true},
    {"channels last, batch", {3, 6, 5, 7, -1}, 0, .last = true},
    {"flattened", {3, 4, 5, -1}, 1, .flatten = true},
    {"flattened all", {3, 4, 5, -1}, 0, .flatten = true},
    {"flattened none", {3, 4, -1}, 2, .flatten = true},
    {"flattened, channels last", {3, 4, 5, 2, -1}, 1, .flatten = true, .last = true},
    {"no elements", {3, 0, 2, -1}, 1, .flatten = false},
    {"no rows", {0, 5, -1}, 1, .flatten = false},
};

static const trm_op operators[] = {TRM_OP_Softmax, TRM_OP_LogSoftmax, TRM_OP_Hardmax};
static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64};

/* exp to 2 ulp (the CPU's: 4) of differences of up to 16, and sums in another order: 1e-5; 16-bit
 * results: one rounding */
static void tolerate(cuda_case *c, trm_dtype dtype)
{
    c->as_f32 = dtype == TRM_DTYPE_F16 || dtype == TRM_DTYPE_BF16;
    c->rtol = dtype == TRM_DTYPE_F64   ? 1e-12
              : dtype == TRM_DTYPE_F32 ? 1e-5
              : dtype == TRM_DTYPE_F16 ? 0x1p-11 + 1e-5
                                       : 0x1p-8 + 1e-5;
    c->atol = dtype == TRM_DTYPE_F64 ? 1e-14 : dtype == TRM_DTYPE_F16 ? 0x1p-24 : 1e-7;
    if (c->op == TRM_OP_LogSoftmax && dtype != TRM_DTYPE_F64)
        c->atol = 0x1p-19; /* the CPU subtracts logarithms of up to 16 from x: two of their ulps */
}

START_TEST(test_softmax)
{
    const softmax_row *s = &rows[_i];
    trm_tensor probe = kit_tensor(TRM_DTYPE_F32, s->dims);
    bool big = trm_tensor_numel(&probe) > 100000;

    for (size_t o = 0; o < 3; o++)
        for (size_t t = 0; t < 4; t++) {
            trm_tensor in = kit_tensor(dtypes[t], s->dims);
            char name[128];
            cuda_case c = {.op = operators[o], .name = name, .in_count = 1, .out_count = 1};

            if (big && o != t % 3) /* every operator and dtype once */
                continue;
            snprintf(name, sizeof(name), "%s of %s: %s", trm_op_get(operators[o])->name,
                     trm_dtype_name(dtypes[t]), s->name);
            c.attrs = kit_int(kit_attrs(), "axis", s->axis);
            if (s->flatten)
                kit_int(c.attrs, "flatten", 1);
            c.in[0] = kit_random(in, -8, 8);
            if (o == 2) /* equals: the first wins */
                c.in[0] = kit_random(kit_tensor(dtypes[t], s->dims), -2, 2);
            for (size_t i = 0; o == 2 && i < trm_tensor_numel(&in); i++)
                trm_tensor_set_f64(&c.in[0], i, floor(trm_tensor_get_f64(&c.in[0], i)));
            c.out[0] = in;
            c.arrives[0] = s->last ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
            tolerate(&c, dtypes[t]);
            cuda_check(&c);
            if (s->last)
                ck_assert_msg(s->flatten == (c.gave[0] == TRM_LAYOUT_PLAIN), "%s", name);
        }
}
END_TEST

static const double odd_values[][6] = {
    {1, NAN, 3, 2, 5, 4},
    {NAN, 1, 2, 3, 4, 5},
    {INFINITY, 1, 2, 3, 4, 5},
    {-INFINITY, 1, 2, 3, 4, 5},
    {5, 4, -INFINITY, -INFINITY, -INFINITY, 3},
    {-INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
    {1e30, -1e30, 0, 1e30, 3, 4},
    {-0.0, 0, 0, -0.0, 0, 0},
    {1000, 1001, 999, 1000, 998, 1002},
};

/* repeated to rows of each kernel, and down columns */
START_TEST(test_odd_values)
{
    static const int64_t lengths[] = {6, 144, 1002, 9000};

    for (size_t o = 0; o < 3; o++)
        for (int variant = 0; variant < 16; variant++) {
            int64_t n = lengths[variant >> 2];
            bool columns = (variant & 1) != 0;
            trm_dtype dtype = (variant & 2) != 0 ? TRM_DTYPE_F64 : TRM_DTYPE_F32;
            cuda_case c = {.op = operators[o], .in_count = 1, .out_count = 1, .rtol = 1e-5};

            if (columns && n > 200)
                continue;
            if (o == 1 && dtype == TRM_DTYPE_F32 && odd_values[_i][0] >= 1000)
                continue; /* there log(sum) is lost beside the maximum on the CPU */
            c.in[0] = kit_data(columns ? KIT_T(dtype, n, 2) : KIT_T(dtype, 2, n));
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < 2; j++) /* the second: from the third on */
                    trm_tensor_set_f64(&c.in[0], (size_t)(columns ? i * 2 + j : j * n + i),
                                       odd_values[_i][(i + 2 * j) % 6]);
            c.attrs = kit_int(kit_attrs(), "axis", columns ? 0 : 1);
            c.out[0] = c.in[0];
            cuda_check(&c);
        }
}
END_TEST

START_TEST(test_refused)
{
    cuda_case c = {.op = TRM_OP_Softmax, .in_count = 1, .out_count = 1};

    c.attrs = kit_int(kit_attrs(), "axis", 2);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 3), 0, 1);
    c.out[0] = c.in[0];
    c.name = "axis out of range";
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c.attrs = kit_int(kit_attrs(), "axis", 1);
    c.name = "posts";
    c.post_count = 1;
    c.posts[0] = (trm_post){.op = TRM_OP_Relu, .input = -1};
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c.name = "integers";
    c.post_count = 0;
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_I32, 2, 3), 0, 9);
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("softmax");

    tcase_add_loop_test(t, test_softmax, 0, (int)(sizeof(rows) / sizeof(rows[0])));
    tcase_add_loop_test(t, test_odd_values, 0, (int)(sizeof(odd_values) / sizeof(odd_values[0])));
    tcase_add_test(t, test_refused);
    return kit_main("cuda softmax", t);
}
