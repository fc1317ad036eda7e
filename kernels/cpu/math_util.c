/* Broadcast plans, staged rows, instruction-set dispatch. */
#include "kernels/cpu/math_util.h"

#include <inttypes.h>
#include <string.h>

const trmi_vec *trmi_vec_get(void)
{
    trm_isa isa = trmi_cpu_isa();

    return isa >= TRM_ISA_AVX512 ? &trmi_vec_avx512
           : isa >= TRM_ISA_AVX2 ? &trmi_vec_avx2
                                 : &trmi_vec_base;
}

trm_status trmi_math_begin(trm_op_desc *desc)
{
    if (desc->post_count > 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': post-ops on this operator",
                        trm_op_get(desc->op)->name, desc->name);
    for (int i = 0; i < desc->input_count; i++)
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
    return TRM_OK;
}

trm_status trmi_bad_dtype(const trm_op_desc *desc, int input, const char *want)
{
    return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': input %d is %s: want %s",
                    trm_op_get(desc->op)->name, desc->name, input,
                    trm_dtype_name(desc->inputs[input].dtype), want);
}

trm_status trmi_axis(const trm_op_desc *desc, int64_t axis, int rank, int *axis_out)
{
    if (axis < -rank || axis >= rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': axis %" PRId64 ": want %d to %d",
                        trm_op_get(desc->op)->name, desc->name, axis, -rank, rank - 1);
    *axis_out = (int)(axis < 0 ? axis + rank : axis);
    return TRM_OK;
}

/* Row-major strides of input `t` seen as an output of `rank` dims; broadcast dims get 0. */
static bool input_strides(const trm_tensor *out, const trm_tensor *t, size_t *strides)
{
    size_t step = 1;
    int shift = out->rank - t->rank;

    if (shift < 0)
        return false;
    for (int d = 0; d < out->rank; d++)
        strides[d] = 0;
    for (int d = t->rank - 1; d >= 0; d--) {
        if (t->dims[d] != 1 && t->dims[d] != out->dims[d + shift])
            return false;
        strides[d + shift] = t->dims[d] == 1 ? 0 : step;
        step *= (size_t)t->dims[d];
    }
    return true;
}

trm_status trmi_broadcast_init(trmi_broadcast *b, const trm_op_desc *desc, const trm_tensor *out,
                               const trm_tensor *const *in, int inputs)
{
    size_t strides[TRMI_ROW_INPUTS][TRM_RANK_MAX];

    memset(b, 0, sizeof(*b));
    memset(strides, 0, sizeof(strides));
    b->inputs = inputs;
    b->total = trm_tensor_numel(out);
    for (int i = 0; i < inputs; i++) {
        char from[TRM_SHAPE_TEXT_BYTES], to[TRM_SHAPE_TEXT_BYTES];

        if (!input_strides(out, in[i], strides[i]))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': input %d is %s, does not broadcast to %s",
                            trm_op_get(desc->op)->name, desc->name, i,
                            trm_tensor_shape_text(in[i], from, sizeof(from)),
                            trm_tensor_shape_text(out, to, sizeof(to)));
    }
    for (int d = 0; d < out->rank; d++) {
        size_t dim = (size_t)out->dims[d];
        bool merge = b->rank > 0;

        if (dim == 1)
            continue;
        for (int i = 0; i < inputs && merge; i++)
            merge = b->strides[i][b->rank - 1] == strides[i][d] * dim;
        if (!merge) {
            b->dims[b->rank] = 1;
            b->rank++;
        }
        b->dims[b->rank - 1] *= dim;
        for (int i = 0; i < inputs; i++)
            b->strides[i][b->rank - 1] = strides[i][d];
    }
    if (b->rank == 0) { /* one element: a row of one */
        b->rank = 1;
        b->dims[0] = 1;
    }
    return TRM_OK;
}

static void staged_row(const trmi_map *m, size_t n, char *out, const char *const *in,
                       const size_t *step)
{
    double buffer[TRMI_ROW_INPUTS + 1][TRMI_CHUNK]; /* room for f64; f32 uses half */
    const void *from[TRMI_ROW_INPUTS];
    size_t out_size = trm_dtype_bytes(m->out_dtype);
    bool out_staged = m->out_dtype != TRM_DTYPE_BOOL && m->out_dtype != m->stage;

    for (size_t at = 0; at < n; at += TRMI_CHUNK) {
        size_t count = n - at < TRMI_CHUNK ? n - at : TRMI_CHUNK;
        char *to = out + at * out_size;

        for (int i = 0; i < m->shape.inputs; i++) {
            const char *src = in[i] + at * step[i] * trm_dtype_bytes(m->in_dtype[i]);

            from[i] = src;
            if (m->in_dtype[i] != m->stage) {
                trmi_convert(m->stage, buffer[i], m->in_dtype[i], src, step[i] == 0 ? 1 : count);
                from[i] = buffer[i];
            }
        }
        m->row(&m->params, count, out_staged ? (void *)buffer[TRMI_ROW_INPUTS] : (void *)to, from,
               step);
        if (out_staged)
            trmi_convert(m->out_dtype, to, m->stage, buffer[TRMI_ROW_INPUTS], count);
    }
}

typedef struct map_job {
    const trmi_map *m;
    char *out;
    const char *in[TRMI_ROW_INPUTS];
} map_job;

static void map_range(void *ctx, size_t begin, size_t end)
{
    const map_job *job = ctx;
    const trmi_map *m = job->m;
    const trmi_broadcast *b = &m->shape;
    int last = b->rank - 1;
    size_t index[TRM_RANK_MAX], rest = begin, step[TRMI_ROW_INPUTS] = {0};

    for (int d = last; d >= 0; d--) {
        index[d] = rest % b->dims[d];
        rest /= b->dims[d];
    }
    for (int i = 0; i < b->inputs; i++)
        step[i] = b->strides[i][last];
    while (begin < end) {
        size_t n = b->dims[last] - index[last];
        char *out = job->out + begin * trm_dtype_bytes(m->out_dtype);
        const char *in[TRMI_ROW_INPUTS] = {0};

        if (n > end - begin)
            n = end - begin;
        for (int i = 0; i < b->inputs; i++) {
            size_t at = 0;

            for (int d = 0; d <= last; d++)
                at += index[d] * b->strides[i][d];
            in[i] = job->in[i] + at * trm_dtype_bytes(m->in_dtype[i]);
        }
        if (m->stage == TRM_DTYPE_NONE)
            m->row(&m->params, n, out, (const void *const *)in, step);
        else
            staged_row(m, n, out, in, step);
        begin += n;
        index[last] += n;
        for (int d = last; d > 0 && index[d] == b->dims[d]; d--) {
            index[d] = 0;
            index[d - 1]++;
        }
    }
}

void trmi_map_run(const trmi_map *m, void *out, const void *const *in)
{
    map_job job = {.m = m, .out = out};

    for (int i = 0; i < m->shape.inputs; i++)
        job.in[i] = in[i];
    trm_team_for(m->shape.total, m->grain == 0 ? TRMI_GRAIN : m->grain, map_range, &job);
}
