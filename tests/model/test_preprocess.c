/* Preprocessing against torchvision's transforms (tests/oracles/images.py): equal 8-bit samples,
 * floats within 1e-6. */
#include "base/file.h"
#include "base/npy.h"
#include "model/image.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define DATA TRM_SOURCE_DIR "/tests/data/images/"

static void load(const char *name, trm_image *image)
{
    char path[512];
    trm_file *f;

    snprintf(path, sizeof(path), DATA "%s", name);
    ck_assert_msg(trm_file_open(path, &f) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(trm_image_decode(trm_file_data(f), trm_file_bytes(f), name, image), TRM_OK);
    trm_file_unref(f);
}

#define CUBIC TRM_INTERPOLATION_BICUBIC
#define NEAR TRM_INTERPOLATION_NEAREST
#define LINEAR TRM_INTERPOLATION_BILINEAR

static const struct {
    const char *name, *image;
    int resize[2], crop[2];
    trm_interpolation interpolation;
    bool plain;
    trm_color color;
    int off_max; /* of a sample: 0, or 1 where torch rounds floats */
} cases[] = {
    {"short32", "wide.png", {32, 0}, {0, 0}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"short32_crop28", "wide.png", {32, 0}, {28, 28}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"tall_short24", "tall.png", {24, 0}, {0, 0}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"to20x50", "wide.png", {20, 50}, {0, 0}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"up150", "wide.png", {150, 0}, {40, 40}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"width_only", "wide.png", {61, 30}, {0, 0}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"height_only", "wide.png", {20, 97}, {0, 0}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"bicubic30", "wide.png", {30, 0}, {0, 0}, CUBIC, false, TRM_COLOR_RGB, 0},
    {"bicubic_up", "wide.png", {80, 110}, {48, 48}, CUBIC, false, TRM_COLOR_RGB, 0},
    {"nearest30", "wide.png", {30, 0}, {0, 0}, NEAR, false, TRM_COLOR_RGB, 0},
    {"nearest_odd", "wide.png", {47, 53}, {0, 0}, NEAR, false, TRM_COLOR_RGB, 0},
    {"crop_odd", "wide.png", {0, 0}, {38, 40}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"crop_odd2", "wide.png", {0, 0}, {36, 44}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"crop_pad", "wide.png", {0, 0}, {70, 101}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"crop_pad_one", "wide.png", {0, 0}, {64, 30}, LINEAR, false, TRM_COLOR_RGB, 0},
    {"grey24", "wide.png", {24, 0}, {0, 0}, LINEAR, false, TRM_COLOR_GREY, 0},
    {"bgr24", "wide.png", {24, 0}, {0, 0}, LINEAR, false, TRM_COLOR_BGR, 0},
    {"plain_down", "wide.png", {23, 41}, {0, 0}, LINEAR, true, TRM_COLOR_RGB, 1},
    {"plain_up", "wide.png", {75, 120}, {40, 40}, LINEAR, true, TRM_COLOR_RGB, 1},
    {"plain_bicubic", "wide.png", {30, 44}, {0, 0}, CUBIC, true, TRM_COLOR_RGB, 1},
};

START_TEST(equals_torchvision)
{
    char path[512];
    trm_arena *arena;
    trm_tensor want;
    trm_image image;
    trm_preprocess p;
    unsigned char *got;
    int64_t dims[3];
    size_t n, off = 0;

    load(cases[_i].image, &image);
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    snprintf(path, sizeof(path), DATA "pre_%s.npy", cases[_i].name);
    ck_assert_msg(trm_npy_load(path, arena, &want) == TRM_OK, "%s", trm_message());
    trm_preprocess_defaults(&p);
    p.resize_height = cases[_i].resize[0];
    p.resize_width = cases[_i].resize[1];
    p.crop_height = cases[_i].crop[0];
    p.crop_width = cases[_i].crop[1];
    p.interpolation = cases[_i].interpolation;
    p.antialias = !cases[_i].plain;
    p.color = cases[_i].color;
    p.dtype = TRM_DTYPE_U8;
    p.channels_last = true;
    trm_preprocess_shape(&p, image.width, image.height, dims);
    ck_assert(dims[0] == want.dims[0] && dims[1] == want.dims[1]);
    n = trm_tensor_numel(&want);
    ck_assert_uint_eq((size_t)(dims[0] * dims[1] * dims[2]), n);
    got = malloc(n);
    ck_assert_int_eq(trm_preprocess_run(&p, &image, got), TRM_OK);
    for (size_t i = 0; i < n; i++) {
        int d = abs(got[i] - ((const unsigned char *)want.data)[i]);

        ck_assert_msg(d <= cases[_i].off_max, "%s: sample %zu of %zu is off by %d", cases[_i].name,
                      i, n, d);
        off += d != 0;
    }
    ck_assert_msg(off * 200 <= n, "%s: %zu of %zu samples are off", cases[_i].name, off, n);
    free(got);
    trm_image_fini(&image);
    trm_arena_destroy(arena);
}
END_TEST

static void imagenet(trm_preprocess *p, int resize, int crop)
{
    static const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};

    trm_preprocess_defaults(p);
    p->resize_height = resize;
    p->crop_height = p->crop_width = crop;
    p->mean_count = 3;
    memcpy(p->mean, mean, sizeof(mean));
    memcpy(p->std, std, sizeof(std));
}

START_TEST(floats)
{
    trm_arena *arena;
    trm_tensor want;
    trm_image image;
    trm_preprocess p;
    float got[3 * 20 * 20];

    load("wide.png", &image);
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    ck_assert_int_eq(trm_npy_load(DATA "pre_float.npy", arena, &want), TRM_OK);
    imagenet(&p, 24, 20);
    for (int last = 0; last < 2; last++) {
        p.channels_last = last;
        ck_assert_int_eq(trm_preprocess_run(&p, &image, got), TRM_OK);
        for (int c = 0; c < 3; c++)
            for (int i = 0; i < 400; i++)
                ck_assert(fabsf(got[last ? i * 3 + c : c * 400 + i] -
                                ((const float *)want.data)[c * 400 + i]) <= 1e-6f);
    }
    trm_image_fini(&image);
    trm_arena_destroy(arena);
}
END_TEST

START_TEST(whole_photo)
{
    FILE *f = fopen(DATA "photo.crc32", "r");
    unsigned want;
    trm_image image;
    trm_preprocess p;
    unsigned char *got = malloc(3 * 224 * 224);

    ck_assert(f != NULL && fscanf(f, "%x", &want) == 1);
    fclose(f);
    load("photo.jpg", &image);
    imagenet(&p, 256, 224);
    p.dtype = TRM_DTYPE_U8;
    p.channels_last = true;
    ck_assert_int_eq(trm_preprocess_run(&p, &image, got), TRM_OK);
    ck_assert_uint_eq((unsigned)crc32(0, got, 3 * 224 * 224), want);
    free(got);
    trm_image_fini(&image);
}
END_TEST

START_TEST(refuses)
{
    unsigned char pixels[3] = {1, 2, 3};
    float out[64];
    trm_image one = {1, 1, 3, pixels}, strip = {1, 60000, 3, pixels};
    trm_preprocess p;

    imagenet(&p, 0, 0);
    p.mean_count = 2;
    ck_assert_int_eq(trm_preprocess_run(&p, &one, out), TRM_ERR_INVALID_ARG);
    imagenet(&p, 0, 0);
    p.dtype = TRM_DTYPE_F16;
    ck_assert_int_eq(trm_preprocess_run(&p, &one, out), TRM_ERR_UNSUPPORTED);
    imagenet(&p, 256, 4); /* would be 256 x 15 million */
    ck_assert_int_eq(trm_preprocess_run(&p, &strip, out), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "1 x 60000"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("preprocess");
    TCase *t = tcase_create("preprocess");
    SRunner *r;
    int failed;

    tcase_add_loop_test(t, equals_torchvision, 0, sizeof(cases) / sizeof(cases[0]));
    tcase_add_test(t, floats);
    tcase_add_test(t, whole_photo);
    tcase_add_test(t, refuses);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
