/* The row of ranks on several hosts: made once at bring-up, over a duplicate of the job's
 * communicator, so that its messages meet nobody else's. */
#define _GNU_SOURCE
#include "base/wait.h"
#include "parallel/comm_mpi_impl.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_BYTES ((size_t)1 << 20)
#define MESSAGES 4
#define END_MS 5000
/* A round trip between hosts is 10 to 100 us and a nap at least 100, so the spin is longer than in
 * a shared window, where who posts also wakes; it yields the core in each turn. */
#define SPIN_US 200
#define SPIN_CROWDED_US 40 /* more ranks than cores; each turn yields */

static size_t slot_bytes(const trm_comm *c)
{
    return ((const trmi_mpi *)c)->slot_bytes;
}

static void set_timeout(trm_comm *c, int64_t timeout_ms)
{
    ((trmi_mpi *)c)->timeout_ms = timeout_ms;
}

static void give_up(trm_comm *c, const char *why)
{
    trmi_mpi_tell_broken((trmi_mpi *)c, why);
}

/* Messages still on their way get a moment; MPI may read those of a lost job for ever, so they are
 * left to the process's end. The duplicate is as well: freeing it is collective, this is not. */
static bool messages_done(trmi_mpi *m)
{
    int n = m->base.size * m->messages, done = 0;
    int64_t until = trm_deadline_us(END_MS);

    if (m->out == NULL)
        return true;
    if (m->job->lost)
        return false;
    for (int i = 0; i < n; i++)
        for (done = m->out[i].request == MPI_REQUEST_NULL; !done;) {
            if (MPI_Test(&m->out[i].request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS ||
                trm_now_us() > until)
                return false;
            if (!done)
                usleep(50);
        }
    return true;
}

static void destroy(trm_comm *c)
{
    trmi_mpi *m = (trmi_mpi *)c;

    if (messages_done(m)) {
        for (int i = 0; m->out != NULL && i < c->size * m->messages; i++)
            trm_aligned_free(m->out[i].buffer.data);
        trm_free(m->out);
    }
    for (int r = 0; m->received != NULL && r < c->size; r++)
        trm_aligned_free(m->received[r].data);
    trm_free(m->received);
    if (!m->job->lost) { /* else a late partner's data may still arrive in them */
        trm_aligned_free(m->window.data);
        trm_aligned_free(m->work.data);
    }
    trm_free(m->requests);
    trm_free(m->srcs);
    trm_free(m->sizes);
    trm_free(m->peers);
    trm_free(m);
}

static trm_status duplicate(trm_job *job, const char *label, MPI_Comm *comm_out)
{
    int64_t deadline = trm_deadline_us(TRMI_COMM_TIMEOUT_MS);
    MPI_Request request;
    int done = 0, rc = MPI_Comm_idup(MPI_COMM_WORLD, comm_out, &request);

    while (rc == MPI_SUCCESS && !done) {
        rc = MPI_Test(&request, &done, MPI_STATUS_IGNORE);
        if (!done && trm_now_us() > deadline) {
            job->lost = true;
            return trm_fail(TRM_ERR_COMM,
                            "MPI: communicator of %s: a rank of the job did not take part in time",
                            label);
        }
        if (!done)
            usleep(50);
    }
    if (rc != MPI_SUCCESS) {
        job->lost = true;
        return trm_fail(TRM_ERR_COMM, "MPI: communicator of %s: error %d", label, rc);
    }
    MPI_Comm_set_errhandler(*comm_out, MPI_ERRORS_RETURN);
    return TRM_OK;
}

static trm_status make(trm_job *job, MPI_Comm comm, const int *members, int count, int rank,
                       int spin_us, const char *label, trmi_mpi **m_out)
{
    static const trm_comm_ops ops = {.name = "mpi",
                                     .collective = trmi_mpi_collective,
                                     .slot_bytes = slot_bytes,
                                     .send = trmi_mpi_send,
                                     .receive = trmi_mpi_receive,
                                     .pending = trmi_mpi_pending,
                                     .look = trmi_mpi_look,
                                     .set_timeout = set_timeout,
                                     .give_up = give_up,
                                     .destroy = destroy};
    trmi_mpi *m = trm_calloc(1, sizeof(*m));
    size_t size = (size_t)count;

    if (m == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "communicator: host object");
    trmi_comm_base(&m->base, &ops, rank, count);
    trmi_comm_label(&m->base, label);
    m->job = job;
    m->comm = comm;
    m->spin_us = spin_us > 0 ? SPIN_US : SPIN_CROWDED_US;
    m->messages = MESSAGES;
    m->timeout_ms = TRMI_COMM_TIMEOUT_MS;
    m->slot_bytes = DEFAULT_BYTES;
    m->doing = "set-up";
    m->peers = trm_calloc(size, sizeof(*m->peers));
    m->received = trm_calloc(size, sizeof(*m->received));
    m->out = trm_calloc(size * MESSAGES, sizeof(*m->out));
    m->requests = trm_calloc(size * 2, sizeof(*m->requests));
    m->srcs = trm_calloc(size, sizeof(*m->srcs));
    m->sizes = trm_calloc(size * 4, sizeof(*m->sizes));
    if (m->peers == NULL || m->received == NULL || m->out == NULL || m->requests == NULL ||
        m->srcs == NULL || m->sizes == NULL) {
        trm_free(m->out); /* requests in it are not yet MPI's "none" */
        m->out = NULL;
        destroy(&m->base);
        return trm_fail(TRM_ERR_NO_MEMORY, "communicator: host object");
    }
    for (size_t i = 0; i < size * MESSAGES; i++)
        m->out[i].request = MPI_REQUEST_NULL;
    for (int r = 0; r < count; r++) {
        m->peers[r].world = members[r];
        snprintf(m->peers[r].host, sizeof(m->peers[r].host), "?");
    }
    *m_out = m;
    return TRM_OK;
}

/* Names of all members, for messages. */
static trm_status introduce(trmi_mpi *m)
{
    trmi_mpi_peer mine = m->peers[m->base.rank], *all;
    trm_status st;

    mine.pid = (int)getpid();
    if (gethostname(mine.host, sizeof(mine.host) - 1) != 0)
        snprintf(mine.host, sizeof(mine.host), "?");
    all = trm_calloc((size_t)m->base.size, sizeof(*all));
    if (all == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "communicator: host object");
    st = trmi_mpi_tell(m, &mine, sizeof(mine), all);
    if (st == TRM_OK)
        memcpy(m->peers, all, (size_t)m->base.size * sizeof(*all));
    trm_free(all);
    return st;
}

trm_status trmi_comm_mpi_create(trm_job *job, const int *members, int count, int rank, int spin_us,
                                const char *label, trm_comm **comm_out)
{
    MPI_Comm comm = MPI_COMM_NULL;
    trmi_mpi *m = NULL;
    trm_status st;

    *comm_out = NULL;
    if (!job->mpi || job->lost)
        return trm_fail(TRM_ERR_COMM, "%s: communicator over MPI: %s", label,
                        job->lost ? "a rank was lost" : "MPI is not up");
    TRM_CHECK(duplicate(job, label, &comm));
    if (rank < 0)
        return TRM_OK;
    st = make(job, comm, members, count, rank, spin_us, label, &m);
    if (st == TRM_OK)
        st = introduce(m);
    if (st != TRM_OK) {
        if (m != NULL)
            destroy(&m->base);
        return st;
    }
    *comm_out = &m->base;
    return TRM_OK;
}
