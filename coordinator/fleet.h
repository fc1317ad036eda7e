/* The fleet of a serving cluster: the replicas, the models that are known, the copies of each that
 * are loaded, and which replica has which copy. Bookkeeping and arithmetic on times handed in: no
 * socket, no clock. One owner, or a lock around it.
 *
 * A copy is one loading of a model's version; its slot number is unique in the fleet's life. Every
 * replica is to have the current and the pending copy of each model. A new copy is pending until it
 * is promoted; the old one is then retired: nothing new goes to it, and when its requests are
 * answered it is unloaded. */
#ifndef TRM_COORDINATOR_FLEET_H
#define TRM_COORDINATOR_FLEET_H

#include "base/link_zmq.h"
#include "base/wire_serve.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_FLEET_NAME_BYTES 128
#define TRM_FLEET_REPLICAS_MAX 4096
#define TRM_FLEET_MODELS_MAX 4096
#define TRM_FLEET_PREFIXES 4096 /* remembered of which replica had them last */
#define TRM_FLEET_PREFIX_BYTES 256
#define TRM_FLEET_REMEMBER_US ((int64_t)60000000) /* a dead replica is shown that long */

struct trm_fleet_copy;

/* A model's version. Lives as long as the fleet. */
typedef struct trm_fleet_model {
    char name[TRM_FLEET_NAME_BYTES];
    int64_t version;
    int index;                   /* in the fleet: its queue */
    char *path, *settings;       /* what the next loading takes */
    char *metadata;              /* of the newest copy that became ready; NULL: none did */
    bool load;                   /* wanted at start */
    int first_replica, replicas; /* numbers of those that are to have it; replicas 0: all */
    struct trm_fleet_copy *current, *pending;
    int retired; /* copies of it that are not gone yet */
    bool failed;
    char reason[256]; /* why it failed or was unloaded; "" */
    uint64_t loaded_at;
    uint32_t running, waiting; /* requests; counted by the owner */
    int64_t hopeless_us;       /* since when no replica has it or loads it; 0: one does */
} trm_fleet_model;

typedef enum trm_fleet_role {
    TRM_FLEET_CURRENT,
    TRM_FLEET_PENDING,
    TRM_FLEET_RETIRED
} trm_fleet_role;

typedef struct trm_fleet_copy {
    uint32_t slot; /* 1 .. */
    trm_fleet_model *model;
    trm_fleet_role role;
    char *path, *settings;
    char *metadata;   /* NULL until it is ready somewhere */
    int requests;     /* bound to it; counted by the owner */
    int places;       /* replicas that have it in any state */
    int ready;        /* of those, where it is READY */
    int failed;       /* where it has failed */
    int64_t alone_us; /* since when no replica is there that is to have it; 0: one is */
} trm_fleet_copy;

/* A copy on a replica. */
typedef struct trm_fleet_place {
    trm_fleet_copy *copy;
    trm_model_state state; /* LOADING, READY, DRAINING (told to unload), FAILED */
    uint32_t credits;      /* READY: requests it takes at once */
    uint32_t in_flight;
} trm_fleet_place;

typedef enum trm_fleet_replica_state {
    TRM_FLEET_JOINED, /* its states until it drains or dies follow from its places */
    TRM_FLEET_DRAINING,
    TRM_FLEET_DEAD
} trm_fleet_replica_state;

typedef struct trm_fleet_replica {
    char peer[TRM_LINK_PEER_BYTES]; /* "number/epoch" */
    int number, epoch;
    char host[128];
    int rank, pid;
    trm_fleet_replica_state state;
    trm_fleet_place *places;
    int place_count, place_max;
    int in_flight;
    uint64_t done;
    uint64_t picked; /* when it was picked last, as a count of picks */
    trm_wire_phase phase;
    uint64_t progress;
    int64_t heard_us; /* last message of any kind */
    int64_t moved_us; /* last time progress changed, or it was given work while idle */
    int64_t dead_us;
    char reason[256]; /* DEAD: why */
    bool lost;        /* DEAD: its process may be gone */
    void *view;       /* the owner's */
} trm_fleet_replica;

typedef struct trm_fleet {
    trm_fleet_replica **replicas; /* dead ones included */
    int replica_count, replica_max;
    trm_fleet_model **models; /* in the order in which they became known */
    int model_count, model_max;
    trm_fleet_copy **copies;
    int copy_count, copy_max;
    uint32_t last_slot;
    uint64_t picks;
    int joined, lost, dead; /* in its life */
    struct {
        uint64_t hash;
        trm_fleet_replica *replica;
    } prefixes[TRM_FLEET_PREFIXES];
} trm_fleet;

void trm_fleet_fini(trm_fleet *f); /* zeroed is empty */

/* ---- models ---- */
/* A model that becomes known, or is known already: non-NULL path and settings replace the old ones.
 * NOT_FOUND: it is new and has no path. INVALID_ARG: its name or version. */
TRM_MUST_USE trm_status trm_fleet_know(trm_fleet *f, const char *name, int64_t version,
                                       const char *path, const char *settings,
                                       trm_fleet_model **model_out);
trm_fleet_model *trm_fleet_find(const trm_fleet *f, const char *name, int64_t version); /* NULL */
/* What a request for `version` would use; 0: the newest that is ready, else the newest known. NULL:
 * unknown. */
trm_fleet_model *trm_fleet_route(const trm_fleet *f, const char *name, int64_t version);
/* Whether it is one of those that are to have it. */
bool trm_fleet_wants(const trm_fleet_model *m, const trm_fleet_replica *r);
trm_model_state trm_fleet_model_state(const trm_fleet_model *m);
/* Replicas that load it (also a pending copy of it). */
int trm_fleet_loading(const trm_fleet *f, const trm_fleet_model *m);
/* Some live replica has its current copy or is loading it. */
bool trm_fleet_hope(const trm_fleet *f, const trm_fleet_model *m);

/* ---- copies ---- */
/* With what the model says now. As CURRENT (the model has none) or PENDING (likewise). */
TRM_MUST_USE trm_status trm_fleet_add_copy(trm_fleet *f, trm_fleet_model *m, trm_fleet_role role,
                                           trm_fleet_copy **copy_out);
trm_fleet_copy *trm_fleet_copy_of(const trm_fleet *f, uint32_t slot); /* NULL */
void trm_fleet_promote(trm_fleet_copy *copy, uint64_t now_s);         /* pending: current now */
void trm_fleet_retire(trm_fleet_copy *copy);
void trm_fleet_drop(trm_fleet *f, trm_fleet_copy *copy); /* retired, and in no place */

/* ---- replicas ---- */
/* HELLO of "number/epoch". An older epoch of that number that is not dead comes back in
 * *replaced_out (NULL otherwise): the caller gives it up. INVALID_ARG: not such an identity, or one
 * that has been here, or an older epoch than one that has. */
TRM_MUST_USE trm_status trm_fleet_join(trm_fleet *f, const char *peer,
                                       const trm_wire_message *hello, int64_t now_us,
                                       trm_fleet_replica **replica_out,
                                       trm_fleet_replica **replaced_out);
trm_fleet_replica *trm_fleet_by_peer(const trm_fleet *f, const char *peer); /* NULL; also dead */
/* What a live replica said, other than HELLO: notes the time, and applies HEARTBEAT, MODEL and
 * DRAIN. *changed_out: a state has changed. COMM: it makes no sense from this replica. */
TRM_MUST_USE trm_status trm_fleet_hear(trm_fleet *f, trm_fleet_replica *r,
                                       const trm_wire_message *m, int64_t now_us, uint64_t now_s,
                                       bool *changed_out);
/* This process has not run for `us`: adds that to what each replica may be silent or stuck. */
void trm_fleet_forgive(trm_fleet *f, int64_t us);
typedef struct trm_fleet_limits {
    int64_t silence_us; /* nothing heard */
    int64_t stuck_us; /* it beats, has something to do, and its progress counter does not move; ten
                         times that while it loads or takes a first step */
} trm_fleet_limits;
/* A replica past a limit, with the reason as this thread's message; NULL: none. */
trm_fleet_replica *trm_fleet_overdue(const trm_fleet *f, const trm_fleet_limits *limits,
                                     int64_t now_us);
/* Gives it up: its places are gone. `lost`: its process may be gone too. */
void trm_fleet_give_up(trm_fleet *f, trm_fleet_replica *r, const char *reason, bool lost,
                       int64_t now_us);
/* Forgets the dead that are not shown any more, but not the newest of a number. */
void trm_fleet_forget(trm_fleet *f, int64_t now_us);
int trm_fleet_alive(const trm_fleet *f);
/* "joining", "loading", "ready", "draining", "dead" */
const char *trm_fleet_replica_state_name(const trm_fleet *f, const trm_fleet_replica *r);
/* "replica 2/1 (rank 2, pid 4711 on node7)" into buf; returns buf. */
char *trm_fleet_replica_text(const trm_fleet_replica *r, char *buf, size_t bytes);

/* ---- places and picks ---- */
trm_fleet_place *trm_fleet_place_of(const trm_fleet_replica *r, const trm_fleet_copy *copy);
/* LOAD was sent. */
TRM_MUST_USE trm_status trm_fleet_add_place(trm_fleet_replica *r, trm_fleet_copy *copy,
                                            int64_t now_us);
/* UNLOAD was sent; false: there is nothing to unload (it has failed there, or is not there). */
bool trm_fleet_displace(trm_fleet_replica *r, trm_fleet_copy *copy, int64_t now_us);
uint32_t trm_fleet_free_credit(const trm_fleet *f, const trm_fleet_copy *copy);
/* Of a body's first bytes, never 0. */
uint64_t trm_fleet_prefix(const trm_fleet_model *m, const void *body, size_t bytes);
/* The replica that a request goes to: one that has the copy READY with credit, where the least part
 * of its credit is used; the one that had `prefix` last (0: none) if it has at most 2 requests more
 * than the least. NULL: wait. */
trm_fleet_replica *trm_fleet_pick(const trm_fleet *f, const trm_fleet_copy *copy, uint64_t prefix);
void trm_fleet_sent(trm_fleet *f, trm_fleet_replica *r, trm_fleet_copy *copy, uint64_t prefix,
                    int64_t now_us);
void trm_fleet_answered(trm_fleet_replica *r, const trm_fleet_copy *copy);

#ifdef __cplusplus
}
#endif
#endif
