/* A step on one rank: the graph's inputs made from it, this rank's part of the KV cache, and, where
 * the logits come out, the samplers. Between replica.c and the engine. One owner. */
#ifndef TRM_WORKER_LANGUAGE_FEED_H
#define TRM_WORKER_LANGUAGE_FEED_H

#include "kernels/language.h"
#include "model/graph.h"
#include "model/language/language.h"
#include "worker/engine.h"
#include "worker/language/replica.h"
#include "worker/language/step.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_lm_feed trm_lm_feed;

typedef struct trm_lm_feed_options {
    const trm_graph *graph; /* this rank's; borrowed */
    int pages;
    trm_dtype kv_dtype;
    int batch, step_tokens, picks;
    trm_device *device; /* with memory of its own: the cache is there, and inputs go there; else */
    trm_engine *engine; /* these may be NULL. The engine of `graph`, which outlives the feed */
    trm_language *language; /* its tokenizer is read here when the first constraint comes, where it
                               is not there yet; NULL: constraints fail */
    bool samples; /* this rank gets the whole logits or embeddings, and its results count */
} trm_lm_feed_options;

TRM_MUST_USE trm_status trm_lm_feed_create(const trm_lm_feed_options *options,
                                           trm_lm_feed **feed_out);
void trm_lm_feed_destroy(trm_lm_feed *f);
/* Whether a model's steps carry token types: `graph` is the whole one, the same answer on all
 * stages. */
bool trm_lm_feed_has_types(const trm_graph *graph);
/* Whether every rank makes this value itself: it does not travel between stages. */
bool trm_lm_feed_is_fed(const char *name);

/* Makes the step's new samplers; one that cannot be made fails its sequence later. */
void trm_lm_feed_begin(trm_lm_feed *f, const trm_lm_step *step);
/* Whether the step's inputs can be made while the step before it has not ended: false where a
 * constraint must see its token first. */
bool trm_lm_feed_ahead(const trm_lm_feed *f, const trm_lm_step *step);
/* The graph's inputs: those that are fed, and `crossing` [count] for the others, in order. Valid
 * until the next call. After a failure *inputs_out still tells their shapes; NULL: the step itself
 * is wrong, which all ranks of the stage find. */
TRM_MUST_USE trm_status trm_lm_feed_inputs(trm_lm_feed *f, const trm_lm_step *step,
                                           const trm_tensor *crossing, int count,
                                           trm_tensor **inputs_out);
/* Results from the graph's outputs: tokens, scores, or an encoder's rows. picks: the step's,
 * [count]; NULL where no sampler here looks at them: the graph draws, or the model encodes. */
TRM_MUST_USE trm_status trm_lm_feed_outputs(trm_lm_feed *f, const trm_lm_pick *picks, int count,
                                            trm_tensor *outputs);
/* Of a step whose inputs were made and which failed: nothing came of it. In the place of outputs.
 */
void trm_lm_feed_nothing(trm_lm_feed *f, int count);
/* As a tensor that can travel: U8 for tokens, F32 [rows, width] for an encoder's. Until the next
 * step. */
trm_tensor trm_lm_feed_result(const trm_lm_feed *f);
/* The other end of that. */
TRM_MUST_USE trm_status trm_lm_feed_results(const trm_tensor *result, int picks, int part_rows,
                                            double us, trm_lm_results *results_out);

#ifdef __cplusplus
}
#endif
#endif
