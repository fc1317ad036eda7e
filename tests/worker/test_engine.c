/* The executor: shape buckets, shape arithmetic, data-dependent shapes, bodies, input checks, no
 * allocation in a step. */
#include "tests/worker/engine_kit.h"

/* y = reshape(relu(x), [shape(x)[0] * 2, -1]) for x: [n, 4] */
static struct net reshape_net(void)
{
    trm_graph *g;
    int64_t n, zero = 0, two = 2, minus = -1;
    int x, parts[2], args[2], y;

    ck_assert_int_eq(trm_graph_create(NULL, "reshape", &g), TRM_OK);
    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    x = input(g, "x", TRM_DTYPE_F32, 2, (int64_t[]){n, 4});
    args[0] = node(g, TRM_OP_Shape, &x, 1, "shape");
    args[1] = constant_i64(g, "zero", 1, 1, &zero);
    args[0] = node(g, TRM_OP_Gather, args, 2, "first");
    args[1] = constant_i64(g, "two", 1, 1, &two);
    parts[0] = node(g, TRM_OP_Mul, args, 2, "twice");
    parts[1] = constant_i64(g, "minus", 1, 1, &minus);
    args[1] = node(g, TRM_OP_Concat, parts, 2, "target");
    ck_assert_int_eq(trm_attr_set_int(&g->nodes[g->node_count - 1].attrs, g->arena, "axis", 0),
                     TRM_OK);
    args[0] = node(g, TRM_OP_Relu, &x, 1, "relu");
    y = node(g, TRM_OP_Reshape, args, 2, "y");
    return finish(g, &x, 1, &y, 1);
}

START_TEST(shape_arithmetic_and_buckets)
{
    struct net net = reshape_net();
    float data[24];
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {3, 4}, .data = data}, y;
    trm_engine_stats stats;
    uint64_t calls;

    for (int i = 0; i < 24; i++)
        data[i] = (float)(i - 5);
    RUN(net, &x, &y);
    ck_assert_int_eq(y.dims[0], 6);
    ck_assert_int_eq(y.dims[1], 2);
    for (int i = 0; i < 12; i++)
        ck_assert_float_eq(((float *)y.data)[i], i < 5 ? 0.0f : (float)(i - 5));
    x.dims[0] = 6;
    RUN(net, &x, &y);
    ck_assert_int_eq(y.dims[0], 12);
    ck_assert_float_eq(((float *)y.data)[23], 18.0f);
    trm_engine_get_stats(net.e, &stats);
    ck_assert_int_eq(stats.programs, 2);
    calls = trm_alloc_calls();
    x.dims[0] = 3;
    RUN(net, &x, &y);
    x.dims[0] = 6;
    RUN(net, &x, &y);
    ck_assert_uint_eq(trm_alloc_calls(), calls); /* a repeated step allocates nothing */
    trm_engine_get_stats(net.e, &stats);
    ck_assert_int_eq(stats.programs, 2);
    drop(net);
}
END_TEST

START_TEST(refuses_wrong_inputs)
{
    struct net net = reshape_net();
    float data[24] = {0};
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {3, 5}, .data = data}, y;

    ck_assert_int_eq(trm_engine_run(net.e, &x, &y), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "[3, 5]"));
    ck_assert_ptr_nonnull(strstr(trm_message(), "[n, 4]"));
    x.dims[1] = 4;
    x.rank = 1;
    ck_assert_int_eq(trm_engine_run(net.e, &x, &y), TRM_ERR_INVALID_ARG);
    x.rank = 2;
    x.dtype = TRM_DTYPE_F64;
    ck_assert_int_eq(trm_engine_run(net.e, &x, &y), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "f32"));
    drop(net);
}
END_TEST

START_TEST(programs_are_bounded)
{
    struct net net = reshape_net();
    float *data = calloc(400, sizeof(float));
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {0, 4}, .data = data}, y;
    trm_engine_stats stats;

    for (int64_t n = 1; n <= 100; n++) {
        x.dims[0] = n;
        RUN(net, &x, &y);
        ck_assert_int_eq(y.dims[0], 2 * n);
    }
    trm_engine_get_stats(net.e, &stats);
    ck_assert_int_le(stats.programs, 16);
    free(data);
    drop(net);
}
END_TEST

/* y = relu(transpose(nonzero(x))): the second part is bound when the count is known */
START_TEST(data_dependent_shape)
{
    trm_graph *g;
    float data[6] = {0, 1, 0, 2, 3, 0};
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {6}, .data = data}, y;
    int in, v;
    struct net net;

    ck_assert_int_eq(trm_graph_create(NULL, "nonzero", &g), TRM_OK);
    in = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){6});
    v = node(g, TRM_OP_NonZero, &in, 1, "nz");
    v = node(g, TRM_OP_Transpose, &v, 1, "t");
    v = node(g, TRM_OP_Neg, &v, 1, "y");
    net = finish(g, &in, 1, &v, 1);
    RUN(net, &x, &y);
    ck_assert_int_eq(y.dims[0], 3);
    ck_assert_int_eq(y.dims[1], 1);
    ck_assert_int_eq(((int64_t *)y.data)[2], -4);
    data[0] = 7;
    RUN(net, &x, &y);
    ck_assert_int_eq(y.dims[0], 4);
    ck_assert_int_eq(((int64_t *)y.data)[0], 0);
    ck_assert_int_eq(((int64_t *)y.data)[3], -4);
    memset(data, 0, sizeof(data));
    RUN(net, &x, &y);
    ck_assert_int_eq(y.dims[0], 0);
    drop(net);
}
END_TEST

/* y = reshape(x, s) with s a graph input: its value is part of the key */
START_TEST(shape_from_an_input)
{
    trm_graph *g;
    float data[6] = {0, 1, 2, 3, 4, 5};
    int64_t s[2] = {2, 3};
    trm_tensor in[2] = {{.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {6}, .data = data},
                        {.dtype = TRM_DTYPE_I64, .rank = 1, .dims = {2}, .data = s}};
    trm_tensor y;
    int args[2], v;
    struct net net;

    ck_assert_int_eq(trm_graph_create(NULL, "reshape", &g), TRM_OK);
    args[0] = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){6});
    args[1] = input(g, "s", TRM_DTYPE_I64, 1, (int64_t[]){2});
    v = node(g, TRM_OP_Reshape, args, 2, "r");
    v = node(g, TRM_OP_Neg, &v, 1, "y");
    net = finish(g, args, 2, &v, 1);
    RUN(net, in, &y);
    ck_assert_int_eq(y.dims[1], 3);
    s[0] = 6;
    s[1] = 1;
    RUN(net, in, &y);
    ck_assert_int_eq(y.dims[0], 6);
    ck_assert_float_eq(((float *)y.data)[5], -5.0f);
    s[1] = 5;
    ck_assert_int_eq(trm_engine_run(net.e, in, &y), TRM_ERR_INVALID_ARG);
    s[1] = 1;
    RUN(net, in, &y); /* a failed step leaves the engine usable */
    drop(net);
}
END_TEST

/* y = c ? -x : x + x */
START_TEST(if_takes_a_branch)
{
    trm_graph *g, *yes, *no;
    float data[2] = {1, 2};
    unsigned char flag = 1;
    trm_tensor in[2] = {{.dtype = TRM_DTYPE_BOOL, .rank = 0, .data = &flag},
                        {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {2}, .data = data}};
    trm_tensor y;
    int args[2], x, v, twice[2];
    struct net net;

    ck_assert_int_eq(trm_graph_create(NULL, "if", &g), TRM_OK);
    args[0] = input(g, "c", TRM_DTYPE_BOOL, 0, NULL);
    args[1] = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){2});
    v = node(g, TRM_OP_If, args, 2, "picked");
    ck_assert_int_eq(trm_attr_set_int(&g->nodes[0].attrs, g->arena, "captures", 1), TRM_OK);
    yes = body(g, "yes");
    x = input(yes, "x", TRM_DTYPE_F32, 1, (int64_t[]){2});
    twice[0] = node(yes, TRM_OP_Neg, &x, 1, "neg");
    ck_assert_int_eq(trm_graph_set_inputs(yes, &x, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(yes, twice, 1), TRM_OK);
    no = body(g, "no");
    x = input(no, "x", TRM_DTYPE_F32, 1, (int64_t[]){2});
    twice[0] = twice[1] = x;
    twice[0] = node(no, TRM_OP_Add, twice, 2, "sum");
    ck_assert_int_eq(trm_graph_set_inputs(no, &x, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(no, twice, 1), TRM_OK);
    set_graph(g, &g->nodes[0], "then_branch", yes);
    set_graph(g, &g->nodes[0], "else_branch", no);
    v = node(g, TRM_OP_Abs, &v, 1, "y");
    net = finish(g, args, 2, &v, 1);
    RUN(net, in, &y);
    ck_assert_float_eq(((float *)y.data)[1], 2.0f);
    flag = 0;
    RUN(net, in, &y);
    ck_assert_float_eq(((float *)y.data)[1], 4.0f);
    drop(net);
}
END_TEST

/* Fibonacci by a body that swaps its carried values: (a, b) -> (b, a + b), scanning a */
START_TEST(loop_carries_and_stacks)
{
    trm_graph *g, *b;
    int64_t trips = 10, a0 = 0, b0 = 1;
    trm_tensor in[3] = {{.dtype = TRM_DTYPE_I64, .rank = 0, .data = &trips},
                        {.dtype = TRM_DTYPE_I64, .rank = 0, .data = &a0},
                        {.dtype = TRM_DTYPE_I64, .rank = 0, .data = &b0}};
    trm_tensor out[3];
    int args[4], outs[3], ins[4], results[4], sum[2];
    struct net net;

    ck_assert_int_eq(trm_graph_create(NULL, "loop", &g), TRM_OK);
    args[0] = input(g, "trips", TRM_DTYPE_I64, 0, NULL);
    args[1] = TRM_NO_VALUE;
    args[2] = input(g, "a0", TRM_DTYPE_I64, 0, NULL);
    args[3] = input(g, "b0", TRM_DTYPE_I64, 0, NULL);
    outs[0] = value(g, "a");
    outs[1] = value(g, "b");
    outs[2] = value(g, "all");
    ck_assert_int_eq(trm_graph_add_node(g, TRM_OP_Loop, "loop", args, 4, outs, 3, NULL), TRM_OK);
    b = body(g, "body");
    ins[0] = input(b, "i", TRM_DTYPE_I64, 0, NULL);
    ins[1] = input(b, "go", TRM_DTYPE_BOOL, 0, NULL);
    ins[2] = input(b, "a", TRM_DTYPE_I64, 0, NULL);
    ins[3] = input(b, "b", TRM_DTYPE_I64, 0, NULL);
    sum[0] = ins[2];
    sum[1] = ins[3];
    results[0] = ins[1];
    results[1] = ins[3];
    results[2] = node(b, TRM_OP_Add, sum, 2, "sum");
    results[3] = ins[2];
    ck_assert_int_eq(trm_graph_set_inputs(b, ins, 4), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(b, results, 4), TRM_OK);
    set_graph(g, &g->nodes[0], "body", b);
    net = finish(g, (int[]){args[0], args[2], args[3]}, 3, outs, 3);
    RUN(net, in, out);
    ck_assert_int_eq(*(int64_t *)out[0].data, 55);
    ck_assert_int_eq(*(int64_t *)out[1].data, 89);
    ck_assert_int_eq(out[2].dims[0], 10);
    ck_assert_int_eq(((int64_t *)out[2].data)[9], 34);
    trips = 0;
    RUN(net, in, out);
    ck_assert_int_eq(*(int64_t *)out[0].data, 0);
    ck_assert_int_eq(out[2].dims[0], 0);
    drop(net);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("engine");
    TCase *t = tcase_create("engine");
    SRunner *r;
    int failed;

    if (trm_device_cpu_create(2, &device) != TRM_OK)
        return EXIT_FAILURE;
    tcase_add_test(t, shape_arithmetic_and_buckets);
    tcase_add_test(t, refuses_wrong_inputs);
    tcase_add_test(t, programs_are_bounded);
    tcase_add_test(t, data_dependent_shape);
    tcase_add_test(t, shape_from_an_input);
    tcase_add_test(t, if_takes_a_branch);
    tcase_add_test(t, loop_carries_and_stacks);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK); /* OpenMP does not survive a fork */
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    trm_device_destroy(device);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
