/* Small graphs with random weights, and the check that a plan computes what one rank computes. */
#ifndef TRM_TESTS_PARALLEL_GRAPH_KIT_H
#define TRM_TESTS_PARALLEL_GRAPH_KIT_H

#include "tests/parallel/spmd_kit.h"

#define KIT_INPUTS_MAX 8

typedef struct net {
    trm_graph *g;
    uint64_t seed;
    int count;        /* for names */
    uint32_t symbols; /* dims of float inputs that are symbols, beside those asked for */
    trm_tensor inputs[KIT_INPUTS_MAX];
    int input_ids[KIT_INPUTS_MAX];
    int input_count;
} net;

static inline double net_random(net *m) /* [-1, 1) */
{
    m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(m->seed >> 11) / (double)((int64_t)1 << 52) - 1.0;
}
static inline int net_pick(net *m, int n) /* [0, n) */
{
    return (int)((net_random(m) + 1) / 2 * n);
}

static inline net net_open(uint64_t seed)
{
    net m = {.seed = seed * 2654435761u + 12345};

    ck_assert_int_eq(trm_graph_create(NULL, "net", &m.g), TRM_OK);
    for (int i = 0; i < 4; i++)
        (void)net_random(&m);
    return m;
}

static inline void net_close(net *m)
{
    for (int i = 0; i < m->input_count; i++)
        trm_free(m->inputs[i].data);
    trm_graph_destroy(m->g);
}

static inline const char *net_name(net *m, const char *kind)
{
    static char name[64];

    snprintf(name, sizeof(name), "%s%d", kind, m->count++);
    return name;
}

static inline trm_tensor net_tensor(net *m, trm_dtype dtype, int rank, const int64_t *dims,
                                    int64_t limit)
{
    trm_tensor t = {.dtype = dtype, .rank = rank};
    size_t bytes;

    for (int i = 0; i < rank; i++)
        t.dims[i] = dims[i];
    ck_assert_int_eq(trm_tensor_bytes(&t, &bytes), TRM_OK);
    t.data = trm_malloc(bytes + 1, 1);
    for (size_t i = 0; i < trm_tensor_numel(&t); i++)
        if (limit > 0)
            trm_tensor_set_i64(&t, i, (int64_t)((net_random(m) + 1) / 2 * (double)limit));
        else
            trm_tensor_set_f64(&t, i, net_random(m));
    return t;
}

#define DIMS(...)                                                                                  \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / 8), (const int64_t[])                                 \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

/* `symbols`: bit d set: dim d is a symbol ("n<extent>") in the graph. limit > 0: integers below. */
static inline int net_input_of(net *m, trm_dtype dtype, int64_t limit, uint32_t symbols, int rank,
                               const int64_t *dims)
{
    trm_tensor desc;
    int v;

    m->inputs[m->input_count] = net_tensor(m, dtype, rank, dims, limit);
    desc = m->inputs[m->input_count];
    for (int d = 0; d < rank; d++)
        if ((symbols | (dtype == TRM_DTYPE_F32 ? m->symbols : 0)) >> d & 1u) {
            char name[32];

            snprintf(name, sizeof(name), "n%lld", (long long)dims[d]);
            ck_assert_int_eq(trm_graph_symbol(m->g, name, &desc.dims[d]), TRM_OK);
        }
    ck_assert_int_eq(trm_graph_add_value(m->g, net_name(m, "in"), &desc, &v), TRM_OK);
    m->input_ids[m->input_count++] = v;
    return v;
}
#define net_input(m, ...) net_input_of(m, TRM_DTYPE_F32, 0, 0, DIMS(__VA_ARGS__))

static inline int net_constant(net *m, trm_dtype dtype, int64_t limit, int rank,
                               const int64_t *dims)
{
    trm_tensor t = net_tensor(m, dtype, rank, dims, limit);
    int v;

    ck_assert_int_eq(trm_graph_add_constant(m->g, net_name(m, "w"), &t, &v), TRM_OK);
    trm_free(t.data);
    return v;
}
#define net_weight(m, ...) net_constant(m, TRM_DTYPE_F32, 0, DIMS(__VA_ARGS__))

static inline int net_ints_of(net *m, int count, const int64_t *values)
{
    trm_tensor t = {
        .dtype = TRM_DTYPE_I64, .rank = 1, .dims = {count}, .data = (void *)(uintptr_t)values};
    int v;

    ck_assert_int_eq(trm_graph_add_constant(m->g, net_name(m, "ints"), &t, &v), TRM_OK);
    return v;
}
#define net_ints(m, ...) net_ints_of(m, DIMS(__VA_ARGS__))

static inline int net_floats(net *m, int rank, int count, const float *values)
{
    trm_tensor t = {
        .dtype = TRM_DTYPE_F32, .rank = rank, .dims = {count}, .data = (void *)(uintptr_t)values};
    int v;

    ck_assert_int_eq(trm_graph_add_constant(m->g, net_name(m, "floats"), &t, &v), TRM_OK);
    return v;
}

static inline trm_node *net_nodes(net *m, trm_op op, const int *in, int count, int *out, int outs)
{
    int at;

    for (int k = 0; k < outs; k++)
        ck_assert_int_eq(trm_graph_add_value(m->g, net_name(m, "v"), NULL, &out[k]), TRM_OK);
    ck_assert_int_eq(
        trm_graph_add_node(m->g, op, net_name(m, trm_op_get(op)->name), in, count, out, outs, &at),
        TRM_OK);
    return &m->g->nodes[at];
}

static inline int net_node_of(net *m, trm_op op, const int *in, int count)
{
    int out;

    (void)net_nodes(m, op, in, count, &out, 1);
    return out;
}
#define net_node(m, op, ...)                                                                       \
    net_node_of(m, TRM_OP_##op, (const int[]){__VA_ARGS__},                                        \
                (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)))

static inline trm_node *net_last(net *m)
{
    return &m->g->nodes[m->g->node_count - 1];
}
static inline void net_int(net *m, const char *name, int64_t v)
{
    ck_assert_int_eq(trm_attr_set_int(&net_last(m)->attrs, m->g->arena, name, v), TRM_OK);
}
static inline void net_string(net *m, const char *name, const char *v)
{
    ck_assert_int_eq(trm_attr_set_string(&net_last(m)->attrs, m->g->arena, name, v), TRM_OK);
}
static inline void net_list_of(net *m, const char *name, int count, const int64_t *v)
{
    ck_assert_int_eq(trm_attr_set_ints(&net_last(m)->attrs, m->g->arena, name, v, (size_t)count),
                     TRM_OK);
}
#define net_list(m, name, ...) net_list_of(m, name, DIMS(__VA_ARGS__))

static inline void net_outputs(net *m, const int *out, int count)
{
    ck_assert_int_eq(trm_graph_set_inputs(m->g, m->input_ids, m->input_count), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(m->g, out, count), TRM_OK);
    ck_assert_msg(trm_graph_sort(m->g) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_graph_infer(m->g) == TRM_OK, "%s", trm_message());
}

/* ---- checking plans ---- */

typedef struct checker {
    trm_graph *g;
    const trm_tensor *inputs;
    trm_arena *arena;
    trm_tensor *descs;
    trm_tensor *want; /* [output_count] of one rank */
    trm_sharding *s;
    double worst;
    const bool *skip; /* [output_count] or NULL: not compared */
} checker;

static inline void check_open(checker *c, trm_graph *g, const trm_tensor *inputs)
{
    spmd_rank one = {.g = g};
    trm_tensor descs[64];

    *c = (checker){.g = g, .inputs = inputs};
    ck_assert_int_eq(trm_arena_create(0, &c->arena), TRM_OK);
    c->descs = trm_calloc((size_t)g->value_count + 1, sizeof(trm_tensor));
    c->want = trm_calloc((size_t)g->output_count + 1, sizeof(trm_tensor));
    ck_assert_int_le(g->input_count, 64);
    for (int i = 0; i < g->input_count; i++) {
        descs[i] = inputs[i];
        descs[i].data = NULL;
    }
    ck_assert_msg(trm_shapes_bind(g, descs, c->arena, c->descs) == TRM_OK, "%s", trm_message());
    spmd_run(&one, 1, inputs);
    for (int i = 0; i < g->output_count; i++)
        c->want[i] = spmd_copy(&one.values[g->outputs[i]]);
    spmd_drop_values(&one);
}

static inline void check_ranks(checker *c, int ranks)
{
    trm_sharding_destroy(c->s);
    c->s = NULL;
    ck_assert_msg(trm_sharding_create(c->g, c->descs, ranks, &c->s) == TRM_OK, "%s", trm_message());
}

static inline void check_close(checker *c)
{
    for (int i = 0; i < c->g->output_count; i++)
        trm_aligned_free(c->want[i].data);
    trm_sharding_destroy(c->s);
    trm_arena_destroy(c->arena);
    trm_free(c->want);
    trm_free(c->descs);
}

/* Every element of every split weight is on exactly one rank, and is the weight's. */
static inline void check_weights(checker *c, const spmd_rank *ranks)
{
    char name[256];

    for (int v = 0; v < c->g->value_count; v++) {
        const trm_tensor *whole = &c->g->values[v].desc;

        for (int d = 0; whole->data != NULL && d < whole->rank; d++) {
            size_t elem = trm_dtype_bytes(whole->dtype), covered = 0;
            size_t inner = trm_tensor_count(whole, d + 1, whole->rank) * elem;
            unsigned char *seen;

            snprintf(name, sizeof(name), "%.200s:split%d", c->g->values[v].name, d);
            if (trm_graph_find_value(ranks[0].g, name) < 0)
                continue;
            seen = trm_calloc((size_t)whole->dims[d] + 1, 1);
            for (int r = 0; r < c->s->ranks; r++) {
                int at = trm_graph_find_value(ranks[r].g, name);
                int64_t ranges[TRM_SPLIT_STRETCHES_MAX][2], row = 0;
                const trm_split *split = &c->s->splits[v][d];
                trm_tensor part;

                ck_assert_int_ge(at, 0);
                ck_assert_int_eq(trm_graph_constant(ranks[r].g, at, &part), TRM_OK);
                trm_split_ranges(split, c->s->ranks, r, ranges);
                for (int i = 0; i < split->count; i++)
                    for (int64_t e = ranges[i][0]; e < ranges[i][1]; e++, row++) {
                        ck_assert_int_eq(seen[e]++, 0);
                        covered++;
                        for (size_t o = 0; o < trm_tensor_count(whole, 0, d); o++)
                            ck_assert_int_eq(
                                memcmp((const char *)part.data +
                                           (o * (size_t)part.dims[d] + (size_t)row) * inner,
                                       (const char *)whole->data +
                                           (o * (size_t)whole->dims[d] + (size_t)e) * inner,
                                       inner),
                                0);
                    }
                ck_assert_int_eq(row, part.dims[d]);
            }
            ck_assert_uint_eq(covered, (size_t)whole->dims[d]);
            trm_free(seen);
        }
    }
}

/* Lowers the plan for all ranks, runs them in lockstep, compares with one rank. */
static inline void check_plan(checker *c, const int *strategy, const char *what)
{
    spmd_rank ranks[SPMD_RANKS_MAX] = {{0}};
    int count = c->s->ranks;

    for (int r = 0; r < count; r++)
        ck_assert_msg(trm_lower(c->s, strategy, r, &ranks[r].g) == TRM_OK, "%s: rank %d: %s", what,
                      r, trm_message());
    spmd_check_structure(ranks, count);
    check_weights(c, ranks);
    spmd_run(ranks, count, c->inputs);
    for (int r = 0; r < count; r++)
        for (int i = 0; i < c->g->output_count; i++) {
            double e;

            ck_assert_str_eq(ranks[r].g->values[ranks[r].g->outputs[i]].name,
                             c->g->values[c->g->outputs[i]].name);
            if (c->skip != NULL && c->skip[i])
                continue;
            e = spmd_error(&ranks[r].values[ranks[r].g->outputs[i]], &c->want[i]);
            c->worst = e > c->worst ? e : c->worst;
            ck_assert_msg(e <= 1e-5, "%s: %d ranks: output %d on rank %d is off by %g of the scale",
                          what, count, i, r, e);
        }
    for (int r = 0; r < count; r++) {
        spmd_drop_values(&ranks[r]);
        trm_graph_destroy(ranks[r].g);
    }
}

static inline const char *strategy_name(const trm_sharding *s, int node, int strategy)
{
    static char text[160];
    int axes = s->axes[node].axis_count;

    snprintf(text, sizeof(text), "%s '%s' %s", trm_op_get(s->graph->nodes[node].op)->name,
             s->graph->nodes[node].name,
             strategy == 0      ? "whole"
             : strategy <= axes ? s->axes[node].axes[strategy - 1].name
                                : "linear");
    return text;
}

/* Every strategy of every node, the others whole. Returns how many. */
static inline int check_each(checker *c)
{
    int *strategy = trm_calloc((size_t)c->g->node_count + 1, sizeof(int)), done = 0;

    for (int n = 0; n < c->g->node_count; n++) {
        for (int k = 1; k < trm_sharding_strategy_count(c->s, n); k++) {
            if (!trm_sharding_possible(c->s, n, k))
                continue;
            strategy[n] = k;
            check_plan(c, strategy, strategy_name(c->s, n, k));
            done++;
        }
        strategy[n] = 0;
    }
    trm_free(strategy);
    return done;
}

/* Random strategies everywhere; `share` of 100 nodes stay whole. */
static inline void check_random(checker *c, net *m, int share, const char *what)
{
    int *strategy = trm_calloc((size_t)c->g->node_count + 1, sizeof(int));

    for (int n = 0; n < c->g->node_count; n++) {
        int k = net_pick(m, trm_sharding_strategy_count(c->s, n));

        if (net_pick(m, 100) >= share && trm_sharding_possible(c->s, n, k))
            strategy[n] = k;
    }
    check_plan(c, strategy, what);
    trm_free(strategy);
}

#endif
