/* Collectives through a shared window. A contribution lies in the rank's slot, written there by its
 * producer (slot_get) or copied; after a round everybody reads everybody's. What is larger than a
 * slot goes in pieces, each in the next of the two slots. */
#include "parallel/comm_shm_impl.h"

#include <stdio.h>
#include <string.h>

/* Up to here every rank adds up the whole vector; above, each adds up its share, in place, and all
 * copy the shares: one more round, but 1/size of the additions. Two ranks, fp32: from 64 KiB on the
 * second way is no slower, at 1 MiB it is 1.5 times faster. */
#define WHOLE_BYTES ((size_t)64 << 10)

const trmi_shm_word *trmi_shm_word_of(const trmi_shm *s, int rank)
{
    return &trmi_shm_line_of(&s->w, rank)->word[s->w.round & 1];
}

static trm_status break_it(trmi_shm *s, trm_status st)
{
    trmi_shm_break(&s->w, trm_message());
    return st;
}

trm_status trmi_shm_round(trmi_shm *s, trmi_shm_word word)
{
    int size = s->base.size, me = s->base.rank;
    uint32_t round = ++s->w.round;
    trmi_shm_line *mine = trmi_shm_line_of(&s->w, me);
    trm_status st;

    mine->word[round & 1] = word;
    trmi_shm_post(&mine->flag, round);
    for (int i = 1; i < size; i++) {
        int r = (me + i) % size;

        TRM_CHECK(trmi_shm_await(s, &trmi_shm_line_of(&s->w, r)->flag, round, r, false));
    }
    /* costs a few comparisons of what has just been fetched: done in every build */
    st = trmi_signs_agree(&s->base, &trmi_shm_word_of(s, 0)->sign, TRMI_SHM_LINE);
    return st == TRM_OK ? TRM_OK : break_it(s, st);
}

trm_status trmi_shm_agree(trmi_shm *s, trmi_sign sign, trm_status mine)
{
    char *text = s->w.peers[s->base.rank].text[(s->w.round + 1) & 1];

    if (mine != TRM_OK)
        snprintf(text, TRMI_SHM_TEXT_BYTES, "%s", trm_message());
    TRM_CHECK(trmi_shm_round(s, (trmi_shm_word){.sign = sign, .arg = (uint64_t)mine}));
    for (int r = 0; r < s->base.size; r++) {
        uint64_t st = trmi_shm_word_of(s, r)->arg;

        if (st == TRM_OK)
            continue;
        return trm_fail(st < TRM_STATUS_COUNT ? (trm_status)st : TRM_ERR_INTERNAL,
                        "%s, rank %d: %s", s->base.label, r, s->w.peers[r].text[s->w.round & 1]);
    }
    return TRM_OK;
}

/* A contribution into this rank's slot, unless it is there already. */
static void put(trmi_shm *s, const void *in, size_t bytes)
{
    char *slot = trmi_shm_slot(&s->w, s->base.rank);

    if (bytes > 0 && in != slot)
        memcpy(slot, in, bytes);
}

/* Share of `rank` in n elements, on borders of whole cache lines. */
static void share(size_t n, int rank, int size, size_t *at_out, size_t *elems_out)
{
    size_t lines = (n + 63) / 64, from = lines * (size_t)rank / (size_t)size * 64,
           to = lines * (size_t)(rank + 1) / (size_t)size * 64;

    *at_out = from < n ? from : n;
    *elems_out = (to < n ? to : n) - *at_out;
}

/* Copies every other rank's share, which lies `unit` bytes an element in its slot, to out. */
static void gather_shares(trmi_shm *s, size_t n, size_t unit, char *out)
{
    size_t at, elems;

    for (int r = 0; r < s->base.size; r++) {
        share(n, r, s->base.size, &at, &elems);
        if (elems > 0)
            memcpy(out + at * unit, trmi_shm_slot(&s->w, r) + at * unit, elems * unit);
    }
}

static trm_status allreduce(trmi_shm *s, const trmi_call *call, trmi_shm_word word)
{
    size_t unit = trm_dtype_bytes(call->dtype), per = (size_t)s->w.head->slot_bytes / unit, at = 0;
    int size = s->base.size;
    size_t from, mine;

    do {
        size_t n = call->elems - at < per ? call->elems - at : per;
        char *out = (char *)call->out + at * unit;

        put(s, (const char *)call->in + at * unit, n * unit);
        TRM_CHECK(trmi_shm_round(s, word));
        for (int r = 0; r < size; r++)
            s->srcs[r] = trmi_shm_slot(&s->w, r);
        if (n * unit <= WHOLE_BYTES) {
            trmi_sum(s->srcs, size, 0, n, call->dtype, call->reduction, out);
        } else {
            /* nobody else reads this share of this slot before the next round */
            share(n, s->base.rank, size, &from, &mine);
            trmi_sum(s->srcs, size, from, mine, call->dtype, call->reduction,
                     trmi_shm_slot(&s->w, s->base.rank) + from * unit);
            TRM_CHECK(trmi_shm_round(s, word));
            gather_shares(s, n, unit, out);
        }
        s->w.turn++;
        at += n;
    } while (at < call->elems);
    return TRM_OK;
}

static trm_status reduce_scatter(trmi_shm *s, const trmi_call *call, trmi_shm_word word)
{
    size_t unit = trm_dtype_bytes(call->dtype), per = (size_t)s->w.head->slot_bytes / unit;
    size_t begin = 0, end, at = 0;

    for (int r = 0; r < s->base.rank; r++)
        begin += call->counts[r];
    end = begin + call->counts[s->base.rank];
    do {
        size_t n = call->elems - at < per ? call->elems - at : per;
        size_t from = begin > at ? begin : at, to = end < at + n ? end : at + n;

        put(s, (const char *)call->in + at * unit, n * unit);
        TRM_CHECK(trmi_shm_round(s, word));
        for (int r = 0; r < s->base.size; r++)
            s->srcs[r] = trmi_shm_slot(&s->w, r);
        if (from < to)
            trmi_sum(s->srcs, s->base.size, from - at, to - from, call->dtype, call->reduction,
                     (char *)call->out + (from - begin) * unit);
        s->w.turn++;
        at += n;
    } while (at < call->elems);
    return TRM_OK;
}

static trm_status allgather(trmi_shm *s, const trmi_call *call, trmi_shm_word word)
{
    size_t per = (size_t)s->w.head->slot_bytes, longest = 0, at = 0;
    size_t mine = call->counts[s->base.rank];

    for (int r = 0; r < s->base.size; r++)
        longest = call->counts[r] > longest ? call->counts[r] : longest;
    do {
        char *out = (char *)call->out + at;

        if (at < mine)
            put(s, (const char *)call->in + at, mine - at < per ? mine - at : per);
        TRM_CHECK(trmi_shm_round(s, word));
        for (int r = 0; r < s->base.size; r++) {
            size_t have = call->counts[r], n = have > at ? have - at : 0;

            if (n > 0)
                memcpy(out, trmi_shm_slot(&s->w, r), n < per ? n : per);
            out += have;
        }
        s->w.turn++;
        at += per;
    } while (at < longest);
    return TRM_OK;
}

static trm_status exchange(trmi_shm *s, const trmi_call *call, trmi_shm_word word)
{
    put(s, call->in, call->counts[s->base.rank]);
    TRM_CHECK(trmi_shm_round(s, word));
    for (int r = 0; r < s->base.size; r++)
        call->peers_out[r] = trmi_shm_slot(&s->w, r);
    s->w.turn++;
    return TRM_OK;
}

static trm_status broadcast(trmi_shm *s, const trmi_call *call, trmi_shm_word word)
{
    size_t per = (size_t)s->w.head->slot_bytes, at = 0;
    bool root = s->base.rank == call->root;

    do {
        size_t n = call->elems - at < per ? call->elems - at : per;

        if (root)
            put(s, (const char *)call->in + at, n);
        TRM_CHECK(trmi_shm_round(s, word));
        if (!root && n > 0)
            memcpy((char *)call->out + at, trmi_shm_slot(&s->w, call->root), n);
        s->w.turn++;
        at += n;
    } while (at < call->elems);
    return TRM_OK;
}

/* A slot is a table of what goes to whom, then an equal part for each receiver. */
static trm_status alltoall(trmi_shm *s, const trmi_call *call, trmi_shm_word word)
{
    int size = s->base.size, me = s->base.rank;
    size_t table = trm_align_up((size_t)size * sizeof(uint64_t), TRM_ALIGN);
    size_t per = ((size_t)s->w.head->slot_bytes - table) / (size_t)size / TRM_ALIGN * TRM_ALIGN;
    size_t longest = 0, at = 0;

    for (int r = 0; r < size; r++)
        if (r != me && call->counts[r] > longest)
            longest = call->counts[r];
    word.arg = longest;
    do {
        char *slot = trmi_shm_slot(&s->w, me), *out = call->out;
        const char *in = call->in;

        for (int r = 0; r < size; r++) {
            size_t have = call->counts[r], n = have > at ? have - at : 0;
            uint64_t told = have;

            memcpy(slot + (size_t)r * sizeof(told), &told, sizeof(told));
            if (r != me && n > 0)
                memcpy(slot + table + per * (size_t)r, in + at, n < per ? n : per);
            if (r == me && at == 0 && have > 0) {
                size_t before = 0;

                for (int k = 0; k < me; k++)
                    before += call->recv_counts[k];
                memcpy(out + before, in, have);
            }
            in += have;
        }
        TRM_CHECK(trmi_shm_round(s, word));
        for (int r = 0; r < size; r++) {
            const char *from = trmi_shm_slot(&s->w, r);
            size_t want = call->recv_counts[r], n = want > at ? want - at : 0;
            uint64_t told;

            memcpy(&told, from + (size_t)me * sizeof(told), sizeof(told));
            if (told != want)
                return break_it(s, trm_fail(TRM_ERR_COMM,
                                            "%s: ranks disagree: alltoall: rank %d sends rank %d "
                                            "%llu bytes, which expects %zu",
                                            s->base.label, r, me, (unsigned long long)told, want));
            if (r != me && n > 0)
                memcpy(out + at, from + table + per * (size_t)me, n < per ? n : per);
            out += want;
            if (trmi_shm_word_of(s, r)->arg > longest)
                longest = (size_t)trmi_shm_word_of(s, r)->arg;
        }
        s->w.turn++;
        at += per;
    } while (at < longest);
    return TRM_OK;
}

/* ---- the layout-invariant sum ---- */

/* Every rank's parts as they lie in its slot, `stride` elements apart; they follow from the ranges
 * in the words. */
static trm_status all_parts(trmi_shm *s, int leaves, size_t stride)
{
    int firsts[TRM_COMM_RANKS_MAX], counts[TRM_COMM_RANKS_MAX], n = 0;
    trm_status st;

    for (int r = 0; r < s->base.size; r++) {
        firsts[r] = (int)(trmi_shm_word_of(s, r)->arg >> 32);
        counts[r] = (int)(trmi_shm_word_of(s, r)->arg & UINT32_MAX);
    }
    st = trmi_tree_covers(&s->base, firsts, counts, leaves);
    if (st != TRM_OK)
        return break_it(s, st);
    for (int r = 0; r < s->base.size; r++) {
        const float *slot = (const float *)(const void *)trmi_shm_slot(&s->w, r);
        trmi_tree_part own[TRM_TREE_PARTS_MAX];
        int count = trmi_tree_parts(firsts[r], counts[r], leaves, own);

        for (int i = 0; i < count; i++) {
            s->parts[n] = own[i];
            s->parts[n++].data = slot + stride * (size_t)i;
        }
    }
    return TRM_OK;
}

/* This rank's parts of elements [at, at + n) into its slot, `stride` elements apart. */
static void put_parts(trmi_shm *s, const trmi_call *call, size_t at, size_t n, size_t stride)
{
    float *slot = (float *)(void *)trmi_shm_slot(&s->w, s->base.rank);
    const float *in = call->in;
    trmi_tree_part own[TRM_TREE_PARTS_MAX];
    int count = trmi_tree_parts(call->first, call->count, call->leaves, own);

    for (int i = 0; i < count; i++) {
        float *to = slot + stride * (size_t)i;

        if (call->kind == TRMI_CALL_REDUCE_TREE)
            trmi_tree_sum_leaves(in, call->elems, call->first, own[i].lo, own[i].hi, at, n, to);
        else if (in + call->elems * (size_t)i + at != to && n > 0)
            memcpy(to, in + call->elems * (size_t)i + at, n * sizeof(float));
    }
}

static trm_status reduce_tree(trmi_shm *s, const trmi_call *call, trmi_shm_word word)
{
    /* a bound and not this rank's own number of parts: all ranks must cut the same pieces */
    int bound =
        call->kind == TRMI_CALL_REDUCE_NODES ? call->most : trmi_tree_parts_max(call->leaves);
    size_t room = (size_t)s->w.head->slot_bytes / sizeof(float) / (size_t)bound, at = 0;
    /* what is all of it lies as the caller has it, whose memory may be the slot */
    bool all = call->kind == TRMI_CALL_REDUCE_NODES && call->elems <= room;
    size_t per = all ? call->elems : room / 16 * 16, from, mine;

    if (per == 0 && !all)
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: %s over %d leaves: too many", s->base.label,
                        trmi_call_name(call->kind), call->leaves);
    if (!all && call->in == trmi_shm_slot(&s->w, s->base.rank))
        return trm_fail(TRM_ERR_INVALID_ARG, "%s: %s: the slot is too small for the most nodes",
                        s->base.label, trmi_call_name(call->kind));
    word.arg = (uint64_t)(uint32_t)call->first << 32 | (uint32_t)call->count;
    do {
        size_t n = call->elems - at < per ? call->elems - at : per;
        size_t stride = all ? call->elems : trm_align_up(n, 16);
        float *slot = (float *)(void *)trmi_shm_slot(&s->w, s->base.rank);
        float *out = (float *)call->out + at;

        put_parts(s, call, at, n, stride);
        TRM_CHECK(trmi_shm_round(s, word));
        TRM_CHECK(all_parts(s, call->leaves, stride));
        if (n * sizeof(float) <= WHOLE_BYTES) {
            trmi_tree_sum(s->parts, call->leaves, 0, n, out);
        } else {
            /* into this slot's first part, whose share nobody else reads before the next round */
            share(n, s->base.rank, s->base.size, &from, &mine);
            trmi_tree_sum(s->parts, call->leaves, from, mine, slot + from);
            TRM_CHECK(trmi_shm_round(s, word));
            gather_shares(s, n, sizeof(float), (char *)out);
        }
        s->w.turn++;
        at += n;
    } while (at < call->elems);
    return TRM_OK;
}

trm_status trmi_shm_collective(trm_comm *c, const trmi_call *call)
{
    trmi_shm *s = (trmi_shm *)c;
    trmi_shm_word word = {.sign = trmi_call_sign(c, call)};

    s->doing = trmi_call_name(call->kind);
    switch (call->kind) {
    case TRMI_CALL_BARRIER:
        return trmi_shm_round(s, word);
    case TRMI_CALL_AGREE:
        return trmi_shm_agree(s, word.sign, call->mine);
    case TRMI_CALL_ALLREDUCE:
        return allreduce(s, call, word);
    case TRMI_CALL_REDUCE_TREE:
    case TRMI_CALL_REDUCE_NODES:
        return reduce_tree(s, call, word);
    case TRMI_CALL_ALLGATHER:
        return allgather(s, call, word);
    case TRMI_CALL_REDUCE_SCATTER:
        return reduce_scatter(s, call, word);
    case TRMI_CALL_ALLTOALL:
        return alltoall(s, call, word);
    case TRMI_CALL_EXCHANGE:
        return exchange(s, call, word);
    case TRMI_CALL_BROADCAST:
        return broadcast(s, call, word);
    case TRMI_CALL_RESERVE:
        return trmi_shm_reserve(s, call->needs);
    default:
        return trm_fail(TRM_ERR_INTERNAL, "%s: no such call", c->label);
    }
}
