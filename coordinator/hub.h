/* The hub: one thread that owns the ROUTER sockets of a serving cluster: the replicas' and, if
 * wanted, a public one for programs that skip HTTP. It keeps the fleet (fleet.h: who the replicas
 * are, which models each has), the requests that wait (backlog.h) and those under way.
 *
 * A request stays here until its answer is out. When a replica dies its requests go to another one:
 * replicas give the same bytes for the same request, seed, tag and time, so what had been streamed
 * already is skipped and the client sees no seam. After TRM_HUB_ATTEMPTS replicas a request is
 * answered with COMM. A request for a model of which no replica is left, or which was not answered
 * by its deadline, is answered too: exactly one answer each, whatever happens.
 *
 * Shared: submit, cancel, models, load, unload and the like may be called by any thread. Callbacks
 * run on the hub's thread (or inside trm_hub_submit never): they must return quickly and must not
 * call the hub back except trm_hub_cancel. */
#ifndef TRM_COORDINATOR_HUB_H
#define TRM_COORDINATOR_HUB_H

#include "base/link_zmq.h"
#include "base/wire_serve.h"
#include "coordinator/metrics.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_HUB_ATTEMPTS 3

typedef struct trm_hub trm_hub;

/* A model that the hub knows: from the configuration, or of a repository. Strings are copied. */
typedef struct trm_hub_model {
    const char *name;
    int64_t version; /* 1 .. */
    const char *path;
    const char *settings;        /* JSON object (trm_wire_load) */
    bool load;                   /* at start */
    int first_replica, replicas; /* numbers of those that are to have it; replicas 0: all */
} trm_hub_model;

typedef struct trm_hub_options {
    trm_link_context *context;
    const char *endpoint;        /* for replicas, as trm_link_bind */
    const char *public_endpoint; /* for clients; NULL: none */
    /* of the clients' links, which do not have the replicas' keys; NULL: context */
    trm_link_context *public_context;
    int replicas;        /* that are expected */
    int queue_max;       /* requests that wait at most; 0: 4,096 */
    int64_t deadline_ms; /* of requests that name none, and the longest; 0: 600,000 */
    int64_t join_ms, silence_ms, stuck_ms; /* 0: 30,000, 1,500, 120,000; scaled. Stuck: a replica
                                              with work whose progress counter does not move; ten
                                              times as long while it loads or takes a first step */
    bool in_job;                           /* replicas are ranks of this job: a lost one is final */
    const trm_hub_model *models;
    int model_count;
    trm_metrics *metrics; /* borrowed; NULL: none kept */
    /* Called on the hub's thread when the fleet has changed (a replica joined, became ready or was
     * lost; a model changed state). NULL: nobody wants to know. */
    void (*changed)(void *ctx);
    void *ctx;
} trm_hub_options;

/* Binds, and starts the thread. */
TRM_MUST_USE trm_status trm_hub_create(const trm_hub_options *options, trm_hub **hub_out);
const char *trm_hub_endpoint(const trm_hub *hub);
const char *trm_hub_public_endpoint(const trm_hub *hub); /* "" */

/* ---- requests ---- */
typedef struct trm_hub_request {
    const trm_wire_request *wire; /* copied; id, slot, seed, created and tag are set by the hub
                                     where they are 0 or "" */
    const char *owner;            /* whose it is, for the metrics and limits: a key's name, "" */
    void *ctx;
    void (*part)(void *ctx, const trm_wire_part *part); /* NULL: not wanted */
    /* Exactly once for a submit that returned OK; ctx is not used afterwards. Pointers are valid
     * during the call. */
    void (*answer)(void *ctx, const trm_wire_answer *answer);
} trm_hub_request;
/* NOT_FOUND: no such model or version. COMM: known, but not ready (loading, failed, no replica;
 * says which), or the hub is draining. TIMEOUT: the queue is full, come again later. INVALID_ARG:
 * the request. */
TRM_MUST_USE trm_status trm_hub_submit(trm_hub *hub, const trm_hub_request *request,
                                       uint64_t *id_out);
/* Its answer comes at once with CANCELLED, unless it has been given; the replica is told. */
void trm_hub_cancel(trm_hub *hub, uint64_t id);

/* ---- models ---- */
typedef struct trm_hub_model_info {
    char name[128];
    int64_t version;
    trm_model_state state; /* of the version as a whole: READY when at least one replica has it */
    bool listed;           /* UNLOADED: known by the configuration or the repository only */
    int replicas;          /* that have it ready */
    int loading;           /* that are still loading it (also a newer copy of it) */
    char reason[256];      /* FAILED, UNLOADED: why */
    char *metadata;        /* JSON (trm_wire_model), "" while unknown */
    uint32_t running, waiting;
    uint64_t loaded_at; /* Unix time, s; 0: never */
} trm_hub_model_info;
/* All that are known, ordered by name and version; *infos_out from trm_malloc, freed by
 * trm_hub_models_free. */
TRM_MUST_USE trm_status trm_hub_models(trm_hub *hub, trm_hub_model_info **infos_out,
                                       int *count_out);
void trm_hub_models_free(trm_hub_model_info *infos, int count);
/* The one that a request for `version` (0: newest ready, else newest known) would use; metadata is
 * trm_free'd by the caller. NOT_FOUND. */
TRM_MUST_USE trm_status trm_hub_find_model(trm_hub *hub, const char *name, int64_t version,
                                           trm_hub_model_info *info_out);
/* Load, or load anew: the new copy is loaded beside the old one on every replica, takes over when
 * all of them have it, and the old one drains. `model`: NULL fields are as known; settings hold for
 * this load, over those that are known, key by key. `done` is called
 * once, with the failure if it failed (the old one then stays). NOT_FOUND: unknown, and no path. */
TRM_MUST_USE trm_status trm_hub_load(trm_hub *hub, const trm_hub_model *model, void *ctx,
                                     void (*done)(void *ctx, trm_status st, const char *message));
/* version 0: all of them. New requests are refused at once; `done` when it is gone everywhere. */
TRM_MUST_USE trm_status trm_hub_unload(trm_hub *hub, const char *name, int64_t version, void *ctx,
                                       void (*done)(void *ctx, trm_status st, const char *message));

/* ---- the whole ---- */
typedef struct trm_hub_replica_info {
    char identity[TRM_LINK_PEER_BYTES]; /* "replica/epoch" */
    char host[128];
    int rank, pid;
    const char *state; /* "joining", "loading", "ready", "draining", "dead" */
    const char *phase; /* of its heartbeats */
    int in_flight;
    uint64_t done;
    char reason[256]; /* dead: why */
} trm_hub_replica_info;
typedef struct trm_hub_info {
    bool ready; /* every model that is loaded at start is ready on at least one replica */
    bool draining;
    int replicas, ready_replicas, dead_replicas, expected_replicas;
    int waiting, running;          /* requests */
    trm_hub_replica_info *replica; /* [replicas], dead ones of the last minute included */
    char last_dead[384];           /* "replica 2/1 (rank 2, ...): why"; "" */
} trm_hub_info;
TRM_MUST_USE trm_status trm_hub_get_info(trm_hub *hub, trm_hub_info *info_out);
void trm_hub_info_fini(trm_hub_info *info);
/* Sleeps until ready, a start-up failure (COMM: no replica came; or the first model failure, with
 * its message), or deadline_us (TIMEOUT). */
TRM_MUST_USE trm_status trm_hub_wait_ready(trm_hub *hub, int64_t deadline_us);
/* No new requests from now on; returns when all are answered, or at the deadline (TIMEOUT says how
 * many are not). */
TRM_MUST_USE trm_status trm_hub_drain(trm_hub *hub, int64_t deadline_us);
/* Tells the replicas to stop (STOP, `lost` as in base/wire.h) and ends the thread; requests that
 * are left are answered with COMM. True: MPI must not be finalised. */
bool trm_hub_stop(trm_hub *hub);
void trm_hub_destroy(trm_hub *hub); /* stops first; takes NULL */

#ifdef __cplusplus
}
#endif
#endif
