/* Heaps: one of deadlines, and one a queue whose order is (given out before, priority, arrival). An
 * item knows its place in both, so that it can be taken out of the middle. A queue's heap has room
 * for all items of that queue, also those that run: putting them back cannot fail. */
#include "coordinator/backlog.h"

#include <string.h>

#define BUCKETS 8192 /* ids count up, so they spread evenly */
#define QUEUES_MAX 65536
#define HASH_START 14695981039346656037u /* FNV-1a, 64 bits (IETF draft-eastlake-fnv) */
#define HASH_PRIME 1099511628211u

enum heap_kind { BY_ORDER, BY_DEADLINE };
struct heap {
    trm_backlog_item **items;
    int count, room;
    int members; /* items that may come back into it */
};

struct trm_backlog {
    int waiting_max, waiting, running, abandoned;
    uint64_t arrivals;
    struct heap deadlines;
    struct heap *queues;
    int queue_count;
    trm_backlog_item *buckets[BUCKETS];
};

/* ---- heaps ---- */

static bool before(enum heap_kind kind, const trm_backlog_item *a, const trm_backlog_item *b)
{
    if (kind == BY_DEADLINE)
        return a->deadline_us < b->deadline_us;
    if ((a->attempts > 0) != (b->attempts > 0))
        return a->attempts > 0;
    if (a->priority != b->priority)
        return a->priority > b->priority;
    return a->order < b->order;
}

static void put(enum heap_kind kind, struct heap *h, int at, trm_backlog_item *item)
{
    h->items[at] = item;
    if (kind == BY_DEADLINE)
        item->deadline_at = at;
    else
        item->queue_at = at;
}

/* Moves the item that belongs at `at` or nearer to the root or the leaves to its place. */
static void settle(enum heap_kind kind, struct heap *h, int at, trm_backlog_item *item)
{
    while (at > 0 && before(kind, item, h->items[(at - 1) / 2])) {
        put(kind, h, at, h->items[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        int child = 2 * at + 1;

        if (child + 1 < h->count && before(kind, h->items[child + 1], h->items[child]))
            child++;
        if (child >= h->count || !before(kind, h->items[child], item))
            break;
        put(kind, h, at, h->items[child]);
        at = child;
    }
    put(kind, h, at, item);
}

static void heap_add(enum heap_kind kind, struct heap *h, trm_backlog_item *item)
{
    TRM_ASSERT(h->count < h->room);
    h->count++;
    settle(kind, h, h->count - 1, item);
}

static void heap_remove(enum heap_kind kind, struct heap *h, trm_backlog_item *item)
{
    int at = kind == BY_DEADLINE ? item->deadline_at : item->queue_at;
    trm_backlog_item *last;

    if (at < 0)
        return;
    last = h->items[--h->count];
    if (last != item)
        settle(kind, h, at, last);
    if (kind == BY_DEADLINE)
        item->deadline_at = -1;
    else
        item->queue_at = -1;
}

/* One member more. */
static trm_status heap_admit(struct heap *h)
{
    if (h->members == h->room) {
        int room = h->room == 0 ? 16 : h->room * 2;
        trm_backlog_item **grown = trm_realloc(h->items, (size_t)room, sizeof(*h->items));

        if (grown == NULL)
            return trm_fail(TRM_ERR_NO_MEMORY, "a queue of %d requests", room);
        h->items = grown;
        h->room = room;
    }
    h->members++;
    return TRM_OK;
}

/* ---- the whole ---- */

trm_status trm_backlog_create(int waiting_max, trm_backlog **backlog_out)
{
    trm_backlog *b = trm_calloc(1, sizeof(*b));

    if (b == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "backlog");
    b->waiting_max = waiting_max;
    *backlog_out = b;
    return TRM_OK;
}

void trm_backlog_destroy(trm_backlog *b)
{
    if (b == NULL)
        return;
    for (int i = 0; i < b->queue_count; i++)
        trm_free(b->queues[i].items);
    trm_free(b->queues);
    trm_free(b->deadlines.items);
    trm_free(b);
}

static trm_status need_queue(trm_backlog *b, int queue)
{
    int count = b->queue_count == 0 ? 8 : b->queue_count;
    struct heap *grown;

    if (queue < b->queue_count)
        return TRM_OK;
    if (queue < 0 || queue >= QUEUES_MAX)
        return trm_fail(TRM_ERR_INTERNAL, "backlog: queue %d", queue);
    while (count <= queue)
        count *= 2;
    grown = trm_realloc(b->queues, (size_t)count, sizeof(*grown));
    if (grown == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "%d queues", count);
    memset(grown + b->queue_count, 0, (size_t)(count - b->queue_count) * sizeof(*grown));
    b->queues = grown;
    b->queue_count = count;
    return TRM_OK;
}

trm_status trm_backlog_add(trm_backlog *b, trm_backlog_item *item, int spare)
{
    trm_backlog_item **bucket = &b->buckets[item->id % BUCKETS];
    trm_status st;

    if (b->waiting >= b->waiting_max && b->waiting - b->waiting_max >= spare)
        return trm_fail(TRM_ERR_TIMEOUT, "the queue is full: %d requests wait; come again later",
                        b->waiting);
    TRM_CHECK(need_queue(b, item->queue));
    TRM_CHECK(heap_admit(&b->queues[item->queue]));
    st = heap_admit(&b->deadlines);
    if (st != TRM_OK) {
        b->queues[item->queue].members--;
        return st;
    }
    item->state = TRM_BACKLOG_WAITS;
    item->order = b->arrivals++;
    item->given_hash = HASH_START;
    item->queue_at = item->deadline_at = -1;
    heap_add(BY_ORDER, &b->queues[item->queue], item);
    heap_add(BY_DEADLINE, &b->deadlines, item);
    item->bucket_next = *bucket;
    *bucket = item;
    b->waiting++;
    return TRM_OK;
}

trm_backlog_item *trm_backlog_find(const trm_backlog *b, uint64_t id)
{
    trm_backlog_item *i = b->buckets[id % BUCKETS];

    while (i != NULL && i->id != id)
        i = i->bucket_next;
    return i;
}

trm_backlog_item *trm_backlog_head(const trm_backlog *b, int queue)
{
    return queue < b->queue_count && b->queues[queue].count > 0 ? b->queues[queue].items[0] : NULL;
}

void trm_backlog_start(trm_backlog *b, trm_backlog_item *item)
{
    TRM_ASSERT(item->state == TRM_BACKLOG_WAITS);
    heap_remove(BY_ORDER, &b->queues[item->queue], item);
    item->state = TRM_BACKLOG_RUNS;
    item->attempts++;
    item->seen_bytes = item->seen_tokens = 0;
    item->seen_hash = HASH_START;
    b->waiting--;
    b->running++;
}

void trm_backlog_requeue(trm_backlog *b, trm_backlog_item *item)
{
    TRM_ASSERT(item->state == TRM_BACKLOG_RUNS);
    item->state = TRM_BACKLOG_WAITS;
    heap_add(BY_ORDER, &b->queues[item->queue], item);
    b->running--;
    b->waiting++;
}

trm_status trm_backlog_move(trm_backlog *b, trm_backlog_item *item, int queue)
{
    TRM_ASSERT(item->state == TRM_BACKLOG_WAITS);
    TRM_CHECK(need_queue(b, queue));
    TRM_CHECK(heap_admit(&b->queues[queue]));
    heap_remove(BY_ORDER, &b->queues[item->queue], item);
    b->queues[item->queue].members--;
    item->queue = queue;
    heap_add(BY_ORDER, &b->queues[queue], item);
    return TRM_OK;
}

static void leave_heaps(trm_backlog *b, trm_backlog_item *item)
{
    heap_remove(BY_ORDER, &b->queues[item->queue], item);
    heap_remove(BY_DEADLINE, &b->deadlines, item);
    b->queues[item->queue].members--;
    b->deadlines.members--;
}

void trm_backlog_abandon(trm_backlog *b, trm_backlog_item *item)
{
    TRM_ASSERT(item->state == TRM_BACKLOG_RUNS);
    leave_heaps(b, item);
    item->state = TRM_BACKLOG_ABANDONED;
    b->running--;
    b->abandoned++;
}

void trm_backlog_remove(trm_backlog *b, trm_backlog_item *item)
{
    trm_backlog_item **at = &b->buckets[item->id % BUCKETS];

    if (item->state == TRM_BACKLOG_OUT)
        return;
    while (*at != item)
        at = &(*at)->bucket_next;
    *at = item->bucket_next;
    if (item->state != TRM_BACKLOG_ABANDONED)
        leave_heaps(b, item);
    b->waiting -= item->state == TRM_BACKLOG_WAITS;
    b->running -= item->state == TRM_BACKLOG_RUNS;
    b->abandoned -= item->state == TRM_BACKLOG_ABANDONED;
    item->state = TRM_BACKLOG_OUT;
}

trm_backlog_item *trm_backlog_overdue(const trm_backlog *b, int64_t now_us)
{
    return trm_backlog_next_deadline_us(b) <= now_us ? b->deadlines.items[0] : NULL;
}

int64_t trm_backlog_next_deadline_us(const trm_backlog *b)
{
    return b->deadlines.count > 0 ? b->deadlines.items[0]->deadline_us : INT64_MAX;
}

trm_backlog_item *trm_backlog_next(const trm_backlog *b, const trm_backlog_item *item)
{
    size_t at = item != NULL ? item->id % BUCKETS + 1 : 0;

    if (item != NULL && item->bucket_next != NULL)
        return item->bucket_next;
    if (b->waiting + b->running + b->abandoned == 0)
        return NULL;
    while (at < BUCKETS && b->buckets[at] == NULL)
        at++;
    return at < BUCKETS ? b->buckets[at] : NULL;
}

int trm_backlog_waiting(const trm_backlog *b)
{
    return b->waiting;
}

int trm_backlog_running(const trm_backlog *b)
{
    return b->running;
}

int trm_backlog_abandoned(const trm_backlog *b)
{
    return b->abandoned;
}

/* ---- what was streamed ---- */

static uint64_t hash(uint64_t h, const unsigned char *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ data[i]) * HASH_PRIME;
    return h;
}

trm_status trm_backlog_part(trm_backlog_item *item, const void *body, size_t bytes,
                            uint32_t new_tokens, size_t *skip_out, uint32_t *tokens_out)
{
    const unsigned char *data = body;
    uint64_t known = item->given_bytes - item->seen_bytes; /* of the rest, what the client has */
    size_t skip = bytes < known ? bytes : (size_t)known;
    uint64_t tokens = item->seen_tokens + new_tokens;

    if (item->seen_bytes < item->given_bytes) {
        item->seen_hash = hash(item->seen_hash, data, skip);
        if (skip == known && item->seen_hash != item->given_hash)
            return trm_fail(TRM_ERR_COMM,
                            "the replica was lost, and another one's answer differs within the "
                            "first %llu bytes",
                            (unsigned long long)item->given_bytes);
    }
    if (skip < bytes) {
        item->given_hash = hash(item->given_hash, data + skip, bytes - skip);
        item->given_bytes += bytes - skip;
        item->seen_hash = item->given_hash;
    }
    item->seen_bytes += bytes;
    item->seen_tokens = tokens;
    *skip_out = skip;
    *tokens_out = 0;
    if (tokens > item->given_tokens) {
        *tokens_out = (uint32_t)(tokens - item->given_tokens);
        item->given_tokens = tokens;
    }
    return TRM_OK;
}
