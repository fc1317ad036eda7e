/* The leader of a replica: its DEALER, its heartbeats, and the loop that runs batches.
 *
 * A helper thread owns the link. It says HELLO, beats four times a second (so a busy executor is
 * not taken for a dead one, and the progress counter says whether it is a stuck one), hands batches
 * to the executor and sends what the executor answers. The executor, the caller's thread, sleeps
 * while there is nothing to do. It ends on STOP, or when the coordinator has been silent longer
 * than the lease: a replica that nobody hears must not go on. When the model fails, the coordinator
 * is told and the replica waits for STOP, idle: leaving early would end its MPI job for all. */
#ifndef TRM_WORKER_LEADER_H
#define TRM_WORKER_LEADER_H

#include "base/link_zmq.h"
#include "base/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_leader trm_leader;

/* What the loop runs. */
typedef struct trm_leader_model {
    void *ctx;
    int batch_max; /* records of one call */
    int credits;   /* records that may be here at once; 0: two calls' */
    /* Fills results_out[0..n) for records[0..n): status, message, outputs, labels (ids are set by
     * the loop). A record that cannot be run gets an error result of its own. `scratch` and the
     * records live until the results are sent. A failure means that the replica cannot go on. Calls
     * trm_leader_progress as it advances. */
    trm_status (*run)(void *ctx, trm_leader *leader, const trm_wire_record *records, int n,
                      trm_arena *scratch, trm_wire_result *results_out);
    /* A model that keeps calls under way has these, too: run may return before the results are
     * there. done: how many calls of run, in their order, are complete. wait: makes one or more
     * complete. drop: forgets what is under way; it is over, or failed. NULL: run completes. */
    int64_t (*done)(void *ctx);
    trm_status (*wait)(void *ctx, trm_leader *leader);
    void (*drop)(void *ctx);
} trm_leader_model;

typedef struct trm_leader_options {
    trm_link_context *context;
    const char *endpoint;
    const char *identity; /* "replica/epoch" */
    int rank;
    int64_t lease_ms; /* 0: 10,000; scaled */
} trm_leader_options;

/* Joins the coordinator, runs batches until STOP, leaves. *lost_out: the coordinator said that a
 * replica had died (see TRM_WIRE_STOP). COMM: the coordinator is gone; otherwise the model's
 * failure, which the coordinator has been told. */
TRM_MUST_USE trm_status trm_leader_run(const trm_leader_options *options,
                                       const trm_leader_model *model, bool *lost_out);

/* Something was done: moves the counter that heartbeats carry. Executor thread. */
void trm_leader_progress(trm_leader *leader);

#ifdef __cplusplus
}
#endif
#endif
