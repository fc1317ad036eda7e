/* What the hub's files share. `mu` guards all that is said so; the rest is the hub's thread's own.
 * Other threads add requests and operations and mark requests as cancelled, nothing else: what the
 * thread has found under `mu` stays as it is while it calls callbacks without it. */
#ifndef TRM_COORDINATOR_HUB_IMPL_H
#define TRM_COORDINATOR_HUB_IMPL_H

#include "base/exchange.h"
#include "base/wait.h"
#include "coordinator/backlog.h"
#include "coordinator/fleet.h"
#include "coordinator/hub.h"

#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_HUB_REASON_BYTES 512

/* A tensor of a request in the hub's shared memory. */
typedef struct trmi_hub_piece {
    uint64_t offset, bytes;
    void *data;
} trmi_hub_piece;

typedef struct trmi_hub_request {
    trm_backlog_item item; /* first */
    trm_fleet_model *model;
    bool any_version; /* it named none: any ready version will do */
    uint32_t slot;    /* of the copy that it runs on, or has to be continued on; 0: none */
    trm_fleet_replica *replica;
    uint64_t prefix;
    trm_request_kind kind;
    bool stream;
    trm_wire_buffer frame; /* the REQUEST, for `frame_slot`, with pieces */
    uint32_t frame_slot;
    size_t held; /* bytes of the frame that are counted in the hub's */
    trmi_hub_piece *pieces;
    int piece_count;
    void *ctx;
    void (*part)(void *ctx, const trm_wire_part *part);
    void (*answer)(void *ctx, const trm_wire_answer *answer);
    struct trmi_hub_client *client; /* of the public endpoint; NULL: submitted */
    uint64_t client_id;
    struct trmi_hub_request *client_next;               /* of the same client */
    int64_t submitted_us, handed_us, first_us, part_us; /* 0: not yet */
    bool cancelled;                                     /* asked for */
    struct trmi_hub_request *cancelled_next;
    bool ended, delivered; /* by the hub: is, was answered from here, with: */
    trm_status end_status;
    char end_message[TRMI_HUB_REASON_BYTES];
    struct trmi_hub_request *ended_next;
} trmi_hub_request;

/* A load or an unload that somebody waits for. */
typedef struct trmi_hub_operation {
    void *ctx;
    void (*done)(void *ctx, trm_status st, const char *message);
    uint32_t slot; /* load: of the new copy; unload: of the newest that is to go */
    char name[TRM_FLEET_NAME_BYTES]; /* unload; load: "" */
    int64_t version;
    bool finished;
    trm_status st;
    char message[TRMI_HUB_REASON_BYTES];
    struct trmi_hub_operation *next;
} trmi_hub_operation;

struct trmi_hub_client;
typedef struct trmi_hub_clients trmi_hub_clients;

struct trm_hub {
    trm_hub_options options; /* frozen; models is not kept */
    int64_t deadline_us, join_us, started_us;
    trm_fleet_limits limits;
    pthread_t thread;
    bool started, joined_thread;
    trm_wait news; /* posted by the thread when something that others may wait for has changed */
    char endpoint[TRM_LINK_ENDPOINT_BYTES], public_endpoint[TRM_LINK_ENDPOINT_BYTES];
    char host[128];

    /* the thread's own */
    trm_link *link, *public_link; /* public_link: NULL without one */
    trm_wire_buffer out;
    trmi_hub_clients *clients;
    int64_t next_beat_us, gauges_us;
    bool hidden;

    size_t held; /* bytes of requests; atomic, relaxed: a bound, nothing is ordered by it */
    pthread_mutex_t exchange_mu;
    trm_exchange *exchange; /* guarded by exchange_mu; NULL: this system has no shared memory */

    pthread_mutex_t mu;
    trm_fleet fleet;                     /* guarded by mu */
    trm_backlog *backlog;                /* guarded by mu */
    trmi_hub_request *cancelled;         /* guarded by mu: asked for, not done yet */
    trmi_hub_request *ended, **ended_at; /* guarded by mu: to be answered by the thread */
    trmi_hub_operation *operations;      /* guarded by mu */
    uint64_t last_id;                    /* guarded by mu */
    int answering;                       /* guarded by mu: out of the backlog, not answered yet */
    bool woken;          /* guarded by mu: trm_link_wake was called for this round */
    bool changed;        /* guarded by mu: tell options.changed and the metrics */
    bool bound, over;    /* guarded by mu: the thread's life */
    bool draining, stop; /* guarded by mu */
    bool was_ready;      /* guarded by mu: start-up is over */
    int64_t alone_us;    /* guarded by mu: since when no replica lives; 0: some do */
    trm_status start_st; /* guarded by mu: bind failed, or the first model failure */
    char start_message[TRMI_HUB_REASON_BYTES]; /* guarded by mu */
    char last_dead[384];                       /* guarded by mu: "replica 2/1 (..): why" */
};

/* ---- hub.c ---- */
void trmi_hub_wake(trm_hub *h);        /* mu held */
bool trmi_hub_ready(const trm_hub *h); /* mu held */

/* ---- hub_replicas.c; on the thread, mu held unless said ---- */
TRM_MUST_USE trm_status trmi_hub_send(trm_hub *h, const char *peer, const trm_wire_message *m);
/* Names it, puts its requests back and forgets its copies. */
void trmi_hub_give_up(trm_hub *h, trm_fleet_replica *r, const char *reason, bool lost);
/* One frame of a replica; mu not held. The frame is the caller's. */
void trmi_hub_on_frame(trm_hub *h, const char *peer, const trm_link_frame *frame);
void trmi_hub_beat(trm_hub *h);
/* Gives up those past a limit. Only after everything that has come was read. */
void trmi_hub_judge(trm_hub *h, int64_t now_us);

/* ---- hub_submit.c ---- */
/* From any thread, mu not held. `request->wire` is checked here. `client`: NULL, or whose it is. */
TRM_MUST_USE trm_status trmi_hub_submit(trm_hub *h, const trm_hub_request *request,
                                        struct trmi_hub_client *client, uint64_t *id_out);
void trmi_hub_free_request(trm_hub *h, trmi_hub_request *q); /* in no list any more; takes NULL */

/* ---- hub_requests.c ---- */
/* mu held: it will be answered so, by the next trmi_hub_deliver; its replica is told. */
void trmi_hub_end(trm_hub *h, trmi_hub_request *q, trm_status st, const char *message);
void trmi_hub_cancel_request(trm_hub *h, trmi_hub_request *q); /* mu held, any thread */
/* mu held. m NULL: all; else those that wait for it. */
void trmi_hub_end_all(trm_hub *h, const trm_fleet_model *m, trm_status st, const char *message);
/* mu held: what waits for `m`, named no version and has not begun, waits for another one that is
 * ready. */
void trmi_hub_reroute(trm_hub *h, trm_fleet_model *m);
/* On the thread, mu not held: answers those that were ended. */
void trmi_hub_deliver(trm_hub *h);
/* mu held: the lost replica's requests wait again, or are ended. */
void trmi_hub_take_back(trm_hub *h, trm_fleet_replica *r);
/* mu held: cancelled and late ones are ended, waiting ones are given out. */
void trmi_hub_hand_out(trm_hub *h, int64_t now_us);
/* On the thread, mu not held. `m` has been resolved. */
void trmi_hub_on_part(trm_hub *h, const char *peer, const trm_wire_part *part);
void trmi_hub_on_answer(trm_hub *h, const char *peer, const trm_wire_answer *answer);

/* ---- hub_models.c; mu held ---- */
/* Brings the replicas nearer to what they are to have: LOAD, UNLOAD, changes of copies, the ends of
 * operations. */
void trmi_hub_reconcile(trm_hub *h, int64_t now_us);
/* Models that no replica has or will have: what waits for them is ended. */
void trmi_hub_check_hope(trm_hub *h, int64_t now_us);
/* mu not held: the callbacks of finished operations. */
void trmi_hub_finish_operations(trm_hub *h);
void trmi_hub_fail_operations(trm_hub *h, trm_status st, const char *message); /* all */
void trmi_hub_tell_gauges(trm_hub *h);                                         /* to the metrics */

/* ---- hub_public.c; on the thread ---- */
TRM_MUST_USE trm_status trmi_hub_clients_create(trmi_hub_clients **clients_out);
void trmi_hub_clients_destroy(trmi_hub_clients *clients); /* takes NULL */
void trmi_hub_on_public(trm_hub *h, const char *peer, const trm_link_frame *frame);
void trmi_hub_client_part(trm_hub *h, trmi_hub_request *q, const trm_wire_part *part);
void trmi_hub_client_answer(trm_hub *h, trmi_hub_request *q, const trm_wire_answer *answer);
/* A request comes or goes. */
void trmi_hub_client_add(struct trmi_hub_client *client, trmi_hub_request *q);
void trmi_hub_client_remove(trm_hub *h, trmi_hub_request *q);

#ifdef __cplusplus
}
#endif
#endif
