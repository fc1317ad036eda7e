/* Matrix products on the CUDA device: MatMul and Gemm with their post-ops. */
#include "tests/cuda/dense_kit.h"

/* ---- MatMul: shapes ---- */
static const struct {
    const char *name;
    int64_t a[6], b[6], y[6]; /* -1 ends */
} shape_rows[] = {
    {"square", {32, 32, -1}, {32, 32, -1}, {32, 32, -1}},
    {"odd", {5, 7, -1}, {7, 3, -1}, {5, 3, -1}},
    {"one", {1, 1, -1}, {1, 1, -1}, {1, 1, -1}},
    {"row", {1, 70, -1}, {70, 66, -1}, {1, 66, -1}},
    {"column", {66, 70, -1}, {70, 1, -1}, {66, 1, -1}},
    {"outer", {9, 1, -1}, {1, 11, -1}, {9, 11, -1}},
    {"vectors", {13, -1}, {13, -1}, {-1}},
    {"vector matrix", {13, -1}, {13, 5, -1}, {5, -1}},
    {"matrix vector", {5, 13, -1}, {13, -1}, {5, -1}},
    {"vector batch", {6, -1}, {3, 6, 4, -1}, {3, 4, -1}},
    {"batch vector", {3, 4, 6, -1}, {6, -1}, {3, 4, -1}},
    {"rows", {2, 3, 4, 8, -1}, {8, 16, -1}, {2, 3, 4, 16, -1}},
    {"batch", {2, 3, 4, 8, -1}, {2, 3, 8, 6, -1}, {2, 3, 4, 6, -1}},
    {"left one", {4, 8, -1}, {3, 8, 6, -1}, {3, 4, 6, -1}},
    {"outer ones", {2, 1, 4, 8, -1}, {1, 3, 8, 6, -1}, {2, 3, 4, 6, -1}},
    {"inner one", {2, 3, 4, 8, -1}, {2, 1, 8, 6, -1}, {2, 3, 4, 6, -1}},
    {"right ranks", {3, 4, 8, -1}, {2, 1, 8, 6, -1}, {2, 3, 4, 6, -1}},
    {"no rows", {0, 8, -1}, {8, 6, -1}, {0, 6, -1}},
    {"no columns", {2, 8, -1}, {8, 0, -1}, {2, 0, -1}},
    {"no terms", {2, 0, -1}, {0, 6, -1}, {2, 6, -1}},
    {"no batch", {0, 4, 8, -1}, {8, 6, -1}, {0, 4, 6, -1}},
};

START_TEST(test_shapes)
{
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    cuda_case c = float_case(shape_rows[row].name, TRM_OP_MatMul, type, 8);

    c.in[0] = kit_random(kit_tensor(float_rows[type].dtype, shape_rows[row].a), -1, 1);
    c.in[1] = kit_random(kit_tensor(float_rows[type].dtype, shape_rows[row].b), -1, 1);
    c.out[0] = kit_tensor(float_rows[type].dtype, shape_rows[row].y);
    c.in_count = 2;
    for (int known = 0; known < 2; known++) {
        c.known[1] = known != 0;
        cuda_check(&c);
    }
}
END_TEST

/* Many outer batches: one launch of our own kernel. */
START_TEST(test_many_loops)
{
    cuda_case c = float_case("many loops", TRM_OP_MatMul, 0, 8);

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 66, 1, 3, 5), -1, 1);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 66, 5, 2), -1, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 66, 66, 3, 2);
    c.in_count = 2;
    cuda_check(&c);
    ck_assert_str_eq(c.kernel, "tiled matmul");
}
END_TEST

/* ---- our own kernel: what it does where the library has nothing ---- */
static const struct {
    const char *name;
    int64_t m, n, k;
} own_rows[] = {
    {"own: tile", 64, 64, 16},
    {"own: under", 63, 65, 17},
    {"own: over", 130, 67, 33},
    {"own: thin", 3, 129, 40},
};

START_TEST(test_own)
{
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    trm_dtype t = float_rows[type].dtype;
    cuda_case c = float_case(own_rows[row].name, TRM_OP_MatMul, type, own_rows[row].k);
    int64_t m = own_rows[row].m, n = own_rows[row].n, k = own_rows[row].k;

    setenv("TRM_EMU_BLASLT", "none", 1);
    c.in[0] = kit_random(KIT_T(t, m, k), -1, 1);
    c.in[1] = kit_random(KIT_T(t, k, n), -1, 1);
    c.in[2] = kit_random(KIT_T(t, n), -1, 1);
    c.in[3] = kit_random(KIT_T(t, m, n), -1, 1);
    c.out[0] = KIT_T(t, m, n);
    c.in_count = 4;
    c.posts[c.post_count++] = (trm_post){.op = TRM_OP_Add, .input = 2};
    c.posts[c.post_count++] = (trm_post){.op = TRM_OP_Sigmoid, .input = -1};
    c.posts[c.post_count++] = (trm_post){.op = TRM_OP_Mul, .input = 3};
    cuda_check(&c);
    unsetenv("TRM_EMU_BLASLT");
    if (getenv("TRM_CUDA_DRIVER") != NULL)
        ck_assert_str_eq(c.kernel, "tiled matmul");
}
END_TEST

static const trm_dtype int_rows[] = {TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16, TRM_DTYPE_U16,
                                     TRM_DTYPE_I32, TRM_DTYPE_U32, TRM_DTYPE_I64, TRM_DTYPE_U64};

START_TEST(test_integers)
{
    trm_dtype t = int_rows[_i];
    bool is_signed = trm_dtype_is_signed_int(t);
    cuda_case c = {.name = trm_dtype_name(t), .op = TRM_OP_MatMul, .in_count = 2, .out_count = 1};

    c.in[0] = kit_random(KIT_T(t, 2, 5, 7), is_signed ? -9 : 0, 9);
    c.in[1] = kit_random(KIT_T(t, 2, 7, 3), is_signed ? -9 : 0, 9);
    c.out[0] = KIT_T(t, 2, 5, 3);
    cuda_check(&c);
    c.op = TRM_OP_Gemm;
    c.attrs = kit_int(kit_attrs(), "transA", 1);
    c.in[0] = kit_random(KIT_T(t, 7, 5), is_signed ? -9 : 0, 9);
    c.in[1] = kit_random(KIT_T(t, 7, 3), is_signed ? -9 : 0, 9);
    c.out[0] = KIT_T(t, 5, 3);
    cuda_check(&c);
}
END_TEST

/* ---- Gemm ---- */
static const struct {
    const char *name;
    int ta, tb;
    float alpha, beta;
    int64_t c[3]; /* dims of C; -2: none */
} gemm_rows[] = {
    {"plain", 0, 0, 1.0f, 1.0f, {-2, -1}},
    {"A transposed", 1, 0, 1.0f, 1.0f, {-2, -1}},
    {"B transposed", 0, 1, 1.0f, 1.0f, {-2, -1}},
    {"both", 1, 1, 0.5f, 1.0f, {-2, -1}},
    {"row", 0, 1, 1.0f, 1.0f, {10, -1}},
    {"row 2", 0, 0, 1.0f, 1.0f, {1, 10, -1}},
    {"scaled row", 0, 0, 2.0f, 0.5f, {10, -1}},
    {"column", 0, 0, 1.0f, 0.25f, {6, 1, -1}},
    {"scalar", 1, 0, 1.0f, 3.0f, {-1}},
    {"whole", 0, 0, 1.5f, 1.0f, {6, 10, -1}},
    {"scaled whole", 0, 1, 1.0f, -2.0f, {6, 10, -1}},
    {"beta 0", 0, 1, 1.0f, 0.0f, {6, 10, -1}},
    {"alpha 0", 0, 1, 0.0f, 1.0f, {6, 10, -1}},
};

START_TEST(test_gemm)
{
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    trm_dtype t = float_rows[type].dtype;
    cuda_case c = float_case(gemm_rows[row].name, TRM_OP_Gemm, type, 9);
    bool ta = gemm_rows[row].ta != 0, tb = gemm_rows[row].tb != 0;

    /* where C is added after the product has been rounded to 16 bits: results of up to 4 */
    c.atol += 4 * float_rows[type].rounding;
    c.attrs = kit_attrs();
    kit_int(c.attrs, "transA", ta);
    kit_int(c.attrs, "transB", tb);
    kit_float(c.attrs, "alpha", gemm_rows[row].alpha);
    kit_float(c.attrs, "beta", gemm_rows[row].beta);
    c.in[0] = kit_random(ta ? KIT_T(t, 9, 6) : KIT_T(t, 6, 9), -1, 1);
    c.in[1] = kit_random(tb ? KIT_T(t, 10, 9) : KIT_T(t, 9, 10), -1, 1);
    c.in_count = 2;
    if (gemm_rows[row].c[0] != -2) {
        c.in[2] = kit_random(kit_tensor(t, gemm_rows[row].c), -1, 1);
        c.in_count = 3;
    }
    c.out[0] = KIT_T(t, 6, 10);
    for (int known = 0; known < 4; known++) {
        c.known[1] = (known & 1) != 0;
        c.known[2] = (known & 2) != 0;
        cuda_check(&c);
    }
}
END_TEST

/* ---- posts ---- */
#define UNARY(o, a, b)                                                                             \
    {                                                                                              \
        .op = TRM_OP_##o, .alpha = (a), .beta = (b), .input = -1                                   \
    }
#define WITH(o, i)                                                                                 \
    {                                                                                              \
        .op = TRM_OP_##o, .input = (i)                                                             \
    }
/* inputs: 2 [16] constant, 3 whole, 4 [16] at run time, 5 scalar constant, 6 [3, 1, 1] constant,
 * 7 whole constant */
static const struct {
    const char *name;
    int count;
    trm_post posts[TRM_POST_MAX];
} post_rows[] = {
    {"relu", 1, {UNARY(Relu, 0, 0)}},
    {"clip", 1, {UNARY(Clip, -0.25f, 0.5f)}},
    {"sigmoid", 1, {UNARY(Sigmoid, 0, 0)}},
    {"tanh", 1, {UNARY(Tanh, 0, 0)}},
    {"gelu erf", 1, {UNARY(Gelu, 0, 0)}},
    {"gelu tanh", 1, {UNARY(Gelu, 1, 0)}},
    {"leaky relu", 1, {UNARY(LeakyRelu, 0.1f, 0)}},
    {"elu", 1, {UNARY(Elu, 0.7f, 0)}},
    {"hard sigmoid", 1, {UNARY(HardSigmoid, 0.2f, 0.5f)}},
    {"hard swish", 1, {UNARY(HardSwish, 0, 0)}},
    {"silu", 1, {UNARY(TrmSilu, 0, 0)}},
    {"bias", 1, {WITH(Add, 2)}},
    {"bias at run time", 1, {WITH(Add, 4)}},
    {"bias relu", 2, {WITH(Add, 2), UNARY(Relu, 0, 0)}},
    {"bias gelu tanh", 2, {WITH(Add, 2), UNARY(Gelu, 1, 0)}},
    {"bias gelu erf", 2, {WITH(Add, 2), UNARY(Gelu, 0, 0)}},
    {"residual", 1, {WITH(Add, 3)}},
    {"bias residual relu", 3, {WITH(Add, 2), WITH(Add, 3), UNARY(Relu, 0, 0)}},
    {"residual bias", 2, {WITH(Add, 3), WITH(Add, 4)}},
    {"residual twice", 2, {WITH(Add, 3), WITH(Add, 7)}},
    {"relu bias", 2, {UNARY(Relu, 0, 0), WITH(Add, 2)}},
    {"scalar", 2, {WITH(Mul, 5), WITH(Add, 5)}},
    {"batch operand", 1, {WITH(Add, 6)}},
    {"scale and shift", 3, {WITH(Mul, 4), WITH(Add, 2), UNARY(HardSwish, 0, 0)}},
    {"four", 4, {WITH(Add, 2), UNARY(Gelu, 0, 0), WITH(Mul, 3), UNARY(Clip, -1, 1)}},
};

static void add_operands(cuda_case *c, trm_dtype t, trm_dtype constants)
{
    c->in[2] = kit_random(KIT_T(constants, 16), -1, 1);
    c->in[3] = kit_random(KIT_T(t, 3, 5, 16), -1, 1);
    c->in[4] = kit_random(KIT_T(t, 1, 16), -1, 1);
    c->in[5] = kit_random(KIT_T(constants), -1, 1);
    c->in[6] = kit_random(KIT_T(constants, 3, 1, 1), -1, 1);
    c->in[7] = kit_random(KIT_T(constants, 3, 5, 16), -1, 1);
    c->known[2] = c->known[5] = c->known[6] = c->known[7] = true;
    c->in_count = 8;
}

START_TEST(test_posts)
{
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    trm_dtype t = float_rows[type].dtype;
    cuda_case c = float_case(post_rows[row].name, TRM_OP_MatMul, type, 8);

    /* the library's result is rounded to 16 bits before what follows it in place */
    c.rtol *= 3;
    c.atol += 2 * c.rtol;
    memcpy(c.posts, post_rows[row].posts, sizeof(c.posts));
    c.post_count = post_rows[row].count;
    c.in[0] = kit_random(KIT_T(t, 3, 5, 8), -1, 1);
    c.in[1] = kit_random(KIT_T(t, 8, 16), -1, 1);
    c.out[0] = KIT_T(t, 3, 5, 16);
    add_operands(&c, t, t);
    cuda_check(&c);
    if (t == TRM_DTYPE_F64)
        return;
    /* as the mixed precision pass leaves it: fp32 constants beside 16 bits */
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 8, 16), -1, 1);
    c.known[1] = true;
    add_operands(&c, t, TRM_DTYPE_F32);
    c.rtol *= 2; /* weights are rounded too */
    c.atol *= 4;
    cuda_check(&c);
}
END_TEST

/* Odd rows: one element at a time; many elements: several vectors a thread. */
START_TEST(test_posts_sizes)
{
    static const int64_t sizes[][2] = {{7, 13}, {1, 8}, {64, 256}, {33, 1}};
    size_t row = (size_t)_i / KIT_FLOATS, type = (size_t)_i % KIT_FLOATS;
    trm_dtype t = float_rows[type].dtype;
    cuda_case c = float_case("posts: sizes", TRM_OP_Gemm, type, 4);
    int64_t m = sizes[row][0], n = sizes[row][1];

    c.atol += 2 * c.rtol;
    c.in[0] = kit_random(KIT_T(t, m, 4), -1, 1);
    c.in[1] = kit_random(KIT_T(t, 4, n), -1, 1);
    c.in[2] = kit_random(KIT_T(t, m, 1), -1, 1);
    c.in[3] = kit_random(KIT_T(t, n), -1, 1);
    c.in[4] = kit_random(KIT_T(t, m, n), -1, 1);
    c.in_count = 5;
    c.out[0] = KIT_T(t, m, n);
    c.posts[c.post_count++] = (trm_post)UNARY(Sigmoid, 0, 0);
    c.posts[c.post_count++] = (trm_post)WITH(Mul, 3);
    c.posts[c.post_count++] = (trm_post)WITH(Add, 4);
    cuda_check(&c);
}
END_TEST

/* ---- sums of many terms, and 16 bits to fp32 ---- */
START_TEST(test_long)
{
    size_t type = (size_t)_i;
    trm_dtype t = float_rows[type].dtype;
    cuda_case c = float_case("long", TRM_OP_MatMul, type, 700);

    c.in[0] = kit_random(KIT_T(t, 3, 700), -1, 1);
    c.in[1] = kit_random(KIT_T(t, 700, 9), -1, 1);
    c.out[0] = KIT_T(t, 3, 9);
    c.in_count = 2;
    cuda_check(&c);
}
END_TEST

/* 16 bits multiplied, fp32 given; on the library and without it. */
START_TEST(test_wide)
{
    trm_dtype t = _i % 2 == 0 ? TRM_DTYPE_F16 : TRM_DTYPE_BF16;
    cuda_case c = float_case("wide", TRM_OP_MatMul, 0, 33);

    if (_i >= 2)
        setenv("TRM_EMU_BLASLT", "none", 1);
    c.in[0] = kit_random(KIT_T(t, 2, 33 + _i), -1, 1);
    c.in[1] = kit_random(KIT_T(t, 33 + _i, 70), -1, 1);
    c.in[2] = kit_random(KIT_T(TRM_DTYPE_F32, 70), -1, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 2, 70);
    c.in_count = 3;
    c.posts[c.post_count++] = (trm_post)WITH(Add, 2);
    cuda_check(&c);
    unsetenv("TRM_EMU_BLASLT");
}
END_TEST

START_TEST(test_refused)
{
    cuda_case c = {.name = "refused", .op = TRM_OP_MatMul, .in_count = 2, .out_count = 1};

    c.want_prepare = TRM_ERR_UNSUPPORTED;
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F16, 2, 2), -1, 1);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 2), -1, 1); /* not known */
    c.out[0] = KIT_T(TRM_DTYPE_F16, 2, 2);
    cuda_check(&c);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_BOOL, 2, 2), 0, 2);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_BOOL, 2, 2), 0, 2);
    c.out[0] = KIT_T(TRM_DTYPE_BOOL, 2, 2);
    cuda_check(&c);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32), -1, 1);
    cuda_check(&c);
}
END_TEST

/* ---- choices kept on disk ---- */
static void new_device(void)
{
    trm_cuda_options options = {.device = 0};

    trm_device_destroy(kit_gpu);
    kit_gpu = NULL;
    ck_assert_int_eq(trm_device_cuda_create(&options, kit_cpu, &kit_gpu), TRM_OK);
}

static const char *kept_kernel(void)
{
    cuda_case c = float_case("kept", TRM_OP_MatMul, 0, 18);

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 17, 18), -1, 1);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 18, 19), -1, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 17, 19);
    c.in_count = 2;
    cuda_check(&c);
    return c.kernel;
}

static size_t read_file(const char *path, char *text, size_t max)
{
    FILE *f = fopen(path, "r");
    size_t n;

    ck_assert_ptr_nonnull(f);
    n = fread(text, 1, max, f);
    fclose(f);
    ck_assert(n > 100 && n < max);
    return n;
}

static void write_file(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "w");

    ck_assert_ptr_nonnull(f);
    ck_assert(fwrite(text, 1, n, f) == n);
    fclose(f);
}

/* Emulated only: without heuristics an algorithm can come from nowhere but the disk. */
START_TEST(test_kept)
{
    static char text[1 << 20], bad[1 << 20];
    char path[400];
    size_t n;

    if (getenv("TRM_CUDA_DRIVER") == NULL)
        return;
    ck_assert_str_eq(kept_kernel(), "cublaslt matmul");
    new_device();
    ck_assert(dense_cache_file(path));
    n = read_file(path, text, sizeof(text));
    setenv("TRM_EMU_BLASLT", "none", 1);
    ck_assert_str_eq(kept_kernel(), "cublaslt matmul");
    for (int i = 0; i < 6; i++) { /* files that count as none */
        size_t bytes = n;

        memcpy(bad, text, n);
        switch (i) {
        case 0:
            bytes = 0;
            break;
        case 1:
            bytes = n / 2; /* torn */
            break;
        case 2:
            bad[n / 2] = (char)(bad[n / 2] == '0' ? '1' : '0');
            break;
        case 3:
            bad[strlen("trireme-plans ")] = '9'; /* of another version */
            break;
        case 4:
            bad[n / 2] = '\0';
            break;
        default:
            memset(bad, 'x', n);
            break;
        }
        write_file(path, bad, bytes);
        new_device();
        ck_assert_msg(strcmp(kept_kernel(), "tiled matmul") == 0, "bad file %d was used", i);
    }
    unsetenv("TRM_EMU_BLASLT");
    write_file(path, text, n);
    new_device();
    ck_assert_str_eq(kept_kernel(), "cublaslt matmul");
}
END_TEST

#define ROWS(rows) ((int)(sizeof(rows) / sizeof(rows[0])))

int main(void)
{
    TCase *t = tcase_create("dense");

    tcase_add_loop_test(t, test_shapes, 0, ROWS(shape_rows) * KIT_FLOATS);
    tcase_add_test(t, test_many_loops);
    tcase_add_loop_test(t, test_own, 0, ROWS(own_rows) * KIT_FLOATS);
    tcase_add_loop_test(t, test_integers, 0, ROWS(int_rows));
    tcase_add_loop_test(t, test_gemm, 0, ROWS(gemm_rows) * KIT_FLOATS);
    tcase_add_loop_test(t, test_posts, 0, ROWS(post_rows) * KIT_FLOATS);
    tcase_add_loop_test(t, test_posts_sizes, 0, 4 * KIT_FLOATS);
    tcase_add_loop_test(t, test_long, 0, KIT_FLOATS);
    tcase_add_loop_test(t, test_wide, 0, 4);
    tcase_add_test(t, test_refused);
    tcase_add_test(t, test_kept);
    return dense_main("cuda/dense", t);
}
