/* Gather, GatherElements, GatherND and TrmGatherPart: shapes and checks. */
#include "kernels/cuda/move.h"

struct gather {
    trmi_move_checked base;
    union {
        trmi_gather rows;
        trmi_gather_elements elements;
        trmi_gather_nd nd;
    } as;
};

static trm_status gather_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    const struct gather *g = (const struct gather *)k;

    (void)workspace;
    return trmi_cuda_gather_rows(g->base.base.cuda, trmi_cuda_stream(k, s), &g->as.rows, in[0],
                                 in[1], out[0], trmi_cuda_move_notes(&g->base));
}

static trm_status gather_elements_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                      void *const *out, void *workspace)
{
    const struct gather *g = (const struct gather *)k;

    (void)workspace;
    return trmi_cuda_gather_elements(g->base.base.cuda, trmi_cuda_stream(k, s), &g->as.elements,
                                     in[0], in[1], out[0], trmi_cuda_move_notes(&g->base));
}

static trm_status gather_nd_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                void *const *out, void *workspace)
{
    const struct gather *g = (const struct gather *)k;

    (void)workspace;
    return trmi_cuda_gather_nd(g->base.base.cuda, trmi_cuda_stream(k, s), &g->as.nd, in[0], in[1],
                               out[0], trmi_cuda_move_notes(&g->base));
}

static const trm_kernel_ops gather_ops = {
    .name = "gather", .run = gather_run, .destroy = trmi_cuda_move_checked_free};
static const trm_kernel_ops gather_part_ops = {
    .name = "gather part", .run = gather_run, .destroy = trmi_cuda_move_checked_free};
static const trm_kernel_ops gather_elements_ops = {
    .name = "gather elements", .run = gather_elements_run, .destroy = trmi_cuda_move_checked_free};
static const trm_kernel_ops gather_nd_ops = {
    .name = "gather nd", .run = gather_nd_run, .destroy = trmi_cuda_move_checked_free};

/* The shape of Gather's output, from data and indices. */
static trm_status gather_expect(const trm_op_desc *desc, int axis)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1];
    int64_t want[2 * TRM_RANK_MAX];
    int n = 0;

    for (int i = 0; i < x->rank; i++) {
        if (i != axis)
            want[n++] = x->dims[i];
        for (int j = 0; j < idx->rank && i == axis; j++)
            want[n++] = idx->dims[j];
    }
    return trmi_cuda_expect(desc, 0, n, want);
}

static trm_status gather_rows_new(trm_cuda *cuda, const trm_op_desc *desc, int axis, int64_t limit,
                                  const trm_kernel_ops *ops, struct gather **g_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1];
    trmi_gather *r;

    TRM_CHECK(trmi_cuda_move_checked_new(cuda, desc, trmi_cuda_move_known_good(desc, 1, 1, &limit),
                                         sizeof(**g_out), ops, g_out));
    r = &(*g_out)->as.rows;
    r->index_dtype = idx->dtype;
    r->outer = trm_tensor_count(x, 0, axis);
    r->indices = trm_tensor_numel(idx);
    r->inner_bytes = trm_tensor_count(x, axis + 1, x->rank) * trm_dtype_bytes(x->dtype);
    r->limit = limit;
    r->held = x->dims[axis];
    return TRM_OK;
}

trm_status trmi_cuda_gather(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    struct gather *g;
    int axis;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(
        trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", 0), desc->inputs[0].rank, &axis));
    TRM_CHECK(gather_expect(desc, axis));
    TRM_CHECK(trmi_cuda_index_dtype(desc, 1));
    TRM_CHECK(gather_rows_new(cuda, desc, axis, desc->inputs[0].dims[axis], &gather_ops, &g));
    *kernel_out = &g->base.base.base;
    return TRM_OK;
}

static trm_status read_ranges(const trm_op_desc *desc, trmi_gather *g)
{
    size_t count;
    const int64_t *v = trm_attr_ints(desc->attrs, "ranges", &count);
    int64_t last = 0, held = 0;

    if (count < 2 || count % 2 != 0 || count / 2 > TRMI_GATHER_RANGES)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmGatherPart '%s': %zu bounds of ranges", desc->name,
                        count);
    for (size_t i = 0; i < count; i += 2) {
        if (v[i] < last || v[i + 1] < v[i] || v[i + 1] > g->limit)
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "TrmGatherPart '%s': range [%lld, %lld) of %lld rows", desc->name,
                            (long long)v[i], (long long)v[i + 1], (long long)g->limit);
        g->ranges[i / 2][0] = v[i];
        g->ranges[i / 2][1] = last = v[i + 1];
        held += v[i + 1] - v[i];
    }
    g->range_count = (int)(count / 2);
    if (held != g->held)
        return trm_fail(TRM_ERR_INVALID_ARG, "TrmGatherPart '%s': %lld rows for ranges of %lld",
                        desc->name, (long long)g->held, (long long)held);
    return TRM_OK;
}

trm_status trmi_cuda_gather_part(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    struct gather *g;
    trm_status st;
    int axis;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(
        trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", 0), desc->inputs[0].rank, &axis));
    TRM_CHECK(gather_expect(desc, axis));
    TRM_CHECK(trmi_cuda_index_dtype(desc, 1));
    TRM_CHECK(gather_rows_new(cuda, desc, axis, trm_attr_int(desc->attrs, "extent", 0),
                              &gather_part_ops, &g));
    st = read_ranges(desc, &g->as.rows);
    if (st != TRM_OK) {
        trmi_cuda_move_checked_free(&g->base.base.base);
        return st;
    }
    *kernel_out = &g->base.base.base;
    return TRM_OK;
}

trm_status trmi_cuda_gather_elements_prepare(trm_cuda *cuda, trm_op_desc *desc,
                                             trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1];
    struct gather *g;
    int axis;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    if (idx->rank != x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "GatherElements '%s': indices of rank %d, data %d",
                        desc->name, idx->rank, x->rank);
    for (int i = 0; i < x->rank; i++)
        if (i != axis && idx->dims[i] > x->dims[i])
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "GatherElements '%s': dim %d of the indices is %lld, of the data %lld",
                            desc->name, i, (long long)idx->dims[i], (long long)x->dims[i]);
    TRM_CHECK(trmi_cuda_expect(desc, 0, idx->rank, idx->dims));
    TRM_CHECK(trmi_cuda_index_dtype(desc, 1));
    TRM_CHECK(trmi_cuda_move_checked_new(cuda, desc,
                                         trmi_cuda_move_known_good(desc, 1, 1, &x->dims[axis]),
                                         sizeof(*g), &gather_elements_ops, &g));
    g->as.elements = (trmi_gather_elements){.elem = trm_dtype_bytes(x->dtype),
                                            .count = trm_tensor_numel(idx),
                                            .index_dtype = idx->dtype,
                                            .rank = x->rank,
                                            .axis = axis,
                                            .limit = x->dims[axis]};
    trmi_cuda_steps(x->rank, x->dims, g->as.elements.steps);
    for (int i = 0; i < x->rank; i++)
        g->as.elements.dims[i] = trmi_cuda_div((uint64_t)idx->dims[i]);
    *kernel_out = &g->base.base.base;
    return TRM_OK;
}

trm_status trmi_cuda_gather_nd_prepare(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1];
    int64_t batch = trm_attr_int(desc->attrs, "batch_dims", 0), depth, want[2 * TRM_RANK_MAX];
    size_t batches, inner;
    struct gather *g;
    int n = 0;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (idx->rank < 1 || batch < 0 || batch >= idx->rank || batch >= x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "GatherND '%s': batch_dims %lld with data of rank %d, indices of rank %d",
                        desc->name, (long long)batch, x->rank, idx->rank);
    depth = idx->dims[idx->rank - 1];
    if (depth < 1 || depth > x->rank - batch)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "GatherND '%s': the indices' last dim is %lld, want 1 to %lld", desc->name,
                        (long long)depth, (long long)(x->rank - batch));
    for (int i = 0; i < idx->rank - 1; i++) {
        if (i < batch && idx->dims[i] != x->dims[i])
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "GatherND '%s': batch dim %d is %lld in the indices, %lld in the data",
                            desc->name, i, (long long)idx->dims[i], (long long)x->dims[i]);
        want[n++] = idx->dims[i];
    }
    for (int i = (int)(batch + depth); i < x->rank; i++)
        want[n++] = x->dims[i];
    TRM_CHECK(trmi_cuda_expect(desc, 0, n, want));
    TRM_CHECK(trmi_cuda_index_dtype(desc, 1));
    TRM_CHECK(trmi_cuda_move_checked_new(
        cuda, desc, trmi_cuda_move_known_good(desc, 1, (int)depth, &x->dims[batch]), sizeof(*g),
        &gather_nd_ops, &g));
    batches = trm_tensor_count(x, 0, (int)batch);
    inner = trm_tensor_count(x, (int)(batch + depth), x->rank);
    g->as.nd = (trmi_gather_nd){.tuples = trm_tensor_count(idx, 0, idx->rank - 1),
                                .inner_bytes = inner * trm_dtype_bytes(x->dtype),
                                .index_dtype = idx->dtype,
                                .depth = (int)depth,
                                .batch_slices =
                                    (int64_t)trm_tensor_count(x, (int)batch, (int)(batch + depth))};
    g->as.nd.per_batch = g->as.nd.tuples / (batches > 0 ? batches : 1);
    for (int i = 0; i < (int)depth; i++) {
        g->as.nd.dims[i] = x->dims[batch + i];
        g->as.nd.steps[i] = (int64_t)trm_tensor_count(x, (int)batch + i + 1, (int)(batch + depth));
    }
    *kernel_out = &g->base.base.base;
    return TRM_OK;
}
