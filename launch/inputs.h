/* Input tensors of a model from the command line: NAME=FILE.npy, FILE.npz, or generated for a
 * benchmark. */
#ifndef TRM_LAUNCH_INPUTS_H
#define TRM_LAUNCH_INPUTS_H

#include "launch/options.h"
#include "model/graph.h"

/* Loads every graph input from "NAME=FILE.npy", "FILE.npy" (one input) or "FILE.npz" (by name);
 * data in `arena`. tensors_out: [graph->input_count]. INVALID_ARG: a name the model does not have,
 * given twice, or missing: lists them. */
TRM_MUST_USE trm_status trm_inputs_load(const trm_graph *g, const trm_option_list *specs,
                                        trm_arena *arena, trm_tensor *tensors_out);

/* Shapes of the inputs with free dims filled in: from `dims` ("seq=128"), else dim 0 is `batch` and
 * others are `other`. INVALID_ARG: `other` is 0 and a dim is not given, or no input has a dim that
 * is. */
TRM_MUST_USE trm_status trm_inputs_shapes(const trm_graph *g, int64_t batch,
                                          const trm_option_list *dims, int64_t other,
                                          trm_tensor *shapes_out);

/* Random inputs: floats from N(0, 1), integers from [0, 100), but ones for names with "mask" and
 * zeros for names with "type". Symbolic dims: dim 0 is `batch`, others come from `dims`
 * ("seq=128"); INVALID_ARG names one that is missing, or that no input has. */
TRM_MUST_USE trm_status trm_inputs_random(const trm_graph *g, int64_t batch,
                                          const trm_option_list *dims, uint64_t seed,
                                          trm_arena *arena, trm_tensor *tensors_out);

#endif
