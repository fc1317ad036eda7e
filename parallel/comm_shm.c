/* Making a shared window: sizes, the places in it, growing it, and the row's table. */
#include "parallel/comm_shm_impl.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define MAGIC 0x31304d4f434d5254u /* "TRMCOM01" */
#define DEFAULT_BYTES ((size_t)1 << 20)
#define DEFAULT_MESSAGES 4
#define MESSAGES_MAX 1024
#define SLOT_MIN ((size_t)64 << 10) /* alltoall divides a slot by up to 64 ranks */

struct plan { /* offsets in a segment */
    size_t slot_bytes, message_bytes;
    int entries;
    size_t lines, peers, rings, slots, data, bytes;
};

static bool place(size_t *total, size_t count, size_t each, size_t *at_out)
{
    size_t bytes, sum;

    if (!trm_mul_ok(count, each, &bytes) || !trm_add_ok(*total, bytes, &sum) ||
        sum > SIZE_MAX - 4096)
        return false;
    *at_out = *total;
    *total = trm_align_up(sum, 4096); /* areas on pages of their own */
    return true;
}

static trm_status layout(int size, const trm_comm_needs *needs, struct plan *plan_out)
{
    struct plan p = {.slot_bytes = needs != NULL ? needs->slot_bytes : 0,
                     .message_bytes = needs != NULL ? needs->message_bytes : 0,
                     .entries = needs != NULL ? needs->messages : 0};
    size_t ranks = (size_t)size, head = 0;

    if (size < 1 || size > TRM_COMM_RANKS_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "a window of %d ranks: want 1 to %d", size,
                        TRM_COMM_RANKS_MAX);
    if (p.entries < 0 || p.entries > MESSAGES_MAX)
        return trm_fail(TRM_ERR_INVALID_ARG, "%d messages on their way: want at most %d", p.entries,
                        MESSAGES_MAX);
    p.entries = (p.entries > 0 ? p.entries : DEFAULT_MESSAGES) + 1;
    p.slot_bytes = p.slot_bytes > 0 ? p.slot_bytes : DEFAULT_BYTES;
    p.message_bytes = p.message_bytes > 0 ? p.message_bytes : DEFAULT_BYTES;
    if (p.slot_bytes > SIZE_MAX / 1024 || p.message_bytes > SIZE_MAX / 1024)
        return trm_fail(TRM_ERR_INVALID_ARG, "a window with slots of %zu and messages of %zu bytes",
                        p.slot_bytes, p.message_bytes);
    p.slot_bytes = trm_align_up(p.slot_bytes < SLOT_MIN ? SLOT_MIN : p.slot_bytes, 4096);
    p.message_bytes = trm_align_up(p.message_bytes, TRM_ALIGN);
    if (!place(&p.bytes, 1, sizeof(trmi_shm_head), &head) ||
        !place(&p.bytes, ranks, TRMI_SHM_LINE, &p.lines) ||
        !place(&p.bytes, ranks, sizeof(trmi_shm_peer), &p.peers) ||
        !place(&p.bytes, ranks * ranks, sizeof(trmi_shm_ring), &p.rings) ||
        !place(&p.bytes, ranks * 2, p.slot_bytes, &p.slots) ||
        !place(&p.bytes, ranks * ranks * (size_t)p.entries,
               sizeof(trmi_shm_entry) + p.message_bytes, &p.data))
        return trm_fail(TRM_ERR_INVALID_ARG,
                        "a window of %d ranks with slots of %zu bytes: too large", size,
                        p.slot_bytes);
    *plan_out = p;
    return TRM_OK;
}

trm_status trm_comm_shm_segment(int size, const trm_comm_needs *needs, trm_segment **segment_out)
{
    trmi_shm_head *head;
    trm_segment *segment = NULL;
    struct plan p;

    static_assert(sizeof(trmi_shm_line) <= TRMI_SHM_LINE, "a line fits its place");
    static_assert(sizeof(trmi_shm_entry) == TRM_ALIGN, "data after it is aligned");
    TRM_CHECK(layout(size, needs, &p));
    TRM_CHECK(trm_segment_create_sparse(p.bytes, &segment));
    head = trm_segment_data(segment);
    head->size = size;
    head->entries = p.entries;
    head->slot_bytes = p.slot_bytes;
    head->message_bytes = p.message_bytes;
    __atomic_store_n(&head->magic, MAGIC, __ATOMIC_RELEASE);
    *segment_out = segment;
    return TRM_OK;
}

/* Finds the places in a segment that trm_comm_shm_segment made. */
static trm_status open_window(trm_segment *segment, int size, trmi_shm_window *w_out)
{
    char *base = trm_segment_data(segment);
    trmi_shm_head *head = (trmi_shm_head *)(void *)base;
    trm_comm_needs needs;
    struct plan p;

    if (trm_segment_bytes(segment) < sizeof(*head) ||
        __atomic_load_n(&head->magic, __ATOMIC_ACQUIRE) != MAGIC || head->size != size)
        return trm_fail(TRM_ERR_INVALID_ARG, "segment %s is no window of %d ranks",
                        trm_segment_name(segment), size);
    needs = (trm_comm_needs){.slot_bytes = head->slot_bytes,
                             .message_bytes = head->message_bytes,
                             .messages = head->entries - 1};
    TRM_CHECK(layout(size, &needs, &p));
    if (p.bytes != trm_segment_bytes(segment))
        return trm_fail(TRM_ERR_INVALID_ARG, "segment %s has %zu bytes, its window needs %zu",
                        trm_segment_name(segment), trm_segment_bytes(segment), p.bytes);
    *w_out = (trmi_shm_window){.segment = segment,
                               .head = head,
                               .lines = base + p.lines,
                               .peers = (trmi_shm_peer *)(void *)(base + p.peers),
                               .rings = (trmi_shm_ring *)(void *)(base + p.rings),
                               .slots = base + p.slots,
                               .entries = base + p.data};
    return TRM_OK;
}

trmi_shm_entry *trmi_shm_entry_of(const trmi_shm_window *w, int from, int to, uint64_t index)
{
    size_t entries = (size_t)w->head->entries;
    size_t ring = (size_t)from * (size_t)w->head->size + (size_t)to;
    size_t each = sizeof(trmi_shm_entry) + w->head->message_bytes;

    return (trmi_shm_entry *)(void *)(w->entries + (ring * entries + index % entries) * each);
}

/* ---- growing ---- */

static size_t max_size(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Puts the new window in the old one's place; nothing is on its way in either. */
static void change_window(trmi_shm *s, trmi_shm_window *next)
{
    trmi_shm_window old = s->w;

    s->w = *next;
    s->w.own = true;
    for (int r = 0; r < s->base.size; r++) {
        s->sent[r] = 0;
        s->from[r].taken = 0;
        s->from[r].lent = false;
    }
    if (old.own)
        trm_segment_close(old.segment);
}

struct offer { /* rank 0's, in its slot */
    char name[TRM_SEGMENT_NAME_BYTES];
    uint64_t bytes;
};

trm_status trmi_shm_reserve(trmi_shm *s, const trm_comm_needs *needs)
{
    const trmi_shm_head *head = s->w.head;
    trm_comm_needs want = {.slot_bytes = max_size(needs->slot_bytes, head->slot_bytes),
                           .message_bytes = max_size(needs->message_bytes, head->message_bytes),
                           .messages = needs->messages > head->entries - 1 ? needs->messages
                                                                           : head->entries - 1};
    trmi_sign sign = {.kind = TRMI_CALL_RESERVE,
                      .check = (uint32_t)want.messages,
                      .bytes = want.slot_bytes ^ (want.message_bytes << 1)};
    bool zero = s->base.rank == 0;
    trm_segment *segment = NULL;
    trmi_shm_window next = {0};
    struct offer offer;
    trm_status st = TRM_OK;

    /* all want the same; messages that are on their way would stay behind */
    TRM_CHECK(trmi_shm_round(s, (trmi_shm_word){.sign = sign}));
    if (want.slot_bytes == head->slot_bytes && want.message_bytes == head->message_bytes &&
        want.messages == head->entries - 1)
        return TRM_OK;
    for (int r = 0; r < s->base.size && st == TRM_OK; r++)
        if (r != s->base.rank && trmi_shm_pending(&s->base, r))
            st = trm_fail(TRM_ERR_INVALID_ARG,
                          "%s: reserve: messages from rank %d have not been received",
                          s->base.label, r);
    if (st == TRM_OK && zero) {
        st = trm_comm_shm_segment(s->base.size, &want, &segment);
        if (st == TRM_OK) {
            memset(&offer, 0, sizeof(offer));
            snprintf(offer.name, sizeof(offer.name), "%s", trm_segment_name(segment));
            offer.bytes = trm_segment_bytes(segment);
            memcpy(trmi_shm_slot(&s->w, 0), &offer, sizeof(offer));
        }
    }
    TRM_TRY(st, trmi_shm_agree(s, sign, st), fail);
    memcpy(&offer, trmi_shm_slot(&s->w, 0), sizeof(offer));
    s->w.turn++;
    offer.name[sizeof(offer.name) - 1] = '\0';
    if (!zero)
        st = trm_segment_attach(offer.name, (size_t)offer.bytes, &segment);
    if (st == TRM_OK)
        st = open_window(segment, s->base.size, &next);
    if (st == TRM_OK)
        trmi_shm_join(s, &next);
    TRM_TRY(st, trmi_shm_agree(s, sign, st), fail);
    if (zero) /* all have attached: this only takes the name away */
        st = trm_segment_seal(segment, s->base.size - 1, 1000);
    TRM_TRY(st, trmi_shm_agree(s, sign, st), fail);
    change_window(s, &next);
    return TRM_OK;

fail:
    trm_segment_close(segment);
    return st;
}

/* ---- the row ---- */

static trm_status slot_get(trm_comm *c, size_t bytes, void **slot_out)
{
    trmi_shm *s = (trmi_shm *)c;

    *slot_out = bytes <= s->w.head->slot_bytes ? trmi_shm_slot(&s->w, c->rank) : NULL;
    return TRM_OK;
}

static size_t slot_bytes(const trm_comm *c)
{
    return (size_t)((const trmi_shm *)c)->w.head->slot_bytes;
}

static void set_timeout(trm_comm *c, int64_t timeout_ms)
{
    ((trmi_shm *)c)->timeout_ms = timeout_ms;
}

static void give_up(trm_comm *c, const char *why)
{
    trmi_shm_break(&((trmi_shm *)c)->w, why);
}

static void destroy(trm_comm *c)
{
    trmi_shm *s = (trmi_shm *)c;

    if (s->w.head != NULL)
        trmi_shm_leave(s);
    if (s->w.own)
        trm_segment_close(s->w.segment);
    if (s->from != NULL)
        for (int r = 0; r < c->size; r++)
            trm_aligned_free(s->from[r].buffer);
    trm_free(s->from);
    trm_free(s->sent);
    trm_free(s->srcs);
    trm_free(s);
}

trm_status trmi_comm_shm_create(trm_segment *segment, int rank, int size, int spin_us,
                                const char *label, int world_rank, trm_comm **comm_out)
{
    static const trm_comm_ops ops = {.name = "shm",
                                     .collective = trmi_shm_collective,
                                     .slot_get = slot_get,
                                     .slot_bytes = slot_bytes,
                                     .send = trmi_shm_send,
                                     .receive = trmi_shm_receive,
                                     .pending = trmi_shm_pending,
                                     .look = trmi_shm_look,
                                     .set_timeout = set_timeout,
                                     .give_up = give_up,
                                     .destroy = destroy};
    trmi_shm *s = NULL;
    trm_status st = TRM_OK;

    if (segment == NULL || rank < 0 || rank >= size)
        return trm_fail(TRM_ERR_INVALID_ARG, "communicator: rank %d of %d", rank, size);
    s = trm_calloc(1, sizeof(*s));
    if (s == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "communicator: host object");
    trmi_comm_base(&s->base, &ops, rank, size);
    trmi_comm_label(&s->base, label);
    s->spin_us = spin_us;
    s->world = world_rank;
    s->timeout_ms = TRMI_COMM_TIMEOUT_MS;
    s->doing = "set-up";
    s->sent = trm_calloc((size_t)size, sizeof(*s->sent));
    s->from = trm_calloc((size_t)size, sizeof(*s->from));
    s->srcs = trm_calloc((size_t)size, sizeof(*s->srcs));
    if (s->sent == NULL || s->from == NULL || s->srcs == NULL) {
        st = trm_fail(TRM_ERR_NO_MEMORY, "communicator: host object");
        goto fail;
    }
    TRM_TRY(st, open_window(segment, size, &s->w), fail);
    trmi_shm_join(s, &s->w);
    *comm_out = &s->base;
    return TRM_OK;

fail:
    destroy(&s->base);
    return st;
}

void trmi_comm_shm_own(trm_comm *c, trm_segment *segment)
{
    trmi_shm *s = (trmi_shm *)c;

    TRM_ASSERT(s->w.segment == segment);
    s->w.own = segment != NULL;
}

trm_status trm_comm_shm_create(trm_segment *segment, int rank, int size, int spin_us,
                               trm_comm **comm_out)
{
    return trmi_comm_shm_create(segment, rank, size, spin_us, "group", -1, comm_out);
}
