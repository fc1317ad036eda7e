/* Large tensors between two processes of one host: instead of travelling in a frame they lie in the
 * sender's shared-memory segment, and the frame says where. The receiver maps the segment once
 * (its name comes with HELLO, or with the first frame that needs it), reads, and says RELEASE.
 *
 * One owner an object: the thread that owns the link. */
#ifndef TRM_BASE_EXCHANGE_H
#define TRM_BASE_EXCHANGE_H

#include "base/segment.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Smaller ones travel in the frame: a copy is cheaper than the bookkeeping. */
#define TRM_EXCHANGE_LEAST ((size_t)64 << 10)

typedef struct trm_exchange trm_exchange; /* the sender's side */
/* A sparse segment of `bytes`: memory is taken as it is used, and given back (MADV_REMOVE) when a
 * piece larger than 1 MiB is released. */
TRM_MUST_USE trm_status trm_exchange_create(size_t bytes, trm_exchange **exchange_out);
void trm_exchange_destroy(trm_exchange *x); /* takes NULL */
const char *trm_exchange_name(const trm_exchange *x);
size_t trm_exchange_bytes(const trm_exchange *x);
/* A piece, aligned to TRM_ALIGN; NULL: no room now (send the bytes in the frame instead). */
void *trm_exchange_take(trm_exchange *x, size_t bytes, uint64_t *offset_out);
/* A piece that take gave; anything else is INVALID_ARG and changes nothing (a peer may lie). */
TRM_MUST_USE trm_status trm_exchange_release(trm_exchange *x, uint64_t offset, uint64_t bytes);
size_t trm_exchange_used(const trm_exchange *x);

typedef struct trm_exchange_view trm_exchange_view; /* the receiver's side */
/* NOT_FOUND: another host. */
TRM_MUST_USE trm_status trm_exchange_attach(const char *name, size_t bytes,
                                            trm_exchange_view **view_out);
void trm_exchange_detach(trm_exchange_view *v); /* takes NULL */
/* The bytes at offset, or NULL where they are not inside the segment. */
const void *trm_exchange_at(const trm_exchange_view *v, uint64_t offset, uint64_t bytes);

#ifdef __cplusplus
}
#endif
#endif
