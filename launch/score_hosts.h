/* score over several hosts: how the replicas reach the coordinator, and whether the images travel
 * as paths. */
#ifndef TRM_LAUNCH_SCORE_HOSTS_H
#define TRM_LAUNCH_SCORE_HOSTS_H

#include "base/link_zmq.h"
#include "coordinator/source.h"
#include "parallel/job.h"

/* Part of what rank 0 broadcasts before models are opened. */
typedef struct trm_score_hosts {
    trm_link_keys keys;
    char sample[1024]; /* path of an image among the first records; "": none */
    uint64_t sample_bytes;
    /* each rank's own, from trm_score_hosts_settle */
    bool remote; /* some replica begins on another host than rank 0 */
    bool leads;  /* this rank opens records */
} trm_score_hosts;

/* Rank 0, before the broadcast. `input`: for the sample. */
TRM_MUST_USE trm_status trm_score_hosts_prepare(const trm_job *job, const char *input,
                                                trm_score_hosts *hosts_out);
/* All ranks, when the layout is known: `replicas` of `ranks` each. */
void trm_score_hosts_settle(trm_score_hosts *hosts, const trm_job *job, int replicas, int ranks);
/* What the router binds (trm_link_bind); between hosts its context encrypts with `keys`.
 * `listen`: of --zmq-listen, NULL: TRM_ZMQ_LISTEN, else all addresses. buf: the result's memory. */
const char *trm_score_hosts_endpoint(const trm_score_hosts *hosts, int replicas, const char *listen,
                                     char *buf, size_t bytes);
/* Collective, all ranks of the job. Where some leader cannot open the sample as rank 0 does, the
 * source (rank 0's, NULL on others) sends bytes. */
TRM_MUST_USE trm_status trm_score_hosts_paths(trm_job *job, const trm_score_hosts *hosts,
                                              trm_source *source, int64_t timeout_ms);

#endif
