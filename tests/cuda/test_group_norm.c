/* Sums by the tree with the residual and the norm in one step, in peers' memory: the bits of the
 * sum and then of the device's TrmAddNorm; turns of areas among other sums; what is refused. */
#include "tests/cuda/group_kit.h"

#include "base/tree.h"

typedef enum division { EVEN, STAIRS, FIRST_HAS_ONE } division;
typedef enum sum_place { NO_SUM, APART, IN_RESIDUAL } sum_place;

typedef struct shape {
    const char *name;
    int leaves;
    division how;
    size_t rows, width;
    bool layer, bias;
    float offset;
    sum_place place;
    size_t shift; /* all memory begins so many elements behind an aligned address */
} shape;

typedef struct work {
    const shape *s;
    int counts[RANKS_MAX], parts;
    size_t elems;
    /* device memory: this rank's parts, [rows, width] and [width], results of both ways */
    float *in, *residual, *over, *weight, *bias, *reduced, *want_sum, *want, *sum, *got;
    void *owned[10];
    int owned_count;
    trm_arena *arena;
    trm_attrs attrs;
    trm_kernel *norm;
    float *host;
} work;

static void deal(const shape *s, int size, int *counts)
{
    int left = s->leaves;

    for (int r = 0; r < size; r++) {
        int n = s->leaves / size + (r < s->leaves % size);

        if (s->how == STAIRS)
            n = s->leaves * 2 * (r + 1) / (size * (size + 1));
        else if (s->how == FIRST_HAS_ONE)
            n = r == 0 ? 1 : (s->leaves - 1) / (size - 1);
        n = r + 1 == size || n > left ? left : n;
        counts[r] = n;
        left -= n;
    }
}

/* About [-1, 1), of different sizes. */
static float value(uint32_t seed, size_t i)
{
    uint32_t h = seed * 2654435761u ^ (uint32_t)i * 40503u;

    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return (float)((int32_t)(h & 0xffff) - 32768) / (float)(1 << (15 + (h >> 30)));
}

static int memory(const group_rank *r, work *w, size_t elems, float **p_out)
{
    void *p = NULL;

    RANK_OK(r, r->gpu->ops->alloc(r->gpu, TRM_MEMORY_DEVICE,
                                  (elems + w->s->shift + 16) * sizeof(float), &p));
    w->owned[w->owned_count++] = p;
    *p_out = (float *)p + w->s->shift;
    return 0;
}

static int fill(const group_rank *r, const work *w, float *to, size_t elems, uint32_t seed)
{
    for (size_t i = 0; i < elems; i++)
        w->host[i] = value(seed, i);
    RANK_OK(r, r->gpu->ops->copy_in(r->gpu, NULL, to, w->host, elems * sizeof(float)));
    RANK_OK(r, r->gpu->ops->stream_wait(r->gpu, NULL));
    return 0;
}

static int fill_all(const group_rank *r, const work *w, uint32_t seed)
{
    size_t n = w->s->width;

    return fill(r, w, w->in, w->elems * (size_t)w->parts, seed * 31 + (uint32_t)r->rank) != 0 ||
                   fill(r, w, w->residual, w->elems, seed + 1) != 0 ||
                   fill(r, w, w->over, w->elems, seed + 1) != 0 ||
                   fill(r, w, w->weight, n, seed + 2) != 0 || fill(r, w, w->bias, n, seed + 3) != 0
               ? 1
               : 0;
}

static int prepare_norm(const group_rank *r, work *w)
{
    const shape *s = w->s;
    trm_tensor rows = {
        .dtype = TRM_DTYPE_F32, .rank = 2, .dims = {(int64_t)s->rows, (int64_t)s->width}};
    trm_tensor line = {.dtype = TRM_DTYPE_F32, .rank = 1, .dims = {(int64_t)s->width}};
    trm_tensor in[4] = {rows, rows, line, line}, out[2] = {rows, rows};
    trm_op_desc desc = {.op = TRM_OP_TrmAddNorm,
                        .attrs = &w->attrs,
                        .name = s->name,
                        .input_count = s->bias ? 4 : 3,
                        .output_count = 2,
                        .inputs = in,
                        .outputs = out};

    RANK_OK(r, trm_arena_create(0, &w->arena));
    RANK_OK(r, trm_attr_set_string(&w->attrs, w->arena, "kind", s->layer ? "layer" : "rms"));
    RANK_OK(r, trm_attr_set_float(&w->attrs, w->arena, "epsilon", 1e-4f));
    RANK_OK(r, trm_attr_set_float(&w->attrs, w->arena, "offset", s->offset));
    RANK_OK(r, r->gpu->ops->prepare(r->gpu, &desc, &w->norm));
    return 0;
}

static int open_work(const group_rank *r, work *w, const shape *s, uint32_t seed)
{
    trm_tree_part nodes[TRM_TREE_PARTS_MAX];
    int first = 0;
    size_t most;

    *w = (work){.s = s, .elems = s->rows * s->width};
    deal(s, r->size, w->counts);
    for (int k = 0; k < r->rank; k++)
        first += w->counts[k];
    w->parts = trm_tree_parts(first, w->counts[r->rank], s->leaves, nodes);
    most = w->elems * (size_t)w->parts + s->width;
    w->host = calloc(2 * (most > w->elems ? most : w->elems), sizeof(float));
    if (w->host == NULL)
        return wrong(r, "no memory");
    if (memory(r, w, w->elems * (size_t)w->parts, &w->in) != 0 ||
        memory(r, w, w->elems, &w->residual) != 0 || memory(r, w, w->elems, &w->over) != 0 ||
        memory(r, w, s->width, &w->weight) != 0 || memory(r, w, s->width, &w->bias) != 0 ||
        memory(r, w, w->elems, &w->reduced) != 0 || memory(r, w, w->elems, &w->want_sum) != 0 ||
        memory(r, w, w->elems, &w->want) != 0 || memory(r, w, w->elems, &w->sum) != 0 ||
        memory(r, w, w->elems, &w->got) != 0)
        return 1;
    return prepare_norm(r, w) != 0 || fill_all(r, w, seed) != 0;
}

static void close_work(const group_rank *r, work *w)
{
    for (int i = 0; i < w->owned_count; i++)
        r->gpu->ops->free(r->gpu, TRM_MEMORY_DEVICE, w->owned[i]);
    trm_kernel_destroy(w->norm);
    trm_arena_destroy(w->arena);
    free(w->host);
}

static trm_group_norm norm_of(const work *w)
{
    return (trm_group_norm){.width = w->s->width,
                            .layer = w->s->layer,
                            .epsilon = 1e-4f,
                            .offset = w->s->offset,
                            .residual = w->s->place == IN_RESIDUAL ? w->over : w->residual,
                            .weight = w->weight,
                            .bias = w->s->bias ? w->bias : NULL,
                            .sum = w->s->place == NO_SUM  ? NULL
                                   : w->s->place == APART ? w->sum
                                                          : w->over,
                            .normed = w->got};
}

static trm_status enqueue(group_rank *r, trm_stream *stream, const work *w)
{
    trm_group_norm norm = norm_of(w);

    return r->ops->reduce_tree_norm(r->group, stream, w->in, w->s->rows, w->s->leaves, w->counts,
                                    &norm);
}

static int same(const group_rank *r, const work *w, const float *got, const float *want,
                const char *what)
{
    size_t bytes = w->elems * sizeof(float);
    float *a = w->host, *b = w->host + w->elems;

    RANK_OK(r, r->gpu->ops->copy_out(r->gpu, NULL, a, got, bytes));
    RANK_OK(r, r->gpu->ops->copy_out(r->gpu, NULL, b, want, bytes));
    RANK_OK(r, r->gpu->ops->stream_wait(r->gpu, NULL));
    for (size_t i = 0; i < w->elems; i++)
        if (memcmp(&a[i], &b[i], sizeof(*a)) != 0)
            return wrong(r, "%s: %s: element %zu is %.9g, want %.9g", w->s->name, what, i,
                         (double)a[i], (double)b[i]);
    return 0;
}

/* Against the sum and then the norm, which are other kernels. */
static int check(group_rank *r, const work *w)
{
    const void *in[4] = {w->residual, w->reduced, w->weight, w->bias};
    void *out[2] = {w->want_sum, w->want};
    const float *sum = w->s->place == APART ? w->sum : w->over;

    RANK_OK(r, r->ops->reduce_tree(r->group, NULL, w->in, w->reduced, w->elems, w->s->leaves,
                                   w->counts));
    RANK_OK(r, w->norm->ops->run(w->norm, NULL, in, out, NULL));
    if (same(r, w, w->got, w->want, "normed") != 0)
        return 1;
    return w->s->place != NO_SUM && same(r, w, sum, w->want_sum, "sum") != 0;
}

/* ---- bodies ---- */

static const shape shapes[] = {
    {"one element", 8, EVEN, 3, 1, false, false, 0, APART, 0},
    {"7, unaligned", 16, STAIRS, 5, 7, false, true, 1, APART, 1},
    {"33, layer", 32, EVEN, 4, 33, true, true, 0, IN_RESIDUAL, 0},
    {"64 in two launches", 32, EVEN, 150, 64, false, false, 0, NO_SUM, 0},
    {"1000", 31, FIRST_HAS_ONE, 6, 1000, false, false, 0, APART, 0},
    {"1023", 8, EVEN, 5, 1023, true, false, 0, NO_SUM, 3},
    {"1024, many leaves", 127, FIRST_HAS_ONE, 2, 1024, false, false, 1, IN_RESIDUAL, 0},
    {"1028, a row a block", 32, EVEN, 3, 1028, false, false, 0, IN_RESIDUAL, 0},
    {"1100, uneven", 32, STAIRS, 2, 1100, true, true, 0, APART, 0},
    {"1100, off by one", 32, EVEN, 2, 1100, false, true, 0, APART, 1},
    {"2050", 16, EVEN, 2, 2050, true, true, 0, APART, 0},
    {"2052 in two launches", 16, EVEN, 17, 2052, false, false, 0, APART, 0},
    {"4096", 32, EVEN, 1, 4096, false, false, 0, APART, 0},
    {"8192", 32, EVEN, 1, 8192, false, false, 0, IN_RESIDUAL, 0},
    {"8196", 32, EVEN, 2, 8196, false, true, 0, APART, 0},
    {"8201, layer", 8, EVEN, 1, 8201, true, true, 0, IN_RESIDUAL, 0},
    {"9000, uneven", 6, STAIRS, 1, 9000, false, false, 0, NO_SUM, 0},
    {"16384", 32, EVEN, 1, 16384, false, false, 0, APART, 0},
    {"no rows", 32, EVEN, 0, 64, false, false, 0, APART, 0},
};
#define SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

static int bits(group_rank *r)
{
    for (int i = 0; i < SHAPES; i++) {
        work w;

        size_t elems = shapes[i].rows * shapes[i].width; /* time */

        if ((r->size > 4 && elems > 4096) || (r->size == 3 && elems > 9000 && elems < 16384))
            continue;
        if (open_work(r, &w, &shapes[i], (uint32_t)i * 10) != 0)
            return 1;
        if (r->ops->reduce_tree_norm_rows(r->group, shapes[i].width, shapes[i].leaves, w.counts) <
            shapes[i].rows)
            return wrong(r, "%s: too many rows", shapes[i].name);
        RANK_OK(r, enqueue(r, NULL, &w));
        if (check(r, &w) != 0)
            return 1;
        close_work(r, &w);
    }
    return 0;
}

/* A row has the same bits wherever it lies in a step, and whichever others there are. */
static int rows_alone(group_rank *r)
{
    static const shape all = {"rows", 32, EVEN, 7, 1100, false, true, 0, APART, 0};
    static const shape small = {"small rows", 32, EVEN, 9, 36, true, true, 0, APART, 0};
    const shape *both[] = {&all, &small};

    for (int k = 0; k < 2; k++) {
        shape one = *both[k];
        work w, row;

        one.rows = 1;
        if (open_work(r, &w, both[k], 5) != 0 || open_work(r, &row, &one, 5) != 0)
            return 1;
        RANK_OK(r, enqueue(r, NULL, &w));
        for (size_t i = 0; i < both[k]->rows; i += 2) {
            size_t bytes = one.width * sizeof(float), at = i * one.width;

            for (int p = 0; p < w.parts; p++)
                RANK_OK(r, r->gpu->ops->copy_within(r->gpu, NULL, row.in + (size_t)p * one.width,
                                                    w.in + (size_t)p * w.elems + at, bytes));
            RANK_OK(r,
                    r->gpu->ops->copy_within(r->gpu, NULL, row.residual, w.residual + at, bytes));
            RANK_OK(r, enqueue(r, NULL, &row));
            if (same(r, &row, row.got, w.got + at, "a row alone") != 0 ||
                same(r, &row, row.sum, w.sum + at, "its sum") != 0)
                return 1;
        }
        close_work(r, &w);
        close_work(r, &row);
    }
    return 0;
}

/* One after another without waiting, among other sums, which use the same areas: their turns get
 * out of step with each other. */
static int in_a_row(group_rank *r)
{
    enum { ROUNDS = 18 };
    static shape s[ROUNDS];
    static work w[ROUNDS];

    for (int i = 0; i < ROUNDS; i++) {
        s[i] = (shape){.name = "in a row",
                       .leaves = 8 + i,
                       .how = (division)(i % 3),
                       .rows = (size_t)(i % 4 + 1),
                       .width = (size_t)(i * 977 % 2900 + 1),
                       .place = (sum_place)(i % 3)};
        if (open_work(r, &w[i], &s[i], (uint32_t)i) != 0)
            return 1;
    }
    for (int i = 0; i < ROUNDS; i++) {
        RANK_OK(r, enqueue(r, NULL, &w[i]));
        if (i % 3 == 0)
            RANK_OK(r, r->ops->allreduce(r->group, NULL, w[i].want, w[i].want, w[i].elems,
                                         TRM_DTYPE_F32));
        if (i % 4 == 0)
            RANK_OK(r, r->ops->reduce_tree(r->group, NULL, w[i].in, w[i].want, w[i].elems,
                                           s[i].leaves, w[i].counts));
    }
    for (int i = 0; i < ROUNDS; i++) {
        if (check(r, &w[i]) != 0)
            return 1;
        close_work(r, &w[i]);
    }
    return 0;
}

static int captured(group_rank *r)
{
    static const shape s[] = {{"captured", 32, EVEN, 3, 1100, false, false, 0, APART, 0},
                              {"captured, small", 11, STAIRS, 70, 48, true, true, 0, NO_SUM, 0}};
    const trm_device_ops *ops = r->gpu->ops;
    trm_capture *c = NULL;
    trm_stream *stream = NULL;
    work w[2];

    for (int i = 0; i < 2; i++)
        if (open_work(r, &w[i], &s[i], 0) != 0)
            return 1;
    RANK_OK(r, ops->stream_create(r->gpu, &stream));
    RANK_OK(r, ops->capture_begin(r->gpu, stream));
    for (int i = 0; i < 2; i++)
        RANK_OK(r, enqueue(r, stream, &w[i]));
    RANK_OK(r, ops->capture_end(r->gpu, stream, &c));
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 2; i++)
            if (fill_all(r, &w[i], (uint32_t)(round * 100 + i)) != 0)
                return 1;
        RANK_OK(r, ops->capture_launch(r->gpu, c, stream));
        RANK_OK(r, ops->stream_wait(r->gpu, stream));
        for (int i = 0; i < 2; i++)
            if (check(r, &w[i]) != 0)
                return 1;
    }
    ops->capture_destroy(r->gpu, c);
    ops->stream_destroy(r->gpu, stream);
    for (int i = 0; i < 2; i++)
        close_work(r, &w[i]);
    return 0;
}

static int refused(group_rank *r)
{
    int counts[RANKS_MAX] = {0}, none[RANKS_MAX] = {0};
    shape s = {.leaves = 2 * r->size};
    trm_group_norm norm = {.width = 4096};
    size_t most;

    deal(&s, r->size, counts);
    most = r->ops->reduce_tree_norm_rows(r->group, 4096, s.leaves, counts);
    if ((most > 0) != (r->peers && r->size > 1))
        return wrong(r, "%zu rows", most);
    if (r->ops->reduce_tree_norm_rows(r->group, 16388, s.leaves, counts) != 0 ||
        r->ops->reduce_tree_norm_rows(r->group, 0, s.leaves, counts) != 0 ||
        r->ops->reduce_tree_norm_rows(r->group, 64, s.leaves, none) != 0)
        return wrong(r, "rows too long, none, or of no leaves");
    if (r->ops->reduce_tree_norm(r->group, NULL, r, most + 1, s.leaves, counts, &norm) !=
        TRM_ERR_UNSUPPORTED)
        return wrong(r, "too many rows");
    if (r->ops->reduce_tree_norm(r->group, NULL, r, 1, s.leaves, none, &norm) !=
        TRM_ERR_INVALID_ARG)
        return wrong(r, "nobody has leaves");
    return 0;
}

static char late[] = "TRM_EMU_LATE=1", backwards[] = "TRM_EMU_ORDER=rev",
            leaks[] = "TRM_EMU_LEAKS=1", mixed[] = "TRM_EMU_ORDER=rand:3",
            guard[] = "TRM_EMU_GUARD=1", soon[] = "TRM_GROUP_TIMEOUT_MS=200";

static const struct {
    const char *name;
    group_body body;
    int size;
    bool peers;
    char *settings[4];
} worlds[] = {
    {"bits of 2", bits, 2, true, {leaks, guard, NULL}},
    {"bits of 3", bits, 3, true, {backwards, NULL}},
    {"bits of 4", bits, 4, true, {late, mixed, NULL}},
    {"bits of 8", bits, 8, true, {leaks, NULL}},
    {"rows alone", rows_alone, 2, true, {mixed, NULL}},
    {"in a row", in_a_row, 2, true, {late, guard, NULL}},
    {"in a row, of 4", in_a_row, 4, true, {mixed, NULL}},
    {"captured", captured, 3, true, {leaks, NULL}},
    {"refused", refused, 2, true, {leaks, NULL}},
    {"refused without peers", refused, 2, false, {leaks, NULL}},
    {"refused alone", refused, 1, false, {leaks, NULL}},
};

START_TEST(works)
{
    run_ranks(worlds[_i].name, worlds[_i].size, worlds[_i].peers, true, worlds[_i].body,
              worlds[_i].settings);
}
END_TEST

/* Rank 1 does not come: the kernels of the others end, nothing is written, the group is broken and
 * names it. */
static int peer_is_late(group_rank *r)
{
    static const shape s = {"late", 8, EVEN, 2, 1100, false, false, 0, APART, 0};
    trm_status st = TRM_OK;
    bool ready;
    work w;

    if (open_work(r, &w, &s, 0) != 0)
        return 1;
    if (r->rank != 1) {
        RANK_OK(r, enqueue(r, NULL, &w));
        for (int i = 0; i < 100 && st == TRM_OK; i++) {
            (void)!r->gpu->ops->stream_wait(r->gpu, NULL);
            st = r->ops->poll(r->group, &ready);
            nap_ms(5);
        }
        if (st != TRM_ERR_COMM || strstr(trm_message(), "rank 1 has not come to a sum") == NULL)
            (void)wrong(r, "want COMM, got %s", trm_status_name(st));
    }
    close_work(r, &w);
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
    TCase *t = tcase_create("group norm");
    Suite *s = suite_create("group norm");
    SRunner *r;
    int failed;

    (void)setenv("TRM_EMU_IPC", "1", 1);
    tcase_add_loop_test(t, works, 0, (int)(sizeof(worlds) / sizeof(worlds[0])));
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
