/* Random small graphs with hand-made axes and random costs for the tests of the placement search,
 * and the cheapest placement by trying them all. Included by one test file. */
#ifndef TRM_TESTS_PLACEMENT_FAKE_H
#define TRM_TESTS_PLACEMENT_FAKE_H

#include "parallel/placement.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SIDE 8 /* every value is [SIDE, SIDE] */
#define NODES_MAX 64
#define VALUES_MAX 256

typedef struct fake {
    trm_sharding s;
    trm_tensor descs[VALUES_MAX];
    uint64_t seed;
    double node_us[NODES_MAX][8];
    double value_us[VALUES_MAX]; /* all-gather of the value */
    bool wild;                   /* changes cost anything, whatever their operator */
    double comm;                 /* scale of changes against nodes */
} fake;

static double uniform(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005U + 1442695040888963407U;
    return (double)(*seed >> 11) / 9007199254740992.0;
}

static double fake_node_us(void *ctx, const trm_sharding *s, int node, int strategy)
{
    (void)s;
    return ((fake *)ctx)->node_us[node][strategy];
}

static double fake_change_us(void *ctx, const trm_sharding *s, int value, trm_change change,
                             trm_form want)
{
    fake *f = ctx;
    double us = f->value_us[value] * f->comm;
    uint64_t seed;

    (void)s;
    if (f->wild) {
        seed = (uint64_t)value * 1000003U + (uint64_t)change.from * 10007U + (uint64_t)want * 101U +
               f->seed;
        uniform(&seed);
        return f->comm * 2 * uniform(&seed);
    }
    switch (change.op) {
    case TRM_OP_TrmAllReduce:
        return 2 * us;
    case TRM_OP_TrmAllToAll:
        return us / 2;
    case TRM_OP_TrmShard:
    case TRM_OP_Where:
        return us / 50;
    case TRM_OP_NONE:
        return 0;
    default:
        return us;
    }
}

static trm_placement_costs fake_costs(fake *f)
{
    return (trm_placement_costs){.ctx = f, .node_us = fake_node_us, .change_us = fake_change_us};
}

/* An empty graph whose values may be split along both dims. */
static fake *fake_create(int ranks)
{
    fake *f = calloc(1, sizeof(*f));
    trm_graph *g;

    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(trm_graph_create(NULL, "fake", &g), TRM_OK);
    f->s.graph = g;
    f->s.ranks = ranks;
    f->s.descs = f->descs;
    f->s.axes = calloc(NODES_MAX, sizeof(*f->s.axes));
    f->s.splits = calloc(VALUES_MAX, sizeof(*f->s.splits));
    ck_assert_int_eq(trm_arena_create(0, &f->s.arena), TRM_OK);
    f->comm = 1;
    return f;
}

static void fake_destroy(fake *f)
{
    trm_graph_destroy(f->s.graph);
    trm_arena_destroy(f->s.arena);
    free(f->s.axes);
    free(f->s.splits);
    free(f);
}

static int fake_value_of(fake *f, const char *base, bool constant, int rows, int cols)
{
    trm_graph *g = f->s.graph;
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {rows, cols}};
    static float zeros[256 * 256];
    int v;

    ck_assert_int_lt(g->value_count, VALUES_MAX);
    t.data = constant ? zeros : NULL;
    if (constant)
        ck_assert_int_eq(trm_graph_add_constant(g, trm_graph_fresh_name(g, base), &t, &v), TRM_OK);
    else
        ck_assert_int_eq(trm_graph_add_value(g, trm_graph_fresh_name(g, base), &t, &v), TRM_OK);
    f->descs[v] = t;
    for (int d = 0; d < 2; d++) {
        trm_split *split = &f->s.splits[v][d];

        split->count = 1;
        split->stretches = trm_arena_alloc(f->s.arena, 1, sizeof(trm_stretch));
        split->stretches[0] = (trm_stretch){d == 0 ? rows : cols, 1};
    }
    return v;
}

static int fake_value(fake *f, const char *base, bool constant)
{
    return fake_value_of(f, base, constant, SIDE, SIDE);
}

/* dims: of each input, then of the output; -1: not carried; -2 as output: summed over. */
static void fake_axis(fake *f, int node, const char *name, const int *dims)
{
    trm_axes *axes = &f->s.axes[node];
    int inputs = f->s.graph->nodes[node].input_count;
    trm_axis *a;

    if (axes->axes == NULL)
        axes->axes = trm_arena_alloc(f->s.arena, 6, sizeof(trm_axis));
    a = &axes->axes[axes->axis_count++];
    *a = (trm_axis){.name = name, .extent = SIDE, .unit = 1, .sum = dims[inputs] == -2};
    a->in = trm_arena_alloc(f->s.arena, (size_t)inputs, sizeof(trm_axis_dim));
    a->out = trm_arena_alloc(f->s.arena, 1, sizeof(trm_axis_dim));
    for (int i = 0; i < inputs; i++)
        a->in[i] = (trm_axis_dim){dims[i], 0, SIDE, 1, 1};
    a->out[0] = (trm_axis_dim){dims[inputs] == -2 ? -1 : dims[inputs], 0, SIDE, 1, 1};
}

/* Adds a node with the axes of its operator; returns its output. */
static int fake_node(fake *f, trm_op op, int a, int b)
{
    trm_graph *g = f->s.graph;
    int inputs[2] = {a, b}, count = b >= 0 ? 2 : 1, node, out;
    int64_t rows = f->descs[a].dims[0];
    int64_t cols = op == TRM_OP_MatMul ? f->descs[b].dims[1] : f->descs[a].dims[1];

    out = fake_value_of(f, "v", false, (int)rows, (int)cols);
    ck_assert_int_eq(trm_graph_add_node(g, op, "", inputs, count, &out, 1, &node), TRM_OK);
    g->nodes[node].name = g->values[out].name;
    switch (op) {
    case TRM_OP_MatMul:
        fake_axis(f, node, "columns", (int[]){-1, 1, 1});
        fake_axis(f, node, "sum", (int[]){1, 0, -2});
        f->s.axes[node].linear_count = 1;
        f->s.axes[node].linear_inputs[0] = 1;
        break;
    case TRM_OP_Add: /* of activations or a constant: partial sums add up */
        fake_axis(f, node, "rows", (int[]){0, 0, 0});
        fake_axis(f, node, "columns", (int[]){1, 1, 1});
        f->s.axes[node].linear_count = 1;
        f->s.axes[node].linear_inputs[0] = 3;
        break;
    case TRM_OP_Transpose:
        fake_axis(f, node, "a", (int[]){0, 1});
        fake_axis(f, node, "b", (int[]){1, 0});
        f->s.axes[node].linear_count = 1;
        f->s.axes[node].linear_inputs[0] = 1;
        break;
    case TRM_OP_Softmax:
        fake_axis(f, node, "rows", (int[]){0, 0});
        break;
    default:
        fake_axis(f, node, "rows", (int[]){0, 0});
        fake_axis(f, node, "columns", (int[]){1, 1});
        break;
    }
    return out;
}

static void fake_random_costs(fake *f)
{
    const trm_graph *g = f->s.graph;

    for (int n = 0; n < g->node_count; n++) {
        double us =
            g->nodes[n].op == TRM_OP_MatMul ? 2 + 4 * uniform(&f->seed) : 0.5 * uniform(&f->seed);

        for (int st = 0; st < trm_sharding_strategy_count(&f->s, n); st++) {
            double share = st == 0 || st > f->s.axes[n].axis_count
                               ? 1
                               : (1 + 0.3 * uniform(&f->seed)) / f->s.ranks;

            f->node_us[n][st] = us * share;
        }
    }
    for (int v = 0; v < g->value_count; v++)
        f->value_us[v] = 0.2 + uniform(&f->seed);
}

/* A random graph: a chain, or any. What nobody reads is an output. */
static fake *fake_random(uint64_t seed, int nodes, bool chain)
{
    static const trm_op ops[] = {TRM_OP_MatMul, TRM_OP_Relu,      TRM_OP_Add,   TRM_OP_Softmax,
                                 TRM_OP_MatMul, TRM_OP_Transpose, TRM_OP_MatMul};
    fake *f = fake_create(2);
    trm_graph *g = f->s.graph;
    int made[NODES_MAX], count = 0, outputs[NODES_MAX], output_count = 0, input, weight = -1;

    f->seed = seed * 7919 + 17;
    for (int i = 0; i < 8; i++)
        uniform(&f->seed);
    input = fake_value(f, "x", false);
    ck_assert_int_eq(trm_graph_set_inputs(g, &input, 1), TRM_OK);
    made[count++] = input;
    for (int n = 0; n < nodes; n++) {
        trm_op op = ops[(int)(uniform(&f->seed) * 7)];
        int back = chain ? 0 : (int)(uniform(&f->seed) * uniform(&f->seed) * count);
        int a = made[count - 1 - back], b = -1;

        if (op == TRM_OP_MatMul) {
            if (weight < 0 || uniform(&f->seed) < 0.8)
                weight = fake_value(f, "w", true);
            b = weight;
        } else if (op == TRM_OP_Add) {
            b = chain ? fake_value(f, "w", true) : made[(int)(uniform(&f->seed) * count)];
        }
        made[count++] = fake_node(f, op, a, b);
    }
    for (int i = 1; i < count; i++)
        if (trm_graph_use_count(g, made[i]) == 0 || uniform(&f->seed) < 0.1)
            outputs[output_count++] = made[i];
    ck_assert_int_eq(trm_graph_set_outputs(g, outputs, output_count), TRM_OK);
    f->comm = 0.3 + 3 * uniform(&f->seed) * uniform(&f->seed);
    fake_random_costs(f);
    return f;
}

/* ---- the cheapest by trying all, dropping only what is dearer already ---- */
typedef struct trial {
    const trm_sharding *s;
    trm_placement_costs costs;
    int now[NODES_MAX], best[NODES_MAX];
    double least;
} trial;

static double try_form(const trial *t, int v, trm_form want, uint16_t *have)
{
    trm_change c;

    if ((have[v] >> want & 1) != 0)
        return 0;
    c = trm_form_change(have[v], want);
    if (!trm_graph_is_constant(t->s->graph, v) && c.op == TRM_OP_NONE)
        return INFINITY;
    have[v] |= (uint16_t)(1U << want);
    if (c.op == TRM_OP_TrmAllGather)
        have[v] |= 1U << TRM_FORM_WHOLE; /* on the way to a partial sum */
    return trm_graph_is_constant(t->s->graph, v)
               ? 0
               : t->costs.change_us(t->costs.ctx, t->s, v, c, want);
}

static void try_from(trial *t, int n, double cost, const uint16_t *have)
{
    const trm_graph *g = t->s->graph;
    uint16_t mine[VALUES_MAX];

    if (n == g->node_count) {
        memcpy(mine, have, sizeof(mine));
        for (int i = 0; i < g->output_count; i++)
            cost += try_form(t, g->outputs[i], TRM_FORM_WHOLE, mine);
        if (cost < t->least) {
            t->least = cost;
            memcpy(t->best, t->now, sizeof(t->best));
        }
        return;
    }
    for (int st = 0; st < trm_sharding_strategy_count(t->s, n); st++) {
        const trm_node *node = &g->nodes[n];
        double sum = cost;

        if (!trm_sharding_possible(t->s, n, st))
            continue;
        memcpy(mine, have, sizeof(mine));
        for (int i = 0; i < node->input_count; i++)
            sum += try_form(t, node->inputs[i], trm_sharding_wants(t->s, n, st, i), mine);
        sum += t->costs.node_us(t->costs.ctx, t->s, n, st);
        mine[node->outputs[0]] = (uint16_t)(1U << trm_sharding_yields(t->s, n, st, 0));
        t->now[n] = st;
        if (sum < t->least)
            try_from(t, n + 1, sum, mine);
    }
}

static double try_all(fake *f, int *strategy_out)
{
    trial t = {.s = &f->s, .costs = fake_costs(f), .least = INFINITY};
    uint16_t have[VALUES_MAX] = {0};

    for (int i = 0; i < f->s.graph->input_count; i++)
        have[f->s.graph->inputs[i]] = 1U << TRM_FORM_WHOLE;
    try_from(&t, 0, 0, have);
    memcpy(strategy_out, t.best, sizeof(t.best));
    return t.least;
}

#endif
