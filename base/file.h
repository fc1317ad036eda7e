/* Read-only mapped files and the byte cursor for untrusted bytes. */
#ifndef TRM_BASE_FILE_H
#define TRM_BASE_FILE_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A mapped file, shared by reference count. Immutable while open. Shared: any thread. */
typedef struct trm_file trm_file;
/* Maps `path`. Errors: NOT_FOUND, IO (directory, permission). An empty file maps to zero bytes. */
TRM_MUST_USE trm_status trm_file_open(const char *path, trm_file **file_out);
/* A file made of memory the caller keeps alive (tests, fuzzers). */
TRM_MUST_USE trm_status trm_file_from_memory(const void *data, size_t bytes, const char *name,
                                             trm_file **file_out);
trm_file *trm_file_ref(trm_file *file);
void trm_file_unref(trm_file *file); /* takes NULL */
const unsigned char *trm_file_data(const trm_file *file);
size_t trm_file_bytes(const trm_file *file);
const char *trm_file_path(const trm_file *file);
/* Hint: bytes [at, at + bytes) will not be read again soon, so their pages need not stay in memory.
 * They can still be read. */
void trm_file_release(const trm_file *file, size_t at, size_t bytes);

/* Reads fixed-width little-endian fields and never past `end`. On the first overrun `failed` is
 * set, values read as 0, and the cursor stays at its end: check once after a group of reads. One
 * owner. */
typedef struct trm_cursor {
    const unsigned char *start, *at, *end;
    bool failed;
} trm_cursor;
static inline trm_cursor trm_cursor_make(const void *data, size_t bytes)
{
    trm_cursor c;

    c.start = c.at = (const unsigned char *)data;
    c.end = c.start + bytes;
    c.failed = false;
    return c;
}
static inline size_t trm_cursor_left(const trm_cursor *c)
{
    return (size_t)(c->end - c->at);
}
static inline size_t trm_cursor_offset(const trm_cursor *c)
{
    return (size_t)(c->at - c->start);
}
uint8_t trm_cursor_u8(trm_cursor *c);
uint16_t trm_cursor_u16(trm_cursor *c);
uint32_t trm_cursor_u32(trm_cursor *c);
uint64_t trm_cursor_u64(trm_cursor *c);
uint64_t trm_cursor_varint(trm_cursor *c); /* LEB128 as in protobuf, at most 10 bytes */
const unsigned char *trm_cursor_bytes(trm_cursor *c,
                                      size_t bytes); /* NULL and failed past the end */
trm_cursor trm_cursor_sub(trm_cursor *c,
                          size_t bytes); /* a cursor over the next `bytes`, which are skipped */

/* Path helpers: memory from trm_malloc (free with trm_free); NULL: no memory. */
char *trm_path_join(const char *dir, const char *name); /* `name` absolute: a copy of it */
char *trm_path_dir(const char *path);                   /* "." if there is none */
char *trm_path_stem(const char *path);                  /* last component without its extension */
const char *trm_path_extension(
    const char *path); /* borrowed: after the last dot of the last component, or "" */
bool trm_path_is_dir(const char *path);
bool trm_path_is_file(const char *path);          /* a regular one */
bool trm_path_same(const char *a, const char *b); /* two names of one existing file */
bool trm_path_exists(const char *path);

#ifdef __cplusplus
}
#endif
#endif
