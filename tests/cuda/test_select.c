/* TopK, NonMaxSuppression, NonZero and Compress of the CUDA backend: exactly what the CPU gives, in
 * its order. */
#include "tests/cuda/cuda_kit.h"

static const trm_dtype all_dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64,
                                       TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16,  TRM_DTYPE_U16,
                                       TRM_DTYPE_I32, TRM_DTYPE_U32, TRM_DTYPE_I64,  TRM_DTYPE_U64,
                                       TRM_DTYPE_BOOL};
#define DTYPES ((int)(sizeof(all_dtypes) / sizeof(all_dtypes[0])))

/* Few distinct values, so that there are ties; floats with NaN, infinities and both zeros. Integers
 * use their whole width. */
static trm_tensor mixed(trm_tensor t)
{
    static const double special[] = {NAN, INFINITY, -INFINITY, -0.0, 0.0, -NAN};
    bool is_float = trm_dtype_is_float(t.dtype);
    int bits = (int)trm_dtype_bytes(t.dtype) * 8;

    t = kit_data(t);
    for (size_t i = 0; i < trm_tensor_numel(&t); i++) {
        double u = kit_uniform(0, 1);

        if (t.dtype == TRM_DTYPE_BOOL)
            trm_tensor_set_i64(&t, i, u < 0.5);
        else if (!is_float)
            trm_tensor_set_i64(&t, i,
                               (int64_t)((uint64_t)(u * 32) << (bits - 5)) +
                                   (i % 3 == 0 ? (int64_t)(u * 7) : 0));
        else if (i % 13 == 5)
            trm_tensor_set_f64(&t, i, special[(size_t)(u * 6)]);
        else
            trm_tensor_set_f64(&t, i, floor(u * 64 - 32) / 8);
    }
    return t;
}

static const struct topk_row {
    const char *name;
    int64_t dims[4]; /* ends at -1 */
    int64_t k;
    int axis;
    bool few_dtypes; /* big: only some dtypes */
} topk_rows[] = {
    {"one element", {1, -1}, 1, 0, false},
    {"none of one", {3, 1, -1}, 0, -1, false},
    {"no lines", {0, 4, -1}, 2, -1, false},
    {"warp a line", {5, 37, -1}, 4, 1, false},
    {"warp a line, k 8 of 8", {2, 8, -1}, 8, -1, false},
    {"thread a line", {2, 9, 33, -1}, 3, 1, false},
    {"warp a line, strided", {2, 70, 3, -1}, 5, -2, false},
    {"whole sort", {3, 100, -1}, 20, 1, false},
    {"whole sort, all of it", {2, 40, 5, -1}, 40, 1, false},
    {"whole sort of 2048", {1, 2048, -1}, 2048, 1, true},
    {"select", {2, 2500, -1}, 300, 1, false},
    {"select, one", {1, 9000, -1}, 1, -1, true},
    {"select, strided", {1, 2100, 2, -1}, 9, 1, true},
    {"select in lines that wrap", {40, 2049, -1}, 9, -1, true},
    {"long sort of all", {2, 2500, -1}, 2500, 1, true},
    {"long sort of some", {1, 5000, 2, -1}, 2100, 1, true},
    {"long sort of more", {1, 9000, -1}, 4500, 1, true},
};
#define TOPK_ROWS ((int)(sizeof(topk_rows) / sizeof(topk_rows[0])))

START_TEST(topk)
{
    const struct topk_row *row = &topk_rows[_i];

    for (int d = 0; d < DTYPES; d++) {
        trm_dtype dtype = all_dtypes[d];

        if (row->few_dtypes && dtype != TRM_DTYPE_F32 && dtype != TRM_DTYPE_BF16 &&
            dtype != TRM_DTYPE_U8 && dtype != TRM_DTYPE_I64)
            continue;
        for (int largest = 0; largest < 2; largest++) {
            cuda_case c = {.name = row->name, .op = TRM_OP_TopK, .in_count = 2, .out_count = 2};
            int axis = row->axis;

            c.attrs = kit_int(kit_int(kit_attrs(), "axis", axis), "largest", largest);
            if (_i % 2 == 0)
                (void)kit_int(c.attrs, "sorted", 0); /* sorted all the same, as on the CPU */
            c.in[0] = mixed(kit_tensor(dtype, row->dims));
            c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), (double)row->k);
            c.known[1] = true;
            c.out[0] = kit_tensor(dtype, row->dims);
            c.out[0].dims[axis < 0 ? axis + c.out[0].rank : axis] = row->k;
            c.out[1] = c.out[0];
            c.out[1].dtype = TRM_DTYPE_I64;
            if (_i % 5 == 4)
                c.out[_i % 2].dtype = TRM_DTYPE_NONE;
            cuda_check(&c);
        }
    }
}
END_TEST

/* All elements equal: the select goes through the digits of the index. */
START_TEST(topk_equal)
{
    cuda_case c = {.name = "all equal", .op = TRM_OP_TopK, .in_count = 2, .out_count = 2};

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 1, 70000), 1, 1);
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), 300);
    c.known[1] = true;
    c.out[0] = KIT_T(TRM_DTYPE_F32, 1, 300);
    c.out[1] = KIT_T(TRM_DTYPE_I64, 1, 300);
    cuda_check(&c);
}
END_TEST

START_TEST(topk_refused)
{
    cuda_case c = {.name = "refused", .op = TRM_OP_TopK, .in_count = 2, .out_count = 2};

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 3, 4), 0, 1);
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), 5);
    c.known[1] = true;
    c.out[0] = KIT_T(TRM_DTYPE_F32, 3, 5);
    c.out[1] = KIT_T(TRM_DTYPE_I64, 3, 5);
    c.want_prepare = TRM_ERR_INVALID_ARG; /* k beyond the axis */
    cuda_check(&c);
    c.known[1] = false;
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c.known[1] = true;
    c.attrs = kit_int(kit_attrs(), "axis", 2);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
}
END_TEST

static const struct nms_row {
    const char *name;
    int batches, classes, boxes;
    int center;
    int64_t most;
    double iou, score;
    int inputs; /* given of the five */
    bool known; /* the parameters are constants */
    bool most_i32;
    double steps; /* distinct scores */
} nms_rows[] = {
    {"one box", 1, 1, 1, 0, 5, 0.5, 0.1, 5, true, false, 1000},
    {"corners", 1, 1, 60, 0, 10, 0.5, 0.2, 5, true, false, 1000},
    {"centers", 2, 3, 50, 1, 10, 0.4, 0.3, 5, true, false, 1000},
    {"run-time parameters", 2, 2, 40, 0, 7, 0.3, 0.5, 5, false, false, 1000},
    {"ties", 1, 2, 90, 0, 90, 0.6, 0, 5, true, true, 4},
    {"no thresholds", 2, 2, 33, 0, 33, 0, 0, 3, false, true, 1000},
    {"no maximum", 1, 2, 20, 0, 0, 0, 0, 2, true, false, 1000},
    {"maximum 0", 1, 2, 20, 0, 0, 0.5, 0.5, 5, true, false, 1000},
    {"negative maximum", 1, 2, 20, 0, -3, 0.5, 0.5, 5, false, false, 1000},
    {"none above the threshold", 1, 2, 20, 0, 5, 0.5, 2, 5, true, false, 1000},
    {"no classes", 1, 0, 20, 0, 5, 0.5, 0.5, 5, true, false, 1000},
    {"no boxes", 2, 2, 0, 0, 5, 0.5, 0.5, 5, true, false, 1000},
    {"more than a block", 1, 2, 700, 0, 700, 0.3, 0.1, 5, false, false, 1000},
    {"more than shared memory", 1, 1, 2500, 1, 2500, 0.2, 0.01, 5, true, false, 50},
    {"nothing overlaps at 1", 1, 1, 300, 0, 300, 1, 0.5, 5, true, false, 20},
    {"many lines", 3, 70, 12, 0, 3, 0.5, 0.2, 5, true, false, 9},
};
#define NMS_ROWS ((int)(sizeof(nms_rows) / sizeof(nms_rows[0])))

static cuda_case nms_case(const struct nms_row *row)
{
    cuda_case c = {.name = row->name, .op = TRM_OP_NonMaxSuppression, .out_count = 1};

    c.in_count = row->inputs;
    c.attrs = kit_int(kit_attrs(), "center_point_box", row->center);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, row->batches, row->boxes, 4), 0, 40);
    if (row->center == 1) /* sizes */
        for (size_t i = 0; i < trm_tensor_numel(&c.in[0]); i++)
            if (i % 4 > 1)
                trm_tensor_set_f64(&c.in[0], i, kit_uniform(0, 12));
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, row->batches, row->classes, row->boxes), 0, 1);
    for (size_t i = 0; i < trm_tensor_numel(&c.in[1]); i++)
        trm_tensor_set_f64(&c.in[1], i,
                           floor(trm_tensor_get_f64(&c.in[1], i) * row->steps) / row->steps);
    c.in[2] = KIT_V(KIT_T(row->most_i32 ? TRM_DTYPE_I32 : TRM_DTYPE_I64, 1), (double)row->most);
    c.in[3] = KIT_V(KIT_T(TRM_DTYPE_F32, 1), row->iou);
    c.in[4] = KIT_V(KIT_T(TRM_DTYPE_F32), row->score);
    for (int i = 2; i < 5; i++)
        c.known[i] = row->known;
    c.out[0] = KIT_T(TRM_DTYPE_I64, 0, 3);
    c.out[0].dims[0] = TRM_DIM_UNKNOWN;
    return c;
}

START_TEST(nms)
{
    cuda_case c = nms_case(&nms_rows[_i]);

    cuda_check(&c);
}
END_TEST

START_TEST(nms_not_numbers)
{
    static const struct nms_row row = {"NaN", 1, 1, 40, 0, 40, 0.5, 0, 4, true, false, 1000};
    cuda_case c = nms_case(&row);

    for (size_t i = 0; i < 40; i += 7) {
        trm_tensor_set_f64(&c.in[1], i, NAN);
        trm_tensor_set_f64(&c.in[0], 4 * i + i % 4, NAN);
    }
    cuda_check(&c);
}
END_TEST

START_TEST(nms_refused)
{
    static const struct nms_row row = {"refused", 1, 1, 4, 0, 4, 0.5, 0, 5, true, false, 1000};
    cuda_case c = nms_case(&row);
    trm_tensor got[CUDA_ARGS];

    c.in[0].dtype = TRM_DTYPE_F16;
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c = nms_case(&row);
    (void)kit_int(c.attrs, "center_point_box", 2);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    for (int boxes = 0; boxes <= 4; boxes += 4) { /* a threshold that is none: known at run only */
        struct nms_row bad = row;

        bad.boxes = boxes;
        bad.iou = 1.5;
        c = nms_case(&bad);
        ck_assert_int_eq(kit_run(&c, kit_gpu, got), TRM_ERR_INVALID_ARG);
    }
}
END_TEST

static const struct nonzero_row {
    const char *name;
    int64_t dims[5];
    double share; /* of elements that are not zero */
} nonzero_rows[] = {
    {"scalar", {-1}, 1},
    {"scalar zero", {-1}, 0},
    {"empty", {3, 0, -1}, 1},
    {"vector", {77, -1}, 0.3},
    {"three dims", {3, 5, 7, -1}, 0.5},
    {"all zero", {2, 9, -1}, 0},
    {"all set", {2, 2, 2, 9, -1}, 1},
    {"a tile and one", {2049, -1}, 0.4},
    {"several tiles", {5, 3000, -1}, 0.05},
};
#define NONZERO_ROWS ((int)(sizeof(nonzero_rows) / sizeof(nonzero_rows[0])))

START_TEST(nonzero)
{
    const struct nonzero_row *row = &nonzero_rows[_i];

    for (int d = 0; d < DTYPES; d++) {
        cuda_case c = {.name = row->name, .op = TRM_OP_NonZero, .in_count = 1, .out_count = 1};

        c.in[0] = kit_data(kit_tensor(all_dtypes[d], row->dims));
        for (size_t i = 0; i < trm_tensor_numel(&c.in[0]); i++) {
            double u = kit_uniform(0, 1);

            trm_tensor_set_f64(&c.in[0], i, u < row->share ? 1 + floor(u * 50) : -0.0);
        }
        c.out[0] = KIT_T(TRM_DTYPE_I64, 1, 0);
        c.out[0].dims[1] = TRM_DIM_UNKNOWN;
        cuda_check(&c);
    }
}
END_TEST

static const struct compress_row {
    const char *name;
    int64_t dims[5];
    int axis; /* 9: none */
    int conditions;
    double share;
} compress_rows[] = {
    {"flat", {3, 5, -1}, 9, 15, 0.5},      {"flat, fewer conditions", {3, 5, -1}, 9, 7, 0.5},
    {"rows", {6, 8, -1}, 0, 6, 0.5},       {"rows of odd length", {6, 7, -1}, 0, 5, 0.7},
    {"columns", {4, 9, -1}, -1, 9, 0.4},   {"the middle", {2, 6, 5, -1}, 1, 6, 0.5},
    {"none kept", {2, 6, -1}, 1, 6, 0},    {"empty", {0, 6, -1}, 1, 6, 0.5},
    {"long", {3, 2500, -1}, 1, 2500, 0.5},
};
#define COMPRESS_ROWS ((int)(sizeof(compress_rows) / sizeof(compress_rows[0])))

START_TEST(compress)
{
    const struct compress_row *row = &compress_rows[_i];

    for (int d = 0; d < DTYPES; d++) {
        cuda_case c = {.name = row->name, .op = TRM_OP_Compress, .in_count = 2, .out_count = 1};

        c.in[0] = mixed(kit_tensor(all_dtypes[d], row->dims));
        c.in[1] = kit_data(KIT_T(TRM_DTYPE_BOOL, row->conditions));
        for (int i = 0; i < row->conditions; i++)
            trm_tensor_set_i64(&c.in[1], (size_t)i, kit_uniform(0, 1) < row->share);
        if (row->axis != 9)
            c.attrs = kit_int(kit_attrs(), "axis", row->axis);
        c.out[0] = KIT_T(all_dtypes[d], 1);
        cuda_check(&c);
    }
}
END_TEST

START_TEST(compress_refused)
{
    cuda_case c = {.name = "refused", .op = TRM_OP_Compress, .in_count = 2, .out_count = 1};

    c.in[0] = mixed(KIT_T(TRM_DTYPE_F32, 3, 4));
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_BOOL, 5), 0, 2);
    c.attrs = kit_int(kit_attrs(), "axis", 1);
    c.out[0] = KIT_T(TRM_DTYPE_F32, 1);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("select");

    tcase_add_loop_test(t, topk, 0, TOPK_ROWS);
    tcase_add_test(t, topk_equal);
    tcase_add_test(t, topk_refused);
    tcase_add_loop_test(t, nms, 0, NMS_ROWS);
    tcase_add_test(t, nms_not_numbers);
    tcase_add_test(t, nms_refused);
    tcase_add_loop_test(t, nonzero, 0, NONZERO_ROWS);
    tcase_add_loop_test(t, compress, 0, COMPRESS_ROWS);
    tcase_add_test(t, compress_refused);
    return kit_main("cuda select", t);
}
