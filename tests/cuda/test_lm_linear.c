/* The CUDA backend's products of language models with float weights: against the CPU's; and that a
 * row's bits do not depend on the rows beside it, on how features and leaves are dealt out, on the
 * form of the weights, or on the device's size. */
#include "tests/cuda/lm_linear_kit.h"

/* values that are exact in `dtype`, as fp32 */
static trm_tensor rounded(trm_tensor t, trm_dtype dtype)
{
    trm_tensor r = kit_data(t);
    trm_tensor one = kit_data(KIT_T(dtype, 1));

    for (size_t i = 0; i < trm_tensor_numel(&t); i++) {
        trm_tensor_set_f64(&one, 0, trm_tensor_get_f64(&t, i));
        trm_tensor_set_f64(&r, i, trm_tensor_get_f64(&one, 0));
    }
    return r;
}

/* ---- against the CPU ---- */

static const struct truth_row {
    const char *name;
    int m, n, k, unit;
    bool biased, transposed;
} truth_rows[] = {
    {"one of all", 1, 1, 1, 0, false, false},
    {"no rows", 0, 5, 8, 0, true, false},
    {"no features", 3, 0, 8, 0, false, false},
    {"nothing to sum", 3, 17, 0, 0, true, false},
    {"odd all", 5, 35, 77, 0, true, false},
    {"odd one", 1, 33, 301, 0, true, false},
    {"leaves, few", 4, 40, 1100, 0, false, false},
    {"leaves, tiles", 21, 130, 600, 0, true, false},
    {"many rows", 131, 70, 130, 0, true, false},
    {"units", 3, 20, 1056, 96, true, false},
    {"units, tiles", 40, 20, 1056, 96, false, false},
    {"transposed", 2, 35, 77, 0, true, true},
    {"transposed, tiles", 18, 130, 96, 0, false, true},
};
#define TRUTHS (int)(sizeof(truth_rows) / sizeof(truth_rows[0]))

START_TEST(truth)
{
    const struct kind *kind = &kinds[_i % KINDS];
    const struct truth_row *r = &truth_rows[_i / KINDS];
    trm_tensor x = rounded(kit_random(KIT_T(F32, r->m, r->k), -1.0, 1.0), kind->act);
    trm_tensor w = kit_random(r->transposed ? KIT_T(kind->weight, r->k, r->n)
                                            : KIT_T(kind->weight, r->n, r->k),
                              -1.0, 1.0);
    trm_tensor bias = kit_random(KIT_T(F32, r->n), -1.0, 1.0), want[CUDA_ARGS], got;
    trm_attrs *attrs[2] = {attrs_of(kind->act), kit_attrs()};
    cuda_case c[2];

    for (int i = 0; i < 2; i++) { /* the CPU's does not round what is round */
        kit_int(attrs[i], "unit", r->unit);
        kit_int(attrs[i], "transposed", r->transposed);
        c[i] = linear_case(r->name, attrs[i], x, w, r->biased ? &bias : NULL);
    }
    got = run(&c[0]);
    KIT_OK(kit_run(&c[1], kit_cpu, want));
    /* partial sums are at most some tens, each addition rounds by 2^-24 of one */
    c[0].atol = 1e-6 + 1.5e-7 * r->k;
    kit_compare(&c[0], 0, &got, &want[0]);
}
END_TEST

START_TEST(activations_are_rounded)
{
    const struct kind *kind = &kinds[_i];
    trm_tensor x = kit_random(KIT_T(F32, 19, 70), -1.0, 1.0), r = rounded(x, kind->act);
    trm_tensor w = kit_random(KIT_T(kind->weight, 20, 70), -1.0, 1.0);

    for (int m = 1; m <= 19; m += 18) {
        trm_tensor a = linear(kind->name, kind->act, rows_of(x, 0, m), w, NULL);
        trm_tensor b = linear(kind->name, kind->act, rows_of(r, 0, m), w, NULL);

        same(kind->name, "rounded before", a.data, b.data, trm_tensor_numel(&a));
    }
}
END_TEST

/* the same rows in `dtype` */
static trm_tensor as_dtype(trm_tensor t, trm_dtype dtype)
{
    trm_tensor r = kit_data(KIT_T(dtype, t.dims[0], t.dims[1]));

    for (size_t i = 0; i < trm_tensor_numel(&t); i++)
        trm_tensor_set_f64(&r, i, trm_tensor_get_f64(&t, i));
    return r;
}

static const struct ready_row {
    const char *name;
    int n, k, unit;
    bool transposed, order_free;
} ready_rows[] = {
    {"a chunk", 20, 32, 0, false, false},    {"an odd number of chunks", 40, 1120, 0, false, false},
    {"units", 20, 1056, 96, false, false},   {"transposed", 35, 160, 0, true, false},
    {"order_free", 40, 320, 0, false, true}, {"order_free, units", 24, 320, 64, false, true},
};
#define READIES (int)(sizeof(ready_rows) / sizeof(ready_rows[0]))

/* rows that come rounded give the bits that they give otherwise */
START_TEST(rounded_before)
{
    static const int counts[] = {1, 2, 5, 70};
    const struct kind *kind = &kinds[3 + _i % 2];
    const struct ready_row *r = &ready_rows[_i / 2];
    trm_tensor x = kit_random(KIT_T(F32, 70, r->k), -1.0, 1.0), halves = as_dtype(x, kind->act);
    trm_tensor w = kit_random(r->transposed ? KIT_T(kind->weight, r->k, r->n)
                                            : KIT_T(kind->weight, r->n, r->k),
                              -1.0, 1.0);
    trm_tensor bias = kit_random(KIT_T(F32, r->n), -1.0, 1.0);

    kit_gpu->order_free = r->order_free;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        trm_tensor got[2];

        for (int half = 0; half < 2; half++) {
            trm_attrs *attrs = kit_int(attrs_of(kind->act), "unit", r->unit);
            cuda_case c;

            kit_int(attrs, "transposed", r->transposed);
            c = linear_case(r->name, attrs, rows_of(half ? halves : x, 70 - counts[i], counts[i]),
                            w, &bias);
            got[half] = run(&c);
        }
        same(r->name, kind->name, got[1].data, got[0].data, trm_tensor_numel(&got[0]));
    }
    kit_gpu->order_free = false;
}
END_TEST

/* ---- what bits do not depend on ---- */

START_TEST(rows_do_not_depend)
{
    static const int counts[] = {1, 3, 4, 5, 7, 8, 9, 17, 33, 64, 65, 100};
    enum { N = 72, K = 1100, M = 130 };
    const struct kind *kind = &kinds[_i];
    trm_cuda *cuda = (trm_cuda *)kit_gpu;
    int real = cuda->multiprocessors;
    trm_tensor x = kit_random(KIT_T(F32, M, K), -1.0, 1.0);
    trm_tensor w = kit_random(KIT_T(kind->weight, N, K), -1.0, 1.0);
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
    /* a device so small that blocks take many pieces, and each a whole sum */
    cuda->multiprocessors = 1;
    for (int m = M; m >= 6; m /= 4) {
        trm_tensor got = linear(kind->name, kind->act, rows_of(x, 0, m), w, &bias);

        same(kind->name, "a small device", got.data, want, (size_t)m * N);
    }
    cuda->multiprocessors = real;
    /* weights as cuBLASLt wants them */
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
    enum { N = 72, K = 600, CUT = 40 };
    const struct kind *kind = &kinds[_i];
    trm_tensor x = kit_random(KIT_T(F32, 70, K), -1.0, 1.0);
    trm_tensor w = kit_random(KIT_T(kind->weight, N, K), -1.0, 1.0);

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

/* columns [column, column + columns) */
static trm_tensor columns_of(trm_tensor t, int64_t column, int64_t columns)
{
    size_t each = trm_dtype_bytes(t.dtype);
    trm_tensor r = t;

    r.dims[1] = columns;
    r = kit_data(r);
    for (int64_t i = 0; i < t.dims[0]; i++)
        memcpy((char *)r.data + (size_t)(i * columns) * each,
               (const char *)t.data + (size_t)(i * t.dims[1] + column) * each,
               (size_t)columns * each);
    return r;
}

typedef struct node {
    int lo, hi;
    const float *values;
} node;

/* node [lo, hi) of the tree from the parts that ranks have */
static void tree_sum(const node *parts, int count, int lo, int hi, size_t elems, float *out)
{
    int mid = lo + (hi - lo) / 2;
    float *right;

    for (int i = 0; i < count; i++) {
        if (parts[i].lo == lo && parts[i].hi == hi) {
            memcpy(out, parts[i].values, elems * sizeof(float));
            return;
        }
    }
    ck_assert_int_gt(hi - lo, 1);
    right = kit_data(KIT_T(F32, (int64_t)elems)).data;
    tree_sum(parts, count, lo, mid, elems, out);
    tree_sum(parts, count, mid, hi, elems, right);
    for (size_t i = 0; i < elems; i++)
        out[i] += right[i];
}

static const struct parts_row {
    const char *name;
    int unit, leaves, ranks, m;
} parts_rows[] = {
    {"two ranks", 96, 11, 2, 3},
    {"three ranks", 96, 11, 3, 20},
    {"five ranks, many rows", 32, 24, 5, 70},
    {"four ranks, one row", 32, 32, 4, 1},
    {"a small device", 32, 23, 2, 33},
    {"workers that cut nodes", 32, 29, 2, 20},
    {"workers that cut nodes, few rows", 32, 31, 3, 5},
};
#define PARTS (int)(sizeof(parts_rows) / sizeof(parts_rows[0]))

START_TEST(leaves_do_not_depend)
{
    enum { N = 24 };
    const struct kind *kind = &kinds[_i % KINDS];
    const struct parts_row *r = &parts_rows[_i / KINDS];
    trm_cuda *cuda = (trm_cuda *)kit_gpu;
    int real = cuda->multiprocessors, count = 0;
    trm_tensor x = kit_random(KIT_T(F32, r->m, r->unit * r->leaves), -1.0, 1.0);
    trm_tensor w = kit_random(KIT_T(kind->weight, N, r->unit * r->leaves), -1.0, 1.0);
    trm_attrs *attrs = kit_int(attrs_of(kind->act), "unit", r->unit);
    cuda_case c = linear_case(r->name, attrs, x, w, NULL);
    trm_tensor whole = run(&c);
    size_t elems = trm_tensor_numel(&whole);
    float *sum = kit_data(whole).data;
    node parts[TRM_TREE_PARTS_MAX * 5];
    trm_tensor alone;

    c = linear_case(r->name, attrs, rows_of(x, 0, 1), w, NULL);
    alone = run(&c);
    same(r->name, "the first row alone", alone.data, whole.data, N);
    if (strcmp(r->name, "a small device") == 0)
        cuda->multiprocessors = 1;
    for (int rank = 0; rank < r->ranks; rank++) {
        int first = r->leaves * rank / r->ranks, end = r->leaves * (rank + 1) / r->ranks;
        trm_tree_part tree[TRM_TREE_PARTS_MAX];
        int n = trm_tree_parts(first, end - first, r->leaves, tree);
        trm_tensor got;

        attrs = kit_int(attrs_of(kind->act), "unit", r->unit);
        kit_int(attrs, "first", first);
        kit_int(attrs, "leaves", r->leaves);
        c = linear_case(r->name, attrs, columns_of(x, first * r->unit, (end - first) * r->unit),
                        columns_of(w, first * r->unit, (end - first) * r->unit), NULL);
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

/* ---- what is refused ---- */

static const struct refused_row {
    const char *name;
    trm_dtype x, weight;
    const char *act;
    int k, n, unit, first, leaves, bias;
    trm_status want;
} refused_rows[] = {
    {"half rows", F16, F16, NULL, 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"halves of another kind", F16, BF16, "bf16", 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"halves, exact product", BF16, BF16, NULL, 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"halves, leaves of 16", BF16, BF16, "bf16", 64, 8, 16, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"bytes for halves", TRM_DTYPE_U8, BF16, "bf16", 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"integer weights", F32, TRM_DTYPE_I8, NULL, 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"another act", F32, BF16, "fp8", 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"bf16 with f16", F32, F16, "bf16", 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"f16 with f32", F32, F32, "f16", 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"another K", F32, F32, NULL, 60, 8, 0, 0, 0, 0, TRM_ERR_INVALID_ARG},
    {"unit of 24", F32, F32, NULL, 64, 8, 24, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"unit of 96", F32, F32, NULL, 64, 8, 96, 0, 0, 0, TRM_ERR_INVALID_ARG},
    {"negative unit", F32, F32, NULL, 64, 8, -32, 0, 0, 0, TRM_ERR_INVALID_ARG},
    {"past the tree", F32, F32, NULL, 64, 8, 32, 3, 4, 0, TRM_ERR_INVALID_ARG},
    {"a part with a bias", F32, F32, NULL, 64, 8, 32, 0, 4, 8, TRM_ERR_INVALID_ARG},
    {"a short bias", F32, F32, NULL, 64, 8, 0, 0, 0, 7, TRM_ERR_INVALID_ARG},
    {"another output", F32, F32, NULL, 64, 9, 0, 0, 0, 0, TRM_ERR_INVALID_ARG},
};

START_TEST(refused)
{
    const struct refused_row *r = &refused_rows[_i];
    trm_tensor x = kit_random(KIT_T(r->x, 3, 64), -1.0, 1.0);
    trm_tensor w = kit_random(KIT_T(r->weight, 8, r->k), -1.0, 1.0);
    trm_tensor bias = kit_random(KIT_T(F32, r->bias), -1.0, 1.0);
    trm_attrs *attrs = kit_int(kit_attrs(), "unit", r->unit);
    cuda_case c;

    if (r->act != NULL)
        kit_string(attrs, "act", r->act);
    if (r->leaves > 0) {
        kit_int(attrs, "first", r->first);
        kit_int(attrs, "leaves", r->leaves);
    }
    c = linear_case(r->name, attrs, x, w, r->bias > 0 ? &bias : NULL);
    c.out[0].dims[1] = r->n;
    c.want_prepare = r->want;
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm_linear");

    tcase_add_loop_test(t, truth, 0, TRUTHS * KINDS);
    tcase_add_loop_test(t, activations_are_rounded, 0, KINDS);
    tcase_add_loop_test(t, rounded_before, 0, READIES * 2);
    tcase_add_loop_test(t, rows_do_not_depend, 0, KINDS);
    tcase_add_loop_test(t, features_do_not_depend, 0, KINDS);
    tcase_add_loop_test(t, leaves_do_not_depend, 0, PARTS * KINDS);
    tcase_add_loop_test(t, refused, 0, (int)(sizeof(refused_rows) / sizeof(refused_rows[0])));
    return kit_main("cuda lm_linear", t);
}
