/* Plans: what is chosen and why, what each rank holds, and that every rank gets its graph. The
 * numbers behind them are a datasheet's, so that the machine under test does not matter. */
#include "model/package.h"
#include "model/passes/passes.h"
#include "model/shape/shape.h"
#include "parallel/planner.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static trm_graph *g;
static trm_package *package;
static trm_rates *rates;
static trm_plan *plan;

static void setup(void)
{
    ck_assert_msg(trm_rates_describe("cpu:8", &rates) == TRM_OK, "%s", trm_message());
}

static void teardown(void)
{
    trm_plan_destroy(plan);
    if (package == NULL)
        trm_graph_destroy(g);
    trm_package_close(package);
    trm_rates_destroy(rates);
    plan = NULL;
    package = NULL;
    g = NULL;
    rates = NULL;
}

static float zeros[256 * 256 * 4 * 16];

/* `layers` times a product of [batch, width] with a matrix from a file, and a Relu. */
static void perceptron(int layers, int64_t width)
{
    trm_file *file = NULL;
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {0, width}};
    trm_tensor w = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {width, width}};
    int in[2], x;

    ck_assert_int_eq(trm_graph_create(NULL, "perceptron", &g), TRM_OK);
    ck_assert_int_eq(trm_graph_symbol(g, "batch", &t.dims[0]), TRM_OK);
    ck_assert_int_eq(trm_graph_add_value(g, "x", &t, &x), TRM_OK);
    ck_assert_int_eq(trm_graph_set_inputs(g, &x, 1), TRM_OK);
    ck_assert_uint_le((size_t)(width * width), sizeof(zeros) / sizeof(zeros[0]));
    ck_assert_int_eq(trm_file_from_memory(zeros, sizeof(zeros), "zeros", &file), TRM_OK);
    for (int i = 0; i < layers; i++) {
        char name[16];

        snprintf(name, sizeof(name), "w%d", i);
        in[0] = x;
        ck_assert_int_eq(trm_graph_add_weight(g, name, &w, file, 0, &in[1]), TRM_OK);
        snprintf(name, sizeof(name), "y%d", i);
        ck_assert_int_eq(trm_graph_add_value(g, name, NULL, &x), TRM_OK);
        ck_assert_int_eq(trm_graph_add_node(g, TRM_OP_MatMul, name, in, 2, &x, 1, NULL), TRM_OK);
        in[0] = x;
        snprintf(name, sizeof(name), "z%d", i);
        ck_assert_int_eq(trm_graph_add_value(g, name, NULL, &x), TRM_OK);
        ck_assert_int_eq(trm_graph_add_node(g, TRM_OP_Relu, name, in, 1, &x, 1, NULL), TRM_OK);
    }
    trm_file_unref(file);
    ck_assert_int_eq(trm_graph_set_outputs(g, &x, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_sort(g), TRM_OK);
    ck_assert_msg(trm_pass_prepare(g, NULL) == TRM_OK, "%s", trm_message());
}

static void network(const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/tests/data/networks/%s", TRM_SOURCE_DIR, name);
    ck_assert_msg(trm_package_open(path, &package) == TRM_OK, "%s", trm_message());
    g = package->graph;
    ck_assert_msg(trm_pass_prepare(g, NULL) == TRM_OK, "%s", trm_message());
}

static trm_plan_options options_for(int ranks, int data, int tensor, int pipeline)
{
    return (trm_plan_options){.parallel = {data, tensor, pipeline},
                              .ranks = ranks,
                              .batch = 4,
                              .other_dims = 16,
                              .threads = 1,
                              .cores = 8,
                              .dtype = TRM_DTYPE_F32,
                              .rates = rates};
}

static void make(const trm_plan_options *o)
{
    trm_plan_destroy(plan);
    plan = NULL;
    ck_assert_msg(trm_plan_make(g, o, &plan) == TRM_OK, "%s", trm_message());
}

static void refused(const trm_plan_options *o, trm_status want, const char *message)
{
    trm_plan *none = NULL;
    trm_status st = trm_plan_make(g, o, &none);

    ck_assert_msg(st == want, "%s: %s", trm_status_name(st), trm_message());
    ck_assert_ptr_null(none);
    ck_assert_msg(strstr(trm_message(), message) != NULL, "%s", trm_message());
}

/* ---- layouts ---- */

START_TEST(forced_layouts_are_kept_or_refused)
{
    trm_plan_options o;

    perceptron(4, 64);
    o = options_for(4, 1, 2, 2);
    make(&o);
    ck_assert_int_eq(plan->candidate_count, 1);
    ck_assert_int_eq(plan->parallel.tensor, 2);
    ck_assert_int_eq(plan->parallel.pipeline, 2);
    ck_assert_int_eq(plan->ledger_count, 4);
    ck_assert_int_ge(plan->micro_batches, 2);
    o = options_for(3, 2, 2, 1);
    refused(&o, TRM_ERR_INVALID_ARG, "data=2,tensor=2,pipeline=1 takes 4 ranks, there are 3");
    o = options_for(8, 2, 2, 1);
    refused(&o, TRM_ERR_INVALID_ARG, "takes 4 ranks, there are 8");
    o = options_for(2, 0, 4, 1);
    refused(&o, TRM_ERR_INVALID_ARG, "takes at least 4 ranks, there are 2");
    o = options_for(5, 0, 2, 1);
    refused(&o, TRM_ERR_INVALID_ARG, "5 ranks cannot be divided into groups of 2");
    o = options_for(6, 0, 2, 0);
    make(&o);
    ck_assert_int_eq(plan->candidate_count, 2); /* 3 x 2 x 1 and 1 x 2 x 3 */
}
END_TEST

START_TEST(auto_tries_every_layout_of_the_ranks)
{
    static const int counts[] = {1, 3, 3, 6, 3, 9, 3, 10}; /* ordered factorisations in three */

    perceptron(8, 64);
    for (int ranks = 1; ranks <= 8; ranks++) {
        trm_plan_options o = options_for(ranks, 0, 0, 0);

        make(&o);
        ck_assert_int_eq(plan->candidate_count, counts[ranks - 1]);
        for (int i = 0; i < plan->candidate_count; i++) {
            const trm_parallel *p = &plan->candidates[i].parallel;

            ck_assert_int_eq(p->data * p->tensor * p->pipeline, ranks);
            ck_assert(plan->candidates[i].fits);
            ck_assert(plan->candidates[i].step_us > 0 && plan->candidates[i].records_s > 0);
        }
        ck_assert_str_ne(plan->reason, "");
    }
}
END_TEST

START_TEST(stages_beyond_the_nodes_are_out)
{
    trm_plan_options o;

    perceptron(1, 64);
    o = options_for(4, 0, 1, 0);
    make(&o);
    ck_assert_int_eq(plan->candidate_count, 3);
    for (int i = 0; i < 3; i++)
        if (plan->candidates[i].parallel.pipeline == 4) {
            ck_assert(!plan->candidates[i].fits);
            ck_assert_ptr_nonnull(strstr(plan->candidates[i].reason, "only 2 nodes"));
        }
    o = options_for(4, 1, 1, 4);
    refused(&o, TRM_ERR_INVALID_ARG, "only 2 nodes");
}
END_TEST

/* ---- objectives ---- */

static const trm_candidate *candidate(int data, int tensor, int pipeline)
{
    for (int i = 0; i < plan->candidate_count; i++) {
        const trm_parallel *p = &plan->candidates[i].parallel;

        if (p->data == data && p->tensor == tensor && p->pipeline == pipeline)
            return &plan->candidates[i];
    }
    ck_abort_msg("no candidate %d x %d x %d", data, tensor, pipeline);
    return NULL;
}

START_TEST(throughput_takes_data_latency_takes_tensor)
{
    trm_plan_options o;

    perceptron(6, 1024);
    o = options_for(4, 0, 0, 0);
    o.batch = 64;
    make(&o);
    ck_assert_int_eq(plan->parallel.data, 4);
    /* four replicas, at most four times the records; one step takes as long as on one rank */
    ck_assert(candidate(4, 1, 1)->records_s > candidate(1, 4, 1)->records_s);
    ck_assert_double_le(candidate(4, 1, 1)->records_s, 4.0001 * 64e6 / candidate(4, 1, 1)->step_us);
    o.objective = TRM_OBJECTIVE_LATENCY;
    make(&o);
    ck_assert_int_eq(plan->parallel.tensor, 4);
    ck_assert(candidate(1, 4, 1)->step_us < candidate(4, 1, 1)->step_us);
    ck_assert(candidate(1, 4, 1)->collective_us > 0);
    /* stages share the work, not the time of a step */
    ck_assert(candidate(1, 1, 4)->step_us >= candidate(4, 1, 1)->step_us);
    ck_assert(candidate(1, 1, 4)->records_s > 2 * 64e6 / candidate(4, 1, 1)->step_us);
}
END_TEST

START_TEST(cores_are_shared)
{
    trm_plan_options o;
    double wide;

    perceptron(6, 512);
    o = options_for(4, 4, 1, 1);
    o.batch = 64;
    make(&o);
    wide = plan->candidates[0].records_s;
    o.cores = 2;
    make(&o);
    ck_assert_double_le(plan->candidates[0].records_s, 0.7 * wide);
}
END_TEST

START_TEST(the_network_is_dearer_than_a_host)
{
    static const int apart[] = {0, 1}, together[] = {3, 3};
    trm_plan_options o;
    double near;

    perceptron(6, 512);
    o = options_for(2, 1, 2, 1);
    o.hosts = together;
    make(&o);
    near = plan->candidates[0].collective_us;
    o.hosts = apart;
    make(&o);
    ck_assert_double_gt(plan->candidates[0].collective_us, 1.5 * near);
}
END_TEST

/* ---- memory ---- */

static size_t most_held(void)
{
    size_t most = 0;

    for (int i = 0; i < plan->ledger_count; i++)
        if (trm_ledger_total(&plan->ledger[i]) > most)
            most = trm_ledger_total(&plan->ledger[i]);
    return most;
}

START_TEST(weights_are_counted_as_they_are_packed)
{
    const size_t layer = 256 * 256 * 4;
    trm_plan_options o;

    perceptron(8, 256);
    o = options_for(1, 1, 1, 1);
    make(&o);
    ck_assert_uint_eq(plan->ledger[0].weights, 8 * layer);
    ck_assert_uint_eq(plan->ledger[0].mapped, 0);
    /* two results of [4, 256] are alive at a time at most; Relu works in place */
    ck_assert_uint_ge(plan->ledger[0].activations, (size_t)4 * 256 * 4);
    ck_assert_uint_le(plan->ledger[0].activations, (size_t)2 * 4 * 256 * 4);
    o = options_for(4, 1, 4, 1);
    make(&o);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(plan->ledger[i].weights, 2 * layer);
    o = options_for(4, 1, 1, 4);
    make(&o);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(plan->ledger[i].weights, 2 * layer);
    o = options_for(4, 1, 2, 2);
    make(&o);
    for (int i = 0; i < 4; i++)
        ck_assert_uint_eq(plan->ledger[i].weights, 2 * layer);
}
END_TEST

START_TEST(a_limit_decides_the_layout)
{
    const size_t layer = 256 * 256 * 4;
    trm_plan_options o;

    perceptron(8, 256);
    o = options_for(4, 0, 0, 0);
    o.memory_bytes = 6 * layer; /* a half fits, with what there is beside weights; all does not */
    make(&o);
    ck_assert(!candidate(4, 1, 1)->fits);
    ck_assert_ptr_nonnull(strstr(candidate(4, 1, 1)->reason, "the limit is 1.6 MB"));
    ck_assert_int_ge(plan->parallel.tensor * plan->parallel.pipeline, 2);
    ck_assert_uint_le(most_held(), o.memory_bytes);
    o.memory_bytes = 3 * layer + layer / 2;
    make(&o);
    ck_assert_int_eq(plan->parallel.tensor * plan->parallel.pipeline, 4);
    ck_assert_uint_le(most_held(), o.memory_bytes);
}
END_TEST

START_TEST(what_does_not_fit_is_told)
{
    const size_t layer = 256 * 256 * 4;
    trm_plan_options o;
    char *w;

    perceptron(8, 256);
    o = options_for(1, 0, 0, 0);
    o.memory_bytes = 6 * layer;
    refused(&o, TRM_ERR_INVALID_ARG, "the model does not fit: data=1,tensor=1,pipeline=1 needs ");
    w = strstr(trm_message(), "the biggest weights are 'w0' (262.1 kB)");
    ck_assert_msg(w != NULL || strstr(trm_message(), "'w0' (0.3 MB)") != NULL, "%s", trm_message());
    ck_assert_msg(strstr(trm_message(), "would fit: tensor=") != NULL, "%s", trm_message());
    o.memory_bytes = 1000;
    refused(&o, TRM_ERR_INVALID_ARG, "no layout of up to 64 ranks would fit");
    /* forced: no other layout is taken */
    o = options_for(2, 2, 1, 1);
    o.memory_bytes = 6 * layer;
    refused(&o, TRM_ERR_INVALID_ARG, "data=2,tensor=1,pipeline=1 needs");
}
END_TEST

START_TEST(fewer_ranks_only_if_nothing_else_fits)
{
    const size_t layer = 250 * 256 * 4; /* as packed: rows in sixteens, columns in sixty-fours */
    trm_plan_options o;

    perceptron(2, 250);
    o = options_for(5, 0, 0, 0);
    make(&o);
    ck_assert_int_eq(plan->parallel.data * plan->parallel.tensor * plan->parallel.pipeline, 5);
    /* two layers: of 5 ranks only tensor=5 divides them; forbid it */
    o.parallel.tensor = 1;
    o.memory_bytes = layer + layer * 9 / 10;
    make(&o);
    ck_assert_int_eq(plan->parallel.data * plan->parallel.pipeline, 4);
    ck_assert_int_eq(plan->parallel.pipeline, 2);
    ck_assert_ptr_nonnull(strstr(plan->reason, "so 1 stay idle"));
}
END_TEST

/* ---- graphs of places ---- */

static bool has(const trm_graph *graph, const int *values, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(graph->values[values[i]].name, name) == 0)
            return true;
    return false;
}

/* Every stage gets what it reads from the one before it; the outputs are made somewhere. */
static void check_places(void)
{
    for (int shard = 0; shard < plan->parallel.tensor; shard++) {
        bool made[64] = {false};
        trm_graph *before = NULL;

        for (int stage = 0; stage < plan->parallel.pipeline; stage++) {
            trm_graph *local = NULL;

            ck_assert_msg(trm_plan_graph(plan, g, stage, shard, &local) == TRM_OK, "%s",
                          trm_message());
            ck_assert_int_gt(local->node_count, 0);
            for (int i = 0; i < local->input_count; i++) {
                const char *name = local->values[local->inputs[i]].name;

                if (stage == 0)
                    ck_assert_msg(has(g, g->inputs, g->input_count, name), "%s", name);
                else
                    ck_assert_msg(has(before, before->outputs, before->output_count, name),
                                  "stage %d reads %s", stage, name);
            }
            for (int i = 0; i < g->output_count; i++)
                made[i] |=
                    has(local, local->outputs, local->output_count, g->values[g->outputs[i]].name);
            trm_graph_destroy(before);
            before = local;
        }
        trm_graph_destroy(before);
        for (int i = 0; i < g->output_count; i++)
            ck_assert_msg(made[i], "%s", g->values[g->outputs[i]].name);
    }
}

static const char *const networks[] = {"bert",     "densenet121", "lstm_tagger", "mobilenet_v2",
                                       "resnet18", "resnet3d",    "resnet50",    "unet",
                                       "vit",      "yolo"};
static const int layouts[][2] = {{1, 1}, {2, 1}, {3, 1}, {4, 1}, {1, 2}, {1, 3}, {2, 2}};

START_TEST(every_network_has_a_graph_for_every_place)
{
    network(networks[_i]);
    for (size_t l = 0; l < sizeof(layouts) / sizeof(layouts[0]); l++) {
        int tensor = layouts[l][0], pipeline = layouts[l][1];
        trm_plan_options o = options_for(tensor * pipeline, 1, tensor, pipeline);

        make(&o);
        check_places();
    }
}
END_TEST

START_TEST(a_plan_that_travelled_gives_the_same_graphs)
{
    trm_plan_options o;
    trm_plan *there = NULL, *again = NULL;
    void *bytes, *more;
    size_t count, more_count;

    network("vit");
    o = options_for(4, 1, 2, 2);
    make(&o);
    ck_assert_int_eq(trm_plan_encode(plan, &bytes, &count), TRM_OK);
    ck_assert_int_eq(trm_plan_decode(bytes, count, &there), TRM_OK);
    for (int i = 0; i < 4; i++) {
        trm_graph *a = NULL, *b = NULL;

        ck_assert_msg(trm_plan_graph(plan, g, i / 2, i % 2, &a) == TRM_OK, "%s", trm_message());
        ck_assert_msg(trm_plan_graph(there, g, i / 2, i % 2, &b) == TRM_OK, "%s", trm_message());
        ck_assert_uint_eq(trm_plan_graph_hash(a), trm_plan_graph_hash(b));
        trm_graph_destroy(a);
        trm_graph_destroy(b);
    }
    /* and planning is a function of its arguments */
    ck_assert_int_eq(trm_plan_make(g, &o, &again), TRM_OK);
    ck_assert_int_eq(trm_plan_encode(again, &more, &more_count), TRM_OK);
    ck_assert_uint_eq(count, more_count);
    ck_assert_mem_eq(bytes, more, count);
    trm_plan_destroy(there);
    trm_plan_destroy(again);
    trm_free(bytes);
    trm_free(more);
}
END_TEST

START_TEST(a_plan_for_another_model_is_refused)
{
    trm_plan_options o;
    trm_graph *one, *local = NULL;

    perceptron(4, 64);
    o = options_for(2, 1, 2, 1);
    make(&o);
    one = g;
    perceptron(4, 32);
    ck_assert_int_eq(trm_plan_graph(plan, g, 0, 0, &local), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "the plan is for another model"));
    ck_assert_int_eq(trm_plan_graph(plan, one, 0, 2, &local), TRM_ERR_INVALID_ARG);
    ck_assert_int_eq(trm_plan_graph(plan, one, 1, 0, &local), TRM_ERR_INVALID_ARG);
    plan->strategy[0] = 77; /* bytes may say anything */
    ck_assert_int_eq(trm_plan_graph(plan, one, 0, 0, &local), TRM_ERR_INVALID_ARG);
    plan->strategy[0] = 0;
    plan->stages.cuts[1]++;
    ck_assert_int_eq(trm_plan_graph(plan, one, 0, 0, &local), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_null(local);
    trm_graph_destroy(one);
}
END_TEST

START_TEST(no_memory_is_an_error_and_leaks_nothing)
{
    trm_plan_options o;
    trm_plan *p = NULL;
    int64_t live;
    int failed = 0;

    perceptron(3, 32);
    o = options_for(4, 0, 0, 0);
    ck_assert_int_eq(trm_plan_make(g, &o, &p), TRM_OK); /* symbols and the like are there now */
    trm_plan_destroy(p);
    live = trm_alloc_live();
    for (int64_t nth = 0; nth < 4000; nth += 1 + nth / 8) {
        trm_status st;

        p = NULL;
        trm_alloc_fail_after(nth);
        st = trm_plan_make(g, &o, &p);
        trm_alloc_fail_after(-1);
        if (st == TRM_OK)
            trm_plan_destroy(p);
        else
            failed++;
        ck_assert(st == TRM_OK || st == TRM_ERR_NO_MEMORY);
        ck_assert_int_eq(trm_alloc_live(), live);
    }
    ck_assert_int_gt(failed, 5);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("planner");
    TCase *tc = tcase_create("plans");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, forced_layouts_are_kept_or_refused);
    tcase_add_test(tc, auto_tries_every_layout_of_the_ranks);
    tcase_add_test(tc, stages_beyond_the_nodes_are_out);
    tcase_add_test(tc, throughput_takes_data_latency_takes_tensor);
    tcase_add_test(tc, cores_are_shared);
    tcase_add_test(tc, the_network_is_dearer_than_a_host);
    tcase_add_test(tc, weights_are_counted_as_they_are_packed);
    tcase_add_test(tc, a_limit_decides_the_layout);
    tcase_add_test(tc, what_does_not_fit_is_told);
    tcase_add_test(tc, fewer_ranks_only_if_nothing_else_fits);
    tcase_add_loop_test(tc, every_network_has_a_graph_for_every_place, 0,
                        (int)(sizeof(networks) / sizeof(networks[0])));
    tcase_add_test(tc, a_plan_that_travelled_gives_the_same_graphs);
    tcase_add_test(tc, a_plan_for_another_model_is_refused);
    tcase_add_test(tc, no_memory_is_an_error_and_leaks_nothing);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
