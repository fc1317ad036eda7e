/* Sums by the summation tree between CUDA devices: the bits of one rank that has all leaves,
 * however they are dealt out, in peers' memory and through NCCL, in one step and in two. */
#include "base/tree.h"
#include "tests/cuda/group_kit.h"

#include <math.h>

/* ---- leaves ---- */

/* Element i of a leaf: of very different sizes, so that another order of additions gives other
 * bits.
 */
static float value(int leaf, size_t i, int seed)
{
    uint32_t h = (uint32_t)leaf * 2654435761u ^ (uint32_t)i * 40503u ^ (uint32_t)seed * 97u;

    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return ldexpf((float)(int32_t)(h & 0xffffff) - 8388608.0f, (int)(h >> 27) - 24);
}

static uint32_t bits_of(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    return u;
}

/* Leaves [first, first + count) summed as one who has them does; parts at out + p * stride. */
static int sum_leaves(int first, int count, int leaves, size_t i, int seed, size_t stride,
                      float *out)
{
    unsigned char merges[TRM_TREE_LEAVES_MAX];
    float stack[TRM_TREE_PARTS_MAX + TRM_TREE_DEPTH_MAX] = {0};
    int top = 0;

    trm_tree_merges(first, count, leaves, merges);
    for (int k = 0; k < count; k++) {
        stack[top++] = value(first + k, i, seed);
        for (int m = merges[k]; m > 0; m--, top--)
            stack[top - 2] += stack[top - 1];
    }
    for (int p = 0; p < top; p++)
        out[(size_t)p * stride] = stack[p];
    return top;
}

/* How leaves are dealt out. */
typedef enum division { EVEN, STAIRS, FIRST_HAS_ONE, MIDDLE_HAS_NONE } division;

static void deal(division how, int leaves, int size, int *counts)
{
    int left = leaves;

    for (int r = 0; r < size; r++) {
        int n = leaves / size + (r < leaves % size);

        if (how == STAIRS)
            n = leaves * 2 * (r + 1) / (size * (size + 1));
        else if (how == FIRST_HAS_ONE && size > 1)
            n = r == 0 ? 1 : (leaves - 1) / (size - 1);
        else if (how == MIDDLE_HAS_NONE && size > 2)
            n = r == 1 ? 0 : leaves / (size - 1);
        n = r + 1 == size || n > left ? left : n;
        counts[r] = n;
        left -= n;
    }
}

/* ---- a sum ---- */

typedef struct sum {
    int leaves, counts[RANKS_MAX], first, parts;
    size_t elems, shift;
    float *in, *out; /* device memory, `shift` elements behind an aligned address */
    float *host;
} sum;

static int open_sum(const group_rank *r, sum *s, int leaves, division how, size_t elems,
                    size_t shift)
{
    trm_tree_part nodes[TRM_TREE_PARTS_MAX];
    void *p = NULL;

    *s = (sum){.leaves = leaves, .elems = elems, .shift = shift};
    deal(how, leaves, r->size, s->counts);
    for (int k = 0; k < r->rank; k++)
        s->first += s->counts[k];
    s->parts = trm_tree_parts(s->first, s->counts[r->rank], leaves, nodes);
    RANK_OK(r, r->gpu->ops->alloc(r->gpu, TRM_MEMORY_DEVICE,
                                  ((size_t)s->parts * elems + shift + 16) * sizeof(float), &p));
    s->in = (float *)p + shift;
    RANK_OK(
        r, r->gpu->ops->alloc(r->gpu, TRM_MEMORY_DEVICE, (elems + shift + 16) * sizeof(float), &p));
    s->out = (float *)p + shift;
    s->host = calloc(((size_t)s->parts + 1) * elems + 1, sizeof(float));
    return s->host == NULL ? wrong(r, "no memory") : 0;
}

static void close_sum(const group_rank *r, sum *s)
{
    r->gpu->ops->free(r->gpu, TRM_MEMORY_DEVICE, s->in - s->shift);
    r->gpu->ops->free(r->gpu, TRM_MEMORY_DEVICE, s->out - s->shift);
    free(s->host);
}

static int fill(const group_rank *r, sum *s, int seed)
{
    for (size_t i = 0; i < s->elems; i++)
        (void)sum_leaves(s->first, s->counts[r->rank], s->leaves, i, seed, s->elems, s->host + i);
    RANK_OK(r, r->gpu->ops->copy_in(r->gpu, NULL, s->in, s->host,
                                    (size_t)s->parts * s->elems * sizeof(float)));
    RANK_OK(r, r->gpu->ops->fill_zero(r->gpu, NULL, s->out, s->elems * sizeof(float)));
    RANK_OK(r, r->gpu->ops->stream_wait(r->gpu, NULL));
    return 0;
}

static trm_status enqueue(group_rank *r, trm_stream *stream, const sum *s)
{
    return r->ops->reduce_tree(r->group, stream, s->in, s->out, s->elems, s->leaves, s->counts);
}

static int check(const group_rank *r, sum *s, int seed, const char *what)
{
    RANK_OK(r, r->gpu->ops->copy_out(r->gpu, NULL, s->host, s->out, s->elems * sizeof(float)));
    RANK_OK(r, r->gpu->ops->stream_wait(r->gpu, NULL));
    for (size_t i = 0; i < s->elems; i++) {
        float want;

        (void)sum_leaves(0, s->leaves, s->leaves, i, seed, 1, &want);
        if (bits_of(want) != bits_of(s->host[i]))
            return wrong(r, "%s: %d leaves, %zu elements: element %zu is %.9g, want %.9g", what,
                         s->leaves, s->elems, i, (double)s->host[i], (double)want);
    }
    return 0;
}

/* ---- bodies ---- */

static int divisions(group_rank *r)
{
    static const struct {
        int leaves;
        division how;
        size_t elems, shift;
    } rows[] = {
        {1, EVEN, 40, 0},       {2, EVEN, 4096, 0},           {8, EVEN, 1, 0},
        {8, EVEN, 0, 0},        {16, STAIRS, 7, 0},           {32, EVEN, 4097, 1},
        {32, STAIRS, 2048, 0},  {28, FIRST_HAS_ONE, 300, 0},  {31, MIDDLE_HAS_NONE, 2049, 3},
        {128, STAIRS, 1000, 0}, {127, FIRST_HAS_ONE, 513, 0}, {3, EVEN, 9001, 0},
    };

    for (int i = 0; i < (int)(sizeof(rows) / sizeof(rows[0])); i++) {
        sum s;

        if (open_sum(r, &s, rows[i].leaves, rows[i].how, rows[i].elems, rows[i].shift) != 0 ||
            fill(r, &s, i) != 0)
            return 1;
        RANK_OK(r, enqueue(r, NULL, &s));
        if (check(r, &s, i, "divisions") != 0)
            return 1;
        close_sum(r, &s);
    }
    return 0;
}

/* Several launches in peers' memory, and more than those; a whole that does not fit into a message,
 * and slices that do not fit into the buffer at once. */
static int long_sums(group_rank *r)
{
    static const struct {
        int leaves;
        division how;
        size_t elems;
        bool once;
    } rows[] = {
        {4, EVEN, 65540, false},
        {13, STAIRS, 70001, false},
        {31, FIRST_HAS_ONE, 480001, true},
    };

    for (int i = 0; i < 3; i++) {
        sum s;

        if (rows[i].once && (r->peers || r->size != 2))
            continue;
        if (open_sum(r, &s, rows[i].leaves, rows[i].how, rows[i].elems, 0) != 0 ||
            fill(r, &s, i) != 0)
            return 1;
        RANK_OK(r, enqueue(r, NULL, &s));
        if (check(r, &s, i, "long sums") != 0)
            return 1;
        close_sum(r, &s);
    }
    return 0;
}

/* One after another without waiting, among plain sums, which use the same slots. */
static int in_a_row(group_rank *r)
{
    enum { ROUNDS = 24 };
    sum s[ROUNDS], plain;

    if (open_sum(r, &plain, 1, EVEN, 3000, 0) != 0)
        return 1;
    for (int i = 0; i < ROUNDS; i++)
        if (open_sum(r, &s[i], 5 + i, (division)(i % 4), (size_t)(i * 977 % 5000 + 1), 0) != 0 ||
            fill(r, &s[i], i) != 0)
            return 1;
    for (int i = 0; i < ROUNDS; i++) {
        RANK_OK(r, enqueue(r, NULL, &s[i]));
        if (i % 3 == 0)
            RANK_OK(r, r->ops->allreduce(r->group, NULL, plain.out, plain.out, plain.elems,
                                         TRM_DTYPE_F32));
    }
    for (int i = 0; i < ROUNDS; i++) {
        if (check(r, &s[i], i, "in a row") != 0)
            return 1;
        close_sum(r, &s[i]);
    }
    close_sum(r, &plain);
    return 0;
}

static int captured(group_rank *r)
{
    const trm_device_ops *ops = r->gpu->ops;
    trm_capture *c = NULL;
    trm_stream *stream = NULL;
    sum a, b;

    if (open_sum(r, &a, 32, EVEN, 3000, 0) != 0 || open_sum(r, &b, 11, STAIRS, 70000, 0) != 0)
        return 1;
    RANK_OK(r, ops->stream_create(r->gpu, &stream));
    RANK_OK(r, ops->capture_begin(r->gpu, stream));
    RANK_OK(r, enqueue(r, stream, &a));
    RANK_OK(r, enqueue(r, stream, &b));
    RANK_OK(r, ops->capture_end(r->gpu, stream, &c));
    for (int round = 0; round < 3; round++) {
        if (fill(r, &a, round) != 0 || fill(r, &b, round + 5) != 0)
            return 1;
        RANK_OK(r, ops->capture_launch(r->gpu, c, stream));
        RANK_OK(r, ops->stream_wait(r->gpu, stream));
        if (check(r, &a, round, "captured") != 0 || check(r, &b, round + 5, "captured") != 0)
            return 1;
    }
    ops->capture_destroy(r->gpu, c);
    ops->stream_destroy(r->gpu, stream);
    close_sum(r, &a);
    close_sum(r, &b);
    return 0;
}

static int refused(group_rank *r)
{
    int none[RANKS_MAX] = {0}, many[RANKS_MAX] = {9};

    if (r->ops->reduce_tree(r->group, NULL, r, r, 4, 8, none) != TRM_ERR_INVALID_ARG ||
        strstr(trm_message(), "0 of 8 leaves") == NULL)
        return wrong(r, "nobody has leaves");
    if (r->ops->reduce_tree(r->group, NULL, r, r, 4, 8, many) != TRM_ERR_INVALID_ARG)
        return wrong(r, "nine of eight leaves");
    if (r->ops->reduce_tree(r->group, NULL, r, r, 4, TRM_TREE_LEAVES_MAX + 1, many) !=
        TRM_ERR_INVALID_ARG)
        return wrong(r, "too many leaves");
    return 0;
}

static const struct {
    const char *name;
    group_body body;
} bodies[] = {
    {"divisions", divisions}, {"long sums", long_sums}, {"in a row", in_a_row},
    {"captured", captured},   {"refused", refused},
};
#define BODIES ((int)(sizeof(bodies) / sizeof(bodies[0])))

static char late[] = "TRM_EMU_LATE=1", backwards[] = "TRM_EMU_ORDER=rev",
            leaks[] = "TRM_EMU_LEAKS=1", mixed[] = "TRM_EMU_ORDER=rand:3",
            guard[] = "TRM_EMU_GUARD=1", soon[] = "TRM_GROUP_TIMEOUT_MS=200";

static const struct {
    int size;
    bool peers;
    char *settings[4];
} worlds[] = {
    {2, true, {leaks, NULL}},       {3, true, {backwards, guard, NULL}},
    {4, true, {late, mixed, NULL}}, {1, false, {leaks, NULL}},
    {2, false, {late, NULL}},       {3, false, {leaks, NULL}},
};
#define WORLDS ((int)(sizeof(worlds) / sizeof(worlds[0])))

START_TEST(works)
{
    int w = _i / BODIES, k = _i % BODIES;

    run_ranks(bodies[k].name, worlds[w].size, worlds[w].peers, true, bodies[k].body,
              worlds[w].settings);
}
END_TEST

/* Rank 1 does not come: the kernels of the others end, the group is broken and names it. */
static int peer_is_late(group_rank *r)
{
    trm_status st = TRM_OK;
    bool ready;
    sum s;

    if (open_sum(r, &s, 8, EVEN, 100, 0) != 0 || fill(r, &s, 0) != 0)
        return 1;
    if (r->rank != 1) {
        RANK_OK(r, enqueue(r, NULL, &s));
        for (int i = 0; i < 100 && st == TRM_OK; i++) {
            (void)!r->gpu->ops->stream_wait(r->gpu, NULL);
            st = r->ops->poll(r->group, &ready);
            nap_ms(5);
        }
        if (st != TRM_ERR_COMM || strstr(trm_message(), "rank 1 has not come to a sum") == NULL)
            (void)wrong(r, "want COMM, got %s", trm_status_name(st));
    }
    close_sum(r, &s);
    return meet(r) ? 0 : 1;
}

START_TEST(fails)
{
    char *settings[] = {soon, leaks, NULL};

    run_ranks("a peer is late", 3, true, true, peer_is_late, settings);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("group tree");
    Suite *s = suite_create("group tree");
    SRunner *r;
    int failed;

    (void)setenv("TRM_EMU_IPC", "1", 1);
    tcase_add_loop_test(t, works, 0, WORLDS * BODIES);
    if (getenv("TRM_CUDA_DRIVER") != NULL)
        tcase_add_test(t, fails);
    tcase_set_timeout(t, 120);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
