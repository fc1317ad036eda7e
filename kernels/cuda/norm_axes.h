/* Normalisation by something that was reduced over some axes (reduce.h) and is then applied to
 * every element: LpNormalization, MeanVarianceNormalization. */
#ifndef TRM_KERNELS_CUDA_NORM_AXES_H
#define TRM_KERNELS_CUDA_NORM_AXES_H

#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trmi_norm_axes {
    trm_dtype dtype;
    /* false: y = x / s, or 0 where s is 0; s in fp32 (f64 for f64).
     * true: y = (x - mean) / (sqrt(variance) + 1e-9) in f64; two f64 an entry */
    bool moments;
    int groups; /* dims in the order of memory, outermost first, and steps of the entry along them
                 */
    uint32_t dims[TRM_RANK_MAX];
    size_t steps[TRM_RANK_MAX];
    size_t count; /* elements, below 2^31 */
} trmi_norm_axes;

/* y may be x. */
TRM_MUST_USE trm_status trmi_cuda_norm_axes_run(const trmi_norm_axes *n, cudaStream_t stream,
                                                const void *x, const void *entries, void *y);

#ifdef __cplusplus
}
#endif
#endif
