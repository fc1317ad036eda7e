/* ScatterElements, ScatterND, TensorScatter: output 0 starts as a copy of the data (or lies on it).
 */
#include "kernels/cuda/move.h"

#include <string.h>

struct scatter {
    trmi_move_checked base;
    size_t data_bytes;
    trmi_scatter s;
    trmi_tensor_scatter t;
};

static trm_status scatter_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                              void *workspace)
{
    const struct scatter *c = (const struct scatter *)k;
    trm_cuda *cuda = c->base.base.cuda;
    cudaStream_t stream = trmi_cuda_stream(k, s);

    TRM_CHECK(trmi_cuda_copy_flat(cuda, stream, out[0], in[0], c->data_bytes));
    return trmi_cuda_scatter(cuda, stream, &c->s, in[1], in[2], out[0], workspace,
                             trmi_cuda_move_notes(&c->base));
}

static trm_status tensor_scatter_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                     void *const *out, void *workspace)
{
    const struct scatter *c = (const struct scatter *)k;
    trm_cuda *cuda = c->base.base.cuda;
    cudaStream_t stream = trmi_cuda_stream(k, s);

    (void)workspace;
    TRM_CHECK(trmi_cuda_copy_flat(cuda, stream, out[0], in[0], c->data_bytes));
    return trmi_cuda_tensor_scatter(cuda, stream, &c->t, in[1], in[2], out[0],
                                    trmi_cuda_move_notes(&c->base));
}

static const trm_kernel_ops scatter_elements_ops = {
    .name = "scatter elements", .run = scatter_run, .destroy = trmi_cuda_move_checked_free};
static const trm_kernel_ops scatter_nd_ops = {
    .name = "scatter nd", .run = scatter_run, .destroy = trmi_cuda_move_checked_free};
static const trm_kernel_ops tensor_scatter_ops = {
    .name = "tensor scatter", .run = tensor_scatter_run, .destroy = trmi_cuda_move_checked_free};

static trm_status scatter_new(trm_cuda *cuda, const trm_op_desc *desc, const trm_kernel_ops *ops,
                              bool known_good, int update, struct scatter **c_out)
{
    static const char *const names[] = {"none", "add", "mul", "max", "min"};
    const trm_tensor *x = &desc->inputs[0];
    const char *reduction = trm_attr_string(desc->attrs, "reduction", "none");
    struct scatter *c;
    int r = 0;

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
    TRM_CHECK(trmi_cuda_expect(desc, 0, x->rank, x->dims));
    if (trm_tensor_numel(&desc->inputs[update]) >= UINT32_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s '%s': 2^32 updates or more",
                        trm_op_get(desc->op)->name, desc->name);
    TRM_CHECK(trmi_cuda_move_checked_new(cuda, desc, known_good, sizeof(*c), ops, &c));
    c->s.reduction = (trmi_scatter_reduction)r;
    c->s.dtype = x->dtype;
    c->data_bytes = trm_tensor_numel(x) * trm_dtype_bytes(x->dtype);
    c->base.base.base.in_place = 1;
    *c_out = c;
    return TRM_OK;
}

trm_status trmi_cuda_scatter_elements_prepare(trm_cuda *cuda, trm_op_desc *desc,
                                              trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1];
    struct scatter *c;
    int axis;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    TRM_CHECK(trmi_cuda_index_dtype(desc, 1));
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
    TRM_CHECK(scatter_new(cuda, desc, &scatter_elements_ops,
                          trmi_cuda_move_known_good(desc, 1, 1, &x->dims[axis]), 2, &c));
    c->s.index_dtype = idx->dtype;
    c->s.rank = x->rank;
    c->s.axis = axis;
    c->s.count = trm_tensor_numel(idx);
    c->s.inner = 1;
    c->s.slots = trm_tensor_numel(x);
    trmi_cuda_steps(x->rank, x->dims, c->s.steps);
    for (int i = 0; i < x->rank; i++) {
        c->s.dims[i] = trmi_cuda_div((uint64_t)idx->dims[i]);
        c->s.limits[i] = x->dims[i];
    }
    c->base.base.base.workspace_bytes = trmi_cuda_scatter_workspace(&c->s);
    *kernel_out = &c->base.base.base;
    return TRM_OK;
}

trm_status trmi_cuda_scatter_nd_prepare(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1], *u = &desc->inputs[2];
    int64_t depth = idx->rank < 1 ? 0 : idx->dims[idx->rank - 1];
    struct scatter *c;
    bool fits;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_index_dtype(desc, 1));
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
    TRM_CHECK(scatter_new(cuda, desc, &scatter_nd_ops,
                          trmi_cuda_move_known_good(desc, 1, (int)depth, x->dims), 2, &c));
    c->s.index_dtype = idx->dtype;
    c->s.depth = (int)depth;
    c->s.count = trm_tensor_count(idx, 0, idx->rank - 1);
    c->s.inner = trm_tensor_count(x, (int)depth, x->rank);
    c->s.slots = trm_tensor_count(x, 0, (int)depth);
    trmi_cuda_steps((int)depth, x->dims, c->s.steps);
    for (int i = 0; i < c->s.depth; i++)
        c->s.limits[i] = x->dims[i];
    c->base.base.base.workspace_bytes = trmi_cuda_scatter_workspace(&c->s);
    *kernel_out = &c->base.base.base;
    return TRM_OK;
}

trm_status trmi_cuda_tensor_scatter_prepare(trm_cuda *cuda, trm_op_desc *desc,
                                            trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *u = &desc->inputs[1];
    const char *mode = trm_attr_string(desc->attrs, "mode", "linear");
    bool fits = u->rank == x->rank;
    struct scatter *c;
    int axis;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", -2), x->rank, &axis));
    for (int i = 0; i < x->rank && fits; i++)
        fits = i == axis ? u->dims[i] <= x->dims[i] : u->dims[i] == x->dims[i];
    if (!fits || axis == 0)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "TensorScatter '%s': the update must be the cache with a shorter axis %d, "
                        "which is not the batch",
                        desc->name, axis);
    if (strcmp(mode, "linear") != 0 && strcmp(mode, "circular") != 0)
        return trm_fail(TRM_ERR_UNSUPPORTED, "TensorScatter '%s': mode '%s'", desc->name, mode);
    if (trmi_cuda_has_input(desc, 2)) {
        TRM_CHECK(trmi_cuda_index_dtype(desc, 2));
        if (trm_tensor_numel(&desc->inputs[2]) != (size_t)x->dims[0])
            return trm_fail(TRM_ERR_INVALID_ARG, "TensorScatter '%s': want one write index a batch",
                            desc->name);
    }
    TRM_CHECK(scatter_new(cuda, desc, &tensor_scatter_ops, !trmi_cuda_has_input(desc, 2), 1, &c));
    c->t = (trmi_tensor_scatter){
        .batches = (size_t)x->dims[0],
        .middle = trm_tensor_count(x, 1, axis),
        .rows = (size_t)u->dims[axis],
        .row_bytes = trm_tensor_count(x, axis + 1, x->rank) * trm_dtype_bytes(x->dtype),
        .limit = x->dims[axis],
        .index_dtype = trmi_cuda_has_input(desc, 2) ? desc->inputs[2].dtype : TRM_DTYPE_I64,
        .circular = mode[0] == 'c'};
    *kernel_out = &c->base.base.base;
    return TRM_OK;
}
