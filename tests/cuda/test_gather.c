/* Gathers and scatters on the CUDA device, equal to the CPU's to the bit; indices out of range read
 * and write nothing. */
#include "tests/cuda/cuda_kit.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

static const trm_dtype widths[] = {TRM_DTYPE_U8, TRM_DTYPE_F16, TRM_DTYPE_F32, TRM_DTYPE_I64};

static trm_tensor shaped(trm_dtype dtype, int rank, const int64_t *dims)
{
    trm_tensor t = {.dtype = dtype, .rank = rank};

    memcpy(t.dims, dims, (size_t)rank * sizeof(*dims));
    return t;
}

static trm_dtype index_dtype(int i)
{
    return i % 2 == 0 ? TRM_DTYPE_I64 : TRM_DTYPE_I32;
}

/* ---- Gather ---- */

static const struct {
    const char *name;
    int rank, axis, index_rank;
    int64_t dims[4], index[3];
} gathers[] = {
    {"embedding", 2, 0, 2, {50, 64}, {2, 9}},      {"odd rows", 2, 0, 1, {50, 7}, {13}},
    {"one element rows", 2, 1, 1, {6, 40}, {300}}, {"a scalar", 3, 1, 0, {2, 5, 8}, {0}},
    {"middle", 3, -2, 2, {3, 7, 12}, {2, 3}},      {"vector", 1, 0, 3, {9}, {2, 3, 4}},
    {"no indices", 2, 0, 1, {5, 8}, {0}},          {"no rows", 3, 1, 1, {0, 5, 8}, {3}},
    {"wide rows", 2, 0, 1, {5, 3000}, {4}},
};

START_TEST(test_gather)
{
    for (int w = 0; w < 8; w++) {
        int rank = gathers[_i].rank, n = 0;
        int axis = gathers[_i].axis < 0 ? gathers[_i].axis + rank : gathers[_i].axis;
        int64_t limit = gathers[_i].dims[axis];
        cuda_case c = {.name = gathers[_i].name,
                       .op = TRM_OP_Gather,
                       .attrs = kit_int(kit_attrs(), "axis", gathers[_i].axis),
                       .in_count = 2,
                       .out_count = 1,
                       .known = {false, w % 3 == 0}};

        c.in[0] = kit_random(shaped(widths[w % 4], rank, gathers[_i].dims), 0, 120);
        c.in[1] = kit_random(shaped(index_dtype(w / 4), gathers[_i].index_rank, gathers[_i].index),
                             (double)-limit, (double)limit);
        c.out[0] = (trm_tensor){.dtype = widths[w % 4]};
        for (int i = 0; i < rank; i++) {
            for (int j = 0; j < gathers[_i].index_rank && i == axis; j++)
                c.out[0].dims[n++] = gathers[_i].index[j];
            if (i != axis)
                c.out[0].dims[n++] = gathers[_i].dims[i];
        }
        c.out[0].rank = n;
        cuda_check(&c);
    }
}
END_TEST

START_TEST(test_gather_part)
{
    static const struct {
        int64_t ranges[4], held;
        size_t count;
    } rows[] = {{{0, 5}, 5, 2}, {{5, 11}, 6, 2}, {{2, 4, 9, 11}, 4, 4}, {{3, 3}, 0, 2}};

    for (int w = 0; w < 8; w++) {
        cuda_case c = {.op = TRM_OP_TrmGatherPart,
                       .attrs = kit_int(kit_int(kit_attrs(), "axis", 1), "extent", 11),
                       .in_count = 2,
                       .out_count = 1};

        kit_ints(c.attrs, "ranges", rows[_i].ranges, rows[_i].count);
        c.in[0] = kit_random(KIT_T(widths[w % 4], 2, rows[_i].held, 6), 1, 120);
        c.in[1] = kit_random(KIT_T(index_dtype(w / 4), 20), -11, 11);
        c.out[0] = KIT_T(widths[w % 4], 2, 20, 6);
        cuda_check(&c);
    }
}
END_TEST

/* ---- GatherElements, GatherND ---- */

static const struct {
    const char *name;
    int rank, axis;
    int64_t dims[4], index[4];
} elements[] = {
    {"last axis", 2, 1, {5, 9}, {5, 4}},          {"first axis", 2, 0, {5, 9}, {8, 9}},
    {"shorter", 3, -2, {4, 5, 6}, {3, 7, 2}},     {"vector", 1, 0, {12}, {7000}},
    {"rank 4", 4, 2, {2, 3, 4, 5}, {2, 3, 6, 5}}, {"empty", 2, 0, {5, 9}, {0, 9}},
};

START_TEST(test_gather_elements)
{
    int rank = elements[_i].rank, axis = elements[_i].axis;
    int64_t limit = elements[_i].dims[axis < 0 ? axis + rank : axis];

    for (int w = 0; w < 4; w++) {
        cuda_case c = {.name = elements[_i].name,
                       .op = TRM_OP_GatherElements,
                       .attrs = kit_int(kit_attrs(), "axis", axis),
                       .in_count = 2,
                       .out_count = 1};

        c.in[0] = kit_random(shaped(widths[w], rank, elements[_i].dims), 0, 120);
        c.in[1] = kit_random(shaped(index_dtype(w), rank, elements[_i].index), (double)-limit,
                             (double)limit);
        c.out[0] = shaped(widths[w], rank, elements[_i].index);
        cuda_check(&c);
    }
}
END_TEST

static const struct {
    const char *name;
    int rank, index_rank, out_rank, batch;
    int64_t dims[4], index[4], out[4];
    double limit; /* of all indices */
} nds[] = {
    {"points", 2, 2, 1, 0, {5, 9}, {7, 2}, {7}, 5},
    {"rows", 2, 2, 2, 0, {5, 16}, {7, 1}, {7, 16}, 5},
    {"odd rows", 3, 3, 3, 0, {5, 6, 3}, {2, 3, 2}, {2, 3, 3}, 5},
    {"batched", 3, 3, 3, 1, {2, 6, 8}, {2, 3, 1}, {2, 3, 8}, 6},
    {"batched twice", 4, 3, 3, 2, {2, 3, 4, 5}, {2, 3, 1}, {2, 3, 5}, 4},
    {"batched points", 3, 2, 1, 1, {4, 5, 6}, {4, 2}, {4}, 5},
    {"none", 2, 2, 1, 0, {5, 9}, {0, 2}, {0}, 5},
    {"many", 2, 2, 2, 0, {5, 20}, {400, 1}, {400, 20}, 5},
};

START_TEST(test_gather_nd)
{
    for (int w = 0; w < 4; w++) {
        cuda_case c = {.name = nds[_i].name,
                       .op = TRM_OP_GatherND,
                       .attrs = kit_int(kit_attrs(), "batch_dims", nds[_i].batch),
                       .in_count = 2,
                       .out_count = 1,
                       .known = {false, w == 1}};

        c.in[0] = kit_random(shaped(widths[w], nds[_i].rank, nds[_i].dims), 0, 120);
        c.in[1] = kit_random(shaped(index_dtype(w), nds[_i].index_rank, nds[_i].index),
                             -nds[_i].limit, nds[_i].limit);
        c.out[0] = shaped(widths[w], nds[_i].out_rank, nds[_i].out);
        cuda_check(&c);
    }
}
END_TEST

/* ---- scatters ---- */

static const char *const reductions[] = {"none", "add", "mul", "max", "min"};
static const trm_dtype scattered[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64,
                                      TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16,  TRM_DTYPE_U16,
                                      TRM_DTYPE_I32, TRM_DTYPE_U32, TRM_DTYPE_I64,  TRM_DTYPE_U64,
                                      TRM_DTYPE_BOOL};
#define SCATTERED COUNT(scattered)

/* A value range that makes the order of additions and integers' overflow visible. */
static trm_tensor scatter_values(trm_tensor t)
{
    if (t.dtype == TRM_DTYPE_BOOL)
        return kit_random(t, 0, 2);
    if (t.dtype == TRM_DTYPE_I32 || t.dtype == TRM_DTYPE_I64)
        return kit_random(t, -2e9, 2e9);
    if (trm_dtype_is_unsigned_int(t.dtype))
        return kit_random(t, 0, 255);
    return kit_random(t, -100, 100);
}

static const struct {
    const char *name;
    int rank, axis;
    int64_t dims[3], index[3];
    double limit; /* indices are in [-limit, limit) */
} scatters[] = {
    {"last axis", 2, 1, {4, 9}, {4, 5}, 9},     {"repeated", 2, 0, {9, 4}, {20, 3}, 2},
    {"all to one", 1, 0, {5}, {90}, 0.5},       {"long lists", 1, 0, {60}, {300}, 5},
    {"rank 3", 3, -2, {3, 5, 6}, {2, 9, 6}, 5}, {"empty", 2, 1, {4, 9}, {4, 0}, 9},
    {"wide", 2, 1, {2, 4000}, {2, 3300}, 4000},
};

START_TEST(test_scatter_elements)
{
    for (int w = 0; w < SCATTERED; w++) {
        for (int r = 0; r < 5; r++) {
            cuda_case c = {.name = scatters[_i].name,
                           .op = TRM_OP_ScatterElements,
                           .attrs = kit_int(kit_attrs(), "axis", scatters[_i].axis),
                           .in_count = 3,
                           .out_count = 1};

            if (scatters[_i].index[1] > 1000 && (w % 5 != 0 || r > 1))
                continue;
            kit_string(c.attrs, "reduction", reductions[r]);
            c.in[0] = scatter_values(shaped(scattered[w], scatters[_i].rank, scatters[_i].dims));
            c.in[1] = kit_random(shaped(index_dtype(w), scatters[_i].rank, scatters[_i].index),
                                 -scatters[_i].limit, scatters[_i].limit);
            c.in[2] = scatter_values(shaped(scattered[w], scatters[_i].rank, scatters[_i].index));
            c.out[0] = c.in[0];
            c.out[0].data = NULL;
            cuda_check(&c);
        }
    }
}
END_TEST

static const struct {
    const char *name;
    int rank, index_rank, update_rank;
    int64_t dims[3], index[3], updates[3];
    double limit;
} scatter_nds[] = {
    {"points", 2, 2, 1, {5, 6}, {9, 2}, {9}, 5},
    {"rows", 2, 2, 2, {5, 16}, {9, 1}, {9, 16}, 5},
    {"odd rows", 3, 3, 3, {5, 6, 3}, {2, 5, 2}, {2, 5, 3}, 2},
    {"one row", 2, 2, 2, {5, 16}, {1, 1}, {1, 16}, 5},
    {"all to one", 2, 2, 2, {5, 3}, {60, 1}, {60, 3}, 0.5},
    {"none", 2, 2, 2, {5, 16}, {0, 1}, {0, 16}, 5},
    {"wide rows", 2, 2, 2, {4, 1700}, {6, 1}, {6, 1700}, 3},
};

START_TEST(test_scatter_nd)
{
    for (int w = 0; w < SCATTERED; w++) {
        for (int r = 0; r < 5; r++) {
            cuda_case c = {.name = scatter_nds[_i].name,
                           .op = TRM_OP_ScatterND,
                           .attrs = kit_string(kit_attrs(), "reduction", reductions[r]),
                           .in_count = 3,
                           .out_count = 1,
                           .known = {false, w % 3 == 0}};

            if (scatter_nds[_i].dims[1] > 1000 && (w % 5 != 0 || r > 1))
                continue;
            c.in[0] =
                scatter_values(shaped(scattered[w], scatter_nds[_i].rank, scatter_nds[_i].dims));
            c.in[1] = kit_random(
                shaped(index_dtype(w), scatter_nds[_i].index_rank, scatter_nds[_i].index),
                -scatter_nds[_i].limit, scatter_nds[_i].limit);
            c.in[2] = scatter_values(
                shaped(scattered[w], scatter_nds[_i].update_rank, scatter_nds[_i].updates));
            c.out[0] = c.in[0];
            c.out[0].data = NULL;
            cuda_check(&c);
        }
    }
}
END_TEST

START_TEST(test_tensor_scatter)
{
    static const struct {
        const char *name, *mode;
        int64_t length, rows, inner, axis;
        bool with_index;
        double high; /* of the write indices */
    } rows[] = {
        {"linear", "linear", 12, 3, 8, -2, true, 9.5},
        {"at the end", "linear", 12, 12, 3, 2, true, 0.5},
        {"circular", "circular", 12, 5, 8, -2, true, 12},
        {"whole circle", "circular", 7, 7, 3, -2, true, 7},
        {"no index", "linear", 12, 4, 8, -2, false, 0},
        {"last axis", "circular", 12, 1, 5, 3, true, 5},
        {"no rows", "linear", 12, 0, 8, -2, true, 12},
    };

    for (int w = 0; w < 4; w++) {
        cuda_case c = {.name = rows[_i].name,
                       .op = TRM_OP_TensorScatter,
                       .attrs = kit_string(kit_attrs(), "mode", rows[_i].mode),
                       .in_count = rows[_i].with_index ? 3 : 2,
                       .out_count = 1};
        trm_tensor update = KIT_T(widths[w], 3, 2, rows[_i].length, rows[_i].inner);

        kit_int(c.attrs, "axis", rows[_i].axis);
        c.in[0] = kit_random(update, 0, 120);
        update.dims[rows[_i].axis < 0 ? rows[_i].axis + 4 : rows[_i].axis] = rows[_i].rows;
        c.in[1] = kit_random(update, 0, 120);
        c.in[2] = kit_random(KIT_T(index_dtype(w), 3), 0, rows[_i].high);
        c.out[0] = c.in[0];
        c.out[0].data = NULL;
        cuda_check(&c);
    }
}
END_TEST

/* ---- indices out of range: nothing is read or written; the rest is as it should be ---- */

/* Runs the case on the CUDA device only. */
static trm_tensor run_only(cuda_case *c)
{
    trm_tensor results[CUDA_ARGS];

    KIT_OK(kit_run(c, kit_gpu, results));
    return results[0];
}

START_TEST(test_out_of_range)
{
    static const double bad[] = {5, -6, 1e9, -1e9};
    cuda_case c = {.attrs = kit_attrs(), .in_count = 2, .out_count = 1};
    trm_tensor got;

    c.in[0] = KIT_V(KIT_T(TRM_DTYPE_F32, 5), 1, 2, 3, 4, 5);
    c.in[1] = KIT_V(KIT_T(index_dtype(_i), 3), 4, bad[_i / 2], -5);
    c.known[1] = _i % 4 == 0;
    c.out[0] = KIT_T(TRM_DTYPE_F32, 3);
    for (int op = 0; op < 3; op++) {
        c.op = op == 0 ? TRM_OP_Gather : op == 1 ? TRM_OP_GatherElements : TRM_OP_GatherND;
        c.in[1].rank = op == 2 ? 2 : 1;
        c.in[1].dims[1] = 1;
        got = run_only(&c);
        ck_assert_double_eq(trm_tensor_get_f64(&got, 0), 5);
        ck_assert_double_eq(trm_tensor_get_f64(&got, 1), 0);
        ck_assert_double_eq(trm_tensor_get_f64(&got, 2), 1);
    }
    c.in[2] = KIT_V(KIT_T(TRM_DTYPE_F32, 3), 10, 20, 30);
    c.in_count = 3;
    c.out[0] = KIT_T(TRM_DTYPE_F32, 5);
    for (int op = 0; op < 4; op++) {
        c.op = op < 2 ? TRM_OP_ScatterElements : TRM_OP_ScatterND;
        c.in[1].rank = op < 2 ? 1 : 2;
        kit_string(c.attrs, "reduction", op % 2 == 0 ? "none" : "add");
        got = run_only(&c);
        ck_assert_double_eq(trm_tensor_get_f64(&got, 0), op % 2 == 0 ? 30 : 31);
        ck_assert_double_eq(trm_tensor_get_f64(&got, 1), 2);
        ck_assert_double_eq(trm_tensor_get_f64(&got, 2), 3);
        ck_assert_double_eq(trm_tensor_get_f64(&got, 3), 4);
        ck_assert_double_eq(trm_tensor_get_f64(&got, 4), op % 2 == 0 ? 10 : 15);
    }
}
END_TEST

START_TEST(test_tensor_scatter_out_of_range)
{
    cuda_case c = {.op = TRM_OP_TensorScatter, .attrs = kit_attrs(), .in_count = 3, .out_count = 1};
    trm_tensor got;

    kit_string(c.attrs, "mode", _i == 0 ? "linear" : "circular");
    c.in[0] = KIT_V(KIT_T(TRM_DTYPE_F32, 2, 3, 1), 1, 2, 3, 4, 5, 6);
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_F32, 2, 2, 1), 10, 20, 30, 40);
    c.in[2] = KIT_V(KIT_T(TRM_DTYPE_I64, 2), _i == 0 ? 2 : 3, 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 2, 3, 1);
    got = run_only(&c);
    for (size_t i = 0; i < 6; i++)
        ck_assert_double_eq(trm_tensor_get_f64(&got, i), ((const double[]){1, 2, 3, 4, 30, 40})[i]);
}
END_TEST

/* ---- refused ---- */

START_TEST(test_refused)
{
    static const struct {
        trm_op op;
        trm_dtype index, updates;
        int64_t axis;
        const char *reduction;
        trm_status want;
    } rows[] = {
        {TRM_OP_Gather, TRM_DTYPE_F32, TRM_DTYPE_F32, 0, "none", TRM_ERR_INVALID_ARG},
        {TRM_OP_Gather, TRM_DTYPE_I64, TRM_DTYPE_F32, 2, "none", TRM_ERR_INVALID_ARG},
        {TRM_OP_GatherElements, TRM_DTYPE_U8, TRM_DTYPE_F32, 0, "none", TRM_ERR_INVALID_ARG},
        {TRM_OP_ScatterElements, TRM_DTYPE_I64, TRM_DTYPE_F16, 0, "none", TRM_ERR_INVALID_ARG},
        {TRM_OP_ScatterElements, TRM_DTYPE_I64, TRM_DTYPE_F32, 0, "xor", TRM_ERR_UNSUPPORTED},
        {TRM_OP_ScatterND, TRM_DTYPE_I64, TRM_DTYPE_F32, 0, "sum", TRM_ERR_INVALID_ARG},
        {TRM_OP_TrmGatherPart, TRM_DTYPE_I64, TRM_DTYPE_F32, 0, "none", TRM_ERR_INVALID_ARG},
    };
    cuda_case c = {.op = rows[_i].op,
                   .attrs = kit_int(kit_attrs(), "axis", rows[_i].axis),
                   .in_count = _i == 6 || _i < 3 ? 2 : 3,
                   .out_count = 1,
                   .want_prepare = rows[_i].want};

    kit_string(c.attrs, "reduction", rows[_i].reduction);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 3, 3), 0, 1);
    c.in[1] = kit_random(KIT_T(rows[_i].index, 3, 3), 0, 1);
    c.in[2] = kit_random(KIT_T(rows[_i].updates, 3, 3), 0, 1);
    c.out[0] = _i == 0 || _i == 6 ? KIT_T(TRM_DTYPE_F32, 3, 3, 3) : KIT_T(TRM_DTYPE_F32, 3, 3);
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("gather");

    tcase_add_loop_test(t, test_gather, 0, COUNT(gathers));
    tcase_add_loop_test(t, test_gather_part, 0, 4);
    tcase_add_loop_test(t, test_gather_elements, 0, COUNT(elements));
    tcase_add_loop_test(t, test_gather_nd, 0, COUNT(nds));
    tcase_add_loop_test(t, test_scatter_elements, 0, COUNT(scatters));
    tcase_add_loop_test(t, test_scatter_nd, 0, COUNT(scatter_nds));
    tcase_add_loop_test(t, test_tensor_scatter, 0, 7);
    tcase_add_loop_test(t, test_out_of_range, 0, 8);
    tcase_add_loop_test(t, test_tensor_scatter_out_of_range, 0, 2);
    tcase_add_loop_test(t, test_refused, 0, 7);
    return kit_main("cuda/gather", t);
}
