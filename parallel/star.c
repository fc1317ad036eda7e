/* Non-blocking sends and receives, tested between short sleeps: a blocking call would wait for ever
 * on a dead partner and spin at full speed while it does. */
#define _GNU_SOURCE
#include "parallel/star.h"
#include "base/log.h"
#include "base/wait.h"
#include "parallel/launcher.h"

#include <errno.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOOK_US 250000      /* how often the processes of this host are looked at */
#define GRACE_US 1000000    /* for what a process sent before it ended */
#define TELL_MS 500         /* for a verdict after a loss to leave */
#define ANSWER_MORE_MS 4000 /* rank 0's own deadline comes first */
#define NAMES_MAX 8

char *trmi_job_who(const trm_job *job, int rank, char *buf, size_t bytes)
{
    char host[TRM_HOST_BYTES];

    if (job->topology != NULL)
        return trm_topology_rank_text(job->topology, rank, buf, bytes);
    if (job->launcher != NULL && trmi_launcher_host(job->launcher, rank, host, sizeof(host)))
        snprintf(buf, bytes, "rank %d (host %s)", rank, host);
    else
        snprintf(buf, bytes, "rank %d (host not known)", rank);
    return buf;
}

static trm_status mpi_failed(trm_job *job, const char *what, int rc)
{
    char text[MPI_MAX_ERROR_STRING] = "?";
    int n = 0;

    job->lost = true;
    MPI_Error_string(rc, text, &n);
    return trm_fail(TRM_ERR_COMM, "MPI: %s: %s", what, text);
}

/* Whether the process of `rank` is seen to have ended; only those of this host can be. */
static bool has_ended(const trm_job *job, int rank)
{
    const trm_rank_info *mine, *other;

    if (job->topology == NULL)
        return false;
    mine = &job->topology->rank[job->rank];
    other = &job->topology->rank[rank];
    return other->host_index == mine->host_index && other->pid_space == mine->pid_space &&
           mine->pid_space != 0 && kill(other->pid, 0) != 0 && errno == ESRCH;
}

/* One message to or from each of `count` ranks. */
struct exchange {
    trm_job *job;
    const char *what;
    MPI_Request *requests;
    int *ranks; /* of requests */
    int count, left;
};

static trm_status exchange_init(struct exchange *e, trm_job *job, const char *what, int count)
{
    *e = (struct exchange){.job = job, .what = what};
    e->requests = trm_calloc((size_t)count + 1, sizeof(MPI_Request));
    e->ranks = trm_calloc((size_t)count + 1, sizeof(int));
    if (e->requests == NULL || e->ranks == NULL) {
        trm_free(e->requests);
        trm_free(e->ranks);
        return trm_fail(TRM_ERR_NO_MEMORY, "MPI: %d messages", count);
    }
    return TRM_OK;
}

static void exchange_fini(struct exchange *e)
{
    trm_free(e->requests);
    trm_free(e->ranks);
}

static trm_status exchange_add(struct exchange *e, int rank, int rc)
{
    if (rc != MPI_SUCCESS)
        return mpi_failed(e->job, e->what, rc);
    e->ranks[e->count++] = rank;
    e->left++;
    return TRM_OK;
}

/* Names who is missing: "the roll call: rank 2 (h2, pid 7) has ended; rank 5 (...) did not come".
 */
static trm_status name_missing(struct exchange *e, int64_t waited_us)
{
    char text[900] = "", who[160];
    size_t at = 0;
    int named = 0;

    e->job->lost = true;
    for (int i = 0; i < e->count && named < NAMES_MAX; i++) {
        if (e->requests[i] == MPI_REQUEST_NULL)
            continue;
        trmi_job_who(e->job, e->ranks[i], who, sizeof(who));
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s%s", named > 0 ? ", " : "", who,
                               has_ended(e->job, e->ranks[i]) ? " has ended" : "");
        if (at >= sizeof(text))
            break;
        named++;
    }
    if (e->left > named && at < sizeof(text))
        snprintf(text + at, sizeof(text) - at, " and %d more", e->left - named);
    return trm_fail(TRM_ERR_COMM, "%s: %d of %d ranks missing after %lld.%lld s: %s", e->what,
                    e->left, e->job->size, (long long)(waited_us / 1000000),
                    (long long)(waited_us / 100000 % 10), text);
}

static bool one_has_ended(const struct exchange *e)
{
    for (int i = 0; i < e->count; i++)
        if (e->requests[i] != MPI_REQUEST_NULL && has_ended(e->job, e->ranks[i]))
            return true;
    return false;
}

/* Waits for all messages. Naps grow from 50 us to 2 ms, so that a quick partner costs little time
 * and a slow one little CPU. */
static trm_status exchange_finish(struct exchange *e, int64_t deadline_us)
{
    int64_t start = trm_now_us(), look = start + LOOK_US;
    useconds_t nap = 50;

    while (e->left > 0) {
        int64_t now = trm_now_us();

        for (int i = 0; i < e->count; i++) {
            int done = 0, rc;

            if (e->requests[i] == MPI_REQUEST_NULL)
                continue;
            rc = MPI_Test(&e->requests[i], &done, MPI_STATUS_IGNORE);
            if (rc != MPI_SUCCESS) {
                mpi_failed(e->job, e->what, rc);
                return trm_fail_context(TRM_ERR_COMM, "rank %d", e->ranks[i]);
            }
            e->left -= done;
        }
        if (e->left == 0)
            break;
        if (now > deadline_us)
            return name_missing(e, now - start);
        if (now > look) {
            look = now + LOOK_US;
            if (deadline_us > now + GRACE_US && one_has_ended(e))
                deadline_us = now + GRACE_US;
        }
        usleep(nap);
        nap = nap < 2000 ? nap * 2 : 2000;
    }
    return TRM_OK;
}

trm_status trmi_star_collect(trm_job *job, int tag, const char *what, const void *mine,
                             size_t bytes, void *all, int64_t deadline_us)
{
    struct exchange e;
    trm_status st = TRM_OK;
    int n;

    TRM_CHECK(trm_to_int((int64_t)bytes, "bytes of a message", &n));
    TRM_CHECK(exchange_init(&e, job, what, job->size));
    if (job->rank != 0) {
        st = exchange_add(
            &e, 0,
            MPI_Isend(mine, n, MPI_BYTE, job->first, tag, MPI_COMM_WORLD, &e.requests[e.count]));
    } else {
        memcpy(all, mine, bytes);
        for (int i = 1; st == TRM_OK && i < job->size; i++)
            st = exchange_add(&e, i,
                              MPI_Irecv((char *)all + (size_t)i * bytes, n, MPI_BYTE,
                                        job->first + i, tag, MPI_COMM_WORLD, &e.requests[e.count]));
    }
    if (st == TRM_OK)
        st = exchange_finish(&e, deadline_us);
    if (st != TRM_OK && job->rank == 0) /* `all` is the caller's again */
        for (int i = 0; i < e.count; i++)
            if (e.requests[i] != MPI_REQUEST_NULL)
                (void)MPI_Cancel(&e.requests[i]);
    exchange_fini(&e);
    return st;
}

trm_status trmi_star_spread(trm_job *job, int tag, const char *what, void *data, size_t bytes,
                            int root, int64_t deadline_us)
{
    struct exchange e;
    trm_status st = TRM_OK;
    int n;

    TRM_CHECK(trm_to_int((int64_t)bytes, "bytes of a message", &n));
    TRM_CHECK(exchange_init(&e, job, what, job->size));
    if (job->rank != root)
        st = exchange_add(
            &e, root,
            MPI_Irecv(data, n, MPI_BYTE, job->first + root, tag, MPI_COMM_WORLD, &e.requests[0]));
    for (int i = 0; st == TRM_OK && job->rank == root && i < job->size; i++)
        if (i != root)
            st = exchange_add(&e, i,
                              MPI_Isend(data, n, MPI_BYTE, job->first + i, tag, MPI_COMM_WORLD,
                                        &e.requests[e.count]));
    if (st == TRM_OK)
        st = exchange_finish(&e, deadline_us);
    if (st != TRM_OK && job->rank != root && e.count > 0 && e.requests[0] != MPI_REQUEST_NULL)
        (void)MPI_Cancel(&e.requests[0]);
    exchange_fini(&e);
    return st;
}

struct verdict {
    int status, lost;
    char text[1024];
};

trm_status trmi_star_verdict(trm_job *job, const char *what, trm_status st, int64_t deadline_us)
{
    struct verdict v = {.status = (int)st, .lost = job->lost};
    int64_t until = deadline_us + trm_scaled_ms(ANSWER_MORE_MS) * 1000;

    snprintf(v.text, sizeof(v.text), "%s", st == TRM_OK ? "" : trm_message());
    if (job->rank == 0 && job->lost) {
        struct verdict *stays = trm_malloc(1, sizeof(*stays));

        /* a message to the missing never leaves: its memory is MPI's from here on, and the process
         * ends soon */
        if (stays != NULL) {
            *stays = v;
            (void)!trmi_star_spread(job, TRMI_TAG_VERDICT, what, stays, sizeof(*stays), 0,
                                    trm_deadline_us(TELL_MS));
        }
        return trm_fail(st, "%s", v.text);
    }
    TRM_CHECK(trmi_star_spread(job, TRMI_TAG_VERDICT, what, &v, sizeof(v), 0, until));
    if (job->rank == 0)
        return st == TRM_OK ? TRM_OK : trm_fail(st, "%s", v.text);
    v.text[sizeof(v.text) - 1] = '\0';
    if (v.status < TRM_OK || v.status >= TRM_STATUS_COUNT)
        v.status = TRM_ERR_INTERNAL;
    job->lost = job->told = v.lost != 0;
    return v.status == TRM_OK ? TRM_OK : trm_fail((trm_status)v.status, "%s", v.text);
}
