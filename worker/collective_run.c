/* Collectives running: copies between this rank's memory and its peers'. */
#include "worker/collective_impl.h"

#include <string.h>

struct copy {
    const struct collective *k;
    const unsigned char *from;
    unsigned char *to;
    int rank;
};

/* Rows [begin, end) of outer: rank's part into the whole. */
static void join_rows(void *ctx, size_t begin, size_t end)
{
    const struct copy *c = ctx;
    const struct trmi_split *s = &c->k->split;
    size_t inner = c->k->inner, ranks = (size_t)c->k->ranks;

    for (size_t o = begin; o < end; o++)
        for (size_t t = 0; t < (size_t)s->stretches; t++) {
            size_t i = t * ranks + (size_t)c->rank;

            memcpy(c->to + (o * s->whole + s->whole_at[i]) * inner,
                   c->from + (o * s->part[c->rank] + s->part_at[i]) * inner, s->size[i] * inner);
        }
}

/* The other way: rank's part out of the whole. */
static void cut_rows(void *ctx, size_t begin, size_t end)
{
    const struct copy *c = ctx;
    const struct trmi_split *s = &c->k->split;
    size_t inner = c->k->inner, ranks = (size_t)c->k->ranks;

    for (size_t o = begin; o < end; o++)
        for (size_t t = 0; t < (size_t)s->stretches; t++) {
            size_t i = t * ranks + (size_t)c->rank;

            memcpy(c->to + (o * s->part[c->rank] + s->part_at[i]) * inner,
                   c->from + (o * s->whole + s->whole_at[i]) * inner, s->size[i] * inner);
        }
}

static void copy_rows(const struct collective *k, trm_team_fn fn, int rank, const void *from,
                      void *to)
{
    struct copy c = {.k = k, .from = from, .to = to, .rank = rank};
    size_t row = k->split.part[rank] * k->inner;

    trm_team_for(k->outer, row >= 65536 ? 1 : 65536 / (row + 1) + 1, fn, &c);
}

/* ---- kernels ---- */

static trm_status run_all_reduce(trm_kernel *base, trm_stream *s, const void *const *in,
                                 void *const *out, void *workspace)
{
    struct collective *k = (struct collective *)base;

    (void)s;
    (void)workspace;
    return trm_comm_allreduce(k->comm, in[0], out[0], k->elems, k->dtype, TRM_REDUCE_SUM);
}

static trm_status run_all_gather(trm_kernel *base, trm_stream *s, const void *const *in,
                                 void *const *out, void *workspace)
{
    struct collective *k = (struct collective *)base;
    const void *peers[TRM_COMM_RANKS_MAX];

    (void)s;
    if (k->contiguous)
        return trm_comm_allgather(k->comm, in[0], out[0], k->bytes);
    if (k->largest <= trm_comm_slot_bytes(k->comm)) {
        TRM_CHECK(trm_comm_exchange(k->comm, in[0], k->bytes, peers));
    } else {
        size_t at = 0;

        TRM_CHECK(trm_comm_allgather(k->comm, in[0], workspace, k->bytes));
        for (int r = 0; r < k->ranks; at += k->bytes[r++])
            peers[r] = (const unsigned char *)workspace + at;
    }
    for (int r = 0; r < k->ranks; r++)
        copy_rows(k, join_rows, r, peers[r], out[0]);
    return TRM_OK;
}

static trm_status run_reduce_scatter(trm_kernel *base, trm_stream *s, const void *const *in,
                                     void *const *out, void *workspace)
{
    struct collective *k = (struct collective *)base;
    void *packed = NULL;
    size_t at = 0;

    (void)s;
    if (k->contiguous)
        return trm_comm_reduce_scatter(k->comm, in[0], out[0], k->part_elems, k->dtype);
    TRM_CHECK(trm_comm_slot_get(k->comm, k->elems * trm_dtype_bytes(k->dtype), &packed));
    if (packed == NULL)
        packed = workspace;
    for (int r = 0; r < k->ranks; at += k->bytes[r++])
        copy_rows(k, cut_rows, r, in[0], (unsigned char *)packed + at);
    return trm_comm_reduce_scatter(k->comm, packed, out[0], k->part_elems, k->dtype);
}

static trm_status run_reduce_tree(trm_kernel *base, trm_stream *s, const void *const *in,
                                  void *const *out, void *workspace)
{
    struct collective *k = (struct collective *)base;

    (void)s;
    (void)workspace;
    return trm_comm_reduce_nodes(k->comm, in[0], k->most, k->first, k->count, k->leaves, k->elems,
                                 out[0]);
}

static trm_status run_shard(trm_kernel *base, trm_stream *s, const void *const *in,
                            void *const *out, void *workspace)
{
    struct collective *k = (struct collective *)base;

    (void)s;
    (void)workspace;
    copy_rows(k, cut_rows, k->rank, in[0], out[0]);
    return TRM_OK;
}

/* A block [outer, low, middle, high, inner] between two tensors that differ in the extents of low
 * and high: from (l, h) on in each. */
struct block {
    size_t outer, low, middle, high, inner;
};

static void copy_block(const struct block *b, const unsigned char *from, size_t from_low,
                       size_t from_high, size_t from_l, size_t from_h, unsigned char *to,
                       size_t to_low, size_t to_high, size_t to_l, size_t to_h)
{
    for (size_t o = 0; o < b->outer; o++)
        for (size_t l = 0; l < b->low; l++)
            for (size_t m = 0; m < b->middle; m++)
                memcpy(to + (((o * to_low + to_l + l) * b->middle + m) * to_high + to_h) * b->inner,
                       from + (((o * from_low + from_l + l) * b->middle + m) * from_high + from_h) *
                                  b->inner,
                       b->high * b->inner);
}

/* What rank `from_rank` sends to rank `to_rank`: its part of the axis, theirs of axis_to. In the
 * sender's tensor the axis is a part and axis_to is whole; in the receiver's the other way round;
 * `loose`: that end is a packed block of its own, both are parts. */
static void move_block(const struct collective *k, int from_rank, int to_rank, const void *from,
                       bool from_loose, void *to, bool to_loose)
{
    const struct trmi_split *a = &k->split, *b = &k->split_to;
    size_t ranks = (size_t)k->ranks;
    size_t from_a = a->part[from_rank], from_b = from_loose ? b->part[to_rank] : b->whole;
    size_t to_a = to_loose ? a->part[from_rank] : a->whole, to_b = b->part[to_rank];

    for (size_t s = 0; s < (size_t)a->stretches; s++) {
        for (size_t t = 0; t < (size_t)b->stretches; t++) {
            size_t i = s * ranks + (size_t)from_rank, j = t * ranks + (size_t)to_rank;
            size_t fa = a->part_at[i], fb = from_loose ? b->part_at[j] : b->whole_at[j];
            size_t ta = to_loose ? a->part_at[i] : a->whole_at[i], tb = b->part_at[j];
            struct block block = {.outer = k->outer,
                                  .low = k->axis_first ? a->size[i] : b->size[j],
                                  .middle = k->middle,
                                  .high = k->axis_first ? b->size[j] : a->size[i],
                                  .inner = k->inner};

            if (k->axis_first)
                copy_block(&block, from, from_a, from_b, fa, fb, to, to_a, to_b, ta, tb);
            else
                copy_block(&block, from, from_b, from_a, fb, fa, to, to_b, to_a, tb, ta);
        }
    }
}

static trm_status run_all_to_all(trm_kernel *base, trm_stream *stream, const void *const *in,
                                 void *const *out, void *workspace)
{
    struct collective *k = (struct collective *)base;
    const void *peers[TRM_COMM_RANKS_MAX];
    size_t send[TRM_COMM_RANKS_MAX], receive[TRM_COMM_RANKS_MAX], at = 0, sent = 0;
    size_t cell = k->outer * k->middle * k->inner;
    unsigned char *packed = workspace, *came;

    (void)stream;
    if (k->largest <= trm_comm_slot_bytes(k->comm)) {
        TRM_CHECK(trm_comm_exchange(k->comm, in[0], k->bytes, peers));
        for (int r = 0; r < k->ranks; r++)
            move_block(k, r, k->rank, peers[r], false, out[0], false);
        return TRM_OK;
    }
    for (int r = 0; r < k->ranks; r++) {
        send[r] = cell * k->split.part[k->rank] * k->split_to.part[r];
        receive[r] = cell * k->split.part[r] * k->split_to.part[k->rank];
        move_block(k, k->rank, r, in[0], false, packed + sent, true);
        sent += send[r];
    }
    came = packed + trm_align_up(sent, TRM_ALIGN);
    TRM_CHECK(trm_comm_alltoall(k->comm, packed, send, came, receive));
    for (int r = 0; r < k->ranks; at += receive[r++])
        move_block(k, r, k->rank, came + at, true, out[0], false);
    return TRM_OK;
}

static void destroy(trm_kernel *base)
{
    struct collective *k = (struct collective *)base;

    trm_arena_destroy(k->arena);
}

const trm_kernel_ops trmi_all_reduce_ops = {
    .name = "all-reduce", .run = run_all_reduce, .destroy = destroy};
const trm_kernel_ops trmi_all_gather_ops = {
    .name = "all-gather", .run = run_all_gather, .destroy = destroy};
const trm_kernel_ops trmi_reduce_scatter_ops = {
    .name = "reduce-scatter", .run = run_reduce_scatter, .destroy = destroy};
const trm_kernel_ops trmi_reduce_tree_ops = {
    .name = "reduce-tree", .run = run_reduce_tree, .destroy = destroy};
const trm_kernel_ops trmi_shard_ops = {.name = "shard", .run = run_shard, .destroy = destroy};
const trm_kernel_ops trmi_all_to_all_ops = {
    .name = "all-to-all", .run = run_all_to_all, .destroy = destroy};
