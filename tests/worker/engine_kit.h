/* Small graphs made by hand, for the tests of the executor. */
#ifndef TRM_TESTS_WORKER_ENGINE_KIT_H
#define TRM_TESTS_WORKER_ENGINE_KIT_H

#include "model/passes/passes.h"
#include "worker/engine.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

static trm_device *device;

struct net {
    trm_graph *g;
    trm_engine *e;
};

static inline int value(trm_graph *g, const char *name)
{
    int v;

    ck_assert_int_eq(trm_graph_add_value(g, name, NULL, &v), TRM_OK);
    return v;
}

static inline int input(trm_graph *g, const char *name, trm_dtype dtype, int rank,
                        const int64_t *dims)
{
    trm_tensor t = {.dtype = dtype, .rank = rank};
    int v;

    for (int i = 0; i < rank; i++)
        t.dims[i] = dims[i];
    ck_assert_int_eq(trm_graph_add_value(g, name, &t, &v), TRM_OK);
    return v;
}

static inline int constant_i64(trm_graph *g, const char *name, int rank, int64_t count,
                               const int64_t *values)
{
    trm_tensor t = {
        .dtype = TRM_DTYPE_I64, .rank = rank, .dims = {count}, .data = (void *)(uintptr_t)values};
    int v;

    ck_assert_int_eq(trm_graph_add_constant(g, name, &t, &v), TRM_OK);
    return v;
}

static inline int node(trm_graph *g, trm_op op, const int *in, int n, const char *out)
{
    int v = value(g, out), at;

    ck_assert_int_eq(trm_graph_add_node(g, op, out, in, n, &v, 1, &at), TRM_OK);
    return v;
}

static inline struct net finish(trm_graph *g, int *inputs, int n_in, int *outputs, int n_out)
{
    struct net net = {.g = g};
    trm_evaluator ev;

    ck_assert_int_eq(trm_graph_set_inputs(g, inputs, n_in), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(g, outputs, n_out), TRM_OK);
    ck_assert_int_eq(trm_graph_sort(g), TRM_OK);
    ck_assert_int_eq(trm_evaluator_create(device, &ev), TRM_OK);
    ck_assert_msg(trm_pass_all(g, &ev) == TRM_OK, "%s", trm_message());
    trm_evaluator_destroy(&ev);
    ck_assert_int_eq(trm_engine_create(g, device, NULL, &net.e), TRM_OK);
    return net;
}

static inline void drop(struct net net)
{
    trm_engine_destroy(net.e);
    trm_graph_destroy(net.g);
}

#define RUN(net, in, out)                                                                          \
    ck_assert_msg(trm_engine_run((net).e, (in), (out)) == TRM_OK, "%s", trm_message())

static inline trm_graph *body(trm_graph *root, const char *name)
{
    trm_graph *g;

    ck_assert_int_eq(trm_graph_create(root, name, &g), TRM_OK);
    return g;
}

static inline void set_graph(trm_graph *g, trm_node *n, const char *name, trm_graph *body_graph)
{
    trm_attr a = {.name = name, .kind = TRM_ATTR_GRAPH, .v = {.graph = body_graph}};

    ck_assert_int_eq(trm_graph_sort(body_graph), TRM_OK);
    ck_assert_int_eq(trm_attr_set(&n->attrs, g->arena, &a), TRM_OK);
}

#endif
