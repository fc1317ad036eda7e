/* Graphs of one operator for the tests of lowering: elementwise, moving, cutting, merging, shapes.
 */
#ifndef TRM_TESTS_PARALLEL_CASES_MOVE_H
#define TRM_TESTS_PARALLEL_CASES_MOVE_H

#include "tests/parallel/graph_kit.h"

static inline int gather_rows(net *m)
{
    int at = net_input_of(m, TRM_DTYPE_I64, 11, 0, DIMS(4, 5));

    return net_node(m, Gather, net_weight(m, 11, 6), at);
}

static inline int gather_inner(net *m)
{
    int at = net_input_of(m, TRM_DTYPE_I64, 7, 0, DIMS(5));
    int y = net_node(m, Gather, net_input(m, 4, 7, 6), at);

    net_int(m, "axis", 1);
    return y;
}

static inline int gather_elements(net *m)
{
    int at = net_input_of(m, TRM_DTYPE_I64, 7, 0, DIMS(4, 5));
    int y = net_node(m, GatherElements, net_input(m, 4, 7), at);

    net_int(m, "axis", 1);
    return y;
}

static inline int add_broadcast(net *m)
{
    return net_node(m, Add, net_input(m, 4, 1, 6), net_input(m, 5, 6));
}

static inline int mul_self(net *m)
{
    int x = net_input(m, 4, 5);

    return net_node(m, Mul, x, x);
}

static inline int divide(net *m)
{
    int one = net_floats(m, 0, 1, (const float[]){3}), x = net_input(m, 4, 6);

    return net_node(m, Div, x, net_node(m, Add, net_node(m, Exp, net_input(m, 6)), one));
}

static inline int where(net *m)
{
    int c = net_input_of(m, TRM_DTYPE_BOOL, 2, 0, DIMS(5, 1));

    return net_node(m, Where, c, net_input(m, 4, 5, 6), net_input(m, 6));
}

static inline int prelu(net *m)
{
    return net_node(m, PRelu, net_input(m, 1, 6, 4, 4), net_weight(m, 6, 1, 1));
}

static inline int clip(net *m)
{
    return net_node(m, Clip, net_input(m, 4, 6), net_floats(m, 0, 1, (const float[]){-0.25f}),
                    net_floats(m, 0, 1, (const float[]){0.5f}));
}

static inline int concat(net *m)
{
    int y =
        net_node(m, Concat, net_input(m, 2, 5, 4), net_input(m, 2, 7, 4), net_input(m, 2, 4, 4));

    net_int(m, "axis", 1);
    return y;
}

static inline int split(net *m)
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

static inline int split_even(net *m)
{
    int in[1] = {net_input(m, 2, 18, 4)}, out[3];
    trm_node *n = net_nodes(m, TRM_OP_Split, in, 1, out, 3);

    ck_assert_int_eq(trm_attr_set_int(&n->attrs, m->g->arena, "axis", -2), TRM_OK);
    ck_assert_int_eq(trm_attr_set_int(&n->attrs, m->g->arena, "num_outputs", 3), TRM_OK);
    return net_node(m, Sum, out[0], out[1], out[2]);
}

static inline int slices(net *m)
{
    int x = net_input(m, 4, 18, 5), axis = net_ints(m, 1);
    int a = net_node(m, Slice, x, net_ints(m, 0), net_ints(m, 6), axis);
    int b = net_node(m, Slice, x, net_ints(m, 6), net_ints(m, -6), axis);
    int c = net_node(m, Slice, x, net_ints(m, -6), net_ints(m, 1000), axis, net_ints(m, 1));

    return net_node(m, Sub, net_node(m, Mul, a, b), c);
}

static inline int slice_other(net *m)
{
    return net_node(m, Slice, net_input(m, 4, 9, 5), net_ints(m, 0, 7, 0),
                    net_ints(m, INT64_MAX, 1, 4), net_ints(m, 0, 1, 2), net_ints(m, 1, -2, 1));
}

static inline int pad(net *m)
{
    return net_node(m, Pad, net_input(m, 2, 7, 4, 4), net_ints(m, 0, 0, 1, 2, 0, 0, 2, 0));
}

static inline int pad_one(net *m)
{
    return net_node(m, Pad, net_input(m, 7, 4), net_ints(m, 0, 1, 0, 1),
                    net_floats(m, 0, 1, (const float[]){1}));
}

static inline int transpose(net *m)
{
    int y = net_node(m, Transpose, net_input(m, 4, 5, 6));

    net_list(m, "perm", 2, 0, 1);
    return y;
}

static inline int expand(net *m)
{
    return net_node(m, Expand, net_input(m, 5, 1), net_ints(m, 4, 1, 6));
}

static inline int tile(net *m)
{
    return net_node(m, Tile, net_input(m, 5, 6), net_ints(m, 1, 3));
}

static inline int resize(net *m)
{
    int y = net_node(m, Resize, net_input(m, 1, 6, 4, 4), TRM_NO_VALUE, TRM_NO_VALUE,
                     net_ints(m, 1, 6, 7, 9));

    net_string(m, "mode", "linear");
    return y;
}

static inline int resize_scales(net *m)
{
    int y = net_node(m, Resize, net_input(m, 1, 6, 4, 4), TRM_NO_VALUE,
                     net_floats(m, 1, 4, (const float[]){1, 1, 2, 2}));

    net_string(m, "mode", "nearest");
    return y;
}

static inline int merge_heads(net *m)
{
    return net_node(m, Reshape, net_input(m, 2, 5, 6, 4), net_ints(m, 0, 0, -1));
}

static inline int divide_heads(net *m)
{
    return net_node(m, Reshape, net_input(m, 2, 5, 24), net_ints(m, 0, -1, 6, 4));
}

static inline int misaligned(net *m)
{
    return net_node(m, Reshape, net_input(m, 6, 10), net_ints(m, 10, 6));
}

static inline int across(net *m) /* of 8, 4 are outside and 2 inside the new dim */
{
    return net_node(m, Reshape, net_input(m, 8, 6, 5), net_ints(m, 4, 12, 5));
}

static inline int flatten(net *m)
{
    return net_node(m, Flatten, net_input(m, 2, 5, 3, 3));
}

static inline int
squeeze_all(net *m) /* 4 elements on 4 ranks: parts of one are not to be squeezed */
{
    return net_node(m, Squeeze, net_input(m, 1, 4, 1, 5));
}

static inline int unsqueeze(net *m)
{
    return net_node(m, Unsqueeze, net_input(m, 4, 5), net_ints(m, 0, -1));
}

static inline int depth_to_space(net *m)
{
    int y = net_node(m, DepthToSpace, net_input(m, 1, 20, 3, 3));

    net_int(m, "blocksize", 2);
    return y;
}

static inline int depth_to_space_crd(net *m)
{
    int y = net_node(m, DepthToSpace, net_input(m, 1, 20, 3, 3));

    net_int(m, "blocksize", 2);
    net_string(m, "mode", "CRD");
    return y;
}

static inline int space_to_depth(net *m)
{
    int y = net_node(m, SpaceToDepth, net_input(m, 1, 5, 4, 6));

    net_int(m, "blocksize", 2);
    return y;
}

static inline int shuffle(net *m) /* channel shuffle of ShuffleNet */
{
    int x = net_node(m, Reshape, net_input(m, 1, 20, 3, 3), net_ints(m, 1, 2, 10, 3, 3));

    x = net_node(m, Transpose, x);
    net_list(m, "perm", 0, 2, 1, 3, 4);
    return net_node(m, Reshape, x, net_ints(m, 1, -1, 3, 3));
}

static inline int dropout(net *m)
{
    return net_node(m, Dropout, net_input(m, 4, 6));
}

static inline int gated(net *m)
{
    return net_node(m, SwiGLU, net_input(m, 4, 6), net_input(m, 4, 6));
}

static inline int sampled(net *m)
{
    return net_node(m, GridSample, net_input(m, 2, 6, 4, 4), net_input(m, 2, 3, 3, 2));
}

static inline int regions(net *m)
{
    int at = net_constant(m, TRM_DTYPE_I64, 1, DIMS(2));
    float rois[8] = {0, 0, 3, 3, 1, 1, 5, 4};
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {2, 4}, .data = rois};
    int boxes, y;

    ck_assert_int_eq(trm_graph_add_constant(m->g, "boxes", &t, &boxes), TRM_OK);
    y = net_node(m, RoiAlign, net_input(m, 1, 6, 6, 6), boxes, at);
    net_int(m, "output_height", 2);
    net_int(m, "output_width", 2);
    return y;
}

static inline int resize_named(net *m)
{
    int y = net_node(m, Resize, net_input(m, 1, 6, 4, 4), TRM_NO_VALUE, TRM_NO_VALUE,
                     net_ints(m, 7, 9));

    net_string(m, "mode", "linear");
    net_list(m, "axes", 2, 3);
    return y;
}

static inline int squeeze_named(net *m)
{
    return net_node(m, Squeeze, net_input(m, 1, 4, 1, 5), net_ints(m, -2));
}

static inline int linear_chain(net *m) /* partial sums through everything that keeps them */
{
    int w = net_weight(m, 6, 8), x = net_node(m, MatMul, net_input(m, 4, 6), w);
    int in[1], out[2];

    x = net_node(m, Add, x, net_weight(m, 8));
    x = net_node(m, Neg, net_node(m, Mul, x, net_weight(m, 4, 1)));
    x = net_node(m, Reshape, x, net_ints(m, 1, 2, 4, 4));
    in[0] = x = net_node(m, Pad, x, net_ints(m, 0, 0, 1, 1, 0, 0, 1, 1));
    x = net_node(m, AveragePool, x);
    net_list(m, "kernel_shape", 2, 2);
    (void)net_nodes(m, TRM_OP_Split, in, 1, out, 2);
    net_int(m, "axis", 1);
    net_int(m, "num_outputs", 2);
    in[0] = net_node(m, Sub, out[0], out[1]);
    in[0] = net_node(m, ReduceMean, in[0]);
    return net_node(m, Add, net_node(m, GlobalAveragePool, x), in[0]);
}

/* Grouped-query attention as exporters write it: keys of 3 heads repeated for 6 queries' heads. */
static inline int repeated_keys(net *m)
{
    int x = net_input(m, 2, 5, 10), q, k;

    q = net_node(m, MatMul, x, net_weight(m, 10, 24));
    k = net_node(m, MatMul, x, net_weight(m, 10, 12));
    q = net_node(m, Reshape, q, net_ints(m, 0, 0, 6, 4));
    k = net_node(m, Reshape, k, net_ints(m, 0, 0, 3, 4));
    q = net_node(m, Transpose, q);
    net_list(m, "perm", 0, 2, 1, 3);
    k = net_node(m, Transpose, k);
    net_list(m, "perm", 0, 2, 1, 3);
    k = net_node(m, Unsqueeze, k, net_ints(m, 2));
    k = net_node(m, Expand, k, net_ints(m, 1, 1, 2, 1, 1));
    k = net_node(m, Reshape, k, net_ints(m, 0, 6, -1, 4));
    k = net_node(m, Transpose, k);
    net_list(m, "perm", 0, 1, 3, 2);
    return net_node(m, MatMul, q, k);
}

/* GroupNormalization as exporters write it, over instances of merged channels. */
static inline int merged_groups(net *m)
{
    int x = net_node(m, Conv, net_input(m, 1, 3, 6, 6), net_weight(m, 20, 3, 1, 1));

    x = net_node(m, Reshape, x, net_ints(m, 0, 5, -1));
    x = net_node(m, InstanceNormalization, x, net_weight(m, 5), net_weight(m, 5));
    x = net_node(m, Reshape, x, net_ints(m, 1, 20, 6, 6));
    return net_node(m, Mul, x, net_weight(m, 20, 1, 1));
}

static inline int reported_shape(net *m) /* sequence is a symbol: as exporters write a reshape */
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

static inline int reported_size(net *m)
{
    int x = net_input_of(m, TRM_DTYPE_F32, 0, 1, DIMS(5, 12));
    int size = net_node(m, Cast, net_node(m, Size, x));

    net_int(m, "to", 1);
    return net_node(m, Div, x, size);
}

static inline int symbolic_expand(net *m)
{
    int x = net_input_of(m, TRM_DTYPE_F32, 0, 1, DIMS(5, 12));

    return net_node(m, Expand, net_weight(m, 1, 12), net_node(m, Shape, x));
}

#endif
