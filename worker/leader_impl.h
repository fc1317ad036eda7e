/* Inside the leader: leader.c is the helper's side and the queues, leader_work.c the executor's. */
#ifndef TRM_WORKER_LEADER_IMPL_H
#define TRM_WORKER_LEADER_IMPL_H

#include "base/wait.h"
#include "worker/leader.h"

#include <pthread.h>

struct trmi_inbound {
    trm_link_frame *frame;
    struct trmi_inbound *next;
};
struct trmi_outbound {
    trm_wire_buffer buffer;
    struct trmi_outbound *next;
};

struct trm_leader {
    const trm_leader_options *options;
    pthread_t helper;
    trm_wait news; /* posted by the helper: the executor has something to look at */
    pthread_mutex_t mu;
    struct trmi_inbound *in_first, *in_last;    /* guarded by mu: batches */
    struct trmi_outbound *out_first, *out_last; /* guarded by mu: encoded messages */
    trm_link *link;         /* guarded by mu; NULL before it is made and after */
    bool finished;          /* guarded by mu: the executor has left */
    trm_status st;          /* guarded by mu: why the helper ended */
    char message[512];      /* guarded by mu */
    bool stop, lost, ended; /* guarded by mu */
    /* written by the executor, read by the helper; atomic, relaxed: nothing else hangs on them */
    uint64_t progress;
    int phase;
};

/* leader.c: queues a message for the helper (NULL: none); `finished`: the executor has left. */
trm_status trmi_leader_post(trm_leader *l, const trm_wire_message *m, bool finished);

/* leader_work.c: runs batches until it is over. */
trm_status trmi_leader_work(trm_leader *l, const trm_leader_model *model);
/* After a failure: stays until STOP, because a rank that leaves its MPI job early ends it for all.
 */
void trmi_leader_wait_for_stop(trm_leader *l);

#endif
