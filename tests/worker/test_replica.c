/* Replicas of forked ranks on a hand-made network in every layout of up to six ranks, against
 * loops: steps of several sizes under way at once, failed steps among them, a lost rank. */
#include "tests/worker/ranks_kit.h"
#include "worker/replica.h"

enum { IN = 8, HIDDEN = 13, ROWS = 4, OUT = 7, BATCH_MAX = 6, STEPS = 25 };

struct layout {
    int tensor, pipeline;
};

static float w1[IN * HIDDEN], w2[HIDDEN * IN], w3[IN * OUT], table[ROWS * IN];

static void make_weights(void)
{
    for (size_t i = 0; i < IN * HIDDEN; i++) {
        w1[i] = sample(i) / 2;
        w2[i] = sample(i + 1000) / 2;
    }
    for (size_t i = 0; i < IN * OUT; i++)
        w3[i] = sample(i + 2000) / 2;
    for (size_t i = 0; i < ROWS * IN; i++)
        table[i] = sample(i + 3000);
}

/* Columns [begin, end) of a [rows, all] matrix as a constant. */
static int columns(trm_graph *g, const char *name, const float *w, int rows, int all, int begin,
                   int end)
{
    float part[IN * HIDDEN];
    int n = end - begin;

    for (int r = 0; r < rows; r++)
        for (int c = 0; c < n; c++)
            part[r * n + c] = w[r * all + begin + c];
    return constant_f32(g, name, 2, (int64_t[]){rows, n}, part);
}

struct build {
    trm_graph *g;
    int64_t n;
    int ranks, rank;
    int x, rows, h, mid, u, y; /* values; -1: not in this graph */
};

/* h = relu(x w1) w2: hidden units are split, the product is summed; mid = sigmoid(h) */
static void block_a(struct build *b)
{
    int begin = HIDDEN * b->rank / b->ranks, end = HIDDEN * (b->rank + 1) / b->ranks, args[2];

    args[0] = b->x;
    args[1] = columns(b->g, "w1", w1, IN, HIDDEN, begin, end);
    args[0] = node(b->g, TRM_OP_MatMul, args, 2, "a1");
    args[0] = node(b->g, TRM_OP_Relu, args, 1, "a2");
    args[1] = constant_f32(b->g, "w2", 2, (int64_t[]){end - begin, IN}, w2 + begin * IN);
    b->h = node(b->g, TRM_OP_MatMul, args, 2, b->ranks > 1 ? "a3" : "h");
    if (b->ranks > 1)
        b->h = collective(b->g, TRM_OP_TrmAllReduce, b->h, "h", b->ranks, b->rank, 0, NULL, 0);
    b->mid = node(b->g, TRM_OP_Sigmoid, &b->h, 1, "mid");
}

/* u = h + x + table[rows] */
static void block_b(struct build *b)
{
    int args[2] = {b->h, b->x}, s = node(b->g, TRM_OP_Add, args, 2, "b1");

    args[0] = constant_f32(b->g, "table", 2, (int64_t[]){ROWS, IN}, table);
    args[1] = b->rows;
    args[1] = node(b->g, TRM_OP_Gather, args, 2, "b2");
    args[0] = s;
    b->u = node(b->g, TRM_OP_Add, args, 2, "u");
}

/* y = relu(u w3): columns are split and gathered */
static void block_c(struct build *b)
{
    int64_t sizes[RANKS_MAX];
    int args[2] = {b->u};

    for (int r = 0; r < b->ranks; r++)
        sizes[r] = OUT * (r + 1) / b->ranks - OUT * r / b->ranks;
    args[1] =
        columns(b->g, "w3", w3, IN, OUT, OUT * b->rank / b->ranks, OUT * (b->rank + 1) / b->ranks);
    b->y = node(b->g, TRM_OP_MatMul, args, 2, "c1");
    b->y = node(b->g, TRM_OP_Relu, &b->y, 1, b->ranks > 1 ? "c2" : "y");
    if (b->ranks > 1)
        b->y = collective(b->g, TRM_OP_TrmAllGather, b->y, "y", b->ranks, b->rank, 1, sizes, 1);
}

static int add_input(struct build *b, const char *name, trm_dtype dtype)
{
    return dtype == TRM_DTYPE_I64 ? input(b->g, name, dtype, 1, (int64_t[]){b->n})
                                  : input(b->g, name, dtype, 2, (int64_t[]){b->n, IN});
}

/* Stage `stage` of `stages`: blocks A, B, C; with two stages A and BC. */
static trm_graph *build(int stage, int stages, int rank, int ranks)
{
    struct build b = {
        .ranks = ranks, .rank = rank, .x = -1, .rows = -1, .h = -1, .mid = -1, .u = -1, .y = -1};
    int first = stage == 0 ? 0 : stage, last = stage + 1 == stages ? 2 : stage;
    int ins[3], outs[4], n_in = 0, n_out = 0;

    ck_assert_int_eq(trm_graph_create(NULL, "stage", &b.g), TRM_OK);
    ck_assert_int_eq(trm_graph_symbol(b.g, "n", &b.n), TRM_OK);
    if (first == 2) {
        ins[n_in++] = b.u = add_input(&b, "u", TRM_DTYPE_F32);
    } else {
        ins[n_in++] = b.x = add_input(&b, "x", TRM_DTYPE_F32);
        ins[n_in++] = b.rows = add_input(&b, "rows", TRM_DTYPE_I64);
        if (first == 1)
            ins[n_in++] = b.h = add_input(&b, "h", TRM_DTYPE_F32);
    }
    if (first == 0)
        block_a(&b);
    if (first <= 1 && last >= 1)
        block_b(&b);
    if (last == 2)
        block_c(&b);
    if (last == 0) { /* passes on what later stages read */
        outs[n_out++] = b.rows;
        outs[n_out++] = b.h;
        outs[n_out++] = b.x;
    }
    if (last == 1)
        outs[n_out++] = b.u;
    if (last == 2)
        outs[n_out++] = b.y;
    if (b.mid >= 0)
        outs[n_out++] = b.mid;
    ck_assert_int_eq(trm_graph_set_inputs(b.g, ins, n_in), TRM_OK);
    ck_assert_int_eq(trm_graph_set_outputs(b.g, outs, n_out), TRM_OK);
    ck_assert_int_eq(trm_graph_sort(b.g), TRM_OK);
    ck_assert_msg(trm_pass_all(b.g, NULL) == TRM_OK, "%s", trm_message());
    return b.g;
}

struct step {
    int64_t n, rows[BATCH_MAX];
    float x[BATCH_MAX * IN];
    bool bad;
};

static struct step make_step(int k)
{
    struct step s = {.n = 1 + k % BATCH_MAX, .bad = k % 7 == 3};

    for (int64_t i = 0; i < s.n; i++)
        s.rows[i] = (i + k) % ROWS;
    if (s.bad)
        s.rows[0] = ROWS + 5;
    for (size_t i = 0; i < (size_t)s.n * IN; i++)
        s.x[i] = sample(i + 10000 * (size_t)(k + 1));
    return s;
}

static const char *compare(const struct step *s, const trm_tensor *y, const trm_tensor *mid)
{
    WANT(y->rank == 2 && y->dims[0] == s->n && y->dims[1] == OUT);
    WANT(mid->rank == 2 && mid->dims[0] == s->n && mid->dims[1] == IN);
    for (int64_t r = 0; r < s->n; r++) {
        double hidden[HIDDEN], h[IN], out[OUT] = {0};

        for (int j = 0; j < HIDDEN; j++) {
            hidden[j] = 0;
            for (int i = 0; i < IN; i++)
                hidden[j] += (double)s->x[r * IN + i] * (double)w1[i * HIDDEN + j];
            hidden[j] = fmax(0, hidden[j]);
        }
        for (int i = 0; i < IN; i++) {
            double u;

            h[i] = 0;
            for (int j = 0; j < HIDDEN; j++)
                h[i] += hidden[j] * (double)w2[j * IN + i];
            u = h[i] + (double)s->x[r * IN + i] + (double)table[s->rows[r] * IN + i];
            for (int o = 0; o < OUT; o++)
                out[o] += u * (double)w3[i * OUT + o];
            WANT(fabs((double)((float *)mid->data)[r * IN + i] - 1 / (1 + exp(-h[i]))) < 1e-5);
        }
        for (int o = 0; o < OUT; o++)
            WANT(fabs((double)((float *)y->data)[r * OUT + o] - fmax(0, out[o])) < 1e-4);
    }
    return NULL;
}

static void set_inputs(const struct step *s, trm_tensor *in)
{
    in[0] = (trm_tensor){
        .dtype = TRM_DTYPE_F32, .rank = 2, .dims = {s->n, IN}, .data = (void *)(uintptr_t)s->x};
    in[1] = (trm_tensor){
        .dtype = TRM_DTYPE_I64, .rank = 1, .dims = {s->n}, .data = (void *)(uintptr_t)s->rows};
}

static const char *collect(trm_replica *r, int k)
{
    struct step s = make_step(k);
    trm_tensor out[2];

    if (s.bad) {
        WANT(trm_replica_collect(r, out) != TRM_OK);
        WANT(strstr(trm_message(), "b2") != NULL);
        return NULL;
    }
    WANT_OK(trm_replica_collect(r, out));
    return compare(&s, &out[0], &out[1]);
}

/* Keeps as many steps under way as may be. */
static const char *lead(trm_replica *r, int pipeline)
{
    int done = 0;
    trm_tensor in[2], out[2];
    const char *text;

    WANT(trm_replica_depth(r) >= (pipeline == 1 ? 1 : pipeline));
    for (int k = 0; k < STEPS; k++) {
        struct step s = make_step(k);

        set_inputs(&s, in);
        if (k == 5) { /* bad input fails alone */
            in[1].dims[0]++;
            WANT(trm_replica_submit(r, in) == TRM_ERR_INVALID_ARG);
            in[1].dims[0]--;
        }
        if (trm_replica_under_way(r) == trm_replica_depth(r)) {
            WANT(trm_replica_submit(r, in) == TRM_ERR_CANCELLED);
            if ((text = collect(r, done++)) != NULL)
                return text;
        }
        WANT_OK(trm_replica_submit(r, in));
        memset(&s, 0xff, sizeof(s)); /* inputs may be reused on return */
    }
    while (trm_replica_under_way(r) > 0)
        if ((text = collect(r, done++)) != NULL)
            return text;
    WANT(done == STEPS);
    for (int k = 0; k < 3; k++) {
        struct step s = make_step(k);

        set_inputs(&s, in);
        WANT_OK(trm_replica_run(r, in, out));
        if ((text = compare(&s, &out[0], &out[1])) != NULL)
            return text;
    }
    WANT_OK(trm_replica_stop(r));
    WANT_OK(trm_replica_stop(r));
    WANT(trm_replica_submit(r, in) == TRM_ERR_CANCELLED);
    return NULL;
}

struct made {
    trm_graph *whole, *local;
    trm_replica *replica;
};

static const char *make(struct rank *r, const struct layout *l, struct made *m)
{
    trm_plan plan = {.parallel = {1, l->tensor, l->pipeline},
                     .micro_batches = l->pipeline,
                     .slot_bytes = 4096,
                     .message_bytes = 4096,
                     .step_us = 100};
    trm_replica_options o = {.plan = &plan,
                             .device = device,
                             .replica = r->all,
                             .stage = l->tensor > 1 ? r->stage : NULL,
                             .place = {0, r->rank / l->tensor, r->rank % l->tensor}};

    make_weights();
    o.graph = m->whole = build(0, 1, 0, 1);
    o.local = m->local = build(o.place.stage, l->pipeline, o.place.shard, l->tensor);
    WANT_OK(trm_replica_create(&o, &m->replica));
    WANT(trm_replica_leads(m->replica) == (r->rank == 0));
    return NULL;
}

static void unmake(struct made *m)
{
    trm_replica_destroy(m->replica);
    trm_graph_destroy(m->local);
    trm_graph_destroy(m->whole);
}

static const char *work(struct rank *r, void *ctx)
{
    const struct layout *l = ctx;
    struct made m;
    const char *text = make(r, l, &m);
    trm_replica_memory memory;

    if (text != NULL)
        return text;
    if (r->rank == 0)
        text = lead(m.replica, l->pipeline);
    else
        WANT_OK(trm_replica_follow(m.replica));
    trm_replica_get_memory(m.replica, &memory);
    if (text == NULL)
        WANT(memory.weights_private > 0);
    unmake(&m);
    return text;
}

START_TEST(layouts)
{
    static const struct layout all[] = {{1, 1}, {2, 1}, {3, 1}, {1, 2},
                                        {1, 3}, {2, 2}, {2, 3}, {3, 2}};
    struct layout l = all[_i];

    run_ranks((struct ranks){.size = l.tensor * l.pipeline, .tensor = l.tensor}, work, &l);
}
END_TEST

/* A rank that dies ends the replica everywhere, with an error and not with a hang. */
static const char *lose(struct rank *r, void *ctx)
{
    const struct layout *l = ctx;
    struct step s = make_step(0);
    trm_tensor in[2], out[2];
    trm_status st = TRM_OK;
    struct made m;
    const char *text = make(r, l, &m);

    if (text != NULL)
        return text;
    if (r->rank == r->size - 1)
        _exit(0);
    if (r->rank == 0) {
        set_inputs(&s, in);
        for (int k = 0; k < 10 && st == TRM_OK; k++)
            st = trm_replica_run(m.replica, in, out);
        WANT(st == TRM_ERR_COMM);
        WANT(trm_replica_run(m.replica, in, out) == TRM_ERR_COMM);
        WANT_OK(trm_replica_stop(m.replica));
    } else {
        WANT(trm_replica_follow(m.replica) == TRM_ERR_COMM);
    }
    unmake(&m);
    return NULL;
}

START_TEST(a_lost_rank)
{
    struct layout l = {_i == 0 ? 2 : 1, _i == 0 ? 1 : 3};

    run_ranks((struct ranks){.size = l.tensor * l.pipeline, .tensor = l.tensor}, lose, &l);
}
END_TEST

/* Memory that the leader does not get fails a step, or breaks the replica at once where others have
 * begun the step; nothing between. */
static const char *starve(struct rank *r, void *ctx)
{
    const struct layout *l = ctx;
    struct step s = make_step(0);
    trm_tensor in[2], out[2];
    struct made m;
    const char *text = make(r, l, &m);

    if (text != NULL)
        return text;
    if (r->rank == 0) {
        set_inputs(&s, in);
        for (int64_t k = 0; k < 200; k++) {
            trm_status st;

            trm_alloc_fail_after(k);
            st = trm_replica_run(m.replica, in, out);
            trm_alloc_fail_after(-1);
            if (st == TRM_OK)
                break;
            WANT(st == TRM_ERR_COMM || st == TRM_ERR_NO_MEMORY);
            st = trm_replica_submit(m.replica, in);
            if (st == TRM_ERR_COMM)
                break;
            WANT_OK(st);
            WANT_OK(trm_replica_collect(m.replica, out));
        }
        WANT_OK(trm_replica_stop(m.replica));
    } else {
        trm_status st = trm_replica_follow(m.replica);

        WANT(st == TRM_OK || (st == TRM_ERR_COMM && strstr(trm_message(), "awaited") == NULL));
    }
    unmake(&m);
    return NULL;
}

START_TEST(a_leader_without_memory)
{
    struct layout l = {_i == 0 ? 2 : 1, _i == 0 ? 1 : 2};

    run_ranks((struct ranks){.size = l.tensor * l.pipeline, .tensor = l.tensor}, starve, &l);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replica");
    TCase *tc = tcase_create("replica");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tc, 110);
    tcase_add_loop_test(tc, layouts, 0, 8);
    tcase_add_loop_test(tc, a_lost_rank, 0, 2);
    tcase_add_loop_test(tc, a_leader_without_memory, 0, 2);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
