/* Generating, scattering, padding, sorting and selecting: small cases with known answers (most are
 * the ONNX specification's examples), and random data against scalar references. */
#include "tests/kernels/data_kit.h"

#include <math.h>

START_TEST(shape_and_size)
{
    const int64_t want[2] = {3, 4}, size = 0;
    kit k;

    kit_open(&k, TRM_OP_Shape);
    kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(2, 3, 4, 5));
    k.in[0].layout = TRM_LAYOUT_BLOCK16; /* does not matter: not read */
    kit_attr_int(&k, "start", 1);
    kit_attr_int(&k, "end", -1);
    kit_out(&k, TRM_DTYPE_I64, KIT_DIMS(2));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Shape), TRM_OK);
    ck_assert_int_eq(k.settled_in[0], TRM_LAYOUT_BLOCK16);
    kit_expect_bytes(&k, 0, want);
    kit_close(&k);
    kit_open(&k, TRM_OP_Size);
    kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(2, 0));
    kit_out(&k, TRM_DTYPE_I64, 0, NULL);
    ck_assert_int_eq(kit_run(&k, TRM_OP_Size), TRM_OK);
    kit_expect_bytes(&k, 0, &size);
    kit_close(&k);
}
END_TEST

START_TEST(constant_of_shape)
{
    const int64_t shape[2] = {2, 3};
    int32_t one = 7;
    trm_tensor value = {.dtype = TRM_DTYPE_I32, .rank = 1, .dims = {1}, .data = &one};
    trm_attr attr = {.name = "value", .kind = TRM_ATTR_TENSOR, .count = 1, .v = {.tensor = &value}};
    const int32_t want[6] = {7, 7, 7, 7, 7, 7};
    kit k;

    kit_open(&k, TRM_OP_ConstantOfShape);
    kit_ints(&k, shape, 2);
    ck_assert_int_eq(trm_attr_set(&k.attrs, k.arena, &attr), TRM_OK);
    kit_out(&k, TRM_DTYPE_I32, KIT_DIMS(2, 3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_ConstantOfShape), TRM_OK);
    kit_expect_bytes(&k, 0, want);
    kit_close(&k);
}
END_TEST

START_TEST(range)
{
    const float start = 1, limit = 2.1f, delta = 0.5f, want[3] = {1, 1.5f, 2};
    kit k;

    kit_open(&k, TRM_OP_Range);
    kit_in(&k, TRM_DTYPE_F32, &start, true, 0, NULL);
    kit_in(&k, TRM_DTYPE_F32, &limit, true, 0, NULL);
    kit_in(&k, TRM_DTYPE_F32, &delta, true, 0, NULL);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Range), TRM_OK);
    kit_expect_bytes(&k, 0, want);
    kit_close(&k);
}
END_TEST

START_TEST(eye_and_trilu)
{
    const int64_t minus = -1, plus = 1;
    const int64_t eye[6] = {0, 1, 0, 0, 0, 1};
    const uint8_t x[6] = {1, 2, 3, 4, 5, 6};
    const uint8_t upper[6] = {0, 2, 3, 0, 0, 6}, lower[6] = {0, 0, 0, 4, 0, 0};
    kit k;

    kit_open(&k, TRM_OP_EyeLike);
    kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(2, 3));
    kit_attr_int(&k, "k", 1);
    kit_out(&k, TRM_DTYPE_I64, KIT_DIMS(2, 3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_EyeLike), TRM_OK);
    kit_expect_bytes(&k, 0, eye);
    kit_close(&k);
    for (int up = 0; up < 2; up++) {
        kit_open(&k, TRM_OP_Trilu);
        kit_in(&k, TRM_DTYPE_U8, x, false, KIT_DIMS(1, 2, 3));
        kit_in(&k, TRM_DTYPE_I64, up ? &plus : &minus, true, 0, NULL);
        kit_attr_int(&k, "upper", up);
        kit_out(&k, TRM_DTYPE_U8, KIT_DIMS(1, 2, 3));
        ck_assert_int_eq(kit_run(&k, TRM_OP_Trilu), TRM_OK);
        kit_expect_bytes(&k, 0, up ? upper : lower);
        kit_close(&k);
    }
}
END_TEST

START_TEST(one_hot)
{
    const float index[3] = {1, -1, 7}, values[2] = {2, 5};
    const int64_t depth = 3;
    const float want[9] = {2, 5, 2, 2, 2, 5, 2, 2, 2};
    kit k;

    kit_open(&k, TRM_OP_OneHot);
    kit_in(&k, TRM_DTYPE_F32, index, false, KIT_DIMS(3));
    kit_ints(&k, &depth, 1);
    kit_in(&k, TRM_DTYPE_F32, values, false, KIT_DIMS(2));
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(3, 3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_OneHot), TRM_OK);
    kit_expect_bytes(&k, 0, want);
    kit_close(&k);
}
END_TEST

START_TEST(scatter_elements)
{
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    static const float want[5] = {0.5f, 3.5f, 1, 2, 0.5f}; /* at index 1, which is given twice */
    const float x[5] = {1, 1, 1, 1, 1}, update[3] = {2, 0.5f, 9};
    const int64_t index[3] = {1, -4, 3}, far[3] = {1, 5, 3};
    kit k;

    for (int bad = 0; bad < 2; bad++) {
        kit_open(&k, TRM_OP_ScatterElements);
        kit_in(&k, TRM_DTYPE_F32, x, false, KIT_DIMS(1, 5));
        kit_in(&k, TRM_DTYPE_I64, bad ? far : index, false, KIT_DIMS(1, 3));
        kit_in(&k, TRM_DTYPE_F32, update, false, KIT_DIMS(1, 3));
        kit_attr_int(&k, "axis", 1);
        kit_attr_string(&k, "reduction", names[_i]);
        kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(1, 5));
        ck_assert_int_eq(kit_run(&k, TRM_OP_ScatterElements), bad ? TRM_ERR_INVALID_ARG : TRM_OK);
        if (!bad)
            ck_assert_float_eq_tol(((float *)k.out[0].data)[1], want[_i], 1e-6f);
        else
            ck_assert_ptr_nonnull(strstr(trm_message(), "index 5"));
        kit_close(&k);
    }
}
END_TEST

START_TEST(scatter_nd)
{
    const int32_t x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, update[4] = {9, 10, 11, 12};
    const int32_t want[8] = {1, 11, 3, 10, 9, 6, 7, 12};
    const int64_t index[4] = {4, 3, 1, 7};
    kit k;

    kit_open(&k, TRM_OP_ScatterND);
    kit_in(&k, TRM_DTYPE_I32, x, false, KIT_DIMS(8));
    kit_in(&k, TRM_DTYPE_I64, index, false, KIT_DIMS(4, 1));
    kit_in(&k, TRM_DTYPE_I32, update, false, KIT_DIMS(4));
    kit_out(&k, TRM_DTYPE_I32, KIT_DIMS(8));
    ck_assert_int_eq(kit_run(&k, TRM_OP_ScatterND), TRM_OK);
    kit_expect_bytes(&k, 0, want);
    kit_close(&k);
}
END_TEST

START_TEST(tensor_scatter)
{
    const int16_t x[8] = {0}, update[4] = {1, 2, 3, 4};
    const int64_t at[2] = {3, 1}, bad[2] = {4, 0};
    const int16_t want[8] = {2, 0, 0, 1, 0, 3, 4, 0};
    kit k;

    for (int round = 0; round < 2; round++) {
        kit_open(&k, TRM_OP_TensorScatter);
        kit_in(&k, TRM_DTYPE_I16, x, false, KIT_DIMS(2, 4, 1));
        kit_in(&k, TRM_DTYPE_I16, update, false, KIT_DIMS(2, 2, 1));
        kit_in(&k, TRM_DTYPE_I64, round ? bad : at, false, KIT_DIMS(2));
        kit_attr_string(&k, "mode", "circular");
        kit_out(&k, TRM_DTYPE_I16, KIT_DIMS(2, 4, 1));
        ck_assert_int_eq(kit_run(&k, TRM_OP_TensorScatter), round ? TRM_ERR_INVALID_ARG : TRM_OK);
        if (round == 0)
            kit_expect_bytes(&k, 0, want);
        kit_close(&k);
    }
}
END_TEST

static const struct pad_case {
    const char *mode;
    int64_t begin, end, n;
    float want[12]; /* of {1, 2, 3, 4}, pad value 9 */
} pads[] = {
    {"constant", 2, 1, 7, {9, 9, 1, 2, 3, 4, 9}},
    {"constant", -1, 2, 5, {2, 3, 4, 9, 9}},
    {"constant", -2, -2, 0, {0}},
    {"reflect", 3, 2, 9, {4, 3, 2, 1, 2, 3, 4, 3, 2}},
    {"edge", 2, 1, 7, {1, 1, 1, 2, 3, 4, 4}},
    {"wrap", 3, 5, 12, {2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1}},
    {"edge", -1, 2, 5, {2, 3, 4, 4, 4}},
    {"constant", 0, 0, 4, {1, 2, 3, 4}},
};

START_TEST(pad)
{
    const struct pad_case *c = &pads[_i];
    const float x[4] = {1, 2, 3, 4}, value = 9;
    float doubled[24];
    const int64_t ends[2] = {c->begin, c->end}, axis = 1;
    kit k;

    for (int inner = 1; inner <= 2; inner++) { /* behind the axis: one element, or two */
        float data[8];

        for (int i = 0; i < 4 * inner; i++)
            data[i] = x[i / inner];
        for (int i = 0; i < (int)c->n * inner; i++)
            doubled[i] = c->want[i / inner];
        kit_open(&k, TRM_OP_Pad);
        kit_in(&k, TRM_DTYPE_F32, data, false, KIT_DIMS(1, 4, inner));
        kit_ints(&k, ends, 2);
        kit_in(&k, TRM_DTYPE_F32, &value, false, 0, NULL);
        kit_ints(&k, &axis, 1);
        kit_attr_string(&k, "mode", c->mode);
        kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(1, c->n, inner));
        ck_assert_int_eq(kit_run(&k, TRM_OP_Pad), TRM_OK);
        kit_expect_bytes(&k, 0, doubled);
        kit_close(&k);
    }
}
END_TEST

START_TEST(pad_two_axes_and_center_crop)
{
    const int8_t x[4] = {1, 2, 3, 4};
    const int8_t want[16] = {0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 0};
    const int64_t ones[4] = {1, 1, 1, 1}, shape[2] = {1, 5};
    const int8_t cropped[5] = {0, 1, 2, 0, 0};
    kit k;

    kit_open(&k, TRM_OP_Pad);
    kit_in(&k, TRM_DTYPE_I8, x, false, KIT_DIMS(2, 2));
    kit_ints(&k, ones, 4);
    kit_out(&k, TRM_DTYPE_I8, KIT_DIMS(4, 4));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Pad), TRM_OK);
    kit_expect_bytes(&k, 0, want);
    kit_close(&k);
    kit_open(&k, TRM_OP_CenterCropPad);
    kit_in(&k, TRM_DTYPE_I8, x, false, KIT_DIMS(2, 2));
    kit_ints(&k, shape, 2);
    kit_out(&k, TRM_DTYPE_I8, KIT_DIMS(1, 5));
    ck_assert_int_eq(kit_run(&k, TRM_OP_CenterCropPad), TRM_OK);
    kit_expect_bytes(&k, 0, cropped);
    kit_close(&k);
}
END_TEST

START_TEST(reverse_sequence)
{
    const float x[8] = {0, 4, 1, 5, 2, 6, 3, 7}; /* time major: [4, 2] */
    const float want[8] = {2, 5, 1, 4, 0, 6, 3, 7};
    const int64_t lengths[2] = {3, 2}, bad[2] = {3, 5};
    kit k;

    for (int round = 0; round < 2; round++) {
        kit_open(&k, TRM_OP_ReverseSequence);
        kit_in(&k, TRM_DTYPE_F32, x, false, KIT_DIMS(4, 2));
        kit_in(&k, TRM_DTYPE_I64, round ? bad : lengths, false, KIT_DIMS(2));
        kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(4, 2));
        ck_assert_int_eq(kit_run(&k, TRM_OP_ReverseSequence), round ? TRM_ERR_INVALID_ARG : TRM_OK);
        if (round == 0)
            kit_expect_bytes(&k, 0, want);
        kit_close(&k);
    }
}
END_TEST

/* 600 x 40 random values with many ties, k of axis 0 or 1, both directions */
START_TEST(topk)
{
    int axis = _i & 1, largest = _i >> 1 & 1;
    int64_t kk = 7, dims[2] = {600, 40}, out[2] = {600, 40};
    int32_t *x;
    kit k;

    out[axis] = kk;
    kit_open(&k, TRM_OP_TopK);
    x = kit_in_random(&k, TRM_DTYPE_I32, 2, dims);
    for (int i = 0; i < 600 * 40; i++)
        x[i] = x[i] % 20;
    kit_ints(&k, &kk, 1);
    kit_attr_int(&k, "axis", axis);
    kit_attr_int(&k, "largest", largest);
    kit_out(&k, TRM_DTYPE_I32, 2, out);
    kit_out(&k, TRM_DTYPE_I64, 2, out);
    ck_assert_int_eq(kit_run(&k, TRM_OP_TopK), TRM_OK);
    for (int64_t line = 0; line < dims[1 - axis]; line++) {
        bool taken[600] = {false};
        int64_t step = axis == 0 ? 40 : 1, base = axis == 0 ? line : line * 40;
        int64_t out_step = axis == 0 ? 40 : 1, out_base = axis == 0 ? line : line * kk;

        for (int64_t j = 0; j < kk; j++) {
            int64_t best = -1;

            for (int64_t i = 0; i < dims[axis]; i++) {
                int32_t v = x[base + i * step];

                if (!taken[i] &&
                    (best < 0 || (largest ? v > x[base + best * step] : v < x[base + best * step])))
                    best = i;
            }
            taken[best] = true;
            ck_assert_int_eq(((int64_t *)k.out[1].data)[out_base + j * out_step], best);
            ck_assert_int_eq(((int32_t *)k.out[0].data)[out_base + j * out_step],
                             x[base + best * step]);
        }
    }
    kit_close(&k);
}
END_TEST

START_TEST(nonzero_and_compress)
{
    const float x[4] = {1, 0, -0.0f, 3};
    const int64_t want[4] = {0, 1, 0, 1};
    const uint8_t keep[2] = {0, 1};
    const float second[2] = {-0.0f, 3};
    kit k;

    kit_open(&k, TRM_OP_NonZero);
    kit_in(&k, TRM_DTYPE_F32, x, false, KIT_DIMS(2, 2));
    kit_out(&k, TRM_DTYPE_I64, KIT_DIMS(2, -1));
    ck_assert_int_eq(kit_run(&k, TRM_OP_NonZero), TRM_OK);
    ck_assert_int_eq(k.out[0].dims[1], 2);
    kit_expect_bytes(&k, 0, want);
    kit_close(&k);
    kit_open(&k, TRM_OP_Compress);
    kit_in(&k, TRM_DTYPE_F32, x, false, KIT_DIMS(2, 2));
    kit_in(&k, TRM_DTYPE_BOOL, keep, false, KIT_DIMS(2));
    kit_attr_int(&k, "axis", 0);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(-1, 2));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Compress), TRM_OK);
    ck_assert_int_eq(k.out[0].dims[0], 1);
    kit_expect_bytes(&k, 0, second);
    kit_close(&k);
}
END_TEST

START_TEST(unique)
{
    const float x[6] = {2, 1, 1, 3, 4, 3};
    const float y[2][4] = {{2, 1, 3, 4}, {1, 2, 3, 4}};
    const int64_t first[2][4] = {{0, 1, 3, 4}, {1, 0, 3, 4}};
    const int64_t inverse[2][6] = {{0, 1, 1, 2, 3, 2}, {1, 0, 0, 2, 3, 2}};
    const int64_t counts[2][4] = {{1, 2, 2, 1}, {2, 1, 2, 1}};
    kit k;

    kit_open(&k, TRM_OP_Unique);
    kit_in(&k, TRM_DTYPE_F32, x, false, KIT_DIMS(6));
    kit_attr_int(&k, "sorted", _i);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(-1));
    for (int i = 0; i < 3; i++)
        kit_out(&k, TRM_DTYPE_I64, KIT_DIMS(-1));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Unique), TRM_OK);
    ck_assert_int_eq(k.out[0].dims[0], 4);
    kit_expect_bytes(&k, 0, y[_i]);
    kit_expect_bytes(&k, 1, first[_i]);
    kit_expect_bytes(&k, 2, inverse[_i]);
    kit_expect_bytes(&k, 3, counts[_i]);
    kit_close(&k);
}
END_TEST

START_TEST(unique_axis)
{
    const int32_t x[9] = {1, 0, 0, 1, 0, 0, 2, 3, 4};
    const int32_t rows[6] = {1, 0, 0, 2, 3, 4};
    kit k;

    kit_open(&k, TRM_OP_Unique);
    kit_in(&k, TRM_DTYPE_I32, x, false, KIT_DIMS(3, 3));
    kit_attr_int(&k, "axis", 0);
    kit_out(&k, TRM_DTYPE_I32, KIT_DIMS(-1, 3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Unique), TRM_OK);
    kit_expect_bytes(&k, 0, rows);
    kit_close(&k);
}
END_TEST

START_TEST(nms)
{
    const float boxes[24] = {0, 0,  1, 1,  0, 0.1f,  1, 1.1f,  0, -0.1f, 1, 0.9f,
                             0, 10, 1, 11, 0, 10.1f, 1, 11.1f, 0, 100,   1, 101};
    const float scores[6] = {0.9f, 0.75f, 0.6f, 0.95f, 0.5f, 0.3f};
    const int64_t most = 3, want[9] = {0, 0, 3, 0, 0, 0, 0, 0, 5};
    const float iou = 0.5f, score = _i ? 0.4f : 0;
    kit k;

    kit_open(&k, TRM_OP_NonMaxSuppression);
    kit_in(&k, TRM_DTYPE_F32, boxes, false, KIT_DIMS(1, 6, 4));
    kit_in(&k, TRM_DTYPE_F32, scores, false, KIT_DIMS(1, 1, 6));
    kit_ints(&k, &most, 1);
    kit_in(&k, TRM_DTYPE_F32, &iou, false, KIT_DIMS(1));
    kit_in(&k, TRM_DTYPE_F32, &score, false, KIT_DIMS(1));
    kit_out(&k, TRM_DTYPE_I64, KIT_DIMS(-1, 3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_NonMaxSuppression), TRM_OK);
    ck_assert_int_eq(k.out[0].dims[0], _i ? 2 : 3);
    kit_expect_bytes(&k, 0, want);
    kit_close(&k);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("data: select");
    TCase *t = tcase_create("select");

    tcase_add_test(t, shape_and_size);
    tcase_add_test(t, constant_of_shape);
    tcase_add_test(t, range);
    tcase_add_test(t, eye_and_trilu);
    tcase_add_test(t, one_hot);
    tcase_add_loop_test(t, scatter_elements, 0, 5);
    tcase_add_test(t, scatter_nd);
    tcase_add_test(t, tensor_scatter);
    tcase_add_loop_test(t, pad, 0, (int)(sizeof(pads) / sizeof(pads[0])));
    tcase_add_test(t, pad_two_axes_and_center_crop);
    tcase_add_test(t, reverse_sequence);
    tcase_add_loop_test(t, topk, 0, 4);
    tcase_add_test(t, nonzero_and_compress);
    tcase_add_loop_test(t, unique, 0, 2);
    tcase_add_test(t, unique_axis);
    tcase_add_loop_test(t, nms, 0, 2);
    suite_add_tcase(s, t);
    return kit_main(s);
}
