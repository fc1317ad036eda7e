/* What the files of the sampler share.
 *
 *   sampling.c    parameters; sampler.c: one sequence; philox.c: random bits; stopper.c: stop
 * strings logits.c      whole rows: largest, log-sum-exp, the first N, ranks candidates.c  top_k,
 * top_p, min_p, typical_p and the draw
 *
 * All arithmetic on rows goes by fixed chunks and lanes, so that its bits depend on the row alone.
 */
#ifndef TRM_WORKER_LANGUAGE_SAMPLER_IMPL_H
#define TRM_WORKER_LANGUAGE_SAMPLER_IMPL_H

#include "worker/language/sampler.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_ROW_CHUNK 1024 /* elements that are summed in float before double takes over */

static inline int64_t trmi_row_chunks(int64_t count)
{
    return (count + TRMI_ROW_CHUNK - 1) / TRMI_ROW_CHUNK;
}

/* exp(x) for x <= 0, relative error below 2e-7; 0 below -87. The same bits as in trmi_row_sum. */
float trmi_exp(float x);
/* The largest value and the lowest id that has it; returns how many elements are not finite (then
 * the others mean nothing). */
int64_t trmi_row_largest(const float *row, int64_t count, float *max_out, int32_t *id_out);
/* Sum of exp((row[i] - max) * scale); `chunks`: NULL, or each chunk's sum. */
double trmi_row_sum(const float *row, int64_t count, float max, float scale, double *chunks);
/* The first `wanted` by value, then by id; returns how many (fewer: count is). */
int32_t trmi_row_top(const float *row, int64_t count, int32_t wanted, int32_t *ids, float *values);
/* 1: nothing is larger, and nothing as large has a lower id. */
int64_t trmi_row_rank(const float *row, int64_t count, int32_t id);

/* A token that may be drawn. */
typedef struct trmi_candidate {
    int32_t id;
    float z; /* (logit - largest) / temperature */
    double weight;
    float key;
} trmi_candidate;

typedef struct trmi_candidates {
    trmi_candidate *items;
    size_t count, room;
    double *chunks; /* [trmi_row_chunks] */
} trmi_candidates;

/* Draws from the row by `s`; `u`: in [0, 1). The row has a largest value above -infinity. */
TRM_MUST_USE trm_status trmi_draw(const trm_sampling *s, const float *row, int64_t count, float max,
                                  double u, trmi_candidates *c, int32_t *id_out);

#ifdef __cplusplus
}
#endif
#endif
