/* trm_graph_infer: the whole graph with symbolic dims.
 *
 * Walks nodes in order. Besides shapes it follows the elements of small integer tensors (shape
 * arithmetic), so that Reshape, Expand, Slice and the like come out with symbols instead of
 * unknowns. Bodies of If, Loop and Scan are walked with what the node feeds them; a Loop's carried
 * shapes are widened (differing dims become unknown) until the body maps them to themselves. */
#include "model/shape/infer_values.h"
#include "model/shape/rule.h"

#include <string.h>

#define DEPTH_MAX 32 /* of bodies in bodies */
#define ROUNDS_MAX 6 /* of widening; then carried values lose their ranks, which ends it */

/* What is known of a value's elements. */
typedef struct known {
    int64_t *dims;          /* TRM_SHAPE_VALUES_MAX, from the pass's arena; NULL: nothing */
    const trm_tensor *data; /* constant of an outer graph that a body captures; NULL: none */
} known;

typedef struct pass {
    trm_arena *arena; /* scratch */
    int depth;
} pass;

static trm_status infer_graph(pass *p, trm_graph *g, known *values);

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "shape inference");
}

static void *scratch(pass *p, int count, size_t size)
{
    return trm_arena_alloc(p->arena, (size_t)(count < 1 ? 1 : count), size);
}

/* ---- meeting what was declared ---- */

/* A symbol of the walk is kept over a declared constant: files often declare inner shapes of the
 * one example they were traced with. */
static int64_t meet_dim(int64_t inferred, int64_t declared)
{
    return inferred == TRM_DIM_UNKNOWN ? declared : inferred;
}

static trm_status meet(const trm_graph *g, const trm_node *n, trm_value *v, bool output,
                       const trm_tensor *t)
{
    char was[TRM_SHAPE_TEXT_BYTES], now[TRM_SHAPE_TEXT_BYTES];
    bool clash;

    if (t->dtype != TRM_DTYPE_NONE) {
        if (v->desc.dtype != TRM_DTYPE_NONE && v->desc.dtype != t->dtype)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "value '%s' of graph '%s' is declared %s, but %s '%s' makes %s",
                            v->name, g->name, trm_dtype_name(v->desc.dtype),
                            trm_op_get(n->op)->name, n->name, trm_dtype_name(t->dtype));
        v->desc.dtype = t->dtype;
    }
    if (t->rank < 0)
        return TRM_OK;
    clash = v->desc.rank >= 0 && v->desc.rank != t->rank;
    for (int i = 0; !clash && v->desc.rank >= 0 && i < t->rank; i++)
        clash = trmi_shape_differ(v->desc.dims[i], t->dims[i]);
    if (clash && !output)
        return trm_fail(
            TRM_ERR_INVALID_ARG, "value '%s' of graph '%s' is declared %s, but %s '%s' makes %s",
            v->name, g->name, trm_tensor_shape_text(&v->desc, was, sizeof(was)),
            trm_op_get(n->op)->name, n->name, trm_tensor_shape_text(t, now, sizeof(now)));
    for (int i = 0; i < t->rank; i++)
        v->desc.dims[i] =
            v->desc.rank == t->rank ? meet_dim(t->dims[i], v->desc.dims[i]) : t->dims[i];
    v->desc.rank = t->rank;
    return TRM_OK;
}

/* ---- bodies ---- */

static int count_values(const trm_graph *g, int depth)
{
    int total = g->value_count;

    for (int n = 0; n < g->node_count && depth < DEPTH_MAX; n++)
        for (int i = 0; i < g->nodes[n].attrs.count; i++)
            if (g->nodes[n].attrs.items[i].kind == TRM_ATTR_GRAPH)
                total += count_values(g->nodes[n].attrs.items[i].v.graph, depth + 1);
    return total;
}

/* Copies the descriptors of a graph and its bodies to `to`, or back. */
static trm_tensor *copy_descs(trm_graph *g, trm_tensor *to, bool back, int depth)
{
    for (int v = 0; v < g->value_count; v++, to++) {
        void *data = g->values[v].desc.data; /* constants may have moved to an aligned copy */

        if (back) {
            g->values[v].desc = *to;
            g->values[v].desc.data = data;
        } else {
            *to = g->values[v].desc;
        }
    }
    for (int n = 0; n < g->node_count && depth < DEPTH_MAX; n++)
        for (int i = 0; i < g->nodes[n].attrs.count; i++)
            if (g->nodes[n].attrs.items[i].kind == TRM_ATTR_GRAPH)
                to = copy_descs(g->nodes[n].attrs.items[i].v.graph, to, back, depth + 1);
    return to;
}

/* Feeds body input k. */
static void feed(trm_graph *body, known *values, int k, const trm_tensor *t, known what)
{
    trm_tensor *desc;

    if (k < 0 || k >= body->input_count)
        return;
    desc = &body->values[body->inputs[k]].desc;
    if (t->dtype != TRM_DTYPE_NONE)
        desc->dtype = t->dtype;
    if (t->rank >= 0) {
        desc->rank = t->rank;
        memcpy(desc->dims, t->dims, sizeof(desc->dims));
    }
    values[body->inputs[k]] = what;
}

static const known nothing = {NULL, NULL};

/* The last inputs of a body are the node's captures. */
static void feed_captures(const trm_node *node, const trm_tensor *in, const known *in_known,
                          trm_graph *body, known *values)
{
    int captures = (int)trm_attr_int(&node->attrs, "captures", 0);

    if (captures < 0 || captures > node->input_count || captures > body->input_count)
        return;
    for (int i = 0; i < captures; i++) {
        int from = node->input_count - captures + i;

        feed(body, values, body->input_count - captures + i, &in[from], in_known[from]);
    }
}

/* a := what a and b have in common; true if that changed a. */
static bool widen(trm_tensor *a, const trm_tensor *b)
{
    bool changed = false;

    if (a->rank < 0)
        return false;
    if (a->rank != b->rank) {
        a->rank = -1;
        return true;
    }
    for (int i = 0; i < a->rank; i++)
        if (a->dims[i] != b->dims[i] && a->dims[i] != TRM_DIM_UNKNOWN) {
            a->dims[i] = TRM_DIM_UNKNOWN;
            changed = true;
        }
    return changed;
}

/* Loop: body inputs [first_in, +count) carry node inputs [2, +count); outputs from 1. */
static trm_status infer_loop(pass *p, const trm_node *node, const trm_tensor *in,
                             const known *in_known, trm_graph *body)
{
    int captures = (int)trm_attr_int(&node->attrs, "captures", 0);
    int count = node->input_count - 2 - captures;
    trm_tensor counter = {.dtype = TRM_DTYPE_I64, .rank = 0};
    trm_tensor condition = {.dtype = TRM_DTYPE_BOOL, .rank = 0};
    trm_tensor *saved = (trm_tensor *)scratch(p, count_values(body, 0), sizeof(trm_tensor));
    trm_tensor *carried = (trm_tensor *)scratch(p, count, sizeof(trm_tensor));
    bool again = true;

    if (saved == NULL || carried == NULL)
        return no_memory();
    if (count < 0 || body->input_count < 2 + count || body->output_count < 1 + count)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Loop '%s': the body has %d inputs and %d outputs for %d carried values",
                        node->name, body->input_count, body->output_count, count);
    copy_descs(body, saved, false, 0);
    for (int k = 0; k < count; k++)
        carried[k] = in[2 + k];
    for (int round = 0; again && round <= ROUNDS_MAX; round++) {
        known *values = (known *)scratch(p, body->value_count, sizeof(known));

        for (int k = 0; k < count && round == ROUNDS_MAX; k++)
            carried[k].rank = -1;
        if (values == NULL)
            return no_memory();
        copy_descs(body, saved, true, 0);
        feed(body, values, 0, &counter, nothing);
        feed(body, values, 1, &condition, nothing);
        for (int k = 0; k < count; k++) {
            feed(body, values, 2 + k, &carried[k], nothing);
            /* what the file declares of a carried value holds for its first round only */
            body->values[body->inputs[2 + k]].desc.rank = carried[k].rank;
        }
        feed_captures(node, in, in_known, body, values);
        TRM_CHECK(infer_graph(p, body, values));
        again = false;
        for (int k = 0; k < count; k++)
            again |= widen(&carried[k], &body->values[body->outputs[1 + k]].desc);
    }
    return TRM_OK;
}

static trm_status infer_scan(pass *p, const trm_node *node, const trm_tensor *in,
                             const known *in_known, trm_graph *body)
{
    int captures = (int)trm_attr_int(&node->attrs, "captures", 0);
    int64_t scans = trm_attr_int(&node->attrs, "num_scan_inputs", 0);
    int64_t states = node->input_count - captures - scans;
    known *values = (known *)scratch(p, body->value_count, sizeof(known));
    size_t n;
    const int64_t *axes = trm_attr_ints(&node->attrs, "scan_input_axes", &n);

    if (values == NULL)
        return no_memory();
    if (captures < 0 || scans < 1 || states < 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "Scan '%s': %lld scan inputs among %d inputs",
                        node->name, (long long)scans, node->input_count);
    for (int64_t i = 0; i < states + scans; i++) {
        trm_tensor t = in[i];

        if (i >= states && t.rank >= 0) { /* one element along the axis */
            int64_t axis = axes != NULL && (size_t)(i - states) < n ? axes[i - states] : 0;
            int to = 0;

            axis = axis < 0 ? axis + t.rank : axis;
            if (axis < 0 || axis >= t.rank)
                return trm_fail(TRM_ERR_INVALID_ARG,
                                "Scan '%s': scan_input_axes entry %lld for %d dims", node->name,
                                (long long)axis, t.rank);
            for (int d = 0; d < t.rank; d++)
                if (d != axis)
                    t.dims[to++] = t.dims[d];
            t.rank = to;
        }
        feed(body, values, (int)i, &t, nothing);
    }
    feed_captures(node, in, in_known, body, values);
    return infer_graph(p, body, values);
}

static trm_status infer_bodies(pass *p, const trm_node *node, const trm_tensor *in,
                               const known *in_known)
{
    trm_status st = TRM_OK;

    if (p->depth >= DEPTH_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': bodies nested more than %d deep",
                        trm_op_get(node->op)->name, node->name, DEPTH_MAX);
    p->depth++;
    for (int i = 0; st == TRM_OK && i < node->attrs.count; i++) {
        trm_graph *body;
        known *values;

        if (node->attrs.items[i].kind != TRM_ATTR_GRAPH)
            continue;
        body = node->attrs.items[i].v.graph;
        if (node->op == TRM_OP_Loop) {
            st = infer_loop(p, node, in, in_known, body);
        } else if (node->op == TRM_OP_Scan) {
            st = infer_scan(p, node, in, in_known, body);
        } else {
            values = (known *)scratch(p, body->value_count, sizeof(known));
            if (values == NULL) {
                st = no_memory();
                break;
            }
            feed_captures(node, in, in_known, body, values);
            st = infer_graph(p, body, values);
        }
    }
    p->depth--;
    return st;
}

/* ---- one graph ---- */

/* Constants a rule may look into: small ones and those that decide a shape. */
static trm_status give_data(trm_graph *g, const trm_node *n, int i, trm_tensor *t)
{
    const trm_value *v = &g->values[n->inputs[i]];
    size_t elems;

    t->data = NULL;
    if (v->desc.data == NULL)
        return TRM_OK;
    TRM_CHECK(trm_tensor_elems(&v->desc, &elems));
    if (elems <= TRM_SHAPE_VALUES_MAX || (i < 32 && (trm_op_get(n->op)->shape_inputs >> i & 1)))
        return trm_graph_constant(g, n->inputs[i], t);
    return TRM_OK;
}

static trm_status infer_node(pass *p, trm_graph *g, int index, known *values)
{
    const trm_node *n = &g->nodes[index];
    trm_tensor *in = (trm_tensor *)scratch(p, n->input_count + n->output_count, sizeof(trm_tensor));
    known *in_known = (known *)scratch(p, n->input_count, sizeof(known));
    const int64_t **in_values = (const int64_t **)scratch(p, n->input_count, sizeof(int64_t *));
    int64_t **out_values = (int64_t **)scratch(p, n->output_count, sizeof(int64_t *));
    bool *out_known = (bool *)scratch(p, n->output_count, sizeof(bool));
    trm_shape_io io = {.graph = g, .node = n, .in = in};

    if (in == NULL || in_known == NULL || in_values == NULL || out_values == NULL ||
        out_known == NULL)
        return no_memory();
    io.out = in + n->input_count;
    for (int i = 0; i < n->input_count; i++) {
        in[i].rank = -1;
        if (n->inputs[i] == TRM_NO_VALUE)
            continue;
        in[i] = g->values[n->inputs[i]].desc;
        in_known[i] = values[n->inputs[i]];
        TRM_CHECK(give_data(g, n, i, &in[i]));
        if (in[i].data == NULL && in_known[i].data != NULL)
            in[i].data = in_known[i].data->data;
        in_values[i] = in_known[i].dims;
    }
    /* elements are followed through integers, and floats that stand for them, of up to one dim */
    for (int k = 0; k < n->output_count && k < 8; k++) {
        out_values[k] = (int64_t *)scratch(p, TRM_SHAPE_VALUES_MAX, sizeof(int64_t));
        if (out_values[k] == NULL)
            return no_memory();
    }
    io.in_values = in_values;
    io.out_values = out_values;
    io.out_values_known = out_known;
    if (trm_op_get(n->op)->flags & TRM_OPF_CONTROL) {
        for (int i = 0; i < n->input_count; i++) /* constants, for bodies that capture them */
            if (in[i].data != NULL)
                in_known[i].data = &in[i];
        TRM_CHECK(infer_bodies(p, n, in, in_known));
    }
    TRM_CHECK(trm_shape_infer(&io));
    for (int k = 0; k < n->output_count; k++) {
        int v = n->outputs[k];

        if (v == TRM_NO_VALUE)
            continue;
        TRM_CHECK(meet(g, n, &g->values[v], trm_graph_is_output(g, v), &io.out[k]));
        if (out_known[k])
            values[v].dims = out_values[k];
    }
    return TRM_OK;
}

static trm_status infer_graph(pass *p, trm_graph *g, known *values)
{
    for (int n = 0; n < g->node_count; n++)
        if (g->nodes[n].op != TRM_OP_NONE)
            TRM_CHECK(infer_node(p, g, n, values));
    return TRM_OK;
}

/* Tells the caller the values of the top graph that are known completely. */
static trm_status tell(trm_graph *g, const known *values, int count, trmi_value_found found,
                       void *ctx)
{
    for (int v = 0; v < count; v++) {
        const trm_tensor *t = &g->values[v].desc;
        bool whole = values[v].dims != NULL && trm_tensor_is_concrete(t);
        size_t elems;

        if (!whole || t->dtype == TRM_DTYPE_NONE || trm_tensor_elems(t, &elems) != TRM_OK ||
            elems > TRM_SHAPE_VALUES_MAX)
            continue;
        for (size_t i = 0; whole && i < elems; i++)
            whole = values[v].dims[i] >= 0;
        if (whole)
            TRM_CHECK(found(ctx, g, v, values[v].dims, (int)elems));
    }
    return TRM_OK;
}

trm_status trmi_graph_infer_values(trm_graph *g, trmi_value_found found, void *ctx)
{
    int count = g->value_count;
    pass p = {0};
    known *values;
    trm_status st;

    TRM_CHECK(trm_arena_create(0, &p.arena));
    values = (known *)scratch(&p, count, sizeof(known));
    st = values == NULL ? no_memory() : infer_graph(&p, g, values);
    if (st == TRM_OK && found != NULL)
        st = tell(g, values, count, found, ctx);
    trm_arena_destroy(p.arena);
    return st;
}

trm_status trm_graph_infer(trm_graph *g)
{
    return trmi_graph_infer_values(g, NULL, NULL);
}
