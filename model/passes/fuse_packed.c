/* Self-attention whose q, k and v are products of one input with constant weights: the three become
 * one product, and TrmAttentionPacked reads its rows where they lie and writes rows, so that no
 * transpose is left. For devices that have the operator; the graph is finished (post-ops are in
 * their hosts) and in its final precision.
 *
 *   x -> MatMul(wq)+bq -> Reshape -> Transpose 0213 -> q \
 *   x -> MatMul(wk)+bk -> Reshape -> Transpose 0213 -> k  TrmAttention -> Transpose 0213 -> Reshape
 *   x -> MatMul(wv)+bv -> Reshape -> Transpose 0213 -> v / */
#include "model/passes/rewrite.h"

#include "model/passes/passes.h"
#include "model/shape/shape.h"

#include <string.h>

/* One of q, k, v. */
typedef struct part {
    int product;      /* MatMul node */
    int weight, bias; /* constants [depth, columns], [columns]; bias TRM_NO_VALUE: none */
    int64_t depth, columns, heads, dim;
} part;

static bool perm_is(const trm_node *n, const char *digits)
{
    size_t count;
    const int64_t *perm = n == NULL ? NULL : trm_attr_ints(&n->attrs, "perm", &count);

    if (perm == NULL || count != 4)
        return false;
    for (size_t i = 0; i < 4; i++)
        if (perm[i] != digits[i] - '0')
            return false;
    return true;
}

/* A constant in fp32 that costs nothing to read again and again. */
static bool is_plain(const trm_graph *g, int value, int rank)
{
    return value != TRM_NO_VALUE && trm_graph_is_constant(g, value) &&
           g->values[value].lazy == NULL && g->values[value].desc.dtype == TRM_DTYPE_F32 &&
           g->values[value].desc.rank == rank;
}

/* The only reader of a value that is no Shape; -1: several, none, or an output. Exporters ask many
 * values for their shape, to build the shape that the next Reshape wants: that goes with it. */
static int reader_of(const trmi_rw *rw, int value)
{
    const trm_graph *g = rw->g;
    int reader = -1;

    if (value == TRM_NO_VALUE || rw->output[value])
        return -1;
    for (int n = 0; n < g->node_count; n++) {
        for (int i = 0; g->nodes[n].op != TRM_OP_NONE && i < g->nodes[n].input_count; i++) {
            if (g->nodes[n].inputs[i] != value || g->nodes[n].op == TRM_OP_Shape)
                continue;
            if (reader >= 0)
                return -1;
            reader = n;
        }
    }
    return reader;
}

/* A MatMul with a constant [depth, columns] and at most a bias [columns] after it. */
static bool match_product(const trmi_rw *rw, int value, part *p)
{
    const trm_graph *g = rw->g;
    int made = g->values[value].producer;
    const trm_node *n = made < 0 ? NULL : &g->nodes[made];

    if (n == NULL || n->op != TRM_OP_MatMul || n->post_count > 1 || !is_plain(g, n->inputs[1], 2) ||
        reader_of(rw, value) < 0)
        return false;
    p->product = made;
    p->weight = n->inputs[1];
    p->bias = TRM_NO_VALUE;
    p->depth = g->values[p->weight].desc.dims[0];
    p->columns = g->values[p->weight].desc.dims[1];
    if (n->post_count == 0)
        return true;
    if (n->posts[0].op != TRM_OP_Add || n->posts[0].input < 0)
        return false;
    p->bias = n->inputs[n->posts[0].input];
    return is_plain(g, p->bias, 1) && g->values[p->bias].desc.dims[0] == p->columns;
}

/* `value`: [batch, heads, length, dim], or with `transposed` [batch, heads, dim, length]. */
static bool match_part(const trmi_rw *rw, int value, bool transposed, part *p)
{
    const trm_node *t = trmi_rw_made_by(rw, value, TRM_OP_Transpose), *r;
    const trm_tensor *split;

    if (!perm_is(t, transposed ? "0231" : "0213") || reader_of(rw, value) < 0 ||
        reader_of(rw, t->inputs[0]) < 0)
        return false;
    r = trmi_rw_made_by(rw, t->inputs[0], TRM_OP_Reshape);
    if (r == NULL || !match_product(rw, r->inputs[0], p))
        return false;
    split = trmi_desc(rw->g, t->inputs[0]); /* [batch, length, heads, dim] */
    p->heads = split->dims[2];
    p->dim = split->dims[3];
    return trmi_desc(rw->g, r->inputs[0])->rank == 3 && split->rank == 4 && p->heads > 0 &&
           p->dim > 0 && p->heads * p->dim == p->columns;
}

/* The Reshape to [batch, length, heads * dim] behind the attention's Transpose; -1: none. */
static int match_result(const trmi_rw *rw, const trm_node *attention, const part *v)
{
    int t = reader_of(rw, attention->outputs[0]), r;
    const trm_tensor *y;

    if (t < 0 || rw->g->nodes[t].op != TRM_OP_Transpose || !perm_is(&rw->g->nodes[t], "0213"))
        return -1;
    r = reader_of(rw, rw->g->nodes[t].outputs[0]);
    if (r < 0 || rw->g->nodes[r].op != TRM_OP_Reshape)
        return -1;
    y = trmi_desc(rw->g, rw->g->nodes[r].outputs[0]);
    return y->rank == 3 && y->dims[2] == v->columns ? r : -1;
}

/* Constants side by side: [rows, sum of columns]. */
static trm_status join(trmi_rw *rw, const int values[3], int rank, int *joined_out)
{
    trm_graph *g = rw->g;
    trm_tensor one[3], all = {.dtype = TRM_DTYPE_F32, .rank = rank};
    size_t rows, at = 0, columns = 0;
    trm_status st;

    for (int i = 0; i < 3; i++) {
        TRM_CHECK(trm_graph_constant(g, values[i], &one[i]));
        columns += (size_t)one[i].dims[rank - 1];
    }
    rows = rank == 2 ? (size_t)one[0].dims[0] : 1;
    all.dims[0] = (int64_t)rows;
    all.dims[rank - 1] = (int64_t)columns;
    all.data = trm_malloc(rows * columns, sizeof(float));
    if (all.data == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "weights of an attention");
    for (size_t r = 0; r < rows; r++) {
        for (int i = 0; i < 3; i++) {
            size_t n = (size_t)one[i].dims[rank - 1];

            memcpy((float *)all.data + at, (const float *)one[i].data + r * n, n * sizeof(float));
            at += n;
        }
    }
    st = trmi_rw_constant(rw, g->values[values[0]].name, &all, joined_out);
    trm_free(all.data);
    return st;
}

/* The one product in place of three; *value_out: [batch, length, sum of columns]. */
static trm_status add_product(trmi_rw *rw, const part p[3], int *value_out)
{
    trm_graph *g = rw->g;
    trm_tensor desc = *trmi_desc(g, g->nodes[p[0].product].outputs[0]);
    int weights[3] = {p[0].weight, p[1].weight, p[2].weight};
    int biases[3] = {p[0].bias, p[1].bias, p[2].bias};
    int inputs[3] = {g->nodes[p[0].product].inputs[0]}, node;

    TRM_CHECK(join(rw, weights, 2, &inputs[1]));
    if (p[0].bias != TRM_NO_VALUE)
        TRM_CHECK(join(rw, biases, 1, &inputs[2]));
    desc.dims[desc.rank - 1] = p[0].columns + p[1].columns + p[2].columns;
    TRM_CHECK(trmi_rw_value(rw, g->nodes[p[0].product].name, &desc, value_out));
    TRM_CHECK(trmi_rw_node(rw, TRM_OP_MatMul, g->nodes[p[0].product].name, inputs,
                           p[0].bias == TRM_NO_VALUE ? 2 : 3, *value_out, &node));
    if (p[0].bias != TRM_NO_VALUE) {
        g->nodes[node].posts[0] = (trm_post){.op = TRM_OP_Add, .input = 2};
        g->nodes[node].post_count = 1;
    }
    return TRM_OK;
}

static trm_status set_attributes(trmi_rw *rw, int node, const part p[3], float scale)
{
    trm_attrs *attrs = &rw->g->nodes[node].attrs;
    trm_arena *arena = rw->g->arena;

    TRM_CHECK(trm_attr_set_float(attrs, arena, "scale", scale));
    TRM_CHECK(trm_attr_set_int(attrs, arena, "heads", p[0].heads));
    TRM_CHECK(trm_attr_set_int(attrs, arena, "dim", p[0].dim));
    return trm_attr_set_int(attrs, arena, "v_dim", p[2].dim);
}

static trm_status fuse(trmi_rw *rw, int node)
{
    trm_graph *g = rw->g;
    const trm_node *n = &g->nodes[node];
    bool transposed = trm_attr_int(&n->attrs, "k_transposed", 0) != 0;
    float scale = trm_attr_float(&n->attrs, "scale", 1.0f);
    int mask = n->input_count > 3 ? n->inputs[3] : TRM_NO_VALUE, inputs[2], result, value;
    part p[3];

    if (n->post_count > 0 || !match_part(rw, n->inputs[0], false, &p[0]) ||
        !match_part(rw, n->inputs[1], transposed, &p[1]) ||
        !match_part(rw, n->inputs[2], false, &p[2]))
        return TRM_OK;
    for (int i = 1; i < 3; i++)
        if (p[i].heads != p[0].heads || p[i].depth != p[0].depth ||
            (p[i].bias == TRM_NO_VALUE) != (p[0].bias == TRM_NO_VALUE) ||
            g->nodes[p[i].product].inputs[0] != g->nodes[p[0].product].inputs[0])
            return TRM_OK;
    result = match_result(rw, n, &p[2]);
    if (p[1].dim != p[0].dim || result < 0)
        return TRM_OK;
    TRM_CHECK(add_product(rw, p, &inputs[0]));
    inputs[1] = mask;
    TRM_CHECK(
        trmi_rw_become(rw, node, TRM_OP_TrmAttentionPacked, inputs, mask == TRM_NO_VALUE ? 1 : 2));
    TRM_CHECK(set_attributes(rw, node, p, scale));
    value = g->nodes[result].outputs[0];
    trmi_rw_remove(rw, result);
    trmi_rw_take_output(rw, node, value);
    return TRM_OK;
}

trm_status trm_pass_pack_attention(trm_graph *g)
{
    int count = g->node_count;
    trmi_rw rw;
    trm_status st;

    TRM_TRY(st, trmi_rw_init(&rw, g), done);
    for (int n = 0; n < count; n++)
        if (g->nodes[n].op == TRM_OP_TrmAttention)
            TRM_TRY(st, fuse(&rw, n), done);
    TRM_TRY(st, trm_graph_sort(g), done);
    st = trm_graph_infer(g);
done:
    trmi_rw_fini(&rw);
    return st;
}
