/* Each operator alone: every strategy at 2, 3 and 4 ranks computes what one rank computes. The
 * expected axes are written beside each case, so that a rule that offers less fails too. */
#include "tests/parallel/graph_kit.h"

typedef int (*build)(net *m); /* one output */

static int conv(net *m)
{
    int x = net_input(m, 2, 7, 5, 5), w = net_weight(m, 9, 7, 3, 3), b = net_weight(m, 9);

    return net_node(m, Conv, x, w, b);
}

static int conv_groups(net *m)
{
    int x = net_input(m, 1, 15, 5, 5), w = net_weight(m, 10, 3, 3, 3), b = net_weight(m, 10);
    int y = net_node(m, Conv, x, w, b);

    net_int(m, "group", 5);
    return y;
}

static int conv_two_groups(net *m)
{
    int x = net_input(m, 1, 10, 5), w = net_weight(m, 12, 5, 3);
    int y = net_node(m, Conv, x, w);

    net_int(m, "group", 2);
    return y;
}

static int conv_depthwise(net *m)
{
    int x = net_input(m, 1, 6, 5, 5), w = net_weight(m, 12, 1, 3, 3), b = net_weight(m, 12);
    int y = net_node(m, Conv, x, w, b);

    net_int(m, "group", 6);
    return y;
}

static int conv_transpose(net *m)
{
    int x = net_input(m, 1, 7, 4, 4), w = net_weight(m, 7, 5, 3, 3), b = net_weight(m, 5);
    int y = net_node(m, ConvTranspose, x, w, b);

    net_list(m, "strides", 2, 2);
    return y;
}

static int conv_transpose_groups(net *m)
{
    int x = net_input(m, 1, 8, 4), w = net_weight(m, 8, 3, 3), b = net_weight(m, 12);
    int y = net_node(m, ConvTranspose, x, w, b);

    net_int(m, "group", 4);
    return y;
}

static int matmul(net *m)
{
    return net_node(m, MatMul, net_input(m, 5, 7, 6), net_input(m, 5, 6, 9));
}

static int matmul_broadcast(net *m)
{
    return net_node(m, MatMul, net_input(m, 4, 1, 7, 6), net_input(m, 5, 6, 9));
}

static int matmul_vector(net *m)
{
    return net_node(m, MatMul, net_input(m, 5, 7, 6), net_input(m, 6));
}

static int gemm(net *m)
{
    int y = net_node(m, Gemm, net_input(m, 5, 7), net_weight(m, 9, 7), net_weight(m, 9));

    net_int(m, "transB", 1);
    return y;
}

static int gemm_bias_computed(net *m)
{
    int y = net_node(m, Gemm, net_input(m, 7, 5), net_weight(m, 7, 9), net_input(m, 5, 1));

    net_int(m, "transA", 1);
    return y;
}

static int einsum(net *m)
{
    int y = net_node(m, Einsum, net_input(m, 4, 5, 6), net_input(m, 4, 7, 6));

    net_string(m, "equation", "bij, bkj -> bik");
    return y;
}

static int attention_internal(net *m)
{
    return net_node(m, TrmAttention, net_input(m, 2, 6, 5, 4), net_input(m, 2, 6, 7, 4),
                    net_input(m, 2, 6, 7, 8), net_input(m, 2, 1, 5, 7));
}

static int attention_grouped(net *m)
{
    int y = net_node(m, Attention, net_input(m, 1, 5, 12 * 4), net_input(m, 1, 7, 4 * 4),
                     net_input(m, 1, 7, 4 * 6));

    net_int(m, "q_num_heads", 12);
    net_int(m, "kv_num_heads", 4);
    return y;
}

static int attention_few_kv_heads(net *m)
{
    int y = net_node(m, Attention, net_input(m, 1, 12, 5, 4), net_input(m, 1, 1, 7, 4),
                     net_input(m, 1, 1, 7, 4), net_input(m, 1, 12, 5, 7));

    return y;
}

static int rotary(net *m)
{
    int y = net_node(m, RotaryEmbedding, net_input(m, 2, 5, 6 * 4), net_input(m, 2, 5, 2),
                     net_input(m, 2, 5, 2));

    net_int(m, "num_heads", 6);
    return y;
}

static int gather_rows(net *m)
{
    int at = net_input_of(m, TRM_DTYPE_I64, 11, 0, DIMS(4, 5));

    return net_node(m, Gather, net_weight(m, 11, 6), at);
}

static int gather_inner(net *m)
{
    int at = net_input_of(m, TRM_DTYPE_I64, 7, 0, DIMS(5));
    int y = net_node(m, Gather, net_input(m, 4, 7, 6), at);

    net_int(m, "axis", 1);
    return y;
}

static int gather_elements(net *m)
{
    int at = net_input_of(m, TRM_DTYPE_I64, 7, 0, DIMS(4, 5));
    int y = net_node(m, GatherElements, net_input(m, 4, 7), at);

    net_int(m, "axis", 1);
    return y;
}

static int add_broadcast(net *m)
{
    return net_node(m, Add, net_input(m, 4, 1, 6), net_input(m, 5, 6));
}

static int mul_self(net *m)
{
    int x = net_input(m, 4, 5);

    return net_node(m, Mul, x, x);
}

static int divide(net *m)
{
    int one = net_floats(m, 0, 1, (const float[]){3}), x = net_input(m, 4, 6);

    return net_node(m, Div, x, net_node(m, Add, net_node(m, Exp, net_input(m, 6)), one));
}

static int where(net *m)
{
    int c = net_input_of(m, TRM_DTYPE_BOOL, 2, 0, DIMS(5, 1));

    return net_node(m, Where, c, net_input(m, 4, 5, 6), net_input(m, 6));
}

static int prelu(net *m)
{
    return net_node(m, PRelu, net_input(m, 1, 6, 4, 4), net_weight(m, 6, 1, 1));
}

static int clip(net *m)
{
    return net_node(m, Clip, net_input(m, 4, 6), net_floats(m, 0, 1, (const float[]){-0.25f}),
                    net_floats(m, 0, 1, (const float[]){0.5f}));
}

static int max_pool(net *m)
{
    int y = net_node(m, MaxPool, net_input(m, 2, 7, 6, 6));

    net_list(m, "kernel_shape", 2, 2);
    return y;
}

static int average_pool(net *m)
{
    int y = net_node(m, AveragePool, net_input(m, 2, 7, 6, 6));

    net_list(m, "kernel_shape", 3, 3);
    net_list(m, "pads", 1, 1, 1, 1);
    return y;
}

static int global_pool(net *m)
{
    return net_node(m, GlobalAveragePool, net_input(m, 2, 7, 6, 6));
}

static int positive(net *m, int64_t n)
{
    trm_tensor t = net_tensor(m, TRM_DTYPE_F32, 1, &n, 0);
    int v;

    for (int64_t i = 0; i < n; i++)
        ((float *)t.data)[i] = fabsf(((float *)t.data)[i]) + 0.5f;
    ck_assert_int_eq(trm_graph_add_constant(m->g, net_name(m, "var"), &t, &v), TRM_OK);
    trm_free(t.data);
    return v;
}

static int batch_norm(net *m)
{
    return net_node(m, BatchNormalization, net_input(m, 2, 7, 3, 4), net_weight(m, 7),
                    net_weight(m, 7), net_weight(m, 7), positive(m, 7));
}

static int instance_norm(net *m)
{
    return net_node(m, InstanceNormalization, net_input(m, 2, 7, 5, 5), net_weight(m, 7),
                    net_weight(m, 7));
}

static int group_norm(net *m)
{
    int y = net_node(m, GroupNormalization, net_input(m, 2, 10, 5, 5), net_weight(m, 10),
                     net_weight(m, 10));

    net_int(m, "num_groups", 5);
    return y;
}

static int layer_norm(net *m)
{
    int y =
        net_node(m, LayerNormalization, net_input(m, 5, 6, 8), net_weight(m, 8), net_weight(m, 8));

    net_int(m, "axis", -1);
    return y;
}

static int layer_norm_of_two(net *m)
{
    int y = net_node(m, LayerNormalization, net_input(m, 5, 6, 8), net_weight(m, 6, 8));

    net_int(m, "axis", 1);
    return y;
}

static int rms_norm(net *m)
{
    int y = net_node(m, RMSNormalization, net_input(m, 5, 6, 8), net_weight(m, 8));

    net_int(m, "axis", -1);
    return y;
}

static int softmax(net *m)
{
    int y = net_node(m, Softmax, net_input(m, 5, 6, 8));

    net_int(m, "axis", 1);
    return y;
}

static int reduce_mean(net *m)
{
    int y = net_node(m, ReduceMean, net_input(m, 5, 6, 7), net_ints(m, 1, -1));

    net_int(m, "keepdims", 0);
    return y;
}

static int reduce_sum(net *m)
{
    return net_node(m, ReduceSum, net_input(m, 5, 6, 7), net_ints(m, 2));
}

static int reduce_max(net *m)
{
    int y = net_node(m, ReduceMax, net_input(m, 5, 6, 7), net_ints(m, 1));

    net_int(m, "keepdims", 0);
    return y;
}

static int reduce_l1(net *m)
{
    return net_node(m, ReduceL1, net_input(m, 5, 6), net_ints(m, 1));
}

static int arg_max(net *m)
{
    int y = net_node(m, ArgMax, net_input(m, 5, 6, 17));

    net_int(m, "axis", 1);
    net_int(m, "keepdims", 0);
    return y;
}

static int concat(net *m)
{
    int y =
        net_node(m, Concat, net_input(m, 2, 5, 4), net_input(m, 2, 7, 4), net_input(m, 2, 4, 4));

    net_int(m, "axis", 1);
    return y;
}

static int split(net *m)
{
    int in[2] = {net_input(m, 2, 17, 4), net_ints(m, 5, 8, 4)}, out[3];
    trm_node *n = net_nodes(m, TRM_OP_Split, in, 2, out, 3);

    ck_assert_int_eq(trm_attr_set_int(&n->attrs, m->g->arena, "axis", 1), TRM_OK);
    out[0] = net_node(m, Tanh, out[0]);
    out[2] = net_node(m, Relu, out[2]);
    out[0] = net_node(m, Concat, out[1], out[0], out[2]);
    net_int(m, "axis", 1);
    return out[0];
}

static int split_even(net *m)
{
    int in[1] = {net_input(m, 2, 18, 4)}, out[3];
    trm_node *n = net_nodes(m, TRM_OP_Split, in, 1, out, 3);

    ck_assert_int_eq(trm_attr_set_int(&n->attrs, m->g->arena, "axis", -2), TRM_OK);
    ck_assert_int_eq(trm_attr_set_int(&n->attrs, m->g->arena, "num_outputs", 3), TRM_OK);
    return net_node(m, Sum, out[0], out[1], out[2]);
}

static int slices(net *m)
{
    int x = net_input(m, 4, 18, 5), axis = net_ints(m, 1);
    int a = net_node(m, Slice, x, net_ints(m, 0), net_ints(m, 6), axis);
    int b = net_node(m, Slice, x, net_ints(m, 6), net_ints(m, -6), axis);
    int c = net_node(m, Slice, x, net_ints(m, -6), net_ints(m, 1000), axis, net_ints(m, 1));

    return net_node(m, Sub, net_node(m, Mul, a, b), c);
}

static int slice_other(net *m)
{
    return net_node(m, Slice, net_input(m, 4, 9, 5), net_ints(m, 0, 7, 0),
                    net_ints(m, INT64_MAX, 1, 4), net_ints(m, 0, 1, 2), net_ints(m, 1, -2, 1));
}

static int pad(net *m)
{
    return net_node(m, Pad, net_input(m, 2, 7, 4, 4), net_ints(m, 0, 0, 1, 2, 0, 0, 2, 0));
}

static int pad_one(net *m)
{
    return net_node(m, Pad, net_input(m, 7, 4), net_ints(m, 0, 1, 0, 1),
                    net_floats(m, 0, 1, (const float[]){1}));
}

static int transpose(net *m)
{
    int y = net_node(m, Transpose, net_input(m, 4, 5, 6));

    net_list(m, "perm", 2, 0, 1);
    return y;
}

static int expand(net *m)
{
    return net_node(m, Expand, net_input(m, 5, 1), net_ints(m, 4, 1, 6));
}

static int tile(net *m)
{
    return net_node(m, Tile, net_input(m, 5, 6), net_ints(m, 1, 3));
}

static int resize(net *m)
{
    int y = net_node(m, Resize, net_input(m, 1, 6, 4, 4), TRM_NO_VALUE, TRM_NO_VALUE,
                     net_ints(m, 1, 6, 7, 9));

    net_string(m, "mode", "linear");
    return y;
}

static int resize_scales(net *m)
{
    int y = net_node(m, Resize, net_input(m, 1, 6, 4, 4), TRM_NO_VALUE,
                     net_floats(m, 1, 4, (const float[]){1, 1, 2, 2}));

    net_string(m, "mode", "nearest");
    return y;
}

static int merge_heads(net *m)
{
    return net_node(m, Reshape, net_input(m, 2, 5, 6, 4), net_ints(m, 0, 0, -1));
}

static int divide_heads(net *m)
{
    return net_node(m, Reshape, net_input(m, 2, 5, 24), net_ints(m, 0, -1, 6, 4));
}

static int misaligned(net *m)
{
    return net_node(m, Reshape, net_input(m, 6, 10), net_ints(m, 10, 6));
}

static int across(net *m) /* of 8, 4 are outside and 2 inside the new dim */
{
    return net_node(m, Reshape, net_input(m, 8, 6, 5), net_ints(m, 4, 12, 5));
}

static int flatten(net *m)
{
    return net_node(m, Flatten, net_input(m, 2, 5, 3, 3));
}

static int squeeze_all(net *m) /* 4 elements on 4 ranks: parts of one are not to be squeezed */
{
    return net_node(m, Squeeze, net_input(m, 1, 4, 1, 5));
}

static int unsqueeze(net *m)
{
    return net_node(m, Unsqueeze, net_input(m, 4, 5), net_ints(m, 0, -1));
}

static int depth_to_space(net *m)
{
    int y = net_node(m, DepthToSpace, net_input(m, 1, 20, 3, 3));

    net_int(m, "blocksize", 2);
    return y;
}

static int depth_to_space_crd(net *m)
{
    int y = net_node(m, DepthToSpace, net_input(m, 1, 20, 3, 3));

    net_int(m, "blocksize", 2);
    net_string(m, "mode", "CRD");
    return y;
}

static int space_to_depth(net *m)
{
    int y = net_node(m, SpaceToDepth, net_input(m, 1, 5, 4, 6));

    net_int(m, "blocksize", 2);
    return y;
}

static int shuffle(net *m) /* channel shuffle of ShuffleNet */
{
    int x = net_node(m, Reshape, net_input(m, 1, 20, 3, 3), net_ints(m, 1, 2, 10, 3, 3));

    x = net_node(m, Transpose, x);
    net_list(m, "perm", 0, 2, 1, 3, 4);
    return net_node(m, Reshape, x, net_ints(m, 1, -1, 3, 3));
}

static int quantize(net *m)
{
    int scale = positive(m, 6), x = net_input(m, 3, 6, 4);
    int zero = net_constant(m, TRM_DTYPE_U8, 9, DIMS(6));
    int q = net_node(m, QuantizeLinear, x, scale, zero);

    net_int(m, "axis", 1);
    q = net_node(m, DequantizeLinear, q, scale, zero);
    net_int(m, "axis", 1);
    return q;
}

static int lstm(net *m)
{
    int in[3] = {net_input(m, 3, 5, 4), net_weight(m, 1, 24, 4), net_weight(m, 1, 24, 6)}, out[3];
    trm_node *n = net_nodes(m, TRM_OP_LSTM, in, 3, out, 3);

    ck_assert_int_eq(trm_attr_set_int(&n->attrs, m->g->arena, "hidden_size", 6), TRM_OK);
    return out[0];
}

static int reported_shape(net *m) /* sequence is a symbol: as exporters write a reshape */
{
    int x = net_input_of(m, TRM_DTYPE_F32, 0, 2, DIMS(2, 5, 24));
    int shape = net_node(m, Shape, x), zero = net_ints(m, 0), one = net_ints(m, 1);
    int batch = net_node(m, Gather, shape, zero), seq = net_node(m, Gather, shape, one);
    int want = net_node(m, Concat, batch, seq, net_ints(m, 6), net_ints(m, 4));

    net_int(m, "axis", 0);
    x = net_node(m, Reshape, x, want);
    x = net_node(m, Transpose, x);
    net_list(m, "perm", 0, 2, 1, 3);
    return x;
}

static int reported_size(net *m)
{
    int x = net_input_of(m, TRM_DTYPE_F32, 0, 1, DIMS(5, 12));
    int size = net_node(m, Cast, net_node(m, Size, x));

    net_int(m, "to", 1);
    return net_node(m, Div, x, size);
}

static int symbolic_expand(net *m)
{
    int x = net_input_of(m, TRM_DTYPE_F32, 0, 1, DIMS(5, 12));

    return net_node(m, Expand, net_weight(m, 1, 12), net_node(m, Shape, x));
}

/* axes: of `node`, at 2 ranks; "-": none; "": not looked at */
static const struct row {
    const char *name;
    build build;
    int node; /* whose axes are listed */
    const char *axes;
    int linear;
} rows[] = {
    {"conv", conv, 0, "out channels,in channels,batch", 0},
    {"conv groups", conv_groups, 0, "groups", 0},
    {"conv of two groups", conv_two_groups, 0, "groups", 0},
    {"depthwise conv", conv_depthwise, 0, "groups", 0},
    {"conv transpose", conv_transpose, 0, "out channels,in channels", 0},
    {"grouped conv transpose", conv_transpose_groups, 0, "groups", 0},
    {"matmul", matmul, 0, "batch,columns,sum,rows", 2},
    {"matmul broadcast", matmul_broadcast, 0, "batch,batch,columns,sum,rows", 2},
    {"matmul vector", matmul_vector, 0, "batch,sum,rows", 2},
    {"gemm", gemm, 0, "columns,sum,rows", 2},
    {"gemm with a computed bias", gemm_bias_computed, 0, "columns,sum,rows", 2},
    {"einsum", einsum, 0, "letter,letter,letter,letter", 0},
    {"attention", attention_internal, 0, "batch,heads,queries", 0},
    {"grouped attention", attention_grouped, 0, "heads", 0},
    {"attention with one key head", attention_few_kv_heads, 0, "heads of a group", 0},
    {"rotary embedding", rotary, 0, "heads", 0},
    {"gather rows", gather_rows, 0, "elements,indices,indices,vocabulary", 1},
    {"gather inner", gather_inner, 0, "elements,elements,indices,vocabulary", 1},
    {"gather elements", gather_elements, 0, "elements,elements", 0},
    {"add", add_broadcast, 0, "elements,elements,elements", 1},
    {"square", mul_self, 0, "elements,elements", 0},
    {"div", divide, 2, "elements,elements", 1},
    {"where", where, 0, "elements,elements,elements", 0},
    {"prelu", prelu, 0, "elements,elements,elements", 0},
    {"clip", clip, 0, "elements,elements", 0},
    {"max pool", max_pool, 0, "channels,batch", 0},
    {"average pool", average_pool, 0, "channels,batch", 1},
    {"global pool", global_pool, 0, "channels,batch", 1},
    {"batch norm", batch_norm, 0, "elements,channels,elements,elements", 0},
    {"instance norm", instance_norm, 0, "channels,batch", 0},
    {"group norm", group_norm, 0, "groups,batch", 0},
    {"layer norm", layer_norm, 0, "rows,rows,features", 0},
    {"layer norm of two dims", layer_norm_of_two, 0, "rows,features,features", 0},
    {"rms norm", rms_norm, 0, "rows,rows,features", 0},
    {"softmax", softmax, 0, "rows,rows", 0},
    {"reduce mean", reduce_mean, 0, "rows,sum,sum", 1},
    {"reduce sum", reduce_sum, 0, "rows,rows,sum", 1},
    {"reduce max", reduce_max, 0, "rows,rows", 0},
    {"reduce l1", reduce_l1, 0, "rows,sum", 0},
    {"arg max", arg_max, 0, "rows,rows", 0},
    {"concat", concat, 0, "elements,pieces,elements", 1},
    {"split", split, 0, "elements,cuts,elements", 1},
    {"split evenly", split_even, 0, "elements,cuts,elements", 1},
    {"slices", slices, 0, "elements,cuts,elements", 1},
    {"slice of other dims", slice_other, 0, "elements", 1},
    {"pad", pad, 0, "elements,elements", 1},
    {"pad with ones", pad_one, 0, "elements", 0},
    {"transpose", transpose, 0, "elements,elements,elements", 1},
    {"expand", expand, 0, "elements,elements,elements", 1},
    {"tile", tile, 0, "elements", 1},
    {"resize", resize, 0, "elements", 0},
    {"resize by scales", resize_scales, 0, "elements", 0},
    {"merge heads", merge_heads, 0, "factor,factor,factor", 1},
    {"divide heads", divide_heads, 0, "factor,factor,factor", 1},
    {"reshape across", across, 0, "factor,factor,factor", 1},
    {"reshape that cannot be cut", misaligned, 0, "-", 1},
    {"flatten", flatten, 0, "factor,factor", 1},
    {"squeeze", squeeze_all, 0, "factor,factor", 1},
    {"unsqueeze", unsqueeze, 0, "factor,factor", 1},
    {"depth to space", depth_to_space, 0, "channels", 1},
    {"depth to space, CRD", depth_to_space_crd, 0, "channels", 1},
    {"space to depth", space_to_depth, 0, "channels", 1},
    {"channel shuffle", shuffle, 1, "", 1},
    {"quantize", quantize, 0, "elements,elements,elements", 0},
    {"lstm", lstm, 0, "batch", 0},
    {"shape of a split value", reported_shape, 0, "reported,reported", 0},
    {"size of a split value", reported_size, 0, "reported", 0},
    {"expand to a computed shape", symbolic_expand, 1, "elements", 1},
};

/* The axes of the row's node, as names; at 2 ranks. */
static void check_axes(const trm_sharding *s, const struct row *row)
{
    char names[512] = "";
    const trm_axes *a = &s->axes[row->node];

    for (int k = 0; k < a->axis_count; k++) {
        strcat(names, k > 0 ? "," : "");
        strcat(names, a->axes[k].name);
    }
    if (row->axes[0] != '\0')
        ck_assert_msg(strcmp(names, row->axes[0] == '-' ? "" : row->axes) == 0,
                      "%s: axes are '%s', want '%s'", row->name, names, row->axes);
    ck_assert_msg(a->linear_count == row->linear, "%s: %d linear strategies, want %d", row->name,
                  a->linear_count, row->linear);
}

START_TEST(every_strategy)
{
    const struct row *row = &rows[_i];
    net m = net_open((uint64_t)_i + 1);
    int out = row->build(&m), done = 0;
    checker c;

    net_outputs(&m, &out, 1);
    check_open(&c, m.g, m.inputs);
    for (int ranks = 2; ranks <= 4; ranks++) {
        check_ranks(&c, ranks);
        if (ranks == 2)
            check_axes(c.s, row);
        done += check_each(&c);
        for (int draw = 0; draw < 8; draw++)
            check_random(&c, &m, 0, row->name);
    }
    ck_assert_int_gt(done, 0);
    check_close(&c);
    net_close(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lower");
    TCase *tc = tcase_create("operators");
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_set_fork_status(runner, CK_NOFORK);
    tcase_add_unchecked_fixture(tc, spmd_open, spmd_close);
    tcase_set_timeout(tc, 0);
    tcase_add_loop_test(tc, every_strategy, 0, (int)(sizeof(rows) / sizeof(rows[0])));
    suite_add_tcase(suite, tc);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
