/* 500 random networks, each with random plans at 2, 3 and 4 ranks, against one rank. */
#include "tests/parallel/random_graph.h"

#define GRAPHS 500
#define CASES 20

static int nodes, shared; /* of all graphs: how much was tried */

START_TEST(some_graphs)
{
    for (int i = _i; i < GRAPHS; i += CASES) {
        random_net r = random_net_make((uint64_t)i);
        char what[32];
        checker c;

        snprintf(what, sizeof(what), "graph %d", i);
        check_open(&c, r.m.g, r.m.inputs);
        for (int ranks = 2; ranks <= 4; ranks++) {
            check_ranks(&c, ranks);
            for (int draw = 0; draw < 2; draw++)
                check_random(&c, &r.m, draw * 40, what);
            for (int n = 0; n < r.m.g->node_count; n++) {
                nodes++;
                shared += trm_sharding_strategy_count(c.s, n) > 1;
            }
        }
        check_close(&c);
        net_close(&r.m);
    }
}
END_TEST

START_TEST(most_nodes_can_be_shared)
{
    ck_assert_msg(shared * 10 >= nodes * 6, "%d of %d nodes have a strategy", shared, nodes);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("random_graphs");
    TCase *tc = tcase_create("graphs");
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_set_fork_status(runner, CK_NOFORK);
    tcase_add_unchecked_fixture(tc, spmd_open, spmd_close);
    tcase_set_timeout(tc, 0);
    tcase_add_loop_test(tc, some_graphs, 0, CASES);
    tcase_add_test(tc, most_nodes_can_be_shared);
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
