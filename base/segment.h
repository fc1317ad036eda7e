/* A shared-memory segment of the processes of one host and user: a memfd, which others open through
 * the creator's /proc/PID/fd; nothing is left behind however they end. Needs no MPI: the creator
 * hands the name to the others by any way it likes (a broadcast, a fork, an environment variable).
 */
#ifndef TRM_BASE_SEGMENT_H
#define TRM_BASE_SEGMENT_H

#include "base/memory.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One owner. The memory is everybody's. */
typedef struct trm_segment trm_segment;

#define TRM_SEGMENT_NAME_BYTES 64

/* Makes a zeroed segment of `bytes` (1 .. 1 TiB) under a fresh name, readable by this user only.
 * Others can attach as long as this process lives and has neither sealed nor closed it. */
TRM_MUST_USE trm_status trm_segment_create(size_t bytes, trm_segment **segment_out);
/* The same, but memory is taken only as it is touched: a large window costs what is used of it. Who
 * writes more than the machine has is killed; madvise MADV_POPULATE_WRITE asks first. */
TRM_MUST_USE trm_status trm_segment_create_sparse(size_t bytes, trm_segment **segment_out);
/* Maps the segment called `name`, checks that it is one of ours and has `bytes`, and counts itself
 * as attached. NOT_FOUND: no such name (already sealed, or the wrong host). */
TRM_MUST_USE trm_status trm_segment_attach(const char *name, size_t bytes,
                                           trm_segment **segment_out);
/* The creator's part: waits until `others` processes have attached, then removes the name. TIMEOUT
 * after `timeout_ms` (scaled) says how many came; the name is removed then as well. */
TRM_MUST_USE trm_status trm_segment_seal(trm_segment *segment, int others, int64_t timeout_ms);
/* Unmaps; the creator's also removes the name if it is still there. Takes NULL. */
void trm_segment_close(trm_segment *segment);

void *trm_segment_data(trm_segment *segment); /* page-aligned, `bytes` long */
size_t trm_segment_bytes(const trm_segment *segment);
const char *trm_segment_name(const trm_segment *segment); /* "/proc/PID/fd/N" */

#ifdef __cplusplus
}
#endif
#endif
