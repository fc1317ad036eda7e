/* Parts, form changes and the analysis of splits on small graphs. */
#include "parallel/sharding.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static int value(trm_graph *g, const char *name, int rank, const int64_t *dims)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = rank};
    int v;

    for (int i = 0; i < rank; i++)
        t.dims[i] = dims[i];
    ck_assert_int_eq(trm_graph_add_value(g, name, &t, &v), TRM_OK);
    return v;
}
#define VALUE(g, name, ...)                                                                        \
    value(g, name, (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[]){__VA_ARGS__})

static int node(trm_graph *g, trm_op op, int a, int b, int c, int y)
{
    int in[3] = {a, b, c}, at;

    ck_assert_int_eq(trm_graph_add_node(g, op, trm_op_get(op)->name, in,
                                        c >= 0   ? 3
                                        : b >= 0 ? 2
                                                 : 1,
                                        &y, 1, &at),
                     TRM_OK);
    return at;
}

static void set_int(trm_graph *g, int n, const char *name, int64_t v)
{
    ck_assert_int_eq(trm_attr_set_int(&g->nodes[n].attrs, g->arena, name, v), TRM_OK);
}

static trm_sharding *analyse(trm_graph *g, int ranks)
{
    trm_tensor *descs = trm_calloc((size_t)g->value_count, sizeof(*descs));
    trm_sharding *s;

    for (int v = 0; v < g->value_count; v++)
        descs[v] = g->values[v].desc;
    ck_assert_msg(trm_sharding_create(g, descs, ranks, &s) == TRM_OK, "%s", trm_message());
    return s;
}

static void drop(trm_sharding *s)
{
    trm_free((void *)(uintptr_t)s->descs);
    trm_graph_destroy(s->graph);
    trm_sharding_destroy(s);
}

/* Strategy of a node by the name of its axis; -1: it has none. */
static int strategy(const trm_sharding *s, int n, const char *axis)
{
    for (int k = 0; k < s->axes[n].axis_count; k++)
        if (strcmp(s->axes[n].axes[k].name, axis) == 0)
            return 1 + k;
    return -1;
}

START_TEST(parts_cover_everything_once)
{
    trm_stretch st[3] = {{7, 3}, {4, 1}, {5, 16}};
    trm_split split = {3, st};
    bool seen[105] = {false};

    for (int ranks = 1; ranks <= 4; ranks++) {
        int64_t total = 0, sizes[12];

        memset(seen, 0, sizeof(seen));
        trm_split_sizes(&split, ranks, sizes);
        for (int r = 0; r < ranks; r++) {
            int64_t ranges[3][2], part = 0;

            trm_split_ranges(&split, ranks, r, ranges);
            for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(ranges[i][1] - ranges[i][0], sizes[i * ranks + r]);
                ck_assert_int_gt(sizes[i * ranks + r], 0);
                for (int64_t e = ranges[i][0]; e < ranges[i][1]; e++) {
                    ck_assert(!seen[e]);
                    seen[e] = true;
                }
                part += ranges[i][1] - ranges[i][0];
            }
            ck_assert_int_eq(part, trm_split_part(&split, ranks, r));
            total += part;
        }
        ck_assert_int_eq(total, 105);
    }
}
END_TEST

START_TEST(form_changes)
{
    uint32_t whole = 1u << TRM_FORM_WHOLE, partial = 1u << TRM_FORM_PARTIAL,
             s0 = 1u << TRM_FORM_SPLIT, s1 = 1u << (TRM_FORM_SPLIT + 1);
    trm_form f0 = TRM_FORM_SPLIT, f1 = (trm_form)(TRM_FORM_SPLIT + 1);

    ck_assert_int_eq(trm_form_change(whole | s0, f0).op, TRM_OP_NONE);
    ck_assert_int_eq(trm_form_change(whole | s0, f1).op, TRM_OP_TrmShard);
    ck_assert_int_eq(trm_form_change(partial | s0, f1).op, TRM_OP_TrmAllToAll);
    ck_assert_int_eq(trm_form_change(partial, f1).op, TRM_OP_TrmReduceScatter);
    ck_assert_int_eq(trm_form_change(partial, TRM_FORM_WHOLE).op, TRM_OP_TrmAllReduce);
    ck_assert_int_eq(trm_form_change(partial | s1, TRM_FORM_WHOLE).op, TRM_OP_TrmAllGather);
    ck_assert_int_eq(trm_form_change(partial | s1, TRM_FORM_WHOLE).from, f1);
    ck_assert_int_eq(trm_form_change(whole, TRM_FORM_PARTIAL).op, TRM_OP_Where);
    ck_assert_int_eq(trm_form_change(s1, TRM_FORM_PARTIAL).op, TRM_OP_TrmAllGather);
}
END_TEST

/* [B, S, 3HD] -> [B, S, 3, H, D] -> [3, B, H, S, D] -> three pieces -> attention: the product's
 * columns are three stretches of H units of D elements. */
START_TEST(fused_qkv_is_three_stretches_of_heads)
{
    const int64_t heads = 12, size = 8, seq = 5;
    static const int64_t perm[5] = {2, 0, 3, 1, 4};
    trm_graph *g;
    trm_sharding *s;
    int x, w, y, five, turned, pieces[3], squeezed[3], out, mm, split, at, attention;

    ck_assert_int_eq(trm_graph_create(NULL, "qkv", &g), TRM_OK);
    x = VALUE(g, "x", 2, seq, 96);
    w = VALUE(g, "w", 96, 3 * heads * size);
    y = VALUE(g, "y", 2, seq, 3 * heads * size);
    five = VALUE(g, "five", 2, seq, 3, heads, size);
    turned = VALUE(g, "turned", 3, 2, heads, seq, size);
    mm = node(g, TRM_OP_MatMul, x, w, -1, y);
    node(g, TRM_OP_Reshape, y, -1, -1, five);
    at = node(g, TRM_OP_Transpose, five, -1, -1, turned);
    ck_assert_int_eq(trm_attr_set_ints(&g->nodes[at].attrs, g->arena, "perm", perm, 5), TRM_OK);
    for (int i = 0; i < 3; i++) {
        char name[2][8] = {"p0", "s0"};

        name[0][1] = name[1][1] = (char)('0' + i);
        pieces[i] = VALUE(g, name[0], 1, 2, heads, seq, size);
        squeezed[i] = VALUE(g, name[1], 2, heads, seq, size);
    }
    ck_assert_int_eq(
        trm_graph_add_node(g, TRM_OP_Split, "split", (int[]){turned}, 1, pieces, 3, &split),
        TRM_OK);
    for (int i = 0; i < 3; i++)
        node(g, TRM_OP_Squeeze, pieces[i], -1, -1, squeezed[i]);
    out = VALUE(g, "out", 2, heads, seq, size);
    attention = node(g, TRM_OP_TrmAttention, squeezed[0], squeezed[1], squeezed[2], out);
    for (int ranks = 2; ranks <= 4; ranks++) {
        s = analyse(g, ranks);
        ck_assert_int_eq(s->splits[y][2].count, 3);
        for (int i = 0; i < 3; i++) {
            ck_assert_int_eq(s->splits[y][2].stretches[i].units, heads);
            ck_assert_int_eq(s->splits[y][2].stretches[i].unit, size);
        }
        ck_assert_int_eq(s->splits[w][1].count, 3);
        ck_assert_int_gt(strategy(s, mm, "columns"), 0);
        ck_assert_int_gt(strategy(s, attention, "heads"), 0);
        ck_assert(trm_sharding_can_split(s, five, 3));
        trm_free((void *)(uintptr_t)s->descs);
        trm_sharding_destroy(s);
    }
    trm_graph_destroy(g);
}
END_TEST

START_TEST(concat_makes_stretches_and_too_small_ones_stay_whole)
{
    trm_graph *g;
    trm_sharding *s;
    int a, b, c, y, z, t, u, cat, bad;

    ck_assert_int_eq(trm_graph_create(NULL, "cat", &g), TRM_OK);
    a = VALUE(g, "a", 1, 8, 4, 4);
    b = VALUE(g, "b", 1, 12, 4, 4);
    c = VALUE(g, "c", 1, 2, 4, 4);
    y = VALUE(g, "y", 1, 20, 4, 4);
    z = VALUE(g, "z", 1, 22, 4, 4);
    t = VALUE(g, "t", 1, 22, 4, 4);
    u = VALUE(g, "u", 1, 20, 4, 4);
    cat = node(g, TRM_OP_Concat, a, b, -1, y);
    set_int(g, cat, "axis", 1);
    bad = node(g, TRM_OP_Concat, y, c, -1, z);
    set_int(g, bad, "axis", 1);
    node(g, TRM_OP_Relu, z, -1, -1, t);
    node(g, TRM_OP_Relu, y, -1, -1, u);
    s = analyse(g, 3);
    ck_assert_int_eq(s->splits[y][1].count, 2);
    ck_assert_int_eq(s->splits[u][1].count, 2);
    ck_assert_int_eq(s->splits[u][1].stretches[1].units, 12);
    ck_assert_int_gt(strategy(s, cat, "pieces"), 0);
    ck_assert_int_eq(strategy(s, bad, "pieces"), -1); /* two channels for three ranks */
    ck_assert_int_eq(s->splits[t][1].count, 1);       /* but what comes after it may be split */
    drop(s);
}
END_TEST

START_TEST(groups_are_units)
{
    trm_graph *g;
    trm_sharding *s;
    int x, w, y, n;

    ck_assert_int_eq(trm_graph_create(NULL, "groups", &g), TRM_OK);
    x = VALUE(g, "x", 1, 24, 4, 4);
    w = VALUE(g, "w", 12, 4, 3, 3);
    y = VALUE(g, "y", 1, 12, 2, 2);
    n = node(g, TRM_OP_Conv, x, w, -1, y);
    set_int(g, n, "group", 6);
    s = analyse(g, 4);
    ck_assert_int_gt(strategy(s, n, "groups"), 0);
    ck_assert_int_eq(s->splits[x][1].stretches[0].units, 6);
    ck_assert_int_eq(s->splits[x][1].stretches[0].unit, 4);
    ck_assert_int_eq(s->splits[y][1].stretches[0].unit, 2);
    ck_assert(trm_sharding_largest(s, n, strategy(s, n, "groups")) > 0.3);
    drop(s);
}
END_TEST

START_TEST(symbols_are_never_split)
{
    trm_graph *g;
    trm_sharding *s;
    int64_t batch;
    int x, y, n;

    ck_assert_int_eq(trm_graph_create(NULL, "symbols", &g), TRM_OK);
    ck_assert_int_eq(trm_graph_symbol(g, "batch", &batch), TRM_OK);
    x = VALUE(g, "x", batch, 24);
    y = VALUE(g, "y", batch, 24);
    n = node(g, TRM_OP_Relu, x, -1, -1, y);
    s = analyse(g, 2);
    ck_assert_int_eq(s->axes[n].axis_count, 1);
    ck_assert(!trm_sharding_can_split(s, x, 0));
    ck_assert(trm_sharding_can_split(s, x, 1));
    ck_assert_int_eq(trm_sharding_wants(s, n, 1, 0), TRM_FORM_SPLIT + 1);
    drop(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sharding");
    TCase *tc = tcase_create("all");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tc, parts_cover_everything_once);
    tcase_add_test(tc, form_changes);
    tcase_add_test(tc, fused_qkv_is_three_stretches_of_heads);
    tcase_add_test(tc, concat_makes_stretches_and_too_small_ones_stay_whole);
    tcase_add_test(tc, groups_are_units);
    tcase_add_test(tc, symbols_are_never_split);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
