/* Each operator alone: every strategy at 2, 3 and 4 ranks computes what one rank computes. The
 * expected axes are written beside each case, so that a rule that offers less fails too. */
#include "tests/parallel/cases_compute.h"
#include "tests/parallel/cases_move.h"

typedef int (*build)(net *m); /* one output */

/* axes: of `node`, at 2 ranks; "-": none; "": not looked at */
static const struct row {
    const char *name;
    build build;
    int node; /* whose axes are listed */
    const char *axes;
    int linear;
} rows[] = {
    {"conv", conv, 0, "out channels,in channels,batch", 0},
    {"conv groups", conv_groups, 0, "groups", 0},
    {"conv of two groups", conv_two_groups, 0, "groups", 0},
    {"depthwise conv", conv_depthwise, 0, "groups", 0},
    {"conv transpose", conv_transpose, 0, "out channels,in channels", 0},
    {"grouped conv transpose", conv_transpose_groups, 0, "groups", 0},
    {"matmul", matmul, 0, "batch,columns,sum,rows", 2},
    {"matmul broadcast", matmul_broadcast, 0, "batch,batch,columns,sum,rows", 2},
    {"matmul vector", matmul_vector, 0, "batch,sum,rows", 2},
    {"gemm", gemm, 0, "columns,sum,rows", 2},
    {"gemm with a computed bias", gemm_bias_computed, 0, "columns,sum,rows", 2},
    {"einsum", einsum, 0, "letter,letter,letter,letter", 0},
    {"attention", attention_internal, 0, "batch,heads,queries", 0},
    {"grouped attention", attention_grouped, 0, "heads", 0},
    {"attention with one key head", attention_few_kv_heads, 0, "heads of a group", 0},
    {"rotary embedding", rotary, 0, "heads", 0},
    {"gather rows", gather_rows, 0, "elements,indices,indices,vocabulary", 1},
    {"gather inner", gather_inner, 0, "elements,elements,indices,vocabulary", 1},
    {"gather elements", gather_elements, 0, "elements,elements", 0},
    {"add", add_broadcast, 0, "elements,elements,elements", 1},
    {"square", mul_self, 0, "elements,elements", 0},
    {"div", divide, 2, "elements,elements", 1},
    {"where", where, 0, "elements,elements,elements", 0},
    {"prelu", prelu, 0, "elements,elements,elements", 0},
    {"clip", clip, 0, "elements,elements", 0},
    {"max pool", max_pool, 0, "channels,batch", 0},
    {"average pool", average_pool, 0, "channels,batch", 1},
    {"global pool", global_pool, 0, "channels,batch", 1},
    {"batch norm", batch_norm, 0, "elements,channels,elements,elements", 0},
    {"instance norm", instance_norm, 0, "channels,batch", 0},
    {"group norm", group_norm, 0, "groups,batch", 0},
    {"layer norm", layer_norm, 0, "rows,rows,features", 0},
    {"layer norm of two dims", layer_norm_of_two, 0, "rows,features,features", 0},
    {"rms norm", rms_norm, 0, "rows,rows,features", 0},
    {"softmax", softmax, 0, "rows,rows", 0},
    {"reduce mean", reduce_mean, 0, "rows,sum,sum", 1},
    {"reduce sum", reduce_sum, 0, "rows,rows,sum", 1},
    {"reduce max", reduce_max, 0, "rows,rows", 0},
    {"reduce l1", reduce_l1, 0, "rows,sum", 0},
    {"arg max", arg_max, 0, "rows,rows", 0},
    {"concat", concat, 0, "elements,pieces,elements", 1},
    {"split", split, 0, "elements,cuts,elements", 1},
    {"split evenly", split_even, 0, "elements,cuts,elements", 1},
    {"slices", slices, 0, "elements,cuts,elements", 1},
    {"slice of other dims", slice_other, 0, "elements", 1},
    {"pad", pad, 0, "elements,elements", 1},
    {"pad with ones", pad_one, 0, "elements", 0},
    {"transpose", transpose, 0, "elements,elements,elements", 1},
    {"expand", expand, 0, "elements,elements,elements", 1},
    {"tile", tile, 0, "elements", 1},
    {"resize", resize, 0, "elements", 0},
    {"resize by scales", resize_scales, 0, "elements", 0},
    {"merge heads", merge_heads, 0, "factor,factor,factor", 1},
    {"divide heads", divide_heads, 0, "factor,factor,factor", 1},
    {"reshape across", across, 0, "factor,factor,factor", 1},
    {"reshape that cannot be cut", misaligned, 0, "-", 1},
    {"flatten", flatten, 0, "factor,factor", 1},
    {"squeeze", squeeze_all, 0, "factor,factor", 1},
    {"unsqueeze", unsqueeze, 0, "factor,factor", 1},
    {"depth to space", depth_to_space, 0, "channels", 1},
    {"depth to space, CRD", depth_to_space_crd, 0, "channels", 1},
    {"space to depth", space_to_depth, 0, "channels", 1},
    {"channel shuffle", shuffle, 1, "", 1},
    {"quantize", quantize, 0, "elements,elements,elements", 0},
    {"lstm", lstm, 0, "batch", 0},
    {"matmul of bytes", matmul_integer, 0, "columns,sum,rows", 0},
    {"conv of bytes", conv_integer, 0, "out channels", 0},
    {"quantised matmul", qlinear_matmul, 0, "columns,rows", 0},
    {"quantised conv", qlinear_conv, 0, "out channels", 0},
    {"attention with a past", attention_with_past, 0, "heads,batch", 0},
    {"gru", gru, 0, "batch", 0},
    {"local response", local_response, 0, "rows,rows,rows", 0},
    {"mean and variance", mean_variance, 0, "rows", 0},
    {"lp norm", lp_norm, 0, "rows", 0},
    {"old softmax", old_softmax, 0, "rows", 0},
    {"old group norm", old_group_norm, 0, "groups,batch", 0},
    {"cumulated sum", cumulated, 0, "rows,rows", 0},
    {"dropout", dropout, 0, "elements,elements", 0},
    {"gated", gated, 0, "elements,elements", 0},
    {"grid sample", sampled, 0, "elements", 0},
    {"roi align", regions, 0, "elements", 0},
    {"resize of named dims", resize_named, 0, "elements", 0},
    {"squeeze of named dims", squeeze_named, 0, "factor,factor", 1},
    {"attention with repeated keys", repeated_keys, 0, "batch,columns,sum,rows", 2},
    {"group norm of merged channels", merged_groups, 0, "out channels,in channels", 0},
    {"chain of partial sums", linear_chain, 1, "elements,elements", 1},
    {"shape of a split value", reported_shape, 0, "reported,reported", 0},
    {"size of a split value", reported_size, 0, "reported", 0},
    {"expand to a computed shape", symbolic_expand, 1, "elements", 1},
};

/* The axes of the row's node, as names; at 2 ranks. */
static void check_axes(const trm_sharding *s, const struct row *row)
{
    char names[512] = "";
    const trm_axes *a = &s->axes[row->node];

    for (int k = 0; k < a->axis_count; k++) {
        strcat(names, k > 0 ? "," : "");
        strcat(names, a->axes[k].name);
    }
    if (row->axes[0] != '\0')
        ck_assert_msg(strcmp(names, row->axes[0] == '-' ? "" : row->axes) == 0,
                      "%s: axes are '%s', want '%s'", row->name, names, row->axes);
    ck_assert_msg(a->linear_count == row->linear, "%s: %d linear strategies, want %d", row->name,
                  a->linear_count, row->linear);
}

#define ROWS ((int)(sizeof(rows) / sizeof(rows[0])))

/* The second time with a symbol as dim 0 of the inputs. */
START_TEST(every_strategy)
{
    const struct row *row = &rows[_i % ROWS];
    bool symbols = _i >= ROWS;
    net m = net_open((uint64_t)_i + 1);
    int out, done = 0;
    checker c;

    m.symbols = (uint32_t)symbols;
    out = row->build(&m);

    net_outputs(&m, &out, 1);
    check_open(&c, m.g, m.inputs);
    for (int ranks = 2; ranks <= 4; ranks++) {
        check_ranks(&c, ranks);
        if (ranks == 2 && !symbols)
            check_axes(c.s, row);
        done += check_each(&c);
        for (int draw = 0; draw < 8; draw++)
            check_random(&c, &m, 0, row->name);
    }
    ck_assert(done > 0 || symbols);
    check_close(&c);
    net_close(&m);
}
END_TEST

/* Units that later nodes ask for reach the products and convolutions before them. */
START_TEST(units_reach_back)
{
    static const struct reach {
        build build;
        int node, dim;
        int64_t units, unit;
    } cases[] = {{repeated_keys, 0, 2, 3, 8},  /* pairs of query heads */
                 {repeated_keys, 1, 2, 3, 4},  /* a key head */
                 {merged_groups, 0, 1, 5, 4}}; /* the channels of a group */

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        net m = net_open(9);
        int out = cases[i].build(&m);
        const trm_split *split;
        checker c;

        net_outputs(&m, &out, 1);
        check_open(&c, m.g, m.inputs);
        check_ranks(&c, 2);
        split = &c.s->splits[m.g->nodes[cases[i].node].outputs[0]][cases[i].dim];
        ck_assert_int_eq(split->count, 1);
        ck_assert_int_eq(split->stretches[0].units, cases[i].units);
        ck_assert_int_eq(split->stretches[0].unit, cases[i].unit);
        check_close(&c);
        net_close(&m);
    }
}
END_TEST

/* Lowering lets go of all it took when any allocation fails. */
START_TEST(allocations_that_fail)
{
    net m = net_open(3);
    int out = linear_chain(&m), *strategy;
    trm_status st = TRM_ERR_NO_MEMORY;
    checker c;

    net_outputs(&m, &out, 1);
    check_open(&c, m.g, m.inputs);
    strategy = trm_calloc((size_t)m.g->node_count, sizeof(int));
    for (int64_t calls = 0; st != TRM_OK; calls++) {
        int64_t live = trm_alloc_live();
        trm_sharding *s = NULL;
        trm_graph *local = NULL, *cut = NULL;

        ck_assert_int_lt(calls, 10000);
        trm_alloc_fail_after(calls);
        st = trm_sharding_create(m.g, c.descs, 3, &s);
        for (int n = 0; st == TRM_OK && n < m.g->node_count; n++)
            strategy[n] = trm_sharding_strategy_count(s, n) - 1;
        if (st == TRM_OK)
            st = trm_lower(s, strategy, 1, &local);
        if (st == TRM_OK)
            st = trm_lower_cut(local, 1, local->node_count - 1, &cut);
        trm_alloc_fail_after(-1);
        ck_assert(st == TRM_OK || st == TRM_ERR_NO_MEMORY);
        trm_graph_destroy(cut);
        trm_graph_destroy(local);
        trm_sharding_destroy(s);
        ck_assert_int_eq(trm_alloc_live(), live);
    }
    trm_free(strategy);
    check_close(&c);
    net_close(&m);
}
END_TEST

START_TEST(plans_that_do_not_fit)
{
    net m = net_open(4);
    int out = matmul(&m), strategy[1] = {0};
    trm_graph *local;
    trm_sharding *s;
    checker c;

    net_outputs(&m, &out, 1);
    check_open(&c, m.g, m.inputs);
    ck_assert_int_eq(trm_sharding_create(m.g, c.descs, 0, &s), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_sharding_create(m.g, c.descs, 1000, &s), TRM_ERR_INVALID_ARG);
    check_ranks(&c, 2);
    ck_assert_int_eq(trm_lower(c.s, strategy, 2, &local), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_lower(c.s, strategy, -1, &local), TRM_ERR_INVALID_ARG);
    strategy[0] = 99;
    ck_assert_int_eq(trm_lower(c.s, strategy, 0, &local), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "has no strategy 99"));
    strategy[0] = -1;
    ck_assert_int_eq(trm_lower(c.s, strategy, 0, &local), TRM_ERR_INVALID_ARG);
    check_close(&c);
    net_close(&m);
}
END_TEST

/* More than 64 stretches: a channel shuffle of 100 groups keeps the one factor that can be had. */
START_TEST(too_many_stretches)
{
    net m = net_open(6);
    int x = net_input(&m, 1, 1000, 2), out;
    checker c;

    x = net_node(&m, Reshape, x, net_ints(&m, 1, 100, 10, 2));
    x = net_node(&m, Transpose, x);
    net_list(&m, "perm", 0, 2, 1, 3);
    out = net_node(&m, Reshape, x, net_ints(&m, 1, 1000, 2));
    net_outputs(&m, &out, 1);
    check_open(&c, m.g, m.inputs);
    for (int ranks = 2; ranks <= 4; ranks++) {
        check_ranks(&c, ranks);
        for (int v = 0; v < m.g->value_count; v++)
            for (int d = 0; d < TRM_RANK_MAX; d++)
                ck_assert_int_le(c.s->splits[v][d].count, TRM_SPLIT_STRETCHES_MAX);
        ck_assert_int_gt(check_each(&c), 0);
    }
    check_close(&c);
    net_close(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lower");
    TCase *tc = tcase_create("operators");
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_set_fork_status(runner, CK_NOFORK);
    tcase_add_unchecked_fixture(tc, spmd_open, spmd_close);
    tcase_set_timeout(tc, 0);
    tcase_add_loop_test(tc, every_strategy, 0, 2 * ROWS);
    tcase_add_test(tc, units_reach_back);
    tcase_add_test(tc, allocations_that_fail);
    tcase_add_test(tc, plans_that_do_not_fit);
    tcase_add_test(tc, too_many_stretches);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
