/* Products of language models: every float row against sums in double; the bits of a row do not
 * depend on the number of rows, its place, the division of work, or how leaves are dealt out. */
#include "tests/kernels/lm_check.h"

/* rows of float weights that this machine runs */
static const trmi_lm_type *row_at(int index)
{
    for (int i = 0; trmi_lm_type_at(i) != NULL; i++) {
        const trmi_lm_type *type = trmi_lm_type_at(i);

        if (!trm_dtype_is_block(type->dtype) && type->isa <= trmi_cpu_isa() && index-- == 0)
            return type;
    }
    return NULL;
}

#define ROWS_MAX 16 /* of the float rows in lm_types.def */

/* A weight, packed, and activations, converted. */
typedef struct fixture {
    const trmi_lm_type *type;
    size_t n, k, m;
    void *file, *packed, *converted;
    float *plain, *x;
    trmi_lm_weight w;
    const void **rows;
} fixture;

static void fixture_init(fixture *f, const trmi_lm_type *type, size_t n, size_t k, size_t m)
{
    memset(f, 0, sizeof(*f));
    f->type = type;
    f->n = n;
    f->k = k;
    f->m = m;
    f->file = lm_random_weights(type->dtype, n * k, &f->plain);
    f->x = lm_random_floats(m * k);
    f->w = trmi_lm_weight_of(type, n, k, NULL);
    ck_assert_uint_eq(f->w.panel_bytes % 64, 0);
    ck_assert_int_le(type->rows_max * type->panels_many, TRMI_LM_TILE_MAX);
    ck_assert_int_le(type->panels_many, type->panels_one);
    ck_assert_int_le(type->panels_one, TRMI_LM_TILE_MAX);
    f->w.data = f->packed = lm_alloc(trmi_lm_weight_bytes(&f->w));
    trmi_lm_weight_pack(&f->w, f->file, k * trm_dtype_bytes(type->dtype), 0, f->packed);
    f->rows = lm_alloc(m * sizeof(*f->rows));
    f->converted = lm_alloc(m * trmi_lm_row_stride(type, k));
    trmi_lm_rows_convert(type, f->x, k, m, k, f->converted, f->rows);
}

static void fixture_fini(fixture *f)
{
    trm_aligned_free(f->file);
    trm_aligned_free(f->packed);
    trm_aligned_free(f->converted);
    trm_aligned_free(f->plain);
    trm_aligned_free(f->x);
    trm_aligned_free(f->rows);
}

static const trmi_lm_leaves *whole(size_t k)
{
    static trmi_lm_leaves l;

    ck_assert_int_eq(trmi_lm_leaves_init(&l, k, 0, 0, 0), TRM_OK);
    return &l;
}

static trmi_lm_product product_of(const fixture *f, float *out)
{
    return (trmi_lm_product){.weight = &f->w,
                             .leaves = whole(f->k),
                             .rows = f->rows,
                             .m = f->m,
                             .out = out,
                             .out_stride = f->n,
                             .out_part_stride = f->n * f->m};
}

/* Sums of K terms in fp32, each step rounding by at most 2^-24 of a partial sum that is at most the
 * sum of magnitudes; errors add up like a random walk, 4 standard deviations. Weights and rounded
 * activations are exact in fp32, so all dtypes have the same bound. */
static double allowed(size_t k, double magnitude)
{
    return ldexp(1.0, -24) * (2.0 + 4.0 * sqrt((double)k)) * magnitude;
}

static void check_truth(const fixture *f, const float *bias, const float *out)
{
    trm_dtype act = f->type->act;

    for (size_t r = 0; r < f->m; r++)
        for (size_t n = 0; n < f->n; n++) {
            double want = bias != NULL ? (double)bias[n] : 0.0, magnitude = fabs(want);

            for (size_t i = 0; i < f->k; i++) {
                float x = f->x[r * f->k + i];
                double v;

                x = act == TRM_DTYPE_BF16  ? trm_bf16_to_f32(trm_f32_to_bf16(x))
                    : act == TRM_DTYPE_F16 ? trm_f16_to_f32(trm_f32_to_f16(x))
                                           : x;
                v = (double)x * (double)f->plain[n * f->k + i];
                want += v;
                magnitude += fabs(v);
            }
            ck_assert_msg(fabs((double)out[r * f->n + n] - want) <= allowed(f->k, magnitude),
                          "%s N %zu K %zu M %zu: [%zu, %zu] is %.9g, want %.9g", f->type->name,
                          f->n, f->k, f->m, r, n, (double)out[r * f->n + n], want);
        }
}

static const struct {
    const char *name;
    size_t n, k, m;
} sizes[] = {{"one of all", 1, 1, 1},      {"no rows", 16, 8, 0},
             {"nothing to sum", 17, 0, 3}, {"no outputs", 0, 8, 2},
             {"odd K", 16, 33, 1},         {"odd all", 35, 77, 5},
             {"full tile", 32, 64, 12},    {"a tile and one", 96, 130, 13},
             {"many rows", 50, 96, 100},   {"many outputs", 1111, 48, 1},
             {"long K", 20, 3001, 7}};

START_TEST(truth)
{
    const trmi_lm_type *type = row_at(_i);

    for (size_t s = 0; type != NULL && s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        fixture f;
        float *out, *bias;
        trmi_lm_product p;

        fixture_init(&f, type, sizes[s].n, sizes[s].k, sizes[s].m);
        out = lm_alloc((f.n * f.m + 16) * sizeof(float));
        bias = lm_random_floats(f.n);
        p = product_of(&f, out);
        trmi_lm_products_run(&p, 1);
        check_truth(&f, NULL, out);
        p.bias = bias;
        trmi_lm_products_run(&p, 1);
        check_truth(&f, bias, out);
        for (size_t i = 0; i < 16; i++) /* nothing behind the output is written */
            ck_assert_uint_eq(((const uint32_t *)(const void *)out)[f.n * f.m + i], 0xa5a5a5a5u);
        trm_aligned_free(out);
        trm_aligned_free(bias);
        fixture_fini(&f);
    }
}
END_TEST

/* each row alone, a panel at a time */
static float *rows_alone(const fixture *f)
{
    float *out = lm_alloc(f->n * f->m * sizeof(float));

    for (size_t r = 0; r < f->m; r++)
        for (size_t panel = 0; panel < f->w.panels; panel++) {
            trmi_lm_product p = product_of(f, out + r * f->n);

            p.rows += r;
            p.m = 1;
            trmi_lm_product_run(&p, 0, 1, panel, panel + 1);
        }
    return out;
}

START_TEST(rows_do_not_depend)
{
    const trmi_lm_type *type = row_at(_i);
    fixture f;
    float *want, *out;

    if (type == NULL)
        return;
    fixture_init(&f, type, 150, 70, 40);
    want = rows_alone(&f);
    out = lm_alloc(f.n * f.m * sizeof(float));
    for (size_t m = 1; m <= f.m; m++) {
        size_t at = lm_below(f.m - m + 1);
        trmi_lm_product p = product_of(&f, out);

        p.rows += at;
        p.m = m;
        trmi_lm_products_run(&p, 1);
        ck_assert_msg(memcmp(out, want + at * f.n, m * f.n * sizeof(float)) == 0, "%s, %zu rows",
                      type->name, m);
        memset(out, 0, f.n * m * sizeof(float));
        for (size_t row = 0; row < m;) { /* random pieces */
            size_t rows = 1 + lm_below(m - row);

            for (size_t panel = 0; panel < f.w.panels;) {
                size_t panels = 1 + lm_below(f.w.panels - panel);

                trmi_lm_product_run(&p, row, row + rows, panel, panel + panels);
                panel += panels;
            }
            row += rows;
        }
        ck_assert_msg(memcmp(out, want + at * f.n, m * f.n * sizeof(float)) == 0,
                      "%s, %zu rows in pieces", type->name, m);
    }
    trm_aligned_free(want);
    trm_aligned_free(out);
    fixture_fini(&f);
}
END_TEST

/* several products of different shapes at once, over 1 to 5 threads, are each product alone */
START_TEST(teams)
{
    static const size_t shapes[][3] = {{400, 64, 1}, {90, 256, 0}, {33, 640, 70}, {1000, 32, 3}};
    const trmi_lm_type *type = row_at(_i);
    trmi_lm_product p[4];
    trmi_lm_leaves leaves[4];
    fixture f[4];
    float *want[4], *out[4];

    if (type == NULL)
        return;
    for (int i = 0; i < 4; i++) {
        fixture_init(&f[i], type, shapes[i][0], shapes[i][1], shapes[i][2]);
        out[i] = lm_alloc(f[i].n * f[i].m * sizeof(float));
        want[i] = rows_alone(&f[i]);
        leaves[i] = *whole(f[i].k);
        p[i] = product_of(&f[i], out[i]);
        p[i].leaves = &leaves[i];
    }
    for (int threads = 1; threads <= 5; threads++) {
        trm_team_init(threads);
        for (int i = 0; i < 4; i++)
            memset(out[i], 0, f[i].n * f[i].m * sizeof(float));
        trmi_lm_products_run(p, 4);
        for (int i = 0; i < 4; i++)
            ck_assert_msg(memcmp(out[i], want[i], f[i].n * f[i].m * sizeof(float)) == 0,
                          "%s, product %d, %d threads", type->name, i, threads);
    }
    trm_team_init(2);
    for (int i = 0; i < 4; i++) {
        trm_aligned_free(out[i]);
        trm_aligned_free(want[i]);
        fixture_fini(&f[i]);
    }
}
END_TEST

/* parts of a rank that holds leaves [first, first + count) */
static float *run_leaves(const trmi_lm_type *type, const fixture *all, size_t leaf, int first,
                         int count, int leaves, lm_part *parts, int *part_count)
{
    size_t k = leaf * (size_t)count, elem = trm_dtype_bytes(type->dtype);
    fixture f = {.type = type, .n = all->n, .k = k, .m = all->m};
    trm_tree_part tree[TRM_TREE_PARTS_MAX];
    trmi_lm_leaves l;
    trmi_lm_product p;
    float *out;
    int n;

    f.w = trmi_lm_weight_of(type, f.n, k, NULL);
    f.w.data = f.packed = lm_alloc(trmi_lm_weight_bytes(&f.w));
    trmi_lm_weight_pack(&f.w, (const char *)all->file + (size_t)first * leaf * elem, all->k * elem,
                        0, f.packed);
    f.rows = lm_alloc(f.m * sizeof(*f.rows));
    f.converted = lm_alloc(f.m * trmi_lm_row_stride(type, k));
    trmi_lm_rows_convert(type, all->x + (size_t)first * leaf, all->k, f.m, k, f.converted, f.rows);
    ck_assert_int_eq(trmi_lm_leaves_init(&l, k, leaf, first, leaves), TRM_OK);
    n = trm_tree_parts(first, count, leaves, tree);
    ck_assert_int_eq(l.parts, n);
    out = lm_alloc((size_t)n * f.n * f.m * sizeof(float));
    p = product_of(&f, out);
    p.leaves = &l;
    trmi_lm_products_run(&p, 1);
    for (int i = 0; i < n; i++)
        parts[(*part_count)++] = (lm_part){tree[i].lo, tree[i].hi, out + (size_t)i * f.n * f.m};
    trm_aligned_free(f.packed);
    trm_aligned_free(f.converted);
    trm_aligned_free(f.rows);
    return out;
}

START_TEST(leaves_do_not_depend)
{
    static const struct {
        size_t leaf;
        int leaves;
    } cuts[] = {{32, 1}, {32, 5}, {2, 128}, {64, 12}, {6, 37}, {32, 64}};
    const trmi_lm_type *type = row_at(_i);

    for (size_t c = 0; type != NULL && c < sizeof(cuts) / sizeof(cuts[0]); c++) {
        int leaves = cuts[c].leaves;
        fixture f;
        float *want = NULL, *sum;

        fixture_init(&f, type, 40, cuts[c].leaf * (size_t)leaves, 14);
        sum = lm_alloc(f.n * f.m * sizeof(float));
        for (int ranks = 1; ranks <= 4 && ranks <= leaves; ranks++) {
            lm_part parts[4 * TRM_TREE_PARTS_MAX];
            float *outs[4];
            int part_count = 0, first = 0;

            for (int r = 0; r < ranks; r++) { /* uneven */
                int left = ranks - 1 - r, most = leaves - first - left;
                int count = left == 0 ? most : 1 + (int)lm_below((size_t)most);

                outs[r] =
                    run_leaves(type, &f, cuts[c].leaf, first, count, leaves, parts, &part_count);
                first += count;
            }
            lm_tree_sum(parts, part_count, 0, leaves, f.n * f.m, sum);
            if (ranks == 1) {
                ck_assert_int_eq(part_count, 1);
                check_truth(&f, NULL, sum);
                want = sum;
                sum = lm_alloc(f.n * f.m * sizeof(float));
            } else {
                ck_assert_msg(memcmp(sum, want, f.n * f.m * sizeof(float)) == 0,
                              "%s: %d leaves of %zu, %d ranks", type->name, leaves, cuts[c].leaf,
                              ranks);
            }
            for (int r = 0; r < ranks; r++)
                trm_aligned_free(outs[r]);
        }
        trm_aligned_free(sum);
        trm_aligned_free(want);
        fixture_fini(&f);
    }
}
END_TEST

/* A leaf's sum is K in order from zero: the same bits as the fp32 sum of its own product. */
START_TEST(leaf_sums)
{
    const trmi_lm_type *type = row_at(_i);
    lm_part parts[TRM_TREE_PARTS_MAX], leaf_parts[7];
    float *outs[7], *all, *sum;
    int count = 0, one = 0;
    fixture f;

    if (type == NULL)
        return;
    fixture_init(&f, type, 20, 7 * 32, 3);
    all = run_leaves(type, &f, 32, 0, 7, 7, parts, &count);
    for (int i = 0; i < 7; i++)
        outs[i] = run_leaves(type, &f, 32, i, 1, 7, leaf_parts, &one);
    sum = lm_alloc(f.n * f.m * sizeof(float));
    lm_tree_sum(leaf_parts, 7, 0, 7, f.n * f.m, sum);
    ck_assert_mem_eq(sum, all, f.n * f.m * sizeof(float));
    for (int i = 0; i < 7; i++)
        trm_aligned_free(outs[i]);
    trm_aligned_free(all);
    trm_aligned_free(sum);
    fixture_fini(&f);
}
END_TEST

START_TEST(not_numbers)
{
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    const trmi_lm_type *type = row_at(_i);

    for (int v = 0; type != NULL && v < 3; v++) {
        fixture f;
        float *out, *clean;
        trmi_lm_product p;

        fixture_init(&f, type, 24, 35, 13);
        out = lm_alloc(f.n * f.m * sizeof(float));
        clean = rows_alone(&f);
        f.x[4 * f.k + 34] = odd[v];
        trmi_lm_rows_convert(type, f.x, f.k, f.m, f.k, f.converted, f.rows);
        p = product_of(&f, out);
        trmi_lm_products_run(&p, 1);
        for (size_t r = 0; r < f.m; r++)
            for (size_t n = 0; n < f.n; n++) {
                float got = out[r * f.n + n], weight = f.plain[n * f.k + 34];

                if (r != 4)
                    ck_assert_mem_eq(&got, &clean[r * f.n + n], sizeof(got));
                else if (v == 0)
                    ck_assert_msg(isnan(got), "%s: %g for NaN", type->name, (double)got);
                else
                    ck_assert_msg(weight == 0.0f ? isnan(got) : got == odd[v] * weight,
                                  "%s: %g for infinity", type->name, (double)got);
            }
        trm_aligned_free(out);
        trm_aligned_free(clean);
        fixture_fini(&f);
    }
}
END_TEST

START_TEST(transposed_packs_the_same)
{
    const trmi_lm_type *type = row_at(_i);
    fixture f;
    size_t elem, bytes;
    char *turned, *packed;

    if (type == NULL)
        return;
    fixture_init(&f, type, 53, 41, 1);
    elem = trm_dtype_bytes(type->dtype);
    bytes = trmi_lm_weight_bytes(&f.w);
    turned = lm_alloc(f.n * f.k * elem);
    packed = lm_alloc(bytes);
    for (size_t n = 0; n < f.n; n++)
        for (size_t k = 0; k < f.k; k++)
            memcpy(turned + (k * f.n + n) * elem, (const char *)f.file + (n * f.k + k) * elem,
                   elem);
    ck_assert_int_eq(trmi_lm_weight_pack_transposed(&f.w, turned, packed), TRM_OK);
    ck_assert_mem_eq(packed, f.packed, bytes);
    trm_aligned_free(turned);
    trm_aligned_free(packed);
    fixture_fini(&f);
}
END_TEST

/* K, leaf, first, leaves that do not fit */
static const struct {
    const char *name;
    size_t k, leaf;
    int64_t first, leaves;
} refused[] = {{"not whole leaves", 100, 32, 0, 4},       {"more than the tree", 128, 32, 0, 3},
               {"past the tree's end", 64, 32, 3, 4},     {"no leaves", 0, 32, 0, 4},
               {"before the tree", 64, 32, -1, 4},        {"too many", 129 * 32, 32, 0, 129},
               {"first overflows", 64, 32, INT64_MAX, 4}, {"no tree", 32, 32, 0, 0}};

START_TEST(leaves_refused)
{
    trmi_lm_leaves l;

    ck_assert_msg(trmi_lm_leaves_init(&l, refused[_i].k, refused[_i].leaf, refused[_i].first,
                                      refused[_i].leaves) == TRM_ERR_INVALID_ARG,
                  "%s", refused[_i].name);
}
END_TEST

START_TEST(types)
{
    ck_assert_ptr_null(row_at(ROWS_MAX)); /* loop tests see all rows */
    ck_assert_ptr_nonnull(row_at(0));
    ck_assert_ptr_null(trmi_lm_type_at(-1));
    ck_assert_ptr_null(trmi_lm_type_get(TRM_DTYPE_F64, TRM_DTYPE_NONE));
    ck_assert_ptr_null(trmi_lm_type_get(TRM_DTYPE_F32, TRM_DTYPE_BF16));
    for (int i = 0; row_at(i) != NULL; i++) {
        const trmi_lm_type *type = row_at(i), *best = trmi_lm_type_get(type->dtype, type->act);

        ck_assert_ptr_nonnull(best);
        ck_assert_int_ge(best->isa, type->isa);
        ck_assert_int_eq(best->act, type->act);
        if (type->act == TRM_DTYPE_F32)
            ck_assert_ptr_eq(best, trmi_lm_type_get(type->dtype, TRM_DTYPE_NONE));
    }
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm linear");

    trm_team_init(2);
    tcase_add_test(t, types);
    tcase_add_loop_test(t, truth, 0, ROWS_MAX);
    tcase_add_loop_test(t, rows_do_not_depend, 0, ROWS_MAX);
    tcase_add_loop_test(t, teams, 0, ROWS_MAX);
    tcase_add_loop_test(t, leaves_do_not_depend, 0, ROWS_MAX);
    tcase_add_loop_test(t, leaf_sums, 0, ROWS_MAX);
    tcase_add_loop_test(t, not_numbers, 0, ROWS_MAX);
    tcase_add_loop_test(t, transposed_packs_the_same, 0, ROWS_MAX);
    tcase_add_loop_test(t, leaves_refused, 0, (int)(sizeof(refused) / sizeof(refused[0])));
    return lm_main(t, "lm linear");
}
