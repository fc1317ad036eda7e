/* Pad (constant, reflect, edge, wrap; negative pads crop) and CenterCropPad. Each axis has a table
 * of the source index of every output index, -1 for the pad value, so one loop serves every mode.
 * Axes behind the last padded one form the unit that is copied. */
#include "kernels/cpu/data.h"

#include <inttypes.h>
#include <string.h>

struct pad {
    trm_kernel base;
    int rank; /* axes up to and with the last padded one, at least 1 */
    size_t in_dims[TRM_RANK_MAX], out_dims[TRM_RANK_MAX];
    size_t elem, unit_bytes; /* unit: elements behind axis rank - 1 */
    size_t rows;             /* product of out_dims[0..rank - 1) */
    bool has_value;          /* input 2 gives the pad value */
    int64_t *source[TRM_RANK_MAX];
    size_t middle_begin, middle_end; /* of the last axis: source index grows by one here */
    int64_t tables[];
};

struct pad_job {
    const struct pad *p;
    const unsigned char *in;
    unsigned char *out;
    const unsigned char *value;
};

static void fill_units(unsigned char *out, const unsigned char *value, size_t elem, size_t bytes)
{
    if (elem == 1)
        memset(out, *value, bytes);
    else
        for (size_t i = 0; i < bytes; i += elem)
            memcpy(out + i, value, elem);
}

static void pad_rows(void *ctx, size_t begin, size_t end)
{
    const struct pad_job *job = (const struct pad_job *)ctx;
    const struct pad *p = job->p;
    int last = p->rank - 1;
    const int64_t *source = p->source[last];
    size_t n = p->out_dims[last], unit = p->unit_bytes;

    for (size_t row = begin; row < end; row++) {
        unsigned char *out = job->out + row * n * unit;
        const unsigned char *in;
        size_t rest = row, at = 0, scale = 1;
        bool outside = false;

        for (int d = last - 1; d >= 0; d--) {
            int64_t from = p->source[d][rest % p->out_dims[d]];

            outside = outside || from < 0;
            at += (size_t)from * scale;
            scale *= p->in_dims[d];
            rest /= p->out_dims[d];
        }
        if (outside) {
            fill_units(out, job->value, p->elem, n * unit);
            continue;
        }
        in = job->in + at * p->in_dims[last] * unit;
        for (size_t i = 0; i < n; i++) {
            if (i == p->middle_begin && p->middle_end > i) {
                memcpy(out + i * unit, in + (size_t)source[i] * unit, (p->middle_end - i) * unit);
                i = p->middle_end - 1;
            } else if (source[i] < 0) {
                fill_units(out + i * unit, job->value, p->elem, unit);
            } else {
                memcpy(out + i * unit, in + (size_t)source[i] * unit, unit);
            }
        }
    }
}

static trm_status pad_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    static const unsigned char zero[8];
    struct pad *p = (struct pad *)k;
    struct pad_job job = {.p = p, .in = in[0], .out = out[0], .value = zero};

    (void)s;
    (void)workspace;
    if (p->has_value && in[2] != NULL)
        job.value = in[2];
    if (p->unit_bytes > 0 && p->out_dims[p->rank - 1] > 0)
        trm_team_for(p->rows, 32768 / (p->out_dims[p->rank - 1] * p->unit_bytes) + 1, pad_rows,
                     &job);
    return TRM_OK;
}

static const trm_kernel_ops pad_ops = {.name = "pad", .run = pad_run, .destroy = trmi_kernel_free};

typedef enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP } pad_mode;

/* Source of position `i` relative to an axis part of `n` elements; -1: the pad value. */
static int64_t source_index(pad_mode mode, int64_t i, int64_t n)
{
    int64_t period;

    if (i >= 0 && i < n)
        return i;
    switch (mode) {
    case PAD_EDGE:
        return i < 0 ? 0 : n - 1;
    case PAD_WRAP:
        i %= n;
        return i < 0 ? i + n : i;
    case PAD_REFLECT:
        if (n == 1)
            return 0;
        period = 2 * (n - 1);
        i %= period;
        i = i < 0 ? i + period : i;
        return i < n ? i : period - i;
    case PAD_CONSTANT:
        break;
    }
    return -1;
}

/* begin[i], end[i]: pads of axis i, negative crops. Cropping comes first: reflections see what is
 * left. */
static trm_status pad_new(trm_op_desc *desc, pad_mode mode, const int64_t *begin,
                          const int64_t *end, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t want[TRM_RANK_MAX];
    size_t total = 0;
    struct pad *p;
    int rank = 1;

    for (int i = 0; i < x->rank; i++) {
        if (begin[i] < -TRM_DIM_MAX || begin[i] > TRM_DIM_MAX || end[i] < -TRM_DIM_MAX ||
            end[i] > TRM_DIM_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': pads %" PRId64 ", %" PRId64 " of axis %d",
                            trm_op_get(desc->op)->name, desc->name, begin[i], end[i], i);
        want[i] = x->dims[i] + begin[i] + end[i];
        if (begin[i] != 0 || end[i] != 0)
            rank = i + 1;
    }
    TRM_CHECK(trmi_data_expect(desc, 0, x->rank, want));
    rank = rank > x->rank ? x->rank : rank; /* 0 for a scalar */
    for (int i = 0; i < rank; i++)
        total += (size_t)want[i];
    TRM_CHECK(trmi_kernel_new(sizeof(*p) + (total + 1) * sizeof(int64_t), &pad_ops, &p));
    p->rank = rank > 0 ? rank : 1;
    p->elem = trm_dtype_bytes(x->dtype);
    p->unit_bytes = trm_tensor_count(x, rank, x->rank) * p->elem;
    p->rows = 1;
    p->source[0] = p->tables;
    p->in_dims[0] = p->out_dims[0] = 1; /* scalar: one unit, tables[0] is 0 */
    total = 0;
    for (int i = 0; i < rank; i++) {
        int64_t low = begin[i] < 0 ? -begin[i] : 0;
        int64_t high = x->dims[i] + (end[i] < 0 ? end[i] : 0);

        if (mode != PAD_CONSTANT && want[i] > 0 && high <= low) {
            trmi_kernel_free(&p->base);
            return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': axis %d has nothing left to pad from",
                            trm_op_get(desc->op)->name, desc->name, i);
        }
        p->source[i] = p->tables + total;
        p->in_dims[i] = (size_t)x->dims[i];
        p->out_dims[i] = (size_t)want[i];
        for (int64_t j = 0; j < want[i]; j++) {
            int64_t from = source_index(mode, j - (begin[i] > 0 ? begin[i] : 0), high - low);

            p->source[i][j] = from < 0 ? -1 : from + low;
        }
        if (i == rank - 1 && high > low) {
            p->middle_begin = (size_t)(begin[i] > 0 ? begin[i] : 0);
            p->middle_end = p->middle_begin + (size_t)(high - low);
        }
        if (i < rank - 1)
            p->rows *= (size_t)want[i];
        total += (size_t)want[i];
    }
    *kernel_out = &p->base;
    return TRM_OK;
}

trm_status trmi_cpu_pad(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    static const char *const modes[] = {"constant", "reflect", "edge", "wrap"};
    const trm_tensor *x = &desc->inputs[0];
    const char *mode = trm_attr_string(desc->attrs, "mode", "constant");
    int64_t pads[2 * TRM_RANK_MAX], axes[TRM_RANK_MAX];
    int64_t begin[TRM_RANK_MAX] = {0}, end[TRM_RANK_MAX] = {0};
    int pad_count, axis_count, m = 0;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    while (m < 4 && strcmp(mode, modes[m]) != 0)
        m++;
    if (m == 4)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "Pad '%s': mode '%s', want constant, reflect, edge or wrap", desc->name,
                        mode);
    TRM_CHECK(trmi_data_ints(desc, 1, pads, 2 * TRM_RANK_MAX, &pad_count));
    TRM_CHECK(trmi_data_ints(desc, 3, axes, TRM_RANK_MAX, &axis_count));
    if (!trmi_has_input(desc, 3)) {
        axis_count = x->rank;
        for (int i = 0; i < x->rank; i++)
            axes[i] = i;
    }
    if (pad_count != 2 * axis_count)
        return trm_fail(TRM_ERR_INVALID_ARG, "Pad '%s': %d pads for %d axes, want two an axis",
                        desc->name, pad_count, axis_count);
    if (trmi_has_input(desc, 2) &&
        (desc->inputs[2].dtype != x->dtype || trm_tensor_numel(&desc->inputs[2]) != 1))
        return trm_fail(TRM_ERR_INVALID_ARG, "Pad '%s': the pad value must be one %s", desc->name,
                        trm_dtype_name(x->dtype));
    for (int i = 0; i < axis_count; i++) {
        int axis;

        TRM_CHECK(trmi_data_axis(desc, axes[i], x->rank, &axis));
        begin[axis] = pads[i];
        end[axis] = pads[axis_count + i];
    }
    TRM_CHECK(pad_new(desc, (pad_mode)m, begin, end, kernel_out));
    ((struct pad *)*kernel_out)->has_value = trmi_has_input(desc, 2);
    return TRM_OK;
}

trm_status trmi_cpu_center_crop_pad(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    int64_t begin[TRM_RANK_MAX] = {0}, end[TRM_RANK_MAX] = {0}, shape[TRM_RANK_MAX];
    size_t axis_count;
    const int64_t *axes = trm_attr_ints(desc->attrs, "axes", &axis_count);
    int count;

    (void)cpu;
    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_data_ints(desc, 1, shape, TRM_RANK_MAX, &count));
    if ((axes != NULL && axis_count != (size_t)count) || (axes == NULL && count != x->rank))
        return trm_fail(TRM_ERR_INVALID_ARG, "CenterCropPad '%s': %d sizes, want one an axis",
                        desc->name, count);
    for (int i = 0; i < count; i++) {
        int64_t d;
        int axis = i;

        if (axes != NULL)
            TRM_CHECK(trmi_data_axis(desc, axes[i], x->rank, &axis));
        if (shape[i] < 0 || shape[i] > TRM_DIM_MAX)
            return trm_fail(TRM_ERR_INVALID_ARG, "CenterCropPad '%s': size %" PRId64 " of axis %d",
                            desc->name, shape[i], axis);
        d = shape[i] - x->dims[axis]; /* the odd one goes to the end, for crop and pad alike */
        begin[axis] = d / 2;
        end[axis] = d - d / 2;
    }
    return pad_new(desc, PAD_CONSTANT, begin, end, kernel_out);
}
