/* softmax(q k * scale + mask) v on 4-D tensors becomes TrmAttention, which never stores the scores.
 */
#include "model/passes/rewrite.h"

#include <string.h>

typedef struct pattern {
    int q, k, v, mask;
    double scale;
    bool k_transposed; /* k is [batch, heads, dim, length], as MatMul reads it */
} pattern;

static bool perm_is(const trm_node *n, const char *digits)
{
    size_t count;
    const int64_t *perm = trm_attr_ints(&n->attrs, "perm", &count);

    if (perm == NULL || count != strlen(digits))
        return false;
    for (size_t i = 0; i < count; i++)
        if (perm[i] != digits[i] - '0')
            return false;
    return true;
}

static bool dims_agree(const trm_tensor *a, int da, const trm_tensor *b, int db)
{
    return a->dims[da] == b->dims[db] && a->dims[da] != TRM_DIM_UNKNOWN;
}

/* The mask broadcasts to [batch, heads, q length, k length] without stretching it. */
static bool mask_fits(const trm_tensor *m, const trm_tensor *scores)
{
    if (m->rank < 0 || m->rank > 4 || m->dtype != TRM_DTYPE_F32)
        return false;
    for (int i = 0; i < m->rank; i++) {
        int64_t d = m->dims[m->rank - 1 - i];

        if (d != 1 && (d == TRM_DIM_UNKNOWN || d != scores->dims[3 - i]))
            return false;
    }
    return true;
}

/* From the scores that Softmax reads back to q and k. */
static bool match_scores(const trmi_rw *rw, int value, pattern *p)
{
    trm_graph *g = rw->g;
    trm_node *n;
    int other;
    double s;

    p->mask = TRM_NO_VALUE;
    p->scale = 1;
    n = trmi_rw_made_by(rw, value, TRM_OP_Add);
    if (n != NULL) {
        const trm_tensor *scores = trmi_desc(g, value);
        int i;

        for (i = 0; i < 2; i++) { /* the scores are the operand that MatMul or the scaling made */
            if (trmi_rw_made_by(rw, n->inputs[i], TRM_OP_MatMul) != NULL ||
                trmi_rw_made_by(rw, n->inputs[i], TRM_OP_Div) != NULL ||
                trmi_rw_made_by(rw, n->inputs[i], TRM_OP_Mul) != NULL) {
                if (trmi_same_shape(trmi_desc(g, n->inputs[i]), scores) &&
                    mask_fits(trmi_desc(g, n->inputs[1 - i]), scores) &&
                    trmi_rw_reader(rw, n->inputs[i]) >= 0)
                    break;
            }
        }
        if (i == 2)
            return false;
        p->mask = n->inputs[1 - i];
        value = n->inputs[i];
    }
    n = trmi_rw_made_by(rw, value, TRM_OP_Div);
    if (trmi_with_scalar(g, n, &other, &s) && s != 0 && trmi_rw_reader(rw, other) >= 0) {
        p->scale = 1 / s;
        value = other;
    } else {
        n = trmi_rw_made_by(rw, value, TRM_OP_Mul);
        if (trmi_with_scalar(g, n, &other, &s) && trmi_rw_reader(rw, other) >= 0) {
            p->scale = s;
            value = other;
        }
    }
    n = trmi_rw_made_by(rw, value, TRM_OP_MatMul);
    if (n == NULL)
        return false;
    p->q = n->inputs[0];
    p->k = n->inputs[1];
    p->k_transposed = true;
    return true;
}

static bool shapes_fit(const trm_graph *g, const pattern *p)
{
    const trm_tensor *q = trmi_desc(g, p->q), *k = trmi_desc(g, p->k), *v = trmi_desc(g, p->v);

    if (q->rank != 4 || k->rank != 4 || v->rank != 4 || q->dtype != TRM_DTYPE_F32 ||
        k->dtype != TRM_DTYPE_F32 || v->dtype != TRM_DTYPE_F32)
        return false;
    return dims_agree(q, 0, k, 0) && dims_agree(q, 1, k, 1) && dims_agree(q, 0, v, 0) &&
           dims_agree(q, 1, v, 1) && dims_agree(q, 3, k, 2) && dims_agree(k, 3, v, 2);
}

/* A Transpose that only brings k into MatMul's order is left out, or made the cheaper one. */
static trm_status untranspose(trmi_rw *rw, pattern *p)
{
    trm_graph *g = rw->g;
    trm_node *t = trmi_rw_made_by(rw, p->k, TRM_OP_Transpose);
    const int64_t perm[4] = {0, 2, 1, 3};
    trm_tensor desc;
    int made, node;

    if (t == NULL)
        return TRM_OK;
    if (perm_is(t, "0132")) {
        p->k = t->inputs[0];
        p->k_transposed = false;
        return TRM_OK;
    }
    if (!perm_is(t, "0231") || trmi_rw_reader(rw, p->k) < 0)
        return TRM_OK;
    desc = *trmi_desc(g, p->k); /* [batch, heads, dim, length] to [batch, heads, length, dim] */
    desc.dims[2] = trmi_desc(g, p->k)->dims[3];
    desc.dims[3] = trmi_desc(g, p->k)->dims[2];
    TRM_CHECK(trmi_rw_value(rw, g->values[p->k].name, &desc, &made));
    TRM_CHECK(trmi_rw_node(rw, TRM_OP_Transpose, t->name, &t->inputs[0], 1, made, &node));
    TRM_CHECK(trm_attr_set_ints(&g->nodes[node].attrs, g->arena, "perm", perm, 4));
    p->k = made;
    p->k_transposed = false;
    return TRM_OK;
}

static trm_status fuse(trmi_rw *rw, int softmax)
{
    trm_graph *g = rw->g;
    const trm_node *s = &g->nodes[softmax];
    int64_t axis = trm_attr_int(&s->attrs, "axis", -1);
    int end = trmi_rw_reader(rw, s->outputs[0]), count, inputs[4];
    pattern p;

    if ((axis != -1 && axis != 3) || trm_attr_int(&s->attrs, "flatten", 0) != 0 || end < 0 ||
        g->nodes[end].op != TRM_OP_MatMul || g->nodes[end].post_count > 0 ||
        g->nodes[end].inputs[0] != s->outputs[0] || trmi_rw_reader(rw, s->inputs[0]) < 0 ||
        trmi_desc(g, s->inputs[0])->rank != 4)
        return TRM_OK;
    p.v = g->nodes[end].inputs[1];
    if (!match_scores(rw, s->inputs[0], &p) || !shapes_fit(g, &p))
        return TRM_OK;
    TRM_CHECK(untranspose(rw, &p));
    inputs[0] = p.q;
    inputs[1] = p.k;
    inputs[2] = p.v;
    inputs[3] = p.mask;
    count = p.mask == TRM_NO_VALUE ? 3 : 4;
    TRM_CHECK(trmi_rw_become(rw, end, TRM_OP_TrmAttention, inputs, count));
    TRM_CHECK(trm_attr_set_float(&g->nodes[end].attrs, g->arena, "scale", (float)p.scale));
    return trm_attr_set_int(&g->nodes[end].attrs, g->arena, "k_transposed", p.k_transposed);
}

trm_status trmi_fuse_attention(trmi_rw *rw)
{
    int count = rw->g->node_count;

    for (int n = 0; n < count; n++)
        if (rw->g->nodes[n].op == TRM_OP_Softmax)
            TRM_CHECK(fuse(rw, n));
    return TRM_OK;
}
