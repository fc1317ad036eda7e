/* What bench found, as a table or JSON. */
#ifndef TRM_LAUNCH_BENCH_REPORT_H
#define TRM_LAUNCH_BENCH_REPORT_H

#include "launch/ranks.h"

typedef struct trm_bench_result {
    const char *path, *dtype;
    int64_t batch, rounds;
    double load_ms, first_ms;
    double *ms;     /* [rounds] one step after another */
    double flow_ms; /* a step with the pipeline full; 0: no pipeline */
} trm_bench_result;

/* Collective over the job: every rank tells what it has taken; rank 0 prints to standard output.
 * `st`: how this rank's part went; all ranks return the failure of the lowest failing one. */
TRM_MUST_USE trm_status trm_bench_report(trm_ranks *r, trm_status st, const trm_bench_result *b,
                                         bool json);

#endif
