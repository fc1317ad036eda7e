/* A loaded model of a replica that serves: what the leader's loop (serve.h) drives. Two rows:
 * serve_tensor.c (dynamic batching) and language/serve_language.c (continuous batching).
 *
 * The loop hands requests over as they come and calls step as long as there is work; step does one
 * piece of work of a few milliseconds at best (a step of the replica, or a batch), so that several
 * models of one replica take turns and requests that come meanwhile are seen in between. One owner:
 * the executor thread. */
#ifndef TRM_WORKER_SERVE_MODEL_H
#define TRM_WORKER_SERVE_MODEL_H

#include "base/wire_serve.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where answers go. Encoded before these return; the caller keeps what it passes. */
typedef struct trm_serve_out {
    void *ctx;
    void (*part)(void *ctx, const trm_wire_part *part);
    void (*answer)(void *ctx, const trm_wire_answer *answer);
} trm_serve_out;

typedef struct trm_serve_model trm_serve_model;
typedef struct trm_serve_model_ops {
    const char *name; /* "tensor", "language" */
    /* Takes a request. It lies in `frame`, which stays until the request has been answered (the
     * loop keeps it); it is answered exactly once through `out`, perhaps at once (a bad one).
     * arrived_us: trm_now_us when the link had it. */
    void (*submit)(trm_serve_model *m, const trm_wire_request *request, int64_t arrived_us);
    /* Its answer is no longer wanted: answered with CANCELLED now, or as soon as its step is over.
     * Unknown ids (answered already) are nothing. */
    void (*cancel)(trm_serve_model *m, uint64_t id);
    /* Requests that have not been answered. */
    int (*count)(const trm_serve_model *m);
    /* When step has something to do: 0: now; INT64_MAX: nothing before the next submit; else a
     * time (trm_now_us): a batch that waits to grow. */
    int64_t (*due_us)(const trm_serve_model *m);
    /* One piece of work. COMM: the replica is lost. Other failures are requests', answered. */
    trm_status (*step)(trm_serve_model *m);
    /* Waits for what is under way on other ranks and answers it; nothing is left there afterwards.
     * NULL: step leaves nothing behind. COMM as step. */
    trm_status (*settle)(trm_serve_model *m);
    /* Answers all that are left with `st` and trm_message's text. */
    void (*fail)(trm_serve_model *m, trm_status st);
    void (*stats)(const trm_serve_model *m, trm_wire_model_stats *stats_out); /* slot: the loop's */
    /* For MODEL's metadata; a new reference. */
    json_t *(*metadata)(const trm_serve_model *m);
    uint32_t (*credits)(const trm_serve_model *m);
    void (*destroy)(trm_serve_model *m); /* nothing is left (count is 0, or fail was called) */
} trm_serve_model_ops;
struct trm_serve_model {
    const trm_serve_model_ops *ops;
    trm_serve_out out;
};

#ifdef __cplusplus
}
#endif
#endif
