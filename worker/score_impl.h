/* Shared by score_model.c (stacking, running, splitting) and score_record.c (one record to
 * tensors). */
#ifndef TRM_WORKER_SCORE_IMPL_H
#define TRM_WORKER_SCORE_IMPL_H

#include "worker/score_model.h"

/* One record made ready: its inputs without the batch dim, or with their own. */
typedef struct trmi_prepared {
    trm_status st; /* not OK: its result is an error */
    const char *message;
    bool whole;         /* inputs have their own batch dim: runs alone */
    trm_tensor *inputs; /* [graph inputs], in scratch */
} trmi_prepared;

/* Never fails: errors are the record's. */
void trmi_score_prepare(const trm_tensor_model *model, const trm_wire_record *record,
                        trm_arena *scratch, trmi_prepared *prepared_out);

#endif
