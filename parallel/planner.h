/* The planner: data x tensor x pipeline for a graph and a machine. Arithmetic: neither ranks nor
 * devices are needed. Rank 0 plans; the plan travels to the others as bytes. */
#ifndef TRM_PARALLEL_PLANNER_H
#define TRM_PARALLEL_PLANNER_H

#include "parallel/placement.h"
#include "parallel/stages.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_parallel {
    int data, tensor, pipeline; /* 0: chosen by the planner */
} trm_parallel;
/* "auto", or "data=2,tensor=4" (what is left out is 1; a number may be "auto"). INVALID_ARG says
 * what is wrong. */
TRM_MUST_USE trm_status trm_parallel_parse(const char *text, trm_parallel *parallel_out);
/* "data=2,tensor=2,pipeline=1" */
char *trm_parallel_text(const trm_parallel *p, char *buf, size_t bytes);
/* World rank -> place: rank = (replica * pipeline + stage) * tensor + shard. */
typedef struct trm_place {
    int replica, stage, shard;
} trm_place;
trm_place trm_parallel_place(const trm_parallel *p, int rank);

typedef enum trm_objective { TRM_OBJECTIVE_THROUGHPUT, TRM_OBJECTIVE_LATENCY } trm_objective;

/* Work of a language model whose time is predicted on accelerators: `sequences` that each bring
 * `tokens` (1: they decode) and then have `context` positions. Prompts go in steps of the size that
 * is planned for. */
#define TRM_PHASES_MAX 4
typedef struct trm_phase {
    const char *name; /* "decode", "prefill" */
    int64_t sequences, tokens, context;
} trm_phase;
typedef struct trm_phase_time {
    int64_t sequences; /* fewer than asked for where the cache has no room for them */
    int64_t steps;
    double step_us;  /* one step through one replica */
    double all_us;   /* all of them, with as many under way as there are stages */
    double tokens_s; /* of all replicas */
} trm_phase_time;

typedef struct trm_plan_options {
    trm_parallel parallel; /* 0s: free */
    int ranks;             /* data * tensor * pipeline must be this, or at most this when free */
    const int *hosts;      /* [ranks] host of each rank; NULL: one host */
    trm_objective objective;
    int64_t batch;            /* records of a step */
    int64_t other_dims;       /* value of other free dims; 0: 128 */
    const trm_tensor *inputs; /* concrete inputs instead of batch/other_dims; NULL */
    int threads;              /* of each rank */
    int cores;   /* of each host: ranks x threads beyond it slow each other down; 0: no limit */
    int devices; /* accelerators of each host, which its ranks share; 0: each rank has its own */
    bool staged; /* their collectives go over host memory; so they do where ranks share one */
    trm_dtype dtype;
    size_t
        memory_bytes; /* limit per rank; 0: the device's, less what trm_rates_usable_bytes says */
    const trm_rates *rates;
    int64_t kv_tokens; /* language models: tokens that a replica's KV cache has room for; 0: none */
    int64_t kv_tokens_max; /* more than kv_tokens: the cache takes what the limit leaves, up to so
                              many; kv_tokens must fit. 0: it has kv_tokens */
    trm_dtype kv_dtype;    /* F32, F16, BF16; NONE: F32 */
    /* Language models on accelerators: the layout is chosen by these: the first one's step for
     * latency, the second one's tokens for throughput. 0: by the step of the inputs */
    const trm_phase *phases;
    int phase_count;
    bool *too_big_out; /* set where the model does not fit; NULL */
} trm_plan_options;

/* What a rank holds, before anything is allocated. */
typedef struct trm_ledger {
    size_t weights;     /* its share, as packed by kernels */
    size_t mapped;      /* of those, pages of the model file shared with other processes */
    size_t activations; /* arena of one step */
    size_t staging;     /* loading buffer */
    size_t communicators;
    size_t workspace; /* on an accelerator: of kernels, and inputs and outputs of two steps */
    size_t host;      /* beside an accelerator, in its host's memory: pinned buffers, messages */
    size_t kv;        /* the KV cache of its layers and heads */
} trm_ledger;
static inline size_t trm_ledger_total(const trm_ledger *l) /* of the device's memory */
{
    return l->weights + l->activations + l->staging + l->communicators + l->workspace + l->kv;
}

typedef struct trm_candidate {
    trm_parallel parallel;
    bool fits;
    double step_us;   /* one step of `batch` records through one replica: latency */
    double records_s; /* all replicas, pipelines full: throughput */
    double compute_us, collective_us, bubble;
    int micro_batches;                     /* in flight in a replica: >= stages */
    size_t memory;                         /* of the fullest rank */
    trm_phase_time phases[TRM_PHASES_MAX]; /* where they are asked for; not on the wire */
    char reason[160];                      /* why it is out: "needs 1.2 GiB a rank, limit 1 GiB" */
} trm_candidate;

typedef struct trm_plan {
    trm_parallel parallel;
    int candidate_count, chosen;
    trm_candidate *candidates;
    int node_count; /* of the prepared graph: a check that ranks plan the same model */
    uint64_t graph_hash;
    int input_count;
    trm_tensor *inputs; /* [input_count] concrete shapes that were planned for */
    int *strategy;      /* [node_count]; all 0 when tensor is 1 */
    bool exact;         /* the placement search left nothing out */
    trm_stages stages;  /* cuts in the lowered graph */
    int micro_batches;  /* in flight: >= stages */
    double step_us;     /* predicted, for the stuck limit */
    int ledger_count;   /* tensor * pipeline, by stage * tensor + shard */
    trm_ledger *ledger;
    size_t slot_bytes, message_bytes; /* what the communicators need */
    int64_t kv_tokens;                /* of a replica's KV cache, as in the ledger */
    char reason[256];                 /* why this one: one line */
} trm_plan;

/* `g`: prepared. INVALID_ARG: the forced layout does not match the ranks; or nothing fits:
 * the message names the biggest weights and the smallest layout that would fit. */
TRM_MUST_USE trm_status trm_plan_make(trm_graph *g, const trm_plan_options *options,
                                      trm_plan **plan_out);
void trm_plan_destroy(trm_plan *plan);
/* The graph of one place: lowered, cut, finished (trm_pass_finish). `g` outlives it. */
TRM_MUST_USE trm_status trm_plan_graph(const trm_plan *plan, trm_graph *g, int stage, int shard,
                                       trm_graph **local_out);
/* Where loading or a first step has found less memory than the plan counted with (others use the
 * card): the biggest items of the rank's ledger, what of `free_bytes` there was, and a layout that
 * would fit. `options`: those of the plan; rates may be NULL, then no layout is looked for. Returns
 * text. */
char *trm_plan_explain_memory(const trm_plan *plan, trm_graph *g, const trm_plan_options *options,
                              int ledger, size_t free_bytes, char *text, size_t bytes);
/* On the wire (msgpack-free, little endian, versioned). decode checks every count. */
TRM_MUST_USE trm_status trm_plan_encode(const trm_plan *plan, void **bytes_out, size_t *count_out);
TRM_MUST_USE trm_status trm_plan_decode(const void *bytes, size_t count, trm_plan **plan_out);
/* Hash of nodes, shapes and weights' places: equal for ranks that opened the same model. */
uint64_t trm_plan_graph_hash(const trm_graph *g);
/* The table of candidates, the choice with its reasons, the stages, the ledger per rank; verbose:
 * also what is split how. */
TRM_MUST_USE trm_status trm_plan_print(const trm_plan *plan, trm_graph *g,
                                       const trm_plan_options *options, bool verbose, FILE *file);
/* The same as one JSON object on one line. */
void trm_plan_print_json(const trm_plan *plan, trm_graph *g, const trm_plan_options *options,
                         FILE *file);

#ifdef __cplusplus
}
#endif
#endif
