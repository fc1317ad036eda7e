/* ScatterElements, ScatterND, TensorScatter: output 0 starts as a copy of the data (or lies on it)
 * and updates are written into it, in the order of the indices, so that repeated indices have one
 * defined result. All indices are checked before the first write. */
#include "kernels/cpu/data.h"

#include <inttypes.h>
#include <string.h>

typedef enum scatter_reduction {
    SCATTER_NONE,
    SCATTER_ADD,
    SCATTER_MUL,
    SCATTER_MAX,
    SCATTER_MIN
} scatter_reduction;

struct scatter {
    trm_kernel base;
    trmi_where where;
    trm_dtype dtype, index_dtype;
    scatter_reduction reduction;
    size_t elem, data_bytes;
    size_t indices;
    int64_t limit;
    /* ScatterElements */
    int rank, axis;
    int64_t dims[TRM_RANK_MAX];
    ptrdiff_t steps[TRM_RANK_MAX];
    /* ScatterND: slices of `inner` elements */
    int depth;
    int64_t nd_dims[TRM_RANK_MAX];
    size_t nd_steps[TRM_RANK_MAX]; /* elements */
    size_t inner;
    /* TensorScatter: cache [batches, middle, limit, inner], update [batches, middle, rows, inner]
     */
    size_t batches, middle, rows;
    bool circular;
};

static float half_to_f32(trm_dtype dtype, uint16_t h)
{
    return dtype == TRM_DTYPE_F16 ? trm_f16_to_f32(h) : trm_bf16_to_f32(h);
}

#define APPLY(type, add, mul)                                                                      \
    {                                                                                              \
        type *y = to;                                                                              \
        const type *x = from;                                                                      \
        for (size_t i = 0; i < n; i++) {                                                           \
            type a = y[i], b = x[i];                                                               \
            y[i] = r == SCATTER_ADD   ? (type)(add)                                                \
                   : r == SCATTER_MUL ? (type)(mul)                                                \
                   : r == SCATTER_MAX ? (a > b ? a : b)                                            \
                                      : (a < b ? a : b);                                           \
        }                                                                                          \
        return;                                                                                    \
    }

/* to[i] = to[i] (reduction) from[i]. Integers wrap: computed unsigned. */
static void reduce(trm_dtype dtype, scatter_reduction r, void *to, const void *from, size_t n)
{
    if (r == SCATTER_NONE) {
        memcpy(to, from, n * trm_dtype_bytes(dtype));
        return;
    }
    switch (dtype) {
    case TRM_DTYPE_F32:
        APPLY(float, a + b, a * b)
    case TRM_DTYPE_F64:
        APPLY(double, a + b, a * b)
    case TRM_DTYPE_F16:
    case TRM_DTYPE_BF16: {
        uint16_t *y = to;
        const uint16_t *x = from;

        for (size_t i = 0; i < n; i++) {
            float v = half_to_f32(dtype, y[i]);

            reduce(TRM_DTYPE_F32, r, &v, &(float){half_to_f32(dtype, x[i])}, 1);
            y[i] = dtype == TRM_DTYPE_F16 ? trm_f32_to_f16(v) : trm_f32_to_bf16(v);
        }
        return;
    }
    case TRM_DTYPE_I8:
        APPLY(int8_t, a + b, a * b)
    case TRM_DTYPE_U8:
        APPLY(uint8_t, a + b, a * b)
    case TRM_DTYPE_I16:
        APPLY(int16_t, a + b, a * b)
    case TRM_DTYPE_U16:
        APPLY(uint16_t, (unsigned)a + b, (unsigned)a * b)
    case TRM_DTYPE_I32:
        APPLY(int32_t, (uint32_t)a + (uint32_t)b, (uint32_t)a * (uint32_t)b)
    case TRM_DTYPE_U32:
        APPLY(uint32_t, a + b, a * b)
    case TRM_DTYPE_I64:
        APPLY(int64_t, (uint64_t)a + (uint64_t)b, (uint64_t)a * (uint64_t)b)
    case TRM_DTYPE_U64:
        APPLY(uint64_t, a + b, a * b)
    case TRM_DTYPE_BOOL:
        APPLY(uint8_t, a | b, a & b)
    case TRM_DTYPE_NONE:
    default:
        break;
    }
}

static trm_status scatter_elements_run(trm_kernel *k, trm_stream *st, const void *const *in,
                                       void *const *out, void *workspace)
{
    struct scatter *s = (struct scatter *)k;
    const unsigned char *update = in[2];
    const int64_t *index = workspace;
    unsigned char *y = out[0];
    int last = s->rank - 1;

    (void)st;
    TRM_CHECK(trmi_index_load(&s->where, in[1], s->index_dtype, s->indices, s->limit, workspace));
    trmi_copy_flat(in[0], y, s->data_bytes);
    for (size_t i = 0; i < s->indices; i++) {
        size_t rest = i;
        ptrdiff_t at = (ptrdiff_t)index[i] * s->steps[s->axis];

        for (int d = last; d >= 0; d--) {
            if (d != s->axis)
                at += (ptrdiff_t)(rest % (size_t)s->dims[d]) * s->steps[d];
            rest /= (size_t)s->dims[d];
        }
        reduce(s->dtype, s->reduction, y + at * (ptrdiff_t)s->elem, update + i * s->elem, 1);
    }
    return TRM_OK;
}

static trm_status scatter_nd_run(trm_kernel *k, trm_stream *st, const void *const *in,
                                 void *const *out, void *workspace)
{
    struct scatter *s = (struct scatter *)k;
    const unsigned char *update = in[2], *tuple = in[1];
    unsigned char *y = out[0];
    int64_t *at = workspace;
    size_t depth = (size_t)s->depth, index_bytes = trm_dtype_bytes(s->index_dtype);

    (void)st;
    for (size_t i = 0; i < s->indices; i++) {
        at[i] = 0;
        for (size_t d = 0; d < depth; d++) {
            int64_t v;

            TRM_CHECK(trmi_index_load(&s->where, tuple + (i * depth + d) * index_bytes,
                                      s->index_dtype, 1, s->nd_dims[d], &v));
            at[i] += v * (int64_t)s->nd_steps[d];
        }
    }
    trmi_copy_flat(in[0], y, s->data_bytes);
    for (size_t i = 0; i < s->indices; i++)
        reduce(s->dtype, s->reduction, y + (size_t)at[i] * s->elem, update + i * s->inner * s->elem,
               s->inner);
    return TRM_OK;
}

static trm_status tensor_scatter_run(trm_kernel *k, trm_stream *st, const void *const *in,
                                     void *const *out, void *workspace)
{
    struct scatter *s = (struct scatter *)k;
    const unsigned char *update = in[1];
    unsigned char *y = out[0];
    size_t row = s->inner * s->elem;

    (void)st;
    (void)workspace;
    for (size_t b = 0; b < s->batches; b++) {
        int64_t first = in[2] == NULL ? 0 : trmi_index_at(in[2], s->index_dtype, b);
        int64_t last_first = s->circular ? s->limit - 1 : s->limit - (int64_t)s->rows;

        if (first < 0 || first > last_first)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s '%s': write index %" PRId64 " of batch %zu is out of range, want 0 "
                            "to %" PRId64,
                            trm_op_get(s->where.op)->name, s->where.name, first, b, last_first);
    }
    trmi_copy_flat(in[0], y, s->data_bytes);
    for (size_t b = 0; b < s->batches; b++) {
        size_t first = in[2] == NULL ? 0 : (size_t)trmi_index_at(in[2], s->index_dtype, b);

        for (size_t m = b * s->middle; m < (b + 1) * s->middle; m++)
            for (size_t r = 0; r < s->rows; r++)
                memcpy(y + (m * (size_t)s->limit + (first + r) % (size_t)s->limit) * row,
                       update + (m * s->rows + r) * row, row);
    }
    return TRM_OK;
}

static const trm_kernel_ops scatter_elements_ops = {
    .name = "scatter elements", .run = scatter_elements_run, .destroy = trmi_kernel_free};
static const trm_kernel_ops scatter_nd_ops = {
    .name = "scatter nd", .run = scatter_nd_run, .destroy = trmi_kernel_free};
static const trm_kernel_ops tensor_scatter_ops = {
    .name = "tensor scatter", .run = tensor_scatter_run, .destroy = trmi_kernel_free};

static trm_status scatter_new(trm_op_desc *desc, const trm_kernel_ops *ops, int update,
                              struct scatter **s_out)
{
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    const trm_tensor *x = &desc->inputs[0];
    const char *reduction = trm_attr_string(desc->attrs, "reduction", "none");
    int r = 0;
    struct scatter *s;

    TRM_CHECK(trmi_data_plain(desc));
    while (r < 5 && strcmp(names[r], reduction) != 0)
        r++;
    if (r == 5)
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s '%s': reduction '%s', want none, add, mul, max or min",
                        trm_op_get(desc->op)->name, desc->name, reduction);
    if (desc->inputs[update].dtype != x->dtype)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s '%s': updates are %s, data %s",
                        trm_op_get(desc->op)->name, desc->name,
                        trm_dtype_name(desc->inputs[update].dtype), trm_dtype_name(x->dtype));
    TRM_CHECK(trmi_data_expect(desc, 0, x->rank, x->dims));
    TRM_CHECK(trmi_kernel_new(sizeof(*s), ops, &s));
    trmi_where_set(&s->where, desc);
    s->reduction = (scatter_reduction)r;
    s->dtype = x->dtype;
    s->elem = trm_dtype_bytes(x->dtype);
    s->data_bytes = trm_tensor_numel(x) * s->elem;
    s->base.in_place = 1;
    *s_out = s;
    return TRM_OK;
}

trm_status trmi_cpu_scatter_elements(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1];
    struct scatter *s;
    int axis;

    (void)cpu;
    TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    TRM_CHECK(trmi_index_dtype(desc, 1));
    if (idx->rank != x->rank || !trm_tensor_same_shape(idx, &desc->inputs[2]))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "ScatterElements '%s': indices and updates must have one shape, of the "
                        "data's rank %d",
                        desc->name, x->rank);
    for (int i = 0; i < x->rank; i++)
        if (i != axis && idx->dims[i] > x->dims[i])
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "ScatterElements '%s': dim %d of the indices is %lld, of the data %lld",
                            desc->name, i, (long long)idx->dims[i], (long long)x->dims[i]);
    TRM_CHECK(scatter_new(desc, &scatter_elements_ops, 2, &s));
    s->index_dtype = idx->dtype;
    s->rank = x->rank;
    s->axis = axis;
    s->limit = x->dims[axis];
    s->indices = trm_tensor_numel(idx);
    memcpy(s->dims, idx->dims, sizeof(s->dims));
    trmi_steps(x->rank, x->dims, s->steps);
    s->base.workspace_bytes = s->indices * sizeof(int64_t);
    *kernel_out = &s->base;
    return TRM_OK;
}

trm_status trmi_cpu_scatter_nd(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1], *u = &desc->inputs[2];
    int64_t depth = idx->rank < 1 ? 0 : idx->dims[idx->rank - 1];
    struct scatter *s;
    bool fits;

    (void)cpu;
    TRM_CHECK(trmi_index_dtype(desc, 1));
    if (depth < 1 || depth > x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "ScatterND '%s': the indices' last dim is %lld, want 1 to %d", desc->name,
                        (long long)depth, x->rank);
    fits = u->rank == idx->rank - 1 + x->rank - (int)depth;
    for (int i = 0; i < u->rank && fits; i++)
        fits = u->dims[i] ==
               (i < idx->rank - 1 ? idx->dims[i] : x->dims[i - (idx->rank - 1) + (int)depth]);
    if (!fits)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "ScatterND '%s': updates must be the indices' outer dims, then the data's "
                        "dims from %lld",
                        desc->name, (long long)depth);
    TRM_CHECK(scatter_new(desc, &scatter_nd_ops, 2, &s));
    s->index_dtype = idx->dtype;
    s->depth = (int)depth;
    s->indices = trm_tensor_count(idx, 0, idx->rank - 1);
    s->inner = trm_tensor_count(x, (int)depth, x->rank);
    for (int i = 0; i < s->depth; i++) {
        s->nd_dims[i] = x->dims[i];
        s->nd_steps[i] = trm_tensor_count(x, i + 1, x->rank);
    }
    s->base.workspace_bytes = s->indices * sizeof(int64_t);
    *kernel_out = &s->base;
    return TRM_OK;
}

trm_status trmi_cpu_tensor_scatter(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *u = &desc->inputs[1];
    const char *mode = trm_attr_string(desc->attrs, "mode", "linear");
    struct scatter *s;
    bool fits = u->rank == x->rank;
    int axis;

    (void)cpu;
    TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", -2), x->rank, &axis));
    for (int i = 0; i < x->rank && fits; i++)
        fits = i == axis ? u->dims[i] <= x->dims[i] : u->dims[i] == x->dims[i];
    if (!fits || axis == 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TensorScatter '%s': the update must be the cache with a shorter axis %d, "
                        "which is not the batch",
                        desc->name, axis);
    if (strcmp(mode, "linear") != 0 && strcmp(mode, "circular") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TensorScatter '%s': mode '%s'", desc->name, mode);
    if (trmi_has_input(desc, 2)) {
        TRM_CHECK(trmi_index_dtype(desc, 2));
        if (trm_tensor_numel(&desc->inputs[2]) != (size_t)x->dims[0])
            return trm_fail(TRM_ERR_INVALID_ARG, "TensorScatter '%s': want one write index a batch",
                            desc->name);
    }
    TRM_CHECK(scatter_new(desc, &tensor_scatter_ops, 1, &s));
    s->index_dtype = trmi_has_input(desc, 2) ? desc->inputs[2].dtype : TRM_DTYPE_I64;
    s->circular = mode[0] == 'c';
    s->batches = (size_t)x->dims[0];
    s->middle = trm_tensor_count(x, 1, axis);
    s->limit = x->dims[axis];
    s->rows = (size_t)u->dims[axis];
    s->inner = trm_tensor_count(x, axis + 1, x->rank);
    *kernel_out = &s->base;
    return TRM_OK;
}
