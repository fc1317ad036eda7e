/* TrmNorm, TrmRope, TrmGated, TrmEmbed, TrmRows and TrmPool: against references in double, on every
 * instruction set; and a row's bits do not depend on the rows beside it. */
#include "kernels/cpu/lm_linear.h"
#include "kernels/cpu/lm_rows.h"
#include "kernels/language.h"
#include "kernels/reference/lm_rows.h"
#include "tests/kernels/math_harness.h"

#define WANT(cond, ...)                                                                            \
    do {                                                                                           \
        if (!(cond))                                                                               \
            ck_abort_msg(__VA_ARGS__);                                                             \
    } while (0)

static const struct {
    const char *name;
    const trmi_lm_rows *rows;
    trm_isa isa;
} tables[] = {{"base", &trmi_lm_rows_base, TRM_ISA_SCALAR},
              {"avx2", &trmi_lm_rows_avx2, TRM_ISA_AVX2},
              {"avx512", &trmi_lm_rows_avx512, TRM_ISA_AVX512}};
#define TABLES 3

static float *numbers(size_t n, double lo, double hi)
{
    float *v = trm_arena_alloc_aligned(h_arena, (n + 1) * sizeof(float));

    for (size_t i = 0; i < n; i++)
        v[i] = (float)h_uniform(lo, hi);
    return v;
}

/* Distance in units of the last place of `want`. */
static double ulps(double got, double want)
{
    double scale = fabs(want) < 1e-36 ? 1e-36 : fabs(want);

    return fabs(got - want) / ldexp(1.0, (int)floor(log2(scale)) - 23);
}

/* ---- norm ---- */
static const struct norm_row {
    const char *name;
    bool layer, bias;
    size_t n;
    float offset, shift;
} norms[] = {
    {"rms of 1", false, false, 1, 0, 0},      {"rms of 63", false, false, 63, 1, 0},
    {"rms of 64", false, true, 64, 0, 2},     {"rms of 65", false, false, 65, 0, 0},
    {"rms of 896", false, false, 896, 1, 0},  {"rms of 5000", false, false, 5000, 0, 30},
    {"layer of 5", true, true, 5, 0, 1},      {"layer of 128", true, false, 128, 0, 50},
    {"layer of 768", true, true, 768, 0, 10}, {"layer of 4097", true, true, 4097, 0, 0},
};

START_TEST(norm_reference)
{
    const struct norm_row *r = &norms[_i];
    float *x = numbers(r->n, -1 + (double)r->shift, 1 + (double)r->shift);
    float *gain = numbers(r->n, 0, 2), *bias = numbers(r->n, -1, 1), *out = numbers(r->n, 0, 0);
    float *first = numbers(r->n, 0, 0);
    double *want = trm_arena_alloc(h_arena, r->n, sizeof(double));
    trmi_lm_norm p = {r->n, r->layer, (double)1e-6f, r->offset, gain, r->bias ? bias : NULL};

    trm_lm_norm_reference(r->layer, p.epsilon, (double)r->offset, r->n, x, gain, p.bias, want);
    for (int t = 0; t < TABLES && tables[t].isa <= trmi_cpu_isa(); t++) {
        tables[t].rows->norm(&p, out, x);
        for (size_t i = 0; i < r->n; i++)
            WANT(fabs((double)out[i] - want[i]) <= 4e-6 * (1 + fabs(want[i])),
                 "%s %s: %zu: got %.9g, want %.9g", tables[t].name, r->name, i, (double)out[i],
                 want[i]);
        if (t == 0)
            memcpy(first, out, r->n * sizeof(float));
        WANT(memcmp(first, out, r->n * sizeof(float)) == 0, "%s %s: other bits than base",
             tables[t].name, r->name);
        memcpy(out, x, r->n * sizeof(float));
        tables[t].rows->norm(&p, out, out);
        WANT(memcmp(first, out, r->n * sizeof(float)) == 0, "%s %s: in place", tables[t].name,
             r->name);
    }
}
END_TEST

/* Groups of a row, rows of a step: each as if it were alone. */
START_TEST(norm_groups)
{
    enum { ROWS = 300, GROUPS = 3, N = 72 };
    trm_attrs *a = h_float(h_string(h_attrs(), "kind", "rms"), "epsilon", 1e-6f);
    trm_tensor in[2] = {h_random(H_TENSOR(TRM_DTYPE_F32, ROWS, GROUPS * N), -2, 2),
                        h_random(H_TENSOR(TRM_DTYPE_F32, N), 0, 2)};
    trm_tensor all = H_TENSOR(TRM_DTYPE_F32, ROWS, GROUPS * N);

    h_ok(TRM_OP_TrmNorm, a, in, 2, &all, 1);
    for (int g = 0; g < ROWS * GROUPS; g += 17) {
        trm_tensor one[2] = {H_TENSOR(TRM_DTYPE_F32, 1, N), in[1]};
        trm_tensor out = H_TENSOR(TRM_DTYPE_F32, 1, N);

        memcpy(one[0].data, (float *)in[0].data + g * N, N * sizeof(float));
        h_ok(TRM_OP_TrmNorm, a, one, 2, &out, 1);
        WANT(memcmp(out.data, (float *)all.data + g * N, N * sizeof(float)) == 0, "group %d", g);
    }
}
END_TEST

/* ---- rope ---- */
static const struct rope_row {
    const char *name;
    size_t heads, head_dim, half;
    bool interleaved;
    float scale;
} ropes[] = {
    {"halves", 3, 64, 32, false, 1},
    {"interleaved", 2, 128, 64, true, 1},
    {"partial", 4, 80, 10, false, 1.3f},
    {"partial, interleaved", 4, 96, 16, true, 0.7f},
    {"one pair", 1, 2, 1, false, 1},
    {"none", 1, 8, 0, false, 1},
    {"a head of 1024", 1, 1024, 512, false, 1},
    {"odd", 2, 50, 25, false, 1},
};

START_TEST(rope_reference)
{
    static const int32_t positions[] = {0, 1, 2, 17, 511, 4095, 32767, 131071, 999983, 1048573};
    const struct rope_row *r = &ropes[_i];
    size_t n = r->heads * r->head_dim;
    float *x = numbers(n, -3, 3), *out = numbers(n, 0, 0), *first = numbers(n, 0, 0);
    float *frequencies = numbers(r->half, 0, 0);
    double want[1024];
    trmi_lm_rope p = {r->heads, r->head_dim, r->half, r->interleaved, r->scale, frequencies};

    for (size_t i = 0; i < r->half; i++)
        frequencies[i] = (float)pow(10000.0, -(double)i / (double)r->half);
    for (size_t k = 0; k < sizeof(positions) / sizeof(positions[0]); k++)
        for (int t = 0; t < TABLES && tables[t].isa <= trmi_cpu_isa(); t++) {
            tables[t].rows->rope(&p, out, x, positions[k]);
            for (size_t h = 0; h < r->heads; h++) {
                trm_lm_rope_reference(r->interleaved, (double)r->scale, r->head_dim, r->half,
                                      frequencies, positions[k], x + h * r->head_dim, want);
                for (size_t i = 0; i < r->head_dim; i++)
                    WANT(fabs((double)out[h * r->head_dim + i] - want[i]) <= 1e-6,
                         "%s %s at %d: head %zu, %zu: got %.9g, want %.9g", tables[t].name, r->name,
                         positions[k], h, i, (double)out[h * r->head_dim + i], want[i]);
            }
            if (t == 0)
                memcpy(first, out, n * sizeof(float));
            WANT(memcmp(first, out, n * sizeof(float)) == 0, "%s %s: other bits than base",
                 tables[t].name, r->name);
            memcpy(out, x, n * sizeof(float));
            tables[t].rows->rope(&p, out, out, positions[k]);
            WANT(memcmp(first, out, n * sizeof(float)) == 0, "%s %s: in place", tables[t].name,
                 r->name);
        }
}
END_TEST

/* cos and sin themselves, at every kind of angle. */
START_TEST(rope_angles)
{
    for (int t = 0; t < TABLES && tables[t].isa <= trmi_cpu_isa(); t++)
        for (int k = 0; k < 20000; k++) {
            float frequency = (float)exp(h_uniform(-14, 1)), out[2];
            int32_t position = k % 3 == 0 ? k : (int32_t)h_uniform(0, 1e6);
            trmi_lm_rope p = {1, 2, 1, false, 1.0f, &frequency};
            double angle = (double)((float)position * frequency);

            tables[t].rows->rope(&p, out, (const float[2]){1.0f, 0.0f}, position);
            WANT(ulps((double)out[0], cos(angle)) <= 0.501 &&
                     ulps((double)out[1], sin(angle)) <= 0.501,
                 "%s: angle %.9g: got %.9g, %.9g", tables[t].name, angle, (double)out[0],
                 (double)out[1]);
        }
}
END_TEST

START_TEST(rope_rows)
{
    enum { ROWS = 200, N = 4 * 64 };
    trm_attrs *a = h_int(h_attrs(), "head_dim", 64);
    trm_tensor in[3] = {h_random(H_TENSOR(TRM_DTYPE_F32, ROWS, N), -2, 2),
                        H_TENSOR(TRM_DTYPE_I32, ROWS), h_random(H_TENSOR(TRM_DTYPE_F32, 32), 0, 1)};
    trm_tensor all = H_TENSOR(TRM_DTYPE_F32, ROWS, N);

    for (size_t r = 0; r < ROWS; r++)
        trm_tensor_set_i64(&in[1], r, (int64_t)(r * 7919 % 30000));
    h_ok(TRM_OP_TrmRope, a, in, 3, &all, 1);
    for (int r = 0; r < ROWS; r += 11)
        for (int h = 0; h < 4; h++) { /* one head of one row */
            trm_tensor one[3] = {H_TENSOR(TRM_DTYPE_F32, 1, 64), H_TENSOR(TRM_DTYPE_I32, 1), in[2]};
            trm_tensor out = H_TENSOR(TRM_DTYPE_F32, 1, 64);

            memcpy(one[0].data, (float *)in[0].data + r * N + h * 64, 64 * sizeof(float));
            trm_tensor_set_i64(&one[1], 0, trm_tensor_get_i64(&in[1], (size_t)r));
            h_ok(TRM_OP_TrmRope, a, one, 3, &out, 1);
            WANT(memcmp(out.data, (float *)all.data + r * N + h * 64, 64 * sizeof(float)) == 0,
                 "row %d head %d", r, h);
        }
}
END_TEST

/* ---- activations ---- */
static const struct act_row {
    const char *act;
    double lo, ulps; /* from lo to 30; below, only absolutely */
} acts[] = {{"none", -30, 0}, {"silu", -30, 4}, {"gelu", -12, 6},   {"gelu_tanh", -2, 8},
            {"relu", -30, 0}, {"tanh", -30, 3}, {"softcap", -30, 5}};

START_TEST(act_reference)
{
    enum { N = 40001 };
    const struct act_row *r = &acts[_i];
    trmi_lm_act act = trmi_lm_act_from_name(r->act);
    float *x = numbers(N, 0, 0), *out = numbers(N, 0, 0), *up = numbers(N, -2, 2);
    float *gated = numbers(N, 0, 0), cap = 7.0f;

    ck_assert_int_lt(act, TRMI_LM_ACT_COUNT);
    for (int i = 0; i < N; i++)
        x[i] = (float)((i - N / 2) * (30.0 / (N / 2)));
    for (int t = 0; t < TABLES && tables[t].isa <= trmi_cpu_isa(); t++) {
        tables[t].rows->act[act](cap, N, out, x, NULL);
        tables[t].rows->act[act](cap, N, gated, x, up);
        for (int i = 0; i < N; i++) {
            double want = trm_lm_act_reference(r->act, (double)cap, (double)x[i]);

            WANT(fabs((double)out[i] - want) <= 3e-7 * fabs((double)x[i]) &&
                     ((double)x[i] < r->lo || ulps((double)out[i], want) <= r->ulps),
                 "%s %s(%.9g): got %.9g, want %.9g: %g ulp", tables[t].name, r->act, (double)x[i],
                 (double)out[i], want, ulps((double)out[i], want));
            WANT(gated[i] == out[i] * up[i], "%s %s(%.9g) * %.9g", tables[t].name, r->act,
                 (double)x[i], (double)up[i]);
        }
        for (size_t n = 1; n < 70; n++) { /* tails, at every alignment */
            size_t at = n * 531;

            tables[t].rows->act[act](cap, n, gated, x + at, NULL);
            WANT(memcmp(gated, out + at, n * sizeof(float)) == 0, "%s %s: %zu elements",
                 tables[t].name, r->act, n);
        }
        x[0] = NAN;
        tables[t].rows->act[act](cap, 1, gated, x, NULL);
        WANT(isnan(gated[0]), "%s %s(NaN) is %g", tables[t].name, r->act, (double)gated[0]);
        x[0] = -30.0f;
    }
}
END_TEST

START_TEST(gated)
{
    trm_attrs *a = h_float(h_string(h_attrs(), "act", "softcap"), "cap", 2.0f);
    trm_tensor in[2] = {h_random(H_TENSOR(TRM_DTYPE_F32, 70, 601), -5, 5),
                        h_random(H_TENSOR(TRM_DTYPE_F32, 70, 601), -5, 5)};
    trm_tensor out = H_TENSOR(TRM_DTYPE_F32, 70, 601);

    h_ok(TRM_OP_TrmGated, a, in, 2, &out, 1);
    for (size_t i = 0; i < trm_tensor_numel(&out); i++) {
        double want =
            2.0 * tanh(trm_tensor_get_f64(&in[0], i) / 2.0) * trm_tensor_get_f64(&in[1], i);

        WANT(fabs(trm_tensor_get_f64(&out, i) - want) < 3e-6, "%zu", i);
    }
    h_ok(TRM_OP_TrmGated, a, in, 1, &out, 1);
}
END_TEST

/* ---- embedding, rows, pools ---- */
START_TEST(embed)
{
    static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16};
    static const int ids[] = {0, 9, -1, 10, 3, 3, 2147483647, -2147483647 - 1};
    trm_attrs *a = _i == 0 ? h_attrs() : h_float(h_attrs(), "scale", 1.5f);
    trm_tensor in[2] = {H_TENSOR(TRM_DTYPE_I32, 8), h_random(H_TENSOR(dtypes[_i], 10, 77), -9, 9)};
    trm_tensor out = H_TENSOR(TRM_DTYPE_F32, 8, 77);

    for (size_t i = 0; i < 8; i++)
        trm_tensor_set_i64(&in[0], i, ids[i]);
    h_ok(TRM_OP_TrmEmbed, a, in, 2, &out, 1);
    for (size_t i = 0; i < 8; i++)
        for (size_t k = 0; k < 77; k++) {
            double want =
                ids[i] < 0 || ids[i] > 9
                    ? 0.0
                    : trm_tensor_get_f64(&in[1], (size_t)ids[i] * 77 + k) * (_i == 0 ? 1.0 : 1.5);

            WANT(fabs(trm_tensor_get_f64(&out, i * 77 + k) - want) < 1e-6, "%zu, %zu", i, k);
        }
}
END_TEST

/* Block types, read where they lie. */
START_TEST(embed_blocks)
{
    enum { ROWS = 7, WIDTH = 512 };
    trm_dtype dtype = (trm_dtype)(TRM_DTYPE_Q4_0 + _i);
    size_t row = WIDTH / trm_dtype_block_elems(dtype) * trm_dtype_block_bytes(dtype);
    trm_tensor in[2] = {H_TENSOR(TRM_DTYPE_I32, 3), H_TENSOR(dtype, ROWS, WIDTH)};
    trm_tensor out = H_TENSOR(TRM_DTYPE_F32, 3, WIDTH);
    unsigned char *bytes = in[1].data;
    float want[WIDTH];

    for (size_t i = 0; i < ROWS * row; i++) /* scales: small enough for any place of a block */
        bytes[i] = (unsigned char)((int)h_uniform(0, 256) & 0x3b);
    for (size_t i = 0; i < 3; i++)
        trm_tensor_set_i64(&in[0], i, (int64_t)(6 - 2 * i));
    h_ok(TRM_OP_TrmEmbed, h_attrs(), in, 2, &out, 1);
    for (size_t i = 0; i < 3; i++) {
        trmi_lm_dequantize(dtype, bytes + (6 - 2 * i) * row, WIDTH, want);
        WANT(memcmp(want, (float *)out.data + i * WIDTH, sizeof(want)) == 0, "%s row %zu",
             trm_dtype_name(dtype), i);
    }
}
END_TEST

START_TEST(picked_rows)
{
    static const int rows[] = {2, 0, 3, -1, 2};
    trm_tensor in[2] = {h_random(H_TENSOR(TRM_DTYPE_F32, 3, 5), -9, 9), H_TENSOR(TRM_DTYPE_I32, 5)};
    trm_tensor out = H_TENSOR(TRM_DTYPE_F32, 5, 5);

    for (size_t i = 0; i < 5; i++)
        trm_tensor_set_i64(&in[1], i, rows[i]);
    h_ok(TRM_OP_TrmRows, h_attrs(), in, 2, &out, 1);
    for (size_t i = 0; i < 5; i++)
        for (size_t k = 0; k < 5; k++) {
            double want = rows[i] < 0 || rows[i] > 2
                              ? 0.0
                              : trm_tensor_get_f64(&in[0], (size_t)rows[i] * 5 + k);

            WANT(trm_tensor_get_f64(&out, i * 5 + k) == want, "%zu, %zu", i, k);
        }
}
END_TEST

START_TEST(pool)
{
    static const char *const kinds[] = {"mean", "cls", "last"};
    enum { WIDTH = 130 };
    trm_attrs *a = h_int(h_string(h_attrs(), "kind", kinds[_i % 3]), "normalize", _i / 3);
    trm_step_sequence sequences[] = {{7, 5, 0, NULL}, {0, 3, 0, NULL}, {12, 1, 0, NULL}};
    trm_step step = {
        .tokens = 13, .sequence_count = 3, .sequences_padded = 5, .sequences = sequences};
    trm_tensor in[2] = {h_random(H_TENSOR(TRM_DTYPE_F32, 16, WIDTH), -2, 3),
                        H_TENSOR(TRM_DTYPE_I64, 5)};
    trm_tensor out = H_TENSOR(TRM_DTYPE_F32, 5, WIDTH);

    trm_tensor_set_i64(&in[1], 0, (int64_t)(uintptr_t)&step);
    h_ok(TRM_OP_TrmPool, a, in, 2, &out, 1);
    for (int s = 0; s < 5; s++) {
        double want[WIDTH] = {0}, length = 0;

        for (int k = 0; s < 3 && k < WIDTH; k++) {
            int first = sequences[s].row, n = sequences[s].tokens;

            for (int r = first; r < first + n; r++)
                if (_i % 3 == 0 || r == (_i % 3 == 1 ? first : first + n - 1))
                    want[k] +=
                        trm_tensor_get_f64(&in[0], (size_t)(r * WIDTH + k)) / (_i % 3 == 0 ? n : 1);
            length += want[k] * want[k];
        }
        for (int k = 0; k < WIDTH; k++) {
            double w = s < 3 && _i >= 3 ? want[k] / sqrt(length) : want[k];

            WANT(fabs(trm_tensor_get_f64(&out, (size_t)(s * WIDTH + k)) - w) < 1e-6,
                 "%s: sequence %d, %d: got %g, want %g", kinds[_i % 3], s, k,
                 trm_tensor_get_f64(&out, (size_t)(s * WIDTH + k)), w);
        }
    }
    step.sequences_padded = 4;
    ck_assert_int_eq(h_run(TRM_OP_TrmPool, a, in, 2, &out, 1), TRM_ERR_INVALID_ARG);
    step.sequences_padded = 5;
    sequences[2].tokens = 5;
    ck_assert_int_eq(h_run(TRM_OP_TrmPool, a, in, 2, &out, 1), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "sequence 2"));
}
END_TEST

/* ---- what prepare refuses: inputs as dtypes and two dims (0: a vector), one attribute ---- */
static const struct refusal {
    trm_op op;
    struct {
        trm_dtype dtype;
        int64_t dims[2];
    } in[3];
    int64_t out[2];
    const char *attr, *text;
    int64_t value;
    trm_status status;
    const char *says;
} refusals[] = {
    {TRM_OP_TrmNorm,
     {{TRM_DTYPE_F16, {3, 8}}, {TRM_DTYPE_F32, {8, 0}}},
     {3, 8},
     "x",
     NULL,
     0,
     TRM_ERR_UNSUPPORTED,
     "input 0 is f16"},
    {TRM_OP_TrmNorm,
     {{TRM_DTYPE_F32, {3, 8}}, {TRM_DTYPE_F32, {3, 0}}},
     {3, 8},
     "x",
     NULL,
     0,
     TRM_ERR_INVALID_ARG,
     "a weight of 3"},
    {TRM_OP_TrmNorm,
     {{TRM_DTYPE_F32, {3, 8}}, {TRM_DTYPE_F32, {8, 0}}, {TRM_DTYPE_F32, {4, 0}}},
     {3, 8},
     "x",
     NULL,
     0,
     TRM_ERR_INVALID_ARG,
     "as many"},
    {TRM_OP_TrmNorm,
     {{TRM_DTYPE_F32, {3, 8}}, {TRM_DTYPE_F32, {8, 0}}},
     {3, 8},
     "kind",
     "batch",
     0,
     TRM_ERR_UNSUPPORTED,
     "'batch'"},
    {TRM_OP_TrmRope,
     {{TRM_DTYPE_F32, {3, 8}}, {TRM_DTYPE_I32, {3, 0}}, {TRM_DTYPE_F32, {4, 0}}},
     {3, 8},
     "x",
     NULL,
     0,
     TRM_ERR_INVALID_ARG,
     "heads of 0"},
    {TRM_OP_TrmRope,
     {{TRM_DTYPE_F32, {3, 8}}, {TRM_DTYPE_I32, {3, 0}}, {TRM_DTYPE_F32, {4, 0}}},
     {3, 8},
     "head_dim",
     NULL,
     4,
     TRM_ERR_INVALID_ARG,
     "4 frequencies"},
    {TRM_OP_TrmRope,
     {{TRM_DTYPE_F32, {3, 8}}, {TRM_DTYPE_I32, {2, 0}}, {TRM_DTYPE_F32, {4, 0}}},
     {3, 8},
     "head_dim",
     NULL,
     8,
     TRM_ERR_INVALID_ARG,
     "2 positions"},
    {TRM_OP_TrmRope,
     {{TRM_DTYPE_F32, {1, 2000}}, {TRM_DTYPE_I32, {1, 0}}, {TRM_DTYPE_F32, {600, 0}}},
     {1, 2000},
     "head_dim",
     NULL,
     2000,
     TRM_ERR_UNSUPPORTED,
     "at most 512"},
    {TRM_OP_TrmGated,
     {{TRM_DTYPE_F32, {3, 8}}, {TRM_DTYPE_F32, {3, 7}}},
     {3, 8},
     "act",
     "silu",
     0,
     TRM_ERR_INVALID_ARG,
     "one shape"},
    {TRM_OP_TrmGated,
     {{TRM_DTYPE_F32, {3, 8}}},
     {3, 8},
     "act",
     "swish7",
     0,
     TRM_ERR_UNSUPPORTED,
     "'swish7'"},
    {TRM_OP_TrmGated,
     {{TRM_DTYPE_F32, {3, 8}}},
     {3, 8},
     "act",
     "softcap",
     0,
     TRM_ERR_INVALID_ARG,
     "cap 0"},
    {TRM_OP_TrmEmbed,
     {{TRM_DTYPE_I64, {3, 0}}, {TRM_DTYPE_F32, {5, 8}}},
     {3, 8},
     "x",
     NULL,
     0,
     TRM_ERR_UNSUPPORTED,
     "input 0 is i64"},
    {TRM_OP_TrmEmbed,
     {{TRM_DTYPE_I32, {3, 0}}, {TRM_DTYPE_I8, {5, 8}}},
     {3, 8},
     "x",
     NULL,
     0,
     TRM_ERR_UNSUPPORTED,
     "input 1 is i8"},
    {TRM_OP_TrmEmbed,
     {{TRM_DTYPE_I32, {3, 0}}, {TRM_DTYPE_F32, {5, 8}}},
     {3, 9},
     "x",
     NULL,
     0,
     TRM_ERR_INVALID_ARG,
     "3 x 9"},
    {TRM_OP_TrmRows,
     {{TRM_DTYPE_F32, {5, 8}}, {TRM_DTYPE_I32, {2, 0}}},
     {3, 8},
     "x",
     NULL,
     0,
     TRM_ERR_INVALID_ARG,
     "2 rows of 8"},
    {TRM_OP_TrmPool,
     {{TRM_DTYPE_F32, {5, 8}}, {TRM_DTYPE_I64, {2, 0}}},
     {3, 8},
     "x",
     NULL,
     0,
     TRM_ERR_INVALID_ARG,
     "length 2"},
    {TRM_OP_TrmPool,
     {{TRM_DTYPE_F32, {5, 8}}, {TRM_DTYPE_I64, {2, 0}}},
     {2, 8},
     "kind",
     "max",
     0,
     TRM_ERR_UNSUPPORTED,
     "'max'"},
};

START_TEST(refused)
{
    const struct refusal *f = &refusals[_i];
    trm_attrs *a = h_attrs();
    trm_tensor in[3], out = H_TENSOR(TRM_DTYPE_F32, f->out[0], f->out[1]);
    int count = 0;
    trm_status st;

    for (; count < 3 && f->in[count].dtype != TRM_DTYPE_NONE; count++)
        in[count] = f->in[count].dims[1] == 0
                        ? H_TENSOR(f->in[count].dtype, f->in[count].dims[0])
                        : H_TENSOR(f->in[count].dtype, f->in[count].dims[0], f->in[count].dims[1]);
    if (f->text != NULL)
        h_string(a, f->attr, f->text);
    else
        h_int(a, f->attr, f->value);
    st = h_run(f->op, a, in, count, &out, 1);
    ck_assert_msg(st == f->status && strstr(trm_message(), f->says) != NULL, "%s: %d: %s",
                  trm_op_get(f->op)->name, (int)st, st == TRM_OK ? "" : trm_message());
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm rows");

    tcase_add_loop_test(t, norm_reference, 0, (int)(sizeof(norms) / sizeof(norms[0])));
    tcase_add_test(t, norm_groups);
    tcase_add_loop_test(t, rope_reference, 0, (int)(sizeof(ropes) / sizeof(ropes[0])));
    tcase_add_test(t, rope_angles);
    tcase_add_test(t, rope_rows);
    tcase_add_loop_test(t, act_reference, 0, (int)(sizeof(acts) / sizeof(acts[0])));
    tcase_add_test(t, gated);
    tcase_add_loop_test(t, embed, 0, 3);
    tcase_add_loop_test(t, embed_blocks, 0, TRM_DTYPE_COUNT - TRM_DTYPE_Q4_0);
    tcase_add_test(t, picked_rows);
    tcase_add_loop_test(t, pool, 0, 6);
    tcase_add_loop_test(t, refused, 0, (int)(sizeof(refusals) / sizeof(refusals[0])));
    return h_main("lm rows", t);
}
