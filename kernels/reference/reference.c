/* What the references share: broadcasting and post-ops. */
#include "kernels/reference/reference.h"

#include <math.h>

size_t trm_ref_broadcast(const trm_tensor *t, const trm_tensor *full, size_t i)
{
    size_t at = 0, stride = 1;

    for (int d = full->rank - 1, e = t->rank - 1; d >= 0; d--, e--) {
        size_t dim = (size_t)full->dims[d], index = dim == 0 ? 0 : i % dim;

        i = dim == 0 ? 0 : i / dim;
        if (e < 0)
            continue;
        if (t->dims[e] != 1)
            at += index * stride;
        stride *= (size_t)t->dims[e];
    }
    return at;
}

/* The posts alone, on the value of element i of out[0]. */
static double posts(const trm_ref *r, size_t i, double v)
{
    for (int p = 0; p < r->post_count; p++) {
        const trm_post *post = &r->posts[p];
        double alpha = (double)post->alpha, beta = (double)post->beta, other = 0.0;

        if (post->input >= 0)
            other = trm_tensor_get_f64(&r->in[post->input],
                                       trm_ref_broadcast(&r->in[post->input], &r->out[0], i));
        switch (post->op) {
        case TRM_OP_Add:
            v += other;
            break;
        case TRM_OP_Mul:
            v *= other;
            break;
        case TRM_OP_Relu:
            v = v < 0.0 ? 0.0 : v;
            break;
        case TRM_OP_Clip:
            v = v < alpha ? alpha : v;
            v = v > beta ? beta : v;
            break;
        case TRM_OP_Sigmoid:
            v = 1.0 / (1.0 + exp(-v));
            break;
        case TRM_OP_Tanh:
            v = tanh(v);
            break;
        case TRM_OP_Gelu:
            if (post->alpha == 0.0f)
                v = 0.5 * v * (1.0 + erf(v / sqrt(2.0)));
            else
                v = 0.5 * v * (1.0 + tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
            break;
        case TRM_OP_LeakyRelu:
            v = v < 0.0 ? alpha * v : v;
            break;
        case TRM_OP_Elu:
            v = v < 0.0 ? alpha * expm1(v) : v;
            break;
        case TRM_OP_HardSigmoid:
            v = fmin(1.0, fmax(0.0, alpha * v + beta));
            break;
        case TRM_OP_HardSwish:
            v = v * fmin(1.0, fmax(0.0, v / 6.0 + 0.5));
            break;
        case TRM_OP_TrmSilu:
            v = v / (1.0 + exp(-v));
            break;
        default:
            break;
        }
    }
    return v;
}

void trm_ref_store(const trm_ref *r, size_t i, double value)
{
    trm_tensor out = r->out[0];

    trm_tensor_set_f64(&out, i, r->post_count == 0 ? value : posts(r, i, value));
}
