/* Kernels that compute in f32 serve the other floats through conversions in the workspace. */
#include "kernels/cpu/data.h"

#include <string.h>

struct convert_job {
    trm_dtype dtype;
    const void *in;
    void *out;
};

static void convert_in(void *ctx, size_t begin, size_t end)
{
    const struct convert_job *job = (const struct convert_job *)ctx;
    trm_tensor x = {.dtype = job->dtype, .rank = 1, .data = (void *)(uintptr_t)job->in};

    for (size_t i = begin; i < end; i++)
        ((float *)job->out)[i] = (float)trm_tensor_get_f64(&x, i);
}

static void convert_out(void *ctx, size_t begin, size_t end)
{
    const struct convert_job *job = (const struct convert_job *)ctx;
    trm_tensor y = {.dtype = job->dtype, .rank = 1, .data = job->out};
    size_t bits = 8 * trm_dtype_bytes(job->dtype);
    bool integer = !trm_dtype_is_float(job->dtype), sign = trm_dtype_is_signed_int(job->dtype);
    double high = (double)((UINT64_C(1) << (bits - (sign ? 1 : 0) - 1)) - 1) * 2 + 1;
    double low = sign ? -high - 1 : 0;

    for (size_t i = begin; i < end; i++) {
        double v = (double)((const float *)job->in)[i];

        if (integer)
            v = v < low ? low : v > high ? high : v;
        trm_tensor_set_f64(&y, i, v);
    }
}

void trmi_to_f32(trm_dtype dtype, const void *in, float *out, size_t count)
{
    struct convert_job job = {.dtype = dtype, .in = in, .out = out};

    trm_team_for(count, 8192, convert_in, &job);
}

void trmi_from_f32(trm_dtype dtype, const float *in, void *out, size_t count)
{
    struct convert_job job = {.dtype = dtype, .in = in, .out = out};

    trm_team_for(count, 8192, convert_out, &job);
}

trm_status trmi_float_io_init(trmi_float_io *io, const trm_op_desc *desc, int inputs,
                              size_t *workspace_bytes_out)
{
    size_t elems = 0;

    memset(io, 0, sizeof(*io));
    io->inputs = inputs;
    for (int i = 0; i <= inputs; i++) {
        const trm_tensor *t = i < inputs ? &desc->inputs[i] : &desc->outputs[0];
        size_t n;

        if (!trm_dtype_is_float(t->dtype))
            return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s' of %s, want a float type",
                            trm_op_get(desc->op)->name, desc->name, trm_dtype_name(t->dtype));
        TRM_CHECK(trm_tensor_elems(t, &n));
        if (i < inputs) {
            io->in_dtype[i] = t->dtype;
            io->in_elems[i] = n;
        } else {
            io->out_dtype = t->dtype;
            io->out_elems = n;
        }
        if (t->dtype != TRM_DTYPE_F32)
            elems += trm_align_up(n, 16);
    }
    *workspace_bytes_out = elems * sizeof(float);
    return TRM_OK;
}

float *trmi_float_begin(const trmi_float_io *io, const void *const *in, void *out, void *workspace,
                        const float **in32)
{
    float *spare = workspace;

    for (int i = 0; i < io->inputs; i++) {
        in32[i] = in[i];
        if (io->in_dtype[i] == TRM_DTYPE_F32)
            continue;
        trmi_to_f32(io->in_dtype[i], in[i], spare, io->in_elems[i]);
        in32[i] = spare;
        spare += trm_align_up(io->in_elems[i], 16);
    }
    return io->out_dtype == TRM_DTYPE_F32 ? (float *)out : spare;
}

void trmi_float_end(const trmi_float_io *io, const float *out32, void *out)
{
    if (io->out_dtype != TRM_DTYPE_F32)
        trmi_from_f32(io->out_dtype, out32, out, io->out_elems);
}
