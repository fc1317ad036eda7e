/* Launchers of the operators that select: TopK, NonMaxSuppression, NonZero, Compress. All of them
 * give exactly what the CPU gives, order included. */
#ifndef TRM_KERNELS_CUDA_SELECT_H
#define TRM_KERNELS_CUDA_SELECT_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How raw bits become an unsigned key in the order of the value. */
typedef enum trmi_key_kind { TRMI_KEY_UNSIGNED, TRMI_KEY_SIGNED, TRMI_KEY_FLOAT } trmi_key_kind;

/* Items that one block sorts in shared memory; longer lists are sorted in global memory. */
#define TRMI_SORT_SHARED 2048
/* An item of a sort in global memory is a key and an index: 8 bytes, 16 where keys have 64 bits. */
static inline size_t trmi_sort_item_bytes(trm_dtype dtype)
{
    return trm_dtype_bytes(dtype) == 8 ? 16 : 8;
}

/* The k largest (smallest) of each line of x: [outer, n, inner], along n: larger first, equal
 * values by lower index; NaN above everything, -0 equals +0. values, indices (i64): [outer, k,
 * inner], either may be NULL. n < 2^32, 1 <= k <= n.
 * workspace: trmi_topk_workspace() bytes, 16-byte aligned (0 bytes: NULL allowed). */
typedef struct trmi_topk {
    trm_dtype dtype;
    size_t outer, inner;
    uint32_t n, k;
    bool smallest;
} trmi_topk;
size_t trmi_topk_workspace(const trmi_topk *t);
trm_status trmi_cuda_topk_launch(const trm_cuda *cuda, const trmi_topk *t, const void *x,
                                 void *values, int64_t *indices, void *workspace,
                                 cudaStream_t stream);

/* NonMaxSuppression of lines = batches * classes; boxes f32 [batches, n, 4], scores f32 [batches,
 * classes, n]. Parameters are read on the device: most (i32 or i64), iou and score may be NULL (0,
 * 0, no score threshold). n <= 2^28. */
typedef struct trmi_nms {
    size_t batches, classes;
    uint32_t n, capacity; /* capacity: room of a line's list in `chosen` */
    bool center, most_is_i32;
    const float *boxes, *scores, *iou, *score;
    const void *most;
    /* scratch: `blocks` pieces of trmi_nms_scratch(n) bytes, 16-byte aligned */
    void *scratch;
    int blocks;
    uint32_t *counts; /* [lines] */
    int64_t *offsets; /* [lines + 2]: where each line's boxes go; then the total; then iou's bits */
    uint32_t *chosen; /* [lines, capacity] */
} trmi_nms;
size_t trmi_nms_scratch(uint32_t n);
/* Fills counts, offsets and chosen. */
trm_status trmi_cuda_nms_launch(const trmi_nms *p, cudaStream_t stream);
/* y: i64 [total, 3]: batch, class, box. */
trm_status trmi_cuda_nms_write_launch(const trmi_nms *p, int64_t *y, cudaStream_t stream);

/* ---- compaction: positions of what is not zero, in order ---- */
#define TRMI_COMPACT_TILE 2048 /* elements of a block */
/* Counts of the tiles of x ([count] of dtype) and their running sums: offsets: i64 [tiles + 1], the
 * total last. A float's -0 is zero, too. counts: u32 [tiles]. */
trm_status trmi_cuda_compact_count_launch(const void *x, trm_dtype dtype, size_t count,
                                          uint32_t *counts, int64_t *offsets, cudaStream_t stream);
/* y: i64 [rank, total]: coordinates in a tensor of dims[rank], 1 <= rank. total > 0. */
trm_status trmi_cuda_compact_write_launch(const void *x, trm_dtype dtype, size_t count, int rank,
                                          const int64_t *dims, const int64_t *offsets, size_t total,
                                          int64_t *y, cudaStream_t stream);
/* y[o, j, i] = x[o, at[j], i] for j < kept; x: [outer, axis, inner] of `elem_bytes` elements. */
trm_status trmi_cuda_compact_gather_launch(const void *x, const int64_t *at, size_t outer,
                                           size_t axis, size_t inner, size_t elem_bytes,
                                           size_t kept, void *y, cudaStream_t stream);

/* offsets[i] = counts[0] + ... + counts[i - 1] for i <= n, by one block. */
trm_status trmi_cuda_running_sums_launch(const uint32_t *counts, size_t n, int64_t *offsets,
                                         cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
