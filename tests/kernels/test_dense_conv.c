/* Conv, ConvTranspose and reorders against the scalar reference. */
#include "tests/kernels/dense_check.h"

static trm_device *device;

static const op_case cases[] = {
    {"first conv of a ResNet",
     TRM_OP_Conv,
     3,
     {T_F32(PLAIN, 2, 3, 18, 20), T_F32(PLAIN, 32, 3, 7, 7), T_F32(PLAIN, 32)},
     6,
     T_F32(PLAIN, 2, 32, 9, 10),
     {A_INTS("pads", 3, 3, 3, 3), A_INTS("strides", 2, 2)},
     2,
     {{.op = TRM_OP_Relu, .input = -1}},
     1,
     0},
    {"3x3 after a plain input",
     TRM_OP_Conv,
     3,
     {T_F32(PLAIN, 1, 32, 9, 9), T_F32(PLAIN, 48, 32, 3, 3), T_F32(PLAIN, 48)},
     6,
     T_F32(PLAIN, 1, 48, 9, 9),
     {A_INTS("pads", 1, 1, 1, 1)},
     1,
     {{0}},
     0,
     0},
    {"3x3 blocked with residual and relu",
     TRM_OP_Conv,
     4,
     {T_F32(BLOCK16, 2, 32, 7, 7), T_F32(PLAIN, 32, 32, 3, 3), T_F32(PLAIN, 32),
      T_F32(PLAIN, 2, 32, 7, 7)},
     6,
     T_F32(PLAIN, 2, 32, 7, 7),
     {A_INTS("pads", 1, 1, 1, 1)},
     1,
     {{.op = TRM_OP_Add, .input = 3}, {.op = TRM_OP_Relu, .input = -1}},
     2,
     0},
    {"1x1 stride 2, odd channels",
     TRM_OP_Conv,
     2,
     {T_F32(BLOCK16, 1, 24, 8, 8), T_F32(PLAIN, 20, 24, 1, 1)},
     2,
     T_F32(PLAIN, 1, 20, 4, 4),
     {A_INTS("strides", 2, 2)},
     1,
     {{0}},
     0,
     0},
    {"channels last arrives",
     TRM_OP_Conv,
     2,
     {T_F32(CHANNELS_LAST, 1, 24, 8, 8), T_F32(PLAIN, 20, 24, 3, 3)},
     2,
     T_F32(PLAIN, 1, 20, 6, 6),
     {A_INT("group", 1)},
     1,
     {{0}},
     0,
     0},
    {"block8 arrives",
     TRM_OP_Conv,
     2,
     {T_F32(BLOCK8, 1, 24, 8, 8), T_F32(PLAIN, 20, 24, 3, 3)},
     2,
     T_F32(PLAIN, 1, 20, 6, 6),
     {A_INT("group", 1)},
     1,
     {{0}},
     0,
     0},
    {"depthwise with clip",
     TRM_OP_Conv,
     3,
     {T_F32(BLOCK16, 1, 40, 9, 9), T_F32(PLAIN, 40, 1, 3, 3), T_F32(PLAIN, 40)},
     6,
     T_F32(PLAIN, 1, 40, 5, 5),
     {A_INTS("pads", 1, 1, 1, 1), A_INTS("strides", 2, 2), A_INT("group", 40)},
     3,
     {{.op = TRM_OP_Clip, .alpha = 0.0f, .beta = 6.0f, .input = -1}},
     1,
     0},
    {"groups, asymmetric pads, dilation",
     TRM_OP_Conv,
     2,
     {T_F32(PLAIN, 1, 12, 10, 11), T_F32(PLAIN, 8, 3, 3, 2)},
     2,
     T_F32(PLAIN, 1, 8, 9, 10),
     {A_INTS("pads", 0, 1, 3, 0), A_INTS("dilations", 2, 2), A_INT("group", 4)},
     3,
     {{0}},
     0,
     0},
    {"same upper",
     TRM_OP_Conv,
     2,
     {T_F32(PLAIN, 1, 4, 6, 7), T_F32(PLAIN, 5, 4, 3, 2)},
     2,
     T_F32(PLAIN, 1, 5, 3, 4),
     {A_STRING("auto_pad", "SAME_UPPER"), A_INTS("strides", 2, 2)},
     2,
     {{0}},
     0,
     0},
    {"same lower",
     TRM_OP_Conv,
     2,
     {T_F32(PLAIN, 1, 4, 6, 7), T_F32(PLAIN, 5, 4, 3, 2)},
     2,
     T_F32(PLAIN, 1, 5, 3, 4),
     {A_STRING("auto_pad", "SAME_LOWER"), A_INTS("strides", 2, 2)},
     2,
     {{0}},
     0,
     0},
    {"1d",
     TRM_OP_Conv,
     3,
     {T_F32(PLAIN, 2, 16, 15), T_F32(PLAIN, 16, 16, 3), T_F32(PLAIN, 16)},
     6,
     T_F32(PLAIN, 2, 16, 15),
     {A_INTS("pads", 1, 1)},
     1,
     {{.op = TRM_OP_Gelu, .input = -1}},
     1,
     0},
    {"3d",
     TRM_OP_Conv,
     3,
     {T_F32(PLAIN, 1, 4, 5, 6, 7), T_F32(PLAIN, 8, 4, 3, 3, 3), T_F32(PLAIN, 8)},
     6,
     T_F32(PLAIN, 1, 8, 5, 6, 7),
     {A_INTS("pads", 1, 1, 1, 1, 1, 1)},
     1,
     {{.op = TRM_OP_TrmSilu, .input = -1}},
     1,
     0},
    {"4d, scalar only",
     TRM_OP_Conv,
     2,
     {T_F32(PLAIN, 1, 2, 3, 3, 3, 3), T_F32(PLAIN, 2, 2, 2, 2, 2, 2)},
     2,
     T_F32(PLAIN, 1, 2, 2, 2, 2, 2),
     {A_INT("group", 1)},
     1,
     {{0}},
     0,
     0},
    {"broadcast posts",
     TRM_OP_Conv,
     4,
     {T_F32(PLAIN, 2, 16, 6, 6), T_F32(PLAIN, 16, 16, 3, 3), T_F32(PLAIN, 16, 1, 1),
      T_F32(PLAIN, 2, 16, 1, 1)},
     2,
     T_F32(PLAIN, 2, 16, 4, 4),
     {A_INT("group", 1)},
     1,
     {{.op = TRM_OP_Add, .input = 2},
      {.op = TRM_OP_Mul, .input = 3},
      {.op = TRM_OP_HardSigmoid, .alpha = 0.2f, .beta = 0.5f, .input = -1}},
     3,
     0},
    {"bf16 in, f32 weights, bf16 out",
     TRM_OP_Conv,
     3,
     {T_OF(BF16, PLAIN, 1, 32, 9, 9), T_F32(PLAIN, 32, 32, 3, 3), T_F32(PLAIN, 32)},
     6,
     T_OF(BF16, PLAIN, 1, 32, 9, 9),
     {A_INTS("pads", 1, 1, 1, 1)},
     1,
     {{.op = TRM_OP_Relu, .input = -1}},
     1,
     2e-2},
    {"bf16 in, f32 out",
     TRM_OP_Conv,
     3,
     {T_OF(BF16, BLOCK16, 1, 32, 9, 9), T_F32(PLAIN, 32, 32, 3, 3), T_F32(PLAIN, 32)},
     6,
     T_F32(PLAIN, 1, 32, 9, 9),
     {A_INTS("pads", 1, 1, 1, 1)},
     1,
     {{0}},
     0,
     2e-2},
    {"f16, scalar only",
     TRM_OP_Conv,
     2,
     {T_OF(F16, PLAIN, 1, 3, 5, 5), T_OF(F16, PLAIN, 4, 3, 3, 3)},
     2,
     T_OF(F16, PLAIN, 1, 4, 3, 3),
     {A_INT("group", 1)},
     1,
     {{.op = TRM_OP_HardSwish, .input = -1}},
     1,
     2e-3},
    {"squeeze and excite, 1x1 space",
     TRM_OP_Conv,
     3,
     {T_F32(PLAIN, 1, 32, 1, 1), T_F32(PLAIN, 16, 32, 1, 1), T_F32(PLAIN, 16)},
     6,
     T_F32(PLAIN, 1, 16, 1, 1),
     {A_INT("group", 1)},
     1,
     {{.op = TRM_OP_Sigmoid, .input = -1}},
     1,
     0},
    {"no input",
     TRM_OP_Conv,
     2,
     {T_F32(PLAIN, 0, 3, 5, 5), T_F32(PLAIN, 4, 3, 3, 3)},
     2,
     T_F32(PLAIN, 0, 4, 3, 3),
     {A_INT("group", 1)},
     1,
     {{0}},
     0,
     0},
    {"transposed",
     TRM_OP_ConvTranspose,
     3,
     {T_F32(PLAIN, 1, 16, 5, 6), T_F32(PLAIN, 16, 24, 3, 3), T_F32(PLAIN, 24)},
     6,
     T_F32(PLAIN, 1, 24, 10, 12),
     {A_INTS("pads", 1, 1, 1, 1), A_INTS("strides", 2, 2), A_INTS("output_padding", 1, 1)},
     3,
     {{.op = TRM_OP_Relu, .input = -1}},
     1,
     0},
    {"transposed, groups and dilation",
     TRM_OP_ConvTranspose,
     2,
     {T_F32(PLAIN, 2, 6, 5, 4), T_F32(PLAIN, 6, 4, 2, 3)},
     2,
     T_F32(PLAIN, 2, 8, 11, 10),
     {A_INTS("strides", 2, 2), A_INTS("dilations", 2, 2), A_INT("group", 2),
      A_INTS("pads", 0, 0, 0, 1)},
     4,
     {{0}},
     0,
     0},
    {"transposed 1d, output shape",
     TRM_OP_ConvTranspose,
     2,
     {T_F32(PLAIN, 1, 2, 4), T_F32(PLAIN, 2, 3, 3)},
     2,
     T_F32(PLAIN, 1, 3, 8),
     {A_INTS("strides", 2), A_INTS("output_shape", 8)},
     2,
     {{0}},
     0,
     0},
    {"transposed 3d",
     TRM_OP_ConvTranspose,
     2,
     {T_F32(PLAIN, 1, 3, 3, 2, 3), T_F32(PLAIN, 3, 4, 2, 2, 2)},
     2,
     T_F32(PLAIN, 1, 4, 6, 4, 6),
     {A_INTS("strides", 2, 2, 2)},
     1,
     {{0}},
     0,
     0},
};

START_TEST(conv_case)
{
    case_check(device, &cases[_i], true);
    case_check(device, &cases[_i], false); /* weights as inputs */
}
END_TEST

START_TEST(conv_bad_group)
{
    op_case c = cases[1];
    trm_attr group = A_INT("group", 5);
    trm_attrs attrs = {.items = &group, .count = 1};
    trm_op_desc desc = {.op = TRM_OP_Conv,
                        .attrs = &attrs,
                        .name = "n",
                        .input_count = 2,
                        .output_count = 1,
                        .inputs = c.in,
                        .outputs = &c.out};
    trm_kernel *k = NULL;

    ck_assert_int_eq(device->ops->prepare(device, &desc, &k), TRM_ERR_INVALID_ARG);
    c.in[0].dtype = TRM_DTYPE_I32;
    ck_assert_int_eq(device->ops->prepare(device, &desc, &k), TRM_ERR_UNSUPPORTED);
    ck_assert_ptr_null(k);
}
END_TEST

/* every pair of layouts, in a dtype oneDNN knows and in ones it does not */
START_TEST(reorders)
{
    static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_BF16, TRM_DTYPE_F16, TRM_DTYPE_F64,
                                       TRM_DTYPE_I64};
    static const trm_tensor shapes[] = {T_F32(PLAIN, 2, 19, 3, 5), T_F32(PLAIN, 1, 16, 7),
                                        T_F32(PLAIN, 1, 5, 2, 3, 4)};

    for (size_t s = 0; s < 3; s++)
        for (int a = 0; a < TRM_LAYOUT_COUNT; a++)
            for (int b = 0; b < TRM_LAYOUT_COUNT; b++) {
                trm_tensor x = shapes[s], in_a, in_b, back;

                x.dtype = dtypes[_i];
                x.data = case_alloc(&x);
                for (size_t e = 0; e < trm_tensor_numel(&x); e++)
                    trm_tensor_set_f64(&x, e, (double)(e % 100));
                in_a = case_convert(device, &x, x.dtype, (trm_layout)a);
                in_b = case_convert(device, &in_a, TRM_DTYPE_F32, (trm_layout)b);
                back = case_convert(device, &in_b, TRM_DTYPE_F32, TRM_LAYOUT_PLAIN);
                for (size_t e = 0; e < trm_tensor_numel(&x); e++)
                    ck_assert(trm_tensor_get_f64(&back, e) == (double)(e % 100));
                trm_aligned_free(x.data);
                trm_aligned_free(in_a.data);
                trm_aligned_free(in_b.data);
                trm_aligned_free(back.data);
            }
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("conv");
    int rc;

    if (trm_device_cpu_create(0, &device) != TRM_OK)
        return 1;
    tcase_add_loop_test(t, conv_case, 0, (int)(sizeof(cases) / sizeof(cases[0])));
    tcase_add_test(t, conv_bad_group);
    tcase_add_loop_test(t, reorders, 0, 5);
    rc = case_main(t, "dense conv");
    trm_device_destroy(device);
    return rc;
}
