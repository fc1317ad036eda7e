/* Collectives between CUDA devices: every call of the device group on ranks that are processes,
 * with peers' memory and without, against sums on the host; and what happens when one fails. */
#include "tests/cuda/group_kit.h"

#include "base/tensor.h"

typedef struct buffers {
    trm_dtype dtype;
    size_t elems, shift; /* elements that device memory begins behind an aligned address */
    unsigned char *in, *out;
    unsigned char *host;
} buffers;

/* Element i of rank's input: sums of these need more bits than 16-bit floats have, and are exact in
 * fp32 in any order. */
static double value(int rank, size_t i)
{
    return (double)((i * 37 + (size_t)rank * 11) % 61) * 0.25 * (rank % 2 == 0 ? 1 : 64) -
           (double)(i % 7);
}

static trm_tensor view(void *data, trm_dtype dtype, size_t elems)
{
    trm_tensor t = {.dtype = dtype, .rank = 1, .data = data};

    t.dims[0] = (int64_t)elems;
    return t;
}

static double rounded(double x, trm_dtype dtype)
{
    uint64_t bits = 0;
    trm_tensor t = view(&bits, dtype, 1);

    trm_tensor_set_f64(&t, 0, trm_dtype_is_float(dtype) ? x : (double)(int64_t)x);
    return trm_tensor_get_f64(&t, 0);
}

static int make(const group_rank *r, trm_dtype dtype, size_t elems, size_t shift, bool in_place,
                buffers *b)
{
    size_t each = trm_dtype_bytes(dtype), bytes = (elems + shift) * each + 64;
    void *p = NULL;

    *b = (buffers){.dtype = dtype, .elems = elems, .shift = shift};
    RANK_OK(r, r->gpu->ops->alloc(r->gpu, TRM_MEMORY_DEVICE, bytes, &p));
    b->in = (unsigned char *)p + shift * each;
    b->out = b->in;
    if (!in_place) {
        RANK_OK(r, r->gpu->ops->alloc(r->gpu, TRM_MEMORY_DEVICE, bytes, &p));
        b->out = (unsigned char *)p + shift * each;
    }
    b->host = calloc(elems + 1, each);
    return b->host == NULL ? wrong(r, "no memory") : 0;
}

static void drop(const group_rank *r, buffers *b)
{
    size_t off = b->shift * trm_dtype_bytes(b->dtype);

    r->gpu->ops->free(r->gpu, TRM_MEMORY_DEVICE, b->in - off);
    if (b->out != b->in)
        r->gpu->ops->free(r->gpu, TRM_MEMORY_DEVICE, b->out - off);
    free(b->host);
}

/* Fills `in` with this rank's values, from element `first` on. */
static int fill(const group_rank *r, buffers *b, size_t first)
{
    trm_tensor t = view(b->host, b->dtype, b->elems);

    for (size_t i = 0; i < b->elems; i++)
        trm_tensor_set_f64(&t, i, rounded(value(r->rank, first + i), b->dtype));
    RANK_OK(r, r->gpu->ops->copy_in(r->gpu, NULL, b->in, b->host,
                                    b->elems * trm_dtype_bytes(b->dtype)));
    RANK_OK(r, r->gpu->ops->stream_wait(r->gpu, NULL));
    return 0;
}

static double sum_at(const group_rank *r, trm_dtype dtype, size_t i)
{
    float sum = 0;

    for (int k = 0; k < r->size; k++)
        sum += (float)rounded(value(k, i), dtype);
    return rounded((double)sum, dtype);
}

static int fetch(const group_rank *r, buffers *b, const void *from, size_t elems)
{
    RANK_OK(r,
            r->gpu->ops->copy_out(r->gpu, NULL, b->host, from, elems * trm_dtype_bytes(b->dtype)));
    RANK_OK(r, r->gpu->ops->stream_wait(r->gpu, NULL));
    return 0;
}

/* out is the sums of elements first...first + count. */
static int check_sums(const group_rank *r, buffers *b, const char *what, size_t first, size_t count)
{
    trm_tensor t = view(b->host, b->dtype, count);

    if (fetch(r, b, b->out, count) != 0)
        return 1;
    for (size_t i = 0; i < count; i++) {
        double got = trm_tensor_get_f64(&t, i), want = sum_at(r, b->dtype, first + i);

        if (got != want)
            return wrong(r, "%s of %zu %s (shift %zu): element %zu is %g, want %g", what, b->elems,
                         trm_dtype_name(b->dtype), b->shift, i, got, want);
    }
    return 0;
}

static const trm_dtype dtypes[] = {TRM_DTYPE_F32, TRM_DTYPE_F16, TRM_DTYPE_BF16,
                                   TRM_DTYPE_F64, TRM_DTYPE_I32, TRM_DTYPE_I64};
#define DTYPES (sizeof(dtypes) / sizeof(dtypes[0]))

static int allreduce(group_rank *r)
{
    static const size_t counts[] = {0, 1, 7, 8, 300, 2048, 2049, 10007};

    for (size_t k = 0; k < DTYPES * 8 * 2 * 2; k++) {
        size_t elems = counts[k % 8], shift = k / 8 % 2;
        bool in_place = k / 16 % 2 == 1;
        buffers b;

        if (make(r, dtypes[k / 32], elems, shift, in_place, &b) != 0 || fill(r, &b, k) != 0)
            return 1;
        RANK_OK(r, r->ops->allreduce(r->group, NULL, b.in, b.out, elems, b.dtype));
        if (check_sums(r, &b, "a sum", k, elems) != 0)
            return 1;
        drop(r, &b);
    }
    return 0;
}

/* Around the largest sum in one step, the longest from everybody's whole, and the buffer's size. */
static int long_sums(group_rank *r)
{
    static const size_t counts[] = {65536, 65537, 131072, 131073, 300001, (4 << 20) + 9};

    for (size_t k = 0; k < 6 * 2; k++) {
        buffers b;

        if (counts[k / 2] > 1000000 && (k % 2 == 0 || r->size != 2 || r->peers))
            continue; /* once is enough */
        if (make(r, k % 2 == 0 ? TRM_DTYPE_F32 : TRM_DTYPE_BF16, counts[k / 2], 0, k % 3 == 0,
                 &b) != 0 ||
            fill(r, &b, k) != 0)
            return 1;
        RANK_OK(r, r->ops->allreduce(r->group, NULL, b.in, b.out, b.elems, b.dtype));
        if (check_sums(r, &b, "a long sum", k, b.elems) != 0)
            return 1;
        drop(r, &b);
    }
    return 0;
}

/* Sums of changing lengths one after another without waiting, so that slots are used again. */
static int in_a_row(group_rank *r)
{
    enum { ROUNDS = 40 };
    buffers b[ROUNDS];

    for (int i = 0; i < ROUNDS; i++)
        if (make(r, dtypes[i % 3], (size_t)(i * 977 % 9000 + 1), 0, i % 2 == 0, &b[i]) != 0 ||
            fill(r, &b[i], (size_t)i) != 0)
            return 1;
    for (int i = 0; i < ROUNDS; i++)
        RANK_OK(r, r->ops->allreduce(r->group, NULL, b[i].in, b[i].out, b[i].elems, b[i].dtype));
    for (int i = 0; i < ROUNDS; i++) {
        if (check_sums(r, &b[i], "sums in a row", (size_t)i, b[i].elems) != 0)
            return 1;
        drop(r, &b[i]);
    }
    return 0;
}

/* Sums in one step are made in rank order: of these, another order gives another sum. */
static int in_order(group_rank *r)
{
    static const float values[RANKS_MAX] = {1e8f, -1e8f, 3.14f, 1.0f, 2.0f, 1e8f, -1e8f, 0.1f};
    float sum = 0;
    buffers b;

    if (!r->peers)
        return 0;
    if (make(r, TRM_DTYPE_F32, 100, 0, false, &b) != 0)
        return 1;
    for (int k = 0; k < r->size; k++)
        sum += values[k];
    for (size_t i = 0; i < b.elems; i++)
        memcpy(b.host + i * 4, &values[r->rank], 4);
    RANK_OK(r, r->gpu->ops->copy_in(r->gpu, NULL, b.in, b.host, b.elems * 4));
    RANK_OK(r, r->ops->allreduce(r->group, NULL, b.in, b.out, b.elems, b.dtype));
    if (fetch(r, &b, b.out, b.elems) != 0)
        return 1;
    for (size_t i = 0; i < b.elems; i++)
        if (memcmp(b.host + i * 4, &sum, 4) != 0)
            return wrong(r, "element %zu was not added in rank order", i);
    drop(r, &b);
    return 0;
}

/* A capture with a short and a long sum and a gather, run again with other data. */
static int captured(group_rank *r)
{
    const trm_device_ops *ops = r->gpu->ops;
    size_t parts[RANKS_MAX], first = (size_t)r->rank * 50;
    trm_capture *c = NULL;
    trm_stream *s = NULL;
    buffers a, b, all;

    for (int i = 0; i < r->size; i++)
        parts[i] = 50 * 4;
    if (make(r, TRM_DTYPE_BF16, 3000, 0, false, &a) != 0 ||
        make(r, TRM_DTYPE_F32, 100000, 0, true, &b) != 0 ||
        make(r, TRM_DTYPE_F32, 50 * RANKS_MAX, 0, false, &all) != 0)
        return 1;
    RANK_OK(r, ops->stream_create(r->gpu, &s));
    RANK_OK(r, ops->capture_begin(r->gpu, s));
    RANK_OK(r, r->ops->allreduce(r->group, s, a.in, a.out, a.elems, a.dtype));
    RANK_OK(r, r->ops->allreduce(r->group, s, b.in, b.out, b.elems, b.dtype));
    RANK_OK(r, r->ops->allgather(r->group, s, b.in + first * 4, all.out, parts));
    RANK_OK(r, ops->capture_end(r->gpu, s, &c));
    for (size_t round = 0; round < 5; round++) {
        if (fill(r, &a, round) != 0 || fill(r, &b, round + 5) != 0)
            return 1;
        RANK_OK(r, ops->capture_launch(r->gpu, c, s));
        RANK_OK(r, ops->stream_wait(r->gpu, s));
        if (check_sums(r, &a, "a captured sum", round, a.elems) != 0 ||
            check_sums(r, &b, "a captured long sum", round + 5, b.elems) != 0 ||
            check_sums(r, &all, "a captured gather", round + 5, 50 * (size_t)r->size) != 0)
            return 1;
        /* not captured, in between */
        if (fill(r, &a, round + 9) != 0)
            return 1;
        RANK_OK(r, r->ops->allreduce(r->group, NULL, a.in, a.out, a.elems, a.dtype));
        if (check_sums(r, &a, "a sum between captures", round + 9, a.elems) != 0)
            return 1;
    }
    ops->capture_destroy(r->gpu, c);
    ops->stream_destroy(r->gpu, s);
    drop(r, &a);
    drop(r, &b);
    drop(r, &all);
    return 0;
}

/* Elements that rank k has, in one of several divisions. */
static size_t part_of(int division, int k)
{
    static const size_t sizes[][RANKS_MAX] = {{40, 40, 40, 40, 40, 40, 40, 40},
                                              {1, 0, 33, 7, 8, 2, 0, 5},
                                              {0, 300, 0, 1, 0, 0, 9, 0},
                                              {0},
                                              {9000, 9001, 20000, 3, 8, 8, 1, 100}};

    return sizes[division][k];
}
#define DIVISIONS 5

static int allgather(group_rank *r)
{
    for (int d = 0; d < DIVISIONS; d++) {
        size_t bytes[RANKS_MAX], all = 0, at = 0;
        buffers b;
        trm_tensor t;

        for (int k = 0; k < r->size; k++)
            all += bytes[k] = part_of(d, k) * 4;
        if (make(r, TRM_DTYPE_F32, all / 4, 0, false, &b) != 0 || fill(r, &b, 3) != 0)
            return 1;
        RANK_OK(r, r->ops->allgather(r->group, NULL, b.in, b.out, bytes));
        if (fetch(r, &b, b.out, all / 4) != 0)
            return 1;
        t = view(b.host, TRM_DTYPE_F32, all / 4);
        for (int k = 0; k < r->size; at += bytes[k++] / 4)
            for (size_t i = 0; i < bytes[k] / 4; i++)
                if (trm_tensor_get_f64(&t, at + i) != value(k, 3 + i))
                    return wrong(r, "gather %d: element %zu of rank %d", d, i, k);
        drop(r, &b);
    }
    return 0;
}

static int reduce_scatter(group_rank *r)
{
    for (size_t k = 0; k < DTYPES * DIVISIONS; k++) {
        size_t elems[RANKS_MAX], all = 0, mine_at = 0;
        int d = (int)(k % DIVISIONS);
        buffers b;

        for (int i = 0; i < r->size; i++) {
            if (i == r->rank)
                mine_at = all;
            all += elems[i] = part_of(d, i);
        }
        if (make(r, dtypes[k / DIVISIONS], all, k % 2, false, &b) != 0 || fill(r, &b, k) != 0)
            return 1;
        RANK_OK(r, r->ops->reduce_scatter(r->group, NULL, b.in, b.out, elems, b.dtype));
        if (check_sums(r, &b, "a part of a sum", k + mine_at, elems[r->rank]) != 0)
            return 1;
        drop(r, &b);
    }
    return 0;
}

static int alltoall(group_rank *r)
{
    for (int d = 0; d < DIVISIONS; d++) {
        size_t send[RANKS_MAX], receive[RANKS_MAX], sent = 0, came = 0, at = 0;
        buffers b;
        trm_tensor t;

        for (int k = 0; k < r->size; k++) {
            sent += send[k] = part_of(d, (k + r->rank) % r->size) * 4;
            came += receive[k] = part_of(d, (k + r->rank) % r->size) * 4;
        }
        if (make(r, TRM_DTYPE_F32, (sent > came ? sent : came) / 4, 0, false, &b) != 0 ||
            fill(r, &b, 0) != 0)
            return 1;
        RANK_OK(r, r->ops->alltoall(r->group, NULL, b.in, send, b.out, receive));
        if (fetch(r, &b, b.out, came / 4) != 0)
            return 1;
        t = view(b.host, TRM_DTYPE_F32, came / 4);
        for (int k = 0; k < r->size; at += receive[k++] / 4) {
            size_t from = 0; /* of what rank k has for this one */

            for (int i = 0; i < r->rank; i++)
                from += part_of(d, (i + k) % r->size);
            for (size_t i = 0; i < receive[k] / 4; i++)
                if (trm_tensor_get_f64(&t, at + i) != value(k, from + i))
                    return wrong(r, "all-to-all %d: element %zu from rank %d is %g, want %g", d, i,
                                 k, trm_tensor_get_f64(&t, at + i), value(k, from + i));
        }
        drop(r, &b);
    }
    return 0;
}

static int refused(group_rank *r)
{
    if (r->ops->allreduce(r->group, NULL, r, r, 1, TRM_DTYPE_I16) != TRM_ERR_UNSUPPORTED)
        return wrong(r, "a sum of i16");
    return 0;
}

static const struct {
    const char *name;
    group_body body;
} bodies[] = {
    {"allreduce", allreduce},
    {"long sums", long_sums},
    {"in a row", in_a_row},
    {"in order", in_order},
    {"captured", captured},
    {"allgather", allgather},
    {"reduce_scatter", reduce_scatter},
    {"alltoall", alltoall},
    {"refused", refused},
};
#define BODIES ((int)(sizeof(bodies) / sizeof(bodies[0])))

static char late[] = "TRM_EMU_LATE=1", backwards[] = "TRM_EMU_ORDER=rev",
            leaks[] = "TRM_EMU_LEAKS=1", mixed[] = "TRM_EMU_ORDER=rand:3",
            threads[] = "TRM_EMU_THREADS=2", guard[] = "TRM_EMU_GUARD=1";

static const struct {
    int size;
    bool peers;
    char *settings[4];
} worlds[] = {
    {2, true, {leaks, NULL}},       {3, true, {backwards, NULL}},
    {4, true, {late, leaks, NULL}}, {1, false, {leaks, NULL}},
    {2, false, {late, NULL}},       {3, false, {leaks, NULL}},
    {2, true, {late, mixed, NULL}}, {2, true, {threads, guard, NULL}},
};
#define WORLDS ((int)(sizeof(worlds) / sizeof(worlds[0])))

START_TEST(works)
{
    int w = _i / BODIES, k = _i % BODIES;

    run_ranks(bodies[k].name, worlds[w].size, worlds[w].peers, true, bodies[k].body,
              worlds[w].settings);
}
END_TEST

/* ---- what fails ---- */

static int enqueue_sum(group_rank *r, buffers *b)
{
    return make(r, TRM_DTYPE_F32, 100, 0, false, b) != 0 || fill(r, b, 0) != 0;
}

/* The group says COMM, then and later, with `says` in the message. */
static int is_broken(group_rank *r, const char *says)
{
    bool ready;
    trm_status st = TRM_OK;

    for (int i = 0; i < 100 && st == TRM_OK; i++) {
        (void)!r->gpu->ops->stream_wait(r->gpu, NULL);
        st = r->ops->poll(r->group, &ready);
        nap_ms(5);
    }
    if (st != TRM_ERR_COMM || strstr(trm_message(), says) == NULL)
        return wrong(r, "want COMM with '%s', got %s: %s", says, trm_status_name(st),
                     st == TRM_OK ? "" : trm_message());
    if (r->ops->poll(r->group, &ready) != TRM_ERR_COMM)
        return wrong(r, "it is well again");
    return 0;
}

/* Rank 1 does not come to a sum in peers' memory: the kernel ends, and names it. */
static int peer_is_late(group_rank *r)
{
    buffers b;
    int rc = 0;

    if (enqueue_sum(r, &b) != 0)
        return 1;
    if (r->rank != 1) {
        RANK_OK(r, r->ops->allreduce(r->group, NULL, b.in, b.out, b.elems, b.dtype));
        RANK_OK(r, r->ops->allreduce(r->group, NULL, b.in, b.out, b.elems, b.dtype));
        rc = is_broken(r, "rank 1 has not come to a sum within 200 ms");
    }
    drop(r, &b);
    return meet(r) ? rc : 1;
}

/* The second collective of rank 1 fails: it knows, and the others know when it has gone. */
static int collective_fails(group_rank *r)
{
    buffers b;
    trm_status st = TRM_OK;
    int rc;

    if (enqueue_sum(r, &b) != 0)
        return 1;
    for (int i = 0; i < 3 && st == TRM_OK; i++)
        st = r->ops->allreduce(r->group, NULL, b.in, b.out, b.elems, b.dtype);
    rc =
        is_broken(r, r->rank == 1 ? "collective 2 (AllReduce) was made to fail" : "rank 1 is gone");
    drop(r, &b);
    return rc;
}

/* Rank 1 never arrives: the others are not ready, and can go. */
static int never_ready(group_rank *r)
{
    bool ready = false;
    int64_t start;

    if (begin_group(r) != 0)
        return 1;
    RANK_OK(r, poll_for(r, 200, &ready));
    if (ready)
        return wrong(r, "ready without rank 1");
    start = trm_now_us();
    r->ops->destroy(r->group);
    r->group = NULL;
    if (trm_now_us() - start > 1000000)
        return wrong(r, "destroy has waited");
    return meet(r) ? 0 : 1;
}

static int no_library(group_rank *r)
{
    const char *want = getenv("WANT");
    trm_device_group *g = NULL;

    if (r->ops->make_id(r->gpu, r->board->id) != TRM_ERR_UNSUPPORTED ||
        strstr(trm_message(), want) == NULL)
        return wrong(r, "make_id: want '%s', not '%s'", want, trm_message());
    if (r->ops->begin(r->gpu, r->board->id, 0, 1, &g) != TRM_ERR_UNSUPPORTED || g != NULL)
        return wrong(r, "begin");
    return 0;
}

/* Peers' memory cannot be had: the group goes on without. */
static int without_peers(group_rank *r)
{
    unsigned char own[TRM_DEVICE_GROUP_PEER_BYTES];

    if (r->ops->peer_own(r->group, own) != TRM_ERR_UNSUPPORTED)
        return wrong(r, "memory can be shared");
    RANK_OK(r, r->ops->peer_all(r->group, NULL));
    return allreduce(r);
}

static int peers_dropped(group_rank *r)
{
    unsigned char own[TRM_DEVICE_GROUP_PEER_BYTES];

    RANK_OK(r, r->ops->peer_own(r->group, own));
    RANK_OK(r, r->ops->peer_all(r->group, NULL));
    return allreduce(r);
}

static char soon[] = "TRM_GROUP_TIMEOUT_MS=200", fault[] = "TRM_EMU_NCCL_FAULT=2:1",
            init[] = "TRM_EMU_NCCL_FAULT=init:1", none[] = "TRM_NCCL_LIBRARY=/nowhere/libnccl.so.2",
            other[] = "TRM_NCCL_LIBRARY=libm.so.6", want_none[] = "WANT=/nowhere/libnccl.so.2",
            want_other[] = "WANT=libm.so.6 has no ncclGetVersion", no_ipc[] = "TRM_EMU_IPC=0";

static const struct {
    const char *name;
    int size;
    bool peers, joins;
    group_body body;
    char *settings[4];
} faults[] = {
    {"a peer is late", 3, true, true, peer_is_late, {soon, leaks, NULL}},
    {"a peer is late, late", 2, true, true, peer_is_late, {soon, late, NULL}},
    {"a collective fails", 3, false, true, collective_fails, {fault, leaks, NULL}},
    {"a rank never arrives", 3, false, false, never_ready, {init, leaks, NULL}},
    {"no library", 1, false, false, no_library, {none, want_none, NULL}},
    {"another library", 1, false, false, no_library, {other, want_other, NULL}},
    {"no peers", 2, false, true, without_peers, {no_ipc, leaks, NULL}},
    {"peers are dropped", 2, false, true, peers_dropped, {leaks, NULL}},
};

START_TEST(fails)
{
    run_ranks(faults[_i].name, faults[_i].size, faults[_i].peers, faults[_i].joins, faults[_i].body,
              faults[_i].settings);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("group");
    Suite *s = suite_create("group");
    SRunner *r;
    int failed;

    if (getenv("TRM_CUDA_DRIVER") == NULL) /* several GPUs, in faultless order */
        fprintf(stderr, "group: on real devices: one for each rank\n");
    (void)setenv("TRM_EMU_IPC", "1", 1);
    tcase_add_loop_test(t, works, 0, WORLDS * BODIES);
    if (getenv("TRM_CUDA_DRIVER") != NULL)
        tcase_add_loop_test(t, fails, 0, sizeof(faults) / sizeof(faults[0]));
    tcase_set_timeout(t, 120);
    suite_add_tcase(s, t);
    r = srunner_create(s);
    srunner_set_fork_status(r, CK_NOFORK);
    srunner_run_all(r, CK_NORMAL);
    failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
