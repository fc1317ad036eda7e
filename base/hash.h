/* A fast 64-bit hash of a stream of bytes, equal however the stream is cut into calls and on every
 * machine. It finds accidents (other content, torn writes); it keeps out nobody who means harm. */
#ifndef TRM_BASE_HASH_H
#define TRM_BASE_HASH_H

#include "base/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_hash {
    uint64_t lanes[4];
    uint64_t bytes;
    unsigned char block[32]; /* the bytes behind the last whole block */
} trm_hash;

void trm_hash_init(trm_hash *h, uint64_t seed);
void trm_hash_add(trm_hash *h, const void *data, size_t bytes);
void trm_hash_u64(trm_hash *h, uint64_t value);
void trm_hash_text(trm_hash *h,
                   const char *text);       /* with its end, so that "ab","c" is not "a","bc" */
uint64_t trm_hash_value(const trm_hash *h); /* so far; more may be added */

/* Adds the size and the content of a file: all of it up to 64 MiB; of a larger one 64 KiB at each
 * of 256 places spread over it, its start and its end among them, because reading 100 GB would take
 * minutes. Neither its name nor its times. NOT_FOUND, IO. */
TRM_MUST_USE trm_status trm_hash_file(trm_hash *h, const char *path);

#ifdef __cplusplus
}
#endif
#endif
