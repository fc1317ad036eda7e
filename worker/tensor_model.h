/* A tensor model ready to run: package, passes, engine on one device. One owner: the executor
 * thread. */
#ifndef TRM_WORKER_TENSOR_MODEL_H
#define TRM_WORKER_TENSOR_MODEL_H

#include "model/package.h"
#include "worker/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_tensor_model {
    trm_package *package;
    trm_graph *graph;   /* the package's */
    trm_device *device; /* borrowed */
    trm_engine *engine;
} trm_tensor_model;

typedef struct trm_tensor_model_options {
    trm_dtype dtype; /* NONE or F32: as the file says; BF16, F16: mixed precision */
    bool profile;
} trm_tensor_model_options;

/* Opens MODEL (a file or a folder), runs the passes with folding on `device`, checks that every
 * operator has a kernel there (UNSUPPORTED lists those that have none), and makes the engine.
 * `device` outlives the model. */
TRM_MUST_USE trm_status trm_tensor_model_open(const char *path, trm_device *device,
                                              const trm_tensor_model_options *options,
                                              trm_tensor_model **model_out);
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
