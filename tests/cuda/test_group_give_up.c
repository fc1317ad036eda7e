/* Ranks with devices in a group: one whose inputs find no room on its device, or which has none to
 * begin with, fails its step on all ranks at once, captured or not, while other steps are under
 * way; nothing waits for it on the devices. */
#include "tests/cuda/group_kit.h"
#include "model/shape/shape.h"
#include "worker/engine.h"

#include <math.h>

#define WIDTH 300
#define ROWS_MAX 64
#define AT_ONCE_US 5000000
#define WORDS "the card is full"

static trm_segment *segment;
static trm_device_ops full_ops;
static trm_status (*real_alloc)(trm_device *d, trm_memory_kind kind, size_t bytes, void **out);
static size_t refused; /* bytes of device memory from which on nothing is given; 0: all is */

static trm_status alloc(trm_device *d, trm_memory_kind kind, size_t bytes, void **memory_out)
{
    if (kind == TRM_MEMORY_DEVICE && refused > 0 && bytes >= refused)
        return trm_fail(TRM_ERR_NO_MEMORY, "%zu bytes: " WORDS, bytes);
    return real_alloc(d, kind, bytes, memory_out);
}

/* y = sigmoid(sum over ranks of relu(x)) */
static int build(const group_rank *r, trm_graph **g_out)
{
    trm_tensor x = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {0, WIDTH}}, none = {.rank = -1};
    int v[4], node;
    trm_graph *g = NULL;

    RANK_OK(r, trm_graph_create(NULL, "sum", &g));
    RANK_OK(r, trm_graph_symbol(g, "n", &x.dims[0]));
    RANK_OK(r, trm_graph_add_value(g, "x", &x, &v[0]));
    RANK_OK(r, trm_graph_add_value(g, "relu", &none, &v[1]));
    RANK_OK(r, trm_graph_add_value(g, "sum", &none, &v[2]));
    RANK_OK(r, trm_graph_add_value(g, "y", &none, &v[3]));
    RANK_OK(r, trm_graph_add_node(g, TRM_OP_Relu, "relu", &v[0], 1, &v[1], 1, &node));
    RANK_OK(r, trm_graph_add_node(g, TRM_OP_TrmAllReduce, "sum", &v[1], 1, &v[2], 1, &node));
    RANK_OK(r, trm_attr_set_int(&g->nodes[node].attrs, g->arena, "ranks", r->size));
    RANK_OK(r, trm_attr_set_int(&g->nodes[node].attrs, g->arena, "rank", r->rank));
    RANK_OK(r, trm_graph_add_node(g, TRM_OP_Sigmoid, "y", &v[2], 1, &v[3], 1, &node));
    RANK_OK(r, trm_graph_set_inputs(g, &v[0], 1));
    RANK_OK(r, trm_graph_set_outputs(g, &v[3], 1));
    RANK_OK(r, trm_graph_infer(g));
    *g_out = g;
    return 0;
}

static float data[ROWS_MAX * WIDTH];

static trm_tensor rows_of(int rows)
{
    return (trm_tensor){.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {rows, WIDTH}, .data = data};
}

static int check(const group_rank *r, const trm_tensor *y, int rows)
{
    float all = (float)(r->size * (r->size + 1)) / 2;

    if (y->dims[0] != rows)
        return wrong(r, "%d rows, want %d", (int)y->dims[0], rows);
    for (int i = 0; i < rows * WIDTH; i++) {
        float got = ((const float *)y->data)[i], want = 1.0f / (1.0f + expf(-all / 16));

        if (!(fabsf(got - want) < 1e-5f))
            return wrong(r, "element %d is %g, want %g", i, (double)got, (double)want);
    }
    return 0;
}

static int good(const group_rank *r, trm_engine *e, int rows)
{
    trm_tensor x = rows_of(rows), y;

    RANK_OK(r, trm_engine_run(e, &x, &y));
    return check(r, &y, rows);
}

/* `gives_up`: it does not get as far as its device. */
static int bad(const group_rank *r, trm_engine *e, int rows, int who, bool gives_up)
{
    trm_tensor x = rows_of(rows);
    int64_t since = trm_now_us();
    trm_status st;

    if (r->rank == who && gives_up) {
        st = trm_engine_give_up(e, &x, trm_fail(TRM_ERR_NO_MEMORY, WORDS));
    } else {
        refused = r->rank == who ? 2048 : 0;
        st = trm_engine_submit(e, &x);
        refused = 0;
    }
    if (st != TRM_ERR_NO_MEMORY || strstr(trm_message(), WORDS) == NULL)
        return wrong(r, "%d rows, without %d: status %d, %s", rows, who, st, trm_message());
    if (trm_now_us() - since > AT_ONCE_US)
        return wrong(r, "%d rows, without %d: it took %lld us", rows, who,
                     (long long)(trm_now_us() - since));
    return 0;
}

#define DO(call)                                                                                   \
    do {                                                                                           \
        if ((call) != 0)                                                                           \
            return 1;                                                                              \
    } while (0)

static int steps(group_rank *r)
{
    trm_engine_options options = {.group = r->group};
    const trm_device_ops *real = r->gpu->ops;
    trm_engine *e = NULL;
    trm_graph *g = NULL;
    trm_tensor x = rows_of(1), y;
    int rows = 1;

    full_ops = *real;
    real_alloc = real->alloc;
    full_ops.alloc = alloc;
    r->gpu->ops = &full_ops;
    for (int i = 0; i < ROWS_MAX * WIDTH; i++)
        data[i] = (float)(r->rank + 1) / 16;
    RANK_OK(r, trm_comm_shm_create(segment, r->rank, r->size, 0, &options.comm));
    DO(build(r, &g));
    RANK_OK(r, trm_engine_create(g, r->gpu, &options, &e));
    for (int i = 0; i < 3; i++) /* captured from the second on */
        DO(good(r, e, 1));
    for (int who = 0; who < r->size; who++) {
        DO(bad(r, e, 1, who, true));
        DO(good(r, e, 1));
        DO(bad(r, e, rows *= 2, who, false)); /* neither input nor program is there */
        DO(good(r, e, 1));
        RANK_OK(r, trm_engine_submit(e, &x)); /* one is under way */
        DO(bad(r, e, rows *= 2, who, who == 0));
        DO(bad(r, e, 1, who, true));
        RANK_OK(r, trm_engine_collect(e, &y));
        DO(check(r, &y, 1));
        DO(good(r, e, 1));
    }
    for (rows = 1; rows <= ROWS_MAX; rows *= 2)
        DO(good(r, e, rows));
    trm_engine_destroy(e);
    r->gpu->ops = real;
    trm_graph_destroy(g);
    trm_comm_destroy(options.comm);
    return 0;
}

static char leaks[] = "TRM_EMU_LEAKS=1", plain[] = "TRM_GRAPHS=off";

static const struct {
    const char *name;
    int size;
    bool peers;
    char *settings[3];
} worlds[] = {
    {"two", 2, true, {leaks, NULL}},
    {"three", 3, true, {leaks, NULL}},
    {"two, through NCCL", 2, false, {leaks, NULL}},
    {"two, nothing captured", 2, true, {plain, leaks, NULL}},
};

START_TEST(all_fail_at_once)
{
    trm_comm_needs needs = {.slot_bytes = 1 << 18};

    ck_assert_int_eq(trm_comm_shm_segment(worlds[_i].size, &needs, &segment), TRM_OK);
    run_ranks(worlds[_i].name, worlds[_i].size, worlds[_i].peers, true, steps,
              (char *const *)worlds[_i].settings);
    trm_segment_close(segment);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("group give up");
    Suite *s = suite_create("group give up");
    SRunner *r;
    int failed;

    (void)setenv("TRM_EMU_IPC", "1", 1);
    tcase_add_loop_test(t, all_fail_at_once, 0, (int)(sizeof(worlds) / sizeof(worlds[0])));
    tcase_set_timeout(t, 120);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
