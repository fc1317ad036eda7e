/* Collectives on device memory: packed by strided copies, exchanged by the device's group, unpacked
 * by strided copies, all enqueued on the step's stream, so that they can be captured. What parts
 * mean is collective.c's; here it becomes blocks. */
#include "worker/collective_impl.h"

#include "kernels/device_group.h"

#include <string.h>

struct device_collective {
    trm_kernel base;
    struct collective *k; /* the same collective as the host would run it: owns nothing that runs */
    trm_device_group *group;
    trm_op op;
    trm_kernel *pack, *unpack; /* NULL: parts lie as the group wants them */
    size_t packed_at, came_at; /* in the workspace */
    size_t send[TRM_COMM_RANKS_MAX], receive[TRM_COMM_RANKS_MAX];
    trm_group_norm norm; /* width 0: none follows; pointers: run's */
    size_t rows;
    bool biased;
};

struct blocks {
    trm_block block[TRM_BLOCKS_MAX];
    int count;
};

static trm_status add(struct blocks *all, const trm_block *b)
{
    if (b->run == 0 || b->dims[0] == 0 || b->dims[1] == 0 || b->dims[2] == 0)
        return TRM_OK;
    if (all->count == TRM_BLOCKS_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a collective of more than %d pieces", TRM_BLOCKS_MAX);
    all->block[all->count++] = *b;
    return TRM_OK;
}

/* Rank's pieces between the whole, and its part which begins at `part_begin`. */
static trm_status add_part(struct blocks *all, const struct collective *k, int rank,
                           size_t part_begin, bool join)
{
    const struct trmi_split *s = &k->split;

    for (int t = 0; t < s->stretches; t++) {
        size_t i = (size_t)t * (size_t)k->ranks + (size_t)rank;
        size_t whole_at = s->whole_at[i] * k->inner,
               part_at = part_begin + s->part_at[i] * k->inner;
        size_t whole_step = s->whole * k->inner, part_step = s->part[rank] * k->inner;
        trm_block b = {.dims = {k->outer, 1, 1},
                       .run = s->size[i] * k->inner,
                       .from_at = join ? part_at : whole_at,
                       .from_step = {join ? part_step : whole_step, 0, 0},
                       .to_at = join ? whole_at : part_at,
                       .to_step = {join ? whole_step : part_step, 0, 0}};

        TRM_CHECK(add(all, &b));
    }
    return TRM_OK;
}

/* A side of an all-to-all block: `low` and `high` extents of the tensor, and where in them. */
static void set_side(const struct collective *k, size_t low, size_t high, size_t l, size_t h,
                     size_t begin, size_t *at_out, size_t step[3])
{
    step[2] = high * k->inner;
    step[1] = k->middle * step[2];
    step[0] = low * step[1];
    *at_out = begin + l * step[1] + h * k->inner;
}

/* What from_rank sends to to_rank: its part of the axis, theirs of axis_to. `pack`: from this
 * rank's tensor to a loose block at `begin`; else from a loose block to this rank's result. */
static trm_status add_exchange(struct blocks *all, const struct collective *k, int from_rank,
                               int to_rank, size_t begin, bool pack)
{
    const struct trmi_split *a = &k->split, *c = &k->split_to;
    size_t ranks = (size_t)k->ranks;
    /* the loose block has both parts; the tensor has one whole, the other a part */
    size_t loose_a = a->part[from_rank], loose_c = c->part[to_rank];
    size_t whole_a = pack ? a->part[from_rank] : a->whole,
           whole_c = pack ? c->whole : c->part[to_rank];

    for (size_t s = 0; s < (size_t)a->stretches; s++) {
        for (size_t t = 0; t < (size_t)c->stretches; t++) {
            size_t i = s * ranks + (size_t)from_rank, j = t * ranks + (size_t)to_rank;
            size_t ta = pack ? a->part_at[i] : a->whole_at[i]; /* in the tensor */
            size_t tc = pack ? c->whole_at[j] : c->part_at[j];
            size_t la = a->part_at[i], lc = c->part_at[j]; /* in the loose block */
            bool first = k->axis_first;
            trm_block b = {.dims = {k->outer, first ? a->size[i] : c->size[j], k->middle},
                           .run = (first ? c->size[j] : a->size[i]) * k->inner};
            size_t tensor_at, tensor_step[3], loose_at, loose_step[3];

            set_side(k, first ? whole_a : whole_c, first ? whole_c : whole_a, first ? ta : tc,
                     first ? tc : ta, 0, &tensor_at, tensor_step);
            set_side(k, first ? loose_a : loose_c, first ? loose_c : loose_a, first ? la : lc,
                     first ? lc : la, begin, &loose_at, loose_step);
            b.from_at = pack ? tensor_at : loose_at;
            b.to_at = pack ? loose_at : tensor_at;
            memcpy(b.from_step, pack ? tensor_step : loose_step, sizeof(b.from_step));
            memcpy(b.to_step, pack ? loose_step : tensor_step, sizeof(b.to_step));
            TRM_CHECK(add(all, &b));
        }
    }
    return TRM_OK;
}

static trm_status make_kernel(trm_device *d, const struct blocks *all, trm_kernel **kernel_out)
{
    return d->ops->prepare_blocks(d, all->block, all->count, kernel_out);
}

/* ---- running ---- */

static trm_status run_blocks(trm_kernel *k, trm_stream *s, const void *from, void *to)
{
    const void *in[1] = {from};
    void *out[1] = {to};

    return k->ops->run(k, s, in, out, NULL);
}

static trm_status run_tree_norm(const struct device_collective *c, trm_stream *s,
                                const void *const *in, void *const *out)
{
    trm_group_norm norm = c->norm;

    norm.residual = in[1];
    norm.weight = in[2];
    norm.bias = c->biased ? in[3] : NULL;
    norm.sum = out[0];
    norm.normed = out[1];
    return c->group->ops->reduce_tree_norm(c->group, s, in[0], c->rows, c->k->leaves, c->k->counts,
                                           &norm);
}

static trm_status run(trm_kernel *base, trm_stream *s, const void *const *in, void *const *out,
                      void *workspace)
{
    const struct device_collective *c = (const struct device_collective *)base;
    const trm_device_group_ops *ops = c->group == NULL ? NULL : c->group->ops;
    const struct collective *k = c->k;
    unsigned char *packed = (unsigned char *)workspace + c->packed_at;
    unsigned char *came = (unsigned char *)workspace + c->came_at;
    const void *from = in[0];
    void *to = c->unpack != NULL && ops != NULL ? came : out[0];

    if (ops == NULL) /* TrmShard: local */
        return run_blocks(c->pack, s, in[0], out[0]);
    if (c->pack != NULL) {
        TRM_CHECK(run_blocks(c->pack, s, in[0], packed));
        from = packed;
    }
    switch (c->op) {
    case TRM_OP_TrmAllReduce:
        TRM_CHECK(ops->allreduce(c->group, s, from, to, k->elems, k->dtype));
        break;
    case TRM_OP_TrmAllGather:
        TRM_CHECK(ops->allgather(c->group, s, from, to, k->bytes));
        break;
    case TRM_OP_TrmReduceScatter:
        TRM_CHECK(ops->reduce_scatter(c->group, s, from, to, k->part_elems, k->dtype));
        break;
    case TRM_OP_TrmReduceTree:
        if (c->norm.width > 0)
            return run_tree_norm(c, s, in, out);
        TRM_CHECK(ops->reduce_tree(c->group, s, from, to, k->elems, k->leaves, k->counts));
        break;
    default:
        TRM_CHECK(ops->alltoall(c->group, s, from, c->send, to, c->receive));
        break;
    }
    return c->unpack == NULL ? TRM_OK : run_blocks(c->unpack, s, came, out[0]);
}

static void destroy(trm_kernel *base)
{
    struct device_collective *c = (struct device_collective *)base;

    if (c == NULL)
        return;
    trm_kernel_destroy(c->pack);
    trm_kernel_destroy(c->unpack);
    if (c->k != NULL)
        trm_kernel_destroy(&c->k->base);
    trm_free(c);
}

static const trm_kernel_ops device_ops = {
    .name = "device collective", .run = run, .destroy = destroy};

/* ---- preparing ---- */

static trm_status prepare_all_to_all(struct device_collective *c, trm_device *d,
                                     struct blocks *pack, struct blocks *unpack)
{
    const struct collective *k = c->k;
    size_t cell = k->outer * k->middle * k->inner, sent = 0, came = 0;

    (void)d;
    for (int r = 0; r < k->ranks; r++) {
        c->send[r] = cell * k->split.part[k->rank] * k->split_to.part[r];
        c->receive[r] = cell * k->split.part[r] * k->split_to.part[k->rank];
        TRM_CHECK(add_exchange(pack, k, k->rank, r, sent, true));
        TRM_CHECK(add_exchange(unpack, k, r, k->rank, came, false));
        sent += c->send[r];
        came += c->receive[r];
    }
    c->came_at = trm_align_up(sent, 256);
    c->base.workspace_bytes = c->came_at + came;
    return TRM_OK;
}

static trm_status prepare_blocks(struct device_collective *c, trm_device *d)
{
    struct blocks *pack = trm_calloc(2, sizeof(*pack)), *unpack = pack == NULL ? NULL : pack + 1;
    const struct collective *k = c->k;
    size_t at = 0;
    trm_status st = TRM_OK;

    if (pack == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "collective");
    switch (c->op) {
    case TRM_OP_TrmShard:
        TRM_TRY(st, add_part(pack, k, k->rank, 0, false), done);
        TRM_TRY(st, make_kernel(d, pack, &c->pack), done);
        break;
    case TRM_OP_TrmAllGather:
        for (int r = 0; r < k->ranks && !k->contiguous; at += k->bytes[r++])
            TRM_TRY(st, add_part(unpack, k, r, at, true), done);
        if (!k->contiguous)
            TRM_TRY(st, make_kernel(d, unpack, &c->unpack), done);
        c->base.workspace_bytes = at;
        break;
    case TRM_OP_TrmReduceScatter:
        for (int r = 0; r < k->ranks && !k->contiguous; at += k->bytes[r++])
            TRM_TRY(st, add_part(pack, k, r, at, false), done);
        if (!k->contiguous)
            TRM_TRY(st, make_kernel(d, pack, &c->pack), done);
        c->base.workspace_bytes = at;
        break;
    case TRM_OP_TrmAllToAll:
        TRM_TRY(st, prepare_all_to_all(c, d, pack, unpack), done);
        TRM_TRY(st, make_kernel(d, pack, &c->pack), done);
        TRM_TRY(st, make_kernel(d, unpack, &c->unpack), done);
        break;
    case TRM_OP_TrmReduceTree:
        break;
    default:
        c->base.in_place = 1;
        break;
    }
done:
    trm_free(pack);
    return st;
}

/* What follows the sum in the same step: output 1 is there. */
static void settle_norm(struct device_collective *c, const trm_op_desc *desc)
{
    c->rows = (size_t)desc->inputs[1].dims[0];
    c->norm.width = (size_t)desc->inputs[1].dims[1];
    c->norm.layer = strcmp(trm_attr_string(desc->attrs, "kind", "rms"), "layer") == 0;
    c->norm.epsilon = trm_attr_float(desc->attrs, "epsilon", 1e-5f);
    c->norm.offset = trm_attr_float(desc->attrs, "offset", 0.0f);
    c->biased = desc->input_count > 3 && desc->inputs[3].dtype != TRM_DTYPE_NONE;
    c->base.in_place = 1u << 1; /* the sum, where the residual lies */
}

trm_status trmi_collective_on_device(trm_engine *e, const trm_op_desc *desc, trm_kernel *host_form,
                                     trm_kernel **kernel_out)
{
    const struct collective *k = (const struct collective *)host_form;
    struct device_collective *c;
    trm_op op = desc->op;
    trm_status st;

    if (op == TRM_OP_TrmReduceTree &&
        (e->options.group->ops->reduce_tree == NULL || k->counts[0] < 0))
        return trm_fail(TRM_ERR_UNSUPPORTED, "a sum by the tree goes over the hosts: %s",
                        k->counts[0] < 0 ? "the node does not say what other ranks hold"
                                         : "the devices' group has none");
    c = trm_calloc(1, sizeof(*c));
    if (c == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "collective");
    c->base.ops = &device_ops;
    c->k = (struct collective *)host_form;
    c->group = op == TRM_OP_TrmShard ? NULL : e->options.group;
    c->op = op;
    if (desc->output_count > 1)
        settle_norm(c, desc);
    st = prepare_blocks(c, e->device);
    if (st != TRM_OK) {
        c->k = NULL; /* stays the caller's */
        destroy(&c->base);
        return st;
    }
    *kernel_out = &c->base;
    return TRM_OK;
}

trm_layout trmi_collective_layout(const trm_kernel *k)
{
    return k->ops == &device_ops ? ((const struct device_collective *)k)->k->layout
                                 : ((const struct collective *)k)->layout;
}
