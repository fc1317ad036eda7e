/* Ranks without MPI: processes forked before any thread exists, with communicators over shared
 * segments. A rank's function says what is wrong by returning a text; NULL: all is well. */
#ifndef TRM_TESTS_WORKER_RANKS_KIT_H
#define TRM_TESTS_WORKER_RANKS_KIT_H

#include "parallel/comm.h"
#include "tests/worker/engine_kit.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define RANKS_MAX 8

struct ranks {
    int size, tensor; /* tensor > 0: stage communicators of that many ranks, too */
    trm_comm_needs needs;
};

struct rank {
    int rank, size;
    trm_comm *all, *stage;
};

typedef const char *(*rank_fn)(struct rank *r, void *ctx);

static char rank_text[600];

__attribute__((format(printf, 1, 2))) static inline const char *wrong(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(rank_text, sizeof(rank_text), format, args);
    va_end(args);
    return rank_text;
}

#define WANT_OK(call)                                                                              \
    do {                                                                                           \
        if ((call) != TRM_OK)                                                                      \
            return wrong("%s:%d %s: %s", __FILE__, __LINE__, #call, trm_message());                \
    } while (0)
#define WANT(condition)                                                                            \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return wrong("%s:%d not %s (%s)", __FILE__, __LINE__, #condition, trm_message());      \
    } while (0)

static inline const char *be_rank(struct rank *r, const struct ranks *set, trm_segment *all,
                                  trm_segment **stages, rank_fn fn, void *ctx)
{
    const char *text;

    WANT_OK(trm_device_cpu_create(1, &device));
    WANT_OK(trm_comm_shm_create(all, r->rank, r->size, 0, &r->all));
    if (set->tensor > 0)
        WANT_OK(trm_comm_shm_create(stages[r->rank / set->tensor], r->rank % set->tensor,
                                    set->tensor, 0, &r->stage));
    text = fn(r, ctx);
    if (text != NULL)
        return text; /* what it had made is not destroyed: the process ends */
    trm_comm_destroy(r->stage);
    trm_comm_destroy(r->all);
    trm_device_destroy(device);
    return text;
}

/* Runs fn as every rank; fails the test if any rank complains or dies. */
static inline void run_ranks(struct ranks set, rank_fn fn, void *ctx)
{
    trm_segment *all, *stages[RANKS_MAX] = {NULL};
    pid_t pids[RANKS_MAX];
    int bad = 0;

    ck_assert_msg(trm_comm_shm_segment(set.size, &set.needs, &all) == TRM_OK, "%s", trm_message());
    for (int s = 0; set.tensor > 0 && s < set.size / set.tensor; s++)
        ck_assert_int_eq(trm_comm_shm_segment(set.tensor, &set.needs, &stages[s]), TRM_OK);
    fflush(NULL);
    for (int i = 0; i < set.size; i++) {
        pids[i] = fork();
        ck_assert_int_ge(pids[i], 0);
        if (pids[i] == 0) {
            struct rank r = {.rank = i, .size = set.size};
            const char *text;

            alarm(100);
            text = be_rank(&r, &set, all, stages, fn, ctx);
            if (text != NULL)
                fprintf(stderr, "rank %d of %d: %s\n", i, set.size, text);
            _exit(text != NULL);
        }
    }
    for (int i = 0; i < set.size; i++) {
        int status = 0;

        ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
        bad += status != 0;
    }
    for (int s = 0; s < RANKS_MAX; s++)
        trm_segment_close(stages[s]);
    trm_segment_close(all);
    ck_assert_int_eq(bad, 0);
}

/* A made-up number for an index, the same on every rank; about -1..1. */
static inline float sample(size_t i)
{
    uint32_t h = (uint32_t)i * 2654435761u;

    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return (float)(h % 20001u) / 10000.0f - 1.0f;
}

static inline int constant_f32(trm_graph *g, const char *name, int rank, const int64_t *dims,
                               const float *values)
{
    trm_tensor t = {.dtype = TRM_DTYPE_F32, .rank = rank, .data = (void *)(uintptr_t)values};
    int v;

    memcpy(t.dims, dims, (size_t)rank * sizeof(*dims));
    ck_assert_int_eq(trm_graph_add_constant(g, name, &t, &v), TRM_OK);
    return v;
}

/* A collective of rank `rank` of `ranks`; sizes NULL: an all-reduce. */
static inline int collective(trm_graph *g, trm_op op, int in, const char *out, int ranks, int rank,
                             int axis, const int64_t *sizes, size_t stretches)
{
    int v = node(g, op, &in, 1, out);
    trm_attrs *a = &g->nodes[g->node_count - 1].attrs;

    ck_assert_int_eq(trm_attr_set_int(a, g->arena, "ranks", ranks), TRM_OK);
    ck_assert_int_eq(trm_attr_set_int(a, g->arena, "rank", rank), TRM_OK);
    if (sizes != NULL) {
        ck_assert_int_eq(trm_attr_set_int(a, g->arena, "axis", axis), TRM_OK);
        ck_assert_int_eq(trm_attr_set_ints(a, g->arena, "sizes", sizes, stretches * (size_t)ranks),
                         TRM_OK);
    }
    return v;
}

/* As finish() of engine_kit.h, with a group. */
static inline struct net finish_in(trm_comm *comm, trm_graph *g, int *inputs, int n_in,
                                   int *outputs, int n_out)
{
    struct net net = {.g = g};
    trm_engine_options options = {.comm = comm};

    ck_assert_int_eq(trm_graph_set_inputs(g, inputs, n_in), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(g, outputs, n_out), TRM_OK);
    ck_assert_int_eq(trm_graph_sort(g), TRM_OK);
    ck_assert_msg(trm_pass_all(g, NULL) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_engine_create(g, device, &options, &net.e) == TRM_OK, "%s", trm_message());
    return net;
}

#endif
