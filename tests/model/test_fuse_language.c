/* Which operators of language models become one, and which must not: small graphs built here, and
 * what is left of them. That the bits stay the same is tested where a device is at hand
 * (tests/kernels/test_lm_fused.c, tests/worker/test_lm_logits.c). */
#include "model/passes/passes.h"
#include "model/shape/shape.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define D 32
#define HEADS 4

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

static trm_tensor shape(trm_dtype dtype, int64_t a, int64_t b)
{
    return (trm_tensor){.dtype = dtype, .rank = b == 0 ? 1 : 2, .dims = {a, b}};
}

static int input(const char *name, trm_tensor desc)
{
    int all[8], n = g->input_count, v;

    ck_assert_int_eq(trm_graph_add_value(g, name, &desc, &v), TRM_OK);
    for (int i = 0; i < n; i++)
        all[i] = g->inputs[i];
    all[n] = v;
    ck_assert_int_eq(trm_graph_set_inputs(g, all, n + 1), TRM_OK);
    return v;
}

static int rows(const char *name)
{
    return input(name, shape(TRM_DTYPE_F32, tokens, D));
}

static int weight(trm_tensor desc)
{
    static uint64_t zeros[D * D];
    int v;

    desc.data = zeros;
    ck_assert_int_eq(trm_graph_add_constant(g, trm_graph_fresh_name(g, "w"), &desc, &v), TRM_OK);
    return v;
}

static int node(trm_op op, const int *inputs, int count, int *node_out)
{
    trm_tensor none = {.rank = -1};
    int v, n;

    ck_assert_int_eq(trm_graph_add_value(g, trm_graph_fresh_name(g, "v"), &none, &v), TRM_OK);
    ck_assert_int_eq(trm_graph_add_node(g, op, "", inputs, count, &v, 1, &n), TRM_OK);
    if (node_out != NULL)
        *node_out = n;
    return v;
}

static void set_int(int n, const char *name, int64_t value)
{
    ck_assert_int_eq(trm_attr_set_int(&g->nodes[n].attrs, g->arena, name, value), TRM_OK);
}

static void set_text(int n, const char *name, const char *value)
{
    ck_assert_int_eq(trm_attr_set_string(&g->nodes[n].attrs, g->arena, name, value), TRM_OK);
}

/* A product; `what`: "" or what is special about it. */
static int linear(int x, const char *what)
{
    trm_dtype dtype = strcmp(what, "f16") == 0 ? TRM_DTYPE_F16 : TRM_DTYPE_BF16;
    int inputs[3] = {x, weight(shape(dtype, D, D))}, count = 2, n, v;

    if (strcmp(what, "bias") == 0)
        inputs[count++] = weight(shape(TRM_DTYPE_F32, D, 0));
    v = node(TRM_OP_TrmLinear, inputs, count, &n);
    if (strcmp(what, "act") == 0)
        set_text(n, "act", "bf16");
    if (strcmp(what, "transposed") == 0)
        set_int(n, "transposed", 1);
    if (strcmp(what, "unit") == 0)
        set_int(n, "unit", 8);
    return v;
}

static void finish(const int *outputs, int count)
{
    ck_assert_int_eq(trm_graph_set_outputs(g, outputs, count), TRM_OK);
    ck_assert_msg(trm_graph_infer(g) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_pass_finish(g) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(g->output_count, count);
    for (int i = 0; i < count; i++)
        ck_assert_int_eq(g->outputs[i], outputs[i]);
}

static int count_of(trm_op op)
{
    int count = 0;

    for (int n = 0; n < g->node_count; n++)
        count += g->nodes[n].op == op;
    return count;
}

static const trm_node *only(trm_op op)
{
    const trm_node *found = NULL;

    ck_assert_int_eq(count_of(op), 1);
    for (int n = 0; n < g->node_count; n++)
        if (g->nodes[n].op == op)
            found = &g->nodes[n];
    return found;
}

/* ---- products of one input ---- */

static const struct {
    const char *name;
    const char *products[6]; /* NULL-terminated */
    int groups, alone;       /* TrmLinears, TrmLinear that are left */
} products[] = {
    {"two", {"", ""}, 1, 0},
    {"q, k and v", {"", "", ""}, 1, 0},
    {"biases", {"bias", "bias", "bias"}, 1, 0},
    {"transposed", {"transposed", "transposed"}, 1, 0},
    {"bf16 activations", {"act", "act"}, 1, 0},
    {"one", {""}, 0, 1},
    {"five: four and one", {"", "", "", "", ""}, 1, 1},
    {"a dtype of its own between two", {"", "f16", ""}, 1, 1},
    {"one biased", {"", "bias"}, 0, 2},
    {"one transposed", {"", "transposed"}, 0, 2},
    {"other activations", {"", "act"}, 0, 2},
    {"sums in leaves", {"unit", "unit"}, 0, 2},
};

START_TEST(linears)
{
    int x = rows("x"), outputs[6], count = 0;

    for (; products[_i].products[count] != NULL; count++)
        outputs[count] = linear(x, products[_i].products[count]);
    finish(outputs, count);
    ck_assert_msg(count_of(TRM_OP_TrmLinears) == products[_i].groups &&
                      count_of(TRM_OP_TrmLinear) == products[_i].alone,
                  "%s: %d groups, %d alone", products[_i].name, count_of(TRM_OP_TrmLinears),
                  count_of(TRM_OP_TrmLinear));
    for (int i = 0; i < count; i++) {
        const trm_tensor *t = &g->values[outputs[i]].desc;

        ck_assert(t->rank == 2 && t->dims[0] == tokens && t->dims[1] == D);
    }
}
END_TEST

/* Inputs and outputs keep their order; attributes come along. */
START_TEST(linears_order)
{
    int x = rows("x"), y = rows("y"), outputs[4], weights[3], biases[3];
    const trm_node *n;

    for (int i = 0; i < 3; i++) {
        outputs[i] = linear(x, "bias");
        weights[i] = g->nodes[g->node_count - 1].inputs[1];
        biases[i] = g->nodes[g->node_count - 1].inputs[2];
        set_int(g->node_count - 1, "transposed", 1);
        set_text(g->node_count - 1, "act", "bf16");
    }
    outputs[3] = linear(y, "bias"); /* of another input */
    finish(outputs, 4);
    n = only(TRM_OP_TrmLinears);
    ck_assert_int_eq(n->input_count, 7);
    ck_assert_int_eq(n->output_count, 3);
    ck_assert_int_eq(n->inputs[0], x);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(n->inputs[1 + i], weights[i]);
        ck_assert_int_eq(n->inputs[4 + i], biases[i]);
        ck_assert_int_eq(n->outputs[i], outputs[i]);
    }
    ck_assert_int_eq(trm_attr_int(&n->attrs, "n", 0), 3);
    ck_assert_int_eq(trm_attr_int(&n->attrs, "transposed", 0), 1);
    ck_assert_str_eq(trm_attr_string(&n->attrs, "act", ""), "bf16");
}
END_TEST

/* ---- gated ---- */

static const struct {
    const char *name, *act, *gate, *up;
    bool gate_is_read, same;
    const char *gated; /* NULL: TrmGated stays */
} gates[] = {
    {"silu", "silu", "", "", false, true, "silu"},
    {"biases", "gelu", "bias", "bias", false, true, "gelu"},
    {"no activation", "none", "", "", false, true, "none"},
    {"a cap", "softcap", "", "", false, true, NULL},
    {"read by another", "silu", "", "", true, true, NULL},
    {"unlike", "silu", "", "f16", false, true, NULL},
    {"of two inputs", "silu", "", "", false, false, NULL},
};

START_TEST(gated)
{
    int x = rows("x"), z = rows("z"), n, outputs[4];
    int gate = linear(x, gates[_i].gate), up = linear(gates[_i].same ? x : z, gates[_i].up);

    outputs[0] = node(TRM_OP_TrmGated, (int[]){gate, up}, 2, &n);
    set_text(n, "act", gates[_i].act);
    if (strcmp(gates[_i].act, "softcap") == 0)
        ck_assert_int_eq(trm_attr_set_float(&g->nodes[n].attrs, g->arena, "cap", 3.0F), TRM_OK);
    outputs[1] = linear(x, ""); /* q and k of a parallel block: not of the pair */
    outputs[2] = linear(x, "");
    outputs[3] = gate;
    finish(outputs, gates[_i].gate_is_read ? 4 : 3);
    ck_assert_msg(count_of(TRM_OP_TrmGated) == (gates[_i].gated == NULL), "%s", gates[_i].name);
    for (n = 0; gates[_i].gated != NULL && n < g->node_count; n++) {
        const char *act = trm_attr_string(&g->nodes[n].attrs, "gated", NULL);

        if (act == NULL)
            continue;
        ck_assert_str_eq(act, gates[_i].gated);
        ck_assert_int_eq(g->nodes[n].op, TRM_OP_TrmLinears);
        ck_assert_int_eq(g->nodes[n].output_count, 1);
        ck_assert_int_eq(g->nodes[n].outputs[0], outputs[0]);
        ck_assert_int_eq(g->node_count, 2);
    }
}
END_TEST

/* ---- sums and norms ---- */

static const struct {
    const char *name;
    bool broadcast, groups, bias, layer, sum_is_read, two_norms;
    bool fused;
} sums[] = {
    {.name = "plain", .fused = true},
    {.name = "layer norm", .bias = true, .layer = true, .fused = true},
    {.name = "the sum is read", .sum_is_read = true, .fused = true},
    {.name = "two norms", .two_norms = true, .fused = true},
    {.name = "a bias is added", .broadcast = true},
    {.name = "groups", .groups = true},
};

START_TEST(add_norm)
{
    int x = rows("x"), y = sums[_i].broadcast ? weight(shape(TRM_DTYPE_F32, D, 0)) : rows("y");
    int sum = node(TRM_OP_Add, (int[]){x, y}, 2, NULL), n, outputs[3], count = 1;
    int inputs[3] = {sum, weight(shape(TRM_DTYPE_F32, sums[_i].groups ? D / 4 : D, 0)),
                     weight(shape(TRM_DTYPE_F32, D, 0))};
    const trm_node *fused;

    outputs[0] = node(TRM_OP_TrmNorm, inputs, sums[_i].bias ? 3 : 2, &n);
    if (sums[_i].layer)
        set_text(n, "kind", "layer");
    ck_assert_int_eq(trm_attr_set_float(&g->nodes[n].attrs, g->arena, "epsilon", 1e-3F), TRM_OK);
    if (sums[_i].sum_is_read)
        outputs[count++] = node(TRM_OP_Add, (int[]){sum, x}, 2, NULL);
    if (sums[_i].two_norms)
        outputs[count++] = node(TRM_OP_TrmNorm, inputs, 2, NULL);
    finish(outputs, count);
    if (!sums[_i].fused) {
        ck_assert_msg(count_of(TRM_OP_TrmAddNorm) == 0, "%s", sums[_i].name);
        return;
    }
    fused = only(TRM_OP_TrmAddNorm);
    ck_assert_int_eq(fused->input_count, sums[_i].bias ? 4 : 3);
    ck_assert_int_eq(fused->inputs[0], x);
    ck_assert_int_eq(fused->inputs[1], y);
    ck_assert_int_eq(fused->inputs[2], inputs[1]);
    ck_assert_int_eq(fused->output_count, 2);
    ck_assert_int_eq(fused->outputs[0], sum);
    ck_assert_int_eq(fused->outputs[1], outputs[0]);
    ck_assert(trm_attr_float(&fused->attrs, "epsilon", 0.0F) == 1e-3F);
    ck_assert_str_eq(trm_attr_string(&fused->attrs, "kind", "rms"),
                     sums[_i].layer ? "layer" : "rms");
    ck_assert_int_eq(count_of(TRM_OP_Add), sums[_i].sum_is_read);
    ck_assert_int_eq(count_of(TRM_OP_TrmNorm), sums[_i].two_norms);
}
END_TEST

/* ---- sums over ranks ---- */

static const struct {
    const char *name;
    bool tree_first, both, is_read, bias, layer, norm_first, no_norm;
    int fused, trees; /* wide ones, and those that are left */
} trees[] = {
    {.name = "a residual and the sum", .fused = 1},
    {.name = "the sum and a residual", .tree_first = true, .fused = 1},
    {.name = "layer norm", .bias = true, .layer = true, .fused = 1},
    {.name = "two sums", .both = true, .fused = 1, .trees = 1},
    {.name = "the sum is read elsewhere", .is_read = true, .trees = 1},
    {.name = "a norm of the sum, then the residual", .norm_first = true, .trees = 1},
    {.name = "no norm", .no_norm = true, .trees = 1},
};

static int tree(int parts, int ranks, int *node_out)
{
    int v = node(TRM_OP_TrmReduceTree, &parts, 1, node_out);

    set_int(*node_out, "ranks", ranks);
    set_int(*node_out, "leaves", 8);
    set_int(*node_out, "first", 2);
    set_int(*node_out, "count", 3);
    set_int(*node_out, "most", 2);
    return v;
}

START_TEST(tree_norm)
{
    trm_tensor parts = {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {2, tokens, D}};
    int in = input("parts", parts), x = rows("x"), n, outputs[3] = {0}, count = 0, wide = 0,
        narrow = 0;
    int sum = tree(in, 7, &n), other = trees[_i].both ? tree(in, 9, &n) : x, inputs[3], added;
    const trm_node *fused = NULL;

    inputs[1] = weight(shape(TRM_DTYPE_F32, D, 0));
    inputs[2] = weight(shape(TRM_DTYPE_F32, D, 0));
    if (trees[_i].norm_first)
        sum = node(TRM_OP_TrmNorm, (int[]){sum, inputs[1]}, 2, NULL);
    added =
        node(TRM_OP_Add, trees[_i].tree_first ? (int[]){sum, other} : (int[]){other, sum}, 2, NULL);
    inputs[0] = added;
    outputs[count++] = added;
    if (!trees[_i].no_norm) {
        outputs[count++] = node(TRM_OP_TrmNorm, inputs, trees[_i].bias ? 3 : 2, &n);
        ck_assert_int_eq(trm_attr_set_float(&g->nodes[n].attrs, g->arena, "epsilon", 1e-3F),
                         TRM_OK);
        ck_assert_int_eq(trm_attr_set_float(&g->nodes[n].attrs, g->arena, "offset", 1.0F), TRM_OK);
        if (trees[_i].layer)
            set_text(n, "kind", "layer");
    }
    if (trees[_i].is_read)
        outputs[count++] = sum;
    finish(outputs, count);
    for (n = 0; n < g->node_count; n++) {
        if (g->nodes[n].op != TRM_OP_TrmReduceTree)
            continue;
        wide += g->nodes[n].input_count > 1;
        narrow += g->nodes[n].input_count == 1;
        fused = g->nodes[n].input_count > 1 ? &g->nodes[n] : fused;
    }
    ck_assert_msg(wide == trees[_i].fused && narrow == trees[_i].trees, "%s: %d and %d",
                  trees[_i].name, wide, narrow);
    if (fused == NULL)
        return;
    ck_assert_int_eq(g->node_count, trees[_i].both ? 2 : 1);
    ck_assert_int_eq(fused->input_count, trees[_i].bias ? 4 : 3);
    ck_assert_int_eq(fused->inputs[0], in);
    ck_assert_int_eq(fused->inputs[1], other);
    ck_assert_int_eq(fused->inputs[2], inputs[1]);
    ck_assert_int_eq(fused->output_count, 2);
    ck_assert_int_eq(fused->outputs[0], added);
    ck_assert_int_eq(fused->outputs[1], outputs[1]);
    ck_assert_int_eq(trm_attr_int(&fused->attrs, "ranks", 0), 7);
    ck_assert_int_eq(trm_attr_int(&fused->attrs, "most", 0), 2);
    ck_assert(trm_attr_float(&fused->attrs, "epsilon", 0.0F) == 1e-3F);
    ck_assert(trm_attr_float(&fused->attrs, "offset", 0.0F) == 1.0F);
    ck_assert_str_eq(trm_attr_string(&fused->attrs, "kind", "rms"),
                     trees[_i].layer ? "layer" : "rms");
}
END_TEST

/* ---- rope ---- */

static const struct {
    const char *name;
    bool sinks, interleaved, other_table, q_is_read, only_q, k_interleaved;
    float scale, k_scale;
    bool fused;
} turns[] = {
    {.name = "plain", .scale = 1, .k_scale = 1, .fused = true},
    {.name = "sinks, pairs, a scale",
     .sinks = true,
     .interleaved = true,
     .k_interleaved = true,
     .scale = 1.5F,
     .k_scale = 1.5F,
     .fused = true},
    {.name = "other frequencies", .other_table = true, .scale = 1, .k_scale = 1},
    {.name = "q is read by another", .q_is_read = true, .scale = 1, .k_scale = 1},
    {.name = "q alone turns", .only_q = true, .scale = 1, .k_scale = 1},
    {.name = "pairs of k only", .k_interleaved = true, .scale = 1, .k_scale = 1},
    {.name = "a scale of k only", .scale = 1, .k_scale = 1.5F},
};

static int turn(int x, int positions, int table, bool interleaved, float scale)
{
    int n, v = node(TRM_OP_TrmRope, (int[]){x, positions, table}, 3, &n);

    set_int(n, "head_dim", D / HEADS);
    if (interleaved)
        set_int(n, "interleaved", 1);
    ck_assert_int_eq(trm_attr_set_float(&g->nodes[n].attrs, g->arena, "scale", scale), TRM_OK);
    return v;
}

START_TEST(rope)
{
    int q = rows("q"), k = rows("k"), v = rows("v");
    int positions = input("positions", shape(TRM_DTYPE_I32, tokens, 0));
    int step = input("step", shape(TRM_DTYPE_I64, 1, 0));
    int table = weight(shape(TRM_DTYPE_F32, 2, 0)), other = weight(shape(TRM_DTYPE_F32, 2, 0));
    int turned_q = turn(q, positions, table, turns[_i].interleaved, turns[_i].scale), turned_k = k;
    int sinks = turns[_i].sinks ? weight(shape(TRM_DTYPE_F32, HEADS, 0)) : TRM_NO_VALUE, outputs[2];
    const trm_node *n;
    int at;

    if (!turns[_i].only_q)
        turned_k = turn(k, positions, turns[_i].other_table ? other : table,
                        turns[_i].k_interleaved, turns[_i].k_scale);
    outputs[0] = node(TRM_OP_TrmPagedAttention, (int[]){turned_q, turned_k, v, step, sinks},
                      turns[_i].sinks ? 5 : 4, &at);
    outputs[1] = turned_q;
    set_int(at, "heads", HEADS);
    set_int(at, "kv_heads", HEADS);
    set_int(at, "head_dim", D / HEADS);
    set_int(at, "layer", 3);
    finish(outputs, turns[_i].q_is_read ? 2 : 1);
    n = only(TRM_OP_TrmPagedAttention);
    if (!turns[_i].fused) {
        ck_assert_msg(n->input_count <= 5 && n->inputs[0] == turned_q, "%s", turns[_i].name);
        ck_assert_int_eq(count_of(TRM_OP_TrmRope), turns[_i].only_q ? 1 : 2);
        return;
    }
    ck_assert_int_eq(count_of(TRM_OP_TrmRope), 0);
    ck_assert_int_eq(n->input_count, 7);
    for (int i = 0; i < 7; i++)
        ck_assert_int_eq(n->inputs[i], ((int[]){q, k, v, step, sinks, positions, table})[i]);
    ck_assert_int_eq(trm_attr_int(&n->attrs, "rope_interleaved", 0), turns[_i].interleaved);
    ck_assert(trm_attr_float(&n->attrs, "rope_scale", 1.0F) == turns[_i].scale);
    ck_assert_int_eq(trm_attr_int(&n->attrs, "layer", 0), 3);
}
END_TEST

/* The switch for whoever looks for a difference. */
/* An embedding knows that its table is a product's weight, as it is in the file, and of whose. */
START_TEST(tied)
{
    static const struct {
        bool same, transposed;
        const char *act;
        int want;
    } all[] = {{true, false, "bf16", 1},
               {true, false, NULL, 1},
               {false, false, "bf16", 0},
               {true, true, NULL, 0}};

    for (int i = 0; i < 4; i++) {
        int table = weight(shape(TRM_DTYPE_BF16, D, D)), other = table, embed, product, ids, x;
        const char *act;

        ids = input(trm_graph_fresh_name(g, "ids"), shape(TRM_DTYPE_I32, tokens, 0));
        if (!all[i].same)
            other = weight(shape(TRM_DTYPE_BF16, D, D));
        x = node(TRM_OP_TrmEmbed, (int[]){ids, table}, 2, &embed);
        (void)node(TRM_OP_TrmLinear, (int[]){x, other}, 2, &product);
        if (all[i].transposed)
            set_int(product, "transposed", 1);
        if (all[i].act != NULL)
            set_text(product, "act", all[i].act);
        ck_assert_int_eq(trm_pass_tie_language(g), TRM_OK);
        ck_assert_int_eq(trm_attr_int(&g->nodes[embed].attrs, "tied", 0), all[i].want);
        act = trm_attr_string(&g->nodes[embed].attrs, "act", NULL);
        ck_assert((act != NULL) == (all[i].want == 1 && all[i].act != NULL));
        if (act != NULL)
            ck_assert_str_eq(act, all[i].act);
    }
}
END_TEST

START_TEST(off)
{
    int x = rows("x"), outputs[2] = {linear(x, ""), linear(x, "")};

    ck_assert_int_eq(setenv("TRM_FUSE", "off", 1), 0);
    finish(outputs, 2);
    ck_assert_int_eq(count_of(TRM_OP_TrmLinear), 2);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("fusing operators of language models");
    TCase *t = tcase_create("fuse");
    SRunner *r;
    int failed;

    unsetenv("TRM_FUSE");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, linears, 0, (int)(sizeof(products) / sizeof(products[0])));
    tcase_add_test(t, linears_order);
    tcase_add_loop_test(t, gated, 0, (int)(sizeof(gates) / sizeof(gates[0])));
    tcase_add_loop_test(t, add_norm, 0, (int)(sizeof(sums) / sizeof(sums[0])));
    tcase_add_loop_test(t, tree_norm, 0, (int)(sizeof(trees) / sizeof(trees[0])));
    tcase_add_loop_test(t, rope, 0, (int)(sizeof(turns) / sizeof(turns[0])));
    tcase_add_test(t, tied);
    tcase_add_test(t, off);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
