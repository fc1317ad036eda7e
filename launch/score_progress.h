/* What `score` says while it runs: a line that is redrawn on a terminal, a line now and then
 * elsewhere. One owner: the job's thread. */
#ifndef TRM_LAUNCH_SCORE_PROGRESS_H
#define TRM_LAUNCH_SCORE_PROGRESS_H

#include "coordinator/truth.h"
#include "coordinator/window.h"

#include <stdint.h>

typedef struct trm_score_progress {
    int64_t total;                   /* -1: not known */
    int64_t skipped, skipped_errors; /* done by earlier runs */
    const trm_truth *truth;          /* NULL: no accuracy */
    int64_t records, errors, right, judged;
    int64_t start_us, shown_us;
    char first_error[256];
    bool terminal, drawn;
} trm_score_progress;

void trm_score_progress_start(trm_score_progress *p);
/* One result; NULL: only time has passed. */
void trm_score_progress_seen(void *ctx, const trm_taken *taken);
/* The summary, on standard error; first_error: with the first error, if there was one. */
void trm_score_progress_end(trm_score_progress *p, bool first_error);

#endif
