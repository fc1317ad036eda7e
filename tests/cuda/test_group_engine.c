/* TrmReduceTree in a graph whose ranks have devices with a group: it goes between the devices, and
 * gives the bits of the host's way, which is taken where the node does not say what others hold.
 * With the residual and a norm it is one step where the group does that, and has the bits of the
 * device's TrmAddNorm however it is done. */
#include "base/tree.h"
#include "model/shape/shape.h"
#include "tests/cuda/group_kit.h"
#include "worker/engine.h"

#define ROWS 3
#define WIDTH 300
#define LEAVES 12

#define TALL 300 /* rows that the group does not norm in the same step */

static trm_segment *segment;
static bool with_counts;
static int between_devices, with_norm;
static const trm_device_group_ops *real_ops;

static trm_status counted(trm_device_group *g, trm_stream *s, const void *in, void *out,
                          size_t elems, int leaves, const int *counts)
{
    between_devices++;
    return real_ops->reduce_tree(g, s, in, out, elems, leaves, counts);
}

static trm_status counted_norm(trm_device_group *g, trm_stream *s, const void *in, size_t rows,
                               int leaves, const int *counts, const trm_group_norm *norm)
{
    with_norm++;
    return real_ops->reduce_tree_norm(g, s, in, rows, leaves, counts, norm);
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
    size_t elems = (size_t)parts->dims[1] * WIDTH;
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
    for (size_t i = 0; i < elems; i++)
        (void)sum_leaves((int)mine, (int)counts[r->rank], i, elems, data + i);
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

/* ---- with the residual and a norm ---- */

static trm_tensor vector(float *data, int64_t rows, int64_t width)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = rows > 0 ? 2 : 1, .data = data};

    t.dims[0] = rows > 0 ? rows : width;
    t.dims[1] = width;
    return t;
}

/* The sum becomes the first of two outputs, and the norm the second. `parts` is made TrmAddNorm's
 * input y where there is no tree. */
static int widen(const group_rank *r, trm_graph *g, int tree, bool sum_is_read, int64_t rows)
{
    static float weight[WIDTH], bias[WIDTH];
    trm_tensor none = {.rank = -1}, residual = vector(NULL, rows, WIDTH);
    trm_tensor line = vector(weight, 0, WIDTH), other = vector(bias, 0, WIDTH);
    int inputs[4] = {g->inputs[0]}, outputs[2], node = tree;

    for (int i = 0; i < WIDTH; i++) {
        weight[i] = (float)(i % 7 - 3) / 5.0f;
        bias[i] = (float)(i % 11 - 3) / 50.0f;
    }
    RANK_OK(r, trm_graph_add_value(g, "residual", &residual, &inputs[1]));
    RANK_OK(r, trm_graph_add_constant(g, "weight", &line, &inputs[2]));
    RANK_OK(r, trm_graph_add_constant(g, "bias", &other, &inputs[3]));
    RANK_OK(r, trm_graph_set_inputs(g, inputs, 2));
    if (tree < 0) {
        int y = inputs[0];

        inputs[0] = inputs[1];
        inputs[1] = y;
        for (int k = 0; k < 2; k++)
            RANK_OK(r, trm_graph_add_value(g, k == 0 ? "sum" : "normed", &none, &outputs[k]));
        RANK_OK(r, trm_graph_add_node(g, TRM_OP_TrmAddNorm, "norm", inputs, 4, outputs, 2, &node));
    } else {
        trm_node *n = &g->nodes[tree];
        int *all = trm_arena_alloc(g->arena, 6, sizeof(int));

        if (all == NULL)
            return wrong(r, "no memory");
        RANK_OK(r, trm_graph_add_value(g, "normed", &none, &outputs[1]));
        outputs[0] = n->outputs[0];
        memcpy(all, inputs, sizeof(inputs));
        memcpy(all + 4, outputs, sizeof(outputs));
        n->inputs = all;
        n->input_count = 4;
        n->outputs = all + 4;
        n->output_count = 2;
        g->values[outputs[1]].producer = tree;
    }
    RANK_OK(r, trm_attr_set_string(&g->nodes[node].attrs, g->arena, "kind", "layer"));
    RANK_OK(r, trm_attr_set_float(&g->nodes[node].attrs, g->arena, "epsilon", 1e-3f));
    RANK_OK(r, trm_graph_set_outputs(g, sum_is_read ? outputs : outputs + 1, sum_is_read ? 2 : 1));
    RANK_OK(r, trm_graph_infer(g));
    return 0;
}

/* What the device's TrmAddNorm makes of the residual and the whole sum. */
static int reference(const group_rank *r, trm_tensor *in, float *want, int64_t rows)
{
    trm_tensor parts = vector(NULL, rows, WIDTH), out[2];
    size_t bytes = (size_t)rows * WIDTH * sizeof(float);
    trm_engine_options options = {0};
    trm_engine *e = NULL;
    trm_graph *g = NULL;
    int value;

    RANK_OK(r, trm_graph_create(NULL, "norm", &g));
    RANK_OK(r, trm_graph_add_value(g, "parts", &parts, &value));
    RANK_OK(r, trm_graph_set_inputs(g, &value, 1));
    if (widen(r, g, -1, true, rows) != 0)
        return 1;
    RANK_OK(r, trm_engine_create(g, r->gpu, &options, &e));
    RANK_OK(r, trm_engine_run(e, in, out));
    for (int k = 0; k < 2; k++)
        memcpy(want + (size_t)k * (size_t)rows * WIDTH, out[k].data, bytes);
    trm_engine_destroy(e);
    trm_graph_destroy(g);
    return 0;
}

static bool sum_is_read;
static int64_t norm_rows;

static int norms(group_rank *r)
{
    static const int64_t counts[][3] = {{LEAVES, 0, 0}, {7, 5, 0}, {1, 6, 5}};
    static float data[LEAVES * TALL * WIDTH], whole[TALL * WIDTH], residual[TALL * WIDTH],
        want[2 * TALL * WIDTH];
    size_t elems = (size_t)norm_rows * WIDTH;
    trm_tensor parts = {.dtype = TRM_DTYPE_F32, .rank = 3, .dims = {0, norm_rows, WIDTH}}, in[2];
    trm_engine_options options = {.group = r->group};
    bool one_step = with_counts && r->peers && norm_rows < TALL;
    trm_device_group_ops ops = *r->ops;
    trm_engine *e = NULL;
    trm_graph *g = NULL;
    trm_tensor out[2];

    real_ops = r->ops;
    ops.reduce_tree = counted;
    ops.reduce_tree_norm = counted_norm;
    r->group->ops = &ops;
    RANK_OK(r, trm_comm_shm_create(segment, r->rank, r->size, 0, &options.comm));
    if (build(r, counts[r->size - 1], data, &parts, &g) != 0 ||
        widen(r, g, 0, sum_is_read, norm_rows) != 0)
        return 1;
    parts.data = data;
    for (size_t i = 0; i < elems; i++) {
        (void)sum_leaves(0, LEAVES, i, 1, &whole[i]);
        residual[i] = (float)(i % 101) * 77.0f;
    }
    in[0] = vector(whole, norm_rows, WIDTH);
    in[1] = vector(residual, norm_rows, WIDTH);
    if (reference(r, in, want, norm_rows) != 0)
        return 1;
    in[0] = parts;
    RANK_OK(r, trm_engine_create(g, r->gpu, &options, &e));
    for (int step = 0; step < 3; step++) { /* captured from the second on */
        RANK_OK(r, trm_engine_run(e, in, out));
        for (int k = sum_is_read ? 0 : 1; k < 2; k++)
            if (memcmp(out[sum_is_read ? k : 0].data, want + (size_t)k * elems,
                       elems * sizeof(float)) != 0)
                return wrong(r, "step %d: other bits in the %s", step, k == 0 ? "sum" : "norm");
    }
    if ((with_norm > 0) != one_step || (between_devices > 0) != (with_counts && !one_step))
        return wrong(r, "%d sums between devices, %d with the norm", between_devices, with_norm);
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

static const struct {
    const char *name;
    int size;
    bool peers, counts, sum;
    int64_t rows;
} norm_worlds[] = {
    {"two, in one step", 2, true, true, true, ROWS},
    {"three, in one step", 3, true, true, false, ROWS},
    {"more rows than that", 2, true, true, true, TALL},
    {"through NCCL", 2, false, true, false, ROWS},
    {"over the hosts", 3, true, false, true, ROWS},
};

START_TEST(with_norms)
{
    trm_comm_needs needs = {.slot_bytes = 4 << 20};
    char *settings[] = {leaks, NULL};

    with_counts = norm_worlds[_i].counts;
    sum_is_read = norm_worlds[_i].sum;
    norm_rows = norm_worlds[_i].rows;
    ck_assert_int_eq(trm_comm_shm_segment(norm_worlds[_i].size, &needs, &segment), TRM_OK);
    run_ranks(norm_worlds[_i].name, norm_worlds[_i].size, norm_worlds[_i].peers, true, norms,
              settings);
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
    tcase_add_loop_test(t, with_norms, 0, (int)(sizeof(norm_worlds) / sizeof(norm_worlds[0])));
    tcase_set_timeout(t, 120);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
