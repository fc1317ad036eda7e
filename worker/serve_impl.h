/* Inside a serving replica: serve.c (the executor's loop), serve_link.c (the helper thread and its
 * queues), serve_lane.c (turns, and what followers do), serve_slot.c (models). */
#ifndef TRM_WORKER_SERVE_IMPL_H
#define TRM_WORKER_SERVE_IMPL_H

#include "base/exchange.h"
#include "base/wait.h"
#include "base/wire_serve.h"
#include "worker/language/lm_model.h"
#include "worker/serve.h"
#include "worker/serve_model.h"
#include "worker/serve_settings.h"

#include <pthread.h>

/* ---- serve_link.c ---- */

typedef struct trmi_serve_link trmi_serve_link;

typedef struct trmi_serve_inbound {
    trm_link_frame *frame;
    int64_t arrived_us;
    struct trmi_serve_inbound *next;
} trmi_serve_inbound;

trm_status trmi_serve_link_start(const trm_serve_options *o, trmi_serve_link **link_out);
/* All that has come, in order; the caller's. */
trmi_serve_inbound *trmi_serve_link_take(trmi_serve_link *l);
/* Sleeps until something has come, it is over, or deadline_us. */
void trmi_serve_link_wait(trmi_serve_link *l, int64_t deadline_us);
/* STOP has come (lost_out: with the word that a replica was lost), or the helper has ended, with
 * its status and message. */
bool trmi_serve_link_over(trmi_serve_link *l, bool *lost_out, trm_status *st_out);
/* Encodes and queues. Outputs of an answer go through shared memory where they are large. */
trm_status trmi_serve_link_post(trmi_serve_link *l, const trm_wire_message *m);
/* Sets the data of shared tensors of a decoded message; RELEASE is said by trmi_serve_link_release.
 */
trm_status trmi_serve_link_resolve(trmi_serve_link *l, trm_wire_message *m);
void trmi_serve_link_release(trmi_serve_link *l, const trm_wire_tensor *tensors, int count);
/* Ends the executor's sleep. Any thread. */
void trmi_serve_link_nudge(trmi_serve_link *l);
/* For heartbeats. */
void trmi_serve_link_progress(trmi_serve_link *l);
void trmi_serve_link_phase(trmi_serve_link *l, trm_wire_phase phase);
/* Sends what is queued, ends the helper. Takes NULL. */
void trmi_serve_link_end(trmi_serve_link *l);

/* ---- serve_slot.c ---- */

/* A loaded model, on every rank of the replica. */
typedef struct trmi_slot {
    uint32_t id;
    char *name;
    int64_t version;
    trm_config *config; /* of its settings */
    const trm_serve_settings *settings;
    trm_tensor_model *tensor; /* one of these two */
    trm_lm_model *lm;
    trm_serve_model *served; /* leader */
    bool draining;           /* leader: UNLOAD has come */
    int64_t load_us;
    struct trmi_slot *next;
} trmi_slot;

struct trmi_serve;
/* A model that is being opened: what needs no other rank is done by a thread, while the executor
 * goes on with other models. */
typedef struct trmi_loading {
    uint32_t id;
    trmi_slot *slot;
    char *path;
    pthread_t thread;
    bool threaded;
    int done;      /* atomic: the thread has ended */
    bool unwanted; /* leader: UNLOAD has come meanwhile */
    struct trmi_serve *s;
    trm_device *folding;
    trm_status st;
    char message[1024];
    struct trmi_loading *next;
} trmi_loading;

typedef struct trmi_serve {
    const trm_serve_options *o;
    int size; /* ranks of the replica */
    trmi_slot *slots;
    trmi_loading *loading;
    int64_t current; /* slot whose steps the others follow now; -1: none */
    /* leader */
    trmi_serve_link *link;
    struct trmi_pending *pending[1024]; /* by id */
    int64_t start_us, stats_us;
    uint64_t busy_us;
    trmi_slot *turn; /* whose turn it was last */
} trmi_serve;

/* Not collective. Starts the thread; COMM: it cannot (the others are out of step then). */
trm_status trmi_slot_begin_load(trmi_serve *s, const trm_wire_load *load);
/* Collective over the replica: waits for this rank's thread, opens the model with the others. All
 * ranks return the same. `l` is gone. */
trm_status trmi_slot_finish_load(trmi_serve *s, trmi_loading *l, trmi_slot **slot_out);
/* Waits for the thread, frees what it has opened. Not collective. */
void trmi_slot_drop_load(trmi_serve *s, trmi_loading *l);
trmi_loading *trmi_loading_find(const trmi_serve *s, uint32_t id);
/* Leader: makes it answer requests, after it has run once. */
trm_status trmi_slot_begin(trmi_serve *s, trmi_slot *slot, const trm_serve_out *out);
/* This rank's part; nothing is under way. Also takes it out of s->slots. */
void trmi_slot_close(trmi_serve *s, trmi_slot *slot);
trmi_slot *trmi_slot_find(const trmi_serve *s, uint32_t id);

/* ---- serve_lane.c ---- */

/* Leader: the others follow this slot's steps from now on; NULL: none, they wait for a word. What
 * is under way of the last one is collected first. COMM: a rank is lost. */
trm_status trmi_lane_turn(trmi_serve *s, trmi_slot *slot);
/* Leader: the others begin to load a model too, finish it (now, collectively), or drop it; or close
 * one. */
trm_status trmi_lane_load(trmi_serve *s, const trm_wire_load *load);
trm_status trmi_lane_finish(trmi_serve *s, uint32_t slot);
trm_status trmi_lane_drop(trmi_serve *s, uint32_t slot);
trm_status trmi_lane_unload(trmi_serve *s, uint32_t slot);
trm_status trmi_lane_stop(trmi_serve *s);
/* Everybody else: until the leader says stop. */
trm_status trmi_lane_follow(trmi_serve *s);

#endif
