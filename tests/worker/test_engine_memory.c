/* The executor's memory: what aliases what, empty tensors, eviction, allocations that fail. */
#include "tests/worker/engine_kit.h"

static int constant_f32(trm_graph *g, const char *name, int rows, int columns)
{
    static float values[64];
    trm_tensor t = {
        .dtype = TRM_DTYPE_F32, .rank = 2, .dims = {rows, columns}, .data = (void *)values};
    int v;

    for (int i = 0; i < 64; i++)
        values[i] = (float)(i % 5);
    ck_assert_int_eq(trm_graph_add_constant(g, name, &t, &v), TRM_OK);
    return v;
}

static trm_graph *new_graph(const char *name)
{
    trm_graph *g;

    ck_assert_int_eq(trm_graph_create(NULL, name, &g), TRM_OK);
    return g;
}

/* updates and data are one tensor: the scatter must not write where it still reads */
START_TEST(scatter_of_itself)
{
    trm_graph *g = new_graph("scatter");
    float data[3] = {-1, -2, -3};
    int64_t where[3] = {1, 2, 0};
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {3}, .data = data}, y;
    int in = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){3}), args[3], v;
    struct net net;

    args[0] = args[2] = node(g, TRM_OP_Neg, &in, 1, "neg");
    args[1] = constant_i64(g, "where", 1, 3, where);
    v = node(g, TRM_OP_ScatterElements, args, 3, "y");
    net = finish(g, &in, 1, &v, 1);
    RUN(net, &x, &y);
    ck_assert_float_eq(((float *)y.data)[0], 3);
    ck_assert_float_eq(((float *)y.data)[1], 1);
    ck_assert_float_eq(((float *)y.data)[2], 2);
    drop(net);
}
END_TEST

/* (r + b) * r: fused, the second reading of r comes after the sum is written */
START_TEST(post_reads_the_input_again)
{
    trm_graph *g = new_graph("post");
    float data[4] = {1, 2, 3, 4}, other[4] = {10, 20, 30, 40};
    trm_tensor in[2] = {{.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {4}, .data = data},
                        {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {4}, .data = other}};
    trm_tensor y;
    int ins[2], args[2], r, v;
    struct net net;

    ins[0] = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){4});
    ins[1] = input(g, "b", TRM_DTYPE_F32, 1, (int64_t[]){4});
    r = node(g, TRM_OP_Exp, &ins[0], 1, "e");
    r = node(g, TRM_OP_Log, &r, 1, "r");
    args[0] = r;
    args[1] = ins[1];
    args[0] = node(g, TRM_OP_Add, args, 2, "sum");
    args[1] = r;
    v = node(g, TRM_OP_Mul, args, 2, "y");
    net = finish(g, ins, 2, &v, 1);
    RUN(net, in, &y);
    for (int i = 0; i < 4; i++)
        ck_assert_float_eq_tol(((float *)y.data)[i], (data[i] + other[i]) * data[i], 1e-3f);
    drop(net);
}
END_TEST

/* outputs stay until the next run, whatever becomes of the inputs */
START_TEST(outputs_that_are_inputs)
{
    trm_graph *g = new_graph("alias");
    float data[4] = {1, 2, 3, 4};
    int64_t shape[2] = {2, 2};
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {4}, .data = data}, y[3];
    int in = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){4}), args[2], outs[3];
    struct net net;
    uint64_t calls;

    args[0] = in;
    args[1] = constant_i64(g, "shape", 1, 2, shape);
    outs[0] = in;
    outs[1] = node(g, TRM_OP_Reshape, args, 2, "view");
    outs[2] = node(g, TRM_OP_Neg, &in, 1, "neg");
    net = finish(g, &in, 1, outs, 3);
    RUN(net, &x, y);
    calls = trm_alloc_calls();
    RUN(net, &x, y);
    ck_assert_uint_eq(trm_alloc_calls(), calls);
    memset(data, 0, sizeof(data));
    ck_assert_float_eq(((float *)y[0].data)[3], 4);
    ck_assert_float_eq(((float *)y[1].data)[3], 4);
    ck_assert_int_eq(y[1].dims[1], 2);
    ck_assert_float_eq(((float *)y[2].data)[3], -4);
    drop(net);
}
END_TEST

START_TEST(empty_and_missing_data)
{
    trm_graph *g = new_graph("empty");
    float data[2] = {1, 2};
    trm_tensor in[2] = {{.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {0}, .data = NULL},
                        {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = data}};
    trm_tensor y;
    int64_t n, m;
    int ins[2], v;
    struct net net;

    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    ck_assert_int_eq(trm_graph_symbol(g, "m", &m), TRM_OK);
    ins[0] = input(g, "a", TRM_DTYPE_F32, 1, (int64_t[]){n});
    ins[1] = input(g, "b", TRM_DTYPE_F32, 1, (int64_t[]){m});
    v = node(g, TRM_OP_Concat, ins, 2, "cat");
    ck_assert_int_eq(trm_attr_set_int(&g->nodes[0].attrs, g->arena, "axis", 0), TRM_OK);
    v = node(g, TRM_OP_Neg, &v, 1, "y");
    net = finish(g, ins, 2, &v, 1);
    RUN(net, in, &y);
    ck_assert_int_eq(y.dims[0], 2);
    ck_assert_float_eq(((float *)y.data)[1], -2);
    in[1].dims[0] = 0;
    RUN(net, in, &y);
    ck_assert_int_eq(y.dims[0], 0);
    in[0].dims[0] = 3; /* three elements nowhere */
    ck_assert_int_eq(trm_engine_run(net.e, in, &y), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "'a' has no data"));
    drop(net);
}
END_TEST

/* an input that nothing reads binds no symbol */
START_TEST(unread_input)
{
    trm_graph *g = new_graph("unread");
    float data[2] = {1, 2};
    trm_tensor in[2] = {{.dtype = TRM_DTYPE_F32, .rank = 0, .data = data},
                        {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = data}};
    trm_tensor y;
    int64_t n;
    int ins[2], v;
    struct net net;

    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    ins[0] = input(g, "unread", TRM_DTYPE_F32, 1, (int64_t[]){n});
    ins[1] = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){n});
    v = node(g, TRM_OP_Neg, &ins[1], 1, "y");
    net = finish(g, ins, 2, &v, 1);
    RUN(net, in, &y);
    ck_assert_float_eq(((float *)y.data)[1], -2);
    drop(net);
}
END_TEST

/* x @ (w * rows of x): weights known only when bound, so packed for one program and gone with it */
static struct net weights_net(void)
{
    trm_graph *g = new_graph("weights");
    int64_t n;
    int x, args[2], v;

    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    x = input(g, "x", TRM_DTYPE_F32, 2, (int64_t[]){n, 8});
    v = node(g, TRM_OP_Size, &x, 1, "size");
    v = node(g, TRM_OP_Cast, &v, 1, "float");
    ck_assert_int_eq(
        trm_attr_set_int(&g->nodes[g->node_count - 1].attrs, g->arena, "to", 1 /* FLOAT */),
        TRM_OK);
    args[0] = constant_f32(g, "w", 8, 8);
    args[1] = v;
    args[1] = node(g, TRM_OP_Mul, args, 2, "scaled");
    args[0] = x;
    v = node(g, TRM_OP_MatMul, args, 2, "a");
    args[0] = v;
    args[1] = constant_f32(g, "w2", 8, 8);
    v = node(g, TRM_OP_MatMul, args, 2, "y");
    return finish(g, &x, 1, &v, 1);
}

START_TEST(dropped_programs_take_their_weights_along)
{
    struct net net = weights_net();
    static float data[64 * 8];
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {0, 8}, .data = data}, y;
    trm_engine_options options = {.programs_max = 2};
    trm_engine_stats stats;
    int64_t live = 0;

    trm_engine_destroy(net.e);
    ck_assert_int_eq(trm_engine_create(net.g, device, &options, &net.e), TRM_OK);
    for (int64_t n = 17; n <= 48; n++) {
        x.dims[0] = n;
        RUN(net, &x, &y);
        trm_engine_get_stats(net.e, &stats); /* of a run whose program may be the next to go */
        ck_assert_int_le(stats.programs, 2);
        if (n == 32)
            live = trm_alloc_live();
    }
    ck_assert_int_le(trm_alloc_live(), live);
    drop(net);
}
END_TEST

/* NonZero three times in a row: each count is known only when the run is there */
static struct net chain_net(void)
{
    trm_graph *g = new_graph("chain");
    int in = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){16}), v = in;

    for (int i = 0; i < 3; i++) {
        char name[2][8] = {"nz0", "t0"};

        name[0][2] = name[1][1] = (char)('0' + i);
        v = node(g, TRM_OP_NonZero, &v, 1, name[0]);
        v = node(g, TRM_OP_Transpose, &v, 1, name[1]);
    }
    v = node(g, TRM_OP_Neg, &v, 1, "y");
    return finish(g, &in, 1, &v, 1);
}

START_TEST(tails_are_bounded)
{
    struct net net = chain_net();
    float data[16];
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {16}, .data = data}, y;
    trm_engine_options options = {.programs_max = 3};
    trm_engine_stats stats;
    unsigned seed = 1;

    trm_engine_destroy(net.e);
    ck_assert_int_eq(trm_engine_create(net.g, device, &options, &net.e), TRM_OK);
    for (int run = 0; run < 300; run++) {
        int64_t count = 0, second = 0;

        for (int i = 0; i < 16; i++) {
            seed = seed * 1103515245u + 12345u;
            data[i] = (seed >> 16) % 3 == 0 ? 1.0f : 0.0f;
            count += data[i] != 0;
            second += i > 0 && data[i] != 0;
        }
        RUN(net, &x, &y);
        /* the second NonZero sees [count, 1] indices, of which index 0 is not one */
        ck_assert_int_eq(y.dims[1], 2);
        ck_assert_int_le(y.dims[0], 2 * count);
        ck_assert_int_le(second, count);
        trm_engine_get_stats(net.e, &stats);
        ck_assert_int_le(stats.segments, 3 * 8 + 4);
    }
    drop(net);
}
END_TEST

/* a body whose carried value doubles in each iteration */
static struct net growing_net(trm_dtype condition)
{
    trm_graph *g = new_graph("grow"), *b;
    int args[3], ins[3], results[2], twice[2], out, c;
    int64_t n;

    args[0] = input(g, "trips", TRM_DTYPE_I64, 0, NULL);
    args[1] = TRM_NO_VALUE;
    args[2] = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){2});
    out = node(g, TRM_OP_Loop, args, 3, "loop");
    b = body(g, "body");
    ck_assert_int_eq(trm_graph_symbol(b, "n", &n), TRM_OK);
    ins[0] = input(b, "i", TRM_DTYPE_I64, 0, NULL);
    ins[1] = input(b, "go", TRM_DTYPE_BOOL, 0, NULL);
    ins[2] = input(b, "t", TRM_DTYPE_F32, 1, (int64_t[]){n});
    twice[0] = twice[1] = ins[2];
    results[1] = node(b, TRM_OP_Concat, twice, 2, "twice");
    ck_assert_int_eq(trm_attr_set_int(&b->nodes[0].attrs, b->arena, "axis", 0), TRM_OK);
    c = condition == TRM_DTYPE_BOOL ? ins[1] : ins[0];
    results[0] = c;
    ck_assert_int_eq(trm_graph_set_inputs(b, ins, 3), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(b, results, 2), TRM_OK);
    set_graph(g, &g->nodes[0], "body", b);
    out = node(g, TRM_OP_Neg, &out, 1, "y");
    return finish(g, (int[]){args[0], args[2]}, 2, &out, 1);
}

START_TEST(loop_grows)
{
    struct net net = growing_net(TRM_DTYPE_BOOL);
    int64_t trips = 0;
    float data[2] = {1, 2};
    trm_tensor in[2] = {{.dtype = TRM_DTYPE_I64, .rank = 0, .data = &trips},
                        {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = data}};
    trm_tensor y;

    for (int pass = 0; pass < 2; pass++) {
        for (trips = 5; trips >= 0; trips--) {
            RUN(net, in, &y);
            ck_assert_int_eq(y.dims[0], 2 << trips);
            ck_assert_float_eq(((float *)y.data)[(2 << trips) - 1], -2);
            ck_assert_float_eq(((float *)y.data)[(2 << trips) - 2], -1);
        }
    }
    drop(net);
}
END_TEST

START_TEST(loop_wants_a_bool)
{
    struct net net = growing_net(TRM_DTYPE_I64);
    int64_t trips = 3;
    float data[2] = {1, 2};
    trm_tensor in[2] = {{.dtype = TRM_DTYPE_I64, .rank = 0, .data = &trips},
                        {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = data}};
    trm_tensor y;

    ck_assert_int_eq(trm_engine_run(net.e, in, &y), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "wants one bool"));
    trips = 0;
    RUN(net, in, &y);
    ck_assert_int_eq(y.dims[0], 2);
    drop(net);
}
END_TEST

/* every allocation of a first run fails once: the run says so, the next one is right, and nothing
 * is left behind */
START_TEST(allocations_fail)
{
    static float data[16 * 8];
    int64_t trips = 2;
    trm_tensor in[2] = {{.dtype = TRM_DTYPE_I64, .rank = 0, .data = &trips},
                        {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = data}};
    trm_tensor y;
    bool through = false;
    int64_t want = 0;
    int64_t live = trm_alloc_live();

    for (int i = 0; i < 16 * 8; i++)
        data[i] = (float)(i % 3);
    if (_i == 0)
        in[0] = (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {16, 8}, .data = data};
    if (_i == 1)
        in[0] = (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {16}, .data = data};
    for (int64_t n = 0; !through; n++) {
        struct net net = _i == 0   ? weights_net()
                         : _i == 1 ? chain_net()
                                   : growing_net(TRM_DTYPE_BOOL);
        trm_status st;

        ck_assert_int_lt(n, 2000);
        if (n == 0) { /* what it should be */
            RUN(net, in, &y);
            want = y.dims[0];
            drop(net);
            continue;
        }
        trm_alloc_fail_after(n - 1);
        st = trm_engine_run(net.e, in, &y);
        through = st == TRM_OK;
        ck_assert_msg(through || st == TRM_ERR_NO_MEMORY, "allocation %d: %s", (int)n,
                      trm_message());
        trm_alloc_fail_after(-1);
        RUN(net, in, &y);
        ck_assert_int_eq(y.dims[0], want);
        RUN(net, in, &y);
        drop(net);
        ck_assert_int_eq(trm_alloc_live(), live);
    }
}
END_TEST

/* more inputs than a mask has bits */
START_TEST(many_inputs)
{
    trm_graph *g = new_graph("many");
    float data[2] = {1, 2};
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = data}, y;
    int64_t one = 1;
    int in = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){2}), args[40], v;
    struct net net;

    for (int i = 0; i < 40; i++) {
        char name[8] = {'c', (char)('a' + i / 10), (char)('0' + i % 10)};

        args[i] = constant_i64(g, name, 1, 1, &one);
    }
    v = node(g, TRM_OP_Concat, args, 40, "ones"); /* folded */
    ck_assert_int_eq(trm_attr_set_int(&g->nodes[0].attrs, g->arena, "axis", 0), TRM_OK);
    for (int i = 0; i < 40; i++)
        args[i] = in;
    args[0] = node(g, TRM_OP_Neg, &in, 1, "neg");
    args[0] = node(g, TRM_OP_Sum, args, 40, "sum");
    args[1] = v;
    args[0] = node(g, TRM_OP_Neg, args, 1, "y");
    net = finish(g, &in, 1, (int[]){args[0], v}, 2);
    {
        trm_tensor both[2];

        RUN(net, &x, both);
        y = both[0];
        ck_assert_int_eq(both[1].dims[0], 40);
    }
    ck_assert_float_eq(((float *)y.data)[1], -76);
    drop(net);
}
END_TEST

/* ---- weights that other processes share ---- */

static int asked;

static void *count_and_refuse(trm_weight_store *s, uint64_t key, const char *form, size_t bytes,
                              bool *ready_out)
{
    (void)s;
    (void)form;
    (void)bytes;
    ck_assert_uint_ne(key & TRM_WEIGHT_SHARED_KEY, 0);
    *ready_out = false;
    asked++;
    return NULL;
}

/* The numbers of an engine without a space (a branch, a loop's body) depend on what its process ran
 * before: under such a key another process's weights would be found. */
START_TEST(only_named_weights_are_shared)
{
    trm_weight_store store = {.get = count_and_refuse};
    trm_tensor shape = {.dtype = TRM_DTYPE_F32, .rank = 4, .dims = {8, 8, 3, 3}}, x, y;
    static float weights[8 * 8 * 9], data[8 * 36];

    x = (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 4, .dims = {1, 8, 6, 6}, .data = (void *)data};
    shape.data = (void *)weights;
    device->weights = &store;
    for (uint64_t space = 0; space < 2; space++) {
        trm_graph *g = new_graph("shared");
        int args[2], v;
        struct net net;

        args[0] = input(g, "x", TRM_DTYPE_F32, 4, (int64_t[]){1, 8, 6, 6});
        ck_assert_int_eq(trm_graph_add_constant(g, "w", &shape, &args[1]), TRM_OK);
        v = node(g, TRM_OP_Conv, args, 2, "y");
        net = finish(g, args, 1, &v, 1);
        trm_engine_destroy(net.e);
        asked = 0;
        ck_assert_int_eq(
            trm_engine_create(g, device, &(trm_engine_options){.weight_space = space}, &net.e),
            TRM_OK);
        RUN(net, &x, &y);
        ck_assert_int_eq(asked, (int)space);
        drop(net);
    }
    device->weights = NULL;
}
END_TEST

int main(void)
{
    Suite *s = suite_create("engine memory");
    TCase *t = tcase_create("engine memory");
    SRunner *r;
    int failed;

    if (trm_device_cpu_create(2, &device) != TRM_OK)
        return EXIT_FAILURE;
    tcase_set_timeout(t, 60);
    tcase_add_test(t, scatter_of_itself);
    tcase_add_test(t, post_reads_the_input_again);
    tcase_add_test(t, outputs_that_are_inputs);
    tcase_add_test(t, empty_and_missing_data);
    tcase_add_test(t, unread_input);
    tcase_add_test(t, dropped_programs_take_their_weights_along);
    tcase_add_test(t, tails_are_bounded);
    tcase_add_test(t, loop_grows);
    tcase_add_test(t, loop_wants_a_bool);
    tcase_add_loop_test(t, allocations_fail, 0, 3);
    tcase_add_test(t, many_inputs);
    tcase_add_test(t, only_named_weights_are_shared);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK); /* OpenMP does not survive a fork */
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    trm_device_destroy(device);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
