/* See lm_attention.h. */
#include "kernels/reference/lm_attention.h"

#include <math.h>

static double score(const trm_lm_attention_ref *r, size_t token, size_t head, size_t j, size_t c)
{
    const float *q = r->q + (token * r->heads + head) * r->head_dim;
    const float *k = r->k + (j * r->kv_heads + c) * r->head_dim;
    double s = 0.0;

    for (size_t d = 0; d < r->head_dim; d++)
        s += (double)q[d] * (double)k[d];
    s *= r->scale;
    return r->softcap > 0.0 ? r->softcap * tanh(s / r->softcap) : s;
}

void trm_lm_attention_reference(const trm_lm_attention_ref *r, size_t token, size_t head,
                                double *out)
{
    size_t c = (r->first_head + head) / r->group - r->first_head / r->group;
    size_t hi = r->encoder ? r->tokens : token + 1;
    size_t lo = r->window > 0 && token + 1 > r->window ? token + 1 - r->window : 0;
    double top = r->sinks != NULL ? (double)r->sinks[head] : -INFINITY, sum;

    for (size_t j = lo; j < hi; j++)
        top = fmax(top, score(r, token, head, j, c));
    sum = r->sinks != NULL ? exp((double)r->sinks[head] - top) : 0.0;
    for (size_t d = 0; d < r->head_dim; d++)
        out[d] = 0.0;
    for (size_t j = lo; j < hi; j++) {
        double w = exp(score(r, token, head, j, c) - top);

        sum += w;
        for (size_t d = 0; d < r->head_dim; d++)
            out[d] += w * (double)r->v[(j * r->kv_heads + c) * r->head_dim + d];
    }
    for (size_t d = 0; d < r->head_dim; d++)
        out[d] /= sum;
}
