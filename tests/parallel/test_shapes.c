/* Shapes without running, against the shapes the engine really makes: every node output of the ten
 * small networks. And made graphs: symbols, shape arithmetic, what depends on data, bodies, bad
 * inputs. */
#include "parallel/shapes.h"

#include "model/package.h"
#include "model/passes/passes.h"
#include "model/shape/shape.h"
#include "worker/engine.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static trm_device *device;

#define OK(call) ck_assert_msg((call) == TRM_OK, "%s", trm_message())

static trm_tensor zeros(trm_tensor t)
{
    size_t bytes;

    OK(trm_tensor_bytes(&t, &bytes));
    t.data = trm_aligned_malloc(bytes + 1);
    ck_assert_ptr_nonnull(t.data);
    memset(t.data, 0, bytes);
    return t;
}

/* Every value a node makes becomes an output. */
static void show_all(trm_graph *g)
{
    int *all = malloc((size_t)g->value_count * sizeof(int)), count = 0;

    for (int v = 0; v < g->value_count; v++)
        if (g->values[v].producer >= 0)
            all[count++] = v;
    OK(trm_graph_set_outputs(g, all, count));
    free(all);
}

/* Binds g for `inputs` and runs it; every output must have the predicted shape, or lie within it
 * where `bounds`. */
static void compare(trm_graph *g, const trm_tensor *inputs, bool bounds, const char *name)
{
    trm_tensor *descs = calloc((size_t)g->value_count + 1, sizeof(trm_tensor));
    trm_tensor *out = calloc((size_t)g->output_count + 1, sizeof(trm_tensor));
    trm_tensor data[16];
    trm_arena *arena;
    trm_engine *e;
    char a[TRM_SHAPE_TEXT_BYTES], b[TRM_SHAPE_TEXT_BYTES];

    OK(trm_arena_create(0, &arena));
    OK(trm_shapes_bind(g, inputs, arena, descs));
    OK(trm_engine_create(g, device, NULL, &e));
    ck_assert_int_le(g->input_count, 16);
    for (int i = 0; i < g->input_count; i++)
        data[i] = zeros(inputs[i]);
    OK(trm_engine_run(e, data, out));
    for (int i = 0; i < g->output_count; i++) {
        const trm_tensor *d = &descs[g->outputs[i]];
        bool same = trm_tensor_same_shape(d, &out[i]);

        for (int k = 0; !same && bounds && d->rank == out[i].rank && k < d->rank; k++) {
            if (d->dims[k] < out[i].dims[k])
                break;
            same = k == d->rank - 1;
        }
        ck_assert_msg(same && d->dtype == out[i].dtype, "%s: '%s' is %s %s, predicted %s %s", name,
                      g->values[g->outputs[i]].name, trm_dtype_name(out[i].dtype),
                      trm_tensor_shape_text(&out[i], a, sizeof(a)), trm_dtype_name(d->dtype),
                      trm_tensor_shape_text(d, b, sizeof(b)));
    }
    for (int i = 0; i < g->input_count; i++)
        trm_aligned_free(data[i].data);
    trm_engine_destroy(e);
    trm_arena_destroy(arena);
    free(descs);
    free(out);
}

static const struct {
    const char *name;
    int64_t other;
    bool bounds; /* something depends on data */
} networks[] = {{"bert", 9, false},          {"densenet121", 64, false}, {"lstm_tagger", 7, false},
                {"mobilenet_v2", 64, false}, {"resnet18", 64, false},    {"resnet3d", 16, false},
                {"resnet50", 64, false},     {"unet", 48, false},        {"vit", 32, false},
                {"yolo", 64, true}};
#define NETWORKS (int)(sizeof(networks) / sizeof(networks[0]))

static void network(int i, bool finished, int64_t batch)
{
    char path[512];
    trm_package *p;
    trm_evaluator ev;
    trm_tensor inputs[16];

    snprintf(path, sizeof(path), "%s/tests/data/networks/%s/model.onnx", TRM_SOURCE_DIR,
             networks[i].name);
    OK(trm_package_open(path, &p));
    OK(trm_evaluator_create(device, &ev));
    OK(finished ? trm_pass_all(p->graph, &ev) : trm_pass_prepare(p->graph, &ev));
    trm_evaluator_destroy(&ev);
    trm_shapes_inputs(p->graph, batch, networks[i].other, inputs);
    show_all(p->graph);
    compare(p->graph, inputs, networks[i].bounds, networks[i].name);
    trm_package_close(p);
}

START_TEST(networks_prepared)
{
    network(_i, false, 1);
    network(_i, false, 3);
}
END_TEST

START_TEST(networks_finished)
{
    network(_i, true, 2);
}
END_TEST

/* ---- made graphs ---- */

static int make(trm_graph *g, trm_op op, const int *in, int n, const char *name)
{
    int v, at;

    OK(trm_graph_add_value(g, name, NULL, &v));
    OK(trm_graph_add_node(g, op, name, in, n, &v, 1, &at));
    return v;
}

static int given(trm_graph *g, const char *name, trm_dtype dtype, int rank, const int64_t *dims)
{
    trm_tensor t = {.dtype = dtype, .rank = rank};
    int v;

    memcpy(t.dims, dims, (size_t)rank * sizeof(int64_t));
    OK(trm_graph_add_value(g, name, &t, &v));
    return v;
}

static int ints(trm_graph *g, const char *name, int64_t count, const int64_t *values)
{
    trm_tensor t = {
        .dtype = TRM_DTYPE_I64, .rank = 1, .dims = {count}, .data = (void *)(uintptr_t)values};
    int v;

    OK(trm_graph_add_constant(g, name, &t, &v));
    return v;
}

/* x [n, m] -> NonZero -> Transpose; Shape arithmetic: Reshape(x, Concat(Shape(x)[1:], [-1])) */
START_TEST(arithmetic_and_data)
{
    trm_graph *g;
    int64_t n, m;
    const int64_t one = 1, two = 2, minus = -1;
    int x, nz, nzt, shape, tail, target, y;

    OK(trm_graph_create(NULL, "made", &g));
    OK(trm_graph_symbol(g, "n", &n));
    OK(trm_graph_symbol(g, "m", &m));
    x = given(g, "x", TRM_DTYPE_F32, 2, (int64_t[]){n, m});
    nz = make(g, TRM_OP_NonZero, &x, 1, "nz");
    nzt = make(g, TRM_OP_Transpose, &nz, 1, "nzt");
    shape = make(g, TRM_OP_Shape, &x, 1, "shape");
    tail = make(g, TRM_OP_Slice, (int[]){shape, ints(g, "one", 1, &one), ints(g, "two", 1, &two)},
                3, "tail");
    target = make(g, TRM_OP_Concat, (int[]){tail, ints(g, "minus", 1, &minus)}, 2, "target");
    OK(trm_attr_set_int(&g->nodes[g->node_count - 1].attrs, g->arena, "axis", 0));
    y = make(g, TRM_OP_Reshape, (int[]){x, target}, 2, "y");
    OK(trm_graph_set_inputs(g, &x, 1));
    OK(trm_graph_set_outputs(g, (int[]){nzt, y}, 2));
    OK(trm_graph_sort(g));
    OK(trm_graph_infer(g));
    int symbols = g->symbol_count;
    trm_arena *arena;
    trm_tensor in[1], descs[32];

    OK(trm_arena_create(0, &arena));
    trm_shapes_inputs(g, 6, 4, in);
    ck_assert_int_eq(in[0].dims[0], 6);
    ck_assert_int_eq(in[0].dims[1], 4);
    OK(trm_shapes_bind(g, in, arena, descs));
    ck_assert_int_eq(descs[nz].dims[0], 2); /* the bound: no element is zero */
    ck_assert_int_eq(descs[nz].dims[1], 24);
    ck_assert_int_eq(descs[nzt].dims[0], 24);
    ck_assert_int_eq(descs[y].rank, 2);
    ck_assert_int_eq(descs[y].dims[0], 4);
    ck_assert_int_eq(descs[y].dims[1], 6);
    ck_assert_ptr_nonnull(descs[tail].data);
    ck_assert_int_eq(trm_tensor_get_i64(&descs[tail], 0), 4);
    ck_assert_int_eq(g->symbol_count, symbols); /* binding leaves the graph alone */
    show_all(g);
    compare(g, in, true, "made");
    trm_arena_destroy(arena);
    trm_graph_destroy(g);
}
END_TEST

/* If: branches of differing first dims; the second is told by the graph's symbol. */
START_TEST(bodies)
{
    trm_graph *g, *branch[2];
    int64_t n;
    int c, x, y, at;
    trm_arena *arena;
    trm_tensor in[2], descs[32];

    OK(trm_graph_create(NULL, "made", &g));
    OK(trm_graph_symbol(g, "n", &n));
    c = given(g, "c", TRM_DTYPE_BOOL, 0, (int64_t[]){0});
    x = given(g, "x", TRM_DTYPE_F32, 2, (int64_t[]){5, n});
    OK(trm_graph_add_value(g, "y", NULL, &y));
    OK(trm_graph_add_node(g, TRM_OP_If, "if", (int[]){c, x}, 2, &y, 1, &at));
    OK(trm_attr_set_int(&g->nodes[at].attrs, g->arena, "captures", 1));
    for (int i = 0; i < 2; i++) {
        trm_attr a = {.name = i == 0 ? "then_branch" : "else_branch", .kind = TRM_ATTR_GRAPH};
        int bx, by;

        OK(trm_graph_create(g, a.name, &branch[i]));
        bx = given(branch[i], "bx", TRM_DTYPE_F32, 2, (int64_t[]){5, n});
        by = i == 0 ? make(branch[i], TRM_OP_Relu, &bx, 1, "by")
                    : make(branch[i], TRM_OP_Concat, (int[]){bx, bx}, 2, "by");
        if (i == 1)
            OK(trm_attr_set_int(&branch[i]->nodes[0].attrs, g->arena, "axis", 0));
        OK(trm_graph_set_inputs(branch[i], &bx, 1));
        OK(trm_graph_set_outputs(branch[i], &by, 1));
        OK(trm_graph_sort(branch[i]));
        a.v.graph = branch[i];
        OK(trm_attr_set(&g->nodes[at].attrs, g->arena, &a));
    }
    OK(trm_graph_set_inputs(g, (int[]){c, x}, 2));
    OK(trm_graph_set_outputs(g, &y, 1));
    OK(trm_graph_sort(g));
    OK(trm_graph_infer(g));
    OK(trm_arena_create(0, &arena));
    trm_shapes_inputs(g, 1, 7, in);
    OK(trm_shapes_bind(g, in, arena, descs));
    ck_assert_int_eq(descs[y].rank, 2);
    ck_assert_int_eq(descs[y].dims[0], 1); /* 5 or 10: not known */
    ck_assert_int_eq(descs[y].dims[1], 7);
    ck_assert_int_eq(descs[y].dtype, TRM_DTYPE_F32);
    trm_arena_destroy(arena);
    trm_graph_destroy(g);
}
END_TEST

START_TEST(bad_inputs)
{
    trm_graph *g;
    int64_t n;
    int x, y, z;
    trm_arena *arena;
    trm_tensor in[2], descs[8];

    OK(trm_graph_create(NULL, "made", &g));
    OK(trm_graph_symbol(g, "n", &n));
    x = given(g, "x", TRM_DTYPE_F32, 2, (int64_t[]){n, 4});
    y = given(g, "y", TRM_DTYPE_F32, 2, (int64_t[]){TRM_DIM_UNKNOWN, n});
    z = make(g, TRM_OP_Add, (int[]){x, y}, 2, "z");
    OK(trm_graph_set_inputs(g, (int[]){x, y}, 2));
    OK(trm_graph_set_outputs(g, &z, 1));
    OK(trm_graph_sort(g));
    OK(trm_arena_create(0, &arena));
    trm_shapes_inputs(g, 3, 9, in);
    ck_assert_int_eq(in[1].dims[1], 3); /* a symbol has one value everywhere */
    in[1].dims[1] = 5;
    ck_assert_int_eq(trm_shapes_bind(g, in, arena, descs), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "'y': dim 1 is 5, the model wants 3"));
    in[1].dims[1] = 3; /* consistent with the inputs' symbols, but 4 and 3 do not broadcast */
    ck_assert_int_eq(trm_shapes_bind(g, in, arena, descs), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "node 'z'"));
    in[0].dtype = TRM_DTYPE_I64;
    ck_assert_int_eq(trm_shapes_bind(g, in, arena, descs), TRM_ERR_INVALID_ARG);
    in[0].dtype = TRM_DTYPE_F32;
    in[0].rank = 1;
    ck_assert_int_eq(trm_shapes_bind(g, in, arena, descs), TRM_ERR_INVALID_ARG);
    trm_arena_destroy(arena);
    trm_graph_destroy(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("parallel/shapes");
    TCase *t = tcase_create("all");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 100);
    tcase_add_loop_test(t, networks_prepared, 0, NETWORKS);
    tcase_add_loop_test(t, networks_finished, 0, NETWORKS);
    tcase_add_test(t, arithmetic_and_data);
    tcase_add_test(t, bodies);
    tcase_add_test(t, bad_inputs);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK); /* teams of threads do not survive a fork */
    if (trm_device_cpu_create(1, &device) != TRM_OK)
        return 1;
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    trm_device_destroy(device);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
