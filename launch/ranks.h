/* A command that runs a model over the ranks of a job: bringing them up, opening the model on all
 * of them, ending together. Every rank calls the same functions in the same order. */
#ifndef TRM_LAUNCH_RANKS_H
#define TRM_LAUNCH_RANKS_H

#include "launch/options.h"
#include "worker/language/lm_model.h"
#include "worker/tensor_model.h"

#define TRM_SETUP_TIMEOUT_MS 600000  /* loading a large model from a slow disk */
#define TRM_WORK_TIMEOUT_MS 86400000 /* ranks without a part wait for the others' work */

typedef struct trm_ranks {
    trm_job job;
    const char *command; /* for messages */
    int threads;         /* of this rank */
    trm_device_pair devices;
    trm_device *device; /* of devices */
    trm_tensor_model *model;
    trm_lm_model *lm; /* instead of it */
    bool one_works;   /* replicas but the first have nothing to do: they wait for it at the end */
} trm_ranks;

/* The layout of whichever there is; NULL: none yet. */
const trm_tensor_model *trm_ranks_layout(const trm_ranks *r);

/* True on ranks other than 0 when help is asked for: rank 0 prints it. */
bool trm_ranks_silent(const trm_ranks *r, int argc, char **argv);

/* Takes this rank's share of the cores (`share`) and makes the device. */
TRM_MUST_USE trm_status trm_ranks_device(trm_ranks *r, const trm_common_options *common,
                                         bool share);
/* Fills in what the options say; `otherwise` where --parallel is not given, `objective` where
 * --objective is not. Sets neither batch nor inputs. */
TRM_MUST_USE trm_status trm_ranks_options(trm_ranks *r, const trm_common_options *common,
                                          const trm_parallel_options *parallel,
                                          trm_parallel otherwise, trm_objective objective,
                                          trm_tensor_model_options *options_out);
/* Collective. `before`: how this rank's set-up went so far; all ranks return the same. */
TRM_MUST_USE trm_status trm_ranks_open(trm_ranks *r, const char *path, trm_status before,
                                       const trm_tensor_model_options *options);
/* True on the rank that commands the only replica; others have followed it to its end when this
 * returns false. */
bool trm_ranks_lead(trm_ranks *r, trm_status *st_out);
/* "data=1,tensor=2,pipeline=2", its predicted figures and ledger, to `file`. */
void trm_ranks_describe(const trm_ranks *r, FILE *file);
/* Stops the followers, frees everything and ends the job; returns what the command should. Does not
 * return after a loss. */
TRM_MUST_USE trm_status trm_ranks_end(trm_ranks *r, trm_status st);

#endif
