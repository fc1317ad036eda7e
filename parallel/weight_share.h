/* One packed copy of the weights for ranks of a host that hold the same share of the same model:
 * replicas side by side (data parallelism) cost no more memory for packed weights than one.
 *
 * A segment with a table; whoever first needs a weight packs it there, the others wait for it and
 * read. Not collective after it has been made: ranks may bind in any order and different shapes.
 * What does not fit (the table, /dev/shm) is packed privately. Shared: locks inside. */
#ifndef TRM_PARALLEL_WEIGHT_SHARE_H
#define TRM_PARALLEL_WEIGHT_SHARE_H

#include "base/segment.h"
#include "kernels/weight_store.h"
#include "parallel/comm.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trm_weight_share trm_weight_share;

/* Collective over `equals`: ranks of one host with the same (stage, shard) of the same model. One
 * rank, or a segment that cannot be had, gives NULL in *share_out: then everybody packs privately.
 */
TRM_MUST_USE trm_status trm_weight_share_open(trm_comm *equals, size_t capacity,
                                              trm_weight_share **share_out);
/* Its parts, for processes without a communicator (tests). The segment: address space for
 * `capacity` bytes of weights; memory is taken as it is used. Made by one rank, which hands its
 * name and size (trm_segment_name, trm_segment_bytes) to the others, who attach. */
TRM_MUST_USE trm_status trm_weight_share_segment(size_t capacity, trm_segment **segment_out);
/* Takes the segment over, on success. */
TRM_MUST_USE trm_status trm_weight_share_create(trm_segment *segment, trm_weight_share **share_out);
void trm_weight_share_destroy(trm_weight_share *share); /* takes NULL; kernels must be gone */
/* For trm_device.weights; valid while the share lives. */
trm_weight_store *trm_weight_share_store(trm_weight_share *share);
/* Bytes that this process reads from the share, and how much of that it packed itself. */
void trm_weight_share_bytes(const trm_weight_share *share, size_t *used_out, size_t *packed_out);

#ifdef __cplusplus
}
#endif
#endif
