/* TrmImageTable: bytes to floats. */
#include "tests/cuda/cuda_kit.h"

static const struct {
    const char *name;
    int64_t n, h, w, c;
    int last;
} rows[] = {
    {"colour", 2, 7, 5, 3, 0},        {"grey", 3, 8, 8, 1, 0},
    {"channels last", 1, 9, 3, 3, 1}, {"four channels", 1, 2, 3, 4, 0},
    {"one sample", 1, 1, 1, 1, 0},    {"no image", 0, 4, 4, 3, 0},
    {"many", 1, 130, 70, 3, 0},
};

START_TEST(to_floats)
{
    cuda_case c = {.name = rows[_i].name,
                   .op = TRM_OP_TrmImageTable,
                   .attrs = kit_int(kit_attrs(), "channels_last", rows[_i].last),
                   .in_count = 2,
                   .out_count = 1};
    int64_t n = rows[_i].n, h = rows[_i].h, w = rows[_i].w, ch = rows[_i].c;

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_U8, n, h, w, ch), 0, 256);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, ch, 256), -3, 3);
    c.out[0] =
        rows[_i].last ? KIT_T(TRM_DTYPE_F32, n, h, w, ch) : KIT_T(TRM_DTYPE_F32, n, ch, h, w);
    cuda_check(&c);
    ck_assert_int_eq(c.gave[0], rows[_i].last ? TRM_LAYOUT_PLAIN : TRM_LAYOUT_CHANNELS_LAST);
}
END_TEST

START_TEST(refused)
{
    cuda_case c = {.op = TRM_OP_TrmImageTable,
                   .attrs = kit_attrs(),
                   .in_count = 2,
                   .out_count = 1,
                   .want_prepare = TRM_ERR_UNSUPPORTED};

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_U8, 1, 2, 2, 5), 0, 256);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 5, 256), -3, 3);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 1, 5, 2, 2);
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("input image");

    tcase_add_loop_test(t, to_floats, 0, sizeof(rows) / sizeof(rows[0]));
    tcase_add_test(t, refused);
    return kit_main("input image", t);
}
