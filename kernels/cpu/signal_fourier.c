/* DFT and STFT: mixed-radix Cooley-Tukey in double precision (Cooley and Tukey 1965): a transform
 * of length n = p m is p transforms of length m of the interleaved parts, joined by n twiddle
 * factors; prime lengths are summed directly. Recursion depth is the number of prime factors. */
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

typedef struct complex_f64 {
    double re, im;
} complex_f64;

typedef struct fourier_kernel {
    trm_kernel base;
    trm_dtype dtype, window_dtype;
    bool inverse, onesided, real_out, has_window;
    size_t n;                  /* transform length */
    size_t outer, inner;       /* DFT: positions around the axis; STFT: batch, 1 */
    size_t in_len, in_parts;   /* samples along the axis, 1 real or 2 complex */
    size_t out_len;            /* bins kept */
    size_t frames, frame_step; /* STFT; DFT: 1, 0 */
} fourier_kernel;

typedef struct fourier_scratch {
    complex_f64 *in, *out, *join, *twiddle; /* n each */
} fourier_scratch;

static size_t smallest_factor(size_t n)
{
    for (size_t p = 2; p * p <= n; p++)
        if (n % p == 0)
            return p;
    return n;
}

/* out[0..n) = transform of in[0], in[stride], ...; total / n is the twiddle step of this level */
static void transform(const fourier_scratch *s, complex_f64 *out, const complex_f64 *in, size_t n,
                      size_t stride, size_t total)
{
    size_t p, m, step = total / (n == 0 ? 1 : n);

    if (n <= 1) {
        if (n == 1)
            out[0] = in[0];
        return;
    }
    p = smallest_factor(n);
    m = n / p;
    for (size_t r = 0; r < p; r++)
        transform(s, out + r * m, in + r * stride, m, stride * p, total);
    for (size_t k = 0; k < m; k++) {
        for (size_t r = 0; r < p; r++)
            s->join[r] = out[r * m + k];
        for (size_t q = 0; q < p; q++) {
            complex_f64 sum = {0, 0};
            size_t at = 0, turn = (k + q * m) * step % total; /* w^((k + q m) r) */

            for (size_t r = 0; r < p; r++) {
                complex_f64 w = s->twiddle[at], x = s->join[r];

                sum.re += x.re * w.re - x.im * w.im;
                sum.im += x.re * w.im + x.im * w.re;
                at = at + turn >= total ? at + turn - total : at + turn;
            }
            out[k + q * m] = sum;
        }
    }
}

static double number(trm_dtype dtype, const void *data, size_t i)
{
    double v;

    trmi_convert(TRM_DTYPE_F64, &v, dtype, (const char *)data + i * trm_dtype_bytes(dtype), 1);
    return v;
}

/* Fills scratch->in with sample `first` on of series (outer, inner), zeros past its end. */
static void load(const fourier_kernel *k, const fourier_scratch *s, const void *x,
                 const void *window, size_t outer, size_t inner, size_t first)
{
    for (size_t i = 0; i < k->n; i++) {
        size_t at = ((outer * k->in_len + first + i) * k->inner + inner) * k->in_parts;
        complex_f64 v = {0, 0};

        if (first + i < k->in_len) {
            double w = window != NULL ? number(k->window_dtype, window, i) : 1;

            v.re = w * number(k->dtype, x, at);
            v.im = k->in_parts == 2 ? w * number(k->dtype, x, at + 1) : 0;
        }
        s->in[i] = v;
    }
    if (k->inverse && k->onesided) /* the other half of a real signal's spectrum */
        for (size_t i = k->n / 2 + 1; i < k->n; i++)
            s->in[i] = (complex_f64){s->in[k->n - i].re, -s->in[k->n - i].im};
}

static trm_status fourier_run(trm_kernel *base, trm_stream *stream, const void *const *in,
                              void *const *out, void *workspace)
{
    fourier_kernel *k = (fourier_kernel *)base;
    complex_f64 *w = workspace;
    fourier_scratch s = {w, w + k->n, w + 2 * k->n, w + 3 * k->n};
    size_t parts = k->real_out ? 1 : 2;
    double scale = k->inverse ? 1 / (double)k->n : 1;

    (void)stream;
    for (size_t i = 0; i < k->n; i++) {
        double turn = (k->inverse ? 2 : -2) * 3.14159265358979323846 * (double)i / (double)k->n;

        s.twiddle[i] = (complex_f64){cos(turn), sin(turn)};
    }
    for (size_t o = 0; o < k->outer * k->frames; o++)
        for (size_t inner = 0; inner < k->inner; inner++) {
            load(k, &s, in[0], k->has_window ? in[2] : NULL, o / k->frames, inner,
                 o % k->frames * k->frame_step);
            transform(&s, s.out, s.in, k->n, 1, k->n);
            for (size_t i = 0; i < k->out_len; i++) {
                double v[2] = {s.out[i].re * scale, s.out[i].im * scale};
                size_t at = ((o * k->out_len + i) * k->inner + inner) * parts;

                trmi_convert(k->dtype, (char *)out[0] + at * trm_dtype_bytes(k->dtype),
                             TRM_DTYPE_F64, v, parts);
            }
        }
    return TRM_OK;
}

static const trm_kernel_ops fourier_ops = {
    .name = "fourier", .run = fourier_run, .destroy = trmi_kernel_free};

static trm_status settle_dft(fourier_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    int64_t wanted = -2;
    int axis;

    if (trmi_has_input(desc, 2)) {
        if (desc->inputs[2].data == NULL)
            return trm_fail(TRM_ERR_UNSUPPORTED, "DFT '%s': axis is not known on the host",
                            desc->name);
        wanted = trm_tensor_get_i64(&desc->inputs[2], 0);
    }
    TRM_CHECK(trmi_axis(desc, wanted, x->rank, &axis));
    if (x->rank < 2 || axis == x->rank - 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "DFT '%s': axis %d of rank %d holds no signal",
                        desc->name, axis, x->rank);
    k->inverse = trm_attr_int(desc->attrs, "inverse", 0) != 0;
    k->onesided = trm_attr_int(desc->attrs, "onesided", 0) != 0;
    k->outer = trm_tensor_count(x, 0, axis);
    k->inner = trm_tensor_count(x, axis + 1, x->rank - 1);
    k->in_len = (size_t)x->dims[axis];
    k->in_parts = (size_t)x->dims[x->rank - 1];
    k->out_len = (size_t)y->dims[axis];
    k->frames = 1;
    k->real_out = y->dims[y->rank - 1] == 1;
    k->n = k->in_len;
    if (trmi_has_input(desc, 1)) {
        if (desc->inputs[1].data == NULL || trm_tensor_get_i64(&desc->inputs[1], 0) < 1)
            return trm_fail(TRM_ERR_INVALID_ARG, "DFT '%s': dft_length is not a positive number",
                            desc->name);
        k->n = (size_t)trm_tensor_get_i64(&desc->inputs[1], 0);
    } else if (k->inverse && k->onesided) {
        k->n = k->out_len;
    }
    return TRM_OK;
}

static trm_status settle_stft(fourier_kernel *k, const trm_op_desc *desc)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];

    if (desc->inputs[1].data == NULL || trm_tensor_get_i64(&desc->inputs[1], 0) < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "STFT '%s': frame_step is not a positive number",
                        desc->name);
    k->frame_step = (size_t)trm_tensor_get_i64(&desc->inputs[1], 0);
    k->onesided = trm_attr_int(desc->attrs, "onesided", 1) != 0;
    k->has_window = trmi_has_input(desc, 2);
    k->outer = (size_t)x->dims[0];
    k->inner = 1;
    k->in_len = (size_t)x->dims[1];
    k->in_parts = x->rank == 3 ? (size_t)x->dims[2] : 1;
    k->frames = (size_t)y->dims[1];
    k->out_len = (size_t)y->dims[2];
    if (trmi_has_input(desc, 3)) {
        if (desc->inputs[3].data == NULL || trm_tensor_get_i64(&desc->inputs[3], 0) < 1)
            return trm_fail(TRM_ERR_INVALID_ARG, "STFT '%s': frame_length is not a positive number",
                            desc->name);
        k->n = (size_t)trm_tensor_get_i64(&desc->inputs[3], 0);
    } else if (k->has_window) {
        k->n = trm_tensor_numel(&desc->inputs[2]);
    } else {
        k->n = k->in_len;
    }
    if (k->has_window && trm_tensor_numel(&desc->inputs[2]) != k->n)
        return trm_fail(TRM_ERR_INVALID_ARG, "STFT '%s': window of %zu for frames of %zu",
                        desc->name, trm_tensor_numel(&desc->inputs[2]), k->n);
    return TRM_OK;
}

trm_status trmi_prepare_fourier(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    fourier_kernel *k;
    trm_status st;
    size_t bytes;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    if (!trm_dtype_is_float(desc->inputs[0].dtype))
        return trmi_bad_dtype(desc, 0, "a float");
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &fourier_ops, &k));
    k->dtype = desc->inputs[0].dtype;
    k->window_dtype = trmi_has_input(desc, 2) ? desc->inputs[2].dtype : TRM_DTYPE_NONE;
    TRM_TRY(st, desc->op == TRM_OP_DFT ? settle_dft(k, desc) : settle_stft(k, desc), fail);
    if (k->out_len > k->n) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %zu bins from a transform of %zu",
                      trm_op_get(desc->op)->name, desc->name, k->out_len, k->n);
        goto fail;
    }
    if (!trm_mul_ok(k->n, 4 * sizeof(complex_f64), &bytes)) {
        st = trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': transform of %zu overflows",
                      trm_op_get(desc->op)->name, desc->name, k->n);
        goto fail;
    }
    k->base.workspace_bytes = bytes;
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    trmi_kernel_free(&k->base);
    return st;
}
