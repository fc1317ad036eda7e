/* What any communicator of any row must do, checked against scalar loops: used by the suite over
 * forked ranks and by the driver under mpirun. A check runs on every rank of the group with the
 * same arguments and returns NULL, or what was wrong. */
#ifndef TRM_TESTS_COMM_CHECKS_H
#define TRM_TESTS_COMM_CHECKS_H

#include "base/memory.h"
#include "parallel/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static _Thread_local char comm_wrong[2048];

static const char *comm_say(const char *what, int line, const char *more)
{
    snprintf(comm_wrong, sizeof(comm_wrong), "line %d: %s %s", line, what, more);
    return comm_wrong;
}

#define WANT(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return comm_say(#cond, __LINE__, "");                                                  \
    } while (0)
#define WANT_OK(call)                                                                              \
    do {                                                                                           \
        if ((call) != TRM_OK)                                                                      \
            return comm_say(#call, __LINE__, trm_message());                                       \
    } while (0)

static uint32_t comm_hash(uint32_t a, uint32_t b)
{
    uint32_t h = a * 2654435761u ^ (b + 0x9e3779b9u) * 2246822519u;

    h ^= h >> 15;
    h *= 3266489917u;
    return h ^ (h >> 13);
}

/* element i of rank r's vector: differs in exponent, so that another order of addition shows */
static double comm_value(int r, size_t i)
{
    uint32_t h = comm_hash((uint32_t)r + 1, (uint32_t)i);

    return ((double)(h & 0xffff) - 32768.0) / 1024.0 * (double)(1 << (h >> 28));
}

static void comm_fill(trm_dtype dtype, int r, size_t from, size_t n, void *out)
{
    for (size_t i = 0; i < n; i++) {
        double v = comm_value(r, from + i);

        switch (dtype) {
        case TRM_DTYPE_F32:
            ((float *)out)[i] = (float)v;
            break;
        case TRM_DTYPE_F64:
            ((double *)out)[i] = v / 3;
            break;
        case TRM_DTYPE_F16:
            ((uint16_t *)out)[i] = trm_f32_to_f16((float)(v / 4096));
            break;
        case TRM_DTYPE_BF16:
            ((uint16_t *)out)[i] = trm_f32_to_bf16((float)v);
            break;
        case TRM_DTYPE_I32:
            ((int32_t *)out)[i] = (int32_t)(v * 1000);
            break;
        default:
            ((int64_t *)out)[i] = (int64_t)(v * 1e9);
            break;
        }
    }
}

/* one element of the reduction over `size` ranks, in rank order, as a scalar program says it */
static void comm_reduced(trm_dtype dtype, trm_reduction how, int size, size_t i, void *out)
{
    union {
        float f;
        double d;
        uint16_t h;
        int32_t i;
        int64_t l;
    } v, a = {.l = 0};
    float acc = 0;

    for (int r = 0; r < size; r++) {
        comm_fill(dtype, r, i, 1, &v);
        if (dtype == TRM_DTYPE_F16 || dtype == TRM_DTYPE_BF16) {
            float w = dtype == TRM_DTYPE_F16 ? trm_f16_to_f32(v.h) : trm_bf16_to_f32(v.h);

            acc = r == 0 ? w : how == TRM_REDUCE_SUM ? acc + w : w > acc ? w : acc;
            continue;
        }
        if (r == 0)
            a = v;
        else if (how == TRM_REDUCE_MAX)
            a = dtype == TRM_DTYPE_F32   ? (v.f > a.f ? v : a)
                : dtype == TRM_DTYPE_F64 ? (v.d > a.d ? v : a)
                : dtype == TRM_DTYPE_I32 ? (v.i > a.i ? v : a)
                                         : (v.l > a.l ? v : a);
        else if (dtype == TRM_DTYPE_F32)
            a.f += v.f;
        else if (dtype == TRM_DTYPE_F64)
            a.d += v.d;
        else if (dtype == TRM_DTYPE_I32)
            a.i = (int32_t)((uint32_t)a.i + (uint32_t)v.i);
        else
            a.l = (int64_t)((uint64_t)a.l + (uint64_t)v.l);
    }
    if (dtype == TRM_DTYPE_F16)
        a.h = trm_f32_to_f16(acc);
    if (dtype == TRM_DTYPE_BF16)
        a.h = trm_f32_to_bf16(acc);
    memcpy(out, &a, trm_dtype_bytes(dtype));
}

static const trm_dtype comm_dtypes[] = {TRM_DTYPE_F32,  TRM_DTYPE_F64, TRM_DTYPE_F16,
                                        TRM_DTYPE_BF16, TRM_DTYPE_I32, TRM_DTYPE_I64};
/* the last two exceed slots of 64 KiB; 20011 floats exceed what one rank adds up alone */
static const size_t comm_sizes[] = {0, 1, 7, 1000, 20011, 50001};
#define COMM_MOST ((size_t)50001)
#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))

static const char *check_allreduce(trm_comm *c)
{
    int size = trm_comm_size(c), rank = trm_comm_rank(c);
    char *in = malloc(COMM_MOST * 8), *out = malloc(COMM_MOST * 8), *want = malloc(COMM_MOST * 8);

    for (size_t d = 0; d < COUNT_OF(comm_dtypes); d++)
        for (size_t k = 0; k < COUNT_OF(comm_sizes); k++)
            for (int how = 0; how < 2; how++) {
                trm_dtype dtype = comm_dtypes[d];
                size_t n = comm_sizes[k], unit = trm_dtype_bytes(dtype);
                void *slot = NULL;

                for (size_t i = 0; i < n; i++)
                    comm_reduced(dtype, (trm_reduction)how, size, i, want + i * unit);
                comm_fill(dtype, rank, 0, n, in);
                memset(out, 0x55, n * unit);
                WANT_OK(trm_comm_allreduce(c, in, out, n, dtype, (trm_reduction)how));
                WANT(memcmp(out, want, n * unit) == 0);
                /* in place */
                WANT_OK(trm_comm_allreduce(c, in, in, n, dtype, (trm_reduction)how));
                WANT(memcmp(in, want, n * unit) == 0);
                /* written where it is read from */
                WANT_OK(trm_comm_slot_get(c, n * unit, &slot));
                WANT(slot == NULL || (uintptr_t)slot % TRM_ALIGN == 0);
                comm_fill(dtype, rank, 0, n, slot != NULL ? slot : in);
                memset(out, 0x55, n * unit);
                WANT_OK(trm_comm_allreduce(c, slot != NULL ? slot : in, out, n, dtype,
                                           (trm_reduction)how));
                WANT(memcmp(out, want, n * unit) == 0);
            }
    free(in);
    free(out);
    free(want);
    WANT(trm_comm_allreduce(c, &size, &size, 1, TRM_DTYPE_U8, TRM_REDUCE_SUM) ==
         TRM_ERR_UNSUPPORTED);
    return NULL;
}

/* parts of all sizes, also none */
static size_t comm_part(size_t scale, int r, int size)
{
    return r % 3 == 1 && size > 2 ? 0 : scale * (size_t)(r + 1) + (size_t)r;
}

static const char *check_allgather(trm_comm *c)
{
    int size = trm_comm_size(c), rank = trm_comm_rank(c);
    size_t bytes[TRM_COMM_RANKS_MAX];

    for (size_t scale = 0; scale <= 100000; scale = scale * 10 + 1) {
        size_t total = 0, at = 0;
        char *in, *out;

        for (int r = 0; r < size; r++)
            total += bytes[r] = comm_part(scale, r, size);
        in = malloc(bytes[rank] + 1);
        out = malloc(total + 1);
        for (size_t i = 0; i < bytes[rank]; i++)
            in[i] = (char)comm_hash((uint32_t)rank, (uint32_t)i);
        out[total] = 77;
        WANT_OK(trm_comm_allgather(c, in, out, bytes));
        for (int r = 0; r < size; r++)
            for (size_t i = 0; i < bytes[r]; i++)
                WANT(out[at++] == (char)comm_hash((uint32_t)r, (uint32_t)i));
        WANT(out[total] == 77);
        free(in);
        free(out);
    }
    return NULL;
}

static const char *check_reduce_scatter(trm_comm *c)
{
    int size = trm_comm_size(c), rank = trm_comm_rank(c);
    size_t elems[TRM_COMM_RANKS_MAX];

    for (size_t d = 0; d < COUNT_OF(comm_dtypes); d++)
        for (size_t scale = 0; scale <= 10000; scale = scale * 10 + 1) {
            size_t total = 0, begin = 0, unit = trm_dtype_bytes(comm_dtypes[d]);
            char *in, *out, want[8];

            for (int r = 0; r < size; r++) {
                begin += r < rank ? comm_part(scale, r, size) : 0;
                total += elems[r] = comm_part(scale, r, size);
            }
            in = malloc(total * unit + 1);
            out = malloc(elems[rank] * unit + 1);
            comm_fill(comm_dtypes[d], rank, 0, total, in);
            WANT_OK(trm_comm_reduce_scatter(c, in, out, elems, comm_dtypes[d]));
            for (size_t i = 0; i < elems[rank]; i++) {
                comm_reduced(comm_dtypes[d], TRM_REDUCE_SUM, size, begin + i, want);
                WANT(memcmp(out + i * unit, want, unit) == 0);
            }
            free(in);
            free(out);
        }
    return NULL;
}

static size_t comm_between(size_t scale, int from, int to)
{
    return (from + 2 * to) % 4 == 3 ? 0 : scale * (size_t)(1 + from) + (size_t)(3 * to);
}

static const char *check_alltoall(trm_comm *c)
{
    int size = trm_comm_size(c), rank = trm_comm_rank(c);
    size_t sent[TRM_COMM_RANKS_MAX], got[TRM_COMM_RANKS_MAX];

    for (size_t scale = 0; scale <= 100000; scale = scale * 10 + 1) {
        size_t out_bytes = 0, in_bytes = 0, at = 0;
        char *in, *out;

        for (int r = 0; r < size; r++) {
            in_bytes += sent[r] = comm_between(scale, rank, r);
            out_bytes += got[r] = comm_between(scale, r, rank);
        }
        in = malloc(in_bytes + 1);
        out = malloc(out_bytes + 1);
        for (int r = 0; r < size; r++)
            for (size_t i = 0; i < sent[r]; i++)
                in[at++] = (char)comm_hash((uint32_t)(rank * 100 + r), (uint32_t)i);
        WANT_OK(trm_comm_alltoall(c, in, sent, out, got));
        at = 0;
        for (int r = 0; r < size; r++)
            for (size_t i = 0; i < got[r]; i++)
                WANT(out[at++] == (char)comm_hash((uint32_t)(r * 100 + rank), (uint32_t)i));
        free(in);
        free(out);
    }
    return NULL;
}

static const char *check_exchange(trm_comm *c)
{
    int size = trm_comm_size(c), rank = trm_comm_rank(c);
    size_t bytes[TRM_COMM_RANKS_MAX];
    const void *peers[TRM_COMM_RANKS_MAX];
    char own[2][5000];

    for (int turn = 0; turn < 20; turn++) {
        void *slot = NULL;
        char *in = own[turn & 1];

        for (int r = 0; r < size; r++)
            bytes[r] = (size_t)((turn * 37 + r * 1001) % 4999);
        if (turn % 3 != 0)
            WANT_OK(trm_comm_slot_get(c, bytes[rank], &slot));
        in = slot != NULL ? slot : in;
        for (size_t i = 0; i < bytes[rank]; i++)
            in[i] = (char)comm_hash((uint32_t)(turn * 100 + rank), (uint32_t)i);
        WANT_OK(trm_comm_exchange(c, in, bytes, peers));
        if (rank == turn % size)
            usleep(500); /* the others are well into the next turn */
        for (int r = 0; r < size; r++)
            for (size_t i = 0; i < bytes[r]; i++)
                WANT(((const char *)peers[r])[i] ==
                     (char)comm_hash((uint32_t)(turn * 100 + r), (uint32_t)i));
    }
    if (trm_comm_slot_bytes(c) < SIZE_MAX / 4) {
        for (int r = 0; r < size; r++)
            bytes[r] = r == size - 1 ? trm_comm_slot_bytes(c) + 1 : 1;
        WANT(trm_comm_exchange(c, own, bytes, peers) == TRM_ERR_INVALID_ARG);
        WANT_OK(trm_comm_barrier(c)); /* refused on all, and alive */
    }
    return NULL;
}

static const char *check_broadcast(trm_comm *c)
{
    int size = trm_comm_size(c), rank = trm_comm_rank(c);

    for (int root = 0; root < size; root++)
        for (size_t bytes = 0; bytes <= 200000; bytes = bytes * 9 + 1) {
            char *data = malloc(bytes + 1);

            for (size_t i = 0; i < bytes; i++)
                data[i] = rank == root ? (char)comm_hash((uint32_t)root, (uint32_t)i) : (char)0;
            data[bytes] = 77;
            WANT_OK(trm_comm_broadcast(c, data, bytes, root));
            for (size_t i = 0; i < bytes; i++)
                WANT(data[i] == (char)comm_hash((uint32_t)root, (uint32_t)i));
            WANT(data[bytes] == 77);
            free(data);
            WANT_OK(trm_comm_barrier(c));
        }
    WANT(trm_comm_broadcast(c, &rank, 4, size) == TRM_ERR_INVALID_ARG);
    return NULL;
}

/* one element of the tree, as its definition says */
static float comm_tree(int lo, int hi, size_t i)
{
    int mid = lo + (hi - lo) / 2;
    volatile float left, right; /* no wider than float */

    if (hi - lo == 1)
        return (float)comm_value(lo, i);
    left = comm_tree(lo, mid, i);
    right = comm_tree(mid, hi, i);
    return left + right;
}

/* The same sum from the nodes of this rank's leaves; rank r has [deals[r], deals[r + 1]). */
static const char *comm_reduce_nodes(trm_comm *c, const float *leaf, const int *deals, int first,
                                     int count, int leaves, size_t n, bool in_slot, float *out)
{
    trm_tree_part own[TRM_TREE_PARTS_MAX];
    int parts = trm_tree_parts(first, count, leaves, own), most = 1;
    float *nodes = malloc(n * (size_t)parts * sizeof(float) + 1), *stack = malloc(n * 9 * 4 + 1);
    void *slot = NULL;

    for (int r = 0; r < trm_comm_size(c); r++) {
        trm_tree_part of[TRM_TREE_PARTS_MAX];
        int k = trm_tree_parts(deals[r], deals[r + 1] - deals[r], leaves, of);

        most = k > most ? k : most;
    }
    for (int p = 0; p < parts; p++) {
        unsigned char merges[TRM_TREE_LEAVES_MAX];
        int top = 0;

        trm_tree_merges(own[p].lo, own[p].hi - own[p].lo, leaves, merges);
        for (int i = own[p].lo; i < own[p].hi; i++) {
            memcpy(stack + n * (size_t)top++, leaf + n * (size_t)(i - first), n * sizeof(float));
            for (int m = merges[i - own[p].lo]; m > 0; m--, top--)
                for (size_t e = 0; e < n; e++)
                    stack[n * (size_t)(top - 2) + e] += stack[n * (size_t)(top - 1) + e];
        }
        WANT(top == 1);
        memcpy(nodes + n * (size_t)p, stack, n * sizeof(float));
    }
    memset(out, 0x55, n * sizeof(float));
    if (in_slot)
        WANT_OK(trm_comm_slot_get(c, n * (size_t)most * sizeof(float) + 1, &slot));
    if (slot != NULL)
        memcpy(slot, nodes, n * (size_t)parts * sizeof(float));
    WANT_OK(
        trm_comm_reduce_nodes(c, slot != NULL ? slot : nodes, most, first, count, leaves, n, out));
    free(nodes);
    free(stack);
    return NULL;
}

static const char *check_reduce_tree(trm_comm *c)
{
    static const int leaves_of[] = {1, 2, 3, 5, 8, 24, 31};
    static const size_t elems_of[] = {0, 1, 33, 5000, 40001};
    int size = trm_comm_size(c), rank = trm_comm_rank(c);

    for (size_t l = 0; l < COUNT_OF(leaves_of); l++)
        for (size_t e = 0; e < COUNT_OF(elems_of); e++) {
            int leaves = leaves_of[l];
            size_t n = elems_of[e];
            float *want = malloc(n * sizeof(float) + 1), *out = malloc(n * sizeof(float) + 1);
            float *parts = malloc(n * (size_t)leaves * sizeof(float) + 1);

            for (size_t i = 0; i < n; i++)
                want[i] = comm_tree(0, leaves, i);
            /* deal 0: evenly; 1: all to the last; others: at random, also none to some */
            for (uint32_t deal = 0; deal < (n > 1000 ? 4u : 8u); deal++) {
                int first = 0, count = leaves, from = 0, deals[TRM_COMM_RANKS_MAX + 1] = {0};

                for (int r = 0; r < size; r++) {
                    int to =
                        r == size - 1 ? leaves
                        : deal == 0   ? leaves * (r + 1) / size
                        : deal == 1
                            ? 0
                            : from + (int)(comm_hash(deal * 64 + (uint32_t)r, (uint32_t)leaves) %
                                           (uint32_t)(leaves - from + 1));

                    if (r == rank) {
                        first = from;
                        count = to - from;
                    }
                    from = deals[r + 1] = to;
                }
                for (int k = 0; k < count; k++)
                    comm_fill(TRM_DTYPE_F32, first + k, 0, n, parts + n * (size_t)k);
                memset(out, 0x55, n * sizeof(float));
                WANT_OK(trm_comm_reduce_tree(c, parts, first, count, leaves, n, out));
                WANT(memcmp(out, want, n * sizeof(float)) == 0);
                for (int in_slot = 0; in_slot < 2; in_slot++) {
                    const char *wrong = comm_reduce_nodes(c, parts, deals, first, count, leaves, n,
                                                          in_slot != 0, out);

                    WANT(wrong == NULL);
                    WANT(memcmp(out, want, n * sizeof(float)) == 0);
                }
            }
            free(want);
            free(out);
            free(parts);
        }
    return NULL;
}

static const char *check_agree(trm_comm *c)
{
    int size = trm_comm_size(c), rank = trm_comm_rank(c);
    char want[64];
    trm_status mine, st;

    WANT_OK(trm_comm_agree(c, TRM_OK));
    for (int bad = 0; bad < size; bad++) {
        /* the lowest of those that failed is heard */
        mine =
            rank >= bad ? trm_fail(TRM_ERR_BAD_FILE, "weights of rank %d are torn", rank) : TRM_OK;
        st = trm_comm_agree(c, mine);
        WANT(st == TRM_ERR_BAD_FILE);
        snprintf(want, sizeof(want), "weights of rank %d are torn", bad);
        WANT(strstr(trm_message(), want) != NULL);
    }
    WANT_OK(trm_comm_agree(c, TRM_OK));
    return NULL;
}

/* messages round the ring of ranks: sizes from none to several times an entry */
static const char *check_messages(trm_comm *c)
{
    static const size_t sizes[] = {0, 1, 63, 4096, 65536, 65537, 400001};
    int size = trm_comm_size(c), rank = trm_comm_rank(c);
    int to = (rank + 1) % size, from = (rank + size - 1) % size;
    char *data = malloc(400001);
    const void *got = NULL;
    size_t bytes = 0;

    if (size == 1) {
        trm_piece piece = {.data = data, .bytes = 1};

        WANT(trm_comm_send(c, 0, &piece, 1) == TRM_ERR_INVALID_ARG);
        free(data);
        return NULL;
    }
    for (uint32_t turn = 0; turn < 3; turn++)
        for (size_t k = 0; k < COUNT_OF(sizes); k++) {
            uint32_t head = turn * 100 + (uint32_t)k;
            trm_piece pieces[] = {{.data = &head, .bytes = sizeof(head)},
                                  {.data = NULL, .bytes = 0},
                                  {.data = data, .bytes = sizes[k] / 3},
                                  {.data = data + sizes[k] / 3, .bytes = sizes[k] - sizes[k] / 3}};

            for (size_t i = 0; i < sizes[k]; i++)
                data[i] = (char)comm_hash((uint32_t)rank + head, (uint32_t)i);
            /* a message larger than the ring needs its receiver: one rank must not only send */
            if (rank != 0)
                WANT_OK(trm_comm_receive(c, from, false, &got, &bytes));
            if (rank == 0)
                WANT_OK(trm_comm_send(c, to, pieces, 4));
            if (rank == 0)
                WANT_OK(trm_comm_receive(c, from, false, &got, &bytes));
            WANT((uintptr_t)got % TRM_ALIGN == 0);
            WANT(bytes == sizes[k] + 4);
            WANT(memcmp(got, &head, 4) == 0);
            for (size_t i = 0; i < sizes[k]; i++)
                WANT(((const char *)got)[4 + i] ==
                     (char)comm_hash((uint32_t)from + head, (uint32_t)i));
            if (rank != 0)
                WANT_OK(trm_comm_send(c, to, pieces, 4));
        }
    free(data);
    WANT_OK(trm_comm_barrier(c));
    return NULL;
}

/* as many on their way as were asked for, without a receiver; pending; both ways at once */
static const char *check_in_flight(trm_comm *c)
{
    enum { MESSAGES = 4 };
    int size = trm_comm_size(c), rank = trm_comm_rank(c);
    const void *got = NULL;
    uint32_t data[512];
    size_t bytes = 0;

    for (int turn = 0; turn < 5; turn++) {
        for (uint32_t k = 0; k < MESSAGES; k++)
            for (int r = 0; r < size; r++) {
                trm_piece piece = {.data = data, .bytes = sizeof(data)};

                for (uint32_t i = 0; i < 512; i++)
                    data[i] = comm_hash((uint32_t)rank * 1000 + k, i);
                if (r != rank)
                    WANT_OK(trm_comm_send(c, r, &piece, 1));
            }
        WANT_OK(trm_comm_barrier(c)); /* nobody has received */
        for (uint32_t k = 0; k < MESSAGES; k++)
            for (int r = 0; r < size; r++) {
                if (r == rank)
                    continue;
                for (int i = 0; i < 2000 && !trm_comm_pending(c, r); i++)
                    usleep(1000);
                WANT(trm_comm_pending(c, r));
                WANT_OK(trm_comm_receive(c, r, true, &got, &bytes));
                WANT(bytes == sizeof(data));
                for (uint32_t i = 0; i < 512; i++)
                    WANT(((const uint32_t *)got)[i] == comm_hash((uint32_t)r * 1000 + k, i));
            }
        for (int r = 0; r < size; r++)
            WANT(!trm_comm_pending(c, r));
        WANT_OK(trm_comm_barrier(c));
    }
    return NULL;
}

/* Tries find nothing, at once, and leave what is held; then what comes, in order, large ones
 * whole. */
static const char *check_tries(trm_comm *c)
{
    enum { LARGE = 300000 };
    int size = trm_comm_size(c), rank = trm_comm_rank(c), to = (rank + 1) % size;
    int from = (rank + size - 1) % size;
    unsigned char *data = malloc(LARGE);
    const size_t lengths[] = {5, LARGE, 0, 700};
    const void *held = NULL, *got = NULL;
    size_t bytes = 0;
    bool came = true;

    WANT(data != NULL);
    memset(data, rank + 1, LARGE);
    WANT(trm_comm_try_receive(c, rank, &came, &got, &bytes) == TRM_ERR_INVALID_ARG);
    WANT(trm_comm_try_receive(c, size, &came, &got, &bytes) == TRM_ERR_INVALID_ARG);
    for (int turn = 0; turn < 3 && size > 1; turn++) {
        trm_piece piece = {.data = data, .bytes = 100};

        WANT_OK(trm_comm_try_receive(c, from, &came, &got, &bytes));
        WANT(!came);
        WANT_OK(trm_comm_barrier(c)); /* all have found nothing */
        WANT_OK(trm_comm_send(c, to, &piece, 1));
        WANT_OK(trm_comm_receive(c, from, false, &held, &bytes));
        WANT(bytes == 100);
        WANT_OK(trm_comm_barrier(c));
        for (int i = 0; i < 50; i++) {
            WANT_OK(trm_comm_try_receive(c, from, &came, &got, &bytes));
            WANT(!came && ((const unsigned char *)held)[99] == from + 1);
        }
        WANT_OK(trm_comm_barrier(c));
        for (int i = 0; i < 4; i++) {
            /* one after another round the ring: a large one wants its receiver */
            for (int r = 0; r < size; r++) {
                piece.bytes = lengths[i];
                if (r == rank)
                    WANT_OK(trm_comm_send(c, to, &piece, 1));
                came = false;
                for (int k = 0; k < 20000 && r == from && !came; k++) {
                    WANT_OK(trm_comm_try_receive(c, from, &came, &got, &bytes));
                    if (!came)
                        usleep(500);
                }
                if (r != from)
                    continue;
                WANT(came && bytes == lengths[i]);
                for (size_t k = 0; k < bytes; k += 97)
                    WANT(((const unsigned char *)got)[k] == from + 1);
            }
        }
        WANT_OK(trm_comm_try_receive(c, from, &came, &got, &bytes));
        WANT(!came);
        WANT_OK(trm_comm_barrier(c));
    }
    free(data);
    return NULL;
}

static const char *check_reserve(trm_comm *c)
{
    trm_comm_needs needs = {.slot_bytes = 300000, .message_bytes = 200000, .messages = 6};
    const char *wrong;
    void *slot = NULL;

    WANT_OK(trm_comm_reserve(c, &needs));
    WANT(trm_comm_slot_bytes(c) >= 300000);
    WANT_OK(trm_comm_slot_get(c, 300000, &slot));
    if ((wrong = check_allreduce(c)) != NULL || (wrong = check_messages(c)) != NULL)
        return wrong;
    needs.slot_bytes = 1; /* never shrinks */
    WANT_OK(trm_comm_reserve(c, &needs));
    WANT(trm_comm_slot_bytes(c) >= 300000);
    return check_in_flight(c);
}

static const char *check_stats(trm_comm *c)
{
    trm_comm_stats a, b;
    float x = 1;

    trm_comm_get_stats(c, &a);
    WANT_OK(trm_comm_allreduce(c, &x, &x, 1, TRM_DTYPE_F32, TRM_REDUCE_SUM));
    WANT_OK(trm_comm_barrier(c));
    trm_comm_get_stats(c, &b);
    WANT(b.collectives == a.collectives + 2);
    WANT(b.collective_bytes == a.collective_bytes + 4);
    WANT(b.messages == a.messages);
    return NULL;
}

/* Ranks that wait for work leave the core to others. */
static const char *check_idle(trm_comm *c)
{
    struct rusage before, after;
    const void *data = NULL;
    size_t bytes = 0;
    int64_t cpu;
    trm_piece piece = {.data = "x", .bytes = 1};

    if (trm_comm_size(c) == 1)
        return NULL;
    WANT_OK(trm_comm_barrier(c));
    if (trm_comm_rank(c) == 1) {
        usleep(1000000);
        for (int r = 0; r < trm_comm_size(c); r++)
            if (r != 1)
                WANT_OK(trm_comm_send(c, r, &piece, 1));
        return NULL;
    }
    getrusage(RUSAGE_SELF, &before);
    WANT_OK(trm_comm_receive(c, 1, true, &data, &bytes));
    getrusage(RUSAGE_SELF, &after);
    cpu = (after.ru_utime.tv_sec - before.ru_utime.tv_sec +
           (after.ru_stime.tv_sec - before.ru_stime.tv_sec)) *
              1000000 +
          after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec -
          before.ru_stime.tv_usec;
    WANT(cpu < 100000); /* of a second: sleeping, not spinning */
    return NULL;
}

static const struct {
    const char *name;
    const char *(*check)(trm_comm *c);
} comm_checks[] = {
    {"allreduce", check_allreduce},
    {"allgather", check_allgather},
    {"reduce_scatter", check_reduce_scatter},
    {"alltoall", check_alltoall},
    {"exchange", check_exchange},
    {"broadcast", check_broadcast},
    {"reduce_tree", check_reduce_tree},
    {"agree", check_agree},
    {"messages", check_messages},
    {"in flight", check_in_flight},
    {"tries", check_tries},
    {"stats", check_stats},
    {"reserve", check_reserve},
};

#endif
