/* The placement search with costs from rates, on the ten small networks: what it shares when
 * talking is cheap or dear, the shape of the plan for a transformer, and the price of fusions that
 * a collective breaks. */
#include "parallel/lower.h"
#include "parallel/placement.h"
#include "parallel/shapes.h"

#include "model/package.h"
#include "model/passes/passes.h"
#include "worker/engine.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())

static const struct {
    const char *name;
    int64_t other;
} networks[] = {{"bert", 9},      {"densenet121", 64}, {"lstm_tagger", 7}, {"mobilenet_v2", 64},
                {"resnet18", 64}, {"resnet3d", 16},    {"resnet50", 64},   {"unet", 48},
                {"vit", 32},      {"yolo", 64}};
#define NETWORKS (int)(sizeof(networks) / sizeof(networks[0]))

/* Costs from rates, with talking made cheaper or dearer. */
typedef struct scaled {
    trm_placement_costs inner;
    double talk;
} scaled;

static double node_us(void *ctx, const trm_sharding *s, int node, int strategy)
{
    scaled *c = ctx;

    return c->inner.node_us(c->inner.ctx, s, node, strategy);
}

static double change_us(void *ctx, const trm_sharding *s, int value, trm_change change,
                        trm_form want)
{
    scaled *c = ctx;

    return c->talk * c->inner.change_us(c->inner.ctx, s, value, change, want);
}

typedef struct bench {
    trm_package *package;
    trm_graph *graph;
    trm_arena *arena;
    trm_tensor *descs;
    trm_sharding *s;
    trm_rates *rates;
    trm_cost_context cost;
    scaled scaled;
    trm_placement_costs costs;
} bench;

static void bench_share(bench *b, int ranks, double talk)
{
    OK(trm_sharding_create(b->graph, b->descs, ranks, &b->s));
    OK(trm_rates_describe("cpu:8", &b->rates));
    b->cost = (trm_cost_context){
        .rates = b->rates, .threads = 1, .busy_ranks = ranks, .dtype = TRM_DTYPE_F32};
    OK(trm_placement_costs_create(b->s, &b->cost, &b->scaled.inner));
    b->scaled.talk = talk;
    b->costs = (trm_placement_costs){.ctx = &b->scaled, .node_us = node_us, .change_us = change_us};
}

static void bench_bind(bench *b, const trm_tensor *inputs)
{
    OK(trm_arena_create(0, &b->arena));
    b->descs = calloc((size_t)b->graph->value_count + 1, sizeof(*b->descs));
    ck_assert_ptr_nonnull(b->descs);
    OK(trm_shapes_bind(b->graph, inputs, b->arena, b->descs));
}

static void bench_read(bench *b, const char *path, int64_t batch, int64_t other, int ranks,
                       double talk)
{
    trm_device *device;
    trm_evaluator evaluator;
    trm_tensor inputs[16];

    *b = (bench){0};
    OK(trm_package_open(path, &b->package));
    b->graph = b->package->graph;
    OK(trm_device_cpu_create(1, &device));
    OK(trm_evaluator_create(device, &evaluator));
    OK(trm_pass_prepare(b->graph, &evaluator));
    trm_evaluator_destroy(&evaluator);
    trm_device_destroy(device);
    trm_shapes_inputs(b->graph, batch, other, inputs);
    bench_bind(b, inputs);
    bench_share(b, ranks, talk);
}

static void bench_open(bench *b, const char *name, int64_t batch, int64_t other, int ranks,
                       double talk)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/tests/data/networks/%s/model.onnx", TRM_SOURCE_DIR, name);
    bench_read(b, path, batch, other, ranks, talk);
}

static void bench_close(bench *b)
{
    trm_placement_costs_destroy(&b->scaled.inner);
    trm_rates_destroy(b->rates);
    trm_sharding_destroy(b->s);
    trm_arena_destroy(b->arena);
    free(b->descs);
    if (b->package != NULL)
        trm_package_close(b->package);
    else
        trm_graph_destroy(b->graph);
}

static trm_placement plan_of(bench *b, size_t bytes_max)
{
    trm_placement p;

    OK(trm_placement_search(b->s, &b->costs,
                            &(trm_placement_options){.weight_bytes_max = bytes_max}, &p));
    return p;
}

static trm_placement whole(bench *b)
{
    trm_placement p = {.strategy = trm_calloc((size_t)b->graph->node_count + 1, sizeof(int))};

    ck_assert_ptr_nonnull(p.strategy);
    OK(trm_placement_cost(b->s, &b->costs, &p));
    ck_assert_int_eq(p.collectives, 0);
    return p;
}

/* What was counted is what a rank's graph has. */
static void check_collectives(const bench *b, const trm_placement *p)
{
    trm_graph *local;
    int count = 0;

    OK(trm_lower(b->s, p->strategy, 0, &local));
    for (int n = 0; n < local->node_count; n++)
        count += local->nodes[n].op != TRM_OP_TrmShard &&
                 (trm_op_get(local->nodes[n].op)->flags & TRM_OPF_COLLECTIVE) != 0;
    ck_assert_int_eq(count, p->collectives);
    trm_graph_destroy(local);
}

START_TEST(never_dearer_than_whole)
{
    for (int ranks = 2; ranks <= 4; ranks++) {
        bench b;
        trm_placement p, all;

        bench_open(&b, networks[_i].name, 4, networks[_i].other, ranks, 1);
        p = plan_of(&b, 0);
        all = whole(&b);
        ck_assert_double_le(p.compute_us + p.collective_us, all.compute_us + 1e-6);
        ck_assert_uint_le(p.weight_bytes, all.weight_bytes);
        check_collectives(&b, &p);
        trm_placement_fini(&p);
        /* most of the weights shared: met, or said to be impossible */
        if (trm_placement_search(
                b.s, &b.costs,
                &(trm_placement_options){.weight_bytes_max = all.weight_bytes * 6 / 10},
                &p) == TRM_OK) {
            ck_assert_uint_le(p.weight_bytes, all.weight_bytes * 6 / 10);
            check_collectives(&b, &p);
            trm_placement_fini(&p);
        } else {
            ck_assert_msg(strstr(trm_message(), "at least") != NULL, "%s", trm_message());
            ck_assert_str_eq(networks[_i].name, "lstm_tagger"); /* one LSTM is most of it */
        }
        trm_placement_fini(&all);
        bench_close(&b);
    }
}
END_TEST

START_TEST(dear_talk_shares_nothing)
{
    bench b;
    trm_placement p;

    bench_open(&b, networks[_i].name, 1, networks[_i].other, 2, 1e6);
    p = plan_of(&b, 0);
    ck_assert_int_eq(p.collectives, 0);
    trm_placement_fini(&p);
    bench_close(&b);
}
END_TEST

/* Each strategy of each node by itself: what is counted is what its lowering has. */
START_TEST(every_strategy_is_counted)
{
    bench b;
    trm_placement p;
    int tried = 0;

    bench_open(&b, networks[_i].name, 1, networks[_i].other, 2, 1);
    p = whole(&b);
    for (int n = 0; n < b.graph->node_count; n++)
        for (int st = 1; st < trm_sharding_strategy_count(b.s, n); st++) {
            if (!trm_sharding_possible(b.s, n, st))
                continue;
            p.strategy[n] = st;
            OK(trm_placement_cost(b.s, &b.costs, &p));
            check_collectives(&b, &p);
            p.strategy[n] = 0;
            tried++;
        }
    ck_assert_int_gt(tried, 8);
    trm_placement_fini(&p);
    bench_close(&b);
}
END_TEST

static const char *strategy_of(const bench *b, const trm_placement *p, const char *name)
{
    for (int n = 0; n < b->graph->node_count; n++)
        if (strcmp(b->graph->nodes[n].name, name) == 0)
            return trm_strategy_name(b->s, n, p->strategy[n]);
    ck_abort_msg("no node '%s'", name);
}

static int count_of(const bench *b, const trm_placement *p, const char *what)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    int count = 0;

    OK(trm_placement_print(b->s, &b->costs, p, out));
    fclose(out);
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        count++;
    free(text);
    return count;
}

/* Megatron-LM's layout (Shoeybi et al. 2019) comes out of the search: heads and the first product
 * of the feed-forward part by columns, the product after each by rows, two sums a layer. */
START_TEST(a_transformer)
{
    static const struct {
        const char *node, *strategy;
    } rows[] = {{"/layers.1.0/q/MatMul", "columns"}, {"/layers.1.0/k/MatMul", "columns"},
                {"/layers.1.0/v/MatMul", "columns"}, {"/layers.1.0/MatMul_1", "heads"},
                {"/layers.1.0/o/MatMul", "sum"},     {"/layers.1.2/MatMul", "columns"},
                {"/layers.1.3/MatMul", "sum"}};
    bench b;
    trm_placement p;

    bench_open(&b, "bert", 1, 128, 2, 0.01);
    p = plan_of(&b, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        ck_assert_msg(strcmp(strategy_of(&b, &p, rows[i].node), rows[i].strategy) == 0,
                      "%s: %s, want %s", rows[i].node, strategy_of(&b, &p, rows[i].node),
                      rows[i].strategy);
    ck_assert_int_eq(count_of(&b, &p, "TrmAllReduce"), 4); /* two layers */
    trm_placement_fini(&p);
    bench_close(&b);
}
END_TEST

/* Every convolution of a residual network is shared, and no more than two collectives go with one.
 */
START_TEST(a_convolutional_network)
{
    bench b;
    trm_placement p;
    int convs = 0;

    bench_open(&b, "resnet50", 8, 64, 2, 0.001);
    p = plan_of(&b, 0);
    for (int n = 0; n < b.graph->node_count; n++)
        if (b.graph->nodes[n].op == TRM_OP_Conv) {
            convs++;
            ck_assert_int_ne(p.strategy[n], 0);
        }
    ck_assert_int_eq(convs, 53);
    ck_assert_int_le(p.collectives, 2 * convs);
    ck_assert_int_ge(p.collectives, convs / 3);
    trm_placement_fini(&p);
    bench_close(&b);
}
END_TEST

/* x -> Conv -> Relu -> y. The activation is free while nothing comes between; an all-reduce before
 * it pays for it, one after it does not. */
START_TEST(a_collective_breaks_a_fusion)
{
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 4, .dims = {1, 32, 64, 64}};
    trm_tensor w = {.dtype = TRM_DTYPE_F32, .rank = 4, .dims = {32, 32, 3, 3}};
    int in[2], made[2], node;
    bench b = {0};
    double before, after, relu;

    w.data = calloc(trm_tensor_numel(&w), sizeof(float));
    OK(trm_graph_create(NULL, "g", &b.graph));
    OK(trm_graph_add_value(b.graph, "x", &x, &in[0]));
    OK(trm_graph_add_constant(b.graph, "w", &w, &in[1]));
    OK(trm_graph_add_value(b.graph, "c", &x, &made[0]));
    OK(trm_graph_add_value(b.graph, "y", &x, &made[1]));
    OK(trm_graph_add_node(b.graph, TRM_OP_Conv, "conv", in, 2, &made[0], 1, &node));
    OK(trm_attr_set_ints(&b.graph->nodes[node].attrs, b.graph->arena, "pads",
                         (int64_t[]){1, 1, 1, 1}, 4));
    OK(trm_graph_add_node(b.graph, TRM_OP_Relu, "relu", &made[0], 1, &made[1], 1, &node));
    OK(trm_graph_set_inputs(b.graph, in, 1));
    OK(trm_graph_set_outputs(b.graph, &made[1], 1));
    OK(trm_graph_sort(b.graph));
    bench_bind(&b, &x);
    bench_share(&b, 2, 1);
    before = b.costs.change_us(b.costs.ctx, b.s, made[0],
                               (trm_change){TRM_FORM_PARTIAL, TRM_OP_TrmAllReduce}, TRM_FORM_WHOLE);
    after = b.costs.change_us(b.costs.ctx, b.s, made[1],
                              (trm_change){TRM_FORM_PARTIAL, TRM_OP_TrmAllReduce}, TRM_FORM_WHOLE);
    relu =
        trm_cost_node_us(&b.cost, &b.graph->nodes[1], &b.descs[made[0]], &b.descs[made[1]], false);
    ck_assert_double_gt(relu, 1);
    ck_assert_double_eq_tol(before - after, relu - b.costs.node_us(b.costs.ctx, b.s, 1, 0), 1e-6);
    ck_assert_double_lt(b.costs.node_us(b.costs.ctx, b.s, 1, 0), relu / 2);
    bench_close(&b);
    free(w.data);
}
END_TEST

/* ---- a plan to look at: `plan FILE RANKS` ---- */
static const char *plan_path;
static int plan_ranks;

START_TEST(print_plan)
{
    struct timespec begin, end;
    trm_placement p;
    bench b;

    bench_read(&b, plan_path, 1, 128, plan_ranks, 1);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    p = plan_of(&b, 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("%d nodes, searched in %.1f ms, %s\n", b.graph->node_count,
           (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6,
           p.exact ? "exact" : "the beam was full");
    OK(trm_placement_print(b.s, &b.costs, &p, stdout));
    trm_placement_fini(&p);
    bench_close(&b);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("placement_networks");
    TCase *tc = tcase_create("networks");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 60);
    if (argc == 4 && strcmp(argv[1], "plan") == 0) {
        plan_path = argv[2];
        plan_ranks = atoi(argv[3]);
        tcase_add_test(tc, print_plan);
        goto run;
    }
    tcase_add_loop_test(tc, never_dearer_than_whole, 0, NETWORKS);
    tcase_add_loop_test(tc, every_strategy_is_counted, 0, NETWORKS);
    tcase_add_loop_test(tc, dear_talk_shares_nothing, 0, NETWORKS);
    tcase_add_test(tc, a_transformer);
    tcase_add_test(tc, a_convolutional_network);
    tcase_add_test(tc, a_collective_breaks_a_fusion);
run:
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* folding may open a team */
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
