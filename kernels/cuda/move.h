/* Launchers of the kernels that move elements without changing them. Everything works by element
 * width, so all dtypes run. Pointers are device memory, aligned to their elements; wider accesses
 * are used where pointers and strides allow. */
#ifndef TRM_KERNELS_CUDA_MOVE_H
#define TRM_KERNELS_CUDA_MOVE_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_MOVE_RANK 16

/* A transposition in tiles: see move_tile.cuh. Steps in elements. */
typedef struct trmi_move_tile {
    int outer_rank;
    uint64_t outer[TRMI_MOVE_RANK];
    int64_t outer_in[TRMI_MOVE_RANK], outer_out[TRMI_MOVE_RANK];
    int64_t a_count, b_count; /* a: step 1 in the input; b: step 1 in the output */
    int64_t a_out, b_in;      /* the other steps */
    int a_log, b_log;         /* filled in by the launcher, from here on */
    uint64_t a_tiles, b_tiles;
} trmi_move_tile;

/* `bytes` from `in` to `out`, which do not overlap. */
TRM_MUST_USE trm_status trmi_cuda_copy_flat(const trm_cuda *cuda, cudaStream_t stream, void *out,
                                            const void *in, size_t bytes);

#ifdef __cplusplus
}
#endif
#endif
