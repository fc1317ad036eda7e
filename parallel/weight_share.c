/* The table of shared weights. Entries are only added, under the lock; an entry goes FILLING ->
 * READY or FAILED once, which every change posts. A process that dies while it fills leaves
 * FILLING: those who wait see that it is gone and pack for themselves. */
#define _GNU_SOURCE
#include "parallel/weight_share.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/wait.h"
#include "parallel/process.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ENTRIES 8192
#define FILL_MS 600000 /* packing one weight takes well under a second */
#define ATTACH_MS 60000
#define LOOK_MS 200 /* between looks whether the filler lives */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

enum { FILLING = 1, READY, FAILED };

struct entry {
    uint64_t key, form; /* hash of the form's text */
    uint64_t bytes, offset;
    uint32_t state; /* atomic; release by the filler, acquire by readers */
    int32_t pid;    /* of the filler */
};

struct table {
    pthread_mutex_t mu; /* robust, shared: guards count, used and the adding of entries */
    trm_wait changed;
    uint64_t count, used;
    struct entry entries[ENTRIES];
};

struct trm_weight_share {
    trm_weight_store store;
    trm_segment *segment;
    struct table *table;
    unsigned char *memory;
    size_t capacity;
    size_t read_bytes, packed_bytes;
};

static size_t table_bytes(void)
{
    return trm_align_up(sizeof(struct table), 4096);
}

trm_status trm_weight_share_segment(size_t capacity, trm_segment **segment_out)
{
    trm_segment *s = NULL;
    pthread_mutexattr_t attr;
    struct table *t;

    TRM_CHECK(trm_segment_create_sparse(table_bytes() + trm_align_up(capacity, 4096), &s));
    t = trm_segment_data(s);
    if (madvise(t, table_bytes(), MADV_POPULATE_WRITE) != 0) {
        trm_status st = trm_fail(TRM_ERR_NO_MEMORY, "shared weights: no room for the table: %s",
                                 strerror(errno));

        trm_segment_close(s);
        return st;
    }
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&t->mu, &attr);
    pthread_mutexattr_destroy(&attr);
    *segment_out = s;
    return TRM_OK;
}

static uint64_t hash_text(const char *text)
{
    trm_hash h;

    trm_hash_init(&h, 0);
    trm_hash_text(&h, text);
    return trm_hash_value(&h);
}

static bool lock(struct table *t)
{
    int rc = pthread_mutex_lock(&t->mu);

    if (rc == EOWNERDEAD) /* additions are complete or invisible: count is written last */
        rc = pthread_mutex_consistent(&t->mu);
    return rc == 0;
}

/* The entry, found or added (*mine_out: the caller fills it); NULL: no room. */
static struct entry *find_or_add(trm_weight_share *w, uint64_t key, uint64_t form, size_t bytes,
                                 bool *mine_out)
{
    struct table *t = w->table;
    struct entry *e = NULL;
    uint64_t offset;

    *mine_out = false;
    if (!lock(t))
        return NULL;
    for (uint64_t i = 0; i < t->count && i < ENTRIES; i++)
        if (t->entries[i].key == key && t->entries[i].form == form && t->entries[i].bytes == bytes)
            e = &t->entries[i];
    offset = trm_align_up((size_t)t->used, TRM_ALIGN);
    if (e == NULL && t->count < ENTRIES && offset <= w->capacity && bytes <= w->capacity - offset) {
        e = &t->entries[t->count];
        *e = (struct entry){
            .key = key, .form = form, .bytes = bytes, .offset = offset, .pid = (int32_t)getpid()};
        __atomic_store_n(&e->state, FILLING, __ATOMIC_RELEASE);
        t->used = offset + bytes;
        t->count++;
        *mine_out = true;
    }
    pthread_mutex_unlock(&t->mu);
    return e;
}

static void set_state(struct table *t, struct entry *e, uint32_t state)
{
    __atomic_store_n(&e->state, state, __ATOMIC_RELEASE);
    trm_wait_post(&t->changed);
}

/* Takes the pages now: a full /dev/shm is an answer here and not a SIGBUS while packing. */
static bool commit(trm_weight_share *w, const struct entry *e)
{
    size_t from = (size_t)e->offset / 4096 * 4096;
    size_t to = trm_align_up((size_t)(e->offset + e->bytes), 4096);

    return e->bytes == 0 || madvise(w->memory + from, to - from, MADV_POPULATE_WRITE) == 0;
}

static bool wait_for(struct table *t, const struct entry *e)
{
    int64_t deadline = trm_deadline_us(FILL_MS);

    for (;;) {
        uint32_t seen = trm_wait_count(&t->changed);
        uint32_t state = __atomic_load_n(&e->state, __ATOMIC_ACQUIRE);

        if (state != FILLING)
            return state == READY;
        if (trm_now_us() > deadline || trm_process_dead(e->pid, 0))
            return false;
        (void)!trm_wait_change(&t->changed, seen, 0, trm_now_us() + LOOK_MS * 1000);
    }
}

static void *get(trm_weight_store *store, uint64_t key, const char *form, size_t bytes,
                 bool *ready_out)
{
    trm_weight_share *w = (trm_weight_share *)store;
    bool mine;
    struct entry *e = find_or_add(w, key, hash_text(form), bytes, &mine);

    *ready_out = false;
    if (e == NULL) {
        TRM_LOG(TRM_LOG_DEBUG, "weights", "no shared room for %zu bytes", bytes);
        return NULL;
    }
    if (mine && !commit(w, e)) {
        TRM_LOG(TRM_LOG_INFO, "weights", "shared memory is full: %zu bytes are packed privately",
                bytes);
        set_state(w->table, e, FAILED);
        return NULL;
    }
    if (!mine && !wait_for(w->table, e))
        return NULL;
    w->read_bytes += bytes;
    w->packed_bytes += mine ? bytes : 0;
    *ready_out = !mine;
    return w->memory + e->offset;
}

static void settle(trm_weight_store *store, const void *memory, bool ok)
{
    trm_weight_share *w = (trm_weight_share *)store;
    uint64_t offset = (uint64_t)((const unsigned char *)memory - w->memory);

    for (uint64_t i = 0; i < ENTRIES; i++) {
        struct entry *e = &w->table->entries[i];

        if (e->offset == offset && __atomic_load_n(&e->state, __ATOMIC_ACQUIRE) == FILLING &&
            e->pid == (int32_t)getpid()) {
            set_state(w->table, e, ok ? READY : FAILED);
            return;
        }
    }
}

trm_status trm_weight_share_create(trm_segment *segment, trm_weight_share **share_out)
{
    trm_weight_share *w;

    if (trm_segment_bytes(segment) < table_bytes())
        return trm_fail(TRM_ERR_INVALID_ARG, "shared weights: segment of %zu bytes, want %zu",
                        trm_segment_bytes(segment), table_bytes());
    w = trm_calloc(1, sizeof(*w));
    if (w == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "shared weights");
    w->store.get = get;
    w->store.settle = settle;
    w->segment = segment;
    w->table = trm_segment_data(segment);
    w->memory = (unsigned char *)w->table + table_bytes();
    w->capacity = trm_segment_bytes(segment) - table_bytes();
    *share_out = w;
    return TRM_OK;
}

trm_status trm_weight_share_open(trm_comm *equals, size_t capacity, trm_weight_share **share_out)
{
    struct {
        char name[TRM_SEGMENT_NAME_BYTES];
        uint64_t bytes; /* 0: there is none */
    } where = {.bytes = 0};
    trm_segment *segment = NULL;
    bool first = trm_comm_rank(equals) == 0;
    trm_status st = TRM_OK;

    *share_out = NULL;
    if (trm_comm_size(equals) == 1)
        return TRM_OK;
    if (first && trm_weight_share_segment(capacity, &segment) == TRM_OK) {
        memcpy(where.name, trm_segment_name(segment), sizeof(where.name));
        where.bytes = trm_segment_bytes(segment);
    } else if (first) {
        TRM_LOG(TRM_LOG_INFO, "weights", "not shared: %s", trm_message());
    }
    TRM_TRY(st, trm_comm_broadcast(equals, &where, sizeof(where), 0), fail);
    if (where.bytes == 0)
        return TRM_OK;
    where.name[sizeof(where.name) - 1] = '\0';
    if (!first)
        st = trm_segment_attach(where.name, (size_t)where.bytes, &segment);
    st = trm_comm_agree(equals,
                        st); /* nobody shares unless all do; the name may go when all have it */
    if (st == TRM_ERR_COMM)
        goto fail;
    if (st == TRM_OK && first)
        st = trm_segment_seal(segment, trm_comm_size(equals) - 1, ATTACH_MS);
    if (st == TRM_OK)
        st = trm_weight_share_create(segment, share_out);
    if (st == TRM_OK)
        return TRM_OK;
    TRM_LOG(TRM_LOG_INFO, "weights", "not shared: %s", trm_message());
    trm_segment_close(segment);
    return TRM_OK;
fail:
    trm_segment_close(segment);
    return st;
}

void trm_weight_share_destroy(trm_weight_share *w)
{
    if (w == NULL)
        return;
    trm_segment_close(w->segment);
    trm_free(w);
}

trm_weight_store *trm_weight_share_store(trm_weight_share *w)
{
    return &w->store;
}

void trm_weight_share_bytes(const trm_weight_share *w, size_t *used_out, size_t *packed_out)
{
    *used_out = w->read_bytes;
    *packed_out = w->packed_bytes;
}
