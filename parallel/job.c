/* A rank's place in its job, from start to end. Bring-up is rollcall.c, the messages star.c. */
#define _GNU_SOURCE
#include "parallel/job.h"
#include "base/log.h"
#include "base/wait.h"
#include "parallel/cores.h"
#include "parallel/launcher.h"
#include "parallel/rollcall.h"
#include "parallel/star.h"

#include <mpi.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define END_MS                                                                                     \
    20000 /* ranks end within milliseconds of each other: rank 0 has closed its output before */
#define SPEAKER_MS 3000 /* for the rank that speaks to end first */

trm_status trm_job_init(trm_job *job_out)
{
    trm_job job = {.size = 1, .local_size = 1};
    trm_status st;

    if (getenv("OMPI_COMM_WORLD_SIZE") == NULL && getenv("PMIX_RANK") == NULL) {
        TRM_CHECK(trm_topology_single(&job.topology));
        *job_out = job;
        return TRM_OK;
    }
    st = trmi_job_bring_up(&job);
    trmi_launcher_close(job.launcher);
    job.launcher = NULL;
    if (st != TRM_OK) {
        if (job.told) { /* the launcher ends all as soon as one has: its words must be out first */
            usleep(SPEAKER_MS * 1000);
            return trm_fail(st, "%s", "");
        }
        usleep((useconds_t)(job.rank < 20 ? job.rank : 20) * 100000); /* one is enough to say it */
        return st;
    }
    trm_log_init(job.rank, job.size);
    TRM_LOG(TRM_LOG_INFO, "job", "rank %d of %d, %d of %d on this host, %d hosts", job.rank,
            job.size, job.local_rank, job.local_size, job.topology->hosts);
    *job_out = job;
    return TRM_OK;
}

const trm_topology *trm_job_topology(const trm_job *job)
{
    return job->topology;
}

trm_status trm_job_bcast(trm_job *job, void *data, size_t bytes, int root, int64_t timeout_ms)
{
    if (job->size == 1)
        return TRM_OK;
    if (job->lost)
        return trm_fail(TRM_ERR_COMM, "MPI: broadcast after a rank was lost");
    return trmi_star_spread(job, TRMI_TAG_BROADCAST, "a broadcast of the job", data, bytes, root,
                            trm_deadline_us(timeout_ms));
}

struct opinion {
    int status;
    char text[1024];
};

/* Rank 0's: the failure of the lowest failing rank. */
static trm_status worst(const struct opinion *all, int ranks)
{
    for (int i = 0; i < ranks; i++) {
        const struct opinion *o = &all[i];
        bool sane = o->status > TRM_OK && o->status < TRM_STATUS_COUNT;

        if (o->status != TRM_OK)
            return trm_fail(sane ? (trm_status)o->status : TRM_ERR_INTERNAL, "rank %d: %.1000s", i,
                            o->text);
    }
    return TRM_OK;
}

trm_status trm_job_agree(trm_job *job, trm_status mine, int64_t timeout_ms)
{
    static const char *const what = "the ranks' agreement";
    int64_t deadline_us = trm_deadline_us(timeout_ms);
    struct opinion opinion = {.status = (int)mine}, *all = NULL;
    trm_status st;

    if (job->size == 1)
        return mine;
    if (job->lost)
        return mine != TRM_OK ? mine
                              : trm_fail(TRM_ERR_COMM, "MPI: agreement after a rank was lost");
    snprintf(opinion.text, sizeof(opinion.text), "%s", mine == TRM_OK ? "" : trm_message());
    trmi_job_fault(job, "agree");
    if (job->rank == 0 && (all = trm_calloc((size_t)job->size, sizeof(*all))) == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "MPI: what %d ranks say", job->size);
    st = trmi_star_collect(job, TRMI_TAG_AGREE, what, &opinion, sizeof(opinion), all, deadline_us);
    if (job->rank == 0) {
        if (st == TRM_OK)
            st = worst(all, job->size);
        st = trmi_star_verdict(job, what, st, deadline_us);
    } else if (st == TRM_OK) {
        st = trmi_star_verdict(job, what, TRM_OK, deadline_us);
    }
    trm_free(all);
    return st;
}

static int core_of(int cpu)
{
    char path[128];
    int package = 0, core = -1;
    FILE *f;

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/core_id", cpu);
    if ((f = fopen(path, "re")) != NULL) {
        if (fscanf(f, "%d", &core) != 1)
            core = -1;
        fclose(f);
    }
    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/physical_package_id", cpu);
    if ((f = fopen(path, "re")) != NULL) {
        if (fscanf(f, "%d", &package) != 1)
            package = 0;
        fclose(f);
    }
    return core < 0 ? -1 : package * TRM_CPUS_MAX + core; /* core ids repeat in each package */
}

void trm_job_take_cores(const trm_job *job, bool share, int *threads_out)
{
    size_t bytes = CPU_ALLOC_SIZE(TRM_CPUS_MAX);
    cpu_set_t *set = CPU_ALLOC(TRM_CPUS_MAX);
    trm_cpu *cpus = trm_calloc(TRM_CPUS_MAX, sizeof(*cpus));
    int count = 0, mine = 0, threads = 1;

    if (set == NULL || cpus == NULL)
        goto done;
    if (share && job->mpi) {
        /* the kernel cuts a wish for all CPUs down to what the cgroup's cpuset allows */
        CPU_ZERO_S(bytes, set);
        for (int i = 0; i < TRM_CPUS_MAX; i++)
            CPU_SET_S((size_t)i, bytes, set);
        if (sched_setaffinity(0, bytes, set) != 0)
            TRM_LOG(TRM_LOG_DEBUG, "job", "the CPU mask could not be widened");
    }
    if (sched_getaffinity(0, bytes, set) != 0)
        goto done;
    for (int i = 0; i < TRM_CPUS_MAX; i++)
        if (CPU_ISSET_S((size_t)i, bytes, set))
            cpus[count++] = (trm_cpu){.id = i, .core = core_of(i)};
    if (share && job->mpi) {
        mine = trm_cores_share(cpus, count, job->local_rank, job->local_size);
        threads = mine > 0 ? mine : 1;
        CPU_ZERO_S(bytes, set);
        for (int i = 0; i < mine; i++)
            CPU_SET_S((size_t)cpus[i].id, bytes, set);
        if (mine > 0 && sched_setaffinity(0, bytes, set) != 0)
            TRM_LOG(TRM_LOG_WARN, "job", "this rank's share of the CPUs could not be set");
    } else {
        /* a mask the launcher made for this rank is its own; the whole machine is shared */
        long online = sysconf(_SC_NPROCESSORS_ONLN);

        threads = count < online ? count : count / job->local_size;
        threads = threads > 0 ? threads : 1;
    }
    TRM_LOG(TRM_LOG_INFO, "job", "%d of %d allowed CPUs, %d threads", mine, count, threads);

done:
    CPU_FREE(set);
    trm_free(cpus);
    *threads_out = threads;
}

static volatile sig_atomic_t end_code; /* for the alarm below, set before it is armed */

static void end_now(int signal)
{
    (void)signal;
    _exit(end_code);
}

/* MPI_Finalize never returns where a rank was killed unseen (measured: 4 of 17 runs with recovery),
 * so all ranks meet first, with a deadline, and finalising itself is under an alarm. */
static void finalize(trm_job *job, int exit_code)
{
    struct sigaction action = {.sa_handler = end_now};

    if (trm_job_agree(job, TRM_OK, END_MS) != TRM_OK) {
        if (!job->told)
            TRM_LOG(TRM_LOG_WARN, "job", "end of the job: %s", trm_message());
        job->lost = true;
        return;
    }
    end_code = exit_code;
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGALRM, &action, NULL);
    (void)alarm((unsigned)(trm_scaled_ms(END_MS) / 1000) + 1);
    MPI_Finalize();
    (void)alarm(0);
}

void trm_job_end(trm_job *job, int exit_code)
{
    if (job->mpi && !job->lost)
        finalize(job, exit_code);
    if (job->lost) {
        fflush(stdout);
        fflush(stderr);
        if (job->told) /* the launcher ends all as soon as one has */
            usleep(SPEAKER_MS * 1000);
        _exit(exit_code);
    }
    job->mpi = false;
    trm_topology_destroy(job->topology);
    job->topology = NULL;
}
