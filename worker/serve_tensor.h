/* A tensor model that serves (serve_model.h): dynamic batching.
 *
 * Requests of equal shapes share steps: rows are stacked along the batch dim up to max_batch. When
 * a step may begin, the batch is taken at once if it is full, if it has reached a preferred size,
 * or if it is as large as the batch before (those who were answered together come again together:
 * waiting longer than that would be for nobody); else when its oldest request has waited max_delay.
 * A step takes all that wait, up to max_batch, whatever their number, so that a request waits at
 * most max_delay and the step that was running (with sizes of powers of two, who was left over
 * waited a second step). Every size is bound once, when it first comes; rows are never padded, but
 * for a model whose batch dim is a constant. One owner: the executor thread. */
#ifndef TRM_WORKER_SERVE_TENSOR_H
#define TRM_WORKER_SERVE_TENSOR_H

#include "worker/serve_model.h"
#include "worker/tensor_model.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_serve_tensor_options {
    trm_tensor_model *model; /* leads a replica; borrowed */
    const char *name;
    int64_t version;
    int max_batch; /* 0: 32 */
    bool batching; /* false: every request runs alone */
    int64_t max_delay_us;
    const int64_t *preferred; /* [preferred_count] rows; copied */
    int preferred_count;
    int queue; /* requests that may be here at once; 0: 4 * max_batch + 64 */
    trm_serve_out out;
} trm_serve_tensor_options;

TRM_MUST_USE trm_status trm_serve_tensor_create(const trm_serve_tensor_options *options,
                                                trm_serve_model **model_out);

/* ---- batcher.c: the decision alone ---- */
typedef struct trm_batcher {
    int max_batch;
    int64_t max_delay_us;
    const int64_t *preferred;
    int preferred_count;
    int last_rows; /* of the batch before */
} trm_batcher;
/* When a batch of `rows` rows whose oldest request arrived at oldest_us should begin: 0: now. */
int64_t trm_batcher_due_us(const trm_batcher *b, int rows, int64_t oldest_us);
/* How many of `rows` waiting rows the next step should take. */
int trm_batcher_size(const trm_batcher *b, int rows);

#ifdef __cplusplus
}
#endif
#endif
