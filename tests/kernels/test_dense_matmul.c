/* MatMul and Gemm against the scalar reference; whole numbers exactly. */
#include "tests/kernels/dense_check.h"

static trm_device *device;

#define RELU                                                                                       \
    {                                                                                              \
        .op = TRM_OP_Relu, .input = -1                                                             \
    }
static const op_case cases[] = {
    {"plain",
     TRM_OP_MatMul,
     2,
     {T_F32(PLAIN, 7, 33), T_F32(PLAIN, 33, 20)},
     2,
     T_F32(PLAIN, 7, 20),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"bert row",
     TRM_OP_MatMul,
     4,
     {T_F32(PLAIN, 1, 16, 48), T_F32(PLAIN, 48, 96), T_F32(PLAIN, 96), T_F32(PLAIN, 1, 16, 96)},
     6,
     T_F32(PLAIN, 1, 16, 96),
     {A_INT("x", 0)},
     0,
     {{.op = TRM_OP_Add, .input = 2},
      {.op = TRM_OP_Add, .input = 3},
      {.op = TRM_OP_Gelu, .input = -1}},
     3,
     0},
    {"batch times one matrix",
     TRM_OP_MatMul,
     3,
     {T_F32(PLAIN, 3, 2, 5, 8), T_F32(PLAIN, 8, 6), T_F32(PLAIN, 3, 2, 5, 6)},
     2,
     T_F32(PLAIN, 3, 2, 5, 6),
     {A_INT("x", 0)},
     0,
     {{.op = TRM_OP_Mul, .input = 2}, RELU},
     2,
     0},
    {"equal batches",
     TRM_OP_MatMul,
     2,
     {T_F32(PLAIN, 2, 3, 5, 8), T_F32(PLAIN, 2, 3, 8, 6)},
     0,
     T_F32(PLAIN, 2, 3, 5, 6),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"batches broadcast",
     TRM_OP_MatMul,
     2,
     {T_F32(PLAIN, 2, 1, 5, 8), T_F32(PLAIN, 3, 8, 6)},
     0,
     T_F32(PLAIN, 2, 3, 5, 6),
     {A_INT("x", 0)},
     0,
     {RELU},
     1,
     0},
    {"one matrix times batch",
     TRM_OP_MatMul,
     2,
     {T_F32(PLAIN, 5, 8), T_F32(PLAIN, 3, 8, 6)},
     0,
     T_F32(PLAIN, 3, 5, 6),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"batch, mask broadcast",
     TRM_OP_MatMul,
     3,
     {T_F32(PLAIN, 2, 3, 5, 8), T_F32(PLAIN, 2, 3, 8, 6), T_F32(PLAIN, 2, 1, 1, 6)},
     0,
     T_F32(PLAIN, 2, 3, 5, 6),
     {A_INT("x", 0)},
     0,
     {{.op = TRM_OP_Add, .input = 2}},
     1,
     0},
    {"vector times matrix",
     TRM_OP_MatMul,
     2,
     {T_F32(PLAIN, 8), T_F32(PLAIN, 8, 6)},
     0,
     T_F32(PLAIN, 6),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"matrix times vector",
     TRM_OP_MatMul,
     2,
     {T_F32(PLAIN, 3, 5, 8), T_F32(PLAIN, 8)},
     2,
     T_F32(PLAIN, 3, 5),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"dot product",
     TRM_OP_MatMul,
     2,
     {T_F32(PLAIN, 8), T_F32(PLAIN, 8)},
     0,
     {.dtype = TRM_DTYPE_F32, .rank = 0},
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"vector, bias",
     TRM_OP_MatMul,
     3,
     {T_F32(PLAIN, 8), T_F32(PLAIN, 8, 6), T_F32(PLAIN, 6)},
     2,
     T_F32(PLAIN, 6),
     {A_INT("x", 0)},
     0,
     {{.op = TRM_OP_Add, .input = 2}},
     1,
     0},
    {"empty K",
     TRM_OP_MatMul,
     2,
     {T_F32(PLAIN, 3, 0), T_F32(PLAIN, 0, 4)},
     0,
     T_F32(PLAIN, 3, 4),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"empty M",
     TRM_OP_MatMul,
     2,
     {T_F32(PLAIN, 0, 3), T_F32(PLAIN, 3, 4)},
     0,
     T_F32(PLAIN, 0, 4),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"bf16, f32 weights",
     TRM_OP_MatMul,
     3,
     {T_OF(BF16, PLAIN, 4, 16, 64), T_F32(PLAIN, 64, 32), T_F32(PLAIN, 32)},
     6,
     T_OF(BF16, PLAIN, 4, 16, 32),
     {A_INT("x", 0)},
     0,
     {{.op = TRM_OP_Add, .input = 2}},
     1,
     2e-2},
    {"bf16 to f32",
     TRM_OP_MatMul,
     2,
     {T_OF(BF16, PLAIN, 16, 64), T_OF(BF16, PLAIN, 64, 32)},
     2,
     T_F32(PLAIN, 16, 32),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     2e-2},
    {"f16",
     TRM_OP_MatMul,
     2,
     {T_OF(F16, PLAIN, 4, 9), T_OF(F16, PLAIN, 9, 5)},
     2,
     T_OF(F16, PLAIN, 4, 5),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     2e-3},
    {"gemm row bias",
     TRM_OP_Gemm,
     3,
     {T_F32(PLAIN, 5, 40), T_F32(PLAIN, 30, 40), T_F32(PLAIN, 30)},
     6,
     T_F32(PLAIN, 5, 30),
     {A_INT("transB", 1)},
     1,
     {RELU},
     1,
     0},
    {"gemm alpha beta, transA",
     TRM_OP_Gemm,
     3,
     {T_F32(PLAIN, 40, 5), T_F32(PLAIN, 40, 30), T_F32(PLAIN, 5, 1)},
     2,
     T_F32(PLAIN, 5, 30),
     {A_INT("transA", 1), A_FLOAT("alpha", 0.5f), A_FLOAT("beta", 2.0f)},
     3,
     {RELU},
     1,
     0},
    {"gemm scalar C, both transposed",
     TRM_OP_Gemm,
     3,
     {T_F32(PLAIN, 40, 5), T_F32(PLAIN, 30, 40), T_F32(PLAIN, 1)},
     2,
     T_F32(PLAIN, 5, 30),
     {A_INT("transA", 1), A_INT("transB", 1), A_FLOAT("alpha", 0.25f)},
     3,
     {{0}},
     0,
     0},
    {"gemm matrix C, beta 0.5",
     TRM_OP_Gemm,
     3,
     {T_F32(PLAIN, 5, 40), T_F32(PLAIN, 40, 30), T_F32(PLAIN, 5, 30)},
     2,
     T_F32(PLAIN, 5, 30),
     {A_FLOAT("beta", 0.5f)},
     1,
     {{0}},
     0,
     0},
    {"gemm no C, alpha",
     TRM_OP_Gemm,
     2,
     {T_F32(PLAIN, 5, 40), T_F32(PLAIN, 40, 30)},
     2,
     T_F32(PLAIN, 5, 30),
     {A_FLOAT("alpha", 0.5f)},
     1,
     {RELU},
     1,
     0},
    {"gemm beta 0",
     TRM_OP_Gemm,
     3,
     {T_F32(PLAIN, 5, 4), T_F32(PLAIN, 4, 3), T_F32(PLAIN, 5, 3)},
     2,
     T_F32(PLAIN, 5, 3),
     {A_FLOAT("beta", 0.0f)},
     1,
     {{0}},
     0,
     0},
};

START_TEST(matmul_case)
{
    case_check(device, &cases[_i], true);
    case_check(device, &cases[_i], false);
}
END_TEST

START_TEST(integers_wrap)
{
    int64_t a[4] = {INT64_MAX, 2, 3, 4}, b[4] = {2, 1, 1, -1}, y[4];
    trm_tensor in[2] = {T_OF(I64, PLAIN, 2, 2), T_OF(I64, PLAIN, 2, 2)};
    trm_tensor out = T_OF(I64, PLAIN, 2, 2);
    trm_op_desc desc = {.op = TRM_OP_MatMul,
                        .name = "n",
                        .input_count = 2,
                        .output_count = 1,
                        .inputs = in,
                        .outputs = &out};
    const void *ins[2] = {a, b};
    void *outs[1] = {y};
    trm_kernel *k = NULL;

    ck_assert_int_eq(device->ops->prepare(device, &desc, &k), TRM_OK);
    ck_assert_int_eq(k->ops->run(k, NULL, ins, outs, NULL), TRM_OK);
    ck_assert(y[0] == 0 && y[1] == INT64_MAX - 2 && y[2] == 10 && y[3] == -1);
    trm_kernel_destroy(k);
}
END_TEST

/* the packed form is made once for two kernels of different row counts */
START_TEST(packs_once)
{
    static float w[64 * 32];
    trm_tensor in[2] = {T_F32(PLAIN, 4, 64), T_F32(PLAIN, 64, 32)};
    trm_tensor out = T_F32(PLAIN, 4, 32);
    uint64_t keys[2] = {0, 1u << 30};
    trm_op_desc desc = {.op = TRM_OP_MatMul,
                        .name = "n",
                        .input_count = 2,
                        .output_count = 1,
                        .inputs = in,
                        .outputs = &out,
                        .weight_keys = keys};
    trm_kernel *k[2] = {NULL, NULL};
    int64_t live[2];

    in[1].data = w;
    for (int i = 0; i < 2; i++) {
        live[i] = trm_alloc_live();
        ck_assert_int_eq(device->ops->prepare(device, &desc, &k[i]), TRM_OK);
        ck_assert_uint_eq(k[i]->packed_inputs, 2);
        live[i] = trm_alloc_live() - live[i];
    }
    ck_assert_int_ge(live[0], live[1]);
    ck_assert_int_eq(live[1], 1); /* the kernel object alone */
    trm_kernel_destroy(k[0]);
    trm_kernel_destroy(k[1]);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("matmul");
    int rc;

    if (trm_device_cpu_create(0, &device) != TRM_OK)
        return 1;
    tcase_add_loop_test(t, matmul_case, 0, (int)(sizeof(cases) / sizeof(cases[0])));
    tcase_add_test(t, integers_wrap);
    tcase_add_test(t, packs_once);
    rc = case_main(t, "dense matmul");
    trm_device_destroy(device);
    return rc;
}
