/* The ranks that run one language model together, a step at a time: trm_replica's sibling. A step
 * travels as what the leader decided (step.h), and every rank makes its inputs from that itself:
 * tokens, positions, pages, picked rows. Between stages only the residual stream travels; the last
 * stage's shard 0 has the samplers and sends back tokens. A failed or lost rank: as in
 * worker/replica.h.
 *
 * A stage on a device with memory of its own has more than one step at once: the next one is sent
 * to the device while one computes, and each is passed on as soon as it has ended. Steps begin, end
 * and fail in the order in which they were submitted, whatever overlaps. On the leader that goes on
 * inside submit and collect: while steps are under way, one of them is to be called soon.
 *
 * One owner: the executor thread of each rank. */
#ifndef TRM_WORKER_LANGUAGE_REPLICA_H
#define TRM_WORKER_LANGUAGE_REPLICA_H

#include "worker/language/step.h"
#include "worker/tensor_model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_lm_replica trm_lm_replica;

typedef struct trm_lm_replica_options {
    trm_tensor_model *model; /* planned, its groups made, no replica of its own; borrowed */
    bool encoder;            /* no KV cache */
    trm_dtype kv_dtype;
    int batch, step_tokens, picks; /* most sequences, tokens and picks of a step */
    bool profile;
} trm_lm_replica_options;

/* Collective over the replica. Opens this rank's share: weights are where they are read on return,
 * and the largest step is bound: what a device has left then is the cache's. */
TRM_MUST_USE trm_status trm_lm_replica_create(const trm_lm_replica_options *options,
                                              trm_lm_replica **replica_out);
/* Collective, once: allocates this rank's part of a cache of `pages` (encoders: 0), for sequences
 * of up to `context` tokens. Steps can be run from then on. */
TRM_MUST_USE trm_status trm_lm_replica_begin(trm_lm_replica *r, int pages, int context);
void trm_lm_replica_destroy(trm_lm_replica *r); /* takes NULL; not collective */
bool trm_lm_replica_leads(const trm_lm_replica *r);
int trm_lm_replica_depth(const trm_lm_replica *r); /* steps that may be under way */
/* Whether those run one after another on a device that knows the tokens that it has drawn: a step
 * may then name a token by its slot (TRM_STEP_TOKEN_OF_SLOT, kernels/language.h). */
bool trm_lm_replica_looks_ahead(const trm_lm_replica *r);
/* Whether a size of steps is faster once it has been run twice: trm_engine_captures. */
bool trm_lm_replica_captures(const trm_lm_replica *r);
/* Steps of the sizes of the options, for the leader to fill. */
TRM_MUST_USE trm_status trm_lm_replica_step(const trm_lm_replica *r, trm_lm_step *step_out);

/* Leader. The step may be changed on return; its device is not waited for. COMM ends the replica;
 * any other failure is the step's and comes out of collect. CANCELLED: `depth` steps are under way.
 */
TRM_MUST_USE trm_status trm_lm_replica_submit(trm_lm_replica *r, const trm_lm_step *step);
/* Leader. The oldest step's results: one a pick, or an encoder's rows [part_rows, width]; valid
 * until the next collect. *us_out: from submit till now. */
typedef struct trm_lm_results {
    const trm_sampled *picks;
    const float *rows;
    int64_t width;
    double us;
} trm_lm_results;
TRM_MUST_USE trm_status trm_lm_replica_collect(trm_lm_replica *r, trm_lm_results *results_out);
TRM_MUST_USE trm_status trm_lm_replica_stop(trm_lm_replica *r);
/* Leader: likewise, but steps may be submitted again once the others follow again. Nothing may be
 * under way. */
TRM_MUST_USE trm_status trm_lm_replica_pause(trm_lm_replica *r);
/* Everybody else: runs steps until the leader stops. */
TRM_MUST_USE trm_status trm_lm_replica_follow(trm_lm_replica *r);

/* Of this rank, since creation. */
typedef struct trm_lm_replica_stats {
    uint64_t steps;  /* begun */
    uint64_t behind; /* of those, while the device had another one */
} trm_lm_replica_stats;
void trm_lm_replica_get_stats(const trm_lm_replica *r, trm_lm_replica_stats *stats_out);
const trm_engine *trm_lm_replica_engine(const trm_lm_replica *r);
/* The shapes of a step of so many rows and picks (an encoder's: sequences): tensors of the graph's
 * inputs, from trm_malloc. `g`: a rank's graph or the whole. */
TRM_MUST_USE trm_status trm_lm_plan_inputs(const trm_graph *g, int64_t tokens, int64_t picks,
                                           trm_tensor **inputs_out);
/* Bytes of a page over all layers of `g` (a rank's graph or the whole). */
size_t trm_lm_page_bytes(const trm_graph *g, trm_dtype kv_dtype);

#ifdef __cplusplus
}
#endif
#endif
