/* A tensor model ready to run: package, passes, plan, and this rank's part of a replica on one
 * device. One owner: the executor thread. */
#ifndef TRM_WORKER_TENSOR_MODEL_H
#define TRM_WORKER_TENSOR_MODEL_H

#include "model/language/language.h"
#include "model/package.h"
#include "parallel/weight_share.h"
#include "worker/replica.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_tensor_model {
    trm_package *package;     /* NULL: a language model's layout (worker/language/lm_model.h) */
    trm_language *language;   /* which then is this; borrowed */
    const char *path;         /* for messages; borrowed */
    trm_graph *graph;         /* the package's: names, inputs and outputs of the whole model */
    trm_device *device;       /* borrowed */
    trm_replica *replica;     /* NULL: this rank is left over */
    trm_parallel parallel;    /* what the job does */
    trm_place place;          /* of this rank in it */
    trm_plan *plan;           /* NULL: nothing was planned */
    trm_plan_options planned; /* with it; pointers are NULL */
    trm_comm *replica_comm;   /* NULL: one rank */
    trm_comm *stage_comm;     /* NULL: one shard */
    bool borrowed_comms;      /* both are the caller's */
    trm_status begun;         /* how trm_tensor_model_begin went, and its words */
    char begun_text[1024];
    trm_weight_share *share; /* packed weights that replicas of this host have in common */
} trm_tensor_model;

typedef struct trm_tensor_model_options {
    trm_dtype dtype; /* NONE or F32: as the file says; BF16, F16: mixed precision */
    bool images; /* records are images: a device with memory of its own then gets them as bytes */
    bool profile;
    int programs; /* shapes that stay bound: trm_engine_options */
    /* Over the ranks of a job. NULL: this rank alone, and the rest is not looked at. */
    trm_job *job;
    const int *hosts;      /* [job->size] host of each rank; NULL: one host */
    trm_parallel parallel; /* 0s: for the planner; data=N, tensor=1, pipeline=1 needs none */
    trm_objective objective;
    size_t memory_bytes; /* limit per rank; 0: none. With it the ledger decides */
    int64_t batch;       /* records of a step that is planned for; 0: 1 */
    /* Communicators of the job's only replica and of this rank's stage, made before: none are made
     * here then. Borrowed, outlive the model. NULL: made here */
    trm_comm *replica_comm, *stage_comm;
    int threads, cores;               /* of each rank, of each host: trm_plan_options */
    int64_t kv_tokens, kv_tokens_max; /* language models: as trm_plan_options */
    trm_dtype kv_dtype;
    const trm_phase *phases; /* likewise; NULL: none */
    int phase_count;
    /* Concrete inputs to plan for instead; called on rank 0 with the prepared graph. NULL: none */
    trm_status (*inputs)(void *ctx, const trm_graph *g, const trm_tensor **inputs_out);
    void *ctx;
} trm_tensor_model_options;

/* Opens MODEL (a file or a folder), runs the passes with folding on `device`, checks that every
 * operator has a kernel there (UNSUPPORTED lists those that have none), plans and loads this rank's
 * share. `device` outlives the model. With a job: collective, and every rank returns the same
 * status; ranks beyond data x tensor x pipeline have no replica. CONFIG: a rank opened another
 * model; NO_MEMORY: as the planner says. */
TRM_MUST_USE trm_status trm_tensor_model_open(const char *path, trm_device *device,
                                              const trm_tensor_model_options *options,
                                              trm_tensor_model **model_out);
/* The same in two parts. begin needs none of the others and may run on any thread, while the
 * executor runs other models: then `folding` is a CPU device of that thread's own (NULL: the
 * device's host), and the thread has called trm_team_alone. Its failure is part of *model_out and
 * comes out of finish, which is the executor's and the collective part; on failure it has closed
 * the model. */
TRM_MUST_USE trm_status trm_tensor_model_begin(const char *path, trm_device *device,
                                               trm_device *folding,
                                               const trm_tensor_model_options *options,
                                               trm_tensor_model **model_out);
TRM_MUST_USE trm_status trm_tensor_model_finish(trm_tensor_model *model,
                                                const trm_tensor_model_options *options);
void trm_tensor_model_close(trm_tensor_model *model); /* takes NULL */

/* The output that holds class scores: the package's, or the first. Index into the graph's outputs.
 */
TRM_MUST_USE trm_status trm_tensor_model_scores(const trm_tensor_model *model, int *output_out);

/* True if dim 0 of every input and output is one symbol, or every input's dim 0 is a symbol:
 * records can be batched. */
bool trm_tensor_model_batches(const trm_tensor_model *model);

#ifdef __cplusplus
}
#endif
#endif
