/* Waiting over MPI: blocking calls never return where the partner is dead, and spin while they
 * wait. So everything is started, tested, and slept for between tests, until a deadline. */
#define _GNU_SOURCE
#include "base/wait.h"
#include "parallel/comm_mpi_impl.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NAP_US 50
#define NAP_MOST_US 1000      /* inside a step */
#define NAP_MOST_IDLE_US 2000 /* 500 tests a second cost about 0.5 % of a core */
#define LOOK_US 100000        /* between looks for a notice that the group is broken */

void trmi_mpi_pause_start(const trmi_mpi *m, bool idle, trmi_mpi_pause *p)
{
    p->start = trm_now_us();
    p->deadline = idle ? INT64_MAX : p->start + trm_scaled_ms(m->timeout_ms) * 1000;
    p->look = p->start + LOOK_US;
    p->nap_us = NAP_US;
    p->nap_most_us = idle ? NAP_MOST_IDLE_US : NAP_MOST_US;
}

/* A notice of another rank: the group is broken, and why */
static trm_status notice(trmi_mpi *m)
{
    char why[TRMI_COMM_WHY_BYTES] = "";
    MPI_Request request;
    MPI_Status status;
    int there = 0, done = 0;

    if (MPI_Iprobe(MPI_ANY_SOURCE, TRMI_TAG_BROKEN, m->comm, &there, &status) != MPI_SUCCESS ||
        !there)
        return TRM_OK;
    if (MPI_Irecv(why, sizeof(why) - 1, MPI_BYTE, status.MPI_SOURCE, TRMI_TAG_BROKEN, m->comm,
                  &request) != MPI_SUCCESS)
        return TRM_OK;
    /* it was probed, and is small: it is here */
    for (int i = 0; i < 1000 && !done; i++)
        if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            break;
    why[sizeof(why) - 1] = '\0';
    m->job->lost = true;
    return trm_fail(TRM_ERR_COMM, "%s", done ? why : "another rank has broken the group");
}

trm_status trmi_mpi_pause_turn(trmi_mpi *m, trmi_mpi_pause *p)
{
    int64_t now = trm_now_us();

    if (now - p->start < m->spin_us) {
        (void)sched_yield(); /* who computes on this core goes first */
        return TRM_OK;
    }
    if (now >= p->look) {
        TRM_CHECK(notice(m));
        p->look = now + LOOK_US;
    }
    if (now >= p->deadline)
        return TRM_ERR_TIMEOUT;
    usleep(p->nap_us);
    p->nap_us = p->nap_us * 2 < p->nap_most_us ? p->nap_us * 2 : p->nap_most_us;
    return TRM_OK;
}

trm_status trmi_mpi_look(trm_comm *c, int from)
{
    trmi_mpi *m = (trmi_mpi *)c;
    int64_t now = trm_now_us();

    if (m->job->lost)
        return trm_fail(TRM_ERR_COMM, "%s: receive from rank %d: the job has lost a rank", c->label,
                        from);
    if (now < m->next_look)
        return TRM_OK;
    m->next_look = now + LOOK_US;
    return notice(m);
}

trm_status trmi_mpi_failed(trmi_mpi *m, const char *what, int rc)
{
    char text[MPI_MAX_ERROR_STRING] = "?";
    int n = 0;

    m->job->lost = true;
    MPI_Error_string(rc, text, &n);
    return trm_fail(TRM_ERR_COMM, "%s: %s: %s: %s", m->base.label, m->doing, what, text);
}

void trmi_mpi_tell_broken(trmi_mpi *m, const char *why)
{
    static char text[TRMI_COMM_WHY_BYTES]; /* outlives the sends, which nobody waits for */
    MPI_Request request;

    if (m->base.broken || m->job->lost || text[0] != '\0')
        return;
    snprintf(text, sizeof(text), "%s", why);
    for (int r = 0; r < m->base.size; r++)
        if (r != m->base.rank && MPI_Isend(text, (int)strlen(text) + 1, MPI_BYTE, m->peers[r].world,
                                           TRMI_TAG_BROKEN, m->comm, &request) == MPI_SUCCESS)
            (void)MPI_Request_free(&request);
}

trm_status trmi_mpi_lose(trmi_mpi *m, int rank, const char *did)
{
    const trmi_mpi_peer *p = &m->peers[rank];
    trm_status st =
        trm_fail(TRM_ERR_COMM, "%s: %s: rank %d (rank %d of the job, host %s, pid %d) %s",
                 m->base.label, m->doing, rank, p->world, p->host, p->pid, did);

    trmi_mpi_tell_broken(m, trm_message());
    m->job->lost = true;
    return st;
}

/* Who keeps the others waiting: first who has not sent, then who has not taken. */
static trm_status late(trmi_mpi *m, MPI_Request *requests, int n)
{
    for (int i = 0; i < n; i++) {
        int done = 0;

        if (requests[i] == MPI_REQUEST_NULL)
            continue;
        if (MPI_Test(&requests[i], &done, MPI_STATUS_IGNORE) == MPI_SUCCESS && !done)
            return trmi_mpi_lose(m, i % m->base.size,
                                 i < m->base.size ? "did not take part in time"
                                                  : "did not take what was sent in time");
    }
    return TRM_OK;
}

trm_status trmi_mpi_wait(trmi_mpi *m, MPI_Request *requests, int n)
{
    trmi_mpi_pause pause;
    trm_status st = TRM_OK;
    int done = 0;

    trmi_mpi_pause_start(m, false, &pause);
    for (;;) {
        int rc = MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE);

        if (rc != MPI_SUCCESS)
            return trmi_mpi_failed(m, "MPI_Testall", rc);
        if (done)
            return TRM_OK;
        st = trmi_mpi_pause_turn(m, &pause);
        if (st == TRM_ERR_TIMEOUT)
            return late(m, requests, n);
        if (st != TRM_OK)
            return st;
    }
}

trm_status trmi_mpi_grow(const trmi_mpi *m, trmi_mpi_buffer *b, size_t bytes)
{
    if (bytes <= b->bytes)
        return TRM_OK;
    trm_aligned_free(b->data);
    b->bytes = 0;
    b->data = trm_aligned_malloc(bytes);
    if (b->data == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s: buffer of %zu bytes", m->base.label, bytes);
    b->bytes = bytes;
    return TRM_OK;
}
