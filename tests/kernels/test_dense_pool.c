/* Pooling against the scalar reference, and the reference against known answers. */
#include "tests/kernels/dense_check.h"

static trm_device *device;

static const op_case cases[] = {
    {"max, ResNet",
     TRM_OP_MaxPool,
     1,
     {T_F32(BLOCK16, 2, 20, 11, 12)},
     0,
     T_F32(PLAIN, 2, 20, 6, 6),
     {A_INTS("kernel_shape", 3, 3), A_INTS("strides", 2, 2), A_INTS("pads", 1, 1, 1, 1)},
     3,
     {{0}},
     0,
     0},
    {"max, channels last, ceil",
     TRM_OP_MaxPool,
     1,
     {T_F32(CHANNELS_LAST, 1, 5, 8, 8)},
     0,
     T_F32(PLAIN, 1, 5, 4, 4),
     {A_INTS("kernel_shape", 3, 3), A_INTS("strides", 2, 2), A_INT("ceil_mode", 1)},
     3,
     {{0}},
     0,
     0},
    {"max, dilation",
     TRM_OP_MaxPool,
     1,
     {T_F32(PLAIN, 1, 3, 9, 9)},
     0,
     T_F32(PLAIN, 1, 3, 5, 5),
     {A_INTS("kernel_shape", 3, 3), A_INTS("dilations", 2, 2)},
     2,
     {{0}},
     0,
     0},
    {"max 1d",
     TRM_OP_MaxPool,
     1,
     {T_F32(PLAIN, 1, 3, 9)},
     0,
     T_F32(PLAIN, 1, 3, 8),
     {A_INTS("kernel_shape", 2)},
     1,
     {{0}},
     0,
     0},
    {"max 3d",
     TRM_OP_MaxPool,
     1,
     {T_F32(PLAIN, 1, 3, 5, 6, 7)},
     0,
     T_F32(PLAIN, 1, 3, 4, 5, 6),
     {A_INTS("kernel_shape", 2, 2, 2)},
     1,
     {{0}},
     0,
     0},
    {"max bf16",
     TRM_OP_MaxPool,
     1,
     {T_OF(BF16, BLOCK16, 1, 32, 6, 6)},
     0,
     T_OF(BF16, PLAIN, 1, 32, 3, 3),
     {A_INTS("kernel_shape", 2, 2), A_INTS("strides", 2, 2)},
     2,
     {{0}},
     0,
     1e-2},
    {"max f16",
     TRM_OP_MaxPool,
     1,
     {T_OF(F16, PLAIN, 1, 2, 6, 6)},
     0,
     T_OF(F16, PLAIN, 1, 2, 3, 3),
     {A_INTS("kernel_shape", 2, 2), A_INTS("strides", 2, 2)},
     2,
     {{0}},
     0,
     1e-3},
    {"average, pads left out",
     TRM_OP_AveragePool,
     1,
     {T_F32(BLOCK16, 1, 16, 7, 7)},
     0,
     T_F32(PLAIN, 1, 16, 7, 7),
     {A_INTS("kernel_shape", 3, 3), A_INTS("pads", 1, 1, 1, 1)},
     2,
     {{0}},
     0,
     0},
    {"average, pads counted",
     TRM_OP_AveragePool,
     1,
     {T_F32(PLAIN, 1, 4, 7, 7)},
     0,
     T_F32(PLAIN, 1, 4, 7, 7),
     {A_INTS("kernel_shape", 3, 3), A_INTS("pads", 1, 1, 1, 1), A_INT("count_include_pad", 1)},
     3,
     {{0}},
     0,
     0},
    {"average, same lower",
     TRM_OP_AveragePool,
     1,
     {T_F32(PLAIN, 1, 4, 7, 7)},
     0,
     T_F32(PLAIN, 1, 4, 7, 7),
     {A_INTS("kernel_shape", 2, 2), A_STRING("auto_pad", "SAME_LOWER")},
     2,
     {{0}},
     0,
     0},
    {"average, relu",
     TRM_OP_AveragePool,
     1,
     {T_F32(PLAIN, 1, 4, 7, 7)},
     0,
     T_F32(PLAIN, 1, 4, 6, 6),
     {A_INTS("kernel_shape", 2, 2)},
     1,
     {{.op = TRM_OP_Relu, .input = -1}},
     1,
     0},
    {"global average",
     TRM_OP_GlobalAveragePool,
     1,
     {T_F32(BLOCK16, 2, 32, 7, 7)},
     0,
     T_F32(PLAIN, 2, 32, 1, 1),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"global average, odd channels",
     TRM_OP_GlobalAveragePool,
     1,
     {T_F32(BLOCK16, 2, 21, 7, 7)},
     0,
     T_F32(PLAIN, 2, 21, 1, 1),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"global max",
     TRM_OP_GlobalMaxPool,
     1,
     {T_F32(PLAIN, 2, 5, 3, 4, 5)},
     0,
     T_F32(PLAIN, 2, 5, 1, 1, 1),
     {A_INT("x", 0)},
     0,
     {{0}},
     0,
     0},
    {"lp",
     TRM_OP_LpPool,
     1,
     {T_F32(BLOCK16, 1, 4, 7, 7)},
     0,
     T_F32(PLAIN, 1, 4, 6, 6),
     {A_INTS("kernel_shape", 2, 2), A_INT("p", 3)},
     2,
     {{0}},
     0,
     0},
    {"global lp",
     TRM_OP_GlobalLpPool,
     1,
     {T_F32(PLAIN, 1, 4, 7, 7)},
     0,
     T_F32(PLAIN, 1, 4, 1, 1),
     {A_INT("p", 2)},
     1,
     {{0}},
     0,
     0},
};

START_TEST(pool_case)
{
    case_check(device, &cases[_i], false);
}
END_TEST

/* The reference itself: 3x3 input 1..9, kernel 2, stride 2, ceil_mode. */
START_TEST(known_answers)
{
    double x[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, y[4];
    int64_t where[4];
    static const double average[4] = {3, 4.5, 7.5, 9};
    static const int64_t row_major[4] = {4, 5, 7, 8}, column_major[4] = {4, 7, 5, 8};
    trm_attr list[4] = {A_INTS("kernel_shape", 2, 2), A_INTS("strides", 2, 2),
                        A_INT("ceil_mode", 1), A_INT("storage_order", _i)};
    trm_attrs attrs = {.items = list, .count = 4};
    trm_tensor in = T_OF(F64, PLAIN, 1, 1, 3, 3);
    trm_tensor out[2] = {T_OF(F64, PLAIN, 1, 1, 2, 2), T_OF(I64, PLAIN, 1, 1, 2, 2)};
    trm_op_desc desc = {.op = TRM_OP_MaxPool,
                        .attrs = &attrs,
                        .name = "n",
                        .input_count = 1,
                        .output_count = 2,
                        .inputs = &in,
                        .outputs = out};
    const void *ins[1] = {x};
    void *outs[2] = {y, where};
    trm_kernel *k = NULL;

    ck_assert_int_eq(device->ops->prepare(device, &desc, &k), TRM_OK);
    ck_assert_int_eq(k->ops->run(k, NULL, ins, outs, NULL), TRM_OK);
    trm_kernel_destroy(k);
    for (int i = 0; i < 4; i++) {
        ck_assert(y[i] == (double)(row_major[i] + 1));
        ck_assert_int_eq(where[i], _i == 0 ? row_major[i] : column_major[i]);
    }
    desc.op = TRM_OP_AveragePool;
    desc.output_count = 1;
    ck_assert_int_eq(device->ops->prepare(device, &desc, &k), TRM_OK);
    ck_assert_int_eq(k->ops->run(k, NULL, ins, outs, NULL), TRM_OK);
    trm_kernel_destroy(k);
    for (int i = 0; i < 4; i++)
        ck_assert(y[i] == average[i]);
}
END_TEST

START_TEST(bad_attributes)
{
    trm_attr list[1] = {A_INTS("kernel_shape", 2)};
    trm_attrs attrs = {.items = list, .count = 1};
    trm_tensor in = T_F32(PLAIN, 1, 1, 3, 3), out = T_F32(PLAIN, 1, 1, 2, 2);
    trm_op_desc desc = {.op = TRM_OP_MaxPool,
                        .attrs = &attrs,
                        .name = "n",
                        .input_count = 1,
                        .output_count = 1,
                        .inputs = &in,
                        .outputs = &out};
    trm_kernel *k = NULL;

    ck_assert_int_eq(device->ops->prepare(device, &desc, &k), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "kernel_shape has 1 values: want 2"));
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("pool");
    int rc;

    if (trm_device_cpu_create(0, &device) != TRM_OK)
        return 1;
    tcase_add_loop_test(t, pool_case, 0, (int)(sizeof(cases) / sizeof(cases[0])));
    tcase_add_loop_test(t, known_answers, 0, 2);
    tcase_add_test(t, bad_attributes);
    rc = case_main(t, "dense pool");
    trm_device_destroy(device);
    return rc;
}
