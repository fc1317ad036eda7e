/* What a call is called, how much it carries, and whether all ranks make the same one. */
#include "parallel/comm_impl.h"

#include <stdio.h>
#include <string.h>

const char *trmi_call_name(trmi_call_kind kind)
{
    static const char *const names[TRMI_CALL_COUNT] = {
        [TRMI_CALL_BARRIER] = "barrier",           [TRMI_CALL_AGREE] = "agree",
        [TRMI_CALL_ALLREDUCE] = "allreduce",       [TRMI_CALL_REDUCE_TREE] = "reduce_tree",
        [TRMI_CALL_ALLGATHER] = "allgather",       [TRMI_CALL_REDUCE_SCATTER] = "reduce_scatter",
        [TRMI_CALL_ALLTOALL] = "alltoall",         [TRMI_CALL_EXCHANGE] = "exchange",
        [TRMI_CALL_BROADCAST] = "broadcast",       [TRMI_CALL_RESERVE] = "reserve",
        [TRMI_CALL_REDUCE_NODES] = "reduce_nodes",
    };

    return (int)kind > 0 && kind < TRMI_CALL_COUNT ? names[kind] : "call";
}

static size_t sum(const size_t *counts, int size)
{
    size_t total = 0;

    for (int r = 0; r < size; r++)
        total += counts[r];
    return total;
}

size_t trmi_call_bytes(const trm_comm *c, const trmi_call *call)
{
    switch (call->kind) {
    case TRMI_CALL_ALLREDUCE:
    case TRMI_CALL_REDUCE_SCATTER:
        return call->elems * trm_dtype_bytes(call->dtype);
    case TRMI_CALL_REDUCE_TREE:
    case TRMI_CALL_REDUCE_NODES:
        return call->elems * sizeof(float);
    case TRMI_CALL_ALLGATHER:
    case TRMI_CALL_EXCHANGE:
        return call->counts[c->rank];
    case TRMI_CALL_ALLTOALL:
        return sum(call->counts, c->size);
    case TRMI_CALL_BROADCAST:
        return c->rank == call->root ? call->elems : 0;
    default:
        return 0;
    }
}

/* FNV-1a over the counts: two ranks that split a total differently are found as well */
static uint32_t hash(const size_t *counts, int size)
{
    uint64_t h = 1469598103934665603u;

    for (int r = 0; r < size; r++)
        h = (h ^ counts[r]) * 1099511628211u;
    return (uint32_t)(h ^ (h >> 32));
}

trmi_sign trmi_call_sign(const trm_comm *c, const trmi_call *call)
{
    trmi_sign s = {.kind = (uint8_t)call->kind,
                   .dtype = (uint8_t)call->dtype,
                   .reduction = (uint8_t)call->reduction,
                   .root = (uint8_t)call->root};

    switch (call->kind) {
    case TRMI_CALL_ALLREDUCE:
        s.bytes = call->elems * trm_dtype_bytes(call->dtype);
        break;
    case TRMI_CALL_REDUCE_TREE:
    case TRMI_CALL_REDUCE_NODES:
        s.bytes = call->elems * sizeof(float);
        s.check = (uint32_t)call->leaves | (uint32_t)call->most << 16;
        break;
    case TRMI_CALL_ALLGATHER:
    case TRMI_CALL_EXCHANGE:
        s.bytes = sum(call->counts, c->size);
        s.check = hash(call->counts, c->size);
        break;
    case TRMI_CALL_REDUCE_SCATTER:
        s.bytes = call->elems * trm_dtype_bytes(call->dtype);
        s.check = hash(call->counts, c->size);
        break;
    case TRMI_CALL_BROADCAST:
        s.bytes = call->elems;
        break;
    default: /* alltoall's sizes differ by nature: the receiver compares them */
        break;
    }
    return s;
}

static void text(const trmi_sign *s, char *buf, size_t bytes)
{
    char dtype[32] = "", detail[48] = "";

    if (s->dtype > 0 && s->dtype < TRM_DTYPE_COUNT)
        snprintf(dtype, sizeof(dtype), " of %s", trm_dtype_name((trm_dtype)s->dtype));
    switch ((trmi_call_kind)s->kind) {
    case TRMI_CALL_ALLREDUCE:
        snprintf(detail, sizeof(detail), ", %s", s->reduction == TRM_REDUCE_MAX ? "max" : "sum");
        break;
    case TRMI_CALL_BROADCAST:
        snprintf(detail, sizeof(detail), " from rank %d", s->root);
        break;
    case TRMI_CALL_REDUCE_TREE:
        snprintf(detail, sizeof(detail), " over %u leaves", s->check);
        break;
    case TRMI_CALL_REDUCE_NODES:
        snprintf(detail, sizeof(detail), " over %u leaves, at most %u nodes a rank",
                 s->check & 0xffff, s->check >> 16);
        break;
    case TRMI_CALL_ALLGATHER:
    case TRMI_CALL_EXCHANGE:
    case TRMI_CALL_REDUCE_SCATTER:
        snprintf(detail, sizeof(detail), " (division %08x)", s->check);
        break;
    default:
        break;
    }
    snprintf(buf, bytes, "%s with %llu bytes%s%s", trmi_call_name((trmi_call_kind)s->kind),
             (unsigned long long)s->bytes, dtype, detail);
}

trm_status trmi_signs_agree(const trm_comm *c, const void *signs, size_t stride)
{
    const trmi_sign *zero = signs;
    char first[128], other[128];

    for (int r = 1; r < c->size; r++) {
        const trmi_sign *s = (const trmi_sign *)((const char *)signs + stride * (size_t)r);

        if (s->kind == zero->kind && s->dtype == zero->dtype && s->reduction == zero->reduction &&
            s->root == zero->root && s->check == zero->check && s->bytes == zero->bytes)
            continue;
        text(zero, first, sizeof(first));
        text(s, other, sizeof(other));
        return trm_fail(TRM_ERR_COMM, "%s: ranks disagree: rank %d calls %s, rank 0 calls %s",
                        c->label, r, other, first);
    }
    return TRM_OK;
}
