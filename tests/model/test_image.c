/* Decoding against PIL (tests/oracles/images.py), sample for sample, and bad files. */
#include "base/file.h"
#include "base/log.h"
#include "base/npy.h"
#include "model/image.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#define DATA TRM_SOURCE_DIR "/tests/data/images/"

static const struct {
    const char *name;
    int channels;
} cases[] = {
    {"rgb420.jpg", 3},
    {"rgb422.jpg", 3},
    {"rgb444.jpg", 3},
    {"progressive.jpg", 3},
    {"grey.jpg", 1},
    {"cmyk.jpg", 3},
    {"oriented.jpg", 3},
    {"one.jpg", 3},
    {"rgb.png", 3},
    {"rgb_interlaced.png", 3},
    {"rgb16.png", 3},
    {"rgba.png", 3},
    {"rgba16_interlaced.png", 3},
    {"rgb_trns.png", 3},
    {"grey8.png", 1},
    {"grey1.png", 1},
    {"grey2_interlaced.png", 1},
    {"grey4.png", 1},
    {"grey4_trns.png", 1},
    {"grey16.png", 1},
    {"grey16_interlaced.png", 1},
    {"greya.png", 1},
    {"greya16.png", 1},
    {"palette1.png", 3},
    {"palette2.png", 3},
    {"palette4.png", 3},
    {"palette8.png", 3},
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

static void open_file(const char *name, trm_file **file)
{
    char path[512];

    snprintf(path, sizeof(path), DATA "%s", name);
    ck_assert_msg(trm_file_open(path, file) == TRM_OK, "%s", trm_message());
}

static trm_status decode(const char *name, trm_image *image)
{
    trm_file *f;
    trm_status st;

    open_file(name, &f);
    st = trm_image_decode(trm_file_data(f), trm_file_bytes(f), name, image);
    trm_file_unref(f);
    return st;
}

START_TEST(equals_pil)
{
    const char *name = cases[_i].name;
    char path[512];
    trm_arena *arena;
    trm_tensor want;
    trm_image image;
    trm_preprocess p;
    unsigned char *grey;
    size_t n;

    ck_assert_msg(decode(name, &image) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(image.channels, cases[_i].channels);
    n = (size_t)image.width * (size_t)image.height;
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    if (image.channels == 3) {
        snprintf(path, sizeof(path), DATA "%s.rgb.npy", name);
        ck_assert_int_eq(trm_npy_load(path, arena, &want), TRM_OK);
        ck_assert(want.dims[0] == image.height && want.dims[1] == image.width);
        ck_assert_mem_eq(want.data, image.pixels, n * 3);
    }
    snprintf(path, sizeof(path), DATA "%s.l.npy", name);
    ck_assert_int_eq(trm_npy_load(path, arena, &want), TRM_OK);
    trm_preprocess_defaults(&p);
    p.color = TRM_COLOR_GREY;
    p.dtype = TRM_DTYPE_U8;
    grey = malloc(n);
    ck_assert_int_eq(trm_preprocess_run(&p, &image, grey), TRM_OK);
    ck_assert_mem_eq(want.data, grey, n);
    free(grey);
    trm_image_fini(&image);
    trm_arena_destroy(arena);
}
END_TEST

/* Every prefix: all but the last few bytes (an end marker, the padding of the last block) are an
 * error, and none a crash or a leak. */
START_TEST(cut_short)
{
    const char *name = cases[_i].name;
    trm_file *f;
    int64_t live;

    open_file(name, &f);
    live = trm_alloc_live();
    for (size_t n = 0; n + 24 < trm_file_bytes(f); n += n < 64 ? 1 : 7) {
        trm_image image;
        trm_status st = trm_image_decode(trm_file_data(f), n, name, &image);

        ck_assert_msg(st == TRM_ERR_BAD_FILE, "%zu bytes of %s: %s", n, name, trm_status_name(st));
        ck_assert_ptr_nonnull(strstr(trm_message(), name));
        ck_assert_int_eq(trm_alloc_live(), live);
    }
    trm_file_unref(f);
}
END_TEST

START_TEST(damaged)
{
    const char *name = cases[_i].name;
    trm_file *f;
    unsigned char *copy;

    open_file(name, &f);
    copy = malloc(trm_file_bytes(f));
    for (size_t n = 0; n < trm_file_bytes(f); n += n < 200 ? 1 : 13) {
        trm_image image;

        memcpy(copy, trm_file_data(f), trm_file_bytes(f));
        copy[n] ^= 0x5a;
        if (trm_image_decode(copy, trm_file_bytes(f), name, &image) == TRM_OK)
            trm_image_fini(&image);
    }
    free(copy);
    trm_file_unref(f);
}
END_TEST

static const struct {
    const char *bytes;
    size_t count;
    trm_status status;
    const char *message;
} foreign[] = {
    {"", 0, TRM_ERR_BAD_FILE, "empty"},
    {"x", 1, TRM_ERR_BAD_FILE, "neither a JPEG nor a PNG"},
    {"GIF89a....", 10, TRM_ERR_UNSUPPORTED, "a GIF"},
    {"BM........", 10, TRM_ERR_UNSUPPORTED, "a BMP"},
    {"RIFF....WEBP", 12, TRM_ERR_UNSUPPORTED, "WebP"},
    {"\xff\xd8\xff\xe0", 4, TRM_ERR_BAD_FILE, "cut short"},
    {"\x89PNG\r\n\x1a\n", 8, TRM_ERR_BAD_FILE, "cut short"},
};

START_TEST(names_foreign)
{
    trm_image image;

    ck_assert_int_eq(trm_image_decode(foreign[_i].bytes, foreign[_i].count, "x.bin", &image),
                     foreign[_i].status);
    ck_assert_msg(strstr(trm_message(), foreign[_i].message) != NULL, "%s", trm_message());
}
END_TEST

/* A header that claims 65000 x 65000 pixels: refused before memory is taken. */
START_TEST(huge_claim)
{
    unsigned char jpeg[] = {0xff, 0xd8, 0xff, 0xc0, 0, 11,   8,    0xfd, 0xe8, 0xfd,
                            0xe8, 1,    1,    0x11, 0, 0xff, 0xda, 0,    8,    1,
                            1,    0,    0,    63,   0, 0,    0,    0,    0xff, 0xd9};
    trm_image image;

    ck_assert_int_eq(trm_image_decode(jpeg, sizeof(jpeg), "huge.jpg", &image), TRM_ERR_BAD_FILE);
    ck_assert_msg(strstr(trm_message(), "65000 x 65000") != NULL, "%s", trm_message());
}
END_TEST

/* One grey pixel, and 256 MiB of zeros behind it in the same stream: not inflated to the end. */
START_TEST(more_data_than_pixels)
{
    enum { CHUNK = 40, ZEROS = 256 << 20 };
    static const unsigned char head[CHUNK] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n', 0, 0,
                                              0,    13,  'I', 'H', 'D',  'R',  0,    0,    0, 1,
                                              0,    0,   0,   1,   8,    0,    0,    0,    0};
    uLongf packed = compressBound(ZEROS);
    unsigned char *zeros = calloc(1, ZEROS), *png = calloc(1, packed + 64);
    trm_image image;
    uLong crc;

    ck_assert_ptr_nonnull(zeros);
    ck_assert_ptr_nonnull(png);
    memcpy(png, head, CHUNK);
    crc = crc32(0, png + 12, 17);
    ck_assert_int_eq(compress2(png + 41, &packed, zeros, ZEROS, 9), Z_OK);
    memcpy(png + 37, "IDAT", 4);
    for (int i = 0; i < 4; i++) {
        png[29 + i] = (unsigned char)(crc >> (24 - 8 * i));
        png[33 + i] = (unsigned char)(packed >> (24 - 8 * i));
    }
    ck_assert_int_eq(trm_image_decode(png, packed + 45, "bomb.png", &image), TRM_ERR_BAD_FILE);
    ck_assert_msg(strstr(trm_message(), "more data than pixels") != NULL, "%s", trm_message());
    free(png);
    free(zeros);
}
END_TEST

/* Fails the Nth allocation until none fails: a status each time, and nothing left over. */
START_TEST(no_memory)
{
    static const char *const names[] = {"cmyk.jpg", "palette4.png"};
    trm_file *f;
    trm_preprocess p;
    float out[3 * 16 * 16];
    int64_t live;

    open_file(names[_i], &f);
    live = trm_alloc_live();
    trm_preprocess_defaults(&p);
    p.color = TRM_COLOR_GREY;
    p.resize_height = p.resize_width = 16;
    for (int64_t n = 0;; n++) {
        trm_image image = {0, 0, 0, NULL};
        trm_status st;

        trm_alloc_fail_after(n);
        st = trm_image_decode(trm_file_data(f), trm_file_bytes(f), names[_i], &image);
        if (st == TRM_OK)
            st = trm_preprocess_run(&p, &image, out);
        trm_alloc_fail_after(-1);
        trm_image_fini(&image);
        ck_assert_int_eq(trm_alloc_live(), live);
        if (st == TRM_OK)
            break;
        ck_assert_int_eq(st, TRM_ERR_NO_MEMORY);
    }
    trm_file_unref(f);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("image");
    TCase *t = tcase_create("image");
    SRunner *r;
    int failed;

    if (trm_log_set_level("error") != TRM_OK) /* damaged JPEGs are warnings */
        return EXIT_FAILURE;
    tcase_set_timeout(t, 30);
    tcase_add_loop_test(t, equals_pil, 0, CASES);
    tcase_add_loop_test(t, cut_short, 0, CASES);
    tcase_add_loop_test(t, damaged, 0, CASES);
    tcase_add_loop_test(t, names_foreign, 0, sizeof(foreign) / sizeof(foreign[0]));
    tcase_add_test(t, huge_claim);
    tcase_add_test(t, more_data_than_pixels);
    tcase_add_loop_test(t, no_memory, 0, 2);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
