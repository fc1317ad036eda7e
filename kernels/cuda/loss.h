/* NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss: x [n, classes, d] scores, target [n, d].
 *
 *   loss = weight[target] * (log(sum of exp(x)) - x[target])      without the logarithm for NLL
 *
 * in f64; 0 where the target is `ignore`. A target outside the classes gives NaN: a kernel cannot
 * fail without being waited for. */
#ifndef TRM_KERNELS_CUDA_LOSS_H
#define TRM_KERNELS_CUDA_LOSS_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trmi_loss_reduction {
    TRMI_LOSS_NONE,
    TRMI_LOSS_SUM,
    TRMI_LOSS_MEAN
} trmi_loss_reduction;

typedef struct trmi_loss {
    trm_dtype x, target, weight, out; /* target: I32 or I64; weight NONE: 1 */
    trmi_loss_reduction reduction;
    bool softmax, has_ignore;
    int64_t ignore;
    size_t n, classes, d; /* n * d and classes below 2^31 */
} trmi_loss;

/* [2, n, d] f64: losses and weights; 0 without a reduction */
size_t trmi_cuda_loss_workspace_bytes(const trmi_loss *loss);
/* logs: log-probabilities of x's shape and dtype, or NULL. */
TRM_MUST_USE trm_status trmi_cuda_loss_run(const trmi_loss *loss, cudaStream_t stream,
                                           const void *x, const void *target, const void *weight,
                                           void *out, void *logs, void *workspace);

#ifdef __cplusplus
}
#endif
#endif
