/* Sums between ranks by our own kernels.
 *
 * In one step over memory that the ranks of a host have mapped from each other: a rank puts its
 * elements into a slot of its own memory, tells all peers, waits for theirs, and adds everybody's
 * in rank order in fp32. Each block of the grid does this for its own elements in its own area, so
 * that blocks wait for nobody but the same block of other ranks. Slots are used in turn: who
 * begins sum n has seen all begin n - 1, who have therefore finished reading n - 2. The count of
 * sums is in device memory, so that a captured launch can be run again.
 *
 * In two steps through NCCL for 16-bit floats, which NCCL itself adds in 16 bits: the parts come,
 * and are added in the same way. */
#ifndef TRM_KERNELS_CUDA_GROUP_SUM_H
#define TRM_KERNELS_CUDA_GROUP_SUM_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_GROUP_PEERS 8
#define TRMI_GROUP_BLOCKS 32
#define TRMI_GROUP_AREA 8192
#define TRMI_GROUP_SUM_BYTES ((size_t)TRMI_GROUP_BLOCKS * TRMI_GROUP_AREA) /* the largest sum */

/* Device memory of a rank. Zeroed before the first sum. */
typedef struct trmi_group_memory {
    /* written by peer r: the number of the last sum whose elements are in r's slot, and of the last
     * that r has read from this one's */
    uint32_t ready[TRMI_GROUP_PEERS][TRMI_GROUP_BLOCKS];
    uint32_t done[TRMI_GROUP_PEERS][TRMI_GROUP_BLOCKS];
    uint32_t count[TRMI_GROUP_BLOCKS]; /* sums of this rank */
    uint32_t late;                     /* a peer did not come: no sum is tried any more */
    uint32_t unused[TRMI_GROUP_BLOCKS - 1];
    unsigned char slot[2][TRMI_GROUP_BLOCKS][TRMI_GROUP_AREA];
} trmi_group_memory;

/* Pinned host memory of a rank. */
typedef struct trmi_group_words {
    uint32_t late; /* 1 + the rank that did not come */
    uint32_t stop; /* set by the host: whoever waits gives up */
} trmi_group_words;

typedef struct trmi_group_sum {
    trmi_group_memory *memory[TRMI_GROUP_PEERS]; /* as this process has mapped them */
    trmi_group_words *words;                     /* as the device sees them */
    int rank, size;
    uint64_t limit_ns; /* how long a peer is waited for */
} trmi_group_sum;

/* out[i] = sum over ranks of in[i]; F32, F16, BF16; at most TRMI_GROUP_SUM_BYTES; out may be in.
 * Any alignment that the dtype allows; 16 bytes is faster. All ranks: the same count and dtype.
 * Where a peer does not come, out is not written and words->late is set. */
TRM_MUST_USE trm_status trmi_cuda_group_sum(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                            const void *in, size_t elems, trm_dtype dtype,
                                            const trmi_group_sum *sum);

/* out[i] = sum in rank order, in fp32, of `size` parts: own[i] for `rank`, parts[r * stride + i]
 * for the others. F16, BF16. out may be own, or what belongs to `rank` in parts. */
TRM_MUST_USE trm_status trmi_cuda_group_parts(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                              const void *own, const void *parts, size_t stride,
                                              size_t elems, trm_dtype dtype, int rank, int size);

#ifdef __cplusplus
}
#endif
#endif
