/* MeanVarianceNormalization: (x - mean) / (deviation + 1e-9) over any axes, moments in double. */
#include "kernels/cpu/math_util.h"

#include <math.h>
#include <string.h>

typedef struct mvn_kernel {
    trm_kernel base;
    trm_dtype dtype;
    int rank;
    size_t elems, groups, last; /* elements; kept positions; length of the innermost dim */
    size_t dims[TRM_RANK_MAX],
        strides[TRM_RANK_MAX]; /* stride of a dim among kept positions, 0: reduced */
} mvn_kernel;

static size_t group_of(const mvn_kernel *k, size_t row)
{
    size_t at = 0;

    for (int d = k->rank - 2; d >= 0; d--) {
        at += row % k->dims[d] * k->strides[d];
        row /= k->dims[d];
    }
    return at;
}

static trm_status mvn_run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                          void *workspace)
{
    mvn_kernel *k = (mvn_kernel *)base;
    double *mean = workspace, *deviation = mean + k->groups, chunk[TRMI_CHUNK];
    size_t size = trm_dtype_bytes(k->dtype), step = k->strides[k->rank - 1];
    double count = (double)k->elems / (double)k->groups;

    (void)s;
    memset(mean, 0, 2 * k->groups * sizeof(double));
    for (int pass = 0; pass < 3; pass++) {
        for (size_t begin = 0; begin < k->elems;) {
            size_t row = begin / k->last, column = begin % k->last;
            size_t n = k->last - column < TRMI_CHUNK ? k->last - column : TRMI_CHUNK;
            size_t g = group_of(k, row) + column * step;

            trmi_convert(TRM_DTYPE_F64, chunk, k->dtype, (const char *)in[0] + begin * size, n);
            for (size_t i = 0; i < n; i++) {
                size_t at = g + i * step;

                if (pass == 0)
                    mean[at] += chunk[i];
                else if (pass == 1)
                    deviation[at] += (chunk[i] - mean[at]) * (chunk[i] - mean[at]);
                else
                    chunk[i] = (chunk[i] - mean[at]) / (deviation[at] + 1e-9);
            }
            if (pass == 2)
                trmi_convert(k->dtype, (char *)out[0] + begin * size, TRM_DTYPE_F64, chunk, n);
            begin += n;
        }
        for (size_t g = 0; g < k->groups; g++) {
            if (pass == 0)
                mean[g] /= count;
            else if (pass == 1)
                deviation[g] = sqrt(deviation[g] / count);
        }
    }
    return TRM_OK;
}

static const trm_kernel_ops mvn_ops = {
    .name = "mean variance norm", .run = mvn_run, .destroy = trmi_kernel_free};

trm_status trmi_prepare_mvn(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    static const int64_t usual[] = {0, 2, 3};
    const trm_tensor *in = &desc->inputs[0];
    size_t count, step = 1;
    const int64_t *axes = trm_attr_ints(desc->attrs, "axes", &count);
    uint32_t mask = 0;
    mvn_kernel *k;

    (void)cpu;
    TRM_CHECK(trmi_math_begin(desc));
    if (!trm_dtype_is_float(in->dtype))
        return trmi_bad_dtype(desc, 0, "a float");
    if (axes == NULL) {
        axes = usual;
        count = 3;
    }
    for (size_t i = 0; i < count; i++) {
        int axis = 0;

        TRM_CHECK(trmi_axis(desc, axes[i], in->rank, &axis));
        mask |= 1u << axis;
    }
    TRM_CHECK(trmi_kernel_new(sizeof(*k), &mvn_ops, &k));
    k->dtype = in->dtype;
    k->rank = in->rank > 0 ? in->rank : 1;
    k->dims[0] = 1;
    k->elems = trm_tensor_numel(in);
    for (int d = in->rank - 1; d >= 0; d--) {
        k->dims[d] = (size_t)in->dims[d];
        if ((mask >> d & 1) == 0) {
            k->strides[d] = step;
            step *= k->dims[d];
        }
    }
    k->groups = step;
    k->last = k->dims[k->rank - 1];
    k->base.workspace_bytes = 2 * k->groups * sizeof(double);
    k->base.in_place = 1;
    *kernel_out = &k->base;
    return TRM_OK;
}
