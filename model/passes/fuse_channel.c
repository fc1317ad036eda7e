/* Per-channel arithmetic after a convolution goes into its weights and bias: batch normalisation,
 * and multiplications or additions of a constant per channel. Zero padding before a convolution
 * goes into its pads. */
#include "model/passes/rewrite.h"

#include <math.h>
#include <string.h>

/* y = x * scale[c] + shift[c] */
typedef struct affine {
    double *scale, *shift; /* [channels]; scale NULL: all ones */
    int64_t channels;
} affine;

static trm_status affine_alloc(affine *a, int64_t channels)
{
    a->channels = channels;
    a->scale = (double *)trm_malloc((size_t)channels * 2, sizeof(double));
    if (a->scale == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "fusion: %lld channels", (long long)channels);
    a->shift = a->scale + channels;
    for (int64_t c = 0; c < channels; c++) {
        a->scale[c] = 1;
        a->shift[c] = 0;
    }
    return TRM_OK;
}

/* Constant `value` as one number a channel of a tensor of `rank` dims (channels are dim 1). */
static bool per_channel(trm_graph *g, int value, int rank, int64_t channels, trm_tensor *t,
                        bool *scalar_out)
{
    int at;
    size_t n;

    if (!trm_graph_is_constant(g, value) || trm_graph_constant(g, value, t) != TRM_OK ||
        !trm_dtype_is_float(t->dtype) || t->rank > rank || trm_tensor_elems(t, &n) != TRM_OK)
        return false;
    *scalar_out = n == 1;
    if (n == 1)
        return true;
    at = t->rank - (rank - 1); /* dim of t that lines up with dim 1 */
    return at >= 0 && t->dims[at] == channels && n == (size_t)channels;
}

static trm_status from_batch_norm(trm_graph *g, const trm_node *n, affine *a, bool *ok_out)
{
    double eps = (double)trm_attr_float(&n->attrs, "epsilon", 1e-5F);
    trm_tensor t[4];

    *ok_out = false;
    if (trm_attr_int(&n->attrs, "training_mode", 0) != 0)
        return TRM_OK;
    for (int k = 1; k < n->output_count; k++)
        if (n->outputs[k] != TRM_NO_VALUE)
            return TRM_OK;
    for (int i = 0; i < 4; i++) {
        if (!trm_graph_is_constant(g, n->inputs[1 + i]))
            return TRM_OK;
        TRM_CHECK(trm_graph_constant(g, n->inputs[1 + i], &t[i]));
        if (t[i].rank != 1 || t[i].dims[0] != a->channels)
            return TRM_OK;
    }
    for (int64_t c = 0; c < a->channels; c++) {
        size_t k = (size_t)c;
        double s = trm_tensor_get_f64(&t[0], k) / sqrt(trm_tensor_get_f64(&t[3], k) + eps);

        a->scale[c] = s;
        a->shift[c] = trm_tensor_get_f64(&t[1], k) - trm_tensor_get_f64(&t[2], k) * s;
    }
    *ok_out = true;
    return TRM_OK;
}

static bool from_arithmetic(trm_graph *g, const trm_node *n, int value, int rank, affine *a)
{
    int other = trmi_other(n, value);
    trm_tensor t;
    bool scalar;

    if (n->inputs[0] == n->inputs[1] || !per_channel(g, other, rank, a->channels, &t, &scalar) ||
        ((n->op == TRM_OP_Sub || n->op == TRM_OP_Div) && n->inputs[0] != value))
        return false;
    for (int64_t c = 0; c < a->channels; c++) {
        double v = trm_tensor_get_f64(&t, scalar ? 0 : (size_t)c);

        if (n->op == TRM_OP_Mul)
            a->scale[c] = v;
        else if (n->op == TRM_OP_Div)
            a->scale[c] = 1 / v;
        else
            a->shift[c] = n->op == TRM_OP_Add ? v : -v;
    }
    return true;
}

/* Multiplies the weights of every output channel. Conv: [M, ...]; ConvTranspose: [C, M/group, ...]
 * where output channel m of group j is at [c of group j, m]. */
static trm_status scale_weights(trmi_rw *rw, int conv, const affine *a)
{
    trm_graph *g = rw->g;
    trm_node *n = &g->nodes[conv];
    bool transposed = n->op == TRM_OP_ConvTranspose;
    int64_t groups = trm_attr_int(&n->attrs, "group", 1), rows, cols, inner;
    trm_tensor w, scaled;
    int value;

    if (!transposed && trmi_desc(g, n->inputs[1])->dtype == TRM_DTYPE_F32) {
        /* by recipe: whoever needs a part of the weights makes that part only */
        TRM_CHECK(trmi_rw_scaled(rw, n->inputs[1], a->scale, &value));
        trmi_rw_set_input(rw, conv, 1, value);
        return TRM_OK;
    }
    TRM_CHECK(trm_graph_constant(g, n->inputs[1], &w));
    TRM_CHECK(trmi_rw_constant(rw, g->values[n->inputs[1]].name, &w, &value));
    scaled = g->values[value].desc;
    rows = w.dims[0];
    cols = transposed ? w.dims[1] : 1;
    inner = (int64_t)trm_tensor_count(&w, transposed ? 2 : 1, w.rank);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            size_t at = (size_t)((r * cols + c) * inner);
            double s = a->scale[transposed ? r / (rows / groups) * cols + c : r];

            for (size_t i = at; i < at + (size_t)inner; i++) {
                if (w.dtype == TRM_DTYPE_F32)
                    ((float *)scaled.data)[i] = (float)(((const float *)w.data)[i] * s);
                else
                    trm_tensor_set_f64(&scaled, i, trm_tensor_get_f64(&w, i) * s);
            }
        }
    trmi_rw_set_input(rw, conv, 1, value);
    return TRM_OK;
}

static trm_status set_bias(trmi_rw *rw, int conv, const affine *a)
{
    trm_graph *g = rw->g;
    trm_node *n = &g->nodes[conv];
    bool has = n->input_count > 2 && n->inputs[2] != TRM_NO_VALUE;
    trm_tensor old = {0}, t = {.dtype = trmi_desc(g, n->inputs[1])->dtype, .rank = 1};
    trm_status st = TRM_OK;
    int value;

    if (has)
        TRM_CHECK(trm_graph_constant(g, n->inputs[2], &old));
    t.dims[0] = a->channels;
    t.data = trm_malloc((size_t)a->channels, 8);
    if (t.data == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "fusion: bias");
    for (int64_t c = 0; c < a->channels; c++)
        trm_tensor_set_f64(&t, (size_t)c,
                           (has ? trm_tensor_get_f64(&old, (size_t)c) : 0) * a->scale[c] +
                               a->shift[c]);
    TRM_TRY(st, trmi_rw_constant(rw, has ? g->values[n->inputs[2]].name : "bias", &t, &value),
            done);
    TRM_TRY(st, trmi_rw_pad_inputs(rw, conv, 3), done);
    trmi_rw_set_input(rw, conv, 2, value);
done:
    trm_free(t.data);
    return st;
}

/* Takes the one reader of the convolution's output into it; *done_out: whether it did. */
static trm_status absorb(trmi_rw *rw, int conv, bool *done_out)
{
    trm_graph *g = rw->g;
    trm_node *n = &g->nodes[conv], *r;
    const trm_tensor *out = trmi_desc(g, n->outputs[0]);
    int reader = trmi_rw_reader(rw, n->outputs[0]), result;
    affine a = {0};
    trm_status st;
    bool ok = false;

    *done_out = false;
    if (reader < 0 || n->post_count > 0 || !trm_graph_is_constant(g, n->inputs[1]) ||
        !trm_dtype_is_float(trmi_desc(g, n->inputs[1])->dtype) || out->rank < 3 ||
        out->dims[1] < 1 ||
        (n->input_count > 2 && n->inputs[2] != TRM_NO_VALUE &&
         !trm_graph_is_constant(g, n->inputs[2])))
        return TRM_OK;
    r = &g->nodes[reader];
    if (r->op != TRM_OP_BatchNormalization && r->op != TRM_OP_Mul && r->op != TRM_OP_Div &&
        r->op != TRM_OP_Add && r->op != TRM_OP_Sub)
        return TRM_OK;
    TRM_CHECK(affine_alloc(&a, out->dims[1]));
    if (r->op != TRM_OP_BatchNormalization)
        ok = from_arithmetic(g, r, n->outputs[0], out->rank, &a);
    else if (r->inputs[0] == n->outputs[0])
        TRM_TRY(st, from_batch_norm(g, r, &a, &ok), done);
    st = TRM_OK;
    for (int64_t c = 0; ok && c < a.channels; c++) /* a variance of 0 - eps, a division by 0 */
        ok = isfinite(a.scale[c]) && isfinite(a.shift[c]);
    if (!ok)
        goto done;
    if (r->op != TRM_OP_Add && r->op != TRM_OP_Sub)
        TRM_TRY(st, scale_weights(rw, conv, &a), done);
    TRM_TRY(st, set_bias(rw, conv, &a), done);
    result = g->nodes[reader].outputs[0];
    trmi_rw_remove(rw, reader);
    trmi_rw_take_output(rw, conv, result);
    *done_out = true;
done:
    trm_free(a.scale);
    return st;
}

/* Pad(x, zeros around the spatial dims) before a convolution. */
static trm_status absorb_pad(trmi_rw *rw, int conv)
{
    trm_graph *g = rw->g;
    trm_node *n = &g->nodes[conv], *p = trmi_rw_made_by(rw, n->inputs[0], TRM_OP_Pad);
    int rank = trmi_desc(g, n->inputs[0])->rank, spatial = rank - 2;
    int64_t pads[2 * TRM_RANK_MAX];
    const int64_t *own;
    double fill;
    trm_tensor t;
    size_t count;

    if (p == NULL || rank < 3 || trmi_rw_reader(rw, n->inputs[0]) != conv ||
        strcmp(trm_attr_string(&n->attrs, "auto_pad", "NOTSET"), "NOTSET") != 0 ||
        strcmp(trm_attr_string(&p->attrs, "mode", "constant"), "constant") != 0 ||
        (p->input_count > 2 && p->inputs[2] != TRM_NO_VALUE &&
         !(trmi_scalar(g, p->inputs[2], &fill) && fill == 0)) ||
        (p->input_count > 3 && p->inputs[3] != TRM_NO_VALUE) ||
        !trm_graph_is_constant(g, p->inputs[1]))
        return TRM_OK;
    TRM_CHECK(trm_graph_constant(g, p->inputs[1], &t));
    if (t.rank != 1 || t.dims[0] != 2 * rank)
        return TRM_OK;
    own = trm_attr_ints(&n->attrs, "pads", &count);
    if (own != NULL && count != 2 * (size_t)spatial)
        return TRM_OK;
    for (int i = 0; i < rank; i++)
        for (int side = 0; side < 2; side++) {
            int64_t v = trm_tensor_get_i64(&t, (size_t)(side * rank + i));

            if (v < 0 || v > 1 << 20 || (i < 2 && v != 0))
                return TRM_OK;
            if (i >= 2)
                pads[side * spatial + i - 2] = v + (own == NULL ? 0 : own[side * spatial + i - 2]);
        }
    TRM_CHECK(trm_attr_set_ints(&n->attrs, g->arena, "pads", pads, 2 * (size_t)spatial));
    trmi_rw_set_input(rw, conv, 0, p->inputs[0]);
    return TRM_OK;
}

trm_status trmi_fuse_channels(trmi_rw *rw)
{
    int count = rw->g->node_count;

    for (int n = 0; n < count; n++) {
        trm_op op = rw->g->nodes[n].op;
        bool more = op == TRM_OP_Conv || op == TRM_OP_ConvTranspose;

        if (op == TRM_OP_Conv)
            TRM_CHECK(absorb_pad(rw, n));
        while (more)
            TRM_CHECK(absorb(rw, n, &more));
    }
    return TRM_OK;
}
