/* Copies, transposes, slices, concatenations, gathers against scalar references that walk every
 * output index. */
#include "tests/kernels/data_kit.h"

static const trm_dtype sizes[4] = {TRM_DTYPE_U8, TRM_DTYPE_F16, TRM_DTYPE_I32, TRM_DTYPE_F64};

/* Index of output element i in row-major dims. */
static void unravel(size_t i, const trm_tensor *t, int64_t *at)
{
    for (int d = t->rank - 1; d >= 0; d--) {
        at[d] = (int64_t)(i % (size_t)t->dims[d]);
        i /= (size_t)t->dims[d];
    }
}

static size_t ravel(const int64_t *at, const trm_tensor *t)
{
    size_t i = 0;

    for (int d = 0; d < t->rank; d++)
        i = i * (size_t)t->dims[d] + (size_t)at[d];
    return i;
}

static const struct transpose_case {
    int rank;
    int64_t dims[5], perm[5];
} transposes[] = {
    {2, {37, 41}, {1, 0}},
    {4, {2, 7, 3, 16}, {0, 2, 1, 3}},
    {4, {2, 5, 33, 35}, {0, 2, 3, 1}},
    {4, {2, 33, 35, 5}, {0, 3, 1, 2}},
    {4, {1, 64, 40, 40}, {0, 2, 3, 1}},
    {3, {9, 11, 13}, {2, 1, 0}},
    {5, {2, 3, 4, 5, 6}, {4, 2, 0, 3, 1}},
    {3, {0, 4, 2}, {1, 2, 0}},
    {1, {9}, {0}},
    {0, {0}, {0}},
    {4, {1, 2, 200, 300}, {0, 1, 3, 2}},
    {3, {1, 1, 5}, {2, 0, 1}},
};

START_TEST(transpose)
{
    const struct transpose_case *c = &transposes[_i];

    for (int s = 0; s < 4; s++) {
        int64_t out_dims[5];
        const unsigned char *x;
        size_t elem = trm_dtype_bytes(sizes[s]);
        kit k;

        kit_open(&k, TRM_OP_Transpose);
        x = kit_in_random(&k, sizes[s], c->rank, c->dims);
        kit_attr_ints(&k, "perm", c->perm, (size_t)c->rank);
        for (int d = 0; d < c->rank; d++)
            out_dims[d] = c->dims[c->perm[d]];
        kit_out(&k, sizes[s], c->rank, out_dims);
        ck_assert_int_eq(kit_run(&k, TRM_OP_Transpose), TRM_OK);
        for (size_t i = 0; i < trm_tensor_numel(&k.out[0]); i++) {
            int64_t at[8], from[8];

            unravel(i, &k.out[0], at);
            for (int d = 0; d < c->rank; d++)
                from[c->perm[d]] = at[d];
            ck_assert_mem_eq((unsigned char *)k.out[0].data + i * elem,
                             x + ravel(from, &k.in[0]) * elem, elem);
        }
        kit_close(&k);
    }
}
END_TEST

START_TEST(transpose_bad_perm)
{
    const int64_t perm[2] = {0, 0};
    kit k;

    kit_open(&k, TRM_OP_Transpose);
    kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(2, 3));
    kit_attr_ints(&k, "perm", perm, 2);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(2, 3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Transpose), TRM_ERR_INVALID_ARG);
    kit_close(&k);
}
END_TEST

static const struct slice_case {
    int64_t start, end, step, first, n; /* of axis 1, length 10 */
} slices[] = {
    {2, 7, 1, 2, 5},
    {0, 10, 3, 0, 4},
    {-3, INT64_MAX, 1, 7, 3},
    {9, -11, -1, 9, 10},
    {8, 1, -3, 8, 3},
    {-1, INT64_MIN, -4, 9, 3},
    {5, 5, 1, 0, 0},
    {7, 2, 1, 0, 0},
    {-100, 3, 2, 0, 2},
    {100, 0, -1, 9, 9},
    {INT64_MIN, INT64_MAX, INT64_MAX, 0, 1},
};

START_TEST(slice)
{
    const struct slice_case *c = &slices[_i];
    int64_t axis = -2;
    const float *x;
    kit k;

    kit_open(&k, TRM_OP_Slice);
    x = kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(3, 10, 4));
    kit_ints(&k, &c->start, 1);
    kit_ints(&k, &c->end, 1);
    kit_ints(&k, &axis, 1);
    kit_ints(&k, &c->step, 1);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(3, c->n, 4));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Slice), TRM_OK);
    for (int64_t a = 0; a < 3; a++)
        for (int64_t b = 0; b < c->n; b++)
            for (int64_t d = 0; d < 4; d++)
                ck_assert_float_eq(((float *)k.out[0].data)[(a * c->n + b) * 4 + d],
                                   x[(a * 10 + c->first + b * c->step) * 4 + d]);
    kit_close(&k);
}
END_TEST

START_TEST(slice_step_zero)
{
    int64_t zero = 0, three = 3;
    kit k;

    kit_open(&k, TRM_OP_Slice);
    kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(4));
    kit_ints(&k, &zero, 1);
    kit_ints(&k, &three, 1);
    kit_ints(&k, &zero, 1);
    kit_ints(&k, &zero, 1);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Slice), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "step 0"));
    kit_close(&k);
}
END_TEST

/* axis 0..3 of [2, c, 3, 5], three inputs; channels decide whether a blocked layout is kept */
START_TEST(concat_and_split)
{
    int axis = _i % 4, layout = _i / 4 % 4;
    int64_t parts[3] = {16, 32, _i >= 16 ? 5 : 16}, block = layout == 2 ? 8 : 16;
    const unsigned char *x[3];
    trm_tensor t;
    kit k, back;
    size_t piece[3], whole, outer;

    kit_open(&k, TRM_OP_Concat);
    kit_attr_int(&k, "axis", axis - 4);
    t = kit_tensor(TRM_DTYPE_F16, KIT_DIMS(2, 16, 3, 5));
    for (int i = 0; i < 3; i++) {
        int64_t dims[4] = {2, 16, 3, 5};

        dims[axis] = parts[i];
        /* storage of a blocked tensor may be padded: make it large enough */
        dims[1] = layout >= 2 ? (dims[1] + block - 1) / block * block : dims[1];
        x[i] = kit_in_random(&k, TRM_DTYPE_F16, 4, dims);
        k.in[i].dims[1] = axis == 1 ? parts[i] : 16;
        k.in[i].layout = (trm_layout)layout;
    }
    t.dims[axis] = parts[0] + parts[1] + parts[2];
    kit_out(&k, t.dtype, 4, t.dims);
    ck_assert_int_eq(kit_run(&k, TRM_OP_Concat), TRM_OK);
    ck_assert_int_eq(k.out[0].layout, layout); /* the last piece may be odd */
    /* storage: rows of pieces under the axis */
    outer = axis == 0 ? 1 : axis == 1 ? 2 : axis == 2 ? 32 : 96;
    if (layout == TRM_LAYOUT_CHANNELS_LAST)
        outer = axis == 0 ? 1 : axis == 1 ? 30 : axis == 2 ? 2 : 6;
    if (layout >= 2)
        outer = axis == 0 ? 1 : axis == 1 ? 2 : (size_t)(32 / block) * (axis == 3 ? 3 : 1);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(trm_tensor_bytes(&k.in[i], &piece[i]), TRM_OK);
        piece[i] /= outer;
    }
    whole = piece[0] + piece[1] + piece[2];
    for (size_t o = 0; o < outer; o++) {
        const unsigned char *y = (const unsigned char *)k.out[0].data + o * whole;

        for (int i = 0; i < 3; i++) {
            ck_assert_mem_eq(y, x[i] + o * piece[i], piece[i]);
            y += piece[i];
        }
    }
    kit_open(&back, TRM_OP_Split);
    kit_attr_int(&back, "axis", axis);
    {
        int64_t dims[4];

        memcpy(dims, k.out[0].dims, sizeof(dims));
        dims[1] = layout >= 2 ? (dims[1] + block - 1) / block * block : dims[1];
        kit_in(&back, TRM_DTYPE_F16, k.out[0].data, false, 4, dims);
        back.in[0].dims[1] = k.out[0].dims[1];
        back.in[0].layout = k.out[0].layout;
    }
    for (int i = 0; i < 3; i++)
        kit_out(&back, TRM_DTYPE_F16, 4, k.in[i].dims);

    ck_assert_int_eq(kit_run(&back, TRM_OP_Split), TRM_OK);
    for (int i = 0; i < 3; i++)
        kit_expect_bytes(&back, i, x[i]);
    kit_close(&back);
    kit_close(&k);
}
END_TEST

START_TEST(concat_odd_channels_go_plain)
{
    kit k;

    kit_open(&k, TRM_OP_Concat);
    kit_attr_int(&k, "axis", 1);
    kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(1, 5, 2, 2));
    kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(1, 16, 2, 2));
    k.in[1].layout = TRM_LAYOUT_BLOCK16;
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(1, 21, 2, 2));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Concat), TRM_OK);
    ck_assert_int_eq(k.settled_in[1], TRM_LAYOUT_PLAIN);
    ck_assert_int_eq(k.out[0].layout, TRM_LAYOUT_PLAIN);
    kit_close(&k);
}
END_TEST

START_TEST(expand_and_tile)
{
    const float x[2] = {1, 2};
    const float want[12] = {1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2};
    const float tiled[8] = {1, 2, 1, 2, 1, 2, 1, 2};
    const int64_t shape[3] = {2, 1, 3}, repeats[2] = {2, 2};
    kit k;

    kit_open(&k, TRM_OP_Expand);
    kit_in(&k, TRM_DTYPE_F32, x, false, KIT_DIMS(2, 1));
    kit_ints(&k, shape, 3);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(2, 2, 3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Expand), TRM_OK);
    kit_expect_bytes(&k, 0, want);
    kit_close(&k);
    kit_open(&k, TRM_OP_Tile);
    kit_in(&k, TRM_DTYPE_F32, x, false, KIT_DIMS(1, 2));
    kit_ints(&k, repeats, 2);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(2, 4));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Tile), TRM_OK);
    kit_expect_bytes(&k, 0, tiled);
    kit_close(&k);
}
END_TEST

START_TEST(depth_to_space_round_trip)
{
    kit k, back;

    kit_open(&k, TRM_OP_DepthToSpace);
    kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(2, 12, 3, 4));
    kit_attr_int(&k, "blocksize", 2);
    kit_attr_string(&k, "mode", _i == 0 ? "DCR" : "CRD");
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(2, 3, 6, 8));
    ck_assert_int_eq(kit_run(&k, TRM_OP_DepthToSpace), TRM_OK);
    for (int64_t n = 0; n < 2; n++)
        for (int64_t c = 0; c < 3; c++)
            for (int64_t y = 0; y < 6; y++)
                for (int64_t x = 0; x < 8; x++) {
                    int64_t sub = (y % 2) * 2 + x % 2;
                    int64_t channel = _i == 0 ? sub * 3 + c : c * 4 + sub;

                    ck_assert_float_eq(
                        ((float *)k.out[0].data)[((n * 3 + c) * 6 + y) * 8 + x],
                        ((const float *)
                             k.in_data[0])[((n * 12 + channel) * 3 + y / 2) * 4 + x / 2]);
                }
    kit_open(&back, TRM_OP_SpaceToDepth);
    kit_in(&back, TRM_DTYPE_F32, k.out[0].data, false, KIT_DIMS(2, 3, 6, 8));
    kit_attr_int(&back, "blocksize", 2);
    kit_attr_string(&back, "mode", _i == 0 ? "DCR" : "CRD");
    kit_out(&back, TRM_DTYPE_F32, KIT_DIMS(2, 12, 3, 4));
    ck_assert_int_eq(kit_run(&back, TRM_OP_SpaceToDepth), TRM_OK);
    kit_expect_bytes(&back, 0, k.in_data[0]);
    kit_close(&back);
    kit_close(&k);
}
END_TEST

START_TEST(gather)
{
    const int32_t index[4] = {2, -1, 0, 3};
    const int64_t far[1] = {5};
    const float *x;
    kit k;

    kit_open(&k, TRM_OP_Gather);
    x = kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(3, 5, 2));
    kit_in(&k, TRM_DTYPE_I32, index, false, KIT_DIMS(2, 2));
    kit_attr_int(&k, "axis", 1);
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(3, 2, 2, 2));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Gather), TRM_OK);
    for (int64_t o = 0; o < 3; o++)
        for (int64_t i = 0; i < 4; i++)
            for (int64_t d = 0; d < 2; d++)
                ck_assert_float_eq(((float *)k.out[0].data)[(o * 4 + i) * 2 + d],
                                   x[(o * 5 + (index[i] + 5) % 5) * 2 + d]);
    kit_close(&k);
    kit_open(&k, TRM_OP_Gather);
    kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(5, 2));
    kit_in(&k, TRM_DTYPE_I64, far, false, KIT_DIMS(1));
    kit_out(&k, TRM_DTYPE_F32, KIT_DIMS(1, 2));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Gather), TRM_ERR_INVALID_ARG);
    ck_assert_str_eq(trm_message(),
                     "Gather 'node': index 5 (element 0) is out of range, want -5 to 4");
    kit_close(&k);
}
END_TEST

/* Rows 1 to 2 and 4 of 6: the others are zero, and all are counted. */
START_TEST(gather_part)
{
    const int64_t index[5] = {0, 1, -2, 5, 2}, ranges[4] = {1, 3, 4, 5}, far[1] = {6};
    const int held[5] = {-1, 0, 2, -1, 1};
    const float *x;
    kit k;

    for (int bad = 0; bad < 3; bad++) {
        kit_open(&k, TRM_OP_TrmGatherPart);
        x = kit_in_random(&k, TRM_DTYPE_F32, KIT_DIMS(2, 3, 2));
        kit_in(&k, TRM_DTYPE_I64, bad == 1 ? far : index, false, 1,
               (const int64_t[]){bad == 1 ? 1 : 5});
        kit_attr_int(&k, "axis", 1);
        kit_attr_int(&k, "extent", 6);
        ck_assert_int_eq(trm_attr_set_ints(&k.attrs, k.arena, "ranges", ranges, bad == 2 ? 2 : 4),
                         TRM_OK);
        kit_out(&k, TRM_DTYPE_F32, 3, (const int64_t[]){2, bad == 1 ? 1 : 5, 2});
        ck_assert_int_eq(kit_run(&k, TRM_OP_TrmGatherPart),
                         bad == 0 ? TRM_OK : TRM_ERR_INVALID_ARG);
        for (int64_t o = 0; o < 2 && bad == 0; o++)
            for (int64_t i = 0; i < 5; i++)
                for (int64_t d = 0; d < 2; d++)
                    ck_assert_float_eq(((float *)k.out[0].data)[(o * 5 + i) * 2 + d],
                                       held[i] < 0 ? 0 : x[(o * 3 + held[i]) * 2 + d]);
        kit_close(&k);
    }
}
END_TEST

START_TEST(gather_elements)
{
    kit k;
    int64_t index[12];
    const double *x;
    int axis = _i;

    kit_open(&k, TRM_OP_GatherElements);
    x = kit_in_random(&k, TRM_DTYPE_F64, KIT_DIMS(3, 4, 5));
    for (int i = 0; i < 12; i++)
        index[i] = (int64_t)(kit_random(&k) % 6) - 3;
    kit_in(&k, TRM_DTYPE_I64, index, false, KIT_DIMS(2, 3, 2));
    kit_attr_int(&k, "axis", axis);
    kit_out(&k, TRM_DTYPE_F64, KIT_DIMS(2, 3, 2));
    ck_assert_int_eq(kit_run(&k, TRM_OP_GatherElements), TRM_OK);
    for (size_t i = 0; i < 12; i++) {
        int64_t at[3];

        unravel(i, &k.out[0], at);
        at[axis] = index[i] < 0 ? index[i] + k.in[0].dims[axis] : index[i];
        ck_assert_mem_eq((double *)k.out[0].data + i, x + ravel(at, &k.in[0]), 8);
    }
    kit_close(&k);
}
END_TEST

START_TEST(gather_nd)
{
    const int32_t x[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    const int64_t index[2] = {1, 0}, pairs[4] = {0, 1, -1, 0}, bad[2] = {0, 2};
    const int32_t batched[4] = {2, 3, 4, 5}, rows[4] = {2, 3, 4, 5};
    kit k;

    kit_open(&k, TRM_OP_GatherND); /* the specification's examples */
    kit_in(&k, TRM_DTYPE_I32, x, false, KIT_DIMS(2, 2, 2));
    kit_in(&k, TRM_DTYPE_I64, index, false, KIT_DIMS(2, 1));
    kit_attr_int(&k, "batch_dims", 1);
    kit_out(&k, TRM_DTYPE_I32, KIT_DIMS(2, 2));
    ck_assert_int_eq(kit_run(&k, TRM_OP_GatherND), TRM_OK);
    kit_expect_bytes(&k, 0, batched);
    kit_close(&k);
    kit_open(&k, TRM_OP_GatherND);
    kit_in(&k, TRM_DTYPE_I32, x, false, KIT_DIMS(2, 2, 2));
    kit_in(&k, TRM_DTYPE_I64, pairs, false, KIT_DIMS(2, 1, 2));
    kit_out(&k, TRM_DTYPE_I32, KIT_DIMS(2, 1, 2));
    ck_assert_int_eq(kit_run(&k, TRM_OP_GatherND), TRM_OK);
    kit_expect_bytes(&k, 0, rows);
    kit_close(&k);
    kit_open(&k, TRM_OP_GatherND);
    kit_in(&k, TRM_DTYPE_I32, x, false, KIT_DIMS(2, 2, 2));
    kit_in(&k, TRM_DTYPE_I64, bad, false, KIT_DIMS(1, 2));
    kit_out(&k, TRM_DTYPE_I32, KIT_DIMS(1, 2));
    ck_assert_int_eq(kit_run(&k, TRM_OP_GatherND), TRM_ERR_INVALID_ARG);
    kit_close(&k);
}
END_TEST

START_TEST(reshape_copies)
{
    const int64_t shape[2] = {-1, 3};
    const void *x;
    kit k;

    kit_open(&k, TRM_OP_Reshape);
    x = kit_in_random(&k, TRM_DTYPE_I64, KIT_DIMS(40, 50, 3));
    kit_ints(&k, shape, 2);
    kit_out(&k, TRM_DTYPE_I64, KIT_DIMS(2000, 3));
    ck_assert_int_eq(kit_run(&k, TRM_OP_Reshape), TRM_OK);
    kit_expect_bytes(&k, 0, x);
    kit_close(&k);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("data: move");
    TCase *t = tcase_create("move");

    tcase_add_loop_test(t, transpose, 0, (int)(sizeof(transposes) / sizeof(transposes[0])));
    tcase_add_test(t, transpose_bad_perm);
    tcase_add_loop_test(t, slice, 0, (int)(sizeof(slices) / sizeof(slices[0])));
    tcase_add_test(t, slice_step_zero);
    tcase_add_loop_test(t, concat_and_split, 0, 32);
    tcase_add_test(t, concat_odd_channels_go_plain);
    tcase_add_test(t, expand_and_tile);
    tcase_add_loop_test(t, depth_to_space_round_trip, 0, 2);
    tcase_add_test(t, gather);
    tcase_add_test(t, gather_part);
    tcase_add_loop_test(t, gather_elements, 0, 3);
    tcase_add_test(t, gather_nd);
    tcase_add_test(t, reshape_copies);
    suite_add_tcase(s, t);
    return kit_main(s);
}
