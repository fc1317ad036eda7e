/* Shared by metrics.c and metrics_replicas.c (what is told), metrics_window.c (the last 60 s),
 * metrics_view.c (a copy to read from), metrics_prometheus.c and metrics_status.c (the two texts).
 */
#ifndef TRM_COORDINATOR_METRICS_IMPL_H
#define TRM_COORDINATOR_METRICS_IMPL_H

#include "base/link_zmq.h"
#include "base/memory.h"
#include "coordinator/metrics.h"

#include <pthread.h>

/* Bounds of what is kept, so that no client and no long life makes the output grow. */
#define TRMI_METRICS_MODELS_MAX 4096
#define TRMI_METRICS_MODELS_GONE_MAX 64 /* of which unloaded: the longest unused are forgotten */
#define TRMI_METRICS_REPLICAS_MAX 4096
#define TRMI_METRICS_REPLICAS_GONE_MAX 64
#define TRMI_METRICS_ROUTES_MAX 128 /* the last one is "other" */
#define TRMI_METRICS_CODES_MAX 32   /* status codes of a route; the last one is "other" */
#define TRMI_METRICS_BATCHES_MAX 64 /* distinct batch sizes of a model, for v2's statistics */
#define TRMI_METRICS_NAME_BYTES 128

/* ---- histograms since the start ---- */
#define TRMI_BOUNDS_MAX 24
typedef struct trmi_bounds {
    int count;
    bool seconds; /* values are microseconds and are told as seconds */
    uint64_t upper[TRMI_BOUNDS_MAX];
} trmi_bounds;
extern const trmi_bounds trmi_bounds_request; /* queue, end to end */
extern const trmi_bounds trmi_bounds_first;   /* time to first token */
extern const trmi_bounds trmi_bounds_token;   /* between tokens */
extern const trmi_bounds trmi_bounds_http;
extern const trmi_bounds trmi_bounds_tokens; /* tokens of a request */
extern const trmi_bounds trmi_bounds_batch;

typedef struct trmi_histogram {
    uint64_t count, sum;
    uint64_t buckets[TRMI_BOUNDS_MAX + 1]; /* not cumulative; the last: beyond all bounds */
} trmi_histogram;
void trmi_histogram_add(trmi_histogram *h, const trmi_bounds *bounds, uint64_t value, uint64_t n);

/* ---- the last 60 seconds ---- */
typedef enum trmi_latency {
    TRMI_LATENCY_FIRST,
    TRMI_LATENCY_TOKEN,
    TRMI_LATENCY_TOTAL,
    TRMI_LATENCY_QUEUE,
    TRMI_LATENCY_COUNT
} trmi_latency;
typedef enum trmi_rate {
    TRMI_RATE_REQUESTS,
    TRMI_RATE_FAILURES,
    TRMI_RATE_ANSWER_PROMPT, /* tokens of answers ... */
    TRMI_RATE_ANSWER_NEW,
    TRMI_RATE_STEP_PROMPT, /* ... and those that replicas tell of while they are at it */
    TRMI_RATE_STEP_NEW,
    TRMI_RATE_PREFIX_QUERIES,
    TRMI_RATE_PREFIX_HITS,
    TRMI_RATE_BATCHES,
    TRMI_RATE_BATCHED,
    TRMI_RATE_COUNT
} trmi_rate;

#define TRMI_WINDOW_SECONDS 60
/* Log-scaled: exact below 8 us, then 8 buckets an octave (each at most 12.5% wide) up to 2^31 us,
 * 36 minutes; longer ones count as the last. */
#define TRMI_WINDOW_BUCKETS 232
typedef struct trmi_window_second {
    uint64_t rates[TRMI_RATE_COUNT];
    uint32_t buckets[TRMI_LATENCY_COUNT][TRMI_WINDOW_BUCKETS];
} trmi_window_second;
/* A ring of seconds and their sum, which a second leaves when its place is needed again: reading
 * looks at the sum only. Serialized. About 210 KiB whatever happens. */
typedef struct trmi_window {
    uint64_t start_us; /* nothing was counted before */
    uint64_t second;   /* the newest in the ring, of the clock of now_us */
    uint64_t rates[TRMI_RATE_COUNT];
    uint64_t counts[TRMI_LATENCY_COUNT];
    uint64_t buckets[TRMI_LATENCY_COUNT][TRMI_WINDOW_BUCKETS];
    trmi_window_second ring[TRMI_WINDOW_SECONDS];
} trmi_window;
trmi_window *trmi_window_create(uint64_t now_us); /* NULL: no memory; freed by trm_free */
void trmi_window_count(trmi_window *w, uint64_t now_us, trmi_rate rate, uint64_t n);
void trmi_window_observe(trmi_window *w, uint64_t now_us, trmi_latency latency, uint64_t us,
                         uint32_t n);
/* What a window says at a time. */
typedef struct trmi_recent {
    double per_second[TRMI_RATE_COUNT];
    uint64_t sums[TRMI_RATE_COUNT];
    uint64_t samples[TRMI_LATENCY_COUNT];
    double ms[TRMI_LATENCY_COUNT][3]; /* p50, p90, p99; only where there are samples */
} trmi_recent;
void trmi_metrics_window_read(trmi_window *w, uint64_t now_us, trmi_recent *recent_out);

/* ---- what is kept ---- */
/* Of a batch size; executions is a sum of shares: a request of 2 records in a batch of 8 is a
 * quarter of an execution. */
typedef struct trmi_batch_size {
    uint32_t size;
    double executions, run_us;
} trmi_batch_size;

typedef struct trmi_model {
    char name[TRMI_METRICS_NAME_BYTES]; /* UTF-8, no control characters */
    int64_t version;
    bool live;        /* in the hub's last list, and not unloaded */
    uint64_t used_us; /* last heard of */
    /* gauges */
    trm_model_state state;
    uint32_t running, waiting;
    int replicas;
    uint64_t kv_pages, kv_pages_used; /* filled in a view only */
    /* counters */
    uint64_t success[TRM_REQUEST_KIND_COUNT];
    uint64_t failure[TRM_STATUS_COUNT];
    uint64_t success_us, failure_us, queue_us,
        run_us;       /* sums over successes; failure_us: failures */
    uint64_t retried; /* attempts beyond the first */
    uint64_t prompt_tokens, cached_tokens, new_tokens; /* of answers */
    uint64_t records;                                  /* inferences: records, or requests */
    uint64_t last_unix_ms;                             /* of the last success */
    uint64_t prefix_queries, prefix_hits, preemptions, steps, step_us; /* sums over replicas */
    uint64_t step_prompt_tokens, step_new_tokens, batches, batched;
    trmi_histogram queue, first, token, total, per_token, prompt, generated, batch;
    trmi_batch_size sizes[TRMI_METRICS_BATCHES_MAX];
    int size_count;
    trmi_window *window; /* NULL: not live, or no memory */
    trmi_recent recent;  /* filled in a view only */
} trmi_model;

typedef struct trmi_rank {
    int rank, pid;
    char host[64], device[64];
    uint64_t memory_bytes;
    uint64_t busy_us, cpu_us;         /* as last told */
    uint64_t busy_before, cpu_before; /* by earlier lives of this rank */
    uint64_t at_us, at_busy, at_cpu;  /* where the measured stretch began, in the rank's time */
    double utilisation, cpu;          /* over the last stretch of half a second or more */
} trmi_rank;

typedef struct trmi_slot {
    uint32_t slot;
    trmi_model *model; /* NULL: forgotten */
    trm_wire_model_stats last;
} trmi_slot;

/* A replica in all its lives: "3" of the identities "3/1", "3/2". */
typedef struct trmi_replica {
    char name[TRM_LINK_PEER_BYTES];
    char identity[TRM_LINK_PEER_BYTES]; /* of the present life */
    char state[16];
    bool gone;
    uint64_t gone_us;
    trmi_rank *ranks;
    trmi_slot *slots;
    int rank_count, slot_count;
} trmi_replica;

typedef struct trmi_route {
    char pattern[96];
    int codes[TRMI_METRICS_CODES_MAX]; /* 0: other */
    uint64_t counts[TRMI_METRICS_CODES_MAX];
    int code_count;
    uint64_t bytes_in, bytes_out;
    trmi_histogram duration;
} trmi_route;

struct trm_metrics {
    pthread_mutex_t mu;
    uint64_t (*now_us)(void); /* constant; monotonic */
    uint64_t start_us;        /* constant */
    uint64_t start_unix_ms;   /* constant */
    /* guarded by mu */
    trmi_model **models;
    uint64_t *hashes; /* [model_room], of name and version */
    int model_count, model_room;
    trmi_replica **replicas;
    int replica_count, replica_room;
    uint64_t replicas_lost;
    trmi_route *routes; /* [TRMI_METRICS_ROUTES_MAX] */
    int route_count;
    int connections;
};
/* With another clock, for tests. */
trm_status trmi_metrics_create(uint64_t (*now_us)(void), trm_metrics **metrics_out);

/* metrics.c. Names come from configurations, repositories and other hosts: cut to what fits;
 * malformed UTF-8 and control characters become '?', so that every output can hold them. */
void trmi_metrics_name(char *out, size_t out_bytes, const char *text);
/* The lock is held. find: NULL: unknown. get: makes one, and may forget others for it; NULL: no
 * memory, or too many: then nothing is kept of it. */
trmi_model *trmi_model_find(trm_metrics *m, const char *name, int64_t version);
trmi_model *trmi_model_get(trm_metrics *m, const char *name, int64_t version);
void trmi_replica_destroy(trmi_replica *r); /* metrics_replicas.c; takes NULL */

/* A copy of everything, taken under the lock and read without it: making text takes longer than the
 * hub's thread should wait. */
typedef struct trmi_view {
    uint64_t uptime_us, unix_ms, start_unix_ms;
    trmi_model *models; /* ordered by name, version */
    int model_count;
    trmi_replica *replicas; /* ordered by name; without slots */
    int replica_count;
    trmi_route *routes;
    int route_count;
    uint64_t replicas_lost;
    int connections;
} trmi_view;
trm_status trmi_view_take(trm_metrics *m, trmi_view *view_out);
void trmi_view_fini(trmi_view *view);

/* Of this process, from /proc; zeros where it cannot be read. */
typedef struct trmi_process {
    uint64_t resident_bytes, virtual_bytes, cpu_us, open_fds, max_fds;
} trmi_process;
void trmi_process_read(trmi_process *out);

#endif
