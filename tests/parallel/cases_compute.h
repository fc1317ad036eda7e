/* Graphs of one operator for the tests of lowering: products, convolutions, norms, reductions. */
#ifndef TRM_TESTS_PARALLEL_CASES_COMPUTE_H
#define TRM_TESTS_PARALLEL_CASES_COMPUTE_H

#include "tests/parallel/graph_kit.h"

static inline int conv(net *m)
{
    int x = net_input(m, 2, 7, 5, 5), w = net_weight(m, 9, 7, 3, 3), b = net_weight(m, 9);

    return net_node(m, Conv, x, w, b);
}

static inline int conv_groups(net *m)
{
    int x = net_input(m, 1, 15, 5, 5), w = net_weight(m, 10, 3, 3, 3), b = net_weight(m, 10);
    int y = net_node(m, Conv, x, w, b);

    net_int(m, "group", 5);
    return y;
}

static inline int conv_two_groups(net *m)
{
    int x = net_input(m, 1, 10, 5), w = net_weight(m, 12, 5, 3);
    int y = net_node(m, Conv, x, w);

    net_int(m, "group", 2);
    return y;
}

static inline int conv_depthwise(net *m)
{
    int x = net_input(m, 1, 6, 5, 5), w = net_weight(m, 12, 1, 3, 3), b = net_weight(m, 12);
    int y = net_node(m, Conv, x, w, b);

    net_int(m, "group", 6);
    return y;
}

static inline int conv_transpose(net *m)
{
    int x = net_input(m, 1, 7, 4, 4), w = net_weight(m, 7, 5, 3, 3), b = net_weight(m, 5);
    int y = net_node(m, ConvTranspose, x, w, b);

    net_list(m, "strides", 2, 2);
    return y;
}

static inline int conv_transpose_groups(net *m)
{
    int x = net_input(m, 1, 8, 4), w = net_weight(m, 8, 3, 3), b = net_weight(m, 12);
    int y = net_node(m, ConvTranspose, x, w, b);

    net_int(m, "group", 4);
    return y;
}

static inline int matmul(net *m)
{
    return net_node(m, MatMul, net_input(m, 5, 7, 6), net_input(m, 5, 6, 9));
}

static inline int matmul_broadcast(net *m)
{
    return net_node(m, MatMul, net_input(m, 4, 1, 7, 6), net_input(m, 5, 6, 9));
}

static inline int matmul_vector(net *m)
{
    return net_node(m, MatMul, net_input(m, 5, 7, 6), net_input(m, 6));
}

static inline int gemm(net *m)
{
    int y = net_node(m, Gemm, net_input(m, 5, 7), net_weight(m, 9, 7), net_weight(m, 9));

    net_int(m, "transB", 1);
    return y;
}

static inline int gemm_bias_computed(net *m)
{
    int y = net_node(m, Gemm, net_input(m, 7, 5), net_weight(m, 7, 9), net_input(m, 5, 1));

    net_int(m, "transA", 1);
    return y;
}

static inline int einsum(net *m)
{
    int y = net_node(m, Einsum, net_input(m, 4, 5, 6), net_input(m, 4, 7, 6));

    net_string(m, "equation", "bij, bkj -> bik");
    return y;
}

static inline int attention_internal(net *m)
{
    return net_node(m, TrmAttention, net_input(m, 2, 6, 5, 4), net_input(m, 2, 6, 7, 4),
                    net_input(m, 2, 6, 7, 8), net_input(m, 2, 1, 5, 7));
}

static inline int attention_grouped(net *m)
{
    int y = net_node(m, Attention, net_input(m, 1, 5, 12 * 4), net_input(m, 1, 7, 4 * 4),
                     net_input(m, 1, 7, 4 * 6));

    net_int(m, "q_num_heads", 12);
    net_int(m, "kv_num_heads", 4);
    return y;
}

static inline int attention_few_kv_heads(net *m)
{
    int y = net_node(m, Attention, net_input(m, 1, 12, 5, 4), net_input(m, 1, 1, 7, 4),
                     net_input(m, 1, 1, 7, 4), net_input(m, 1, 12, 5, 7));

    return y;
}

static inline int rotary(net *m)
{
    int y = net_node(m, RotaryEmbedding, net_input(m, 2, 5, 6 * 4), net_input(m, 2, 5, 2),
                     net_input(m, 2, 5, 2));

    net_int(m, "num_heads", 6);
    return y;
}

static inline int max_pool(net *m)
{
    int y = net_node(m, MaxPool, net_input(m, 2, 7, 6, 6));

    net_list(m, "kernel_shape", 2, 2);
    return y;
}

static inline int average_pool(net *m)
{
    int y = net_node(m, AveragePool, net_input(m, 2, 7, 6, 6));

    net_list(m, "kernel_shape", 3, 3);
    net_list(m, "pads", 1, 1, 1, 1);
    return y;
}

static inline int global_pool(net *m)
{
    return net_node(m, GlobalAveragePool, net_input(m, 2, 7, 6, 6));
}

static inline int positive(net *m, int64_t n)
{
    trm_tensor t = net_tensor(m, TRM_DTYPE_F32, 1, &n, 0);
    int v;

    for (int64_t i = 0; i < n; i++)
        ((float *)t.data)[i] = fabsf(((float *)t.data)[i]) + 0.5f;
    ck_assert_int_eq(trm_graph_add_constant(m->g, net_name(m, "var"), &t, &v), TRM_OK);
    trm_free(t.data);
    return v;
}

static inline int batch_norm(net *m)
{
    return net_node(m, BatchNormalization, net_input(m, 2, 7, 3, 4), net_weight(m, 7),
                    net_weight(m, 7), net_weight(m, 7), positive(m, 7));
}

static inline int instance_norm(net *m)
{
    return net_node(m, InstanceNormalization, net_input(m, 2, 7, 5, 5), net_weight(m, 7),
                    net_weight(m, 7));
}

static inline int group_norm(net *m)
{
    int y = net_node(m, GroupNormalization, net_input(m, 2, 10, 5, 5), net_weight(m, 10),
                     net_weight(m, 10));

    net_int(m, "num_groups", 5);
    return y;
}

static inline int layer_norm(net *m)
{
    int y =
        net_node(m, LayerNormalization, net_input(m, 5, 6, 8), net_weight(m, 8), net_weight(m, 8));

    net_int(m, "axis", -1);
    return y;
}

static inline int layer_norm_of_two(net *m)
{
    int y = net_node(m, LayerNormalization, net_input(m, 5, 6, 8), net_weight(m, 6, 8));

    net_int(m, "axis", 1);
    return y;
}

static inline int rms_norm(net *m)
{
    int y = net_node(m, RMSNormalization, net_input(m, 5, 6, 8), net_weight(m, 8));

    net_int(m, "axis", -1);
    return y;
}

static inline int softmax(net *m)
{
    int y = net_node(m, Softmax, net_input(m, 5, 6, 8));

    net_int(m, "axis", 1);
    return y;
}

static inline int reduce_mean(net *m)
{
    int y = net_node(m, ReduceMean, net_input(m, 5, 6, 7), net_ints(m, 1, -1));

    net_int(m, "keepdims", 0);
    return y;
}

static inline int reduce_sum(net *m)
{
    return net_node(m, ReduceSum, net_input(m, 5, 6, 7), net_ints(m, 2));
}

static inline int reduce_max(net *m)
{
    int y = net_node(m, ReduceMax, net_input(m, 5, 6, 7), net_ints(m, 1));

    net_int(m, "keepdims", 0);
    return y;
}

static inline int reduce_l1(net *m)
{
    return net_node(m, ReduceL1, net_input(m, 5, 6), net_ints(m, 1));
}

static inline int arg_max(net *m)
{
    int y = net_node(m, ArgMax, net_input(m, 5, 6, 17));

    net_int(m, "axis", 1);
    net_int(m, "keepdims", 0);
    return y;
}

static inline int quantize(net *m)
{
    int scale = positive(m, 6), x = net_input(m, 3, 6, 4);
    int zero = net_constant(m, TRM_DTYPE_U8, 9, DIMS(6));
    int q = net_node(m, QuantizeLinear, x, scale, zero);

    net_int(m, "axis", 1);
    q = net_node(m, DequantizeLinear, q, scale, zero);
    net_int(m, "axis", 1);
    return q;
}

static inline int byte_input(net *m, int rank, const int64_t *dims)
{
    return net_input_of(m, TRM_DTYPE_U8, 200, 0, rank, dims);
}

static inline int byte_scalar(net *m, trm_dtype dtype, int64_t value)
{
    trm_tensor t = {.dtype = dtype, .rank = 0, .data = &(int64_t){0}};
    int v;

    trm_tensor_set_i64(&t, 0, value);
    ck_assert_int_eq(trm_graph_add_constant(m->g, net_name(m, "zero"), &t, &v), TRM_OK);
    return v;
}

static inline int matmul_integer(net *m)
{
    int b = net_constant(m, TRM_DTYPE_U8, 200, DIMS(8, 9));

    return net_node(m, MatMulInteger, byte_input(m, DIMS(5, 8)), b, byte_scalar(m, TRM_DTYPE_U8, 7),
                    net_constant(m, TRM_DTYPE_U8, 9, DIMS(9)));
}

static inline int conv_integer(net *m)
{
    int w = net_constant(m, TRM_DTYPE_U8, 200, DIMS(6, 5, 3, 3));

    return net_node(m, ConvInteger, byte_input(m, DIMS(1, 5, 6, 6)), w,
                    byte_scalar(m, TRM_DTYPE_U8, 100), byte_scalar(m, TRM_DTYPE_U8, 90));
}

static inline int qlinear_matmul(net *m)
{
    int xs = net_floats(m, 0, 1, (const float[]){0.01f}), zero = byte_scalar(m, TRM_DTYPE_U8, 99);
    int b = net_constant(m, TRM_DTYPE_U8, 200, DIMS(8, 9));
    int scales = positive(m, 9), zeros = net_constant(m, TRM_DTYPE_U8, 99, DIMS(9));
    int ys = net_floats(m, 0, 1, (const float[]){5});

    return net_node(m, QLinearMatMul, byte_input(m, DIMS(5, 8)), xs, zero, b, scales, zeros, ys,
                    zero);
}

static inline int qlinear_conv(net *m)
{
    int xs = net_floats(m, 0, 1, (const float[]){0.01f}), zero = byte_scalar(m, TRM_DTYPE_U8, 99);
    int w = net_constant(m, TRM_DTYPE_I8, 100, DIMS(6, 5, 3, 3));
    int scales = positive(m, 6), zeros = net_constant(m, TRM_DTYPE_I8, 1, DIMS(6));
    int bias = net_constant(m, TRM_DTYPE_I32, 1000, DIMS(6));
    int ys = net_floats(m, 0, 1, (const float[]){9});

    return net_node(m, QLinearConv, byte_input(m, DIMS(1, 5, 6, 6)), xs, zero, w, scales, zeros, ys,
                    zero, bias);
}

static inline int attention_with_past(net *m)
{
    int in[6] = {net_input(m, 2, 8, 3, 4), net_input(m, 2, 4, 3, 4), net_input(m, 2, 4, 3, 6),
                 net_input(m, 2, 8, 3, 8), net_input(m, 2, 4, 5, 4), net_input(m, 2, 4, 5, 6)};
    int out[3];

    (void)net_nodes(m, TRM_OP_Attention, in, 6, out, 3);
    out[0] = net_node(m, ReduceSum, out[0]);
    out[1] = net_node(m, ReduceSum, out[1]);
    out[2] = net_node(m, ReduceSum, out[2]);
    return net_node(m, Sum, out[0], out[1], out[2]);
}

static inline int gru(net *m)
{
    int in[6] = {net_input(m, 3, 5, 4),
                 net_weight(m, 2, 18, 4),
                 net_weight(m, 2, 18, 6),
                 net_weight(m, 2, 36),
                 net_constant(m, TRM_DTYPE_I32, 3, DIMS(5)),
                 net_input(m, 2, 5, 6)},
        out[2];
    trm_node *n = net_nodes(m, TRM_OP_GRU, in, 6, out, 2);

    ck_assert_int_eq(trm_attr_set_int(&n->attrs, m->g->arena, "hidden_size", 6), TRM_OK);
    ck_assert_int_eq(trm_attr_set_string(&n->attrs, m->g->arena, "direction", "bidirectional"),
                     TRM_OK);
    return net_node(m, Add, net_node(m, ReduceSum, out[0]), net_node(m, ReduceSum, out[1]));
}

static inline int local_response(net *m)
{
    int y = net_node(m, LRN, net_input(m, 2, 6, 4, 4));

    net_int(m, "size", 3);
    return y;
}

static inline int mean_variance(net *m)
{
    return net_node(m, MeanVarianceNormalization, net_input(m, 2, 6, 4, 4));
}

static inline int lp_norm(net *m)
{
    int y = net_node(m, LpNormalization, net_input(m, 4, 6));

    net_int(m, "axis", 0);
    return y;
}

static inline int old_softmax(net *m)
{
    int y = net_node(m, Softmax, net_input(m, 4, 6, 5));

    net_int(m, "axis", 1);
    net_int(m, "flatten", 1);
    return y;
}

static inline int old_group_norm(net *m)
{
    int y = net_node(m, GroupNormalization, net_input(m, 2, 10, 5, 5), net_weight(m, 5),
                     net_weight(m, 5));

    net_int(m, "num_groups", 5);
    net_int(m, "per_group", 1);
    return y;
}

static inline int cumulated(net *m)
{
    int64_t one = 1;
    trm_tensor t = {.dtype = TRM_DTYPE_I64, .rank = 0, .data = &one};
    int axis;

    ck_assert_int_eq(trm_graph_add_constant(m->g, "axis", &t, &axis), TRM_OK);
    return net_node(m, CumSum, net_input(m, 4, 6, 5), axis);
}

static inline int lstm(net *m)
{
    int in[3] = {net_input(m, 3, 5, 4), net_weight(m, 1, 24, 4), net_weight(m, 1, 24, 6)}, out[3];
    trm_node *n = net_nodes(m, TRM_OP_LSTM, in, 3, out, 3);

    ck_assert_int_eq(trm_attr_set_int(&n->attrs, m->g->arena, "hidden_size", 6), TRM_OK);
    return out[0];
}

#endif
