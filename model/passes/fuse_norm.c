/* LayerNormalization and RMSNormalization from primitive operators, as PyTorch exports them before
 * opset 17:
 *     d = x - mean(x); y = d / sqrt(mean(d^2) + eps) * scale + bias
 *     y = x / sqrt(mean(x^2) + eps) * scale
 * Where nothing else reads the parts, sorting drops them; where something does, they stay for it.
 */
#include "model/passes/rewrite.h"

/* The reduction runs over the last dims, kept: their first axis. */
static bool reduces_last(const trmi_rw *rw, const trm_node *n, int *axis_out)
{
    int rank = trmi_desc(rw->g, n->inputs[0])->rank;
    bool seen[TRM_RANK_MAX] = {false};
    trm_tensor axes;
    int64_t count;
    int axis = rank;

    if (rank < 1 || trm_attr_int(&n->attrs, "keepdims", 1) == 0 || n->input_count < 2 ||
        !trm_graph_is_constant(rw->g, n->inputs[1]) ||
        trm_graph_constant(rw->g, n->inputs[1], &axes) != TRM_OK || axes.rank > 1)
        return false;
    count = axes.rank == 0 ? 1 : axes.dims[0];
    for (int64_t i = 0; i < count; i++) {
        int64_t a = trm_tensor_get_i64(&axes, (size_t)i);

        a = a < 0 ? a + rank : a;
        if (a < 0 || a >= rank || seen[a])
            return false;
        seen[a] = true;
        axis = a < axis ? (int)a : axis;
    }
    *axis_out = axis;
    return count > 0 && rank - axis == count;
}

/* value = mean of the last dims of *of */
static bool is_mean(const trmi_rw *rw, int value, int *of, int *axis_out)
{
    trm_node *n = trmi_rw_made_by(rw, value, TRM_OP_ReduceMean);

    if (n == NULL || !reduces_last(rw, n, axis_out))
        return false;
    *of = n->inputs[0];
    return true;
}

static bool is_square(const trmi_rw *rw, int value, int *of)
{
    trm_node *n = trmi_rw_made_by(rw, value, TRM_OP_Pow);

    if (n != NULL) {
        *of = n->inputs[0];
        return trmi_scalar_is(rw->g, n->inputs[1], 2);
    }
    n = trmi_rw_made_by(rw, value, TRM_OP_Mul);
    if (n == NULL || n->inputs[0] != n->inputs[1])
        return false;
    *of = n->inputs[0];
    return true;
}

/* value = d - mean(d) for *x = d */
static bool is_centred(const trmi_rw *rw, int value, int *x, int *axis_out)
{
    trm_node *n = trmi_rw_made_by(rw, value, TRM_OP_Sub);
    int of;

    if (n == NULL || !is_mean(rw, n->inputs[1], &of, axis_out) || of != n->inputs[0])
        return false;
    *x = of;
    return true;
}

/* value = sqrt(mean(*of ^ 2) + *eps) */
static bool is_deviation(const trmi_rw *rw, int value, int *of, double *eps, int *axis_out)
{
    trm_node *root = trmi_rw_made_by(rw, value, TRM_OP_Sqrt), *add;
    int mean, square;

    if (root == NULL)
        return false;
    add = trmi_rw_made_by(rw, root->inputs[0], TRM_OP_Add);
    return trmi_with_scalar(rw->g, add, &mean, eps) && is_mean(rw, mean, &square, axis_out) &&
           is_square(rw, square, of);
}

/* The quotient node n: numerator and denominator. */
static bool quotient(const trmi_rw *rw, const trm_node *n, int *top, int *bottom)
{
    if (n->op == TRM_OP_Div) {
        *top = n->inputs[0];
        *bottom = n->inputs[1];
        return true;
    }
    for (int i = 0; n->op == TRM_OP_Mul && i < 2; i++) {
        trm_node *r = trmi_rw_made_by(rw, n->inputs[i], TRM_OP_Reciprocal);

        if (r == NULL)
            continue;
        *top = n->inputs[1 - i];
        *bottom = r->inputs[0];
        return true;
    }
    return false;
}

/* Scale or bias: a tensor of just the normalised dims. */
static bool is_parameter(const trmi_rw *rw, int value, const trm_tensor *x, int axis)
{
    const trm_tensor *t = trmi_desc(rw->g, value);

    if (!trm_graph_is_constant(rw->g, value) || t->dtype != x->dtype || t->rank != x->rank - axis)
        return false;
    for (int i = 0; i < t->rank; i++)
        if (t->dims[i] != x->dims[axis + i])
            return false;
    return true;
}

static trm_status fuse(trmi_rw *rw, int node)
{
    trm_graph *g = rw->g;
    int top, bottom, x, of, axis, axis2, mul, add, end, inputs[3] = {0}, count = 2;
    double eps;
    bool centred;

    if (!quotient(rw, &g->nodes[node], &top, &bottom) ||
        !is_deviation(rw, bottom, &of, &eps, &axis))
        return TRM_OK;
    centred = is_centred(rw, top, &x, &axis2) && axis2 == axis;
    if (centred && of != top) { /* exporters may write the difference twice */
        int x2, axis3;

        if (!is_centred(rw, of, &x2, &axis3) || x2 != x || axis3 != axis)
            return TRM_OK;
    }
    if (!centred) {
        if (of != top)
            return TRM_OK;
        x = top;
    }
    mul = trmi_rw_reader(rw, g->nodes[node].outputs[0]);
    if (mul < 0 || g->nodes[mul].op != TRM_OP_Mul || g->nodes[mul].post_count > 0)
        return TRM_OK;
    inputs[0] = x;
    inputs[1] = trmi_other(&g->nodes[mul], g->nodes[node].outputs[0]);
    if (!is_parameter(rw, inputs[1], trmi_desc(g, x), axis))
        return TRM_OK;
    end = mul;
    add = centred ? trmi_rw_reader(rw, g->nodes[mul].outputs[0]) : -1;
    if (add >= 0 && g->nodes[add].op == TRM_OP_Add) {
        inputs[2] = trmi_other(&g->nodes[add], g->nodes[mul].outputs[0]);
        if (is_parameter(rw, inputs[2], trmi_desc(g, x), axis)) {
            end = add;
            count = 3;
        }
    }
    TRM_CHECK(trmi_rw_become(rw, end, centred ? TRM_OP_LayerNormalization : TRM_OP_RMSNormalization,
                             inputs, count));
    TRM_CHECK(trm_attr_set_int(&g->nodes[end].attrs, g->arena, "axis", axis));
    return trm_attr_set_float(&g->nodes[end].attrs, g->arena, "epsilon", (float)eps);
}

trm_status trmi_fuse_norms(trmi_rw *rw)
{
    int count = rw->g->node_count;

    for (int n = 0; n < count; n++)
        if (rw->g->nodes[n].op == TRM_OP_Div || rw->g->nodes[n].op == TRM_OP_Mul)
            TRM_CHECK(fuse(rw, n));
    return TRM_OK;
}
