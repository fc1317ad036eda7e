/* Normalisations over channels. */
#include "kernels/reference/normalize.h"

#include <math.h>

void trm_batch_norm_reference(const trm_ref *r, size_t begin, size_t end)
{
    const trm_tensor *x = &r->in[0];
    size_t channels = x->rank > 1 ? (size_t)x->dims[1] : 1, batch = (size_t)x->dims[0];
    size_t space = x->rank > 2 ? trm_tensor_count(x, 2, x->rank) : 1;

    for (size_t c = begin; c < end; c++) {
        double mean = trm_tensor_get_f64(&r->in[3], c), variance = trm_tensor_get_f64(&r->in[4], c);
        double scale, shift;

        if (r->b[0]) {
            double sum = 0.0, squares = 0.0, count = (double)(batch * space), old_mean = mean,
                   old_variance = variance;
            trm_tensor running_mean = r->out[1], running_variance = r->out[2];

            for (size_t n = 0; n < batch; n++)
                for (size_t s = 0; s < space; s++)
                    sum += trm_tensor_get_f64(x, (n * channels + c) * space + s);
            mean = sum / count;
            for (size_t n = 0; n < batch; n++)
                for (size_t s = 0; s < space; s++) {
                    double d = trm_tensor_get_f64(x, (n * channels + c) * space + s) - mean;

                    squares += d * d;
                }
            variance = squares / count;
            if (running_mean.data != NULL && running_mean.dtype != TRM_DTYPE_NONE)
                trm_tensor_set_f64(&running_mean, c, old_mean * r->f[1] + mean * (1.0 - r->f[1]));
            if (running_variance.data != NULL && running_variance.dtype != TRM_DTYPE_NONE)
                trm_tensor_set_f64(&running_variance, c,
                                   old_variance * r->f[1] + variance * (1.0 - r->f[1]));
        }
        scale = trm_tensor_get_f64(&r->in[1], c) / sqrt(variance + r->f[0]);
        shift = trm_tensor_get_f64(&r->in[2], c) - mean * scale;
        for (size_t n = 0; n < batch; n++)
            for (size_t s = 0; s < space; s++) {
                size_t i = (n * channels + c) * space + s;

                trm_ref_store(r, i, trm_tensor_get_f64(x, i) * scale + shift);
            }
    }
}

void trm_lrn_reference(const trm_ref *r, size_t begin, size_t end)
{
    const trm_tensor *x = &r->in[0];
    size_t channels = (size_t)x->dims[1], space = trm_tensor_count(x, 2, x->rank);
    size_t size = (size_t)r->i[0], before = (size - 1) / 2, after = size - 1 - before;

    for (size_t i = begin; i < end; i++) {
        size_t c = i / space % channels, base = i - c * space;
        size_t first = c < before ? 0 : c - before;
        size_t last = c + after < channels ? c + after : channels - 1;
        double sum = 0.0;

        for (size_t k = first; k <= last; k++) {
            double v = trm_tensor_get_f64(x, base + k * space);

            sum += v * v;
        }
        trm_ref_store(
            r, i, trm_tensor_get_f64(x, i) / pow(r->f[2] + r->f[0] / (double)size * sum, r->f[1]));
    }
}
