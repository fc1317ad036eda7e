/* Inside a replica: replica.c makes it, replica_run.c runs steps, replica_message.c is what ranks
 * tell each other. */
#ifndef TRM_WORKER_REPLICA_IMPL_H
#define TRM_WORKER_REPLICA_IMPL_H

#include "parallel/device_group.h"
#include "worker/replica.h"

#define TRMI_REPLICA_TEXT 400

typedef enum trmi_message_kind {
    TRMI_MESSAGE_STEP = 1, /* leader to all: a step begins; descriptors of stage 0's inputs */
    TRMI_MESSAGE_STOP,     /* leader to all */
    TRMI_MESSAGE_DATA,     /* tensors */
    TRMI_MESSAGE_FAILED,   /* in place of tensors: status and text */
    TRMI_MESSAGE_DECISION  /* leader to all: a language model's step, whole: one tensor of bytes */
} trmi_message_kind;

/* Ranks of one replica run one program on one kind of machine: fields are as in memory. */
typedef struct trmi_message_head {
    uint32_t magic, kind;
    uint64_t step;
    int32_t count, status;
    char text[TRMI_REPLICA_TEXT];
} trmi_message_head;

typedef struct trmi_message {
    trmi_message_head head;
    trm_tensor *tensors; /* [head.count], room for `max`; data points into what was received */
    int max;
} trmi_message;

/* replica_message.c. scratch: a buffer that grows, freed by trm_free. `with_data` false: only
 * descriptors travel. */
typedef struct trmi_scratch {
    unsigned char *bytes;
    size_t max;
    trm_piece *pieces;
    int piece_max;
} trmi_scratch;
trm_status trmi_message_send(trm_comm *c, int to, const trmi_message_head *head,
                             const trm_tensor *tensors, bool with_data, trmi_scratch *scratch);
/* INVALID_ARG: not such a message. */
trm_status trmi_message_parse(const void *data, size_t bytes, trmi_message *message);

/* Names of a stage's inputs or outputs. */
struct trmi_names {
    int count;
    const char **names;
};

/* Where a graph output comes from. */
struct trmi_origin {
    int stage; /* -1: from the whole graph itself: `index` is an input, or a constant's value */
    int index; /* stage: place in the stage's results */
    bool constant;
};

/* A step under way; leader only. */
struct trmi_under_way {
    uint64_t number;
    bool submitted; /* to the engine, which has it under way */
    trm_status st;
    char text[TRMI_REPLICA_TEXT];
    trm_tensor *kept; /* [graph outputs] those that the leader has itself */
    void **memory;    /* [graph outputs] */
    size_t *bytes;
};

struct trm_replica {
    trm_replica_options options;
    int tensor, pipeline, stage, shard, rank, size;
    trm_graph *graph; /* whole */
    trm_graph *local;
    bool owns_local;
    trm_engine *engine;
    trm_device_group *group;       /* of the stage's devices; NULL: none */
    trm_arena *arena;              /* names and tables */
    int *last_use;                 /* of the whole graph, for the check of inputs */
    struct trmi_names *ins, *outs; /* [pipeline] */
    int *in_from; /* [local inputs] stage 0: graph input; else place in the crossing message */
    int *cross;   /* local outputs that go to the next stage, in its inputs' order */
    int cross_count;
    int *results; /* local outputs that go to the leader, in the order of graph outputs */
    int result_count;
    int *results_of;             /* [pipeline] how many each stage sends */
    struct trmi_origin *origins; /* [graph outputs] */
    trm_tensor *in, *out;        /* [local inputs], [local outputs] */
    trm_tensor *send;            /* room for what is sent at once */
    void **in_memory;            /* [local inputs] stage 0's shards: what the leader broadcast */
    size_t *in_bytes;
    trmi_scratch scratch;
    trmi_message message;
    int depth, first, under_way; /* ring of steps */
    struct trmi_under_way *ring;
    uint64_t next_step;
    bool stopped, broken;
};

#endif
