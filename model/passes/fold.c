/* Constant folding: nodes on constants are run once, here; identities go; Shape and Size of known
 * dims become constants.
 *
 * One walk in topological order, so a chain folds in one go: `alias` maps a value that an identity
 * made to what it is a copy of. Graph outputs keep their names: one that turns out constant, or a
 * copy of something that must keep its own name, is left to an Identity node. */
#include "model/passes/passes.h"
#include "model/passes/rewrite.h"
#include "model/shape/infer_values.h"

#include <string.h>

#define RESULT_MAX ((size_t)64 << 20) /* larger results stay nodes */
#define GROWN_MAX ((size_t)1 << 20)   /* and over this, results larger than 4 times their inputs */

typedef struct fold {
    trm_graph *g;
    const trm_evaluator *evaluator;
    int *alias;   /* [value_count at start] */
    bool *output; /* graph outputs */
    bool *input;
} fold;

/* Value v becomes a constant with a copy of t's bytes; no node makes it any more. */
static trm_status make_constant(trm_graph *g, int v, const trm_tensor *t)
{
    trm_value *value = &g->values[v];
    size_t bytes;
    void *copy;

    TRM_CHECK(trm_tensor_bytes(t, &bytes));
    copy = trm_arena_alloc_aligned(g->arena, bytes == 0 ? 1 : bytes);
    if (copy == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "folded value '%s' of %zu bytes", value->name, bytes);
    if (bytes > 0)
        memcpy(copy, t->data, bytes);
    value->desc = *t;
    value->desc.layout = TRM_LAYOUT_PLAIN;
    value->desc.data = copy;
    value->bytes = bytes;
    value->producer = -1;
    return TRM_OK;
}

/* Output k of node n is the constant t. The caller removes the node. */
static trm_status settle(fold *f, int n, int k, const trm_tensor *t)
{
    trm_graph *g = f->g;
    int v = g->nodes[n].outputs[k], constant;
    char *name;

    if (v == TRM_NO_VALUE)
        return TRM_OK;
    if (!f->output[v])
        return make_constant(g, v, t);
    name = trm_graph_fresh_name(g, g->values[v].name);
    if (name == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "folded value");
    TRM_CHECK(trm_graph_add_constant(g, name, t, &constant));
    return trm_graph_add_node(g, TRM_OP_Identity, g->nodes[n].name, &constant, 1, &v, 1, NULL);
}

/* ---- evaluation ---- */

static bool worth(const fold *f, const trm_node *n, size_t in_bytes)
{
    size_t out_bytes = 0, bytes;

    for (int k = 0; k < n->output_count; k++) {
        const trm_tensor *d = trmi_desc(f->g, n->outputs[k]);

        if (n->outputs[k] == TRM_NO_VALUE || !trm_tensor_is_concrete(d))
            continue;
        if (trm_tensor_bytes(d, &bytes) != TRM_OK || !trm_add_ok(out_bytes, bytes, &out_bytes))
            return false;
    }
    return out_bytes <= RESULT_MAX && !(out_bytes > GROWN_MAX && out_bytes / 4 > in_bytes);
}

static bool foldable(const fold *f, const trm_node *n)
{
    const uint32_t never = TRM_OPF_CONTROL | TRM_OPF_FOLD_OFF;
    size_t in_bytes = 0;

    if (f->evaluator == NULL || (trm_op_get(n->op)->flags & never) != 0)
        return false;
    if (n->op == TRM_OP_Identity && n->output_count == 1 && n->outputs[0] != TRM_NO_VALUE &&
        f->output[n->outputs[0]])
        return false; /* it is there to keep the output's name */
    for (int i = 0; i < n->input_count; i++) {
        if (n->inputs[i] == TRM_NO_VALUE)
            continue;
        if (!trm_graph_is_constant(f->g, n->inputs[i]))
            return false;
        in_bytes += f->g->values[n->inputs[i]].bytes;
    }
    return worth(f, n, in_bytes);
}

/* Runs node n on the host; *done_out false: it stays. */
static trm_status evaluate(fold *f, int n, bool *done_out)
{
    const trm_node *node = &f->g->nodes[n];
    size_t count = (size_t)(node->input_count + node->output_count), total = 0, bytes;
    trm_tensor *io = (trm_tensor *)trm_calloc(count + 1, sizeof(trm_tensor));
    trm_tensor *out = io + node->input_count;
    trm_status st = TRM_OK;

    *done_out = false;
    if (io == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "folding '%s'", node->name);
    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] != TRM_NO_VALUE)
            TRM_TRY(st, trm_graph_constant(f->g, node->inputs[i], &io[i]), done);
    for (int k = 0; k < node->output_count; k++) {
        out[k] = *trmi_desc(f->g, node->outputs[k]);
        out[k].data = NULL;
    }
    st = f->evaluator->run(f->evaluator->ctx, node, io, out);
    if (st != TRM_OK) {
        /* No kernel, or data that the kernel refuses: the run will say so, if the node is reached
         * at all (it may lie in a branch that never runs). */
        if (st != TRM_ERR_NO_MEMORY)
            st = TRM_OK;
        goto done;
    }
    for (int k = 0; k < node->output_count; k++)
        if (node->outputs[k] != TRM_NO_VALUE) {
            if (out[k].data == NULL || trm_tensor_bytes(&out[k], &bytes) != TRM_OK ||
                (total += bytes) > RESULT_MAX)
                goto done;
        }
    for (int k = 0; k < node->output_count; k++) {
        TRM_TRY(st, settle(f, n, k, &out[k]), done);
        node = &f->g->nodes[n]; /* settle may have appended a node */
    }
    *done_out = true;
done:
    trm_free(io);
    return st;
}

/* ---- identities ---- */

static bool same_permutation(const trm_node *n, int rank)
{
    size_t count;
    const int64_t *perm = trm_attr_ints(&n->attrs, "perm", &count);

    if (perm == NULL)
        return rank == 0 || rank == 1;
    for (size_t i = 0; i < count; i++)
        if (perm[i] != (int64_t)i)
            return false;
    return true;
}

/* Does the node return its input 0 unchanged, as its only wanted output? */
static bool is_identity(const fold *f, const trm_node *n)
{
    const trm_tensor *in = trmi_desc(f->g, n->input_count > 0 ? n->inputs[0] : TRM_NO_VALUE);
    const trm_tensor *out = trmi_desc(f->g, n->output_count > 0 ? n->outputs[0] : TRM_NO_VALUE);
    double flag;

    if (n->input_count < 1 || n->inputs[0] == TRM_NO_VALUE || n->output_count < 1 ||
        n->outputs[0] == TRM_NO_VALUE || n->post_count > 0)
        return false;
    switch (n->op) {
    case TRM_OP_Identity:
        return true;
    case TRM_OP_Dropout:
        if (n->input_count > 2 && n->inputs[2] != TRM_NO_VALUE &&
            !(trmi_scalar(f->g, n->inputs[2], &flag) && flag == 0))
            return false;
        return n->output_count < 2 || n->outputs[1] == TRM_NO_VALUE ||
               trm_graph_use_count(f->g, n->outputs[1]) == 0;
    case TRM_OP_Cast:
        return in->dtype != TRM_DTYPE_NONE && in->dtype == out->dtype;
    case TRM_OP_CastLike:
        return in->dtype != TRM_DTYPE_NONE && in->dtype == out->dtype;
    case TRM_OP_Reshape:
    case TRM_OP_Squeeze:
    case TRM_OP_Unsqueeze:
    case TRM_OP_Flatten:
    case TRM_OP_Expand:
        return trmi_same_shape(in, out);
    case TRM_OP_Transpose:
        return same_permutation(n, in->rank);
    case TRM_OP_Concat:
        return n->input_count == 1;
    case TRM_OP_Sum:
    case TRM_OP_Max:
    case TRM_OP_Min:
    case TRM_OP_Mean:
        return n->input_count == 1;
    default:
        return false;
    }
}

/* CastLike reads only a dtype: once that is known it is a Cast, and nothing needs the other tensor.
 */
static trm_status name_dtype(trm_graph *g, trm_node *n)
{
    trm_dtype dtype =
        n->inputs[1] == TRM_NO_VALUE ? TRM_DTYPE_NONE : g->values[n->inputs[1]].desc.dtype;

    if (dtype == TRM_DTYPE_NONE)
        return TRM_OK;
    TRM_CHECK(trm_attr_set_int(&n->attrs, g->arena, "to", trm_dtype_to_onnx(dtype)));
    n->op = TRM_OP_Cast;
    n->input_count = 1;
    return TRM_OK;
}

/* Readers of the node's output read its input instead. An output of the graph: the producer of the
 * input makes it directly, where the input's own name is not needed. */
static void drop_identity(fold *f, int n)
{
    trm_graph *g = f->g;
    int from = g->nodes[n].outputs[0], to = g->nodes[n].inputs[0];
    int p = g->values[to].producer;

    if (!f->output[from]) {
        f->alias[from] = to;
        g->nodes[n].op = TRM_OP_NONE;
        return;
    }
    if (p < 0 || f->output[to] || f->input[to] || trm_graph_is_constant(g, to))
        return;
    for (int k = 0; k < g->nodes[p].output_count; k++)
        if (g->nodes[p].outputs[k] == to)
            g->nodes[p].outputs[k] = from;
    g->values[from].producer = p;
    trm_graph_replace_uses(g, to, from);
    f->alias[to] = from;
    g->nodes[n].op = TRM_OP_NONE;
}

static int resolve(const fold *f, int v, int count)
{
    while (v != TRM_NO_VALUE && v < count && f->alias[v] != v)
        v = f->alias[v];
    return v;
}

/* ---- Shape and Size ---- */

static trm_status fold_shape(fold *f, int n, bool *done_out)
{
    const trm_node *node = &f->g->nodes[n];
    const trm_tensor *in = trmi_desc(f->g, node->inputs[0]);
    int64_t values[TRM_RANK_MAX];
    trm_tensor t = {.dtype = TRM_DTYPE_I64, .rank = 1, .data = values};
    size_t elems;

    *done_out = false;
    if (in->rank < 0)
        return TRM_OK;
    if (node->op == TRM_OP_Size) {
        if (!trm_tensor_is_concrete(in) || trm_tensor_elems(in, &elems) != TRM_OK)
            return TRM_OK;
        t.rank = 0;
        values[0] = (int64_t)elems;
    } else {
        int64_t start = trm_attr_int(&node->attrs, "start", 0);
        int64_t end = trm_attr_int(&node->attrs, "end", in->rank);

        start = start < 0 ? start + in->rank : start;
        end = end < 0 ? end + in->rank : end;
        start = start < 0 ? 0 : start > in->rank ? in->rank : start;
        end = end < start ? start : end > in->rank ? in->rank : end;
        t.dims[0] = end - start;
        for (int64_t i = start; i < end; i++) {
            if (in->dims[i] < 0)
                return TRM_OK;
            values[i - start] = in->dims[i];
        }
    }
    TRM_CHECK(settle(f, n, 0, &t));
    *done_out = true;
    return TRM_OK;
}

static trm_status walk(fold *f, int value_count)
{
    int nodes = f->g->node_count; /* Identity nodes that settle appends are done */

    for (int n = 0; n < nodes; n++) {
        trm_node *node = &f->g->nodes[n];
        bool done = false;

        if (node->op == TRM_OP_NONE)
            continue;
        for (int i = 0; i < node->input_count; i++)
            node->inputs[i] = resolve(f, node->inputs[i], value_count);
        if (node->output_count == 1 && node->outputs[0] != TRM_NO_VALUE &&
            trm_graph_is_constant(f->g, node->outputs[0])) {
            node->op = TRM_OP_NONE; /* its elements were told by shape inference */
            continue;
        }
        if (node->op == TRM_OP_CastLike)
            TRM_CHECK(name_dtype(f->g, node));
        if (is_identity(f, node)) {
            drop_identity(f, n);
            continue;
        }
        if (node->op == TRM_OP_Shape || node->op == TRM_OP_Size)
            TRM_CHECK(fold_shape(f, n, &done));
        if (!done && foldable(f, node))
            TRM_CHECK(evaluate(f, n, &done));
        if (done)
            f->g->nodes[n].op = TRM_OP_NONE;
    }
    return TRM_OK;
}

static trm_status fold_graph(trm_graph *g, const void *ctx)
{
    size_t count = (size_t)g->value_count + 1;
    fold f = {.g = g, .evaluator = (const trm_evaluator *)ctx};
    int values = g->value_count;
    trm_status st;

    f.alias = (int *)trm_malloc(count, sizeof(int));
    f.output = (bool *)trm_calloc(count, 2 * sizeof(bool));
    if (f.alias == NULL || f.output == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "folding graph '%s'", g->name);
        goto done;
    }
    f.input = f.output + count;
    for (int v = 0; v < values; v++)
        f.alias[v] = v;
    for (int i = 0; i < g->output_count; i++)
        f.output[g->outputs[i]] = true;
    for (int i = 0; i < g->input_count; i++)
        f.input[g->inputs[i]] = true;
    TRM_TRY(st, walk(&f, values), done);
    st = trm_graph_sort(g);
done:
    trm_free(f.alias);
    trm_free(f.output);
    return st;
}

/* A value whose every element shape inference knows. */
static trm_status found(void *ctx, trm_graph *g, int value, const int64_t *elems, int count)
{
    int64_t store[TRM_SHAPE_VALUES_MAX]; /* room for the widest dtype */
    trm_tensor t = g->values[value].desc;

    (void)ctx;
    if (trm_graph_is_output(g, value) || trm_graph_is_constant(g, value))
        return TRM_OK;
    t.data = store;
    for (int i = 0; i < count; i++) {
        if (trm_dtype_is_float(t.dtype))
            trm_tensor_set_f64(&t, (size_t)i, (double)elems[i]);
        else
            trm_tensor_set_i64(&t, (size_t)i, elems[i]);
    }
    return make_constant(g, value, &t);
}

trm_status trm_pass_fold(trm_graph *g, const trm_evaluator *evaluator)
{
    TRM_CHECK(trmi_graph_infer_values(g, found, NULL));
    return trmi_each_graph(g, fold_graph, evaluator, 0);
}
