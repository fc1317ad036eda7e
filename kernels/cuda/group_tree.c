/* Sums by the summation tree between devices: the order of additions, and the ways parts come
 * together. */
#include "kernels/cuda/group_tree.h"

#include "kernels/cuda/group_impl.h"

#include <string.h>

trm_status trmi_cuda_group_tree_plan(int leaves, const int *counts, int size,
                                     trmi_group_tree *tree_out, int *parts_out)
{
    unsigned char all[TRM_TREE_LEAVES_MAX], inside[TRM_TREE_LEAVES_MAX];
    trm_tree_part nodes[TRM_TREE_PARTS_MAX];
    trmi_group_tree t = {0};
    int first = 0, top = 0;

    if (leaves < 1 || leaves > TRM_TREE_LEAVES_MAX || size < 1 || size > UINT8_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "a sum of %d leaves over %d ranks", leaves, size);
    trm_tree_merges(0, leaves, leaves, all);
    for (int r = 0; r < size; r++) {
        if (counts[r] < 0 || counts[r] > leaves - first)
            return trm_fail(TRM_ERR_INVALID_ARG, "rank %d holds %d leaves from %d on of %d", r,
                            counts[r], first, leaves);
        parts_out[r] = trm_tree_parts(first, counts[r], leaves, nodes);
        trm_tree_merges(first, counts[r], leaves, inside);
        t.most = parts_out[r] > t.most ? parts_out[r] : t.most;
        for (int p = 0; p < parts_out[r]; p++, t.count++) {
            t.rank[t.count] = (unsigned char)r;
            t.part[t.count] = (unsigned char)p;
            /* nodes that end where the part does, but for those that the rank has summed */
            t.merges[t.count] =
                (unsigned char)(all[nodes[p].hi - 1] - inside[nodes[p].hi - 1 - first]);
            top++;
            t.depth = top > t.depth ? top : t.depth;
            top -= t.merges[t.count];
        }
        first += counts[r];
    }
    if (first != leaves)
        return trm_fail(TRM_ERR_INVALID_ARG, "the ranks hold %d of %d leaves", first, leaves);
    TRM_ASSERT(top == 1 && t.depth <= TRM_TREE_DEPTH_MAX);
    *tree_out = t;
    return TRM_OK;
}

#if TRMI_HAVE_NCCL

/* Launches in peers' memory that a sum may take; what is longer is quicker in two steps. */
#define STEPS_MAX 4

static cudaStream_t stream_of(const struct trmi_group *g, const trm_stream *s)
{
    return s != NULL ? s->stream : g->cuda->stream;
}

/* A sum under way: `parts` of each rank, this rank's at `in`, `elems` apart. */
typedef struct tree_sum {
    struct trmi_group *g;
    trm_stream *s;
    cudaStream_t stream;
    const float *in;
    float *out;
    size_t elems;
    trmi_group_tree tree;
    int parts[TRM_DEVICE_GROUP_RANKS_MAX];
} tree_sum;

static trm_status in_peers_memory(const tree_sum *t)
{
    size_t most = trmi_cuda_group_tree_max(&t->tree);

    for (size_t at = 0; at < t->elems; at += most) {
        size_t n = t->elems - at < most ? t->elems - at : most;

        TRM_CHECK(trmi_cuda_group_tree_sum(t->g->cuda, t->stream, t->out + at, t->in + at, t->elems,
                                           n, &t->tree, &t->g->peers->sum));
    }
    return TRM_OK;
}

/* Adds parts of `n` elements from `at` on: this rank's where they are, the others' from the buffer,
 * where ranks follow one another; `own_too`: there is room for this one's among them. */
static trm_status add_here(const tree_sum *t, size_t at, size_t n, bool own_too)
{
    const float *buffer = (const float *)(const void *)t->g->buffer;
    size_t begins[TRM_DEVICE_GROUP_RANKS_MAX] = {0}, next = 0;
    trmi_group_tree_parts parts;

    for (int r = 0; r < t->g->base.size; r++) {
        begins[r] = next;
        if (r != t->g->base.rank || own_too)
            next += (size_t)t->parts[r] * n;
    }
    for (int i = 0; i < t->tree.count; i++) {
        int r = t->tree.rank[i];
        size_t p = t->tree.part[i];

        parts.at[i] = r == t->g->base.rank ? t->in + p * t->elems + at : buffer + begins[r] + p * n;
    }
    return trmi_cuda_group_tree_local(t->g->cuda, t->stream, t->out + at, &parts, n, &t->tree);
}

/* Everybody's parts come into the buffer. */
static trm_status from_all(const tree_sum *t)
{
    size_t bytes[TRM_DEVICE_GROUP_RANKS_MAX];

    for (int r = 0; r < t->g->base.size; r++)
        bytes[r] = (size_t)t->parts[r] * t->elems * sizeof(float);
    TRM_CHECK(trmi_cuda_group_allgather(&t->g->base, t->s, t->in, t->g->buffer, bytes));
    return add_here(t, 0, t->elems, true);
}

static void note(ncclResult_t *first, ncclResult_t r)
{
    if (*first == ncclSuccess && r != ncclInProgress)
        *first = r;
}

/* The other ranks' parts of this rank's slice come into the buffer; slices: [begin[r], begin[r] +
 * count[r]). */
static trm_status exchange_slices(const tree_sum *t, const size_t *begin, const size_t *count)
{
    const trmi_nccl *n = t->g->nccl;
    int rank = t->g->base.rank, size = t->g->base.size;
    size_t mine = count[rank], came[TRM_DEVICE_GROUP_RANKS_MAX], next = 0;
    ncclResult_t first = ncclSuccess, last;
    float *buffer = (float *)(void *)t->g->buffer;

    for (int r = 0; r < size; r++) {
        came[r] = next;
        next += r == rank ? 0 : (size_t)t->parts[r] * mine;
    }
    note(&first, n->GroupStart());
    for (int i = 1; i < size; i++) {
        int to = (rank + i) % size, from = (rank + size - i) % size;

        for (int p = 0; p < t->parts[rank] && count[to] > 0; p++)
            note(&first, n->Send(t->in + (size_t)p * t->elems + begin[to], count[to], ncclFloat32,
                                 to, t->g->comm, t->stream));
        if (t->parts[from] > 0 && mine > 0)
            for (int p = 0; p < t->parts[from]; p++)
                note(&first, n->Recv(buffer + came[from] + (size_t)p * mine, mine, ncclFloat32,
                                     from, t->g->comm, t->stream));
    }
    last = n->GroupEnd();
    return trmi_cuda_nccl_settle(t->g, first != ncclSuccess ? first : last, "a sum by the tree");
}

/* Windows of the elements, each in as many slices as there are ranks, so that the others' parts of
 * a slice fit into the buffer. */
static trm_status in_two_steps(const tree_sum *t)
{
    size_t size = (size_t)t->g->base.size, rank = (size_t)t->g->base.rank;
    size_t parts = (size_t)t->tree.count; /* of all */
    size_t most = TRMI_GROUP_BUFFER / sizeof(float) / parts / 4 * 4;

    for (size_t at = 0; at < t->elems;) {
        size_t left = t->elems - at, each = ((left + size - 1) / size + 3) / 4 * 4, next = at;
        size_t begin[TRM_DEVICE_GROUP_RANKS_MAX], count[TRM_DEVICE_GROUP_RANKS_MAX] = {0};
        size_t bytes[TRM_DEVICE_GROUP_RANKS_MAX];

        each = each < most ? each : most;
        for (size_t r = 0; r < size; r++) {
            size_t rest = t->elems - next;

            begin[r] = next;
            count[r] = rest < each ? rest : each;
            bytes[r] = count[r] * sizeof(float);
            next += count[r];
        }
        TRM_CHECK(exchange_slices(t, begin, count));
        TRM_CHECK(add_here(t, begin[rank], count[rank], false));
        TRM_CHECK(
            trmi_cuda_group_allgather(&t->g->base, t->s, t->out + begin[rank], t->out + at, bytes));
        at = next;
    }
    return TRM_OK;
}

trm_status trmi_cuda_group_reduce_tree(trm_device_group *base, trm_stream *s, const void *in,
                                       void *out, size_t elems, int leaves, const int *counts)
{
    tree_sum t = {.g = (struct trmi_group *)base, .s = s, .in = in, .out = out, .elems = elems};
    size_t bytes;

    TRM_CHECK(trmi_cuda_group_tree_plan(leaves, counts, base->size, &t.tree, t.parts));
    if (elems == 0)
        return TRM_OK;
    t.stream = stream_of(t.g, s);
    if (base->size == 1)
        return in == out ? TRM_OK
                         : TRMI_CUDA(cudaMemcpyAsync(out, in, elems * sizeof(float),
                                                     cudaMemcpyDeviceToDevice, t.stream));
    if (t.g->peers != NULL && t.g->peers->met &&
        elems <= STEPS_MAX * trmi_cuda_group_tree_max(&t.tree))
        return in_peers_memory(&t);
    if (!trm_mul_ok((size_t)t.tree.count * sizeof(float), elems, &bytes))
        return trm_fail(TRM_ERR_INVALID_ARG, "a sum of %d parts of %zu elements", t.tree.count,
                        elems);
    return bytes <= TRMI_GROUP_WHOLE ? from_all(&t) : in_two_steps(&t);
}

#endif
