/* Replicas: who is there, who is to be given up, and which of them gets a request. */
#include "coordinator/fleet.h"
#include "coordinator/fleet_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 65536
#define LOADING_FACTOR 10 /* of stuck_us, while it loads or takes a first step */
#define AFFINITY_SLACK 2  /* requests more than the least: still worth a warm prefix */

/* ---- who is there ---- */

/* Digits up to `end`. */
static bool parse_number(const char *text, char end, int max, int *value_out, const char **rest_out)
{
    char *rest;
    long v;

    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    v = strtol(text, &rest, 10);
    if (errno != 0 || v < 0 || v > max || *rest != end)
        return false;
    *value_out = (int)v;
    *rest_out = rest;
    return true;
}

trm_fleet_replica *trm_fleet_by_peer(const trm_fleet *f, const char *peer)
{
    for (int i = 0; i < f->replica_count; i++)
        if (strcmp(f->replicas[i]->peer, peer) == 0)
            return f->replicas[i];
    return NULL;
}

trm_status trm_fleet_join(trm_fleet *f, const char *peer, const trm_wire_message *hello,
                          int64_t now_us, trm_fleet_replica **replica_out,
                          trm_fleet_replica **replaced_out)
{
    trm_fleet_replica *r, *old = NULL;
    int number, epoch;
    const char *rest;

    if (!parse_number(peer, '/', NUMBER_MAX, &number, &rest) ||
        !parse_number(rest + 1, '\0', INT32_MAX, &epoch, &rest))
        return trm_fail(TRM_ERR_INVALID_ARG, "'%s' is not a replica's identity (number/epoch)",
                        peer);
    for (int i = 0; i < f->replica_count; i++) {
        r = f->replicas[i];
        if (r->number != number)
            continue;
        if (r->epoch >= epoch)
            return trm_fail(TRM_ERR_INVALID_ARG, "replica %s: %s has been here", peer, r->peer);
        if (r->state != TRM_FLEET_DEAD)
            old = r;
    }
    if (f->replica_count == TRM_FLEET_REPLICAS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "more than %d replicas", TRM_FLEET_REPLICAS_MAX);
    TRM_CHECK(
        trmi_fleet_grow(&f->replicas, f->replica_count, &f->replica_max, sizeof(*f->replicas)));
    r = trm_calloc(1, sizeof(*r));
    if (r == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "fleet: a replica");
    snprintf(r->peer, sizeof(r->peer), "%s", peer);
    snprintf(r->host, sizeof(r->host), "%s", hello->host != NULL ? hello->host : "");
    r->number = number;
    r->epoch = epoch;
    r->rank = hello->rank;
    r->pid = hello->pid;
    r->heard_us = r->moved_us = now_us;
    f->replicas[f->replica_count++] = r;
    f->joined++;
    *replica_out = r;
    *replaced_out = old;
    return TRM_OK;
}

trm_status trm_fleet_hear(trm_fleet *f, trm_fleet_replica *r, const trm_wire_message *m,
                          int64_t now_us, uint64_t now_s, bool *changed_out)
{
    *changed_out = false;
    r->heard_us = now_us;
    switch (m->kind) {
    case TRM_WIRE_HEARTBEAT:
        if (m->progress != r->progress || m->phase != r->phase)
            r->moved_us = now_us;
        r->progress = m->progress;
        r->phase = m->phase;
        return TRM_OK;
    case TRM_WIRE_MODEL:
        r->moved_us = now_us;
        return trmi_fleet_model(f, r, m->u.model, now_s, changed_out);
    case TRM_WIRE_DRAIN:
        *changed_out = r->state == TRM_FLEET_JOINED;
        r->state = TRM_FLEET_DRAINING;
        return TRM_OK;
    case TRM_WIRE_PART:
    case TRM_WIRE_ANSWER:
    case TRM_WIRE_STATS:
    case TRM_WIRE_RELEASE:
    case TRM_WIRE_ERROR:
        return TRM_OK; /* the hub's business */
    default:
        return trm_fail(TRM_ERR_COMM, "a %s message from a replica", trm_wire_kind_name(m->kind));
    }
}

void trm_fleet_forgive(trm_fleet *f, int64_t us)
{
    for (int i = 0; i < f->replica_count; i++) {
        f->replicas[i]->heard_us += us;
        f->replicas[i]->moved_us += us;
    }
}

static bool loads(const trm_fleet_replica *r)
{
    for (int i = 0; i < r->place_count; i++)
        if (r->places[i].state == TRM_MODEL_LOADING)
            return true;
    return false;
}

bool trmi_fleet_busy(const trm_fleet_replica *r)
{
    if (r->in_flight > 0)
        return true;
    for (int i = 0; i < r->place_count; i++)
        if (r->places[i].state == TRM_MODEL_LOADING || r->places[i].state == TRM_MODEL_DRAINING)
            return true;
    return false;
}

trm_fleet_replica *trm_fleet_overdue(const trm_fleet *f, const trm_fleet_limits *limits,
                                     int64_t now_us)
{
    for (int i = 0; i < f->replica_count; i++) {
        trm_fleet_replica *r = f->replicas[i];
        /* a model is opened beside the executor, whose phase is idle then */
        bool slow = r->phase == TRM_PHASE_LOADING || r->phase == TRM_PHASE_FIRST_STEP ||
                    (r->in_flight == 0 && loads(r));
        int64_t stuck_us = limits->stuck_us * (slow ? LOADING_FACTOR : 1);

        if (r->state == TRM_FLEET_DEAD)
            continue;
        if (now_us - r->heard_us > limits->silence_us) {
            (void)trm_fail(TRM_ERR_COMM, "nothing heard for %.1f s",
                           (double)(now_us - r->heard_us) / 1e6);
            return r;
        }
        if (now_us - r->moved_us > stuck_us && trmi_fleet_busy(r)) {
            (void)trm_fail(TRM_ERR_COMM, "stuck: no progress for %.1f s in phase '%s'",
                           (double)(now_us - r->moved_us) / 1e6, trm_wire_phase_name(r->phase));
            return r;
        }
    }
    return NULL;
}

void trm_fleet_give_up(trm_fleet *f, trm_fleet_replica *r, const char *reason, bool lost,
                       int64_t now_us)
{
    if (r->state == TRM_FLEET_DEAD)
        return;
    trmi_fleet_clear(r);
    r->state = TRM_FLEET_DEAD;
    r->dead_us = now_us;
    r->lost = lost;
    snprintf(r->reason, sizeof(r->reason), "%s", reason);
    f->dead++;
    f->lost += lost;
    for (int i = 0; i < TRM_FLEET_PREFIXES; i++)
        if (f->prefixes[i].replica == r)
            f->prefixes[i].replica = NULL;
}

static bool has_newer(const trm_fleet *f, const trm_fleet_replica *r)
{
    for (int i = 0; i < f->replica_count; i++)
        if (f->replicas[i]->number == r->number && f->replicas[i]->epoch > r->epoch)
            return true;
    return false;
}

void trm_fleet_forget(trm_fleet *f, int64_t now_us)
{
    for (int i = f->replica_count - 1; i >= 0; i--) {
        trm_fleet_replica *r = f->replicas[i];

        if (r->state != TRM_FLEET_DEAD || now_us - r->dead_us <= TRM_FLEET_REMEMBER_US ||
            !has_newer(f, r))
            continue;
        f->replica_count--;
        memmove(&f->replicas[i], &f->replicas[i + 1],
                (size_t)(f->replica_count - i) * sizeof(*f->replicas));
        trmi_fleet_free_replica(r);
    }
}

int trm_fleet_alive(const trm_fleet *f)
{
    int n = 0;

    for (int i = 0; i < f->replica_count; i++)
        n += f->replicas[i]->state != TRM_FLEET_DEAD;
    return n;
}

const char *trm_fleet_replica_state_name(const trm_fleet *f, const trm_fleet_replica *r)
{
    if (r->state == TRM_FLEET_DEAD)
        return "dead";
    if (r->state == TRM_FLEET_DRAINING)
        return "draining";
    for (int i = 0; i < f->copy_count; i++) {
        const trm_fleet_place *p;

        if (f->copies[i]->role != TRM_FLEET_CURRENT || !trm_fleet_wants(f->copies[i]->model, r))
            continue;
        p = trm_fleet_place_of(r, f->copies[i]);
        if (p == NULL)
            return "joining";
        if (p->state == TRM_MODEL_LOADING)
            return "loading";
    }
    return "ready";
}

char *trm_fleet_replica_text(const trm_fleet_replica *r, char *buf, size_t bytes)
{
    snprintf(buf, bytes, "replica %s (rank %d, pid %d on %s)", r->peer, r->rank, r->pid, r->host);
    return buf;
}

/* ---- who gets a request ---- */

static bool can_take(const trm_fleet_replica *r, const trm_fleet_place *p)
{
    return r->state == TRM_FLEET_JOINED && p != NULL && p->state == TRM_MODEL_READY &&
           p->in_flight < p->credits;
}

uint32_t trm_fleet_free_credit(const trm_fleet *f, const trm_fleet_copy *copy)
{
    uint32_t n = 0;

    for (int i = 0; i < f->replica_count; i++) {
        const trm_fleet_place *p = trm_fleet_place_of(f->replicas[i], copy);

        if (can_take(f->replicas[i], p))
            n += p->credits - p->in_flight; /* at most 2^20 each, 4,096 of them */
    }
    return n;
}

uint64_t trm_fleet_prefix(const trm_fleet_model *m, const void *body, size_t bytes)
{
    const unsigned char *p = body;
    uint64_t h = 14695981039346656037u ^ (uint64_t)m->index;

    if (bytes > TRM_FLEET_PREFIX_BYTES)
        bytes = TRM_FLEET_PREFIX_BYTES;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h != 0 ? h : 1;
}

/* `a` is used less than `b`: by the part of the credit, then by all that the replicas have, then by
 * turns. */
static bool less_used(const trm_fleet_replica *a, const trm_fleet_place *pa,
                      const trm_fleet_replica *b, const trm_fleet_place *pb)
{
    uint64_t ua = (uint64_t)pa->in_flight * pb->credits, ub = (uint64_t)pb->in_flight * pa->credits;

    if (ua != ub)
        return ua < ub;
    if (a->in_flight != b->in_flight)
        return a->in_flight < b->in_flight;
    return a->picked < b->picked;
}

trm_fleet_replica *trm_fleet_pick(const trm_fleet *f, const trm_fleet_copy *copy, uint64_t prefix)
{
    trm_fleet_replica *best = NULL, *warm = NULL;
    const trm_fleet_place *best_place = NULL;
    int least = INT32_MAX;

    for (int i = 0; i < f->replica_count; i++) {
        trm_fleet_replica *r = f->replicas[i];
        const trm_fleet_place *p = trm_fleet_place_of(r, copy);

        if (!can_take(r, p))
            continue;
        if (best == NULL || less_used(r, p, best, best_place)) {
            best = r;
            best_place = p;
        }
        if (r->in_flight < least)
            least = r->in_flight;
    }
    if (best == NULL || prefix == 0 || f->prefixes[prefix % TRM_FLEET_PREFIXES].hash != prefix)
        return best;
    warm = f->prefixes[prefix % TRM_FLEET_PREFIXES].replica;
    if (warm != NULL && can_take(warm, trm_fleet_place_of(warm, copy)) &&
        warm->in_flight <= least + AFFINITY_SLACK)
        return warm;
    return best;
}

void trm_fleet_sent(trm_fleet *f, trm_fleet_replica *r, trm_fleet_copy *copy, uint64_t prefix,
                    int64_t now_us)
{
    if (!trmi_fleet_busy(r))
        r->moved_us = now_us; /* it was idle: its time starts now */
    r->in_flight++;
    trm_fleet_place_of(r, copy)->in_flight++;
    r->picked = ++f->picks;
    if (prefix != 0) {
        f->prefixes[prefix % TRM_FLEET_PREFIXES].hash = prefix;
        f->prefixes[prefix % TRM_FLEET_PREFIXES].replica = r;
    }
}

void trm_fleet_answered(trm_fleet_replica *r, const trm_fleet_copy *copy)
{
    r->in_flight--;
    r->done++;
    trm_fleet_place_of(r, copy)->in_flight--;
}
