/* Matrix products. */
#include "kernels/reference/matmul.h"

/* Sum over k of a[a0 + k*as] * b[b0 + k*bs], stored at i (floats through the posts). */
static void dot(const trm_ref *r, size_t i, size_t a0, size_t as, size_t b0, size_t bs, size_t ks)
{
    const trm_tensor *a = &r->in[0], *b = &r->in[1];
    trm_tensor out = r->out[0];

    if (trm_dtype_is_float(out.dtype)) {
        double sum = 0.0;

        for (size_t k = 0; k < ks; k++)
            sum += trm_tensor_get_f64(a, a0 + k * as) * trm_tensor_get_f64(b, b0 + k * bs);
        trm_ref_store(r, i, sum);
    } else {
        uint64_t sum = 0;

        for (size_t k = 0; k < ks; k++)
            sum += (uint64_t)trm_tensor_get_i64(a, a0 + k * as) *
                   (uint64_t)trm_tensor_get_i64(b, b0 + k * bs);
        trm_tensor_set_i64(&out, i, (int64_t)sum);
    }
}

/* Index of the matrix of `t` (its last `tail` dims) that meets batch `i` of `batch` dims. */
static size_t batch_of(const trm_tensor *t, int tail, const trm_tensor *batch, size_t i)
{
    trm_tensor lead = *t;

    lead.rank = t->rank > tail ? t->rank - tail : 0;
    return trm_ref_broadcast(&lead, batch, i);
}

void trm_matmul_reference(const trm_ref *r, size_t begin, size_t end)
{
    const trm_tensor *a = &r->in[0], *b = &r->in[1];
    trm_tensor batch = r->out[0];
    size_t ks = (size_t)a->dims[a->rank - 1];
    size_t ms = a->rank == 1 ? 1 : (size_t)a->dims[a->rank - 2];
    size_t ns = b->rank == 1 ? 1 : (size_t)b->dims[b->rank - 1];

    batch.rank -= (a->rank > 1) + (b->rank > 1);
    for (size_t i = begin; i < end; i++) {
        size_t n = i % ns, m = i / ns % ms, at = i / ns / ms;
        size_t a0 = batch_of(a, 2, &batch, at) * ms * ks, b0 = batch_of(b, 2, &batch, at) * ks * ns;

        dot(r, i, a0 + m * ks, 1, b0 + n, ns, ks);
    }
}

void trm_gemm_reference(const trm_ref *r, size_t begin, size_t end)
{
    const trm_tensor *a = &r->in[0], *b = &r->in[1], *c = &r->in[2];
    trm_tensor out = r->out[0];
    size_t ns = (size_t)out.dims[1], ks = (size_t)a->dims[r->b[0] ? 0 : 1];
    size_t a_row = (size_t)a->dims[1], b_row = (size_t)b->dims[1];
    bool is_float = trm_dtype_is_float(out.dtype);

    for (size_t i = begin; i < end; i++) {
        size_t n = i % ns, m = i / ns;
        size_t ci = c->dtype == TRM_DTYPE_NONE ? 0 : trm_ref_broadcast(c, &out, i);
        double sum = 0.0;
        uint64_t whole = 0;

        for (size_t k = 0; k < ks; k++) {
            size_t ai = r->b[0] ? k * a_row + m : m * a_row + k;
            size_t bi = r->b[1] ? n * b_row + k : k * b_row + n;

            if (is_float)
                sum += trm_tensor_get_f64(a, ai) * trm_tensor_get_f64(b, bi);
            else
                whole += (uint64_t)trm_tensor_get_i64(a, ai) * (uint64_t)trm_tensor_get_i64(b, bi);
        }
        sum *= r->f[0];
        if (c->dtype != TRM_DTYPE_NONE && is_float)
            sum += r->f[1] * trm_tensor_get_f64(c, ci);
        if (is_float) {
            trm_ref_store(r, i, sum);
        } else { /* integers: alpha and beta are whole numbers */
            whole *= (uint64_t)(int64_t)r->f[0];
            if (c->dtype != TRM_DTYPE_NONE)
                whole += (uint64_t)(int64_t)r->f[1] * (uint64_t)trm_tensor_get_i64(c, ci);
            trm_tensor_set_i64(&out, i, (int64_t)whole);
        }
    }
}
