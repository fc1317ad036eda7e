/* Convolutions as sums over the kernel's taps. */
#include "kernels/reference/conv.h"

/* Splits a row-major index over n dims. */
static void unravel(size_t i, int n, const int64_t *dims, int64_t *at)
{
    for (int d = n - 1; d >= 0; d--) {
        at[d] = (int64_t)(i % (size_t)dims[d]);
        i /= (size_t)dims[d];
    }
}

static size_t product(int n, const int64_t *dims)
{
    size_t total = 1;

    for (int d = 0; d < n; d++)
        total *= (size_t)dims[d];
    return total;
}

/* Input position that tap `k` meets from output position `o`; false: in the padding. */
static bool tap_of(const trm_window *w, const int64_t *o, const int64_t *k, size_t *at_out)
{
    size_t at = 0;

    for (int d = 0; d < w->spatial; d++) {
        int64_t x = o[d] * w->stride[d] - w->pad_begin[d] + k[d] * w->dilation[d];

        if (x < 0 || x >= w->in[d])
            return false;
        at = at * (size_t)w->in[d] + (size_t)x;
    }
    *at_out = at;
    return true;
}

/* Transposed: input position whose tap `k` lands on output position `o`. */
static bool tap_back(const trm_window *w, const int64_t *o, const int64_t *k, size_t *at_out)
{
    size_t at = 0;

    for (int d = 0; d < w->spatial; d++) {
        int64_t x = o[d] + w->pad_begin[d] - k[d] * w->dilation[d];

        if (x < 0 || x % w->stride[d] != 0 || x / w->stride[d] >= w->in[d])
            return false;
        at = at * (size_t)w->in[d] + (size_t)(x / w->stride[d]);
    }
    *at_out = at;
    return true;
}

static void convolve(const trm_ref *r, bool transposed, size_t begin, size_t end)
{
    const trm_window *w = &r->window;
    const trm_tensor *x = &r->in[0], *weights = &r->in[1], *bias = &r->in[2];
    size_t space_in = product(w->spatial, w->in), space_out = product(w->spatial, w->out);
    size_t taps = product(w->spatial, w->kernel);
    size_t channels = (size_t)x->dims[1], filters = (size_t)r->out[0].dims[1];
    size_t c_group = channels / (size_t)r->group, m_group = filters / (size_t)r->group;
    int64_t o[TRM_SPATIAL_MAX], k[TRM_SPATIAL_MAX];

    for (size_t i = begin; i < end; i++) {
        size_t m = i / space_out % filters, n = i / space_out / filters;
        size_t first = m / m_group * c_group; /* first input channel of the group */
        double sum = bias->dtype == TRM_DTYPE_NONE ? 0.0 : trm_tensor_get_f64(bias, m);

        unravel(i % space_out, w->spatial, w->out, o);
        for (size_t t = 0; t < taps; t++) {
            size_t at;

            unravel(t, w->spatial, w->kernel, k);
            if (!(transposed ? tap_back(w, o, k, &at) : tap_of(w, o, k, &at)))
                continue;
            for (size_t c = 0; c < c_group; c++) {
                size_t wi = transposed ? ((first + c) * m_group + m % m_group) * taps + t
                                       : (m * c_group + c) * taps + t;

                sum += trm_tensor_get_f64(x, (n * channels + first + c) * space_in + at) *
                       trm_tensor_get_f64(weights, wi);
            }
        }
        trm_ref_store(r, i, sum);
    }
}

void trm_conv_reference(const trm_ref *r, size_t begin, size_t end)
{
    convolve(r, false, begin, end);
}

void trm_conv_transpose_reference(const trm_ref *r, size_t begin, size_t end)
{
    convolve(r, true, begin, end);
}
