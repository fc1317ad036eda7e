/* The requests of the hub: those that wait, each in the queue of its model, those that a replica
 * has, and those that are answered already but which a replica has still to let go of. Bookkeeping
 * on times handed in: no socket, no clock, no memory of requests (an item is part of its owner's
 * object). One owner, or a lock around it. */
#ifndef TRM_COORDINATOR_BACKLOG_H
#define TRM_COORDINATOR_BACKLOG_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trm_backlog_state {
    TRM_BACKLOG_OUT, /* not in a backlog; what zeroed memory is */
    TRM_BACKLOG_WAITS,
    TRM_BACKLOG_RUNS,     /* a replica has it */
    TRM_BACKLOG_ABANDONED /* answered, but a replica has it: no deadline, no client */
} trm_backlog_state;

typedef struct trm_backlog_item {
    uint64_t id; /* set by the owner, unique */
    int queue;   /* 0 ..: its model */
    int32_t priority;
    int64_t deadline_us;
    /* the backlog's; others only read */
    trm_backlog_state state;
    int attempts;                                /* replicas that it was given to */
    uint64_t given_bytes;                        /* of its parts, that the client has */
    uint64_t given_tokens;                       /* new tokens in them */
    uint64_t given_hash;                         /* of those bytes */
    uint64_t seen_bytes, seen_tokens, seen_hash; /* of the attempt under way */
    uint64_t order;
    int queue_at, deadline_at; /* places in heaps; -1: in none */
    struct trm_backlog_item *bucket_next;
} trm_backlog_item;

typedef struct trm_backlog trm_backlog;
/* `waiting_max`: more do not wait. */
TRM_MUST_USE trm_status trm_backlog_create(int waiting_max, trm_backlog **backlog_out);
void trm_backlog_destroy(trm_backlog *b); /* items are their owners'. Takes NULL */

/* It waits, behind those of its queue with the same or a greater priority. `spare`: so
 * many more may wait, because replicas have room for them: they only wait to be given out.
 * TIMEOUT: the queue is full. */
TRM_MUST_USE trm_status trm_backlog_add(trm_backlog *b, trm_backlog_item *item, int spare);
trm_backlog_item *trm_backlog_find(const trm_backlog *b, uint64_t id); /* NULL */
trm_backlog_item *trm_backlog_head(const trm_backlog *b, int queue);   /* NULL: none waits */
/* A replica gets it: a waiting one now runs. */
void trm_backlog_start(trm_backlog *b, trm_backlog_item *item);
/* Its replica was lost: a running one waits again, before all that were never given out. */
void trm_backlog_requeue(trm_backlog *b, trm_backlog_item *item);
/* A waiting one goes to another queue. */
TRM_MUST_USE trm_status trm_backlog_move(trm_backlog *b, trm_backlog_item *item, int queue);
/* A running one was answered before its replica has answered. */
void trm_backlog_abandon(trm_backlog *b, trm_backlog_item *item);
void trm_backlog_remove(trm_backlog *b, trm_backlog_item *item);

/* One that waits or runs and whose deadline has come; NULL: none. */
trm_backlog_item *trm_backlog_overdue(const trm_backlog *b, int64_t now_us);
int64_t trm_backlog_next_deadline_us(const trm_backlog *b); /* INT64_MAX: none */
/* All items in any order; `item` NULL: the first. Removing or moving the one before is allowed
 * after its successor was asked for. */
trm_backlog_item *trm_backlog_next(const trm_backlog *b, const trm_backlog_item *item);
int trm_backlog_waiting(const trm_backlog *b);
int trm_backlog_running(const trm_backlog *b);
int trm_backlog_abandoned(const trm_backlog *b);

/* A part of `bytes` with `new_tokens` came for a running item. Says how many bytes at its front the
 * client has already (from an earlier attempt), and how many tokens are new. COMM: this attempt's
 * bytes are not those that were given out, so the answer cannot be continued. */
TRM_MUST_USE trm_status trm_backlog_part(trm_backlog_item *item, const void *body, size_t bytes,
                                         uint32_t new_tokens, size_t *skip_out,
                                         uint32_t *tokens_out);

#ifdef __cplusplus
}
#endif
#endif
