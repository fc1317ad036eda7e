/* The placement search against trying every strategy vector, on random chains and graphs with
 * random costs; memory limits; collectives that are saved.
 *
 * With arguments `gap GRAPHS NODES` it prints how often, and by how much, small beams lose against
 * trying all (docs/measurements). */
#include "placement_fake.h"

#include <stdio.h>

static double us_of(const trm_placement *p)
{
    return p->compute_us + p->collective_us;
}

static trm_placement search(fake *f, int beam, size_t bytes_max)
{
    trm_placement_costs costs = fake_costs(f);
    trm_placement p;

    ck_assert_int_eq(trm_placement_search(
                         &f->s, &costs,
                         &(trm_placement_options){.weight_bytes_max = bytes_max, .beam = beam}, &p),
                     TRM_OK);
    return p;
}

static void equals_all(uint64_t seed, int nodes, bool chain, bool wild)
{
    fake *f = fake_random(seed, nodes, chain);
    trm_placement_costs costs = fake_costs(f);
    int strategy[NODES_MAX];
    trm_placement p, best = {.strategy = strategy};
    double least;

    f->wild = wild;
    least = try_all(f, strategy);
    ck_assert_int_eq(trm_placement_cost(&f->s, &costs, &best), TRM_OK);
    ck_assert_double_eq_tol(us_of(&best), least, 1e-9);
    p = search(f, 0, 0);
    ck_assert(p.exact);
    ck_assert_msg(fabs(us_of(&p) - least) < 1e-9, "seed %d: found %g, least %g", (int)seed,
                  us_of(&p), least);
    trm_placement_fini(&p);
    fake_destroy(f);
}

START_TEST(chains_are_exact)
{
    for (uint64_t seed = 0; seed < 150; seed++)
        equals_all(seed, 9, true, seed % 3 == 0);
}
END_TEST

START_TEST(graphs_are_exact)
{
    for (uint64_t seed = 0; seed < 200; seed++)
        equals_all(1000 + seed, 9, false, seed % 3 == 0);
}
END_TEST

static int collectives_of(const trm_sharding *s, const trm_placement *p, const char *op)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    int count = 0;

    ck_assert_int_eq(trm_placement_print(s, NULL, p, out), TRM_OK);
    fclose(out);
    for (const char *at = text; (at = strstr(at, op)) != NULL; at++)
        count++;
    free(text);
    return count;
}

/* Products by inner dim give partial sums; a sum of them is one all-reduce. */
START_TEST(partial_sums_are_added_first)
{
    fake *f = fake_create(2);
    int x[2], a, b, sum;
    trm_placement p;

    x[0] = fake_value(f, "x", false);
    x[1] = fake_value(f, "y", false);
    ck_assert_int_eq(trm_graph_set_inputs(f->s.graph, x, 2), TRM_OK);
    /* column split, then row split: two arms joined by an addition */
    a = fake_node(f, TRM_OP_MatMul, x[0], fake_value(f, "w", true));
    a = fake_node(f, TRM_OP_Relu, a, -1);
    a = fake_node(f, TRM_OP_MatMul, a, fake_value(f, "w", true));
    b = fake_node(f, TRM_OP_MatMul, x[1], fake_value(f, "w", true));
    b = fake_node(f, TRM_OP_Relu, b, -1);
    b = fake_node(f, TRM_OP_MatMul, b, fake_value(f, "w", true));
    sum = fake_node(f, TRM_OP_Add, a, b);
    ck_assert_int_eq(trm_graph_set_outputs(f->s.graph, &sum, 1), TRM_OK);
    fake_random_costs(f);
    f->comm = 0.5;
    p = search(f, 0, 0);
    ck_assert_int_eq(p.collectives, 1);
    ck_assert_int_eq(collectives_of(&f->s, &p, "TrmAllReduce"), 1);
    ck_assert_int_eq(p.strategy[6], 3); /* linear */
    for (int n = 0; n < 6; n++)
        ck_assert_int_ne(p.strategy[n], 0);
    trm_placement_fini(&p);
    fake_destroy(f);
}
END_TEST

/* A split value that two branches want whole is gathered once, and gathered late: after the cheap
 * nodes that run split as well. */
START_TEST(branches_share_a_gather)
{
    fake *f = fake_create(2);
    int x = fake_value(f, "x", false), a, out[2];
    trm_placement p;

    ck_assert_int_eq(trm_graph_set_inputs(f->s.graph, &x, 1), TRM_OK);
    a = fake_node(f, TRM_OP_MatMul, x, fake_value(f, "w", true)); /* 0 */
    a = fake_node(f, TRM_OP_Relu, a, -1);                         /* 1 */
    out[0] = fake_node(f, TRM_OP_MatMul, a, fake_value(f, "w", true));
    out[1] = fake_node(f, TRM_OP_MatMul, a, fake_value(f, "w", true));
    ck_assert_int_eq(trm_graph_set_outputs(f->s.graph, out, 2), TRM_OK);
    fake_random_costs(f);
    for (int v = 0; v < f->s.graph->value_count; v++)
        f->value_us[v] = 1;
    f->value_us[out[0]] = f->value_us[out[1]] = 1;
    for (int st = 0; st < 4; st++) { /* the second products have only columns that pay */
        f->node_us[0][st] = st == 1 ? 5 : 50;
        f->node_us[1][st] = st == 2 ? 1 : 2;
        f->node_us[2][st] = f->node_us[3][st] = st == 1 ? 5 : 50;
    }
    p = search(f, 0, 0);
    ck_assert_int_eq(p.strategy[0], 1);
    ck_assert_int_eq(p.strategy[1], 2);
    ck_assert_int_eq(p.strategy[2], 1);
    ck_assert_int_eq(p.strategy[3], 1);
    ck_assert_int_eq(collectives_of(&f->s, &p, "TrmAllGather"), 3); /* one, and the two outputs */
    trm_placement_fini(&p);
    fake_destroy(f);
}
END_TEST

/* Where talking is dear everything stays whole; where it is free everything is shared. */
START_TEST(price_of_talking_decides)
{
    fake *f = fake_random(5, 12, true);
    trm_placement p;

    f->comm = 1e6;
    p = search(f, 0, 0);
    ck_assert_int_eq(p.collectives, 0);
    trm_placement_fini(&p);
    f->comm = 0;
    p = search(f, 0, 0);
    for (int n = 0; n < 12; n++)
        ck_assert(p.strategy[n] > 0 && p.strategy[n] <= f->s.axes[n].axis_count);
    trm_placement_fini(&p);
    fake_destroy(f);
}
END_TEST

/* The cheapest plan that meets a limit, by trying all (small graphs). */
static double try_all_within(fake *f, size_t bytes_max, size_t *least_bytes)
{
    trm_placement_costs costs = fake_costs(f);
    int strategy[NODES_MAX] = {0}, nodes = f->s.graph->node_count, n;
    double least = INFINITY;

    *least_bytes = SIZE_MAX;
    do {
        trm_placement p = {.strategy = strategy};

        if (trm_placement_cost(&f->s, &costs, &p) == TRM_OK) {
            *least_bytes = p.weight_bytes < *least_bytes ? p.weight_bytes : *least_bytes;
            if (p.weight_bytes <= bytes_max && us_of(&p) < least)
                least = us_of(&p);
        }
        for (n = 0; n < nodes; n++) {
            if (++strategy[n] < trm_sharding_strategy_count(&f->s, n))
                break;
            strategy[n] = 0;
        }
    } while (n < nodes);
    return least;
}

/* Limits between the least possible bytes and those of the unlimited plan: how much dearer the
 * plans are than the best that fit. */
static void limited(int graphs, bool print)
{
    double loss = 0, most = 0;
    int count = 0, lost = 0;

    for (int i = 0; i < graphs; i++) {
        fake *f = fake_random(2000 + (uint64_t)i, 6, i % 2 == 0);
        size_t least, limit;
        trm_placement free_plan, p;
        double best;

        f->comm = 3; /* dear: what is cheapest holds weights whole */
        free_plan = search(f, 0, 0);
        try_all_within(f, 0, &least);
        limit = (least + free_plan.weight_bytes) / 2;
        best = try_all_within(f, limit, &least);
        p = search(f, 0, limit);
        ck_assert_uint_le(p.weight_bytes, limit);
        ck_assert_double_ge(us_of(&p), best - 1e-9);
        if (free_plan.weight_bytes > limit) {
            double more = us_of(&p) / best - 1;

            count++;
            lost += more > 1e-9;
            loss += more;
            most = more > most ? more : most;
        }
        trm_placement_fini(&p);
        p = search(f, 0, least); /* the least possible is found */
        ck_assert_uint_eq(p.weight_bytes, least);
        trm_placement_fini(&p);
        trm_placement_fini(&free_plan);
        fake_destroy(f);
    }
    ck_assert_int_gt(count, graphs / 6);
    ck_assert_double_lt(loss / count, 0.05);
    if (print)
        printf("| limited | 6 | 4096 | %d of %d | 0 | %.2f%% | %.1f%% |\n", lost, count,
               100 * loss / count, 100 * most);
}

START_TEST(a_limit_is_met)
{
    limited(60, false);
}
END_TEST

START_TEST(a_limit_that_cannot_be_met)
{
    fake *f = fake_create(2);
    int x = fake_value_of(f, "x", false, 8, 128), a;
    trm_placement_costs costs = fake_costs(f);
    trm_placement p;
    size_t least = 0;
    char text[32];

    ck_assert_int_eq(trm_graph_set_inputs(f->s.graph, &x, 1), TRM_OK);
    a = fake_node(f, TRM_OP_MatMul, x, fake_value_of(f, "big", true, 128, 256));
    a = fake_node(f, TRM_OP_MatMul, a, fake_value_of(f, "less", true, 256, 64));
    a = fake_node(f, TRM_OP_MatMul, a, fake_value_of(f, "small", true, 64, 8));
    ck_assert_int_eq(trm_graph_set_outputs(f->s.graph, &a, 1), TRM_OK);
    fake_random_costs(f);
    ck_assert_int_eq(
        trm_placement_search(&f->s, &costs, &(trm_placement_options){.weight_bytes_max = 1000}, &p),
        TRM_ERR_NO_MEMORY);
    least = (size_t)(128 * 256 + 256 * 64 + 64 * 8) * 4 / 2;
    snprintf(text, sizeof(text), "at least %zu bytes", least);
    ck_assert_msg(strstr(trm_message(), text) != NULL, "%s", trm_message());
    ck_assert_msg(strstr(trm_message(), "'big") < strstr(trm_message(), "'less"), "%s",
                  trm_message());
    p = search(f, 0, least);
    ck_assert_uint_eq(p.weight_bytes, least);
    trm_placement_fini(&p);
    fake_destroy(f);
}
END_TEST

/* One weight read by two nodes in two forms is held in both. */
START_TEST(two_forms_of_a_weight_are_two_weights)
{
    fake *f = fake_create(2);
    int x = fake_value(f, "x", false), w = fake_value(f, "w", true), out;
    trm_placement_costs costs = fake_costs(f);
    int strategy[2];
    trm_placement p = {.strategy = strategy};

    ck_assert_int_eq(trm_graph_set_inputs(f->s.graph, &x, 1), TRM_OK);
    out = fake_node(f, TRM_OP_MatMul, fake_node(f, TRM_OP_MatMul, x, w), w);
    ck_assert_int_eq(trm_graph_set_outputs(f->s.graph, &out, 1), TRM_OK);
    fake_random_costs(f);
    strategy[0] = strategy[1] = 1;
    ck_assert_int_eq(trm_placement_cost(&f->s, &costs, &p), TRM_OK);
    ck_assert_uint_eq(p.weight_bytes, SIDE * SIDE * 4 / 2);
    strategy[1] = 2;
    ck_assert_int_eq(trm_placement_cost(&f->s, &costs, &p), TRM_OK);
    ck_assert_uint_eq(p.weight_bytes, SIDE * SIDE * 4);
    ck_assert_int_eq(p.collectives, 1);
    strategy[1] = 9;
    ck_assert_int_eq(trm_placement_cost(&f->s, &costs, &p), TRM_ERR_INVALID_ARG);
    trm_placement_fini(&(trm_placement){0});
    fake_destroy(f);
}
END_TEST

/* Costs look at the last rank only: no rank holds more of a stretch. */
START_TEST(the_last_rank_holds_most)
{
    for (int64_t units = 2; units <= 60; units++)
        for (int ranks = 2; ranks <= 9 && ranks <= units; ranks++) {
            trm_stretch stretches[2] = {{units, 3}, {ranks, 1}};
            trm_split split = {2, stretches};
            int64_t sum = 0, last = trm_split_part(&split, ranks, ranks - 1);

            for (int r = 0; r < ranks; r++) {
                int64_t part = trm_split_part(&split, ranks, r);

                ck_assert_int_le(part, last);
                sum += part;
            }
            ck_assert_int_eq(sum, 3 * units + ranks);
        }
}
END_TEST

/* No nodes; an input and a constant that are outputs, one of them twice; a value that nobody reads;
 * one rank. */
START_TEST(odd_graphs)
{
    fake *f = fake_create(3);
    int x = fake_value(f, "x", false), w = fake_value(f, "w", true);
    trm_placement p;

    ck_assert_int_eq(trm_graph_set_inputs(f->s.graph, &x, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(f->s.graph, (int[]){x, w, x}, 3), TRM_OK);
    p = search(f, 0, 0);
    ck_assert(p.exact);
    ck_assert_int_eq(p.collectives, 0);
    ck_assert_uint_eq(p.weight_bytes, SIDE * SIDE * 4);
    trm_placement_fini(&p);
    (void)fake_node(f, TRM_OP_Relu, fake_node(f, TRM_OP_MatMul, x, w), -1);
    fake_random_costs(f);
    f->comm = 1e6;
    p = search(f, 0, 0);
    ck_assert_int_eq(p.collectives, 0);
    trm_placement_fini(&p);
    f->s.ranks = 1;
    f->comm = 0;
    p = search(f, 0, 0);
    ck_assert_int_eq(p.strategy[0] + p.strategy[1], 0);
    trm_placement_fini(&p);
    fake_destroy(f);
}
END_TEST

START_TEST(out_of_memory_is_reported)
{
    fake *f = fake_random(3, 8, false);
    trm_placement_costs costs = fake_costs(f);
    trm_placement_options options = {.weight_bytes_max = 700};
    int64_t live = trm_alloc_live();
    int failed = 0;

    for (int64_t calls = 0; calls < 60; calls++) {
        trm_placement p;
        trm_status st;

        trm_alloc_fail_after(calls);
        st = trm_placement_search(&f->s, &costs, &options, &p);
        trm_alloc_fail_after(-1);
        if (st == TRM_OK)
            trm_placement_fini(&p);
        else
            ck_assert_int_eq(st, TRM_ERR_NO_MEMORY);
        failed += st != TRM_OK;
        ck_assert_int_eq(trm_alloc_live(), live);
    }
    ck_assert_int_gt(failed, 5);
    fake_destroy(f);
}
END_TEST

static int gap_graphs, gap_nodes; /* of the command line */

START_TEST(print_gap)
{
    int graphs = gap_graphs, nodes = gap_nodes;
    static const int beams[] = {1, 2, 4, 8, 64, 4096};

    limited(graphs, true);

    for (int chain = 1; chain >= 0; chain--)
        for (size_t b = 0; b < sizeof(beams) / sizeof(*beams); b++) {
            int lost = 0, inexact = 0;
            double sum = 0, most = 0;

            for (int i = 0; i < graphs; i++) {
                fake *f = fake_random(77000 + (uint64_t)i, nodes, chain == 1);
                int strategy[NODES_MAX];
                double least = try_all(f, strategy), loss;
                trm_placement p = search(f, beams[b], 0);

                loss = us_of(&p) / least - 1;
                lost += loss > 1e-9;
                inexact += !p.exact;
                sum += loss;
                most = loss > most ? loss : most;
                trm_placement_fini(&p);
                fake_destroy(f);
            }
            printf("| %s | %d | %d | %d of %d | %d | %.2f%% | %.1f%% |\n",
                   chain ? "chains" : "graphs", nodes, beams[b], lost, graphs, inexact,
                   100 * sum / graphs, 100 * most);
        }
}
END_TEST

int main(int argc, char **argv)
{
    Suite *s = suite_create("placement");
    TCase *tc;
    SRunner *sr;
    int failed;

    if (argc == 4 && strcmp(argv[1], "gap") == 0) {
        gap_graphs = atoi(argv[2]);
        gap_nodes = atoi(argv[3]);
        tc = tcase_create("gap");
        tcase_set_timeout(tc, 0);
        tcase_add_test(tc, print_gap);
        goto run;
    }
    tc = tcase_create("core");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, chains_are_exact);
    tcase_add_test(tc, graphs_are_exact);
    tcase_add_test(tc, partial_sums_are_added_first);
    tcase_add_test(tc, branches_share_a_gather);
    tcase_add_test(tc, price_of_talking_decides);
    tcase_add_test(tc, a_limit_is_met);
    tcase_add_test(tc, a_limit_that_cannot_be_met);
    tcase_add_test(tc, two_forms_of_a_weight_are_two_weights);
    tcase_add_test(tc, the_last_rank_holds_most);
    tcase_add_test(tc, odd_graphs);
    tcase_add_test(tc, out_of_memory_is_reported);
run:
    suite_add_tcase(s, tc);
    sr = srunner_create(s);
    srunner_run_all(sr, CK_ENV);
    failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed == 0 ? 0 : 1;
}
