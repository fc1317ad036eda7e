/* NonZero and Compress: their output's size depends on the data. Both count on the device, wait for
 * the total, ask for memory, then write. */
#include "kernels/cuda/select.h"

#include <string.h>

struct compact {
    trmi_cuda_kernel base;
    trm_dtype dtype;
    size_t elem, count; /* what is tested: x itself, or the conditions */
    int rank;
    int64_t dims[TRM_RANK_MAX];
    size_t offsets_at, positions_at; /* in the workspace, behind the counts */
    /* Compress: in [outer, axis_dim, inner] */
    int axis; /* -1: flattened */
    size_t outer, axis_dim, inner;
};

/* Fills the workspace's offsets and gives their total. */
static trm_status compact_total(const struct compact *c, const void *tested, trm_dtype dtype,
                                void *workspace, cudaStream_t stream, int64_t *total_out)
{
    unsigned char *memory = workspace;
    int64_t *offsets = (int64_t *)(void *)(memory + c->offsets_at);
    size_t tiles = (c->count + TRMI_COMPACT_TILE - 1) / TRMI_COMPACT_TILE;

    *total_out = 0;
    if (c->count == 0)
        return TRM_OK;
    TRM_CHECK(trmi_cuda_compact_count_launch(tested, dtype, c->count, workspace, offsets, stream));
    TRM_CHECK(TRMI_CUDA(cudaMemcpyAsync(total_out, offsets + tiles, sizeof(*total_out),
                                        cudaMemcpyDeviceToHost, stream)));
    return TRMI_CUDA(cudaStreamSynchronize(stream));
}

static trm_status nonzero_run(trm_kernel *k, trm_stream *st, const void *const *in,
                              const trm_output_sink *sink, void *workspace)
{
    const struct compact *c = (const struct compact *)k;
    cudaStream_t stream = trmi_cuda_stream(k, st);
    const int64_t *offsets = (int64_t *)(void *)((unsigned char *)workspace + c->offsets_at);
    int64_t dims[2] = {c->rank, 0};
    void *y;

    TRM_CHECK(compact_total(c, in[0], c->dtype, workspace, stream, &dims[1]));
    TRM_CHECK(sink->alloc(sink->ctx, 0, 2, dims, &y));
    if (dims[1] == 0)
        return TRM_OK;
    TRM_CHECK(trmi_cuda_compact_write_launch(in[0], c->dtype, c->count, c->rank, c->dims, offsets,
                                             (size_t)dims[1], y, stream));
    return TRMI_CUDA(cudaStreamSynchronize(stream));
}

static trm_status compress_run(trm_kernel *k, trm_stream *st, const void *const *in,
                               const trm_output_sink *sink, void *workspace)
{
    const struct compact *c = (const struct compact *)k;
    cudaStream_t stream = trmi_cuda_stream(k, st);
    unsigned char *memory = workspace;
    const int64_t *offsets = (int64_t *)(void *)(memory + c->offsets_at);
    int64_t *positions = (int64_t *)(void *)(memory + c->positions_at);
    int64_t dims[TRM_RANK_MAX], kept, length = (int64_t)c->count;
    void *y;

    TRM_CHECK(compact_total(c, in[1], TRM_DTYPE_BOOL, workspace, stream, &kept));
    memcpy(dims, c->dims, sizeof(dims));
    dims[c->axis < 0 ? 0 : c->axis] = kept;
    TRM_CHECK(sink->alloc(sink->ctx, 0, c->axis < 0 ? 1 : c->rank, dims, &y));
    if (kept == 0)
        return TRM_OK;
    TRM_CHECK(trmi_cuda_compact_write_launch(in[1], TRM_DTYPE_BOOL, c->count, 1, &length, offsets,
                                             (size_t)kept, positions, stream));
    TRM_CHECK(trmi_cuda_compact_gather_launch(in[0], positions, c->outer, c->axis_dim, c->inner,
                                              c->elem, (size_t)kept, y, stream));
    return TRMI_CUDA(cudaStreamSynchronize(stream));
}

static const trm_kernel_ops nonzero_ops = {
    .name = "cuda nonzero", .run_dynamic = nonzero_run, .destroy = trmi_cuda_kernel_free};
static const trm_kernel_ops compress_ops = {
    .name = "cuda compress", .run_dynamic = compress_run, .destroy = trmi_cuda_kernel_free};

static trm_status compact_new(trm_cuda *cuda, const trm_op_desc *desc, const trm_kernel_ops *ops,
                              size_t count, struct compact **c_out)
{
    const trm_tensor *x = &desc->inputs[0];
    size_t tiles = (count + TRMI_COMPACT_TILE - 1) / TRMI_COMPACT_TILE;
    struct compact *c;

    TRM_CHECK(trmi_cuda_kernel_new(cuda, sizeof(*c), ops, &c));
    c->dtype = x->dtype;
    c->elem = trm_dtype_bytes(x->dtype);
    c->count = count;
    c->rank = x->rank == 0 ? 1 : x->rank; /* a scalar is a vector of one */
    memcpy(c->dims, x->dims, sizeof(c->dims));
    if (x->rank == 0)
        c->dims[0] = 1;
    c->offsets_at = trm_align_up(tiles * sizeof(uint32_t), TRM_ALIGN);
    c->positions_at = c->offsets_at + (tiles + 1) * sizeof(int64_t);
    c->base.base.workspace_bytes = c->positions_at;
    c->base.base.uncapturable = true;
    *c_out = c;
    return TRM_OK;
}

trm_status trmi_cuda_nonzero(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    struct compact *c;

    TRM_CHECK(trmi_cuda_begin(desc));
    TRM_CHECK(compact_new(cuda, desc, &nonzero_ops, trm_tensor_numel(&desc->inputs[0]), &c));
    *kernel_out = &c->base.base;
    return TRM_OK;
}

trm_status trmi_cuda_compress(trm_cuda *cuda, trm_op_desc *desc, trm_kernel **kernel_out)
{
    const trm_tensor *x = &desc->inputs[0];
    struct compact *c;
    size_t axis_dim, conditions;
    int axis = -1;

    TRM_CHECK(trmi_cuda_begin(desc));
    if (trm_attr_find(desc->attrs, "axis") != NULL)
        TRM_CHECK(trmi_cuda_axis(desc, trm_attr_int(desc->attrs, "axis", 0), x->rank, &axis));
    if (desc->inputs[1].dtype != TRM_DTYPE_BOOL || desc->inputs[1].rank != 1)
        return trm_fail(TRM_ERR_INVALID_ARG, "Compress '%s': the condition must be a bool vector",
                        desc->name);
    axis_dim = axis < 0 ? trm_tensor_numel(x) : (size_t)x->dims[axis];
    conditions = (size_t)desc->inputs[1].dims[0]; /* may be shorter than the axis */
    if (conditions > axis_dim)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "Compress '%s': %zu conditions for %zu entries, want at most as many",
                        desc->name, conditions, axis_dim);
    TRM_CHECK(compact_new(cuda, desc, &compress_ops, conditions, &c));
    c->axis = axis;
    c->outer = axis < 0 ? 1 : trm_tensor_count(x, 0, axis);
    c->axis_dim = axis_dim;
    c->inner = axis < 0 ? 1 : trm_tensor_count(x, axis + 1, x->rank);
    c->base.base.workspace_bytes += conditions * sizeof(int64_t);
    *kernel_out = &c->base.base;
    return TRM_OK;
}
