/* Resize, GridSample, AffineGrid, RoiAlign, Col2Im: the ONNX specification's examples, and
 * properties that hold for any data. */
#include "tests/kernels/data_kit.h"

#include <math.h>

static const float ramp[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

/* Resizes a [1, 1, h, w] ramp with scales (sy, sx). */
static void resize_ramp(kit *k, int64_t h, int64_t w, float sy, float sx, int64_t oh, int64_t ow)
{
    const float scales[4] = {1, 1, sy, sx};

    kit_in(k, TRM_DTYPE_F32, ramp, false, KIT_DIMS(1, 1, h, w));
    kit_in_absent(k);
    kit_in(k, TRM_DTYPE_F32, scales, true, KIT_DIMS(4));
    kit_out(k, TRM_DTYPE_F32, KIT_DIMS(1, 1, oh, ow));
    ck_assert_int_eq(kit_run(k, TRM_OP_Resize), TRM_OK);
}

START_TEST(resize_nearest)
{
    const float want[24] = {1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 3, 3, 3, 4, 4, 4};
    kit k;

    kit_open(&k, TRM_OP_Resize);
    kit_attr_string(&k, "mode", "nearest");
    resize_ramp(&k, 2, 2, 2, 3, 4, 6);
    kit_expect_bytes(&k, 0, want);
    kit_close(&k);
}
END_TEST

START_TEST(resize_linear)
{
    const float want[16] = {1,    1.25f, 1.75f, 2,    1.5f, 1.75f, 2.25f, 2.5f,
                            2.5f, 2.75f, 3.25f, 3.5f, 3,    3.25f, 3.75f, 4};
    const float down[2] = {2.6666665f, 4.3333331f};
    const float corners[2] = {1, 3.142857f};
    kit k;

    kit_open(&k, TRM_OP_Resize);
    kit_attr_string(&k, "mode", "linear");
    resize_ramp(&k, 2, 2, 2, 2, 4, 4);
    kit_expect_f32(&k, 0, want, 1e-6f);
    kit_close(&k);
    kit_open(&k, TRM_OP_Resize);
    kit_attr_string(&k, "mode", "linear");
    resize_ramp(&k, 2, 4, 0.6f, 0.6f, 1, 2);
    kit_expect_f32(&k, 0, down, 1e-5f);
    kit_close(&k);
    kit_open(&k, TRM_OP_Resize);
    kit_attr_string(&k, "mode", "linear");
    kit_attr_string(&k, "coordinate_transformation_mode", "align_corners");
    resize_ramp(&k, 2, 4, 0.6f, 0.6f, 1, 2);
    kit_expect_f32(&k, 0, corners, 1e-5f);
    kit_close(&k);
}
END_TEST

START_TEST(resize_cubic)
{
    const float down[9] = {1.47119141f, 2.78125f,     4.08251953f, 6.71142578f, 8.02148438f,
                           9.32275391f, 11.91650391f, 13.2265625f, 14.52783203f};
    const float excluded[9] = {1.36812675f, 2.6695014f,   4.0133367f,   6.57362535f, 7.875f,
                               9.2188353f,  11.94896657f, 13.25034122f, 14.59417652f};
    kit k;

    for (int exclude = 0; exclude < 2; exclude++) {
        kit_open(&k, TRM_OP_Resize);
        kit_attr_string(&k, "mode", "cubic");
        if (exclude) {
            kit_attr_int(&k, "exclude_outside", 1);
            kit_attr_float(&k, "cubic_coeff_a", -0.5f);
        }
        resize_ramp(&k, 4, 4, 0.8f, 0.8f, 3, 3);
        kit_expect_f32(&k, 0, exclude ? excluded : down, 1e-4f);
        kit_close(&k);
    }
}
END_TEST

START_TEST(resize_antialias)
{
    const float want[4] = {2.875f, 4.5f, 9.375f, 11.0f};
    kit k;

    kit_open(&k, TRM_OP_Resize);
    kit_attr_string(&k, "mode", "linear");
    kit_attr_int(&k, "antialias", 1);
    resize_ramp(&k, 4, 4, 0.6f, 0.6f, 2, 2);
    kit_expect_f32(&k, 0, want, 1e-4f);
    kit_close(&k);
}
END_TEST

START_TEST(resize_crop)
{
    const float roi[8] = {0, 0, 0.4f, 0.6f, 1, 1, 1.2f, 1.7f};
    const int64_t sizes[4] = {1, 1, 3, 3};
    const float want[9] = {7.6f, 10, 10, 12.4f, 10, 10, 10, 10, 10};
    kit k;

    kit_open(&k, TRM_OP_Resize);
    kit_attr_string(&k, "mode", "linear");
    kit_attr_string(&k, "coordinate_transformation_mode", "tf_crop_and_resize");
    kit_attr_float(&k, "extrapolation_value", 10);
    kit_in(&k, TRM_DTYPE_F32, ramp, false, KIT_DIMS(1, 1, 4, 4));
    kit_in(&k, TRM_DTYPE_F32, roi, true, KIT_DIMS(8));
    kit_in_absent(&k);
    kit_ints(&k, sizes, 4);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(1, 1, 3, 3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Resize), TRM_OK);
    kit_expect_f32(&k, 0, want, 1e-4f);
    kit_close(&k);
}
END_TEST

/* A blocked or channels-last image gives the plain result in its own layout: mode by _i. */
START_TEST(resize_keeps_layouts)
{
    static const char *const modes[] = {"nearest", "linear", "cubic"};
    const int64_t sizes[4] = {2, 16, 7, 5};
    kit plain, other;
    const float *x;
    float *moved;

    for (int layout = 1; layout < 4; layout++) {
        int64_t block = layout == 2 ? 8 : 16;

        kit_open(&plain, TRM_OP_Resize);
        kit_open(&other, TRM_OP_Resize);
        kit_attr_string(&plain, "mode", modes[_i]);
        kit_attr_string(&other, "mode", modes[_i]);
        x = kit_in_random(&plain, TRM_DTYPE_F32, KIT_DIMS(2, 16, 3, 4));
        moved = kit_in_random(&other, TRM_DTYPE_F32, KIT_DIMS(2, 16, 3, 4));
        other.in[0].layout = (trm_layout)layout;
        for (int64_t n = 0; n < 2; n++)
            for (int64_t c = 0; c < 16; c++)
                for (int64_t p = 0; p < 12; p++)
                    moved[layout == 1 ? (n * 12 + p) * 16 + c
                                      : ((n * (16 / block) + c / block) * 12 + p) * block +
                                            c % block] = x[(n * 16 + c) * 12 + p];
        for (int i = 0; i < 2; i++) {
            kit *k = i ? &other : &plain;

            kit_in_absent(k);
            kit_in_absent(k);
            kit_ints(k, sizes, 4);
            kit_out(k, TRM_DTYPE_F32, KIT_DIMS(2, 16, 7, 5));
            ck_assert_int_eq(kit_run(k, TRM_OP_Resize), TRM_OK);
        }
        ck_assert_int_eq(other.out[0].layout, layout);
        for (int64_t n = 0; n < 2; n++)
            for (int64_t c = 0; c < 16; c++)
                for (int64_t p = 0; p < 35; p++)
                    ck_assert_float_eq_tol(
                        ((float *)other.out[0]
                             .data)[layout == 1
                                        ? (n * 35 + p) * 16 + c
                                        : ((n * (16 / block) + c / block) * 35 + p) * block +
                                              c % block],
                        ((float *)plain.out[0].data)[(n * 16 + c) * 35 + p], 1e-5f);
        kit_close(&plain);
        kit_close(&other);
    }
}
END_TEST

/* The identity grid gives the image back, in every mode and padding. */
START_TEST(grid_identity)
{
    static const char *const modes[] = {"linear", "nearest", "cubic"};
    static const char *const paddings[] = {"zeros", "border", "reflection"};
    const float theta[6] = {1, 0, 0, 0, 1, 0};
    const int64_t size[4] = {1, 2, 5, 7};
    int corners = _i / 9;
    kit g, k;

    kit_open(&g, TRM_OP_AffineGrid);
    kit_in(&g, TRM_DTYPE_F32, theta, false, KIT_DIMS(1, 2, 3));
    kit_ints(&g, size, 4);
    kit_attr_int(&g, "align_corners", corners);
    kit_out(&g, TRM_DTYPE_F32, KIT_DIMS(1, 5, 7, 2));
    ck_assert_int_eq(kit_run(&g, TRM_OP_AffineGrid), TRM_OK);
    kit_open(&k, TRM_OP_GridSample);
    kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(1, 2, 5, 7));
    kit_in(&k, TRM_DTYPE_F32, g.out[0].data, false, KIT_DIMS(1, 5, 7, 2));
    kit_attr_int(&k, "align_corners", corners);
    kit_attr_string(&k, "mode", modes[_i % 3]);
    kit_attr_string(&k, "padding_mode", paddings[_i / 3 % 3]);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(1, 2, 5, 7));
    ck_assert_int_eq(kit_run(&k, TRM_OP_GridSample), TRM_OK);
    kit_expect_f32(&k, 0, k.in_data[0], 1e-5f);
    kit_close(&k);
    kit_close(&g);
}
END_TEST

START_TEST(grid_hostile_coordinates)
{
    const float grid[8] = {NAN, 0, INFINITY, -INFINITY, 1e30f, -1e30f, -5, 3};
    kit k;

    for (int mode = 0; mode < 9; mode++) {
        static const char *const modes[] = {"linear", "nearest", "cubic"};
        static const char *const paddings[] = {"zeros", "border", "reflection"};

        kit_open(&k, TRM_OP_GridSample);
        kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(1, 1, 3, 3));
        kit_in(&k, TRM_DTYPE_F32, grid, false, KIT_DIMS(1, 1, 4, 2));
        kit_attr_string(&k, "mode", modes[mode % 3]);
        kit_attr_string(&k, "padding_mode", paddings[mode / 3]);
        kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(1, 1, 1, 4));
        ck_assert_int_eq(kit_run(&k, TRM_OP_GridSample), TRM_OK);
        kit_close(&k);
    }
}
END_TEST

/* A constant image gives constant bins; a bad batch index is named. */
START_TEST(roi_align)
{
    const float rois[8] = {0, 0, 4, 4, 1, 1, 3, 5}, ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    const int64_t batch[2] = {0, 1}, bad[2] = {0, 2};
    float x[72];
    kit k;

    for (int i = 0; i < 72; i++)
        x[i] = 1;
    for (int round = 0; round < 2; round++) {
        kit_open(&k, TRM_OP_RoiAlign);
        kit_in(&k, TRM_DTYPE_F32, x, false, KIT_DIMS(2, 1, 6, 6));
        kit_in(&k, TRM_DTYPE_F32, rois, false, KIT_DIMS(2, 4));
        kit_in(&k, TRM_DTYPE_I64, round ? bad : batch, false, KIT_DIMS(2));
        kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(2, 1, 2, 2));
        ck_assert_int_eq(kit_run(&k, TRM_OP_RoiAlign), round ? TRM_ERR_INVALID_ARG : TRM_OK);
        if (round == 0)
            kit_expect_f32(&k, 0, ones, 1e-6f);
        kit_close(&k);
    }
}
END_TEST

START_TEST(col2im)
{
    const float x[25] = {1,  6,  11, 16, 21, 2,  7,  12, 17, 22, 3,  8, 13,
                         18, 23, 4,  9,  14, 19, 24, 5,  10, 15, 20, 25};
    const int64_t image[2] = {5, 5}, block[2] = {1, 5};
    float want[25];
    kit k;

    for (int i = 0; i < 25; i++)
        want[i] = (float)i + 1;
    kit_open(&k, TRM_OP_Col2Im);
    kit_in(&k, TRM_DTYPE_F32, x, false, KIT_DIMS(1, 5, 5));
    kit_ints(&k, image, 2);
    kit_ints(&k, block, 2);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(1, 1, 5, 5));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Col2Im), TRM_OK);
    kit_expect_f32(&k, 0, want, 0);
    kit_close(&k);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("data: image");
    TCase *t = tcase_create("image");

    tcase_add_test(t, resize_nearest);
    tcase_add_test(t, resize_linear);
    tcase_add_test(t, resize_cubic);
    tcase_add_test(t, resize_antialias);
    tcase_add_test(t, resize_crop);
    tcase_add_loop_test(t, resize_keeps_layouts, 0, 3);
    tcase_add_loop_test(t, grid_identity, 0, 18);
    tcase_add_test(t, grid_hostile_coordinates);
    tcase_add_test(t, roi_align);
    tcase_add_test(t, col2im);
    suite_add_tcase(s, t);
    return kit_main(s);
}
