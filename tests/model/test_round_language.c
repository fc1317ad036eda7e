/* Which rows are made rounded (model/passes/round_language.c): a norm, its readers, and what a
 * device says it wants. That bits do not change is tested where a device is at hand
 * (tests/cuda/test_lm_linear.c, test_lm_quant.c, tests/worker/test_lm_logits.c). */
#include "model/passes/passes.h"
#include "model/shape/shape.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define K 256

static trm_graph *g;
static int64_t tokens;

static void setup(void)
{
    ck_assert_int_eq(trm_graph_create(NULL, "g", &g), TRM_OK);
    ck_assert_int_eq(trm_graph_symbol(g, "t", &tokens), TRM_OK);
}

static void teardown(void)
{
    trm_graph_destroy(g);
}

/* A device with products of halves and of two kinds of blocks, that wants K in whole chunks. */
static trm_rounding rounding(const trm_tensor *weight, bool transposed, int64_t unit, trm_dtype act)
{
    trm_rounding none = {.dtype = TRM_DTYPE_NONE};

    if (weight->dims[1] % 32 != 0 || unit % 32 != 0 || transposed)
        return none;
    switch (weight->dtype) {
    case TRM_DTYPE_BF16:
    case TRM_DTYPE_F16:
        return act == weight->dtype ? (trm_rounding){.dtype = act} : none;
    case TRM_DTYPE_Q4_K:
        return (trm_rounding){.dtype = TRM_DTYPE_U8, .row_bytes = 2 * weight->dims[1], .sums = 1};
    case TRM_DTYPE_Q2_K:
        return (trm_rounding){.dtype = TRM_DTYPE_U8, .row_bytes = 2 * weight->dims[1], .sums = 2};
    case TRM_DTYPE_Q6_K:
        return (trm_rounding){.dtype = TRM_DTYPE_U8, .row_bytes = 2 * weight->dims[1]};
    default:
        return none;
    }
}

static int rows(const char *name)
{
    trm_tensor desc = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {tokens, K}};
    int all[8], n = g->input_count, v;

    ck_assert_int_eq(trm_graph_add_value(g, name, &desc, &v), TRM_OK);
    for (int i = 0; i < n; i++)
        all[i] = g->inputs[i];
    all[n] = v;
    ck_assert_int_eq(trm_graph_set_inputs(g, all, n + 1), TRM_OK);
    return v;
}

static int constant(trm_dtype dtype, int rank, int64_t a, int64_t b)
{
    static uint64_t zeros[K * K];
    trm_tensor desc = {.dtype = dtype, .rank = rank, .dims = {a, b}, .data = zeros};
    int v;

    ck_assert_int_eq(trm_graph_add_constant(g, trm_graph_fresh_name(g, "w"), &desc, &v), TRM_OK);
    return v;
}

static int node(trm_op op, const int *inputs, int count, trm_attrs **attrs_out)
{
    trm_tensor none = {.rank = -1};
    int v, n;

    ck_assert_int_eq(trm_graph_add_value(g, trm_graph_fresh_name(g, "v"), &none, &v), TRM_OK);
    ck_assert_int_eq(trm_graph_add_node(g, op, "", inputs, count, &v, 1, &n), TRM_OK);
    *attrs_out = &g->nodes[n].attrs;
    return v;
}

/* A reader of x by name. */
static int reader(int x, const char *what)
{
    static const struct {
        const char *name;
        trm_dtype dtype;
        const char *act;
        int unit, transposed;
    } products[] = {
        {"bf16", TRM_DTYPE_BF16, "bf16", 0, 0},     {"f16", TRM_DTYPE_F16, "f16", 0, 0},
        {"exact", TRM_DTYPE_BF16, NULL, 0, 0},      {"f32", TRM_DTYPE_F32, NULL, 0, 0},
        {"q4_k", TRM_DTYPE_Q4_K, NULL, 0, 0},       {"q6_k", TRM_DTYPE_Q6_K, NULL, 0, 0},
        {"q2_k", TRM_DTYPE_Q2_K, NULL, 0, 0},       {"unit", TRM_DTYPE_BF16, "bf16", 64, 0},
        {"unit 16", TRM_DTYPE_BF16, "bf16", 16, 0}, {"turned", TRM_DTYPE_BF16, "bf16", 0, 1},
    };
    trm_attrs *attrs;
    int v;

    if (strcmp(what, "gated") == 0)
        return node(TRM_OP_TrmGated, &x, 1, &attrs);
    for (size_t i = 0; i < sizeof(products) / sizeof(products[0]); i++) {
        int inputs[2] = {x, TRM_NO_VALUE};

        if (strcmp(what, products[i].name) != 0)
            continue;
        inputs[1] = constant(products[i].dtype, 2, K, K);
        v = node(TRM_OP_TrmLinear, inputs, 2, &attrs);
        if (products[i].act != NULL)
            ck_assert_int_eq(trm_attr_set_string(attrs, g->arena, "act", products[i].act), TRM_OK);
        if (products[i].unit > 0)
            ck_assert_int_eq(trm_attr_set_int(attrs, g->arena, "unit", products[i].unit), TRM_OK);
        if (products[i].transposed != 0)
            ck_assert_int_eq(trm_attr_set_int(attrs, g->arena, "transposed", 1), TRM_OK);
        return v;
    }
    ck_abort_msg("reader '%s'", what);
    return -1;
}

static const struct row {
    const char *name;
    const char *readers[5]; /* NULL-terminated; "": the graph's output */
    const char *rounds;     /* NULL: rows stay F32 */
    int sums;
    bool sum, per_head, off;
} table[] = {
    {"one product", {"bf16"}, "bf16", 0, false, false, false},
    {"products that become one", {"f16", "f16", "f16"}, "f16", 0, false, false, false},
    {"behind a sum", {"bf16", "bf16"}, "bf16", 0, true, false, false},
    {"a product of leaves", {"unit", "bf16"}, "bf16", 0, false, false, false},
    {"leaves that the device refuses", {"unit 16"}, NULL, 0, false, false, false},
    {"one that the device refuses", {"bf16", "turned"}, NULL, 0, false, false, false},
    {"two kinds", {"bf16", "f16"}, NULL, 0, false, false, false},
    {"an exact product", {"bf16", "exact"}, NULL, 0, false, false, false},
    {"floats", {"f32"}, NULL, 0, false, false, false},
    {"blocks", {"q4_k"}, "i8", 1, true, false, false},
    {"blocks that want no sums, and some that do", {"q6_k", "q4_k"}, "i8", 1, false, false, false},
    {"the other way round", {"q4_k", "q6_k", "q4_k"}, "i8", 1, false, false, false},
    {"blocks without sums", {"q6_k"}, "i8", 0, false, false, false},
    {"other sums", {"q4_k", "q6_k", "q2_k"}, NULL, 0, false, false, false},
    {"blocks and halves", {"q4_k", "bf16"}, NULL, 0, false, false, false},
    {"another reader", {"bf16", "gated"}, NULL, 0, true, false, false},
    {"an output", {"bf16", ""}, NULL, 0, false, false, false},
    {"nobody", {""}, NULL, 0, false, false, false},
    {"a norm of heads", {"bf16"}, NULL, 0, false, true, false},
    {"TRM_FUSE=off", {"bf16"}, NULL, 0, false, false, true},
};

START_TEST(rounds)
{
    const struct row *r = &table[_i];
    int inputs[2] = {rows("x"), TRM_NO_VALUE}, outputs[8], count = 0, made = -1, at = 0, x;
    trm_tensor desc;
    trm_attrs *attrs;

    if (r->sum) {
        inputs[1] = rows("y");
        inputs[0] = node(TRM_OP_Add, inputs, 2, &attrs);
        outputs[count++] = inputs[0];
    }
    inputs[1] = constant(TRM_DTYPE_F32, 1, r->per_head ? K / 4 : K, 0);
    x = node(TRM_OP_TrmNorm, inputs, 2, &attrs);
    for (int i = 0; r->readers[i] != NULL; i++)
        outputs[count++] = *r->readers[i] == '\0' ? x : reader(x, r->readers[i]);
    ck_assert_int_eq(trm_graph_set_outputs(g, outputs, count), TRM_OK);
    ck_assert_msg(trm_graph_infer(g) == TRM_OK, "%s: %s", r->name, trm_message());
    if (r->off)
        setenv("TRM_FUSE", "off", 1);
    ck_assert_int_eq(trm_pass_finish(g), TRM_OK);
    ck_assert_int_eq(trm_pass_round_language(g, NULL), TRM_OK);
    ck_assert_int_eq(g->values[x].desc.dtype, TRM_DTYPE_F32);
    ck_assert_msg(trm_pass_round_language(g, rounding) == TRM_OK, "%s: %s", r->name, trm_message());
    unsetenv("TRM_FUSE");
    for (int n = 0; n < g->node_count; n++)
        for (int o = 0; o < g->nodes[n].output_count; o++)
            if (g->nodes[n].outputs[o] == x) {
                made = n;
                at = o;
            }
    ck_assert_int_ge(made, 0);
    ck_assert_int_eq(g->nodes[made].op, r->sum ? TRM_OP_TrmAddNorm : TRM_OP_TrmNorm);
    attrs = &g->nodes[made].attrs;
    ck_assert_str_eq(trm_attr_string(attrs, "rounds", "none"),
                     r->rounds != NULL ? r->rounds : "none");
    desc = g->values[x].desc;
    ck_assert_int_eq(desc.rank, 2);
    ck_assert_int_eq(desc.dims[0], tokens);
    if (r->rounds == NULL) {
        ck_assert_int_eq(desc.dtype, TRM_DTYPE_F32);
    } else if (strcmp(r->rounds, "i8") == 0) {
        ck_assert_int_eq(desc.dtype, TRM_DTYPE_U8);
        ck_assert_int_eq(desc.dims[1], 2 * K);
        ck_assert_int_eq(trm_attr_int(attrs, "row_bytes", 0), 2 * K);
        ck_assert_int_eq(trm_attr_int(attrs, "sums", -1), r->sums);
    } else {
        ck_assert_int_eq(desc.dtype, *r->rounds == 'b' ? TRM_DTYPE_BF16 : TRM_DTYPE_F16);
        ck_assert_int_eq(desc.dims[1], K);
    }
    for (int o = 0; o < at; o++) /* a sum beside it */
        ck_assert_int_eq(g->values[g->nodes[made].outputs[o]].desc.dtype, TRM_DTYPE_F32);
    for (int o = 0; o < g->output_count; o++)
        ck_assert_int_eq(g->values[g->outputs[o]].desc.dtype, TRM_DTYPE_F32);
}
END_TEST

/* An activation, alone or fused with the two products before it, and the product behind it. */
static const struct gated_row {
    const char *name, *before, *behind, *rounds;
} gated_rows[] = {
    {"fused", "bf16", "bf16", "bf16"},
    {"fused, of other weights", "q4_k", "bf16", NULL},
    {"fused, of exact products", "exact", "f16", NULL},
    {"fused, blocks", "q4_k", "q6_k", NULL},
    {"alone", NULL, "f16", "f16"},
    {"alone, blocks", NULL, "q4_k", NULL},
};

START_TEST(gated)
{
    const struct gated_row *r = &gated_rows[_i];
    int x = rows("x"), made = -1, inputs[2] = {x, TRM_NO_VALUE}, y, out;
    trm_attrs *attrs;

    if (r->before != NULL)
        for (int i = 0; i < 2; i++)
            inputs[i] = reader(x, r->before);
    y = node(TRM_OP_TrmGated, inputs, r->before != NULL ? 2 : 1, &attrs);
    ck_assert_int_eq(trm_attr_set_string(attrs, g->arena, "act", "silu"), TRM_OK);
    out = reader(y, r->behind);
    ck_assert_int_eq(trm_graph_set_outputs(g, &out, 1), TRM_OK);
    ck_assert_msg(trm_graph_infer(g) == TRM_OK, "%s: %s", r->name, trm_message());
    ck_assert_int_eq(trm_pass_finish(g), TRM_OK);
    ck_assert_msg(trm_pass_round_language(g, rounding) == TRM_OK, "%s: %s", r->name, trm_message());
    for (int n = 0; n < g->node_count; n++)
        made = g->nodes[n].outputs[0] == y ? n : made;
    ck_assert_int_ge(made, 0);
    ck_assert_int_eq(g->nodes[made].op, r->before != NULL ? TRM_OP_TrmLinears : TRM_OP_TrmGated);
    ck_assert_str_eq(trm_attr_string(&g->nodes[made].attrs, "rounds", "none"),
                     r->rounds != NULL ? r->rounds : "none");
    ck_assert_int_eq(g->values[y].desc.dtype, r->rounds == NULL   ? TRM_DTYPE_F32
                                              : *r->rounds == 'b' ? TRM_DTYPE_BF16
                                                                  : TRM_DTYPE_F16);
    ck_assert_int_eq(g->values[y].desc.dims[1], K);
    ck_assert_int_eq(g->values[out].desc.dtype, TRM_DTYPE_F32);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("rounded rows of language models");
    TCase *t = tcase_create("passes");
    SRunner *sr;
    int failed;

    unsetenv("TRM_FUSE");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, rounds, 0, (int)(sizeof(table) / sizeof(table[0])));
    tcase_add_loop_test(t, gated, 0, (int)(sizeof(gated_rows) / sizeof(gated_rows[0])));
    suite_add_tcase(s, t);
    sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
