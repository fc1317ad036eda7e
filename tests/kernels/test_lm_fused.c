/* Fused operators of language models on the CPU: the bits of their parts, one after the other. */
#include "base/f8.h"
#include "kernels/language.h"
#include "tests/kernels/math_harness.h"

#include <stdio.h>

#define COUNT(array) (int)(sizeof(array) / sizeof((array)[0]))

static void same(const trm_tensor *got, const trm_tensor *want, const char *what)
{
    size_t bytes = 0;

    ck_assert_int_eq(trm_tensor_bytes(want, &bytes), TRM_OK);
    ck_assert_msg(trm_tensor_same_shape(got, want) && memcmp(got->data, want->data, bytes) == 0,
                  "%s: other bits", what);
}

static trm_tensor matrix(int64_t rows, int64_t columns)
{
    return H_TENSOR(TRM_DTYPE_F32, rows, columns);
}

/* ---- TrmAddNorm ---- */

static const struct {
    const char *name;
    int64_t rows, n;
    bool layer, bias, no_sum;
    float offset;
} sums[] = {
    {"rms", 5, 96, false, false, false, 0},
    {"one row", 1, 2048, false, false, false, 0},
    {"odd", 3, 77, false, false, false, 1},
    {"layer", 40, 130, true, true, false, 0},
    {"many rows", 300, 64, true, true, false, 0},
    {"nobody reads the sum", 7, 96, true, true, true, 0},
    {"no rows", 0, 64, false, false, false, 0},
};

START_TEST(add_norm)
{
    int64_t t = sums[_i].rows, n = sums[_i].n;
    trm_attrs *a = h_float(h_attrs(), "epsilon", 1e-6f);
    trm_tensor in[4] = {h_random(matrix(t, n), -2, 2), h_random(matrix(t, n), -2, 2),
                        h_random(H_TENSOR(TRM_DTYPE_F32, n), 0, 2),
                        h_random(H_TENSOR(TRM_DTYPE_F32, n), -1, 1)};
    trm_tensor sum = matrix(t, n), normed = matrix(t, n), parts[3], out[2];
    int count = sums[_i].bias ? 4 : 3;

    h_string(a, "kind", sums[_i].layer ? "layer" : "rms");
    h_float(a, "offset", sums[_i].offset);
    h_ok(TRM_OP_Add, NULL, in, 2, &sum, 1);
    parts[0] = sum;
    parts[1] = in[2];
    parts[2] = in[3];
    h_ok(TRM_OP_TrmNorm, a, parts, count - 1, &normed, 1);
    out[0] = sums[_i].no_sum ? (trm_tensor){.dtype = TRM_DTYPE_NONE} : matrix(t, n);
    out[1] = matrix(t, n);
    h_ok(TRM_OP_TrmAddNorm, a, in, count, out, 2);
    same(&out[1], &normed, sums[_i].name);
    if (!sums[_i].no_sum)
        same(&out[0], &sum, sums[_i].name);
    for (int i = 0; i < 2 && !sums[_i].no_sum; i++) { /* the sum where an operand lies */
        trm_tensor again[4] = {in[0], in[1], in[2], in[3]};
        trm_tensor to[2] = {h_random(matrix(t, n), 0, 1), matrix(t, n)};

        memcpy(to[0].data, in[i].data, (size_t)(t * n) * sizeof(float));
        again[i].data = to[0].data;
        h_ok(TRM_OP_TrmAddNorm, a, again, count, to, 2);
        same(&to[0], &sum, sums[_i].name);
        same(&to[1], &normed, sums[_i].name);
    }
}
END_TEST

/* ---- TrmLinears ---- */

static const struct {
    const char *name;
    trm_dtype dtype;
    int64_t rows, k, n[4];
    bool bias, transposed;
    const char *act, *gated;
} products[] = {
    {"f32", TRM_DTYPE_F32, 3, 64, {33, 16, 5}, false, false, NULL, NULL},
    {"one row, bias", TRM_DTYPE_BF16, 1, 129, {100, 40, 40, 7}, true, false, NULL, NULL},
    {"many rows", TRM_DTYPE_F16, 130, 64, {48, 16}, true, false, NULL, NULL},
    {"bf16 activations", TRM_DTYPE_BF16, 9, 77, {40, 24}, false, false, "bf16", NULL},
    {"f16 activations", TRM_DTYPE_F16, 9, 77, {40, 24}, false, false, "f16", NULL},
    {"transposed", TRM_DTYPE_F32, 4, 21, {50, 50, 50}, true, true, NULL, NULL},
    {"q8_0", TRM_DTYPE_Q8_0, 5, 96, {40, 20, 20}, true, false, NULL, NULL},
    {"q4_K", TRM_DTYPE_Q4_K, 2, 512, {17, 20}, false, false, NULL, NULL},
    {"f8_row", TRM_DTYPE_F8_ROW, 5, 96, {40, 20, 20}, true, false, NULL, NULL},
    {"f8_128, bf16 activations", TRM_DTYPE_F8_128, 2, 256, {17, 20}, false, false, "bf16", NULL},
    {"silu, f8_128", TRM_DTYPE_F8_128, 3, 128, {77, 77}, true, false, NULL, "silu"},
    {"no rows", TRM_DTYPE_F32, 0, 64, {8, 8}, true, false, NULL, NULL},
    {"silu", TRM_DTYPE_BF16, 1, 64, {300, 300}, false, false, NULL, "silu"},
    {"gelu, bias", TRM_DTYPE_F32, 6, 64, {77, 77}, true, false, NULL, "gelu"},
    {"gelu_tanh, transposed", TRM_DTYPE_F32, 40, 32, {77, 77}, true, true, NULL, "gelu_tanh"},
    {"no activation, q8_0", TRM_DTYPE_Q8_0, 3, 64, {77, 77}, false, false, NULL, "none"},
    {"relu, bf16 activations", TRM_DTYPE_BF16, 3, 64, {77, 77}, false, false, "bf16", "relu"},
};

static trm_tensor random_weight(trm_dtype dtype, int64_t rows, int64_t columns)
{
    trm_tensor t = H_TENSOR(dtype, rows, columns);
    size_t bytes, block = trm_dtype_block_bytes(dtype);
    unsigned char *at = t.data;

    if (!trm_dtype_is_block(dtype))
        return h_random(t, -1, 1);
    ck_assert_int_eq(trm_tensor_bytes(&t, &bytes), TRM_OK);
    for (size_t i = 0; i < bytes; i++)
        at[i] = (unsigned char)((int)h_uniform(0, 256) & (trm_dtype_is_f8(dtype) ? 0xbf : 0xff));
    for (size_t i = 0; i < bytes; i += block) /* scales: 2^-7 */
        if (trm_dtype_is_f8(dtype))
            memcpy(at + i, &(float){0x1p-7f}, 4);
        else
            memcpy(at + i, &(uint16_t[2]){0x2000, 0x2000}, dtype == TRM_DTYPE_Q8_0 ? 2 : 4);
    return t;
}

START_TEST(linears)
{
    int64_t t = products[_i].rows, k = products[_i].k;
    trm_attrs *alone = h_attrs(), *joint;
    trm_tensor in[9] = {h_random(matrix(t, k), -1, 1)}, want[4], got[4];
    bool gated = products[_i].gated != NULL;
    int count = 0;

    while (count < 4 && products[_i].n[count] > 0)
        count++;
    if (products[_i].transposed)
        h_int(alone, "transposed", 1);
    if (products[_i].act != NULL)
        h_string(alone, "act", products[_i].act);
    for (int i = 0; i < count; i++) {
        int64_t n = products[_i].n[i];
        trm_tensor parts[3];

        in[1 + i] = random_weight(products[_i].dtype, products[_i].transposed ? k : n,
                                  products[_i].transposed ? n : k);
        in[1 + count + i] = h_random(H_TENSOR(TRM_DTYPE_F32, n), -1, 1);
        parts[0] = in[0];
        parts[1] = in[1 + i];
        parts[2] = in[1 + count + i];
        want[i] = matrix(t, n);
        got[i] = matrix(t, n);
        h_ok(TRM_OP_TrmLinear, alone, parts, products[_i].bias ? 3 : 2, &want[i], 1);
    }
    joint = alone;
    h_int(joint, "n", count);
    if (gated) {
        trm_attrs *act = h_string(h_attrs(), "act", products[_i].gated);
        trm_tensor both = matrix(t, products[_i].n[0]);

        h_ok(TRM_OP_TrmGated, act, want, 2, &both, 1);
        want[0] = both;
        h_string(joint, "gated", products[_i].gated);
    }
    h_ok(TRM_OP_TrmLinears, joint, in, products[_i].bias ? 1 + 2 * count : 1 + count, got,
         gated ? 1 : count);
    for (int i = 0; i < (gated ? 1 : count); i++)
        same(&got[i], &want[i], products[_i].name);
    if (gated)
        return;
    got[1] = (trm_tensor){.dtype = TRM_DTYPE_NONE}; /* nobody reads it */
    memset(got[0].data, 0xff, (size_t)(t * products[_i].n[0]) * sizeof(float));
    h_ok(TRM_OP_TrmLinears, joint, in, products[_i].bias ? 1 + 2 * count : 1 + count, got, count);
    same(&got[0], &want[0], products[_i].name);
}
END_TEST

/* ---- TrmPagedAttention with rope ---- */

static const struct {
    const char *name;
    int64_t heads, kv_heads, head_dim, half;
    bool interleaved, sinks, encoder;
    float scale;
    trm_dtype cache;
} turns[] = {
    {"whole heads", 4, 2, 64, 32, false, false, false, 1, TRM_DTYPE_F32},
    {"half a head, a scale", 6, 1, 80, 20, false, false, false, 1.25f, TRM_DTYPE_F16},
    {"pairs, sinks", 4, 4, 32, 16, true, true, false, 1, TRM_DTYPE_BF16},
    {"encoder", 2, 2, 32, 16, false, false, true, 1, TRM_DTYPE_F32},
};

/* Two steps of two sequences, the second a token each; output of both into out [2]. */
static void attend(int row, bool fused, trm_tensor *out)
{
    enum { ROWS = 24, PAGES = 4, FIRST = 19 };
    int64_t heads = turns[row].heads, kv = turns[row].kv_heads, d = turns[row].head_dim;
    size_t page = trm_kv_page_bytes(kv, d, turns[row].cache);
    trm_tensor cache = H_TENSOR(TRM_DTYPE_U8, (int64_t)page * PAGES);
    trm_tensor table = h_random(H_TENSOR(TRM_DTYPE_F32, turns[row].half), 0, 1);
    trm_tensor sinks = h_random(H_TENSOR(TRM_DTYPE_F32, heads), -1, 1);
    trm_attrs *rope = h_int(h_attrs(), "head_dim", d), *a = h_int(h_attrs(), "head_dim", d);
    trm_kv_layer layer = {.pages = cache.data, .page_bytes = page};

    h_float(rope, "scale", turns[row].scale);
    h_int(rope, "interleaved", turns[row].interleaved);
    h_int(h_int(a, "heads", heads), "kv_heads", kv);
    h_float(h_int(a, "encoder", turns[row].encoder), "scale", 0.2f);
    if (fused) {
        h_float(a, "rope_scale", turns[row].scale);
        h_int(a, "rope_interleaved", turns[row].interleaved);
    }
    for (int s = 0; s < 2; s++) {
        int32_t count = s == 0 ? FIRST : 1, base = s == 0 ? 0 : FIRST;
        trm_step_sequence sequences[2] = {
            {.row = 0, .tokens = count, .position = base, .pages = (int32_t[]){2, 0}},
            {.row = count, .tokens = 2, .position = s * 2, .pages = (int32_t[]){1}}};
        trm_step step = {.tokens = count + 2,
                         .sequence_count = 2,
                         .sequences_padded = 2,
                         .sequences = sequences,
                         .kv_dtype = turns[row].cache,
                         .layer_count = 1,
                         .layers = &layer};
        trm_tensor in[7] = {h_random(matrix(ROWS, heads * d), -1, 1),
                            h_random(matrix(ROWS, kv * d), -1, 1),
                            h_random(matrix(ROWS, kv * d), -1, 1),
                            H_TENSOR(TRM_DTYPE_I64, 1),
                            turns[row].sinks ? sinks : (trm_tensor){.dtype = TRM_DTYPE_NONE},
                            H_TENSOR(TRM_DTYPE_I32, ROWS),
                            table};
        int32_t *positions = in[5].data;

        *(int64_t *)in[3].data = (int64_t)(uintptr_t)&step;
        for (int32_t i = 0; i < count + 2; i++)
            positions[i] = i < count ? base + i : s * 2 + i - count;
        out[s] = matrix(ROWS, heads * d);
        for (int i = 0; i < 2 && !fused; i++) {
            trm_tensor parts[3] = {in[i], in[5], in[6]};

            in[i] = matrix(ROWS, (i == 0 ? heads : kv) * d);
            h_ok(TRM_OP_TrmRope, rope, parts, 3, &in[i], 1);
        }
        h_ok(TRM_OP_TrmPagedAttention, a, in, fused ? 7 : 5, &out[s], 1);
    }
}

START_TEST(rope)
{
    trm_tensor parts[2], fused[2];

    h_seed = 7;
    attend(_i, false, parts);
    h_seed = 7;
    attend(_i, true, fused);
    for (int s = 0; s < 2; s++)
        same(&fused[s], &parts[s], turns[_i].name);
}
END_TEST

/* ---- what is refused ---- */

START_TEST(refused)
{
    trm_tensor x = matrix(3, 32), w = H_TENSOR(TRM_DTYPE_F32, 8, 32), q = matrix(3, 32);
    trm_tensor h = H_TENSOR(TRM_DTYPE_F16, 8, 32), g = H_TENSOR(TRM_DTYPE_F32, 32);
    trm_tensor step = H_TENSOR(TRM_DTYPE_I64, 1), three = H_TENSOR(TRM_DTYPE_I32, 3);
    trm_tensor short_g = H_TENSOR(TRM_DTYPE_F32, 16), none = {.dtype = TRM_DTYPE_NONE};
    trm_attrs *two = h_int(h_attrs(), "n", 2), *five = h_int(h_attrs(), "n", 5);
    trm_attrs *cap = h_string(h_int(h_attrs(), "n", 2), "gated", "softcap");
    trm_attrs *heads = h_int(h_int(h_int(h_attrs(), "heads", 1), "kv_heads", 1), "head_dim", 32);
    trm_attrs *rounds = h_string(h_attrs(), "rounds", "bf16");
    trm_tensor halves = H_TENSOR(TRM_DTYPE_BF16, 3, 32);
    const struct {
        const char *what;
        trm_op op;
        const trm_attrs *attrs;
        trm_tensor in[7];
        int in_count, out_count;
        trm_status want;
    } rows[] = {
        {"weights of two dtypes", TRM_OP_TrmLinears, two, {x, w, h}, 3, 2, TRM_ERR_UNSUPPORTED},
        {"five weights", TRM_OP_TrmLinears, five, {x, w, w, w, w, w}, 6, 5, TRM_ERR_INVALID_ARG},
        {"a cap", TRM_OP_TrmLinears, cap, {x, w, w}, 3, 1, TRM_ERR_UNSUPPORTED},
        {"an odd input", TRM_OP_TrmLinears, two, {x, w, w, g}, 4, 2, TRM_ERR_INVALID_ARG},
        {"groups", TRM_OP_TrmAddNorm, NULL, {q, q, short_g}, 3, 2, TRM_ERR_INVALID_ARG},
        {"a norm that rounds", TRM_OP_TrmNorm, rounds, {q, g}, 2, 1, TRM_ERR_UNSUPPORTED},
        {"a sum's norm that rounds",
         TRM_OP_TrmAddNorm,
         rounds,
         {q, q, g},
         3,
         2,
         TRM_ERR_UNSUPPORTED},
        {"an activation that rounds", TRM_OP_TrmGated, rounds, {q}, 1, 1, TRM_ERR_UNSUPPORTED},
        {"rounded rows", TRM_OP_TrmLinears, two, {halves, w, w}, 3, 2, TRM_ERR_UNSUPPORTED},
        {"rounded rows, one", TRM_OP_TrmLinear, NULL, {halves, w}, 2, 1, TRM_ERR_UNSUPPORTED},
        {"positions alone",
         TRM_OP_TrmPagedAttention,
         heads,
         {q, q, q, step, none, three},
         6,
         1,
         TRM_ERR_INVALID_ARG},
        {"too many frequencies",
         TRM_OP_TrmPagedAttention,
         heads,
         {q, q, q, step, none, three, g},
         7,
         1,
         TRM_ERR_INVALID_ARG},
    };

    for (int i = 0; i < COUNT(rows); i++) {
        bool narrow = rows[i].op == TRM_OP_TrmLinears || rows[i].op == TRM_OP_TrmLinear;
        trm_tensor out[5];

        for (int k = 0; k < 5; k++)
            out[k] = matrix(3, narrow ? 8 : 32);
        ck_assert_msg(h_run(rows[i].op, rows[i].attrs, rows[i].in, rows[i].in_count, out,
                            rows[i].out_count) == rows[i].want,
                      "%s: %s", rows[i].what, trm_message());
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("fused operators of language models");
    TCase *t = tcase_create("fused");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, h_setup, h_teardown);
    tcase_add_loop_test(t, add_norm, 0, COUNT(sums));
    tcase_add_loop_test(t, linears, 0, COUNT(products));
    tcase_add_loop_test(t, rope, 0, COUNT(turns));
    tcase_add_test(t, refused);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
