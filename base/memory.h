/* Host memory: counted allocation, checked arithmetic, arenas.
 *
 * trm_malloc and friends count live blocks and total calls (so that a test can assert that a step
 * allocates nothing, and leaks print at exit in checked builds) and can be told to fail the Nth
 * call. Shared: any thread. */
#ifndef TRM_BASE_MEMORY_H
#define TRM_BASE_MEMORY_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRM_ALIGN 64 /* cache line and widest vector; all tensor buffers have it */

/* count * size, checked; NULL on overflow or no memory (the caller says what it wanted). Zero bytes
 * gives a valid block. */
void *trm_malloc(size_t count, size_t size);
void *trm_calloc(size_t count, size_t size);
void *trm_realloc(void *block, size_t count, size_t size); /* NULL leaves `block` as it was */
char *trm_strdup(const char *text);
void trm_free(void *block);
/* Aligned to TRM_ALIGN, not zeroed; free with trm_aligned_free. Large blocks ask for huge pages. */
void *trm_aligned_malloc(size_t bytes);
void trm_aligned_free(void *block);

uint64_t trm_alloc_calls(void); /* calls so far, all threads: sample around a step */
int64_t trm_alloc_live(void);   /* blocks not yet freed */
/* Gives free memory back to the system: after something large has gone, of which malloc would keep
 * what lies between blocks that stay. Takes milliseconds a GiB. */
void trm_alloc_release(void);
void trm_alloc_fail_after(
    int64_t calls); /* tests: the call after `calls` more fails once; negative: off */

/* a*b and a+b into *out; false on overflow. */
#define trm_mul_ok(a, b, out) (!__builtin_mul_overflow((a), (b), (out)))
#define trm_add_ok(a, b, out) (!__builtin_add_overflow((a), (b), (out)))
static inline size_t trm_align_up(size_t n, size_t align)
{
    return (n + align - 1) / align * align;
}
/* Narrows to int for MPI, BLAS or a grid; status if it does not fit. */
TRM_MUST_USE trm_status trm_to_int(int64_t value, const char *what, int *out);

/* Arena: bump allocation freed as a whole. One owner. */
typedef struct trm_arena trm_arena;
TRM_MUST_USE trm_status trm_arena_create(size_t block_bytes,
                                         trm_arena **arena_out); /* 0: 64 KiB blocks */
void trm_arena_destroy(trm_arena *arena);
void *trm_arena_alloc(trm_arena *arena, size_t count,
                      size_t size); /* zeroed, 16-byte aligned; NULL: no memory */
void *trm_arena_alloc_aligned(trm_arena *arena,
                              size_t bytes); /* zeroed, TRM_ALIGN aligned; NULL: no memory */
char *trm_arena_strdup(trm_arena *arena, const char *text);
char *trm_arena_strndup(trm_arena *arena, const char *text, size_t bytes);
size_t trm_arena_bytes(const trm_arena *arena);

#ifdef __cplusplus
}
#endif
#endif
