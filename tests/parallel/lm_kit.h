/* Small language models by hand, as model/architectures builds them, with random weights. */
#ifndef TRM_TESTS_PARALLEL_LM_KIT_H
#define TRM_TESTS_PARALLEL_LM_KIT_H

#include "base/f8.h"
#include "base/tree.h"
#include "kernels/language.h"
#include "tests/parallel/graph_kit.h"

typedef struct lm_shape {
    const char *name;
    int64_t heads, kv, head, hidden, ffn, vocabulary;
    int layers;
    int experts, top_k, groups; /* 0: none */
    bool qk_norm, biased, tied, transposed, act_bf16, encoder;
    int window; /* of odd layers */
    trm_dtype weights;
} lm_shape;

static inline void lm_f8_scales(net *m, trm_dtype dtype, size_t blocks, size_t k, unsigned char *at)
{
    size_t row = k / trm_dtype_block_elems(dtype);
    float scale = 0;

    for (size_t b = 0; b < blocks; b++, at += trm_dtype_block_bytes(dtype)) {
        if (dtype == TRM_DTYPE_F8_128 || b % row == 0)
            scale = (float)(0.002 * (1 + net_random(m) / 2));
        memcpy(at, &scale, sizeof(scale));
    }
}

/* A weight of any dtype: block scales such that values are around 1 / 8. */
static inline int lm_weight(net *m, trm_dtype dtype, int rank, const int64_t *dims)
{
    trm_tensor t = {.dtype = dtype, .rank = rank};
    size_t bytes, block = trm_dtype_block_bytes(dtype);
    unsigned char *at;
    int v;

    for (int d = 0; d < rank; d++)
        t.dims[d] = dims[d];
    if (!trm_dtype_is_block(dtype)) {
        t = net_tensor(m, dtype, rank, dims, 0);
        for (size_t i = 0; i < trm_tensor_numel(&t); i++)
            trm_tensor_set_f64(&t, i, trm_tensor_get_f64(&t, i) / 8);
    } else {
        ck_assert_msg(trm_tensor_bytes(&t, &bytes) == TRM_OK, "%s", trm_message());
        t.data = at = trm_malloc(bytes, 1);
        for (size_t i = 0; i < bytes; i++) {
            at[i] = (unsigned char)net_pick(m, 256);
            if (trm_dtype_is_f8(dtype) && trm_e4m3_is_nan(at[i]))
                at[i] = 0;
        }
        if (trm_dtype_is_f8(dtype))
            lm_f8_scales(m, dtype, bytes / block, (size_t)dims[rank - 1], at);
        for (size_t b = 0; b < bytes && !trm_dtype_is_f8(dtype); b += block) {
            /* where a block's fp16 scales lie: in front, or at the end */
            size_t from = dtype == TRM_DTYPE_Q6_K   ? block - 2
                          : dtype == TRM_DTYPE_Q3_K ? block - 2
                          : dtype == TRM_DTYPE_Q2_K ? block - 4
                                                    : 0;
            bool two = dtype == TRM_DTYPE_Q4_1 || dtype == TRM_DTYPE_Q5_1 ||
                       dtype == TRM_DTYPE_Q2_K || dtype == TRM_DTYPE_Q4_K ||
                       dtype == TRM_DTYPE_Q5_K;
            uint16_t scale = trm_f32_to_f16((float)(0.002 * (1 + net_random(m) / 2)));

            memcpy(at + b + from, &scale, 2);
            if (two)
                memcpy(at + b + from + 2, &scale, 2);
        }
    }
    ck_assert_int_eq(trm_graph_add_constant(m->g, net_name(m, "w"), &t, &v), TRM_OK);
    trm_free(t.data);
    return v;
}

/* Elements of a leaf: as model/architectures has it, so that no head and no block is cut. */
static inline int64_t lm_unit(int64_t k, int64_t whole)
{
    return k / trm_tree_leaves(k / whole);
}

/* [n, k] on x; unit 0: no leaves. */
static inline int lm_linear(net *m, const lm_shape *s, int x, int64_t n, int64_t k, int64_t unit)
{
    int in[3] = {x, lm_weight(m, s->weights, 2,
                              s->transposed ? (const int64_t[]){k, n} : (const int64_t[]){n, k})};
    int y;

    if (s->biased)
        in[2] = net_constant(m, TRM_DTYPE_F32, 0, 1, (const int64_t[]){n});
    y = net_node_of(m, TRM_OP_TrmLinear, in, s->biased ? 3 : 2);
    if (unit > 0)
        net_int(m, "unit", unit);
    if (s->transposed)
        net_int(m, "transposed", 1);
    if (s->act_bf16)
        net_string(m, "act", "bf16");
    return y;
}

static inline int lm_norm(net *m, const lm_shape *s, int x, int64_t width)
{
    int in[3] = {x, net_constant(m, TRM_DTYPE_F32, 0, 1, &width)}, y;

    if (s->encoder)
        in[2] = net_constant(m, TRM_DTYPE_F32, 0, 1, &width);
    y = net_node_of(m, TRM_OP_TrmNorm, in, s->encoder ? 3 : 2);
    net_string(m, "kind", s->encoder ? "layer" : "rms");
    return y;
}

static inline int lm_add(net *m, int a, int b)
{
    int in[2] = {a, b};

    return net_node_of(m, TRM_OP_Add, in, 2);
}

typedef struct lm_inputs { /* values of the graph */
    int tokens, positions, step, rows;
} lm_inputs;

static inline int lm_attention(net *m, const lm_shape *s, const lm_inputs *io, int x, int layer)
{
    float frequencies[128];
    int64_t width = s->heads * s->head, kv = s->kv * s->head;
    int64_t whole = s->head, block = (int64_t)trm_dtype_block_elems(s->weights);
    int q = lm_linear(m, s, x, width, s->hidden, 0), k = lm_linear(m, s, x, kv, s->hidden, 0),
        v = lm_linear(m, s, x, kv, s->hidden, 0), in[4], f;

    while (whole % 32 != 0 || whole % block != 0)
        whole += s->head;
    if (s->qk_norm) {
        q = lm_norm(m, s, q, s->head);
        k = lm_norm(m, s, k, s->head);
    }
    for (int i = 0; i < s->head / 2; i++)
        frequencies[i] = 1.0f / (float)(1 + i * i);
    f = net_floats(m, 1, (int)s->head / 2, frequencies);
    q = net_node_of(m, TRM_OP_TrmRope, (int[]){q, io->positions, f}, 3);
    net_int(m, "head_dim", s->head);
    k = net_node_of(m, TRM_OP_TrmRope, (int[]){k, io->positions, f}, 3);
    net_int(m, "head_dim", s->head);
    in[0] = q;
    in[1] = k;
    in[2] = v;
    in[3] = io->step;
    x = net_node_of(m, TRM_OP_TrmPagedAttention, in, 4);
    net_int(m, "heads", s->heads);
    net_int(m, "kv_heads", s->kv);
    net_int(m, "head_dim", s->head);
    net_int(m, "group", s->heads / s->kv);
    net_int(m, "layer", layer);
    if (s->encoder)
        net_int(m, "encoder", 1);
    if (s->window > 0 && layer % 2 == 1)
        net_int(m, "window", s->window);
    ck_assert_int_eq(
        trm_attr_set_float(&net_last(m)->attrs, m->g->arena, "scale", 1.0f / sqrtf((float)s->head)),
        TRM_OK);
    return lm_linear(m, s, x, s->hidden, width, lm_unit(width, width % whole ? width : whole));
}

static inline int lm_mlp(net *m, const lm_shape *s, int x)
{
    int64_t whole =
        32 > trm_dtype_block_elems(s->weights) ? 32 : (int64_t)trm_dtype_block_elems(s->weights);
    lm_shape plain = *s;
    int y, in[5];

    if (s->experts == 0) {
        int gate = lm_linear(m, s, x, s->ffn, s->hidden, 0);

        in[0] = gate;
        if (!s->encoder)
            in[1] = lm_linear(m, s, x, s->ffn, s->hidden, 0);
        y = net_node_of(m, TRM_OP_TrmGated, in, s->encoder ? 1 : 2);
        net_string(m, "act", s->encoder ? "gelu" : "silu");
        return lm_linear(m, s, y, s->hidden, s->ffn, lm_unit(s->ffn, whole));
    }
    plain.weights = TRM_DTYPE_F32;
    in[0] = x;
    in[1] = lm_linear(m, &plain, x, s->experts, s->hidden, 0);
    in[2] = lm_weight(m, s->weights, 3, (const int64_t[]){s->experts, s->ffn, s->hidden});
    in[3] = lm_weight(m, s->weights, 3, (const int64_t[]){s->experts, s->ffn, s->hidden});
    in[4] = lm_weight(m, s->weights, 3, (const int64_t[]){s->experts, s->hidden, s->ffn});
    y = net_node_of(m, TRM_OP_TrmExperts, in, 5);
    net_int(m, "top_k", s->top_k);
    net_int(m, "normalize", 1);
    net_int(m, "groups", s->groups);
    net_string(m, "act", "silu");
    return y;
}

static inline int lm_input(net *m, const char *name, trm_dtype dtype, const char *symbol)
{
    trm_tensor t = {.dtype = dtype, .rank = 1, .dims = {1}};
    int v;

    if (symbol != NULL)
        ck_assert_int_eq(trm_graph_symbol(m->g, symbol, &t.dims[0]), TRM_OK);
    ck_assert_int_eq(trm_graph_add_value(m->g, name, &t, &v), TRM_OK);
    m->input_ids[m->input_count++] = v;
    return v;
}

/* m->inputs stay empty: steps bring their own. */
static inline net lm_open(const lm_shape *s, uint64_t seed)
{
    net m = net_open(seed);
    lm_inputs io;
    int table, h, logits;

    io.tokens = lm_input(&m, "tokens", TRM_DTYPE_I32, "tokens");
    io.positions = lm_input(&m, "positions", TRM_DTYPE_I32, "tokens");
    io.step = lm_input(&m, "step", TRM_DTYPE_I64, s->encoder ? "sequences" : NULL);
    io.rows = lm_input(&m, "rows", TRM_DTYPE_I32, "rows");
    table = lm_weight(&m, s->weights, 2, (const int64_t[]){s->vocabulary, s->hidden});
    h = net_node_of(&m, TRM_OP_TrmEmbed, (int[]){io.tokens, table}, 2);
    for (int l = 0; l < s->layers; l++) {
        h = lm_add(&m, h, lm_attention(&m, s, &io, lm_norm(&m, s, h, s->hidden), l));
        h = lm_add(&m, h, lm_mlp(&m, s, lm_norm(&m, s, h, s->hidden)));
    }
    if (s->encoder) {
        h = net_node_of(&m, TRM_OP_TrmPool, (int[]){lm_norm(&m, s, h, s->hidden), io.step}, 2);
        net_string(&m, "kind", "mean");
        net_int(&m, "normalize", s->tied);
        net_outputs(&m, &h, 1);
        return m;
    }
    h = net_node_of(&m, TRM_OP_TrmRows, (int[]){lm_norm(&m, s, h, s->hidden), io.rows}, 2);
    if (s->tied)
        logits = net_node_of(&m, TRM_OP_TrmLinear, (int[]){h, table}, 2);
    else
        logits = lm_linear(&m, s, h, s->vocabulary, s->hidden, 0);
    net_outputs(&m, &logits, 1);
    return m;
}

/* Concrete inputs of a step: `tokens` tokens, `rows` rows of logits. */
static inline void lm_descs(int64_t tokens, int64_t rows, trm_tensor descs[4])
{
    descs[0] = (trm_tensor){.dtype = TRM_DTYPE_I32, .rank = 1, .dims = {tokens}};
    descs[1] = descs[0];
    descs[2] = (trm_tensor){.dtype = TRM_DTYPE_I64, .rank = 1, .dims = {1}};
    descs[3] = (trm_tensor){.dtype = TRM_DTYPE_I32, .rank = 1, .dims = {rows}};
}

/* The strategy whose axis has this name; -1: none that is possible. */
static inline int lm_axis(const trm_sharding *s, int node, const char *name)
{
    for (int k = 0; k < s->axes[node].axis_count; k++)
        if (strcmp(s->axes[node].axes[k].name, name) == 0 && trm_sharding_possible(s, node, k + 1))
            return k + 1;
    return -1;
}

/* Tensor parallel as everybody does it: heads, features, sums, experts and vocabulary divided. */
static inline void lm_strategy(const trm_sharding *s, int *strategy)
{
    static const char *const wanted[] = {"kv heads", "query heads", "heads",    "groups",
                                         "sum",      "experts",     "features", "out features"};

    for (int n = 0; n < s->graph->node_count; n++) {
        trm_op op = s->graph->nodes[n].op;

        strategy[n] = 0;
        for (int w = 0; w < 8 && op != TRM_OP_TrmEmbed && op != TRM_OP_TrmRows; w++) {
            int k = lm_axis(s, n, wanted[w]);

            if (k > 0) {
                strategy[n] = k;
                break;
            }
        }
    }
}

#endif
