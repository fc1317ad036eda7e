/* Who the replicas are, what each may take, and which of them is to be given up. Bookkeeping and
 * arithmetic on times handed in: no socket, no clock. One owner: the router's thread. */
#ifndef TRM_COORDINATOR_REGISTRY_H
#define TRM_COORDINATOR_REGISTRY_H

#include "base/link_zmq.h"
#include "base/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trm_replica_state {
    TRM_REPLICA_JOINED,   /* has said HELLO */
    TRM_REPLICA_READY,    /* takes records */
    TRM_REPLICA_DRAINING, /* finishes what it has */
    TRM_REPLICA_DEAD      /* given up; what it still says is ignored */
} trm_replica_state;

typedef struct trm_replica {
    char peer[TRM_LINK_PEER_BYTES]; /* "replica/epoch" */
    char host[128];
    int rank, pid;
    trm_replica_state state;
    uint32_t credits; /* records it will still take */
    int batch_max;
    int in_flight; /* records sent and not answered */
    uint64_t done;
    trm_wire_phase phase;
    uint64_t progress;
    int64_t heard_us; /* last message of any kind */
    int64_t moved_us; /* last time progress changed, or work was given to an idle replica */
    char reason[256]; /* DEAD: why */
} trm_replica;

typedef struct trm_registry {
    trm_replica *replicas;
    int count, count_max;
} trm_registry;

/* After these times, in microseconds, a replica is given up. */
typedef struct trm_registry_limits {
    int64_t silence_us; /* nothing heard */
    int64_t stuck_us;   /* it beats, has work, and its progress counter does not move */
} trm_registry_limits;

void trm_registry_fini(trm_registry *r);
/* HELLO. INVALID_ARG: that identity is known already. */
TRM_MUST_USE trm_status trm_registry_join(trm_registry *r, const char *peer,
                                          const trm_wire_message *hello, int64_t now_us,
                                          int *replica_out);
int trm_registry_find(const trm_registry *r, const char *peer); /* -1; dead ones are found too */
/* Anything but HELLO: notes the time and applies READY, CREDIT, HEARTBEAT and DRAIN. COMM: the
 * message makes no sense from this replica. */
TRM_MUST_USE trm_status trm_registry_hear(trm_registry *r, int replica, const trm_wire_message *m,
                                          int64_t now_us);
/* The replica to serve next: READY, with credit, fewest records in flight; -1: none. */
int trm_registry_pick(const trm_registry *r);
void trm_registry_sent(trm_registry *r, int replica, int records, int64_t now_us);
void trm_registry_answered(trm_registry *r, int replica, int records);
/* This process has not run for `us`: adds that to what each replica may be silent or stuck. */
void trm_registry_forgive(trm_registry *r, int64_t us);
/* A replica past a limit, with the reason as this thread's message; -1: none. */
int trm_registry_overdue(const trm_registry *r, const trm_registry_limits *limits, int64_t now_us);
/* Gives it up; `reason` is kept. */
void trm_registry_give_up(trm_registry *r, int replica, const char *reason);
int trm_registry_alive(const trm_registry *r);
int trm_registry_ready(const trm_registry *r);
/* "replica 2/1 (rank 2, pid 4711 on node7)" into buf; returns buf. */
char *trm_replica_text(const trm_replica *replica, char *buf, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
