/* The router: one thread that owns the ROUTER socket, keeps the registry, hands records to replicas
 * by their credit and collects results. Submit and take are called by one other thread, the job's,
 * which sleeps while the window is full or the next result is not there. */
#ifndef TRM_COORDINATOR_ROUTER_H
#define TRM_COORDINATOR_ROUTER_H

#include "coordinator/registry.h"
#include "coordinator/window.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_router trm_router;

typedef struct trm_router_options {
    trm_link_context *context;
    const char *endpoint; /* as trm_link_bind */
    int replicas;         /* expected to join */
    int window;           /* records held at most */
    uint64_t first_id;    /* of the first record submitted (what --resume skips) */
    /* 0: defaults 30,000 (then it goes on without those that did not join), 2,000, 120,000; scaled
     */
    int64_t join_ms, silence_ms, stuck_ms;
} trm_router_options;

/* Binds, and starts the thread. */
TRM_MUST_USE trm_status trm_router_create(const trm_router_options *options,
                                          trm_router **router_out);
const char *trm_router_endpoint(const trm_router *router);

bool trm_router_is_full(trm_router *router);
int trm_router_held(trm_router *router); /* submitted and not taken */
/* See trm_window_submit. INVALID_ARG: full. */
TRM_MUST_USE trm_status trm_router_submit(trm_router *router, const trm_wire_record *record);
/* No more records will come: what is left is handed out in small shares. */
void trm_router_end_input(trm_router *router);
/* The next result in input order; sleeps until it is there or deadline_us. TIMEOUT leaves
 * trm_message alone. COMM: no replica is left, or none came; the message names the last. */
TRM_MUST_USE trm_status trm_router_take(trm_router *router, int64_t deadline_us,
                                        trm_taken *taken_out);

typedef struct trm_router_stats {
    int joined, dead;    /* dead: given up for any reason */
    int lost;            /* of those, the ones whose process may be gone */
    char last_dead[384]; /* "replica 2/1 (rank 2, ...): why"; "" */
} trm_router_stats;
void trm_router_get_stats(trm_router *router, trm_router_stats *stats_out);

/* Tells the replicas to stop and ends the thread. Returns true if MPI must not be finalised: a
 * replica died or did not come. */
bool trm_router_stop(trm_router *router);
void trm_router_destroy(trm_router *router); /* stops first; takes NULL */

#ifdef __cplusplus
}
#endif
#endif
