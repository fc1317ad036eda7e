/* Products with block types of language models' weights: against sums in double, and every
 * instruction set against plain C, bit for bit. */
#include "kernels/cpu/lm_linear_quant.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t bits_of(float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof(bits));
    return bits;
}

static uint32_t rng = 1;

static uint32_t draw(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 17;
    return rng ^= rng << 5;
}

static float uniform(void) /* [-1, 1) */
{
    return (float)(int32_t)draw() * 0x1p-31f;
}

static size_t file_bytes(trm_dtype t, size_t k)
{
    return k / trm_dtype_block_elems(t) * trm_dtype_block_bytes(t);
}

/* Where the fp16 numbers of a block stand, -1: no second one. */
static const struct field {
    trm_dtype dtype;
    int d, m;
} fields[] = {
    {TRM_DTYPE_Q4_0, 0, -1},   {TRM_DTYPE_Q4_1, 0, 2},  {TRM_DTYPE_Q5_0, 0, -1},
    {TRM_DTYPE_Q5_1, 0, 2},    {TRM_DTYPE_Q8_0, 0, -1}, {TRM_DTYPE_Q2_K, 80, 82},
    {TRM_DTYPE_Q3_K, 108, -1}, {TRM_DTYPE_Q4_K, 0, 2},  {TRM_DTYPE_Q5_K, 0, 2},
    {TRM_DTYPE_Q6_K, 208, -1},
};

static const struct field *field_of(trm_dtype t)
{
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].dtype == t)
            return &fields[i];
    ck_abort_msg("no block type");
    return NULL;
}

/* Random bits in every field but the fp16 numbers, which are ordinary ones. */
static unsigned char *random_rows(trm_dtype t, size_t n, size_t k)
{
    const struct field *f = field_of(t);
    size_t block = trm_dtype_block_bytes(t), bytes = n * file_bytes(t, k);
    unsigned char *rows = malloc(bytes);

    ck_assert_ptr_nonnull(rows);
    for (size_t i = 0; i < bytes; i++)
        rows[i] = (unsigned char)(draw() >> 8);
    for (size_t b = 0; b < bytes; b += block) {
        uint16_t d = trm_f32_to_f16(uniform() * 0.1f), m = trm_f32_to_f16(uniform());

        memcpy(rows + b + f->d, &d, 2);
        if (f->m >= 0)
            memcpy(rows + b + f->m, &m, 2);
    }
    return rows;
}

static float *random_x(size_t m, size_t k)
{
    float *x = malloc(m * k * sizeof(float));

    ck_assert_ptr_nonnull(x);
    for (size_t i = 0; i < m * k; i++)
        x[i] = uniform() * uniform() * 3.0f;
    return x;
}

/* A weight packed in one instruction set's form, and converted rows. */
typedef struct product {
    const trmi_lm_type *type;
    size_t panels, k, panel_bytes, row_bytes;
    unsigned char *weight, *rows;
    const void *row[64];
} product;

static product product_of(const trmi_lm_type *type, const unsigned char *w, size_t w_row_bytes,
                          size_t n, size_t k, size_t k_offset, const float *x, size_t x_stride,
                          size_t m)
{
    product p = {.type = type, .panels = (n + 15) / 16, .k = k};

    p.panel_bytes = type->panel_bytes(k);
    p.row_bytes = (type->row_bytes(k) + 63) / 64 * 64;
    ck_assert_uint_eq(p.panel_bytes % 64, 0);
    p.weight = trm_aligned_malloc(p.panels * p.panel_bytes);
    p.rows = trm_aligned_malloc(m * p.row_bytes);
    memset(p.weight, 0xa5, p.panels * p.panel_bytes); /* every byte must be written */
    for (size_t i = 0; i < p.panels; i++) {
        const void *rows[TRMI_LM_PANEL];

        for (size_t j = 0; j < TRMI_LM_PANEL; j++)
            rows[j] = 16 * i + j < n ? w + (16 * i + j) * w_row_bytes : NULL;
        type->pack(rows, k, k_offset, p.weight + i * p.panel_bytes);
    }
    for (size_t r = 0; r < m; r++) {
        p.row[r] = p.rows + r * p.row_bytes;
        type->convert(x + r * x_stride, k, p.rows + r * p.row_bytes);
    }
    return p;
}

static void product_free(product *p)
{
    trm_aligned_free(p->weight);
    trm_aligned_free(p->rows);
}

static bool same(float a, float b)
{
    return bits_of(a) == bits_of(b) || (isnan(a) && isnan(b));
}

/* out[row][n] over [k_begin, k_end), with m rows a tile, or one row and as many panels as go. */
static void run(const product *p, size_t m, size_t tile_m, size_t tile_panels, size_t k_begin,
                size_t k_end, float *out)
{
    _Alignas(64) float acc[TRMI_LM_TILE_MAX * TRMI_LM_PANEL];

    ck_assert_uint_le(tile_m, (size_t)p->type->rows_max);
    for (size_t r = 0; r < m; r += tile_m)
        for (size_t i = 0; i < p->panels; i += tile_panels) {
            size_t rows = m - r < tile_m ? m - r : tile_m;
            size_t panels = p->panels - i < tile_panels ? p->panels - i : tile_panels;

            memset(acc, 0xff, sizeof(acc));
            p->type->tile(p->weight + i * p->panel_bytes, p->panel_bytes, (int)panels, p->row + r,
                          (int)rows, p->k, k_begin, k_end, acc);
            for (size_t a = 0; a < panels; a++)
                for (size_t b = 0; b < rows; b++)
                    memcpy(out + ((r + b) * p->panels + i + a) * 16, acc + (a * rows + b) * 16,
                           16 * sizeof(float));
        }
}

static const trmi_lm_type *scalar_of(const trmi_lm_type *type)
{
    const trmi_lm_type *t;

    for (int i = 0; (t = trmi_lm_type_at(i)) != NULL; i++)
        if (t->dtype == type->dtype && t->act == type->act && t->isa == TRM_ISA_SCALAR)
            return t;
    ck_abort_msg("%s has no scalar row", type->name);
    return NULL;
}

/* NULL: another type, or not on this machine. fp8: test_lm_f8.c. */
static const trmi_lm_type *block_type(int i)
{
    const trmi_lm_type *type = trmi_lm_type_at(i);

    return type->act == TRM_DTYPE_I8 && type->isa <= trmi_cpu_isa() ? type : NULL;
}

/* The sum over quantised activations in double; what it may be off by; the sum over the floats, and
 * how much that may differ. */
typedef struct truth {
    double sum, error, plain, loose;
} truth;

static truth truth_of(trm_dtype t, const void *w, size_t k, const float *x, const trmi_lm_x *row)
{
    float *plain = malloc(k * sizeof(float));
    size_t groups = k / 32;
    double size = 0;
    truth o = {0, 0, 0, 0};

    trmi_lm_dequantize(t, w, k, plain);
    for (size_t g = 0; g < groups; g++) {
        trmi_lm_group group;

        trmi_lm_group_read(t, w, g, &group);
        for (size_t i = 0; i < 32; i++) {
            double v = (double)plain[32 * g + i], q = (double)row[g].scale * row[g].q[i];
            int times = group.min[i / 16];
            double min = fabs((double)trm_f16_to_f32(group.m) * times);

            o.sum += v * q;
            o.plain += v * (double)x[32 * g + i];
            size += (fabs(v) + 2 * min) * fabs(q);           /* of all that is added */
            o.loose += fabs(v) * (double)row[g].scale * 0.5; /* half a step an element */
        }
    }
    /* every group is rounded four times, and added to a sum once or twice; gguf's floats, one
     * rounding an element, are not what a group's integers stand for */
    o.error = size * (2.0 * (double)groups + 8) * 0x1p-24;
    o.loose += o.error + size * 1e-6;
    free(plain);
    return o;
}

static const struct size {
    size_t n, k, m;
} sizes[] = {
    {1, 256, 1}, {16, 256, 8}, {37, 512, 9}, {70, 2048, 3}, {17, 11008, 2}, {5, 768, 13},
    {33, 32, 4}, {20, 64, 7},  {16, 96, 5},  {48, 896, 6}, /* no K-quants: whole blocks */
};

START_TEST(products_are_right)
{
    const trmi_lm_type *type = block_type(_i);

    for (size_t c = 0; type != NULL && c < sizeof(sizes) / sizeof(sizes[0]); c++) {
        size_t n = sizes[c].n, k = sizes[c].k, m = sizes[c].m;
        size_t bytes = file_bytes(type->dtype, k), wide = (n + 15) / 16 * 16;
        unsigned char *w;
        float *x, *out;
        product p;

        if (k % trm_dtype_block_elems(type->dtype) != 0)
            continue;
        w = random_rows(type->dtype, n, k);
        x = random_x(m, k);
        out = malloc(m * wide * sizeof(float));
        p = product_of(type, w, bytes, n, k, 0, x, k, m);
        run(&p, m, (size_t)type->rows_max, 1, 0, k, out);
        for (size_t r = 0; r < m; r++)
            for (size_t j = 0; j < n; j++) {
                truth want = truth_of(type->dtype, w + j * bytes, k, x + r * k, p.row[r]);
                double got = (double)out[r * wide + j];

                if (!(fabs(got - want.sum) <= want.error))
                    ck_abort_msg("%s: N %zu K %zu: row %zu, output %zu is %g, want %g +- %g",
                                 type->name, n, k, r, j, got, want.sum, want.error);
                if (!(fabs(got - want.plain) <= want.loose))
                    ck_abort_msg("%s: N %zu K %zu: row %zu, output %zu is %g, floats: %g +- %g",
                                 type->name, n, k, r, j, got, want.plain, want.loose);
            }
        product_free(&p);
        free(w);
        free(x);
        free(out);
    }
}
END_TEST

static void expect_same(const trmi_lm_type *type, const char *what, size_t a, size_t b,
                        const float *got, const float *want, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!same(got[i], want[i]))
            ck_abort_msg("%s: %s (%zu, %zu): element %zu is %a, want %a", type->name, what, a, b, i,
                         (double)got[i], (double)want[i]);
}

/* Bits depend neither on rows and panels of a tile nor on the instruction set. */
START_TEST(bits_are_the_same)
{
    enum { N = 100, WIDE = 112, K = 768, M = 11 };
    static float want[M * WIDE], got[M * WIDE];
    const trmi_lm_type *type = block_type(_i);
    unsigned char *w;
    size_t bytes;
    float *x;
    product p, plain;

    if (type == NULL)
        return;
    w = random_rows(type->dtype, N, K);
    x = random_x(M, K);
    bytes = file_bytes(type->dtype, K);
    plain = product_of(scalar_of(type), w, bytes, N, K, 0, x, K, M);
    p = product_of(type, w, bytes, N, K, 0, x, K, M);
    ck_assert_str_eq(type->form, plain.type->form);
    ck_assert_uint_eq(type->panel_bytes(K), plain.panel_bytes);
    ck_assert_mem_eq(p.weight, plain.weight, p.panels * p.panel_bytes);
    for (size_t r = 0; r < M; r++)
        ck_assert_mem_eq(p.row[r], plain.row[r], type->row_bytes(K));
    for (size_t begin = 0; begin <= K; begin += 32 * 7)
        for (size_t end = begin; end <= K; end += 32 * 5) {
            run(&plain, M, 1, 1, begin, end, want);
            for (size_t m = 1; m <= (size_t)type->rows_max; m++)
                for (size_t s = 1; s <= (size_t)(m == 1 ? type->panels_one : type->panels_many);
                     s++) {
                    memset(got, 0xff, sizeof(got));
                    run(&p, M, m, s, begin, end, got);
                    expect_same(type, "rows, panels of a tile", m, s, got, want, M * WIDE);
                }
        }
    product_free(&p);
    product_free(&plain);
    free(w);
    free(x);
}
END_TEST

/* A range of K is what a rank gets that holds that range alone; it may begin inside a superblock.
 */
START_TEST(ranges_are_the_same)
{
    enum { N = 16, K = 768, M = 3 };
    static float want[M * N], got[M * N];
    const trmi_lm_type *type = block_type(_i);
    unsigned char *w;
    size_t bytes, block;
    float *x;
    product whole;

    if (type == NULL)
        return;
    w = random_rows(type->dtype, N, K);
    x = random_x(M, K);
    bytes = file_bytes(type->dtype, K);
    block = trm_dtype_block_elems(type->dtype);
    whole = product_of(type, w, bytes, N, K, 0, x, K, M);
    for (size_t begin = 0; begin < K; begin += 32)
        for (size_t end = begin + 32; end <= K; end += 32 * 3) {
            product part = product_of(type, w + begin / block * trm_dtype_block_bytes(type->dtype),
                                      bytes, N, end - begin, begin % block, x + begin, K, M);

            run(&whole, M, M, 1, begin, end, want);
            run(&part, M, M, 1, 0, end - begin, got);
            expect_same(type, "range", begin, end, got, want, M * N);
            product_free(&part);
        }
    product_free(&whole);
    free(w);
    free(x);
}
END_TEST

/* The largest integers: sums of 16 bits must not saturate. */
START_TEST(largest_integers_fit)
{
    enum { N = 16, K = 256, M = 4 };
    static const unsigned char fill[] = {0x00, 0xff, 0x80, 0x7f, 0x55, 0xaa};
    static float out[M * N];
    const trmi_lm_type *type = block_type(_i);
    size_t bytes, block;
    float x[M * K];

    if (type == NULL)
        return;
    bytes = file_bytes(type->dtype, K);
    block = trm_dtype_block_bytes(type->dtype);
    for (size_t i = 0; i < M * K; i++) /* q: 127, -127, both by turns, by halves */
        x[i] = i < K ? 1.0f : i < 2 * K ? -1.0f : (i < 3 * K ? i % 2 : i / 16 % 2) ? 1.0f : -1.0f;
    for (size_t f = 0; f < sizeof(fill); f++) {
        unsigned char *w = random_rows(type->dtype, N, K);
        const struct field *at = field_of(type->dtype);
        product p;

        for (size_t i = 0; i < N * bytes; i++) {
            int in = (int)(i % block);

            if (in != at->d && in != at->d + 1 && (at->m < 0 || (in != at->m && in != at->m + 1)))
                w[i] = fill[f];
        }
        p = product_of(type, w, bytes, N, K, 0, x, K, M);
        run(&p, M, (size_t)type->rows_max < M ? (size_t)type->rows_max : M, 1, 0, K, out);
        for (size_t r = 0; r < M; r++)
            for (size_t j = 0; j < N; j++) {
                truth want = truth_of(type->dtype, w + j * bytes, K, x + r * K, p.row[r]);
                double got = (double)out[r * N + j];

                if (!(fabs(got - want.sum) <= want.error))
                    ck_abort_msg("%s: bytes %02x, row %zu, output %zu is %g, want %g +- %g",
                                 type->name, fill[f], r, j, got, want.sum, want.error);
            }
        product_free(&p);
        free(w);
    }
}
END_TEST

/* Infinite and NaN scales and activations reach the outputs that depend on them, and no others. */
START_TEST(hostile_values_reach_the_output)
{
    enum { N = 16, K = 512, M = 6 };
    static const float scales[] = {INFINITY, -INFINITY, NAN};
    static float out[M * N], plain_out[M * N];
    const trmi_lm_type *type = block_type(_i);
    const struct field *f;
    unsigned char *w;
    size_t bytes;
    float *x;
    product p, plain;

    if (type == NULL)
        return;
    f = field_of(type->dtype);
    w = random_rows(type->dtype, N, K);
    x = random_x(M, K);
    bytes = file_bytes(type->dtype, K);
    for (size_t j = 0; j < 3; j++) { /* outputs 0 to 2: d; 3 to 5: the min */
        uint16_t h = trm_f32_to_f16(scales[j]);

        memcpy(w + j * bytes + f->d, &h, 2);
        if (f->m >= 0)
            memcpy(w + (3 + j) * bytes + f->m, &h, 2);
    }
    x[1 * K + 40] = NAN;
    x[2 * K + 41] = INFINITY;
    x[3 * K + 42] = -INFINITY;
    for (size_t k = 0; k < K; k++) {
        x[4 * K + k] *= k < 32 ? 0x1p-130f : 0x1p-122f; /* vanishes, or nearly */
        x[5 * K + k] = k < 32 ? 3e38f : k < 64 ? 0.0f : 0x1p-149f;
    }
    p = product_of(type, w, bytes, N, K, 0, x, K, M);
    plain = product_of(scalar_of(type), w, bytes, N, K, 0, x, K, M);
    for (size_t r = 0; r < M; r++)
        for (size_t g = 0; g < K / 32; g++) {
            const trmi_lm_x *a = (const trmi_lm_x *)p.row[r] + g;
            const trmi_lm_x *b = (const trmi_lm_x *)plain.row[r] + g;

            ck_assert_mem_eq(a->q, b->q, 32);
            ck_assert_mem_eq(a->sum, b->sum, 4);
            ck_assert(same(a->scale, b->scale) && same(a->scaled_sum, b->scaled_sum));
            ck_assert(!isinf(a->scale));
        }
    run(&p, M, (size_t)type->rows_max, 1, 0, K, out);
    run(&plain, M, 1, 1, 0, K, plain_out);
    expect_same(type, "hostile", 0, 0, out, plain_out, M * N);
    for (size_t r = 0; r < M; r++)
        for (size_t j = 0; j < N; j++) {
            bool finite = j >= (f->m >= 0 ? 6 : 3) && (r == 0 || r == 4);

            if (r != 5 && (isfinite(out[r * N + j]) != 0) != finite)
                ck_abort_msg("%s: row %zu, output %zu is %g", type->name, r, j,
                             (double)out[r * N + j]);
        }
    product_free(&p);
    product_free(&plain);
    free(w);
    free(x);
}
END_TEST

/* Decoding is bound by memory: bits a weight, of panels of an ordinary width. */
static const struct {
    trm_dtype dtype;
    double bits;
} widths[] = {
    {TRM_DTYPE_Q4_0, 4.5}, {TRM_DTYPE_Q4_1, 5.0},  {TRM_DTYPE_Q5_0, 5.5}, {TRM_DTYPE_Q5_1, 6.0},
    {TRM_DTYPE_Q8_0, 8.5}, {TRM_DTYPE_Q2_K, 2.7},  {TRM_DTYPE_Q3_K, 3.7}, {TRM_DTYPE_Q4_K, 4.7},
    {TRM_DTYPE_Q5_K, 5.7}, {TRM_DTYPE_Q6_K, 6.75},
};

START_TEST(panels_are_small)
{
    const trmi_lm_type *type = trmi_lm_type_get(widths[_i].dtype, TRM_DTYPE_NONE);

    ck_assert_ptr_nonnull(type);
    ck_assert_double_le((double)type->panel_bytes(4096) * 8 / (16 * 4096), widths[_i].bits);
}
END_TEST

/* Through the framework: N that is no multiple of 16, leaves, a bias, several threads. */
START_TEST(framework_runs_block_types)
{
    enum { N = 75, K = 1024, M = 19, LEAF = 256 };
    static float out[M * N], sums[4][M * 80];
    const trmi_lm_type *type = block_type(_i);
    trmi_lm_weight weight;
    trmi_lm_leaves leaves;
    trmi_lm_product job;
    float *x, bias[N];
    unsigned char *w, *packed;
    product p;

    if (type == NULL)
        return;
    w = random_rows(type->dtype, N, K);
    x = random_x(M, K);
    for (int j = 0; j < N; j++)
        bias[j] = uniform();
    p = product_of(type, w, file_bytes(type->dtype, K), N, K, 0, x, K, M);
    weight = trmi_lm_weight_of(type, N, K, NULL);
    packed = trm_aligned_malloc(trmi_lm_weight_bytes(&weight));
    weight.data = packed;
    trmi_lm_weight_pack(&weight, w, file_bytes(type->dtype, K), 0, packed);
    ck_assert_int_eq(trmi_lm_leaves_init(&leaves, K, LEAF, 0, K / LEAF), TRM_OK);
    job = (trmi_lm_product){.weight = &weight,
                            .leaves = &leaves,
                            .rows = p.row,
                            .m = M,
                            .bias = bias,
                            .out = out,
                            .out_stride = N};
    trmi_lm_products_run(&job, 1);
    for (size_t i = 0; i < 4; i++)
        run(&p, M, 1, 1, i * LEAF, (i + 1) * LEAF, sums[i]);
    for (size_t r = 0; r < M; r++)
        for (size_t j = 0; j < N; j++) {
            size_t at = r * 80 + j;
            float want = (sums[0][at] + sums[1][at]) + (sums[2][at] + sums[3][at]) + bias[j];

            if (!same(out[r * N + j], want))
                ck_abort_msg("%s: row %zu, output %zu is %a, want %a", type->name, r, j,
                             (double)out[r * N + j], (double)want);
        }
    trm_aligned_free(packed);
    product_free(&p);
    free(w);
    free(x);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("language models: products with block types");
    TCase *t = tcase_create("block types");
    SRunner *r;
    int failed, types = 0;

    while (trmi_lm_type_at(types) != NULL)
        types++;
    tcase_add_loop_test(t, products_are_right, 0, types);
    tcase_add_loop_test(t, bits_are_the_same, 0, types);
    tcase_add_loop_test(t, ranges_are_the_same, 0, types);
    tcase_add_loop_test(t, largest_integers_fit, 0, types);
    tcase_add_loop_test(t, hostile_values_reach_the_output, 0, types);
    tcase_add_loop_test(t, panels_are_small, 0, (int)(sizeof(widths) / sizeof(widths[0])));
    tcase_add_loop_test(t, framework_runs_block_types, 0, types);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
