/* Conversions between layouts and float dtypes on the CUDA device, against the CPU's. */
#include "tests/cuda/cuda_kit.h"

#define P TRM_LAYOUT_PLAIN
#define L TRM_LAYOUT_CHANNELS_LAST

/* `from` (plain host data) as `to` in `layout` on device d, from the other layout where the rank
 * allows it. The result is in that layout. */
static trm_tensor convert(trm_device *d, const trm_tensor *from, trm_layout layout, trm_dtype to)
{
    trm_tensor a = *from, b = *from, result = *from;
    const void *in[1];
    void *out[1], *p, *q, *r;
    trm_kernel *k = NULL;
    size_t bytes, to_bytes;

    if (from->rank < 3)
        layout = P;
    a.layout = from->rank >= 3 && layout == P ? L : P;
    KIT_OK(trm_tensor_bytes(from, &bytes));
    p = kit_device_memory(d, bytes);
    KIT_OK(d->ops->copy_in(d, NULL, p, from->data, bytes));
    q = kit_reorder(d, from, p, a.layout);
    b.layout = layout;
    b.dtype = result.dtype = to;
    a.data = b.data = NULL;
    KIT_OK(d->ops->prepare_reorder(d, &a, &b, &k));
    KIT_OK(trm_tensor_bytes(&b, &to_bytes));
    out[0] = r = kit_device_memory(d, to_bytes);
    in[0] = q;
    KIT_OK(k->ops->run(k, NULL, in, out, NULL));
    kit_wait(d);
    trm_kernel_destroy(k);
    result = kit_data(result);
    KIT_OK(d->ops->copy_out(d, NULL, result.data, r, to_bytes)); /* in the layout it has */
    kit_wait(d);
    d->ops->free(d, TRM_MEMORY_DEVICE, p);
    d->ops->free(d, TRM_MEMORY_DEVICE, q);
    d->ops->free(d, TRM_MEMORY_DEVICE, r);
    return result;
}

static void check_bytes(const char *name, const trm_tensor *x, trm_layout layout, trm_dtype to)
{
    trm_tensor got, want;
    size_t bytes;

    kit_name = name;
    got = convert(kit_gpu, x, layout, to);
    want = convert(kit_cpu, x, layout, to);
    KIT_OK(trm_tensor_bytes(&want, &bytes));
    ck_assert_msg(memcmp(got.data, want.data, bytes) == 0, "%s: %s to %s, to layout %d", name,
                  trm_dtype_name(x->dtype), trm_dtype_name(to), (int)layout);
}

static const struct {
    const char *name;
    int rank;
    int64_t dims[5];
} shapes[] = {
    {"image", 4, {2, 3, 17, 19}},
    {"image of one channel", 4, {2, 1, 5, 7}},
    {"two channels", 4, {1, 2, 31, 33}},
    {"four channels", 4, {1, 4, 33, 65}},
    {"feature map", 4, {2, 64, 7, 7}},
    {"odd", 4, {1, 33, 13, 5}},
    {"one tile", 4, {1, 64, 8, 8}},
    {"over a tile", 4, {1, 65, 5, 13}},
    {"pooled", 4, {3, 40, 1, 1}},
    {"few positions", 4, {2, 130, 1, 3}},
    {"tiny matrices", 4, {9, 3, 2, 2}},
    {"rank 3", 3, {2, 20, 37}},
    {"rank 5", 5, {1, 12, 3, 5, 7}},
    {"rank 2", 2, {5, 7}},
    {"rank 1", 1, {9}},
    {"scalar", 0, {0}},
    {"empty", 4, {2, 0, 3, 3}},
};
#define SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

START_TEST(test_layouts)
{
    static const trm_dtype dtypes[] = {TRM_DTYPE_I8, TRM_DTYPE_BF16, TRM_DTYPE_F32, TRM_DTYPE_I64};
    trm_tensor x = {.rank = shapes[_i].rank};

    memcpy(x.dims, shapes[_i].dims, sizeof(shapes[_i].dims));
    for (int i = 0; i < 4; i++) {
        x.dtype = dtypes[i];
        x = kit_random(x, -100, 100);
        check_bytes(shapes[_i].name, &x, L, x.dtype);
        check_bytes(shapes[_i].name, &x, P, x.dtype);
    }
}
END_TEST

/* Every pair of floats, with a change of layout (tiles, tiny matrices) and without (flat: channels
 * of one, lengths with and without a rest). */
START_TEST(test_dtypes)
{
    static const trm_dtype f[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64};
    static const int rows[] = {0, 1, 5, 10, 14, 16};
    trm_tensor x = {.dtype = f[_i / 4]};

    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        x.rank = shapes[rows[r]].rank;
        memcpy(x.dims, shapes[rows[r]].dims, sizeof(shapes[0].dims));
        x = kit_random(x, -300, 300);
        check_bytes(shapes[rows[r]].name, &x, L, f[_i % 4]);
        check_bytes(shapes[rows[r]].name, &x, P, f[_i % 4]);
    }
}
END_TEST

/* Where one rounding and two differ, ties, overflow, subnormals. */
START_TEST(test_rounding)
{
    static const double v[] = {1 + 0x1p-11 + 0x1p-30,
                               1 + 0x1p-11,
                               65519.999,
                               65520,
                               1e300,
                               -1e300,
                               0x1p-25,
                               0x1.8p-25,
                               0x1p-24,
                               -0.0,
                               1 + 0x1p-8,
                               1 + 0x1.8p-8,
                               3e38,
                               1e-45};
    trm_tensor x = kit_values(KIT_T(TRM_DTYPE_F64, 14), v);

    check_bytes("rounding", &x, L, TRM_DTYPE_F16);
    check_bytes("rounding", &x, L, TRM_DTYPE_BF16);
    check_bytes("rounding", &x, L, TRM_DTYPE_F32);
    x = kit_values(KIT_T(TRM_DTYPE_F32, 14), v);
    check_bytes("rounding", &x, L, TRM_DTYPE_F16);
    check_bytes("rounding", &x, L, TRM_DTYPE_BF16);
}
END_TEST

START_TEST(test_refused)
{
    static const struct {
        trm_layout from, to;
        trm_dtype a, b;
    } rows[] = {
        {P, TRM_LAYOUT_BLOCK8, TRM_DTYPE_F32, TRM_DTYPE_F32},
        {TRM_LAYOUT_BLOCK16, P, TRM_DTYPE_F32, TRM_DTYPE_F32},
        {P, P, TRM_DTYPE_F32, TRM_DTYPE_I32},
        {P, L, TRM_DTYPE_I8, TRM_DTYPE_F32},
    };
    trm_tensor a = KIT_T(rows[_i].a, 1, 16, 4, 4), b = KIT_T(rows[_i].b, 1, 16, 4, 4);
    trm_kernel *k = NULL;

    a.layout = rows[_i].from;
    b.layout = rows[_i].to;
    ck_assert_int_eq(kit_gpu->ops->prepare_reorder(kit_gpu, &a, &b, &k), TRM_ERR_UNSUPPORTED);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("reorder");

    tcase_add_loop_test(t, test_layouts, 0, SHAPES);
    tcase_add_loop_test(t, test_dtypes, 0, 16);
    tcase_add_test(t, test_rounding);
    tcase_add_loop_test(t, test_refused, 0, 4);
    return kit_main("cuda/reorder", t);
}
