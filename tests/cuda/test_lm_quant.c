/* Products with block types on the CUDA device: to the bit what the CPU's kernels compute leaf by
 * leaf, for every type, batch and way to cut K; segments, gated forms, experts. */
#include "tests/cuda/lm_quant_kit.h"

static const int whole[] = {1 << 20, 0}, of_256[] = {256, 0}, of_128[] = {128, 0},
                 of_64[] = {64, 0}, of_32[] = {32, 0}, uneven[] = {96, 32, 160, 64, 0},
                 long_short[] = {512, 32, 0};

/* plain: K is no multiple of 256, so K-quants are left out */
static const struct row {
    const char *name;
    size_t n, k, m;
    int count, first, total;
    const int *lengths;
} rows[] = {
    {"one row, one leaf", 17, 256, 1, 1, 0, 1, whole},
    {"two rows", 33, 512, 2, 2, 0, 2, of_256},
    {"one row, eight leaves", 16, 512, 1, 8, 0, 8, of_64},
    {"one row, uneven leaves", 40, 768, 1, 7, 0, 7, uneven},
    {"one row, long and short", 5, 1280, 1, 5, 0, 5, long_short},
    {"one row, 32 leaves", 16, 1024, 1, 32, 0, 32, of_32},
    {"one row of a part", 16, 768, 1, 6, 3, 11, of_128},
    {"3 rows, uneven leaves", 20, 768, 3, 7, 0, 7, uneven},
    {"4 rows of a part", 16, 768, 4, 6, 3, 11, of_128},
    {"7 rows", 40, 768, 7, 3, 0, 3, of_256},
    {"8 rows, a part", 33, 512, 8, 4, 1, 7, of_128},
    {"9 rows, uneven leaves", 17, 768, 9, 7, 0, 7, uneven},
    {"9 rows, many parts", 16, 512, 9, 14, 1, 16, of_32},
    {"9 rows, shares across nodes", 16, 832, 9, 26, 3, 32, of_32},
    {"65 rows, shares across nodes", 5, 832, 65, 26, 3, 32, of_32},
    {"33 rows", 17, 256, 33, 2, 0, 2, of_128},
    {"64 rows", 16, 512, 64, 4, 0, 4, of_128},
    {"65 rows, one leaf", 33, 256, 65, 1, 0, 1, whole},
    {"65 rows of a part", 16, 512, 65, 5, 2, 9, uneven},
    {"one group", 17, 32, 1, 1, 0, 1, whole},
    {"three groups, 5 rows", 20, 96, 5, 1, 0, 1, whole},
    {"11 groups, 2 rows", 16, 352, 2, 3, 0, 3, uneven},
    {"more panels than blocks", 600, 256, 1, 1, 0, 1, whole},
    {"more panels than blocks, 3 rows", 600, 256, 3, 2, 0, 2, of_128},
};
enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

START_TEST(every_type)
{
    const struct row *r = &rows[_i];

    if (quant_family == NULL)
        return;
    for (int i = 0; i < QUANT_TYPES; i++) {
        const struct quant_type *t = &quant_types[i];
        trmi_lmc_leaves l = quant_leaves(r->k, r->count, r->first, r->total, r->lengths);
        trmi_lmc_product p = {.leaves = &l, .m = r->m, .k = r->k, .segments = 1};
        trmi_lmc_weight w;
        unsigned char *file;
        float *want, *x;

        if (r->k % trm_dtype_block_elems(t->dtype) != 0 || (r->n > 100 && i % 3 != 1))
            continue;
        file = quant_rows(t, r->n, r->k);
        x = quant_x(r->m * r->k);
        w = quant_weight(t, file, r->n, r->k, 1, 0);
        p.x = x;
        p.gated = TRMI_LMC_ACT_COUNT;
        p.segment[0].weight = &w;
        p.segment[0].out = quant_memory((size_t)l.parts * r->m * r->n * sizeof(float));
        want = quant_reference(t, file, r->n, r->k, x, r->m, &l, r->first, r->total);
        /* a small device deals work out otherwise: several panels a block, more leaves a warp */
        for (int small = 0; small < (r->m < 33 || i % 4 == 1 ? 2 : 1); small++) {
            trm_cuda *cuda = (trm_cuda *)kit_gpu;
            int all = cuda->multiprocessors, shared = cuda->shared_bytes_max;

            cuda->multiprocessors = small ? 1 : all;
            cuda->shared_bytes_max = small ? 64 << 10 : shared;
            quant_run(p, r->m);
            quant_same(r->name, t->name, p.segment[0].out, want, (size_t)l.parts * r->m * r->n,
                       r->n);
            if (small == i % 2 || r->m < 8) { /* rows that come quantised */
                trmi_lmc_product q = p;

                q.rounded = true;
                q.x = rounded_of(x, r->m, r->k, trmi_lmq_sums(t->dtype)).data;
                ck_assert_uint_eq(quant_family->workspace_bytes(cuda, &q), 0);
                quant_run(q, r->m);
                quant_same(r->name, "quantised before", p.segment[0].out, want,
                           (size_t)l.parts * r->m * r->n, r->n);
            }
            cuda->multiprocessors = all;
            cuda->shared_bytes_max = shared;
        }
        quant_weight_free(&w);
    }
}
END_TEST

/* A row's bits by itself, among others, and of a weight that holds some of the features. */
START_TEST(rows_alone)
{
    static const int types[] = {0, 1, 5, 7, 9};
    static const size_t batches[] = {1, 2, 7, 8, 9, 33, 64, 65};
    const struct quant_type *t = &quant_types[types[_i]];
    size_t n = 48, k = 512, most = 65;
    trmi_lmc_leaves l = quant_leaves(k, 4, 0, 4, of_128);
    unsigned char *file;
    float *x, *first = NULL;

    if (quant_family == NULL)
        return;
    file = quant_rows(t, n, k);
    x = quant_x(most * k);
    for (size_t b = 0; b < sizeof(batches) / sizeof(batches[0]); b++) {
        size_t m = batches[b], from = b % 3 == 0 ? 0 : 16, to = b % 2 == 0 ? n : 37;
        trmi_lmc_weight w = quant_weight(t, file + from * quant_row_bytes(t->dtype, k), to - from,
                                         k, 1, b % 2 * 34);
        float *out = quant_memory(m * n * sizeof(float));
        /* the batch ends with row 0 */
        float *rows_of = quant_memory(m * k * sizeof(float));
        trmi_lmc_product p = {.leaves = &l, .x = rows_of, .m = m, .k = k, .segments = 1};

        memcpy(rows_of, x + (most - m) * k, m * k * sizeof(float));
        memcpy(rows_of + (m - 1) * k, x, k * sizeof(float));
        p.gated = TRMI_LMC_ACT_COUNT;
        p.segment[0].weight = &w;
        p.segment[0].out = out;
        quant_run(p, m);
        if (b == 0)
            first = out;
        ck_assert_msg(
            memcmp(out + (m - 1) * (to - from), first + from, (to - from) * sizeof(float)) == 0,
            "%s: a row of %zu, features %zu to %zu", t->name, m, from, to);
        quant_weight_free(&w);
    }
}
END_TEST

/* Infinite, NaN, tiny and zero groups; an odd address. */
START_TEST(wild_numbers)
{
    static const size_t batches[] = {1, 2, 3};
    const struct quant_type *t = &quant_types[_i];
    size_t n = 16, k = 512, m = batches[_i % 3];
    trmi_lmc_leaves l = quant_leaves(k, 2, 0, 2, of_256);
    trmi_lmc_product p = {.leaves = &l, .m = m, .k = k, .segments = 1};
    unsigned char *file;
    trmi_lmc_weight w;
    float *x;

    if (quant_family == NULL)
        return;
    file = quant_rows(t, n, k);
    x = quant_x(m * k);
    for (size_t i = 0; i < 32; i++) {
        x[32 + i] = 0.0f;
        x[64 + i] = ldexpf(x[64 + i], -125);
        x[96 + i] = ldexpf(x[96 + i], -118);
        x[128 + i] = ldexpf(x[128 + i], 120);
    }
    x[(m - 1) * k + 300] = _i % 2 == 0 ? INFINITY : NAN;
    w = quant_weight(t, file, n, k, 1, 0);
    p.x = x;
    p.gated = TRMI_LMC_ACT_COUNT;
    p.segment[0].weight = &w;
    p.segment[0].out = quant_memory(m * n * sizeof(float));
    quant_run(p, m);
    quant_same("wild numbers", t->name, p.segment[0].out,
               quant_reference(t, file, n, k, x, m, &l, 0, 2), m * n, n);
    quant_weight_free(&w);
}
END_TEST

START_TEST(segments)
{
    static const size_t batches[] = {1, 2, 5, 20};
    static const size_t sizes[] = {17, 5, 48, 16};
    const struct quant_type *t = &quant_types[7 - _i];
    size_t m = batches[_i], k = 512;
    trmi_lmc_leaves l = quant_leaves(k, 4, 0, 4, of_128);
    trmi_lmc_product p = {.leaves = &l, .m = m, .k = k, .segments = 4};
    trmi_lmc_weight w[4];
    float *x, *bias[4];
    unsigned char *file[4];

    if (quant_family == NULL)
        return;
    p.x = x = quant_x(m * k);
    p.gated = TRMI_LMC_ACT_COUNT;
    for (int i = 0; i < 4; i++) {
        file[i] = quant_rows(t, sizes[i], k);
        w[i] = quant_weight(t, file[i], sizes[i], k, 1, 0);
        bias[i] = i == 2 ? NULL : quant_x(sizes[i]);
        p.segment[i].weight = &w[i];
        p.segment[i].bias = bias[i];
        p.segment[i].out = quant_memory(m * sizes[i] * sizeof(float));
    }
    quant_run(p, m);
    for (int i = 0; i < 4; i++) {
        float *want = quant_reference(t, file[i], sizes[i], k, x, m, &l, 0, 4);

        for (size_t e = 0; e < m * sizes[i] && bias[i] != NULL; e++)
            want[e] += bias[i][e % sizes[i]];
        quant_same("segments", t->name, p.segment[i].out, want, m * sizes[i], sizes[i]);
        quant_weight_free(&w[i]);
    }
}
END_TEST

/* Rows of experts: [starts[e], starts[e + 1]) of row_of. */
static const struct expert_row {
    const char *name;
    int type;
    size_t n, k, m, tokens; /* m: room; the rows are starts' */
    int experts;
    int counts[8]; /* rows of the first experts; -1: of the last, none before */
    bool gated, mapped;
} expert_rows[] = {
    {"few rows", 7, 17, 256, 6, 3, 6, {1, 0, 2, 0, 0, 3}, false, true},
    {"few rows, gated", 9, 40, 512, 6, 3, 6, {1, 0, 2, 0, 0, 2}, true, true},
    {"more experts than rows", 0, 16, 256, 4, 2, 70, {0, 0, 1, 1, -1}, false, true},
    {"more experts than rows, gated", 4, 33, 256, 4, 4, 70, {0, 2, 0, 1, -1}, true, false},
    {"uneven", 8, 16, 256, 60, 20, 5, {3, 0, 31, 1, 16}, false, true},
    {"uneven, gated", 1, 32, 512, 60, 20, 5, {17, 9, 8, 0, 26}, true, true},
    {"many of one", 5, 16, 256, 140, 70, 2, {130, 5}, false, true},
    {"none", 7, 16, 256, 4, 4, 3, {0, 0, 0}, true, false},
};
enum { EXPERT_ROWS = sizeof(expert_rows) / sizeof(expert_rows[0]) };

static double silu(double x)
{
    return x / (1.0 + exp(-x));
}

START_TEST(experts)
{
    const struct expert_row *r = &expert_rows[_i];
    const struct quant_type *t = &quant_types[r->type];
    trmi_lmc_leaves l = quant_leaves(r->k, (int)r->k / 128, 0, (int)r->k / 128, of_128);
    trmi_lmc_product p = {
        .leaves = &l, .m = r->m, .k = r->k, .segments = r->gated ? 2 : 1, .experts = r->experts};
    int32_t starts[72] = {0}, row_of[160];
    unsigned char *file[2] = {NULL, NULL};
    trmi_lmc_weight w[2];
    size_t row = quant_row_bytes(t->dtype, r->k), one = r->n * row;
    float *x, *out;

    if (quant_family == NULL)
        return;
    for (int e = 0, from = 0; e < r->experts; e++) {
        int count = from >= 0 && e < 8 ? r->counts[e] : 0;

        from = count < 0 ? -1 : from;
        count = e + 1 == r->experts && from < 0 ? 1 : count < 0 ? 0 : count;
        starts[e + 1] = starts[e] + count;
    }
    for (size_t i = 0; i < r->m; i++)
        row_of[i] = (int32_t)(r->mapped ? quant_draw() % r->tokens : i);
    p.x = x = quant_x(r->tokens * r->k);
    p.starts = starts;
    p.row_of = r->mapped ? row_of : NULL;
    p.gated = r->gated ? TRMI_LMC_SILU : TRMI_LMC_ACT_COUNT;
    for (int i = 0; i < p.segments; i++) {
        file[i] = quant_rows(t, r->n * (size_t)r->experts, r->k);
        w[i] = quant_weight(t, file[i], r->n, r->k, (size_t)r->experts, 0);
        p.segment[i].weight = &w[i];
    }
    p.segment[0].out = out = quant_memory(r->m * r->n * sizeof(float));
    quant_run(p, r->tokens);
    for (int e = 0; e < r->experts; e++)
        for (int32_t i = starts[e]; i < starts[e + 1]; i++) {
            const float *from = x + (size_t)row_of[i] * r->k, *got = out + (size_t)i * r->n;
            float *want =
                quant_reference(t, file[0] + (size_t)e * one, r->n, r->k, from, 1, &l, 0, l.count);
            float *up;

            if (!r->gated) {
                quant_same(r->name, t->name, got, want, r->n, r->n);
                continue;
            }
            up = quant_reference(t, file[1] + (size_t)e * one, r->n, r->k, from, 1, &l, 0, l.count);
            for (size_t n = 0; n < r->n; n++) {
                double y = silu((double)want[n]) * (double)up[n];

                ck_assert_msg(fabs((double)got[n] - y) <= 1e-6 * fabs(y) + 1e-30,
                              "%s: row %d, feature %zu: got %.9g, want %.9g", r->name, i, n,
                              (double)got[n], y);
            }
        }
    for (size_t i = (size_t)starts[r->experts] * r->n; i < r->m * r->n; i++)
        ck_assert_uint_eq(((const uint32_t *)(const void *)out)[i], QUANT_UNTOUCHED);
    for (int i = 0; i < p.segments; i++)
        quant_weight_free(&w[i]);
}
END_TEST

START_TEST(gated)
{
    static const size_t batches[] = {1, 2, 6, 40};
    const struct quant_type *t = &quant_types[2 + _i];
    size_t m = batches[_i], n = 40, k = 512;
    trmi_lmc_leaves l = quant_leaves(k, 8, 0, 8, of_64);
    trmi_lmc_product p = {.leaves = &l, .m = m, .k = k, .segments = 2, .gated = TRMI_LMC_SILU};
    trmi_lmc_weight w[2];
    float *x, *bias = NULL, *y[2], *out;

    if (quant_family == NULL)
        return;
    p.x = x = quant_x(m * k);
    for (int i = 0; i < 2; i++) {
        unsigned char *file = quant_rows(t, n, k);

        w[i] = quant_weight(t, file, n, k, 1, 0);
        y[i] = quant_reference(t, file, n, k, x, m, &l, 0, 8);
        p.segment[i].weight = &w[i];
        if (i == 1)
            p.segment[i].bias = bias = quant_x(n);
    }
    p.segment[0].out = out = quant_memory(m * n * sizeof(float));
    quant_run(p, m);
    for (size_t i = 0; i < m * n; i++) {
        double want = silu((double)y[0][i]) * (double)(y[1][i] + bias[i % n]);

        ck_assert_msg(fabs((double)out[i] - want) <= 1e-6 * fabs(want) + 1e-30,
                      "gated, %s, %zu rows [%zu]: got %.9g, want %.9g", t->name, m, i,
                      (double)out[i], want);
    }
    quant_weight_free(&w[0]);
    quant_weight_free(&w[1]);
}
END_TEST

START_TEST(sizes_and_refusals)
{
    static const double more[QUANT_TYPES] = {1.0,   1.0,  1.0,   1.0,   1.0,
                                             1.001, 1.04, 1.029, 1.024, 1.011};
    trm_dtype act;
    trmi_lmc_weight w = {.n = 4096, .k = 4096};
    trmi_lmc_leaves l = quant_leaves(4096, 1, 0, 1, whole);
    trmi_lmc_product p = {.leaves = &l, .m = 1, .k = 4096, .segments = 1};

    if (quant_family == NULL)
        return;
    for (int i = 0; i < QUANT_TYPES; i++) {
        double file = 4096.0 * (double)quant_row_bytes(quant_types[i].dtype, 4096);

        w.dtype = quant_types[i].dtype;
        ck_assert_msg((double)quant_family->weight_bytes(&w) <= file * more[i],
                      "%s: %zu bytes, the file has %.0f", quant_types[i].name,
                      quant_family->weight_bytes(&w), file);
        ck_assert(quant_family->takes(w.dtype, TRM_DTYPE_I8, &act));
        ck_assert(!quant_family->takes(w.dtype, TRM_DTYPE_BF16, &act));
    }
    ck_assert(!quant_family->takes(TRM_DTYPE_BF16, TRM_DTYPE_NONE, &act));
    ck_assert_int_eq(quant_family->pack((trm_cuda *)kit_gpu, &w, NULL, 0, true, NULL),
                     TRM_ERR_UNSUPPORTED);
    p.gated = TRMI_LMC_SILU; /* of one weight */
    p.segment[0].weight = &w;
    ck_assert_int_eq(quant_family->run((trm_cuda *)kit_gpu, &p, NULL, NULL), TRM_ERR_INVALID_ARG);
    p.gated = TRMI_LMC_ACT_COUNT;
    p.m = 0;
    KIT_OK(quant_family->run((trm_cuda *)kit_gpu, &p, NULL, NULL));
    w.k = 512;
    ck_assert_int_eq(quant_family->run((trm_cuda *)kit_gpu, &p, NULL, NULL), TRM_ERR_INVALID_ARG);
}
END_TEST

/* The operator on both devices. exact: leaves are the graph's, or there is one. */
static const struct op_row {
    const char *name;
    int type, m, n, k, unit, first, leaves, bias;
    bool exact;
} op_rows[] = {
    {"q4_k, a unit", 7, 1, 33, 1024, 256, 0, 0, 1, true},
    {"q6_k, a unit", 9, 5, 33, 1024, 512, 0, 0, 1, true},
    {"q8_0, one leaf", 4, 3, 20, 352, 0, 0, 0, 1, true},
    {"q4_0, the device's leaves", 0, 2, 24, 1024, 0, 0, 0, 0, false},
    {"q5_k, a part", 8, 11, 24, 768, 256, 2, 7, 0, true},
    {"q3_k, a part", 6, 1, 16, 768, 256, 1, 4, 0, true},
};

START_TEST(operators)
{
    const struct op_row *r = &op_rows[_i];
    const struct quant_type *t = &quant_types[r->type];
    cuda_case c = {
        .name = r->name, .op = TRM_OP_TrmLinear, .in_count = 2 + r->bias, .out_count = 1};
    trm_tree_part parts[TRM_TREE_PARTS_MAX];

    c.attrs = kit_attrs();
    if (r->unit > 0)
        kit_int(c.attrs, "unit", r->unit);
    c.in[0] = kit_random(KIT_T(TRM_DTYPE_F32, r->m, r->k), -1.0, 1.0);
    c.in[1] = KIT_T(t->dtype, r->n, r->k);
    c.in[1].data = quant_rows(t, (size_t)r->n, (size_t)r->k);
    c.known[1] = true;
    if (r->bias)
        c.in[2] = kit_random(KIT_T(TRM_DTYPE_F32, r->n), -1.0, 1.0);
    c.out[0] = KIT_T(TRM_DTYPE_F32, r->m, r->n);
    if (r->leaves > 0) {
        kit_int(c.attrs, "first", r->first);
        kit_int(c.attrs, "leaves", r->leaves);
        c.out[0] = KIT_T(TRM_DTYPE_F32, trm_tree_parts(r->first, r->k / r->unit, r->leaves, parts),
                         r->m, r->n);
    }
    c.rtol = r->exact ? 0.0 : 1e-5;
    c.atol = r->exact ? 0.0 : 1e-4; /* sums of a thousand terms of magnitude 1 that cancel */
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm_quant");

    quant_find_family();
    tcase_add_loop_test(t, every_type, 0, ROWS);
    tcase_add_loop_test(t, rows_alone, 0, 5);
    tcase_add_loop_test(t, wild_numbers, 0, QUANT_TYPES);
    tcase_add_loop_test(t, segments, 0, 4);
    tcase_add_loop_test(t, gated, 0, 4);
    tcase_add_loop_test(t, experts, 0, EXPERT_ROWS);
    tcase_add_loop_test(t, operators, 0, (int)(sizeof(op_rows) / sizeof(op_rows[0])));
    tcase_add_test(t, sizes_and_refusals);
    return kit_main("cuda lm quant", t);
}
