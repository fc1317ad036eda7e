/* A replica: tensor x pipeline ranks that run one model together.
 *
 * Its rank 0 (stage 0, shard 0) is the leader: it alone decides each step and announces it as one
 * compact step plan to the others, which follow: they sleep until a step comes, run their stage on
 * their shard, pass on what crosses, and wait again. Input bytes go from the leader to the shards
 * of stage 0; outputs come back from shard 0 of the stage that makes them. Several steps (micro-
 * batches) may be under way at once; they end in the order in which they were submitted. With one
 * rank it is the engine and nothing else.
 *
 * A failed step: a rank that cannot run its part says so along the same way its results would
 * take, so that the step fails on the leader with that rank's message and the replica goes on; a
 * lost rank or a broken communicator ends the replica with TRM_ERR_COMM on every rank.
 *
 * One owner: the executor (main) thread of each rank. */
#ifndef TRM_WORKER_REPLICA_H
#define TRM_WORKER_REPLICA_H

#include "parallel/comm.h"
#include "parallel/planner.h"
#include "worker/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_replica trm_replica;

typedef struct trm_replica_options {
    trm_graph *graph;     /* prepared, whole; borrowed, outlives the replica */
    const trm_plan *plan; /* borrowed until create returns; NULL: one rank */
    trm_place place;      /* of this rank */
    trm_device *device;   /* borrowed */
    trm_comm *replica;    /* ranks stage * tensor + shard; NULL: one rank; borrowed */
    trm_comm *stage;      /* ranks shard; NULL: tensor is 1; borrowed */
    trm_graph *local;     /* the finished graph of this place, borrowed; NULL: made from the plan */
    trm_dtype dtype;      /* F32, BF16, F16: as trm_tensor_model_options; not applied to `local` */
    trm_engine_options engine;
    /* called where this rank's engine ran out of memory in a step; may say more in trm_message.
     * NULL: nothing more is known */
    void (*no_memory)(void *ctx);
    void *ctx;
} trm_replica_options;

/* Collective over the replica. Loads this rank's share. */
TRM_MUST_USE trm_status trm_replica_create(const trm_replica_options *options,
                                           trm_replica **replica_out);
void trm_replica_destroy(trm_replica *r); /* takes NULL; not collective */
bool trm_replica_leads(const trm_replica *r);
int trm_replica_depth(const trm_replica *r); /* steps that may be under way: 1 without stages */

/* Whether the whole model wants such inputs: as trm_engine_check. Any rank. */
TRM_MUST_USE trm_status trm_replica_check(const trm_replica *r, const trm_tensor *inputs);
/* Leader. inputs, outputs: as trm_engine_run; outputs stay until the next submit, collect or run.
 * Checked before anything is announced: bad input fails alone. CANCELLED: steps are under way. */
TRM_MUST_USE trm_status trm_replica_run(trm_replica *r, const trm_tensor *inputs,
                                        trm_tensor *outputs);
/* Leader. Starts a step; inputs may be reused on return. INVALID_ARG as trm_engine_check.
 * CANCELLED: `depth` steps are under way: collect first. */
TRM_MUST_USE trm_status trm_replica_submit(trm_replica *r, const trm_tensor *inputs);
int trm_replica_under_way(const trm_replica *r);
/* Leader. Waits for the oldest step's outputs. */
TRM_MUST_USE trm_status trm_replica_collect(trm_replica *r, trm_tensor *outputs);
/* Leader: the others' follow returns. Idempotent; destroy does not do it. */
TRM_MUST_USE trm_status trm_replica_stop(trm_replica *r);
/* Leader: likewise, but steps may be submitted again once the others follow again. Nothing may be
 * under way. */
TRM_MUST_USE trm_status trm_replica_pause(trm_replica *r);

/* Everybody else: runs steps until the leader stops. */
TRM_MUST_USE trm_status trm_replica_follow(trm_replica *r);

/* To measure without the link to the device: trm_engine_hold_inputs. */
void trm_replica_hold_inputs(trm_replica *r, bool hold);
const trm_engine *trm_replica_engine(const trm_replica *r); /* this rank's, for stats and profile */
/* What this rank has really taken for weights: private packed or copied bytes, bytes in segments
 * shared with other replicas' ranks, and bytes of the mapped file. */
typedef struct trm_replica_memory {
    size_t weights_private, weights_shared, weights_mapped, activations, communicators;
} trm_replica_memory;
void trm_replica_get_memory(const trm_replica *r, trm_replica_memory *memory_out);

#ifdef __cplusplus
}
#endif
#endif
