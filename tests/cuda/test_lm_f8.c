/* The CUDA backend's products with fp8 weights: against sums in double precision; every e4m3
 * number; that a row's bits do not depend on the rows beside it or on how features and leaves are
 * dealt out; several weights and experts in one launch; and cuBLASLt's products, where sums may
 * have any order and rows are rounded to e4m3, too. */
#include "tests/cuda/lm_linear_kit.h"

#define ROW TRM_DTYPE_F8_ROW
#define B128 TRM_DTYPE_F8_128

static const struct kind f8_kinds[] = {{"f8_row exact", ROW, F32},
                                       {"f8_128 exact", B128, F32},
                                       {"f8_row", ROW, BF16},
                                       {"f8_128", B128, BF16}};
#define F8_KINDS (int)(sizeof(f8_kinds) / sizeof(f8_kinds[0]))

static double e4m3(unsigned char b)
{
    int e = b >> 3 & 15, m = b & 7;
    double x = (b & 0x7f) == 0x7f ? NAN : e == 0 ? m * 0x1p-9 : ldexp(1.0 + m / 8.0, e - 7);

    return (b & 0x80) != 0 ? -x : x;
}

static unsigned char *block_at(trm_tensor w, int64_t row, int64_t k)
{
    int64_t elems = (int64_t)trm_dtype_block_elems(w.dtype);

    return (unsigned char *)w.data +
           (size_t)(row * (w.dims[1] / elems) + k / elems) * trm_dtype_block_bytes(w.dtype);
}

static double element(trm_tensor w, int64_t row, int64_t k)
{
    const unsigned char *b = block_at(w, row, k);
    float scale;

    memcpy(&scale, b, sizeof(scale));
    return (double)scale * e4m3(b[sizeof(scale) + (size_t)k % trm_dtype_block_elems(w.dtype)]);
}

/* Any bytes but NaN; scales that make the greatest of them `most`, or a half of it. */
static trm_tensor weight(trm_dtype dtype, int64_t n, int64_t k, double most)
{
    trm_tensor w = kit_data(KIT_T(dtype, n, k));
    int64_t elems = (int64_t)trm_dtype_block_elems(dtype);

    for (int64_t r = 0; r < n; r++) {
        float scale = 0.0f;

        for (int64_t at = 0; at < k; at += elems) {
            unsigned char *b = block_at(w, r, at);

            if (at == 0 || dtype == B128)
                scale = (float)(most / 448.0 * kit_uniform(0.5, 1.0));
            memcpy(b, &scale, sizeof(scale));
            for (int64_t i = 0; i < elems; i++) {
                unsigned char v = (unsigned char)kit_uniform(0.0, 256.0);

                b[sizeof(scale) + (size_t)i] = (v & 0x7f) == 0x7f ? 0 : v;
            }
        }
    }
    return w;
}

static float act_of(float x, trm_dtype act)
{
    return act == BF16 ? trm_bf16_to_f32(trm_f32_to_bf16(x)) : x;
}

/* `share` of the sum of magnitudes may be off */
static void check_sums(const char *name, trm_dtype act, trm_tensor x, trm_tensor w,
                       const trm_tensor *bias, const float *got, double share)
{
    int64_t m = x.dims[0], k = x.dims[1], n = w.dims[0];
    double *rows = kit_data(KIT_T(TRM_DTYPE_F64, n, k)).data;

    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < k; i++)
            rows[j * k + i] = element(w, j, i);
    for (int64_t r = 0; r < m; r++)
        for (int64_t j = 0; j < n; j++) {
            double want = bias != NULL ? (double)((const float *)bias->data)[j] : 0.0;
            double all = fabs(want);

            for (int64_t i = 0; i < k; i++) {
                double term =
                    rows[j * k + i] * (double)act_of(((const float *)x.data)[r * k + i], act);

                want += term;
                all += fabs(term);
            }
            ck_assert_msg(fabs((double)got[r * n + j] - want) <= share * all,
                          "%s: [%lld, %lld] is %.9g, want %.9g", name, (long long)r, (long long)j,
                          (double)got[r * n + j], want);
        }
}

/* ---- numbers ---- */

static const struct truth_row {
    const char *name;
    int m, n, k, unit;
    bool biased, free;
} truth_rows[] = {
    {"one block", 1, 1, 128, 0, false, false},
    {"no rows", 0, 5, 128, 0, true, false},
    {"no features", 3, 0, 128, 0, false, false},
    {"nothing to sum", 3, 17, 0, 0, true, false},
    {"nothing to sum, tiles", 9, 17, 0, 0, true, false},
    {"few", 3, 35, 1152, 0, true, false},
    {"tiles", 21, 130, 640, 0, true, false},
    {"many rows", 131, 70, 256, 0, true, false},
    {"units", 3, 20, 1152, 384, true, false},
    {"units, tiles", 40, 20, 1152, 384, false, false},
    {"plain form, few", 2, 35, 384, 0, false, true},
    {"plain form, tiles", 18, 130, 384, 0, true, true},
};
#define TRUTHS (int)(sizeof(truth_rows) / sizeof(truth_rows[0]))

START_TEST(truth)
{
    const struct kind *kind = &f8_kinds[_i % F8_KINDS];
    const struct truth_row *r = &truth_rows[_i / F8_KINDS];
    int k = kind->weight == ROW && r->k > 256 && r->unit == 0 ? r->k - 32 : r->k;
    trm_tensor x = kit_random(KIT_T(F32, r->m, k), -1.0, 1.0);
    trm_tensor w = weight(kind->weight, r->n, k, 1.0);
    trm_tensor bias = kit_random(KIT_T(F32, r->n), -1.0, 1.0), got;
    trm_attrs *attrs = kit_int(attrs_of(kind->act), "unit", r->unit);
    cuda_case c = linear_case(r->name, attrs, x, w, r->biased ? &bias : NULL);

    kit_gpu->order_free = r->free;
    got = run(&c);
    kit_gpu->order_free = false;
    check_sums(r->name, kind->act, x, w, r->biased ? &bias : NULL, got.data, 1e-6);
}
END_TEST

/* Row b of the weight is byte b, once; in both forms, and in each kernel. */
START_TEST(every_number)
{
    static const int counts[] = {1, 4, 5, 17, 40, 66};
    enum { K = 128, AT = 77 };
    const struct kind *kind = &f8_kinds[_i % F8_KINDS];
    int m = counts[_i / F8_KINDS];
    trm_tensor x = kit_data(KIT_T(F32, m, K)), w = weight(kind->weight, 256, K, 1.0);

    for (int i = 0; i < m * K; i++)
        ((float *)x.data)[i] = i % K == AT ? 1.0f : 0.0f;
    for (int b = 0; b < 256; b++) {
        unsigned char *at = block_at(w, b, AT);

        at[sizeof(float) + AT % trm_dtype_block_elems(kind->weight)] = (unsigned char)b;
    }
    for (int free = 0; free < (m <= 64 ? 2 : 1); free++) {
        trm_tensor y;

        kit_gpu->order_free = free != 0;
        y = linear(kind->name, kind->act, x, w, NULL);
        kit_gpu->order_free = false;
        for (int i = 0; i < m * 256; i++) {
            float got = ((float *)y.data)[i], want = (float)element(w, i % 256, AT);

            ck_assert_msg(got == want || (isnan(got) && isnan(want)),
                          "%s, %d rows, byte %02x: %.9g, want %.9g", kind->name, m, i % 256,
                          (double)got, (double)want);
        }
    }
}
END_TEST

/* ---- what bits do not depend on ---- */

START_TEST(rows_do_not_depend)
{
    static const int counts[] = {1, 3, 4, 5, 8, 9, 17, 33, 64, 65, 100};
    enum { N = 40, K = 1152, M = 130 }; /* leaves end inside of blocks of 128, at 576 and 832 */
    const struct kind *kind = &f8_kinds[_i];
    trm_cuda *cuda = (trm_cuda *)kit_gpu;
    int real = cuda->multiprocessors;
    trm_tensor x = kit_random(KIT_T(F32, M, K), -1.0, 1.0);
    trm_tensor w = weight(kind->weight, N, K, 1.0);
    trm_tensor bias = kit_random(KIT_T(F32, N), -1.0, 1.0);
    trm_tensor all = linear(kind->name, kind->act, x, w, &bias);
    const float *want = all.data;

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        int m = counts[i], at = (M - m) * (int)(i % 3) / 2;
        trm_tensor got = linear(kind->name, kind->act, rows_of(x, at, m), w, &bias);
        char what[32];

        snprintf(what, sizeof(what), "%d rows", m);
        same(kind->name, what, got.data, want + at * N, (size_t)m * N);
    }
    cuda->multiprocessors = 1;
    for (int m = M; m >= 6; m /= 4) {
        trm_tensor got = linear(kind->name, kind->act, rows_of(x, 0, m), w, &bias);

        same(kind->name, "a small device", got.data, want, (size_t)m * N);
    }
    cuda->multiprocessors = real;
    kit_gpu->order_free = true;
    for (int m = 1; m <= 20; m += 19) {
        trm_tensor got = linear(kind->name, kind->act, rows_of(x, 0, m), w, &bias);

        same(kind->name, "plain rows", got.data, want, (size_t)m * N);
    }
    kit_gpu->order_free = false;
}
END_TEST

START_TEST(features_do_not_depend)
{
    enum { N = 72, K = 384, CUT = 40 };
    const struct kind *kind = &f8_kinds[_i];
    trm_tensor x = kit_random(KIT_T(F32, 70, K), -1.0, 1.0);
    trm_tensor w = weight(kind->weight, N, K, 1.0);

    for (int m = 3; m <= 70; m += 67) {
        trm_tensor some = rows_of(x, 0, m);
        trm_tensor all = linear(kind->name, kind->act, some, w, NULL);
        trm_tensor left = linear(kind->name, kind->act, some, rows_of(w, 0, CUT), NULL);
        trm_tensor right = linear(kind->name, kind->act, some, rows_of(w, CUT, N - CUT), NULL);

        for (int r = 0; r < m; r++) {
            const float *row = (const float *)all.data + r * N;

            same(kind->name, "left", (float *)left.data + r * CUT, row, CUT);
            same(kind->name, "right", (float *)right.data + r * (N - CUT), row + CUT, N - CUT);
        }
    }
}
END_TEST

static const struct parts_row {
    const char *name;
    int unit, leaves, ranks, m; /* F8_128: leaves of four times the unit, rounded up */
} parts_rows[] = {
    {"two ranks", 96, 11, 2, 3},
    {"three ranks", 32, 11, 3, 20},
    {"five ranks, many rows", 32, 12, 5, 70},
    {"four ranks, one row", 32, 16, 4, 1},
    {"a small device", 32, 13, 2, 33},
};
#define PARTS (int)(sizeof(parts_rows) / sizeof(parts_rows[0]))

START_TEST(leaves_do_not_depend)
{
    enum { N = 24 };
    const struct kind *kind = &f8_kinds[_i % F8_KINDS];
    const struct parts_row *r = &parts_rows[_i / F8_KINDS];
    trm_cuda *cuda = (trm_cuda *)kit_gpu;
    int real = cuda->multiprocessors, count = 0;
    int unit = kind->weight == ROW ? r->unit : 128;
    trm_tensor x = kit_random(KIT_T(F32, r->m, unit * r->leaves), -1.0, 1.0);
    trm_tensor w = weight(kind->weight, N, unit * r->leaves, 1.0);
    trm_attrs *attrs = kit_int(attrs_of(kind->act), "unit", unit);
    cuda_case c = linear_case(r->name, attrs, x, w, NULL);
    trm_tensor whole = run(&c);
    size_t elems = trm_tensor_numel(&whole);
    float *sum = kit_data(whole).data;
    node parts[TRM_TREE_PARTS_MAX * 5];

    check_sums(r->name, kind->act, x, w, NULL, whole.data, 1e-6);
    if (strcmp(r->name, "a small device") == 0)
        cuda->multiprocessors = 1;
    for (int rank = 0; rank < r->ranks; rank++) {
        int first = r->leaves * rank / r->ranks, end = r->leaves * (rank + 1) / r->ranks;
        trm_tree_part tree[TRM_TREE_PARTS_MAX];
        int n = trm_tree_parts(first, end - first, r->leaves, tree);
        trm_tensor got;

        attrs = kit_int(attrs_of(kind->act), "unit", unit);
        kit_int(attrs, "first", first);
        kit_int(attrs, "leaves", r->leaves);
        c = linear_case(r->name, attrs, columns_of(x, first * unit, (end - first) * unit),
                        columns_of(w, first * unit, (end - first) * unit), NULL);
        c.out[0] = KIT_T(F32, n, r->m, N);
        got = run(&c);
        for (int p = 0; p < n; p++)
            parts[count++] =
                (node){tree[p].lo, tree[p].hi, (const float *)got.data + (size_t)p * elems};
    }
    cuda->multiprocessors = real;
    tree_sum(parts, count, 0, r->leaves, elems, sum);
    same(r->name, kind->name, sum, whole.data, elems);
}
END_TEST

/* A weight that is NaN shows in its feature, and nowhere else. */
START_TEST(nan_shows)
{
    enum { N = 40, K = 512, ROW_BAD = 19 };
    const struct kind *kind = &f8_kinds[_i];
    trm_tensor x = kit_random(KIT_T(F32, 70, K), -1.0, 1.0);
    trm_tensor w = weight(kind->weight, N, K, 1.0);

    block_at(w, ROW_BAD, 300)[sizeof(float) + 5] = 0xff;
    for (int m = 2; m <= 70; m += 34) {
        trm_tensor y = linear(kind->name, kind->act, rows_of(x, 0, m), w, NULL);

        for (int i = 0; i < m * N; i++)
            ck_assert_msg(isnan(((float *)y.data)[i]) == (i % N == ROW_BAD),
                          "%s: row %d, feature %d is %g", kind->name, i / N, i % N,
                          (double)((float *)y.data)[i]);
    }
}
END_TEST

/* ---- several weights at once ---- */

static const struct linears_row {
    const char *name;
    int m, n[4], segments;
    bool biased;
    const char *gated;
} linears_rows[] = {
    {"q, k, v", 2, {40, 16, 17}, 3, true, NULL},
    {"q, k, v, tiles", 20, {130, 16, 17}, 3, false, NULL},
    {"gated", 1, {50, 50}, 2, false, "silu"},
    {"gated, biased", 3, {33, 33}, 2, true, "gelu_tanh"},
    {"gated, tiles", 20, {70, 70}, 2, false, "silu"},
    {"gated, 64 rows", 50, {35, 35}, 2, false, "silu"},
    {"gated, many rows", 70, {35, 35}, 2, true, "silu"},
};
#define LINEARS (int)(sizeof(linears_rows) / sizeof(linears_rows[0]))

static trm_tensor gated(const char *name, const char *act, trm_tensor gate, trm_tensor up)
{
    cuda_case g = {.name = name, .op = TRM_OP_TrmGated, .in_count = 2, .out_count = 1};

    g.attrs = kit_string(kit_attrs(), "act", act);
    g.in[0] = gate;
    g.in[1] = up;
    g.out[0] = gate;
    g.out[0].data = NULL;
    return run(&g);
}

START_TEST(several)
{
    enum { K = 640 };
    const struct kind *kind = &f8_kinds[_i % F8_KINDS];
    const struct linears_row *r = &linears_rows[_i / F8_KINDS];
    int n = r->segments;
    cuda_case c = {.name = r->name, .op = TRM_OP_TrmLinears, .attrs = attrs_of(kind->act)};
    trm_tensor got[CUDA_ARGS], want[4] = {{0}};

    kit_int(c.attrs, "n", n);
    c.in[0] = kit_random(KIT_T(F32, r->m, K), -1.0, 1.0);
    c.in_count = r->biased ? 1 + 2 * n : 1 + n;
    c.out_count = r->gated != NULL ? 1 : n;
    if (r->gated != NULL)
        kit_string(c.attrs, "gated", r->gated);
    for (int i = 0; i < n; i++) {
        c.in[1 + i] = weight(kind->weight, r->n[i], K, 0.1);
        c.in[1 + n + i] = kit_random(KIT_T(F32, r->n[i]), -1.0, 1.0);
        c.known[1 + i] = true;
        c.out[i] = KIT_T(F32, r->m, r->n[i]);
        want[i] =
            linear(r->name, kind->act, c.in[0], c.in[1 + i], r->biased ? &c.in[1 + n + i] : NULL);
    }
    if (r->gated != NULL)
        want[0] = gated(r->name, r->gated, want[0], want[1]);
    KIT_OK(kit_run(&c, kit_gpu, got));
    for (int i = 0; i < c.out_count; i++)
        same(r->name, kind->name, got[i].data, want[i].data, trm_tensor_numel(&want[i]));
}
END_TEST

/* ---- order_free: cuBLASLt ---- */

/* The nearest e4m3, ties to even. */
static double nearest(float x)
{
    int best = 0;

    for (int b = 1; b < 127; b++) {
        double d = fabs(e4m3((unsigned char)b) - fabs((double)x));
        double old = fabs(e4m3((unsigned char)best) - fabs((double)x));

        if (d < old || (d == old && b % 2 == 0))
            best = b;
    }
    return copysign(e4m3((unsigned char)best), (double)x);
}

/* Rows as the product has them: fp32 of scale times e4m3, exact but for one rounding. */
static trm_tensor quantized(trm_tensor x)
{
    trm_tensor q = kit_data(x);

    for (int64_t r = 0; r < x.dims[0]; r++) {
        const float *from = (const float *)x.data + r * x.dims[1];
        float most = 0.0f;

        for (int64_t i = 0; i < x.dims[1]; i++)
            most = fmaxf(most, fabsf(from[i]));
        for (int64_t i = 0; i < x.dims[1]; i++)
            ((float *)q.data)[r * x.dims[1] + i] =
                most < 1e-35f
                    ? 0.0f
                    : (float)(nearest(from[i] * (448.0f / most)) * (double)(most / 448.0f));
    }
    return q;
}

static const struct free_row {
    const char *name;
    int m, n, unit, first, leaves;
    bool biased, tensor; /* the library has no vectors of scales */
    const char *gated;
    const char *kernel;
    trm_dtype weight;
} free_rows[] = {
    {"plain", 70, 48, 0, 0, 0, false, false, NULL, "lm linear cublaslt", ROW},
    {"biased", 65, 48, 0, 0, 0, true, false, NULL, "lm linear cublaslt", ROW},
    {"parts", 66, 48, 32, 1, 8, false, false, NULL, "lm linear cublaslt", ROW},
    {"gated", 67, 48, 0, 0, 0, false, false, "gelu_tanh", "lm linear cublaslt", ROW},
    {"scalar", 70, 64, 0, 0, 0, false, true, NULL, "lm linear cublaslt", ROW},
    {"scalar, biased", 65, 64, 0, 0, 0, true, true, NULL, "lm linear cublaslt", ROW},
    {"scalar, parts", 66, 64, 32, 1, 8, false, true, NULL, "lm linear cublaslt", ROW},
    {"scalar, gated, biased", 70, 64, 0, 0, 0, true, true, "silu", "lm linear cublaslt", ROW},
    {"few rows", 64, 48, 0, 0, 0, true, false, NULL, "lm linear", ROW},
    {"odd features", 70, 40, 0, 0, 0, true, false, NULL, "lm linear", ROW},
    {"blocks of 128", 70, 48, 0, 0, 0, true, false, NULL, "lm linear", B128},
};
#define FREES (int)(sizeof(free_rows) / sizeof(free_rows[0]))

START_TEST(order_free)
{
    const struct free_row *r = &free_rows[_i];
    bool is_gated = r->gated != NULL, blas = strcmp(r->kernel, "lm linear cublaslt") == 0;
    cuda_case c = {.name = r->name, .op = is_gated ? TRM_OP_TrmLinears : TRM_OP_TrmLinear};
    int weights = is_gated ? 2 : 1, k = r->weight == ROW ? 160 : 256;
    trm_tensor x = kit_random(KIT_T(F32, r->m, k), -1.0, 1.0), rows, got, want;

    memset((float *)x.data + k, 0, (size_t)k * sizeof(float)); /* row 1 */
    c.attrs = kit_int(attrs_of(BF16), "unit", r->unit);
    if (r->leaves > 0) {
        kit_int(c.attrs, "first", r->first);
        kit_int(c.attrs, "leaves", r->leaves);
    }
    if (is_gated) {
        kit_int(c.attrs, "n", 2);
        kit_string(c.attrs, "gated", r->gated);
    }
    c.in[0] = x;
    for (int i = 0; i < weights; i++) {
        c.in[1 + i] = weight(r->weight, r->n, k, 0.2);
        c.in[1 + weights + i] = kit_random(KIT_T(F32, r->n), -1.0, 1.0);
        c.known[1 + i] = true;
    }
    c.in_count = r->biased ? 1 + 2 * weights : 1 + weights;
    c.out_count = 1;
    /* leaves 1 to 5 of 8: nodes [1, 2), [2, 4), [4, 6) */
    c.out[0] = r->leaves > 0 ? KIT_T(F32, 3, r->m, r->n) : KIT_T(F32, r->m, r->n);
    if (r->tensor)
        setenv("TRM_EMU_BLASLT", "tensor", 1);
    kit_gpu->order_free = true;
    got = run(&c);
    kit_gpu->order_free = false;
    unsetenv("TRM_EMU_BLASLT");
    ck_assert_str_eq(c.kernel, r->kernel);
    /* what it computes, on fp32 rows */
    rows = blas ? quantized(x) : x;
    c.in[0] = rows;
    if (blas) {
        trm_attrs *attrs = kit_int(kit_attrs(), "unit", r->unit);

        if (r->leaves > 0) {
            kit_int(attrs, "first", r->first);
            kit_int(attrs, "leaves", r->leaves);
        }
        if (is_gated) {
            kit_int(attrs, "n", 2);
            kit_string(attrs, "gated", r->gated);
        }
        c.attrs = attrs;
    }
    want = run(&c);
    c.atol = 4e-6;
    kit_compare(&c, 0, &got, &want);
}
END_TEST

START_TEST(rows_that_are_not_finite)
{
    enum { M = 66, N = 48, K = 96 };
    trm_tensor x = kit_random(KIT_T(F32, M, K), -1.0, 1.0), w = weight(ROW, N, K, 1.0), y;

    ((float *)x.data)[3 * K + 50] = INFINITY;
    ((float *)x.data)[60 * K] = NAN;
    kit_gpu->order_free = true;
    y = linear("not finite", BF16, x, w, NULL);
    kit_gpu->order_free = false;
    for (int i = 0; i < M * N; i++)
        ck_assert_msg(isnan(((float *)y.data)[i]) == (i / N == 3 || i / N == 60), "row %d: %g",
                      i / N, (double)((float *)y.data)[i]);
}
END_TEST

/* ---- experts: through the family, as TrmExperts does ---- */

static void *device_copy(const void *from, size_t bytes)
{
    void *p = kit_device_memory(kit_gpu, bytes);

    KIT_OK(kit_gpu->ops->copy_in(kit_gpu, NULL, p, from, bytes));
    kit_wait(kit_gpu);
    return p;
}

#define EXPERTS 5
static const struct experts_row {
    const char *name;
    int m; /* the most rows */
    int32_t starts[EXPERTS + 1];
    bool gated;
} experts_rows[] = {
    {"few", 20, {0, 3, 3, 12, 13, 18}, false},
    {"few, gated", 20, {0, 0, 9, 9, 9, 20}, true},
    {"tiles", 45, {0, 3, 3, 30, 31, 40}, false},
    {"many rows, gated", 400, {0, 1, 1, 140, 270, 390}, true},
};
#define EXPERTS_ROWS (int)(sizeof(experts_rows) / sizeof(experts_rows[0]))

START_TEST(of_experts)
{
    enum { N = 40, K = 256 };
    const struct kind *kind = &f8_kinds[_i % F8_KINDS];
    const struct experts_row *r = &experts_rows[_i / F8_KINDS];
    trm_cuda *cuda = (trm_cuda *)kit_gpu;
    int segments = r->gated ? 2 : 1;
    trm_tensor x = kit_random(KIT_T(F32, r->m, K), -1.0, 1.0), w[2];
    size_t elems = (size_t)r->m * N;
    float *out = kit_data(KIT_T(F32, r->m, N)).data;
    size_t row = K / trm_dtype_block_elems(kind->weight) * trm_dtype_block_bytes(kind->weight);
    trmi_lmc_weight weights[2];
    trmi_lmc_leaves leaves;
    trmi_lmc_product p = {.leaves = &leaves,
                          .m = (size_t)r->m,
                          .k = K,
                          .segments = segments,
                          .gated = r->gated ? TRMI_LMC_SILU : TRMI_LMC_ACT_COUNT,
                          .experts = EXPERTS};
    cuda_case c = linear_case(r->name, attrs_of(kind->act), rows_of(x, 0, 1),
                              weight(kind->weight, N, K, 1.0), NULL);
    trm_op_desc desc = {.op = c.op,
                        .attrs = c.attrs,
                        .name = r->name,
                        .inputs = c.in,
                        .input_count = 2,
                        .outputs = c.out,
                        .output_count = 1};
    void *memory[5] = {NULL}, *ws;
    trm_kernel *k;

    /* a kernel of one expert's shape knows the family and the leaves */
    KIT_OK(kit_gpu->ops->prepare(kit_gpu, &desc, &k));
    leaves = ((trmi_lmc_linear *)k)->leaves;
    memory[0] = device_copy(x.data, elems / N * K * sizeof(float));
    memory[1] = kit_device_memory(kit_gpu, elems * sizeof(float));
    memory[2] = device_copy(r->starts, sizeof(r->starts));
    p.x = memory[0];
    p.starts = memory[2];
    p.segment[0].out = memory[1];
    for (int s = 0; s < segments; s++) {
        trmi_lmc_weight *o = &weights[s];

        w[s] = weight(kind->weight, EXPERTS * N, K, 0.3);
        *o = ((trmi_lmc_linear *)k)->weights[0];
        o->stack = EXPERTS;
        o->stride = trm_align_up(o->family->weight_bytes(o), 256);
        o->data = memory[3 + s] = kit_device_memory(kit_gpu, o->stride * o->stack);
        for (size_t e = 0; e < EXPERTS; e++)
            KIT_OK(o->family->pack(cuda, o, (const char *)w[s].data + e * N * row, row, false,
                                   (char *)memory[3 + s] + e * o->stride));
        p.segment[s].weight = o;
    }
    ws = kit_device_memory(kit_gpu, weights[0].family->workspace_bytes(cuda, &p));
    KIT_OK(weights[0].family->run(cuda, &p, ws, cuda->stream));
    KIT_OK(kit_gpu->ops->copy_out(kit_gpu, NULL, out, memory[1], elems * sizeof(float)));
    kit_wait(kit_gpu);
    for (int e = 0; e < EXPERTS; e++) {
        int from = r->starts[e], rows = r->starts[e + 1] - from;
        trm_tensor y[2];

        if (rows == 0)
            continue;
        for (int s = 0; s < segments; s++)
            y[s] =
                linear(r->name, kind->act, rows_of(x, from, rows), rows_of(w[s], e * N, N), NULL);
        if (r->gated)
            y[0] = gated(r->name, "silu", y[0], y[1]);
        same(r->name, kind->name, out + from * N, y[0].data, (size_t)rows * N);
    }
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, ws);
    for (int i = 0; i < 3 + segments; i++)
        kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, memory[i]);
    trm_kernel_destroy(k);
}
END_TEST

/* ---- what is refused ---- */

static const struct refused_row {
    const char *name;
    trm_dtype weight;
    const char *act;
    int k, unit;
    bool transposed;
    trm_status want;
} refused_rows[] = {
    {"f16 rows", ROW, "f16", 128, 0, false, TRM_ERR_UNSUPPORTED},
    {"transposed", ROW, NULL, 128, 0, true, TRM_ERR_UNSUPPORTED},
    {"half a block", B128, NULL, 192, 0, false, TRM_ERR_INVALID_ARG},
    {"leaves that cut blocks", B128, NULL, 384, 64, false, TRM_ERR_INVALID_ARG},
    {"another K", ROW, NULL, 96, 0, false, TRM_ERR_INVALID_ARG},
};

START_TEST(refused)
{
    const struct refused_row *r = &refused_rows[_i];
    trm_tensor x =
        kit_random(KIT_T(F32, 3, strcmp(r->name, "another K") == 0 ? 128 : r->k), -1.0, 1.0);
    trm_tensor w = kit_data(KIT_T(r->weight, 128, (r->k + 127) / 128 * 128));
    trm_attrs *attrs = kit_int(kit_attrs(), "unit", r->unit);
    cuda_case c;

    w.dims[1] = r->k;
    kit_int(attrs, "transposed", r->transposed);
    if (r->act != NULL)
        kit_string(attrs, "act", r->act);
    c = linear_case(r->name, attrs, x, w, NULL);
    c.want_prepare = r->want;
    cuda_check(&c);
}
END_TEST

START_TEST(embeddings_are_the_hosts)
{
    cuda_case c = {.name = "fp8 table", .op = TRM_OP_TrmEmbed, .in_count = 2, .out_count = 1};

    c.attrs = kit_attrs();
    c.in[0] = KIT_V(KIT_T(TRM_DTYPE_I32, 2), 1, 3);
    c.in[1] = weight(ROW, 8, 64, 1.0);
    c.known[1] = true;
    c.out[0] = KIT_T(F32, 2, 64);
    c.want_prepare = TRM_ERR_UNSUPPORTED;
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm_f8");

    tcase_add_loop_test(t, truth, 0, TRUTHS * F8_KINDS);
    tcase_add_loop_test(t, every_number, 0, 6 * F8_KINDS);
    tcase_add_loop_test(t, rows_do_not_depend, 0, F8_KINDS);
    tcase_add_loop_test(t, features_do_not_depend, 0, F8_KINDS);
    tcase_add_loop_test(t, leaves_do_not_depend, 0, PARTS * F8_KINDS);
    tcase_add_loop_test(t, nan_shows, 0, F8_KINDS);
    tcase_add_loop_test(t, several, 0, LINEARS * F8_KINDS);
    tcase_add_loop_test(t, order_free, 0, FREES);
    tcase_add_test(t, rows_that_are_not_finite);
    tcase_add_loop_test(t, of_experts, 0, EXPERTS_ROWS * F8_KINDS);
    tcase_add_loop_test(t, refused, 0, (int)(sizeof(refused_rows) / sizeof(refused_rows[0])));
    tcase_add_test(t, embeddings_are_the_hosts);
    return kit_main("cuda lm_f8", t);
}
