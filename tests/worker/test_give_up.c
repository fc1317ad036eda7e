/* A rank that cannot make a step's inputs: the others' steps fail with its words at once, whether
 * the program was bound before or not, and the next step is as if nothing had been. */
#include "base/wait.h"
#include "tests/worker/ranks_kit.h"

#define WIDTH 40
#define AT_ONCE_US 5000000
#define WORDS "64 bytes: the card is full"

/* y = sigmoid(sum over ranks of relu(x)), then all ranks' parts one after another; `direct`: x
 * itself is summed, too. */
static struct net build(struct rank *r, bool direct)
{
    int64_t sizes[RANKS_MAX], n;
    int x, s, y, outs[2];
    trm_graph *g;

    ck_assert_int_eq(trm_graph_create(NULL, "sums", &g), TRM_OK);
    ck_assert_int_eq(trm_graph_symbol(g, "n", &n), TRM_OK);
    for (int i = 0; i < r->size; i++)
        sizes[i] = WIDTH;
    x = input(g, "x", TRM_DTYPE_F32, 2, (int64_t[]){n, WIDTH});
    s = node(g, TRM_OP_Relu, &x, 1, "relu");
    s = collective(g, TRM_OP_TrmAllReduce, s, "sum", r->size, r->rank, 0, NULL, 0);
    y = node(g, TRM_OP_Sigmoid, &s, 1, "y");
    outs[0] = collective(g, TRM_OP_TrmAllGather, y, "all", r->size, r->rank, 1, sizes, 1);
    if (direct)
        outs[1] = collective(g, TRM_OP_TrmAllReduce, x, "whole", r->size, r->rank, 0, NULL, 0);
    return finish_in(r->all, g, &x, 1, outs, direct ? 2 : 1);
}

static const char *step(struct rank *r, struct net net, int rows)
{
    float x[8 * WIDTH], sum = 0;
    trm_tensor in = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {rows, WIDTH}, .data = x}, out[2];

    for (int i = 0; i < rows * WIDTH; i++)
        x[i] = sample((size_t)(i + 1000 * r->rank));
    WANT_OK(trm_engine_run(net.e, &in, out));
    for (int k = 0; k < r->size; k++) {
        float v = sample((size_t)(WIDTH + 3 + 1000 * k));

        sum += v > 0 ? v : 0;
    }
    for (int k = 0; k < r->size && rows > 1; k++)
        WANT(fabsf(((float *)out[0].data)[r->size * WIDTH + k * WIDTH + 3] -
                   1.0f / (1.0f + expf(-sum))) < 1e-5f);
    return NULL;
}

/* Rank `who` has no inputs of `rows` rows. */
static const char *failing(struct rank *r, struct net net, int rows, int who, bool data)
{
    float x[8 * WIDTH] = {0};
    trm_tensor in = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {rows, WIDTH}, .data = x}, out[2];
    int64_t since = trm_now_us();
    trm_status st;

    if (r->rank == who && !data)
        in.data = NULL;
    st = r->rank == who ? trm_engine_give_up(net.e, &in, trm_fail(TRM_ERR_NO_MEMORY, WORDS))
                        : trm_engine_run(net.e, &in, out);
    WANT(st == TRM_ERR_NO_MEMORY);
    WANT(strstr(trm_message(), WORDS) != NULL);
    WANT(trm_now_us() - since < AT_ONCE_US);
    return NULL;
}

#define DO(call)                                                                                   \
    do {                                                                                           \
        const char *text = (call);                                                                 \
        if (text != NULL)                                                                          \
            return text;                                                                           \
    } while (0)

static const char *run(struct rank *r, void *ctx)
{
    struct net net = build(r, *(bool *)ctx);

    for (int who = 0; who < r->size; who++) {
        DO(failing(r, net, 2 + who, who, true)); /* nobody has bound it */
        DO(step(r, net, 2 + who));
        for (int rows = 1; rows < 4; rows++) {
            DO(step(r, net, rows));
            DO(failing(r, net, rows, who, *(bool *)ctx));
            DO(step(r, net, rows));
        }
    }
    drop(net);
    return NULL;
}

/* What a sum reads is not there: the rank is lost to the others, and says so. */
static const char *lost(struct rank *r, void *ctx)
{
    struct net net = build(r, true);
    trm_tensor in = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {1, WIDTH}};

    (void)ctx;
    DO(step(r, net, 1));
    if (r->rank != 0)
        return NULL;
    WANT(trm_engine_give_up(net.e, &in, trm_fail(TRM_ERR_NO_MEMORY, WORDS)) == TRM_ERR_COMM);
    WANT(strstr(trm_message(), WORDS) != NULL);
    return NULL;
}

START_TEST(all_fail_together)
{
    bool direct = _i > 0;

    for (int size = 2; size < 5; size++)
        run_ranks((struct ranks){.size = size}, run, &direct);
}
END_TEST

START_TEST(without_data)
{
    run_ranks((struct ranks){.size = 2}, lost, NULL);
}
END_TEST

static const char *alone(struct rank *r, void *ctx)
{
    trm_tensor in = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {1, WIDTH}};
    struct net net;
    trm_graph *g;
    int x, y;

    (void)ctx;
    ck_assert_int_eq(trm_graph_create(NULL, "alone", &g), TRM_OK);
    x = input(g, "x", TRM_DTYPE_F32, 2, (int64_t[]){1, WIDTH});
    y = node(g, TRM_OP_Relu, &x, 1, "y");
    net = finish_in(r->all, g, &x, 1, &y, 1);
    WANT(trm_engine_give_up(net.e, &in, trm_fail(TRM_ERR_NO_MEMORY, WORDS)) == TRM_ERR_NO_MEMORY);
    WANT(strcmp(trm_message(), WORDS) == 0);
    drop(net);
    return NULL;
}

START_TEST(without_a_group)
{
    run_ranks((struct ranks){.size = 1}, alone, NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("give up");
    TCase *t = tcase_create("give up");
    SRunner *r;
    int failed;

    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, all_fail_together, 0, 2);
    tcase_add_test(t, without_data);
    tcase_add_test(t, without_a_group);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
