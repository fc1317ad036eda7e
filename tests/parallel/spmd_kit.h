/* A lockstep interpreter for tests: the graphs of all ranks, node by node, in one process. Nodes
 * run on the CPU device through the evaluator; collectives are done here, on plain arrays, from
 * nothing but their documented meaning. */
#ifndef TRM_TESTS_PARALLEL_SPMD_KIT_H
#define TRM_TESTS_PARALLEL_SPMD_KIT_H

#include "model/passes/passes.h"
#include "model/shape/shape.h"
#include "parallel/lower.h"
#include "parallel/shapes.h"
#include "worker/engine.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPMD_RANKS_MAX 8

static trm_device *spmd_device;
static trm_evaluator spmd_evaluator;

static inline void spmd_open(void)
{
    ck_assert_int_eq(trm_device_cpu_create(1, &spmd_device), TRM_OK);
    ck_assert_int_eq(trm_evaluator_create(spmd_device, &spmd_evaluator), TRM_OK);
}

static inline void spmd_close(void)
{
    trm_evaluator_destroy(&spmd_evaluator);
    trm_device_destroy(spmd_device);
}

/* One rank while its graph runs: what each value holds, plain and owned. */
typedef struct spmd_rank {
    trm_graph *g;
    trm_tensor *values; /* [value_count]; dtype NONE: not made */
} spmd_rank;

static inline trm_tensor spmd_new(const trm_tensor *like)
{
    trm_tensor t = *like;
    size_t bytes;

    t.layout = TRM_LAYOUT_PLAIN;
    ck_assert_msg(trm_tensor_bytes(&t, &bytes) == TRM_OK, "%s", trm_message());
    t.data = trm_aligned_malloc(bytes == 0 ? 1 : bytes);
    ck_assert_ptr_nonnull(t.data);
    return t;
}

static inline trm_tensor spmd_copy(const trm_tensor *from)
{
    trm_tensor t = spmd_new(from);
    size_t bytes;

    ck_assert_int_eq(trm_tensor_bytes(&t, &bytes), TRM_OK);
    memcpy(t.data, from->data, bytes);
    return t;
}

static inline void spmd_drop_values(spmd_rank *r)
{
    for (int v = 0; v < r->g->value_count; v++)
        if (r->values[v].dtype != TRM_DTYPE_NONE && !trm_graph_is_constant(r->g, v))
            trm_aligned_free(r->values[v].data);
    trm_free(r->values);
    r->values = NULL;
}

static inline void spmd_start(spmd_rank *r, const trm_tensor *inputs)
{
    r->values = trm_calloc((size_t)r->g->value_count + 1, sizeof(trm_tensor));
    ck_assert_ptr_nonnull(r->values);
    for (int v = 0; v < r->g->value_count; v++)
        if (trm_graph_is_constant(r->g, v))
            ck_assert_int_eq(trm_graph_constant(r->g, v, &r->values[v]), TRM_OK);
    for (int i = 0; i < r->g->input_count; i++)
        r->values[r->g->inputs[i]] = spmd_copy(&inputs[i]);
}

/* ---- collectives ---- */

/* Elements of rank r's part of dim `axis` and where they lie in the whole dim: at[0..count). */
static inline int64_t spmd_part(const trm_node *n, const char *sizes, int r, int64_t *at,
                                int64_t *whole_out)
{
    size_t count;
    const int64_t *s = trm_attr_ints(&n->attrs, sizes, &count);
    int ranks = (int)trm_attr_int(&n->attrs, "ranks", 0);
    int64_t base = 0, n_part = 0;

    ck_assert(ranks > 0 && count > 0 && count % (size_t)ranks == 0);
    for (size_t i = 0; i < count; i++) {
        if ((int)(i % (size_t)ranks) == r)
            for (int64_t k = 0; k < s[i]; k++)
                at[n_part++] = base + k;
        base += s[i];
    }
    *whole_out = base;
    return n_part;
}

/* Copies slices of dim `axis` between the whole and a part. */
static inline void spmd_slices(trm_tensor *whole, trm_tensor *part, int axis, const int64_t *at,
                               int64_t count, bool to_part)
{
    size_t inner = trm_tensor_count(whole, axis + 1, whole->rank) * trm_dtype_bytes(whole->dtype);
    size_t outer = trm_tensor_count(whole, 0, axis);

    ck_assert_int_eq(part->dims[axis], count);
    for (size_t o = 0; o < outer; o++)
        for (int64_t k = 0; k < count; k++) {
            unsigned char *w = (unsigned char *)whole->data +
                               (o * (size_t)whole->dims[axis] + (size_t)at[k]) * inner;
            unsigned char *p =
                (unsigned char *)part->data + (o * (size_t)count + (size_t)k) * inner;

            if (to_part)
                memcpy(p, w, inner);
            else
                memcpy(w, p, inner);
        }
}

static inline trm_tensor spmd_sum(spmd_rank *ranks, int count, int node, bool max)
{
    trm_tensor t = spmd_copy(&ranks[0].values[ranks[0].g->nodes[node].inputs[0]]);

    for (int r = 1; r < count; r++) {
        const trm_tensor *x = &ranks[r].values[ranks[r].g->nodes[node].inputs[0]];

        ck_assert(trm_tensor_same_shape(&t, x));
        for (size_t i = 0; i < trm_tensor_numel(&t); i++)
            if (trm_dtype_is_float(t.dtype)) {
                double a = trm_tensor_get_f64(&t, i), b = trm_tensor_get_f64(x, i);

                trm_tensor_set_f64(&t, i, max ? fmax(a, b) : a + b);
            } else {
                trm_tensor_set_i64(&t, i, trm_tensor_get_i64(&t, i) + trm_tensor_get_i64(x, i));
            }
    }
    return t;
}

static inline trm_tensor spmd_gathered(spmd_rank *ranks, int count, int node)
{
    const trm_node *n = &ranks[0].g->nodes[node];
    trm_tensor t = ranks[0].values[n->inputs[0]];
    int axis = (int)trm_attr_int(&n->attrs, "axis", -1);
    int64_t *at = trm_malloc(1 << 20, sizeof(int64_t)), whole;

    (void)spmd_part(n, "sizes", 0, at, &whole);
    t.dims[axis] = whole;
    t = spmd_new(&t);
    for (int r = 0; r < count; r++) {
        int64_t k = spmd_part(&ranks[r].g->nodes[node], "sizes", r, at, &whole);

        spmd_slices(&t, &ranks[r].values[ranks[r].g->nodes[node].inputs[0]], axis, at, k, false);
    }
    trm_free(at);
    return t;
}

static inline trm_tensor spmd_own(const trm_node *n, trm_tensor *whole, const char *axis_name,
                                  const char *sizes, int r)
{
    int axis = (int)trm_attr_int(&n->attrs, axis_name, -1);
    int64_t *at = trm_malloc(1 << 20, sizeof(int64_t)), all;
    int64_t k = spmd_part(n, sizes, r, at, &all);
    trm_tensor t = *whole;

    ck_assert_int_eq(whole->dims[axis], all);
    t.dims[axis] = k;
    t = spmd_new(&t);
    spmd_slices(whole, &t, axis, at, k, true);
    trm_free(at);
    return t;
}

/* The node [lo, hi) of the summation tree, from the ranks' nodes, which are taken in order. */
static inline void spmd_tree_node(spmd_rank *ranks, int node, int lo, int hi, int *rank, int *at,
                                  float *out, size_t elems)
{
    const trm_node *n = &ranks[*rank].g->nodes[node];
    const trm_tensor *x = &ranks[*rank].values[n->inputs[0]];
    int first = (int)trm_attr_int(&n->attrs, "first", -1), mid = lo + (hi - lo) / 2;
    int count = (int)trm_attr_int(&n->attrs, "count", -1);
    float *right;

    if (first <= lo && hi <= first + count) { /* none of the nodes above it is */
        ck_assert_int_lt(*at, (int)x->dims[0]);
        memcpy(out, (const float *)x->data + elems * (size_t)(*at)++, elems * sizeof(float));
        if (hi == first + count) {
            ck_assert_int_eq(*at, (int)x->dims[0]);
            ++*rank;
            *at = 0;
        }
        return;
    }
    ck_assert_int_gt(hi - lo, 1);
    right = trm_malloc(elems + 1, sizeof(float));
    spmd_tree_node(ranks, node, lo, mid, rank, at, out, elems);
    spmd_tree_node(ranks, node, mid, hi, rank, at, right, elems);
    for (size_t i = 0; i < elems; i++)
        out[i] += right[i];
    trm_free(right);
}

static inline trm_tensor spmd_tree(spmd_rank *ranks, int count, int node)
{
    const trm_node *n = &ranks[0].g->nodes[node];
    trm_tensor t = ranks[0].values[n->inputs[0]];
    int leaves = (int)trm_attr_int(&n->attrs, "leaves", 0), rank = 0, at = 0, next = 0;

    for (int r = 0; r < count; r++) {
        n = &ranks[r].g->nodes[node];
        ck_assert_int_eq(trm_attr_int(&n->attrs, "leaves", 0), leaves);
        ck_assert_int_eq(trm_attr_int(&n->attrs, "first", -1), next);
        ck_assert_int_ge(trm_attr_int(&n->attrs, "most", 0), ranks[r].values[n->inputs[0]].dims[0]);
        next += (int)trm_attr_int(&n->attrs, "count", 0);
    }
    ck_assert_int_eq(next, leaves);
    ck_assert_int_eq(t.dtype, TRM_DTYPE_F32);
    t.rank--;
    memmove(t.dims, t.dims + 1, (size_t)t.rank * sizeof(t.dims[0]));
    t = spmd_new(&t);
    spmd_tree_node(ranks, node, 0, leaves, &rank, &at, t.data, trm_tensor_numel(&t));
    ck_assert_int_eq(rank, count);
    return t;
}

/* What follows a sum by the tree in the same node: the residual and a norm. */
static inline void spmd_add_norm(spmd_rank *r, const trm_node *n, const trm_tensor *sum)
{
    trm_tensor in[4] = {r->values[n->inputs[1]], *sum}, out[2];
    trm_node norm = *n;

    for (int i = 2; i < n->input_count; i++)
        in[i] = r->values[n->inputs[i]];
    norm.op = TRM_OP_TrmAddNorm;
    ck_assert_msg(spmd_evaluator.run(spmd_evaluator.ctx, &norm, in, out) == TRM_OK, "%s",
                  trm_message());
    for (int k = 0; k < 2; k++)
        r->values[n->outputs[k]] = spmd_copy(&out[k]);
}

static inline void spmd_collective(spmd_rank *ranks, int count, int node)
{
    trm_op op = ranks[0].g->nodes[node].op;
    trm_tensor whole = {0};

    if (op == TRM_OP_TrmAllReduce || op == TRM_OP_TrmReduceScatter)
        whole = spmd_sum(ranks, count, node,
                         strcmp(trm_attr_string(&ranks[0].g->nodes[node].attrs, "reduction", "sum"),
                                "max") == 0);
    else if (op == TRM_OP_TrmReduceTree)
        whole = spmd_tree(ranks, count, node);
    else if (op != TRM_OP_TrmShard)
        whole = spmd_gathered(ranks, count, node);
    for (int r = 0; r < count; r++) {
        const trm_node *n = &ranks[r].g->nodes[node];
        trm_tensor *out = &ranks[r].values[n->outputs[0]];

        ck_assert_int_eq(trm_attr_int(&n->attrs, "rank", -1), r);
        ck_assert_int_eq(trm_attr_int(&n->attrs, "ranks", -1), count);
        if (op == TRM_OP_TrmReduceTree && n->input_count > 1)
            spmd_add_norm(&ranks[r], n, &whole);
        else if (op == TRM_OP_TrmAllReduce || op == TRM_OP_TrmAllGather ||
                 op == TRM_OP_TrmReduceTree)
            *out = spmd_copy(&whole);
        else if (op == TRM_OP_TrmAllToAll)
            *out = spmd_own(n, &whole, "axis_to", "sizes_to", r);
        else
            *out = spmd_own(n, op == TRM_OP_TrmShard ? &ranks[r].values[n->inputs[0]] : &whole,
                            "axis", "sizes", r);
    }
    if (op != TRM_OP_TrmShard)
        trm_aligned_free(whole.data);
}

/* ---- nodes ---- */

/* A plain tensor in another layout, or back. */
static inline trm_tensor spmd_reorder(const trm_tensor *from, trm_layout layout)
{
    trm_tensor from_desc = *from, to = *from;
    trm_kernel *k;
    size_t bytes;
    void *workspace;
    const void *in[1] = {from->data};
    void *out[1];

    to.layout = layout;
    ck_assert_int_eq(trm_tensor_bytes(&to, &bytes), TRM_OK);
    out[0] = to.data = trm_aligned_malloc(bytes);
    ck_assert_int_eq(spmd_device->ops->prepare_reorder(spmd_device, &from_desc, &to, &k), TRM_OK);
    workspace = trm_aligned_malloc(k->workspace_bytes);
    ck_assert_int_eq(k->ops->run(k, NULL, in, out, workspace), TRM_OK);
    trm_aligned_free(workspace);
    trm_kernel_destroy(k);
    return to;
}

/* One node on plain tensors, whatever layouts its kernel wants. False: the evaluator can do it. */
static inline bool spmd_dense(const trm_node *n, const trm_tensor *in, trm_tensor *out)
{
    trm_tensor want[16], got[4];
    uint64_t keys[16] = {0};
    trm_op_desc desc = {.op = n->op,
                        .attrs = &n->attrs,
                        .name = n->name,
                        .input_count = n->input_count,
                        .output_count = n->output_count,
                        .inputs = want,
                        .outputs = got,
                        .weight_keys = keys};
    trm_shape_io io = {.node = n, .in = in, .out = got};
    const void *from[16];
    void *to[4] = {NULL}, *workspace;
    trm_kernel *k;
    size_t bytes;

    if (n->op != TRM_OP_Conv && n->op != TRM_OP_ConvTranspose && n->op != TRM_OP_QLinearConv)
        return false;
    memset(got, 0, sizeof(got));
    got[0].rank = -1;
    memcpy(want, in, (size_t)n->input_count * sizeof(*in));
    ck_assert_msg(trm_shape_infer(&io) == TRM_OK, "%s", trm_message());
    want[0].data = NULL; /* not a constant */
    ck_assert_msg(spmd_device->ops->prepare(spmd_device, &desc, &k) == TRM_OK, "%s", trm_message());
    for (int i = 0; i < n->input_count; i++) {
        from[i] = in[i].data;
        want[i].data = NULL;
        if (in[i].dtype != TRM_DTYPE_NONE && want[i].layout != TRM_LAYOUT_PLAIN) {
            want[i] = spmd_reorder(&in[i], want[i].layout);
            from[i] = want[i].data;
        }
        if (k->packed_inputs >> i & 1u)
            from[i] = NULL;
    }
    ck_assert_int_eq(trm_tensor_bytes(&got[0], &bytes), TRM_OK);
    to[0] = got[0].data = trm_aligned_malloc(bytes);
    workspace = trm_aligned_malloc(k->workspace_bytes);
    ck_assert_msg(k->ops->run(k, NULL, from, to, workspace) == TRM_OK, "%s", trm_message());
    trm_aligned_free(workspace);
    trm_kernel_destroy(k);
    for (int i = 0; i < n->input_count; i++)
        trm_aligned_free(want[i].data);
    out[0] = spmd_reorder(&got[0], TRM_LAYOUT_PLAIN);
    trm_aligned_free(got[0].data);
    return true;
}

static inline void spmd_node(spmd_rank *r, int node)
{
    const trm_node *n = &r->g->nodes[node];
    trm_tensor in[256], out[256];
    bool dense;

    ck_assert(n->input_count <= 256 && n->output_count <= 256);
    for (int i = 0; i < n->input_count; i++) {
        in[i] = (trm_tensor){0};
        if (n->inputs[i] != TRM_NO_VALUE) {
            in[i] = r->values[n->inputs[i]];
            ck_assert_msg(in[i].dtype != TRM_DTYPE_NONE, "'%s' reads '%s', which is not there",
                          n->name, r->g->values[n->inputs[i]].name);
        }
    }
    dense = spmd_dense(n, in, out);
    ck_assert_msg(dense || spmd_evaluator.run(spmd_evaluator.ctx, n, in, out) == TRM_OK, "%s",
                  trm_message());
    for (int k = 0; k < n->output_count; k++) {
        const trm_tensor *says;

        if (n->outputs[k] == TRM_NO_VALUE)
            continue;
        says = &r->g->values[n->outputs[k]].desc;
        for (int d = 0; d < says->rank; d++) /* inference and the run agree */
            ck_assert_msg(says->dims[d] < 0 || says->dims[d] == out[k].dims[d],
                          "'%s': dim %d is %lld, the graph says %lld",
                          r->g->values[n->outputs[k]].name, d, (long long)out[k].dims[d],
                          (long long)says->dims[d]);
        r->values[n->outputs[k]] = dense ? out[k] : spmd_copy(&out[k]);
    }
}

/* Runs the graphs of `count` ranks, each on inputs of its own; values stay until
 * spmd_drop_values. */
static inline void spmd_run_each(spmd_rank *ranks, int count, const trm_tensor *const *inputs)
{
    for (int r = 0; r < count; r++)
        spmd_start(&ranks[r], inputs[r]);
    for (int n = 0; n < ranks[0].g->node_count; n++) {
        if (trm_op_get(ranks[0].g->nodes[n].op)->flags & TRM_OPF_COLLECTIVE) {
            spmd_collective(ranks, count, n);
            continue;
        }
        for (int r = 0; r < count; r++)
            spmd_node(&ranks[r], n);
    }
}

static inline void spmd_run(spmd_rank *ranks, int count, const trm_tensor *inputs)
{
    const trm_tensor *each[SPMD_RANKS_MAX];

    for (int r = 0; r < count; r++)
        each[r] = inputs;
    spmd_run_each(ranks, count, each);
}

/* All ranks have the same nodes, reading and making the same values. */
static inline void spmd_check_structure(const spmd_rank *ranks, int count)
{
    for (int r = 1; r < count; r++) {
        const trm_graph *a = ranks[0].g, *b = ranks[r].g;

        ck_assert_int_eq(a->node_count, b->node_count);
        ck_assert_int_eq(a->value_count, b->value_count);
        for (int n = 0; n < a->node_count; n++) {
            const trm_node *p = &a->nodes[n], *q = &b->nodes[n];

            ck_assert_int_eq(p->op, q->op);
            ck_assert_int_eq(p->input_count, q->input_count);
            ck_assert_int_eq(p->output_count, q->output_count);
            ck_assert_int_eq(memcmp(p->inputs, q->inputs, (size_t)p->input_count * sizeof(int)), 0);
            ck_assert_int_eq(memcmp(p->outputs, q->outputs, (size_t)p->output_count * sizeof(int)),
                             0);
            ck_assert_int_eq(p->attrs.count, q->attrs.count);
        }
        for (int v = 0; v < a->value_count; v++) {
            ck_assert_str_eq(a->values[v].name, b->values[v].name);
            ck_assert_int_eq(a->values[v].desc.rank, b->values[v].desc.rank);
        }
    }
}

/* Largest difference as a share of the scale; integers must be equal (else 1). */
static inline double spmd_error(const trm_tensor *got, const trm_tensor *want)
{
    double scale = 0, error = 0;

    ck_assert_msg(trm_tensor_same_shape(got, want), "shapes differ");
    for (size_t i = 0; i < trm_tensor_numel(want); i++) {
        double w = trm_tensor_get_f64(want, i), g = trm_tensor_get_f64(got, i);

        if (isfinite(w))
            scale = fmax(scale, fabs(w));
        if (w != g && !(isnan(w) && isnan(g)))
            error = fmax(error, isfinite(w - g) ? fabs(w - g) : INFINITY);
    }
    if (!trm_dtype_is_float(want->dtype))
        return error > 0 ? 1 : 0;
    return error / (scale > 0 ? scale : 1);
}

#endif
