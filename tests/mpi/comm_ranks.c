/* The driver under mpirun: every check of tests/parallel/comm_checks.h on groups of a job, and a
 * micro-benchmark.
 *   comm_ranks                all ranks, disjoint halves, and a group in another order
 *   comm_ranks --trouble KIND late: the last rank does not come; other: it calls something else
 *   comm_ranks --bench        us per call on the group of all ranks
 * TRM_COMM=mpi takes the MPI row on one host. Exit code 0: as it should be. */
#define _GNU_SOURCE
#include "base/log.h"
#include "base/wait.h"
#include "parallel/job.h"
#include "tests/parallel/comm_checks.h"

#include <signal.h>

static trm_job job;
static int hosts[TRM_COMM_RANKS_MAX];

static int failed(const char *what, const char *why)
{
    fprintf(stderr, "rank %d: %s: %s\n", job.rank, what, why);
    return 1;
}

/* Makes the group on all ranks of the job and runs all checks on its members. */
static int check_group(const int *members, int count, const char *label)
{
    const char *want = getenv("TRM_COMM");
    trm_comm *c = NULL;
    int bad = 0;

    if (trm_comm_group_create(&job, hosts, members, count, label, &c) != TRM_OK)
        return failed(label, trm_message());
    for (int i = 0; i < count; i++)
        if (members[i] == job.rank && (c == NULL || trm_comm_rank(c) != i))
            return failed(label, "not numbered as asked for");
    if (c == NULL)
        return 0;
    want = count == 1 ? "self" : want != NULL && strcmp(want, "mpi") == 0 ? "mpi" : "shm";
    if (strstr(trm_comm_name(c), want) == NULL)
        return failed(label, trm_comm_name(c));
    for (size_t k = 0; k < COUNT_OF(comm_checks) && !bad; k++) {
        const char *wrong = comm_checks[k].check(c);

        if (wrong != NULL)
            bad = failed(comm_checks[k].name, wrong);
    }
    if (!bad) {
        const char *wrong = check_idle(c);

        if (wrong != NULL)
            bad = failed("idle", wrong);
    }
    trm_comm_destroy(c);
    return bad;
}

static int check_all(void)
{
    int members[TRM_COMM_RANKS_MAX], half = job.size / 2, bad = 0;

    for (int i = 0; i < job.size; i++)
        members[i] = i;
    bad |= check_group(members, job.size, "all");
    if (job.size > 1) {
        bad |= check_group(members, half, "first half");
        bad |= check_group(members + half, job.size - half, "second half");
    }
    for (int i = 0; i < job.size; i++)
        members[i] = job.size - 1 - i;
    bad |= check_group(members, job.size, "backwards");
    return bad;
}

/* The others find out, and say who: the driver's end code is 0 where they do. */
static int trouble(const char *kind)
{
    int members[TRM_COMM_RANKS_MAX], last = job.size - 1;
    const char *want = strcmp(kind, "late") == 0 ? "in time" : "ranks disagree";
    bool late = strcmp(kind, "late") == 0;
    trm_comm *c = NULL;
    trm_status st;
    char who[64];
    float x[8] = {0};

    for (int i = 0; i < job.size; i++)
        members[i] = i;
    if (trm_comm_group_create(&job, hosts, members, job.size, "all", &c) != TRM_OK)
        return failed(kind, trm_message());
#ifndef TRM_CHECKED
    if (!late && strcmp(trm_comm_name(c), "mpi") == 0) {
        fprintf(stderr, "arguments: not checked in this build\n");
        trm_comm_destroy(c);
        return 0;
    }
#endif
    trm_comm_set_timeout(c, late ? 300 : 20000);
    if (late && job.rank == last) {
        usleep((useconds_t)trm_scaled_ms(2000) * 1000);
        /* the group has been given up meanwhile: this rank is told, and why */
    }
    st = trm_comm_allreduce(c, x, x, job.rank == last ? 7 : 8, TRM_DTYPE_F32, TRM_REDUCE_SUM);
    snprintf(who, sizeof(who), "rank %d", last);
    if (st != TRM_ERR_COMM)
        return failed(kind, "was not noticed");
    if (!(late && job.rank == last) &&
        (strstr(trm_message(), who) == NULL || strstr(trm_message(), want) == NULL))
        return failed(kind, trm_message());
    fprintf(stderr, "rank %d: %s\n", job.rank, trm_message());
    if (trm_comm_barrier(c) != TRM_ERR_COMM)
        return failed(kind, "the communicator is not broken");
    trm_comm_destroy(c);
    return 0;
}

/* ---- figures ---- */

struct timing {
    size_t bytes;
    float *in, *out;
};

static trm_status bench_allreduce(trm_comm *c, struct timing *t)
{
    return trm_comm_allreduce(c, t->in, t->out, t->bytes / 4, TRM_DTYPE_F32, TRM_REDUCE_SUM);
}

static trm_status bench_allreduce_slot(trm_comm *c, struct timing *t)
{
    void *slot = NULL;

    TRM_CHECK(trm_comm_slot_get(c, t->bytes, &slot));
    return trm_comm_allreduce(c, slot != NULL ? slot : t->in, t->out, t->bytes / 4, TRM_DTYPE_F32,
                              TRM_REDUCE_SUM);
}

static trm_status bench_exchange(trm_comm *c, struct timing *t)
{
    size_t bytes[TRM_COMM_RANKS_MAX];
    const void *peers[TRM_COMM_RANKS_MAX];
    void *slot = NULL;

    for (int r = 0; r < trm_comm_size(c); r++)
        bytes[r] = t->bytes;
    TRM_CHECK(trm_comm_slot_get(c, t->bytes, &slot));
    return trm_comm_exchange(c, slot != NULL ? slot : t->in, bytes, peers);
}

/* there and back; halved below */
static trm_status bench_message(trm_comm *c, struct timing *t)
{
    trm_piece piece = {.data = t->in, .bytes = t->bytes};
    const void *data;
    size_t bytes;
    int rank = trm_comm_rank(c);

    if (rank > 1)
        return TRM_OK;
    if (rank == 0)
        TRM_CHECK(trm_comm_send(c, 1, &piece, 1));
    TRM_CHECK(trm_comm_receive(c, 1 - rank, false, &data, &bytes));
    return rank == 1 ? trm_comm_send(c, 0, &piece, 1) : TRM_OK;
}

static int less(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static int bench(void)
{
    static const struct {
        const char *name;
        trm_status (*run)(trm_comm *c, struct timing *t);
        double part;
    } rows[] = {{"allreduce", bench_allreduce, 1},
                {"allreduce, in the slot", bench_allreduce_slot, 1},
                {"exchange, in the slot", bench_exchange, 1},
                {"message, one way", bench_message, 0.5}};
    enum { ROUNDS = 15 };
    static const size_t sizes[] = {64, 1024, 8192, 65536, 262144, 1048576, 4194304};
    const size_t most = (size_t)4 << 20;
    trm_comm_needs needs = {.slot_bytes = most, .message_bytes = most};
    int members[TRM_COMM_RANKS_MAX];
    struct timing t = {.in = trm_aligned_malloc(most), .out = trm_aligned_malloc(most)};
    trm_comm *c = NULL;
    int threads;

    /* as programs do: unpinned, wake-ups pull the ranks onto one core, where each wait is a spin */
    trm_job_take_cores(&job, true, &threads);
    for (int i = 0; i < job.size; i++)
        members[i] = i;
    memset(t.in, 0, most);
    memset(t.out, 0, most);
    if (trm_comm_group_create(&job, hosts, members, job.size, "all", &c) != TRM_OK ||
        trm_comm_reserve(c, &needs) != TRM_OK)
        return failed("bench", trm_message());
    if (job.rank == 0)
        printf("%s, %d ranks: median (least) us of %d rounds\n%-24s", trm_comm_name(c), job.size,
               (int)ROUNDS, "bytes");
    for (size_t b = 0; b < COUNT_OF(sizes) && job.rank == 0; b++)
        printf(" %18zu%s", sizes[b], b + 1 == COUNT_OF(sizes) ? "\n" : "");
    for (size_t k = 0; k < COUNT_OF(rows); k++) {
        if (k == 3 && job.size < 2)
            break;
        if (job.rank == 0)
            printf("%-24s", rows[k].name);
        for (size_t b = 0; b < COUNT_OF(sizes); b++) {
            int calls = 5;
            double us[ROUNDS];

            t.bytes = sizes[b];
            for (int i = -1; i < ROUNDS; i++) { /* the first tells how many calls are 20 ms */
                int64_t start;

                if (trm_comm_barrier(c) != TRM_OK)
                    return failed("bench", trm_message());
                start = trm_now_us();
                for (int n = 0; n < calls; n++)
                    if (rows[k].run(c, &t) != TRM_OK)
                        return failed("bench", trm_message());
                start = trm_now_us() - start;
                if (i >= 0)
                    us[i] = (double)start / calls * rows[k].part;
                else
                    calls = start > 20000 ? 5 : (int)(20000 * 5 / (start + 5));
                if (i < 0 && trm_comm_broadcast(c, &calls, sizeof(calls), 0) != TRM_OK)
                    return failed("bench", trm_message());
            }
            qsort(us, ROUNDS, sizeof(us[0]), less);
            if (job.rank == 0)
                printf(" %9.2f (%6.2f)", us[ROUNDS / 2], us[0]);
        }
        if (job.rank == 0)
            printf("\n");
    }
    trm_comm_destroy(c);
    trm_aligned_free(t.in);
    trm_aligned_free(t.out);
    return 0;
}

int main(int argc, char **argv)
{
    int bad;

    trm_log_init(0, 1);
    if (trm_job_init(&job) != TRM_OK || job.size > TRM_COMM_RANKS_MAX)
        return failed("start", trm_message());
    if (argc == 1)
        bad = check_all();
    else if (argc == 2 && strcmp(argv[1], "--bench") == 0)
        bad = bench();
    else if (argc == 3 && strcmp(argv[1], "--trouble") == 0)
        bad = trouble(argv[2]);
    else
        bad = failed("options", "want none, --bench or --trouble late|other");
    trm_job_end(&job, bad);
    return bad;
}
