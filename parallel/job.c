/* MPI bring-up and the collectives of set-up. Blocking MPI calls wait for ever on a dead partner
 * and spin at full speed while they do; so each collective is the non-blocking one, tested between
 * short sleeps until a deadline. */
#define _GNU_SOURCE
#include "parallel/job.h"
#include "base/log.h"
#include "base/wait.h"
#include "parallel/cores.h"

#include <mpi.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MESSAGE_BYTES 1024
#define INIT_TIMEOUT_MS 60000
#define END_MS                                                                                     \
    20000 /* ranks end within milliseconds of each other: rank 0 has closed its output before */

static trm_status mpi_failed(trm_job *job, const char *what, int rc)
{
    char text[MPI_MAX_ERROR_STRING] = "?";
    int n = 0;

    job->lost = true;
    MPI_Error_string(rc, text, &n);
    return trm_fail(TRM_ERR_COMM, "MPI: %s: %s", what, text);
}

/* Waits for `request`; naps grow from 50 us to 2 ms, so that a quick partner costs little time and
 * a slow one little CPU. */
static trm_status finish(trm_job *job, MPI_Request *request, const char *what, int64_t deadline_us)
{
    useconds_t nap = 50;
    int done = 0;

    for (;;) {
        int rc = MPI_Test(request, &done, MPI_STATUS_IGNORE);

        if (rc != MPI_SUCCESS)
            return mpi_failed(job, what, rc);
        if (done)
            return TRM_OK;
        if (trm_now_us() > deadline_us) {
            job->lost = true;
            return trm_fail(TRM_ERR_COMM, "MPI: %s: a rank of the job did not take part in time",
                            what);
        }
        usleep(nap);
        nap = nap < 2000 ? nap * 2 : 2000;
    }
}

static trm_status bring_up(trm_job *job)
{
    int provided = MPI_THREAD_SINGLE, rc;
    MPI_Comm node = MPI_COMM_NULL;

    /* a rank that waits must not take the core from one that computes; harmless alone */
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    if ((rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided)) != MPI_SUCCESS)
        return mpi_failed(job, "MPI_Init_thread", rc);
    job->mpi = true;
    if (provided < MPI_THREAD_FUNNELED)
        return trm_fail(TRM_ERR_COMM, "MPI: thread level %d, want MPI_THREAD_FUNNELED (%d)",
                        provided, MPI_THREAD_FUNNELED);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &job->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &job->size);
    rc = MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, job->rank, MPI_INFO_NULL, &node);
    if (rc != MPI_SUCCESS)
        return mpi_failed(job, "MPI_Comm_split_type", rc);
    MPI_Comm_set_errhandler(node, MPI_ERRORS_RETURN);
    MPI_Comm_rank(node, &job->local_rank);
    MPI_Comm_size(node, &job->local_size);
    MPI_Comm_free(&node);
    return TRM_OK;
}

trm_status trm_job_init(trm_job *job_out)
{
    trm_job job = {.size = 1, .local_size = 1};

    if (getenv("OMPI_COMM_WORLD_SIZE") == NULL && getenv("PMIX_RANK") == NULL) {
        *job_out = job;
        return TRM_OK;
    }
    TRM_CHECK(bring_up(&job));
    trm_log_init(job.rank, job.size);
    TRM_LOG(TRM_LOG_INFO, "job", "rank %d of %d, %d of %d on this host", job.rank, job.size,
            job.local_rank, job.local_size);
    *job_out = job;
    return TRM_OK;
}

trm_status trm_job_bcast(trm_job *job, void *data, size_t bytes, int root, int64_t timeout_ms)
{
    MPI_Request request;
    int count, rc;

    if (job->size == 1)
        return TRM_OK;
    if (job->lost)
        return trm_fail(TRM_ERR_COMM, "MPI: broadcast after a rank was lost");
    TRM_CHECK(trm_to_int((int64_t)bytes, "bytes of a broadcast", &count));
    if ((rc = MPI_Ibcast(data, count, MPI_BYTE, root, MPI_COMM_WORLD, &request)) != MPI_SUCCESS)
        return mpi_failed(job, "MPI_Ibcast", rc);
    return finish(job, &request, "broadcast", trm_deadline_us(timeout_ms));
}

trm_status trm_job_agree(trm_job *job, trm_status mine, int64_t timeout_ms)
{
    struct {
        int status;
        char text[MESSAGE_BYTES];
    } verdict = {.status = (int)mine};
    int first, ours, rc;
    MPI_Request request;

    if (job->size == 1)
        return mine;
    if (job->lost)
        return mine != TRM_OK ? mine
                              : trm_fail(TRM_ERR_COMM, "MPI: roll call after a rank was lost");
    snprintf(verdict.text, sizeof(verdict.text), "%s", mine == TRM_OK ? "" : trm_message());
    ours = first = mine == TRM_OK ? job->size : job->rank;
    rc = MPI_Iallreduce(&ours, &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD, &request);
    if (rc != MPI_SUCCESS)
        return mpi_failed(job, "MPI_Iallreduce", rc);
    TRM_CHECK(finish(job, &request, "roll call", trm_deadline_us(timeout_ms)));
    if (first == job->size)
        return TRM_OK;
    TRM_CHECK(trm_job_bcast(job, &verdict, sizeof(verdict), first, INIT_TIMEOUT_MS));
    verdict.text[sizeof(verdict.text) - 1] = '\0';
    if (verdict.status <= TRM_OK || verdict.status >= TRM_STATUS_COUNT)
        verdict.status = TRM_ERR_INTERNAL;
    return trm_fail((trm_status)verdict.status, "rank %d: %s", first, verdict.text);
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
    MPI_Request request;

    if (MPI_Ibarrier(MPI_COMM_WORLD, &request) != MPI_SUCCESS ||
        finish(job, &request, "end of the job", trm_deadline_us(END_MS)) != TRM_OK) {
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
    if (!job->mpi)
        return;
    if (!job->lost)
        finalize(job, exit_code);
    if (job->lost) {
        fflush(stdout);
        fflush(stderr);
        _exit(exit_code);
    }
    job->mpi = false;
}
