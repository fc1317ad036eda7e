/* Between tensor_model.c and model_layout.c: which rank does what. */
#ifndef TRM_WORKER_MODEL_LAYOUT_H
#define TRM_WORKER_MODEL_LAYOUT_H

#include "worker/tensor_model.h"

#define TRMI_OPEN_TIMEOUT_MS 600000 /* loading a large model from a slow disk */

/* Collective over the job where there is one; `prepared`: how this rank's model came through
 * preparation. Sets parallel, place and plan; all ranks return the same. */
trm_status trmi_layout_plan(trm_tensor_model *m, const trm_tensor_model_options *o,
                            trm_status prepared);
/* Makes the communicators, and one place for packed weights that several replicas hold. As above.
 */
trm_status trmi_layout_groups(trm_tensor_model *m, const trm_tensor_model_options *o);
/* Device memory ran out although the plan fitted: trm_message then also has the biggest items of
 * this rank's ledger and a layout that would fit. Nothing where there is no plan, or the memory is
 * the host's. `m`: a trm_tensor_model. */
void trmi_layout_explain(void *m);
/* UNSUPPORTED lists the operators of `g` for which the device and its host have no kernel. */
trm_status trmi_check_operators(const char *path, const trm_graph *g, trm_device *device);
/* Frees what the two above have made: groups, shared weights, the plan. */
void trmi_layout_close(trm_tensor_model *m);
/* Names the constants of this rank's graph among the processes of the job; 0: not shared. */
uint64_t trmi_layout_weight_space(const trm_tensor_model *m);

#endif
