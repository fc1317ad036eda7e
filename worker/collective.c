/* Collective operators as kernels over the engine's communicator. A rank's part of a dim is its
 * pieces of every stretch, in order (base/ops.def); where parts lie in the whole is arithmetic,
 * done once here, so that running (collective_run.c) is copies. */
#include "worker/bind_impl.h"
#include "worker/collective_impl.h"

#include <stdio.h>

/* Bytes of a part, [outer, dim, inner]. */
static size_t part_bytes(const struct collective *k, int rank)
{
    return k->outer * k->split.part[rank] * k->inner;
}

static trm_status read_split(const trm_op_desc *desc, const char *attr, int64_t unit,
                             trm_arena *arena, struct trmi_split *split)
{
    size_t count, ranks = (size_t)trm_attr_int(desc->attrs, "ranks", 0);
    const int64_t *sizes = trm_attr_ints(desc->attrs, attr, &count);
    size_t at = 0;

    split->stretches = (int)(count / ranks);
    split->size = trm_arena_alloc(arena, count, sizeof(size_t));
    split->whole_at = trm_arena_alloc(arena, count, sizeof(size_t));
    split->part_at = trm_arena_alloc(arena, count, sizeof(size_t));
    split->part = trm_arena_alloc(arena, ranks, sizeof(size_t));
    if (split->size == NULL || split->whole_at == NULL || split->part_at == NULL ||
        split->part == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "collective");
    for (size_t i = 0; i < count; i++) {
        split->size[i] = (size_t)(sizes[i] / unit);
        split->whole_at[i] = at;
        at += split->size[i];
        split->part_at[i] = split->part[i % ranks];
        split->part[i % ranks] += split->size[i];
    }
    split->whole = at;
    return TRM_OK;
}

static int64_t block_of(trm_layout layout)
{
    return layout == TRM_LAYOUT_BLOCK8 ? 8 : layout == TRM_LAYOUT_BLOCK16 ? 16 : 1;
}

/* Whether the parts of dim 1 are whole blocks of the layout. */
static bool whole_blocks(const trm_op_desc *desc, const char *attr, int64_t block)
{
    size_t count;
    const int64_t *sizes = trm_attr_ints(desc->attrs, attr, &count);

    for (size_t i = 0; i < count; i++)
        if (sizes[i] % block != 0)
            return false;
    return true;
}

/* The tensor's storage as [outer, axis, inner bytes]; *unit_out: elements of the axis that lie
 * together. The extent of the axis itself is left out. */
static void storage_view(const trm_tensor *t, int axis, size_t *outer_out, size_t *inner_out,
                         int64_t *unit_out)
{
    size_t item = trm_dtype_bytes(t->dtype);
    int64_t block = block_of(t->layout);
    size_t blocks = (size_t)(t->rank > 1 ? (t->dims[1] + block - 1) / block : 1);

    *unit_out = 1;
    if (t->layout == TRM_LAYOUT_PLAIN) {
        *outer_out = trm_tensor_count(t, 0, axis);
        *inner_out = trm_tensor_count(t, axis + 1, t->rank) * item;
    } else if (axis == 0) { /* all layouts have it outermost */
        *outer_out = 1;
        *inner_out = blocks * (size_t)block * trm_tensor_count(t, 2, t->rank) * item;
    } else if (axis == 1) {
        bool last = t->layout == TRM_LAYOUT_CHANNELS_LAST;
        size_t space = trm_tensor_count(t, 2, t->rank);

        *outer_out = (size_t)t->dims[0] * (last ? space : 1);
        *inner_out = last ? item : space * (size_t)block * item;
        *unit_out = block;
    } else { /* a spatial dim */
        bool last = t->layout == TRM_LAYOUT_CHANNELS_LAST;

        *outer_out = (size_t)t->dims[0] * (last ? 1 : blocks) * trm_tensor_count(t, 2, axis);
        *inner_out = trm_tensor_count(t, axis + 1, t->rank) *
                     (last ? (size_t)t->dims[1] : (size_t)block) * item;
    }
}

static trm_status prepare_split(struct collective *k, const trm_op_desc *desc)
{
    const trm_tensor *in = &desc->inputs[0];
    int axis = (int)trm_attr_int(desc->attrs, "axis", 0);
    int64_t unit;

    if (axis < 0)
        axis += in->rank;
    storage_view(in, axis, &k->outer, &k->inner, &unit);
    TRM_CHECK(read_split(desc, "sizes", unit, k->arena, &k->split));
    k->contiguous = k->outer == 1 && k->split.stretches == 1;
    for (int r = 0; r < k->ranks; r++) {
        k->bytes[r] = part_bytes(k, r);
        k->part_elems[r] = k->bytes[r] / trm_dtype_bytes(k->dtype);
        if (k->bytes[r] > k->largest)
            k->largest = k->bytes[r];
    }
    return TRM_OK;
}

static trm_status prepare_all_to_all(struct collective *k, const trm_op_desc *desc)
{
    const trm_tensor *in = &desc->inputs[0];
    int axis = (int)trm_attr_int(desc->attrs, "axis", 0);
    int to = (int)trm_attr_int(desc->attrs, "axis_to", 0), low, high;

    axis += axis < 0 ? in->rank : 0;
    to += to < 0 ? in->rank : 0;
    if (axis == to)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s: axis and axis_to are both %d", desc->name, axis);
    low = axis < to ? axis : to;
    high = axis < to ? to : axis;
    k->axis_first = axis < to;
    k->outer = trm_tensor_count(in, 0, low);
    k->middle = trm_tensor_count(in, low + 1, high);
    k->inner = trm_tensor_count(in, high + 1, in->rank) * trm_dtype_bytes(in->dtype);
    TRM_CHECK(read_split(desc, "sizes", 1, k->arena, &k->split));
    TRM_CHECK(read_split(desc, "sizes_to", 1, k->arena, &k->split_to));
    for (int r = 0; r < k->ranks; r++) {
        k->bytes[r] = k->outer * k->middle * k->inner * k->split.part[r] * k->split_to.whole;
        if (k->bytes[r] > k->largest)
            k->largest = k->bytes[r];
    }
    return TRM_OK;
}

/* Leaves of all ranks, where the node says so: they follow one another, and this rank's are where
 * `first` has them. */
static trm_status read_counts(struct collective *k, const trm_op_desc *desc)
{
    size_t count;
    const int64_t *counts = trm_attr_ints(desc->attrs, "counts", &count);
    int64_t first = 0;

    k->counts[0] = -1;
    if (counts == NULL)
        return TRM_OK;
    for (size_t r = 0; r < count && count == (size_t)k->ranks; r++) {
        if (counts[r] < 0 || counts[r] > k->leaves - first ||
            ((int)r == k->rank && (first != k->first || counts[r] != k->count)))
            break;
        k->counts[r] = (int)counts[r];
        first += counts[r];
        if (r + 1 == count && first == k->leaves)
            return TRM_OK;
    }
    return trm_fail(TRM_ERR_INVALID_ARG,
                    "%s: 'counts' of %zu ranks: want all %d leaves of %d ranks, [%d, %d) of them "
                    "rank %d's",
                    desc->name, count, k->leaves, k->ranks, k->first, k->first + k->count, k->rank);
}

/* Nodes of the summation tree [P, ...]: that they are what the attributes say, shape inference has
 * seen to (model/shape/language.c), but not that no rank has more. */
static trm_status prepare_tree(struct collective *k, const trm_op_desc *desc)
{
    const trm_tensor *in = &desc->inputs[0];
    trm_tree_part nodes[TRM_TREE_PARTS_MAX];
    int64_t most = trm_attr_int(desc->attrs, "most", 0);

    k->leaves = (int)trm_attr_int(desc->attrs, "leaves", 0);
    k->first = (int)trm_attr_int(desc->attrs, "first", 0);
    k->count = (int)trm_attr_int(desc->attrs, "count", 0);
    if (in->dtype != TRM_DTYPE_F32 || in->rank < 1 || k->leaves < 1 ||
        k->leaves > TRM_TREE_LEAVES_MAX || k->first < 0 || k->count < 0 || k->count > k->leaves ||
        k->first > k->leaves - k->count ||
        trm_tree_parts(k->first, k->count, k->leaves, nodes) != in->dims[0] || most < in->dims[0] ||
        most < 1 || most > TRM_TREE_PARTS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "%s: leaves [%d, %d + %d) of %d, at most %lld nodes a rank, of which %lld "
                        "are here",
                        desc->name, k->first, k->first, k->count, k->leaves, (long long)most,
                        (long long)(in->rank < 1 ? 0 : in->dims[0]));
    k->most = (int)most;
    k->elems = trm_tensor_count(in, 1, in->rank);
    k->largest = k->elems * (size_t)k->most * sizeof(float);
    return read_counts(k, desc);
}

static trm_status check(const trm_engine *e, const trm_op_desc *desc)
{
    int64_t ranks = trm_attr_int(desc->attrs, "ranks", 0),
            rank = trm_attr_int(desc->attrs, "rank", 0);
    const trm_comm *comm = e->options.comm;
    trm_dtype dtype = desc->inputs[0].dtype;
    bool sums = desc->op == TRM_OP_TrmAllReduce || desc->op == TRM_OP_TrmReduceScatter;

    if (ranks < 1 || ranks > TRM_COMM_RANKS_MAX || rank < 0 || rank >= ranks)
        return trm_fail(TRM_ERR_INVALID_ARG, "rank %lld of %lld", (long long)rank,
                        (long long)ranks);
    if (desc->op != TRM_OP_TrmShard &&
        (comm == NULL || trm_comm_size(comm) != ranks || trm_comm_rank(comm) != rank))
        return trm_fail(TRM_ERR_INVALID_ARG, "rank %lld of %lld, but the executor has %s of %d",
                        (long long)rank, (long long)ranks, comm == NULL ? "no group" : "a group",
                        comm == NULL ? 0 : trm_comm_size(comm));
    if (sums && dtype != TRM_DTYPE_F32 && dtype != TRM_DTYPE_F64 && dtype != TRM_DTYPE_F16 &&
        dtype != TRM_DTYPE_BF16 && dtype != TRM_DTYPE_I32 && dtype != TRM_DTYPE_I64)
        return trm_fail(TRM_ERR_UNSUPPORTED, "a sum of %s over ranks", trm_dtype_name(dtype));
    return TRM_OK;
}

/* As it comes, where that is right; else plain. */
static void settle_layout(const trm_engine *e, int node, trm_op_desc *desc)
{
    trm_tensor *in = &desc->inputs[0];
    int axis = (int)trm_attr_int(desc->attrs, "axis", 0);

    if (axis < 0)
        axis += in->rank;
    if ((e->plain_collectives != NULL && e->plain_collectives[node]) ||
        desc->op == TRM_OP_TrmAllToAll || desc->op == TRM_OP_TrmReduceTree ||
        (desc->op != TRM_OP_TrmAllReduce && axis == 1 &&
         !whole_blocks(desc, "sizes", block_of(in->layout))))
        in->layout = TRM_LAYOUT_PLAIN;
    desc->outputs[0].layout = in->layout;
    for (int i = 1; i < desc->input_count; i++)
        desc->inputs[i].layout = TRM_LAYOUT_PLAIN;
}

trm_status trmi_collective_prepare(trm_engine *e, int node, trm_op_desc *desc,
                                   trm_kernel **kernel_out)
{
    trm_arena *arena = NULL;
    struct collective *k;
    size_t bytes;
    trm_status st = TRM_OK;

    TRM_CHECK(check(e, desc));
    settle_layout(e, node, desc);
    TRM_CHECK(trm_arena_create(1024, &arena));
    k = trm_arena_alloc(arena, 1, sizeof(*k));
    if (k == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "collective");
        goto fail;
    }
    k->arena = arena;
    k->comm = e->options.comm;
    k->ranks = (int)trm_attr_int(desc->attrs, "ranks", 0);
    k->rank = (int)trm_attr_int(desc->attrs, "rank", 0);
    k->dtype = desc->inputs[0].dtype;
    k->layout = desc->inputs[0].layout;
    TRM_TRY(st, trm_tensor_bytes(&desc->inputs[0], &bytes), fail);
    k->elems = bytes / trm_dtype_bytes(k->dtype);
    switch (desc->op) {
    case TRM_OP_TrmReduceTree:
        k->base.ops = &trmi_reduce_tree_ops;
        TRM_TRY(st, prepare_tree(k, desc), fail);
        break;
    case TRM_OP_TrmAllReduce:
        k->base.ops = &trmi_all_reduce_ops;
        k->base.in_place = 1;
        break;
    case TRM_OP_TrmAllGather:
        k->base.ops = &trmi_all_gather_ops;
        TRM_TRY(st, prepare_split(k, desc), fail);
        for (int r = 0; r < k->ranks && k->largest > trm_comm_slot_bytes(k->comm); r++)
            k->base.workspace_bytes += k->contiguous ? 0 : k->bytes[r];
        break;
    case TRM_OP_TrmReduceScatter:
        k->base.ops = &trmi_reduce_scatter_ops;
        TRM_TRY(st, prepare_split(k, desc), fail);
        k->base.workspace_bytes = k->contiguous ? 0 : bytes;
        break;
    case TRM_OP_TrmShard:
        k->base.ops = &trmi_shard_ops;
        TRM_TRY(st, prepare_split(k, desc), fail);
        break;
    case TRM_OP_TrmAllToAll:
        k->base.ops = &trmi_all_to_all_ops;
        TRM_TRY(st, prepare_all_to_all(k, desc), fail);
        if (k->largest > trm_comm_slot_bytes(k->comm)) { /* both ends in pieces */
            size_t out_bytes;

            TRM_TRY(st, trm_tensor_bytes(&desc->outputs[0], &out_bytes), fail);
            k->base.workspace_bytes = trm_align_up(bytes, TRM_ALIGN) + out_bytes;
        }
        break;
    default:
        st = trm_fail(TRM_ERR_INTERNAL, "%s is no collective", trm_op_get(desc->op)->name);
        goto fail;
    }
    *kernel_out = &k->base;
    return TRM_OK;
fail:
    trm_arena_destroy(arena);
    return st;
}

/* ---- agreement ---- */

bool trmi_collective_talks(const trm_graph *g)
{
    for (int n = 0; n < g->node_count; n++)
        if ((trm_op_get(g->nodes[n].op)->flags & TRM_OPF_COLLECTIVE) != 0 &&
            g->nodes[n].op != TRM_OP_TrmShard)
            return true;
    return false;
}

trm_status trmi_collective_agree(trm_engine *e, trm_status mine)
{
    int32_t bad = mine != TRM_OK, any = 0;
    char text[512];
    trm_status st;

    if (!e->talks || mine == TRM_ERR_COMM || mine == TRM_ERR_DEVICE)
        return mine;
    snprintf(text, sizeof(text), "%s", mine == TRM_OK ? "" : trm_message());
    st = trm_comm_allreduce(e->options.comm, &bad, &any, 1, TRM_DTYPE_I32, TRM_REDUCE_MAX);
    if (st != TRM_OK || any == 0)
        return st;
    if (mine != TRM_OK) /* the message is the thread's, and the call may have set another */
        mine = trm_fail(mine, "%s", text);
    return trm_comm_agree(e->options.comm, mine);
}

trm_status trmi_collective_layouts(trm_engine *e, const trmi_segment *s, bool *again_out)
{
    int ranks = e->talks ? trm_comm_size(e->options.comm) : 1, count = 0, at = 0;
    size_t bytes[TRM_COMM_RANKS_MAX];
    unsigned char *mine, *all;
    trm_status st;

    *again_out = false;
    for (int i = 0; i < s->step_count && e->talks; i++)
        count += s->steps[i].collective;
    if (count == 0)
        return TRM_OK;
    mine = trm_malloc((size_t)count * (size_t)(ranks + 1), 1);
    if (mine == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "layouts of %d collectives", count);
    all = mine + count;
    for (int i = 0; i < s->step_count; i++)
        if (s->steps[i].collective)
            mine[at++] = (unsigned char)trmi_collective_layout(s->steps[i].kernel);
    for (int r = 0; r < ranks; r++)
        bytes[r] = (size_t)count;
    st = trm_comm_allgather(e->options.comm, mine, all, bytes);
    at = 0;
    for (int i = 0; i < s->step_count && st == TRM_OK; i++) {
        if (!s->steps[i].collective)
            continue;
        for (int r = 0; r < ranks; r++) {
            if (all[r * count + at] == all[at])
                continue;
            e->plain_collectives[s->steps[i].node] = true;
            *again_out = true;
        }
        at++;
    }
    trm_free(mine);
    return st;
}

/* ---- producers that write straight into the window ---- */

/* The step before `at` that makes what is in `slot`; -1: none of this segment. */
static int maker_of(const trmi_segment *s, int at, int slot)
{
    for (int i = at - 1; i >= 0; i--)
        for (int j = 0; j < s->steps[i].out_count; j++)
            if (s->steps[i].out_slots[j] == slot)
                return i;
    return -1;
}

/* Of nodes of the tree: room for as many as any rank has, so that all ranks write there or none. */
static size_t window_bytes(const trm_kernel *kernel, size_t bytes)
{
    return kernel->ops == &trmi_reduce_tree_ops ? ((const struct collective *)kernel)->largest
                                                : bytes;
}

void trmi_collective_places(trm_engine *e, trmi_segment *s)
{
    /* a device's copies go to pinned memory, which the window is not */
    for (int i = 0; i < s->step_count && e->talks && !trmi_engine_splits(e); i++) {
        const trmi_step *step = &s->steps[i];
        const trmi_storage *storage;
        int maker;

        if (!step->collective || step->kernel->ops == &trmi_reduce_scatter_ops) /* it packs there */
            continue;
        storage = trmi_bind_storage(s, step->in_slots[0]);
        maker = maker_of(s, i, step->in_slots[0]);
        /* a value that anything else reads, through a view too, stays in the arena */
        if (storage == NULL || maker < 0 ||
            trm_graph_use_count(e->graph, e->graph->nodes[step->node].inputs[0]) != 1)
            continue;
        for (int k = maker; k < i && maker >= 0; k++)
            if (s->steps[k].collective) /* the window is that one's */
                maker = -1;
        if (maker < 0)
            continue;
        s->steps[maker].window_slot = step->in_slots[0];
        s->steps[maker].window_bytes = window_bytes(step->kernel, storage->bytes);
    }
}
