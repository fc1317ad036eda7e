/* Resize: applying the tables. Nearest copies elements of any dtype row by row; the other modes
 * run one pass an axis over f32, from the last axis to the first, vectorised along what lies
 * behind the axis. */
#include "kernels/cpu/resize.h"

#include <string.h>

struct nearest_job {
    const trmi_resize *r;
    const unsigned char *in;
    unsigned char *out;
};

#define NEAREST_ROW(type)                                                                          \
    for (size_t j = 0; j < n; j++)                                                                 \
        memcpy(out + j * sizeof(type), in + (size_t)index[j] * sizeof(type), sizeof(type));

static void nearest_row(const unsigned char *in, unsigned char *out, const int32_t *index, size_t n,
                        size_t unit)
{
    switch (unit) {
    case 1:
        NEAREST_ROW(uint8_t)
        return;
    case 2:
        NEAREST_ROW(uint16_t)
        return;
    case 4:
        NEAREST_ROW(uint32_t)
        return;
    case 8:
        NEAREST_ROW(uint64_t)
        return;
    default:
        for (size_t j = 0; j < n; j++)
            memcpy(out + j * unit, in + (size_t)index[j] * unit, unit);
    }
}

static void fill_outside(const trmi_resize *r, unsigned char *out, size_t bytes)
{
    size_t elem = trm_dtype_bytes(r->dtype);

    for (size_t i = 0; i < bytes; i += elem)
        memcpy(out + i, &r->extrapolation_elem, elem);
}

/* Rows of the last resized axis. Neighbouring output rows often have one source: copy the row
 * before. */
static void nearest_rows(void *ctx, size_t begin, size_t end)
{
    const struct nearest_job *job = (const struct nearest_job *)ctx;
    const trmi_resize *r = job->r;
    int last = r->rank - 1;
    const trmi_resize_axis *a = &r->axis[last];
    size_t row_bytes = a->out * r->unit_bytes, before = SIZE_MAX;

    for (size_t row = begin; row < end; row++) {
        unsigned char *out = job->out + row * row_bytes;
        size_t rest = row, at = 0, step = 1;
        bool outside = false;

        for (int d = last - 1; d >= 0; d--) {
            size_t i = rest % r->out_dims[d];

            rest /= r->out_dims[d];
            if (r->resized[d]) {
                outside = outside || r->axis[d].outside[i];
                i = (size_t)r->axis[d].index[i];
            }
            at += i * step;
            step *= r->in_dims[d];
        }
        if (outside) {
            fill_outside(r, out, row_bytes);
            before = SIZE_MAX;
            continue;
        }
        if (at == before) {
            memcpy(out, out - row_bytes, row_bytes);
            continue;
        }
        nearest_row(job->in + at * a->in * r->unit_bytes, out, a->index, a->out, r->unit_bytes);
        for (size_t j = 0; j < a->out; j++)
            if (a->outside[j])
                fill_outside(r, out + j * r->unit_bytes, r->unit_bytes);
        before = at;
    }
}

void trmi_resize_nearest(const trmi_resize *r, const void *in, void *out)
{
    struct nearest_job job = {.r = r, .in = in, .out = out};
    size_t rows = 1;

    if (r->rank == 0) { /* nothing is resized */
        trmi_copy_flat(in, out, r->unit_bytes);
        return;
    }
    for (int i = 0; i < r->rank - 1; i++)
        rows *= r->out_dims[i];
    trm_team_for(rows, 32768 / (r->out_dims[r->rank - 1] * r->unit_bytes) + 1, nearest_rows, &job);
}

struct pass_job {
    const trmi_resize_axis *a;
    const float *in;
    float *out;
    size_t inner;
    float extrapolation;
};

/* Output rows (outer, j) of `inner` elements each. */
static void pass_rows(void *ctx, size_t begin, size_t end)
{
    const struct pass_job *job = (const struct pass_job *)ctx;
    const trmi_resize_axis *a = job->a;
    size_t inner = job->inner;

    for (size_t row = begin; row < end; row++) {
        size_t o = row / a->out, j = row % a->out;
        const float *in = job->in + o * a->in * inner;
        const float *w = a->weight + j * a->taps;
        const int32_t *index = a->index + j * a->taps;
        float *restrict out = job->out + row * inner;

        if (a->outside[j]) {
            for (size_t i = 0; i < inner; i++)
                out[i] = job->extrapolation;
        } else if (a->taps == 2) {
            const float *x0 = in + (size_t)index[0] * inner, *x1 = in + (size_t)index[1] * inner;
            float w0 = w[0], w1 = w[1];

            for (size_t i = 0; i < inner; i++)
                out[i] = x0[i] * w0 + x1[i] * w1;
        } else {
            for (size_t i = 0; i < inner; i++)
                out[i] = 0;
            for (size_t t = 0; t < a->taps; t++) {
                const float *x = in + (size_t)index[t] * inner;
                float wt = w[t];

                for (size_t i = 0; i < inner; i++)
                    out[i] += x[i] * wt;
            }
        }
    }
}

/* The same where nothing lies behind the axis: whole lines, one output element after another. */
static void pass_lines(void *ctx, size_t begin, size_t end)
{
    const struct pass_job *job = (const struct pass_job *)ctx;
    const trmi_resize_axis *a = job->a;

    for (size_t o = begin; o < end; o++) {
        const float *in = job->in + o * a->in;
        float *out = job->out + o * a->out;
        const float *w = a->weight;
        const int32_t *index = a->index;

        for (size_t j = 0; j < a->out; j++, w += a->taps, index += a->taps) {
            float sum = in[index[0]] * w[0];

            for (size_t t = 1; t < a->taps; t++)
                sum += in[index[t]] * w[t];
            out[j] = a->outside[j] ? job->extrapolation : sum;
        }
    }
}

void trmi_resize_weighted(const trmi_resize *r, const void *in, void *out, float *workspace)
{
    float *spare[2] = {workspace, workspace + r->scratch_elems};
    const float *from = in;
    size_t inner = r->unit_bytes / trm_dtype_bytes(r->dtype), elems = r->in_elems;
    int passes = 0, done = 0;
    bool convert = r->dtype != TRM_DTYPE_F32;

    for (int i = 0; i < r->rank; i++)
        passes += r->resized[i];
    if (passes == 0) {
        trmi_copy_flat(in, out, r->out_elems * trm_dtype_bytes(r->dtype));
        return;
    }
    if (convert) {
        float *copy = workspace + 2 * r->scratch_elems;

        trmi_to_f32(r->dtype, in, copy, elems);
        from = copy;
    }
    for (int i = r->rank - 1; i >= 0; i--) {
        const trmi_resize_axis *a = &r->axis[i];
        struct pass_job job = {
            .a = a, .in = from, .inner = inner, .extrapolation = r->extrapolation};

        if (!r->resized[i]) {
            inner *= r->in_dims[i];
            continue;
        }
        job.out = ++done == passes && !convert ? (float *)out : spare[done & 1];
        elems = elems / a->in * a->out;
        if (inner == 1)
            trm_team_for(elems / a->out, 8192 / (a->out * a->taps) + 1, pass_lines, &job);
        else
            trm_team_for(elems / inner, 8192 / (inner * a->taps) + 1, pass_rows, &job);
        from = job.out;
        inner *= a->out;
    }
    if (convert)
        trmi_from_f32(r->dtype, from, out, r->out_elems);
}
