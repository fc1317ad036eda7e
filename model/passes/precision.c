/* Mixed precision: convolutions, matrix products and attention read and write 16 bits, and so does
 * what passes their results on (pools, activations, sums, norms, data movement); everything else
 * stays in fp32, behind Cast nodes. Constant weights stay fp32 in the graph: their kernels pack
 * them to 16 bits. Graph inputs and outputs keep their dtypes; bodies of If, Loop and Scan stay as
 * they are. */
#include "model/passes/passes.h"
#include "model/passes/rewrite.h"
#include "model/shape/shape.h"

typedef struct mixed {
    trmi_rw rw;
    trm_dtype dtype;
    int *low;  /* [count] the 16-bit form of a value, itself included; -1: none yet */
    int *high; /* [count] the fp32 form of a value that has become 16 bits; -1: none yet */
    int count; /* values at the start; later ones are forms of these */
} mixed;

static bool is_host(trm_op op)
{
    return op == TRM_OP_Conv || op == TRM_OP_ConvTranspose || op == TRM_OP_MatMul ||
           op == TRM_OP_Gemm || op == TRM_OP_TrmAttention;
}

/* Norms compute in fp32 whatever they read and write: between 16-bit products they need no casts,
 * and lose nothing that the product after them would not. */
static bool is_norm(const trm_node *n)
{
    return n->op == TRM_OP_LayerNormalization &&
           (n->output_count < 2 || n->outputs[1] == TRM_NO_VALUE) &&
           (n->output_count < 3 || n->outputs[2] == TRM_NO_VALUE);
}

/* Operators that pass 16-bit data on: all float inputs and the outputs are of one dtype. */
static bool passes_on(const trm_node *n)
{
    if (is_norm(n))
        return true;
    switch (n->op) {
    case TRM_OP_MaxPool:
        return n->output_count < 2 || n->outputs[1] == TRM_NO_VALUE;
    case TRM_OP_AveragePool:
    case TRM_OP_GlobalAveragePool:
    case TRM_OP_GlobalMaxPool:
    case TRM_OP_Relu:
    case TRM_OP_LeakyRelu:
    case TRM_OP_Sigmoid:
    case TRM_OP_Tanh:
    case TRM_OP_HardSigmoid:
    case TRM_OP_HardSwish:
    case TRM_OP_TrmSilu:
    case TRM_OP_Gelu:
    case TRM_OP_Add:
    case TRM_OP_Sub:
    case TRM_OP_Mul:
    case TRM_OP_Concat:
    case TRM_OP_Split:
    case TRM_OP_Slice:
    case TRM_OP_Transpose:
    case TRM_OP_Reshape:
    case TRM_OP_Flatten:
    case TRM_OP_Squeeze:
    case TRM_OP_Unsqueeze:
        return true;
    default:
        return false;
    }
}

bool trm_pass_precision_lowers(const trm_node *n)
{
    return is_host(n->op) || passes_on(n);
}

static trm_status add_cast(mixed *m, int from, int to, trm_dtype dtype)
{
    int node;

    TRM_CHECK(trmi_rw_node(&m->rw, TRM_OP_Cast, m->rw.g->values[from].name, &from, 1, to, &node));
    return trm_attr_set_int(&m->rw.g->nodes[node].attrs, m->rw.g->arena, "to",
                            trm_dtype_to_onnx(dtype));
}

/* A 16-bit copy of a constant. */
static trm_status low_constant(mixed *m, int v, int *out)
{
    trm_graph *g = m->rw.g;
    trm_tensor from, to;
    size_t n;
    trm_status st;

    TRM_CHECK(trm_graph_constant(g, v, &from));
    TRM_CHECK(trm_tensor_elems(&from, &n));
    to = from;
    to.dtype = m->dtype;
    to.data = trm_malloc(n + 1, trm_dtype_bytes(m->dtype));
    if (to.data == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "constant '%s' in 16 bits", g->values[v].name);
    for (size_t i = 0; i < n; i++)
        trm_tensor_set_f64(&to, i, trm_tensor_get_f64(&from, i));
    st = trmi_rw_constant(&m->rw, g->values[v].name, &to, out);
    trm_free(to.data);
    return st;
}

static trm_status low_form(mixed *m, int v, int *out)
{
    trm_graph *g = m->rw.g;
    trm_tensor desc = g->values[v].desc;

    if (m->low[v] < 0) {
        if (trm_graph_is_constant(g, v)) {
            TRM_CHECK(low_constant(m, v, &m->low[v]));
        } else {
            desc.dtype = m->dtype;
            TRM_CHECK(trmi_rw_value(&m->rw, g->values[v].name, &desc, &m->low[v]));
            TRM_CHECK(add_cast(m, v, m->low[v], m->dtype));
        }
    }
    *out = m->low[v];
    return TRM_OK;
}

static trm_status high_form(mixed *m, int v, int *out)
{
    trm_graph *g = m->rw.g;
    trm_tensor desc = g->values[v].desc;

    if (m->high[v] < 0) {
        desc.dtype = TRM_DTYPE_F32;
        TRM_CHECK(trmi_rw_value(&m->rw, g->values[v].name, &desc, &m->high[v]));
        TRM_CHECK(add_cast(m, v, m->high[v], TRM_DTYPE_F32));
    }
    *out = m->high[v];
    return TRM_OK;
}

/* Output k becomes 16 bits; an output of the graph is made from it by a Cast. */
static trm_status lower_output(mixed *m, int node, int k)
{
    trm_graph *g = m->rw.g;
    int v = g->nodes[node].outputs[k];
    trm_tensor desc;

    if (v == TRM_NO_VALUE || g->values[v].desc.dtype != TRM_DTYPE_F32)
        return TRM_OK;
    if (!m->rw.output[v]) {
        g->values[v].desc.dtype = m->dtype;
        m->low[v] = v;
        return TRM_OK;
    }
    desc = g->values[v].desc;
    desc.dtype = m->dtype;
    TRM_CHECK(trmi_rw_value(&m->rw, g->values[v].name, &desc, &m->low[v]));
    g->nodes[node].outputs[k] = m->low[v];
    g->values[m->low[v]].producer = node;
    return add_cast(m, m->low[v], v, TRM_DTYPE_F32);
}

static bool is_f32(const trm_graph *g, int v)
{
    return v != TRM_NO_VALUE && g->values[v].desc.dtype == TRM_DTYPE_F32;
}

static bool became_low(const mixed *m, int v)
{
    return v != TRM_NO_VALUE && v < m->count && m->low[v] == v;
}

/* Kernels take fp32 constants as weights, biases and operands of post-ops; masks hold numbers that
 * 16 bits do not. */
static bool stays_fp32(const trm_graph *g, const trm_node *n, int i)
{
    if (n->op == TRM_OP_TrmAttention && i == 3)
        return true;
    return (is_host(n->op) || is_norm(n)) && i > 0 && trm_graph_is_constant(g, n->inputs[i]);
}

static trm_status lower_node(mixed *m, int node)
{
    trm_graph *g = m->rw.g;
    int form;

    for (int i = 0; i < g->nodes[node].input_count; i++) {
        int v = g->nodes[node].inputs[i];

        if (!is_f32(g, v) || stays_fp32(g, &g->nodes[node], i))
            continue;
        TRM_CHECK(low_form(m, v, &form));
        trmi_rw_set_input(&m->rw, node, i, form);
    }
    for (int k = 0; k < g->nodes[node].output_count; k++)
        TRM_CHECK(lower_output(m, node, k));
    return TRM_OK;
}

static trm_status visit(mixed *m, int node)
{
    trm_graph *g = m->rw.g;
    const trm_node *n = &g->nodes[node];
    bool any = false;
    int form;

    if (n->op == TRM_OP_Shape || n->op == TRM_OP_Size)
        return TRM_OK; /* of any dtype */
    for (int i = 0; i < n->input_count; i++)
        any = any || became_low(m, n->inputs[i]) ||
              (n->inputs[i] != TRM_NO_VALUE && is_f32(g, n->inputs[i]) &&
               !trm_graph_is_constant(g, n->inputs[i]) && m->low[n->inputs[i]] >= 0 &&
               m->rw.output[n->inputs[i]]);
    if (is_host(n->op) && n->output_count > 0 && n->outputs[0] != TRM_NO_VALUE &&
        is_f32(g, n->outputs[0]) && (became_low(m, n->inputs[0]) || is_f32(g, n->inputs[0])))
        return lower_node(m, node);
    if (any && passes_on(n) && n->post_count == 0)
        return lower_node(m, node);
    for (int i = 0; i < n->input_count; i++) {
        if (!became_low(m, n->inputs[i]))
            continue;
        TRM_CHECK(high_form(m, n->inputs[i], &form));
        trmi_rw_set_input(&m->rw, node, i, form);
        n = &g->nodes[node];
    }
    return TRM_OK;
}

trm_status trm_pass_precision(trm_graph *g, trm_dtype dtype)
{
    mixed m = {.dtype = dtype, .count = g->value_count};
    int nodes = g->node_count;
    trm_status st;

    if (dtype != TRM_DTYPE_BF16 && dtype != TRM_DTYPE_F16)
        return trm_fail(TRM_ERR_INVALID_ARG, "precision %s: want bf16 or f16",
                        trm_dtype_name(dtype));
    TRM_TRY(st, trmi_rw_init(&m.rw, g), done);
    m.low = (int *)trm_malloc((size_t)m.count + 1, 2 * sizeof(int));
    if (m.low == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "precision pass");
        goto done;
    }
    m.high = m.low + m.count + 1;
    for (int v = 0; v <= m.count; v++)
        m.low[v] = m.high[v] = -1;
    for (int n = 0; n < nodes; n++)
        TRM_TRY(st, visit(&m, n), done);
    TRM_TRY(st, trm_graph_sort(g), done);
    st = trm_graph_infer(g);
done:
    trm_free(m.low);
    trmi_rw_fini(&m.rw);
    return st;
}
