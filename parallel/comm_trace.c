/* The wrapper that logs each call with its bytes and its time. */
#include "base/log.h"
#include "base/wait.h"
#include "parallel/comm_impl.h"

#include <stdio.h>

struct trace {
    struct trm_comm base;
    trm_comm *inner;
};

static trm_comm *inner(const trm_comm *c)
{
    return ((const struct trace *)c)->inner;
}

static void tell(const trm_comm *c, const char *what, int peer, size_t bytes, int64_t start,
                 trm_status st)
{
    char with[32] = "";

    if (peer >= 0)
        snprintf(with, sizeof(with), " rank %d", peer);
    TRM_LOG(TRM_LOG_DEBUG, "comm", "%s: %llu: %s%s, %zu bytes, %lld us%s%s", inner(c)->label,
            (unsigned long long)(c->stats.collectives + c->stats.messages), what, with, bytes,
            (long long)(trm_now_us() - start),
            st == TRM_OK ? "" : ", failed: ", st == TRM_OK ? "" : trm_status_name(st));
}

static trm_status collective(trm_comm *c, const trmi_call *call)
{
    int64_t start = trm_now_us();
    trm_status st = inner(c)->ops->collective(inner(c), call);

    tell(c, trmi_call_name(call->kind), -1, trmi_call_bytes(c, call), start, st);
    return st;
}

static trm_status slot_get(trm_comm *c, size_t bytes, void **slot_out)
{
    return trm_comm_slot_get(inner(c), bytes, slot_out);
}

static size_t slot_bytes(const trm_comm *c)
{
    return trm_comm_slot_bytes(inner(c));
}

static trm_status trace_send(trm_comm *c, int to, const trm_piece *pieces, int count)
{
    int64_t start = trm_now_us();
    trm_status st = inner(c)->ops->send(inner(c), to, pieces, count);
    size_t bytes = 0;

    for (int i = 0; i < count; i++)
        bytes += pieces[i].bytes;
    tell(c, "send to", to, bytes, start, st);
    return st;
}

static trm_status trace_receive(trm_comm *c, int from, bool idle, const void **data_out,
                                size_t *bytes_out)
{
    int64_t start = trm_now_us();
    trm_status st = inner(c)->ops->receive(inner(c), from, idle, data_out, bytes_out);

    tell(c, idle ? "receive while idle from" : "receive from", from, st == TRM_OK ? *bytes_out : 0,
         start, st);
    return st;
}

static bool pending(trm_comm *c, int from)
{
    return trm_comm_pending(inner(c), from);
}

static trm_status look(trm_comm *c, int from)
{
    return inner(c)->ops->look == NULL ? TRM_OK : inner(c)->ops->look(inner(c), from);
}

static void set_timeout(trm_comm *c, int64_t timeout_ms)
{
    trm_comm_set_timeout(inner(c), timeout_ms);
}

static void give_up(trm_comm *c, const char *why)
{
    if (inner(c)->ops->give_up != NULL)
        inner(c)->ops->give_up(inner(c), why);
}

static void destroy(trm_comm *c)
{
    TRM_LOG(TRM_LOG_DEBUG, "comm",
            "%s: %llu collectives with %llu bytes, %llu messages with %llu bytes, %llu us in calls",
            inner(c)->label, (unsigned long long)c->stats.collectives,
            (unsigned long long)c->stats.collective_bytes, (unsigned long long)c->stats.messages,
            (unsigned long long)c->stats.message_bytes, (unsigned long long)c->stats.wait_us);
    trm_comm_destroy(inner(c));
    trm_free(c);
}

trm_status trm_comm_trace_create(trm_comm *inner_comm, trm_comm **comm_out)
{
    static const trm_comm_ops ops = {.name = "trace",
                                     .collective = collective,
                                     .slot_get = slot_get,
                                     .slot_bytes = slot_bytes,
                                     .send = trace_send,
                                     .receive = trace_receive,
                                     .pending = pending,
                                     .look = look,
                                     .set_timeout = set_timeout,
                                     .give_up = give_up,
                                     .destroy = destroy};
    struct trace *t = trm_calloc(1, sizeof(*t));

    if (t == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "communicator: host object");
    trmi_comm_base(&t->base, &ops, inner_comm->rank, inner_comm->size);
    trmi_comm_label(&t->base, inner_comm->label);
    snprintf(t->base.name, sizeof(t->base.name), "trace(%.20s)", inner_comm->name);
    t->inner = inner_comm;
    *comm_out = &t->base;
    return TRM_OK;
}
