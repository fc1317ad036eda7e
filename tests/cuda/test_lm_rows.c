/* TrmNorm, TrmAddNorm, TrmRope, TrmGated and TrmPool on the CUDA device against
 * the CPU device; and a row's bits do not depend on the rows beside it. */
#include "kernels/language.h"
#include "tests/cuda/cuda_kit.h"
#include "tests/cuda/lm_rounded_kit.h"
#include "tests/cuda/lm_rows_kit.h"

/* ---- norms ---- */

static const struct norm_row {
    const char *name;
    bool layer, bias;
    int64_t rows, n, groups; /* groups of a row */
    float offset;
    double shift;
} norms[] = {
    {"rms of 1", false, false, 3, 1, 1, 0, 0},
    {"rms of 63", false, false, 5, 63, 1, 1, 0},
    {"rms of 64 per head", false, false, 3, 64, 5, 0, 0},
    {"rms of 128 per head", false, false, 2, 128, 3, 0, 0},
    {"rms of 130", false, true, 5, 130, 1, 0, 2},
    {"rms of 256", false, false, 5, 256, 1, 1, 0},
    {"rms of 896", false, false, 9, 896, 1, 0, 0},
    {"rms of 1023", false, false, 3, 1023, 1, 0, 0},
    {"rms of 1024", false, false, 4, 1024, 1, 0, 0},
    {"rms of 1028", false, true, 3, 1028, 1, 0, 0},
    {"rms of 4096", false, false, 5, 4096, 1, 0, 0},
    {"rms of 5001", false, false, 2, 5001, 1, 0, 30},
    {"rms of 16384", false, false, 2, 16384, 1, 0, 0},
    {"rms of 16392", false, true, 2, 16392, 1, 0, 0},
    {"rms of 20001", false, false, 2, 20001, 1, 1, 0},
    {"layer of 5", true, true, 4, 5, 1, 0, 1},
    {"layer of 128", true, false, 5, 128, 1, 0, 50},
    {"layer of 768", true, true, 5, 768, 1, 0, 10},
    {"layer of 4097", true, true, 2, 4097, 1, 0, 0},
    {"layer of 17000", true, true, 2, 17000, 1, 0, 3},
    {"no rows", false, false, 0, 64, 1, 0, 0},
};
#define NORMS (int)(sizeof(norms) / sizeof(norms[0]))

static trm_attrs *norm_attrs(const struct norm_row *r)
{
    trm_attrs *a = kit_float(kit_attrs(), "epsilon", 1e-6f);

    kit_string(a, "kind", r->layer ? "layer" : "rms");
    return r->offset != 0 ? kit_float(a, "offset", r->offset) : a;
}

/* fp32 sums in another order than the CPU's, of up to 20000: 2e-6; a mean of 50 beside deviations
 * of 1 loses six bits */
START_TEST(norm)
{
    const struct norm_row *r = &norms[_i];
    trm_tensor x = KIT_T(TRM_DTYPE_F32, r->rows, r->groups * r->n), whole[1], over[1];
    cuda_case c = {.name = r->name,
                   .op = TRM_OP_TrmNorm,
                   .attrs = norm_attrs(r),
                   .in = {kit_random(x, r->shift - 1, r->shift + 1),
                          kit_random(KIT_T(TRM_DTYPE_F32, r->n), 0, 2)},
                   .out = {x},
                   .in_count = r->bias ? 3 : 2,
                   .out_count = 1,
                   .atol = r->layer ? 4e-6 * (1 + fabs(r->shift)) : 2e-6,
                   .rtol = 2e-6};

    if (r->bias)
        c.in[2] = kit_random(KIT_T(TRM_DTYPE_F32, r->n), -1, 1);
    cuda_check(&c);
    if (r->rows == 0)
        return;
    run_with(&c, NULL, -1, whole);
    run_with(&c, NULL, 0, over);
    same_bits(r->name, &over[0], &whole[0]);
    check_rows(&c, 1, whole);
    if (r->groups > 1) { /* a rank that has other groups of the row */
        cuda_case one = c;

        one.in[0] = slice((trm_tensor){.dtype = TRM_DTYPE_F32,
                                       .rank = 2,
                                       .dims = {r->rows * r->groups, r->n},
                                       .data = c.in[0].data},
                          1, r->groups);
        one.out[0] = KIT_T(TRM_DTYPE_F32, r->groups, r->n);
        run_with(&one, NULL, -1, over);
        ck_assert_mem_eq(over[0].data, (float *)whole[0].data + r->n,
                         (size_t)(r->groups * r->n) * sizeof(float));
    }
}
END_TEST

/* the bits of a sum and of its norm */
START_TEST(add_norm)
{
    const struct norm_row *r = &norms[_i];
    trm_tensor x = KIT_T(TRM_DTYPE_F32, r->rows, r->groups * r->n), got[2], over[2], want[1];
    trm_tensor gain = kit_random(KIT_T(TRM_DTYPE_F32, r->n), 0, 2), bias = {.dtype = 0};
    trm_tensor sum;
    cuda_case c = {.name = r->name,
                   .op = TRM_OP_TrmAddNorm,
                   .attrs = norm_attrs(r),
                   .in = {kit_random(x, -1, 1), kit_random(x, r->shift, r->shift + 1), gain},
                   .out = {x, x},
                   .in_count = r->bias ? 4 : 3,
                   .out_count = 2};
    cuda_case apart = {.name = r->name,
                       .op = TRM_OP_TrmNorm,
                       .attrs = c.attrs,
                       .out = {x},
                       .in_count = r->bias ? 3 : 2,
                       .out_count = 1};

    if (r->rows == 0)
        return;
    if (r->bias)
        bias = kit_random(KIT_T(TRM_DTYPE_F32, r->n), -1, 1);
    c.in[3] = bias;
    run_with(&c, NULL, -1, got);
    sum = kit_data(x);
    for (size_t i = 0; i < trm_tensor_numel(&x); i++)
        ((float *)sum.data)[i] = ((float *)c.in[0].data)[i] + ((float *)c.in[1].data)[i];
    same_bits(r->name, &got[0], &sum);
    apart.in[0] = sum;
    apart.in[1] = gain;
    apart.in[2] = bias;
    run_with(&apart, NULL, -1, want);
    same_bits(r->name, &got[1], &want[0]);
    for (int i = 0; i < 2; i++) {
        run_with(&c, NULL, i, over);
        same_bits(r->name, &over[0], &sum);
        same_bits(r->name, &over[1], &want[0]);
    }
    check_rows(&c, 2, got);
}
END_TEST

/* ---- norms that round ---- */

static const struct rounding_row {
    const char *name, *rounds;
    bool layer, add;
    int64_t rows, n, groups;
    int sums;
} roundings[] = {
    {"bf16 of 64 per head", "bf16", false, false, 3, 64, 3, 0},
    {"f16 of 63", "f16", false, true, 3, 63, 1, 0},
    {"bf16 of 896", "bf16", true, true, 5, 896, 1, 0},
    {"bf16 of 4096", "bf16", false, true, 2, 4096, 1, 0},
    {"f16 of 17000", "f16", false, false, 2, 17000, 1, 0},
    {"i8 of 32", "i8", false, false, 1, 32, 1, 0},
    {"i8 of 96, halves", "i8", false, true, 2, 96, 1, 2},
    {"i8 of 160, sums", "i8", true, false, 3, 160, 1, 1},
    {"i8 of 256", "i8", false, true, 5, 256, 1, 8},
    {"i8 of 896", "i8", false, false, 11, 896, 1, 16},
    {"i8 of 1024", "i8", false, true, 70, 1024, 1, 1},
    {"i8 of 2080", "i8", true, true, 33, 2080, 1, 1},
    {"i8 of 4096", "i8", false, false, 9, 4096, 1, 0},
    {"i8 of 16416", "i8", false, true, 3, 16416, 1, 1},
    {"i8, no rows", "i8", false, true, 0, 64, 1, 1},
};
#define ROUNDINGS (int)(sizeof(roundings) / sizeof(roundings[0]))

/* a norm's floats, rounded here; its sum stays as it is */
START_TEST(norm_rounds)
{
    const struct rounding_row *r = &roundings[_i];
    trm_tensor x = KIT_T(TRM_DTYPE_F32, r->rows, r->groups * r->n), want[2], got[2];
    int last = r->add ? 1 : 0;
    cuda_case c = {.name = r->name,
                   .op = r->add ? TRM_OP_TrmAddNorm : TRM_OP_TrmNorm,
                   .attrs = kit_string(kit_attrs(), "kind", r->layer ? "layer" : "rms"),
                   .in = {kit_random(x, -1, 1)},
                   .out = {x, x},
                   .in_count = last + 3,
                   .out_count = last + 1};

    c.in[last] = kit_random(x, -3, 3);
    c.in[last + 1] = kit_random(KIT_T(TRM_DTYPE_F32, r->n), 0, 2);
    c.in[last + 2] = kit_random(KIT_T(TRM_DTYPE_F32, r->n), -1, 1);
    if (r->n == 896) /* a group of zeros */
        for (int64_t i = 0; i < 64; i++)
            ((float *)c.in[last + 1].data)[i] = ((float *)c.in[last + 2].data)[i] = 0.0f;
    run_with(&c, NULL, -1, want);
    kit_string(c.attrs, "rounds", r->rounds);
    if (strcmp(r->rounds, "i8") == 0) {
        rounded_rows i8 = rounded_of(want[last].data, (size_t)r->rows, (size_t)r->n, r->sums);

        c.out[last] = KIT_T(TRM_DTYPE_U8, r->rows, (int64_t)trmi_lmq_row_bytes((size_t)r->n));
        kit_int(kit_int(c.attrs, "row_bytes", c.out[last].dims[1]), "sums", r->sums);
        run_with(&c, NULL, -1, got);
        for (size_t i = 0; i < i8.bytes; i++)
            ck_assert_msg(i8.made[i] == 0 || i8.data[i] == ((unsigned char *)got[last].data)[i],
                          "%s: byte %zu is %02x, want %02x", r->name, i,
                          ((unsigned char *)got[last].data)[i], i8.data[i]);
    } else {
        c.out[last].dtype = r->rounds[0] == 'b' ? TRM_DTYPE_BF16 : TRM_DTYPE_F16;
        run_with(&c, NULL, -1, got);
        for (size_t i = 0; i < trm_tensor_numel(&c.out[last]); i++) {
            float f = ((float *)want[last].data)[i];
            uint16_t h = r->rounds[0] == 'b' ? trm_f32_to_bf16(f) : trm_f32_to_f16(f);

            ck_assert_msg(h == ((uint16_t *)got[last].data)[i], "%s: element %zu", r->name, i);
        }
    }
    if (r->add)
        same_bits(r->name, &got[0], &want[0]);
}
END_TEST

/* ---- rope ---- */

static const struct rope_row {
    const char *name;
    int64_t rows, heads, head_dim, half;
    bool interleaved;
    float scale;
} ropes[] = {
    {"halves", 7, 3, 64, 32, false, 1},
    {"interleaved", 3, 2, 128, 64, true, 1},
    {"partial", 5, 4, 80, 10, false, 1.3f},
    {"partial, in fours", 5, 4, 80, 20, false, 1.3f},
    {"partial, interleaved", 5, 4, 96, 16, true, 0.7f},
    {"one pair", 4, 1, 2, 1, false, 1},
    {"none", 2, 1, 8, 0, false, 1},
    {"a head of 1024", 2, 1, 1024, 512, false, 1},
    {"odd", 3, 2, 50, 25, false, 1},
    {"odd, interleaved", 3, 2, 51, 25, true, 1},
    {"several blocks a row", 2, 40, 64, 32, false, 1},
    {"many rows", 400, 2, 16, 8, false, 1},
    {"no rows", 0, 2, 16, 8, false, 1},
};
#define ROPES (int)(sizeof(ropes) / sizeof(ropes[0]))

/* to the bit: both do the same operations */
START_TEST(rope)
{
    static const int32_t positions[] = {0, 1, 2, 17, 511, 4095, 32767, 131071, 999983, 1048573};
    const struct rope_row *r = &ropes[_i];
    trm_tensor x = KIT_T(TRM_DTYPE_F32, r->rows, r->heads * r->head_dim), whole[1], over[1];
    cuda_case c = {.name = r->name,
                   .op = TRM_OP_TrmRope,
                   .attrs = kit_int(kit_attrs(), "head_dim", r->head_dim),
                   .in = {kit_random(x, -3, 3), kit_data(KIT_T(TRM_DTYPE_I32, r->rows)),
                          kit_data(KIT_T(TRM_DTYPE_F32, r->half))},
                   .out = {x},
                   .in_count = 3,
                   .out_count = 1};

    if (r->interleaved)
        kit_int(c.attrs, "interleaved", 1);
    if (r->scale != 1.0f)
        kit_float(c.attrs, "scale", r->scale);
    for (int64_t i = 0; i < r->rows; i++)
        ((int32_t *)c.in[1].data)[i] = positions[(i + _i) % 10] + (int32_t)(i / 10);
    for (int64_t i = 0; i < r->half; i++)
        ((float *)c.in[2].data)[i] = (float)pow(10000.0, -(double)i / (double)r->half);
    cuda_check(&c);
    if (r->rows == 0)
        return;
    run_with(&c, NULL, -1, whole);
    run_with(&c, NULL, 0, over);
    same_bits(r->name, &over[0], &whole[0]);
    check_rows(&c, 2, whole);
}
END_TEST

/* ---- activations ---- */

static const char *const acts[] = {"none", "silu", "gelu", "gelu_tanh", "relu", "tanh", "softcap"};
static const int64_t act_widths[] = {1, 3, 4, 601, 4096};

/* to the bit where the CPU multiplies and adds in one; a few ulps where it does not */
START_TEST(gated)
{
    for (size_t w = 0; w < 5; w++)
        for (int up = 0; up < 2; up++) {
            trm_tensor x = KIT_T(TRM_DTYPE_F32, w < 3 ? 1 : 3, act_widths[w]), whole[1], over[1];
            cuda_case c = {.name = acts[_i],
                           .op = TRM_OP_TrmGated,
                           .attrs = kit_string(kit_attrs(), "act", acts[_i]),
                           .in = {kit_random(x, -12, 12), kit_random(x, -2, 2)},
                           .out = {x},
                           .in_count = 1 + up,
                           .out_count = 1,
                           .rtol = trm_device_isa() > 0 ? 0 : 2e-6,
                           .atol = trm_device_isa() > 0 ? 0 : 1e-6};

            if (strcmp(acts[_i], "softcap") == 0)
                kit_float(c.attrs, "cap", 7.0f);
            if (act_widths[w] == 601) { /* numbers that activations trip over */
                static const float odd[] = {0.0f,   -0.0f,  200.0f,   -200.0f,   -90.0f, 14.6f,
                                            -14.6f, 1e-30f, INFINITY, -INFINITY, NAN};

                memcpy(c.in[0].data, odd, sizeof(odd));
            }
            cuda_check(&c);
            run_with(&c, NULL, -1, whole);
            for (int i = 0; i <= up; i++) {
                run_with(&c, NULL, i, over);
                same_bits(acts[_i], &over[0], &whole[0]);
            }
            check_rows(&c, 1 + up, whole);
            c.out[0].dtype = up ? TRM_DTYPE_BF16 : TRM_DTYPE_F16;
            kit_string(c.attrs, "rounds", up ? "bf16" : "f16");
            run_with(&c, NULL, -1, over);
            for (size_t i = 0; i < trm_tensor_numel(&x); i++) {
                float f = ((float *)whole[0].data)[i];
                uint16_t want = up ? trm_f32_to_bf16(f) : trm_f32_to_f16(f);

                ck_assert_msg(isnan(f) || ((uint16_t *)over[0].data)[i] == want,
                              "%s, rounded: element %zu", acts[_i], i);
            }
        }
}
END_TEST

/* ---- pools ---- */

static const trm_step_sequence sequences[] = {
    {0, 3, 0, NULL}, {3, 1, 0, NULL}, {4, 0, 0, NULL}, {4, 70, 5, NULL}, {74, 9, 0, NULL}};
#define POOL_ROWS 90
#define POOL_SEQUENCES 5
#define POOL_PADDED 7

static void *send_step(const trm_step *step)
{
    trm_device *d = kit_gpu;
    size_t bytes = 0;
    void *host, *block;

    ck_assert_int_eq(d->ops->step_encode(d, step, NULL, 0, &bytes), TRM_ERR_NO_MEMORY);
    host = trm_arena_alloc_aligned(kit_arena, bytes);
    ck_assert_ptr_nonnull(host);
    KIT_OK(d->ops->step_encode(d, step, host, bytes, &bytes));
    block = kit_device_memory(d, bytes);
    KIT_OK(d->ops->step_send(d, NULL, step, block, host, bytes));
    kit_wait(d);
    return block;
}

static trm_step pool_step(const trm_step_sequence *q, int count)
{
    return (trm_step){.tokens = POOL_ROWS,
                      .sequence_count = count,
                      .sequences_padded = POOL_PADDED,
                      .sequences = q,
                      .token_rows = POOL_ROWS,
                      .token_max = POOL_ROWS};
}

static void run_pool(cuda_case *c, const trm_step *step, trm_tensor *out)
{
    const void *given[2] = {NULL, send_step(step)};

    run_with(c, given, -1, out);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, (void *)(uintptr_t)given[1]);
}

/* means in double are the CPU's but for the last bit of fp32; lengths: 2e-7 */
START_TEST(pool)
{
    static const char *const kinds[] = {"mean", "cls", "last"};
    static const int64_t widths[] = {5, 64, 260};

    for (int w = 0; w < 3; w++)
        for (int normalize = 0; normalize < 2; normalize++) {
            trm_step step = pool_step(sequences, POOL_SEQUENCES), alone;
            trm_step_sequence moved = {20, 70, 5, NULL};
            trm_tensor x = KIT_T(TRM_DTYPE_F32, POOL_ROWS, widths[w]), got[1], want[1], one[1];
            cuda_case c = {
                .name = kinds[_i],
                .op = TRM_OP_TrmPool,
                .attrs = kit_string(kit_attrs(), "kind", kinds[_i]),
                .in = {kit_random(x, -1, 3), kit_data(KIT_T(TRM_DTYPE_I64, POOL_PADDED))},
                .out = {KIT_T(TRM_DTYPE_F32, POOL_PADDED, widths[w])},
                .in_count = 2,
                .out_count = 1,
                .rtol = 2e-7,
                .atol = normalize != 0 ? 2e-7 : 0};

            if (normalize != 0)
                kit_int(c.attrs, "normalize", 1);
            memset(c.in[1].data, 0, POOL_PADDED * sizeof(int64_t));
            *(int64_t *)c.in[1].data = (int64_t)(uintptr_t)&step;
            KIT_OK(kit_run(&c, kit_cpu, want));
            run_pool(&c, &step, got);
            kit_compare(&c, 0, &got[0], &want[0]);
            /* sequence 3 alone, elsewhere in a step */
            memmove((float *)c.in[0].data + 20 * widths[w], (float *)c.in[0].data + 4 * widths[w],
                    (size_t)(70 * widths[w]) * sizeof(float));
            alone = pool_step(&moved, 1);
            run_pool(&c, &alone, one);
            ck_assert_mem_eq(one[0].data, (float *)got[0].data + 3 * widths[w],
                             (size_t)widths[w] * sizeof(float));
            /* rows past the step's sequences are zeros */
            for (int64_t i = widths[w]; i < POOL_PADDED * widths[w]; i++)
                ck_assert(((float *)one[0].data)[i] == 0.0f);
        }
}
END_TEST

/* ---- refusals ---- */

#define F32 TRM_DTYPE_F32
static const struct refusal {
    const char *name;
    trm_op op;
    trm_status want;
    const char *text, *value; /* an attribute */
    trm_dtype dtypes[4];
    int64_t dims[4][3], out[3]; /* -1 ends */
} refusals[] = {
    {"norm's kind",
     TRM_OP_TrmNorm,
     TRM_ERR_UNSUPPORTED,
     "kind",
     "group",
     {F32, F32},
     {{2, 8, -1}, {8, -1}},
     {2, 8, -1}},
    {"norm's weight",
     TRM_OP_TrmNorm,
     TRM_ERR_INVALID_ARG,
     "kind",
     "rms",
     {F32, F32},
     {{2, 8, -1}, {3, -1}},
     {2, 8, -1}},
    {"norm's bias",
     TRM_OP_TrmNorm,
     TRM_ERR_INVALID_ARG,
     "kind",
     "rms",
     {F32, F32, F32},
     {{2, 8, -1}, {8, -1}, {4, -1}},
     {2, 8, -1}},
    {"norm of halves",
     TRM_OP_TrmNorm,
     TRM_ERR_UNSUPPORTED,
     "kind",
     "rms",
     {TRM_DTYPE_F16, F32},
     {{2, 8, -1}, {8, -1}},
     {2, 8, -1}},
    {"rope without a head",
     TRM_OP_TrmRope,
     TRM_ERR_INVALID_ARG,
     "none",
     "",
     {F32, TRM_DTYPE_I32, F32},
     {{2, 8, -1}, {2, -1}, {4, -1}},
     {2, 8, -1}},
    {"act", TRM_OP_TrmGated, TRM_ERR_UNSUPPORTED, "act", "swoosh", {F32}, {{2, 8, -1}}, {2, 8, -1}},
    {"no cap",
     TRM_OP_TrmGated,
     TRM_ERR_INVALID_ARG,
     "act",
     "softcap",
     {F32},
     {{2, 8, -1}},
     {2, 8, -1}},
    {"up of another shape",
     TRM_OP_TrmGated,
     TRM_ERR_INVALID_ARG,
     "act",
     "silu",
     {F32, F32},
     {{2, 8, -1}, {2, 4, -1}},
     {2, 8, -1}},
    {"a table of integers",
     TRM_OP_TrmEmbed,
     TRM_ERR_UNSUPPORTED,
     "none",
     "",
     {TRM_DTYPE_I32, TRM_DTYPE_I8},
     {{2, -1}, {5, 8, -1}},
     {2, 8, -1}},
    {"ids of 64 bits",
     TRM_OP_TrmEmbed,
     TRM_ERR_UNSUPPORTED,
     "none",
     "",
     {TRM_DTYPE_I64, F32},
     {{2, -1}, {5, 8, -1}},
     {2, 8, -1}},
    {"an embedding's output",
     TRM_OP_TrmEmbed,
     TRM_ERR_INVALID_ARG,
     "none",
     "",
     {TRM_DTYPE_I32, F32},
     {{2, -1}, {5, 8, -1}},
     {2, 9, -1}},
    {"rows' output",
     TRM_OP_TrmRows,
     TRM_ERR_INVALID_ARG,
     "none",
     "",
     {F32, TRM_DTYPE_I32},
     {{5, 8, -1}, {2, -1}},
     {3, 8, -1}},
    {"rounds to what nobody knows",
     TRM_OP_TrmNorm,
     TRM_ERR_UNSUPPORTED,
     "rounds",
     "f8",
     {F32, F32},
     {{5, 8, -1}, {8, -1}},
     {5, 8, -1}},
    {"rounds, and the output does not",
     TRM_OP_TrmNorm,
     TRM_ERR_INVALID_ARG,
     "rounds",
     "bf16",
     {F32, F32},
     {{5, 8, -1}, {8, -1}},
     {5, 8, -1}},
    {"rounds rows that are no groups",
     TRM_OP_TrmNorm,
     TRM_ERR_UNSUPPORTED,
     "rounds",
     "i8",
     {F32, F32},
     {{5, 8, -1}, {8, -1}},
     {5, 8, -1}},
    {"pool's kind",
     TRM_OP_TrmPool,
     TRM_ERR_UNSUPPORTED,
     "kind",
     "max",
     {F32, TRM_DTYPE_I64},
     {{5, 8, -1}, {2, -1}},
     {2, 8, -1}},
    {"pool's output",
     TRM_OP_TrmPool,
     TRM_ERR_INVALID_ARG,
     "kind",
     "cls",
     {F32, TRM_DTYPE_I64},
     {{5, 8, -1}, {2, -1}},
     {3, 8, -1}},
};
#define REFUSALS (int)(sizeof(refusals) / sizeof(refusals[0]))

START_TEST(refused)
{
    const struct refusal *r = &refusals[_i];
    cuda_case c = {.name = r->name,
                   .op = r->op,
                   .attrs = kit_string(kit_attrs(), r->text, r->value),
                   .out = {kit_tensor(F32, r->out)},
                   .out_count = 1,
                   .want_prepare = r->want};

    for (; c.in_count < 4 && r->dtypes[c.in_count] != TRM_DTYPE_NONE; c.in_count++)
        c.in[c.in_count] = kit_tensor(r->dtypes[c.in_count], r->dims[c.in_count]);
    cuda_check(&c);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("rows");

    tcase_add_loop_test(t, norm, 0, NORMS);
    tcase_add_loop_test(t, add_norm, 0, NORMS);
    tcase_add_loop_test(t, norm_rounds, 0, ROUNDINGS);
    tcase_add_loop_test(t, rope, 0, ROPES);
    tcase_add_loop_test(t, gated, 0, 7);
    tcase_add_loop_test(t, pool, 0, 3);
    tcase_add_loop_test(t, refused, 0, REFUSALS);
    return kit_main("lm rows", t);
}
