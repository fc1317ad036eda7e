/* Graph passes on small graphs built here: what is left afterwards. Numbers are checked where a
 * device is at hand (tests/worker). */
#include "model/passes/passes.h"
#include "model/shape/shape.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static trm_graph *g;

static void setup(void)
{
    ck_assert_int_eq(trm_graph_create(NULL, "g", &g), TRM_OK);
}

static void teardown(void)
{
    trm_graph_destroy(g);
    g = NULL;
}

static int shaped(const char *name, trm_dtype dtype, int rank, const int64_t *dims)
{
    trm_tensor t = {.dtype = dtype, .rank = rank};
    int v;

    for (int i = 0; i < rank; i++)
        t.dims[i] = dims[i];
    ck_assert_int_eq(trm_graph_add_value(g, name, &t, &v), TRM_OK);
    return v;
}

#define DIMS(...)                                                                                  \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (int64_t[])                                       \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

static int input(const char *name, int rank, const int64_t *dims)
{
    int v = shaped(name, TRM_DTYPE_F32, rank, dims), all[8], n = g->input_count;

    for (int i = 0; i < n; i++)
        all[i] = g->inputs[i];
    all[n] = v;
    ck_assert_int_eq(trm_graph_set_inputs(g, all, n + 1), TRM_OK);
    return v;
}

static int constant(float fill, int rank, const int64_t *dims)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = rank};
    size_t n = 1;
    int v;

    for (int i = 0; i < rank; i++) {
        t.dims[i] = dims[i];
        n *= (size_t)dims[i];
    }
    t.data = malloc(n * 4);
    for (size_t i = 0; i < n; i++)
        ((float *)t.data)[i] = fill;
    ck_assert_int_eq(trm_graph_add_constant(g, trm_graph_fresh_name(g, "c"), &t, &v), TRM_OK);
    free(t.data);
    return v;
}

static int scalar(float value)
{
    return constant(value, 0, NULL);
}

static int ints(int count, const int64_t *values)
{
    trm_tensor t = {
        .dtype = TRM_DTYPE_I64, .rank = 1, .dims = {count}, .data = (void *)(uintptr_t)values};
    int v;

    ck_assert_int_eq(trm_graph_add_constant(g, trm_graph_fresh_name(g, "i"), &t, &v), TRM_OK);
    return v;
}

static int node_of(trm_op op, int count, const int *in)
{
    char *name = trm_graph_fresh_name(g, trm_op_get(op)->name);
    int v;

    ck_assert_int_eq(trm_graph_add_value(g, name, NULL, &v), TRM_OK);
    ck_assert_int_eq(trm_graph_add_node(g, op, name, in, count, &v, 1, NULL), TRM_OK);
    return v;
}

#define NODE(op, ...)                                                                              \
    node_of(TRM_OP_##op, (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), (int[]){__VA_ARGS__})

static trm_node *last(void)
{
    return &g->nodes[g->node_count - 1];
}

static void attr(const char *name, int64_t value)
{
    ck_assert_int_eq(trm_attr_set_int(&last()->attrs, g->arena, name, value), TRM_OK);
}

static void attr_list(const char *name, int count, const int64_t *values)
{
    ck_assert_int_eq(trm_attr_set_ints(&last()->attrs, g->arena, name, values, (size_t)count),
                     TRM_OK);
}

/* Graph outputs, then sort and infer. */
static void finish(int out)
{
    ck_assert_int_eq(trm_graph_set_outputs(g, &out, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_sort(g), TRM_OK);
    ck_assert_msg(trm_graph_infer(g) == TRM_OK, "%s", trm_message());
}

static void fuse(void)
{
    ck_assert_msg(trm_pass_fuse(g) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_pass_posts(g) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_graph_infer(g) == TRM_OK, "%s", trm_message());
}

/* "Conv+Add+Relu Gelu": operators in order, posts after a plus. */
static void expect(const char *want)
{
    char got[400] = "";

    for (int n = 0; n < g->node_count; n++) {
        if (n > 0)
            strcat(got, " ");
        strcat(got, trm_op_get(g->nodes[n].op)->name);
        for (int p = 0; p < g->nodes[n].post_count; p++) {
            strcat(got, "+");
            strcat(got, trm_op_get(g->nodes[n].posts[p].op)->name);
        }
    }
    ck_assert_str_eq(got, want);
}

/* ---- fusion ---- */

START_TEST(conv_norm_relu)
{
    int x = input("x", DIMS(1, 3, 8, 8)), c, b;

    c = NODE(Conv, x, constant(1, DIMS(4, 3, 3, 3)));
    b = NODE(BatchNormalization, c, constant(2, DIMS(4)), constant(3, DIMS(4)),
             constant(1, DIMS(4)), constant(4, DIMS(4)));
    ck_assert_int_eq(trm_attr_set_float(&last()->attrs, g->arena, "epsilon", 0), TRM_OK);
    finish(NODE(Relu, b));
    fuse();
    expect("Conv+Relu");
    ck_assert_int_eq(g->nodes[0].input_count, 3);
    ck_assert_float_eq_tol(((float *)g->values[g->nodes[0].inputs[1]].desc.data)[5], 1, 1e-6F);
    ck_assert_float_eq_tol(((float *)g->values[g->nodes[0].inputs[2]].desc.data)[3], 2, 1e-6F);
    ck_assert_int_eq(g->nodes[0].outputs[0], g->outputs[0]);
}
END_TEST

START_TEST(residual)
{
    int64_t n;
    int x, a, b;

    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    x = input("x", DIMS(n, 4, 8, 8));
    a = NODE(Conv, x, constant(1, DIMS(4, 4, 1, 1)));
    b = NODE(Conv, x, constant(1, DIMS(4, 4, 1, 1)));
    finish(NODE(Clip, NODE(Add, a, b), scalar(0), scalar(6)));
    fuse();
    expect("Conv Conv+Add+Clip");
    ck_assert_int_eq(g->nodes[1].posts[0].input, 3); /* after data, weight, bias */
    ck_assert_int_eq(g->nodes[1].input_count, 4);
    ck_assert_int_eq(g->nodes[1].inputs[2], TRM_NO_VALUE);
    ck_assert_float_eq_tol(g->nodes[1].posts[1].beta, 6, 1e-6F);
}
END_TEST

START_TEST(transposed_groups)
{
    int x = input("x", DIMS(1, 4, 5)), c, m;
    float *w;

    c = NODE(ConvTranspose, x, constant(1, DIMS(4, 3, 2)));
    attr("group", 2);
    m = constant(1, DIMS(6, 1));
    for (int i = 0; i < 6; i++)
        ((float *)g->values[m].desc.data)[i] = (float)i;
    finish(NODE(Mul, m, c));
    fuse();
    expect("ConvTranspose");
    w = (float *)g->values[g->nodes[0].inputs[1]].desc.data; /* [4, 3, 2] */
    ck_assert_float_eq_tol(w[0 * 6 + 2 * 2], 2, 1e-6F);      /* group 0, channel 2 */
    ck_assert_float_eq_tol(w[1 * 6 + 1 * 2], 1, 1e-6F);
    ck_assert_float_eq_tol(w[2 * 6 + 0 * 2], 3, 1e-6F); /* group 1, channel 3 */
    ck_assert_float_eq_tol(w[3 * 6 + 2 * 2 + 1], 5, 1e-6F);
}
END_TEST

START_TEST(padding)
{
    int x = input("x", DIMS(1, 3, 8, 8));

    finish(NODE(Conv, NODE(Pad, x, ints(8, (int64_t[]){0, 0, 1, 2, 0, 0, 3, 4})),
                constant(1, DIMS(4, 3, 3, 3))));
    fuse();
    expect("Conv");
    ck_assert_int_eq(g->values[g->outputs[0]].desc.dims[2], 10);
    ck_assert_int_eq(g->values[g->outputs[0]].desc.dims[3], 12);
}
END_TEST

START_TEST(matmul_bias_gelu)
{
    int64_t n, s;
    int x, y;

    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    ck_assert_int_eq(trm_graph_symbol(g, "s", &s), TRM_OK);
    x = input("x", DIMS(n, s, 8));
    y = NODE(Add, constant(1, DIMS(16)), NODE(MatMul, x, constant(1, DIMS(8, 16))));
    if (_i == 0) { /* PyTorch */
        int e = NODE(Add, NODE(Erf, NODE(Div, y, scalar(1.41421354F))), scalar(1));

        y = NODE(Mul, NODE(Mul, y, e), scalar(0.5F));
    } else if (_i == 1) { /* TensorFlow */
        int e = NODE(Add, scalar(1), NODE(Erf, NODE(Mul, y, scalar(0.70710677F))));

        y = NODE(Mul, NODE(Mul, y, scalar(0.5F)), e);
    } else if (_i == 2) {
        int e = NODE(Add, scalar(1), NODE(Erf, NODE(Mul, y, scalar(0.70710677F))));

        y = NODE(Mul, NODE(Mul, scalar(0.5F), e), y);
    } else if (_i == 3) { /* tanh, with Pow */
        int c = NODE(Mul, NODE(Pow, y, scalar(3)), scalar(0.044715F));
        int t = NODE(Tanh, NODE(Mul, NODE(Add, y, c), scalar(0.7978845F)));

        y = NODE(Mul, NODE(Mul, y, scalar(0.5F)), NODE(Add, t, scalar(1)));
    } else { /* tanh, factored */
        int c = NODE(Add, NODE(Mul, NODE(Mul, y, scalar(0.044715F)), y), scalar(1));
        int t = NODE(Tanh, NODE(Mul, NODE(Mul, y, scalar(0.7978845F)), c));

        y = NODE(Mul, NODE(Mul, y, scalar(0.5F)), NODE(Add, t, scalar(1)));
    }
    finish(y);
    fuse();
    expect("MatMul+Add+Gelu");
    ck_assert_int_eq(g->nodes[0].posts[0].input, 2);
    ck_assert_float_eq_tol(g->nodes[0].posts[1].alpha, (_i > 2 ? 1.0F : 0.0F), 1e-6F);
}
END_TEST

START_TEST(silu_and_hard_swish)
{
    int x = input("x", DIMS(1, 4, 8, 8)), y;

    y = NODE(Conv, x, constant(1, DIMS(4, 4, 1, 1)));
    y = NODE(Mul, y, NODE(Sigmoid, y));
    y = NODE(Conv, y, constant(1, DIMS(4, 4, 1, 1)));
    y = NODE(Div, NODE(Mul, y, NODE(Clip, NODE(Add, y, scalar(3)), scalar(0), scalar(6))),
             scalar(6));
    y = NODE(Conv, y, constant(1, DIMS(4, 4, 1, 1)));
    y = NODE(Mul, NODE(Div, NODE(Clip, NODE(Add, y, scalar(3)), scalar(0), scalar(6)), scalar(6)),
             y);
    finish(y);
    fuse();
    expect("Conv+TrmSilu Conv+HardSwish Conv+HardSwish");
}
END_TEST

START_TEST(shared_values_stay)
{
    int x = input("x", DIMS(1, 4, 8, 8)), c, r, outs[2];

    c = NODE(Conv, x, constant(1, DIMS(4, 4, 1, 1)));
    r = NODE(Relu, c);
    finish(r);
    outs[0] = r;
    outs[1] = c; /* an output of the graph too */
    ck_assert_int_eq(trm_graph_set_outputs(g, outs, 2), TRM_OK);
    fuse();
    expect("Conv Relu");
}
END_TEST

START_TEST(layer_norm)
{
    int64_t n;
    int x, d, v, y;

    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    x = input("x", DIMS(n, 5, 8));
    d = NODE(Sub, x, NODE(ReduceMean, x, ints(1, (int64_t[]){-1})));
    v = _i == 0 ? NODE(Pow, d, scalar(2)) : NODE(Mul, d, d);
    v = NODE(Sqrt, NODE(Add, NODE(ReduceMean, v, ints(1, (int64_t[]){-1})), scalar(1e-5F)));
    y = _i < 2 ? NODE(Div, d, v) : NODE(Mul, d, NODE(Reciprocal, v));
    y = NODE(Add, NODE(Mul, y, constant(1, DIMS(8))), constant(1, DIMS(8)));
    finish(y);
    fuse();
    expect("LayerNormalization");
    ck_assert_int_eq(trm_attr_int(&g->nodes[0].attrs, "axis", 0), 2);
    ck_assert_float_eq_tol(trm_attr_float(&g->nodes[0].attrs, "epsilon", 0), 1e-5F, 1e-9F);
}
END_TEST

START_TEST(rms_norm)
{
    int x = input("x", DIMS(2, 5, 8)), v;

    v = NODE(ReduceMean, NODE(Pow, x, scalar(2)), ints(1, (int64_t[]){2}));
    v = NODE(Sqrt, NODE(Add, v, scalar(1e-6F)));
    finish(NODE(Mul, constant(1, DIMS(8)), NODE(Div, x, v)));
    fuse();
    expect("RMSNormalization");
}
END_TEST

START_TEST(attention)
{
    int64_t n, s;
    int q, k, v, m, t;

    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    ck_assert_int_eq(trm_graph_symbol(g, "s", &s), TRM_OK);
    q = input("q", DIMS(n, 2, s, 8));
    k = input("k", 4, _i == 1 ? (int64_t[]){n, s, 2, 8} : (int64_t[]){n, 2, s, 8});
    v = input("v", DIMS(n, 2, s, 8));
    m = input("m", DIMS(n, 1, 1, s));
    k = NODE(Transpose, k);
    attr_list("perm", 4, _i == 1 ? (int64_t[]){0, 2, 3, 1} : (int64_t[]){0, 1, 3, 2});
    t = NODE(MatMul, q, k);
    t = _i == 0 ? NODE(Div, t, scalar(4)) : NODE(Mul, t, scalar(0.25F));
    if (_i != 2)
        t = NODE(Add, t, m);
    t = NODE(Softmax, t);
    attr("axis", _i == 1 ? 3 : -1);
    finish(NODE(MatMul, t, v));
    fuse();
    expect(_i == 1 ? "Transpose TrmAttention" : "TrmAttention");
    ck_assert_float_eq_tol(trm_attr_float(&last()->attrs, "scale", 0), 0.25F, 1e-7F);
    ck_assert_int_eq(trm_attr_int(&last()->attrs, "k_transposed", 1), 0);
    ck_assert_int_eq(last()->input_count, _i == 2 ? 3 : 4);
}
END_TEST

START_TEST(views)
{
    int x = input("x", DIMS(2, 3, 4)), y;

    y = NODE(Transpose, x);
    attr_list("perm", 3, (int64_t[]){1, 2, 0});
    y = NODE(Transpose, y);
    attr_list("perm", 3, (int64_t[]){2, 0, 1}); /* together: none */
    y = NODE(Reshape, NODE(Reshape, y, ints(2, (int64_t[]){6, 4})), ints(2, (int64_t[]){2, 12}));
    finish(NODE(Relu, y));
    fuse();
    expect("Reshape Relu");
    ck_assert_int_eq(g->nodes[0].inputs[0], x);
}
END_TEST

/* ---- folding ---- */

static int calls;

/* Runs Add on two vectors of one length; nothing else. */
static trm_status add_only(void *ctx, const trm_node *node, const trm_tensor *in, trm_tensor *out)
{
    static float result[64];

    (void)ctx;
    calls++;
    if (node->op != TRM_OP_Add)
        return trm_fail(TRM_ERR_UNSUPPORTED, "test evaluator");
    out[0] = in[0];
    out[0].data = result;
    for (size_t i = 0; i < trm_tensor_numel(&in[0]); i++)
        result[i] = ((const float *)in[0].data)[i] + ((const float *)in[1].data)[i];
    return TRM_OK;
}

static const trm_evaluator evaluator = {add_only, NULL};

START_TEST(folds_constants)
{
    int x = input("x", DIMS(4)), c, kept;

    c = NODE(Add, NODE(Add, constant(1, DIMS(4)), constant(2, DIMS(4))), constant(3, DIMS(4)));
    kept = NODE(Neg, constant(1, DIMS(4))); /* the evaluator cannot */
    finish(NODE(Mul, NODE(Mul, x, c), kept));
    ck_assert_int_eq(trm_pass_fold(g, &evaluator), TRM_OK);
    expect("Neg Mul Mul");
    ck_assert(trm_graph_is_constant(g, c));
    ck_assert_float_eq_tol(((float *)g->values[c].desc.data)[3], 6, 1e-6F);
}
END_TEST

START_TEST(constant_output_keeps_its_name)
{
    int c = NODE(Add, constant(1, DIMS(4)), constant(2, DIMS(4)));

    finish(c);
    ck_assert_int_eq(trm_pass_fold(g, &evaluator), TRM_OK);
    expect("Identity");
    ck_assert_int_eq(g->outputs[0], c);
    ck_assert_int_eq(trm_pass_fold(g, &evaluator), TRM_OK); /* and once more */
    expect("Identity");
    ck_assert_int_eq(g->values[c].producer, 0);
}
END_TEST

START_TEST(identities)
{
    int x = input("x", DIMS(2, 3)), y, out;

    y = NODE(Dropout, NODE(Identity, x));
    y = NODE(Cast, NODE(Relu, y));
    attr("to", 1);
    y = NODE(Reshape, y, ints(2, (int64_t[]){0, -1}));
    out = NODE(Identity, y);
    finish(out);
    ck_assert_int_eq(trm_pass_fold(g, NULL), TRM_OK);
    expect("Relu");
    ck_assert_int_eq(g->outputs[0], out);
    ck_assert_int_eq(g->nodes[0].outputs[0], out);
    ck_assert_int_eq(g->nodes[0].inputs[0], x);
}
END_TEST

START_TEST(copy_of_an_input_stays)
{
    int x = input("x", DIMS(2, 3)), out = NODE(Identity, NODE(Identity, x));

    finish(out);
    ck_assert_int_eq(trm_pass_fold(g, NULL), TRM_OK);
    expect("Identity");
    ck_assert_int_eq(g->outputs[0], out);
    ck_assert_int_eq(g->nodes[0].inputs[0], x);
}
END_TEST

/* x [n, 3, 4] reshaped to [n, 12] by arithmetic on its shape: the constant part folds. */
START_TEST(shape_arithmetic)
{
    int64_t n;
    int x, shape, rows, y;
    trm_tensor t;

    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    x = input("x", DIMS(n, 3, 4));
    shape = NODE(Shape, x);
    rows = NODE(Gather, shape, ints(1, (int64_t[]){0}));
    y = NODE(Mul, NODE(Gather, shape, ints(1, (int64_t[]){1})),
             NODE(Gather, shape, ints(1, (int64_t[]){2})));
    finish(NODE(Reshape, x, NODE(Concat, rows, y)));
    ck_assert_int_eq(g->values[g->outputs[0]].desc.dims[0], n);
    ck_assert_int_eq(g->values[g->outputs[0]].desc.dims[1], 12);
    ck_assert_int_eq(trm_pass_all(g, NULL), TRM_OK);
    expect("Shape Gather Concat Reshape");
    ck_assert_int_eq(trm_graph_constant(g, y, &t), TRM_OK);
    ck_assert_int_eq(trm_tensor_get_i64(&t, 0), 12);
}
END_TEST

/* A chain of convolutions stays in bf16; the norm between products is fp32. */
START_TEST(precision)
{
    int x = input("x", DIMS(1, 4, 8, 8)), y;

    y = NODE(Relu, NODE(Conv, x, constant(1, DIMS(4, 4, 1, 1))));
    y = NODE(GlobalAveragePool, NODE(Conv, y, constant(1, DIMS(4, 4, 1, 1))));
    y = NODE(Softmax, NODE(Reshape, y, ints(2, (int64_t[]){1, 4})));
    finish(NODE(MatMul, y, constant(1, DIMS(4, 4))));
    fuse();
    ck_assert_msg(trm_pass_precision(g, TRM_DTYPE_BF16) == TRM_OK, "%s", trm_message());
    expect("Cast Conv+Relu Conv GlobalAveragePool Reshape Cast Softmax Cast MatMul Cast");
    ck_assert_int_eq(g->values[g->outputs[0]].desc.dtype, TRM_DTYPE_F32);
    ck_assert_int_eq(g->values[g->nodes[1].inputs[1]].desc.dtype, TRM_DTYPE_F32);
    ck_assert_int_eq(g->values[g->nodes[1].outputs[0]].desc.dtype, TRM_DTYPE_BF16);
    ck_assert_int_eq(trm_pass_precision(g, TRM_DTYPE_I8), TRM_ERR_INVALID_ARG);
}
END_TEST

START_TEST(contradiction_is_named)
{
    int x = input("x", DIMS(2, 3)), wrong = shaped("wrong", TRM_DTYPE_F32, DIMS(2, 4));

    ck_assert_int_eq(trm_graph_add_node(g, TRM_OP_Relu, "r", &x, 1, &wrong, 1, NULL), TRM_OK);
    x = NODE(Neg, wrong);
    ck_assert_int_eq(trm_graph_set_outputs(g, &x, 1), TRM_OK);
    ck_assert_int_eq(trm_graph_infer(g), TRM_ERR_INVALID_ARG);
    ck_assert_ptr_nonnull(strstr(trm_message(), "'wrong'"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("passes");
    TCase *t = tcase_create("passes");
    SRunner *r;
    int failed;

    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, conv_norm_relu);
    tcase_add_test(t, residual);
    tcase_add_test(t, transposed_groups);
    tcase_add_test(t, padding);
    tcase_add_loop_test(t, matmul_bias_gelu, 0, 5);
    tcase_add_test(t, silu_and_hard_swish);
    tcase_add_test(t, shared_values_stay);
    tcase_add_loop_test(t, layer_norm, 0, 3);
    tcase_add_test(t, rms_norm);
    tcase_add_loop_test(t, attention, 0, 3);
    tcase_add_test(t, views);
    tcase_add_test(t, folds_constants);
    tcase_add_test(t, constant_output_keeps_its_name);
    tcase_add_test(t, identities);
    tcase_add_test(t, copy_of_an_input_stays);
    tcase_add_test(t, shape_arithmetic);
    tcase_add_test(t, precision);
    tcase_add_test(t, contradiction_is_named);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
