/* Products with fp8 weights: every row of the types against sums in double; the bits of a row do
 * not depend on rows beside it, on instruction sets of vectors, or on how leaves are dealt out. */
#include "base/f8.h"
#include "kernels/cpu/lm_linear_f8.h"
#include "tests/kernels/lm_check.h"

/* rows of fp8 weights that this machine runs */
static const trmi_lm_type *row_at(int index)
{
    for (int i = 0; trmi_lm_type_at(i) != NULL; i++) {
        const trmi_lm_type *type = trmi_lm_type_at(i);

        if (trm_dtype_is_f8(type->dtype) && type->isa <= trmi_cpu_isa() && index-- == 0)
            return type;
    }
    return NULL;
}

#define ROWS_MAX 12 /* of lm_types.def */

static size_t file_bytes(trm_dtype dtype, size_t k)
{
    return k / trm_dtype_block_elems(dtype) * trm_dtype_block_bytes(dtype);
}

/* Random rows of a weight: all bytes but NaN, and scales as they should be. */
static unsigned char *random_rows(trm_dtype dtype, size_t n, size_t k)
{
    size_t block = trm_dtype_block_bytes(dtype), row = file_bytes(dtype, k);
    unsigned char *rows = lm_alloc(n * row);

    for (size_t r = 0; r < n; r++) {
        float scale = (1.5f + lm_uniform()) * 0.01f;

        for (size_t i = 0; i < row; i++) {
            unsigned char b = (unsigned char)lm_random();

            rows[r * row + i] = trm_e4m3_is_nan(b) ? 0x01 : b;
        }
        for (size_t b = 0; b < row; b += block) {
            if (dtype == TRM_DTYPE_F8_128)
                scale = (1.5f + lm_uniform()) * 0.01f;
            memcpy(rows + r * row + b, &scale, sizeof(scale));
        }
    }
    return rows;
}

/* A weight of all of K or columns [from, from + k) of it, packed; activations, converted. */
typedef struct fixture {
    const trmi_lm_type *type;
    size_t n, k, m;
    unsigned char *file, *packed, *converted;
    float *plain, *x;
    trmi_lm_weight w;
    trmi_lm_leaves leaves;
    const void **rows;
} fixture;

static void prepare(fixture *f, size_t from, size_t k_all)
{
    f->w = trmi_lm_weight_of(f->type, f->n, f->k, NULL);
    ck_assert_uint_eq(f->w.panel_bytes % 64, 0);
    ck_assert_int_le(f->type->rows_max * f->type->panels_many, TRMI_LM_TILE_MAX);
    f->w.data = f->packed = lm_alloc(trmi_lm_weight_bytes(&f->w));
    trmi_lm_weight_pack(&f->w, f->file + file_bytes(f->type->dtype, from),
                        file_bytes(f->type->dtype, k_all), 0, f->packed);
    f->rows = lm_alloc(f->m * sizeof(*f->rows));
    f->converted = lm_alloc(f->m * trmi_lm_row_stride(f->type, f->k));
    trmi_lm_rows_convert(f->type, f->x + from, k_all, f->m, f->k, f->converted, f->rows);
    ck_assert_int_eq(trmi_lm_leaves_init(&f->leaves, f->k, 0, 0, 0), TRM_OK);
}

static void unprepare(fixture *f)
{
    trm_aligned_free(f->packed);
    trm_aligned_free(f->converted);
    trm_aligned_free(f->rows);
}

static void fixture_init(fixture *f, const trmi_lm_type *type, size_t n, size_t k, size_t m)
{
    *f = (fixture){.type = type, .n = n, .k = k, .m = m};
    f->file = random_rows(type->dtype, n, k);
    f->x = lm_random_floats(m * k);
    f->plain = lm_alloc(n * k * sizeof(float));
    for (size_t r = 0; r < n; r++)
        trmi_lm_dequantize(type->dtype, f->file + r * file_bytes(type->dtype, k), k,
                           f->plain + r * k);
    prepare(f, 0, k);
}

static void fixture_fini(fixture *f)
{
    unprepare(f);
    trm_aligned_free(f->file);
    trm_aligned_free(f->plain);
    trm_aligned_free(f->x);
}

static trmi_lm_product product_of(const fixture *f, float *out)
{
    return (trmi_lm_product){.weight = &f->w,
                             .leaves = &f->leaves,
                             .rows = f->rows,
                             .m = f->m,
                             .out = out,
                             .out_stride = f->n,
                             .out_part_stride = f->n * f->m};
}

/* As in test_lm_linear.c; one rounding more of each weight, by the scale. */
static void check_truth(const fixture *f, const float *out)
{
    for (size_t r = 0; r < f->m; r++)
        for (size_t n = 0; n < f->n; n++) {
            double want = 0, magnitude = 0;

            for (size_t i = 0; i < f->k; i++) {
                float x = f->x[r * f->k + i];
                double v;

                if (f->type->act == TRM_DTYPE_BF16)
                    x = trm_bf16_to_f32(trm_f32_to_bf16(x));
                v = (double)x * (double)f->plain[n * f->k + i];
                want += v;
                magnitude += fabs(v);
            }
            ck_assert_msg(fabs((double)out[r * f->n + n] - want) <=
                              ldexp(1.0, -24) * (3.0 + 4.0 * sqrt((double)f->k)) * magnitude,
                          "%s N %zu K %zu M %zu: [%zu, %zu] is %.9g, want %.9g", f->type->name,
                          f->n, f->k, f->m, r, n, (double)out[r * f->n + n], want);
        }
}

static const struct {
    const char *name;
    size_t n, k, m;
} sizes[] = {
    {"one output", 1, 128, 1},       {"no rows", 16, 128, 0},        {"nothing to sum", 17, 0, 3},
    {"no outputs", 0, 128, 2},       {"full tile", 32, 256, 12},     {"odd all", 35, 384, 5},
    {"a tile and one", 96, 128, 13}, {"many rows", 50, 128, 100},    {"many outputs", 1111, 128, 1},
    {"long K", 20, 3072, 7},         {"no blocks of 128", 40, 96, 9}};

START_TEST(truth)
{
    const trmi_lm_type *type = row_at(_i);

    for (size_t s = 0; type != NULL && s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        fixture f;
        float *out;
        trmi_lm_product p;

        if (sizes[s].k % type->k_multiple != 0)
            continue;
        fixture_init(&f, type, sizes[s].n, sizes[s].k, sizes[s].m);
        out = lm_alloc((f.n * f.m + 16) * sizeof(float));
        p = product_of(&f, out);
        trmi_lm_products_run(&p, 1);
        check_truth(&f, out);
        for (size_t i = 0; i < 16; i++)
            ck_assert_uint_eq(((const uint32_t *)(const void *)out)[f.n * f.m + i], 0xa5a5a5a5u);
        trm_aligned_free(out);
        fixture_fini(&f);
    }
}
END_TEST

/* Every row alone and a panel at a time: what a product of any shape must be, to the bit. */
START_TEST(rows_do_not_depend)
{
    const trmi_lm_type *type = row_at(_i);
    fixture f;
    float *want, *out;

    if (type == NULL)
        return;
    fixture_init(&f, type, 150, 256, 40);
    want = lm_alloc(f.n * f.m * sizeof(float));
    out = lm_alloc(f.n * f.m * sizeof(float));
    for (size_t r = 0; r < f.m; r++)
        for (size_t panel = 0; panel < f.w.panels; panel++) {
            trmi_lm_product p = product_of(&f, want + r * f.n);

            p.rows += r;
            p.m = 1;
            trmi_lm_product_run(&p, 0, 1, panel, panel + 1);
        }
    for (size_t m = 1; m <= f.m; m++) {
        size_t at = lm_below(f.m - m + 1);
        trmi_lm_product p = product_of(&f, out);

        p.rows += at;
        p.m = m;
        trmi_lm_products_run(&p, 1);
        ck_assert_msg(memcmp(out, want + at * f.n, m * f.n * sizeof(float)) == 0, "%s, %zu rows",
                      type->name, m);
    }
    trm_aligned_free(want);
    trm_aligned_free(out);
    fixture_fini(&f);
}
END_TEST

/* Instruction sets of vectors do the same in the same order: ranks may differ in them. */
START_TEST(vectors_agree)
{
    for (int i = 0; i < ROWS_MAX; i++) {
        const trmi_lm_type *type = row_at(i);

        for (int k = 0; type != NULL && k < i; k++) {
            const trmi_lm_type *other = row_at(k);
            fixture f, g;
            float *a, *b;
            trmi_lm_product p, q;

            if (other->dtype != type->dtype || other->act != type->act ||
                other->isa == TRM_ISA_SCALAR)
                continue;
            ck_assert_str_eq(type->form, other->form);
            fixture_init(&f, type, 45, 384, 7);
            g = f;
            g.type = g.w.type = other;
            a = lm_alloc(f.n * f.m * sizeof(float));
            b = lm_alloc(f.n * f.m * sizeof(float));
            p = product_of(&f, a);
            q = product_of(&g, b);
            trmi_lm_products_run(&p, 1);
            trmi_lm_products_run(&q, 1);
            ck_assert_msg(memcmp(a, b, f.n * f.m * sizeof(float)) == 0, "%s, %s", type->name,
                          other->name);
            trm_aligned_free(a);
            trm_aligned_free(b);
            fixture_fini(&f);
        }
    }
}
END_TEST

/* One rank's leaves, its parts of the sum appended. */
static float *run_leaves(const fixture *all, size_t leaf, int first, int count, int leaves,
                         lm_part *parts, int *part_count)
{
    fixture f = *all;
    trm_tree_part tree[TRM_TREE_PARTS_MAX];
    int n = trm_tree_parts(first, count, leaves, tree);
    float *out = lm_alloc((size_t)n * f.n * f.m * sizeof(float));
    trmi_lm_product p;

    f.k = leaf * (size_t)count;
    prepare(&f, (size_t)first * leaf, all->k);
    ck_assert_int_eq(trmi_lm_leaves_init(&f.leaves, f.k, leaf, first, leaves), TRM_OK);
    p = product_of(&f, out);
    trmi_lm_products_run(&p, 1);
    for (int i = 0; i < n; i++)
        parts[(*part_count)++] = (lm_part){tree[i].lo, tree[i].hi, out + (size_t)i * f.n * f.m};
    unprepare(&f);
    return out;
}

START_TEST(leaves_do_not_depend)
{
    static const struct {
        size_t leaf;
        int leaves;
    } cuts[] = {{128, 1}, {32, 12}, {128, 7}, {256, 4}};
    const trmi_lm_type *type = row_at(_i);

    for (size_t c = 0; type != NULL && c < sizeof(cuts) / sizeof(cuts[0]); c++) {
        int leaves = cuts[c].leaves;
        float *want, *sum;
        fixture f;

        if (cuts[c].leaf % type->k_multiple != 0)
            continue;
        fixture_init(&f, type, 40, cuts[c].leaf * (size_t)leaves, 14);
        want = lm_alloc(f.n * f.m * sizeof(float));
        sum = lm_alloc(f.n * f.m * sizeof(float));
        for (int ranks = 1; ranks <= 4 && ranks <= leaves; ranks++) {
            lm_part parts[4 * TRM_TREE_PARTS_MAX];
            float *outs[4];
            int part_count = 0, first = 0;

            for (int r = 0; r < ranks; r++) { /* uneven */
                int left = ranks - 1 - r, most = leaves - first - left;
                int count = left == 0 ? most : 1 + (int)lm_below((size_t)most);

                outs[r] = run_leaves(&f, cuts[c].leaf, first, count, leaves, parts, &part_count);
                first += count;
            }
            lm_tree_sum(parts, part_count, 0, leaves, f.n * f.m, ranks == 1 ? want : sum);
            if (ranks == 1)
                check_truth(&f, want);
            else
                ck_assert_msg(memcmp(sum, want, f.n * f.m * sizeof(float)) == 0,
                              "%s: %d leaves of %zu, %d ranks", type->name, leaves, cuts[c].leaf,
                              ranks);
            for (int r = 0; r < ranks; r++)
                trm_aligned_free(outs[r]);
        }
        trm_aligned_free(sum);
        trm_aligned_free(want);
        fixture_fini(&f);
    }
}
END_TEST

/* Each of the 256 elements times a scale: the product of one element is exact but for the scale's
 * rounding, so it is what dequantising says. */
START_TEST(every_element)
{
    enum { N = 256, K = 128 };
    static const float scales[] = {1.0f, 0.0123f, 0x1.8p-126f, 0x1p100f, 0.0f, -2.5f};
    const trmi_lm_type *type = row_at(_i);

    for (size_t s = 0; type != NULL && s < sizeof(scales) / sizeof(scales[0]); s++) {
        fixture f;
        float out[N];
        trmi_lm_product p;
        size_t row;

        fixture_init(&f, type, N, K, 1);
        unprepare(&f);
        row = file_bytes(type->dtype, K);
        memset(f.file, 0, N * row);
        for (size_t n = 0; n < N; n++) {
            for (size_t b = 0; b < row; b += trm_dtype_block_bytes(type->dtype))
                memcpy(f.file + n * row + b, &scales[s], sizeof(float));
            f.file[n * row + 4 + 3] = (unsigned char)n;
        }
        for (size_t i = 0; i < K; i++)
            f.x[i] = i == 3 ? 1.0f : 0.5f;
        prepare(&f, 0, K);
        p = product_of(&f, out);
        trmi_lm_products_run(&p, 1);
        for (size_t n = 0; n < N; n++) {
            float want = scales[s] * trm_e4m3_to_f32((unsigned char)n);

            ck_assert_msg(isnan(want) ? isnan(out[n]) : out[n] == want, "%s: %a * 0x%zx is %a",
                          type->name, (double)scales[s], n, (double)out[n]);
        }
        fixture_fini(&f);
    }
}
END_TEST

/* NaN in one row of a weight or of the activations reaches the outputs that read it, no others. */
START_TEST(not_numbers)
{
    const trmi_lm_type *type = row_at(_i);
    trmi_lm_product p;
    fixture f;
    float *out;

    if (type == NULL)
        return;
    fixture_init(&f, type, 24, 256, 13);
    unprepare(&f);
    f.file[5 * file_bytes(type->dtype, f.k) + file_bytes(type->dtype, 128) + 9] = 0xff;
    f.x[4 * f.k + 255] = NAN;
    prepare(&f, 0, f.k);
    out = lm_alloc(f.n * f.m * sizeof(float));
    p = product_of(&f, out);
    trmi_lm_products_run(&p, 1);
    for (size_t r = 0; r < f.m; r++)
        for (size_t n = 0; n < f.n; n++)
            ck_assert_msg((isnan(out[r * f.n + n]) != 0) == (r == 4 || n == 5), "%s: [%zu, %zu]",
                          type->name, r, n);
    trm_aligned_free(out);
    fixture_fini(&f);
}
END_TEST

/* Decoding is bound by memory. */
START_TEST(panels_are_small)
{
    const trmi_lm_type *type = row_at(_i);

    if (type != NULL)
        ck_assert_double_le((double)type->panel_bytes(4096) * 8 / (16 * 4096), 8.26);
}
END_TEST

START_TEST(types)
{
    static const trm_dtype dtypes[] = {TRM_DTYPE_F8_ROW, TRM_DTYPE_F8_128};

    ck_assert_ptr_null(row_at(ROWS_MAX)); /* loop tests see all rows */
    for (int i = 0; i < 2; i++) {
        const trmi_lm_type *type = trmi_lm_type_get(dtypes[i], TRM_DTYPE_NONE);

        ck_assert_ptr_nonnull(type);
        ck_assert_int_eq(type->act, TRM_DTYPE_F32);
        ck_assert_uint_eq(type->k_multiple, trm_dtype_block_elems(dtypes[i]));
        ck_assert_ptr_nonnull(trmi_lm_type_get(dtypes[i], TRM_DTYPE_BF16));
        ck_assert_ptr_null(trmi_lm_type_get(dtypes[i], TRM_DTYPE_I8));
    }
}
END_TEST

/* From the definition: sign, exponent of bias 7, three bits of fraction. */
START_TEST(numbers)
{
    for (int b = 0; b < 256; b++) {
        int e = b >> 3 & 15, m = b & 7;
        double want = e == 0 ? ldexp(m, -9) : ldexp(8 + m, e - 10);
        float got = trm_e4m3_to_f32((unsigned char)b);

        if ((b & 127) == 127)
            ck_assert(isnan(got));
        else
            ck_assert_msg((double)got == (b < 128 ? want : -want), "0x%x is %a", b, (double)got);
        ck_assert_int_eq(signbit(got) != 0, b >= 128);
    }
    ck_assert_float_eq(trm_e4m3_to_f32(0x7e), 448.0f);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm fp8");

    trm_team_init(2);
    tcase_add_test(t, numbers);
    tcase_add_test(t, types);
    tcase_add_loop_test(t, truth, 0, ROWS_MAX);
    tcase_add_loop_test(t, rows_do_not_depend, 0, ROWS_MAX);
    tcase_add_test(t, vectors_agree);
    tcase_add_loop_test(t, leaves_do_not_depend, 0, ROWS_MAX);
    tcase_add_loop_test(t, every_element, 0, ROWS_MAX);
    tcase_add_loop_test(t, not_numbers, 0, ROWS_MAX);
    tcase_add_loop_test(t, panels_are_small, 0, ROWS_MAX);
    return lm_main(t, "lm fp8");
}
