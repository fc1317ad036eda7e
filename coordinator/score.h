/* A scoring job: source -> router -> sink, in input order, in bounded memory. */
#ifndef TRM_COORDINATOR_SCORE_H
#define TRM_COORDINATOR_SCORE_H

#include "coordinator/router.h"
#include "coordinator/sink.h"
#include "coordinator/source.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_score_job {
    trm_router *router;
    trm_source *source; /* positioned at the first record to run */
    trm_sink *sink;
    /* optional, called for each result after it was written, and about five times a second with
     * NULL */
    void (*seen)(void *ctx, const trm_taken *taken);
    void *ctx;
    int64_t flush_ms; /* results reach the disk at least this often; 0: 1,000 */
} trm_score_job;

/* Runs to the end of the source, or to the first failure; what was complete is flushed then too.
 * Blocks; the caller's thread owns source and sink while it runs. */
TRM_MUST_USE trm_status trm_score_run(const trm_score_job *job);

#ifdef __cplusplus
}
#endif
#endif
