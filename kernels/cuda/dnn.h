/* Convolutions by cuDNN: the only place that the rest of the backend meets cuDNN
 * through (dnn.c; the graph API's descriptors are built in dnn_graph.c, plans in dnn_plan.c).
 *
 *   y = steps(conv(x, w))     activations channels-last, one rounding when y is stored
 *
 * Every intermediate is fp32 (integers: int32) and lies in registers. Plans are chosen per
 * description: heuristics, then measured where a GPU can be timed; the choice is kept for the
 * process, and on disk for the GPU and the version of cuDNN. fp32 never runs as TF32. The workspace
 * is the caller's, running allocates no device memory and can be captured. */
#ifndef TRM_KERNELS_CUDA_DNN_H
#define TRM_KERNELS_CUDA_DNN_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TRMI_DNN_STEPS_MAX 6 /* a bias and the posts of a node */

typedef enum trmi_dnn_kind {
    TRMI_DNN_CONV,
    TRMI_DNN_CONV_TRANSPOSED /* as the gradient of a convolution by its input */
} trmi_dnn_kind;

typedef enum trmi_dnn_operand {
    TRMI_DNN_NO_OPERAND,
    TRMI_DNN_CHANNEL, /* [filters] */
    TRMI_DNN_FULL     /* as y, channels-last */
} trmi_dnn_operand;

/* op: Add or Mul (with an operand), or a unary of trm_post. */
typedef struct trmi_dnn_step {
    trm_op op;
    trmi_dnn_operand operand;
    trm_dtype dtype; /* of the operand */
    float alpha, beta;
} trmi_dnn_step;

/* Fill a zeroed one: it is compared as bytes. Lists of spatial dims have `spatial` entries.
 * x: [batch, in..., channels]; y: [batch, out..., filters].
 * w: [filters, kernel..., channels / group]; transposed: [channels, kernel..., filters / group]. */
typedef struct trmi_dnn_desc {
    trmi_dnn_kind kind;
    int spatial; /* 2 or 3 */
    int step_count;
    trm_dtype x, w, y; /* F32, F16, BF16; I8 (y then I32 or I8) */
    int64_t batch, channels, filters, group;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
    trmi_dnn_step steps[TRMI_DNN_STEPS_MAX];
} trmi_dnn_desc;

typedef struct trmi_dnn_plan trmi_dnn_plan;

/* UNSUPPORTED: cuDNN has no engine for it (or only ones that would not be exact enough). The plan
 * is shared by all who ask for the same, and belongs to the device. */
TRM_MUST_USE trm_status trmi_cuda_dnn_plan(trm_cuda *cuda, const trmi_dnn_desc *desc,
                                           trmi_dnn_plan **plan_out);
size_t trmi_cuda_dnn_workspace_bytes(const trmi_dnn_plan *plan);
/* Enqueues. operands: one a step (NULL where it has none). Pointers are 16-byte aligned; y may be
 * no other pointer. */
TRM_MUST_USE trm_status trmi_cuda_dnn_run(trm_cuda *cuda, trmi_dnn_plan *plan, cudaStream_t stream,
                                          const void *x, const void *w, const void *const *operands,
                                          void *y, void *workspace);

#ifdef __cplusplus
}
#endif
#endif
