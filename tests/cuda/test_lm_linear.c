/* The CUDA backend's products of language models with float weights: against the CPU's; and that a
 * row's bits do not depend on the rows beside it, on how features and leaves are dealt out, on the
 * form of the weights, or on the device's size. */
#include "tests/cuda/cuda_kit.h"

#include "kernels/cuda/lm_linear.h"

#define F32 TRM_DTYPE_F32
#define F16 TRM_DTYPE_F16
#define BF16 TRM_DTYPE_BF16

static const struct kind {
    const char *name;
    trm_dtype weight, act;
} kinds[] = {{"f32", F32, F32},
             {"bf16 exact", BF16, F32},
             {"f16 exact", F16, F32},
             {"bf16", BF16, BF16},
             {"f16", F16, F16}};
#define KINDS (int)(sizeof(kinds) / sizeof(kinds[0]))

static trm_attrs *attrs_of(trm_dtype act)
{
    trm_attrs *a = kit_attrs();

    if (act != F32)
        kit_string(a, "act", act == BF16 ? "bf16" : "f16");
    return a;
}

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

/* rows [row, row + rows) of [m, width] */
static trm_tensor rows_of(trm_tensor t, int64_t row, int64_t rows)
{
    size_t one = (size_t)t.dims[1] * trm_dtype_bytes(t.dtype);

    t.data = (char *)t.data + (size_t)row * one;
    t.dims[0] = rows;
    return t;
}

static cuda_case linear_case(const char *name, trm_attrs *attrs, trm_tensor x, trm_tensor w,
                             const trm_tensor *bias)
{
    bool turned = trm_attr_int(attrs, "transposed", 0) != 0;
    cuda_case c = {.name = name, .op = TRM_OP_TrmLinear, .in_count = bias != NULL ? 3 : 2};

    c.attrs = attrs;
    c.in[0] = x;
    c.in[1] = w;
    c.known[1] = true;
    if (bias != NULL)
        c.in[2] = *bias;
    c.out_count = 1;
    c.out[0] = KIT_T(F32, x.dims[0], w.dims[turned ? 1 : 0]);
    return c;
}

static trm_tensor run(cuda_case *c)
{
    trm_tensor out[CUDA_ARGS];

    KIT_OK(kit_run(c, kit_gpu, out));
    return out[0];
}

/* on the device */
static trm_tensor linear(const char *name, trm_dtype act, trm_tensor x, trm_tensor w,
                         const trm_tensor *bias)
{
    cuda_case c = linear_case(name, attrs_of(act), x, w, bias);

    return run(&c);
}

static void same(const char *name, const char *what, const void *a, const void *b, size_t floats)
{
    const uint32_t *x = a, *y = b;

    for (size_t i = 0; i < floats; i++)
        ck_assert_msg(x[i] == y[i], "%s, %s: number %zu is %08x, want %08x", name, what, i, x[i],
                      y[i]);
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

/* ---- order_free: other sums, the same products ---- */

static const struct free_row {
    const char *name;
    int m, unit, first, leaves;
    bool biased;
    const char *gated;
} free_rows[] = {
    {"plain", 70, 0, 0, 0, false, NULL},        {"biased", 65, 0, 0, 0, true, NULL},
    {"few rows", 64, 0, 0, 0, true, NULL},      {"parts", 66, 32, 1, 8, false, NULL},
    {"gated", 67, 0, 0, 0, false, "gelu_tanh"}, {"gated, biased", 70, 0, 0, 0, true, "silu"},
};
#define FREES (int)(sizeof(free_rows) / sizeof(free_rows[0]))

START_TEST(order_free)
{
    enum { N = 40, K = 160 };
    const struct kind *kind = &kinds[_i % KINDS];
    const struct free_row *r = &free_rows[_i / KINDS];
    bool gated = r->gated != NULL;
    cuda_case c = {.name = r->name, .op = gated ? TRM_OP_TrmLinears : TRM_OP_TrmLinear};
    trm_tensor got, want;
    int weights = gated ? 2 : 1;

    c.attrs = kit_int(attrs_of(kind->act), "unit", r->unit);
    if (r->leaves > 0) {
        kit_int(c.attrs, "first", r->first);
        kit_int(c.attrs, "leaves", r->leaves);
    }
    if (gated) {
        kit_int(c.attrs, "n", 2);
        kit_string(c.attrs, "gated", r->gated);
    }
    c.in[0] = kit_random(KIT_T(F32, r->m, K), -1.0, 1.0);
    for (int i = 0; i < weights; i++) {
        c.in[1 + i] = kit_random(KIT_T(kind->weight, N, K), -0.2, 0.2);
        c.in[1 + weights + i] = kit_random(KIT_T(F32, N), -1.0, 1.0);
        c.known[1 + i] = true;
    }
    c.in_count = r->biased ? 1 + 2 * weights : 1 + weights;
    c.out_count = 1;
    /* leaves 1 to 5 of 8: nodes [1, 2), [2, 4), [4, 6) */
    c.out[0] = r->leaves > 0 ? KIT_T(F32, 3, r->m, N) : KIT_T(F32, r->m, N);
    want = run(&c);
    kit_gpu->order_free = true;
    got = run(&c);
    kit_gpu->order_free = false;
    ck_assert_str_eq(c.kernel, kind->act != F32 && r->m > 64 ? "lm linear cublaslt" : "lm linear");
    c.atol = 2e-5;
    kit_compare(&c, 0, &got, &want);
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

/* ---- several weights at once ---- */

static const struct linears_row {
    const char *name;
    int m, n[4], segments;
    bool biased;
    const char *gated;
} linears_rows[] = {
    {"q, k, v", 2, {40, 16, 17}, 3, true, NULL},
    {"q, k, v, tiles", 20, {130, 16, 17}, 3, false, NULL},
    {"four", 70, {1, 2, 3, 4}, 4, true, NULL},
    {"two", 1, {33, 50}, 2, false, NULL},
    {"gated", 1, {50, 50}, 2, false, "silu"},
    {"gated, biased", 3, {33, 33}, 2, true, "gelu_tanh"},
    {"gated, tiles", 20, {70, 70}, 2, false, "gelu"},
    {"gated, many rows", 130, {35, 35}, 2, true, "relu"},
};
#define LINEARS (int)(sizeof(linears_rows) / sizeof(linears_rows[0]))

START_TEST(several)
{
    enum { K = 600 };
    const struct kind *kind = &kinds[_i % KINDS];
    const struct linears_row *r = &linears_rows[_i / KINDS];
    int n = r->segments;
    cuda_case c = {.name = r->name, .op = TRM_OP_TrmLinears, .attrs = attrs_of(kind->act)};
    trm_tensor got[CUDA_ARGS], want[4];

    kit_int(c.attrs, "n", n);
    c.in[0] = kit_random(KIT_T(F32, r->m, K), -1.0, 1.0);
    c.in_count = r->biased ? 1 + 2 * n : 1 + n;
    c.out_count = r->gated != NULL ? 1 : n;
    if (r->gated != NULL)
        kit_string(c.attrs, "gated", r->gated);
    for (int i = 0; i < n; i++) {
        c.in[1 + i] = kit_random(KIT_T(kind->weight, r->n[i], K), -0.1, 0.1);
        c.in[1 + n + i] = kit_random(KIT_T(F32, r->n[i]), -1.0, 1.0);
        c.known[1 + i] = true;
        c.out[i] = KIT_T(F32, r->m, r->n[i]);
        want[i] =
            linear(r->name, kind->act, c.in[0], c.in[1 + i], r->biased ? &c.in[1 + n + i] : NULL);
    }
    if (r->gated != NULL) {
        cuda_case g = {.name = r->name, .op = TRM_OP_TrmGated, .in_count = 2, .out_count = 1};

        g.attrs = kit_string(kit_attrs(), "act", r->gated);
        g.in[0] = want[0];
        g.in[1] = want[1];
        g.out[0] = want[0];
        g.out[0].data = NULL;
        want[0] = run(&g);
    }
    KIT_OK(kit_run(&c, kit_gpu, got));
    for (int i = 0; i < c.out_count; i++)
        same(r->name, kind->name, got[i].data, want[i].data, trm_tensor_numel(&want[i]));
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
    bool gated, by_row;
} experts_rows[] = {
    {"few", 20, {0, 3, 3, 12, 13, 18}, false, true},
    {"few, gated", 20, {0, 0, 9, 9, 9, 20}, true, true},
    {"no rows", 10, {0, 0, 0, 0, 0, 0}, false, true},
    {"tiles", 45, {0, 3, 3, 30, 31, 40}, false, true},
    {"tiles, gated", 45, {0, 17, 33, 33, 45, 45}, true, false},
    {"many rows", 400, {0, 1, 1, 140, 270, 390}, false, false},
};
#define EXPERTS_ROWS (int)(sizeof(experts_rows) / sizeof(experts_rows[0]))

START_TEST(experts)
{
    enum { N = 40, K = 300, TOKENS = 12, MARK = 0x7fc12345 };
    const struct kind *kind = &kinds[_i % KINDS];
    const struct experts_row *r = &experts_rows[_i / KINDS];
    trm_cuda *cuda = (trm_cuda *)kit_gpu;
    int tokens = r->by_row ? TOKENS : r->m, segments = r->gated ? 2 : 1;
    trm_tensor x = kit_random(KIT_T(F32, tokens, K), -1.0, 1.0), w[2];
    trm_tensor one = kit_random(KIT_T(kind->weight, N, K), -1.0, 1.0);
    size_t elems = (size_t)r->m * N, each = (size_t)N * K * trm_dtype_bytes(kind->weight), bytes;
    uint32_t *out = kit_data(KIT_T(F32, r->m, N)).data;
    int32_t *row_of = kit_data(KIT_T(TRM_DTYPE_I32, r->m)).data;
    trmi_lmc_weight weights[2];
    trmi_lmc_leaves leaves;
    trmi_lmc_product p = {.m = (size_t)r->m,
                          .k = K,
                          .segments = segments,
                          .gated = r->gated ? TRMI_LMC_SILU : TRMI_LMC_ACT_COUNT,
                          .experts = EXPERTS};
    cuda_case c = linear_case(r->name, attrs_of(kind->act), x, one, NULL);
    trm_op_desc desc = {.op = c.op, .attrs = c.attrs, .name = r->name, .input_count = 2};
    void *memory[6 + 2], *ws;
    trm_kernel *k;

    desc.inputs = c.in;
    desc.outputs = c.out;
    desc.output_count = 1;
    KIT_OK(kit_gpu->ops->prepare(kit_gpu, &desc, &k));
    leaves = ((trmi_lmc_linear *)k)->leaves;
    p.leaves = &leaves;
    for (int i = 0; i < r->m; i++)
        row_of[i] = i * 7 % TOKENS;
    for (size_t i = 0; i < elems; i++)
        out[i] = MARK;
    memory[0] = device_copy(x.data, (size_t)tokens * K * sizeof(float));
    memory[1] = device_copy(out, elems * sizeof(float));
    memory[2] = device_copy(r->starts, sizeof(r->starts));
    memory[3] = device_copy(row_of, (size_t)r->m * sizeof(*row_of));
    p.x = memory[0];
    p.starts = memory[2];
    p.row_of = r->by_row ? memory[3] : NULL;
    for (int s = 0; s < segments; s++) {
        trmi_lmc_weight *o = &weights[s];

        *o = ((trmi_lmc_linear *)k)->weights[0];
        w[s] = kit_random(KIT_T(kind->weight, EXPERTS * N, K), -1.0, 1.0);
        o->stack = EXPERTS;
        o->stride = trm_align_up(o->family->weight_bytes(o), 256);
        o->data = memory[6 + s] = kit_device_memory(kit_gpu, o->stride * EXPERTS);
        for (size_t e = 0; e < EXPERTS; e++)
            KIT_OK(o->family->pack(cuda, o, (const char *)w[s].data + e * each, each / N, false,
                                   (char *)memory[6 + s] + e * o->stride));
        p.segment[s].weight = o;
    }
    p.segment[0].out = memory[1];
    bytes = weights[0].family->workspace_bytes(cuda, &p);
    ws = kit_device_memory(kit_gpu, bytes);
    KIT_OK(weights[0].family->run(cuda, &p, ws, cuda->stream));
    KIT_OK(kit_gpu->ops->copy_out(kit_gpu, NULL, out, memory[1], elems * sizeof(float)));
    kit_wait(kit_gpu);
    for (int e = 0; e < EXPERTS; e++) {
        int from = r->starts[e], rows = r->starts[e + 1] - from;
        trm_tensor mine = kit_data(KIT_T(F32, rows, K)), y[2];
        cuda_case g = {.name = r->name, .op = TRM_OP_TrmGated, .in_count = 2, .out_count = 1};

        if (rows == 0)
            continue;
        for (int i = 0; i < rows; i++)
            memcpy((float *)mine.data + i * K,
                   (float *)x.data + (r->by_row ? row_of[from + i] : from + i) * K,
                   K * sizeof(float));
        for (int s = 0; s < segments; s++)
            y[s] = linear(r->name, kind->act, mine, rows_of(w[s], e * N, N), NULL);
        if (r->gated) {
            g.attrs = kit_string(kit_attrs(), "act", "silu");
            g.in[0] = y[0];
            g.in[1] = y[1];
            g.out[0] = KIT_T(F32, rows, N);
            y[0] = run(&g);
        }
        same(r->name, kind->name, out + from * N, y[0].data, (size_t)rows * N);
    }
    for (size_t i = (size_t)r->starts[EXPERTS] * N; i < elems; i++)
        ck_assert_msg(out[i] == MARK, "%s, %s: a row of no expert is written", r->name, kind->name);
    trm_kernel_destroy(k);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, ws);
    for (int i = 0; i < 4; i++)
        kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, memory[i]);
    for (int s = 0; s < segments; s++)
        kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, memory[6 + s]);
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
    {"integer weights", F32, TRM_DTYPE_I8, NULL, 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"another act", F32, BF16, "fp8", 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"bf16 with f16", F32, F16, "bf16", 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"f16 with f32", F32, F32, "f16", 64, 8, 0, 0, 0, 0, TRM_ERR_UNSUPPORTED},
    {"another K", F32, F32, NULL, 60, 8, 0, 0, 0, 0, TRM_ERR_INVALID_ARG},
    {"unit of 24", F32, F32, NULL, 64, 8, 24, 0, 0, 0, TRM_ERR_INVALID_ARG},
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
    tcase_add_loop_test(t, rows_do_not_depend, 0, KINDS);
    tcase_add_loop_test(t, features_do_not_depend, 0, KINDS);
    tcase_add_loop_test(t, order_free, 0, FREES * KINDS);
    tcase_add_loop_test(t, leaves_do_not_depend, 0, PARTS * KINDS);
    tcase_add_loop_test(t, several, 0, LINEARS * KINDS);
    tcase_add_loop_test(t, experts, 0, EXPERTS_ROWS * KINDS);
    tcase_add_loop_test(t, refused, 0, (int)(sizeof(refused_rows) / sizeof(refused_rows[0])));
    return kit_main("cuda lm_linear", t);
}
