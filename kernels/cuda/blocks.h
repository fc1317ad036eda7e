/* Strided copies of many blocks (trm_block), with which collectives pack and unpack what ranks
 * exchange: up to TRMI_BLOCKS_LAUNCH of them a launch, by value. */
#ifndef TRM_KERNELS_CUDA_BLOCKS_H
#define TRM_KERNELS_CUDA_BLOCKS_H

#include "kernels/cuda/move.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_BLOCKS_LAUNCH 32

/* [rest][dims 1][dims 0][run] units, the first slowest. Offsets and steps are in units. */
typedef struct trmi_block {
    uint64_t count; /* units in all */
    uint64_t from_at, to_at;
    uint64_t from_step[3], to_step[3]; /* of dims 0, dims 1, rest */
    trmi_div run, dims[2];
} trmi_block;

typedef struct trmi_blocks {
    uint32_t count;
    trmi_block block[TRMI_BLOCKS_LAUNCH];
} trmi_blocks; /* below 4 KB */

/* from and to: multiples of `unit`, which is 1, 2, 4, 8 or 16; the blocks do not overlap in `to`;
 * from and to do not overlap. */
TRM_MUST_USE trm_status trmi_cuda_blocks(const trm_cuda *cuda, cudaStream_t stream, void *to,
                                         const void *from, int unit, const trmi_blocks *blocks);

/* The device's prepare_blocks. */
TRM_MUST_USE trm_status trmi_cuda_prepare_blocks(trm_device *d, const trm_block *blocks, int count,
                                                 trm_kernel **kernel_out);

#ifdef __cplusplus
}
#endif
#endif
