/* Between cmd_score.c and score_setup.c: a score under way. */
#ifndef TRM_LAUNCH_SCORE_JOB_H
#define TRM_LAUNCH_SCORE_JOB_H

#include "base/link_zmq.h"
#include "coordinator/score.h"
#include "launch/lm_options.h"
#include "launch/ranks.h"
#include "launch/score_hosts.h"
#include "launch/score_progress.h"
#include "worker/language/score_language.h"
#include "worker/score_model.h"

#include <pthread.h>

struct trmi_score {
    trm_common_options common;
    const char *model_path, *input, *output, *labels, *output_name, *bind, *listen;
    bool resume, overwrite, raw;
    int64_t batch, top;

    trm_parallel_options parallel;
    trm_ranks ranks;
    trm_lm_cli lm;
    bool language;                /* the model is a language model */
    trm_score_model *score_model; /* leaders only */
    trm_lm_score *lm_score;       /* or this */
    trm_lm_request_defaults lm_defaults;
    trm_link_context *context;

    /* rank 0 only */
    trm_source *source;
    trm_truth *truth;
    trm_journal *journal;
    trm_sink *sink;
    trm_sink_options sink_options;
    trm_router *router;
    trm_score_progress progress;
    pthread_t thread;
    trm_status job_status;
    char job_message[1024];
};

/* What rank 0 has found out about the input, for all. */
struct trmi_score_settings {
    bool ok, images, labels, done;
    trm_score_hosts hosts;
    char endpoint[TRM_LINK_ENDPOINT_BYTES];
};

/* Collective: every rank returns the same. */
trm_status trmi_score_set_up(struct trmi_score *s, struct trmi_score_settings *set);
/* score_language.c: the same steps for a language model, called from there. */
trm_status trmi_score_language_model(struct trmi_score *s, trm_status st);
trm_status trmi_score_language_output(struct trmi_score *s);
/* Rank 0: output and router. */
trm_status trmi_score_open_output(struct trmi_score *s, const struct trmi_score_settings *set);

#endif
