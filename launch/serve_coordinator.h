/* The coordinator of a serving cluster: hub and gateway, from start to drain. On rank 0 of a job
 * that also runs replicas it has a thread of its own; as a job of its own, the main thread. */
#ifndef TRM_LAUNCH_SERVE_COORDINATOR_H
#define TRM_LAUNCH_SERVE_COORDINATOR_H

#include "coordinator/gateway/gateway.h"
#include "launch/serve_config.h"

/* The line that says that all models are ready begins with it: trireme launch looks for it. */
#define TRM_SERVE_READY "trireme serve: ready after"

typedef struct trm_serve_coordinator trm_serve_coordinator;

typedef struct trm_serve_coordinator_options {
    const trm_serve_plan *plan; /* borrowed */
    trm_link_context *context;  /* borrowed */
    const char *endpoint;       /* for replicas, as trm_link_bind */
    bool in_job;                /* replicas are ranks of this job */
    const char *listen;         /* instead of the configuration's; NULL */
} trm_serve_coordinator_options;

/* SIGTERM, SIGINT, SIGHUP and SIGUSR1 are for the coordinator alone: blocked here, before any
 * thread is made, and waited for by it. Every rank calls it. */
void trm_serve_block_signals(void);

/* Makes the hub, so that replicas can connect. */
TRM_MUST_USE trm_status trm_serve_coordinator_create(const trm_serve_coordinator_options *options,
                                                     trm_serve_coordinator **coordinator_out);
const char *trm_serve_coordinator_endpoint(const trm_serve_coordinator *c);
/* Waits until all models are ready, opens the gateway, serves until SIGTERM, SIGINT or SIGUSR1,
 * drains, and tells the replicas to stop. Returns when all is over. */
TRM_MUST_USE trm_status trm_serve_coordinator_run(trm_serve_coordinator *c);
/* The same on a thread; join gives its status and message. */
TRM_MUST_USE trm_status trm_serve_coordinator_start(trm_serve_coordinator *c);
TRM_MUST_USE trm_status trm_serve_coordinator_join(trm_serve_coordinator *c);
/* A replica or rank was lost: MPI must not be finalised. */
bool trm_serve_coordinator_lost(const trm_serve_coordinator *c);
/* Ends it early: what serves is cut. Any thread. */
void trm_serve_coordinator_give_up(trm_serve_coordinator *c);
void trm_serve_coordinator_destroy(trm_serve_coordinator *c); /* takes NULL */

#endif
