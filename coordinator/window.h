/* The records between input and output: a bounded ring that hands them out in input order, takes
 * results in any order, and gives those back in input order again. A record stays here, encoded,
 * until its result is taken, so it can be handed to another replica when one dies. Serialized: the
 * router locks. */
#ifndef TRM_COORDINATOR_WINDOW_H
#define TRM_COORDINATOR_WINDOW_H

#include "base/link_zmq.h"
#include "base/wire.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Times a record is handed out before it is taken for what kills its replicas. */
#define TRM_WINDOW_ATTEMPTS 3

/* A RESULT frame and its decoded message, shared by the results in it. */
typedef struct trm_parcel {
    trm_link_frame *frame; /* NULL in tests */
    trm_arena *arena;
    int references; /* atomics: the router's and the job's thread release theirs */
} trm_parcel;
void trm_parcel_release(trm_parcel *parcel); /* takes NULL */

/* A result in input order. The caller's: trm_taken_fini. */
typedef struct trm_taken {
    trm_wire_result result;
    char *name;         /* the record's */
    char *message;      /* backs result.message where it was made here */
    trm_parcel *parcel; /* backs the rest */
} trm_taken;
void trm_taken_fini(trm_taken *taken);

typedef struct trm_window trm_window;
TRM_MUST_USE trm_status trm_window_create(int capacity, uint64_t first_id, trm_window **window_out);
void trm_window_destroy(trm_window *w); /* takes NULL */

bool trm_window_is_full(const trm_window *w);
int trm_window_held(const trm_window *w);   /* submitted and not taken */
int trm_window_queued(const trm_window *w); /* waiting to be handed out */
/* Appends the next record; record->id is set by the window (consecutive). A TRM_RECORD_ERROR, or a
 * record too large to send, becomes an error result at once. INVALID_ARG: full. */
TRM_MUST_USE trm_status trm_window_submit(trm_window *w, const trm_wire_record *record);

/* Picks up to `max` queued records for `replica`; records whose replica died before go alone, so
 * that one bad record does not take others with it. The pointers in `records_out` stay valid until
 * those records are taken. Returns how many; 0: none. */
int trm_window_hand_out(trm_window *w, int replica, int max, const trm_wire_buffer **records_out);
/* The result of a record that `replica` holds; a reference to `parcel` is added. False: that
 * replica does not hold this record (a late or made-up answer): ignored. */
bool trm_window_answer(trm_window *w, int replica, const trm_wire_result *result,
                       trm_parcel *parcel);
/* Everything `replica` holds is queued again, or answered with an error after
 * TRM_WINDOW_ATTEMPTS. Returns how many records it held. */
int trm_window_take_back(trm_window *w, int replica);

/* The next result in input order. False: not there yet. */
bool trm_window_take(trm_window *w, trm_taken *taken_out);

#ifdef __cplusplus
}
#endif
#endif
