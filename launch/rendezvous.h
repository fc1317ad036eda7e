/* Where replicas find their coordinator: inside a job through MPI, between jobs through a folder of
 * the user's (0700) with one file (0600). */
#ifndef TRM_LAUNCH_RENDEZVOUS_H
#define TRM_LAUNCH_RENDEZVOUS_H

#include "base/link_zmq.h"
#include "parallel/job.h"

typedef struct trm_rendezvous {
    char endpoint[TRM_LINK_ENDPOINT_BYTES];
    bool encrypted;
    trm_link_keys keys; /* where encrypted */
} trm_rendezvous;

/* Collective over `job`. `publishes`: rank 0 of this job is the coordinator and *meeting is what it
 * has to say; else it comes back in *meeting. `folder`: NULL: all are in this job. Otherwise the
 * publisher writes the folder's file, and others wait for it, timeout_ms (scaled) at most: TIMEOUT.
 * CONFIG: the folder is open to others, or its file damaged. */
TRM_MUST_USE trm_status trm_rendezvous_meet(trm_job *job, const char *folder, bool publishes,
                                            int64_t timeout_ms, trm_rendezvous *meeting);
/* The publisher, at its end: nobody is to come any more. */
void trm_rendezvous_withdraw(const char *folder);

#endif
