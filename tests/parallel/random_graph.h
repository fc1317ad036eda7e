/* Seeded random networks: what blocks of real ones are made of, strung together at random, with
 * uneven channel counts, branches and residuals. Dim 0 is a symbol in half of them. */
#ifndef TRM_TESTS_PARALLEL_RANDOM_GRAPH_H
#define TRM_TESTS_PARALLEL_RANDOM_GRAPH_H

#include "tests/parallel/graph_kit.h"

#define RANDOM_VALUES_MAX 64

typedef struct made { /* a float value: [N, C, H, W] or [N, S, D] */
    int id, rank;
    int64_t d[4];
} made;

typedef struct random_net {
    net m;
    bool symbolic;
    made values[RANDOM_VALUES_MAX];
    int count;
} random_net;

static inline int pick(random_net *r, int n)
{
    return net_pick(&r->m, n);
}
static inline int64_t between(random_net *r, int64_t low, int64_t high)
{
    return low + pick(r, (int)(high - low + 1));
}

static inline int scaled_weight(random_net *r, double scale, int rank, const int64_t *dims)
{
    int v = net_constant(&r->m, TRM_DTYPE_F32, 0, rank, dims);
    trm_tensor *t = &r->m.g->values[v].desc;

    for (size_t i = 0; i < trm_tensor_numel(t); i++)
        trm_tensor_set_f64(t, i, trm_tensor_get_f64(t, i) * scale);
    return v;
}
static inline int positive_weight(random_net *r, int64_t n)
{
    int v = net_constant(&r->m, TRM_DTYPE_F32, 0, 1, &n);
    trm_tensor *t = &r->m.g->values[v].desc;

    for (size_t i = 0; i < trm_tensor_numel(t); i++)
        trm_tensor_set_f64(t, i, 0.5 + fabs(trm_tensor_get_f64(t, i)));
    return v;
}

static inline made like(made x, int id)
{
    x.id = id;
    return x;
}
static inline made map_of(int id, int64_t n, int64_t c, int64_t h, int64_t w)
{
    return (made){id, 4, {n, c, h, w}};
}
static inline made seq_of(int id, int64_t n, int64_t s, int64_t d)
{
    return (made){id, 3, {n, s, d, 0}};
}

static inline made unary(random_net *r, made x)
{
    static const trm_op ops[] = {TRM_OP_Relu, TRM_OP_Sigmoid,     TRM_OP_Tanh, TRM_OP_Gelu,
                                 TRM_OP_Neg,  TRM_OP_HardSigmoid, TRM_OP_Abs,  TRM_OP_LeakyRelu};

    return like(x, net_node_of(&r->m, ops[pick(r, 8)], &x.id, 1));
}

/* A shape for Reshape: dim 0 copied, computed from Shape as exporters do, or plain. */
static inline int shape_for(random_net *r, int from, int rank, const int64_t *dims)
{
    int64_t list[6];
    int how = pick(r, 3), shape, zero, first;

    for (int i = 0; i < rank; i++)
        list[i] = dims[i];
    if (how == 0 && !r->symbolic)
        return net_ints_of(&r->m, rank, list);
    if (how < 2) {
        list[0] = 0;
        if (pick(r, 2))
            list[1 + pick(r, rank - 1)] = -1;
        return net_ints_of(&r->m, rank, list);
    }
    shape = net_node(&r->m, Shape, from);
    zero = net_ints(&r->m, 0);
    first = net_node(&r->m, Gather, shape, zero);
    if (pick(r, 2))
        list[1 + pick(r, rank - 1)] = -1;
    zero = net_node(&r->m, Concat, first, net_ints_of(&r->m, rank - 1, list + 1));
    net_int(&r->m, "axis", 0);
    return zero;
}

static inline int reshape(random_net *r, int x, int rank, const int64_t *dims)
{
    int shape = shape_for(r, x, rank, dims);

    return net_node(&r->m, Reshape, x, shape);
}
#define RESHAPE(r, x, ...) reshape(r, x, DIMS(__VA_ARGS__))

static inline int transpose_of(random_net *r, int x, int rank, const int64_t *perm)
{
    int y = net_node(&r->m, Transpose, x);

    net_list_of(&r->m, "perm", rank, perm);
    return y;
}
#define TRANSPOSE(r, x, ...) transpose_of(r, x, DIMS(__VA_ARGS__))

/* ---- feature maps ---- */

static inline made conv_block(random_net *r, made x)
{
    int64_t c = x.d[1], m = between(r, 3, 20), g = 1, k = pick(r, 2) ? 3 : 1;
    int in[3], y;

    if (pick(r, 3) == 0)
        for (g = between(r, 2, 6); c % g != 0; g--)
            ;
    if (pick(r, 6) == 0)
        g = c;
    m = (m + g - 1) / g * g;
    in[0] = x.id;
    in[1] = scaled_weight(r, 1.7 / sqrt((double)(c / g * k * k)), DIMS(m, c / g, k, k));
    in[2] = net_constant(&r->m, TRM_DTYPE_F32, 0, 1, &m);
    y = net_node_of(&r->m, TRM_OP_Conv, in, 2 + pick(r, 2));
    net_int(&r->m, "group", g);
    net_list(&r->m, "pads", k / 2, k / 2, k / 2, k / 2);
    return map_of(y, x.d[0], m, x.d[2], x.d[3]);
}

static inline made conv_transpose_block(random_net *r, made x)
{
    int64_t c = x.d[1], m = between(r, 3, 12);
    int w, y;

    if (x.d[2] > 4)
        return conv_block(r, x);
    w = scaled_weight(r, 1.2 / sqrt((double)c), DIMS(c, m, 2, 2));
    y = net_node(&r->m, ConvTranspose, x.id, w, net_constant(&r->m, TRM_DTYPE_F32, 0, 1, &m));
    net_list(&r->m, "strides", 2, 2);
    return map_of(y, x.d[0], m, 2 * x.d[2], 2 * x.d[3]);
}

static inline made norm_block(random_net *r, made x)
{
    int64_t c = x.d[1], g = 4;
    int a = net_constant(&r->m, TRM_DTYPE_F32, 0, 1, &c),
        b = net_constant(&r->m, TRM_DTYPE_F32, 0, 1, &c), y;

    switch (pick(r, 3)) {
    case 0:
        y = net_node(&r->m, BatchNormalization, x.id, a, b,
                     net_constant(&r->m, TRM_DTYPE_F32, 0, 1, &c), positive_weight(r, c));
        break;
    case 1:
        if (x.d[2] * x.d[3] < 4)
            return x;
        y = net_node(&r->m, InstanceNormalization, x.id, a, b);
        break;
    default:
        for (; c % g != 0; g--)
            ;
        if (c / g * x.d[2] * x.d[3] < 4)
            return x;
        y = net_node(&r->m, GroupNormalization, x.id, a, b);
        net_int(&r->m, "num_groups", g);
    }
    return like(x, y);
}

static inline made pool_block(random_net *r, made x)
{
    int y;

    if (x.d[2] < 4 || x.d[3] < 4)
        return unary(r, x);
    y = pick(r, 2) ? net_node(&r->m, MaxPool, x.id) : net_node(&r->m, AveragePool, x.id);
    net_list(&r->m, "kernel_shape", 2, 2);
    net_list(&r->m, "strides", 2, 2);
    return map_of(y, x.d[0], x.d[1], x.d[2] / 2, x.d[3] / 2);
}

static inline made gate_block(random_net *r, made x) /* squeeze and excitation */
{
    int64_t c = x.d[1], h = between(r, 2, 8);
    int y = net_node(&r->m, GlobalAveragePool, x.id);

    y = net_node(&r->m, Conv, y, scaled_weight(r, 1, DIMS(h, c, 1, 1)));
    y = net_node(&r->m, Relu, y);
    y = net_node(&r->m, Conv, y, scaled_weight(r, 1, DIMS(c, h, 1, 1)));
    y = net_node(&r->m, Sigmoid, y);
    return like(x, net_node(&r->m, Mul, x.id, y));
}

static inline made shuffle_block(random_net *r, made x)
{
    int64_t g = between(r, 2, 4), c = x.d[1];
    int y;

    for (; c % g != 0; g--)
        ;
    if (g == 1)
        return unary(r, x);
    y = RESHAPE(r, x.id, x.d[0], g, c / g, x.d[2], x.d[3]);
    y = TRANSPOSE(r, y, 0, 2, 1, 3, 4);
    return like(x, RESHAPE(r, y, x.d[0], c, x.d[2], x.d[3]));
}

static inline made depth_block(random_net *r, made x)
{
    int y;

    if (x.d[1] % 4 == 0 && x.d[2] <= 4) {
        y = net_node(&r->m, DepthToSpace, x.id);
        net_int(&r->m, "blocksize", 2);
        net_string(&r->m, "mode", pick(r, 2) ? "DCR" : "CRD");
        return map_of(y, x.d[0], x.d[1] / 4, 2 * x.d[2], 2 * x.d[3]);
    }
    if (x.d[1] <= 8 && x.d[2] % 2 == 0 && x.d[3] % 2 == 0) {
        y = net_node(&r->m, SpaceToDepth, x.id);
        net_int(&r->m, "blocksize", 2);
        return map_of(y, x.d[0], 4 * x.d[1], x.d[2] / 2, x.d[3] / 2);
    }
    return unary(r, x);
}

static inline made to_sequence(random_net *r, made x)
{
    int y = RESHAPE(r, x.id, x.d[0], x.d[1], x.d[2] * x.d[3]);

    if (pick(r, 3) == 0)
        return seq_of(y, x.d[0], x.d[1], x.d[2] * x.d[3]);
    return seq_of(TRANSPOSE(r, y, 0, 2, 1), x.d[0], x.d[2] * x.d[3], x.d[1]);
}

static inline made pad_block(random_net *r, made x)
{
    int y = net_node(&r->m, Pad, x.id, net_ints(&r->m, 0, 0, 1, 0, 0, 0, 1, 1));

    return map_of(y, x.d[0], x.d[1], x.d[2] + 2, x.d[3] + 1);
}

/* ---- sequences ---- */

static inline made linear_block(random_net *r, made x)
{
    int64_t n = between(r, 4, 24);
    int y = net_node(&r->m, MatMul, x.id,
                     scaled_weight(r, 1.7 / sqrt((double)x.d[2]), DIMS(x.d[2], n)));

    if (pick(r, 3) != 0)
        y = net_node(&r->m, Add, y, net_constant(&r->m, TRM_DTYPE_F32, 0, 1, &n));
    return seq_of(y, x.d[0], x.d[1], n);
}

static inline made rows_block(random_net *r, made x)
{
    int64_t d = x.d[2];
    int y;

    if (pick(r, 3) == 0 || d < 4) {
        y = net_node(&r->m, Softmax, x.id);
        net_int(&r->m, "axis", pick(r, 2) ? -1 : 1);
        return like(x, y);
    }
    y = net_node(&r->m, LayerNormalization, x.id, net_constant(&r->m, TRM_DTYPE_F32, 0, 1, &d),
                 net_constant(&r->m, TRM_DTYPE_F32, 0, 1, &d));
    net_int(&r->m, "axis", -1);
    return like(x, y);
}

/* Attention as exporters write it, query, key and value from one product or three. */
static inline made attention_block(random_net *r, made x)
{
    int64_t heads = between(r, 2, 6), size = between(r, 2, 4), e = heads * size;
    int64_t n = x.d[0], s = x.d[1], d = x.d[2];
    int q[3], y, how = pick(r, 4);
    double scale = 1.7 / sqrt((double)d);

    if (how == 0) {
        for (int i = 0; i < 3; i++) {
            q[i] = net_node(&r->m, MatMul, x.id, scaled_weight(r, scale, DIMS(d, e)));
            q[i] = TRANSPOSE(r, RESHAPE(r, q[i], n, s, heads, size), 0, 2, 1, 3);
        }
    } else {
        y = net_node(&r->m, MatMul, x.id, scaled_weight(r, scale, DIMS(d, 3 * e)));
        if (how == 1) {
            y = TRANSPOSE(r, RESHAPE(r, y, n, s, 3, heads, size), 2, 0, 3, 1, 4);
            for (int i = 0; i < 3; i++) {
                trm_tensor at = {.dtype = TRM_DTYPE_I64, .data = &(int64_t){i}};
                int index;

                ck_assert_int_eq(trm_graph_add_constant(r->m.g, net_name(&r->m, "at"), &at, &index),
                                 TRM_OK);
                q[i] = net_node(&r->m, Gather, y, index);
            }
        } else if (how == 2) {
            trm_node *node = net_nodes(&r->m, TRM_OP_Split, &y, 1, q, 3);

            ck_assert_int_eq(trm_attr_set_int(&node->attrs, r->m.g->arena, "axis", -1), TRM_OK);
            ck_assert_int_eq(trm_attr_set_int(&node->attrs, r->m.g->arena, "num_outputs", 3),
                             TRM_OK);
        } else {
            for (int i = 0; i < 3; i++)
                q[i] = net_node(&r->m, Slice, y, net_ints(&r->m, i * e),
                                net_ints(&r->m, (i + 1) * e), net_ints(&r->m, 2));
        }
        for (int i = 0; i < 3 && how > 1; i++)
            q[i] = TRANSPOSE(r, RESHAPE(r, q[i], n, s, heads, size), 0, 2, 1, 3);
    }
    y = net_node(&r->m, MatMul, q[0], TRANSPOSE(r, q[1], 0, 1, 3, 2));
    y = net_node(&r->m, Mul, y, net_floats(&r->m, 0, 1, (const float[]){1 / sqrtf((float)size)}));
    y = net_node(&r->m, Softmax, y);
    net_int(&r->m, "axis", -1);
    y = net_node(&r->m, MatMul, y, q[2]);
    y = RESHAPE(r, TRANSPOSE(r, y, 0, 2, 1, 3), n, s, e);
    y = net_node(&r->m, MatMul, y, scaled_weight(r, 1.7 / sqrt((double)e), DIMS(e, d)));
    return like(x, net_node(&r->m, Add, x.id, y));
}

/* Added: a difference of values that are nearly alike would blow rounding up. */
static inline made reduce_block(random_net *r, made x)
{
    int axis = 1 + pick(r, 2), y;

    y = pick(r, 2) ? net_node(&r->m, ReduceMean, x.id, net_ints(&r->m, axis))
                   : net_node(&r->m, ReduceMax, x.id, net_ints(&r->m, axis));
    return like(x, net_node(&r->m, Add, x.id, y));
}

static inline made gather_block(random_net *r, made x)
{
    int axis = 1 + pick(r, 2);
    int64_t list[8], count = between(r, 2, 8);
    int y;

    for (int i = 0; i < count; i++)
        list[i] = pick(r, (int)x.d[axis]) - (pick(r, 4) == 0 ? x.d[axis] : 0);
    y = net_node(&r->m, Gather, x.id, net_ints_of(&r->m, (int)count, list));
    net_int(&r->m, "axis", axis);
    x.d[axis] = count;
    return like(x, y);
}

static inline made transpose_block(random_net *r, made x)
{
    return seq_of(TRANSPOSE(r, x.id, 0, 2, 1), x.d[0], x.d[2], x.d[1]);
}

/* ---- both ---- */

static inline made *same_shape(random_net *r, made x, int but)
{
    int from = pick(r, r->count);

    for (int i = 0; i < r->count; i++) {
        made *v = &r->values[(from + i) % r->count];
        bool same = v->rank == x.rank && v->id != x.id;

        for (int d = 0; d < x.rank; d++)
            same = same && (d == but || v->d[d] == x.d[d]);
        if (same)
            return v;
    }
    return NULL;
}

static inline made join_block(random_net *r, made x)
{
    int axis = x.rank == 4 ? 1 : 1 + pick(r, 2), y, how = pick(r, 4);
    made *v = same_shape(r, x, how > 1 ? axis : -1);

    if (v == NULL || x.d[axis] > 40)
        return unary(r, x);
    if (how == 0)
        return like(x, net_node(&r->m, Mul, x.id, v->id));
    if (how == 1)
        return like(x, net_node(&r->m, Add, x.id, v->id));
    y = net_node(&r->m, Concat, x.id, v->id);
    net_int(&r->m, "axis", axis);
    x.d[axis] += v->d[axis];
    return like(x, y);
}

static inline made split_block(random_net *r, made x)
{
    int axis = x.rank == 4 ? 1 : 1 + pick(r, 2), in[2], out[2], left;
    int64_t a, c = x.d[axis];
    trm_node *n;

    if (c < 4 || r->count + 1 >= RANDOM_VALUES_MAX)
        return unary(r, x);
    a = between(r, 1, c - 1);
    if (pick(r, 3) == 0) {
        left = net_node(&r->m, Slice, x.id, net_ints(&r->m, a), net_ints(&r->m, INT64_MAX),
                        net_ints(&r->m, axis));
        x.d[axis] = c - a;
        return like(x, left);
    }
    in[0] = x.id;
    in[1] = net_ints(&r->m, a, c - a);
    n = net_nodes(&r->m, TRM_OP_Split, in, 2, out, 2);
    ck_assert_int_eq(trm_attr_set_int(&n->attrs, r->m.g->arena, "axis", axis), TRM_OK);
    x.d[axis] = a;
    r->values[r->count++] = like(x, out[0]);
    x.d[axis] = c - a;
    return like(x, out[1]);
}

static inline made next_block(random_net *r, made x)
{
    static made (*const maps[])(random_net *, made) = {
        conv_block, conv_block, conv_block,    conv_transpose_block, norm_block,  norm_block,
        pool_block, gate_block, shuffle_block, depth_block,          to_sequence, pad_block,
        unary,      unary,      join_block,    join_block,           split_block};
    static made (*const seqs[])(random_net *, made) = {
        linear_block,    linear_block, linear_block, rows_block,      rows_block,
        attention_block, reduce_block, gather_block, transpose_block, unary,
        unary,           join_block,   join_block,   split_block};

    return x.rank == 4 ? maps[pick(r, (int)(sizeof(maps) / sizeof(maps[0])))](r, x)
                       : seqs[pick(r, (int)(sizeof(seqs) / sizeof(seqs[0])))](r, x);
}

/* Close with net_close(&r.m). */
static inline random_net random_net_make(uint64_t seed)
{
    random_net r = {.m = net_open(seed)};
    int blocks, out[2], outs = 1;
    made x;

    r.symbolic = pick(&r, 2) == 1;
    if (pick(&r, 3) > 0) {
        x = map_of(0, 2, between(&r, 3, 12), between(&r, 3, 8), between(&r, 3, 8));
        x.id = net_input_of(&r.m, TRM_DTYPE_F32, 0, r.symbolic, 4, x.d);
    } else {
        x = seq_of(0, 2, between(&r, 3, 10), between(&r, 4, 20));
        x.id = net_input_of(&r.m, TRM_DTYPE_F32, 0, r.symbolic, 3, x.d);
    }
    r.values[r.count++] = x;
    blocks = (int)between(&r, 4, 14);
    for (int i = 0; i < blocks && r.count < RANDOM_VALUES_MAX - 2; i++) {
        x = next_block(&r, pick(&r, 4) == 0 ? r.values[pick(&r, r.count)] : x);
        if (x.id != r.values[r.count - 1].id)
            r.values[r.count++] = x;
    }
    out[0] = r.values[r.count - 1].id;
    if (r.count > 2 && pick(&r, 2) && r.values[r.count - 2].id != r.m.input_ids[0])
        out[outs++] = r.values[r.count - 2].id;
    if (out[0] == r.m.input_ids[0])
        out[0] = net_node(&r.m, Relu, out[0]);
    net_outputs(&r.m, out, outs);
    return r;
}

#endif
