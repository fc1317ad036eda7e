/* Which row serves a group, decided alike on every rank of the job, and made by all together. */
#define _GNU_SOURCE
#include "base/log.h"
#include "base/wait.h"
#include "parallel/comm_fault.h"
#include "parallel/comm_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Everybody joins within this: ranks come from the same bring-up step. */
#define CREATE_MS 60000

static trm_status check(const trm_job *job, const int *hosts, const int *members, int count)
{
    if (count < 1 || count > job->size || count > TRM_COMM_RANKS_MAX || members == NULL ||
        hosts == NULL)
        return trm_fail(TRM_ERR_INVALID_ARG, "a group of %d ranks in a job of %d: want 1 to %d",
                        count, job->size,
                        job->size < TRM_COMM_RANKS_MAX ? job->size : TRM_COMM_RANKS_MAX);
    for (int i = 0; i < count; i++) {
        if (members[i] < 0 || members[i] >= job->size)
            return trm_fail(TRM_ERR_INVALID_ARG, "a group with rank %d of a job of %d", members[i],
                            job->size);
        for (int k = 0; k < i; k++)
            if (members[k] == members[i])
                return trm_fail(TRM_ERR_INVALID_ARG, "a group with rank %d twice", members[i]);
    }
    return TRM_OK;
}

/* TRM_COMM: empty, "shm" and "mpi"; mpirun gives every rank the same environment. */
static trm_status wants_mpi(bool *mpi_out)
{
    const char *text = getenv("TRM_COMM");

    if (text == NULL || text[0] == '\0' || strcmp(text, "shm") == 0)
        *mpi_out = false;
    else if (strcmp(text, "mpi") == 0)
        *mpi_out = true;
    else
        return trm_fail(TRM_ERR_INVALID_ARG, "TRM_COMM=%s: want shm or mpi", text);
    return TRM_OK;
}

/* Spinning helps only where every rank of the host has a core. */
static int spin(const trm_job *job)
{
    return job->local_size <= sysconf(_SC_NPROCESSORS_ONLN) ? TRM_WAIT_SPIN_US : 0;
}

/* The first member makes the segment and tells all where it is. Every rank of the job returns the
 * same. */
static trm_status shared(trm_job *job, const int *members, int count, int rank, const char *label,
                         trm_comm **comm_out)
{
    struct {
        char name[TRM_SEGMENT_NAME_BYTES];
        uint64_t bytes; /* 0: it could not be made */
    } offer;
    trm_segment *segment = NULL;
    trm_comm *c = NULL;
    trm_status st = TRM_OK;

    memset(&offer, 0, sizeof(offer));
    if (rank == 0) {
        st = trm_comm_shm_segment(count, NULL, &segment);
        if (st == TRM_OK) {
            snprintf(offer.name, sizeof(offer.name), "%s", trm_segment_name(segment));
            offer.bytes = trm_segment_bytes(segment);
        }
    }
    TRM_TRY(st, trm_job_agree(job, st, CREATE_MS), fail);
    TRM_TRY(st, trm_job_bcast(job, &offer, sizeof(offer), members[0], CREATE_MS), fail);
    offer.name[sizeof(offer.name) - 1] = '\0';
    if (rank > 0)
        st = trm_segment_attach(offer.name, (size_t)offer.bytes, &segment);
    if (st == TRM_OK && rank >= 0)
        st = trmi_comm_shm_create(segment, rank, count, spin(job), label, job->rank, &c);
    TRM_TRY(st, trm_job_agree(job, st, CREATE_MS), fail);
    if (rank == 0) /* all have attached: this only takes the name away */
        st = trm_segment_seal(segment, count - 1, CREATE_MS);
    TRM_TRY(st, trm_job_agree(job, st, CREATE_MS), fail);
    if (c != NULL)
        trmi_comm_shm_own(c, segment);
    *comm_out = c;
    return TRM_OK;

fail:
    trm_comm_destroy(c);
    trm_segment_close(segment);
    return st;
}

static trm_status wrap(const trm_job *job, trm_comm **c)
{
    const char *fault = getenv("TRM_COMM_FAULT"), *trace = getenv("TRM_COMM_TRACE");

    if (fault != NULL && fault[0] != '\0')
        TRM_CHECK(trm_comm_fault_create(*c, fault, job->rank, c));
    if (trace != NULL && strcmp(trace, "1") == 0)
        TRM_CHECK(trm_comm_trace_create(*c, c));
    return TRM_OK;
}

trm_status trm_comm_group_create(trm_job *job, const int *hosts, const int *members, int count,
                                 const char *label, trm_comm **comm_out)
{
    bool mpi = false, one_host = true;
    trm_comm *c = NULL;
    trm_status st = TRM_OK;
    int rank = -1;

    TRM_CHECK(check(job, hosts, members, count)); /* the same on every rank: no traffic needed */
    for (int i = 0; i < count; i++) {
        one_host = one_host && hosts[members[i]] == hosts[members[0]];
        if (members[i] == job->rank)
            rank = i;
    }
    TRM_CHECK(wants_mpi(&mpi));
    if (count == 1) {
        if (rank == 0 && (st = trm_comm_self_create(&c)) == TRM_OK)
            trmi_comm_label(c, label);
    } else {
        if (one_host && !mpi) {
            st = shared(job, members, count, rank, label, &c);
            if (st != TRM_OK && !job->lost && job->mpi) {
                /* containers that hide processes from each other, say; MPI has its own ways */
                if (rank == 0)
                    TRM_LOG(TRM_LOG_WARN, "comm", "%s: no shared window, MPI instead: %s", label,
                            trm_message());
                mpi = true;
            }
        }
        if (!one_host || mpi)
            st = trmi_comm_mpi_create(job, members, count, rank, spin(job), label, &c);
    }
    if (st == TRM_OK && c != NULL)
        st = wrap(job, &c);
    TRM_TRY(st, trm_job_agree(job, st, CREATE_MS), fail);
    if (c != NULL)
        TRM_LOG(TRM_LOG_INFO, "comm", "%s: rank %d of %d over %s", label, rank, count,
                trm_comm_name(c));
    *comm_out = c;
    return TRM_OK;

fail:
    trm_comm_destroy(c);
    return st;
}
