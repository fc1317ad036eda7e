/* MatMulInteger and QLinearMatMul on the CUDA device: exact, whichever way they run. */
#include "tests/cuda/dense_kit.h"

/* Zero points and scales: absent, one, one a row (column), one a row of all matrices. */
enum { NONE, ONE, EACH, ALL };

static const struct {
    const char *name;
    int64_t a[5], b[5], y[5]; /* -1 ends */
    int a_params, b_params;
    bool known; /* B and the parameters */
    const char *kernel;
} rows[] = {
    {"small", {5, 7, -1}, {7, 3, -1}, {5, 3, -1}, ONE, ONE, false, "dp4a matmul"},
    {"small known", {5, 7, -1}, {7, 3, -1}, {5, 3, -1}, ONE, ONE, true, "dp4a matmul"},
    {"each", {5, 9, -1}, {9, 3, -1}, {5, 3, -1}, EACH, EACH, true, "dp4a matmul"},
    {"batch", {2, 5, 9, -1}, {2, 9, 3, -1}, {2, 5, 3, -1}, EACH, EACH, false, "dp4a matmul"},
    {"batch all", {2, 5, 9, -1}, {2, 9, 3, -1}, {2, 5, 3, -1}, ALL, ALL, false, "dp4a matmul"},
    {"broadcast", {5, 9, -1}, {2, 9, 3, -1}, {2, 5, 3, -1}, ONE, EACH, false, "dp4a matmul"},
    {"vectors", {9, -1}, {9, -1}, {-1}, ONE, ONE, false, "dp4a matmul"},
    {"tiles", {70, 133, -1}, {133, 66, -1}, {70, 66, -1}, ONE, EACH, false, "dp4a matmul"},
    {"no rows", {0, 9, -1}, {9, 3, -1}, {0, 3, -1}, ONE, ONE, false, "dp4a matmul"},
    {"no terms", {2, 0, -1}, {0, 3, -1}, {2, 3, -1}, ONE, ONE, false, "dp4a matmul"},
    {"library", {34, 64, -1}, {64, 48, -1}, {34, 48, -1}, ONE, EACH, true, "cublaslt i8 matmul"},
    {"library rows",
     {2, 17, 64, -1},
     {64, 48, -1},
     {2, 17, 48, -1},
     ONE,
     ONE,
     true,
     "cublaslt i8 matmul"},
    {"library each",
     {34, 64, -1},
     {64, 48, -1},
     {34, 48, -1},
     EACH,
     ONE,
     true,
     "cublaslt i8 matmul"},
    {"library none",
     {34, 64, -1},
     {64, 48, -1},
     {34, 48, -1},
     NONE,
     NONE,
     true,
     "cublaslt i8 matmul"},
};
#define ROWS ((int)(sizeof(rows) / sizeof(rows[0])))

static trm_tensor bytes_of(trm_dtype t, const int64_t *dims)
{
    return kit_random(kit_tensor(t, dims), t == TRM_DTYPE_I8 ? -128 : 0,
                      t == TRM_DTYPE_I8 ? 128 : 256);
}

/* A parameter of operand `t`, whose matrices have `each` rows or columns. */
static trm_tensor param(const trm_tensor *t, int kind, trm_dtype dtype, int64_t each)
{
    int64_t n = kind == ONE ? 1 : each;
    trm_tensor p;

    if (kind == NONE)
        return (trm_tensor){.dtype = TRM_DTYPE_NONE};
    if (kind == ALL)
        n *= t->dims[0];
    p = kind == ONE ? KIT_T(dtype) : KIT_T(dtype, n);
    if (dtype == TRM_DTYPE_F32)
        return kit_random(p, 0.01, 0.02);
    return kit_random(p, dtype == TRM_DTYPE_I8 ? -9 : 120, dtype == TRM_DTYPE_I8 ? 9 : 136);
}

START_TEST(test_products)
{
    int row = _i / 8, types = _i % 8;
    trm_dtype at = types & 1 ? TRM_DTYPE_I8 : TRM_DTYPE_U8;
    trm_dtype bt = types & 2 ? TRM_DTYPE_I8 : TRM_DTYPE_U8;
    bool linear = (types & 4) != 0;
    trm_tensor a = bytes_of(at, rows[row].a), b = bytes_of(bt, rows[row].b);
    int64_t m = a.rank == 1 ? 1 : a.dims[a.rank - 2], n = b.rank == 1 ? 1 : b.dims[b.rank - 1];
    int ap = rows[row].a_params, bp = rows[row].b_params;
    cuda_case c = {.name = rows[row].name, .out_count = 1};

    c.in[0] = a;
    c.op = linear ? TRM_OP_QLinearMatMul : TRM_OP_MatMulInteger;
    if (linear) {
        int ab = ap == NONE ? ONE : ap, bb = bp == NONE ? ONE : bp;

        c.in[1] = param(&a, ab, TRM_DTYPE_F32, m);
        c.in[2] = param(&a, ab, at, m);
        c.in[3] = b;
        c.in[4] = param(&b, bb, TRM_DTYPE_F32, n);
        c.in[5] = param(&b, bb, bt, n);
        c.in[6] = kit_random(KIT_T(TRM_DTYPE_F32), 0.3, 0.4);
        c.in[7] = param(&a, ONE, at, m);
        c.in_count = 8;
    } else {
        c.in[1] = b;
        c.in[2] = param(&a, ap, at, m);
        c.in[3] = param(&b, bp, bt, n);
        c.in_count = 4;
    }
    c.out[0] = kit_tensor(linear ? at : TRM_DTYPE_I32, rows[row].y);
    for (int i = 1; i < c.in_count; i++)
        c.known[i] = rows[row].known;
    cuda_check(&c);
    ck_assert_str_eq(c.kernel, rows[row].kernel);
    if (!rows[row].known)
        return;
    for (int i = 1; i < c.in_count; i++) /* as dynamic quantisation has it: only B is known */
        c.known[i] = i == (linear ? 3 : 1);
    cuda_check(&c);
}
END_TEST

/* The library has no algorithm. */
START_TEST(test_without_library)
{
    cuda_case c = {.name = "no algorithm",
                   .op = TRM_OP_MatMulInteger,
                   .in_count = 2,
                   .out_count = 1,
                   .known = {[1] = true}};

    setenv("TRM_EMU_BLASLT", "none", 1);
    c.in[0] = bytes_of(TRM_DTYPE_U8, (const int64_t[]){33, 80, -1});
    c.in[1] = bytes_of(TRM_DTYPE_I8, (const int64_t[]){80, 48, -1});
    c.out[0] = KIT_T(TRM_DTYPE_I32, 33, 48);
    cuda_check(&c);
    unsetenv("TRM_EMU_BLASLT");
}
END_TEST

START_TEST(test_refused)
{
    cuda_case c = {.name = "refused", .op = TRM_OP_MatMulInteger, .in_count = 3, .out_count = 1};

    c.want_prepare = TRM_ERR_INVALID_ARG;
    c.in[0] = bytes_of(TRM_DTYPE_U8, (const int64_t[]){3, 8, -1});
    c.in[1] = bytes_of(TRM_DTYPE_I8, (const int64_t[]){8, 4, -1});
    c.in[2] = bytes_of(TRM_DTYPE_U8, (const int64_t[]){2, -1}); /* neither 1 nor 3 */
    c.out[0] = KIT_T(TRM_DTYPE_I32, 3, 4);
    cuda_check(&c);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    c.in[2] = bytes_of(TRM_DTYPE_I8, (const int64_t[]){-1}); /* of another dtype */
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("dense int");

    tcase_add_loop_test(t, test_products, 0, ROWS * 8);
    tcase_add_test(t, test_without_library);
    tcase_add_test(t, test_refused);
    return dense_main("cuda/dense_int", t);
}
