/* The ten small networks with random plans at 2, 3 and 4 ranks: every output equals one rank's. */
#include "tests/parallel/graph_kit.h"

#include "base/npy.h"
#include "model/onnx/onnx.h"

static const struct network {
    const char *name;
    int compared; /* outputs before anything that jumps: the boxes of YOLO lie behind suppression */
    double split; /* at least this share of the nodes that compute has a strategy at 2 ranks */
} networks[] = {
    {"resnet18", 9, 1},    {"resnet50", 9, 1}, {"mobilenet_v2", 9, 1}, {"densenet121", 9, 1},
    {"resnet3d", 9, 1},    {"unet", 9, 1},     {"bert", 9, 1},         {"vit", 9, 1},
    {"lstm_tagger", 9, 1}, {"yolo", 1, 1},
};

static bool computes(trm_op op)
{
    return op == TRM_OP_Conv || op == TRM_OP_ConvTranspose || op == TRM_OP_MatMul ||
           op == TRM_OP_Gemm || op == TRM_OP_TrmAttention;
}

/* Products and convolutions that can be shared by channels, columns, heads or sums. */
static void check_share(const trm_sharding *s, const struct network *which)
{
    int all = 0, shared = 0;

    for (int n = 0; n < s->graph->node_count; n++) {
        if (!computes(s->graph->nodes[n].op))
            continue;
        all++;
        shared += s->axes[n].axis_count > 0;
        if (s->axes[n].axis_count == 0)
            fprintf(stderr, "%s: '%s' cannot be shared\n", which->name, s->graph->nodes[n].name);
    }
    ck_assert_msg(shared >= which->split * all, "%s: %d of %d nodes can be shared", which->name,
                  shared, all);
}

START_TEST(random_plans)
{
    const struct network *which = &networks[_i / 3];
    int ranks = 2 + _i % 3;
    char path[512];
    trm_file *file;
    trm_graph *g;
    trm_arena *arena;
    trm_tensor inputs[8];
    net m = {.seed = (uint64_t)_i * 7919 + 17};
    bool skip[16] = {false};
    checker c;

    snprintf(path, sizeof(path), "%s/tests/data/networks/%s/model.onnx", TRM_SOURCE_DIR,
             which->name);
    ck_assert_msg(trm_file_open(path, &file) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_onnx_import(file, &g) == TRM_OK, "%s", trm_message());
    trm_file_unref(file);
    ck_assert_msg(trm_pass_prepare(g, &spmd_evaluator) == TRM_OK, "%s", trm_message());
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    for (int i = 0; i < g->input_count; i++) {
        snprintf(path, sizeof(path), "%s/tests/data/networks/%s/input_%d.npy", TRM_SOURCE_DIR,
                 which->name, i);
        ck_assert_msg(trm_npy_load(path, arena, &inputs[i]) == TRM_OK, "%s", trm_message());
    }
    for (int i = which->compared; i < g->output_count; i++)
        skip[i] = true;
    check_open(&c, g, inputs);
    c.skip = skip;
    check_ranks(&c, ranks);
    if (ranks == 2)
        check_share(c.s, which);
    for (int draw = 0; draw < 5; draw++)
        check_random(&c, &m, draw * 20, which->name);
    check_close(&c);
    trm_graph_destroy(g);
    trm_arena_destroy(arena);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lower_networks");
    TCase *tc = tcase_create("networks");
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_set_fork_status(runner, CK_NOFORK);
    tcase_add_unchecked_fixture(tc, spmd_open, spmd_close);
    tcase_set_timeout(tc, 0);
    tcase_add_loop_test(tc, random_plans, 0, 3 * (int)(sizeof(networks) / sizeof(networks[0])));
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
