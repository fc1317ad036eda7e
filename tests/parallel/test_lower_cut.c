/* Stages: graphs cut at random nodes, whole and lowered, run one stage after another and give what
 * the uncut graph gives. */
#include "tests/parallel/random_graph.h"

#define STAGES_MAX 4

/* Runs a graph of every rank cut at cuts[0..stages]; outputs of the last stage are compared. */
static void check_stages(checker *c, trm_graph *const *locals, int count, const int *cuts,
                         int stages, const char *what)
{
    trm_tensor *feed[SPMD_RANKS_MAX] = {NULL};
    int fed = c->g->input_count;

    for (int r = 0; r < count; r++) {
        feed[r] = trm_calloc((size_t)fed + 1, sizeof(trm_tensor));
        for (int i = 0; i < fed; i++)
            feed[r][i] = spmd_copy(&c->inputs[i]);
    }
    for (int s = 0; s < stages; s++) {
        spmd_rank ranks[SPMD_RANKS_MAX] = {{0}};
        int before = fed, outs;

        for (int r = 0; r < count; r++)
            ck_assert_msg(trm_lower_cut(locals[r], cuts[s], cuts[s + 1], &ranks[r].g) == TRM_OK,
                          "%s: stage %d: %s", what, s, trm_message());
        spmd_check_structure(ranks, count);
        ck_assert_int_eq(ranks[0].g->node_count, cuts[s + 1] - cuts[s]);
        ck_assert_int_eq(ranks[0].g->input_count, fed);
        spmd_run_each(ranks, count, (const trm_tensor *const *)feed);
        outs = ranks[0].g->output_count;
        for (int r = 0; r < count; r++) {
            trm_tensor *next = trm_calloc((size_t)outs + 1, sizeof(trm_tensor));

            for (int i = 0; i < outs; i++)
                next[i] = spmd_copy(&ranks[r].values[ranks[r].g->outputs[i]]);
            for (int i = 0; i < before; i++)
                trm_aligned_free(feed[r][i].data);
            trm_free(feed[r]);
            feed[r] = next;
        }
        fed = outs;
        if (s + 1 < stages) { /* what leaves is what the next stage takes, in order */
            trm_graph *next;

            ck_assert_int_eq(trm_lower_cut(locals[0], cuts[s + 1], cuts[s + 2], &next), TRM_OK);
            ck_assert_int_eq(next->input_count, outs);
            for (int i = 0; i < outs; i++)
                ck_assert_str_eq(next->values[next->inputs[i]].name,
                                 ranks[0].g->values[ranks[0].g->outputs[i]].name);
            trm_graph_destroy(next);
        }
        for (int r = 0; r < count; r++) {
            spmd_drop_values(&ranks[r]);
            trm_graph_destroy(ranks[r].g);
        }
    }
    ck_assert_int_eq(fed, c->g->output_count);
    for (int r = 0; r < count; r++) {
        for (int i = 0; i < fed; i++) {
            ck_assert_msg(spmd_error(&feed[r][i], &c->want[i]) <= 1e-5, "%s: output %d", what, i);
            trm_aligned_free(feed[r][i].data);
        }
        trm_free(feed[r]);
    }
}

static void random_cuts(random_net *r, int nodes, int stages, int *cuts)
{
    cuts[0] = 0;
    cuts[stages] = nodes;
    for (int s = 1; s < stages; s++) /* empty ones between others too */
        cuts[s] = nodes < 2 ? nodes : (int)between(r, s == 1 ? 1 : cuts[s - 1], nodes - 1);
}

START_TEST(stages_of_random_graphs)
{
    for (int i = 0; i < 20; i++) {
        random_net r = random_net_make((uint64_t)(1000 + 20 * _i + i));
        int stages = r.m.g->node_count < 2 ? 1 : (int)between(&r, 1, STAGES_MAX),
            ranks = (int)between(&r, 1, 3);
        int cuts[STAGES_MAX + 1], *strategy;
        trm_graph *locals[SPMD_RANKS_MAX];
        char what[64];
        checker c;

        snprintf(what, sizeof(what), "graph %d, %d stages, %d ranks", 1000 + 20 * _i + i, stages,
                 ranks);
        check_open(&c, r.m.g, r.m.inputs);
        if (ranks == 1) {
            random_cuts(&r, r.m.g->node_count, stages, cuts);
            check_stages(&c, &r.m.g, 1, cuts, stages, what);
        } else {
            check_ranks(&c, ranks);
            strategy = trm_calloc((size_t)r.m.g->node_count + 1, sizeof(int));
            for (int n = 0; n < r.m.g->node_count; n++) {
                int k = pick(&r, trm_sharding_strategy_count(c.s, n));

                strategy[n] = trm_sharding_possible(c.s, n, k) ? k : 0;
            }
            for (int k = 0; k < ranks; k++)
                ck_assert_int_eq(trm_lower(c.s, strategy, k, &locals[k]), TRM_OK);
            random_cuts(&r, locals[0]->node_count, stages, cuts);
            check_stages(&c, locals, ranks, cuts, stages, what);
            for (int k = 0; k < ranks; k++)
                trm_graph_destroy(locals[k]);
            trm_free(strategy);
        }
        check_close(&c);
        net_close(&r.m);
    }
}
END_TEST

/* in -> a -> b -> c; `in` is read again at the end, a is an output: both pass through. */
START_TEST(what_passes_through)
{
    net m = net_open(5);
    int x = net_input(&m, 2, 3), y = net_input(&m, 2, 3);
    int a = net_node(&m, Relu, x), b = net_node(&m, Tanh, a), c = net_node(&m, Add, b, y);
    trm_graph *mid, *last;

    net_outputs(&m, (int[]){c, a}, 2);
    ck_assert_int_eq(trm_lower_cut(m.g, 1, 2, &mid), TRM_OK);
    ck_assert_int_eq(mid->input_count, 2); /* a, and y for the next */
    ck_assert_int_eq(mid->output_count, 3);
    ck_assert_str_eq(mid->values[mid->inputs[0]].name, m.g->values[y].name);
    ck_assert_str_eq(mid->values[mid->inputs[1]].name, m.g->values[a].name);
    ck_assert_int_eq(trm_lower_cut(m.g, 2, 3, &last), TRM_OK);
    ck_assert_str_eq(last->values[last->outputs[0]].name, m.g->values[c].name);
    ck_assert_str_eq(last->values[last->outputs[1]].name, m.g->values[a].name);
    trm_graph_destroy(last);
    trm_graph_destroy(mid);
    ck_assert_int_eq(trm_lower_cut(m.g, 2, 4, &last), TRM_ERR_INVALID_ARG);
    net_close(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lower_cut");
    TCase *tc = tcase_create("stages");
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_set_fork_status(runner, CK_NOFORK);
    tcase_add_unchecked_fixture(tc, spmd_open, spmd_close);
    tcase_set_timeout(tc, 0);
    tcase_add_test(tc, what_passes_through);
    tcase_add_loop_test(tc, stages_of_random_graphs, 0, 5);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
