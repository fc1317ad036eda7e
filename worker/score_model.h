/* A tensor model behind a leader: records become stacked inputs, outputs become results.
 *
 * Images are decoded and preprocessed as the package says. Tensors are converted to the dtype of
 * the model's input where nothing is lost in kind (integers to floats, floats among each other).
 * Records of equal shape run together, in batches that are powers of two or the full batch, so that
 * few shapes have to be bound. One owner: the executor thread. */
#ifndef TRM_WORKER_SCORE_MODEL_H
#define TRM_WORKER_SCORE_MODEL_H

#include "worker/leader.h"
#include "worker/tensor_model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_score_model_options {
    int batch;          /* records stacked at most */
    int top;            /* labels a record; 0: none */
    bool images;        /* records are images: preprocessing must be known */
    bool keep_outputs;  /* send outputs, too or only */
    const char *output; /* only this output is sent; NULL: all */
} trm_score_model_options;

typedef struct trm_score_model trm_score_model;

/* `model` is borrowed. INVALID_ARG: the options do not fit the model (images for a model without an
 * image input, labels for an output that is no list of scores, unknown output name). */
TRM_MUST_USE trm_status trm_score_model_create(trm_tensor_model *model,
                                               const trm_score_model_options *options,
                                               trm_score_model **score_out);
void trm_score_model_destroy(trm_score_model *score); /* takes NULL */
/* The callback for trm_leader_run; valid while `score` lives. */
trm_leader_model trm_score_model_callback(trm_score_model *score);

/* Index of the graph output called `name`; INVALID_ARG lists those there are. */
TRM_MUST_USE trm_status trm_score_model_output(const trm_tensor_model *model, const char *name,
                                               int *output_out);

/* Whether records of these tensors (dtypes and shapes; data is not looked at) fit the model's
 * inputs: INVALID_ARG says which does not. */
TRM_MUST_USE trm_status trm_score_model_fits(const trm_tensor_model *model,
                                             const trm_wire_tensor *tensors, int count);

#ifdef __cplusplus
}
#endif
#endif
