/* DFT, STFT, windows and mel weights on the CUDA backend. */
#include "tests/cuda/cuda_kit.h"

static const trm_dtype floats[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16, TRM_DTYPE_F64};

/* The CPU sums in fp64; fp32 here, with an error that grows with the number of factors and the
 * size of the sums, about sqrt(n) for random data of O(1). */
static void tolerate(cuda_case *c, trm_dtype dtype, int64_t n, bool inverse)
{
    double size = inverse ? 1 : sqrt((double)n);

    c->as_f32 = true;
    c->atol = (dtype == TRM_DTYPE_F64 ? 1e-13 : 2e-6) * size;
    c->rtol = dtype == TRM_DTYPE_BF16 ? 0x1p-8 : dtype == TRM_DTYPE_F16 ? 0x1p-11 : 0;
}

static const struct dft_row {
    const char *name;
    int64_t dims[5];
    int axis;
    int64_t length; /* 0: the axis's */
    bool inverse, onesided;
} dft_rows[] = {
    {"16 real", {2, 16, 1, -1}, 1, 0, false, false},
    {"16 complex", {2, 16, 2, -1}, 1, 0, false, false},
    {"one", {3, 1, 2, -1}, 1, 0, false, false},
    {"prime", {2, 13, 1, -1}, -2, 0, false, true},
    {"two, three, five", {1, 60, 2, -1}, 1, 0, true, false},
    {"inner axis", {2, 12, 5, 2, -1}, 1, 0, false, false},
    {"last axis", {2, 3, 10, 1, -1}, -2, 0, false, true},
    {"cut", {2, 16, 1, -1}, 1, 10, false, true},
    {"lengthened", {2, 10, 2, -1}, 1, 25, false, false},
    {"back to real", {2, 9, 2, -1}, 1, 0, true, true},
    {"back to an odd length", {2, 9, 2, -1}, 1, 17, true, true},
    {"no series", {0, 16, 1, -1}, 1, 0, false, false},
    {"more than a block", {3, 400, 1, -1}, 1, 0, false, true},
    {"in global memory", {2, 4096, 2, -1}, 1, 0, true, false},
    {"in global memory, odd", {1, 3093, 1, -1}, 1, 0, false, true},
};
#define DFT_ROWS ((int)(sizeof(dft_rows) / sizeof(dft_rows[0])))

START_TEST(dft)
{
    const struct dft_row *row = &dft_rows[_i];

    for (int d = 0; d < 4; d++) {
        trm_dtype dtype = floats[d];
        cuda_case c = {.name = row->name, .op = TRM_OP_DFT, .in_count = 3, .out_count = 1};
        int axis;
        int64_t n;

        c.in[0] = kit_random(kit_tensor(dtype, row->dims), -1, 1);
        axis = row->axis < 0 ? row->axis + c.in[0].rank : row->axis;
        n = row->length > 0                 ? row->length
            : row->inverse && row->onesided ? 2 * (row->dims[axis] - 1)
                                            : row->dims[axis];
        c.attrs = kit_int(kit_int(kit_attrs(), "inverse", row->inverse), "onesided", row->onesided);
        if (row->length > 0)
            c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64), (double)row->length);
        c.in[2] = KIT_V(KIT_T(TRM_DTYPE_I64), row->axis);
        c.known[1] = c.known[2] = true;
        c.out[0] = kit_tensor(dtype, row->dims);
        c.out[0].dims[axis] = row->onesided && !row->inverse ? n / 2 + 1 : n;
        c.out[0].dims[c.out[0].rank - 1] = row->onesided && row->inverse ? 1 : 2;
        tolerate(&c, dtype, n, row->inverse);
        cuda_check(&c);
    }
}
END_TEST

static const struct stft_row {
    const char *name;
    int64_t batch, samples, parts; /* parts 0: rank 2 */
    int64_t step, length;
    bool window, onesided, f32_window, give_length;
} stft_rows[] = {
    {"ordinary", 2, 100, 1, 10, 32, true, true, false, true},
    {"no window", 1, 60, 1, 7, 20, false, true, false, true},
    {"complex", 2, 50, 2, 9, 16, true, false, false, true},
    {"rank 2", 1, 64, 0, 16, 24, true, true, true, false},
    {"one frame", 1, 30, 1, 4, 30, false, false, false, true},
    {"many frames", 3, 300, 1, 2, 25, true, true, true, true},
};
#define STFT_ROWS ((int)(sizeof(stft_rows) / sizeof(stft_rows[0])))

START_TEST(stft)
{
    const struct stft_row *row = &stft_rows[_i];

    for (int d = 0; d < 4; d++) {
        trm_dtype dtype = floats[d];
        cuda_case c = {.name = row->name, .op = TRM_OP_STFT, .in_count = 4, .out_count = 1};

        c.attrs = kit_int(kit_attrs(), "onesided", row->onesided);
        c.in[0] = KIT_T(dtype, row->batch, row->samples, row->parts);
        c.in[0].rank = row->parts == 0 ? 2 : 3;
        c.in[0] = kit_random(c.in[0], -1, 1);
        c.in[1] = KIT_V(KIT_T(TRM_DTYPE_I64), (double)row->step);
        if (row->window)
            c.in[2] = kit_random(KIT_T(row->f32_window ? TRM_DTYPE_F32 : dtype, row->length), 0, 1);
        if (row->give_length)
            c.in[3] = KIT_V(KIT_T(TRM_DTYPE_I64), (double)row->length);
        c.known[1] = c.known[3] = true;
        c.out[0] = KIT_T(dtype, row->batch, (row->samples - row->length) / row->step + 1,
                         row->onesided ? row->length / 2 + 1 : row->length, 2);
        tolerate(&c, dtype, row->length, false);
        cuda_check(&c);
    }
}
END_TEST

START_TEST(windows)
{
    static const trm_op ops[] = {TRM_OP_HannWindow, TRM_OP_HammingWindow, TRM_OP_BlackmanWindow};
    static const int sizes[] = {0, 1, 2, 17, 400};

    for (int s = 0; s < 5; s++) {
        for (int v = 0; v < 8; v++) {
            cuda_case c = {.op = ops[_i], .in_count = 1, .out_count = 1};

            c.attrs = kit_int(kit_int(kit_attrs(), "periodic", v / 4), "output_datatype",
                              trm_dtype_to_onnx(floats[v % 4]));
            c.in[0] = KIT_V(KIT_T(TRM_DTYPE_I64), sizes[s]);
            c.known[0] = true;
            c.out[0] = KIT_T(floats[v % 4], sizes[s]);
            cuda_check(&c);
        }
    }
}
END_TEST

START_TEST(mel)
{
    static const double rows[][5] = {
        {8, 16, 8192, 0, 4096}, {80, 400, 16000, 20, 7600}, {3, 64, 100, 0, 500}};
    const double *row = rows[_i];

    for (int d = 0; d < 4; d++) {
        cuda_case c = {.op = TRM_OP_MelWeightMatrix, .in_count = 5, .out_count = 1};

        c.attrs = kit_int(kit_attrs(), "output_datatype", trm_dtype_to_onnx(floats[d]));
        for (int i = 0; i < 5; i++) {
            c.in[i] = KIT_V(KIT_T(i < 3 ? TRM_DTYPE_I64 : TRM_DTYPE_F32), row[i]);
            c.known[i] = true;
        }
        c.out[0] = KIT_T(floats[d], (int64_t)row[1] / 2 + 1, (int64_t)row[0]);
        cuda_check(&c);
    }
}
END_TEST

START_TEST(refused)
{
    cuda_case c = {.op = TRM_OP_DFT, .in_count = 3, .out_count = 1};

    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, 2, 8, 1), -1, 1);
    c.in[2] = KIT_V(KIT_T(TRM_DTYPE_I64), 2); /* the parts */
    c.known[2] = true;
    c.out[0] = KIT_T(TRM_DTYPE_F32, 2, 8, 2);
    c.want_prepare = TRM_ERR_INVALID_ARG;
    cuda_check(&c);
    c.known[2] = false;
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_I32, 2, 8, 1), -1, 1);
    cuda_check(&c);
    c = (cuda_case){.op = TRM_OP_HannWindow, .in_count = 1, .out_count = 1};
    c.in[0] = KIT_V(KIT_T(TRM_DTYPE_I64), 4);
    c.known[0] = true;
    c.out[0] = KIT_T(TRM_DTYPE_I32, 4);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("signal");

    tcase_add_loop_test(t, dft, 0, DFT_ROWS);
    tcase_add_loop_test(t, stft, 0, STFT_ROWS);
    tcase_add_loop_test(t, windows, 0, 3);
    tcase_add_loop_test(t, mel, 0, 3);
    tcase_add_test(t, refused);
    return kit_main("cuda signal", t);
}
