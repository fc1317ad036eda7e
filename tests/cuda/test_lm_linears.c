/* The CUDA backend's products of language models, several weights in one launch: of one input
 * (TrmLinears), gated, of experts; and where sums may have any order. */
#include "tests/cuda/lm_linear_kit.h"

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
    trm_tensor got[CUDA_ARGS], want[4] = {{0}};

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
    if (r->gated == NULL)
        return;
    c.out[0].dtype = r->biased ? BF16 : F16;
    kit_string(c.attrs, "rounds", r->biased ? "bf16" : "f16");
    KIT_OK(kit_run(&c, kit_gpu, got));
    same_rounded(r->name, c.out[0].dtype, got[0].data, want[0].data, trm_tensor_numel(&want[0]));
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
    if (gated) {
        cuda_case h = c;
        trm_tensor halves;

        h.out[0].dtype = BF16;
        kit_string(h.attrs, "rounds", "bf16");
        halves = run(&h);
        same_rounded(r->name, BF16, halves.data, got.data, trm_tensor_numel(&got));
    }
    kit_gpu->order_free = false;
    ck_assert_str_eq(c.kernel, kind->act != F32 && r->m > 64 ? "lm linear cublaslt" : "lm linear");
    c.atol = 2e-5;
    kit_compare(&c, 0, &got, &want);
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
#define EXPERTS_MAX 140
static const struct experts_row {
    const char *name;
    int m;                       /* the most rows */
    int32_t starts[EXPERTS + 1]; /* all 0: EXPERTS_MAX experts, of which few have rows */
    bool gated, by_row;
} experts_rows[] = {
    {"few", 20, {0, 3, 3, 12, 13, 18}, false, true},
    {"few, gated", 20, {0, 0, 9, 9, 9, 20}, true, true},
    {"no rows", 10, {0, 0, 0, 0, 0, -1}, false, true},
    {"many experts", 50, {0}, false, true},
    {"tiles", 45, {0, 3, 3, 30, 31, 40}, false, true},
    {"tiles, gated", 45, {0, 17, 33, 33, 45, 45}, true, false},
    {"many rows", 400, {0, 1, 1, 140, 270, 390}, false, false},
};
#define EXPERTS_ROWS (int)(sizeof(experts_rows) / sizeof(experts_rows[0]))

START_TEST(of_experts)
{
    enum { N = 40, K = 300, TOKENS = 12, MARK = 0x7fc12345 };
    const struct kind *kind = &kinds[_i % KINDS];
    const struct experts_row *r = &experts_rows[_i / KINDS];
    trm_cuda *cuda = (trm_cuda *)kit_gpu;
    int tokens = r->by_row ? TOKENS : r->m, segments = r->gated ? 2 : 1;
    int experts = r->starts[EXPERTS] == 0 ? EXPERTS_MAX : EXPERTS;
    int32_t starts[EXPERTS_MAX + 1] = {0};
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
                          .experts = experts};
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
    for (int e = 1; e <= experts; e++)
        starts[e] = experts == EXPERTS ? r->starts[e] > 0 ? r->starts[e] : 0
                                       : starts[e - 1] + (e % 7 == 4 || e == experts ? 2 : 0);
    for (int i = 0; i < r->m; i++)
        row_of[i] = i * 7 % TOKENS;
    for (size_t i = 0; i < elems; i++)
        out[i] = MARK;
    memory[0] = device_copy(x.data, (size_t)tokens * K * sizeof(float));
    memory[1] = device_copy(out, elems * sizeof(float));
    memory[2] = device_copy(starts, sizeof(starts));
    memory[3] = device_copy(row_of, (size_t)r->m * sizeof(*row_of));
    p.x = memory[0];
    p.starts = memory[2];
    p.row_of = r->by_row ? memory[3] : NULL;
    for (int s = 0; s < segments; s++) {
        trmi_lmc_weight *o = &weights[s];

        *o = ((trmi_lmc_linear *)k)->weights[0];
        w[s] = kit_random(KIT_T(kind->weight, experts * N, K), -1.0, 1.0);
        o->stack = (size_t)experts;
        o->stride = trm_align_up(o->family->weight_bytes(o), 256);
        o->data = memory[6 + s] = kit_device_memory(kit_gpu, o->stride * o->stack);
        for (size_t e = 0; e < o->stack; e++)
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
    for (int e = 0; e < experts; e++) {
        int from = starts[e], rows = starts[e + 1] - from;
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
    for (size_t i = (size_t)starts[experts] * N; i < elems; i++)
        ck_assert_msg(out[i] == MARK, "%s, %s: a row of no expert is written", r->name, kind->name);
    trm_kernel_destroy(k);
    kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, ws);
    for (int i = 0; i < 4; i++)
        kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, memory[i]);
    for (int s = 0; s < segments; s++)
        kit_gpu->ops->free(kit_gpu, TRM_MEMORY_DEVICE, memory[6 + s]);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("lm_linears");

    tcase_add_loop_test(t, several, 0, LINEARS * KINDS);
    tcase_add_loop_test(t, order_free, 0, FREES * KINDS);
    tcase_add_loop_test(t, of_experts, 0, EXPERTS_ROWS * KINDS);
    return kit_main("cuda lm_linears", t);
}
