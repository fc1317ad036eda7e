/* NonZero and Compress: their output's size depends on the data. Both count first, ask for memory,
 * then write. */
#include "kernels/cpu/data.h"

#include <string.h>

struct select {
    trm_kernel base;
    trmi_where where;
    trm_dtype dtype;
    size_t elem, count;
    int rank;
    int64_t dims[TRM_RANK_MAX];
    /* Compress: in [outer, axis_dim, inner] */
    int axis; /* -1: flattened */
    size_t outer, axis_dim, inner_bytes, conditions;
};

static bool is_zero(trm_dtype dtype, const unsigned char *p, size_t elem)
{
    static const unsigned char zero[8];
    uint64_t bits = 0;

    if (!trm_dtype_is_float(dtype))
        return memcmp(p, zero, elem) == 0;
    memcpy(&bits, p, elem);
    return (bits & ~(UINT64_C(1) << (8 * elem - 1))) == 0; /* -0 is zero too */
}

static trm_status nonzero_run(trm_kernel *k, trm_stream *st, const void *const *in,
                              const trm_output_sink *sink, void *workspace)
{
    struct select *s = (struct select *)k;
    const unsigned char *x = in[0];
    int rank = s->rank == 0 ? 1 : s->rank; /* a scalar is a vector of one */
    int64_t dims[2] = {rank, 0}, at[TRM_RANK_MAX] = {0};
    size_t found = 0, n;
    int64_t *y;
    void *memory;

    (void)st;
    (void)workspace;
    for (size_t i = 0; i < s->count; i++)
        found += !is_zero(s->dtype, x + i * s->elem, s->elem);
    n = found;
    dims[1] = (int64_t)found;
    TRM_CHECK(sink->alloc(sink->ctx, 0, 2, dims, &memory));
    y = memory;
    found = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (!is_zero(s->dtype, x + i * s->elem, s->elem)) {
            for (int d = 0; d < rank; d++)
                y[(size_t)d * n + found] = at[d];
            found++;
        }
        for (int d = s->rank - 1; d >= 0 && ++at[d] == s->dims[d]; d--)
            at[d] = 0;
    }
    return TRM_OK;
}

static trm_status compress_run(trm_kernel *k, trm_stream *st, const void *const *in,
                               const trm_output_sink *sink, void *workspace)
{
    struct select *s = (struct select *)k;
    const unsigned char *x = in[0], *keep = in[1];
    int64_t dims[TRM_RANK_MAX];
    size_t found = 0;
    unsigned char *y;
    void *memory;

    (void)st;
    (void)workspace;
    for (size_t i = 0; i < s->conditions; i++)
        found += keep[i] != 0;
    memcpy(dims, s->dims, sizeof(dims));
    dims[s->axis < 0 ? 0 : s->axis] = (int64_t)found;
    TRM_CHECK(sink->alloc(sink->ctx, 0, s->axis < 0 ? 1 : s->rank, dims, &memory));
    y = memory;
    for (size_t o = 0; o < s->outer; o++) {
        for (size_t i = 0; i < s->conditions; i++) {
            if (keep[i] == 0)
                continue;
            memcpy(y, x + (o * s->axis_dim + i) * s->inner_bytes, s->inner_bytes);
            y += s->inner_bytes;
        }
    }
    return TRM_OK;
}

static const trm_kernel_ops nonzero_ops = {
    .name = "nonzero", .run_dynamic = nonzero_run, .destroy = trmi_kernel_free};
static const trm_kernel_ops compress_ops = {
    .name = "compress", .run_dynamic = compress_run, .destroy = trmi_kernel_free};

static trm_status select_new(trm_op_desc *desc, const trm_kernel_ops *ops, struct select **s_out)
{
    const trm_tensor *x = &desc->inputs[0];
    struct select *s;

    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_kernel_new(sizeof(*s), ops, &s));
    trmi_where_set(&s->where, desc);
    s->dtype = x->dtype;
    s->elem = trm_dtype_bytes(x->dtype);
    s->count = trm_tensor_numel(x);
    s->rank = x->rank;
    memcpy(s->dims, x->dims, sizeof(s->dims));
    *s_out = s;
    return TRM_OK;
}

trm_status trmi_cpu_nonzero(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    struct select *s;

    (void)cpu;
    TRM_CHECK(select_new(desc, &nonzero_ops, &s));
    *kernel_out = &s->base;
    return TRM_OK;
}

trm_status trmi_cpu_compress(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    struct select *s;
    int axis = -1;

    (void)cpu;
    if (trm_attr_find(desc->attrs, "axis") != NULL)
        TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    if (desc->inputs[1].dtype != TRM_DTYPE_BOOL || desc->inputs[1].rank != 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "Compress '%s': the condition must be a bool vector",
                        desc->name);
    TRM_CHECK(select_new(desc, &compress_ops, &s));
    s->axis = axis;
    s->outer = axis < 0 ? 1 : trm_tensor_count(x, 0, axis);
    s->axis_dim = axis < 0 ? s->count : (size_t)x->dims[axis];
    s->inner_bytes = (axis < 0 ? 1 : trm_tensor_count(x, axis + 1, x->rank)) * s->elem;
    s->conditions = (size_t)desc->inputs[1].dims[0]; /* may be shorter than the axis */
    if (s->conditions > s->axis_dim) {
        trmi_kernel_free(&s->base);
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Compress '%s': %lld conditions for %zu entries, want at most as many",
                        desc->name, (long long)desc->inputs[1].dims[0], s->axis_dim);
    }
    *kernel_out = &s->base;
    return TRM_OK;
}
