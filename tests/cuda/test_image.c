/* Resize, GridSample, AffineGrid, RoiAlign and Col2Im on the CUDA
 * backend. Resize sums as the CPU does, product by product: equal to the bit. */
#include "tests/cuda/cuda_kit.h"

#include "kernels/cuda/image.h"

static const trm_dtype floats[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64};
static const trm_dtype all_dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64,
                                       TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16,  TRM_DTYPE_U16,
                                       TRM_DTYPE_I32, TRM_DTYPE_U32, TRM_DTYPE_I64,  TRM_DTYPE_U64,
                                       TRM_DTYPE_BOOL};
#define DTYPES ((int)(sizeof(all_dtypes) / sizeof(all_dtypes[0])))

static trm_tensor filled(trm_tensor t)
{
    if (t.dtype == TRM_DTYPE_BOOL)
        return kit_random(t, 0, 2);
    if (trm_dtype_is_float(t.dtype))
        return kit_random(t, -1, 1);
    return kit_random(t, trm_dtype_is_signed_int(t.dtype) ? -100 : 0, 120);
}

static const struct resize_row {
    const char *name;
    int64_t dims[6], out[6]; /* end at -1 */
    const char *mode, *coords;
    double scales[5];    /* [0] 0: sizes, which are `out` */
    const char *nearest; /* NULL: default, as the rest */
    const char *policy;
    int antialias, exclude;
    int axes;          /* the last so many; 0: all */
    double start, end; /* region of interest of every axis; 0, 0: none */
} resize_rows[] = {
    {"nearest x2",
     {1, 3, 4, 6, -1},
     {1, 3, 8, 12, -1},
     "nearest",
     "asymmetric",
     .scales = {1, 1, 2, 2},
     .nearest = "floor"},
    {"nearest x2, wide",
     {2, 16, 3, 8, -1},
     {2, 16, 6, 16, -1},
     "nearest",
     "asymmetric",
     .scales = {1, 1, 2, 2},
     .nearest = "floor"},
    {"nearest by sizes",
     {1, 5, 7, 5, -1},
     {1, 5, 3, 9, -1},
     "nearest",
     "half_pixel",
     .scales = {0}},
    {"nearest ceil",
     {1, 4, 5, 5, -1},
     {1, 4, 8, 7, -1},
     "nearest",
     "align_corners",
     .nearest = "ceil"},
    {"nearest prefers ceil",
     {3, 10, -1},
     {3, 5, -1},
     "nearest",
     "half_pixel",
     .scales = {1, 0.5},
     .nearest = "round_prefer_ceil"},
    {"nearest, all axes", {2, 3, 4, -1}, {3, 2, 8, -1}, "nearest", "half_pixel", .scales = {0}},
    {"nearest, channels",
     {1, 3, 4, -1},
     {1, 6, 4, -1},
     "nearest",
     "asymmetric",
     .scales = {1, 2, 1}},
    {"nearest crop",
     {1, 2, 6, 8, -1},
     {1, 2, 4, 8, -1},
     "nearest",
     "tf_crop_and_resize",
     .axes = 2,
     .start = -0.25,
     .end = 1.1},
    {"nearest, 3 dims",
     {1, 8, 2, 3, 4, -1},
     {1, 8, 4, 6, 8, -1},
     "nearest",
     "asymmetric",
     .scales = {1, 1, 2, 2, 2}},
    {"nearest of one axis",
     {2, 8, 3, 5, -1},
     {2, 8, 9, 5, -1},
     "nearest",
     "asymmetric",
     .scales = {1, 1, 3, 1}},
    {"nothing", {2, 3, 4, -1}, {2, 3, 4, -1}, "linear", "half_pixel", .scales = {1, 1, 1}},
    {"nothing in",
     {0, 3, 4, 5, -1},
     {0, 3, 8, 10, -1},
     "linear",
     "half_pixel",
     .scales = {1, 1, 2, 2}},
    {"linear x2",
     {2, 3, 4, 6, -1},
     {2, 3, 8, 12, -1},
     "linear",
     "half_pixel",
     .scales = {1, 1, 2, 2}},
    {"linear x2 of channels",
     {1, 16, 3, 5, -1},
     {1, 16, 6, 10, -1},
     "linear",
     "pytorch_half_pixel",
     .scales = {1, 1, 2, 2}},
    {"linear, many planes",
     {3, 7, 9, 11, -1},
     {3, 7, 13, 21, -1},
     "linear",
     "align_corners",
     .scales = {0}},
    {"linear down",
     {1, 4, 9, 11, -1},
     {1, 4, 4, 5, -1},
     "linear",
     "half_pixel_symmetric",
     .scales = {1, 1, 0.5, 0.5}},
    {"linear to one",
     {1, 2, 5, 5, -1},
     {1, 2, 1, 1, -1},
     "linear",
     "pytorch_half_pixel",
     .scales = {0}},
    {"linear of one axis", {2, 5, 7, -1}, {2, 5, 11, -1}, "linear", "half_pixel", .scales = {0}},
    {"linear of the height",
     {2, 8, 5, 7, -1},
     {2, 8, 10, 7, -1},
     "linear",
     "half_pixel",
     .scales = {1, 1, 2, 1}},
    {"linear, 3 dims",
     {1, 3, 3, 4, 5, -1},
     {1, 3, 6, 8, 10, -1},
     "linear",
     "half_pixel",
     .scales = {1, 1, 2, 2, 2}},
    {"linear, axes apart",
     {1, 3, 3, 4, 5, -1},
     {1, 3, 6, 4, 10, -1},
     "linear",
     "half_pixel",
     .scales = {1, 1, 2, 1, 2}},
    {"linear of channels",
     {1, 3, 4, 4, -1},
     {1, 5, 8, 8, -1},
     "linear",
     "half_pixel",
     .scales = {0}},
    {"linear crop",
     {1, 3, 6, 8, -1},
     {1, 3, 5, 7, -1},
     "linear",
     "tf_crop_and_resize",
     .axes = 2,
     .start = 0.2,
     .end = 1.3},
    {"linear antialias",
     {1, 3, 12, 16, -1},
     {1, 3, 5, 4, -1},
     "linear",
     "half_pixel",
     .antialias = 1},
    {"linear by axes",
     {2, 3, 5, 6, -1},
     {2, 3, 10, 9, -1},
     "linear",
     "half_pixel",
     .scales = {2, 1.5},
     .axes = 2},
    {"not larger",
     {1, 3, 6, 8, -1},
     {1, 3, 9, 12, -1},
     "linear",
     "half_pixel",
     .policy = "not_larger",
     .axes = 2},
    {"not smaller",
     {1, 3, 6, 8, -1},
     {1, 3, 12, 16, -1},
     "linear",
     "half_pixel",
     .policy = "not_smaller",
     .axes = 2},
    {"cubic", {2, 4, 5, 6, -1}, {2, 4, 9, 10, -1}, "cubic", "half_pixel", .scales = {0}},
    {"cubic outside", {1, 3, 5, 6, -1}, {1, 3, 9, 10, -1}, "cubic", "half_pixel", .exclude = 1},
    {"cubic antialias",
     {1, 3, 12, 16, -1},
     {1, 3, 7, 8, -1},
     "cubic",
     "align_corners",
     .antialias = 1,
     .exclude = 1},
    {"cubic, 1 axis", {3, 9, -1}, {3, 17, -1}, "cubic", "asymmetric", .scales = {0}},
};
#define RESIZE_ROWS ((int)(sizeof(resize_rows) / sizeof(resize_rows[0])))

static cuda_case resize_case(const struct resize_row *row, trm_dtype dtype)
{
    cuda_case c = {.name = row->name, .op = TRM_OP_Resize, .in_count = 4, .out_count = 1};
    trm_attrs *a = kit_attrs();
    int64_t axes[5];
    int count, first;

    c.in[0] = filled(kit_tensor(dtype, row->dims));
    c.out[0] = kit_tensor(dtype, row->out);
    count = row->axes == 0 ? c.in[0].rank : row->axes;
    first = c.in[0].rank - count;
    c.attrs =
        kit_string(kit_string(a, "mode", row->mode), "coordinate_transformation_mode", row->coords);
    if (row->nearest != NULL)
        (void)kit_string(a, "nearest_mode", row->nearest);
    if (row->policy != NULL)
        (void)kit_string(a, "keep_aspect_ratio_policy", row->policy);
    (void)kit_int(kit_int(a, "antialias", row->antialias), "exclude_outside", row->exclude);
    (void)kit_float(a, "extrapolation_value", trm_dtype_is_float(dtype) ? 0.75f : 1);
    for (int i = 0; i < count; i++)
        axes[i] = i % 2 == 0 ? first + i : first + i - c.in[0].rank;
    if (row->axes != 0)
        (void)kit_ints(a, "axes", axes, (size_t)count);
    if (row->end > row->start) {
        c.in[1] = kit_data(KIT_T(TRM_DTYPE_F32, 2 * count));
        for (int i = 0; i < 2 * count; i++)
            trm_tensor_set_f64(&c.in[1], (size_t)i, i < count ? row->start : row->end);
    }
    if (row->scales[0] > 0)
        c.in[2] = kit_values(KIT_T(TRM_DTYPE_F32, count), row->scales);
    else
        c.in[3] = kit_data(KIT_T(TRM_DTYPE_I64, count));
    for (int i = 0; i < count && row->scales[0] == 0; i++) {
        int64_t want = row->out[first + i];

        if (row->policy != NULL) /* the other axis decides: ask for something more extreme */
            want = i == 0 ? want : strcmp(row->policy, "not_larger") == 0 ? want + 5 : want - 3;
        trm_tensor_set_i64(&c.in[3], (size_t)i, want);
    }
    for (int i = 1; i < 4; i++)
        c.known[i] = true;
    return c;
}

START_TEST(resize)
{
    const struct resize_row *row = &resize_rows[_i];

    for (int d = 0; d < DTYPES; d++) {
        trm_dtype dtype = all_dtypes[d];
        cuda_case c = resize_case(row, dtype);
        bool keeps =
            c.in[0].rank >= 3 && row->dims[0] == row->out[0] && row->dims[1] == row->out[1];

        if (dtype == TRM_DTYPE_BOOL && row->mode[0] != 'n')
            continue;
        if ((dtype == TRM_DTYPE_I64 || dtype == TRM_DTYPE_U64) && row->antialias)
            continue;
        cuda_check(&c);
        ck_assert_int_eq(c.gave[0], TRM_LAYOUT_PLAIN);
        if (c.in[0].rank < 3 || trm_tensor_numel(&c.in[0]) == 0 || !trm_dtype_is_float(dtype))
            continue;
        c.arrives[0] = TRM_LAYOUT_CHANNELS_LAST;
        cuda_check(&c);
        ck_assert_msg(c.gave[0] == (keeps ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN),
                      "%s: layout", row->name);
    }
}
END_TEST

START_TEST(resize_refused)
{
    static const struct resize_row row = {"refused", {1, 3, 4, 6, -1}, {1, 3, 8, 12, -1},
                                          "linear",  "half_pixel",     .scales = {1, 1, 2, 2}};
    cuda_case c = resize_case(&row, TRM_DTYPE_F32);

    (void)kit_string(c.attrs, "mode", "lanczos");
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c = resize_case(&row, TRM_DTYPE_BOOL);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c = resize_case(&row, TRM_DTYPE_F32);
    c.in[3] = KIT_V(KIT_T(TRM_DTYPE_I64, 4), 1, 3, 8, 12); /* scales and sizes */
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c = resize_case(&row, TRM_DTYPE_F32);
    trm_tensor_set_f64(&c.in[2], 3, -1);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
}
END_TEST

static const struct grid_row {
    const char *name;
    int64_t x[6], grid[6];
} grid_rows[] = {
    {"two dims", {2, 3, 5, 6, -1}, {2, 4, 7, 2, -1}},
    {"two dims, many channels", {1, 19, 3, 4, -1}, {1, 2, 3, 2, -1}},
    {"three dims", {1, 2, 3, 4, 5, -1}, {1, 2, 3, 5, 3, -1}},
    {"one dim", {2, 3, 9, -1}, {2, 11, 1, -1}},
    {"dims of one", {1, 2, 1, 1, -1}, {1, 3, 3, 2, -1}},
    {"no points", {1, 2, 3, 3, -1}, {1, 0, 3, 2, -1}},
    {"more than a block", {2, 9, 8, 8, -1}, {2, 13, 21, 2, -1}},
};
#define GRID_ROWS ((int)(sizeof(grid_rows) / sizeof(grid_rows[0])))

START_TEST(grid_sample)
{
    static const char *const modes[] = {"linear", "nearest", "cubic"};
    static const char *const paddings[] = {"zeros", "border", "reflection"};
    const struct grid_row *row = &grid_rows[_i];

    for (int v = 0; v < 18; v++) {
        for (int d = 0; d < 4; d++) {
            cuda_case c = {
                .name = row->name, .op = TRM_OP_GridSample, .in_count = 2, .out_count = 1};
            trm_attrs *a = kit_string(kit_attrs(), "mode", modes[v % 3]);

            c.attrs =
                kit_int(kit_string(a, "padding_mode", paddings[v / 3 % 3]), "align_corners", v / 9);
            c.in[0] = kit_random(kit_tensor(floats[d], row->x), -1, 1);
            /* the grid in fp32 or as x is */
            c.in[1] = kit_random(kit_tensor(v % 2 == 0 ? TRM_DTYPE_F32 : floats[d], row->grid),
                                 -1.6, 1.6);
            for (size_t i = 3; i < trm_tensor_numel(&c.in[1]); i += 17)
                trm_tensor_set_f64(&c.in[1], i, i % 2 == 0 ? NAN : i % 3 == 0 ? -INFINITY : 1e30);
            c.out[0] = kit_tensor(floats[d], row->x);
            for (int i = 2; i < c.out[0].rank; i++)
                c.out[0].dims[i] = c.in[1].dims[i - 1];
            c.atol = 2e-6; /* up to 64 products of O(1) in fp32 ... */
            c.rtol = floats[d] == TRM_DTYPE_BF16  ? 0x1p-7
                     : floats[d] == TRM_DTYPE_F16 ? 0x1p-10
                                                  : 0;
            /* ... which may fall on another side of a rounding of 16 bits */
            cuda_check(&c);
        }
    }
}
END_TEST

START_TEST(affine_grid)
{
    static const struct {
        const char *name;
        int count;
        double size[5];
    } rows[] = {{"two dims", 4, {2, 3, 5, 7}},
                {"three dims", 5, {2, 3, 3, 4, 5}},
                {"dims of one", 4, {1, 1, 1, 1}},
                {"nothing", 4, {0, 3, 4, 5}},
                {"more than a block", 4, {1, 3, 20, 31}}};

    for (int v = 0; v < 8; v++) {
        trm_dtype dtype = floats[v % 4];
        cuda_case c = {
            .name = rows[_i].name, .op = TRM_OP_AffineGrid, .in_count = 2, .out_count = 1};
        int d = rows[_i].count - 2;

        c.attrs = kit_int(kit_attrs(), "align_corners", v / 4);
        c.in[0] = kit_random(KIT_T(dtype, (int64_t)rows[_i].size[0], d, d + 1), -1, 1);
        c.in[1] = kit_values(KIT_T(TRM_DTYPE_I64, rows[_i].count), rows[_i].size);
        c.known[1] = true;
        c.out[0] = (trm_tensor){.dtype = dtype, .rank = d + 2};
        c.out[0].dims[0] = c.in[0].dims[0];
        for (int i = 0; i < d; i++)
            c.out[0].dims[1 + i] = (int64_t)rows[_i].size[2 + i];
        c.out[0].dims[d + 1] = d;
        c.atol = 1e-6; /* fp64 sums, rounded */
        c.rtol = dtype == TRM_DTYPE_BF16 ? 0x1p-7 : dtype == TRM_DTYPE_F16 ? 0x1p-10 : 0;
        cuda_check(&c);
    }
}
END_TEST

static const struct roi_row {
    const char *name;
    int64_t x[5];
    int regions, out_h, out_w, ratio;
    float scale;
    const char *mode, *coords;
} roi_rows[] = {
    {"average", {2, 3, 10, 12, -1}, 5, 3, 4, 2, 1, "avg", "half_pixel"},
    {"adaptive", {2, 3, 10, 12, -1}, 5, 3, 4, 0, 0.5f, "avg", "half_pixel"},
    {"largest", {1, 2, 9, 9, -1}, 4, 2, 2, 2, 1, "max", "output_half_pixel"},
    {"older rule", {1, 2, 9, 9, -1}, 4, 5, 5, 0, 0.3f, "avg", "output_half_pixel"},
    {"one pixel", {1, 1, 1, 1, -1}, 2, 1, 1, 1, 1, "avg", "half_pixel"},
    {"no regions", {1, 2, 9, 9, -1}, 0, 2, 2, 2, 1, "max", "half_pixel"},
    {"more than a block", {3, 7, 14, 14, -1}, 9, 7, 7, 2, 0.8f, "avg", "half_pixel"},
};
#define ROI_ROWS ((int)(sizeof(roi_rows) / sizeof(roi_rows[0])))

static cuda_case roi_case(const struct roi_row *row, trm_dtype dtype, trm_dtype roi_dtype,
                          trm_dtype index)
{
    cuda_case c = {.name = row->name, .op = TRM_OP_RoiAlign, .in_count = 3, .out_count = 1};

    c.attrs = kit_string(kit_string(kit_attrs(), "mode", row->mode),
                         "coordinate_transformation_mode", row->coords);
    (void)kit_float(kit_int(c.attrs, "sampling_ratio", row->ratio), "spatial_scale", row->scale);
    c.in[0] = kit_random(kit_tensor(dtype, row->x), -1, 1);
    c.in[1] = kit_data(KIT_T(roi_dtype, row->regions, 4));
    for (size_t i = 0; i < (size_t)row->regions; i++)
        for (size_t k = 0; k < 4; k++)
            trm_tensor_set_f64(&c.in[1], 4 * i + k,
                               k < 2 ? kit_uniform(-3, 8) : kit_uniform(4, 20));
    c.in[2] = kit_random(KIT_T(index, row->regions), 0, (double)row->x[0]);
    c.out[0] = KIT_T(dtype, row->regions, row->x[1], row->out_h, row->out_w);
    c.atol = 1e-5; /* sums of samples of O(1) in fp32 */
    c.rtol = dtype == TRM_DTYPE_BF16 ? 0x1p-7 : dtype == TRM_DTYPE_F16 ? 0x1p-10 : 0;
    return c;
}

START_TEST(roi_align)
{
    for (int d = 0; d < 8; d++) {
        trm_dtype dtype = floats[d % 4];
        cuda_case c = roi_case(&roi_rows[_i], dtype, d < 4 ? dtype : TRM_DTYPE_F32,
                               d % 2 == 0 ? TRM_DTYPE_I64 : TRM_DTYPE_I32);

        cuda_check(&c);
    }
}
END_TEST

/* What the CPU refuses while it runs gives NaN. */
START_TEST(roi_align_broken)
{
    cuda_case c = roi_case(&roi_rows[0], TRM_DTYPE_F32, TRM_DTYPE_F32, TRM_DTYPE_I64);
    trm_tensor got[CUDA_ARGS];

    trm_tensor_set_i64(&c.in[2], 1, 2);
    trm_tensor_set_f64(&c.in[1], 4 * 3, INFINITY);
    KIT_OK(kit_run(&c, kit_gpu, got));
    for (size_t i = 0; i < trm_tensor_numel(&got[0]); i++) {
        size_t region = i / (3 * 3 * 4);

        ck_assert_int_eq(isnan(trm_tensor_get_f64(&got[0], i)) != 0, region == 1 || region == 3);
    }
}
END_TEST

static const struct col2im_row {
    const char *name;
    int64_t columns[4];
    int spatial;
    double image[3], block[3];
    int64_t stride, dilation, pad;
    int64_t out[6];
} col2im_rows[] = {
    {"apart", {1, 5, 5, -1}, 2, {5, 5}, {1, 5}, 1, 1, 0, {1, 1, 5, 5, -1}},
    {"overlapping", {2, 18, 16, -1}, 2, {4, 4}, {3, 3}, 1, 1, 1, {2, 2, 4, 4, -1}},
    {"strided", {1, 12, 6, -1}, 2, {5, 7}, {2, 2}, 2, 1, 0, {1, 3, 5, 7, -1}},
    {"dilated", {1, 4, 9, -1}, 2, {5, 5}, {2, 2}, 1, 2, 0, {1, 1, 5, 5, -1}},
    {"one dim", {2, 6, 8, -1}, 1, {10}, {3}, 1, 1, 0, {2, 2, 10, -1}},
    {"three dims", {1, 8, 8, -1}, 3, {3, 3, 3}, {2, 2, 2}, 1, 1, 0, {1, 1, 3, 3, 3, -1}},
    {"none", {0, 18, 16, -1}, 2, {4, 4}, {3, 3}, 1, 1, 1, {0, 2, 4, 4, -1}},
};
#define COL2IM_ROWS ((int)(sizeof(col2im_rows) / sizeof(col2im_rows[0])))

START_TEST(col2im)
{
    const struct col2im_row *row = &col2im_rows[_i];
    int64_t lists[3][6];

    for (int i = 0; i < 6; i++) {
        lists[0][i] = row->stride;
        lists[1][i] = row->dilation;
        lists[2][i] = row->pad;
    }
    for (int d = 0; d < 4; d++) {
        cuda_case c = {.name = row->name, .op = TRM_OP_Col2Im, .in_count = 3, .out_count = 1};
        size_t n = (size_t)row->spatial;

        c.attrs = kit_ints(
            kit_ints(kit_ints(kit_attrs(), "strides", lists[0], n), "dilations", lists[1], n),
            "pads", lists[2], 2 * n);
        c.in[0] = kit_random(kit_tensor(floats[d], row->columns), -1, 1);
        c.in[1] = kit_values(KIT_T(TRM_DTYPE_I64, row->spatial), row->image);
        c.in[2] = kit_values(KIT_T(TRM_DTYPE_I64, row->spatial), row->block);
        c.known[1] = c.known[2] = true;
        c.out[0] = kit_tensor(floats[d], row->out);
        cuda_check(&c);
    }
}
END_TEST

START_TEST(refused)
{
    cuda_case c = {.name = "refused", .op = TRM_OP_GridSample, .in_count = 2, .out_count = 1};

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_I32, 1, 2, 3, 3), 0, 9);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 2, 2, 2), -1, 1);
    c.out[0] = KIT_T(TRM_DTYPE_I32, 1, 2, 2, 2);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 2, 3, 3), 0, 9);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 2, 2, 3), -1, 1);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c = roi_case(&roi_rows[0], TRM_DTYPE_F32, TRM_DTYPE_F32, TRM_DTYPE_I64);
    (void)kit_string(c.attrs, "mode", "median");
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c = roi_case(&roi_rows[0], TRM_DTYPE_F32, TRM_DTYPE_F32, TRM_DTYPE_U8);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("image");

    tcase_add_loop_test(t, resize, 0, RESIZE_ROWS);
    tcase_add_test(t, resize_refused);
    tcase_add_loop_test(t, grid_sample, 0, GRID_ROWS);
    tcase_add_loop_test(t, affine_grid, 0, 5);
    tcase_add_loop_test(t, roi_align, 0, ROI_ROWS);
    tcase_add_test(t, roi_align_broken);
    tcase_add_loop_test(t, col2im, 0, COL2IM_ROWS);
    tcase_add_test(t, refused);
    return kit_main("cuda image", t);
}
