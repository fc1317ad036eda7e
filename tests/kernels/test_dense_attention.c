/* TrmAttention and Attention on every instruction set's core against the scalar reference, and the
 * reference against a hand-made case. */
#include "tests/kernels/dense_check.h"

#include <stdlib.h>

static trm_device *device;

static const op_case cases[] = {
    {"one head",
     TRM_OP_TrmAttention,
     3,
     {T_F32(PLAIN, 1, 1, 7, 16), T_F32(PLAIN, 1, 1, 9, 16), T_F32(PLAIN, 1, 1, 9, 16)},
     0,
     T_F32(PLAIN, 1, 1, 7, 16),
     {A_FLOAT("scale", 2.0f)},
     1,
     {{0}},
     0,
     0},
    {"bert, mask over keys",
     TRM_OP_TrmAttention,
     4,
     {T_F32(PLAIN, 2, 3, 50, 64), T_F32(PLAIN, 2, 3, 64, 50), T_F32(PLAIN, 2, 3, 50, 64),
      T_F32(PLAIN, 2, 1, 1, 50)},
     0,
     T_F32(PLAIN, 2, 3, 50, 64),
     {A_FLOAT("scale", 0.5f), A_INT("k_transposed", 1)},
     2,
     {{0}},
     0,
     0},
    {"128 keys transposed, full mask",
     TRM_OP_TrmAttention,
     4,
     {T_F32(PLAIN, 1, 2, 100, 24), T_F32(PLAIN, 1, 2, 24, 128), T_F32(PLAIN, 1, 2, 128, 40),
      T_F32(PLAIN, 100, 128)},
     0,
     T_F32(PLAIN, 1, 2, 100, 40),
     {A_FLOAT("scale", 0.5f), A_INT("k_transposed", 1)},
     2,
     {{0}},
     0,
     0},
    {"bf16",
     TRM_OP_TrmAttention,
     3,
     {T_OF(BF16, PLAIN, 1, 2, 20, 64), T_OF(BF16, PLAIN, 1, 2, 30, 64),
      T_OF(BF16, PLAIN, 1, 2, 30, 64)},
     0,
     T_OF(BF16, PLAIN, 1, 2, 20, 64),
     {A_FLOAT("scale", 0.5f)},
     1,
     {{0}},
     0,
     2e-2},
    {"f16",
     TRM_OP_TrmAttention,
     3,
     {T_OF(F16, PLAIN, 1, 2, 3, 8), T_OF(F16, PLAIN, 1, 2, 5, 8), T_OF(F16, PLAIN, 1, 2, 5, 8)},
     0,
     T_OF(F16, PLAIN, 1, 2, 3, 8),
     {A_FLOAT("scale", 0.5f)},
     1,
     {{0}},
     0,
     2e-3},
    {"no keys",
     TRM_OP_TrmAttention,
     3,
     {T_F32(PLAIN, 1, 1, 3, 4), T_F32(PLAIN, 1, 1, 0, 4), T_F32(PLAIN, 1, 1, 0, 4)},
     0,
     T_F32(PLAIN, 1, 1, 3, 4),
     {A_FLOAT("scale", 1.0f)},
     1,
     {{0}},
     0,
     0},
    {"3d, grouped heads, causal",
     TRM_OP_Attention,
     3,
     {T_F32(PLAIN, 2, 10, 64), T_F32(PLAIN, 2, 12, 32), T_F32(PLAIN, 2, 12, 32)},
     0,
     T_F32(PLAIN, 2, 10, 64),
     {A_INT("q_num_heads", 4), A_INT("kv_num_heads", 2), A_INT("is_causal", 1)},
     3,
     {{0}},
     0,
     0},
    {"4d, past, softcap",
     TRM_OP_Attention,
     6,
     {T_F32(PLAIN, 2, 4, 6, 16), T_F32(PLAIN, 2, 2, 6, 16), T_F32(PLAIN, 2, 2, 6, 8),
      T_F32(PLAIN, 2, 1, 6, 11), T_F32(PLAIN, 2, 2, 5, 16), T_F32(PLAIN, 2, 2, 5, 8)},
     0,
     T_F32(PLAIN, 2, 4, 6, 8),
     {A_FLOAT("softcap", 2.0f), A_INT("is_causal", 1)},
     2,
     {{0}},
     0,
     0},
    {"window, short mask",
     TRM_OP_Attention,
     4,
     {T_F32(PLAIN, 1, 2, 9, 16), T_F32(PLAIN, 1, 2, 9, 16), T_F32(PLAIN, 1, 2, 9, 16),
      T_F32(PLAIN, 9, 7)},
     0,
     T_F32(PLAIN, 1, 2, 9, 16),
     {A_INT("left_window_size", 2), A_INT("right_window_size", 1)},
     2,
     {{0}},
     0,
     0},
};

START_TEST(attention_case)
{
    case_check(device, &cases[_i], false);
}
END_TEST

/* One query, two keys with equal scores: the mean of the values; the second unseen: the first. */
START_TEST(known_answer)
{
    double q[2] = {1, 1}, k[4] = {1, 2, 2, 1}, v[4] = {1, 10, 3, 30}, y[2];
    unsigned char seen[2] = {1, (unsigned char)_i};
    trm_tensor in[4] = {T_OF(F64, PLAIN, 1, 1, 1, 2), T_OF(F64, PLAIN, 1, 1, 2, 2),
                        T_OF(F64, PLAIN, 1, 1, 2, 2), T_OF(BOOL, PLAIN, 1, 2)};
    trm_tensor out = T_OF(F64, PLAIN, 1, 1, 1, 2);
    trm_op_desc desc = {.op = TRM_OP_Attention,
                        .name = "n",
                        .input_count = 4,
                        .output_count = 1,
                        .inputs = in,
                        .outputs = &out};
    const void *ins[4] = {q, k, v, seen};
    void *outs[1] = {y};
    trm_kernel *kernel = NULL;

    ck_assert_int_eq(device->ops->prepare(device, &desc, &kernel), TRM_OK);
    ck_assert_int_eq(kernel->ops->run(kernel, NULL, ins, outs, NULL), TRM_OK);
    ck_assert(y[0] == (_i ? 2.0 : 1.0) && y[1] == (_i ? 20.0 : 10.0));
    trm_kernel_destroy(kernel);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("attention");
    int rc;

    if (trm_device_cpu_create(0, &device) != TRM_OK)
        return 1;
    tcase_add_loop_test(t, attention_case, 0, (int)(sizeof(cases) / sizeof(cases[0])));
    tcase_add_loop_test(t, known_answer, 0, 2);
    rc = case_main(t, "dense attention");
    trm_device_destroy(device);
    return rc;
}
