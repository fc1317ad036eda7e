/* Ranks of a device group as forked processes, for tests: each opens a CUDA device of its own (the
 * emulated one, or GPU number `rank`), and they meet over memory that they share. */
#ifndef TRM_TESTS_CUDA_GROUP_KIT_H
#define TRM_TESTS_CUDA_GROUP_KIT_H

#include "base/wait.h"
#include "kernels/cuda_module.h"
#include "kernels/device_group.h"

#include <check.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RANKS_MAX 8
#define SKIP 77

typedef struct group_board {
    atomic_int came, failed;
    unsigned char id[TRM_DEVICE_GROUP_ID_BYTES];
    unsigned char cards[RANKS_MAX * TRM_DEVICE_GROUP_PEER_BYTES];
} group_board;

typedef struct group_rank {
    int rank, size;
    bool peers; /* they have each other's memory */
    group_board *board;
    trm_device *cpu, *gpu;
    trm_device_group *group;
    const trm_device_group_ops *ops;
    int barriers;
} group_rank;

/* 0: as it should be */
typedef int (*group_body)(group_rank *r);

__attribute__((format(printf, 2, 3))) static inline int wrong(const group_rank *r,
                                                              const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    fprintf(stderr, "rank %d of %d%s: ", r->rank, r->size, r->peers ? "" : ", no peers");
    vfprintf(stderr, format, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    atomic_store(&r->board->failed, 1);
    return 1;
}
#define RANK_OK(r, call)                                                                           \
    do {                                                                                           \
        if ((call) != TRM_OK)                                                                      \
            return wrong((r), "%s: %s", #call, trm_message());                                     \
    } while (0)

static inline void nap_ms(int ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&t, NULL);
}

/* All ranks have come here, or one has failed. */
static inline bool meet(group_rank *r)
{
    int64_t deadline = trm_now_us() + 60000000;
    int want = ++r->barriers * r->size;

    atomic_fetch_add(&r->board->came, 1);
    while (atomic_load(&r->board->came) < want) {
        if (atomic_load(&r->board->failed) || trm_now_us() > deadline)
            return false;
        nap_ms(1);
    }
    return true;
}

/* Polls until the group is ready, or fails, or `ms` have passed. */
static inline trm_status poll_for(group_rank *r, int ms, bool *ready_out)
{
    int64_t deadline = trm_now_us() + (int64_t)ms * 1000;
    trm_status st = TRM_OK;

    *ready_out = false;
    while (st == TRM_OK && !*ready_out && trm_now_us() < deadline) {
        st = r->ops->poll(r->group, ready_out);
        if (!*ready_out)
            nap_ms(1);
    }
    return st;
}

static inline int open_rank(group_rank *r)
{
    trm_cuda_options options = {.device = getenv("TRM_CUDA_DRIVER") != NULL ? 0 : r->rank};

    RANK_OK(r, trm_device_cpu_create(1, &r->cpu));
    if (trm_device_cuda_create(&options, r->cpu, &r->gpu) != TRM_OK) {
        fprintf(stderr, "rank %d: %s\n", r->rank, trm_message());
        atomic_store(&r->board->failed, 1);
        return getenv("TRM_CUDA_DRIVER") != NULL ? 1 : SKIP;
    }
    r->ops = r->gpu->ops->group;
    return 0;
}

static inline int begin_group(group_rank *r)
{
    if (r->rank == 0)
        RANK_OK(r, r->ops->make_id(r->gpu, r->board->id));
    if (!meet(r))
        return SKIP;
    RANK_OK(r, r->ops->begin(r->gpu, r->board->id, r->rank, r->size, &r->group));
    return 0;
}

static inline int join_group(group_rank *r)
{
    size_t each = r->ops->peer_bytes;
    bool ready;

    RANK_OK(r, poll_for(r, 20000, &ready));
    if (!ready)
        return wrong(r, "not ready");
    if (r->peers)
        RANK_OK(r, r->ops->peer_own(r->group, r->board->cards + (size_t)r->rank * each));
    if (!meet(r))
        return 1;
    if (r->peers)
        RANK_OK(r, r->ops->peer_all(r->group, r->board->cards));
    return meet(r) ? 0 : 1;
}

/* A rank's life. joins: the group is brought up before the body, and ended after it. */
static inline int run_rank(group_rank *r, group_body body, bool joins)
{
    int rc = open_rank(r);

    if (rc == 0 && joins)
        rc = begin_group(r);
    if (rc == 0 && joins)
        rc = join_group(r);
    if (rc == 0)
        rc = body(r);
    if (r->group != NULL)
        r->ops->destroy(r->group);
    trm_device_destroy(r->gpu);
    trm_device_destroy(r->cpu);
    return rc;
}

/* settings: "NAME=value", up to a NULL. Skipped ranks skip the test. */
static inline void run_ranks(const char *name, int size, bool peers, bool joins, group_body body,
                             char *const *settings)
{
    group_board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pids[RANKS_MAX];
    int bad = 0;

    ck_assert_ptr_ne(board, MAP_FAILED);
    fflush(NULL);
    for (int i = 0; i < size; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            group_rank r = {.rank = i, .size = size, .peers = peers, .board = board};

            for (; settings != NULL && *settings != NULL; settings++)
                putenv(*settings);
            alarm(100);
            exit(run_rank(&r, body, joins));
        }
        ck_assert_int_gt(pids[i], 0);
    }
    for (int i = 0; i < size; i++) {
        int status = 0;

        ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
        if (WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == SKIP))
            continue;
        fprintf(stderr, "%s: rank %d: status 0x%x\n", name, i, (unsigned)status);
        bad++;
    }
    munmap(board, sizeof(*board));
    ck_assert_msg(bad == 0, "%s: %d of %d ranks", name, bad, size);
}

#endif
