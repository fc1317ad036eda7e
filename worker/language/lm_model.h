/* A language model ready to run: opened, planned over the ranks of a job, this rank's share loaded,
 * and on the leader of each replica a generator. trm_tensor_model's sibling. One owner: the
 * executor thread. */
#ifndef TRM_WORKER_LANGUAGE_LM_MODEL_H
#define TRM_WORKER_LANGUAGE_LM_MODEL_H

#include "worker/language/generator.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_lm_options {
    trm_tensor_model_options
        layout; /* dtype, job, hosts, parallel, ...; batch, inputs and kv are set from the rest */
    int64_t context;         /* 0: the model's */
    int64_t kv_bytes;        /* of a replica, all its ranks together; 0: as trm_lm_settle says */
    trm_dtype kv_dtype;      /* NONE: F16 where weights are block-quantised; on a device with memory
                                of its own what activations are rounded to; else F32 */
    bool device_memory;      /* the device has memory of its own; set by trm_lm_model_begin */
    int batch;               /* sequences at once; 0: 64 */
    int step_tokens;         /* 0: 512, on a device with memory of its own 1024 */
    double decode_budget_us; /* trm_scheduler_limits */
    bool no_prefix;
    bool tokenizer;  /* leaders need it; other ranks never load it */
    bool text_early; /* it is read by begin: the layout is one replica, whose first rank leads */
    const char *chat_template;
} trm_lm_options;

typedef struct trm_lm_model {
    trm_language *language;
    trm_tensor_model layout;  /* graph, plan, place, groups; no package, no replica */
    trm_lm_replica *replica;  /* NULL: this rank is left over */
    trm_generator *generator; /* leaders */
    trm_scheduler_limits limits;
    trm_dtype kv_dtype;
} trm_lm_model;

/* Options of opening the model for those. On a device with memory of its own layout.dtype F32 means
 * fp32 activations, anything else the 16-bit type that a weight has. */
trm_language_options trm_lm_language_options(const trm_lm_options *options);
/* What the options come to for this model: context, batch, step and pages. By default the cache has
 * room for `batch` whole contexts, but no more than 1 GiB, and never less than one context.
 * INVALID_ARG: kv_bytes does not hold one context.
 *
 * On a device with memory of its own pages are by default what must fit, and the cache takes what
 * is left, up to trm_lm_pages_max: what must fit is the context that is asked for, else 8192
 * positions; trm_lm_fill then sets the pages, and a context that was not asked for to what they
 * hold. */
TRM_MUST_USE trm_status trm_lm_settle(const trm_language *l, const trm_lm_options *options,
                                      trm_scheduler_limits *limits_out, trm_dtype *kv_dtype_out);
/* 0: the pages are settled. */
int64_t trm_lm_pages_max(const trm_lm_options *options, const trm_scheduler_limits *limits);
void trm_lm_fill(const trm_lm_options *options, int64_t pages, trm_scheduler_limits *limits);
/* What layouts for such devices are chosen by, and what plans report. */
#define TRM_LM_PHASES 3
void trm_lm_phases(const trm_scheduler_limits *limits, trm_phase phases_out[TRM_LM_PHASES]);

/* Collective over options->layout.job where there is one: every rank returns the same status. */
TRM_MUST_USE trm_status trm_lm_model_open(const char *path, trm_device *device,
                                          const trm_lm_options *options, trm_lm_model **model_out);
/* In two parts, as trm_tensor_model_begin and finish: on whichever thread, then on the executor's.
 */
TRM_MUST_USE trm_status trm_lm_model_begin(const char *path, trm_device *device,
                                           const trm_lm_options *options, trm_lm_model **model_out);
TRM_MUST_USE trm_status trm_lm_model_finish(trm_lm_model *m, const trm_lm_options *options);
void trm_lm_model_close(trm_lm_model *m);       /* takes NULL */
bool trm_lm_model_leads(const trm_lm_model *m); /* of a replica */

#ifdef __cplusplus
}
#endif
#endif
