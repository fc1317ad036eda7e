/* DFT and STFT. The twiddles are computed here in fp64, once a kernel. */
#include "kernels/cuda/signal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#define N_MAX (INT64_C(1) << 26)
#define WORKSPACE_MAX ((size_t)256 << 20) /* of transforms that do not fit shared memory */

struct fourier {
    trmi_cuda_kernel base;
    trmi_fourier f;
    trmi_pack *twiddles;
};

static trm_status fourier_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                              void *workspace)
{
    const struct fourier *r = (const struct fourier *)k;
    const void *window = r->f.window_dtype == TRM_DTYPE_NONE ? NULL : in[2];

    return trmi_cuda_fourier_launch(&r->f, in[0], window, r->twiddles->memory, out[0], workspace,
                                    trmi_cuda_stream(k, s));
}

static void fourier_destroy(trm_kernel *k)
{
    struct fourier *r = (struct fourier *)k;

    trmi_cuda_pack_release(r->base.cuda, r->twiddles);
    trmi_cuda_kernel_free(k);
}

static const trm_kernel_ops fourier_ops = {
    .name = "cuda fourier", .run = fourier_run, .destroy = fourier_destroy};

/* A positive number that is known here. */
static trm_status length(const trm_op_desc *desc, int input, const char *what, int64_t *out)
{
    const trm_tensor *t = &desc->inputs[input];

    if (t->data == NULL || trm_tensor_numel(t) < 1 || trm_tensor_get_i64(t, 0) < 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %s is not a positive number",
                        trm_op_get(desc->op)->name, desc->name, what);
    *out = trm_tensor_get_i64(t, 0);
    return TRM_OK;
}

static trm_status settle_dft(trmi_fourier *f, const trm_op_desc *desc, int64_t *n_out)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0];
    int64_t wanted = -2;
    int axis;

    if (trmi_cuda_has_input(desc, 2)) {
        if (desc->inputs[2].data == NULL)
            return trm_fail(TRM_ERR_UNSUPPORTED, "DFT '%s': axis is not known on the host",
                            desc->name);
        wanted = trm_tensor_get_i64(&desc->inputs[2], 0);
    }
    TRM_CHECK(trmi_cuda_axis(desc, wanted, x->rank, &axis));
    if (x->rank < 2 || axis == x->rank - 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "DFT '%s': axis %d of rank %d holds no signal",
                        desc->name, axis, x->rank);
    f->inverse = trm_attr_int(desc->attrs, "inverse", 0) != 0;
    f->onesided = trm_attr_int(desc->attrs, "onesided", 0) != 0;
    f->outer = trm_tensor_count(x, 0, axis);
    f->inner = trm_tensor_count(x, axis + 1, x->rank - 1);
    f->in_len = (size_t)x->dims[axis];
    f->in_parts = (size_t)x->dims[x->rank - 1];
    f->out_len = (uint32_t)y->dims[axis];
    f->frames = 1;
    f->real_out = y->dims[y->rank - 1] == 1;
    *n_out = x->dims[axis];
    if (trmi_cuda_has_input(desc, 1))
        TRM_CHECK(length(desc, 1, "dft_length", n_out));
    else if (f->inverse && f->onesided)
        *n_out = y->dims[axis];
    return TRM_OK;
}

static trm_status settle_stft(trmi_fourier *f, const trm_op_desc *desc, int64_t *n_out)
{
    const trm_tensor *x = &desc->inputs[0], *y = &desc->outputs[0], *window = &desc->inputs[2];
    int64_t step;

    TRM_CHECK(length(desc, 1, "frame_step", &step));
    f->frame_step = (size_t)step;
    f->onesided = trm_attr_int(desc->attrs, "onesided", 1) != 0;
    f->outer = (size_t)x->dims[0];
    f->inner = 1;
    f->in_len = (size_t)x->dims[1];
    f->in_parts = x->rank == 3 ? (size_t)x->dims[2] : 1;
    f->frames = (size_t)y->dims[1];
    f->out_len = (uint32_t)y->dims[2];
    *n_out = x->dims[1];
    if (trmi_cuda_has_input(desc, 2)) {
        f->window_dtype = window->dtype;
        *n_out = (int64_t)trm_tensor_numel(window);
    }
    if (trmi_cuda_has_input(desc, 3))
        TRM_CHECK(length(desc, 3, "frame_length", n_out));
    if (f->window_dtype != TRM_DTYPE_NONE && (int64_t)trm_tensor_numel(window) != *n_out)
        return trm_fail(TRM_ERR_INVALID_ARG, "STFT '%s': window of %zu for frames of %" PRId64,
                        desc->name, trm_tensor_numel(window), *n_out);
    return TRM_OK;
}

/* 4s first, then primes as they come. */
static void factor(trmi_fourier *f)
{
    uint32_t rest = f->n;

    while (rest % 4 == 0 && rest > 0) {
        f->factors[f->factor_count++] = 4;
        rest /= 4;
    }
    for (uint32_t p = 2; rest > 1; p++) {
        if ((uint64_t)p * p > rest)
            p = rest;
        while (rest % p == 0 && rest > 1) {
            f->factors[f->factor_count++] = p;
            rest /= p;
        }
    }
}

static trm_status make_twiddles(struct fourier *r, const trm_op_desc *desc)
{
    const double pi = 3.14159265358979323846;
    size_t n = r->f.n, bytes = (n + 1) * trmi_fourier_complex_bytes(&r->f);
    bool wide = r->f.dtype == TRM_DTYPE_F64, found;
    void *host = trm_calloc(1, bytes);
    trm_status st;

    if (host == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s '%s': %zu twiddles", trm_op_get(desc->op)->name,
                        desc->name, n);
    for (size_t i = 0; i < n; i++) {
        double turn = (r->f.inverse ? 2 : -2) * pi * (double)i / (double)n;

        if (wide) {
            ((double *)host)[2 * i] = cos(turn);
            ((double *)host)[2 * i + 1] = sin(turn);
        } else {
            ((float *)host)[2 * i] = (float)cos(turn);
            ((float *)host)[2 * i + 1] = (float)sin(turn);
        }
    }
    st = trmi_cuda_pack(r->base.cuda, 0, "twiddles", bytes, &r->twiddles, &found);
    if (st == TRM_OK)
        st = trmi_cuda_upload(r->base.cuda, r->twiddles->memory, host, bytes);
    trm_free(host);
    return st;
}

trm_status trmi_cuda_fourier(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    trmi_fourier f = {.dtype = desc->inputs[0].dtype, .window_dtype = TRM_DTYPE_NONE};
    size_t series, most = (size_t)cuda->multiprocessors * 8;
    struct fourier *r = NULL;
    int64_t n = 0;
    trm_status st;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (!trm_dtype_is_float(f.dtype))
        return trmi_cuda_bad_dtype(desc, 0, "a float");
    TRM_CHECK(desc->op == TRM_OP_DFT ? settle_dft(&f, desc, &n) : settle_stft(&f, desc, &n));
    if (f.window_dtype != TRM_DTYPE_NONE && !trm_dtype_is_float(f.window_dtype))
        return trmi_cuda_bad_dtype(desc, 2, "a float");
    if (n > N_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': transform of %" PRId64,
                        trm_op_get(desc->op)->name, desc->name, n);
    if (f.out_len > n)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': %u bins from a transform of %" PRId64,
                        trm_op_get(desc->op)->name, desc->name, f.out_len, n);
    f.n = (uint32_t)n;
    factor(&f);
    series = f.outer * f.frames * f.inner;
    f.blocks = (int)(series < most ? series : most);
    while (f.blocks > 1 && trmi_fourier_workspace(&f) > WORKSPACE_MAX)
        f.blocks /= 2;
    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*r), &fourier_ops, &r));
    r->f = f;
    TRM_TRY(st, make_twiddles(r, desc), fail);
    r->base.base.workspace_bytes = trmi_fourier_workspace(&f);
    *kernel_out = &r->base.base;
    return TRM_OK;
fail:
    fourier_destroy(&r->base.base);
    return st;
}
