/* Concrete shapes of a whole graph for given inputs, without running it: what the cost model, the
 * stages and the ledger look at. Arithmetic only. */
#ifndef TRM_PARALLEL_SHAPES_H
#define TRM_PARALLEL_SHAPES_H

#include "model/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Fills descs[value_count] (data: constants and small known values, else NULL). inputs
 * [graph->input_count]: concrete descriptors. A dim that depends on data is taken as its upper
 * bound where the operator has one (NonZero: all), else as 1. Memory from `arena`. */
TRM_MUST_USE trm_status trm_shapes_bind(trm_graph *g, const trm_tensor *inputs, trm_arena *arena,
                                        trm_tensor *descs_out);
/* Inputs of a graph with free dims filled in: dim 0 with `batch`, others with `other` (a symbol has
 * one value everywhere). */
void trm_shapes_inputs(const trm_graph *g, int64_t batch, int64_t other, trm_tensor *inputs_out);

#ifdef __cplusplus
}
#endif
#endif
