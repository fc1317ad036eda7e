/* The operators that only run as references, where they must equal a plainer one. */
#include "tests/kernels/dense_check.h"

static trm_device *device;

static void run(trm_op op, trm_attr *list, int attr_count, trm_tensor *in, int input_count,
                trm_tensor *out, int output_count)
{
    trm_attrs attrs = {.items = list, .count = attr_count};
    trm_tensor inputs[CASE_INPUTS], outputs[4];
    trm_op_desc desc = {.op = op,
                        .attrs = &attrs,
                        .name = "n",
                        .input_count = input_count,
                        .output_count = output_count,
                        .inputs = inputs,
                        .outputs = outputs};
    const void *ins[CASE_INPUTS];
    void *outs[4], *workspace;
    trm_kernel *k = NULL;

    for (int i = 0; i < input_count; i++) {
        inputs[i] = in[i];
        inputs[i].data = NULL;
        ins[i] = in[i].data;
    }
    for (int i = 0; i < output_count; i++) {
        outputs[i] = out[i];
        outs[i] = out[i].data;
    }
    ck_assert_msg(device->ops->prepare(device, &desc, &k) == TRM_OK, "%s", trm_message());
    workspace = trm_aligned_malloc(k->workspace_bytes);
    ck_assert_int_eq(k->ops->run(k, NULL, ins, outs, workspace), TRM_OK);
    trm_aligned_free(workspace);
    trm_kernel_destroy(k);
}

static void fill(trm_tensor *t)
{
    t->data = case_alloc(t);
    for (size_t i = 0; i < trm_tensor_numel(t); i++)
        trm_tensor_set_f64(t, i, case_random());
}

static void same(const trm_tensor *a, const trm_tensor *b)
{
    for (size_t i = 0; i < trm_tensor_numel(a); i++)
        ck_assert_msg(fabs(trm_tensor_get_f64(a, i) - trm_tensor_get_f64(b, i)) < 1e-12, "[%zu]",
                      i);
}

/* Whole-number offsets of +1 row are a convolution of the image moved up by one row. */
START_TEST(deform_is_conv)
{
    trm_tensor in[4] = {T_OF(F64, PLAIN, 1, 4, 6, 5), T_OF(F64, PLAIN, 2, 2, 3, 3),
                        T_OF(F64, PLAIN, 1, 36, 4, 3), T_OF(F64, PLAIN, 2)};
    trm_tensor conv_in[3], got = T_OF(F64, PLAIN, 1, 2, 4, 3), want = got;
    trm_tensor moved;
    trm_attr group[2] = {A_INT("group", 2), A_INT("offset_group", 2)};

    for (int i = 0; i < 4; i++)
        fill(&in[i]);
    for (size_t i = 0; i < trm_tensor_numel(&in[2]); i++)
        trm_tensor_set_f64(&in[2], i, i / 12 % 2 == 0 ? (double)_i : 0.0);
    moved = in[0];
    moved.data = case_alloc(&moved);
    for (size_t p = 0; p < 4; p++)
        for (size_t r = 0; r < 6; r++)
            for (size_t c = 0; c < 5; c++)
                trm_tensor_set_f64(
                    &moved, (p * 6 + r) * 5 + c,
                    r + (size_t)_i < 6
                        ? trm_tensor_get_f64(&in[0], (p * 6 + r + (size_t)_i) * 5 + c)
                        : 0.0);
    got.data = case_alloc(&got);
    want.data = case_alloc(&want);
    run(TRM_OP_DeformConv, group, 2, in, 4, &got, 1);
    conv_in[0] = moved;
    conv_in[1] = in[1];
    conv_in[2] = in[3];
    run(TRM_OP_Conv, group, 1, conv_in, 3, &want, 1);
    same(&got, &want);
    for (int i = 0; i < 4; i++)
        trm_aligned_free(in[i].data);
    trm_aligned_free(moved.data);
    trm_aligned_free(got.data);
    trm_aligned_free(want.data);
}
END_TEST

START_TEST(causal_is_padded_conv)
{
    trm_tensor in[3] = {T_OF(F64, PLAIN, 2, 3, 7), T_OF(F64, PLAIN, 3, 1, 4), T_OF(F64, PLAIN, 3)};
    trm_tensor out[2] = {T_OF(F64, PLAIN, 2, 3, 7), T_OF(F64, PLAIN, 2, 3, 3)}, want = out[0];
    trm_attr none[1] = {A_STRING("activation", "none")};
    trm_attr conv[2] = {A_INT("group", 3), A_INTS("pads", 3, 0)};

    for (int i = 0; i < 3; i++)
        fill(&in[i]);
    out[0].data = case_alloc(&out[0]);
    out[1].data = case_alloc(&out[1]);
    want.data = case_alloc(&want);
    run(TRM_OP_CausalConvWithState, none, 1, in, 3, out, 2);
    run(TRM_OP_Conv, conv, 2, in, 3, &want, 1);
    same(&out[0], &want);
    for (size_t p = 0; p < 6; p++)
        for (size_t t = 0; t < 3; t++)
            ck_assert(trm_tensor_get_f64(&out[1], p * 3 + t) ==
                      trm_tensor_get_f64(&in[0], p * 7 + 4 + t));
    for (int i = 0; i < 3; i++)
        trm_aligned_free(in[i].data);
    trm_aligned_free(out[0].data);
    trm_aligned_free(out[1].data);
    trm_aligned_free(want.data);
}
END_TEST

START_TEST(regions)
{
    float x[16], rois[15] = {0, 0, 0, 3, 3, 0, 1, 1, 2, 2, 7, 0, 0, 3, 3}, y[12];
    trm_tensor in[2] = {T_F32(PLAIN, 1, 1, 4, 4), T_F32(PLAIN, 3, 5)};
    trm_tensor out = T_F32(PLAIN, 3, 1, 2, 2);
    trm_attr list[2] = {A_INTS("pooled_shape", 2, 2), A_FLOAT("spatial_scale", 1.0f)};
    static const float want[12] = {5, 7, 13, 15, 5, 6, 9, 10, 0, 0, 0, 0};

    for (int i = 0; i < 16; i++)
        x[i] = (float)i;
    in[0].data = x;
    in[1].data = rois;
    out.data = y;
    run(TRM_OP_MaxRoiPool, list, 2, in, 2, &out, 1);
    for (int i = 0; i < 12; i++)
        ck_assert_msg(y[i] == want[i], "[%d]: %g", i, (double)y[i]);
}
END_TEST

/* Indices that point nowhere are dropped. */
START_TEST(unpool)
{
    float x[4] = {1, 2, 3, 4}, y[16];
    int64_t where[4] = {5, 7, 13, _i ? -1 : 15};
    trm_tensor in[2] = {T_F32(PLAIN, 1, 1, 2, 2), T_OF(I64, PLAIN, 1, 1, 2, 2)};
    trm_tensor out = T_F32(PLAIN, 1, 1, 4, 4);
    trm_attr list[2] = {A_INTS("kernel_shape", 2, 2), A_INTS("strides", 2, 2)};

    in[0].data = x;
    in[1].data = where;
    out.data = y;
    run(TRM_OP_MaxUnpool, list, 2, in, 2, &out, 1);
    for (int i = 0; i < 16; i++)
        ck_assert(y[i] == (i == 5 ? 1 : i == 7 ? 2 : i == 13 ? 3 : i == 15 && !_i ? 4 : 0));
}
END_TEST

/* x * w with zero points by hand; per-column weights' zero points; rounding half to even. */
START_TEST(quantised_products)
{
    uint8_t a[4] = {10, 20, 30, 40}, az = 10, y8[4], yz = 100;
    int8_t b[4] = {1, -2, 3, 4}, bz[2] = {1, -1};
    int32_t y[4];
    float as = 0.5f, bs[2] = {1.0f, 0.5f}, ys = 1.0f;
    trm_tensor in[4] = {T_OF(U8, PLAIN, 2, 2), T_OF(I8, PLAIN, 2, 2), T_OF(U8, PLAIN, 1),
                        T_OF(I8, PLAIN, 2)};
    trm_tensor lin[8] = {T_OF(U8, PLAIN, 2, 2), T_F32(PLAIN, 1),   T_OF(U8, PLAIN, 1),
                         T_OF(I8, PLAIN, 2, 2), T_F32(PLAIN, 2),   T_OF(I8, PLAIN, 2),
                         T_F32(PLAIN, 1),       T_OF(U8, PLAIN, 1)};
    void *data[8] = {a, &as, &az, b, bs, bz, &ys, &yz};
    trm_tensor out = T_OF(I32, PLAIN, 2, 2), out8 = T_OF(U8, PLAIN, 2, 2);
    /* a - 10 = [0 10; 20 30], b - bz = [0 -1; 2 5] */
    static const int32_t want[4] = {20, 50, 60, 130};
    static const uint8_t want8[4] = {110, 112, 130, 132}; /* 12.5 to 12, 32.5 to 32 */

    in[0].data = a;
    in[1].data = b;
    in[2].data = &az;
    in[3].data = bz;
    out.data = y;
    run(TRM_OP_MatMulInteger, NULL, 0, in, 4, &out, 1);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(y[i], want[i]);
    for (int i = 0; i < 8; i++)
        lin[i].data = data[i];
    out8.data = y8;
    run(TRM_OP_QLinearMatMul, NULL, 0, lin, 8, &out8, 1);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(y8[i], want8[i]);
}
END_TEST

/* oneDNN's int8 convolution (constant weights) against the exact reference (weights as inputs): at
 * most one step apart where a tie is rounded. */
START_TEST(quantised_conv)
{
    trm_tensor in[9] = {T_OF(U8, PLAIN, 1, 20, 7, 9),
                        T_F32(PLAIN, 1),
                        T_OF(U8, PLAIN, 1),
                        T_OF(I8, PLAIN, 24, 20, 3, 3),
                        T_F32(PLAIN, 24),
                        T_OF(I8, PLAIN, 24),
                        T_F32(PLAIN, 1),
                        T_OF(U8, PLAIN, 1),
                        T_OF(I32, PLAIN, 24)};
    trm_tensor out = T_OF(U8, PLAIN, 1, 24, 4, 5), layouted, plain[2];
    trm_attr list[3] = {A_INTS("pads", 1, 1, 1, 1), A_INTS("strides", 2, 2), A_INT("group", 1)};
    trm_attrs attrs = {.items = list, .count = 3};
    static const double whole[9] = {255, 0, 0, 127, 0, 0, 0, 0, 500};
    static const double single[9] = {0, 0.02, 120, 0, 0.01, 0, 0.1, 50, 0};

    if (_i > 0) { /* signed, depthwise */
        in[0].dtype = in[2].dtype = in[7].dtype = out.dtype = TRM_DTYPE_I8;
        in[0].dims[1] = list[2].v.i = 24;
        in[3].dims[1] = 1;
    }
    for (int i = 0; i < 9; i++) {
        in[i].data = case_alloc(&in[i]);
        for (size_t e = 0; e < trm_tensor_numel(&in[i]); e++) {
            double v = single[i] + fabs(case_random()) * whole[i];

            if (i == 4)
                v += 0.01 * fabs(case_random());
            if (i == 3 || i == 8 || (i == 0 && _i > 0))
                v = (v - whole[i] / 2) / (i == 8 ? 1 : 1.01);
            trm_tensor_set_f64(&in[i], e, v);
        }
    }
    for (int way = 0; way < 2; way++) {
        trm_tensor inputs[9], outputs[1] = {out}, x;
        trm_op_desc desc = {.op = TRM_OP_QLinearConv,
                            .attrs = &attrs,
                            .name = "n",
                            .input_count = 9,
                            .output_count = 1,
                            .inputs = inputs,
                            .outputs = outputs};
        const void *ins[9];
        void *outs[1], *workspace;
        trm_kernel *k = NULL;

        for (int i = 0; i < 9; i++) {
            inputs[i] = in[i];
            ins[i] = in[i].data;
            if (i == 0 || way == 1)
                inputs[i].data = NULL;
        }
        ck_assert_msg(device->ops->prepare(device, &desc, &k) == TRM_OK, "%s", trm_message());
        x = case_convert(device, &in[0], in[0].dtype, inputs[0].layout);
        ins[0] = x.data;
        layouted = outputs[0];
        outs[0] = layouted.data = case_alloc(&layouted);
        workspace = trm_aligned_malloc(k->workspace_bytes);
        ck_assert_int_eq(k->ops->run(k, NULL, ins, outs, workspace), TRM_OK);
        plain[way] = case_convert(device, &layouted, out.dtype, TRM_LAYOUT_PLAIN);
        trm_kernel_destroy(k);
        trm_aligned_free(workspace);
        trm_aligned_free(layouted.data);
        trm_aligned_free(x.data);
    }
    for (size_t e = 0; e < trm_tensor_numel(&out); e++) {
        int64_t a = trm_tensor_get_i64(&plain[0], e), b = trm_tensor_get_i64(&plain[1], e);

        ck_assert_msg(a - b <= 1 && b - a <= 1, "[%zu]: %lld, reference %lld", e, (long long)a,
                      (long long)b);
    }
    trm_aligned_free(plain[0].data);
    trm_aligned_free(plain[1].data);
    for (int i = 0; i < 9; i++)
        trm_aligned_free(in[i].data);
}
END_TEST

static const op_case norms[] = {
    {"batch norm, blocked, relu",
     TRM_OP_BatchNormalization,
     5,
     {T_F32(BLOCK16, 2, 20, 5, 6), T_F32(PLAIN, 20), T_F32(PLAIN, 20), T_F32(PLAIN, 20),
      T_F32(PLAIN, 20)},
     0,
     T_F32(PLAIN, 2, 20, 5, 6),
     {A_FLOAT("epsilon", 2.0f)},
     1,
     {{.op = TRM_OP_Relu, .input = -1}},
     1,
     0},
    {"batch norm, channels last",
     TRM_OP_BatchNormalization,
     5,
     {T_F32(CHANNELS_LAST, 2, 5, 7), T_F32(PLAIN, 5), T_F32(PLAIN, 5), T_F32(PLAIN, 5),
      T_F32(PLAIN, 5)},
     0,
     T_F32(PLAIN, 2, 5, 7),
     {A_FLOAT("epsilon", 2.0f)},
     1,
     {{0}},
     0,
     0},
    {"batch norm, bf16",
     TRM_OP_BatchNormalization,
     5,
     {T_OF(BF16, PLAIN, 2, 5), T_F32(PLAIN, 5), T_F32(PLAIN, 5), T_F32(PLAIN, 5), T_F32(PLAIN, 5)},
     0,
     T_OF(BF16, PLAIN, 2, 5),
     {A_FLOAT("epsilon", 2.0f)},
     1,
     {{0}},
     0,
     2e-2},
    {"lrn",
     TRM_OP_LRN,
     1,
     {T_F32(BLOCK16, 1, 20, 4, 4)},
     0,
     T_F32(PLAIN, 1, 20, 4, 4),
     {A_INT("size", 5), A_FLOAT("alpha", 0.5f), A_FLOAT("bias", 2.0f)},
     3,
     {{0}},
     0,
     0},
    {"lrn, even",
     TRM_OP_LRN,
     1,
     {T_F32(PLAIN, 1, 20, 4, 4)},
     0,
     T_F32(PLAIN, 1, 20, 4, 4),
     {A_INT("size", 4), A_FLOAT("alpha", 0.5f)},
     2,
     {{0}},
     0,
     0},
};

START_TEST(norm_case)
{
    case_check(device, &norms[_i], false);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("region");
    int rc;

    if (trm_device_cpu_create(0, &device) != TRM_OK)
        return 1;
    tcase_add_loop_test(t, deform_is_conv, 0, 2);
    tcase_add_test(t, causal_is_padded_conv);
    tcase_add_test(t, regions);
    tcase_add_loop_test(t, unpool, 0, 2);
    tcase_add_test(t, quantised_products);
    tcase_add_loop_test(t, quantised_conv, 0, 2);
    tcase_add_loop_test(t, norm_case, 0, (int)(sizeof(norms) / sizeof(norms[0])));
    rc = case_main(t, "dense region");
    trm_device_destroy(device);
    return rc;
}
