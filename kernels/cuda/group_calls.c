/* Collectives of a device group.
 *
 * NCCL adds 16-bit floats in 16 bits, rounding after each rank. Here such sums are made in fp32:
 * short ones from everybody's whole, long ones in two steps, from the parts that all send to the
 * rank that adds them. Both cost what NCCL's own would, or a little more. */
#include "kernels/cuda/group_impl.h"

#if TRMI_HAVE_NCCL

#define RANKS_MAX TRM_DEVICE_GROUP_RANKS_MAX

static struct trmi_group *self(trm_device_group *g)
{
    return (struct trmi_group *)g;
}

static cudaStream_t stream_of(const struct trmi_group *g, const trm_stream *s)
{
    return s != NULL ? s->stream : g->cuda->stream;
}

/* NCCL's type; ncclNumTypes: there is none. */
static ncclDataType_t type_of(trm_dtype dtype)
{
    switch (dtype) {
    case TRM_DTYPE_F32:
        return ncclFloat32;
    case TRM_DTYPE_F64:
        return ncclFloat64;
    case TRM_DTYPE_I32:
        return ncclInt32;
    case TRM_DTYPE_I64:
        return ncclInt64;
    default:
        return ncclNumTypes;
    }
}

static bool is_half(trm_dtype dtype)
{
    return dtype == TRM_DTYPE_F16 || dtype == TRM_DTYPE_BF16;
}

static trm_status check_dtype(trm_dtype dtype)
{
    if (is_half(dtype) || type_of(dtype) != ncclNumTypes)
        return TRM_OK;
    return trm_fail(TRM_ERR_UNSUPPORTED, "a sum of %s between devices", trm_dtype_name(dtype));
}

static trm_status copy(cudaStream_t stream, void *to, const void *from, size_t bytes)
{
    if (bytes == 0 || to == from)
        return TRM_OK;
    return TRMI_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
}

/* Collects the results of calls between GroupStart and GroupEnd: the first failure stays. */
static void note(ncclResult_t *first, ncclResult_t r)
{
    if (*first == ncclSuccess && r != ncclInProgress)
        *first = r;
}

static trm_status end_group(struct trmi_group *g, ncclResult_t first, const char *what)
{
    ncclResult_t r = g->nccl->GroupEnd();

    return trmi_cuda_nccl_settle(g, first != ncclSuccess ? first : r, what);
}

/* A block for each rank, and one from each. */
struct blocks {
    const unsigned char *from;
    unsigned char *to;
    size_t from_at[RANKS_MAX], from_bytes[RANKS_MAX];
    size_t to_at[RANKS_MAX], to_bytes[RANKS_MAX];
};

/* Every rank's block to every other. `own`: this rank's own block is copied, too. */
static trm_status exchange(struct trmi_group *g, cudaStream_t stream, const struct blocks *b,
                           bool own, const char *what)
{
    const trmi_nccl *n = g->nccl;
    int rank = g->base.rank, size = g->base.size;
    ncclResult_t first = ncclSuccess;

    if (own)
        TRM_CHECK(
            copy(stream, b->to + b->to_at[rank], b->from + b->from_at[rank], b->from_bytes[rank]));
    if (size == 1)
        return TRM_OK;
    note(&first, n->GroupStart());
    for (int i = 1; i < size; i++) {
        int next = (rank + i) % size, last = (rank + size - i) % size;

        if (b->from_bytes[next] > 0)
            note(&first, n->Send(b->from + b->from_at[next], b->from_bytes[next], ncclInt8, next,
                                 g->comm, stream));
        if (b->to_bytes[last] > 0)
            note(&first, n->Recv(b->to + b->to_at[last], b->to_bytes[last], ncclInt8, last, g->comm,
                                 stream));
    }
    return end_group(g, first, what);
}

trm_status trmi_cuda_group_alltoall(trm_device_group *base, trm_stream *s, const void *in,
                                    const size_t *send, void *out, const size_t *receive)
{
    struct blocks b = {.from = in, .to = out};
    size_t from_at = 0, to_at = 0;

    for (int r = 0; r < base->size; r++) {
        b.from_at[r] = from_at;
        b.to_at[r] = to_at;
        from_at += b.from_bytes[r] = send[r];
        to_at += b.to_bytes[r] = receive[r];
    }
    return exchange(self(base), stream_of(self(base), s), &b, true, "an all-to-all");
}

trm_status trmi_cuda_group_allgather(trm_device_group *base, trm_stream *s, const void *in,
                                     void *out, const size_t *bytes)
{
    struct trmi_group *g = self(base);
    cudaStream_t stream = stream_of(g, s);
    struct blocks b = {.from = in, .to = out};
    bool equal = true;
    size_t at = 0;

    for (int r = 0; r < base->size; r++) {
        b.from_bytes[r] = bytes[base->rank];
        b.to_bytes[r] = bytes[r];
        b.to_at[r] = at;
        at += bytes[r];
        equal = equal && bytes[r] == bytes[0];
    }
    if (!equal)
        return exchange(g, stream, &b, true, "an all-gather");
    if (at == 0)
        return TRM_OK;
    return trmi_cuda_nccl_settle(
        g, g->nccl->AllGather(in, out, bytes[0], ncclInt8, g->comm, stream), "an all-gather");
}

/* ---- sums of 16-bit floats ---- */

/* What other ranks have of this rank's part comes into the buffer, a slice of all parts at a time,
 * and is added there. */
static trm_status scatter_half(struct trmi_group *g, cudaStream_t stream, const void *in, void *out,
                               const size_t *elems, trm_dtype dtype)
{
    int rank = g->base.rank, size = g->base.size;
    size_t slice = TRMI_GROUP_BUFFER / 2 / (size_t)size / 8 * 8, most = 0;
    struct blocks b = {.from = in, .to = g->buffer};

    for (int r = 0; r < size; r++)
        most = elems[r] > most ? elems[r] : most;
    for (size_t begin = 0; begin < most; begin += slice) {
        size_t part_at = 0, mine = 0, mine_at = 0;

        for (int r = 0; r < size; r++) {
            size_t left = elems[r] > begin ? elems[r] - begin : 0, n = left < slice ? left : slice;

            b.from_at[r] = (part_at + begin) * 2;
            b.from_bytes[r] = n * 2;
            if (r == rank) {
                mine = n;
                mine_at = part_at;
            }
            part_at += elems[r];
        }
        for (int r = 0; r < size; r++) {
            b.to_at[r] = (size_t)r * slice * 2;
            b.to_bytes[r] = mine * 2;
        }
        TRM_CHECK(exchange(g, stream, &b, false, "a reduce-scatter"));
        TRM_CHECK(trmi_cuda_group_parts(g->cuda, stream, (unsigned char *)out + begin * 2,
                                        (const unsigned char *)in + (mine_at + begin) * 2,
                                        g->buffer, slice, mine, dtype, rank, size));
    }
    return TRM_OK;
}

static trm_status allreduce_half(struct trmi_group *g, trm_stream *s, const void *in, void *out,
                                 size_t elems, trm_dtype dtype)
{
    cudaStream_t stream = stream_of(g, s);
    size_t size = (size_t)g->base.size, parts[RANKS_MAX], bytes[RANKS_MAX], at = 0, mine_at = 0;
    size_t each = ((elems + size - 1) / size + 7) / 8 * 8;
    unsigned char *mine;

    if (elems * 2 * size <= TRMI_GROUP_WHOLE) {
        TRM_CHECK(trmi_cuda_nccl_settle(
            g, g->nccl->AllGather(in, g->buffer, elems * 2, ncclInt8, g->comm, stream),
            "an all-reduce"));
        return trmi_cuda_group_parts(g->cuda, stream, out,
                                     g->buffer + (size_t)g->base.rank * elems * 2, g->buffer, elems,
                                     elems, dtype, g->base.rank, g->base.size);
    }
    for (size_t r = 0; r < size; r++) {
        parts[r] = elems - at < each ? elems - at : each;
        bytes[r] = parts[r] * 2;
        if ((int)r == g->base.rank)
            mine_at = at;
        at += parts[r];
    }
    mine = (unsigned char *)out + mine_at * 2;
    TRM_CHECK(scatter_half(g, stream, in, mine, parts, dtype));
    return trmi_cuda_group_allgather(&g->base, s, mine, out, bytes);
}

/* ---- sums ---- */

trm_status trmi_cuda_group_allreduce(trm_device_group *base, trm_stream *s, const void *in,
                                     void *out, size_t elems, trm_dtype dtype)
{
    struct trmi_group *g = self(base);
    cudaStream_t stream = stream_of(g, s);
    size_t bytes = elems * trm_dtype_bytes(dtype);

    TRM_CHECK(check_dtype(dtype));
    if (elems == 0)
        return TRM_OK;
    if (base->size == 1)
        return copy(stream, out, in, bytes);
    if (g->peers != NULL && g->peers->met && bytes <= TRMI_GROUP_SUM_BYTES &&
        (is_half(dtype) || dtype == TRM_DTYPE_F32))
        return trmi_cuda_group_sum(g->cuda, stream, out, in, elems, dtype, &g->peers->sum);
    if (is_half(dtype))
        return allreduce_half(g, s, in, out, elems, dtype);
    return trmi_cuda_nccl_settle(
        g, g->nccl->AllReduce(in, out, elems, type_of(dtype), ncclSum, g->comm, stream),
        "an all-reduce");
}

/* Parts of different sizes: each is reduced to its rank, all at once. */
static trm_status reduce_parts(struct trmi_group *g, cudaStream_t stream, const void *in, void *out,
                               const size_t *elems, trm_dtype dtype)
{
    size_t each = trm_dtype_bytes(dtype), at = 0;
    ncclResult_t first = ncclSuccess;

    note(&first, g->nccl->GroupStart());
    for (int r = 0; r < g->base.size; r++) {
        if (elems[r] > 0)
            note(&first, g->nccl->Reduce((const unsigned char *)in + at * each, out, elems[r],
                                         type_of(dtype), ncclSum, r, g->comm, stream));
        at += elems[r];
    }
    return end_group(g, first, "a reduce-scatter");
}

trm_status trmi_cuda_group_reduce_scatter(trm_device_group *base, trm_stream *s, const void *in,
                                          void *out, const size_t *elems, trm_dtype dtype)
{
    struct trmi_group *g = self(base);
    cudaStream_t stream = stream_of(g, s);
    bool equal = true;

    TRM_CHECK(check_dtype(dtype));
    for (int r = 1; r < base->size; r++)
        equal = equal && elems[r] == elems[0];
    if (equal && elems[0] == 0)
        return TRM_OK;
    if (base->size == 1)
        return copy(stream, out, in, elems[0] * trm_dtype_bytes(dtype));
    if (is_half(dtype))
        return scatter_half(g, stream, in, out, elems, dtype);
    if (!equal)
        return reduce_parts(g, stream, in, out, elems, dtype);
    return trmi_cuda_nccl_settle(
        g, g->nccl->ReduceScatter(in, out, elems[0], type_of(dtype), ncclSum, g->comm, stream),
        "a reduce-scatter");
}

#endif
