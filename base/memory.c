/* Counted allocation, fault injection for tests, and arenas. */
#define _GNU_SOURCE
#include "base/memory.h"

#include <limits.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_BYTES ((size_t)2 << 20)

static _Atomic uint64_t calls;       /* relaxed: statistics only */
static _Atomic int64_t live;         /* relaxed: statistics only */
static _Atomic int64_t fail_in = -1; /* tests set it before they start threads */

static bool may_allocate(void)
{
    atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    if (atomic_load_explicit(&fail_in, memory_order_relaxed) >= 0 &&
        atomic_fetch_sub_explicit(&fail_in, 1, memory_order_relaxed) == 0)
        return false;
    return true;
}

static void *counted(void *block)
{
    if (block != NULL)
        atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return block;
}

void *trm_malloc(size_t count, size_t size)
{
    size_t bytes;

    if (!trm_mul_ok(count, size, &bytes) || !may_allocate())
        return NULL;
    return counted(malloc(bytes == 0 ? 1 : bytes));
}

void *trm_calloc(size_t count, size_t size)
{
    size_t bytes;

    if (!trm_mul_ok(count, size, &bytes) || !may_allocate())
        return NULL;
    return counted(calloc(1, bytes == 0 ? 1 : bytes));
}

void *trm_realloc(void *block, size_t count, size_t size)
{
    size_t bytes;
    void *moved;

    if (!trm_mul_ok(count, size, &bytes) || !may_allocate())
        return NULL;
    moved = realloc(block, bytes == 0 ? 1 : bytes);
    return block == NULL ? counted(moved) : moved;
}

char *trm_strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = (char *)trm_malloc(n, 1);

    if (copy != NULL)
        memcpy(copy, text, n);
    return copy;
}

void trm_free(void *block)
{
    if (block == NULL)
        return;
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    free(block);
}

void *trm_aligned_malloc(size_t bytes)
{
    size_t align = bytes >= HUGE_BYTES ? HUGE_BYTES : TRM_ALIGN;
    void *block = NULL;

    if (bytes > SIZE_MAX - HUGE_BYTES || !may_allocate())
        return NULL;
    if (posix_memalign(&block, align, bytes == 0 ? TRM_ALIGN : trm_align_up(bytes, TRM_ALIGN)) != 0)
        return NULL;
    if (bytes >= HUGE_BYTES)
        (void)madvise(block, bytes, MADV_HUGEPAGE); /* advice: refusal is fine */
    return counted(block);
}

void trm_aligned_free(void *block)
{
    trm_free(block);
}

uint64_t trm_alloc_calls(void)
{
    return atomic_load_explicit(&calls, memory_order_relaxed);
}

int64_t trm_alloc_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

void trm_alloc_release(void)
{
    (void)malloc_trim(0);
}

void trm_alloc_fail_after(int64_t n)
{
    atomic_store_explicit(&fail_in, n, memory_order_relaxed);
}

trm_status trm_to_int(int64_t value, const char *what, int *out)
{
    if (value < INT_MIN || value > INT_MAX)
        return trm_fail(TRM_ERR_UNSUPPORTED, "%s is %lld, does not fit an int", what,
                        (long long)value);
    *out = (int)value;
    return TRM_OK;
}

struct arena_block {
    struct arena_block *next;
    size_t bytes_max,
        bytes_used; /* of data, which starts TRM_ALIGN after the block's own aligned start */
    unsigned char *data;
};

struct trm_arena {
    struct arena_block *head;
    size_t block_bytes, bytes_total;
};

trm_status trm_arena_create(size_t block_bytes, trm_arena **arena_out)
{
    trm_arena *a = (trm_arena *)trm_calloc(1, sizeof(*a));

    if (a == NULL)
        return trm_fail(TRM_ERR_NO_MEMORY, "arena");
    a->block_bytes = block_bytes == 0 ? (size_t)64 << 10 : block_bytes;
    *arena_out = a;
    return TRM_OK;
}

void trm_arena_destroy(trm_arena *arena)
{
    struct arena_block *b, *next;

    if (arena == NULL)
        return;
    for (b = arena->head; b != NULL; b = next) {
        next = b->next;
        trm_aligned_free(b->data);
        trm_free(b);
    }
    trm_free(arena);
}

static void *arena_take(trm_arena *arena, size_t bytes, size_t align)
{
    struct arena_block *b = arena->head;
    size_t start = b == NULL ? 0 : trm_align_up(b->bytes_used, align);
    void *p;

    if (bytes > SIZE_MAX / 2)
        return NULL;
    if (b == NULL || start > b->bytes_max || bytes > b->bytes_max - start) {
        size_t want = bytes > arena->block_bytes ? bytes : arena->block_bytes;

        b = (struct arena_block *)trm_calloc(1, sizeof(*b));
        if (b == NULL)
            return NULL;
        b->data = (unsigned char *)trm_aligned_malloc(want);
        if (b->data == NULL) {
            trm_free(b);
            return NULL;
        }
        b->bytes_max = want;
        arena->bytes_total += want;
        if (bytes > arena->block_bytes &&
            arena->head != NULL) { /* a large one goes behind the head, which has room left */
            b->next = arena->head->next;
            arena->head->next = b;
        } else {
            b->next = arena->head;
            arena->head = b;
        }
        start = 0;
    }
    p = b->data + start;
    b->bytes_used = start + bytes;
    memset(p, 0, bytes);
    return p;
}

void *trm_arena_alloc(trm_arena *arena, size_t count, size_t size)
{
    size_t bytes;

    if (!trm_mul_ok(count, size, &bytes))
        return NULL;
    return arena_take(arena, bytes, 16);
}

void *trm_arena_alloc_aligned(trm_arena *arena, size_t bytes)
{
    return arena_take(arena, bytes, TRM_ALIGN);
}

char *trm_arena_strndup(trm_arena *arena, const char *text, size_t bytes)
{
    char *copy = bytes == SIZE_MAX ? NULL : (char *)arena_take(arena, bytes + 1, 1);

    if (copy != NULL)
        memcpy(copy, text, bytes);
    return copy;
}

char *trm_arena_strdup(trm_arena *arena, const char *text)
{
    return trm_arena_strndup(arena, text, strlen(text));
}

size_t trm_arena_bytes(const trm_arena *arena)
{
    return arena->bytes_total;
}
