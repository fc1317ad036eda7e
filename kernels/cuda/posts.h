/* Post-ops of fused nodes (trm_post) on the device: described at prepare (posts.c), applied by
 * kernels to values in registers (posts.cuh), or by a kernel of their own in place on what a
 * library has written (posts.cu).
 *
 * A kernel applies x = post(x) for element `flat` of the output (its index in memory) in channel
 * `channel` (the coordinate of the axis along which CHANNEL operands lie). */
#ifndef TRM_KERNELS_CUDA_POSTS_H
#define TRM_KERNELS_CUDA_POSTS_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_POSTS_MAX (TRM_POST_MAX + 1) /* Gemm's C is one more */

typedef enum trmi_post_mode {
    TRMI_POST_UNARY,
    TRMI_POST_SAME,    /* operand[flat] */
    TRMI_POST_CHANNEL, /* operand[channel] */
    TRMI_POST_SCALAR,  /* operand[0] */
    TRMI_POST_STRIDED, /* operand[sum of coordinates times strides]; plain outputs only */
} trmi_post_mode;

typedef struct trmi_post_step {
    int op; /* trm_op */
    int mode;
    float alpha, beta; /* as in trm_post; Add: x + alpha * operand */
    const void *operand;
    int wide; /* operand is fp32 where the output has 16 bits */
    int64_t strides[TRM_RANK_MAX];
} trmi_post_step;

/* Travels by value in a kernel's arguments. */
typedef struct trmi_posts {
    int count;
    int rank; /* dims of the output: for STRIDED */
    int64_t dims[TRM_RANK_MAX];
    trmi_post_step steps[TRMI_POSTS_MAX];
} trmi_posts;

/* What prepare makes of them, and keeps for run. */
typedef struct trmi_post_plan {
    trmi_posts posts;
    int input[TRMI_POSTS_MAX];        /* node input of step i's operand; -1: none */
    trmi_pack *packs[TRMI_POSTS_MAX]; /* its device copy where it is constant; NULL */
} trmi_post_plan;

/* Appends a post of the node. axis: of output 0, for CHANNEL operands; -1: there is none. Operands
 * have the output's dtype or fp32, and are asked for in layout `layout` (SAME; output 0 has it
 * too) or PLAIN. Constants stay with the caller until trmi_cuda_posts_keep. UNSUPPORTED: another
 * dtype, an operand that broadcasts along other dims in CHANNELS_LAST, an operator unknown here.
 * INVALID_ARG: a shape that does not broadcast. */
TRM_MUST_USE trm_status trmi_cuda_posts_add(trm_op_desc *desc, const trm_post *post, int axis,
                                            trm_layout layout, trmi_post_plan *plan);
/* All posts of the node. */
TRM_MUST_USE trm_status trmi_cuda_posts_all(trm_op_desc *desc, int axis, trm_layout layout,
                                            trmi_post_plan *plan);
void trmi_cuda_posts_remove(trmi_post_plan *plan, int step);
/* Puts the constants among the operands into device memory; *packed gets their inputs' bits. */
TRM_MUST_USE trm_status trmi_cuda_posts_keep(trm_cuda *cuda, const trm_op_desc *desc,
                                             trmi_post_plan *plan, uint32_t *packed);
void trmi_cuda_posts_fini(trm_cuda *cuda, trmi_post_plan *plan);
/* With the pointers of a run. */
trmi_posts trmi_cuda_posts_bind(const trmi_post_plan *plan, const void *const *in);

/* Applies the posts to d[elems] in place; channel: (index / inner) % channels, inner 1 where
 * channels lie innermost. dtype: a float. d: aligned to its elements, 16 bytes for speed. */
TRM_MUST_USE trm_status trmi_cuda_posts_run(const trm_cuda *cuda, cudaStream_t stream,
                                            trm_dtype dtype, void *d, size_t elems, size_t channels,
                                            size_t inner, const trmi_posts *posts);

#ifdef __cplusplus
}
#endif
#endif
