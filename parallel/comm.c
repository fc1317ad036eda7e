/* The public face of communicators: arguments are checked here once, calls are counted, and what
 * has broken stays broken. */
#include "parallel/comm.h"
#include "base/wait.h"
#include "parallel/comm_impl.h"

#include <stdio.h>
#include <string.h>

void trmi_comm_base(trm_comm *c, const trm_comm_ops *ops, int rank, int size)
{
    c->ops = ops;
    c->rank = rank;
    c->size = size;
    snprintf(c->name, sizeof(c->name), "%s", ops->name);
    snprintf(c->label, sizeof(c->label), "group");
}

void trmi_comm_label(trm_comm *c, const char *label)
{
    snprintf(c->label, sizeof(c->label), "%s", label);
}

int trm_comm_rank(const trm_comm *c)
{
    return c->rank;
}

int trm_comm_size(const trm_comm *c)
{
    return c->size;
}

const char *trm_comm_name(const trm_comm *c)
{
    return c->name;
}

void trm_comm_destroy(trm_comm *c)
{
    if (c != NULL)
        c->ops->destroy(c);
}

void trm_comm_set_timeout(trm_comm *c, int64_t timeout_ms)
{
    if (c->ops->set_timeout != NULL)
        c->ops->set_timeout(c, timeout_ms > 0 ? timeout_ms : 1);
}

size_t trm_comm_slot_bytes(const trm_comm *c)
{
    return c->ops->slot_bytes(c);
}

void trm_comm_get_stats(const trm_comm *c, trm_comm_stats *stats_out)
{
    *stats_out = c->stats;
}

/* ---- doing a call ---- */

static trm_status refuse(const trm_comm *c, const char *what)
{
    return trm_fail(TRM_ERR_COMM, "%s: %s: the communicator is broken: %s", c->label, what, c->why);
}

/* Time, counters, and the end of a communicator that has lost a rank. */
static trm_status finish(trm_comm *c, trm_status st, int64_t start)
{
    c->stats.wait_us += (uint64_t)(trm_now_us() - start);
    if (st == TRM_ERR_COMM) {
        c->broken = true;
        snprintf(c->why, sizeof(c->why), "%s", trm_message());
    }
    return st;
}

static trm_status run(trm_comm *c, const trmi_call *call)
{
    int64_t start;

    if (c->broken)
        return refuse(c, trmi_call_name(call->kind));
    start = trm_now_us();
    c->stats.collectives++;
    c->stats.collective_bytes += trmi_call_bytes(c, call);
    return finish(c, c->ops->collective(c, call), start);
}

static trm_status bad(const trm_comm *c, trmi_call_kind kind, const char *what)
{
    return trm_fail(TRM_ERR_INVALID_ARG, "%s: %s: %s", c->label, trmi_call_name(kind), what);
}

/* The whole of counts x unit is addressable. */
static bool total_ok(const size_t *counts, int size, size_t unit, size_t *total_out)
{
    size_t sum = 0, bytes;

    for (int r = 0; r < size; r++)
        if (!trm_add_ok(sum, counts[r], &sum))
            return false;
    *total_out = sum;
    return trm_mul_ok(sum, unit, &bytes) && bytes <= SIZE_MAX / 2;
}

trm_status trm_comm_reserve(trm_comm *c, const trm_comm_needs *needs)
{
    trmi_call call = {.kind = TRMI_CALL_RESERVE, .needs = needs};

    if (needs == NULL || needs->messages < 0 || needs->slot_bytes > SIZE_MAX / 1024 ||
        needs->message_bytes > SIZE_MAX / 1024)
        return bad(c, call.kind, "want needs with messages of at least 0 and addressable sizes");
    return run(c, &call);
}

trm_status trm_comm_slot_get(trm_comm *c, size_t bytes, void **slot_out)
{
    if (slot_out == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: slot: no place for the result", c->label);
    if (c->broken)
        return refuse(c, "slot");
    if (c->ops->slot_get == NULL) {
        *slot_out = NULL;
        return TRM_OK;
    }
    return c->ops->slot_get(c, bytes, slot_out);
}

trm_status trm_comm_allreduce(trm_comm *c, const void *in, void *out, size_t elems, trm_dtype dtype,
                              trm_reduction reduction)
{
    trmi_call call = {.kind = TRMI_CALL_ALLREDUCE,
                      .dtype = dtype,
                      .reduction = reduction,
                      .in = in,
                      .out = out,
                      .elems = elems};

    if (!trmi_sum_supports(dtype))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s: allreduce of %s: want f32, f64, f16, bf16, i32 or i64", c->label,
                        trm_dtype_name(dtype));
    if (reduction != TRM_REDUCE_SUM && reduction != TRM_REDUCE_MAX)
        return bad(c, call.kind, "reduction is neither sum nor max");
    if (elems > 0 && (in == NULL || out == NULL))
        return bad(c, call.kind, "no memory given");
    if (elems > SIZE_MAX / 32)
        return bad(c, call.kind, "too many elements");
    return run(c, &call);
}

static trm_status reduce_leaves(trm_comm *c, const trmi_call *call)
{
    int first = call->first, count = call->count, leaves = call->leaves;
    trm_tree_part own[TRM_TREE_PARTS_MAX];

    if (leaves < 1 || leaves > TRM_TREE_LEAVES_MAX || first < 0 || count < 0 || count > leaves ||
        first > leaves - count)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: %s: leaves [%d, %d + %d) of %d, want at most %d",
                        c->label, trmi_call_name(call->kind), first, first, count, leaves,
                        TRM_TREE_LEAVES_MAX);
    if (call->kind == TRMI_CALL_REDUCE_NODES &&
        (call->most < 1 || call->most > TRM_TREE_PARTS_MAX ||
         trm_tree_parts(first, count, leaves, own) > call->most))
        return bad(c, call->kind, "this rank has more nodes than the most that any has");
    if (call->elems > 0 && ((count > 0 && call->in == NULL) || call->out == NULL))
        return bad(c, call->kind, "no memory given");
    if (call->elems > SIZE_MAX / 4096)
        return bad(c, call->kind, "too many elements");
    return run(c, call);
}

trm_status trm_comm_reduce_tree(trm_comm *c, const float *parts, int first, int count, int leaves,
                                size_t elems, float *out)
{
    trmi_call call = {.kind = TRMI_CALL_REDUCE_TREE,
                      .dtype = TRM_DTYPE_F32,
                      .in = parts,
                      .out = out,
                      .elems = elems,
                      .first = first,
                      .count = count,
                      .leaves = leaves};

    return reduce_leaves(c, &call);
}

trm_status trm_comm_reduce_nodes(trm_comm *c, const float *nodes, int most, int first, int count,
                                 int leaves, size_t elems, float *out)
{
    trmi_call call = {.kind = TRMI_CALL_REDUCE_NODES,
                      .dtype = TRM_DTYPE_F32,
                      .in = nodes,
                      .out = out,
                      .elems = elems,
                      .first = first,
                      .count = count,
                      .leaves = leaves,
                      .most = most};

    return reduce_leaves(c, &call);
}

trm_status trm_comm_allgather(trm_comm *c, const void *in, void *out, const size_t *bytes)
{
    trmi_call call = {.kind = TRMI_CALL_ALLGATHER, .in = in, .out = out, .counts = bytes};
    size_t total = 0;

    if (bytes == NULL || !total_ok(bytes, c->size, 1, &total))
        return bad(c, call.kind, "want the bytes of each rank");
    if ((bytes[c->rank] > 0 && in == NULL) || (total > 0 && out == NULL))
        return bad(c, call.kind, "no memory given");
    return run(c, &call);
}

trm_status trm_comm_reduce_scatter(trm_comm *c, const void *in, void *out, const size_t *elems,
                                   trm_dtype dtype)
{
    trmi_call call = {.kind = TRMI_CALL_REDUCE_SCATTER,
                      .dtype = dtype,
                      .reduction = TRM_REDUCE_SUM,
                      .in = in,
                      .out = out,
                      .counts = elems};
    size_t total = 0;

    if (!trmi_sum_supports(dtype))
        return trm_fail(TRM_ERR_UNSUPPORTED,
                        "%s: reduce_scatter of %s: want f32, f64, f16, bf16, i32 or i64", c->label,
                        trm_dtype_name(dtype));
    if (elems == NULL || !total_ok(elems, c->size, 8, &total))
        return bad(c, call.kind, "want the elements of each rank");
    if ((total > 0 && in == NULL) || (elems[c->rank] > 0 && out == NULL))
        return bad(c, call.kind, "no memory given");
    call.elems = total;
    return run(c, &call);
}

trm_status trm_comm_alltoall(trm_comm *c, const void *in, const size_t *send_bytes, void *out,
                             const size_t *recv_bytes)
{
    trmi_call call = {.kind = TRMI_CALL_ALLTOALL,
                      .in = in,
                      .out = out,
                      .counts = send_bytes,
                      .recv_counts = recv_bytes};
    size_t sent = 0, got = 0;

    if (send_bytes == NULL || recv_bytes == NULL || !total_ok(send_bytes, c->size, 1, &sent) ||
        !total_ok(recv_bytes, c->size, 1, &got))
        return bad(c, call.kind, "want the bytes to and from each rank");
    if (send_bytes[c->rank] != recv_bytes[c->rank])
        return bad(c, call.kind, "what a rank sends itself is not what it receives from itself");
    if ((sent > 0 && in == NULL) || (got > 0 && out == NULL))
        return bad(c, call.kind, "no memory given");
    return run(c, &call);
}

trm_status trm_comm_exchange(trm_comm *c, const void *in, const size_t *bytes,
                             const void **peers_out)
{
    trmi_call call = {
        .kind = TRMI_CALL_EXCHANGE, .in = in, .counts = bytes, .peers_out = peers_out};

    if (bytes == NULL || peers_out == NULL)
        return bad(c, call.kind, "want the bytes of each rank and a place for their pointers");
    /* every rank looks at all sizes, so that all of them refuse */
    for (int r = 0; r < c->size; r++)
        if (bytes[r] > trm_comm_slot_bytes(c))
            return trm_fail(TRM_ERR_INVALID_ARG,
                            "%s: exchange: %zu bytes of rank %d, the window has %zu", c->label,
                            bytes[r], r, trm_comm_slot_bytes(c));
    if (bytes[c->rank] > 0 && in == NULL)
        return bad(c, call.kind, "no memory given");
    return run(c, &call);
}

trm_status trm_comm_broadcast(trm_comm *c, void *data, size_t bytes, int root)
{
    trmi_call call = {
        .kind = TRMI_CALL_BROADCAST, .in = data, .out = data, .elems = bytes, .root = root};

    if (root < 0 || root >= c->size)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: broadcast from rank %d of %d", c->label, root,
                        c->size);
    if (bytes > 0 && data == NULL)
        return bad(c, call.kind, "no memory given");
    return run(c, &call);
}

trm_status trm_comm_barrier(trm_comm *c)
{
    trmi_call call = {.kind = TRMI_CALL_BARRIER};

    return run(c, &call);
}

trm_status trm_comm_agree(trm_comm *c, trm_status mine)
{
    trmi_call call = {.kind = TRMI_CALL_AGREE, .mine = mine};

    if (c->broken && mine != TRM_OK)
        return mine; /* its own failure says more than that nobody can be told */
    return run(c, &call);
}

/* ---- point to point ---- */

static bool peer_ok(const trm_comm *c, int peer)
{
    return peer >= 0 && peer < c->size && peer != c->rank;
}

trm_status trm_comm_send(trm_comm *c, int to, const trm_piece *pieces, int count)
{
    size_t bytes = 0;
    int64_t start;

    if (!peer_ok(c, to))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: rank %d sends to rank %d of %d", c->label,
                        c->rank, to, c->size);
    for (int i = 0; i < count; i++)
        if (pieces == NULL || (pieces[i].bytes > 0 && pieces[i].data == NULL) ||
            !trm_add_ok(bytes, pieces[i].bytes, &bytes) || bytes > SIZE_MAX / 2)
            return trm_fail(TRM_ERR_INVALID_ARG, "%s: piece %d of a message has no data", c->label,
                            i);
    if (c->broken)
        return refuse(c, "send");
    start = trm_now_us();
    c->stats.messages++;
    c->stats.message_bytes += bytes;
    return finish(c, c->ops->send(c, to, pieces, count), start);
}

trm_status trm_comm_receive(trm_comm *c, int from, bool idle, const void **data_out,
                            size_t *bytes_out)
{
    int64_t start;

    if (!peer_ok(c, from) || data_out == NULL || bytes_out == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: rank %d receives from rank %d of %d", c->label,
                        c->rank, from, c->size);
    if (c->broken)
        return refuse(c, "receive");
    start = trm_now_us();
    return finish(c, c->ops->receive(c, from, idle, data_out, bytes_out), start);
}

trm_status trm_comm_try_receive(trm_comm *c, int from, bool *came_out, const void **data_out,
                                size_t *bytes_out)
{
    trm_status st;

    if (!peer_ok(c, from) || came_out == NULL || data_out == NULL || bytes_out == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: rank %d receives from rank %d of %d", c->label,
                        c->rank, from, c->size);
    *came_out = false;
    if (!c->broken && !c->ops->pending(c, from))
        return c->ops->look == NULL ? TRM_OK : finish(c, c->ops->look(c, from), trm_now_us());
    st = trm_comm_receive(c, from, false, data_out, bytes_out);
    *came_out = st == TRM_OK;
    return st;
}

bool trm_comm_pending(trm_comm *c, int from)
{
    return !c->broken && peer_ok(c, from) && c->ops->pending(c, from);
}
