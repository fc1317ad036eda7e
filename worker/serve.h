/* A replica that serves: the ranks of one tensor x pipeline layout, several models, one leader.
 *
 * The leader has two threads. A helper owns the DEALER: it says HELLO, beats four times a second
 * with the phase and progress of the executor, hands frames over and sends what the executor
 * answers. The executor, the caller's thread, takes requests as they come and gives the models that
 * have work turns of a step; with nothing to do it sleeps. The other ranks follow: they sleep until
 * the leader says which model's steps come next, or that a model is to be loaded or freed. All
 * communicators were made before; models share them, which is why they take turns: before another
 * model's turn everything of the last one has been collected.
 *
 * It ends on STOP, or when the coordinator has been silent longer than the lease: a replica that
 * nobody hears must not go on. */
#ifndef TRM_WORKER_SERVE_H
#define TRM_WORKER_SERVE_H

#include "base/link_zmq.h"
#include "worker/tensor_model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_serve_options {
    /* every rank of the replica */
    trm_job *job;           /* its ranks alone (trm_job_part), rank 0 leads */
    trm_comm *replica_comm; /* NULL: one rank */
    trm_comm *stage_comm;   /* NULL: one shard */
    int tensor, pipeline;
    trm_device *device;
    int threads, cores;  /* of a rank, of the host: trm_tensor_model_options */
    size_t memory_bytes; /* a rank may take; 0: no limit */
    trm_objective objective;
    /* the leader */
    trm_link_context *context;
    const char *endpoint;
    const char *identity; /* "replica/epoch" */
    int rank;             /* in the whole job: for HELLO */
    int64_t lease_ms;     /* 0: 10,000; scaled */
} trm_serve_options;

/* Collective over the replica. *lost_out: a replica or rank was lost, MPI must not be finalised.
 * COMM: the coordinator, or a rank of the replica, is gone. */
TRM_MUST_USE trm_status trm_serve_run(const trm_serve_options *options, bool *lost_out);

#ifdef __cplusplus
}
#endif
#endif
