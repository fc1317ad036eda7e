/* CumSum, CumProd, losses and determinants on the CUDA device against the CPU device. */
#include "tests/cuda/cuda_kit.h"

#define ROWS(a) (int)(sizeof(a) / sizeof((a)[0]))

static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64,
                                   TRM_DTYPE_I8,  TRM_DTYPE_U8,  TRM_DTYPE_I16,  TRM_DTYPE_U16,
                                   TRM_DTYPE_I32, TRM_DTYPE_U32, TRM_DTYPE_I64,  TRM_DTYPE_U64};

/* everything in f64 on both sides, rounded once: half an ulp more or less where the order of
 * additions shows */
static void tolerate(cuda_case *c, trm_dtype dtype)
{
    c->rtol = dtype == TRM_DTYPE_F64    ? 1e-12
              : dtype == TRM_DTYPE_F32  ? 0x1p-23
              : dtype == TRM_DTYPE_F16  ? 0x1p-10
              : dtype == TRM_DTYPE_BF16 ? 0x1p-7
                                        : 0;
    c->atol = trm_dtype_is_float(dtype) ? 1e-13 : 0;
}

typedef struct scan_row {
    const char *name;
    int64_t dims[TRM_RANK_MAX + 1];
    int64_t axis;
    bool last;
} scan_row;

static const scan_row scan_rows[] = {
    {"scalar", {-1}, 0, .last = false},
    {"a vector", {37, -1}, 0, .last = false},
    {"rows", {19, 300, -1}, -1, .last = false},
    {"columns", {21, 40, -1}, 0, .last = false},
    {"few columns", {300, 3, -1}, 0, .last = false},
    {"the middle", {3, 9, 50, -1}, 1, .last = false},
    {"a long row", {2, 5003, -1}, 1, .last = false},
    {"a long row, strided", {2500, 2, -1}, 0, .last = false},
    {"channels, channels last", {2, 6, 3, 5, -1}, 1, .last = true},
    {"lines, channels last", {2, 6, 3, 5, -1}, 2, .last = true},
    {"no elements", {3, 0, 2, -1}, 1, .last = false},
    {"no rows", {0, 5, -1}, 1, .last = false},
};

START_TEST(test_scan)
{
    const scan_row *s = &scan_rows[_i];

    for (int t = 0; t < ROWS(dtypes); t++)
        for (int variant = 0; variant < 8; variant++) {
            trm_tensor in = kit_tensor(dtypes[t], s->dims);
            bool product = (variant & 4) != 0, is_float = trm_dtype_is_float(dtypes[t]);
            double lo = is_float ? 0.97 : trm_dtype_is_signed_int(dtypes[t]) ? -3 : 0;
            char name[128];
            cuda_case c = {.op = product ? TRM_OP_CumProd : TRM_OP_CumSum,
                           .name = name,
                           .in_count = 2,
                           .out_count = 1};

            snprintf(name, sizeof(name), "%s of %s: %s, variant %d", trm_op_get(c.op)->name,
                     trm_dtype_name(dtypes[t]), s->name, variant);
            c.attrs = kit_int(kit_attrs(), "exclusive", variant & 1);
            kit_int(c.attrs, "reverse", variant >> 1 & 1);
            c.in[0] = kit_random(in, lo, is_float ? 1.03 : 4);
            c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), (double)s->axis);
            c.known[1] = true;
            c.out[0] = in;
            c.arrives[0] = s->last ? TRM_LAYOUT_CHANNELS_LAST : TRM_LAYOUT_PLAIN;
            tolerate(&c, dtypes[t]);
            cuda_check(&c);
        }
}
END_TEST

typedef struct loss_row {
    const char *name;
    int64_t dims[TRM_RANK_MAX + 1];
} loss_row;

static const loss_row loss_rows[] = {
    {"vectors", {5, 7, -1}},           {"many classes", {3, 300, -1}}, {"images", {2, 5, 6, 7, -1}},
    {"few positions", {2, 40, 3, -1}}, {"one class", {3, 1, -1}},      {"many", {300, 3, -1}},
};

START_TEST(test_loss)
{
    const loss_row *s = &loss_rows[_i];

    for (int t = 0; t < 4; t++)
        for (int variant = 0; variant < 24; variant++) {
            static const char *const reductions[] = {"none", "sum", "mean"};
            trm_tensor x = kit_tensor(dtypes[t], s->dims), target = {.dtype = TRM_DTYPE_I64};
            bool softmax = (variant & 1) != 0, weights = (variant & 2) != 0;
            bool ignore = (variant & 4) != 0;
            char name[128];
            cuda_case c = {.op = softmax ? TRM_OP_SoftmaxCrossEntropyLoss
                                         : TRM_OP_NegativeLogLikelihoodLoss,
                           .name = name,
                           .in_count = weights ? 3 : 2,
                           .out_count = softmax ? 2 : 1};

            snprintf(name, sizeof(name), "%s of %s: %s, variant %d", trm_op_get(c.op)->name,
                     trm_dtype_name(dtypes[t]), s->name, variant);
            if (t % 2 == 1)
                target.dtype = TRM_DTYPE_I32;
            target.dims[target.rank++] = x.dims[0];
            for (int d = 2; d < x.rank; d++)
                target.dims[target.rank++] = x.dims[d];
            c.attrs = kit_string(kit_attrs(), "reduction", reductions[variant >> 3]);
            if (ignore)
                kit_int(c.attrs, "ignore_index", x.dims[1] > 1 ? 1 : -7);
            c.in[0] = kit_random(x, -3, 3);
            c.in[1] = kit_random(target, 0, (double)x.dims[1]);
            if (ignore && x.dims[1] == 1) /* outside the classes, but ignored */
                trm_tensor_set_i64(&c.in[1], 0, -7);
            c.in[2] = kit_random(KIT_T(dtypes[t], x.dims[1]), 0.5, 2);
            c.out[0] = variant >> 3 == 0 ? target : KIT_T(dtypes[t]);
            c.out[0].dtype = dtypes[t];
            c.out[1] = x;
            tolerate(&c, dtypes[t]);
            c.atol = c.rtol; /* of values of about 1 */
            cuda_check(&c);
        }
}
END_TEST

typedef struct det_row {
    const char *name;
    int64_t dims[TRM_RANK_MAX + 1];
    bool singular;
} det_row;

static const det_row det_rows[] = {
    {"one", {1, 1, -1}, .singular = false},
    {"2 x 2", {2, 2, -1}, .singular = false},
    {"batch", {2, 3, 5, 5, -1}, .singular = false},
    {"33", {2, 33, 33, -1}, .singular = false},
    {"70, in the workspace", {2, 70, 70, -1}, .singular = false},
    {"singular", {3, 6, 6, -1}, .singular = true},
    {"0 x 0", {2, 0, 0, -1}, .singular = false},
    {"none", {0, 3, 3, -1}, .singular = false},
};

START_TEST(test_det)
{
    const det_row *s = &det_rows[_i];

    for (int t = 0; t < 4; t++) {
        trm_tensor in = kit_tensor(dtypes[t], s->dims);
        size_t n = (size_t)in.dims[in.rank - 1];
        cuda_case c = {.op = TRM_OP_Det, .name = s->name, .in_count = 1, .out_count = 1};

        c.in[0] = kit_random(in, -0.5, 0.5);
        for (size_t m = 0; n > 0 && m < trm_tensor_numel(&in) / (n * n); m++)
            for (size_t i = 0; i < n; i++) {
                trm_tensor_set_f64(&c.in[0], m * n * n + i * n + (i + 1) % n,
                                   1.5); /* pivots move */
                if (s->singular)
                    trm_tensor_set_f64(&c.in[0], m * n * n + i * n + 2, 0);
            }
        c.out[0] = in;
        c.out[0].rank = in.rank - 2;
        tolerate(&c, dtypes[t]);
        c.rtol += 1e-9; /* products and quotients without the compiler's fused forms */
        cuda_check(&c);
    }
}
END_TEST

START_TEST(test_refused)
{
    cuda_case c = {.op = TRM_OP_CumSum, .in_count = 2, .out_count = 1};

    c.attrs = kit_attrs();
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 3), 0, 1);
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), 1);
    c.out[0] = c.in[0];
    c.name = "axis not known";
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c.name = "axis out of range";
    c.known[1] = true;
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), -3);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c.name = "no square matrix";
    c.op = TRM_OP_Det;
    c.in_count = 1;
    c.out[0] = KIT_T(TRM_DTYPE_F32);
    cuda_check(&c);
    c.name = "targets do not fit";
    c.op = TRM_OP_NegativeLogLikelihoodLoss;
    c.in_count = 2;
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_I64, 3), 0, 3);
    cuda_check(&c);
    c.name = "float targets";
    c.in[1] = kit_random(KIT_T(TRM_DTYPE_F32, 2), 0, 3);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c.name = "sums of bool";
    c.op = TRM_OP_CumSum;
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_BOOL, 2, 3), 0, 2);
    c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64, 1), 1);
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("scan");

    tcase_add_loop_test(t, test_scan, 0, ROWS(scan_rows));
    tcase_add_loop_test(t, test_loss, 0, ROWS(loss_rows));
    tcase_add_loop_test(t, test_det, 0, ROWS(det_rows));
    tcase_add_test(t, test_refused);
    return kit_main("cuda scan", t);
}
