/* TrmReduceTree in a graph whose ranks have devices with a group: it goes between the devices, and
 * gives the bits of the host's way, which is taken where the node does not say what others hold. */
#include "base/tree.h"
#include "model/shape/shape.h"
#include "tests/cuda/group_kit.h"
#include "worker/engine.h"

#define ROWS 3
#define WIDTH 300
#define LEAVES 12

static trm_segment *segment;
static bool with_counts;
static int between_devices;
static const trm_device_group_ops *real_ops;

static trm_status counted(trm_device_group *g, trm_stream *s, const void *in, void *out,
                          size_t elems, int leaves, const int *counts)
{
    between_devices++;
    return real_ops->reduce_tree(g, s, in, out, elems, leaves, counts);
}

/* Thirds, with an exponent of the leaf: additions in another order give other bits. */
static float value(int leaf, size_t i)
{
    return (float)(i % 97 + 1) / 3.0f * (float)(1 << (leaf * 5 % 17)) * (leaf % 3 == 0 ? -1 : 1);
}

static uint32_t bits_of(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    return u;
}

static int sum_leaves(int first, int count, size_t i, size_t stride, float *out)
{
    unsigned char merges[TRM_TREE_LEAVES_MAX];
    float stack[TRM_TREE_PARTS_MAX + TRM_TREE_DEPTH_MAX] = {0};
    int top = 0;

    trm_tree_merges(first, count, LEAVES, merges);
    for (int k = 0; k < count; k++) {
        stack[top++] = value(first + k, i);
        for (int m = merges[k]; m > 0; m--, top--)
            stack[top - 2] += stack[top - 1];
    }
    for (int p = 0; p < top; p++)
        out[(size_t)p * stride] = stack[p];
    return top;
}

static int build(const group_rank *r, const int64_t *counts, float *data, trm_tensor *parts,
                 trm_graph **g_out)
{
    trm_tree_part nodes[TRM_TREE_PARTS_MAX];
    trm_tensor none = {.rank = -1};
    int in, out, node, most = 0;
    int64_t first = 0, mine = 0;
    trm_graph *g = NULL;

    RANK_OK(r, trm_graph_create(NULL, "sum", &g));
    for (int k = 0; k < r->size; k++) {
        int n = trm_tree_parts((int)first, (int)counts[k], LEAVES, nodes);

        most = n > most ? n : most;
        if (k == r->rank) {
            parts->dims[0] = n;
            mine = first;
        }
        first += counts[k];
    }
    RANK_OK(r, trm_graph_add_value(g, "parts", parts, &in));
    RANK_OK(r, trm_graph_add_value(g, "sum", &none, &out));
    RANK_OK(r, trm_graph_add_node(g, TRM_OP_TrmReduceTree, "sum", &in, 1, &out, 1, &node));
    RANK_OK(r, trm_attr_set_int(&g->nodes[node].attrs, g->arena, "ranks", r->size));
    RANK_OK(r, trm_attr_set_int(&g->nodes[node].attrs, g->arena, "rank", r->rank));
    RANK_OK(r, trm_attr_set_int(&g->nodes[node].attrs, g->arena, "leaves", LEAVES));
    RANK_OK(r, trm_attr_set_int(&g->nodes[node].attrs, g->arena, "first", mine));
    RANK_OK(r, trm_attr_set_int(&g->nodes[node].attrs, g->arena, "count", counts[r->rank]));
    RANK_OK(r, trm_attr_set_int(&g->nodes[node].attrs, g->arena, "most", most));
    if (with_counts)
        RANK_OK(r, trm_attr_set_ints(&g->nodes[node].attrs, g->arena, "counts", counts,
                                     (size_t)r->size));
    RANK_OK(r, trm_graph_set_inputs(g, &in, 1));
    RANK_OK(r, trm_graph_set_outputs(g, &out, 1));
    RANK_OK(r, trm_graph_infer(g));
    for (size_t i = 0; i < ROWS * WIDTH; i++)
        (void)sum_leaves((int)mine, (int)counts[r->rank], i, ROWS * WIDTH, data + i);
    *g_out = g;
    return 0;
}

static int sums(group_rank *r)
{
    static const int64_t counts[][3] = {{LEAVES, 0, 0}, {7, 5, 0}, {1, 6, 5}};
    static float data[LEAVES * ROWS * WIDTH];
    trm_tensor parts = {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {0, ROWS, WIDTH}};
    trm_engine_options options = {.group = r->group};
    trm_device_group_ops ops = *r->ops;
    trm_engine *e = NULL;
    trm_graph *g = NULL;
    trm_tensor out;

    real_ops = r->ops;
    ops.reduce_tree = counted;
    r->group->ops = &ops;
    RANK_OK(r, trm_comm_shm_create(segment, r->rank, r->size, 0, &options.comm));
    if (build(r, counts[r->size - 1], data, &parts, &g) != 0)
        return 1;
    parts.data = data;
    RANK_OK(r, trm_engine_create(g, r->gpu, &options, &e));
    for (int step = 0; step < 3; step++) { /* captured from the second on */
        RANK_OK(r, trm_engine_run(e, &parts, &out));
        for (size_t i = 0; i < ROWS * WIDTH; i++) {
            float want;

            (void)sum_leaves(0, LEAVES, i, 1, &want);
            if (bits_of(((const float *)out.data)[i]) != bits_of(want))
                return wrong(r, "step %d: element %zu is %g, want %g", step, i,
                             (double)((const float *)out.data)[i], (double)want);
        }
    }
    if ((between_devices > 0) != with_counts)
        return wrong(r, "%d sums between devices", between_devices);
    trm_engine_destroy(e);
    r->group->ops = real_ops;
    trm_graph_destroy(g);
    trm_comm_destroy(options.comm);
    return 0;
}

static char leaks[] = "TRM_EMU_LEAKS=1", late[] = "TRM_EMU_LATE=1";

static const struct {
    const char *name;
    int size;
    bool peers, counts;
    char *settings[3];
} worlds[] = {
    {"two", 2, true, true, {leaks, NULL}},
    {"three, late", 3, true, true, {late, leaks, NULL}},
    {"three, through NCCL", 3, false, true, {leaks, NULL}},
    {"over the hosts", 2, true, false, {leaks, NULL}},
};

START_TEST(works)
{
    trm_comm_needs needs = {.slot_bytes = 1 << 18};

    with_counts = worlds[_i].counts;
    ck_assert_int_eq(trm_comm_shm_segment(worlds[_i].size, &needs, &segment), TRM_OK);
    run_ranks(worlds[_i].name, worlds[_i].size, worlds[_i].peers, true, sums,
              (char *const *)worlds[_i].settings);
    trm_segment_close(segment);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("group engine");
    Suite *s = suite_create("group engine");
    SRunner *r;
    int failed;

    (void)setenv("TRM_EMU_IPC", "1", 1);
    tcase_add_loop_test(t, works, 0, (int)(sizeof(worlds) / sizeof(worlds[0])));
    tcase_set_timeout(t, 120);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
