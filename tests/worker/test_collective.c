/* Collective operators in the executor: every rank's result against loops over the whole tensor. */
#include "tests/worker/ranks_kit.h"

/* A whole tensor of dims, dealt out along axis in stretches. */
struct deal {
    int rank, axis;
    int64_t dims[4];
    size_t stretches;
    int64_t sizes[3 * RANKS_MAX]; /* [stretch * ranks + r] */
};

/* Deals dims[axis] out: `stretches` of nearly equal size, each unevenly by rank. `unit`: pieces are
 * multiples of it. */
static struct deal make_deal(int rank, const int64_t *dims, int axis, size_t stretches, int ranks,
                             int64_t unit)
{
    struct deal d = {.rank = rank, .axis = axis, .stretches = stretches};
    int64_t left;

    memcpy(d.dims, dims, (size_t)rank * sizeof(*dims));
    left = dims[axis];
    for (size_t s = 0; s < stretches; s++) {
        int64_t all = s + 1 == stretches ? left : dims[axis] / (int64_t)stretches / unit * unit;

        left -= all;
        for (int r = 0; r < ranks; r++)
            d.sizes[s * (size_t)ranks + (size_t)r] =
                (all / unit * (r + 1) / ranks - all / unit * r / ranks) * unit;
        d.sizes[(s + 1) * (size_t)ranks - 1] += all % unit;
    }
    return d;
}

static int64_t part_of(const struct deal *d, int ranks, int r)
{
    int64_t n = 0;

    for (size_t s = 0; s < d->stretches; s++)
        n += d->sizes[s * (size_t)ranks + (size_t)r];
    return n;
}

/* Where element `i` of rank r's part of the dim lies in the whole dim. */
static int64_t whole_index(const struct deal *d, int ranks, int r, int64_t i)
{
    int64_t at = 0;

    for (size_t s = 0; s < d->stretches; s++) {
        for (int q = 0; q < ranks; q++) {
            int64_t n = d->sizes[s * (size_t)ranks + (size_t)q];

            if (q == r && i < n)
                return at + i;
            if (q == r)
                i -= n;
            at += n;
        }
    }
    return -1;
}

/* The part of rank r as a tensor: element = fn(index in the whole tensor). */
static void fill_part(const struct deal *d, int ranks, int r, float *out, float (*fn)(size_t i))
{
    int64_t outer = 1, inner = 1, part = part_of(d, ranks, r), all = d->dims[d->axis];

    for (int i = 0; i < d->axis; i++)
        outer *= d->dims[i];
    for (int i = d->axis + 1; i < d->rank; i++)
        inner *= d->dims[i];
    for (int64_t o = 0; o < outer; o++)
        for (int64_t p = 0; p < part; p++)
            for (int64_t i = 0; i < inner; i++)
                out[(o * part + p) * inner + i] =
                    fn((size_t)((o * all + whole_index(d, ranks, r, p)) * inner + i));
}

static size_t numel(const struct deal *d)
{
    size_t n = 1;

    for (int i = 0; i < d->rank; i++)
        n *= (size_t)d->dims[i];
    return n;
}

static float plus(size_t i)
{
    return fabsf(sample(i)) + 0.5f; /* survives a relu */
}

static float tenth;
static float scaled(size_t i)
{
    return tenth * plus(i);
}

/* x -> Relu -> op -> Neg: producer and reader are kernels. Runs twice. */
static const char *run_one(struct rank *r, trm_op op, const struct deal *d, const struct deal *to,
                           const trm_tensor *x, trm_tensor *y, struct net *net)
{
    trm_graph *g;
    int v, in;

    WANT_OK(trm_graph_create(NULL, "collective", &g));
    in = input(g, "x", TRM_DTYPE_F32, x->rank, x->dims);
    v = node(g, TRM_OP_Relu, &in, 1, "relu");
    v = collective(g, op, v, "c", r->size, r->rank, d->axis,
                   op == TRM_OP_TrmAllReduce ? NULL : d->sizes, d->stretches);
    if (to != NULL) {
        trm_attrs *a = &g->nodes[g->node_count - 1].attrs;

        WANT_OK(trm_attr_set_int(a, g->arena, "axis_to", to->axis));
        WANT_OK(
            trm_attr_set_ints(a, g->arena, "sizes_to", to->sizes, to->stretches * (size_t)r->size));
    }
    v = node(g, TRM_OP_Neg, &v, 1, "y");
    *net = finish_in(r->all, g, &in, 1, &v, 1);
    WANT_OK(trm_engine_run(net->e, x, y));
    WANT_OK(trm_engine_run(net->e, x, y));
    return NULL;
}

static const char *same(const trm_tensor *y, const float *want, size_t n, const char *what,
                        int axis)
{
    const float *got = y->data;

    WANT(trm_tensor_numel(y) == n);
    for (size_t i = 0; i < n; i++)
        if (fabsf(got[i] + want[i]) > 1e-6f)
            return wrong("%s along %d: element %zu is %g, want %g", what, axis, i, (double)got[i],
                         -(double)want[i]);
    return NULL;
}

static const char *try_deal(struct rank *r, const struct deal *d, float *x, float *want)
{
    trm_tensor part = {.dtype = TRM_DTYPE_F32, .rank = d->rank, .data = x}, whole = part, y;
    size_t n = numel(d), mine;
    const char *text;
    struct net net;

    memcpy(part.dims, d->dims, sizeof(d->dims));
    memcpy(whole.dims, d->dims, sizeof(d->dims));
    part.dims[d->axis] = part_of(d, r->size, r->rank);
    mine = trm_tensor_numel(&part);

    fill_part(d, r->size, r->rank, x, plus); /* gather: parts to the whole */
    for (size_t i = 0; i < n; i++)
        want[i] = plus(i);
    if ((text = run_one(r, TRM_OP_TrmAllGather, d, NULL, &part, &y, &net)) != NULL ||
        (text = same(&y, want, n, "gather", d->axis)) != NULL)
        return text;
    drop(net);

    for (size_t i = 0; i < n; i++) /* shard: the whole to parts */
        x[i] = plus(i);
    fill_part(d, r->size, r->rank, want, plus);
    if ((text = run_one(r, TRM_OP_TrmShard, d, NULL, &whole, &y, &net)) != NULL ||
        (text = same(&y, want, mine, "shard", d->axis)) != NULL)
        return text;
    drop(net);

    for (size_t i = 0; i < n; i++) /* rank r has (r + 1) times the numbers */
        x[i] = (float)(r->rank + 1) * plus(i);
    tenth = (float)(r->size * (r->size + 1)) / 2;
    fill_part(d, r->size, r->rank, want, scaled);
    if ((text = run_one(r, TRM_OP_TrmReduceScatter, d, NULL, &whole, &y, &net)) != NULL)
        return text;
    for (size_t i = 0; i < mine; i++)
        if (fabsf(((float *)y.data)[i] + want[i]) > 1e-5f)
            return wrong("reduce-scatter along %d: element %zu", d->axis, i);
    drop(net);
    return NULL;
}

static const char *deals(struct rank *r, void *ctx)
{
    static const int64_t shapes[3][4] = {{3, 14, 5, 1}, {13, 6, 2, 1}, {2, 11, 17, 4}};
    float *x = calloc(2000, sizeof(float)), *want = calloc(2000, sizeof(float));

    (void)ctx;
    for (int s = 0; s < 3; s++) {
        for (int axis = 0; axis < 4; axis++) {
            for (size_t stretches = 1; stretches <= 2; stretches++) {
                struct deal d = make_deal(4, shapes[s], axis, stretches, r->size, 1);
                const char *text;

                if (shapes[s][axis] < (int64_t)stretches * r->size)
                    continue;
                text = try_deal(r, &d, x, want);
                if (text != NULL)
                    return text;
            }
        }
    }
    free(x);
    free(want);
    return NULL;
}

START_TEST(parts_and_wholes)
{
    for (int size = 1; size <= 4; size++)
        run_ranks((struct ranks){.size = size}, deals, NULL);
}
END_TEST

/* Windows far too small: everything goes in pieces. */
START_TEST(in_pieces)
{
    run_ranks((struct ranks){.size = 3, .needs = {.slot_bytes = 64}}, deals, NULL);
}
END_TEST

static const char *reduce(struct rank *r, void *ctx)
{
    float x[1000], want[1000];
    trm_tensor in = {.dtype = TRM_DTYPE_F32, .rank = 2, .dims = {10, 100}, .data = x}, y;
    struct deal none = {.rank = 2};
    const char *text;
    struct net net;

    (void)ctx;
    for (size_t i = 0; i < 1000; i++) {
        double sum = 0;

        for (int q = 0; q < r->size; q++)
            sum += (double)fmaxf(0, sample(i + 1000 * (size_t)q));
        want[i] = (float)sum;
        x[i] = sample(i + 1000 * (size_t)r->rank);
    }
    text = run_one(r, TRM_OP_TrmAllReduce, &none, NULL, &in, &y, &net);
    if (text != NULL || (text = same(&y, want, 1000, "all-reduce", 0)) != NULL)
        return text;
    drop(net);
    return NULL;
}

START_TEST(sums)
{
    for (int size = 1; size <= 4; size++)
        run_ranks((struct ranks){.size = size}, reduce, NULL);
    run_ranks((struct ranks){.size = 2, .needs = {.slot_bytes = 64}}, reduce, NULL);
}
END_TEST

/* Leaf `l` of the sums below; sums in another order have other last bits. */
static float leaf(int l, size_t i)
{
    return (fabsf(sample(i + 977 * (size_t)l)) + 0.01f) * (float)(1 + l % 7 * 13);
}

static float node_of(int lo, int hi, size_t i)
{
    int mid = lo + (hi - lo) / 2;
    volatile float left, right;

    if (hi - lo == 1)
        return leaf(lo, i);
    left = node_of(lo, mid, i);
    right = node_of(mid, hi, i);
    return left + right;
}

/* Nodes of the summation tree, made by a kernel that may write them into the window. */
static const char *tree(struct rank *r, void *ctx)
{
    static const int all[] = {1, 5, 24, 64, 128};
    size_t n = *(const size_t *)ctx;
    float *x = calloc(TRM_TREE_PARTS_MAX * n, sizeof(float));

    for (int k = 0; k < 5; k++) {
        int leaves = all[k] < r->size ? r->size : all[k];
        int first = leaves * r->rank / r->size, count = leaves * (r->rank + 1) / r->size - first;
        trm_tree_part parts[TRM_TREE_PARTS_MAX];
        int mine = trm_tree_parts(first, count, leaves, parts), most = 0, v, in;
        int64_t dims[3] = {mine, 2, (int64_t)n / 2};
        trm_tensor t = {.dtype = TRM_DTYPE_F32,
                        .rank = 3,
                        .dims = {mine, 2, (int64_t)n / 2},
                        .data = x},
                   y;
        struct net net;
        trm_graph *g;
        trm_attrs *a;

        for (int q = 0; q < r->size; q++) {
            trm_tree_part other[TRM_TREE_PARTS_MAX];
            int from = leaves * q / r->size;
            int has = trm_tree_parts(from, leaves * (q + 1) / r->size - from, leaves, other);

            most = has > most ? has : most;
        }
        for (int p = 0; p < mine; p++)
            for (size_t i = 0; i < n; i++)
                x[(size_t)p * n + i] = node_of(parts[p].lo, parts[p].hi, i);
        WANT_OK(trm_graph_create(NULL, "tree", &g));
        in = input(g, "x", TRM_DTYPE_F32, 3, dims);
        v = node(g, TRM_OP_Relu, &in, 1, "relu");
        v = node(g, TRM_OP_TrmReduceTree, &v, 1, "sum");
        a = &g->nodes[g->node_count - 1].attrs;
        WANT_OK(trm_attr_set_int(a, g->arena, "ranks", r->size));
        WANT_OK(trm_attr_set_int(a, g->arena, "rank", r->rank));
        WANT_OK(trm_attr_set_int(a, g->arena, "leaves", leaves));
        WANT_OK(trm_attr_set_int(a, g->arena, "first", first));
        WANT_OK(trm_attr_set_int(a, g->arena, "count", count));
        WANT_OK(trm_attr_set_int(a, g->arena, "most", most));
        v = node(g, TRM_OP_Neg, &v, 1, "y");
        net = finish_in(r->all, g, &in, 1, &v, 1);
        for (int again = 0; again < 3; again++) {
            WANT_OK(trm_engine_run(net.e, &t, &y));
            WANT(y.rank == 2 && trm_tensor_numel(&y) == n);
            for (size_t i = 0; i < n; i++)
                if (((const float *)y.data)[i] != -node_of(0, leaves, i))
                    return wrong("%d leaves: element %zu is %.9g, want %.9g", leaves, i,
                                 (double)((const float *)y.data)[i],
                                 (double)-node_of(0, leaves, i));
        }
        drop(net);
    }
    free(x);
    return NULL;
}

/* In one piece, straight from the window; and in many. */
START_TEST(sums_by_the_tree)
{
    size_t few = 50, many = 9000;

    for (int size = 1; size <= 5; size++) {
        run_ranks((struct ranks){.size = size}, tree, &few);
        run_ranks((struct ranks){.size = size}, tree, &many);
    }
    run_ranks((struct ranks){.size = 3, .needs = {.slot_bytes = 4096}}, tree, &few);
    run_ranks((struct ranks){.size = 3, .needs = {.slot_bytes = 40000}}, tree, &many);
}
END_TEST

static const char *exchange(struct rank *r, void *ctx)
{
    static const int64_t dims[4] = {7, 3, 9, 2};
    float *x = calloc(2000, sizeof(float)), *want = calloc(2000, sizeof(float));

    (void)ctx;
    for (int axis = 0; axis < 3; axis += 2) {
        struct deal from = make_deal(4, dims, axis, 1, r->size, 1);
        struct deal to = make_deal(4, dims, 2 - axis, 2, r->size, 1);
        trm_tensor part = {.dtype = TRM_DTYPE_F32, .rank = 4, .data = x}, y;
        struct net net;
        const char *text;

        memcpy(part.dims, dims, sizeof(dims));
        part.dims[axis] = part_of(&from, r->size, r->rank);
        fill_part(&from, r->size, r->rank, x, plus);
        fill_part(&to, r->size, r->rank, want, plus);
        text = run_one(r, TRM_OP_TrmAllToAll, &from, &to, &part, &y, &net);
        if (text != NULL ||
            (text = same(&y, want, (size_t)(part_of(&to, r->size, r->rank) * dims[axis] * 6),
                         "all-to-all", axis)) != NULL)
            return text;
        drop(net);
    }
    free(x);
    free(want);
    return NULL;
}

START_TEST(from_axis_to_axis)
{
    for (int size = 1; size <= 4; size++)
        run_ranks((struct ranks){.size = size}, exchange, NULL);
    run_ranks((struct ranks){.size = 3, .needs = {.slot_bytes = 64}}, exchange, NULL);
}
END_TEST

/* conv 3x3 over split output channels -> gather -> conv 3x3 over split input channels -> sum,
 * against one rank. Blocked layouts survive where the parts are whole blocks, and ranks whose
 * convolutions prefer different layouts still understand each other. */
static struct net conv_net(struct rank *r, trm_comm *comm, int64_t channels, const float *w1,
                           const float *w2, int64_t unit)
{
    int ranks = comm == NULL ? 1 : r->size, rank = comm == NULL ? 0 : r->rank;
    struct deal d = make_deal(4, (int64_t[]){1, channels, 1, 1}, 1, 1, ranks, unit);
    int64_t mine = d.sizes[rank], begin = 0;
    float *part2 = calloc((size_t)(20 * channels * 9), sizeof(float));
    int64_t pads[4] = {1, 1, 1, 1};
    int args[2], in, v;
    trm_graph *g;

    for (int q = 0; q < rank; q++)
        begin += d.sizes[q];
    for (int64_t o = 0; o < 20; o++)
        memcpy(part2 + o * mine * 9, w2 + (o * channels + begin) * 9,
               (size_t)mine * 9 * sizeof(float));
    ck_assert_int_eq(trm_graph_create(NULL, "convs", &g), TRM_OK);
    in = input(g, "x", TRM_DTYPE_F32, 4, (int64_t[]){2, 8, 9, 9});
    args[0] = in;
    args[1] = constant_f32(g, "w1", 4, (int64_t[]){mine, 8, 3, 3}, w1 + begin * 72);
    v = node(g, TRM_OP_Conv, args, 2, "conv1");
    ck_assert_int_eq(
        trm_attr_set_ints(&g->nodes[g->node_count - 1].attrs, g->arena, "pads", pads, 4), TRM_OK);
    v = node(g, TRM_OP_Relu, &v, 1, "relu1");
    if (comm != NULL) { /* to the whole and back to the part */
        v = collective(g, TRM_OP_TrmAllGather, v, "whole", ranks, rank, 1, d.sizes, 1);
        v = collective(g, TRM_OP_TrmShard, v, "part", ranks, rank, 1, d.sizes, 1);
    }
    args[0] = v;
    args[1] = constant_f32(g, "w2", 4, (int64_t[]){20, mine, 3, 3}, part2);
    v = node(g, TRM_OP_Conv, args, 2, "conv2");
    if (comm != NULL)
        v = collective(g, TRM_OP_TrmAllReduce, v, "sum", ranks, rank, 0, NULL, 0);
    v = node(g, TRM_OP_Sigmoid, &v, 1, "y");
    free(part2);
    return finish_in(comm, g, &in, 1, &v, 1);
}

static const char *convs(struct rank *r, void *ctx)
{
    static const int64_t channels[4] = {64, 50, 19, 33}, units[4] = {16, 1, 1, 16};
    float *x = calloc(2 * 8 * 81, sizeof(float)), *w1 = calloc(64 * 72, sizeof(float)),
          *w2 = calloc(20 * 64 * 9, sizeof(float));
    trm_tensor in = {.dtype = TRM_DTYPE_F32, .rank = 4, .dims = {2, 8, 9, 9}, .data = x}, got, want;

    (void)ctx;
    for (size_t i = 0; i < 2 * 8 * 81; i++)
        x[i] = sample(i);
    for (size_t i = 0; i < 64 * 72; i++)
        w1[i] = sample(i + 5000) / 8;
    for (size_t i = 0; i < 20 * 64 * 9; i++)
        w2[i] = sample(i + 9000) / 16;
    for (int k = 0; k < 4; k++) {
        struct net one = conv_net(r, NULL, channels[k], w1, w2, units[k]);
        struct net many = conv_net(r, r->all, channels[k], w1, w2, units[k]);

        WANT_OK(trm_engine_run(one.e, &in, &want));
        for (int again = 0; again < 2; again++) {
            WANT_OK(trm_engine_run(many.e, &in, &got));
            for (size_t i = 0; i < trm_tensor_numel(&want); i++)
                if (fabsf(((float *)got.data)[i] - ((float *)want.data)[i]) > 1e-5f)
                    return wrong("%d channels: element %zu is %g, want %g", (int)channels[k], i,
                                 (double)((float *)got.data)[i], (double)((float *)want.data)[i]);
        }
        drop(one);
        drop(many);
    }
    free(x);
    free(w1);
    free(w2);
    return NULL;
}

START_TEST(layouts_of_convolutions)
{
    run_ranks((struct ranks){.size = 2}, convs, NULL);
    run_ranks((struct ranks){.size = 3}, convs, NULL);
}
END_TEST

/* One rank's data is bad: all of them fail, and the next step goes on. */
static const char *fails_together(struct rank *r, void *ctx)
{
    float table[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    int64_t at[3] = {1, 2, 3};
    trm_tensor in = {.dtype = TRM_DTYPE_I64, .rank = 1, .dims = {3}, .data = at}, y;
    int args[2], v, x;
    struct net net;
    trm_graph *g;

    (void)ctx;
    WANT_OK(trm_graph_create(NULL, "gather", &g));
    x = input(g, "x", TRM_DTYPE_I64, 1, (int64_t[]){3});
    args[0] = constant_f32(g, "table", 1, (int64_t[]){8}, table);
    args[1] = x;
    v = node(g, TRM_OP_Gather, args, 2, "rows");
    v = collective(g, TRM_OP_TrmAllReduce, v, "sum", r->size, r->rank, 0, NULL, 0);
    v = node(g, TRM_OP_Neg, &v, 1, "y");
    net = finish_in(r->all, g, &x, 1, &v, 1);
    for (int step = 0; step < 4; step++) {
        at[1] = step % 2 == 1 && r->rank == 1 ? 9 : 2;
        if (step % 2 == 1) {
            WANT(trm_engine_run(net.e, &in, &y) != TRM_OK);
            WANT(strstr(trm_message(), "rank 1") != NULL && strstr(trm_message(), "rows") != NULL);
        } else {
            WANT_OK(trm_engine_run(net.e, &in, &y));
            WANT(((float *)y.data)[1] == -2.0f * (float)r->size);
        }
    }
    drop(net);
    return NULL;
}

START_TEST(failures_are_shared)
{
    run_ranks((struct ranks){.size = 2}, fails_together, NULL);
    run_ranks((struct ranks){.size = 4}, fails_together, NULL);
}
END_TEST

static const char *refuses(struct rank *r, void *ctx)
{
    float data[4] = {0};
    trm_tensor in = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {4}, .data = data}, y;
    struct net net;
    trm_graph *g;
    int x, v;

    (void)ctx;
    (void)r;
    WANT_OK(trm_graph_create(NULL, "lonely", &g));
    x = input(g, "x", TRM_DTYPE_F32, 1, (int64_t[]){4});
    v = collective(g, TRM_OP_TrmAllReduce, x, "sum", 2, 0, 0, NULL, 0);
    net = finish_in(NULL, g, &x, 1, &v, 1);
    WANT(trm_engine_run(net.e, &in, &y) == TRM_ERR_INVALID_ARG);
    WANT(strstr(trm_message(), "no group") != NULL);
    drop(net);
    return NULL;
}

START_TEST(no_group)
{
    run_ranks((struct ranks){.size = 1}, refuses, NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("collective");
    TCase *tc = tcase_create("collective");
    SRunner *runner;
    int failed;

    setenv("TRM_DEADLINE_SCALE", "10", 0);
    tcase_set_timeout(tc, 110);
    tcase_add_test(tc, parts_and_wholes);
    tcase_add_test(tc, in_pieces);
    tcase_add_test(tc, sums);
    tcase_add_test(tc, sums_by_the_tree);
    tcase_add_test(tc, from_axis_to_axis);
    tcase_add_test(tc, layouts_of_convolutions);
    tcase_add_test(tc, failures_are_shared);
    tcase_add_test(tc, no_group);
    suite_add_tcase(suite, tc);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
