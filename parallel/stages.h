/* Pipeline cuts: where a rank's graph is divided into stages. Arithmetic.
 *
 * A cut is a node index: stage s has nodes [cuts[s], cuts[s+1]). Minimises the slowest stage
 * (compute plus sending what crosses), then the sum, under a memory limit per stage; exact by
 * dynamic programming over nodes (Pipedream, Narayanan et al. 2019, without replication). Where no
 * cut meets the limit the error names the largest items. */
#ifndef TRM_PARALLEL_STAGES_H
#define TRM_PARALLEL_STAGES_H

#include "parallel/rates.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_STAGES_MAX 64

typedef struct trm_stage_costs {
    const double *node_us;      /* [node_count] */
    const size_t *weight_bytes; /* [value_count]: constants, held by every stage that reads them */
    const size_t *value_bytes;  /* [value_count]: of crossing values */
    double (*message_us)(void *ctx, size_t bytes);
    void *ctx;
    const size_t
        *node_bytes;         /* [node_count] that the stage of each node holds beside; NULL: none */
    size_t activation_bytes; /* allowance of each stage beside its weights */
    int messages;            /* of those that come into a stage, so many are held there */
    size_t memory_bytes;     /* limit of each stage; 0: none */
} trm_stage_costs;

typedef struct trm_stages {
    int count;
    int cuts[TRM_STAGES_MAX + 1];          /* cuts[0] = 0, cuts[count] = node_count */
    double stage_us[TRM_STAGES_MAX];       /* compute and sending of one micro-batch */
    size_t stage_bytes[TRM_STAGES_MAX];    /* weights (without messages) */
    size_t crossing_bytes[TRM_STAGES_MAX]; /* out of each stage, one micro-batch */
} trm_stages;

TRM_MUST_USE trm_status trm_stages_cut(const trm_graph *g, const trm_stage_costs *costs, int count,
                                       trm_stages *stages_out);
/* Share of the stages' time that is idle with `micro` micro-batches in flight, in a run of `steps`
 * micro-batches (steps < 0: without end). */
double trm_stages_bubble(const trm_stages *s, int micro, int64_t steps);

#ifdef __cplusplus
}
#endif
#endif
