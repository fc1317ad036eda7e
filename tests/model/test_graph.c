/* Graph building, sorting, symbols. */
#include "model/graph.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static trm_graph *chain(int *a, int *b, int *c)
{
    trm_graph *g = NULL;
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {4}};

    ck_assert_int_eq(trm_graph_create(NULL, "g", &g), TRM_OK);
    ck_assert_int_eq(trm_graph_add_value(g, "a", &t, a), TRM_OK);
    ck_assert_int_eq(trm_graph_add_value(g, "b", &t, b), TRM_OK);
    ck_assert_int_eq(trm_graph_add_value(g, "c", &t, c), TRM_OK);
    return g;
}

START_TEST(sorts_and_drops)
{
    int a, b, c;
    trm_graph *g = chain(&a, &b, &c);

    ck_assert_int_eq(trm_graph_add_node(g, TRM_OP_Relu, "second", &b, 1, &c, 1, NULL), TRM_OK);
    ck_assert_int_eq(trm_graph_add_node(g, TRM_OP_Neg, "first", &a, 1, &b, 1, NULL), TRM_OK);
    ck_assert_int_eq(trm_graph_set_inputs(g, &a, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(g, &c, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_sort(g), TRM_OK);
    ck_assert_str_eq(g->nodes[0].name, "first");
    ck_assert_int_eq(g->values[c].producer, 1);
    ck_assert_int_eq(trm_graph_set_outputs(g, &b, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_sort(g), TRM_OK);
    ck_assert_int_eq(g->node_count, 1);
    trm_graph_destroy(g);
}
END_TEST

START_TEST(names_cycles_and_missing)
{
    int a, b, c;
    trm_graph *g = chain(&a, &b, &c);
    int both[2] = {a, c};

    ck_assert_int_eq(trm_graph_add_node(g, TRM_OP_Relu, "r", &b, 1, &c, 1, NULL), TRM_OK);
    ck_assert_int_eq(trm_graph_set_inputs(g, &a, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(g, &c, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_sort(g), TRM_ERR_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(trm_message(), "'b'"));
    ck_assert_int_eq(trm_graph_add_node(g, TRM_OP_Add, "loop", both, 2, &b, 1, NULL), TRM_OK);
    ck_assert_int_eq(trm_graph_sort(g), TRM_ERR_BAD_FILE);
    ck_assert_ptr_nonnull(strstr(trm_message(), "cycle"));
    trm_graph_destroy(g);
}
END_TEST

START_TEST(symbols)
{
    int a, b, c;
    trm_graph *g = chain(&a, &b, &c);
    int64_t n, m, k;

    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    ck_assert_int_eq(trm_graph_symbol(g, "n", &m), TRM_OK);
    ck_assert_int_eq(n, m);
    k = trm_graph_dim_op(g, '*', n, 12);
    ck_assert_str_eq(trm_graph_dim_name(g, k), "n*12");
    ck_assert_int_eq(trm_graph_dim_op(g, '*', 12, n), k);
    ck_assert_int_eq(trm_graph_dim_op(g, '/', k, 12), n);
    (void)trm_graph_dim_op(g, '/', k, 0); /* any answer, but no crash */
    ck_assert_int_eq(trm_graph_dim_op(g, '*', trm_graph_dim_op(g, '*', n, 3), 4), k);
    ck_assert_int_eq(trm_graph_dim_op(g, '+', 3, 4), 7);
    ck_assert_int_eq(trm_graph_dim_op(g, '-', 3, 4), TRM_DIM_UNKNOWN);
    ck_assert_str_eq(
        trm_graph_dim_name(g, trm_graph_dim_op(g, '/', trm_graph_dim_op(g, '+', n, 1), 2)),
        "(n+1)/2");
    trm_graph_destroy(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("graph");
    TCase *t = tcase_create("graph");
    SRunner *r;
    int failed;

    tcase_add_test(t, sorts_and_drops);
    tcase_add_test(t, names_cycles_and_missing);
    tcase_add_test(t, symbols);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
