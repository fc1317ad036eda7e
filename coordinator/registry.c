/* The table of replicas. */
#include "coordinator/registry.h"

#include <stdio.h>
#include <string.h>

#define REPLICAS_MAX 65536
#define CREDITS_MAX (1u << 20)

void trm_registry_fini(trm_registry *r)
{
    trm_free(r->replicas);
    memset(r, 0, sizeof(*r));
}

int trm_registry_find(const trm_registry *r, const char *peer)
{
    for (int i = 0; i < r->count; i++)
        if (strcmp(r->replicas[i].peer, peer) == 0)
            return i;
    return -1;
}

trm_status trm_registry_join(trm_registry *r, const char *peer, const trm_wire_message *hello,
                             int64_t now_us, int *replica_out)
{
    trm_replica *p;

    if (trm_registry_find(r, peer) >= 0)
        return trm_fail(TRM_ERR_INVALID_ARG, "replica %s has joined already", peer);
    if (r->count == REPLICAS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "more than %d replicas", REPLICAS_MAX);
    if (r->count == r->count_max) {
        int room = r->count_max == 0 ? 8 : r->count_max * 2;
        trm_replica *grown = trm_realloc(r->replicas, (size_t)room, sizeof(*grown));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "registry of %d replicas", room);
        r->replicas = grown;
        r->count_max = room;
    }
    p = &r->replicas[r->count];
    memset(p, 0, sizeof(*p));
    snprintf(p->peer, sizeof(p->peer), "%s", peer);
    snprintf(p->host, sizeof(p->host), "%s", hello->host);
    p->rank = hello->rank;
    p->pid = hello->pid;
    p->heard_us = p->moved_us = now_us;
    *replica_out = r->count++;
    return TRM_OK;
}

trm_status trm_registry_hear(trm_registry *r, int replica, const trm_wire_message *m,
                             int64_t now_us)
{
    trm_replica *p = &r->replicas[replica];

    p->heard_us = now_us;
    switch (m->kind) {
    case TRM_WIRE_READY:
        if (p->state != TRM_REPLICA_JOINED || m->batch_max == 0)
            return trm_fail(TRM_ERR_COMM, "READY out of turn");
        p->state = TRM_REPLICA_READY;
        p->batch_max = (int)m->batch_max;
        p->credits = m->credits < CREDITS_MAX ? m->credits : CREDITS_MAX;
        p->moved_us = now_us;
        return TRM_OK;
    case TRM_WIRE_CREDIT:
        if (m->credits > CREDITS_MAX - p->credits)
            return trm_fail(TRM_ERR_COMM, "credit for over %u records", CREDITS_MAX);
        p->credits += m->credits;
        return TRM_OK;
    case TRM_WIRE_HEARTBEAT:
        if (m->progress != p->progress || m->phase != p->phase)
            p->moved_us = now_us;
        p->progress = m->progress;
        p->phase = m->phase;
        return TRM_OK;
    case TRM_WIRE_DRAIN:
        if (p->state == TRM_REPLICA_READY)
            p->state = TRM_REPLICA_DRAINING;
        return TRM_OK;
    case TRM_WIRE_RESULT:
    case TRM_WIRE_ERROR:
        return TRM_OK; /* the router's business */
    default:
        return trm_fail(TRM_ERR_COMM, "a %s message from a replica", trm_wire_kind_name(m->kind));
    }
}

int trm_registry_pick(const trm_registry *r)
{
    int best = -1;

    for (int i = 0; i < r->count; i++) {
        const trm_replica *p = &r->replicas[i];

        if (p->state == TRM_REPLICA_READY && p->credits > 0 &&
            (best < 0 || p->in_flight < r->replicas[best].in_flight))
            best = i;
    }
    return best;
}

void trm_registry_sent(trm_registry *r, int replica, int records, int64_t now_us)
{
    trm_replica *p = &r->replicas[replica];

    if (p->in_flight == 0)
        p->moved_us = now_us; /* it was idle: its time starts now */
    p->credits -= (uint32_t)records;
    p->in_flight += records;
}

void trm_registry_answered(trm_registry *r, int replica, int records)
{
    r->replicas[replica].in_flight -= records;
    r->replicas[replica].done += (uint64_t)records;
}

void trm_registry_forgive(trm_registry *r, int64_t us)
{
    for (int i = 0; i < r->count; i++) {
        r->replicas[i].heard_us += us;
        r->replicas[i].moved_us += us;
    }
}

int trm_registry_overdue(const trm_registry *r, const trm_registry_limits *limits, int64_t now_us)
{
    for (int i = 0; i < r->count; i++) {
        const trm_replica *p = &r->replicas[i];

        if (p->state == TRM_REPLICA_DEAD)
            continue;
        if (now_us - p->heard_us > limits->silence_us) {
            (void)trm_fail(TRM_ERR_COMM, "nothing heard for %.1f s",
                           (double)(now_us - p->heard_us) / 1e6);
            return i;
        }
        if (p->in_flight > 0 && now_us - p->moved_us > limits->stuck_us) {
            (void)trm_fail(TRM_ERR_COMM, "stuck: no progress for %.1f s in phase '%s'",
                           (double)(now_us - p->moved_us) / 1e6, trm_wire_phase_name(p->phase));
            return i;
        }
    }
    return -1;
}

void trm_registry_give_up(trm_registry *r, int replica, const char *reason)
{
    trm_replica *p = &r->replicas[replica];

    p->state = TRM_REPLICA_DEAD;
    p->credits = 0;
    p->in_flight = 0;
    snprintf(p->reason, sizeof(p->reason), "%s", reason);
}

static int count_states(const trm_registry *r, unsigned mask)
{
    int n = 0;

    for (int i = 0; i < r->count; i++)
        n += (mask >> r->replicas[i].state & 1) != 0;
    return n;
}

int trm_registry_alive(const trm_registry *r)
{
    return count_states(r, ~(1u << TRM_REPLICA_DEAD));
}

int trm_registry_ready(const trm_registry *r)
{
    return count_states(r, 1u << TRM_REPLICA_READY);
}

char *trm_replica_text(const trm_replica *replica, char *buf, size_t bytes)
{
    snprintf(buf, bytes, "replica %s (rank %d, pid %d on %s)", replica->peer, replica->rank,
             replica->pid, replica->host);
    return buf;
}
