/* The coordinator listens on a socket of its host's file system where all replicas are there, else
 * on tcp with keys that rank 0 makes and MPI hands round: whoever can read MPI's traffic is in the
 * job anyway. */
#define _GNU_SOURCE
#include "launch/score_hosts.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LOOK_AT 16 /* records for one whose image is there */

/* An image of the first records, as a replica would be told of it. */
static trm_status find_sample(const char *input, trm_score_hosts *h)
{
    trm_source *s = NULL;
    trm_status st;
    bool end = false;

    TRM_TRY(st, trm_source_open(input, &s), done);
    for (int i = 0; i < LOOK_AT && h->sample[0] == '\0'; i++) {
        trm_wire_record r;
        struct stat info;

        TRM_TRY(st, trm_source_next(s, &r, &end), done);
        if (end)
            break;
        if (r.kind != TRM_RECORD_IMAGE_PATH || r.byte_count >= sizeof(h->sample) ||
            stat(r.bytes, &info) != 0 || !S_ISREG(info.st_mode))
            continue;
        memcpy(h->sample, r.bytes, r.byte_count);
        h->sample_bytes = (uint64_t)info.st_size;
    }
done:
    trm_source_close(s);
    return st;
}

trm_status trm_score_hosts_prepare(const trm_job *job, const char *input,
                                   trm_score_hosts *hosts_out)
{
    trm_score_hosts h;

    memset(&h, 0, sizeof(h));
    if (trm_job_topology(job)->hosts > 1) {
        TRM_CHECK(trm_link_keys_create(&h.keys));
        TRM_CHECK(find_sample(input, &h));
    }
    *hosts_out = h;
    return TRM_OK;
}

void trm_score_hosts_settle(trm_score_hosts *hosts, const trm_job *job, int replicas, int ranks)
{
    const int *host_of = trm_job_topology(job)->host_of;

    hosts->remote = false;
    for (int i = 1; i < replicas; i++)
        hosts->remote = hosts->remote || host_of[i * ranks] != host_of[0];
    hosts->leads = job->rank % ranks == 0 && job->rank / ranks < replicas;
}

const char *trm_score_hosts_endpoint(const trm_score_hosts *hosts, int replicas, const char *listen,
                                     char *buf, size_t bytes)
{
    if (listen == NULL)
        listen = getenv("TRM_ZMQ_LISTEN");
    if (!hosts->remote)
        return replicas == 1 ? "inproc://score" : "ipc";
    if (listen == NULL || listen[0] == '\0')
        return "tcp";
    snprintf(buf, bytes, "tcp://%s%s", listen, strchr(listen, ':') == NULL ? ":*" : "");
    return buf;
}

trm_status trm_score_hosts_paths(trm_job *job, const trm_score_hosts *hosts, trm_source *source,
                                 int64_t timeout_ms)
{
    struct stat info;
    trm_status st = TRM_OK;

    if (!hosts->remote || hosts->sample[0] == '\0')
        return TRM_OK;
    if (hosts->leads &&
        (stat(hosts->sample, &info) != 0 || (uint64_t)info.st_size != hosts->sample_bytes))
        st = trm_fail(TRM_ERR_NOT_FOUND, "image '%s' is not there as on rank 0", hosts->sample);
    st = trm_job_agree(job, st, timeout_ms); /* NOT_FOUND from any rank is an answer, no failure */
    if (st != TRM_OK && st != TRM_ERR_NOT_FOUND)
        return st;
    if (source != NULL) {
        source->send_bytes = st != TRM_OK;
        TRM_LOG(TRM_LOG_INFO, "score", "images travel as %s%s",
                st == TRM_OK ? "paths" : "bytes: ", st == TRM_OK ? "" : trm_message());
    }
    return TRM_OK;
}
