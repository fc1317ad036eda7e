/* Activations that exporters spell in primitive operators: Gelu (erf and tanh), SiLU, HardSigmoid,
 * HardSwish, Mish. Each matcher starts at the operator that gives the pattern away, and demands
 * that nothing else reads what goes. */
#include "model/passes/rewrite.h"

#include <math.h>

#define SQRT_HALF 0.70710678
#define SQRT_2_PI 0.79788456 /* sqrt(2 / pi) */

/* The binary node `op` that alone reads `value`. */
static int next(const trmi_rw *rw, int value, trm_op op)
{
    int n = trmi_rw_reader(rw, value);

    return n >= 0 && rw->g->nodes[n].op == op && rw->g->nodes[n].post_count == 0 ? n : -1;
}

static int output(const trmi_rw *rw, int node)
{
    return rw->g->nodes[node].outputs[0];
}

/* value = x * c (or x / (1/c)): true, with x. */
static bool scaled(const trmi_rw *rw, int value, double c, int *x_out)
{
    trm_node *n = trmi_rw_made_by(rw, value, TRM_OP_Mul);
    double s;

    if (trmi_with_scalar(rw->g, n, x_out, &s))
        return fabs(s - c) <= 1e-3 * c;
    n = trmi_rw_made_by(rw, value, TRM_OP_Div);
    return trmi_with_scalar(rw->g, n, x_out, &s) && fabs(s * c - 1) <= 1e-3;
}

/* value = x * x * x */
static bool is_cube(const trmi_rw *rw, int value, int x)
{
    trm_node *n = trmi_rw_made_by(rw, value, TRM_OP_Pow), *square;

    if (n != NULL)
        return n->inputs[0] == x && trmi_scalar_is(rw->g, n->inputs[1], 3);
    n = trmi_rw_made_by(rw, value, TRM_OP_Mul);
    if (n == NULL || (n->inputs[0] != x && n->inputs[1] != x))
        return false;
    square = trmi_rw_made_by(rw, trmi_other(n, x), TRM_OP_Mul);
    return square != NULL && square->inputs[0] == x && square->inputs[1] == x;
}

/* From value = 1 + f(x): the node at the end of 0.5 * x * value, in any order; -1 if there is none.
 */
static int half_product(const trmi_rw *rw, int value, int x)
{
    bool half = false, by_x = false;

    for (;;) {
        int n = next(rw, value, TRM_OP_Mul), other, inner;

        if (n < 0)
            return -1;
        other = trmi_other(&rw->g->nodes[n], value);
        if (rw->g->nodes[n].inputs[0] == rw->g->nodes[n].inputs[1])
            return -1;
        if (!half && trmi_scalar_is(rw->g, other, 0.5))
            half = true;
        else if (!by_x && other == x)
            by_x = true;
        else if (!half && !by_x && scaled(rw, other, 0.5, &inner) && inner == x)
            half = by_x = true;
        else
            return -1;
        if (half && by_x)
            return n;
        value = output(rw, n);
    }
}

static trm_status become_unary(trmi_rw *rw, int node, trm_op op, int x)
{
    return trmi_rw_become(rw, node, op, &x, 1);
}

static trm_status become_gelu(trmi_rw *rw, int end, int x, bool tanh_form)
{
    TRM_CHECK(become_unary(rw, end, TRM_OP_Gelu, x));
    return trm_attr_set_string(&rw->g->nodes[end].attrs, rw->g->arena, "approximate",
                               tanh_form ? "tanh" : "none");
}

/* node: Erf or Tanh of something of x */
static trm_status from_gate(trmi_rw *rw, int node, int x, bool tanh_form)
{
    int add = next(rw, output(rw, node), TRM_OP_Add), end;

    if (add < 0 || !trmi_scalar_is(rw->g, trmi_other(&rw->g->nodes[add], output(rw, node)), 1))
        return TRM_OK;
    end = half_product(rw, output(rw, add), x);
    return end < 0 ? TRM_OK : become_gelu(rw, end, x, tanh_form);
}

static trm_status from_erf(trmi_rw *rw, int node)
{
    int x;

    if (!scaled(rw, rw->g->nodes[node].inputs[0], SQRT_HALF, &x))
        return TRM_OK;
    return from_gate(rw, node, x, false);
}

/* u = x + 0.044715 x^3; returns x or TRM_NO_VALUE */
static int cubic(const trmi_rw *rw, int u)
{
    trm_node *add = trmi_rw_made_by(rw, u, TRM_OP_Add);

    for (int i = 0; add != NULL && i < 2; i++) {
        int cube, x = add->inputs[1 - i];

        if (scaled(rw, add->inputs[i], 0.044715, &cube) && is_cube(rw, cube, x))
            return x;
    }
    return TRM_NO_VALUE;
}

/* u = (x * sqrt(2/pi)) * (1 + (x * 0.044715) * x); returns x or TRM_NO_VALUE */
static int cubic_factored(const trmi_rw *rw, int u)
{
    trm_node *mul = trmi_rw_made_by(rw, u, TRM_OP_Mul);

    for (int i = 0; mul != NULL && i < 2; i++) {
        trm_node *add = trmi_rw_made_by(rw, mul->inputs[1 - i], TRM_OP_Add), *square;
        int x, inner, one;
        double s;

        if (!scaled(rw, mul->inputs[i], SQRT_2_PI, &x) || !trmi_with_scalar(rw->g, add, &one, &s) ||
            s != 1)
            continue;
        square = trmi_rw_made_by(rw, one, TRM_OP_Mul);
        if (square != NULL && (square->inputs[0] == x || square->inputs[1] == x) &&
            scaled(rw, trmi_other(square, x), 0.044715, &inner) && inner == x)
            return x;
    }
    return TRM_NO_VALUE;
}

static trm_status from_tanh(trmi_rw *rw, int node)
{
    int u, x = TRM_NO_VALUE, n, in = rw->g->nodes[node].inputs[0];
    trm_node *soft = trmi_rw_made_by(rw, in, TRM_OP_Softplus);

    if (soft != NULL) { /* x * tanh(softplus(x)) */
        n = next(rw, output(rw, node), TRM_OP_Mul);
        x = soft->inputs[0];
        if (n >= 0 && trmi_other(&rw->g->nodes[n], output(rw, node)) == x)
            return become_unary(rw, n, TRM_OP_Mish, x);
        return TRM_OK;
    }
    if (scaled(rw, in, SQRT_2_PI, &u))
        x = cubic(rw, u);
    if (x == TRM_NO_VALUE)
        x = cubic_factored(rw, in);
    return x == TRM_NO_VALUE ? TRM_OK : from_gate(rw, node, x, true);
}

/* x * sigmoid(x) */
static trm_status from_sigmoid(trmi_rw *rw, int node)
{
    int n = next(rw, output(rw, node), TRM_OP_Mul), x = rw->g->nodes[node].inputs[0];

    if (n < 0 || trmi_other(&rw->g->nodes[n], output(rw, node)) != x)
        return TRM_OK;
    return become_unary(rw, n, TRM_OP_TrmSilu, x);
}

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-3 * fabs(b);
}

static trm_status from_hard_sigmoid(trmi_rw *rw, int node)
{
    const trm_attrs *a = &rw->g->nodes[node].attrs;
    int n = next(rw, output(rw, node), TRM_OP_Mul), x = rw->g->nodes[node].inputs[0];

    if (n < 0 || !near((double)trm_attr_float(a, "alpha", 0.2F), 1.0 / 6) ||
        !near((double)trm_attr_float(a, "beta", 0.5F), 0.5) ||
        trmi_other(&rw->g->nodes[n], output(rw, node)) != x)
        return TRM_OK;
    return become_unary(rw, n, TRM_OP_HardSwish, x);
}

/* clip(x + 3, 0, 6): times x, over 6, in any order */
static trm_status from_clip(trmi_rw *rw, int node)
{
    const trm_node *clip = &rw->g->nodes[node];
    trm_node *add = trmi_rw_made_by(rw, clip->inputs[0], TRM_OP_Add);
    int x, n, value = output(rw, node), end = -1, inner;
    double three, low;

    if (clip->input_count < 3 || !trmi_with_scalar(rw->g, add, &x, &three) || !near(three, 3) ||
        !trmi_scalar(rw->g, clip->inputs[1], &low) || low != 0 ||
        !trmi_scalar_is(rw->g, clip->inputs[2], 6))
        return TRM_OK;
    n = trmi_rw_reader(rw, value);
    if (n < 0)
        return TRM_OK;
    if (scaled(rw, output(rw, n), 1.0 / 6, &inner) && inner == value) { /* a hard sigmoid */
        TRM_CHECK(become_unary(rw, n, TRM_OP_HardSigmoid, x));
        TRM_CHECK(trm_attr_set_float(&rw->g->nodes[n].attrs, rw->g->arena, "alpha", 1.0F / 6));
        TRM_CHECK(trm_attr_set_float(&rw->g->nodes[n].attrs, rw->g->arena, "beta", 0.5F));
        return from_hard_sigmoid(rw, n);
    }
    n = next(rw, value, TRM_OP_Mul);
    if (n < 0 || trmi_other(&rw->g->nodes[n], value) != x)
        return TRM_OK;
    end = trmi_rw_reader(rw, output(rw, n));
    if (end >= 0 && scaled(rw, output(rw, end), 1.0 / 6, &inner) && inner == output(rw, n))
        return become_unary(rw, end, TRM_OP_HardSwish, x);
    return TRM_OK;
}

trm_status trmi_fuse_activations(trmi_rw *rw)
{
    int count = rw->g->node_count;

    for (int n = 0; n < count; n++) {
        switch (rw->g->nodes[n].op) {
        case TRM_OP_Erf:
            TRM_CHECK(from_erf(rw, n));
            break;
        case TRM_OP_Tanh:
            TRM_CHECK(from_tanh(rw, n));
            break;
        case TRM_OP_Sigmoid:
            TRM_CHECK(from_sigmoid(rw, n));
            break;
        case TRM_OP_HardSigmoid:
            TRM_CHECK(from_hard_sigmoid(rw, n));
            break;
        case TRM_OP_Clip:
            TRM_CHECK(from_clip(rw, n));
            break;
        default:
            break;
        }
    }
    return TRM_OK;
}
