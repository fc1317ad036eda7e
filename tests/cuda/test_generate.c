/* Pad, CenterCropPad, ReverseSequence and operators that make data from shapes and parameters on
 * the CUDA device, equal to the CPU's to the bit. */
#include "tests/cuda/cuda_kit.h"

#define P TRM_LAYOUT_PLAIN
#define L TRM_LAYOUT_CHANNELS_LAST
#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static const trm_dtype widths[] = {TRM_DTYPE_U8, TRM_DTYPE_F16, TRM_DTYPE_F32, TRM_DTYPE_I64};
static const trm_dtype all[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64,
                                TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16,  TRM_DTYPE_U16,
                                TRM_DTYPE_I32, TRM_DTYPE_U32, TRM_DTYPE_I64,  TRM_DTYPE_U64,
                                TRM_DTYPE_BOOL};

static trm_tensor shaped(trm_dtype dtype, int rank, const int64_t *dims)
{
    trm_tensor t = {.dtype = dtype, .rank = rank};

    memcpy(t.dims, dims, (size_t)rank * sizeof(*dims));
    return t;
}

static trm_tensor ints(int count, const int64_t *values)
{
    trm_tensor t = kit_data(KIT_T(TRM_DTYPE_I64, count));

    memcpy(t.data, values, (size_t)count * sizeof(*values));
    return t;
}

/* ---- Pad ---- */

static const struct {
    const char *name;
    int rank;
    int64_t dims[4], begin[4], end[4];
    trm_layout arrives;
} pads[] = {
    {"image", 4, {2, 3, 5, 6}, {0, 0, 1, 2}, {0, 0, 2, 1}, P},
    {"image channels last", 4, {2, 3, 5, 6}, {0, 0, 1, 2}, {0, 0, 2, 1}, L},
    {"wide channels last", 4, {1, 16, 5, 6}, {0, 0, 1, 1}, {0, 0, 1, 1}, L},
    {"channels", 4, {1, 4, 3, 4}, {0, 2, 0, 0}, {0, 3, 0, 0}, P},
    {"channels, last", 4, {1, 4, 3, 4}, {0, 2, 0, 0}, {0, 3, 0, 0}, L},
    {"batch", 3, {4, 5, 8}, {1, 0, 0}, {2, 0, 0}, P},
    {"middle", 3, {4, 5, 8}, {0, 3, 0}, {0, 4, 0}, P},
    {"crops", 3, {4, 5, 8}, {-1, 0, -3}, {0, -2, -1}, P},
    {"crops and pads", 3, {4, 7, 8}, {2, -2, 3}, {-1, 4, -3}, P},
    {"crops channels last", 4, {1, 8, 7, 8}, {0, 0, -2, 3}, {0, 0, 4, -3}, L},
    {"far", 1, {3}, {10}, {11}, P},
    {"one element", 2, {1, 1}, {2, 0}, {3, 4}, P},
    {"nothing", 2, {3, 8}, {0, 0}, {0, 0}, P},
    {"to nothing", 2, {3, 8}, {-3, 0}, {0, 0}, P},
    {"rank 0", 0, {0}, {0}, {0}, P},
    {"large", 2, {80, 90}, {3, 1}, {2, 4}, P},
};

START_TEST(test_pad)
{
    static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
    int rank = pads[_i].rank;
    int64_t both[8];

    memcpy(both, pads[_i].begin, (size_t)rank * sizeof(*both));
    memcpy(both + rank, pads[_i].end, (size_t)rank * sizeof(*both));
    for (int w = 0; w < 4; w++) {
        for (int m = 0; m < 4; m++) {
            cuda_case c = {.name = pads[_i].name,
                           .op = TRM_OP_Pad,
                           .attrs = kit_string(kit_attrs(), "mode", modes[m]),
                           .in_count = 3,
                           .out_count = 1,
                           .known = {false, true, w % 2 == 0},
                           .arrives = {pads[_i].arrives}};

            c.in[0] = kit_random(shaped(widths[w], rank, pads[_i].dims), 0, 120);
            c.in[1] = ints(2 * rank, both);
            if (w != 1) /* else zero */
                c.in[2] = kit_random(KIT_T(widths[w]), 1, 120);
            c.out[0] = c.in[0];
            c.out[0].data = NULL;
            for (int i = 0; i < rank; i++)
                c.out[0].dims[i] += pads[_i].begin[i] + pads[_i].end[i];
            cuda_check(&c);
            ck_assert_int_eq(c.wanted[0], pads[_i].arrives);
            ck_assert_int_eq(c.gave[0], pads[_i].arrives);
        }
    }
}
END_TEST

START_TEST(test_pad_axes)
{
    cuda_case c = {
        .op = TRM_OP_Pad, .in_count = 4, .out_count = 1, .known = {false, true, false, true}};

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 3, 4, 5), -1, 1);
    c.in[1] = ints(4, (const int64_t[]){1, 2, 3, -1});
    c.in[3] = ints(2, (const int64_t[]){-1, 0});
    c.out[0] = KIT_T(TRM_DTYPE_F32, 4, 4, 9);
    cuda_check(&c);
}
END_TEST

START_TEST(test_center_crop_pad)
{
    static const struct {
        const char *name;
        int64_t dims[4], size[4], axes[4];
        int count;
        trm_layout arrives;
    } rows[] = {
        {"crop", {2, 8, 9, 10}, {4, 5}, {2, 3}, 2, P},
        {"pad", {2, 8, 4, 5}, {7, 9}, {2, -1}, 2, L},
        {"both", {2, 8, 4, 9}, {7, 4}, {2, 3}, 2, L},
        {"all", {2, 3, 4, 5}, {3, 2, 5, 4}, {-9}, 4, P},
    };

    for (int w = 0; w < 4; w++) {
        cuda_case c = {.name = rows[_i].name,
                       .op = TRM_OP_CenterCropPad,
                       .attrs = kit_attrs(),
                       .in_count = 2,
                       .out_count = 1,
                       .known = {false, true},
                       .arrives = {rows[_i].arrives}};

        c.in[0] = kit_random(shaped(widths[w], 4, rows[_i].dims), 1, 120);
        c.in[1] = ints(rows[_i].count, rows[_i].size);
        c.out[0] = shaped(widths[w], 4, rows[_i].dims);
        if (rows[_i].axes[0] != -9)
            kit_ints(c.attrs, "axes", rows[_i].axes, (size_t)rows[_i].count);
        for (int i = 0; i < rows[_i].count; i++) {
            int64_t axis = rows[_i].axes[0] == -9 ? i : rows[_i].axes[i];

            c.out[0].dims[axis < 0 ? axis + 4 : axis] = rows[_i].size[i];
        }
        cuda_check(&c);
        ck_assert_int_eq(c.gave[0], rows[_i].arrives);
    }
}
END_TEST

START_TEST(test_reverse)
{
    static const struct {
        int64_t d0, d1, inner;
        int batch_axis;
    } rows[] = {{9, 4, 8, 1}, {4, 9, 8, 0},   {9, 4, 3, 1},
                {4, 9, 1, 0}, {3, 70, 64, 0}, {0, 4, 3, 1}};

    for (int w = 0; w < 4; w++) {
        int64_t batches = rows[_i].batch_axis == 0 ? rows[_i].d0 : rows[_i].d1;
        int64_t steps = rows[_i].batch_axis == 0 ? rows[_i].d1 : rows[_i].d0;
        cuda_case c = {.op = TRM_OP_ReverseSequence,
                       .attrs = kit_int(kit_attrs(), "batch_axis", rows[_i].batch_axis),
                       .in_count = 2,
                       .out_count = 1};

        kit_int(c.attrs, "time_axis", 1 - rows[_i].batch_axis);
        c.in[0] = kit_random(KIT_T(widths[w], rows[_i].d0, rows[_i].d1, rows[_i].inner), 0, 120);
        c.in[1] = kit_random(KIT_T(w % 2 == 0 ? TRM_DTYPE_I64 : TRM_DTYPE_I32, batches), 0,
                             (double)steps + 1);
        c.out[0] = c.in[0];
        c.out[0].data = NULL;
        cuda_check(&c);
    }
}
END_TEST

START_TEST(test_reverse_out_of_range)
{
    cuda_case c = {
        .op = TRM_OP_ReverseSequence, .attrs = kit_attrs(), .in_count = 2, .out_count = 1};
    trm_tensor got[CUDA_ARGS];

    kit_int(kit_int(c.attrs, "batch_axis", 0), "time_axis", 1);
    c.in[0] = KIT_V(KIT_T(TRM_DTYPE_F32, 3, 2), 1, 2, 3, 4, 5, 6);
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 3), 3, 2, -1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 3, 2);
    KIT_OK(kit_run(&c, kit_gpu, got));
    for (size_t i = 0; i < 6; i++)
        ck_assert_double_eq(trm_tensor_get_f64(&got[0], i),
                            ((const double[]){0, 0, 4, 3, 0, 0})[i]);
}
END_TEST

/* ---- Shape, Size, ConstantOfShape, Range, EyeLike ---- */

START_TEST(test_shape)
{
    static const struct {
        int64_t start, end, count; /* end 99: none */
        trm_layout arrives;
    } rows[] = {{0, 99, 4, P}, {1, 99, 3, L}, {-2, 99, 2, L},
                {1, -1, 2, P}, {3, 1, 0, P},  {-9, 2, 2, P}};
    cuda_case c = {.op = TRM_OP_Shape,
                   .attrs = kit_int(kit_attrs(), "start", rows[_i].start),
                   .in_count = 1,
                   .out_count = 1,
                   .arrives = {rows[_i].arrives}};

    if (rows[_i].end != 99)
        kit_int(c.attrs, "end", rows[_i].end);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 3, 4, 5), 0, 1);
    c.out[0] = KIT_T(TRM_DTYPE_I64, rows[_i].count);
    cuda_check(&c);
    ck_assert_int_eq(c.wanted[0], rows[_i].arrives); /* it is not read */
    c.op = TRM_OP_Size;
    c.out[0] = KIT_T(TRM_DTYPE_I64);
    cuda_check(&c);
}
END_TEST

START_TEST(test_constant_of_shape)
{
    for (int n = 0; n < 5; n++) {
        static const int64_t columns[] = {0, 1, 7, 64, 1003};
        cuda_case c = {.op = TRM_OP_ConstantOfShape,
                       .attrs = kit_attrs(),
                       .in_count = 1,
                       .out_count = 1,
                       .known = {true}};
        trm_tensor value = KIT_V(KIT_T(all[_i], 1), all[_i] == TRM_DTYPE_BOOL ? 1 : 119);
        trm_attr attr = {.name = "value", .kind = TRM_ATTR_TENSOR, .v.tensor = &value};

        c.in[0] = ints(2, (const int64_t[]){3, columns[n]});
        c.out[0] = KIT_T(all[_i], 3, columns[n]);
        if (n > 0)
            ck_assert_int_eq(trm_attr_set(c.attrs, kit_arena, &attr), TRM_OK);
        else /* zeros of f32 */
            c.out[0].dtype = TRM_DTYPE_F32;
        cuda_check(&c);
    }
}
END_TEST

START_TEST(test_range)
{
    static const struct {
        double start, delta;
        int64_t count;
    } rows[] = {{0, 1, 20}, {100, -3, 37}, {0.1, 0.1, 300}, {-5, 7, 1}, {2, 3, 0}, {120, 9, 40}};
    trm_dtype dtype = all[_i / 6];
    cuda_case c = {.op = TRM_OP_Range, .in_count = 3, .out_count = 1, .known = {true, true, true}};

    c.in[0] = KIT_V(KIT_T(dtype), rows[_i % 6].start);
    c.in[1] = KIT_V(KIT_T(dtype), rows[_i % 6].start); /* the limit is in the shape */
    c.in[2] = KIT_V(KIT_T(dtype), rows[_i % 6].delta);
    c.out[0] = KIT_T(dtype, rows[_i % 6].count);
    cuda_check(&c);
}
END_TEST

START_TEST(test_eye)
{
    static const struct {
        int64_t rows, columns, k;
    } rows[] = {{5, 5, 0}, {4, 9, 2}, {9, 4, -3}, {3, 3, INT64_MIN}, {3, 3, INT64_MAX}, {0, 4, 0}};

    for (int w = 0; w < COUNT(all); w++) {
        cuda_case c = {.op = TRM_OP_EyeLike,
                       .attrs = kit_int(kit_attrs(), "k", rows[_i].k),
                       .in_count = 1,
                       .out_count = 1};

        c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, rows[_i].rows, rows[_i].columns), 0, 1);
        c.out[0] = KIT_T(all[w], rows[_i].rows, rows[_i].columns);
        cuda_check(&c);
    }
}
END_TEST

/* ---- Trilu, OneHot ---- */

static const struct {
    int rank;
    int64_t dims[4], k;
    bool with_k;
} trilus[] = {
    {2, {7, 7}, 0, false},        {3, {2, 5, 9}, 2, true},      {4, {2, 2, 9, 5}, -3, true},
    {2, {6, 6}, INT64_MAX, true}, {2, {6, 6}, INT64_MIN, true}, {3, {2, 0, 5}, 1, true},
    {2, {90, 80}, 1, true},
};

START_TEST(test_trilu)
{
    for (int w = 0; w < 8; w++) {
        cuda_case c = {.op = TRM_OP_Trilu,
                       .attrs = kit_int(kit_attrs(), "upper", w % 2),
                       .in_count = trilus[_i].with_k ? 2 : 1,
                       .out_count = 1,
                       .known = {false, true}};

        c.in[0] = kit_random(shaped(widths[w / 2], trilus[_i].rank, trilus[_i].dims), 1, 120);
        c.in[1] = ints(1, &trilus[_i].k);
        c.in[1].rank = 0;
        c.out[0] = c.in[0];
        c.out[0].data = NULL;
        cuda_check(&c);
    }
}
END_TEST

static const struct {
    int rank, axis;
    int64_t dims[3], out[4], depth;
} one_hots[] = {
    {1, -1, {9}, {9, 5}, 5},       {2, 0, {3, 4}, {6, 3, 4}, 6},  {2, 1, {3, 4}, {3, 6, 4}, 6},
    {0, 0, {0}, {7}, 7},           {2, -1, {3, 4}, {3, 4, 0}, 0}, {1, -1, {90}, {90, 80}, 80},
    {2, -2, {3, 4}, {3, 3, 4}, 3},
};

START_TEST(test_one_hot)
{
    for (int w = 0; w < COUNT(all) - 1; w++) {
        cuda_case c = {.op = TRM_OP_OneHot,
                       .attrs = kit_int(kit_attrs(), "axis", one_hots[_i].axis),
                       .in_count = 3,
                       .out_count = 1,
                       .known = {false, true}};
        double depth = (double)one_hots[_i].depth;

        /* some are out of range: nothing is on */
        c.in[0] = kit_random(shaped(all[w], one_hots[_i].rank, one_hots[_i].dims),
                             trm_dtype_is_unsigned_int(all[w]) ? 0 : -depth - 2, depth + 2);
        c.in[1] = ints(1, &one_hots[_i].depth);
        c.in[2] = KIT_V(KIT_T(widths[w % 4], 2), 3, 9);
        c.out[0] = shaped(widths[w % 4], one_hots[_i].rank + 1, one_hots[_i].out);
        cuda_check(&c);
    }
}
END_TEST

/* ---- refused ---- */

START_TEST(test_refused)
{
    cuda_case c = {.attrs = kit_attrs(), .in_count = 2, .out_count = 1, .known = {false, true}};

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 3), 0, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 2, 3);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    switch (_i) {
    case 0: /* three pads for two axes */
        c.op = TRM_OP_Pad;
        c.in[1] = ints(3, (const int64_t[]){0, 0, 0});
        break;
    case 1: /* a mode that nobody knows */
        c.op = TRM_OP_Pad;
        c.in[1] = ints(4, (const int64_t[]){0, 0, 0, 0});
        kit_string(c.attrs, "mode", "mirror");
        c.want_prepare = TRM_ERR_UNSUPPORTED;
        break;
    case 2: /* nothing left to reflect */
        c.op = TRM_OP_Pad;
        c.in[1] = ints(4, (const int64_t[]){-2, 0, 2, 0});
        kit_string(c.attrs, "mode", "reflect");
        break;
    case 3: /* lengths as floats */
        c.op = TRM_OP_ReverseSequence;
        c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 3), 0, 1);
        break;
    case 4: /* rank 1 */
        c.op = TRM_OP_Trilu;
        c.in_count = 1;
        c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 3), 0, 1);
        c.out[0] = KIT_T(TRM_DTYPE_F32, 3);
        break;
    default: /* values of another dtype */
        c.op = TRM_OP_OneHot;
        c.in_count = 3;
        c.in[1] = ints(1, (const int64_t[]){4});
        c.in[2] = kit_random(KIT_T(TRM_DTYPE_F16, 2), 0, 1);
        c.out[0] = KIT_T(TRM_DTYPE_F32, 2, 3, 4);
    }
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("generate");

    tcase_add_loop_test(t, test_pad, 0, COUNT(pads));
    tcase_add_test(t, test_pad_axes);
    tcase_add_loop_test(t, test_center_crop_pad, 0, 4);
    tcase_add_loop_test(t, test_reverse, 0, 6);
    tcase_add_test(t, test_reverse_out_of_range);
    tcase_add_loop_test(t, test_shape, 0, 6);
    tcase_add_loop_test(t, test_constant_of_shape, 0, COUNT(all));
    tcase_add_loop_test(t, test_range, 0, 6 * 12);
    tcase_add_loop_test(t, test_eye, 0, 6);
    tcase_add_loop_test(t, test_trilu, 0, COUNT(trilus));
    tcase_add_loop_test(t, test_one_hot, 0, COUNT(one_hots));
    tcase_add_loop_test(t, test_refused, 0, 6);
    return kit_main("cuda/generate", t);
}
