/* Gather, GatherElements, GatherND. Indices are checked and made non-negative in the workspace
 * before anything is read, so the loops are free of checks. */
#include "kernels/cpu/data.h"

#include <string.h>

struct gather {
    trm_kernel base;
    trmi_where where;
    trm_dtype index_dtype;
    size_t elem;
    size_t outer, indices, inner_bytes; /* Gather: out [outer, indices, inner] */
    int64_t limit;                      /* dim that is indexed */
    /* GatherElements */
    int rank, axis;
    int64_t dims[TRM_RANK_MAX]; /* of the indices */
    ptrdiff_t steps[TRM_RANK_MAX];
    /* GatherND: `indices` tuples of `depth` over dims nd_dims with steps in bytes */
    int depth;
    int64_t nd_dims[TRM_RANK_MAX];
    size_t nd_steps[TRM_RANK_MAX];
    size_t batches, batch_bytes;
};

struct gather_job {
    const struct gather *g;
    const unsigned char *in;
    unsigned char *out;
    const int64_t *index;
};

static void gather_rows(void *ctx, size_t begin, size_t end)
{
    const struct gather_job *job = (const struct gather_job *)ctx;
    const struct gather *g = job->g;
    size_t n = g->inner_bytes, o = begin / g->indices, k = begin % g->indices;
    unsigned char *out = job->out + begin * n;

    for (size_t i = begin; i < end; i++, out += n) {
        const unsigned char *in = job->in + (o * (size_t)g->limit + (size_t)job->index[k]) * n;

        if (n == 4)
            memcpy(out, in, 4);
        else if (n == 8)
            memcpy(out, in, 8);
        else
            memcpy(out, in, n);
        if (++k == g->indices) {
            k = 0;
            o++;
        }
    }
}

static trm_status gather_run(trm_kernel *k, trm_stream *s, const void *const *in, void *const *out,
                             void *workspace)
{
    struct gather *g = (struct gather *)k;
    struct gather_job job = {.g = g, .in = in[0], .out = out[0], .index = workspace};

    (void)s;
    TRM_CHECK(trmi_index_load(&g->where, in[1], g->index_dtype, g->indices, g->limit, workspace));
    if (g->inner_bytes > 0)
        trm_team_for(g->outer * g->indices, 32768 / (g->inner_bytes + 8) + 1, gather_rows, &job);
    return TRM_OK;
}

/* Rows of the indices' last dim. */
static void gather_elements_rows(void *ctx, size_t begin, size_t end)
{
    const struct gather_job *job = (const struct gather_job *)ctx;
    const struct gather *g = job->g;
    int last = g->rank - 1;
    size_t n = (size_t)g->dims[last];

    for (size_t row = begin; row < end; row++) {
        const int64_t *index = job->index + row * n;
        unsigned char *out = job->out + row * n * g->elem;
        size_t rest = row;
        ptrdiff_t base = 0, along = last == g->axis ? 0 : g->steps[last];

        for (int d = last - 1; d >= 0; d--) {
            if (d != g->axis)
                base += (ptrdiff_t)(rest % (size_t)g->dims[d]) * g->steps[d];
            rest /= (size_t)g->dims[d];
        }
        for (size_t i = 0; i < n; i++) {
            ptrdiff_t at = base + (ptrdiff_t)i * along + (ptrdiff_t)index[i] * g->steps[g->axis];

            memcpy(out + i * g->elem, job->in + at * (ptrdiff_t)g->elem, g->elem);
        }
    }
}

static trm_status gather_elements_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                      void *const *out, void *workspace)
{
    struct gather *g = (struct gather *)k;
    struct gather_job job = {.g = g, .in = in[0], .out = out[0], .index = workspace};

    (void)s;
    TRM_CHECK(trmi_index_load(&g->where, in[1], g->index_dtype, g->indices, g->limit, workspace));
    if (g->indices > 0)
        trm_team_for(g->outer, 16384 / (size_t)g->dims[g->rank - 1] + 1, gather_elements_rows,
                     &job);
    return TRM_OK;
}

/* The workspace holds byte offsets of the gathered slices. */
static void gather_slices(void *ctx, size_t begin, size_t end)
{
    const struct gather_job *job = (const struct gather_job *)ctx;
    size_t n = job->g->inner_bytes;

    for (size_t i = begin; i < end; i++)
        memcpy(job->out + i * n, job->in + job->index[i], n);
}

static trm_status gather_nd_run(trm_kernel *k, trm_stream *s, const void *const *in,
                                void *const *out, void *workspace)
{
    struct gather *g = (struct gather *)k;
    struct gather_job job = {.g = g, .in = in[0], .out = out[0], .index = workspace};
    int64_t *offsets = workspace;
    size_t depth = (size_t)g->depth, per_batch = g->indices / (g->batches > 0 ? g->batches : 1);
    const unsigned char *tuple = in[1];
    size_t index_bytes = trm_dtype_bytes(g->index_dtype);

    (void)s;
    for (size_t i = 0; i < g->indices; i++) {
        size_t at = i / per_batch * g->batch_bytes;

        for (size_t d = 0; d < depth; d++) {
            int64_t v;

            TRM_CHECK(trmi_index_load(&g->where, tuple + (i * depth + d) * index_bytes,
                                      g->index_dtype, 1, g->nd_dims[d], &v));
            at += (size_t)v * g->nd_steps[d];
        }
        offsets[i] = (int64_t)at;
    }
    if (g->inner_bytes > 0)
        trm_team_for(g->indices, 32768 / (g->inner_bytes + 8) + 1, gather_slices, &job);
    return TRM_OK;
}

static const trm_kernel_ops gather_ops = {
    .name = "gather", .run = gather_run, .destroy = trmi_kernel_free};
static const trm_kernel_ops gather_elements_ops = {
    .name = "gather elements", .run = gather_elements_run, .destroy = trmi_kernel_free};
static const trm_kernel_ops gather_nd_ops = {
    .name = "gather nd", .run = gather_nd_run, .destroy = trmi_kernel_free};

static trm_status gather_new(trm_op_desc *desc, const trm_kernel_ops *ops, struct gather **g_out)
{
    struct gather *g;
    size_t n;

    TRM_CHECK(trmi_data_plain(desc));
    TRM_CHECK(trmi_index_dtype(desc, 1));
    TRM_CHECK(trm_tensor_elems(&desc->inputs[1], &n));
    TRM_CHECK(trmi_kernel_new(sizeof(*g), ops, &g));
    trmi_where_set(&g->where, desc);
    g->index_dtype = desc->inputs[1].dtype;
    g->elem = trm_dtype_bytes(desc->inputs[0].dtype);
    g->indices = n;
    g->base.workspace_bytes = n * sizeof(int64_t);
    *g_out = g;
    return TRM_OK;
}

trm_status trmi_cpu_gather(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1];
    int64_t want[2 * TRM_RANK_MAX];
    struct gather *g;
    int axis, n = 0;

    (void)cpu;
    TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    for (int i = 0; i < x->rank; i++) {
        if (i != axis)
            want[n++] = x->dims[i];
        for (int j = 0; j < idx->rank && i == axis; j++)
            want[n++] = idx->dims[j];
    }
    TRM_CHECK(trmi_data_expect(desc, 0, n, want));
    TRM_CHECK(gather_new(desc, &gather_ops, &g));
    g->outer = trm_tensor_count(x, 0, axis);
    g->limit = x->dims[axis];
    g->inner_bytes = trm_tensor_count(x, axis + 1, x->rank) * g->elem;
    *kernel_out = &g->base;
    return TRM_OK;
}

trm_status trmi_cpu_gather_elements(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1];
    struct gather *g;
    int axis;

    (void)cpu;
    TRM_CHECK(trmi_data_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    if (idx->rank != x->rank)
        return trm_fail(TRM_ERR_INVALID_ARG, "GatherElements '%s': indices of rank %d, data %d",
                        desc->name, idx->rank, x->rank);
    for (int i = 0; i < x->rank; i++)
        if (i != axis && idx->dims[i] > x->dims[i])
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "GatherElements '%s': dim %d of the indices is %lld, of the data %lld",
                            desc->name, i, (long long)idx->dims[i], (long long)x->dims[i]);
    TRM_CHECK(trmi_data_expect(desc, 0, idx->rank, idx->dims));
    TRM_CHECK(gather_new(desc, &gather_elements_ops, &g));
    g->rank = x->rank;
    g->axis = axis;
    g->limit = x->dims[axis];
    memcpy(g->dims, idx->dims, sizeof(g->dims));
    trmi_steps(x->rank, x->dims, g->steps);
    g->outer = trm_tensor_count(idx, 0, idx->rank - 1);
    *kernel_out = &g->base;
    return TRM_OK;
}

trm_status trmi_cpu_gather_nd(trm_cpu *cpu, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0], *idx = &desc->inputs[1];
    int64_t batch = trm_attr_int(desc->attrs, "batch_dims", 0), depth, want[2 * TRM_RANK_MAX];
    struct gather *g;
    int n = 0;

    (void)cpu;
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
    TRM_CHECK(trmi_data_expect(desc, 0, n, want));
    TRM_CHECK(gather_new(desc, &gather_nd_ops, &g));
    g->depth = (int)depth;
    g->indices = trm_tensor_count(idx, 0, idx->rank - 1);
    g->inner_bytes = trm_tensor_count(x, (int)(batch + depth), x->rank) * g->elem;
    g->batches = trm_tensor_count(x, 0, (int)batch);
    g->batch_bytes = trm_tensor_count(x, (int)batch, x->rank) * g->elem;
    for (int i = 0; i < (int)depth; i++) {
        g->nd_dims[i] = x->dims[batch + i];
        g->nd_steps[i] = trm_tensor_count(x, (int)batch + i + 1, x->rank) * g->elem;
    }
    *kernel_out = &g->base;
    return TRM_OK;
}
