/* Integer convolutions and products: exact i32 sums of (x - zero) * (w - zero), then, for the
 * QLinear operators, one rounding to the output's scale. */
#include "kernels/reference/quantized.h"

#include <math.h>

/* Where an operator's inputs lie in in[]; -1: it has none such. */
typedef struct places {
    int x, x_zero, w, w_zero;
    int x_scale, w_scale, y_scale, y_zero, bias; /* all -1: the result is the sum */
} places;
static const places integer = {0, 2, 1, 3, -1, -1, -1, -1, -1};
static const places linear_conv = {0, 2, 3, 5, 1, 4, 6, 7, 8};
static const places linear_matmul = {0, 2, 3, 5, 1, 4, 6, 7, -1};

static inline int32_t small(const trm_tensor *t, size_t i)
{
    switch (t->dtype) {
    case TRM_DTYPE_U8:
        return ((const uint8_t *)t->data)[i];
    case TRM_DTYPE_I8:
        return ((const int8_t *)t->data)[i];
    default:
        return (int32_t)trm_tensor_get_i64(t, i);
    }
}

static bool present(const trm_ref *r, int at)
{
    return at >= 0 && r->in[at].dtype != TRM_DTYPE_NONE;
}

/* Zero point number i, or the only one; 0 where there is none. */
static int32_t zero_of(const trm_ref *r, int at, size_t i)
{
    if (!present(r, at))
        return 0;
    return small(&r->in[at], trm_tensor_numel(&r->in[at]) == 1 ? 0 : i);
}

static double scale_of(const trm_ref *r, int at, size_t i)
{
    return trm_tensor_get_f64(&r->in[at], trm_tensor_numel(&r->in[at]) == 1 ? 0 : i);
}

/* Rounds half to even (the default rounding mode) and saturates. */
static void store(const trm_ref *r, const places *p, size_t i, int32_t sum, size_t x_at,
                  size_t w_at)
{
    trm_tensor y = r->out[0];
    double v, lo, hi;

    if (p->y_scale < 0) {
        ((int32_t *)y.data)[i] = sum;
        return;
    }
    lo = y.dtype == TRM_DTYPE_I8 ? -128.0 : 0.0;
    hi = y.dtype == TRM_DTYPE_I8 ? 127.0 : 255.0;
    /* in f32, as onnxruntime multiplies */
    v = (double)(float)((float)sum * ((float)scale_of(r, p->x_scale, x_at) *
                                      (float)scale_of(r, p->w_scale, w_at) /
                                      (float)scale_of(r, p->y_scale, x_at)));
    v = rint(v) + (double)zero_of(r, p->y_zero, x_at);
    v = v < lo ? lo : v > hi ? hi : v;
    trm_tensor_set_i64(&y, i, (int64_t)v);
}

static void convolve(const trm_ref *r, const places *p, size_t begin, size_t end)
{
    const trm_tensor *x = &r->in[p->x], *w = &r->in[p->w];
    const trm_window *win = &r->window;
    size_t space_in = 1, space_out = 1, taps = 1;
    size_t channels = (size_t)x->dims[1], filters = (size_t)r->out[0].dims[1];
    size_t c_group = channels / (size_t)r->group, m_group = filters / (size_t)r->group;

    for (int d = 0; d < win->spatial; d++) {
        space_in *= (size_t)win->in[d];
        space_out *= (size_t)win->out[d];
        taps *= (size_t)win->kernel[d];
    }
    for (size_t i = begin; i < end; i++) {
        size_t m = i / space_out % filters, n = i / space_out / filters;
        size_t first = m / m_group * c_group;
        int32_t xz = zero_of(r, p->x_zero, 0), wz = zero_of(r, p->w_zero, m), sum = 0;

        for (size_t t = 0; t < taps; t++) {
            size_t o = i % space_out, k = t, at = 0, step = 1;
            bool inside = true;

            for (int d = win->spatial - 1; d >= 0; d--) {
                int64_t pos = (int64_t)(o % (size_t)win->out[d]) * win->stride[d] -
                              win->pad_begin[d] +
                              (int64_t)(k % (size_t)win->kernel[d]) * win->dilation[d];

                o /= (size_t)win->out[d];
                k /= (size_t)win->kernel[d];
                inside = inside && pos >= 0 && pos < win->in[d];
                at += inside ? (size_t)pos * step : 0;
                step *= (size_t)win->in[d];
            }
            for (size_t c = 0; inside && c < c_group; c++)
                sum += (small(x, (n * channels + first + c) * space_in + at) - xz) *
                       (small(w, (m * c_group + c) * taps + t) - wz);
        }
        if (present(r, p->bias))
            sum += small(&r->in[p->bias], m);
        store(r, p, i, sum, 0, m);
    }
}

void trm_conv_integer_reference(const trm_ref *r, size_t begin, size_t end)
{
    convolve(r, &integer, begin, end);
}

void trm_qlinear_conv_reference(const trm_ref *r, size_t begin, size_t end)
{
    convolve(r, &linear_conv, begin, end);
}

static size_t batch_of(const trm_tensor *t, const trm_tensor *batch, size_t i)
{
    trm_tensor lead = *t;

    lead.rank = t->rank > 2 ? t->rank - 2 : 0;
    return trm_ref_broadcast(&lead, batch, i);
}

static void multiply(const trm_ref *r, const places *p, size_t begin, size_t end)
{
    const trm_tensor *a = &r->in[p->x], *b = &r->in[p->w];
    trm_tensor batch = r->out[0];
    size_t ks = (size_t)a->dims[a->rank - 1];
    size_t ms = a->rank == 1 ? 1 : (size_t)a->dims[a->rank - 2];
    size_t ns = b->rank == 1 ? 1 : (size_t)b->dims[b->rank - 1];

    batch.rank -= (a->rank > 1) + (b->rank > 1);
    for (size_t i = begin; i < end; i++) {
        size_t n = i % ns, m = i / ns % ms, at = i / ns / ms;
        size_t ab = batch_of(a, &batch, at), bb = batch_of(b, &batch, at);
        /* parameters of a row or column: one list for all matrices, or one a matrix */
        size_t ai =
            present(r, p->x_zero) && trm_tensor_numel(&r->in[p->x_zero]) > ms ? ab * ms + m : m;
        size_t bi =
            present(r, p->w_zero) && trm_tensor_numel(&r->in[p->w_zero]) > ns ? bb * ns + n : n;
        int32_t az = zero_of(r, p->x_zero, ai), bz = zero_of(r, p->w_zero, bi), sum = 0;

        for (size_t k = 0; k < ks; k++)
            sum +=
                (small(a, (ab * ms + m) * ks + k) - az) * (small(b, (bb * ks + k) * ns + n) - bz);
        store(r, p, i, sum, ai, bi);
    }
}

void trm_matmul_integer_reference(const trm_ref *r, size_t begin, size_t end)
{
    multiply(r, &integer, begin, end);
}

void trm_qlinear_matmul_reference(const trm_ref *r, size_t begin, size_t end)
{
    multiply(r, &linear_matmul, begin, end);
}
