/* Concrete shapes of a graph: the shape rules, node by node, as the executor meets them when it
 * binds, but without a device. Small integers are followed through the rules (shape arithmetic).
 * Where a dim depends on data the bound of the operator is taken; what follows from a guess may
 * contradict the model, so then a rule's error is no error and the shape known to the graph is
 * taken. */
#include "parallel/shapes.h"

#include "model/shape/shape.h"

#include <string.h>

typedef struct binding {
    trm_graph *g;
    trm_arena *arena;
    trm_tensor *descs;
    int64_t **values; /* [value_count] elements of small results; NULL: not known */
    int64_t *symbols; /* [symbol_count] of the root; -1: not learned yet */
    int symbol_count;
    bool guessed; /* a dim so far is a bound, not the truth */
} binding;

static trm_status no_memory(void)
{
    return trm_fail(TRM_ERR_NO_MEMORY, "shapes of a graph");
}

static int64_t *symbol_at(const binding *b, int64_t dim)
{
    int64_t i = -2 - dim;

    return trm_dim_is_symbol(dim) && i < b->symbol_count ? &b->symbols[i] : NULL;
}

static int64_t symbol_value(const binding *b, int64_t dim)
{
    const int64_t *s = symbol_at(b, dim);

    return dim >= 0 ? dim : s == NULL ? TRM_DIM_UNKNOWN : *s;
}

static void learn(binding *b, const trm_tensor *declared, const trm_tensor *seen)
{
    if (declared->rank != seen->rank)
        return;
    for (int i = 0; i < seen->rank; i++) {
        int64_t *s = symbol_at(b, declared->dims[i]);

        if (s != NULL && *s < 0)
            *s = seen->dims[i];
    }
}

/* ---- what the graph is given ---- */

static trm_status take_input(binding *b, int value, const trm_tensor *t)
{
    const trm_value *v = &b->g->values[value];
    const trm_tensor *want = &v->desc;
    char a[TRM_SHAPE_TEXT_BYTES];

    if (!trm_tensor_is_concrete(t))
        return trm_fail(TRM_ERR_INVALID_ARG, "input '%s': shape %s is not concrete", v->name,
                        trm_tensor_shape_text(t, a, sizeof(a)));
    if (want->dtype != TRM_DTYPE_NONE && t->dtype != want->dtype)
        return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' is %s, the model wants %s", v->name,
                        trm_dtype_name(t->dtype), trm_dtype_name(want->dtype));
    if (want->rank >= 0 && t->rank != want->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "input '%s' has %d dims, the model wants %d", v->name,
                        t->rank, want->rank);
    learn(b, want, t);
    for (int i = 0; i < want->rank; i++) {
        int64_t dim = symbol_value(b, want->dims[i]);

        if (dim >= 0 && dim != t->dims[i])
            return trm_fail(TRM_ERR_INVALID_ARG, "input '%s': dim %d is %lld, the model wants %lld",
                            v->name, i, (long long)t->dims[i], (long long)dim);
    }
    b->descs[value] = *t;
    b->descs[value].layout = TRM_LAYOUT_PLAIN;
    return TRM_OK;
}

static trm_status start(binding *b, const trm_tensor *inputs)
{
    trm_graph *g = b->g;

    for (int v = 0; v < g->value_count; v++) {
        b->descs[v] = (trm_tensor){.dtype = g->values[v].desc.dtype, .rank = -1};
        if (trm_graph_is_constant(g, v)) {
            b->descs[v] = g->values[v].desc;
            b->descs[v].layout = TRM_LAYOUT_PLAIN;
        }
    }
    for (int i = 0; i < b->symbol_count; i++)
        b->symbols[i] = TRM_DIM_UNKNOWN;
    for (int i = 0; i < g->input_count; i++)
        TRM_CHECK(take_input(b, g->inputs[i], &inputs[i]));
    return TRM_OK;
}

/* ---- bounds of what depends on data ---- */

static int64_t count_of(const trm_tensor *t)
{
    size_t n;

    return t->rank >= 0 && trm_tensor_elems(t, &n) == TRM_OK && n <= (size_t)TRM_DIM_MAX
               ? (int64_t)n
               : 1;
}

static int axis_of(const trm_node *n, int rank, int otherwise)
{
    int64_t axis = trm_attr_int(&n->attrs, "axis", otherwise);

    axis = axis < 0 ? axis + rank : axis;
    return axis >= 0 && axis < rank ? (int)axis : 0;
}

/* The most that dim `d` of output k can be, where the rule left it open; 1 where nothing is known.
 */
static int64_t bound(const trm_node *n, const trm_tensor *in, const trm_tensor *out, int d)
{
    int64_t most = 1;
    bool axis = trm_attr_find(&n->attrs, "axis") != NULL;

    switch (n->op) {
    case TRM_OP_NonZero:
        most = d == 0 ? (in[0].rank < 1 ? 1 : in[0].rank) : count_of(&in[0]);
        break;
    case TRM_OP_Unique:
        most = !axis || in[0].rank < 1 ? count_of(&in[0])
               : out->rank == in[0].rank && d != axis_of(n, in[0].rank, 0)
                   ? in[0].dims[d]
                   : in[0].dims[axis_of(n, in[0].rank, 0)];
        break;
    case TRM_OP_Compress:
        if (!axis || in[0].rank < 1)
            most = count_of(&in[0]);
        else
            most = in[0].dims[d < in[0].rank ? d : 0];
        if ((!axis || d == axis_of(n, in[0].rank, 0)) && count_of(&in[1]) < most)
            most = count_of(&in[1]);
        break;
    case TRM_OP_NonMaxSuppression: { /* boxes [batch, n, 4], scores [batch, classes, n], most a
                                        class */
        int64_t each = in[0].rank == 3 ? in[0].dims[1] : 1;

        if (n->input_count > 2 && in[2].data != NULL && trm_tensor_get_i64(&in[2], 0) < each)
            each = trm_tensor_get_i64(&in[2], 0);
        most = d == 1 ? 3 : in[1].rank == 3 ? in[1].dims[0] * in[1].dims[1] * each : each;
        break;
    }
    case TRM_OP_TopK:
    case TRM_OP_Slice:
        if (in[0].rank == out->rank)
            most = in[0].dims[d];
        break;
    default:
        break;
    }
    return most < 0 ? 0 : most;
}

/* ---- one node ---- */

/* Completes output k with what the graph knows of it, and bounds. */
static void settle(binding *b, const trm_node *n, const trm_tensor *in, int value, trm_tensor *t)
{
    const trm_tensor *declared = &b->g->values[value].desc;
    bool guess = false;

    if (t->dtype == TRM_DTYPE_NONE)
        t->dtype = declared->dtype;
    t->layout = TRM_LAYOUT_PLAIN;
    t->data = NULL;
    if (t->rank < 0) {
        guess = declared->rank < 0;
        t->rank = guess ? 0 : declared->rank;
        for (int i = 0; i < t->rank; i++)
            t->dims[i] = declared->dims[i];
    }
    for (int i = 0; i < t->rank; i++) {
        int64_t dim = symbol_value(b, t->dims[i]);

        if (dim < 0 && declared->rank == t->rank)
            dim = symbol_value(b, declared->dims[i]);
        if (dim < 0) {
            guess = true;
            dim = bound(n, in, t, i);
        }
        t->dims[i] = dim;
    }
    if (guess)
        b->guessed = true;
    else
        learn(b, declared, t);
    b->descs[value] = *t;
}

/* Small results whose every element is known become data. */
static trm_status keep_values(binding *b, int value, int64_t *elems)
{
    trm_tensor *t = &b->descs[value];
    size_t n, bytes;

    b->values[value] = elems;
    if (trm_tensor_elems(t, &n) != TRM_OK || n > TRM_SHAPE_VALUES_MAX ||
        t->dtype == TRM_DTYPE_NONE || trm_tensor_bytes(t, &bytes) != TRM_OK)
        return TRM_OK;
    for (size_t i = 0; i < n; i++)
        if (elems[i] < 0)
            return TRM_OK;
    t->data = trm_arena_alloc(b->arena, bytes + 1, 1);
    if (t->data == NULL)
        return no_memory();
    for (size_t i = 0; i < n; i++)
        if (trm_dtype_is_float(t->dtype))
            trm_tensor_set_f64(t, i, (double)elems[i]);
        else
            trm_tensor_set_i64(t, i, elems[i]);
    return TRM_OK;
}

/* Constants a rule may look into: small ones, and those that decide a shape. */
static trm_status give_data(binding *b, const trm_node *n, int i, trm_tensor *t)
{
    size_t elems;

    if (!trm_graph_is_constant(b->g, n->inputs[i]))
        return TRM_OK;
    t->data = NULL;
    TRM_CHECK(trm_tensor_elems(t, &elems));
    if (elems <= TRM_SHAPE_VALUES_MAX ||
        (i < 32 && (trm_op_get(n->op)->shape_inputs >> i & 1u) != 0))
        return trm_graph_constant(b->g, n->inputs[i], t);
    return TRM_OK;
}

static trm_status bind_node(binding *b, const trm_node *n)
{
    size_t ins = (size_t)n->input_count + 1, outs = (size_t)n->output_count + 1;
    trm_tensor *in = trm_arena_alloc(b->arena, ins, sizeof(*in));
    trm_tensor *out = trm_arena_alloc(b->arena, outs, sizeof(*out));
    const int64_t **in_values = trm_arena_alloc(b->arena, ins, sizeof(*in_values));
    int64_t **out_values = trm_arena_alloc(b->arena, outs, sizeof(*out_values));
    bool *known = trm_arena_alloc(b->arena, outs, sizeof(*known));
    trm_shape_io io = {.node = n,
                       .in = in,
                       .in_values = in_values,
                       .out = out,
                       .out_values = out_values,
                       .out_values_known = known};
    trm_status st;

    if (in == NULL || out == NULL || in_values == NULL || out_values == NULL || known == NULL)
        return no_memory();
    for (int i = 0; i < n->input_count; i++) {
        in[i].rank = -1;
        if (n->inputs[i] == TRM_NO_VALUE)
            continue;
        in[i] = b->descs[n->inputs[i]];
        in_values[i] = b->values[n->inputs[i]];
        TRM_CHECK(give_data(b, n, i, &in[i]));
    }
    for (int k = 0; k < n->output_count && k < 8; k++) {
        out_values[k] = trm_arena_alloc(b->arena, TRM_SHAPE_VALUES_MAX, sizeof(int64_t));
        if (out_values[k] == NULL)
            return no_memory();
    }
    st = trm_shape_infer(&io);
    if (st != TRM_OK && (!b->guessed || st == TRM_ERR_NO_MEMORY))
        return trm_fail_context(st, "node '%s' (%s)", n->name, trm_op_get(n->op)->name);
    for (int k = 0; k < n->output_count; k++) {
        if (st != TRM_OK) { /* follows from a guess: what the graph says */
            out[k] = (trm_tensor){.rank = -1};
            known[k] = false;
        }
        if (n->outputs[k] == TRM_NO_VALUE)
            continue;
        settle(b, n, in, n->outputs[k], &out[k]);
        if (known[k])
            TRM_CHECK(keep_values(b, n->outputs[k], out_values[k]));
    }
    return TRM_OK;
}

trm_status trm_shapes_bind(trm_graph *g, const trm_tensor *inputs, trm_arena *arena,
                           trm_tensor *descs_out)
{
    binding b = {.g = g, .arena = arena, .descs = descs_out, .symbol_count = g->root->symbol_count};

    b.values = trm_arena_alloc(arena, (size_t)g->value_count + 1, sizeof(*b.values));
    b.symbols = trm_arena_alloc(arena, (size_t)b.symbol_count + 1, sizeof(*b.symbols));
    if (b.values == NULL || b.symbols == NULL)
        return no_memory();
    TRM_CHECK(start(&b, inputs));
    for (int n = 0; n < g->node_count; n++)
        if (g->nodes[n].op != TRM_OP_NONE)
            TRM_CHECK(bind_node(&b, &g->nodes[n]));
    return TRM_OK;
}

/* ---- inputs ---- */

static bool leads_an_input(const trm_graph *g, int64_t symbol)
{
    for (int i = 0; i < g->input_count; i++) {
        const trm_tensor *t = &g->values[g->inputs[i]].desc;

        if (t->rank > 0 && t->dims[0] == symbol)
            return true;
    }
    return false;
}

void trm_shapes_inputs(const trm_graph *g, int64_t batch, int64_t other, trm_tensor *inputs_out)
{
    for (int i = 0; i < g->input_count; i++) {
        trm_tensor t = g->values[g->inputs[i]].desc;

        t.data = NULL;
        t.layout = TRM_LAYOUT_PLAIN;
        if (t.rank < 0)
            t.rank = 0;
        for (int d = 0; d < t.rank; d++)
            if (t.dims[d] < 0)
                t.dims[d] = d == 0 || (trm_dim_is_symbol(t.dims[d]) && leads_an_input(g, t.dims[d]))
                                ? batch
                                : other;
        inputs_out[i] = t;
    }
}
