/* What a serving cluster counts: requests, latencies, tokens, and what replicas tell of themselves.
 * Shared: locks inside; every call is short (a few additions under one lock). */
#ifndef TRM_COORDINATOR_METRICS_H
#define TRM_COORDINATOR_METRICS_H

#include "base/wire_serve.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_metrics trm_metrics;
TRM_MUST_USE trm_status trm_metrics_create(trm_metrics **metrics_out);
void trm_metrics_destroy(trm_metrics *m); /* takes NULL */

/* ---- told by the hub (m may be NULL in all of these: nothing is kept) ---- */
/* A request has ended. Times in microseconds, as the hub saw them: from submit to the hand-over to
 * a replica (wait_us), to the first part or the answer (first_us, 0: none came), to the end. */
typedef struct trm_metrics_request {
    const char *model;
    int64_t version;
    trm_request_kind kind;
    bool stream;
    const trm_wire_answer *answer;
    uint64_t wait_us, first_us, total_us;
    int attempts; /* replicas that it was given to */
} trm_metrics_request;
void trm_metrics_ended(trm_metrics *m, const trm_metrics_request *r);
/* A part with `tokens` new tokens came `us` after the one before. */
void trm_metrics_tokens(trm_metrics *m, const char *model, int64_t version, uint32_t tokens,
                        uint64_t us);
/* Gauges that the hub knows, on each change of the fleet and once a second. */
typedef struct trm_metrics_model_gauges {
    const char *model;
    int64_t version;
    trm_model_state state;
    uint32_t running, waiting;
    int replicas;
} trm_metrics_model_gauges;
void trm_metrics_models(trm_metrics *m, const trm_metrics_model_gauges *models, int count);
/* STATS of a replica; names[i], versions[i]: of stats->models[i] (NULL: one that is gone). */
void trm_metrics_stats(trm_metrics *m, const char *replica, const trm_wire_stats *stats,
                       const char *const *names, const int64_t *versions);
void trm_metrics_replica(trm_metrics *m, const char *replica, const char *state);
void trm_metrics_replica_gone(trm_metrics *m, const char *replica, bool lost);

/* ---- told by the gateway ---- */
/* An HTTP exchange has ended. `route`: the route's pattern, never the path itself. */
void trm_metrics_http(trm_metrics *m, const char *route, int status, uint64_t us, size_t bytes_in,
                      size_t bytes_out);
void trm_metrics_connections(trm_metrics *m, int open);

/* ---- read ---- */
/* Prometheus' text format; from trm_malloc, NULL: no memory, or no m. Names are documented in
 * docs/metrics.md. */
char *trm_metrics_prometheus(trm_metrics *m);
/* The same as JSON for the status page and `trireme top`: {"time", "uptime_s", "models": [{"name",
 * "version", "state", "replicas", "running", "waiting", "requests", "failures", "retries",
 * "prompt_tokens", "generation_tokens", "prompt_tokens_s", "generation_tokens_s", "requests_s",
 * "failures_s", "step_prompt_tokens", "step_generation_tokens", "ttft_ms": {"p50", "p90", "p99",
 * "count"}, "itl_ms", "e2e_ms", "queue_ms", "kv_usage", "prefix_hit_rate", "preemptions",
 * "batch_mean"}], "replicas": [{"replica", "identity", "state", "up", "ranks": [{"rank", "host",
 * "pid", "device", "memory_bytes", "utilisation", "cpu"}]}], "replicas_lost", "http":
 * {"connections", "requests", "client_errors", "server_errors", "bytes_in", "bytes_out"},
 * "process": {"memory_bytes", "cpu_s", "open_fds"}}. Rates and percentiles are over the last 60 s;
 * null where nothing was seen. step_*: what replicas have computed so far, for rates over less. */
json_t *trm_metrics_status(trm_metrics *m);
/* Of one model version, for v2's statistics: {"success": {"count","ns"}, "fail", "queue",
 * "compute_input", "compute_infer", "compute_output", "inference_count", "execution_count",
 * "last_inference" (Unix time, ms; 0: never), "batch_stats": [{"batch_size", "compute_input",
 * "compute_infer", "compute_output"}]}; NULL: nothing known. */
json_t *trm_metrics_model_statistics(trm_metrics *m, const char *model, int64_t version);

#ifdef __cplusplus
}
#endif
#endif
