/* A wrapper that lets one rank misbehave at a chosen call, for tests of what the others and the job
 * then do. */
#ifndef TRM_PARALLEL_COMM_FAULT_H
#define TRM_PARALLEL_COMM_FAULT_H

#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

/* spec, as in the environment's TRM_COMM_FAULT: KIND:RANK:NTH[:LABEL]. RANK: in the job (where
 * there is no job: in the group). NTH: the call of that communicator, collectives, sends and
 * receives counted from 1. LABEL: only the group of that label. KIND:
 *   fail          the call returns COMM, and the others are told
 *   delay=MS      the call, and each after it, sleeps first
 *   die           the process kills itself
 *   stop          the process stops itself (SIGSTOP)
 *   corrupt-args  the call is made with one element fewer than the others'; calls without a size
 *                 are left alone and the next is taken
 * INVALID_ARG: what is wrong with the spec. The wrapper owns `inner` on success. */
TRM_MUST_USE trm_status trm_comm_fault_create(trm_comm *inner, const char *spec, int rank,
                                              trm_comm **comm_out);

#ifdef __cplusplus
}
#endif
#endif
