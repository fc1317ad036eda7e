/* Rules of attention operators. */
#include "model/shape/rule.h"

/* Last dim of a packed [B, T, H*D] input divided by its heads. */
static trm_status head_size(trmi_io io, int i, const char *attr, int64_t *heads_out,
                            int64_t *size_out)
{
    int64_t heads = trm_attr_int(&io->node->attrs, attr, 0), packed;

    *heads_out = heads;
    *size_out = TRM_DIM_UNKNOWN;
    if (heads < 1)
        return trmi_shape_bad(io, "attribute '%s' is %lld, want at least 1 for inputs of 3 dims",
                              attr, (long long)heads);
    if (trmi_shape_rank(io, i) != 3)
        return TRM_OK;
    packed = io->in[i].dims[2];
    if (packed >= 0 && packed % heads != 0)
        return trmi_shape_bad(io, "input %d: %lld heads do not divide %lld", i, (long long)heads,
                              (long long)packed);
    *size_out = trmi_shape_op(io, '/', packed, heads);
    return TRM_OK;
}

/* [batch, heads, length, size] of input i, packed or not. */
static trm_status unpack(trmi_io io, int i, const char *attr, int64_t *d)
{
    const trm_tensor *t = &io->in[i];

    for (int k = 0; k < 4; k++)
        d[k] = TRM_DIM_UNKNOWN;
    if (t->rank < 0)
        return TRM_OK;
    if (t->rank == 4) {
        for (int k = 0; k < 4; k++)
            d[k] = t->dims[k];
        return TRM_OK;
    }
    if (t->rank != 3)
        return trmi_shape_bad(io, "input %d has rank %d, want 3 or 4", i, t->rank);
    d[0] = t->dims[0];
    d[2] = t->dims[1];
    return head_size(io, i, attr, &d[1], &d[3]);
}

trm_status trmi_rule_attention(trmi_io io)
{
    trm_dtype dtype = trmi_shape_dtype(io, 0);
    trm_tensor y = {.rank = io->in[0].rank};
    int64_t q[4], k[4], v[4], total, same;

    TRM_CHECK(unpack(io, 0, "q_num_heads", q));
    TRM_CHECK(unpack(io, 1, "kv_num_heads", k));
    TRM_CHECK(unpack(io, 2, "kv_num_heads", v));
    TRM_CHECK(trmi_shape_same(io, "batch of query and key", q[0], k[0], &q[0]));
    TRM_CHECK(trmi_shape_same(io, "batch of key and value", q[0], v[0], &q[0]));
    TRM_CHECK(trmi_shape_same(io, "head size of query and key", q[3], k[3], &same));
    TRM_CHECK(trmi_shape_same(io, "heads of key and value", k[1], v[1], &k[1]));
    TRM_CHECK(trmi_shape_same(io, "length of key and value", k[2], v[2], &k[2]));
    if (q[1] >= 0 && k[1] >= 0 && (k[1] == 0 ? q[1] != 0 : q[1] % k[1] != 0))
        return trmi_shape_bad(io, "%lld query heads are no multiple of %lld key heads",
                              (long long)q[1], (long long)k[1]);
    total = k[2];
    if (trmi_shape_has(io, 4)) {
        TRM_CHECK(trmi_shape_want_rank(io, 4, 4));
        total = trmi_shape_rank(io, 4) == 4 ? trmi_shape_op(io, '+', io->in[4].dims[2], k[2])
                                            : TRM_DIM_UNKNOWN;
    }
    if (y.rank == 4) {
        y.dims[0] = q[0];
        y.dims[1] = q[1];
        y.dims[2] = q[2];
        y.dims[3] = v[3];
    } else if (y.rank == 3) {
        y.dims[0] = q[0];
        y.dims[1] = q[2];
        y.dims[2] = trmi_shape_op(io, '*', q[1], v[3]);
    }
    trmi_shape_out(io, 0, dtype, &y);
    trmi_shape_out_dims(io, 1, trmi_shape_dtype(io, 1), 4, (int64_t[4]){q[0], k[1], total, k[3]});
    trmi_shape_out_dims(io, 2, trmi_shape_dtype(io, 2), 4, (int64_t[4]){q[0], k[1], total, v[3]});
    trmi_shape_out_dims(io, 3, dtype, 4, (int64_t[4]){q[0], q[1], q[2], total});
    return TRM_OK;
}

trm_status trmi_rule_attention_packed(trmi_io io)
{
    int64_t heads = trm_attr_int(&io->node->attrs, "heads", 0);
    int64_t dim = trm_attr_int(&io->node->attrs, "dim", 0);
    int64_t v_dim = trm_attr_int(&io->node->attrs, "v_dim", 0);
    trm_tensor y = io->in[0];

    TRM_CHECK(trmi_shape_want_rank(io, 0, 3));
    if (heads < 1 || dim < 1 || v_dim < 1 || heads > 65536 || dim > 65536 || v_dim > 65536)
        return trmi_shape_bad(io, "heads %lld of sizes %lld and %lld", (long long)heads,
                              (long long)dim, (long long)v_dim);
    if (y.rank == 3) {
        if (trmi_shape_differ(y.dims[2], heads * (2 * dim + v_dim)))
            return trmi_shape_bad(io, "rows are not heads * (2 * dim + v_dim)");
        y.dims[2] = heads * v_dim;
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &y);
    return TRM_OK;
}

trm_status trmi_rule_trm_attention(trmi_io io)
{
    bool transposed = trm_attr_int(&io->node->attrs, "k_transposed", 0) != 0;
    const trm_tensor *q = &io->in[0], *k = &io->in[1], *v = &io->in[2];
    trm_tensor y = *q;
    int64_t length, same;

    for (int i = 0; i < 3; i++)
        TRM_CHECK(trmi_shape_want_rank(io, i, 4));
    if (q->rank == 4 && k->rank == 4 && v->rank == 4) {
        for (int d = 0; d < 2; d++) {
            TRM_CHECK(trmi_shape_same(io, "batch or heads", q->dims[d], k->dims[d], &y.dims[d]));
            TRM_CHECK(trmi_shape_same(io, "batch or heads", y.dims[d], v->dims[d], &y.dims[d]));
        }
        TRM_CHECK(trmi_shape_same(io, "head size of query and key", q->dims[3],
                                  k->dims[transposed ? 2 : 3], &same));
        TRM_CHECK(trmi_shape_same(io, "length of key and value", k->dims[transposed ? 3 : 2],
                                  v->dims[2], &length));
        y.dims[3] = v->dims[3];
        if (trmi_shape_has(io, 3)) {
            trm_tensor scores = y;

            scores.dims[3] = length;
            TRM_CHECK(trmi_shape_broadcast(io, &scores, &io->in[3]));
            if (scores.rank > 4)
                return trmi_shape_bad(io, "the mask has more than 4 dims");
        }
    }
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &y);
    return TRM_OK;
}

trm_status trmi_rule_linear_attention(trmi_io io)
{
    int64_t qh, kh, vh, dk, dkk, dv, batch = TRM_DIM_UNKNOWN, length = TRM_DIM_UNKNOWN;

    for (int i = 0; i < 3; i++) {
        TRM_CHECK(trmi_shape_want_rank(io, i, 3));
        if (trmi_shape_rank(io, i) != 3)
            continue;
        TRM_CHECK(trmi_shape_same(io, "batch", batch, io->in[i].dims[0], &batch));
        TRM_CHECK(trmi_shape_same(io, "length", length, io->in[i].dims[1], &length));
    }
    TRM_CHECK(head_size(io, 0, "q_num_heads", &qh, &dk));
    TRM_CHECK(head_size(io, 1, "kv_num_heads", &kh, &dkk));
    TRM_CHECK(head_size(io, 2, "kv_num_heads", &vh, &dv));
    TRM_CHECK(trmi_shape_same(io, "head size of query and key", dk, dkk, &dk));
    if (qh % kh != 0)
        return trmi_shape_bad(io, "%lld query heads are no multiple of %lld key heads",
                              (long long)qh, (long long)kh);
    trmi_shape_out_dims(io, 0, trmi_shape_dtype(io, 0), 3,
                        (int64_t[3]){batch, length, trmi_shape_op(io, '*', qh, dv)});
    trmi_shape_out_dims(io, 1,
                        trmi_shape_has(io, 3) ? trmi_shape_dtype(io, 3) : trmi_shape_dtype(io, 0),
                        4, (int64_t[4]){batch, kh, dk, dv});
    return TRM_OK;
}

trm_status trmi_rule_rotary(trmi_io io)
{
    int rank = trmi_shape_rank(io, 0);
    int64_t heads, size;

    if (rank >= 0 && rank != 3 && rank != 4)
        return trmi_shape_bad(io, "the data has rank %d, want 3 or 4", rank);
    if (rank == 3)
        TRM_CHECK(head_size(io, 0, "num_heads", &heads, &size));
    trmi_shape_out(io, 0, trmi_shape_dtype(io, 0), &io->in[0]);
    return TRM_OK;
}
