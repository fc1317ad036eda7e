/* The journal of `score`: what of a run says that its output can be gone on with. */
#ifndef TRM_LAUNCH_SCORE_RESUME_H
#define TRM_LAUNCH_SCORE_RESUME_H

#include "coordinator/sink.h"
#include "coordinator/source.h"
#include "model/package.h"
#include "worker/language/request.h"

typedef struct trm_score_what {
    const char *input, *output, *dtype;
    const char *output_name; /* as asked for; NULL: not */
    const trm_source *source;
    const trm_package *package;   /* or */
    const trm_language *language; /* with */
    const trm_lm_request_defaults *defaults;
    trm_dtype kv_dtype;
    const trm_sink_options *sink;
} trm_score_what;

/* Checks the output (trm_sink_check) and locks its journal (trm_journal_open). *journal_out NULL:
 * the output is no regular file (a pipe), which has none. */
TRM_MUST_USE trm_status trm_score_journal_open(const trm_score_what *what,
                                               trm_journal **journal_out);

#endif
