/* LayerNormalization and RMSNormalization where the normalised dims are split: mean and variance in
 * two passes, each an all-reduce of one element a row. */
#include "parallel/lower_impl.h"

typedef struct norm {
    trmi_lower *lw;
    const trm_node *n;
    const char *base;   /* of names */
    trm_tensor x, rows; /* descriptors: this rank's part; one element a row */
    int axes, share;    /* constants: dims of a row; part / extent */
} norm;

static trm_status scalar(norm *m, const char *suffix, double value, int *out)
{
    int64_t room = 0;
    trm_tensor t = {.dtype = m->x.dtype, .rank = 0, .data = &room};

    trm_tensor_set_f64(&t, 0, value);
    return trmi_lower_constant(m->lw, m->base, suffix, &t, out);
}

/* out = op(a, b), a new value unless it is given. */
static trm_status step(norm *m, trm_op op, const char *suffix, int a, int b, const trm_tensor *desc,
                       int *out)
{
    int in[2] = {a, b};

    if (desc != NULL)
        TRM_CHECK(trmi_lower_value(m->lw, m->base, suffix, desc, out));
    return trmi_lower_add(m->lw, op, m->n->name, in, b == TRM_NO_VALUE ? 1 : 2, *out, NULL);
}

/* Mean of all elements of each row of the whole. */
static trm_status row_mean(norm *m, const char *const suffixes[3], int x, int *out)
{
    int part, share, node;
    trm_node *n;

    TRM_CHECK(step(m, TRM_OP_ReduceMean, suffixes[0], x, m->axes, &m->rows, &part));
    TRM_CHECK(step(m, TRM_OP_Mul, suffixes[1], part, m->share, &m->rows, &share));
    TRM_CHECK(trmi_lower_value(m->lw, m->base, suffixes[2], &m->rows, out));
    TRM_CHECK(trmi_lower_add(m->lw, TRM_OP_TrmAllReduce, m->n->name, &share, 1, *out, &node));
    n = &m->lw->local->nodes[node];
    TRM_CHECK(trm_attr_set_int(&n->attrs, m->lw->local->arena, "ranks", m->lw->s->ranks));
    return trm_attr_set_int(&n->attrs, m->lw->local->arena, "rank", m->lw->rank);
}

/* (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * scale + bias; without the means for RMS. */
static trm_status emit(norm *m, const int *in, int count, int out)
{
    static const char *const mean_names[3] = {"part mean", "mean share", "mean"};
    static const char *const square_names[3] = {"part variance", "variance share", "variance"};
    bool biased = count > 2 && in[2] != TRM_NO_VALUE;
    int x = in[0], mean, square, variance, epsilon, sum, deviation, y;

    if (m->n->op == TRM_OP_LayerNormalization) {
        TRM_CHECK(row_mean(m, mean_names, x, &mean));
        TRM_CHECK(step(m, TRM_OP_Sub, "centered", x, mean, &m->x, &x));
    }
    TRM_CHECK(step(m, TRM_OP_Mul, "squares", x, x, &m->x, &square));
    TRM_CHECK(row_mean(m, square_names, square, &variance));
    TRM_CHECK(
        scalar(m, "epsilon", (double)trm_attr_float(&m->n->attrs, "epsilon", 1e-5f), &epsilon));
    TRM_CHECK(step(m, TRM_OP_Add, "above zero", variance, epsilon, &m->rows, &sum));
    TRM_CHECK(step(m, TRM_OP_Sqrt, "deviation", sum, TRM_NO_VALUE, &m->rows, &deviation));
    TRM_CHECK(step(m, TRM_OP_Div, "normal", x, deviation, &m->x, &y));
    if (!biased)
        return step(m, TRM_OP_Mul, "", y, in[1], NULL, &out);
    TRM_CHECK(step(m, TRM_OP_Mul, "scaled", y, in[1], &m->x, &y));
    return step(m, TRM_OP_Add, "", y, in[2], NULL, &out);
}

trm_status trmi_lower_norm(trmi_lower *lw, int node, const trm_axis *axis, const int *in, int out)
{
    const trm_node *n = &lw->g->nodes[node];
    norm m = {.lw = lw, .n = n, .base = lw->g->values[n->outputs[0]].name};
    int64_t axes[TRM_RANK_MAX], first = trm_attr_int(&n->attrs, "axis", -1);
    int count = 0;

    m.x = m.rows = lw->local->values[out].desc;
    first = first < 0 ? first + m.x.rank : first;
    for (int d = (int)first; d < m.x.rank; d++) {
        axes[count++] = d;
        m.rows.dims[d] = 1;
    }
    TRM_CHECK(trmi_lower_ints(lw, m.base, "row", axes, count, &m.axes));
    TRM_CHECK(scalar(&m, "share",
                     (double)trmi_axis_part(lw->s, node, axis, lw->rank) / (double)axis->extent,
                     &m.share));
    return emit(&m, in, n->input_count, out);
}
