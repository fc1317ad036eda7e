/* DeformConv, MaxRoiPool, MaxUnpool and CausalConvWithState on the CUDA backend. */
#include "tests/cuda/cuda_kit.h"

static const trm_dtype floats[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64};

/* Relative error of one rounding to the dtype; fp32 sums have their own. */
static double rounding(trm_dtype dtype)
{
    return dtype == TRM_DTYPE_BF16 ? 0x1p-8 : dtype == TRM_DTYPE_F16 ? 0x1p-11 : 1e-6;
}

static const struct deform_row {
    const char *name;
    int64_t x[5], w[5], out[2];
    int group, offset_group;
    int64_t stride, dilation, pad;
    bool bias, mask;
    double reach; /* of offsets */
} deform_rows[] = {
    {"plain", {1, 2, 5, 6, -1}, {3, 2, 3, 3, -1}, {3, 4}, 1, 1, 1, 1, 0, false, false, 1},
    {"padded, bias, mask",
     {2, 4, 5, 5, -1},
     {4, 4, 3, 3, -1},
     {5, 5},
     1,
     2,
     1,
     1,
     1,
     true,
     true,
     2},
    {"groups", {2, 4, 6, 6, -1}, {6, 2, 2, 3, -1}, {3, 3}, 2, 1, 2, 1, 1, true, false, 1},
    {"dilated", {1, 2, 7, 7, -1}, {2, 2, 2, 2, -1}, {5, 5}, 1, 1, 1, 2, 0, false, true, 3},
    {"no offsets", {1, 3, 4, 4, -1}, {2, 3, 1, 1, -1}, {4, 4}, 1, 3, 1, 1, 0, true, true, 0},
    {"far offsets", {1, 1, 4, 4, -1}, {1, 1, 2, 2, -1}, {3, 3}, 1, 1, 1, 1, 0, true, true, 9},
    {"no images", {0, 2, 5, 6, -1}, {3, 2, 3, 3, -1}, {3, 4}, 1, 1, 1, 1, 0, true, false, 1},
};
#define DEFORM_ROWS ((int)(sizeof(deform_rows) / sizeof(deform_rows[0])))

static cuda_case deform_case(const struct deform_row *row, trm_dtype dtype)
{
    cuda_case c = {.name = row->name, .op = TRM_OP_DeformConv, .in_count = 5, .out_count = 1};
    const int64_t both[3][4] = {{row->stride, row->stride, 0, 0},
                                {row->dilation, row->dilation, 0, 0},
                                {row->pad, row->pad, row->pad, row->pad}};
    int64_t taps = row->w[2] * row->w[3];

    c.attrs =
        kit_ints(kit_ints(kit_ints(kit_attrs(), "strides", both[0], 2), "dilations", both[1], 2),
                 "pads", both[2], 4);
    (void)kit_int(kit_int(c.attrs, "group", row->group), "offset_group", row->offset_group);
    c.in[0] = kit_random(kit_tensor(dtype, row->x), -1, 1);
    c.in[1] = kit_random(kit_tensor(dtype, row->w), -1, 1);
    c.in[2] =
        kit_random(KIT_T(dtype, row->x[0], row->offset_group * taps * 2, row->out[0], row->out[1]),
                   -row->reach, row->reach + 1e-9);
    for (size_t i = 5; i < trm_tensor_numel(&c.in[2]); i += 31) /* no fraction; no number */
        trm_tensor_set_f64(&c.in[2], i, i % 2 == 0 ? NAN : floor(row->reach));
    if (row->bias)
        c.in[3] = kit_random(KIT_T(dtype, row->w[0]), -1, 1);
    if (row->mask)
        c.in[4] = kit_random(
            KIT_T(dtype, row->x[0], row->offset_group * taps, row->out[0], row->out[1]), 0, 1);
    c.out[0] = KIT_T(dtype, row->x[0], row->w[0], row->out[0], row->out[1]);
    c.as_f32 = true;
    /* samples are rounded to the dtype for the product: up to 36 of them, below 1, in a sum */
    c.atol = 6 * rounding(dtype);
    c.rtol = 2 * rounding(dtype);
    return c;
}

START_TEST(deform)
{
    for (int d = 0; d < 4; d++) {
        cuda_case c = deform_case(&deform_rows[_i], floats[d]);

        cuda_check(&c);
    }
}
END_TEST

static const struct roi_row {
    const char *name;
    int64_t x[5];
    int regions, out_h, out_w;
    float scale;
} roi_rows[] = {
    {"ordinary", {2, 3, 9, 8, -1}, 6, 3, 2, 1},
    {"scaled", {2, 3, 9, 8, -1}, 6, 2, 4, 0.37f},
    {"one", {1, 1, 1, 1, -1}, 1, 1, 1, 1},
    {"none", {1, 1, 3, 3, -1}, 0, 2, 2, 1},
    {"more than a block", {3, 9, 12, 12, -1}, 8, 5, 5, 0.5f},
};
#define ROI_ROWS ((int)(sizeof(roi_rows) / sizeof(roi_rows[0])))

START_TEST(roi_pool)
{
    const struct roi_row *row = &roi_rows[_i];

    for (int d = 0; d < 8; d++) {
        trm_dtype dtype = floats[d % 4];
        cuda_case c = {.name = row->name, .op = TRM_OP_MaxRoiPool, .in_count = 2, .out_count = 1};
        const int64_t shape[] = {row->out_h, row->out_w};

        c.attrs =
            kit_float(kit_ints(kit_attrs(), "pooled_shape", shape, 2), "spatial_scale", row->scale);
        c.in[0] = kit_random(kit_tensor(dtype, row->x), -1, 1);
        for (size_t i = 3; i < trm_tensor_numel(&c.in[0]); i += 19)
            trm_tensor_set_f64(&c.in[0], i, i % 2 == 0 ? NAN : -INFINITY);
        c.in[1] = kit_data(KIT_T(d < 4 ? dtype : TRM_DTYPE_F32, row->regions, 5));
        for (size_t i = 0; i < (size_t)row->regions; i++) {
            trm_tensor_set_f64(&c.in[1], 5 * i, floor(kit_uniform(-0.5, (double)row->x[0] + 0.5)));
            for (size_t k = 1; k < 5; k++)
                trm_tensor_set_f64(&c.in[1], 5 * i + k,
                                   kit_uniform(k < 3 ? -3 : 2, k < 3 ? 6 : 14));
        }
        c.out[0] = KIT_T(dtype, row->regions, row->x[1], row->out_h, row->out_w);
        cuda_check(&c);
    }
}
END_TEST

static const struct unpool_row {
    const char *name;
    int64_t x[6], y[6];
    int64_t kernel, stride, pad;
} unpool_rows[] = {
    {"ordinary", {2, 3, 3, 4, -1}, {2, 3, 6, 8, -1}, 2, 2, 0},
    {"overlapping", {1, 2, 4, 4, -1}, {1, 2, 5, 5, -1}, 2, 1, 0},
    {"padded", {1, 2, 3, 3, -1}, {1, 2, 5, 5, -1}, 3, 2, 1},
    {"another shape", {1, 2, 3, 3, -1}, {1, 2, 7, 5, -1}, 2, 2, 0},
    {"one dim", {3, 2, 5, -1}, {3, 2, 10, -1}, 2, 2, 0},
    {"three dims", {1, 2, 2, 2, 2, -1}, {1, 2, 4, 4, 4, -1}, 2, 2, 0},
    {"nothing in", {0, 2, 3, 3, -1}, {0, 2, 6, 6, -1}, 2, 2, 0},
    {"more than a block", {2, 5, 8, 8, -1}, {2, 5, 16, 16, -1}, 2, 2, 0},
};
#define UNPOOL_ROWS ((int)(sizeof(unpool_rows) / sizeof(unpool_rows[0])))

START_TEST(unpool)
{
    const struct unpool_row *row = &unpool_rows[_i];

    for (int d = 0; d < 4; d++) {
        cuda_case c = {.name = row->name, .op = TRM_OP_MaxUnpool, .in_count = 2, .out_count = 1};
        int64_t lists[3][8], full = 1;
        size_t n;

        c.in[0] = kit_random(kit_tensor(floats[d], row->x), -1, 1);
        n = (size_t)c.in[0].rank - 2;
        for (size_t i = 0; i < 8; i++) {
            lists[0][i] = row->kernel;
            lists[1][i] = row->stride;
            lists[2][i] = row->pad;
        }
        c.attrs = kit_ints(
            kit_ints(kit_ints(kit_attrs(), "kernel_shape", lists[0], n), "strides", lists[1], n),
            "pads", lists[2], 2 * n);
        for (int i = 0; i < c.in[0].rank; i++)
            full *= i < 2 ? row->x[i] : (row->x[i] - 1) * row->stride + row->kernel - 2 * row->pad;
        c.in[1] = kit_tensor(TRM_DTYPE_I64, row->x);
        /* anywhere, also twice in one place (the last one counts), and outside */
        c.in[1] = kit_random(c.in[1], -2, (double)full + 3);
        c.out[0] = kit_tensor(floats[d], row->y);
        cuda_check(&c);
    }
}
END_TEST

static const struct causal_row {
    const char *name;
    int64_t n, c, length, taps;
    bool bias, past, state;
    const char *activation;
} causal_rows[] = {
    {"ordinary", 2, 3, 9, 4, true, true, true, "silu"},
    {"no past", 2, 3, 9, 4, true, false, true, "none"},
    {"no bias", 1, 5, 7, 3, false, true, true, "swish"},
    {"one step", 2, 40, 1, 4, true, true, true, "silu"},
    {"shorter than the state", 1, 3, 2, 5, true, false, true, "none"},
    {"one tap", 2, 3, 5, 1, true, false, true, "none"},
    {"no state", 2, 3, 5, 4, false, false, false, "silu"},
    {"nothing", 0, 3, 5, 4, false, false, true, "silu"},
    {"more than a block", 2, 9, 70, 4, true, true, true, "silu"},
};
#define CAUSAL_ROWS ((int)(sizeof(causal_rows) / sizeof(causal_rows[0])))

START_TEST(causal_conv)
{
    const struct causal_row *row = &causal_rows[_i];

    for (int d = 0; d < 4; d++) {
        trm_dtype dtype = floats[d];
        cuda_case c = {
            .name = row->name, .op = TRM_OP_CausalConvWithState, .in_count = 4, .out_count = 2};

        c.attrs = kit_string(kit_attrs(), "activation", row->activation);
        c.in[0] = kit_random(KIT_T(dtype, row->n, row->c, row->length), -1, 1);
        c.in[1] = kit_random(KIT_T(dtype, row->c, 1, row->taps), -1, 1);
        if (row->bias)
            c.in[2] = kit_random(KIT_T(dtype, row->c), -1, 1);
        if (row->past)
            c.in[3] = kit_random(KIT_T(dtype, row->n, row->c, row->taps - 1), -1, 1);
        c.out[0] = KIT_T(dtype, row->n, row->c, row->length);
        if (row->state)
            c.out[1] = KIT_T(dtype, row->n, row->c, row->taps - 1);
        c.as_f32 = true;
        c.atol = 1e-6; /* up to 6 terms of O(1) in fp32 */
        c.rtol = rounding(dtype);
        cuda_check(&c);
    }
}
END_TEST

START_TEST(refused)
{
    cuda_case c = deform_case(&deform_rows[0], TRM_DTYPE_F32);

    (void)kit_int(c.attrs, "group", 3);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c = deform_case(&deform_rows[0], TRM_DTYPE_F32);
    c.in[1].dtype = TRM_DTYPE_F16;
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c = (cuda_case){.name = "unpool", .op = TRM_OP_MaxUnpool, .in_count = 2, .out_count = 1};
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 2, 3, 3), -1, 1);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_I32, 1, 2, 3, 3), 0, 9);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 1, 2, 6, 6);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c = (cuda_case){
        .name = "causal", .op = TRM_OP_CausalConvWithState, .in_count = 2, .out_count = 2};
    c.attrs = kit_string(kit_attrs(), "activation", "relu");
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 2, 3), -1, 1);
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 1, 3), -1, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 1, 2, 3);
    c.out[1] = KIT_T(TRM_DTYPE_F32, 1, 2, 2);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("region");

    tcase_add_loop_test(t, deform, 0, DEFORM_ROWS);
    tcase_add_loop_test(t, roi_pool, 0, ROI_ROWS);
    tcase_add_loop_test(t, unpool, 0, UNPOOL_ROWS);
    tcase_add_loop_test(t, causal_conv, 0, CAUSAL_ROWS);
    tcase_add_test(t, refused);
    return kit_main("cuda region", t);
}
