/* Collectives over MPI: everybody sends what the others need and adds up itself. For the few ranks
 * of a replica that is faster than MPI's own algorithms (two ranks: 1.6 to 3 times), has deadlines,
 * and sums in rank order. Long vectors are divided: each rank adds up a share, all gather them. */
#include "parallel/comm_mpi_impl.h"

#include <stdio.h>
#include <string.h>

#define PART_BYTES ((size_t)1 << 30) /* of one MPI message: counts are ints */
#define TEXT_BYTES 1024
/* Above this each rank adds up its share only. With two ranks both ways move the same bytes, and
 * whole vectors need one message less. */
#define WHOLE_BYTES ((size_t)64 << 10)
#ifdef TRM_CHECKED
static const bool check_args = true;
#else
static const bool check_args = false; /* a round of messages before each call */
#endif

trm_status trmi_mpi_swap(trmi_mpi *m, const void *const *to, const size_t *to_bytes,
                         void *const *from, const size_t *from_bytes)
{
    int size = m->base.size, me = m->base.rank, rc;
    size_t longest = 0;

    for (int r = 0; r < size; r++) {
        longest = r != me && to_bytes[r] > longest ? to_bytes[r] : longest;
        longest = r != me && from_bytes[r] > longest ? from_bytes[r] : longest;
    }
    for (size_t at = 0; at < longest; at += PART_BYTES) {
        for (int i = 0; i < 2 * size; i++)
            m->requests[i] = MPI_REQUEST_NULL;
        for (int i = 1; i < size; i++) {
            int r = (me + i) % size;
            size_t n = from_bytes[r] > at ? from_bytes[r] - at : 0;

            if (n == 0)
                continue;
            rc = MPI_Irecv((char *)from[r] + at, (int)(n < PART_BYTES ? n : PART_BYTES), MPI_BYTE,
                           m->peers[r].world, TRMI_TAG_DATA, m->comm, &m->requests[r]);
            if (rc != MPI_SUCCESS)
                return trmi_mpi_failed(m, "MPI_Irecv", rc);
        }
        for (int i = 1; i < size; i++) {
            int r = (me + i) % size;
            size_t n = to_bytes[r] > at ? to_bytes[r] - at : 0;

            if (n == 0)
                continue;
            rc = MPI_Isend((const char *)to[r] + at, (int)(n < PART_BYTES ? n : PART_BYTES),
                           MPI_BYTE, m->peers[r].world, TRMI_TAG_DATA, m->comm,
                           &m->requests[size + r]);
            if (rc != MPI_SUCCESS)
                return trmi_mpi_failed(m, "MPI_Isend", rc);
        }
        TRM_CHECK(trmi_mpi_wait(m, m->requests, 2 * size));
    }
    return TRM_OK;
}

/* Scratch of [4 * size]: sizes sent and received, and offsets. */
static size_t *sizes(trmi_mpi *m, int which)
{
    return m->sizes + (size_t)(which * m->base.size);
}

/* swap with the same bytes for everybody; received from `all` on, rank r's at offset at[r] */
static trm_status spread(trmi_mpi *m, const void *mine, size_t bytes, char *all, const size_t *at,
                         const size_t *from_bytes)
{
    const void *to[TRM_COMM_RANKS_MAX];
    void *from[TRM_COMM_RANKS_MAX];
    size_t *to_bytes = sizes(m, 0);

    for (int r = 0; r < m->base.size; r++) {
        to[r] = mine;
        to_bytes[r] = bytes;
        from[r] = all + at[r];
    }
    return trmi_mpi_swap(m, to, to_bytes, from, from_bytes);
}

trm_status trmi_mpi_tell(trmi_mpi *m, const void *mine, size_t bytes, void *all)
{
    size_t *at = sizes(m, 2), *from_bytes = sizes(m, 1);

    for (int r = 0; r < m->base.size; r++) {
        at[r] = bytes * (size_t)r;
        from_bytes[r] = bytes;
    }
    memcpy((char *)all + at[m->base.rank], mine, bytes);
    return spread(m, mine, bytes, all, at, from_bytes);
}

static trm_status agree_args(trmi_mpi *m, const trmi_call *call)
{
    trmi_sign mine = trmi_call_sign(&m->base, call), all[TRM_COMM_RANKS_MAX];

    TRM_CHECK(trmi_mpi_tell(m, &mine, sizeof(mine), all));
    return trmi_signs_agree(&m->base, all, sizeof(all[0]));
}

static trm_status barrier(trmi_mpi *m)
{
    char mine = 1, all[TRM_COMM_RANKS_MAX];

    return trmi_mpi_tell(m, &mine, 1, all);
}

static trm_status agree(trmi_mpi *m, trm_status mine)
{
    int32_t status = (int32_t)mine, all[TRM_COMM_RANKS_MAX];
    size_t *to_bytes = sizes(m, 0), *from_bytes = sizes(m, 1);
    const void *to[TRM_COMM_RANKS_MAX];
    void *from[TRM_COMM_RANKS_MAX];
    char text[TEXT_BYTES] = "";
    int first = 0;

    snprintf(text, sizeof(text), "%s", mine == TRM_OK ? "" : trm_message());
    TRM_CHECK(trmi_mpi_tell(m, &status, sizeof(status), all));
    while (first < m->base.size && all[first] == TRM_OK)
        first++;
    if (first == m->base.size)
        return TRM_OK;
    for (int r = 0; r < m->base.size; r++) {
        to[r] = from[r] = text;
        to_bytes[r] = first == m->base.rank ? sizeof(text) : 0;
        from_bytes[r] = r == first && first != m->base.rank ? sizeof(text) : 0;
    }
    TRM_CHECK(trmi_mpi_swap(m, to, to_bytes, from, from_bytes));
    text[sizeof(text) - 1] = '\0';
    return trm_fail(all[first] > 0 && all[first] < TRM_STATUS_COUNT ? (trm_status)all[first]
                                                                    : TRM_ERR_INTERNAL,
                    "%s, rank %d: %s", m->base.label, first, text);
}

/* Puts every rank's `bytes[r]` bytes behind each other into the window (`mine` excepted); srcs[r]
 * then points to them. */
static trm_status collect(trmi_mpi *m, const void *mine, const size_t *bytes)
{
    size_t *at = sizes(m, 2), total = 0;

    for (int r = 0; r < m->base.size; r++) {
        at[r] = total;
        total += trm_align_up(r == m->base.rank ? 0 : bytes[r], TRM_ALIGN);
    }
    TRM_CHECK(trmi_mpi_grow(m, &m->window, total > 0 ? total : 1));
    for (int r = 0; r < m->base.size; r++)
        m->srcs[r] = r == m->base.rank ? mine : m->window.data + at[r];
    return spread(m, mine, bytes[m->base.rank], m->window.data, at, bytes);
}

/* Every rank's elements [begin[r], begin[r] + elems[r]) of this rank's vector go to rank r; then
 * srcs[r] are the vectors of this rank's own part (in its own vector: at begin[me]). */
static trm_status scatter(trmi_mpi *m, const char *in, const size_t *begin, const size_t *elems,
                          size_t unit)
{
    int size = m->base.size, me = m->base.rank;
    const void *to[TRM_COMM_RANKS_MAX];
    void *from[TRM_COMM_RANKS_MAX];
    size_t *to_bytes = sizes(m, 0), *from_bytes = sizes(m, 1);
    size_t mine = elems[me] * unit, each = trm_align_up(mine, TRM_ALIGN);

    TRM_CHECK(trmi_mpi_grow(m, &m->window, each * (size_t)size + 1));
    for (int r = 0; r < size; r++) {
        to[r] = in + begin[r] * unit;
        to_bytes[r] = elems[r] * unit;
        from[r] = m->window.data + each * (size_t)r;
        from_bytes[r] = mine;
        m->srcs[r] = r == me ? in + begin[me] * unit : from[r];
    }
    return trmi_mpi_swap(m, to, to_bytes, from, from_bytes);
}

/* Shares of n elements: begin in sizes(m, 2), elems in sizes(m, 3). */
static void shares(trmi_mpi *m, size_t n)
{
    size_t *begin = sizes(m, 2), *elems = sizes(m, 3), lines = (n + 63) / 64;
    size_t ranks = (size_t)m->base.size;

    for (size_t r = 0; r < ranks; r++) {
        size_t from = lines * r / ranks * 64, to = lines * (r + 1) / ranks * 64;

        begin[r] = from < n ? from : n;
        elems[r] = (to < n ? to : n) - begin[r];
    }
}

/* All ranks' shares, this rank's at `mine`, to out. */
static trm_status gather_shares(trmi_mpi *m, const void *mine, size_t unit, char *out)
{
    size_t *begin = sizes(m, 2), *elems = sizes(m, 3), *from_bytes = sizes(m, 1);
    int me = m->base.rank;

    for (int r = 0; r < m->base.size; r++) {
        from_bytes[r] = elems[r] * unit;
        begin[r] *= unit; /* spread wants bytes */
    }
    if (from_bytes[me] > 0)
        memcpy(out + begin[me], mine, from_bytes[me]);
    return spread(m, out + begin[me], from_bytes[me], out, begin, from_bytes);
}

static trm_status allreduce(trmi_mpi *m, const trmi_call *call)
{
    size_t unit = trm_dtype_bytes(call->dtype), bytes = call->elems * unit;
    int size = m->base.size, me = m->base.rank;
    size_t *each = sizes(m, 3), mine;

    if (bytes == 0)
        return TRM_OK;
    if (bytes <= WHOLE_BYTES || size == 2) {
        for (int r = 0; r < size; r++)
            each[r] = bytes;
        TRM_CHECK(collect(m, call->in, each));
        trmi_sum(m->srcs, size, 0, call->elems, call->dtype, call->reduction, call->out);
        return TRM_OK;
    }
    shares(m, call->elems);
    mine = sizes(m, 3)[me];
    TRM_CHECK(scatter(m, call->in, sizes(m, 2), sizes(m, 3), unit));
    TRM_CHECK(trmi_mpi_grow(m, &m->work, mine * unit + 1));
    trmi_sum(m->srcs, size, 0, mine, call->dtype, call->reduction, m->work.data);
    return gather_shares(m, m->work.data, unit, call->out);
}

static trm_status reduce_scatter(trmi_mpi *m, const trmi_call *call)
{
    size_t *begin = sizes(m, 2), at = 0;

    for (int r = 0; r < m->base.size; r++) {
        begin[r] = at;
        at += call->counts[r];
    }
    TRM_CHECK(scatter(m, call->in, begin, call->counts, trm_dtype_bytes(call->dtype)));
    if (call->counts[m->base.rank] > 0)
        trmi_sum(m->srcs, m->base.size, 0, call->counts[m->base.rank], call->dtype, call->reduction,
                 call->out);
    return TRM_OK;
}

static trm_status allgather(trmi_mpi *m, const trmi_call *call)
{
    size_t *at = sizes(m, 2), total = 0, mine = call->counts[m->base.rank];

    for (int r = 0; r < m->base.size; r++) {
        at[r] = total;
        total += call->counts[r];
    }
    if (mine > 0)
        memmove((char *)call->out + at[m->base.rank], call->in, mine);
    return spread(m, (char *)call->out + at[m->base.rank], mine, call->out, at, call->counts);
}

static trm_status alltoall(trmi_mpi *m, const trmi_call *call)
{
    int size = m->base.size, me = m->base.rank;
    const void *to[TRM_COMM_RANKS_MAX];
    void *from[TRM_COMM_RANKS_MAX];
    const char *in = call->in;
    char *out = call->out;

    for (int r = 0; r < size; r++) {
        to[r] = in;
        from[r] = out;
        if (r == me && call->counts[me] > 0)
            memcpy(out, in, call->counts[me]);
        in += call->counts[r];
        out += call->recv_counts[r];
    }
#ifdef TRM_CHECKED
    for (int r = 0; r < size; r++) { /* what each rank sends to whom, one receiver after another */
        uint64_t told[TRM_COMM_RANKS_MAX], mine = call->counts[r];

        TRM_CHECK(trmi_mpi_tell(m, &mine, sizeof(mine), told));
        for (int k = 0; r == me && k < size; k++)
            if (told[k] != call->recv_counts[k])
                return trm_fail(TRM_ERR_COMM,
                                "%s: ranks disagree: alltoall: rank %d sends rank %d %llu bytes, "
                                "which expects %zu",
                                m->base.label, k, me, (unsigned long long)told[k],
                                call->recv_counts[k]);
    }
#endif
    return trmi_mpi_swap(m, to, call->counts, from, call->recv_counts);
}

static trm_status exchange(trmi_mpi *m, const trmi_call *call)
{
    TRM_CHECK(collect(m, call->in, call->counts));
    for (int r = 0; r < m->base.size; r++)
        call->peers_out[r] = m->srcs[r];
    return TRM_OK;
}

static trm_status broadcast(trmi_mpi *m, const trmi_call *call)
{
    size_t *to_bytes = sizes(m, 0), *from_bytes = sizes(m, 1);
    const void *to[TRM_COMM_RANKS_MAX];
    void *from[TRM_COMM_RANKS_MAX];

    for (int r = 0; r < m->base.size; r++) {
        to[r] = from[r] = call->out;
        to_bytes[r] = call->root == m->base.rank ? call->elems : 0;
        from_bytes[r] = call->root == r ? call->elems : 0;
    }
    return trmi_mpi_swap(m, to, to_bytes, from, from_bytes);
}

/* ---- the layout-invariant sum ---- */

/* This rank's parts of elements [at, at + n), `stride` elements apart: where the caller has them
 * (`all`), or in m->work. */
static trm_status own_parts(trmi_mpi *m, const trmi_call *call, bool all, size_t at, size_t n,
                            size_t stride, const float **parts_out)
{
    const float *in = call->in;
    trmi_tree_part own[TRM_TREE_PARTS_MAX];
    int count = trmi_tree_parts(call->first, call->count, call->leaves, own);
    float *sums;

    *parts_out = in;
    if (all)
        return TRM_OK;
    TRM_CHECK(trmi_mpi_grow(m, &m->work, stride * sizeof(float) * (size_t)count + 1));
    *parts_out = sums = (float *)(void *)m->work.data;
    for (int i = 0; i < count; i++) {
        if (call->kind == TRMI_CALL_REDUCE_TREE)
            trmi_tree_sum_leaves(in, call->elems, call->first, own[i].lo, own[i].hi, at, n,
                                 sums + stride * (size_t)i);
        else
            memcpy(sums + stride * (size_t)i, in + call->elems * (size_t)i + at, n * sizeof(float));
    }
    return TRM_OK;
}

/* Every rank sends the nodes it holds; everybody adds up the tree above them. In pieces, so that
 * the window stays small. */
static trm_status reduce_tree(trmi_mpi *m, const trmi_call *call)
{
    int size = m->base.size, me = m->base.rank;
    struct range {
        int first, count;
    } mine = {call->first, call->count}, all[TRM_COMM_RANKS_MAX];
    int firsts[TRM_COMM_RANKS_MAX], counts[TRM_COMM_RANKS_MAX];
    bool nodes = call->kind == TRMI_CALL_REDUCE_NODES;
    int bound = nodes ? call->most : trmi_tree_parts_max(call->leaves);
    size_t room = m->slot_bytes / sizeof(float) / (size_t)bound;
    bool whole = nodes && call->elems <= room; /* in one piece, as it lies */
    size_t per = whole ? call->elems : room / 16 * 16;

    per = per > 0 ? per : 16;
    TRM_CHECK(trmi_mpi_tell(m, &mine, sizeof(mine), all));
    for (int r = 0; r < size; r++) {
        firsts[r] = all[r].first;
        counts[r] = all[r].count;
    }
    TRM_CHECK(trmi_tree_covers(&m->base, firsts, counts, call->leaves));
    for (size_t at = 0; at < call->elems; at += per) {
        size_t n = call->elems - at < per ? call->elems - at : per;
        size_t stride = whole ? n : trm_align_up(n, 16), *bytes = sizes(m, 3);
        trmi_tree_part own[TRM_TREE_PARTS_MAX];
        const float *parts;
        int k = 0;

        TRM_CHECK(own_parts(m, call, whole, at, n, stride, &parts));
        for (int r = 0; r < size; r++)
            bytes[r] = stride * sizeof(float) *
                       (size_t)trmi_tree_parts(firsts[r], counts[r], call->leaves, own);
        TRM_CHECK(collect(m, parts, bytes));
        for (int r = 0; r < size; r++) {
            const float *from = r == me ? parts : m->srcs[r];
            int count = trmi_tree_parts(firsts[r], counts[r], call->leaves, own);

            for (int i = 0; i < count; i++) {
                m->parts[k] = own[i];
                m->parts[k++].data = from + stride * (size_t)i;
            }
        }
        trmi_tree_sum(m->parts, call->leaves, 0, n, (float *)call->out + at);
    }
    return TRM_OK;
}

/* Buffers grow by themselves; this spares it inside a step. */
static trm_status reserve(trmi_mpi *m, const trm_comm_needs *needs)
{
    size_t slot = needs->slot_bytes > m->slot_bytes ? needs->slot_bytes : m->slot_bytes;

    TRM_CHECK(trmi_mpi_grow(m, &m->window, (slot + TRM_ALIGN) * (size_t)m->base.size));
    TRM_CHECK(trmi_mpi_more_messages(m, needs->messages));
    m->slot_bytes = slot;
    return TRM_OK;
}

static trm_status dispatch(trmi_mpi *m, const trmi_call *call)
{
    switch (call->kind) {
    case TRMI_CALL_BARRIER:
        return barrier(m);
    case TRMI_CALL_AGREE:
        return agree(m, call->mine);
    case TRMI_CALL_ALLREDUCE:
        return allreduce(m, call);
    case TRMI_CALL_REDUCE_TREE:
    case TRMI_CALL_REDUCE_NODES:
        return reduce_tree(m, call);
    case TRMI_CALL_ALLGATHER:
        return allgather(m, call);
    case TRMI_CALL_REDUCE_SCATTER:
        return reduce_scatter(m, call);
    case TRMI_CALL_ALLTOALL:
        return alltoall(m, call);
    case TRMI_CALL_EXCHANGE:
        return exchange(m, call);
    case TRMI_CALL_BROADCAST:
        return broadcast(m, call);
    case TRMI_CALL_RESERVE:
        return agree(m, reserve(m, call->needs));
    default:
        return trm_fail(TRM_ERR_INTERNAL, "%s: no such call", m->base.label);
    }
}

trm_status trmi_mpi_collective(trm_comm *c, const trmi_call *call)
{
    trmi_mpi *m = (trmi_mpi *)c;
    trm_status st = TRM_OK;

    if (m->job->lost)
        return trm_fail(TRM_ERR_COMM, "%s: %s after a rank of the job was lost", c->label,
                        trmi_call_name(call->kind));
    m->doing = trmi_call_name(call->kind);
    if (check_args)
        st = agree_args(m, call);
    if (st == TRM_OK)
        st = dispatch(m, call);
    if (st == TRM_ERR_NO_MEMORY && call->kind != TRMI_CALL_AGREE &&
        call->kind != TRMI_CALL_RESERVE) /* the others wait for this rank's part */
        st = trmi_mpi_lose(m, c->rank, "has no memory for its part");
    return st;
}
