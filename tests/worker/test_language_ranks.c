/* Language models over real ranks: processes with a shared window, each with its executor, give the
 * bits of one rank. (tests/parallel/test_language_bits.c has more layouts, in one process.) */
#include "parallel/comm.h"
#include "tests/parallel/lm_steps.h"

#include <sys/wait.h>
#include <unistd.h>

static const lm_shape shapes[] = {
    {.name = "f32",
     .heads = 8,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 288,
     .vocabulary = 67,
     .layers = 2,
     .qk_norm = true,
     .weights = TRM_DTYPE_F32},
    {.name = "bf16",
     .heads = 9,
     .kv = 3,
     .head = 32,
     .hidden = 96,
     .ffn = 1120,
     .vocabulary = 97,
     .layers = 2,
     .tied = true,
     .biased = true,
     .weights = TRM_DTYPE_BF16},
    {.name = "q8_0",
     .heads = 8,
     .kv = 8,
     .head = 32,
     .hidden = 64,
     .ffn = 1024,
     .vocabulary = 50,
     .layers = 2,
     .window = 20,
     .weights = TRM_DTYPE_Q8_0},
    {.name = "experts",
     .heads = 8,
     .kv = 4,
     .head = 32,
     .hidden = 64,
     .ffn = 64,
     .vocabulary = 50,
     .layers = 2,
     .experts = 20,
     .top_k = 3,
     .groups = 10,
     .weights = TRM_DTYPE_BF16},
};

typedef struct runner {
    trm_graph *g;
    trm_engine *e;
    cache kv;
} runner;

static void open_runner(runner *r, trm_graph *local, trm_comm *comm)
{
    trm_engine_options o = {.comm = comm};

    r->g = local;
    cache_open(&r->kv, local, TRM_DTYPE_F32);
    ck_assert_msg(trm_pass_finish(local) == TRM_OK, "%s", trm_message());
    ck_assert_msg(trm_engine_create(local, spmd_device, &o, &r->e) == TRM_OK, "%s", trm_message());
}

static void close_runner(runner *r)
{
    trm_engine_destroy(r->e);
    trm_graph_destroy(r->g);
    cache_close(&r->kv);
}

static void step(runner *r, const batch *b, const lm_shape *s, trm_tensor *logits_out)
{
    feed f;

    cache_step(&r->kv, b);
    feed_step(&f, b, s, &r->kv);
    ck_assert_msg(trm_engine_run(r->e, f.at, logits_out) == TRM_OK, "%s", trm_message());
}

/* What one of the ranks does; it has a process of its own. Messages go to standard error. */
static int be_rank(trm_segment *window, const lm_shape *s, int rank, int size)
{
    trm_tensor inputs[4], want, got, *descs;
    trm_sharding *sharding;
    trm_graph *whole, *local;
    trm_arena *arena;
    runner one = {0}, many = {0};
    trm_comm *comm;
    int *strategy, bad = 0;
    net m = lm_open(s, 11);

    ck_assert_int_eq(trm_comm_shm_create(window, rank, size, 0, &comm), TRM_OK);
    ck_assert_int_eq(trm_arena_create(0, &arena), TRM_OK);
    descs = trm_calloc((size_t)m.g->value_count + 1, sizeof(trm_tensor));
    strategy = trm_calloc((size_t)m.g->node_count + 1, sizeof(int));
    lm_descs(4, 2, inputs);
    ck_assert_int_eq(trm_shapes_bind(m.g, inputs, arena, descs), TRM_OK);
    ck_assert_int_eq(trm_sharding_create(m.g, descs, size, &sharding), TRM_OK);
    lm_strategy(sharding, strategy);
    ck_assert_int_eq(trm_lower_cut(m.g, 0, m.g->node_count, &whole), TRM_OK);
    ck_assert_msg(trm_lower(sharding, strategy, rank, &local) == TRM_OK, "%s", trm_message());
    open_runner(&one, whole, NULL);
    open_runner(&many, local, comm);
    for (int i = 0; i < STEPS; i++) {
        step(&one, &batches[i], s, &want);
        step(&many, &batches[i], s, &got);
        if (!trm_tensor_same_shape(&want, &got) ||
            memcmp(want.data, got.data, trm_tensor_numel(&want) * sizeof(float)) != 0) {
            fprintf(stderr, "%s: rank %d of %d: step %d has other bits\n", s->name, rank, size, i);
            bad = 1;
        }
    }
    close_runner(&one);
    close_runner(&many);
    trm_sharding_destroy(sharding);
    trm_arena_destroy(arena);
    trm_free(descs);
    trm_free(strategy);
    trm_comm_destroy(comm);
    m.input_count = 0; /* they have no data */
    net_close(&m);
    return bad;
}

static void over(const lm_shape *s, int size, size_t slot_bytes)
{
    trm_comm_needs needs = {.slot_bytes = slot_bytes};
    trm_segment *window;
    pid_t pids[8];

    ck_assert_int_eq(trm_comm_shm_segment(size, &needs, &window), TRM_OK);
    for (int r = 0; r < size; r++) {
        pids[r] = fork();
        ck_assert_int_ge(pids[r], 0);
        if (pids[r] == 0) {
            spmd_open();
            _exit(be_rank(window, s, r, size));
        }
    }
    for (int r = 0; r < size; r++) {
        int status = 0;

        ck_assert_int_eq(waitpid(pids[r], &status, 0), pids[r]);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: rank %d of %d failed",
                      s->name, r, size);
    }
    trm_segment_close(window);
}

START_TEST(ranks)
{
    for (int size = 1; size <= 5; size++)
        over(&shapes[_i], size, 0);
    over(&shapes[_i], 3, 4096); /* sums in pieces */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("language ranks");
    TCase *c = tcase_create("ranks");
    SRunner *r;
    int failed;

    setenv("TRM_DEADLINE_SCALE", "10", 0);
    tcase_set_timeout(c, 110);
    tcase_add_loop_test(c, ranks, 0, (int)(sizeof(shapes) / sizeof(shapes[0])));
    suite_add_tcase(s, c);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
