/* Messages in a shared window: a ring of entries for each ordered pair of ranks. A message that
 * fits an entry is read where it lies; a larger one passes through the ring in parts. The receiver
 * gives the entry it has lent to its caller back at the next receive, so the ring has one entry
 * more than messages may be on their way. */
#include "parallel/comm_shm_impl.h"

#include <string.h>

/* An entry to write to; waits for the receiver where the ring is full. */
static trm_status entry_get(trmi_shm *s, int to, trmi_shm_entry **entry_out)
{
    trmi_shm_ring *ring = trmi_shm_ring_of(&s->w, s->base.rank, to);
    uint64_t next = s->sent[to];

    /* entries sent before this one and given back must leave room for it */
    TRM_CHECK(trmi_shm_await(s, &ring->freed, (uint32_t)(next + 1) - (uint32_t)s->w.head->entries,
                             to, false));
    *entry_out = trmi_shm_entry_of(&s->w, s->base.rank, to, next);
    return TRM_OK;
}

trm_status trmi_shm_send(trm_comm *c, int to, const trm_piece *pieces, int count)
{
    trmi_shm *s = (trmi_shm *)c;
    trmi_shm_ring *ring = trmi_shm_ring_of(&s->w, c->rank, to);
    size_t total = 0, left, at = 0;
    int piece = 0;

    s->doing = "send";
    for (int i = 0; i < count; i++)
        total += pieces[i].bytes;
    left = total;
    do {
        trmi_shm_entry *entry = NULL;
        size_t room = (size_t)s->w.head->message_bytes, filled = 0;
        char *data;

        TRM_CHECK(entry_get(s, to, &entry));
        data = (char *)(entry + 1);
        while (filled < room && filled < left) {
            size_t n = pieces[piece].bytes - at;

            if (n > room - filled)
                n = room - filled;
            if (n > 0)
                memcpy(data + filled, (const char *)pieces[piece].data + at, n);
            filled += n;
            at += n;
            if (at == pieces[piece].bytes) {
                piece++;
                at = 0;
            }
        }
        entry->total = total;
        entry->bytes = filled;
        left -= filled;
        trmi_shm_post(&ring->sent, (uint32_t)++s->sent[to]);
    } while (left > 0);
    return TRM_OK;
}

static void give_back(trmi_shm_from *from, trmi_shm_ring *ring)
{
    trmi_shm_post(&ring->freed, (uint32_t)++from->taken);
}

static trm_status grow(trmi_shm *s, trmi_shm_from *from, size_t bytes)
{
    if (bytes <= from->buffer_bytes)
        return TRM_OK;
    trm_aligned_free(from->buffer);
    from->buffer_bytes = 0;
    from->buffer = trm_aligned_malloc(bytes);
    if (from->buffer == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%s: a message of %zu bytes", s->base.label, bytes);
    from->buffer_bytes = bytes;
    return TRM_OK;
}

trm_status trmi_shm_receive(trm_comm *c, int peer, bool idle, const void **data_out,
                            size_t *bytes_out)
{
    trmi_shm *s = (trmi_shm *)c;
    trmi_shm_ring *ring = trmi_shm_ring_of(&s->w, peer, c->rank);
    trmi_shm_from *from = &s->from[peer];
    const trmi_shm_entry *entry;
    size_t total, at = 0;

    s->doing = "receive";
    if (from->lent)
        give_back(from, ring);
    from->lent = false;
    TRM_CHECK(trmi_shm_await(s, &ring->sent, (uint32_t)(from->taken + 1), peer, idle));
    entry = trmi_shm_entry_of(&s->w, peer, c->rank, from->taken);
    total = (size_t)entry->total;
    if (entry->bytes == entry->total) {
        from->lent = true;
        *data_out = entry + 1;
        *bytes_out = total;
        return TRM_OK;
    }
    TRM_CHECK(grow(s, from, total)); /* before anything is taken: a failure loses nothing */
    for (;;) {
        memcpy((char *)from->buffer + at, entry + 1, (size_t)entry->bytes);
        at += (size_t)entry->bytes;
        give_back(from, ring);
        if (at == total)
            break;
        /* the rest is being sent: it has a deadline also where the start of the message had none */
        TRM_CHECK(trmi_shm_await(s, &ring->sent, (uint32_t)(from->taken + 1), peer, false));
        entry = trmi_shm_entry_of(&s->w, peer, c->rank, from->taken);
    }
    *data_out = from->buffer;
    *bytes_out = total;
    return TRM_OK;
}

bool trmi_shm_pending(trm_comm *c, int from)
{
    trmi_shm *s = (trmi_shm *)c;
    uint64_t taken = s->from[from].taken + (s->from[from].lent ? 1 : 0);

    return trmi_shm_reached(&trmi_shm_ring_of(&s->w, from, c->rank)->sent, (uint32_t)(taken + 1));
}
