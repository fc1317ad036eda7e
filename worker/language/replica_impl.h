/* Inside a language model's replica; replica.h has the contract. replica.c makes it and is the
 * leader, replica_follow.c is everybody else, replica_step.c is a step on one rank.
 *
 * Steps have numbers, and every rank has each of them, in order: announced (the leader's decision
 * is here, in the ring), begun (submitted to the engine, or run, or known to fail), ended (passed
 * on). With stages and a device of its own memory a rank has several steps begun: it submits the
 * next one as soon as what it needs has come, passes on each as soon as it ends, and waits for
 * neither with the other undone. A stage's shards begin the same steps in the same order, which is
 * all that their collectives want: those over the devices' links are enqueued. (Submit ends with
 * the shards' agreement: one waits there until the others have submitted the step too, for which
 * they want nothing but what earlier stages send. Collectives over host memory run inside submit
 * whole, and would keep a step that has ended from being passed on: such stages run one step at a
 * time.)
 *
 * No send on the leader may wait for a rank that waits for the leader: between two ranks there is
 * room for the decisions and for what crosses of all `depth` steps, one place each. A decision that
 * wants more is sent when all that the leader has announced was passed on. */
#ifndef TRM_WORKER_LANGUAGE_REPLICA_IMPL_H
#define TRM_WORKER_LANGUAGE_REPLICA_IMPL_H

#include "worker/language/feed.h"
#include "worker/language/replica.h"
#include "worker/replica_impl.h"

#include <time.h>

typedef struct trmi_stage_step {
    uint64_t number;
    int pick_count, part_rows;
    bool fed;       /* its inputs were made */
    bool submitted; /* the engine has it */
    trm_status st;
    char text[TRMI_REPLICA_TEXT];
    struct timespec since;
    void *encoded; /* the decision, as it travels; a step's samplers point into it */
    size_t encoded_max, encoded_bytes;
} trmi_stage_step;

struct trm_lm_replica {
    trm_lm_replica_options options;
    trm_tensor_model *model;
    int tensor, pipeline, stage, shard, rank, size, depth, context;
    trm_graph *local;
    bool owns_local;
    trm_device_group *group; /* of the stage's devices; NULL: over host memory */
    trm_engine *engine;
    trm_lm_feed *feed;
    trm_lm_step step;     /* out of the ring */
    uint64_t step_number; /* + 1: which; 0: none */
    trm_tensor *out, *send;
    trmi_scratch scratch;
    trmi_message message;
    trmi_stage_step *ring; /* [depth] by number */
    /* numbers of the next step to be announced, begun, ended and collected (leader) */
    uint64_t next_step, begun, ended, collected;
    int flying;        /* steps that the engine has */
    size_t room_bytes; /* of a decision that takes one place between two ranks */
    bool draws_there;  /* the graph ends with TrmSample: tokens are on the device first */
    bool overlaps;     /* the engine has a step under way while the next one is made */
    bool stopping;     /* followers: nothing more comes */
    bool stopped, broken;
    trm_lm_replica_stats stats;
};

static inline trmi_stage_step *trmi_stage_at(const trm_lm_replica *r, uint64_t number)
{
    return &r->ring[number % (uint64_t)r->depth];
}
static inline bool trmi_stage_is_the_end(trm_status st) /* of the replica, not of a step alone */
{
    return st == TRM_ERR_COMM || st == TRM_ERR_DEVICE;
}

/* ---- replica_step.c ---- */
/* What a failure means for the others: COMM where this rank is lost. */
trm_status trmi_stage_broken(trm_lm_replica *r, trm_status st);
void trmi_stage_note(trmi_stage_step *u, trm_status st);
/* The next message of `from`, into r->message. came_out NULL: waits. */
trm_status trmi_stage_receive(trm_lm_replica *r, int from, bool idle, bool *came_out);
/* It is not what is awaited. */
trm_status trmi_stage_unexpected(const trm_lm_replica *r, int from, uint64_t awaited);
/* Whether `step`, the next one, can be begun: the engine has room, and no constraint waits for a
 * token. */
bool trmi_stage_has_room(const trm_lm_replica *r, const trm_lm_step *step);
/* The next step to be begun, out of the ring into r->step. */
trm_status trmi_stage_next(trm_lm_replica *r);
/* Begins the next step; crossing tensors are in r->message. A failure that is the step's own stays
 * in the ring. */
trm_status trmi_stage_begin(trm_lm_replica *r, const trm_lm_step *step);
/* Ends the oldest step, for which it may wait, and passes it on. */
trm_status trmi_stage_end(trm_lm_replica *r);
/* Ends what has ended, and begins what can be begun without anything else coming; never waits.
 * *moved_out: there was something. */
trm_status trmi_stage_advance(trm_lm_replica *r, bool *moved_out);
/* Until all that was announced has ended here. Stage 0. */
trm_status trmi_stage_drain(trm_lm_replica *r);

/* Between two looks at things of which none can be slept for. Zeroed: the wait begins. */
typedef struct trmi_stage_rest {
    int64_t since_us;
} trmi_stage_rest;
void trmi_stage_rest_turn(trmi_stage_rest *rest);

#endif
