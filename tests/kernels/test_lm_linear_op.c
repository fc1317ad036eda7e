/* TrmLinear as a kernel of the CPU device: attributes, packed weights that shape buckets share,
 * refusals. The products themselves are test_lm_linear.c's. */
#include "kernels/device.h"
#include "tests/kernels/lm_check.h"

static trm_device *device;

#define ATTRS_MAX 5
#define INT(n, value)                                                                              \
    {                                                                                              \
        .name = (n), .kind = TRM_ATTR_INT, .v.i = (value)                                          \
    }
#define TEXT(n, value)                                                                             \
    {                                                                                              \
        .name = (n), .kind = TRM_ATTR_STRING, .v.s = (value)                                       \
    }

/* A node and its tensors. */
typedef struct node {
    trm_tensor in[3], out;
    uint64_t keys[3];
    trm_attr items[ATTRS_MAX];
    trm_attrs attrs;
    trm_op_desc desc;
} node;

static trm_tensor tensor2(trm_dtype dtype, size_t a, size_t b, void *data)
{
    return (trm_tensor){.dtype = dtype, .rank = 2, .dims = {(int64_t)a, (int64_t)b}, .data = data};
}

static void node_init(node *d, const trm_attr *items, size_t m, size_t n, size_t k, trm_dtype dtype,
                      void *weight, bool bias)
{
    memset(d, 0, sizeof(*d));
    for (d->attrs.count = 0; items[d->attrs.count].name != NULL; d->attrs.count++)
        d->items[d->attrs.count] = items[d->attrs.count];
    d->attrs.items = d->items;
    d->in[0] = tensor2(TRM_DTYPE_F32, m, k, NULL);
    d->in[1] = trm_attr_int(&d->attrs, "transposed", 0) ? tensor2(dtype, k, n, weight)
                                                        : tensor2(dtype, n, k, weight);
    if (bias)
        d->in[2] = (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {(int64_t)n}};
    d->out = tensor2(TRM_DTYPE_F32, m, n, NULL);
    d->keys[1] = 0; /* not shared */
    d->desc = (trm_op_desc){.op = TRM_OP_TrmLinear,
                            .attrs = &d->attrs,
                            .name = "node",
                            .input_count = 3,
                            .output_count = 1,
                            .inputs = d->in,
                            .outputs = &d->out,
                            .weight_keys = d->keys};
}

static void run(trm_kernel *k, const float *x, const float *bias, float *out)
{
    const void *in[3] = {x, NULL, bias};
    void *outs[1] = {out}, *workspace = lm_alloc(k->workspace_bytes);
    uint64_t before = trm_alloc_calls();

    ck_assert_msg(k->ops->run(k, NULL, in, outs, workspace) == TRM_OK, "%s", trm_message());
    ck_assert_uint_eq(trm_alloc_calls(), before);
    trm_aligned_free(workspace);
}

static trm_kernel *prepare(node *d)
{
    trm_kernel *k = NULL;

    ck_assert_msg(device->ops->prepare(device, &d->desc, &k) == TRM_OK, "%s", trm_message());
    ck_assert_uint_eq(k->packed_inputs, 2);
    ck_assert_uint_eq(k->copied_inputs, 2);
    return k;
}

static const struct {
    const char *name;
    trm_dtype dtype;
    size_t m, n, k;
    bool bias;
    trm_attr attrs[ATTRS_MAX];
} cases[] = {
    {"f32", TRM_DTYPE_F32, 5, 33, 64, false, {{0}}},
    {"f16, bias", TRM_DTYPE_F16, 5, 33, 64, true, {{0}}},
    {"bf16, one row, bias", TRM_DTYPE_BF16, 1, 600, 129, true, {{0}}},
    {"no rows", TRM_DTYPE_F32, 0, 33, 64, true, {{0}}},
    {"many rows", TRM_DTYPE_BF16, 130, 40, 64, true, {{0}}},
    {"bf16 activations", TRM_DTYPE_BF16, 9, 40, 77, true, {TEXT("act", "bf16")}},
    {"f16 activations", TRM_DTYPE_F16, 9, 40, 77, true, {TEXT("act", "f16")}},
    {"transposed", TRM_DTYPE_F32, 3, 50, 21, true, {INT("transposed", 1)}},
    {"transposed f16", TRM_DTYPE_F16, 3, 50, 21, false, {INT("transposed", 1)}},
    {"leaves", TRM_DTYPE_BF16, 3, 50, 320, true, {INT("unit", 32)}},
    {"leaves, transposed, bf16 activations",
     TRM_DTYPE_BF16,
     14,
     50,
     320,
     false,
     {INT("unit", 64), INT("transposed", 1), TEXT("act", "bf16")}},
};

/* against double; the bound's reasons are in test_lm_linear.c */
START_TEST(truth)
{
    size_t m = cases[_i].m, n = cases[_i].n, depth = cases[_i].k;
    float *plain, *x = lm_random_floats(m * depth), *bias = lm_random_floats(n);
    void *weight = lm_random_weights(cases[_i].dtype, n * depth, &plain);
    float *out = lm_alloc(m * n * sizeof(float));
    const char *act;
    trm_kernel *k;
    node d;

    node_init(&d, cases[_i].attrs, m, n, depth, cases[_i].dtype, weight, cases[_i].bias);
    act = trm_attr_string(&d.attrs, "act", NULL);
    k = prepare(&d);
    memset(weight, 0, n * depth * trm_dtype_bytes(cases[_i].dtype)); /* it was copied */
    run(k, x, cases[_i].bias ? bias : NULL, out);
    for (size_t r = 0; r < m; r++)
        for (size_t j = 0; j < n; j++) {
            double want = cases[_i].bias ? (double)bias[j] : 0.0, magnitude = fabs(want);

            for (size_t i = 0; i < depth; i++) {
                float v = x[r * depth + i];
                float w = trm_attr_int(&d.attrs, "transposed", 0) ? plain[i * n + j]
                                                                  : plain[j * depth + i];

                if (act != NULL)
                    v = strcmp(act, "f16") == 0 ? trm_f16_to_f32(trm_f32_to_f16(v))
                                                : trm_bf16_to_f32(trm_f32_to_bf16(v));
                want += (double)v * (double)w;
                magnitude += fabs((double)v * (double)w);
            }
            ck_assert_msg(fabs((double)out[r * n + j] - want) <=
                              ldexp(1.0, -24) * (2.0 + 4.0 * sqrt((double)depth)) * magnitude,
                          "%s: [%zu, %zu] is %.9g, want %.9g", cases[_i].name, r, j,
                          (double)out[r * n + j], want);
        }
    trm_kernel_destroy(k);
    trm_aligned_free(weight);
    trm_aligned_free(plain);
    trm_aligned_free(x);
    trm_aligned_free(bias);
    trm_aligned_free(out);
}
END_TEST

/* Ranks hold leaves [0, 3), [3, 8), [8, 11): what the tree makes of their parts is the whole. */
START_TEST(parts)
{
    enum { M = 4, N = 30, UNIT = 32, LEAVES = 11, K = UNIT * LEAVES };
    static const int cut[] = {0, 3, 8, LEAVES};
    static const trm_attr whole_attrs[ATTRS_MAX] = {INT("unit", UNIT)};
    void *weight = lm_random_weights(TRM_DTYPE_BF16, N * K, NULL);
    float *x = lm_random_floats(M * K), *want = lm_alloc(M * N * 4), *sum = lm_alloc(M * N * 4);
    lm_part all[3 * TRM_TREE_PARTS_MAX];
    float *outs[3];
    int count = 0;
    trm_kernel *k;
    node d;

    node_init(&d, whole_attrs, M, N, K, TRM_DTYPE_BF16, weight, false);
    k = prepare(&d);
    run(k, x, NULL, want);
    trm_kernel_destroy(k);
    for (int r = 0; r < 3; r++) {
        trm_attr attrs[ATTRS_MAX] = {INT("unit", UNIT), INT("first", cut[r]),
                                     INT("leaves", LEAVES)};
        size_t leaves = (size_t)(cut[r + 1] - cut[r]), wide = leaves * UNIT;
        uint16_t *w = lm_alloc(N * wide * 2);
        float *part_x = lm_alloc(M * wide * 4);
        trm_tree_part tree[TRM_TREE_PARTS_MAX];
        int n = trm_tree_parts(cut[r], (int)leaves, LEAVES, tree);

        for (size_t i = 0; i < N; i++)
            memcpy(w + i * wide, (uint16_t *)weight + i * K + (size_t)cut[r] * UNIT, wide * 2);
        for (size_t i = 0; i < M; i++)
            memcpy(part_x + i * wide, x + i * K + (size_t)cut[r] * UNIT, wide * 4);
        node_init(&d, attrs, M, N, wide, TRM_DTYPE_BF16, w, false);
        d.out = (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {n, M, N}};
        k = prepare(&d);
        outs[r] = lm_alloc((size_t)n * M * N * 4);
        run(k, part_x, NULL, outs[r]);
        trm_kernel_destroy(k);
        for (int i = 0; i < n; i++)
            all[count++] = (lm_part){tree[i].lo, tree[i].hi, outs[r] + (size_t)i * M * N};
        trm_aligned_free(w);
        trm_aligned_free(part_x);
    }
    lm_tree_sum(all, count, 0, LEAVES, (size_t)M * N, sum);
    ck_assert_mem_eq(sum, want, M * N * 4);
    for (int r = 0; r < 3; r++)
        trm_aligned_free(outs[r]);
    trm_aligned_free(weight);
    trm_aligned_free(x);
    trm_aligned_free(want);
    trm_aligned_free(sum);
}
END_TEST

/* Kernels of two shape buckets share one packed weight, another weight has its own; rows have the
 * same bits in both. */
START_TEST(packs_once)
{
    enum { N = 40, K = 64 };
    static const trm_attr none[1] = {{0}}, rounded[] = {TEXT("act", "bf16"), {0}};
    void *weight = lm_random_weights(TRM_DTYPE_BF16, N * K, NULL);
    float *x = lm_random_floats(20 * K), out[2][20 * N];
    trm_kernel *k[4];
    size_t bytes = device->packed_bytes, one;
    node d;

    node_init(&d, none, 1, N, K, TRM_DTYPE_BF16, weight, false);
    d.keys[1] = 77;
    k[0] = prepare(&d);
    one = device->packed_bytes - bytes;
    ck_assert_uint_ge(one, N * K * 2);
    node_init(&d, none, 20, N, K, TRM_DTYPE_BF16, weight, false);
    d.keys[1] = 77;
    k[1] = prepare(&d);
    node_init(&d, rounded, 20, N, K, TRM_DTYPE_BF16, weight, false);
    d.keys[1] = 77; /* the packed form does not depend on activations */
    k[2] = prepare(&d);
    ck_assert_uint_eq(device->packed_bytes - bytes, one);
    d.keys[1] = 78;
    k[3] = prepare(&d);
    ck_assert_uint_eq(device->packed_bytes - bytes, 2 * one);
    run(k[1], x, NULL, out[1]);
    for (size_t r = 0; r < 20; r++)
        run(k[0], x + r * K, NULL, out[0] + r * N);
    ck_assert_mem_eq(out[0], out[1], sizeof(out[0]));
    for (int i = 0; i < 4; i++)
        trm_kernel_destroy(k[i]);
    ck_assert_uint_eq(device->packed_bytes, bytes);
    trm_aligned_free(weight);
    trm_aligned_free(x);
}
END_TEST

/* what prepare refuses: the change is to a good node of bf16 weights, M 2, N 16, K 64 */
typedef enum flaw {
    FLAW_NONE,
    FLAW_X_F16,
    FLAW_OUT_F16,
    FLAW_K,
    FLAW_RANK,
    FLAW_OUT_SHAPE,
    FLAW_BIAS_SHAPE,
    FLAW_BIAS_DTYPE,
    FLAW_NOT_CONSTANT,
    FLAW_WEIGHT_I32,
    FLAW_WEIGHT_F32,
    FLAW_POST
} flaw;
static const struct {
    const char *name;
    flaw what;
    trm_status want;
    bool bias;
    trm_attr attrs[ATTRS_MAX];
} flaws[] = {
    {"good", FLAW_NONE, TRM_OK, true, {INT("unit", 32)}},
    {"x f16", FLAW_X_F16, TRM_ERR_UNSUPPORTED, false, {{0}}},
    {"output f16", FLAW_OUT_F16, TRM_ERR_UNSUPPORTED, false, {{0}}},
    {"K differs", FLAW_K, TRM_ERR_INVALID_ARG, false, {{0}}},
    {"ranks", FLAW_RANK, TRM_ERR_INVALID_ARG, false, {{0}}},
    {"output's shape", FLAW_OUT_SHAPE, TRM_ERR_INVALID_ARG, false, {{0}}},
    {"bias' shape", FLAW_BIAS_SHAPE, TRM_ERR_INVALID_ARG, true, {{0}}},
    {"bias' dtype", FLAW_BIAS_DTYPE, TRM_ERR_INVALID_ARG, true, {{0}}},
    {"weight not constant", FLAW_NOT_CONSTANT, TRM_ERR_UNSUPPORTED, false, {{0}}},
    {"integers", FLAW_WEIGHT_I32, TRM_ERR_UNSUPPORTED, false, {{0}}},
    {"bf16 activations, f32 weight",
     FLAW_WEIGHT_F32,
     TRM_ERR_UNSUPPORTED,
     false,
     {TEXT("act", "bf16")}},
    {"f16 activations, f32 weight",
     FLAW_WEIGHT_F32,
     TRM_ERR_UNSUPPORTED,
     false,
     {TEXT("act", "f16")}},
    {"unknown act", FLAW_NONE, TRM_ERR_UNSUPPORTED, false, {TEXT("act", "f8")}},
    {"post-op", FLAW_POST, TRM_ERR_UNSUPPORTED, false, {{0}}},
    {"unit negative", FLAW_NONE, TRM_ERR_INVALID_ARG, false, {INT("unit", -32)}},
    {"unit odd", FLAW_NONE, TRM_ERR_INVALID_ARG, false, {INT("unit", 1)}},
    {"unit does not divide", FLAW_NONE, TRM_ERR_INVALID_ARG, false, {INT("unit", 48)}},
    {"part without unit", FLAW_NONE, TRM_ERR_INVALID_ARG, false, {INT("leaves", 2)}},
    {"part with bias", FLAW_NONE, TRM_ERR_INVALID_ARG, true, {INT("leaves", 2), INT("unit", 32)}},
    {"part past the tree",
     FLAW_NONE,
     TRM_ERR_INVALID_ARG,
     false,
     {INT("leaves", 4), INT("unit", 32), INT("first", 3)}},
};

START_TEST(refusals)
{
    static uint32_t weight[16 * 64];
    trm_kernel *k = NULL;
    trm_status st;
    node d;

    node_init(&d, flaws[_i].attrs, 2, 16, 64, TRM_DTYPE_BF16, weight, flaws[_i].bias);
    switch (flaws[_i].what) {
    case FLAW_NONE:
        break;
    case FLAW_X_F16:
        d.in[0].dtype = TRM_DTYPE_F16;
        break;
    case FLAW_OUT_F16:
        d.out.dtype = TRM_DTYPE_F16;
        break;
    case FLAW_K:
        d.in[0].dims[1] = 63;
        break;
    case FLAW_RANK:
        d.in[0].rank = 3;
        d.in[0].dims[2] = 64;
        break;
    case FLAW_OUT_SHAPE:
        d.out.dims[1] = 15;
        break;
    case FLAW_BIAS_SHAPE:
        d.in[2].dims[0] = 15;
        break;
    case FLAW_BIAS_DTYPE:
        d.in[2].dtype = TRM_DTYPE_F16;
        break;
    case FLAW_NOT_CONSTANT:
        d.in[1].data = NULL;
        break;
    case FLAW_WEIGHT_I32:
        d.in[1].dtype = TRM_DTYPE_I32;
        break;
    case FLAW_WEIGHT_F32:
        d.in[1].dtype = TRM_DTYPE_F32;
        break;
    case FLAW_POST:
        d.desc.post_count = 1;
        d.desc.posts[0] = (trm_post){.op = TRM_OP_Relu, .input = -1};
        break;
    }
    st = device->ops->prepare(device, &d.desc, &k);
    ck_assert_msg(st == flaws[_i].want, "%s: %s (%s)", flaws[_i].name, trm_status_name(st),
                  trm_message());
    trm_kernel_destroy(k);
}
END_TEST

START_TEST(no_memory)
{
    static const trm_attr transposed[] = {INT("transposed", 1), {0}};
    static float weight[16 * 64];
    trm_kernel *k = NULL;
    int64_t live = trm_alloc_live();
    int calls = 0;
    trm_status st;
    node d;

    do {
        node_init(&d, transposed, 2, 16, 64, TRM_DTYPE_F32, weight, false);
        trm_alloc_fail_after(calls++);
        st = device->ops->prepare(device, &d.desc, &k);
        trm_alloc_fail_after(-1);
        if (st != TRM_OK) {
            ck_assert_int_eq(st, TRM_ERR_NO_MEMORY);
            ck_assert_int_eq(trm_alloc_live(), live);
        }
    } while (st != TRM_OK && calls < 100);
    ck_assert_int_ge(calls, 5);
    ck_assert_int_eq(st, TRM_OK);
    trm_kernel_destroy(k);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm linear op");
    int rc;

    if (trm_device_cpu_create(2, &device) != TRM_OK)
        return 1;
    tcase_add_loop_test(t, truth, 0, (int)(sizeof(cases) / sizeof(cases[0])));
    tcase_add_test(t, parts);
    tcase_add_test(t, packs_once);
    tcase_add_loop_test(t, refusals, 0, (int)(sizeof(flaws) / sizeof(flaws[0])));
    tcase_add_test(t, no_memory);
    rc = lm_main(t, "lm linear op");
    trm_device_destroy(device);
    return rc;
}
