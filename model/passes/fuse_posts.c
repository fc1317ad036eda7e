/* What follows a Conv, ConvTranspose, MatMul or Gemm becomes its post-ops: activations, and an
 * addition or multiplication of a tensor of the output's shape (a residual) or a constant broadcast
 * along the output (a bias). Operands of post-ops come after all inputs the operator itself can
 * have. */
#include "model/passes/rewrite.h"

#include <float.h>
#include <string.h>

static bool is_host(trm_op op)
{
    return op == TRM_OP_Conv || op == TRM_OP_ConvTranspose || op == TRM_OP_MatMul ||
           op == TRM_OP_Gemm;
}

/* A bound of Clip: absent, or a scalar constant. */
static bool bound(const trm_graph *g, const trm_node *n, int i, float otherwise, float *out)
{
    double v;

    *out = otherwise;
    if (i >= n->input_count || n->inputs[i] == TRM_NO_VALUE)
        return true;
    if (!trmi_scalar(g, n->inputs[i], &v))
        return false;
    *out = v > (double)FLT_MAX ? FLT_MAX : v < -(double)FLT_MAX ? -FLT_MAX : (float)v;
    return true;
}

static bool as_unary(const trm_graph *g, const trm_node *n, trm_post *post)
{
    *post = (trm_post){.op = n->op, .input = -1};
    switch (n->op) {
    case TRM_OP_Relu:
    case TRM_OP_Sigmoid:
    case TRM_OP_Tanh:
    case TRM_OP_HardSwish:
    case TRM_OP_TrmSilu:
        return true;
    case TRM_OP_Gelu:
        post->alpha =
            strcmp(trm_attr_string(&n->attrs, "approximate", "none"), "tanh") == 0 ? 1.0F : 0.0F;
        return true;
    case TRM_OP_LeakyRelu:
        post->alpha = trm_attr_float(&n->attrs, "alpha", 0.01F);
        return true;
    case TRM_OP_Elu:
        post->alpha = trm_attr_float(&n->attrs, "alpha", 1.0F);
        return true;
    case TRM_OP_HardSigmoid:
        post->alpha = trm_attr_float(&n->attrs, "alpha", 0.2F);
        post->beta = trm_attr_float(&n->attrs, "beta", 0.5F);
        return true;
    case TRM_OP_Clip:
        return bound(g, n, 1, -FLT_MAX, &post->alpha) && bound(g, n, 2, FLT_MAX, &post->beta);
    default:
        return false;
    }
}

/* Constant t is one number, or one a channel (convolutions: dim 1) or column (products: last). */
static bool along(const trm_tensor *t, const trm_tensor *out, bool conv)
{
    int axis = conv ? 1 : out->rank - 1;

    if (t->rank < 0 || t->rank > out->rank)
        return false;
    for (int i = 0; i < t->rank; i++) {
        int d = out->rank - t->rank + i;

        if (t->dims[i] != 1 && !(d == axis && t->dims[i] == out->dims[d]))
            return false;
    }
    return true;
}

static bool operand_fits(const trm_graph *g, const trm_node *host, const trm_node *n, int other)
{
    const trm_tensor *out = trmi_desc(g, host->outputs[0]), *t = trmi_desc(g, other);
    bool conv = host->op == TRM_OP_Conv || host->op == TRM_OP_ConvTranspose;

    if (n->inputs[0] == n->inputs[1] || t->dtype != out->dtype || !trm_dtype_is_float(out->dtype) ||
        out->rank < 1)
        return false;
    if (trmi_same_shape(t, out))
        return true;
    return trm_graph_is_constant(g, other) && along(t, out, conv);
}

/* Moves the one reader of the host's output into it. */
static trm_status absorb(trmi_rw *rw, int host, bool *done_out)
{
    trm_graph *g = rw->g;
    trm_node *h = &g->nodes[host];
    int reader = trmi_rw_reader(rw, h->outputs[0]), result, in_max = trm_op_get(h->op)->in_max;
    trm_node *n;
    trm_post post;

    *done_out = false;
    if (reader < 0 || h->post_count >= TRM_POST_MAX)
        return TRM_OK;
    n = &g->nodes[reader];
    if (n->post_count > 0 || n->input_count < 1 ||
        trmi_desc(g, n->outputs[0])->dtype != trmi_desc(g, h->outputs[0])->dtype)
        return TRM_OK;
    if (n->op == TRM_OP_Add || n->op == TRM_OP_Mul) {
        int other = trmi_other(n, h->outputs[0]);

        if (!operand_fits(g, h, n, other))
            return TRM_OK;
        post = (trm_post){.op = n->op};
        TRM_CHECK(trmi_rw_pad_inputs(rw, host, in_max));
        post.input = g->nodes[host].input_count;
        TRM_CHECK(trmi_rw_append_input(rw, host, other));
    } else if (n->inputs[0] != h->outputs[0] || !as_unary(g, n, &post)) {
        return TRM_OK;
    }
    h = &g->nodes[host];
    h->posts[h->post_count++] = post;
    result = g->nodes[reader].outputs[0];
    trmi_rw_remove(rw, reader);
    trmi_rw_take_output(rw, host, result);
    *done_out = true;
    return TRM_OK;
}

trm_status trmi_fuse_posts(trmi_rw *rw)
{
    /* Backwards: where a sum joins two products, the later one takes it and finds the other ready.
     */
    for (int n = rw->g->node_count - 1; n >= 0; n--) {
        bool more = is_host(rw->g->nodes[n].op);

        while (more)
            TRM_CHECK(absorb(rw, n, &more));
    }
    return TRM_OK;
}
