/* The roll call has two halves. MPI_Init returns on no rank before every rank has called it, and
 * has no deadline: so each process first announces itself to the launcher, and a watchdog asks the
 * launcher who has not, when MPI_Init takes too long. Then every rank tells rank 0 over MPI who it
 * is, which shows that messages really pass, and rank 0 gives all the list. */
#define _GNU_SOURCE
#include "parallel/rollcall.h"
#include "base/log.h"
#include "base/wait.h"
#include "parallel/launcher.h"
#include "parallel/star.h"

#include <mpi.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROLL_CALL_S 30
#define ROLL_CALL_S_MAX 86400
#define SPEAKER_MS 5000 /* for the rank that speaks of a missing one to end the job */
#define LOOK_US 500000  /* how often a rank makes sure that its launcher lives */
#define MISSING_MAX 8   /* each costs a second to find */

static int64_t roll_call_ms(void)
{
    const char *text = getenv("TRM_ROLL_CALL_S");
    char *end = NULL;
    long s = text != NULL ? strtol(text, &end, 10) : ROLL_CALL_S;

    if (text != NULL && (end == text || *end != '\0' || s < 1 || s > ROLL_CALL_S_MAX)) {
        TRM_LOG(TRM_LOG_WARN, "job", "TRM_ROLL_CALL_S=%s: want seconds, 1 to %d; taking %d", text,
                ROLL_CALL_S_MAX, ROLL_CALL_S);
        s = ROLL_CALL_S;
    }
    return s * 1000;
}

/* ---- faults that tests ask for ---- */

static bool fault_is(const trm_job *job, const char *place, const char *kind, long *ms_out)
{
    const char *text = getenv("TRM_JOB_FAULT");
    char p[16] = "", k[16] = "";
    int rank = -1, n;

    *ms_out = 0;
    if (text == NULL)
        return false;
    n = sscanf(text, "%15[^:]:%15[^:]:%d:%ld", p, k, &rank, ms_out);
    return n >= 3 && rank == job->rank && strcmp(p, place) == 0 && strcmp(k, kind) == 0;
}

void trmi_job_fault(const trm_job *job, const char *place)
{
    long ms;

    if (fault_is(job, place, "late", &ms) && ms > 0)
        usleep((useconds_t)ms * 1000);
    if (fault_is(job, place, "die", &ms))
        (void)raise(SIGKILL);
}

/* ---- MPI_Init under a watchdog ---- */

struct watchdog {
    trm_job *job;
    pthread_t thread;
    trm_wait done; /* posted when MPI_Init has returned */
    uint32_t seen;
    int64_t start_us, deadline_us;
    pid_t parent;
};

/* Asks the launcher who has begun. False: another rank, a lower one, has, and speaks. */
static bool describe(const struct watchdog *w, char *text, size_t bytes)
{
    trmi_launcher *l = w->job->launcher;
    int self = l != NULL ? trmi_launcher_rank(l) : 0, missing = 0, asked = 0;
    int ranks = l != NULL ? trmi_launcher_size(l) : 0;
    char names[640] = "", who[160];
    size_t at = 0;

    for (; asked < ranks && missing < MISSING_MAX; asked++) {
        if (asked == self)
            continue;
        if (trmi_launcher_came(l, asked, 1)) {
            if (asked < self)
                return false;
            continue;
        }
        trmi_job_who(w->job, asked, who, sizeof(who));
        at +=
            (size_t)snprintf(names + at, sizeof(names) - at, "%s%s", missing > 0 ? ", " : "", who);
        missing++;
        if (at >= sizeof(names))
            break;
    }
    if (ranks == 0)
        snprintf(text, bytes, "some rank is missing; this launcher does not tell which");
    else if (missing == 0)
        snprintf(text, bytes,
                 "all %d ranks have begun, but MPI does not connect them: want a network that all "
                 "hosts share (mpirun --mca btl_tcp_if_include)",
                 ranks);
    else
        snprintf(text, bytes, "%d%s of %d ranks missing: %s", missing,
                 asked < ranks ? " or more" : "", ranks, names);
    return true;
}

static void *watch(void *ctx)
{
    struct watchdog *w = ctx;
    char text[1024];
    long long waited;
    bool speaks;

    while (trm_now_us() < w->deadline_us) {
        int64_t look_us = trm_now_us() + LOOK_US;

        if (trm_wait_change(&w->done, w->seen, 0,
                            look_us < w->deadline_us ? look_us : w->deadline_us) == TRM_OK)
            return NULL;
        if (getppid() != w->parent) { /* MPI notices that by itself only once it is up */
            fprintf(stderr, "trireme: the launcher of this rank is gone\n");
            fflush(stderr);
            _exit(1);
        }
    }
    waited = (trm_now_us() - w->start_us) / 100000;
    speaks = describe(w, text, sizeof(text));
    /* it may have come back meanwhile; else nothing can end this process but itself */
    if (trm_wait_change(&w->done, w->seen, 0, trm_deadline_us(speaks ? 0 : SPEAKER_MS)) == TRM_OK)
        return NULL;
    if (speaks)
        fprintf(stderr, "trireme: the roll call: MPI did not come up within %lld.%lld s: %s\n",
                waited / 10, waited % 10, text);
    fflush(stderr);
    _exit(1);
}

static trm_status mpi_init(trm_job *job, int64_t timeout_ms)
{
    struct watchdog w = {.job = job, .start_us = trm_now_us(), .parent = getppid()};
    int provided = MPI_THREAD_SINGLE, rc;
    bool watched;

    w.deadline_us = trm_deadline_us(timeout_ms);
    w.seen = trm_wait_count(&w.done);
    watched = pthread_create(&w.thread, NULL, watch, &w) == 0;
    trmi_job_fault(job, "init");
    if (job->launcher != NULL)
        trmi_launcher_announce(job->launcher);
    /* a rank that waits must not take the core from one that computes; harmless alone */
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    trm_wait_post(&w.done);
    if (watched)
        pthread_join(w.thread, NULL);
    if (rc != MPI_SUCCESS)
        return trm_fail(TRM_ERR_COMM, "MPI: MPI_Init_thread failed with code %d", rc);
    job->mpi = true;
    if (provided < MPI_THREAD_FUNNELED)
        return trm_fail(TRM_ERR_COMM, "MPI: thread level %d, want MPI_THREAD_FUNNELED (%d)",
                        provided, MPI_THREAD_FUNNELED);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &job->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &job->size);
    return TRM_OK;
}

/* ---- the roll call over MPI ---- */

/* What a rank says of itself. Its size and the first three members never change, so that another
 * build, older or newer, is recognised. */
#define HELLO_MAGIC 0x6d657254u
struct hello {
    uint32_t magic, unused;
    uint64_t build;
    char version[32];
    trm_rank_info info;
    char rest[512 - 48 - sizeof(trm_rank_info)];
};

static trm_status same_build(trm_job *job, const struct hello *all)
{
    for (int i = 1; i < job->size; i++) {
        const struct hello *h = &all[i];
        char who[160];

        if (h->magic == HELLO_MAGIC && h->build == all[0].build)
            continue;
        if (h->magic == HELLO_MAGIC)
            snprintf(who, sizeof(who), "rank %d (%.*s, pid %d)", i, TRM_HOST_BYTES - 1,
                     h->info.host, h->info.pid);
        else
            trmi_job_who(job, i, who, sizeof(who));
        return trm_fail(TRM_ERR_CONFIG,
                        "the roll call: %s runs another build of the program: %.31s/%016llx, and "
                        "rank 0 (%s, pid %d) runs %s/%016llx: want one build on all hosts",
                        who, h->magic == HELLO_MAGIC ? h->version : "?",
                        (unsigned long long)h->build, all[0].info.host, all[0].info.pid,
                        all[0].version, (unsigned long long)all[0].build);
    }
    return TRM_OK;
}

static trm_status call_roll(trm_job *job, int64_t timeout_ms, struct hello *all,
                            trm_rank_info *infos)
{
    static const char *const what = "the roll call";
    int64_t deadline_us = trm_deadline_us(timeout_ms);
    struct hello mine = {.magic = HELLO_MAGIC, .version = TRM_VERSION};
    trm_status st;
    long ms;

    trm_topology_self(&mine.info);
    if (fault_is(job, "roll", "build", &ms))
        mine.info.build ^= 1;
    mine.build = mine.info.build;
    st = trmi_star_collect(job, TRMI_TAG_HELLO, what, &mine, sizeof(mine), all, deadline_us);
    if (job->rank != 0 && st != TRM_OK)
        return st;
    if (job->rank == 0 && st == TRM_OK) {
        st = same_build(job, all);
        job->lost = st != TRM_OK; /* another build may not know how to end together */
    }
    TRM_CHECK(trmi_star_verdict(job, what, st, deadline_us));
    for (int i = 0; job->rank == 0 && i < job->size; i++)
        infos[i] = all[i].info;
    TRM_CHECK(trmi_star_spread(job, TRMI_TAG_LIST, what, infos, (size_t)job->size * sizeof(*infos),
                               0, deadline_us));
    return trm_topology_create(infos, job->size, &job->topology);
}

trm_status trmi_job_bring_up(trm_job *job)
{
    int64_t timeout_ms = roll_call_ms();
    struct hello *all = NULL;
    trm_rank_info *infos;
    trm_status st = TRM_OK;

    job->launcher = trmi_launcher_open();
    if (job->launcher != NULL)
        job->rank = trmi_launcher_rank(job->launcher);
    TRM_CHECK(mpi_init(job, timeout_ms));
    trmi_job_fault(job, "roll");
    if (job->rank == 0)
        all = trm_calloc((size_t)job->size, sizeof(*all));
    infos = trm_calloc((size_t)job->size, sizeof(*infos));
    if ((job->rank == 0 && all == NULL) || infos == NULL)
        st = trm_fail(TRM_ERR_NO_MEMORY, "the roll call of %d ranks", job->size);
    else
        st = call_roll(job, timeout_ms, all, infos);
    trm_free(all);
    trm_free(infos);
    if (st == TRM_OK) {
        job->local_rank = job->topology->rank[job->rank].local_rank;
        job->local_size = trm_topology_local_size(job->topology, job->rank);
    }
    return st;
}
